"""Guarded engines: each asks for a grant in each transaction, and is the owner's engine in all else."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import (
    Connection,
    Engine,
    create_engine,
    event,
    exc,
    func,
    insert,
    select,
    text,
)  # fmt: skip
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import Session

from captoken import Denied, Grant, current
from captoken.adapters._sqlalchemy import engines
from captoken.adapters.sqlalchemy import guarded, guarded_async, guarded_engine
from captoken.errors import GuardError, NoToken
from tests.adapters.over_sqlalchemy.test_sqlalchemy import ASYNC, READER, WRITER, Shop
from tests.adapters.sqlalchemy_statements import (
    Person,
    Sale,
)


def test_a_guarded_engine_asks_for_a_grant_in_each_transaction(shop: Shop) -> None:
    grants = [READER, WRITER, READER]

    def body(engine: Engine) -> None:
        with engine.begin() as connection:
            assert connection.execute(select(func.count(Sale.id))).scalar() == 2
            with pytest.raises(Denied):
                connection.execute(insert(Sale).values(region="x"))
        with Session(engine) as session:
            session.add(Sale(region="x"))
            session.commit()
            assert session.scalars(select(Sale.region).order_by(Sale.id)).all() == ["eu", "us", "x"]
        with engine.connect():
            pass  # without a statement there is no transaction

    shop.on(lambda: grants.pop(0), body)
    assert grants == [] and shop.rows("select count(*) from sales") == [(3,)] and shop.pool.checkedout() == 0


def test_the_grant_of_the_moment_can_be_that_of_the_request(shop: Shop) -> None:
    def granting() -> Grant:
        return current.grant(Grant)

    def body(engine: Engine) -> None:
        with engine.connect() as connection:
            with pytest.raises(NoToken):
                connection.execute(select(Sale.id))
            with current.serving(WRITER):
                assert connection.execute(select(func.count(Sale.id))).scalar() == 2

    shop.on(granting, body)


def test_what_is_no_grant_is_refused(shop: Shop) -> None:
    engine: Any = shop.engine
    with pytest.raises(TypeError, match="expected a Grant"):
        guarded_engine(engine, "token")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="expected a Grant"):
        shop.run(lambda: READER, lambda connection: None)  # type: ignore[arg-type]

    def body(engine: Engine) -> None:
        with engine.connect() as connection, pytest.raises(TypeError, match="expected a Grant"):
            connection.execute(text("select 1"))

    shop.on(lambda: "token", body)


def test_a_tool_for_text_to_sql(shop: Shop) -> None:
    """What `SQLDatabase` of LangChain does: it looks by the owner's engine, and runs by the guarded one."""
    metadata = sqlalchemy.MetaData()
    metadata.reflect(shop.owner, only=["sales"])

    def body(engine: Engine) -> None:
        def run(sql: str) -> list[dict[str, Any]]:
            with engine.begin() as connection:
                cursor = connection.execute(text(sql), {}, execution_options={})
                return [row._asdict() for row in cursor.fetchall()] if cursor.returns_rows else []

        assert run("select region, sum(amount) as total from sales group by region order by region") == [
            {"region": "eu", "total": 5}, {"region": "us", "total": 7},
        ]  # fmt: skip
        with engine.connect() as connection:
            assert len(connection.execute(select(metadata.tables["sales"]).limit(1)).fetchall()) == 1
        for sql in ("select pay from hr", "delete from sales", "drop table sales"):
            with pytest.raises(Denied):
                run(sql)

    shop.on(READER, body)


def test_what_is_set_for_all_engines_is_done_on_the_owners_alone(shop: Shop) -> None:
    """The recipe of SQLAlchemy's pages for foreign keys of SQLite."""
    done = []

    def prepare(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("select 1")
        cursor.close()
        connection.rollback()
        done.append(type(connection).__name__)

    event.listen(Engine, "connect", prepare)
    try:
        shop.run(READER, lambda connection: connection.execute(select(Sale.id)))
    finally:
        event.remove(Engine, "connect", prepare)
    assert len(done) == 1 and "Guarded" not in done[0]


def test_options_of_an_engine_are_handed_on_but_for_its_transactions(shop: Shop) -> None:
    given = {"schema_translate_map": {"elsewhere": None}, "isolation_level": "AUTOCOMMIT"}
    other = shop.engine.execution_options(**given)
    moved = sqlalchemy.Table("sales", sqlalchemy.MetaData(), *[column._copy() for column in Sale.__table__.c], schema="elsewhere")

    def body(connection: Connection) -> None:
        assert connection.execute(select(func.count()).select_from(moved)).scalar() == 2
        connection.execute(insert(Sale).values(region="x"))
        connection.rollback()

    Shop(shop.owner, other, shop.runner).run(WRITER, body)
    assert shop.rows("select count(*) from sales") == [(2,)]


def test_engines_of_other_kinds_are_refused(shop: Shop) -> None:
    class Derived(SQLiteDialect_pysqlite):
        supports_statement_cache = True

    strange = create_engine("sqlite://")
    strange.dialect = Derived(dbapi=sqlite3)
    with pytest.raises(GuardError, match=r"not sqlite\+pysqlite by Derived"):
        guarded_engine(strange, READER)
    made: Any = guarded_engine(shop.engine, READER)  # type: ignore[type-var, misc]
    with pytest.raises(GuardError, match="captoken can guard"):
        guarded_engine(made, READER)
    for engine in (None, "sqlite://", make_url("sqlite://")):
        with pytest.raises(TypeError, match="expected an Engine"):
            guarded_engine(engine, READER)  # type: ignore[call-overload]
    if isinstance(shop.engine, AsyncEngine):
        with pytest.raises(TypeError, match="not async"), guarded(shop.engine.sync_engine, READER):
            pass
    with pytest.raises(TypeError, match="expected an AsyncEngine, not Engine"):
        asyncio.run(entered(guarded_async(shop.owner, READER)))  # type: ignore[arg-type]


async def entered(block: Any) -> None:
    async with block:
        pass


def test_an_owners_engine_that_is_gone_is_forgotten() -> None:
    gc.collect()
    before = len(engines._known)
    engine = create_engine("sqlite://")
    made = guarded_engine(engine, READER)
    assert len(engines._known) == before + 1
    del engine, made
    gc.collect()
    assert len(engines._known) == before


@pytest.mark.parametrize("shop", ASYNC, indirect=True)
def test_sessions_of_a_guarded_async_engine(shop: Shop) -> None:
    async def run(engine: AsyncEngine) -> None:
        sessions = async_sessionmaker(guarded_engine(engine, WRITER), expire_on_commit=False)

        async def add(name: str) -> None:
            async with sessions() as session:
                while True:
                    session.add(Sale(region=name))
                    try:
                        await session.commit()
                        break
                    except exc.OperationalError:  # SQLite has one writer at a time
                        await session.rollback()
                        await asyncio.sleep(0.01)
                with pytest.raises(Denied):
                    await session.scalars(select(Person))
                await session.scalars(select(Sale))

        await asyncio.gather(*(add(f"r{n}") for n in range(6)))
        async with sessions.begin() as session:
            assert len((await session.scalars(select(Sale))).all()) == 8
            await session.delete(await session.get_one(Sale, 1))

    assert isinstance(shop.engine, AsyncEngine)
    shop.runner.run(run(shop.engine))
    assert len(shop.rows("select id from sales")) == 7 and shop.pool.checkedout() == 0
