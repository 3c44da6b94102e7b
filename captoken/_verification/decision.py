"""What a verifier answers: a decision, the grant that it gives, and the denial that it raises.

One decision, three readers: `str(decision)` for the operator, `decision.for_model()` for the agent
that was refused, `decision.as_dict()` for machines (spec, "Verification").

A `Grant` is a genuine token with the verifier that found it so: it asks that verifier again for
each access. An `AsyncGrant` is the same for asyncio; its answers are awaited.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NoReturn, Protocol, TypeAlias, TypeVar

import msgspec

from captoken._format.encoding import b64encode
from captoken._format.errors import CaptokenError
from captoken._format.packet import RawCaveat
from captoken._format.root import RootRecord
from captoken._format.sealed import SealedValue
from captoken._format.spelling import escape, spelled_time
from captoken._language.access import Access, Caller, amounts
from captoken._language.capability import Capability
from captoken._language.lineage import Actor
from captoken._language.reasons import CODES, Kind, Refusal
from captoken._verification.genuine import Genuine, Memory
from captoken._verification.wording import PLAN, place, told_to_model
from captoken.proof import Evidence
from captoken.stores.ports import USES, Reservation, Use

Effect: TypeAlias = Use | Reservation  # what has to be committed for an answer to stand
Refusals: TypeAlias = tuple[Refusal, ...]
_NEEDS = frozenset(("table", "operation", "tool", "argument", "domain"))  # a grant can be missing


class Step(msgspec.Struct, frozen=True):
    """One step of the plan, numbered from 1."""

    number: int
    name: str
    outcome: Literal["held", "failed", "not reached", "nothing to check"]
    detail: str = ""


class Attribution(msgspec.Struct, frozen=True):
    """Who is behind a token whose signature held."""

    issued: RootRecord
    chain: tuple[Actor, ...]
    task: str
    link_ids: tuple[str, ...] = ()  # of each link, by its public name
    caveats: tuple[RawCaveat, ...] = ()  # the links as they travel, and a third party's box


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What a verifier decided. True if allowed.

    `code` is `allowed`, or the first failure in the order of the plan. `refusals` has that one
    first, then whatever else of the same step would have had to hold. `grant` is there only if
    allowed, and not from `explain`; of an AsyncVerifier, `grant.awaited` is the one to use in a
    coroutine.
    """

    code: str
    now: int  # seconds since the epoch, as the verifier's clock had it
    access: Access | None = None
    caller: Caller | None = None
    grant: Grant | None = None
    who: Attribution | None = None  # see `attribution`
    refusals: Refusals = ()
    step: int = len(PLAN) + 1  # of the plan: the one that failed
    dry: bool = False  # decided by `explain`: the stores were looked at, and nothing was committed
    effects: tuple[Effect, ...] = ()  # what has to be committed for the answer to stand
    overlaid: bool = False  # was there an overlay to ask?
    leeway: int = 0  # of the verifier, in seconds

    def __bool__(self) -> bool:
        return self.code == "allowed"

    @property
    def attribution(self) -> Attribution | Grant | None:
        """Who is behind the token, allowed or not, once its signature held: `issued`, `chain`,
        `task`.
        """
        return self.who if self.who is not None else self.grant

    def __repr__(self) -> str:
        return f"<Decision {self.summary}>"

    @property
    def steps(self) -> tuple[Step, ...]:
        """The plan with what came of each step."""
        return tuple(self._step(number, name) for number, name in enumerate(PLAN, 1))

    def _step(self, number: int, name: str) -> Step:
        if number == self.step:
            return Step(number, name, "failed", self.refusals[0].text)
        if number > self.step:
            return Step(number, name, "not reached")
        if number == 7 and not self.overlaid:
            return Step(number, name, "nothing to check", "no overlay is loaded")
        if number == 10 and not self._proven:
            return Step(number, name, "nothing to check", "no proof is asked for")
        if number == 11 and not self.effects:
            return Step(number, name, "nothing to check", "nothing to commit")
        if number == 11 and self.dry:
            return Step(number, name, "held", "looked at, not committed")
        return Step(number, name, "held")

    @property
    def _proven(self) -> bool:
        """Is a proof's one use among the effects?"""
        return any(isinstance(effect, Use) for effect in self.effects)

    @property
    def summary(self) -> str:
        """One line: the code, and why."""
        if self.refusals:
            return escape(f"{self.code}: {self.refusals[0].text}")
        return escape(f"{self.code}: {self._tried('a token')}")

    def _tried(self, without: str) -> str:
        return self.access.summary if self.access is not None else without

    @property
    def needed(self) -> dict[str, Any]:
        """The keywords of the smallest grant that would have permitted the access.

        With values: not for logs.
        """
        return self.access.needed() if self.access is not None else {}

    def as_dict(self) -> dict[str, Any]:
        """The decision as JSON-able data, for machines; without the values of arguments and
        attributes.
        """
        known = self.attribution
        return {
            "allowed": bool(self),
            "code": self.code,
            "now": self.now,
            "access": self.access.summary if self.access is not None else None,
            "refusals": [msgspec.structs.asdict(refusal) for refusal in self.refusals],
            "subject": known.issued.subject if known else None,
            "task": known.task if known else None,
            "token_id": known.issued.token_id if known else None,
            "chain": [msgspec.structs.asdict(actor) for actor in known.chain] if known else [],
            "steps": [msgspec.structs.asdict(step) for step in self.steps],
            "committed": not self.dry,
        }

    def __str__(self) -> str:
        lines = [f"{'ALLOWED' if self else 'DENIED '}  {self.code}"]
        lines += [f"  {label:<9}{escape(text)}" for label, text in self._lines()]
        return "\n".join(lines)

    def _lines(self) -> list[tuple[str, str]]:
        lines = self._who()
        lines.append(("tried", self._tried("no access: the token itself")))
        for count, refusal in enumerate(self.refusals):
            label = "refused" if count == 0 else "also"
            lines.append((label, f"{place(refusal)}: {refusal.text}"))
        needed = self._needed_text()
        if needed:
            lines.append(("needs", needed))
        lines.append(("at", spelled_time(self.now) + (", a dry run" if self.dry else "")))
        return lines

    def _who(self) -> list[tuple[str, str]]:
        known = self.attribution
        if known is None:
            text = "unknown: nothing that this token says is vouched for by a signature"
            return [("who", text)]
        chain = " > ".join(f"{actor.name} ({actor.basis})" for actor in known.chain)
        return [
            ("who", f"{chain}, for {known.issued.subject}"),
            ("task", known.task),
            ("token", known.issued.token_id),
        ]

    def _needed_text(self) -> str:
        """What would have to be granted, where more rights would have helped."""
        access = self.access
        if access is None:
            return ""
        columns_lack = self.code == "column" and access.columns is not None
        if self.code not in _NEEDS and not columns_lack:
            return ""
        links = [refusal.link for refusal in self.refusals if refusal.link is not None]
        where = f" in link {', '.join(map(str, links))}" if links else ""
        return f"{access.needed_text()}{where}"

    def for_model(self) -> str:
        """What the agent may be told: the rule that was broken, whether a retry can help, who could
        grant it.

        Echoes only what the access itself stated, escaped and short: nothing from the token,
        nothing of other agents, no way round. A denial that a stranger could cause says no more
        than that.
        """
        if self:
            return "Allowed."
        return told_to_model(self.code, self.access, proven=self._proven)


