"""Clients of both versions of the SDK, that the tests of MCP ask by."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from captoken.adapters.mcp import TWO

if TWO:
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client
    from mcp.shared.exceptions import MCPError
else:
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared.exceptions import McpError as MCPError
    from mcp.shared.memory import create_connected_server_and_client_session

SCRIPT = str(Path(__file__).with_name("mcp_served.py"))
__all__ = ["TWO", "MCPError", "in_process", "is_error", "on_stdio", "text", "to_http"]


@asynccontextmanager
async def in_process(server: Any) -> AsyncGenerator[Any, None]:
    if TWO:
        async with Client(server) as client:
            yield client
    else:
        async with create_connected_server_and_client_session(server) as session:
            yield session


@asynccontextmanager
async def on_stdio(*arguments: str, **environment: str) -> AsyncGenerator[Any, None]:
    params = StdioServerParameters(command=sys.executable, args=[SCRIPT, *arguments], env=environment)
    if TWO:
        async with Client(stdio_client(params)) as client:
            yield client
    else:
        async with stdio_client(params) as (read, write), ClientSession(read, write) as session:
            await session.initialize()
            yield session


@asynccontextmanager
async def to_http(url: str) -> AsyncGenerator[Any, None]:
    if TWO:
        async with Client(url) as client:
            yield client
    else:
        async with streamable_http_client(url) as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            yield session


def text(result: Any) -> str:
    """What a tool answered."""
    return str(result.content[0].text)


def is_error(result: Any) -> bool:
    return bool(result.is_error if TWO else result.isError)
