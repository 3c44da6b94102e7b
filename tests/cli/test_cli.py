"""What the sessions do not show: other terminals, hostile bytes, a missing extra, and what must never be written."""

import io
import os
import pty
import re
import runpy
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from captoken import Access, Denied, Issuer, Keyring, Token, Verifier
from captoken._format.encoding import b64encode, encode_json
from captoken._format.parts import Packet
from captoken._format.text import PREFIX
from captoken._writing.keywords import OF_THE_TOKEN, LinkCaveats, MintCaveats, PresentCaveats
from captoken.adapters.sqlite import guarded
from captoken.cli import app, consent, inspect
from captoken.cli.view import Shown, read, view
from captoken.discharge import Allow, Discharge, Discharger, Wait
from captoken.keys import DischargerKey, HolderKey
from captoken.stores.ports import Head
from captoken.stores.sqlite import SQLiteLedger
from captoken.testing import FixedClock, fixed_random
from tests.cli.test_transcripts import every_command
from tests.program import CAPTOKEN
from tests.program import ROOT as TREE

AT_TERMINAL = os.path.join(os.path.dirname(__file__), "at_terminal.py")
NOW = 1_764_061_200
HOLDER, DISCHARGER = HolderKey.from_bytes(bytes(range(1, 33))), DischargerKey.from_bytes(bytes(range(2, 34)))
COMMANDS = {
    "inspect": [],
    "inspect --mermaid": ["--mermaid"],
    "inspect --json": ["--json"],
    "attenuate": ["--tables", "sales"],
    "delegate": ["--to", "other-agent"],
    "require": ["--discharger", DISCHARGER.public, "--need", "a=1"],
    "tickets": [],
    "attach": ["--discharge", "discharge"],
    "present": ["--audience", "sales-db"],
    "present --signer": ["--signer", "holder.json", "--audience", "sales-db", "--token-only"],
    "verify": ["--keyring", "keyring.json", "--table", "sales", "--operation", "select"],
    "explain": ["--keyring", "keyring.json", "--table", "sales", "--operation", "select"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("cli")
    for name, keys in {"keyring.json": KEYRING, "holder.json": HOLDER, "discharger.json": DISCHARGER}.items():
        keys.save(made / name)
    (made / "ticket").write_text(TICKET.text)
    (made / "discharge").write_text(DISCHARGE.serialize())
    return made


KEYRING = Keyring.from_keys({"k1": bytes(range(32))}, current="k1")
ROOT = Issuer(KEYRING, clock=FixedClock(NOW), random=fixed_random("cli")).mint(
    subject="user:jane", agent="orchestrator", task="task-123", tables=["*"], operations=["select"], expires_in=600
)
ASKING = ROOT.require(DISCHARGER.public, need={"approve": "payment", "cents": 500}, location="https://approvals.example")
TICKET = ASKING.needs[0]
DISCHARGE = Discharger(DISCHARGER, lambda need: Wait(), clock=FixedClock(NOW)).approve(TICKET, Allow(expires_in=60))
BOUND = Issuer(KEYRING, clock=FixedClock(NOW), random=fixed_random("cli")).mint(
    subject="user:jane", agent="orchestrator", task="task-123", key=HOLDER.public, tables=["*"], operations=["select"]
)


def run(*arguments, stdin="", cwd=None, code=sys.executable, **environment):
    """The console script, in an environment of its own."""
    env = {"PATH": os.defpath, "PYTHONUTF8": "1", "PYTHONPATH": str(TREE)} | environment
    data = stdin if isinstance(stdin, bytes) else stdin.encode()
    return subprocess.run([code, *arguments], input=data, capture_output=True, cwd=cwd, env=env, timeout=60)


def captoken(*arguments, **options):
    return run(CAPTOKEN, *arguments, **options)


def in_a_terminal(*arguments, stdin, **environment):
    """What the console script writes to a terminal."""
    ours, theirs = pty.openpty()
    env = {"PATH": os.defpath, "PYTHONUTF8": "1", "TERM": "xterm-256color"} | environment
    done = subprocess.Popen(
        [sys.executable, CAPTOKEN, *arguments], stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, env=env
    )
    os.close(theirs)
    done.stdin.write(stdin.encode())
    done.stdin.close()
    written = b""
    try:
        while part := os.read(ours, 65536):
            written += part
    except OSError:  # Linux says so that the other end is closed
        pass
    os.close(ours)
    assert done.wait(60) == 0
    return written


def by_hand(link):
    """The root token with a link that no library checked."""
    return ROOT.with_raw_link(link)


# --- what is written where ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["attenuate", "--operations", "select"],
        ["attenuate", "--key", HOLDER.public],
        ["delegate", "--to", "b"],
        ["require", "--discharger", DISCHARGER.public, "--need", "a=1"],
        ["present", "--audience", "db"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_only_the_token_goes_to_standard_output(arguments):
    done = captoken(*arguments, "--now", str(NOW), stdin=ROOT.serialize())
    assert done.returncode == 0 and done.stderr == b""
    Token.parse(done.stdout.decode().removesuffix("\n"))


@pytest.mark.parametrize("spelling", ["{}", "{}\n", "\r\n {}\t\r\n\n"])
def test_white_space_around_a_token_does_not_matter(spelling):
    done = captoken("inspect", "--json", stdin=spelling.format(ROOT.serialize()))
    assert done.returncode == 0


def test_no_option_takes_a_secret():
    """Whatever is a key, a token, a discharge or a proof comes from a file; the keys that an option takes are public."""
    from captoken.cli.values import ID, PUBLIC

    secret = {
        "--keyring",
        "--key",
        "--signer",
        "--discharge",
        "--token-file",
        "--ticket-file",
        "--need-json",
        "--join",
    }
    # What is no option: a trail, a key's file, addresses and names. None of them is a secret.
    arguments = {
        "audit": ("trail_file", "FILE"),
        "audit tree trail_file": ("trail_file", "FILE..."),
        "audit export trail_files": ("trail_files", "FILE..."),
        "issue": ("policy", "POLICY.toml"),
        "gateway": ("path", "GATEWAY.toml"),
        "gateway run command": ("command", "[-- COMMAND...]"),
        "gateway explain method": ("method", "METHOD"),
        "gateway explain target": ("target", "TARGET"),
        "blast-radius": ("trail_file", "FILE"),
        "end-task": ("task", "TASK"),
        "docs": ("words", "[PAGE | WORD...]"),
        "test": ("scenario_file", "FILE..."),
        "login": ("issuer", "ISSUER"),
        "exchange": ("service", "SERVICE"),
        "completion show": ("shell", "SHELL"),
        "completion install": ("shell", "[SHELL]"),
        "keygen public": ("key_file", "FILE"),
        "keygen retire": ("key_id", "KEY_ID"),
        "keygen audience": ("name", "NAME"),
        "operate": ("resume", "[resume]"),
        "upgrade": ("paths", "[FILE.db|FOLDER]..."),
    }
    seen = set()
    for name, command in every_command():
        for parameter in command.params:
            option = parameter.opts[0]
            if parameter.param_type_name == "argument":
                group = name.partition(" ")[0] if name.startswith(("audit ", "gateway ", "issue ")) else name
                expected = arguments.get(f"{name} {option}") or arguments[group]
                assert expected == (option, parameter.metavar), name
            assert "--ticket" not in parameter.opts and ("--token" not in parameter.opts or parameter.type is ID)
            if parameter.type is PUBLIC:
                seen.add((name, option))
            elif option in secret or (name, option) in {("exchange", "--login"), ("exchange", "--actor")}:
                assert parameter.metavar == "FILE", (name, option)
    public = {
        "console": ["--operator"],
        "mint": ["--key"],
        "attenuate": ["--key"],
        "delegate": ["--key"],
        "keygen pairwise": ["--server", "--issuer"],
        "require": ["--discharger"],
        "tickets": ["--discharger"],
        "verify": ["--operator"],
        "explain": ["--operator"],
        "overlay": ["--operator"],
        "renew": ["--trusted"],
        "operate": ["--trusted"],
        "audit verify": ["--server"],
        "audit replay": ["--operator"],
    }
    assert seen == {(command, option) for command, options in public.items() for option in options}


def test_what_is_no_public_key_is_not_repeated():
    """It may be a secret, in a form of its own or in ours."""
    for given in ("hunter2", b64encode(bytes(range(33))), HOLDER.public + "="):
        done = captoken("attenuate", "--key", given, stdin=ROOT.serialize())
        assert done.returncode == 2 and given.encode() not in done.stderr


def test_a_public_key_may_start_with_a_hyphen(tmp_path):
    keys = (HolderKey.from_bytes(bytes([number + 1, *range(31)])) for number in range(255))
    public = next(key.public for key in keys if key.public[0] == "-")
    done = captoken("attenuate", "--key", public, "--now", str(NOW), stdin=ROOT.serialize())
    assert Token.parse(done.stdout.decode().strip()).unverified.key == public


MISPLACED = [
    ["inspect", "{}"],
    ["{}"],
    ["inspect", "--token-file", "{}"],
    ["inspect", "--now", "{}"],
    ["verify", "--{}"],
    ["keygen", "--out", "no/{}"],
    ["mint", "--keyring", "keyring.json", "--subject", "user:jane", "--agent", "{}", "--task", "t", "--unrestricted"],
    ["verify", "--keyring", "keyring.json", "--table", "{}.", "--operation", "select"],
]


@pytest.mark.parametrize("arguments", MISPLACED, ids=" ".join)
def test_a_token_that_is_misplaced_is_not_repeated(arguments, folder):
    text = ROOT.serialize()
    done = captoken(*(part.format(text) for part in arguments), stdin=text, cwd=folder)
    assert done.returncode == 2 and b"cap1_..." in done.stderr
    assert text[5:40].encode() not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "--token-only", "--keyring", "{}"],
        ["present", "--audience", "db", "--token-only", "--signer", "{}"],
        ["discharge", "--key", "{}"],
        ["renew", "--store", "overlay.db", "--key", "{}"],
        ["inspect", "--token-file", "{}"],
        ["{}"],
        ["keygen", "public", "{}"],
    ],
    ids=" ".join,
)
def test_nor_is_a_secret_key(arguments, folder):
    """Whoever takes the key itself for what an option wants sees it in no log."""
    secret = b64encode(bytes(range(1, 33)))
    done = captoken(*(part.format(secret) for part in arguments), stdin=ROOT.serialize(), cwd=folder)
    assert done.returncode == 2 and b"..." in done.stderr and secret[:4].encode() not in done.stderr


