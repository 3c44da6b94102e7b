"""The guard in mcp 1.x, which has no middleware: the handlers of the low-level server, as the server looks them up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

from captoken import current
from captoken._verification.grant import Grant
from captoken.adapters._mcp.gate import Gate, answering, decided, listed
from captoken.adapters._mcp.messages import (
    CALL,
    LISTS,
    PROOF,
    TOKEN,
    Message,
    Refused,
    headers_of,
)

_Handler = Callable[[Any], Awaitable[Any]]
_types: Any = import_module("mcp.types")  # by name, since type checkers see mcp 2.x
_low: Any = import_module("mcp.server.lowlevel.server")
_fast: Any = import_module("mcp.server.fastmcp")
_McpError: Any = import_module("mcp.shared.exceptions").McpError


def install(gate: Gate, server: Any) -> None:
    """Guard `server`: also the handlers that it is given later."""
    low = server._mcp_server if isinstance(server, _fast.FastMCP) else server
    if not isinstance(low, _low.Server):
        raise TypeError(f"a {type(server).__name__} is no FastMCP or Server")
    if low._experimental_handlers is not None:
        raise ValueError(
            "install the guard before the server's tasks are enabled: it would not see their handlers"
        )
    low.request_handlers = _Guarded(low.request_handlers, gate, _answered)
    low.notification_handlers = _Guarded(low.notification_handlers, gate, _noticed)


class _Guarded(dict[type, _Handler]):
    """Handlers by type of request. A message from outside is looked up by `get`; the server's own uses are not messages."""

    def __init__(
        self,
        handlers: dict[type, _Handler],
        gate: Gate,
        around: Callable[[Gate, _Handler, Any], Awaitable[Any]],
    ) -> None:
        super().__init__(handlers)
        self._gate, self._around = gate, around

    def get(self, key: type, default: Any = None) -> Any:
        handler = super().get(key)
        if handler is None:
            return default
        return lambda message: self._around(self._gate, handler, message)


async def _admitted(gate: Gate, message: Any, headers: Any) -> Grant | None:
    params: Any = message.params
    stated = (
        {} if params is None else params.model_dump(by_alias=True, mode="json", exclude_none=True)
    )
    if message.method == CALL and params is not None:
        stated["arguments"] = params.arguments  # as the handler gets them
    meta = getattr(params, "meta", None)
    if meta is not None:
        stated["_meta"] = dict(meta.model_extra or {})
        for key in (TOKEN, PROOF):  # so that no tool can log or send them on
            (meta.model_extra or {}).pop(key, None)
    return await decided(gate.verifier, gate.admit, Message(message.method, stated, headers))


async def _answered(gate: Gate, handler: _Handler, message: Any) -> Any:
    with answering(_meta(message)):
        try:
            carried = _low.request_ctx.get().request
            headers = headers_of(carried)
            gate.hide(carried)
            grant = await _admitted(gate, message, headers)
        except Refused as refused:
            if refused.tool:
                text = _types.TextContent(type="text", text=refused.text)
                return _types.ServerResult(_types.CallToolResult(content=[text], isError=True))
            raise _McpError(
                _types.ErrorData(code=refused.code, message=refused.text, data=refused.data)
            ) from None
        if grant is None:
            return await handler(message)
        with current.serving(grant):
            result = await handler(message)
    if message.method not in LISTS:
        return result
    listing = LISTS[message.method]
    items = getattr(result.root, listing.items)
    keep = [_plain(item, listing.key) for item in items]
    kept = await decided(
        gate.verifier, lambda: [listed(grant, message.method, name) for name in keep]
    )
    shown = [item for item, good in zip(items, kept, strict=True) if good]
    return _types.ServerResult(result.root.model_copy(update={listing.items: shown}))


async def _noticed(gate: Gate, handler: _Handler, message: Any) -> None:
    """A notification carries no HTTP request here: a token for one comes in its `_meta`."""
    with answering(_meta(message)):
        try:
            grant = await _admitted(gate, message, headers_of(None, notified=True))
        except Refused:
            return
        if grant is None:
            await handler(message)
            return
        with current.serving(grant):
            await handler(message)


def _meta(message: Any) -> Any:
    return getattr(getattr(message.params, "meta", None), "model_extra", None)


def _plain(item: Any, key: str) -> Any:
    value = getattr(item, key)
    return value if isinstance(value, str) else str(value)  # a uri is an object here
