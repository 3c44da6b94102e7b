"""What a decision has to commit to stand: step 11 of the plan, and the record.

The only place that asks a store. What is done here is written once, as generators: each yields a
call that may wait, and is sent what the call gave. `run` makes the calls at once. `run_async`
awaits those of stores that say so, makes the others in threads, and lets nobody cancel between the
first effect and its record.

How data flows: `judge` lists the effects of an allowed decision. `commit` takes them one after the
other, judges again where that took long, and records what it came to. Only then is there an answer.

The rules of this file:

- Whatever a store raises or answers otherwise than promised is a denial (24.10, 31.4, 38.7).
- What was taken is never given back for a failure to know: too much denied, nothing allowed.
- Each place that yields says what happens if it raises, is cancelled, or the process dies there.
- Nothing here judges a token. What has to be judged again goes to `judge`.
- Between asking a store and acting on its answer, this generator yields only where shown: every
  other pause would be a race.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Generator, Iterable, Sequence
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import structs

from captoken._format.clocks import CLOCKS_DIFFER
from captoken._format.errors import StoreError
from captoken._format.spelling import spelled_time
from captoken._language.reasons import PLAN, Refusal
from captoken._verification.authenticated import AuthenticatedToken
from captoken._verification.decision import Decision, Effect
from captoken._verification.facts import Facts, Question
from captoken._verification.plan import denial, judge, marked_step, narrowing_of
from captoken._verification.telling import Teller, failed, log
from captoken.stores.ports import (
    MOST_BUCKETS,
    AsyncLedger,
    AsyncReplayStore,
    Debit,
    Forbidden,
    Ledger,
    Mark,
    MarkedStep,
    ReplayStore,
    Reservation,
    Rule,
    SetBefore,
    Spend,
    Use,
    later,
)

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

# What an operator reads where a token needs a store that the verifier does not have.
NO_REPLAYS = "this verifier needs a replay store (replays=) for a token that is bound to a key"
NO_SPENDING = "this verifier needs a replay store (replays=) that remembers consents"
NO_LEDGER = "this verifier needs a ledger (ledger=) for a token with uses, a budget or marks"

_PATIENCE = 1  # seconds that effects may take before the rest is judged again
_LONGEST = 30  # seconds that a thread waits for what is awaited in the event loop
_T = TypeVar("_T")


class Recorder(Protocol):
    """Whatever takes a record of each decision: a trail (spec, "Audit"), or one of your own.

    Asked in the thread of whoever verifies, or in a thread of its own for asyncio. So it takes
    calls from several threads at once. The decision holds values of the access: what is written of
    them is the recorder's to choose.
    """

    def record(self, decision: Decision) -> None:
        """Take what was decided, before anybody acts on it (39.7). Called, and never awaited.

        What it raises denies: then nothing may stand there that says it was allowed.
        """
        ...

    def record_all(self, decisions: Sequence[Decision]) -> None:
        """Take what was decided on one step: all of it, or none.

        What it raises denies: all accesses of the step together.
        """
        ...


class StoreLoop:
    """The event loop that the awaited stores of one verifier are asked in, whichever face asks.

    It is the loop that the verifier was first awaited in, and nobody knows it before that.
    """

    __slots__ = ("_lock", "loop")

    def __init__(self) -> None:
        self.loop: AbstractEventLoop | None = None
        self._lock = Lock()

    def take(self, loop: AbstractEventLoop) -> None:
        """This loop is it, unless another one was first."""
        with self._lock:
            if self.loop is None:
                self.loop = loop

    def wait_for(self, make: Callable[[], Awaitable[Any]]) -> Any:
        """What the call gives: the loop awaits it, and this thread waits for the loop.

        Raises StoreError where that would be for ever: in the loop's own thread, and where no loop
        runs. Raises it too where the loop ends meanwhile, or has no answer for half a minute, as
        when its thread waits for this one. What the call then takes counts. Raises what the call
        raises.
        """
        from asyncio import run_coroutine_threadsafe
        from concurrent.futures import wait

        async def there() -> Any:
            return await make()

        loop = self.loop
        if loop is None or not loop.is_running():
            raise StoreError("the store is awaited, but its event loop is not running: start it")
        if _is_here(loop):
            text = (
                "the store is awaited in this thread's own event loop: use an AsyncVerifier, and "
                "await the answer"
            )
            raise StoreError(text)

        asked = run_coroutine_threadsafe(there(), loop)
        for _ in range(_LONGEST):
            wait((asked,), timeout=1)
            if asked.done():
                return asked.result()
            if not loop.is_running():
                break
        raise StoreError("the event loop in which the store is awaited gave no answer")


def _is_here(loop: AbstractEventLoop) -> bool:
    """Does this thread run the loop?"""
    from asyncio import get_running_loop

    try:
        return get_running_loop() is loop
    except RuntimeError:
        return False


# In the place of a loop: calls that wait for nothing are made where they come up. In an event loop,
# too, where a thread for one would cost ten times what the call does.
HERE = StoreLoop()


def is_awaited(store: object) -> bool:
    """Does a store say that its calls are awaited? Its answers are not looked at for that."""
    return getattr(store, "awaited", False) is True


def loop_for(store: object, loop: StoreLoop | None) -> StoreLoop | None:
    """Where the calls of a store are made: in this loop, HERE, or None for a thread."""
    if is_awaited(store):
        return loop
    return HERE if getattr(store, "waits", True) is False else None


_MOST_MARKS = 100_000  # that a process remembers of one ledger


class KnownMarks:
    """The marks that this process knows to be set in its ledger (46.7).

    No mark is ever cleared, so what they close is closed. And what was found set lately need not be
    set again: for as long as a ledger that was begun anew meanwhile takes no token of before (its
    floor). Threads share it. Bounded: what is forgotten is asked about again.
    """

    __slots__ = ("_said", "_until")

    def __init__(self) -> None:
        # By bucket, until when it is kept, None for good; and when the ledger has last said so.
        self._until: dict[bytes, tuple[int | None, int]] = {}
        # When and by what each was set, where the ledger has said so.
        self._said: dict[bytes, SetBefore] = {}

    def remember(self, marks: Iterable[Mark], now: int) -> None:
        """They are set in the ledger, which says so now, and was told to keep them so long."""
        if len(self._until) > _MOST_MARKS:
            self._until = {}
        for mark in marks:
            known, _ = self._until.get(mark.bucket, (mark.keep, now))
            self._until[mark.bucket] = later(known, mark.keep), now

    def hear(self, said: Iterable[SetBefore]) -> None:
        """When and by what they were set: for people alone, and so from a mere look, too."""
        if len(self._said) > _MOST_MARKS:
            self._said = {}
        self._said.update({one.bucket: one for one in said})

    def said(self, rule: Rule) -> tuple[SetBefore, ...]:
        """When and by what the marks of a rule were set, as far as this process was told."""
        known = (self._said.get(mark.bucket) for mark in rule.after)
        return tuple(one for one in known if one is not None)

    def are_set(self, step: MarkedStep, now: int) -> bool:
        """Is there nothing to set, and no rule to ask about? Then no ledger is needed."""
        if step.rules:
            return False
        issued_at = step.issued_at
        for mark in step.marks:  # at each access: a generator would cost more
            asked = self._set_at(mark, now)
            if asked is None or not issued_at <= asked <= now <= asked + CLOCKS_DIFFER:
                return False
        return True

    def leave_nothing(self, decision: Decision) -> bool:
        """Has a decision no effects but marks that are set?"""
        first = decision.effects[0]
        if len(decision.effects) > 1 or not isinstance(first, MarkedStep):
            return False
        return self.are_set(first, decision.now)

    def forbids(self, step: MarkedStep, now: int) -> int | None:
        """The first rule that is known to hold, or None. The marks of the step count as set."""
        own = {mark.bucket for mark in step.marks}
        for at, rule in enumerate(step.rules):
            others = [mark for mark in rule.after if mark.bucket not in own]
            if all(self._set_at(mark, now) is not None for mark in others):
                return at
        return None

    def _set_at(self, mark: Mark, now: int) -> int | None:
        """When the ledger last said that it is set, and kept for as long as this token wants; or
        None: then it is asked.
        """
        until, asked = self._until.get(mark.bucket, (now, now))
        if until is None or (until > now and mark.keep is not None and mark.keep <= until):
            return asked
        return None


class Stores(msgspec.Struct, frozen=True, eq=False):
    """What a verifier counts with, remembers proofs in, and writes its record to.

    Made once, with the verifier. Without `replays` no bound token is taken, without `ledger` none
    that counts; without `trail` nothing is recorded.
    """

    teller: Teller
    replays: ReplayStore | AsyncReplayStore | None = None
    ledger: Ledger | AsyncLedger | None = None
    trail: Recorder | None = None

    # Where the calls of each are made: see `loop_for`.
    replays_loop: StoreLoop | None = None
    ledger_loop: StoreLoop | None = None
    trail_loop: StoreLoop | None = None

    # What the ledger is known to have set.
    marks: KnownMarks = msgspec.field(default_factory=KnownMarks)


# --- calls that may wait -------------------------------------------------------------------------


class Call(NamedTuple):
    """A call that may wait: steps yield one, and are sent what it gave."""

    # What to call. It may wait, it may raise, and it is called once.
    make: Callable[[], Any]

    # Is it an effect, or what follows on one? Then nobody cancels before the record (24.20).
    lasting: bool = False

    # The event loop that what it gives is awaited in; None where it gives the answer itself, and
    # HERE where it does that without a wait.
    store_loop: StoreLoop | None = None


Steps: TypeAlias = Generator[Call, Any, _T]
Answer: TypeAlias = Steps[Decision] | Decision  # steps to a decision, or one without a wait


def answered(answer: Answer) -> Decision:
    """The decision, its calls made in this thread."""
    return answer if isinstance(answer, Decision) else run(answer)


async def answered_async(answer: Answer) -> Decision:
    """The decision, its calls awaited, or made in threads."""
    return answer if isinstance(answer, Decision) else await run_async(answer)


def steps_of(answer: Answer) -> Steps[Decision]:
    """Steps to a decision that may be there already: then there are none."""
    if isinstance(answer, Decision):
        return answer
    return (yield from answer)


def run(steps: Steps[_T]) -> _T:
    """Make the calls, one after the other, in this thread.

    What has to be awaited, the event loop of the verifier awaits, and this thread waits for it: see
    `StoreLoop.wait_for`. What a call raises goes into the steps, which make a denial of it. What
    interrupts the thread, as KeyboardInterrupt does, passes through: nothing is allowed, and what
    was taken counts.
    """
    try:
        call = next(steps)
        while True:
            call = _go_on(steps, *_made(call))
    except StopIteration as stop:
        result: _T = stop.value
        return result


def _made(call: Call) -> tuple[Any, Exception | None]:
    """What a call gave, or what it raised."""
    try:
        if call.store_loop is None or call.store_loop is HERE:
            return call.make(), None
        return call.store_loop.wait_for(call.make), None
    except Exception as error:
        return None, error


def _go_on(
    steps: Steps[Any],
    answer: Any,
    error: Exception | None,
) -> Call:
    """Tell the steps what came of their call: the next one. Raises StopIteration at their end."""
    return steps.send(answer) if error is None else steps.throw(error)


async def run_async(steps: Steps[_T]) -> _T:
    """Await the calls, or make them in threads, while the event loop goes on.

    From the first lasting call on, whoever cancels is made to wait until the steps have ended: what
    was taken counts, and a record says so. Then the cancellation goes on (24.20). A store that
    hangs so holds up the cancellation as well: give stores a time-out of their own.
    """
    import asyncio  # here, since the core is for programs without it too

    # Until the first effect a cancellation passes through: the steps are dropped where they stand,
    # and nothing was used. A thread that is under way goes on alone, and nobody hears its answer.
    # A store that is awaited hears of it.
    try:
        call = next(steps)
        while not call.lasting:
            call = _go_on(steps, *await _awaited(call))
        while call.store_loop is HERE:  # nobody can cancel where nothing is awaited
            call = _go_on(steps, *_made(call))
    except StopIteration as stop:
        result: _T = stop.value
        return result

    # From here on a task of its own, which whoever cancels does not reach. `wait` is cancelled in
    # its place, as often as they like, and waited on again.
    rest = asyncio.ensure_future(_to_the_end(steps, call))
    cancelled: asyncio.CancelledError | None = None
    while not rest.done():
        try:
            await asyncio.wait((rest,))
        except asyncio.CancelledError as error:
            cancelled = error

    if cancelled is not None:
        rest.exception()  # it is looked at: the cancellation is what the caller gets to see
        raise cancelled
    return rest.result()


async def _to_the_end(steps: Steps[_T], call: Call) -> _T:
    """The calls from the first lasting one on: whoever cancels does not reach them.

    An event loop that ends cancels this too. Then it is not known what came of the call, which is
    an answer as any other: the steps deny, and record that.
    """
    from asyncio import CancelledError

    try:
        while True:
            try:
                answer, error = await _awaited(call)
            except CancelledError:
                answer, error = None, StoreError("interrupted during a call to a store")
            call = _go_on(steps, answer, error)
    except StopIteration as stop:
        result: _T = stop.value
        return result


async def _awaited(call: Call) -> tuple[Any, Exception | None]:
    """What a call gave, or what it raised: awaited here, or made in a thread."""
    from asyncio import to_thread

    if call.store_loop is HERE:
        return _made(call)
    if call.store_loop is None:
        return await to_thread(_made, call)
    try:
        return await call.make(), None
    except Exception as error:
        return None, error


# --- step 11 and the record ----------------------------------------------------------------------


def commit(
    decision: Decision,
    genuine: AuthenticatedToken,
    facts: Facts,
    asked: Question,
    stores: Stores,
    fetch: Callable[[], Steps[Facts]],
) -> Steps[Decision]:
    """The decision with all that it needs to stand: effects committed, and itself recorded; or a
    denial.

    `fetch` gives the facts as they are when the effects are committed.
    """
    decision = yield from _committed(decision, genuine, facts, (asked,), stores, fetch)

    # The record is last, of what it came to. Where it fails, what was taken stays taken.
    return (yield from _record((decision,), stores, genuine, facts, asked))


def commit_together(
    decisions: Sequence[Decision],
    genuine: AuthenticatedToken,
    facts: Facts,
    asked: Sequence[Question],
    stores: Stores,
    fetch: Callable[[], Steps[Facts]],
) -> Steps[Decision]:
    """The decision on several accesses of one step, whose effects are those of the first.

    `asked` has the question of each. All are recorded together, or the one denial alone. If the
    process dies in between, what was reserved counts as spent, for all of them.
    """
    first = decisions[0]
    if first.effects:
        taken = yield from _committed(first, genuine, facts, asked, stores, fetch)
        if taken:
            decisions = [structs.replace(one, effects=taken.effects) for one in decisions]
        elif taken.step == len(PLAN):  # what a store has not, all of them together lack
            decisions = [structs.replace(taken, access=one.access) for one in decisions]
        else:  # judged again, one is refused: recorded alone, as when it is refused at first
            decisions = [taken]
    return (yield from _record(decisions, stores, genuine, facts, asked[0]))


def _committed(
    decision: Decision,
    genuine: AuthenticatedToken,
    facts: Facts,
    asked: Sequence[Question],
    stores: Stores,
    fetch: Callable[[], Steps[Facts]],
) -> Steps[Decision]:
    """Step 11: the decision, once its effects are committed; or a denial (24.16).

    Where that took long, or an overlay came meanwhile, steps 7 to 10 are judged again, for each
    access: a denial then gives the reservation back (24.20).
    """
    # One after the other, in the order of the plan. The first that cannot be had is the answer.
    # A proof that was used before it stays used: a retry needs a fresh one (30.10).
    # If the process dies between two, the first stays taken, and nothing was allowed.
    effects = _to_take(decision, genuine, asked, stores)
    if not effects:
        return decision
    for effect in effects:
        refusal = yield from _taken(effect, genuine, stores, facts.now, looking=False)
        if refusal is not None:
            return denial(genuine, facts, asked[0], (refusal,), 11, decision.effects)

    # What the clock raises here passes through (24.10). Nothing is allowed; a reservation that is
    # neither settled nor cancelled counts as spent. A source of overlays that raises is a denial.
    later = yield from fetch()
    if facts.context:  # asked for once a decision (7.13)
        later = structs.replace(later, context=facts.context)
    if later.now - facts.now <= _PATIENCE and later.overlay is facts.overlay:
        return decision

    # Time went by, or an overlay came, while the stores were asked: it may have expired, or been
    # revoked. An answer of before would let through what the operator has stopped (24.20).
    judged = (judge(genuine, later, one) for one in asked)
    second = next((again for again in judged if not again), None)
    if second is None:
        return decision

    # Denied after all: the reservation goes back, and the proof stays used. One that is known
    # longer stays, since the same request would find it there, and take nothing (38.17).
    for effect in decision.effects:
        if isinstance(effect, Reservation) and asked[0].once is None:
            yield from _given_back(effect, stores, later.now)
    return structs.replace(second, effects=decision.effects)


def look(
    decision: Decision,
    genuine: AuthenticatedToken,
    facts: Facts,
    asked: Question,
    stores: Stores,
) -> Steps[Decision]:
    """What step 11 would come to, with nothing committed: a dry run (24.16)."""
    # Nothing to undo: if it raises, is cancelled, or the process dies here, nothing was taken.
    for effect in _to_take(decision, genuine, (asked,), stores):
        refusal = yield from _taken(effect, genuine, stores, facts.now, looking=True)
        if refusal is not None:
            return denial(genuine, facts, asked, (refusal,), 11, decision.effects)
    return decision


def _to_take(
    decision: Decision,
    genuine: AuthenticatedToken,
    asked: Sequence[Question],
    stores: Stores,
) -> Sequence[Effect]:
    """The effects of a decision, each a call of a store: marks and a reservation are one (46.6).

    Without the marks where this process knows the answer: those that are set cost no call.
    """
    for step in decision.effects:
        if isinstance(step, MarkedStep):
            break
    else:
        return decision.effects
    effects: list[Effect] = [one for one in decision.effects if one is not step]
    if stores.marks.are_set(step, decision.now):
        return effects
    from captoken._verification.marking import done_by  # of tokens that have marks

    taken = next((one for one in effects if isinstance(one, Reservation)), None)
    if taken is not None:
        effects.remove(taken)
    accesses = [one.access for one in asked if one.access is not None]
    by = done_by(genuine, accesses)
    return [*effects, structs.replace(step, by=by, reservation=taken)]


def _taken(
    effect: Effect,
    genuine: AuthenticatedToken,
    stores: Stores,
    now: int,
    *,
    looking: bool,
) -> Steps[Refusal | None]:
    """Commit one effect, or look what would come of it: why it cannot be had, or None.

    The one place that turns what a store raises into a denial. The type alone is told, since the
    text of a foreign exception may hold anything.
    """
    try:
        if isinstance(effect, Use):
            return (yield from _used(effect, stores, now, looking))
        if isinstance(effect, Spend):
            return (yield from _spent(effect, genuine, stores, now, looking))
        if isinstance(effect, MarkedStep):
            return (yield from _stepped(effect, genuine, stores, now, looking))
        return (yield from _reserved(effect, genuine, stores, now, looking))
    except StoreError as error:
        return Refusal("store_unavailable", str(error))
    except Exception as error:  # whatever a store raises, it does not say that there is enough
        return Refusal("store_unavailable", f"a store raised {type(error).__name__}")


def _used(
    use: Use,
    stores: Stores,
    now: int,
    looking: bool,
) -> Steps[Refusal | None]:
    """The one use of a proof: None if it is the first, else why not (31.2)."""
    replays = stores.replays
    if replays is None:
        raise StoreError(NO_REPLAYS)
    ask = replays.peek if looking else replays.add

    # If it raises, the proof may be used or not, and the answer is no either way. Cancelled, it
    # runs on to its record. If the process dies, the proof is used or not, and nobody was let in.
    first = yield Call(partial(ask, use, now), not looking, stores.replays_loop)

    # True alone will do: what a store answers otherwise does not say that this is the first use.
    if first is True:
        return None
    text = "the proof was used before, or is older than the store remembers"
    return Refusal("replayed", text)


def _spent(
    spend: Spend,
    genuine: AuthenticatedToken,
    stores: Stores,
    now: int,
    looking: bool,
) -> Steps[Refusal | None]:
    """The one use of a consent: None if it is the first, else why not (47.9)."""
    ask = getattr(stores.replays, "peek_spend" if looking else "spend", None)
    if ask is None:
        raise StoreError(NO_SPENDING)

    # If it raises, the consent may be spent or not, and the answer is no either way. Cancelled, it
    # runs on to its record. If the process dies, it is spent or not, and nothing was allowed.
    first = yield Call(partial(ask, spend, now), not looking, stores.replays_loop)
    if first is True:
        return None
    text = "the consent was used before, or was given before the store was six seconds old"
    return Refusal("replayed", text, spend.link, genuine.added_by(spend.link))


def _ledger_of(stores: Stores) -> Ledger | AsyncLedger:
    """The ledger. Raises StoreError where there is none (38.7)."""
    if stores.ledger is None:
        raise StoreError(NO_LEDGER)
    return stores.ledger


def _reserved(
    reservation: Reservation,
    genuine: AuthenticatedToken,
    stores: Stores,
    now: int,
    looking: bool,
) -> Steps[Refusal | None]:
    """A reservation, from every bucket at once: None if all had enough, else why not (38.3)."""
    ledger = _ledger_of(stores)

    # What is more than the whole limit is never to be had: the ledger need not be asked.
    short: object = _never(reservation)
    if short is None:
        ask = ledger.peek if looking else ledger.reserve
        # If it raises, what was reserved, if it was, counts as spent (38.7). Cancelled, it runs on
        # to its record. If the process dies, nobody settles, and it counts as spent (38.8).
        short = yield Call(partial(ask, reservation, now), not looking, stores.ledger_loop)

    return None if short is None else _short(short, genuine)


def _never(reservation: Reservation) -> Debit | None:
    """The first debit that is more than a whole limit: that is never to be had."""
    over = (debit for debit in reservation.debits if debit.amount > debit.limit)
    return next(over, None)


def _short(short: object, genuine: AuthenticatedToken) -> Refusal:
    """What the ledger answers that is no yes. Raises StoreError for what is no answer (38.7)."""
    if not isinstance(short, Debit):
        raise StoreError(f"the ledger answered with a {type(short).__name__}")

    if short.full:
        # 38.14. For people: to a model this is an allowance that is used up, as any other.
        most = f"the tree of this token has {MOST_BUCKETS} buckets, the most there can be"
        text = f"{most}, and {short.unit} would need one more"
    else:
        text = _too_little(short)
    return Refusal("budget_exhausted", text, short.link, genuine.added_by(short.link))


def _stepped(
    step: MarkedStep,
    genuine: AuthenticatedToken,
    stores: Stores,
    now: int,
    looking: bool,
) -> Steps[Refusal | None]:
    """Marks, and a reservation with them: None if all is done, else why not (46.6)."""
    _ledger_of(stores)
    if step.reservation is not None:
        never = _never(step.reservation)
        if never is not None:
            return _short(never, genuine)

    # What this process knows to be set closes without the ledger: no mark is ever cleared. It is
    # asked all the same where it alone can say when that was, and whatever it answers closes.
    at = stores.marks.forbids(step, now)
    if at is not None:
        rule = step.rules[at]
        own = {mark.bucket for mark in step.marks}
        if len(stores.marks.said(rule)) < sum(mark.bucket not in own for mark in rule.after):
            with suppress(Exception):
                yield from _asked(step, stores, now, looking=True)
        return _forbidden(rule, genuine, stores)

    # If it raises, the marks may be set, and what was reserved counts as spent (38.7). Cancelled,
    # it runs on to its record. If the process dies, they are set, and nothing was allowed.
    answer = yield from _asked(step, stores, now, looking)
    if isinstance(answer, Forbidden):
        return _forbidden(step.rules[answer.rule], genuine, stores)
    return None if answer is None else _short(answer, genuine)


def _asked(
    step: MarkedStep,
    stores: Stores,
    now: int,
    looking: bool,
) -> Steps[object]:
    """What the ledger answers, remembered. Raises what the ledger raises, and StoreError."""
    ask = getattr(_ledger_of(stores), "peek_step" if looking else "step", None)
    if ask is None:
        raise StoreError(
            "the ledger has no methods step and peek_step (captoken.stores.ports), and a token "
            "with marks needs them"
        )
    answer: object = yield Call(partial(ask, step, now), not looking, stores.ledger_loop)
    if isinstance(answer, Forbidden):
        stores.marks.hear(answer.marks)
    if looking:  # a look tells the ledger nothing: it keeps no mark longer for this token (46.5)
        return answer
    if isinstance(answer, Forbidden):
        # Those that were set before. The step's own are not: nothing of it was done.
        before = {one.bucket for one in answer.marks}
        rule = step.rules[answer.rule]
        known = (one for one in rule.after if one.bucket in before)
        stores.marks.remember(known, now)
    elif answer is None:
        stores.marks.remember(step.marks, now)
    return answer


def _forbidden(rule: Rule, genuine: AuthenticatedToken, stores: Stores) -> Refusal:
    """Why a rule closes a step: the marks, and when and by what each was set, if that is known."""
    names = {mark.bucket: mark.name for mark in rule.after}
    known = [
        f"{names[one.bucket]} since {spelled_time(one.at)} by {one.by}"
        for one in stores.marks.said(rule)
    ]
    # First as the link has it: whoever reads a trail finds denials of one rule by that.
    text = f"nothing in {rule.closed} after {' and '.join(mark.name for mark in rule.after)}"
    if known:
        text = f"{text}; {'; '.join(known)}"
    if rule.link is None:
        return Refusal("forbidden_after", text)
    by = genuine.added_by(rule.link)
    return Refusal("forbidden_after", text, rule.link, by, consent_of=rule.unless)


def forbidden_here(
    decision: Decision,
    genuine: AuthenticatedToken,
    facts: Facts,
    asked: Question,
    stores: Stores,
) -> Decision:
    """The decision, or a denial by marks that this process knows to be set. Asks no store."""
    step = marked_step(genuine, facts, asked, narrowing_of(genuine, facts))
    at = None if step is None else stores.marks.forbids(step, facts.now)
    if step is None or at is None:
        return decision
    refusal = _forbidden(step.rules[at], genuine, stores)
    return denial(genuine, facts, asked, (refusal,), 11)


def _too_little(short: Debit) -> str:
    """For people: which allowance has less left than was asked for."""
    if short.amount == 1:
        return f"none of the {short.limit} {short.unit} are left"
    if short.amount > short.limit:
        return f"this needs {short.amount} {short.unit}, and the limit is {short.limit}"
    return f"this needs {short.amount} {short.unit}, and less is left of the {short.limit}"


def left(
    genuine: AuthenticatedToken,
    units: Collection[str],
    stores: Stores,
) -> Steps[dict[str, int]]:
    """What the ledger has left of those units that a budget names: the least of all links.

    Looks, and takes nothing: if a call is cancelled, or the process dies, nothing is lost. What
    cannot be told is 0, so that nobody asks for more on the strength of it.
    """
    found: dict[str, int] = {}
    for bucket in genuine.counting.buckets:
        if bucket.unit not in units:
            continue
        try:
            ask = partial(_ledger_of(stores).spent, bucket.link_id, bucket.unit)
            spent: int = yield Call(ask, store_loop=stores.ledger_loop)
            unspent = max(0, bucket.limit - spent)
        except Exception:  # whatever a store raises, it does not say that there is enough
            unspent = 0
        found[bucket.unit] = min(unspent, found.get(bucket.unit, unspent))
    return found


def _given_back(
    reservation: Reservation,
    stores: Stores,
    now: int,
) -> Steps[None]:
    """Cancel what was reserved for an access that is denied after all (24.20)."""
    # If it raises, or the process dies, the reservation runs out, and all of it counts as spent.
    # Cancelled, it runs on: the denial is recorded after it.
    try:
        yield Call(
            partial(_ledger_of(stores).settle, reservation.id, {}, now),
            lasting=True,
            store_loop=stores.ledger_loop,
        )
    except Exception as error:  # then it counts as spent, which denies too much and allows nothing
        log().warning("a reservation was not given back: %s", type(error).__name__)


def record_one(
    decision: Decision,
    stores: Stores,
    waits_here: bool,
    genuine: AuthenticatedToken | None = None,
    facts: Facts | None = None,
    asked: Question | None = None,
) -> Answer:
    """Record a decision that has nothing to commit: at once, if the thread that calls may wait."""
    trail = stores.trail
    if trail is None:
        return stores.teller.told(decision)
    if waits_here:
        return _record_here(decision, trail, stores, genuine, facts, asked)
    return _record((decision,), stores, genuine, facts, asked)


def _record(
    decisions: Sequence[Decision],
    stores: Stores,
    genuine: AuthenticatedToken | None,
    facts: Facts | None,
    asked: Question | None,
) -> Steps[Decision]:
    """The first of the decisions, once all are in the trail; or a denial.

    Without a genuine token there is a denial to record, and nothing else to deny. An allowance that
    cannot be recorded is none (39.7).
    """
    decisions = stores.teller.numbered(decisions)
    first = decisions[0]
    trail = stores.trail
    if trail is None:
        return _recorded(first, None, stores, genuine, facts, asked)

    # After an effect, nobody cancels before the record: what was taken is written down. If the
    # process dies before that, what was taken has no record, and nothing was allowed.
    lasting = bool(first.effects)
    failure: str | None = None
    try:
        if len(decisions) == 1:
            answer = yield Call(partial(trail.record, first), lasting, stores.trail_loop)
        else:
            answer = yield Call(partial(trail.record_all, decisions), lasting, stores.trail_loop)
        _check_recorded(answer)
    except Exception as error:  # whatever a trail raises, there is no record
        failure = failed(error)
    return _recorded(first, failure, stores, genuine, facts, asked)


def _record_here(
    decision: Decision,
    trail: Recorder,
    stores: Stores,
    genuine: AuthenticatedToken | None,
    facts: Facts | None,
    asked: Question | None,
) -> Decision:
    """The same of one decision, by the thread that calls: its steps would cost more than it."""
    (decision,) = stores.teller.numbered((decision,))
    failure: str | None = None
    try:
        _check_recorded(trail.record(decision))  # type: ignore[func-returns-value]
    except Exception as error:
        failure = failed(error)
    return _recorded(decision, failure, stores, genuine, facts, asked)


def _recorded(
    decision: Decision,
    failure: str | None,
    stores: Stores,
    genuine: AuthenticatedToken | None,
    facts: Facts | None,
    asked: Question | None,
) -> Decision:
    """The decision, once the log has it if it is a denial. `failure` is why it has no record."""
    if failure is not None:
        if decision and genuine is not None and facts is not None and asked is not None:
            refusal = Refusal("store_unavailable", f"the decision cannot be recorded: {failure}")
            denied = denial(genuine, facts, asked, (refusal,), 11, decision.effects)
            return stores.teller.told(denied)

        # A denial stands without its record too: to raise here would say more to a stranger.
        log().error("a denial was not recorded: %s", failure)

    if decision.code != "allowed":
        stores.teller.log(decision)
    return decision


def _check_recorded(answer: Any) -> None:
    """Raise TypeError for what has still to be awaited: nothing is recorded by then.

    A Recorder is called, and not awaited. An `async def record` would else run never, or too late.
    """
    if hasattr(answer, "__await__"):
        drop = getattr(answer, "close", None)
        if callable(drop):
            drop()
        raise TypeError(
            "the recorder returns a coroutine: use an AsyncVerifier, or a recorder that is not "
            "async"
        )


def close(
    reservation_id: bytes,
    taken: Any,
    stores: Stores,
    now: int,
) -> Steps[bool]:
    """Settle a reservation: True if it was open (38.8).

    `taken` is by unit, at most what was reserved; empty gives all of it back, None is all of it
    spent.
    """
    # If it raises, that passes through: the work is done, and whoever did it should hear of it, and
    # may try again. Else the reservation runs out, and all counts as spent. So too if the process
    # dies.
    answer = yield Call(
        partial(_ledger_of(stores).settle, reservation_id, taken, now),
        lasting=True,
        store_loop=stores.ledger_loop,
    )
    return answer is True
