"""What the grant says of a statement: rules 5, 6, 9 and 11 of `postgres`.

A statement is judged in this order. The first that stands against it is the answer:

1. the token itself: it may have expired, or been revoked;
2. the text: it is no statement that is granted to anybody (T1, T2, T6);
3. the grant, for each table and operation of the text, and which columns it permits there;
4. functions and types that are not granted (T6, T7);
5. the roles of the login, which may have fewer tables and operations;
6. the grant once more, for all that the statement needs. This time it counts, and is recorded.

A name of a column is no matter for a denial: the engine sees the columns that are permitted, and no
others (`rewriting`). Denials are recorded here, and in `reports` those that the database caused.
Each of them says as little as it can: a table that is missing and one that is not permitted are the
same answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from captoken._format.errors import GuardError
from captoken._language.access import Access
from captoken._verification.decision import Decision, Denied
from captoken._verification.facts import Condition
from captoken.adapters._costed_grant import CostedGrant
from captoken.adapters._postgres.assessment import (
    NEVER_GRANTED,
    Asked,
    Assessment,
    Assessor,
    Permissions,
    Shows,
    Use,
    View,
    type_refused,
)
from captoken.adapters._postgres.catalog import Need, Related
from captoken.adapters._postgres.held import Held, Rows, told_of
from captoken.adapters._postgres.logins import forget
from captoken.adapters._postgres.names import WITH_COLUMNS, access_to, name_of
from captoken.adapters._postgres.text import Table
from captoken.adapters._postgres.wire import Connection
from captoken.adapters._usage_meter import UsageMeter

# The most uses of tables that are remembered for a grant.
_MOST_USES = 1_000

# Rule 14. Why rows cannot be held, by how they are reached (`Related`).
_EXPOSED = "{} reaches rows of {}, which are restricted, with rights of an owner: no policy holds"
_APART = "{} and {} have rows in common, and the token says of these two tables different things"
_REACHED = {"exposed": _EXPOSED, "up": _APART, "down": _APART}
_SAID_ANEW = "what the token says of rows has changed in this block: begin another"

# Nobody knows whether a function writes (`execute`) before it has run.
_WRITES = frozenset(("insert", "update", "delete"))


class Permitted(NamedTuple):
    """A statement that the grant permits."""

    # The database role the statement runs as.
    role: str

    # What the statement needs, the text to send, and what that assumes about the schema.
    assessed: Assessment

    # The grant's last decision, which has the time.
    decision: Decision

    # The meter for the token's budgets (rule 13).
    meter: UsageMeter

    # The restrictions on rows as JSON, for a transaction that starts with it (rule 14).
    rows: bytes | None


class Judge:
    """One grant, for one caller, on one connection.

    It sends nothing. What the database says no to comes to `Reports`.
    """

    def __init__(
        self,
        connection: Connection,
        grant: CostedGrant,
        assessor: Assessor,
        max_rows: int,
        permissions: Permissions,
        may_restrict_rows: bool,
    ) -> None:
        self._connection = connection
        self.grant = grant
        self._assessor = assessor
        self._max_rows = max_rows

        # The columns that it permits for each use, as far as asked (`_view`).
        self._permissions = permissions
        self._asked = self._asked_before()

        # Whether a link may restrict rows, and the restrictions (`_known`; rule 14).
        self._restricts = may_restrict_rows
        self._rows: Rows | None = None

    def judge(self, sql: str, parameters: Sequence[Any]) -> Permitted:
        """Rules 5 and 6. What a statement needs, and in which role it is to run.

        `parameters` are for what it costs, and for nothing else.

        Raises Denied, recorded, where the grant does not permit it. Nothing was sent by then.
        """
        # A token that is over does not get as far as to have its text read. Where it was read
        # before, what is asked below says it.
        if not self._assessor.remembers(sql):
            self._check_alive()

        # Each question about it says what it costs.
        self.grant.begin(sql, parameters)
        found = self._assess(sql)

        # The one question that counts, about all of it.
        try:
            meter = self._take(found.accesses)
        except Denied:
            # What was found before may hold no more: the grant can be narrower since.
            self._permissions.clear()
            self._asked = self._asked_before()
            raise
        decision = meter.decision or self._check_alive()
        return self._permitted(found, decision, meter)

    def _check_alive(self) -> Decision:
        """What is asked where no table is. Raises Denied, recorded, if the token is over."""
        decision = self.grant.stands()
        if not decision:
            raise self.grant.denied(decision)
        return decision

    def judge_again(self, sql: str, assessor: Assessor, meter: UsageMeter) -> Permitted:
        """The same by what was read since, of a statement that was permitted and undone.

        It is not charged a second time, and goes on with the account that it has. Raises Denied,
        recorded.
        """
        self._assessor = assessor
        self._asked = self._asked_before()
        found = self._assess(sql)
        decision = self.grant.recheck(found.accesses)
        if not decision:
            raise self.grant.denied(decision)
        meter.begin_again()
        return self._permitted(found, decision, meter)

    def _assess(self, sql: str) -> Assessment:
        """What it needs. Raises Denied for what stands against it, whatever is asked next."""
        uses = self._assessor.reading(sql).uses
        view = self._view(uses)
        found = self._assessor.assess(sql, view)
        if found.refusal is None:
            found = self._with_reached(sql, view, found)
        if found.refusal is not None or found.role is None or found.types:
            self._look_closer(found)
        return found

    def _asked_before(self) -> Asked:
        """What was found of the grant by this catalog. What was found by another one is no use."""
        if self._assessor not in self._permissions:
            self._permissions.clear()
            self._permissions[self._assessor] = Asked()
        return self._permissions[self._assessor]

    def _view(self, uses: Iterable[Use]) -> View:
        """What the grant permits, of each table of a statement that it restricts.

        Each column is asked about by itself, so that it is the links that decide. What was found
        is kept for the grant. Whether it holds still, the question about the statement says.
        """
        # The names are an agent's: how many are kept is bounded.
        shown = self._asked.shown
        if len(shown) > _MOST_USES:
            shown.clear()
        found: dict[Table, Shows] = {}
        for use in uses:
            if use not in shown:
                shown[use] = self._shows(*use)
            columns, rows = shown[use]
            if columns is not None or rows is not None:
                before, _ = found.get(use[0], (None, None))
                found[use[0]] = (columns if before is None else before, rows)
        return tuple(found.items())

    def _shows(self, table: Table, operation: str) -> Shows:
        """The columns and rows with which the grant permits that.

        Raises Denied, recorded, where it does not permit it with any, and for what has no columns.
        """
        known = self._known().held.get(table)
        rows: tuple[Condition, ...] = () if known is None else tuple(known.conditions)
        whole = access_to(table, operation, None)
        if whole is None:
            raise self.grant.denied("table", NEVER_GRANTED)
        decision, rows = self.grant.ask(whole, rows)
        every = bool(decision)
        # Is it for the columns? Whoever says no to that, an operator too, permits it with none.
        if not every and operation in WITH_COLUMNS:
            decision, rows = self.grant.ask(access_to(table, operation, ()) or whole, rows)
        if not decision:
            raise self.grant.denied(decision)
        columns = None if every else self._permitted_columns(table, operation, rows)
        return columns, Held.of(rows)

    def _permitted_columns(
        self,
        table: Table,
        operation: str,
        rows: Sequence[Condition],
    ) -> tuple[str, ...]:
        """Each column is asked about by itself. One that no token can hold, none permits."""
        every = self._assessor.catalog.every.get(table, ())
        asked = {column: access_to(table, operation, (column,), rows) for column in every}
        return tuple(
            column
            for column, access in asked.items()
            if access is not None and self.grant.recheck((access,))
        )

    # --- rule 14: rows ---

    def _may_restrict(self) -> bool:
        """Whether anything restricts rows: a link does, or an operator can."""
        if self._asked.overlaid is None:
            self._asked.overlaid = self.grant.stands().overlaid
        return self._restricts or self._asked.overlaid

    def _known(self) -> Rows:
        """What the token says of those tables that have a policy. It is the same for all of a
        block: its transaction is told once. The next block asks again, where an operator can say
        something else by then.
        """
        if self._rows is None:
            kept = None if self._asked.overlaid else self._asked.rows
            self._rows = self._asked.rows = self._ask_of_rows() if kept is None else kept
        return self._rows

    def _ask_of_rows(self) -> Rows:
        declared = self._assessor.catalog.declared
        if not declared:
            return Rows({}, None)
        # `true` is every row, of all tables or of one. Of what is not named, there is none.
        if not self._may_restrict():
            return Rows({}, b"true")
        said = {table: self._says_of_rows(table) for table in declared}
        held = {table: rows for table, rows in said.items() if rows is not None}
        return Rows(held, told_of(said))

    def _says_of_rows(self, table: Table) -> Held | None:
        """What the token says of the rows of a table, whatever it permits of it. None: nothing.

        Raises Denied, recorded, where the token does not stand.
        """
        name = name_of(table)
        if name is None:
            return None
        try:
            return Held.of(self.grant.rows(name))
        except Denied as denied:
            raise self.grant.denied(denied.decision) from None

    def _with_reached(self, sql: str, view: View, found: Assessment) -> Assessment:
        """The same, with the rows of tables that views read.

        Raises Denied, recorded, for what reaches restricted rows where no policy holds them.
        """
        catalog = self._assessor.catalog
        held = {table: rows for table, (_, rows) in view if rows is not None}
        added: dict[Table, Held] = {}
        for need in found.needs:
            related = catalog.related(need)
            if related and self._may_restrict():
                added.update(self._reached(need, related, held))
        for table, rows in {**added, **held}.items():
            if table in catalog.declared and self._known().held.get(table) != rows:
                raise self.grant.denied("row", _SAID_ANEW)
        if not added.keys() - held.keys():
            return found
        shows: dict[Table, Shows] = {table: (None, rows) for table, rows in added.items()}
        return self._assessor.assess(sql, tuple({**shows, **dict(view)}.items()))

    def _reached(
        self,
        need: Need,
        related: Sequence[Related],
        held: Mapping[Table, Held],
    ) -> dict[Table, Held]:
        """What is held of the tables that a view reads for whoever asks. Raises Denied."""
        found: dict[Table, Held] = {}
        for how, table, of in related:
            rows = self._says_of_rows(table)
            if rows is None:
                continue
            if how == "through":
                found[table] = rows
                continue
            known = held.get(of) or found.get(of)
            said = set(known.spelled) if known is not None and how != "exposed" else set()
            if not said.issuperset(rows.spelled):
                why = _REACHED[how].format(name_of(need.table), name_of(table))
                raise self.grant.denied("row", why)
        return found

    def _permitted(self, found: Assessment, decision: Decision, meter: UsageMeter) -> Permitted:
        # A statement that needs no table gets the narrowest role there is.
        role = found.role or next(iter(self._assessor.catalog.narrowest), None)
        if role is None:
            raise GuardError("the login has no narrow role: `captoken postgres plan` makes one")
        return Permitted(role, found, decision, meter, self._known().told)

    def _take(self, accesses: Sequence[Access]) -> UsageMeter:
        """Rule 6. All at once: a statement counts as one use of the token.

        The answer is recorded, whichever it is.
        """
        return self.grant.take(
            accesses,
            most_rows=self._max_rows,
            writes=any(access.operation in _WRITES for access in accesses),
        )

    def _look_closer(self, found: Assessment) -> None:
        """What stands against a statement, in an order that tells nothing.

        What the grant says comes first: whoever may not use a table learns nothing else about it,
        and not whether it is there. Returns where nothing stands against it after all.
        """
        decision = self.grant.recheck(found.accesses)
        if not decision:
            raise self.grant.denied(decision)

        # What nobody is granted. Of a text that was refused unread there are no accesses. Else it
        # may be for a function that is new: the next block looks at them again.
        if found.refusal is not None:
            if found.accesses:
                forget(self._connection)
            raise self.grant.denied(*found.refusal)

        # T6. Of an enum it is a column that is granted.
        for name, uses in found.types:
            if not any(self.grant.ask(use)[0] for use in uses):
                raise self.grant.denied("operation", type_refused(name))

        # What the login may not do. Its roles may have been planned anew meanwhile.
        if found.role is None and found.accesses:
            forget(self._connection)
            raise self.grant.denied(*self._assessor.catalog.lacking(found.accesses))
