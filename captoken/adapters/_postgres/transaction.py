"""One transaction on one connection: how it begins, what is sent in it, how it is undone and ended.

It asks nobody whether a statement is permitted: `runner` does, before it and after it. The rules
are in `postgres`. What goes ahead of each statement is in `opening`.

The steps that speak to the server are generators. psycopg's own `wait` runs them, for both kinds of
connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus

from captoken._format.errors import GuardError
from captoken.adapters._postgres.assumptions import About, Assumptions
from captoken.adapters._postgres.judging import Permitted
from captoken.adapters._postgres.opening import COMMIT, ROLLBACK, Opening
from captoken.adapters._postgres.parameters import bound
from captoken.adapters._postgres.wire import (
    Answer,
    Command,
    Connection,
    ErrorReport,
    Steps,
    exchange,
)
from captoken.adapters._postgres.written import HOW_MANY, written

# Rule 5. What the server says that it did, for each kind of statement that is granted.
_KINDS = frozenset((b"SELECT", b"INSERT", b"UPDATE", b"DELETE", b"MERGE"))


class Transaction:
    """What the connection of a block is told, and what it answers.

    Nothing is begun before the first statement, which is sent with the beginning.
    """

    def __init__(
        self,
        connection: Connection,
        opening: Opening,
        max_rows: int,
    ) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._opening = opening
        self._max_rows = max_rows

        # What the schema was found to be, as long as its tables are locked.
        self._seen: set[About] = set()

    # --- what it is ---

    @property
    def begun(self) -> bool:
        """Whether there is one, by what the server was told."""
        return self._opening.begun

    @property
    def writing(self) -> bool:
        """Whether the one that was begun can write. If not, PostgreSQL itself sees to that."""
        return self._opening.writing

    @property
    def is_open(self) -> bool:
        """Whether the server has it open, and no error has spoilt it."""
        return bool(self._pgconn.transaction_status == TransactionStatus.INTRANS)

    @property
    def is_idle(self) -> bool:
        """Whether the server has none at all."""
        return bool(self._pgconn.transaction_status == TransactionStatus.IDLE)

    def check_usable(self) -> None:
        """Raises GuardError for a connection on which none can be begun."""
        self.check_idle()

        # Answers of others would be taken for the guard's.
        if self._pgconn.pipeline_status != PipelineStatus.OFF:
            raise GuardError("the connection is in pipeline mode: leave it first")

        # Rule 4. The server would take the bytes for other characters than were read.
        if self._connection.info.encoding != "utf-8":
            raise GuardError("the connection's client_encoding is not UTF8: set it to UTF8")

    def check_idle(self) -> None:
        """Raises GuardError where the block would end what somebody else has begun."""
        if not self.is_idle:
            raise GuardError("the connection has an open transaction: commit it, or roll it back")

    def check_own(self) -> None:
        """It is still the one that the guard began, or it is over if that was meant.

        No statement that is granted could end it (5). If one came through all the same, what it did
        is committed or gone, and nothing of the opening holds any more: role, limits, facts.
        """
        holds = self.is_open if self.begun else self.is_idle
        if not holds:
            self.close()
            raise GuardError(
                "the guard can no longer rely on this block's transaction: the connection is closed"
            )

    def close(self) -> None:
        """Close the connection: what is not committed is rolled back by that."""
        self._pgconn.finish()

    # --- a statement in it ---

    def send(
        self,
        parameters: Sequence[Any],
        permitted: Permitted,
        alone: bool,
    ) -> Steps:
        """Send a statement behind its opening, and give its answer.

        Behind it is asked whether the schema is as it was judged by, once in a block for what it
        takes for granted. After that, the tables are locked until the block ends.

        A statement that is alone and only reads is a transaction by itself, with its opening and
        that question. It is over with the answer.

        Raises GuardError where the server did not do what it was told, and QueryCanceled where it
        does not end in time. The connection is closed then.
        """
        meter = permitted.meter
        statement = bound(
            self._connection,
            permitted.assessed.sent.sql,
            parameters,
            self._max_rows,
            permitted.role,
            meter.read if meter.counts else None,
        )
        begins = not self.begun
        opening = self._opened(permitted, alone)
        assumed = self._still_assumed(permitted)
        questions = [] if assumed is None else [assumed.question()]

        # Rule 13. What it wrote is the difference of two counts.
        counting = [HOW_MANY] if meter.counts_writes else []

        # In one round trip. Ahead of the answer of the statement are those of what was done ahead.
        answers: list[Answer] = yield from self._exchange(
            [*opening, *counting, statement, *counting, *questions]
        )
        seen = answers.pop() if questions else None
        after = answers.pop() if counting else None
        answer = answers.pop()
        self._check_opened(answers)
        before = answers.pop() if counting else None
        if before is not None and after is not None:
            answer.written = written(before, answer, after)
        self._opening.ran(permitted.role, answers[-1].text if begins else None)

        self._check_kind(answer)
        if assumed is not None and seen is not None:
            self._check_seen(assumed, seen, answer)
        return answer

    def _opened(self, permitted: Permitted, alone: bool) -> list[Command]:
        """Return the commands that are sent before the statement."""
        role, decision = permitted.role, permitted.decision
        if self.begun:
            return self._opening.next(role, decision)

        # A function of the owner's can do anything: its operation is another one.
        reads = not self._opening.may_write or all(
            need.operation == "select" for need in permitted.assessed.accesses
        )
        if alone and reads:
            return self._opening.only(role, decision, permitted.rows)
        return self._opening.first(role, decision, permitted.rows)

    def _still_assumed(self, permitted: Permitted) -> Assumptions | None:
        """Return the plan's assumptions that this transaction has not confirmed yet."""
        assumed = permitted.assessed.assumed
        if assumed is None or assumed.about in self._seen:
            return None
        return assumed

    def undo(self) -> Steps:
        """Rule 10. Undo the last statement: to its savepoint, or with its transaction.

        Where a transaction is over already, it was one that only read.
        """
        if self.begun:
            yield from self._exchange([self._opening.undo()])

        # Its locks are gone with it.
        if not self.begun:
            self._seen.clear()

    def _exchange(self, commands: Sequence[Command]) -> Steps:
        """Rule 7. For as long as the server was told that a statement may take."""
        answers: list[Answer] = yield from exchange(
            self._connection,
            commands,
            self._opening.seconds(),
        )
        return answers

    # --- what came of it ---

    def _check_opened(self, answers: Sequence[Answer]) -> None:
        """Raise GuardError unless the commands before the statement succeeded.

        If not, nobody can say in which role a statement would run, or whether it would be noted
        who acts. The statement itself did not: after an error, the server runs nothing more.
        """
        for answer in answers:
            if answer.error is not None:
                self.close()
                raise GuardError(
                    "PostgreSQL refused to begin, and the connection is closed: "
                    f"{answer.error.message}"
                )

    def _check_kind(self, answer: Answer) -> None:
        """Rule 5. The server did what one of the granted kinds of statement does.

        If not, the text was read wrongly. What was done by it can outlast the transaction.
        """
        kind, _, _ = answer.did.partition(b" ")
        if answer.ran and kind not in _KINDS:
            self.close()
            raise GuardError(
                "PostgreSQL did something other than what the guard read: the connection is closed"
            )

    def _check_seen(self, assumed: Assumptions, seen: Answer, answer: Answer) -> None:
        """Note in the answer of a statement whether it was judged by what there is.

        Of a statement that failed there is nothing to be handed out, and no lock either.
        """
        if not answer.ran:
            return

        # Canceled in the middle, above all: then nobody knows.
        if seen.error is not None:
            answer.error = seen.error
        elif assumed.hold(seen.text):
            self._seen.add(assumed.about)
        else:
            answer.stale = True

    # --- its end ---

    def end(self, how: Command) -> Steps:
        """COMMIT or ROLLBACK. Gives the error of a commit that failed, and was rolled back.

        Deferred constraints are checked by it. A transaction that is open all the same is rolled
        back, so that the connection is left as it was found.

        Raises GuardError, `outcome_unknown`, where the connection is lost at a commit. Nothing is
        tried again then: what was written may be there already.
        """
        commits = how is COMMIT
        try:
            (answer,) = yield from self._exchange([how])
        except psycopg.Error:
            # What could not write has no outcome that anybody would have to know.
            if not (commits and self.writing):
                raise
            raise GuardError(
                "the connection was lost at the commit: the changes may or may not be saved",
                "outcome_unknown",
            ) from None

        if not self.is_idle:
            yield from self._exchange([ROLLBACK])
        error: ErrorReport | None = answer.error

        # The server ends with ROLLBACK, and without an error, what somebody else has spoilt.
        if error is None and commits and answer.did != b"COMMIT":
            raise GuardError("this block's transaction failed, and its changes are rolled back")
        return error

    def ended(self) -> None:
        """It is over, however it ended. What is open all the same was interrupted: it is closed."""
        self._opening.ended()
        if not self.is_idle:
            self.close()
