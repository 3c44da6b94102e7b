"""Every store in a PostgreSQL database: for servers on many machines.

Spec, "Replay", "Ledger", "Overlay". `create_tables` creates the tables and functions once. A call
is one function: one transaction, one round trip. `_postgres_sql` has the functions.

The counting stores exist twice: on one connection that threads use in turn, and, with `Async` in
front of the name, on several connections that are awaited. Statements, values and the handling of
answers are written once for both.
"""

from __future__ import annotations

import asyncio
import re
from asyncio import Semaphore
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import ceil
from threading import Lock
from time import monotonic, time
from typing import (
    Any,
    ClassVar,
    Generic,
    LiteralString,
    NamedTuple,
    NoReturn,
    Protocol,
    Self,
    TypeAlias,
    TypedDict,
    TypeVar,
    Unpack,
)

from captoken._format.extras import extra

with extra("postgres"):
    import psycopg
    from psycopg import sql
    from psycopg.pq import ConnStatus, TransactionStatus
    from psycopg.rows import tuple_row

from captoken._format.clocks import CLOCKS_DIFFER, PROOF_AHEAD
from captoken._format.errors import StoreError
from captoken._format.spelling import shown
from captoken.stores._awaited import AwaitedStore
from captoken.stores._postgres_sql import SCHEMA, SETUP, granted_as, qualified
from captoken.stores._postgres_wire import in_time, steps
from captoken.stores._rules import (
    TIMEOUT,
    LateError,
    Making,
    checked_timeout,
    consent_too_old,
    late,
    making,
    missing,
    not_an_answer,
    numbered_marks,
    there_already,
    too_old,
    what_was_taken,
)
from captoken.stores._schema import VERSIONS, Schema, Upgrade, none_there, upgrade_of
from captoken.stores._shells import AsyncLedgerShell, AsyncProofShell, Call, LedgerShell, ProofShell
from captoken.stores.own_process import tell_of_forks
from captoken.stores.ports import MarkedStep, Reservation, Spend, Use

Connection: TypeAlias = "psycopg.Connection[Any]"
Cursor: TypeAlias = "psycopg.Cursor[tuple[Any, ...]]"
Source: TypeAlias = "str | Callable[[], Connection]"
AsyncConnection: TypeAlias = "psycopg.AsyncConnection[Any]"
AsyncSource: TypeAlias = "str | Callable[[], Awaitable[AsyncConnection]] | AsyncPool"

_S = TypeVar("_S")  # where a store has its connections from

_SERVER = "PostgreSQL"
_CONNECTIONS = 4  # of one awaited store, unless its maker says otherwise

# What to look at, by what the server says.
_UNMADE = "create_tables makes what is missing"
_NO_RIGHT = "42501"
_HINTS = {
    "3F000": _UNMADE,  # no such schema
    "42P01": _UNMADE,  # no such table
    "42883": _UNMADE,  # no such function
    "42703": "its tables are of another release: run create_tables",  # no such column
    "CT004": "its tables are of another version: run captoken upgrade",
    _NO_RIGHT: "its login lacks a right on the schema or its tables",
    "53300": "the server has no connection left",
    "55P03": "another call holds what this one waits for",
}
_MOVED = "PostgreSQL: the server was started, or is another one, while it was asked: try again"
_AWAY = "the server cannot be reached, or has hung up"
_NONE_LEFT = "the pool has no connection left, or is closed"


# --- tables and functions -------------------------------------------------------------------------

# The turn of whoever makes them: two servers that start at once would both find nothing there.
_TURN = qualified("select pg_advisory_xact_lock(hashtext('captoken'))").encode()


class TableGroup(NamedTuple):
    """Tables that are made together, and have one version."""

    version: Schema

    # The tables are there if this one is.
    one: str

    # Gives the statements that make them in a schema. Again, they change nothing.
    statements: Callable[[str], str]


def in_schema(text: str, schema: str) -> str:
    """Statements on the schema `captoken`, on another one. `schema` was checked."""

    def renamed(found: re.Match[str]) -> str:
        return found[0].replace("captoken", schema)

    # Only where it is the name of the schema. Elsewhere the word is part of a message.
    return re.sub(r"\bcaptoken\.|(?<=exists )captoken\b", renamed, text)


# The tables of the stores. Those of the registry come after them (`WITH_REGISTRY`).
STORES = TableGroup(SCHEMA, "floors", partial(in_schema, SETUP))


def setup(schema: str = "captoken", *, tables: Sequence[TableGroup] = (STORES,)) -> str:
    """The statements that make tables and functions, for whoever may run them.

    Again, they change nothing. Raises ValueError for a schema that would need quotes: its name
    stands in the statements as it is.
    """
    if (
        type(schema) is not str
        or not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema)
        or schema.startswith("pg_")
    ):
        raise ValueError(
            f"a schema's name may only have lower-case letters, digits and _, not {shown(schema)}"
        )

    return "\n".join(group.statements(schema) for group in tables)


def create_tables(
    connection: Connection,
    *,
    schema: str = "captoken",
    tables: Sequence[TableGroup] = (STORES,),
) -> None:
    """Make the tables and functions that are not there, in one transaction. Raises StoreError.

    For a registry, `tables` is `captoken.issuance.registry.postgres.WITH_REGISTRY`. Again, it
    changes nothing. Tables of an earlier version are refused: `upgrade_tables` brings them on. A
    store needs usage of the schema, and select, insert, update and delete on its tables. Nothing
    else is to write there.
    """
    text = setup(schema, tables=tables)
    with _turn_of(connection) as cursor:
        for group, found in _found(cursor, schema, tables):
            group.version.check(_SERVER, found, _command(schema))
        cursor.execute(text.encode())


