"""The dialects of guarded engines: SQLAlchemy's own, without what goes round a guard.

Here are enforced rules 4 to 6 of `captoken.adapters.sqlalchemy`.

A dialect compiles statements, and asks a database at start-up what it is. Ours asks nothing: it has
the state of the dialect of the engine that is guarded, which has asked on a bare connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from decimal import Decimal
from functools import partial
from typing import Any, NoReturn

from sqlalchemy import Dialect, Engine, event, types
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.base import SQLiteExecutionContext
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.engine.reflection import Inspector
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.util.concurrency import in_greenlet

from captoken._format.errors import CaptokenError, GuardError
from captoken._verification.mistakes import mistake

# What of the state of another dialect is not taken over.
_NOT_TAKEN = frozenset((
    # Its event handlers.
    "_has_events",
    "dispatch",
    # What refers to it, and what was derived from what is different here.
    "_type_memos",
    "identifier_preparer",
    "paramstyle",
    "positional",
    "type_compiler",
    "type_compiler_instance",
    # What the guard does in its own way.
    "_backslash_escapes",
    "default_schema_name",
    "server_side_cursors",
    "skip_autocommit_rollback",
))  # fmt: skip

# What can be stated of the transactions of a connection, or of an engine.
TRANSACTIONAL = frozenset(PGDialect_psycopg.connection_characteristics) - {"logging_token"}

# What SQLAlchemy says of `:word` in a text, if nothing is given for it.
_MISSED = "A value is required for bind parameter"

# Digits after the point, where a column states none: SQLAlchemy's own number.
_PLACES = 10


class _NoInspector(Inspector):
    """Rule 5. Reflection reads catalogs, which no grant permits."""

    def __new__(cls, *args: Any, **keywords: Any) -> NoReturn:
        raise GuardError(
            "a guarded engine cannot reflect, since catalogs are never granted: reflect with the "
            "engine that you made it from, and use the tables here"
        )


def _refusing(why: str) -> Callable[..., NoReturn]:
    """What stands in the place of a method of the dialect's, and refuses."""

    def refuse(*args: Any, **keywords: Any) -> NoReturn:
        raise GuardError(why)

    return refuse


_OF_THE_GUARD = "the guard chooses how its transactions begin: do not ask for another kind"
_TWO_PHASES = "a guarded connection has no two-phase transactions"


class Guarded(DefaultDialect):
    """What all of them have in common. It stands before a dialect of SQLAlchemy's.

    What it overrides is what would reach below the guard, or would ask the database something. All
    else that a dialect does ends in statements, which the guard sees.
    """

    inspector: Any = _NoInspector

    # Rows are fetched before they are handed out. So what asks for a cursor of the server's gets
    # them as well, one after the other.
    supports_server_side_cursors = False
    server_side_cursors = False

    # `do_terminate` is there: without it, async connections that are detached are never closed.
    has_terminate = True

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        event.listen(self, "handle_error", _unwrapped)

    def adopt(self, bare: Dialect) -> None:
        """Rule 4. Take over what a dialect was made with, and what it has found out.

        In one step: another thread may compile a statement meanwhile.
        """
        taken = {
            name: value
            for name, value in vars(bare).items()
            if name not in _NOT_TAKEN
        }  # fmt: skip
        taken["is_async"] = bare.is_async
        vars(self).update(taken)

    def get_driver_connection(self, connection: Any) -> Any:
        """What `driver_connection` is: nothing that is below the guard."""
        return connection

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        """Whether a connection is lost for good, by what it says itself."""
        return connection is not None and bool(connection.closed)

    def do_terminate(self, dbapi_connection: Any) -> None:
        """Close a connection whose statement was canceled, or that nobody closed.

        In async code, the latter is where nobody can wait for a rollback.
        """
        if self.is_async and not in_greenlet():
            dbapi_connection.drop()
        else:
            dbapi_connection.close()

    def set_engine_execution_options(self, engine: Engine, opts: Mapping[str, Any]) -> None:
        """Rule 5, for all connections of an engine to come."""
        if not TRANSACTIONAL.isdisjoint(opts):
            raise GuardError(_OF_THE_GUARD)
        super().set_engine_execution_options(engine, opts)

    # Rule 5. What would open another connection, or change how a transaction goes.
    connect: Any = _refusing("a guarded engine opens no connection by itself")
    set_isolation_level: Any = _refusing(_OF_THE_GUARD)
    get_isolation_level: Any = _refusing(_OF_THE_GUARD)
    reset_isolation_level: Any = _refusing(_OF_THE_GUARD)
    set_readonly: Any = _refusing(_OF_THE_GUARD)
    get_readonly: Any = _refusing(_OF_THE_GUARD)
    set_deferrable: Any = _refusing(_OF_THE_GUARD)
    get_deferrable: Any = _refusing(_OF_THE_GUARD)
    do_savepoint: Any = _refusing("a guarded connection has no savepoints, and no begin_nested")
    do_begin_twophase: Any = _refusing(_TWO_PHASES)
    do_recover_twophase: Any = _refusing(_TWO_PHASES)