@pytest.mark.parametrize("kind", ["cap1_", "cap1u_", "cap1d_", "cap1p_"])
def test_nor_are_a_discharge_and_a_proof(kind, folder):
    text = kind + "A" * 40
    for arguments in (
        ["attach", "--discharge", text],
        ["verify", "--keyring", "keyring.json", "--token-only", "--token-file", text],
    ):
        done = captoken(*arguments, stdin=ROOT.serialize(), cwd=folder)
        assert done.returncode == 2 and f"{kind}...".encode() in done.stderr and b"AAAA" not in done.stderr


@pytest.mark.parametrize(
    "kind",
    [[], ["keyring"], ["holder"], ["discharger"], ["pairwise"], ["--holder"], ["--discharger"], ["--pairwise"]],
    ids=lambda kind: " ".join(kind) or "root",
)
def test_a_key_is_written_for_its_owner_alone_and_never_over_another_file(kind, tmp_path):
    target = tmp_path / "key.json"
    os.umask(os.umask(0))
    assert captoken("keygen", *kind, "--out", str(target)).returncode == 0
    assert target.stat().st_mode & 0o777 == 0o600
    before = target.read_bytes()
    assert captoken("keygen", *kind, "--out", str(target)).returncode == 2
    assert target.read_bytes() == before
    dangling = tmp_path / "link.json"
    dangling.symlink_to(tmp_path / "elsewhere.json")
    assert captoken("keygen", *kind, "--out", str(dangling)).returncode == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key.json", "link.json"]


