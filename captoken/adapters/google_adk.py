"""Guard the tools of Google's Agent Development Kit, and hand tokens to sub-agents.

    ask = delegate_to(sales, tools={"query_sales": {}}, expires_in=60)    # sales: an LlmAgent
    boss = LlmAgent(name="orchestrator", model=model, tools=[ask])
    runner = InMemoryRunner(boss, plugins=[TokenGuard(guard)])
    with current.use(token):
        async for event in runner.run_async(...): ...

See docs/agents-google-adk.md.

1. Every tool call is checked before the tool runs, with the arguments as the model wrote them. If a
   later callback changes them, the new arguments are checked too.
2. The caller is the running agent, by its name. After a transfer that is another agent, which was
   handed nothing.
3. A tool that the model's provider runs cannot be checked, nor can a code executor. A run that has
   one raises, with a GuardError as the cause.
4. A denial becomes the tool's answer, `{"error": ...}`, and the run continues. The same happens if
   the tool itself was denied something (Denied).
5. A sub-agent of `delegate_to` is handed only a narrowed token. ADK copies the session's state to
   it, and copies its changes back.
6. Once a tool has been called under a guard, it asks the guards of the current run in every runner.
   In a run without a guard it raises GuardError.
7. With `TokenGuard(…, pause=True)` a call that wants a person's consent waits for a confirmation in
   ADK, and `requests_of` says what to ask. A confirmation is no consent: resume the run in
   `current.use(token, consents=[…])`. The session holds no token.

A plugin or callback before the guard can answer in its place; then no tool runs. So list the guard
last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple, Unpack
from weakref import WeakKeyDictionary

from captoken._format.extras import extra

with extra("google-adk"):
    from google.adk.agents import BaseAgent
    from google.adk.agents.callback_context import CallbackContext
    from google.adk.events.event import Event
    from google.adk.models.llm_request import LlmRequest
    from google.adk.plugins.base_plugin import BasePlugin
    from google.adk.tools.agent_tool import AgentTool
    from google.adk.tools.base_tool import BaseTool
    from google.adk.tools.tool_context import ToolContext

from captoken import current
from captoken._format.errors import GuardError
from captoken._verification.decision import Denied
from captoken.adapters._agents.guarding import checked_guard, refuse_native, unasked
from captoken.adapters._agents.handing import Narrowing, handed_on, only
from captoken.adapters._agents.pausing import KEY, REFUSED_BY_A_PERSON, Wanted, wanted
from captoken.adapters._context_value import context_value
from captoken.current import AnyGrant
from captoken.tools import REFUSED, ToolGuard, agent_name, calling, handing, refusal_text

_FUNCTIONS = "function_declarations"  # of a tool in a request: what the model calls, and ADK runs
_CODE = "code_executor"
_CONFIRMATION = "adk_request_confirmation"  # the call by which ADK asks a person

# The call of a guarded tool that this code runs in.
_inside: ContextVar[Any] = ContextVar("captoken.google_adk.inside", default=None)


# What waits in the run of a sub-agent that this code is inside of.
_below: ContextVar[list[Wanted] | None] = ContextVar("captoken.google_adk.below", default=None)


class _Asked(NamedTuple):
    """A call that was permitted and has not yet run."""

    arguments: str  # as they were asked about
    grant: AnyGrant


class TokenGuard(BasePlugin):
    """Lets each agent of a runner call the tools that the current token permits, and no other.

    `native` are the kinds of provider-run tools that may be used unasked (rule 3): `google_search`,
    `code_execution`, and `code_executor` for what an agent's executor runs. With `pause=True` calls
    that want a person's consent wait for it (rule 7). Raises TypeError for what is no ToolGuard.
    """

    def __init__(
        self,
        guard: ToolGuard,
        *,
        native: Collection[str] = (),
        pause: bool = False,
        name: str = "captoken",
    ) -> None:
        super().__init__(name=name)
        self._guard = checked_guard(guard)
        self._pause = pause is True
        self._native = unasked(native, "kinds") | {_FUNCTIONS}
        self._asked: WeakKeyDictionary[ToolContext, _Asked] = WeakKeyDictionary()

    async def before_agent_callback(
        self,
        *,
        agent: BaseAgent,
        callback_context: CallbackContext,
    ) -> None:
        """Rule 3. Raises GuardError."""
        if getattr(agent, _CODE, None) is not None:
            refuse_native({_CODE}, self._native)

    async def before_model_callback(
        self,
        *,
        callback_context: CallbackContext,
        llm_request: LlmRequest,
    ) -> None:
        """Rule 3. Raises GuardError, before anything is sent to the model."""
        kinds: set[str] = set()
        for tool in llm_request.config.tools or ():
            dump = getattr(tool, "model_dump", None)
            # A function here is called by the provider's client, past every callback.
            kinds |= {type(tool).__name__} if dump is None else set(dump(exclude_none=True))
        refuse_native(kinds, self._native)

    async def before_tool_callback(
        self,
        *,
        tool: BaseTool,
        tool_args: dict[str, Any],
        tool_context: ToolContext,
    ) -> dict[str, Any] | None:
        """Rule 1: one call, asked about. What it gives takes the place of the tool's answer."""
        said = tool_context.tool_confirmation
        if self._pause and said is not None and not said.confirmed:  # rule 7
            return {"error": REFUSED_BY_A_PERSON}
        try:
            grant = await self._permitted(tool, tool_args, tool_context)
        except Denied as denied:
            if self._pause and said is None:
                _wait(tool, tool_context, denied.decision.request())
            return {"error": refusal_text(denied, self._guard.for_model)}  # rule 4
        written = _written(tool_args)
        if written is not None:
            self._asked[tool_context] = _Asked(written, grant)
        _stand_in(tool)
        return None

    async def on_tool_error_callback(
        self,
        *,
        tool: BaseTool,
        tool_args: dict[str, Any],
        tool_context: ToolContext,
        error: Exception,
    ) -> dict[str, Any] | None:
        """Rule 4, for a tool that the framework runs in a way of its own."""
        refused = current.refusal_in(error)
        return None if refused is None else {"error": refusal_text(refused, self._guard.for_model)}

    async def run(
        self,
        tool: BaseTool,
        plain: Callable[..., Any],
        *,
        args: dict[str, Any],
        tool_context: ToolContext,
    ) -> Any:
        """The answer of a tool, `plain`, to a call, if that is permitted; else the refusal."""
        asked = self._asked.pop(tool_context, None)
        try:
            if asked is not None and asked.arguments == _written(args):
                grant = asked.grant
            else:
                grant = await self._permitted(tool, args, tool_context)
            run = tool_context.invocation_id
            with calling(grant, run=run), context_value(_inside, tool_context):
                return await plain(args=args, tool_context=tool_context)
        except REFUSED as refused:
            return {"error": refusal_text(refused, self._guard.for_model)}

    async def _permitted(
        self,
        tool: BaseTool,
        arguments: Mapping[str, Any],
        context: ToolContext,
    ) -> AnyGrant:
        """The grant of a call, which is charged and recorded by that. Raises Denied."""
        decision = await self._guard.check_async(
            tool.name,
            arguments,
            agent=context.agent_name or "",
            run=context.invocation_id,
        )
        if decision.grant is None:
            raise Denied(decision)
        return self._guard.served(decision.grant)


