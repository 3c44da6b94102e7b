"""What an operator says of issued tokens, entry by entry (spec 36.4 to 36.6).

    SelectorFacts    what is asked about a token
    Selector         which tokens: those for which all that it states holds
    Entry            a selector, and what it does: revoked, or a link's worth of more caveats
    Index            where the entries on a token are found

An entry that cannot be read is refused here, and its snapshot with it: passed over, it would be a
restriction that is lost, and nobody would hear (spec 36.3). Signatures and numbers are those of
snapshots: `overlay`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import msgspec

from captoken._format import names
from captoken._format.clocks import epoch_seconds
from captoken._format.encoding import LIMITS, Integer, b64decode, encode_json
from captoken._format.root import RootRecord
from captoken._language.caveats import Vocabulary
from captoken._language.link import BadLink, Link
from captoken._language.links import is_about_requests, is_nonce, read_link

# 16 bytes in canonical base64url (1.2).
_is_id = re.compile("[A-Za-z0-9_-]{21}[AQgw]").fullmatch


# --- which tokens ---------------------------------------------------------------------------------


class SelectorFacts(msgspec.Struct, frozen=True):
    """What selectors ask about a token. Made once for each token, since its keys are found then.

        facts = SelectorFacts(root, link_ids, task, holders, nonces)
        if overlay.touches(facts.keys):
            entries = overlay.on(facts, now)

    `keys` is everything that an entry on such a token can be filed under: its ids, its names, its
    task and every task above. It is derived, whatever is given.

    Made by a verifier, for a token whose signature held: what an unverified one says of itself
    selects nothing. Does not check that.
    """

    issued: RootRecord

    # Link ids, as bytes.
    links: Sequence[bytes]
    task: str

    # The agents that have held it.
    agents: Sequence[str]

    # The `n` of each link that has one (`nonces_of`).
    hops: Sequence[str] = ()
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


def nonces_of(links: Iterable[Link | BadLink]) -> tuple[str, ...]:
    """The `n` of each link that has one."""
    return tuple(
        link.nonce for link in links if isinstance(link, Link) and link.nonce is not None
    )


def _tasks_above(task: str) -> list[str]:
    """Of `a/b/c`: `a/b` and `a`. An entry on any of these is on the task too."""
    above: list[str] = []
    while "/" in task:
        task = task.rpartition("/")[0]
        above.append(task)
    return above


class Selector(
    msgspec.Struct,
    frozen=True,
    gc=False,
    omit_defaults=True,
    forbid_unknown_fields=True,
    kw_only=True,
):
    """Which tokens: those for which all that is stated holds (spec 36.5).

    At least one thing is stated:

    - `token` is a token id, and selects its whole tree.
    - `link` is a link id, and selects that link and all below.
    - `hop` is the `n` of a link, and selects that link and all below at each server of a set. It
      stands beside `token`: others may have the same `n`.
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
    hop: str | None = None
    issued_before: Integer | None = None
    kid: str | None = None
    link: str | None = None
    subject: str | None = None
    task: str | None = None
    token: str | None = None

    def __post_init__(self) -> None:
        # One after the other, since a large snapshot has a great many of them.
        if self.token is not None:
            _check_id(self.token, "token")
        if self.link is not None:
            _check_id(self.link, "link")
        if self.hop is not None:
            _check_hop(self.hop, self.token)
        named = self._check_names()

        if self.issued_before is not None:
            if type(self.issued_before) is not int:
                kind = type(self.issued_before).__name__
                raise TypeError(f"issued_before must be seconds as int, not {kind}")
            epoch_seconds(self.issued_before, "issued_before")
            return

        # Nothing stated would hold for every token: whoever forgot a keyword would stop them all.
        if not (named or self.token or self.link):
            raise ValueError(
                "an entry selects something:"
                " token, link, task, agent, subject, kid or issued_before"
            )

    def _check_names(self) -> bool:
        """Is one of the names stated? Raises TypeError or ValueError for what is no name."""
        named = False
        if self.task is not None:
            named = bool(names.task(self.task))
        if self.agent is not None:
            named = bool(names.name(self.agent, "agent"))
        if self.subject is not None:
            named = bool(names.name(self.subject, "subject"))
        if self.kid is not None:
            named = bool(names.name(self.kid, "kid"))
        return named

    @property
    def link_id(self) -> bytes | None:
        """The link id that is selected, as bytes; decoded at each look."""
        return None if self.link is None else b64decode(self.link)

    def selects(self, facts: SelectorFacts) -> bool:
        """Is the token one of those? Decodes the link id each time: `Overlay.on` does not."""
        return _selects(self, self.link_id, facts)


def _check_id(value: Any, what: str) -> None:
    """Raise TypeError or ValueError for what is no id."""
    if _is_id(names.exact_str(value, what)) is None:
        raise ValueError(f"a {what} id is 22 characters of base64url")


