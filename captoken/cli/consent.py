"""The person at the terminal: what is needed, in words that cannot be misread, and a meant yes.

    This is needed, and you are asked:
      amount = 5000
      to = "ann"
    Approve, for 10m? [y/N]

What is needed was written by whoever wrote the caveat. That may be the agent which wants a yes.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from typing import IO, Any

import click

from captoken._format.spelling import escape

# A name that needs no quotes: nobody takes a part of it for something else.
_is_plain = re.compile(r"[A-Za-z0-9._-]+").fullmatch

# Columns before what goes on from the line above, and at least so many after them.
_INDENT = 6
_NARROWEST = 20

# Of a terminal that does not say how large it is.
_COLUMNS = 80
_ROWS = 24


def is_agreed(need: Mapping[str, Any], life: str) -> bool:
    """What the person at the terminal says: yes, or anything else.

    By the terminal itself: standard input may be the ticket, and standard error a file that nobody
    sees. Raises UsageError if there is no terminal, or if not all is seen at once.
    """
    nowhere = click.UsageError(
        "there is no terminal to ask at: a program that has decided runs `captoken discharge`"
    )
    try:
        import termios  # here, since not every system has it

        handle = os.open("/dev/tty", os.O_RDWR)
    except (ImportError, OSError):
        raise nowhere from None

    with open(handle, "r+b", buffering=0) as terminal:
        size = os.get_terminal_size(handle)
        question = _question(need, life, size)
        try:
            # What was typed before the question is no answer to it.
            termios.tcflush(terminal, termios.TCIFLUSH)
        except termios.error:
            raise nowhere from None
        terminal.write(question)
        answer = _line(terminal)

    # An empty line is a no, as the question says, and so is one that was not ended.
    return answer.strip().lower() in (b"y", b"yes")


def _question(
    need: Mapping[str, Any],
    life: str,
    size: os.terminal_size,
) -> bytes:
    """What is written to the terminal. Raises UsageError if it does not fit."""
    columns = size.columns or _COLUMNS
    rows = size.lines or _ROWS
    lines = asked(need, columns)

    # What scrolls away has not been seen. So nobody is asked about it, rather than about a part.
    # There is a line before and one after.
    if len(lines) + 2 > rows:
        much = f"{len(lines)} lines to read, and the terminal has {rows}"
        raise click.UsageError(f"{much}: what is not seen is not approved")

    written = ["This is needed, and you are asked:", *lines, f"Approve, for {life}? [y/N] "]
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


def asked(need: Mapping[str, Any], width: int) -> list[str]:
    """What is needed, in lines of at most `width` columns.

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
    for name, value in need.items():
        spelled = name if _is_plain(name) else json.dumps(name)
        line = escape(f"{spelled} = {json.dumps(value)}")
        lines.append(f"  {line[:room]}")

        # All lines of a value but its first begin with a bar, so that none looks like a name.
        for start in range(room, len(line), room):
            lines.append(f"{bar}{line[start : start + room]}")
    return lines
