"""What SQLAlchemy gets in the place of a database's connection, and of its cursor (rule 1).

It looks like DBAPI, and does two things: a text with its parameters goes to the guard, and a
transaction is a guarded block. Whatever else SQLAlchemy, a dialect or an event handler would do
with a connection is not there, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NoReturn

from captoken._format.errors import GuardError
from captoken.adapters._rows import Rows
from captoken.adapters._sqlalchemy.blocks import Block

_NO_ROWS = Rows((), [], -1)

# Type, sizes, and whether a column can be NULL.
_UNTOLD = (None, None, None, None, None, None)


class _OnlyWhatIsHere:
    """A class with no other attributes than its own. Any other raises AttributeError."""

    __slots__ = ()

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"a guarded connection has no {name}: it can only run statements, commit and roll back"
        )


class GuardedConnection(_OnlyWhatIsHere):
    """A connection that belongs to one connection of SQLAlchemy's.

    `begin` opens a guarded block, and is asked at the first statement of each transaction.
    `release` gives back the connection of the database, which nothing here knows. `lost` says
    whether that one is closed.
    """

    __slots__ = ("_begin", "_block", "_lost", "_release")

    def __init__(
        self,
        begin: Callable[[], Block],
        release: Callable[[], None],
        lost: Callable[[], bool],
    ) -> None:
        self._begin = begin
        self._release: Callable[[], None] | None = release
        self._lost = lost

        # None: there is no transaction.
        self._block: Block | None = None

    @property
    def closed(self) -> bool:
        """Whether it was closed, or what it stands for was."""
        return self._release is None or self._lost()

    def cursor(self, *kind: Any, **options: Any) -> Cursor:
        """A cursor, of the one kind that there is.

        Raises GuardError for one of the server's: rows are fetched before they are handed out.
        """
        if kind or options:
            raise GuardError("a guarded connection has no server-side cursors")
        return Cursor(self)

    def run(self, sql: str, parameters: Sequence[Any]) -> Rows:
        """Hand one statement to the guard (rule 2). The first one begins a block (rule 3)."""
        if self._release is None:
            raise GuardError("the connection is closed")
        if self._block is None:
            self._block = self._begin()
        return self._block.execute(sql, parameters)

    def commit(self) -> None:
        """End the block as it ends normally. Raises Denied for what may not be written by now."""
        block = self._ended()
        if block is not None:
            block.commit()

    def rollback(self) -> None:
        """End the block so that nothing of it stays."""
        block = self._ended()
        if block is not None:
            block.rollback()

    def close(self) -> None:
        """Roll back what is open, and give the connection back. Twice is once."""
        release = self._release
        self._release = None

        try:
            self.rollback()
        finally:
            # Whatever came of the rollback: the pool that it goes back to makes one, too.
            if release is not None:
                release()

    def drop(self) -> None:
        """Let go of all, where nobody can wait. Twice is once.

        What it was given is closed by the pool that it came from, once nothing refers to it.
        """
        self._release = None
        block = self._ended()
        if block is not None:
            block.abandon()

    def _ended(self) -> Block | None:
        """The block that is to end now, if there is one. From here on there is none.

        Also if its end raises something: a block ends once.
        """
        block = self._block
        self._block = None
        return block


class Cursor(_OnlyWhatIsHere):
    """What a statement gave back, which is fetched already."""

    __slots__ = ("_connection", "_rows", "arraysize", "description")

    def __init__(self, connection: GuardedConnection) -> None:
        self._connection = connection
        self._rows = _NO_ROWS

        self.description: tuple[tuple[Any, ...], ...] | None = None

        # How many rows `fetchmany` gives that is not told.
        self.arraysize = 1

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Cursor:
        """Run one statement. Raises Denied, StatementError, GuardError, or what else comes up."""
        # So that after an error nothing is left of the statement before.
        self._take(_NO_ROWS)
        rows = self._connection.run(sql, parameters)
        self._take(rows)
        return self

    def executemany(self, sql: str, sets: Iterable[Sequence[Any]]) -> Cursor:
        """Run one statement with each set of parameters, each asked about by itself.

        One that is refused ends it. Those before it are done, and stay if the owner commits.
        """
        self._take(_NO_ROWS)
        count = 0
        for parameters in sets:
            rows = self._connection.run(sql, parameters)
            count += max(0, rows.rowcount)

        counted = Rows((), [], count)
        self._take(counted)
        return self

    def _take(self, rows: Rows) -> None:
        """Make these rows the result of the last statement."""
        self._rows = rows

        # Of the seven things that DBAPI says of a column, the first: its name.
        described = tuple((name, *_UNTOLD) for name in rows.columns)

        # None is how DBAPI says that a statement is none that gives rows.
        self.description = described or None

    @property
    def rowcount(self) -> int:
        """As the database says it: -1 where it says nothing."""
        return self._rows.rowcount

    def last_key(self) -> Any:
        """The key of the row that was inserted last, as SQLite tells it; None, if none was.

        Asked as any statement is. DBAPI's `lastrowid` is not there: PostgreSQL has none.
        """
        # Then SQLite would tell of an earlier statement, and its guard refuses to ask.
        if self._rows.rowcount < 1:
            return None

        rows = self._connection.run("select last_insert_rowid()", ())
        row = rows.fetchone()
        return row[0] if row else None

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, or None."""
        return self._rows.fetchone()

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Some more rows."""
        wanted = self.arraysize if size is None else size
        return list(islice(self._rows, wanted))

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows that are left."""
        return self._rows.fetchall()

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self._rows)

    def close(self) -> None:
        """Forget what came back. There is nothing open."""
        self._rows = Rows((), [], self._rows.rowcount)

    async def _async_soft_close(self) -> None:
        """What SQLAlchemy awaits of a cursor in async code. The rows stay."""
