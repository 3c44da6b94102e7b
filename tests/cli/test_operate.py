"""`captoken operate` keeps what stands fresh: in time, through trouble that passes, and until a signal ends it in silence."""

import json
import os
import signal
import subprocess
import time

import pytest

from captoken._format.errors import StoreError
from captoken.cli import app, renewing
from captoken.control import Overlay
from captoken.keys import OperatorKey
from tests.program import CAPTOKEN

KEY = OperatorKey.from_bytes(bytes(range(3, 35)))
OPERATING = ["--key", "operator.json", "--store", "overlay.db"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    KEY.save("operator.json")
    return tmp_path


def begun(*arguments):
    """The command as it runs, once it has signed its first snapshot, and that snapshot."""
    running = subprocess.Popen(
        [CAPTOKEN, "operate", *OPERATING, "--json", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={"PATH": os.defpath},
    )  # fmt: skip
    return running, json.loads(running.stdout.readline())


def stored(folder):
    from captoken.stores.sqlite import SQLiteSnapshots

    store = SQLiteSnapshots(str(folder / "overlay.db"))
    try:
        return Overlay.open(store.load(), [KEY.public])
    finally:
        store.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_renews_until_a_signal_ends_it(number, folder):
    running, first = begun("--create", "--every", "1s")
    second = json.loads(running.stdout.readline())
    assert (first["seq"], second["seq"]) == (1, 2) and first.keys() == {"seq", "issued_at", "entries"}
    asked = time.monotonic()
    running.send_signal(number)
    rest, told = running.communicate(timeout=30)
    assert running.returncode == 0 and time.monotonic() - asked < 10
    assert told.decode().splitlines() == [
        "captoken: overlay.db is new: let verifiers read this file",
        "captoken: overlay.db is renewed every 1s: Ctrl-C ends that",
    ]
    assert stored(folder).seq == 2 + len(rest.splitlines()) == int((folder / "operator.json.seen").read_text().split()[0])


def test_a_hangup_renews_at_once(folder):
    """And ends nothing: that is how a service manager says that something has changed."""
    running, first = begun("--create", "--every", "59m")
    for seq in (2, 3):
        running.send_signal(signal.SIGHUP)
        assert json.loads(running.stdout.readline())["seq"] == seq
    running.send_signal(signal.SIGHUP)
    running.send_signal(signal.SIGTERM)
    rest, _ = running.communicate(timeout=30)
    assert running.returncode == 0 and first["seq"] == 1 and stored(folder).seq == 3 + len(rest.splitlines())


def test_other_commands_work_beside_it(folder):
    """An entry that another process makes is kept, and signed anew."""
    running, _ = begun("--create", "--every", "1s")
    assert app.run(["end-task", "q3", *OPERATING, "--by", "user:jane"]) == 0
    while json.loads(running.stdout.readline())["entries"] != 1:
        pass
    running.terminate()
    running.communicate(timeout=30)
    (entry,) = stored(folder).entries
    assert running.returncode == 0
    assert (entry.select.task, entry.link, entry.by, entry.why) == ("q3", None, "user:jane", "the task is over")


def test_a_store_that_is_gone_ends_it(folder):
    """It begins no other one: nothing that was revoked would stand in it."""
    running, _ = begun("--create", "--every", "1s")
    (folder / "overlay.db").unlink()
    told = running.communicate(timeout=30)[1].decode().splitlines()
    assert running.returncode == 2 and "overlay.db is not there" in told[-1]
    assert not (folder / "overlay.db").exists()


def test_a_store_that_goes_back_ends_it(folder):
    """An old copy in its place, without what was revoked meanwhile."""
    assert app.run(["renew", *OPERATING, "--create"]) == 0
    old = (folder / "overlay.db").read_bytes()
    assert app.run(["end-task", "q3", *OPERATING]) == 0
    (folder / "overlay.db").write_bytes(old)
    running = subprocess.run([CAPTOKEN, "operate", *OPERATING], capture_output=True, env={"PATH": os.defpath}, timeout=30)
    assert running.returncode == 2 and b"the store has lost snapshots" in running.stderr


def test_a_store_that_cannot_be_reached_is_tried_again(folder, monkeypatch, capsys):
    """What is wrong is said once; and that it is over."""
    assert app.run(["renew", *OPERATING, "--create"]) == 0
    capsys.readouterr()
    really, failures, waited = renewing.operating, ["busy", "busy", "locked"], []

    def operating(*arguments, **options):
        if failures:
            raise StoreError(failures.pop(0))
        return really(*arguments, **options)

    monkeypatch.setattr(renewing, "operating", operating)
    made = renewing._renewed("operator.json", "overlay.db", (), lambda seconds: bool(waited.append(seconds)))
    assert made.seq == 2 and waited == [2, 2, 2]
    assert capsys.readouterr().err.splitlines() == [
        "captoken: not renewed: busy; tried again every 2s",
        "captoken: not renewed: locked; tried again every 2s",
        "captoken: overlay.db is renewed again",
    ]


def test_a_signal_ends_it_while_the_store_cannot_be_reached(folder, monkeypatch, capsys):
    def operating(*arguments, **options):
        raise StoreError("busy")

    monkeypatch.setattr(renewing, "operating", operating)
    assert renewing._renewed("operator.json", "overlay.db", (), lambda seconds: True) is None


def test_signals_are_what_they_were_when_it_is_over(folder):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with renewing.until_ended() as wait:
        assert wait(0) is False
        os.kill(os.getpid(), signal.SIGTERM)
        assert wait(5) is True and wait(0) is True
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize(("every", "code"), [("0s", 2), ("1h", 2), ("soon", 2)])
def test_what_is_too_often_or_too_seldom_is_refused(every, code, folder, capsys):
    assert app.run(["operate", *OPERATING, "--create", "--every", every]) == code
    assert "--every" in capsys.readouterr().err and not (folder / "overlay.db").exists()
