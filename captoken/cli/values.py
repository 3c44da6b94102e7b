"""Parameter types: what stands behind an option, read from its text.

What is not of the type is refused in one line. A key or a token that is misplaced is not repeated.

    --expires-in 1h30m                  5400
    --now 2030-01-31T12:00:00Z          1896091200
    --allow sales=select,insert         {"sales": ["select", "insert"]}
    --where region={"in":["eu"]}        {"region": {"in": ["eu"]}}
    --attribute size=5                  ("size", 5)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, cast

import click
from click.shell_completion import CompletionItem

from captoken._format.clocks import duration
from captoken._format.public_keys import public_bytes
from captoken._format.spelling import shown
from captoken._language.constraints import CONSTRAINT_KEYS, read_constraint

# 16 bytes in base64url: the id of a token or of a link.
_is_id = re.compile(r"[A-Za-z0-9_-]{21}[AQgw]").fullmatch

# The last second of the year 9999, where calendars end.
_LAST_SECOND = 253402300799

# Of a number of seconds. With more, it is a slip.
_MOST_DIGITS = 15


def strict_json(text: str) -> Any:
    """The value of a JSON text without duplicate keys. Raises ValueError.

    What it says does not repeat the text, which may be a secret.
    """

    # Of a key that stands twice, other readers may take the other one.
    def paired(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a key stands twice in one object")
        return made

    try:
        return json.loads(text, object_pairs_hook=paired)
    except json.JSONDecodeError as error:
        # Without the text, which may be a secret.
        raise ValueError(f"not JSON: wrong from character {error.pos + 1} on") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


# Generic from click 8.4 on.
if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType


class _Type(_ParamType):
    """A parameter type made of a function that raises ValueError.

    The message of that is what stands behind the name of the option.
    """

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name  # as help shows it
        self._read = read

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """The value of an option. Ends in click's BadParameter for what is not of the type."""
        # A default, which click converts as well.
        if not isinstance(value, str):
            return value

        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _File(_ParamType):
    """The name of a file, as it is given. A shell completes it."""

    name = "file"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,
        incomplete: str,
    ) -> list[CompletionItem]:
        """Whatever files there are."""
        return [CompletionItem(incomplete, type="file")]


# --- times ----------------------------------------------------------------------------------------


def _duration(text: str) -> int:
    """`1h30m`, or seconds. Raises ValueError.

    90s, 10m, 2h, 1d    a number and its unit
    1h30m               several of them, added up
    5400                seconds
    """
    return int(text) if _is_number(text, most=12) else duration(text)


