"""Stores in files by the rights of who opens them: the overlay can be read without the right to write, and whatever is not permitted
is a documented error that names the file.

The superuser is refused nothing. So what is tried here is done by a process that has given up all rights, as a user of its own.
Where the tests run as another user, it is done by the owner of the files. So they are read-only for the owner, too.
"""

from __future__ import annotations

import codecs
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from captoken import Access, Issuer, Keyring, Verifier
from captoken.control import Feed, Operator
from captoken.errors import StoreError
from captoken.issuance.registry.sqlite import SQLiteRegistry
from captoken.keys import OperatorKey
from captoken.local import Office
from captoken.stores.sqlite import SQLiteLedger, SQLiteReplayStore, SQLiteSnapshots, SQLiteStore
from captoken.stores.trail_file import TrailFile
from tests.fixtures import KEYRING, NOW, WHO, mint

NOBODY = 65534
KEY = OperatorKey.from_bytes(bytes(range(32)))
COUNTING = (SQLiteReplayStore, SQLiteLedger, SQLiteRegistry)
SALES: dict[str, Any] = {"tables": ["sales"], "operations": ["select"]}
ASK = Access(table="sales", operation="select")


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that other users can reach. What Python loads when it is first used is loaded: they may be unable to read that."""
    codecs.lookup("ascii")
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        Office.open(Path(made) / "before").close()
        yield Path(made)
        os.chmod(made, 0o755)


def without_rights(act: Callable[[], Any]) -> str:
    """What it gives in a process of a user who owns nothing, or the error that it raises."""
    hear, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            try:
                if os.geteuid() == 0:
                    os.setgroups([])
                    os.setgid(NOBODY)
                    os.setuid(NOBODY)
                said = str(act())
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(tell, said.encode())
        os._exit(0)
    os.close(tell)
    with open(hear, encoding="utf-8") as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


@contextmanager
def by_its_owner(path: Path) -> Iterator[None]:
    """What its owner does to a file that is read-only for everybody: it takes the right first, and gives it back."""
    modes = {one: one.stat().st_mode for one in (path, path.parent)}
    for one, mode in modes.items():
        one.chmod(mode | 0o200)
    yield
    for one, mode in modes.items():
        one.chmod(mode)


def published(path: Path) -> SQLiteSnapshots:
    """A store with a snapshot that revokes one agent, closed."""
    store = SQLiteSnapshots.create(path)
    operator = Operator(KEY, store, by="ops", clock=lambda: NOW)
    operator.revoke(agent="lost", why="test")
    store.close()
    return store


def loaded(path: Path, **how: bool) -> str:
    with closing(SQLiteSnapshots(path, **how)) as store:
        return "" if store.load() is None else "loaded"


def left_by_a_crash(path: Path) -> None:
    """As a process leaves the file that ends while it publishes: half written, and a journal that undoes it."""
    journal = Path(f"{path}-journal")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("pragma journal_mode = truncate")
        connection.execute("pragma cache_size = 1")
        connection.execute("begin exclusive")
        connection.execute("update overlay set snapshot = zeroblob(100000)")
        half, undoes = path.read_bytes(), journal.read_bytes()
        connection.execute("rollback")
    assert len(undoes) > 512
    path.write_bytes(half)
    journal.write_bytes(undoes)


# --- the overlay -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"readonly": True}], ids=repr)
def test_a_server_that_only_looks_needs_no_right_to_write(folder: Path, how: dict[str, bool]) -> None:
    """Neither to the file nor to its folder: its verifiers deny what is revoked, and what is published later is seen."""
    path = folder / "overlay.db"
    store = published(path)
    path.chmod(0o444)
    folder.chmod(0o555)
    token, lost = mint(), Issuer(KEYRING, clock=lambda: NOW).mint(**{**WHO, "agent": "lost"}, **SALES)

    def serve() -> list[str]:
        assert not os.access(path, os.W_OK) and not os.access(folder, os.W_OK)
        feed = Feed(SQLiteSnapshots(path, **how), [KEY.public], every=0, clock=lambda: NOW)
        verifier = Verifier(KEYRING, overlay=feed, clock=lambda: NOW)
        return [verifier.check(asked, ASK).code for asked in (token, lost)]

    assert without_rights(serve) == str(["allowed", "revoked"])
    with by_its_owner(path):
        Operator(KEY, store, by="ops", last=1, clock=lambda: NOW).end_task("task-123")
    assert without_rights(serve) == str(["revoked", "revoked"])
    assert without_rights(lambda: SQLiteSnapshots(path, **how).since(b"unknown")) == "None"


def test_who_may_not_write_publishes_nothing(folder: Path) -> None:
    """By the rights of the process, and by its own word."""
    path = folder / "overlay.db"
    published(path).close()
    path.chmod(0o444)
    before = path.read_bytes()

    def publish(**how: bool) -> bool:
        store = SQLiteSnapshots(path, **how)
        return store.publish(b"another", store.load())

    said = without_rights(publish)
    assert said.startswith(f"StoreError: SQLite '{path}': attempt to write a readonly database: this process has to read and write")
    with pytest.raises(StoreError, match=r"overlay\.db.*: it was opened with readonly=True, and cannot be written"):
        publish(readonly=True)
    with closing(SQLiteSnapshots(path, readonly=True)) as store, pytest.raises(StoreError, match="readonly=True"):
        store.append(b"delta", b"after", b"gives")
    assert path.read_bytes() == before


def test_what_a_crash_left_is_an_error_until_who_may_write_looks(folder: Path) -> None:
    """Never half of a snapshot; and the operator's next look takes it back."""
    path = folder / "overlay.db"
    published(path).close()
    whole = path.read_bytes()
    left_by_a_crash(path)
    path.chmod(0o444)
    assert path.read_bytes() != whole
    told = f"StoreError: SQLite '{path}': a process was stopped while it wrote, and its unfinished change has to be undone"
    assert without_rights(lambda: loaded(path)).startswith(told)
    with pytest.raises(StoreError, match="was stopped while it wrote"):
        loaded(path, readonly=True)
    path.chmod(0o644)
    assert loaded(path) == "loaded" and path.read_bytes()[24:] == whole[24:], "as it was, apart from a count of changes"
    assert without_rights(lambda: loaded(path, readonly=True)) == "loaded"