def upgrade_tables(
    connection: Connection,
    *,
    schema: str = "captoken",
    tables: Sequence[TableGroup] = (STORES,),
    apply: bool = False,
) -> list[Upgrade]:
    """What brings the tables to the version of this code; with `apply`, it is done.

    Of `tables`, those that are there (see `create_tables`). In one transaction, by the rights of
    their owner. Whoever may read them may read what is new. Raises StoreError.
    """
    setup(schema)
    where = f"{_SERVER}, schema {schema}"
    with _turn_of(connection) as cursor:
        there = _found(cursor, schema, tables)
        if not there:
            raise none_there(where)
        found = [upgrade_of(group.version, where, version) for group, version in there]
        if apply and any(one.does for one in found):
            _bring_on(cursor, schema, [group for group, _ in there], found)
    return found


def _bring_on(
    cursor: Cursor,
    schema: str,
    there: Sequence[TableGroup],
    found: Sequence[Upgrade],
) -> None:
    """Do what is to be done. Where somebody works for longer, it is an error, and nothing is."""
    cursor.execute(b"set local lock_timeout = '5s'")
    # What is new has the owner of the rest, whoever runs this.
    cursor.execute(_owner(schema))
    for (owner,) in cursor.fetchall():
        cursor.execute(sql.SQL("set local role {}").format(sql.Identifier(owner)))

    versions = sql.Identifier(schema, VERSIONS)
    cursor.execute(sql.SQL(_MAKE_VERSIONS).format(versions))
    cursor.execute(in_schema(granted_as(VERSIONS, STORES.one, "SELECT"), schema).encode())
    for tables, one in zip(there, found, strict=True):
        cursor.execute(sql.SQL(_SAY_VERSION).format(versions), (one.store, one.version))
        for step in tables.version.missing_steps(_SERVER, one.found):
            for statement in step.statements:
                cursor.execute(in_schema(statement, schema).encode())
    cursor.execute(setup(schema, tables=there).encode())


_MAKE_VERSIONS: LiteralString = """
    create table if not exists {} (store pg_catalog.text primary key, version integer not null)
"""
_SAY_VERSION: LiteralString = """
    insert into {} values (%s, %s) on conflict (store) do update set version = excluded.version
"""


def _owner(schema: str) -> bytes:
    """What gives the owner of the stores' tables."""
    of_floors = """
        select pg_get_userbyid(c.relowner) from pg_catalog.pg_class c
        where c.oid == 'captoken.floors'::regclass
    """
    return in_schema(qualified(of_floors), schema).encode()


def _found(
    cursor: Cursor, schema: str, several: Sequence[TableGroup]
) -> list[tuple[TableGroup, int | None]]:
    """Those that are there, with the version that they say; None if they say none."""
    is_there = qualified("select to_regclass(%s) is not null")
    said: dict[str, int] = {}
    cursor.execute(is_there.encode(), (f"{schema}.{VERSIONS}",))
    if cursor.fetchall() == [(True,)]:
        versions = sql.Identifier(schema, VERSIONS)
        cursor.execute(sql.SQL("select store, version from {}").format(versions))
        said = dict(cursor.fetchall())

    there: list[tuple[TableGroup, int | None]] = []
    for tables in several:
        cursor.execute(is_there.encode(), (f"{schema}.{tables.one}",))
        if cursor.fetchall() == [(True,)]:
            there.append((tables, said.get(tables.version.store)))
    return there


@contextmanager
def _turn_of(connection: Connection) -> Generator[Cursor]:
    """A transaction of whoever makes tables, one after the other. Raises StoreError."""
    try:
        with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
            cursor.execute(_TURN)
            yield cursor
        return
    except psycopg.Error as error:
        failed = _words(error)
        if error.sqlstate == _NO_RIGHT:
            failed += ": the owner of the tables may do this"

    # Out of the block, so that the database's own error is not shown along with it.
    raise StoreError(failed)


def _command(schema: str) -> str:
    """What `captoken upgrade` is given for a schema. Where the server is, its user knows."""
    return f"--dsn DSN --schema {schema}"


# --- the connection -------------------------------------------------------------------------------


class MovedError(StoreError):
    """The server was started, or is another one, since the store asked it last: it has to look."""


class UnmadeError(StoreError):
    """A table or a function is not there."""


class _Answer(NamedTuple):
    """What came of a question: the value, or in words why there is none."""

    value: Any = None
    failed: str | None = None

    # Did the connection break, so that it may have been done or not?
    is_lost: bool = False


# Asked of every server that a store is made on: does it wait for the disk, does it say what a text
# is, and which versions have the tables?
_OPENING: LiteralString = """
    select array[
        case when current_setting('fsync') == 'on' then 1 else 0 end,
        case when current_setting('client_encoding') <> 'SQL_ASCII' then 1 else 0 end
    ] || array(
        select said.version from unnest(%s::text[]) with ordinality as its (store, at)
        left join {} said on said.store == its.store order by its.at
    )
"""


