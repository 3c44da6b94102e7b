"""The file of a trail: a record is there whole, or not at all, and nobody else writes there."""

from __future__ import annotations

import errno
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from captoken import Verifier
from captoken.audit import AuditTrail, check
from captoken.errors import AuditError
from captoken.stores import trail_file
from captoken.stores.trail_file import TrailFile
from tests.fixtures import KEYRING, clock, data, mint, verifier


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trail.jsonl"


def server(file: TrailFile) -> Verifier:
    return verifier(audit=AuditTrail(file.write, head=file.head))


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


@contextmanager
def room(size: int) -> Iterator[None]:
    """As on a disk that is full: no file grows beyond that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_trail_goes_on_in_its_file(path: Path) -> None:
    """Where it ended, also after several starts; it is its owner's alone."""
    for count in (1, 2, 3):
        with TrailFile(path, sync=count == 2) as file:
            assert (file.head is None) is (count == 1) and server(file).check(mint(), data("sales"))
        assert check(lines(path)).decisions == count
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("left", [0, 1, 40])
def test_what_has_no_room_is_denied_and_leaves_nothing(path: Path, left: int) -> None:
    """A full disk takes a part of a record: it is cut off. Once there is room again the trail goes on, whole."""
    with TrailFile(path) as file:
        one = server(file)
        assert one.check(mint(), data("sales"))
        size = path.stat().st_size
        with room(size + left):
            assert [one.check(mint(), data("sales")).code for _ in range(2)] == ["store_unavailable"] * 2
            assert path.stat().st_size == size
        assert one.check(mint(), data("sales"))
    assert check(lines(path)).decisions == 2


def test_what_cannot_be_synchronized_is_denied_and_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes had landed: they are cut off, so that no number is there twice."""
    real: Callable[[int], None] = os.fsync
    failing = [True, False]

    def fsync(fd: int) -> None:
        if failing and failing.pop(0):
            raise OSError(errno.EIO, "input/output error")
        real(fd)

    with TrailFile(path, sync=True) as file:
        one = server(file)
        monkeypatch.setattr(trail_file.os, "fsync", fsync)
        assert one.check(mint(), data("sales")).code == "store_unavailable" and path.stat().st_size == 0
        assert one.check(mint(), data("sales"))
    assert check(lines(path)).decisions == 1


def test_flush_waits_for_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For what was written: it has its own bytes on disk before the answer, and refuses a child."""
    synchronized: list[int] = []
    monkeypatch.setattr(trail_file.os, "fsync", lambda fd: synchronized.append(path.stat().st_size))
    with TrailFile(path) as file:
        one = Verifier(KEYRING, clock=clock(), audit=AuditTrail(file.write, head=file.head, flush=file.flush))
        assert one.check(mint(), data("sales")) and synchronized == [path.stat().st_size]
        monkeypatch.setattr(file, "_process", SimpleNamespace(is_own=lambda: False))
        with pytest.raises(AuditError, match="another process"):
            file.flush()


