"""What a request through the gateway takes: beside a bare relay of the same parts, by processor time of each process.

    python -m tests.benchmarks.gateway [--record]     # a request, in turns; the least of each
    python -m tests.benchmarks.gateway --memory       # how the gateway grows from request 10,000 to 100,000; ten minutes

Needs `pip install -e '.[test,servers,gateway]'`. The relay is an application under the same server, which sends each request on by the
gateway's own connections and looks at nothing. One client, one request at a time, over a connection that stays.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from time import sleep
from typing import Any

from captoken import Issuer, Keyring
from tests.adapters.gateway_echo import KEY, echoing

from .record import keep, machine

ROUNDS, CALLS = 60, 60
PATH = "/payments/v1/refunds"
BODY = b"charge=ch_1&amount=5"
RELAY = """
import socket, sys, uvicorn
from captoken.adapters._gateway.upstream import Upstream
from captoken.adapters._gateway.written import Outgoing

KEY = (b"authorization", b"Bearer sk_live_51HfakeKeyOfTheService")
GO_ON = (b"content-type", b"user-agent", b"accept")
upstream = Upstream(sys.argv[1], timeout=60)

async def app(scope, receive, send):
    body = (await receive()).get("body", b"")
    headers = [(name, value) for name, value in scope["headers"] if name in GO_ON]
    connection = await upstream.connect()
    answer = await connection.send(Outgoing(scope["method"], scope["path"][9:], "", [*headers, KEY], body))
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    async for piece in answer.pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})
    connection.release()

listening = socket.create_server(("127.0.0.1", 0))
listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
print('{"address": "127.0.0.1:%d"}' % listening.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, http="h11", lifespan="off", log_level="critical", access_log=False)).run([listening])
"""
TABLE = """version = 1
[gateway]
keyring = "keyring.json"
listen = "127.0.0.1:0"
{more}
[service.payments]
url = "{url}"
credential = "file:key"
[service.payments.operations."refunds.create"]
request = "POST /v1/refunds"
form = {{ charge = "string", amount = "integer" }}
cost = {{ usd_cents = "amount" }}
"""
KINDS = {"the gateway": "", "with a ledger in memory and a trail": 'ledger = "memory:"\ntrail = "trail.jsonl"'}


class Driven:
    """What serves at a port of this machine."""

    port: int

    def drive(self, token: str, calls: int) -> None:
        """So many requests, one after the other."""
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(BODY)}\r\n"
        sent = head.encode() + b"Content-Type: application/x-www-form-urlencoded\r\n\r\n" + BODY
        with closing(socket.create_connection(("127.0.0.1", self.port))) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(calls):
                connection.sendall(sent)
                _read(connection)


class Server(Driven):
    """A process that serves, and says where."""

    def __init__(self, stack: ExitStack, *command: str) -> None:
        self.process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        stack.callback(self.process.wait)
        stack.callback(self.process.terminate)
        assert self.process.stdout is not None
        said = json.loads(self.process.stdout.readline())
        self.port = int(said["address"].rpartition(":")[2])

    def seconds(self) -> float:
        """What it took of processors, in all its threads."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def kilobytes(self) -> int:
        """What it has in memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])


def _read(connection: socket.socket) -> None:
    """One answer, of the length that it says, or in chunks."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += connection.recv(65536)
    head, _, body = got.partition(b"\r\n\r\n")
    assert b" 200 " in head, got
    if b"content-length" not in head.lower():
        while not body.endswith(b"0\r\n\r\n"):
            body += connection.recv(65536)
        return
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    while len(body) < length:
        body += connection.recv(65536)


@contextmanager
def servers() -> Iterator[tuple[dict[str, Server], str]]:
    """The relay and the gateways, before one service; and a token."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(echoing("h11"))
        keyring = Keyring.generate()
        keyring.save(folder / "keyring.json")
        (folder / "key").touch(0o600)
        (folder / "key").write_text(KEY)
        found = {"a bare relay": Server(stack, "-c", RELAY, url)}
        for name, more in KINDS.items():
            path = folder / f"{len(found)}.toml"
            path.write_text(TABLE.format(url=url, more=more))
            found[name] = Server(stack, "-m", "captoken", "gateway", "run", "--json", str(path))
        sleep(2)  # a ledger that begins takes no budget of a token from before it
        tools: dict[str, Any] = {"payments.refunds.create": {"charge": {"any": True}, "amount": {"max": 900}}}
        root = Issuer(keyring).mint(subject="user:jane", agent="support", task="returns", audience="payments", tools=tools, expires_at=None)
        token = root.delegate(to="clerk", expires_in=86_400).present(audience="payments", expires_in=86_400)
        yield found, token if isinstance(token, str) else str(token)


def measured() -> dict[str, float]:
    """Microseconds of a processor for a request: the least round of each, in turns."""
    least: dict[str, float] = {}
    with servers() as (found, token):
        for server in found.values():
            server.drive(token, 200)
        for _ in range(ROUNDS):
            for name, server in found.items():
                began = server.seconds()
                server.drive(token, CALLS)
                taken = (server.seconds() - began) / CALLS * 1e6
                least[name] = min(taken, least.get(name, taken))
    return least


def memory() -> None:
    """How much each has after so many requests."""
    with servers() as (found, token):
        for name, server in found.items():
            if name in KINDS:
                server.drive(token, 10_000)
                before = server.kilobytes()
                server.drive(token, 90_000)
                print(f"{name:<40}{before:>9} KB after 10,000, {server.kilobytes() - before:+} KB after 100,000", flush=True)


def main(arguments: list[str]) -> None:
    if "--memory" in arguments:
        return memory()
    facts = machine()
    print(f"load {facts['load at the start']}; the least of {ROUNDS} rounds in turns, µs of a processor a request\n")
    found = measured()
    bare = found["a bare relay"]
    rows: list[dict[str, Any]] = []
    for name, taken in found.items():
        print(f"{name:<40}{taken:>8.0f}{taken - bare:>8.0f}")
        rows.append({"what": name, "takes": taken, "more": taken - bare})
    if "--record" in arguments:
        keep("gateway", facts, {"rounds": ROUNDS, "rows": rows})


if __name__ == "__main__":
    main(sys.argv[1:])
