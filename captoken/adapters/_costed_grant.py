"""A grant, as the guard of a database asks it: each access states what its statement costs.

    costed = CostedGrant(grant, cost, caller)
    costed.begin(sql, parameters)            # what this statement costs, from here on
    costed.recheck(needs)                    # asked as if each of them cost that
    costed.take(needs, …)                    # charged once, however many there are
    raise costed.denied("row", why)          # what no token permits, once it is recorded

Two costs come together here: what the owner says (`cost`), and what the guard itself counts of a
token's budgets (`_usage_meter`). Without budgets and without `cost`, this calls the grant
unchanged.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from captoken._language.access import Access, Caller, Statement
from captoken._language.costs import Cost, cost_of, read_cost, with_cost
from captoken._verification.decision import Decision, Denied
from captoken._verification.facts import Condition
from captoken._verification.grant import Grant
from captoken.adapters._usage_meter import UNITS, UsageMeter

# Refusals for which what the links say of rows is asked. That of an operator's entry is one of all.
_OF_ROWS = frozenset(("row", "narrowed"))
_OF_CONSENTS = frozenset(("consent_missing", "bad_consent"))


class CostedGrant:
    """What the guards ask of a grant, with the cost of the statement that is at hand.

    For one block, and one thread. Nothing here decides.
    """

    def __init__(self, grant: Grant, cost: Cost | None, caller: Caller | None = None) -> None:
        """`caller` is asked about with each access.

        Raises TypeError or ValueError for what is no grant, and for a mapping that is no cost.
        """
        self._grant = checked(grant)
        self._caller = caller
        self._cost = read_cost(cost)
        if isinstance(self._cost, Mapping):
            _refuse_counted(self._cost)

        # What the owner says that the statement at hand costs: nothing before there is one.
        self._said: dict[str, int] = {}

        # What a person would consent to, where the token asks for that: the statement at hand.
        self._asks = self._grant.asks_consent
        self._statement: Statement | None = None

        # What is left of the units that the guard counts, if the token has a budget in them.
        self._left: dict[str, int] = {}
        self._may_count = True

    def begin(self, sql: str, parameters: Any) -> None:
        """A statement: from here on it is what is paid for.

        Raises TypeError or ValueError for what is no cost, and what the owner's function raises:
        nothing has run then.
        """
        if self._cost is not None:
            self._said = cost_of(self._cost, sql, parameters)
            _refuse_counted(self._said)
        if self._asks:
            self._statement = statement_of(sql, parameters)
        if self._may_count:
            self._left = self._grant.left(UNITS)
            self._may_count = bool(self._left)  # a token without such a budget never gets one

    @property
    def counts_writes(self) -> bool:
        """Has the token a budget of rows to write?"""
        return "rows_written" in self._left

    def stated(self, access: Access) -> Access:
        """The access, with what the statement at hand costs.

        Of what the guard counts it costs nothing yet: that a budget has enough of it, a question
        without a ledger cannot tell.
        """
        if not self._said and not self._left:
            return access
        return with_cost(access, {**self._said, **dict.fromkeys(self._left, 0)})

    def stands(self) -> Decision:
        """Whether the grant stands at all, whatever is done by it."""
        return self._grant.recheck()

    def recheck(self, accesses: Iterable[Access], *, under_way: bool = False) -> Decision:
        """As `Grant.recheck`. Nothing is charged.

        A part of a statement is not what a person consents to, so no consent is asked about here.
        `take` asks, for the whole of it.
        """
        if self._said or self._left or self._asks:
            accesses = [self.stated(access) for access in accesses]
        decision = self._grant.recheck(accesses, caller=self._caller, under_way=under_way)
        if decision.code in _OF_CONSENTS:
            return self._grant.recheck(accesses, caller=self._caller, under_way=True)
        return decision

    def ask(
        self,
        access: Access,
        rows: tuple[Condition, ...] = (),
    ) -> tuple[Decision, tuple[Condition, ...]]:
        """The same of one access, to those rows that there are; and what the links say of these.

        `rows` is what they say, where it is known. Without it they are asked if need be.
        """
        stated = replace(access, rows=rows) if rows else access
        decision = self.recheck((stated,))
        if rows or decision.code not in _OF_ROWS or access.table is None:
            return decision, rows
        try:
            rows = self.rows(access.table)
        except Denied as denied:
            return denied.decision, ()
        return self.ask(access, rows) if rows else (decision, ())

    def late(self, accesses: Iterable[Access]) -> Decision | None:
        """The denial, if it does not permit any more what ran. Not recorded yet.

        What ran has to be undone first.
        """
        decision = self.recheck(accesses, under_way=True)
        return None if decision else decision

    def rows(self, table: str) -> tuple[Condition, ...]:
        """As `Grant.rows`, also of a table that is only reached. Raises Denied."""
        return self._grant.rows(table, reached=True)

    @property
    def grants_parts(self) -> bool:
        """As `Grant.grants_parts`."""
        return self._grant.grants_parts

    def links(self) -> Hashable:
        """What all that it permits turns on, beside the time. None: others have a say in it, too.

        An operator can change their mind, and nobody has seen all links of a discharge.
        """
        caveats = self._grant.caveats
        if self.stands().overlaid or any(vid for _, vid in caveats):
            return None
        return caveats, self._caller

    def take(
        self,
        accesses: Sequence[Access],
        *,
        most_rows: int,
        writes: bool,
    ) -> UsageMeter:
        """Decide on all that a statement needs, and charge it once: what else it needs is free.

        Gives the account that the statement is counted in. One that needs nothing, as `select 1`,
        is not charged, and nothing of it is counted. Raises Denied, which is recorded.
        """
        counted = self._left if accesses else {}
        cost = self._said if accesses else {}
        decision: Decision | None = None
        if accesses and not counted and not cost:
            decision = self._grant.check_all(
                accesses, caller=self._caller, statement=self._statement
            )
            if not decision:
                raise Denied(decision)
        return UsageMeter(
            self._grant,
            accesses,
            self._caller,
            cost,
            counted,
            most_rows,
            writes=writes,
            decision=decision,
            statement=self._statement,
        )

    def denied(
        self,
        code: str | Decision,
        why: str = "",
        access: Access | None = None,
    ) -> Denied:
        """What to raise for a denial, which is recorded as by `Grant.deny`.

        Whoever asks for it raises it: a denial that is recorded and not raised is a false record.
        """
        return Denied(self._grant.deny(code, why, access))


def statement_of(sql: str, parameters: Any) -> Statement:
    """A statement as a person consents to it: its text, and each parameter with its type.

    By name where they have names. A value is told by its `repr`, a text as it stands.
    """
    named = sorted(parameters.items()) if isinstance(parameters, Mapping) else None
    if named is None:
        return Statement(sql, tuple(map(_typed, parameters or ())))
    typed = [(name, *_typed(value)) for name, value in named]
    return Statement(sql, tuple((f"{name}: {kind}", text) for name, kind, text in typed))


def _typed(value: Any) -> tuple[str, str]:
    """The type of a value and its text: 7 and "7" are two."""
    return type(value).__name__, value if type(value) is str else repr(value)


def access_or_none(
    table: str | None,
    operation: str | None,
    columns: Iterable[str] | None = None,
    rows: Sequence[Condition] | None = None,
) -> Access | None:
    """The access, or None if no token can name it.

    Where a column has a name that no token can hold, none are stated: that is prohibited wherever
    columns are restricted, and whoever may use all columns of the table may use that one. No
    columns at all (`()`) are something else.
    """
    if table is None:
        return None
    stated = None if columns is None else tuple(sorted(columns))
    for its in dict.fromkeys((stated, None)):
        with suppress(ValueError):
            return Access(table=table, operation=operation, columns=its, rows=rows)
    return None


def checked(grant: object) -> Grant:
    """A block has one grant. Raises TypeError for what is none, as a function that gives one."""
    if isinstance(grant, Grant):
        return grant
    raise TypeError(
        f"expected a Grant, not {type(grant).__name__}: verifier.authenticate(token) returns one"
    )


def _refuse_counted(cost: Mapping[str, int]) -> None:
    """Raise ValueError for a cost in a unit that the guard counts by itself."""
    named = sorted(cost.keys() & set(UNITS))
    if named:
        raise ValueError(f"leave {', '.join(named)} out of cost: the guard counts it itself")
