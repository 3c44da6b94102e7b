"""Counts of calls: up to a second, and of each kind of call as of all."""

from __future__ import annotations

from captoken.audit import analysis, read
from captoken.cli.console import views
from tests.console.fixtures import World
from tests.console.test_index import story


def test_what_was_never_used_is_the_same_of_each_kind_of_call_as_of_all(world: World) -> None:
    """One record of each kind is kept at hand: what would have done is what the audit finds in the whole trail."""
    story(world)
    for _ in range(2):
        story(world)
    with open(world.path, "rb") as lines:
        expected = {usage.hop.id: usage for usage in analysis.unused(analysis.gather(read(lines)))}
    for (id,) in world.index.rows("select id from hops"):
        found, usage = views._unused(world.index, id), expected[id]
        assert (found is None) == usage.is_tight
        if found is not None:
            assert found["keywords"] == {key: value for key, value in usage.sufficient.items() if key != "depth"}
            assert found["allowed"] == usage.allowed
    assert 0 < world.index.rows("select count(*) from uses")[0][0] < world.index.rows("select sum(allowed) from hops")[0][0]


def test_counts_up_to_a_second_are_those_of_the_calls(world: World) -> None:
    """Whole minutes are counted beforehand, and what is in the last one when it is asked for."""
    root = world.mint()
    for number in range(20):
        world.now += 13
        world.ask(root, "sales" if number % 3 else "hr")
    for at in range(world.now - 270, world.now + 70, 7):
        expected = world.index.rows(
            "select coalesce(sum(allowed), 0), coalesce(sum(1 - allowed), 0), max(moment) / 1000 from calls where moment < ?",
            (at + 1) * 1000,
        )
        assert [views._counted_until(world.index, "q3", at)] == expected