class _Place:
    """Where a store has its connections from, and its schema. Raises ValueError for an odd one."""

    # The tables that the store needs.
    _tables: ClassVar[tuple[TableGroup, ...]] = (STORES,)

    def __init__(self, source: Any, schema: str, timeout: float) -> None:
        setup(schema)
        self._source = source
        self._schema = schema
        self._timeout = checked_timeout(timeout)

    def _first_question(self) -> tuple[bytes, tuple[str]]:
        """What is asked first, of the server and of the versions."""
        stores = _array([_quoted(tables.version.store) for tables in self._tables])
        return self._statement(_OPENING, VERSIONS), (stores,)

    def _unsaid(self, answer: Any) -> list[TableGroup]:
        """Judge what that gives: the tables that say no version. Raises StoreError."""
        if type(answer) is not list or len(answer) != 2 + len(self._tables):
            raise not_an_answer(_SERVER, answer)
        is_synced, is_encoded, *versions = answer
        _refuse_unfit(is_synced, is_encoded)
        unsaid: list[TableGroup] = []
        for tables, version in zip(self._tables, versions, strict=True):
            if version is None:
                unsaid.append(tables)
            else:
                tables.version.check(_SERVER, version, _command(self._schema))
        return unsaid

    def _lying(self, unsaid: Sequence[TableGroup]) -> tuple[bytes, tuple[str]]:
        """What is asked of tables that say no version: is any there?"""
        names = _array([_quoted(f"{self._schema}.{tables.one}") for tables in unsaid])
        is_there = "select bool_or(to_regclass(name) is not null) from unnest(%s::text[]) name"
        return numbered_parameters(qualified(is_there)).encode(), (names,)

    def _refuse(self, unsaid: Sequence[TableGroup], is_there: Any) -> NoReturn:
        """Raise StoreError for them: an earlier version made them, or nobody."""
        if is_there is True:
            unsaid[-1].version.check(_SERVER, None, _command(self._schema))
        raise UnmadeError(f"{_SERVER}: {_UNMADE}")

    def _until(self) -> float:
        """By when a call that begins now has its answer, or is an error."""
        return monotonic() + self._timeout

    def _late(self) -> str:
        """What is said of one that has none."""
        return str(late(_SERVER, self._timeout))

    def _function(self, name: str, parameters: LiteralString) -> bytes:
        """A call of one of the functions. The types of its parameters are said, and not guessed."""
        return self._statement("select {}(" + parameters + ")", name)

    def _statement(self, text: LiteralString, name: str) -> bytes:
        """A statement on one of the tables or functions, composed once and not at each call."""
        composed = sql.SQL(text).format(sql.Identifier(self._schema, name)).as_string(None)
        return numbered_parameters(qualified(composed)).encode()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._schema}>"


def numbered_parameters(statement: str) -> str:
    """A statement whose values go by numbers, as the server counts them."""
    first, *rest = statement.split("%s")
    return first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))


def _refuse_unfit(is_synced: Any, is_encoded: Any) -> None:
    """Raise StoreError for a server that a crash sets back, and for texts that nobody can read."""
    if is_synced != 1:
        raise StoreError(
            "PostgreSQL: with fsync off, a crash loses the last writes, or the tables: set fsync = "
            "on"
        )
    if is_encoded != 1:
        raise StoreError(
            "PostgreSQL: the encoding SQL_ASCII does not define what a text is: use a database in "
            "UTF8, or write client_encoding=utf8 in the conninfo"
        )


