"""The servers of the demo, its clock, and the token that each agent holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from time import time
from typing import Any, TypeAlias

from captoken._format.entropy import random_bytes
from captoken._format.errors import StatementError
from captoken._language.access import Access, Caller
from captoken._language.caveats import RIGHTS
from captoken._language.link import BadLink
from captoken._verification.decision import Decision, Denied
from captoken._verification.telling import quietly
from captoken._verification.verifier import Verifier
from captoken._verification.wording import place
from captoken._writing.issuer import Issuer
from captoken._writing.token import Token
from captoken.adapters.sqlite import Database, guarded
from captoken.audit import trail as audit
from captoken.cli import words
from captoken.cli.demo.data import Agent, Call, Scene, Watch
from captoken.control.feed import Feed
from captoken.control.operator import Operator
from captoken.discharge import Discharger, Wait
from captoken.keys.keyring import Keyring
from captoken.keys.secret import AuditKey, DischargerKey, HolderKey, OperatorKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore, MemorySnapshots
from captoken.testing import FixedClock, fixed_random

Row: TypeAlias = tuple[Any, ...]

_START = 1_759_741_200  # 2025-10-06 09:00:00Z, where a seed is given
_INSERT = "insert into scratch.results values (?, ?, ?, ?)"


class World:
    """The servers, the clock, and the token that each agent holds."""

    def __init__(self, connection: sqlite3.Connection, seed: int | None, watch: Watch) -> None:
        self.connection = connection
        self._watch = watch
        self.clock = FixedClock(int(time()) if seed is None else _START)
        self.random = random_bytes if seed is None else fixed_random(f"demo {seed}")
        self.keyring = Keyring.from_keys({"k1": self.random(32)}, current="k1")

        # Every server hears the operator, and writes down what it decides.
        self.operator_key = OperatorKey(self.random(32))
        self.snapshots = MemorySnapshots()
        self.operator = Operator(
            self.operator_key,
            self.snapshots,
            by="operator",
            clock=self.clock,
            random=self.random,
        )
        self.operator.renew()
        self.feed = Feed(
            self.snapshots,
            [self.operator_key.public],
            every=0,
            clock=self.clock,
        )
        self.lines: list[bytes] = []
        # Each record also goes to these writers.
        self.writers: list[Callable[[bytes], object]] = [self.lines.append]
        self.server_key = AuditKey(self.random(32))
        self.trail = audit.AuditTrail(self._write, key=self.server_key)
        # What was done, all servers know: a rule over marks holds at each.
        self.ledger = MemoryLedger(shared=True, floor=0)
        self.warehouse = self._server("warehouse")
        self.ratings = self._server("ratings")
        self.mail = self._server("mail", replays=MemoryReplayStore(floor=0))

        # jane decides about what leaves the house; nobody else can answer what is asked of her.
        self.jane = Discharger(
            DischargerKey(self.random(32)),
            lambda need: Wait(person=True),
            clock=self.clock,
        )
        self.publisher = HolderKey(self.random(32))

        self.start = self.clock()
        self.tokens: dict[str, Token] = {}
        self.agents: list[Agent] = []
        self.calls: list[Call] = []
        self.statements: list[bool] = []  # those of SQL: was each allowed?
        self.scene: Scene = "work"
        self.expected = True  # should what is tried now be allowed?

    def _server(self, name: str, replays: MemoryReplayStore | None = None) -> Verifier:
        with quietly():  # all servers of the story are this process, and so is its issuer
            return Verifier(
                self.keyring,
                audience=name,
                clock=self.clock,
                overlay=self.feed,
                audit=self.trail,
                replays=replays,
                ledger=self.ledger,
            )

    def _write(self, line: bytes) -> None:
        """A record of a server's."""
        for write in self.writers:
            write(line)

    def wait(self, seconds: int) -> None:
        """Time passes, and the operator says again what stands.

        Servers take no overlay that is older than a minute.
        """
        self.clock.advance(seconds)
        self.operator.renew()

    # --- what is to come --------------------------------------------------------------------------

    def turns_to(self, scene: Scene, *, expected: bool) -> None:
        """Another scene begins, in which what is tried is to be allowed, or not."""
        self.scene = scene
        self.expected = expected

    @contextmanager
    def expecting(self) -> Generator[None]:
        """A block in which what is tried should be allowed, in a scene in which it should not."""
        self.expected = True
        yield
        self.expected = False

    # --- who holds what ---------------------------------------------------------------------------

    def begin(self) -> Token:
        """The one mint of the story."""
        root = Issuer(self.keyring, clock=self.clock, random=self.random).mint(
            subject="user:jane",
            agent="orchestrator",
            task="q3-risk",
            allow={
                "market.*": ["select"],
                "sales": ["select"],
                "filings": ["select"],
                "scratch.results": ["select", "insert"],
            },
            tools={
                "ratings.lookup": {"issuer": {"any": True}, "max_price_cents": {"max": 50}},
                "mail.send": {"to": {"in": ["board", "press"]}},
            },
            expires_in=900,
        )
        self._join("orchestrator", None, root)
        return root

    def hand_on(self, giver: str, taker: str, asking: str = "", **caveats: Any) -> None:
        """One agent hands its token on to another, narrowed.

        With `asking`, the token asks jane for consent to that besides.
        """
        held = self.tokens[giver]
        if asking:
            held = held.require(self.jane.public, need={"consent to": asking})
        self._join(taker, giver, held.delegate(to=taker, **caveats), asking)

    def _join(self, agent: str, parent: str | None, token: Token, asking: str = "") -> None:
        self.tokens[agent] = token
        lives = (token.unverified.expires_at or 0) - self.clock()
        says = tuple(_says(token, asking))
        self.agents.append(Agent(agent, parent, says, lives, len(token.serialize())))

    # --- what is tried ----------------------------------------------------------------------------

    def note(
        self,
        agent: str,
        tried: str,
        code: str,
        why: str,
        *,
        server: str | None = None,
        link: int | None = None,
        added_by: str | None = None,
        also: tuple[int, ...] = (),
    ) -> None:
        """Keep for the story what was tried, and what came of it; and tell whoever watches."""
        call = Call(
            scene=self.scene,
            at=self.clock() - self.start,
            agent=agent,
            tried=tried,
            server=server,
            allowed=code == "allowed",
            code=code,
            why=why,
            link=link,
            added_by=added_by,
            also=also,
            expected=self.expected,
        )
        self.calls.append(call)
        self._watch(call)

    def note_decision(
        self,
        server: str,
        agent: str,
        tried: str,
        decision: Decision,
        came: str = "",
    ) -> None:
        """The same of what a server decided; `came` is what came back, if it was allowed."""
        if decision:
            self.note(agent, tried, decision.code, came, server=server)
            return

        first, *rest = decision.refusals
        also = [refusal.link for refusal in rest if refusal.link is not None]
        if first.code == "expired":
            also = []  # below a dead link all are dead
        self.note(
            agent,
            tried,
            first.code,
            f"{place(first)}: {first.text}",
            server=server,
            link=first.link,
            added_by=first.added_by,
            also=tuple(also),
        )

    def select(
        self,
        agent: str,
        sql: str,
        *,
        token: Token | None = None,
        tried: str = "",
    ) -> list[Row]:
        """What the warehouse does with a query: verify what is presented, guard, run."""
        held = token or self.tokens[agent]
        return self._ask(agent, tried or sql, held, lambda db, _: self._run(db, sql))

    def insert(self, agent: str, rows: list[Row]) -> None:
        """The same with rows of results. Who found them, the warehouse writes: by the grant."""

        def write(db: Database, name: str) -> list[Row]:
            for row in rows:
                self._run(db, _INSERT, (*row, name))
            return rows

        tried = "insert into scratch.results"
        self._ask(agent, tried, self.tokens[agent], write, ", a statement each")

    def _ask(
        self,
        agent: str,
        tried: str,
        held: Token,
        run: Callable[[Database, str], list[Row]],
        how: str = "",
    ) -> list[Row]:
        """What comes of statements that `run` runs, which is told whose name the grant has."""
        try:
            grant = self.warehouse.authenticate(held.present(audience="warehouse"))
            with guarded(self.connection, grant) as db:
                found = run(db, grant.actor.name)
        except Denied as denied:
            self.note_decision("warehouse", agent, tried, denied.decision)
        except StatementError as error:
            # A column that is not granted is not there.
            self.note(agent, tried, error.code, error.for_model(), server="warehouse")
        else:
            came = f"{words.counted(len(found), 'row')}{how}"
            self.note(agent, tried, "allowed", came, server="warehouse")
            return found
        return []

    def _run(self, db: Database, sql: str, parameters: Row = ()) -> list[Row]:
        """A statement, counted. Raises Denied and StatementError."""
        self.statements.append(False)
        found: list[Row] = db.execute(sql, parameters).fetchall()
        self.statements[-1] = True
        return found

    def call(self, agent: str, issuer: str, price: int, *, text: str = "", how: str = "") -> bool:
        """What the ratings server does with a call of its tool."""
        arguments = {"issuer": issuer, "max_price_cents": price}
        decision = self.ratings.check(
            text or self.tokens[agent].present(audience="ratings"),
            Access(tool="ratings.lookup", arguments=arguments),
        )
        tried = f"ratings.lookup({issuer!r}, max_price_cents={price}){how}"
        self.note_decision("ratings", agent, tried, decision, "rated")
        return bool(decision)

    def send(self, agent: str, to: str, text: str, how: str) -> None:
        """What the mail server does with a call of its tool.

        The token is bound: its text has to end in a proof by its key.
        """
        decision = self.mail.check(text, sending(to))
        self.note_decision("mail", agent, f"mail.send({to!r}){how}", decision, "sent")

    def read(self, agent: str, tried: str, text: str, table: str) -> None:
        """What the warehouse says to a text, whoever may have written it."""
        decision = self.warehouse.check(text, reading(table))
        self.note_decision("warehouse", agent, tried, decision)

    def called_by(self, agent: str, tried: str, caller: Caller) -> None:
        """What it says to a token that comes from somebody whom it knows by its own means."""
        text = self.tokens[agent].present(audience="warehouse")
        decision = self.warehouse.check(text, reading("sales"), caller=caller)
        self.note_decision("warehouse", caller.agent or agent, tried, decision)


def sending(to: str) -> Access:
    """Mail to one recipient."""
    return Access(tool="mail.send", arguments={"to": to})


def reading(table: str) -> Access:
    """A look at a table, at no column of it in particular."""
    return Access(table=table, operation="select", columns=())


def _says(token: Token, asking: str) -> Iterator[str]:
    """What the last link of a token says, but for how long it lives."""
    link = token.unverified.links[-1]
    if isinstance(link, BadLink):
        return
    yield from words.of_caveats(link.caveats, 0, RIGHTS)
    yield from words.of_position(link.depth, link.delegate_only)
    if link.key is not None:
        yield "bound to its own key"
    if asking:
        yield "only with the consent of user:jane"
