"""Used proofs in a SQLite file: what a broken file, a lock, a fork, a crash or several processes do to it. What it shares
with the other stores is in the suite."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Timer
from time import monotonic
from typing import Any

import pytest

from captoken._format.clocks import PROOF_AHEAD
from captoken.errors import StoreError
from captoken.stores.ports import Reservation, Use
from captoken.stores.sqlite import SQLiteLedger, SQLiteReplayStore
from tests.bound import AUDIENCE, CHILD, proof
from tests.fixtures import NOW, sent
from tests.longer import kills
from tests.reference.fixtures import ASK, access
from tests.reference.fixtures import verifier as verifying
from tests.stores.begun import begun


def use(number: int, at: int = NOW) -> Use:
    return Use(number.to_bytes(16, "big"), at)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "proofs.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteReplayStore]:
    with closing(begun(SQLiteReplayStore, path, timeout=0)) as made:
        yield made


def denied(store: SQLiteReplayStore, nonce: bytes = b"n" * 16) -> str:
    """What a server says with this store: the code, and that a grant comes of nothing else than `allowed`."""
    decision = verifying(audience=AUDIENCE, replays=store).check(sent(CHILD, proof(CHILD, nonce=nonce)), access(ASK))
    assert (decision.grant is not None) == bool(decision) == (decision.code == "allowed")
    return decision.code


def rows(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("select * from proofs").fetchall()


# --- what it keeps ---------------------------------------------------------------------------------------------------


def test_a_restart_forgets_none(path: Path) -> None:
    """Closed and opened again: what was used stays used, the floor stays up."""
    with closing(SQLiteReplayStore.create(path, clock=lambda: NOW)) as store:
        assert store.add(use(1, NOW + 6), NOW + 3) and not store.add(use(2, NOW + PROOF_AHEAD), NOW + 3)
    for limit in (5, 1000):
        with closing(SQLiteReplayStore(path, limit=limit)) as again:
            assert not again.add(use(1, NOW + 6), NOW + 3) and not again.add(use(2, NOW + PROOF_AHEAD), NOW + 3)


def test_a_store_that_was_closed_opens_again(store: SQLiteReplayStore) -> None:
    """Twice closed is closed; asked again, it knows all."""
    assert store.add(use(1), NOW)
    store.close()
    store.close()
    assert not store.add(use(1), NOW) and store.add(use(2), NOW)


def test_the_file_holds_no_key_no_nonce_and_no_token(store: SQLiteReplayStore, path: Path) -> None:
    """One hash of 16 bytes and a second for each use."""
    nonce = bytes(range(200, 216))
    assert denied(store, nonce) == "allowed"
    [(entry, issued_at)] = rows(path)
    assert len(entry) == 16 and entry != nonce and issued_at == NOW
    store.close()
    written = path.read_bytes()
    assert nonce not in written and b"cap1" not in written and AUDIENCE.encode() not in written


def test_the_file_does_not_grow(store: SQLiteReplayStore, path: Path) -> None:
    """What is forgotten is deleted, and the number it counts by stays what is there."""
    for second in range(0, 160, 8):
        for number in range(4):
            assert store.add(use(second * 10 + number, NOW + second), NOW + second)
        assert not store.add(use(second * 10, NOW + second), NOW + second)
        with closing(sqlite3.connect(path)) as connection:
            (held,), (there,) = (
                connection.execute("select held from proof_state").fetchone(),
                connection.execute("select count(*) from proofs").fetchone(),
            )
        assert held == there == 4 * min(second // 8 + 1, 4)


def test_it_waits_for_the_disk(store: SQLiteReplayStore) -> None:
    """A write-ahead log, and a full synchronisation before an answer."""
    assert store.add(use(1), NOW) and store._connection is not None
    assert store._connection.execute("pragma journal_mode").fetchone() == ("wal",)
    assert store._connection.execute("pragma synchronous").fetchone() == (2,)


# --- what breaks it --------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_a_store_error(path: Path) -> None:
    """Text, zeros, half a database, a folder, a folder that is not there."""
    with closing(begun(SQLiteReplayStore, path)) as store:
        assert all(store.add(use(number), NOW) for number in range(40))
    whole = path.read_bytes()
    for content in (b"not a database" * 1000, b"\0" * 8192, whole[:100] + b"\xff" * 5000, b"\xff" + whole[1:]):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"^SQLite '.*proofs.*': "):
            begun(SQLiteReplayStore, path)
        assert path.read_bytes() == content, "and it is left as it was"
    for nowhere, text in ((path.parent, "SQLite .*: unable to open"), (path.parent / "none" / "proofs.db", "SQLite .*none/proofs.db': the file cannot be made: No such file")):
        with pytest.raises(StoreError, match=text):
            begun(SQLiteReplayStore, nowhere)


@pytest.mark.parametrize("damage", ["garbage", "cut", "emptied", "another schema", "no floor", "no table"])
def test_a_file_that_is_damaged_under_a_running_server_denies(damage: str, store: SQLiteReplayStore, path: Path) -> None:
    """Whatever became of it, nothing is allowed; and the store can be closed."""
    assert denied(store) == "allowed" and all(store.add(use(number), NOW) for number in range(40))
    store.close()
    if damage in ("garbage", "cut", "emptied"):
        whole = path.read_bytes()
        path.write_bytes(
            {"garbage": whole[:100] + b"\xff" * (len(whole) - 100), "cut": whole[: len(whole) // 2], "emptied": b""}[damage]
        )
    else:
        statement = {
            "another schema": "alter table proofs rename to other",
            "no floor": "delete from proof_state",
            "no table": "drop table proof_state",
        }
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(statement[damage])
            connection.commit()
    for nonce in (b"n" * 16, b"m" * 16):
        assert denied(store, nonce) == "store_unavailable"
        with pytest.raises(Exception):
            store.add(use(9999), NOW)


def test_a_file_that_is_gone_denies(store: SQLiteReplayStore, path: Path) -> None:
    """A new one is not made in silence: it would not know what was used."""
    assert denied(store) == "allowed"
    store.close()
    for file in path.parent.glob("proofs.db*"):
        file.unlink()
    assert denied(store) == denied(store, b"m" * 16) == "store_unavailable"


@contextmanager
def unprivileged() -> Iterator[None]:
    """Without the right of the superuser to write what is not to be written."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_that_cannot_be_written_denies() -> None:
    """Read-only, in a folder that is, and not to be read at all: opened before, and opened now."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "proofs.db"
        with closing(begun(SQLiteReplayStore, path, timeout=0)) as store:
            assert denied(store) == "allowed"
            store.close()
            for mode in (0o444, 0o000):
                path.chmod(mode)
                path.parent.chmod(0o555)
                try:
                    with unprivileged():
                        assert denied(store) == denied(store, b"m" * 16) == "store_unavailable"
                        store.close()
                        with pytest.raises(StoreError):
                            begun(SQLiteReplayStore, path, timeout=0)
                finally:
                    path.parent.chmod(0o755)
                    path.chmod(0o644)
            assert denied(store) == "replayed" and denied(store, b"m" * 16) == "allowed"


def test_a_file_that_another_holds_denies_until_it_lets_go(store: SQLiteReplayStore, path: Path) -> None:
    """Locked for longer than the store waits: a denial, nothing remembered, and no harm after."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        for lock in ("begin immediate", "begin exclusive"):
            other.execute(lock)
            assert denied(store) == "store_unavailable"
            with pytest.raises(StoreError, match="locked"):
                store.add(use(1), NOW)
            other.execute("rollback")
    assert denied(store) == "allowed" and denied(store) == "replayed" and store.add(use(1), NOW)


