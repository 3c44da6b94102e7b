"""What a clock says, times as people give them, and how far the clocks of two machines may differ.

All times are whole seconds since the epoch, of any sign. `now` is always an argument of what
decides, and never asked by it: so a decision can be made again later, from its record.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from math import floor, isfinite
from typing import Any, TypeAlias

# Seconds that the clock of an issuer or an operator may be ahead of ours. What they wrote at a
# later time than that is refused (spec 24.5).
CLOCKS_DIFFER = 60

# Of a proof of possession (spec 30.5). A verifier's `leeway` has no part in it.
PROOF_PAST = 30  # seconds: how old a proof may be
PROOF_AHEAD = 5  # seconds: how far a holder's clock may be ahead

# What a user gives where a clock is asked for: `time.time`, or one for tests.
Clock: TypeAlias = Callable[[], float]
# How long: seconds.
Seconds: TypeAlias = int | timedelta
# When: seconds since the epoch, or a datetime that knows its time zone.
Moment: TypeAlias = int | datetime


def read_clock(clock: Clock) -> int:
    """Seconds since the epoch, floored.

    Floored, and not rounded: a token is over in the second in which it ends, and not before.

    Raises what the clock raises, and ValueError if it gives no finite number. A clock that says
    nothing denies, where a comparison with NaN would let pass.

        read_clock(lambda: 1767225600.9)     # 1767225600
        read_clock(lambda: float("nan"))     # ValueError
    """
    now = clock()
    if type(now) is int:
        return now
    # By exact type: a clock that gives True, or a Decimal, was not meant as a clock.
    if type(now) is not float or not isfinite(now):
        raise ValueError("the clock must give seconds since the epoch, as int or float")
    return floor(now)


def epoch_seconds(given: Any, what: str) -> int:
    """Seconds since the epoch, of what a user gave as a moment; `what` names it in errors.

    It may lie in the past, and before 1970. Raises TypeError for another type, a fraction too, and
    ValueError for a datetime without a time zone: whose midnight is meant would be a guess.

        epoch_seconds(datetime(2026, 1, 1, tzinfo=UTC), "expires_at")    # 1767225600
        epoch_seconds(1767225600, "expires_at")                          # the same
    """
    if isinstance(given, datetime):
        if given.utcoffset() is None:
            raise ValueError(f"{what} must be a datetime with a time zone")
        # Floored, as a clock is: `int` alone would round towards 1970.
        return int(given.timestamp() // 1)
    if type(given) is not int:
        raise TypeError(
            f"{what} must be seconds as int, or an aware datetime, not {type(given).__name__}"
        )
    return given
