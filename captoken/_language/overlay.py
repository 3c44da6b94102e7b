"""The overlay: restrictions and revocations on tokens already out (spec, "Overlay").

    entry       a selector, and what it does to the tokens that it selects:
                revoked, or a link's worth of more caveats
    snapshot    all entries that stand, with a number that never goes back, signed as a whole
    Overlay     a snapshot whose signature held, indexed for verifiers

Revocation is the narrowest overlay. The rules of this file:

- Entries prohibit or say nothing, as caveats do. They grant nothing.
- Anybody may distribute a snapshot. One that was changed or cut is refused here, whole.
- One that is older than another is refused by whoever loads both. How old it is verifiers ask.
- An entry that cannot be read refuses the whole snapshot: passed over, it would be a restriction
  that is lost, and nobody would hear (spec 36.3).
- A request pays for looking up the keys of its token, whatever the number of entries.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypedDict

import msgspec

from captoken._format import names, primitives, signed
from captoken._format.encoding import (
    LIMITS,
    MAX_INTEGER,
    EncodingError,
    Integer,
    b64decode,
    encode_json,
)
from captoken._format.errors import OverlayError
from captoken._format.public_keys import signing_key
from captoken._format.root import RootRecord
from captoken._language.caveats import V1, Vocabulary
from captoken._language.links import BadLink, Link, is_about_requests, read_link

LIFE = 3600  # seconds that a snapshot is good for; verifiers have a tighter bound of their own
MAX_BYTES = 1 << 26  # of a snapshot
_ID_BYTES = 16  # of a token or a link
_OVERLAY = primitives.label("overlay")
# 16 bytes in canonical base64url (1.2).
_is_id = re.compile("[A-Za-z0-9_-]{21}[AQgw]").fullmatch


# --- which tokens ---------------------------------------------------------------------------------


class SelectorFacts(msgspec.Struct, frozen=True):
    """What selectors ask about a token. Made once for each token, since its keys are found then.

        facts = SelectorFacts(root, link_ids, task, holders)
        if overlay.touches(facts.keys):
            entries = overlay.on(facts, now)

    `keys` is everything that an entry on such a token can be filed under: its ids, its names, its
    task and every task above. It is derived, whatever is given.

    Made by a verifier, for a token whose signature held: what an unverified one says of itself
    selects nothing. Does not check that.
    """

    issued: RootRecord
    links: Sequence[bytes]  # link ids, as bytes
    task: str
    agents: Sequence[str]  # all that have held it
    keys: tuple[str | bytes, ...] = ()

    def __post_init__(self) -> None:
        issued = self.issued
        keys = (
            issued.token_id,
            issued.subject,
            issued.key_id,
            *self.agents,
            *self.links,
            self.task,
            *_tasks_above(self.task),
        )
        msgspec.structs.force_setattr(self, "keys", keys)


def _tasks_above(task: str) -> list[str]:
    """Of `a/b/c`: `a/b` and `a`. An entry on any of these is on the task too."""
    above: list[str] = []
    at = task.rfind("/")
    while at > 0:
        above.append(task[:at])
        at = task.rfind("/", 0, at)
    return above


class Selector(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    kw_only=True,
):
    """Which tokens: those for which all that is stated holds (spec 36.5).

    At least one thing is stated:

    - `token` is a token id, and selects its whole tree.
    - `link` is a link id, and selects that link and all below.
    - `task` selects that task and all below.
    - `agent` selects what that agent has held, then or before.
    - `subject` and `kid` are those of the root record.
    - `issued_before` is in seconds since the epoch, and leaves out that second itself.

    `agent` goes by the names that holders wrote: it finds who was named, not who has the text. What
    has to stop for certain is selected by something else (spec 36.15).

    Does not check that there is such a token. Raises TypeError or ValueError for what is no id or
    name, and for nothing at all.
    """

    agent: str | None = None
    issued_before: Integer | None = None
    kid: str | None = None
    link: str | None = None
    subject: str | None = None
    task: str | None = None
    token: str | None = None

    def __post_init__(self) -> None:
        given = msgspec.structs.asdict(self)
        stated = {what: value for what, value in given.items() if value is not None}
        # Nothing stated would hold for every token: whoever forgot a keyword would stop them all.
        if not stated:
            raise ValueError(
                "an entry selects something:"
                " token, link, task, agent, subject, kid or issued_before"
            )

        for what, value in stated.items():
            if what == "task":
                names.task(value)
            elif what in ("link", "token"):
                _check_id(value, what)
            elif what != "issued_before":
                names.name(value, what)
            elif type(value) is not int:
                kind = type(value).__name__
                raise TypeError(f"issued_before must be seconds as int, not {kind}")

    @property
    def link_id(self) -> bytes | None:
        """The link id that is selected, as bytes; decoded at each look."""
        return None if self.link is None else b64decode(self.link)

    def selects(self, facts: SelectorFacts) -> bool:
        """Is the token one of those? Decodes the link id each time: `Overlay.on` does not."""
        return _selects(self, self.link_id, facts)


def _check_id(value: Any, what: str) -> None:
    """Raise TypeError or ValueError for what is no id."""
    if len(b64decode(names.exact_str(value, what))) != _ID_BYTES:
        raise ValueError(f"a {what} id is 22 characters of base64url")


def _selects(select: Selector, link_id: bytes | None, facts: SelectorFacts) -> bool:
    """Does all hold that is stated? `link_id` is the selector's own, decoded.

    What is not stated is not asked, so that each line is "not stated, or it holds".
    """
    issued = facts.issued
    return (
        (select.token is None or select.token == issued.token_id)
        and (link_id is None or link_id in facts.links)
        and (select.task is None or names.at_or_below(facts.task, select.task))
        and (select.agent is None or select.agent in facts.agents)
        and (select.subject is None or select.subject == issued.subject)
        and (select.kid is None or select.kid == issued.key_id)
        and (select.issued_before is None or issued.issued_at < select.issued_before)
    )


class Select(TypedDict, total=False):
    """The keywords that select."""

    agent: str
    issued_before: int
    kid: str
    link: str
    subject: str
    task: str
    token: str


# --- entries and snapshots ------------------------------------------------------------------------


class Entry(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    kw_only=True,
):
    """One restriction: whom it is on, what it does, and who did it, when and why, until when.

    As it stands in a snapshot (spec 36.4). An Operator makes it. `id` is by what it is lifted
    again. `by` and `why` are what an operator wrote, for people: text to be escaped where it is
    shown. Its fields stand in the order in which a snapshot spells them.

    `asked` is there if a holder asked for it: the ids of the links by which the token was handed on
    to that holder, from the first down. So none for the agent that it was minted for.
    """

    asked: tuple[str, ...] | None = None
    at: Integer  # when it was made, in seconds since the epoch
    by: str
    id: str
    link: dict[str, Any] | None = None  # the caveats, as a link has them; None: revoked
    select: Selector
    until: Integer | None = None  # when it ends, likewise; None: not by itself
    why: str

    def stands(self, now: int) -> bool:
        """Has it not run out? It ends at the first second of `until`."""
        return self.until is None or now < self.until


class _Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of a snapshot (spec 36.2). A field that is not known here refuses it whole."""

    entries: list[Entry]
    exp: Integer  # when it is good no more, in seconds since the epoch
    iat: Integer  # when the operator said that this is all, likewise
    seq: Integer  # greater in each later snapshot
    v: Integer  # 1