class Denied(CaptokenError):  # noqa: N818, the name reads as what it is
    """A verifier refused.

    `decision` says all, for the operator; `public` is what a client may be told; `kind` is what an
    HTTP status follows from: `invalid` 401, `insufficient` 403, `proof` 401, `unavailable` 503.
    """

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.code = decision.code
        super().__init__(decision.summary)

    @property
    def public(self) -> str:
        """A sentence that may go to a client: nothing of the token, nothing of what others may
        do.
        """
        return CODES[self.code].public

    @property
    def kind(self) -> Kind:
        return CODES[self.code].kind


# --- the grant -----------------------------------------------------------------------------------


class Asked(msgspec.Struct, frozen=True, eq=False):
    """What somebody asks about a genuine token."""

    access: Access | None  # None asks whether the token stands at all
    caller: Caller | None
    grant: (
        Grant | None
    )  # what to hand out if it is allowed; None is a dry run, which grants nothing
    verified_at: int  # when the keys were asked, in seconds since the epoch
    again: bool = (
        False  # was the token asked about before? Then its capability is the sooner answer
    )
    counted: bool = True  # does it count, where the token does? No for what is under way already
    sent: bool = False  # did the token come with it? Then its proof is judged, and used
    used: bool = True  # or only shown, by whoever calls back what it handed on
    request: bytes | None = None  # what a proof is about; None is the access itself


