"""The numbered plan: text, keys, facts in; a decision out (spec, "Verification").

     1 sizes and counts           5 links can be read      9 caller
     2 strict parse               6 lineage               10 proof of a bound token
     3 root record and key        7 overlay (none yet)    11 effects: the proof's only use
     4 chain of signatures        8 caveats

The signature comes before the meaning: no link is decoded until the whole chain has held. The first step that fails
gives the decision its code. One function decides; `authorize`, `check` and `explain` are three ways to hear of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from time import time
from typing import TypeAlias

from msgspec import structs

from captoken import chain, names, primitives
from captoken.access import Access, Caller
from captoken.attenuate import Clock, read_clock
from captoken.capability import Capability
from captoken.caveats import V1, Situation, Vocabulary
from captoken.decision import Actor, Attribution, Decision, Reason, Refusal, moment
from captoken.discharge import read_discharge
from captoken.encoding import b64encode
from captoken.errors import CODES, Denied, StoreError, TokenFormatError
from captoken.keyring import Keyring
from captoken.lineage import Lineage, read_along
from captoken.links import BadLink, Link, link_prohibits, read_links, settled
from captoken.mint import keyring_source
from captoken.possession import AHEAD as PROOF_AHEAD
from captoken.possession import (
    PAST,
    Evidence,
    Proof,
    ReplayStore,
    Use,
    digest_of,
    proof_message,
    read_proof,
    use_of,
)
from captoken.root import RootRecord
from captoken.sealed import Sealed
from captoken.text import BOUND, parts_of
from captoken.tokens import Token
from captoken.wire import Packet

AHEAD = 60  # seconds that a token may be from the future, since clocks differ
CUSTODY_REMEMBERED = 4096  # hand-overs whose signature held, per verifier

# What comes with a token: the proof, if there is one, and what it is about.
Presented: TypeAlias = "tuple[str | None, Access | bytes | None]"
# A hand-over on a bound token: its link, and if that is signed, by which key, what, and the signature.
Custody: TypeAlias = "tuple[int, tuple[bytes, bytes, bytes] | None]"


class Verifier(Sealed):
    """Verifies tokens offline, in-process. Shared between threads freely: a verification leaves no trace in it.

    `keyring` is a Keyring, or a callable that returns one, so that rotation reaches a running server. `audience` is the
    server's name, or a tuple of names: it then takes only tokens addressed to it, unless `allow_unaddressed`. Without
    one it takes only tokens that are addressed to nobody. `leeway` is in seconds. `clock` gives seconds since the epoch;
    what it raises passes through, as does what the keyring callable raises: neither ever allows.

    A bearer token says nothing about who sent it; state what you know of that as `caller`. A token that is bound to a
    key comes with a proof for the request at hand: pass it as `proof`, and as `request` the 32 bytes of
    `captoken.request` for what the transport carried; left out, the access itself is the request. `replays` remembers
    which proofs were used. Without one, no bound token is taken.
    """

    __slots__ = ("_audiences", "_clock", "_keyring", "_leeway", "_replays", "_signed", "_unaddressed", "_vocabulary")
    _instead = "make one from the keyring"

    _keyring: Callable[[], Keyring]
    _vocabulary: Vocabulary
    _clock: Clock
    _leeway: int
    _audiences: frozenset[str]
    _unaddressed: bool
    _replays: ReplayStore | None
    _signed: OrderedDict[bytes, None]  # states up to which every hand-over was signed; the one asked for last at the end

    def __init__(
        self,
        keyring: Keyring | Callable[[], Keyring],
        audience: str | Iterable[str] | None = None,
        *,
        allow_unaddressed: bool = False,
        leeway: int = 0,
        replays: ReplayStore | None = None,
        vocabulary: Vocabulary = V1,
        clock: Clock = time,
    ) -> None:
        if type(leeway) is not int or leeway < 0:
            raise ValueError("leeway must be a number of seconds, 0 or more, as int")
        own = (audience,) if isinstance(audience, str) else () if audience is None else tuple(audience)
        if audience is not None and not own:
            raise ValueError("a server without a name: leave audience out, or name it")
        put = object.__setattr__
        put(self, "_keyring", keyring_source(keyring))
        put(self, "_audiences", frozenset(names.name(name, "audience") for name in own))
        put(self, "_unaddressed", allow_unaddressed is True or not own)
        put(self, "_leeway", leeway)
        put(self, "_vocabulary", vocabulary)
        put(self, "_clock", clock)
        put(self, "_replays", replays)
        put(self, "_signed", OrderedDict())

    def authenticate(self, token: str | Token, *, proof: str | None = None, request: bytes | None = None) -> Grant:
        """The grant of a token, with all checked but an access. Raises Denied.

        Says who acts, not what may be done: ask the grant, once for each access.
        """
        decision = self._decide(token, None, None, (proof, request))
        del token, proof
        return _granted(decision)

    def authorize(
        self,
        token: str | Token,
        access: Access,
        *,
        caller: Caller | None = None,
        proof: str | None = None,
        request: bytes | None = None,
    ) -> Grant:
        """The grant of a token that permits `access`. Raises Denied, with the decision."""
        decision = self._decide(token, *_stated(access, caller), (proof, request))
        del token, proof
        return _granted(decision)

    def check(
        self,
        token: str | Token,
        access: Access,
        *,
        caller: Caller | None = None,
        proof: str | None = None,
        request: bytes | None = None,
    ) -> Decision:
        """The decision on `access`, true if allowed. Never raises on denial."""
        return self._decide(token, *_stated(access, caller), (proof, request))

    def explain(
        self,
        token: str | Token,
        access: Access,
        *,
        caller: Caller | None = None,
        proof: str | None = None,
        request: bytes | None = None,
    ) -> Decision:
        """The decision that `check` would come to, by the same run, with nothing committed.

        A proof that was used before is not noticed, so where there is one no grant comes of it.
        """
        return self._decide(token, *_stated(access, caller), (proof, request), dry=True)

    def _decide(
        self, token: str | Token, access: Access | None, caller: Caller | None, presented: Presented, dry: bool = False
    ) -> Decision:
        now = read_clock(self._clock)
        found = self._open(token)
        if not isinstance(found, Grant):
            return structs.replace(found, now=now, access=access, caller=caller, dry=dry)
        decision = found._decide(now, access, caller, dry, presented)
        return self._committed(found, decision) if decision.effects and not dry else decision

    def _committed(self, grant: Grant, decision: Decision) -> Decision:
        """Step 11: the decision, once its effects are; or a denial."""
        for use in decision.effects:
            try:
                if self._replays is None:
                    raise StoreError("this verifier has no replay store")
                if self._replays.add(use, decision.now) is True:
                    continue
                refusal = Refusal("replayed", "the proof was used before, or is older than what the store remembers")
            except StoreError as error:
                refusal = Refusal("store_unavailable", str(error))
            except Exception as error:  # whatever a store raises, it does not say that the use is the first
                refusal = Refusal("store_unavailable", f"the replay store raised {type(error).__name__}")
            return grant._denied(decision.now, decision.access, decision.caller, (refusal,), 11, False, decision.effects)
        return decision

    def _open(self, token: str | Token) -> Grant | Decision:
        """Steps 1 to 6: everything that depends on the token and the keys alone. A Decision is a denial."""
        try:
            packet, discharges = token._bound() if isinstance(token, Token) else parts_of(token, BOUND)  # steps 1 and 2
            root = RootRecord.decode(packet.identifier)  # from what is signed, whatever a Token says of itself
        except TokenFormatError as error:
            return _denial(Refusal(error.code, str(error)), error.step)
        derived = self._keyring().derived(root.key_id, root.audience)
        if derived is None:
            return _denial(Refusal("unknown_key", "no key here for the key id and audience that the token names"), 3)
        tags = chain.fold(derived, packet)
        if tags is None:
            return _denial(Refusal("bad_signature", "the chain of signatures does not hold"), 4)
        answers = _answers(derived, packet, tags, discharges)
        links = read_links(packet.caveats, self._vocabulary)
        if isinstance(answers, tuple):
            return self._broken(root, links, *answers)
        restrictions = [link for link in links if isinstance(link, Link)]
        if len(restrictions) < len(links):
            at, bad = next((at, link) for at, link in enumerate(links) if isinstance(link, BadLink))
            return self._broken(root, links, at, bad)
        places: list[int] = []
        for at, discharge in answers.items():
            added = read_discharge(discharge, self._vocabulary)
            if isinstance(added, BadLink):
                return self._broken(root, links, at, added, DISCHARGER)
            restrictions += added
            places += [at] * len(added)
        lineage = Lineage((root.agent,))
        for at in range(len(links)):
            after = lineage.step(restrictions[at])
            if not isinstance(after, Lineage):
                return self._broken(root, links, at, after)
            lineage = after
        if lineage.must_delegate:
            last = max(at for at, link in enumerate(restrictions) if link.delegate_only)
            return self._broken(root, links, last, Reason("delegate_only", "for handing on, and nobody was handed it"))
        custody = _custody(packet, restrictions, tags) if lineage.key is not None else ()
        return Grant(self, root, tuple(restrictions), tuple(places), lineage, tags, custody)

    def _remembered(self, state: bytes) -> bool:
        """Did every hand-over up to the link with this state hold? Each step is atomic: threads need no lock."""
        if state not in self._signed:
            return False
        with suppress(KeyError):  # forgotten meanwhile
            self._signed.move_to_end(state)
        return True

    def _remember(self, state: bytes) -> None:
        self._signed[state] = None
        if len(self._signed) > CUSTODY_REMEMBERED:
            with suppress(KeyError):
                self._signed.popitem(last=False)

    def _broken(
        self,
        root: RootRecord,
        links: Sequence[Link | BadLink],
        at: int | None,
        reason: Reason | BadLink,
        added_by: str | None = None,
    ) -> Decision:
        """A denial by link `at` of a token whose signature held: so its root record can be believed."""
        if at is not None and added_by is None:
            added_by = ISSUER if at == 0 else read_along(root.agent, links[:at]).holder
        known = Attribution(root, read_along(root.agent, links).chain(), root.task)
        return _denial(Refusal(reason.code, reason.text, at, added_by), CODES[reason.code].step, known)

    def __repr__(self) -> str:
        names_ = ", ".join(sorted(self._audiences)) or "nobody in particular"
        return f"<Verifier for {names_}>"


class Grant(Sealed):
    """What a verifier vouches for: a genuine token's capability, and who is behind it. Only a Verifier makes one.

    Holds no promise for later: `authorize`, `check` and `explain` look at the clock each time. Whoever holds the object
    has the power; hand on the token, not the grant.
    """

    __slots__ = (
        "_addressed", "_capability", "_custody", "_lineage", "_links", "_own", "_places", "_tags", "_verifier", "issued"
    )  # fmt: skip
    _instead = "verify the token where it is needed"

    _verifier: Verifier
    _links: tuple[Link, ...]  # of the token, then of its discharges
    _places: tuple[int, ...]  # of each link of a discharge: the third-party caveat that it answers
    _lineage: Lineage
    _tags: tuple[bytes, ...]  # secret: each is the key to its link's siblings
    _capability: Capability | None
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
        tags: tuple[bytes, ...],
        custody: tuple[Custody, ...],
    ) -> None:
        put = object.__setattr__
        put(self, "_verifier", verifier)
        put(self, "issued", issued)
        put(self, "_links", links)
        put(self, "_places", places)
        put(self, "_lineage", lineage)
        put(self, "_tags", tags)
        put(self, "_custody", custody)
        put(self, "_capability", None)
        own = verifier._vocabulary is not V1 and any(":" in caveat.key for link in links for caveat in link.caveats)
        put(self, "_own", own)
        put(self, "_addressed", verifier._unaddressed or issued.audience is not None or _has_audience(links[: len(tags)]))

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
        return tuple(self._evidence(at, *signed) for at, signed in self._custody if signed is not None)

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
        expiries: list[int] = [caveat.value for link in self._links for caveat in link.caveats if caveat.key == "exp"]
        return min(expiries, default=None)

    @property
    def link_ids(self) -> tuple[str, ...]:
        """The public name of each link and of all that descends from it."""
        return tuple(b64encode(primitives.link_id(tag)) for tag in self._tags)

    def authorize(self, access: Access, *, caller: Caller | None = None) -> Grant:
        """This grant, if it permits `access` now. Raises Denied, with the decision."""
        return _granted(self._ask(*_stated(access, caller), False))

    def check(self, access: Access, *, caller: Caller | None = None) -> Decision:
        """The decision on `access` now, true if allowed. Never raises on denial. Takes no proof: the token had one."""
        return self._ask(*_stated(access, caller), False)

    def explain(self, access: Access, *, caller: Caller | None = None) -> Decision:
        """The decision that `check` would come to, with nothing committed."""
        return self._ask(*_stated(access, caller), True)

    def recheck(self) -> Decision:
        """Whether the grant still stands now: a check without an access."""
        return self._decide(read_clock(self._verifier._clock), None, None, False)

    def refusal(self, code: str, text: str, access: Access | None = None) -> Decision:
        """A denial of an adapter's own, in the shape of all others. `code` is one of the codes of the spec."""
        now = read_clock(self._verifier._clock)
        return self._denied(now, access, None, (Refusal(code, text),), CODES[code].step, False)

    def _ask(self, access: Access, caller: Caller | None, dry: bool) -> Decision:
        # The capability says in one look what all links together say; the links are asked one by one to tell why, and
        # where an embedder's caveats are among them, whose `covers` and `meet` are not what a decision rests on.
        now = read_clock(self._verifier._clock)
        if self._ahead(now) is None and self._addressed and not self._own:
            reason = self.capability.prohibits(access, self._situation(now, self._verifier._audiences))
            if reason is None:
                return self._finished(now, access, caller, dry)
            decision = self._decide(now, access, caller, dry)
            if decision:  # were the two ever to differ, the stricter answer stands
                return self._denied(now, access, caller, (Refusal(reason.code, reason.text),), 8, dry)
            return decision
        return self._decide(now, access, caller, dry)

    def _decide(
        self, now: int, access: Access | None, caller: Caller | None, dry: bool, presented: Presented | None = None
    ) -> Decision:
        """Steps 8 to 10, link by link. `presented` is there when a token is: whoever has a grant has been through step 10."""
        refusals = self._refusals(now, access)
        if refusals:
            return self._denied(now, access, caller, tuple(refusals), 8, dry)
        return self._finished(now, access, caller, dry, presented)

    def _finished(
        self, now: int, access: Access | None, caller: Caller | None, dry: bool, presented: Presented | None = None
    ) -> Decision:
        if caller is not None:
            refusal = self._calls(caller)
            if refusal is not None:
                return self._denied(now, access, caller, (refusal,), 9, dry)
        effects: tuple[Use, ...] = ()
        if presented is not None and (self._lineage.key is not None or presented[0] is not None):
            proof, request = presented
            used = self._proved(now, proof, access if request is None else request)
            if isinstance(used, Refusal):
                return self._denied(now, access, caller, (used,), 10, dry)
            effects = (used,)
        if dry and effects:  # what is not committed grants nothing, and nothing that it shows is a grant
            known = Attribution(self.issued, self.chain, self.task)
            return Decision(
                code="allowed", now=now, access=access, caller=caller, granted=True, dry=True, known=known, effects=effects
            )  # fmt: skip
        return Decision(
            code="allowed", now=now, access=access, caller=caller, granted=self, dry=dry, known=self, effects=effects
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
            return Refusal("proof_missing", "the token is bound to a key, and no proof came with it")
        proof = read_proof(text)
        if proof is None:
            return Refusal("bad_proof", "it cannot be read")
        if not now - PAST <= proof.issued_at <= now + PROOF_AHEAD:
            return Refusal("bad_proof", f"made at {moment(proof.issued_at)}, which is too long ago or yet to come")
        try:
            digest = digest_of(request)
        except (ValueError, RecursionError):
            return Refusal("bad_proof", "the request cannot be spelled")
        audiences = self._audiences_left()
        if not any(primitives.signed(key, self._proof_message(proof, name, digest), proof.signature) for name in audiences):
            return Refusal("bad_proof", "not signed by the key that the token is bound to, for this token, server and request")
        return use_of(key, proof)

    def _proof_message(self, proof: Proof, audience: str, digest: bytes) -> bytes:
        return proof_message(self._tags[-1], audience, proof.issued_at, proof.nonce, digest)

    def _audiences_left(self) -> list[str]:
        """The verifier's audiences that the token is addressed to: nearly always one."""
        situation = Situation(0, audiences=self._verifier._audiences, task=self.issued.task)
        if self.issued.audience is not None:
            situation = Situation(0, audiences=situation.audiences & {self.issued.audience}, task=self.issued.task)
        for link in self._links:
            situation = settled(situation, link) if link.settles else situation
        return sorted(situation.audiences)

    def _denied(
        self,
        now: int,
        access: Access | None,
        caller: Caller | None,
        refusals: tuple[Refusal, ...],
        step: int,
        dry: bool,
        effects: tuple[Use, ...] = (),
    ) -> Decision:
        known = Attribution(self.issued, self.chain, self.task)
        return Decision(
            code=refusals[0].code, now=now, access=access, caller=caller, known=known,
            refusals=refusals, step=step, dry=dry, effects=effects,
        )  # fmt: skip

    def _situation(self, now: int, audiences: frozenset[str]) -> Situation:
        return Situation(now, self._verifier._leeway, audiences, self.issued.task)

    def _ahead(self, now: int) -> Refusal | None:
        if self.issued.issued_at <= now + max(AHEAD, self._verifier._leeway):
            return None
        return Refusal("not_yet_valid", f"issued at {moment(self.issued.issued_at)}, which is yet to come")

    def _refusals(self, now: int, access: Access | None) -> list[Refusal]:
        """What refuses, in the order of step 8: the root's `iat` and `aud`; then link by link; then `unaddressed`."""
        refusals: list[Refusal] = []
        ahead, audience, audiences = self._ahead(now), self.issued.audience, self._verifier._audiences
        if ahead is not None:
            refusals.append(ahead)
        if audience is not None:
            if audience not in audiences:
                refusals.append(Refusal("wrong_audience", f"issued for {audience} alone"))
            audiences = audiences & {audience}
        situation = self._situation(now, audiences)
        for at, link in enumerate(self._links):
            reason = link_prohibits(link, access, situation)
            if reason is not None:
                refusals.append(Refusal(reason.code, reason.text, *self._place(at)))
            if link.settles:
                situation = settled(situation, link)
        if not self._addressed:
            text = "addressed to nobody, and this server takes only what is addressed to it"
            refusals.append(Refusal("unaddressed", text))
        elif self._lineage.key is not None and not self._verifier._audiences:
            refusals.append(Refusal("unaddressed", "bound to a key, and this server has no name to prove it to"))
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
            return Refusal("caller", f"{caller.agent} calls with the token of {self._lineage.holder}")
        if caller.task is not None and not names.at_or_below(caller.task, self.task):
            return Refusal("caller", f"called from task {caller.task} with a token for task {self.task}")
        return None

    def __repr__(self) -> str:
        chain_ = " > ".join(actor.name for actor in self.chain)
        return f"<Grant {self.token_id}, {chain_}, for {self.issued.subject}, task {self.issued.task}>"


ISSUER = "the issuer"  # who added link 0
DISCHARGER = "the discharger"  # who added what a discharge says


def _has_audience(links: tuple[Link, ...]) -> bool:
    return any(link.settles and any(caveat.key == "aud" for caveat in link.caveats) for link in links)


def _answers(
    derived: bytes, packet: Packet, tags: tuple[bytes, ...], discharges: tuple[Packet, ...]
) -> dict[int, Packet] | tuple[int | None, Reason]:
    """The rest of step 4: the discharge of each third-party caveat, or where and why there is none.

    One for each, in their order, none left over: so no more boxes are opened than caveats have answers.
    """
    answers: dict[int, Packet] = {}
    asked = [at for at, (_, vid) in enumerate(packet.caveats) if vid]
    if not asked and not discharges:
        return answers
    left = list(discharges)
    if len({packet.identifier for packet in left}) < len(left):
        return None, Reason("bad_discharge", "one discharge is there twice")
    for at in asked:
        if left and left[0].identifier == packet.caveats[at][0]:
            answers[at] = left.pop(0)
    if left:
        return None, Reason("bad_discharge", "a discharge that answers nothing asked, or stands in another order")
    for at in asked:
        if at not in answers:
            return at, Reason("missing_discharge", "a third party is asked, and no answer came")
    for at, discharge in answers.items():
        key = chain.answer_key(derived, packet, tags, at)
        if key is None or chain.fold(key, discharge, packet.signature) is None:
            return at, Reason("bad_discharge", "the discharge is not by whom was asked, or not bound to this token")
    return answers


def _custody(packet: Packet, links: Sequence[Link], tags: tuple[bytes, ...]) -> tuple[Custody, ...]:
    """Every change of key on a bound token, with the evidence for it, or None where it is not signed."""
    found: list[Custody] = []
    bound_to: bytes | None = None
    for at in range(len(packet.caveats)):
        link = links[at]
        if link.key is None:
            continue
        if bound_to is not None and link.signature is not None:
            found.append((at, (bound_to, packet.caveats[at][0][:-87], link.signature)))
        elif bound_to is not None:
            found.append((at, None))
        bound_to = link.key
    return tuple(found)


def _denial(refusal: Refusal, step: int, known: Attribution | None = None) -> Decision:
    return Decision(code=refusal.code, now=0, refusals=(refusal,), step=step, known=known)


def _stated(access: Access, caller: Caller | None) -> tuple[Access, Caller | None]:
    if type(access) is not Access:
        raise TypeError(f"expected an Access, as Access(table=…, operation=…), not {type(access).__name__}")
    if caller is not None and type(caller) is not Caller:
        raise TypeError(f"expected a Caller, as Caller(agent=…), not {type(caller).__name__}")
    return access, caller


def _granted(decision: Decision) -> Grant:
    if decision.grant is None:
        raise Denied(decision)
    return decision.grant
