"""`captoken completion`: the script that a shell reads, where it is written, and what it then completes."""

import json
import os
import shutil
import subprocess

import pytest

from captoken.cli import app
from captoken.cli.completion import SHELLS
from tests.cli.test_cli import captoken
from tests.cli.test_transcripts import every_command
from tests.program import CAPTOKEN

PLACES = {
    "bash": ".local/share/bash-completion/completions/captoken",
    "zsh": ".zfunc/_captoken",
    "fish": ".config/fish/completions/captoken.fish",
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    made = tmp_path / "home"
    made.mkdir()
    monkeypatch.setenv("HOME", str(made))
    for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR", "BASH_COMPLETION_USER_DIR", "SHELL"):
        monkeypatch.delenv(variable, raising=False)
    return made


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


@pytest.mark.parametrize("shell", SHELLS)
def test_install_writes_one_file_and_says_which(shell, home, capsys):
    assert app.run(["completion", "install", shell]) == 0
    written = capsys.readouterr()
    assert written.out == f"wrote {home / PLACES[shell]}\n" and shell in written.err
    assert files(home) == [PLACES[shell]] and (home / PLACES[shell]).stat().st_mode & 0o777 == 0o644
    assert app.run(["completion", "show", shell]) == 0
    assert capsys.readouterr().out == (home / PLACES[shell]).read_text()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_second_time_it_changes_nothing(shell, home, capsys):
    assert app.run(["completion", "install", shell]) == 0
    before = (home / PLACES[shell]).stat()
    capsys.readouterr()
    assert app.run(["completion", "install", shell]) == 0
    assert "is there already" in capsys.readouterr().out
    after = (home / PLACES[shell]).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert app.run(["completion", "install", shell, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"shell": shell, "file": str(home / PLACES[shell]), "written": False}


def test_what_an_older_captoken_wrote_is_written_anew(home, capsys):
    target = home / PLACES["bash"]
    assert app.run(["completion", "install", "bash"]) == 0
    new = target.read_text()
    target.write_text("# older\n" + new.splitlines()[-1] + "\n")
    assert app.run(["completion", "install", "bash"]) == 0 and target.read_text() == new
    assert files(home) == [PLACES["bash"]]


@pytest.mark.parametrize("there", ["a file", "a link", "a link to nowhere", "a folder"])
def test_what_captoken_has_not_written_is_left_as_it_is(there, home, capsys):
    target, elsewhere = home / PLACES["bash"], home / "mine"
    target.parent.mkdir(parents=True)
    elsewhere.write_text("mine\n")
    if there == "a folder":
        target.mkdir()
    elif there == "a file":
        target.write_text("mine\n")
    else:
        target.symlink_to(elsewhere if there == "a link" else home / "nowhere")
    before = files(home)
    assert app.run(["completion", "install", "bash"]) == 2
    assert "captoken did not write it" in capsys.readouterr().err
    assert files(home) == before and elsewhere.read_text() == "mine\n"


def test_it_follows_the_folders_that_the_user_has_named(home, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", "no/absolute/path")
    monkeypatch.setenv("ZDOTDIR", str(home / "zsh"))
    for shell in SHELLS:
        assert app.run(["completion", "install", shell]) == 0
    assert files(home) == [PLACES["bash"], "config/fish/completions/captoken.fish", "zsh/.zfunc/_captoken"]


@pytest.mark.parametrize("way", ["a variable", "a link"])
def test_it_writes_nothing_outside_of_the_home(way, home, tmp_path, monkeypatch, capsys):
    outside = tmp_path / "outside"
    outside.mkdir()
    if way == "a variable":
        monkeypatch.setenv("XDG_DATA_HOME", str(outside))
    else:
        (home / ".local").symlink_to(outside)
    assert app.run(["completion", "install", "bash"]) == 2
    assert "is outside of" in capsys.readouterr().err and files(outside) == []


@pytest.mark.parametrize(("shell", "code"), [("/usr/bin/zsh", 0), ("fish", 0), ("/bin/tcsh", 2), ("", 2)])
def test_the_shell_is_the_one_of_the_user(shell, code, home, monkeypatch, capsys):
    monkeypatch.setenv("SHELL", shell)
    assert app.run(["completion", "install"]) == code
    written = capsys.readouterr()
    assert written.err.count("\n") == 1 and ("wrote" in written.out) == (code == 0)


def completed(line):
    """What is offered behind the line."""
    words = line.split(" ")
    asked = {"_CAPTOKEN_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = captoken(**asked)
    assert done.returncode == 0 and done.stderr == b""
    return done.stdout.decode().split()


def test_commands_options_and_files_are_completed():
    assert {f"plain,{name}" for name, _ in every_command() if " " not in name} == set(completed("captoken "))
    assert completed("captoken keygen hol") == ["plain,holder"]
    assert completed("captoken mint --exp") == ["plain,--expires-in", "plain,--expires-at"]
    assert completed("captoken verify --keyring key") == ["file,key"]
    assert completed("captoken audit log trail") == ["file,trail"]
    assert completed("captoken completion install f") == ["plain,fish"]
    assert completed("captoken no-such x") == []


def test_every_file_of_every_option_is_completed():
    for name, command in every_command():
        for parameter in command.params:
            if parameter.metavar in ("FILE", "FILE.db", "SNAPSHOT"):
                assert parameter.type.name == "file", (name, parameter.opts)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_completes_by_the_script(home):
    """As it does at Tab: by the function that the script has registered, with the words of the line."""
    assert app.run(["completion", "install", "bash"]) == 0
    ask = f'. "{home / PLACES["bash"]}"; COMP_WORDS=(captoken keygen hol); COMP_CWORD=2; '
    ask += '_captoken_completion captoken hol keygen; echo "${COMPREPLY[@]}"; complete -p captoken'
    path = os.pathsep.join([os.path.dirname(CAPTOKEN), os.defpath])
    done = subprocess.run(["bash", "-c", ask], capture_output=True, timeout=60, env={"PATH": path, "HOME": str(home)})
    assert done.stderr == b"" and done.stdout.decode().splitlines()[0] == "holder"
    assert b"_captoken_completion captoken" in done.stdout