_decode = msgspec.json.Decoder(_Snapshot).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def size_of(entry: Entry) -> int:
    """How many bytes of a snapshot an entry takes."""
    return len(_encode(entry))


class _Filed(msgspec.Struct, frozen=True):
    """An entry as an overlay keeps it: what has to be decoded in it is decoded once.

    So a request pays for none of it.
    """

    entry: Entry
    link_id: bytes | None  # of its selector

    def is_on(self, facts: SelectorFacts, now: int) -> bool:
        """Does it stand, and is it on that token?"""
        return self.entry.stands(now) and _selects(self.entry.select, self.link_id, facts)

    @property
    def key(self) -> str | bytes | None:
        """What it is filed under: the one thing stated that selects the fewest tokens.

        None for an entry by `issued_before` alone, which any token may have to be asked about.
        """
        select = self.entry.select
        stated = (
            self.link_id,
            select.token,
            select.subject,
            select.agent,
            select.task,
            select.kid,
        )
        return next((value for value in stated if value is not None), None)


class Overlay:
    """A snapshot whose signature held.

        overlay = Overlay.open(data, [operator_public])
        verifier = Verifier(keyring, overlay=overlay)

    - `open` is the only way to one. A Feed keeps the newest at hand.
    - `seq` is its number, which never goes back from one snapshot to the next.
    - `issued_at` is when the operator last said that this is all, `expires_at` when it is good no
      more, in seconds since the epoch. Nothing here asks the time: verifiers do.

    Immutable in use, shared freely between threads and with forked children. To open one costs a
    signature and the decoding of all entries; it is kept in memory whole.
    """

    __slots__ = ("_anywhere", "_filed", "_links", "entries", "expires_at", "issued_at", "seq")

    entries: tuple[Entry, ...]
    seq: int
    issued_at: int
    expires_at: int

    def __init__(self, snapshot: _Snapshot, links: dict[str, Link]) -> None:
        self.entries = tuple(snapshot.entries)
        self.seq = snapshot.seq
        self.issued_at = snapshot.iat
        self.expires_at = snapshot.exp
        self._links = links  # what narrowing entries say, by entry id

        # An entry that is found under a key is asked in full, so one table serves for all kinds of
        # keys: a task and an agent of one name are told apart then. Each stands in one place, under
        # the rarest of its keys.
        self._filed: dict[str | bytes, list[_Filed]] = {}
        self._anywhere: list[_Filed] = []  # what states no key at all
        for entry in self.entries:
            filed = _Filed(entry, entry.select.link_id)
            key = filed.key
            if key is None:
                self._anywhere.append(filed)
            else:
                self._filed.setdefault(key, []).append(filed)

    @classmethod
    def open(
        cls,
        data: bytes,
        operators: Iterable[bytes | str],
        *,
        vocabulary: Vocabulary = V1,
    ) -> Overlay:
        """The overlay in a snapshot that one of the operators signed (spec 36.1 to 36.6).

        `operators` are public keys. `vocabulary` is the verifier's: an entry that uses a caveat
        that is not in it is refused, and the whole snapshot with it. An entry that was passed over
        would be a restriction that is lost, and nobody would hear.

        Does not ask whether it is the newest, or how old it is: a Feed and verifiers do. Raises
        OverlayError, and nothing else for any data. Raises TypeError or ValueError for what is no
        public key.
        """
        if type(data) is not bytes:
            raise OverlayError(f"a snapshot is bytes, not {type(data).__name__}")
        trusted = [signing_key(operator, "operator") for operator in operators]
        # Before it is hashed, and so before a stranger can make this work.
        if len(data) > MAX_BYTES:
            raise OverlayError(f"a snapshot of more than {MAX_BYTES} bytes")

        # The signature comes before the meaning: nothing is decoded that no operator signed.
        body = _signed_body(data, trusted)
        if body is None:
            raise OverlayError("no operator that is trusted here signed the snapshot")
        try:
            snapshot, links = _read(body, vocabulary)
        except (msgspec.DecodeError, UnicodeError, RecursionError, TypeError, ValueError) as error:
            raise OverlayError(f"the snapshot cannot be read: {error}") from None
        return cls(snapshot, links)

    def touches(self, keys: Iterable[str | bytes]) -> bool:
        """May an entry be on a token with these keys (`SelectorFacts.keys`)?

        A no is sure, and is had sooner than from `on`.
        """
        return bool(self._anywhere) or not self._filed.keys().isdisjoint(keys)

    def on(self, facts: SelectorFacts, now: int) -> list[Entry]:
        """The entries on a token that still stand, each once, in no order to rely on.

        Found by the token's keys, and then asked in full. `now` is in seconds since the epoch.
        """
        # Each entry is filed once. A token may have a key twice, as an agent of its task's name.
        found = [*self._anywhere]
        for key in dict.fromkeys(facts.keys):
            found += self._filed.get(key, ())
        return [filed.entry for filed in found if filed.is_on(facts, now)]

    def link(self, entry: Entry) -> Link | None:
        """What a narrowing entry restricts to; None if it revokes.

        For entries of this overlay alone: of another's, it would say None.
        """
        return self._links.get(entry.id)

    def __repr__(self) -> str:
        return f"<Overlay {self.seq}, {len(self.entries)} entries>"


