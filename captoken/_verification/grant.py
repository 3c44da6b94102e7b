"""What a verifier vouches for, and how it is asked: steps 7 to 11 of the plan (spec, "Verification").

A `Grant` has been through steps 1 to 6, which depend on the token and the keys alone, and asks the rest each time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from msgspec import structs

from captoken._format import names, primitives
from captoken._format.clocks import CLOCKS_DIFFER, PROOF_AHEAD, PROOF_PAST, read_clock
from captoken._format.encoding import b64encode
from captoken._format.packet import Packet
from captoken._format.root import RootRecord
from captoken._format.sealed import Sealed
from captoken._format.spelling import spelled_time
from captoken._language.access import Access, Caller, amounts
from captoken._language.capability import Capability
from captoken._language.caveats import V1, Situation
from captoken._language.lineage import Actor, Lineage, read_along
from captoken._language.links import Link, link_prohibits, settled
from captoken._language.overlay import Facts, Overlay
from captoken._language.reasons import CODES
from captoken._verification.decision import Attribution, Decision, Denied, Refusal
from captoken.proof import Evidence, Proof, digest_of, proof_message, read_proof, use_of
from captoken.stores.ports import LEASE, USES, Debit, Reservation, Use

if TYPE_CHECKING:
    from captoken._verification.verifier import Verifier

_log = logging.getLogger("captoken")
ISSUER = "the issuer"  # who added link 0
DISCHARGER = "the discharger"  # who added what a discharge says

# What comes with a token: the proof, if there is one, and what it is about.
Presented: TypeAlias = "tuple[str | None, Access | bytes | None]"
# A hand-over on a bound token: its link, and if that is signed, by which key, what, and the signature.
Custody: TypeAlias = "tuple[int, tuple[bytes, bytes, bytes] | None]"


class Grant(Sealed):
    """What a verifier vouches for: a genuine token's capability, and who is behind it. Only a Verifier makes one.

    Holds no promise for later: `authorize`, `check` and `explain` look at the clock each time. Whoever holds the object
    has the power; hand on the token, not the grant.
    """

    __slots__ = (
        "_addressed", "_asked", "_capability", "_counts", "_custody", "_lineage", "_links", "_made", "_own", "_packet",
        "_places", "_seen", "_tags", "_verifier", "issued",
    )  # fmt: skip
    _instead = "verify the token where it is needed"

    _verifier: Verifier
    _links: tuple[Link, ...]  # of the token, then of its discharges
    _places: tuple[int, ...]  # of each link of a discharge: the third-party caveat that it answers
    _lineage: Lineage
    _made: int  # when the keys were asked
    _packet: Packet
    _tags: tuple[bytes, ...]  # secret: each is the key to its link's siblings
    _asked: bool  # was there a first question?
    _capability: Capability | None
    _seen: Facts | None  # see `_facts`
    _counts: bool  # does a link count what it is used for?
    _custody: tuple[Custody, ...]  # of a bound token
    _own: bool  # are caveats of an embedder's among its links?
    _addressed: bool  # to this server, or to nobody where that will do
    issued: RootRecord  # the only identity to authorize on: no holder can write it

    def __init__(
        self,
        verifier: Verifier,
        issued: RootRecord,
        links: tuple[Link, ...],
        places: tuple[int, ...],
        lineage: Lineage,
        packet: Packet,
        tags: tuple[bytes, ...],
        custody: tuple[Custody, ...],
        made: int,
    ) -> None:
        put = object.__setattr__
        put(self, "_verifier", verifier)
        put(self, "issued", issued)
        put(self, "_links", links)
        put(self, "_places", places)
        put(self, "_lineage", lineage)
        put(self, "_packet", packet)
        put(self, "_tags", tags)
        put(self, "_custody", custody)
        put(self, "_made", made)
        put(self, "_capability", None)
        put(self, "_asked", False)
        put(self, "_seen", None)
        put(self, "_counts", any(link.counts for link in links))
        own = verifier._vocabulary is not V1 and any(
            ":" in caveat.key for link in links for caveat in link.caveats
        )
        put(self, "_own", own)
        put(
            self,
            "_addressed",
            verifier._unaddressed
            or issued.audience is not None
            or _has_audience(links[: len(tags)]),
        )

    @property
    def token_id(self) -> str:
        """The id of the whole tree that was minted."""
        return self.issued.token_id

    @property
    def chain(self) -> tuple[Actor, ...]:
        """Every agent that has held the token, in order, with the basis on which its name is known."""
        return self._lineage.chain(self._proven() if self._custody else frozenset())

    @property
    def actor(self) -> Actor:
        """Who holds the token: `issued` if nobody has handed it on, `vouched` for by whoever has, `proven` by a signature."""
        return self.chain[-1]

    @property
    def parent(self) -> Actor | None:
        """Who handed it to the actor."""
        return self.chain[-2] if len(self.chain) > 1 else None

    @property
    def key(self) -> str | None:
        """The Ed25519 key that the token is bound to, as base64url, or None for a bearer token."""
        key = self._lineage.key
        return b64encode(key) if key is not None else None

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Every hand-over that a key signed, in order: to be kept, and checked by anyone without the root key."""
        return tuple(
            self._evidence(at, *signed) for at, signed in self._custody if signed is not None
        )

    def _evidence(self, at: int, key: bytes, body: bytes, signature: bytes) -> Evidence:
        return Evidence(key, primitives.state(self._tags[at - 1]), body, signature)

    def _unsigned(self) -> int | None:
        """The first of the hand-overs that is not signed for, or None.

        A state commits to all before it, so that one that is remembered vouches for every hand-over up to it.
        """
        custody = self._custody
        unknown: list[bytes] = []
        first = len(custody)
        while first:
            state = primitives.state(self._tags[custody[first - 1][0]])
            if self._verifier._remembered(state):
                break
            unknown.append(state)
            first -= 1
        for index in range(first, len(custody)):
            at, signed = custody[index]
            if signed is None or not self._evidence(at, *signed).holds():
                return index
            self._verifier._remember(unknown.pop())
        return None

    def _proven(self) -> frozenset[str]:
        """The agents who were handed the token with a signature that holds; below one that does not, nobody is.

        A key that the first agent bound by itself proves nothing: whoever had the token can have done it in its name.
        """
        own = self._links[: len(self._tags)]
        first = next((at for at, link in enumerate(own) if link.key is not None), 0)
        known = first == 0 or any(link.receiver is not None for link in own[: first + 1])
        names: list[str] = []
        for at, _ in self._custody[: self._unsigned()]:
            receiver = own[at].receiver
            if receiver is not None:
                names += [receiver] if known else []
                known = True  # from here on the key is that of somebody who is shown as vouched for
        return frozenset(names)

    @property
    def capability(self) -> Capability:
        """The most that the token can do."""
        capability = self._capability
        if capability is None:
            capability = Capability.of(self._links, self.issued.task, self.issued.audience)
            object.__setattr__(self, "_capability", capability)
        return capability

    @property
    def task(self) -> str:
        """The token's task: the root's, or the one below it that a link names."""
        task = self.issued.task
        for link in self._links:
            if link.settles:
                task = settled(Situation(0, task=task), link).task
        return task

    @property
    def expires_at(self) -> int | None:
        """Seconds since the epoch, or None. Without the verifier's leeway."""
        expiries: list[int] = [
            caveat.value for link in self._links for caveat in link.caveats if caveat.key == "exp"
        ]
        return min(expiries, default=None)

    def _expiry_of(self, at: int) -> int | None:
        """When the token as it was at link `at` expires: so long can anything live that was made from it."""
        first = self._links[: at + 1]
        return min(
            (caveat.value for link in first for caveat in link.caveats if caveat.key == "exp"),
            default=None,
        )

    @property
    def link_ids(self) -> tuple[str, ...]:
        """The public name of each link and of all that descends from it."""
        return link_ids(self._tags)

    @property
    def caveats(self) -> tuple[tuple[bytes, bytes], ...]:
        """The links as they travel: what each says, and for a third-party caveat the box. Nothing in them is secret."""
        return self._packet.caveats

    def authorize(self, access: Access, *, caller: Caller | None = None) -> Grant:
        """This grant, if it permits `access` now. Raises Denied, with the decision."""
        return granted(self.check(access, caller=caller))

    def check(self, access: Access, *, caller: Caller | None = None) -> Decision:
        """The decision on `access` now, true if allowed. Never raises on denial. Takes no proof: the token had one."""
        return self._verifier._settled(self._ask(*stated(access, caller), False))

    def explain(self, access: Access, *, caller: Caller | None = None) -> Decision:
        """The decision that `check` would come to, with nothing committed."""
        return self._ask(*stated(access, caller), True)

    def reserve(self, access: Access, *, caller: Caller | None = None) -> Reserved:
        """Permission for one access that is paid for when it is over: settle it, or cancel it if nothing was done.

        Raises Denied. A block (`with grant.reserve(access) as reserved:`) that settled and cancelled nothing is settled in full
        at its end, also when an exception leaves it: whoever calls may hang up when the work is done.
        """
        decision = self.check(access, caller=caller)
        granted(decision)
        reservations = [effect for effect in decision.effects if isinstance(effect, Reservation)]
        return Reserved(self._verifier, reservations[0] if reservations else None)

    def recheck(self, accesses: Iterable[Access] = (), *, caller: Caller | None = None) -> Decision:
        """Whether the grant still stands now, and permits `accesses` that are under way: nothing is counted again.

        Not recorded: see `record`.
        """
        decision = self._decide(read_clock(self._verifier._clock), None, None, False)
        for access in accesses:
            if decision:
                decision = self.explain(access, caller=caller)
        return decision

    def refusal(self, code: str, text: str, access: Access | None = None) -> Decision:
        """A denial of an adapter's own, in the shape of all others, not yet recorded. `code` is one of the spec's."""
        now = read_clock(self._verifier._clock)
        return self._denied(now, access, None, (Refusal(code, text),), dry=False)

    def record(self, decision: Decision) -> Decision:
        """The decision, once it is in the audit trail: for adapters, of what `recheck` or `refusal` gave.

        Raises ValueError for what a dry run allowed: nothing was committed.
        """
        if decision.dry and decision:
            raise ValueError("a dry run allows nothing: nothing was committed")
        return self._verifier._recorded(
            structs.replace(decision, dry=False) if decision.dry else decision
        )

    def check_all(self, accesses: Sequence[Access], *, caller: Caller | None = None) -> Decision:
        """The decision on what one step needs: all of it together used once, and recorded together.

        The first access that is refused is the answer, and alone is recorded. Raises ValueError for no access.
        """
        if not accesses:
            raise ValueError("state at least one access")
        decisions = [self._ask(*stated(access, caller), False) for access in accesses]
        for decision in decisions:
            if not decision:
                return self._verifier._settled(decision)
        if self._counts:
            cost: dict[str, int] = {}
            for access in accesses:
                for unit, amount in access.cost.items():
                    cost[unit] = cost.get(unit, 0) + amount
            taken = structs.replace(decisions[0], effects=(self._taken(cost, decisions[0].now),))
            charged = self._verifier._committed(self, taken)
            if not charged:  # of all of them
                decisions = [structs.replace(charged, access=access) for access in accesses]
            else:
                decisions = [
                    charged,
                    *(structs.replace(one, effects=charged.effects) for one in decisions[1:]),
                ]
        return self._verifier._recorded(*decisions)

    def _ask(self, access: Access, caller: Caller | None, dry: bool) -> Decision:
        # From the second question on the capability says in one look what all links together say; the links are asked one
        # by one to tell why, and where an embedder's caveats are among them, on whose `covers` and `meet` nothing rests.
        now = read_clock(self._verifier._clock)
        age, refusals = self._overlaid(now, access)
        if refusals:
            return self._denied(now, access, caller, refusals, dry, step=7)
        if (
            self._capability is None and not self._asked
        ):  # one question is answered sooner by the links
            object.__setattr__(self, "_asked", True)
        elif self._ahead(now) is None and self._addressed and self._counted_once and not self._own:
            reason = self.capability.prohibits(
                access, self._situation(now, self._verifier._audiences, age)
            )
            if reason is None:
                return self._finished(now, access, caller, dry)
            decision = self._judged(now, access, caller, dry, age)
            if decision:  # were the two ever to differ, the stricter answer stands
                return self._denied(now, access, caller, (Refusal(reason.code, reason.text),), dry)
            return decision
        return self._judged(now, access, caller, dry, age)

    def _decide(
        self,
        now: int,
        access: Access | None,
        caller: Caller | None,
        dry: bool,
        presented: Presented | None = None,
    ) -> Decision:
        """Steps 7 to 10. `presented` is there when a token is: whoever has a grant has been through step 10."""
        age, refusals = self._overlaid(now, access)
        if refusals:
            return self._denied(now, access, caller, refusals, dry, step=7)
        return self._judged(now, access, caller, dry, age, presented)

    def _judged(
        self,
        now: int,
        access: Access | None,
        caller: Caller | None,
        dry: bool,
        age: int | None,
        presented: Presented | None = None,
    ) -> Decision:
        """Steps 8 to 10, link by link, under an overlay of that age."""
        refusals = self._refusals(now, access, age)
        if refusals:
            return self._denied(now, access, caller, tuple(refusals), dry)
        return self._finished(now, access, caller, dry, presented)

    def _overlaid(self, now: int, access: Access | None) -> tuple[int | None, tuple[Refusal, ...]]:
        """Step 7: how old the overlay is, in seconds, if there is one, and what stands against this token now."""
        verifier = self._verifier
        if (
            verifier._max_age is not None
            and not -CLOCKS_DIFFER <= now - self._made <= verifier._max_age
        ):
            text = f"verified at {spelled_time(self._made)}: not within {verifier._max_age} s"
            return None, (Refusal("stale_grant", text),)
        if verifier._overlay is None:
            return None, ()
        try:
            overlay = verifier._overlay()
            if overlay is not None and not isinstance(overlay, Overlay):
                raise TypeError(f"an Overlay, not {type(overlay).__name__}")
        except Exception as error:  # whatever a source raises, it does not say that nothing stands
            return None, (
                Refusal("store_unavailable", f"the overlay cannot be had: {type(error).__name__}"),
            )
        stale = _staleness(overlay, now, verifier._staleness)
        if stale is not None:
            if not verifier._stale:
                return None, (Refusal("stale_overlay", stale),)
            _log.warning("deciding without a fresh overlay: %s", stale)
        if overlay is None:
            return None, ()
        age = max(0, now - overlay.issued_at)
        facts = self._facts
        if not overlay.touches(facts.keys):
            return age, ()
        refusals: list[Refusal] = []
        for entry in overlay.on(facts, now):
            said = f"by {entry.by} at {spelled_time(entry.at)}: {entry.why}"
            link = overlay.link(entry)
            if link is None:
                refusals.append(Refusal("revoked", f"revoked {said}", added_by=entry.by))
                continue
            reason = link_prohibits(
                link, access, self._situation(now, frozenset(self._audiences_left()), age)
            )
            if reason is not None:
                refusals.append(
                    Refusal("narrowed", f"narrowed {said}; {reason.text}", added_by=entry.by)
                )
        if refusals:
            refusals.sort(key=lambda refusal: refusal.code != "revoked")
        return age, tuple(refusals)

    @property
    def _lineage_since(self) -> int:
        """The link by which the present holder got the token."""
        return max(
            (
                at
                for at, link in enumerate(self._links[: len(self._tags)])
                if link.receiver is not None
            ),
            default=0,
        )

    @property
    def _counted_once(self) -> bool:
        """Is one ledger all that counts this token? Since it is shared, or since the token was for one server before it
        was counted: what its holder says below does not matter."""
        ledger = self._verifier._ledger
        if not self._counts or ledger is None or ledger.shared is True:
            return True
        own = self._links[: next(at for at, link in enumerate(self._links) if link.counts) + 1]
        audiences = Capability.of(own, audience=self.issued.audience).audiences
        return audiences is not None and len(audiences) == 1

    def _taken(self, cost: Mapping[str, int], now: int) -> Reservation:
        """What an access of that cost takes from each bucket of the chain."""
        debits: list[Debit] = []
        ends: list[int] = []
        keep: int | None = 0
        for at, link in enumerate(self._links):
            ends += [caveat.value for caveat in link.caveats if caveat.key == "exp"]
            if not link.counts:
                continue
            # A bucket is asked about for as long as its own link lives, whatever ends sooner below it.
            keep = (
                None if keep is None or not ends else max(keep, min(ends) + self._verifier._leeway)
            )
            bucket = primitives.link_id(self._tags[at])
            for caveat in link.caveats:
                if caveat.key == "uses":
                    debits.append(Debit(bucket, USES, caveat.value, 1, at))
                elif caveat.key == "budget":
                    debits += [
                        Debit(bucket, unit, most, cost[unit], at)
                        for unit, most in sorted(caveat.value.items())
                    ]
        return Reservation(
            self._verifier._random(16), tuple(debits), self.issued.issued_at, now + LEASE, keep
        )

    @property
    def _facts(self) -> Facts:
        """What selectors of the overlay ask about."""
        facts = self._seen
        if facts is None:
            links = primitives.link_ids(self._tags)
            facts = Facts(self.issued, links, self.task, self._lineage.holders)
            object.__setattr__(self, "_seen", facts)
        return facts

    def _finished(
        self,
        now: int,
        access: Access | None,
        caller: Caller | None,
        dry: bool,
        presented: Presented | None = None,
    ) -> Decision:
        if caller is not None:
            refusal = self._calls(caller)
            if refusal is not None:
                return self._denied(now, access, caller, (refusal,), dry)
        effects: tuple[Use | Reservation, ...] = ()
        if presented is not None and (self._lineage.key is not None or presented[0] is not None):
            proof, request = presented
            used = self._proved(now, proof, access if request is None else request)
            if isinstance(used, Refusal):
                return self._denied(now, access, caller, (used,), dry)
            effects = (used,)
        if access is not None and self._counts:
            effects += (self._taken(access.cost, now),)
        if (
            dry and effects
        ):  # what is not committed grants nothing, and nothing that it shows is a grant
            known = self._attribution
            return Decision(
                code="allowed", now=now, access=access, caller=caller, granted=True, dry=True, known=known, effects=effects,
                overlaid=self._verifier._overlay is not None, leeway=self._verifier._leeway,
            )  # fmt: skip
        return Decision(
            code="allowed", now=now, access=access, caller=caller, granted=self, dry=dry, known=self, effects=effects,
            overlaid=self._verifier._overlay is not None, leeway=self._verifier._leeway,
        )  # fmt: skip

    def _proved(self, now: int, text: str | None, request: Access | bytes | None) -> Use | Refusal:
        """Step 10: every hand-over was signed, and whoever holds the key has sent this request. Or why not."""
        key = self._lineage.key
        if key is None:
            return Refusal("bad_proof", "a proof, and the token is bound to no key")
        unsigned = self._unsigned() if self._custody else None
        if unsigned is not None:
            at = self._custody[unsigned][0]
            text_ = "the key is not signed for by the one that the token was bound to"
            return Refusal("bad_proof", text_, at, self._added_by(at))
        if text is None:
            return Refusal(
                "proof_missing", "the token is bound to a key, and no proof came with it"
            )
        proof = read_proof(text)
        if proof is None:
            return Refusal("bad_proof", "it cannot be read")
        if not now - PROOF_PAST <= proof.issued_at <= now + PROOF_AHEAD:
            return Refusal(
                "bad_proof",
                f"made at {spelled_time(proof.issued_at)}, which is too long ago or yet to come",
            )
        try:
            digest = digest_of(request)
        except (ValueError, RecursionError):
            return Refusal("bad_proof", "the request cannot be spelled")
        audiences = self._audiences_left()
        if not any(
            primitives.signed(key, self._proof_message(proof, name, digest), proof.signature)
            for name in audiences
        ):
            return Refusal(
                "bad_proof",
                "not signed by the key that the token is bound to, for this token, server and request",
            )
        return use_of(key, proof)

    def _proof_message(self, proof: Proof, audience: str, digest: bytes) -> bytes:
        return proof_message(self._tags[-1], audience, proof.issued_at, proof.nonce, digest)

    def _audiences_left(self) -> list[str]:
        """The verifier's audiences that the token is addressed to: nearly always one."""
        situation = Situation(0, audiences=self._verifier._audiences, task=self.issued.task)
        if self.issued.audience is not None:
            situation = Situation(
                0, audiences=situation.audiences & {self.issued.audience}, task=self.issued.task
            )
        for link in self._links:
            situation = settled(situation, link) if link.settles else situation
        return sorted(situation.audiences)

    @property
    def _attribution(self) -> Attribution:
        return Attribution(self.issued, self.chain, self.task, self.link_ids, self.caveats)

    def _denied(
        self,
        now: int,
        access: Access | None,
        caller: Caller | None,
        refusals: tuple[Refusal, ...],
        dry: bool,
        effects: tuple[Use | Reservation, ...] = (),
        step: int | None = None,
    ) -> Decision:
        known = self._attribution
        return Decision(
            code=refusals[0].code, now=now, access=access, caller=caller, known=known,
            overlaid=self._verifier._overlay is not None, leeway=self._verifier._leeway,
            refusals=refusals, step=step or CODES[refusals[0].code].step, dry=dry, effects=effects,
        )  # fmt: skip

    def _situation(self, now: int, audiences: frozenset[str], age: int | None) -> Situation:
        return Situation(now, self._verifier._leeway, audiences, self.issued.task, age)

    def _ahead(self, now: int) -> Refusal | None:
        if self.issued.issued_at <= now + max(CLOCKS_DIFFER, self._verifier._leeway):
            return None
        return Refusal(
            "not_yet_valid",
            f"issued at {spelled_time(self.issued.issued_at)}, which is yet to come",
        )

    def _refusals(self, now: int, access: Access | None, age: int | None) -> list[Refusal]:
        """What refuses, in the order of step 8: the root's `iat` and `aud`; then link by link; then `unaddressed`."""
        refusals: list[Refusal] = []
        ahead, audience, audiences = (
            self._ahead(now),
            self.issued.audience,
            self._verifier._audiences,
        )
        if ahead is not None:
            refusals.append(ahead)
        if audience is not None:
            if audience not in audiences:
                refusals.append(Refusal("wrong_audience", f"issued for {audience} alone"))
            audiences = audiences & {audience}
        situation = self._situation(now, audiences, age)
        for at, link in enumerate(self._links):
            reason = link_prohibits(link, access, situation)
            if reason is not None:
                refusals.append(Refusal(reason.code, reason.text, *self._place(at)))
            if link.settles:
                situation = settled(situation, link)
        if not self._addressed:
            text = "addressed to nobody, and this server takes only what is addressed to it"
            refusals.append(Refusal("unaddressed", text))
        elif not self._counted_once:
            text = "counted, and good at more servers than one, which do not declare a ledger that they share"
            refusals.append(Refusal("unaddressed", text))
        elif self._lineage.key is not None and not self._verifier._audiences:
            refusals.append(
                Refusal("unaddressed", "bound to a key, and this server has no name to prove it to")
            )
        return refusals

    def _added_by(self, at: int) -> str:
        return ISSUER if at == 0 else read_along(self.issued.agent, self._links[:at]).holder

    def _place(self, at: int) -> tuple[int, str]:
        """Where a restriction stands: the token's link and who added it, or the caveat that a discharge answers."""
        own = len(self._tags)
        return (at, self._added_by(at)) if at < own else (self._places[at - own], DISCHARGER)

    def _calls(self, caller: Caller) -> Refusal | None:
        """Step 9: what the server itself knows of the caller agrees with the token."""
        if caller.agent is not None and caller.agent != self._lineage.holder:
            return Refusal(
                "caller", f"{caller.agent} calls with the token of {self._lineage.holder}"
            )
        if caller.task is not None and not names.at_or_below(caller.task, self.task):
            return Refusal(
                "caller", f"called from task {caller.task} with a token for task {self.task}"
            )
        return None

    def __repr__(self) -> str:
        chain_ = " > ".join(actor.name for actor in self.chain)
        return (
            f"<Grant {self.token_id}, {chain_}, for {self.issued.subject}, task {self.issued.task}>"
        )


