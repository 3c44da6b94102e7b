"""Every store in memory: for one process, and for tests (spec, "Replay", "Ledger", "Overlay")."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from math import inf
from threading import Lock
from time import time

from captoken._format.clocks import CLOCKS_DIFFER, PROOF_AHEAD, PROOF_PAST
from captoken._format.errors import StoreError
from captoken.stores.ports import (
    KEPT,
    REFUSED_AMOUNT,
    REFUSED_BEFORE,
    REFUSED_CLOCK,
    Debit,
    Reservation,
    Use,
    is_lost,
)


class MemoryReplayStore:
    """Used proofs, for the threads of one process.

    What an earlier process accepted is not known here, so proofs issued up to five seconds after the start are refused:
    the floor. `floor=0` says aloud that no earlier process took proofs for this audience. Holds at most `limit` uses of
    the last half minute, and refuses more.
    """

    def __init__(
        self, *, floor: int | None = None, limit: int = 1_000_000, clock: Callable[[], float] = time
    ) -> None:
        self._floor = int(clock()) + PROOF_AHEAD if floor is None else floor
        self._limit = limit
        self._known: set[bytes] = set()
        self._by_second: dict[
            int, list[bytes]
        ] = {}  # by issued_at, so that they are forgotten together
        self._lock = Lock()
        self._process = os.getpid()

    def add(self, use: Use, now: int) -> bool:
        """True if it is the first use, and after the floor. Raises StoreError when full, and in a forked process."""
        if os.getpid() != self._process:
            raise StoreError("this memory belongs to another process: processes share a file")
        with self._lock:
            self._forget(now - PROOF_PAST - 1)
            if use.issued_at <= self._floor or use.entry in self._known:
                return False
            if len(self._known) >= self._limit:
                raise StoreError(
                    f"{self._limit} proofs of the last {PROOF_PAST + PROOF_AHEAD} seconds are remembered, and no more fit"
                )
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


class MemoryLedger:
    """Counts for the threads of one process. `shared=True` says aloud that no other server takes these tokens.

    What an earlier process counted is not known here: see the floor of a Ledger.
    """

    def __init__(
        self, *, shared: bool = False, floor: int | None = None, clock: Callable[[], float] = time
    ) -> None:
        self.shared = shared
        self._floor = int(clock()) + CLOCKS_DIFFER if floor is None else floor
        self._spent: dict[tuple[bytes, str], int] = {}
        self._kept: dict[tuple[bytes, str], float] = {}  # until when a bucket may be asked about
        self._known: dict[bytes, Reservation] = {}  # by id, until they run out
        self._open: set[bytes] = set()
        self._looked = 0
        self._gone = 0  # until when the last of the forgotten buckets was kept
        self._lock = Lock()
        self._process = os.getpid()

    def reserve(self, reservation: Reservation, now: int) -> Debit | None:
        """None if every bucket had enough and was debited, else the first that had not."""
        with self._mine():
            self._forget(now)
            if reservation.id in self._known:
                return None
            if reservation.issued_at <= self._floor:
                raise StoreError(REFUSED_BEFORE)
            if is_lost(self._gone, now):
                raise StoreError(REFUSED_CLOCK)
            spent: dict[tuple[bytes, str], int] = {}
            for debit in reservation.debits:
                if debit.amount < 0:
                    raise StoreError(REFUSED_AMOUNT)
                key = debit.bucket, debit.unit
                spent[key] = spent.get(key, self._spent.get(key, 0)) + debit.amount
                if spent[key] > debit.limit:
                    return debit
            until = inf if reservation.keep is None else reservation.keep + KEPT
            for key in spent:
                self._kept[key] = max(self._kept.get(key, until), until)
            self._spent.update(spent)
            self._known[reservation.id] = reservation
            self._open.add(reservation.id)
            return None

    def settle(self, reservation_id: bytes, amounts: Mapping[str, int] | None, now: int) -> bool:
        """True if the reservation was open: what was not taken of it goes back."""
        with self._mine():
            self._forget(now)
            if reservation_id not in self._open or self._known[reservation_id].until <= now:
                return False
            self._open.remove(reservation_id)
            for debit in self._known[reservation_id].debits:
                if (debit.bucket, debit.unit) in self._spent:  # not forgotten meanwhile
                    self._spent[debit.bucket, debit.unit] -= debit.back(amounts)
            return True

    def spent(self, bucket: bytes, unit: str) -> int:
        """What a bucket has been debited."""
        return self._spent.get((bucket, unit), 0)

    def _mine(self) -> Lock:
        if os.getpid() != self._process:
            raise StoreError("this memory belongs to another process: processes share a file")
        return self._lock

    def _forget(self, now: int) -> None:
        """Reservations that ran out are spent for good; buckets of tokens that expired long ago are asked about no more."""
        if now <= self._looked:  # once a second is enough
            return
        self._looked = now
        for reservation_id in [known.id for known in self._known.values() if known.until <= now]:
            del self._known[reservation_id]
            self._open.discard(reservation_id)
        for key, until in [(key, until) for key, until in self._kept.items() if until <= now]:
            self._gone = max(self._gone, int(until))
            del self._kept[key], self._spent[key]


class MemorySnapshots:
    """The newest snapshot of the overlay, for one process."""

    def __init__(self) -> None:
        self._snapshot: bytes | None = None
        self._lock = Lock()

    def load(self) -> bytes | None:
        """The newest snapshot, if there is one."""
        return self._snapshot

    def publish(self, snapshot: bytes, after: bytes | None) -> bool:
        """False if another one lies there than `after`."""
        with self._lock:
            if self._snapshot != after:
                return False
            self._snapshot = snapshot
            return True
