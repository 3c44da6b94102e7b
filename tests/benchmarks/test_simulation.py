"""A small instance of the simulation: real servers do what their models say, and what goes wrong stops within its bounds."""

from __future__ import annotations

from typing import Any

import pytest

from .simulation import publishing, real, regions, report
from .simulation.plan import Plan, Span

SMALL = Plan(
    servers=40, real=5, agents=400, seconds=240, entries=700, revoke=4.0, rollout=10.0,
    cut=Span(50, 130), away=Span(150, 220), budgets=6, budget=200, slice=20,
)  # fmt: skip


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    """Real servers and models are compared call by call while it is made."""
    return report.simulated(SMALL)


def test_what_was_ended_is_let_through_for_a_look_and_no_longer(figures: dict[str, Any]) -> None:
    """`every` seconds, the way to the bucket, and what it takes to publish; at real servers likewise."""
    assert 0 < figures["servers"]["delay"]["median"] < SMALL.every
    assert figures["servers"]["delay"]["max"] < SMALL.every + 3
    latest = figures["real"]["latest"]
    assert all(late < SMALL.every + 3 for region, late in latest.items() if region != SMALL.cut_region)


def test_real_servers_met_with_each_answer(figures: dict[str, Any]) -> None:
    codes = figures["real"]["codes"]
    assert codes.keys() == {"allowed", "revoked", "stale_overlay"} and min(codes.values()) > 20
    assert figures["real"]["servers"] == SMALL.real == len({SMALL.region_of(each * 8 + 4).name for each in range(5)}) + 1


def test_a_region_that_is_cut_off_denies_within_the_bound_and_comes_back(figures: dict[str, Any]) -> None:
    cut, bound = figures["cut"], SMALL.max_staleness + 1
    assert cut["servers"] == sum(SMALL.region_of(each).name == SMALL.cut_region for each in range(SMALL.servers))
    assert 0 < cut["first denies"] <= cut["last denies"] <= bound
    assert 0 < cut["first is back"] <= cut["last is back"] and cut["calls refused"] > 0
    assert 0 < cut["delay"]["max"] <= bound


def test_without_an_operator_all_deny_within_the_bound(figures: dict[str, Any]) -> None:
    away = figures["away"]
    assert away["servers"] == SMALL.servers and 0 < away["first denies"] <= away["last denies"] <= SMALL.max_staleness + 1


def test_less_is_asked_for_and_more_let_through_the_longer_a_server_waits(figures: dict[str, Any]) -> None:
    rows = figures["intervals"]
    assert [row["requests a second"] for row in rows] == sorted((row["requests a second"] for row in rows), reverse=True)
    assert [row["delay"]["max"] for row in rows] == sorted(row["delay"]["max"] for row in rows)
    agreeing, spread = figures["bursts"]
    assert agreeing["most in a tenth"] > 2 * spread["most in a tenth"]


def test_no_budget_is_overspent_but_where_each_region_counts_for_itself(figures: dict[str, Any]) -> None:
    budgets = {row["way"]: row for row in figures["budgets"]}
    assert {way for way, row in budgets.items() if row["over"]} == {"each"}
    assert budgets["one"]["stranded"] == 0 < budgets["slices"]["stranded"] < budgets["parted"]["stranded"]
    one, parted = budgets["one"], budgets["parted"]
    assert one["refused_cut"] == one["calls_cut"] > 0 == parted["refused_cut"] == parted["round_trips"]


def test_the_same_seed_gives_the_same_figures(figures: dict[str, Any]) -> None:
    """Of what is real; another seed gives others."""
    fewer = SMALL._replace(real=1, seconds=100)
    made = [publishing.published(fewer) for _ in range(2)]
    assert made[0].versions == made[1].versions and made[0].ended == made[1].ended
    assert real.compared(fewer, made[0]) == real.compared(fewer, made[1])
    assert [spent._asdict() for spent in regions.compared(SMALL)] == figures["budgets"]
    assert publishing.published(fewer._replace(seed=8)).ended != made[0].ended


def test_a_model_that_differs_is_found() -> None:
    """The comparison can fail: where the model believes in another bound, a real server answers otherwise."""
    fewer = SMALL._replace(real=5, seconds=150)
    made = publishing.published(fewer)
    wrong = [version._replace(issued_at=version.issued_at + 5) for version in made.versions]
    with pytest.raises(AssertionError):
        real.compared(fewer, made._replace(versions=wrong))


def test_it_says_what_each_part_sees(figures: dict[str, Any]) -> None:
    text = "\n".join(report.lines(figures))
    assert all(part in text for part in ("the operator\n", "a server\n", "the bucket\n", "region ap cannot", "6 budgets of 200"))
    assert "  real    " in text and "  model   " in text
