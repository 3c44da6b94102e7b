"""The registry in a PostgreSQL database: for services on many machines.

Its tables are made beside those of the stores, once: `create_tables(…, tables=WITH_REGISTRY)` of
`captoken.stores.postgres`. Each write is one transaction, which locks the row with the registry's
state. So writes happen one after the other, on all machines, and each sees what was committed
before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from time import monotonic, time
from typing import Any, Self, TypeAlias

from captoken._format.extras import extra

with extra("postgres"):
    import psycopg
    from psycopg.rows import tuple_row

from captoken._format.clocks import CLOCKS_DIFFER
from captoken._format.errors import CaptokenError, StoreError
from captoken.issuance.registry._logins import LoginTables
from captoken.issuance.registry._rules import first_floor
from captoken.issuance.registry._tables import (
    TABLES,
    Entering,
    Row,
    Run,
    Statement,
    begin,
    schema_by,
)
from captoken.stores import postgres as stores
from captoken.stores._postgres_sql import granted_as, qualified, saying
from captoken.stores._postgres_wire import in_time
from captoken.stores._rules import TIMEOUT, LateError, checked_floor, there_already
from captoken.stores.postgres import (
    Connection,
    Cursor,
    PostgresStore,
    Source,
    _words,  # pyright: ignore[reportPrivateUsage]
)

# A statement as the server reads it, with its values.
Composed: TypeAlias = tuple[bytes, Sequence[Any]]

_SERVER = "PostgreSQL"
_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")  # that its login needs
_KIND = "registry"  # among the floors, which have a row for each kind of store


def _typed(statement: str) -> str:
    """One of the statements that make the tables, with the types that PostgreSQL has."""
    return statement.format(int="bigint", blob="bytea", once="if not exists ")


def _statements(schema: str) -> str:
    """The statements that make the registry's tables in a schema, once."""
    made = [stores.in_schema(saying(REGISTRY.version, REGISTRY.one), schema)]
    for statement in TABLES:
        once = re.sub(r"create (table|index) ", r"create \1 if not exists ", statement)
        made.append(_made_in(once, schema) + ";")
    return "\n".join(made)


def _made_in(statement: str, schema: str) -> str:
    """One of the statements that make the tables, for the tables of one schema."""
    typed = _in_schema(_typed(statement), schema)
    # An index is in the schema of its table, and is not told so.
    return typed.replace(f"index if not exists {schema}.", "index if not exists ")


def _in_schema(statement: str, schema: str) -> str:
    """A statement on the tables of one schema. Only names of tables have `registry_` in them.
    Those of PostgreSQL's own get theirs, too (`qualified`).

    `schema` was checked: it needs no quotes, and so it can carry no statement of its own.
    """
    return qualified(statement).replace("registry_", f"{schema}.registry_")


REGISTRY = stores.TableGroup(
    schema_by(
        lambda statement: _made_in(statement, "captoken"),
        lambda table: (granted_as(table, "registry_state", *_RIGHTS),),
    ),
    "registry_state",
    _statements,
)

# What `create_tables`, `setup` and `upgrade_tables` of the stores are given for a registry too.
WITH_REGISTRY = (stores.STORES, REGISTRY)


