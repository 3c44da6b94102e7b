"""What a call of a tool through the gateway takes, beside the same call without it: by processor time of all processes.

    python -m tests.benchmarks.gateway_mcp [--record]     # a call, in turns; the least of each

Needs `pip install -e '.[test,servers,gateway]'`. The server is one of the SDK, which answers a text, and so is the client: over HTTP
in both revisions, and by lines to a server that is started. The time of the client counts, of the gateway and of the server.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from captoken import Issuer, Keyring

from .record import keep, machine

ROUNDS, CALLS = 30, 40
SERVER = """
import json, socket, sys, uvicorn
from mcp.server import MCPServer

made = MCPServer("files")

@made.tool()
def read(path: str) -> str:
    return "text of " + path

if sys.argv[1:] == ["stdio"]:
    made.run()
else:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print(json.dumps({"address": "127.0.0.1:%d" % listening.getsockname()[1]}), flush=True)
    config = uvicorn.Config(made.streamable_http_app(), http="h11", log_level="critical", access_log=False)
    uvicorn.Server(config).run([listening])
"""

def seconds(processes: list[int]) -> float:
    """What they took of processors, in all their threads."""
    tasks = (task for each in processes for task in Path(f"/proc/{each}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def below(process: int) -> list[int]:
    """A process, and what it has started."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(each for child in children for each in below(int(child)))]


class Called:
    """A client of the SDK, and the processes that a call of its keeps busy, this one among them."""

    def __init__(self, client: Client, processes: list[int]) -> None:
        self._client = client
        self._processes = [os.getpid(), *processes]

    async def calls(self, number: int) -> float:
        """So many calls, one after the other: microseconds of processors for one."""
        began = seconds(self._processes)
        for _ in range(number):
            answer: Any = await self._client.call_tool("read", {"path": "a.txt"})
            assert answer.content[0].text == "text of a.txt"
        return (seconds(self._processes) - began) / number * 1e6


def started(stack: AsyncExitStack, *command: str) -> tuple[int, str]:
    """A process that serves: its number, and its address."""
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    assert process.stdout is not None
    return process.pid, json.loads(process.stdout.readline())["address"].removeprefix("http://")


@asynccontextmanager
async def clients() -> AsyncIterator[dict[str, tuple[Called, Called]]]:
    """By what is measured: a client of the server itself, and one of the gateway before it."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server, address = started(stack, "-c", SERVER)
        keyring = Keyring.generate()
        keyring.save(folder / "keyring.json")
        token = Issuer(keyring).mint(subject="user:jane", agent="support", task="returns", audience="files", tools={"files.read": {"path": {"in": ["a.txt"]}}})
        (folder / "held.token").write_text(token.serialize())
        path = folder / "gateway.toml"
        path.write_text(f'version = 1\n[gateway]\nkeyring = "keyring.json"\nlisten = "127.0.0.1:0"\n[service.files]\nmcp = "http://{address}/mcp"\n')
        gateway, outside = started(stack, "-m", "captoken", "gateway", "run", "--json", str(path))
        shown = str(token.present(audience="files", expires_in=3600))

        async def over_http(at: str, mode: Any, processes: list[int]) -> Called:
            web = httpx2.AsyncClient(headers={"Authorization": f"Bearer {shown}"}, trust_env=False)
            transport = streamable_http_client(f"http://{at}", http_client=await stack.enter_async_context(web))
            return Called(await stack.enter_async_context(Client(transport, mode=mode)), processes)

        async def by_lines(args: list[str], env: dict[str, str]) -> Called:
            before = set(below(os.getpid()))
            transport = stdio_client(StdioServerParameters(command=sys.executable, args=args, env={**os.environ, **env}))
            client = await stack.enter_async_context(Client(transport, mode="legacy"))
            await client.list_tools()
            return Called(client, sorted(set(below(os.getpid())) - before))

        found = {}
        for name, mode in (("2026-07-28, over HTTP", "auto"), ("2025-11-25, over HTTP", "legacy")):
            direct = await over_http(f"{address}/mcp", mode, [server])
            found[name] = (direct, await over_http(f"{outside}/files/mcp", mode, [gateway, server]))
        lines = folder / "lines.toml"
        lines.write_text('version = 1\n[gateway]\nkeyring = "keyring.json"\n[service.files]\nmcp = "stdio"\n')
        through = ["-m", "captoken", "gateway", "stdio", "files", "--file", str(lines), "--", sys.executable]
        own = ["-c", SERVER, "stdio"]
        held = {"CAPTOKEN_FILE": str(folder / "held.token")}
        found["2025-11-25, by lines"] = (await by_lines(own, {}), await by_lines([*through, *own], held))
        yield found


async def measured() -> dict[str, tuple[float, float]]:
    """Microseconds of processors for a call, without the gateway and with it: the least round of each, in turns."""
    least: dict[tuple[str, int], float] = {}
    async with clients() as found:
        for pair in found.values():
            for client in pair:
                await client.calls(50)
        for _ in range(ROUNDS):
            for name, pair in found.items():
                for at, client in enumerate(pair):
                    taken = await client.calls(CALLS)
                    least[name, at] = min(taken, least.get((name, at), taken))
        return {name: (least[name, 0], least[name, 1]) for name in found}


def main(arguments: list[str]) -> None:
    facts = machine()
    print(f"load {facts['load at the start']}; the least of {ROUNDS} rounds in turns, µs of processors a call\n")
    rows: list[dict[str, Any]] = []
    for name, (direct, through) in anyio.run(measured).items():
        print(f"{name:<28}{direct:>8.0f}{through:>8.0f}{through / direct:>8.2f} x")
        rows.append({"what": name, "direct": direct, "through": through, "ratio": through / direct})
    if "--record" in arguments:
        keep("gateway_mcp", facts, {"rounds": ROUNDS, "rows": rows})


if __name__ == "__main__":
    main(sys.argv[1:])
