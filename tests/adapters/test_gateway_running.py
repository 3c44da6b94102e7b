"""A gateway that runs on while its keys are rotated, its trail is moved and its overlay grows old. Real processes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from captoken import Issuer, Keyring
from captoken._format.errors import KeyringError
from captoken.adapters._gateway import kept
from captoken.adapters._gateway.credentials import Unavailable
from captoken.adapters._gateway.kept import KeyringFile
from captoken.adapters.gateway import Gateway, configured, opened
from captoken.audit import check
from captoken.keys import AuditKey
from tests.adapters.serving import listening, served
from tests.adapters.test_gateway import KEY, TABLE, Service, gateway
from tests.program import CAPTOKEN

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

TRAIL = 'trail = "trail.jsonl"\ntrail_key = "audit.json"'


class Running:
    """A gateway in a process of its own, its folder, and what its log says."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], keyring: Keyring) -> None:
        self.folder = folder
        self.process = process
        self.keyring = keyring
        self.address = ""

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def text(self, keyring: Keyring | None = None) -> str:
        token = Issuer(keyring or self.keyring).mint(subject="user:jane", agent="support", task="returns", audience="payments", tools={"payments.*": {}})
        return token.present(audience="payments")

    def status(self, text: str) -> int:
        headers = {"Authorization": f"Bearer {text}"}
        return httpx.get(f"{self.address}/payments/v1/refunds/re_1", headers=headers, trust_env=False, timeout=20).status_code

    def wait_for(self, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < until and self.process.poll() is None, self.log
            time.sleep(0.05)

    def hang_up(self, said: str) -> None:
        """Send SIGHUP, and wait until the log says so once more."""
        before = self.log.count(said)
        self.process.send_signal(signal.SIGHUP)
        self.wait_for(lambda: self.log.count(said) > before)

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(20)


@contextmanager
def running(folder: Path, more: str = "", **given: Any) -> Iterator[Running]:
    keyring = Keyring.generate()
    keyring.save(folder / "keyring.json")
    AuditKey.generate().save(folder / "audit.json")
    (folder / "key").touch(0o600)
    (folder / "key").write_text(KEY)
    with served(Service(), listening()) as url:
        listen = f'listen = "127.0.0.1:0"\n{more}'
        (folder / "gateway.toml").write_text(TABLE.format(origin="http://127.0.0.1:1", url=url, credential='"file:key"', token='"bearer"', more=listen))
        command = [CAPTOKEN, "gateway", "run", str(folder / "gateway.toml"), "--json"]
        with (
            open(folder / "log", "wb") as log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, **{"stdin": subprocess.DEVNULL, **given}) as process,
        ):
            made = Running(folder, process, keyring)
            try:
                assert process.stdout is not None
                made.address = json.loads(process.stdout.readline())["address"]
                yield made
            finally:
                process.kill()


def test_keys_are_rotated_while_it_runs(tmp_path: Path) -> None:
    """A new key counts within moments, and so does it that one is retired. Nobody tells it."""
    with running(tmp_path) as gateway:
        old = gateway.text()
        assert gateway.status(old) == 200
        rotated = gateway.keyring.rotate()
        new = gateway.text(rotated)
        assert gateway.status(new) == 401
        rotated.save(tmp_path / "keyring.json")
        gateway.wait_for(lambda: gateway.status(new) == 200)
        assert gateway.status(old) == 200
        rotated.retire(gateway.keyring.current).save(tmp_path / "keyring.json")
        gateway.wait_for(lambda: gateway.status(old) == 401)
        assert gateway.status(new) == 200 and f"the keyring is read again: it has {rotated.current}\n" in gateway.log
        assert gateway.end() == 0


