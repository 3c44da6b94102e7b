"""The stores are what the models of `spec/models` say: taken through the steps of a model's run, they are seen to be as it is.

The runs are SPIN's (`spec/models/traces.py`). Every store goes along with those of a model as it is. With the run by which a
search finds a fault, none does: so the comparison would notice.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from captoken import Access, Decision, Grant, Verifier
from captoken._format.clocks import PROOF_AHEAD, PROOF_PAST
from captoken._language import overlay as overlays
from captoken.control import Entry, Feed, Overlay, Selector
from captoken.errors import StoreError
from captoken.keys import OperatorKey
from captoken.stores._rules import first_replay_floor
from captoken.stores.ports import (
    Debit,
    Forbidden,
    Ledger,
    Mark,
    MarkedStep,
    ReplayStore,
    Reservation,
    Rule,
    SnapshotStore,
    Use,
)
from captoken.testing import FixedClock
from spec.models import spin, traces
from spec.models.traces import MODELS, Run, Step
from tests.fixtures import KEYRING, NOW, mint
from tests.stores.conftest import place
from tests.stores.places import AWAITED, KINDS, close_all


class Apart(AssertionError):
    """A store is seen to be otherwise than the model."""


def same(step: Step, seen: object, modelled: object) -> None:
    if seen != modelled:
        raise Apart(f"{step.line()}: {seen!r}, and by the model {modelled!r}")


RUNS = {model: traces.runs_of(model) for model in MODELS}
FAR = NOW + 10**7


def sound(model: str) -> list[Run]:
    return [run for run in RUNS[model] if run.fault is None]


def for_each_a_store(model: str, kind: str) -> list[Run]:
    """What lies on a disk or on a server takes its time to make: every fifth run is for it."""
    return sound(model)[:: 1 if kind == "memory" else 5]


def faulty(model: str) -> pytest.MarkDecorator:
    runs = [run for run in RUNS[model] if run.fault is not None]
    return pytest.mark.parametrize("run", runs, ids=[run.name for run in runs])


Opened = Callable[[str, int], Any]  # a store of that sort, with that floor: another one each time


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """New stores of one kind, as many as are asked for."""
    folders = (tmp_path / str(number) for number in range(10**6))

    def made(what: str, floor: int) -> Any:
        folder = next(folders)
        folder.mkdir()
        return getattr(place(kind, folder, request), what)(**({} if what == "snapshots" else {"floor": floor}))

    return made


every_kind = pytest.mark.parametrize("kind", KINDS + AWAITED, indirect=True)
kinds_of_snapshots = pytest.mark.parametrize("kind", KINDS, indirect=True)
in_memory = pytest.mark.parametrize("kind", ["memory"], indirect=True)


# --- the ledger: calls that race for a budget -------------------------------------------------------------------------

LIMIT, MOST, PARENT = 3, 2, 2  # as ledger.pml has them


def is_of(run: Run, forgets_at_once: bool) -> bool:
    """May the run be one of a store that forgets what has run out at once; or of one that does so when it likes?

    The one never knows it when it is asked for again. The other may, and does while the run lasts.
    """
    ran_out: set[int] = set()
    forgot: set[int] = set()
    for step in run.steps:
        call = step.numbers[0]
        if step.what == "out":
            ran_out.add(call)
        elif step.what == "forgot":
            forgot.add(call)
        elif step.what == "reserve" and call in (ran_out - forgot if forgets_at_once else forgot):
            return False
    return True


def follow_ledger(run: Run, number: int, ledger: Ledger) -> None:
    """A second a step. A reservation runs out where the model says so, and else later than the run lasts."""
    began = NOW + 1000 * number
    # Buckets and reservations of this run alone.
    buckets = [bytes([bucket]) + number.to_bytes(15, "big") for bucket in range(3)]
    ends = {step.numbers[0]: began + at for at, step in enumerate(run.steps) if step.what == "out"}

    def name(call: int) -> bytes:
        return bytes([16 + call]) + number.to_bytes(15, "big")

    def reserve(call: int, own: int, now: int) -> bool:
        until = ends.get(call, 0)
        debits = tuple(Debit(buckets[bucket], "eur", LIMIT, MOST) for bucket in (PARENT, own))
        asked = Reservation(name(call), debits, NOW, until if until > now else FAR, FAR)
        expected = ledger.peek(asked, now)
        got = ledger.reserve(asked, now)
        assert got == expected, "what was foretold"
        return got is None

    for at, step in enumerate(run.steps):
        now = began + at
        spent = step.numbers[-3:]
        match step.what, step.numbers[:-3]:
            case "reserve", (call, own, enough):
                same(step, reserve(call, own, now), bool(enough))
            case "settle", (call, _, took, was_open):
                same(step, ledger.settle(name(call), {"eur": took}, now), bool(was_open))
            case "out" | "forgot", (_,):
                pass  # by the clock, which has come so far; and by the store itself
            case other:
                raise AssertionError(other)
        same(step, tuple(ledger.spent(bucket, "eur") for bucket in buckets), spent)


@every_kind
def test_a_ledger_goes_along_with_the_model(kind: str, opened: Opened) -> None:
    """PostgreSQL forgets now and then, by the first byte of a reservation's id: of these, never."""
    ledger = opened("ledger", 0)
    runs = [run for run in sound("ledger") if is_of(run, forgets_at_once=kind in ("memory", "sqlite"))]
    assert len(runs) >= 50
    for number, run in enumerate(runs, 1):
        follow_ledger(run, number, ledger)


