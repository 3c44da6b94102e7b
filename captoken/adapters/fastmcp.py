"""Guard a FastMCP server (fastmcp 4) with a verifier: every request is refused that no token permits (docs/mcp.md).

    server = FastMCP("sales", middleware=[Guard(Verifier(keyring, audience="sales-mcp"))])

What a message is to captoken, where a token may come in and what needs none: the rules of `captoken.adapters._mcp.messages`. What
comes of a refusal: as `captoken.adapters.mcp` has it.

- What a tool in turn asks of its own server is decided by the grant that the tool itself was called with. The guard of
  another server, one that is mounted say, looks at the token for itself.
- Token and proof are taken out of the request before anything is done with it: no tool sees them, no proxy sends them on.
- What the server says of caches (`cache_scope`) is made private.
- A tool goes by the name that is listed. Its hashed name (`__…`), by which fastmcp reaches it too, is refused.
- What the owner's code asks of the server outside of a request comes without a token: `run_middleware=False` is for it.

Not checked: which of several versions of a tool is called, and what `captoken.adapters.mcp` does not check. Middleware
that stands before the guard can answer in its place, as a cache does; what stands behind it can change what it let in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar, Unpack

from fastmcp.exceptions import ToolError
from fastmcp.server.dependencies import fastmcp_request_ctx, get_http_request
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from mcp.shared.exceptions import MCPError

from captoken import current
from captoken._verification.grant import Grant
from captoken._verification.verifier import Verifier
from captoken.adapters._mcp.gate import Gate, Options, answering, decided, listed, teller
from captoken.adapters._mcp.messages import (
    CALL,
    LISTS,
    Message,
    Refused,
    headers_of,
    without_secrets,
)

_ATTRIBUTES = {
    "tools/list": "name",
    "resources/list": "uri",
    "resources/templates/list": "uri_template",
    "prompts/list": "name",
}
_PARAMS = ("name", "uri", "arguments", "cursor")  # of a message that fastmcp has read
_F = TypeVar("_F", bound=Callable[..., Any])


def told(tool: _F) -> _F:
    """A tool that asks `current.grant()` itself: where that refuses it, the model is told why. `@server.tool` above `@told`."""
    return teller(ToolError, tool)


class _Came(NamedTuple):
    """What came with the request that is being answered, by its session, which the SDK makes for each; and what was granted."""

    session: Any
    meta: Mapping[str, Any] | None
    headers: Callable[[str], list[str]] | None
    grants: Mapping[
        Gate, Grant
    ]  # by whom: the guard of a mounted server knows nothing of another's

    def __repr__(self) -> str:
        return "<_Came>"  # the token is in there


_came: ContextVar[_Came | None] = ContextVar("captoken.fastmcp", default=None)


class Guard(Middleware):
    """Lets in what a token permits; takes what `captoken.adapters.mcp.Guard` takes."""

    def __init__(self, verifier: Verifier, **options: Unpack[Options]) -> None:
        self._gate = Gate(verifier, **options)

    async def __call__(self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]) -> Any:
        """One message, whichever hook it would go to."""
        came, sent = self._arrived(context), context.message
        self._hide(context)
        if isinstance(sent, Mapping) and isinstance(sent.get("_meta"), Mapping):
            context = context.copy(message={**sent, "_meta": without_secrets(sent["_meta"])})
        before = _came.set(came)
        try:
            return await self._answered(context, call_next, came)
        finally:
            _came.reset(before)

    async def _answered(
        self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any], came: _Came
    ) -> Any:
        with answering(came.meta):
            try:
                grant = await self._admitted(context, came)
            except Refused as refused:
                if context.type == "notification":
                    return None  # nobody waits for an answer
                if refused.tool:
                    raise ToolError(refused.text) from None
                raise MCPError(refused.code, refused.text, refused.data) from None
            if grant is None:
                return await call_next(context)
            before = _came.set(came._replace(grants={**came.grants, self._gate: grant}))
            try:
                with current.serving(grant):
                    result = await call_next(context)
            finally:
                _came.reset(before)
        method = context.method or ""
        if method not in LISTS:
            return result
        keep = [_plain(getattr(item, _ATTRIBUTES[method])) for item in result]
        kept = await decided(
            self._gate.verifier, lambda: [listed(grant, method, name) for name in keep]
        )
        return [item for item, good in zip(result, kept, strict=True) if good]

    async def check_resource_access(self, context: MiddlewareContext[Any]) -> None:
        """May the resource be read? For extensions that show what is in one without reading it."""
        try:
            await self._admitted(context, self._arrived(context))
        except Refused as refused:
            raise MCPError(refused.code, refused.text, refused.data) from None

    def _arrived(self, context: MiddlewareContext[Any]) -> _Came:
        """What came with the request: what is there, or what was before it was hidden."""
        request, outer = _request(context), _came.get()
        if request is not None and outer is not None and outer.session is request.session:
            return outer
        headers = headers_of(
            None if request is None else request.request, notified=context.type == "notification"
        )
        return (
            _Came(None, None, headers, {})
            if request is None
            else _Came(request.session, request.meta, headers, {})
        )

    def _hide(self, context: MiddlewareContext[Any]) -> None:
        """Take what is secret out of the request; and let nobody else have the answer out of a cache."""
        request = _request(context)
        self._gate.hide(None if request is None else request.request)
        self._gate.hide(_http_request())
        if context.fastmcp_context is not None:
            hints = (
                context.fastmcp_context.fastmcp._mcp_server.cache_hints
            )  # looked up after what is answered here
            hints.update({method: replace(hint, scope="private") for method, hint in hints.items()})
        if (
            request is not None and request.meta is not None
        ):  # new ones: in one process, what was sent is the client's own
            request.meta = clean = without_secrets(request.meta)
            sdk = request._srctx
            sdk.params, sdk.meta = (
                {**sdk.params, "_meta": clean},
                None if sdk.meta is None else clean,
            )

    async def _admitted(self, context: MiddlewareContext[Any], came: _Came) -> Grant | None:
        method, params = context.method or "", _params(context.message)
        if method == CALL and str(params.get("name")).startswith("__"):
            params = {**params, "name": None}
        grant = came.grants.get(self._gate)
        if grant is not None:
            return await decided(self._gate.verifier, self._gate.again, grant, method, params)
        stated = {**params, "_meta": came.meta} if came.meta is not None else params
        return await decided(
            self._gate.verifier, self._gate.admit, Message(method, stated, came.headers)
        )


def _request(context: MiddlewareContext[Any]) -> Any:
    """The request that a message came in, or None outside of one."""
    return None if context.fastmcp_context is None else context.fastmcp_context.request_context


def _http_request() -> Any:
    """The HTTP request that fastmcp knows of beside that of the message, as for a notification, or None."""
    before = fastmcp_request_ctx.set(None)
    try:
        return get_http_request()
    except RuntimeError:
        return None
    finally:
        fastmcp_request_ctx.reset(before)


def _params(message: Any) -> dict[str, Any]:
    """The params of a message, as they came or as fastmcp has read them; without `_meta`, which it does not keep."""
    if isinstance(message, Mapping):
        return {key: value for key, value in message.items() if key != "_meta"}
    stated = (
        message
        if hasattr(message, "arguments") or not hasattr(message, "params")
        else message.params
    )
    found = {key: getattr(stated, key, None) for key in _PARAMS}
    return {
        key: _plain(value) if key == "uri" else value
        for key, value in found.items()
        if value is not None
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else str(value)
