"""The folder of an office: all its files or none, its owner's alone, for one process."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from captoken.errors import KeyringError, StoreError
from captoken.local import Office
from captoken.testing import FixedClock
from tests.local.test_office import ASK, minted, opened

FILES = ["audit.json", "keyring.json", "office.db", "office.json", "operator.json", "operator.json.seen", "overlay.db", "trail.jsonl", "trail.jsonl.seen"]


def test_all_is_its_owners_alone(folder: Path) -> None:
    """Whatever the mask of the process; and nothing of it goes into a repository."""
    before = os.umask(0)
    try:
        with Office.open(f"{folder}/") as office:
            office.verifier.check(minted(office), ASK)
            there = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700 and set(there.values()) == {0o600}
    assert {*FILES, "lock", ".gitignore"} <= there.keys() and (folder / ".gitignore").read_text() == "*\n"
    assert repr(office) == f"<Office '{folder}'>"


@pytest.mark.parametrize("name", [name for name in FILES if name != "office.json"])
def test_a_file_that_is_missing_is_not_begun_anew(folder: Path, clock: FixedClock, name: str) -> None:
    opened(folder, clock).close()
    (folder / name).unlink()
    with pytest.raises(StoreError, match=f"{name} is missing, and is not made anew alone"):
        opened(folder, clock)
    assert not (folder / name).exists()


def test_a_folder_that_is_no_office_or_half_of_one_is_left_alone(folder: Path, clock: FixedClock) -> None:
    opened(folder, clock).close()
    (folder / "office.json").unlink()
    before = sorted(folder.iterdir())
    with pytest.raises(StoreError, match=r"no office, or was not made to its end"):
        opened(folder, clock)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("listed", [b"{}\n", b"no json", b'{"files":["keyring.json"],"v":2}\n'])
def test_a_list_of_files_that_is_another_ones_is_refused(folder: Path, clock: FixedClock, listed: bytes) -> None:
    opened(folder, clock).close()
    (folder / "office.json").write_bytes(listed)
    with pytest.raises(StoreError, match=r"no list of the files of an office"):
        opened(folder, clock)


def test_an_office_of_an_earlier_version_says_so(folder: Path, clock: FixedClock) -> None:
    """It had the overlay beside the counts. Once that has moved it is a new one, whose list is written by whoever opens it."""
    opened(folder, clock).close()
    (folder / "trail.jsonl.seen").unlink()
    (folder / "overlay.db").rename(folder / "elsewhere.db")
    files = sorted(name for name in FILES if name not in ("office.json", "overlay.db", "trail.jsonl.seen"))
    (folder / "office.json").write_text(json.dumps({"files": files, "v": 1}, separators=(",", ":")) + "\n")
    with pytest.raises(StoreError, match=r"office has schema version 1, from an earlier captoken, .* run `captoken upgrade "):
        opened(folder, clock)
    (folder / "elsewhere.db").rename(folder / "overlay.db")
    opened(folder, clock).close()
    assert json.loads((folder / "office.json").read_text())["v"] == 2


def test_a_folder_that_others_can_enter_or_that_is_a_link_is_refused(folder: Path, clock: FixedClock, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(folder, clock).close()
    link = folder.with_name("link")
    link.symlink_to(folder)
    for path in (str(link), f"{link}/", str(folder / "keyring.json")):
        with pytest.raises(StoreError, match="is not a folder, or is a link to one"):
            Office.open(path)
    with pytest.raises(StoreError, match="cannot be made: No such file"):
        Office.open(folder / "below" / "state")
    folder.chmod(0o750)
    with pytest.raises(StoreError, match="open to others than its owner: chmod 700 it"):
        Office.open(folder)
    folder.chmod(0o700)
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(StoreError, match="belongs to another user"):
        Office.open(folder)


def test_a_file_that_others_can_read_or_that_is_a_link_is_refused(folder: Path, clock: FixedClock) -> None:
    opened(folder, clock).close()
    trail = folder / "trail.jsonl"
    trail.chmod(0o640)
    with pytest.raises(StoreError, match=r"trail\.jsonl is open to others than its owner: chmod 600 it"):
        opened(folder, clock)
    elsewhere = folder.with_name("elsewhere")
    trail.rename(elsewhere)
    elsewhere.chmod(0o600)
    trail.symlink_to(elsewhere)
    with pytest.raises(StoreError, match=r"trail\.jsonl is not a file, or is a link to one"):
        opened(folder, clock)


def test_one_process_has_it_at_a_time(folder: Path, clock: FixedClock) -> None:
    script = "import sys; from captoken.local import Office; Office.open(sys.argv[1]).close(); print('in')"

    def another() -> str:
        ran = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False)
        return ran.stdout.strip() or ran.stderr.strip().splitlines()[-1]

    with opened(folder, clock):
        assert "another part of this one, has opened it: close that one. An office is for one process" in another()
        with pytest.raises(StoreError, match="another part of this one"):
            opened(folder, clock)
    assert another() == "in"


def test_what_fails_to_open_lets_go_of_the_folder(folder: Path, clock: FixedClock) -> None:
    opened(folder, clock).close()
    keyring = (folder / "keyring.json").read_bytes()
    (folder / "keyring.json").write_bytes(b"{}")
    with pytest.raises(KeyringError):
        opened(folder, clock)
    (folder / "keyring.json").write_bytes(keyring)
    opened(folder, clock).close()


def test_a_forked_child_is_denied_and_does_not_keep_the_folder(folder: Path, clock: FixedClock) -> None:
    office = opened(folder, clock)
    token = minted(office)
    ready, told = os.pipe()
    go, ended = os.pipe()
    child = os.fork()
    if not child:
        os.close(ended)
        code = office.verifier.check(token, ASK).code
        os.write(told, code.encode())
        os.read(go, 1)
        os._exit(0)
    assert os.read(ready, 100) == b"store_unavailable"
    assert office.verifier.check(token, ASK)
    office.close()
    opened(folder, clock).close()  # while the child lives
    os.close(ended)
    os.waitpid(child, 0)
    for end in (ready, told, go):
        os.close(end)


def test_a_lock_that_cannot_be_opened_is_an_error_of_the_office(folder: Path, clock: FixedClock) -> None:
    """Of missing rights too, which a superuser has always: here, of a link that is not followed."""
    opened(folder, clock).close()
    (folder / "lock").unlink()
    (folder / "lock").symlink_to(folder / "trail.jsonl")
    with pytest.raises(StoreError, match="lock cannot be opened") as caught:
        opened(folder, clock)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(("said", "told"), [(("Too many open files",), "Too many open files"), ((), "no reason given")])
def test_what_the_system_refuses_is_told_with_the_file(folder: Path, clock: FixedClock, monkeypatch: pytest.MonkeyPatch, said: Any, told: str) -> None:
    def refuse(path: str) -> list[str]:
        error = OSError(errno.EMFILE, *said)
        error.filename = path
        raise error

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(StoreError, match=f"{folder.name}': .*{told}"):
        Office.open(folder, clock=clock)
