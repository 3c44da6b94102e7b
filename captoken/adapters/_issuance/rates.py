"""How often one identity may ask: so many at once, and then so many a minute.

    if rates.over(("acme", "jane", "mesh", "spiffe://…"), 60):
        …                                 # 429: the next one may come in a second

It counts for callers alone whose assertions held. Whoever shows none, or a forged one, leaves no
trace here. Nobody is told of anybody else: each has a count of its own.

In one process. Services that share a registry count each for itself.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import TypeAlias

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
        self._remembered = remembered
        self._clock = clock

        # Whoever asked last stands last.
        self._known: OrderedDict[Caller, tuple[float, int]] = OrderedDict()

    def over(self, caller: Caller, per_minute: int) -> int:
        """Count one request. 0: it may go on; else how many in a row were too many, with this one.

        These are not counted, so that whoever goes on asking does not wait for ever: `seconds_for`
        later there is one again.
        """
        now = self._clock()
        # When it has all of its minute again.
        known_at, in_a_row = self._known.pop(caller, (now, 0))
        before = max(now, known_at)
        after = before + MINUTE / per_minute

        is_over = after > now + MINUTE + _NOTHING
        in_a_row = in_a_row + 1 if is_over else 0
        self._known[caller] = before if is_over else after, in_a_row
        if len(self._known) > self._remembered:
            self._known.popitem(last=False)
        return in_a_row

    def __len__(self) -> int:
        return len(self._known)


def seconds_for(per_minute: int) -> int:
    """After how many seconds, at the latest, whoever was refused has one request again."""
    return math.ceil(MINUTE / per_minute)
