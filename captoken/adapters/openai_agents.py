"""Guard the tools of openai-agents, and hand tokens to sub-agents.

    sales = guarded(Agent(name="sales-agent", tools=[query_sales]), guard)
    ask = delegate_to(sales, tools={"query_sales": {}}, expires_in=60)
    boss = guarded(Agent(name="orchestrator", tools=[ask]), guard)
    with current.use(token):
        result = await Runner.run(boss, "Report on risk.")

See docs/agents-openai.md.

1. Every function tool of a guarded agent checks each call, including tools of MCP servers and
   agents as tools.
2. A tool that something else runs (the provider, a shell, a computer) cannot be checked, nor can
   one of a stored prompt. An agent that has one raises GuardError, when it is built and again at
   each turn.
3. A guarded tool runs only for guarded agents. The caller is the running agent, by its name. A run
   inside a tool call needs a token of its own, even if the same agent runs.
4. An agent as a tool must be guarded itself, and so must an agent that receives a handoff.
5. A sub-agent is handed only a narrowed token. It gets neither the context object nor its caller's
   grants.
6. A handoff by `handoff_to` passes on the agent's own token, narrowed, with the conversation. An
   agent without a token cannot hand off. Any other handoff would pass on nothing, so it raises
   GuardError.
7. A denial becomes the tool's output for the model, and the run continues. The same happens if the
   arguments are not one JSON object with unique names, and if the tool itself was denied something
   (Denied).
8. A token passed on by a handoff is for that run only. Runs inside a tool call start without one.
9. With `pause=True` a call that wants a person's consent interrupts the run, and `requests_of` says
   what to ask. An approval in the RunState resumes the run, and the guard still asks for a consent.
   The state holds no token: resume it in `current.use(token, consents=[…])`.
"""

from __future__ import annotations

import copy
import json
import weakref
from collections.abc import Callable, Collection
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Unpack

from captoken._format.extras import extra

with extra("openai-agents"):
    from agents import (
        Agent,
        AgentBase,
        FunctionTool,
        Handoff,
        RunConfig,
        RunContextWrapper,
        Runner,
        RunResult,
        RunState,
        Tool,
        function_tool,
        handoff,
    )
    from agents.handoffs import HandoffInputData
    from agents.tool_context import ToolContext

from captoken import current
from captoken._format.errors import GuardError
from captoken.adapters._agents.guarding import checked_guard
from captoken.adapters._agents.handing import (
    Narrowing,
    handed_on,
    only,
    tool_description,
    tool_name,
)
from captoken.adapters._agents.pausing import Wanted, wanted
from captoken.adapters._context_value import context_value
from captoken.current import Held
from captoken.tools import REFUSED, ToolGuard, agent_name, calling, handing, refusal_text


@dataclass
class GuardedAgent(Agent[Any]):
    """An agent whose tools run only if the current token permits the call.

    `guarded` makes one. Raises GuardError if a tool or handoff cannot be guarded: when it is built,
    when `tools` or `handoffs` is assigned, and at the start of a turn if one was added meanwhile.
    """

    guard: ToolGuard = field(kw_only=True)
    pause: bool = field(default=False, kw_only=True)  # rule 9

    def __post_init__(self) -> None:
        checked_guard(self.guard)
        super().__post_init__()  # type: ignore[no-untyped-call]
        self._check()

    def __setattr__(self, name: str, value: Any) -> None:
        """Assigning `tools` or `handoffs` guards them, as building the agent does.

        Here, since dataclasses and `clone` assign them too. Another name makes another agent of it,
        whose handoffs hand on that one's token.
        """
        if name == "tools" and isinstance(value, list):
            value = [_asking(tool) for tool in value]
        if name == "handoffs" and isinstance(value, list):
            value = [_owned(item, self.name) for item in value]
        super().__setattr__(name, value)
        if name == "name":
            self.handoffs = getattr(self, "handoffs", [])  # they are the agent's, by its name

    def _check(self) -> None:
        """Rules 2 and 6. Raises GuardError.

        The lists of an agent are its owner's to change: what was put in past `__setattr__` asks
        nobody, and is found here.
        """
        if self.prompt is not None:
            raise GuardError(
                "a stored prompt can bring tools that no guard sees: use instructions instead"
            )
        if any(_asking(tool) is not tool for tool in self.tools):
            raise GuardError(
                "a tool was added to the list of a guarded agent: assign to agent.tools instead"
            )
        if not all(_hands_on(item) for item in self.handoffs):
            raise GuardError(
                "after this handoff the next agent would hold no token: make the handoff with "
                "handoff_to"
            )
        if any(_owned(item, self.name) is not item for item in self.handoffs):
            raise GuardError(
                "a handoff was added to the list of a guarded agent: assign to agent.handoffs "
                "instead"
            )

    async def get_all_tools(self, run_context: RunContextWrapper[Any]) -> list[Tool]:
        """The guarded tools of one turn, including those of MCP servers. Raises GuardError."""
        self._check()
        tools = [_asking(tool) for tool in await super().get_all_tools(run_context)]
        names = [tool.qualified_name for tool in tools]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise GuardError(
                f"two tools are called {twice}: a token cannot tell them apart; rename one"
            )
        return [_waiting(tool, self) if self.pause is True else tool for tool in tools]


