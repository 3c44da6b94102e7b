"""Guard the tools of LangChain agents and LangGraph graphs, and hand tokens to sub-agents.

    own = TokenGuard(guard, agent="sales-agent")
    sales = create_agent(model, [query_sales], name="sales-agent", middleware=[own])
    ask = delegate_to(sales, tools={"query_sales": {}}, expires_in=60)
    own = TokenGuard(guard, agent="orchestrator")
    boss = create_agent(model, [ask], name="orchestrator", middleware=[own])
    with current.use(token):
        result = boss.invoke({"messages": [HumanMessage("Report on risk.")]})

See docs/agents-langchain.md.

1. Every tool call is checked before the tool runs, with the arguments as its schema reads them, and
   the tool gets those. The guard refuses arguments that the schema reads differently the second
   time, or does not write as they are (SecretStr). It also refuses a schema whose reading is
   unknown, because nobody knows what the tool would get.
2. The caller is `agent`, as the guard was told. If the framework has a name for the running agent,
   it must be the same. A run inside a tool call needs a token of its own. So an agent that was
   given its parent's middleware can do nothing.
3. A denial becomes a ToolMessage with status "error", and the run continues. So does a call in
   which the tool itself was denied something (Denied), and a call of a tool under another name than
   the model wrote. A Denied stays inside the tool call: an error handler such as ToolNode's would
   show the model what is for the operator.
4. A tool that the model's provider runs cannot be checked: a request to the model that has one
   raises GuardError.
5. A sub-agent is handed only a narrowed token. It does not get its caller's runtime context,
   configuration, checkpoints or grants.
6. The token is a context variable, which LangGraph passes to its threads. It is in no state,
   message, configuration, checkpoint or trace.
7. With `TokenGuard(…, pause=True)` a call that wants a person's consent interrupts the graph, and
   `requests_of` says what to ask. In a node of `TokenGuard.node` all calls of a message are asked
   about before the first one runs, since LangGraph runs a node from its beginning when it goes on.
   What the graph is resumed with is no consent: resume it in `current.use(token, consents=[…])`.

Middleware that is listed after the guard acts between it and the tool. So list the guard last.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple, TypeAlias, Unpack

from captoken._format.extras import extra

with extra("langchain"):
    from langchain.agents.middleware import AgentMiddleware
    from langchain.agents.middleware.types import ModelRequest
    from langchain_core.messages import AIMessage, HumanMessage, ToolCall, ToolMessage
    from langchain_core.runnables import Runnable, RunnableConfig
    from langchain_core.runnables.config import ensure_config, var_child_runnable_config
    from langchain_core.tools import BaseTool, StructuredTool
    from langgraph.prebuilt.tool_node import ToolCallRequest, ToolNode
    from langgraph.types import Command, interrupt
    from pydantic import BaseModel, ValidationError
    from pydantic_core import PydanticSerializationError, to_jsonable_python

from captoken import current
from captoken._format.errors import GuardError, NoToken, StatementError
from captoken._verification.decision import Denied
from captoken.adapters._agents.guarding import checked_guard, refuse_native, unasked
from captoken.adapters._agents.handing import (
    Narrowing,
    handed_on,
    only,
    tool_description,
    tool_name,
)
from captoken.adapters._agents.pausing import KEY, REFUSED_BY_A_PERSON, Wanted, is_no, wanted
from captoken.adapters._context_value import context_value
from captoken.current import Held
from captoken.tools import REFUSED, ToolGuard, agent_name, calling, handing, refusal_text

_NAME = "lc_agent_name"  # in the configuration's metadata: where `create_agent(name=…)` puts it
_SENT = "__pregel_push"  # at the start of the path of a task that was sent what it is for
_SCRATCHPAD = "__pregel_scratchpad"  # in its configurable: what a step is resumed with, unread
_FUNCTION = "function"  # the type of a tool that the provider does not run
_UNNAMED = ("", "LangGraph")  # what a graph without a name is called

# By these a model can read in a way of its own.
_READING = ("model_validate", "__get_pydantic_core_schema__")
# What a model's configuration may say, and still read its arguments as one that says none of it.
_HARMLESS = {"arbitrary_types_allowed", "extra", "json_schema_extra", "title"}

# Values that are read as they are written, by the annotation of their field.
_NONE = type(None)
_PLAIN: dict[Any, tuple[type, ...]] = {
    **{kind: (kind,) for kind in (str, int, bool)},
    **{kind | None: (kind, _NONE) for kind in (str, int, bool)},
}
_TOOLS = 256  # of which a guard keeps what it knows

_Answer: TypeAlias = "ToolMessage | Command[Any]"


class _Asked(NamedTuple):
    """What the guard is asked about a tool call, and the request that the tool then gets.

    The two belong together: what was asked about is what is given (rule 1).
    """

    tool: str
    arguments: Any
    agent: str
    run: object
    given: ToolCallRequest


class TokenGuard(AgentMiddleware[Any, Any, Any]):
    """Lets the agent call the tools that the current token permits, and no other.

    For `create_agent(…, middleware=[…, TokenGuard(guard, agent="sales-agent")])`, and for a node of
    a graph: `TokenGuard(guard, agent="sales-agent").node(tools)`.

    `agent` is the name under which it holds tokens; give `create_agent` the same. `native` are the
    types of provider-run tools that may be used unasked (rule 4); what is bound to the model
    beforehand is not seen. With `pause=True` a call that wants a person's consent waits for it: the
    graph needs a checkpointer (rule 7). Raises TypeError for what is no ToolGuard, ValueError for
    no name.
    """

    def __init__(
        self,
        guard: ToolGuard,
        *,
        agent: str,
        native: Collection[str] = (),
        pause: bool = False,
    ) -> None:
        super().__init__()
        self._guard = checked_guard(guard)
        self._pause = pause is True
        self._native = unasked(native, "types") | {_FUNCTION}
        self._agent = agent_name(agent)
        self._tools: dict[int, _Known] = {}
        if not isinstance(agent, str) or not self._agent:
            raise ValueError("pass agent=…: the agent's token names its holder")

    def node(self, tools: Sequence[BaseTool | Callable[..., Any]], **options: Any) -> ToolNode:
        """A node of a graph that runs these tools, each under this guard; `options` are ToolNode's.

        A ToolNode that was given `awrap_tool_call` alone would run calls unasked where the graph is
        run without an event loop. Raises TypeError for options that name a wrapper.
        """
        kind = ToolNode
        if self._pause:
            kind = partial(_PausingNode, self)  # type: ignore[assignment]
        return kind(
            tools,
            wrap_tool_call=self.wrap_tool_call,
            awrap_tool_call=self.awrap_tool_call,
            **options,
        )

    # called: langchain, by `python -m tests.called`
    def wrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], _Answer],
    ) -> _Answer:
        """One tool call, where it is made: asked about, and then run under its grant.

        The token and the grant are current while the tool runs, and for this step alone. In an
        event loop the tool's grant is awaited, if the guard's verifier is.
        """
        if self._is_refused(request):
            return _no(request)
        asked = self._asked(request)
        decision = self._guard.check(
            asked.tool,
            asked.arguments,
            agent=asked.agent,
            run=asked.run,
        )
        if decision.grant is None:
            return self._refused(request, Denied(decision))
        try:
            with calling(decision.grant, run=asked.run):
                return handler(asked.given)
        except REFUSED as refused:  # rule 3
            return _refusal(request.tool_call, request.tool, self._guard, refused)

    def waiting(
        self, requests: Sequence[ToolCallRequest], held: Held | None = None
    ) -> list[Wanted]:
        """Rule 7: of the calls of a message those that want a consent. Nothing is spent by that."""
        found = []
        for request in requests:
            asked = self._asked(request)
            text = self._guard.request(
                asked.tool,
                asked.arguments,
                agent=asked.agent,
                run=asked.run,
                held=held,
            )
            if text is not None:
                found.append(wanted(request.tool_call["id"], asked.tool, text))
        return found

    def refused_in(self, requests: Sequence[ToolCallRequest]) -> set[str | None]:
        """Rule 7: the calls that the graph is resumed with a no to, whatever consents are shown.

        A no is to a call that wants a consent. What a tool of its own asked is not answered so.
        """
        answers = _resumed_with(_config(requests[0])) if requests else []
        refused = [one for one in requests if _is_no(answers, one.tool_call["id"])]
        bare = _without_consents() if refused else None
        if bare is None:
            return set()
        asking = self.waiting(refused, bare)
        return {one["id"] for one in asking}

    def _is_refused(self, request: ToolCallRequest) -> bool:
        """Did a person say no to this call?"""
        if not self._pause:
            return False
        said_no = _said_no.get()
        if said_no is None:
            said_no = self.refused_in([request])
        return request.tool_call["id"] in said_no

    def wrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Any],
    ) -> Any:
        """One request to the model, which may bring tools that the provider runs (rule 4)."""
        self._check_native(request)
        return handler(request)

    # end: langchain

    # awaited: langchain
    async def awrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], Awaitable[_Answer]],
    ) -> _Answer:
        """One tool call, where it is made: asked about, and then run under its grant.

        The token and the grant are current while the tool runs, and for this step alone. In an
        event loop the tool's grant is awaited, if the guard's verifier is.
        """
        if await self._is_refused_async(request):
            return _no(request)
        asked = self._asked(request)
        decision = await self._guard.check_async(
            asked.tool,
            asked.arguments,
            agent=asked.agent,
            run=asked.run,
        )
        if decision.grant is None:
            return self._refused(request, Denied(decision))
        try:
            with calling(self._guard.served(decision.grant), run=asked.run):
                return await handler(asked.given)
        except REFUSED as refused:  # rule 3
            return _refusal(request.tool_call, request.tool, self._guard, refused)

    async def awaiting(
        self, requests: Sequence[ToolCallRequest], held: Held | None = None
    ) -> list[Wanted]:
        """Rule 7: of the calls of a message those that want a consent. Nothing is spent by that."""
        found = []
        for request in requests:
            asked = self._asked(request)
            text = await self._guard.request_async(
                asked.tool,
                asked.arguments,
                agent=asked.agent,
                run=asked.run,
                held=held,
            )
            if text is not None:
                found.append(wanted(request.tool_call["id"], asked.tool, text))
        return found

    async def arefused(self, requests: Sequence[ToolCallRequest]) -> set[str | None]:
        """Rule 7: the calls that the graph is resumed with a no to, whatever consents are shown.

        A no is to a call that wants a consent. What a tool of its own asked is not answered so.
        """
        answers = _resumed_with(_config(requests[0])) if requests else []
        refused = [one for one in requests if _is_no(answers, one.tool_call["id"])]
        bare = _without_consents() if refused else None
        if bare is None:
            return set()
        asking = await self.awaiting(refused, bare)
        return {one["id"] for one in asking}

    async def _is_refused_async(self, request: ToolCallRequest) -> bool:
        """Did a person say no to this call?"""
        if not self._pause:
            return False
        said_no = _said_no.get()
        if said_no is None:
            said_no = await self.arefused([request])
        return request.tool_call["id"] in said_no

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[Any]],
    ) -> Any:
        """One request to the model, which may bring tools that the provider runs (rule 4)."""
        self._check_native(request)
        return await handler(request)

    # end: langchain

    def _refused(self, request: ToolCallRequest, denied: Denied) -> ToolMessage:
        """The answer to a call that is denied, where it does not wait for a consent (rule 7).

        Raises what LangGraph stops a graph with.
        """
        refusal = _refusal(request.tool_call, request.tool, self._guard, denied)
        text = denied.decision.request() if self._pause else None
        if text is None:
            return refusal
        call_id = request.tool_call["id"]
        said_no = _said_no.get()
        if said_no is None:
            if not _is_alone(_config(request)):
                raise GuardError(
                    "a call wants a person's consent, and this node would run the other calls of "
                    "its message again when the graph goes on: make it with TokenGuard.node(tools)"
                )
            asked = [wanted(call_id, request.tool_call["name"], text)]
            # Where the graph was resumed without a consent, and with no word of a no, it waits on.
            while not is_no(interrupt({KEY: asked}), call_id):
                pass
            return _no(request)
        return refusal

    def _check_native(self, request: ModelRequest[Any]) -> None:
        """Rule 4. Raises GuardError.

        A tool that is a dictionary is one for the provider, but for the type `function`, which the
        model calls and the agent runs.
        """
        tools = [tool for tool in request.tools if isinstance(tool, dict)]
        types = {str(tool.get("type") or tool.get("name")) for tool in tools}
        refuse_native(types, self._native)

    def _asked(self, request: ToolCallRequest) -> _Asked:
        """Rules 1 and 2: what is asked about a call."""
        known = self._known(request.tool)
        arguments, changed = _arguments(request, known)
        if known is not None:
            changed["tool"] = known.answering
        given = request.override(**changed) if changed else request
        config = _config(request)
        return _Asked(
            tool=request.tool_call["name"],
            arguments=arguments,
            agent=self._who(config),
            run=_run(config),
            given=given,
        )

    def _known(self, tool: BaseTool | None) -> _Known | None:
        """What is known of a tool, found out when it is called first; None where there is none."""
        if tool is None:
            return None
        known = self._tools.get(id(tool))
        if known is None or known.tool is not tool or known.args_schema is not tool.args_schema:
            if len(self._tools) >= _TOOLS:
                self._tools.clear()
            known = self._tools[id(tool)] = _Known(tool, self._guard)
        return known

    def _who(self, config: Mapping[str, Any]) -> str:
        """Rule 2: the name, or one that nobody has.

        The framework's word is whoever runs. Where it is another one, this guard is in the wrong
        agent: the empty name is no token's holder, and so everything is refused.
        """
        told = _agent_in(config)
        if told is not None and agent_name(told) != self._agent:
            return ""
        return self._agent


def _without_consents() -> Held | None:
    """What is held, with no consent beside it; None where nothing is held."""
    try:
        mine = current.holding()
    except NoToken:
        return None
    return Held(mine.token, mine.signer)


def _no(request: ToolCallRequest) -> ToolMessage:
    """The answer to a call that a person said no to."""
    return ToolMessage(
        REFUSED_BY_A_PERSON,
        name=request.tool_call["name"],
        tool_call_id=request.tool_call["id"] or "",
        status="error",
    )


def _config(request: ToolCallRequest) -> Mapping[str, Any]:
    """The configuration that the call runs under."""
    return getattr(request.runtime, "config", None) or {}


def _agent_in(config: Mapping[str, Any]) -> str | None:
    """Who runs, by the framework's word, or None where it has none."""
    return (config.get("metadata") or {}).get(_NAME)


