"""A grant: a verified token, which asks its verifier again for each access.

A `Grant` holds a genuine token and the verifier that checked it. An `AsyncGrant` is the same for
asyncio, with methods that you await. The common methods are written there; `Grant`'s are generated.

The rules of this file:

- A grant knows its verifier only as a `Driver`. So this file imports no verifier.
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
    NamedTuple,
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
from captoken._format.text import read_consents
from captoken._language.access import Access, Caller, Statement, amounts
from captoken._language.link import Actor
from captoken._language.reasons import Refusal
from captoken._verification.authenticated import AuthenticatedToken, Memory
from captoken._verification.decision import Decision, Denied, Refusals
from captoken._verification.facts import Condition, Question
from captoken.stores.ports import LEASE, USES, MarkedStep, Once, Reservation, Spend

if TYPE_CHECKING:
    from captoken._language.capability import Capability
    from captoken.proof import Evidence


class Driver(Protocol):
    """The questions that a grant asks the verifier that made it.

    `Verifier` is the only implementation. Every method takes a token that is already verified, so
    none checks a signature. Each reads the clock, and the overlay if there is one. None raises on a
    denial. Exceptions of the clock pass through (24.10).
    """

    @property
    def memory(self) -> Memory:
        """The memory of the verifier: bounded, and shared by all its grants (24.22)."""
        ...

    @property
    def process(self) -> object:
        """An object for the current process. It is equal until a fork, and never again after it."""
        ...

    @property
    def awaited(self) -> AsyncDriver:
        """The same verifier for asyncio, with the same keys, stores and memory."""
        ...

    # called: driver, by `python -m tests.called`
    def decide(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """Run steps 7 to 10, then commit the effects and the record (24.9).

        When this returns an allowed decision, it has been used up and counted.
        """
        ...

    def look(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """Make a dry run: the decision that `decide` would make (24.16).

        It reads the stores, commits nothing, and leaves no record.
        """
        ...

    def recheck(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """Run steps 7 to 9 with fresh facts (24.19).

        Asks no ledger and no trail, and counts nothing. It may have to wait only for the overlay.
        """
        ...

    def rows(
        self,
        genuine: AuthenticatedToken,
        asked: Question,
        table: str,
    ) -> tuple[Decision, tuple[Condition, ...]]:
        """Do `recheck`, and return what the links and the overlay say about the table's rows."""
        ...

    def decide_all(self, genuine: AuthenticatedToken, asked: Sequence[Question]) -> Decision:
        """`decide` on several accesses of one step, with one reservation and one answer.

        The answer is the first denial, if there is one. Then nothing has counted.
        """
        ...

    def left(self, genuine: AuthenticatedToken, units: Collection[str]) -> dict[str, int]:
        """How much the ledger has left of each unit of a budget, over all links.

        0 if the ledger cannot tell. Never raises what the ledger raises.
        """
        ...

    def record_denial(
        self,
        genuine: AuthenticatedToken,
        asked: Question,
        refusals: Refusals,
    ) -> Decision:
        """Record a denial that the grant states itself, like one of the verifier's.

        An adapter has found something that no token permits, and the trail must say so (24.21).
        """
        ...

    def settle(self, reservation_id: bytes, taken: Mapping[str, int] | None) -> bool:
        """Settle a reservation at the amounts taken, by unit; None takes everything.

        True if it was open, False if it was too late (38.8). Raises what the ledger raises.
        """
        ...

    # end: driver


