"""A feed: when it looks at its store, what it lives on between, and what it never takes."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from captoken.control import Feed, Operator, Overlay, Selector
from captoken.errors import OverlayError, StoreError
from captoken.stores.memory import MemorySnapshots
from tests.fixtures import NOW, clock, mint, verifier
from tests.test_overlay import KEY, OTHER, SELECT, Store, World, entry, feed, made


def test_a_feed_looks_at_the_store_every_so_often() -> None:
    """Within `every` seconds it is not asked again, at that second it is; a clock that goes back makes it look."""
    store, now, source = feed(made(seq=1))
    first = source()
    assert first is not None and (first.seq, store.asked) == (1, 1) and source.problem is None
    store.put(made(seq=2))
    for second, asked, seq in (
        (1, 1, 1),
        (4, 1, 1),
        (5, 2, 2),
        (6, 2, 2),
        (9, 2, 2),
        (10, 3, 2),
        (3, 4, 2),
        (4, 4, 2),
        (8, 5, 2),
    ):
        now.now = NOW + second
        found = source()
        assert found is not None and (found.seq, store.asked) == (seq, asked), second


def test_a_feed_looks_after_a_part_of_a_second_too() -> None:
    """So what is revoked is refused half a second later, and not when the next second begins."""
    store, now, source = feed(made(seq=1), every=0.5)
    source()
    for fraction, asked in ((0.25, 1), (0.49, 1), (0.5, 2), (0.99, 2), (1.0, 3), (1.25, 3)):
        now.now = NOW + fraction  # type: ignore[assignment]
        source()
        assert store.asked == asked, fraction


def test_a_feed_does_not_read_the_same_snapshot_twice() -> None:
    """As long as the bytes are the same it is the same object; `every=0` looks each time."""
    store, _, source = feed(made(seq=1), every=0)
    first = source()
    assert source() is first and source() is first and source.refresh() is first and store.asked == 4
    store.put(made(seq=2))
    second = source()
    assert second is not first and second is not None and second.seq == 2


def test_refresh_looks_now_and_says_what_is_wrong() -> None:
    """Within `every` seconds too; its error is the store's, or OverlayError."""
    store, _, source = feed()
    with pytest.raises(OverlayError, match="no snapshot yet"):
        source.refresh()
    store.put(made(seq=1))
    assert source.refresh().seq == 1
    store.put(made(seq=2))
    found = source()
    assert found is not None
    assert source.refresh().seq == 2
    store.fault = OSError("down")
    with pytest.raises(OSError, match="down"):
        source.refresh()
    found = source()
    assert found is not None and found.seq == 2


def test_a_refresh_counts_as_a_look() -> None:
    """What was wrong before is forgotten, and the store is asked again only when `every` seconds have passed since."""
    store, now, source = feed()
    assert source() is None and source.problem is not None
    store.put(made(seq=1))
    now.advance(4)
    assert source.refresh().seq == 1 and source.problem is None
    store.put(made(seq=2))
    for second, seq in ((5, 1), (8, 1), (9, 2)):
        now.now = NOW + second
        found = source()
        assert found is not None and found.seq == seq


@pytest.mark.parametrize(
    "back",
    [
        made(seq=4),
        made(seq=1),
        made(seq=4, issued_at=NOW + 50),
        made(seq=5, issued_at=NOW + 1),
        made(entry(Selector(agent="a")), seq=5),
        made(seq=0),
        made(seq=-5),
    ],
    ids=lambda stored: repr(stored[-12:]),
)
def test_a_feed_never_goes_back(back: bytes) -> None:
    """An older number, or the same number with other content: refused, and what is known stays; a newer one is taken."""
    token = mint()
    good = made(entry(Selector(token=token.token_id)), seq=5)
    store, now, source = feed(good)
    assert source.refresh().seq == 5
    store.put(back)
    with pytest.raises(OverlayError, match="not newer than 5"):
        source.refresh()
    now.advance(5)
    found = source()
    assert found is not None and len(found.entries) == 1 and isinstance(source.problem, OverlayError)
    assert verifier(overlay=source, clock=now).check(token.serialize(), SELECT).code == "revoked"
    store.put(good)
    now.advance(5)
    assert source() is found and source.problem is None
    store.put(made(seq=6, issued_at=NOW - 5))
    assert source.refresh().seq == 6


FAULTS: list[Any] = [
    OSError("down"),
    StoreError("locked"),
    RuntimeError("x"),
    made(seq=9, key=OTHER),
    b"",
    made(seq=9)[:-1],
    made(seq=1),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: repr(fault)[:24])