# --- reading and writing --------------------------------------------------------------------------


def _message(body: bytes) -> bytes:
    """What an operator signs (spec 36.1)."""
    return _OVERLAY + primitives.sha256(body)


def _signed_body(data: bytes, operators: Iterable[bytes]) -> bytes | None:
    """The body of a snapshot that one of these keys signed, or None."""
    try:
        body, signature = signed.split(data)
    except EncodingError:
        return None
    message = _message(body)
    if any(primitives.signed(operator, message, signature) for operator in operators):
        return body
    return None


def _read(body: bytes, vocabulary: Vocabulary) -> tuple[_Snapshot, dict[str, Link]]:
    """What a body says, and what its narrowing entries restrict to, by entry id.

    The typed decoder takes what is no canonical JSON: so encode again, and compare. Raises what
    msgspec raises, RecursionError, TypeError and ValueError.
    """
    snapshot = _decode(body)
    if snapshot.v != 1:
        raise ValueError(f"version {snapshot.v} is not known here")
    if _spelled(snapshot, body.isascii()) != body:
        raise ValueError("it is not canonical JSON")

    # Links are kept by entry id: of two with one id, one would restrict to what the other says.
    ids = {entry.id for entry in snapshot.entries}
    if len(ids) < len(snapshot.entries):
        raise ValueError("two entries with one id")

    for entry in snapshot.entries:
        if entry.asked is not None:
            _check_asked(entry)
    links = {
        entry.id: _read_restriction(entry.link, vocabulary)
        for entry in snapshot.entries
        if entry.link is not None
    }
    return snapshot, links


