"""Budgets in slices: never more than the limit, few calls of the store, and what is left goes back."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from captoken import Access, Verifier
from captoken.errors import StoreError
from captoken.stores import sliced
from captoken.stores.memory import MemoryLedger
from captoken.stores.ports import LEASE, USES, Debit, Mark, MarkedStep, Once, Reservation
from captoken.stores.sliced import SlicedLedger
from captoken.testing import FixedClock
from tests.fixtures import KEYRING, NOW, clock
from tests.longer import drawing, times
from tests.stores import processes
from tests.stores.conftest import SHARED, Kind
from tests.stores.killing import killed, starts_fresh
from tests.stores.places import Place
from tests.stores.test_ledger import minted

ROOT, CHILD = b"r" * 16, b"c" * 16
ASK = Access(table="sales", operation="select", cost={"usd_cents": 1})


class Asked(MemoryLedger):
    """Counts its calls, and fails where it is told to."""

    def __init__(self) -> None:
        super().__init__(floor=0, shared=True)
        self.calls: Counter[str] = Counter()
        self.fails: set[str] = set()

    def _noted(self, call: str) -> None:
        self.calls[call] += 1
        if call in self.fails:
            raise StoreError("the disk is gone")

    def reserve(self, reservation: Reservation, now: int) -> Debit | None:
        self._noted("reserve")
        return super().reserve(reservation, now)

    def settle(self, reservation_id: bytes, amounts: Any, now: int) -> bool:
        self._noted("settle")
        return super().settle(reservation_id, amounts, now)

    def spent(self, bucket: bytes, unit: str) -> int:
        self._noted("spent")
        return super().spent(bucket, unit)


def debit(amount: int = 1, limit: int = 10_000, bucket: bytes = ROOT, unit: str = "cents") -> Debit:
    return Debit(bucket, unit, limit, amount)


def reservation(*debits: Debit, now: int = NOW, keep: int | None = NOW + 600, seconds: int = LEASE) -> Reservation:
    return Reservation(os.urandom(16), debits or (debit(),), NOW, now + seconds, keep)


@pytest.fixture
def store() -> Asked:
    return Asked()


@pytest.fixture
def ledger(store: Asked) -> Iterator[SlicedLedger]:
    made = SlicedLedger(store, clock=clock())
    yield made
    made.close()


def test_most_reservations_make_no_call(store: Asked, ledger: SlicedLedger) -> None:
    """A thousand of ten thousand: two slices. At the end all of the rest is back."""
    for _ in range(1000):
        assert ledger.reserve(reservation(), NOW) is None
    assert store.calls["reserve"] == 2 and store.calls["spent"] == 2
    assert ledger.spent(ROOT, "cents") == 1000 < store.spent(ROOT, "cents")
    ledger.close()
    assert store.spent(ROOT, "cents") == ledger.spent(ROOT, "cents") == 1000


def test_all_of_a_budget_can_be_had_and_nothing_beyond_it(store: Asked, ledger: SlicedLedger) -> None:
    """The last of it directly: a slice for a few accesses is not worth its calls."""
    got = [ledger.reserve(reservation(debit(limit=500)), NOW) for _ in range(600)]
    assert got == [None] * 500 + [debit(limit=500)] * 100
    assert store.spent(ROOT, "cents") == 500 and store.calls["reserve"] < 250


def test_what_is_settled_for_less_is_there_again(store: Asked, ledger: SlicedLedger) -> None:
    """It goes back into the slice, and once: a second time, or too late, it is not open."""
    made = [reservation(debit(4)) for _ in range(3)]
    assert [ledger.reserve(one, NOW) for one in made] == [None] * 3
    assert ledger.settle(made[0].id, {"cents": 1}, NOW) and not ledger.settle(made[0].id, {"cents": 0}, NOW)
    assert ledger.settle(made[1].id, {}, NOW) and ledger.spent(ROOT, "cents") == 5
    assert not ledger.settle(made[2].id, {}, NOW + LEASE) and not ledger.settle(os.urandom(16), {}, NOW)
    ledger.close()
    assert store.spent(ROOT, "cents") == 5


def test_the_same_reservation_counts_once(store: Asked, ledger: SlicedLedger) -> None:
    one = reservation(debit(7))
    assert [ledger.reserve(one, NOW), ledger.reserve(one, NOW + 1), ledger.peek(one, NOW)] == [None] * 3
    assert ledger.spent(ROOT, "cents") == 7


@pytest.mark.parametrize(
    "one",
    [
        reservation(debit(1, 63)),
        reservation(Debit(ROOT, USES, 1, 1)),
        reservation(debit(200)),
        reservation(seconds=LEASE + 1),
    ],
    ids=["a small limit", "uses=1", "more than a slice is worth", "one that others may repeat"],
)
def test_what_goes_directly(store: Asked, ledger: SlicedLedger, one: Reservation) -> None:
    before = store.calls["reserve"]
    assert ledger.reserve(one, NOW) is None and store.calls["reserve"] == before + 1
    unit, amount = one.debits[0].unit, one.debits[0].amount
    assert store.spent(ROOT, unit) == amount
    assert ledger.settle(one.id, {}, NOW) and store.spent(ROOT, unit) == 0


def test_that_is_how_a_request_that_a_service_does_once_is_reserved() -> None:
    """Two processes that do the same request count it once (38.17): so what they reserve is never out of a slice."""
    token, store = minted(budget={"usd_cents": 1000}), Asked()
    workers = [Verifier(KEYRING, ledger=SlicedLedger(store), clock=clock()) for _ in range(2)]
    for worker in workers:
        worker.authenticate(token).reserve(ASK, once=Once(b"o" * 16, LEASE + 1))
    assert store.calls["reserve"] == 2 and sum(store._spent.values()) == 1
    with pytest.raises(ValueError, match="more than 60 seconds"):
        workers[0].authenticate(token).reserve(ASK, once=Once(b"p" * 16, LEASE))


def test_a_part_that_is_short_gives_back_what_came_out_of_slices(store: Asked, ledger: SlicedLedger) -> None:
    """All buckets or none: one of the two is counted at the store."""
    both = reservation(debit(5), debit(5, 8, CHILD))
    assert ledger.reserve(both, NOW) is None
    assert ledger.reserve(reservation(debit(5), debit(5, 8, CHILD)), NOW) == debit(5, 8, CHILD)
    assert [ledger.spent(ROOT, "cents"), ledger.spent(CHILD, "cents")] == [5, 5]
    assert ledger.settle(both.id, {"cents": 2}, NOW)
    assert [ledger.spent(ROOT, "cents"), ledger.spent(CHILD, "cents")] == [2, 2]


def test_a_store_that_fails_denies_and_nothing_is_lost_here(store: Asked, ledger: SlicedLedger) -> None:
    """Neither with a part at the store, nor where a slice is wanted; what was settled while it was away stays open."""
    both = reservation(debit(5), debit(5, 50, CHILD))
    assert ledger.reserve(both, NOW) is None
    store.fails = {"reserve", "settle"}
    for asked in (reservation(debit(5), debit(5, 50, CHILD)), reservation(debit(1, unit="eur"))):
        with pytest.raises(StoreError, match="the disk is gone"):
            ledger.reserve(asked, NOW)
    with pytest.raises(StoreError, match="the disk is gone"):
        ledger.settle(both.id, {}, NOW)
    assert ledger.spent(ROOT, "cents") == 5
    store.fails = set()
    assert ledger.settle(both.id, {}, NOW) and [ledger.spent(ROOT, "cents"), ledger.spent(CHILD, "cents")] == [0, 0]
    with pytest.raises(StoreError, match="must not be negative"):
        ledger.reserve(reservation(debit(-1)), NOW)


def test_a_slice_that_cannot_be_given_back_counts_as_spent_and_is_told(
    store: Asked, ledger: SlicedLedger, caplog: pytest.LogCaptureFixture
) -> None:
    assert ledger.reserve(reservation(), NOW) is None
    store.fails = {"settle"}
    with caplog.at_level(logging.WARNING, "captoken"):
        ledger.close()
    assert caplog.messages == ["a slice was not given back, and 624 cents count as spent: StoreError"]
    assert ledger.spent(ROOT, "cents") == 625


def test_other_terms_go_directly(store: Asked, ledger: SlicedLedger) -> None:
    """A token that lives longer has to be known to the store for longer."""
    assert ledger.reserve(reservation(), NOW) is None
    longer = reservation(keep=NOW + 6000)
    assert ledger.reserve(longer, NOW) is None and store.calls["reserve"] == 2
    assert ledger.settle(longer.id, {}, NOW) and ledger.spent(ROOT, "cents") == 1
    # What is looked at goes the same way: the ledger has less left than the slice.
    assert store.reserve(reservation(debit(9_375)), NOW) is None and ledger.peek(reservation(), NOW) is None
    for elsewhere in (reservation(keep=NOW + 6000), reservation(seconds=LEASE + 1)):
        assert ledger.peek(elsewhere, NOW) == ledger.reserve(elsewhere, NOW) == debit()


def test_a_slice_ends(store: Asked, ledger: SlicedLedger) -> None:
    """At its time; later if something out of it is open, by its life at most; and what is settled then, counts whole."""
    one, two = reservation(debit(3)), reservation(debit(4))
    assert ledger.reserve(one, NOW) is None and ledger.reserve(two, NOW) is None
    assert ledger.reserve(reservation(debit(1, bucket=CHILD)), NOW + 10) is None
    assert store.spent(ROOT, "cents") == 625
    assert ledger.settle(one.id, {}, NOW + 11) and store.spent(ROOT, "cents") == 625
    assert ledger.reserve(reservation(debit(1, bucket=CHILD)), NOW + 20) is None
    assert store.spent(ROOT, "cents") == 4
    assert ledger.settle(two.id, {}, NOW + 21) and store.spent(ROOT, "cents") == 4

    three = reservation(now=NOW + 21)
    assert ledger.reserve(three, NOW + 21) is None
    assert ledger.reserve(reservation(debit(1, bucket=CHILD), now=NOW + 31), NOW + 31) is None
    assert ledger.settle(three.id, {}, NOW + 32) and store.spent(ROOT, "cents") == 4


def test_what_is_never_settled_is_forgotten(store: Asked, ledger: SlicedLedger) -> None:
    """It counts as spent, and keeps no slice."""
    lost = reservation(debit(2))
    assert ledger.reserve(lost, NOW) is None
    for at in (NOW + 25, NOW + LEASE):
        assert ledger.reserve(reservation(debit(1, bucket=CHILD), now=at), at) is None
    assert store.spent(ROOT, "cents") == 2 and not ledger.settle(lost.id, {}, NOW + LEASE) and lost.id not in ledger._known


def test_a_process_that_idles_gives_its_slices_back(monkeypatch: pytest.MonkeyPatch, store: Asked) -> None:
    """A timer looks again, and only while there is something to give back."""
    started: list[Any] = []

    class Later:
        def __init__(self, seconds: float, call: Any) -> None:
            self.seconds, self.call = seconds, call

        def start(self) -> None:
            started.append(self)

        def cancel(self) -> None:
            started.remove(self)

    monkeypatch.setattr(sliced, "Timer", Later)
    at = clock()
    ledger = SlicedLedger(store, clock=at)
    assert ledger.reserve(reservation(), NOW) is None and ledger.reserve(reservation(debit(bucket=CHILD)), NOW) is None
    assert len(started) == 1 and started[0].seconds > 10
    at.now = NOW + 5
    started.pop().call()
    assert len(started) == 1 and store.spent(ROOT, "cents") == 625
    at.now = NOW + 25
    started.pop().call()
    assert not started and store.spent(ROOT, "cents") == store.spent(CHILD, "cents") == 1
    assert ledger.reserve(reservation(now=NOW + 26), NOW + 26) is None and len(started) == 1
    ledger.close()
    assert not started


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_that_is_forked_has_no_slices(store: Asked, ledger: SlicedLedger) -> None:
    """They are its parent's, which goes on with them."""
    one = reservation()
    assert ledger.reserve(one, NOW) is None
    child = os.fork()
    if child == 0:
        os._exit(0 if not ledger._slices and not ledger._known else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ledger.settle(one.id, {}, NOW)


def test_somebody_else_may_have_been_quicker(monkeypatch: pytest.MonkeyPatch, store: Asked, ledger: SlicedLedger) -> None:
    """Between the look at what is left, and the slice: then it goes directly, and is refused if there is nothing."""
    monkeypatch.setattr(store, "spent", lambda bucket, unit: 0)
    assert store.reserve(reservation(debit(9_999)), NOW) is None
    assert ledger.reserve(reservation(), NOW) is None and not ledger._slices
    assert ledger.reserve(reservation(), NOW) == debit()


def test_a_timer_that_is_late_finds_nothing_to_do(store: Asked, ledger: SlicedLedger) -> None:
    assert ledger.reserve(reservation(), NOW) is None
    ledger._wake()
    ledger.close()
    ledger.close()


def test_marks_and_looks_are_the_stores(store: Asked, ledger: SlicedLedger) -> None:
    mark = Mark(b"m" * 32, None, False)
    one = reservation(debit(3))
    assert ledger.peek_step(MarkedStep((mark,), (), NOW, reservation=one), NOW) is None
    assert ledger.step(MarkedStep((mark,), (), NOW, reservation=one), NOW) is None
    assert store.spent(ROOT, "cents") == 3 and ledger.settle(one.id, {}, NOW)
    assert ledger.peek(reservation(), NOW) is None and not ledger._slices
    assert ledger.reserve(reservation(), NOW) is None
    assert ledger.peek(reservation(debit(600)), NOW) is None and ledger.peek(reservation(debit(10_000)), NOW) == debit(10_000)


@pytest.mark.parametrize("wrong", [{"share": 0}, {"share": 0.6}, {"share": "1"}, {"life": 0}, {"life": 16}, {"life": 1.5}])
def test_bounds(store: Asked, wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        SlicedLedger(store, **wrong)


def test_one_whose_calls_are_awaited_is_refused() -> None:
    class Awaited:
        awaited, shared = True, True

    with pytest.raises(ValueError, match="not awaited"):
        SlicedLedger(Awaited())  # type: ignore[arg-type]


def test_a_limit_holds_whatever_is_drawn() -> None:
    """Four processes on two budgets, which reserve, settle, idle, close and die: what they got is never more than the limit. And once all
    have closed, what the store says is spent is what they got, and what the dead had."""
    draw = drawing("slices")
    for _ in range(times(60)):
        store, limits = Asked(), {ROOT: draw.choice((10, 64, 100, 1000)), CHILD: draw.choice((64, 300))}
        ledgers = [SlicedLedger(store, share=draw.choice((1 / 2, 1 / 16)), life=draw.randint(1, 15), clock=clock()) for _ in range(4)]
        got: Counter[bytes] = Counter()
        is_open: list[tuple[SlicedLedger, Reservation]] = []
        now, dead = NOW, False
        for _ in range(300):
            ledger, act = draw.choice(ledgers), draw.random()
            if act < 0.7:
                buckets = draw.choice(((ROOT,), (CHILD,), (ROOT, CHILD)))
                one = reservation(*(debit(draw.randint(0, 4), limits[bucket], bucket) for bucket in buckets), now=now)
                if ledger.reserve(one, now) is None:
                    is_open.append((ledger, one))
                    got.update({each.bucket: each.amount for each in one.debits})
            elif act < 0.85 and is_open:
                ledger, one = is_open.pop(draw.randrange(len(is_open)))
                taken = draw.randint(0, 4)
                if ledger.settle(one.id, {"cents": taken}, now):
                    got.subtract({each.bucket: each.back({"cents": taken}) for each in one.debits})
            elif act < 0.95:
                now += draw.choice((1, 1, 5, 30))
            elif act < 0.97:
                ledger.close()
            elif len(ledgers) > 1:  # killed: nobody hears of it again
                ledgers.remove(ledger)
                is_open, dead = [(of, one) for of, one in is_open if of is not ledger], True
                ledger._slices.clear(), ledger._ending.clear()
            for bucket, limit in limits.items():
                assert store.spent(bucket, "cents") <= limit
        for ledger in ledgers:
            ledger._clock = FixedClock(now)
            ledger.close()
        for bucket in limits:
            # What went back after its slice had ended counts as spent as well.
            assert got[bucket] <= store.spent(bucket, "cents")
            assert dead or store.spent(bucket, "cents") - got[bucket] <= 4 * 300


@pytest.fixture(scope="module")
def four() -> Iterator[ProcessPoolExecutor]:
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(4, fresh, processes.together, (fresh.Barrier(4),)) as pool:
        yield pool


@pytest.mark.parametrize("shared_kind", SHARED, indirect=True)
def test_64_agents_in_four_processes_use_up_a_budget(four: ProcessPoolExecutor, shared_kind: Kind) -> None:
    """Never more than all of it, and nearly all: what one process holds while another is refused comes back within its life."""
    limit = 20_000
    ledger = shared_kind.place.ledger(floor=0)
    got = sum(one.result(timeout=120) for one in [four.submit(processes.spend_slices, shared_kind.place, limit, who) for who in range(4)])
    assert 0.98 * limit <= got <= ledger.spent(b"b" * 16, "cents") <= limit


def test_whoever_is_killed_has_spent_its_slices(tmp_path: Path) -> None:
    """Wherever it was: the store says at least what it got, and never more than the limit."""
    place, limit = Place("sqlite", str(tmp_path / "stores.db")), 5_000
    ledger, fresh, got = place.ledger(floor=0), starts_fresh("tests.stores.processes"), 0
    rng = random.Random(7)
    for _ in range(times(4)):
        got += killed(fresh, processes.spend_until_killed, rng.randint(1, 300), place, limit)[-1]
        assert got <= ledger.spent(b"b" * 16, "cents") <= limit
        if ledger.spent(b"b" * 16, "cents") > limit - 700:
            break
