"""Guard the tools of pydantic-ai agents, and hand tokens to sub-agents.

    own = [TokenGuard(guard)]
    sales = Agent(model, name="sales-agent", tools=[query_sales], capabilities=own)
    ask = delegate_to(sales, tools={"query_sales": {}}, expires_in=60)
    boss = Agent(model, name="orchestrator", tools=[ask], capabilities=own)
    with current.use(token):
        result = await boss.run("Report on risk.")

See docs/agents-pydantic-ai.md.

1. Every tool call is checked with the arguments that the tool gets: after validation, defaults and
   hooks. Their values count, not how a class serializes itself. If another capability wraps the
   tools, its tool is checked before it runs. If a wrapper answers for a tool without calling it,
   that call is checked before the answer is returned.
2. A call that runs outside the run (an external tool) is checked before it is handed out.
3. An output function is a tool with its own name. If it takes one argument, that argument is
   checked as `output`.
4. A tool that the model's provider runs cannot be checked, so a request that has one raises
   GuardError. The same applies to an image, because the provider makes it with such a tool.
5. The caller is the running agent, by its name. An agent without a name cannot be guarded.
6. A denial is a failed call for the model. It uses up no retries, and the run continues. The same
   happens if the tool itself was denied something (Denied).
7. A sub-agent is handed only a narrowed token. It gets neither dependencies nor its caller's
   grants.
8. If `agent.override(spec=…)` removes the guard, the run raises GuardError.
9. With `TokenGuard(…, pause=True)` a call that wants a person's consent is deferred, and the run
   ends with DeferredToolRequests: `requests_of` says what to ask. An approval in the results is no
   consent. The history holds no token: resume it in `current.use(token, consents=[…])`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import AbstractContextManager, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from types import UnionType
from typing import Any, TypeAlias, TypeVar, Union, Unpack, get_args, get_origin

from captoken._format.extras import extra

with extra("pydantic-ai"):
    from pydantic_ai import ApprovalRequired, DeferredToolRequests, ModelRetry, RunContext, Tool
    from pydantic_ai.agent import AbstractAgent, AgentRunResult
    from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
    from pydantic_ai.exceptions import ToolFailed
    from pydantic_ai.messages import ToolCallPart
    from pydantic_ai.models import ModelRequestContext
    from pydantic_ai.output import OutputContext
    from pydantic_ai.tools import ToolDefinition
    from pydantic_ai.toolsets import AbstractToolset, ToolsetTool, WrapperToolset
    from pydantic_ai.usage import RunUsage
    from pydantic_core import PydanticSerializationError

from captoken import current
from captoken._format.errors import GuardError
from captoken._language.bounds import too_large
from captoken._verification.decision import Decision, Denied
from captoken.adapters._agents.guarding import checked_guard, refuse_native, unasked
from captoken.adapters._agents.handing import (
    Narrowing,
    handed_on,
    only,
    tool_description,
    tool_name,
)
from captoken.adapters._agents.pausing import KEY, Wanted, wanted
from captoken.adapters._agents.plain import as_json
from captoken.adapters._context_value import context_value
from captoken.current import AnyGrant
from captoken.tools import (
    REFUSED,
    ToolGuard,
    Who,
    agent_name,
    calling,
    handing,
    refusal_text,
    telling,
)

_OutputT = TypeVar("_OutputT")

# In a tool's metadata: its toolset is behind the guard's (rule 1). The mark is known by identity,
# and so made where nothing is interned: who writes the same text is not believed.
_ASKED = "captoken.asked"
_MARK = " ".join(("behind", "the", "guard"))

_SEARCH = (
    "tool_search"  # a tool of the provider's that only finds tools: to call one is asked about
)
_IMAGE = "image_generation"  # the tool of the provider's by which an image is made

_Key: TypeAlias = "tuple[str, str | None, str | None]"  # of a call: its tool, its run, its id


@dataclass
class _Call:
    """A call of a tool behind the guard, on its way through what is wrapped around that.

    `permitted` is set where the tool itself is reached, and so was asked about there.
    """

    owner: TokenGuard
    key: _Key
    permitted: bool = False


_calls: ContextVar[tuple[_Call, ...]] = ContextVar("captoken.pydantic_ai.calls", default=())


def _on_its_way(call: _Call) -> AbstractContextManager[None]:
    """In this block, what wrappers do is part of `call`."""
    return context_value(_calls, (*_calls.get(), call))


class TokenGuard(AbstractCapability[Any]):
    """Lets the agent call the tools that the current token permits, and no other.

    `native` are the kinds of provider-run tools that may be used unasked (rule 4). With
    `pause=True` a call that wants a person's consent waits for it (rule 9). Raises GuardError for
    an agent that has no name, or that is to pause without DeferredToolRequests among its output
    types. Realtime sessions have no place for rules 3, 4 and 8.
    """

    def __init__(
        self,
        guard: ToolGuard,
        *,
        native: Collection[str] = (),
        pause: bool = False,
    ) -> None:
        self._guard = checked_guard(guard)
        self._pause = pause is True
        self._native = unasked(native, "kinds") | {_SEARCH}

    def for_agent(self, agent: AbstractAgent[Any, Any]) -> TokenGuard:
        """Rule 5: this guard, for an agent that has a name. Raises GuardError."""
        if not agent.name:  # rule 5
            raise GuardError("give the agent a name, Agent(…, name=…): its token names its holder")
        if self._pause and not _can_pause(agent):  # rule 9
            raise GuardError(
                "the guard is to pause runs, and a run cannot end so: add DeferredToolRequests, "
                "Agent(…, output_type=[str, DeferredToolRequests])"
            )
        if _is_guarded(agent.root_capability):  # and not for one run alone
            _see_to_runs(agent)  # rule 8
        return self

    def get_ordering(self) -> CapabilityOrdering:
        """Innermost: what other capabilities make of a call is done before it is asked about."""
        return CapabilityOrdering(position="innermost")

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
        """Rule 1: the agent's tools, behind this guard."""
        return _Guarded(toolset, self)

    async def wrap_tool_execute(
        self,
        ctx: RunContext[Any],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: dict[str, Any],
        handler: Callable[[dict[str, Any]], Any],
    ) -> Any:
        """Rule 1, from outside: around everything that capabilities wrap around the tool.

        A tool that is not behind the guard is asked about here, before it runs. One that is was
        asked about when it was reached; if it was not reached, somebody else has answered for it.
        """
        if not _is_marked(tool_def):  # not behind the guard, which would ask
            return await self.run_permitted(
                ctx, call.tool_name, args, lambda: handler(args), ToolFailed, tool_def
            )
        made = _Call(self, _key(call.tool_name, ctx))
        with _on_its_way(made):
            answer = await handler(args)
        if not made.permitted:  # a wrapper has answered
            with telling(ToolFailed, self.told_of(tool_def)):
                await self.permitted(call.tool_name, args, ctx)
        return answer

    async def wrap_tool_validate(
        self,
        ctx: RunContext[Any],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: str | dict[str, Any],
        handler: Callable[[str | dict[str, Any]], Any],
    ) -> dict[str, Any]:
        """Rule 2: what is not executed here goes out once it is validated.

        This is the last step that the framework takes with it.
        """
        validated: dict[str, Any] = await handler(args)
        if tool_def.kind == "external":
            with telling(ToolFailed, self.told_of(tool_def)):
                await self.permitted(call.tool_name, validated, ctx)
        return validated

    async def wrap_output_process(
        self,
        ctx: RunContext[Any],
        *,
        output_context: OutputContext,
        output: Any,
        handler: Callable[[Any], Any],
    ) -> Any:
        """Rule 3: an output function is asked about like a tool.

        Of several functions the framework says no name. Nor has the token a tool of the empty name:
        so they are refused.
        """
        if not output_context.has_function:
            return await handler(output)
        name = output_context.function_name or ""
        arguments = output if isinstance(output, dict) else {"output": output}
        return await self.run_permitted(ctx, name, arguments, lambda: handler(output), ModelRetry)

    async def prepare_model_request(
        self,
        ctx: RunContext[Any],
        request_context: ModelRequestContext,
    ) -> ModelRequestContext:
        """Rule 4. Raises GuardError, before anything is sent to the model."""
        asked = request_context.model_request_parameters
        kinds = {tool.kind for tool in asked.native_tools}
        if asked.allow_image_output:
            kinds.add(_IMAGE)
        refuse_native(kinds, self._native)
        return request_context

    async def run_permitted(
        self,
        ctx: RunContext[Any],
        tool: str,
        arguments: Any,
        run: Callable[[], Awaitable[Any]],
        error: Callable[[str], Exception],
        tool_def: ToolDefinition | None = None,
    ) -> Any:
        """What `run` gives, which calls the tool, if the call is permitted.

        Rule 6: what was refused here, or to the tool itself, is an `error` for the model to read.
        """
        try:
            grant = await self.permitted(tool, arguments, ctx)
            with calling(grant, run=ctx.run_id):
                return await run()
        except REFUSED as refused:
            told = refusal_text(refused, self.told_of(tool_def))
        raise error(told)

    def told_of(self, tool_def: ToolDefinition | None) -> Callable[[Decision], str]:
        """What the model is told of a decision on a tool, whose own arguments may be named."""
        declared: Collection[str] = ()
        if tool_def is not None:
            declared = tool_def.parameters_json_schema.get("properties", ())
        return partial(self._guard.for_model, declares=declared)

    async def permitted(
        self,
        tool: str,
        arguments: Any,
        ctx: RunContext[Any],
    ) -> AnyGrant:
        """The grant of a call, which is charged and recorded by that. Raises Denied.

        It says nothing of what the tool then does: for that, the grant is current while it runs.
        """
        facts = _facts(arguments)
        # Rule 5: nobody's, where the framework has none.
        who = Who(agent=_name_of(ctx) or "", run=ctx.run_id)
        decision = await self._guard.check_async(tool, facts, **who)
        if decision.grant is None:
            if self._pause and ctx.tool_call_id and decision.request() is not None:  # rule 9
                asked = await self._guard.request_async(tool, facts, **who)
                if asked is not None:
                    raise ApprovalRequired({KEY: wanted(ctx.tool_call_id, tool, asked)})
            raise Denied(decision)
        return self._guard.served(decision.grant)


