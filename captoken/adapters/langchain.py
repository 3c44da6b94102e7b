"""Guard the tools of LangChain agents and LangGraph graphs, and hand tokens on to sub-agents (docs/agents.md).

    sales = create_agent(model, [query_sales], name="sales-agent", middleware=[TokenGuard(guard, agent="sales-agent")])
    ask = delegate_to(sales, tools={"query_sales": {}}, expires_in=60)
    boss = create_agent(model, [ask], name="orchestrator", middleware=[TokenGuard(guard, agent="orchestrator")])
    with current.use(token):
        result = boss.invoke({"messages": [HumanMessage("Report on risk.")]})

1. Every tool call is asked about before the tool runs, with the arguments as its schema reads them; the tool gets those.
   Arguments that the schema reads otherwise the second time, or that it does not write as they are (SecretStr), are
   refused, and so is a schema of which cannot be said how it reads: nobody knows what the tool would get.
2. Who calls is `agent`, the guard's own word. Where the framework has a name for who runs, it has to be the same; and a run
   inside a tool call needs a token of its own: an agent that was given its parent's middleware may do nothing.
3. What is refused is a ToolMessage with status "error", and the run goes on. So is a call in which the tool itself was
   refused something (Denied), and one of a tool that is called otherwise than the model wrote.
4. A tool that the model's provider runs cannot be asked about: a request to the model that has one raises GuardError.
5. A sub-agent is handed a narrowed token and nothing else: neither runtime context, configuration and checkpoints of its
   caller, nor what its caller was granted.
6. The token is a context variable, which LangGraph carries to its threads. It is in no state, message, configuration,
   checkpoint or trace.

A middleware that is listed after the guard acts between it and the tool: list the guard last.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Unpack

from langchain.agents.middleware import AgentMiddleware
from langchain.agents.middleware.types import ModelRequest, ModelResponse
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config, var_child_runnable_config
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from captoken import current
from captoken._format.errors import GuardError
from captoken._verification.decision import Decision, Denied
from captoken._writing.keywords import LinkCaveats, Strings
from captoken.current import Held
from captoken.proof import Signer
from captoken.tools import ToolGuard, agent_name, calling, handing

_NAME = "lc_agent_name"  # in the configuration's metadata: where `create_agent(name=…)` puts it
_READING = (
    "model_validate",
    "__get_pydantic_core_schema__",
)  # by which a model can read in a way of its own
# What a model's configuration may say, and still read its arguments as one that says none of it.
_HARMLESS = {"arbitrary_types_allowed", "extra", "json_schema_extra", "title"}


class TokenGuard(AgentMiddleware[Any, Any, Any]):
    """Lets the agent call the tools that the current token permits, and no other.

    For `create_agent(…, middleware=[…, TokenGuard(guard, agent="sales-agent")])`, and for a node of a graph:
    `ToolNode(tools, wrap_tool_call=own.wrap_tool_call, awrap_tool_call=own.awrap_tool_call)`.

    `agent` is the name under which it holds tokens; give `create_agent` the same. `native` are the types of provider-run
    tools that may be used unasked (rule 4); what is bound to the model beforehand is not seen. Raises TypeError for what
    is no ToolGuard, ValueError for no name.
    """

    def __init__(self, guard: ToolGuard, *, agent: str, native: Collection[str] = ()) -> None:
        super().__init__()
        if not isinstance(guard, ToolGuard):
            raise TypeError(f"a {type(guard).__name__} is no ToolGuard")
        if isinstance(native, str):
            raise TypeError("native: a collection of types, not a str")
        self._guard, self._agent, self._native = guard, agent_name(agent), frozenset(native)
        if not isinstance(agent, str) or not self._agent:
            raise ValueError("name the agent: its token names its holder")

    def wrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]],
    ) -> ToolMessage | Command[Any]:
        asked, given = _arguments(request)
        run = _run(_config(request))
        decision = self._guard.check(
            request.tool_call["name"], asked, agent=self._who(request), run=run
        )
        if decision.grant is None:
            return _refusal(request, decision)
        try:
            with calling(decision.grant, run=run):
                return handler(given)
        except Denied as denied:
            return _refusal(request, denied.decision)

    async def awrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]],
    ) -> ToolMessage | Command[Any]:
        asked, given = _arguments(request)
        run = _run(_config(request))
        decision = await self._guard.check_async(
            request.tool_call["name"], asked, agent=self._who(request), run=run
        )
        if decision.grant is None:
            return _refusal(request, decision)
        try:
            with calling(decision.grant, run=run):
                return await handler(given)
        except Denied as denied:
            return _refusal(request, denied.decision)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]
    ) -> Any:
        self._check_native(request)
        return handler(request)

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> Any:
        self._check_native(request)
        return await handler(request)

    def _check_native(self, request: ModelRequest[Any]) -> None:
        kinds = {
            str(tool.get("type") or tool.get("name"))
            for tool in request.tools
            if isinstance(tool, dict)
        }
        if beyond := kinds - self._native - {"function"}:
            raise GuardError(
                f"the model's provider would run {sorted(beyond)}, which no guard sees: native= lets it"
            )

    def _who(self, request: ToolCallRequest) -> str:
        """Rule 2: the name, or one that nobody has."""
        told = (_config(request).get("metadata") or {}).get(_NAME)
        return self._agent if told is None or agent_name(told) == self._agent else ""


def _config(request: ToolCallRequest) -> Mapping[str, Any]:
    return getattr(request.runtime, "config", None) or {}


def _run(config: Mapping[str, Any]) -> object:
    """What LangGraph knows the step by: the path of graphs that it is in. Something of its own where there is none."""
    return (config.get("configurable") or {}).get("checkpoint_ns") or object()


def _arguments(request: ToolCallRequest) -> tuple[Any, ToolCallRequest]:
    """What to ask about, and the request that has it (rule 1). What is asked is no mapping where nothing is permitted."""
    arguments: Any = request.tool_call["args"]
    if request.tool is not None and request.tool.name != request.tool_call["name"]:
        return (
            "another tool",
            request,
        )  # which somebody put there: the guard would ask about the one, and the other would run
    schema = _schema(request.tool)
    if schema is None:
        return arguments, request
    if isinstance(schema, str):
        return schema, request
    try:
        read = schema.model_validate(arguments)
    except ValidationError:
        return (
            arguments,
            request,
        )  # which the tool refuses in its turn, in words that help the model
    except (ValueError, TypeError, RecursionError):
        return "unreadable", request
    try:
        asked, given = read.model_dump(mode="json"), read.model_dump(mode="json", by_alias=True)
        again = schema.model_validate(given)
        if again != read or again.model_dump(mode="json") != asked:
            return "read otherwise", request
        if any(
            to_jsonable_python(getattr(read, name), by_alias=False) != asked[name]
            for name in type(read).model_fields
        ):
            return "written otherwise", request
    except (PydanticSerializationError, ValueError, TypeError, LookupError, RecursionError):
        return "read otherwise", request
    return asked, request.override(tool_call={**request.tool_call, "args": given})


def _schema(tool: BaseTool | None) -> type[BaseModel] | str | None:
    """The model of a tool's arguments, without those that the framework adds; None for a tool that has none.

    A word for one of which cannot be said how it reads them: the model without what the framework adds is made anew of the
    fields alone.
    """
    if tool is None:
        return None
    for_model, whole = tool.tool_call_schema, tool.args_schema
    if isinstance(for_model, dict):
        return None
    if not issubclass(for_model, BaseModel):
        return "of pydantic 1"
    if isinstance(whole, type) and issubclass(whole, BaseModel):
        if set(whole.model_fields) == set(for_model.model_fields):
            return whole
        if not _only_fields(whole):
            return "more than its fields"
    return for_model


def _only_fields(model: type[BaseModel]) -> bool:
    """Whether nothing but types and defaults says how the model reads."""
    rules = model.__pydantic_decorators__
    return (
        not (
            rules.field_validators
            or rules.model_validators
            or rules.validators
            or rules.root_validators
        )
        and not (
            model.__pydantic_post_init__
            or model.__pydantic_custom_init__
            or set(model.model_config) - _HARMLESS
        )
        and all(
            getattr(model, name).__func__ is getattr(BaseModel, name).__func__ for name in _READING
        )
        and not any(
            field.alias or field.validation_alias or field.discriminator or field.validate_default
            for field in model.model_fields.values()
        )
    )


def _refusal(request: ToolCallRequest, decision: Decision) -> ToolMessage:
    call = request.tool_call
    return ToolMessage(
        decision.for_model(), name=call["name"], tool_call_id=call["id"] or "", status="error"
    )


# --- sub-agents ------------------------------------------------------------------------------------------------------


@contextmanager
def handed(held: Held, to: str) -> Generator[RunnableConfig, None, None]:
    """Rule 5: in this block `held` is all there is. Gives the configuration to run the sub-agent with: its name, and of
    the caller's the callbacks and tags, so that its run is traced as a part."""
    caller = ensure_config()
    own: RunnableConfig = {
        "callbacks": caller.get("callbacks"),
        "tags": caller.get("tags") or [],
        "metadata": {_NAME: to},
    }
    before = var_child_runnable_config.set(
        own
    )  # else LangChain adds the caller's configuration to what is passed
    try:
        with current.nothing(), current.use(held):
            yield own
    finally:
        var_child_runnable_config.reset(before)


