"""The numbered plan: text, keys, facts in; a decision out (spec, "Verification").

     1 sizes and counts           5 links can be read      9 caller
     2 strict parse               6 lineage               10 proof      (no token of this version is bound)
     3 root record and key        7 overlay (none yet)    11 effects    (none yet)
     4 chain of signatures        8 caveats

The signature comes before the meaning: no link is decoded until the whole chain has held. The first step that fails
gives the decision its code. One function decides; `authorize`, `check` and `explain` are three ways to hear of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import time

from msgspec import structs

from captoken import chain, names, primitives
from captoken.access import Access, Caller
from captoken.attenuate import Clock, read_clock
from captoken.capability import Capability
from captoken.caveats import V1, Situation, Vocabulary
from captoken.decision import Actor, Attribution, Decision, Reason, Refusal, moment
from captoken.encoding import b64encode
from captoken.errors import CODES, Denied, TokenFormatError
from captoken.keyring import Keyring
from captoken.lineage import Lineage, read_along
from captoken.links import BadLink, Link, link_prohibits, read_link, settled
from captoken.mint import keyring_source
from captoken.root import RootRecord
from captoken.sealed import Sealed
from captoken.tokens import Token, packet_of
from captoken.wire import Packet

_ASKS = BadLink("missing_discharge", "a third party is asked, and no answer came")
AHEAD = 60  # seconds that a token may be from the future, since clocks differ


class Verifier(Sealed):
    """Verifies tokens offline, in-process. Shared between threads freely: a verification leaves no trace in it.

    `keyring` is a Keyring, or a callable that returns one, so that rotation reaches a running server. `audience` is the
    server's name, or a tuple of names: it then takes only tokens addressed to it, unless `allow_unaddressed`. Without
    one it takes only tokens that are addressed to nobody. `leeway` is in seconds. `clock` gives seconds since the epoch;
    what it raises passes through, as does what the keyring callable raises: neither ever allows.

    A bearer token says nothing about who sent it; state what you know of that as `caller`.
    """

    __slots__ = ("_audiences", "_clock", "_keyring", "_leeway", "_unaddressed", "_vocabulary")
    _instead = "make one from the keyring"

    _keyring: Callable[[], Keyring]
    _vocabulary: Vocabulary
    _clock: Clock
    _leeway: int
    _audiences: frozenset[str]
    _unaddressed: bool

    def __init__(
        self,
        keyring: Keyring | Callable[[], Keyring],
        audience: str | Iterable[str] | None = None,
        *,
        allow_unaddressed: bool = False,
        leeway: int = 0,
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

    def authenticate(self, token: str | Token) -> Grant:
        """The grant of a token, with all checked but an access. Raises Denied.

        Says who acts, not what may be done: ask the grant, once for each access.
        """
        decision = self._decide(token, None, None)
        del token
        return _granted(decision)

    def authorize(self, token: str | Token, access: Access, *, caller: Caller | None = None) -> Grant:
        """The grant of a token that permits `access`. Raises Denied, with the decision."""
        decision = self._decide(token, *_stated(access, caller))
        del token
        return _granted(decision)

    def check(self, token: str | Token, access: Access, *, caller: Caller | None = None) -> Decision:
        """The decision on `access`, true if allowed. Never raises on denial."""
        return self._decide(token, *_stated(access, caller))

    def explain(self, token: str | Token, access: Access, *, caller: Caller | None = None) -> Decision:
        """The decision that `check` would come to, by the same run, with nothing committed."""
        return self._decide(token, *_stated(access, caller), dry=True)

    def _decide(self, token: str | Token, access: Access | None, caller: Caller | None, dry: bool = False) -> Decision:
        now = read_clock(self._clock)
        found = self._open(token)
        if isinstance(found, Grant):
            return found._decide(now, access, caller, dry)
        return structs.replace(found, now=now, access=access, caller=caller, dry=dry)

    def _open(self, token: str | Token) -> Grant | Decision:
        """Steps 1 to 6: everything that depends on the token and the keys alone. A Decision is a denial."""
        try:
            packet = token._packet if isinstance(token, Token) else packet_of(token)  # steps 1 and 2
            root = RootRecord.decode(packet.identifier)  # from what is signed, whatever a Token says of itself
        except TokenFormatError as error:
            return _denial(Refusal(error.code, str(error)), error.step)
        derived = self._keyring().derived(root.key_id, root.audience)
        if derived is None:
            return _denial(Refusal("unknown_key", "no key here for the key id and audience that the token names"), 3)
        tags = chain.fold(derived, packet)
        if tags is None:
            return _denial(Refusal("bad_signature", "the chain of signatures does not hold"), 4)
        links: list[Link] = []
        for cid, vid in packet.caveats:
            link = _ASKS if vid else read_link(cid, self._vocabulary)
            if not isinstance(link, Link):
                return self._unusable(root, packet)
            links.append(link)
        lineage = Lineage((root.agent,))
        for at, link in enumerate(links):
            after = lineage.step(link)
            if not isinstance(after, Lineage):
                return self._broken(root, packet, at, after)
            lineage = after
        if lineage.must_delegate:
            last = max(at for at, link in enumerate(links) if link.delegate_only)
            return self._broken(root, packet, last, Reason("delegate_only", "for handing on, and nobody was handed it"))
        return Grant(self, root, tuple(links), lineage, tags)

    def _unusable(self, root: RootRecord, packet: Packet) -> Decision:
        """A denial by the first third-party caveat (step 4), or else by the first link that cannot be read (step 5)."""
        links = [_ASKS if vid else read_link(cid, self._vocabulary) for cid, vid in packet.caveats]
        bad = [(at, link) for at, link in enumerate(links) if isinstance(link, BadLink)]
        at, link = min(bad, key=lambda found: found[1] is not _ASKS)
        return self._broken(root, packet, at, Reason(link.code, link.text))

    def _broken(self, root: RootRecord, packet: Packet, at: int, reason: Reason) -> Decision:
        """A denial by link `at` of a token whose signature held: so its root record can be believed."""
        links = [read_link(cid, self._vocabulary) for cid, _ in packet.caveats]
        added_by = ISSUER if at == 0 else read_along(root.agent, links[:at]).holder
        known = Attribution(root, read_along(root.agent, links).chain, root.task)
        return _denial(Refusal(reason.code, reason.text, at, added_by), CODES[reason.code].step, known)

    def __repr__(self) -> str:
        names_ = ", ".join(sorted(self._audiences)) or "nobody in particular"
        return f"<Verifier for {names_}>"


class Grant(Sealed):
    """What a verifier vouches for: a genuine token's capability, and who is behind it. Only a Verifier makes one.

    Holds no promise for later: `authorize`, `check` and `explain` look at the clock each time. Whoever holds the object
    has the power; hand on the token, not the grant.
    """

    __slots__ = ("_addressed", "_capability", "_lineage", "_links", "_own", "_tags", "_verifier", "issued")
    _instead = "verify the token where it is needed"

    _verifier: Verifier
    _links: tuple[Link, ...]
    _lineage: Lineage
    _tags: tuple[bytes, ...]  # secret: each is the key to its link's siblings
    _capability: Capability | None
    _own: bool  # are caveats of an embedder's among its links?
    _addressed: bool  # to this server, or to nobody where that will do
    issued: RootRecord  # the only identity to authorize on: no holder can write it

    def __init__(
        self, verifier: Verifier, issued: RootRecord, links: tuple[Link, ...], lineage: Lineage, tags: tuple[bytes, ...]
    ) -> None:
        put = object.__setattr__
        put(self, "_verifier", verifier)
        put(self, "issued", issued)
        put(self, "_links", links)
        put(self, "_lineage", lineage)
        put(self, "_tags", tags)
        put(self, "_capability", None)
        own = verifier._vocabulary is not V1 and any(":" in caveat.key for link in links for caveat in link.caveats)
        put(self, "_own", own)
        put(self, "_addressed", verifier._unaddressed or issued.audience is not None or _has_audience(links))

    @property
    def token_id(self) -> str:
        """The id of the whole tree that was minted."""
        return self.issued.token_id

    @property
    def chain(self) -> tuple[Actor, ...]:
        """Every agent that has held the token, in order, with the basis on which its name is known."""
        return self._lineage.chain

    @property
    def actor(self) -> Actor:
        """Who holds the token: `vouched` for by whoever handed it on, `issued` if nobody has."""
        return self.chain[-1]

    @property
    def parent(self) -> Actor | None:
        """Who handed it to the actor."""
        return self.chain[-2] if len(self.chain) > 1 else None

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
        """The decision on `access` now, true if allowed. Never raises on denial."""
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

    def _decide(self, now: int, access: Access | None, caller: Caller | None, dry: bool) -> Decision:
        """Steps 8 and 9, link by link."""
        refusals = self._refusals(now, access)
        if refusals:
            return self._denied(now, access, caller, tuple(refusals), 8, dry)
        return self._finished(now, access, caller, dry)

    def _finished(self, now: int, access: Access | None, caller: Caller | None, dry: bool) -> Decision:
        if caller is not None:
            refusal = self._calls(caller)
            if refusal is not None:
                return self._denied(now, access, caller, (refusal,), 9, dry)
        return Decision(code="allowed", now=now, access=access, caller=caller, granted=self, dry=dry, known=self)

    def _denied(
        self, now: int, access: Access | None, caller: Caller | None, refusals: tuple[Refusal, ...], step: int, dry: bool
    ) -> Decision:
        known = Attribution(self.issued, self.chain, self.task)
        return Decision(
            code=refusals[0].code, now=now, access=access, caller=caller, known=known,
            refusals=refusals, step=step, dry=dry,
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
                refusals.append(Refusal(reason.code, reason.text, at, self._added_by(at)))
            if link.settles:
                situation = settled(situation, link)
        if not self._addressed:
            text = "addressed to nobody, and this server takes only what is addressed to it"
            refusals.append(Refusal("unaddressed", text))
        return refusals

    def _added_by(self, at: int) -> str:
        return ISSUER if at == 0 else read_along(self.issued.agent, self._links[:at]).holder

    def _calls(self, caller: Caller) -> Refusal | None:
        """Step 9: what the server itself knows of the caller agrees with the token."""
        if caller.agent is not None and caller.agent != self.actor.name:
            return Refusal("caller", f"{caller.agent} calls with the token of {self.actor.name}")
        if caller.task is not None and not names.at_or_below(caller.task, self.task):
            return Refusal("caller", f"called from task {caller.task} with a token for task {self.task}")
        return None

    def __repr__(self) -> str:
        chain_ = " > ".join(actor.name for actor in self.chain)
        return f"<Grant {self.token_id}, {chain_}, for {self.issued.subject}, task {self.issued.task}>"


ISSUER = "the issuer"  # who added link 0


def _has_audience(links: tuple[Link, ...]) -> bool:
    return any(caveat.key == "aud" for link in links for caveat in link.caveats)


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
