"""The overlay: revocations and restrictions of issued tokens (spec, "Overlay").

    entry       what an operator says of some tokens: see `entries`
    snapshot    all entries that stand, with a number that never goes back, signed as a whole
    delta       what changes from one snapshot to a later one, signed, with the hash of either
    Overlay     a snapshot whose signature held, indexed for verifiers

Revocation is the narrowest overlay. The rules of this file:

- Entries prohibit or say nothing, as caveats do. They grant nothing.
- Anybody may distribute a snapshot. One that was changed or cut is refused here, whole.
- A delta gives what its operator signed, to the byte, or changes nothing (spec 36.18).
- What is large is read in pieces, so that other threads are not kept waiting.
- One that is older than another is refused by whoever loads both, and so is one of another history
  (spec 36.22). How old it is verifiers ask.
- An entry that cannot be read refuses the whole snapshot: passed over, it would be a restriction
  that is lost, and nobody would hear (spec 36.3).
- A request pays for looking up the keys of its token, whatever the number of entries.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import msgspec

from captoken._format import primitives, signed
from captoken._format.encoding import (
    MAX_INTEGER,
    EncodingError,
    Integer,
    b64decode,
    b64encode,
    encode_json,
    own_words,
)
from captoken._format.errors import OverlayError
from captoken._format.public_keys import signing_key
from captoken._language.caveats import V1, Vocabulary
from captoken._language.entries import (
    UNREADABLE,
    Entry,
    Index,
    SelectorFacts,
    read_entry,
    spelled_with_care,
)
from captoken._language.link import Link

LIFE = 3600  # seconds that a snapshot is good for; verifiers have a tighter bound of their own
MAX_BYTES = 1 << 26  # of a snapshot
LARGE = 1 << 16  # bytes of a snapshot from which on deltas are worth what they cost
_OVERLAY = primitives.label("overlay")
_DELTA = primitives.label("delta")
_DIGEST_BYTES = 32

PAST = 256  # snapshots before it that one names, at most

# 32 bytes in canonical base64url (1.2).
_is_hash = re.compile("[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]").fullmatch


# --- snapshots ------------------------------------------------------------------------------------


class Overlay:
    """A snapshot whose signature held.

        overlay = Overlay.open(data, [operator_public])
        verifier = Verifier(keyring, overlay=overlay)
        later = overlay.follow(deltas, [operator_public])

    - `open` and `follow` are the only ways to one. A Feed keeps the newest at hand.
    - `seq` is its number, which never goes back from one snapshot to the next.
    - `issued_at` is when the operator last said that this is all, `expires_at` when it is good no
      more, in seconds since the epoch. Nothing here asks the time: verifiers do.
    - `entries` are in the order of the snapshot; in that of their ids where a delta led to it.
    - `digest` is the SHA-256 of the snapshot's JSON object with the entries in the order of their
      ids: by it a delta says what it is for (36.17).
    - `size` is how many bytes it takes as a snapshot.
    - `past` are the hashes of those before it, the latest first, in base64url. None is that it was
      signed without (36.21).
    - `resumed` says who went on from a store that had lost something, and why; None if nobody did.

    Immutable in use, shared freely between threads and with forked children. To open one costs a
    signature and the decoding of all entries; it is kept in memory whole. To follow costs a
    signature and a hash, and shares with the one before all that stays as it is.
    """

    __slots__ = (
        "_index",
        "_links",
        "digest",
        "ends",
        "entries",
        "expires_at",
        "issued_at",
        "past",
        "resumed",
        "seq",
        "size",
        "standing",
    )

    entries: tuple[Entry, ...]
    seq: int
    issued_at: int
    expires_at: int
    digest: bytes
    size: int
    past: tuple[str, ...] | None
    resumed: Resumed | None

    # The writers below use them, and nobody changes them.
    standing: _Standing
    ends: _Ends

    def __init__(
        self,
        standing: _Standing,
        index: Index,
        links: dict[str, Link],
        ends: _Ends,
        shown: Iterable[Entry] | None = None,
    ) -> None:
        self.entries = tuple(standing.entries if shown is None else shown)
        self.seq = ends.seq
        self.issued_at = ends.iat
        self.expires_at = ends.exp
        self.past = ends.past
        self.resumed = ends.resumed
        self.ends = ends
        self.digest = standing.digest(ends)
        self.size = standing.size(ends)
        self.standing = standing
        self._links = links  # what narrowing entries say, by entry id
        self._index = index

    @classmethod
    def open(
        cls,
        data: bytes,
        operators: Iterable[bytes | str],
        *,
        vocabulary: Vocabulary = V1,
    ) -> Overlay:
        """The overlay in a snapshot that one of the operators signed (spec 36.1 to 36.6).

        Behind the snapshot there may be deltas that follow on it, each after a line feed: then it
        is what the last of them gives (36.19).

        `operators` are public keys. `vocabulary` is the verifier's: an entry that uses a caveat
        that is not in it is refused, and the whole snapshot with it. An entry that was passed over
        would be a restriction that is lost, and nobody would hear.

        Does not ask whether it is the newest, or how old it is: a Feed and verifiers do. Raises
        OverlayError, and nothing else for any data. Raises TypeError or ValueError for what is no
        public key.
        """
        if type(data) is not bytes:
            raise OverlayError(f"a snapshot must be bytes, not {type(data).__name__}")
        trusted = [signing_key(operator, "operator") for operator in operators]

        # No snapshot and no delta has a line feed: canonical JSON writes it as an escape. And each
        # delta is an object.
        length = data.find(b"\n{")
        whole, deltas = data, list[bytes]()
        if length >= 0:
            whole = data[:length]
            deltas = data[length + 1 :].split(b"\n")

        # Before it is hashed, and so before a stranger can make this work.
        if len(whole) > MAX_BYTES or len(data) > 2 * MAX_BYTES:
            raise OverlayError(
                f"the snapshot would be more than {MAX_BYTES} bytes: lift entries that are no "
                "longer needed"
            )

        # The signature comes before the meaning: nothing is decoded that no operator signed.
        body = _signed_body(whole, trusted, _OVERLAY)
        if body is None:
            raise OverlayError("the snapshot is not signed by an operator that this server trusts")
        try:
            opened = _read(body, vocabulary)
        except UNREADABLE as error:
            raise OverlayError(f"the snapshot cannot be read: {own_words(error)}") from None
        return opened.follow(deltas, trusted, vocabulary=vocabulary) if deltas else opened

    def follow(
        self,
        deltas: Sequence[bytes],
        operators: Iterable[bytes | str],
        *,
        vocabulary: Vocabulary = V1,
    ) -> Overlay:
        """The overlay that deltas lead to from this one, each following on the one before (36.18).

        What the last of them gives is hashed before it is taken. So it is, to the byte, what its
        operator signed for.

        `operators` and `vocabulary` as in `open`. Does not ask how old it is. Raises OverlayError
        for deltas that no operator signed, that follow on another snapshot, or that give something
        else than they say. This one is as it was then, and the whole has to be fetched.
        """
        trusted = [signing_key(operator, "operator") for operator in operators]
        after = (self.seq, self.digest)
        changes: list[_Delta] = []
        for delta in deltas:
            change = _opened_delta(delta, trusted)
            # 36.18. Asked before the next one is looked at, so that a stranger who sends one delta
            # many times makes no work.
            if change.after.named != after:
                raise OverlayError("the delta continues another snapshot")
            if change.gives.seq <= change.after.seq:
                raise OverlayError("the delta cannot be applied: its number does not go up")
            after = change.gives.named
            changes.append(change)

        try:
            return self._followed(changes, vocabulary)
        except UNREADABLE as error:
            raise OverlayError(f"the delta cannot be applied: {own_words(error)}") from None

    def _followed(self, changes: Sequence[_Delta], vocabulary: Vocabulary) -> Overlay:
        """What these changes lead to, which follow one on the other.

        Raises ValueError where they do not lead to what they say, and what is `UNREADABLE`.
        """
        standing = self.standing.copy()
        index = Index(self._index.by_key, self._index.anywhere)
        links = {**self._links}
        ends = self.ends
        digest = self.digest

        for change in changes:
            for name in change.drop:
                index.take_off(standing.drop(name))
                links.pop(name, None)

            before: str | None = None
            for raw in change.add:
                spelled = bytes(raw)
                entry = read_entry(spelled, links, vocabulary)
                if before is not None and entry.id <= before:
                    raise ValueError("its added entries are not in order")
                before = entry.id
                standing.add(entry, spelled)
                index.file(entry)

            # What it names is the one that it was made for, checked above (36.18).
            ends = _Ends(
                change.exp,
                change.iat,
                change.gives.seq,
                ends.past_of_next(digest),
                ends.resumed,
            )
            digest = change.gives.digest

        # 36.18. All of it is hashed before any of it is taken.
        opened = Overlay(standing, index, links, ends)
        if not primitives.equal(opened.digest, digest):
            raise ValueError("its result has another hash")
        if opened.size > MAX_BYTES:
            raise ValueError(f"its result is a snapshot of more than {MAX_BYTES} bytes")
        return opened

    def names(self, seq: int, digest: bytes) -> bool | None:
        """Was the snapshot of that number and hash one of those before it (spec 36.22)?

        None where it is too long ago to be named. True also where somebody has looked at what was
        lost, and has signed that it goes on without.
        """
        past = self.past or ()
        if b64encode(digest) in past:
            return True
        if self.resumed is not None and seq < self.resumed.seq:
            return True
        return None if len(past) == PAST and seq < self.seq - PAST else False

    def follows(self, known: Overlay) -> bool:
        """May it be put in the place of one that is known, by its history (spec 36.22)?

        Does not ask which has the greater number.
        """
        # Before snapshots named others: then there is no history to leave.
        if self.past is None:
            return known.past is None
        named = self.names(known.seq, known.digest)
        return self._keeps(known) if named is None else named

    def _keeps(self, known: Overlay) -> bool:
        """Does all stand here that stands there, to the byte, or is more stopped in its place?"""
        for entry, spelled in known.standing.rows():
            at = self.standing.place(entry.id)
            is_here = at is not None and self.standing.spelled[at] == spelled
            if entry.stands(self.issued_at) and not is_here and not self._index.stops(entry):
                return False
        return True

    def entry(self, entry_id: str) -> Entry | None:
        """The entry with that id, whether it has ended or not; None if there is none."""
        at = self.standing.place(entry_id)
        return None if at is None else self.standing.entries[at]

    @property
    def next_past(self) -> tuple[str, ...]:
        """The `past` of the snapshot that follows on it: it begins with one that has none."""
        return self.ends.past_of_next(self.digest) or (b64encode(self.digest),)

    @property
    def is_large(self) -> bool:
        """Is it worth to go on from it by deltas, rather than by whole snapshots?"""
        return self.size >= LARGE

    @property
    def asked_bytes(self) -> int:
        """How many bytes of the snapshot are entries that holders asked for."""
        rows = self.standing.rows()
        return sum(len(spelled) for entry, spelled in rows if entry.asked is not None)

    def touches(self, keys: Iterable[str | bytes]) -> bool:
        """May an entry be on a token with these keys (`SelectorFacts.keys`)?

        A no is sure, and is had sooner than from `on`.
        """
        index = self._index
        return bool(index.anywhere) or not index.by_key.keys().isdisjoint(keys)

    def on(self, facts: SelectorFacts, now: int) -> list[Entry]:
        """The entries on a token that still stand, each once, in no order to rely on.

        Found by the token's keys, and then asked in full. `now` is in seconds since the epoch.
        """
        # Each entry is filed once. A token may have a key twice, as an agent of its task's name.
        found = [*self._index.anywhere]
        for key in dict.fromkeys(facts.keys):
            found += self._index.by_key.get(key, ())
        return [filed.entry for filed in found if filed.is_on(facts, now)]

    def link(self, entry: Entry) -> Link | None:
        """What a narrowing entry restricts to; None if it revokes.

        For entries of this overlay alone: of another's, it would say None.
        """
        return self._links.get(entry.id)

    def __repr__(self) -> str:
        return f"<Overlay {self.seq}, {len(self.entries)} entries>"


# --- what is hashed -------------------------------------------------------------------------------


class Resumed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who went on from a store that had lost something, and what is known of it (spec 36.23).

    Stands in all snapshots that follow, so that whoever missed the first is told too.
    """

    by: str
    lost: Integer  # the number of the newest snapshot that whoever signed had seen; 0: of none
    seq: Integer  # the first snapshot that went on; those of lost histories have lesser numbers
    why: str


