"""Values, names, times and foreign text as people may be shown them.

Short, on one line, and without characters that hide or steer. Names with anything but plain
characters in them are quoted, so that a table called `sales, hr` does not look like two.

    shown, spelled      values, in errors and for people
    shown_file          names of files, in errors
    escape              text of strangers, in terminals and logs
    named               names, and several of them
    spelled_time, …     times and lengths of time

Nothing here is read back by a program. What a terminal or a log would take for a command, a new
line or an empty place comes out as its number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any

_SHOWN_CHARS = 80
_SPELLED_CHARS = 120
_FILE_CHARS = 200


def shown(value: Any) -> str:
    """`value` for an error message: escaped and short.

    Not for secrets: the start of a value is shown as it is.
    """
    return _cut(_spell_safely(ascii, value), _SHOWN_CHARS)


def written(value: Any) -> str:
    """`value` for a `repr`, as it is. Not for secrets."""
    return _spell_safely(repr, value)


def _spell_safely(spell: Callable[[Any], str], value: Any) -> str:
    """What `spell` makes of a value.

    Python writes no integer of more than 4300 digits, and raises ValueError: a stranger's argument
    may be one, or have one in it, and then a word stands for the whole.
    """
    try:
        return spell(value)
    except ValueError:
        return "(too long to write)"


def shown_file(path: Any) -> str:
    """The name of a file for an error message: as it was given, escaped and in quotes.

    What is too long loses its beginning, since the end of it is what tells files apart. A part that
    could be a token or a key is left out: somebody may have given one in place of its file.
    """
    text = _could_be_secret.sub("...", ascii(str(path)))
    if len(text) <= _FILE_CHARS:
        return text
    return f"'...{text[4 - _FILE_CHARS :]}"


# A key in base64url has 43 characters, one in hex 64, and a token is longer.
_could_be_secret = re.compile(r"[A-Za-z0-9_+=-]{40,}")


def json_text(value: Any, *, ascii_alone: bool = False) -> str:
    """A JSON value as people read it, with a space behind each comma and colon.

    Raises TypeError for what JSON has not. For words: what is compared is spelled by `encoding`.
    """
    import json  # most programs show nothing

    return _spell_safely(partial(json.dumps, ensure_ascii=ascii_alone), value)


def spelled(value: Any) -> str:
    """A JSON value for people, on one line and short. Raises TypeError for what JSON has not."""
    return _cut(json_text(value, ascii_alone=True), _SPELLED_CHARS)


def _cut(text: str, most: int) -> str:
    """The text, or its start with three dots behind it: `most` characters together.

    It was escaped before. A cut may fall into an escape, which is then text like any other.
    """
    if len(text) <= most:
        return text
    return text[: most - 3] + "..."


# --- foreign text ---------------------------------------------------------------------------------


def escape(text: str) -> str:
    """`text` for terminals and logs: what does not print as itself is `\\xNN` or `\\uNNNN`.

    A backslash stays one, so that the text cannot be told back for certain. Does not shorten.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if is_visible(char) else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    """The number of a character, as Python spells it: `\\xNN`, `\\uNNNN` or `\\UNNNNNNNN`."""
    if char.isascii():  # also where Python has a letter for it, as for a line feed
        return f"\\x{ord(char):02x}"
    return char.encode("unicode_escape").decode()


def is_visible(char: str) -> bool:
    """Does a character leave ink?

    Beyond what Unicode calls printable, some letters, marks and signs do not. Whoever writes with
    them hides text from people, and not from programs.
    """
    if not char.isprintable():
        return False
    return not any(first <= char <= last for first, last in _WITHOUT_INK)


