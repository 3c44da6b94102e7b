"""The sessions in this folder are replayed with the real console script, and what comes out is what they show.

    $ command           run by sh, in a folder of the session's own; a line that ends in \\ goes on after "> "
    text                what it wrote to standard output
    2> text             what it wrote to standard error
    [1]                 its exit code, if that is not 0

What is random is shown as `cap1_...`, `k-...` and `<id>`. `python tests/cli/test_transcripts.py` writes the sessions anew:
read the difference before you keep it.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SESSIONS = sorted(HERE.glob("*.txt"))
_RANDOM = (
    (re.compile(r"cap1_[A-Za-z0-9_-]{8,}"), "cap1_..."),
    (re.compile(r"\bk-[0-9a-f]{12}\b"), "k-..."),
    (re.compile(r'("n": ")[A-Za-z0-9_-]{11}(?=")'), r"\1<n>"),
    (re.compile(r'((?:token|link id)\s+|_id": ")[A-Za-z0-9_-]{22}(?![A-Za-z0-9_-])'), r"\1<id>"),
)


def environment(folder):
    """Nothing of the tester's own settings."""
    scripts = os.pathsep.join([sysconfig.get_path("scripts"), str(Path(sys.executable).parent), os.defpath])
    return {"PATH": scripts, "HOME": str(folder), "PYTHONUTF8": "1"}


def shown(text):
    for pattern, instead in _RANDOM:
        text = pattern.sub(instead, text)
    return text


def run(command, folder):
    """What the session shows below the command."""
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment(folder), capture_output=True, timeout=60, stdin=subprocess.DEVNULL
    )
    lines = shown(done.stdout.decode()).splitlines()
    lines += [f"2> {line}" for line in shown(done.stderr.decode()).splitlines()]
    return [*lines, *([f"[{done.returncode}]"] if done.returncode else [])]


def replay(session):
    """The session as it comes out when it is played again."""
    written = []
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(HERE / "append_link.py", folder)
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
                written += run(command, folder)
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
    from captoken.cli.app import commands

    used = " ".join(path.read_text("utf-8") for path in SESSIONS if path.stem != "help")
    for command in commands.commands.values():
        for parameter in command.params:
            assert max(parameter.opts, key=len) in used, f"{command.name} {parameter.opts}"


def test_the_help_of_every_command_is_shown():
    from captoken.cli.app import commands

    text = (HERE / "help.txt").read_text("utf-8")
    for name in commands.commands:
        assert f"$ captoken {name} --help\n" in text


if __name__ == "__main__":
    for changed in SESSIONS:
        changed.write_text(replay(changed.read_text("utf-8")), "utf-8")
