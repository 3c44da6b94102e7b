"""A person's yes at the terminal is a consent to what was shown, and all else is a no."""

from __future__ import annotations

import json

import pytest

from captoken import Access, Issuer, Keyring, Verifier
from captoken.audit import AuditTrail
from captoken.cli import app
from captoken.cli.terminal import lines_of
from captoken.consent import Approver, ApproverKey
from captoken.stores.memory import MemoryReplayStore
from captoken.testing import FixedClock
from tests.cli.test_cli import AT_TERMINAL, NOW, run
from tests.program import CAPTOKEN

CLOCK = FixedClock(NOW)
KEY = ApproverKey.from_bytes(bytes(range(3, 35)))
KEYRING = Keyring.from_keys({"k1": bytes(range(32))}, current="k1").for_audience("mail")
ROOT = Issuer(KEYRING, clock=CLOCK).mint(
    subject="user:jane", agent="assistant", task="t", tools={"mail.send": {}}, expires_in=600,
    consent=[{"by": KEY.public, "for": {"tools": ["*"]}}],
)  # fmt: skip
SEND = Access(tool="mail.send", arguments={"to": "ann@example.com", "a b": "\u202ee = 1"})


def request(access: Access = SEND) -> str:
    return Verifier(KEYRING, "mail", clock=CLOCK).check(ROOT.present(audience="mail"), access).request() or ""


@pytest.fixture
def keys(tmp_path):
    KEY.save(tmp_path / "jane.json")
    ApproverKey.generate().save(tmp_path / "bob.json")
    return tmp_path


def consent(answer, folder, *more, asked=None, key="jane.json"):
    done = run(
        AT_TERMINAL, answer, CAPTOKEN, "consent", "--key", key, "--now", str(NOW), *more, stdin=asked or request(), cwd=folder
    )
    return done.returncode, done.stderr.decode(), done.stdout.decode()


@pytest.mark.parametrize("answer", ["y", "YES "])
def test_a_yes_is_a_consent_to_what_was_shown(answer, keys):
    code, shown, written = consent(answer, keys)
    assert code == 0 and "cap1" not in shown
    for line in (
        "  server = mail", "  tool = mail.send", '    to = "ann@example.com"', '    "a b" = "\\u202ee = 1"',
        "  agent = assistant, for user:jane", "Consent to this, once, within 5m? [y/N]",
    ):  # fmt: skip
        assert line in shown, line
    server = Verifier(KEYRING, "mail", clock=CLOCK, replays=MemoryReplayStore(floor=0))
    text = ROOT.present(audience="mail", consents=[written.strip()])
    assert [server.check(text, SEND).code for _ in range(2)] == ["allowed", "replayed"]


@pytest.mark.parametrize("answer", ["", "n", "yes please", "\x04", "y\x04\x04"])
def test_all_else_is_a_no(answer, keys):
    code, shown, written = consent(answer, keys)
    assert code == 1 and written == "" and "nothing is consented to" in shown


def test_what_is_longer_than_a_person_reads_is_refused(keys):
    """What does not fit the terminal has not been seen."""
    long = request(Access(tool="mail.send", arguments={"to": "ann@example.com", "text": "x" * 5000}))
    code, shown, written = consent("y", keys, asked=long)
    assert code == 2 and written == "" and "what is not seen is not approved" in shown and "[y/N]" not in shown


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"key": "bob.json"}, "the request is for another key"),
        ({"asked": "{}"}, "this is no request for a consent"),
        ({"asked": ROOT.serialize()}, "this is no request for a consent"),
    ],
)
def test_nobody_is_asked_about_what_is_no_request_for_them(more, told, keys):
    code, shown, written = consent("y", keys, **more)
    assert code == 2 and written == "" and told in shown and "[y/N]" not in shown and ROOT.serialize() not in shown


def test_nobody_is_asked_for_longer_than_a_consent_lives(keys):
    code, shown, written = consent("y", keys, "--expires-in", "61m")
    assert code == 2 and written == "" and "a consent is valid for 1h at most" in shown and "[y/N]" not in shown


def test_no_argument_looks_like_another_fact():
    """A name with more in it than letters stands in quotes, and is indented as all arguments are."""
    nasty = Access(tool="mail.send", arguments={"to = 1": 2, "server": "bank", "|": "x", "\u05d0": 1})
    lines = lines_of(Approver(KEY).read(request(nasty)).lines(), 80)
    assert [line for line in lines if line.startswith("  server")] == ["  server = mail"]
    assert {'    "to = 1" = 2', '    server = "bank"', '    "|" = "x"', "    \\u05d0 = 1"} <= set(lines)


def test_the_log_of_a_trail_says_who_consented_and_when(keys):
    lines = []
    server = Verifier(KEYRING, "mail", clock=CLOCK, replays=MemoryReplayStore(floor=0), audit=AuditTrail(lines.append))
    yes = Approver(KEY, clock=CLOCK).consent(request())
    assert server.check(ROOT.present(audience="mail", consents=[yes]), SEND)
    (keys / "trail.jsonl").write_bytes(b"".join(lines))
    shown = run(CAPTOKEN, "audit", "log", "trail.jsonl", cwd=keys).stdout.decode()
    assert shown.endswith(f"tool mail.send(a b, to); consent of {KEY.public}, given 2025-11-25 09:00:00Z\n")
    said = json.loads(run(CAPTOKEN, "audit", "log", "--json", "trail.jsonl", cwd=keys).stdout)
    assert said["decisions"][0]["consents"] == [{"by": KEY.public, "iat": NOW, "exp": NOW + 300, "link": 0}]


def test_nobody_is_asked_without_a_terminal(keys, capsys):
    done = run(CAPTOKEN, "consent", "--key", "jane.json", stdin=request(), cwd=keys, code="setsid")
    assert done.returncode == 2 and b"there is no terminal to ask at: nobody but a person consents" in done.stderr
    assert app.run(["consent", "--help"]) == 0 and "Only `y` or `yes` counts" in capsys.readouterr().out
