"""The person at the terminal: what is needed, in words that cannot be misread, and a yes that is meant."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from typing import Any

import click

from captoken._format.spelling import escape

_is_plain = re.compile(r"[A-Za-z0-9._-]+").fullmatch
_INDENT = 6  # columns before what goes on from the line above


def is_agreed(need: Mapping[str, Any], life: str) -> bool:
    """What the person at the terminal says: yes, or anything else. Raises UsageError if there is no terminal.

    By the terminal itself: standard input may be the ticket, and standard error a file that nobody sees.
    """
    problem = click.UsageError(
        "there is no terminal to ask at: a program that has decided runs `captoken discharge`"
    )
    try:
        import termios  # here, since not every system has it

        handle = os.open("/dev/tty", os.O_RDWR)
    except (ImportError, OSError):
        raise problem from None
    with open(handle, "r+b", buffering=0) as terminal:
        columns, rows = os.get_terminal_size(terminal.fileno())
        lines = asked(need, columns or 80)
        if len(lines) + 2 > (rows or 24):
            text = f"{len(lines)} lines to read, and the terminal has {rows or 24}: what is not seen is not approved"
            raise click.UsageError(text)
        lines = ["This is needed, and you are asked:", *lines, f"Approve, for {life}? [y/N] "]
        try:
            termios.tcflush(
                terminal, termios.TCIFLUSH
            )  # what was typed before the question is no answer to it
        except termios.error:
            raise problem from None
        terminal.write(
            "\n".join(lines).encode(
                getattr(sys.stderr, "encoding", None) or "ascii", "backslashreplace"
            )
        )
        answer = b""
        while not answer.endswith(b"\n") and (part := terminal.read(1)):
            answer += part
    return answer.strip().lower() in (b"y", b"yes")


def asked(need: Mapping[str, Any], width: int) -> list[str]:
    """What is needed, in lines of at most `width` columns: each name on a line of its own, and nothing else where names stand.

    Whoever wrote it may want to be misread: all is ASCII, so that terminals agree on its width, and what is too long is
    broken here rather than by the terminal, where it could look like another name.
    """
    lines: list[str] = []
    room = max(width - _INDENT, 20)
    for name, value in need.items():
        line = escape(f"{name if _is_plain(name) else json.dumps(name)} = {json.dumps(value)}")
        first, *rest = (line[start : start + room] for start in range(0, len(line), room))
        lines += [f"  {first}", *(f"{'| ':>{_INDENT}}{part}" for part in rest)]
    return lines
