"""The two faces of verification: `Verifier`, and `AsyncVerifier` for asyncio.

Both are thin drivers of the plan (spec, "Verification"): they gather facts, judge, commit effects
and record. The work is written once, as steps. One face calls what may block, and the other awaits
it. The methods are written once too, in their awaited form; `python -m tests.called` generates the
others.

The rules of this file:

- It decides nothing. `judge` decides, and `effects.py` commits.
- Only this file reads the clock, the keyring and the overlay for a verification.
- If nothing has to be waited for, there are no steps: the decision is returned at once.
- It drops the text of a token as soon as it has decoded it, so that no traceback frame holds it.
- Both faces of one verifier share everything: keys, stores, memory and limits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from time import time
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Protocol,
    TypeAlias,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
)

import msgspec
from msgspec import structs

from captoken._format import names
from captoken._format.clocks import CLOCKS_DIFFER, Clock, read_clock
from captoken._format.entropy import random_bytes
from captoken._format.parts import Parts
from captoken._format.root import RootRecord
from captoken._format.sealed import Sealed
from captoken._format.spelling import shown
from captoken._format.text import SET_PREFIX
from captoken._language.access import Access, Caller, amounts, facts_of
from captoken._language.caveats import V1, Vocabulary
from captoken._verification.authenticated import AuthenticatedToken
from captoken._verification.decision import Decision, Refusals
from captoken._verification.effects import (
    Answer,
    Call,
    Recorder,
    Steps,
    StoreLoop,
    Stores,
    answered,
    answered_async,
    close,
    commit,
    commit_together,
    forbidden_here,
    is_awaited,
    left,
    look,
    loop_for,
    record_one,
    run,
    run_async,
    steps_of,
)
from captoken._verification.facts import Broken, Condition, Facts, Question, Server
from captoken._verification.grant import AsyncGrant, Grant, Pending, granted, own_denial, stated
from captoken._verification.memory import TEXT_REMEMBERED, VerifierMemory
from captoken._verification.plan import (
    authenticate,
    counting,
    denial,
    denied_early,
    judge,
    narrowing_of,
    staleness,
)
from captoken._verification.telling import Teller, is_quiet, log, tell_of_wide_keys
from captoken.keys.keyring import Keyring, keyring_source
from captoken.stores.own_process import this_process
from captoken.stores.ports import (
    KEEP_MARKS,
    AsyncLedger,
    AsyncReplayStore,
    Ledger,
    ReplayStore,
)

if TYPE_CHECKING:
    from captoken._language.overlay import Overlay

RESERVATION_ID_BYTES = 16

_T = TypeVar("_T")


# Gives facts of the moment, by what the issuer stated; the second may also be awaited.
Context: TypeAlias = Callable[[RootRecord], Mapping[str, Any]]
AnyContext: TypeAlias = Callable[[RootRecord], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]


class Sendable(Protocol):
    """A token that a caller in the same process passes instead of its text.

    `captoken.Token` is the only such class, and nothing else is accepted. This protocol lets a
    server accept it without importing the modules that write tokens.
    """

    def presented_parts(self) -> Parts:
        """The token as `present` would bind it, without the last link that `present` adds."""
        ...


# An overlay, or why there is none; a context, and why it cannot be had.
Fetched: TypeAlias = "tuple[Overlay | None, str | None, Mapping[str, Any], str | None]"
Source: TypeAlias = Callable[[], Fetched]  # returns the newest overlay, and raises nothing
_NOTHING_FETCHED: Fetched = (None, None, {}, None)


class _Sources(msgspec.Struct, frozen=True, eq=False):
    """Where the facts of a question come from: what the verifier is, its clock, and who is asked.

    A source may take long. So what is fetched comes first, and the clock is read after it.
    """

    server: Server
    memory: VerifierMemory
    clock: Clock
    random: Callable[[int], bytes]
    overlay: Source | None
    context: AnyContext | None
    context_loop: StoreLoop | None  # where it is called: see `loop_for`
    are_asked: bool  # is there an overlay to fetch, or a context?

    def now(self) -> int:
        """The time of the clock, whose exceptions pass through (24.10)."""
        return read_clock(self.clock)

    def fetched_here(self, root: RootRecord | None) -> Fetched:
        """The overlay, and the context of a token, by this thread."""
        overlay = self.overlay
        if self.context is None and overlay is not None:
            return overlay()
        return run(self.fetched(root))

    def fetched(self, root: RootRecord | None) -> Steps[Fetched]:
        """The overlay, and the context of a token if there is an access: each may take long."""
        fetched = _NOTHING_FETCHED
        if self.overlay is not None:
            fetched = yield Call(self.overlay)
        if self.context is None or root is None:
            return fetched
        try:
            given = yield Call(partial(self.context, root), store_loop=self.context_loop)
            context, unknown = facts_of(given, "a fact of context="), None
        except Exception as error:  # no exception may mean that nothing is known against an access
            context, unknown = {}, f"the context cannot be had: {type(error).__name__}"
        return fetched[0], fetched[1], context, unknown

    def facts(self, fetched: Fetched, *, counts: bool) -> Facts:
        """The facts that the plan needs, at this moment.

        `counts` says that the token counts, and needs a reservation. Each decision without a fresh
        overlay is logged (36.9).
        """
        overlay, problem, context, unknown = fetched
        server = self.server
        now = read_clock(self.clock)
        texts = self.memory.texts
        if now - server.leeway >= texts.first_end:
            texts.drop_ended(now - server.leeway)
        facts = Facts(
            server,
            self.memory,
            now,
            overlay,
            problem,
            self.random(RESERVATION_ID_BYTES) if counts else b"",
            context,
            unknown,
        )
        if server.allows_stale and problem is None:
            stale = staleness(facts)
            if stale is not None:
                log().warning("deciding without a fresh overlay: %s", stale)
        return facts

    def later_facts(self) -> Steps[Facts]:
        """The facts after the effects have been committed (24.20)."""
        return self.facts((yield from self.fetched(None)), counts=False)


class _Parts(msgspec.Struct, frozen=True, eq=False):
    """The parts that both faces of one verifier share."""

    keys: Callable[[str, str | None], bytes | None]
    vocabulary: Vocabulary
    memory: VerifierMemory
    named: tuple[str, ...]  # the server's names, in the order given
    sources: _Sources
    stores: Stores
    store_loop: StoreLoop | None  # the event loop of asynchronous stores; None without any


# The step that follows the facts: judges, and may commit and record.
_End: TypeAlias = Callable[[AuthenticatedToken, Facts, Question], Answer]


class _Options(TypedDict, total=False):
    """The arguments of both faces, besides keys and names. See `Verifier`."""

    allow_unaddressed: bool
    """True: a server with a name also takes tokens that are addressed to nobody."""
    leeway: int
    """Seconds that the clock of the issuer may differ; 0 unless said."""
    audit: Recorder | None
    """The trail that gets a record of each decision. What cannot be recorded is denied."""
    overlay: Overlay | Callable[[], Overlay | None] | None
    """The overlay: the newest revocations and restrictions, or a callable that gives it: a Feed."""
    max_staleness: int
    """Seconds that the overlay may be old; 60 unless said. Later all is denied."""
    allow_stale_overlay: bool
    """True: an overlay that is too old is only logged."""
    max_age: int | None
    """Seconds that a grant is good for; 3600 unless said, None for no bound."""
    keep_marks: int
    """Seconds that a task's marks outlive its latest expiry; 30 days unless said."""
    remember: int
    """Characters of verified texts that are remembered; 4 Mi unless said, 0 for none."""
    vocabulary: Vocabulary
    """The kinds of caveats that it knows, with those of your own."""
    clock: Clock
    """Gives seconds since the epoch."""
    random: Callable[[int], bytes]
    """Gives that many random bytes. For tests."""