def guarded(agent: Agent[Any], guard: ToolGuard, *, pause: bool = False) -> GuardedAgent:
    """Return a guarded copy of `agent`.

    With `pause=True` a call that wants a person's consent interrupts the run (rule 9). Raises
    GuardError if the agent cannot be guarded (rules 2, 4 and 6), or is of a subclass of
    Agent.
    """
    if type(agent) is not Agent:
        raise GuardError(
            f"a {type(agent).__name__} may run more than its tools: only an Agent can be guarded"
        )
    settings = {one.name: getattr(agent, one.name) for one in fields(agent) if one.init}
    return GuardedAgent(**settings, guard=guard, pause=pause)


# --- tools ------------------------------------------------------------------------------------


def _asking(tool: Tool) -> FunctionTool:
    """The tool, asking before it runs; itself if it does already.

    A copy: the tool that was given may stand in the list of an agent that is not guarded. Raises
    GuardError for what cannot ask (rules 2 and 4).
    """
    if not isinstance(tool, FunctionTool):  # rule 2
        raise GuardError(
            f"no guard sees what {type(tool).__name__} does: leave it out"
        )
    if isinstance(tool.on_invoke_tool, _Asking):
        return tool
    inside = _agent_inside(tool)
    if inside is not None and not isinstance(inside, GuardedAgent):  # rule 4
        raise GuardError(
            f"the agent {inside.name!r} is used as a tool, and is not guarded itself: make it with "
            "guarded()"
        )

    asking = copy.copy(tool)
    if callable(tool.needs_approval):
        asking.needs_approval = _policy(tool, tool.needs_approval)
    declared = tuple(tool.params_json_schema.get("properties", ()))
    asking.on_invoke_tool = _Asking(asking.qualified_name, asking.on_invoke_tool, declared)
    return asking


def _agent_inside(tool: FunctionTool) -> Any:
    """The agent that a tool of `Agent.as_tool` runs, or None; there is no public word for it.

    Raises GuardError where the framework has no such word any more: any tool may then be an agent.
    """
    try:
        return vars(tool)["_agent_instance"]
    except KeyError:
        raise GuardError(
            f"captoken cannot tell whether {tool.name} is an agent in this release of "
            "openai-agents: install a release that captoken names"
        ) from None


def _policy(tool: FunctionTool, policy: Callable[..., Any]) -> Callable[..., Any]:
    """When a person is asked before the tool runs.

    The framework has a person asked where a policy would not see what the tool gets. It looks for
    that at the function that runs the tool, which is ours now, and cannot see behind it: so do we.
    """
    prepare = getattr(tool.on_invoke_tool, "prepare_arguments", None)

    async def asked(
        context: Any,
        parameters: dict[str, Any],
        call_id: str,
    ) -> bool:
        prepared = prepare(json.dumps(parameters), tool.name) if prepare is not None else None
        if prepared is not None and not prepared.unchanged:
            return True
        return bool(await policy(context, parameters, call_id))

    return asked