class _Ends(msgspec.Struct, frozen=True):
    """What a snapshot says beside its entries."""

    exp: int
    iat: int
    seq: int
    past: tuple[str, ...] | None = None
    resumed: Resumed | None = None

    def spelled(self) -> bytes:
        """The end of the JSON object, from behind the last entry on."""
        past = resumed = b""
        if self.past is not None:
            past = b'"past":%b,' % _encode(self.past)
        if self.resumed is not None:
            resumed = b'"resumed":%b,' % encode_json(msgspec.to_builtins(self.resumed))
        stated = (self.exp, self.iat, past, resumed, self.seq)
        return b'],"exp":%d,"iat":%d,%b%b"seq":%d,"v":1}' % stated

    def past_of_next(self, digest: bytes) -> tuple[str, ...] | None:
        """What one names that follows on this one, whose hash that is (36.21)."""
        return None if self.past is None else (b64encode(digest), *self.past)[:PAST]


_HEAD = b'{"entries":['
_PIECE = 2048  # entries that are spelled in one go


class _Standing:
    """The entries of a snapshot and how each is spelled: three lists that go along.

        standing = known.standing.copy()
        standing.drop("4Kd0gmYp2nQ")
        standing.digest(ends)      # what a delta says that it gives

    In the order of their ids, unless `snapshot` writes them as they come. Changed by whoever makes
    an overlay, and not after.
    """

    def __init__(
        self,
        ids: list[str],
        entries: list[Entry],
        spelled: list[bytes],
        begun: primitives.Begun | None = None,
    ) -> None:
        self.ids = ids
        self.entries = entries
        self.spelled = spelled
        # The hash up to behind the last entry, and how many bytes that was. What comes after is
        # short, so that what only renews costs no more than that.
        self._begun = begun
        self._length = 0

    def copy(self) -> _Standing:
        """The same, to be changed."""
        copied = _Standing([*self.ids], [*self.entries], [*self.spelled], self._begun)
        copied._length = self._length
        return copied

    def rows(self) -> Iterator[tuple[Entry, bytes]]:
        """Each entry with how it is spelled."""
        return zip(self.entries, self.spelled, strict=True)

    def in_order(self) -> _Standing:
        """The same in the order of their ids: itself, if it is so."""
        ids = sorted(self.ids)
        if ids == self.ids:
            return self
        rows = sorted(self.rows(), key=lambda row: row[0].id)
        return _Standing(ids, [row[0] for row in rows], [row[1] for row in rows])

    def place(self, entry_id: str) -> int | None:
        """Where the entry with that id stands; None if there is none."""
        at = bisect_left(self.ids, entry_id)
        return at if at < len(self.ids) and self.ids[at] == entry_id else None

    def add(self, entry: Entry, spelled: bytes) -> None:
        """Put one more where its id belongs. Raises ValueError if there is one with that id."""
        at = bisect_left(self.ids, entry.id)
        if at < len(self.ids) and self.ids[at] == entry.id:
            raise ValueError("two entries with one id")

        self.ids.insert(at, entry.id)
        self.entries.insert(at, entry)
        self.spelled.insert(at, spelled)
        self._begun = None

    def drop(self, entry_id: str) -> Entry:
        """Take one off. Raises ValueError if there is none with that id."""
        at = self.place(entry_id)
        if at is None:
            raise ValueError("it drops an entry that is not there")

        del self.ids[at]
        del self.spelled[at]
        self._begun = None
        return self.entries.pop(at)

    def pieces(self) -> Iterator[bytes]:
        """The JSON object as it is spelled, up to behind the last entry."""
        yield _HEAD
        for at in range(0, len(self.spelled), _PIECE):
            piece = b",".join(self.spelled[at : at + _PIECE])
            yield b"," + piece if at else piece

    def digest(self, ends: _Ends) -> bytes:
        """The SHA-256 of the JSON object (36.1, 36.17). Other threads run meanwhile."""
        begun = self._hashed().copy()
        begun.update(ends.spelled())
        return begun.digest()

    def size(self, ends: _Ends) -> int:
        """How many bytes the snapshot has, signature and all."""
        self._hashed()
        return self._length + len(ends.spelled()) + signed.TAIL_BYTES

    def _hashed(self) -> primitives.Begun:
        """The hash up to behind the last entry, made where it is not known."""
        if self._begun is None:
            begun = primitives.sha256_begun()
            length = 0
            for piece in self.pieces():
                begun.update(piece)
                length += len(piece)
            self._begun, self._length = begun, length
        return self._begun


