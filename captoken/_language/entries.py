"""What an operator says about issued tokens, entry by entry (spec 36.4 to 36.6).

    SelectorFacts    the facts about a token that selectors compare
    Selector         which tokens: those that match everything it states
    Entry            a selector and its effect: revoked, or restricted by more caveats
    Index            finds the entries that apply to a token

An entry that cannot be read makes its whole snapshot invalid. Ignoring it would silently lose a
restriction (spec 36.3). `overlay` checks signatures and numbers of snapshots.
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

# An id is 16 bytes in canonical base64url (1.2).
_is_id = re.compile("[A-Za-z0-9_-]{21}[AQgw]").fullmatch


# --- which tokens ---------------------------------------------------------------------------------


class SelectorFacts(msgspec.Struct, frozen=True):
    """The facts about a token that selectors compare. Made once for each token.

        facts = SelectorFacts(root, link_ids, task, holders, nonces)
        if overlay.touches(facts.keys):
            entries = overlay.on(facts, now)

    `keys` holds everything that an entry about such a token can be filed under: its ids, its names,
    its task and every task above. It is always computed from the other fields.

    A verifier makes this after it has checked the signature, because what an unverified token says
    must select nothing. This class does not check that.
    """

    issued: RootRecord

    # The link ids of the chain, as bytes.
    links: Sequence[bytes]
    task: str

    # The agents that have held the token.
    agents: Sequence[str]

    # The nonce `n` of each link that has one (`nonces_of`).
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
    """The nonce `n` of each link that has one."""
    return tuple(
        link.nonce for link in links if isinstance(link, Link) and link.nonce is not None
    )


def _tasks_above(task: str) -> list[str]:
    """The tasks above a task: for `a/b/c`, `a/b` and `a`.

    An entry about one of them applies to the task too.
    """
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
    """Selects tokens: those that match everything it states (spec 36.5).

    State at least one of these:

    - `token`, a token id, selects its whole tree.
    - `link`, a link id, selects that link and all tokens made from it.
    - `hop`, the nonce `n` of a link, selects that link and all tokens made from it, at each server
      of a set. It needs `token` as well, because other trees may have the same `n`.
    - `task` selects that task and all tasks below it.
    - `agent` selects all tokens that the agent has held, now or earlier.
    - `subject` and `kid` are those of the root record.
    - `issued_before` is in seconds since the epoch, and excludes that second itself.

    `agent` compares the names that holders wrote. It finds tokens by name, and not whoever has the
    text. To stop a token for certain, select it by another field (spec 36.15).

    It does not check that such a token exists. Raises TypeError or ValueError for an invalid id or
    name, and if nothing is stated.
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
                "an entry must select something: token, link, task, agent, subject, kid or "
                "issued_before"
            )

    def _check_names(self) -> bool:
        """True if one of the names is stated. Raises TypeError or ValueError for an invalid name.
        """
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
        """The selected link id, as bytes. It is decoded at each call."""
        return None if self.link is None else b64decode(self.link)

    def selects(self, facts: SelectorFacts) -> bool:
        """True if this selects the token. It decodes the link id each time; `Overlay.on` does not.
        """
        return _selects(self, self.link_id, facts)


def _check_id(value: Any, what: str) -> None:
    """Raise TypeError or ValueError for an invalid id."""
    if _is_id(names.exact_str(value, what)) is None:
        raise ValueError(f"a {what} id must be 22 characters of base64url")


def _check_hop(value: Any, token: str | None) -> None:
    """Raise TypeError or ValueError for an invalid `n`, and for one without `token`."""
    if is_nonce(names.exact_str(value, "hop")) is None:
        raise ValueError("a hop must be the n of a link: 11 characters of base64url")
    if token is None:
        raise ValueError("a hop belongs to one tree: name its token, too")


def _selects(select: Selector, link_id: bytes | None, facts: SelectorFacts) -> bool:
    """True if the token matches everything that is stated. `link_id` is the selector's, decoded.

    Each line reads "not stated, or it matches".
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
    """The keywords of a selector."""

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
    """One restriction: the tokens it applies to, its effect, its author, time, reason and end.

    An Operator makes it, and a snapshot contains it (spec 36.4). Use `id` to lift it again. An
    operator wrote `by` and `why`, for people: escape them before you show them. The order of the
    fields is their order in a snapshot.

    `asked` is set if a holder asked for the entry. It has the ids of the links by which the token
    was handed on to that holder, first link first; or their `n` if the entry selects by `hop`. It
    is empty for the agent that the token was minted for.
    """

    asked: tuple[str, ...] | None = None

    # The time at which the entry was made, in seconds since the epoch.
    at: Integer
    by: str
    id: str

    # The caveats that restrict the tokens, as in a link; None if the tokens are revoked.
    link: dict[str, Any] | None = None
    select: Selector

    # The end of the entry, in seconds since the epoch; None if it never ends by itself.
    until: Integer | None = None
    why: str

    def stands(self, now: int) -> bool:
        """True if it has not expired. It ends at the first second of `until`."""
        return self.until is None or now < self.until

    @property
    def through(self) -> frozenset[str]:
        """All hops that a token must have passed for an entry by `hop` to select it; else none.

        They include the hops by which the token came to whoever asked. Any holder can write the `n`
        of somebody else's hop, but can stop only tokens that passed the same hops.
        """
        hop = self.select.hop
        return frozenset() if hop is None else frozenset((hop, *(self.asked or ())))

    def lasts(self, until: int | None) -> bool:
        """True if it stands at least until then."""
        if self.until is None:
            return True
        return until is not None and self.until >= until


# --- reading one ----------------------------------------------------------------------------------

# The exceptions that the decoders and the checks raise for invalid bytes.
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
    """The entry in these bytes. The caveats that it narrows to are put into `links`.

    Raises the exceptions in `UNREADABLE`.
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
    """Raise ValueError unless a holder can ask for this entry (36.4).

    Code that makes room for entries relies on it: such an entry revokes, and names its tree and who
    asked.
    """
    select = entry.select
    others = (select.agent, select.issued_before, select.kid, select.subject, select.task)
    if entry.link is not None or select.token is None or any(one is not None for one in others):
        raise ValueError("a request of a holder must revoke a token, or a link of it")

    asked = entry.asked or ()
    is_one = _is_id if select.hop is None else is_nonce
    if len(asked) > LIMITS.links or not all(map(is_one, asked)):
        raise ValueError(f"asked may have at most {LIMITS.links} link ids, or n beside a hop")
    if select.hop is not None and select.link is not None:
        raise ValueError("a request of a holder must name a link or a hop")