def _run(config: Mapping[str, Any]) -> object:
    """What LangGraph knows the step by: the path of graphs that it is in.

    Something of its own where there is none, so that it is no other run's.
    """
    return (config.get("configurable") or {}).get("checkpoint_ns") or object()


# --- consents: rule 7 ---------------------------------------------------------------------------

# In a node that has asked about all calls beforehand: those that a person said no to.
_said_no: ContextVar[Collection[str | None] | None] = ContextVar(
    "captoken.langchain.said_no", default=None
)


class _PausingNode(ToolNode):
    """A ToolNode that stops before the first of a message's calls, if one wants a consent."""

    def __init__(self, guard: TokenGuard, *args: Any, **options: Any) -> None:
        self._guard = guard
        self._messages = options.get("messages_key", "messages")
        super().__init__(*args, **options)

    # called: langchain_node, by `python -m tests.called`
    def invoke(self, input: Any, config: RunnableConfig | None = None, **more: Any) -> Any:
        """Run the calls of the last message of a model, once each of them may run."""
        requests = self._requests(input, config)
        refused = self._guard.refused_in(requests)
        while left := _but(self._guard.waiting(requests), refused):
            refused |= _no_to(left)
        with context_value(_said_no, refused):
            return super().invoke(input, config, **more)

    # end: langchain_node

    # awaited: langchain_node
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **more: Any) -> Any:
        """Run the calls of the last message of a model, once each of them may run."""
        requests = self._requests(input, config)
        refused = await self._guard.arefused(requests)
        while left := _but(await self._guard.awaiting(requests), refused):
            refused |= _no_to(left)
        with context_value(_said_no, refused):
            return await super().ainvoke(input, config, **more)

    # end: langchain_node

    def _requests(self, input: Any, config: RunnableConfig | None) -> list[ToolCallRequest]:
        """What the guard is asked about each call of the message that this node was given."""
        runtime: Any = _Configured(ensure_config(config))
        return [
            ToolCallRequest(call, self.tools_by_name.get(call["name"]), input, runtime)
            for call in _calls_in(input, self._messages)
        ]


