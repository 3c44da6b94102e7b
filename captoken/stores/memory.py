"""Every store in memory: for one process, and for tests (spec, "Replay", "Ledger", "Overlay").

- Each store has one lock, held for a whole call. So looking and changing is one step.
- A restart forgets everything. After it, whatever may have been used before is refused: see the
  floors.
- A forked child is refused: its copy would diverge, and both processes would allow the same use.

Three stores:

    MemoryReplayStore    the used proofs and consents, so that each works once
    MemoryLedger         what is used of each `uses` and `budget`
    MemorySnapshots      the operator's newest snapshot: it only restricts, and so has no floor

All stores, here and on servers, pass the same tests. The others are compared with this one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from math import inf
from threading import Lock
from time import time
from typing import NamedTuple

from captoken._format.errors import StoreError
from captoken.stores._rules import (
    OF_CONSENTS,
    OF_PROOFS,
    Answer,
    Bucket,
    Sums,
    add_up,
    consent_too_old,
    first_ledger_floor,
    first_replay_floor,
    is_full,
    kept_marks,
    lines,
    mark,
    too_old,
    weigh_step,
    what_was_taken,
)
from captoken.stores.own_process import OwnProcess, tell_of_forks
from captoken.stores.ports import (
    DELTAS,
    Debit,
    Forbidden,
    MarkedStep,
    Reservation,
    SetBefore,
    Spend,
    Use,
    later,
)


class _OneProcess:
    """A memory that belongs to one process: a fork has a copy, which would go its own way.

    The two memories that refuse a second use derive from it. In a copy the second use would pass.
    """

    def __init__(self) -> None:
        """The lock, and the process that has it.

        The lock is not re-entrant: no method that takes it calls another one that does.
        """
        self._lock = Lock()
        self._process = OwnProcess()
        # These two wait for nothing, and an AsyncVerifier asks them without a thread. What derives
        # from them may wait.
        self.waits = type(self) not in (MemoryReplayStore, MemoryLedger)

    def _own_lock(self) -> Lock:
        """The lock, to be held for a whole call.

        In a forked child it raises StoreError. A thread of the parent may have held the lock, and
        that thread does not live in the child to let go of it.
        """
        if not self._process.is_own():
            raise StoreError(
                "this store in memory belongs to another process: use a file to share one"
            )
        return self._lock


class MemoryReplayStore(_OneProcess):
    """Used proofs, for the threads of one process.

    - What an earlier process accepted is not known here, so proofs issued up to five seconds after
      the start are refused: the floor.
    - `floor=0` promises that no earlier process took proofs for this audience.
    - Holds at most `limit` uses of the last half minute, and refuses more; so many consents of the
      last hour, too.
    - `clock` is asked once, for the floor. Calls bring their own time.

    Several processes that serve one audience need a store that they share. This one cannot tell
    whether there are others.

        verifier = Verifier(keyring, "orders", replays=MemoryReplayStore())
    """

    def __init__(
        self,
        *,
        floor: int | None = None,
        limit: int = 1_000_000,
        clock: Callable[[], float] = time,
    ) -> None:
        """A store that has seen nothing yet. See the class for what the arguments say.

        Raises what the clock raises.
        """
        super().__init__()
        first = first_replay_floor(clock) if floor is None else floor
        self._proofs = _Uses(first, limit, too_old, OF_PROOFS)
        self._consents = _Uses(first, limit, consent_too_old, OF_CONSENTS)

    def add(self, use: Use, now: int) -> bool:
        """True if it is the first use, and above the floor. Then it is remembered.

        Raises StoreError when full, and in a forked process.
        """
        # 31.2. To look and to add is one step: of many threads one is the first.
        with self._own_lock():
            return self._proofs.add(use.entry, use.issued_at, now)

    def peek(self, use: Use, now: int) -> bool:
        """Would `add` return True? Remembers and forgets nothing.

        Raises StoreError when full, and in a forked process.
        """
        with self._own_lock():
            return self._proofs.peek(use.entry, use.issued_at, now)

    def spend(self, spend: Spend, now: int) -> bool:
        """True if it is the first use of a consent, and above the floor. Raises as `add` does."""
        with self._own_lock():
            return self._consents.add(spend.entry, spend.issued_at, now)

    def peek_spend(self, spend: Spend, now: int) -> bool:
        """Would `spend` return True? Remembers and forgets nothing. Raises as it does."""
        with self._own_lock():
            return self._consents.peek(spend.entry, spend.issued_at, now)

    def __len__(self) -> int:
        """How many uses of proofs are remembered, for tests and whoever watches the memory."""
        return len(self._proofs)


class _Uses:
    """What was used, by name: of proofs, or of consents. Its owner has the lock.

    `too_old` says, of a time, up to when what was issued is not good any more. `what` is for the
    message of one that is full.
    """

    def __init__(
        self, floor: int, limit: int, too_old: Callable[[int], int], what: str
    ) -> None:
        # Up to here a use may have been taken and forgotten, or was never known.
        self._floor = floor
        self._limit = limit
        self._too_old = too_old
        self._what = what
        # The uses that are remembered: to look one up.
        self._known: set[bytes] = set()
        # By `issued_at`, so that those of one second are forgotten together. All above the floor.
        self._by_second: dict[int, list[bytes]] = {}

    def add(self, entry: bytes, issued_at: int, now: int) -> bool:
        """True if it is the first use, and above the floor. Raises StoreError when full."""
        self._forget(self._too_old(now))
        if not self._would_take(entry, issued_at, self._floor):
            return False
        self._known.add(entry)
        self._by_second.setdefault(issued_at, []).append(entry)
        return True

    def peek(self, entry: bytes, issued_at: int, now: int) -> bool:
        """The same, by the floor that `add` would have now. Remembers and forgets nothing."""
        return self._would_take(entry, issued_at, max(self._floor, self._too_old(now)))

    def _would_take(self, entry: bytes, issued_at: int, floor: int) -> bool:
        """The decision, as if all up to `floor` were forgotten. Raises StoreError when full.

        Changes nothing. `add` has forgotten already, and `peek` only passes over what it would.
        """
        # 31.3. At or below the floor it may have been used, and forgotten since.
        if issued_at <= floor:
            return False

        if entry in self._known:
            # The name may have been used long ago, with another time, and be free again.
            return any(entry in self._by_second[second] for second in self._until(floor))

        # 31.4. No room is made by forgetting what could still pass as fresh.
        if len(self._known) >= self._limit:
            over = sum(len(self._by_second[second]) for second in self._until(floor))
            if len(self._known) - over >= self._limit:
                raise is_full(self._limit, self._what)
        return True

    def _until(self, floor: int) -> list[int]:
        """The seconds whose uses are forgotten when the floor rises so far.

        They are few: all that is remembered was issued in about half a minute, or in an hour.
        """
        return [second for second in self._by_second if second <= floor]

    def _forget(self, floor: int) -> None:
        """Forget what was issued until then, and never take it again.

        A clock that was set back does not lower the floor. So it revives nothing (31.3).
        """
        if floor <= self._floor:
            return
        self._floor = floor
        for second in self._until(floor):
            self._known.difference_update(self._by_second.pop(second))

    def __len__(self) -> int:
        return len(self._known)


class _SetMark(NamedTuple):
    """A mark that was set."""

    before: SetBefore
    keep: int | None

    # The tree whose buckets it counts with; None for a mark of a task or of an entry.
    tree: str | None

    @property
    def until(self) -> float:
        """When it may be forgotten."""
        return inf if self.keep is None else self.keep


class MemoryLedger(_OneProcess):
    """Counts for the threads of one process.

    - `shared=True` promises that no other server takes these tokens. Nothing here can see it.
    - What an earlier process counted is not known here: see the floor of a Ledger.
    - `clock` is asked once, for the floor. Calls bring their own time.

    Grows with the tokens that count, until they have expired. A token without an expiry stays.

        ledger = MemoryLedger()
        verifier = Verifier(keyring, "orders", ledger=ledger)
        ledger.spent(bucket, "eur")     # what is used of one link's budget
    """

    def __init__(
        self,
        *,
        shared: bool = False,
        floor: int | None = None,
        clock: Callable[[], float] = time,
    ) -> None:
        """A ledger that has counted nothing yet. See the class for what the arguments say.

        Raises what the clock raises.
        """
        super().__init__()
        self.shared = shared
        # A token that was issued until then may have used anything (38.9).
        self._floor = first_ledger_floor(clock) if floor is None else floor

        # A bucket is in the first three or in none; a reservation that is open is known.
        self._spent: dict[Bucket, int] = {}
        self._kept: dict[Bucket, float] = {}  # until when a bucket may be asked about
        self._tree_of: dict[Bucket, str] = {}
        self._many: Counter[str] = Counter()  # how many there are of each tree
        self._known: dict[bytes, Reservation] = {}  # by id, until they run out
        self._open: set[bytes] = set()  # of these, what is neither settled nor cancelled
        self._marks: dict[bytes, _SetMark] = {}  # by their bucket

        # When it was last looked for what may be forgotten.
        self._looked = 0
        # Until when the last of the forgotten buckets was kept.
        self._gone = 0

    def reserve(self, reservation: Reservation, now: int) -> Debit | None:
        """None if every bucket had enough and was debited, else the first that had not.

        In order: is it the same reservation once more, has each bucket enough, and then the debits.
        Raises StoreError for what cannot be known, and in a forked process.
        """
        with self._own_lock():
            self._forget(now)
            # 38.8. The same reservation twice is one, also when nothing is left by now.
            if self._is_known(reservation.id, now):
                return None
            short, spent = self._add_up(reservation, now)
            if short is None:
                self._debit(reservation, spent)
            return short

    def _debit(self, reservation: Reservation, spent: Mapping[Bucket, int]) -> None:
        """Write down what a reservation comes to. Raises nothing: all buckets or none."""
        # 38.10. A bucket is kept for the longest lived of all that use it.
        kept_until = reservation.kept_until
        until = inf if kept_until is None else kept_until
        for bucket in spent:
            self._kept[bucket] = max(self._kept.get(bucket, until), until)
            if bucket not in self._tree_of:
                self._tree_of[bucket] = reservation.tree
                self._many[reservation.tree] += 1

        self._spent.update(spent)
        self._known[reservation.id] = reservation
        self._open.add(reservation.id)

    def peek(self, reservation: Reservation, now: int) -> Debit | None:
        """What `reserve` would answer: None, or the first bucket that has not enough.

        Debits and forgets nothing, and raises as `reserve` does.
        """
        with self._own_lock():
            if self._is_known(reservation.id, now):
                return None
            short, _ = self._add_up(reservation, now)
            return short

    def settle(self, reservation_id: bytes, amounts: Mapping[str, int] | None, now: int) -> bool:
        """True if the reservation was open: what was not taken of it goes back.

        `amounts` says what was taken, by unit. To cancel is to have taken nothing, and None is all
        that was reserved. Raises StoreError in a forked process, and TypeError for what is no
        amounts.
        """
        taken = what_was_taken(amounts)
        with self._own_lock():
            self._forget(now)
            # 38.8. Once, and in its time: whatever is neither settled nor cancelled is spent.
            if reservation_id not in self._open:
                return False
            reservation = self._known[reservation_id]
            if reservation.until <= now:
                return False

            self._open.remove(reservation_id)
            for debit in reservation.debits:
                bucket = (debit.bucket, debit.unit)
                if bucket in self._spent:  # not forgotten meanwhile
                    self._spent[bucket] -= debit.back(taken)
            return True

    def spent(self, bucket: bytes, unit: str) -> int:
        """What a bucket has been debited, reservations included; 0 for one that was forgotten.

        Takes no lock: it is one look, and by the time of the answer others may have reserved.
        """
        return self._spent.get((bucket, unit), 0)

    def step(self, step: MarkedStep, now: int) -> Forbidden | Debit | None:
        """None if all marks are set and all buckets debited, else what denies it.

        Raises StoreError for what cannot be known, and in a forked process.
        """
        with self._own_lock():
            self._forget(now)
            answer, spent = self._weigh(step, now)
            if isinstance(answer, Debit):
                return answer

            # Nothing below raises, so that all of it is done or nothing.
            for one in step.marks if answer is None else ():
                if one.bucket not in self._marks:
                    tree = step.tree if one.is_of_holder else None
                    before = SetBefore(one.bucket, now, step.by)
                    self._marks[one.bucket] = _SetMark(before, one.keep, tree)
                    self._many[tree or ""] += 1
            for one in kept_marks(step):
                known = self._marks.get(one.bucket)
                if known is not None:
                    kept = known._replace(keep=later(known.keep, one.keep))
                    self._marks[one.bucket] = kept
            if spent and step.reservation is not None:
                self._debit(step.reservation, spent)
            return answer

    def peek_step(self, step: MarkedStep, now: int) -> Forbidden | Debit | None:
        """What `step` would answer. Sets and forgets nothing, and raises as `step` does."""
        with self._own_lock():
            answer, _ = self._weigh(step, now)
            return answer

    def _weigh(self, step: MarkedStep, now: int) -> Answer:
        """What a step comes to, as if all were forgotten that may be."""

        def set_before(bucket: bytes) -> SetBefore | None:
            known = self._marks.get(bucket)
            is_over = known is None or self._is_over(known.until, now)
            return None if is_over or known is None else known.before

        reservation = step.reservation
        is_reserved = reservation is not None and self._is_known(reservation.id, now)
        return weigh_step(
            step,
            now,
            self._floor,
            self._gone_by(now),
            *self._known_so_far(now),
            set_before=set_before,
            is_reserved=is_reserved,
        )

    # What is next to be forgotten is passed over by the rest, so that `peek` sees what `reserve`
    # sees after it has forgotten.

    def _is_known(self, reservation_id: bytes, now: int) -> bool:
        """Was it made, and not yet forgotten by whoever looks now?

        Settled or cancelled makes no difference: the same id never debits a second time.
        """
        known = self._known.get(reservation_id)
        return known is not None and not self._is_over(known.until, now)

    def _add_up(self, reservation: Reservation, now: int) -> Sums:
        """What the reservation comes to, as if all were forgotten that may be.

        Raises StoreError for what is not known: a token from before the floor, or a clock that is
        behind.

        Changes nothing: `reserve` writes down what it returns, and `peek` does not.
        """
        gone = self._gone_by(now)
        return add_up(reservation, now, self._floor, gone, *self._known_so_far(now))

    def _known_so_far(
        self, now: int
    ) -> tuple[Callable[[Bucket], int | None], Callable[[str], int]]:
        """What a bucket has been debited, and how many there are of a tree, as of now."""

        # Where all is forgotten that may be, as `reserve` has it, there is nothing to pass over.
        if now <= self._looked:
            return self._spent.get, self._many.__getitem__

        def spent_of(bucket: Bucket) -> int | None:
            """None for a bucket that `reserve` would have forgotten before it looked."""
            if self._is_over(self._kept.get(bucket, inf), now):
                return None
            return self._spent.get(bucket)

        def kept_of(tree: str) -> int:
            """How many `reserve` would have left of a tree."""
            buckets = [self._kept[bucket] for bucket, its in self._tree_of.items() if its == tree]
            marks = [mark.until for mark in self._marks.values() if mark.tree == tree]
            return sum(not self._is_over(until, now) for until in (*buckets, *marks))

        return spent_of, kept_of

    def _gone_by(self, now: int) -> int:
        """Until when the last was kept of all that is forgotten by whoever looks now (38.10)."""
        if now <= self._looked:
            return self._gone
        ends = (*self._kept.values(), *(one.until for one in self._marks.values()))
        return max(self._gone, *(int(end) for end in ends if self._is_over(end, now)), 0)

    def _is_over(self, until: float, now: int) -> bool:
        """Is what is kept until then forgotten by whoever looks now?

        Within one second nothing more is forgotten, so that a look costs little.
        """
        return now > self._looked and until <= now

    def _forget(self, now: int) -> None:
        """Forget what is over: reservations, spent for good, and buckets of expired tokens.

        Goes through all that is kept, once a second at most. A clock that is set back forgets
        nothing.
        """
        if now <= self._looked:
            return

        over = [known.id for known in self._known.values() if self._is_over(known.until, now)]
        for reservation_id in over:
            del self._known[reservation_id]
            self._open.discard(reservation_id)

        # 38.10. How late the last of them was kept is noted: by that, a clock that is set back is
        # told.
        self._gone = self._gone_by(now)
        gone = [bucket for bucket, until in self._kept.items() if self._is_over(until, now)]
        for bucket in gone:
            del self._kept[bucket]
            del self._spent[bucket]
            self._many[self._tree_of.pop(bucket)] -= 1
        unmarked = [one for one in self._marks.values() if self._is_over(one.until, now)]
        for one in unmarked:
            del self._marks[one.before.bucket]
            self._many[one.tree or ""] -= 1
        self._many = +self._many  # without the trees that are gone

        # At the end: until here `_is_over` asks when it was last looked.
        self._looked = now


class MemorySnapshots:
    """The newest snapshot of the overlay, for one process.

    A forked child has the snapshot of that moment, and no newer one. So give it to tests, and to a
    server whose operator runs in the same process.

    It reads no snapshot. Whether one is genuine and new enough, the verifier asks (36.7).
    """

    def __init__(self) -> None:
        """Without a snapshot. A verifier that asks for one then refuses everything."""
        self._snapshot: bytes | None = None  # the last that was published whole
        self._deltas: list[_Delta] = []
        self._whole = 0  # how many of these the snapshot has in it
        self._lock = Lock()
        # A fork waits for whoever publishes, so that both sides have all of it, and a free lock.
        tell_of_forks(
            self,
            before=MemorySnapshots._hold,
            in_parent=MemorySnapshots._let_go,
            in_child=MemorySnapshots._let_go,
        )

    def _hold(self) -> None:
        self._lock.acquire()

    def _let_go(self) -> None:
        self._lock.release()

    def load(self) -> bytes | None:
        """The newest snapshot, or None if none was published since the start.

        Whole, and behind it the deltas that came since.
        """
        with self._lock:
            return self._lies()

    def _lies(self) -> bytes | None:
        """The same, for whoever holds the lock."""
        behind = self._deltas[self._whole :]
        if self._snapshot is None or not behind:
            return self._snapshot
        return lines(self._snapshot, [one.delta for one in behind])

    def _mark(self) -> bytes | None:
        """The mark of the newest, for whoever holds the lock."""
        if self._deltas:
            return self._deltas[-1].gives
        return None if self._snapshot is None else mark(self._snapshot)

    def publish(self, snapshot: bytes, after: bytes | None) -> bool:
        """Put a snapshot in the place of `after`, which the operator has read before.

        False if another one lies there: somebody was faster, and what they said must not be lost.
        A restart loses what was published.
        """
        with self._lock:
            if self._lies() != after:
                return False

            # The same made whole: whoever is on the way to it by deltas goes on.
            same = self._deltas and mark(snapshot) == self._mark()
            self._deltas = self._deltas[-DELTAS:] if same else []
            self._whole = len(self._deltas)
            self._snapshot = snapshot
            return True

    def append(self, delta: bytes, after: bytes, gives: bytes) -> bool:
        """Put a delta behind what has the mark `after`.

        False if the newest has another one. A restart loses it.
        """
        with self._lock:
            if self._mark() != after:
                return False
            self._deltas.append(_Delta(after, gives, delta))
            return True

    def since(self, mark: bytes) -> list[bytes] | None:
        """The deltas that lead from that mark to the newest; None if it is not known here."""
        with self._lock:
            if self._mark() == mark:
                return []
            for at, one in enumerate(self._deltas):
                if one.after == mark:
                    return [later.delta for later in self._deltas[at:]]
            return None  # never was here, or was forgotten


class _Delta(NamedTuple):
    """A delta, and the marks of what it follows on and of what it gives."""

    after: bytes
    gives: bytes
    delta: bytes
