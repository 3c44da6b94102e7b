"""A connection that is watched: what SQLite asks the authorizer is heard, and answered by mode.

The events of the authorizer are the first of the guard's three accounts. Here are rule 2, one
authorizer for the block and closed by default, and rule 3, a statement is seen before it runs
(`captoken.adapters.sqlite`). What SQLite asks about one statement:

    SELECT region FROM sales WHERE id IN (SELECT id FROM hr)

    (SELECT, None, None, None, None)
    (READ, "sales", "region", "main", None)
    (READ, "hr", "id", "main", None)
    (READ, "sales", "id", "main", None)
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager, nullcontext, suppress
from time import monotonic
from typing import Any

from captoken._format.errors import GuardError
from captoken._verification.mistakes import mistake
from captoken.adapters._sqlite.lengths import MAX_COMPARED, Calls

# What the authorizer is asked about.
DELETE = sqlite3.SQLITE_DELETE
INSERT = sqlite3.SQLITE_INSERT
READ = sqlite3.SQLITE_READ
SELECT = sqlite3.SQLITE_SELECT
UPDATE = sqlite3.SQLITE_UPDATE
FUNCTION = sqlite3.SQLITE_FUNCTION
RECURSIVE = sqlite3.SQLITE_RECURSIVE
WRITES = frozenset((DELETE, INSERT, UPDATE))

# The only events of statements that may be granted at all. A kind of event that a later SQLite adds
# is none of these, and refused.
KNOWN = WRITES | {READ, SELECT, FUNCTION, RECURSIVE}

# What is asked about, then table, column, schema, and the trigger or view that it is for. With
# FUNCTION, the place of the column has the function's name.
Event = tuple[int, str | None, str | None, str | None, str | None]

# The modes of a watch (rule 2).
# Nothing is permitted. So it is between any two of the others.
CLOSED = 0
# A query of the guard's own: everything is.
OWN = 1
# A statement is compiled, not run: known events are noted and permitted.
LOOK = 2
# A statement runs: what was noted of it is permitted.
RUN = 3

# Bytes of a value or a row, unless a guard is told otherwise. One opcode runs to its end, however
# long that takes, and the progress handler is asked only afterwards. Looking for one long value in
# another takes time with the product of their lengths: at this bound about ten seconds.
MAX_VALUE = 1 << 20

# Bytes of a pattern of LIKE and GLOB. What it takes goes with the product of its length and that of
# the value, as above, and it has a limit of its own.
MAX_PATTERN = 1_000

# Rule 11: how often SQLite may ask about one and the same thing while it compiles a statement. Most
# ask some 20 times. One that doubles with each of its lines asks as often as it gets.
MOST_EQUAL = 2_000

# Rows that are fetched at a time where they are counted.
_AT_ONCE = 256

# Opcodes between two calls of the progress handler; and where functions are called, each of which
# may take long. Then the grant is asked again after so many seconds.
_STEPS = 10_000
_FEW_STEPS = 10
_UNPACED = nullcontext()  # around what calls no function
_PAUSE = 0.005

# Rule 3: no two EXPLAINs have the same text. Python keeps compiled statements by their text, and
# one that it has kept is not compiled again: the authorizer would not be asked. A number for each
# in the process, since a connection can be guarded many times.
_serial = itertools.count(1)


def explained(sql: str) -> str:
    """The statement that shows what `sql` compiles to, and that no compiled statement answers."""
    return f"EXPLAIN /*{next(_serial)}*/ {sql}"


class Watch:
    """A connection under one authorizer, closed by default, in modes (rule 2).

    There is one from the beginning of a block to its end, and so no moment without. What it answers
    turns on the mode, which is set for each statement.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        alive: Callable[[], bool],
        is_fit: bool = False,
        max_value: int = MAX_VALUE,
    ) -> None:
        """Take over the connection. `alive` is asked now and then whether a statement may go on.

        `max_value` is how many bytes a value or a row may have.
        `is_fit`: it was taken over before, so that its converters need no second look.

        Raises GuardError where it cannot be taken over: in a thread that SQLite does not let use
        it, when it is closed, or with PARSE_COLNAMES.
        """
        self.connection = connection

        # The one thread in which anything is permitted.
        self.thread = threading.get_ident()
        self.mode = CLOSED

        # The events that LOOK noted, in order, and whether one of them is never granted.
        # Of each, how often SQLite asked about it; and whether that was too often for one.
        self.seen: dict[Event, int] = {}
        self.refused = False
        self.too_often = False

        # The events that RUN permits.
        self.allowed: Collection[Event] = ()

        try:
            self.cursor = self._cursor()
            if not is_fit:
                self._refuse_converters_by_alias()

            # To set an authorizer expires every statement that was compiled before: whatever
            # Python kept is compiled again, and asked about.
            connection.set_authorizer(self._judge)
        except connection.ProgrammingError as error:
            raise GuardError(
                "the connection cannot be guarded here: it is closed, or belongs to another thread"
            ) from error

        # A handler that answers yes stops the statement.
        self._alive = alive
        self._next = 0.0  # when the grant is asked again
        connection.set_progress_handler(self._ends, _STEPS)
        self._owners_limits: dict[int, int] = {}
        self._limit(sqlite3.SQLITE_LIMIT_LENGTH, max_value)
        self._limit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, MAX_PATTERN)

    def _ends(self) -> bool:
        """Is the statement that runs to stop?"""
        return not self._alive()

    def _ends_soon(self) -> bool:
        """Answer as `_ends` does, but look at the grant less often: that takes longer than reading
        a row.
        """
        if monotonic() < self._next:
            return False
        ends = self._ends()
        self._next = monotonic() + _PAUSE
        return ends

    @contextmanager
    def _paced(self, calls: Calls) -> Generator[None]:
        """Rule 11: asked more often where functions are called, and with shorter values."""
        most = self.connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH)
        self.connection.set_progress_handler(self._ends_soon, _FEW_STEPS)
        if calls.compares:
            bounded = min(most, MAX_COMPARED)
            self.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, bounded)
        try:
            yield
        finally:
            self.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, most)
            self.connection.set_progress_handler(self._ends, _STEPS)

    def _limit(self, limit: int, most: int) -> None:
        """Set a limit of the connection, unless the owner's is lower."""
        owners = self.connection.getlimit(limit)
        self._owners_limits[limit] = owners
        self.connection.setlimit(limit, min(owners, most))

    def _cursor(self) -> sqlite3.Cursor:
        """A cursor that gives tuples.

        A `row_factory` would be handed the cursor itself, and could run statements by it.
        """
        cursor = self.connection.cursor()
        cursor.row_factory = None
        return cursor

    def _refuse_converters_by_alias(self) -> None:
        """Raise GuardError if `AS "name [type]"` makes Python call the converter of that type.

        With detect_types=PARSE_COLNAMES it does, and takes the brackets out of the name.
        """
        self.cursor.execute('SELECT 1 AS "a [b]"')
        if self.cursor.description[0][0] != "a [b]":
            raise GuardError(
                "detect_types=PARSE_COLNAMES lets a statement choose the converter of its bytes: "
                "connect without it"
            )

    def release(self) -> None:
        """Give the connection back, with neither authorizer nor progress handler.

        SQLite cannot tell which ones it had. Its limits are what they were.
        """
        # Of one that was closed meanwhile, nothing has to be given back.
        with suppress(self.connection.ProgrammingError):
            for limit, owners in self._owners_limits.items():
                self.connection.setlimit(limit, owners)
            self.connection.set_progress_handler(None, 0)
            self.connection.set_authorizer(None)
            self.cursor.close()

    def _judge(self, *event: Any) -> int:
        """The authorizer: may a statement do what SQLite asks about? (rule 2)

        It says no by default: in another thread, and whenever the guard itself does nothing. Then
        somebody else uses the connection, be it Python code that a statement calls.
        """
        if threading.get_ident() != self.thread or self.mode == CLOSED:
            return sqlite3.SQLITE_DENY

        if self.mode == LOOK:
            times = self.seen[event] = self.seen.get(event, 0) + 1
            if event[0] not in KNOWN:
                self.refused = True
            if times > MOST_EQUAL:
                self.too_often = True
            # After one refusal all else is refused too, so that compiling ends there.
            ends = self.refused or self.too_often
            return sqlite3.SQLITE_DENY if ends else sqlite3.SQLITE_OK

        if self.mode == OWN:
            return sqlite3.SQLITE_OK

        # RUN. A statement that SQLite compiles anew, for a schema that has changed, asks again: for
        # other things than it was seen to ask for, it is refused.
        return sqlite3.SQLITE_OK if event in self.allowed else sqlite3.SQLITE_DENY

    def own(self, sql: str, *parameters: Any) -> list[Any]:
        """The rows of a query of the guard's own; text is bytes.

        Nothing in `sql` is a caller's, except names of the schema, and those are quoted.
        """
        return self._ask(OWN, sql, parameters)

    def look(self, sql: str, parameters: Any) -> tuple[list[Any], dict[Event, int]]:
        """The program that SQLite makes of `sql`, and what it asked the authorizer.

        Runs nothing (rule 3). Raises whatever compiling `sql` or binding its parameters raises.
        What was noted before is gone with it.
        """
        # A new dictionary, and not an emptied one: the plan before keeps its own.
        self.seen = {}
        self.refused = False
        self.too_often = False
        program = self._ask(LOOK, explained(sql), parameters)
        return program, self.seen

    def _ask(self, mode: int, sql: str, parameters: Any) -> list[Any]:
        """All rows of a statement that the guard itself makes: a query of its own, or an EXPLAIN.

        `text_factory` belongs to the connection, so the owner's is put aside. With `bytes` any text
        can be read, also one that is not UTF-8.
        """
        owners = self.connection.text_factory
        self.connection.text_factory = bytes
        self.mode = mode
        try:
            # All at once: nothing of the guard's is still open when the mode is closed.
            return self.cursor.execute(sql, parameters).fetchall()
        finally:
            self.connection.text_factory = owners
            self.mode = CLOSED

    def run(
        self,
        sql: str,
        parameters: Any,
        events: Collection[Event],
        calls: Calls,
        most: int,
        taken: Callable[[list[Any]], None] | None,
    ) -> tuple[list[Any], sqlite3.Cursor]:
        """Run `sql`, which may ask for what it was seen to ask for, and for nothing else.

        `taken` is told the rows, some at a time, before the next ones are fetched, and may raise.
        Raises StatementError for more rows than `most`, and what SQLite raises.
        """
        self.allowed = events
        self.mode = RUN
        try:
            with self._paced(calls) if calls.functions else _UNPACED:
                self.cursor.execute(sql, parameters)
                rows = self._fetched(most, taken)
            if len(rows) > most:
                raise mistake("too_many_rows", there=f"Rows at most: {most}")
            return rows, self.cursor
        except BaseException:
            # Closed, so that the statement stops here and cannot be stepped on.
            self.cursor.close()
            self.cursor = self._cursor()
            raise
        finally:
            self.mode = CLOSED

    def _fetched(self, most: int, taken: Callable[[list[Any]], None] | None) -> list[Any]:
        """The rows of the statement that runs. One more than `most` shows that there are too many.

        The one too many is not told to `taken`: nobody gets to see it.
        """
        if taken is None:
            return self.cursor.fetchmany(most + 1)

        rows: list[Any] = []
        while len(rows) <= most:
            some, failed = self._some(min(_AT_ONCE, most + 1 - len(rows)))
            rows += some
            if some and len(rows) <= most:
                taken(some)
            if failed is not None:
                raise failed
            if not some:
                break
        return rows

    def _some(self, most: int) -> tuple[list[Any], Exception | None]:
        """The next rows, up to so many, and what the one after them failed with.

        One by one: of a failure in the middle, `fetchmany` would not tell which were read before.
        """
        some: list[Any] = []
        try:
            while len(some) < most:
                row = self.cursor.fetchone()
                if row is None:
                    break
                some.append(row)
        except Exception as error:
            return some, error
        return some, None
