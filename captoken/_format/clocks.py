"""What a clock says, times as people give them, and how far the clocks of two machines may differ.

All times are whole seconds since the epoch, of any sign. `now` is always an argument of what
decides, and never asked by it: so a decision can be made again later, from its record.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from math import floor, isfinite
from typing import Any, TypeAlias

from captoken._format.encoding import MAX_INTEGER
from captoken._format.spelling import shown

# Seconds that the clock of an issuer or an operator may be ahead of ours. What they wrote at a
# later time than that is refused (spec 24.5).
CLOCKS_DIFFER = 60

# Of a proof of possession (spec 30.5). A verifier's `leeway` has no part in it.
PROOF_PAST = 30  # seconds: how old a proof may be
PROOF_AHEAD = 5  # seconds: how far a holder's clock may be ahead

CONSENT_LIFE = 3600  # seconds between a consent's making and its end, at most (spec 47.6)

# What a user gives where a clock is asked for: `time.time`, or one for tests.
Clock: TypeAlias = Callable[[], float]
# How long: seconds, or a text with units, like `5m`.
Seconds: TypeAlias = int | timedelta | str
# A moment is given as seconds since the epoch, or as a datetime with a time zone.
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
    if type(now) is float and isfinite(now):
        return floor(now)
    return floor(_checked(now))


def read_exactly(clock: Clock) -> float:
    """The same with its part of a second, for spans of less than one. Raises as `read_clock`."""
    return _checked(clock())


def _checked(now: float) -> float:
    """What a clock gave, if it is a finite number."""
    if type(now) is int:
        return now
    # By exact type: a clock that gives True, or a Decimal, was not meant as a clock.
    if type(now) is not float or not isfinite(now):
        raise ValueError(
            f"the clock must give seconds since the epoch, as int or float, not {shown(now)}"
        )
    return now


# `1h30m`, as a whole and part by part. ASCII: other digits look like these and are not.
_is_duration = re.compile(r"(?:\d{1,12}[smhd])+", re.ASCII).fullmatch
_durations = re.compile(r"(\d{1,12})([smhd])").findall
_UNITS = {
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86400,
}


def duration(text: str) -> int:
    """The seconds of a text with units: s, m, h and d, which are added up.

    A number without a unit is none: whoever has seconds gives an int. Raises ValueError.

        duration("5m")       # 300
        duration("1h30m")    # 5400
    """
    if _is_duration(text) is None:
        raise ValueError(
            f"{shown(text)} is not a duration: write 90s, 10m, 2h, 1d or 1h30m, or a number of "
            "seconds"
        )
    return sum(int(count) * _UNITS[unit] for count, unit in _durations(text))


def seconds_of(given: Any, what: str) -> int:
    """A span of time, 1 second at least: an int, a text with units, or a timedelta.

    A fraction of a second is cut off. Raises TypeError for another type, and ValueError for a text
    that is no duration or for less than a second: what lives so long would be dead when it is made.
    """
    # By exact type, as True is an int in Python.
    if isinstance(given, timedelta):
        seconds = int(given.total_seconds() // 1)
    elif type(given) is int:
        seconds = given
    elif type(given) is str:
        seconds = duration(given)
    else:
        kind = type(given).__name__
        raise TypeError(
            f"{what} must be seconds as an int, a text like '5m', or a timedelta, not {kind}"
        )
    if seconds < 1:
        raise ValueError(f"{what} must be at least one second, not {shown(given)}")
    return seconds


def epoch_seconds(given: Any, what: str) -> int:
    """Seconds since the epoch, of what a user gave as a moment; `what` names it in errors.

    It may lie in the past, and before 1970. Raises TypeError for another type, a fraction too, and
    ValueError for a datetime without a time zone: whose midnight is meant would be a guess.

        epoch_seconds(datetime(2026, 1, 1, tzinfo=UTC), "expires_at")    # 1767225600
        epoch_seconds(1767225600, "expires_at")                          # the same
    """
    if isinstance(given, datetime):
        if given.utcoffset() is None:
            raise ValueError(f"{what} must be a datetime with a time zone, as datetime.now(UTC) is")
        # Floored, as a clock is: `int` alone would round towards 1970.
        return int(given.timestamp() // 1)
    if type(given) is not int:
        raise TypeError(
            f"{what} must be seconds as int, or an aware datetime, not {type(given).__name__}"
        )
    if not -MAX_INTEGER <= given <= MAX_INTEGER:
        raise ValueError(f"{what} is out of range: it must be seconds since the epoch, below 2^53")
    return given
