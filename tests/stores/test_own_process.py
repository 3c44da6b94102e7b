"""Who is told of a fork, and when: what holds a connection, for as long as something refers to it."""

from __future__ import annotations

import gc
import os
import re
import runpy
import signal
import subprocess
import sys
import weakref
from contextlib import suppress
from pathlib import Path

import pytest

from captoken.errors import StoreError
from captoken.stores import own_process
from captoken.stores.own_process import OwnProcess, tell_of_forks
from captoken.stores.ports import Use
from captoken.stores.sqlite import SQLiteReplayStore
from tests.stores.begun import begun


class Holder:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def listen(self, *moments: str) -> Holder:
        tell_of_forks(self, **{moment: lambda holder, moment=moment: holder.told.append(moment) for moment in moments})
        return self


def forked(*holders: Holder) -> list[list[str]]:
    """What each holder was told in a child, which ends at once."""
    hear, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(tell, "/".join(" ".join(holder.told) for holder in holders).encode())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    said = os.read(hear, 1000).decode()
    os.close(hear), os.close(tell)
    return [each.split() for each in said.split("/")]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_each_side_of_a_fork_is_told_what_it_asked_for() -> None:
    """Before it in the parent, after it on both sides; each holder what it listens to, at each fork."""
    every, child_alone = Holder().listen("before", "in_parent", "in_child"), Holder().listen("in_child")
    assert forked(every, child_alone) == [["before", "in_child"], ["in_child"]]
    assert (every.told, child_alone.told) == (["before", "in_parent"], [])
    assert forked(every, child_alone) == [["before", "in_parent", "before", "in_child"], ["in_child"]]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_to_be_told_keeps_nothing_alive() -> None:
    told: list[str] = []
    gone, kept = Holder(), Holder().listen("before")
    tell_of_forks(gone, before=lambda holder: told.append("gone"))
    seen = weakref.ref(gone)
    del gone
    gc.collect()
    assert seen() is None
    forked(kept)
    assert (told, kept.told) == ([], ["before"])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_copy_in_a_child_is_not_its_own() -> None:
    own, seen = OwnProcess(), Holder()
    tell_of_forks(seen, in_child=lambda holder: holder.told.append(str(own.is_own())))
    assert forked(seen) == [["False"]] and own.is_own()


def test_a_system_that_does_not_fork_has_nothing_to_tell_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the module is there as well, and a holder may ask to be told."""
    monkeypatch.delattr(os, "register_at_fork")
    made = runpy.run_path(own_process.__file__)
    made["tell_of_forks"](Holder(), before=lambda holder: None)
    assert made["OwnProcess"]().is_own()


def test_a_hook_that_raises_takes_the_fork_from_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python prints what it raised. The others are told, before and after, and the next fork does not wait."""
    printed: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: printed.append(told.exc_type))
    first, raising, last = Holder().listen("before", "in_parent"), Holder(), Holder().listen("before", "in_parent")

    def interrupt(holder: Holder) -> None:
        if len(printed) < 2:
            raise KeyboardInterrupt

    tell_of_forks(raising, before=interrupt)
    forked(first, last)
    forked(first, last)
    assert first.told == last.told == ["before", "in_parent"] * 2 and printed == [KeyboardInterrupt] * 2


def test_a_fork_that_begins_in_no_hook_gives_back_what_no_other_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own hook was interrupted before it took anything: the end of it tells nobody, and lets go of no other fork."""
    holder = Holder().listen("before", "in_parent")
    own_process._in_parent()
    assert holder.told == []
    own_process._before()
    assert holder.told == ["before"]
    own_process._in_parent()
    own_process._in_parent()
    assert holder.told == ["before", "in_parent"]


AGAIN = """
import os
from captoken.errors import StoreError
from captoken.stores import own_process
mine = own_process.OwnProcess()
pid = os.getpid()
os.getpid = lambda: pid    # as in a child of a child, where the first has ended
hear, tell = os.pipe()
if os.fork() == 0:
    os.write(tell, str(mine.is_own()).encode())
    os._exit(0)
os.wait()
print(mine.is_own(), os.read(hear, 9).decode())
"""


def test_a_child_with_the_number_of_its_ancestor_is_another_process() -> None:
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", AGAIN], capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("True False\n", "")


def test_a_fork_that_told_nobody_is_seen_by_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a library in C forks, which knows nothing of hooks; and what is made there is its own."""
    mine, pid = OwnProcess(), os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)
    assert not mine.is_own() and OwnProcess().is_own()


