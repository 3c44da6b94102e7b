"""Guard an engine of SQLAlchemy: what runs on it runs in the guard of its database.

    with guarded(engine, grant) as connection:
        rows = connection.execute(text("select region, sum(amount) from sales group by region"))

    with guarded(engine, grant) as connection, Session(connection) as session:
        sales = session.scalars(select(Sale)).all()

    agent = TextToSQL(guarded_engine(engine, lambda: current.grant(Grant)))

Engines of `sqlite+pysqlite`, `sqlite+aiosqlite` and `postgresql+psycopg`, for Core and ORM. What a
statement needs, and who is asked, is said in `captoken.adapters.sqlite` and
`captoken.adapters.postgres`: there is no second reader here. What this adds are rules of how
SQLAlchemy gets to a database. The code cites them.

 1. SQLAlchemy is given no connection of the database's, but one of ours. That knows statements,
    commit, rollback and close. What else is asked of it is refused: what it does not know, too.
 2. A text is handed to the guard as it would have been to the driver, with its parameters beside
    it: compiled, written by hand, or changed by the handler of an event.
 3. A transaction is a guarded block. Its first statement begins it, with the grant of that moment.
    To commit is to end it, so that the grant is asked about what was written.
 4. What a dialect asks at start-up, it asks on the owner's engine, with nobody's text. So do pool
    and events of that engine. A guarded one takes over what was found.
 5. Savepoints, isolation levels, two-phase transactions and reflection are refused with GuardError.
 6. Parameters are spelled by the compiler of SQLAlchemy as the guard takes them: `?` or `$1`.

`rows` is for queries of your own, which no guard looks at: they hold the rows that a token permits.

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
from captoken.adapters._sqlalchemy.engines import Granting, Source
from captoken.adapters._sqlalchemy.rows import held_rows

__all__ = ["guarded", "guarded_async", "guarded_engine", "rows"]


@contextmanager
def guarded(engine: Engine, grant: Grant, **options: Any) -> Generator[Connection, None, None]:
    """A connection of SQLAlchemy's on which only runs what the grant covers.

    What is open at the end of the block is committed, and rolled back when an exception leaves it.
    Within, `commit` and `rollback` end a transaction, and the next statement begins another. Each
    is a guarded block, with one connection of the engine's pool for all of them.

    `options` are those of the guard of the engine's database: `caller`, `max_rows`, `cost` and so
    on. TypeError for one that it does not have.

    Raises GuardError for an engine of another kind, and what the guard raises. A Denied is raised
    as it is, and so is a StatementError. Other errors of the database are SQLAlchemy's.
    """
    # called: sqlalchemy, by `python -m tests.called`
    source = _source(engine, _checked(grant), options)
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
    """`guarded`, for an AsyncEngine.

    With PostgreSQL the grant is asked in the event loop: its stores are to be quick. With SQLite it
    is asked in the thread of the connection.
    """
    # awaited: sqlalchemy
    source = _async_source(engine, _checked(grant), options)
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
    """An engine to hand to what makes connections by itself: all of them are guarded.

    `grant` is a Grant, or a function that gives one and is called for each transaction, at its
    first statement: `lambda: current.grant(Grant)`. What it raises passes through. `options` are
    as of `guarded`.
    """
    if isinstance(engine, AsyncEngine):
        return AsyncEngine(_async_source(engine, grant, options).engine())
    return _source(engine, grant, options).engine()


def rows(grant: Grant, model: Any) -> ColumnElement[bool]:
    """The condition that a query of your own holds, so that it finds what the token permits.

        select(Order).where(rows(grant, Order))

    `model`: a mapped class, an alias of one, or a table. A token calls it by its name, behind that
    of its schema if it has one. State what was held as `Access(…, rows=grant.rows(name))`.

    Raises Denied, code `row`, for constraints that no condition in SQL says, and as `grant.rows`.
    Once it is compiled, GuardError, code `row`, for a column whose type is not compared exactly.
    """
    return held_rows(_checked(grant), model)


def _source(engine: Any, grant: Granting, options: dict[str, Any]) -> Source:
    """Raises TypeError for what is no engine, or an async one."""
    if not isinstance(engine, Engine) or engine.dialect.is_async:
        raise TypeError(f"an Engine is needed that is not async, not {type(engine).__name__}")
    return Source(engine, grant, options)


def _async_source(engine: Any, grant: Granting, options: dict[str, Any]) -> Source:
    """Raises TypeError for what is no AsyncEngine."""
    if not isinstance(engine, AsyncEngine):
        raise TypeError(f"an AsyncEngine is needed, not {type(engine).__name__}")
    return Source(engine.sync_engine, grant, options)


def _checked(grant: Any) -> Grant:
    """A block has one grant. Raises TypeError for a function that gives one, too."""
    if not isinstance(grant, Grant):
        raise TypeError(
            f"a {type(grant).__name__} is no Grant: only a verifier hands one out, as "
            "verifier.authenticate(token)"
        )
    return grant
