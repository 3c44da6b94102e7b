"""The trail of a server that runs on: opened again where it was moved, and signed where something is new."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from captoken.audit import check
from captoken.audit._kept import TrailKept
from captoken.errors import AuditError
from captoken.keys import AuditKey
from tests.fixtures import data, mint, verifier

ASKED = data("sales")
SERVER = AuditKey.from_bytes(bytes(range(32)))


def kinds(path: Path) -> list[str]:
    return [json.loads(line)["kind"] for line in path.read_text().splitlines()]


def test_it_is_signed_where_something_is_new(tmp_path: Path) -> None:
    path = tmp_path / "trail.jsonl"
    with TrailKept(path, key=SERVER) as trail:
        trail.sign()
        assert path.read_text() == ""
        server = verifier(audit=trail)
        server.check(mint(), ASKED)
        trail.sign()
        trail.sign()
        assert kinds(path) == ["token", "decision", "checkpoint"]
        server.check(mint(), ASKED)
    assert kinds(path)[-2:] == ["decision", "checkpoint"]
    with TrailKept(path) as unsigned:
        verifier(audit=unsigned).check(mint(), ASKED)
    assert kinds(path)[-1] == "decision" and check(path.read_bytes().splitlines(keepends=True), [SERVER.public]).decisions == 3


def test_it_goes_on_in_another_file(tmp_path: Path) -> None:
    """Where the old one ended; and where a file of that name has records, with these."""
    path, old = tmp_path / "trail.jsonl", tmp_path / "old.jsonl"
    with TrailKept(path, key=SERVER) as trail:
        server = verifier(audit=trail)
        server.check(mint(), ASKED)
        assert not trail.reopen()
        path.rename(old)
        assert server.check(mint(), ASKED).code == "store_unavailable"
        assert trail.reopen() and not trail.reopen()
        server.check(mint(), ASKED)
        lines = old.read_bytes() + path.read_bytes()
        assert check(lines.splitlines(keepends=True)).decisions == 2 and kinds(path) == ["token", "decision"]
        # The moved file is let go of, and the new one is held.
        with TrailKept(old), pytest.raises(AuditError, match="writes to this trail"):
            TrailKept(path)
        old.replace(path)
        assert trail.reopen()
        server.check(mint(), ASKED)
        assert kinds(path) == ["token", "decision", "token", "decision"] and check(path.read_bytes().splitlines(keepends=True)).decisions == 2


def test_a_record_of_an_issuer_goes_there_too(tmp_path: Path) -> None:
    with TrailKept(tmp_path / "trail.jsonl", waits=False) as trail:
        assert trail.waits is False
        trail.record_issuance({"at": 1, "allowed": False, "code": "x"})
        decision = verifier().check(mint(), ASKED)
        trail.record(decision)
        trail.record_all((decision, decision))
    assert kinds(tmp_path / "trail.jsonl") == ["issuance", "token", "decision", "decision", "decision"]


def test_a_checkpoint_that_fails_denies_nothing_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.ERROR)
    path = tmp_path / "trail.jsonl"
    with TrailKept(path, key=SERVER) as trail:
        verifier(audit=trail).check(mint(), ASKED)
        path.unlink()
        trail.sign()
        assert "a checkpoint was not written: the file of this trail was renamed or deleted" in caplog.text and "trail.jsonl" in caplog.text
        monkeypatch.setattr(AuditKey, "sign", lambda self, data: 1 / 0)
        trail.sign()
        assert caplog.messages[-1] == "a checkpoint was not written: ZeroDivisionError"
