"""Guard the tools of pydantic-ai agents, and hand tokens on to sub-agents (docs/agents.md).

    sales = Agent(model, name="sales-agent", tools=[query_sales], capabilities=[TokenGuard(guard)])
    ask = delegate_to(sales, tools={"query_sales": {}}, expires_in=60)
    boss = Agent(model, name="orchestrator", tools=[ask], capabilities=[TokenGuard(guard)])
    with current.use(token):
        result = await boss.run("Report on risk.")

1. Every tool is asked about where it is called, with the arguments that it gets: after validation, defaults and hooks.
   A tool that another capability wraps around the others is asked about before it runs, and where a wrapper answered for
   a tool that it did not call, before the answer goes out.
2. A call that is executed outside of the run (an external tool) is asked about before it is handed out.
3. An output function is a tool, of its own name; where it takes one argument, that is asked about as `output`.
4. A tool that the model's provider runs cannot be asked about: a request that has one raises GuardError.
5. Who calls is the agent that runs, by its name. An agent without one gets no guard.
6. What is refused is a failed call for the model: it uses up no retries, and the run goes on. So is a call in which the
   tool itself was refused something (Denied).
7. A sub-agent is handed a narrowed token and nothing else: neither dependencies nor what its caller was granted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, Unpack

from pydantic_ai import ModelRetry, RunContext, Tool
from pydantic_ai.agent import AbstractAgent, AgentRunResult
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.output import OutputContext
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool, WrapperToolset
from pydantic_ai.usage import RunUsage
from pydantic_core import PydanticSerializationError, to_jsonable_python

from captoken import current
from captoken._format.errors import GuardError
from captoken._verification.decision import Denied, Grant
from captoken._writing.keywords import LinkCaveats, Strings
from captoken.proof import Signer
from captoken.tools import ToolGuard, agent_name, calling, handing

_OutputT = TypeVar("_OutputT")
# In a tool's metadata: its toolset is behind the guard's (rule 1). Known by identity: who writes the same is not believed.
_ASKED = "captoken.asked"
_MARK = " ".join(("behind", "the", "guard"))


@dataclass
class _Call:
    """A call of a tool behind the guard, on its way through what is wrapped around that."""

    owner: TokenGuard
    key: tuple[str, str | None, str | None]
    permitted: bool = False


_calls: ContextVar[tuple[_Call, ...]] = ContextVar("captoken.pydantic_ai.calls", default=())


class TokenGuard(AbstractCapability[Any]):
    """Lets the agent call the tools that the current token permits, and no other.

    `native` are the kinds of provider-run tools that may be used unasked (rule 4). Raises GuardError for an agent that
    has no name. Realtime sessions have no place for rules 3 and 4.
    """

    def __init__(self, guard: ToolGuard, *, native: Collection[str] = ()) -> None:
        if not isinstance(guard, ToolGuard):
            raise TypeError(f"a {type(guard).__name__} is no ToolGuard")
        if isinstance(native, str):
            raise TypeError("native: a collection of kinds, not a str")
        self._guard, self._native = guard, frozenset(native)

    def for_agent(self, agent: AbstractAgent[Any, Any]) -> TokenGuard:
        if not agent.name:
            raise GuardError("name the agent: its token names its holder")  # rule 5
        return self

    def get_ordering(self) -> CapabilityOrdering:
        return CapabilityOrdering(position="innermost")

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
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
        if (tool_def.metadata or {}).get(_ASKED) is not _MARK:
            with (
                _told(ToolFailed),
                calling(await self.permitted(call.tool_name, args, ctx), run=ctx.run_id),
            ):
                return await handler(args)
        made = _Call(self, _key(call.tool_name, ctx))
        before = _calls.set((*_calls.get(), made))
        try:
            answer = await handler(args)
        finally:
            _calls.reset(before)
        if not made.permitted:  # a wrapper has answered
            with _told(ToolFailed):
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
        validated: dict[str, Any] = await handler(args)
        if tool_def.kind == "external":  # rule 2
            with _told(ToolFailed):
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
        if not output_context.has_function:
            return await handler(output)
        arguments = output if isinstance(output, dict) else {"output": output}
        name = (
            output_context.function_name or ""
        )  # rule 3; of several functions the framework says no name: so refused
        with _told(ModelRetry), calling(await self.permitted(name, arguments, ctx), run=ctx.run_id):
            return await handler(output)

    async def prepare_model_request(
        self, ctx: RunContext[Any], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        kinds = {tool.kind for tool in request_context.model_request_parameters.native_tools}
        if (
            beyond := kinds - self._native - {"tool_search"}
        ):  # which only finds tools: to call one is asked about
            raise GuardError(
                f"the model's provider would run {sorted(beyond)}, which no guard sees: native= lets it"
            )  # rule 4
        return request_context

    async def permitted(self, tool: str, arguments: Any, ctx: RunContext[Any]) -> Grant:
        """The grant of a call. Raises Denied."""
        try:
            plain = to_jsonable_python(arguments)
        except (PydanticSerializationError, ValueError, RecursionError):
            plain = None
        facts: Any = (
            plain if isinstance(plain, dict) else "none"
        )  # what is no mapping is never permitted
        name = ctx.agent.name if ctx.agent is not None else None
        decision = await self._guard.check_async(
            tool, facts, agent=name or "", run=ctx.run_id
        )  # rule 5
        if decision.grant is None:
            raise Denied(decision)
        return decision.grant


@dataclass
class _Guarded(WrapperToolset[Any]):
    """Rule 1: the innermost of what capabilities wrap around the agent's tools."""

    owner: TokenGuard = field(repr=False)

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        tools = await self.wrapped.get_tools(ctx)
        return {
            name: replace(tool, tool_def=_marked(tool.tool_def)) for name, tool in tools.items()
        }

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        with (
            _told(ToolFailed),
            calling(await self.owner.permitted(name, tool_args, ctx), run=ctx.run_id),
        ):
            for call in _calls.get():
                call.permitted |= call.owner is self.owner and call.key == _key(name, ctx)
            return await self.wrapped.call_tool(name, tool_args, ctx, tool)