def _check_asked(entry: Entry) -> None:
    """Raise ValueError unless that is what a holder can ask for (36.4).

    Whoever makes room relies on it: such an entry revokes, and says of which tree and of whom.
    """
    select = entry.select
    others = (select.agent, select.issued_before, select.kid, select.subject, select.task)
    if entry.link is not None or select.token is None or any(one is not None for one in others):
        raise ValueError("what a holder asked for revokes a token, or a link of it")
    asked = entry.asked or ()
    if len(asked) > LIMITS.links or not all(map(_is_id, asked)):
        raise ValueError(f"asked has at most {LIMITS.links} link ids")


def _spelled(snapshot: _Snapshot, in_ascii: bool) -> bytes:
    """The one spelling of a snapshot. `in_ascii` says that it is in ASCII as it came."""
    # Then all its keys are, and these sort alike by code point and as RFC 8785 has it.
    if in_ascii:
        return _encode(snapshot)
    return encode_json(_as_json(snapshot))


def _as_json(snapshot: _Snapshot) -> Any:
    """The same as JSON has it: objects, arrays, and no tuples."""
    return msgspec.json.decode(msgspec.json.encode(snapshot))


def _read_restriction(stated: Mapping[str, Any], vocabulary: Vocabulary) -> Link:
    """The caveats of an entry (spec 36.6).

    Raises ValueError for a link that cannot be read, or that speaks of more than requests: then it
    could do more than restrict, or ask for what no overlay has.
    """
    link = read_link(encode_json(stated), vocabulary)
    if isinstance(link, BadLink):
        raise ValueError(f"an entry's link: {link.text}")
    if not is_about_requests(link):
        raise ValueError("an entry's link speaks of task, lineage or keys, or counts")
    return link


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
) -> bytes:
    """A signed snapshot, good for `life` seconds from `issued_at` on.

    `seq` has to be greater than in any snapshot before: the Operator sees to it. Does not check
    that readers can read the entries: `Overlay.open` does.

    Raises OverlayError for one that readers would refuse for its size, or for a number.
    """
    # 36.2. After the last number there is none, and one that is larger no reader takes.
    if abs(seq) > MAX_INTEGER:
        raise OverlayError(f"no snapshot has the number {seq}: a new key begins anew")
    if max(abs(issued_at), abs(issued_at + life)) > MAX_INTEGER:
        raise OverlayError("a snapshot whose end no reader can read")

    stated = _Snapshot(
        entries=list(entries),
        exp=issued_at + life,
        iat=issued_at,
        seq=seq,
        v=1,
    )
    body = encode_json(_as_json(stated))
    if len(body) + signed.TAIL_BYTES > MAX_BYTES:
        raise OverlayError(f"a snapshot of more than {MAX_BYTES} bytes")
    return signed.join(body, key.sign(_message(body)))
