"""Links: what one step of attenuation adds, decoded (spec, "Links", "Domains").

A link is one JSON object: caveats about accesses, and what depends on the position in the chain (`from`, `to`, `n`,
`depth`, `delegate_only`, `key`), which `captoken.lineage` judges. Every link of a token must hold. A link that hands a
bound token on carries a signature after the object (spec, "Holder binding").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from captoken._format import names, primitives
from captoken._format.encoding import EncodingError, Integer, b64decode, decode_json
from captoken._format.packet import RawCaveat
from captoken._format.spelling import spelled
from captoken._language.access import Access
from captoken._language.caveats import (
    EARLY,
    Audience,
    Caveat,
    Expires,
    Operations,
    Situation,
    Tables,
    Vocabulary,
    prohibited,
)
from captoken._language.reasons import Reason


class Link(msgspec.Struct, frozen=True):
    """What one step of attenuation adds, decoded: its caveats, and what depends on the position.

    A caveat is early if it is of version 1 and looks at the token and the server alone: `aud`,
    `exp`, `fresh`, `nbf`, `task`. A verifier asks all early caveats of a token before any late one.
    Both tuples are in the order of their keys.
    """

    early: tuple[Caveat, ...] = ()
    late: tuple[Caveat, ...] = ()
    sender: str | None = None  # `from`; with `receiver`, `to`, a delegation
    receiver: str | None = None
    depth: int | None = None
    delegate_only: bool = False
    key: bytes | None = None  # the Ed25519 key that the token is bound to from here on
    signature: bytes | None = None  # the custody signature by the key that it was bound to before
    domains: frozenset[str] = frozenset()  # data, tool: those that its caveats speak of
    counts: bool = False  # it has `uses` or `budget`, which a ledger counts
    settles: bool = False  # it has `aud` or `task`, which narrow the facts for later links

    @property
    def caveats(self) -> tuple[Caveat, ...]:
        """All its caveats, in the order of their keys."""
        if not self.early or not self.late:
            return self.early or self.late
        return tuple(sorted((*self.early, *self.late), key=_key_of))


def _key_of(caveat: Caveat) -> str:
    return caveat.key


class ThirdParty(Link, frozen=True, kw_only=True):
    """A third-party caveat: by itself it restricts nothing, but a token is worth nothing without the discharge."""

    cid: bytes


class BadLink(msgspec.Struct, frozen=True):
    """A link that prohibits everything: unreadable, or opaque because of a key that is not known here."""

    code: str  # unreadable_link or unknown_caveat
    text: str
    sender: str | None = (
        None  # who it says it delegates, where that can be read: for those who hold and show the token
    )
    receiver: str | None = None
    key: bytes | None = None


def is_about_requests(link: Link) -> bool:
    """Does it say nothing of the token itself: no task, lineage or key, and nothing that is counted? So what a discharge or
    an overlay says of a request only ever restricts."""
    positioned = (
        link.receiver is not None
        or link.key is not None
        or link.depth is not None
        or link.delegate_only
    )
    return not (positioned or link.counts or any(caveat.key == "task" for caveat in link.early))


def settled(situation: Situation, link: Link) -> Situation:
    """The facts for the links after `link`: what its `aud` and `task` leave (spec, "Audience and task")."""
    audiences, task = situation.audiences, situation.task
    for caveat in link.early:
        if caveat.key == "aud":
            audiences = audiences.intersection(caveat.value)
        elif caveat.key == "task":
            task = caveat.value if names.at_or_below(caveat.value, task) else task
    return Situation(situation.now, situation.leeway, audiences, task, situation.overlay_age)


def early_prohibits(link: Link, situation: Situation) -> Reason | None:
    """Why `link` prohibits every access for now, or None: its early caveats by key (spec, "Verification")."""
    return prohibited(link.early, None, situation) if link.early else None


def late_prohibits(link: Link, access: Access | None, situation: Situation) -> Reason | None:
    """Why `link` prohibits `access`, or None: its late caveats by key, then its domains (spec, "Domains").

    Without an access only those late caveats are asked that do not ask about one.
    """
    reason = prohibited(link.late, access, situation) if link.late else None
    if reason is not None or access is None or not link.domains:
        return reason
    return _closed(link, access)


def link_prohibits(link: Link, access: Access | None, situation: Situation) -> Reason | None:
    """Why `link` by itself prohibits `access`, or None: its caveats by key, then its domains."""
    reason = prohibited(link.caveats, access, situation)
    if reason is not None or access is None or not link.domains:
        return reason
    return _closed(link, access)


def _closed(link: Link, access: Access) -> Reason | None:
    """Why a link that names a domain closes `access`, or None (spec, "Domains")."""
    if access.table is None and access.tool is None:
        return Reason("domain", "restricted to tables or tools, and the access states neither")
    if access.table is not None and "data" not in link.domains:
        return Reason("domain", "restricted to tools: tables are closed")
    if access.tool is not None and "tool" not in link.domains:
        return Reason("domain", "restricted to tables: tools are closed")
    return None


# --- reading ---------------------------------------------------------------------------------------------------------

# from, to and n, joined by line feeds, which none of them can have.
_NONCE = "[A-Za-z0-9_-]{11}"
_is_nonce = re.compile(_NONCE).fullmatch
_is_delegation = re.compile(rf"{names.NAME}\n{names.NAME}\n{_NONCE}").fullmatch
_DOMAINS: dict[tuple[bool, bool], frozenset[str]] = {
    (False, False): frozenset(), (True, False): frozenset(("data",)),
    (False, True): frozenset(("tool",)), (True, True): frozenset(("data", "tool")),
}  # fmt: skip
_HAND_OVER = ("from", "to", "n")
_POSITION = frozenset((*_HAND_OVER, "depth", "delegate_only", "key"))
_SIGNATURE_CHARS = 86


def _delegation(sender: Any, receiver: Any, nonce: Any) -> tuple[str, str]:
    """Who hands on to whom. Raises TypeError if one of the three is missing or no string, ValueError if it is no name."""
    if _is_delegation("\n".join((sender, receiver, nonce))) is None:
        raise ValueError("from and to must be names, n 11 characters of base64url")
    return sender, receiver


def _key(text: Any) -> bytes:
    """The Ed25519 key in a link. Raises TypeError or ValueError."""
    key = b64decode(names.exact_str(text, "key"))
    if not primitives.is_signing_key(key):
        raise ValueError("key must be an Ed25519 key, canonical and not of low order")
    return key


def _link(stated: dict[str, Any], signature: bytes | None, vocabulary: Vocabulary) -> Link:
    """The link that a JSON object states. Raises TypeError or ValueError, or whatever a caveat of an embedder raises."""
    if not stated:
        raise ValueError("a link that says nothing")
    if signature is not None and "key" not in stated:
        raise ValueError("a signature on a link that binds to no key")
    sender = receiver = depth = bound_to = None
    delegate_only = False
    data = tool = False
    early: list[Caveat] = []
    late: list[Caveat] = []
    kinds = vocabulary.kinds
    for key, value in stated.items():
        if key in kinds:
            kind = kinds[key]
            (early if key in EARLY else late).append(kind(value))
            data, tool = data or kind.domain == "data", tool or kind.domain == "tool"
        elif key == "depth":
            if type(value) is not int or value < 0:
                raise ValueError("depth must be an integer, not negative")
            depth = value
        elif key == "delegate_only":
            if value is not True:
                raise ValueError("delegate_only is true or left out")
            delegate_only = True
        elif key == "key":
            bound_to = _key(value)
        elif key not in _POSITION:
            raise ValueError("a key that is not known")
    counts = "uses" in stated or "budget" in stated
    if (
        "from" in stated or "to" in stated or ("n" in stated and not counts)
    ):  # the three come together
        sender, receiver = _delegation(*map(stated.get, _HAND_OVER))
    elif counts and _is_nonce(names.exact_str(stated.get("n"), "n")) is None:
        raise ValueError("n must be 11 characters of base64url")
    settles = "aud" in stated or "task" in stated
    return Link(
        tuple(early), tuple(late), sender, receiver, depth, delegate_only, bound_to, signature, _DOMAINS[data, tool], counts, settles
    )  # fmt: skip


class _Plain(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The link that most tokens are made of; its keys in canonical order."""

    aud: list[str] | None = None
    exp: Integer | None = None
    sender: str | None = msgspec.field(default=None, name="from")
    key: str | None = None
    n: str | None = None
    operations: list[str] | None = None
    tables: list[str] | None = None
    to: str | None = None


