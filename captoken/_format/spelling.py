"""Values, names, times and foreign text as people may be shown them.

Short, on one line, and without characters that hide or steer. Names with anything but plain
characters in them are quoted, so that a table called `sales, hr` does not look like two.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

_SHOWN_CHARS = 80
_SPELLED_CHARS = 120


def shown(value: Any) -> str:
    """`value` for an error message: escaped and short."""
    return _cut(ascii(value), _SHOWN_CHARS)


def spelled(value: Any) -> str:
    """A JSON value for people, on one line and short."""
    return _cut(json.dumps(value, ensure_ascii=True), _SPELLED_CHARS)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


# --- foreign text ---------------------------------------------------------------------------------


def escape(text: str) -> str:
    """`text` for terminals and logs: what does not print as itself is `\\xNN` or `\\uNNNN`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if is_visible(char) else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    if ord(char) > 0xFF:
        return char.encode("unicode_escape").decode()
    return f"\\x{ord(char):02x}"


def is_visible(char: str) -> bool:
    """Does a character leave ink?

    Beyond what Unicode calls printable, some letters, marks and signs do not.
    """
    return char.isprintable() and not any(first <= char <= last for first, last in _WITHOUT_INK)


_WITHOUT_INK = (
    ("\u034f", "\u034f"),
    ("\u115f", "\u1160"),
    ("\u17b4", "\u17b5"),
    ("\u180b", "\u180f"),
    ("\u2800", "\u2800"),
    ("\u3164", "\u3164"),
    ("\ufe00", "\ufe0f"),
    ("\uffa0", "\uffa0"),
    ("\U000e0100", "\U000e01ef"),
)


# --- names ----------------------------------------------------------------------------------------

_is_plain = re.compile(r"[\w.*:/@+-]+").fullmatch


def named(text: str) -> str:
    """A name for people: in quotes unless its characters are plain."""
    return escape(text if _is_plain(text) else json.dumps(text, ensure_ascii=False))


def named_all(given: Iterable[str]) -> str:
    """Several names for people, sorted."""
    return ", ".join(map(named, sorted(given)))


# --- times ----------------------------------------------------------------------------------------

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def spelled_time(seconds: int) -> str:
    """A time for messages; one that no calendar has stays a number."""
    moment = _utc(seconds)
    return str(seconds) if moment is None else moment.isoformat()


def readable_time(seconds: int) -> str:
    """A time for people to read, in UTC; one that no calendar has stays a number."""
    moment = _utc(seconds)
    return str(seconds) if moment is None else moment.strftime("%Y-%m-%d %H:%M:%SZ")


def _utc(seconds: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def span(seconds: int) -> str:
    """A length of time in its two largest units: `9m 30s`."""
    parts: list[str] = []
    for size, unit in _UNITS:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def until(end: int, now: int) -> str:
    """When something ends, and how far off that is."""
    left = end - now
    away = f"{span(left)} left" if left > 0 else f"expired {span(-left)} ago"
    return f"{readable_time(end)}, {away}"