def delegate_to(
    agent: Runnable[Any, Any],
    *,
    to: str | None = None,
    name: str | None = None,
    description: str | None = None,
    context: Any = None,
    key: Signer | None = None,
    keep: Strings = (),
    clamp: bool = False,
    **caveats: Unpack[LinkCaveats],
) -> BaseTool:
    """A tool for an orchestrator: hands a task to `agent`, with what is held there narrowed by `caveats`, and gives back
    the text of its last message. The tool is called `ask_` and the agent's name, unless given.

    `agent`: what `create_agent` or a graph's `compile` gave, with `messages` in its state. `to`: the name of its guard, if
    it is not its own. `context`: its runtime context; it gets none of the caller's. Does not check that the agent's tools
    are guarded. Raises GuardError for an agent without a name. The tool raises it when it is called by an agent that holds
    nothing of its own, and where the agent stopped to wait for somebody; and NoToken, and what `Held.delegate` raises.
    """
    whom = agent_name(to or _own_name(agent))

    def narrowed() -> Held:
        config = ensure_config()
        mine = handing((config.get("metadata") or {}).get(_NAME), run=_run(config))
        return mine.delegate(to=whom, key=key, keep=keep, clamp=clamp, **caveats)

    def ask(task: str) -> str:
        with handed(narrowed(), whom) as config:
            return _last(agent.invoke({"messages": [HumanMessage(task)]}, config, **given))

    async def aask(task: str) -> str:
        with handed(narrowed(), whom) as config:
            return _last(await agent.ainvoke({"messages": [HumanMessage(task)]}, config, **given))

    given: dict[str, Any] = {} if context is None else {"context": context}
    spelled = "".join(char if char.isalnum() else "_" for char in whom)
    return StructuredTool.from_function(
        ask,
        aask,
        name=name or f"ask_{spelled}",
        description=description or f"Hand a task to the agent {whom}.",
    )


def _own_name(agent: Any) -> str:
    name = getattr(agent, "name", None)
    if not isinstance(name, str) or name in (
        "",
        "LangGraph",
    ):  # which is what a graph without a name is called
        raise GuardError("name the agent, or say `to`: its token names its holder")
    return name


def _last(result: Any) -> str:
    message = result["messages"][-1]
    if result.get("__interrupt__") or getattr(message, "tool_calls", None):
        raise GuardError(
            "the agent waits for somebody, who cannot be asked here: run it in your own code"
        )
    return str(message.text)