class Driver(Protocol):
    """What a grant asks of the verifier that made it."""

    @property
    def memory(self) -> Memory: ...

    @property
    def awaited(self) -> AsyncDriver: ...

    def decide(self, genuine: Genuine, asked: Asked) -> Decision: ...

    def look(self, genuine: Genuine, asked: Asked) -> Decision: ...

    def recheck(self, genuine: Genuine, asked: Asked) -> Decision: ...

    def decide_all(self, genuine: Genuine, asked: Sequence[Asked]) -> Decision: ...

    def record_denial(self, genuine: Genuine, asked: Asked, refusals: Refusals) -> Decision: ...

    def settle(self, reservation_id: bytes, taken: Mapping[str, int] | None) -> bool: ...


class AsyncDriver(Protocol):
    """The same, for asyncio."""

    async def decide(self, genuine: Genuine, asked: Asked) -> Decision: ...

    async def look(self, genuine: Genuine, asked: Asked) -> Decision: ...

    async def recheck(self, genuine: Genuine, asked: Asked) -> Decision: ...

    async def decide_all(self, genuine: Genuine, asked: Sequence[Asked]) -> Decision: ...

    async def record_denial(
        self, genuine: Genuine, asked: Asked, refusals: Refusals
    ) -> Decision: ...

    async def settle(self, reservation_id: bytes, taken: Mapping[str, int] | None) -> bool: ...


def stated(access: Access, caller: Caller | None) -> None:
    """Raise TypeError for what is no Access or no Caller."""
    if type(access) is not Access:
        kind = type(access).__name__
        raise TypeError(f"expected an Access, as Access(table=…, operation=…), not {kind}")
    if caller is not None and type(caller) is not Caller:
        kind = type(caller).__name__
        raise TypeError(f"expected a Caller, as Caller(agent=…), not {kind}")


def granted(decision: Decision) -> Grant:
    """The grant of a decision. Raises Denied, with the decision, if there is none."""
    grant = decision.grant
    if grant is None or decision.code != "allowed":
        raise Denied(decision)
    return grant


def own_denial(code: str, why: str) -> Refusals:
    """A denial of an adapter's own. Raises ValueError for a code that the spec does not have."""
    if code not in CODES:
        raise ValueError(f"no code of the spec: {code!r}")
    return (Refusal(code, why),)