def _unwrapped(context: Any) -> Exception | None:
    """What SQLAlchemy raises of an error: one of the guard's as it is, and not in one of its own.

    It wraps what is raised before a statement runs, by a default of a column that asks the database
    something, and quotes statement and parameters with it. None leaves it at what it does.
    """
    error: Exception = context.original_exception
    if context.sqlalchemy_exception is None:
        return None
    if isinstance(error, InvalidRequestError) and _MISSED in str(error):
        return mistake("parameters")
    if not isinstance(error, CaptokenError):
        return None

    # It is raised "from" the original: one that is its own cause would have no end.
    return copy(error)


class _SQLiteContext(SQLiteExecutionContext):
    """What SQLAlchemy keeps of one statement that runs."""

    def get_lastrowid(self) -> Any:
        """The key that the database has made for a row."""
        cursor: Any = self.cursor
        return cursor.last_key()


class GuardedSQLite(Guarded, SQLiteDialect_pysqlite):
    """For `sqlite3`, and for aiosqlite. Parameters are `?`, as SQLAlchemy has them anyhow."""

    supports_statement_cache = True
    default_schema_name = "main"
    execution_ctx_cls = _SQLiteContext

    def __init__(self, bare: Dialect) -> None:
        super().__init__(dbapi=bare.dbapi)
        self.adopt(bare)


class _Number:
    """A type of numbers, whose values come as psycopg reads them."""

    def bind_processor(self, dialect: Any) -> None:
        """psycopg takes any number as it is."""
        return None

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        """What a number is turned into.

        SQLAlchemy's own goes by the type that the database tells of a column (`coltype`). A guard
        tells none, and the value itself says as much.
        """
        return partial(_as_declared, self)


class _Numeric(_Number, types.Numeric[Any]):
    """Numbers that are exact."""


class _Float(_Number, types.Float[Any]):
    """Numbers that are not."""


def _as_declared(kind: Any, value: Any) -> Any:
    """A number as its column is declared in Python: a Decimal, or a float.

    A column that is declared exact, over one of the database that is not, gets as many places as
    SQLAlchemy gives it.
    """
    if value is None:
        return None
    if not kind.asdecimal:
        return float(value)
    if not isinstance(value, float):
        return value

    stated = (kind.decimal_return_scale, kind.scale, _PLACES)
    places = next(number for number in stated if number is not None)
    return Decimal(f"{value:.{places}f}")


class GuardedPostgres(Guarded, PGDialect_psycopg):
    """For psycopg, with either kind of connection."""

    supports_statement_cache = True

    # The guard fixes both for its transactions, whatever the settings of login and server.
    _backslash_escapes = False
    default_schema_name = "public"

    colspecs = {  # noqa: RUF012, as SQLAlchemy declares it
        **PGDialect_psycopg.colspecs,
        types.Numeric: _Numeric,
        types.Float: _Float,
    }

    def __init__(self, bare: Dialect) -> None:
        # Rule 6. As PostgreSQL itself spells parameters, and not as psycopg does.
        super().__init__(
            dbapi=bare.dbapi,
            paramstyle="numeric_dollar",
        )
        self.adopt(bare)
