"""Nobody turns on a rule unseen: what it would have done, to whom, and whom else it hits."""

from __future__ import annotations

from pathlib import Path

from captoken.cli.reactions.replaying import replay
from captoken.cli.reactions.stated import read
from tests.reactions.test_watching import rule
from tests.reactions.world import World


def test_a_replay_finds_what_a_reactor_finds_and_does_nothing(world: World) -> None:
    lead = world.mint()
    west, south = lead.delegate(to="west"), lead.delegate(to="south")
    below = west.delegate(to="below")
    world.ask(west, "hr", times=5)
    world.ask(west, times=3)
    world.ask(below, times=2)
    world.ask(south, times=4)
    found = replay(read(str(world.rules)), [str(world.folder / "trail.jsonl")])
    assert world.entries == [] and found.decisions == 14 and found.troubles == []
    [one] = found.causes
    assert one.later == {"west": 3, "below": 2}, "those that were allowed, of it and of all below it"
    assert world.react() == [one.cause]


def test_it_says_whom_a_wide_rule_hits(tmp_path: Path) -> None:
    """By subject: one agent of hers is turned, and all of her tasks stand still for an hour."""
    world = World(tmp_path, rule(by="subject", **{"for": "1h"}))
    turned, other = world.mint(), world.mint(agent="mail", task="mail")
    world.ask(turned, "hr", times=5)
    world.tick(1800)
    world.ask(other, times=3)
    world.tick(1801)
    world.ask(other, times=7)
    [one] = replay(read(str(world.rules)), [str(tmp_path / "trail.jsonl")]).causes
    assert one.later == {"mail": 3}, "for an hour, and not longer"
    world.close()


def test_a_trail_that_does_not_hold_together_is_told(world: World) -> None:
    world.ask(world.mint(), "hr", times=5)
    path = world.folder / "trail.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"table":"hr"', b'"table":"xx"', 1))
    found = replay(read(str(world.rules)), [str(path)])
    assert found.causes == [] and "one of them was changed" in found.troubles[0]
