"""MCP's own conformance suite: a server passes behind the guard what it passes without, and a client that presents tokens passes, too.

`pytest -m mcpservers`, with `CAPTOKEN_MCP_SERVERS` naming a folder where npm has put `@modelcontextprotocol/conformance`. The suite sends no
token: what stands before the guard here adds one. It has nothing for a login.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp.server import MCPServer
from mcp.server.mcpserver import Context, Image
from mcp_types import EmbeddedResource, TextContent, TextResourceContents

from captoken import Issuer, Keyring, Verifier
from captoken.adapters.mcp import Guard
from tests.adapters.serving import listening, served

pytestmark = pytest.mark.mcpservers

KEYRING = Keyring.from_keys({"k1": bytes(range(1, 33))}, current="k1")
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
METHODS = (
    "resources/read", "resources/subscribe", "resources/unsubscribe", "prompts/get", "completion/complete", "logging/setLevel",
    "notifications/roots/list_changed",
)  # fmt: skip


def server() -> Any:
    """What the suite asks for, as far as the SDK has it in a few lines."""
    made: Any = MCPServer("conformance", log_level="WARNING")

    @made.tool(name="test_simple_text", description="For the suite.")
    def simple_text() -> str:
        return "This is a simple text response for testing."

    @made.tool(name="test_image_content", description="For the suite.")
    def image_content() -> Any:
        return Image(data=PIXEL, format="png")

    @made.tool(name="test_embedded_resource", description="For the suite.")
    def embedded_resource() -> Any:
        return EmbeddedResource(
            type="resource",
            resource=TextResourceContents(uri="test://embedded-resource", mime_type="text/plain", text="This is an embedded resource content."),
        )

    @made.tool(name="test_multiple_content_types", description="For the suite.")
    def multiple_content_types() -> Any:
        resource = TextResourceContents(uri="test://mixed-content-resource", mime_type="application/json", text='{"test":"data","value":123}')
        return [TextContent(type="text", text="Multiple content types test:"), Image(data=PIXEL, format="png"), EmbeddedResource(type="resource", resource=resource)]

    @made.tool(name="test_error_handling", description="For the suite.")
    def error_handling() -> str:
        raise ValueError("This tool intentionally returns an error for testing")

    @made.tool(name="test_tool_with_progress", description="For the suite.")
    async def tool_with_progress(ctx: Context) -> str:
        for done in (0, 50, 100):
            await ctx.report_progress(done, 100)
        return "done"

    @made.resource("test://static-text", mime_type="text/plain")
    def static_text() -> str:
        return "This is the content of the static text resource."

    @made.resource("test://static-binary", mime_type="image/png")
    def static_binary() -> bytes:
        return PIXEL

    @made.resource("test://template/{id}/data", mime_type="application/json")
    def template(id: str) -> str:
        return f'{{"id":"{id}","templateTest":true,"data":"Data for ID: {id}"}}'

    @made.prompt(name="test_simple_prompt", description="For the suite.")
    def simple_prompt() -> str:
        return "This is a simple prompt for testing."

    @made.prompt(name="test_prompt_with_arguments", description="For the suite.")
    def prompt_with_arguments(arg1: str, arg2: str) -> str:
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    return made


def app(guarded: bool) -> Any:
    made = server()
    if not guarded:
        return made.streamable_http_app()
    keyring = KEYRING.for_audience("mcp")
    Guard(Verifier(keyring, audience="mcp")).install(made)
    inner = made.streamable_http_app()
    token = Issuer(keyring).mint(subject="a:suite", agent="suite", task="t", tools={"*": {}, **{each: {} for each in METHODS}})
    header = (b"authorization", b"Bearer " + token.present(audience="mcp", expires_in=600).encode())

    async def sending(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": [*scope["headers"], header]}
        await inner(scope, receive, send)

    return sending


def suite(*asked: str) -> str:
    folder = Path(os.environ["CAPTOKEN_MCP_SERVERS"]).resolve()
    environ = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "NO_COLOR": "1"}
    ran = subprocess.run([str(folder / "node_modules/.bin/conformance"), *asked], cwd=folder, env=environ, capture_output=True, text=True, timeout=300)
    return ran.stdout + ran.stderr


def passed(guarded: bool) -> dict[str, str]:
    """By scenario: how many of its checks passed."""
    with served(app(guarded), listening(), lifespan="on") as url:
        said = suite("server", "--url", f"{url}/mcp")
    return dict(re.findall(r"^[^\w\n]*([a-z0-9-]+): (\d+ passed, \d+ failed)", said, re.M))


def test_a_server_passes_behind_the_guard_what_it_passes_without() -> None:
    plain, guarded = passed(False), passed(True)
    assert len(plain) >= 20 and guarded == plain


CLIENT = """
import asyncio, sys
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from captoken import Issuer, Keyring, current
from captoken.adapters.mcp_client import Presenting

async def main() -> None:
    token = Issuer(Keyring.generate()).mint(subject="a:suite", agent="suite", task="t", tools={"*": {}})
    async with streamable_http_client(sys.argv[-1]) as (read, write, *_), ClientSession(read, write) as session:
        await session.initialize()
        with current.use(token):
            server = Presenting(session, audience="mcp")
            await server.list_tools()
            if sys.argv[1] == "tools_call":
                await server.call_tool("add_numbers", {"a": 5, "b": 3})

asyncio.run(main())
"""


@pytest.mark.parametrize("scenario", ["initialize", "tools_call"])
def test_a_client_that_presents_tokens_passes(scenario: str, tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(CLIENT)
    said = suite("client", "--command", f"{sys.executable} {script} {scenario}", "--scenario", scenario)
    assert "OVERALL: PASSED" in said, said