class VerifierOptions(_Options, total=False):
    """The arguments of a Verifier, with synchronous stores."""

    replays: ReplayStore | None
    """Remembers which proofs were used. Without it no bound token is taken."""
    ledger: Ledger | None
    """Counts `uses` and `budget`. Without it no token that has them is taken."""
    context: Context | None
    """Gives facts of the moment, which tokens ask about with `where`: see `Verifier`."""


class AsyncVerifierOptions(_Options, total=False):
    """The arguments of an AsyncVerifier, with synchronous or asynchronous stores."""

    replays: ReplayStore | AsyncReplayStore | None
    """Remembers which proofs were used. Without it no bound token is taken."""
    ledger: Ledger | AsyncLedger | None
    """Counts `uses` and `budget`. Without it no token that has them is taken."""
    context: AnyContext | None
    """Gives facts of the moment, which tokens ask about with `where`: see `Verifier`."""


def _parts_of_verifier(
    keyring: Keyring | Callable[[], Keyring],
    audience: str | Iterable[str] | None,
    *,
    allow_unaddressed: bool = False,
    leeway: int = 0,
    replays: ReplayStore | AsyncReplayStore | None = None,
    ledger: Ledger | AsyncLedger | None = None,
    audit: Recorder | None = None,
    overlay: Overlay | Callable[[], Overlay | None] | None = None,
    context: AnyContext | None = None,
    max_staleness: int = 60,
    allow_stale_overlay: bool = False,
    max_age: int | None = 3600,
    keep_marks: int = KEEP_MARKS,
    remember: int = TEXT_REMEMBERED,
    vocabulary: Vocabulary = V1,
    clock: Clock = time,
    random: Callable[[int], bytes] = random_bytes,
) -> _Parts:
    """The parts of a verifier, made from its arguments. Raises TypeError or ValueError."""
    _check_seconds("leeway", leeway)
    _check_seconds("max_staleness", max_staleness)
    if max_age is not None:
        _check_seconds("max_age", max_age, ", or None")
    _check_seconds("keep_marks", keep_marks)
    if type(remember) is not int or remember < 0:
        raise ValueError(
            f"remember must be a number of characters, 0 or more, as int, not {shown(remember)}"
        )
    named = _names(audience)
    source = keyring_source(keyring)
    told = not named or is_quiet()  # without a name it serves whatever the keys are for
    if isinstance(keyring, Keyring) and not told:
        tell_of_wide_keys(keyring.audience, named[0])
        told = True

    def keys(key_id: str, audience: str | None) -> bytes | None:
        nonlocal told
        current = source()
        if not told:  # a callable is asked for no keyring before there is a token
            tell_of_wide_keys(current.audience, named[0])
            told = True
        return current.derived(key_id, audience)

    server = Server(
        audiences=frozenset(named),
        takes_unaddressed=allow_unaddressed is True or not named,
        leeway=leeway,
        ahead=max(CLOCKS_DIFFER, leeway),
        max_age=max_age,
        asks_overlay=overlay is not None,
        max_staleness=max_staleness,
        allows_stale=allow_stale_overlay is True,
        counts_alone=ledger is not None and ledger.shared is not True,
        keep_marks=keep_marks,
    )
    is_async = context is not None and _is_async(context)
    awaited = is_async or is_awaited(replays) or is_awaited(ledger)
    store_loop = StoreLoop() if awaited else None
    stores = Stores(
        Teller(random),
        replays,
        ledger,
        audit,
        loop_for(replays, store_loop),
        loop_for(ledger, store_loop),
        loop_for(audit, store_loop),
    )
    memory = VerifierMemory(remember)
    sources = _Sources(
        server,
        memory,
        clock,
        random,
        None if overlay is None else _source_of(overlay),
        context,
        store_loop if is_async else loop_for(context, None),
        overlay is not None or context is not None,
    )
    return _Parts(keys, vocabulary, memory, named, sources, stores, store_loop)


