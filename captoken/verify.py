"""The numbered plan: text, keys, facts in; a decision out (spec, "Verification").

     1 sizes and counts           5 links can be read      9 caller
     2 strict parse               6 lineage               10 proof of a bound token
     3 root record and key        7 overlay               11 effects: a proof's one use, a reservation
     4 chain of signatures        8 caveats

The signature comes before the meaning: no link is decoded until the whole chain has held. The first step that fails
gives the decision its code. One function decides; `authorize`, `check` and `explain` are three ways to hear of it.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from time import time
from typing import NamedTuple, TypeAlias

from msgspec import structs

from captoken import chain, names, primitives
from captoken.access import Access, Caller, amounts
from captoken.attenuate import Clock, read_clock
from captoken.audit import Trail
from captoken.capability import Capability
from captoken.caveats import V1, Situation, Vocabulary
from captoken.decision import Actor, Attribution, Decision, Reason, Refusal, moment
from captoken.discharge import read_discharge
from captoken.encoding import b64encode
from captoken.errors import CODES, Denied, StoreError, TokenFormatError
from captoken.keyring import Keyring
from captoken.ledger import LEASE, USES, Debit, Ledger, Reservation
from captoken.lineage import Lineage, read_along
from captoken.links import BadLink, Link, link_prohibits, read_links, settled
from captoken.mint import keyring_source
from captoken.overlay import Facts, Overlay
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

_log = logging.getLogger("captoken")
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

    `ledger` counts what `uses` and `budget` allow. Without one, no token that has them is taken.

    `audit` gets a record of every decision but those of `explain`. What cannot be recorded is denied.

    `overlay` gives the newest restrictions on tokens already out: an Overlay, or a callable that returns one, as a Feed
    is. It may be `max_staleness` seconds old. Later than that, or where there is none, all is denied; with
    `allow_stale_overlay=True` it is only logged, and what was revoked meanwhile still works.
    """

    __slots__ = (
        "_audiences", "_audit", "_clock", "_keyring", "_ledger", "_leeway", "_named", "_overlay", "_random", "_replays",
        "_signed", "_stale", "_staleness", "_unaddressed", "_vocabulary",
    )  # fmt: skip
    _instead = "make one from the keyring"

    _keyring: Callable[[], Keyring]
    _vocabulary: Vocabulary
    _clock: Clock
    _leeway: int
    _named: tuple[str, ...]
    _audiences: frozenset[str]
    _unaddressed: bool
    _replays: ReplayStore | None
    _ledger: Ledger | None
    _audit: Trail | None
    _random: Callable[[int], bytes]
    _overlay: Callable[[], Overlay | None] | None
    _staleness: int
    _stale: bool  # is a stale overlay good enough?
    _signed: OrderedDict[bytes, None]  # states up to which every hand-over was signed; the one asked for last at the end

    def __init__(
        self,
        keyring: Keyring | Callable[[], Keyring],
        audience: str | Iterable[str] | None = None,
        *,
        allow_unaddressed: bool = False,
        leeway: int = 0,
        replays: ReplayStore | None = None,
        ledger: Ledger | None = None,
        audit: Trail | None = None,
        overlay: Overlay | Callable[[], Overlay | None] | None = None,
        max_staleness: int = 60,
        allow_stale_overlay: bool = False,
        vocabulary: Vocabulary = V1,
        clock: Clock = time,
        random: Callable[[int], bytes] = primitives.random_bytes,
    ) -> None:
        if type(leeway) is not int or leeway < 0:
            raise ValueError("leeway must be a number of seconds, 0 or more, as int")
        if type(max_staleness) is not int or max_staleness < 0:
            raise ValueError("max_staleness must be a number of seconds, 0 or more, as int")
        if not (overlay is None or isinstance(overlay, Overlay) or callable(overlay)):
            raise TypeError(f"overlay must be an Overlay, or a callable that returns one, not {type(overlay).__name__}")
        own = (audience,) if isinstance(audience, str) else () if audience is None else tuple(audience)
        if audience is not None and not own:
            raise ValueError("a server without a name: leave audience out, or name it")
        put = object.__setattr__
        put(self, "_keyring", keyring_source(keyring))
        put(self, "_named", tuple(names.name(name, "audience") for name in own))
        put(self, "_audiences", frozenset(own))
        put(self, "_unaddressed", allow_unaddressed is True or not own)
        put(self, "_leeway", leeway)
        put(self, "_vocabulary", vocabulary)
        put(self, "_clock", clock)
        put(self, "_replays", replays)
        put(self, "_ledger", ledger)
        put(self, "_audit", audit)
        put(self, "_random", random)
        put(self, "_overlay", (lambda: overlay) if isinstance(overlay, Overlay) else overlay)
        put(self, "_staleness", max_staleness)
        put(self, "_stale", allow_stale_overlay is True)
        put(self, "_signed", OrderedDict())

    @property
    def audiences(self) -> tuple[str, ...]:
        """The names of the server, as they were given; none for a verifier of tokens for nobody in particular."""
        return self._named

    @property
    def waits(self) -> bool:
        """May a decision have to wait: for a store, a trail, or a source of overlays?"""
        return any(port is not None for port in (self._replays, self._ledger, self._audit, self._overlay))

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
        if isinstance(found, Grant):
            decision = found._decide(now, access, caller, dry, presented)
        else:
            decision = structs.replace(found, now=now, access=access, caller=caller, dry=dry)
        return decision if dry else self._settled(decision)

    def _settled(self, decision: Decision) -> Decision:
        """The decision with all that it needs to stand: its effects committed, and then itself recorded; or a denial."""
        return self._recorded(self._committed(decision.granted, decision) if decision.effects else decision)

    def _recorded(self, decision: Decision) -> Decision:
        """The decision once it is in the trail, or a denial."""
        if self._audit is not None:
            try:
                self._audit.record(decision)
            except Exception as error:  # whatever a trail raises, there is no record
                if decision:
                    text = f"the decision cannot be recorded: {type(error).__name__}"
                    return _again(decision, Refusal("store_unavailable", text))
                _log.error("a denial was not recorded: %s", type(error).__name__)
        return decision

    def _committed(self, grant: Grant, decision: Decision) -> Decision:
        """Step 11: the decision, once its effects are; or a denial."""
        for effect in decision.effects:
            try:
                if isinstance(effect, Use):
                    refusal = self._use(effect, decision.now)
                else:
                    refusal = self._reserve(grant, effect, decision.now)
            except StoreError as error:
                refusal = Refusal("store_unavailable", str(error))
            except Exception as error:  # whatever a store raises, it does not say that there is enough
                refusal = Refusal("store_unavailable", f"a store raised {type(error).__name__}")
            if refusal is not None:
                return _again(decision, refusal)
        return decision

    def _use(self, use: Use, now: int) -> Refusal | None:
        if self._replays is None:
            raise StoreError("this verifier has no replay store")
        if self._replays.add(use, now) is True:
            return None
        return Refusal("replayed", "the proof was used before, or is older than what the store remembers")

    def _reserve(self, grant: Grant, reservation: Reservation, now: int) -> Refusal | None:
        if self._ledger is None:
            raise StoreError("this verifier has no ledger")
        short = self._ledger.reserve(reservation, now)
        if short is None:
            return None
        if not isinstance(short, Debit):
            raise StoreError(f"the ledger answered with a {type(short).__name__}")
        text = f"{short.amount} {short.unit} of {short.limit} are not left"
        return Refusal("budget_exhausted", text, short.link, grant._added_by(short.link))

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
        genuine = _Genuine(root, packet, tags, links)
        if isinstance(answers, tuple):
            return self._broken(genuine, *answers)
        restrictions = [link for link in links if isinstance(link, Link)]
        if len(restrictions) < len(links):
            at, bad = next((at, link) for at, link in enumerate(links) if isinstance(link, BadLink))
            return self._broken(genuine, at, bad)
        places: list[int] = []
        for at, discharge in answers.items():
            added = read_discharge(discharge, self._vocabulary)
            if isinstance(added, BadLink):
                return self._broken(genuine, at, added, DISCHARGER)
            restrictions += added
            places += [at] * len(added)
        lineage = Lineage((root.agent,))
        for at in range(len(links)):
            after = lineage.step(restrictions[at])
            if not isinstance(after, Lineage):
                return self._broken(genuine, at, after)
            lineage = after
        if lineage.must_delegate:
            last = max(at for at, link in enumerate(restrictions) if link.delegate_only)
            return self._broken(genuine, last, Reason("delegate_only", "for handing on, and nobody was handed it"))
        custody = _custody(packet, restrictions, tags) if lineage.key is not None else ()
        return Grant(self, root, tuple(restrictions), tuple(places), lineage, packet, tags, custody)

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

    def _broken(self, token: _Genuine, at: int | None, reason: Reason | BadLink, added_by: str | None = None) -> Decision:
        """A denial by link `at` of a token whose signature held: so its root record can be believed."""
        root, packet, tags, links = token
        if at is not None and added_by is None:
            added_by = ISSUER if at == 0 else read_along(root.agent, links[:at]).holder
        chain_ = read_along(root.agent, links).chain()
        known = Attribution(root, chain_, root.task, _link_ids(tags), packet.caveats)
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
        "_addressed", "_capability", "_counts", "_custody", "_lineage", "_links", "_own", "_packet", "_places", "_seen",
        "_tags", "_verifier", "issued",
    )  # fmt: skip
    _instead = "verify the token where it is needed"

    _verifier: Verifier
    _links: tuple[Link, ...]  # of the token, then of its discharges
    _places: tuple[int, ...]  # of each link of a discharge: the third-party caveat that it answers
    _lineage: Lineage
    _packet: Packet
    _tags: tuple[bytes, ...]  # secret: each is the key to its link's siblings
    _capability: Capability | None
    _seen: Facts | None
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
        put(self, "_capability", None)
        put(self, "_seen", None)
        put(self, "_counts", any(link.counts for link in links))
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
        return _link_ids(self._tags)

    @property
    def caveats(self) -> tuple[tuple[bytes, bytes], ...]:
        """The links as they travel: what each says, and for a third-party caveat the box. Nothing in them is secret."""
        return self._packet.caveats

    def authorize(self, access: Access, *, caller: Caller | None = None) -> Grant:
        """This grant, if it permits `access` now. Raises Denied, with the decision."""
        return _granted(self.check(access, caller=caller))

    def check(self, access: Access, *, caller: Caller | None = None) -> Decision:
        """The decision on `access` now, true if allowed. Never raises on denial. Takes no proof: the token had one."""
        return self._verifier._settled(self._ask(*_stated(access, caller), False))

    def explain(self, access: Access, *, caller: Caller | None = None) -> Decision:
        """The decision that `check` would come to, with nothing committed."""
        return self._ask(*_stated(access, caller), True)

    def reserve(self, access: Access, *, caller: Caller | None = None) -> Reserved:
        """Permission for one access that is paid for when it is over: settle it, or cancel it if nothing was done.

        Raises Denied. As a context manager it cancels when an exception leaves the block, and else is settled in full.
        """
        decision = self.check(access, caller=caller)
        _granted(decision)
        reservations = [effect for effect in decision.effects if isinstance(effect, Reservation)]
        return Reserved(self._verifier, reservations[0] if reservations else None)

    def recheck(self) -> Decision:
        """Whether the grant still stands now: a check without an access. Not recorded: see `record`."""
        return self._decide(read_clock(self._verifier._clock), None, None, False)

    def refusal(self, code: str, text: str, access: Access | None = None) -> Decision:
        """A denial of an adapter's own, in the shape of all others, not yet recorded. `code` is one of the spec's."""
        now = read_clock(self._verifier._clock)
        return self._denied(now, access, None, (Refusal(code, text),), dry=False)

    def record(self, decision: Decision) -> Decision:
        """The decision, once it is in the audit trail: for adapters, of what `recheck` or `refusal` gave."""
        return self._verifier._recorded(decision)

    def check_all(self, accesses: Sequence[Access], *, caller: Caller | None = None) -> Decision:
        """The decision on what one step needs, each access recorded, and all of them together used once.

        The first that is refused is the answer. Raises ValueError for no access.
        """
        if not accesses:
            raise ValueError("state at least one access")
        decisions = [self._ask(*_stated(access, caller), False) for access in accesses]
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
            if not charged:
                return self._verifier._recorded(charged)
            decisions = [charged, *decisions[1:]]
        for decision in decisions:
            recorded = self._verifier._recorded(decision)
            if not recorded:
                return recorded
        return decisions[0]

    def _ask(self, access: Access, caller: Caller | None, dry: bool) -> Decision:
        # The capability says in one look what all links together say; the links are asked one by one to tell why, and
        # where an embedder's caveats are among them, whose `covers` and `meet` are not what a decision rests on.
        now = read_clock(self._verifier._clock)
        age, refusals = self._overlaid(now, access)
        if refusals:
            return self._denied(now, access, caller, refusals, dry, step=7)
        if self._ahead(now) is None and self._addressed and self._counted_once and not self._own:
            reason = self.capability.prohibits(access, self._situation(now, self._verifier._audiences, age))
            if reason is None:
                return self._finished(now, access, caller, dry)
            decision = self._judged(now, access, caller, dry, age)
            if decision:  # were the two ever to differ, the stricter answer stands
                return self._denied(now, access, caller, (Refusal(reason.code, reason.text),), dry)
            return decision
        return self._judged(now, access, caller, dry, age)

    def _decide(
        self, now: int, access: Access | None, caller: Caller | None, dry: bool, presented: Presented | None = None
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
        """Step 7: how old the overlay is, in seconds, if there is one, and what it says against this token now."""
        verifier = self._verifier
        if verifier._overlay is None:
            return None, ()
        try:
            overlay = verifier._overlay()
            if overlay is not None and not isinstance(overlay, Overlay):
                raise TypeError(f"an Overlay, not {type(overlay).__name__}")
        except Exception as error:  # whatever a source raises, it does not say that nothing stands
            return None, (Refusal("store_unavailable", f"the overlay cannot be had: {type(error).__name__}"),)
        stale = _staleness(overlay, now, verifier._staleness)
        if stale is not None:
            if not verifier._stale:
                return None, (Refusal("stale_overlay", stale),)
            _log.warning("deciding without a fresh overlay: %s", stale)
        if overlay is None:
            return None, ()
        age = max(0, now - overlay.issued_at)
        refusals: list[Refusal] = []
        for entry in overlay.on(self._facts, now):
            said = f"by {entry.by} at {moment(entry.at)}: {entry.why}"
            link = overlay.link(entry)
            if link is None:
                refusals.append(Refusal("revoked", f"revoked {said}", added_by=entry.by))
                continue
            reason = link_prohibits(link, access, self._situation(now, verifier._audiences, age))
            if reason is not None:
                refusals.append(Refusal("narrowed", f"narrowed {said}; {reason.text}", added_by=entry.by))
        return age, tuple(sorted(refusals, key=lambda refusal: refusal.code != "revoked"))

    @property
    def _lineage_since(self) -> int:
        """The link by which the present holder got the token."""
        return max((at for at, link in enumerate(self._links[: len(self._tags)]) if link.receiver is not None), default=0)

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
            keep = None if keep is None or not ends else max(keep, min(ends) + self._verifier._leeway)
            bucket = primitives.link_id(self._tags[at])
            for caveat in link.caveats:
                if caveat.key == "uses":
                    debits.append(Debit(bucket, USES, caveat.value, 1, at))
                elif caveat.key == "budget":
                    debits += [Debit(bucket, unit, most, cost[unit], at) for unit, most in sorted(caveat.value.items())]
        return Reservation(self._verifier._random(16), tuple(debits), self.issued.issued_at, now + LEASE, keep)

    @property
    def _facts(self) -> Facts:
        """What selectors of the overlay ask about."""
        facts = self._seen
        if facts is None:
            root = self.issued
            links = primitives.link_ids(self._tags)
            facts = Facts(
                root.token_id, links, self.task, self._lineage.holders, root.subject, root.key_id, root.issued_at
            )  # fmt: skip
            object.__setattr__(self, "_seen", facts)
        return facts

    def _finished(
        self, now: int, access: Access | None, caller: Caller | None, dry: bool, presented: Presented | None = None
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
        if dry and effects:  # what is not committed grants nothing, and nothing that it shows is a grant
            known = self._attribution
            return Decision(
                code="allowed", now=now, access=access, caller=caller, granted=True, dry=True, known=known, effects=effects,
                overlaid=self._verifier._overlay is not None,
            )  # fmt: skip
        return Decision(
            code="allowed", now=now, access=access, caller=caller, granted=self, dry=dry, known=self, effects=effects,
            overlaid=self._verifier._overlay is not None,
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
            overlaid=self._verifier._overlay is not None,
            refusals=refusals, step=step or CODES[refusals[0].code].step, dry=dry, effects=effects,
        )  # fmt: skip

    def _situation(self, now: int, audiences: frozenset[str], age: int | None) -> Situation:
        return Situation(now, self._verifier._leeway, audiences, self.issued.task, age)

    def _ahead(self, now: int) -> Refusal | None:
        if self.issued.issued_at <= now + max(AHEAD, self._verifier._leeway):
            return None
        return Refusal("not_yet_valid", f"issued at {moment(self.issued.issued_at)}, which is yet to come")

    def _refusals(self, now: int, access: Access | None, age: int | None) -> list[Refusal]:
        """What refuses, in the order of step 8: the root's `iat` and `aud`; then link by link; then `unaddressed`."""
        refusals: list[Refusal] = []
        ahead, audience, audiences = self._ahead(now), self.issued.audience, self._verifier._audiences
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


class _Genuine(NamedTuple):
    """A token whose signature held, before anything of it is judged."""

    root: RootRecord
    packet: Packet
    tags: tuple[bytes, ...]
    links: list[Link | BadLink]


def _link_ids(tags: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(map(b64encode, primitives.link_ids(tags)))


class Reserved:
    """What was reserved for one access. For a token that counts nothing there is nothing to settle, and nothing happens."""

    __slots__ = ("_open", "_reservation", "_verifier")

    def __init__(self, verifier: Verifier, reservation: Reservation | None) -> None:
        self._verifier, self._reservation, self._open = verifier, reservation, reservation is not None

    def settle(self, cost: Mapping[str, int] | None = None) -> bool:
        """What it cost in fact, by unit, at most what was reserved; None is all of it. False if too late: all is spent."""
        return self._close(None if cost is None else {**amounts(cost, "cost"), USES: 1})

    def cancel(self) -> bool:
        """Nothing was done: all of it goes back. False if it was too late, and all is spent."""
        return self._close({})

    def _close(self, taken: Mapping[str, int] | None) -> bool:
        if not self._open or self._reservation is None:
            return self._reservation is None
        self._open = False
        ledger = self._verifier._ledger
        return ledger is not None and ledger.settle(self._reservation.id, taken, read_clock(self._verifier._clock)) is True

    def __enter__(self) -> Reserved:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._open:
            self._close(None if kind is None else {})


ISSUER = "the issuer"  # who added link 0
DISCHARGER = "the discharger"  # who added what a discharge says


def _has_audience(links: tuple[Link, ...]) -> bool:
    return any(link.settles and any(caveat.key == "aud" for caveat in link.caveats) for link in links)


def _staleness(overlay: Overlay | None, now: int, bound: int) -> str | None:
    """Why an overlay is not fresh enough, or None."""
    if overlay is None:
        return "there is no overlay yet"
    if now - overlay.issued_at > bound:
        return f"the newest overlay is of {moment(overlay.issued_at)}, older than {bound} s"
    if now >= overlay.expires_at:
        return f"the newest overlay was good until {moment(overlay.expires_at)}"
    if overlay.issued_at > now + AHEAD:
        return f"the newest overlay is of {moment(overlay.issued_at)}, which is yet to come"
    return None


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


def _again(decision: Decision, refusal: Refusal) -> Decision:
    """A denial in place of `decision`, which was an allowance."""
    grant: Grant = decision.granted
    return grant._denied(decision.now, decision.access, decision.caller, (refusal,), False, decision.effects, step=11)


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