class _Configured(NamedTuple):
    """What the guard reads of a runtime."""

    config: Mapping[str, Any]


def _but(asked: list[Wanted], refused: set[str | None]) -> list[Wanted]:
    """Those that no person has said no to."""
    return [one for one in asked if one["id"] not in refused]


def _no_to(asked: list[Wanted]) -> set[str | None]:
    """Stop the graph. Once it goes on: the calls that a person said no to."""
    answer = interrupt({KEY: asked})
    return {one["id"] for one in asked if is_no(answer, one["id"])}


def _resumed_with(config: Mapping[str, Any]) -> list[Any]:
    """The answers that a step of a graph is resumed with, which nobody has taken yet.

    LangGraph has no public word for it: it hands them out where a step stops again. Without it, a
    no is not heard by a call that has a consent.
    """
    pad = (config.get("configurable") or {}).get(_SCRATCHPAD)
    return [] if pad is None else [*pad.resume, pad.get_null_resume(False)]


def _is_no(answers: Sequence[Any], call_id: str | None) -> bool:
    """Does one of them say no to the call?"""
    return any(is_no(answer, call_id) for answer in answers)


def _calls_in(given: Any, key: str) -> Sequence[ToolCall]:
    """The calls that a ToolNode makes of what it is given."""
    if isinstance(given, list) and given and isinstance(given[-1], dict):
        return given
    if isinstance(given, dict) and "tool_call" in given:
        return [given["tool_call"]]
    if not isinstance(given, list):
        given = given.get(key, []) if isinstance(given, dict) else getattr(given, key, [])
    last = next((one for one in reversed(given) if isinstance(one, AIMessage)), None)
    return [] if last is None else last.tool_calls


