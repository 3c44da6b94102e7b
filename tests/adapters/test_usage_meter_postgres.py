"""How much an agent and all below it take out of PostgreSQL: rows, bytes and rows written, counted by the guard."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from captoken import Denied, Token
from captoken.adapters.postgres import Role, apply_plan, guarded, guarded_async
from captoken.errors import GuardError, StatementError
from captoken.stores.memory import MemoryLedger
from tests.fixtures import mint, verifier

from .test_usage_meter import all_that_is_told

OPERATIONS = ["select", "insert", "update", "delete"]
ALL = {"allow": {"sales": OPERATIONS, "marks": OPERATIONS, "noted": ["execute"]}}
MANY = 1000
SCHEMA = """
create table sales (id integer primary key, region text, amount integer);
create table marks (id serial primary key, sale integer references sales on delete cascade, code text unique);
create table kept (note text);
create function noted(code text) returns void language sql security definer as 'insert into public.kept values (code), (code)';
create function note() returns trigger language plpgsql security definer as
    'begin insert into public.kept values (new.code); return null; end';
create trigger noted after insert on marks for each row execute function note();
insert into sales select n, 'eu', n from generate_series(1, 1000) n;
"""


@pytest.fixture(scope="module")
def conninfo(postgres_server: Any) -> str:
    with psycopg.connect(postgres_server.conninfo, autocommit=True) as connection:
        connection.execute("drop database if exists budgets")
        connection.execute("create database budgets")
    info: str = postgres_server.conninfo.replace("dbname=postgres", "dbname=budgets")
    with psycopg.connect(info, autocommit=True) as admin:
        admin.execute(SCHEMA)
        allow = {"sales": OPERATIONS, "marks": OPERATIONS}
        apply_plan(admin, "budgeted", Role("budgeted_worker", allow=allow))
        admin.execute("grant execute on function noted to budgeted_worker")
        admin.execute("grant usage on all sequences in schema public to budgeted_worker")
    return info


@pytest.fixture
def connection(conninfo: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(conninfo.replace("user=postgres", "user=budgeted")) as made:
        yield made
    with psycopg.connect(conninfo, autocommit=True) as admin:
        admin.execute("truncate marks, kept; update sales set region = 'eu', amount = id")
        admin.execute("insert into sales select n, 'eu', n from generate_series(1, 1000) n on conflict do nothing")


class World:
    def __init__(self, connection: psycopg.Connection[Any], **facts: Any) -> None:
        self.connection = connection
        self.verifier = verifier(ledger=MemoryLedger(floor=0, shared=True), **facts)

    def grant(self, token: Token) -> Any:
        return self.verifier.authenticate(token.serialize())

    def left(self, token: Token, unit: str = "rows") -> int:
        return self.grant(token).left([unit])[unit]

    def ran(self, token: Token, sql: str, once: bool = False, **options: Any) -> Any:
        """How many rows came, or the code of the denial."""
        try:
            with guarded(self.connection, self.grant(token), functions=["noted"], **options) as db:
                execute = db.execute_once if once else db.execute
                return len(execute(sql).fetchall())
        except Denied as denied:
            return denied.code

    def one(self, sql: str) -> Any:
        with psycopg.connect(self.connection.info.dsn.replace("user=budgeted", "user=postgres"), autocommit=True) as admin:
            row = admin.execute(sql).fetchone()
            assert row is not None
            return row[0]


def of(number: int) -> str:
    return f"select * from sales limit {number}"


once = pytest.mark.parametrize("once", [False, True], ids=["execute", "execute_once"])


@once
def test_rows_are_counted_over_the_whole_tree(connection: psycopg.Connection[Any], once: bool) -> None:
    world = World(connection)
    root = mint(**ALL, budget={"rows": 300})
    scout = root.delegate(to="scout", budget={"rows": 200})
    writer = root.delegate(to="writer")
    assert world.ran(scout, of(150), once) == 150
    assert world.ran(scout, of(51), once) == "budget_exhausted"
    assert world.left(scout) == 49 and world.left(root) == 149
    assert world.ran(scout, of(49), once) == 49 and world.ran(scout, of(1), once) == "budget_exhausted"
    assert world.ran(writer, of(99), once) == 99 and world.ran(writer, of(1), once) == 1
    assert world.ran(root, of(1), once) == "budget_exhausted"


@pytest.mark.parametrize("number", [0, 1, 256, 257, 500, 501, 999, 1000])
def test_exactly_what_is_left_may_be_taken_and_not_one_row_more(connection: psycopg.Connection[Any], number: int) -> None:
    world = World(connection)
    exact = mint(**ALL, budget={"rows": max(1, number)}, uses=1)
    assert world.ran(exact, of(number)) == number and world.left(exact) == 0
    if number > 1:
        assert world.ran(mint(**ALL, budget={"rows": number - 1}), of(number)) == "budget_exhausted"


def test_what_was_reserved_and_not_taken_goes_back_before_the_rows_are_handed_out(connection: psycopg.Connection[Any]) -> None:
    world = World(connection)
    grant = world.grant(mint(**ALL, budget={"rows": 1000, "bytes": 100_000, "usd_cents": 50}, uses=10))
    with guarded(connection, grant, cost={"usd_cents": 7}) as db:
        rows = db.execute(of(3))
        assert grant.left(["rows", "bytes", "usd_cents", "uses"]) == {
            "rows": 997, "bytes": 100_000 - 3 * (8 + 2 + 8), "usd_cents": 43, "uses": 9,
        }  # fmt: skip
        assert len(rows.fetchall()) == 3
        db.execute(of(600))
        assert grant.left(["rows", "usd_cents", "uses"]) == {"rows": 397, "usd_cents": 36, "uses": 8}, "one use, in parts"


def test_a_table_in_one_row_is_counted_in_bytes(connection: psycopg.Connection[Any]) -> None:
    world = World(connection)
    token = mint(**ALL, budget={"rows": 5, "bytes": 5_000})
    kinds = ("string_agg(region || id, ',')", "array_agg(region || id)", "json_agg(region || id)")
    for left, kind in zip((4_999, 4_998, 4_997), kinds, strict=True):
        assert world.ran(token, f"select {kind} from sales") == "budget_exhausted" and world.left(token, "bytes") == left


@pytest.mark.parametrize(
    "sql, size",
    [
        ("select '' from sales limit 30", 30),
        ("select ''::bytea from sales limit 30", 30),
        ("select from sales limit 30", 30),  # rows without a column
        ("select null, '', ''::bytea, 'eu' from sales limit 3", 3 * 5),
        ("select '' from sales where id < 0", 1),
        ("update sales set amount = 0 where id <= 30", 8),  # the count that is told
        ("delete from sales where id < 0", 8),
        ("update sales set amount = 0 where id <= 3 returning ''", 8 + 3),
        ("select 1 where false", 0),  # of no table
    ],
)
@once
def test_nothing_that_tells_something_is_free(connection: psycopg.Connection[Any], sql: str, size: int, once: bool) -> None:
    """How many rows there are, and which of two empty values one is, can say what a hidden one says."""
    token = mint(**ALL, budget={"bytes": 1000})
    world = World(connection)
    world.ran(token, sql, once)
    assert world.left(token, "bytes") == 1000 - size
    if size:
        short = World(connection)
        assert short.ran(mint(**ALL, budget={"bytes": size - 1}), sql, once) == "budget_exhausted"


@pytest.mark.parametrize(
    "budget, sql",
    [
        ({"bytes": 100}, "select repeat('a', {}) from sales limit 1"),
        ({"bytes": 100}, "select 'a' from sales limit {}"),
        ({"rows": 100}, "select 'a' from sales limit {}"),
        ({"rows": 400}, "select 'a' from sales limit {} + 300"),
        ({"rows_written": 100}, "update sales set amount = 0 where id <= {}"),
        ({"rows": 100, "bytes": 100}, "update sales set amount = 0 where id <= {} returning 'a'"),
        ({"bytes": 20}, "select repeat('x', {})::integer from sales"),
    ],
)
@once
def test_a_refusal_says_nothing_of_how_much_was_read(connection: psycopg.Connection[Any], budget: Any, sql: str, once: bool) -> None:
    told = set()
    for number in (250, 383, 511):
        with pytest.raises(Denied) as caught, guarded(connection, World(connection).grant(mint(**ALL, budget=budget))) as db:
            (db.execute_once if once else db.execute)(sql.format(number))
        assert caught.value.code == "budget_exhausted" and "link 0" in caught.value.decision.line()
        told.add(all_that_is_told(caught.value))
    assert len(told) == 1, told


def test_of_a_refused_statement_counts_what_it_read_before(connection: psycopg.Connection[Any]) -> None:
    """By parts of 256 rows: the one that cannot be had goes back."""
    world = World(connection)
    token = mint(**ALL, budget={"rows": 600, "bytes": 100_000})
    assert world.ran(token, "select region from sales") == "budget_exhausted"
    assert world.grant(token).left(["rows", "bytes"]) == {"rows": 600 - 512, "bytes": 100_000 - 2 * 512}


@pytest.mark.parametrize(
    "sql, written",
    [
        ("select * from sales", 0),
        ("update sales set amount = 0 where id <= 300", 300),
        ("update sales set amount = 0 where id < 0", 0),
        ("insert into marks (sale, code) values (1, 'a'), (2, 'b')", 4),  # and a trigger's two
        ("delete from sales where id = 7", 6),  # and five that go along
        ("insert into sales (id) values (1) on conflict do nothing", 0),
        ("insert into sales (id) values (1) on conflict (id) do update set amount = 1", 1),
        ("with x as (update sales set amount = 0 where id <= 5 returning id) delete from sales where id in (8, 9) and 1 in (select id from x)", 7),
        ("select noted('a')", 2),  # by a function
    ],
)  # fmt: skip
@once
def test_rows_that_are_written_count_with_those_of_triggers_cascades_and_functions(
    connection: psycopg.Connection[Any], sql: str, written: int, once: bool
) -> None:
    world = World(connection)
    world.one("insert into marks (sale, code) select 7, n from generate_series(1, 5) n returning 1")
    state = "select md5(string_agg(t::text, '' order by t::text)) from (select * from sales s full join marks m on false full join kept on false) t"
    before = world.one(state)
    if written > 1:
        short = mint(**ALL, budget={"rows_written": written - 1})
        assert world.ran(short, sql, once) == "budget_exhausted" and world.one(state) == before
    token = mint(**ALL, budget={"rows_written": 1000})
    assert isinstance(world.ran(token, sql, once), int) and world.left(token, "rows_written") == 1000 - written


def test_the_block_goes_on_after_a_statement_that_was_undone(connection: psycopg.Connection[Any]) -> None:
    world = World(connection)
    token = mint(**ALL, budget={"rows_written": 3})
    reader = mint(**ALL, budget={"rows": 100})
    with guarded(connection, world.grant(token)) as db:
        db.execute("update sales set region = 'us' where id = 1")
        with pytest.raises(Denied) as caught:
            db.execute("update sales set region = 'asia'")
        assert caught.value.code == "budget_exhausted"
        assert db.execute("select distinct region from sales order by 1").fetchall() == [("eu",), ("us",)]
    with guarded(connection, world.grant(reader)) as db:
        db.execute("update sales set amount = 5 where id = 1")
        with pytest.raises(Denied):
            db.execute("update sales set region = 'asia' returning id")
        assert len(db.execute("select id from sales where region <> 'asia' limit 90").fetchall()) == 90
    assert world.one("select amount from sales where id = 1") == 5
    assert world.one("select count(*) from sales where region = 'us'") == 1
    assert world.one("select count(*) from sales where region = 'asia'") == 0


def test_what_is_denied_or_needs_no_table_takes_nothing(connection: psycopg.Connection[Any]) -> None:
    world = World(connection)
    token = mint(tables=["sales"], operations=["select"], columns={"sales": ["id"]}, budget={"rows": 10, "bytes": 100, "rows_written": 9})
    for sql in ("select * from hr", "delete from sales", "drop table sales", "selct 1"):
        with pytest.raises((Denied, StatementError)), guarded(connection, world.grant(token)) as db:
            db.execute(sql)
    assert world.ran(token, "select 1") == 1
    assert world.grant(token).left(["rows", "bytes", "rows_written"]) == {"rows": 10, "bytes": 100, "rows_written": 9}


def test_a_hidden_column_costs_what_a_misspelt_one_does(connection: psycopg.Connection[Any]) -> None:
    """The database says that it is not there: a row, as any statement that fails, and the letters of what is told."""
    world, left = World(connection), [{"rows": 10, "bytes": 500}]
    for name in ("amount", "amuont"):
        token = mint(tables=["sales"], operations=["select"], columns={"sales": ["id"]}, budget={"rows": 10, "bytes": 500, "rows_written": 9})
        with pytest.raises(StatementError, match=name), guarded(connection, world.grant(token)) as db:
            db.execute(f"select {name} from sales")
        left.append(dict(world.grant(token).left(["rows", "bytes"])))
    assert [one["rows"] for one in left] == [10, 9, 8]
    assert left[0]["bytes"] - left[1]["bytes"] == left[1]["bytes"] - left[2]["bytes"] > 0


def test_a_failed_statement_counts_what_its_error_tells(connection: psycopg.Connection[Any]) -> None:
    world = World(connection)
    token = mint(**ALL, budget={"rows": 1000, "bytes": 100_000})
    fails = "select 1 / (id - 900) from sales order by id"
    with pytest.raises(StatementError) as caught, guarded(connection, world.grant(token)) as db:
        db.execute(fails)
    assert world.left(token) == 1000 - 899 and world.left(token, "bytes") == 100_000 - 899 * 8 - len(str(caught.value))
    with pytest.raises(Denied), guarded(connection, world.grant(mint(**ALL, budget={"bytes": 3}))) as db:
        db.execute(fails)


def test_what_psycopg_cannot_read_is_not_quoted_and_what_is_told_is_counted(connection: psycopg.Connection[Any]) -> None:
    world = World(connection)
    sql = "select ('12348-02-21'::timestamp + id * interval '1 day') from sales limit 1"
    token = mint(**ALL, budget={"bytes": 1000})
    with pytest.raises(StatementError) as caught, guarded(connection, world.grant(token)) as db:
        db.execute(sql)
    assert world.left(token, "bytes") == 1000 - len(str(caught.value)) and caught.value.__context__ is None and "12348" not in repr(caught.value)
    assert world.ran(mint(**ALL, budget={"bytes": 9}), sql) == "budget_exhausted"


def test_a_large_number_is_counted_as_what_it_holds(connection: psycopg.Connection[Any]) -> None:
    world = World(connection)
    sql = "select string_agg(id::text, '')::jsonb from sales where id between 100 and 999"
    assert world.ran(mint(**ALL, budget={"bytes": 200}), sql) == "budget_exhausted"
    assert world.ran(mint(**ALL, budget={"bytes": 2000}), sql) == 1


def test_a_schema_that_changed_is_not_paid_for_twice(connection: psycopg.Connection[Any], conninfo: str) -> None:
    world = World(connection)
    token = mint(**ALL, budget={"rows": 1000}, uses=9)
    assert world.ran(token, of(1)) == 1
    with psycopg.connect(conninfo, autocommit=True) as admin:
        admin.execute("alter table sales add column other integer")
    with guarded(connection, world.grant(token)) as db:
        assert len(db.execute(of(600)).fetchone() or ()) == 4
    assert world.grant(token).left(["rows", "uses"]) == {"rows": 399, "uses": 7}
    with psycopg.connect(conninfo, autocommit=True) as admin:
        admin.execute("alter table sales drop column other")


def test_more_than_max_rows_is_a_mistake(connection: psycopg.Connection[Any]) -> None:
    world = World(connection)
    token = mint(**ALL, budget={"rows": 1000})
    with pytest.raises(StatementError, match="too_many_rows: "):
        world.ran(token, of(301), max_rows=300)
    assert world.ran(token, of(1)) == 1


def test_a_server_that_does_not_count_is_refused(connection: psycopg.Connection[Any], conninfo: str) -> None:
    world = World(connection)
    token = mint(**ALL, budget={"rows_written": 100})
    with psycopg.connect(conninfo, autocommit=True) as admin:
        admin.execute("alter role budgeted set track_counts = off")
    try:
        with psycopg.connect(connection.info.dsn) as uncounted:
            other = World(uncounted)
            with pytest.raises(GuardError, match="track_counts is off"):
                other.ran(token, "update sales set amount = 0")
    finally:
        with psycopg.connect(conninfo, autocommit=True) as admin:
            admin.execute("alter role budgeted reset track_counts")
    assert world.one("select count(*) from sales where amount = 0") == 0
    assert world.ran(token, "update sales set amount = 0 where id = 1") == 0


def test_the_same_where_it_is_awaited(conninfo: str) -> None:
    async def run() -> None:
        async with await psycopg.AsyncConnection.connect(conninfo.replace("user=postgres", "user=budgeted")) as connection:
            grant = verifier(ledger=MemoryLedger(floor=0, shared=True)).authenticate(mint(**ALL, budget={"rows": 700}).serialize())
            async with guarded_async(connection, grant) as db:
                assert len((await db.execute(of(600))).fetchall()) == 600
                with pytest.raises(Denied):
                    await db.execute(of(101))

    asyncio.run(run())
