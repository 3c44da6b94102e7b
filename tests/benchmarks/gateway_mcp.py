"""What a call of a tool through the gateway takes, beside the same call without it: by processor time of all that is behind the client.

    python -m tests.benchmarks.gateway_mcp [--record]     # a call, in turns; the least of each

Needs `pip install -e '.[test,servers,gateway]'`. The server is one of the SDK, which answers a text. The client is bytes, and is not
counted: over HTTP in both revisions, and by lines to a server that is started. Of the gateway its own time counts and the server's.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

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
MODERN = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}, "io.modelcontextprotocol/clientInfo": {"name": "x", "version": "1"}}  # fmt: skip
OPENING = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}


def said(method: str, number: int | None = None, **params: Any) -> bytes:
    message = {"jsonrpc": "2.0", "method": method, "params": params}
    return json.dumps(message if number is None else {**message, "id": number}).encode()


def seconds(processes: list[int]) -> float:
    """What they took of processors, in all their threads."""
    tasks = (task for each in processes for task in Path(f"/proc/{each}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def below(process: int) -> list[int]:
    """A process, and what it has started."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(each for child in children for each in below(int(child)))]


class Web:
    """A client over HTTP, in one of the revisions, on a connection that stays."""

    def __init__(self, stack: ExitStack, address: str, path: str, token: str, processes: list[int], modern: bool) -> None:
        host, _, port = address.rpartition(":")
        self.processes = processes
        self._socket = stack.enter_context(closing(socket.create_connection((host, int(port)))))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = f"POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
        self._head += f"Authorization: Bearer {token}\r\n" if token else ""
        self._meta: dict[str, Any] = {"_meta": MODERN} if modern else {}
        if modern:
            self._head += "Mcp-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: read\r\n"
            return
        answer = self._post(said("initialize", 0, **OPENING))
        named = re.search(rb"(?i)mcp-session-id: *(\S+)", answer)
        self._head += "Mcp-Protocol-Version: 2025-11-25\r\n" + (f"Mcp-Session-Id: {named[1].decode()}\r\n" if named else "")
        self._post(said("notifications/initialized"))

    def call(self, number: int) -> None:
        assert b"text of a.txt" in self._post(said("tools/call", number, name="read", arguments={"path": "a.txt"}, **self._meta))

    def _post(self, body: bytes) -> bytes:
        self._socket.sendall(f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        got = b""
        while b"\r\n\r\n" not in got:
            got += self._read()
        head, _, came = got.partition(b"\r\n\r\n")
        low = head.lower()
        assert b" 200 " in head or b" 202 " in head, got
        if b"transfer-encoding: chunked" in low:
            while not came.endswith(b"0\r\n\r\n"):
                came += self._read()
        else:
            while len(came) < int(low.partition(b"content-length:")[2].split()[0]):
                came += self._read()
        return head + b"\r\n\r\n" + came

    def _read(self) -> bytes:
        got = self._socket.recv(65536)
        assert got, "the server has closed the connection"
        return got


class Pipe:
    """A client by lines, of a server that it starts."""

    def __init__(self, stack: ExitStack, command: list[str], env: dict[str, str]) -> None:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **env})
        stack.callback(process.wait)
        stack.callback(process.terminate)
        assert process.stdin is not None and process.stdout is not None
        self._in, self._out = process.stdin, process.stdout
        self._say(said("initialize", 0, **OPENING))
        self._heard(0)
        self._say(said("notifications/initialized"))
        self.processes = below(process.pid)

    def call(self, number: int) -> None:
        self._say(said("tools/call", number, name="read", arguments={"path": "a.txt"}))
        assert b"text of a.txt" in self._heard(number)

    def _say(self, line: bytes) -> None:
        self._in.write(line + b"\n")
        self._in.flush()

    def _heard(self, number: int) -> bytes:
        while json.loads(line := self._out.readline()).get("id") != number:
            pass
        return line


def started(stack: ExitStack, *command: str) -> tuple[int, str]:
    """A process that serves: its number, and its address."""
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    assert process.stdout is not None
    return process.pid, json.loads(process.stdout.readline())["address"].removeprefix("http://")


@contextmanager
def clients() -> Iterator[dict[str, tuple[Any, Any]]]:
    """By what is measured: a client of the server itself, and one of the gateway before it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server, address = started(stack, "-c", SERVER)
        keyring = Keyring.generate()
        keyring.save(folder / "keyring.json")
        token = Issuer(keyring).mint(subject="user:jane", agent="support", task="returns", audience="files", tools={"files.read": {"path": {"in": ["a.txt"]}}})
        (folder / "held.token").write_text(token.serialize())
        path = folder / "gateway.toml"
        path.write_text(f'version = 1\n[gateway]\nkeyring = "keyring.json"\nlisten = "127.0.0.1:0"\n[service.files]\nmcp = "http://{address}/mcp"\n')
        gateway, outside = started(stack, "-m", "captoken", "gateway", "run", "--json", str(path))
        shown = token.present(audience="files", expires_in=3600)
        found: dict[str, tuple[Any, Any]] = {}
        for name, modern in (("2026-07-28, over HTTP", True), ("2025-11-25, over HTTP", False)):
            direct = Web(stack, address, "/mcp", "", [server], modern)
            found[name] = (direct, Web(stack, outside, "/files/mcp", str(shown), [gateway, server], modern))
        lines = folder / "lines.toml"
        lines.write_text('version = 1\n[gateway]\nkeyring = "keyring.json"\n[service.files]\nmcp = "stdio"\n')
        command = [sys.executable, "-c", SERVER, "stdio"]
        through = [sys.executable, "-m", "captoken", "gateway", "stdio", "files", "--file", str(lines), "--", *command]
        found["2025-11-25, by lines"] = (Pipe(stack, command, {}), Pipe(stack, through, {"CAPTOKEN_FILE": str(folder / "held.token")}))
        yield found


def measured() -> dict[str, tuple[float, float]]:
    """Microseconds of processors for a call, without the gateway and with it: the least round of each, in turns."""
    least: dict[tuple[str, int], float] = {}
    with clients() as found:
        for pair in found.values():
            for client in pair:
                for number in range(1, 51):
                    client.call(number)
        first = 51
        for _ in range(ROUNDS):
            for name, pair in found.items():
                for at, client in enumerate(pair):
                    began = seconds(client.processes)
                    for number in range(first, first + CALLS):
                        client.call(number)
                    taken = (seconds(client.processes) - began) / CALLS * 1e6
                    least[name, at] = min(taken, least.get((name, at), taken))
            first += CALLS
        return {name: (least[name, 0], least[name, 1]) for name in found}


def main(arguments: list[str]) -> None:
    facts = machine()
    print(f"load {facts['load at the start']}; the least of {ROUNDS} rounds in turns, µs of processors a call\n")
    rows: list[dict[str, Any]] = []
    for name, (direct, through) in measured().items():
        print(f"{name:<28}{direct:>8.0f}{through:>8.0f}{through / direct:>8.2f} x")
        rows.append({"what": name, "direct": direct, "through": through, "ratio": through / direct})
    if "--record" in arguments:
        keep("gateway_mcp", facts, {"rounds": ROUNDS, "rows": rows})


if __name__ == "__main__":
    main(sys.argv[1:])