# --- the ledger: marks that servers set, and what they close ------------------------------------------------------------

PRIVATE, UNTRUSTED, OUTSIDE = range(3)
KINDS_OF_STEPS = ((PRIVATE,), (UNTRUSTED,), (OUTSIDE,), (UNTRUSTED, OUTSIDE))  # as marks.pml numbers them
LEFT = 3  # of the budget, in the model


def follow_marks(run: Run, number: int, ledger: Ledger) -> None:
    """A second a step. Marks, the bucket and reservations are of this run alone."""
    its = number.to_bytes(16, "big")
    marks = [Mark(its + bytes([one]) * 16, FAR, is_of_holder=False) for one in range(3)]
    rule = Rule((marks[PRIVATE], marks[UNTRUSTED]))
    ask = MarkedStep((Mark(its + b"?" * 16, FAR, is_of_holder=False),), (), NOW)

    for at, step in enumerate(run.steps):
        now = NOW + 1000 * number + at
        match step.what, step.numbers[:-4]:
            case "step", (call, kind, answered):
                own = KINDS_OF_STEPS[kind]
                taken = Reservation(bytes([16 + call]) + its[1:], (Debit(its, "eur", LEFT, 1),), NOW, FAR, FAR)
                asked = MarkedStep(tuple(marks[one] for one in own), (rule,) if OUTSIDE in own else (), NOW, reservation=taken)
                expected = ledger.peek_step(asked, now)
                got = ledger.step(asked, now)
                assert got == expected, "what was foretold"
                same(step, 0 if got is None else 1 if isinstance(got, Forbidden) else 2, answered)
            case "died", (_,):
                pass  # it has nothing that the store has not
            case other:
                raise AssertionError(other)
        seen = [ledger.peek_step(structs.replace(ask, rules=(Rule((mark,)),)), now) is not None for mark in marks]
        same(step, (*seen, ledger.spent(its, "eur")), step.numbers[-4:])


@every_kind
def test_marks_are_set_and_close_as_in_the_model(kind: str, opened: Opened) -> None:
    ledger = opened("ledger", 0)
    for number, run in enumerate(for_each_a_store("marks", kind), 1):
        follow_marks(run, number, ledger)


# --- used proofs: one that is sent to slow servers --------------------------------------------------------------------

# The model's clock has few ticks, and the window of its proofs is one tick to each side. Twelve seconds a tick, and a proof
# of second 29, make every comparison of seconds come out as that of ticks does.
TICK, ISSUED = 12, 29


def second(tick: int) -> int:
    return NOW + TICK * tick


def test_ticks_and_seconds_compare_alike() -> None:
    """The model's proof is of tick 3, and its window is one tick to each side."""
    for tick in range(7):
        now = TICK * tick
        too_old, floor_of_a_new_one = now - PROOF_PAST - 1, now + PROOF_AHEAD
        assert (now - PROOF_PAST <= ISSUED <= now + PROOF_AHEAD) is (tick - 1 <= 3 <= tick + 1)
        assert (too_old >= ISSUED) is (tick - 2 >= 3)
        assert (floor_of_a_new_one >= ISSUED) is (tick + 1 >= 3)
        for earlier in range(7):
            assert (too_old > TICK * earlier + PROOF_AHEAD) is (tick - 2 > earlier + 1)