_decode_plain = msgspec.json.Decoder(_Plain).decode
_encode_plain = msgspec.json.Encoder().encode


def _plain_link(body: bytes) -> Link | None:
    """The link that `body` spells if it is a plain one: the same as the general way reads, at half the time. Else None."""
    try:
        body, signature = split_signature(body)
        stated = _decode_plain(body)
        if _encode_plain(stated) != body:
            return None
        bound_to = _key(stated.key) if stated.key is not None else None
        if signature is not None and bound_to is None:
            return None
        early: list[Caveat] = []
        late: list[Caveat] = []
        if stated.aud is not None:
            early.append(Audience(stated.aud))
        if stated.exp is not None:
            early.append(Expires(stated.exp))
        if stated.operations is not None:
            late.append(Operations(stated.operations))
        if stated.tables is not None:
            late.append(Tables(stated.tables))
        sender, receiver, nonce = stated.sender, stated.to, stated.n
        if sender is not None or receiver is not None or nonce is not None:
            sender, receiver = _delegation(sender, receiver, nonce)
        elif not early and not late and bound_to is None:
            return None
    except (msgspec.DecodeError, UnicodeError, RecursionError, TypeError, ValueError):
        return None
    data = stated.operations is not None or stated.tables is not None
    return Link(
        tuple(early), tuple(late), sender, receiver, None, False, bound_to, signature, _DOMAINS[data, False], False, stated.aud is not None
    )  # fmt: skip


