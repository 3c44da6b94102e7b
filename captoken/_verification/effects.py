"""What a decision has to commit to stand: step 11 of the plan, and the record.

The only place that asks a store. What is done here is written once, as generators: each yields a
call that may wait, and is sent what the call gave. `run` makes the calls at once; `run_async` makes
them in threads, and lets nobody cancel between the first effect and its record.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import structs

from captoken._format.errors import StoreError
from captoken._language.reasons import Refusal
from captoken._verification.decision import Asked, Decision, Effect
from captoken._verification.genuine import Genuine
from captoken._verification.plan import Facts, denial, judge
from captoken._verification.wording import PLAN
from captoken.stores.ports import Debit, Ledger, ReplayStore, Reservation, Use

_log = logging.getLogger("captoken")
_PATIENCE = 1  # seconds that effects may take before the rest is judged again
_T = TypeVar("_T")


class Recorder(Protocol):
    """Whatever takes a record of each decision."""

    def record(self, decision: Decision) -> None:
        """Take what was decided.

        What it raises denies: then nothing may stand there that says it was allowed.
        """
        ...

    def record_all(self, decisions: Sequence[Decision]) -> None:
        """Take what was decided on one step: all of it, or none. What it raises denies."""
        ...


class Stores(msgspec.Struct, frozen=True, eq=False):
    """What a verifier counts with, remembers proofs in, and writes its record to."""

    replays: ReplayStore | None = None
    ledger: Ledger | None = None
    trail: Recorder | None = None


# --- calls that may wait -------------------------------------------------------------------------


class Call(NamedTuple):
    """A call that may wait."""

    make: Callable[[], Any]
    lasting: bool = (
        False  # an effect, or what follows on one: not to be cancelled before the record
    )


Steps: TypeAlias = Generator[Call, Any, _T]
Answer: TypeAlias = Steps[Decision] | Decision  # steps to a decision, or one without a wait


def answered(answer: Answer) -> Decision:
    """The decision, its calls made in this thread."""
    return answer if isinstance(answer, Decision) else run(answer)


async def answered_async(answer: Answer) -> Decision:
    """The decision, its calls made in threads."""
    return answer if isinstance(answer, Decision) else await run_async(answer)


def steps_of(answer: Answer) -> Steps[Decision]:
    """Steps to a decision that may be there already."""
    if isinstance(answer, Decision):
        return answer
    return (yield from answer)


def run(steps: Steps[_T]) -> _T:
    """Make the calls, one after the other, in this thread."""
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
        return call.make(), None
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
    """Make the calls in threads, while the event loop goes on.

    From the first lasting call on, whoever cancels is made to wait until the steps have ended: what
    was taken counts, and a record says so. Then the cancellation goes on.
    """
    import asyncio  # here, since the core is for programs without it too

    try:
        call = next(steps)
        while not call.lasting:
            call = _go_on(steps, *await asyncio.to_thread(_made, call))
    except StopIteration as stop:
        result: _T = stop.value
        return result
    rest = asyncio.ensure_future(_to_the_end(steps, call))
    cancelled: asyncio.CancelledError | None = None
    while not rest.done():
        try:
            await asyncio.wait((rest,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        rest.exception()  # it is look at: the cancellation is what the caller gets to see
        raise cancelled
    return rest.result()


async def _to_the_end(steps: Steps[_T], call: Call) -> _T:
    from asyncio import to_thread

    try:
        while True:
            call = _go_on(steps, *await to_thread(_made, call))
    except StopIteration as stop:
        result: _T = stop.value
        return result


# --- step 11 and the record ----------------------------------------------------------------------


def commit(
    decision: Decision,
    genuine: Genuine,
    facts: Facts,
    asked: Asked,
    stores: Stores,
    fetch: Callable[[], Steps[Facts]],
) -> Steps[Decision]:
    """The decision with all that it needs to stand: its effects committed, and itself recorded; or
    a denial.

    `fetch` gives the facts as they are when the effects are committed.
    """
    if decision.effects:
        decision = yield from _committed(decision, genuine, facts, (asked,), stores, fetch)
    return (yield from record((decision,), stores, genuine, facts, asked))


def commit_together(
    decisions: Sequence[Decision],
    genuine: Genuine,
    facts: Facts,
    asked: Sequence[Asked],
    stores: Stores,
    fetch: Callable[[], Steps[Facts]],
) -> Steps[Decision]:
    """The decision on several accesses of one step, whose effects are those of the first.

    `asked` has the question of each.
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
    return (yield from record(decisions, stores, genuine, facts, asked[0]))