class _Vouched(SealedValue, frozen=True, eq=False):
    """What a verifier vouches for: who is behind a token, and what it can do at the most."""

    _instead: ClassVar[str] = "verify the token where it is needed"

    _genuine: Genuine
    _driver: Driver
    _verified_at: int  # when the keys were asked

    @property
    def issued(self) -> RootRecord:
        """What the issuer said: the only identity to authorize on, since no holder can write it."""
        return self._genuine.root

    @property
    def token_id(self) -> str:
        """The id of the whole tree that was minted."""
        return self._genuine.root.token_id

    @property
    def chain(self) -> tuple[Actor, ...]:
        """Every agent that has held the token, in order, with the basis on which its name is
        known.
        """
        return self._genuine.chain(self._driver.memory)

    @property
    def actor(self) -> Actor:
        """Who holds the token.

        `issued` if nobody has handed it on, `vouched` for by whoever has, `proven` by a signature.
        """
        return self.chain[-1]

    @property
    def parent(self) -> Actor | None:
        """Who handed it to the actor."""
        chain = self.chain
        return chain[-2] if len(chain) > 1 else None

    @property
    def key(self) -> str | None:
        """The Ed25519 key that the token is bound to, as base64url, or None for a bearer token."""
        key = self._genuine.lineage.key
        return b64encode(key) if key is not None else None

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Every hand-over that a key signed, in order: to be kept, and checked without the root
        key.
        """
        return self._genuine.evidence

    @property
    def capability(self) -> Capability:
        """The most that the token can do."""
        return self._genuine.capability

    @property
    def task(self) -> str:
        """The token's task: the root's, or the one below it that a link names."""
        return self._genuine.task

    @property
    def expires_at(self) -> int | None:
        """Seconds since the epoch, or None. Without the verifier's leeway."""
        return self._genuine.expires_at

    def expiry_at(self, link: int) -> int | None:
        """When the token as it was at that link expires: so long can anything live that it
        became.
        """
        return self._genuine.expiry_at(link)

    @property
    def link_ids(self) -> tuple[str, ...]:
        """The public name of each link and of all that descends from it."""
        return self._genuine.link_ids

    def link_below(
        self, link: int, links: Sequence[RawCaveat], stated: bytes, mac: bytes
    ) -> str | None:
        """The id of what was made of this token at `link`, if `mac` over `stated` shows it (spec,
        "Recall").
        """
        return self._genuine.link_below(link, links, stated, mac)

    @property
    def caveats(self) -> tuple[RawCaveat, ...]:
        """The links as they travel: what each says, and for a third-party caveat the box. Not
        secret.
        """
        return self._genuine.packet.caveats

    def _asked(self, grant: Grant | None, access: Access | None, caller: Caller | None) -> Asked:
        again = access is not None and self._genuine.was_asked()
        return Asked(access, caller, grant, self._verified_at, again)

    def _under_way(
        self, grant: Grant | None, access: Access | None, caller: Caller | None
    ) -> Asked:
        again = access is not None and self._genuine.was_asked()
        return Asked(access, caller, grant, self._verified_at, again, counted=False)

    def _all_asked(
        self, grant: Grant, accesses: Sequence[Access], caller: Caller | None
    ) -> list[Asked]:
        if not accesses:
            raise ValueError("state at least one access")
        for access in accesses:
            stated(access, caller)
        return [self._asked(grant, access, caller) for access in accesses]

    def _own_denial(
        self, grant: Grant, code: str | Decision, why: str, access: Access | None
    ) -> tuple[Refusals, Asked]:
        if isinstance(code, Decision):
            if code:
                raise ValueError("an allowance is no denial")
            return code.refusals, self._asked(grant, code.access, code.caller)
        return own_denial(code, why), self._asked(grant, access, None)

    def __repr__(self) -> str:
        chain = " > ".join(actor.name for actor in self.chain)
        issued = self.issued
        kind = type(self).__name__
        return f"<{kind} {self.token_id}, {chain}, for {issued.subject}, task {issued.task}>"


class Grant(_Vouched, frozen=True, eq=False):
    """What a verifier vouches for: a genuine token's capability, and who is behind it.

    Only a verifier makes one. It holds no promise for later: `authorize`, `check` and `explain`
    look at the clock each time. Whoever holds the object has the power; hand on the token, not the
    grant.
    """

    def authorize(self, access: Access, *, caller: Caller | None = None) -> Grant:
        """This grant, if it permits `access` now. Raises Denied, with the decision."""
        return granted(self.check(access, caller=caller))

    def check(self, access: Access, *, caller: Caller | None = None) -> Decision:
        """The decision on `access` now, true if allowed. Never raises on denial.

        Takes no proof: the token had one.
        """
        stated(access, caller)
        genuine = self._genuine
        asked = Asked(access, caller, self, self._verified_at, genuine.was_asked())
        return self._driver.decide(genuine, asked)

    def explain(self, access: Access, *, caller: Caller | None = None) -> Decision:
        """The decision that `check` would come to, for people.

        It looks at the stores, commits nothing, and gives no grant.
        """
        stated(access, caller)
        return self._driver.look(self._genuine, self._asked(None, access, caller))

    def recheck(self, accesses: Iterable[Access] = (), *, caller: Caller | None = None) -> Decision:
        """Whether the grant still stands now, and permits `accesses` that are under way.

        Asks no store, counts nothing again, and is not recorded: `deny` records what it found.
        """
        decision = self._driver.recheck(self._genuine, self._under_way(self, None, None))
        for access in accesses:
            if not decision:
                break
            stated(access, caller)
            asked = self._under_way(self, access, caller)
            decision = self._driver.recheck(self._genuine, asked)
        return decision

    def check_all(self, accesses: Sequence[Access], *, caller: Caller | None = None) -> Decision:
        """The decision on what one step needs: all of it together used once, and recorded together.

        The first access that is refused is the answer, and alone is recorded. Raises ValueError for
        no access.
        """
        return self._driver.decide_all(self._genuine, self._all_asked(self, accesses, caller))

    def reserve(self, access: Access, *, caller: Caller | None = None) -> Reserved:
        """Permission for one access that is paid for when it is over: settle it, or cancel it.

        Raises Denied. A block (`with grant.reserve(access) as reserved:`) that settled and
        cancelled nothing is settled in full at its end, also when an exception leaves it: whoever
        calls may hang up when the work is done.
        """
        decision = self.check(access, caller=caller)
        granted(decision)
        return Reserved(self._driver, _reservation(decision))

    def deny(self, code: str | Decision, why: str = "", access: Access | None = None) -> Decision:
        """A denial of an adapter's own, recorded: for what no token permits.

        `code` is one of the spec's. A denial that `recheck` gave may stand in its place: then that
        one is recorded. Raises ValueError for an allowance, or a code that the spec does not have.
        """
        refusals, asked = self._own_denial(self, code, why, access)
        return self._driver.record_denial(self._genuine, asked, refusals)

    @property
    def blocking(self) -> Grant:
        """This one: so that guards may be given either."""
        return self

    @property
    def awaited(self) -> AsyncGrant:
        """The same grant, for coroutines."""
        return self.awaited_by(self._driver.awaited)

    def awaited_by(self, driver: AsyncDriver) -> AsyncGrant:
        """The same grant, for coroutines that ask this face of its verifier."""
        return AsyncGrant(self._genuine, self._driver, self._verified_at, self, driver)


