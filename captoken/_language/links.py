"""Links: what one step of attenuation adds, decoded (spec, "Links", "Domains").

A link is one JSON object. It has caveats about accesses, and what depends on the position in the
chain (`from`, `to`, `n`, `depth`, `delegate_only`, `key`), which `lineage` judges. Every link of a
token must hold. A link that hands a bound token on carries a signature after the object (spec,
"Holder binding").

Reading and judging are two steps. `read_link` needs a vocabulary and no facts, and never raises: a
link that it cannot take becomes a `BadLink`. Judging needs facts, and no bytes.

    reading     read_links, read_link; words_of for the words alone
    judging     early_prohibits, then late_prohibits; `after` between links

Nothing here verifies a tag or a signature, and nothing here may run before the chain has held.
*Why:* a hook of an embedder's would else run on bytes that anybody can send. Holders are the
exception, who read their own token to show it.

A link is small and bounded by the token's text, so that nothing here counts or measures. Keys are
taken in canonical order wherever an order matters (spec 17.7). So all verifiers give one reason for
one denial.

The errors of reading are caught in one place, `read_link`. The functions below it raise, and say
which errors. So no caller has to know what a caveat of an embedder's may raise.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import structs

from captoken._format import names, signed
from captoken._format.encoding import EncodingError, decode_json
from captoken._format.parts import Packet, RawCaveat
from captoken._format.spelling import named_all, spelled
from captoken._language.access import Access
from captoken._language.caveats import (
    ASKING,
    BUILT_IN,
    COUNTED,
    IS_ASKED,
    IS_COUNTED,
    IS_EARLY,
    IS_FOR_LATER,
    IS_HAND_OVER,
    NARROWS,
    POSITION,
    RESERVED,
    SPEAKS_OF_DATA,
    SPEAKS_OF_TOOLS,
    V1,
    Vocabulary,
    is_own,
)
from captoken._language.conditions import Forbid
from captoken._language.kinds import Caveat, Situation, closed, prohibited
from captoken._language.link import BadLink, Link, ThirdParty
from captoken._language.reasons import Reason
from captoken._language.values import a_signing_key


def is_about_requests(link: Link, *, may_mark: bool = False) -> bool:
    """Does it say nothing of the token itself: no task, lineage or key, and nothing counted?

    So what a discharge or an overlay says of a request only ever restricts. Does not judge any
    request. `may_mark` is for entries of the overlay, which have marks of their own. Third-party
    caveats are not told apart here.
    """
    handed_on = link.receiver is not None or link.key is not None
    bounded = link.depth is not None or link.delegate_only
    if handed_on or bounded:
        return False
    refused = ASKING | (RESERVED if may_mark else COUNTED)
    if link.counts and any(caveat.key in refused or _asks(caveat) for caveat in link.late):
        return False
    return not any(caveat.key == "task" for caveat in link.early)


def _asks(caveat: Caveat) -> bool:
    """May a consent lift one of its rules? Consents are for a link of a chain (spec 47.7)."""
    return isinstance(caveat, Forbid) and any(caveat.unless)


# --- judging --------------------------------------------------------------------------------------


def after(situation: Situation, link: Link) -> Situation:
    """The facts for the links after `link`: what its `aud` and `task` leave (spec 16.1, 16.3).

    Both only ever get narrower along the chain. Does not judge: call it for a link that
    `early_prohibits` let pass. A `task` that is not below the one so far leaves it as it is.
    """
    audiences = situation.audiences
    task = situation.task
    # Two of the five narrow the facts. The others leave them as they are.
    for caveat in link.early:
        if caveat.key == "aud":
            audiences = audiences.intersection(caveat.value)
        elif caveat.key == "task" and names.at_or_below(caveat.value, task):
            task = caveat.value
    if len(audiences) == len(situation.audiences) and task == situation.task:
        return situation
    return Situation(situation.now, situation.leeway, audiences, task, situation.overlay_age)


def early_prohibits(link: Link, situation: Situation) -> Reason | None:
    """Why `link` prohibits every access for now, or None: its early caveats by key.

    The first pass of step 8 (spec 24.5). Two passes, so that a dead token costs little, and whoever
    holds it learns nothing of what it could have done. Does not look at the position in the chain.
    """
    for caveat in link.early:  # ours, which answer for every value: none is asked that may raise
        reason = caveat.prohibits(None, situation)
        if reason is not None:
            return reason
    return None


def late_prohibits(link: Link, access: Access | None, situation: Situation) -> Reason | None:
    """Why `link` prohibits `access`, or None: its late caveats by key, then its domains.

    The second pass of step 8. Without an access only those late caveats are asked that do not ask
    about one.
    """
    reason = prohibited(link.late, access, situation) if link.late else None
    if reason is not None or access is None or not link.domains:
        return reason
    return closed(link.domains, access)


def link_prohibits(link: Link, access: Access | None, situation: Situation) -> Reason | None:
    """Why `link` by itself prohibits `access`, or None: first what is early, then the rest.

    For links that belong to no chain: an operator's entry.
    """
    reason = early_prohibits(link, situation)
    return late_prohibits(link, access, situation) if reason is None else reason


# --- reading --------------------------------------------------------------------------------------


_V = TypeVar("_V")


class Remembered(Protocol[_V]):
    """What was found out before, by key: a verifier's own, bounded, and handed in.

    It makes an answer sooner, and never another. Threads share it.
    """

    def get(self, key: bytes, /) -> _V | None:
        """What is remembered, or None. None is always safe: it is then found out again."""
        ...

    def came_before(self, mark: int, /) -> bool:
        """Did this mark come before? What comes once is not worth keeping."""
        ...

    def keep(self, key: bytes, value: _V, /) -> None:
        """Remember it. Something older may be forgotten for it."""
        ...


def read_links(
    caveats: Iterable[RawCaveat],
    vocabulary: Vocabulary,
    known: Remembered[Link] | None = None,
) -> list[Link | BadLink]:
    """Every link of a chain, in order; a bad one is a `BadLink` in its place.

    A signature on a link is readable only where the token is bound to a key by then (spec 28.4). So
    the first link that binds it may have none. Checks no tag and no signature, and never raises.

    `known` has links that were read before, by this vocabulary. It may be filled only with bytes
    whose chain has held (24.22).
    """
    links: list[Link | BadLink] = []
    link: Link | BadLink
    counts = False
    bound_at: int | None = None  # the first link that binds the token to a key
    for cid, vid in caveats:
        if vid:
            link = ThirdParty(cid=cid)
        elif known is None:
            link = read_link(cid, vocabulary)
        else:
            link = known.get(cid) or _read_anew(cid, vocabulary, known)
        if link.counts:
            counts = True
        if link.key is not None and bound_at is None:
            bound_at = len(links)
        links.append(link)

    if counts:
        _end_counting(links)
    if bound_at is not None:
        _end_signing(links, bound_at)
    return links


def _end_signing(links: list[Link | BadLink], bound_at: int) -> None:
    """Make the first link that binds the token unreadable if it has a signature (spec 28.4).

    Up to there, nobody could have signed. From there on, whether a signature is the right one is
    for whoever verifies.
    """
    link = links[bound_at]
    if isinstance(link, Link) and link.signature is not None:
        why = "a link is signed, but names no key"
        links[bound_at] = BadLink("unreadable_link", why, *_chain_words(link))


# What may count in one token. More would be rows in a ledger that whoever holds it makes at will.
COUNTING_LINKS = 8
BUCKETS = 16


def buckets_of(caveats: Iterable[Caveat]) -> int:
    """How many buckets of a ledger the caveats of a link take (spec 38.1, 46.5)."""
    count = 0
    for caveat in caveats:
        if caveat.key == "uses":
            count += 1
        elif caveat.key in ("budget", "marks"):
            count += len(caveat.value)
    return count


def is_counted(link: Link) -> bool:
    """Is one of its caveats asked of a ledger? Of a consent none is."""
    return link.counts and any(caveat.key in COUNTED for caveat in link.late)


def _end_counting(links: list[Link | BadLink]) -> None:
    """Make the first link unreadable that counts beyond what may count in a token (spec 38.13)."""
    counting = buckets = 0
    for at, link in enumerate(links):
        if isinstance(link, BadLink) or not is_counted(link):
            continue
        counting += 1
        buckets += buckets_of(link.late)
        if counting > COUNTING_LINKS or buckets > BUCKETS:
            links[at] = BadLink("unreadable_link", too_much_counted(), *_chain_words(link))
            return


def too_much_counted() -> str:
    """Why no further link may count. For readers and writers alike."""
    return (
        f"more than {COUNTING_LINKS} links with uses, a budget or marks, or {BUCKETS} buckets, in "
        "one token"
    )


def _chain_words(link: Link) -> tuple[str | None, str | None, bytes | None]:
    """What a link says of the chain, for whoever shows it although it cannot be used."""
    return link.sender, link.receiver, link.key


def _read_anew(
    cid: bytes,
    vocabulary: Vocabulary,
    known: Remembered[Link],
) -> Link | BadLink:
    """A link that is not remembered; one that may be is, from now on.

    What an embedder's caveat holds may change, and what cannot be read is read again: neither is
    remembered.
    """
    link = read_link(cid, vocabulary)
    if not known.came_before(hash(cid)):
        return link
    if type(link) is Link and (vocabulary is V1 or not has_own(link)):
        known.keep(cid, link)
    return link


def has_own(link: Link) -> bool:
    """Is a caveat of an embedder's, under a namespaced key, among its caveats?"""
    return any(is_own(caveat.key) for caveat in link.late)