MANY = """
import os, signal, sys, threading, time, traceback
from captoken.errors import AuditError, StoreError
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from captoken.stores.ports import Debit, Reservation, Use
from captoken.stores.sqlite import SQLiteLedger, SQLiteReplayStore, SQLiteSnapshots
from captoken.stores.trail_file import TrailFile

kind, folder, signal_after = sys.argv[1], sys.argv[2], 120
path, overlay = os.path.join(folder, "stores.db"), os.path.join(folder, "overlay.db")
numbers = iter(range(1, 10**9))

def number():
    return next(numbers).to_bytes(8, "big") + os.getpid().to_bytes(8, "big")

def proof(store):
    assert store.add(Use(number(), 1000), 1000) is True

def count(store):
    debit = Debit(bytes(16), "eur", 10**9, 1)
    assert store.reserve(Reservation(number(), (debit,), 1000, 1060, None), 1000) is None

def look(store):
    assert store.load() is None

def write(store):
    store.write(b'{"seq":1}\\n')

def begun(kind):
    try: kind.create(path, floor=0, timeout=60).close()
    except StoreError as error: assert "already exists" in str(error)
    return kind(path, timeout=60)

KINDS = {
    "proofs": (lambda: begun(SQLiteReplayStore), proof, None),
    "ledger": (lambda: begun(SQLiteLedger), count, None),
    "snapshots": (lambda: SQLiteSnapshots(overlay, timeout=60), look, None),
    "proofs in memory": (lambda: MemoryReplayStore(floor=0), proof, StoreError),
    "ledger in memory": (lambda: MemoryLedger(floor=0), count, StoreError),
    "trail": (lambda: TrailFile(os.path.join(folder, "trail")), write, AuditError),
}
make, use, refused = KINDS[kind]
SQLiteSnapshots.create(overlay).close()
signal.alarm(signal_after)
store, done = make(), threading.Event()

def opened():
    files = []
    for fd in os.listdir("/proc/self/fd"):
        try: files.append(os.readlink("/proc/self/fd/" + fd))
        except OSError: pass
    return [file for file in files if file.startswith(folder)]

def in_child():
    signal.alarm(60)
    assert not opened(), opened()
    if refused is None:
        use(store)
    else:
        try: use(store)
        except refused: pass
        else: raise AssertionError("a child has a memory of its own")

wrong = []
def fork():
    for _ in range(25):
        child = os.fork()
        if child == 0:
            try: in_child()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        wrong.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

def work():
    while not done.is_set():
        try: use(store)
        except BaseException as error:
            wrong.append(repr(error))
            raise
        time.sleep(0.001)

def begin():
    while not done.is_set() and kind != "trail":
        other = make()
        use(other)
        getattr(other, "close", int)()
        time.sleep(0.001)

others = [threading.Thread(target=one) for one in (work, begin)]
forks = [threading.Thread(target=fork) for _ in range(4)]
for one in others + forks: one.start()
for one in forks: one.join()
done.set()
for one in others: one.join()
use(store)
print(len(wrong), set(wrong))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at the open files of a child")
@pytest.mark.parametrize(
    "kind", ["proofs", "ledger", "snapshots", "proofs in memory", "ledger in memory", "trail"]
)
def test_four_threads_fork_a_hundred_times(tmp_path: Path, kind: str) -> None:
    """Others work meanwhile, and open and close stores. No child has an open file of the store, or a lock that nobody releases:
    it goes on or is refused, at once; and the parent goes on."""
    script = [sys.executable, "-W", "ignore", "-c", MANY, kind, str(tmp_path)]
    ran = subprocess.run(script, capture_output=True, text=True, timeout=180)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("100 {0}\n", "", 0), ran.returncode == -signal.SIGALRM


def test_a_child_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs there, run here: on a lock, a mark and holders of its own, so that nothing of this process is told."""
    told: list[str] = []
    hooks = own_process._Hooks(lambda _: told.append("before"), lambda _: told.append("in parent"), lambda one: told.append(one))
    for name in ("_mark", "_forks"):
        monkeypatch.setattr(own_process, name, getattr(own_process, name))
    monkeypatch.setattr(own_process, "_under_way", {1: [("other", hooks)]})
    monkeypatch.setattr(own_process, "_holders_to_tell", lambda: [("one", hooks), ("two", hooks)])
    mine, lock = OwnProcess(), own_process._forks
    own_process._in_child()
    assert told == ["one", "two"] and not own_process._under_way
    assert own_process._forks is not lock and not mine.is_own() and OwnProcess().is_own()


def locks_on(path: Path) -> int:
    """How many locks of this process there are on a file, as the system has it: process, then device and file.

    Before who waits for a lock there is an arrow.
    """
    mine = re.compile(rf" {os.getpid()} \w+:\w+:{os.stat(path).st_ino} ")
    return sum(mine.search(line) is not None and "->" not in line for line in Path("/proc/locks").read_text().splitlines())


@pytest.mark.skipif(not os.path.isfile("/proc/locks"), reason="looks at the locks of the system")
def test_to_make_what_is_there_gives_up_no_lock(tmp_path: Path) -> None:
    """POSIX drops all locks of a process on a file when it closes any descriptor of it."""
    path = tmp_path / "uses.db"
    store = begun(SQLiteReplayStore, path)
    assert store.add(Use(b"a" * 16, 1000), 1000)
    before = locks_on(path)
    assert before > 0
    for make in (lambda: SQLiteReplayStore.create(path), lambda: begun(SQLiteReplayStore, path).close()):
        with suppress(StoreError):
            make()
        assert locks_on(path) >= before
    store.close()