class PostgresStore(_Place):
    """What the stores have in common that are called: one connection, which threads take in turn.

    `source` is a conninfo string, or a callable that returns a connection of the store's own. A
    connection that is found broken before anything was sent is made anew. If it breaks later, the
    call raises StoreError, since what was sent may have been done; only what can be repeated
    without harm is. A call has its answer within `timeout` seconds, its turn and a new connection
    included, or raises StoreError. A callable has to keep a time of its own.
    """

    def __init__(self, source: Source, schema: str, timeout: float = TIMEOUT) -> None:
        super().__init__(source, schema, timeout)
        # Held from the question to its answer: threads take turns, and whoever works for a call
        # that nobody waits for any more keeps the connection until it is done.
        self._lock = Lock()
        self._connection: Connection | None = None

        # In a forked child: those of its parents, which are kept and never used.
        self._abandoned: list[Connection] = []
        tell_of_forks(self, in_child=PostgresStore._after_fork)

        with self._kept():
            self._check_server()

    # called: postgres.versions, by `python -m tests.called`
    def _check_server(self) -> None:
        """Refuse a server that forgets, and tables of another version. Raises StoreError."""
        try:
            unsaid = self._unsaid(self._ask(*self._first_question(), again=True))
        except UnmadeError:
            unsaid = [*self._tables]
        if unsaid:
            self._refuse(unsaid, self._ask(*self._lying(unsaid), again=True))

    # end: postgres.versions

    def close(self) -> None:
        """Close the connection. The store makes another one when it is asked."""
        with self._lock:
            self._drop()

    @contextmanager
    def _kept(self) -> Generator[None]:
        """The connection, unless the store is not made after all."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    # called: postgres.ask, by `python -m tests.called`
    def _ask(
        self, statement: bytes, values: Sequence[Any] = (), again: bool = False
    ) -> Any:
        """The one value that the statement gives; None if it gives no row. Raises StoreError.

        `again`: it may be run twice without harm, and is if the connection breaks meanwhile.
        """
        until = self._until()
        answer = self._ask_once(statement, values, until)
        if answer.is_lost and again:
            answer = self._ask_once(statement, values, until)
        return _value_of(answer)

    # end: postgres.ask

    def _ask_once(self, statement: bytes, values: Sequence[Any], until: float) -> _Answer:
        """One question, and what came of it. Raises StoreError where there is no connection.

        In autocommit, one statement is one transaction: it is done, or nothing of it is.
        """
        with self._turn(until):
            try:
                connection = self._open(until)
                asking = in_time(steps(connection, statement, values), until)
                return _Answer(connection.wait(asking))

            # The guard's own, of `_open`.
            except StoreError:
                raise

            # The answer may come yet, and would be taken for that of the next call.
            except LateError:
                self._drop()
                return _Answer(failed=self._late())

            except Exception as error:
                failed = _words(error)
                is_lost = self._connection is not None and self._connection.closed
                if is_lost:
                    self._drop()
                return _Answer(failed=failed, is_lost=is_lost)

            # An interrupt between question and answer: the next one would read this answer.
            except BaseException:
                self._drop()
                raise

    @contextmanager
    def _turn(self, until: float) -> Generator[None]:
        """The connection, for one call. Raises StoreError if others have it for as long."""
        lock = self._lock
        if not lock.acquire(timeout=max(until - monotonic(), 0)):
            raise StoreError(
                f"PostgreSQL: other calls used the connection for {self._timeout:g} seconds: "
                "nothing was sent"
            )
        try:
            yield
        finally:
            lock.release()

    def _connected(self, until: float) -> Connection:
        """A new connection."""
        if not isinstance(self._source, str):
            made: Connection = self._source()
            return made
        return psycopg.connect(self._source, connect_timeout=ceil(max(until - monotonic(), 1)))

    def _open(self, until: float) -> Connection:
        """The connection, if it is as it was left; else a new one."""
        if self._connection is not None and not _is_whole(self._connection):
            self._drop()
        if self._connection is None:
            connection = self._connected(until)
            # An AsyncConnection, say, which answers with coroutines.
            if not isinstance(connection, psycopg.Connection):
                raise StoreError(
                    f"PostgreSQL: expected a connection of psycopg, not {type(connection).__name__}"
                )
            self._connection = connection
            connection.autocommit = True
        return self._connection

    def _drop(self) -> None:
        """Close the connection. Whoever calls holds the lock."""
        connection = self._connection
        self._connection = None
        if connection is not None:
            connection.close()

    def _after_fork(self) -> None:
        """In the child: the connection is the parent's.

        It is kept, and never touched, since closing it would harm there. The lock may be held by
        a thread that the child does not have.
        """
        self._lock = Lock()
        if self._connection is not None:
            self._abandoned.append(self._connection)
            self._connection = None


def _value_of(answer: _Answer) -> Any:
    """The value, if there is one. Raises StoreError."""
    if answer.failed is None:
        return answer.value
    if answer.failed == _MOVED:
        raise MovedError(_MOVED)
    raise UnmadeError(answer.failed) if _UNMADE in answer.failed else StoreError(answer.failed)


def _is_whole(connection: Connection | AsyncConnection) -> bool:
    """Is it open, idle, and not given up by the server?

    Reads what has arrived; waits for nothing.
    """
    try:
        if connection.closed:
            return False
        for _ in range(2):  # a last message, and then the end
            connection.pgconn.consume_input()
        is_idle = connection.info.transaction_status == TransactionStatus.IDLE
        return is_idle and connection.pgconn.status == ConnStatus.OK
    except psycopg.Error:
        return False


def _words(error: Exception) -> str:
    """What is wrong, without what a connection string or a row says."""
    state = getattr(error, "sqlstate", None) or ""
    # The functions raise this themselves: at another level, one of them would not see what others
    # have committed since.
    if state == "P0001" and "read committed" in str(error):
        return "PostgreSQL: default_transaction_isolation must be read committed for this login"

    if state == "CT002":
        return str(missing(_SERVER))
    if state == "CT003":
        return _MOVED

    words = f"PostgreSQL: {type(error).__name__}"
    if state:
        words += f" {state}"
    hint = _HINTS.get(state)
    if isinstance(error, psycopg.OperationalError) and not state:
        # An error of a pool derives from it, too, and nobody asked the server.
        hint = _NONE_LEFT if type(error).__module__.startswith("psycopg_pool") else _AWAY
    return words if hint is None else f"{words}: {hint}"


def _yes(answer: Any) -> bool:
    """A yes or a no of a function. Raises StoreError for what is neither: that allows nothing."""
    if type(answer) is not bool:
        raise not_an_answer(_SERVER, answer)
    return answer


# --- connections that are awaited -----------------------------------------------------------------


class AsyncPool(Protocol):
    """A pool of connections in autocommit, as `psycopg_pool.AsyncConnectionPool` is one."""

    async def getconn(self) -> AsyncConnection:
        """A connection, for whoever asks alone."""
        ...

    async def putconn(self, conn: AsyncConnection) -> None:
        """Take it back. One that is closed is dropped."""
        ...


class _Own:
    """Connections of the store's own, so many at most. Each serves one call until that is done."""

    def __init__(self, connect: Callable[[], Awaitable[AsyncConnection]], most: int) -> None:
        self._connect = connect
        self._turns = Semaphore(most)
        self._idle: list[AsyncConnection] = []

    async def take(self) -> AsyncConnection:
        """One that is as it was left, else a new one. Waits until there may be one more."""
        await self._turns.acquire()
        try:
            while self._idle:
                connection = self._idle.pop()
                if _is_whole(connection):
                    return connection
                await connection.close()

            connection = _checked(await self._connect())
            await connection.set_autocommit(True)
            return connection
        except BaseException:
            self._turns.release()
            raise

    async def give(self, connection: AsyncConnection, *, is_read: bool) -> None:
        """Take it back. `is_read`: was the answer read to its end? Else nobody gets it again."""
        try:
            if is_read:
                self._idle.append(connection)
            else:
                await connection.close()
        finally:
            self._turns.release()

    async def close(self) -> None:
        """Close those that are not in use."""
        while self._idle:
            await self._idle.pop().close()


class _Pooled:
    """Connections of a pool that is somebody else's."""

    def __init__(self, pool: AsyncPool) -> None:
        self._pool = pool

    async def take(self) -> AsyncConnection:
        """One that is whole, and commits by itself. Raises StoreError for one that does not."""
        while True:
            connection = _checked(await self._pool.getconn())
            is_whole = _is_whole(connection)
            if is_whole and connection.autocommit:
                return connection
            await self.give(connection, is_read=is_whole)
            if is_whole:
                raise StoreError(
                    "PostgreSQL: the pool's connections must commit by themselves: "
                    'make it with kwargs={"autocommit": True}'
                )

    async def give(self, connection: AsyncConnection, *, is_read: bool) -> None:
        """Give it back: closed, if its answer was not read to the end. The pool then drops it."""
        if not is_read:
            # Not `close`, with which some pools take it back.
            connection.pgconn.finish()
        await self._pool.putconn(connection)

    async def close(self) -> None:
        """Nothing: whoever made the pool closes it."""