def _spelled(entry: Entry, in_ascii: bool) -> bytes:
    """The canonical JSON of an entry. `in_ascii` says that the entry arrived as ASCII."""
    # If the entry is ASCII, so are its keys. Then code point order is the order of RFC 8785.
    if in_ascii:
        return _encode(entry)
    return spelled_with_care(entry)


def spelled_with_care(entry: Entry) -> bytes:
    """The canonical JSON of any entry. Raises ValueError if it has none."""
    # As JSON has it: objects, arrays, and no tuples.
    return encode_json(msgspec.json.decode(msgspec.json.encode(entry)))


def entry_size(entry: Entry) -> int:
    """The number of bytes that an entry takes in a snapshot."""
    return len(spelled_with_care(entry))


# The nesting depth of a link: inside an entry, inside the array of a snapshot or a delta.
_WITHIN = 3


def _read_restriction(stated: Mapping[str, Any], vocabulary: Vocabulary) -> Link:
    """The caveats of an entry (spec 36.6).

    Raises ValueError for a link that cannot be read, or that has more than caveats about accesses:
    it could then do more than restrict, or ask for something that no overlay has.
    """
    link = read_link(encode_json(stated, _WITHIN), vocabulary)
    if isinstance(link, BadLink):
        raise ValueError(f"an entry's link: {link.text}")
    if not is_about_requests(link, may_mark=True):
        raise ValueError("an entry's link must not have a task, lineage, keys, uses or a budget")
    return link


# --- where they are found -------------------------------------------------------------------------


class _Filed(msgspec.Struct, frozen=True, gc=False):
    """An entry as an overlay keeps it, with its ids decoded once.

    So no request has to decode them.
    """

    entry: Entry

    # The link that its selector names.
    link_id: bytes | None

    def is_on(self, facts: SelectorFacts, now: int) -> bool:
        """True if the entry stands and applies to that token."""
        entry = self.entry
        return (
            entry.stands(now)
            and _selects(entry.select, self.link_id, facts)
            and (entry.select.hop is None or entry.through.issubset(facts.hops))
        )

    @property
    def key(self) -> str | bytes | None:
        """The key that it is filed under: the stated field that selects the fewest tokens.

        None for an entry that states only `issued_before`, which may apply to any token.
        """
        # Ids and names are never empty, so `or` finds the first one that is stated.
        select = self.entry.select
        rarest = self.link_id or select.token or select.subject
        return rarest or select.agent or select.task or select.kid


class Index:
    """Finds the entries of an overlay that may apply to a token.

    Every entry that is found under a key is then compared in full. So one table serves for all
    kinds of keys, and a task and an agent with the same name are still told apart. Each entry is
    filed once, under the rarest of its keys.

    A new index can start from another one, which stays unchanged: it is copied before the first
    change. Only the overlay under construction uses it. Copying a hundred thousand keys takes
    milliseconds.
    """

    def __init__(
        self,
        by_key: dict[str | bytes, tuple[_Filed, ...]],
        anywhere: tuple[_Filed, ...],
    ) -> None:
        # The garbage collector does not track tuples whose items refer to nothing else.
        self.by_key = by_key
        self.anywhere = anywhere  # the entries without a key
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
        """Copy the index that this one started from, before the first change."""
        if not self._is_own:
            self.by_key = dict(self.by_key)
            self._is_own = True

    def file(self, entry: Entry) -> None:
        """Add an entry."""
        self._change()
        filed = _Filed(entry, entry.select.link_id)
        key = filed.key
        if key is None:
            self.anywhere = (*self.anywhere, filed)
        else:
            self.by_key[key] = (*self.by_key.get(key, ()), filed)

    def take_off(self, entry: Entry) -> None:
        """Remove an entry that was added before."""
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

    def stops(self, entry: Entry) -> bool:
        """Is what a holder asked for revoked by another entry, for as long (37.9 to 37.11)?"""
        if entry.asked is None:
            return False
        if entry.select.hop is not None:
            return self._stops_hop(entry)
        links = {None, entry.select.link, *entry.asked}
        for select in (Selector(token=entry.select.token, link=link) for link in links):
            # By which such an entry is filed.
            key = select.link_id or select.token
            for filed in self.by_key.get(key or b"", ()):
                one = filed.entry
                if one.select == select and one.link is None and one.lasts(entry.until):
                    return True
        return False

    def _stops_hop(self, entry: Entry) -> bool:
        """The same of what was asked for by `hop`: another one stops it that asks for less."""
        for filed in self.by_key.get(entry.select.token or b"", ()):
            one = filed.entry
            alone = one.select in (
                Selector(token=entry.select.token),
                Selector(token=entry.select.token, hop=one.select.hop),
            )
            revokes = alone and one.link is None and one.lasts(entry.until)
            if revokes and one.through <= entry.through:
                return True
        return False
