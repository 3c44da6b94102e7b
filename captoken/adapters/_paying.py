"""A grant, as the guard of a database asks it: each access states what its statement costs.

    paying = Paying(grant, cost)
    paying.begin(sql, parameters)            # what this statement costs, from here on
    paying.recheck(needs)                    # asked as if each of them cost that
    paying.check_all(needs)                  # charged once, however many there are

Without `cost` it is the grant itself that is asked, and nothing is added to what it is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from captoken._language.access import Access, Caller
from captoken._language.costs import Cost, cost_of, read_cost, with_cost
from captoken._verification.decision import Decision, Grant


class Paying:
    """What the guards ask of a grant, with the cost of the statement that is at hand.

    For one block, and one thread. Nothing here decides.
    """

    def __init__(self, grant: Grant, cost: Cost | None) -> None:
        """Raises TypeError or ValueError for a mapping that is no cost."""
        self._grant = grant
        self._cost = read_cost(cost)

        # What the statement at hand costs: nothing is stated before there is one.
        self._stated: dict[str, int] = {}

    def begin(self, sql: str, parameters: Any) -> None:
        """A statement: from here on it is what is paid for.

        Raises TypeError or ValueError for what is no cost, and what the owner's function raises:
        nothing has run then.
        """
        if self._cost is not None:
            self._stated = cost_of(self._cost, sql, parameters)

    def stated(self, access: Access) -> Access:
        """The access, with what the statement at hand costs."""
        return with_cost(access, self._stated) if self._stated else access

    def recheck(
        self,
        accesses: Iterable[Access] = (),
        *,
        caller: Caller | None = None,
    ) -> Decision:
        """As `Grant.recheck`. Nothing is charged."""
        if self._stated:
            accesses = [self.stated(access) for access in accesses]
        return self._grant.recheck(accesses, caller=caller)

    def check_all(
        self,
        accesses: Sequence[Access],
        *,
        caller: Caller | None = None,
    ) -> Decision:
        """As `Grant.check_all`. The statement is charged once: what else it needs costs nothing."""
        if not self._stated:
            return self._grant.check_all(accesses, caller=caller)
        first, *others = accesses
        free = dict.fromkeys(self._stated, 0)
        paid = [self.stated(first), *(with_cost(access, free) for access in others)]
        return self._grant.check_all(paid, caller=caller)

    def deny(
        self,
        code: str | Decision,
        why: str = "",
        access: Access | None = None,
    ) -> Decision:
        """As `Grant.deny`."""
        return self._grant.deny(code, why, access)
