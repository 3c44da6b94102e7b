"""The history of snapshots in a store, which one operator continues (spec 36.16 to 36.24).

    newest      read the newest snapshot; refuse it if the store went back or lost its history
    _written    sign the next snapshot: as a whole, or as a delta if it is large
    _put        store it behind what was read; if somebody else was first, `publish` starts again

No acknowledged change is ever lost silently. That holds if a second operator writes at the same
time, and if a store shows an old snapshot (spec 36.16). It also holds if a store was restored to an
old state and somebody else has signed since (spec 36.24).
"""

from __future__ import annotations

from collections.abc import Callable
from random import uniform
from time import sleep

from captoken._format import names, primitives
from captoken._format.clocks import CLOCKS_DIFFER, Clock, read_clock
from captoken._format.encoding import MAX_INTEGER
from captoken._format.errors import OverlayError, StoreError
from captoken._format.spelling import shown, spelled_time
from captoken._language.overlay import Overlay, Resumed, delta, snapshot
from captoken.control._asked import Change
from captoken.control._lock import ForkSafeLock
from captoken.control._seen import LastSeen
from captoken.control._shelf import Lying, Shelf, Written
from captoken.keys.secret import OperatorKey

_TRIES = 32  # attempts to publish while others publish first
# The longest wait between attempts, in seconds: it starts short and doubles each time.
_SHORT_PAUSE = 0.001
_LONG_PAUSE = 0.05
_KEPT = 86_400  # seconds to keep an expired entry, in case the next signer's clock is behind

# A resumed history continues with the number 1000 × seconds since the epoch. It is greater than any
# lost number, even if nobody knows these numbers.
_A_SECOND = 1000