def follow_replay(run: Run, opened: Opened) -> None:
    """A store that lost its memory is a new one, with the floor of such."""
    proof, others = Use(b"p" * 16, NOW + ISSUED), iter(range(100))
    store: ReplayStore = opened("replays", 0)
    for step in run.steps:
        tick = step.numbers[0]
        now = second(tick)
        match step.what:
            case "add":
                expected = store.peek(proof, now)
                first = store.add(proof, now)
                assert first is expected, "what was foretold"
                same(step, first, bool(step.numbers[1]))
            case "other":
                store.add(Use(next(others).to_bytes(16, "big"), now), now)
            case "lost":
                store = opened("replays", first_replay_floor(lambda now=now: now))  # type: ignore[misc]
            case other:
                raise AssertionError(other)
        known, floor = step.numbers[-2:]
        # What it would say now of the proof is all that can be seen.
        same(step, store.peek(proof, now), not known and max(floor, tick - 2) < 3)


@every_kind
def test_used_proofs_are_remembered_as_in_the_model(kind: str, opened: Opened) -> None:
    for run in for_each_a_store("replay", kind):
        follow_replay(run, opened)
        close_all()


# --- the overlay: operators, a store, and a server that follows -------------------------------------------------------

KEY = OperatorKey.from_bytes(bytes(range(3, 35)))
TOKEN = mint()
REVOKES = Entry(at=NOW, by="ops", id="r", select=Selector(token=TOKEN.token_id), why="lost")
ASK = Access(table="sales", operation="select")
BOUND = 1  # as revocation.pml has it


class Signed:
    """All that was signed in a run, by the model's number: whole, opened, and as a delta to what it was built on."""

    def __init__(self) -> None:
        self.whole: dict[int, bytes] = {}
        self.opened: dict[int, Overlay] = {}
        self.delta: dict[int, overlays.MarkedDelta] = {}
        self.sign(1, 0, 1, False)

    def sign(self, one: int, base: int, issued_at: int, revokes: bool) -> None:
        seq = self.opened[base].seq + 1 if base else 1
        # Of another life each, so that no two have the same bytes.
        stated = {"seq": seq, "issued_at": NOW + issued_at, "life": 1000 + one}
        self.whole[one] = overlays.snapshot(KEY, [REVOKES] if revokes else [], **stated)
        self.opened[one] = Overlay.open(self.whole[one], [KEY.public])
        if base:
            added = [REVOKES] if revokes and not self.opened[base].entries else []
            self.delta[one] = overlays.delta(KEY, self.opened[base], drop=[], add=added, **stated)


def follow_publishing(run: Run, store: SnapshotStore, by_delta: bool) -> None:
    """Each snapshot that was signed is put in the place of the one that it was built on, whole or by its delta."""
    signed = Signed()
    assert store.publish(signed.whole[1], None)
    for step in run.steps:
        if step.what != "sign":
            continue
        last, before, issued_at, revokes, done, newest = step.numbers
        signed.sign(last, before, issued_at, bool(revokes))
        published = store.append(*signed.delta[last]) if by_delta else store.publish(signed.whole[last], signed.whole[before])
        same(step, published, bool(done))
        lies = store.load()
        assert lies is not None
        same(step, Overlay.open(lies, [KEY.public]).digest, signed.opened[newest].digest)


@kinds_of_snapshots
@pytest.mark.parametrize("by_delta", [False, True], ids=["whole", "by deltas"])
def test_snapshots_are_published_as_in_the_model(kind: str, opened: Opened, by_delta: bool) -> None:
    for run in for_each_a_store("revocation", kind):
        follow_publishing(run, opened("snapshots", 0), by_delta)
        close_all()


class Replica:
    """A store that a server looks into: it hands out whatever it is told to, or is down."""

    def __init__(self) -> None:
        self.whole: bytes | None = None
        self.deltas: list[bytes] | None = None

    def load(self) -> bytes:
        if self.whole is None:
            raise StoreError("down")
        return self.whole

    def since(self, mark: bytes) -> list[bytes] | None:
        if self.whole is None:
            raise StoreError("down")
        return self.deltas

    def publish(self, snapshot: bytes, after: bytes | None) -> bool:
        raise NotImplementedError

    def append(self, delta: bytes, after: bytes, gives: bytes) -> bool:
        raise NotImplementedError


