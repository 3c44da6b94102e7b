"""Values, times and foreign text as people may be shown them: short, in a line, and nothing that hides or steers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any


def shown(value: Any) -> str:
    """`value` for an error message: escaped and short."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


def escape(text: str) -> str:
    """`text` with every character that does not print as itself written `\\xNN` or `\\uNNNN`; for terminals and logs."""
    return text if text.isascii() and text.isprintable() else "".join(
        char if is_visible(char) else char.encode("unicode_escape").decode() if ord(char) > 0xFF else f"\\x{ord(char):02x}"
        for char in text
    )  # fmt: skip


def is_visible(char: str) -> bool:
    """Does a character leave ink? Beyond what Unicode calls printable, some letters, marks and signs do not."""
    return char.isprintable() and not any(first <= char <= last for first, last in _WITHOUT_INK)


_WITHOUT_INK = (
    ("\u034f", "\u034f"), ("\u115f", "\u1160"), ("\u17b4", "\u17b5"), ("\u180b", "\u180f"), ("\u2800", "\u2800"),
    ("\u3164", "\u3164"), ("\ufe00", "\ufe0f"), ("\uffa0", "\uffa0"), ("\U000e0100", "\U000e01ef"),
)  # fmt: skip


def spelled_time(seconds: int) -> str:
    """A time for people; one that no calendar has stays a number."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def spelled(value: Any) -> str:
    """A JSON value for people, in a line and short."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 120 else text[:117] + "..."
