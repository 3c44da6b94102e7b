"""One contract for what an agent gets wrong: the same table of mistakes on SQLite, PostgreSQL and SQLAlchemy over both.

Each is a `StatementError`, or a `Denied` with table and operation. Nothing that anybody is told has a value or a hidden name.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psycopg
import pytest
from psycopg import errors as pg_errors
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from captoken import Access, Denied, Grant, Token, Verifier, current
from captoken._verification.mistakes import WORDS, mistake, word_at, word_in
from captoken.adapters import postgres, sqlalchemy, sqlite
from captoken.adapters._postgres.faults import mistaken as of_postgres
from captoken.adapters._postgres.wire import ErrorReport
from captoken.adapters._sqlite.faults import mistaken as of_sqlite
from captoken.adapters.asgi import CaptokenMiddleware
from captoken.adapters.fastapi import granted, protect
from captoken.adapters.postgres import Role, apply_plan
from captoken.audit import AuditTrail, read
from captoken.errors import CaptokenError, StatementError
from captoken.stores.memory import MemoryLedger
from tests.fixtures import mint, verifier

EVERY = ["select", "insert", "update", "delete"]
TABLES = ["sales", "refs", "guarded", "secured", "late"]
ALL = {"tables": [*TABLES, "gone"], "operations": EVERY}

# Whatever is told has neither of the two words in it.
UNTOLD = ("secret", "hidden")

SCHEMA = """
create table sales (
    id integer primary key, region text not null, amount integer, code text unique,
    constraint hidden_rule check (amount < 1000)
);
create table refs (id integer primary key, sale integer not null, constraint hidden_key foreign key (sale) references sales (id));
create table late (sale integer references sales (id) deferrable initially deferred);
create table guarded (note text);
create table secured (note text);
insert into sales values (1, 'secret-region', 5, 'secret-code'), (2, 'us', 7, null);
"""
ON_SQLITE = """
create trigger hidden_trigger before insert on guarded begin select raise(abort, 'secret-raised'); end;
"""
ON_POSTGRES = """
create function hidden_refusal() returns trigger language plpgsql as
    'begin raise exception ''secret-raised %'', new.note; end';
