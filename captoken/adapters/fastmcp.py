"""Guard a FastMCP server (fastmcp 4): it refuses every request that no token permits.

    verifier = Verifier(keyring, audience="sales-mcp")
    guard = Guard(verifier)
    server = FastMCP("sales", middleware=[guard])
    app = guard.sessions(server.http_app())  # over HTTP

See docs/mcp.md. `captoken.adapters._mcp.messages` has the rules for messages: the access each one
needs, where a token may be, and which messages need none. Denials are answered as in
`captoken.adapters.mcp`.

1. If a tool calls its own server, the grant of the tool's own call decides. The guard of another
   server, such as a mounted one, verifies the token by itself.
2. The token is removed from the request first, so no tool sees it and no proxy forwards it.
3. Cache hints of the server (`cache_scope`) are made private.
4. A tool has the name in the list. fastmcp also accepts a hashed name (`__…`); the guard refuses
   it.
5. Code of the owner that calls the server outside a request has no token. It uses
   `run_middleware=False`.

This file reads two private names of fastmcp: `_srctx` of a request, which is the SDK's own request
and has the token too, and `_mcp_server` of a server, which has its cache hints. If a version lacks
one of them, this raises and nothing is answered.

Not checked: which of several versions of a tool is called, what is behind a proxy and who else
reaches it, and what `captoken.adapters.mcp` does not check. Middleware before the guard can answer
in its place, as a cache does. Middleware after it can change the request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar, Unpack, overload

from captoken._format.extras import extra

with extra("fastmcp"):
    from fastmcp.exceptions import ToolError
    from fastmcp.prompts.base import InputRequiredPromptResult
    from fastmcp.resources.base import InputRequiredResourceResult
    from fastmcp.server.dependencies import fastmcp_request_ctx, get_http_request
    from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
    from fastmcp.tools.base import InputRequiredToolResult, ToolResult
    from mcp.shared.exceptions import MCPError
    from mcp.types import InputRequiredResult, TextContent

from captoken._verification.grant import Grant
from captoken._verification.verifier import AnyVerifier
from captoken.adapters._context_value import context_value
from captoken.adapters._mcp.elicited import ROUNDS, without_state
from captoken.adapters._mcp.gate import Challenges, Gate, Options, answering, teller
from captoken.adapters._mcp.listing import only_listed
from captoken.adapters._mcp.messages import (
    CALL,
    LISTS,
    Headers,
    Message,
    NotLetIn,
    Session,
    has_token,
    headers_of,
    plain_name,
    without_token,
)
from captoken.adapters._mcp.sessions import session_of
from captoken.adapters.mcp import opens

# The attribute of fastmcp's object that has the name of a listed item.
_ATTRIBUTES = {
    "tools/list": "name",
    "resources/list": "uri",
    "resources/templates/list": "uri_template",
    "prompts/list": "name",
}
# What says to fastmcp that a client is asked for something first, by what it would have got.
_OFFERS: dict[str, Callable[[InputRequiredResult], Any]] = {
    CALL: InputRequiredToolResult,
    "resources/read": InputRequiredResourceResult,
    "prompts/get": InputRequiredPromptResult,
}
_PARAMS = ("name", "uri", "arguments", "cursor")  # of a message that fastmcp has read
_F = TypeVar("_F", bound=Callable[..., Any])


@overload
def explains_denials(tool: _F) -> _F: ...
@overload
def explains_denials(*, tell_limits: bool) -> Callable[[_F], _F]: ...
def explains_denials(tool: Any = None, *, tell_limits: bool = False) -> Any:
    """A tool that asks `current.grant()` itself: where that refuses it, the model is told why.

    Write `@server.tool` above `@explains_denials`. With `@explains_denials(tell_limits=True)` it
    also tells the bounds of a range that was missed.
    """
    return teller(ToolError, tool, tell_limits)


class _Came(NamedTuple):
    """What came with the request that is being answered, and what was granted.

    The request is known by its session, which the SDK makes for each. The grants are by whose they
    are: the guard of a mounted server knows nothing of another's (rule 1).
    """

    session: Any  # None outside of a request
    meta: Mapping[str, Any] | None  # as it came: with the token
    headers: Headers | None  # as they came: with the token
    over: Session | None  # the session over HTTP, if it is one
    rounds: Mapping[str, Any]  # the state that the client shows again, with its answers
    opens: bool  # can the client show a person a page?
    grants: Mapping[Gate, Grant]

    def granted(self, gate: Gate, grant: Grant) -> _Came:
        """The same, with what `gate` has granted: for what the answer asks in turn."""
        grants = {**self.grants, gate: grant}
        return self._replace(grants=grants)

    def __repr__(self) -> str:
        return "<_Came>"  # the token is in there


_came: ContextVar[_Came | None] = ContextVar("captoken.fastmcp", default=None)


def _while_answering(came: _Came) -> AbstractContextManager[None]:
    """In this block, what fastmcp asks in turn is part of the request that `came` (rule 1).

    A tool that asks its own server comes through the guard again, and there is no token to be seen
    then: it was hidden.
    """
    return context_value(_came, came)


class Guard(Challenges, Middleware):
    """Lets in what a token permits.

    It goes into `middleware` of a FastMCP, as the last one.

    `verifier`: a Verifier or an AsyncVerifier of this server. With the latter, the answers of a
    tool's `current.grant()` are awaited.
    `cost`: what a call takes of a budget. A mapping by unit, as `{"usd_cents": 2}`, or a function
    of tool and arguments that gives one. None unless said: then nothing is stated. A call that is
    permitted is charged and recorded, whatever becomes of it then.
    `attributes`: what this server knows of a call, a function of tool and arguments. None unless
    said.
    `tell_limits`: True tells the model the bounds of a range that a number missed. False unless
    said.
    `free`: more methods that need no token, as `logging/setLevel`. None beside the few that open a
    session unless said.
    `list_without_token`: True shows everything in the lists to who has no token. False unless said.
    `authorization_header`: False leaves that header to somebody else, and looks for no token there.
    True unless said.
    `default_from_environment`: True lets what comes without a token, and not over HTTP, come with
    the one that the process was started with. False unless said.
    `consents`: a ConsentService, or another page where a person decides on calls that want a
    consent. A client that can show a page is then told its address. None unless said: clients are
    told what to ask.
    `consent_wait`: seconds that such a call waits for the person, 30 unless said.

    Raises NoToken if the token of the process was to be used, and it was started without one.
    Raises TypeError or ValueError for what is no cost, or no method that can be free.
    """

    def __init__(self, verifier: AnyVerifier, **options: Unpack[Options]) -> None:
        self._gate = Gate(verifier, **options)

    async def __call__(self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]) -> Any:
        """One message, whichever hook it would go to.

        Not by fastmcp's hooks for calls and lists, which are for some methods alone: what has no
        hook would come past the guard.
        """
        # First read, then hidden: from here on nothing else can read the token.
        came = _arrived(context)
        self._hide(context)
        # What fastmcp has not read itself is still as it came, in the message too.
        sent = context.message
        if isinstance(sent, Mapping) and has_token(sent.get("_meta")):
            context = context.copy(message={**sent, "_meta": without_token(sent["_meta"])})
        with _while_answering(came):
            return await self._answered(context, call_next, came)

    async def check_resource_access(self, context: MiddlewareContext[Any]) -> None:
        """May the resource be read? For extensions that show what is in one without reading it.

        It is decided, charged and recorded like a read. Raises MCPError.
        """
        try:
            await self._admitted(context, _arrived(context))
        except NotLetIn as refused:
            raise MCPError(refused.code, refused.text, refused.data) from None

    async def _answered(
        self,
        context: MiddlewareContext[Any],
        call_next: CallNext[Any, Any],
        came: _Came,
    ) -> Any:
        """What a message comes to. Raises MCPError, or ToolError for the model.

        A notification that nothing permits is dropped.
        """
        with answering(came.meta):
            try:
                grant = await self._admitted(context, came)
            except NotLetIn as refused:
                if context.type == "notification":
                    return None  # nobody waits for an answer
                if refused.offer is not None:
                    asked = InputRequiredResult.model_validate(refused.offer.result)
                    return _OFFERS[context.method or ""](asked)
                if refused.tool and refused.asked is not None and self._gate not in came.grants:
                    text = [TextContent(type="text", text=refused.text)]
                    return ToolResult(text, meta=refused.data, is_error=True)
                if refused.tool:
                    raise ToolError(refused.text) from None
                raise MCPError(refused.code, refused.text, refused.data) from None
            if grant is None:
                return await call_next(context)
            with _while_answering(came.granted(self._gate, grant)), self._gate.under(grant):
                result = await call_next(context)

        method = context.method or ""
        if method not in LISTS:
            return result
        # Rule 5 of the messages. Here the result is fastmcp's own objects, and not yet a message.
        names = [plain_name(getattr(item, _ATTRIBUTES[method])) for item in result]
        return await only_listed(grant, method, result, names, steps_up=self._gate.steps_up)

    async def _admitted(self, context: MiddlewareContext[Any], came: _Came) -> Grant | None:
        """The grant of a message that may be answered. Raises NotLetIn.

        A message that comes in the course of another is decided by the grant of that one; else by
        the token that came with it. fastmcp's own message has no `_meta`: it is put back here.
        """
        method = context.method or ""
        params = _params(context.message)
        # Rule 4. It is another name for a tool that a token permits, or forbids, by its own: so it
        # is taken for none, which no token can permit.
        if method == CALL and str(params.get("name")).startswith("__"):
            params = {**params, "name": None}

        grant = came.grants.get(self._gate)
        if grant is not None:  # rule 1
            return await self._gate.admitted_again(grant, method, params)
        params = {**params, **came.rounds}
        if came.meta is not None:
            params["_meta"] = came.meta
        message = Message(method, params, came.headers, came.over, opens=came.opens)
        return await self._gate.admitted(message)

    def _hide(self, context: MiddlewareContext[Any]) -> None:
        """Take what is secret out of the request (rule 2), and keep the answer to one (rule 3).

        The HTTP request is known in two places, and of a notification they are two requests.
        """
        request = _request(context)
        self._gate.hide(None if request is None else request.request)
        self._gate.hide(_http_request())
        if context.fastmcp_context is not None:
            _keep_private(context.fastmcp_context.fastmcp)
        if request is not None and request.meta is not None:
            _hide_meta(request)


def _hide_meta(request: Any) -> None:
    """Rule 2: what came in `_meta` is gone, from fastmcp's request and from the SDK's below it.

    Each gets a new `_meta`. In one process, what was sent is the client's own, and stays as it is.
    """
    # There is no public word for the SDK's request: see the top of this file.
    clean = without_token(request.meta)
    request.meta = clean
    sdk = request._srctx
    sdk.params = {**without_state(sdk.params), "_meta": clean}
    sdk.meta = None if sdk.meta is None else clean


def _keep_private(server: Any) -> None:
    """Rule 3: let nobody else have an answer out of a cache.

    The hints are looked up after what is answered here, on the low-level server.
    """
    # There is no public word for that server: see the top of this file.
    hints = server._mcp_server.cache_hints
    hints.update({method: replace(hint, scope="private") for method, hint in hints.items()})


def _arrived(context: MiddlewareContext[Any]) -> _Came:
    """What came with the request: what is there, or what was there before it was hidden.

    Outside of a request, as in the owner's own code, there is no token (rule 5): what stands around
    it is not taken. A notification carries no HTTP request that could be asked.

    A request that is made from within another one, by a client in a tool, has a session of its own,
    and so is not taken for a part of that.
    """
    request = _request(context)
    # What was there before it was hidden, if this is asked in the course of the same request.
    outer = _came.get()
    notified = context.type == "notification"
    if request is None:
        return _Came(None, None, headers_of(None, notified=notified), None, {}, False, {})
    if outer is not None and outer.session is request.session:
        return outer
    headers = headers_of(request.request, notified=notified)
    over, sdk = session_of(request.request), request._srctx
    rounds = {key: value for key, value in (sdk.params or {}).items() if key in ROUNDS}
    return _Came(request.session, request.meta, headers, over, rounds, opens(sdk), {})


def _request(context: MiddlewareContext[Any]) -> Any:
    """The request that a message came in, or None outside of one.

    It is the same object for whatever fastmcp asks of itself in the course of that request.
    """
    return None if context.fastmcp_context is None else context.fastmcp_context.request_context


def _http_request() -> Any:
    """The HTTP request that fastmcp knows of beside that of the message, or None.

    For a notification it is another one. fastmcp looks for the message's own request first, and
    would find that: so it is made to look for the other.
    """
    with context_value(fastmcp_request_ctx, None):
        try:
            return get_http_request()
        except RuntimeError:
            return None


def _params(message: Any) -> dict[str, Any]:
    """The params of a message, as they came or as fastmcp has read them.

    Without `_meta`, which it does not keep.
    """
    if isinstance(message, Mapping):
        return {key: value for key, value in message.items() if key != "_meta"}
    stated = message
    if not hasattr(message, "arguments") and hasattr(message, "params"):
        stated = message.params

    found = {key: getattr(stated, key, None) for key in _PARAMS}
    if found["uri"] is not None:
        found["uri"] = plain_name(found["uri"])
    return {key: value for key, value in found.items() if value is not None}