def _is_alone(config: Mapping[str, Any]) -> bool:
    """Does the node run for one call alone, as `create_agent` has it?

    By the path of its task, for which there is no public word. Without it, nothing waits.
    """
    path: Any = (config.get("metadata") or {}).get("langgraph_path")
    return bool(path) and path[0] == _SENT


def requests_of(result: Any) -> list[Wanted]:
    """What to ask a person before an interrupted graph goes on, call by call (rule 7).

        consents = [approver.consent(one["request"]) for one in requests_of(result)]

    `result` is what `invoke` gave, or the graph's state. Then `with current.use(token,
    consents=consents)` resume it by `Command(resume=True)`. `Command(resume={call id: False})` says
    no to a call, `Command(resume=False)` to all of one interrupt. Of several interrupts LangGraph
    takes the answers by their ids.
    """
    stopped = result.get("__interrupt__", ()) if isinstance(result, dict) else result.interrupts
    found: list[Wanted] = []
    for one in stopped:
        if isinstance(one.value, dict):
            found += one.value.get(KEY, ())
    return found


# --- what a tool gets: rule 1 -----------------------------------------------------------------


class _Known:
    """What is known of a tool as long as it has the same schema."""

    __slots__ = ("answering", "args_schema", "plain", "schema", "tool", "unreadable")

    def __init__(self, tool: BaseTool, guard: ToolGuard) -> None:
        self.tool = tool
        self.args_schema = tool.args_schema
        self.answering = _answering(tool, guard)
        self.schema: type[BaseModel] | None = None
        self.plain: Mapping[str, tuple[type, ...]] | None = None
        self.unreadable: str | None = None
        try:
            self.schema = _schema(tool)
            self.plain = None if self.schema is None else _plain(self.schema)
        except _Unreadable as problem:
            self.unreadable = str(problem)