@pytest.mark.parametrize("kind", ["holder", "discharger", "operator", "audit", "pairwise", "--holder", "--audit-key"])
def test_the_public_key_is_all_that_a_new_key_puts_on_standard_output(kind, tmp_path):
    target = tmp_path / "key.json"
    done = captoken("keygen", kind, "--out", str(target))
    public = done.stdout.decode().removesuffix("\n")
    assert len(public) == 43 and captoken("keygen", "public", str(target)).stdout == done.stdout
    secret = target.read_text().split('"secret":"')[1][:43]
    assert secret not in done.stdout.decode() + done.stderr.decode()


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ([], []),
        (["--help"], ["--help"]),
        (["--out", "a.json"], ["keyring", "--out", "a.json"]),
        (["--json", "--out", "a.json"], ["keyring", "--json", "--out", "a.json"]),
        (["--holder", "--out", "a.json"], ["holder", "--out", "a.json"]),
        (["--out", "a.json", "--audit-key"], ["audit", "--out", "a.json"]),
        (["--public", "a.json"], ["public", "a.json"]),
        (["--keyring", "a.json", "--rotate"], ["rotate", "--keyring", "a.json"]),
        (["--retire", "k1", "--keyring", "a.json"], ["retire", "k1", "--keyring", "a.json"]),
        (["--retire=k1"], ["retire", "k1"]),
        (["--pairwise", "--key", "a.json", "--audience", "b"], ["pairwise", "--key", "a.json", "--audience", "b"]),
        (["--audience", "b", "--out", "a.json"], ["audience", "b", "--out", "a.json"]),
        (["operator", "--out", "a.json"], ["operator", "--out", "a.json"]),
    ],
)
def test_a_kind_of_key_may_be_said_as_before(before, now):
    """`captoken keygen --out keyring.json` makes a keyring, as ever; and what was an option still says the kind."""
    from captoken.cli.keygen import _with_kind

    assert _with_kind(before) == now


# --- hostile bytes -----------------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("odd", [[1], [{}], "none", {"text": "no"}, [{"text": 1, "added_by": [2]}]])
def test_a_trail_with_odd_refusals_is_shown(odd, tmp_path, capsys):
    """Whoever writes a trail may write anything there."""
    record = {"kind": "decision", "seq": 1, "prev": Head().hash, "at": NOW, "allowed": False, "code": "tool", "refusals": odd}
    (tmp_path / "trail.jsonl").write_bytes(encode_json(record) + b"\n")
    for options in ([], ["--json"]):
        assert app.run(["audit", "log", str(tmp_path / "trail.jsonl"), *options]) == 0
    assert capsys.readouterr().out.startswith("2")


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