def read_link(body: bytes, vocabulary: Vocabulary) -> Link | BadLink:
    """The link that `body` spells, or why it prohibits everything. Never raises (spec, "Links").

    Two steps: the bytes must be canonical JSON, with a signature behind it or without. Then the
    object must be a link. Only after the second can one tell unreadable from opaque (spec 17.3).

        read_link(b'{"exp":1764061800}', V1).early    # one caveat, Expires
        read_link(b'{"colour":1}', V1).code           # "unknown_caveat"

    A plain link is read the shorter way. What that way does not take, this one decides.
    """
    plain = _plain_link(body)
    if plain is not None:
        return plain

    signature = None
    try:
        # Most links have no signature. The last byte tells: a signature does not end in a brace.
        # Decoding refuses whatever stands before the object or behind it.
        if body[-1:] == b"}":
            stated = decode_json(body)
        else:
            text, signature = split_signature(body)
            stated = decode_json(text)
    except EncodingError as error:
        return BadLink("unreadable_link", str(error))
    try:
        return _link(stated, signature, vocabulary)
    # The constructor of an embedder's caveat is a hook: it runs on bytes that a stranger wrote.
    # It is safe to call, since all that it can do here is to make the link prohibit. Whatever it
    # raises becomes a BadLink. It runs only on links that have passed as canonical JSON.
    except Exception as error:  # ours are TypeError and ValueError, an embedder's anything
        return _bad_link(stated, error, vocabulary)


