"""Budgets at speed: a ledger that is asked for slices, and not for each access.

A slice is one reservation at the ledger: a share of what a bucket has left. This process then
spends it in memory, and gives back the rest.

    reserve     each debit comes out of the slice that this process has of the bucket. If there is
                none, or too little in it, a new one is reserved. Other debits are reserved directly
    settle      what was not taken goes back into the slice
    the end     after `life` seconds, or at `close`: what is left goes back to the ledger

The rules of this file:

1. Nothing is spent here that was not reserved at the ledger before. So a limit holds however many
   processes take slices, and whatever becomes of them (spec 38.3).
2. What is not known to be left counts as spent: a slice of a process that dies, and what is settled
   after its slice has ended (spec 38.8).
3. Directly at the ledger go limits below 64, and the end of a budget: a slice for a few accesses is
   not worth its calls. So do reservations that other processes may repeat (spec 38.17), and all
   that comes with marks (spec 46.6).
4. Whatever the ledger raises passes through, and what came out of slices goes back into them. Only
   to give back a slice may fail without a word to the caller: then it counts as spent, and the log
   says so.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock, Timer
from time import time
from typing import NamedTuple, TypeAlias

from msgspec import structs

from captoken._format.errors import StoreError
from captoken._format.spelling import shown
from captoken.stores._rules import REFUSED_AMOUNT, Bucket, what_was_taken
from captoken.stores.own_process import tell_of_forks
from captoken.stores.ports import LEASE, Debit, Forbidden, Ledger, MarkedStep, Reservation

_log = logging.getLogger("captoken")

LEAST = 64  # a limit below it is always counted at the ledger
_WORTH = 4  # a slice has to be enough for so many accesses like the one that it is made for
_LONGEST = LEASE // 4  # a slice lives twice its life at most, and ends well within its lease

# What all reservations out of one slice have in common: those that differ in it go directly.
_Terms: TypeAlias = tuple[int, int | None, str, int, str]


def _terms(reservation: Reservation) -> _Terms:
    return (
        reservation.issued_at,
        reservation.keep,
        reservation.tree,
        reservation.leeway,
        reservation.kid,
    )


@dataclass(eq=False)
class _Slice:
    """A part of a bucket that this process has reserved."""

    id: bytes
    unit: str
    size: int
    terms: _Terms
    ends: int  # from then on nothing more comes out of it
    left: int
    open: int = 0  # how many reservations out of it are neither settled nor cancelled


class _Local(NamedTuple):
    """A reservation that was made here."""

    taken: tuple[tuple[_Slice, Debit], ...]
    direct: bool  # was a part of it reserved at the ledger, under the same id?
    until: int


class SlicedLedger:
    """Counts at another ledger, a slice at a time: for budgets that many agents draw on at once.

        ledger = SlicedLedger(ValkeyLedger(client, "shop", shared=True))
        verifier = Verifier(keyring, "shop", ledger=ledger)

    A limit is never exceeded. The price is fairness, not safety:

    - A process may be refused while others have some of the budget left in slices of theirs, for up
      to `life` seconds.
    - What a process that is killed had in its slices counts as spent.

    - `share` is the part of what is left that one slice takes, at most a half.
    - `life` says after how many seconds a slice is given back, from 1 to 15.
    - `clock` gives the time at which slices are given back when nobody asks. Calls bring their own.

    `uses` and budgets below 64 are counted at the ledger, each time. Threads may share it, and an
    AsyncVerifier asks it in threads. Close it when the process ends: then its slices go back at
    once. A child that is forked begins without slices.

    The ledger is one whose calls are not awaited. Raises ValueError for another, and for a `share`
    or `life` out of range.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        share: float = 1 / 16,
        life: int = 10,
        clock: Callable[[], float] = time,
    ) -> None:
        if getattr(ledger, "awaited", False):
            raise ValueError("SlicedLedger takes a ledger whose calls are not awaited")
        if type(share) not in (int, float) or not 0 < share <= 1 / 2:
            raise ValueError(f"share must be more than 0 and at most 1/2, not {shown(share)}")
        if type(life) is not int or not 1 <= life <= _LONGEST:
            raise ValueError(f"life must be 1 to {_LONGEST} whole seconds, not {shown(life)}")
        self.shared = ledger.shared
        self._ledger = ledger
        self._share = share
        self._life = life
        self._clock = clock
        self._begin()
        tell_of_forks(self, in_child=SlicedLedger._begin)
        atexit.register(self.close)

    def _begin(self) -> None:
        """Nothing is reserved here. So a forked child begins, too: the slices are its parent's."""
        self._lock = Lock()
        self._timer: Timer | None = None
        self._slices: dict[Bucket, _Slice] = {}
        # By their id: nothing more comes out of these, and something is still open.
        self._ending: dict[bytes, _Slice] = {}
        # Until when a bucket is asked about directly, since it has too little left for slices.
        self._direct: dict[Bucket, int] = {}
        self._known: dict[bytes, _Local] = {}
        self._open: set[bytes] = set()  # of these, what is neither settled nor cancelled
        self._ends: deque[tuple[int, bytes]] = deque()  # when they are forgotten, in order
        self._looked = 0  # when it was last looked for what is over

    # --- the calls of a Ledger ---

    def reserve(self, reservation: Reservation, now: int) -> Debit | None:
        """None if every bucket had enough, else the first that had not; as a Ledger says.

        The answer may come without a call to the ledger.
        """
        if reservation.until > now + LEASE:  # others may repeat it, and it counts once (38.17)
            return self._ledger.reserve(reservation, now)
        with self._lock:
            self._forget(now)
            if reservation.id in self._known:
                return None
            with self._taking(reservation, now) as (taken, others):
                if others:
                    rest = structs.replace(reservation, debits=tuple(others))
                    short = self._ledger.reserve(rest, now)
                    if short is not None:
                        self._put_back(taken)
                        return short
            self._known[reservation.id] = _Local(tuple(taken), bool(others), reservation.until)
            self._open.add(reservation.id)
            self._ends.append((reservation.until, reservation.id))
            return None

    def peek(self, reservation: Reservation, now: int) -> Debit | None:
        """What `reserve` would answer, now. Reserves nothing, and no slice either."""
        if reservation.until > now + LEASE:
            return self._ledger.peek(reservation, now)
        with self._lock:
            if reservation.id in self._known:
                return None
            others = [debit for debit in reservation.debits if not self._has(debit, reservation)]
        if not others:
            return None
        return self._ledger.peek(structs.replace(reservation, debits=tuple(others)), now)

    def settle(self, reservation_id: bytes, amounts: Mapping[str, int] | None, now: int) -> bool:
        """True if the reservation was open, as a Ledger says. The rest goes back into the slice."""
        taken = what_was_taken(amounts)
        with self._lock:
            local = self._known.get(reservation_id)
            if local is None:
                return self._ledger.settle(reservation_id, taken, now)
            if reservation_id not in self._open or local.until <= now:
                return False
            # First, since it may raise: then all of it is open still.
            if local.direct:
                self._ledger.settle(reservation_id, taken, now)
            self._open.remove(reservation_id)
            for one, debit in local.taken:
                one.left += debit.back(taken)
                self._close_one(one, now)
            return True

    def spent(self, bucket: bytes, unit: str) -> int:
        """What a bucket has been debited. What slices of others have left counts as spent."""
        with self._lock:
            mine = self._slices.get((bucket, unit))
            left = mine.left if mine is not None else 0
        return self._ledger.spent(bucket, unit) - left

    def step(self, step: MarkedStep, now: int) -> Forbidden | Debit | None:
        """What the ledger says: marks and what is reserved with them are one step there."""
        return self._ledger.step(step, now)

    def peek_step(self, step: MarkedStep, now: int) -> Forbidden | Debit | None:
        """What the ledger says."""
        return self._ledger.peek_step(step, now)

    def close(self) -> None:
        """Give back all slices. The ledger itself stays open, and this may be used again."""
        with self._lock:
            now = int(self._clock())
            for bucket in list(self._slices):
                self._end(bucket, now)
            for one in list(self._ending.values()):
                self._give_back(one, now)
            atexit.unregister(self.close)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    # --- out of slices ---

    @contextmanager
    def _taking(
        self, reservation: Reservation, now: int
    ) -> Generator[tuple[list[tuple[_Slice, Debit]], list[Debit]]]:
        """What came out of slices, and the debits that are for the ledger.

        What came out goes back where the block raises.
        """
        taken: list[tuple[_Slice, Debit]] = []
        others: list[Debit] = []
        try:
            for debit in reservation.debits:
                if debit.amount < 0:
                    raise StoreError(REFUSED_AMOUNT)
                one = self._slice_for(debit, reservation, now)
                if one is None:
                    others.append(debit)
                    continue
                one.left -= debit.amount
                one.open += 1
                taken.append((one, debit))
            yield taken, others
        except BaseException:
            self._put_back(taken)
            raise

    def _put_back(self, taken: list[tuple[_Slice, Debit]]) -> None:
        """Nothing was taken after all."""
        for one, debit in taken:
            one.left += debit.amount
            one.open -= 1

    def _has(self, debit: Debit, reservation: Reservation) -> bool:
        """Does a slice here have enough for it, on the same terms?"""
        one = self._slices.get((debit.bucket, debit.unit))
        return (
            one is not None and one.left >= debit.amount and one.terms == _terms(reservation)
        )

    def _slice_for(self, debit: Debit, reservation: Reservation, now: int) -> _Slice | None:
        """A slice that has enough for a debit, reserved if need be; None if it goes directly."""
        bucket = debit.bucket, debit.unit
        if debit.limit < LEAST:
            return None
        one = self._slices.get(bucket)
        if one is not None and one.terms != _terms(reservation):
            return None
        if one is not None and one.left >= debit.amount:
            return one
        if one is not None:
            self._end(bucket, now)
        if self._direct.get(bucket, 0) > now:
            return None

        size = int((debit.limit - self._ledger.spent(*bucket)) * self._share)
        one = None
        if size >= debit.amount * _WORTH:
            one = self._reserved(debit, size, reservation, now)
        if one is None:
            self._direct[bucket] = now + self._life
        return one

    def _reserved(
        self, debit: Debit, size: int, reservation: Reservation, now: int
    ) -> _Slice | None:
        """A new slice, reserved at the ledger; None if it has not so much any more."""
        known_as = os.urandom(len(reservation.id))
        whole = structs.replace(
            reservation,
            id=known_as,
            debits=(structs.replace(debit, amount=size),),
            until=now + LEASE,
            goes_on=None,
        )
        if self._ledger.reserve(whole, now) is not None:
            return None
        ends = now + self._life
        one = _Slice(known_as, debit.unit, size, _terms(reservation), ends, size)
        self._slices[debit.bucket, debit.unit] = one
        self._wake_later()
        return one

    # --- the end of slices ---

    def _forget(self, now: int) -> None:
        """Let go of what is over by now, once a second: known reservations, and slices."""
        if now <= self._looked:
            return
        self._looked = now
        while self._ends and self._ends[0][0] <= now:
            _, known_as = self._ends.popleft()
            local = self._known.pop(known_as)
            if known_as in self._open:  # never settled: it counts as spent
                self._open.remove(known_as)
                for one, _ in local.taken:
                    self._close_one(one, now)
        for bucket in [bucket for bucket, one in self._slices.items() if one.ends <= now]:
            self._end(bucket, now)
        for one in [one for one in self._ending.values() if one.ends + self._life <= now]:
            self._give_back(one, now)
        self._direct = {each: until for each, until in self._direct.items() if until > now}

    def _close_one(self, one: _Slice, now: int) -> None:
        """A reservation out of this slice is open no more."""
        one.open -= 1
        if not one.open and one.id in self._ending:
            self._give_back(one, now)

    def _end(self, bucket: Bucket, now: int) -> None:
        """Nothing more comes out of this slice. It goes back once nothing out of it is open."""
        one = self._slices.pop(bucket)
        self._ending[one.id] = one
        if not one.open:
            self._give_back(one, now)

    def _give_back(self, one: _Slice, now: int) -> None:
        """Settle it at the ledger. What is still open out of it counts as spent."""
        del self._ending[one.id]
        left, one.left = one.left, 0
        if not left:
            return
        try:
            self._ledger.settle(one.id, {one.unit: one.size - left}, now)
        except Exception as error:
            _log.warning(
                "a slice was not given back, and %d %s count as spent: %s",
                left,
                one.unit,
                type(error).__name__,
            )

    def _wake_later(self) -> None:
        """Look again when the slice ends that is made now, if nobody asks before."""
        if self._timer is None:
            self._timer = Timer(self._life + 0.1, self._wake)
            self._timer.daemon = True
            self._timer.start()

    def _wake(self) -> None:
        """Give back what is over, and look again while there are slices."""
        with self._lock:
            self._timer = None
            self._forget(int(self._clock()))
            if self._slices or self._ending:
                self._wake_later()
