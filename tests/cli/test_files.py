"""Tokens and tickets from files: what is none is one line, and no traceback."""


import io
import sys

import pytest

from captoken._format.encoding import b64encode
from captoken._format.text import PREFIX
from captoken.cli import app
from tests.cli.test_cli import COMMANDS, ROOT, captoken


@pytest.mark.parametrize("spelling", ["{}", "{}\n", "\r\n {}\t\r\n\n"])
def test_white_space_around_a_token_does_not_matter(spelling):
    done = captoken("inspect", "--json", stdin=spelling.format(ROOT.serialize()))
    assert done.returncode == 0


HOSTILE = {
    "nothing": b"",
    "zeros": bytes(50_000),
    "all bytes": bytes(range(256)) * 40,
    "only the prefix": b"cap1_",
    "no base64": b"cap1_????",
    "cut short": ROOT.serialize().encode()[:-7],
    "a letter more": ROOT.serialize().encode() + b"A",
    "two tokens": (ROOT.serialize() + "\n" + ROOT.serialize()).encode(),
    "a byte order mark": b"\xef\xbb\xbf" + ROOT.serialize().encode(),
    "UTF-16": ROOT.serialize().encode("utf-16"),
    "escape sequences": b"\x1b]0;owned\x07\x1b[31mcap1_",
    "a macaroon of another kind": (PREFIX + b64encode(b"\2\2\1a\0\0\6\x20" + bytes(32))).encode(),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_token_is_one_line_and_no_traceback(command, name, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(HOSTILE[name])))
    code = app.run([command.split()[0], *COMMANDS[command]])
    written = capsys.readouterr()
    denied = command in ("verify", "explain") and HOSTILE[name]
    assert code == (1 if denied else 2)
    assert written.err.count("\n") == (0 if denied else 1)
    assert all(char == "\n" or char.isprintable() for char in written.out + written.err)


@pytest.mark.parametrize("command", ["discharge", "approve"])
@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "nothing"])
def test_what_is_no_ticket_is_one_line_and_no_traceback(command, name, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(HOSTILE[name])))
    code = app.run([command, "--key", "discharger.json", "--expires-in", "60s"])
    written = capsys.readouterr()
    assert code == 2 and written.out == "" and written.err.count("\n") == 1
    assert all(char == "\n" or char.isprintable() for char in written.err)