# --- reading --------------------------------------------------------------------------------------


class _Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of a snapshot (spec 36.2). A field that is not known here refuses it whole.

    Its entries are left as they came: each is decoded by itself, so that no thread waits for all.
    """

    entries: list[msgspec.Raw]
    exp: Integer  # when it is good no more, in seconds since the epoch
    iat: Integer  # when the operator said that this is all, likewise
    past: tuple[str, ...] | None = None  # the hashes of those before it, the latest first
    resumed: Resumed | None = None
    seq: Integer  # greater in each later snapshot
    v: Integer  # 1

    def ends(self) -> _Ends:
        """What it says beside its entries. Raises ValueError for what is no history (36.21)."""
        past, resumed = self.past or (), self.resumed
        if len(past) > PAST or not all(map(_is_hash, past)):
            raise ValueError(f"past may have at most {PAST} hashes")
        if resumed is not None and (self.past is None or resumed.seq > self.seq):
            raise ValueError("resumed names a later snapshot, or one without past")
        return _Ends(self.exp, self.iat, self.seq, self.past, resumed)


class _Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which snapshot: its number, and the SHA-256 of its JSON object in base64url."""

    hash: str
    seq: Integer

    @property
    def digest(self) -> bytes:
        """The hash as bytes. Raises ValueError for what is no base64url."""
        return b64decode(self.hash)

    @property
    def named(self) -> tuple[int, bytes]:
        """Both, to be compared. Raises as `digest`."""
        return self.seq, self.digest


