"""Whether the grant permits a statement: what the grant is asked, in which order.

Here are enforced rules 1, 7, 9, 10 and 11 of `captoken.adapters.sqlite`, for each statement:

 1. Does the grant still stand? If not, nothing is compiled.
 2. Does it permit each need? Not recorded, so that what is refused can be worded (`denials`). Of
    a statement that it permitted in this block before, 4 alone asks that.
 3. Does the statement do what no grant permits? Asked late: the answer tells that it compiles.
 4. All needs together, recorded and used once.
 5. When it is done, before its rows are handed out: is all of that still so?

    db.execute("select region from sales")    recheck: stands. recheck: select on sales (region).
                                              check_all: the same, recorded. It runs. recheck:
                                              the same, once more.
    db.execute("select pay from hr")          recheck: stands. recheck: select on hr (pay), refused.
                                              deny: recorded, and raised as Denied.
"""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

from captoken._format.errors import GuardError, StatementError
from captoken._format.spelling import shown
from captoken._verification.decision import Decision
from captoken._verification.mistakes import is_sendable, mistake, word_in
from captoken.adapters._costed_grant import CostedGrant
from captoken.adapters._sqlite.denials import TOO_LARGE, Denials, Own
from captoken.adapters._sqlite.granted import Granted
from captoken.adapters._sqlite.lexer import KINDS, OTHER, OTHER_KINDS, STRING
from captoken.adapters._sqlite.parts import Parts
from captoken.adapters._sqlite.plan import Plan
from captoken.adapters._sqlite.planner import Planner
from captoken.adapters._sqlite.remembered import Bounded
from captoken.adapters._sqlite.shapes import Shape
from captoken.adapters._sqlite.text import Text
from captoken.adapters._sqlite.watch import Watch
from captoken.adapters._usage_meter import UsageMeter

# Rule 11: bytes of a statement. What reads a text takes time with its length.
MAX_BYTES = 100_000
_UNCOUNTED = Own(
    "cost_unstated",
    "SQLite does not count the rows that the statement replaces, and the token has a budget in "
    "rows_written: write INSERT … ON CONFLICT DO UPDATE",
)
_TOO_LONG = Own("operation", f"the statement has more than {MAX_BYTES} bytes")


class Permitted(NamedTuple):
    """A statement that may run."""

    plan: Plan
    parameters: Any
    meter: UsageMeter


