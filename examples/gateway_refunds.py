"""Eleven sub-agents refund 500 cents each at a payment service, and none of them has its key.

    python examples/gateway_refunds.py

The service is a process of its own, and demands its key. The gateway is another one, and has that
key. Each agent is a process too: it has an address and a token. A token permits refunds of at most
900 cents, and 1,000 cents for the task. So two refunds pass, and the trail says whose they were.
"""

import json
import multiprocessing
import secrets
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from captoken import Issuer, Keyring
from captoken.stores.sqlite import SQLiteLedger

AGENTS = [f"support-{number}" for number in range(1, 12)]

CONFIGURATION = """
version = 1

[gateway]
keyring = "keyring.json"
ledger = "used.db"
trail = "trail.jsonl"
listen = "127.0.0.1:0"

[service.payments]
url = "{service}"
credential = "file:payments.key"

[service.payments.operations."refunds.create"]
request = "POST /v1/refunds"
form = {{ charge = "string", amount = "integer", reason = "string" }}
cost = {{ usd_cents = "amount" }}
"""

# --- The service, whose owner knows nothing of tokens ---------------------------------------------


def serve(key: str, at: Any, seen: Any) -> None:
    """A service as there are many: whoever has its key may refund all there is."""

    class Payments(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            seen.put((self.headers["Authorization"], "cap1_" in f"{self.headers}{body}", body))
            known = self.headers["Authorization"] == f"Bearer {key}"
            cents = parse_qs(body)["amount"][0]
            answer = json.dumps({"object": "refund", "amount": int(cents)}).encode()
            self.send_response(200 if known else 401)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Payments)
    at.put(f"http://127.0.0.1:{server.server_port}")
    server.serve_forever()


# --- The gateway, which has the key ---------------------------------------------------------------


@contextmanager
def gateway(folder: Path, service: str, key: str) -> Iterator[str]:
    """`captoken gateway run`, until the block ends: its address."""
    (folder / "payments.key").touch(0o600)
    (folder / "payments.key").write_text(key)
    (folder / "gateway.toml").write_text(CONFIGURATION.format(service=service))
    command = [sys.executable, "-m", "captoken", "gateway", "run", "--json", "gateway.toml"]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as running:
        try:
            assert running.stdout is not None
            yield json.loads(running.stdout.readline())["address"]
        finally:
            running.terminate()


# --- The agents, which have tokens ----------------------------------------------------------------


def promised(keyring: Keyring) -> Iterator[str]:
    """A token for each agent: 900 cents a refund, and 1,000 for all of them together."""
    refunds: dict[str, dict[str, dict[str, Any]]] = {
        "payments.refunds.create": {
            "charge": {"prefix": ["ch_"]},
            "amount": {"min": 1, "max": 900},
        }
    }
    support = Issuer(keyring).mint(
        subject="user:jane",
        agent="support",
        task="returns",
        audience="payments",
        tools=refunds,
        budget={"usd_cents": 1000},
    )
    for agent in AGENTS:
        child = support.delegate(to=agent, tools=refunds, expires_in=120)
        yield child.present(audience="payments", expires_in=60)


def refund(address: str, token: str, cents: int, told: Any) -> None:
    """One agent, in a process that was given an address and a token: what the gateway answers."""
    request = urllib.request.Request(
        f"{address}/payments/v1/refunds",
        f"charge=ch_1&amount={cents}".encode(),
        {"Authorization": f"Bearer {token}"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=30) as answer:
            told.put((answer.status, "refunded"))
    except urllib.error.HTTPError as refused:
        told.put((refused.code, json.load(refused)["code"]))


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    at, seen, told = spawn.Queue(), spawn.Queue(), spawn.Queue()
    # Drawn here, and given to the service and to the gateway alone.
    key = f"sk_{secrets.token_urlsafe(18)}"
    service = spawn.Process(target=serve, args=(key, at, seen), daemon=True)
    service.start()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keyring = Keyring.generate()
        keyring.save(folder / "keyring.json")
        # Made along with the keys: of their tokens nothing was used before.
        SQLiteLedger.create(folder / "used.db", keys=keyring.key_ids).close()
        with gateway(folder, at.get(timeout=30), key) as address:
            answers = []
            for token in promised(keyring):
                running = spawn.Process(target=refund, args=(address, token, 500, told))
                running.start()
                answers.append(told.get(timeout=30))
                running.join()
        records = [json.loads(line) for line in (folder / "trail.jsonl").read_bytes().splitlines()]

    for agent, (status, what) in zip(AGENTS, answers, strict=True):
        print(f"  {agent:<11}  {status}  {what}")

    asked = [seen.get(timeout=30) for status, _ in answers if status == 200]
    service.terminate()
    assert [what for _, what in answers] == ["refunded"] * 2 + ["budget_exhausted"] * 9
    assert all(shown == f"Bearer {key}" and not has_token for shown, has_token, _ in asked)
    print("\nThe service saw its key, and no token; the agents had tokens, and no key:")
    for _, _, body in asked:
        print(f"  POST /v1/refunds  {body}")

    print("\nThe trail says who asked, for whom, and what came of it:")
    decided = [record for record in records if record.get("access")]
    assert [record["chain"][-1]["name"] for record in decided] == AGENTS
    for record in decided[:3]:
        chain = " > ".join(actor["name"] for actor in record["chain"])
        print(f"  {chain}, for user:jane: {record['code']}")


if __name__ == "__main__":
    main()
