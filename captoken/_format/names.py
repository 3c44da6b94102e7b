"""What may be a name, a pattern or a task path (spec, "Names").

Three kinds. *Names* of agents, tasks, subjects, operations, key ids and audiences are ASCII, so that they can be shown
to people and to models. *Free names* (tables, columns, tools, arguments, attributes, strings in constraints) are what
other systems chose: compared code point by code point, never normalised, never trimmed. *Patterns* are free names in
dot-separated segments. Each function returns its argument and raises TypeError or ValueError.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from captoken._format.spelling import shown

MAX_NAME = 128  # characters of a name
MAX_FREE_NAME = 256  # bytes of a free name, in UTF-8

NAME = r"[A-Za-z0-9._:/@+-]{1,128}"
is_name = re.compile(NAME).fullmatch
_is_namespaced = re.compile(r"[A-Za-z0-9._/@+-]+:[A-Za-z0-9._:/@+-]+").fullmatch
is_plain_pattern = re.compile(
    r"\*|[A-Za-z0-9_-]{1,64}(?:\.[A-Za-z0-9_-]{1,64})?(?:\.\*)?"
).fullmatch  # nearly all
_NO_SEGMENTS = frozenset(("", ".", ".."))
_UNPRINTABLE = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def exact_str(value: Any, what: str) -> str:
    # A subclass of str may compare and hash as it likes, so only str itself is a name.
    if type(value) is not str:
        raise TypeError(f"{what} must be a str, not {type(value).__name__}")
    return value


def name(value: Any, what: str) -> str:
    """An ASCII name: 1 to 128 of `A-Z a-z 0-9 . _ : / @ + -`."""
    if type(value) is str and is_name(value):
        return value
    exact_str(value, what)
    raise ValueError(
        f"{what} {shown(value)} is not a name: 1 to {MAX_NAME} of A-Z a-z 0-9 . _ : / @ + -"
    )


def namespaced(value: Any, what: str) -> str:
    """A name with a namespace in front, `acme:region`."""
    if _is_namespaced(name(value, what)) is None:
        raise ValueError(f"{what} {shown(value)} is not namespaced, as acme:region is")
    return str(value)


def task(value: Any, what: str = "task") -> str:
    """A path of `/`-separated segments, none of them empty, `.` or `..`."""
    path = name(value, what)
    if ("/" in path or path[0] == ".") and not _NO_SEGMENTS.isdisjoint(path.split("/")):
        raise ValueError(f"{what} {shown(value)} has a segment that is empty, '.' or '..'")
    return path


def at_or_below(path: str, above: str) -> bool:
    """Is the task `path` the task `above`, or below it?"""
    return path == above or path.startswith(above + "/")


def free_name(value: Any, what: str) -> str:
    """1 to 256 bytes of UTF-8 without control, format, surrogate or separator characters, no white space at the ends."""
    text = exact_str(value, what)
    if (
        text.isascii()
        and text.isprintable()
        and 0 < len(text) <= MAX_FREE_NAME
        and text[0] != " " != text[-1]
    ):
        return text
    if (
        not text
        or text != text.strip()
        or any(unicodedata.category(char) in _UNPRINTABLE for char in text)
    ):
        raise ValueError(
            f"{what} {shown(value)} is empty, padded, or has a character that cannot be printed"
        )
    if len(text.encode()) > MAX_FREE_NAME:
        raise ValueError(f"{what} {shown(value)} is longer than {MAX_FREE_NAME} bytes")
    return text


def segmented(value: Any, what: str) -> str:
    """The name of one table or tool: a free name without `*` and without empty segments."""
    if type(value) is str and is_plain_pattern(value) and value[-1] != "*":
        return value
    text = free_name(value, what)
    if "*" in text or "" in text.split("."):
        raise ValueError(f"{what} {shown(value)} has a '*' or an empty segment")
    return text


def pattern(value: Any, what: str) -> str:
    """A pattern: a table or tool, or everything below a segment (`market.*`), or everything (`*`)."""
    if type(value) is str and is_plain_pattern(value):
        return value
    text = free_name(value, what)
    segments = text.split(".")
    if segments[-1] == "*":
        segments.pop()
    if "" in segments or any("*" in segment for segment in segments):
        raise ValueError(f"{what} {shown(value)} is no pattern: exact, ending in '.*', or '*'")
    return text


def composed(value: Any) -> None:
    """Raise ValueError if a string in the JSON `value` is not NFC: two spellings of one name are a trap (writers only)."""
    if isinstance(value, str):
        if not unicodedata.is_normalized("NFC", value):
            raise ValueError(f"{shown(value)} is not in Unicode normal form C")
    elif isinstance(value, dict):
        for key, item in value.items():
            composed(key)
            composed(item)
    elif isinstance(value, list):
        for item in value:
            composed(item)