def test_a_hangup_ends_nothing_and_says_what_was_read(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        text = gateway.text()
        gateway.hang_up(f"the keyring is read again: it has {gateway.keyring.current}")
        assert gateway.status(text) == 200
        (tmp_path / "keyring.json").write_text("{}")
        gateway.hang_up("the keyring is not read again, and counts for 60 s: the key file")
        assert gateway.status(text) == 200
        gateway.keyring.save(tmp_path / "keyring.json")
        gateway.hang_up("the keyring is read again")
        assert gateway.end() == 0


def test_it_ends_with_its_terminal(tmp_path: Path) -> None:
    """The same signal, where nobody sits there any more."""
    leading, following = pty.openpty()
    with running(tmp_path, stdin=following, start_new_session=True) as gateway:
        os.close(following)
        gateway.hang_up("the keyring is read again")
        os.close(leading)
        gateway.process.send_signal(signal.SIGHUP)
        assert gateway.process.wait(20) == 0


def test_a_trail_that_was_moved_goes_on_in_a_new_file(tmp_path: Path) -> None:
    """Until the signal all is denied, with the file and what is wrong with it. No record is lost, and both files together are whole."""
    with running(tmp_path, TRAIL) as gateway:
        text = gateway.text()
        assert gateway.status(text) == 200
        (tmp_path / "trail.jsonl").rename(tmp_path / "trail.1")
        assert gateway.status(text) == 503
        assert "the decision cannot be recorded: the file of this trail was renamed or deleted" in gateway.log and "trail.jsonl" in gateway.log
        gateway.hang_up("the trail was moved: it goes on in a new file")
        assert gateway.status(text) == 200
        gateway.hang_up("the keyring is read again")
        assert gateway.log.count("the trail was moved") == 1
        (tmp_path / "trail.jsonl").rename(tmp_path / "trail.2")
        (tmp_path / "trail.jsonl").write_text("no trail\n")
        gateway.hang_up("the trail cannot be opened again, and all is denied: the file does not end in records")
        assert gateway.status(text) == 503
        (tmp_path / "trail.jsonl").unlink()
        gateway.hang_up("the trail was moved")
        assert gateway.status(text) == 200
        assert gateway.end() == 0
    lines = b"".join((tmp_path / name).read_bytes() for name in ("trail.1", "trail.2", "trail.jsonl")).splitlines(keepends=True)
    found = check(lines, [AuditKey.load(tmp_path / "audit.json").public])
    assert found.decisions == 6 and found.signed == found.head.seq - 1
    # The new file says of itself what its tokens are: it can be read alone.
    assert {"token", "decision", "checkpoint"} == {json.loads(line)["kind"] for line in (tmp_path / "trail.jsonl").read_text().splitlines()}


def test_the_end_of_a_trail_is_signed_in_time_and_at_the_end(tmp_path: Path) -> None:
    with running(tmp_path, f"{TRAIL}\ntrail_every = 1") as gateway:
        def kinds() -> list[str]:
            return [json.loads(line)["kind"] for line in (tmp_path / "trail.jsonl").read_text().splitlines()]

        assert gateway.status(gateway.text()) == 200
        gateway.wait_for(lambda: kinds()[-1] == "checkpoint")
        time.sleep(1.5)
        assert kinds().count("checkpoint") == 1, "what is signed is not signed again"
        assert gateway.status(gateway.text()) == 200
        assert gateway.end() == 0 and kinds()[-1] == "checkpoint"


def test_a_keyring_that_cannot_be_read_grows_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """For a minute it is the one that was read last, and then it is none. A file of others is no keyring."""
    now = [0.0]
    monkeypatch.setattr(kept, "monotonic", lambda: now[0])
    path, keyring = tmp_path / "keyring.json", Keyring.generate()
    with pytest.raises(KeyringError):
        KeyringFile(path)
    keyring.save(path)
    source = KeyringFile(path)
    assert source().key_ids == keyring.key_ids
    for spoil in (lambda: path.chmod(0o644), lambda: path.write_text(""), path.unlink):
        since = now[0]
        spoil()
        now[0] = since + 0.5
        assert source().key_ids == keyring.key_ids and not caplog.messages
        for later in (1, 30, 60):
            now[0] = since + later
            assert source().key_ids == keyring.key_ids
        assert len(caplog.messages) == 1 and "keyring.json" in caplog.text
        now[0] = since + 61
        with pytest.raises(Unavailable, match=r"keyring\.json"):
            source()
        path.unlink(missing_ok=True)
        keyring.save(path)
        now[0] += 1
        assert source().key_ids == keyring.key_ids
        caplog.clear()
    # Nobody asked for an hour: then it was last read an hour ago.
    path.unlink()
    now[0] += 3600
    with pytest.raises(Unavailable):
        source()


def test_without_a_keyring_it_is_unavailable_and_nothing_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from captoken import AsyncVerifier

    keyring = Keyring.generate()
    keyring.save(tmp_path / "keyring.json")
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_text(KEY)
    service = Service()
    with served(service, listening()) as url:
        (tmp_path / "gateway.toml").write_text(TABLE.format(origin="http://127.0.0.1:1", url=url, credential='"file:key"', token='"bearer"', more=""))
        source = KeyringFile(tmp_path / "keyring.json")
        made = Gateway(configured(str(tmp_path / "gateway.toml")), {"payments": AsyncVerifier(source, "payments")})
        token = Issuer(keyring).mint(subject="user:jane", agent="support", task="returns", audience="payments", tools={"payments.*": {}})
        with served(made, listening(), lifespan="on") as origin:
            ask = {"headers": {"Authorization": f"Bearer {token.present(audience='payments')}"}, "trust_env": False}
            assert httpx.get(f"{origin}/payments/v1/refunds/re_1", **ask).status_code == 200  # type: ignore[arg-type]
            (tmp_path / "keyring.json").unlink()
            monkeypatch.setattr(kept, "BOUND", -1)
            monkeypatch.setattr(kept, "EVERY", 0)
            refused = httpx.get(f"{origin}/payments/v1/refunds/re_1", **ask)  # type: ignore[arg-type]
        assert (refused.status_code, refused.json()["detail"], refused.headers["retry-after"]) == (503, "The gateway has no keyring now.", "5")
        assert len(service.requests) == 1


@pytest.mark.parametrize("kept_for, told", [(None, ""), ("payments", ""), ("mailer", "mailer alone: each token for payments is denied")])
def test_keys_of_another_server_are_told_of_once_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture, kept_for: str | None, told: str) -> None:
    keyring = Keyring.generate()
    with gateway(tmp_path):
        (tmp_path / "keyring.json").unlink()
        (keyring if kept_for is None else keyring.for_audience(kept_for)).save(tmp_path / "keyring.json")
        caplog.clear()
        with opened(str(tmp_path / "gateway.toml")):
            assert len(caplog.messages) == bool(told) and told in caplog.text
