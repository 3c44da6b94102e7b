"""What the sessions do not show: other terminals, hostile bytes, a missing extra, and what must never be written."""

import io
import os
import pty
import subprocess
import sys
import sysconfig
import time
import unicodedata

import pytest
from rich.console import Console

from captoken import Issuer, Keyring, Token
from captoken.cli import app, inspect, words
from captoken.encoding import b64encode
from captoken.testing import FixedClock, fixed_random
from captoken.text import PREFIX

CAPTOKEN = os.path.join(sysconfig.get_path("scripts"), "captoken")
NOW = 1_764_061_200
COMMANDS = {
    "inspect": [],
    "inspect --mermaid": ["--mermaid"],
    "inspect --json": ["--json"],
    "attenuate": ["--tables", "sales"],
    "delegate": ["--to", "other-agent"],
    "present": ["--audience", "sales-db"],
    "verify": ["--keyring", "keyring.json", "--table", "sales", "--operation", "select"],
    "explain": ["--keyring", "keyring.json", "--table", "sales", "--operation", "select"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("cli")
    KEYRING.save(made / "keyring.json")
    return made


KEYRING = Keyring.from_keys({"k1": bytes(range(32))}, current="k1")
ROOT = Issuer(KEYRING, clock=FixedClock(NOW), random=fixed_random("cli")).mint(
    subject="user:jane", agent="orchestrator", task="task-123", tables=["*"], operations=["select"], expires_in=600
)


def run(*arguments, stdin="", cwd=None, code=sys.executable, **environment):
    """The console script, in an environment of its own."""
    env = {"PATH": os.defpath, "PYTHONUTF8": "1"} | environment
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
    return ROOT._with(link)


# --- what is written where ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["attenuate", "--operations", "select"], ["delegate", "--to", "b"], ["present", "--audience", "db"]],
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


def test_no_option_takes_a_token_or_a_key():
    from captoken.cli.app import commands

    options = {option for command in commands.commands.values() for parameter in command.params for option in parameter.opts}
    assert "--token" not in options and "--key" not in options and "--token-file" in options
    assert not any(command.params[0].param_type_name == "argument" for command in commands.commands.values())


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


def test_a_keyring_is_written_for_its_owner_alone_and_never_over_another_file(tmp_path):
    target = tmp_path / "keyring.json"
    os.umask(os.umask(0))
    assert captoken("keygen", "--out", str(target)).returncode == 0
    assert target.stat().st_mode & 0o777 == 0o600
    before = target.read_bytes()
    assert captoken("keygen", "--out", str(target)).returncode == 2
    assert target.read_bytes() == before
    dangling = tmp_path / "link.json"
    dangling.symlink_to(tmp_path / "elsewhere.json")
    assert captoken("keygen", "--out", str(dangling)).returncode == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keyring.json", "link.json"]


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


NASTY = [
    *(chr(code) for code in range(0x20)),
    *(chr(code) for code in range(0x7F, 0xA1)),
    *"\xad\u061c\u115f\u180e\u200b\u200d\u200e\u200f\u2028\u2029\u202a\u202e\u2060\u2066\u2069\u3000\ufeff\ufff9\ue000",
    "\U000e0001",
    "\U000e0041",
    "\U0010ffff",
]


def rendered(token, encoding="utf-8"):
    """All that `inspect` draws of a token."""
    seen = inspect.view(token, NOW)
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


@pytest.mark.parametrize("char", sorted(set(NASTY) - set(" ")), ids=ascii)
def test_a_name_is_escaped(char):
    assert words.name(f"a{char}b").isprintable() and unicodedata.category(char) != "Ll"


def test_every_code_point_is_escaped_or_printable():
    for code in range(0x11000):
        assert words.name(chr(code)).isprintable(), hex(code)


def test_names_that_are_not_plain_are_quoted():
    assert words.names(["b", "a, b", '"', "café", "c d"]) == '"\\"", "a, b", b, "c d", café'


def test_markup_is_text():
    token = ROOT.attenuate(tables=["[bold red]x[/]", "[link=http://example.com]y[/link]"], clock=FixedClock(NOW))
    text = rendered(token)
    assert "[bold red]x[/]" in text and "[link=http://example.com]y[/link]" in text and "\x1b" not in text


def test_a_chart_says_nothing_but_its_own_markup():
    token = ROOT.attenuate(tables=['"] --> x', "`md`", "</b><script>", "a;b", "#quot;", "%%{init}%%"], clock=FixedClock(NOW))
    chart = inspect.as_mermaid(inspect.view(token, NOW))
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


def test_a_reader_that_goes_away_is_no_traceback():
    for command in (["inspect"], ["demo"]):
        ours, theirs = os.pipe()
        os.close(ours)
        done = subprocess.run(
            [sys.executable, CAPTOKEN, *command], input=ROOT.serialize().encode(), stdout=theirs, stderr=subprocess.PIPE,
            env={"PATH": os.defpath}, timeout=60,
        )  # fmt: skip
        os.close(theirs)
        assert done.stderr == b"" and done.returncode == 2


# --- the program ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_a_missing_extra_is_one_line(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; from captoken.cli import main; main()"
    done = run("-c", code, "inspect", stdin=ROOT.serialize())
    assert done.returncode == 2 and done.stdout == b""
    assert done.stderr == b"captoken: the command line needs an extra: pip install 'captoken[cli]'\n"


def test_only_what_is_needed_is_imported():
    code = (
        "import sys; sys.argv = ['captoken', '--version']\nfrom captoken.cli import main\n"
        "try: main()\nexcept SystemExit: pass\nprint([name for name in ('rich', 'sqlite3', 'nacl') if name in sys.modules])"
    )
    assert run("-c", code).stdout.decode().splitlines()[1:] == ["[]"]


def test_the_clock_of_the_machine_is_the_default(folder):
    begin = int(time.time())
    done = captoken("mint", "--keyring", "keyring.json", "--subject", "user:jane", "--agent", "a", "--task", "t",
                    "--tables", "sales", "--operations", "select", "--expires-in", "2h", cwd=folder)  # fmt: skip
    token = Token.parse(done.stdout.decode().strip())
    assert begin <= token.unverified.root.issued_at <= time.time()
    assert token.unverified.expires_at == token.unverified.root.issued_at + 7200
