"""What may be a name, a pattern or a task path (spec, "Names").

Three kinds:

- *Names* of agents, tasks, subjects, operations, key ids and audiences are ASCII, so that they can
  be shown to people and to models.
- *Free names* are what other systems chose: of tables, columns, tools, arguments and attributes,
  and strings in constraints. They are compared code point by code point.
- *Patterns* are free names in dot-separated segments.

A mapping of a caller's may be of any class, and answer differently each time. Whoever takes one
makes a plain dict of it first (`frozen_copy`), checks that, and uses nothing else.

Nothing is normalised, trimmed or folded, so that no two names become one (spec 4.6). Each function
takes what a caller gave and `what` to call it in errors. It returns its argument, and raises
TypeError or ValueError.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from captoken._format.spelling import shown

MAX_NAME = 128  # characters of a name
MAX_FREE_NAME = 256  # bytes of a free name, in UTF-8

# The classes below are written out: `\w` would take letters of all scripts.
NAME = r"[A-Za-z0-9._:/@+-]{1,128}"
is_name = re.compile(NAME).fullmatch
# The first colon has something on both sides. Further ones belong to what is behind it.
_is_namespaced = re.compile(r"[A-Za-z0-9._/@+-]+:[A-Za-z0-9._:/@+-]+").fullmatch

# Patterns that need no second look, and nearly all are such: at most two short segments in ASCII.
is_plain_pattern = re.compile(
    r"\*|[A-Za-z0-9_-]{1,64}(?:\.[A-Za-z0-9_-]{1,64})?(?:\.\*)?"
).fullmatch

# What a path of tasks has no segment of: two spellings of one place, or a way out of it.
_NO_SEGMENTS = frozenset(("", ".", ".."))
# Unicode's control, format, surrogate and separator characters: they hide text, or steer it.
# Written out, so that each Python says the same, whatever its tables (spec 4.8).
_is_hidden_in = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f"
    r"\u2028-\u202e\u2060-\u2064\u2066-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    r"\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0001\U000e0020-\U000e007f]"
).search


def frozen_copy(given: Any, what: str) -> dict[Any, Any]:
    """What a mapping says now, in a dict of its own. Keys and values are as they were given.

    Raises TypeError for what is no mapping, and what the mapping raises. Does not look into the
    values: a mapping in it is read by whoever knows what it means.
    """
    if type(given) is dict:
        return given.copy()
    if not isinstance(given, Mapping):
        raise TypeError(f"{what} must be a mapping, not {type(given).__name__}")
    return dict(given.items())


def exact_str(value: Any, what: str) -> str:
    """Text, of whatever content. Raises TypeError.

    A subclass of str may compare and hash as it likes, so only str itself will do.
    """
    if type(value) is not str:
        raise TypeError(f"{what} must be a str, not {type(value).__name__}")
    return value


def encoded(value: Any, what: str, encoding: str = "utf-8") -> bytes:
    """The bytes of a string.

    Raises TypeError for no string, and ValueError for what the encoding cannot spell.
    """
    try:
        return exact_str(value, what).encode(encoding)
    except UnicodeEncodeError as error:
        character = ascii(error.object[error.start])
        raise ValueError(f"{what} contains {character}, which {encoding} cannot encode") from None


def name(value: Any, what: str) -> str:
    """An ASCII name: 1 to 128 of `A-Z a-z 0-9 . _ : / @ + -` (spec 4.1).

    Says nothing of whether anybody has that name.

        name("sales-agent@acme", "agent")    # as it was given
        name("sales agent", "agent")         # ValueError: a space
    """
    # The type first: a pattern would take a subclass of str.
    if type(value) is str and is_name(value):
        return value

    exact_str(value, what)
    raise ValueError(
        f"{what} {shown(value)} is not a name: write 1 to {MAX_NAME} of A-Z a-z 0-9 . _ : / @ + -"
    )


def namespaced(value: Any, what: str) -> str:
    """A name with a namespace in front, `acme:region` (spec 4.3).

    So that the words of one project are not taken for those of another, or of a later version.
    Something stands on both sides of the first colon. Nobody registers namespaces.

        namespaced("acme:region", "key")     # as it was given
        namespaced("region", "key")          # ValueError
    """
    text = name(value, what)
    if _is_namespaced(text) is None:
        raise ValueError(f"{what} {shown(value)} needs a namespace: write it like acme:region")
    return text


def task(value: Any, what: str = "task") -> str:
    """A path of `/`-separated segments, none of them empty, `.` or `..` (spec 4.2).

    So no two paths are one place. What a task is about, nobody asks here.
    """
    path = name(value, what)
    # Without a slash there is one segment, and a name is not empty: only dots are left to look for.
    may_have_one = "/" in path or path[0] == "."
    if may_have_one and not _NO_SEGMENTS.isdisjoint(path.split("/")):
        raise ValueError(f"{what} {shown(value)} has a segment that is empty, '.' or '..'")
    return path


def at_or_below(path: str, above: str) -> bool:
    """Is the task `path` the task `above`, or below it (spec 4.2)?

    `q3/x` is below `q3`, and `q30` is not: the slash stays in the comparison. Both are paths that
    `task` has taken, which is not checked again.

        at_or_below("q3/x", "q3")    # True
        at_or_below("q3", "q3/x")    # False: it is above
    """
    return path == above or path.startswith(above + "/")


def free_name(value: Any, what: str) -> str:
    """1 to 256 bytes of UTF-8, all of it visible in some way (spec 4.4).

    Without control, format, surrogate or separator characters, and with no white space at its ends.
    What looks alike is not refused: `Sales` and `sales` are two names.

        free_name("Umsätze 2026", "table")   # as it was given
        free_name("a\\tb", "table")           # ValueError: a control character
    """
    text = exact_str(value, what)

    # Nearly all names are in ASCII, where printable says it all.
    is_plain = (
        text.isascii()
        and text.isprintable()
        and 0 < len(text) <= MAX_FREE_NAME
        and text[0] != " "
        and text[-1] != " "
    )
    if is_plain:
        return text

    # A value that is no name can be of any length, and is not gone through.
    if len(text) > MAX_FREE_NAME:
        raise ValueError(f"{what} {shown(value)} is longer than {MAX_FREE_NAME} bytes")
    is_padded = text != text.strip()
    # What hides, and what turns the direction of the text behind it, is among these.
    if not text or is_padded or _is_hidden_in(text):
        raise ValueError(
            f"{what} {shown(value)} is empty, padded, or has a character that cannot be printed"
        )
    # Surrogates were refused above, so that it can be encoded.
    # Bytes and not characters, since every language counts bytes alike.
    if len(text.encode()) > MAX_FREE_NAME:
        raise ValueError(f"{what} {shown(value)} is longer than {MAX_FREE_NAME} bytes")
    return text


def segmented(value: Any, what: str) -> str:
    """The name of one table or tool: a free name without `*` and without empty segments (spec 4.5).

    A `*` in a name would be taken for a pattern by whoever writes it into a caveat.

        segmented("market.eu", "table")      # as it was given
        segmented("market..eu", "table")     # ValueError: an empty segment
    """
    if type(value) is str and is_plain_pattern(value) and value[-1] != "*":
        return value

    text = free_name(value, what)
    # An empty segment would be a second way to write the level above.
    if "*" in text or "" in text.split("."):
        raise ValueError(f"{what} {shown(value)} has a '*' or an empty segment")
    return text


def pattern(value: Any, what: str) -> str:
    """A pattern: a table or tool, or all below a segment (`market.*`), or all (`*`) (spec 4.5).

    A `*` stands for whole segments at the end, and nowhere else. So two patterns are nested or
    disjoint, and to match one takes no search.

        pattern("market.*", "table")         # as it was given
        pattern("*.eu", "table")             # ValueError: a star at the start
    """
    if type(value) is str and is_plain_pattern(value):
        return value

    text = free_name(value, what)
    segments = text.split(".")
    # The one place where a star may stand. What is left must be a name, or nothing at all.
    if segments[-1] == "*":
        segments.pop()
    if "" in segments or any("*" in segment for segment in segments):
        raise ValueError(
            f"{what} {shown(value)} is not a pattern: write an exact name, one ending in '.*', or "
            "'*'"
        )
    return text


def composed(value: Any) -> None:
    """Raise ValueError if a string in the JSON `value` is not in Unicode normal form C (spec 4.7).

    For writers only: two spellings of one name are a trap for people. A reader compares code points
    and takes both, as two names. Keys are looked at too. Checks nothing else of the value.

    An example: é is one character, or an e with an accent behind it. They look alike, and only the
    first is in normal form C.
    """
    if isinstance(value, str):
        # ASCII is in every normal form.
        if not value.isascii() and not unicodedata.is_normalized("NFC", value):
            raise ValueError(
                f"{shown(value)} is not in Unicode normal form C: pass it through "
                "unicodedata.normalize('NFC', …) first"
            )
    elif isinstance(value, dict):
        for key, item in value.items():
            composed(key)
            composed(item)
    elif isinstance(value, list):
        for item in value:
            composed(item)
