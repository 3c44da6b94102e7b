"""The ledger: what a token and all below it have used of `uses` and `budget` (spec, "Ledger").

A bucket is one link and one unit. A reservation debits the buckets of every link above it in one step, all or none, so
that children share what is above them, whatever each was promised. Reserve before the call, settle or cancel after it:
a reservation whose owner died counts as spent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from captoken._format.encoding import b64encode

USES = "uses"  # the unit of `uses`: every access costs one
LEASE = 60  # seconds that a reservation may be settled or cancelled in
KEPT = 3600  # seconds that a bucket is kept after its token has expired: a clock that is set back revives none


class Debit(msgspec.Struct, frozen=True):
    """What one access takes from one bucket."""

    bucket: bytes  # the id of the link that has the caveat: 16 bytes
    unit: str
    limit: int  # of the bucket, as the link says
    amount: int
    link: int = 0  # where in the chain, for whoever is told

    def back(self, amounts: Mapping[str, int] | None) -> int:
        """What goes back when so much was taken; None is all that was reserved."""
        return (
            0
            if amounts is None
            else self.amount - min(self.amount, max(0, amounts.get(self.unit, 0)))
        )


class Reservation(msgspec.Struct, frozen=True):
    """What an access takes from every bucket above it: all or nothing."""

    id: bytes  # 16 bytes, random: reserving the same one twice is reserving it once
    debits: tuple[Debit, ...]
    issued_at: int  # of the token, in seconds since the epoch
    until: int  # later it counts as spent
    keep: int | None  # when the token has expired and its buckets may be forgotten; None is never


def is_lost(gone: int, now: int) -> bool:
    """May a token live at `now` whose bucket was forgotten? `gone` is the last time that a forgotten one was kept until."""
    return now < gone - KEPT


REFUSED_BEFORE = "the token was issued before this ledger began, and what it has used is not known"
REFUSED_CLOCK = "this clock is behind one by which buckets were forgotten, and what tokens have used is not known"
REFUSED_AMOUNT = "a debit of less than nothing"


class Ledger(Protocol):
    """Counts. Servers that take the same tokens share one, and say so: see `shared`.

    A ledger that was lost and begun anew cannot know what tokens used before, so it refuses those that were issued before
    it began, or up to a minute later, since clocks differ: its floor. `floor=0` says aloud that nothing was counted before.
    A bucket is forgotten at its time by the clock; one that was far ahead has forgotten some too early, so whoever comes with
    a clock that is before the end of a token whose bucket is gone is refused as well: see `is_lost`.
    """

    shared: bool  # do all servers that take these tokens count here?

    def reserve(self, reservation: Reservation, now: int) -> Debit | None:
        """Debit every bucket, in one atomic step: None if all had enough, else the first that had not, and nothing is debited.

        Again with the same id: the same answer, and nothing is debited twice. Raises StoreError, or anything, when it
        cannot be known: then the request is denied, and what was reserved, if it was, counts as spent; and for an amount
        below 0.
        """
        ...

    def settle(self, reservation_id: bytes, amounts: Mapping[str, int] | None, now: int) -> bool:
        """What was taken in fact: at most what was reserved, and the rest goes back. None is all of it.

        False if there is no such reservation open: settled, cancelled, or too late. Atomic.
        """
        ...

    def spent(self, bucket: bytes, unit: str) -> int:
        """What a bucket has been debited, reservations included."""
        ...


class Use(msgspec.Struct, frozen=True):
    """The one use of a proof, to be committed before the answer stands."""

    entry: bytes  # names key and nonce
    issued_at: int


class ReplayStore(Protocol):
    """Remembers which proofs were used. Several processes that serve one audience share one (spec, "Replay").

    A store that cannot remember from before it was made refuses what was issued before: its floor.
    """

    def add(self, use: Use, now: int) -> bool:
        """Remember a use: True if it is the first, in one atomic step, and it was issued after the store's floor.

        `now` is the verifier's clock, in seconds. A use is remembered for as long as its proof could pass as fresh, and
        the floor rises behind what is forgotten, so that a clock set back revives nothing. Raises StoreError, or
        anything, when it is full or cannot be reached: then the request is denied.
        """
        ...


class SnapshotStore(Protocol):
    """Where the newest snapshot lies: a file, a table, a bucket.

    Verifiers need not trust it: they go back behind nothing that they have seen. Operators do: they add to what it shows
    them, and one that is shown an old snapshot, and has no memory of a newer one, signs the old one anew.
    """

    def load(self) -> bytes | None:
        """The newest snapshot; None if there never was one. Raises StoreError, or anything, when it cannot tell."""
        ...

    def publish(self, snapshot: bytes, after: bytes | None) -> bool:
        """Put `snapshot` in the place of `after`, in one atomic step; False if something else lies there by now.

        When it returns True the snapshot is safe: no crash loses it.
        """
        ...


START = b64encode(bytes(32))  # what the first record follows on


class Head(msgspec.Struct, frozen=True):
    """The last record of a trail: kept elsewhere, it shows that the trail was not rolled back since."""

    seq: int = 0
    hash: str = START