def read_link(body: bytes, vocabulary: Vocabulary) -> Link | BadLink:
    """The link that `body` spells, or why it prohibits everything. Never raises (spec, "Links")."""
    return _plain_link(body) or _any_link(body, vocabulary)


def read_links(caveats: Iterable[RawCaveat], vocabulary: Vocabulary) -> list[Link | BadLink]:
    """Every link of a chain. A signature on a link is readable only where the token is bound to a key by then."""
    links: list[Link | BadLink] = []
    for cid, vid in caveats:
        links.append(ThirdParty(cid=cid) if vid else read_link(cid, vocabulary))
    for at, link in enumerate(links):
        if link.key is not None:  # the first that binds it: no key was there to sign
            if isinstance(link, Link) and link.signature is not None:
                why = "a signature, and no key to sign it"
                links[at] = BadLink("unreadable_link", why, link.sender, link.receiver, link.key)
            break
    return links


def split_signature(body: bytes) -> tuple[bytes, bytes | None]:
    """The JSON of a link, and its custody signature if it has one. Raises EncodingError for one that is none."""
    if body[-1:] == b"}":
        return body, None
    stated, signature = body[: -_SIGNATURE_CHARS - 1], body[-_SIGNATURE_CHARS - 1 :]
    if signature[:1] != b".":
        raise EncodingError("not canonical JSON")
    return stated, b64decode(signature[1:].decode("latin-1"))


def unknown_keys(stated: Mapping[str, Any], vocabulary: Vocabulary) -> list[str]:
    """The keys of a link that make it opaque."""
    return sorted(stated.keys() - vocabulary.kinds.keys() - _POSITION)


def _any_link(body: bytes, vocabulary: Vocabulary) -> Link | BadLink:
    try:
        text, signature = split_signature(body)
        stated = decode_json(text)
    except EncodingError as error:
        return BadLink("unreadable_link", str(error))
    try:
        return _link(stated, signature, vocabulary)
    except Exception as error:  # a value that is not one: ours raise TypeError and ValueError, an embedder's anything
        problem = (
            str(error)
            if type(error) in (TypeError, ValueError, EncodingError)
            else type(error).__name__
        )
    sender = receiver = key = None
    with suppress(TypeError, ValueError):
        sender, receiver = _delegation(*map(stated.get, _HAND_OVER))
    with suppress(TypeError, ValueError):
        key = _key(stated.get("key"))
    unknown = unknown_keys(stated, vocabulary)
    if unknown:  # then it is opaque, whatever else is wrong with it
        return BadLink("unknown_caveat", f"unknown here: {spelled(unknown)}", sender, receiver, key)
    return BadLink("unreadable_link", problem, sender, receiver, key)
