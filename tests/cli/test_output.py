"""What reaches a terminal: all of it goes through one function, and no text of a stranger steers it.

The first half reads the code of the command line: nobody but `output` writes to a terminal, so nothing can be forgotten.
The second half sends what steers a terminal through each way out.
"""

from __future__ import annotations

import ast
import inspect
import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import captoken
from captoken._format.spelling import is_visible
from captoken.cli import output
from captoken.cli.app import run

ROOT = Path(captoken.__file__).parent
FILES = sorted((ROOT / "cli").rglob("*.py"))

# Whatever else writes to a terminal, by the last part of its name.
WRITERS = {
    "print", "input", "echo", "secho", "confirm", "prompt", "progressbar", "pager", "echo_via_pager", "getpass", "Console", "Live",
    "Status", "Progress", "StreamHandler", "basicConfig", "print_exc", "print_exception", "displayhook", "pprint", "system",
}  # fmt: skip
STREAMS = {"stdout", "stderr", "stdin", "__stdout__", "__stderr__", "__stdin__"}

# Who may name one of these, and what for.
MAY = {
    ("__init__.py", "print"): "without the extras: words of ours",
    ("__init__.py", "stderr"): "the same",
    ("app.py", "stdin"): "are they closed?",
    ("app.py", "stdout"): "are they closed?",
    ("app.py", "stderr"): "are they closed?",
    ("audit.py", "stdin"): "what is read",
    ("terminal.py", "stderr"): "its encoding",
    ("demo/beside.py", "Console"): "the application of the console, which is no terminal",
    ("demo/accident.py", "Console"): "a type: what is drawn goes through output.draw",
    ("demo/command.py", "stdin"): "is it a terminal?",
    ("demo/picture.py", "Console"): "a type: what is drawn goes through output.draw",
    ("files.py", "stdin"): "what is read",
    ("demo/command.py", "stdout"): "is it a terminal?",
    ("console/command.py", "Console"): "the application of the console, which is no terminal",
    ("gateway_mcp.py", "stdin"): "what an MCP client says, which is no terminal",
    ("gateway_mcp.py", "stdout"): "what it is answered, in JSON",
    ("output.py", "print"): "the one place",
    ("output.py", "stdout"): "the one place",
    ("output.py", "stderr"): "the one place",
    ("output.py", "Console"): "it is drawn into, and captured",
}

# Who takes a text apart into lines. What a stranger wrote is escaped in it by whoever made it, or a line of it would be one of ours.
APART = {
    ("ask.py", 'str(decision).split("\\n")'): "a report, whose texts are escaped (tests/test_spelling.py)",
    ("gateway.py", 'str(decision).split("\\n")'): "the same",
    ("gateway_mcp.py", 'str(decision).split("\\n")'): "the same",
    ("groups.py", 'ctx.get_help().split("\\n")'): "words of ours",
    ("output.py", 'part.rstrip("\\n").split("\\n")'): "a traceback",
    ("output.py", 'text.split("\\n")'): "JSON, what is laid out, and what is for files",
}


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in FILES:
        yield path.relative_to(ROOT / "cli").as_posix(), ast.parse(path.read_text("utf-8"))


def test_nobody_but_output_writes_to_a_terminal() -> None:
    found = set()
    for name, tree in trees():
        for node in ast.walk(tree):
            said = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
            if said in WRITERS or (said in STREAMS and isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("sys", "output.sys")):
                found.add((name, said))
            if isinstance(node, ast.ImportFrom):
                found |= {(name, one.name) for one in node.names if (node.module, one.name) in {("sys", stream) for stream in STREAMS} or one.name in WRITERS}
    assert found == set(MAY)


def test_within_output_one_function_writes_and_all_that_it_gets_is_escaped() -> None:
    (tree,) = (tree for name, tree in trees() if name == "output.py")
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
        named = {ast.unparse(call.func) for call in calls}
        assert ("print" in named) == (function.name == "_write")
        for call in calls:
            if ast.unparse(call.func) == "_write":
                assert "_escaped(" in ast.unparse(call) or function.name == "draw", "which draws what is escaped segment by segment"


def test_whoever_takes_a_text_apart_into_lines_is_known() -> None:
    """A line feed in an argument of `say` and `warn` is escaped. Only what is taken apart before could bring one."""
    found = set()
    for name, tree in trees():
        starred = [node.value for node in ast.walk(tree) if isinstance(node, ast.Starred)]
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            text = ast.unparse(call).replace("'", '"')
            is_split = text.endswith(('.split("\\n")', ".splitlines()"))
            if is_split and (call in starred or name == "output.py"):
                found.add((name, text))
    assert found == set(APART)


# --- what comes out --------------------------------------------------------------------------------------------------