NASTY = [
    *(chr(code) for code in range(0x20)),
    *(chr(code) for code in range(0x7F, 0xA1)),
    *"\xad\u061c\u115f\u180e\u200b\u200d\u200e\u200f\u2028\u2029\u202a\u202e\u2060\u2066\u2069\u3000\ufeff\ufff9\ue000",
    "\U000e0001",
    "\U000e0041",
    "\U0010ffff",
]


def seen_of(token, discharges=()):
    return view(Shown(token, discharges, len(token.serialize())), NOW)


def rendered(token, encoding="utf-8", discharges=()):
    """All that `inspect` draws of a token."""
    seen = seen_of(token, discharges)
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding, errors="backslashreplace")
    Console(file=file, width=10_000, force_terminal=False, markup=False, emoji=False, highlight=False).print(
        inspect.as_tree(seen)
    )
    file.flush()
    return "\n".join([raw.getvalue().decode(encoding), inspect.as_mermaid(seen), *seen.summary])


@pytest.mark.parametrize("shape", ['{"tables":["a%sINJECTED"]}', '{"a:%s":1}', '{"where":{"%s":{"in":["x%sy"]}}}', "%s"])
def test_nothing_that_a_link_holds_moves_a_terminal(shape):
    for char in NASTY:
        body = shape.replace("%s", char).encode()
        text = rendered(by_hand(body))
        strange = {c for c in text if not (c.isprintable() or c == "\n")}
        assert not strange, (char, strange)
        assert "\nINJECTED" not in text


@pytest.mark.parametrize("shape", ['{"tables":["a%sINJECTED"]}', '{"a:%s":1}', "%s"])
def test_nor_does_anything_in_a_discharge_or_a_ticket(shape):
    for char in NASTY:
        answer = Discharge(Packet(TICKET.cid, ((shape.replace("%s", char).encode(), b""),), bytes(32)))
        place = encode_json({"box": "AAAA", "for": DISCHARGER.public, "loc": shape.replace("%s", char), "v": 1})
        for token in (ASKING, ROOT.with_raw_link(place, bytes(72))):
            text = rendered(token, discharges=(answer,))
            assert all(c.isprintable() or c == "\n" for c in text), char
            assert "\nINJECTED" not in text


def test_what_is_sealed_in_a_ticket_is_not_shown():
    text = rendered(ASKING) + str(inspect.as_data(seen_of(ASKING)))
    assert "https://approvals.example" in text and "payment" not in text and "500" not in text


@pytest.mark.parametrize(
    ("operations", "columns"),
    [
        (["insert", "select"], {"people": ["name"]}),
        (["delete"], {"people": ["name"]}),
        (["*"], {"people": ["*"]}),
        (["select", "update"], {"people": ["name"]}),
        (["insert", "delete"], {"other": ["name"]}),
        (["insert", "delete"], {}),
    ],
)
def test_what_a_sqlite_guard_denies_of_restricted_columns_is_noted(operations, columns):
    """The note names what the token holds and the guard denies for its columns, and nothing else."""
    token = Issuer(KEYRING, clock=FixedClock(NOW)).mint(
        subject="user:jane", agent="clerk", task="t", tables=["people"], operations=operations, **({"columns": columns} if columns else {})
    )
    connection = sqlite3.connect(":memory:")
    connection.execute("create table people (name text, pay integer)")
    grant = Verifier(KEYRING, clock=FixedClock(NOW)).authenticate(token)
    denied = []
    with closing(connection), guarded(connection, grant) as db:
        for operation, sql in (("insert", "insert into people (name) values ('a')"), ("delete", "delete from people")):
            try:
                db.execute(sql)
            except Denied as error:
                held = grant.check(Access(table="people", operation=operation, columns=["name"]))
                denied += [operation] if held and error.code == "column" else []
    notes = [line for line in seen_of(token).summary if line.startswith("note ")]
    said = f"note      a SQLite guard denies {' and '.join(denied)} on people: the columns are restricted"
    assert notes == ([said] if denied else [])


def test_a_presented_token_is_shown_with_its_discharges():
    answered = ASKING.with_discharge(DISCHARGE)
    sent = answered.present(audience="sales-db", clock=FixedClock(NOW))
    for text in (answered.serialize(), sent):
        seen = view(read(text), NOW)
        assert seen.characters == len(text) and [hop.answer is not None for hop in seen.hops][:2] == [False, True]
    twice = view(read(f"{sent}.{sent.split('.')[1]}"), NOW)
    assert "asks      1 third party, 1 answered, and 1 discharge that nothing asks for" in twice.summary


def test_markup_is_text():
    token = ROOT.attenuate(tables=["[bold red]x[/]", "[link=http://example.com]y[/link]"], clock=FixedClock(NOW))
    text = rendered(token)
    assert "[bold red]x[/]" in text and "[link=http://example.com]y[/link]" in text and "\x1b" not in text


