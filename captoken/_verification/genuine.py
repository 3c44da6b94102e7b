"""A token whose signature held, read and folded: what steps 1 to 6 of the plan give (spec,
"Verification").

It depends on the token and the keys alone: not on a clock, an overlay, a caller or who asks. What
can be worked out from it is worked out here, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, Protocol

from msgspec.structs import force_setattr

from captoken import proof
from captoken._format import chain, primitives
from captoken._format.encoding import b64encode
from captoken._format.packet import Packet, RawCaveat
from captoken._format.root import RootRecord
from captoken._format.sealed import SealedValue
from captoken._language.capability import Capability
from captoken._language.caveats import Situation
from captoken._language.lineage import Actor, Lineage, read_along
from captoken._language.links import Link, settled
from captoken._language.overlay import SelectorFacts
from captoken.proof import Evidence
from captoken.stores.ports import USES, Debit

ISSUER = "the issuer"  # who added link 0
DISCHARGER = "the discharger"  # who added what a discharge says


class Custody(NamedTuple):
    """A change of key on a bound token: where, and the evidence for it if it is signed."""

    at: int
    signed: tuple[bytes, bytes, bytes] | None  # by which key, what body, and the signature


class Memory(Protocol):
    """States of chains up to which every hand-over was found signed: a verifier's, bounded, handed
    in.
    """

    def __contains__(self, state: bytes, /) -> bool: ...

    def add(self, state: bytes, /) -> None: ...


class Genuine(SealedValue, frozen=True, eq=False):
    """A genuine token: its signature and its discharges held, its links and its lineage could be
    read.
    """

    _instead: ClassVar[str] = "verify the token where it is needed"

    root: RootRecord
    packet: Packet
    tags: tuple[bytes, ...]  # after each link; secret: each is the key to its link's siblings
    links: tuple[Link, ...]  # of the token, then of its discharges
    places: tuple[int, ...]  # of each link of a discharge: the third-party caveat that it answers
    lineage: Lineage
    custody: tuple[Custody, ...]  # of a bound token
    proof: bytes | None  # as it came with the text
    counts: bool  # does a link count what it is used for?
    own: bool  # are caveats of an embedder's among its links?
    addressed: bool  # does the root or a link of its own name an audience?
    asked: bool = False  # see `was_asked`
    held: Capability | None = None  # see `capability`
    facts: SelectorFacts | None = None  # see `selected_by`

    @property
    def bound(self) -> bool:
        """Is the token bound to a key?"""
        return self.lineage.key is not None

    @property
    def own_links(self) -> tuple[Link, ...]:
        """The links of the token itself, without those of its discharges."""
        return self.links[: len(self.tags)]

    @property
    def capability(self) -> Capability:
        """The meet of all links: the most that the token can do. Worked out once."""
        held = self.held
        if held is None:
            held = Capability.of(self.links, self.root.task, self.root.audience)
            force_setattr(self, "held", held)
        return held

    def was_asked(self) -> bool:
        """Was an access asked about before? The first question is answered sooner link by link."""
        before = self.asked
        if not before:
            force_setattr(self, "asked", True)
        return before

    @property
    def task(self) -> str:
        """The token's task: the root's, or the one below it that a link names."""
        situation = Situation(0, task=self.root.task)
        for link in self.links:
            if link.settles:
                situation = settled(situation, link)
        return situation.task

    @property
    def expires_at(self) -> int | None:
        """Seconds since the epoch, or None."""
        return _expiry(self.links)

    def expiry_at(self, at: int) -> int | None:
        """When the token as it was at link `at` expires: so long can anything live that it
        became.
        """
        return _expiry(self.links[: at + 1])

    @property
    def link_ids(self) -> tuple[str, ...]:
        """The public name of each link and of all that descends from it."""
        return tuple(map(b64encode, primitives.link_ids(self.tags)))

    # --- who ---

    def added_by(self, at: int) -> str:
        """Who held the token when link `at` of its own was added."""
        return ISSUER if at == 0 else read_along(self.root.agent, self.links[:at]).holder

    def place(self, at: int) -> tuple[int, str]:
        """Where a restriction stands, and who added it: a link, or the caveat that a discharge
        answers.
        """
        own = len(self.tags)
        if at < own:
            return at, self.added_by(at)
        return self.places[at - own], DISCHARGER

    def chain(self, memory: Memory) -> tuple[Actor, ...]:
        """Every agent that has held the token, in order, with the basis on which its name is
        known.
        """
        return self.lineage.chain(self._proven(memory) if self.custody else frozenset())

    def first_unsigned(self, memory: Memory) -> int | None:
        """Which of the hand-overs in `custody` is the first that is not signed for, or None.

        A state commits to all before it, so one that is remembered vouches for every hand-over up
        to it.
        """
        custody = self.custody
        unknown: list[bytes] = []
        first = len(custody)
        while first:
            state = primitives.state(self.tags[custody[first - 1].at])
            if state in memory:
                break
            unknown.append(state)
            first -= 1
        for index in range(first, len(custody)):
            evidence = self._evidence(custody[index])
            if evidence is None or not evidence.holds():
                return index
            memory.add(unknown.pop())
        return None

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Every hand-over that a key signed, in order, whether the signature holds or not."""
        found = map(self._evidence, self.custody)
        return tuple(evidence for evidence in found if evidence is not None)

    def _evidence(self, custody: Custody) -> Evidence | None:
        if custody.signed is None:
            return None
        key, body, signature = custody.signed
        return Evidence(key, primitives.state(self.tags[custody.at - 1]), body, signature)

    def _proven(self, memory: Memory) -> frozenset[str]:
        """The agents who were handed the token with a signature that holds; below one that does
        not, nobody.

        A key that the first agent bound by itself proves nothing: whoever had the token can have
        done it in its name.
        """
        own = self.own_links
        first = next((at for at, link in enumerate(own) if link.key is not None), 0)
        known = first == 0 or any(link.receiver is not None for link in own[: first + 1])
        proven: list[str] = []
        for custody in self.custody[: self.first_unsigned(memory)]:
            receiver = own[custody.at].receiver
            if receiver is None:
                continue
            if known:
                proven.append(receiver)
            known = True  # from here on the key is that of somebody who is shown as vouched for
        return frozenset(proven)

    # --- what is counted ---

    def is_for_one_server(self) -> bool:
        """Was the token for one audience when it was first counted? What its holder says below it
        does not matter.
        """
        first = next(at for at, link in enumerate(self.links) if link.counts)
        audiences = Capability.of(self.links[: first + 1], audience=self.root.audience).audiences
        return audiences is not None and len(audiences) == 1

    def debits(self, cost: Mapping[str, int]) -> tuple[Debit, ...]:
        """What an access of that cost takes from each bucket of the chain (spec, "Ledger")."""
        taken: list[Debit] = []
        for at, link in enumerate(self.links):
            if not link.counts:
                continue
            bucket = primitives.link_id(self.tags[at])
            for caveat in link.late:
                if caveat.key == "uses":
                    taken.append(Debit(bucket, USES, caveat.value, 1, at))
                elif caveat.key == "budget":
                    for unit, most in sorted(caveat.value.items()):
                        taken.append(Debit(bucket, unit, most, cost[unit], at))
        return tuple(taken)

    def kept_until(self, leeway: int) -> int | None:
        """Until when its buckets have to be remembered; None is for ever.

        A bucket is asked about for as long as its own link lives, whatever ends sooner below it.
        """
        latest = 0
        ends: list[int] = []
        for link in self.links:
            ends += [caveat.value for caveat in link.early if caveat.key == "exp"]
            if not link.counts:
                continue
            if not ends:
                return None
            latest = max(latest, min(ends) + leeway)
        return latest

    # --- the overlay ---

    @property
    def selected_by(self) -> SelectorFacts:
        """What selectors of the overlay ask about. Worked out once."""
        facts = self.facts
        if facts is None:
            links = primitives.link_ids(self.tags)
            facts = SelectorFacts(self.root, links, self.task, self.lineage.holders)
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
        does not hold, or if the present holder got the token only later.
        """
        if not self._since <= at < len(self.tags):
            return None
        tag = self.tags[at]
        if not primitives.equal(proof.recall_mac(tag, stated), mac):
            return None
        for link in links:
            tag = chain.extend(tag, link)
        return b64encode(primitives.link_id(tag))

    @property
    def _since(self) -> int:
        """The link by which the present holder got the token."""
        handed = [at for at, link in enumerate(self.own_links) if link.receiver is not None]
        return max(handed, default=0)

    def __repr__(self) -> str:
        return f"<Genuine {self.root.token_id}>"


def _expiry(links: Sequence[Link]) -> int | None:
    ends = [caveat.value for link in links for caveat in link.early if caveat.key == "exp"]
    return min(ends, default=None)