def _answering(tool: BaseTool, guard: ToolGuard) -> BaseTool:
    """A stand-in for a tool, whose answer to a call is the refusal where the tool raises a Denied.

    A copy, with its two ways to be called. What is called is the tool itself.
    """

    def answer(call: Any, error: BaseException) -> ToolMessage | None:
        refused = current.refusal_in(error)
        if refused is None or not isinstance(call, dict) or "id" not in call:
            return None
        return _refusal(call, tool, guard, refused)

    def invoke(call: Any, *args: Any, **options: Any) -> Any:
        try:
            return tool.invoke(call, *args, **options)
        except Exception as error:
            answered = answer(call, error)
            if answered is None:
                raise
            return answered

    async def ainvoke(call: Any, *args: Any, **options: Any) -> Any:
        try:
            return await tool.ainvoke(call, *args, **options)
        except Exception as error:
            answered = answer(call, error)
            if answered is None:
                raise
            return answered

    answering = copy.copy(tool)
    vars(answering).update(invoke=invoke, ainvoke=ainvoke)
    return answering


class _Unreadable(Exception):  # noqa: N818, it is not raised further than this file
    """Nobody can say what the tool would get, and why: so the call is permitted to nobody."""


def _arguments(request: ToolCallRequest, known: _Known | None) -> tuple[Any, dict[str, Any]]:
    """What to ask about, and what of the request has to change so that it has it (rule 1).

    What is asked is no mapping where nothing is permitted, but text that says why: the guard
    refuses that as it refuses arguments that are no JSON.
    """
    call = request.tool_call
    arguments: Any = call["args"]
    if known is None:
        return arguments, {}
    if known.tool.name != call["name"]:
        # Somebody put it there: the guard would be asked about the one, and the other would run.
        return "another tool", {}
    if known.unreadable is not None:
        return known.unreadable, {}
    if known.schema is None:
        return arguments, {}
    try:
        asked, given = _read(known.schema, arguments, known.plain)
    except ValidationError:
        return arguments, {}  # the tool refuses them, in words that help the model
    except _Unreadable as problem:
        return str(problem), {}
    return asked, {"tool_call": {**call, "args": given}}