# The shorter way: for links of the kinds that say what is `plain`, and a hand-over. The decoder
# checks the types then, and writes the keys in their order without sorting them. That halves the
# time. All of it is made from the classes and the grammar, so that no rule stands here again.
_PLAIN: dict[str, Any] = {
    **{kind.key: kind.plain for kind in BUILT_IN if kind.plain is not None},
    **{key: str for key, trait in POSITION.items() if trait == IS_HAND_OVER},
}
_PLAIN_KEYS = sorted(_PLAIN)  # ASCII: in canonical order
_Plain = msgspec.defstruct(
    "_Plain",
    # `from` is no name of a field: so each has a bar before it.
    [(f"_{key}", _PLAIN[key] | None, msgspec.field(name=key, default=None)) for key in _PLAIN_KEYS],
    forbid_unknown_fields=True,
    omit_defaults=True,
    gc=False,
)
_decode_plain = msgspec.json.Decoder(_Plain).decode
_encode_plain = msgspec.json.Encoder().encode
# The position, class and traits of each caveat.
_PLAIN_CAVEATS: list[tuple[int, Any, int]] = [
    (at, *V1.grammar[key]) for at, key in enumerate(_PLAIN_KEYS) if key not in POSITION
]
_FROM, _TO, _N = map(_PLAIN_KEYS.index, ("from", "to", "n"))


def _plain_link(body: bytes) -> Link | None:
    """The link that `body` spells if it is a plain one: the same that `read_link` finds without it.

    None says nothing about the link. Never raises. No embedder's caveat is plain, so that every
    vocabulary gives the same.
    """
    early: list[Any] = []
    late: list[Any] = []
    traits = 0
    try:
        stated = _decode_plain(body)
        if _encode_plain(stated) != body:  # not canonical, or repeated
            return None
        values = structs.astuple(stated)
        for at, kind, its_traits in _PLAIN_CAVEATS:
            value = values[at]
            if value is None:
                continue
            traits |= its_traits
            if its_traits & IS_EARLY:
                early.append(kind(value))
            else:
                late.append(kind(value))

        sender, receiver, nonce = values[_FROM], values[_TO], values[_N]
        if sender is not None or receiver is not None or nonce is not None:
            _check_delegation(sender, receiver, nonce)
        elif not traits:  # it says nothing
            return None
    # What a decoder raises for foreign bytes, and our classes for values that are none of theirs.
    except (msgspec.DecodeError, UnicodeError, RecursionError, TypeError, ValueError):
        return None
    return Link(
        tuple(early),
        tuple(late),
        sender,
        receiver,
        domains=_DOMAINS[traits & (SPEAKS_OF_DATA | SPEAKS_OF_TOOLS)],
        narrows_situation=traits & NARROWS != 0,
        nonce=nonce,
    )


