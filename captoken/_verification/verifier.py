"""The two faces of verification: `Verifier`, and `AsyncVerifier` for asyncio (spec,
"Verification").

Thin drivers round the plan: gather facts, judge, commit effects, record. What they do is written
once, as steps; the one makes the calls that may wait at once, the other awaits them. The methods
of both are written once too, awaited: `python -m tests.called` makes the others of them.

The rules of this file:

- It decides nothing. What is allowed is what `judge` allows and `effects.py` commits.
- The only place that reads the clock, the keyring and the source of overlays for a verification.
- Where nothing has to be waited for, there are no steps: the decision is there at once.
- The text of a token is dropped as soon as it was read, so that no frame of an error holds it.
- Both faces of one verifier share everything: keys, stores, memory and bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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
from captoken._format.sealed import Sealed
from captoken._format.spelling import shown
from captoken._format.text import SET_PREFIX
from captoken._language.access import Access, Caller, amounts
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
    is_awaited,
    left,
    look,
    record,
    run,
    run_async,
    steps_of,
)
from captoken._verification.facts import Broken, Condition, Facts, Question, Server
from captoken._verification.grant import AsyncGrant, Grant, Pending, granted, own_denial, stated
from captoken._verification.memory import TEXT_REMEMBERED, VerifierMemory
from captoken._verification.plan import (
    authenticate,
    denial,
    denied_early,
    judge,
    reservation,
    staleness,
)
from captoken._verification.telling import Teller, log
from captoken.keys.keyring import Keyring, keyring_source
from captoken.stores.own_process import this_process
from captoken.stores.ports import AsyncLedger, AsyncReplayStore, Ledger, ReplayStore

if TYPE_CHECKING:
    from captoken._language.overlay import Overlay

RESERVATION_ID_BYTES = 16

_T = TypeVar("_T")


class Sendable(Protocol):
    """A token in the place of its text, within one process. `captoken.Token` is the one there is,
    and nothing else is taken: it is named so for a server that never loads what writes tokens.
    """

    def presented_parts(self) -> Parts:
        """The token as `present` would bind it, without a last link of its own."""
        ...


class _Parts(msgspec.Struct, frozen=True, eq=False):
    """What both faces of one verifier share."""

    keys: Callable[[str, str | None], bytes | None]
    vocabulary: Vocabulary
    server: Server
    named: tuple[str, ...]  # the server's names, in the order given
    stores: Stores
    overlay: Callable[[], Overlay | None] | None
    clock: Clock
    random: Callable[[int], bytes]
    memory: VerifierMemory
    store_loop: StoreLoop | None  # where stores are awaited; None if none of them is


class _Options(TypedDict, total=False):
    """What both faces can be made with, besides keys and names. See `Verifier`."""

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
    remember: int
    """Characters of verified texts that are remembered; 4 Mi unless said, 0 for none."""
    vocabulary: Vocabulary
    """The kinds of caveats that it knows, with those of your own."""
    clock: Clock
    """Gives seconds since the epoch."""
    random: Callable[[int], bytes]
    """Gives that many random bytes. For tests."""


class VerifierOptions(_Options, total=False):
    """What a Verifier can be made with: with stores that are called."""

    replays: ReplayStore | None
    """Remembers which proofs were used. Without it no bound token is taken."""
    ledger: Ledger | None
    """Counts `uses` and `budget`. Without it no token that has them is taken."""


class AsyncVerifierOptions(_Options, total=False):
    """What an AsyncVerifier can be made with: with stores that are called, or awaited."""

    replays: ReplayStore | AsyncReplayStore | None
    """Remembers which proofs were used. Without it no bound token is taken."""
    ledger: Ledger | AsyncLedger | None
    """Counts `uses` and `budget`. Without it no token that has them is taken."""


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
    max_staleness: int = 60,
    allow_stale_overlay: bool = False,
    max_age: int | None = 3600,
    remember: int = TEXT_REMEMBERED,
    vocabulary: Vocabulary = V1,
    clock: Clock = time,
    random: Callable[[int], bytes] = random_bytes,
) -> _Parts:
    """The parts of a verifier, from what its maker was given. Raises TypeError or ValueError."""
    _check_seconds("leeway", leeway)
    _check_seconds("max_staleness", max_staleness)
    if max_age is not None:
        _check_seconds("max_age", max_age, ", or None")
    if type(remember) is not int or remember < 0:
        raise ValueError(
            f"remember must be a number of characters, 0 or more, as int, not {shown(remember)}"
        )
    named = _names(audience)
    source = keyring_source(keyring)

    def keys(key_id: str, audience: str | None) -> bytes | None:
        return source().derived(key_id, audience)

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
    )
    store_loop = StoreLoop() if is_awaited(replays) or is_awaited(ledger) else None
    stores = Stores(
        Teller(random),
        replays,
        ledger,
        audit,
        store_loop if is_awaited(replays) else None,
        store_loop if is_awaited(ledger) else None,
    )
    return _Parts(
        keys,
        vocabulary,
        server,
        named,
        stores,
        None if overlay is None else _source_of(overlay),
        clock,
        random,
        VerifierMemory(remember),
        store_loop,
    )


def _check_seconds(
    what: str,
    given: Any,
    other: str = "",
) -> None:
    """Raise ValueError for what is no number of seconds; True is none."""
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
        raise ValueError("a server without a name: leave audience out, or name it")
    return tuple(names.name(name, "audience") for name in given)


class _Face(Sealed):
    """What the two faces do, as steps."""

    __slots__ = ("_parts",)
    _instead: ClassVar[str] = "make one from the keyring"
    _parts: _Parts

    def _take(self, parts: _Parts) -> None:
        """Fill in the parts, once: a face is sealed after that."""
        self._fill(_parts=parts)

    @property
    def audiences(self) -> tuple[str, ...]:
        """The names of the server, as they were given; none for tokens for nobody in particular."""
        return self._parts.named

    @property
    def memory(self) -> VerifierMemory:
        """What it remembers."""
        return self._parts.memory

    @property
    def waits(self) -> bool:
        """May an answer have to wait: for the source of overlays, for a store, for a trail?

        Keys are asked for at once in any case.
        """
        stores = self._parts.stores
        asked = (self._parts.overlay, stores.replays, stores.ledger, stores.trail)
        return any(each is not None for each in asked)

    @property
    def process(self) -> object:
        """What stands for the process that asks: a child of a fork has another one."""
        return this_process()

    @property
    def clock(self) -> Clock:
        """What tells the time here, in seconds since the epoch."""
        return self._parts.clock

    @property
    def leeway(self) -> int:
        """By how many seconds clocks may differ."""
        return self._parts.server.leeway

    def __repr__(self) -> str:
        named = ", ".join(sorted(self._parts.named)) or "nobody in particular"
        return f"<{type(self).__name__} for {named}>"

    # What follows gives a decision at once, or, where a call may wait, the steps to one.

    def _facts(self, fetched: Fetched, *, counts: bool) -> Facts:
        """What the plan has to be told. `counts`: does the token, and so need a reservation?

        Reads the clock, whose errors pass through (24.10). Going on without a fresh overlay is said
        aloud each time (36.9).
        """
        parts = self._parts
        overlay, problem = fetched
        now = read_clock(parts.clock)
        if now - parts.server.leeway >= parts.memory.texts.first_end:
            parts.memory.texts.drop_ended(now - parts.server.leeway)
        facts = Facts(
            parts.server,
            parts.memory,
            now,
            overlay,
            problem,
            parts.random(RESERVATION_ID_BYTES) if counts else b"",
        )
        if parts.server.allows_stale and problem is None:
            stale = staleness(facts)
            if stale is not None:
                log().warning("deciding without a fresh overlay: %s", stale)
        return facts

    def _later_facts(self) -> Steps[Facts]:
        """The facts as they are when effects have been committed (24.20)."""
        source = self._parts.overlay
        fetched = _NOTHING_FETCHED if source is None else (yield from _fetched(source))
        return self._facts(fetched, counts=False)

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
        """The whole plan, on a text that was sent. `face` is whom a grant asks again."""
        parts = self._parts
        found = authenticate(_sent(token), parts.keys, parts.vocabulary, parts.memory)
        del token
        if isinstance(found, Broken):
            early = denied_early(found, read_clock(parts.clock), access, caller, dry)
            return early if dry else self._record_denial(early)
        if parts.overlay is not None:
            return self._sent_with_overlay(
                parts.overlay, face, found, access, caller, request, dry, used
            )
        facts = self._facts(_NOTHING_FETCHED, counts=found.counts)
        grant = None if dry else Grant(found, face, facts.now)
        asked = Question(access, caller, grant, facts.now, True, True, used, request)
        if dry:
            return self._dry_run(found, facts, asked)
        return self._judge_and_commit(found, facts, asked)

    def _sent_with_overlay(
        self,
        source: Source,
        face: Verifier,
        found: AuthenticatedToken,
        access: Access | None,
        caller: Caller | None,
        request: bytes | None,
        dry: bool,
        used: bool,
    ) -> Steps[Decision]:
        """The same, where an overlay has to be asked first, which may wait.

        Its last lines are those of `_sent_with`, which every request runs: one call more would cost
        each of them. Both change together.
        """
        facts = self._facts((yield from _fetched(source)), counts=found.counts)
        grant = None if dry else Grant(found, face, facts.now)
        asked = Question(access, caller, grant, facts.now, True, True, used, request)
        end = self._dry_run if dry else self._judge_and_commit
        return (yield from steps_of(end(found, facts, asked)))

    def _deny(
        self,
        face: Verifier,
        token: str | Sendable,
        refusals: Refusals,
        request: bytes | None,
    ) -> Answer:
        """An adapter's own denial of a text that was sent; but first what is wrong with the token
        (24.21).
        """
        parts = self._parts
        found = authenticate(_sent(token), parts.keys, parts.vocabulary, parts.memory)
        del token
        if isinstance(found, Broken):
            early = denied_early(found, read_clock(parts.clock), None, None, dry=False)
            return self._record_denial(early)
        return self._deny_genuine(face, found, refusals, request)

    def _deny_genuine(
        self,
        face: Verifier,
        found: AuthenticatedToken,
        refusals: Refusals,
        request: bytes | None,
    ) -> Steps[Decision]:
        """The same, once steps 1 to 6 have held: steps 7 to 10, without stores."""
        facts = yield from self._later_facts()
        grant = Grant(found, face, facts.now)
        asked = Question(None, None, grant, facts.now, sent=True, request=request)
        decision = judge(found, facts, asked)
        if decision:
            decision = denial(found, facts, asked, refusals)
        decision = structs.replace(decision, effects=())
        return (yield from steps_of(self._record_denial(decision)))

    def _owing(self, text: str) -> Steps[bool]:
        """Whether steps 1 to 9 hold of a text, and then a proof is missing. No store is asked."""
        parts = self._parts
        found = authenticate(text, parts.keys, parts.vocabulary, parts.memory)
        del text
        if isinstance(found, Broken):
            return False
        facts = yield from self._later_facts()
        asked = Question(None, None, None, facts.now, sent=True)
        return judge(found, facts, asked).code == "proof_missing"

    def _decide(
        self,
        genuine: AuthenticatedToken,
        asked: Question,
        end: Callable[[AuthenticatedToken, Facts, Question], Answer],
    ) -> Answer:
        """What a grant asks: `end` is what comes after the facts."""
        source = self._parts.overlay
        if source is None:
            return end(genuine, self._facts(_NOTHING_FETCHED, counts=genuine.counts), asked)
        return self._decide_with_overlay(source, genuine, asked, end)

    def _decide_with_overlay(
        self,
        source: Source,
        genuine: AuthenticatedToken,
        asked: Question,
        end: Callable[[AuthenticatedToken, Facts, Question], Answer],
    ) -> Steps[Decision]:
        """The same, where an overlay has to be asked first, which may wait."""
        facts = self._facts((yield from _fetched(source)), counts=genuine.counts)
        return (yield from steps_of(end(genuine, facts, asked)))

    def _judge_and_commit(
        self,
        genuine: AuthenticatedToken,
        facts: Facts,
        asked: Question,
    ) -> Answer:
        """The decision, its effects committed and itself recorded; without either, no steps."""
        decision = judge(genuine, facts, asked)
        stores = self._parts.stores
        if not decision.effects and stores.trail is None:
            return stores.teller.told(decision)
        return commit(decision, genuine, facts, asked, stores, self._later_facts)

    def _dry_run(
        self,
        genuine: AuthenticatedToken,
        facts: Facts,
        asked: Question,
    ) -> Answer:
        """The decision, the stores looked at and nothing committed."""
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
        """The decision, with no store asked and no record."""
        return judge(genuine, facts, asked)

    def _record_denial(self, denied: Decision) -> Answer:
        """A denial, recorded. It stands whether it can be recorded or not."""
        stores = self._parts.stores
        if stores.trail is None:
            return stores.teller.told(denied)
        return record((denied,), stores, None, None, None)

    def _decide_together(
        self,
        genuine: AuthenticatedToken,
        asked: Sequence[Question],
    ) -> Steps[Decision]:
        """What one step needs, used and recorded together; or the first denial, recorded alone.

        Each access is judged without its reservation; then one reservation is made of all they
        cost.
        """
        source = self._parts.overlay
        fetched = _NOTHING_FETCHED if source is None else (yield from _fetched(source))
        facts = self._facts(fetched, counts=genuine.counts)
        decisions: list[Decision] = []
        for one in asked:
            decision = judge(genuine, facts, structs.replace(one, counted=False))
            if not decision:
                return (yield from steps_of(self._record_denial(decision)))
            decisions.append(decision)
        if genuine.counts:
            taken = reservation(genuine, facts, _total_cost(asked), asked[0].goes_on)
            decisions[0] = structs.replace(decisions[0], effects=(taken,))
        stores = self._parts.stores
        return (
            yield from commit_together(decisions, genuine, facts, asked, stores, self._later_facts)
        )

    def _deny_again(
        self,
        genuine: AuthenticatedToken,
        asked: Question,
        refusals: Refusals,
    ) -> Answer:
        """A denial of an adapter's own, or one that `recheck` found: recorded."""
        facts = self._facts(_NOTHING_FETCHED, counts=False)
        return self._record_denial(denial(genuine, facts, asked, refusals))

    def _close(self, reservation_id: bytes, taken: Mapping[str, int] | None) -> Steps[bool]:
        """Settle a reservation, at the time of this verifier's clock.

        Raises TypeError or ValueError for amounts that are none: no store is asked then.
        """
        settled = None if taken is None else amounts(taken, "taken")
        now = read_clock(self._parts.clock)
        return close(reservation_id, settled, self._parts.stores, now)