def _read(
    schema: type[BaseModel],
    arguments: Any,
    plain: Mapping[str, tuple[type, ...]] | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a schema makes of arguments: by the names of its fields, and as it reads them.

    The tool will read them once more. So they have to be such that a second reading gives the same
    as the first, and what was asked about is what it then gets. Of a `plain` schema that is so
    where each value is of a type of its field. Raises ValidationError for what the schema does not
    take, _Unreadable.
    """
    try:
        read = schema.model_validate(arguments)
    except ValidationError:
        raise
    except (ValueError, TypeError, RecursionError):
        raise _Unreadable("unreadable") from None

    if plain is not None and not read.model_extra:
        values = vars(read)
        if all(type(value) in plain[name] for name, value in values.items()):
            return values, dict(values)
    try:
        asked = read.model_dump(mode="json")
        given = read.model_dump(mode="json", by_alias=True)
        again = schema.model_validate(given)
        if again != read or again.model_dump(mode="json") != asked:
            raise _Unreadable("read otherwise")
        if not _written_as_they_are(read, asked):
            raise _Unreadable("written otherwise")
    except (PydanticSerializationError, ValueError, TypeError, LookupError, RecursionError):
        raise _Unreadable("read otherwise") from None
    return asked, given


def _plain(model: type[BaseModel]) -> dict[str, tuple[type, ...]] | None:
    """For each field the types of its values, where nothing but these says how it is read.

    None for a model of which more is to be said.
    """
    rules = model.__pydantic_decorators__
    writes = rules.field_serializers or rules.model_serializers or rules.computed_fields
    if writes or not _only_fields(model):
        return None
    plain: dict[str, tuple[type, ...]] = {}
    for name, each in model.model_fields.items():
        types = _PLAIN.get(each.annotation)
        if types is None or each.metadata or each.exclude or each.serialization_alias:
            return None
        plain[name] = types
    return plain


def _written_as_they_are(read: BaseModel, asked: Mapping[str, Any]) -> bool:
    """Whether each field is asked about as its value is, and not as the model chose to write it.

    A serializer of a field's own, or a secret that writes itself as stars, would have the guard
    asked about something else than the tool gets.
    """
    return all(
        to_jsonable_python(getattr(read, name), by_alias=False) == asked[name]
        for name in type(read).model_fields
    )


def _schema(tool: BaseTool) -> type[BaseModel] | None:
    """The model of a tool's arguments, without those that the framework adds.

    None for a tool that has none. Raises _Unreadable for one of which cannot be said how it reads
    them: the model without what the framework adds is made anew of the fields alone.
    """
    for_model = tool.tool_call_schema
    whole = tool.args_schema
    if isinstance(for_model, dict):
        return None
    if not issubclass(for_model, BaseModel):
        raise _Unreadable("of pydantic 1")
    if not (isinstance(whole, type) and issubclass(whole, BaseModel)):
        return for_model
    if set(whole.model_fields) == set(for_model.model_fields):
        return whole
    if not _only_fields(whole):
        raise _Unreadable("more than its fields")
    return for_model


def _only_fields(model: type[BaseModel]) -> bool:
    """Whether nothing but types and defaults says how the model reads."""
    return not (
        _has_validators(model)
        or set(model.model_config) - _HARMLESS
        or _reads_in_its_own_way(model)
        or _has_special_fields(model)
    )


def _has_validators(model: type[BaseModel]) -> bool:
    """Whether it has validators, which can make anything of what they are given.

    Some of them belong to no field, and so are lost where a model is made anew of the fields.
    """
    rules = model.__pydantic_decorators__
    return bool(
        rules.field_validators
        or rules.model_validators
        or rules.validators
        or rules.root_validators
    )


def _reads_in_its_own_way(model: type[BaseModel]) -> bool:
    """Whether it has code of its own for reading, in place of pydantic's or after it."""
    if model.__pydantic_post_init__ or model.__pydantic_custom_init__:
        return True
    return any(
        getattr(model, name).__func__ is not getattr(BaseModel, name).__func__ for name in _READING
    )


def _has_special_fields(model: type[BaseModel]) -> bool:
    """Whether a field is read under another name, or in a way of its own.

    A model that is made anew of the fields does not know of it.
    """
    return any(
        field.alias or field.validation_alias or field.discriminator or field.validate_default
        for field in model.model_fields.values()
    )


def _refusal(
    call: Mapping[str, Any],
    tool: BaseTool | None,
    guard: ToolGuard,
    refused: Denied | StatementError,
) -> ToolMessage:
    """Rule 3: what the model is told.

    It is the tool's answer to the model's call, by its id, so that the conversation stays
    well-formed.
    """
    return ToolMessage(
        refusal_text(refused, partial(guard.for_model, declares=_declared(tool))),
        name=call["name"],
        tool_call_id=call["id"] or "",
        status="error",
    )


def _declared(tool: Any) -> list[str]:
    """The arguments that the model was told the tool has; none where nobody can say."""
    schema = getattr(tool, "tool_call_schema", None)
    if isinstance(schema, dict):
        return list(schema.get("properties", ()))
    return list(getattr(schema, "model_fields", ()))


# --- sub-agents -------------------------------------------------------------------------------


@contextmanager
def handed(held: Held, to: str) -> Generator[RunnableConfig, None, None]:
    """Rule 5: in this block `held` is all there is.

    Gives the configuration to run the sub-agent with: its name, and of the caller's the callbacks
    and tags, so that its run is traced as a part.
    """
    caller = ensure_config()
    own: RunnableConfig = {
        "callbacks": caller.get("callbacks"),
        "tags": caller.get("tags") or [],
        "metadata": {_NAME: to},
    }
    # Else LangChain adds the caller's configuration to what is passed. And what a person said no to
    # in the caller's message is no word on calls of the sub-agent, which may have the same ids.
    with context_value(var_child_runnable_config, own), context_value(_said_no, None), only(held):
        yield own


def delegate_to(
    agent: Runnable[Any, Any],
    *,
    to: str | None = None,
    name: str | None = None,
    description: str | None = None,
    context: Any = None,
    **narrowing: Unpack[Narrowing],
) -> BaseTool:
    """A tool for an orchestrator: hands a task to `agent`, and gives back its last message's text.

    With the task goes what is held there, narrowed as `Held.delegate` does. The tool is called
    `ask_` and the agent's name, unless given.

    `agent`: what `create_agent` or a graph's `compile` gave, with `messages` in its state. `to`:
    the name of its guard, if it is not its own. `context`: its runtime context; it gets none of the
    caller's. Does not check that the agent's tools are guarded. Raises GuardError for an agent
    without a name.

    If calls of the sub-agent want a consent, the graph of a caller by `create_agent` stops, and
    `requests_of` has them. Once it goes on, the sub-agent begins anew with the consents: its other
    calls run again.

    The tool raises GuardError if the agent that calls it holds nothing of its own, and if its agent
    stopped to wait for somebody else, or in a node. It raises NoToken, and what `Held.delegate`
    raises.
    """
    whom = agent_name(to or _own_name(agent))
    given: dict[str, Any] = {} if context is None else {"context": context}

    def narrowed() -> Held:
        config = ensure_config()
        mine = handing(_agent_in(config), run=_run(config))
        return handed_on(mine, whom, narrowing)

    def ask(task: str) -> str:
        if _was_refused():
            return REFUSED_BY_A_PERSON
        with handed(narrowed(), whom) as config:
            result = agent.invoke(_asking(task), config, **given)
        return _waited(result) or _last(result)

    async def aask(task: str) -> str:
        if _was_refused():
            return REFUSED_BY_A_PERSON
        with handed(narrowed(), whom) as config:
            result = await agent.ainvoke(_asking(task), config, **given)
        return _waited(result) or _last(result)

    return StructuredTool.from_function(
        ask,
        aask,
        name=name or tool_name("ask", whom),
        description=description or tool_description(whom),
    )


def _own_name(agent: Any) -> str:
    """The name of an agent. Raises GuardError for one that has none.

    A graph that nobody named has a name all the same, which all such graphs share.
    """
    name = getattr(agent, "name", None)
    if not isinstance(name, str) or name in _UNNAMED:
        raise GuardError(
            "give the agent a name=…, or pass `to`: the agent's token names its holder"
        )
    return name


def _asking(task: str) -> dict[str, Any]:
    """The state in which a sub-agent begins."""
    return {"messages": [HumanMessage(task)]}


def _was_refused() -> bool:
    """Did a person say no to what the sub-agent of this call wanted, when it stopped the graph?"""
    return any(map(_has_no, _resumed_with(ensure_config())))


def _has_no(answer: Any) -> bool:
    return answer is False or (isinstance(answer, dict) and False in answer.values())


def _waited(result: Any) -> str | None:
    """Stop the caller's graph where a sub-agent stopped for consents. Once it goes on: the no.

    Only where the call is a task of its own, as `create_agent` has it: in a node, the other calls
    of the message would run again. What the sub-agent then does it does from its beginning.
    """
    stopped = result.get("__interrupt__", ()) if isinstance(result, dict) else ()
    ours = [isinstance(one.value, dict) and KEY in one.value for one in stopped]
    if not ours or not all(ours) or not _is_alone(ensure_config()):
        return None
    asked = requests_of(result)
    while not _has_no(interrupt({KEY: asked})):
        pass
    return REFUSED_BY_A_PERSON


def _last(result: Any) -> str:
    """The text of the last message.

    Raises GuardError where the run has not come to its end: it waits for somebody, or the last
    message is a call that nobody has made.
    """
    message = result["messages"][-1]
    if result.get("__interrupt__") or getattr(message, "tool_calls", None):
        raise GuardError(
            "the agent waits for a person, who cannot be asked here: run it in your own code"
        )
    return str(message.text)