def test_a_chart_says_nothing_but_its_own_markup():
    token = ROOT.attenuate(tables=['"] --> x', "`md`", "</b><script>", "a;b", "#quot;", "%%{init}%%"], clock=FixedClock(NOW))
    chart = inspect.as_mermaid(seen_of(token))
    labels = [line.split('["', 1)[1].removesuffix('"]').replace("<br/>", "") for line in chart.split("\n") if '["' in line]
    assert len(labels) == 4
    for label in labels:
        assert not set(label) & set("\"<>[](){}`%\\|'"), label


def test_a_chain_of_64_links_is_drawn():
    token = ROOT
    for number in range(63):
        token = token.delegate(to=f"a{number}", clock=FixedClock(NOW))
    text = rendered(token, "ascii")
    assert "link 63, added by a61, hands on to a62" in text and text.isascii()
    assert max(map(len, text.splitlines()[:70])) < 120


# --- the person at the terminal ----------------------------------------------------------------------------------------


def approve(answer, folder, **environment):
    """The exit code, what the terminal showed, and what went to standard output."""
    done = run(
        AT_TERMINAL, answer, CAPTOKEN, "approve", "--key", "discharger.json", stdin=TICKET.text, cwd=folder, **environment
    )
    return done.returncode, done.stderr.decode(), done.stdout.decode()


@pytest.mark.parametrize("answer", ["y", "Y", "yes", " YES  "])
def test_a_yes_is_a_discharge(answer, folder):
    code, shown, written = approve(answer, folder)
    assert code == 0 and 'approve = "payment"' in shown and "cents = 500" in shown and "cap1u_" not in shown
    assert ASKING.with_discharge(written.strip()).needs == ()


@pytest.mark.parametrize(
    "answer", ["", "n", "N", "no", "ye", "yy", "yes please", "y n", "1", "true", "\x04", "j", "\x1b[201~y"]
)
def test_all_else_is_a_no(answer, folder):
    code, shown, written = approve(answer, folder)
    assert code == 1 and written == "" and "nothing is discharged" in shown


@pytest.mark.parametrize("typed", ["y\x04\x04", "yes\x04\x04", "\x04"])
def test_a_line_that_was_not_ended_is_a_no(typed, folder):
    """End of file in place of Enter: what stands before it is half an answer."""
    code, shown, written = approve(typed, folder)
    assert code == 1 and written == "" and "nothing is discharged" in shown


def test_a_line_that_comes_in_two_pieces_is_one(folder):
    """The first end of file of a line only hands over what was typed: the line goes on, and is ended by Enter."""
    code, _, written = approve("y\x04es", folder)
    assert code == 0 and ASKING.with_discharge(written.strip()).needs == ()


def test_what_was_typed_before_the_question_is_no_answer_to_it(folder):
    code, _, written = approve("n", folder, AHEAD="y\ny\n")
    assert code == 1 and written == ""


def test_what_does_not_fit_the_terminal_is_not_approved(folder):
    """What has scrolled away has not been seen: it is refused before anybody is asked."""
    need = {"amount": "999999 EUR", **{f"z{count:03}": "" for count in range(60)}}
    ticket = ROOT.require(DISCHARGER.public, need=need).needs[0].text
    done = run(AT_TERMINAL, "y", CAPTOKEN, "approve", "--key", "discharger.json", stdin=ticket, cwd=folder)
    assert done.returncode == 2 and done.stdout == b"" and b"61 lines to read, and the terminal has 24" in done.stderr


@pytest.mark.parametrize("width", [0, 1, 26, 40, 80])
def test_what_is_needed_cannot_be_misread(width):
    """No character moves the terminal, no line is wider than it, and only names stand where names stand."""
    from rich.cells import cell_len

    need = {f"a{char}": f"{char}{' ' * 90}cents = 5" for char in NASTY} | {
        "wide\n": "支付" * 50,
        "list": [{"a": "b\x1b"}],
        "": "",
    }
    lines = consent.asked(need, width)
    assert all(line.isprintable() and cell_len(line) <= max(width, 26) for line in lines)
    assert [line[:2] for line in lines] == ["  "] * len(lines)
    assert sum(line[2] != " " for line in lines) == len(need)
    assert all(line.startswith("    | ") for line in lines if line[2] == " ")


# --- terminals -----------------------------------------------------------------------------------------------------------


def test_a_terminal_gets_colour_and_nothing_else_does():
    text = ROOT.serialize()
    assert b"\x1b[" in in_a_terminal("inspect", stdin=text)
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        plain = in_a_terminal("inspect", stdin=text, **environment)
        assert b"\x1b" not in plain and b"NOT VERIFIED" in plain
    assert b"\x1b" not in captoken("inspect", stdin=text).stdout
    assert b"\x1b" not in captoken("inspect", "--no-such", stdin=text).stderr


