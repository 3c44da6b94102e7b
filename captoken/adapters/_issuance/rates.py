"""How often one identity may ask: so many at once, and then so many a minute.

    if rates.over(("acme", "jane", "mesh", "spiffe://…"), digest, 60):
        …                                 # 429: the next one may come in a second

It counts for callers alone whose assertions held. Whoever shows none, or a forged one, leaves no
trace here. Nobody is told of anybody else: each has a count of its own.

An assertion that was shown here before is counted by its digest, apart: whoever has got hold of it
may show it as often as they like, and takes nothing from the logins that its owner makes anew.

In one process. Services that share a registry count each for itself.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeAlias, TypeVar

# Whoever is counted: the providers, and what they call the subject and the actor.
Caller: TypeAlias = tuple[str, ...]

MINUTE = 60.0

# Callers that are remembered at most. Of more, those are forgotten who asked longest ago. To lose
# a count, one would need so many identities whose assertions hold.
REMEMBERED = 10_000

# Of seconds: sums of steps are not exact.
_NOTHING = 1e-6


class Rates:
    """Counts for one event loop, in memory that is bounded."""

    def __init__(
        self,
        *,
        remembered: int = REMEMBERED,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._callers: _Counts[Caller] = _Counts(remembered, clock)

        # The counts of assertions that were seen before, by caller. They are kept apart from the
        # counts of callers, so that many assertions by one caller push out no caller.
        self._shown: _Counts[tuple[Caller, bytes]] = _Counts(remembered, clock)

    def over(self, caller: Caller, digest: bytes | None, per_minute: int) -> int:
        """Count one request. 0: it may go on; else how many in a row were too many, with this one.

        `digest` is of the assertion of whoever starts, or None if nobody can show it again. These
        are not counted, so that whoever goes on asking does not wait for ever: `seconds_for` later
        there is one again.
        """
        if digest is None:
            return self._callers.over(caller, per_minute)
        shown = (caller, digest)
        if shown in self._shown:
            return self._shown.over(shown, per_minute)

        # One that is too many now is as new the next time: or else it would pass then.
        in_a_row = self._callers.over(caller, per_minute)
        if not in_a_row:
            self._shown.over(shown, per_minute)
        return in_a_row

    def __len__(self) -> int:
        return len(self._callers)


_Key = TypeVar("_Key")


class _Counts(Generic[_Key]):
    """Counts of one sort. Where they are too many, those are forgotten that came longest ago."""

    def __init__(
        self,
        remembered: int,
        clock: Callable[[], float],
    ) -> None:
        self._remembered = remembered
        self._clock = clock

        # The most recent one is last.
        self._known: OrderedDict[_Key, tuple[float, int]] = OrderedDict()

    def over(self, key: _Key, per_minute: int) -> int:
        """As `Rates.over`, of one count."""
        now = self._clock()
        # When it has all of its minute again.
        known_at, in_a_row = self._known.pop(key, (now, 0))
        before = max(now, known_at)
        after = before + MINUTE / per_minute

        is_over = after > now + MINUTE + _NOTHING
        in_a_row = in_a_row + 1 if is_over else 0
        self._known[key] = before if is_over else after, in_a_row
        if len(self._known) > self._remembered:
            self._known.popitem(last=False)
        return in_a_row

    def __contains__(self, key: _Key) -> bool:
        return key in self._known

    def __len__(self) -> int:
        return len(self._known)


def seconds_for(per_minute: int) -> int:
    """After how many seconds, at the latest, whoever was refused has one request again."""
    return math.ceil(MINUTE / per_minute)
