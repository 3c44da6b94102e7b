"""What the sessions do not show: other terminals, hostile bytes, a missing extra, and what must never be written."""

import os
import pty
import runpy
import subprocess
import sys
import time

import pytest

from captoken import Issuer, Keyring, Token
from captoken.cli import app
from captoken.discharge import Allow, Discharger, Wait
from captoken.keys import DischargerKey, HolderKey
from captoken.testing import FixedClock, fixed_random
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


KEYRING = Keyring.from_keys({"k1": bytes(range(32))}, current="k1")
ROOT = Issuer(KEYRING, clock=FixedClock(NOW), random=fixed_random("cli")).mint(
    subject="user:jane", agent="orchestrator", task="task-123", tables=["*"], operations=["select"], expires_in=600
)
ASKING = ROOT.require(DISCHARGER.public, need={"approve": "payment", "cents": 500}, location="https://approvals.example")
TICKET = ASKING.needs[0]
DISCHARGE = Discharger(DISCHARGER, lambda need: Wait(), clock=FixedClock(NOW)).approve(TICKET, Allow(expires_in=60))


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


# --- what is written where ---------------------------------------------------------------------------------------------


# --- the person at the terminal ----------------------------------------------------------------------------------------


def approve(answer, folder, **environment):
    """The exit code, what the terminal showed, and what went to standard output."""
    done = run(
        AT_TERMINAL, answer, CAPTOKEN, "approve", "--key", "discharger.json", stdin=TICKET.text, cwd=folder, **environment
    )
    return done.returncode, done.stderr.decode(), done.stdout.decode()


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