def test_a_feed_lives_on_what_it_has_until_that_is_stale(fault: Any) -> None:
    """A store that fails or lies: what is known is used to the last second of the bound, then all is denied; with a good
    snapshot all is well again."""
    store, now, source = feed(made(seq=5))
    server = verifier(overlay=source, clock=now)
    token = mint().serialize()
    assert server.check(token, SELECT).code == "allowed"
    if isinstance(fault, Exception):
        store.fault = fault
    else:
        store.put(fault)
    for second in range(1, 62):
        now.now = NOW + second
        assert server.check(token, SELECT).code == ("allowed" if second <= 60 else "stale_overlay")
    assert source.problem is fault or isinstance(source.problem, OverlayError)
    store.fault = None
    store.put(made(seq=6, issued_at=NOW + 61))
    now.advance(5)
    assert server.check(token, SELECT).code == "allowed" and source.problem is None


def test_a_feed_that_never_saw_one_gives_none() -> None:
    """And looks again when it is due, so that the first snapshot is found."""
    store, now, source = feed()
    assert source() is None and isinstance(source.problem, OverlayError)
    assert source() is None and store.asked == 1
    assert verifier(overlay=source, clock=now).check(mint().serialize(), SELECT).code == "stale_overlay"
    store.put(made(seq=1))
    now.advance(5)
    assert source() is not None and source.problem is None


def test_a_clock_that_cannot_be_read_is_no_allowance() -> None:
    def broken() -> float:
        raise OSError("no clock")

    _, _, source = feed(made(), clock=broken)
    assert verifier(overlay=source).check(mint().serialize(), SELECT).code == "store_unavailable"


def test_an_interrupt_leaves_a_feed_usable() -> None:
    """It passes through, and the next one looks: no lock is held."""
    store, now, source = feed(made())
    store.fault = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        source()
    store.fault = None
    now.advance(5)
    assert source() is not None and source.refresh() is not None


