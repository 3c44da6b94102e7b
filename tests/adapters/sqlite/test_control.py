"""The SQLite guard under live control: statements ask the overlay again, are counted once each, and are recorded."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

import pytest

from captoken import Denied
from captoken.adapters.sqlite import guarded
from captoken.audit import AuditTrail, read
from captoken.control import Feed, Operator
from captoken.keys import OperatorKey
from captoken.stores.memory import MemoryLedger, MemorySnapshots
from tests.fixtures import clock, data, mint, verifier

KEY = OperatorKey.from_bytes(bytes(range(3, 35)))
BOTH = {"tables": ["sales", "regions"], "operations": ["select", "update"]}


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:", isolation_level=None)
    made.executescript("create table sales (region, amount); create table regions (region, name); create table hr (pay);")
    made.executemany("insert into sales values (?, ?)", [("eu", number) for number in range(10)])
    yield made
    made.close()


def denied(call, *arguments) -> str:
    with pytest.raises(Denied) as caught:
        call(*arguments)
    return caught.value.code


def test_a_statement_asks_the_overlay_again(connection: sqlite3.Connection) -> None:
    """Narrowed in the middle of a block, and then revoked: what follows is refused, and nothing of the block is kept."""
    snapshots = MemorySnapshots()
    operator = Operator(KEY, snapshots, by="ops:kim", clock=clock())
    operator.renew()
    grant = verifier(overlay=Feed(snapshots, [KEY.public], every=0, clock=clock())).authenticate(mint(**BOTH))
    with pytest.raises(Denied), guarded(connection, grant) as db:
        db.execute("update sales set amount = 0")
        operator.narrow(task="task-123", operations=["select"], why="odd")
        assert denied(db.execute, "update sales set amount = 1") == "narrowed"
        assert db.execute("select count(*) from sales").fetchall() == [(10,)]
        operator.end_task("task-123")
        db.execute("select count(*) from sales")
    assert connection.execute("select sum(amount) from sales").fetchone() == (45,)


@pytest.mark.parametrize("sql", ["select count(*) from sales", "select count(*) from sales where amount > 1", "update sales set amount = 0"])
def test_a_statement_that_was_permitted_before_is_decided_on_anew_and_its_denial_is_recorded_once(connection: sqlite3.Connection, sql: str) -> None:
    """Nothing asks before the question that counts, and no answer is kept."""
    snapshots = MemorySnapshots()
    operator = Operator(KEY, snapshots, by="ops:kim", clock=clock())
    operator.renew()
    records: list[str] = []
    trail = AuditTrail(lambda lines: records.extend(said["code"] for line in lines.splitlines() if (said := json.loads(line)).get("kind") == "decision"))
    grant = verifier(overlay=Feed(snapshots, [KEY.public], every=0, clock=clock()), audit=trail).authenticate(mint(**BOTH))
    records.clear()
    with pytest.raises(Denied), guarded(connection, grant) as db:
        for _ in range(2):
            db.execute(sql)
        operator.narrow(task="task-123", tables=["regions"], why="odd")
        assert records == ["allowed"] * 2 and denied(db.execute, sql) == "narrowed"
        assert records == ["allowed"] * 2 + ["narrowed"]
        operator.end_task("task-123")
        db.execute(sql)
    assert records == ["allowed"] * 2 + ["narrowed", "revoked"]


def test_a_long_statement_is_stopped_by_the_overlay(connection: sqlite3.Connection) -> None:
    """What runs while the operator speaks does not run on."""
    snapshots = MemorySnapshots()
    operator = Operator(KEY, snapshots, by="ops:kim", clock=clock())
    operator.renew()
    feed = Feed(snapshots, [KEY.public], every=0, clock=clock())
    asked = 0

    def overlay():
        nonlocal asked
        asked += 1
        if asked == 6:
            operator.end_task("task-123")
        return feed()

    grant = verifier(overlay=overlay).authenticate(mint(**BOTH))
    with guarded(connection, grant) as db:
        sql = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 10000000) select count(*), max(region) from n, sales"
        assert denied(db.execute, sql) == "revoked"


def test_a_long_statement_is_stopped_by_a_narrowing(connection: sqlite3.Connection) -> None:
    """What runs is asked about, too, and not the grant alone: it counts nothing twice."""
    snapshots, asked = MemorySnapshots(), 0
    operator = Operator(KEY, snapshots, by="ops:kim", clock=clock())
    operator.renew()
    feed = Feed(snapshots, [KEY.public], every=0, clock=clock())

    def overlay():
        nonlocal asked
        asked += 1
        if asked == 8:
            operator.narrow(task="task-123", tables=["regions"], operations=["select"], why="odd")
        return feed()

    ledger = MemoryLedger(floor=0, shared=True)
    grant = verifier(overlay=overlay, ledger=ledger).authenticate(mint(**BOTH, uses=2))
    with guarded(connection, grant) as db:
        sql = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 10000000) select count(*), max(region) from n, sales"
        assert denied(db.execute, sql) == "narrowed"
        db.execute("select count(*) from regions")
        assert list(ledger._spent.values()) == [2]


@pytest.mark.parametrize(
    ("say", "code"),
    [
        (lambda operator: operator.end_task("task-123"), "revoked"),
        (lambda operator: operator.narrow(task="task-123", operations=["select"], why="odd"), "narrowed"),
    ],
    ids=["revoked", "narrowed"],
)
def test_what_was_written_is_not_committed_once_it_is_not_permitted(connection: sqlite3.Connection, say, code) -> None:
    """The operator speaks after the last statement of the block: it is rolled back, refused, and on the record."""
    snapshots, lines = MemorySnapshots(), []
    operator = Operator(KEY, snapshots, by="ops:kim", clock=clock())
    operator.renew()
    one = verifier(overlay=Feed(snapshots, [KEY.public], every=0, clock=clock()), audit=AuditTrail(lines.append))
    with pytest.raises(Denied) as caught, guarded(connection, one.authenticate(mint(**BOTH))) as db:
        db.execute("update sales set amount = 0")
        say(operator)
    assert caught.value.code == code and not connection.in_transaction
    assert connection.execute("select sum(amount) from sales").fetchone() == (45,)
    assert [record["code"] for record in read(lines) if record.get("kind") == "decision"][-1] == code


def test_each_column_that_was_written_is_asked_about_again(connection: sqlite3.Connection) -> None:
    """Two updates of one table; the first wrote a column that the operator then takes away."""
    snapshots = MemorySnapshots()
    operator = Operator(KEY, snapshots, by="ops:kim", clock=clock())
    operator.renew()
    token = mint(tables=["sales"], operations=["update", "select"], columns={"sales": ["region", "amount"]})
    for first, second in (("amount", "region"), ("region", "amount")):
        grant = verifier(overlay=Feed(snapshots, [KEY.public], every=0, clock=clock())).authenticate(token)
        with pytest.raises(Denied) as caught, guarded(connection, grant) as db:
            db.execute(f"update sales set {first} = 0")
            db.execute(f"update sales set {second} = 0")
            entry = operator.narrow(task="task-123", columns={"sales": ["region"]}, keep=("tables", "tools"), why="odd")
        assert caught.value.code == "narrowed"
        operator.lift(entry.id)
    assert connection.execute("select sum(amount) from sales").fetchone() == (45,)


def test_a_question_that_fails_at_the_end_rolls_back(connection: sqlite3.Connection) -> None:
    """Whatever the clock or the source of keys raises then: it passes through, and nothing is committed or left open."""
    now = clock()
    broken = False

    def ticking() -> float:
        if broken:
            raise ZeroDivisionError
        return now()

    with pytest.raises(ZeroDivisionError), guarded(connection, verifier(clock=ticking).authenticate(mint(**BOTH))) as db:
        db.execute("update sales set amount = 0")
        broken = True
    assert not connection.in_transaction and connection.execute("select sum(amount) from sales").fetchone() == (45,)


def test_what_was_only_read_is_no_reason_to_ask_again(connection: sqlite3.Connection) -> None:
    snapshots = MemorySnapshots()
    operator = Operator(KEY, snapshots, by="ops:kim", clock=clock())
    operator.renew()
    grant = verifier(overlay=Feed(snapshots, [KEY.public], every=0, clock=clock())).authenticate(mint(**BOTH))
    with guarded(connection, grant) as db:
        db.execute("select count(*) from sales")
        operator.end_task("task-123")


def test_a_statement_is_used_once_whatever_it_needs(connection: sqlite3.Connection) -> None:
    """A join of two tables is one use of two; the third statement has none left, and a refused one takes none."""
    ledger = MemoryLedger(floor=0, shared=True)
    grant = verifier(ledger=ledger).authenticate(mint(**BOTH, uses=2))
    join = "select count(*) from sales join regions using (region)"
    with guarded(connection, grant) as db:
        assert denied(db.execute, "select * from hr") == "table"
        db.execute(join)
        db.execute(join)
        assert denied(db.execute, join) == "budget_exhausted"
    assert denied(grant.authorize, data("sales")) == "budget_exhausted"


def test_each_access_of_a_statement_is_recorded_and_each_refusal_once(connection: sqlite3.Connection) -> None:
    """Both tables of a join, one record for what is refused, none for what the guard asks itself."""
    lines: list[bytes] = []
    grant = verifier(audit=AuditTrail(lines.append)).authenticate(mint(**BOTH))
    with guarded(connection, grant) as db:
        db.execute("select count(*) from sales join regions using (region)")
        for sql in ("select * from hr", "drop table sales", "select * from sales natural join hr"):
            assert denied(db.execute, sql) in ("table", "operation")
    records = [record for record in read(lines) if record["kind"] == "decision"]
    told = [(record["code"], record.get("access", {}).get("table")) for record in records]
    assert told[0] == ("allowed", None)
    assert sorted(told[1:3]) == [("allowed", "regions"), ("allowed", "sales")]
    assert [code for code, _ in told[3:]] == ["table", "operation", "table"]