class PostgresRegistry(LoginTables, PostgresStore):
    """Tasks in a database. To open it makes none: `create` does, once, with a floor.

    The floor rises when a failover or a restored backup has set the database back. Then assertions
    that may have been used in what was lost are refused. Earlier tasks are over, since they may
    have been ended in it. `lossless=True` promises that neither sets it back.

    `source` is a conninfo string, or a callable that returns a connection of the registry's own. A
    call takes `timeout` seconds at most. What was sent by then may have been done.
    """

    _tables = WITH_REGISTRY
    _server = _SERVER

    def __init__(
        self,
        source: Source,
        *,
        schema: str = "captoken",
        lossless: bool = False,
        timeout: float = TIMEOUT,
        _floor: int | None = None,
    ) -> None:
        """Open it. Raises StoreError if it is not there. `_floor` is for `create` alone."""
        super().__init__(source, schema, timeout)
        # The start of the server that it has seen last: see the stores.
        self._seen: str | None = None if lossless else ""
        self._composed: dict[str, bytes] = {}  # statements, as the server reads them
        self._ready = self._function("ready", "")
        self._lock_state = self._statement(
            "select floor from {} for update",
            "registry_state",
        )

        # The stores' own floor, which rises where the server was set back, beside the registry's.
        floors = b"select (" + self._function("look", stores.FLOOR_FACTS) + b"), "
        floors += self._statement("(select floor from {}), ", "registry_state")
        self._floors = floors + b"(" + self._function("run", "") + b")"
        with self._kept():
            if _floor is None:
                self._notice(self._until())
                return

            # In one transaction: a registry without its first row would be a damaged one.
            made = self._function("make", stores.FLOOR_FACTS + ", %s::bigint, '{{}}'")
            with self._transaction() as (cursor, _):
                ((is_new,),) = _together(cursor, [(made, (*self._floor_facts(), _floor))])[0]
                if is_new is not True:
                    raise there_already(_SERVER)
                begin(self._run_by(cursor), _floor)

    @classmethod
    def create(
        cls,
        source: Source,
        *,
        floor: int | None = None,
        schema: str = "captoken",
        lossless: bool = False,
        timeout: float = TIMEOUT,
        clock: Callable[[], float] = time,
    ) -> Self:
        """Make it in the tables, and open it. Raises StoreError if there is one.

        `floor=0` promises that no registry was here before: then the first assertions are taken at
        once. Raises ValueError for odd floors.
        """
        checked = checked_floor(floor)
        first = first_floor(clock) if checked is None else checked
        return cls(
            source,
            schema=schema,
            lossless=lossless,
            timeout=timeout,
            _floor=first,
        )

    def _floor_facts(self) -> tuple[Any, ...]:
        """What the functions are given of the floor. The clock is the server's."""
        return _KIND, 0, CLOCKS_DIFFER, None, self._seen

    def _sure(self, run: Run, now: int) -> int:
        """The earlier of two clocks: one service with a wrong clock does not forget for all."""
        asked = "select floor(extract(epoch from clock_timestamp()))::bigint"
        ((row,),) = run([(asked, ())])
        return min(now, int(row[0]))

    @contextmanager
    def _to_write(self) -> Generator[Run]:
        with self._to_enter(()) as (run, _, _):
            yield run

    @contextmanager
    def _to_enter(self, first: Sequence[Statement]) -> Generator[Entering]:
        # At the level that `ready` wants, each statement sees what was committed before it: what
        # is asked behind the lock sees what the one before has written.
        opening: list[Composed] = [
            (self._ready, ()),
            (self._lock_state, ()),
            (self._floors, self._floor_facts()),
        ]
        statements = [*opening, *self._composed_of(first)]
        last: list[Statement] = []
        with self._transaction(statements, last) as (cursor, told):
            run = self._run_by(cursor)

            # The first answer is that of `begin`, so that the floors are at this place.
            floors = told[len(opening)]
            if floors[0][0] is None:
                # That the floor has gone is to stay, whatever is raised.
                _run(cursor, (b"commit", ()))
            answers = told[len(opening) + 1 :]
            floor = _risen(floors)
            if floor is not None:
                # What was asked before was answered by what may be over now.
                run(_set_back(floor))
                answers = run(first)
            yield run, answers, last

        # Now it is written down.
        self._notes(floors)

    @contextmanager
    def _to_read(self) -> Generator[Run]:
        until = self._until()
        self._notice(until)
        with self._cursor(until) as cursor:
            yield self._run_by(cursor)

    def _notice(self, until: float) -> None:
        """If the server was set back, have that written down before anything is read."""
        with self._cursor(until) as cursor:
            (rows,) = _together(cursor, [(self._floors, self._floor_facts())])
            floor = _risen(rows)
        if floor is None:
            self._notes(rows)
            return
        with self._to_write():
            pass

    def _notes(self, floors: list[Row]) -> None:
        """The start of the server that has answered."""
        if self._seen is not None:
            self._seen = str(floors[0][2])

    @contextmanager
    def _transaction(
        self,
        first: Sequence[Composed] = (),
        last: Sequence[Statement] = (),
    ) -> Generator[tuple[Cursor, list[list[Row]]]]:
        """One transaction, and what `begin` and its first statements gave. With `last`, it ends.

        Nothing of it stays if it raises.
        """
        with self._cursor(self._until()) as cursor:
            try:
                yield cursor, _together(cursor, [(b"begin", ()), *first])
                closing = [*self._composed_of(last), (b"commit", ())]
                *_, end = _sent(cursor, closing)

                # The server says so of one that it has undone.
                if end.statusmessage != "COMMIT":
                    raise StoreError(f"{_SERVER}: the transaction was undone")
            except BaseException:
                self._undo(cursor)
                raise

    def _undo(self, cursor: Cursor) -> None:
        """Undo what is open, so that nobody waits for its locks. Whoever calls holds the lock."""
        try:
            _run(cursor, (b"rollback", ()))
        except (psycopg.Error, LateError):
            self._drop()

    @contextmanager
    def _cursor(self, until: float) -> Generator[Cursor]:
        """The connection, for a whole call. Whatever the server raises becomes a StoreError.

        One that breaks is dropped. What was sent may have been committed: nobody asks again.
        """
        with self._turn(until):
            failed = None
            try:
                connection = self._open(until)
                with _held_to(until, connection), _each(connection) as cursor:
                    yield cursor
                return

            # What the rules say, and the guard's own.
            except CaptokenError:
                raise
            except Exception as error:
                # What comes of a time that is over can be another error on the way out of here.
                is_late = monotonic() > until
                failed = self._late() if is_late else _words(error)
                if is_late or (self._connection is not None and self._connection.closed):
                    self._drop()

            # An interrupt between question and answer: the next one would read this answer.
            except BaseException:
                self._drop()
                raise
        raise StoreError(failed)

    def _run_by(self, cursor: Cursor) -> Run:
        """What runs statements, as the tables' own code writes them."""

        def run(asked: Sequence[Statement]) -> list[list[Row]]:
            return _together(cursor, self._composed_of(asked))

        return run

    def _composed_of(self, asked: Sequence[Statement]) -> list[Composed]:
        """Statements as the server reads them, with their values beside them."""
        return [(self._compose(text), values) for text, values in asked]

    def _compose(self, statement: str) -> bytes:
        """A statement as the server reads it, composed once."""
        composed = self._composed.get(statement)
        if composed is None:
            its = _in_schema(statement, self._schema).replace("?", "%s")
            composed = self._composed[statement] = stores.numbered_parameters(its).encode()
        return composed