class _Asking:
    """What a guarded tool does when it is called.

    It takes the place of the function that runs the tool, with all that the framework calls it
    with.
    """

    def __init__(
        self,
        tool: str,
        invoke: Callable[[ToolContext[Any], str], Any],
        declared: Collection[str],
    ) -> None:
        """`declared` are the arguments that the model is told the tool has."""
        self._tool = tool
        self._invoke = invoke
        self._declared = declared

    async def __call__(self, context: ToolContext[Any], input: str) -> Any:
        """What the tool gives, or what the model is told in its place.

        The token is the one that a handoff gave to this agent in this run, or else the current one.
        """
        agent = context.agent
        if not isinstance(agent, GuardedAgent):  # rule 3
            return "Not permitted: the agent that calls has no guard."
        inside = _inside.get()
        held = inside.handed.held_in(context, agent.name)
        run = _run_of(context, inside)
        decision = await agent.guard.check_async(
            self._tool,
            _arguments(input),
            agent=agent.name or "",
            run=run,
            held=held,
        )
        if decision.grant is None:
            return agent.guard.for_model(decision, self._declared)
        try:
            grant = agent.guard.served(decision.grant)
            within_it = context_value(_inside, _Inside(context, run, _Handed()))  # rule 8
            with calling(grant, run=run, held=held), within_it:
                return await self._invoke(context, input)
        except REFUSED as refused:  # rule 7
            return refusal_text(refused, agent.guard.for_model)


def _run_of(context: object, inside: _Inside) -> object:
    """What the run of a call is known by.

    The framework has no word for it that a nested run may not share: neither the agent, nor the
    usage object, nor the id of the call, which a model chooses. But each call has a context of its
    own. So what comes with the context of the call around it belongs to that, and is of its run;
    all else is of another run.
    """
    return inside.run if inside.context is context else object()


