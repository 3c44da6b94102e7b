"""For the tests of those who embed captoken: a clock that stands still, and nonces that come out the same each time.

Never in production: a token whose nonces can be foretold has link ids that can be foretold.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from captoken._format.primitives import sha256


class FixedClock:
    """A clock for `clock=` that shows `now`, in seconds since the epoch, until somebody moves it."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: int) -> None:
        """Move the clock; back, if `seconds` is negative."""
        self.now += seconds


def fixed_random(seed: str) -> Callable[[int], bytes]:
    """A source for `random=`, up to 32 bytes at a time: the same bytes for the same seed, in the order asked for."""
    counter = count()
    return lambda size: sha256(f"{seed}:{next(counter)}".encode())[:size]
