"""The promises of stores: the ports for used proofs, counts, snapshots and trails.

There are four kinds, in this order: proofs (spec, "Replay"), the ledger (spec, "Ledger"), snapshots
of the overlay (spec, "Overlay"), and the last record of a trail (spec, "Audit"). A port is a
Protocol: a store of your own needs its methods and no base class. The tests in `tests/stores/` say
what each method does, and all stores here pass them.

`now` is always the caller's clock, in seconds since the epoch. Any exception of a store is a
denial. A store raises StoreError when it cannot know, and never guesses.

Proofs and the ledger also have a port for asyncio stores. The class of such a store has `awaited =
True`, which says that its calls are awaited in the event loop; nobody infers that from an answer.
Everything else that it promises is the same, word for word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple, Protocol

import msgspec

from captoken._format.encoding import b64encode

# --- proofs ---------------------------------------------------------------------------------------


class Use(msgspec.Struct, frozen=True):
    """The one use of a proof, to be committed before the answer stands."""

    # The name of key and nonce together.
    entry: bytes
    issued_at: int

    # The id of the token's root key. A store may have been made along with it.
    kid: str = ""


class Spend(msgspec.Struct, frozen=True):
    """The one use of a consent, which lives longer than a proof (spec, "Consent")."""

    # The name of key and nonce together. No proof has it.
    entry: bytes
    issued_at: int

    # When it is good no more, in seconds since the epoch. A store keeps it for at least so long.
    expires_at: int

    # The id of the token's root key.
    kid: str = ""

    # For whoever is told, and no store needs it: whose it is, the place of the link that asks, and
    # the question that it answers.
    by: bytes = b""
    link: int = 0
    question: bytes = b""


class ReplayStore(Protocol):
    """Remembers which proofs were used. Several processes that serve one audience share one.

    A store that cannot remember from before it was made refuses what was issued before: its floor.
    But not for tokens of a key that was made along with it: none of them can have been used before.
    """

    # called: ports.proofs, by `python -m tests.called`
    def add(self, use: Use, now: int) -> bool:
        """Remember a use, in one atomic step: True if it is the first and above the floor.

        A use is remembered for as long as its proof could pass as fresh. The floor rises behind
        what is forgotten, so that a clock set back revives nothing. Raises StoreError, or anything,
        when it is full or cannot be reached: then the request is denied.
        """
        ...

    def peek(self, use: Use, now: int) -> bool:
        """Would `add` return True for this use, now? Remembers nothing, and forgets nothing.

        For `explain` alone: an answer is true only until somebody adds, so it allows nothing.
        Raises as `add` does. What only writing shows, such as a full disk, it need not see.
        """
        ...

    def spend(self, spend: Spend, now: int) -> bool:
        """Remember the use of a consent, as `add` does that of a proof: True if it is the first.

        What was issued before the store began, or up to five seconds later, is refused, however
        long it lives. A store that has not this method denies what needs it.
        """
        ...

    def peek_spend(self, spend: Spend, now: int) -> bool:
        """Would `spend` return True, now? Remembers nothing: for `explain` alone."""
        ...

    # end: ports.proofs


class AsyncReplayStore(Protocol):
    """A ReplayStore whose calls are awaited, in the event loop of the verifier.

    A call that is cancelled may have been done. The next one has its own answer all the same.
    """

    # True: its calls are awaited.
    awaited: ClassVar[bool]

    # awaited: ports.proofs
    async def add(self, use: Use, now: int) -> bool:
        """Remember a use, in one atomic step: True if it is the first and above the floor.

        A use is remembered for as long as its proof could pass as fresh. The floor rises behind
        what is forgotten, so that a clock set back revives nothing. Raises StoreError, or anything,
        when it is full or cannot be reached: then the request is denied.
        """
        ...

    async def peek(self, use: Use, now: int) -> bool:
        """Would `add` return True for this use, now? Remembers nothing, and forgets nothing.

        For `explain` alone: an answer is true only until somebody adds, so it allows nothing.
        Raises as `add` does. What only writing shows, such as a full disk, it need not see.
        """
        ...

    async def spend(self, spend: Spend, now: int) -> bool:
        """Remember the use of a consent, as `add` does that of a proof: True if it is the first.

        What was issued before the store began, or up to five seconds later, is refused, however
        long it lives. A store that has not this method denies what needs it.
        """
        ...

    async def peek_spend(self, spend: Spend, now: int) -> bool:
        """Would `spend` return True, now? Remembers nothing: for `explain` alone."""
        ...

    # end: ports.proofs


# --- the ledger -----------------------------------------------------------------------------------

USES = "uses"  # the unit of `uses`: every access costs one
MARKS = "marks"  # the unit of a mark that is `full`
LEASE = 60  # seconds that a reservation may be settled or cancelled in
KEPT = 3600  # seconds that a bucket outlives its token: a clock that is set back revives none
KEEP_MARKS = 30 * 86400  # seconds that a task's mark outlives the latest expiry that was seen
MOST_BUCKETS = 10_000  # that a ledger keeps of one tree: holders add links that count
FULL = 1000  # what a server adds to the number of a debit that is `full`


class Debit(msgspec.Struct, frozen=True):
    """What one access takes from one bucket. A bucket is one link and one unit."""

    # The id of the link that has the caveat: 16 bytes.
    bucket: bytes
    unit: str

    # The limit of the bucket, as the link says.
    limit: int
    amount: int

    # The place of the link in the chain, for whoever is told.
    link: int = 0
    # An answer alone says so: it is not short, but new, and its tree has too many already.
    full: bool = False

    def back(self, amounts: Mapping[str, int] | None) -> int:
        """What goes back when so much was taken; None is all that was reserved."""
        if amounts is None:
            return 0
        taken = max(0, amounts.get(self.unit, 0))
        return self.amount - min(self.amount, taken)


class Once(NamedTuple):
    """A request that its service does once, however often it comes: it counts once, too (38.17).

    `id`: 16 bytes that stand for the request and for nothing else: a digest of all of it, of who
    asks, and of a key of theirs. `seconds`: how long a reservation of this id is known, counted
    from the first. The service has to know the request for longer, by minutes.
    """

    id: bytes
    seconds: int


class Reservation(msgspec.Struct, frozen=True):
    """What an access takes from every bucket above it: all or nothing.

    Children share what is above them, whatever each was promised. Reserve before the call, settle
    or cancel after it: a reservation whose owner died counts as spent.
    """

    # 16 bytes, random: reserving the same one twice is reserving it once.
    id: bytes
    debits: tuple[Debit, ...]

    # When the token was issued, in seconds since the epoch.
    issued_at: int

    # Until when it may be settled. Later it counts as spent.
    until: int

    # When the token has expired, and its buckets may be forgotten; None is never.
    keep: int | None

    # The id of the token, which all have in common that were made of it.
    tree: str = ""

    # The leeway of the verifier. So long after its end it takes a token.
    leeway: int = 0

    # The id of the token's root key. A ledger may have been made along with it.
    kid: str = ""

    # The id of the first reservation of the same step, where this is a further part of it (38.16).
    goes_on: bytes | None = None

    @property
    def step(self) -> bytes:
        """The id that all parts of one step are recorded by. No ledger needs it."""
        return self.id if self.goes_on is None else self.goes_on

    @property
    def kept_until(self) -> int | None:
        """Until when its buckets are kept; None is for good."""
        if self.keep is None:
            return None
        return self.keep + KEPT


def later(one: int | None, two: int | None) -> int | None:
    """The later of two times until which something is kept; None is for good."""
    return None if one is None or two is None else max(one, two)


class Mark(msgspec.Struct, frozen=True):
    """A mark that an access is in: a bucket, which is only ever set (spec, "Marks")."""

    # 32 bytes that stand for the mark: of a task, of a link, or of an entry of an overlay.
    bucket: bytes

    # When it may be forgotten, in seconds since the epoch; None is never. The latest counts.
    keep: int | None

    # Does it count to the MOST_BUCKETS of the tree? Those of a holder's own links do.
    is_of_holder: bool

    # For whoever is told, and no ledger needs it: its name, and the place of its link in the chain.
    name: str = ""
    link: int | None = None


class Rule(msgspec.Struct, frozen=True):
    """A rule that a step runs into: one of its accesses is closed once all of these are set."""

    after: tuple[Mark, ...]

    # For whoever is told: the name of the mark that is closed, the place of the link, and the key
    # whose consent lets a step through.
    closed: str = ""
    link: int | None = None
    unless: bytes | None = None


class MarkedStep(msgspec.Struct, frozen=True):
    """What a step sets, and what must not be set before it: one access, or all of a statement.

    It is judged as if its own marks were set.
    """

    marks: tuple[Mark, ...]
    rules: tuple[Rule, ...]

    # As in a reservation: see there.
    issued_at: int
    tree: str = ""
    leeway: int = 0
    kid: str = ""

    # What did it, for people: the holder, and each access in a few words. No value of an access.
    by: str = ""

    # What is reserved in the same atomic step, if anything is.
    reservation: Reservation | None = None


class SetBefore(msgspec.Struct, frozen=True):
    """A mark that was set: when, in seconds since the epoch, and by what."""

    bucket: bytes
    at: int
    by: str


class Forbidden(msgspec.Struct, frozen=True):
    """The answer of `step`: a rule holds, and nothing was set or reserved."""

    # Which of the step's rules: the first that holds.
    rule: int

    # Those of its marks that were set before, as far as they are known.
    marks: tuple[SetBefore, ...] = ()


class Ledger(Protocol):
    """Counts what a token and all below it have used of `uses` and `budget`.

    Servers that take the same tokens share one ledger, and say so: see `shared`.

    A ledger that was lost and begun anew cannot know what tokens used before. So it refuses those
    that were issued before it began, or up to a minute later, since clocks differ: its floor.
    But not those of a key that was made along with it: none of them can have been used before.

    Holders make buckets, with each link that counts. So of one tree a ledger keeps MOST_BUCKETS.
    The next that would be new has not enough, and says that it is `full`; those that are there go
    on.

    A bucket is forgotten at its time by the clock. A clock that was far ahead has made the ledger
    forget some too early. And a verifier with a long leeway takes a token for longer than another
    keeps it. So whoever would still take a token whose bucket is gone, by its clock and its leeway,
    is refused as well.

    An AsyncVerifier asks it in threads. One that waits for no file and no server may say so by
    `waits = False`, as a ReplayStore or a Recorder may: then the event loop's own thread asks it.
    """

    # Do all servers that take these tokens count here?
    shared: bool

    # called: ports.ledger, by `python -m tests.called`
    def reserve(self, reservation: Reservation, now: int) -> Debit | None:
        """Debit every bucket, in one atomic step, and answer None: all had enough.

        Else the answer is the first that had not, and nothing is debited. Again with the same id:
        the same answer, and nothing is debited twice.

        Raises StoreError for an amount below 0. Raises StoreError, or anything, when it cannot be
        known: then the request is denied, and what was reserved, if it was, counts as spent.
        """
        ...

    def peek(self, reservation: Reservation, now: int) -> Debit | None:
        """What `reserve` would answer, now: None, or the first bucket that has not enough.

        Debits nothing, and forgets nothing. For `explain` alone: an answer is true only until
        somebody reserves, so it allows nothing. Raises as `reserve` does. What only writing shows,
        such as a full disk, it need not see.
        """
        ...

    def settle(
        self,
        reservation_id: bytes,
        amounts: Mapping[str, int] | None,
        now: int,
    ) -> bool:
        """What was taken in fact: at most what was reserved, and the rest goes back. Atomic.

        None is all of it. False if no such reservation is open: settled, cancelled, or too late.
        Asked again after an error it settles once, whether the first call was heard or not.
        """
        ...

    def spent(self, bucket: bytes, unit: str) -> int:
        """What a bucket has been debited, reservations included."""
        ...

    def step(self, step: MarkedStep, now: int) -> Forbidden | Debit | None:
        """Set the marks of a step, and reserve, in one atomic step. None: all of it is done.

        Forbidden is the first rule whose marks are all set, those of the step itself counted. A
        Debit is the first bucket that has not enough, or a mark that is `full`: of one tree there
        are too many. Either way nothing is set and nothing debited.

        A mark that is set stays as it is, but for `keep`, of which the latest counts. So it is with
        each mark of a rule that is set, also where the answer is Forbidden: a token that lives
        longer has asked. Again with the same reservation: the same answer.

        A ledger that has not this method denies what needs it. Raises as `reserve` does.
        """
        ...

    def peek_step(self, step: MarkedStep, now: int) -> Forbidden | Debit | None:
        """What `step` would answer, now. Sets nothing, and debits nothing: for `explain` alone."""
        ...

    # end: ports.ledger


class AsyncLedger(Protocol):
    """A Ledger whose calls are awaited, in the event loop of the verifier.

    A call that is cancelled may have been done: a reservation whose answer nobody heard counts as
    spent. The next one has its own answer all the same.
    """

    # True: its calls are awaited.
    awaited: ClassVar[bool]

    # Do all servers that take these tokens count here?
    shared: bool

    # awaited: ports.ledger
    async def reserve(self, reservation: Reservation, now: int) -> Debit | None:
        """Debit every bucket, in one atomic step, and answer None: all had enough.

        Else the answer is the first that had not, and nothing is debited. Again with the same id:
        the same answer, and nothing is debited twice.

        Raises StoreError for an amount below 0. Raises StoreError, or anything, when it cannot be
        known: then the request is denied, and what was reserved, if it was, counts as spent.
        """
        ...

    async def peek(self, reservation: Reservation, now: int) -> Debit | None:
        """What `reserve` would answer, now: None, or the first bucket that has not enough.

        Debits nothing, and forgets nothing. For `explain` alone: an answer is true only until
        somebody reserves, so it allows nothing. Raises as `reserve` does. What only writing shows,
        such as a full disk, it need not see.
        """
        ...

    async def settle(
        self,
        reservation_id: bytes,
        amounts: Mapping[str, int] | None,
        now: int,
    ) -> bool:
        """What was taken in fact: at most what was reserved, and the rest goes back. Atomic.

        None is all of it. False if no such reservation is open: settled, cancelled, or too late.
        Asked again after an error it settles once, whether the first call was heard or not.
        """
        ...

    async def spent(self, bucket: bytes, unit: str) -> int:
        """What a bucket has been debited, reservations included."""
        ...

    async def step(self, step: MarkedStep, now: int) -> Forbidden | Debit | None:
        """Set the marks of a step, and reserve, in one atomic step. None: all of it is done.

        Forbidden is the first rule whose marks are all set, those of the step itself counted. A
        Debit is the first bucket that has not enough, or a mark that is `full`: of one tree there
        are too many. Either way nothing is set and nothing debited.

        A mark that is set stays as it is, but for `keep`, of which the latest counts. So it is with
        each mark of a rule that is set, also where the answer is Forbidden: a token that lives
        longer has asked. Again with the same reservation: the same answer.

        A ledger that has not this method denies what needs it. Raises as `reserve` does.
        """
        ...

    async def peek_step(self, step: MarkedStep, now: int) -> Forbidden | Debit | None:
        """What `step` would answer, now. Sets nothing, and debits nothing: for `explain` alone."""
        ...

    # end: ports.ledger


# --- snapshots ------------------------------------------------------------------------------------


DELTAS = 512  # that a store keeps at least: whoever knows an older snapshot loads the whole


class SnapshotStore(Protocol):
    """Where the newest snapshot of the overlay lies: a file, a table, a bucket.

    A snapshot, and the deltas that came since. A snapshot is known by its *mark*, 32 bytes: the
    hash that deltas name (spec 36.17). That of one that lies there whole a store works out by
    `mark` of `_rules`. The others it is told. It reads neither snapshots nor deltas.

    A store without `append` and `since` will do: it is given whole snapshots, which costs more the
    larger they are.

    Verifiers need not trust it: they go back behind nothing that they have seen. Operators do,
    since they add to what it shows them. One that is shown an old snapshot, and has no memory of
    a newer one, signs the old one anew.

    So a store that is missing is an error, and not one that is empty: it may have been lost.
    """

    def load(self) -> bytes | None:
        """The newest snapshot; None if there never was one.

        Whole, and behind it the deltas that came since, each after a line feed (36.19). Raises
        StoreError, or anything, when it cannot tell.
        """
        ...

    def publish(self, snapshot: bytes, after: bytes | None) -> bool:
        """Put `snapshot` in the place of `after`, which is what `load` gave, in one atomic step.

        False if something else lies there by now. When it returns True the snapshot is safe: no
        crash loses it.

        One whose mark is the newest is the same, made whole. The deltas that led to it are kept for
        `since`, and are behind it no more. Of any other none is kept.
        """
        ...

    def append(self, delta: bytes, after: bytes, gives: bytes) -> bool:
        """Put a delta behind what has the mark `after`, in one atomic step.

        Then the mark of the newest is `gives`. False if the newest has another mark by now, or
        there is none. When it returns True the delta is safe, as above.
        """
        ...

    def since(self, mark: bytes) -> list[bytes] | None:
        """The deltas that lead from the snapshot with that mark to the newest, in their order.

        None if no such snapshot is known here, or no more: then the whole has to be loaded. Empty
        if it is the newest. Raises as `load` does.
        """
        ...


# --- the trail ------------------------------------------------------------------------------------

START = b64encode(bytes(32))  # what the first record follows on


class Head(msgspec.Struct, frozen=True):
    """The last record of a trail: kept elsewhere, it shows that the trail was not rolled back."""

    seq: int = 0
    hash: str = START
