"""Guard a FastMCP server (fastmcp 4) with a verifier: every request is refused that no token permits (docs/mcp.md).

    server = FastMCP("sales", middleware=[Guard(Verifier(keyring, audience="sales-mcp"))])

What a message is to captoken, where a token may come in and what needs none: the rules of `captoken.adapters._mcp`. What
comes of a refusal: as `captoken.adapters.mcp` has it.

- What a tool in turn asks of its own server is decided by the grant that the tool itself was called with.
- A tool goes by the name that is listed. Its hashed name (`__…`), by which fastmcp reaches it too, is refused.
- What the owner's code asks of the server outside of a request comes without a token: `run_middleware=False` is for it.

Not checked: which of several versions of a tool is called, and what `captoken.adapters.mcp` does not check. Middleware
that stands before the guard can answer in its place, as a cache does; what stands behind it can change what it let in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

from fastmcp.exceptions import ToolError
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from mcp.shared.exceptions import MCPError

from captoken import current
from captoken.adapters._mcp import CALL, LISTS, Message, Refused, headers_of
from captoken.adapters._mcp_gate import Gate, answering, decided, listed, teller
from captoken.grant import Grant
from captoken.tools import Attributes, Cost
from captoken.verify import Verifier

_ATTRIBUTES = {
    "tools/list": "name",
    "resources/list": "uri",
    "resources/templates/list": "uri_template",
    "prompts/list": "name",
}
_PARAMS = ("name", "uri", "arguments", "cursor")  # of a message that fastmcp has read
# The request that is being answered, by its session, which the SDK makes for each; and what it was granted.
_answering: ContextVar[tuple[Any, Grant] | None] = ContextVar("captoken.fastmcp", default=None)
_F = TypeVar("_F", bound=Callable[..., Any])


def told(tool: _F) -> _F:
    """A tool that asks `current.grant()` itself: where that refuses it, the model is told why. `@server.tool` above `@told`."""
    return teller(ToolError, tool)


class Guard(Middleware):
    """Lets in what a token permits; takes what `captoken.adapters.mcp.Guard` takes."""

    def __init__(
        self,
        verifier: Verifier,
        *,
        cost: Cost | None = None,
        attributes: Attributes | None = None,
        free: Iterable[str] = (),
        list_without_token: bool = False,
        authorization_header: bool = True,
        default_from_environment: bool = False,
    ) -> None:
        self._gate = Gate(
            verifier,
            cost=cost,
            attributes=attributes,
            free=free,
            list_without_token=list_without_token,
            authorization_header=authorization_header,
            default_from_environment=default_from_environment,
        )

    async def __call__(self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]) -> Any:
        """One message, whichever hook it would go to."""
        request = _request(context)
        session = None if request is None else request.session
        with answering(None if request is None else request.meta):
            try:
                grant = await self._admitted(context, session)
            except Refused as refused:
                if context.type == "notification":
                    return None  # nobody waits for an answer
                if refused.tool:
                    raise ToolError(refused.text) from None
                raise MCPError(refused.code, refused.text, refused.data) from None
            if grant is None:
                return await call_next(context)
            before = _answering.set((session, grant))
            try:
                with current.serving(grant):
                    result = await call_next(context)
            finally:
                _answering.reset(before)
        method = context.method or ""
        if method not in LISTS:
            return result
        keep = [_plain(getattr(item, _ATTRIBUTES[method])) for item in result]
        kept = await decided(self._gate.verifier, lambda: [listed(grant, method, name) for name in keep])
        return [item for item, good in zip(result, kept, strict=True) if good]

    async def check_resource_access(self, context: MiddlewareContext[Any]) -> None:
        """May the resource be read? For extensions that show what is in one without reading it."""
        try:
            request = _request(context)
            await self._admitted(context, None if request is None else request.session)
        except Refused as refused:
            raise MCPError(refused.code, refused.text, refused.data) from None

    async def _admitted(self, context: MiddlewareContext[Any], session: Any) -> Grant | None:
        method, params = context.method or "", _params(context.message)
        if method == CALL and str(params.get("name")).startswith("__"):
            params = {**params, "name": None}
        outer = _answering.get()
        if outer is not None and session is not None and outer[0] is session:
            return await decided(self._gate.verifier, self._gate.again, outer[1], method, params)
        request = _request(context)
        meta = None if request is None else request.meta
        headers = headers_of(None if request is None else request.request, notified=context.type == "notification")
        stated = {**params, "_meta": meta} if meta is not None else params
        return await decided(self._gate.verifier, self._gate.admit, Message(method, stated, headers))


def _request(context: MiddlewareContext[Any]) -> Any:
    """The request that a message came in, or None outside of one."""
    return None if context.fastmcp_context is None else context.fastmcp_context.request_context


def _params(message: Any) -> dict[str, Any]:
    """The params of a message, as they came or as fastmcp has read them; without `_meta`, which it does not keep."""
    if isinstance(message, Mapping):
        return {key: value for key, value in message.items() if key != "_meta"}
    stated = message if hasattr(message, "arguments") or not hasattr(message, "params") else message.params
    found = {key: getattr(stated, key, None) for key in _PARAMS}
    return {key: _plain(value) if key == "uri" else value for key, value in found.items() if value is not None}


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else str(value)
