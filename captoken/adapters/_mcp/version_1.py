"""The guard in mcp 1.x, which has no middleware: it stands around the low-level server's handlers.

The server looks a handler up by the type of the message, and gets one that asks the gate. Handlers
that are added later are looked up in the same place, and so are guarded too.

What this file reads of the SDK without a public word for it: `FastMCP._mcp_server`, the server
behind one, and `Server._experimental_handlers`, whether its tasks are enabled. Both are read where
a guard is installed, and not while a message is answered: a version of the SDK that has them no
longer raises there, and serves nothing unguarded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, TypeAlias

from captoken._format.extras import extra
from captoken._verification.grant import Grant
from captoken.adapters._mcp.gate import Gate, answering
from captoken.adapters._mcp.listing import only_listed
from captoken.adapters._mcp.messages import (
    CALL,
    LISTS,
    TOKEN,
    Headers,
    Message,
    NotLetIn,
    Session,
    headers_of,
    plain_name,
)
from captoken.adapters._mcp.sessions import session_of

_Handler: TypeAlias = Callable[[Any], Awaitable[Any]]

# Imported by name, because type checkers see mcp 2.x.
with extra("mcp"):
    _types: Any = import_module("mcp.types")
    _low: Any = import_module("mcp.server.lowlevel.server")
    _fast: Any = import_module("mcp.server.fastmcp")
    _McpError: Any = import_module("mcp.shared.exceptions").McpError


def install(gate: Gate, server: Any) -> None:
    """Guard `server`: also the handlers that it is given later.

    Raises TypeError for what is no server of mcp 1.x. Raises ValueError for one whose tasks are
    enabled: they have handlers that do not come this way. So for one that is guarded.
    """
    low = _low_level(server)
    if isinstance(low.request_handlers, _Guarded):
        raise ValueError(
            "this server already has a guard: install one only, where the server is made"
        )
    # Tasks have handlers of their own, for methods that would be answered without a token.
    if _has_tasks(low):
        raise ValueError(
            "install the guard before you enable the server's tasks: afterwards it does not see "
            "their handlers"
        )
    low.request_handlers = _Guarded(low.request_handlers, gate, _answered)
    low.notification_handlers = _Guarded(low.notification_handlers, gate, _noticed)


def _low_level(server: Any) -> Any:
    """The low-level server behind a FastMCP; itself if it is one. Raises TypeError.

    There is no public word for it in the SDK; see the top of this file.
    """
    low = server._mcp_server if isinstance(server, _fast.FastMCP) else server
    if not isinstance(low, _low.Server):
        raise TypeError(f"expected a FastMCP or Server, not {type(server).__name__}")
    return low


def _has_tasks(low: Any) -> bool:
    """Whether the SDK's experimental tasks are enabled; it has no public word for it.

    They bring handlers that are not looked up in the server's dictionaries; see the top of this
    file.
    """
    return low._experimental_handlers is not None


class _Guarded(dict[type, _Handler]):
    """Handlers by type of request.

    A message from outside is looked up by `get`. All else that is done with the dictionary are the
    server's own uses of a handler, which are not messages: it asks its own handler for the list of
    tools, say, to check a call by their schemas. For that there is no token, and no need of one.
    """

    def __init__(
        self,
        handlers: dict[type, _Handler],
        gate: Gate,
        around: Callable[[Gate, _Handler, Any], Awaitable[Any]],
    ) -> None:
        super().__init__(handlers)
        self._gate = gate
        self._around = around

    def get(self, key: type, default: Any = None) -> Any:
        """The handler of a message, asking the gate first; `default` where there is none."""
        handler = super().get(key)
        if handler is None:
            return default
        return lambda message: self._around(self._gate, handler, message)


async def _answered(gate: Gate, handler: _Handler, message: Any) -> Any:
    """What a request comes to: a result, or an error of the SDK's.

    The steps are those of the middleware in `captoken.adapters.mcp`; the messages are models here.
    """
    with answering(_extra_of(message)):
        try:
            http_request = _low.request_ctx.get().request
            # First read, then hidden: from here on nothing else can read them.
            headers = headers_of(http_request)
            gate.hide(http_request)
            grant = await _admitted(gate, message, headers, session_of(http_request))
        except NotLetIn as refused:
            return _refusal(refused)
        with gate.under(grant):
            result = await handler(message)

    if grant is None or message.method not in LISTS:
        return result
    listing = LISTS[message.method]
    items = getattr(result.root, listing.items)
    names = [plain_name(getattr(item, listing.key)) for item in items]
    shown = await only_listed(grant, message.method, items, names, steps_up=gate.steps_up)
    return _types.ServerResult(result.root.model_copy(update={listing.items: shown}))


async def _noticed(gate: Gate, handler: _Handler, message: Any) -> None:
    """Handle a notification, which gets no answer.

    It carries no HTTP request here: a token for one comes in its `_meta`.
    """
    with answering(_extra_of(message)):
        try:
            grant = await _admitted(gate, message, headers_of(None, notified=True))
        except NotLetIn:
            return
        with gate.under(grant):
            await handler(message)


async def _admitted(
    gate: Gate,
    message: Any,
    headers: Headers | None,
    session: Session | None = None,
) -> Grant | None:
    """The grant of a message, which shows no token from here on. Raises NotLetIn.

    The arguments of a call are taken as the handler gets them. Everything else is taken as it goes
    over the wire.
    """
    params: Any = message.params
    stated: dict[str, Any] = {}
    # As it goes over the wire: a uri is an object here, and what a token names is its text.
    if params is not None:
        stated = params.model_dump(by_alias=True, mode="json", exclude_none=True)
        # Not by the model: what was decided on has to be the very object that the tool gets.
        if message.method == CALL:
            stated["arguments"] = params.arguments
    if getattr(params, "meta", None) is not None:
        extra = _extra_of(message) or {}
        stated["_meta"] = dict(extra)
        extra.pop(TOKEN, None)  # so that no tool can log it or send it on
    return await gate.admitted(Message(message.method, stated, headers, session))


def _extra_of(message: Any) -> Any:
    """The members of `_meta` that the SDK has no field for, or None.

    The token is one of them. It is the message's own dictionary: what is taken out of it is gone.
    """
    return getattr(getattr(message.params, "meta", None), "model_extra", None)


def _refusal(refused: NotLetIn) -> Any:
    """A result for the model, of a tool. Raises McpError for anything else (spec 40.8).

    It is answered here, and reaches no handler of the SDK that would put it in its own words.
    """
    if refused.tool:
        text = _types.TextContent(type="text", text=refused.text)
        # So that a client can tell it from an error of the tool's own.
        marked = {"_meta": refused.data}
        result = _types.CallToolResult(content=[text], isError=True, **marked)
        return _types.ServerResult(result)
    raise _McpError(
        _types.ErrorData(code=refused.code, message=refused.text, data=refused.data)
    ) from None
