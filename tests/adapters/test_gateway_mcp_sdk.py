"""The gateway for MCP between a client and a server of the SDK, as people start them: by lines and over HTTP, in both revisions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from pydantic import Field

from captoken import AsyncVerifier, Issuer, Keyring
from captoken.adapters.gateway import Gateway, configured
from captoken.stores.memory import MemoryLedger
from tests.adapters.serving import listening, served
from tests.adapters.test_gateway_mcp import KEY
from tests.attacks.hosts.test_mcp import INITIALIZE, PLAIN, Kept, said

HERE = Path(__file__).resolve()
TOOLS = {"files.read": {"path": {"in": ["a.txt"]}}, "files.ask": {}, "files.route": {"region": {"in": ["eu", "é"]}}}
LISTED = ["read", "route", "ask"]


def server() -> Any:
    """A server that nobody here can change, and that has a key."""
    made = MCPServer("files")

    @made.tool()
    async def read(path: str, ctx: Context) -> str:
        """Read a file."""
        await ctx.report_progress(1, 2, "half")
        request: Any = ctx.request_context.request
        shown = os.environ.get("FILES_KEY") if request is None else request.headers.get("authorization")
        return f"text of {path}, {'keyed' if shown in (KEY, f'Bearer {KEY}') else 'without a key'}"

    @made.tool()
    def delete(path: str) -> str:
        raise AssertionError("nobody may")

    @made.tool()
    def route(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})], ctx: Context) -> str:
        """The SDK checks the header before this runs, where the revision has it."""
        request: Any = ctx.request_context.request
        return "" if request is None else request.headers.get("mcp-param-region", "")

    @made.tool()
    def ask() -> str:
        return "my key is " + KEY

    return made


def lay(folder: Path, mcp: str, place: str) -> Keyring:
    for name, text in (("key", KEY), ("held.token", "")):
        (folder / name).touch(0o600)
        (folder / name).write_text(text)
    keyring = Keyring.generate()
    keyring.save(folder / "keyring.json")
    credential = f'{{ from = "file:key", as = "{place}" }}'
    (folder / "gateway.toml").write_text(f'version = 1\n[gateway]\nkeyring = "keyring.json"\n[service.files]\nmcp = {mcp}\ncredential = {credential}\n')
    held = Issuer(keyring).mint(subject="user:jane", agent="support", task="returns", audience="files", tools=TOOLS)
    (folder / "held.token").write_text(held.serialize())
    return keyring


def run(transport: Callable[[], Any], mode: Any, routed: tuple[str, str] = ("", "")) -> None:
    """One client's session: list, and call what is permitted, what is not, and what tells the key. `routed`: the header of `route`."""
    heard: list[float] = []

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)

    async def session() -> None:
        async with Client(transport(), mode=mode) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == LISTED
            done = await client.call_tool("read", {"path": "a.txt"}, progress_callback=progressed)
            assert done.structured_content == {"result": "text of a.txt, keyed"} and heard == [1]
            for region, header in zip(("eu", "é"), routed, strict=True):
                assert (await client.call_tool("route", {"region": region})).structured_content == {"result": header}
            for tool, path in (("read", "b.txt"), ("delete", "a.txt")):
                refused: Any = await client.call_tool(tool, {"path": path})
                assert refused.is_error and refused.content[0].text.startswith("Not permitted: ")
            with pytest.raises(Exception, match="withheld"):
                await client.call_tool("ask", {})

    anyio.run(session)


