"""One guarded block: finds out what each statement needs, asks the grant, runs it.

The life of a block:

    execute        what the statement needs is found out, and the grant asked (`permitting`); it
                   runs, as long as the grant stands (`running`); the grant is asked once more
    execute_once   the same for one statement and its commit
    commit         the grant is asked about what was written, if anything was. COMMIT
    end            or ROLLBACK, where an exception left the block

Here is enforced rule 10 of `captoken.adapters.sqlite`: one thread, one statement at a time.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from captoken._format.errors import GuardError
from captoken._format.names import frozen_copy
from captoken.adapters._costed_grant import CostedGrant
from captoken.adapters._guarded_block import GuardedBlock
from captoken.adapters._rows import Rows
from captoken.adapters._sqlite.faults import mistaken
from captoken.adapters._sqlite.opcodes import Engine
from captoken.adapters._sqlite.permitting import Permitting
from captoken.adapters._sqlite.plan import Plan
from captoken.adapters._sqlite.planner import Planner
from captoken.adapters._sqlite.remembered import Connection
from captoken.adapters._sqlite.running import WHOLE, Pulse, Running, TooLong
from captoken.adapters._sqlite.watch import Watch
from captoken.adapters._usage_meter import UsageMeter


class Block(GuardedBlock):
    """Finds out what each statement needs, asks the grant, and runs it.

    Of one connection and one grant, for one transaction. A statement may yield `max_rows` rows, and
    no value of more than `max_value` bytes.

    Raises GuardError where the connection cannot be taken over (`Watch`). Whoever makes a block
    begins its transaction, and gives the connection back.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        grant: CostedGrant,
        engine: Engine,
        max_rows: int,
        max_value: int,
    ) -> None:
        super().__init__(grant)
        self.connection = connection

        # From here on the connection has its authorizer, and nothing is permitted.
        memory = connection.remembered if isinstance(connection, Connection) else None
        is_fit = memory is not None and memory.is_fit
        self._pulse = Pulse(grant)
        self.watch = Watch(connection, self._pulse.alive, is_fit, max_value)
        if memory is not None:
            memory.is_fit = True

        self._planner = Planner(self.watch, engine, memory)
        self._permitting = Permitting(grant, self._planner, self.watch, max_rows)
        self._running = Running(self.watch, self._pulse, max_rows)

    def release(self) -> None:
        """Give the connection back."""
        self._planner.release()
        self.watch.release()

    def commit(self) -> None:
        """COMMIT, if the grant still permits what the block wrote; else ROLLBACK.

        Raises Denied for what it does not permit any more (rule 10), and what SQLite raises
        (`end`). Where the grant cannot be asked, that is a no.
        """
        try:
            late = self._late() if self.connection.in_transaction else None
        except BaseException:
            self.end("ROLLBACK")
            raise

        if late is not None:
            self.end("ROLLBACK")
            raise self._grant.denied(late)
        self.end("COMMIT")

    def end(self, how: str) -> None:
        """COMMIT or ROLLBACK, as a statement of the guard's own.

        A commit that fails (deferred foreign keys) rolls back, so that no transaction stays. Raises
        StatementError where the block is at fault, and else what SQLite raises.
        """
        self._over = True
        if self._busy:
            # Python code that a statement calls has left the block: nothing can be ended now.
            raise GuardError("you left the block while its statement was running")

        # Rule 10 is about statements. A pool closes in whichever thread it is told to.
        self.watch.thread = threading.get_ident()
        try:
            # SQLite may have rolled back by itself, and then there is nothing to end.
            if self.connection.in_transaction:
                self._planner.let_go()
                self.watch.own(how)
            return
        except self.connection.Error as error:
            failed = error
        if self.connection.in_transaction:
            self.watch.own("ROLLBACK")
        raise mistaken("", failed, ran=True) or failed

    def execute(self, sql: str, parameters: Any) -> Rows:
        """Run one statement. Raises Denied, StatementError, GuardError, TypeError.

        Raises what SQLite raises, where the statement is not at fault.

        While it runs the block is busy, so that Python code that it calls cannot use the block.
        """
        self._check_open()
        self._used = True
        given = _copied(sql, parameters)

        self._busy = True
        self._pulse.begin()
        try:
            # An exact str: a subclass might compare equal to another statement, and get its plan.
            exact = str.__str__(sql)
            return self._execute(exact, given)
        except self.connection.Error:
            # One that the pulse caused is put in the guard's own words, below.
            if not self._pulse.has_interrupted:
                raise
        finally:
            self._busy = False

        # Outside of the handler, so that SQLite's error is not shown along with it.
        raise self._pulse.interruption()

    def execute_once(self, sql: str, parameters: Any) -> Rows:
        """Run the only statement of the block, commit, and only then hand out its rows.

        The block is over with it, whatever comes of it. The grant was asked once more when the
        statement was done, about what it wrote too: nothing lies between.
        """
        self._check_open()
        self._check_unused()
        try:
            result = self.execute(sql, parameters)
        except BaseException:
            self.end("ROLLBACK")
            raise
        self.end("COMMIT")
        return result

    def _check_open(self) -> None:
        """Rule 10: one thread, one statement at a time, one transaction. Raises GuardError."""
        self.check_usable()

        # What ran next would be committed by itself, before it could be asked about again.
        if not self.connection.in_transaction:
            raise GuardError("SQLite has rolled back the transaction of this block: leave it")

    def _execute(self, sql: str, parameters: Any) -> Rows:
        """Run the statement if it is permitted. Raises Denied, which is recorded."""
        plan, bound, meter = self._permitting.permitted(sql, parameters)
        self._planner.hold(plan.target)
        with meter:
            with suppress(TooLong):
                return self._run(bound, plan, meter)
            meter.begin_again()
            return self._run(bound, plan._replace(sent=plan.apart, apart=""), meter)

    def _run(self, bound: Any, plan: Plan, meter: UsageMeter) -> Rows:
        """Run it, and see that what it did is still permitted. Raises Denied, and TooLong."""
        is_undone = plan.writes and (meter.counts or bool(plan.apart))
        with self._running.undone_if_refused() if is_undone else WHOLE:
            result = self._running.run(bound, plan, meter)
            self._note_written(plan.needs)
            self._permitting.ran(plan, result.rowcount)
        return result


def _copied(sql: Any, parameters: Any) -> dict[str, Any] | tuple[Any, ...]:
    """The parameters of a statement, in a value that nobody else has. Raises TypeError.

    They are bound twice, when the statement is looked at and when it runs. A mapping of a class of
    its own could give another value the second time.
    """
    if not isinstance(sql, str):
        raise TypeError(f"a statement must be a str, not {type(sql).__name__}")

    # Nobody can change a tuple, so that it needs no copy.
    if type(parameters) is tuple:
        return parameters
    if isinstance(parameters, Mapping):
        return frozen_copy(parameters, "parameters")

    # A text is a sequence too, of characters, and nobody means that.
    is_text = isinstance(parameters, (str, bytes))
    if is_text or not isinstance(parameters, Sequence):
        raise TypeError(
            f"parameters must be a sequence or a mapping, not {type(parameters).__name__}"
        )
    return tuple(parameters)
