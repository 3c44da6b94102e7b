"""What a clock says, times as people give them, and how far the clocks of two machines may differ."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from math import floor, isfinite
from typing import Any, TypeAlias

CLOCKS_DIFFER = 60  # seconds that the clock of an issuer or operator may be ahead of ours
PROOF_PAST = 30  # seconds: how old a proof may be
PROOF_AHEAD = 5  # seconds: how far a holder's clock may be ahead


Clock: TypeAlias = Callable[[], float]


Seconds: TypeAlias = "int | timedelta"


Moment: TypeAlias = "int | datetime"


def read_clock(clock: Clock) -> int:
    """Seconds since the epoch, floored. Raises what the clock raises, ValueError if it gives no finite number."""
    now = clock()
    if type(now) is int:
        return now
    if type(now) is not float or not isfinite(now):
        raise ValueError("the clock must give seconds since the epoch, as int or float")
    return floor(now)


def epoch_seconds(given: Any, what: str) -> int:
    """Seconds since the epoch. Raises TypeError, or ValueError for a datetime without a time zone."""
    if isinstance(given, datetime):
        if given.utcoffset() is None:
            raise ValueError(f"{what} must be a datetime with a time zone")
        return int(given.timestamp() // 1)
    if type(given) is not int:
        raise TypeError(
            f"{what} must be seconds as int, or an aware datetime, not {type(given).__name__}"
        )
    return given