def _check_seconds(
    what: str,
    given: Any,
    other: str = "",
) -> None:
    """Raise ValueError unless the value is a number of seconds; True is not one."""
    if type(given) is not int or given < 0:
        raise ValueError(
            f"{what} must be a number of seconds, 0 or more, as int{other}, not {shown(given)}"
        )


def _names(audience: str | Iterable[str] | None) -> tuple[str, ...]:
    """The names of the server, checked. Raises TypeError or ValueError."""
    if audience is None:
        return ()
    given = (audience,) if isinstance(audience, str) else tuple(audience)
    if not given:
        raise ValueError("audience is empty: name the server, or leave audience out")
    return tuple(names.name(name, "audience") for name in given)


class _Face(Sealed):
    """The work of both faces, as steps."""

    __slots__ = ("_parts",)
    _instead: ClassVar[str] = "make one from the keyring"
    _parts: _Parts

    # Does it wait for the overlay and the trail in the thread that calls? Then no step is needed
    # for that.
    _waits_here: ClassVar[bool] = False

    @property
    def audiences(self) -> tuple[str, ...]:
        """The names of the server, as they were given. Empty for a server without a name."""
        return self._parts.named

    @property
    def memory(self) -> VerifierMemory:
        """The memory of verified texts and links."""
        return self._parts.memory

    @property
    def waits(self) -> bool:
        """True if an answer may have to wait for the overlay, the context, a store or a trail.

        The keyring is always asked synchronously.
        """
        stores = self._parts.stores
        asked = (stores.replays, stores.ledger, stores.trail)
        return self._parts.sources.are_asked or any(each is not None for each in asked)

    @property
    def process(self) -> object:
        """An object for the current process. A child after a fork has another one."""
        return this_process()

    @property
    def clock(self) -> Clock:
        """The verifier's clock, which returns seconds since the epoch."""
        return self._parts.sources.clock

    @property
    def leeway(self) -> int:
        """The number of seconds by which clocks may differ."""
        return self._parts.sources.server.leeway

    def __repr__(self) -> str:
        named = ", ".join(sorted(self._parts.named)) or "nobody in particular"
        return f"<{type(self).__name__} for {named}>"

    # Each method below returns a decision, or the steps to one if a call may have to wait.

    def _sent_with(
        self,
        face: Verifier,
        token: str | Sendable,
        access: Access | None,
        caller: Caller | None,
        request: bytes | None,
        *,
        dry: bool = False,
        used: bool = True,
    ) -> Answer:
        """Run the whole plan on a text that was sent.

        A grant will send its further questions to `face`.
        """
        parts = self._parts
        found = authenticate(_sent(token), parts.keys, parts.vocabulary, parts.memory)
        del token
        sources = parts.sources
        if isinstance(found, Broken):
            early = denied_early(found, sources.now(), access, caller, dry)
            return early if dry else self._record_denial(early)
        if sources.are_asked and not self._waits_here:
            return self._sent_with_facts(face, found, access, caller, request, dry, used)
        root = None if access is None else found.root
        fetched = sources.fetched_here(root) if sources.are_asked else _NOTHING_FETCHED
        facts = sources.facts(fetched, counts=found.reserves)
        grant = None if dry else Grant(found, face, facts.now)
        asked = Question(access, caller, grant, facts.now, True, True, used, request)
        if dry:
            return self._dry_run(found, facts, asked)
        return self._judge_and_commit(found, facts, asked)

    def _sent_with_facts(
        self,
        face: Verifier,
        found: AuthenticatedToken,
        access: Access | None,
        caller: Caller | None,
        request: bytes | None,
        dry: bool,
        used: bool,
    ) -> Steps[Decision]:
        """The same as `_sent_with`, but first wait for the overlay and the context.

        Its last lines repeat those of `_sent_with`, because a further function call would slow down
        every request. Change both together.
        """
        sources = self._parts.sources
        root = None if access is None else found.root
        facts = sources.facts((yield from sources.fetched(root)), counts=found.reserves)
        grant = None if dry else Grant(found, face, facts.now)
        asked = Question(access, caller, grant, facts.now, True, True, used, request)
        end = self._dry_run if dry else self._judge_and_commit
        return (yield from steps_of(end(found, facts, asked)))

    def _deny(
        self,
        face: Verifier,
        token: str | Sendable,
        refusals: Refusals,
        access: Access | None,
        request: bytes | None,
    ) -> Answer:
        """Deny on behalf of the adapter (24.21).

        If something is wrong with the token itself, that is the answer instead; and so is what its
        links say about the access, where there is one.
        """
        parts = self._parts
        found = authenticate(_sent(token), parts.keys, parts.vocabulary, parts.memory)
        del token
        if isinstance(found, Broken):
            early = denied_early(found, parts.sources.now(), None, None, dry=False)
            return self._record_denial(early)
        return self._deny_genuine(face, found, refusals, access, request)

    def _deny_genuine(
        self,
        face: Verifier,
        found: AuthenticatedToken,
        refusals: Refusals,
        access: Access | None,
        request: bytes | None,
    ) -> Steps[Decision]:
        """The same, after steps 1 to 6 have passed: runs steps 7 to 10 without stores."""
        facts = yield from self._parts.sources.later_facts()
        grant = Grant(found, face, facts.now)
        asked = Question(access, None, grant, facts.now, sent=True, request=request)
        decision = judge(found, facts, asked)
        if decision:
            decision = denial(found, facts, asked, refusals)
        decision = structs.replace(decision, effects=())
        return (yield from steps_of(self._record_denial(decision)))

    def _owing(self, text: str) -> Steps[bool]:
        """True if steps 1 to 9 pass for a text and only a proof is missing. Asks no store."""
        parts = self._parts
        found = authenticate(text, parts.keys, parts.vocabulary, parts.memory)
        del text
        if isinstance(found, Broken):
            return False
        facts = yield from parts.sources.later_facts()
        asked = Question(None, None, None, facts.now, sent=True)
        return judge(found, facts, asked).code == "proof_missing"

    def _decide(
        self,
        genuine: AuthenticatedToken,
        asked: Question,
        end: _End,
        *,
        of_rows: bool = False,
    ) -> Answer:
        """Decide on a grant's question. `end` is the step that follows the facts."""
        sources = self._parts.sources
        fetched = _NOTHING_FETCHED
        if sources.are_asked:
            root = genuine.root if of_rows or asked.access is not None else None
            if not self._waits_here:
                return self._decide_with_facts(root, genuine, asked, end)
            fetched = sources.fetched_here(root)
        return end(genuine, sources.facts(fetched, counts=genuine.reserves), asked)

    def _decide_with_facts(
        self,
        root: RootRecord | None,
        genuine: AuthenticatedToken,
        asked: Question,
        end: _End,
    ) -> Steps[Decision]:
        """The same as `_decide`, but first wait for the overlay and the context."""
        sources = self._parts.sources
        facts = sources.facts((yield from sources.fetched(root)), counts=genuine.reserves)
        return (yield from steps_of(end(genuine, facts, asked)))

    def _judge_and_commit(
        self,
        genuine: AuthenticatedToken,
        facts: Facts,
        asked: Question,
    ) -> Answer:
        """The decision, committed and recorded.

        If there is nothing to commit or record, it has no steps.
        """
        decision = judge(genuine, facts, asked)
        parts = self._parts
        stores = parts.stores
        if stores.trail is None and (
            not decision.effects or stores.marks.leave_nothing(decision)
        ):
            return decision if decision.code == "allowed" else stores.teller.told(decision)
        if decision.effects:
            return commit(decision, genuine, facts, asked, stores, parts.sources.later_facts)
        return record_one(decision, stores, self._waits_here, genuine, facts, asked)

    def _dry_run(
        self,
        genuine: AuthenticatedToken,
        facts: Facts,
        asked: Question,
    ) -> Answer:
        """The decision of a dry run: reads the stores and commits nothing."""
        decision = judge(genuine, facts, asked)
        if not decision.effects:
            return decision
        return look(decision, genuine, facts, asked, self._parts.stores)

    def _recheck(
        self,
        genuine: AuthenticatedToken,
        facts: Facts,
        asked: Question,
    ) -> Answer:
        """The decision without any store and without a record.

        Of marks it knows those that this process has seen set (46.7).
        """
        decision = judge(genuine, facts, asked)
        if not decision or asked.access is None or asked.under_way:
            return decision
        if not genuine.counts and facts.overlay is None:
            return decision
        return forbidden_here(decision, genuine, facts, asked, self._parts.stores)

    def _record_denial(self, denied: Decision) -> Answer:
        """Record a denial. It stays a denial even if it cannot be recorded."""
        return record_one(denied, self._parts.stores, self._waits_here)

    def _decide_together(
        self,
        genuine: AuthenticatedToken,
        asked: Sequence[Question],
    ) -> Answer:
        """The decision on several accesses, used and recorded together; or the first denial."""

        def end(genuine: AuthenticatedToken, facts: Facts, _: Question) -> Answer:
            return self._judge_together(genuine, facts, asked)

        return self._decide(genuine, asked[0], end)

    def _judge_together(
        self,
        genuine: AuthenticatedToken,
        facts: Facts,
        asked: Sequence[Question],
    ) -> Answer:
        """Each access is judged without its reservation. Then one covers the cost of all.

        Only the first denial is recorded. If there is nothing to commit or record, it has no steps.
        """
        decisions: list[Decision] = []
        for one in asked:
            decision = judge(genuine, facts, structs.replace(one, counted=False))
            if not decision:
                return self._record_denial(decision)
            decisions.append(decision)
        narrowing = narrowing_of(genuine, facts)
        effects = counting(genuine, facts, asked, _total_cost(asked), narrowing)
        parts = self._parts
        if effects:
            decisions[0] = structs.replace(decisions[0], effects=effects)
        elif parts.stores.trail is None:
            return decisions[0]
        later = parts.sources.later_facts
        return commit_together(decisions, genuine, facts, asked, parts.stores, later)

    def _deny_again(
        self,
        genuine: AuthenticatedToken,
        asked: Question,
        refusals: Refusals,
    ) -> Answer:
        """Record a denial by the adapter, or one that `recheck` found."""
        facts = self._parts.sources.facts(_NOTHING_FETCHED, counts=False)
        return self._record_denial(denial(genuine, facts, asked, refusals))

    def _close(self, reservation_id: bytes, taken: Mapping[str, int] | None) -> Steps[bool]:
        """Settle a reservation, at the time of this verifier's clock.

        Raises TypeError or ValueError for invalid amounts, before it asks a store.
        """
        settled = None if taken is None else amounts(taken, "taken")
        parts = self._parts
        return close(reservation_id, settled, parts.stores, parts.sources.now())