# --- consents: rule 7 ---------------------------------------------------------------------------


def _wait(tool: BaseTool, context: ToolContext, request: str | None) -> None:
    """Ask ADK to stop at this call, if a consent would let it through."""
    if request is not None and context.function_call_id:
        asked = wanted(context.function_call_id, tool.name, request)
        _stop(context, asked)
        below = _below.get()
        if below is not None:
            below.append(asked)


def _stop(context: ToolContext, asked: Wanted) -> None:
    context.request_confirmation(hint="A person has to consent.", payload={KEY: asked})
    # Else the model is asked what to do about a call that waits.
    context.actions.skip_summarization = True


def requests_of(event: Event) -> dict[str, Wanted]:
    """What to ask a person before a run goes on, by the id that ADK's confirmation has (rule 7).

        for confirmation, one in requests_of(event).items():
            consents.append(approver.consent(one["request"]))

    Then run the session, `with current.use(token, consents=consents)`, with a message of
    `FunctionResponse(id=confirmation, name="adk_request_confirmation", response={"confirmed":
    True})` for each; or of False, for a no.
    """
    found: dict[str, Wanted] = {}
    for call in event.get_function_calls():
        asked = (call.args or {}).get("toolConfirmation") or {}
        payload = asked.get("payload") if call.name == _CONFIRMATION else None
        if call.id and isinstance(payload, dict) and KEY in payload:
            found[call.id] = payload[KEY]
    return found


