"""How often one identity may ask: so many at once, and then so many a minute.

    if not rates.take(("acme", "jane", "mesh", "spiffe://…"), 60):
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

        # When each has all of its minute again. Whoever asked last stands last.
        self._whole_at: OrderedDict[Caller, float] = OrderedDict()

    def take(self, caller: Caller, per_minute: int) -> bool:
        """Count one request. False: it is one too many, and is not counted.

        So whoever goes on asking does not wait for ever: `seconds_for` later there is one again.
        """
        now = self._clock()
        before = max(now, self._whole_at.pop(caller, now))
        after = before + MINUTE / per_minute

        is_taken = after <= now + MINUTE + _NOTHING
        self._whole_at[caller] = after if is_taken else before
        if len(self._whole_at) > self._remembered:
            self._whole_at.popitem(last=False)
        return is_taken

    def __len__(self) -> int:
        return len(self._whole_at)


def seconds_for(per_minute: int) -> int:
    """After how many seconds, at the latest, whoever was refused has one request again."""
    return math.ceil(MINUTE / per_minute)
