"""Present a token with each request to an MCP server, narrowed to what that request needs.

    async with Client("https://sales.example/mcp") as client:      # mcp 2.x; or a ClientSession
        sales = Presenting(client, audience="sales-mcp")
        await sales.call_tool("report", {"region": "eu"})          # with the current token

See docs/mcp.md.

1. A tool call is presented with a token for that server, that tool and those arguments, valid for
   one minute. So the server can use the token only for what it was asked to do.
2. A list is requested with a token that permits no call.
3. A tool that calls further servers needs its own tokens for them.

A denial is `captoken.errors.Refused`, whether the held token does not permit the call or the server
refuses it. `error.for_model` is for the model.

Not hidden: the arguments, and which agent acts for whom.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Any, TypeVar

from captoken import current
from captoken._format.clocks import Seconds
from captoken._format.errors import Refused, WideningError
from captoken._format.extras import extra
from captoken._format.names import frozen_copy
from captoken._format.spelling import shown
from captoken._language.access import Access
from captoken._writing.keywords import Strings
from captoken.adapters._context_value import context_value
from captoken.adapters._mcp.messages import (
    CALL,
    CONSENT,
    DECISION,
    FREE,
    KIND,
    LISTS,
    TOKEN,
    Message,
    digest,
    digest_of,
    facts,
    has_token,
    messages_of,
)
from captoken.adapters._mcp.not_held import not_held
from captoken.adapters._refused import DOMAIN, refused_there
from captoken.current import AnyHeld, Held

with extra("mcp"):
    _types: Any = import_module("mcp.types")  # of mcp 1.x or 2.x, which differ
    _TWO = version("mcp").split(".")[0] != "1"
    _errors: Any = import_module("mcp.shared.exceptions")
    _MCPError: Any = _errors.MCPError if _TWO else _errors.McpError

_R = TypeVar("_R", bound=Any)  # a Request of either library
_IS_ERROR = "is_error" if _TWO else "isError"

# How what a model is told of a denial begins, if it is no token that is wrong.
_NOT_PERMITTED = ("Not permitted: ", "Not permitted at present: ", "Not permitted under ")

# Rule 2: an attribute that nothing has. What is listed does not turn on attributes.
_LISTING: dict[str, dict[str, Any]] = {"io.captoken/listing": {"in": []}}


def meta_for(
    audience: str,
    tool: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    held: AnyHeld | None = None,
    expires_in: Seconds = 60,
    keep: Strings = (),
) -> dict[str, str]:
    """The `_meta` of one `tools/call`: a token for that server, tool and arguments. Secret.

    The token ends in a proof if it is bound to a key: it is then for one sending. `held`: what is
    presented; left out, what is current. `keep="tables"` keeps what is held of tables, for a server
    whose tools ask the grant about data. Raises NoToken; WideningError for what is not held;
    ValueError for what no token can permit, and arguments that are no JSON; and what `Held.present`
    raises.
    """
    params = {"name": tool, "arguments": _read(arguments, "arguments")}
    return meta_for_request(
        audience,
        CALL,
        params,
        held=held,
        expires_in=expires_in,
        keep=keep,
    )


def meta_for_request(
    audience: str,
    method: str,
    params: Mapping[str, Any] | None = None,
    *,
    held: AnyHeld | None = None,
    expires_in: Seconds = 60,
    keep: Strings = (),
) -> dict[str, str]:
    """The same for any method: `meta_for_request("sales-mcp", "resources/read", {"uri": uri})`.

    For a method that lists, the token is narrowed to the server, and permits no call: a condition
    goes with it that none meets.
    """
    stated = _read(params, "params")
    mine = current.holding(held).at(audience)
    bound = mine.key is not None
    about = digest(method, stated) if bound else None
    narrowed = _narrowed_to(method, stated, keep)
    text = mine.present(
        audience=audience,
        expires_in=expires_in,
        request=about,
        **narrowed,
    )

    meta = {TOKEN: text}
    trace = current.traceparent()
    if trace is not None:
        meta["traceparent"] = trace
    return meta


def auth(
    audience: str,
    *,
    held: AnyHeld | None = None,
    expires_in: Seconds = 60,
    keep: Strings = (),
) -> Callable[[_R], _R]:
    """What `auth=` of an httpx client takes: a token in the header of what has none in `_meta`.

        web = httpx2.AsyncClient(auth=auth("sales-mcp", held=held))    # mcp 1.x: httpx.AsyncClient
        async with Client(streamable_http_client(url, http_client=web)) as client:
            sales = Presenting(client, audience="sales-mcp", held=held)

    A session over HTTP belongs to the tree of the token that opened it. In it an answer to a
    question of the server's needs a token, and so does a stream that listens, a call that is
    cancelled, and the end of the session. Those can have it in the header alone.

    A call is presented with a token for that call. What is not held, and what is no call, is
    presented with a token that permits no call. The callable raises NoToken, and what
    `Held.present` raises. A proof covers the message. Its URL is not looked at: the client is for
    one server, over https or on this machine. It follows no redirects.
    """
    mine = None if held is None else current.holding(held)

    def present(asked: _R) -> _R:
        named = asked.headers.get("mcp-session-id", "")
        message = Message(asked.method, {}, beside=named)
        if asked.content:
            (message,) = messages_of(asked.content, (), named)
        if not has_token(message.params.get("_meta")):
            one = current.holding(mine).at(audience)
            text = _header_for(message, audience, one, expires_in, keep)
            asked.headers["authorization"] = f"Bearer {text}"
        return asked

    return present


def _header_for(
    message: Message, audience: str, mine: Held, expires_in: Seconds, keep: Strings
) -> str:
    """The text that goes in the header of a message."""
    try:
        about = digest_of(message) if mine.key is not None else None
    except ValueError:  # what opens a session, and what the guard refuses
        about = None
    narrowed: dict[str, Any] = {"where": _LISTING}
    if not message.beside and message.method not in FREE:
        narrowed = _narrowed_to(message.method, message.params, keep)
    sent: dict[str, Any] = {"audience": audience, "expires_in": expires_in, "request": about}
    try:
        return mine.present(**sent, **narrowed)
    except WideningError:  # the server's guard says what is missing, where an answer is waited for
        return mine.present(**sent, where=_LISTING)


def _read(given: Mapping[str, Any] | None, what: str) -> dict[str, Any]:
    """What a caller's mapping says, read once: what is proven is what is sent. None says nothing.

    Raises TypeError for what is no mapping.
    """
    return {} if given is None else frozen_copy(given, what)


def _narrowed_to(
    method: str,
    params: Mapping[str, Any],
    keep: Strings,
) -> dict[str, Any]:
    """The keywords of `present` for one request: the least that permits it (rule 1).

    Raises ValueError for what no token can permit, before anything is sent.
    """
    if method in LISTS:  # rule 2
        return {"where": _LISTING}
    asked = facts(method, params)
    if asked is None:
        wanted = params.get("name") if method == CALL else method
        raise ValueError(f"no token can permit {shown(wanted)}")
    tool, arguments = asked
    tools = Access(tool=tool, arguments=arguments).needed()["tools"]
    # Long text and objects have no constraint of their own, alone or in a list: of such an
    # argument, what is held goes with the token.
    is_open = any(_takes_any(constraint) for constraint in tools[tool].values())
    return {"tools": tools, "keep": keep, "clamp": is_open}


def _takes_any(constraint: Mapping[str, Any]) -> bool:
    """Is there a value that it leaves free, itself or as an item?"""
    if "each" in constraint:
        return _takes_any(constraint["each"])
    return "any" in constraint


class Presenting:
    """A client that presents a token with each request.

    Everything else is the client's own: use it.

    `audience`: the server, by the name that its verifier has.
    `held`: the token that is presented; left out, what is current at each request.
    `expires_in`: what is presented is good for so long, in seconds or as `5m`; 60 unless said.
    `keep`: `"tables"` for a server whose tools ask the grant about data; nothing unless said.

    Each request raises Refused where what is held does not permit it, and then nothing was sent;
    and where the server's guard refuses it. An error of a tool's own is its result, as ever. It
    raises NoToken, and ValueError for what no token can permit, and arguments that are no JSON.
    """

    def __init__(
        self,
        client: Any,
        *,
        audience: str,
        held: AnyHeld | None = None,
        expires_in: Seconds = 60,
        keep: Strings = (),
    ) -> None:
        self._client = client
        self._audience = audience
        self._held = None if held is None else current.holding(held)
        self._expires_in = expires_in
        self._keep = keep

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        meta: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """The client's `call_tool`."""
        stated = _read(arguments, "arguments")
        sent = self._meta(CALL, {"name": name, "arguments": stated}, meta)
        session = getattr(self._client, "session", self._client)
        _present_own_lists(session)
        _present_anew(session)
        anew = partial(self._meta, CALL, {"name": name, "arguments": stated}, meta)
        with (
            context_value(_own_list, lambda params: self._meta("tools/list", params, None)),
            context_value(_anew, anew),
        ):
            result = await _refusing(
                self._client.call_tool(
                    name,
                    stated,
                    meta=sent,
                    **options,
                )
            )
        self._look_at(name, result)
        return result

    async def read_resource(
        self,
        uri: Any,
        *,
        meta: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """The client's `read_resource`."""
        params = {"uri": str(uri)}
        return await self._ask("read_resource", "resources/read", params, meta, options)

    async def get_prompt(
        self,
        name: str,
        arguments: Mapping[str, str] | None = None,
        *,
        meta: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """The client's `get_prompt`."""
        params: dict[str, Any] = {"name": name}
        if arguments is not None:
            params["arguments"] = frozen_copy(arguments, "arguments")
        return await self._ask("get_prompt", "prompts/get", params, meta, options)

    async def list_tools(
        self,
        *,
        cursor: str | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Any:
        """The client's `list_tools`: what the token may call."""
        return await self._list("list_tools", "tools/list", cursor, meta)

    async def list_resources(
        self,
        *,
        cursor: str | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Any:
        """The client's `list_resources`: what the token may read."""
        return await self._list("list_resources", "resources/list", cursor, meta)

    async def list_resource_templates(
        self,
        *,
        cursor: str | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Any:
        """The client's `list_resource_templates`: what the token may read something of."""
        return await self._list("list_resource_templates", "resources/templates/list", cursor, meta)

    async def list_prompts(
        self,
        *,
        cursor: str | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Any:
        """The client's `list_prompts`: what the token may get."""
        return await self._list("list_prompts", "prompts/list", cursor, meta)

    def _meta(
        self,
        method: str,
        params: Mapping[str, Any],
        meta: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """The `_meta` of one request, with what the caller has to say in it.

        Raises ValueError for a caller that has a token in there: two would be refused.
        """
        theirs = _read(meta, "meta")
        if has_token(theirs):
            raise ValueError("leave the token out: captoken adds it here")
        try:
            ours = meta_for_request(
                self._audience,
                method,
                params,
                held=self._held,
                expires_in=self._expires_in,
                keep=self._keep,
            )
        except WideningError as widening:
            raise not_held(widening, self._held, self._audience, method, params) from widening
        return {**ours, **theirs}

    def _look_at(self, tool: str, result: Any) -> None:
        """Raise Refused for a result of the guard's, or of a tool with `explains_denials`.

        The guard marks its own; that of fastmcp those alone that have a request. What a tool raises
        has the SDK's words in front.
        """
        if not getattr(result, _IS_ERROR, False) or not result.content:
            return
        said = getattr(result.content[0], "text", "").removeprefix(f"Error executing tool {tool}: ")
        meta = result.meta or {}
        kind = meta.get(KIND)
        if kind is None and not said.startswith(_NOT_PERMITTED):
            return

        refused = refused_there(
            str(kind or "insufficient"), said, meta.get(DECISION), meta.get(CONSENT)
        )
        if said == DOMAIN and "tables" not in self._keep:
            raise Refused(
                f"{refused}. The presented token has no rights to tables: "
                'keep="tables" keeps those that you hold, for tools that check data',
                refused.for_model,
            )
        raise refused

    async def _list(
        self,
        name: str,
        method: str,
        cursor: str | None,
        meta: Mapping[str, Any] | None,
    ) -> Any:
        """What the client's method `name` lists: not out of a cache, which knows of no token.

        Two holders behind one client would else see each other's lists.
        """
        stated = {} if cursor is None else {"cursor": cursor}
        sent = self._meta(method, stated, meta)
        send = getattr(self._client, name)
        if self._has_cache():
            return await _refusing(send(cursor=cursor, meta=sent, cache_mode="bypass"))
        return await _refusing(send(params=_page_of(stated, sent)))

    async def _ask(
        self,
        name: str,
        method: str,
        params: dict[str, Any],
        meta: Mapping[str, Any] | None,
        options: dict[str, Any],
    ) -> Any:
        """What the client's method `name` gives; not out of a cache either, unless so wished."""
        if not _TWO:
            return await self._ask_version_1(method, params, meta, options)
        if method == "resources/read" and self._has_cache():
            options = {"cache_mode": "bypass", **options}
        sent = self._meta(method, params, meta)
        _present_anew(getattr(self._client, "session", self._client))
        with context_value(_anew, partial(self._meta, method, params, meta)):
            return await _refusing(getattr(self._client, name)(**params, meta=sent, **options))

    async def _ask_version_1(
        self,
        method: str,
        params: dict[str, Any],
        meta: Mapping[str, Any] | None,
        options: dict[str, Any],
    ) -> Any:
        """The same in mcp 1.x, which sends no `_meta` with these: so the message is made here.

        The proof is about what is sent, a uri as the SDK spells it, say.
        """
        kind, result = _ONE[method]
        message = kind.model_validate({"method": method, "params": params})
        stated = _wired(message.params)
        whole = {**stated, "_meta": self._meta(method, stated, meta)}
        message = kind.model_validate({"method": method, "params": whole})
        return await _refusing(
            self._client.send_request(_types.ClientRequest(message), result, **options)
        )

    def _has_cache(self) -> bool:
        """Is it the Client of mcp 2.x, which keeps what it is answered?"""
        return _TWO and isinstance(self._client, import_module("mcp").Client)


@contextmanager
def refused_alone() -> Generator[None, None, None]:
    """Around a client of the SDK: a Refused leaves the block by itself, and not in groups.

        with refused_alone():
            async with Client(url) as client:
                ...

    The SDK runs in task groups, which wrap whatever leaves them: some sixty lines of traceback, and
    nothing that `except Refused` would catch. All else passes through as it is.
    """
    refused: BaseException | None = None
    try:
        yield
    except BaseExceptionGroup as group:
        refused = _only(group)
        if not isinstance(refused, Refused):
            raise
    if refused is not None:
        raise refused.with_traceback(None) from None


def _only(error: BaseException) -> BaseException:
    """The one error in a group of one, however deep; else the group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        (error,) = error.exceptions
    return error


async def _refusing(answer: Awaitable[Any]) -> Any:
    """What a request comes to. Raises Refused where the server's guard has refused it.

    Any other error of MCP's passes through.
    """
    try:
        return await answer
    except _MCPError as error:
        data = error.error.data
        kind = data.get(KIND) if isinstance(data, Mapping) else None
        if not isinstance(kind, str):
            raise
        refused = refused_there(
            kind, error.error.message, data.get(DECISION), data.get(CONSENT)
        )
    # Out of the `except`: the SDK's own error says no more, in some thirty lines.
    raise refused


# Requests of mcp 1.x, and what answers them.
_ONE: dict[str, tuple[Any, Any]] = {
    "resources/read": (_types.ReadResourceRequest, _types.ReadResourceResult),
    "prompts/get": (_types.GetPromptRequest, _types.GetPromptResult),
}


def _wired(params: Any) -> dict[str, Any]:
    """The params of a message as they go over the wire."""
    made: dict[str, Any] = params.model_dump(by_alias=True, mode="json", exclude_none=True)
    return made


def _page_of(stated: Mapping[str, Any], meta: Mapping[str, Any]) -> Any:
    """The params of a request that lists."""
    return _types.PaginatedRequestParams.model_validate({**stated, "_meta": meta})


# A session that does not know what a tool returns lists the tools by itself, in the middle of a
# call, and would be refused. While a call of ours runs, this makes the `_meta` of such a list.
_own_list: ContextVar[Callable[[Mapping[str, Any]], dict[str, Any]] | None] = ContextVar(
    "captoken.mcp.list", default=None
)


# A request may take several rounds: the server asks for something, and the client sends the request
# again with the answer. A proof is good for one sending, and what is presented lives for a minute.
# While a request of ours runs, this makes the `_meta` of a further round.
_anew: ContextVar[Callable[[], dict[str, Any]] | None] = ContextVar(
    "captoken.mcp.anew", default=None
)
_IN_ROUNDS = ("call_tool", "read_resource", "get_prompt")


def _present_anew(session: Any) -> None:
    """See to it that each round of a request presents anew. Replaced once, as for lists."""
    if not _TWO or "get_prompt" in vars(session):
        return
    for name in _IN_ROUNDS:
        setattr(session, name, _rounds(getattr(session, name)))


def _rounds(plain: Callable[..., Any]) -> Callable[..., Any]:
    async def sent(*args: Any, **options: Any) -> Any:
        anew = _anew.get()
        goes_on = options.get("request_state") or options.get("input_responses")
        if anew is not None and goes_on and has_token(options.get("meta")):
            options = {**options, "meta": anew()}
        return await plain(*args, **options)

    return sent


def _present_own_lists(session: Any) -> None:
    """See to it that such a list comes with what the call's holder holds.

    The session's method is replaced, once for each session. Calls of the owner's own go through as
    they are, and so do lists in a form that the session does not use itself.
    """
    if "list_tools" in vars(session):
        return  # it does so already
    plain = session.list_tools

    async def list_tools(*args: Any, **options: Any) -> Any:
        meta_of = _own_list.get()
        if meta_of is None or args or not options.keys() <= {"params"}:
            return await plain(*args, **options)
        given = options.get("params")
        stated = {} if given is None else _wired(given)
        meta = stated.pop("_meta", None) or {}
        if TOKEN not in meta:
            meta = {**meta, **meta_of(stated)}
        return await plain(params=_page_of(stated, meta))

    session.list_tools = list_tools