def _key(name: str, ctx: RunContext[Any]) -> tuple[str, str | None, str | None]:
    return name, ctx.run_id, ctx.tool_call_id


@contextmanager
def _told(error: Callable[[str], Exception]) -> Generator[None, None, None]:
    """Rule 6: what was refused here, or to the tool itself, as an error that is for the model to read."""
    try:
        yield
    except Denied as denied:
        raise error(denied.decision.for_model()) from None


def _marked(tool: ToolDefinition) -> ToolDefinition:
    return replace(tool, metadata={**(tool.metadata or {}), _ASKED: _MARK})


# --- sub-agents ------------------------------------------------------------------------------------------------------


async def run_delegated(
    agent: AbstractAgent[Any, _OutputT],
    prompt: str,
    *,
    deps: Any = None,
    usage: RunUsage | None = None,
    key: Signer | None = None,
    keep: Strings = (),
    clamp: bool = False,
    **caveats: Unpack[LinkCaveats],
) -> AgentRunResult[_OutputT]:
    """Run `agent` with what is held here, narrowed by `caveats`, and nothing else that is current here (rule 7).

    Raises GuardError for an agent without a TokenGuard, NoToken, what `Held.delegate` raises, and what the run raises.
    For other ways to run an agent: `with current.delegate(to=agent_name(agent.name), …)` around it.
    """
    _check_guarded(agent)
    child = current.holding().delegate(
        to=agent_name(agent.name), key=key, keep=keep, clamp=clamp, **caveats
    )
    with current.nothing(), current.use(child):
        return await agent.run(prompt, deps=deps, usage=usage)


def delegate_to(
    agent: AbstractAgent[Any, Any],
    *,
    name: str | None = None,
    description: str | None = None,
    deps: Callable[[RunContext[Any]], Any] | None = None,
    key: Signer | None = None,
    keep: Strings = (),
    clamp: bool = False,
    **caveats: Unpack[LinkCaveats],
) -> Tool[Any]:
    """A tool for an orchestrator: hands a task to `agent`, by `run_delegated`, and gives back its output.

    Its name is `ask_` and the agent's, unless given. `deps` makes the sub-agent's dependencies from the caller's context;
    left out, it gets none. Raises GuardError for an agent without a TokenGuard, and when called by one that holds nothing
    of its own.
    """
    _check_guarded(agent)

    async def ask(ctx: RunContext[Any], task: str) -> Any:
        handing(ctx.agent.name if ctx.agent is not None else None, run=ctx.run_id)
        given = deps(ctx) if deps is not None else None
        done = await run_delegated(
            agent, task, deps=given, usage=ctx.usage, key=key, keep=keep, clamp=clamp, **caveats
        )
        return done.output

    spelled = "".join(char if char.isalnum() else "_" for char in str(agent.name))
    return Tool(
        ask,
        takes_ctx=True,
        name=name or f"ask_{spelled}",
        description=description or f"Hand a task to the agent {agent.name}.",
    )


def _check_guarded(agent: AbstractAgent[Any, Any]) -> None:
    found: list[TokenGuard] = []
    agent.root_capability.apply(
        lambda one: found.append(one) if isinstance(one, TokenGuard) else None
    )
    if not found:
        raise GuardError(f"the agent {agent.name!r} has no TokenGuard: its tools would run unasked")
