"""A grant, as the guard of a database asks it: each access states what its statement costs.

    costed = CostedGrant(grant, cost)
    costed.begin(sql, parameters)            # what this statement costs, from here on
    costed.recheck(needs)                    # asked as if each of them cost that
    costed.take(needs, …)                    # charged once, however many there are

Two costs come together here: what the owner says (`cost`), and what the guard itself counts of a
token's budgets (`_usage_meter`). Without budgets and without `cost`, this calls the grant
unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from captoken._language.access import Access, Caller
from captoken._language.costs import Cost, cost_of, read_cost, with_cost
from captoken._verification.decision import Decision, Denied
from captoken._verification.grant import Grant
from captoken.adapters._usage_meter import UNITS, UsageMeter


class CostedGrant:
    """What the guards ask of a grant, with the cost of the statement that is at hand.

    For one block, and one thread. Nothing here decides.
    """

    def __init__(self, grant: Grant, cost: Cost | None) -> None:
        """Raises TypeError or ValueError for a mapping that is no cost."""
        self._grant = grant
        self._cost = read_cost(cost)
        if isinstance(self._cost, Mapping):
            _refuse_counted(self._cost)

        # What the owner says that the statement at hand costs: nothing before there is one.
        self._said: dict[str, int] = {}

        # What is left of the units that the guard counts, if the token has a budget in them.
        self._left: dict[str, int] = {}

    def begin(self, sql: str, parameters: Any) -> None:
        """A statement: from here on it is what is paid for.

        Raises TypeError or ValueError for what is no cost, and what the owner's function raises:
        nothing has run then.
        """
        if self._cost is not None:
            self._said = cost_of(self._cost, sql, parameters)
            _refuse_counted(self._said)
        self._left = self._grant.left(UNITS)

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

    def recheck(
        self,
        accesses: Iterable[Access] = (),
        *,
        caller: Caller | None = None,
    ) -> Decision:
        """As `Grant.recheck`. Nothing is charged."""
        if self._said or self._left:
            accesses = [self.stated(access) for access in accesses]
        return self._grant.recheck(accesses, caller=caller)

    def rows(self, table: str) -> tuple[Mapping[str, Any], ...]:
        """As `Grant.rows`, also of a table that is only reached. Raises Denied."""
        return self._grant.rows(table, reached=True)

    def take(
        self,
        accesses: Sequence[Access],
        *,
        caller: Caller | None,
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
            decision = self._grant.check_all(accesses, caller=caller)
            if not decision:
                raise Denied(decision)
        return UsageMeter(
            self._grant,
            accesses,
            caller,
            cost,
            counted,
            most_rows,
            writes=writes,
            decision=decision,
        )

    def deny(
        self,
        code: str | Decision,
        why: str = "",
        access: Access | None = None,
    ) -> Decision:
        """As `Grant.deny`."""
        return self._grant.deny(code, why, access)


def _refuse_counted(cost: Mapping[str, int]) -> None:
    """Raise ValueError for a cost in a unit that the guard counts by itself."""
    named = sorted(cost.keys() & set(UNITS))
    if named:
        raise ValueError(f"cost names {', '.join(named)}, which the guard counts by itself")
