"""Times as clocks and people give them: whole seconds, floored, and nothing that could be read in two ways."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from captoken._format.clocks import duration, epoch_seconds, read_clock, read_exactly


@pytest.mark.parametrize(("said", "read"), [(5, 5), (5.0, 5), (5.999, 5), (-0.5, -1), (0, 0), (2.0**40 + 0.5, 2**40)])
def test_a_clock_is_floored(said: float, read: int) -> None:
    found = read_clock(lambda: said)
    assert found == read and type(found) is int and read_exactly(lambda: said) == said


@pytest.mark.parametrize("said", [float("nan"), float("inf"), float("-inf"), True, None, "5", Decimal(5)])
def test_a_clock_that_gives_no_time_raises(said: Any) -> None:
    for read in (read_clock, read_exactly):
        with pytest.raises(ValueError, match="the clock must give seconds since the epoch"):
            read(lambda: said)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), ("1m1m", 120), ("0s", 0)])
def test_a_duration_is_the_sum_of_its_parts(text: str, seconds: int) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "m", "5 m", "5M", "-5m", "1.5h", "5m ", "5m\n", "٥m", "1h30", "1234567890123s", "5w"])
def test_what_is_no_duration_is_told_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration: write 90s, 10m"):
        duration(text)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (datetime(2026, 1, 1, tzinfo=UTC), 1767225600),
        (datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), 1767225600),
        (datetime(1969, 12, 31, 23, 59, 59, 500000, tzinfo=UTC), -1),
        (1767225600, 1767225600), (-5, -5), (2**53 - 1, 2**53 - 1),
    ],
)  # fmt: skip
def test_a_moment_is_seconds_or_a_time_with_a_zone(given: Any, seconds: int) -> None:
    assert epoch_seconds(given, "expires_at") == seconds


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        (datetime(2026, 1, 1), ValueError, "expires_at must be a datetime with a time zone"),
        (5.0, TypeError, "expires_at must be seconds as int, or an aware datetime, not float"),
        (True, TypeError, "not bool"), ("5", TypeError, "not str"), (None, TypeError, "not NoneType"),
        (2**53, ValueError, "expires_at is out of range"), (-(2**53), ValueError, "expires_at is out of range"),
    ],
)  # fmt: skip
def test_what_is_no_moment_is_named(given: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        epoch_seconds(given, "expires_at")
