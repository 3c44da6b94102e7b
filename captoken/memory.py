"""Stores in memory: for one process, and for tests (spec, "Replay")."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock
from time import time

from captoken.errors import StoreError
from captoken.possession import AHEAD, PAST, Use


class MemoryReplayStore:
    """Used proofs, for the threads of one process.

    What an earlier process accepted is not known here, so proofs issued up to five seconds after the start are refused:
    the floor. `floor=0` says aloud that no earlier process took proofs for this audience. Holds at most `limit` uses of
    the last half minute, and refuses more.
    """

    def __init__(self, *, floor: int | None = None, limit: int = 1_000_000, clock: Callable[[], float] = time) -> None:
        self._floor = int(clock()) + AHEAD if floor is None else floor
        self._limit = limit
        self._known: set[bytes] = set()
        self._by_second: dict[int, list[bytes]] = {}  # by issued_at, so that they are forgotten together
        self._lock = Lock()
        self._process = os.getpid()

    def add(self, use: Use, now: int) -> bool:
        """True if it is the first use, and after the floor. Raises StoreError when full, and in a forked process."""
        if os.getpid() != self._process:
            raise StoreError("this memory belongs to another process: processes share a file")
        with self._lock:
            self._forget(now - PAST - 1)
            if use.issued_at <= self._floor or use.entry in self._known:
                return False
            if len(self._known) >= self._limit:
                raise StoreError(f"{self._limit} proofs of the last {PAST + AHEAD} seconds are remembered, and no more fit")
            self._known.add(use.entry)
            self._by_second.setdefault(use.issued_at, []).append(use.entry)
            return True

    def _forget(self, until: int) -> None:
        """Forget what was issued until then, and never take it again."""
        if until <= self._floor:
            return
        self._floor = until
        for second in [second for second in self._by_second if second <= until]:
            self._known.difference_update(self._by_second.pop(second))

    def __len__(self) -> int:
        return len(self._known)