class Reserved:
    """What was reserved for one access. For a token that counts nothing there is nothing to settle, and nothing happens."""

    __slots__ = ("_open", "_reservation", "_verifier")

    def __init__(self, verifier: Verifier, reservation: Reservation | None) -> None:
        self._verifier, self._reservation, self._open = (
            verifier,
            reservation,
            reservation is not None,
        )

    def settle(self, cost: Mapping[str, int] | None = None) -> bool:
        """What it cost in fact, by unit, at most what was reserved; None is all of it. False if too late: all is spent.

        Raises TypeError or ValueError for a cost that is none, or that leaves a unit out: then all is spent as well.
        """
        if cost is None:
            return self._close(None)
        try:
            taken = {**amounts(cost, "cost"), USES: 1}
            left_out = (
                {debit.unit for debit in self._reservation.debits} - taken.keys()
                if self._reservation
                else ()
            )
            if left_out:
                raise ValueError(f"what it cost in {', '.join(sorted(left_out))} is not stated")
        except (TypeError, ValueError):
            self._open = False  # something was done: what is not settled in time is spent
            raise
        return self._close(taken)

    def cancel(self) -> bool:
        """Nothing was done: all of it goes back. False if it was too late, and all is spent."""
        return self._close({})

    def _close(self, taken: Mapping[str, int] | None) -> bool:
        if not self._open or self._reservation is None:
            return self._reservation is None
        self._open = False
        ledger = self._verifier._ledger
        return (
            ledger is not None
            and ledger.settle(self._reservation.id, taken, read_clock(self._verifier._clock))
            is True
        )

    def __enter__(self) -> Reserved:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._open:
            self._close(None)


