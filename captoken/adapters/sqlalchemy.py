"""Guard an engine of SQLAlchemy: its statements run in the guard of its database.

    with guarded(engine, grant) as connection:
        rows = connection.execute(text("select region, sum(amount) from sales group by region"))

    with guarded(engine, grant) as connection, Session(connection) as session:
        sales = session.scalars(select(Sale)).all()

    agent = TextToSQL(guarded_engine(engine, lambda: current.grant(Grant)))

It takes engines of `sqlite+pysqlite`, `sqlite+aiosqlite` and `postgresql+psycopg`, for Core and
ORM. `captoken.adapters.sqlite` and `captoken.adapters.postgres` judge the statements; this file
reads none. It adds these rules about how SQLAlchemy reaches a database. The code cites them.

 1. SQLAlchemy gets a connection of ours instead of the database's. It offers statements, commit,
    rollback and close. Everything else is refused, including what it does not know.
 2. The guard gets the text that the driver would have got, with its parameters: compiled, written
    by hand, or changed by an event handler.
 3. A transaction is a guarded block. The first statement starts it, with the grant of that moment.
    A commit ends it, so the grant is asked about what was written.
 4. What a dialect asks at start-up, it asks on the owner's engine, with no agent's text. So do that
    engine's pool and events. A guarded engine takes over the answers.
 5. Savepoints, isolation levels, two-phase transactions and reflection are refused with GuardError.
 6. SQLAlchemy's compiler spells parameters as the guard takes them: `?` or `$1`.

`rows` is for queries of your own, which no guard reads: it is the condition for the rows that a
token permits.

Not checked: what else the process does with the engine that is guarded.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, overload

from captoken._format.extras import extra

with extra("sqlalchemy"):
    from sqlalchemy import ColumnElement, Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from captoken._verification.grant import Grant
from captoken.adapters._costed_grant import checked
from captoken.adapters._sqlalchemy.engines import Granting, Source
from captoken.adapters._sqlalchemy.rows import held_rows

__all__ = ["guarded", "guarded_async", "guarded_engine", "rows"]


@contextmanager
def guarded(engine: Engine, grant: Grant, **options: Any) -> Generator[Connection, None, None]:
    """A SQLAlchemy connection on which only statements run that the grant covers.

    At the end of the block an open transaction is committed, or rolled back after an exception. In
    the block, `commit` and `rollback` end a transaction, and the next statement starts another.
    Each transaction is a guarded block; all use one connection of the engine's pool.

    `options` are those of the database's guard: `caller`, `max_rows`, `cost` and so on. Raises
    TypeError for an unknown one.

    Raises GuardError for an engine of another kind, and what the guard raises. Denied and
    StatementError are raised unchanged. Other errors of the database are SQLAlchemy's.
    """
    # called: sqlalchemy, by `python -m tests.called`
    source = _source(engine, checked(grant), options)
    try:
        with source.engine().connect() as connection:
            yield connection
            connection.commit()
    finally:
        source.over = True
    # end: sqlalchemy


@asynccontextmanager
async def guarded_async(
    engine: AsyncEngine,
    grant: Grant,
    **options: Any,
) -> AsyncGenerator[AsyncConnection, None]:
    """`guarded` for an AsyncEngine.

    With PostgreSQL it asks the grant in the event loop, so the grant's stores must be fast. With
    SQLite it asks in the thread of the connection.
    """
    # awaited: sqlalchemy
    source = _async_source(engine, checked(grant), options)
    try:
        async with AsyncEngine(source.engine()).connect() as connection:
            yield connection
            await connection.commit()
    finally:
        source.over = True
    # end: sqlalchemy


@overload
def guarded_engine(engine: Engine, grant: Granting, **options: Any) -> Engine: ...


@overload
def guarded_engine(engine: AsyncEngine, grant: Granting, **options: Any) -> AsyncEngine: ...


def guarded_engine(
    engine: Engine | AsyncEngine,
    grant: Granting,
    **options: Any,
) -> Engine | AsyncEngine:
    """An engine for code that makes its own connections: all of them are guarded.

    `grant` is a Grant, or a function that returns one. The function is called for each transaction,
    at its first statement: `lambda: current.grant(Grant)`. Its exceptions pass through. `options`
    are those of `guarded`.
    """
    if isinstance(engine, AsyncEngine):
        return AsyncEngine(_async_source(engine, grant, options).engine())
    return _source(engine, grant, options).engine()


def rows(grant: Grant, model: Any) -> ColumnElement[bool]:
    """A condition for your own query, so that it finds only rows that the token permits.

        select(Order).where(rows(grant, Order))

    `model` is a mapped class, an alias of one, or a table. A token knows it by its name, with the
    schema in front if it has one. State the condition as `Access(…, rows=grant.rows(name))`.

    Raises Denied with the code `row` if SQL cannot express a constraint, and what `grant.rows`
    raises. When the query is compiled, it raises GuardError with the code `row` for a column whose
    type cannot be compared exactly.
    """
    return held_rows(checked(grant), model)


def _source(engine: Any, grant: Granting, options: dict[str, Any]) -> Source:
    """The engine of a block. Raises TypeError for an argument that is no synchronous engine."""
    if not isinstance(engine, Engine) or engine.dialect.is_async:
        raise TypeError(f"expected an Engine that is not async, not {type(engine).__name__}")
    return Source(engine, grant, options)


def _async_source(engine: Any, grant: Granting, options: dict[str, Any]) -> Source:
    """The engine of a block. Raises TypeError for an argument that is no AsyncEngine."""
    if not isinstance(engine, AsyncEngine):
        raise TypeError(f"expected an AsyncEngine, not {type(engine).__name__}")
    return Source(engine.sync_engine, grant, options)
