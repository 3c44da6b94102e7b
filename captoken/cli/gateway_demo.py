"""`captoken gateway demo`: eleven refunds of 500 cents each, of which two are permitted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from captoken._writing.issuer import Issuer
from captoken.cli.options import json_option
from captoken.cli.output import answer
from captoken.cli.postgres import needing

AGENTS = 11
CENTS = 500
KEY = "sk_demo_4f1c9a7be2d05c83"

# A service that demands its key. It says what it saw of each request.
_SERVICE = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

class Refunds(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        keyed = self.headers.get("authorization") == "Bearer " + KEY
        print(json.dumps({"keyed": keyed, "saw_token": "cap1_" in str(self.headers) + body,
                          "form": parse_qs(body)}), flush=True)
        answer = json.dumps({"object": "refund" if keyed else "error"}).encode()
        self.send_response(200 if keyed else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass

KEY = sys.stdin.readline().strip()
server = ThreadingHTTPServer(("127.0.0.1", 0), Refunds)
print(json.dumps(server.server_address[1]), flush=True)
server.serve_forever()
"""

# An agent: it has an address and a token, and tries to refund.
_AGENT = """
import os, sys, urllib.error, urllib.request
held = " ".join(os.environ.values())
request = urllib.request.Request(
    sys.argv[1] + "/payments/v1/refunds",
    b"charge=ch_1&amount=" + sys.argv[2].encode(),
    {"Authorization": "Bearer " + sys.stdin.readline().strip()},
)
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    status = opener.open(request, timeout=20).status
except urllib.error.HTTPError as refused:
    status = refused.code
print(status, "sk_demo" in held)
"""

_CONFIGURATION = """\
version = 1
[gateway]
keyring = "keyring.json"
ledger = "used.db"
trail = "trail.jsonl"
listen = "127.0.0.1:0"
[service.payments]
url = "http://127.0.0.1:{port}"
credential = "file:payments.key"
[service.payments.operations."refunds.create"]
request = "POST /v1/refunds"
form = {{ charge = "string", amount = "integer", reason = "string" }}
cost = {{ usd_cents = "amount" }}
"""


def check_extra() -> None:
    """Raise ClickException where what `captoken gateway run` needs is not installed."""
    with needing("gateway"):
        import_module("captoken.adapters.gateway")
        import_module("uvicorn")


@click.command()
@json_option
def demo(as_json: bool) -> int:
    """Let eleven agents refund 500 cents each: two of them may.

    A real service, in its own process, needs a real API key, which only the gateway has. Each agent
    is a process too, and has a token. Exit 0 if everything came out as expected.
    """
    check_extra()  # the gateway is another process, whose errors nobody would see
    with tempfile.TemporaryDirectory(prefix="captoken-gateway-") as folder:
        story = play(Path(folder))
    answer(as_json, story, *_lines(story))
    as_meant = [each["status"] for each in story["agents"]].count(200) == 2
    safe = story["service_saw_key"] and not story["service_saw_token"]
    return 0 if as_meant and safe and not story["agent_held_key"] else 1


def play(folder: Path) -> dict[str, Any]:
    """What happened, told by those who saw it: the agents, the service, the trail."""
    from captoken.keys.keyring import Keyring
    from captoken.stores.sqlite import SQLiteLedger

    keyring = Keyring.generate()
    keyring.save(folder / "keyring.json")
    SQLiteLedger.create(folder / "used.db", keys=keyring.key_ids).close()
    key_file = folder / "payments.key"
    key_file.touch(0o600)
    key_file.write_text(KEY)
    seen: list[dict[str, Any]] = []
    with _started([sys.executable, "-c", _SERVICE], KEY) as service:
        port = json.loads(_line(service))
        (folder / "gateway.toml").write_text(_CONFIGURATION.format(port=port))
        command = [sys.executable, "-m", "captoken", "gateway", "run", "--json"]
        with _started([*command, str(folder / "gateway.toml")]) as gateway:
            address = json.loads(_line(gateway))["address"]
            agents = [_refund(address, name, text) for name, text in _handed_on(keyring)]
        seen = [json.loads(_line(service)) for each in agents if each["status"] == 200]
    return {
        "agents": agents,
        "agent_held_key": any(each["held_key"] for each in agents),
        "service_saw_key": all(each["keyed"] for each in seen),
        "service_saw_token": any(each["saw_token"] for each in seen),
        "trail": _recorded(folder / "trail.jsonl"),
    }


def _handed_on(keyring: Any) -> Generator[tuple[str, str]]:
    """What each agent is given: at most 900 cents a refund, and 1,000 for all of them."""
    refunds: dict[str, dict[str, dict[str, Any]]] = {
        "payments.refunds.create": {
            "charge": {"prefix": ["ch_"]},
            "amount": {"min": 1, "max": 900},
        }
    }
    root = Issuer(keyring).mint(
        subject="user:jane",
        agent="support",
        task="returns",
        audience="payments",
        tools=refunds,
        budget={"usd_cents": 1000},
    )
    for number in range(1, AGENTS + 1):
        name = f"support-{number}"
        child = root.delegate(to=name, tools=refunds, expires_in=120)
        yield name, child.present(audience="payments", expires_in=60)


def _refund(address: str, name: str, token: str) -> dict[str, Any]:
    """One agent, in a process of its own."""
    done = subprocess.run(  # noqa: S603, a program of its own
        [sys.executable, "-I", "-c", _AGENT, address, str(CENTS)],
        input=token.encode(),
        env={"PATH": os.defpath},
        capture_output=True,
        check=True,
        timeout=60,
    )
    status, held = done.stdout.split()
    return {"agent": name, "status": int(status), "held_key": held == b"True"}


def _recorded(trail: Path) -> list[dict[str, str]]:
    """Who asked, by the trail, and what came of it."""
    return [
        {"agent": record["chain"][-1]["name"], "code": record["code"]}
        for record in map(json.loads, trail.read_bytes().splitlines())
        if record.get("access") and record.get("chain")
    ]


def _lines(story: dict[str, Any]) -> Iterator[str]:
    yield "Eleven agents refund 500 cents each."
    yield "A token permits 900 a refund, and 1,000 for the task."
    yield ""
    for each, record in zip(story["agents"], story["trail"], strict=False):
        trail = f"in the trail: {record['agent']} {record['code']}"
        yield f"  {each['agent']:<11} {each['status']}  {trail}"
    paid = [each["status"] for each in story["agents"]].count(200)
    yield from ("", f"{paid} of {AGENTS} were refunded: {paid * CENTS} cents.")
    told = "its key, and no token" if not story["service_saw_token"] else "a token"
    yield f"The service saw {told}."
    yield f"Agents that held the key: {int(story['agent_held_key'])}."


@contextmanager
def _started(command: list[str], given: str = "") -> Generator[subprocess.Popen[bytes]]:
    """A program that runs beside, until the block ends."""
    with subprocess.Popen(  # noqa: S603, programs of its own
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as running:
        try:
            if running.stdin is not None:
                running.stdin.write(given.encode() + b"\n")
                running.stdin.close()
            yield running
        finally:
            running.terminate()
            running.wait(20)


def _line(running: subprocess.Popen[bytes]) -> bytes:
    """The next line that a program says. Raises ClickException where it says no more."""
    line = b"" if running.stdout is None else running.stdout.readline()
    if not line:
        raise click.ClickException("a program of the demo ended too soon")
    return line
