"""An MCP server and its client, for tests of pauses: what was refused is stored, and called again by a client that is built anew."""

from __future__ import annotations

import asyncio
from typing import Any

from mcp import Client
from mcp.server import MCPServer

from captoken.adapters.mcp import Guard
from captoken.adapters.mcp_client import Presenting
from captoken.errors import Refused
from tests.adapters.consents import Call, Desk, Stopped


class OverMCP:
    """The request comes with the refusal, and the consent with the call that is made again."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def begin(self, *calls: Call) -> Stopped:
        return asyncio.run(self._called(calls))

    def go_on(self, stored: Any, *, no: tuple[str, ...] = ()) -> Stopped:
        return asyncio.run(self._called([call for call in stored if call[0] not in no]))

    def server(self) -> MCPServer:
        server = MCPServer("desk")
        for tool in (self.desk.lookup, self.desk.mail, self.desk.refund):
            server.tool()(tool)
        Guard(self.desk.verifier).install(server)
        return server

    async def _called(self, calls: Any) -> Stopped:
        left, waiting, told = [], [], {}
        async with Client(self.server()) as client:
            mine = Presenting(client, audience="desk")
            for call_id, tool, arguments in calls:
                try:
                    await mine.call_tool(tool, arguments)
                except Refused as refused:
                    told[call_id] = refused.for_model
                    if refused.request is not None:
                        left.append((call_id, tool, arguments))
                        waiting.append({"id": call_id, "tool": tool, "request": refused.request})
        return Stopped(left, waiting, told)