def read_discharge(packet: Packet, vocabulary: Vocabulary) -> list[Link] | BadLink:
    """The links of a discharge whose signature held, or why they prohibit everything.

    They are caveats about the request, and one of them is an expiry (spec 33.6). Anything else
    could do more than restrict, or tell of the token. Never raises.
    """
    links: list[Link] = []
    for cid, vid in packet.caveats:
        if vid:
            return _unreadable("a discharge has a third-party caveat itself")
        link = read_link(cid, vocabulary)
        if isinstance(link, BadLink):
            return BadLink(link.code, f"in the discharge: {link.text}")
        if not is_about_requests(link):
            return _unreadable("a discharge that speaks of task, lineage or keys, or counts")
        links.append(link)
    if not any(caveat.key == "exp" for link in links for caveat in link.caveats):
        return _unreadable("a discharge without an expiry")
    return links


def _unreadable(why: str) -> BadLink:
    return BadLink("unreadable_link", why)


def split_signature(body: bytes) -> tuple[bytes, bytes | None]:
    """The JSON of a link, and its custody signature if it has one.

    Looks at the form of the signature, and does not verify it. A closing brace at the end means
    that there is none. Raises EncodingError for one that is none.
    """
    if body[-1:] == b"}":
        return body, None
    try:
        return signed.split(body)
    except EncodingError:
        raise EncodingError("not canonical JSON") from None


def words_of(body: bytes) -> dict[str, Any]:
    """The JSON of a link, without its signature. Raises EncodingError for what is no link's form.

    For showing what it says, whether it is known here or not. Verifies nothing.
    """
    text, _ = split_signature(body)
    return decode_json(text)


def unknown_keys(stated: Mapping[str, Any], vocabulary: Vocabulary) -> list[str]:
    """The keys of a link that make it opaque, sorted. Values are not looked at."""
    return sorted(stated.keys() - vocabulary.grammar.keys())


# The domains of a link by its traits. Made once, so that no link has to build a set.
_DOMAINS: dict[int, frozenset[str]] = {
    0: frozenset(),
    SPEAKS_OF_DATA: frozenset(("data",)),
    SPEAKS_OF_TOOLS: frozenset(("tool",)),
    SPEAKS_OF_DATA | SPEAKS_OF_TOOLS: frozenset(("data", "tool")),
}


def _link(stated: dict[str, Any], signature: bytes | None, vocabulary: Vocabulary) -> Link:
    """The link that a JSON object states.

    One pass over the keys: each gives a caveat or a trait, and `traits` gathers what to look at
    afterwards. Most links have no lineage, and pay nothing for it.

    Raises KeyError for a key that is not known, TypeError or ValueError for what cannot be read, or
    whatever a caveat of an embedder raises. The caller turns all of it into a `BadLink`.
    """
    if not stated:
        raise ValueError("a link is empty")
    grammar = vocabulary.grammar
    early: list[Any] = []
    late: list[Caveat] = []
    traits = 0
    for key, value in stated.items():
        # One look gives the class and the traits. A class of None is a key that goes by position.
        kind, its_traits = grammar[key]  # KeyError: not known
        traits |= its_traits
        if kind is None:
            continue
        if its_traits & IS_EARLY:
            early.append(kind(value))
        else:
            late.append(kind(value))

    counts = traits & IS_COUNTED != 0
    sender = receiver = depth = bound_to = None
    delegate_only = False
    if counts and "from" not in stated and "to" not in stated:
        _check_nonce(stated.get("n"))
    elif counts or traits & IS_HAND_OVER:
        sender, receiver = _delegation(stated)
    if traits & IS_FOR_LATER:
        depth = _depth(stated.get("depth"))
        delegate_only = _delegate_only(stated.get("delegate_only"))
        bound_to = a_signing_key(stated["key"], "key") if "key" in stated else None
    if signature is not None and bound_to is None:
        raise ValueError("a link is signed, but binds to no key")
    if "forbid" in stated:
        check_marked(late, stated.get("marks", ()))
    return Link(
        tuple(early),
        tuple(late),
        sender,
        receiver,
        depth,
        delegate_only,
        bound_to,
        signature,
        _DOMAINS[traits & (SPEAKS_OF_DATA | SPEAKS_OF_TOOLS)],
        traits & (IS_COUNTED | IS_ASKED) != 0,
        traits & NARROWS != 0,
        stated.get("n"),
    )