@dataclass
class _Guarded(WrapperToolset[Any]):
    """Rule 1: the innermost of what capabilities wrap around the agent's tools."""

    owner: TokenGuard = field(repr=False)

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        """The tools, each with a mark that it is behind the guard."""
        tools = await self.wrapped.get_tools(ctx)
        return {
            name: replace(tool, tool_def=_marked(tool.tool_def)) for name, tool in tools.items()
        }

    async def call_tool(
        self,
        name: str,
        tool_args: dict[str, Any],
        ctx: RunContext[Any],
        tool: ToolsetTool[Any],
    ) -> Any:
        """The call of a tool, with the arguments that it gets, if they are permitted."""

        try:
            grant = await self.owner.permitted(name, tool_args, ctx)
            for call in _calls.get():
                if call.owner is self.owner and call.key == _key(name, ctx):
                    call.permitted = True
            with calling(grant, run=ctx.run_id):
                return await self.wrapped.call_tool(name, tool_args, ctx, tool)
        except REFUSED as refused:
            told = refusal_text(refused, self.owner.told_of(tool.tool_def))
        raise ToolFailed(told)


def _facts(arguments: Any) -> Any:
    """The arguments as JSON, or what is no mapping and so never permitted.

    They are Python objects here, as the tool takes them. What cannot be written as JSON in one way
    is not decided on.
    """
    # Denied as it is: what is made JSON of it takes as much as it has.
    if type(arguments) is dict and too_large(arguments):
        return arguments
    try:
        plain = as_json(arguments)
    except (PydanticSerializationError, TypeError, ValueError, RecursionError):
        return "none"
    return plain if isinstance(plain, dict) else "none"