def _checked(connection: Any) -> AsyncConnection:
    """What a source gave, if it is a connection that is awaited. Raises StoreError."""
    if not isinstance(connection, psycopg.AsyncConnection):
        kind = type(connection).__name__
        raise StoreError(f"PostgreSQL: expected an AsyncConnection of psycopg, not {kind}")
    return connection


def _lent(source: AsyncSource, most: int) -> _Own | _Pooled:
    """Where the connections of an awaited store come from. Raises TypeError or ValueError."""
    if type(most) is not int or most < 1:
        raise ValueError(
            f"connections must be an int, at least 1, not {shown(most)}"
        )
    if isinstance(source, str):
        return _Own(lambda: psycopg.AsyncConnection.connect(source), most)
    if callable(source):
        return _Own(source, most)
    if hasattr(source, "getconn") and hasattr(source, "putconn"):
        return _Pooled(source)
    kind = type(source).__name__
    raise TypeError(f"expected a conninfo, an async callable or a pool, not {kind}")


# --- the floor ------------------------------------------------------------------------------------


FLOOR_FACTS: LiteralString = "%s::text, %s::bigint, %s::bigint, %s::bigint, %s::text"
UNLOGGED = (
    "PostgreSQL: a table of its schema is unlogged, and a crash empties it, so counts may be lost. "
    "Set it logged, and make the store again"
)


class _Floored(_Place, Generic[_S]):
    """A store with a floor, whatever its connections.

    `lossless` promises that failover and restored backups lose nothing that was answered.
    """

    _kind: ClassVar[str]

    # Seconds that a token may be issued later than now, by a clock ahead.
    _ahead: ClassVar[int]

    def __init__(
        self,
        source: _S,
        schema: str,
        timeout: float,
        lossless: bool,
        clock: Callable[[], float] | None,
        new: Making | None,
    ) -> None:
        """`new`: what it is made with; None opens it. Raises ValueError."""
        super().__init__(source, schema, timeout)
        self._clock = clock
        self._new = new

        # The start of the server that it has seen last: none yet. None, where it does not matter.
        self._seen: str | None = None if lossless else ""

    def _beginning(self) -> tuple[bytes, tuple[Any, ...]]:
        """The function by which it is made or opened, and what that is given."""
        if self._new is None:
            return self._meeting()

        # Without a floor, it is by the clocks.
        made = self._function("make", FLOOR_FACTS + ", %s::bigint, %s::text[]")
        keys = _array(list(map(_quoted, self._new.keys)))
        return made, (*self._what_is_said(), self._new.floor, keys)

    def _begun(self, answer: Any) -> None:
        """What that function says. Raises StoreError if it is there already."""
        if self._new is None:
            self._met(answer)
        elif not _yes(answer):
            raise there_already(_SERVER)

    def _meeting(self) -> tuple[bytes, tuple[Any, ...]]:
        """The function that looks which server it is by now, and what that is given."""
        return self._function("meet", FLOOR_FACTS), self._what_is_said()

    def _met(self, answer: Any) -> None:
        """What that says: the start of the server. Raises StoreError where a crash takes all."""
        if answer is None:
            raise StoreError(UNLOGGED)
        if type(answer) is not str:
            raise not_an_answer(_SERVER, answer)
        if self._seen is not None:
            self._seen = answer

    def _what_is_said(self) -> tuple[Any, ...]:
        # The function takes the later of the two clocks: one may be behind.
        return (self._kind, int((self._clock or time)()), *self._floor_facts())

    def _floor_facts(self) -> tuple[int, int | None, str | None]:
        """What each function is given of the floor, last what `_again` changes."""
        # Without a clock of ours, it is the server's.
        clock = None if self._clock is None else int(self._clock())
        return self._ahead, clock, self._seen

    def _again(self, values: Sequence[Any]) -> Sequence[Any]:
        """What a function is given once it is known which server it is."""
        return (*values[:-1], self._seen)


class _FlooredStore(_Floored[Source], PostgresStore):
    """A store with a floor, on one connection that is called: made or opened at once."""

    def __init__(
        self,
        source: Source,
        schema: str,
        timeout: float,
        lossless: bool,
        clock: Callable[[], float] | None,
        new: Making | None,
    ) -> None:
        super().__init__(source, schema, timeout, lossless, clock, new)
        with self._kept():
            self._begin()

    # called: postgres.begin, by `python -m tests.called`
    def _begin(self) -> None:
        """Make it, or see that it is there."""
        # To look does no harm twice. To make does: the second time it would find its own.
        self._begun(self._ask(*self._beginning(), again=self._new is None))
        if self._new is not None:
            self._met(self._ask(*self._meeting(), again=True))

    def _ask(self, statement: bytes, values: Sequence[Any] = (), again: bool = False) -> Any:
        """The one value that the statement gives; None if it gives no row. Raises StoreError.

        `again`: it may be run twice without harm. Where the server is not known any more, the store
        looks before it asks.
        """
        try:
            return super()._ask(statement, values, again)
        except MovedError:
            pass  # nothing was done
        self._met(super()._ask(*self._meeting(), again=True))
        return super()._ask(statement, self._again(values), again)

    # end: postgres.begin

    def _send(self, call: Call) -> Any:
        """What the server answers. Raises StoreError."""
        return self._ask(*call)