def _committed(
    decision: Decision,
    genuine: Genuine,
    facts: Facts,
    asked: Sequence[Asked],
    stores: Stores,
    fetch: Callable[[], Steps[Facts]],
) -> Steps[Decision]:
    """Step 11: the decision, once its effects are committed; or a denial.

    Where that took long, or an overlay came meanwhile, steps 7 to 10 are judged again, for each
    access: a denial then gives the reservation back (spec, "Verification").
    """
    for effect in decision.effects:
        refusal = yield from _taken(effect, genuine, stores, facts.now, looking=False)
        if refusal is not None:
            return denial(genuine, facts, asked[0], (refusal,), 11, decision.effects)
    later = yield from fetch()
    if later.now - facts.now <= _PATIENCE and later.overlay is facts.overlay:
        return decision
    judged = (judge(genuine, later, one) for one in asked)
    second = next((again for again in judged if not again), None)
    if second is None:
        return decision
    for effect in decision.effects:
        if isinstance(effect, Reservation):
            yield from _given_back(effect, stores, later.now)
    return structs.replace(second, effects=decision.effects)


def look(
    decision: Decision,
    genuine: Genuine,
    facts: Facts,
    asked: Asked,
    stores: Stores,
) -> Steps[Decision]:
    """What step 11 would come to, with nothing committed."""
    for effect in decision.effects:
        refusal = yield from _taken(effect, genuine, stores, facts.now, looking=True)
        if refusal is not None:
            return denial(genuine, facts, asked, (refusal,), 11, decision.effects)
    return decision


def _taken(
    effect: Effect,
    genuine: Genuine,
    stores: Stores,
    now: int,
    *,
    looking: bool,
) -> Steps[Refusal | None]:
    """Commit one effect, or look what would come of it: why it cannot be had, or None."""
    try:
        if isinstance(effect, Use):
            return (yield from _used(effect, stores.replays, now, looking))
        return (yield from _reserved(effect, genuine, _ledger_of(stores), now, looking))
    except StoreError as error:
        return Refusal("store_unavailable", str(error))
    except Exception as error:  # whatever a store raises, it does not say that there is enough
        return Refusal("store_unavailable", f"a store raised {type(error).__name__}")


def _used(
    use: Use,
    replays: ReplayStore | None,
    now: int,
    looking: bool,
) -> Steps[Refusal | None]:
    if replays is None:
        raise StoreError("this verifier has no replay store")
    ask = replays.peek if looking else replays.add
    first = yield Call(partial(ask, use, now), lasting=not looking)
    if first is True:
        return None
    text = "the proof was used before, or is older than what the store remembers"
    return Refusal("replayed", text)


def _ledger_of(stores: Stores) -> Ledger:
    if stores.ledger is None:
        raise StoreError("this verifier has no ledger")
    return stores.ledger


def _reserved(
    reservation: Reservation,
    genuine: Genuine,
    ledger: Ledger,
    now: int,
    looking: bool,
) -> Steps[Refusal | None]:
    never = (debit for debit in reservation.debits if debit.amount > debit.limit)
    short: object = next(never, None)
    if short is None:
        ask = ledger.peek if looking else ledger.reserve
        short = yield Call(partial(ask, reservation, now), lasting=not looking)
    if short is None:
        return None
    if not isinstance(short, Debit):
        raise StoreError(f"the ledger answered with a {type(short).__name__}")
    text = f"{short.amount} {short.unit} of {short.limit} are not left"
    return Refusal("budget_exhausted", text, short.link, genuine.added_by(short.link))


def _given_back(
    reservation: Reservation,
    stores: Stores,
    now: int,
) -> Steps[None]:
    """Cancel what was reserved for an access that is denied after all."""
    try:
        yield Call(
            partial(_ledger_of(stores).settle, reservation.id, {}, now),
            lasting=True,
        )
    except Exception as error:  # then it counts as spent, which denies too much and allows nothing
        _log.warning("a reservation was not given back: %s", type(error).__name__)


def record(
    decisions: Sequence[Decision],
    stores: Stores,
    genuine: Genuine | None,
    facts: Facts | None,
    asked: Asked | None,
) -> Steps[Decision]:
    """The first of the decisions, once all are in the trail; or a denial.

    Without a genuine token there is a denial to record, and nothing else to deny.
    """
    first, trail = decisions[0], stores.trail
    if trail is None:
        return first
    lasting = bool(first.effects)
    try:
        if len(decisions) == 1:
            yield Call(partial(trail.record, first), lasting)
        else:
            yield Call(partial(trail.record_all, decisions), lasting)
    except Exception as error:  # whatever a trail raises, there is no record
        kind = type(error).__name__
        if first and genuine is not None and facts is not None and asked is not None:
            refusal = Refusal("store_unavailable", f"the decision cannot be recorded: {kind}")
            return denial(genuine, facts, asked, (refusal,), 11, first.effects)
        _log.error("a denial was not recorded: %s", kind)
    return first


def close(
    reservation_id: bytes,
    taken: Any,
    stores: Stores,
    now: int,
) -> Steps[bool]:
    """Settle a reservation: True if it was open."""
    answer = yield Call(
        partial(_ledger_of(stores).settle, reservation_id, taken, now),
        lasting=True,
    )
    return answer is True