class SnapshotHistory:
    """The snapshots in a store, one after the other, and the key that signs the next one.

    An Operator has one, and says what each change is. Threads may share it. See `Operator` for what
    the arguments mean.
    """

    def __init__(
        self,
        shelf: Shelf,
        key: OperatorKey,
        *,
        by: str,
        last: int | str,
        resume: str | None,
        alone: bool,
        life: int,
        takes_over: bool,
        clock: Clock,
    ) -> None:
        """Raises TypeError or ValueError for an invalid `last` or `resume`."""
        self._shelf = shelf
        self._key = key
        self._by = by
        self.seen = _seen(last)
        if resume is not None and not names.exact_str(resume, "resume").strip():
            raise ValueError("resume is empty: write why you resume, and what is lost")
        self._resume = resume
        self._alone = alone is True
        self._life = life
        self._clock = clock

        # Who takes over signs the whole once: readers may come who trust the new key alone.
        self._takes_over = takes_over

        # Held for one step with the store, and not over a whole change: that no other came
        # between is for `publish` to say.
        self._lock = ForkSafeLock()

    def newest(self, *, whole: bool = False) -> Lying:
        """The newest snapshot in the store: see `Shelf.read`.

        Raises OverlayError if the store has lost data, or may have (spec 36.16). Continuing from
        there would undo acknowledged changes: an operator who is shown an old snapshot would sign
        its content again.
        """
        with self._lock.held():
            lying = self._shelf.read(whole=whole)
            newest = lying.overlay
            if self._resume is not None:
                return lying  # the operator has checked the loss, and accepts what is there

            # The last number and history reveal a store that went back, if they are known.
            # Otherwise an expired snapshot does, because there should be a newer one.
            self.seen.check(newest)
            if newest is not None:
                if not self._alone and read_clock(self._clock) >= newest.expires_at:
                    ended = spelled_time(newest.expires_at)
                    raise OverlayError(
                        f"snapshot {newest.seq} expired at {ended}: is it the newest?"
                    )
                self.seen = LastSeen.of(newest)
        return lying

    def publish(self, change: Callable[[Overlay | None], Change | None]) -> Overlay:
        """Apply a change to the newest snapshot and publish it; repeat if others were first.

        `change` may be called several times, each time with the newest snapshot. It returns None if
        nothing has to change.

        Raises StoreError after many tries, what the store raises, and OverlayError.
        """
        refused = b""  # the hash of a snapshot that the store could not extend by a delta
        for tries in range(_TRIES):
            if tries:
                _wait_a_little(tries)
            # Read the clock before the store (36.16), so that the new snapshot has every entry that
            # existed at its `iat`. Otherwise a snapshot that lacks an entry of another one could
            # have a later date than that one.
            now = read_clock(self._clock)
            before, newest = self.newest()
            # A whole snapshot starts a history, and resumes one after a loss (36.21).
            by_delta = newest is not None and newest.is_large and newest.past is not None
            by_delta = by_delta and self._resume is None
            if newest is not None and primitives.equal(newest.digest, refused):
                by_delta = False
            # Publish a whole snapshot when taking over, and if the store cannot take a delta.
            by_delta = by_delta and self._shelf.has_deltas and not self._takes_over
            if newest is not None and not by_delta and before is None:
                before, newest = self.newest(whole=True)

            wanted = change(newest)
            if wanted is None and newest is not None:
                return newest  # nothing has to change
            written = self._written(newest, wanted or Change(), now, by_delta=by_delta)
            if self._put(written, before):
                return written.opened
            if written.step is not None:
                refused = written.step.after
        raise StoreError(f"{_TRIES} other snapshots were published first: try again")

    def _written(
        self,
        newest: Overlay | None,
        change: Change,
        now: int,
        *,
        by_delta: bool,
    ) -> Written:
        """The snapshot that follows `newest`, signed.

        It is also opened, so that nothing is published that readers would refuse. `now` is a time
        before `newest` was read. Expired entries are kept for a day, in case the next signer's
        clock is behind. A snapshot is never dated before the one that it follows (spec 36.16).
        """
        entries = () if newest is None else newest.entries
        # What has expired is kept for a while after that.
        ended = (one.id for one in entries if one.until is not None and now >= one.until + _KEPT)
        drop = {*change.drop, *ended}

        issued_at = now if newest is None else max(now, newest.issued_at)
        if issued_at > now + CLOCKS_DIFFER:
            # The newest snapshot was signed with a wrong clock, and no verifier accepts it.
            issued_at = now
        seq = self.seen.seq + 1
        resumed = None if newest is None else newest.resumed
        if self._resume is not None:
            last = 0 if newest is None else newest.seq
            seq = max(seq, last + 1, issued_at * _A_SECOND)
            resumed = Resumed(by=self._by, lost=self.seen.seq, seq=seq, why=self._resume)

        if newest is not None and by_delta:
            step = delta(
                self._key,
                newest,
                drop=drop,
                add=change.add,
                seq=seq,
                issued_at=issued_at,
                life=self._life,
            )
            return Written(self._shelf.follow(newest, [step.delta]), step=step)

        kept = [*(entry for entry in entries if entry.id not in drop), *change.add]
        # Deltas need entries in the order of ids. Small snapshots keep the order of creation.
        if newest is not None and newest.is_large:
            kept.sort(key=lambda entry: entry.id)
        made = snapshot(
            self._key,
            kept,
            seq=seq,
            issued_at=issued_at,
            life=self._life,
            past=() if newest is None else newest.next_past,
            resumed=resumed,
        )
        return Written(self._shelf.open(made), whole=made)

    def _put(self, written: Written, before: bytes | None) -> bool:
        """Publish it, if the store still has what was read. Raises what the store raises."""
        with self._lock.held():
            if not self._shelf.put(written, before):
                return False
            self.seen = LastSeen.of(written.opened)
            self._resume = None
            if written.step is None:
                self._takes_over = False
            else:
                self._shelf.fold(self._key, written.opened, written.step.delta)
            return True


def _seen(last: int | str) -> LastSeen:
    """The snapshot that an earlier process saw. Raises TypeError or ValueError if invalid."""
    if type(last) is str:
        return LastSeen.read(last)
    if type(last) is not int or not 0 <= last <= MAX_INTEGER:
        raise ValueError(f"last must be the number of a snapshot, or 0, not {shown(last)}")
    return LastSeen(last)


def _wait_a_little(tries: int) -> None:
    """Let others finish. The wait is random, so that the losers do not all return at once."""
    longest = min(_LONG_PAUSE, _SHORT_PAUSE * 2**tries)
    sleep(uniform(0, longest))  # noqa: S311