class Permitting:
    """Asks the grant about the statements of one block."""

    def __init__(
        self,
        grant: CostedGrant,
        planner: Planner,
        watch: Watch,
        max_rows: int,
    ) -> None:
        self._grant = grant
        self._planner = planner
        self._watch = watch
        self._max_rows = max_rows
        self._denials = Denials(grant, planner)

        # Rule 13: the tables of which it grants some columns.
        self._granted = Granted(grant, planner)

        # The plans that it permitted in this block: whoever is denied one later knows its names.
        self._permitted: Bounded[int, Plan] = Bounded()

        # Rule 7: the functions that tell of this block alone by now.
        self._told: frozenset[str] = frozenset()

    # --- what it needs ---

    def permitted(self, sql: str, parameters: Any) -> Permitted:
        """What is run of a statement, once all that it needs is permitted and used.

        Asked each time, also for a statement that was permitted before: a grant can run out, be
        narrowed, or have a budget. Raises Denied, which is recorded, or StatementError.
        """
        known = self._planner.found.known(sql) if self._planner.is_ready else None
        if known is None:
            self._check_alive()
            known = self._planner.found.known(sql)

        # Before the statement is looked at: each question about it says what it costs.
        self._grant.begin(sql, parameters)
        if known is None:
            _check_text(sql, self._denials)
            known = self._planner.shape(sql)
        if isinstance(known, Shape) and not parameters:
            permitted = self._by_shape(known)
            if permitted is not None:
                return permitted

        plan = self._plan(self._read(sql), parameters)
        if self._refused(plan) is not None or not self._was_permitted(plan):
            self._check(plan)
        return Permitted(plan, parameters, self._take(plan))

    def _by_shape(self, shape: Shape) -> Permitted | None:
        """The same of a shape. None where anything is wrong with it, or not permitted.

        Then the statement goes by its own text, and that alone is told of. A table that is refused
        here is one that the text names, too.
        """
        try:
            plan = self._plan(self._read(shape.sql), shape.values)
        except StatementError:
            return None
        if self._refused(plan):
            return None
        if not self._was_permitted(plan) and not self._grant.recheck(plan.needs):
            return None
        return Permitted(plan, shape.values, self._take(plan))

    def _plan(self, text: Text, parameters: Any) -> Plan:
        """What a statement needs. Raises Denied for what is refused by its text alone."""
        parts = self._parts(text)
        plan = self._planner.found.plans.get((text.sql, parts))
        return plan or self._new_plan(text, parts, parameters)

    def _parts(self, text: Text) -> Parts:
        """What it grants some columns or rows of. Raises Denied for rows that SQL does not say."""
        try:
            return self._granted.parts(text)
        except GuardError as error:
            if error.code != "row":
                raise
            unheld = Own("row", str(error))
        self._denials.deny(text, unheld)

    def _read(self, sql: str) -> Text:
        """The text of a statement of a kind that is run at all."""
        texts = self._planner.found.texts
        known = texts.get(sql)
        if known is not None:
            return known
        text = Text(sql)

        # Rule 1: DDL, PRAGMA, ATTACH, EXPLAIN and transactions are not even compiled.
        if text.first not in KINDS:
            if _is_misspelt(text.first):
                raise mistake("syntax", "SQLITE_ERROR", word_in(sql, text.first))
            raise self._denials.denied(_other_kind(text))
        if not text.is_bounded:
            raise self._denials.denied(TOO_LARGE)
        texts.keep(sql, sql, text)
        return text

    def _new_plan(self, text: Text, parts: Parts, parameters: Any) -> Plan:
        """What a statement needs that was not seen before, or not lately.

        Raises Denied, or a StatementError where it does not compile.
        """
        if parts:
            self._denials.deny_named(text, parts)
        plan = self._planner.plan(text, parts, parameters)
        if self._watch.too_often:
            self._denials.deny(text, TOO_LARGE)
        if isinstance(plan, Exception):
            refused = self._watch.refused
            there = self._granted.told(text) if parts else ""
            self._denials.fail(text, plan, refused, there)
        return plan

    def _check_alive(self) -> None:
        """Raise Denied if the grant has run out: then nothing is compiled any more.

        What compiling ends in would tell what is there, to somebody who may know nothing by now.
        """
        live = self._grant.stands()
        if not live:
            raise self._denials.denied(live)

    # --- whether it is permitted ---

    def _check(self, plan: Plan) -> None:
        """Raise Denied unless the grant permits all that the statement needs."""
        # What the grant says comes first. It names nothing that the text does not name.
        decision = self._grant.recheck(plan.needs)
        if not decision:
            self._deny(plan, decision)

        # Then what no grant permits: the answer tells that the statement compiles.
        refused = self._refused(plan)
        if refused is not None:
            self._denials.deny(plan.text, refused)

    def _take(self, plan: Plan) -> UsageMeter:
        """Use all that is needed together: recorded, and used once. Raises Denied."""
        meter = self._grant.take(
            plan.needs,
            most_rows=self._max_rows,
            writes=plan.writes,
        )
        if not self._was_permitted(plan):
            self._permitted.keep(id(plan), plan.text.sql, plan)
        return meter

    def _was_permitted(self, plan: Plan) -> bool:
        return self._permitted.get(id(plan)) is plan

    def _deny(self, plan: Plan, decision: Decision) -> NoReturn:
        """Raise Denied for what `recheck` found: the grant has run out, or a need is refused."""
        # Without an access it is about the token, and not about anything in this statement.
        if decision.access is None:
            raise self._denials.denied(decision)

        self._denials.deny_need(plan.text, decision, decision.access)

    def _refused(self, plan: Plan) -> Own | None:
        """What no token can grant, or what it cannot grant yet (rule 7).

        `select changes()` tells how many rows the statement before has changed. Until the block has
        changed some itself, that was somebody else's.
        """
        if plan.refusals:
            code, sentence = plan.refusals[0]
            return Own(code, sentence)

        of_others = plan.asks - self._told
        if of_others:
            name = min(of_others)  # always the same one of several
            return Own("operation", f"{name}() would show what others did")
        return _UNCOUNTED if self._grant.counts_writes and plan.replaces else None

    # --- after it ran ---

    def ran(self, plan: Plan, changed: int) -> None:
        """Raise Denied unless what was read may still be read (rule 10).

        A statement can take long, and while it runs the grant is asked only between two opcodes.
        What it wrote is asked about again before the commit.
        """
        # Rule 7. Where no row was written, last_insert_rowid() still tells of others.
        if plan.tells:
            self._told |= plan.tells if changed > 0 else plan.tells & {"changes"}

        late = self._grant.late(plan.needs)
        if late is not None:
            raise self._grant.denied(late)


def _check_text(sql: str, denials: Denials) -> None:
    """Raise Denied for a text that is too long to be read, StatementError for one that is none."""
    if len(sql.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise denials.denied(_TOO_LONG)
    if not is_sendable(sql):
        raise mistake("syntax")


def _is_misspelt(first: str) -> bool:
    """Does a text begin with a word that begins no statement?

    Of signs, quotes and one letter (`x'00'`) nobody can say what was meant.
    """
    return len(first) > 1 and first.isascii() and first.isalpha() and first not in OTHER_KINDS


def _other_kind(text: Text) -> Own:
    """Rule 1. It says nothing of what is there."""
    words = (shown(word) for kind, word, _ in text.tokens if kind not in (OTHER, STRING))
    word = next(words, "nothing")
    return Own(
        "operation",
        f"a statement that begins with {word} is not granted: begin with select, with, values, "
        "insert, replace, update or delete",
    )
