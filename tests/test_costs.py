"""What a request costs, as whoever builds a guard says it: read once, and told where it is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from captoken import Access
from captoken._language.costs import NoCost, charged_once, cost_of, costing, read_cost, with_cost

ACCESS = Access(table="sales", operation="select", cost={"rows": 5})


class Changing(Mapping[str, int]):
    """Says another amount each time that it is read."""

    def __init__(self) -> None:
        self.read = 0

    def __getitem__(self, unit: str) -> int:
        self.read += 1
        return self.read

    def __iter__(self) -> Iterator[str]:
        return iter(["cents"])

    def __len__(self) -> int:
        return 1


def test_a_mapping_is_read_when_the_guard_is_built() -> None:
    cost = read_cost(Changing())
    assert cost_of(cost) == cost_of(cost) == {"cents": 1}
    for wrong, kind in (({"cents": -1}, ValueError), ({"cents": 1.5}, TypeError), ({"": 1}, ValueError), (5, TypeError)):
        with pytest.raises(kind):
            read_cost(wrong)  # type: ignore[arg-type]


def test_a_function_is_asked_each_time_with_the_place() -> None:
    cost = read_cost(lambda tool, arguments: {"cents": arguments["n"] * (2 if tool == "mail" else 1)})
    assert cost_of(cost, "mail", {"n": 5}) == {"cents": 10} and cost_of(cost, "ping", {"n": 5}) == {"cents": 5}
    assert cost_of(None) == {} and read_cost(None) is None


def test_an_amount_that_a_call_made_wrong_is_told_apart_from_a_mistake_of_the_program() -> None:
    with pytest.raises(NoCost) as unpriced:
        cost_of(lambda: {"cents": -5, "rows": 3})
    assert unpriced.value.free == {"cents": 0, "rows": 0}  # in these units the rest of the call can be judged
    for wrong in (None, [("cents", 5)], 5, {"": -5}):
        with pytest.raises((TypeError, ValueError)) as caught:
            cost_of(lambda given=wrong: given)
        assert not isinstance(caught.value, NoCost)


def test_what_an_access_states_itself_stands() -> None:
    assert with_cost(ACCESS, {"rows": 9, "cents": 2}).cost == {"rows": 5, "cents": 2}
    assert with_cost(ACCESS, {"rows": 9}) is ACCESS


def test_of_one_step_the_first_access_states_the_cost_and_the_others_none() -> None:
    plain = Access(table="hr", operation="select")
    assert [dict(access.cost) for access in charged_once([plain, ACCESS, plain], {"cents": 3, "rows": 1})] == [
        {"cents": 3, "rows": 1}, {"rows": 5, "cents": 0}, {"cents": 0, "rows": 0},
    ]  # fmt: skip


def test_a_rule_states_what_its_accesses_leave_out() -> None:
    def rule(asked: str) -> Any:
        return ACCESS if asked == "known" else None

    assert costing(rule, None) is rule
    assert costing(ACCESS, {"cents": 3}).cost == {"rows": 5, "cents": 3}
    assert costing(rule, {"cents": 3})("known").cost == {"rows": 5, "cents": 3} and costing(rule, {"cents": 3})("x") is None
    by_asked = costing(ACCESS, lambda asked: {"cents": len(asked)})
    assert by_asked("four").cost == {"rows": 5, "cents": 4}
