"""May the bearer do this? A proof is taken once, and what is asked is explained without making a file."""


import io
import sys
from contextlib import closing

import pytest

from captoken import Access, Issuer, Keyring, Token, Verifier
from captoken.cli import app
from captoken.stores.sqlite import SQLiteLedger
from captoken.testing import FixedClock, fixed_random
from tests.cli.test_cli import COMMANDS, HOLDER, KEYRING, NOW, captoken
from tests.cli.test_files import HOSTILE

BOUND = Issuer(KEYRING, clock=FixedClock(NOW), random=fixed_random("cli")).mint(
    subject="user:jane", agent="orchestrator", task="task-123", key=HOLDER.public, tables=["*"], operations=["select"]
)


def proven(now=NOW):
    """What the holder of the key sends to select from `sales`."""
    reading = Access(table="sales", operation="select")
    return BOUND.present(audience="sales-db", signer=HOLDER, request=reading, clock=FixedClock(now))


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_proof_proves_nothing(name, folder, monkeypatch, capsys):
    """Where the proof is, at the end of the text, there is something else."""
    monkeypatch.chdir(folder)
    sent = proven().partition(".cap1p_")[0].encode() + b".cap1p_" + HOSTILE[name]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(sent)))
    asked = ["--keyring", "keyring.json", "--audience", "sales-db", "--table", "sales", "--operation", "select"]
    code = app.run(["verify", *asked, "--replays", "hostile.db", "--now", str(NOW)])
    written = capsys.readouterr()
    assert written.out.startswith("denied malformed") and code == 1
    assert all(char == "\n" or char.isprintable() for char in written.out + written.err)


def test_a_proof_is_taken_once(folder, monkeypatch, capsys):
    """The same command line: allowed, and then denied. `explain` sees what was used, and uses nothing."""
    monkeypatch.chdir(folder)
    asked = ["--keyring", "keyring.json", "--audience", "sales-db", "--token-file", "sent", "--table", "sales"]
    asked += ["--operation", "select", "--replays", "once.db"]
    codes = []
    for seconds, commands in ((0, ["explain", "verify", "create"]), (6, ["explain", "explain", "verify", "verify", "explain"])):
        (folder / "sent").write_text(proven(NOW + seconds))
        for command in commands:
            first = ["verify", "--create"] if command == "create" else [command]
            codes.append(app.run([*first, *asked, "--now", str(NOW + seconds)]))
    assert codes == [1, 1, 1, 0, 0, 0, 1, 1]
    assert "once.db is new" in capsys.readouterr().err


def test_a_file_that_is_made_along_with_the_keys_takes_their_first_proof(tmp_path, monkeypatch, capsys):
    """At once; a server may count in it too. Where it is there already, no keys are written."""
    monkeypatch.chdir(tmp_path)
    assert app.run(["keygen", "--out", "keyring.json", "--create", "used.db"]) == 0
    keyring = Keyring.load("keyring.json")
    reading = Access(table="sales", operation="select")
    root = Issuer(keyring, clock=FixedClock(NOW)).mint(
        subject="user:jane", agent="a", task="t", tables=["sales"], operations=["select"], key=HOLDER.public
    )
    sent = root.present(audience="sales-db", signer=HOLDER, request=reading, clock=FixedClock(NOW))
    (tmp_path / "sent").write_text(sent)
    asked = ["--keyring", "keyring.json", "--audience", "sales-db", "--token-file", "sent", "--table", "sales", "--operation", "select"]
    assert [app.run(["verify", *asked, "--replays", "used.db", "--now", str(NOW)]) for _ in range(2)] == [0, 1]
    with closing(SQLiteLedger("used.db", shared=True)) as ledger:
        counted = Issuer(keyring).mint(subject="user:jane", agent="a", task="t", tables=["sales"], operations=["select"], uses=1)
        assert Verifier(keyring, ledger=ledger).check(counted, reading)
    assert app.run(["keygen", "--out", "other.json", "--create", "used.db"]) == 2 and not (tmp_path / "other.json").exists()
    capsys.readouterr()


def test_a_file_of_a_ledger_knows_marks(tmp_path, monkeypatch, capsys):
    """What was done before closes what is done after, from one command to the next."""
    monkeypatch.chdir(tmp_path)
    assert app.run(["keygen", "--out", "keyring.json", "--create", "used.db"]) == 0
    token = Issuer(Keyring.load("keyring.json").for_audience("desk"), clock=FixedClock(NOW)).mint(
        subject="user:jane", agent="a", task="t", tables=["crm.*"], operations=["select"], tools={"mail.send": {}},
        marks={"private": {"tables": ["crm.*"]}, "outside": {"tools": ["mail.*"]}},
        forbid=[{"in": ["outside"], "after": ["private"]}],
    )  # fmt: skip
    (tmp_path / "token").write_text(token.serialize())
    asked = ["verify", "--keyring", "keyring.json", "--audience", "desk", "--token-file", "token", "--ledger", "used.db"]
    mail, rows = ["--tool", "mail.send"], ["--table", "crm.customers", "--operation", "select"]
    assert [app.run([*asked, *what, "--now", str(NOW)]) for what in (mail, rows, mail)] == [0, 0, 1]
    assert [app.run(["explain", *asked[1:], *what, "--now", str(NOW)]) for what in (rows, mail)] == [0, 1]
    assert "denied forbidden_after" in capsys.readouterr().out


def test_to_explain_makes_no_file(folder, monkeypatch, capsys):
    """It would know nothing of what was used, and `verify` would take it for a store that does."""
    monkeypatch.chdir(folder)
    (folder / "sent").write_text(proven())
    asked = ["--keyring", "keyring.json", "--audience", "sales-db", "--token-file", "sent", "--table", "sales"]
    assert app.run(["explain", *asked, "--operation", "select", "--replays", "looked.db", "--now", str(NOW)]) == 1
    assert "looked.db is not there: --create makes one" in capsys.readouterr().out and not (folder / "looked.db").exists()


def test_a_proof_may_be_about_the_columns_that_are_read(folder):
    """`--column` is what is accessed and `--columns` what is permitted: neither is taken for the other."""
    done = captoken("present", "--audience", "sales-db", "--signer", "holder.json", "--table", "sales", "--operation", "select",
                    "--column", "amount", "--columns", "sales=amount,month", "--now", str(NOW), stdin=BOUND.serialize(), cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    held = Token.parse(done.stdout.decode().strip().partition(".cap1p_")[0])
    assert held.unverified.capability.json()["columns"] == {"sales": ["amount", "month"]}


@pytest.mark.parametrize(
    "request_", [["--token-only"], ["--table", "sales", "--operation", "select"], ["--http", "GET", "https://a.example", "/"]]
)
def test_a_request_without_the_key_is_a_mistake(request_):
    """Whoever states one believes that it is proven. Nothing is written that would not be."""
    done = captoken("present", "--audience", "sales-db", *request_, "--now", str(NOW), stdin=BOUND.serialize())
    assert done.returncode == 2 and done.stdout == b"" and b"goes with --signer" in done.stderr


@pytest.mark.parametrize("command", ["attenuate", "delegate", "require", "tickets", "attach", "present"])
def test_a_text_with_a_proof_is_not_held(command, folder):
    arguments = COMMANDS[command] if command in ("tickets", "attach") else [*COMMANDS[command], "--now", str(NOW)]
    done = captoken(command, *arguments, stdin=proven(), cwd=folder)
    assert done.returncode == 2 and done.stdout == b"" and b"with a proof is good for one request" in done.stderr
