"""Blocks under SQLAlchemy's transactions: each commit ends one, and what is canceled leaves nothing."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest
from sqlalchemy import (
    Connection,
    exc,
    func,
    insert,
    select,
    text,
)  # fmt: skip
from sqlalchemy.ext.asyncio import AsyncEngine

from captoken import Denied
from captoken.adapters.sqlalchemy import guarded_async
from captoken.errors import GuardError
from tests.adapters.over_sqlalchemy.test_sqlalchemy import ASYNC, NOW, READER, WRITER, Shop, grant
from tests.adapters.sqlalchemy_statements import (
    Sale,
)


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


def test_of_a_block_nothing_is_left(shop: Shop) -> None:
    kept = []

    def body(connection: Connection) -> None:
        kept.extend([connection, connection.engine])
        connection.execute(select(Sale.id))

    shop.run(READER, body)
    with pytest.raises(exc.ResourceClosedError):
        kept[0].execute(text("select 1"))
    with pytest.raises(GuardError, match="has ended"):
        kept[1].connect()
    with pytest.raises(GuardError, match="has ended"):
        kept[1].raw_connection()


@pytest.mark.parametrize("shop", ASYNC, indirect=True)
def test_what_is_canceled_is_rolled_back_and_ends(shop: Shop) -> None:
    """The statement too: it would run for hours."""
    slow = (
        "select count(*) from generate_series(1, 100000) a, generate_series(1, 100000) b"
        if shop.postgres
        else "with recursive n (i) as (select 1 union all select i + 1 from n where i < 1000000000) select count(*) from n"
    )

    async def run(engine: AsyncEngine) -> None:
        async def body() -> None:
            async with guarded_async(engine, WRITER) as connection:
                await connection.execute(insert(Sale).values(region="x"))
                await connection.execute(text(slow))

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await body()
        async with guarded_async(engine, WRITER) as connection:
            assert (await connection.execute(select(func.count(Sale.id)))).scalar() == 2

    assert isinstance(shop.engine, AsyncEngine)
    begun = monotonic()
    shop.runner.run(run(shop.engine))
    assert monotonic() - begun < 5 and shop.pool.checkedout() == 0


@pytest.mark.parametrize("shop", ASYNC, indirect=True)
def test_what_is_canceled_at_any_step_leaves_nothing(shop: Shop) -> None:
    """Also again and again while it ends, as anyio cancels."""

    async def run(engine: AsyncEngine) -> None:
        async def body() -> None:
            async with guarded_async(engine, WRITER) as connection:
                await connection.execute(insert(Sale).values(region="x"))
                await connection.execute(select(Sale.id))
                raise KeyError("x")

        for again in (1, 5):
            for steps in range(25):
                task = asyncio.ensure_future(body())
                for _ in range(steps):
                    await asyncio.sleep(0)
                for _ in range(again):
                    task.cancel()
                    await asyncio.sleep(0)
                with pytest.raises((asyncio.CancelledError, KeyError)):
                    await task
                async with guarded_async(engine, WRITER) as connection:
                    assert (await connection.execute(select(func.count(Sale.id)))).scalar() == 2, (again, steps)

    assert isinstance(shop.engine, AsyncEngine)
    shop.runner.run(run(shop.engine))
    assert shop.pool.checkedout() == 0
