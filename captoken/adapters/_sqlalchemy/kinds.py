"""The kinds of engine that can be guarded: of each its dialect, its guard, how a block begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Engine
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg, PGDialectAsync_psycopg
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from captoken._format.errors import GuardError
from captoken._verification.grant import Grant
from captoken.adapters import sqlite
from captoken.adapters._sqlalchemy.blocks import Awaited, Block, Here, Queued
from captoken.adapters._sqlalchemy.dialects import Guarded, GuardedPostgres, GuardedSQLite

_Options = Mapping[str, Any]


class Kind(NamedTuple):
    """One kind of engine. What is taken is a connection of its pool."""

    # Makes the dialect of guarded engines, of that of an owner's.
    dialect: Callable[[Any], Guarded]

    # `guarded` of the database's own adapter. Its keywords are the options.
    guard: Callable[..., Any]

    # Begins a block on what was taken, for a grant and with options.
    begin: Callable[[Any, Grant, _Options], Block]

    # Is the connection of the database closed?
    is_lost: Callable[[Any], bool]


def kind_of(engine: Engine) -> Kind:
    """The kind of an engine, by the very class of its dialect.

    One that is derived may put in a statement of its own. Raises GuardError for any other.
    """
    dialect = engine.dialect
    made = _KINDS.get(type(dialect))
    if made is None:
        raise GuardError(
            "captoken can guard sqlite+pysqlite, sqlite+aiosqlite and postgresql+psycopg, not "
            f"{dialect.name}+{dialect.driver} by {type(dialect).__name__}"
        )
    return made()


def _here(guard: Callable[..., Any]) -> Callable[[Any, Grant, _Options], Block]:
    """How a block of that guard begins in the thread that asks."""

    def begin(taken: Any, grant: Grant, options: _Options) -> Block:
        return Here(partial(guard, taken.driver_connection, grant, **options)).begin()

    return begin


def _sqlite() -> Kind:
    """`sqlite+pysqlite`: sqlite3, in the thread that asks."""
    return Kind(
        dialect=GuardedSQLite,
        guard=sqlite.guarded,
        begin=_here(sqlite.guarded),
        is_lost=_never,
    )


def _aiosqlite() -> Kind:
    """`sqlite+aiosqlite`: sqlite3, in the thread of aiosqlite's connection."""

    def begin(taken: Any, grant: Grant, options: _Options) -> Block:
        driver = taken.driver_connection
        # The connection of sqlite3. It is used in that thread alone.
        opening = partial(sqlite.guarded, driver._conn, grant, **options)
        return Queued(opening, taken.dbapi_connection.run_async, driver)

    return Kind(
        dialect=GuardedSQLite,
        guard=sqlite.guarded,
        begin=begin,
        is_lost=_never,
    )


def _psycopg() -> Kind:
    """`postgresql+psycopg`, with an Engine."""
    # Here, so that whoever guards SQLite needs no psycopg.
    from captoken.adapters import postgres

    return Kind(
        dialect=GuardedPostgres,
        guard=postgres.guarded,
        begin=_here(postgres.guarded),
        is_lost=_is_closed,
    )


def _async_psycopg() -> Kind:
    """`postgresql+psycopg`, with an AsyncEngine."""
    from captoken.adapters import postgres

    def begin(taken: Any, grant: Grant, options: _Options) -> Block:
        opening = partial(postgres.guarded_async, taken.driver_connection, grant, **options)
        return Awaited(opening, taken.dbapi_connection.run_async)

    return Kind(
        dialect=GuardedPostgres,
        guard=postgres.guarded_async,
        begin=begin,
        is_lost=_is_closed,
    )


def _never(taken: Any) -> bool:
    """The guard of SQLite closes no connection."""
    return False


def _is_closed(taken: Any) -> bool:
    """The guard of PostgreSQL closes one that it cannot rely on any more."""
    return bool(taken.driver_connection.closed)


_KINDS: dict[type[Any], Callable[[], Kind]] = {
    SQLiteDialect_pysqlite: _sqlite,
    SQLiteDialect_aiosqlite: _aiosqlite,
    PGDialect_psycopg: _psycopg,
    PGDialectAsync_psycopg: _async_psycopg,
}