create trigger hidden_trigger before insert on guarded for each row execute function hidden_refusal();
alter table secured enable row level security;
create policy hidden_policy on secured using (note = 'secret-note');
"""


class Mistake(NamedTuple):
    code: str
    sql: str
    parameters: tuple[Any, ...] = ()
    on_postgres: str | None = None  # where the two spell it in another way
    word: str = ""  # of the statement, which is told


MISTAKES = [
    Mistake("syntax", "selct amount from sales", word="selct"),
    Mistake("syntax", "select amount fro sales where"),
    Mistake("syntax", "select amount from"),
    Mistake("syntax", "select 'secret-literal"),
    Mistake("syntax", "select amount from sales secret 'secret-literal' limit", on_postgres="select amount from sales order 'secret-literal'"),
    Mistake("syntax", "select count(*) from sales where count(*) > 'secret-literal'"),
    Mistake("name", "select amuont from sales where region = 'secret-literal'", word="amuont"),
    Mistake("name", "select sales.amuont from sales"),
    Mistake("name", "select s.amount from sales"),
    Mistake("name", "select id from sales join sales other on true", word="id"),
    Mistake("value", "insert into sales (id, region) values ('secret-literal', 'x')"),
    Mistake("value", "insert into sales (id, region) values ($1, 'x')", ("secret-parameter",)),
    Mistake("value", "select abs(-9223372036854775807 - 1) from sales", on_postgres="select 1 / 0 from sales"),
    Mistake("value", "select json(region) from sales", on_postgres="select region::json from sales"),
    Mistake("value", "select json($1) from sales", ("secret-parameter",), on_postgres="select $1::json from sales"),
    Mistake("value", "select cast(x'7365637265742dff' as text) from sales", on_postgres="select date '9999-12-31' + id from sales"),
    Mistake("unique", "insert into sales (id, region) values (1, 'secret-literal')"),
    Mistake("unique", "insert into sales (id, region, code) values (3, 'x', $1)", ("secret-code",)),
    Mistake("unique", "update sales set code = 'secret-code'"),
    Mistake("not_null", "insert into sales (id, amount, code) values (3, 1, 'secret-literal')"),
    Mistake("check", "update sales set amount = 5000 where region = 'secret-region'"),
    Mistake("foreign_key", "insert into refs values (1, 77)"),
    Mistake("raised", "insert into guarded values ('secret-literal')"),
    Mistake("parameters", "select amount from sales where id = $1"),
    Mistake("parameters", "select amount from sales where id = $1", (object(),)),
    Mistake("parameters", "select amount from sales where region = $1", ("secret\ud800",)),
    Mistake("too_large", "select zeroblob(2000000000) from sales", on_postgres="select repeat(region, 2000000000) from sales"),
]  # fmt: skip

# What only PostgreSQL finds.
ON_POSTGRES_ALONE = [
    Mistake("type", "update sales set amount = region is null"),
    Mistake("type", "select case when id = 1 then region else 1 end from sales", on_postgres="select case when id = 1 then region else id end from sales"),
    Mistake("name", "", on_postgres="select region + 1 from sales"),
    Mistake("cardinality", "", on_postgres="select (select region from sales)"),
    Mistake("unsupported", "", on_postgres="select amount from sales group by amount for update"),
    Mistake("syntax", "", on_postgres="select region, sum(amount) from sales", word="region"),
]  # fmt: skip

DENIED = {
    "select * from hr": ("table", "hr", "select"),
    "insert into sales select * from hr": ("table", "hr", "select"),
    "drop table sales": ("operation", None, None),
}


class World:
    """A database, with one way to run a guarded statement on it."""

    def __init__(self, name: str, run: Callable[..., list[tuple[Any, ...]]], rows: Callable[[str], list[tuple[Any, ...]]]) -> None:
        self.name, self.run, self.rows = name, run, rows
        self.postgres = "postgres" in name

    def spelled(self, wrong: Mistake) -> str:
        return wrong.on_postgres if self.postgres and wrong.on_postgres is not None else wrong.sql


@pytest.fixture(scope="module")
def conninfo(postgres_server: Any) -> str:
    with psycopg.connect(postgres_server.conninfo, autocommit=True) as connection:
        connection.execute("drop database if exists mistakes")
        connection.execute("create database mistakes")
    info: str = postgres_server.conninfo.replace("dbname=postgres", "dbname=mistakes")
    with psycopg.connect(info, autocommit=True) as admin:
        admin.execute(SCHEMA + ON_POSTGRES)
        assert apply_plan(admin, "mistaken", Role("mistaken_worker", allow=dict.fromkeys(TABLES, EVERY))) == []
    return info


def fetched(rows: Any) -> list[tuple[Any, ...]]:
    return rows.fetchall() if rows.columns else []


def by_alchemy(engine: Any) -> Callable[..., list[tuple[Any, ...]]]:
    def run(grant: Grant, sql: str, parameters: Any = (), **options: Any) -> list[tuple[Any, ...]]:
        with sqlalchemy.guarded(engine, grant, **options) as connection:
            result = connection.exec_driver_sql(sql, parameters)
            return [tuple(row) for row in result] if result.returns_rows else []

    return run


@pytest.fixture(params=["sqlite", "sqlite by SQLAlchemy", "aiosqlite by SQLAlchemy", "postgres", "postgres, async", "postgres by SQLAlchemy"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    name: str = request.param
    if "postgres" in name:
        yield from postgres_world(name, request.getfixturevalue("conninfo"))
    else:
        yield from sqlite_world(name, tmp_path)


def sqlite_world(name: str, folder: Path) -> Iterator[World]:
    path = folder / "mistakes.db"

    def opened() -> sqlite3.Connection:
        made = sqlite3.connect(path, check_same_thread=False)
        made.execute("pragma foreign_keys = on")
        return made

    with closing(opened()) as owner:
        owner.executescript(SCHEMA + ON_SQLITE)

    def run(grant: Grant, sql: str, parameters: Any = (), **options: Any) -> list[tuple[Any, ...]]:
        with closing(opened()) as connection, sqlite.guarded(connection, grant, **options) as db:
            return fetched(db.execute(sql, parameters))

    def rows(sql: str) -> list[tuple[Any, ...]]:
        with closing(opened()) as owner:
            return owner.execute(sql).fetchall()

    if name == "sqlite":
        yield World(name, run, rows)
    elif name.startswith("sqlite"):
        engine = create_engine("sqlite://", creator=opened)
        yield World(name, by_alchemy(engine), rows)
        engine.dispose()
    else:
        yield World(name, awaited(f"sqlite+aiosqlite:///{path}"), rows)


def awaited(address: str) -> Callable[..., list[tuple[Any, ...]]]:
    def run(grant: Grant, sql: str, parameters: Any = (), **options: Any) -> list[tuple[Any, ...]]:
        async def go() -> list[tuple[Any, ...]]:
            engine = create_async_engine(address)
            async with engine.connect() as owner:  # of the pool: its next one is this one
                await owner.exec_driver_sql("pragma foreign_keys = on")
            try:
                async with sqlalchemy.guarded_async(engine, grant, **options) as connection:
                    result = await connection.exec_driver_sql(sql, parameters)
                    return [tuple(row) for row in result] if result.returns_rows else []
            finally:
                await engine.dispose()

        return asyncio.run(go())

    return run


def postgres_world(name: str, conninfo: str) -> Iterator[World]:
    login = conninfo.replace("user=postgres", "user=mistaken")

    def run(grant: Grant, sql: str, parameters: Any = (), **options: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(login) as connection, postgres.guarded(connection, grant, **options) as db:
            return fetched(db.execute(sql, parameters))

    def run_async(grant: Grant, sql: str, parameters: Any = (), **options: Any) -> list[tuple[Any, ...]]:
        async def go() -> list[tuple[Any, ...]]:
            async with (
                await psycopg.AsyncConnection.connect(login) as connection,
                postgres.guarded_async(connection, grant, **options) as db,
            ):
                return fetched(await db.execute(sql, parameters))

        return asyncio.run(go())

    def rows(sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(conninfo, autocommit=True) as owner:
            return owner.execute(sql).fetchall()

    if "SQLAlchemy" in name:
        engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(login))
        yield World(name, by_alchemy(engine), rows)
        engine.dispose()
    else:
        yield World(name, run_async if "async" in name else run, rows)


def told_of(error: BaseException) -> str:
    """All that an error tells: its own, and what came before it."""
    said = [str(error), repr(error), repr(error.args), repr(vars(error)), repr(error.__cause__), repr(error.__context__)]
    if isinstance(error, StatementError):
        said.append(error.for_model())
    if isinstance(error, Denied):
        said += [error.public, error.decision.for_model()]
    return "\n".join(said)


# --- what is raised ---------------------------------------------------------------------------------------------------


def test_each_mistake_is_one_and_the_same_error_on_every_engine(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "captoken")
    lines: list[bytes] = []
    grant = verifier(audit=AuditTrail(lines.append)).authenticate(mint(**ALL).serialize())
    before = world.rows("select * from sales order by id")
    for wrong in [*MISTAKES, *(ON_POSTGRES_ALONE if world.postgres else [])]:
        sql = world.spelled(wrong)
        with pytest.raises(CaptokenError) as caught:
            world.run(grant, sql, wrong.parameters)
        error = caught.value
        assert type(error) is StatementError and error.code == wrong.code, (sql, error)
        assert error.__cause__ is None and error.__context__ is None, sql
        assert not any(word in told_of(error) for word in UNTOLD), sql
        told, advice = error.for_model(), WORDS[wrong.code].advice
        assert told.endswith(f" {advice}") and "Nothing was done." in told and (" here. " in told) <= (error.code == "name")
        if wrong.word:
            assert f"at {wrong.word})" in error.for_model() and f"at {wrong.word})" in str(error)
    assert world.rows("select * from sales order by id") == before
    assert not any(word in caplog.text for word in UNTOLD)

    # What the token permits was on record before it ran, with table and operation. No value is.
    records = [record for record in read(lines) if "access" in record]
    assert {record["access"]["table"] for record in records} >= {"sales", "refs", "guarded"}
    assert {record["access"]["operation"] for record in records} >= {"select", "insert", "update"}
    assert not any(word in line.decode() for line in lines for word in UNTOLD)


def test_what_is_refused_is_denied_on_every_engine(world: World) -> None:
    lines: list[bytes] = []
    grant = verifier(audit=AuditTrail(lines.append)).authenticate(mint(**ALL).serialize())
    for sql, (code, table, operation) in DENIED.items():
        with pytest.raises(Denied) as caught:
            world.run(grant, sql)
        access = caught.value.decision.access
        stated = (access.table, access.operation) if access is not None else (None, None)
        assert (caught.value.code, *stated) == (code, table, operation), sql


def test_a_block_goes_on_after_a_mistake(world: World) -> None:
    if world.name not in ("sqlite", "postgres"):
        pytest.skip("by the guards themselves")
    again: list[Any] = []
    grant = verifier().authenticate(mint(**ALL).serialize())

    def price(sql: str, parameters: Any) -> dict[str, int]:
        again.append(sql)
        return {}

    with pytest.raises(StatementError):
        world.run(grant, "selct 1", cost=price)
    assert again == ["selct 1"] and world.run(grant, "select amount from sales where id = 1") == [(5,)]


def test_a_commit_that_breaks_a_constraint_is_a_mistake_too(world: World) -> None:
    grant = verifier().authenticate(mint(**ALL).serialize())
    with pytest.raises(StatementError) as caught:
        world.run(grant, "insert into late values (77)")
    assert caught.value.code == "foreign_key" and caught.value.__context__ is caught.value.__cause__ is None
    assert world.rows("select count(*) from late") == [(0,)]


@pytest.mark.parametrize("world", ["sqlite by SQLAlchemy", "postgres by SQLAlchemy"], indirect=True)
def test_a_parameter_that_sqlalchemy_misses_is_a_mistake_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """`:word` in a text that an agent wrote. It would quote the statement."""
    grant = verifier().authenticate(mint(**ALL).serialize())
    monkeypatch.setattr(Connection, "exec_driver_sql", lambda its, sql, parameters=None: its.execute(text(sql), parameters))
    with pytest.raises(StatementError, match="parameters: ") as caught:
        world.run(grant, "select amount from sales where region = 'secret-literal' and id = :secret", {"other": 1})
    assert "secret-literal" not in told_of(caught.value)


@pytest.mark.parametrize("world", ["postgres", "postgres, async", "postgres by SQLAlchemy"], indirect=True)
def test_what_row_security_refuses_is_denied_with_table_and_operation(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """And nobody is told to check how it is spelled."""
    caplog.set_level(logging.DEBUG, "captoken")
    lines: list[bytes] = []
    grant = verifier(audit=AuditTrail(lines.append)).authenticate(mint(**ALL).serialize())
    for sql, operation in (
        ("insert into secured values ('secret-literal')", "insert"),
        ("insert into secured select region from sales", "insert"),
        ("with made as (insert into secured values ('secret-literal') returning note) select * from made", "insert"),
    ):
        with pytest.raises(Denied) as caught:
            world.run(grant, sql)
        denied = caught.value
        assert denied.code == "operation" and denied.decision.access == Access(table="secured", operation=operation, columns=denied.decision.access.columns)  # type: ignore[union-attr]
        assert denied.decision.for_model().startswith(f"Not permitted: operation {operation} on table secured.")
        assert "spell" not in told_of(denied) and not any(word in told_of(denied) for word in UNTOLD)
        record = list(read(lines))[-1]
        assert (record["access"]["table"], record["access"]["operation"], record["code"]) == ("secured", operation, "operation")
    assert not any(word in caplog.text for word in UNTOLD) and not any(word in line.decode() for line in lines for word in UNTOLD)


# --- what it costs ----------------------------------------------------------------------------------------------------


def left(ledger: MemoryLedger, token: Token, *units: str) -> dict[str, int]:
    return verifier(ledger=ledger).authenticate(token.serialize()).left(units)


def test_a_mistake_costs_nothing_of_what_the_owner_charges(world: World) -> None:
    ledger = MemoryLedger(floor=0, shared=True)
    token = mint(**ALL, budget={"usd_cents": 10})
    grant = verifier(ledger=ledger).authenticate(token.serialize())
    for wrong in MISTAKES:
        with pytest.raises(StatementError):
            world.run(grant, world.spelled(wrong), wrong.parameters, cost={"usd_cents": 3})
        assert left(ledger, token, "usd_cents") == {"usd_cents": 10}, wrong
    if world.postgres:
        with pytest.raises(Denied):
            world.run(grant, "insert into secured values ('x')", cost={"usd_cents": 3})
        assert left(ledger, token, "usd_cents") == {"usd_cents": 10}
    world.run(grant, "select amount from sales", cost={"usd_cents": 3})
    assert left(ledger, token, "usd_cents") == {"usd_cents": 7}


def test_what_was_read_before_it_counts(world: World) -> None:
    ledger = MemoryLedger(floor=0, shared=True)
    token = mint(**ALL, budget={"rows": 5000, "bytes": 500_000, "usd_cents": 10})
    grant = verifier(ledger=ledger).authenticate(token.serialize())
    many = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 900) "
    fails = many + "select abs(case when i > 800 then -9223372036854775807 - 1 else i end) from n where exists (select 1 from sales)"
    if world.postgres:
        fails = many + "select 1 / (801 - i) from n where exists (select 1 from sales)"
    with pytest.raises(StatementError) as caught:
        world.run(grant, fails, cost={"usd_cents": 3})
    # Python's module steps to the next row before it gives one: the one ahead of the failure nobody gets.
    rows = 800 if world.postgres else 799
    assert left(ledger, token, "rows", "bytes", "usd_cents") == {
        "rows": 5000 - rows, "bytes": 500_000 - rows * 8 - len(str(caught.value)), "usd_cents": 10,
    }  # fmt: skip


@pytest.mark.parametrize("world", ["postgres"], indirect=True)
def test_what_is_no_mistake_stays_what_it_is_and_is_paid_for(world: World) -> None:
    ledger = MemoryLedger(floor=0, shared=True)
    token = mint(**ALL, budget={"usd_cents": 10})
    grant = verifier(ledger=ledger).authenticate(token.serialize())
    slow = "select count(*) from sales, generate_series(1, 20000) a, generate_series(1, 20000) b"
    with pytest.raises(pg_errors.QueryCanceled):
        world.run(grant, slow, timeout=1, cost={"usd_cents": 3})
    assert left(ledger, token, "usd_cents") == {"usd_cents": 7}


def test_more_rows_than_are_handed_out_are_a_mistake_that_costs_nothing_and_leaves_nothing(world: World) -> None:
    ledger = MemoryLedger(floor=0, shared=True)
    token = mint(**ALL, budget={"usd_cents": 10})
    grant = verifier(ledger=ledger).authenticate(token.serialize())
    before = world.rows("select * from sales")
    for sql in ("select amount from sales", "update sales set amount = amount + 1 where id > 0 returning amount"):
        with pytest.raises(StatementError, match=r"^too_many_rows: the statement yields more rows than the server hands out; Rows at most: 1$") as caught:
            world.run(grant, sql, max_rows=1, cost={"usd_cents": 3})
        assert "Rows at most: 1. Ask for fewer." in caught.value.for_model()
    assert left(ledger, token, "usd_cents") == {"usd_cents": 10}
    assert world.rows("select * from sales") == before


# --- whose fault it is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state", ["08006", "08P01", "25P02", "25001", "26000", "28000", "38001", "39004", "40001", "40P01", "53100", "53300", "55P03", "57014", "57P01", "58030", "P0002", "P0004", "XX000", "99999", ""]
)  # fmt: skip
def test_what_is_the_servers_or_the_owners_is_no_fault_of_the_statement(state: str) -> None:
    assert of_postgres("select 1", ErrorReport(state, "something", 1)) is None


@pytest.mark.parametrize(
    ("code", "states"),
    [
        ("syntax", "42601 42803 42P20 42701"), ("name", "42703 42P01 42883 3F000 42725"), ("type", "42804 42846"), ("value", "22012 22P02 2201B 10608"),
        ("cardinality", "21000"), ("unique", "23505 23P01"), ("foreign_key", "23503 23001"), ("not_null", "23502"), ("check", "23514 23000 44000"),
        ("raised", "P0001"), ("parameters", "42P02 42P18"), ("too_large", "54000 54001"), ("unsupported", "0A000"),
    ],
)  # fmt: skip
def test_each_code_stands_for_states_of_postgresql(code: str, states: str) -> None:
    for state in states.split():
        error = of_postgres("select a", ErrorReport(state, "the value secret", 8))
        assert error is not None and (error.code, error.state) == (code, state)
        assert str(error) == f"{code}: {WORDS[code].fault} ({state}, at a)"


def test_what_is_told_by_the_message_alone() -> None:
    error = of_postgres("select $2", ErrorReport("08P01", "bind message supplies 1 parameters, but …"))
    assert error is not None and error.code == "parameters"
    error = of_postgres("select 'secret'::jsonpath", ErrorReport("42601", "syntax error at or near \"secret\" of jsonpath input"))
    assert error is not None and str(error).startswith("value: ")


def failed_with(number: int, message: str = "secret") -> sqlite3.Error:
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode, error.sqlite_errorname = number, "SQLITE_X"
    return error


def test_what_is_the_services_is_no_fault_of_the_statement_on_sqlite() -> None:
    for number in (
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_NOTADB,
    ):  # fmt: skip
        for ran in (False, True):
            assert of_sqlite("select 1", failed_with(number, "too many"), ran=ran) is None
    for error in (sqlite3.ProgrammingError("Cannot operate on a closed database."), ValueError("secret"), KeyError("secret")):
        assert of_sqlite("select 1", error, ran=True) is None


def test_each_code_stands_for_result_codes_of_sqlite() -> None:
    for number, code in (
        (sqlite3.SQLITE_CONSTRAINT_ROWID, "unique"), (sqlite3.SQLITE_CONSTRAINT_CHECK, "check"), (sqlite3.SQLITE_CONSTRAINT_VTAB, "check"), (3091, "value"),
        (sqlite3.SQLITE_MISMATCH, "value"), (sqlite3.SQLITE_TOOBIG, "too_large"), (sqlite3.SQLITE_RANGE, "parameters"), (sqlite3.SQLITE_ERROR, "value"),
    ):  # fmt: skip
        error = of_sqlite("select secret", failed_with(number), ran=True)
        assert error is not None and error.code == code and "secret" not in told_of(error)
    for message, told in (
        ("no such table: gone", "name: gone"), ("no such column: main.t.a", "name: a"), ("no such collation sequence: b", "name: b"),
        ("table t has no column named a", "name: a"), ("ambiguous column name: t.a", "name: a"), ("no such column: other", "name: "),
        ('near "gone": syntax error', "syntax: gone"), ('near "5": syntax error', "syntax: "), ("sub-select returns 2 columns - expected 1", "syntax: "),
        ("too many columns in result set", "too_large: "),
    ):  # fmt: skip
        error = of_sqlite("select gone, a, b, 5", failed_with(sqlite3.SQLITE_ERROR, message), ran=False)
        assert error is not None
        code, word = told.split(": ")
        assert str(error) == str(mistake(code, "SQLITE_X", word))


def test_a_word_is_told_if_it_is_a_name_that_the_statement_has() -> None:
    assert word_in("select Region from sales", "region") == "region"
    assert word_in("select regions from sales", "region") == word_in("select 'x'", "'x'") == word_in("select 5", "5") == word_in("a", "") == ""
    assert word_in("x" * 81, "x" * 81) == ""
    assert word_at("select größe from sales", 8) == "größe" and word_at("select 'secret'", 8) == word_at("select", 99) == ""


# --- services ---------------------------------------------------------------------------------------------------------

ORIGIN = "https://api.example"


def answered(app: Any, path: str, token: Token, raising: bool = False) -> httpx.Response:
    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=raising)
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            return await client.get(path, headers={"Authorization": f"Bearer {token.serialize()}"})

    return asyncio.run(go())


def service(world: World, on_top: bool) -> Any:
    """An application with one endpoint, which runs what comes and looks after nothing."""
    from fastapi import Depends, FastAPI

    app = FastAPI()
    checks: Verifier = verifier()

    @app.get("/run")
    def run(sql: str, grant: Any = Depends(granted)) -> Any:  # noqa: B008
        return world.run(grant, sql)

    if on_top:
        protect(app, checks, origin=ORIGIN)
        return app
    # Its own page for errors, of status 500, is inside of the middleware here.
    return CaptokenMiddleware(app, checks, origin=ORIGIN)


@pytest.mark.parametrize("on_top", [True, False], ids=["protect", "CaptokenMiddleware"])
def test_a_service_answers_400_or_403_without_code_of_its_own(world: World, on_top: bool) -> None:
    app, token = service(world, on_top), mint(**ALL)
    for wrong in MISTAKES:
        if wrong.parameters:
            continue
        answer = answered(app, str(httpx.URL("/run", params={"sql": world.spelled(wrong)})), token)
        said = answer.json()
        assert (answer.status_code, said["status"], said["code"], said["error"]) == (400, 400, wrong.code, "invalid_request"), answer.text
        assert answer.headers["content-type"] == "application/problem+json" and "www-authenticate" not in answer.headers
        assert said["for_model"].endswith(WORDS[wrong.code].advice) and not any(word in answer.text for word in UNTOLD)
    for sql in [*DENIED, *(["insert into secured values ('x')"] if world.postgres else [])]:
        answer = answered(app, str(httpx.URL("/run", params={"sql": sql})), token)
        assert answer.status_code == 403 and answer.json()["error"] == "insufficient_scope"
    assert answered(app, str(httpx.URL("/run", params={"sql": "select amount from sales where id = 1"})), token).json() == [[5]]


def test_mistakes_and_denials_in_a_group_are_answered_as_one_and_a_fault_among_them_is_none() -> None:
    async def grouped(scope: Any, receive: Any, send: Any) -> None:
        async def look(what: str) -> None:
            if what == "fault":
                raise LookupError(what)
            if what == "hr":
                current.grant().authorize(Access(table=what, operation="select"))
            raise mistake(what)

        async with asyncio.TaskGroup() as group:
            for what in scope["path"].strip("/").split("/"):
                group.create_task(look(what))

    app = CaptokenMiddleware(grouped, verifier(), origin=ORIGIN)
    for path, status in (("/value/name", 400), ("/value/hr", 403), ("/hr/value", 403)):
        assert answered(app, path, mint(**ALL)).status_code == status
    with pytest.raises(ExceptionGroup):
        answered(app, "/value/fault", mint(**ALL), raising=True)


@pytest.mark.parametrize("begun", [False, True])
def test_a_response_that_has_begun_is_not_answered_twice(begun: bool) -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        current.grant().authorize(Access(table="sales", operation="select"))
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise mistake("value")

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    headers = [(b"authorization", b"Bearer " + mint(**ALL).serialize().encode())]
    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": headers}
    guarded = CaptokenMiddleware(app, verifier(), origin=ORIGIN)
    if begun:
        with pytest.raises(StatementError):
            asyncio.run(guarded(scope, receive, send))
    else:
        asyncio.run(guarded(scope, receive, send))
    assert [message.get("status") for message in sent] == ([200] if begun else [400, None])
