"""Guarded engines of SQLAlchemy: whatever SQLAlchemy does with a database, the guard of that database sees."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy
from sqlalchemy import (
    AsyncAdaptedQueuePool,
    Connection,
    Engine,
    create_engine,
    delete,
    event,
    exc,
    func,
    insert,
    select,
    text,
    update,
)  # fmt: skip
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session, selectinload

from captoken import Denied, Grant, Issuer, Keyring, Verifier, current
from captoken.adapters.postgres import Role, apply_plan
from captoken.adapters.sqlalchemy import guarded, guarded_async, guarded_engine
from captoken.errors import GuardError, StatementError
from captoken.stores.memory import MemoryLedger
from tests.adapters import postgres_corpus, sqlite_corpus
from tests.adapters.sqlalchemy_statements import (
    ON_POSTGRESQL,
    ON_SQLITE,
    STATEMENTS,
    Base,
    Kept,
    Line,
    Mood,
    Peeking,
    Person,
    Sale,
)
from tests.adapters.sqlite.test_sqlite import Sum

KEYRING = Keyring.from_keys({"k1": bytes(range(32))}, current="k1")
NOW = 1_764_061_200
ASYNC = ("aiosqlite", "psycopg_async")
KINDS = ("sqlite", "psycopg", *ASYNC)


def grant(clock: Callable[[], float] = lambda: NOW, **keywords: Any) -> Grant:
    token = Issuer(KEYRING, clock=lambda: NOW).mint(subject="user:jane", agent="analyst", task="task-1", **keywords)
    return Verifier(KEYRING, clock=clock).authenticate(token.serialize())


VALUES = {
    "string": "%s %(x)s :x $1 ? \\ ' \" ü",
    "whole": 2**40,
    "yes": True,
    "floating": 1.5,
    "exact": Decimal("1.50"),
    "inexact": 2.25,
    "rounded": Decimal("2.5"),
    "day": date(2026, 1, 2),
    "moment": datetime(2026, 1, 2, 3, 4, 5, 6),
    "aware": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    "clock": time(3, 4, 5),
    "span": timedelta(days=1, seconds=2),
    "raw": b"\0x\xff",
    "doc": {"a": [1, None, "b"], "c": {"d": 1.5}},
    "key": UUID(int=7),
    "mood": Mood.sad,
}
TABLES = ("sales", "lines", "kept")
READER = grant(tables=["sales"], operations=["select"])
WRITER = grant(tables=[*TABLES], operations=["select", "insert", "update", "delete"])
ROWS = "insert into sales (region, amount) values ('eu', 5), ('us', 7); insert into hr (name, pay) values ('ann', 900)"


class Shop:
    """A database with its owner's engine, of one of the kinds that can be guarded."""

    def __init__(self, owner: Engine, engine: Engine | AsyncEngine, runner: asyncio.Runner) -> None:
        self.owner, self.engine, self.runner = owner, engine, runner
        self.postgres = owner.dialect.name == "postgresql"

    @property
    def pool(self) -> Any:
        return self.engine.pool

    def run(self, grant: Grant, body: Callable[[Connection], Any], **options: Any) -> Any:
        """A guarded block: in async code, as what SQLAlchemy switches to."""
        if isinstance(self.engine, Engine):
            with guarded(self.engine, grant, **options) as connection:
                return body(connection)

        async def run(engine: AsyncEngine) -> Any:
            async with guarded_async(engine, grant, **options) as connection:
                return await connection.run_sync(body)

        return self.runner.run(run(self.engine))

    def on(self, grant: Any, body: Callable[[Engine], Any], **options: Any) -> Any:
        """The same with a guarded engine."""
        if isinstance(self.engine, Engine):
            return body(guarded_engine(self.engine, grant, **options))

        async def run(engine: AsyncEngine) -> Any:
            made = guarded_engine(engine, grant, **options)
            return await sqlalchemy.util.greenlet_spawn(body, made.sync_engine)

        return self.runner.run(run(self.engine))

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What the owner sees."""
        with self.owner.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql))]


# --- Core ------------------------------------------------------------------------------------------------------------


def test_what_the_grant_covers_runs_and_is_committed_at_the_end(shop: Shop) -> None:
    def body(connection: Connection) -> None:
        result = connection.execute(text("select region, amount from sales where amount > :least order by id"), {"least": 5})
        assert result.mappings().all() == [{"region": "us", "amount": 7}]
        assert connection.execute(select(func.sum(Sale.amount))).scalar() == 12
        assert connection.execute(insert(Sale).values(region="ap", amount=9)).inserted_primary_key == (3,)
        assert connection.execute(update(Sale).where(Sale.region == "ap").values(amount=10)).rowcount == 1
        assert connection.execute(delete(Sale).where(Sale.region == "us").returning(Sale.amount)).all() == [(7,)]
        assert connection.execute(text("update sales set amount = 1 where false")).rowcount == 0
        assert connection.execute(select(Sale.region).where(Sale.region.in_(["eu", "ap", "x"])).order_by(Sale.id)).all() == [("eu",), ("ap",)]

    shop.run(WRITER, body)
    assert shop.rows("select region, amount from sales order by id") == [("eu", 5), ("ap", 10)]
    assert shop.pool.checkedout() == 0


def test_an_exception_rolls_back(shop: Shop) -> None:
    def body(connection: Connection) -> None:
        connection.execute(text("delete from sales"))
        raise KeyError("x")

    with pytest.raises(KeyError):
        shop.run(WRITER, body)
    assert shop.rows("select count(*) from sales") == [(2,)] and shop.pool.checkedout() == 0


def test_a_denial_comes_as_it_is_and_the_connection_goes_on(shop: Shop) -> None:
    def body(connection: Connection) -> None:
        for statement in (select(Person.pay), text("select pay from hr"), delete(Sale), text("drop table sales"), text("begin")):
            with pytest.raises(Denied) as told:
                connection.execute(statement)
            assert type(told.value) is Denied and told.value.__cause__ is None and told.value.__context__ is None
            assert connection.in_transaction() and connection.execute(select(func.count(Sale.id))).scalar() == 2

    shop.run(READER, body)
    assert shop.rows("select count(*) from sales") == [(2,)] and shop.pool.checkedout() == 0


def test_a_statement_at_fault_is_the_guards_own_error(shop: Shop) -> None:
    def body(connection: Connection) -> None:
        connection.execute(insert(Sale).values(id=9, region="x"))
        with pytest.raises(StatementError, match="unique: "):
            connection.execute(insert(Sale).values(id=9, region="y"))
        assert connection.execute(select(Sale.region).where(Sale.id == 9)).scalar() == "x"

    shop.run(WRITER, body)
    assert shop.rows("select region from sales where id = 9") == [("x",)]


def test_many_sets_of_parameters_are_each_asked_about(shop: Shop) -> None:
    def body(connection: Connection) -> None:
        result = connection.execute(insert(Sale), [{"region": f"r{n}", "amount": n} for n in range(30)])
        assert result.rowcount == 30
        keys = connection.execute(
            insert(Sale).returning(Sale.id, sort_by_parameter_order=True), [{"region": f"s{n}"} for n in range(30)]
        ).scalars()
        assert len({*keys}) == 30
        result = connection.execute(text("update sales set amount = :new where region = :old"), [{"new": 1, "old": "r1"}, {"new": 2, "old": "r2"}])
        assert result.rowcount == 2
        with pytest.raises(Denied):
            connection.execute(insert(Person), [{"name": "x", "pay": 1}, {"name": "y", "pay": 2}])

    shop.run(WRITER, body)
    assert shop.rows("select count(*) from sales") == [(62,)]


def test_a_denial_before_a_statement_runs_is_not_wrapped_either(shop: Shop) -> None:
    """Of a default that asks the database. SQLAlchemy raises a denial from another one, and not from itself."""

    def highest(context: Any) -> Any:
        return context.connection.execute(select(func.max(Person.pay))).scalar()

    keyed = sqlalchemy.Table(
        "sales", sqlalchemy.MetaData(), sqlalchemy.Column("region", sqlalchemy.String), sqlalchemy.Column("amount", sqlalchemy.Integer, default=highest)
    )

    def body(connection: Connection) -> None:
        with pytest.raises(Denied) as told:
            connection.execute(insert(keyed).values(region="x"))
        assert told.value.decision.code == "table" and "hr" in str(told.value)
        assert isinstance(told.value.__cause__, Denied) and told.value.__cause__.__cause__ is None

    shop.run(WRITER, body)


# --- the ORM ---------------------------------------------------------------------------------------------------------


def test_a_session_on_a_guarded_connection(shop: Shop) -> None:
    def body(connection: Connection) -> None:
        with Session(connection) as session:
            assert [sale.region for sale in session.scalars(select(Sale).order_by(Sale.id))] == ["eu", "us"]
            first = session.get_one(Sale, 1)
            first.lines += [Line(what="apples"), Line(what="pears")]
            session.add_all([Sale(region=f"r{n}", lines=[Line(what=str(n))]) for n in range(20)])
            session.commit()
            first.amount = 50
            session.delete(session.get_one(Sale, 2))
            session.commit()
            with pytest.raises(Denied):
                session.scalars(select(Person)).all()
            with pytest.raises(Denied):
                session.execute(text("select pay from hr"))
            sales = session.scalars(select(Sale).options(selectinload(Sale.lines)).order_by(Sale.id)).all()
            assert [line.what for line in sales[0].lines] == ["apples", "pears"] and len(sales) == 21
            session.execute(update(Sale).where(Sale.region == "r1").values(amount=7))
            session.rollback()

    shop.run(WRITER, body)
    assert shop.rows("select amount from sales where region in ('eu', 'r1') order by id") == [(50,), (None,)]


def test_a_flush_that_is_denied_leaves_a_session_that_goes_on(shop: Shop) -> None:
    def body(connection: Connection) -> None:
        with Session(connection) as session:
            session.add_all([Sale(region="x"), Person(name="bob", pay=1)])
            with pytest.raises(Denied):
                session.commit()
            session.rollback()
            session.add(Sale(region="y"))
            session.commit()

    shop.run(WRITER, body)
    assert shop.rows("select region from sales where id > 2") == [("y",)] and shop.rows("select count(*) from hr") == [(1,)]


@pytest.mark.parametrize("shop", ASYNC, indirect=True)
def test_an_async_session(shop: Shop) -> None:
    async def run(engine: AsyncEngine) -> None:
        async with guarded_async(engine, WRITER) as connection, AsyncSession(connection) as session:
            session.add(Sale(region="ap"))
            await session.commit()
            with pytest.raises(Denied):
                await session.scalars(select(Person))
            assert (await session.scalars(select(Sale.region).order_by(Sale.id))).all() == ["eu", "us", "ap"]
            streamed = await session.stream(select(Sale.region).order_by(Sale.id))
            assert [row.region async for row in streamed] == ["eu", "us", "ap"]
            with pytest.raises(Denied):
                await session.stream(select(Person))

    assert isinstance(shop.engine, AsyncEngine)
    shop.runner.run(run(shop.engine))


def test_what_people_write_gives_what_it_gives_without_a_guard(shop: Shop) -> None:
    with Session(shop.owner) as session:
        session.get_one(Sale, 1).lines = [Line(what="apples"), Line(what="pears")]
        doc = {"a": [1, 2], "b": "x", "c": {"d": 1.5}}
        session.add(Kept(day=date(2026, 1, 2), moment=VALUES["moment"], yes=True, mood=Mood.sad, doc=doc))
        session.commit()

    def body(connection: Connection) -> None:
        with shop.owner.connect() as bare:
            for statement in [*STATEMENTS, *(ON_POSTGRESQL if shop.postgres else ON_SQLITE)]:
                given, expected = came(connection, statement), came(bare, statement)
                assert given == expected, str(statement)

    shop.run(WRITER, body)


def came(connection: Connection, statement: Any) -> list[Any] | int | None:
    """What came of a statement, which is rolled back."""
    with Session(connection) as session:
        result = session.execute(statement)
        if not getattr(result, "returns_rows", True):
            # Of an insert it is the cursor's, which the driver may have closed by now.
            return result.rowcount if statement.is_update or statement.is_delete else None  # type: ignore[attr-defined]
        rows: Any = (result.unique() if [*result.keys()] == ["Sale"] else result).all()
        return [[getattr(value, "id", value) for value in row] for row in rows]


# --- what a statement goes through -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shop", ["sqlite", "aiosqlite"], indirect=True)
def test_the_corpus_of_sqlite_is_judged_as_its_guard_judges_it(shop: Shop, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "corpus.db")) as made:
        made.execute("attach ? as archive", (str(tmp_path / "archive.db"),))
        made.executescript(sqlite_corpus.SCHEMA + sqlite_corpus.ARCHIVE)

    def equip(connection: Any, _: Any) -> None:
        connection.execute("attach ? as archive", (str(tmp_path / "archive.db"),))
        connection.execute("pragma foreign_keys = on")
        for name, count in (("owned", 1), ("instr", 2)):
            connection.create_function(name, count, lambda *values: values[0])
        connection.create_window_function("sum_of", 1, Sum)

    address = f"sqlite:///{tmp_path}/corpus.db"
    if isinstance(shop.engine, AsyncEngine):
        engine: Engine | AsyncEngine = create_async_engine(address.replace(":", "+aiosqlite:", 1), poolclass=AsyncAdaptedQueuePool)

        def equip_there(adapted: Any, _: Any) -> None:
            adapted.run_async(lambda driver: driver._execute(equip, driver._conn, None))

        event.listen(engine.sync_engine, "connect", equip_there)
    else:
        engine = create_engine(address)
        event.listen(engine, "connect", equip)
    judged(Shop(shop.owner, engine, shop.runner), sqlite_corpus.CASES, sqlite_corpus.GRANTS)


@pytest.mark.parametrize("shop", ["psycopg", "psycopg_async"], indirect=True)
def test_the_corpus_of_postgresql_is_judged_as_its_guard_judges_it(shop: Shop, postgres_server: Any) -> None:
    with psycopg.connect(postgres_server.conninfo, autocommit=True) as admin:
        admin.execute("drop database if exists corpus")
        admin.execute("create database corpus")
    conninfo = postgres_server.conninfo.replace("dbname=postgres", "dbname=corpus")
    with psycopg.connect(conninfo, autocommit=True) as admin:
        admin.execute("create schema captoken_guard")
        admin.execute("create function captoken_guard.subject() returns text language sql as 'select null::text'")
        release = admin.info.server_version // 10_000
        admin.execute(postgres_corpus.SCHEMA + postgres_corpus.ROWS)
        apply_plan(admin, "agents", *(Role(name, **rights) for name, rights in postgres_corpus.CLASSES["agents"].items()))
        admin.execute("grant usage on schema market, hidden to public")

    address = f"postgresql+psycopg://agents@127.0.0.1:{postgres_server.port}/corpus"
    engine = create_engine(address) if isinstance(shop.engine, Engine) else create_async_engine(address)
    known = [case for case in postgres_corpus.CASES if postgres_corpus.is_known(case, release)]
    cases = [case._replace(sql=case.sql.replace("guarded.public.", "corpus.public.")) for case in known]
    judged(Shop(shop.owner, engine, shop.runner), cases, postgres_corpus.GRANTS)


def judged(shop: Shop, cases: Any, grants: dict[str, Any]) -> None:
    """Each statement as it stands, in a transaction of its own."""
    grants = {name: grant(**keywords) for name, keywords in grants.items()}
    wrong = []
    for name, held in grants.items():

        def body(connection: Connection, name: str = name) -> None:
            for case in cases:
                if case.grant == name:
                    came = verdict(connection, case.sql, case.parameters)
                    connection.rollback()
                    if came != case.verdict:
                        wrong.append((case.sql[:200], came, case.verdict))

        shop.run(held, body)
    if isinstance(shop.engine, Engine):
        shop.engine.dispose()
    else:
        shop.runner.run(shop.engine.dispose())
    assert wrong == []


def verdict(connection: Connection, sql: str, parameters: Any) -> str:
    try:
        connection.exec_driver_sql(sql, parameters)
    except Denied as denied:
        assert denied.__cause__ is None and denied.__context__ is None
        return denied.decision.code
    except StatementError as error:
        assert error.__cause__ is None and error.__context__ is None
        return error.code
    return "allowed"


def raw(connection: Connection) -> Any:
    """What is in the place of the connection of the database."""
    return connection.connection.dbapi_connection


def nested(connection: Connection) -> None:
    with connection.begin_nested():
        raise AssertionError


def in_savepoints(connection: Connection) -> None:
    connection.execute(text("select 1"))
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        session.execute(text("select pay from hr"))


def in_two_phases(connection: Connection) -> None:
    with Session(connection, twophase=True) as session:
        session.execute(text("select 1"))


def rewritten(connection: Connection) -> None:
    @event.listens_for(connection, "before_cursor_execute", retval=True)
    def rewrite(*told: Any) -> Any:
        return "select pay from hr", ()

    connection.execute(text("select 1"))


def done_by_an_event(connection: Connection) -> None:
    @event.listens_for(connection.engine, "do_execute")
    def do_it(cursor: Any, *told: Any) -> bool:
        if told[0] == "select 'this'":
            cursor.execute("select pay from hr", ())
            return True
        return False

    connection.execute(text("select 'this'"))


def by_its_cursor(connection: Connection) -> None:
    cursor = connection.connection.cursor()
    cursor.execute("select region from sales")
    assert cursor.fetchone() == ("eu",)
    cursor.execute("select pay from hr")


def by_a_pooled_connection(connection: Connection) -> None:
    with closing(connection.engine.raw_connection()) as other:
        other.cursor().execute("select pay from hr")


def after_it_was_invalidated(connection: Connection) -> None:
    connection.invalidate()
    connection.rollback()
    connection.execute(text("select pay from hr"))


def after_it_was_detached(connection: Connection) -> None:
    connection.detach()
    connection.execute(text("select pay from hr"))


def by_another_cursor_kind(connection: Connection) -> None:
    raw(connection).cursor("named").execute("select pay from hr")


KIND = "begins with|only select"  # of another kind of statement, on SQLite and on PostgreSQL

# Ways round a guard, each with a part of the answer.
ROUND: dict[str, tuple[Callable[[Connection], Any], str]] = {
    "text": (lambda c: c.execute(text("select pay from hr")), "table hr is not among"),
    "driver SQL": (lambda c: c.exec_driver_sql("select pay from hr"), "table hr is not among"),
    "driver SQL, many": (lambda c: c.exec_driver_sql("delete from hr where 1 = 1", [(), ()]), "not among"),
    "two statements": (lambda c: c.exec_driver_sql("select 1; delete from hr"), "not among|one statement"),
    "a comment that hides": (lambda c: c.execute(text("/* select */ select pay /* */ from -- sales\n hr")), "not among"),
    "a compiled statement": (lambda c: c.execute(select(Person.pay)), "table hr is not among"),
    "a subquery": (lambda c: c.execute(select(Sale).where(Sale.id.in_(select(Person.id)))), "table hr is not among"),
    "a cte": (lambda c: c.execute(select(select(Person.pay).cte("sales"))), "table hr is not among"),
    "columns as text": (lambda c: c.execute(select(sqlalchemy.literal_column("(select pay from hr)"))), "not among"),
    "a literal that ends": (lambda c: c.execute(select(sqlalchemy.literal_column("1 from hr --"))), "not among"),
    "a prefix": (lambda c: c.execute(select(Sale.id).prefix_with("pay from hr union select")), "not among"),
    "an insert from a select": (lambda c: c.execute(insert(Sale).from_select(["region"], select(Person.name))), "not among"),
    "a default that is a select": (lambda c: c.execute(insert(Peeking).values(id=1)), "not among"),
    "ddl": (lambda c: c.execute(sqlalchemy.DDL("drop table sales")), KIND),
    "create_all": (lambda c: Base.metadata.create_all(c), KIND + "|catalog"),
    "drop_all without a look": (lambda c: Base.metadata.drop_all(c, checkfirst=False), KIND),
    "a transaction by text": (lambda c: c.execute(text("commit")), KIND),
    "a savepoint by text": (lambda c: c.execute(text("savepoint x")), KIND),
    "begin_nested": (nested, "no savepoints"),
    "a session in savepoints": (in_savepoints, "no savepoints"),
    "two phases": (in_two_phases, "no two-phase"),
    "two phases, by hand": (lambda c: c.begin_twophase(), "no two-phase"),
    "two phases, recovered": (lambda c: c.recover_twophase(), "no two-phase"),
    "autocommit": (lambda c: c.execution_options(isolation_level="AUTOCOMMIT"), "the guard chooses how"),
    "autocommit of an engine": (lambda c: c.engine.execution_options(isolation_level="AUTOCOMMIT").connect(), "the guard chooses how"),
    "its isolation": (lambda c: c.get_isolation_level(), "the guard chooses how"),
    "inspect": (lambda c: sqlalchemy.inspect(c), "cannot reflect"),
    "inspect an engine": (lambda c: sqlalchemy.inspect(c.engine), "cannot reflect"),
    "reflect": (lambda c: sqlalchemy.MetaData().reflect(c), "cannot reflect"),
    "autoload": (lambda c: sqlalchemy.Table("hr", sqlalchemy.MetaData(), autoload_with=c), "cannot reflect"),
    "has_table": (lambda c: c.dialect.has_table(c, "hr"), KIND + "|catalog"),
    "a server-side cursor": (by_another_cursor_kind, "no server-side cursors"),
    "a stream": (lambda c: c.execution_options(stream_results=True).execute(text("select pay from hr")), "not among"),
    "its cursor": (by_its_cursor, "table hr is not among"),
    "a raw connection": (by_a_pooled_connection, "not among|has a guarded block|locked"),
    "once invalidated": (after_it_was_invalidated, "not among"),
    "once detached": (after_it_was_detached, "not among"),
    "an event that rewrites": (rewritten, "table hr is not among"),
    "an event that does it": (done_by_an_event, "table hr is not among"),
    "the driver's execute": (lambda c: c.connection.driver_connection.execute("select pay from hr"), "has no execute"),  # type: ignore[union-attr]
    "executescript": (lambda c: raw(c).executescript("select pay from hr"), "has no executescript"),
    "a cursor's connection": (lambda c: c.connection.cursor().connection, "has no connection"),
    "a result's connection": (lambda c: c.execute(text("select 1")).cursor.connection, "has no connection"),  # type: ignore[attr-defined]
    "a backup": (lambda c: raw(c).backup, "has no backup"),
    "a copy": (lambda c: c.connection.cursor().copy, "has no copy"),  # type: ignore[attr-defined]
    "an awaited call": (lambda c: raw(c).run_async, "has no run_async"),
    "a function": (lambda c: raw(c).create_function, "has no create_function"),
    "a procedure": (lambda c: c.connection.cursor().callproc, "has no callproc"),
    "an authorizer": (lambda c: raw(c).set_authorizer(None), "has no set_authorizer"),
    "the driver's level": (lambda c: raw(c).isolation_level, "has no isolation_level"),
    "an attribute that is set": (lambda c: setattr(raw(c), "autocommit", True), "autocommit"),
    "the dialect's connect": (lambda c: c.dialect.connect(":memory:"), "opens no connection"),
    "the engine's address": (lambda c: create_engine(c.engine.url), "Can't load plugin"),
}  # fmt: skip


REFUSALS = (GuardError, Denied, exc.NoSuchModuleError, AttributeError)


def test_there_is_no_way_round(shop: Shop) -> None:
    before = shop.rows("select * from sales") + shop.rows("select * from hr")
    wrong = []
    for way, (act, says) in ROUND.items():

        def body(connection: Connection, way: str = way, act: Any = act, says: str = says) -> None:
            try:
                act(connection)
            except Exception as error:
                if not isinstance(error, REFUSALS) or not re.search(says, str(error)):
                    wrong.append((way, repr(error)))
            else:
                wrong.append((way, "nothing"))
            connection.rollback()

        shop.run(WRITER, body)
        assert shop.pool.checkedout() == 0, way
    assert wrong == []
    assert shop.rows("select * from sales") + shop.rows("select * from hr") == before


# --- what is handed on, and what is not ------------------------------------------------------------------------------


def test_options_are_those_of_the_guard(shop: Shop) -> None:
    def body(connection: Connection) -> None:
        with pytest.raises(StatementError, match="too_many_rows: "):
            connection.execute(select(Sale.id))

    shop.run(READER, body, max_rows=1)
    with pytest.raises(TypeError, match="max_row"):
        shop.run(READER, body, max_row=1)
    asked: list[str] = []

    def price(sql: str, parameters: Any) -> dict[str, int]:
        asked.append(sql)
        return {}

    shop.run(READER, lambda connection: connection.execute(text("select id from sales")), cost=price)
    assert asked == ["select id from sales"]


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shop", ["sqlite", "psycopg"], indirect=True)
def test_a_session_can_go_from_thread_to_thread_between_transactions(shop: Shop) -> None:
    """As that of a dependency in FastAPI does; and it can be committed, or given up, in another one."""
    assert isinstance(shop.engine, Engine)
    engine = guarded_engine(shop.engine, WRITER)

    def elsewhere(act: Callable[[], Any]) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(act).result()

    session: Session = elsewhere(lambda: Session(engine))
    session.add(Sale(region="x"))
    session.flush()
    with pytest.raises(GuardError, match="another thread"):
        elsewhere(lambda: session.scalars(select(Sale)).all())
    elsewhere(session.commit)
    session.add(Sale(region="y"))
    session.flush()
    elsewhere(session.close)
    assert shop.rows("select region from sales where id > 2") == [("x",)] and shop.pool.checkedout() == 0
    with guarded(shop.engine, WRITER) as connection:
        assert connection.execute(select(func.count(Sale.id))).scalar() == 3


# --- beside other things ---------------------------------------------------------------------------------------------


def test_budgets_of_rows_are_counted_underneath(shop: Shop) -> None:
    """What the adapter itself asks, for the key of a new row, takes nothing of them."""
    token = Issuer(KEYRING, clock=lambda: NOW).mint(
        subject="user:jane", agent="analyst", task="task-1", tables=["sales"], operations=["select", "insert"], budget={"rows": 6}
    )
    verifier = Verifier(KEYRING, clock=lambda: NOW, ledger=MemoryLedger(clock=lambda: NOW, floor=0, shared=True))
    held = verifier.authenticate(token.serialize())

    def body(connection: Connection) -> None:
        with Session(connection) as session:
            session.add(Sale(region="ap"))
            session.commit()
            assert len(session.scalars(select(Sale.id)).all()) == 3
            assert held.left(["rows"]) == {"rows": 2}
            with pytest.raises(Denied) as told:
                session.scalars(select(Sale)).all()
            assert told.value.decision.code == "budget_exhausted"

    shop.run(held, body)


@pytest.mark.parametrize("shop", ["sqlite", "psycopg"], indirect=True)
def test_threads_with_different_grants_share_an_engine(shop: Shop) -> None:
    """And its pool, its dialect and what was compiled: each gets what its own grant covers."""
    assert isinstance(shop.engine, Engine)
    fresh = create_engine(shop.engine.url)  # which has asked nothing yet, and is asked by all at once
    engine = guarded_engine(fresh, lambda: current.grant(Grant))
    counter = grant(tables=["hr"], operations=["select"])

    def work(number: int) -> list[str]:
        own, mine, others = ((READER, Sale.region, Person.name), (counter, Person.name, Sale.region))[number % 2]
        told = []
        for _ in range(12):
            with current.serving(own), engine.connect() as connection:
                told.append(connection.execute(select(mine).order_by(mine).limit(1)).scalar())
                with pytest.raises(Denied):
                    connection.execute(select(others).order_by(others).limit(1))
        return told

    with ThreadPoolExecutor(8) as pool:
        came = [*pool.map(work, range(8))]
    assert came == [["eu"] * 12, ["ann"] * 12] * 4
    fresh.dispose()
