"""What the command line writes: results to standard output, all else to standard error.

Whatever is written goes through `escape` here, line by line, and nobody else in the command line
writes to a terminal. So what a stranger has put into a name, an address or an error moves no cursor
and has no colour. Who writes a line gives it as one: a line feed in it is escaped, so it looks like
no other line of ours. No markup is ever read out of a text.

    say, warn       lines, each its own argument
    say_exact       what others read byte by byte: it is escaped where a terminal shows it
    tell            a line for whoever sits there
    draw            trees and tables, whose colours are ours
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

from captoken._format.spelling import escape, spelled_time

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.segment import Segment

    from captoken._language.discharge import Discharge
    from captoken._writing.token import Token
    from captoken._writing.token_set import TokenSet

_trailing_blanks = re.compile(r" +$", re.MULTILINE).sub

# Tokens, discharges and proofs, wherever they stand in a text.
_secret_text = re.compile(r"(cap1[udp]?_|caps1_)[A-Za-z0-9_~-]{8,}").sub

# What is written as a key is, public or secret, and stands alone.
_like_a_key = re.compile(r"(?<![\w./-])[A-Za-z0-9_-]{43}(?![\w/-]|\.\w)").sub

# What is no terminal has no width: so many columns that no line is broken.
_NO_WIDTH = 10_000


def prepare() -> None:
    """Let a terminal that lacks a character show its number instead of ending the program.

    A traceback is escaped as all else is, and so is the log of whoever has set up none.

    A stream that a test or a program has put in place is left as it is.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.excepthook = show_whole
    logging.lastResort = ToStderr(logging.WARNING)


