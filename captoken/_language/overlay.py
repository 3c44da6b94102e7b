"""The overlay: restrictions and revocations that an operator adds to tokens already out (spec, "Overlay").

    entry       a selector, and what it does to the tokens that it selects: revoked, or a link's worth of more caveats
    snapshot    all entries that stand, with a number that never goes back, signed as a whole
    Overlay     a snapshot whose signature held, indexed for verifiers

Revocation is the narrowest overlay. Distribution is anybody's affair: a snapshot that was changed, cut or replaced by an
older one is refused by whoever loads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import msgspec

from captoken._format import names, primitives, signed
from captoken._format.encoding import (
    EncodingError,
    Integer,
    b64decode,
    encode_json,
)
from captoken._format.errors import OverlayError
from captoken._format.public_keys import signing_key
from captoken._language.caveats import V1, Vocabulary
from captoken._language.links import BadLink, Link, is_about_requests, read_link
from captoken.keys.secret import OperatorKey

LIFE = (
    3600  # seconds that a snapshot says it is good for; verifiers have a tighter bound of their own
)
MAX_BYTES = 1 << 26  # of a snapshot
_OVERLAY = primitives.label("overlay")


class Selector(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True
):
    """Which tokens: those for which all that is stated holds. At least one thing is.

    `token`: a token id, the whole tree. `link`: a link id, that link and all below. `task`: that task and all below.
    `agent`: whoever has held the token, then or before. `subject`, `kid`: of the root record. `issued_before`: seconds.
    """

    agent: str | None = None
    issued_before: Integer | None = None
    kid: str | None = None
    link: str | None = None
    subject: str | None = None
    task: str | None = None
    token: str | None = None

    def __post_init__(self) -> None:
        for what in ("agent", "kid", "subject"):
            if getattr(self, what) is not None:
                names.name(getattr(self, what), what)
        if self.task is not None:
            names.task(self.task)
        if self.issued_before is not None and type(self.issued_before) is not int:
            raise TypeError(
                f"issued_before must be seconds as int, not {type(self.issued_before).__name__}"
            )
        for what in ("link", "token"):
            if (
                getattr(self, what) is not None
                and len(b64decode(names.exact_str(getattr(self, what), what))) != 16
            ):
                raise ValueError(f"a {what} id is 22 characters of base64url")
        if not any(getattr(self, what) is not None for what in self.__struct_fields__):
            raise ValueError(
                "an entry selects something: token, link, task, agent, subject, kid or issued_before"
            )

    def selects(self, facts: Facts) -> bool:
        """Is the token one of those?"""
        return (
            (self.token is None or self.token == facts.token)
            and (self.link is None or b64decode(self.link) in facts.links)
            and (self.task is None or names.at_or_below(facts.task, self.task))
            and (self.agent is None or self.agent in facts.agents)
            and (self.subject is None or self.subject == facts.subject)
            and (self.kid is None or self.kid == facts.kid)
            and (self.issued_before is None or facts.issued_at < self.issued_before)
        )


class Select(TypedDict, total=False):
    """A Selector as keywords."""

    agent: str
    issued_before: int
    kid: str
    link: str
    subject: str
    task: str
    token: str


class Facts(msgspec.Struct, frozen=True):
    """What a verified token says that selectors ask about."""

    token: str
    links: Sequence[bytes]  # link ids, as bytes
    task: str
    agents: Sequence[str]
    subject: str
    kid: str
    issued_at: int

    @property
    def keys(self) -> tuple[str | bytes, ...]:
        """Everything that an entry on such a token can be filed under."""
        return keys_of(self.token, self.links, self.task, self.agents, self.subject, self.kid)


def keys_of(
    token: str, links: Sequence[bytes], task: str, agents: Sequence[str], subject: str, kid: str
) -> tuple[str | bytes, ...]:
    """Of a token: its ids, its names, its task and every task above."""
    above: list[str] = []
    at = task.rfind("/")
    while at > 0:
        above.append(task[:at])
        at = task.rfind("/", 0, at)
    return (token, subject, kid, task, *agents, *links, *above)


class Entry(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True
):
    """One restriction: whom it is on, what it does, and who did it, when and why, until when."""

    at: Integer  # seconds since the epoch
    by: str
    id: str
    link: dict[str, Any] | None = None  # the caveats, as a link has them; None: revoked
    select: Selector
    until: Integer | None = None
    why: str

    def stands(self, now: int) -> bool:
        """Has it not run out?"""
        return self.until is None or now < self.until


class _Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    entries: list[Entry]
    exp: Integer
    iat: Integer
    seq: Integer
    v: Integer


_decode = msgspec.json.Decoder(_Snapshot).decode
_encode = msgspec.json.Encoder(order="sorted").encode


class Overlay:
    """A snapshot whose signature held. Immutable in use, shared freely between threads.

    `open` is the only way to one. `seq` never goes back; `issued_at` is when the operator last said that this is all.
    """

    __slots__ = ("_any", "_filed", "_keys", "_links", "entries", "expires_at", "issued_at", "seq")

    entries: tuple[Entry, ...]
    seq: int
    issued_at: int
    expires_at: int

    def __init__(self, snapshot: _Snapshot, links: dict[str, Link]) -> None:
        self.entries = tuple(snapshot.entries)
        self.seq, self.issued_at, self.expires_at = snapshot.seq, snapshot.iat, snapshot.exp
        self._links = links  # what narrowing entries say, by entry id
        # Each entry is filed under the one thing that selects the fewest tokens; what is left is asked in full.
        self._filed: dict[str, dict[Any, list[Entry]]] = {what: {} for what in _FILED}
        self._any: list[Entry] = []
        for entry in self.entries:
            what = next((what for what in _FILED if getattr(entry.select, what) is not None), None)
            if what is None:
                self._any.append(entry)
            else:
                key = getattr(entry.select, what)
                self._filed[what].setdefault(b64decode(key) if what == "link" else key, []).append(
                    entry
                )
        self._keys = frozenset(key for filed in self._filed.values() for key in filed)

    @classmethod
    def open(
        cls, data: bytes, operators: Iterable[bytes | str], *, vocabulary: Vocabulary = V1
    ) -> Overlay:
        """The overlay in a snapshot that one of the operators signed. Raises OverlayError, and nothing else for any data.

        Does not ask whether it is the newest, or how old it is: verifiers do.
        """
        if type(data) is not bytes:
            raise OverlayError(f"a snapshot is bytes, not {type(data).__name__}")
        trusted = [signing_key(operator, "operator") for operator in operators]
        if len(data) > MAX_BYTES:
            raise OverlayError(f"a snapshot of more than {MAX_BYTES} bytes")
        try:
            body, signature = signed.split(data)
        except EncodingError:
            body, signature = b"", b""
        message = _OVERLAY + primitives.sha256(body)
        if not any(primitives.signed(operator, message, signature) for operator in trusted):
            raise OverlayError("no operator that is trusted here signed the snapshot")
        try:
            snapshot = _decode(body)
            if snapshot.v != 1:
                raise ValueError(f"version {snapshot.v} is not known here")
            if (
                _encode(snapshot) if body.isascii() else encode_json(msgspec.to_builtins(snapshot))
            ) != body:
                raise ValueError("it is not canonical JSON")
            if len({entry.id for entry in snapshot.entries}) < len(snapshot.entries):
                raise ValueError("two entries with one id")
            links = {
                entry.id: _read(entry.link, vocabulary)
                for entry in snapshot.entries
                if entry.link is not None
            }
        except (msgspec.DecodeError, UnicodeError, RecursionError, TypeError, ValueError) as error:
            raise OverlayError(f"the snapshot cannot be read: {error}") from None
        return cls(snapshot, links)

    def touches(self, keys_: Sequence[str | bytes]) -> bool:
        """May an entry be on a token with these keys (`Facts.keys`)? A no is sure, and sooner to be had than from `on`."""
        return bool(self._any) or not self._keys.isdisjoint(keys_)

    def on(self, facts: Facts, now: int) -> list[Entry]:
        """The entries on a token, that still stand."""
        found = [*self._any]
        for key in dict.fromkeys(facts.keys):
            found += [entry for filed in self._filed.values() for entry in filed.get(key, ())]
        return [entry for entry in found if entry.stands(now) and entry.select.selects(facts)]

    def link(self, entry: Entry) -> Link | None:
        """What a narrowing entry restricts to; None if it revokes."""
        return self._links.get(entry.id)

    def __repr__(self) -> str:
        return f"<Overlay {self.seq}, {len(self.entries)} entries>"


_FILED = (
    "link",
    "token",
    "subject",
    "agent",
    "task",
    "kid",
)  # from what selects the fewest to what selects the most


def _read(stated: Mapping[str, Any], vocabulary: Vocabulary) -> Link:
    """The caveats of an entry. Raises ValueError for a link that cannot be read, or that speaks of more than requests."""
    link = read_link(encode_json(stated), vocabulary)
    if isinstance(link, BadLink):
        raise ValueError(f"an entry's link: {link.text}")
    if not is_about_requests(link):
        raise ValueError("an entry's link speaks of task, lineage or keys, or counts")
    return link


def snapshot(
    key: OperatorKey, entries: Iterable[Entry], *, seq: int, issued_at: int, life: int = LIFE
) -> bytes:
    """A signed snapshot. Raises OverlayError for one that readers would refuse for its size."""
    stated = _Snapshot(entries=list(entries), exp=issued_at + life, iat=issued_at, seq=seq, v=1)
    body = encode_json(msgspec.to_builtins(stated))
    if len(body) + signed.TAIL_BYTES > MAX_BYTES:
        raise OverlayError(f"a snapshot of more than {MAX_BYTES} bytes")
    return signed.join(body, key.sign(_OVERLAY + primitives.sha256(body)))