_NONCE = "[A-Za-z0-9_-]{11}"
is_nonce = re.compile(_NONCE).fullmatch
# from, to and n, joined by line feeds.
# One match for three values. A line feed is in none of them, so that nothing can move
# from one to the other. A value that is no string makes `join` raise TypeError.
_is_delegation = re.compile(rf"{names.NAME}\n{names.NAME}\n{_NONCE}").fullmatch


def _check_nonce(nonce: Any) -> None:
    """Raise for a nonce that is none: of a link that counts, and hands nothing on."""
    if is_nonce(names.exact_str(nonce, "n")) is None:
        raise ValueError("n must be 11 characters of base64url")


def nonce_in(body: bytes) -> str | None:
    """The `n` of a link as it travels, whatever else it says; None where there is none."""
    try:
        nonce = decode_json(split_signature(body)[0]).get("n")
    except EncodingError:
        return None
    return nonce if type(nonce) is str and is_nonce(nonce) else None


def _delegation(stated: Mapping[str, Any]) -> tuple[str, str]:
    """Who hands on to whom: `from`, `to` and `n` come together (spec 17.6).

    Whether the sender holds the token is not asked: `lineage` does. Raises ValueError if one of
    them is missing, or no name.
    """
    sender: Any = stated.get("from")
    receiver: Any = stated.get("to")
    _check_delegation(sender, receiver, stated.get("n"))
    return sender, receiver


def _check_delegation(sender: Any, receiver: Any, nonce: Any) -> None:
    """Raise ValueError for a hand-over that is none."""
    try:
        said = "\n".join((sender, receiver, nonce))
    except TypeError:  # one is missing, or no string
        said = ""
    if _is_delegation(said) is None:
        raise ValueError("from and to must be names, n 11 characters of base64url")


def check_marked(caveats: Iterable[Caveat], marks: Collection[str]) -> None:
    """Raise ValueError for a rule with a name that is no mark of the same link (spec 46.4)."""
    for caveat in caveats:
        if isinstance(caveat, Forbid):
            named = {name for rule in caveat.rules for part in rule for name in part}
            unknown = named.difference(marks)
            if unknown:
                what = f"forbid names {named_all(unknown)}, and the link has no such mark"
                raise ValueError(what)


def _depth(value: Any) -> int | None:
    """How many hand-overs may follow, or None for no bound. Raises ValueError.

    By exact type, since True would else be a depth of one.
    """
    if value is None:
        return None
    if type(value) is not int or value < 0:
        raise ValueError("depth must be an integer, not negative")
    return value


def _delegate_only(value: Any) -> bool:
    """Must a later link hand on? Raises ValueError for any value but true.

    `false` would say nothing, and what says nothing is unreadable (spec 17.5).
    """
    if value is not None and value is not True:
        raise ValueError("delegate_only must be true or left out")
    return value is True


def _bad_link(stated: Mapping[str, Any], error: Exception, vocabulary: Vocabulary) -> BadLink:
    """Why a link that is canonical JSON cannot be taken; and what it says of the chain even so.

    Never raises. Opaque wins over unreadable (spec 17.3): whoever wrote the unknown key may have
    known more about the others too.
    """
    sender = receiver = key = None
    with suppress(TypeError, ValueError):
        sender, receiver = _delegation(stated)
    with suppress(TypeError, ValueError):
        key = a_signing_key(stated.get("key"), "key")
    unknown = unknown_keys(stated, vocabulary)
    if unknown:  # then it is opaque, whatever else is wrong with it
        why = f"caveats that this server does not know: {spelled(unknown)}"
        return BadLink("unknown_caveat", why, sender, receiver, key)
    # The text of an error that an embedder's caveat raised may hold anything.
    is_ours = type(error) in (TypeError, ValueError, EncodingError)
    why = str(error) if is_ours else type(error).__name__
    return BadLink("unreadable_link", why, sender, receiver, key)