def _name_of(ctx: RunContext[Any]) -> str | None:
    """The name of who runs, or None where the framework does not say."""
    return ctx.agent.name if ctx.agent is not None else None


def _key(name: str, ctx: RunContext[Any]) -> _Key:
    """What one call is known by, inside what is wrapped around it.

    A wrapper may call several tools, and the same one more than once.
    """
    return name, ctx.run_id, ctx.tool_call_id


def _marked(tool: ToolDefinition) -> ToolDefinition:
    return replace(tool, metadata={**(tool.metadata or {}), _ASKED: _MARK})


def _is_marked(tool: ToolDefinition) -> bool:
    """Is its toolset behind the guard?

    By the mark's identity: metadata is anybody's to write, a server's too, and an equal text is not
    the mark.
    """
    return (tool.metadata or {}).get(_ASKED) is _MARK


# --- consents: rule 9 ---------------------------------------------------------------------------


def _output_types(given: Any) -> list[Any]:
    """The types of a run's output, one by one."""
    if isinstance(given, (list, tuple)):
        return [each for one in given for each in _output_types(one)]
    return list(get_args(given)) if get_origin(given) in (Union, UnionType) else [given]


def _can_pause(agent: AbstractAgent[Any, Any]) -> bool:
    """Can a run of the agent end with what waits?"""
    return DeferredToolRequests in _output_types(agent.output_type)


def requests_of(paused: DeferredToolRequests) -> list[Wanted]:
    """What to ask a person before a paused run goes on, call by call (rule 9).

        consents = [approver.consent(one["request"]) for one in requests_of(result.output)]

    Calls that wait for another reason are not among them. Answer them with
    `result.output.build_results(approve_all=True)`, or a ToolDenied for a no, and run the history
    with the consents: `with current.use(token, consents=consents)`.
    """
    found: list[Wanted] = []
    for told in paused.metadata.values():
        asked = told.get(KEY, [])
        found += asked if isinstance(asked, list) else [asked]  # those of a sub-agent, or its own
    return found


