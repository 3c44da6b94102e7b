"""What stands still or repeats: a clock that moves when it is told to, and randomness of a seed."""

from __future__ import annotations

from captoken.testing import FixedClock


def test_a_fixed_clock_moves_when_it_is_told_to() -> None:
    fixed = FixedClock(5)
    fixed.advance(-2)
    assert fixed() == 3