Source: TypeAlias = "Callable[[], Overlay | None]"  # of overlays
Fetched: TypeAlias = "tuple[Overlay | None, str | None]"  # an overlay, or why it cannot be had
_NOTHING_FETCHED: Fetched = (None, None)


def _rows_into(
    found: list[Condition], table: str
) -> Callable[[AuthenticatedToken, Facts, Question], Answer]:
    """What judges the token alone, and leaves in `found` what its links say of rows."""
    from captoken._verification.held_rows import judge_rows

    def end(genuine: AuthenticatedToken, facts: Facts, asked: Question) -> Answer:
        decision, conditions = judge_rows(genuine, facts, asked, table)
        found.extend(conditions)
        return decision

    return end


def _sent(token: str | Sendable) -> str | Parts:
    """What a server is sent: a text, or, within one process, a token as `present` would bind it.

    A token in the place of its text is taken as it stands: without the link that `present` adds.
    """
    # Whoever has a token has loaded its class, and most servers are sent text.
    if type(token) is str:
        return token
    from captoken._writing.token import Token
    from captoken._writing.token_set import TokenSet

    if isinstance(token, Token):
        return token.presented_parts()
    if isinstance(token, TokenSet):
        return SET_PREFIX  # is refused as one, and says nothing of its tokens
    return cast("str", token)  # what is neither is refused when it is read