def _has_audience(links: tuple[Link, ...]) -> bool:
    return any(
        link.settles and any(caveat.key == "aud" for caveat in link.caveats) for link in links
    )


def _staleness(overlay: Overlay | None, now: int, bound: int) -> str | None:
    """Why an overlay is not fresh enough, or None."""
    if overlay is None:
        return "there is no overlay yet"
    if now - overlay.issued_at > bound:
        return f"the newest overlay is of {spelled_time(overlay.issued_at)}, older than {bound} s"
    if now >= overlay.expires_at:
        return f"the newest overlay was good until {spelled_time(overlay.expires_at)}"
    if overlay.issued_at > now + CLOCKS_DIFFER:
        return f"the newest overlay is of {spelled_time(overlay.issued_at)}, which is yet to come"
    return None


def link_ids(tags: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(map(b64encode, primitives.link_ids(tags)))


def again(decision: Decision, refusal: Refusal) -> Decision:
    """A denial in place of `decision`, which was an allowance."""
    grant: Grant = decision.granted
    return grant._denied(
        decision.now, decision.access, decision.caller, (refusal,), False, decision.effects, step=11
    )


def stated(access: Access, caller: Caller | None) -> tuple[Access, Caller | None]:
    if type(access) is not Access:
        raise TypeError(
            f"expected an Access, as Access(table=…, operation=…), not {type(access).__name__}"
        )
    if caller is not None and type(caller) is not Caller:
        raise TypeError(f"expected a Caller, as Caller(agent=…), not {type(caller).__name__}")
    return access, caller


def granted(decision: Decision) -> Grant:
    if decision.grant is None:
        raise Denied(decision)
    return decision.grant
