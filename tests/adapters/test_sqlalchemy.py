"""Guarded engines of SQLAlchemy: whatever SQLAlchemy does with a database, the guard of that database sees."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy
from sqlalchemy import (
    JSON,
    Connection,
    DateTime,
    Engine,
    Float,
    ForeignKey,
    LargeBinary,
    Numeric,
    String,
    create_engine,
    delete,
    exc,
    func,
    insert,
    select,
    text,
    update,
)  # fmt: skip
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

from captoken import Denied, Grant, Issuer, Keyring, Verifier
from captoken.adapters.postgres import Role, apply_plan
from captoken.adapters.sqlalchemy import guarded, guarded_async, guarded_engine

KEYRING = Keyring.from_keys({"k1": bytes(range(32))}, current="k1")
NOW = 1_764_061_200
ASYNC = ("aiosqlite", "psycopg_async")
KINDS = ("sqlite", "psycopg", *ASYNC)


def grant(clock: Callable[[], float] = lambda: NOW, **keywords: Any) -> Grant:
    token = Issuer(KEYRING, clock=lambda: NOW).mint(subject="user:jane", agent="analyst", task="task-1", **keywords)
    return Verifier(KEYRING, clock=clock).authenticate(token.serialize())


class Base(DeclarativeBase):
    pass


class Sale(Base):
    __tablename__ = "sales"
    id: Mapped[int] = mapped_column(primary_key=True)
    region: Mapped[str] = mapped_column(String(20))
    amount: Mapped[int | None]
    lines: Mapped[list[Line]] = relationship(back_populates="sale", cascade="all, delete-orphan")


class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    sale_id: Mapped[int] = mapped_column(ForeignKey("sales.id"))
    what: Mapped[str]
    sale: Mapped[Sale] = relationship(back_populates="lines")


class Person(Base):
    __tablename__ = "hr"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    pay: Mapped[int]


class Mood(enum.Enum):
    glad = 1
    sad = 2


class Kept(Base):
    """A column of each type."""

    __tablename__ = "kept"
    id: Mapped[int] = mapped_column(primary_key=True)
    string: Mapped[str | None]
    whole: Mapped[int | None] = mapped_column(sqlalchemy.BigInteger)
    yes: Mapped[bool | None]
    floating: Mapped[float | None]
    exact: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    inexact: Mapped[float | None] = mapped_column(Numeric(10, 2, asdecimal=False))
    rounded: Mapped[Decimal | None] = mapped_column(Float(asdecimal=True))
    day: Mapped[date | None]
    moment: Mapped[datetime | None]
    aware: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    clock: Mapped[time | None]
    span: Mapped[timedelta | None]
    raw: Mapped[bytes | None] = mapped_column(LargeBinary)
    doc: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    key: Mapped[UUID | None]
    mood: Mapped[Mood | None]


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


@pytest.fixture(scope="module")
def agents(postgres_server: Any) -> str:
    """A database, with a login for agents: where it is."""
    with psycopg.connect(postgres_server.conninfo, autocommit=True) as admin:
        admin.execute("drop database if exists alchemy")
        admin.execute("create database alchemy")
    address = f"postgresql+psycopg://postgres@127.0.0.1:{postgres_server.port}/alchemy"
    owner = create_engine(address)
    Base.metadata.create_all(owner)
    with owner.connect() as connection:
        every = ["select", "insert", "update", "delete"]
        roles = Role("keeper", dict.fromkeys(TABLES, every)), Role("counter", {"hr": every})
        assert apply_plan(connection.connection.driver_connection, "alchemists", *roles) == []  # type: ignore[arg-type]
    owner.dispose()
    return address


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    if request.param.startswith("psycopg"):
        address = request.getfixturevalue("agents")
        login = address.replace("postgres@", "alchemists@")
    else:
        address = login = f"sqlite:///{tmp_path}/shop.db"
    owner = create_engine(address)
    with owner.begin() as connection:
        if owner.dialect.name == "postgresql":
            connection.execute(text("truncate sales, lines, hr, kept restart identity"))
        else:
            Base.metadata.create_all(connection)
        for sql in ROWS.split("; "):
            connection.execute(text(sql))

    with asyncio.Runner() as runner:
        engine: Engine | AsyncEngine
        if request.param in ASYNC:
            engine = create_async_engine(login.replace("sqlite:", "sqlite+aiosqlite:"))
            yield Shop(owner, engine, runner)
            runner.run(engine.dispose())
        else:
            engine = create_engine(login)
            yield Shop(owner, engine, runner)
            engine.dispose()
    owner.dispose()


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


def test_an_error_of_the_database_is_sqlalchemys(shop: Shop) -> None:
    def body(connection: Connection) -> None:
        connection.execute(insert(Sale).values(id=9, region="x"))
        with pytest.raises(exc.IntegrityError):
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


@pytest.mark.parametrize("name", VALUES)
def test_each_type_goes_in_and_out(shop: Shop, name: str) -> None:
    value, column = VALUES[name], getattr(Kept, name)
    if name == "aware" and not shop.postgres:
        value = value.replace(tzinfo=None)  # type: ignore[attr-defined]

    def body(connection: Connection) -> None:
        key = connection.execute(insert(Kept).values({name: value})).inserted_primary_key
        found = connection.execute(select(column).where(Kept.id == key[0])).scalar()
        assert found == value and type(found) is type(value)
        if name != "doc":  # which PostgreSQL compares with nothing
            assert connection.execute(select(Kept.id).where(column == value)).scalar() == key[0]
        connection.execute(update(Kept).values({name: None}))
        assert connection.execute(select(column)).scalar() is None

    shop.run(WRITER, body)


# --- transactions ----------------------------------------------------------------------------------------------------


def test_each_commit_ends_a_block_and_the_next_statement_begins_one(shop: Shop) -> None:
    def body(connection: Connection) -> None:
        connection.execute(insert(Sale).values(region="one"))
        connection.commit()
        connection.execute(insert(Sale).values(region="two"))
        connection.rollback()
        with connection.begin():
            connection.execute(insert(Sale).values(region="three"))
        connection.execute(insert(Sale).values(region="four"))

    shop.run(WRITER, body)
    assert shop.rows("select region from sales where id > 2 order by id") == [("one",), ("three",), ("four",)]


def test_a_grant_that_runs_out_writes_nothing_more(shop: Shop) -> None:
    clock = [NOW]
    short = grant(lambda: clock[0], tables=["sales"], operations=["select", "insert"], expires_in=60)

    def body(connection: Connection) -> None:
        connection.execute(insert(Sale).values(region="one"))
        connection.commit()
        connection.execute(insert(Sale).values(region="two"))
        clock[0] = NOW + 120
        with pytest.raises(Denied) as told:
            connection.execute(text("select 1"))
        assert told.value.decision.code == "expired"
        with pytest.raises(Denied) as told:
            connection.commit()
        assert told.value.decision.code == "expired" and told.value.__cause__ is None
        connection.rollback()  # as SQLAlchemy wants it after a commit that failed

    shop.run(short, body)
    assert shop.rows("select region from sales where id > 2") == [("one",)] and shop.pool.checkedout() == 0


def test_the_end_of_a_block_is_a_commit_that_can_be_denied(shop: Shop) -> None:
    clock = [NOW]
    short = grant(lambda: clock[0], tables=["sales"], operations=["select", "insert"], expires_in=60)

    def body(connection: Connection) -> None:
        connection.execute(insert(Sale).values(region="one"))
        clock[0] = NOW + 120

    with pytest.raises(Denied):
        shop.run(short, body)
    assert shop.rows("select count(*) from sales") == [(2,)] and shop.pool.checkedout() == 0


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