def test_a_call_waits_for_threads_and_processes_together_no_longer_than_it_was_told_to(path: Path) -> None:
    """Sixteen threads, and a file that another process holds: each is told within its half second, not one after the other; and
    one that comes when the file is free does not wait for those before."""

    def timed(number: int) -> float:
        since = monotonic()
        with pytest.raises(StoreError, match=r"locked|longer than the timeout"):
            store.add(use(number), NOW)
        return monotonic() - since

    with closing(begun(SQLiteReplayStore, path, timeout=0.5)) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other, ThreadPoolExecutor(16) as pool:
            other.execute("begin immediate")
            waited = list(pool.map(timed, range(16)))
            other.execute("rollback")
        assert 0.4 < min(waited) <= max(waited) < 2.5 and store.add(use(1), NOW)


def test_who_waits_for_another_process_holds_up_no_thread(path: Path) -> None:
    """It has a minute; a thread that comes meanwhile and may only wait for half a second reads what there is."""
    with (
        closing(begun(SQLiteLedger, path, timeout=60)) as store,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        other.execute("begin immediate")
        asked = pool.submit(store.reserve, Reservation(bytes(16), (), NOW, NOW + 60, None), NOW)
        for _ in range(20):
            since = monotonic()
            assert store.spent(bytes(16), "eur") == 0 and monotonic() - since < 2
        assert not asked.done()
        other.execute("rollback")
        assert asked.result(timeout=30) is None


def test_a_thread_in_the_way_denies_where_nobody_is_to_wait(store: SQLiteReplayStore) -> None:
    """`timeout=0`."""
    with store._lock, pytest.raises(StoreError, match="other threads"):
        store.add(use(1), NOW)
    assert store.add(use(1), NOW)


def test_a_file_that_another_process_is_making_is_waited_for(path: Path) -> None:
    """Workers that start together on a new file: whoever comes second waits, as long as it was told to, and does not fail at once."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("create table other (x)")
        other.execute("begin immediate")
        release = Timer(0.03, other.execute, ["rollback"])
        release.start()
        try:
            with closing(begun(SQLiteReplayStore, path)) as store:
                assert store.add(use(1), NOW) is True and store._connection is not None
                assert store._connection.execute("pragma journal_mode").fetchone() == ("wal",)
        finally:
            release.join()


def test_a_full_disk_denies(store: SQLiteReplayStore) -> None:
    """No page can be added: an error each time, and what was taken before stays taken."""
    assert store.add(use(0), NOW) and store._connection is not None
    (pages,) = store._connection.execute("pragma page_count").fetchone()
    store._connection.execute(f"pragma max_page_count = {pages}")
    taken = 1
    with pytest.raises(StoreError, match="full"):
        for taken in range(1, 2000):
            assert store.add(use(taken), NOW)
    assert denied(store) == "store_unavailable" and not store.add(use(0), NOW) and not store.add(use(taken - 1), NOW)
    store._connection.execute(f"pragma max_page_count = {pages + 100}")
    assert denied(store) == "allowed" and store.add(use(taken), NOW), "what was refused was not remembered"


class Refusing:
    """A connection that fails at one statement."""

    def __init__(self, connection: sqlite3.Connection, at: str, error: BaseException) -> None:
        self._connection, self._at, self._error = connection, at, error

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement.startswith(self._at):
            raise self._error
        return self._connection.execute(statement, *values)

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def close(self) -> None:
        self._connection.close()


STATEMENTS = ["begin", "select floor", "select 1", "select count", "delete", "insert", "update", "commit"]


@pytest.mark.parametrize("at", STATEMENTS)
@pytest.mark.parametrize(
    "error",
    [sqlite3.OperationalError("disk I/O error"), sqlite3.DatabaseError("malformed"), MemoryError(), KeyboardInterrupt()],
    ids=repr,
)
def test_a_fault_at_any_statement_leaves_nothing_behind(
    at: str, error: BaseException, store: SQLiteReplayStore, path: Path
) -> None:
    """Eight statements by four faults: no answer, no open transaction, no lock, no half of a use."""
    assert store.add(use(1, NOW - 60), NOW - 60) and store._connection is not None
    store._limit = 1  # so that every statement has its turn
    connection = store._connection
    store._connection = Refusing(connection, at, error)  # type: ignore[assignment]
    with pytest.raises(StoreError if isinstance(error, sqlite3.Error) else type(error)):
        store.add(use(2), NOW)
    assert not connection.in_transaction and not store._lock.locked()
    store._connection = connection
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        other.execute("begin immediate")
        other.execute("rollback")
    assert store.add(use(2), NOW) is True and store.add(use(2), NOW) is False


def test_a_number_beyond_what_sqlite_holds_is_no_answer(store: SQLiteReplayStore) -> None:
    """No proof that is fresh has one; a store that is asked all the same does not say yes."""
    with pytest.raises(OverflowError):
        store.add(use(1, 2**63), NOW)
    assert store.add(use(1), NOW)


# --- several processes -----------------------------------------------------------------------------------------------


def run(script: str, *arguments: str) -> str:
    """What a process of its own prints, with every warning an error."""
    command = [sys.executable, "-W", "error", "-c", script, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


FORKED = """
import os, sqlite3, sys
from captoken.stores.sqlite import SQLiteReplayStore
from captoken.stores.ports import Use
def use(number): return Use(number.to_bytes(16, "big"), 1000)
def wait(child): assert os.waitpid(child, 0)[1] == 0
stores = [SQLiteReplayStore.create(sys.argv[1], floor=0), SQLiteReplayStore(sys.argv[1])]
store = stores[0]
assert store.add(use(1), 1000)
closed = SQLiteReplayStore(sys.argv[1])
closed.close()
for ending in (os._exit, sys.exit):
    child = os.fork()
    if child == 0:
        number = 10 if ending is os._exit else 20
        assert store.add(use(1), 1000) is False and store.add(use(number), 1000) is True and closed.add(use(number), 1000) is False
        store.close()
        assert store.add(use(number), 1000) is False
        store.close(), closed.close()
        grandchild = os.fork()
        if grandchild == 0:
            assert store.add(use(number), 1000) is False and store.add(use(number + 1), 1000) is True
            ending(0)
        wait(grandchild)
        assert store.add(use(number + 1), 1000) is False and store.add(use(number + 2), 1000) is True
        store.close()
        ending(0)
    wait(child)
assert [store.add(use(n), 1000) for n in (1, 10, 11, 12, 20, 21, 22)] == [False] * 7
assert store.add(use(30), 1000) is True and stores[1].add(use(30), 1000) is False
check = sqlite3.connect(sys.argv[1])
print(check.execute("pragma integrity_check").fetchone()[0], check.execute("select count(*) from proofs").fetchone()[0])
check.close()
for one in (*stores, closed): one.close()
"""


def test_a_fork_leaves_both_sides_whole(path: Path) -> None:
    """Parent, child and grandchild open the file anew, and neither way of ending harms another's connection."""
    assert run(FORKED, str(path)) == "ok 8\n"


PARTED = """
import os, subprocess, sys
from captoken.stores.sqlite import SQLiteReplayStore
from captoken.stores.ports import Use
def use(number): return Use(number.to_bytes(16, "big"), 1000)
def elsewhere(number):
    again = "import sys; from captoken.stores.sqlite import *; from captoken.stores.ports import Use;" \
        "s = SQLiteReplayStore(sys.argv[1]); print(s.add(Use(int(sys.argv[2]).to_bytes(16, 'big'), 1000), 1000)); s.close()"
    return subprocess.run([sys.executable, "-c", again, sys.argv[1], str(number)], capture_output=True, text=True).stdout.strip()
store = SQLiteReplayStore.create(sys.argv[1], floor=0)
assert store.add(use(0), 1000)
hear, tell = os.pipe()
child = os.fork()
if child == 0:
    assert store.add(use(1), 1000)
    os.write(tell, b"used")
    while os.path.exists(sys.argv[1] + ".go") is False: pass
    assert store.add(use(3), 1000)
    said = elsewhere(3)
    os._exit(0 if said == "False" else 1)
assert os.read(hear, 4) == b"used"
store.close()
assert elsewhere(2) == "True"
open(sys.argv[1] + ".go", "w").close()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), elsewhere(1), elsewhere(3))
"""


def test_a_parent_that_closes_takes_nothing_from_its_child(path: Path) -> None:
    """The locks of a connection that went through a fork would be an illusion: what a child used, nobody uses again."""
    assert run(PARTED, str(path)) == "0 False False\n"


def test_the_file_is_its_owners_alone(path: Path) -> None:
    """Whoever can read the files can hold a lock on them, and stop the server."""
    with closing(begun(SQLiteReplayStore, path)) as store:
        assert store.add(use(1), NOW)
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob(path.name + "*")} == {0o600}


