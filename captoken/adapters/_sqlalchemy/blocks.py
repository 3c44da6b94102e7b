"""One guarded block, as a connection of SQLAlchemy's runs it (rule 3 of `sqlalchemy`).

SQLAlchemy asks without awaiting, in async code too: it switches to another greenlet meanwhile. So
all three kinds have the same face, and differ in where the guard works:

    Here       in the thread that asks: sqlite3, psycopg
    Queued     in the thread of an aiosqlite connection, which alone may use it
    Awaited    in the event loop: an AsyncConnection of psycopg

Only what the guards export is used. Which database it is, none of them knows.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from typing import Any, Protocol, TypeAlias

from captoken.adapters._rows import Rows

# What makes a guarded block, not entered yet.
Opening: TypeAlias = Callable[[], AbstractContextManager[Any]]
AsyncOpening: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]

# Waits for what a function of the driver's connection gives back, from within a greenlet.
Awaiting: TypeAlias = Callable[[Callable[[Any], Any]], Any]


class Block(Protocol):
    """A block that has begun, and ends once."""

    def execute(self, sql: str, parameters: Sequence[Any]) -> Rows:
        """Run one statement. Raises Denied, StatementError, GuardError, or what else comes up."""
        ...

    def commit(self) -> None:
        """The normal end. Raises Denied too, and then all of it is rolled back."""
        ...

    def rollback(self) -> None:
        """The other end."""
        ...

    def abandon(self) -> None:
        """The end of a block that nobody can wait for. It is rolled back, at some time."""
        ...


class _RolledBack(Exception):  # noqa: N818, it is no error
    """Leaves a guarded block so that it rolls back. Nobody else sees it."""


class Here:
    """A block in the thread that asks.

    `begin` raises what the guard raises at its entry: nothing has begun then.
    """

    def __init__(self, opening: Opening) -> None:
        self._block = opening()
        self._db: Any = None

    def begin(self) -> Here:
        """Enter the block."""
        self._db = self._block.__enter__()
        return self

    def execute(self, sql: str, parameters: Sequence[Any]) -> Rows:
        """Run one statement: see `Block`."""
        rows: Rows = self._db.execute(sql, parameters)
        return rows

    def commit(self) -> None:
        """As the end of a `with` is reached."""
        self._block.__exit__(None, None, None)

    def rollback(self) -> None:
        """As an exception leaves a `with`: what the guard raises again is no error here.

        Of what has not begun, there is nothing to roll back.
        """
        if self._db is None:
            return
        self._block.__exit__(
            _RolledBack,
            _RolledBack(),
            None,
        )

    def abandon(self) -> None:
        """Nothing has to be waited for here."""
        self.rollback()


class _Nobody:
    """Takes the place of the future to which aiosqlite reports the outcome of a step."""

    def get_loop(self) -> _Nobody:
        """The one that it would be told in."""
        return self

    def call_soon_threadsafe(self, *told: Any) -> None:
        """What came of it is of no interest."""


class Queued:
    """A block in the thread of an aiosqlite connection.

    That thread does one thing after the other. What is awaited can be canceled here meanwhile, and
    goes on there.
    """

    def __init__(
        self,
        opening: Opening,
        awaiting: Awaiting,
        driver: Any,
    ) -> None:
        """Enters the block: raises what the guard raises at its entry.

        `driver` is the connection of aiosqlite.
        """
        self._awaiting = awaiting
        self._driver = driver
        self._block = Here(opening)

        try:
            self._queue(self._block.begin)
        except BaseException:
            # Canceled, perhaps. When the thread gets to this, it has begun, or never will.
            self._queue(self._block.rollback)
            raise

    def execute(self, sql: str, parameters: Sequence[Any]) -> Rows:
        """Run one statement: see `Block`.

        One that nobody waits for any more is interrupted. What comes next is a rollback.
        """
        try:
            rows: Rows = self._queue(
                self._block.execute,
                sql,
                parameters,
            )
        except CancelledError:
            # Whatever comes of that, it is canceled.
            with suppress(Exception):
                self._driver._conn.interrupt()
            raise
        return rows

    def commit(self) -> None:
        """See `Block`."""
        self._queue(self._block.commit)

    def rollback(self) -> None:
        """See `Block`."""
        self._queue(self._block.rollback)

    def abandon(self) -> None:
        """Roll back in that thread, which has no event loop to tell of it.

        Not here: an authorizer that one thread takes away while another one uses the connection can
        stop both for ever.
        """
        step = (_Nobody(), self._block.rollback)
        self._driver._tx.put_nowait(step)

    def _queue(self, step: Callable[..., Any], *args: Any) -> Any:
        """Do a step in that thread, and wait for it.

        aiosqlite has no public name for that; all that it does itself goes this way.
        """
        return self._awaiting(lambda driver: driver._execute(step, *args))


class Awaited:
    """A block in the event loop.

    What is canceled while a statement runs closes the connection: that is how its guard ends it.
    """

    def __init__(self, opening: AsyncOpening, awaiting: Awaiting) -> None:
        """Enters the block: raises what the guard raises at its entry."""
        self._awaiting = awaiting
        self._block = opening()
        self._db = awaiting(lambda _: self._block.__aenter__())

    def execute(self, sql: str, parameters: Sequence[Any]) -> Rows:
        """Run one statement: see `Block`."""

        rows: Rows = self._awaiting(lambda _: self._db.execute(sql, parameters))
        return rows

    def commit(self) -> None:
        """As the end of an `async with` is reached."""
        self._awaiting(lambda _: self._block.__aexit__(None, None, None))

    def rollback(self) -> None:
        """As an exception leaves an `async with`."""
        leaving = _RolledBack()
        self._awaiting(lambda _: self._block.__aexit__(_RolledBack, leaving, None))

    def abandon(self) -> None:
        """The event loop itself closes what was not left of a generator, the block's too."""
