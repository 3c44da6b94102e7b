"""One guarded block: its transaction, and the statements in it. The rules are in `postgres`.

The life of a block:

    enter      the connection is idle, and its login is a narrow one (1); nothing is begun yet
    execute    the grant is asked (5, 6); the statement is sent behind its opening, with the first
               one the beginning of the transaction (2, 3, 4, 7, 8); if the schema is another than
               was read, it is undone, judged and sent anew (12); the grant is asked again (11);
               rows are handed out, or all that the statement did is undone (10)
    execute_once   the same for one statement and its commit, with nothing before it or after it
    leave      there is nothing more to come
    commit     the grant is asked about what was written (11); the transaction is committed
    end        or rolled back, where an exception left the block

The steps that speak to the server are generators. psycopg's own `wait` runs them, for
both kinds of connection.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from captoken._format.extras import extra

with extra("postgres"):
    import psycopg
    from psycopg.pq import PipelineStatus, TransactionStatus

from captoken._format.errors import CaptokenError, GuardError
from captoken._format.spelling import shown
from captoken._language.access import Access, Caller
from captoken._language.costs import Cost
from captoken._verification.decision import Decision, Grant
from captoken.adapters._paying import Paying
from captoken.adapters._postgres.assessment import Assessor
from captoken.adapters._postgres.assumptions import About, Assumptions
from captoken.adapters._postgres.judging import Judge, Permitted
from captoken.adapters._postgres.logins import assessor_anew, kept_assessor, read_assessor
from captoken.adapters._postgres.names import function_access
from captoken.adapters._postgres.opening import COMMIT, ROLLBACK, Opening, told_of
from captoken.adapters._postgres.parameters import bound, check_types
from captoken.adapters._postgres.wire import (
    Answer,
    Command,
    Connection,
    ErrorReport,
    Steps,
    exchange,
)
from captoken.adapters._postgres.written import HOW_MANY, written
from captoken.adapters._rows import Rows
from captoken.adapters._taking import Taking

# Rule 5. What the server says that it did, for each kind of statement that is granted.
_KINDS = frozenset((b"SELECT", b"INSERT", b"UPDATE", b"DELETE", b"MERGE"))


class Block:
    """One guarded block on one connection.

    Raises GuardError, TypeError or ValueError for what it is made of. Nothing is sent by that.
    """

    def __init__(
        self,
        connection: Connection,
        grant: Grant,
        caller: Caller | None,
        max_rows: int,
        timeout: int,
        functions: Iterable[str],
        cost: Cost | None = None,
    ) -> None:
        if connection.closed:
            raise GuardError("the connection is closed: open one for the block")
        if not isinstance(grant, Grant):
            raise TypeError(f"a {type(grant).__name__} is no Grant: only a verifier hands one out")
        # PostgreSQL takes 0 for no limit at all.
        if type(timeout) is not int or timeout <= 0:
            raise ValueError(
                f"timeout must be a number of seconds, more than 0, as int, not {shown(timeout)}"
            )

        self.connection = connection
        self._pgconn = connection.pgconn
        self._paying = Paying(grant, cost)
        self._caller = caller
        self._max_rows = max_rows
        self._functions = _functions(functions)

        # What goes ahead of each statement. It knows which role is taken on.
        self._opening = Opening(
            told_of(grant, connection),
            timeout,
            calls_functions=bool(self._functions),
        )

        # From `enter` on: which roles there are is asked there.
        self._judge: Judge

        # The one thread that may use it, whether a statement runs, whether one was asked for, and
        # whether the block has ended.
        self._thread = threading.get_ident()
        self._busy = False
        self._used = False
        self._over = False

        # What the schema was found to be, in this block.
        self._seen: set[About] = set()

        # Rule 11. What the block did that a commit makes last, each once.
        self._written: dict[Hashable, Access] = {}

    # --- the block: from its beginning to its end ---

    def enter(self) -> bool:
        """Rule 1. Whether the roles of the login are still to be read.

        Raises GuardError for a connection that cannot be guarded.

        The transaction begins with the first statement, in one round trip with it.
        """
        self._check_idle()

        # Answers of others would be taken for the guard's.
        if self._pgconn.pipeline_status != PipelineStatus.OFF:
            raise GuardError("the connection is in pipeline mode: leave it first")

        # Rule 4. The server would take the bytes for other characters than were read.
        if self.connection.info.encoding != "utf-8":
            raise GuardError("the connection's client_encoding is not UTF8: set it to UTF8")

        assessor = kept_assessor(self.connection, self._functions)
        if assessor is None:
            return True
        self._judge_by(assessor)
        return False

    def read_roles(self) -> Steps:
        """Rule 1. Raises GuardError for a login that is no narrow one."""
        assessor = yield from read_assessor(self.connection, self._functions)
        self._judge_by(assessor)

    def _judge_by(self, assessor: Assessor) -> None:
        self._judge = Judge(
            self.connection,
            self._paying,
            self._caller,
            assessor,
            self._max_rows,
        )

    def one_at_a_time(self) -> Block:
        """Around a statement.

        Raises GuardError in another thread, after the end of the block, and while another
        statement of it runs: that one's answers would be taken for this one's. Two tasks that share
        a block come to that, and so does Python code which a statement's values call.
        """
        if threading.get_ident() != self._thread:
            raise GuardError("the block belongs to another thread: each has a block of its own")
        if self._over:
            raise GuardError("the block has ended: ask within its `with`")
        if self._busy:
            raise GuardError("a statement of this block is running: ask one after the other")
        if self.connection.closed:
            raise GuardError("the connection of this block is closed: what it did is rolled back")

        # Nothing is begun before the first statement, and after one that was undone.
        if not self._opening.begun:
            self._check_idle()
        return self

    def _check_idle(self) -> None:
        """Raises GuardError where the block would end what somebody else has begun."""
        if self._pgconn.transaction_status != TransactionStatus.IDLE:
            raise GuardError("the connection has an open transaction: commit it, or roll it back")

    def __enter__(self) -> None:
        self._busy = True

    def __exit__(self, *raised: object) -> None:
        self._busy = False

    def leave(self, commit: bool = False) -> bool:
        """Whether there is something to end. After this, no statement runs in the block.

        Raises GuardError for a block that is left while one runs, as an async one can be, and for
        a commit that cannot be made. False, and there is no transaction: no statement was sent, or
        the connection is closed.
        """
        ended_before = self._over  # by `execute_once`
        self._over = True

        # An answer that is still to come would be read by whoever uses the connection next.
        if self._busy:
            self._pgconn.finish()
            raise GuardError(
                "the block was left while a statement of it runs: the connection is closed"
            )

        begun = self._opening.begun
        closed = self.connection.closed

        # Else the block would end as if it had been committed.
        if commit and closed and self._used and not ended_before:
            raise GuardError("the connection of this block is closed: what it did is rolled back")
        return begun and not closed

    def commit(self) -> Steps:
        """Rule 11. COMMIT, if the grant still permits what the block wrote. Else ROLLBACK.

        Raises Denied, when it is rolled back. Where who is asked does not answer, that is a no,
        and their exception is raised.
        """
        late: Decision | None = None
        try:
            # A block that only read leaves nothing that could be taken back.
            if self._written:
                late = self._judge.late_denial(self._written.values())
        except BaseException:
            yield from self.end(ROLLBACK)
            raise

        # Rolled back first, and recorded then: what is on record as denied is undone.
        if late is not None:
            yield from self.end(ROLLBACK)
            self._judge.deny_late(late)

        yield from self.end(COMMIT)

    def roll_back(self) -> Steps:
        """ROLLBACK, for a block that an exception left."""
        yield from self.end(ROLLBACK)

    def end(self, how: Command) -> Steps:
        """COMMIT or ROLLBACK.

        A commit that fails has rolled back: deferred constraints are checked by it. A transaction
        that is open all the same is rolled back, so that the connection is left as it was found.

        Raises GuardError, `outcome_unknown`, where the connection is lost at a commit. Nothing is
        tried again then: what was written may be there already.
        """
        commits = how is COMMIT
        try:
            (answer,) = yield from self._exchange([how])
        except psycopg.Error:
            # What could not write has no outcome that anybody would have to know.
            if not (commits and self._opening.writing):
                raise
            raise GuardError(
                "the connection was lost at the commit: whether what was written is there is not "
                "known",
                "outcome_unknown",
            ) from None

        if self._pgconn.transaction_status != TransactionStatus.IDLE:
            yield from self._exchange([ROLLBACK])

        # By the same rule as of a statement: a constraint that is checked late can quote a row.
        if answer.error is not None:
            self._judge.raise_reported(answer.error)

        # The server ends with ROLLBACK, and without an error, what somebody else has spoilt.
        if commits and answer.did != b"COMMIT":
            raise GuardError("the transaction of this block was spoilt: what it did is rolled back")

    # --- a statement ---

    def execute(self, sql: str, parameters: Sequence[Any]) -> Steps:
        """Run one statement, and fetch its rows."""
        self._used = True
        # What ran next would be committed by itself, in whatever role.
        if self._opening.begun and not self._in_transaction():
            raise GuardError("the transaction of this block is over: leave it")

        needs, answer = yield from self._perform(sql, parameters, alone=False)
        self._note_written(needs)
        return Rows(answer.columns, answer.rows, answer.count)

    def execute_once(self, sql: str, parameters: Sequence[Any]) -> Steps:
        """Run the only statement of the block, commit, and only then hand out its rows.

        The block is over with it, whatever comes of it. `leave` finds nothing to end.
        """
        if self._used:
            raise GuardError(
                "execute_once is for the first and only statement of a block: open one for it"
            )
        self._used = self._over = True
        try:
            _, answer = yield from self._perform(sql, parameters, alone=True)
            # Rule 11. The grant was asked just now, when the statement was done. What only read was
            # a transaction by itself, which is over.
            if self._opening.begun:
                yield from self.end(COMMIT)
        finally:
            self._opening.ended()
            # What is open all the same was interrupted, and is rolled back by that.
            if self._pgconn.transaction_status != TransactionStatus.IDLE:
                self._pgconn.finish()
        return Rows(answer.columns, answer.rows, answer.count)

    def _perform(self, sql: str, parameters: Sequence[Any], *, alone: bool) -> Steps:
        """Run one statement, and give what it needed, and its answer.

        The order matters. What is raised before `exchange` has sent nothing. What is raised after
        it is raised when the statement is undone, and the transaction known to be the guard's; or
        else the connection is closed.
        """
        check_types(sql, parameters)
        # Rule 4. Exact: a subclass of str might be read as one text, and encode to another.
        sql = str.__str__(sql)
        parameters = tuple(parameters)  # read once: what is paid for is what is bound
        permitted = self._judge.judge(sql, parameters)
        with permitted.taking as taking:
            return (yield from self._counted(sql, parameters, permitted, taking, alone))

    def _counted(
        self,
        sql: str,
        parameters: Sequence[Any],
        permitted: Permitted,
        taking: Taking,
        alone: bool,
    ) -> Steps:
        """The same of a statement that is permitted. What it takes, `taking` settles after it."""
        answer = yield from self._run(sql, parameters, permitted, alone)
        if answer.stale:
            # Rule 12. The schema is not what the statement was judged by.
            yield from self._undo()
            assessor = yield from assessor_anew(
                self.connection,
                self._functions,
                begun=self._opening.begun,
            )
            permitted = self._judge.judge_again(sql, assessor, taking)
            answer = yield from self._run(sql, parameters, permitted, alone)
        if answer.stale:
            answer.failure = GuardError("the schema is being changed: run the statement again")

        needs = permitted.needs
        self._count_written(taking, answer)
        late = self._ask_again(needs, answer)
        failed = answer.error is not None or answer.failure is not None
        if failed or late is not None:
            yield from self._undo()
        self._check_transaction()
        self._raise_what_failed(sql, answer, late, taking)

        # From here on it is done. Once it is committed, if it is alone, the rows may be seen.
        return needs, answer

    def _undo(self) -> Steps:
        """Rule 10. Undo the last statement: to its savepoint, or with its transaction.

        Where a transaction is over already, it was one that only read.
        """
        if self._opening.begun:
            yield from self._exchange([self._opening.undo()])

        # Its locks are gone with it.
        if not self._opening.begun:
            self._seen.clear()

    def _run(
        self,
        sql: str,
        parameters: Sequence[Any],
        permitted: Permitted,
        alone: bool,
    ) -> Steps:
        """Send a statement behind its opening, and read its answer.

        Behind it is asked whether the schema is as it was judged by, once in a block for what it
        takes for granted. After that, the tables are locked until the block ends.

        A statement that is alone and only reads is a transaction by itself, with its opening and
        that question. It is over with the answer.
        """
        statement = bound(
            self.connection,
            sql,
            parameters,
            self._max_rows,
            permitted.role,
            permitted.taking.hand_out if permitted.taking.counts else None,
        )
        role, decision = permitted.role, permitted.decision
        begins = not self._opening.begun
        if not begins:
            opening = self._opening.next(role, decision)
        elif alone and (not self._opening.may_write or _only_reads(permitted.needs)):
            opening = self._opening.only(role, decision)
        else:
            opening = self._opening.first(role, decision)
        assumed = permitted.assumed
        asks = assumed is not None and assumed.about not in self._seen
        questions = [assumed.question()] if assumed is not None and asks else []

        # Rule 13. What it wrote is the difference of two counts.
        counts = permitted.taking.counts_writes
        counting = [HOW_MANY] if counts else []

        # In one round trip. Ahead of the answer of the statement are those of what was done ahead.
        answers: list[Answer] = yield from self._in_time(
            [*opening, *counting, statement, *counting, *questions]
        )
        seen = answers.pop() if asks else None
        after = answers.pop() if counts else None
        answer = answers.pop()
        self._check_opened(answers)
        before = answers.pop() if counts else None
        if before is not None and after is not None:
            answer.written = written(before, answer, after)
        self._opening.ran(role, answers[-1].text if begins else None)
        self._check_kind(answer)

        if assumed is not None and seen is not None:
            self._check_seen(assumed, seen, answer)
        return answer

    def _in_time(self, commands: Sequence[Command]) -> Steps:
        """Rule 7. Raises what a statement that is canceled raises, if they do not end in time.

        The connection is closed then. It may be that the token ended, and that is why.
        """
        try:
            return (yield from self._exchange(commands))
        except psycopg.errors.QueryCanceled as error:
            overran = ErrorReport.of(error)
        self._judge.raise_reported(overran)

    def _exchange(self, commands: Sequence[Command]) -> Steps:
        """Rule 7. For as long as the server was told that a statement may take."""
        answers: list[Answer] = yield from exchange(
            self.connection,
            commands,
            self._opening.seconds(),
        )
        return answers

    def _check_kind(self, answer: Answer) -> None:
        """Rule 5. The server did what one of the granted kinds of statement does.

        If not, the text was read wrongly. What was done by it can outlast the transaction.
        """
        kind, _, _ = answer.did.partition(b" ")
        ran = answer.error is None and answer.failure is None and not answer.stale
        if ran and kind not in _KINDS:
            self._pgconn.finish()
            raise GuardError(
                "PostgreSQL did something else than was read: the connection is closed"
            )

    def _check_seen(self, assumed: Assumptions, seen: Answer, answer: Answer) -> None:
        """Note in the answer of a statement whether it was judged by what there is.

        Of a statement that failed there is nothing to be handed out, and no lock either.
        """
        if answer.error is not None or answer.failure is not None or answer.stale:
            return

        # Canceled in the middle, above all: then nobody knows.
        if seen.error is not None:
            answer.error = seen.error
        elif assumed.hold(seen.text):
            self._seen.add(assumed.about)
        else:
            answer.stale = True

    def _check_opened(self, answers: Sequence[Answer]) -> None:
        """What goes ahead of the statement was done.

        If not, nobody can say in which role a statement would run, or whether it would be noted
        who acts. The statement itself did not: after an error, the server runs nothing more.
        """
        for answer in answers:
            if answer.error is not None:
                self._pgconn.finish()
                raise GuardError(
                    "PostgreSQL refused to begin, and the connection is closed: "
                    f"{answer.error.message}"
                )

    def _count_written(self, taking: Taking, answer: Answer) -> None:
        """Rule 13. Note in the answer that its budget has not enough for what it wrote."""
        if answer.error is not None or answer.failure is not None:
            return
        try:
            if answer.written is None:
                raise GuardError("track_counts is off: how many rows are written is not known")
            taking.wrote(answer.written)
        except Exception as error:
            # Kept, to be raised when the statement is undone.
            answer.failure = error

    def _ask_again(self, needs: Sequence[Access], answer: Answer) -> Decision | None:
        """Rule 11. The denial, if the grant does not permit any more what the statement did.

        Where who is asked does not answer, that is as if it had been no.
        """
        # It did nothing that could be permitted or not.
        if answer.error is not None or answer.failure is not None:
            return None

        try:
            return self._judge.late_denial(needs)
        except Exception as error:
            # Kept, to be raised when the statement is undone.
            answer.failure = error
            return None

    def _check_transaction(self) -> None:
        """The transaction is still the one that the guard began, or it is over if that was meant.

        No statement that is granted could end it (5). If one came through all the same, what it did
        is committed or gone, and nothing of the opening holds any more: role, limits, facts.
        """
        begun = self._opening.begun
        idle = self._pgconn.transaction_status == TransactionStatus.IDLE
        holds = self._in_transaction() if begun else idle
        if not holds:
            self._pgconn.finish()
            raise GuardError(
                "the transaction of this block cannot be relied on: the connection is closed"
            )

    def _raise_what_failed(
        self,
        sql: str,
        answer: Answer,
        late: Decision | None,
        taking: Taking,
    ) -> None:
        """Raise what went wrong, if anything did. By now it is undone."""
        if late is not None:
            self._judge.deny_late(late)

        # Before the error: where there were too many rows, that is of our own canceling.
        if answer.failure is not None:
            if not isinstance(answer.failure, CaptokenError):
                taking.tell(str(answer.failure))  # psycopg quotes the value that cannot be read
            raise answer.failure

        error = answer.error
        if error is not None:
            self._judge.misnamed(sql, error)
            taking.tell(error.message)
            self._judge.raise_reported(error)

    def _note_written(self, needs: Sequence[Access]) -> None:
        """Rule 11. What is to be asked about once more when the block is committed.

        `execute` is among it: what a function did is not known.
        """
        # Else PostgreSQL itself saw to it that nothing was written.
        if not self._opening.writing:
            return

        # Each once, however many statements wrote it.
        for need in needs:
            if need.operation != "select":
                key = need.table, need.operation, need.columns
                self._written[key] = self._paying.stated(need)

    def _in_transaction(self) -> bool:
        """Whether there is an open transaction, and not one that an error has spoilt."""
        status = self._pgconn.transaction_status
        return bool(status == TransactionStatus.INTRANS)


def _only_reads(needs: Iterable[Access]) -> bool:
    """Whether a statement does nothing but read. A function of the owner's can do anything."""
    return all(need.operation == "select" for need in needs)


def _functions(given: Iterable[str]) -> frozenset[tuple[str | None, str]]:
    """The owner's functions that may be called, by schema and name, as they are spelled.

    Raises ValueError for one that no token can name: nobody could be granted it.
    """
    if isinstance(given, str):
        raise TypeError('functions must be a list of names, like ["score"], not a str')

    found: set[tuple[str | None, str]] = set()
    for spelled in given:
        # Only to see whether it can be made.
        function_access(None, spelled)

        schema, _, name = spelled.rpartition(".")
        found.add((schema or None, name))
    return frozenset(found)