class _Guarded:
    """What stands in the place of a tool's `run_async`, once for all guards that there will be.

    It has none of its own: a tool may outlive the guards under which it was called (rule 6).
    """

    def __init__(self, tool: BaseTool, own: Callable[..., Any] | None) -> None:
        """`own` is what the tool itself had in that place, if not its class has it."""
        self.tool = tool
        self.own = own

    async def __call__(self, *, args: dict[str, Any], tool_context: ToolContext) -> Any:
        """The tool's answer, if each guard of the run permits the call. Raises GuardError."""
        call = self.own or partial(type(self.tool).run_async, self.tool)
        guards = _guards_of(tool_context)
        if not guards:
            raise GuardError(
                f"the tool {self.tool.name!r} was guarded in another run, and this run has no "
                "TokenGuard: give the runner one in plugins=, or a tool of its own"
            )
        for guard in reversed(guards):
            call = partial(guard.run, self.tool, call)
        return await call(args=args, tool_context=tool_context)


def _guards_of(context: ToolContext) -> list[TokenGuard]:
    """The guards of the run that a call is made in, in the order in which they are asked."""
    plugins = context.get_invocation_context().plugin_manager.plugins
    return [each for each in plugins if isinstance(each, TokenGuard)]


def _stand_in(tool: BaseTool) -> None:
    """See to it that the tool runs under the grant of its call, with what was asked about.

    The tool's own method is replaced, once. A copy of a guarded tool has the other's: it gets one.
    """
    own = vars(tool).get("run_async")
    if isinstance(own, _Guarded):
        if own.tool is tool:
            return
        own = own.own
    vars(tool)["run_async"] = _Guarded(tool, own)


def _written(arguments: Any) -> str | None:
    """Arguments as text, in which 1, 1.0 and True differ; None for what is no JSON."""
    try:
        return json.dumps(arguments, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return None


# --- sub-agents -------------------------------------------------------------------------------


class _HandingOn(AgentTool):
    """A tool that runs an agent with what is held, narrowed, and with nothing else of that kind."""

    def __init__(self, agent: BaseAgent, narrowing: Narrowing) -> None:
        super().__init__(agent)  # with the plugins of its caller, the guard among them
        self._narrowing = narrowing

    async def run_async(self, *, args: dict[str, Any], tool_context: ToolContext) -> Any:
        """Raises GuardError where no guard has let the call in, and what `Held.delegate` raises."""
        if _inside.get() is not tool_context:
            raise GuardError(
                f"the agent {self.agent.name!r} would run without a TokenGuard: "
                "give the runner one in plugins="
            )
        mine = handing(tool_context.agent_name, run=tool_context.invocation_id)
        child = handed_on(mine, agent_name(self.agent.name), self._narrowing)
        asked: list[Wanted] = []
        with only(child), context_value(_below, asked):
            answer = await super().run_async(args=args, tool_context=tool_context)
        # Of several calls that wait the model is told: a confirmation is for one.
        if len(asked) == 1 and tool_context.tool_confirmation is None:
            _stop(tool_context, asked[0])
        return answer


def delegate_to(agent: BaseAgent, **narrowing: Unpack[Narrowing]) -> AgentTool:
    """A tool for an orchestrator: hands a task to `agent`, and what is held, narrowed.

    It stands in place of ADK's AgentTool, and has the agent's name. The narrowing is that of
    `Held.delegate`. The agent runs in a session of its own, with the plugins of its caller.

    If one call of it waits for a consent, so does the caller's, and `requests_of` has it. Once it
    goes on, the sub-agent begins anew: its other calls run again.
    """
    return _HandingOn(agent, narrowing)
