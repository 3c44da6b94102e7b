"""One statement of a block, from its text to its answer. The rules are in `postgres`.

    judge     the grant is asked (5, 6)
    send      the statement is sent behind its opening (`transaction`)
    again     if the schema is another than was read, it is undone, judged and sent anew (12)
    count     what it wrote is taken of the token's budget (13)
    ask       the grant is asked again (11)
    undo      where anything failed or was refused, all that the statement did is undone (10)

What is raised before `send` has sent nothing. What is raised after it is raised when the statement
is undone, and the transaction known to be the guard's; or else the connection is closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg

from captoken._format.errors import GuardError, StatementError
from captoken._language.access import Access
from captoken._verification.decision import Decision
from captoken.adapters._postgres.judging import Judge, Permitted
from captoken.adapters._postgres.logins import assessor_anew
from captoken.adapters._postgres.parameters import check_types
from captoken.adapters._postgres.reports import Reports
from captoken.adapters._postgres.text import Functions
from captoken.adapters._postgres.transaction import Transaction
from captoken.adapters._postgres.wire import Answer, Connection, ErrorReport, Steps
from captoken.adapters._rows import Rows
from captoken.adapters._usage_meter import UsageMeter


class Done(NamedTuple):
    """A statement that ran, and that the grant still permits."""

    needs: Sequence[Access]
    rows: Rows


class Runner:
    """Runs the statements of one block, one after the other."""

    def __init__(
        self,
        connection: Connection,
        judge: Judge,
        reports: Reports,
        transaction: Transaction,
        functions: Functions,
    ) -> None:
        self._connection = connection
        self._judge = judge
        self._reports = reports
        self._transaction = transaction
        self._functions = functions

    def run(self, sql: str, parameters: Sequence[Any], *, alone: bool) -> Steps:
        """Run one statement, and give what it needed, and its rows: `Done`.

        `alone`: nothing else runs in its block. Raises Denied, StatementError, GuardError,
        TypeError, and what PostgreSQL raises, without its details (rule 9).
        """
        check_types(sql, parameters)
        # Rule 4. Exact: a subclass of str might be read as one text, and encode to another.
        sql = str.__str__(sql)
        parameters = tuple(parameters)  # read once: what is paid for is what is bound

        permitted = self._judge.judge(sql, parameters)
        with permitted.meter as meter:
            return (yield from self._counted(sql, parameters, permitted, meter, alone))

    def _counted(
        self,
        sql: str,
        parameters: Sequence[Any],
        permitted: Permitted,
        meter: UsageMeter,
        alone: bool,
    ) -> Steps:
        """The same of a statement that is permitted. What it takes, `meter` settles after it."""
        answer = yield from self._send(parameters, permitted, alone)
        if answer.stale:
            # Rule 12. The schema is not what the statement was judged by.
            yield from self._transaction.undo()
            assessor = yield from assessor_anew(
                self._connection,
                self._functions,
                begun=self._transaction.begun,
            )
            permitted = self._judge.judge_again(sql, assessor, meter)
            answer = yield from self._send(parameters, permitted, alone)
        if answer.stale:
            answer.failure = GuardError("the schema is being changed: run the statement again")

        _count_written(meter, answer)
        needs = permitted.assessed.accesses
        late = self._ask_again(needs, answer)
        failed = answer.error is not None or answer.failure is not None
        if failed or late is not None:
            yield from self._transaction.undo()
        self._transaction.check_own()
        if failed or late is not None:
            self._raise_what_failed(sql, permitted, answer, late)

        # From here on it is done. Once it is committed, if it is alone, the rows may be seen.
        return Done(needs, Rows(answer.columns, answer.rows, answer.count))

    def _send(
        self,
        parameters: Sequence[Any],
        permitted: Permitted,
        alone: bool,
    ) -> Steps:
        """Rule 7. Raises what a statement that is canceled raises, if it does not end in time.

        It may be that the token ended, and that is why.
        """
        try:
            return (yield from self._transaction.send(parameters, permitted, alone))
        except psycopg.errors.QueryCanceled as error:
            overran = ErrorReport.of(error)
        self._reports.raise_reported(overran)

    def _ask_again(self, needs: Sequence[Access], answer: Answer) -> Decision | None:
        """Rule 11. The denial, if the grant does not permit any more what the statement did.

        Where who is asked does not answer, that is as if it had been no.
        """
        # It did nothing that could be permitted or not.
        if answer.error is not None or answer.failure is not None:
            return None

        try:
            return self._judge.grant.late(needs)
        except Exception as error:
            # Kept, to be raised when the statement is undone.
            answer.failure = error
            return None

    def _raise_what_failed(
        self,
        sql: str,
        permitted: Permitted,
        answer: Answer,
        late: Decision | None,
    ) -> None:
        """Raise what went wrong. By now it is undone."""
        if late is not None:
            raise self._judge.grant.denied(late)

        found, meter = permitted.assessed, permitted.meter
        # Before the error: where there were too many rows, that is of our own canceling.
        if answer.failure is not None:
            if isinstance(answer.failure, StatementError):
                meter.failed(str(answer.failure))
            raise answer.failure

        error = answer.error
        if error is not None:
            self._reports.deny_reported(error, found.accesses)
            reported = self._reports.reported(sql, error, found)
            meter.failed(str(reported))
            raise reported


def _count_written(meter: UsageMeter, answer: Answer) -> None:
    """Rule 13. Note in the answer that its budget has not enough for what it wrote."""
    if answer.error is not None or answer.failure is not None:
        return
    try:
        if answer.written is None:
            raise GuardError(
                "track_counts is off, so the guard cannot count the rows that are written: turn it "
                "on"
            )
        meter.done(answer.written)
    except Exception as error:
        # Kept, to be raised when the statement is undone.
        answer.failure = error