def _reservation(decision: Decision) -> Reservation | None:
    """What was taken of a ledger: one at most, since what is asked of it is asked in one step."""
    for effect in decision.effects:
        if isinstance(effect, Reservation):
            return effect
    return None


def _cost_taken(
    reservation: Reservation | None, cost: Mapping[str, int] | None
) -> Mapping[str, int] | None:
    """What to settle with: None is all of it. Raises TypeError or ValueError for a cost that is
    none.
    """
    if cost is None:
        return None
    taken = {**amounts(cost, "cost"), USES: 1}
    if reservation is not None:
        left_out = {debit.unit for debit in reservation.debits} - taken.keys()
        if left_out:
            raise ValueError(f"what it cost in {', '.join(sorted(left_out))} is not stated")
    return taken


class Reserved:
    """What was reserved for one access.

    A token that counts nothing has nothing to settle, and nothing happens.
    """

    __slots__ = ("_driver", "_open", "_reservation")

    def __init__(self, driver: Driver, reservation: Reservation | None) -> None:
        self._driver = driver
        self._reservation = reservation
        self._open = reservation is not None

    def settle(self, cost: Mapping[str, int] | None = None) -> bool:
        """What it cost in fact, by unit, at most what was reserved; None is all of it.

        False if too late: all is spent.

        Raises TypeError or ValueError for a cost that is none, or that leaves a unit out: then all
        is spent as well.
        """
        try:
            taken = _cost_taken(self._reservation, cost)
        except (TypeError, ValueError):
            self._open = False  # something was done: what is not settled in time is spent
            raise
        return self._close(taken)

    def cancel(self) -> bool:
        """Nothing was done: all of it goes back. False if it was too late, and all is spent."""
        return self._close({})

    def _close(self, taken: Mapping[str, int] | None) -> bool:
        if self._reservation is None:
            return True
        if not self._open:
            return False
        self._open = False
        return self._driver.settle(self._reservation.id, taken)

    def __enter__(self) -> Reserved:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._open:
            self._close(None)


# --- asyncio -------------------------------------------------------------------------------------

_T = TypeVar("_T")


class Pending(Coroutine[Any, Any, _T]):
    """An answer to be awaited, once.

    It is neither true nor false: what was not awaited allows nothing. A coroutine would be true.
    """

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, _T]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, _T]:
        return self._coroutine.__await__()

    def __bool__(self) -> NoReturn:
        raise TypeError("an answer of an async verifier has to be awaited before it is asked")

    # What makes a task of it.

    def send(self, value: Any, /) -> Any:
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()


