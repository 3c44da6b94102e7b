"""Guard the tools of pydantic-ai agents, and hand tokens on to sub-agents (docs/agents.md).

    sales = Agent(model, name="sales-agent", tools=[query_sales], capabilities=[TokenGuard(guard)])
    boss = Agent(model, name="orchestrator", tools=[delegate_to(sales, tools={"query_sales": {}})], capabilities=[TokenGuard(guard)])
    with current.use(token):
        result = await boss.run("Report on risk.")

1. Every tool is asked about where it is called, with the arguments that it gets: after validation, defaults and hooks.
   A tool that another capability wraps around the others is asked about before it runs.
2. A call that is executed outside of the run (an external tool) is asked about before it is handed out.
3. An output function is a tool, of its own name.
4. A tool that the model's provider runs cannot be asked about: a request that has one raises GuardError.
5. Who calls is the agent that runs, by its name. An agent without one gets no guard.
6. What is refused is a failed call for the model: it uses up no retries, and the run goes on.
7. A sub-agent is handed a narrowed token and nothing else: neither dependencies nor what its caller was granted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, TypeVar, Unpack

from pydantic_ai import Agent, ModelRetry, RunContext, Tool
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
from captoken.attenuate import LinkCaveats, Strings
from captoken.decision import Decision
from captoken.errors import GuardError
from captoken.possession import Signer
from captoken.tools import ToolGuard, agent_name

_OutputT = TypeVar("_OutputT")
_ASKED = "captoken.asked"  # in a tool's metadata: its toolset is behind the guard's (rule 1)


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
        return _Guarded(toolset, self._guard)

    async def wrap_tool_execute(
        self,
        ctx: RunContext[Any],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: dict[str, Any],
        handler: Callable[[dict[str, Any]], Any],
    ) -> Any:
        if (tool_def.metadata or {}).get(_ASKED) is True:
            return await handler(args)
        with current.serving(_permitted(await _decide(self._guard, call.tool_name, args, ctx)).grant):
            return await handler(args)

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
            _permitted(await _decide(self._guard, call.tool_name, validated, ctx))
        return validated
