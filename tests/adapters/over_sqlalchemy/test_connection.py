"""Connections of the owner's and raw ones: lost, closed by nobody, one for all, and what a DBAPI has."""

from __future__ import annotations

import gc
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import (
    Connection,
    Engine,
    SingletonThreadPool,
    StaticPool,
    create_engine,
    delete,
    event,
    exc,
    func,
    insert,
    select,
)  # fmt: skip

from captoken import Denied
from captoken.adapters import sqlite
from captoken.adapters.sqlalchemy import guarded, guarded_engine
from captoken.errors import GuardError
from tests.adapters.over_sqlalchemy.test_sqlalchemy import READER, WRITER, Shop
from tests.adapters.sqlalchemy_statements import (
    Base,
    Sale,
)


def test_an_open_transaction_of_the_owners_is_refused(shop: Shop) -> None:
    """One that an event of the owner's leaves open, since the guard would commit it."""

    def leave_open(connection: Any, *_: Any) -> None:
        connection.cursor().execute("select 1" if shop.postgres else "delete from sales")

    engine = shop.engine if isinstance(shop.engine, Engine) else shop.engine.sync_engine
    event.listen(engine, "checkout", leave_open)

    def body(connection: Connection) -> None:
        with pytest.raises(GuardError, match="open transaction"):
            connection.execute(select(Sale.id))

    shop.run(WRITER, body)
    event.remove(engine, "checkout", leave_open)
    assert shop.rows("select count(*) from sales") == [(2,)] and shop.pool.checkedout() == 0


@pytest.mark.parametrize("shop", ["psycopg", "psycopg_async"], indirect=True)
def test_a_connection_that_is_lost_is_not_given_to_the_next(shop: Shop) -> None:
    def body(connection: Connection) -> None:
        connection.execute(insert(Sale).values(region="x"))
        shop.rows("select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = 'alchemists'")
        with pytest.raises(exc.OperationalError):
            connection.execute(select(Sale.id))
        assert connection.invalidated
        connection.rollback()
        assert connection.execute(select(func.count(Sale.id))).scalar() == 2

    shop.run(WRITER, body)
    shop.run(WRITER, lambda connection: connection.execute(select(Sale.id)))
    assert shop.pool.checkedout() == 0


@pytest.mark.filterwarnings("ignore:.*was deleted:ResourceWarning")
def test_a_connection_that_nobody_closes_holds_nothing(shop: Shop) -> None:
    def body(engine: Engine) -> None:
        connection = engine.connect()
        connection.execute(insert(Sale).values(region="x"))

    if isinstance(shop.engine, Engine):
        shop.on(WRITER, body)
        gc.collect()
        assert shop.pool.checkedout() == 0
    else:
        with pytest.warns(exc.SAWarning, match="garbage collector"):
            shop.on(WRITER, body)
            gc.collect()

    until = monotonic() + 10
    while True:
        try:
            shop.run(WRITER, lambda connection: connection.execute(insert(Sale).values(region="y")))
            break
        except exc.OperationalError as error:
            # SQLite, until the thread of the other connection has come to its rollback.
            assert "locked" in str(error) and not shop.postgres and monotonic() < until
    assert shop.rows("select region from sales where id > 2") == [("y",)]


@pytest.mark.parametrize("pool", [SingletonThreadPool, StaticPool])
def test_one_connection_for_all_is_guarded_block_by_block(pool: Any) -> None:
    """A database in memory, which owner and agents share. What the owner has open is the owner's."""
    engine = create_engine("sqlite://", poolclass=pool)
    Base.metadata.create_all(engine)
    with guarded(engine, WRITER) as connection:
        connection.execute(insert(Sale).values(region="x"))
        connection.commit()
        with engine.connect() as owner:
            assert owner.execute(select(func.count(Sale.id))).scalar() == 1
    with engine.connect() as owner:
        owner.execute(delete(Sale))
        with guarded(engine, READER) as connection, pytest.raises(GuardError, match="open transaction"):
            connection.execute(select(Sale.id))
        owner.rollback()
    with guarded(engine, READER) as connection:
        assert connection.execute(select(func.count(Sale.id))).scalar() == 1
    engine.dispose()


@pytest.mark.parametrize("shop", ["sqlite"], indirect=True)
def test_a_connection_that_remembers_does_so_here(shop: Shop, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db", connect_args={"factory": sqlite.Connection})
    for _ in range(3):
        with guarded(engine, READER) as connection:
            assert len(connection.execute(select(Sale.id)).all()) == 2
    with closing(engine.raw_connection()) as taken:
        memory: Any = taken.driver_connection
        assert memory.remembered._found is not None
    engine.dispose()


@pytest.mark.parametrize("shop", ["sqlite", "psycopg"], indirect=True)
def test_a_raw_connection_is_a_connection_of_dbapi_with_what_there_is(shop: Shop) -> None:
    assert isinstance(shop.engine, Engine)
    engine = guarded_engine(shop.engine, WRITER)
    mark = "$1" if shop.postgres else "?"
    with closing(engine.raw_connection()) as taken:
        cursor: Any = taken.cursor()
        assert cursor.description is None and cursor.fetchone() is None and cursor.rowcount == -1
        cursor.execute(f"insert into sales (region, amount) values ({mark}, 1)", ("ap",))
        assert cursor.description is None and cursor.rowcount == 1
        cursor.executemany(f"insert into sales (region) values ({mark})", [("x",), ("y",)])
        assert cursor.rowcount == 2 and not hasattr(cursor, "lastrowid")
        cursor.execute("select region, id from sales order by id")
        assert [column[0] for column in cursor.description] == ["region", "id"]
        assert cursor.fetchmany() == [("eu", 1)] and cursor.fetchmany(2) == [("us", 2), ("ap", 3)]
        assert [*cursor] == [("x", 4), ("y", 5)] and cursor.fetchall() == []
        with pytest.raises(Denied):
            cursor.execute("select pay from hr")
        assert cursor.description is None and cursor.fetchall() == []
        taken.commit()
        taken.rollback()
        kept: Any = taken.dbapi_connection
    assert kept.closed
    kept.close()
    with pytest.raises(GuardError, match="is closed"):
        cursor.execute("select 1")
    assert shop.rows("select count(*) from sales") == [(5,)] and shop.pool.checkedout() == 0
