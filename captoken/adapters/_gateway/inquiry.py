"""What an MCP server lists, asked by the gateway itself: for people who write tokens.

    tools = await listed(service, command, timeout=60)      # Unreachable, Broken, Unavailable

The server has its key. Nothing is judged, and no tool is called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any

import msgspec

from captoken.adapters._gateway import envelopes
from captoken.adapters._gateway.ends import Child, End
from captoken.adapters._gateway.mirrored import Mirrored
from captoken.adapters._gateway.opening import McpService
from captoken.adapters._gateway.remote import Remote
from captoken.adapters._gateway.seeking import Seeker, Told
from captoken.adapters._gateway.upstream import Broken, Upstream

# Pages of a list, at most.
_PAGES = 100

_OPENING = {
    "protocolVersion": envelopes.HANDSHAKE[-1],
    "capabilities": {},
    "clientInfo": {"name": "captoken", "version": "1"},
}
_MODERN = {
    envelopes.VERSION: envelopes.MODERN[-1],
    f"{envelopes.OWN}clientCapabilities": {},
    f"{envelopes.OWN}clientInfo": _OPENING["clientInfo"],
}


async def listed(
    service: McpService, command: Sequence[str], *, timeout: float
) -> list[dict[str, Any]]:
    """The tools of a server, each with its name: reached at its address, or started by `command`.

    Raises Unreachable, Broken, Unavailable and OSError, and TimeoutError after that many seconds.
    """
    end: End
    async with AsyncExitStack() as stack:
        if service.url is None:
            end = await Child.start(command, service.source, service.variable)
        else:
            upstream = Upstream(service.url, timeout=timeout, ca=service.ca)
            stack.callback(upstream.close)
            end = Remote(upstream, service, Mirrored(service.name))
        stack.push_async_callback(end.close)
        async with asyncio.timeout(timeout):
            return await _tools(end)


async def _tools(end: End) -> list[dict[str, Any]]:
    opened = await _answer(end, "initialize", _OPENING)
    params: dict[str, Any] = {}
    if opened is None:
        params["_meta"] = _MODERN  # a server of the newest revision alone has no handshake
    else:
        async for _ in end.exchange(_message("notifications/initialized", {}, None)):
            pass
    found: dict[str, dict[str, Any]] = {}
    for _ in range(_PAGES):
        page = await _answer(end, "tools/list", params)
        if page is None:
            raise Broken("the server does not list its tools")
        tools = page.get("tools")
        for tool in tools if type(tools) is list else ():
            if type(tool) is dict and type(tool.get("name")) is str:
                found.setdefault(tool["name"], tool)
        if type(page.get("nextCursor")) is not str:
            return list(found.values())
        params["cursor"] = page["nextCursor"]
    raise Broken("the list of tools has no end")


async def _answer(end: End, method: str, params: Mapping[str, Any]) -> dict[str, Any] | None:
    """The result of a request; None for an error. Raises Broken and Unreachable."""
    async with aclosing(end.exchange(_message(method, params, 1))) as stream:
        async for came in stream:
            try:
                heard = envelopes.hear(came.data) if came.data else None
                Seeker(end.spellings).look(came.data)
            except (ValueError, Told):
                raise Broken("the server said what is not passed on") from None
            if heard is not None and heard.is_answer:
                is_result = heard.result is not msgspec.UNSET
                return envelopes.opened(heard.result) if is_result else None
    raise Broken("the server did not answer")


def _message(method: str, params: Mapping[str, Any], number: int | None) -> dict[str, Any]:
    message = {"jsonrpc": "2.0", "method": method, "params": dict(params)}
    return message if number is None else {**message, "id": number}
