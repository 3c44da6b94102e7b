"""Every store in memory: for one process, and for tests (spec, "Replay", "Ledger", "Overlay").

- One lock a store, held for a whole call. So to look and to change is one step.
- A restart forgets everything. What may have been used before is then refused: see the floors.
- A forked child is refused: its copy would go its own way, and two processes would each allow.

All stores here and on servers pass one suite of tests. This one is what others are compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from threading import Lock
from time import time

from captoken._format.errors import StoreError
from captoken.stores._rules import (
    Bucket,
    Sums,
    add_up,
    first_ledger_floor,
    first_replay_floor,
    is_full,
    too_old,
)
from captoken.stores.own_process import OwnProcess
from captoken.stores.ports import Debit, Reservation, Use


class _OneProcess:
    """A memory that belongs to one process: a fork has a copy, which would go its own way."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._process = OwnProcess()

    def _own_lock(self) -> Lock:
        """The lock; in a forked child, where another thread may hold it for ever, StoreError."""
        if not self._process.is_own():
            raise StoreError("this memory belongs to another process: processes share a file")
        return self._lock


class MemoryReplayStore(_OneProcess):
    """Used proofs, for the threads of one process.

    - What an earlier process accepted is not known here, so proofs issued up to five seconds after
      the start are refused: the floor.
    - `floor=0` says aloud that no earlier process took proofs for this audience.
    - Holds at most `limit` uses of the last half minute, and refuses more.
    - `clock` is asked once, for the floor. Calls bring their own time.
    """

    def __init__(
        self,
        *,
        floor: int | None = None,
        limit: int = 1_000_000,
        clock: Callable[[], float] = time,
    ) -> None:
        super().__init__()
        self._floor = first_replay_floor(clock) if floor is None else floor
        self._limit = limit
        self._known: set[bytes] = set()
        # By `issued_at`, so that those of one second are forgotten together. All above the floor.
        self._by_second: dict[int, list[bytes]] = {}

    def add(self, use: Use, now: int) -> bool:
        """True if it is the first use, and above the floor.

        Raises StoreError when full, and in a forked process.
        """
        # 31.2. To look and to add is one step: of many threads one is the first.
        with self._own_lock():
            self._forget(too_old(now))
            if not self._would_take(use, self._floor):
                return False

            self._known.add(use.entry)
            self._by_second.setdefault(use.issued_at, []).append(use.entry)
            return True

    def peek(self, use: Use, now: int) -> bool:
        """Would `add` return True? Raises StoreError when full, and in a forked process."""
        with self._own_lock():
            return self._would_take(use, max(self._floor, too_old(now)))

    def _would_take(self, use: Use, floor: int) -> bool:
        """The decision, as if all up to `floor` were forgotten. Raises StoreError when full."""
        # 31.3. At or below the floor it may have been used, and forgotten since.
        if use.issued_at <= floor:
            return False

        if use.entry in self._known:
            # The name may have been used long ago, with another time, and be free again.
            return any(use.entry in self._by_second[second] for second in self._until(floor))

        # 31.4. No room is made by forgetting what could still pass as fresh.
        if len(self._known) >= self._limit:
            over = sum(len(self._by_second[second]) for second in self._until(floor))
            if len(self._known) - over >= self._limit:
                raise is_full(self._limit)
        return True

    def _until(self, floor: int) -> list[int]:
        """The seconds whose uses are forgotten when the floor rises so far."""
        return [second for second in self._by_second if second <= floor]

    def _forget(self, floor: int) -> None:
        """Forget what was issued until then, and never take it again."""
        if floor <= self._floor:
            return
        self._floor = floor
        for second in self._until(floor):
            self._known.difference_update(self._by_second.pop(second))

    def __len__(self) -> int:
        return len(self._known)