def test_a_terminal_without_unicode_gets_ascii():
    token = ROOT.attenuate(tables=["café"], clock=FixedClock(NOW))
    for command in (["inspect"], ["inspect", "--mermaid"], ["inspect", "--json"], ["demo", "--seed", "1"]):
        done = captoken(*command, stdin=token.serialize(), PYTHONUTF8="0", PYTHONIOENCODING="ascii", COLUMNS="80")
        assert done.returncode == 0 and done.stdout.isascii() and done.stderr == b""


def unread(*arguments, stdin="", cwd=None, streams=("stdout",)):
    """The exit code, and what went to the streams that are read, where nobody reads the others."""
    ours, theirs = os.pipe()
    os.close(ours)
    taken = {name: theirs if name in streams else subprocess.PIPE for name in ("stdout", "stderr")}
    done = subprocess.run([CAPTOKEN, *arguments], input=stdin.encode(), env={"PATH": os.defpath}, cwd=cwd, timeout=60, **taken)
    os.close(theirs)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", [["inspect"], ["inspect", "--json"], ["demo"], ["--help"], ["audit", "--help"], ["mint", "--help"]])
def test_a_reader_that_goes_away_is_no_mistake(command):
    """Neither a traceback nor 2: `captoken audit log trail.jsonl | head -1` has all that it wants."""
    assert unread(*command, stdin=ROOT.serialize()) == (0, None, b"")


@pytest.mark.parametrize(("table", "code"), [("sales", 0), ("hr", 1)])
def test_a_verdict_that_nobody_reads_is_in_the_exit_code(table, code, folder):
    token = ROOT.attenuate(tables=["sales"], clock=FixedClock(NOW)).serialize()
    asked = ["--keyring", "keyring.json", "--table", table, "--operation", "select", "--now", str(NOW)]
    for command in ("verify", "explain"):
        found, _, told = unread(command, *asked, stdin=token, cwd=folder)
        assert found == code and b"Traceback" not in told


def test_nor_is_a_mistake_that_nobody_reads_of_another_kind():
    """`captoken no-such 2>&1 | true`."""
    for command in ([], ["no-such"], ["inspect", "--no-such"]):
        assert unread(*command, streams=("stdout", "stderr"))[0] == 2


# --- the program ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_a_missing_extra_is_one_line(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; from captoken.cli import main; main()"
    done = run("-c", code, "inspect", stdin=ROOT.serialize())
    assert done.returncode == 2 and done.stdout == b""
    assert done.stderr == b"captoken: the command line needs an extra: pip install 'captoken[cli]'\n"


@pytest.mark.parametrize("command", ["run gateway.toml", "check gateway.toml", "demo"])
@pytest.mark.parametrize("missing", ["h11", "uvicorn"])
def test_a_gateway_without_its_extra_is_one_line(missing, command):
    code = f"import sys; sys.modules[{missing!r}] = None; from captoken.cli import main; main()"
    done = run("-c", code, "gateway", *command.split())
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"captoken: this needs an extra: pip install 'captoken[gateway]'\n"


# The command line of which others have the word: each with its exit code.
FIRST_WORDS = (
    ("captoken keygen --out keyring.json", 0),
    (
        "captoken mint --keyring keyring.json --subject user:jane --agent orchestrator --task task-123 \\\n"
        "              --tables sales --tables 'market.*' --operations select --expires-in 10m > root.token",
        0,
    ),
    ("captoken delegate --to sales-agent --tables sales --expires-in 5m < root.token > child.token", 0),
    ("captoken attenuate --operations select < child.token", 0),
    ("captoken inspect < child.token                # needs no key; says NOT VERIFIED", 0),
    ("captoken verify  --keyring keyring.json --table sales --operation select < child.token", 0),
    ("captoken explain --keyring keyring.json --table hr --operation select < child.token", 1),
    ("captoken demo                                 # the whole story on an embedded SQLite database", 0),
)


def test_the_first_command_line_of_all_works_word_for_word(tmp_path):
    path = os.pathsep.join([os.path.dirname(CAPTOKEN), os.defpath])
    written = {}
    for command, code in FIRST_WORDS:
        done = run("-c", command, code="sh", cwd=tmp_path, PATH=path)
        assert done.returncode == code, (command, done.stderr)
        written[command.split()[1]] = done.stdout.decode()
    assert written["keygen"] == written["mint"] == written["delegate"] == ""
    assert Token.parse(written["attenuate"].strip()).unverified.lineage.holders == ("orchestrator", "sales-agent")
    assert written["inspect"].startswith("NOT VERIFIED") and written["verify"].startswith("allowed ")


def test_the_script_of_the_tests_runs_the_tree_and_nothing_that_is_installed(folder):
    """Else a test would prove something of the package that was installed last."""
    other = folder / "captoken/cli"
    other.mkdir(parents=True)
    (folder / "captoken/__init__.py").write_text("")
    (other / "__init__.py").write_text("def main(): print('another captoken')\n")
    for path in (str(folder), ""):
        done = captoken("--version", PYTHONPATH=path)
        assert (done.returncode, done.stdout.split()[:1]) == (0, [b"captoken"])
    assert run("-c", "from captoken.cli import main; main()", PYTHONPATH=str(folder), cwd=folder).stdout == b"another captoken\n"


