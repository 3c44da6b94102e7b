"""Guard a SQLite connection with a grant: a statement runs only if the grant covers all that it touches.

    with guarded(connection, grant) as db:
        rows = db.execute("select region, sum(amount) from sales group by region").fetchall()

No single account that SQLite gives is complete: the authorizer is not asked about the tables of some joins. So three are
added up: the *events* of the authorizer, the *opcodes* of the compiled program, and the *names* that the text puts where
a table stands. The rules, cited by number where they are enforced (here, in `_sqlite_plan` and in `_sqlite_text`):

 1. The first word is select, with, values, insert, replace, update or delete.
 2. One authorizer for the block, closed by default; a statement that runs may do what was seen of it, and nothing else.
 3. A statement is seen by compiling it under EXPLAIN with a serial number, so that no cached one answers in its place.
 4. A cursor is known by the root page it opens. Catalogs and virtual tables (but json_each, json_tree) are never granted.
 5. A cursor that reads needs select, except the first pass of an update or delete, and the look-ups of foreign keys.
 6. To replace rows is to delete them. RETURNING needs select. Nothing may end the transaction.
 7. Functions are SQLite's own and innocuous; those that tell of earlier statements are refused until the block wrote.
 8. Columns are what the events name and, where NATURAL or USING hides some, what the opcodes read.
 9. A table or column that is missing is refused like a forbidden one, unless the grant would permit it.
10. A block is one transaction in one thread. It hands back rows, never a cursor. What it wrote is asked about once more
    before it is committed.

Not checked: what row counts, failing constraints and the order in which an index yields rows let a caller infer.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Generator, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from captoken._format.errors import GuardError
from captoken._language.access import Access, Caller
from captoken._verification.decision import Decision, Denied, Grant
from captoken.adapters._claims import claimed
from captoken.adapters._sqlite.lexer import KINDS, fold
from captoken.adapters._sqlite.plan import (
    NEVER_GRANTED,
    Engine,
    Object,
    Plan,
    Planner,
    Watch,
    access_to,
    engine_of,
    is_harmless,
    spelled,
    table_name,
)
from captoken.adapters._sqlite.scopes import Mention
from captoken.adapters._sqlite.text import Text

_COLUMN_IN_ERROR = re.compile(
    r"(?:no such column: |has no column named |ambiguous column name: |cannot join using column )(?:\S*\.)?\"?([^\s\"]+)"
)
_TABLE_IN_ERROR = re.compile(r"no such table: (?:([^.]+)\.)?(.+)", re.DOTALL)
_PLANS = 256  # statements whose plans a block keeps


class Rows:
    """What a statement gave back: plain tuples, fetched before `execute` returned. Knows no cursor and no connection."""

    __slots__ = ("_left", "columns", "rowcount")

    def __init__(
        self, columns: tuple[str, ...], rows: list[tuple[Any, ...]], rowcount: int
    ) -> None:
        self.columns, self.rowcount, self._left = columns, rowcount, iter(rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._left

    def fetchone(self) -> tuple[Any, ...] | None:
        return next(self._left, None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        return list(self._left)


class Database:
    """What a guarded block works with: `execute`, and nothing else."""

    __slots__ = ("_block",)

    def __init__(self, block: _Block) -> None:
        self._block = block

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Rows:
        """Run one statement and fetch its rows. Raises Denied before anything ran, GuardError, or what SQLite raises."""
        return self._block.execute(sql, parameters)


@contextmanager
def guarded(
    connection: sqlite3.Connection,
    grant: Grant,
    *,
    caller: Caller | None = None,
    max_rows: int = 100_000,
) -> Generator[Database, None, None]:
    """Own `connection` for a block, which is one transaction: committed at its end, rolled back by an exception.

    `caller` is what the server itself knows of who calls, and is asked about with every access. A statement that yields
    more than `max_rows` rows raises GuardError, and so does, in SQLite's words, a value of more than 16 MiB.

    Raises GuardError for an open transaction, for a nested block, in a second thread, and for a connection that lets a
    statement choose a converter (PARSE_COLNAMES). Afterwards the connection has no authorizer and no progress handler:
    SQLite cannot tell which ones it had. What is Python in the connection (converters, collations, text_factory) is the
    owner's and trusted; nobody else may use it while the block lasts.
    """
    if not isinstance(connection, sqlite3.Connection):
        raise TypeError(f"guarded takes a sqlite3.Connection, not {type(connection).__name__}")
    if not isinstance(grant, Grant):
        raise TypeError(f"a {type(grant).__name__} is no Grant: only a verifier hands one out")
    with claimed(connection):
        engine = engine_of(sqlite3.Connection)
        if connection.in_transaction:
            raise GuardError(
                "the connection has an open transaction (with autocommit=False it always has one)"
            )
        block = _Block(connection, grant, engine, caller, max_rows)
        try:
            block.watch.own("BEGIN")
            try:
                yield Database(block)
            except BaseException:
                block.end("ROLLBACK")
                raise
            block.commit()
        finally:
            block.watch.release()


class _Block:
    """One guarded block: finds out what each statement needs, asks the grant, runs it."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        grant: Grant,
        engine: Engine,
        caller: Caller | None,
        max_rows: int,
    ) -> None:
        self.connection, self.grant, self.caller, self.max_rows = (
            connection,
            grant,
            caller,
            max_rows,
        )
        self.watch = Watch(connection, self._alive)
        self.planner = Planner(self.watch, engine)
        self.plans: dict[
            str, Plan
        ] = {}  # of this block only: its transaction holds the schema still
        self.told: frozenset[str] = frozenset()
        self.busy = self.over = False
        self.death: Decision | None = None
        self.broken: BaseException | None = None
        self.recorded: Decision | None = None
        self.running: Sequence[Access] = ()  # what the statement that runs needs
        self.written: dict[
            Hashable, Access
        ] = {}  # what the block did that a commit makes last, each once

    def _alive(self) -> bool:
        """For the progress handler: a long statement does not outlive its grant, nor what it does a right to do it."""
        try:
            decision = self.grant.recheck(self.running, caller=self.caller)
        except (
            BaseException
        ) as error:  # an interrupt, or a clock that cannot be read: SQLite would swallow it
            self.broken = error
            return False
        self.death = None if decision else decision
        return bool(decision)

    def commit(self) -> None:
        """COMMIT, if the grant still permits what the block wrote; else ROLLBACK. Raises Denied."""
        if self.written and self.connection.in_transaction:
            try:
                late = self.grant.recheck(self.written.values(), caller=self.caller)
            except BaseException:
                self.end("ROLLBACK")
                raise
            if not late:
                self.end("ROLLBACK")
                raise Denied(self.grant.record(late))
        self.end("COMMIT")

    def end(self, how: str) -> None:
        """COMMIT or ROLLBACK. A commit that fails (deferred foreign keys) rolls back, so that no transaction stays."""
        self.over = True
        if self.busy:
            raise GuardError("the block was left while a statement of it runs")
        try:
            if self.connection.in_transaction:
                self.watch.own(how)
        except self.connection.Error:
            if self.connection.in_transaction:
                self.watch.own("ROLLBACK")
            raise

    def execute(self, sql: str, parameters: Any) -> Rows:
        if threading.get_ident() != self.watch.thread:  # rule 10
            raise GuardError("the block belongs to another thread")
        if self.over or self.busy:
            raise GuardError(
                "the block has ended" if self.over else "a statement of this block is running"
            )
        if not self.connection.in_transaction:
            raise GuardError("SQLite has rolled back the transaction of this block: leave it")
        if not isinstance(sql, str):
            raise TypeError(f"a statement is a str, not a {type(sql).__name__}")
        if not isinstance(parameters, (Mapping, Sequence)) or isinstance(parameters, (str, bytes)):
            raise TypeError(
                f"parameters are a sequence or a mapping, not {type(parameters).__name__}"
            )
        given = dict(parameters) if isinstance(parameters, Mapping) else tuple(parameters)
        self.busy, self.death, self.broken = True, None, None
        try:
            return self._execute(
                str.__str__(sql), given
            )  # exact: a subclass might compare equal to another statement
        except self.connection.Error:
            if self.death is None and self.broken is None:
                raise
        finally:
            self.busy = False
        if self.broken is not None:
            raise self.broken
        assert self.death is not None  # noqa: S101
        raise Denied(self.grant.record(self.death))

    def _execute(self, sql: str, parameters: Any) -> Rows:
        self.recorded = None
        try:
            return self._run(sql, parameters)
        except Denied as denied:
            self._record(denied.decision)
            raise

    def _record(self, decision: Decision) -> None:
        """A denial of the guard's own: what the grant itself refused is recorded by then."""
        if decision is not self.recorded:
            self.grant.record(decision)

    def _run(self, sql: str, parameters: Any) -> Rows:
        if not (live := self.grant.recheck()):
            raise Denied(live)
        plan = self.plans.get(sql) or self._plan(Text(sql), parameters)
        refusals = [self.grant.refusal(code, reason) for code, reason in plan.refusals]
        refusals += [
            self.grant.refusal("operation", f"{name}() tells of what others did")
            for name in plan.asks - self.told
        ]
        for need in plan.needs:
            if not (decision := self._ask(need)):
                self._deny(plan.text, decision, need, plan.literals)
        if refusals:  # last, for they tell that the statement compiles
            self._deny(plan.text, refusals[0])
        for word in plan.text.words if plan.literals else ():
            if word in plan.literals:
                self._deny_column(plan.text, word)
        if plan.needs and not (
            decision := self.grant.check_all(plan.needs, caller=self.caller)
        ):  # recorded, and used once
            self.recorded = decision
            raise Denied(decision)
        self.running = plan.needs
        try:
            rows, cursor = self.watch.run(sql, parameters, plan.events, self.max_rows)
        finally:
            self.running = ()
        self.written |= {
            (it.table, it.operation, it.columns): it
            for it in plan.needs
            if it.operation != "select"
        }
        self.told |= plan.tells if cursor.rowcount > 0 else plan.tells & {"changes"}
        return Rows(tuple(column[0] for column in cursor.description or ()), rows, cursor.rowcount)

    def _plan(self, text: Text, parameters: Any) -> Plan:
        if text.first not in KINDS:  # rule 1
            raise Denied(
                self.grant.refusal(
                    "operation",
                    "only select, values, insert, replace, update and delete are granted",
                )
            )
        plan = self.planner.plan(text, parameters)
        if isinstance(plan, Exception):
            self._fail(text, plan)
        if len(self.plans) >= _PLANS:
            self.plans.clear()
        self.plans[text.sql] = plan
        return plan

    def _fail(self, text: Text, error: Exception) -> NoReturn:
        """Raise what compiling the text ended in, or a denial where that would tell what is hidden (rule 9)."""
        if self.watch.refused:
            self._deny(
                text, self.grant.refusal("operation", "the statement does what no token permits")
            )
        self._deny_names(text)
        missing = _TABLE_IN_ERROR.match(str(error))  # whatever stands where no table was looked for
        if missing is not None and fold(missing[2]) not in text.declared:
            refused = self._refused(spelled(Mention("select", *missing.groups())), "select", ())
            if refused is not None:
                raise Denied(refused)
        column = _COLUMN_IN_ERROR.match(str(error))
        for word in (*(column.groups() if column else ()), *text.using):
            self._deny_column(text, word)
        if (
            text.has_star and self._restricted(text) and not str(error).startswith("near ")
        ):  # it may count the columns
            raise Denied(self._no_columns(text))
        raise error

    def _deny(
        self,
        text: Text,
        decision: Decision,
        need: Access | None = None,
        literals: frozenset[str] = frozenset(),
    ) -> NoReturn:
        """Raise Denied, about what the text itself names if that can be refused (rule 9)."""
        self._deny_names(text)
        if need is not None and decision.code == "column":
            names = need.columns or ()
            refused = {
                fold(name)
                for name in names
                if self._refused(need.table, need.operation, (name,)) is not None
            }
            for word in text.words:
                if fold(word) in refused or word in literals:
                    self._deny_column(text, word)
            decision = self._no_columns(text)
        elif need is not None and need.table not in map(
            self._table, text.mentions
        ):  # its name is for the operator alone
            how = "reached by way of a view, a trigger or a foreign key"
            decision = self.grant.refusal(decision.code, f"{decision.refusals[0].text} ({how})")
        raise Denied(decision)

    def _deny_column(self, text: Text, column: str) -> None:
        """Refuse a column as it is spelled, there or not, if one of the tables that the text names restricts its columns."""
        refused = [
            self._refused(need.table, need.operation, (column,)) for need in self._restricted(text)
        ]
        decisions = [
            decision for decision in refused if decision is not None and decision.code == "column"
        ]
        if decisions:  # of several tables it cannot be said which one has a column that is missing
            raise Denied(decisions[0] if len(refused) == 1 else self._no_columns(text))

    def _no_columns(self, text: Text) -> Decision:
        needs = self._restricted(text)
        about = needs[0] if len(needs) == 1 else None
        return self.grant.refusal(
            "column", "the statement touches columns that the token does not grant", about
        )

    def _restricted(self, text: Text) -> list[Access]:
        """For the tables that the text names and whose columns are restricted: the access without its columns."""
        needs = {(self._table(mention), mention.operation): None for mention in text.mentions}
        accesses = (access_to(table, operation) for table, operation in needs)
        return [need for need in accesses if need is not None and self._ask(need).code == "column"]

    def _deny_names(self, text: Text) -> None:
        """Refuse the first table that the text names and the grant does not permit, spelled as there, and there or not."""
        for mention in text.mentions:
            entry = self.planner.schema.find(mention)
            if entry is None and is_harmless(mention):
                continue
            decision = self._refused(self._table(mention), mention.operation, ())
            if decision is not None and not self._is_open(entry):
                as_spelled = (
                    self._refused(spelled(mention), mention.operation, ())
                    if decision.code == "table"
                    else None
                )
                raise Denied(decision if as_spelled is None else as_spelled)

    def _ask(self, access: Access) -> Decision:
        return self.grant.explain(access, caller=self.caller)

    def _refused(
        self, table: str | None, operation: str | None, columns: tuple[str, ...]
    ) -> Decision | None:
        access = access_to(table, operation, columns)
        if access is None:
            return self.grant.refusal("table", NEVER_GRANTED)
        return None if (decision := self._ask(access)) else decision

    def _table(self, mention: Mention) -> str | None:
        entry = self.planner.schema.find(mention)
        return (
            table_name(*entry.key)
            if entry is not None and entry.kind == "table"
            else spelled(mention)
        )

    def _is_open(self, view: Object | None) -> bool:
        """Is it a view of nothing but what is granted?"""
        if view is None or view.kind != "view":
            return False
        account = self.planner.view(view)
        plan = account.plan() if account is not None else None
        return plan is not None and not plan.refusals and all(map(self._ask, plan.needs))
