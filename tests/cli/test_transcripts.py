"""The sessions in this folder are replayed with the real console script, and what comes out is what they show.

    $ command           run by sh, in a folder of the session's own; a line that ends in \\ goes on after "> "
    text                what it wrote to standard output
    2> text             what it wrote to standard error
    [1]                 its exit code, if that is not 0

What is random is shown as `cap1_...`, `k-...`, `<id>` and so on; public keys as `<key 1>`, `<key 2>`, in the order in which
a session comes by them. `python -m tests.cli.test_transcripts` writes the sessions anew: read the difference before you
keep it.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.program import ROOT, SCRIPTS

HERE = Path(__file__).parent
SESSIONS = sorted(HERE.glob("*.txt"))
_RANDOM = (
    (re.compile(r"(cap1[udp]?_|caps1_)[A-Za-z0-9_~-]{8,}"), r"\1..."),
    (re.compile(r"\bk-[0-9a-f]{12}\b"), "k-..."),
    (re.compile(r"\bp-[0-9a-f]{24}\b"), "p-..."),
    (re.compile(r'("box":)("[A-Za-z0-9_-]+")'), r'\1"<box>"'),
    (re.compile(r"(?<=entry )[A-Za-z0-9_-]{11}(?![A-Za-z0-9_-])"), "<entry>"),
    (re.compile(r"(?<=hop )[A-Za-z0-9_-]{11}(?![A-Za-z0-9_-])"), "<n>"),
    (re.compile(r'("id": ")[A-Za-z0-9_-]{12}(?=")'), r"\1<id>"),
    (re.compile(r'("n": ")[A-Za-z0-9_-]{11}(?=")'), r"\1<n>"),
    (re.compile(r'((?:token|link|link id)\s+|(?:_id|"token|"link|"cut)": "|--link )[A-Za-z0-9_-]{22}(?![A-Za-z0-9_-])'), r"\1<id>"),
)
_public_keys = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])").sub
HELPERS = ("append_link.py", "at_terminal.py", "keep_day.py", "keep_marks.py", "keep_set.py", "keep_trail.py", "mcp_server.py", "old_stores.py", "policy.toml")


def environment(folder):
    """Nothing of the tester's own settings."""
    scripts = os.pathsep.join([SCRIPTS, str(Path(sys.executable).parent), os.defpath])
    return {"PATH": scripts, "HOME": str(folder), "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}


def every_command():
    """What stands after `captoken`, and the command: of a group, its commands."""
    from captoken.cli.app import commands

    for name, command in commands.commands.items():
        yield name, command
        yield from ((f"{name} {below}", one) for below, one in getattr(command, "commands", {}).items())


def shown(text, keys):
    for pattern, instead in _RANDOM:
        text = pattern.sub(instead, text)
    return _public_keys(lambda found: f"<key {keys.setdefault(found[0], len(keys) + 1)}>", text)


def run(command, folder, keys):
    """What the session shows below the command."""
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment(folder), capture_output=True, timeout=60,
        stdin=subprocess.DEVNULL, start_new_session=True,  # so that nobody's own terminal is asked
    )  # fmt: skip
    lines = shown(done.stdout.decode(), keys).splitlines()
    lines += [f"2> {line}" for line in shown(done.stderr.decode(), keys).splitlines()]
    return [*lines, *([f"[{done.returncode}]"] if done.returncode else [])]


def replay(session):
    """The session as it comes out when it is played again."""
    written, keys = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for helper in HELPERS:
            shutil.copyfile(HERE / helper, Path(folder) / helper)
        lines = iter(session.splitlines())
        showing = True  # comments and blank lines are kept; what stands below a command is replaced
        for line in lines:
            if line.startswith("$ "):
                written.append(line)
                command = line[2:]
                while command.endswith("\\"):
                    line = next(lines)
                    written.append(line)
                    command = command[:-1] + line.removeprefix("> ")
                written += run(command, folder, keys)
                showing = False
            elif line.startswith("#"):
                written += [*([""] if not showing else []), line]
                showing = True
            elif showing:
                written.append(line)
    return "\n".join(written) + "\n"


@pytest.mark.parametrize("path", SESSIONS, ids=lambda path: path.stem)
def test_a_session_plays_as_it_is_written(path):
    session = path.read_text("utf-8")
    assert replay(session) == session


def test_every_option_of_every_command_is_used_in_a_session():
    used = " ".join(path.read_text("utf-8") for path in SESSIONS if path.stem != "help")
    for name, command in every_command():
        for parameter in (one for one in command.params if one.param_type_name == "option" and not one.hidden):
            assert max(parameter.opts, key=len) in used, f"{name} {parameter.opts}"


def test_the_help_of_every_command_is_shown():
    text = (HERE / "help.txt").read_text("utf-8")
    for name, _ in every_command():
        assert f"$ captoken {name} --help\n" in text


def test_a_help_fits_a_terminal():
    """Its examples too: what a terminal breaks, nobody can copy."""
    for command, lines in re.findall(r"^\$ (captoken .*--help)\n((?:[^$].*\n|\n)*)", (HERE / "help.txt").read_text("utf-8"), re.MULTILINE):
        assert [line for line in lines.splitlines() if len(line) > 79] == [], command


if __name__ == "__main__":
    for changed in [HERE / f"{name}.txt" for name in sys.argv[1:]] or SESSIONS:
        changed.write_text(replay(changed.read_text("utf-8")), "utf-8")