class _Delta(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of a delta (spec 36.17)."""

    add: list[msgspec.Raw]
    after: _Mark  # the snapshot that it applies to
    drop: list[str]  # ids of entries
    exp: Integer  # of the snapshot that it gives, and so below
    gives: _Mark
    iat: Integer
    v: Integer  # 1


_decode = msgspec.json.Decoder(_Snapshot).decode
_decode_delta = msgspec.json.Decoder(_Delta).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def _signed_body(data: bytes, operators: Iterable[bytes], label: bytes) -> bytes | None:
    """The body of what one of these keys signed under the label, or None."""
    try:
        body, signature = signed.split(data)
    except EncodingError:
        return None
    message = label + primitives.sha256(body)
    if any(primitives.signed(operator, message, signature) for operator in operators):
        return body
    return None


def _read(body: bytes, vocabulary: Vocabulary) -> Overlay:
    """The overlay that a body spells. Raises what is `UNREADABLE`."""
    snapshot = _decode(body)
    if snapshot.v != 1:
        raise ValueError(f"this server does not know version {snapshot.v}")

    # Entry by entry: between two of them any other thread may run.
    entries: list[Entry] = []
    spelled: list[bytes] = []
    links: dict[str, Link] = {}
    for raw in snapshot.entries:
        text = bytes(raw)
        entry = read_entry(text, links, vocabulary)
        entries.append(entry)
        spelled.append(text)

    # 36.4. Links are kept by entry id: of two with one id, one would restrict to what the other
    # says.
    ids = [entry.id for entry in entries]
    if len(set(ids)) < len(ids):
        raise ValueError("two entries with one id")

    ends = snapshot.ends()
    came = _Standing(ids, entries, spelled)
    standing = came.in_order()
    opened = Overlay(standing, Index.of(entries), links, ends, entries)

    # 36.2. The typed decoder takes what is no canonical JSON. Each entry was spelled again when it
    # was read; what is around them is spelled by the hash: it is that of what came, or it is not.
    spelling = opened.digest if standing is came else came.digest(ends)
    if spelling != primitives.sha256(body):
        raise ValueError("it is not canonical JSON")
    return opened


def _opened_delta(data: bytes, operators: Iterable[bytes]) -> _Delta:
    """What a delta says that one of these keys signed. Its entries are read where it is applied.

    Raises OverlayError, and nothing else for any data.
    """
    body = None
    if type(data) is bytes and len(data) <= MAX_BYTES:
        body = _signed_body(data, operators, _DELTA)
    if body is None:
        raise OverlayError("the delta is not signed by an operator that this server trusts")
    try:
        return _read_delta(body)
    except UNREADABLE as error:
        raise OverlayError(f"the delta cannot be read: {own_words(error)}") from None


def _read_delta(body: bytes) -> _Delta:
    """What the body of a delta says. Raises what is `UNREADABLE`."""
    delta = _decode_delta(body)
    if delta.v != 1:
        raise ValueError(f"this server does not know version {delta.v}")
    if _spelled_delta(delta) != body:
        raise ValueError("it is not canonical JSON")
    if delta.drop != sorted(set(delta.drop)):
        raise ValueError("its dropped entries are not in order")
    # Decoded here, so that what is no base64url is found here too.
    if not (len(delta.after.digest) == len(delta.gives.digest) == _DIGEST_BYTES):
        raise ValueError(f"a hash must be {_DIGEST_BYTES} bytes")
    return delta


def _spelled_delta(delta: _Delta) -> bytes:
    """The one spelling of a delta whose entries are spelled already."""
    return b'{"add":[%b],"after":%b,"drop":%b,"exp":%d,"gives":%b,"iat":%d,"v":1}' % (
        b",".join(bytes(raw) for raw in delta.add),
        _encode(delta.after),
        _encode(delta.drop),
        delta.exp,
        _encode(delta.gives),
        delta.iat,
    )


# --- writing --------------------------------------------------------------------------------------


class _Signer(Protocol):
    """An operator's key. Keys are beside this room, so it is named by what it does."""

    def sign(self, message: bytes) -> bytes: ...


def snapshot(
    key: _Signer,
    entries: Iterable[Entry],
    *,
    seq: int,
    issued_at: int,
    life: int = LIFE,
    past: Sequence[str] | None = None,
    resumed: Resumed | None = None,
) -> bytes:
    """A signed snapshot, good for `life` seconds from `issued_at` on.

    `seq` has to be greater than in any snapshot before, and `past` is the `next_past` of the one
    before; left out, it names none. The Operator sees to both. Does not check that readers can
    read the entries: `Overlay.open` does.

    Raises OverlayError for one that readers would refuse for its size, or for a number.
    """
    entries = list(entries)
    spelled = [spelled_with_care(entry) for entry in entries]
    standing = _Standing([entry.id for entry in entries], entries, spelled)
    ends = _ends(seq, issued_at, life, None if past is None else tuple(past), resumed)
    return _signed_whole(key, standing, ends)


def whole(key: _Signer, overlay: Overlay) -> bytes:
    """The snapshot that an overlay is, signed as a whole, in the order of ids.

    In the place of deltas that led to it: whoever has followed these has this one already.
    """
    return _signed_whole(key, overlay.standing, overlay.ends)


def _signed_whole(key: _Signer, standing: _Standing, ends: _Ends) -> bytes:
    """A snapshot of these entries. Raises OverlayError for one that is too large."""
    if standing.size(ends) > MAX_BYTES:
        raise OverlayError(
            f"the snapshot would be more than {MAX_BYTES} bytes: lift entries that are no longer "
            "needed"
        )
    body = b"".join((*standing.pieces(), ends.spelled()))
    return signed.attach(body, key.sign(_OVERLAY + standing.digest(ends)))


class MarkedDelta(NamedTuple):
    """A delta, with the marks of what it applies to and of what it gives: for a store."""

    delta: bytes
    after: bytes
    gives: bytes


def delta(
    key: _Signer,
    known: Overlay,
    *,
    drop: Iterable[str],
    add: Iterable[Entry],
    seq: int,
    issued_at: int,
    life: int = LIFE,
) -> MarkedDelta:
    """A signed delta that follows on an overlay: without some entries, and with some more.

    As `snapshot`, but for the entries that stay. Costs a hash of all of them, unless none changes.

    Raises OverlayError for entries that are not there or there already, for what readers would
    refuse for its size, and for a number.
    """
    past = known.ends.past_of_next(known.digest)
    ends = _ends(seq, issued_at, life, past, known.resumed)
    standing = known.standing.copy()

    # 36.17. Sorted by id: by code point, as Python compares text.
    dropped = sorted(set(drop))
    added = sorted(add, key=lambda entry: entry.id)
    spelled = [spelled_with_care(entry) for entry in added]
    try:
        for name in dropped:
            standing.drop(name)
        for entry, text in zip(added, spelled, strict=True):
            standing.add(entry, text)
    except ValueError as error:
        raise OverlayError(str(error)) from None

    # Here the result is hashed: readers will come to the same, or take none of it.
    gives = standing.digest(ends)
    body = _spelled_delta(
        _Delta(
            add=[msgspec.Raw(text) for text in spelled],
            after=_Mark(hash=b64encode(known.digest), seq=known.seq),
            drop=dropped,
            exp=ends.exp,
            gives=_Mark(hash=b64encode(gives), seq=seq),
            iat=ends.iat,
            v=1,
        )
    )
    if standing.size(ends) > MAX_BYTES or len(body) + signed.TAIL_BYTES > MAX_BYTES:
        raise OverlayError(
            f"the snapshot would be more than {MAX_BYTES} bytes: lift entries that are no longer "
            "needed"
        )
    signature = key.sign(_DELTA + primitives.sha256(body))
    return MarkedDelta(signed.attach(body, signature), known.digest, gives)


def _ends(
    seq: int,
    issued_at: int,
    life: int,
    past: tuple[str, ...] | None,
    resumed: Resumed | None,
) -> _Ends:
    """What a snapshot says beside its entries.

    Raises OverlayError for what readers would refuse.
    """
    # 36.2. After the last number there is none, and one that is larger no reader takes.
    if abs(seq) > MAX_INTEGER:
        raise OverlayError(f"snapshot numbers end before {seq}: start again with a new key")
    if max(abs(issued_at), abs(issued_at + life)) > MAX_INTEGER:
        raise OverlayError("the snapshot would expire beyond all times: give it a shorter life")
    return _Ends(issued_at + life, issued_at, seq, past, resumed)
