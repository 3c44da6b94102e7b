"""The person at the terminal: what is needed, in words that cannot be misread, and a yes that is meant."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from captoken.cli import words
from captoken.decision import escape

_INDENT = 6  # columns before what goes on from the line above


def is_agreed(need: Mapping[str, Any], life: str) -> bool:
    """What the person at the terminal says: yes, or anything else. Raises UsageError if there is no terminal.

    By the terminal itself: standard input may be the ticket, and standard error a file that nobody sees.
    """
    problem = click.UsageError("there is no terminal to ask at: a program that has decided runs `captoken discharge`")
    try:
        import termios  # here, since not every system has it

        handle = os.open("/dev/tty", os.O_RDWR)
    except (ImportError, OSError):
        raise problem from None
    with open(handle, "r+b", buffering=0) as terminal:
        width = os.get_terminal_size(terminal.fileno()).columns or 80
        lines = ["This is needed, and you are asked:", *asked(need, width), f"Approve, for {life}? [y/N] "]
        try:
            termios.tcflush(terminal, termios.TCIFLUSH)  # what was typed before the question is no answer to it
        except termios.error:
            raise problem from None
        terminal.write("\n".join(lines).encode(getattr(sys.stderr, "encoding", None) or "ascii", "backslashreplace"))
        answer = b""
        while not answer.endswith(b"\n") and (part := terminal.read(1)):
            answer += part
    return answer.strip().lower() in (b"y", b"yes")


def asked(need: Mapping[str, Any], width: int) -> list[str]:
    """What is needed, in lines of at most `width` columns: each name on a line of its own, and nothing else where names stand.

    Whoever wrote it may want to be misread: everything is escaped, and what is too long is broken here rather than by
    the terminal, where it could look like another name.
    """
    from rich.cells import chop_cells  # here, since most commands draw nothing

    lines: list[str] = []
    for name, value in need.items():
        line = f"{words.name(name)} = {escape(json.dumps(value, ensure_ascii=False))}"
        first, *rest = chop_cells(line, max(width - _INDENT, 20))
        lines += [f"  {first}", *(f"{'| ':>{_INDENT}}{part}" for part in rest)]
    return lines
