"""How much an agent and all below it take out of a database: rows, bytes and rows written, counted by the guard."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from captoken import Denied, Token
from captoken._language.costs import with_cost
from captoken.adapters._usage_meter import size_of
from captoken.adapters.sqlite import guarded
from captoken.audit import AuditTrail, read
from captoken.errors import StatementError, StoreError
from captoken.stores.memory import MemoryLedger
from tests.fixtures import clock, data, mint, verifier

ALL = {"tables": ["sales", "marks", "kept"], "operations": ["select", "insert", "update", "delete"]}
MANY = 1000


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:", isolation_level=None)
    made.executescript(
        """
        pragma foreign_keys = on;
        create table sales (id integer primary key, region, amount);
        create table marks (id integer primary key, sale references sales on delete cascade, code unique);
        create table kept (note);
        create trigger noted after insert on marks begin insert into kept values (new.code); end;
        """
    )
    made.executemany("insert into sales values (?, ?, ?)", [(number, "eu", number) for number in range(1, MANY + 1)])
    yield made
    made.close()


class World:
    """A server with its ledger: what is left of a unit, and what a statement comes to."""

    def __init__(self, connection: sqlite3.Connection, **facts: Any) -> None:
        self.connection = connection
        self.ledger = facts.pop("ledger", None) or MemoryLedger(floor=0, shared=True)
        self.verifier = verifier(ledger=self.ledger, **facts)

    def grant(self, token: Token) -> Any:
        return self.verifier.authenticate(token.serialize())

    def left(self, token: Token, unit: str = "rows") -> int:
        return self.grant(token).left([unit])[unit]

    def ran(self, token: Token, sql: str, parameters: Any = (), **options: Any) -> Any:
        """How many rows came, or the code of the denial."""
        try:
            with guarded(self.connection, self.grant(token), **options) as db:
                return len(db.execute(sql, parameters).fetchall())
        except Denied as denied:
            return denied.code


def of(number: int) -> str:
    return f"select * from sales limit {number}"


def test_rows_are_counted_over_the_whole_tree(connection: sqlite3.Connection) -> None:
    world = World(connection)
    root = mint(**ALL, budget={"rows": 300})
    scout = root.delegate(to="scout", budget={"rows": 200})
    writer = root.delegate(to="writer")

    assert world.ran(scout, of(150)) == 150
    assert world.ran(scout, of(51)) == "budget_exhausted", "stopped in the middle: nothing is handed out"
    assert world.left(scout) == 49 and world.left(root) == 149, "it counts as one that gave no row"
    assert world.ran(scout, of(49)) == 49 and world.ran(scout, of(1)) == "budget_exhausted"
    assert world.ran(writer, of(99)) == 99, "its siblings go on"
    assert world.ran(writer, of(1)) == 1
    assert world.ran(root, of(1)) == "budget_exhausted"


@pytest.mark.parametrize("number", [0, 1, 255, 256, 257, 511, 512, 513, 999, 1000])
def test_exactly_what_is_left_may_be_taken_and_not_one_row_more(connection: sqlite3.Connection, number: int) -> None:
    world = World(connection)
    exact = mint(**ALL, budget={"rows": max(1, number)}, uses=1)
    assert world.ran(exact, of(number)) == number
    assert world.left(exact) == 0, "a statement without a row is counted as one"
    assert world.ran(mint(**ALL, budget={"rows": 0}), of(number)) == "budget_exhausted"
    if number > 1:
        short = mint(**ALL, budget={"rows": number - 1})
        assert world.ran(short.delegate(to="a"), of(number)) == "budget_exhausted"


def test_what_was_reserved_and_not_taken_goes_back_before_the_rows_are_handed_out(connection: sqlite3.Connection) -> None:
    world = World(connection)
    token = mint(**ALL, budget={"rows": 1000, "bytes": 100_000, "usd_cents": 50}, uses=10)
    grant = world.grant(token)
    with guarded(connection, grant, cost={"usd_cents": 7}) as db:
        rows = db.execute(of(3))
        assert grant.left(["rows", "bytes", "usd_cents", "uses", "other"]) == {
            "rows": 997, "bytes": 100_000 - 3 * (8 + 2 + 8), "usd_cents": 43, "uses": 9,
        }  # fmt: skip
        assert len(rows.fetchall()) == 3
        db.execute(of(600))
        assert grant.left(["rows", "usd_cents", "uses"]) == {"rows": 397, "usd_cents": 36, "uses": 8}, "one use, in three parts"


def test_one_statement_reserves_a_part_and_so_starves_no_sibling(connection: sqlite3.Connection) -> None:
    """While it runs, what is held of the budget is never a whole part more than it has fetched."""
    world = World(connection)
    token = mint(**ALL, budget={"rows": 5000})
    held: list[int] = []
    connection.text_factory = lambda raw: held.append(5000 - world.left(token)) or raw.decode()
    assert world.ran(token, "select region from sales") == MANY
    assert held[0] == 256 and set(held) == {256, 512, 768} and world.left(token) == 4000


def test_a_table_in_one_row_is_counted_in_bytes(connection: sqlite3.Connection) -> None:
    world = World(connection)
    all_of_it = "select json_group_array(id || region || amount) from sales"
    token = mint(**ALL, budget={"rows": 5, "bytes": 5_000})
    assert world.ran(token, all_of_it) == "budget_exhausted" and world.left(token, "bytes") == 4_999
    large = mint(**ALL, budget={"bytes": 200_000})
    assert world.ran(large, "select group_concat(region || zeroblob(100)) from sales") == 1
    assert world.left(large, "bytes") == 200_000 - (MANY * 102 + MANY - 1)


@pytest.mark.parametrize(
    "value, size", [(None, 1), (0, 8), (2**62, 8), (1.5, 8), (True, 8), (10**100, 42), ("", 1), ("eu", 2), ("é", 2), ("\ud800", 3), (b"", 1), ([], 2), (b"ab", 2)]
)  # fmt: skip
def test_the_size_of_a_value(value: Any, size: int) -> None:
    assert size_of(value) == size


@pytest.mark.parametrize(
    "sql, size",
    [
        ("select '' from sales limit 30", 30),
        ("select x'' from sales limit 30", 30),
        ("select null, '', x'', 'eu' from sales limit 3", 3 * 5),
        ("select '' from sales where id < 0", 1),
        ("update sales set amount = 0 where id <= 30", 8),  # the count that is told
        ("delete from sales where id < 0", 8),
        ("update sales set amount = 0 where id <= 3 returning ''", 8 + 3),
        ("select 1 where 0", 0),  # of no table
    ],
)
def test_nothing_that_tells_something_is_free(connection: sqlite3.Connection, sql: str, size: int) -> None:
    """How many rows there are, and which of two empty values one is, can say what a hidden one says."""
    token = mint(**ALL, budget={"bytes": 1000})
    world = World(connection)
    world.ran(token, sql)
    assert world.left(token, "bytes") == 1000 - size
    exact = World(connection)
    assert exact.ran(mint(**ALL, budget={"bytes": size}), sql) != "budget_exhausted"
    if size:
        short = World(connection)
        assert short.ran(mint(**ALL, budget={"bytes": size - 1}), sql) == "budget_exhausted"


def all_that_is_told(denied: Denied) -> str:
    """Whatever can be read off a denial, but for its id, which is random."""
    decision = denied.decision
    parts = [str(denied), denied.public, decision.report(values=True), decision.for_model(tell_limits=True), {**decision.as_dict(), "id": None}]
    return repr([*parts, decision.access, decision.effects, decision.needed, denied.__context__, denied.__cause__])


@pytest.mark.parametrize(
    "budget, sql",
    [
        ({"bytes": 100}, "select zeroblob({}) from sales limit 1"),
        ({"bytes": 100}, "select 'a' from sales limit {}"),
        ({"rows": 100}, "select 'a' from sales limit {}"),
        ({"rows": 400}, "select 'a' from sales limit {} + 300"),
        ({"rows_written": 100}, "update sales set amount = 0 where id <= {}"),
        ({"rows": 100, "bytes": 100}, "update sales set amount = 0 where id <= {} returning 'a'"),
        ({"bytes": 10}, "select json(printf('%.*c', {}, '[')) from sales"),
    ],
)
def test_a_refusal_says_nothing_of_how_much_was_read(connection: sqlite3.Connection, budget: Any, sql: str) -> None:
    """What a statement reads can be made to say what is hidden: each refusal would tell some characters of it."""
    told = set()
    for number in (250, 383, 511):
        with pytest.raises(Denied) as caught, guarded(connection, World(connection).grant(mint(**ALL, budget=budget))) as db:
            db.execute(sql.format(number))
        assert caught.value.code == "budget_exhausted" and "link 0" in caught.value.decision.line()
        told.add(all_that_is_told(caught.value))
    assert len(told) == 1, told


def test_siblings_that_are_refused_leave_the_budget_to_the_others(connection: sqlite3.Connection) -> None:
    """Six that read at the same time: what is reserved for one that is refused goes back at once."""
    world = World(connection)
    root = mint(**ALL, budget={"rows": 1000})
    siblings = [root.delegate(to=f"agent-{number}") for number in range(6)]
    came: list[Any] = []

    def read(number: int) -> None:
        """The others begin while this one reads."""
        own = sqlite3.connect(":memory:", isolation_level=None)
        connection.backup(own)
        others = iter([number + 1] if number < 5 else [])
        own.text_factory = lambda raw: [read(other) for other in others] or raw.decode()
        came.append(World(own, ledger=world.ledger).ran(siblings[number], "select region from sales limit 174"))
        own.close()

    read(0)
    assert sorted(map(str, came)) == ["174"] * 5 + ["budget_exhausted"] and world.left(root) == 1000 - 5 * 174 - 1
    assert world.ran(siblings[0], of(129)) == 129


def test_of_a_refused_statement_counts_what_it_read_before(connection: sqlite3.Connection) -> None:
    """By parts of 256 rows: the one that cannot be had goes back."""
    world = World(connection)
    token = mint(**ALL, budget={"rows": 600, "bytes": 100_000})
    assert world.ran(token, "select region from sales") == "budget_exhausted"
    assert world.grant(token).left(["rows", "bytes"]) == {"rows": 600 - 512, "bytes": 100_000 - 2 * 512}


def test_returning_is_counted_and_what_it_wrote_is_undone(connection: sqlite3.Connection) -> None:
    world = World(connection)
    token = mint(**ALL, budget={"rows": 10})
    with pytest.raises(Denied, match="rows"), guarded(connection, world.grant(token)) as db:
        try:
            db.execute("update sales set amount = -1 where id <= 11 returning id")
        finally:
            assert db.execute("select 1 from sales where amount = -1 limit 1").fetchall() == []
    assert connection.execute("select count(*) from sales where amount = -1").fetchone() == (0,)
    assert world.ran(mint(**ALL, budget={"rows": 11}), "update sales set amount = -1 where id <= 11 returning id") == 11


def test_the_block_goes_on_after_a_statement_that_was_undone(connection: sqlite3.Connection) -> None:
    world = World(connection)
    token = mint(**ALL, budget={"rows_written": 3})
    with guarded(connection, world.grant(token)) as db:
        db.execute("update sales set region = 'us' where id = 1")
        with pytest.raises(Denied) as caught:
            db.execute("update sales set region = 'asia'")
        assert caught.value.code == "budget_exhausted" and "not enough rows_written are left" in str(caught.value)
        assert db.execute("select distinct region from sales order by 1").fetchall() == [("eu",), ("us",)]
    assert connection.execute("select count(*) from sales where region = 'us'").fetchone() == (1,)
    assert world.left(token, "rows_written") == 2, "what was undone is not written"


@pytest.mark.parametrize(
    "sql, written",
    [
        ("select * from sales", 0),
        ("update sales set amount = 0 where id <= 300", 300),
        ("update sales set amount = 0 where id < 0", 0),
        ("insert into sales (region) values ('eu'), ('us')", 2),
        ("insert into marks (sale, code) values (1, 'a'), (2, 'b')", 4),  # and a trigger's two
        ("delete from sales where id = 7", 6),  # and five that go along
        ("insert into sales (id) values (1) on conflict do nothing", 0),
        ("insert into sales (id) values (1) on conflict do update set amount = 1", 1),
    ],
)
def test_rows_that_are_written_count_with_those_of_triggers_and_cascades(
    connection: sqlite3.Connection, sql: str, written: int
) -> None:
    connection.executemany("insert into marks (sale, code) values (7, ?)", [(f"c{number}",) for number in range(5)])
    world = World(connection)
    before = list(connection.iterdump())
    if written > 1:
        # One is reserved before it runs.
        short = mint(**ALL, budget={"rows_written": written - 1})
        assert world.ran(short, sql) == "budget_exhausted" and list(connection.iterdump()) == before
    token = mint(**ALL, budget={"rows_written": 1000})
    assert isinstance(world.ran(token, sql), int) and world.left(token, "rows_written") == 1000 - written
    if sql.startswith("select"):
        assert world.ran(mint(**ALL, budget={"rows_written": 0}), sql) == MANY
    else:
        assert world.ran(mint(**ALL, budget={"rows_written": 0}), sql) == "budget_exhausted"


@pytest.mark.parametrize("sql", ["replace into marks (code) values ('a')", "insert or replace into marks (code) values ('a')"])
def test_what_sqlite_does_not_count_is_refused(connection: sqlite3.Connection, sql: str) -> None:
    world = World(connection)
    assert world.ran(mint(**ALL, budget={"rows_written": 5}), sql) == "cost_unstated"
    assert world.ran(mint(**ALL, budget={"rows": 5}), sql) == 0


def test_a_rolled_back_block_gives_nothing_back(connection: sqlite3.Connection) -> None:
    world = World(connection)
    token = mint(**ALL, budget={"rows_written": 50, "rows": 50})
    with pytest.raises(KeyError), guarded(connection, world.grant(token)) as db:
        db.execute("update sales set amount = 0 where id <= 20")
        db.execute(of(30))
        raise KeyError
    assert world.left(token, "rows_written") == 30 and world.left(token) == 19


def test_what_is_denied_or_needs_no_table_takes_nothing(connection: sqlite3.Connection) -> None:
    world = World(connection)
    token = mint(tables=["sales"], operations=["select"], columns={"sales": ["id"]}, budget={"rows": 10, "bytes": 100, "rows_written": 9})
    for sql in ("select * from hr", "select amount from sales", "delete from sales", "drop table sales", "selct 1", "select nothing from sales"):
        with pytest.raises((Denied, StatementError)), guarded(connection, world.grant(token)) as db:
            db.execute(sql)
    assert world.ran(token, "select 1") == 1
    assert world.grant(token).left(["rows", "bytes", "rows_written"]) == {"rows": 10, "bytes": 100, "rows_written": 9}


def test_a_failed_statement_counts_what_it_read_and_what_its_error_tells(connection: sqlite3.Connection) -> None:
    world = World(connection)
    fails = "select id from sales where abs(case when id > 600 then -9223372036854775807 - 1 else id end) > 0"
    token = mint(**ALL, budget={"rows": 1000, "bytes": 100_000})
    with pytest.raises(StatementError, match="value: ") as caught, guarded(connection, world.grant(token)) as db:
        db.execute(fails)
    # Python steps to the next row before it gives one: the one ahead of the failure nobody gets.
    assert world.left(token) == 1000 - 599 and world.left(token, "bytes") == 100_000 - 599 * 8 - len(str(caught.value))

    little = mint(**ALL, budget={"bytes": 3})
    with pytest.raises(Denied), guarded(connection, world.grant(little)) as db:
        db.execute("select abs(-9223372036854775807 - 1) from sales")


def test_what_a_converter_says_of_a_value_is_counted_too(connection: sqlite3.Connection) -> None:
    """And a denial of it does not show what it refuses to tell, nor what that came of."""
    made = sqlite3.connect(":memory:", isolation_level=None, detect_types=sqlite3.PARSE_DECLTYPES)
    made.execute("create table sales (id integer primary key, due odd)")
    made.execute("insert into sales values (1, 'ann@example.org')")
    sqlite3.register_converter("odd", lambda raw: int(raw))
    try:
        for budget, error in ((1000, ValueError), (20, Denied)):
            world = World(made)
            token = mint(**ALL, budget={"bytes": budget})
            with pytest.raises(error) as caught, guarded(made, world.grant(token)) as db:
                db.execute("select due from sales")
            if error is ValueError:
                assert world.left(token, "bytes") <= budget - len("ann@example.org")
            else:
                assert "ann" not in str(caught.value) and caught.value.__context__ is None
    finally:
        del sqlite3.converters["ODD"]
        made.close()


def test_a_large_number_is_counted_as_what_it_holds(connection: sqlite3.Connection) -> None:
    connection.text_factory = lambda raw: int.from_bytes(raw)
    world = World(connection)
    token = mint(**ALL, budget={"bytes": 1000})
    assert world.ran(token, "select group_concat(region) from sales") == "budget_exhausted"
    assert world.ran(mint(**ALL, budget={"bytes": 5000}), "select group_concat(region) from sales") == 1


def test_a_statement_that_takes_long_leaves_something_to_its_siblings(connection: sqlite3.Connection) -> None:
    world = World(connection)
    root = mint(**ALL, budget={"rows": 300})
    other = sqlite3.connect(":memory:", isolation_level=None)
    other.executescript("create table sales (id integer primary key); with recursive n(i) as (select 1 union all select i + 1 from n where i < 60) insert into sales select i from n")
    came: list[Any] = []
    connection.text_factory = lambda raw: came or came.append(World(other, ledger=world.ledger).ran(root.delegate(to="b"), "select id from sales"))
    assert world.ran(root.delegate(to="a"), "select max(region) from sales") == 1
    assert came == [60] and world.left(root) == 300 - 61
    other.close()


def test_more_than_max_rows_is_a_mistake_and_what_was_read_counts(connection: sqlite3.Connection) -> None:
    world = World(connection)
    token = mint(**ALL, budget={"rows": 1000})
    for most in (1, 255, 256, 300):
        before = world.left(token)
        with pytest.raises(StatementError, match="too_many_rows: "):
            world.ran(token, of(most + 1), max_rows=most)
        assert before - most <= world.left(token) < before
        assert world.ran(token, of(1)) == 1


@pytest.mark.parametrize("cost", [{"rows": 1}, {"bytes": 0}, {"rows_written": 0, "cents": 1}, lambda *_: {"rows": 0}])
def test_no_cost_names_what_the_guard_counts(connection: sqlite3.Connection, cost: Any) -> None:
    world = World(connection)
    with pytest.raises(ValueError, match="the guard counts it itself"):
        world.ran(mint(**ALL), of(1), cost=cost)


def test_elsewhere_a_token_with_such_a_budget_says_what_it_costs() -> None:
    """Of a tool's call or a request nobody counts rows: whoever guards it says that there are none."""
    grant = verifier(ledger=MemoryLedger(floor=0, shared=True)).authenticate(mint(**ALL, budget={"rows": 5}).serialize())
    assert grant.check(data("sales")).code == "cost_unstated"
    assert grant.check(with_cost(data("sales"), {"rows": 0})).code == "allowed"