def test_a_client_on_stdio_and_a_server_that_the_gateway_starts(tmp_path: Path) -> None:
    """By the settings that `captoken gateway config` prints."""
    lay(tmp_path, '"stdio"', "variable:FILES_KEY")
    at = {**os.environ, "PYTHONPATH": str(HERE.parents[2])}
    asked = [sys.executable, "-m", "captoken", "gateway", "config", "claude", "files", "--file", "gateway.toml", "--token-file", "held.token"]
    printed = subprocess.run([*asked, "--", sys.executable, "-m", __name__], cwd=tmp_path, env=at, capture_output=True, check=True, text=True).stdout
    assert KEY not in printed and "cap1_" not in printed
    stated = json.loads(printed)["mcpServers"]["files"]
    # The server is this file: it is found as the gateway's own modules are.
    args = [*stated["args"][: stated["args"].index("--")], "--pass", "PYTHONPATH", *stated["args"][stated["args"].index("--") :]]
    parameters = StdioServerParameters(command=stated["command"], args=args, env={**stated["env"], "PYTHONPATH": at["PYTHONPATH"]})
    run(lambda: stdio_client(parameters), "auto")


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_over_http_and_a_server_elsewhere(mode: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        url = stack.enter_context(served(server().streamable_http_app(), listening(), lifespan="on"))
        keyring = lay(tmp_path, f'"{url}/mcp"', "bearer")
        verifier = AsyncVerifier(keyring, "files", ledger=MemoryLedger(floor=0))
        gateway = Gateway(configured(str(tmp_path / "gateway.toml")), {"files": verifier})
        origin = stack.enter_context(served(gateway, listening(), lifespan="on"))
        token = (tmp_path / "held.token").read_text()

        @asynccontextmanager
        async def transport() -> AsyncIterator[Any]:
            headers = {"Authorization": f"Bearer {token}"}
            async with httpx2.AsyncClient(headers=headers, trust_env=False) as web, streamable_http_client(f"{origin}/files/mcp", http_client=web) as streams:
                yield streams

        run(transport, mode, ("eu", "=?base64?w6k=?=") if mode == "auto" else ("", ""))


def test_nobody_resumes_what_a_server_has_answered_another(tmp_path: Path) -> None:
    """A server of the SDK keeps what it answers by the number of the request. Two clients have one of that number, of which one waits."""
    made = MCPServer("files")

    @made.tool()
    def read(path: str) -> str:
        return f"text of {path}"

    @made.tool()
    async def ask() -> str:
        await anyio.sleep(20)
        return ""

    async def session(origin: str, keyring: Keyring) -> list[tuple[int, bytes]]:
        async with httpx2.AsyncClient(timeout=20, trust_env=False) as web:

            async def client(name: str) -> Callable[..., Any]:
                token = Issuer(keyring).mint(subject=f"user:{name}", agent="a", task=name, audience="files", tools=TOOLS)
                headers = {**PLAIN, "mcp-protocol-version": "2025-11-25", "authorization": f"Bearer {token.present(audience='files')}"}

                async def send(method: str, content: bytes = b"", wait: float = 10, **more: str) -> tuple[int, bytes]:
                    request, got = web.build_request(method, f"{origin}/files/mcp", content=content, headers={**headers, **more}), b""
                    response = await web.send(request, stream=True)
                    headers.setdefault("mcp-session-id", response.headers.get("mcp-session-id", ""))
                    with anyio.move_on_after(wait):
                        async for piece in response.aiter_bytes():
                            got += piece
                    await response.aclose()
                    return response.status_code, got

                await send("POST", said(id=1, method="initialize", params={**INITIALIZE, "protocolVersion": "2025-11-25"}))
                await send("POST", said(method="notifications/initialized"))
                return send

            jane, stranger = await client("jane"), await client("stranger")
            _, begun = await stranger("POST", said(id=2, method="tools/call", params={"name": "ask", "arguments": {}}), wait=0.5)
            _, answer = await jane("POST", said(id=2, method="tools/call", params={"name": "read", "arguments": {"path": "a.txt"}}))
            assert b"text of a.txt" in answer and b"id:" not in begun + answer
            return [await stranger("GET", wait=0.3, **{"last-event-id": str(number)}) for number in range(8)]

    with ExitStack() as stack:
        url = stack.enter_context(served(made.streamable_http_app(event_store=Kept()), listening(), lifespan="on"))
        keyring = lay(tmp_path, f'"{url}/mcp"', "bearer")
        verifier = AsyncVerifier(keyring, "files", ledger=MemoryLedger(floor=0))
        gateway = Gateway(configured(str(tmp_path / "gateway.toml")), {"files": verifier})
        origin = stack.enter_context(served(gateway, listening(), lifespan="on"))
        resumed = anyio.run(session, origin, keyring)
    assert {status for status, _ in resumed} == {400} and not any(b"text of" in got for _, got in resumed)


if __name__ == "__main__":
    server().run()