def _source_of(given: Any) -> Source:
    """What gives the overlay of the moment. Raises TypeError for what cannot."""
    from captoken._language.overlay import Overlay

    if isinstance(given, Overlay):
        return lambda: given
    if not callable(given):
        kind = type(given).__name__
        raise TypeError(f"overlay must be an Overlay, or a callable that returns one, not {kind}")
    return cast("Source", given)


def _fetched(source: Source) -> Steps[Fetched]:
    """The newest overlay, or why it cannot be had (36.7).

    Whatever a source raises, it does not say that nothing stands: that is a denial. The type alone
    is told.
    """
    from captoken._language.overlay import Overlay

    try:
        overlay: Any = yield Call(source)
        if overlay is not None and not isinstance(overlay, Overlay):
            raise TypeError(f"overlay() must return an Overlay, not {type(overlay).__name__}")
    except Exception as error:  # whatever a source raises, it does not say that nothing stands
        return None, f"the overlay cannot be had: {type(error).__name__}"
    return overlay, None


def _grant_of(answer: Answer) -> Grant:
    """The grant of an answer. Raises Denied."""
    return granted(answered(answer))


def _total_cost(asked: Sequence[Question]) -> dict[str, int]:
    """What several accesses of one step cost together."""
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
    server. `audience` is the server's name, or a tuple of names: the verifier then accepts only
    tokens addressed to it, unless `allow_unaddressed`. Without an audience it accepts only tokens
    that are addressed to nobody (spec, "Audience and task"). `leeway` is in seconds. `clock`
    returns seconds since the epoch. An exception of the clock or the keyring callable passes
    through, and nothing is allowed.

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

    Raises TypeError or ValueError when it is made, for arguments of the wrong kind. That includes
    async stores, which need an `AsyncVerifier`; its `blocking` is a Verifier with that store.
    """

    __slots__ = ()

    def __init__(
        self,
        keyring: Keyring | Callable[[], Keyring],
        audience: str | Iterable[str] | None = None,
        **options: Unpack[VerifierOptions],
    ) -> None:
        parts = _parts_of_verifier(keyring, audience, **options)
        if parts.store_loop is not None:
            raise TypeError("a store that is awaited needs an AsyncVerifier")
        self._take(parts)

    @classmethod
    def of_parts(cls, parts: _Parts) -> Verifier:
        """The plain face of parts that its other face has. For that face alone."""
        made = cls.__new__(cls)
        made._take(parts)
        return made

    @property
    def parts(self) -> _Parts:
        """What its other face shares with it. For that face alone."""
        return self._parts

    @property
    def blocking(self) -> Verifier:
        """This one: so that adapters may be given either face."""
        return self

    @property
    def awaited(self) -> AsyncVerifier:
        """The same verifier for asyncio: with the same keys, stores and memory.

        A new face each time, for the event loop that it is first used in. Where a store is awaited,
        all of them are for one.
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
        *,
        request: bytes | None = None,
    ) -> Decision:
        """Record and return a denial of the adapter's own, for a request that no token can allow.

        If something is wrong with the token itself, that is the answer. Asks no store but the trail
        (24.21). Raises ValueError if `code` is none of the spec's. If you have a grant already, use
        `Grant.deny`.
        """
        refusals = own_denial(code, why)
        return answered(self._deny(self, token, refusals, request))

    def owes_proof(self, text: str) -> bool:
        """Return whether only the proof is missing: everything else about the text is valid here.

        For a server that has to read a body before it can check a proof. Asks no store, and counts
        and records nothing: the later call with the proof does that.
        """
        return run(self._owing(text))

    # What grants ask; see Driver.

    def decide(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """The decision, with all that it needs to stand: see `Driver.decide`."""
        return answered(self._decide(genuine, asked, self._judge_and_commit))

    def look(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """The decision that `decide` would come to, with nothing committed: see `Driver.look`."""
        return answered(self._decide(genuine, asked, self._dry_run))

    def recheck(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """Steps 7 to 9 with fresh facts: no store is asked, and nothing recorded."""
        return answered(self._decide(genuine, asked, self._recheck))

    def rows(
        self,
        genuine: AuthenticatedToken,
        asked: Question,
        table: str,
    ) -> tuple[Decision, tuple[Condition, ...]]:
        """Whether the token stands, and what its links say of the table's rows."""
        found: list[Condition] = []
        decision = answered(self._decide(genuine, asked, _rows_into(found, table)))
        return decision, tuple(found)

    def decide_all(self, genuine: AuthenticatedToken, asked: Sequence[Question]) -> Decision:
        """The decision on what one step needs, used and recorded together."""
        return answered(self._decide_together(genuine, asked))

    def left(self, genuine: AuthenticatedToken, units: Collection[str]) -> dict[str, int]:
        """What the ledger has left of each of the units that a budget names."""
        return run(left(genuine, units, self._parts.stores))

    def record_denial(
        self,
        genuine: AuthenticatedToken,
        asked: Question,
        refusals: Refusals,
    ) -> Decision:
        """A denial, recorded."""
        return answered(self._deny_again(genuine, asked, refusals))

    def settle(self, reservation_id: bytes, taken: Mapping[str, int] | None) -> bool:
        """Settle a reservation: True if it was open."""
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
        """The asyncio face of a verifier, with all that it has."""
        made = cls.__new__(cls)
        made._wrap(verifier)
        return made

    @property
    def awaited(self) -> AsyncVerifier:
        """This one: so that adapters may be given either face."""
        return self

    def _wrap(self, verifier: Verifier) -> None:
        """Take the parts of a verifier, and no event loop yet, but the one of its stores."""
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
        *,
        request: bytes | None = None,
    ) -> Pending[Decision]:
        """Record and return a denial of the adapter's own, for a request that no token can allow.

        If something is wrong with the token itself, that is the answer. Asks no store but the trail
        (24.21). Raises ValueError if `code` is none of the spec's. If you have a grant already, use
        `Grant.deny`.
        """
        refusals = own_denial(code, why)
        return Pending(self._run(self._deny(self.blocking, token, refusals, request)))

    def owes_proof(self, text: str) -> Pending[bool]:
        """Return whether only the proof is missing: everything else about the text is valid here.

        For a server that has to read a body before it can check a proof. Asks no store, and counts
        and records nothing: the later call with the proof does that.
        """
        return Pending(self._run_steps(self._owing(text)))

    # What grants ask; see AsyncDriver.

    async def decide(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """The decision, with all that it needs to stand: see `Driver.decide`."""
        return await self._run(self._decide(genuine, asked, self._judge_and_commit))

    async def look(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """The decision that `decide` would come to, with nothing committed: see `Driver.look`."""
        return await self._run(self._decide(genuine, asked, self._dry_run))

    async def recheck(self, genuine: AuthenticatedToken, asked: Question) -> Decision:
        """Steps 7 to 9 with fresh facts: no store is asked, and nothing recorded."""
        return await self._run(self._decide(genuine, asked, self._recheck))

    async def rows(
        self,
        genuine: AuthenticatedToken,
        asked: Question,
        table: str,
    ) -> tuple[Decision, tuple[Condition, ...]]:
        """Whether the token stands, and what its links say of the table's rows."""
        found: list[Condition] = []
        decision = await self._run(self._decide(genuine, asked, _rows_into(found, table)))
        return decision, tuple(found)

    async def decide_all(self, genuine: AuthenticatedToken, asked: Sequence[Question]) -> Decision:
        """The decision on what one step needs, used and recorded together."""
        return await self._run(self._decide_together(genuine, asked))

    async def left(self, genuine: AuthenticatedToken, units: Collection[str]) -> dict[str, int]:
        """What the ledger has left of each of the units that a budget names."""
        return await self._run_steps(left(genuine, units, self._parts.stores))

    async def record_denial(
        self,
        genuine: AuthenticatedToken,
        asked: Question,
        refusals: Refusals,
    ) -> Decision:
        """A denial, recorded."""
        return await self._run(self._deny_again(genuine, asked, refusals))

    async def settle(self, reservation_id: bytes, taken: Mapping[str, int] | None) -> bool:
        """Settle a reservation: True if it was open."""
        return await self._run_steps(self._close(reservation_id, taken))

    # end: verifier

    async def _granted(self, answer: Answer) -> AsyncGrant:
        """The grant of an answer, for coroutines. Raises Denied."""
        return granted(await self._run(answer)).awaited_by(self)

    async def _run(self, answer: Answer) -> Decision:
        """The decision, its calls awaited, or made in threads."""
        self._check_loop()
        return await answered_async(answer)

    async def _run_steps(self, steps: Steps[_T]) -> _T:
        """What steps come to, in the same way."""
        self._check_loop()
        return await run_async(steps)

    def _check_loop(self) -> None:
        """Raise RuntimeError in another event loop than the first."""
        from asyncio import get_running_loop  # here, since sync programs have no need of it

        loop = get_running_loop()
        if self._store_loop.loop is None:
            self._store_loop.take(loop)
        if self._store_loop.loop is not loop:
            raise RuntimeError("an AsyncVerifier is for one event loop: make one for each")


AnyVerifier: TypeAlias = Verifier | AsyncVerifier  # what an adapter may be given