class Slow(Store):
    """A store in which a look takes as long as the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.go = threading.Event(), threading.Event()
        self.go.set()

    def load(self) -> bytes | None:
        found = super().load()
        self.entered.set()
        assert self.go.wait(30)
        return found


def test_one_looks_and_the_others_take_what_there_is() -> None:
    """While a look hangs, others are given the overlay that is known, without waiting; none known, they wait for it."""
    store, now = Slow(), clock()
    store.put(made(seq=1))
    source = Feed(store, [KEY.public], clock=now)
    first = source()
    store.put(made(seq=2))
    now.advance(5)
    store.entered.clear()
    store.go.clear()
    told: list[Overlay | None] = []
    looking = threading.Thread(target=lambda: told.append(source()))
    looking.start()
    assert store.entered.wait(30)
    now.advance(5)
    assert [source() for _ in range(5)] == [first] * 5
    store.go.set()
    looking.join()
    assert [overlay and overlay.seq for overlay in told] == [2]

    fresh, told = Feed(store, [KEY.public], clock=now), []
    store.entered.clear()
    store.go.clear()
    waiting = [threading.Thread(target=lambda: told.append(fresh())) for _ in range(4)]
    waiting[0].start()
    assert store.entered.wait(30)
    now.advance(5)
    for thread in waiting[1:]:
        thread.start()
    store.go.set()
    for thread in waiting:
        thread.join()
    assert [overlay and overlay.seq for overlay in told] == [2] * 4


def at_once(store: Slow, ask: Callable[[], Any], count: int, *, hangs: bool = False) -> list[Any]:
    """What that many threads are told that ask while the first of them looks; in the order in which they are told."""
    store.entered.clear()
    store.go.clear()
    told: list[Any] = []
    threads = [threading.Thread(target=lambda: told.append(ask())) for _ in range(count)]
    threads[0].start()
    assert store.entered.wait(30)
    for thread in threads[1:]:
        thread.start()
    for thread in threads[1:]:
        thread.join(30 if hangs else 0.3 / count)  # hung, until the others went without
    store.go.set()
    for thread in threads:
        thread.join()
    return told


@pytest.mark.parametrize("every", [0, 5, 3600])
def test_all_wait_for_whoever_loads_the_first_overlay(every: int) -> None:
    """Sixteen threads at a server that has just begun, while the store takes its time: all are allowed, whatever the second."""
    store, now = Slow(), clock()
    store.put(made(seq=1))
    server = verifier(overlay=Feed(store, [KEY.public], every=every, clock=now), clock=now)
    codes = at_once(store, lambda: server.check(mint().serialize(), SELECT).code, 16)
    assert codes == ["allowed"] * 16
    assert store.asked == (1 if every else 16)


def test_whoever_waits_for_the_first_overlay_waits_so_long_and_no_longer() -> None:
    """The store hangs: the others are denied after the bound, and the one that looks is not held up."""
    store, now = Slow(), clock()
    store.put(made(seq=1))
    source = Feed(store, [KEY.public], timeout=0.05, clock=now)
    begun = monotonic()
    told = at_once(store, source, 4, hangs=True)
    assert 0.05 <= monotonic() - begun < 20
    assert [overlay and overlay.seq for overlay in told] == [None, None, None, 1]


def test_a_first_look_that_fails_is_not_made_by_each_of_those_who_waited() -> None:
    """One asks the store, and all go without; when it is due, the next one asks."""
    store, now = Slow(), clock()
    source = Feed(store, [KEY.public], clock=now)
    told = at_once(store, source, 8)
    assert told == [None] * 8 and store.asked == 1
    store.put(made(seq=1))
    assert source() is None
    now.advance(5)
    assert source() is not None and store.asked == 2


def test_a_feed_in_many_threads_never_goes_back() -> None:
    """Eight threads ask while an operator publishes 100 snapshots: what each is given only ever grows."""
    store = MemorySnapshots()
    operator = Operator(KEY, store, by="ops", clock=clock())
    operator.renew()
    source, over = Feed(store, [KEY.public], every=0, clock=clock()), threading.Event()
    rows: list[list[int]] = [[] for _ in range(8)]

    def run(row: list[int]) -> None:
        while not over.is_set():
            found = source() if len(row) % 2 else source.refresh()
            row.append(found.seq if found is not None else 0)

    threads = [threading.Thread(target=run, args=(row,)) for row in rows]
    for thread in threads:
        thread.start()
    for _ in range(100):
        operator.renew()
    over.set()
    for thread in threads:
        thread.join()
    assert all(row == sorted(row) and row for row in rows)
    assert source.refresh().seq == 101


def test_what_a_feed_comes_upon_is_logged_once_each_time_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "captoken")
    world = World()
    feed = Feed(world.store, [KEY.public], every=0, clock=world.now)
    good = world.store.load()
    for stored in (good, None, None, b"x\x1b", good, good):
        world.store._snapshot = stored
        feed()
    assert [record.getMessage() for record in caplog.records] == [
        "the overlay: there is no snapshot yet: the operator has to publish one (renew)",
        "the overlay: the snapshot is not signed by an operator that this server trusts",
        "the overlay: can be had again",
    ]
    world.store._snapshot = None
    with pytest.raises(OverlayError):
        feed.refresh()
    assert isinstance(feed.problem, OverlayError)


def test_a_child_process_looks_although_its_parent_was_looking_when_it_was_made() -> None:
    """The lock that a thread of the parent holds is nobody's in the child; and so is an operator's."""
    world = World()
    feed = Feed(world.store, [KEY.public], every=0, clock=world.now)
    feed()
    with feed._lock.held(), world.operator._history._lock.held():
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            world.operator.revoke(agent="a", why="x")
            os._exit(0 if feed() is not None and len(feed().entries) == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with feed._lock.held(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 0)  # as the child is told
        assert feed() is not None


def test_every_0_waits_for_whoever_looks() -> None:
    """A check that begins after `revoke` returned is never allowed, though another thread's look hangs."""
    world, entered, go_on = World(), threading.Event(), threading.Event()

    class Slow(MemorySnapshots):
        def load(self) -> bytes | None:
            found = super().load()
            if threading.current_thread().name == "slow":
                entered.set()
                go_on.wait(20)
            return found

    store = Slow()
    operator = Operator(KEY, store, by="ops", clock=world.now)
    operator.renew()
    server = verifier(overlay=Feed(store, [KEY.public], every=0, clock=world.now))
    assert server.check(mint(), SELECT)
    slow = threading.Thread(target=lambda: server.check(mint(), SELECT), name="slow")
    slow.start()
    assert entered.wait(20)
    operator.end_task("task-123")
    codes: list[str] = []
    late = threading.Thread(target=lambda: codes.append(server.check(mint(), SELECT).code))
    late.start()
    go_on.set()
    slow.join()
    late.join()
    assert codes == ["revoked"]