class _AwaitedStore(_Floored[AsyncSource], AwaitedStore):
    """A store with a floor, on connections that are awaited: made or opened by its first call.

    `source` is a conninfo string, a callable that is awaited and gives a connection of the store's
    own, or a pool. The store has `connections` of its own at most, each for one call until it has
    its answer; a pool has its own bound. A connection whose answer nobody waited for is closed.
    """

    _most = _CONNECTIONS

    def __init__(
        self,
        source: AsyncSource,
        schema: str,
        timeout: float,
        lossless: bool,
        clock: Callable[[], float] | None,
        new: Making | None,
    ) -> None:
        AwaitedStore.__init__(self)
        super().__init__(source, schema, timeout, lossless, clock, new)
        self._connections = _lent(source, self._most)

    async def aclose(self) -> None:
        """Close the connections that are not in use. The store makes others when it is asked.

        A pool is left as it is.
        """
        await self._connections.close()

    async def _first(self) -> None:
        await self._check_server()
        await self._begin()

    # awaited: postgres.versions
    async def _check_server(self) -> None:
        """Refuse a server that forgets, and tables of another version. Raises StoreError."""
        try:
            unsaid = self._unsaid(await self._ask(*self._first_question(), again=True))
        except UnmadeError:
            unsaid = [*self._tables]
        if unsaid:
            self._refuse(unsaid, await self._ask(*self._lying(unsaid), again=True))

    # end: postgres.versions

    # awaited: postgres.begin
    async def _begin(self) -> None:
        """Make it, or see that it is there."""
        # To look does no harm twice. To make does: the second time it would find its own.
        self._begun(await self._ask(*self._beginning(), again=self._new is None))
        if self._new is not None:
            self._met(await self._ask(*self._meeting(), again=True))

    async def _ask(self, statement: bytes, values: Sequence[Any] = (), again: bool = False) -> Any:
        """The one value that the statement gives; None if it gives no row. Raises StoreError.

        `again`: it may be run twice without harm. Where the server is not known any more, the store
        looks before it asks.
        """
        try:
            return await self._ask_known(statement, values, again)
        except MovedError:
            pass  # nothing was done
        self._met(await self._ask_known(*self._meeting(), again=True))
        return await self._ask_known(statement, self._again(values), again)

    # end: postgres.begin

    # awaited: postgres.ask
    async def _ask_known(
        self, statement: bytes, values: Sequence[Any] = (), again: bool = False
    ) -> Any:
        """The one value that the statement gives; None if it gives no row. Raises StoreError.

        `again`: it may be run twice without harm, and is if the connection breaks meanwhile.
        """
        until = self._until()
        answer = await self._ask_once(statement, values, until)
        if answer.is_lost and again:
            answer = await self._ask_once(statement, values, until)
        return _value_of(answer)

    # end: postgres.ask

    async def _made(self) -> Self:
        """Make it. Nobody else has it where that fails, and its connections are closed."""
        try:
            return await self.open()
        except BaseException:
            await self.aclose()
            raise

    async def _send(self, call: Call) -> Any:
        """What the server answers, once the store is open. Raises StoreError."""
        await self.open()
        return await self._ask(*call)

    async def _ask_once(self, statement: bytes, values: Sequence[Any], until: float) -> _Answer:
        """One question, and what came of it. Raises StoreError for what is no connection."""
        try:
            async with asyncio.timeout(max(until - monotonic(), 0)):
                connection = await self._connections.take()

        # The guard's own, of `take`.
        except StoreError:
            raise
        except TimeoutError:
            return _Answer(
                failed=f"PostgreSQL: no connection within {self._timeout:g} seconds: the server "
                "does not answer, or all connections are in use"
            )
        except Exception as error:
            return _Answer(failed=_words(error))

        # Not until the answer is here. A task that is cancelled leaves it on the connection.
        is_read = False
        try:
            asking = in_time(steps(connection, statement, values), until)
            value = await connection.wait(asking)
            is_read = True
            return _Answer(value)
        except LateError:
            return _Answer(failed=self._late())
        except Exception as error:
            is_read = not connection.closed
            return _Answer(failed=_words(error), is_lost=connection.closed)
        finally:
            await self._connections.give(connection, is_read=is_read)


# --- the stores -----------------------------------------------------------------------------------


class _ReplayFacts(TypedDict, total=False):
    """How used proofs are remembered, called or awaited."""

    schema: str
    """The schema that has the tables."""
    timeout: float
    """How long a call takes at most, in seconds. Then it is an error, and what was sent counts."""
    lossless: bool
    """True: no failover and no restored backup sets the database back."""
    clock: Callable[[], float] | None
    """Seconds since the epoch, in place of the server's clock; for tests."""


class _Proofs(_Floored[_S]):
    """What a store of used proofs asks."""

    _kind = "replay"
    _ahead = PROOF_AHEAD

    def __init__(
        self,
        source: _S,
        *,
        schema: str = "captoken",
        timeout: float = TIMEOUT,
        lossless: bool = False,
        clock: Callable[[], float] | None = None,
        _new: Making | None = None,
    ) -> None:
        super().__init__(source, schema, timeout, lossless, clock, _new)
        parameters: LiteralString = (
            "%s::bytea, %s::bigint, %s::text, " + "%s::bigint, " * 4 + "%s::text"
        )
        self._add = self._function("add", parameters)
        self._peek = self._function("peek_add", parameters)
        self._spend = self._function("spend", parameters)
        self._peek_spend = self._function("peek_spend", parameters)

    def _add_call(self, use: Use, now: int, *, peek: bool) -> Call:
        """The function, and what it is given. What is issued before `too_old` is forgotten."""
        facts = self._facts_of(use, now, too_old(now))
        return (self._peek, facts, True) if peek else (self._add, facts)

    def _spend_call(self, spend: Spend, now: int, *, peek: bool) -> Call:
        """The same, of a consent."""
        facts = self._facts_of(spend, now, consent_too_old(now))
        return (self._peek_spend, facts, True) if peek else (self._spend, facts)

    def _facts_of(self, use: Use | Spend, now: int, gone: int) -> tuple[Any, ...]:
        return (use.entry, use.issued_at, use.kid, now, gone, *self._floor_facts())

    def _was_first(self, answer: Any) -> bool:
        return _yes(answer)


