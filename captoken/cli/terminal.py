"""The person at the terminal: what is asked, in words that cannot be misread, and a meant yes.

    This is needed, and you are asked:
      amount = 5000
      to = "ann"
    Approve, for 10m? [y/N]

What is asked may be written by the agent which wants a yes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import IO, TypeAlias

import click

from captoken._format.spelling import escape

# What is asked, in the order in which to read it: each name, in quotes unless it is plain, and the
# text of its value.
Facts: TypeAlias = Iterable[tuple[str, str]]

# Columns before what goes on from the line above, and at least so many after them.
_INDENT = 6
_NARROWEST = 20

# Of a terminal that does not say how large it is.
_COLUMNS = 80
_ROWS = 24


def is_agreed(title: str, facts: Facts, question: str, *, instead: str) -> bool:
    """What the person at the terminal says: yes, or anything else.

    `instead` is what to do where nobody can be asked. By the terminal itself: standard input may be
    what is asked, and standard error a file that nobody sees. Raises UsageError if there is no
    terminal, or if not all is seen at once.
    """
    nowhere = click.UsageError(f"there is no terminal to ask at: {instead}")
    try:
        import termios  # here, since not every system has it

        handle = os.open("/dev/tty", os.O_RDWR)
    except (ImportError, OSError):
        raise nowhere from None

    with open(handle, "r+b", buffering=0) as terminal:
        size = os.get_terminal_size(handle)
        asked = _asked(title, facts, question, size)
        try:
            # What was typed before the question is no answer to it.
            termios.tcflush(terminal, termios.TCIFLUSH)
        except termios.error:
            raise nowhere from None
        terminal.write(asked)
        answer = _line(terminal)

    # An empty line is a no, as the question says, and so is one that was not ended.
    return answer.strip().lower() in (b"y", b"yes")


def _asked(title: str, facts: Facts, question: str, size: os.terminal_size) -> bytes:
    """What is written to the terminal. Raises UsageError if it does not fit."""
    columns = size.columns or _COLUMNS
    rows = size.lines or _ROWS
    lines = lines_of(facts, columns)

    # What scrolls away has not been seen. So nobody is asked about it, rather than about a part.
    # There is a line before and one after.
    if len(lines) + 2 > rows:
        much = f"{len(lines)} lines to read, and the terminal has {rows}"
        raise click.UsageError(f"{much}: what is not seen is not approved")

    written = [title, *lines, f"{question} [y/N] "]
    # As standard error is written, which is mostly the same terminal.
    encoding = getattr(sys.stderr, "encoding", None) or "ascii"
    return "\n".join(written).encode(encoding, "backslashreplace")


def _line(terminal: IO[bytes]) -> bytes:
    """A line that is typed there; empty if the input ended before the line did.

    Who has not pressed Enter has not answered: the terminal went away, or a hand slipped.
    """
    line = b""
    # Byte by byte: what stands behind the line is somebody else's to read.
    while not line.endswith(b"\n"):
        typed = terminal.read(1)
        if not typed:
            return b""
        line += typed
    return line


def lines_of(facts: Facts, width: int) -> list[str]:
    """What is asked, in lines of at most `width` columns.

    Each name stands on a line of its own, and nothing else where names stand. Whoever wrote it may
    want to be misread: all is ASCII, so that terminals agree on its width. What is too long is
    broken here rather than by the terminal, where it could look like another name.

        amount = 5000
        to = "ann\\n  amount = 1"                   a line feed in a value: no name of its own
        "a b" = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxx
          | xxxxxxxxxxxxxxx"                       too long for the terminal
    """
    room = max(width - _INDENT, _NARROWEST)
    bar = f"{'| ':>{_INDENT}}"

    lines: list[str] = []
    for name, text in facts:
        line = escape(f"{name} = {text}").encode("ascii", "backslashreplace").decode()
        lines.append(f"  {line[:room]}")

        # All lines of a value but its first begin with a bar, so that none looks like a name.
        for start in range(room, len(line), room):
            lines.append(f"{bar}{line[start : start + room]}")
    return lines