def _rows_into(found: list[Condition], table: str) -> _End:
    """A judge of the token alone, which puts into `found` what the links say about rows."""
    from captoken._verification.held_rows import judge_rows

    def end(genuine: AuthenticatedToken, facts: Facts, asked: Question) -> Answer:
        decision, conditions = judge_rows(genuine, facts, asked, table)
        found.extend(conditions)
        return decision

    return end


def _sent(token: str | Sendable) -> str | Parts:
    """What a server was sent: a text, or a token in the same process.

    A token is taken as it is, without the last link that `present` adds.
    """
    # Most servers receive text. Only a caller that has a Token has loaded its class.
    if type(token) is str:
        return token
    from captoken._writing.token import Token
    from captoken._writing.token_set import TokenSet

    if isinstance(token, Token):
        return token.presented_parts()
    if isinstance(token, TokenSet):
        return SET_PREFIX  # a set is refused, and this reveals nothing of its tokens
    return cast("str", token)  # anything else is refused when it is decoded


def _source_of(given: Any) -> Source:
    """A callable that returns the newest overlay, or the reason why there is none (36.7).

    An exception of the source never means that there are no revocations, so it leads to a denial.
    The reason names only its type. Raises TypeError for an unsuitable argument.
    """
    # Here, and not at each decision: an import costs more there than the look into the overlay.
    from captoken._language.overlay import Overlay

    if isinstance(given, Overlay):
        always: Fetched = given, None, {}, None
        return lambda: always
    if not callable(given):
        kind = type(given).__name__
        raise TypeError(f"overlay must be an Overlay, or a callable that returns one, not {kind}")

    def newest() -> Fetched:
        try:
            overlay = given()
            if overlay is not None and not isinstance(overlay, Overlay):
                raise TypeError(f"overlay() must return an Overlay, not {type(overlay).__name__}")
        except Exception as error:  # no exception may mean that there are no revocations
            return None, f"the overlay cannot be had: {type(error).__name__}", {}, None
        return overlay, None, {}, None

    return newest