class AsyncGrant(_Vouched, frozen=True, eq=False):
    """A Grant whose answers are awaited. `blocking` is the plain one, for sync guards."""

    blocking: Grant
    _awaited: AsyncDriver

    @property
    def awaited(self) -> AsyncGrant:
        """This one: so that adapters may be given either."""
        return self

    def authorize(self, access: Access, *, caller: Caller | None = None) -> Pending[AsyncGrant]:
        """This grant, if it permits `access` now. Raises Denied, with the decision."""
        stated(access, caller)
        return Pending(self._authorized(access, caller))

    async def _authorized(self, access: Access, caller: Caller | None) -> AsyncGrant:
        granted(await self.check(access, caller=caller))
        return self

    def check(self, access: Access, *, caller: Caller | None = None) -> Pending[Decision]:
        """The decision on `access` now, true if allowed, once it is awaited."""
        stated(access, caller)
        asked = self._asked(self.blocking, access, caller)
        return Pending(self._awaited.decide(self._genuine, asked))

    def explain(self, access: Access, *, caller: Caller | None = None) -> Pending[Decision]:
        """The decision that `check` would come to, for people.

        It commits nothing, and gives no grant.
        """
        stated(access, caller)
        return Pending(self._awaited.look(self._genuine, self._asked(None, access, caller)))

    def recheck(
        self, accesses: Iterable[Access] = (), *, caller: Caller | None = None
    ) -> Pending[Decision]:
        """Whether the grant still stands now, and permits what is under way. Asks no store."""
        return Pending(self._rechecked(accesses, caller))

    async def _rechecked(self, accesses: Iterable[Access], caller: Caller | None) -> Decision:
        asked = self._under_way(self.blocking, None, None)
        decision = await self._awaited.recheck(self._genuine, asked)
        for access in accesses:
            if not decision:
                break
            stated(access, caller)
            asked = self._under_way(self.blocking, access, caller)
            decision = await self._awaited.recheck(self._genuine, asked)
        return decision

    def check_all(
        self, accesses: Sequence[Access], *, caller: Caller | None = None
    ) -> Pending[Decision]:
        """The decision on what one step needs, all of it together used once."""
        asked = self._all_asked(self.blocking, accesses, caller)
        return Pending(self._awaited.decide_all(self._genuine, asked))

    def reserve(self, access: Access, *, caller: Caller | None = None) -> Pending[AsyncReserved]:
        """Permission for one access that is paid for when it is over. Raises Denied."""
        stated(access, caller)
        return Pending(self._reserved(access, caller))

    async def _reserved(self, access: Access, caller: Caller | None) -> AsyncReserved:
        decision = await self.check(access, caller=caller)
        granted(decision)
        return AsyncReserved(self._awaited, _reservation(decision))

    def deny(
        self, code: str | Decision, why: str = "", access: Access | None = None
    ) -> Pending[Decision]:
        """A denial of an adapter's own, recorded: see `Grant.deny`."""
        refusals, asked = self._own_denial(self.blocking, code, why, access)
        return Pending(self._awaited.record_denial(self._genuine, asked, refusals))


class AsyncReserved:
    """A Reserved that is awaited: `async with` settles it in full at its end, if nothing else was
    done with it.
    """

    __slots__ = ("_driver", "_open", "_reservation")

    def __init__(self, driver: AsyncDriver, reservation: Reservation | None) -> None:
        self._driver = driver
        self._reservation = reservation
        self._open = reservation is not None

    def settle(self, cost: Mapping[str, int] | None = None) -> Pending[bool]:
        """What it cost in fact, by unit; None is all of it. False if too late: all is spent."""
        try:
            taken = _cost_taken(self._reservation, cost)
        except (TypeError, ValueError):
            self._open = False
            raise
        return Pending(self._close(taken))

    def cancel(self) -> Pending[bool]:
        """Nothing was done: all of it goes back. False if too late: all is spent."""
        return Pending(self._close({}))

    async def _close(self, taken: Mapping[str, int] | None) -> bool:
        if self._reservation is None:
            return True
        if not self._open:
            return False
        self._open = False
        return await self._driver.settle(self._reservation.id, taken)

    async def __aenter__(self) -> AsyncReserved:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._open:
            await self._close(None)