@pytest.mark.parametrize("torn", [b"{", b'{"access":{"operation":"select"}', b"\xff" * 200_000])
def test_a_torn_end_is_cut_off_when_the_file_is_opened(path: Path, torn: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """What a crash left of a record; the log says so. Records that are whole stay, of any length."""
    columns = ["select", *(f"column_{number}" for number in range(9000))]
    with TrailFile(path) as file:
        assert server(file).check(mint(tables=[f"t{number}" for number in range(9)], operations=["select"]), data("t1", *columns))
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    with pytest.raises(AuditError, match="has no line feed"):
        check(lines(path))
    with caplog.at_level(logging.WARNING, "captoken"), TrailFile(path, sync=True) as file:
        assert path.read_bytes() == whole and file.head == check(lines(path)).head
        assert server(file).check(mint(), data("sales"))
    assert check(lines(path)).decisions == 2 and [record.getMessage() for record in caplog.records] == [
        "the last record of the trail was torn, and is cut off"
    ]


@pytest.mark.parametrize("content", [b"{", b"text", b"text\n", b"{}\n", b'{"seq":"1"}\n', b'{"seq":1}\n\n', b"\n"])
def test_a_file_that_is_no_trail_is_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(AuditError, match="does not end in records of a trail"):
        TrailFile(path)
    assert path.read_bytes() == content


def test_two_do_not_write_to_one_trail(path: Path) -> None:
    """In one process or in two; once the first has let go, the next may."""
    first = TrailFile(path)
    with pytest.raises(AuditError, match="writes to this trail"):
        TrailFile(path)
    first.close()
    first.close()
    TrailFile(path).close()


@pytest.mark.parametrize("change", [b"", b"{}\n"])
def test_a_file_that_somebody_else_has_changed_takes_no_more(path: Path, change: bytes) -> None:
    """Cut, or written to, all the same: nothing is put behind what is not known, and nothing of it is cut off."""
    with TrailFile(path) as file:
        one = server(file)
        assert one.check(mint(), data("sales"))
        content = path.read_bytes() + change if change else b""
        path.write_bytes(content)
        assert one.check(mint(), data("sales")).code == "store_unavailable" and path.read_bytes() == content


@pytest.mark.parametrize("then", ["nothing", "a new file", "another server", "a copy", "a folder"])
@pytest.mark.parametrize("gone", ["renamed", "deleted"])
def test_a_file_that_lost_its_name_takes_no_more(path: Path, tmp_path: Path, gone: str, then: str) -> None:
    """Whatever stands there now: another server may have that, with a lock of its own. Nothing is written to either."""
    with TrailFile(path) as file:
        one = server(file)
        assert one.check(mint(), data("sales"))
        before = path.read_bytes()
        other = None
        path.rename(tmp_path / "old") if gone == "renamed" else path.unlink()
        if then == "a new file":
            path.touch()
        elif then == "a copy":
            path.write_bytes(before)
        elif then == "a folder":
            path.mkdir()
        elif then == "another server":
            other = TrailFile(path)
            assert server(other).check(mint(), data("sales"))
        after = path.read_bytes() if path.is_file() else None
        for _ in range(2):
            assert one.check(mint(), data("sales")).code == "store_unavailable"
        assert (path.read_bytes() if path.is_file() else None) == after
        assert gone == "deleted" or (tmp_path / "old").read_bytes() == before
        if other is not None:
            assert server(other).check(mint(), data("sales"))
            other.close()


def test_a_file_that_has_its_name_again_goes_on(path: Path, tmp_path: Path) -> None:
    with TrailFile(path) as file:
        one = server(file)
        assert one.check(mint(), data("sales"))
        path.rename(tmp_path / "old")
        assert not one.check(mint(), data("sales"))
        (tmp_path / "old").rename(path)
        assert one.check(mint(), data("sales"))
    assert check(lines(path)).decisions == 2


def test_a_file_that_is_renamed_while_it_is_opened_is_not_taken(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its opening and its lock. Asked again it is the file that stands there."""
    real = trail_file.fcntl.flock

    def flock(fd: int, how: int) -> None:
        path.rename(tmp_path / "old")
        real(fd, how)

    monkeypatch.setattr(trail_file.fcntl, "flock", flock)
    with pytest.raises(AuditError, match="open the path again"):
        TrailFile(path)
    monkeypatch.undo()
    TrailFile(path).close()


def test_a_relative_path_is_the_one_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with TrailFile("trail.jsonl") as file:
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert server(file).check(mint(), data("sales"))


def test_a_trail_goes_on_in_another_file(path: Path, tmp_path: Path) -> None:
    """As a server that rotates by itself does it: nothing is lost, and the second file is checked after the first."""
    with TrailFile(path) as old:
        trail = AuditTrail(old.write, head=old.head)
        assert verifier(audit=trail).check(mint(), data("sales"))
    path.rename(tmp_path / "old")
    with TrailFile(path) as new:
        assert new.head is None and verifier(audit=AuditTrail(new.write, head=trail.head)).check(mint(), data("sales"))
    assert check(lines(path), after=trail.head).decisions == 1 and check(lines(tmp_path / "old")).head == trail.head


FORKED = """
import os, sys
from captoken.stores.trail_file import TrailFile
from captoken.audit import AuditTrail, check
from tests.fixtures import KEYRING, clock, data, mint, verifier
file = TrailFile(sys.argv[1])
trail = AuditTrail(file.write)
one = verifier(audit=trail)
assert one.check(mint(), data("sales"))
trail._lock.acquire()  # as another thread of the parent's might hold it at that moment
child = os.fork()
if child == 0:
    print(one.check(mint(), data("sales")).refusals[0].text, flush=True)
    try:
        file.write(b"x")
    except Exception as error:
        print(error, flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
trail._lock.release()
assert one.check(mint(), data("sales"))
print(check(open(sys.argv[1], "rb")).decisions)
"""


def test_a_forked_child_writes_nothing_and_does_not_wait(path: Path) -> None:
    ran = subprocess.run([sys.executable, "-W", "error::RuntimeWarning", "-c", FORKED, path], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "the decision cannot be recorded: this trail belongs to another process: open a trail in each process",
        "this trail belongs to another process: open a trail in each process",
        "2",
    ]


def test_each_worker_takes_the_first_file_of_a_pattern_that_nobody_writes_to(tmp_path):
    """So there are as many files as workers run at once, however often they start. What is broken is not passed over."""
    pattern = str(tmp_path / "trail-{}.jsonl")
    with TrailFile.for_worker(pattern), TrailFile.for_worker(pattern) as second:
        assert sorted(path.name for path in tmp_path.iterdir()) == ["trail-0.jsonl", "trail-1.jsonl"]
        with pytest.raises(AuditError, match=r"writes to this trail: each has a file of its own.*trail-1\.jsonl"):
            TrailFile.for_worker(pattern, workers=2)
        second.close()
        TrailFile.for_worker(pattern, workers=2, sync=True).close()
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / "trail-0.jsonl").write_bytes(b"no trail\n")
    with pytest.raises(AuditError, match=r"trail-0\.jsonl"):
        TrailFile.for_worker(pattern)
    for wrong in ("trail.jsonl", "trail-{}-{}.jsonl"):
        with pytest.raises(ValueError, match=r"needs one \{\}, for the number of the worker"):
            TrailFile.for_worker(str(tmp_path / wrong))
