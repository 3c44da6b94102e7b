"""A token whose signature held, read and folded: what steps 1 to 6 of the plan give.

It depends on the token and the keys alone: not on a clock, an overlay, a caller or who asks. What
can be worked out from it is worked out here, once (24.18). Numbers in brackets are those of the
spec.

The rules of this file:

- `plan.authenticate` alone makes an `AuthenticatedToken`. That there is one means that the chain
  has held.
- Nothing here says whether a token may be used: no time, no audience of a server, no store.
- Some values are filled in later, on a frozen object. All follow from the rest, so that two
  threads that race write the same.
- The tags are secrets. They leave as ids and states, which are hashes of them, and not else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

import msgspec
from msgspec.structs import force_setattr

from captoken._format import chain, primitives
from captoken._format.encoding import b64encode
from captoken._format.parts import Packet, RawCaveat
from captoken._format.root import RootRecord
from captoken._format.sealed import SealedValue
from captoken._language.caveats import Situation
from captoken._language.checks import Checks
from captoken._language.link import Actor, Lineage, Link
from captoken._language.links import Remembered, after, is_counted
from captoken.stores.ports import USES, Debit, Mark, MarkedStep, Rule

if TYPE_CHECKING:
    from captoken._language.entries import SelectorFacts
    from captoken._language.marks import Definition
    from captoken.proof import Evidence

ISSUER = "the issuer"  # who added link 0
DISCHARGER = "the discharger"  # who added what a discharge says


class KeyChange(NamedTuple):
    """A change of key on a bound token: where, and the evidence for it if it is signed (28.6)."""

    at: int
    signed: tuple[bytes, bytes, bytes] | None  # by which key, what body, and the signature


class Custody(SealedValue, frozen=True, eq=False, gc=False):
    """The changes of key on a bound token, in order, and what their signatures prove (28.6)."""

    _instead: ClassVar[str] = "verify the token where it is needed"

    changes: tuple[KeyChange, ...]
    tags: tuple[bytes, ...]  # the token's: secret

    def first_unsigned(self, states: Remembered[bool]) -> int | None:
        """Which of the hand-overs is the first that is not signed for, or None (28.6).

        A state commits to all before it, so one that is remembered vouches for every hand-over up
        to it.
        """
        changes = self.changes
        unknown: list[bytes] = []

        # From the last hand-over back, to the nearest state that is remembered.
        first = len(changes)
        while first:
            state = primitives.state(self.tags[changes[first - 1].at])
            if states.get(state):
                break
            unknown.append(state)
            first -= 1

        # And forward again. Only what held is remembered, and only with all before it (28.10).
        for index in range(first, len(changes)):
            evidence = self._evidence(changes[index])
            if evidence is None or not evidence.holds():
                return index
            states.keep(unknown.pop(), True)

        return None

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Every hand-over that a key signed, in order (28.8).

        Whether the signature holds or not: `Evidence.holds` says.
        """
        found = map(self._evidence, self.changes)
        return tuple(evidence for evidence in found if evidence is not None)

    def _evidence(self, change: KeyChange) -> Evidence | None:
        """The evidence of one change of key, or None where nobody signed."""
        from captoken.proof import Evidence  # of bound tokens alone

        if change.signed is None:
            return None
        key, body, signature = change.signed
        return Evidence(key, primitives.state(self.tags[change.at - 1]), body, signature)

    def proven(self, own: Sequence[Link], states: Remembered[bool]) -> frozenset[str]:
        """The agents whose signed hand-over verifies, of the links `own` of the token itself.

        Nobody after an unverified one counts.

        A key that the first agent bound by itself proves nothing: whoever had the token can have
        done it in its name, and nothing in the chain would show (28.7).
        """
        first = next(at for at, link in enumerate(own) if link.key is not None)

        # Whose is the first key? The issuer's word, or that of whoever handed on to it.
        handed_on = any(link.receiver is not None for link in own[: first + 1])
        known = first == 0 or handed_on

        proven: list[str] = []
        for change in self.changes[: self.first_unsigned(states)]:
            receiver = own[change.at].receiver
            if receiver is None:
                continue
            if known:
                proven.append(receiver)

            # From here on the key is that of somebody who is shown as vouched for.
            known = True

        return frozenset(proven)

    def __repr__(self) -> str:
        return "<Custody>"


class Bucket(NamedTuple):
    """What one link counts in one unit."""

    link_id: bytes
    unit: str
    limit: int
    at: int  # the link's place


