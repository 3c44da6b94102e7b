"""The store in memory: its own process, its size, and nothing kept longer than it has to be. What it shares with the other
stores is in the suite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import sleep

import pytest

from captoken._format.clocks import PROOF_AHEAD, PROOF_PAST
from captoken.errors import StoreError
from captoken.stores.memory import MemoryReplayStore, MemorySnapshots
from captoken.stores.ports import Use
from tests.fixtures import NOW


def use(number: int, at: int = NOW) -> Use:
    return Use(number.to_bytes(16, "big"), at)


def test_it_forgets_what_is_too_old_and_nothing_else() -> None:
    """Its size is the uses of the last half minute."""
    store = MemoryReplayStore(floor=0)
    for second in range(200):
        assert store.add(use(second, NOW + second), NOW + second)
        assert len(store) == min(second + 1, PROOF_PAST + 1)
    assert len(store._proofs._by_second) == PROOF_PAST + 1
    assert store.add(use(1000, NOW + 10**6), NOW + 10**6) and len(store) == 1 == len(store._proofs._by_second)


def test_what_it_refuses_takes_no_room() -> None:
    """A replay, what is too old, and what does not fit leave nothing behind."""
    store = MemoryReplayStore(floor=NOW - 5, limit=2)
    assert store.add(use(1), NOW) and not store.add(use(1), NOW) and not store.add(use(2, NOW - 5), NOW)
    assert store.add(use(3), NOW)
    with pytest.raises(StoreError, match="there is no room for more"):
        store.add(use(4), NOW)
    assert len(store) == 2


def test_the_floor_of_a_new_one_is_the_real_clock_and_five_seconds() -> None:
    """Without another clock, and without a floor said aloud, it refuses what was issued before it was made."""
    store = MemoryReplayStore()
    assert store.add(use(1, 0), NOW) is False and store.add(use(1, NOW), NOW) is False
    made = store._proofs._floor - PROOF_AHEAD
    assert store.add(use(1, made + PROOF_AHEAD), made) is False and store.add(use(1, made + PROOF_AHEAD + 1), made + 1) is True


def test_a_hundred_thousand_uses_fit_and_the_next_does_not() -> None:
    """A million is the bound unless another is given; the bound is exact."""
    store = MemoryReplayStore(floor=0, limit=100_000)
    assert all(store.add(use(number, NOW + number % 7), NOW) for number in range(100_000))
    with pytest.raises(StoreError):
        store.add(use(100_000), NOW)
    assert len(store) == 100_000 and MemoryReplayStore()._proofs._limit == 1_000_000


class Slow(set[bytes]):
    """A set that lets every other thread go first between looking and adding."""

    def __contains__(self, entry: object) -> bool:
        known = super().__contains__(entry)
        sleep(0.001)
        return known


def test_to_look_and_to_add_is_one_step() -> None:
    """Twenty rounds of eight threads, each of which is held up after it has looked: one is the first all the same."""
    store, gate = MemoryReplayStore(floor=0), Barrier(8)
    store._proofs._known = Slow()

    def run(_: int) -> list[bool]:
        got = []
        for number in range(20):
            gate.wait(60)
            got.append(store.add(use(number), NOW))
        return got

    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(run, range(8)))
    assert [sum(column) for column in zip(*rows, strict=True)] == [1] * 20 and len(store) == 20


def test_another_process_is_told_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each use is asked from which process it comes."""
    store = MemoryReplayStore(floor=0)
    assert store.add(use(1), NOW)
    with monkeypatch.context() as patch, pytest.raises(StoreError, match="another process"):
        patch.setattr("os.getpid", lambda: -1)
        store.add(use(2), NOW)
    assert store.add(use(2), NOW), "and it took nothing"


FORKED = """
import os
from captoken.errors import StoreError
from captoken.stores.memory import MemoryReplayStore, MemorySnapshots
from captoken.stores.ports import Use
store = MemoryReplayStore(floor=0)
assert store.add(Use(b"a" * 16, 100), 100)
store._lock.acquire()  # as another thread of the parent's might hold it at that moment
child = os.fork()
if child == 0:
    try:
        store.add(Use(b"b" * 16, 100), 100)
    except StoreError as error:
        print("refused:", error, flush=True)
        os._exit(0)
    os._exit(1)
assert os.waitpid(child, 0)[1] == 0
store._lock.release()
assert store.add(Use(b"b" * 16, 100), 100) and not store.add(Use(b"a" * 16, 100), 100)
print("parent goes on")
"""


def test_a_forked_child_is_refused_and_does_not_wait() -> None:
    """What the child would remember the parent would not know; a lock that is held at the fork is not waited for."""
    ran = subprocess.run([sys.executable, "-W", "error", "-c", FORKED], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "refused: this store in memory belongs to another process: use a file to share one",
        "parent goes on",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_waits_for_whoever_publishes() -> None:
    """A child has a lock that is free, and all of the snapshot or nothing of it."""
    snapshots, done = MemorySnapshots(), threading.Event()

    def publish() -> None:
        while not done.is_set():
            assert snapshots.publish(b"newer", snapshots.load())

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        for _ in range(30):
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                os._exit(0 if snapshots.load() in (None, b"newer") and snapshots.publish(b"mine", snapshots.load()) else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        done.set()
        thread.join()
    assert snapshots.load() == b"newer"