def _moment(text: str) -> int:
    """A time with its zone (RFC 3339), or seconds since the epoch. Raises ValueError.

    2030-01-31T12:00:00Z         as tokens are shown
    2030-01-31T13:00:00+01:00    the same
    1896091200                   the same
    2030-01-31T12:00:00          refused: of which zone?

    A part of a second is left out.
    """
    if _is_number(text, most=_MOST_DIGITS):
        return int(text)

    try:
        stated = datetime.fromisoformat(text)
    except ValueError:
        stated = None

    # A time without a zone would be another one on each machine.
    if stated is None or stated.utcoffset() is None:
        raise ValueError(
            f"{shown(text)} is no time: "
            "2030-01-31T12:00:00Z, with a zone, or seconds since the epoch"
        )
    # Down, before 1970 too.
    return int(stated.timestamp() // 1)


def _is_number(text: str, most: int) -> bool:
    """A number of ASCII digits, and of not more than so many."""
    return text.isascii() and text.isdigit() and len(text) <= most


def _count(text: str) -> int:
    """How many, or how much. Raises ValueError."""
    if not _is_number(text, most=_MOST_DIGITS):
        raise ValueError(f"{shown(text)} is no whole number from 0 on")
    return int(text)


def _now(text: str) -> int:
    """A time that every calendar has: what it is compared with is shown as a date."""
    seconds = _moment(text)
    if not 0 <= seconds <= _LAST_SECOND:
        raise ValueError("between 1970 and 9999")
    return seconds


# --- JSON -----------------------------------------------------------------------------------------


def _object(text: str) -> dict[str, Any]:
    """A JSON object, and no other value. Raises ValueError."""
    value: Any = strict_json(text)
    if type(value) is not dict:
        raise ValueError("a JSON object is meant")

    # The keys of a JSON object are texts.
    return cast("dict[str, Any]", value)


def _lists(text: str) -> dict[str, list[str]]:
    """`sales=select,insert`, or a JSON object of lists. Raises ValueError.

    sales=select,insert              {"sales": ["select", "insert"]}
    sales=                           {"sales": []}
    {"sales":["select"],"hr":[]}     as it stands: for names with a comma or an equals sign
    sales                            refused: is it a table without operations, or with all?
    sales,hr=select                  refused: two tables, or one of that name?

    What stands in the lists, whoever writes the token checks.
    """
    if text.startswith("{"):
        value = _object(text)
        if not all(isinstance(listed, list) for listed in value.values()):
            raise ValueError("a JSON object of lists is meant")
        return value

    key, equals, listed = text.partition("=")
    if not equals:
        raise ValueError(f"{shown(text)} has no '='")
    _no_comma(key)

    return {key: [item for item in listed.split(",") if item]}


def _no_comma(key: str) -> None:
    """Raise ValueError for what looks like two names, and would be one that nothing has."""
    if "," in key:
        raise ValueError(f"{shown(key)} has a comma: one name each time, or a JSON object")


def _objects(text: str) -> dict[str, dict[str, Any]]:
    """`search={"q":{"any":true}}`, or a JSON object of objects. Raises ValueError.

    search                        {"search": {}}: a tool without conditions
    search={"q":{"any":true}}     {"search": {"q": {"any": true}}}
    {"search":{},"look":{}}       as it stands
    """
    if text.startswith("{"):
        value = _object(text)
        if not all(isinstance(inner, dict) for inner in value.values()):
            raise ValueError("a JSON object of objects is meant")
        return value

    key, equals, inner = text.partition("=")
    _no_comma(key)
    return {key: _object(inner) if equals else {}}


def _constraints(what: str) -> Callable[[str], dict[str, dict[str, Any]]]:
    """A reader of the same, of tools or rows: what is said of each `what` is a constraint."""

    def read(text: str) -> dict[str, dict[str, Any]]:
        stated = _objects(text)
        for name, inner in stated.items():
            for key, constraint in inner.items():
                _check(constraint, f"{what} {shown(key)} of {shown(name)}")
        return stated

    return read


def _where(text: str) -> dict[str, dict[str, Any]]:
    """`region={"in":["eu"]}`, or a JSON object of objects. Raises ValueError."""
    # An attribute without a condition would be no restriction, and looks like one.
    if "=" not in text and not text.startswith("{"):
        raise ValueError(f"{shown(text)} has no '='")
    attributes = _objects(text)
    for attribute, constraint in attributes.items():
        _check(constraint, f"attribute {shown(attribute)}")
    return attributes


def _rule(text: str) -> dict[str, Any]:
    """`outside=private,untrusted`, or a JSON object: one rule over marks. Raises ValueError.

    outside=private,untrusted    {"in": ["outside"], "after": ["private", "untrusted"]}
    {"in":["a"],"after":["b"]}   as it stands

    What stands in it, whoever writes the token checks.
    """
    if text.startswith("{"):
        return _object(text)
    closed, equals, after = text.partition("=")
    if not equals:
        raise ValueError(f"{shown(text)} has no '='")
    return {
        key: [name for name in listed.split(",") if name]
        for key, listed in (("in", closed), ("after", after))
    }


def _asking(text: str) -> dict[str, Any]:
    """`KEY={"tools":["mail.*"]}`, or a JSON object: whose consent which calls need.

    KEY={"tools":["mail.*"]}    {"by": "KEY", "for": {"tools": ["mail.*"]}}
    {"by":"KEY","for":{}}       as it stands

    What stands in it, whoever writes the token checks. Raises ValueError.
    """
    if text.startswith("{"):
        return _object(text)
    key, equals, calls = text.partition("=")
    if not equals:
        raise ValueError(f"{shown(text)} has no '='")
    return {"by": key, "for": _object(calls)}


def _check(constraint: Any, of_what: str) -> None:
    """Raise ValueError for what no token can have as a constraint, with the place where it stands.

    Whoever writes the token completes and checks it once more, against what is held.
    """
    # Beside the constraint of an argument. What it says, the writer checks.
    stated = constraint
    if isinstance(constraint, dict):
        stated = {key: value for key, value in constraint.items() if key != "optional"}
    try:
        read_constraint(stated)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{of_what}: {error}{_meant(stated)}") from None


def _meant(stated: Any) -> str:
    """Which kind of constraint may be meant by a key that is of none, or nothing."""
    if not isinstance(stated, dict):
        return ""
    for key in sorted(stated.keys() - CONSTRAINT_KEYS):
        close = get_close_matches(key.lower(), CONSTRAINT_KEYS, n=1)
        if close:
            return f"; perhaps {close[0]} is meant"
    return ""


def _fact(text: str) -> tuple[str, Any]:
    """`region=eu`: the value as JSON, or else as it stands. Raises ValueError.

    region=eu      ("region", "eu")
    size=5         ("size", 5)
    size="5"       ("size", "5")
    note=          ("note", "")
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{shown(text)} has no '='")

    # So `size=5` is a number, and `size="5"` is text: an access that states the one is not
    # permitted by a rule about the other.
    try:
        return key, strict_json(value)
    except ValueError:
        return key, value


def _alone(example: str) -> Callable[[str], str]:
    """A reader of one name or pattern each time, which raises ValueError for a comma.

    Other options take lists with commas. Here one would be part of the name, and name nothing.
    """

    def read(text: str) -> str:
        if "," in text:
            raise ValueError(example)
        return text

    return read


# --- keys and ids ---------------------------------------------------------------------------------


def _public(text: str) -> str:
    """A public key, its form alone. What is none is not repeated: it may be a secret."""
    # The message of `public_bytes` shows what it got, so that another one takes its place.
    try:
        public_bytes(text, "a public key")
    except ValueError:
        raise ValueError(
            "a public key is 43 characters of base64url: `captoken keygen public FILE` shows it"
        ) from None
    return text


def _id(text: str) -> str:
    """The public id of a token or a link. What is none is not repeated: it may be a token."""
    if _is_id(text) is None:
        raise ValueError("an id is 22 characters of base64url, as `captoken inspect` shows it")
    return text


# --- the types, by the names that help shows ------------------------------------------------------

DURATION = _Type("duration", _duration)
COUNT = _Type("count", _count)
MOMENT = _Type("time", _moment)
NOW = _Type("time", _now)

OBJECT = _Type("json", _object)
LISTS = _Type("key=a,b", _lists)
ROWS = _Type("table=json", _constraints("column"))
TOOLS = _Type("tool=json", _constraints("argument"))
WHERE = _Type("attribute=json", _where)
MARKS = _Type("mark=json", _objects)
RULE = _Type("mark=a,b", _rule)
ASKING = _Type("key=json", _asking)
FACT = _Type("key=value", _fact)
TABLE = _Type("pattern", _alone("one pattern each time: --tables orders --tables customers"))
OPERATION = _Type("name", _alone("one name each time: --operations select --operations insert"))
FILE = _File()

# Those with a spelling of their own: whoever misses it is shown an example.
SPELLED = (OBJECT, LISTS, ROWS, TOOLS, WHERE, MARKS, RULE, ASKING, FACT)

PUBLIC = _Type("public key", _public)
ID = _Type("id", _id)
