"""One guarded block: its transaction, and the statements in it. The rules are in `postgres`.

The life of a block:

    enter      the connection is idle, and its login is a narrow one (1); nothing is begun yet
    execute    the statement is judged, sent and judged again (`runner`), with the first one the
               beginning of the transaction (`transaction`); its rows are handed out
    execute_once   the same for one statement and its commit, with nothing before it or after it
    leave      there is nothing more to come
    commit     the grant is asked about what was written (11); the transaction is committed
    end        or rolled back, where an exception left the block

The steps that speak to the server are generators (`transaction`).
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from captoken._format.errors import GuardError
from captoken._format.spelling import shown
from captoken._language.access import Access, Caller
from captoken._language.costs import Cost
from captoken._verification.decision import Decision
from captoken._verification.grant import Grant
from captoken.adapters._costed_grant import CostedGrant
from captoken.adapters._postgres.assessment import Assessor
from captoken.adapters._postgres.judging import Judge
from captoken.adapters._postgres.logins import kept_assessor, read_assessor
from captoken.adapters._postgres.names import function_access
from captoken.adapters._postgres.opening import COMMIT, ROLLBACK, Opening, told_of
from captoken.adapters._postgres.runner import Done, Runner
from captoken.adapters._postgres.text import Functions
from captoken.adapters._postgres.transaction import Transaction
from captoken.adapters._postgres.wire import Command, Connection, Steps


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
            raise TypeError(
                f"a {type(grant).__name__} is no Grant: only a verifier hands one out, as "
                "verifier.authenticate(token)"
            )
        # PostgreSQL takes 0 for no limit at all.
        if type(timeout) is not int or timeout <= 0:
            raise ValueError(
                f"timeout must be a number of seconds, more than 0, as int, not {shown(timeout)}"
            )

        self.connection = connection
        self._costed_grant = CostedGrant(grant, cost)
        self._caller = caller
        self._max_rows = max_rows
        self._functions = _functions(functions)

        told = told_of(grant, connection)
        self._told = told
        opening = Opening(
            told,
            timeout,
            calls_functions=bool(self._functions),
        )
        self._transaction = Transaction(connection, opening, max_rows)

        # From `enter` on: which roles there are is asked there.
        self._judge: Judge
        self._runner: Runner

        # The one thread that may use it, whether a statement runs, whether one was asked for, and
        # whether the block has ended.
        self._thread = threading.get_ident()
        self._busy = False
        self._used = False
        self._over = False

        # Rule 11. What the block did that a commit makes last, each once.
        self._written: dict[Hashable, Access] = {}

    # --- the block: from its beginning to its end ---

    def enter(self) -> bool:
        """Rule 1. Whether the roles of the login are still to be read.

        Raises GuardError for a connection that cannot be guarded.

        The transaction begins with the first statement, in one round trip with it.
        """
        self._transaction.check_usable()
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
            self._costed_grant,
            self._caller,
            assessor,
            self._max_rows,
            self._told.permissions,
            self._told.may_restrict_rows,
        )
        self._runner = Runner(
            self.connection,
            self._judge,
            self._transaction,
            self._functions,
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
        if not self._transaction.begun:
            self._transaction.check_idle()
        return self

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
            self._transaction.close()
            raise GuardError(
                "the block was left while a statement of it runs: the connection is closed"
            )

        begun = self._transaction.begun
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
            yield from self._end(ROLLBACK)
            raise

        # Rolled back first, and recorded then: what is on record as denied is undone.
        if late is not None:
            yield from self._end(ROLLBACK)
            self._judge.deny_late(late)

        yield from self._end(COMMIT)

    def roll_back(self) -> Steps:
        """ROLLBACK, for a block that an exception left."""
        yield from self._end(ROLLBACK)

    def _end(self, how: Command) -> Steps:
        """COMMIT or ROLLBACK. Raises what a commit failed with, and GuardError (`Transaction`).

        By the same rule as of a statement: a constraint that is checked late can quote a row.
        """
        error = yield from self._transaction.end(how)
        if error is not None:
            self._judge.raise_reported(error)

    # --- a statement ---

    def execute(self, sql: str, parameters: Sequence[Any]) -> Steps:
        """Run one statement, and fetch its rows."""
        self._used = True
        # What ran next would be committed by itself, in whatever role.
        if self._transaction.begun and not self._transaction.is_open:
            raise GuardError("the transaction of this block is over: leave it")

        done: Done = yield from self._runner.run(sql, parameters, alone=False)
        self._note_written(done.needs)
        return done.rows

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
            done: Done = yield from self._runner.run(sql, parameters, alone=True)
            # Rule 11. The grant was asked just now, when the statement was done. What only read was
            # a transaction by itself, which is over.
            if self._transaction.begun:
                yield from self._end(COMMIT)
        finally:
            self._transaction.ended()
        return done.rows

    def _note_written(self, needs: Sequence[Access]) -> None:
        """Rule 11. What is to be asked about once more when the block is committed.

        `execute` is among it: what a function did is not known.
        """
        # Else PostgreSQL itself saw to it that nothing was written.
        if not self._transaction.writing:
            return

        # Each once, however many statements wrote it.
        for need in needs:
            if need.operation != "select":
                key = need.table, need.operation, need.columns
                self._written[key] = self._costed_grant.stated(need)


def _functions(given: Iterable[str]) -> Functions:
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
