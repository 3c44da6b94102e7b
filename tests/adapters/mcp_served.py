"""The server that the tests of MCP call: in their process, as a program on stdio (`python mcp_served.py`), and over HTTP."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import uvicorn

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from captoken import Access, current
from captoken.adapters.mcp import TWO, Guard
from tests import fixtures

if TWO:
    from mcp.server import MCPServer as Server
    from mcp.server.mcpserver import Context
else:
    from mcp.server.fastmcp import Context
    from mcp.server.fastmcp import FastMCP as Server

AUDIENCE = "sales-mcp"


class Ran:
    """What reached a tool, a resource or a prompt: with what, and for whom."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, str]] = []

    def __call__(self, name: str, value: Any = None) -> str:
        holder = current.grant().actor.name
        self.calls.append((name, value, holder))
        return json.dumps([name, value, holder])


def tools(server: Any, ran: Ran) -> None:
    """The same on a server of any SDK."""

    @server.tool()
    async def pay(cents: int, to: str = "acct-9") -> str:
        return ran("pay", [cents, to])

    @server.tool()
    def look(term: str = "") -> str:
        return ran("look", term)

    @server.tool()
    async def nothing() -> str:
        return ran("nothing")

    @server.tool()
    async def wait(for_: int) -> str:
        """Two calls that are answered at once, whoever comes first."""
        before = current.grant().actor.name
        await anyio.sleep(0.02)
        return ran("wait", [before, for_])

    @server.tool()
    def data(table: str) -> str:
        """Asks the grant that it was called with about its own data."""
        return "rows" if current.grant().check(Access(table=table, operation="select")) else "refused"

    @server.tool(name="resources/read")
    def posing() -> str:
        return ran("posing")

    @server.tool()
    def boom() -> str:
        raise RuntimeError("the disk is full")

    @server.resource("sales://q3")
    def q3() -> str:
        return ran("q3")

    @server.resource("hr://salaries")
    def salaries() -> str:
        return ran("salaries")

    @server.resource("note://{name}/text")
    def note(name: str) -> str:
        return ran("note", name)

    @server.prompt()
    def greet(name: str, style: str = "short") -> str:
        return ran("greet", [name, style])

    @server.prompt()
    def confess() -> str:
        return ran("confess")


def served(ran: Ran, *, options: dict[str, Any] | None = None, verifier: Any = None, **guard: Any) -> Any:
    server = Server("sales", **(options or {}))
    tools(server, ran)

    @server.tool()
    async def seen(ctx: Context) -> str:
        """All that a tool sees of what its call carried along."""
        request: Any = ctx.request_context.request
        return repr([ctx.request_context, request and [request.headers.raw, request.scope["headers"]]])

    Guard(verifier or fixtures.verifier(audience=AUDIENCE), **guard).install(server)
    return server


@contextmanager
def over_http(app_of: Callable[[], Any]) -> Generator[str, None, None]:
    """The address of a server on loopback, until the block ends."""
    config = uvicorn.Config(app_of(), host="127.0.0.1", port=0, log_level="critical", lifespan="on", ws="none")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        thread.join(0.005)
        assert thread.is_alive()
    try:
        yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}/mcp"
    finally:
        running.should_exit = True
        thread.join()


def http_app(server_of: Callable[[dict[str, Any]], Any]) -> Any:
    """Without sessions, so that a test can post one message and read one answer."""
    options = {"stateless_http": True, "json_response": True}
    if TWO:
        return server_of({}).streamable_http_app(**options)
    return server_of(options).streamable_http_app()


if __name__ == "__main__":
    logging.disable()
    served(Ran(), **{"default_from_environment": True} if "--default" in sys.argv else {}).run()