def _arguments(text: str) -> Any:
    """Rule 7: what the tool will read, or what is no mapping and so never permitted.

    The tool reads the text by itself, later. So the guard is asked about the one way in which it
    can be read, or about nothing.
    """
    if not text:
        return {}
    try:
        read = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return "none"
    return read if isinstance(read, dict) else "none"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of which each name stands once. Raises ValueError."""
    read = dict(pairs)
    if len(read) < len(pairs):
        raise ValueError("a name appears twice, and readers differ about which one counts")
    return read


# --- consents: rule 9 ---------------------------------------------------------------------------


def _waiting(tool: FunctionTool, agent: GuardedAgent) -> FunctionTool:
    """The tool, for a turn of `agent`: its calls wait where they want a person's consent.

    Asked of all calls of a response before the first of them runs, as the framework asks.
    """
    own = tool.needs_approval

    async def waits(context: RunContextWrapper[Any], parameters: dict[str, Any], id: str) -> bool:
        asked = own if isinstance(own, bool) else await own(context, parameters, id)
        return asked or await _request(agent, context, tool.qualified_name, parameters) is not None

    made = copy.copy(tool)
    made.needs_approval = waits
    return made


async def _request(
    agent: GuardedAgent,
    context: RunContextWrapper[Any] | None,
    tool: str,
    arguments: Any,
) -> str | None:
    """What to ask a person before this call; None where no consent would let it through."""
    handed = None if context is None else _inside.get().handed.held_in(context, agent.name)
    return await agent.guard.request_async(tool, arguments, agent=agent.name or "", held=handed)


async def requests_of(paused: RunResult | RunState[Any]) -> list[Wanted]:
    """What to ask a person before an interrupted run goes on, call by call (rule 9).

        for one in await requests_of(result):
            consents.append(approver.consent(one["request"]))

    The token is the current one, as when the run was interrupted. An interruption for another
    reason is not among them. Approve each interruption in the state, then run it with the consents:
    `with current.use(token, consents=consents)`.
    """
    if isinstance(paused, RunState):
        interruptions, context = paused.get_interruptions(), None
    else:
        interruptions, context = paused.interruptions, paused.context_wrapper
    found = []
    for item in interruptions:
        if isinstance(item.agent, GuardedAgent):
            tool = item.qualified_name or ""
            asked = await _request(item.agent, context, tool, _arguments(item.arguments or ""))
            if asked is not None:
                found.append(wanted(item.call_id, tool, asked))
    return found


# --- sub-agents -------------------------------------------------------------------------------


async def run_delegated(
    agent: GuardedAgent,
    input: str | list[Any],
    *,
    context: Any = None,
    run_config: RunConfig | None = None,
    max_turns: int = 10,
    **narrowing: Unpack[Narrowing],
) -> RunResult:
    """Run `agent` with only the current token, narrowed as by `Held.delegate` (rule 5).

    Raises GuardError for an agent that is not guarded, NoToken, what `Held.delegate` raises, and
    what the run raises. To run an agent in another way, put `with
    current.delegate(to=agent_name(agent.name), …)` around it.
    """
    _check_guarded(agent)
    child = handed_on(current.holding(), agent_name(agent.name), narrowing)
    with only(child):
        return await Runner.run(
            agent,
            input,
            context=context,
            run_config=run_config,
            max_turns=max_turns,
        )


def delegate_to(
    agent: GuardedAgent,
    *,
    name: str | None = None,
    description: str | None = None,
    context: Callable[[ToolContext[Any]], Any] | None = None,
    max_turns: int = 10,
    **narrowing: Unpack[Narrowing],
) -> FunctionTool:
    """A tool for an orchestrator that hands a task to `agent`, by `run_delegated`.

    Use it in place of `Agent.as_tool`. The default name is `ask_` followed by the agent's name.
    `context` makes the sub-agent's context object from the caller's; without it, the sub-agent has
    none.

    Raises GuardError for an agent that is not guarded. When called, the tool raises GuardError if
    the calling agent holds no token of its own. It also raises GuardError if a tool of the
    sub-agent waits for an approval, because nobody could give it.
    """
    _check_guarded(agent)

    async def ask(caller: ToolContext[Any], task: str) -> Any:
        handing(_name_of(caller.agent), run=_run_of(caller, _inside.get()))
        done = await run_delegated(
            agent,
            task,
            context=context(caller) if context is not None else None,
            run_config=caller.run_config,
            max_turns=max_turns,
            **narrowing,
        )
        caller.usage.add(done.context_wrapper.usage)
        if done.interruptions:
            raise GuardError(
                f"a tool of {agent.name} waits for an approval: run the agent with run_delegated"
            )
        return done.final_output

    return function_tool(
        ask,
        name_override=name or tool_name("ask", agent.name),
        description_override=description or tool_description(agent.name),
        failure_error_function=None,
    )


def _name_of(agent: AgentBase[Any] | None) -> str | None:
    """The name of who runs, or None where the framework does not say.

    None is not taken for nobody by `handing`: what is current has to be of this run even so.
    """
    return agent.name if agent is not None else None


def _check_guarded(agent: Agent[Any]) -> None:
    """Rule 4. Raises GuardError for an agent that a token would be handed to in vain.

    Its tools would run whether the token permits it or not.
    """
    if not isinstance(agent, GuardedAgent):
        raise GuardError(
            f"the agent {agent.name!r} is not guarded, so its tools would run without a check: "
            "make it with guarded()"
        )


# --- handoffs ---------------------------------------------------------------------------------


class _Handed:
    """Who was handed what, in each run that is not inside a tool call of another (rule 8).

    A run is known by the identity of its usage object, the one thing that all contexts of a run
    share, while that lives. One that is restored from a RunState begins anew: nothing was handed on
    in it.
    """

    def __init__(self) -> None:
        self.runs: dict[int, dict[str, Held]] = {}

    def held_in(self, context: RunContextWrapper[Any], agent: object) -> Held | None:
        """What that agent was handed in a run, or None."""
        handed = self.runs.get(id(context.usage))
        return None if handed is None else handed.get(agent_name(agent))

    def of(self, context: RunContextWrapper[Any]) -> dict[str, Held]:
        """What was handed on in a run, by the name of the agent; it can be added to.

        The entry goes when the run's usage object does: an id is not used twice while it is known
        here.
        """
        usage = context.usage
        if id(usage) not in self.runs:
            self.runs[id(usage)] = {}
            weakref.finalize(usage, self.runs.pop, id(usage), None)
        return self.runs[id(usage)]


class _Inside(NamedTuple):
    """What a tool call runs is inside of."""

    # The context of the call, and its run.
    context: object
    run: object

    # Who was handed what there. Nothing at first, since a nested run may share the usage object: it
    # holds what is current, and not what a handoff around the call gave to an agent of its name.
    handed: _Handed


_inside: ContextVar[_Inside] = ContextVar(
    "captoken.openai_agents.inside",
    default=_Inside(None, None, _Handed()),  # noqa: B039, one for all: no call is around it
)


class _HandOn:
    """What a handoff does to the token of its agent, the `owner`.

    On the way back to an agent that has handed it on, it does nothing.
    """

    def __init__(
        self,
        to: str,
        invoke: Callable[..., Any],
        narrowed: Callable[[Held], Held],
        owner: str | None = None,
    ) -> None:
        self._to = to
        self._invoke = invoke
        self._narrowed = narrowed
        self.owner = owner

    def of(self, owner: str) -> _HandOn:
        """The same, of that agent."""
        return _HandOn(self._to, self._invoke, self._narrowed, owner)

    async def __call__(self, context: RunContextWrapper[Any], input: str) -> Any:
        """One handoff: the token goes first, then the conversation.

        Raises GuardError where the agent holds none of its own (rule 6), and what `Held.delegate`
        raises. On the way back the agent holds what it held before.
        """
        handed = _inside.get().handed.of(context)
        held = handed.get(agent_name(self.owner)) or current.holding()
        if self.owner is None or held.holder != agent_name(self.owner):  # rule 6
            raise GuardError(
                f"the agent {self.owner!r} was given no token, so it has none to hand on"
            )
        if self._to not in held.holders:
            handed[self._to] = self._narrowed(held)
        return await self._invoke(context, input)


def _hands_on(item: Any) -> bool:
    """Is it a handoff by `handoff_to`?

    An agent in the list is none, and a handoff of the framework's own is none: both go without a
    token.
    """
    return isinstance(item, Handoff) and isinstance(item.on_invoke_handoff, _HandOn)


def _owned(item: Any, owner: str) -> Any:
    """The handoff, as one of this agent; itself if it is, or if it is none of ours.

    A handoff may be listed by several agents. Each hands on its own token, and so has a copy.
    """
    made = item.on_invoke_handoff if isinstance(item, Handoff) else None
    if not isinstance(made, _HandOn) or made.owner == owner:
        return item
    own = copy.copy(item)
    own.on_invoke_handoff = made.of(owner)
    return own


def handoff_to(
    agent: GuardedAgent,
    *,
    name: str | None = None,
    description: str | None = None,
    input_filter: Callable[[HandoffInputData], HandoffInputData] | None = None,
    **narrowing: Unpack[Narrowing],
) -> Handoff[Any, Any]:
    """A handoff that passes on the token of the agent that hands off.

    The token is narrowed as by `Held.delegate`. The handoff itself needs no permission. The default
    name is `transfer_to_` followed by the agent's name. The whole conversation goes along,
    including what earlier agents have read, unless you set `input_filter`.

    Raises GuardError for an agent that is not guarded. What `Held.delegate` raises ends the run.
    """
    _check_guarded(agent)
    to = agent_name(agent.name)
    made = handoff(
        agent,
        tool_name_override=name or tool_name("transfer_to", agent.name),
        tool_description_override=description,
        input_filter=input_filter,
    )

    def narrowed(held: Held) -> Held:
        return held.delegate(to=to, **narrowing)

    made.on_invoke_handoff = _HandOn(to, made.on_invoke_handoff, narrowed)
    return made
