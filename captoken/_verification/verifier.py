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
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from time import time
from typing import NamedTuple

from msgspec import structs

from captoken._format import chain, names
from captoken._format.clocks import Clock, read_clock
from captoken._format.entropy import random_bytes
from captoken._format.errors import StoreError, TokenFormatError
from captoken._format.packet import Packet
from captoken._format.root import RootRecord
from captoken._format.sealed import Sealed
from captoken._format.text import BOUND, parts_of
from captoken._language.access import Access, Caller
from captoken._language.caveats import V1, Vocabulary
from captoken._language.discharge import read_discharge
from captoken._language.lineage import Lineage, read_along
from captoken._language.links import BadLink, Link, read_links
from captoken._language.overlay import Overlay
from captoken._language.reasons import CODES, Reason
from captoken._verification.decision import Attribution, Decision, Refusal
from captoken._verification.effects import Recorder as Trail
from captoken._verification.grant import (
    DISCHARGER,
    ISSUER,
    Custody,
    Grant,
    Presented,
    again,
    granted,
    link_ids,
    stated,
)
from captoken._writing.issuer import keyring_source
from captoken._writing.token import Token
from captoken.keys.keyring import Keyring
from captoken.stores.ports import Debit, Ledger, ReplayStore, Reservation, Use

_log = logging.getLogger("captoken")
CUSTODY_REMEMBERED = 4096  # hand-overs whose signature held, per verifier


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

    A grant is good for `max_age` seconds, an hour unless given, however long its token lives: then the keys have to be asked
    again. None is no bound.

    `overlay` gives the newest restrictions on tokens already out: an Overlay, or a callable that returns one, as a Feed
    is. It may be `max_staleness` seconds old. Later than that, or where there is none, all is denied; with
    `allow_stale_overlay=True` it is only logged, and what was revoked meanwhile still works.
    """

    __slots__ = (
        "_audiences", "_audit", "_clock", "_keyring", "_ledger", "_leeway", "_max_age", "_named", "_overlay", "_random",
        "_replays", "_signed", "_stale", "_staleness", "_unaddressed", "_vocabulary",
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
    _max_age: int | None
    _overlay: Callable[[], Overlay | None] | None
    _staleness: int
    _stale: bool  # is a stale overlay good enough?
    _signed: OrderedDict[
        bytes, None
    ]  # states up to which every hand-over was signed; the one asked for last at the end

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
        max_age: int | None = 3600,
        vocabulary: Vocabulary = V1,
        clock: Clock = time,
        random: Callable[[int], bytes] = random_bytes,
    ) -> None:
        if type(leeway) is not int or leeway < 0:
            raise ValueError("leeway must be a number of seconds, 0 or more, as int")
        if type(max_staleness) is not int or max_staleness < 0:
            raise ValueError("max_staleness must be a number of seconds, 0 or more, as int")
        if max_age is not None and (type(max_age) is not int or max_age < 0):
            raise ValueError("max_age must be a number of seconds, 0 or more, as int, or None")
        if not (overlay is None or isinstance(overlay, Overlay) or callable(overlay)):
            raise TypeError(
                f"overlay must be an Overlay, or a callable that returns one, not {type(overlay).__name__}"
            )
        own = (
            (audience,)
            if isinstance(audience, str)
            else ()
            if audience is None
            else tuple(audience)
        )
        if audience is not None and not own:
            raise ValueError("a server without a name: leave audience out, or name it")
        put = object.__setattr__
        put(self, "_keyring", keyring_source(keyring))
        put(self, "_named", tuple(names.name(name, "audience") for name in own))
        put(self, "_audiences", frozenset(own))
        put(self, "_unaddressed", allow_unaddressed is True or not own)
        put(self, "_leeway", leeway)
        put(self, "_max_age", max_age)
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
        return any(
            port is not None for port in (self._replays, self._ledger, self._audit, self._overlay)
        )

    def authenticate(
        self, token: str | Token, *, proof: str | None = None, request: bytes | None = None
    ) -> Grant:
        """The grant of a token, with all checked but an access. Raises Denied.

        Says who acts, not what may be done: ask the grant, once for each access.
        """
        decision = self._decide(token, None, None, (proof, request))
        del token, proof
        return granted(decision)

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
        decision = self._decide(token, *stated(access, caller), (proof, request))
        del token, proof
        return granted(decision)

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
        return self._decide(token, *stated(access, caller), (proof, request))

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
        return self._decide(token, *stated(access, caller), (proof, request), dry=True)

    def refuse(
        self,
        token: str | Token,
        code: str,
        text: str,
        *,
        proof: str | None = None,
        request: bytes | None = None,
    ) -> Decision:
        """A denial of an adapter's own, for a request that no token can permit; but first what is wrong with this one.

        Recorded, and nothing is committed. `code` is one of the spec's.
        """
        decision = self._decide(token, None, None, (proof, request), dry=True)
        if decision:
            step, refusals = CODES[code].step, (Refusal(code, text),)
            decision = structs.replace(
                decision, code=code, step=step, refusals=refusals, granted=None, effects=()
            )
        return self._recorded(structs.replace(decision, dry=False))

    def _decide(
        self,
        token: str | Token,
        access: Access | None,
        caller: Caller | None,
        presented: Presented,
        dry: bool = False,
        idle: bool = False,
    ) -> Decision:
        """`idle`: the token is shown and not used, so that one for handing on will do."""
        now = read_clock(self._clock)
        found = self._open(token, now, idle)
        if isinstance(found, Grant):
            decision = found._decide(now, access, caller, dry, presented)
        else:
            decision = structs.replace(found, now=now, access=access, caller=caller, dry=dry)
        return decision if dry else self._settled(decision)

    def _settled(self, decision: Decision) -> Decision:
        """The decision with all that it needs to stand: its effects committed, and then itself recorded; or a denial."""
        return self._recorded(
            self._committed(decision.granted, decision) if decision.effects else decision
        )

    def _recorded(self, decision: Decision, *others: Decision) -> Decision:
        """The decision once it is in the trail, with others on the same step; or a denial."""
        if self._audit is not None:
            try:
                if others:
                    self._audit.record_all((decision, *others))
                else:
                    self._audit.record(decision)
            except Exception as error:  # whatever a trail raises, there is no record
                if decision:
                    text = f"the decision cannot be recorded: {type(error).__name__}"
                    return again(decision, Refusal("store_unavailable", text))
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
            except (
                Exception
            ) as error:  # whatever a store raises, it does not say that there is enough
                refusal = Refusal("store_unavailable", f"a store raised {type(error).__name__}")
            if refusal is not None:
                return again(decision, refusal)
        return decision

    def _use(self, use: Use, now: int) -> Refusal | None:
        if self._replays is None:
            raise StoreError("this verifier has no replay store")
        if self._replays.add(use, now) is True:
            return None
        return Refusal(
            "replayed", "the proof was used before, or is older than what the store remembers"
        )

    def _reserve(self, grant: Grant, reservation: Reservation, now: int) -> Refusal | None:
        if self._ledger is None:
            raise StoreError("this verifier has no ledger")
        short = next(
            (debit for debit in reservation.debits if debit.amount > debit.limit), None
        )  # it never was enough
        short = self._ledger.reserve(reservation, now) if short is None else short
        if short is None:
            return None
        if not isinstance(short, Debit):
            raise StoreError(f"the ledger answered with a {type(short).__name__}")
        text = f"{short.amount} {short.unit} of {short.limit} are not left"
        return Refusal("budget_exhausted", text, short.link, grant._added_by(short.link))

    def _open(self, token: str | Token, now: int, idle: bool) -> Grant | Decision:
        """Steps 1 to 6: everything that depends on the token and the keys alone. A Decision is a denial."""
        try:
            packet, discharges = (
                token._bound() if isinstance(token, Token) else parts_of(token, BOUND)
            )  # steps 1 and 2
            root = RootRecord.decode(
                packet.identifier
            )  # from what is signed, whatever a Token says of itself
        except TokenFormatError as error:
            return _denial(Refusal(error.code, str(error)), error.step)
        derived = self._keyring().derived(root.key_id, root.audience)
        if derived is None:
            return _denial(
                Refusal(
                    "unknown_key", "no key here for the key id and audience that the token names"
                ),
                3,
            )
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
        if lineage.must_delegate and not idle:
            last = max(at for at, link in enumerate(restrictions) if link.delegate_only)
            return self._broken(
                genuine, last, Reason("delegate_only", "for handing on, and nobody was handed it")
            )
        custody = _custody(packet, restrictions, tags) if lineage.key is not None else ()
        return Grant(
            self, root, tuple(restrictions), tuple(places), lineage, packet, tags, custody, now
        )

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
        self, token: _Genuine, at: int | None, reason: Reason | BadLink, added_by: str | None = None
    ) -> Decision:
        """A denial by link `at` of a token whose signature held: so its root record can be believed."""
        root, packet, tags, links = token
        if at is not None and added_by is None:
            added_by = ISSUER if at == 0 else read_along(root.agent, links[:at]).holder
        chain_ = read_along(root.agent, links).chain()
        known = Attribution(root, chain_, root.task, link_ids(tags), packet.caveats)
        return _denial(
            Refusal(reason.code, reason.text, at, added_by), CODES[reason.code].step, known
        )

    def __repr__(self) -> str:
        names_ = ", ".join(sorted(self._audiences)) or "nobody in particular"
        return f"<Verifier for {names_}>"


class _Genuine(NamedTuple):
    """A token whose signature held, before anything of it is judged."""

    root: RootRecord
    packet: Packet
    tags: tuple[bytes, ...]
    links: list[Link | BadLink]


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
        return None, Reason(
            "bad_discharge", "a discharge that answers nothing asked, or stands in another order"
        )
    for at in asked:
        if at not in answers:
            return at, Reason("missing_discharge", "a third party is asked, and no answer came")
    for at, discharge in answers.items():
        key = chain.answer_key(derived, packet, tags, at)
        if key is None or chain.fold(key, discharge, packet.signature) is None:
            return at, Reason(
                "bad_discharge",
                "the discharge is not by whom was asked, or not bound to this token",
            )
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