class Failing(MemoryLedger):
    """A ledger that fails where it is told to."""

    fails: str = ""

    def __getattribute__(self, name: str) -> Any:
        if name == object.__getattribute__(self, "fails"):
            raise StoreError("gone")
        return super().__getattribute__(name)


def test_a_ledger_that_fails(connection: sqlite3.Connection, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Failing(floor=0, shared=True)
    world = World(connection, ledger=ledger)
    token = mint(**ALL, budget={"rows": 2000})

    ledger.fails = "reserve"
    assert world.ran(token, of(1)) == "store_unavailable"
    ledger.fails = "settle"
    assert world.ran(token, of(1)) == 1, "it was paid for, and more than that"
    settling = [record.getMessage() for record in caplog.records if "refused" not in record.getMessage()]
    assert any("not settled" in line for line in settling) and not any("gone" in line for line in settling)
    ledger.fails = ""
    assert world.left(token) == 2000 - 256
    ledger.fails = "spent"
    assert world.left(token) == 0
    assert world.ran(token, of(1)) == 1, "what cannot be told is not asked for"
    ledger.fails = ""
    assert world.left(token) == 2000 - 257


def test_a_ledger_that_fails_in_the_middle_ends_the_statement(connection: sqlite3.Connection) -> None:
    ledger = Failing(floor=0, shared=True)
    world = World(connection, ledger=ledger)

    def text(raw: bytes) -> str:
        ledger.fails = "reserve"
        return raw.decode()

    connection.text_factory = text
    assert world.ran(mint(**ALL, budget={"rows": 1000}), "select region from sales") == "store_unavailable"


def test_a_revoked_grant_ends_the_statement_at_the_next_part(connection: sqlite3.Connection) -> None:
    """Each part is decided on by itself: also where no progress handler came in between."""
    now = clock()
    world = World(connection, clock=now)
    token = mint(**ALL, budget={"rows": 1000}, expires_in=60)

    def text(raw: bytes) -> str:
        now.now += 1
        return raw.decode()

    connection.text_factory = text
    assert world.ran(token, "select region from sales") == "expired"


def test_the_trail_has_one_step_and_what_was_reserved_of_it(connection: sqlite3.Connection) -> None:
    lines: list[bytes] = []
    world = World(connection, audit=AuditTrail(lines.append))
    world.ran(mint(**ALL, budget={"rows": 9000, "usd_cents": 9}, uses=5), of(600), cost={"usd_cents": 3})
    decided = [record for record in read(lines) if "taken" in record]
    assert len({record["taken"] for record in decided}) == 1
    assert [record["access"]["cost"] for record in decided] == [
        {"rows": 256, "usd_cents": 3}, {"rows": 256, "usd_cents": 0}, {"rows": 256, "usd_cents": 0},
    ]  # fmt: skip


def test_a_token_without_such_a_budget_is_asked_about_as_before(connection: sqlite3.Connection) -> None:
    class Untouched(MemoryLedger):
        def spent(self, bucket: bytes, unit: str) -> int:
            raise AssertionError("nothing is counted in rows")

    world = World(connection, ledger=Untouched(floor=0, shared=True))
    assert world.ran(mint(**ALL), of(3)) == 3
    assert world.ran(mint(**ALL, uses=2), of(3)) == 3