class PostgresReplayStore(_Proofs[Source], _FlooredStore, ProofShell):
    """Used proofs, as many as the disk holds.

    The database keeps the floor. So only a new one, and one that a failover or a restored backup
    has set back, refuses what was issued up to five seconds later. `lossless=True` promises that it
    is never set back. `clock` stands in for the server's. `peek` does what `add` does and undoes
    it: so it also waits for locks, and no longer than that.
    """

    @classmethod
    def create(
        cls,
        source: Source,
        *,
        keys: Iterable[str] = (),
        floor: int | None = None,
        **facts: Unpack[_ReplayFacts],
    ) -> Self:
        """Make it in the tables, and open it. Raises StoreError if there is one.

        `keys` are the ids of root keys that are made in the same act, and of no others: proofs on
        their tokens are taken at once, as none can have been used before (31.6). `floor` is for
        tests alone: it stands in for the one by the clocks.
        """
        return cls(source, **facts, _new=making(keys, floor))


class AsyncPostgresReplayStore(_Proofs[AsyncSource], _AwaitedStore, AsyncProofShell):
    """Used proofs, as in PostgresReplayStore, on connections that are awaited.

    The two share what they remember in one schema. `open` asks the server at once whether it will
    do; else the first call does. `source` is a conninfo, a callable that is awaited, or a pool.
    """

    def __init__(
        self,
        source: AsyncSource,
        *,
        connections: int = _CONNECTIONS,
        _new: Making | None = None,
        **facts: Unpack[_ReplayFacts],
    ) -> None:
        self._most = connections
        super().__init__(source, **facts, _new=_new)

    @classmethod
    async def create(
        cls,
        source: AsyncSource,
        *,
        keys: Iterable[str] = (),
        floor: int | None = None,
        connections: int = _CONNECTIONS,
        **facts: Unpack[_ReplayFacts],
    ) -> Self:
        """Make it in the tables, and open it: see `PostgresReplayStore.create`.

        Raises StoreError.
        """
        new = making(keys, floor)
        return await cls(source, connections=connections, **facts, _new=new)._made()


class _LedgerFacts(TypedDict, total=False):
    """How a ledger counts, called or awaited."""

    shared: bool
    """True: all servers that take these tokens count in this schema."""
    schema: str
    """The schema that has the tables."""
    timeout: float
    """How long a call takes at most, in seconds. Then it is an error, and what was sent counts."""
    lossless: bool
    """True: no failover and no restored backup sets the database back."""
    clock: Callable[[], float] | None
    """Seconds since the epoch, in place of the server's clock; for tests."""


class _Counts(_Floored[_S]):
    """What a ledger asks."""

    _server = _SERVER
    _kind = "ledger"
    _ahead = CLOCKS_DIFFER

    def __init__(
        self,
        source: _S,
        *,
        shared: bool = False,
        schema: str = "captoken",
        timeout: float = TIMEOUT,
        lossless: bool = False,
        clock: Callable[[], float] | None = None,
        _new: Making | None = None,
    ) -> None:
        super().__init__(source, schema, timeout, lossless, clock, _new)
        self.shared = shared
        debits: LiteralString = "%s::bytea[], %s::text[], %s::bigint[], %s::bigint[], "
        parameters: LiteralString = (
            "%s::bytea, "
            + debits
            + "%s::bigint, " * 3
            + "%s::text, "
            + "%s::bigint, %s::text, "
            + "%s::bigint, " * 3
            + "%s::text"
        )
        self._reserve = self._function("reserve", parameters)
        self._peek = self._function("peek_reserve", parameters)
        parameters = (
            "%s::bytea, "
            + debits
            + "%s::bigint, " * 2
            + "%s::bytea[], %s::bigint[], %s::boolean[], %s::integer, %s::text[], %s::bytea, "
            + "%s::bigint, %s::text, %s::bigint, %s::text, "
            + "%s::bigint, " * 3
            + "%s::text"
        )
        self._step = self._function("step", parameters)
        self._peek_step = self._function("peek_step", parameters)
        self._settle = self._function("settle", "%s::bytea, %s::text[], %s::bigint[], %s::bigint")
        spent: LiteralString = "select spent from {} where link == %s and unit == %s"
        self._spent = self._statement(spent, "buckets")

    def _reserve_call(self, reservation: Reservation, now: int, *, peek: bool) -> Call:
        """The function, and what it is given."""
        facts = (
            *_reserved(reservation),
            reservation.issued_at,
            reservation.until,
            reservation.kept_until,
            reservation.tree,
            reservation.leeway,
            reservation.kid,
            now,
            *self._floor_facts(),
        )
        return self._peek if peek else self._reserve, facts, True

    def _step_call(self, step: MarkedStep, now: int, *, peek: bool) -> Call:
        """The function, and what it is given: the marks as a column each, in one order."""
        numbered = numbered_marks(step)
        marks, reserved = numbered.marks, step.reservation
        facts = (
            *_reserved(reserved),
            None if reserved is None else reserved.until,
            None if reserved is None else reserved.kept_until,
            _array([_bytea(mark.bucket) for mark in marks]),
            _array(["null" if mark.keep is None else f"{mark.keep:d}" for mark in marks]),
            _array(["t" if mark.is_of_holder else "f" for mark in marks]),
            numbered.own,
            _array([_quoted(rule) for rule in numbered.rules]),
            numbered.by,
            step.issued_at,
            step.tree,
            step.leeway,
            step.kid,
            now,
            *self._floor_facts(),
        )
        return self._peek_step if peek else self._step, facts, True

    def _settle_call(
        self,
        reservation_id: bytes,
        amounts: Mapping[str, int] | None,
        now: int,
    ) -> Call:
        """The function, and what it is given: NULL for all. Raises TypeError for no amounts."""
        taken = what_was_taken(amounts)
        units = "{}" if taken is None else _array([_quoted(unit) for unit in taken])
        sums = None if taken is None else _array([f"{amount:d}" for amount in taken.values()])
        return self._settle, (reservation_id, units, sums, now)

    def _spent_call(self, bucket: bytes, unit: str) -> Call:
        return self._spent, (bucket, unit), True

    def _was_open(self, answer: Any) -> bool:
        return _yes(answer)

    def _amount(self, answer: Any) -> int:
        """What a bucket says that it was debited. Raises StoreError."""
        if answer is None:
            return 0
        if type(answer) is not int:
            raise not_an_answer(_SERVER, answer)
        return answer


