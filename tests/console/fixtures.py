"""A trail that is being written, an operator, and a console over both, asked as a browser asks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from captoken import Access, Issuer, Keyring, Token, Verifier
from captoken.audit import AuditTrail
from captoken.cli.console.acts import Control
from captoken.cli.console.app import Console
from captoken.cli.console.index import Index
from captoken.control import Feed, Operator
from captoken.keys import OperatorKey
from captoken.stores.memory import MemoryLedger, MemorySnapshots
from captoken.stores.trail_file import TrailFile

NOW = 1_764_061_200
ADDRESS = "127.0.0.1:8765"
ORIGIN = f"http://{ADDRESS}"


class World:
    """One server with a trail, one operator, one console."""

    def __init__(self, folder: Path) -> None:
        self.now = NOW
        self.path = folder / "trail.jsonl"
        self.key = OperatorKey.generate()
        self.store = MemorySnapshots()
        self.operator = Operator(self.key, self.store, by="ops:kim", clock=self.clock)
        self.operator.renew()
        self.ledger = MemoryLedger(floor=0, shared=True)
        self.keyring = keyring = Keyring.generate()
        self.issuer = Issuer(keyring, clock=self.clock)
        self.open_trail()
        self.index = Index(folder / "index.db", [self.path])
        self.control = Control(self.store, self.operator, [self.key.public], "ops:kim", self.clock)
        self.console = Console(
            self.index,
            self.control,
            address=ADDRESS,
            spent=self.ledger.spent,
            clock=self.clock,
        )

    def open_trail(self) -> None:
        """A server that starts, and writes a trail there."""
        self.trail = TrailFile(self.path)
        self.verifier = Verifier(
            self.keyring,
            clock=self.clock,
            ledger=self.ledger,
            overlay=Feed(self.store, [self.key.public], every=0, clock=self.clock),
            max_staleness=3600,
            audit=AuditTrail(self.trail.write, clock=self.clock),
        )

    def clock(self) -> float:
        return self.now

    def mint(self, task: str = "q3", **given: Any) -> Token:
        given = {"subject": "user:jane", "tables": ["sales", "market.*"], "operations": ["select"], "expires_in": 3600} | given
        return self.issuer.mint(agent="orchestrator", task=task, **given)

    def ask(self, token: Token, table: str = "sales", **cost: int) -> bool:
        """Have the server decide, and the console take notice."""
        decided = bool(self.verifier.check(token, Access(table=table, operation="select", cost=cost)))
        self.index.take()
        return decided


class Answer:
    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status = status
        self.headers = {name.decode(): value.decode() for name, value in headers}
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Browser:
    """Who has opened the console. What it sends can be changed for one request."""

    def __init__(self, console: Console) -> None:
        self.console = console
        assert console.once is not None
        opened = self.get(f"/?once={console.once}")
        assert opened.status == 200
        self.below = opened.headers["content-location"].removesuffix("/")
        self.cookie = opened.headers["set-cookie"].partition(";")[0]
        self.form = self.get("/api/session").json["csrf"]

    # Below which path the page is.
    below = ""
    cookie = ""
    form = ""

    def get(self, target: str, **headers: str) -> Answer:
        return self._send("GET", target, b"", headers)

    def post(self, target: str, said: Any, **headers: str) -> Answer:
        own = {"origin": ORIGIN, "content-type": "application/json", "x-captoken-form": self.form}
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        return self._send("POST", target, body, own | headers)

    def _send(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> Answer:
        stated = {"host": ADDRESS, "cookie": self.cookie} | {key.replace("_", "-"): value for key, value in headers.items()}
        path, _, query = target.partition("?")
        below = "" if query.startswith("once=") else self.below
        scope = {
            "type": "http",
            "method": method,
            "path": below + path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in stated.items() if value],
        }
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.console(scope, receive, send))
        start, piece = sent
        return Answer(start["status"], start["headers"], piece["body"])


Change = Callable[[World], None]