def test_the_package_runs_as_the_script_does(folder):
    """`python -m captoken`, where the script is not on the path."""
    for arguments in (["--version"], ["keygen", "--help"], ["no-such"]):
        done, script = run("-m", "captoken", *arguments), captoken(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (script.returncode, script.stdout, script.stderr)
    code = "import runpy, sys; sys.modules['click'] = None; runpy.run_module('captoken', run_name='__main__', alter_sys=True)"
    done = run("-c", code)
    assert done.returncode == 2 and b"pip install 'captoken[cli]'" in done.stderr


def test_to_import_the_module_runs_nothing_and_to_run_it_is_the_command_line(monkeypatch, capsys):
    runpy.run_module("captoken.__main__")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys, "argv", ["captoken", "--version"])
    with pytest.raises(SystemExit) as done:
        runpy.run_module("captoken", run_name="__main__")
    assert done.value.code in (0, None) and capsys.readouterr().out.startswith("captoken")


BEARER = {
    "--version": [],
    "keygen": ["--out", "new.json"],
    "mint": [
        "--keyring",
        "keyring.json",
        "--subject",
        "s",
        "--agent",
        "a",
        "--task",
        "t",
        "--tables",
        "x",
        "--operations",
        "y",
    ],
    "attenuate": COMMANDS["attenuate"],
    "delegate": COMMANDS["delegate"],
    "present": COMMANDS["present"],
    "inspect": ["--json"],
    "verify": COMMANDS["verify"],
    "explain": COMMANDS["explain"],
}


@pytest.mark.parametrize("command", BEARER)
def test_only_what_is_needed_is_imported(command, tmp_path):
    """Neither rich nor sqlite3, and no libsodium, where a token is bound to no key and asks nobody."""
    KEYRING.save(tmp_path / "keyring.json")
    assert imported(command, *BEARER[command], stdin=ROOT.serialize(), cwd=tmp_path) == []


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["inspect", "--json"], []),
        (["tickets"], []),
        (["attach", "--discharge", "discharge"], []),
        (["present", "--audience", "sales-db"], []),
        (["require", "--discharger", DISCHARGER.public, "--need", "a=1"], ["nacl"]),
        (["verify", "--keyring", "keyring.json", "--token-only", "--replays", "used.db"], []),
    ],
    ids=lambda value: value[0] if value else "",
)
def test_nor_is_libsodium_for_what_only_hands_a_ticket_or_a_discharge_on(command, expected, folder):
    assert imported(*command, stdin=ASKING.serialize(), cwd=folder) == expected


def imported(*arguments, **options):
    """Which of the heavy modules a command has imported when it is done."""
    code = (
        "import sys; from captoken.cli import main\nsys.argv[0] = 'captoken'\ntry: main()\nexcept SystemExit: pass\n"
        "print(*[name for name in ('rich', 'sqlite3', 'nacl') if name in sys.modules], file=sys.stderr)"
    )
    done = run("-P", "-c", code, *arguments, **options)  # not what a test has put into the folder
    return done.stderr.decode().splitlines()[-1].split()


