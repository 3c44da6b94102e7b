"""The person at the terminal: what is needed, in words that cannot be misread, and a meant yes."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from typing import IO, Any

import click

from captoken._format.spelling import escape

_is_plain = re.compile(r"[A-Za-z0-9._-]+").fullmatch
_INDENT = 6  # columns before what goes on from the line above


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
        question = _question(need, life, os.get_terminal_size(handle))
        try:
            # What was typed before the question is no answer to it.
            termios.tcflush(terminal, termios.TCIFLUSH)
        except termios.error:
            raise nowhere from None
        terminal.write(question)
        answer = _line(terminal)
    return answer.strip().lower() in (b"y", b"yes")


def _question(need: Mapping[str, Any], life: str, size: os.terminal_size) -> bytes:
    """What is written to the terminal. Raises UsageError if it does not fit."""
    columns = size.columns or 80
    rows = size.lines or 24
    lines = asked(need, columns)
    # What scrolls away has not been seen. So nobody is asked about it, rather than about a part.
    if len(lines) + 2 > rows:  # with the lines before and after
        much = f"{len(lines)} lines to read, and the terminal has {rows}"
        raise click.UsageError(f"{much}: what is not seen is not approved")
    lines = ["This is needed, and you are asked:", *lines, f"Approve, for {life}? [y/N] "]
    encoding = getattr(sys.stderr, "encoding", None) or "ascii"
    return "\n".join(lines).encode(encoding, "backslashreplace")


def _line(terminal: IO[bytes]) -> bytes:
    """A line that is typed there, or what was typed when the terminal went away."""
    line = b""
    while not line.endswith(b"\n"):
        typed = terminal.read(1)
        if not typed:
            break
        line += typed
    return line


def asked(need: Mapping[str, Any], width: int) -> list[str]:
    """What is needed, in lines of at most `width` columns.

    Each name stands on a line of its own, and nothing else where names stand. Whoever wrote it may
    want to be misread: all is ASCII, so that terminals agree on its width. What is too long is
    broken here rather than by the terminal, where it could look like another name.
    """
    # All lines of a value but its first begin with a bar, so that none looks like a name.
    room = max(width - _INDENT, 20)
    lines: list[str] = []
    for name, value in need.items():
        spelled = name if _is_plain(name) else json.dumps(name)
        line = escape(f"{spelled} = {json.dumps(value)}")
        lines.append(f"  {line[:room]}")
        for start in range(room, len(line), room):
            lines.append(f"{'| ':>{_INDENT}}{line[start : start + room]}")
    return lines
