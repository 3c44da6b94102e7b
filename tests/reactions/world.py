"""A server with a trail, an operator, and rules that watch: all in one folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from captoken import Access, Caller, Issuer, Keyring, Token, Verifier
from captoken.audit import AuditTrail
from captoken.cli.reactions.acting import Acting
from captoken.cli.reactions.stated import read
from captoken.cli.reactions.watching import Cause, Reactor
from captoken.control import Entry, Feed, Operator
from captoken.keys import HolderKey, OperatorKey
from captoken.stores.memory import MemoryReplayStore
from captoken.stores.sqlite import SQLiteSnapshots
from captoken.stores.trail_file import TrailFile
from captoken.testing import FixedClock

NOW = 1_800_000_000  # a Friday, at 08:00 UTC
PROBING = """
version = 1
[rule.probing]
when = { codes = ["table", "operation", "column", "row", "tool", "argument"] }
count = 5
within = "1m"
then = "revoke"
for = "1h"
why = "five refusals of rights in a minute"
"""


class World:
    """Where agents ask, and rules act. `tick` lets time go by, for all of them."""

    def __init__(self, folder: Path, rules: str = PROBING, now: int = NOW) -> None:
        self.folder, self.clock = folder, FixedClock(now)
        self.rules = folder / "rules.toml"
        self.rules.write_text(rules, "utf-8")
        self.key = OperatorKey.generate()
        self.key.save(folder / "operator.json")
        self.store = SQLiteSnapshots.create(folder / "overlay.db")
        self.operator = Operator(self.key, self.store, by="ops", clock=self.clock, alone=True)
        self.operator.renew()
        self.keyring = Keyring.generate().for_audience("shop")
        self.said: list[str] = []
        self.told: list[str] = []
        self.servers: dict[str, Verifier] = {}

    def close(self) -> None:
        self.store.close()

    def server(self, name: str = "trail") -> Verifier:
        if name not in self.servers:
            trail = AuditTrail(TrailFile(self.folder / f"{name}.jsonl").write, clock=self.clock)
            feed = Feed(self.store, [self.key.public], every=0, clock=self.clock)
            self.servers[name] = Verifier(
                self.keyring, "shop", overlay=feed, audit=trail, replays=MemoryReplayStore(floor=0),
                clock=self.clock, max_staleness=10**6,
            )  # fmt: skip
        return self.servers[name]

    def mint(self, **given: Any) -> Token:
        facts: dict[str, Any] = {
            "subject": "ann", "agent": "lead", "task": "q3", "audience": "shop", "tables": ["orders"],
            "operations": ["select"], "expires_in": "30d", **given,
        }  # fmt: skip
        return Issuer(self.keyring, clock=self.clock).mint(**facts)

    def ask(self, token: Token, table: str = "orders", server: str = "trail", times: int = 1) -> str:
        """What the server says, each time to a text of its own, as agents send them."""
        code = ""
        for _ in range(times):
            sent = token.present(audience="shop", expires_in=60, clock=self.clock)
            code = self.server(server).check(sent, Access(table=table, operation="select")).code
        return code

    def tick(self, seconds: int) -> None:
        self.clock.advance(seconds)
        if seconds > 0:
            self.operator.renew()

    @contextmanager
    def reactor(self, state: str = "react.db", trails: tuple[str, ...] = ("trail.jsonl",)) -> Iterator[Reactor]:
        """A reactor that acts behind each batch."""
        acting: list[Acting] = []
        paths = [self.folder / name for name in trails]
        made = Reactor(self.folder / state, paths, read(str(self.rules)), self.clock, lambda: acting[0].do_all())
        acting.append(Acting(made, self.opened, self.said.append, self.told.append))
        with closing(made):
            acting[0].do_all()
            yield made

    @contextmanager
    def opened(self) -> Iterator[Operator]:
        OperatorKey.load(self.folder / "operator.json")
        yield self.operator

    def react(self, **given: Any) -> list[Cause]:
        """Look once, and act: the causes there are."""
        with self.reactor(**given) as reactor:
            reactor.take()
            reactor.look_after()
            return [one.cause for one in reactor.causes()]

    @property
    def entries(self) -> list[Entry]:
        return list(self.operator.entries())


__all__ = ["NOW", "PROBING", "Caller", "HolderKey", "World"]