# Arrays are written as the server reads them. psycopg would look at each value of a list to find
# out what it is, which took as long as the rest of a call.


def _array(written: list[str]) -> str:
    """An array of values that are written already."""
    return "{" + ",".join(written) + "}"


def _bytea(value: bytes) -> str:
    """Bytes as they are written in an array."""
    return rf'"\\x{value.hex()}"'


def _reserved(reservation: Reservation | None) -> tuple[bytes | None, str, str, str, str]:
    """Its id, and its debits as a column each, in one order."""
    debits = () if reservation is None else reservation.debits
    return (
        None if reservation is None else reservation.id,
        _array([_bytea(debit.bucket) for debit in debits]),
        _array([_quoted(debit.unit) for debit in debits]),
        _array([f"{debit.limit:d}" for debit in debits]),
        _array([f"{debit.amount:d}" for debit in debits]),
    )


def _quoted(text: str) -> str:
    """A text as it is written in an array."""
    escaped = text.replace("\\", r"\\").replace('"', r"\"")
    return f'"{escaped}"'


class PostgresLedger(_Counts[Source], _FlooredStore, LedgerShell):
    """Counts. `shared=True` says that all servers that take these tokens count in this schema.

    The database keeps the floor: see Ledger. It rises when a failover or a restored backup has set
    the database back; not with `lossless=True`, which promises that none does. `clock` stands in
    for the server's. `peek` does what `reserve` does and undoes it: so it also waits for locks, and
    no longer than that.
    """

    @classmethod
    def create(
        cls,
        source: Source,
        *,
        keys: Iterable[str] = (),
        floor: int | None = None,
        **facts: Unpack[_LedgerFacts],
    ) -> Self:
        """Make it in the tables, and open it. Raises StoreError if there is one.

        `keys` are the ids of root keys that are made in the same act, and of no others: their
        tokens count at once, as none can have been used before (38.15). `floor` is for tests alone:
        it stands in for the one by the clocks.
        """
        return cls(source, **facts, _new=making(keys, floor))


class AsyncPostgresLedger(_Counts[AsyncSource], _AwaitedStore, AsyncLedgerShell):
    """Counts, as PostgresLedger does, on connections that are awaited.

    The two count together in one schema. `open` asks the server at once whether it will do; else
    the first call does. `source` is a conninfo, a callable that is awaited, or a pool. Of its own
    it has `connections` at most: tasks beyond that wait for their turn.
    """

    def __init__(
        self,
        source: AsyncSource,
        *,
        connections: int = _CONNECTIONS,
        _new: Making | None = None,
        **facts: Unpack[_LedgerFacts],
    ) -> None:
        self._most = connections
        super().__init__(source, **facts, _new=_new)

    @classmethod
    async def create(
        cls,
        source: AsyncSource,
        *,
        keys: Iterable[str] = (),
        floor: int | None = None,
        connections: int = _CONNECTIONS,
        **facts: Unpack[_LedgerFacts],
    ) -> Self:
        """Make it in the tables, and open it: see `PostgresLedger.create`.

        Raises StoreError.
        """
        new = making(keys, floor)
        return await cls(source, connections=connections, **facts, _new=new)._made()


class PostgresSnapshots(PostgresStore):
    """The newest snapshot of the overlay. What was published is on disk before the answer."""

    def __init__(
        self,
        source: Source,
        *,
        schema: str = "captoken",
        timeout: float = TIMEOUT,
        _is_new: bool = False,
    ) -> None:
        super().__init__(source, schema, timeout)
        self._newest = self._function("load_overlay", "")
        self._publish = self._function("publish", "%s::bytea, %s::bytea")
        self._append = self._function("append", "%s::bytea, %s::bytea, %s::bytea")
        self._since = self._function("since", "%s::bytea")
        with self._kept():
            if not _is_new:
                self._ask(self._function("look_overlay", ""), again=True)
            # Not asked again where the answer is lost: it would find its own.
            elif not _yes(self._ask(self._function("make_overlay", ""))):
                raise there_already(_SERVER)

    @classmethod
    def create(
        cls,
        source: Source,
        *,
        schema: str = "captoken",
        timeout: float = TIMEOUT,
    ) -> Self:
        """Make it, without a snapshot, and open it. Raises StoreError if there is one.

        Verifiers deny until an operator publishes: who makes it renews at once.
        """
        return cls(source, schema=schema, timeout=timeout, _is_new=True)

    def load(self) -> bytes | None:
        """The newest snapshot, and the deltas behind it, if there is one. Raises StoreError."""
        found = self._ask(self._newest, again=True)
        if found is not None and type(found) is not bytes:
            raise not_an_answer(_SERVER, found)
        return found

    def publish(self, snapshot: bytes, after: bytes | None) -> bool:
        """False if another one lies there than `after`. On disk when it returns True.

        Raises StoreError, also where the answer was lost: then it may lie there.
        """
        return _yes(self._ask(self._publish, (snapshot, after)))

    def append(self, delta: bytes, after: bytes, gives: bytes) -> bool:
        """False if the newest has another mark than `after`. On disk when it returns True.

        Raises StoreError, also where the answer was lost: then it may lie there.
        """
        return _yes(self._ask(self._append, (delta, after, gives)))

    def since(self, mark: bytes) -> list[bytes] | None:
        """The deltas that lead from that mark to the newest; None if it is not known here.

        Raises StoreError.
        """
        found = self._ask(self._since, (mark,), again=True)
        if found is None:
            return None
        if type(found) is not list or any(type(one) is not bytes for one in found):
            raise not_an_answer(_SERVER, found)
        return found