def follow_server(run: Run) -> None:
    """A feed, and a verifier with a grant: each look and each decision of the model's server."""
    signed, replica, clock = Signed(), Replica(), FixedClock(NOW)
    feed = Feed(replica, [KEY.public], every=0, clock=clock)
    known: list[Overlay | None] = [None]

    def source() -> Overlay | None:
        known[0] = feed()
        return known[0]

    verifier = Verifier(KEYRING, overlay=source, max_staleness=BOUND, clock=clock)
    grant: Grant | None = None
    looks: list[Step] = []

    def decided() -> Decision:
        nonlocal grant
        decision = verifier.check(TOKEN.serialize(), ASK) if grant is None else grant.check(ASK)
        grant = decision.grant or grant
        for look in looks[-1:]:
            has, revoked = look.numbers[-2:]
            overlay = known[0]
            same(look, overlay and overlay.digest, signed.opened[has].digest if has else None)
            same(look, bool(overlay and overlay.entries), bool(revoked))
        replica.whole = replica.deltas = None
        looks.clear()
        return decision

    for step in run.steps:
        match step.what:
            case "sign":
                last, before, issued_at, revokes, *_ = step.numbers
                signed.sign(last, before, issued_at, bool(revokes))
            case "delta":
                replica.deltas = [signed.delta[step.numbers[0]].delta]
                looks.append(step)
            case "whole":
                replica.whole = signed.whole[step.numbers[0]]
                looks.append(step)
            case "decide":
                now, allowed = step.numbers
                clock.now = NOW + now
                same(step, bool(decided()), bool(allowed))
            case other:
                raise AssertionError(other)
    if looks:  # a run that ended before the decision
        decided()


@pytest.fixture
def deltas_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server follows deltas where the overlay is large; these are small."""
    monkeypatch.setattr(overlays, "LARGE", 0)


@pytest.mark.usefixtures("deltas_at_any_size")
def test_a_server_looks_and_decides_as_in_the_model() -> None:
    for run in sound("revocation"):
        follow_server(run)


# --- faults -----------------------------------------------------------------------------------------------------------


@faulty("ledger")
@in_memory
def test_no_ledger_has_the_fault(run: Run, opened: Opened) -> None:
    with pytest.raises(Apart):
        follow_ledger(run, 1, opened("ledger", 0))


@faulty("marks")
@in_memory
def test_no_ledger_has_the_fault_of_marks(run: Run, opened: Opened) -> None:
    with pytest.raises(Apart):
        follow_marks(run, 1, opened("ledger", 0))


@faulty("replay")
@in_memory
def test_no_store_of_proofs_has_the_fault(run: Run, opened: Opened) -> None:
    with pytest.raises(Apart):
        follow_replay(run, opened)


@faulty("revocation")
@in_memory
@pytest.mark.usefixtures("deltas_at_any_size")
def test_no_overlay_has_the_fault(run: Run, opened: Opened) -> None:
    """Either the store that operators publish in, or the feed and the verifier of a server."""
    with pytest.raises(Apart):
        follow_publishing(run, opened("snapshots", 0), by_delta=False)
        follow_server(run)


# --- the runs ---------------------------------------------------------------------------------------------------------


def test_the_runs_meet_all_that_a_step_can_say() -> None:
    """Each step of each model, with each of its answers."""
    said = {
        (run.model, step.what, *(step.numbers[at] for at in ANSWERS.get(step.what, ()))) for model in MODELS for run in sound(model) for step in run.steps
    }
    assert said == {
        ("ledger", "reserve", 0), ("ledger", "reserve", 1), ("ledger", "settle", 0), ("ledger", "settle", 1), ("ledger", "out"),
        ("ledger", "forgot"), ("marks", "step", 0), ("marks", "step", 1), ("marks", "step", 2), ("marks", "died"),
        ("replay", "add", 0), ("replay", "add", 1), ("replay", "other"), ("replay", "lost"),
        ("revocation", "sign", 0), ("revocation", "sign", 1), ("revocation", "delta", 0), ("revocation", "delta", 1),
        ("revocation", "whole"), ("revocation", "decide", 0), ("revocation", "decide", 1),
    }  # fmt: skip


ANSWERS = {"reserve": (2,), "step": (2,), "settle": (3,), "add": (1,), "sign": (4,), "delta": (1,), "decide": (1,)}


def test_there_is_a_run_of_every_fault_of_which_a_step_tells() -> None:
    """Found by each assertion that fails for it."""
    faults = {(claim.model, claim.asks.macro, fault.macro) for claim in spin.CLAIMS if claim.model in MODELS for fault in claim.broken}
    told = {(model, asks, fault) for model, asks, fault in faults if (model, fault) not in traces.UNTOLD}
    assert {(run.model, *run.macros) for model in MODELS for run in RUNS[model] if run.fault} == told
    assert {(model, fault) for model, _, fault in faults} >= traces.UNTOLD
    for model in MODELS:
        drawn = [run for run in RUNS[model] if run.seed]
        assert len({run.steps for run in drawn}) == len(drawn) >= 50
        assert {run.macros for run in sound(model) if not run.seed} == {(one.macro,) for where, one in spin.REACHED if where == model}