def show_whole(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """A mistake of the library's own, as Python shows it: with what a stranger wrote escaped."""
    import traceback  # mostly nothing is mistaken

    for part in traceback.format_exception(kind, error, trace):
        warn(*part.rstrip("\n").split("\n"))


class ToStderr(logging.Handler):
    """A log on standard error: a line for each record, and a traceback behind it.

    `timed`: each line begins with its time, as the log of a server does.
    """

    def __init__(self, level: int = logging.NOTSET, *, timed: bool = False) -> None:
        super().__init__(level)
        self._timed = timed

    def emit(self, record: logging.LogRecord) -> None:
        """What Python calls with each record."""
        at = f"{spelled_time(int(record.created))} " if self._timed else ""
        warn(f"{at}{record.levelname.lower()}: {record.getMessage()}")
        if record.exc_info and record.exc_info[1] is not None:
            _, error, trace = record.exc_info
            show_whole(type(error), error, trace)


def say(*lines: str) -> None:
    """Lines of a result, to standard output. None is an empty one.

    If nobody reads it any more, as in `captoken audit log trail.jsonl | head -1`, it goes nowhere,
    and the command comes to its own end: what it found is in its exit code all the same.
    """
    _write(_escaped(lines), sys.stdout)


def warn(*lines: str) -> None:
    """Lines for whoever sits there, to standard error."""
    _write(_escaped(lines), sys.stderr)


def _escaped(lines: Iterable[str]) -> str:
    """Lines as a terminal may be shown them. The one place by which a text gets there."""
    return "\n".join(map(escape, lines))


def _write(text: str, stream: TextIO) -> None:
    """A text and a line feed. From the first that nobody reads on, all goes nowhere."""
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        # What is left in the buffer goes nowhere too, or else the flush at exit would complain.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def say_exact(text: str) -> None:
    """A result whose bytes matter, for a file or a program: a ticket, a script, a page.

    In UTF-8, whatever the terminal can show; and a terminal is shown it escaped. A stream that a
    test has put in place is left as it is.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    _write(_escaped(text.split("\n")) if sys.stdout.isatty() else text, sys.stdout)


def say_json(value: Any, indent: int | None = 2) -> None:
    """A result for machines. ASCII, so that nothing in it can move a terminal.

    With `indent=None` on one line. Raises TypeError for what JSON has no place for.
    """
    # JSON leaves one such character as it is.
    text = json.dumps(value, indent=indent).replace("\x7f", "\\u007f")
    say(*text.split("\n"))


def answer(as_json: bool, data: Any, *lines: str) -> None:
    """A result: for machines as JSON, and for people in these lines, if there are any."""
    if as_json:
        say_json(data)
    elif lines:
        say(*lines)


def spaced(parts: Iterable[Iterable[str]]) -> list[str]:
    """The lines of several things, with an empty one between two of them."""
    return [line for part in parts for line in ("", *part)][1:]


def say_token(text: str, as_json: bool) -> None:
    """A token that was written, alone; or with what it says of itself, for machines.

    `text` may have discharges and a proof behind the token, as what is sent has.
    """
    if not as_json:
        return say(text)
    from captoken.cli.view import read  # here, since most commands write no token

    token = read(text).token
    return say_json(
        {
            "token": text,
            "token_id": token.unverified.root.token_id,
            "link_id": token.link_id,
            "expires_at": token.unverified.expires_at,
            "characters": len(text),
        }
    )


def say_held(held: Token | TokenSet, as_json: bool) -> None:
    """What was written to be held: a token, or a set of them."""
    from captoken._writing.token_set import TokenSet  # as above

    text = held.serialize()
    if not isinstance(held, TokenSet):
        return say_token(text, as_json)
    data = {
        "set": text,
        "servers": list(held.servers),
        "expires_at": held.expires_at,
        "characters": len(text),
    }
    return answer(as_json, data, text)


def say_discharge(made: Discharge, as_json: bool) -> None:
    """A discharge that was given, alone or with its end."""
    text = made.serialize()
    answer(as_json, {"discharge": text, "expires_at": made.expires_at}, text)


def tell(text: str) -> None:
    """A line for whoever sits there, to standard error.

    It is escaped, and has not the text of a token that was misplaced.
    """
    # One line: the text of an error could else look like two of ours. A token or a key in the wrong
    # place, as the name of a file, is in the message of an error. Whoever reads standard error, or
    # the log that it goes to, must not get it by that.
    shown = _secret_text(r"\1...", " ".join(text.split()))
    warn(f"captoken: {_like_a_key('...', shown)}")


def is_unicode() -> bool:
    """Can standard output show more than ASCII?"""
    return (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")


def console(*, color: bool = True, width: int | None = None) -> Console:
    """Standard output for trees and tables.

    Without colour for NO_COLOR, TERM=dumb and what is no terminal.

    What is no terminal has no width either: lines stay whole, for `grep`, unless COLUMNS or `width`
    say otherwise.
    """
    from rich.console import Console  # here, since most commands draw nothing

    environ = os.environ
    plain = not color or bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"
    if width is None and not sys.stdout.isatty() and not environ.get("COLUMNS"):
        width = _NO_WIDTH

    # No markup, no emoji: what comes from a token could have either in it.
    return Console(
        color_system=None if plain else "auto",
        width=width,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=False,
    )


def draw(on: Console, *drawn: Any) -> None:
    """Draw trees, tables and texts, without the blanks that tables leave at the ends of lines.

    All that is drawn is escaped once it is laid out, and before it gets its colours.
    """
    with on.capture() as capture:
        for part in drawn:
            on.print(_Drawn(part))
    # Not by the console: so that a reader that goes away is noticed.
    _write(_trailing_blanks("", capture.get()).removesuffix("\n"), sys.stdout)


class _Drawn:
    """What is drawn, with each of its texts escaped."""

    def __init__(self, part: Any) -> None:
        self._part = part

    def __rich_console__(self, on: Console, options: ConsoleOptions) -> Iterator[Segment]:
        from rich.segment import Segment

        for text, style, control in on.render(self._part, options):
            if control is None:
                yield Segment(_escaped(text.split("\n")), style)


def columns() -> int:
    """How wide the terminal is, or COLUMNS says, or else 80."""
    return shutil.get_terminal_size().columns
