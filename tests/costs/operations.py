"""Each public operation, what grows, and how what it executes grows with it.

    @costs("narrow a token", "its links", "n")
    def narrow(n):
        token = chained(n)                       # prepared, and not counted
        return lambda: token.attenuate(expires_in=60)    # counted

Whoever adds an operation that can be handed much adds a row. `python -m tests.costs` prints them, and with `--page` writes docs/growth.md.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from captoken import Access, Issuer, Keyring, Token, Verifier
from captoken._language.overlay import snapshot
from captoken.adapters.sqlite import Connection, guarded
from captoken.audit import AuditTrail, analysis, check, read
from captoken.control import Entry, Feed, Operator, Overlay, Selector, recall
from captoken.discharge import Allow, Discharger
from captoken.keys import AuditKey, DischargerKey, HolderKey, OperatorKey
from captoken.rows import sql
from captoken.stores.memory import MemoryLedger, MemoryReplayStore, MemorySnapshots
from captoken.stores.ports import Debit, Mark, MarkedStep, Reservation, Use
from captoken.stores.sliced import SlicedLedger
from captoken.stores.sqlite import SQLiteLedger, SQLiteReplayStore
from captoken.testing import FixedClock

from .counting import Order

Run = Callable[[], object]
NOW = 1_900_000_000
CLOCK = FixedClock(NOW)
KEYRING = Keyring.from_keys({"k1": bytes(range(1, 33))}, current="k1").for_audience("shop")
ISSUER = Issuer(KEYRING, clock=CLOCK)
WHO: dict[str, Any] = {"subject": "user:jane", "agent": "orchestrator", "task": "t", "expires_in": 3600}
SELECT = Access(table="sales", operation="select")


class Operation(NamedTuple):
    """What is counted. `least` is the smallest of three sizes; the others are 5 and 10 times it."""

    area: str
    name: str
    grows: str
    order: Order
    least: int
    prepare: Callable[[int], Run]


OPERATIONS: list[Operation] = []
_area = ""


def costs(name: str, grows: str, order: Order, least: int = 6) -> Callable[[Callable[[int], Run]], Callable[[int], Run]]:
    def keep(prepare: Callable[[int], Run]) -> Callable[[int], Run]:
        OPERATIONS.append(Operation(_area, name, grows, order, least, prepare))
        return prepare

    return keep


def area(name: str) -> None:
    global _area
    _area = name


def verifier(**given: Any) -> Verifier:
    return Verifier(KEYRING, "shop", clock=CLOCK, **given)


def chained(n: int, **first: Any) -> Token:
    """A token of n links, each of which hands it on."""
    token = ISSUER.mint(**WHO, **{"tables": ["sales"], "operations": ["select"], **first})
    for at in range(n - 1):
        token = token.delegate(to=f"agent-{at}", tables=["sales"], keep="tools")
    return token


def different(n: int) -> Token:
    """A token of n links, of which no two say the same."""
    token = ISSUER.mint(**WHO, tools={"pay": {"cents": {"max": 1000}}})
    for at in range(1, n):
        token = token.attenuate(tools={"pay": {"cents": {"max": 1000 - at}}})
    return token


PAY = Access(tool="pay", arguments={"cents": 5})


def bound(n: int) -> tuple[Token, HolderKey]:
    """A token of n links, each of which is signed and names the next key."""
    key = HolderKey.generate()
    token = ISSUER.mint(**WHO, tables=["sales"], operations=["select"], key=key.public)
    for at in range(n - 1):
        after = HolderKey.generate()
        token, key = token.delegate(to=f"agent-{at}", tables=["sales"], key=after.public, signer=key), after
    return token, key


def granted(n: int, **first: Any) -> Any:
    return verifier().authenticate(chained(n, **first).serialize())


def call_of(constraint: Any, value: Any, permitted: bool = True) -> Run:
    """A call with one argument that a grant holds to a constraint."""
    grant = verifier().authenticate(ISSUER.mint(**WHO, tools={"send": {"to": constraint}}).serialize())
    access = Access(tool="send", arguments={"to": value})
    # One of several that are tried is found sooner or later: what is refused has been held to all.
    assert bool(grant.check(access)) == bool(grant.check(access)) == permitted
    return lambda: grant.check(access)


# --- tokens ---------------------------------------------------------------------------------------

area("Tokens, at a holder")


@costs("mint", "tables that are named", "n")
def _(n: int) -> Run:
    tables = [f"t{at}" for at in range(n)]
    return lambda: ISSUER.mint(**WHO, tables=tables, operations=["select"])


@costs("mint", "tools that are named", "n")
def _(n: int) -> Run:
    tools = {f"tool{at}": {"to": {"max": 5}} for at in range(n)}
    return lambda: ISSUER.mint(**WHO, tools=tools)


@costs("mint a set", "servers", "n", 3)
def _(n: int) -> Run:
    issuer = Issuer(Keyring.from_keys({"k1": bytes(range(1, 33))}, current="k1"), clock=CLOCK)
    servers: dict[str, Any] = {f"server-{at}": {"tables": ["sales"], "operations": ["select"]} for at in range(n)}
    return lambda: issuer.mint_set(**WHO, servers=servers)


@costs("parse", "links", "n")
def _(n: int) -> Run:
    text = chained(n).serialize()
    return lambda: Token.parse(text)


@costs("serialize", "links", "n")
def _(n: int) -> Run:
    return chained(n).serialize


@costs("attenuate", "links", "n")
def _(n: int) -> Run:
    token = Token.parse(chained(n).serialize())
    return lambda: token.attenuate(expires_in=60, clock=CLOCK)


@costs("delegate", "links", "n")
def _(n: int) -> Run:
    token = Token.parse(chained(n).serialize())
    return lambda: token.delegate(to="clerk", tables=["sales"])


@costs("attenuate", "tables that are asked for", "n")
def _(n: int) -> Run:
    tables = [f"t{at}" for at in range(n)]
    token = ISSUER.mint(**WHO, tables=tables, operations=["select"])
    return lambda: token.attenuate(tables=tables)


@costs("present", "links", "n", 5)
def _(n: int) -> Run:
    token = Token.parse(chained(n).serialize(), clock=CLOCK)
    return lambda: token.present(audience="shop")


@costs("read the capability", "links", "n")
def _(n: int) -> Run:
    token = Token.parse(chained(n).serialize())
    return lambda: token.unverified.capability


@costs("ask a capability", "tables that it has", "1")
def _(n: int) -> Run:
    held = ISSUER.mint(**WHO, tables=["sales", *(f"t{at}" for at in range(n))], operations=["select"]).unverified.capability
    return lambda: held.prohibits(SELECT)


@costs("read who holds it", "links", "n")
def _(n: int) -> Run:
    token = Token.parse(chained(n).serialize())
    return lambda: token.unverified.holder


@costs("list what discharges it needs", "third parties", "n", 1)
def _(n: int) -> Run:
    token = parties(n)
    return lambda: token.needs


@costs("attach a discharge", "third parties", "n", 1)
def _(n: int) -> Run:
    token = parties(n)
    answer = Discharger(PARTY, lambda need: Allow(expires_in=60), clock=CLOCK).answer(token.needs[0])
    return lambda: token.with_discharge(answer)


PARTY = DischargerKey.generate()


def parties(n: int) -> Token:
    token = chained(1)
    for at in range(n):
        token = token.require(PARTY.public, need={"case": at})
    return token


@costs("ask for a recall", "links", "n", 3)
def _(n: int) -> Run:
    parent = chained(n)
    child = parent.delegate(to="clerk", tables=["sales"])
    return lambda: recall(parent, child, audience="shop", why="done", clock=CLOCK)


# --- decisions ------------------------------------------------------------------------------------

area("Decisions, at a server")


@costs("verify a text that was not seen before", "links", "n")
def _(n: int) -> Run:
    text, server = chained(n).serialize(), verifier()
    return lambda: server.check(text, SELECT)


@costs("verify a text that was seen before", "links, all alike", "1")
def _(n: int) -> Run:
    text, server = chained(n).serialize(), verifier()
    assert all(server.check(text, SELECT) for _ in range(3))
    return lambda: server.check(text, SELECT)


@costs("verify a text that was seen before", "links that all differ", "n")
def _(n: int) -> Run:
    text, server = different(n).serialize(), verifier()
    assert all(server.check(text, PAY) for _ in range(3))
    return lambda: server.check(text, PAY)


@costs("check on a grant", "links, all alike", "1")
def _(n: int) -> Run:
    grant = granted(n)
    assert grant.check(SELECT) and grant.check(SELECT)
    return lambda: grant.check(SELECT)


@costs("check on a grant", "links that all differ", "n")
def _(n: int) -> Run:
    grant = verifier().authenticate(different(n).serialize())
    assert grant.check(PAY) and grant.check(PAY)
    return lambda: grant.check(PAY)


@costs("a denial that every link refuses", "links", "n")
def _(n: int) -> Run:
    grant = granted(n)
    return lambda: grant.check(Access(table="hr", operation="select"))


@costs("a denial in words for the operator", "links that refuse", "n")
def _(n: int) -> Run:
    decision = granted(n).check(Access(table="hr", operation="select"))
    return lambda: str(decision)


@costs("a denial as data", "links that refuse", "n")
def _(n: int) -> Run:
    decision = granted(n).check(Access(table="hr", operation="select"))
    return decision.as_dict


@costs("a denial in words for a model", "links that refuse", "1")
def _(n: int) -> Run:
    decision = granted(n).check(Access(table="hr", operation="select"))
    return decision.for_model


@costs("a wrong signature", "links", "n")
def _(n: int) -> Run:
    text, server = chained(n).serialize(), verifier()
    other = Verifier(Keyring.from_keys({"k1": bytes(range(2, 34))}, current="k1"), "shop", clock=CLOCK)
    del server
    return lambda: other.check(text, SELECT)


@costs("check one step of several accesses", "accesses", "n")
def _(n: int) -> Run:
    grant = granted(2)
    accesses = [SELECT] * n
    assert grant.check_all(accesses)
    return lambda: grant.check_all(accesses)


@costs("recheck what is under way", "accesses", "n")
def _(n: int) -> Run:
    grant = granted(2)
    accesses = [SELECT] * n
    assert grant.recheck(accesses)
    return lambda: grant.recheck(accesses)


@costs("the conditions on rows of a table that was asked about before", "links", "1")
def _(n: int) -> Run:
    grant = granted(n, rows={"sales": {"tenant": {"in": ["acme"]}}})
    grant.rows("sales")
    return lambda: grant.rows("sales")


@costs("a bound token's proof, its hand-overs seen before", "signed hand-overs", "n", 2)
def _(n: int) -> Run:
    token, key = bound(n)
    server = verifier(replays=MemoryReplayStore(floor=0))
    texts = [token.present(audience="shop", signer=key, request=SELECT, clock=CLOCK) for _ in range(2)]
    assert server.check(texts[0], SELECT)
    return lambda: server.check(texts[1], SELECT)


@costs("who acted for whom, of a bound token", "signed hand-overs", "n", 2)
def _(n: int) -> Run:
    token, _ = bound(n)
    server = verifier(replays=MemoryReplayStore(floor=0))
    genuine = server.explain(token.serialize(), None)
    return lambda: genuine.attribution


area("What one constraint costs, on a grant that was asked before")


def constraint(kind: str, grows: str, order: Order, made: Callable[[int], tuple[Any, ...]], least: int = 6) -> None:
    costs(f"`{kind}`", grows, order, least)(lambda n: call_of(*made(n)))


constraint("in", "values", "1", lambda n: ({"in": [f"v{at}" for at in range(n)]}, "v0"))
constraint("prefix", "prefixes", "1", lambda n: ({"prefix": [f"p{at:03}" for at in range(n)]}, "p000x"))
constraint("path", "roots", "n", lambda n: ({"path": [f"/r{at:03}" for at in range(n)]}, "/s/x", False))
constraint("path", "segments of the value", "n", lambda n: ({"path": ["/r"]}, "/r" + "/x" * n))
constraint(
    "url", "patterns", "n", lambda n: ({"url": [f"https://h.example/p{at}/" for at in range(n)]}, "https://h.example/q/x", False), 1
)
constraint("each", "items of the value", "n", lambda n: ({"each": {"in": ["a", "b"]}}, ["a"] * n))
constraint("min and max", "digits of the value", "1", lambda n: ({"min": 0, "max": 9_007_199_254_740_991}, 10 ** (n // 6)))


@costs("a table", "tables that the link lists", "1")
def _(n: int) -> Run:
    grant = granted(1, tables=["sales", *(f"t{at}" for at in range(n))])
    assert grant.check(SELECT) and grant.check(SELECT)
    return lambda: grant.check(SELECT)


@costs("columns", "columns of the access", "1")
def _(n: int) -> Run:
    columns = [f"c{at}" for at in range(n)]
    grant = granted(1, columns={"sales": columns})
    access = Access(table="sales", operation="select", columns=columns)
    assert grant.check(access) and grant.check(access)
    return lambda: grant.check(access)


@costs("a tool", "tools that the link has", "1")
def _(n: int) -> Run:
    grant = verifier().authenticate(ISSUER.mint(**WHO, tools={f"tool{at}": {} for at in range(n)}).serialize())
    access = Access(tool="tool0")
    assert grant.check(access) and grant.check(access)
    return lambda: grant.check(access)


@costs("where", "attributes", "n")
def _(n: int) -> Run:
    names = [f"a{at}" for at in range(n)]
    grant = granted(1, where={name: {"in": ["x"]} for name in names})
    access = Access(table="sales", operation="select", attributes=dict.fromkeys(names, "x"))
    assert grant.check(access) and grant.check(access)
    return lambda: grant.check(access)


@costs("state an access", "arguments", "n")
def _(n: int) -> Run:
    arguments = {f"a{at}": at for at in range(n)}
    return lambda: Access(tool="send", arguments=arguments)


# --- control --------------------------------------------------------------------------------------

area("The overlay")

OPERATOR = OperatorKey.generate()


def entries(n: int) -> Iterator[Entry]:
    """Some of each kind. None of them is about the tokens here."""
    for at in range(n):
        what = ("link", "token", "agent", "task", "subject")[at % 5]
        value = f"{at:021}A" if what in ("link", "token") else f"other-{at}"
        yield Entry(id=f"{at:010}A", at=NOW, by="ops:kim", why="lost", select=Selector(**{what: value}))


def signed(n: int) -> bytes:
    return snapshot(OPERATOR, sorted(entries(n), key=lambda entry: entry.id), seq=1, issued_at=NOW)


def overlaid(n: int) -> Overlay:
    return Overlay.open(signed(n), [OPERATOR.public])


def operator(n: int) -> Operator:
    store = MemorySnapshots()
    store.publish(signed(n), None)
    return Operator(OPERATOR, store, by="ops:kim", clock=CLOCK)


@costs("open", "entries", "n", 50)
def _(n: int) -> Run:
    data = signed(n)
    return lambda: Overlay.open(data, [OPERATOR.public])


@costs("ask at a decision", "entries", "1", 50)
def _(n: int) -> Run:
    grant = verifier(overlay=overlaid(n)).authenticate(chained(2).serialize())
    assert grant.check(SELECT) and grant.check(SELECT)
    return lambda: grant.check(SELECT)


@costs("ask at a decision", "links of the token", "n")
def _(n: int) -> Run:
    grant = verifier(overlay=overlaid(50)).authenticate(chained(n).serialize())
    assert grant.check(SELECT) and grant.check(SELECT)
    return lambda: grant.check(SELECT)


@costs("revoke", "entries", "n", 50)
def _(n: int) -> Run:
    acting = operator(n)
    return lambda: acting.revoke(agent="stray", why="lost")


@costs("renew", "entries", "n", 50)
def _(n: int) -> Run:
    return operator(n).renew


@costs("list the entries", "entries", "n", 50)
def _(n: int) -> Run:
    acting = operator(n)
    return lambda: acting.entries


@costs("see that nothing is new, at a server", "entries", "1", 50)
def _(n: int) -> Run:
    store = MemorySnapshots()
    store.publish(signed(n), None)
    feed = Feed(store, [OPERATOR.public], every=0, clock=CLOCK)
    feed()
    return lambda: feed()


# --- stores ---------------------------------------------------------------------------------------

area("Stores, in memory and in a file")


def reservation(at: int, links: int = 1, amount: int = 1) -> Reservation:
    debits = tuple(Debit(bytes([at % 256, at // 256, link]) * 5 + b"\0", "cents", 10**9, amount, link) for link in range(links))
    return Reservation(at.to_bytes(16, "big"), debits, NOW - 5, NOW + 60, NOW + 3600)


_folder = tempfile.TemporaryDirectory()
_number = itertools.count()


def file() -> str:
    return f"{_folder.name}/{next(_number)}.db"


LEDGERS: dict[str, Callable[[], Any]] = {
    "memory": lambda: MemoryLedger(floor=0),
    "SQLite": lambda: SQLiteLedger.create(file(), floor=0),
}
PROOFS: dict[str, Callable[[], Any]] = {
    "memory": lambda: MemoryReplayStore(floor=0),
    "SQLite": lambda: SQLiteReplayStore.create(file(), floor=0),
}


def filled(make: Callable[[], Any], n: int) -> Any:
    ledger = make()
    for at in range(n):
        assert ledger.reserve(reservation(at), NOW) is None
    return ledger


def of_ledgers(kind: str, make: Callable[[], Any]) -> None:
    @costs(f"reserve, {kind}", "reservations that are open", "1", 50)
    def _(n: int) -> Run:
        ledger = filled(make, n)
        return lambda: ledger.reserve(reservation(n + 1), NOW)

    @costs(f"reserve, {kind}", "links that count", "n")
    def _(n: int) -> Run:
        ledger = make()
        return lambda: ledger.reserve(reservation(1, n), NOW)

    @costs(f"settle, {kind}", "reservations that are open", "1", 50)
    def _(n: int) -> Run:
        ledger = filled(make, n)
        return lambda: ledger.settle(reservation(1).id, {}, NOW)

    @costs(f"look what is spent, {kind}", "reservations that are open", "1", 50)
    def _(n: int) -> Run:
        ledger = filled(make, n)
        bucket = reservation(1).debits[0].bucket
        return lambda: ledger.spent(bucket, "cents")

    @costs(f"set a mark, {kind}", "marks that are set", "1", 50)
    def _(n: int) -> Run:
        ledger = make()
        steps = [
            MarkedStep((Mark(at.to_bytes(32, "big"), NOW + 3600, False, "seen", 0),), (), NOW - 5, "", 0, "")
            for at in range(n + 1)
        ]
        for step in steps[:-1]:
            ledger.step(step, NOW)
        return lambda: ledger.step(steps[-1], NOW)


def of_proofs(kind: str, make: Callable[[], Any]) -> None:
    @costs(f"use a proof, {kind}", "proofs that were used", "1", 50)
    def _(n: int) -> Run:
        store = make()
        for at in range(n):
            store.add(Use(at.to_bytes(16, "big"), NOW, ""), NOW)
        return lambda: store.add(Use(n.to_bytes(16, "big"), NOW, ""), NOW)


for _kind in LEDGERS:
    of_ledgers(_kind, LEDGERS[_kind])
    of_proofs(_kind, PROOFS[_kind])


@costs("reserve, out of a slice", "slices that are held", "1", 50)
def _(n: int) -> Run:
    def asked(at: int) -> Reservation:
        debit = Debit(at.to_bytes(16, "big"), "cents", 10_000, 1)
        return Reservation(os.urandom(16), (debit,), NOW - 5, NOW + 60, NOW + 3600)

    ledger = SlicedLedger(MemoryLedger(floor=0), clock=CLOCK)
    for at in range(n):
        ledger.reserve(asked(at), NOW)
    again = asked(0)
    return lambda: ledger.reserve(again, NOW)


# --- trails ---------------------------------------------------------------------------------------

area("The trail")

AUDIT = AuditKey.generate()


def trail(n: int) -> tuple[AuditTrail, list[bytes]]:
    """A trail of n decisions on n tokens of one tree."""
    lines: list[bytes] = []
    made = AuditTrail(lines.append, key=AUDIT, clock=CLOCK)
    server = verifier(audit=made)
    root = chained(2)
    for at in range(n):
        server.check(root.delegate(to=f"worker-{at % 3}", tables=["sales"]).serialize(), SELECT)
    return made, lines


def whole(n: int) -> list[bytes]:
    made, lines = trail(n)
    made.checkpoint()
    return b"".join(lines).splitlines(keepends=True)


@costs("write a record", "records before it", "1", 20)
def _(n: int) -> Run:
    made, _ = trail(n)
    grant = verifier(audit=made).authenticate(chained(2).serialize())
    assert grant.check(SELECT)
    return lambda: grant.check(SELECT)


@costs("sign a checkpoint", "records since the last one", "n", 20)
def _(n: int) -> Run:
    made, _ = trail(n)
    return made.checkpoint


@costs("read", "records", "n", 20)
def _(n: int) -> Run:
    lines = whole(n)
    return lambda: sum(1 for _ in read(lines))


@costs("check", "records", "n", 20)
def _(n: int) -> Run:
    lines = whole(n)
    return lambda: check(lines, [AUDIT.public])


@costs("gather", "records", "n", 20)
def _(n: int) -> Run:
    lines = whole(n)
    return lambda: analysis.gather(read(lines))


def asked_of_history(name: str, order: Order, ask: Callable[[analysis.History], object]) -> None:
    @costs(name, "records", order, 20)
    def _(n: int) -> Run:
        history = analysis.gather(read(whole(n)))
        return lambda: ask(history)


asked_of_history("what was never used", "n", analysis.unused)
asked_of_history("propose narrower tokens", "n log n", analysis.propose)
asked_of_history("who handed what to whom", "n", lambda history: analysis.join({"a": history}))
asked_of_history("the reach of an agent", "n", lambda history: analysis.blast_radius(history, "worker-1", NOW))
asked_of_history("replay under an overlay", "n", lambda history: analysis.replay(history, overlaid(5)))


# --- guards ---------------------------------------------------------------------------------------

area("Guards")


def database(tables: int, rows: int = 1) -> sqlite3.Connection:
    made = sqlite3.connect(":memory:", factory=Connection)
    made.execute("create table sales (id integer primary key, region text, amount integer)")
    for at in range(tables):
        made.execute(f"create table other{at} (id integer primary key, a text)")
    made.executemany("insert into sales values (?, 'eu', 5)", [(at,) for at in range(rows)])
    made.commit()
    return made


@costs("a block on SQLite, with a statement that was seen before", "tables of the database", "1", 20)
def _(n: int) -> Run:
    connection, grant = database(n), granted(2)

    def block() -> None:
        with guarded(connection, grant) as db:
            db.execute("select region from sales where id = ?", (1,)).fetchall()

    block(), block()
    return block


@costs("fetch on SQLite", "rows that are read", "n", 20)
def _(n: int) -> Run:
    connection, grant = database(1, n), granted(2)

    def block() -> None:
        with guarded(connection, grant) as db:
            db.execute("select region from sales").fetchall()

    block(), block()
    return block


@costs("a condition in SQL of what a token says of rows", "values", "n")
def _(n: int) -> Run:
    conditions = ({"tenant": {"in": [f"v{at}" for at in range(n)]}},)
    return lambda: sql(conditions, dialect="sqlite", columns={"tenant": "text"})
