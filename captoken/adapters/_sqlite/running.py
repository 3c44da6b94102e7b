"""A statement that runs: whether it may go on, what it takes, and how it is undone.

Here are enforced rules 2, 10, 14 and 15 of `captoken.adapters.sqlite`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NoReturn

from captoken._format.encoding import decode_json
from captoken._format.errors import CaptokenError
from captoken._language.access import Access
from captoken._verification.decision import Decision
from captoken.adapters._costed_grant import CostedGrant
from captoken.adapters._rows import Rows
from captoken.adapters._sqlite.faults import mistaken
from captoken.adapters._sqlite.held import Target
from captoken.adapters._sqlite.lexer import CHANGING
from captoken.adapters._sqlite.naming import table_name
from captoken.adapters._sqlite.plan import Plan
from captoken.adapters._sqlite.watch import Watch
from captoken.adapters._usage_meter import UsageMeter

# Around a statement of which nothing is to be undone.
WHOLE = nullcontext()


class TooLong(Exception):  # noqa: N818, the name reads as what it is
    """A value is too long, perhaps in a row that is not granted: that is no fault of the statement.

    It is run anew by another text (`Plan.apart`).
    """


class Pulse:
    """Whether the statement that runs may go on, which SQLite asks now and then.

    A long statement does not outlive its grant, nor what it does a right to do it.
    """

    def __init__(self, grant: CostedGrant) -> None:
        self._grant = grant

        # The accesses that the running statement needs.
        self.needs: Sequence[Access] = ()

        # Why it was interrupted: the grant no longer permits it, or it could not be asked.
        self._why: Decision | BaseException | None = None

    def begin(self) -> None:
        """A statement is about to run: nothing has interrupted it."""
        self._why = None

    @property
    def has_interrupted(self) -> bool:
        """Whether it said no, so that SQLite has stopped the statement."""
        return self._why is not None

    def alive(self) -> bool:
        """May the statement that runs go on? The progress handler asks, every so many opcodes."""
        try:
            decision = self._grant.recheck(self.needs, under_way=True)
        except BaseException as error:
            # An interrupt, or a clock that cannot be read. SQLite would swallow it: kept, and
            # raised when the statement has stopped.
            self._why = error
            return False

        if not isinstance(self._why, BaseException):
            self._why = None if decision else decision
        return bool(decision)

    def refuse(self, target: Target) -> NoReturn:
        """Raise Denied for a row that the statement writes and the grant does not permit."""
        table = table_name(*target.part.key)
        why = f"{target.operation} on table {table}, of a row that is not granted"
        rows = tuple(map(decode_json, target.part.rows))
        access = Access(table=table, operation=target.operation, rows=rows)
        raise self._grant.denied("row", why, access)

    def interruption(self) -> BaseException:
        """Why the statement was stopped. SQLite says only that it was interrupted.

        A denial is recorded here, once the statement has stopped.
        """
        if isinstance(self._why, BaseException):
            return self._why

        # Whoever asks has looked whether it has.
        assert self._why is not None  # noqa: S101
        return self._grant.denied(self._why)


class Running:
    """Runs statements that are permitted, on a connection under its authorizer."""

    def __init__(self, watch: Watch, pulse: Pulse, max_rows: int) -> None:
        self._watch = watch
        self._pulse = pulse
        self._max_rows = max_rows

    def run(self, parameters: Any, plan: Plan, meter: UsageMeter) -> Rows:
        """Run a statement that is permitted (rule 2), and count what it takes (rule 14).

        It may ask the authorizer for what it was seen to ask for when it was planned, and for
        nothing else. Raises TooLong.
        """
        self._pulse.needs = plan.needs
        changes = self._watch.connection.total_changes
        failed: Exception | None = None
        rows: list[Any] = []
        cursor = self._watch.cursor
        try:
            rows, cursor = self._watch.run(
                plan.sent,
                parameters,
                plan.events,
                plan.calls,
                self._max_rows,
                meter.read if meter.counts else None,
            )
        except Exception as error:
            failed = error
        finally:
            self._pulse.needs = ()
        if failed is not None:
            if plan.target is not None and str(failed) == plan.target.raised:
                self._pulse.refuse(plan.target)
            is_too_long = getattr(failed, "sqlite_errorcode", 0) == sqlite3.SQLITE_TOOBIG
            if plan.apart and is_too_long:
                raise TooLong
            self._raise_counted(plan.text.sql, failed, meter)
        meter.done(self._watch.connection.total_changes - changes)

        columns = tuple([column[0] for column in cursor.description or ()])
        return Rows(columns, rows, self._changed(plan, cursor))

    def _changed(self, plan: Plan, cursor: sqlite3.Cursor) -> int:
        """How many rows the statement itself has changed, or -1.

        Python counts for what begins with INSERT, UPDATE or DELETE, and not with the query of a
        part (rule 13).
        """
        if not plan.parts or plan.text.first not in CHANGING:
            return cursor.rowcount
        ((changes,),) = self._watch.own("SELECT changes()")
        return int(changes)

    def _raise_counted(self, sql: str, failed: Exception, meter: UsageMeter) -> NoReturn:
        """Raise what a statement failed with (rule 15), if its budget has enough for being told.

        Out of the handler, so that nothing shows what SQLite said: that can quote values. What is
        the guard's own says nothing of them, and of an interrupt it says more itself.
        """
        is_own = isinstance(failed, CaptokenError)
        if not is_own and not self._pulse.has_interrupted:
            failed = mistaken(sql, failed, ran=True) or failed
            meter.failed(str(failed))
        raise failed

    @contextmanager
    def undone_if_refused(self) -> Generator[None, None, None]:
        """Around a write that is counted: one that is ended in the middle leaves nothing.

        One that fails by itself SQLite undoes. This is for one that its budget ends.
        """
        self._watch.own("SAVEPOINT captoken")
        try:
            yield
        except BaseException:
            # SQLite may have rolled back all of the transaction by itself.
            if self._watch.connection.in_transaction:
                self._watch.own("ROLLBACK TO captoken")
                self._watch.own("RELEASE captoken")
            raise
        self._watch.own("RELEASE captoken")
