"""What a verifier vouches for: the grant, which asks it again for each access.

A `Grant` is a genuine token with the verifier that found it so. An `AsyncGrant` is the same for
asyncio; its answers are awaited. What both do is written there, and made here of that.

The rules of this file:

- A grant knows its verifier as a `Driver` alone. So no verifier is imported here.
- Nothing here decides, reads a clock, or asks a store. An adapter's own denial goes through the
  plan as well.
- No text of a token and no key is kept, and no `repr` shows one.
"""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Generator, Iterable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    NoReturn,
    Protocol,
    TypeVar,
)

from msgspec import structs
from msgspec.structs import force_setattr

from captoken._format import names
from captoken._format.encoding import b64encode
from captoken._format.parts import RawCaveat
from captoken._format.root import RootRecord
from captoken._format.sealed import SealedValue
from captoken._language.access import Access, Caller, amounts
from captoken._language.link import Actor
from captoken._language.reasons import Refusal
from captoken._verification.authenticated import AuthenticatedToken, Memory
from captoken._verification.decision import Decision, Denied, Refusals
from captoken._verification.facts import Condition, Question
from captoken.stores.ports import USES, Reservation

if TYPE_CHECKING:
    from captoken._language.capability import Capability
    from captoken.proof import Evidence


class Driver(Protocol):
    """What a grant asks of the verifier that made it.

    `Verifier` is the one there is. Every method takes a token that is genuine already, so none of
    them looks at a signature. Each reads the clock, and the overlay where there is one. None raises
    on a denial. What the clock raises passes through (24.10).
    """

    @property
    def memory(self) -> Memory:
        """What the verifier remembers: bounded, and shared by all its grants (24.22)."""
        ...

    @property
    def process(self) -> object:
        """What stands for the process that asks: equal until a fork, and never again after it."""
        ...

    @property
    def awaited(self) -> AsyncDriver:
        """The same verifier for asyncio, with the same keys, stores and memory."""
        ...

    # called: driver, by `python -m tests.called`
    def decide(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """Steps 7 to 10, then the effects and the record (24.9).

        What is allowed has been used and counted when this returns.
        """
        ...

    def look(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """A dry run: what `decide` would come to (24.16).

        Looks at the stores, commits nothing, and leaves no record.
        """
        ...

    def recheck(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """Steps 7 to 9 with fresh facts (24.19).

        Asks no ledger and no trail, and counts nothing. Only the overlay may have to be waited for.
        """
        ...

    def rows(
        self,
        genuine: AuthenticatedToken,
        asked: Question,
        table: str,
    ) -> tuple[Decision, tuple[Condition, ...]]:
        """`recheck` of the token, and what its links and the overlay say of the table's rows."""
        ...

    def decide_all(self, genuine: AuthenticatedToken, asked: Sequence[Question]) -> Decision:
        """`decide` for several accesses of one step: one reservation, one answer.

        The first that is refused is the answer, and then nothing of the others has counted.
        """
        ...

    def left(self, genuine: AuthenticatedToken, units: Collection[str]) -> dict[str, int]:
        """What the ledger has left of each of the units that a budget names, in all links.

        0 where the ledger cannot tell. Never raises what it raises.
        """
        ...

    def record_denial(
        self,
        genuine: AuthenticatedToken,
        asked: Question,
        refusals: Refusals,
    ) -> Decision:
        """A denial that the grant states itself, recorded as one of the verifier's.

        An adapter has found what no token permits; the trail is to say so (24.21).
        """
        ...

    def settle(self, reservation_id: bytes, taken: Mapping[str, int] | None) -> bool:
        """Close a reservation at what was taken, by unit; None is all of it.

        True if it was open, False if it was too late (38.8). Raises what the ledger raises.
        """
        ...

    # end: driver


class AsyncDriver(Protocol):
    """The same, for asyncio: what waits is awaited, itself or a thread that it runs in.

    `AsyncVerifier` is the one there is. Each method raises RuntimeError in another event loop than
    the first. Once an effect is under way, whoever cancels waits for the record (24.20).
    """

    @property
    def process(self) -> object:
        """As `Driver.process`."""
        ...

    # awaited: driver
    async def decide(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """Steps 7 to 10, then the effects and the record (24.9).

        What is allowed has been used and counted when this returns.
        """
        ...

    async def look(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """A dry run: what `decide` would come to (24.16).

        Looks at the stores, commits nothing, and leaves no record.
        """
        ...

    async def recheck(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """Steps 7 to 9 with fresh facts (24.19).

        Asks no ledger and no trail, and counts nothing. Only the overlay may have to be waited for.
        """
        ...

    async def rows(
        self,
        genuine: AuthenticatedToken,
        asked: Question,
        table: str,
    ) -> tuple[Decision, tuple[Condition, ...]]:
        """`recheck` of the token, and what its links and the overlay say of the table's rows."""
        ...

    async def decide_all(self, genuine: AuthenticatedToken, asked: Sequence[Question]) -> Decision:
        """`decide` for several accesses of one step: one reservation, one answer.

        The first that is refused is the answer, and then nothing of the others has counted.
        """
        ...

    async def left(self, genuine: AuthenticatedToken, units: Collection[str]) -> dict[str, int]:
        """What the ledger has left of each of the units that a budget names, in all links.

        0 where the ledger cannot tell. Never raises what it raises.
        """
        ...

    async def record_denial(
        self,
        genuine: AuthenticatedToken,
        asked: Question,
        refusals: Refusals,
    ) -> Decision:
        """A denial that the grant states itself, recorded as one of the verifier's.

        An adapter has found what no token permits; the trail is to say so (24.21).
        """
        ...

    async def settle(self, reservation_id: bytes, taken: Mapping[str, int] | None) -> bool:
        """Close a reservation at what was taken, by unit; None is all of it.

        True if it was open, False if it was too late (38.8). Raises what the ledger raises.
        """
        ...

    # end: driver


def stated(access: Access, caller: Caller | None) -> None:
    """Raise TypeError for what is no Access or no Caller.

    The exact types alone: a subclass could answer one thing to the plan and another to the record.
    """
    if type(access) is not Access:
        kind = type(access).__name__
        raise TypeError(f"expected an Access, as Access(table=…, operation=…), not {kind}")
    stated_caller(caller)


def stated_caller(caller: Caller | None) -> None:
    """Raise TypeError for what is no Caller, where one is stated."""
    if caller is not None and type(caller) is not Caller:
        kind = type(caller).__name__
        raise TypeError(f"expected a Caller, as Caller(agent=…), not {kind}")


def granted(decision: Decision) -> Grant:
    """The grant of a decision. Raises Denied, with the decision, if there is none.

    Both are asked for, the grant and the code: a dry run is allowed, and grants nothing.
    """
    grant = decision.grant
    if grant is None or decision.code != "allowed":
        raise Denied(decision)
    return grant


def own_denial(code: str, why: str) -> Refusals:
    """A denial of an adapter's own. Raises ValueError for a code that the spec does not have.

    A code of the adapter's invention would have no step, no kind and no public sentence.
    """
    return (Refusal(code, why),)


class _Vouched(SealedValue, frozen=True, eq=False):
    """What a verifier vouches for: who is behind a token, and what it can do at the most.

    The base of both grants. All that is here is read off the genuine token: no clock, no store, no
    overlay. So it says what the token is, and not whether it still stands.
    """

    _instead: ClassVar[str] = "verify the token where it is needed"

    _genuine: AuthenticatedToken
    _driver: Driver  # the verifier that is asked again, its sync face
    _verified_at: int  # when the keys were asked, in seconds since the epoch

    @property
    def issued(self) -> RootRecord:
        """What the issuer said: the only identity to authorize on, since no holder can write it
        (9.6).
        """
        return self._genuine.root

    @property
    def token_id(self) -> str:
        """The id of the whole tree that was minted. Public: it may go to a log."""
        return self._genuine.root.token_id

    @property
    def chain(self) -> tuple[Actor, ...]:
        """Every agent that has held the token, in order, with the basis on which its name is known.

        For showing and recording. Only the first name is the issuer's word (20.4). On a token that
        is bound to a key, hand-overs that the verifier does not remember cost a signature check
        each.
        """
        return self._genuine.chain(self._driver.memory.states)

    @property
    def actor(self) -> Actor:
        """Who holds the token.

        `issued` if nobody has handed it on, `vouched` for by whoever has, `proven` by a signature.
        Never decide on a name that is only vouched for: whoever handed the token on chose it.
        `issued` of the grant is what to decide on.
        """
        return self.chain[-1]

    @property
    def parent(self) -> Actor | None:
        """Who handed it to the actor, or None where nobody did."""
        chain = self.chain
        return chain[-2] if len(chain) > 1 else None

    @property
    def key(self) -> str | None:
        """The Ed25519 key that the token is bound to, as base64url, or None for a bearer token.

        Whose key it is, the token cannot say (28.7).
        """
        key = self._genuine.lineage.key
        return b64encode(key) if key is not None else None

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Every hand-over that a key signed, in order: to be kept, and checked without the root
        key.

        Whether a signature holds, `Evidence.holds` says. Nothing in it is secret (28.8).
        """
        return self._genuine.evidence

    @property
    def task(self) -> str:
        """The token's task: the root's, or the one below it that a link names (16.3)."""
        return self._genuine.task

    @property
    def expires_at(self) -> int | None:
        """When the token ends, in seconds since the epoch, or None for never.

        Without the verifier's leeway: by that much longer it may still be taken (15.7).
        """
        return self._genuine.expires_at

    def expiry_at(self, link: int) -> int | None:
        """When the token as it was at that link expires: so long can anything live that it became.

        In seconds since the epoch, or None for never. An entry of an overlay is kept at least so
        long.
        """
        return self._genuine.expiry_at(link)

    @property
    def link_ids(self) -> tuple[str, ...]:
        """The public name of each link and of all that descends from it. What an operator revokes
        by.
        """
        return self._genuine.link_ids

    @property
    def handed_on_at(self) -> tuple[int, ...]:
        """The links by which the token was handed on, from the first to the last."""
        return self._genuine.handed_on_at

    @property
    def nonces(self) -> tuple[str | None, ...]:
        """The `n` of each link, or None: all tokens of a set have one `n` for one hand-over."""
        return self._genuine.nonces

    @property
    def audience(self) -> str | None:
        """The server that the token was minted for alone, as its root record says."""
        return self._genuine.root.audience

    def link_below(
        self,
        link: int,
        links: Sequence[RawCaveat],
        stated: bytes,
        mac: bytes,
    ) -> str | None:
        """The id of what was made of this token at `link`, if `mac` over `stated` shows it.

        None if it does not hold, or where the holder got the token only later (spec, "Recall").
        Compared in constant time.
        """
        return self._genuine.link_below(link, links, stated, mac)

    @property
    def caveats(self) -> tuple[RawCaveat, ...]:
        """The links as they travel: what each says, and for a third-party caveat the box. Not
        secret.
        """
        return self._genuine.packet.caveats

    def _asked(
        self,
        grant: Grant | None,
        access: Access | None,
        caller: Caller | None,
    ) -> Question:
        """A question about an access that counts, as the grant asks it."""
        return Question(access, caller, grant, self._verified_at)

    def _under_way(
        self,
        grant: Grant | None,
        access: Access | None,
        caller: Caller | None,
    ) -> Question:
        """A question about what was paid for already: it counts nothing again (24.19)."""
        return Question(access, caller, grant, self._verified_at, counted=False)

    def _all_asked(
        self,
        grant: Grant,
        accesses: Sequence[Access],
        caller: Caller | None,
        after: _Owed | None = None,
    ) -> list[Question]:
        """The questions of one step, or of a further part of it: `after` is what the first took.

        Raises ValueError for none, TypeError for what is no access.
        """
        those = tuple(accesses)  # read once: what is checked is what is decided on
        if not those:
            raise ValueError("state at least one access, as Access(table=…, operation=…)")
        for access in those:
            stated(access, caller)
        asked = [self._asked(grant, access, caller) for access in those]
        if after is None or after.step is None:
            return asked
        return [structs.replace(one, goes_on=after.step) for one in asked]

    def _own_denial(
        self,
        grant: Grant,
        code: str | Decision,
        why: str,
        access: Access | None,
    ) -> tuple[Refusals, Question]:
        """What a denial of the grant's own says, and about which question.

        Raises ValueError, and TypeError for what is no Access.
        """
        if isinstance(code, Decision):
            if code:
                raise ValueError("an allowance is no denial: deny takes a decision that is denied")
            return code.refusals, self._asked(grant, code.access, code.caller)

        if access is not None:
            stated(access, None)
        return own_denial(code, why), self._asked(grant, access, None)

    def __repr__(self) -> str:
        chain = " > ".join(actor.name for actor in self.chain)
        issued = self.issued
        kind = type(self).__name__
        return f"<{kind} {self.token_id}, {chain}, for {issued.subject}, task {issued.task}>"


class Grant(_Vouched, frozen=True, eq=False):
    """A verified token: what it allows, and who is behind it.

    Only a verifier makes one, and threads may share it. It promises nothing for later: `authorize`,
    `check` and `explain` look at the clock and the overlay each time, and at the ledger if the
    token counts. They do not check the signatures again, so a grant works for at most `max_age`
    seconds (24.15). Whoever holds the object has its rights; hand on the token, not the grant.

        grant = verifier.authenticate(text)
        if grant.check(Access(table="sales", operation="select")):
            ...

    In a coroutine use `awaited`: the methods here wait for a store in the thread that calls.
    """

    _capability: Capability | None = None  # worked out when it is asked for

    @property
    def capability(self) -> Capability:
        """The most that the token can do. The first call computes what all links allow together.

        It is for showing and planning: no decision depends on it. It ignores the overlay and the
        ledger: to know what is allowed now, ask `check`.
        """
        held = self._capability
        if held is None:
            from captoken._language.capability import Capability

            genuine = self._genuine
            held = Capability.of(genuine.links, genuine.root.task, genuine.root.audience)
            force_setattr(self, "_capability", held)
        return held

    # called: grant, by `python -m tests.called`
    def authorize(self, access: Access, *, caller: Caller | None = None) -> Grant:
        """Return this grant if it allows `access` now. Raises Denied, with the decision.

        Like `check`, but with an exception. Raises TypeError if `access` is no Access.
        """
        stated(access, caller)
        asked = self._asked(self, access, caller)
        return self._authorized(asked)

    def _authorized(self, asked: Question) -> Grant:
        """Decide, then raise or hand back this grant."""
        granted(self._driver.decide(self._genuine, asked))
        return self

    def check(self, access: Access, *, caller: Caller | None = None) -> Decision:
        """Return the decision on `access` now: true if allowed. Never raises on denial.

        It runs steps 7 to 11 of the plan, and needs no proof, since the token came with one. If the
        token counts, an allowed access is counted when this returns (24.9). To ask without
        counting, use `explain` or `recheck`. Raises TypeError for an argument that is no Access or
        Caller.
        """
        stated(access, caller)
        asked = Question(access, caller, self, self._verified_at)
        return self._driver.decide(self._genuine, asked)

    def explain(self, access: Access, *, caller: Caller | None = None) -> Decision:
        """Return the decision that `check` would make, for people.

        It reads the stores, but spends and records nothing, and returns no grant. The answer may
        change as soon as somebody else counts, so never let a call through because of it (24.16).
        """
        stated(access, caller)
        return self._driver.look(self._genuine, self._asked(None, access, caller))

    def recheck(
        self, accesses: Iterable[Access] = (), *, caller: Caller | None = None
    ) -> Decision:
        """Return whether the grant is still valid, and still allows `accesses` that are under way.

        Use it for a long cursor or stream, between two parts (24.19). It asks no store, counts
        nothing and records nothing; to record a denial that it found, call `deny`. It does not
        notice that a budget was used up meanwhile, since what runs was already paid for. Stops at
        the first access that is refused.
        """
        return self._rechecked(accesses, caller)

    def _rechecked(self, accesses: Iterable[Access], caller: Caller | None) -> Decision:
        """Each question in turn, and the grant alone where there is none."""
        decision: Decision | None = None
        for access in accesses:
            stated(access, caller)
            asked = self._under_way(self, access, caller)
            decision = self._driver.recheck(self._genuine, asked)
            if not decision:
                return decision

        if decision is not None:  # whoever may still do that has a grant that still stands
            return decision
        stated_caller(caller)
        asked = self._under_way(self, None, caller)
        return self._driver.recheck(self._genuine, asked)

    def rows(self, table: str, *, reached: bool = False) -> tuple[Condition, ...]:
        """What the token says of the rows of a table: conditions, all of which hold.

        Each is a mapping from columns to constraints, as a link has it; `()` if rows are not
        restricted. Join them with AND, hold them, and state them: `Access(…, rows=conditions)`. So
        a condition from before a narrowing is denied. Raises Denied where the token does not stand,
        or permits nothing of the table, unless that is only `reached`: read by a view, say.
        """
        names.segmented(table, "table")
        return self._rows(self._under_way(self, None, None), table, reached)

    def _rows(self, asked: Question, table: str, reached: bool) -> tuple[Condition, ...]:
        """The conditions. Raises Denied."""
        decision, conditions = self._driver.rows(self._genuine, asked, table)
        # An access that is denied is one on the table: the token itself stands.
        if not reached or decision.access is None:
            granted(decision)
        return conditions

    def check_all(
        self, accesses: Sequence[Access], *, caller: Caller | None = None
    ) -> Decision:
        """Return one decision on all accesses of a step, which are used and recorded together.

        Use it for one SQL statement on several tables. If one access is refused, that is the
        answer, and only it is recorded. So nothing counts unless all accesses are allowed. Raises
        ValueError for an empty list, and TypeError for an item that is no Access.
        """
        asked = self._all_asked(self, accesses, caller)
        return self._driver.decide_all(self._genuine, asked)

    def reserve(self, access: Access, *, caller: Caller | None = None) -> Reserved:
        """Reserve the cost of one access. Settle the reservation afterwards, or cancel it.

        Raises Denied. If the block neither settles nor cancels, everything is spent, even if an
        exception leaves it: otherwise a caller could hang up once the work is done. Then the ledger
        needs no second call.

            with grant.reserve(access) as reserved:
                reserved.settle({"tokens": call_model()})

        Settle within 60 seconds; after that everything is spent (38.8). If you know the cost
        beforehand, `authorize` is enough.
        """
        stated(access, caller)
        return self._reserved(self._asked(self, access, caller))

    def _reserved(self, asked: Question) -> Reserved:
        """Decide, then raise or hand out what was reserved."""
        decision = self._driver.decide(self._genuine, asked)
        granted(decision)
        return Reserved(self._driver, _reservation(decision))

    def reserve_all(
        self,
        accesses: Sequence[Access],
        *,
        caller: Caller | None = None,
        after: Reserved | None = None,
    ) -> Reserved:
        """Like `reserve`, for all accesses of a step, as in `check_all`. Raises Denied.

        If the cost becomes known only during the work, reserve in parts: `after` is an earlier
        reservation of the same step. A further part takes more of the budgets, but does not count
        as another use. Each part is decided, recorded and settled by itself.

            first = grant.reserve_all([costing(rows=256)])
            more = grant.reserve_all([costing(rows=256)], after=first)
        """
        return self._all_reserved(self._all_asked(self, accesses, caller, after))

    def _all_reserved(self, asked: Sequence[Question]) -> Reserved:
        """Decide, then raise or hand out what was reserved."""
        decision = self._driver.decide_all(self._genuine, asked)
        granted(decision)
        return Reserved(self._driver, _reservation(decision))

    def left(self, units: Collection[str]) -> dict[str, int]:
        """Return how much the ledger has left of each of `units` that the token has a budget for.

        It is the least amount of all links, and 0 if the ledger cannot tell. Use it to choose how
        much to ask for; it does not promise that you get it, since others may spend it meanwhile.
        Asks only the ledger, and decides nothing.
        """
        return self._driver.left(self._genuine, units)

    def deny(
        self,
        code: str | Decision,
        why: str = "",
        access: Access | None = None,
    ) -> Decision:
        """Record and return a denial of the adapter's own, for a request that no token can allow.

        `code` is one of the spec's codes, or a denial that `recheck` returned, which is then
        recorded. Asks only the trail, and no other store. Raises ValueError for an allowed
        decision, or for a code that the spec does not have.
        """
        refusals, asked = self._own_denial(self, code, why, access)
        return self._driver.record_denial(self._genuine, asked, refusals)

    # end: grant

    @property
    def blocking(self) -> Grant:
        """This one: so that guards may be given either."""
        return self

    @property
    def awaited(self) -> AsyncGrant:
        """The same grant, for coroutines of the event loop that its verifier is first used in."""
        return self.awaited_by(self._driver.awaited)

    def awaited_by(self, driver: AsyncDriver) -> AsyncGrant:
        """The same grant, for coroutines that ask this face of its verifier.

        For the face itself, which has its event loop. Elsewhere `awaited` is the one to use.
        """
        return AsyncGrant(self._genuine, self._driver, self._verified_at, self, driver)


def _reservation(decision: Decision) -> Reservation | None:
    """What was taken of a ledger: one at most, since what is asked of it is asked in one step."""
    taken = (effect for effect in decision.effects if isinstance(effect, Reservation))
    return next(taken, None)


def _cost_taken(
    reservation: Reservation | None, cost: Mapping[str, int] | None
) -> Mapping[str, int] | None:
    """What to settle with: None is all of it. Raises TypeError or ValueError for a cost that is
    none.
    """
    if cost is None:
        return None

    # The access itself was one use, whatever else it cost.
    taken = {**amounts(cost, "cost"), USES: 1}

    if reservation is not None:
        # A unit left out would be settled as 0: a mistake must not give anything back (38.8).
        reserved = {debit.unit for debit in reservation.debits}
        left_out = reserved - taken.keys()
        if left_out:
            units = ", ".join(sorted(left_out))
            raise ValueError(f"what it cost in {units} is not stated: state each unit, 0 as well")

    return taken


class _Owed:
    """What is owed for one access, and by whom: the part that both faces have in common.

    Settling twice is settling once, as a ledger sees to (38.8). So a try that raised is followed by
    another, whether the first one was heard or not.
    """

    __slots__ = ("_is_open", "_process", "_reservation", "_said", "step")

    def __init__(self, reservation: Reservation | None, process: object) -> None:
        """Hold a reservation, or None where the token counts nothing."""
        self._reservation = reservation
        self._process = process
        # What all parts of one step are recorded by: the first reservation of it.
        self.step = reservation.step if reservation is not None else None
        # Not while a ledger is asked: a second call that comes meanwhile is told False.
        self._is_open = reservation is not None
        # Amounts the caller reported but the ledger has not accepted; None if there are none.
        self._said: Mapping[str, int] | None = None

    def _cost(self, cost: Mapping[str, int] | None) -> Mapping[str, int] | None:
        """What to settle with. Raises TypeError or ValueError for a cost that is none."""
        try:
            return _cost_taken(self._reservation, cost)
        except (TypeError, ValueError):
            self._is_open = False  # something was done: what is not settled in time is spent
            raise

    def _to_settle(self, taken: Mapping[str, int] | None, process: object) -> Reservation | None:
        """The reservation, if it is open, and this process has made it. Then it is closed.

        A child of a fork has a copy of what its parent pays for.
        """
        if not self._is_open or process != self._process:
            return None
        self._is_open = False
        self._said = taken
        return self._reservation

    def _is_owed_at_the_end(self) -> bool:
        """At the end of a block: was something said that the ledger has still to hear?

        Else it is closed, and nobody is asked: what is neither settled nor cancelled is spent, all
        of it (38.8).
        """
        self._is_open = self._is_open and self._said is not None
        return self._is_open

    def _open_again(self) -> None:
        """The ledger raised, or who waited was interrupted: it may be tried once more."""
        self._is_open = True


class Reserved(_Owed):
    """What was reserved for one access.

    `Grant.reserve` makes one, and one thread settles it: it is not for sharing. A token that counts
    nothing has nothing to settle, and nothing happens. Settled or cancelled once; after that, and
    after 60 seconds, the answer is False and nothing changes (38.8). It is False, too, in a child
    of a fork, which has nothing to settle.

    What the ledger raises passes through, and it can be tried again: the ledger settles once, also
    where only its answer was lost. Then the answer of the second try is False.
    """

    __slots__ = ("_driver",)

    # called: reserved, by `python -m tests.called`
    def __init__(self, driver: Driver, reservation: Reservation | None) -> None:
        """Hold a reservation, or None where the token counts nothing."""
        super().__init__(reservation, driver.process)
        self._driver = driver

    def settle(self, cost: Mapping[str, int] | None = None) -> bool:
        """What it cost in fact, by unit, at most what was reserved; None is all of it.

        The rest goes back to the ledger. False if too late: all is spent.

        Raises TypeError or ValueError for a cost that is none, or that leaves a unit out: then all
        is spent as well. Raises what the ledger raises.
        """
        return self._close(self._cost(cost))

    def cancel(self) -> bool:
        """Nothing was done: all of it goes back. False if it was too late, and all is spent.

        Only for work that did not begin. What failed half way is settled, not cancelled.
        """
        return self._close({})

    def _close(self, taken: Mapping[str, int] | None) -> bool:
        """Settle once: True where there is nothing to settle, False the second time."""
        if self._reservation is None:
            return True
        reservation = self._to_settle(taken, self._driver.process)
        if reservation is None:
            return False

        try:
            return self._driver.settle(reservation.id, taken)
        except BaseException:
            self._open_again()
            raise

    def __enter__(self) -> Reserved:
        """This one: the block is the work that was paid for."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """All is spent, unless the block said otherwise. An exception goes on.

        What the block said and the ledger did not take is said once more.
        """
        if self._is_owed_at_the_end():
            self._close(self._said)

    # end: reserved


# --- asyncio -------------------------------------------------------------------------------------

_T = TypeVar("_T")


class Pending(Coroutine[Any, Any, _T]):
    """An answer to be awaited, once.

    It is neither true nor false: what was not awaited allows nothing. A coroutine would be true, so
    that a forgotten `await` in `if grant.check(access):` would let everything through.

    Whatever an async face or grant answers is one. It may be awaited, gathered, or made a task.
    """

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, _T]) -> None:
        """Hold the coroutine that has the answer. Nothing of it runs yet."""
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, _T]:
        """Run to the answer, as awaiting the coroutine would."""
        return self._coroutine.__await__()

    def __bool__(self) -> NoReturn:
        """Raise TypeError: there is no answer before it was awaited."""
        raise TypeError(
            "an answer of an async verifier has to be awaited before it is asked: write await"
        )

    if not TYPE_CHECKING:  # to type checkers it has no other attributes, and they say so

        def __getattr__(self, name):
            """Raise AttributeError, which says what is missing: most often the answer is meant."""
            raise AttributeError(
                f"an answer of an async verifier has to be awaited: (await ...).{name}"
            )

    # What makes a task of it.

    def send(self, value: Any, /) -> Any:
        """As the coroutine does; the event loop calls it."""
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """As the coroutine does; a cancellation comes in here."""
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """As the coroutine does: what was not awaited ends here, and nothing was used."""
        self._coroutine.close()


class AsyncGrant(_Vouched, frozen=True, eq=False):
    """A Grant with methods to await. `blocking` is the plain grant, for sync guards.

    An AsyncVerifier makes it, for its own event loop; elsewhere it raises RuntimeError. Coroutines
    of that loop may share it. Each method decides as that of `Grant`. Wrong arguments raise at
    once, and Denied is raised when you await the answer. Stores are awaited, or asked in threads.
    If a call is cancelled after its first effect, it still runs until it is recorded, and then
    raises (24.20).

        grant = await verifier.authenticate(text)
        if await grant.check(access):
            ...
    """

    blocking: Grant
    _awaited: AsyncDriver

    @property
    def capability(self) -> Capability:
        """The most that the token can do: as `Grant.capability`, and at no store."""
        return self.blocking.capability

    @property
    def awaited(self) -> AsyncGrant:
        """This one: so that adapters may be given either."""
        return self

    # awaited: grant
    def authorize(self, access: Access, *, caller: Caller | None = None) -> Pending[AsyncGrant]:
        """Return this grant if it allows `access` now. Raises Denied, with the decision.

        Like `check`, but with an exception. Raises TypeError if `access` is no Access.
        """
        stated(access, caller)
        asked = self._asked(self.blocking, access, caller)
        return Pending(self._authorized(asked))

    async def _authorized(self, asked: Question) -> AsyncGrant:
        """Decide, then raise or hand back this grant."""
        granted(await self._awaited.decide(self._genuine, asked))
        return self

    def check(self, access: Access, *, caller: Caller | None = None) -> Pending[Decision]:
        """Return the decision on `access` now: true if allowed. Never raises on denial.

        It runs steps 7 to 11 of the plan, and needs no proof, since the token came with one. If the
        token counts, an allowed access is counted when this returns (24.9). To ask without
        counting, use `explain` or `recheck`. Raises TypeError for an argument that is no Access or
        Caller.
        """
        stated(access, caller)
        asked = Question(access, caller, self.blocking, self._verified_at)
        return Pending(self._awaited.decide(self._genuine, asked))

    def explain(self, access: Access, *, caller: Caller | None = None) -> Pending[Decision]:
        """Return the decision that `check` would make, for people.

        It reads the stores, but spends and records nothing, and returns no grant. The answer may
        change as soon as somebody else counts, so never let a call through because of it (24.16).
        """
        stated(access, caller)
        return Pending(self._awaited.look(self._genuine, self._asked(None, access, caller)))

    def recheck(
        self, accesses: Iterable[Access] = (), *, caller: Caller | None = None
    ) -> Pending[Decision]:
        """Return whether the grant is still valid, and still allows `accesses` that are under way.

        Use it for a long cursor or stream, between two parts (24.19). It asks no store, counts
        nothing and records nothing; to record a denial that it found, call `deny`. It does not
        notice that a budget was used up meanwhile, since what runs was already paid for. Stops at
        the first access that is refused.
        """
        return Pending(self._rechecked(accesses, caller))

    async def _rechecked(self, accesses: Iterable[Access], caller: Caller | None) -> Decision:
        """Each question in turn, and the grant alone where there is none."""
        decision: Decision | None = None
        for access in accesses:
            stated(access, caller)
            asked = self._under_way(self.blocking, access, caller)
            decision = await self._awaited.recheck(self._genuine, asked)
            if not decision:
                return decision

        if decision is not None:  # whoever may still do that has a grant that still stands
            return decision
        stated_caller(caller)
        asked = self._under_way(self.blocking, None, caller)
        return await self._awaited.recheck(self._genuine, asked)

    def rows(self, table: str, *, reached: bool = False) -> Pending[tuple[Condition, ...]]:
        """What the token says of the rows of a table: conditions, all of which hold.

        Each is a mapping from columns to constraints, as a link has it; `()` if rows are not
        restricted. Join them with AND, hold them, and state them: `Access(…, rows=conditions)`. So
        a condition from before a narrowing is denied. Raises Denied where the token does not stand,
        or permits nothing of the table, unless that is only `reached`: read by a view, say.
        """
        names.segmented(table, "table")
        return Pending(self._rows(self._under_way(self.blocking, None, None), table, reached))

    async def _rows(self, asked: Question, table: str, reached: bool) -> tuple[Condition, ...]:
        """The conditions. Raises Denied."""
        decision, conditions = await self._awaited.rows(self._genuine, asked, table)
        # An access that is denied is one on the table: the token itself stands.
        if not reached or decision.access is None:
            granted(decision)
        return conditions

    def check_all(
        self, accesses: Sequence[Access], *, caller: Caller | None = None
    ) -> Pending[Decision]:
        """Return one decision on all accesses of a step, which are used and recorded together.

        Use it for one SQL statement on several tables. If one access is refused, that is the
        answer, and only it is recorded. So nothing counts unless all accesses are allowed. Raises
        ValueError for an empty list, and TypeError for an item that is no Access.
        """
        asked = self._all_asked(self.blocking, accesses, caller)
        return Pending(self._awaited.decide_all(self._genuine, asked))

    def reserve(self, access: Access, *, caller: Caller | None = None) -> Pending[AsyncReserved]:
        """Reserve the cost of one access. Settle the reservation afterwards, or cancel it.

        Raises Denied. If the block neither settles nor cancels, everything is spent, even if an
        exception leaves it: otherwise a caller could hang up once the work is done. Then the ledger
        needs no second call.

            async with await grant.reserve(access) as reserved:
                await reserved.settle({"tokens": await call_model()})

        Settle within 60 seconds; after that everything is spent (38.8). If you know the cost
        beforehand, `authorize` is enough.
        """
        stated(access, caller)
        return Pending(self._reserved(self._asked(self.blocking, access, caller)))

    async def _reserved(self, asked: Question) -> AsyncReserved:
        """Decide, then raise or hand out what was reserved."""
        decision = await self._awaited.decide(self._genuine, asked)
        granted(decision)
        return AsyncReserved(self._awaited, _reservation(decision))

    def reserve_all(
        self,
        accesses: Sequence[Access],
        *,
        caller: Caller | None = None,
        after: AsyncReserved | None = None,
    ) -> Pending[AsyncReserved]:
        """Like `reserve`, for all accesses of a step, as in `check_all`. Raises Denied.

        If the cost becomes known only during the work, reserve in parts: `after` is an earlier
        reservation of the same step. A further part takes more of the budgets, but does not count
        as another use. Each part is decided, recorded and settled by itself.

            first = await grant.reserve_all([costing(rows=256)])
            more = await grant.reserve_all([costing(rows=256)], after=first)
        """
        return Pending(self._all_reserved(self._all_asked(self.blocking, accesses, caller, after)))

    async def _all_reserved(self, asked: Sequence[Question]) -> AsyncReserved:
        """Decide, then raise or hand out what was reserved."""
        decision = await self._awaited.decide_all(self._genuine, asked)
        granted(decision)
        return AsyncReserved(self._awaited, _reservation(decision))

    def left(self, units: Collection[str]) -> Pending[dict[str, int]]:
        """Return how much the ledger has left of each of `units` that the token has a budget for.

        It is the least amount of all links, and 0 if the ledger cannot tell. Use it to choose how
        much to ask for; it does not promise that you get it, since others may spend it meanwhile.
        Asks only the ledger, and decides nothing.
        """
        return Pending(self._awaited.left(self._genuine, units))

    def deny(
        self,
        code: str | Decision,
        why: str = "",
        access: Access | None = None,
    ) -> Pending[Decision]:
        """Record and return a denial of the adapter's own, for a request that no token can allow.

        `code` is one of the spec's codes, or a denial that `recheck` returned, which is then
        recorded. Asks only the trail, and no other store. Raises ValueError for an allowed
        decision, or for a code that the spec does not have.
        """
        refusals, asked = self._own_denial(self.blocking, code, why, access)
        return Pending(self._awaited.record_denial(self._genuine, asked, refusals))

    # end: grant


class AsyncReserved(_Owed):
    """A Reserved that is awaited, for one task.

    At the end of `async with` it is spent in full, if nothing else was done with it. Also when the
    task is cancelled.
    """

    __slots__ = ("_driver",)

    # awaited: reserved
    def __init__(self, driver: AsyncDriver, reservation: Reservation | None) -> None:
        """Hold a reservation, or None where the token counts nothing."""
        super().__init__(reservation, driver.process)
        self._driver = driver

    def settle(self, cost: Mapping[str, int] | None = None) -> Pending[bool]:
        """What it cost in fact, by unit, at most what was reserved; None is all of it.

        The rest goes back to the ledger. False if too late: all is spent.

        Raises TypeError or ValueError for a cost that is none, or that leaves a unit out: then all
        is spent as well. Raises what the ledger raises.
        """
        return Pending(self._close(self._cost(cost)))

    def cancel(self) -> Pending[bool]:
        """Nothing was done: all of it goes back. False if it was too late, and all is spent.

        Only for work that did not begin. What failed half way is settled, not cancelled.
        """
        return Pending(self._close({}))

    async def _close(self, taken: Mapping[str, int] | None) -> bool:
        """Settle once: True where there is nothing to settle, False the second time."""
        if self._reservation is None:
            return True
        reservation = self._to_settle(taken, self._driver.process)
        if reservation is None:
            return False

        try:
            return await self._driver.settle(reservation.id, taken)
        except BaseException:
            self._open_again()
            raise

    async def __aenter__(self) -> AsyncReserved:
        """This one: the block is the work that was paid for."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """All is spent, unless the block said otherwise. An exception goes on.

        What the block said and the ledger did not take is said once more.
        """
        if self._is_owed_at_the_end():
            await self._close(self._said)

    # end: reserved