class Counting(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What the links of a token count: in which buckets, at how many servers, and for how long."""

    buckets: tuple[Bucket, ...]

    # Was the token for one audience when it was first counted, or forbade (38.6, 46.8)? Yes if it
    # does neither. What its holder says below does not matter: whoever writes an audience there
    # writes another for the next server.
    one_place: bool

    # Until when the buckets are remembered, without leeway; None is for ever.
    kept: int | None

    @classmethod
    def of(
        cls,
        links: tuple[Link, ...],
        tags: tuple[bytes, ...],
        audience: str | None,
    ) -> Counting:
        """The same, worked out of the links, their tags, and the audience of the root record."""
        first = next((at for at, link in enumerate(links) if _takes(link)), None)
        one_place = first is None or _name_one(audience, links[: first + 1])
        return cls(tuple(_buckets(links, tags)), one_place, _kept(links))

    def debits(self, cost: Mapping[str, int], uses: int = 1) -> tuple[Debit, ...]:
        """What so many uses at that cost take from each bucket of the chain (38.1 to 38.3).

        Every link that counts is asked, from the first to the last. That the cost is stated in each
        unit is what step 8 has seen to.
        """
        return tuple(
            [
                Debit(bucket, unit, most, uses if unit == USES else cost[unit], at)
                for bucket, unit, most, at in self.buckets
            ]
        )

    def kept_until(self, leeway: int) -> int | None:
        """Until when its buckets have to be remembered, in seconds since the epoch, or for ever."""
        return None if self.kept is None else self.kept + leeway


def _name_one(audience: str | None, links: Iterable[Link]) -> bool:
    """Do the root record's audience and these links together leave one audience?"""
    left = None if audience is None else {audience}
    for link in links:
        for caveat in link.early:
            if caveat.key == "aud":
                named = set(caveat.value)
                left = named if left is None else left & named
    return left is not None and len(left) == 1


def _buckets(links: Sequence[Link], tags: Sequence[bytes]) -> Iterator[Bucket]:
    """The buckets of a chain, from the first link to the last."""
    for at, link in enumerate(links):
        if not link.counts:
            continue
        link_id = primitives.link_id(tags[at])
        for caveat in link.late:
            if caveat.key == "uses":
                yield Bucket(link_id, USES, caveat.value, at)
            elif caveat.key == "budget":
                for unit, most in sorted(caveat.value.items()):
                    yield Bucket(link_id, unit, most, at)


def _kept(links: Iterable[Link]) -> int | None:
    """Until when the buckets of a chain are asked about, without leeway; None is for ever.

    A bucket is asked about for as long as its own link lives, whatever ends sooner below it
    (38.10).
    """
    latest = 0
    ends: list[int] = []
    for link in links:
        ends += [caveat.value for caveat in link.early if caveat.key == "exp"]
        if not is_counted(link):
            continue

        # A bucket that nothing above it ends is kept for good.
        if not ends:
            return None
        latest = max(latest, min(ends))

    return latest


class Marked(msgspec.Struct, frozen=True, gc=False):
    """The marks and rules of one link that matter: a rule names them, or they are the task's."""

    marks: tuple[tuple[Mark, Definition], ...]
    rules: tuple[tuple[tuple[str, ...], Rule], ...]  # of each, the names in `in`


class Asking(NamedTuple):
    """One consent that a link asks for."""

    at: int  # the link's place
    state: bytes  # of the chain after it
    by: bytes  # the key that is to consent
    rule: Definition | None  # which accesses need it; None for what a rule over marks has in unless

    def names(self, digest: bytes, audiences: Iterable[str]) -> list[bytes]:
        """By what a consent to a step names its question, for each name of the server (47.4)."""
        return [self.name(digest, audience) for audience in audiences]

    def name(self, digest: bytes, audience: str) -> bytes:
        """The same, for one of its names."""
        from captoken._verification.consents import question  # of tokens that ask

        return question(self.by, self.state, digest, audience)


def _asking(links: Sequence[Link], tags: Sequence[bytes]) -> Iterator[Asking]:
    """The consents that a chain asks for, from the first link to the last."""
    for at, link in enumerate(links):
        for caveat in link.late if link.counts else ():
            state = primitives.state(tags[at])
            if caveat.key == "consent":
                for by, rule in caveat.asks:  # type: ignore[attr-defined]
                    yield Asking(at, state, by, rule)
            elif caveat.key == "forbid":
                for by in filter(None, caveat.unless):  # type: ignore[attr-defined]
                    yield Asking(at, state, by, None)


class AuthenticatedToken(SealedValue, frozen=True, eq=False, gc=False):
    """A genuine token: its signature and its discharges held, its links and its lineage could be
    read.

    Not a permission: it may have expired, be revoked, or be meant for another server. `judge` says.
    Immutable for whoever reads it, so that threads and grants share it. No text of it can be made
    again, and its `repr` has the public id alone.
    """

    _instead: ClassVar[str] = "verify the token where it is needed"

    # The root record, and its bytes as they arrived.
    root: RootRecord
    packet: Packet

    # The tag after each link. Secret: whoever has one can write siblings of what follows on it.
    tags: tuple[bytes, ...]

    # The links of the token, then those of its discharges; and of each link of a discharge the
    # index of the third-party caveat that it answers.
    links: tuple[Link, ...]
    places: tuple[int, ...]

    # Who holds it, and on what evidence. `custody` is of a bound token, and None for others.
    lineage: Lineage
    custody: Custody | None

    # The proof that came with the text. Step 10 looks at it.
    proof: bytes | None

    counts: bool  # is a ledger or a person asked for one of its links?
    reserves: bool  # does a link count what is used: has it uses or a budget?
    own: bool  # are caveats of an embedder's among its links?
    addressed: bool  # does the root or a link of its own name an audience?
    consents: tuple[bytes, ...] = ()  # those that came along: the end of step 10 looks at them

    # What was worked out since. `checks`, `selected_by`, `counting`, `asks_consents`, `added_by`,
    # `link_ids`, `chain`, `held_rows` and `marking` fill it in.
    asked: bool = False
    flat: Checks | None = None
    facts: SelectorFacts | None = None
    said_of_rows: dict[str, tuple[bool, tuple[bytes, ...]]] | None = None
    marked: tuple[Marked, ...] | None = None
    asking: tuple[Asking, ...] | None = None
    steps: dict[tuple[str | None, ...], MarkedStep | None] | None = None
    counted: Counting | None = None
    writers: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None
    actors: tuple[Actor, ...] | None = None

    @property
    def own_links(self) -> tuple[Link, ...]:
        """The links of the token itself, without those of its discharges.

        Lineage, keys and counting are read from these alone (33.7, 33.8).
        """
        return self.links[: len(self.tags)]

    def checks(self) -> Checks | None:
        """What its links ask, each once: from the second question on, and None at the first.

        One question is answered sooner link by link. Always None where an embedder's caveats are
        among them, which may answer otherwise each time. Two threads may both work it out: both
        come to the same.
        """
        flat = self.flat
        if flat is not None or self.own:
            return flat
        if not self.asked:
            force_setattr(self, "asked", True)
            return None
        flat = Checks.of(self.links, self.root.task, self.root.audience)
        force_setattr(self, "flat", flat)
        return flat

    @property
    def task(self) -> str:
        """The token's task: the root's, or the one below it that a link names (16.3)."""
        task = self.root.task
        for link in self.links:
            if link.narrows_situation:
                task = after(Situation(0, task=task), link).task
        return task

    @property
    def expires_at(self) -> int | None:
        """The least `exp` of links and discharges, in seconds since the epoch, or None (24.11)."""
        return _expiry(self.links)

    def expiry_at(self, at: int) -> int | None:
        """When the token as it was at link `at` expires, in seconds since the epoch, or None.

        So long can anything live that it became.
        """
        return _expiry(self.links[: at + 1])

    @property
    def link_ids(self) -> tuple[str, ...]:
        """The public name of each link and of all that descends from it, third-party caveats
        included.
        """
        ids = self.ids
        if ids is None:
            ids = tuple(map(b64encode, primitives.link_ids(self.tags)))
            force_setattr(self, "ids", ids)
        return ids

    # --- who ---

    def added_by(self, at: int) -> str:
        """Who held the token when link `at` of its own was added: a name as the chain has it.

        Whoever held it can have added the link. So it says whose word it is, and not who typed it.
        """
        writers = self.writers
        if writers is None:
            writers = tuple(self._writers())
            force_setattr(self, "writers", writers)
        # A ledger may name a link that is not there.
        return writers[at] if 0 <= at < len(writers) else self.lineage.holder

    def _writers(self) -> Iterator[str]:
        """Who held the token when each link was added, and added link 0."""
        writer, following = ISSUER, iter(self.lineage.holders)
        holder = next(following)
        for link in self.own_links:
            yield writer
            if link.receiver is not None:
                holder = next(following)
            writer = holder

    def place(self, at: int) -> tuple[int, str]:
        """Where a restriction stands, and who added it: a link, or the caveat that a discharge
        answers.

        A discharge has no place of its own in the chain, so that its caveat's stands for it (33.7).
        """
        own = len(self.tags)
        if at < own:
            return at, self.added_by(at)
        return self.places[at - own], DISCHARGER

    def chain(self, states: Remembered[bool]) -> tuple[Actor, ...]:
        """Every agent that has held the token, in order, with the basis on which its name is known
        (20.4).

        Worked out once: two threads come to the same. Only a bound token costs a look into
        `states`, or a signature for each hand-over.
        """
        actors = self.actors
        if actors is None:
            custody = self.custody
            proven = custody.proven(self.own_links, states) if custody is not None else frozenset()
            actors = self.lineage.chain(proven)
            force_setattr(self, "actors", actors)
        return actors

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Every hand-over that a key signed, in order (28.8).

        Whether the signature holds or not: `Evidence.holds` says.
        """
        return self.custody.evidence if self.custody is not None else ()

    @property
    def counting(self) -> Counting:
        """What its links count. Worked out once; two threads come to the same."""
        counted = self.counted
        if counted is None:
            counted = Counting.of(self.links, self.tags, self.root.audience)
            force_setattr(self, "counted", counted)
        return counted

    @property
    def asks_consents(self) -> tuple[Asking, ...]:
        """What its own links ask consent for. Worked out once; two threads come to the same."""
        asking = self.asking
        if asking is None:
            asking = tuple(_asking(self.own_links, self.tags))
            force_setattr(self, "asking", asking)
        return asking

    def is_in_one_place(self, entry: Link) -> bool:
        """Is what an entry of the overlay forbids asked about in one place (46.8)?

        Its marks are of the task. So what a holder says below link 0 has no part in it.
        """
        return not _takes(entry) or _name_one(self.root.audience, (self.links[0], entry))

    # --- the overlay ---

    @property
    def selected_by(self) -> SelectorFacts:
        """What selectors of the overlay ask about. Worked out once."""
        facts = self.facts
        if facts is None:
            # Where there is an overlay.
            from captoken._language.entries import SelectorFacts, nonces_of

            links = primitives.link_ids(self.tags)
            holders = self.lineage.holders
            facts = SelectorFacts(self.root, links, self.task, holders, nonces_of(self.own_links))
            force_setattr(self, "facts", facts)
        return facts

    # --- recall ---

    def link_below(
        self,
        at: int,
        links: Sequence[RawCaveat],
        stated: bytes,
        mac: bytes,
    ) -> str | None:
        """The id of the last of `links`, which follow on link `at`, if whoever asks had the token
        there.

        `mac` shows it: only who had the token at that link can make it (spec, "Recall"). None if it
        does not hold, or if the present holder got the token only later. Compared in constant time.
        """
        # Not above its own hand (37.3): there the token was somebody else's.
        if not self._since <= at < len(self.tags):
            return None

        from captoken import proof

        # Whoever got the token only below `at` does not have this tag (37.5).
        tag = self.tags[at]
        if not primitives.equal(proof.recall_mac(tag, stated), mac):
            return None

        # The id is computed, and never taken from whoever asks (37.4).
        for link in links:
            tag = chain.extend(tag, link)
        return b64encode(primitives.link_id(tag))

    @property
    def nonces(self) -> tuple[str | None, ...]:
        """The `n` of each link, None where it has none: it tells of a set which hand-over it is."""
        return tuple(link.nonce for link in self.own_links)

    @property
    def handed_on_at(self) -> tuple[int, ...]:
        """The links by which the token was handed on, from the first to the last."""
        return tuple(at for at, link in enumerate(self.own_links) if link.receiver is not None)

    @property
    def _since(self) -> int:
        """The link by which the present holder got the token; 0 if nobody handed it on (37.3)."""
        return max(self.handed_on_at, default=0)

    def __repr__(self) -> str:
        return f"<AuthenticatedToken {self.root.token_id}>"


class Kept(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A genuine token that is remembered, and what has to be known of it (24.22).

    The token is without the proof that it came with: a proof is for one sending.
    """

    genuine: AuthenticatedToken
    derived: bytes  # the macaroon key that its chain held under: secret
    characters: int  # the length of its text
    ends: float  # when it expires, in seconds since the epoch; infinity is never


class Memory(Protocol):
    """What a verifier remembers: handed to the plan, which fills it and asks it.

    `memory.py` has the one there is. It makes an answer sooner, and never another (24.22).
    """

    @property
    def states(self) -> Remembered[bool]:
        """States of chains up to which every hand-over was found signed (28.10)."""
        ...

    @property
    def links(self) -> Remembered[Link] | None:
        """Links whose chain has held, by their bytes; None if they are not remembered."""
        ...

    @property
    def texts(self) -> Remembered[Kept]:
        """Genuine tokens, by the digest of their text without its proof."""
        ...

    @property
    def longest(self) -> int:
        """How many characters a text may have that is remembered; 0 for none at all."""
        ...


# What a ledger denies by. Marks alone are only set.
_DENIES = frozenset(("uses", "budget", "forbid"))


def _takes(link: Link) -> bool:
    """Does it count, or forbid: has it to be asked about in one place?"""
    return link.counts and any(caveat.key in _DENIES for caveat in link.late)


def _expiry(links: Sequence[Link]) -> int | None:
    """The least `exp` of some links, or None."""
    ends = [caveat.value for link in links for caveat in link.early if caveat.key == "exp"]
    return min(ends, default=None)