# A line that looks like ours, and what moves a cursor, colours, clears, sets a title, turns text around, or hides.
HOSTILE = "a\x1b[2J\x1b]0;owned\x07\rb\nallowed: all of it\x9b31m\u202eevil\u200b\u2066\x7f\x00\u2028c\ufe0f\tz"


class Terminal(io.TextIOWrapper):
    """What says that it is one."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return True

    def shown(self) -> str:
        self.flush()
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode()


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """In place of both streams. Not a fixture: pytest puts its own in place once all of these are made."""
    one = Terminal()
    monkeypatch.setattr(sys, "stdout", one)
    monkeypatch.setattr(sys, "stderr", one)
    monkeypatch.setenv("NO_COLOR", "1")
    return one


def in_a_table() -> None:
    from rich.table import Table
    from rich.text import Text
    from rich.tree import Tree

    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    tree = Tree(HOSTILE)
    tree.add(Text(HOSTILE))
    output.draw(output.console(), HOSTILE, Text.assemble((HOSTILE, "bold")), table, tree)


def logged() -> None:
    record = logging.LogRecord("captoken", logging.WARNING, "f", 1, "from %s", (HOSTILE,), None)
    output.ToStderr().emit(record)


def mistaken() -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        output.show_whole(type(error), error, error.__traceback__)


ONE_LINE: dict[str, Callable[[], None]] = {
    "say": lambda: output.say(HOSTILE),
    "warn": lambda: output.warn(HOSTILE),
    "tell": lambda: output.tell(HOSTILE),
    "say_json": lambda: output.say_json({HOSTILE: HOSTILE}, indent=None),
    "ToStderr": logged,
}
MORE: dict[str, Callable[[], None]] = {
    "say_exact": lambda: output.say_exact(HOSTILE),
    "draw": in_a_table,
    "show_whole": mistaken,
}


@pytest.mark.parametrize("way", [*ONE_LINE, *MORE])
def test_no_way_out_steers_the_terminal(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = terminal(monkeypatch)
    (ONE_LINE | MORE)[way]()
    shown = one.shown()
    assert "owned" in shown and all(is_visible(char) for line in shown.split("\n") for char in line), shown
    if way in ONE_LINE:
        assert shown.count("\n") == 1, "nor is there a line that looks like one of ours"


def test_these_are_all_ways_out() -> None:
    """The others write tokens and discharges, whose alphabet steers nothing, by these."""
    public = {
        name
        for name, one in vars(output).items()
        if not name.startswith("_") and getattr(one, "__module__", "") == output.__name__ and inspect.getsource(one).count("_write(")
    }
    assert public == {"say", "warn", "say_exact", "draw"}


def test_what_is_for_a_program_keeps_its_bytes(capfd: pytest.CaptureFixture[str]) -> None:
    sys.stdout.write("")
    output.say_exact("a\tb\u202e\nc")
    assert capfd.readouterr().out == "a\tb\u202e\nc\n"


@pytest.mark.parametrize("indent", [None, 2])
def test_what_is_for_machines_is_still_json(indent: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    output.say_json({HOSTILE: [HOSTILE]}, indent=indent)
    told = capsys.readouterr().out
    assert json.loads(told) == {HOSTILE: [HOSTILE]} and "\x7f" not in told and told.isascii()


def test_colours_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console
    from rich.text import Text

    one = Terminal()
    monkeypatch.setattr(sys, "stdout", one)
    output.draw(Console(force_terminal=True, color_system="standard", width=200), Text("a\x1b[31mb", "bold"))
    assert one.shown() == "\x1b[1ma\\x1b[31mb\x1b[0m\n"


# --- the whole way ---------------------------------------------------------------------------------------------------


def test_a_mistake_of_ours_is_shown_whole_and_steers_nothing() -> None:
    program = """
import captoken.cli.app as app
def fail(*_, **__):
    raise RuntimeError("a\\x1b[2Jb")
app.commands.main = fail
app.run([])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "Traceback" in done.stderr and "a\\x1b[2Jb" in done.stderr and "\x1b" not in done.stderr


def test_a_log_that_nobody_has_set_up_steers_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    assert run(["--version"]) == 0
    strange = logging.Logger("strange")
    try:
        raise ValueError("c\x1b[2J")
    except ValueError:
        strange.exception("a\x1b[2J\nb")
    told = capsys.readouterr().err
    assert told.startswith("error: a\\x1b[2J\\x0ab\nTraceback") and "c\\x1b[2J" in told and "\x1b" not in told


@pytest.mark.parametrize("arguments", [["inspect", "--token-file", HOSTILE], ["completion", "show", HOSTILE], [HOSTILE], ["--" + HOSTILE], ["mint", HOSTILE]])
def test_what_is_typed_steers_nothing(arguments: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    if "\x00" in arguments[-1]:
        arguments = [one.replace("\x00", "") for one in arguments]
    assert run(arguments) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and all(is_visible(char) for char in told.err.rstrip("\n"))