def test_a_server_denies_while_it_cannot_read_the_overlay(folder: Path) -> None:
    """It keeps what it has seen, which grows old; one that starts has nothing."""
    path = folder / "overlay.db"
    published(path).close()
    now = [NOW]
    with closing(SQLiteSnapshots(path, readonly=True)) as store:
        feed = Feed(store, [KEY.public], every=0, clock=lambda: now[0])
        verifier = Verifier(KEYRING, overlay=feed, clock=lambda: now[0])
        assert verifier.check(mint(), ASK).code == "allowed"
        left_by_a_crash(path)
        assert verifier.check(mint(), ASK) and "was stopped while it wrote" in str(feed.problem)
        now[0] += 100
        assert verifier.check(mint(), ASK).code == "stale_overlay"
        assert loaded(path) == "loaded"
        assert feed.refresh().seq == 1


READS = """
import sys
from captoken.stores.sqlite import SQLiteSnapshots
store = SQLiteSnapshots(sys.argv[1], readonly=True, timeout=30)
seen = {store.load()}
print("reads", flush=True)
while b"the last" not in seen:
    seen.add(store.load())
print(len(seen))
"""


def test_many_who_read_hold_up_no_operator(folder: Path) -> None:
    """Four processes that do nothing but read, and an operator that publishes large snapshots meanwhile, one after the other."""
    path = folder / "overlay.db"
    store, before = SQLiteSnapshots.create(path), b""
    assert store.publish(b"", None)
    readers = [subprocess.Popen([sys.executable, "-c", READS, path], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [reader.stdout and reader.stdout.readline() for reader in readers] == ["reads\n"] * 4
    longest = 0.0
    for number in range(40):
        since = monotonic()
        newest = b"%d" % number * 50_000
        assert store.publish(newest, before)
        before, longest = newest, max(longest, monotonic() - since)
    assert store.publish(b"the last", before)
    for reader in readers:
        said, _ = reader.communicate(timeout=60)
        assert reader.returncode == 0 and int(said) > 1
    assert longest < 5
    store.close()


def test_one_who_reads_for_long_is_waited_for_as_long_as_was_said(folder: Path) -> None:
    """Whoever may read the file can hold up its operator, and no more than that: it is an error, and nothing is half done."""
    path = folder / "overlay.db"
    store = published(path)
    with closing(SQLiteSnapshots(path, timeout=0.3)) as hasty, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin")
        before = bytes(other.execute("select snapshot from overlay").fetchone()[0])
        with pytest.raises(StoreError, match="locked"):
            hasty.publish(b"another", before)
        assert hasty.load() == before
        with closing(SQLiteSnapshots(path, timeout=30)) as patient, ThreadPoolExecutor(1) as pool:
            publishing = pool.submit(patient.publish, b"another", before)
            with suppress(TimeoutError):
                publishing.result(timeout=0.2)
            assert not publishing.done() and bytes(other.execute("select snapshot from overlay").fetchone()[0]) == before
            other.execute("commit")
            assert publishing.result(timeout=30) is True
    assert store.load() == b"another"
    store.close()


# --- a file of its own -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", COUNTING)
def test_the_overlay_shares_its_file_with_no_other_store(kind: Any, folder: Path) -> None:
    """Whichever of the two is first: else the one would take the other's journal away."""
    path = folder / "stores.db"
    kind.create(path, floor=0).close()
    for make in (SQLiteSnapshots.create, SQLiteSnapshots, lambda path: SQLiteSnapshots(path, readonly=True)):
        with pytest.raises(StoreError, match=r"stores\.db'?: the overlay needs a file of its own"):
            make(path)
    kind(path).close()

    path = folder / "overlay.db"
    published(path).close()
    before = path.read_bytes()
    for make in (kind.create, kind):
        with pytest.raises(StoreError, match=r"overlay\.db'?: this file is for the overlay only"):
            make(path)
    assert path.read_bytes() == before and loaded(path) == "loaded"


def test_the_overlay_has_a_file_of_its_own(folder: Path) -> None:
    """It comes to no other store, and no other store comes to it."""
    SQLiteLedger.create(folder / "counts.db", floor=0).close()
    SQLiteSnapshots.create(folder / "overlay.db").close()
    with pytest.raises(StoreError, match="the overlay needs a file of its own, and this file holds other stores"):
        SQLiteSnapshots.create(folder / "counts.db")
    for kind in COUNTING:
        with pytest.raises(StoreError, match="this file is for the overlay only: choose another one"):
            kind.create(folder / "overlay.db", floor=0)


# --- what is not permitted -------------------------------------------------------------------------------------------

# Modes of the folder and of the file, and what of it a store says.
REFUSED = [
    (0o555, 0o444, "this process has to read and write the file"),
    (0o755, 0o000, "this process has to read and write the file"),
    (0o555, 0o644, "this process has to read and write the file"),
    (0o000, 0o644, "the file cannot be examined: Permission denied"),
]


@pytest.mark.parametrize(("of_folder", "of_file", "text"), REFUSED)
@pytest.mark.parametrize("kind", COUNTING)
def test_a_missing_right_is_an_error_that_names_the_file(
    kind: type[SQLiteStore], of_folder: int, of_file: int, text: str, folder: Path
) -> None:
    """When it is opened. A file that is read-only can be opened where its folder is not: it can be read, and takes nothing."""
    path = folder / "stores.db"
    kind.create(path).close()  # type: ignore[attr-defined]
    path.chmod(of_file)
    folder.chmod(of_folder)
    assert without_rights(lambda: kind(path)).startswith(f"StoreError: SQLite '{path}': ")
    assert text in without_rights(lambda: kind(path))


@pytest.mark.parametrize("of_file", [0o000, 0o644])
def test_an_overlay_that_may_not_be_read_says_which_file(of_file: int, folder: Path) -> None:
    path = folder / "overlay.db"
    published(path).close()
    path.chmod(of_file)
    folder.chmod(0o755 if not of_file else 0o000)
    says = "the file cannot be examined" if of_file else "this process has to read the file, and to enter its folder"
    said = without_rights(lambda: SQLiteSnapshots(path, readonly=True))
    assert said.startswith(f"StoreError: SQLite '{path}': ") and says in said


@pytest.mark.parametrize("kind", [*COUNTING, SQLiteSnapshots])
def test_in_a_folder_that_is_read_only_no_store_is_made(kind: Any, folder: Path) -> None:
    folder.chmod(0o555)
    path = folder / "new.db"
    said = without_rights(lambda: kind.create(path))
    assert said == f"StoreError: SQLite '{path}': the file cannot be made: Permission denied"


def test_a_trail_and_a_keyring_say_which_file_may_not_be_opened(folder: Path) -> None:
    trail, keys = folder / "trail.jsonl", folder / "keyring.json"
    trail.write_bytes(b"")
    Keyring.generate().save(keys)
    trail.chmod(0o444)
    keys.chmod(0o000)
    folder.chmod(0o555)
    assert without_rights(lambda: TrailFile(trail)) == f"AuditError: the file cannot be opened for writing: Permission denied ('{trail}')"
    new = folder / "new"
    assert without_rights(lambda: TrailFile(new)) == f"AuditError: the file cannot be opened for writing: Permission denied ('{new}')"
    said = without_rights(lambda: Keyring.load(keys))
    assert said == f"KeyringError: the key file '{keys}' cannot be read: Permission denied"
    said = without_rights(lambda: Keyring.generate().save(new))
    assert said == f"KeyringError: the key file '{new}' cannot be saved: Permission denied"


OFFICE = [
    ("keyring.json", 0o000, "KeyringError", "cannot be read: Permission denied"),
    ("operator.json.seen", 0o000, "OverlayError", "and cannot be read"),
    ("overlay.db", 0o000, "StoreError", "this process has to read and write the file"),
    ("office.db", 0o000, "StoreError", "this process has to read and write the file"),
    ("trail.jsonl", 0o000, "AuditError", "cannot be opened for writing: Permission denied"),
    ("trail.jsonl", 0o400, "AuditError", "cannot be opened for writing: Permission denied"),
    ("trail.jsonl", 0o200, "AuditError", "cannot be opened for writing: Permission denied"),
    ("trail.jsonl.seen", 0o000, "StoreError", "Permission denied"),
    ("office.json", 0o000, "StoreError", "Permission denied"),
    ("lock", 0o000, "StoreError", "cannot be opened: Permission denied"),
    ("", 0o500, "StoreError", "this process has to read and write the file and its folder"),
    ("", 0o000, "StoreError", "cannot be opened: Permission denied"),
]


@pytest.mark.parametrize(("name", "mode", "kind", "text"), OFFICE)
def test_an_office_says_which_of_its_files_may_not_be_opened(name: str, mode: int, kind: str, text: str, folder: Path) -> None:
    """Its folder is its owner's alone, so that this is about rights that the owner has taken away."""
    folder.chmod(0o777)
    state = folder / "state"

    def opened() -> str:
        Office.open(state).close()
        (state / name).chmod(mode)
        try:
            Office.open(state).close()
        finally:
            state.chmod(0o700)
        return "opened"

    said = without_rights(opened)
    assert said.startswith(f"{kind}: ") and text in said and (name or "state") in said


@pytest.mark.parametrize("mode", [0o300, 0o500])
def test_an_office_that_cannot_be_made_says_where(mode: int, folder: Path) -> None:
    """A folder that may not be read, and one in which nothing can be made."""
    folder.chmod(0o777)
    state = folder / "state"

    def opened() -> None:
        state.mkdir()
        state.chmod(mode)
        Office.open(state)

    said = without_rights(opened)
    assert said.startswith(f"StoreError: the office '{state}': ") and "Permission denied" in said


def test_an_office_whose_counts_may_not_be_written_takes_nothing_that_counts(folder: Path) -> None:
    """It can be opened, and what it has counted be read. Each use is refused, with the file in the log."""
    folder.chmod(0o777)
    state = folder / "state"

    def run() -> str:
        Office.open(state).close()
        (state / "office.db").chmod(0o400)
        with Office.open(state) as office:
            asked = [office.mint(**WHO, **SALES, **more) for more in ({}, {"uses": 2})]
            return str([office.verifier.check(token, ASK).code for token in asked])

    assert without_rights(run) == str(["allowed", "store_unavailable"])


def test_an_office_whose_folder_is_taken_from_it_denies(folder: Path) -> None:
    """While it is open: what it says is an error of ours, with the file, and what stands goes on."""
    folder.chmod(0o777)
    state = folder / "state"

    def run() -> str:
        with Office.open(state) as office:
            token = office.mint(**WHO, **SALES)
            state.chmod(0o500)
            try:
                office.end_task("task-123")
            except Exception as error:
                return f"{type(error).__name__}: {error} {office.verifier.check(token, ASK).code}"
            finally:
                state.chmod(0o700)
        return "no error"

    said = without_rights(run)
    assert said.startswith("KeyringError: the key file ") and "operator.json.seen' cannot be saved: Permission denied" in said
    assert said.endswith(" revoked")