# Each range is given by its first and last character.
_WITHOUT_INK = (
    ("\u034f", "\u034f"),  # combining grapheme joiner
    ("\u115f", "\u1160"),  # Hangul fillers
    ("\u17b4", "\u17b5"),  # Khmer inherent vowels
    ("\u180b", "\u180f"),  # Mongolian variation selectors
    ("\u2800", "\u2800"),  # the empty pattern of Braille
    ("\u3164", "\u3164"),  # Hangul filler
    ("\ufe00", "\ufe0f"),  # variation selectors
    ("\uffa0", "\uffa0"),  # half-width Hangul filler
    ("\U000e0100", "\U000e01ef"),  # more variation selectors
)


# --- names ----------------------------------------------------------------------------------------

_is_plain = re.compile(r"[\w.*:/@+-]+").fullmatch


def named(text: str) -> str:
    """A name for people: in quotes unless its characters are plain.

    Two names that look alike still do: letters of all scripts are plain.
    """
    if _is_plain(text):
        return escape(text)
    # JSON puts quotes around it, and escapes those inside.
    return escape(json_text(text))


def named_all(given: Iterable[str]) -> str:
    """Several names for people, sorted, with commas between them.

    A name with a comma in it stands in quotes, so that it is not taken for two.
    """
    return ", ".join(map(named, sorted(given)))


# --- times ----------------------------------------------------------------------------------------

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def spelled_time(seconds: int) -> str:
    """A time for messages, in UTC, as ISO 8601 has it; one that no calendar has stays a number.

    `seconds` since the epoch. Never raises for an integer.
    """
    # A token may hold any integer, so that a time without a calendar is no error.
    moment = _utc(seconds)
    if moment is None:
        return str(seconds)
    return moment.isoformat()


def readable_time(seconds: int) -> str:
    """A time for people to read, in UTC; one that no calendar has stays a number.

    `seconds` since the epoch. The Z says that it is UTC, whatever the reader's clock shows.
    """
    moment = _utc(seconds)
    if moment is None:
        return str(seconds)
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")


def _utc(seconds: int) -> datetime | None:
    """The moment, or None: a token may say any integer, and a calendar ends before it."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def span(seconds: int) -> str:
    """A length of time in its two largest units: `9m 30s`. What is smaller is left out.

    `seconds` is 0 or more. A day is 86,400 seconds, and no unit is larger. It is never rounded up,
    so that nobody is told of more time than there is.
    """
    parts: list[str] = []
    for size, unit in _UNITS:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def until(end: int, now: int) -> str:
    """When something ends, and how far off that is, both in seconds since the epoch.

    At its end it has expired: a token is good while now is less than that.
    """
    # Whole seconds. At 0 it has expired, as verifiers decide it.
    left = end - now
    if left > 0:
        away = f"{span(left)} left"
    else:
        away = f"expired {span(-left)} ago"
    return f"{readable_time(end)}, {away}"


# --- what to write in the place of a value that is no JSON ---------------------------------------

# Classes of Python's own that are no JSON, and their subclasses: what a value can be instead.
_INSTEAD = {
    "Decimal": "an int in the smallest unit, as cents are, or a str",
    "PurePath": "a str, as os.path.realpath(path) gives it",
    "date": "a str, as its isoformat() gives it",
    "time": "a str, as its isoformat() gives it",
    "timedelta": "an int, of seconds for example",
    "Enum": "its value, a str or an int",
    "UUID": "a str, as str(uuid) gives it",
    "tuple": "a list",
    "set": "a list",
    "frozenset": "a list",
    "bytes": "a str",
}


def instead_of(kind: type) -> str:
    """What to write in the place of a value of a class that is no JSON. Empty where nobody knows.

    By the names of the classes that it is made of, so that no module is loaded to ask.
    """
    names = (each.__name__ for each in kind.__mro__)
    return next((_INSTEAD[name] for name in names if name in _INSTEAD), "")


def no_json(what: str, kind: type) -> TypeError:
    """For a value in an argument or attribute that JSON does not have, with what to write."""
    advice = instead_of(kind) or "a str, an int, a float, a bool, None, or lists and dicts of these"
    return TypeError(
        f"{what} contains a {kind.__name__}, which is not a JSON value: write {advice}"
    )
