"""How long the tests go on that draw at random or kill, and what they draw: `.ci/run` takes the usual, `.ci/nightly` more.

`CAPTOKEN_TIMES` is by how much longer they draw, `CAPTOKEN_SEED` another number to begin from than the usual ones, and
`CAPTOKEN_KILLS` how often each of the tests that kill -9 does. A run with the same three draws the same again. With another
seed, four times as long is the least: some tests want to have met codes that are rare.
"""

from __future__ import annotations

import os
import random

import pytest

TIMES = int(os.environ.get("CAPTOKEN_TIMES", "1"))
SEED = int(os.environ.get("CAPTOKEN_SEED", "0"))
_KILLS = int(os.environ.get("CAPTOKEN_KILLS", "0"))


def times(usual: int) -> int:
    """How often, where it is so often by day."""
    return usual * TIMES


def kills(usual: int) -> int:
    """How many kills, where there are so many by day."""
    return _KILLS or usual


def drawing(usual: int | str) -> random.Random:
    """A source that begins with this seed, or with another one that this run was told."""
    return random.Random(f"{usual}, {SEED}" if SEED else usual)


def parts(count: int) -> list[object]:
    """The numbers of the parts of one drawn test, each of which meets all that the test is about.

    Coverage is measured in the first one alone: under it, what decides takes twice as long.
    """
    return [0, *(pytest.param(part, marks=pytest.mark.no_cover) for part in range(1, count))]