def _risen(floors: list[Row]) -> int | None:
    """The floor that a server has since it was set back; None if it was not. Raises StoreError."""
    ((its, known, _),) = floors
    if its is None and type(known) is int:
        raise StoreError(stores.UNLOGGED)
    if type(its) is not int or type(known) is not int:
        raise StoreError(
            f"{_SERVER}: the registry's record of what it forgot is missing: the registry is "
            "damaged"
        )
    return its if its > known else None


def _set_back(floor: int) -> list[Statement]:
    """What is written where a server was set back: what was out may have ended in what was lost."""
    return [
        ("update registry_tasks set past = 1 where past == 0 and begun <= ?", (floor,)),
        ("update registry_state set floor = ?", (floor,)),
    ]


def _together(cursor: Cursor, asked: Sequence[Composed]) -> list[list[Row]]:
    """All rows of each statement, in one round trip."""
    # A statement that only writes gives nothing.
    return [
        [] if one.description is None else one.fetchall() for one in _sent(cursor, asked)
    ]


def _sent(cursor: Cursor, asked: Sequence[Composed]) -> list[Cursor]:
    """A cursor with the answer of each statement, in one round trip if that can be."""
    connection = cursor.connection
    if not psycopg.Pipeline.is_supported() or len(asked) == 1:
        return [_run(_each(connection), one) for one in asked]
    # Its end waits for all answers. To wait within it would be another round trip.
    with connection.pipeline():
        return [_run(_each(connection), one) for one in asked]


def _run(cursor: Cursor, asked: Composed) -> Cursor:
    """The cursor, with its answer. Nothing goes by a name here: see `_postgres_wire`."""
    statement, values = asked
    return cursor.execute(statement, values, prepare=False)


def _each(connection: Connection) -> Cursor:
    """A cursor of its own for one statement: its rows stay until they are read."""
    return psycopg.RawCursor(connection, row_factory=tuple_row)


@contextmanager
def _held_to(until: float, connection: Connection) -> Generator[None]:
    """The connection, all of whose waiting ends at that time: cursors and pipelines wait by it."""
    wait = connection.wait
    vars(connection)["wait"] = lambda asking, **facts: wait(in_time(asking, until), **facts)
    try:
        yield
    finally:
        del vars(connection)["wait"]
