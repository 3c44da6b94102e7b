"""Guard an MCP server: it refuses every request that no token permits.

    server = MCPServer("sales")     # mcp 2.x; FastMCP("sales") of 1.x; a low-level Server of either
    Guard(Verifier(keyring, audience="sales-mcp")).install(server)

See docs/mcp.md. `captoken.adapters._mcp.messages` has the rules for messages: the access each one
needs, where a token may be, and which methods need none.

- If the token does not permit a tool, the answer is an error *result* for the model:
  `decision.for_model()`.
- If a token is missing, forged, expired or lacks its proof, the answer is the protocol error 401.
  For any other method that is not permitted, it is 403. If the server cannot decide, it is 503. The
  error data has the kind of the denial.
- Lists contain only what the token may use. A notification that nothing permits is dropped.
- A session over HTTP belongs to the token tree that opened it, whatever arrives in it.
- While a message is handled, `captoken.current.grant()` is the grant of that message, no token is
  held, and `captoken.current.trace()` is the trace in its `_meta`. The token itself is removed from
  `_meta` and from the headers.

Not checked: what a server sends to the client, and what a call does after its token has expired.
Nor the content of an answer to an elicitation, and so what a tool takes from it. Nor how middleware
after the guard changes the arguments, so install the guard last.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Any, TypeVar, Unpack, overload

from captoken._format.extras import extra
from captoken._verification.verifier import AnyVerifier
from captoken.adapters._mcp.elicited import without_state
from captoken.adapters._mcp.gate import Challenges, Gate, Options, answering, teller
from captoken.adapters._mcp.listing import only_listed
from captoken.adapters._mcp.messages import (
    LISTS,
    Message,
    NotLetIn,
    has_token,
    headers_of,
    without_token,
)
from captoken.adapters._mcp.sessions import session_of

# By name, since the two versions have them in different places.
with extra("mcp"):
    TWO = version("mcp").split(".")[0] != "1"  # which major version of the SDK is installed
    _server: Any = import_module("mcp.server")
    _errors: Any = import_module("mcp.shared.exceptions")
    _tools: Any = import_module(
        "mcp.server.mcpserver.exceptions" if TWO else "mcp.server.fastmcp.exceptions"
    )

    # The protocols in which a result says of itself that it is one.
    _modern: Any = import_module("mcp_types.version").MODERN_PROTOCOL_VERSIONS if TWO else ()

_F = TypeVar("_F", bound=Callable[..., Any])


@overload
def explains_denials(tool: _F) -> _F: ...
@overload
def explains_denials(*, tell_limits: bool) -> Callable[[_F], _F]: ...
def explains_denials(tool: Any = None, *, tell_limits: bool = False) -> Any:
    """A tool that asks `current.grant()` itself: where that refuses it, the model is told why.

    It says what the guard would say. Write `@server.tool()` above `@explains_denials`. With
    `@explains_denials(tell_limits=True)` it also tells the bounds of a range that was missed.
    Without it the SDK answers in its own way: 1.x with the text that is for the operator.
    """
    return teller(_tools.ToolError, tool, tell_limits)


def opens(ctx: Any) -> bool:
    """Can the client of a message show a person a page, and be told of one in an answer?"""
    if ctx.protocol_version not in _modern:
        return False
    said = getattr(ctx.session, "client_capabilities", None)  # the first 2.x does not tell
    return getattr(getattr(said, "elicitation", None), "url", None) is not None


class Guard(Challenges):
    """Lets in what a token permits.

    Install it with `install`, or with mcp 2.x as the last `middleware` of a server.

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
    told what to ask. Not with mcp 1.x.
    `consent_wait`: seconds that such a call waits for the person, 30 unless said.

    Raises NoToken if the token of the process was to be used, and it was started without one.
    Raises TypeError or ValueError for what is no cost, or no method that can be free.
    """

    def __init__(self, verifier: AnyVerifier, **options: Unpack[Options]) -> None:
        self._gate = Gate(verifier, **options)

    def install(self, server: Any) -> None:
        """Guard `server` from here on, once. Raises ValueError for one that is guarded.

        Two guards would each ask, and charge, for the same message. Raises TypeError for what is no
        server of this `mcp`.
        """
        if not TWO:
            # By name: that file cannot be imported where mcp 2.x is installed.
            import_module("captoken.adapters._mcp.version_1").install(self._gate, server)
            _keep_sessions(server, self.sessions)
            return
        if not isinstance(server, (_server.MCPServer, _server.Server)):
            raise TypeError(
                f"expected an MCPServer or Server, not {type(server).__name__} (for fastmcp: "
                "captoken.adapters.fastmcp)"
            )
        if any(isinstance(each, Guard) for each in server.middleware):
            raise ValueError(
                "this server already has a guard: install one only, where the server is made"
            )
        server.middleware.append(self)
        _keep_sessions(server, self.sessions)

    async def __call__(self, ctx: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        """The middleware of mcp 2.x: one message, and what answers it.

        What is secret is taken out of the HTTP request before anything is decided, and out of
        `_meta` before anything else sees the message.
        """
        params: Mapping[str, Any] = ctx.params or {}
        notified = ctx.request_id is None
        with answering(params.get("_meta")):
            try:
                # First read, then hidden: from here on nothing else can read them.
                headers = headers_of(ctx.request, notified=notified)
                self._gate.hide(ctx.request)
                session = session_of(ctx.request)
                message = Message(ctx.method, params, headers, session, opens=opens(ctx))
                grant = await self._gate.admitted(message)
            except NotLetIn as refused:
                if notified:
                    return None  # nobody waits for an answer
                return _refusal(refused, ctx.protocol_version)
            with self._gate.under(grant):
                result = await call_next(_without_token(ctx))

        if grant is None:
            return result  # no token was needed for it: whatever the server says of caches holds
        if ctx.method in LISTS:
            listing = LISTS[ctx.method]
            result = _wired(result)
            items = result.get(listing.items) or ()
            names = [item.get(listing.key) for item in items]
            shown = await only_listed(grant, ctx.method, items, names, steps_up=self._gate.steps_up)
            result = {**result, listing.items: shown}
        return _private(result)


def _keep_sessions(server: Any, guarded: Callable[[Any], Any]) -> None:
    """See to it that the applications which a server makes know whose their sessions are.

    Its methods that make one are replaced. A low-level server of mcp 1.x has none.
    """
    for name in ("streamable_http_app", "sse_app"):
        plain = getattr(server, name, None)
        if plain is not None:
            setattr(server, name, partial(_made, plain, guarded))


def _made(plain: Callable[..., Any], guarded: Callable[[Any], Any], *args: Any, **kw: Any) -> Any:
    """An application of Starlette, with `guarded` as its outermost middleware."""
    app = plain(*args, **kw)
    app.add_middleware(guarded)
    return app


def _without_token(ctx: Any) -> Any:
    """The context of a message, which shows no token from here on.

    The message that came stays as it is: in one process it is the client's own object.
    """
    params = without_state(ctx.params or {})
    meta = params.get("_meta")
    if not has_token(meta):
        return ctx if params is ctx.params or not params else replace(ctx, params=params)
    clean = without_token(meta)
    return replace(ctx, params={**params, "_meta": clean}, meta=None if ctx.meta is None else clean)


def _refusal(refused: NotLetIn, protocol: str) -> dict[str, Any]:
    """A result for the model, of a tool. Raises MCPError for anything else.

    Newer protocols want a result to say that it is one. The kind of the denial is in the data of an
    error, for clients that renew what has expired.
    """
    if refused.offer is not None:
        return dict(refused.offer.result)
    if not refused.tool:
        raise _errors.MCPError(refused.code, refused.text, refused.data) from None
    told = refused.result
    return {**told, "resultType": "complete"} if protocol in _modern else told


def _private(result: Any) -> Any:
    """What a token was needed for: nobody else is to get it out of a cache.

    A result without a hint for caches is not to be cached by anybody.
    """
    if getattr(result, "cache_scope", None) is not None:
        return result.model_copy(update={"cache_scope": "private"})
    if isinstance(result, dict) and "cacheScope" in result:
        return {**result, "cacheScope": "private"}
    return result


def _wired(result: Any) -> dict[str, Any]:
    """A result as it goes over the wire; other middleware may have made it, as a model."""
    if isinstance(result, dict):
        return result
    made: dict[str, Any] = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    return made
