"""`captoken completion`: what a shell has to know to complete a command line.

    show       the script, for whoever puts it somewhere by hand
    install    the same in a folder of the user's own, where the shell looks for such

The shell then asks this program at each Tab, by a variable of the environment. A script names the
program alone, so that it stays good when commands are added.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click
from click.shell_completion import ShellComplete, get_completion_class

from captoken.cli.groups import COMPLETING, InOrder
from captoken.cli.options import json_option
from captoken.cli.output import answer, say_exact, say_json, tell

SHELLS = ("bash", "zsh", "fish")

# The last line of each script: by it a file is known as ours, and may be written anew.
_OURS = "# What is here, `captoken completion install` has written, and writes anew.\n"

# What has to be so for the shell to find the file.
_NEEDS = {
    "bash": "bash looks there if bash-completion is installed; else put into ~/.bashrc: . {file}",
    "zsh": "zsh looks there if ~/.zshrc says: fpath+=({folder}); autoload -Uz compinit; compinit",
    "fish": "fish looks there by itself",
}


@click.group(cls=InOrder)
def completion() -> None:
    """Let a shell complete commands, options and files.

    \b
    captoken completion install
    """


@completion.command()
@click.argument("shell", type=click.Choice(SHELLS), metavar="SHELL")
@json_option
def show(shell: str, as_json: bool) -> None:
    """Print the script for a shell, and install nothing.

    SHELL is bash, zsh or fish.

    \b
    eval "$(captoken completion show bash)"
    """
    text = _script(shell)
    if as_json:
        say_json({"shell": shell, "script": text})
    else:
        say_exact(text.removesuffix("\n"))


@completion.command()
@click.argument("shell", type=click.Choice(SHELLS), metavar="[SHELL]", required=False)
@json_option
def install(shell: str | None, as_json: bool) -> None:
    """Write the script to where your shell looks for it.

    SHELL is bash, zsh or fish. The default is the shell in $SHELL. The script goes into your home
    folder. If another file is there that captoken has not written, it stays unchanged. No other
    file is changed.

    \b
    captoken completion install zsh
    """
    name = shell or _own_shell()
    path = _place(name)
    text = _script(name)

    is_new = not _is_there(path, text)
    if is_new:
        _write(path, text)
    line = f"wrote {path}" if is_new else f"{path} is there already, and up to date"
    answer(as_json, {"shell": name, "file": str(path), "written": is_new}, line)
    if not as_json:
        tell(_NEEDS[name].format(file=path, folder=path.parent))


def _own_shell() -> str:
    """The shell of whoever sits there. Raises UsageError for one that has no script here."""
    name = os.path.basename(os.environ.get("SHELL", ""))
    if name not in SHELLS:
        raise click.UsageError(
            "$SHELL names none of bash, zsh and fish: say which: `captoken completion install bash`"
        )
    return name


def _script(shell: str) -> str:
    """What the shell reads: click's own script, and the line by which it is known."""
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - of the three that click has
    made = kind(click.get_current_context().find_root().command, {}, "captoken", COMPLETING)

    # Of the base class: bash's own first runs bash, to see how old it is.
    return f"{ShellComplete.source(made).strip()}\n{_OURS}"


# --- the file -------------------------------------------------------------------------------------


def _place(shell: str) -> Path:
    """The file that the shell looks for. Raises UsageError if it would lie outside of the home."""
    home = Path.home()
    if shell == "bash":
        data = _folder("XDG_DATA_HOME", home / ".local" / "share")
        folder = _folder("BASH_COMPLETION_USER_DIR", data / "bash-completion") / "completions"
        path = folder / "captoken"
    elif shell == "zsh":
        path = _folder("ZDOTDIR", home) / ".zfunc" / "_captoken"
    else:
        config = _folder("XDG_CONFIG_HOME", home / ".config")
        path = config / "fish" / "completions" / "captoken.fish"

    # Where links lead counts, and not what they are called.
    if not path.parent.resolve().is_relative_to(home.resolve()):
        raise click.UsageError(
            f"{path} is outside of {home}: put there yourself what "
            f"`captoken completion show {shell}` writes"
        )
    return path


def _folder(variable: str, default: Path) -> Path:
    """The folder that a variable names. One that is not absolute names none, as XDG says."""
    named = Path(os.environ.get(variable, ""))
    return named if named.is_absolute() else default


def _is_there(path: Path, text: str) -> bool:
    """Has the file just this text? Raises UsageError for a file that is somebody else's."""
    # A link that leads nowhere is something, too.
    if not os.path.lexists(path):
        return False
    if path.is_file():
        found = path.read_bytes()
        if found == text.encode():
            return True
        if found.endswith(_OURS.encode()) and not path.is_symlink():
            return False
    raise click.UsageError(f"{path} is there, and captoken did not write it: move it away first")


def _write(path: Path, text: str) -> None:
    """The whole file, or what was there stays. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, fresh = tempfile.mkstemp(dir=path.parent, prefix=".captoken-")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(fresh, 0o644)  # as others in such a folder: nothing in it is secret
        os.replace(fresh, path)
    except BaseException:
        os.unlink(fresh)
        raise