def test_a_relative_path_is_the_one_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(begun(SQLiteReplayStore, "proofs.db")) as store:
        assert store.add(use(1), NOW)
        store.close()
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert not store.add(use(1), NOW) and not list((tmp_path / "elsewhere").iterdir())


OPENING = """
import sys
from captoken.errors import StoreError
from captoken.stores.sqlite import SQLiteReplayStore
from captoken.stores.ports import Use
sys.stdin.readline()
try:
    store = SQLiteReplayStore.create(sys.argv[1], floor=0)
except StoreError:
    store = SQLiteReplayStore(sys.argv[1])
print(sum(store.add(Use(n.to_bytes(16, "big"), 1000), 1000) for n in range(100)))
store.close()
"""


def test_processes_that_make_the_file_at_once_make_one(path: Path) -> None:
    """Six start together on a file that is not there, and take a hundred uses between them."""
    command = [sys.executable, "-W", "error", "-c", OPENING, str(path)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0] * 6, said
    assert sum(int(out) for out, _ in said) == 100 == len(rows(path))


CRASHING = """
import itertools, sys
from captoken.stores.sqlite import SQLiteReplayStore
from captoken.stores.ports import Use
store = SQLiteReplayStore(sys.argv[1])
for number in itertools.count(int(sys.argv[2])):
    assert store.add(Use(number.to_bytes(16, "big"), 1000), 1000)
    print(number, flush=True)
"""


def test_what_was_taken_stays_taken_when_the_process_is_killed(path: Path) -> None:
    """Ten times kill -9 in the midst of it: every use that was answered is known, and at most one more."""
    known = 0
    begun(SQLiteReplayStore, path).close()
    for _ in range(kills(10)):
        command = [sys.executable, "-c", CRASHING, str(path), str(known)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            answered = [int(process.stdout.readline()) for _ in range(5)]
            process.kill()
            answered += [int(line) for line in process.stdout.read().split()]
        assert answered == list(range(known, answered[-1] + 1))
        with closing(begun(SQLiteReplayStore, path)) as store:
            assert not any(store.add(Use(number.to_bytes(16, "big"), 1000), 1000) for number in range(answered[-1] + 1))
            known = answered[-1] + 1
            if not store.add(Use(known.to_bytes(16, "big"), 1000), 1000):
                known += 1
                assert store.add(Use(known.to_bytes(16, "big"), 1000), 1000)
            known += 1
            assert len(rows(path)) == known