def _check_hop(value: Any, token: str | None) -> None:
    """Raise TypeError or ValueError for what is no `n`, and for one without its tree."""
    if is_nonce(names.exact_str(value, "hop")) is None:
        raise ValueError("a hop is the n of a link: 11 characters of base64url")
    if token is None:
        raise ValueError("a hop is of one tree: name its token, too")


def _selects(select: Selector, link_id: bytes | None, facts: SelectorFacts) -> bool:
    """Does all hold that is stated? `link_id` is the selector's own, decoded.

    What is not stated is not asked, so that each line is "not stated, or it holds".
    """
    issued = facts.issued
    return (
        (select.token is None or select.token == issued.token_id)
        and (link_id is None or link_id in facts.links)
        and (select.hop is None or select.hop in facts.hops)
        and (select.task is None or names.at_or_below(facts.task, select.task))
        and (select.agent is None or select.agent in facts.agents)
        and (select.subject is None or select.subject == issued.subject)
        and (select.kid is None or select.kid == issued.key_id)
        and (select.issued_before is None or issued.issued_at < select.issued_before)
    )


class Select(TypedDict, total=False):
    """The keywords that select."""

    agent: str
    """An agent, and all that it handed on to."""
    hop: str
    """The `n` of a hand-over: all tokens that have it, at each server of a set. With `token`."""
    issued_before: int
    """Tokens minted before that moment, in seconds since the epoch."""
    kid: str
    """Tokens under the root key of that id."""
    link: str
    """The id of a link: all tokens that have it."""
    subject: str
    """The person or service that started the task."""
    task: str
    """A task, and all tasks below it."""
    token: str
    """The id of a token, and so of all that is made of it."""


# --- what is done to them -------------------------------------------------------------------------


class Entry(
    msgspec.Struct,
    frozen=True,
    gc=False,
    omit_defaults=True,
    forbid_unknown_fields=True,
    kw_only=True,
):
    """One restriction: whom it is on, what it does, and who did it, when and why, until when.

    As it stands in a snapshot (spec 36.4). An Operator makes it. `id` is by what it is lifted
    again. `by` and `why` are what an operator wrote, for people: text to be escaped where it is
    shown. Its fields stand in the order in which a snapshot spells them.

    `asked` is there if a holder asked for it: the ids of the links by which the token was handed on
    to that holder, from the first down; their `n` where it selects by `hop`. So none for the agent
    that it was minted for.
    """

    asked: tuple[str, ...] | None = None

    # When it was made, in seconds since the epoch.
    at: Integer
    by: str
    id: str

    # The caveats, as a link has them; None if the tokens are revoked.
    link: dict[str, Any] | None = None
    select: Selector

    # When it ends, in seconds since the epoch; None if it does not end by itself.
    until: Integer | None = None
    why: str

    def stands(self, now: int) -> bool:
        """Has it not run out? It ends at the first second of `until`."""
        return self.until is None or now < self.until

    @property
    def through(self) -> frozenset[str]:
        """The hops that a token has all gone through which it selects by `hop`; else none.

        Those by which it came to whoever asked are among them: any holder can write an `n` of
        somebody else's, and stops no more by that than what it was handed itself.
        """
        hop = self.select.hop
        return frozenset() if hop is None else frozenset((hop, *(self.asked or ())))

    def lasts(self, until: int | None) -> bool:
        """Does it stand until then, or for ever?"""
        if self.until is None:
            return True
        return until is not None and self.until >= until


# --- reading one ----------------------------------------------------------------------------------

# What the decoders and the checks raise, for any bytes.
UNREADABLE = (
    msgspec.DecodeError,
    UnicodeError,
    RecursionError,
    TypeError,
    ValueError,
)

_decode_entry = msgspec.json.Decoder(Entry).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def read_entry(spelled: bytes, links: dict[str, Link], vocabulary: Vocabulary) -> Entry:
    """The entry that these bytes spell; what it narrows to is put among `links`.

    Raises what is `UNREADABLE`.
    """
    entry = _decode_entry(spelled)
    # The typed decoder takes what is no canonical JSON: so encode again, and compare.
    if _spelled(entry, spelled.isascii()) != spelled:
        raise ValueError("an entry is not canonical JSON")

    if entry.asked is not None:
        _check_asked(entry)
    if entry.link is not None:
        links[entry.id] = _read_restriction(entry.link, vocabulary)
    return entry


def _check_asked(entry: Entry) -> None:
    """Raise ValueError unless that is what a holder can ask for (36.4).

    Whoever makes room relies on it: such an entry revokes, and says of which tree and of whom.
    """
    select = entry.select
    others = (select.agent, select.issued_before, select.kid, select.subject, select.task)
    if entry.link is not None or select.token is None or any(one is not None for one in others):
        raise ValueError("what a holder asked for revokes a token, or a link of it")

    asked = entry.asked or ()
    is_one = _is_id if select.hop is None else is_nonce
    if len(asked) > LIMITS.links or not all(map(is_one, asked)):
        raise ValueError(f"asked has at most {LIMITS.links} link ids, or n beside a hop")
    if select.hop is not None and select.link is not None:
        raise ValueError("what a holder asked for is of a link or of a hop")


