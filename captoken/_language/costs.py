"""What a request costs, as whoever builds a guard says it: `cost=`, with one meaning everywhere.

It is a mapping from units to integers, or a function of what the guard has at hand (a statement
with its parameters, a tool with its arguments, a request) that gives one. Left out, no cost is
stated; and a token with a budget permits nothing whose cost is not stated (spec 15.10).

    cost={"usd_cents": 0}                                  # all of it is free
    cost=lambda tool, arguments: {"usd_cents": PRICES[tool]}

What an access states itself stands: `cost` fills in the other units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from msgspec import structs

from captoken._language.access import Access, amounts

Cost: TypeAlias = Mapping[str, int] | Callable[..., Mapping[str, int]]


class NoCost(ValueError):  # noqa: N818, the name reads as what it is
    """An amount that a function gave is none. Of a call of a tool, its arguments made it so.

    A model that asks for -5 cents is denied, and the program goes on. `free` is the cost in the
    same units, all 0: with it, the rest of the call can be judged.
    """

    def __init__(self, why: str, free: Mapping[str, int]) -> None:
        """Keep why it is none, and the units."""
        super().__init__(why)
        self.free = free


def read_cost(given: Cost | None) -> Cost | None:
    """The cost as a guard keeps it: a mapping is read once, and checked. A function is kept.

    Raises TypeError or ValueError, so that a mistake is told when the guard is built.
    """
    if given is None or (callable(given) and not isinstance(given, Mapping)):
        return given
    return amounts(given, "cost")


def cost_of(cost: Cost | None, *place: Any) -> dict[str, int]:
    """What this one costs, of what `read_cost` gave. `place` is what a function is called with.

    Raises NoCost for an amount that is none, TypeError or ValueError for what is no mapping of
    units, and what the function raises.
    """
    if cost is None:
        return {}
    given = cost(*place) if callable(cost) else cost
    try:
        return amounts(given, "cost")
    except (TypeError, ValueError) as error:
        if not isinstance(given, Mapping):
            raise  # a mistake of whoever wrote the function, as units that have no name
        raise NoCost(str(error), amounts(dict.fromkeys(given, 0), "cost")) from None


def with_cost(access: Access, cost: Mapping[str, int]) -> Access:
    """The access, with a cost in the units that it does not state itself."""
    if cost.keys() <= access.cost.keys():
        return access
    return structs.replace(access, cost={**cost, **access.cost})


def charged_once(accesses: Sequence[Access], cost: Mapping[str, int]) -> list[Access]:
    """What one step needs, which costs that all together: the first states it, the others 0."""
    first, *others = accesses
    free = dict.fromkeys(cost, 0)
    return [with_cost(first, cost), *(with_cost(access, free) for access in others)]


def costing(rule: Any, cost: Cost | None) -> Any:
    """A rule of a guard's, an Access or a function that gives one, whose accesses state a cost.

    A function `cost` is called with what the rule is called with. An Access that always costs the
    same stays one. What the two raise, the guard takes as it takes what a rule raises.
    """
    known = read_cost(cost)
    if known is None:
        return rule
    if isinstance(rule, Access) and not callable(known):
        return with_cost(rule, known)

    def costed(asked: Any) -> Any:
        access = rule if isinstance(rule, Access) else rule(asked)

        # What is no Access permits nothing, whatever it costs: the guard says so.
        if not isinstance(access, Access):
            return access
        return with_cost(access, cost_of(known, asked))

    return costed
