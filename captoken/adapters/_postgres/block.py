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

from collections.abc import Iterable, Sequence
from typing import Any

from captoken._format.errors import GuardError
from captoken._format.spelling import shown
from captoken._language.access import Caller
from captoken._language.costs import Cost
from captoken._verification.grant import Grant
from captoken.adapters._costed_grant import CostedGrant
from captoken.adapters._guarded_block import GuardedBlock
from captoken.adapters._postgres.assessment import Assessor
from captoken.adapters._postgres.judging import Judge
from captoken.adapters._postgres.logins import kept_assessor, read_assessor
from captoken.adapters._postgres.names import function_access
from captoken.adapters._postgres.opening import COMMIT, ROLLBACK, Opening, told_of
from captoken.adapters._postgres.reports import Reports
from captoken.adapters._postgres.runner import Done, Runner
from captoken.adapters._postgres.text import Functions
from captoken.adapters._postgres.transaction import Transaction
from captoken.adapters._postgres.wire import Command, Connection, Steps


class Block(GuardedBlock):
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
            raise GuardError("the connection is closed: open a new one for the block")
        super().__init__(CostedGrant(grant, cost, caller))
        # PostgreSQL takes 0 for no limit at all.
        if type(timeout) is not int or timeout <= 0:
            raise ValueError(
                f"timeout must be an int of seconds, more than 0, not {shown(timeout)}"
            )

        self.connection = connection
        self._is_anybody = caller is None
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
        self._reports = Reports(connection, self._grant)

        # From `enter` on: which roles there are is asked there.
        self._judge: Judge
        self._runner: Runner

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
        # What was found of the grant is shared where nobody is asked about with it.
        self._judge = Judge(
            self.connection,
            self._grant,
            assessor,
            self._max_rows,
            self._told.permissions if self._is_anybody else {},
            self._told.may_restrict_rows,
        )
        self._runner = Runner(
            self.connection,
            self._judge,
            self._reports,
            self._transaction,
            self._functions,
        )

    def one_at_a_time(self) -> Block:
        """Around a statement.

        Raises GuardError where it is not to be used (`check_usable`): the answers of another
        statement would be taken for those of this one.
        """
        self.check_usable()
        if self.connection.closed:
            raise GuardError("this block's connection is closed, and its changes are rolled back")

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
                "you left the block while its statement was running: the connection is closed"
            )

        begun = self._transaction.begun
        closed = self.connection.closed

        # Else the block would end as if it had been committed.
        if commit and closed and self._used and not ended_before:
            raise GuardError("this block's connection is closed, and its changes are rolled back")
        return begun and not closed

    def commit(self) -> Steps:
        """Rule 11. COMMIT, if the grant still permits what the block wrote. Else ROLLBACK.

        Raises Denied, when it is rolled back. Where who is asked does not answer, that is a no,
        and their exception is raised.
        """
        try:
            late = self._late()
        except BaseException:
            yield from self._end(ROLLBACK)
            raise

        # Rolled back first, and recorded then: what is on record as denied is undone.
        if late is not None:
            yield from self._end(ROLLBACK)
            raise self._grant.denied(late)

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
            self._reports.raise_reported(error)

    # --- a statement ---

    def execute(self, sql: str, parameters: Sequence[Any]) -> Steps:
        """Run one statement, and fetch its rows."""
        self._used = True
        # What ran next would be committed by itself, in whatever role.
        if self._transaction.begun and not self._transaction.is_open:
            raise GuardError("this block's transaction has ended: leave the block")

        done: Done = yield from self._runner.run(sql, parameters, alone=False)
        # Rule 11. `execute` is among it: what a function did is not known. Where nothing can write,
        # PostgreSQL itself saw to it.
        if self._transaction.writing:
            self._note_written(done.needs)
        return done.rows

    def execute_once(self, sql: str, parameters: Sequence[Any]) -> Steps:
        """Run the only statement of the block, commit, and only then hand out its rows.

        The block is over with it, whatever comes of it. `leave` finds nothing to end.
        """
        self._check_unused()
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
