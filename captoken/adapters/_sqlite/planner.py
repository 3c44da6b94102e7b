"""Finds out what a statement touches: compiles it, and adds up the three accounts of it.

Knows no grant. The rules are those of `captoken.adapters.sqlite`, and are cited by their numbers.
What comes of a statement is a plan (`plan`); or, where it does what no token can grant, reasons to
refuse it; or the error that SQLite ended in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cached_property, partial
from typing import Any

from captoken._format.errors import GuardError
from captoken.adapters._sqlite.account import Account
from captoken.adapters._sqlite.catalog import Catalog, Object, quoted
from captoken.adapters._sqlite.changed import MOST_UNCLEAR, ChangedPart
from captoken.adapters._sqlite.events import add_events, refuse_reads_elsewhere
from captoken.adapters._sqlite.held import (
    Looked,
    Target,
    counted,
    refuse_unheld,
    stated,
    written_by,
)
from captoken.adapters._sqlite.joins import add_hidden_columns
from captoken.adapters._sqlite.lengths import calls_of, can_fail
from captoken.adapters._sqlite.names import add_names, add_replaced, add_returned
from captoken.adapters._sqlite.opcodes import Engine
from captoken.adapters._sqlite.parts import (
    APART,
    Part,
    Parts,
    blind_query,
    names_of,
    sent,
)
from captoken.adapters._sqlite.plan import Plan
from captoken.adapters._sqlite.programs import Programs, add_programs
from captoken.adapters._sqlite.remembered import Found, Memory
from captoken.adapters._sqlite.scopes import Mention
from captoken.adapters._sqlite.shapes import Shape, shape_of
from captoken.adapters._sqlite.text import Text
from captoken.adapters._sqlite.updates import Update
from captoken.adapters._sqlite.watch import Event, Watch

# Functions that tell of the statements that ran before on the connection (rule 7). Before the block
# those were somebody else's.
_TELLTALES = frozenset(
    (
        "changes",
        "last_insert_rowid",
        "total_changes",
    )
)


class Planner:
    """Finds out what statements touch. As long-lived as the transaction that keeps the schema.

    It compiles them, and runs none.
    """

    def __init__(self, watch: Watch, engine: Engine, memory: Memory | None = None) -> None:
        """`memory`: what the connection remembers, if it is one that does (rule 12)."""
        self._watch = watch
        self._memory = memory

        # Has the transaction been looked at? Nothing is, for a grant that does not stand.
        self.is_ready = False

        # Whose rows triggers hold.
        self._target: Target | None = None

        # What this build of SQLite shows in its opcodes, as it was tried (`trial`).
        self.engine = engine

    @cached_property
    def found(self) -> Found:
        """What was found out, in this transaction or before. Asked once the transaction is open."""
        self.is_ready = True
        if self._memory is None:
            return Found.nothing(self._watch)
        return self._memory.found(self._watch)

    @property
    def catalog(self) -> Catalog:
        """What the connection has."""
        return self.found.catalog

    def release(self) -> None:
        """The block is over: what is remembered does not hold its connection."""
        if self.is_ready:
            self.catalog.release()

    def shape(self, sql: str) -> Shape | None:
        """The shape of a statement, or None (`shapes`)."""
        shape = shape_of(sql)
        if shape is not None:
            self.found.shapes.keep(sql, sql, shape)
        return shape

    def plan(
        self,
        text: Text,
        parts: Parts,
        parameters: Any,
        tries: int = MOST_UNCLEAR,
    ) -> Plan | Exception:
        """What the statement needs, or the error that compiling it ended in.

        Of `parts` it sees the columns that are granted (rule 13). The error is handed back, not
        raised (`denials`). Raises GuardError where the authorizer was not asked at all.
        """
        changed = self._changed(text, parts)
        if changed is not None:
            look = partial(self._look, parameters=parameters)
            update = ChangedPart(text, parts, changed, self.found.drawn, look)
            problem = update.problem()
            if problem is not None:
                return self._plan_of_clearer(update, problem, parameters, tries)

        # Where rows are restricted: first without them (rule 16).
        target: Target | None = None
        blind: Looked | None = None
        if any(part.rows for part in parts):
            target = self._writes(text, parts)
            self.let_go()
            looked = self._look(self._sent(text, parts, is_blind=True), parameters)
            if isinstance(looked, Exception):
                return looked
            blind = looked

        run = self._sent(text, parts, target=target)
        other = self._sent(text, parts, APART, target=target) if parts else ""
        self.hold(target)
        looked = self._look(run, parameters)
        if parts and not isinstance(looked, Exception) and can_fail(looked[0].all[0]):
            run, other = other, ""
            looked = self._look(run, parameters)
        if isinstance(looked, Exception):
            return looked

        programs, events = looked
        names = names_of(parts, self.found.drawn)
        if blind is None:
            account = self._account(text, text.mentions, programs, events, parts)
        else:
            read = counted(events, blind[1], names, parts, self.catalog.schema)
            account = self._account(text, text.mentions, programs, read, parts)
            apart = self._apart(text, parts, target, parameters)
            if isinstance(apart, Exception):
                return apart
            catalog = self.catalog
            refuse_unheld(account, blind, apart, parts, target, text, catalog, self.engine)
        names = {part.key: names[part.key] for part in parts if not part.rows}
        refuse_reads_elsewhere(account, events, names, text, self.catalog)

        # The needs come before the refusals: one that no token can name adds to those.
        return self._kept(
            Plan(
                text=text,
                parts=parts,
                sent=run,
                apart="" if blind is None else other,
                target=target,
                needs=stated(account.needs(), parts),
                refusals=tuple(account.refusals),
                events=events,
                calls=calls_of(programs.all),
                asks=_asks(account, text),
                tells=_tells(account, programs),
            )
        )

    def _kept(self, plan: Plan) -> Plan:
        """The plan, which is remembered by its text."""
        sql = plan.text.sql
        self.found.plans.keep((sql, plan.parts), sql, plan)
        return plan

    def _writes(self, text: Text, parts: Parts) -> Target | None:
        """Return the part that the statement writes, if its rows are restricted."""
        found = written_by(text, parts, self.catalog.schema)
        if found is None or not found[0].rows:
            return None
        part, entry, operation = found
        raised = f"{self.found.drawn}_held"
        return Target(part, operation, raised, self.catalog.layout(entry).rowid)

    def _apart(
        self,
        text: Text,
        parts: Parts,
        target: Target | None,
        parameters: Any,
    ) -> Looked | Exception | None:
        """An UPDATE or a DELETE as a query, in which nothing stands for the table it writes."""
        if target is None or target.operation == "insert":
            return None
        name = f"{self.found.drawn}_changed"
        sql = Update(text.sql, target.operation).looked_up(name)
        more = (blind_query(name, target.part),)
        run = sent(sql, text, parts, self.found.drawn, more=more, is_blind=True)
        return self._look(run, parameters)

    def hold(self, target: Target | None) -> None:
        """Make the triggers that hold what the statement writes, unless they are there (rule 16).

        They stay until the block ends, or writes another table.
        """
        if target is not None and target != self._target:
            self.let_go()
            self._target = target
            for _, sql in target.triggers:
                self._watch.own(sql)

    def let_go(self) -> None:
        """Take the triggers away. A rollback does so, too."""
        if self._target is not None:
            for name, _ in self._target.triggers:
                self._watch.own(f"drop trigger if exists temp.{name}")
            self._target = None

    def _sent(
        self,
        text: Text,
        parts: Parts,
        behind: str = "",
        *,
        target: Target | None = None,
        is_blind: bool = False,
    ) -> str:
        """The text as it is compiled and run (rules 13 and 16)."""
        changed = self._changed(text, parts)
        sql = text.sql if changed is None else Update(text.sql).returning(changed)
        if target is not None and target.operation != "insert":
            update = Update(sql, target.operation)
            sql = update.held(target.part.held(f"{update.alias}."), first=bool(behind))
        return sent(sql, text, parts, self.found.drawn, behind, is_blind=is_blind)

    def _changed(self, text: Text, parts: Parts) -> Part | None:
        """The part that the statement updates, if it does and has columns that are not granted."""
        found = written_by(text, parts, self.catalog.schema)
        if found is None or found[0].is_whole or found[2] != "update":
            return None
        return found[0]

    def _plan_of_clearer(
        self,
        update: ChangedPart,
        problem: Exception,
        parameters: Any,
        tries: int,
    ) -> Plan | Exception:
        """The plan of the same UPDATE with a table before a name, or a string for what names none.

        The other text is planned as if the agent had written it: so this permits nothing. It has
        no other words, and the same parts. If there is none, what was wrong is.
        """
        clearer = update.clearer(str(problem)) if tries else None
        if clearer is None:
            return problem
        plan = self.plan(clearer, update.parts, parameters, tries - 1)
        if isinstance(plan, Exception):
            return problem
        return self._kept(plan._replace(text=update.text))

    def view(self, view: Object) -> Account | None:
        """What a view touches; None if SQLite cannot compile it."""
        views = self.found.views
        if view not in views:
            views[view] = self._account_of_view(view)
        return views[view]

    def _account_of_view(self, view: Object) -> Account | None:
        """The account of a statement that selects from the view, and from nothing else."""
        name = f"{quoted(view.schema)}.{quoted(view.name)}"
        text = Text(f"select 1 from {name}")  # noqa: S608
        looked = self._look(text.sql, ())
        if isinstance(looked, Exception):
            return None

        # No mentions: the one name in this text is the view's, and would ask for the view again.
        # Of what the view itself names, events and opcodes tell.
        programs, events = looked
        return self._account(text, (), programs, events, ())

    def _look(self, sql: str, parameters: Any) -> Looked | Exception:
        """The programs and events of the statement, which is compiled and not run (rule 3).

        Or the error. Parameters are bound, since a wrong number of them is an error as well.
        """
        # Read first, so that the transaction holds it. What is compiled next is compiled, and run,
        # by this very schema.
        self.catalog.schema  # noqa: B018

        try:
            instructions, events = self._watch.look(sql, parameters)
        except Exception as error:
            # Any: an OverflowError of a parameter, too, tells that the tables are there.
            return error

        # A statement that was not asked about would look like one that needs nothing.
        if not events:
            raise GuardError("SQLite compiled a statement without asking the authorizer")
        return Programs(instructions), events

    def _account(
        self,
        text: Text,
        mentions: Iterable[Mention],
        programs: Programs,
        events: Collection[Event],
        parts: Parts,
    ) -> Account:
        """The three accounts, added up. Later ones rest on what earlier ones found.

        Each only adds. So what one of them misses is still needed if another one has it.
        """
        catalog = self.catalog
        schema = self.catalog.schema
        account = Account()

        # What SQLite asked the authorizer, and what the opcodes do.
        add_events(account, events, catalog)
        readers = add_programs(account, programs, catalog, self.engine)

        # What neither says in full: columns of joins, rows that go, tables that do not matter.
        keys = {part.key for part in parts} - account.writes
        add_hidden_columns(account, text, programs, readers, catalog, keys)
        add_replaced(account, text, programs, schema, self.engine)
        add_names(account, mentions, schema, self.view)
        add_returned(account, programs)

        # A table of which an event says that columns are read is selected from, unless it is there
        # to be written, or looked up by a foreign key (rule 5).
        account.selects |= account.reads.keys() - account.writes - account.looked_up
        return account


def _asks(account: Account, text: Text) -> frozenset[str]:
    """Rule 7: the telltales that the text itself calls. Those of triggers are their owner's."""
    called = _TELLTALES & account.functions
    if not called:
        return called
    return called & text.names


def _tells(account: Account, programs: Programs) -> frozenset[str]:
    """Rule 7: which telltales tell of this statement, and no longer of others, once it ran.

    An upsert (INSERT … ON CONFLICT DO UPDATE) may insert no row, and then sets no last rowid.
    """
    # It writes nothing of its own, and leaves what they tell as it was.
    if account.target is None:
        return frozenset()

    if programs.sets_last_rowid and not account.updates:
        return frozenset(("changes", "last_insert_rowid"))
    return frozenset(("changes",))