# --- runs: rule 8 -----------------------------------------------------------------------------


def _is_guarded(capability: AbstractCapability[Any]) -> bool:
    """Is there a TokenGuard among what it is made of?"""
    found: list[TokenGuard] = []

    def look_at(each: AbstractCapability[Any]) -> None:
        if isinstance(each, TokenGuard):
            found.append(each)

    capability.apply(look_at)
    return bool(found)


def _see_to_runs(agent: AbstractAgent[Any, Any]) -> None:
    """See to it that each run of the agent has a guard.

    A guard that was replaced is not asked whether it may be. So the agent's own `iter`, through
    which it is run in every way, looks at what the run is made of, before anything is done in it.
    """
    if "iter" in vars(agent):
        return  # it does so already
    plain: Callable[..., Any] = agent.iter

    @asynccontextmanager
    async def looked_at(*args: Any, **options: Any) -> AsyncGenerator[Any, None]:
        async with plain(*args, **options) as run:
            if not _is_guarded(run.ctx.deps.root_capability):
                raise GuardError(
                    f"the guard of the agent {agent.name!r} is gone, since capabilities in "
                    "override(spec=…) replace it: pass spec= to the run, which adds them"
                )
            yield run

    setattr(agent, "iter", looked_at)  # noqa: B010, a method: mypy lets nobody assign one


# --- sub-agents -------------------------------------------------------------------------------


async def run_delegated(
    agent: AbstractAgent[Any, _OutputT],
    prompt: str,
    *,
    deps: Any = None,
    usage: RunUsage | None = None,
    **narrowing: Unpack[Narrowing],
) -> AgentRunResult[_OutputT]:
    """Run `agent` with what is held here, narrowed as `Held.delegate` does, and alone (rule 7).

    Raises GuardError for an agent without a TokenGuard, NoToken, what `Held.delegate` raises, and
    what the run raises. For other ways to run an agent:
    `with current.delegate(to=agent_name(agent.name), …)` around it.
    """
    _check_guarded(agent)
    child = handed_on(current.holding(), agent_name(agent.name), narrowing)
    with only(child):
        return await agent.run(prompt, deps=deps, usage=usage)


def delegate_to(
    agent: AbstractAgent[Any, Any],
    *,
    name: str | None = None,
    description: str | None = None,
    deps: Callable[[RunContext[Any]], Any] | None = None,
    **narrowing: Unpack[Narrowing],
) -> Tool[Any]:
    """A tool for an orchestrator: hands a task to `agent`, by `run_delegated`.

    It gives back the agent's output. Its name is `ask_` and the agent's, unless given. `deps` makes
    the sub-agent's dependencies from the caller's context; left out, it gets none.

    If calls of the sub-agent want a consent, the caller's run pauses, and `requests_of` has them.
    Once it goes on, the sub-agent begins anew with the consents: its other calls run again.

    Raises GuardError for an agent without a TokenGuard. The tool raises it when it is called by an
    agent that holds nothing of its own. It also raises it if a tool of the sub-agent waits for
    something else, or if the caller's run cannot pause.
    """
    _check_guarded(agent)

    async def ask(ctx: RunContext[Any], task: str) -> Any:
        handing(_name_of(ctx), run=ctx.run_id)
        given = deps(ctx) if deps is not None else None
        done = await run_delegated(
            agent,
            task,
            deps=given,
            usage=ctx.usage,
            **narrowing,
        )
        if isinstance(done.output, DeferredToolRequests):
            asked = requests_of(done.output)
            waits = len(done.output.approvals) + len(done.output.calls)
            if len(asked) == waits and ctx.agent is not None and _can_pause(ctx.agent):
                raise ApprovalRequired({KEY: asked})
            raise GuardError(
                f"a tool of {agent.name} waits for a person: run the agent with run_delegated"
            )
        return done.output

    return Tool(
        ask,
        takes_ctx=True,
        name=name or tool_name("ask", agent.name),
        description=description or tool_description(agent.name),
    )


def _check_guarded(agent: AbstractAgent[Any, Any]) -> None:
    """Raise GuardError for an agent whose capabilities have no TokenGuard among them.

    A token would be handed to it in vain: its tools would run whether that permits it or not.
    """
    if not _is_guarded(agent.root_capability):
        raise GuardError(
            f"the agent {agent.name!r} has no TokenGuard, so its tools would run without a check: "
            "give it one in capabilities="
        )