def test_the_clock_of_the_machine_is_the_default(folder):
    begin = int(time.time())
    done = captoken("mint", "--keyring", "keyring.json", "--subject", "user:jane", "--agent", "a", "--task", "t",
                    "--tables", "sales", "--operations", "select", "--expires-in", "2h", cwd=folder)  # fmt: skip
    token = Token.parse(done.stdout.decode().strip())
    assert begin <= token.unverified.root.issued_at <= time.time()
    assert token.unverified.expires_at == token.unverified.root.issued_at + 7200


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["mint"], "mint: --subject NAME is missing. The person or service that the task is for: 'user:jane'. `captoken mint --help` has an example"),
        (["end-task"], "end-task: TASK is missing. `captoken end-task --help` has an example"),
        (["mnt"], "there is no command 'mnt': did you mean mint? `captoken --help` lists all"),
        (["audit", "lg"], "audit: there is no command 'lg': did you mean log? `captoken audit --help` lists all"),
        (["verify", "--keyrin"], "verify: there is no option '--keyrin': did you mean --keyring? `captoken verify --help` lists all"),
        (["attenuate", "--expires-in", "1hour"], "attenuate: --expires-in: '1hour' is not a duration: write 90s, 10m, 2h, 1d or 1h30m, or a number of seconds"),
        (["attenuate", "--uses", "some\x1b"], "attenuate: --uses: 'some\\x1b' is no whole number from 0 on"),
        (["attenuate", "--where", "region"], """attenuate: --where: 'region' has no '='. What an attribute must satisfy: 'region={"in":["eu"]}'."""),
        (["verify", "--arguments", "{q:1}"], """verify: --arguments: not JSON: wrong from character 2 on. Its arguments: '{"q":"rates"}'."""),
        (["attenuate", "--depth"], "--depth is without its value"),
        (["inspect", "a.token"], "inspect: unexpected: a.token; a token is read from standard input, or with --token-file FILE"),
        (["discharge", "--key", "k", "a.ticket"], "discharge: unexpected: a.ticket; a ticket is read from standard input, or with --ticket-file FILE"),
        (["audit", "log", "a", "b"], "audit log: unexpected: b; `captoken audit log --help` has an example"),
        (["keygen", "holder", "--out", "keyring.json"], "keygen holder: keyring.json is there already, and keys are not overwritten"),
        (["renew", "--key", "none.json", "--store", "o.db"], "renew: none.json is not there: `captoken keygen operator --out FILE` makes one"),
        (["discharge", "--key", "keyring.json"], "keyring.json holds a keyring, and no discharger key: --key takes the file that `captoken keygen discharger --out FILE` makes"),
        (["attach", "--discharge", "ticket"], "ticket: a discharge starts with cap1u_ here; perhaps this one is bound: only its server takes it"),
        (["audit", "log", "ticket"], "ticket: a record without its line feed: it was torn, or is still being written"),
        (["attenuate", "--tables", "a", "--expires-in", "0s"], "--expires-in must be at least one second, not 0"),
        (["attenuate"], "say what to restrict: by --tables, --expires-in or another option"),
        (["completion", "install", "tcsh"], "completion install: SHELL: 'tcsh' is not one of 'bash', 'zsh', 'fish'."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_named_as_it_was_typed(arguments, told, folder):
    """The file, the option and what came; what was meant to come; and what to write."""
    done = captoken(*arguments, stdin=ROOT.serialize(), cwd=folder)
    assert (done.returncode, done.stdout, done.stderr.decode()) == (2, b"", f"captoken: {told}\n")


def test_what_is_said_anew_is_what_the_library_says():
    """A sentence that the library says in other words by now would come through with its keywords."""
    from captoken.cli.problems import _SENTENCES

    package = Path(app.__file__).parents[1]
    sources = [path.read_text("utf-8") for path in package.rglob("*.py") if "cli" not in path.relative_to(package).parts]
    said = re.sub(r'"\s*\n\s*f?"', "", "".join(sources))  # what stands on several lines
    for theirs, _ in _SENTENCES:
        assert re.sub("^(tables|operations) ", "", theirs) in said, theirs


GROUPS = ["", *(name for name, command in app.commands.commands.items() if hasattr(command, "commands"))]


@pytest.mark.parametrize("group", GROUPS)
def test_no_summary_of_a_command_is_cut(group):
    """At 80 columns each has its line, with all that it says; `captoken --help` lists each command once, by who runs it."""
    made = app.commands.commands[group] if group else app.commands
    lines = captoken(*group.split(), "--help", COLUMNS="80").stdout.decode().splitlines()
    for name, command in made.commands.items():
        shown = [line for line in lines if line.startswith(f"  {name} ")]
        assert len(shown) == 1 and len(shown[0]) < 80 and "..." not in shown[0]
        assert " ".join(shown[0].split()) == f"{name} {command.get_short_help_str(1000)}"


def test_a_list_of_the_commands_loads_none_of_them():
    """Most of a short command's time was spent on what other commands need."""
    script = "import sys; from captoken.cli.app import run; run(['--help']); print(*(name for name in sys.modules if 'captoken.' in name), file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name for name in ran.stderr.split() if not name.startswith("captoken._format")}
    assert loaded == {"captoken.cli", "captoken.cli.app", "captoken.cli.groups", "captoken.cli.output"}


def test_the_commands_are_listed_by_who_runs_them():
    sections = app.commands.sections()
    listed = [name for names in sections.values() for name in names]
    assert listed == list(app.commands.commands)
    for who in ("Issuer", "Holder", "Server", "Operator", "Auditor"):
        assert sum(title.startswith(who) for title in sections) == 1


@pytest.mark.parametrize(
    ("command", "keywords"),
    [
        ("mint", MintCaveats.__annotations__.keys()),
        ("attenuate", LinkCaveats.__annotations__.keys()),
        ("delegate", LinkCaveats.__annotations__.keys()),
        ("present", PresentCaveats.__annotations__.keys()),
        ("exchange", LinkCaveats.__annotations__.keys() - {"audience"}),
        ("discharge", LinkCaveats.__annotations__.keys() - OF_THE_TOKEN),
        ("approve", LinkCaveats.__annotations__.keys() - OF_THE_TOKEN - {"expires_at"}),
        ("narrow", LinkCaveats.__annotations__.keys() - OF_THE_TOKEN),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_caveat_that_the_library_writes_has_an_option(command, keywords):
    """Whoever adds a caveat adds an option: there is no keyword that the command line leaves out."""
    assert keywords <= {parameter.name for parameter in app.commands.commands[command].params}