def _spelled(entry: Entry, in_ascii: bool) -> bytes:
    """The one spelling of an entry. `in_ascii` says that it is in ASCII as it came."""
    # Then all its keys are, and these sort alike by code point and as RFC 8785 has it.
    if in_ascii:
        return _encode(entry)
    return spelled_with_care(entry)


def spelled_with_care(entry: Entry) -> bytes:
    """The same, whatever it holds. Raises ValueError for what has no spelling."""
    # As JSON has it: objects, arrays, and no tuples.
    return encode_json(msgspec.json.decode(msgspec.json.encode(entry)))


def entry_size(entry: Entry) -> int:
    """How many bytes of a snapshot an entry takes."""
    return len(spelled_with_care(entry))


# A link stands in an entry, which stands in the array of the snapshot, or of the delta.
_WITHIN = 3


def _read_restriction(stated: Mapping[str, Any], vocabulary: Vocabulary) -> Link:
    """The caveats of an entry (spec 36.6).

    Raises ValueError for a link that cannot be read, or that speaks of more than requests: then it
    could do more than restrict, or ask for what no overlay has.
    """
    link = read_link(encode_json(stated, _WITHIN), vocabulary)
    if isinstance(link, BadLink):
        raise ValueError(f"an entry's link: {link.text}")
    if not is_about_requests(link):
        raise ValueError("an entry's link speaks of task, lineage or keys, or counts")
    return link


# --- where they are found -------------------------------------------------------------------------


class _Filed(msgspec.Struct, frozen=True, gc=False):
    """An entry as an overlay keeps it: what has to be decoded in it is decoded once.

    So a request pays for none of it.
    """

    entry: Entry

    # The link that its selector names.
    link_id: bytes | None

    def is_on(self, facts: SelectorFacts, now: int) -> bool:
        """Does it stand, and is it on that token?"""
        entry = self.entry
        return (
            entry.stands(now)
            and _selects(entry.select, self.link_id, facts)
            and (entry.select.hop is None or entry.through.issubset(facts.hops))
        )

    @property
    def key(self) -> str | bytes | None:
        """What it is filed under: the one thing stated that selects the fewest tokens.

        None for an entry by `issued_before` alone, which any token may have to be asked about.
        """
        # No id and no name is empty.
        select = self.entry.select
        rarest = self.link_id or select.token or select.subject
        return rarest or select.agent or select.task or select.kid


class Index:
    """Where the entries of an overlay are found.

    An entry that is found under a key is asked in full, so one table serves for all kinds of keys:
    a task and an agent of one name are told apart then. Each stands in one place, under the rarest
    of its keys.

    Begins as another one, which stays as it is: it is copied before the first change. Belongs to
    whoever makes an overlay, until it is made. Copying a hundred thousand keys takes milliseconds.
    """

    def __init__(
        self,
        by_key: dict[str | bytes, tuple[_Filed, ...]],
        anywhere: tuple[_Filed, ...],
    ) -> None:
        # Tuples of what refers to nothing else are no work for the garbage collector.
        self.by_key = by_key
        self.anywhere = anywhere  # what states no key at all
        self._is_own = False

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Index:
        """The index of these entries."""
        by_key: dict[str | bytes, tuple[_Filed, ...]] = {}
        anywhere: list[_Filed] = []
        several: dict[str | bytes, list[_Filed]] = {}

        for entry in entries:
            filed = _Filed(entry, entry.select.link_id)
            key = filed.key
            if key is None:
                anywhere.append(filed)
            elif key not in by_key:
                by_key[key] = (filed,)
            else:
                # A key may have them all: so they are not copied for each.
                several.setdefault(key, [*by_key[key]]).append(filed)

        for key, many in several.items():
            by_key[key] = tuple(many)
        return cls(by_key, tuple(anywhere))

    def _change(self) -> None:
        """Copy what was begun with, before the first change of it."""
        if not self._is_own:
            self.by_key = dict(self.by_key)
            self._is_own = True

    def file(self, entry: Entry) -> None:
        """Put one more where it is found."""
        self._change()
        filed = _Filed(entry, entry.select.link_id)
        key = filed.key
        if key is None:
            self.anywhere = (*self.anywhere, filed)
        else:
            self.by_key[key] = (*self.by_key.get(key, ()), filed)

    def take_off(self, entry: Entry) -> None:
        """Take an entry off, which was filed before."""
        self._change()
        key = _Filed(entry, entry.select.link_id).key
        if key is None:
            self.anywhere = tuple(one for one in self.anywhere if one.entry.id != entry.id)
            return

        rest = tuple(one for one in self.by_key[key] if one.entry.id != entry.id)
        if rest:
            self.by_key[key] = rest
        else:
            del self.by_key[key]
