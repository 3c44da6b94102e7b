"""One guarded block: finds out what each statement needs, asks the grant, runs it.

Here are enforced rules 1, 2, 7, 9, 10 and 11 of `captoken.adapters.sqlite`. The order of questions
to the grant, for each statement:

 1. Does it still stand? If not, nothing is compiled.
 2. Does it permit each need? Not recorded, so that what is refused can be worded (`denials`).
 3. Does the statement do what no grant permits? Asked late: the answer tells that it compiles.
 4. All needs together, recorded and used once.
 5. While it runs, before its rows are handed out, and before a commit that makes writes last: is
    all of that still so?

What a block is told, and what the grant is asked, in a task that may select from sales:

    db.execute("select region from sales")    recheck: stands. recheck: select on sales (region).
                                              check_all: the same, recorded. It runs. recheck:
                                              the same, once more.
    db.execute("select pay from hr")          recheck: stands. recheck: select on hr (pay), refused.
                                              deny: recorded, and raised as Denied.
    end of the block                          nothing was written, so nothing is asked. COMMIT.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Generator, Hashable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from captoken._format.errors import CaptokenError, GuardError
from captoken._format.given import read_once
from captoken._format.spelling import shown
from captoken._language.access import Access, Caller
from captoken._verification.decision import Decision, Denied
from captoken.adapters._paying import Paying
from captoken.adapters._sqlite.denials import Denials, Own
from captoken.adapters._sqlite.lexer import KINDS
from captoken.adapters._sqlite.opcodes import Engine
from captoken.adapters._sqlite.plan import Plan
from captoken.adapters._sqlite.planner import Planner
from captoken.adapters._sqlite.remembered import Bounded, Connection
from captoken.adapters._sqlite.text import Text
from captoken.adapters._sqlite.watch import Watch
from captoken.adapters._taking import Taking

# Rule 11: bytes of a statement. What reads a text takes time with its length.
MAX_BYTES = 100_000
_UNCOUNTED = Own(
    "cost_unstated",
    "SQLite does not count the rows that the statement replaces, and the token has a budget in "
    "rows_written: write INSERT … ON CONFLICT DO UPDATE",
)
_TOO_LONG = Own("operation", f"a statement of more than {MAX_BYTES} bytes")

# The names of the columns, the rows, and how many rows were changed.
Result = tuple[tuple[str, ...], list[tuple[Any, ...]], int]


class Block:
    """Finds out what each statement needs, asks the grant, and runs it.

    Of one connection and one grant, for one transaction. `caller` is asked about with each access.
    A statement may yield `max_rows` rows, and no value of more than `max_value` bytes.

    Raises GuardError where the connection cannot be taken over (`Watch`). Whoever makes a block
    begins its transaction, and gives the connection back.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        grant: Paying,
        engine: Engine,
        caller: Caller | None,
        max_rows: int,
        max_value: int,
    ) -> None:
        self.connection = connection
        self.grant = grant
        self.caller = caller

        # What a statement may yield. One more, and none of them is handed out.
        self.max_rows = max_rows

        # Rule 13: the texts of which no name can mean a hidden column.
        self.named: Bounded[str, bool] = Bounded()

        # Rule 7: the functions that tell of this block alone by now.
        self.told: frozenset[str] = frozenset()

        # Rule 10: does a statement run? Was one asked for? Has the block ended?
        self.busy = False
        self.used = False
        self.over = False

        # Why the statement that runs was interrupted: the grant no longer permits it, or it could
        # not be asked. Both None if it was not.
        self.death: Decision | None = None
        self.broken: BaseException | None = None

        # What the statement that runs needs.
        self.running: Sequence[Access] = ()

        # What the block wrote that a commit makes last, each once.
        self.written: dict[Hashable, Access] = {}

        # From here on the connection has its authorizer, and nothing is permitted.
        memory = connection.remembered if isinstance(connection, Connection) else None
        is_fit = memory is not None and memory.is_fit
        self.watch = Watch(connection, self._alive, is_fit, max_value)
        if memory is not None:
            memory.is_fit = True
        self.planner = Planner(self.watch, engine, memory)
        self.denials = Denials(grant, caller, self.planner)

    def release(self) -> None:
        """Give the connection back."""
        self.planner.release()
        self.watch.release()

    def _alive(self) -> bool:
        """May the statement that runs go on? The progress handler asks, every so many opcodes.

        A long statement does not outlive its grant, nor what it does a right to do it.
        """
        try:
            decision = self.grant.recheck(self.running, caller=self.caller)
        except BaseException as error:
            # An interrupt, or a clock that cannot be read. SQLite would swallow it: kept, and
            # raised when the statement has stopped.
            self.broken = error
            return False

        if not decision:
            self.death = decision
            return False
        self.death = None
        return True

    def commit(self) -> None:
        """COMMIT, if the grant still permits what the block wrote; else ROLLBACK.

        Raises Denied for what it does not permit any more, and what SQLite raises (`end`).
        """
        if self.written and self.connection.in_transaction:
            self._ask_about_writes()
        self.end("COMMIT")

    def _ask_about_writes(self) -> None:
        """Rule 10: what was written is asked about once more, and rolled back if it is refused.

        A block can be open for long. A grant that is revoked meanwhile leaves nothing behind.
        """
        try:
            late = self.grant.recheck(
                self.written.values(),
                caller=self.caller,
            )
        except BaseException:
            # Where the grant cannot be asked, that is a no.
            self.end("ROLLBACK")
            raise

        if not late:
            self.end("ROLLBACK")
            raise Denied(self.grant.deny(late))

    def end(self, how: str) -> None:
        """COMMIT or ROLLBACK, as a statement of the guard's own.

        A commit that fails (deferred foreign keys) rolls back, so that no transaction stays.
        """
        self.over = True
        if self.busy:
            # Python code that a statement calls has left the block: nothing can be ended now.
            raise GuardError("the block was left while a statement of it runs")

        # Rule 10 is about statements. A pool closes in whichever thread it is told to.
        self.watch.thread = threading.get_ident()
        try:
            # SQLite may have rolled back by itself, and then there is nothing to end.
            if self.connection.in_transaction:
                self.watch.own(how)
        except self.connection.Error:
            if self.connection.in_transaction:
                self.watch.own("ROLLBACK")
            raise

    def execute(self, sql: str, parameters: Any) -> Result:
        """Run one statement. Raises Denied, GuardError, TypeError, or what SQLite raises.

        While it runs the block is busy, so that Python code that it calls cannot use the block.
        """
        self._check_open()
        self.used = True
        given = _copied(sql, parameters)

        self.busy = True
        self.death = None
        self.broken = None
        try:
            # An exact str: a subclass might compare equal to another statement, and get its plan.
            exact = str.__str__(sql)
            return self._execute(exact, given)
        except self.connection.Error:
            # One that `_alive` caused is put in the guard's own words, below.
            if self.death is None and self.broken is None:
                raise
        finally:
            self.busy = False

        # Outside of the handler, so that SQLite's error is not shown along with it.
        raise self._interruption()

    def execute_once(self, sql: str, parameters: Any) -> Result:
        """Run the only statement of the block, commit, and only then hand out its rows.

        The block is over with it, whatever comes of it. The grant was asked once more when the
        statement was done (`_permit_rows`), about what it wrote too: nothing lies between.
        """
        self._check_open()
        if self.used:
            raise GuardError(
                "execute_once is for the first and only statement of a block: open one for it"
            )
        try:
            result = self.execute(sql, parameters)
        except BaseException:
            self.end("ROLLBACK")
            raise
        self.end("COMMIT")
        return result

    def _interruption(self) -> BaseException:
        """Why `_alive` stopped the statement. SQLite says only that it was interrupted.

        A denial is recorded here, once the statement has stopped.
        """
        if self.broken is not None:
            return self.broken

        # One of the two is why: `execute` has looked.
        assert self.death is not None  # noqa: S101
        return Denied(self.grant.deny(self.death))

    def _check_open(self) -> None:
        """Rule 10: one thread, one statement at a time, one transaction. Raises GuardError.

        Whoever has kept `db` from a block cannot use it once the block is over, nor from elsewhere.
        """
        if threading.get_ident() != self.watch.thread:
            raise GuardError("the block belongs to another thread: each has a block of its own")
        if self.over:
            raise GuardError("the block has ended: ask within its `with`")

        # A converter, a collation or an adapter of the owner's, which SQLite calls in between.
        if self.busy:
            raise GuardError("a statement of this block is running: ask one after the other")

        # What ran next would be committed by itself, before it could be asked about again.
        if not self.connection.in_transaction:
            raise GuardError("SQLite has rolled back the transaction of this block: leave it")

    def _execute(self, sql: str, parameters: Any) -> Result:
        """Run the statement if it is permitted. Raises Denied, which is recorded.

        A statement that was seen before keeps its plan, and is asked about again.
        """
        plan = self.planner.seen(sql) if self.planner.is_ready else None
        if plan is None:
            self._check_alive()
            plan = self.planner.seen(sql)

        # Before the statement is looked at: each question about it says what it costs.
        self.grant.begin(sql, parameters)
        if plan is None:
            if len(sql.encode("utf-8", "surrogatepass")) > MAX_BYTES:
                raise self.denials.denied(_TOO_LONG)
            text = Text(sql)
            # Rule 1: DDL, PRAGMA, ATTACH, EXPLAIN and transactions are not even compiled.
            if text.first not in KINDS:
                raise self.denials.denied(_other_kind(text))
        else:
            text = plan.text

        # Once for each text that has a plan: what is granted of columns is the same for a block.
        if plan is None or not self.named.get(sql):
            problem = self.denials.deny_names(text, parameters)
            if plan is None:
                plan = self._plan(text, parameters, problem)
            self.named.keep(sql, sql, True)

        with self._permit(plan) as taking, self._undone_if_refused(plan, taking):
            return self._run(sql, parameters, plan, taking)

    def _check_alive(self) -> None:
        """Raise Denied if the grant has run out: then nothing is compiled any more.

        What compiling ends in would tell what is there, to somebody who may know nothing by now.
        """
        live = self.grant.recheck()
        if not live:
            raise self.denials.denied(live)

    def _permit(self, plan: Plan) -> Taking:
        """Raise Denied unless the grant permits all that the statement needs; else use it.

        Asked each time, also for a statement that was permitted before: a grant can run out, be
        narrowed, or have a budget.
        """
        # What the grant says comes first. It names nothing that the text does not name.
        decision = self.grant.recheck(plan.needs, caller=self.caller)
        if not decision:
            self._deny(plan, decision)

        # Then what no grant permits: the answer tells that the statement compiles.
        refused = self._refused(plan)
        if refused is not None:
            self.denials.deny(plan.text, refused)
        if plan.literals:
            self._deny_literals(plan)
        if plan.replaces and self.grant.counts_writes:
            self.denials.deny(plan.text, _UNCOUNTED)

        # All that is needed together: recorded, and used once.
        return self.grant.take(
            plan.needs,
            caller=self.caller,
            most_rows=self.max_rows,
            writes=plan.writes,
        )

    def _deny(self, plan: Plan, decision: Decision) -> NoReturn:
        """Raise Denied for what `recheck` found: the grant has run out, or a need is refused."""
        # Without an access it is about the token, and not about anything in this statement.
        if decision.access is None:
            raise self.denials.denied(decision)

        self.denials.deny_need(
            plan.text,
            decision,
            decision.access,
            plan.literals,
        )

    def _refused(self, plan: Plan) -> Own | None:
        """What no token can grant, or what it cannot grant yet (rule 7).

        `select changes()` tells how many rows the statement before has changed. Until the block has
        changed some itself, that was somebody else's.
        """
        if plan.refusals:
            code, sentence = plan.refusals[0]
            return Own(code, sentence)

        of_others = plan.asks - self.told
        if of_others:
            name = min(of_others)  # always the same one of several
            return Own("operation", f"{name}() tells of what others did")
        return None

    def _deny_literals(self, plan: Plan) -> None:
        """Refuse a string in double quotes as the column that it looks like (rule 9).

        In `SELECT "ssn" FROM people`, that it is a string tells that there is no column `ssn`. So
        an agent could try names until one of them is refused, which then is there.
        """
        # In the order of the text. Where no table that it names restricts columns, this raises
        # nothing: then it is no secret which columns there are.
        for word in plan.text.words:
            if word in plan.literals:
                self.denials.deny_column(plan.text, word)

    def _run(self, sql: str, parameters: Any, plan: Plan, taking: Taking) -> Result:
        """Run a statement that is permitted (rule 2), and count what it takes (rule 14).

        It may ask the authorizer for what it was seen to ask for when it was planned, and for
        nothing else.
        """
        # `_alive` asks about these while the statement runs.
        self.running = plan.needs
        changes = self.connection.total_changes
        failed: Exception | None = None
        rows: list[Any] = []
        cursor = self.watch.cursor
        try:
            rows, cursor = self.watch.run(
                sql,
                parameters,
                plan.events,
                self.max_rows,
                taking.hand_out if taking.counts else None,
            )
        except Exception as error:
            failed = error
        finally:
            self.running = ()
        if failed is not None:
            self._raise_counted(failed, taking)
        taking.wrote(self.connection.total_changes - changes)

        self._note_written(plan, cursor.rowcount)
        self._permit_rows(plan)
        columns = tuple([column[0] for column in cursor.description or ()])
        return columns, rows, cursor.rowcount

    def _raise_counted(self, failed: Exception, taking: Taking) -> NoReturn:
        """Raise what a statement failed with, if its text may be told: it can quote values.

        Out of the handler, so that a denial does not show what it refuses to tell. What is the
        guard's own says nothing of values, and of an interrupt it says more itself.
        """
        is_own = isinstance(failed, CaptokenError)
        if not is_own and self.death is None and self.broken is None:
            taking.tell(str(failed))
        raise failed

    @contextmanager
    def _undone_if_refused(self, plan: Plan, taking: Taking) -> Generator[None, None, None]:
        """Around a statement that is counted: one that is ended in the middle leaves nothing.

        One that fails by itself SQLite undoes. This is for one that its budget ends.
        """
        if not taking.counts or not plan.writes:
            yield
            return

        self.watch.own("SAVEPOINT captoken")
        try:
            yield
        except BaseException:
            # SQLite may have rolled back all of the transaction by itself.
            if self.connection.in_transaction:
                self.watch.own("ROLLBACK TO captoken")
                self.watch.own("RELEASE captoken")
            raise
        self.watch.own("RELEASE captoken")

    def _permit_rows(self, plan: Plan) -> None:
        """Raise Denied unless what was read may still be read (rule 10).

        A statement can take long, and between two looks of `_alive` one opcode can. What it wrote
        is asked about before the commit.
        """
        late = self.grant.recheck(plan.needs, caller=self.caller)
        if not late:
            raise Denied(self.grant.deny(late))

    def _note_written(self, plan: Plan, rowcount: int) -> None:
        """What the statement wrote, for the commit (rule 10) and for the telltales (rule 7)."""
        # Each once, however many statements wrote it: a block of a thousand inserts asks about one.
        for need in plan.needs:
            if need.operation != "select":
                key = need.table, need.operation, need.columns
                self.written[key] = self.grant.stated(need)

        # Where no row was written, last_insert_rowid() still tells of others.
        if plan.tells:
            wrote_rows = rowcount > 0
            self.told |= plan.tells if wrote_rows else plan.tells & {"changes"}

    def _plan(
        self,
        text: Text,
        parameters: Any,
        on_shadows: Exception | None,
    ) -> Plan:
        """What a statement needs that the block has not seen before, or not lately.

        `on_shadows` is what was found wrong with it there. Raises Denied, or the error that it does
        not compile for, where that tells nothing.
        """
        plan = self.planner.plan(text, parameters)
        if isinstance(plan, Exception):
            self.denials.fail(
                text,
                plan,
                never_granted=self.watch.refused,
                on_shadows=on_shadows,
            )
        return plan


def _other_kind(text: Text) -> Own:
    """Rule 1, for a misspelled SELECT too. It says nothing of what is there."""
    word = shown(text.words[0]) if text.words else "nothing"
    return Own(
        "operation",
        f"the statement begins with {word}, and none of that kind is run: "
        "select, with, values, insert, replace, update, delete",
    )


def _copied(sql: Any, parameters: Any) -> dict[str, Any] | tuple[Any, ...]:
    """The parameters of a statement, in a value that nobody else has. Raises TypeError.

    They are bound twice, when the statement is looked at and when it runs. A mapping of a class of
    its own could give another value the second time.
    """
    if not isinstance(sql, str):
        raise TypeError(f"a statement is a str, not {type(sql).__name__}")

    # Nobody can change a tuple, so that it needs no copy.
    if type(parameters) is tuple:
        return parameters
    if isinstance(parameters, Mapping):
        return read_once(parameters, "parameters")

    # A text is a sequence too, of characters, and nobody means that.
    is_text = isinstance(parameters, (str, bytes))
    if is_text or not isinstance(parameters, Sequence):
        raise TypeError(f"parameters are a sequence or a mapping, not {type(parameters).__name__}")
    return tuple(parameters)