class AsyncDriver(Protocol):
    """The same for asyncio: asynchronous stores are awaited, and others run in threads.

    `AsyncVerifier` is the only implementation. Each method raises RuntimeError in any event loop
    but the first. A call that is cancelled after its first effect waits until it is recorded
    (24.20).
    """

    @property
    def process(self) -> object:
        """The same as `Driver.process`."""
        ...

    # awaited: driver
    async def decide(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """Run steps 7 to 10, then commit the effects and the record (24.9).

        When this returns an allowed decision, it has been used up and counted.
        """
        ...

    async def look(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """Make a dry run: the decision that `decide` would make (24.16).

        It reads the stores, commits nothing, and leaves no record.
        """
        ...

    async def recheck(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """Run steps 7 to 9 with fresh facts (24.19).

        Asks no ledger and no trail, and counts nothing. It may have to wait only for the overlay.
        """
        ...

    async def rows(
        self,
        genuine: AuthenticatedToken,
        asked: Question,
        table: str,
    ) -> tuple[Decision, tuple[Condition, ...]]:
        """Do `recheck`, and return what the links and the overlay say about the table's rows."""
        ...

    async def decide_all(self, genuine: AuthenticatedToken, asked: Sequence[Question]) -> Decision:
        """`decide` on several accesses of one step, with one reservation and one answer.

        The answer is the first denial, if there is one. Then nothing has counted.
        """
        ...

    async def left(self, genuine: AuthenticatedToken, units: Collection[str]) -> dict[str, int]:
        """How much the ledger has left of each unit of a budget, over all links.

        0 if the ledger cannot tell. Never raises what the ledger raises.
        """
        ...

    async def record_denial(
        self,
        genuine: AuthenticatedToken,
        asked: Question,
        refusals: Refusals,
    ) -> Decision:
        """Record a denial that the grant states itself, like one of the verifier's.

        An adapter has found something that no token permits, and the trail must say so (24.21).
        """
        ...

    async def settle(self, reservation_id: bytes, taken: Mapping[str, int] | None) -> bool:
        """Settle a reservation at the amounts taken, by unit; None takes everything.

        True if it was open, False if it was too late (38.8). Raises what the ledger raises.
        """
        ...

    # end: driver


def stated(access: Access, caller: Caller | None) -> None:
    """Raise TypeError unless the arguments are an Access and, if given, a Caller.

    Only these exact types are accepted: a subclass could answer differently to the plan and the
    record.
    """
    if type(access) is not Access:
        kind = type(access).__name__
        raise TypeError(f"expected an Access, as Access(table=…, operation=…), not {kind}")
    if caller is not None:
        stated_caller(caller)


def stated_caller(caller: Caller | None) -> None:
    """Raise TypeError unless the argument is a Caller or None."""
    if caller is not None and type(caller) is not Caller:
        kind = type(caller).__name__
        raise TypeError(f"expected a Caller, as Caller(agent=…), not {kind}")


def granted(decision: Decision) -> Grant:
    """The grant of a decision. Raises Denied, with the decision, if there is none.

    It checks the grant and the code, because a dry run can be allowed and has no grant.
    """
    grant = decision.grant
    if grant is None or decision.code != "allowed":
        raise Denied(decision)
    return grant


def own_denial(code: str, why: str, access: Access | None) -> Refusals:
    """A denial by the adapter. Raises ValueError for a code that the spec does not have.

    A code that an adapter invented would have no step, no kind and no public sentence. Raises
    TypeError for an argument that is no Access.
    """
    if access is not None:
        stated(access, None)
    return (Refusal(code, why),)


_OF_PARTS = frozenset(("columns", "rows"))


class _Vouched(SealedValue, frozen=True, eq=False):
    """The facts about a verified token: who is behind it, and what it can do at most.

    The base of both grants. Everything here is read from the genuine token, without clock, store or
    overlay. So it says what the token is, and not whether it is still valid.
    """

    _instead: ClassVar[str] = "verify the token where it is needed"

    _genuine: AuthenticatedToken
    _driver: Driver  # the synchronous face of the verifier
    _verified_at: int  # when the keyring was asked, in seconds since the epoch

    @property
    def issued(self) -> RootRecord:
        """What the issuer stated: the only identity to base decisions on (9.6).

        No holder can write it.
        """
        return self._genuine.root

    @property
    def token_id(self) -> str:
        """The id of the whole tree of tokens. Public: it may go to a log."""
        return self._genuine.root.token_id

    @property
    def chain(self) -> tuple[Actor, ...]:
        """Every agent that has held the token, in order, with the basis on which its name is known.

        Use it for showing and recording. Only the first name comes from the issuer (20.4). If the
        token is bound to a key, each hand-over that the verifier does not remember costs a
        signature check.
        """
        return self._genuine.chain(self._driver.memory.states)

    @property
    def actor(self) -> Actor:
        """The agent that holds the token.

        Its basis is `issued` if nobody has handed the token on, `vouched` if a holder named it, and
        `proven` if a signature confirms it. Never decide on a vouched name, because the previous
        holder chose it. Decide on `issued` instead.
        """
        return self.chain[-1]

    @property
    def parent(self) -> Actor | None:
        """The agent that handed the token to the actor, or None if nobody did."""
        chain = self.chain
        return chain[-2] if len(chain) > 1 else None

    @property
    def key(self) -> str | None:
        """The Ed25519 key that the token is bound to, as base64url, or None for a bearer token.

        The token does not say who owns the key (28.7).
        """
        key = self._genuine.lineage.key
        return b64encode(key) if key is not None else None

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Every hand-over that a key signed, in order.

        Keep it to check the hand-overs later, without the root key: `Evidence.holds` says whether a
        signature is valid. Nothing in it is secret (28.8).
        """
        return self._genuine.evidence

    def made_by(self, driver: object) -> bool:
        """Was it made by that verifier, given by its plain face?

        For a guard that is given both. Another verifier may have other keys, and another overlay.
        """
        return self._driver is driver

    @property
    def task(self) -> str:
        """The token's task: the root record's, or the task below it that a link names (16.3)."""
        return self._genuine.task

    @property
    def expires_at(self) -> int | None:
        """When the token expires, in seconds since the epoch, or None for never.

        The verifier's leeway is not included: the token may be accepted that much longer (15.7).
        """
        return self._genuine.expires_at

    def expiry_at(self, link: int) -> int | None:
        """When the token expires as it was at that link.

        No token below that link lives longer. In seconds since the epoch, or None for never. Keep
        an entry of an overlay at least until then.
        """
        return self._genuine.expiry_at(link)

    @property
    def link_ids(self) -> tuple[str, ...]:
        """The public id of each link and of every token below it, for revoking."""
        return self._genuine.link_ids

    @property
    def handed_on_at(self) -> tuple[int, ...]:
        """The positions of the links that handed the token on, from first to last."""
        return self._genuine.handed_on_at

    @property
    def nonces(self) -> tuple[str | None, ...]:
        """The `n` of each link, or None.

        All tokens of a set have the same `n` for one hand-over.
        """
        return self._genuine.nonces

    @property
    def asks_consent(self) -> bool:
        """Would a person's consent be needed, or lift a rule, for some access?"""
        return self._genuine.counts and bool(self._genuine.asks_consents)

    @property
    def grants_parts(self) -> bool:
        """Might it grant some columns or rows of a table, and not all?

        As its links say. An entry of the overlay can hide more.
        """
        genuine = self._genuine
        late = (caveat.key for link in genuine.links for caveat in link.late)
        return genuine.own or not _OF_PARTS.isdisjoint(late)

    @property
    def audience(self) -> str | None:
        """The one server that the token was minted for, as its root record says."""
        return self._genuine.root.audience

    def link_below(
        self,
        link: int,
        links: Sequence[RawCaveat],
        stated: bytes,
        mac: bytes,
    ) -> str | None:
        """The id of a token made from this one at `link`, if `mac` over `stated` proves it.

        None if the MAC is wrong, or if the holder got the token only later (spec, "Recall").
        Compared in constant time.
        """
        return self._genuine.link_below(link, links, stated, mac)

    @property
    def caveats(self) -> tuple[RawCaveat, ...]:
        """The links as they travel, and the ticket of each third-party caveat. Not secret."""
        return self._genuine.packet.caveats

    def _asked(
        self,
        grant: Grant | None,
        access: Access | None,
        caller: Caller | None,
    ) -> Question:
        """The grant's question about an access that counts."""
        return Question(access, caller, grant, self._verified_at)

    def _uncounted(
        self,
        grant: Grant | None,
        access: Access | None,
        caller: Caller | None,
        *,
        under_way: bool = False,
    ) -> Question:
        """A question that does not count: to plan, or about what has been paid for (24.19)."""
        return Question(
            access, caller, grant, self._verified_at, counted=False, under_way=under_way
        )

    def _all_asked(
        self,
        grant: Grant,
        accesses: Sequence[Access],
        caller: Caller | None,
        statement: Statement | None,
        after: _Owed | None = None,
    ) -> list[Question]:
        """The questions of one step, or of a further part of it after the reservation `after`.

        Raises ValueError for an empty list, and TypeError for an item that is no Access.
        """
        those = tuple(accesses)  # read once, so that the decision is on what was checked
        if not those:
            raise ValueError("state at least one access, as Access(table=…, operation=…)")
        for access in those:
            stated(access, caller)
        asked = [self._asked(grant, access, caller) for access in those]
        if after is None and not self._genuine.counts:
            return asked
        if self._genuine.counts:
            asked = [structs.replace(one, together=those, statement=statement) for one in asked]
        if after is None:
            return asked
        return [
            structs.replace(
                one, goes_on=after.step, marked=after.marked, consented=after.consented
            )
            for one in asked
        ]

    def _with_consents(self, consents: Iterable[str]) -> AuthenticatedToken:
        """The token, with these consents and those that came with it, the later to each question.

        Raises TypeError, or TokenFormatError for what is no consent.
        """
        together = read_consents(consents, self._genuine.consents)
        return structs.replace(self._genuine, consents=together)

    def _own_denial(
        self,
        grant: Grant,
        code: str | Decision,
        why: str,
        access: Access | None,
    ) -> tuple[Refusals, Question]:
        """The reason of a denial by the grant itself, and the question that it answers.

        Raises ValueError, and TypeError for an argument that is no Access.
        """
        if isinstance(code, Decision):
            if code:
                raise ValueError("deny takes a decision that is denied, and this one is allowed")
            return code.refusals, self._asked(grant, code.access, code.caller)

        return own_denial(code, why, access), self._asked(grant, access, None)

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

    _capability: Capability | None = None  # computed at the first call

    @property
    def capability(self) -> Capability:
        """The most that the token can do. The first call computes it from all links.

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

    def with_consents(self, consents: Iterable[str]) -> Grant:
        """The same grant, with consents that came after it was made. This one stays as it is.

        Each is for one access, and is spent once (spec, "Consent"). Verifies nothing: the next
        `check` does. Raises TypeError, or TokenFormatError for what is no consent.
        """
        return Grant(self._with_consents(consents), self._driver, self._verified_at)

    # called: grant, by `python -m tests.called`
    def authorize(self, access: Access, *, caller: Caller | None = None) -> Grant:
        """Return this grant if it allows `access` now. Raises Denied, with the decision.

        Like `check`, but with an exception. Raises TypeError if `access` is no Access.
        """
        stated(access, caller)
        asked = self._asked(self, access, caller)
        return self._authorized(asked)

    def _authorized(self, asked: Question) -> Grant:
        """Decide, then raise Denied or return this grant."""
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
        self,
        accesses: Iterable[Access] = (),
        *,
        caller: Caller | None = None,
        under_way: bool = False,
    ) -> Decision:
        """Return whether the grant is still valid, and still allows `accesses` that are under way.

        Use it between two parts of a long cursor or stream (24.19). It asks no store, counts
        nothing and records nothing; to record a denial that it found, call `deny`. It does not
        notice that a budget was used up meanwhile, because work under way was already paid for.
        `under_way=True` says that the accesses were allowed before, and go on: then rules over
        marks do not close them either. Else it denies by the marks that this process has seen set.
        Stops at the first denied access.
        """
        return self._rechecked(accesses, caller, under_way)

    def _rechecked(
        self, accesses: Iterable[Access], caller: Caller | None, under_way: bool
    ) -> Decision:
        """Check each access in turn, or only the token if there is none."""
        decision: Decision | None = None
        for access in accesses:
            stated(access, caller)
            asked = self._uncounted(self, access, caller, under_way=under_way)
            decision = self._driver.recheck(self._genuine, asked)
            if not decision:
                return decision

        if decision is not None:  # an allowed access shows that the token is still valid
            return decision
        stated_caller(caller)
        asked = self._uncounted(self, None, caller)
        return self._driver.recheck(self._genuine, asked)

    def rows(self, table: str, *, reached: bool = False) -> tuple[Condition, ...]:
        """Return the conditions on the rows of a table, all of which must hold.

        Each condition maps columns to constraints, as in a link. `()` means that rows are not
        restricted. Join the conditions with AND, apply them, and state them in the access:
        `Access(…, rows=conditions)`. The verifier compares them, so it denies conditions from
        before a narrowing.

        Raises Denied if the token is not valid. Raises it also if the token permits nothing on the
        table, unless the table is only `reached`: read through a view, for example.
        """
        names.segmented(table, "table")
        return self._rows(self._uncounted(self, None, None), table, reached)

    def _rows(self, asked: Question, table: str, reached: bool) -> tuple[Condition, ...]:
        """Return the conditions. Raises Denied."""
        decision, conditions = self._driver.rows(self._genuine, asked, table)
        # A denial that names an access is about the table; the token itself is valid.
        if not reached or decision.access is None:
            granted(decision)
        return conditions

    def check_all(
        self,
        accesses: Sequence[Access],
        *,
        caller: Caller | None = None,
        statement: Statement | None = None,
    ) -> Decision:
        """Return one decision on all accesses of a step, which are used and recorded together.

        Use it for one SQL statement on several tables. If one access is refused, that is the
        answer, and only it is recorded. So nothing counts unless all accesses are allowed.
        `statement` is what a person would have to consent to beside the accesses: its text, and its
        parameters. Raises ValueError for an empty list, and TypeError for an item that is no
        Access.
        """
        asked = self._all_asked(self, accesses, caller, statement)
        return self._driver.decide_all(self._genuine, asked)

    def reserve(
        self,
        access: Access,
        *,
        caller: Caller | None = None,
        once: Once | None = None,
    ) -> Reserved:
        """Reserve the cost of one access. Settle the reservation afterwards, or cancel it.

        Raises Denied. If the block neither settles nor cancels, everything is spent, even if an
        exception leaves it: otherwise a caller could hang up once the work is done. Then the ledger
        needs no second call.

            with grant.reserve(access) as reserved:
                reserved.settle({"tokens": call_model()})

        Settle within 60 seconds; after that everything is spent (38.8). If you know the cost
        beforehand, `authorize` is enough.

        `once` stands for a request that its service does once, however often it comes: it counts
        once, too (38.17). Nothing of it can be settled or cancelled.
        """
        stated(access, caller)
        asked = self._asked(self, access, caller)
        return self._reserved(asked if once is None else _once(asked, once))

    def _reserved(self, asked: Question) -> Reserved:
        """Decide, then raise Denied or return the reservation."""
        decision = self._driver.decide(self._genuine, asked)
        granted(decision)
        reservation = _reservation(decision) if asked.once is None else None
        return Reserved(self._driver, reservation, _before(decision, asked))

    def reserve_all(
        self,
        accesses: Sequence[Access],
        *,
        caller: Caller | None = None,
        after: Reserved | None = None,
        statement: Statement | None = None,
    ) -> Reserved:
        """Like `reserve`, for all accesses of a step, as in `check_all`. Raises Denied.

        If the cost becomes known only during the work, reserve in parts: `after` is an earlier
        reservation of the same step. A further part takes more of the budgets, but does not count
        as another use. Each part is decided, recorded and settled by itself.

            first = grant.reserve_all([costing(rows=256)])
            more = grant.reserve_all([costing(rows=256)], after=first)
        """
        asked = self._all_asked(self, accesses, caller, statement, after)
        return self._all_reserved(asked)

    def _all_reserved(self, asked: Sequence[Question]) -> Reserved:
        """Decide, then raise Denied or return the reservation."""
        decision = self._driver.decide_all(self._genuine, asked)
        granted(decision)
        return Reserved(self._driver, _reservation(decision), _before(decision, asked[0]))

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
        """This grant itself, so that guards accept either kind."""
        return self

    @property
    def awaited(self) -> AsyncGrant:
        """The same grant for coroutines of the event loop that its verifier is first used in."""
        return self.awaited_by(self._driver.awaited)

    def awaited_by(self, driver: AsyncDriver) -> AsyncGrant:
        """The same grant for coroutines, asked through this face of its verifier.

        For that face only. Everybody else uses `awaited`.
        """
        return AsyncGrant(self._genuine, self._driver, self._verified_at, self, driver)


def _once(asked: Question, once: Once) -> Question:
    """The same question, for a request that counts once. Raises TypeError for what is no Once."""
    if type(once) is not Once or type(once.id) is not bytes or type(once.seconds) is not int:
        raise TypeError("once must be Once(id=…, seconds=…), with bytes and a whole number")
    # So a ledger sees that others may repeat it: every other reservation ends with its lease.
    if len(once.id) != 16 or once.seconds <= LEASE:
        raise ValueError(f"once needs an id of 16 bytes, and more than {LEASE} seconds")
    return structs.replace(asked, once=once)


def _reservation(decision: Decision) -> Reservation | None:
    """The reservation among the effects. There is at most one for a step."""
    taken = (effect for effect in decision.effects if isinstance(effect, Reservation))
    return next(taken, None)


class Before(NamedTuple):
    """What the parts of a step so far were asked about: a further part is not asked again."""

    marked: frozenset[bytes]  # the buckets of marks (46.6)
    consented: frozenset[bytes]  # the questions that consents were spent for (47.9)


def _before(decision: Decision, asked: Question) -> Before:
    """The same, of an allowed step and the parts before it."""
    steps = (effect for effect in decision.effects if isinstance(effect, MarkedStep))
    spent = (effect.question for effect in decision.effects if isinstance(effect, Spend))
    marked = asked.marked.union(mark.bucket for step in steps for mark in step.marks)
    return Before(marked, asked.consented.union(spent))


def _cost_taken(
    reservation: Reservation | None, cost: Mapping[str, int] | None
) -> Mapping[str, int] | None:
    """The cost to settle with; None takes everything.

    Raises TypeError or ValueError for an invalid cost.
    """
    if cost is None:
        return None

    # The access itself counts as one use, whatever its cost.
    taken = {**amounts(cost, "cost"), USES: 1}

    if reservation is not None:
        # A unit without an amount would be settled as 0. A mistake must give nothing back (38.8).
        reserved = {debit.unit for debit in reservation.debits}
        left_out = reserved - taken.keys()
        if left_out:
            units = ", ".join(sorted(left_out))
            raise ValueError(f"the cost in {units} is missing: state each unit, also if it is 0")

    return taken


class _Owed:
    """The cost that is owed for one access: the part that both faces share.

    Settling twice has the effect of settling once (38.8). So after an exception you can always try
    again, whether or not the first try arrived.
    """

    __slots__ = ("_is_open", "_process", "_reservation", "_said", "consented", "marked", "step")

    def __init__(
        self,
        reservation: Reservation | None,
        process: object,
        before: Before,
    ) -> None:
        """Hold a reservation, or None if the token counts nothing."""
        self._reservation = reservation
        self._process = process
        # What all parts so far were asked about: a further part is for no others.
        self.marked, self.consented = before
        # The first reservation of the step. All parts of the step are recorded under it.
        self.step = reservation.step if reservation is not None else None
        # False while the ledger is being asked, so that a second call meanwhile returns False.
        self._is_open = reservation is not None
        # Amounts the caller reported but the ledger has not accepted; None if there are none.
        self._said: Mapping[str, int] | None = None

    def _cost(self, cost: Mapping[str, int] | None) -> Mapping[str, int] | None:
        """The cost to settle with. Raises TypeError or ValueError for an invalid cost."""
        try:
            return _cost_taken(self._reservation, cost)
        except (TypeError, ValueError):
            self._is_open = False  # the work was done, so the cost is spent unless settled in time
            raise

    def _to_settle(self, taken: Mapping[str, int] | None, process: object) -> Reservation | None:
        """Close the reservation and return it, if it is open and this process has made it.

        After a fork, the child has only a copy of what its parent pays for.
        """
        if not self._is_open or process != self._process:
            return None
        self._is_open = False
        self._said = taken
        return self._reservation

    def _is_owed_at_the_end(self) -> bool:
        """True if the ledger must still be told about a cost at the end of the block.

        Otherwise the reservation is closed without asking anybody: what is neither settled nor
        cancelled is spent in full (38.8).
        """
        self._is_open = self._is_open and self._said is not None
        return self._is_open

    def _open_again(self) -> None:
        """Allow another try, after the ledger raised or the caller was interrupted."""
        self._is_open = True


class Reserved(_Owed):
    """The reserved cost of one access.

    `Grant.reserve` makes it. Use it in one thread; do not share it. If the token counts nothing,
    there is nothing to settle, and calls have no effect. Settle or cancel it once. After that,
    after 60 seconds, and in a forked child, the answer is False and nothing changes (38.8).

    Exceptions of the ledger pass through, and you can try again: the ledger settles only once, even
    if only its answer was lost. The second try then returns False.
    """

    __slots__ = ("_driver",)

    # called: reserved, by `python -m tests.called`
    def __init__(
        self,
        driver: Driver,
        reservation: Reservation | None,
        before: Before,
    ) -> None:
        """Hold a reservation, or None if the token counts nothing."""
        super().__init__(reservation, driver.process, before)
        self._driver = driver

    def settle(self, cost: Mapping[str, int] | None = None) -> bool:
        """Settle at the real cost, by unit, at most what was reserved; None takes all of it.

        The rest goes back to the ledger. Returns False if it was too late; then everything is
        spent.

        Raises TypeError or ValueError for an invalid cost, or one that leaves out a unit: then
        everything is spent as well. Raises what the ledger raises.
        """
        return self._close(self._cost(cost))

    def cancel(self) -> bool:
        """Give everything back, because nothing was done. Returns False if it was too late.

        Use it only for work that did not begin. Settle work that failed half way. If it is too
        late, everything is spent.
        """
        return self._close({})

    def _close(self, taken: Mapping[str, int] | None) -> bool:
        """Settle once. True if there is nothing to settle, False the second time."""
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
        """Return this reservation. The block is the work that it pays for."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Spend everything, unless the block settled or cancelled. An exception passes through.

        If the block settled and the ledger did not accept it, settle again.
        """
        if self._is_owed_at_the_end():
            self._close(self._said)

    # end: reserved


# --- asyncio -------------------------------------------------------------------------------------

_T = TypeVar("_T")


class Pending(Coroutine[Any, Any, _T]):
    """An answer that you await, once.

    It has no truth value, because an answer that was not awaited must allow nothing. A plain
    coroutine is true, so a forgotten `await` in `if grant.check(access):` would let everything
    through.

    Every answer of an asyncio face or grant is a Pending. You can await it, gather it, or make it a
    task.
    """

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, _T]) -> None:
        """Hold the coroutine that has the answer. It has not started yet."""
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, _T]:
        """Run the coroutine and return its answer."""
        return self._coroutine.__await__()

    def __bool__(self) -> NoReturn:
        """Raise TypeError: there is no answer before it was awaited."""
        raise TypeError(
            "an AsyncVerifier returns a coroutine: write await before you use the answer"
        )

    if not TYPE_CHECKING:  # type checkers should report any other attribute

        def __getattr__(self, name):
            """Raise AttributeError, which says what is missing: most often the answer is meant."""
            raise AttributeError(
                f"an AsyncVerifier returns a coroutine: write (await ...).{name}"
            )

    # The methods that `asyncio.create_task` needs.

    def send(self, value: Any, /) -> Any:
        """The same as in the coroutine. The event loop calls it."""
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """The same as in the coroutine. A cancellation arrives here."""
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """The same as in the coroutine.

        An answer that nobody awaited ends here, and nothing was used.
        """
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
        """The most that the token can do: see `Grant.capability`. Asks no store."""
        return self.blocking.capability

    @property
    def awaited(self) -> AsyncGrant:
        """This grant itself, so that adapters accept either kind."""
        return self

    def with_consents(self, consents: Iterable[str]) -> AsyncGrant:
        """The same grant, with consents that came after it was made: see `Grant.with_consents`."""
        return self.blocking.with_consents(consents).awaited_by(self._awaited)

    # awaited: grant
    def authorize(self, access: Access, *, caller: Caller | None = None) -> Pending[AsyncGrant]:
        """Return this grant if it allows `access` now. Raises Denied, with the decision.

        Like `check`, but with an exception. Raises TypeError if `access` is no Access.
        """
        stated(access, caller)
        asked = self._asked(self.blocking, access, caller)
        return Pending(self._authorized(asked))

    async def _authorized(self, asked: Question) -> AsyncGrant:
        """Decide, then raise Denied or return this grant."""
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
        self,
        accesses: Iterable[Access] = (),
        *,
        caller: Caller | None = None,
        under_way: bool = False,
    ) -> Pending[Decision]:
        """Return whether the grant is still valid, and still allows `accesses` that are under way.

        Use it between two parts of a long cursor or stream (24.19). It asks no store, counts
        nothing and records nothing; to record a denial that it found, call `deny`. It does not
        notice that a budget was used up meanwhile, because work under way was already paid for.
        `under_way=True` says that the accesses were allowed before, and go on: then rules over
        marks do not close them either. Else it denies by the marks that this process has seen set.
        Stops at the first denied access.
        """
        return Pending(self._rechecked(accesses, caller, under_way))

    async def _rechecked(
        self, accesses: Iterable[Access], caller: Caller | None, under_way: bool
    ) -> Decision:
        """Check each access in turn, or only the token if there is none."""
        decision: Decision | None = None
        for access in accesses:
            stated(access, caller)
            asked = self._uncounted(self.blocking, access, caller, under_way=under_way)
            decision = await self._awaited.recheck(self._genuine, asked)
            if not decision:
                return decision

        if decision is not None:  # an allowed access shows that the token is still valid
            return decision
        stated_caller(caller)
        asked = self._uncounted(self.blocking, None, caller)
        return await self._awaited.recheck(self._genuine, asked)

    def rows(self, table: str, *, reached: bool = False) -> Pending[tuple[Condition, ...]]:
        """Return the conditions on the rows of a table, all of which must hold.

        Each condition maps columns to constraints, as in a link. `()` means that rows are not
        restricted. Join the conditions with AND, apply them, and state them in the access:
        `Access(…, rows=conditions)`. The verifier compares them, so it denies conditions from
        before a narrowing.

        Raises Denied if the token is not valid. Raises it also if the token permits nothing on the
        table, unless the table is only `reached`: read through a view, for example.
        """
        names.segmented(table, "table")
        return Pending(self._rows(self._uncounted(self.blocking, None, None), table, reached))

    async def _rows(self, asked: Question, table: str, reached: bool) -> tuple[Condition, ...]:
        """Return the conditions. Raises Denied."""
        decision, conditions = await self._awaited.rows(self._genuine, asked, table)
        # A denial that names an access is about the table; the token itself is valid.
        if not reached or decision.access is None:
            granted(decision)
        return conditions

    def check_all(
        self,
        accesses: Sequence[Access],
        *,
        caller: Caller | None = None,
        statement: Statement | None = None,
    ) -> Pending[Decision]:
        """Return one decision on all accesses of a step, which are used and recorded together.

        Use it for one SQL statement on several tables. If one access is refused, that is the
        answer, and only it is recorded. So nothing counts unless all accesses are allowed.
        `statement` is what a person would have to consent to beside the accesses: its text, and its
        parameters. Raises ValueError for an empty list, and TypeError for an item that is no
        Access.
        """
        asked = self._all_asked(self.blocking, accesses, caller, statement)
        return Pending(self._awaited.decide_all(self._genuine, asked))

    def reserve(
        self,
        access: Access,
        *,
        caller: Caller | None = None,
        once: Once | None = None,
    ) -> Pending[AsyncReserved]:
        """Reserve the cost of one access. Settle the reservation afterwards, or cancel it.

        Raises Denied. If the block neither settles nor cancels, everything is spent, even if an
        exception leaves it: otherwise a caller could hang up once the work is done. Then the ledger
        needs no second call.

            async with await grant.reserve(access) as reserved:
                await reserved.settle({"tokens": await call_model()})

        Settle within 60 seconds; after that everything is spent (38.8). If you know the cost
        beforehand, `authorize` is enough.

        `once` stands for a request that its service does once, however often it comes: it counts
        once, too (38.17). Nothing of it can be settled or cancelled.
        """
        stated(access, caller)
        asked = self._asked(self.blocking, access, caller)
        return Pending(self._reserved(asked if once is None else _once(asked, once)))

    async def _reserved(self, asked: Question) -> AsyncReserved:
        """Decide, then raise Denied or return the reservation."""
        decision = await self._awaited.decide(self._genuine, asked)
        granted(decision)
        reservation = _reservation(decision) if asked.once is None else None
        return AsyncReserved(self._awaited, reservation, _before(decision, asked))

    def reserve_all(
        self,
        accesses: Sequence[Access],
        *,
        caller: Caller | None = None,
        after: AsyncReserved | None = None,
        statement: Statement | None = None,
    ) -> Pending[AsyncReserved]:
        """Like `reserve`, for all accesses of a step, as in `check_all`. Raises Denied.

        If the cost becomes known only during the work, reserve in parts: `after` is an earlier
        reservation of the same step. A further part takes more of the budgets, but does not count
        as another use. Each part is decided, recorded and settled by itself.

            first = await grant.reserve_all([costing(rows=256)])
            more = await grant.reserve_all([costing(rows=256)], after=first)
        """
        asked = self._all_asked(self.blocking, accesses, caller, statement, after)
        return Pending(self._all_reserved(asked))

    async def _all_reserved(self, asked: Sequence[Question]) -> AsyncReserved:
        """Decide, then raise Denied or return the reservation."""
        decision = await self._awaited.decide_all(self._genuine, asked)
        granted(decision)
        return AsyncReserved(self._awaited, _reservation(decision), _before(decision, asked[0]))

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
    """A Reserved with methods to await, for one task.

    At the end of `async with` the whole cost is spent, unless you settled or cancelled it. The same
    happens when the task is cancelled.
    """

    __slots__ = ("_driver",)

    # awaited: reserved
    def __init__(
        self,
        driver: AsyncDriver,
        reservation: Reservation | None,
        before: Before,
    ) -> None:
        """Hold a reservation, or None if the token counts nothing."""
        super().__init__(reservation, driver.process, before)
        self._driver = driver

    def settle(self, cost: Mapping[str, int] | None = None) -> Pending[bool]:
        """Settle at the real cost, by unit, at most what was reserved; None takes all of it.

        The rest goes back to the ledger. Returns False if it was too late; then everything is
        spent.

        Raises TypeError or ValueError for an invalid cost, or one that leaves out a unit: then
        everything is spent as well. Raises what the ledger raises.
        """
        return Pending(self._close(self._cost(cost)))

    def cancel(self) -> Pending[bool]:
        """Give everything back, because nothing was done. Returns False if it was too late.

        Use it only for work that did not begin. Settle work that failed half way. If it is too
        late, everything is spent.
        """
        return Pending(self._close({}))

    async def _close(self, taken: Mapping[str, int] | None) -> bool:
        """Settle once. True if there is nothing to settle, False the second time."""
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
        """Return this reservation. The block is the work that it pays for."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Spend everything, unless the block settled or cancelled. An exception passes through.

        If the block settled and the ledger did not accept it, settle again.
        """
        if self._is_owed_at_the_end():
            await self._close(self._said)

    # end: reserved
