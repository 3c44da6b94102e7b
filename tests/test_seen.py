"""What an operator has seen of its store outlives its process."""

from __future__ import annotations

from typing import Any

import pytest

from captoken._format.encoding import MAX_INTEGER
from captoken.control import Feed, Operator
from captoken.errors import OverlayError
from captoken.stores.memory import MemorySnapshots
from tests.fixtures import NOW
from tests.test_overlay import KEY, World


def test_an_operator_remembers_beyond_its_process_and_goes_on_behind_what_was_seen() -> None:
    """`last` is kept: then a store that has less is refused, and one that is restored on purpose goes on with a greater number."""
    world = World()
    old = world.store.load()
    feed = Feed(world.store, [KEY.public], every=0, clock=world.now)
    for name in "abc":
        world.operator.revoke(agent=name, why="x")
    assert feed() is not None and world.operator.last == 4
    world.store._snapshot = old
    with pytest.raises(OverlayError, match="it had snapshot 4, and now it has 1"):
        Operator(KEY, world.store, by="ops", clock=world.now, last=4).renew()
    assert Operator(KEY, world.store, by="ops", clock=world.now, last=4, resume="looked").renew().seq == 1000 * NOW
    assert feed.refresh().seq == 1000 * NOW


@pytest.mark.parametrize("last", [-1, MAX_INTEGER + 1, True, b"5", None, 1.0])
def test_what_was_seen_last_is_a_number_of_a_snapshot(last: Any) -> None:
    with pytest.raises(ValueError, match="the number of a snapshot"):
        Operator(KEY, MemorySnapshots(), by="ops", last=last)