class MemoryLedger(_OneProcess):
    """Counts for the threads of one process.

    - `shared=True` says aloud that no other server takes these tokens. Nothing here can see it.
    - What an earlier process counted is not known here: see the floor of a Ledger.
    - `clock` is asked once, for the floor. Calls bring their own time.

    Grows with the tokens that count, until they have expired. A token without an expiry stays.
    """

    def __init__(
        self,
        *,
        shared: bool = False,
        floor: int | None = None,
        clock: Callable[[], float] = time,
    ) -> None:
        super().__init__()
        self.shared = shared
        self._floor = first_ledger_floor(clock) if floor is None else floor

        # A bucket is in both of these or in neither; a reservation that is open is known.
        self._spent: dict[Bucket, int] = {}
        self._kept: dict[Bucket, float] = {}  # until when a bucket may be asked about
        self._known: dict[bytes, Reservation] = {}  # by id, until they run out
        self._open: set[bytes] = set()
        self._looked = 0  # when it was last looked for what may be forgotten
        self._gone = 0  # until when the last of the forgotten buckets was kept

    def reserve(self, reservation: Reservation, now: int) -> Debit | None:
        """None if every bucket had enough and was debited, else the first that had not.

        Raises StoreError for what cannot be known, and in a forked process.
        """
        with self._own_lock():
            self._forget(now)
            # 38.8. The same reservation twice is one, also when nothing is left by now.
            if self._is_known(reservation.id, now):
                return None
            short, spent = self._add_up(reservation, now)
            if short is not None:
                return short

            # Nothing below raises, so that all buckets are debited or none.
            # 38.10. A bucket is kept for the longest lived of all that use it.
            kept_until = reservation.kept_until
            until = inf if kept_until is None else kept_until
            for bucket in spent:
                self._kept[bucket] = max(self._kept.get(bucket, until), until)
            self._spent.update(spent)
            self._known[reservation.id] = reservation
            self._open.add(reservation.id)
            return None

    def peek(self, reservation: Reservation, now: int) -> Debit | None:
        """What `reserve` would answer: None, or the first bucket that has not enough.

        Forgets nothing, and raises as `reserve` does.
        """
        with self._own_lock():
            if self._is_known(reservation.id, now):
                return None
            short, _ = self._add_up(reservation, now)
            return short

    def settle(self, reservation_id: bytes, amounts: Mapping[str, int] | None, now: int) -> bool:
        """True if the reservation was open: what was not taken of it goes back.

        Raises StoreError in a forked process.
        """
        with self._own_lock():
            self._forget(now)

            # 38.8. Once, and in its time: whatever is neither settled nor cancelled is spent.
            if reservation_id not in self._open or self._known[reservation_id].until <= now:
                return False

            self._open.remove(reservation_id)
            for debit in self._known[reservation_id].debits:
                bucket = (debit.bucket, debit.unit)
                if bucket in self._spent:  # not forgotten meanwhile
                    self._spent[bucket] -= debit.back(amounts)
            return True

    def spent(self, bucket: bytes, unit: str) -> int:
        """What a bucket has been debited, reservations included; 0 for one that was forgotten."""
        return self._spent.get((bucket, unit), 0)

    # What is next to be forgotten is passed over by the two below, so that `peek` sees what
    # `reserve` sees after it has forgotten.

    def _is_known(self, reservation_id: bytes, now: int) -> bool:
        """Was it made, and not yet forgotten by whoever looks now?"""
        known = self._known.get(reservation_id)
        return known is not None and not self._is_over(known.until, now)

    def _add_up(self, reservation: Reservation, now: int) -> Sums:
        """What the reservation comes to, as if all were forgotten that may be. Raises StoreError.

        Changes nothing: `reserve` writes down what it returns, and `peek` does not.
        """

        def spent_of(bucket: Bucket) -> int | None:
            if self._is_over(self._kept.get(bucket, inf), now):
                return None
            return self._spent.get(bucket)

        # Where all is forgotten that may be, as `reserve` has it, there is nothing to pass over.
        look_up = self._spent.get if now <= self._looked else spent_of
        return add_up(reservation, now, self._floor, self._gone, look_up)

    def _is_over(self, until: float, now: int) -> bool:
        """Is what is kept until then forgotten by whoever looks now? Once a second is enough."""
        return now > self._looked and until <= now

    def _forget(self, now: int) -> None:
        """Forget what is over: reservations, spent for good, and buckets of expired tokens."""
        if now <= self._looked:
            return
        over = [known.id for known in self._known.values() if self._is_over(known.until, now)]
        for reservation_id in over:
            del self._known[reservation_id]
            self._open.discard(reservation_id)

        # 38.10. How late the last of them was kept is noted: by that, a clock that is set back is
        # told.
        gone = [bucket for bucket, until in self._kept.items() if self._is_over(until, now)]
        for bucket in gone:
            self._gone = max(self._gone, int(self._kept[bucket]))
            del self._kept[bucket]
            del self._spent[bucket]
        self._looked = now


class MemorySnapshots:
    """The newest snapshot of the overlay, for one process.

    A forked child has the snapshot of that moment, and no newer one. So give it to tests, and to a
    server whose operator runs in the same process.
    """

    def __init__(self) -> None:
        self._snapshot: bytes | None = None
        self._lock = Lock()

    def load(self) -> bytes | None:
        """The newest snapshot, if there is one."""
        return self._snapshot

    def publish(self, snapshot: bytes, after: bytes | None) -> bool:
        """False if another one lies there than `after`. A restart loses what was published."""
        with self._lock:
            if self._snapshot != after:
                return False
            self._snapshot = snapshot
            return True