def _is_async(context: AnyContext) -> bool:
    """Has what it returns to be awaited? Raises TypeError for what cannot be called."""
    from inspect import iscoroutinefunction  # of verifiers with a context alone

    if not callable(context):
        kind = type(context).__name__
        raise TypeError(f"context must be a callable that takes what was issued, not {kind}")
    call = getattr(context, "__call__", None)  # noqa: B004, of an object whose call is async
    return iscoroutinefunction(context) or iscoroutinefunction(call)


def _grant_of(answer: Answer) -> Grant:
    """The grant of a decision. Raises Denied."""
    return granted(answered(answer))


def _total_cost(asked: Sequence[Question]) -> dict[str, int]:
    """The total cost of several accesses of one step."""
    total: dict[str, int] = {}
    for one in asked:
        cost = one.access.cost if one.access is not None else {}
        for unit, amount in cost.items():
            total[unit] = total.get(unit, 0) + amount
    return total


class Verifier(_Face):
    """Verifies tokens offline, in-process.

    Make one for each server, from its keyring. Threads may share it: it remembers only verified
    tokens. Its methods wait for its stores, in the thread that calls; without stores and overlay
    they wait for nothing. In a coroutine use `AsyncVerifier`, or `awaited`.

        verifier = Verifier(keyring, "sales-db", overlay=feed)
        grant = verifier.authorize(text, Access(table="sales", operation="select"))

    `keyring` is a Keyring, or a callable that returns one, so that rotation reaches a running
    server. Give a server its own keys alone, `keyring.for_audience("sales-db")`: with the whole
    keyring it could mint for every other server, which is logged once, as a warning.

    `audience` is the server's name, or a tuple of names: the verifier then accepts only tokens
    addressed to it, unless `allow_unaddressed`. Without an audience it accepts only tokens that are
    addressed to nobody (spec, "Audience and task"). `leeway` is in seconds. `clock` returns seconds
    since the epoch. An exception of the clock or the keyring callable passes through, and nothing
    is allowed.

    A bearer token says nothing about who sent it; state what you know of the sender as `caller`.
    The text of a token that is bound to a key ends in a proof for the current request. Pass as
    `request` the 32 bytes that `captoken.proof` makes of what the transport carried. If you leave
    it out, the access itself is the request. `replays` remembers which proofs were used. Without
    it, bound tokens are denied (spec, "Replay").

    `ledger` counts what `uses` and `budget` allow (spec, "Ledger"). Without it, tokens that have
    them are denied.

    `audit` gets a record of every decision but those of `explain` and `recheck` (spec, "Audit"). If
    a decision cannot be recorded, it is a denial.

    `remember` limits how many characters of verified texts it remembers (4 Mi by default; 0 for
    none). When a text is sent again, a look-up replaces most of the work. The key, the time, the
    overlay and the stores are checked anew (spec 24.22).

    A grant works for at most `max_age` seconds (an hour by default), however long its token lives:
    after that, the keys have to be checked again. None is no limit.

    `overlay` gives the newest restrictions on issued tokens: an Overlay, or a callable that returns
    one, such as a Feed (spec, "Overlay"). It may be `max_staleness` seconds old. If it is older, or
    missing, everything is denied; with `allow_stale_overlay=True` that is only logged, and tokens
    that were revoked meanwhile still work.

    `context` gives facts of the moment, such as a threat level or the working hours, which tokens
    ask about with `where`. It is called with what was issued, once for each decision about an
    access, and returns names and values. They count as attributes of the access (spec 7.13). If it
    raises, or gives a name that the access states as well, the access is denied: `attribute`. It
    can only take rights away, since a token that does not ask is not affected.

        Verifier(keyring, "sales-db", context=lambda issued: {"threat": level.of(issued.task)})

    Raises TypeError or ValueError when it is made, for arguments of the wrong kind. That includes
    async stores and an async context, which need an `AsyncVerifier`; its `blocking` is a Verifier
    that has them.
    """

    _waits_here: ClassVar[bool] = True
    __slots__ = ()

    def __init__(
        self,
        keyring: Keyring | Callable[[], Keyring],
        audience: str | Iterable[str] | None = None,
        **options: Unpack[VerifierOptions],
    ) -> None:
        parts = _parts_of_verifier(keyring, audience, **options)
        if parts.store_loop is not None:
            if parts.sources.context_loop is not None:
                raise TypeError("the context is async: use an AsyncVerifier")
            raise TypeError("this store is async: use an AsyncVerifier")
        self._fill(_parts=parts)

    @classmethod
    def of_parts(cls, parts: _Parts) -> Verifier:
        """Make the plain face from the parts of the asyncio face. Only for that face."""
        made = cls.__new__(cls)
        made._fill(_parts=parts)
        return made

    @property
    def parts(self) -> _Parts:
        """The parts that the other face shares. Only for that face."""
        return self._parts

    @property
    def blocking(self) -> Verifier:
        """This verifier itself, so that adapters accept either face."""
        return self

    @property
    def awaited(self) -> AsyncVerifier:
        """The same verifier for asyncio, with the same keys, stores and memory.

        Each call makes a new one, for the event loop in which it is first used. If a store is
        asynchronous, all of them belong to one loop.
        """
        return AsyncVerifier.over(self)

    # called: verifier, by `python -m tests.called`
    def authenticate(
        self,
        token: str | Sendable,
        *,
        request: bytes | None = None,
        for_use: bool = True,
    ) -> Grant:
        """Check a token, without an access, and return its grant. Raises Denied.

        The grant says who acts. To know what is allowed, ask it, once for each access. This call
        counts nothing, but uses up the proof (24.8). With `for_use=False` it also accepts a token
        that may only be handed on. If you know the access already, call `authorize` instead.
        """
        answer = self._sent_with(self, token, None, None, request, used=for_use)
        del token
        return _grant_of(answer)

    def authorize(
        self,
        token: str | Sendable,
        access: Access,
        *,
        caller: Caller | None = None,
        request: bytes | None = None,
    ) -> Grant:
        """Check a token and `access`, and return the grant. Raises Denied, with the decision.

        It runs all eleven steps: when it returns, the proof is used up and the access is counted.
        For further accesses ask the grant, which does not check the signatures again. Raises
        TypeError for an argument that is no Access or Caller.

            try:
                grant = verifier.authorize(text, access, caller=Caller(agent="sales-agent"))
            except Denied as error:
                return error.public
        """
        stated(access, caller)
        answer = self._sent_with(self, token, access, caller, request)
        del token
        return _grant_of(answer)

    def check(
        self,
        token: str | Sendable,
        access: Access,
        *,
        caller: Caller | None = None,
        request: bytes | None = None,
    ) -> Decision:
        """Return the decision on `access`: true if allowed. Never raises on denial.

        Like `authorize`, for code that needs the reasons: it uses up the proof and counts, too. To
        ask without these effects, use `explain`. Raises TypeError for an argument that is no Access
        or Caller.
        """
        stated(access, caller)
        return answered(self._sent_with(self, token, access, caller, request))

    def explain(
        self,
        token: str | Sendable,
        access: Access | None,
        *,
        caller: Caller | None = None,
        request: bytes | None = None,
    ) -> Decision:
        """Return the decision that `check` would make, by the same code, for people.

        It reads the stores, but spends and records nothing, and returns no grant (24.16). Without
        an access it is about the token only. Never let a request through because of it: somebody
        else may use up what is left.
        """
        if access is not None:
            stated(access, caller)
        steps = self._sent_with(self, token, access, caller, request, dry=True)
        return answered(steps)

    def deny(
        self,
        token: str | Sendable,
        code: str,
        why: str,
        access: Access | None = None,
        *,
        request: bytes | None = None,
    ) -> Decision:
        """Record and return a denial of the adapter's own, for a request that no token can allow.

        If something is wrong with the token itself, that is the answer; and so is what its links
        say about `access`, if you give one. Asks no store but the trail (24.21). Raises ValueError
        if `code` is none of the spec's. If you have a grant already, use `Grant.deny`.
        """
        refusals = own_denial(code, why, access)
        return answered(self._deny(self, token, refusals, access, request))

    def owes_proof(self, text: str) -> bool:
        """Return whether only the proof is missing: everything else about the text is valid here.

        For a server that has to read a body before it can check a proof. Asks no store, and counts
        and records nothing: the later call with the proof does that.
        """
        return run(self._owing(text))

    # The questions of grants; see Driver.

    def decide(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """Return the decision, committed and recorded: see `Driver.decide`."""
        return answered(self._decide(genuine, asked, self._judge_and_commit))

    def look(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """Return the decision that `decide` would make, and commit nothing: see `Driver.look`."""
        return answered(self._decide(genuine, asked, self._dry_run))

    def recheck(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """Return the decision of steps 7 to 9 with fresh facts, without stores or records."""
        return answered(self._decide(genuine, asked, self._recheck))

    def rows(
        self,
        genuine: AuthenticatedToken,
        asked: Question,
        table: str,
    ) -> tuple[Decision, tuple[Condition, ...]]:
        """Return whether the token is valid, and what its links say about the table's rows."""
        found: list[Condition] = []
        decision = answered(
            self._decide(genuine, asked, _rows_into(found, table), of_rows=True)
        )
        return decision, tuple(found)

    def decide_all(self, genuine: AuthenticatedToken, asked: Sequence[Question]) -> Decision:
        """Return the decision on several accesses of one step, used and recorded together."""
        return answered(self._decide_together(genuine, asked))

    def left(self, genuine: AuthenticatedToken, units: Collection[str]) -> dict[str, int]:
        """Return how much the ledger has left of each unit of a budget."""
        return run(left(genuine, units, self._parts.stores))

    def record_denial(
        self,
        genuine: AuthenticatedToken,
        asked: Question,
        refusals: Refusals,
    ) -> Decision:
        """Record and return a denial."""
        return answered(self._deny_again(genuine, asked, refusals))

    def settle(self, reservation_id: bytes, taken: Mapping[str, int] | None) -> bool:
        """Settle a reservation. Return True if it was still open."""
        return run(self._close(reservation_id, taken))

    # end: verifier


class AsyncVerifier(_Face):
    """A Verifier with methods to await. It takes the same arguments, and decides the same way.

    Async stores (see `AsyncLedger` in `captoken.stores.ports`) are awaited in the event loop. Other
    stores, trails and sources of overlays are asked in threads, so that they do not block the loop.
    The signatures are checked at once, in the loop's own thread. Wrong arguments raise at once too,
    and Denied is raised when you await the answer. A call that is cancelled after its first effect
    still runs until it is recorded, and then raises; what it took counts (24.20).

    One AsyncVerifier is for one event loop, whose coroutines share it: RuntimeError elsewhere. For
    sync code there is `blocking`, the same verifier. Where a store is awaited, it is for threads
    beside that loop: the loop awaits the store for them. In the loop's own thread, and while no
    loop runs, it denies what needs the store: `store_unavailable`.

        verifier = AsyncVerifier(keyring, "sales-db", ledger=ledger)
        grant = await verifier.authorize(text, access)
    """

    __slots__ = ("_store_loop", "blocking")
    blocking: Verifier  # the same verifier, for sync code
    _store_loop: StoreLoop  # the event loop that it was first used in

    def __init__(
        self,
        keyring: Keyring | Callable[[], Keyring],
        audience: str | Iterable[str] | None = None,
        **options: Unpack[AsyncVerifierOptions],
    ) -> None:
        self._wrap(Verifier.of_parts(_parts_of_verifier(keyring, audience, **options)))

    @classmethod
    def over(cls, verifier: Verifier) -> AsyncVerifier:
        """The asyncio face of a verifier, with all its parts."""
        made = cls.__new__(cls)
        made._wrap(verifier)
        return made

    @property
    def awaited(self) -> AsyncVerifier:
        """This verifier itself, so that adapters accept either face."""
        return self

    def _wrap(self, verifier: Verifier) -> None:
        """Take the parts of a verifier, and the event loop of its stores, if they have one."""
        parts = verifier.parts
        self._fill(
            _parts=parts,
            blocking=verifier,
            _store_loop=StoreLoop() if parts.store_loop is None else parts.store_loop,
        )

    # awaited: verifier
    def authenticate(
        self,
        token: str | Sendable,
        *,
        request: bytes | None = None,
        for_use: bool = True,
    ) -> Pending[AsyncGrant]:
        """Check a token, without an access, and return its grant. Raises Denied.

        The grant says who acts. To know what is allowed, ask it, once for each access. This call
        counts nothing, but uses up the proof (24.8). With `for_use=False` it also accepts a token
        that may only be handed on. If you know the access already, call `authorize` instead.
        """
        answer = self._sent_with(self.blocking, token, None, None, request, used=for_use)
        del token
        return Pending(self._granted(answer))

    def authorize(
        self,
        token: str | Sendable,
        access: Access,
        *,
        caller: Caller | None = None,
        request: bytes | None = None,
    ) -> Pending[AsyncGrant]:
        """Check a token and `access`, and return the grant. Raises Denied, with the decision.

        It runs all eleven steps: when it returns, the proof is used up and the access is counted.
        For further accesses ask the grant, which does not check the signatures again. Raises
        TypeError for an argument that is no Access or Caller.

            try:
                grant = await verifier.authorize(text, access, caller=Caller(agent="sales-agent"))
            except Denied as error:
                return error.public
        """
        stated(access, caller)
        answer = self._sent_with(self.blocking, token, access, caller, request)
        del token
        return Pending(self._granted(answer))

    def check(
        self,
        token: str | Sendable,
        access: Access,
        *,
        caller: Caller | None = None,
        request: bytes | None = None,
    ) -> Pending[Decision]:
        """Return the decision on `access`: true if allowed. Never raises on denial.

        Like `authorize`, for code that needs the reasons: it uses up the proof and counts, too. To
        ask without these effects, use `explain`. Raises TypeError for an argument that is no Access
        or Caller.
        """
        stated(access, caller)
        return Pending(self._run(self._sent_with(self.blocking, token, access, caller, request)))

    def explain(
        self,
        token: str | Sendable,
        access: Access | None,
        *,
        caller: Caller | None = None,
        request: bytes | None = None,
    ) -> Pending[Decision]:
        """Return the decision that `check` would make, by the same code, for people.

        It reads the stores, but spends and records nothing, and returns no grant (24.16). Without
        an access it is about the token only. Never let a request through because of it: somebody
        else may use up what is left.
        """
        if access is not None:
            stated(access, caller)
        steps = self._sent_with(self.blocking, token, access, caller, request, dry=True)
        return Pending(self._run(steps))

    def deny(
        self,
        token: str | Sendable,
        code: str,
        why: str,
        access: Access | None = None,
        *,
        request: bytes | None = None,
    ) -> Pending[Decision]:
        """Record and return a denial of the adapter's own, for a request that no token can allow.

        If something is wrong with the token itself, that is the answer; and so is what its links
        say about `access`, if you give one. Asks no store but the trail (24.21). Raises ValueError
        if `code` is none of the spec's. If you have a grant already, use `Grant.deny`.
        """
        refusals = own_denial(code, why, access)
        return Pending(self._run(self._deny(self.blocking, token, refusals, access, request)))

    def owes_proof(self, text: str) -> Pending[bool]:
        """Return whether only the proof is missing: everything else about the text is valid here.

        For a server that has to read a body before it can check a proof. Asks no store, and counts
        and records nothing: the later call with the proof does that.
        """
        return Pending(self._run_steps(self._owing(text)))

    # The questions of grants; see AsyncDriver.

    async def decide(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """Return the decision, committed and recorded: see `Driver.decide`."""
        return await self._run(self._decide(genuine, asked, self._judge_and_commit))

    async def look(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """Return the decision that `decide` would make, and commit nothing: see `Driver.look`."""
        return await self._run(self._decide(genuine, asked, self._dry_run))

    async def recheck(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """Return the decision of steps 7 to 9 with fresh facts, without stores or records."""
        return await self._run(self._decide(genuine, asked, self._recheck))

    async def rows(
        self,
        genuine: AuthenticatedToken,
        asked: Question,
        table: str,
    ) -> tuple[Decision, tuple[Condition, ...]]:
        """Return whether the token is valid, and what its links say about the table's rows."""
        found: list[Condition] = []
        decision = await self._run(
            self._decide(genuine, asked, _rows_into(found, table), of_rows=True)
        )
        return decision, tuple(found)

    async def decide_all(self, genuine: AuthenticatedToken, asked: Sequence[Question]) -> Decision:
        """Return the decision on several accesses of one step, used and recorded together."""
        return await self._run(self._decide_together(genuine, asked))

    async def left(self, genuine: AuthenticatedToken, units: Collection[str]) -> dict[str, int]:
        """Return how much the ledger has left of each unit of a budget."""
        return await self._run_steps(left(genuine, units, self._parts.stores))

    async def record_denial(
        self,
        genuine: AuthenticatedToken,
        asked: Question,
        refusals: Refusals,
    ) -> Decision:
        """Record and return a denial."""
        return await self._run(self._deny_again(genuine, asked, refusals))

    async def settle(self, reservation_id: bytes, taken: Mapping[str, int] | None) -> bool:
        """Settle a reservation. Return True if it was still open."""
        return await self._run_steps(self._close(reservation_id, taken))

    # end: verifier

    async def _granted(self, answer: Answer) -> AsyncGrant:
        """The grant of a decision, for coroutines. Raises Denied."""
        return granted(await self._run(answer)).awaited_by(self)

    async def _run(self, answer: Answer) -> Decision:
        """The decision: calls of asynchronous stores are awaited, others run in threads."""
        self._check_loop()
        return await answered_async(answer)

    async def _run_steps(self, steps: Steps[_T]) -> _T:
        """The result of steps, whose calls are run in the same way."""
        self._check_loop()
        return await run_async(steps)

    def _check_loop(self) -> None:
        """Raise RuntimeError in any event loop but the first."""
        import asyncio  # here, since sync programs have no need of it

        loop = asyncio.get_running_loop()
        if self._store_loop.loop is None:
            self._store_loop.take(loop)
        if self._store_loop.loop is not loop:
            raise RuntimeError("an AsyncVerifier belongs to one event loop: make one for each")


AnyVerifier: TypeAlias = Verifier | AsyncVerifier  # the verifiers that adapters accept
