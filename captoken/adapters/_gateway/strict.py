"""Bytes of a request to values, where every reader would read the same; else RequestError, 400.

    path_segments(b"/v1/refunds/re%201")         # ["v1", "refunds", "re 1"]
    json_value(b'{"amount": 500}')               # {"amount": 500}
    fields_value(b"amount=500", members, "repeat")   # {"amount": 500}

*Why so strict:* the service reads the request again. What two readers read differently is refused
here, whichever reader the service has: of a repeated key one takes the first and one the last; one
cuts a path at a semicolon; Go reads `Amount` as `amount`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any, TypeAlias

from captoken._format.encoding import MAX_INTEGER
from captoken._format.spelling import shown
from captoken._language.bounds import NUMBER_CHARS, is_crowded, is_deep
from captoken.adapters._gateway.shapes import (
    ANY,
    DEEPEST,
    Listed,
    Members,
    Scalar,
    Shape,
    member,
)
from captoken.adapters._http.escapes import unescaped
from captoken.adapters._http.exchange import RequestError

INT64 = 2**63
FIELDS = 1000  # of a query or a form

# What RFC 3986 has in a segment, without the semicolon, which some readers cut a path at. Each
# percent sign begins an escape.
_is_segment = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,=:@-]|%[0-9A-Fa-f]{2})+").fullmatch
# A slash, a backslash, a percent sign or NUL in an escape: a second reader would find another path.
_hides = re.compile(rb"%(?:2f|5c|25|00|3b)", re.IGNORECASE).search
# A query or a form: visible ASCII, each percent sign an escape. A semicolon parts fields for some.
_is_fields = re.compile(rb"(?:[!$&-:<-\[\]-~]|%[0-9A-Fa-f]{2})*").fullmatch
_name_parts = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)").fullmatch
_keys = re.compile(r"\[([^\[\]]*)\]").findall
_is_integer = re.compile(r"0|-?[1-9][0-9]*").fullmatch
_is_number = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?").fullmatch
_control = re.compile("[\0-\x1f\x7f]").search
# By which frameworks take another method than the request's own.
_OVERRIDES = frozenset(("_method", "_http_method", "x-http-method-override"))


def bad(text: str) -> RequestError:
    """A request that cannot be read in one way alone. Made here, raised by the caller."""
    return RequestError(400, text)


# --- paths ----------------------------------------------------------------------------------------


def path_segments(raw: bytes) -> list[str]:
    """The segments of a path, decoded. The last one is empty behind a slash at the end."""
    if not raw.startswith(b"/"):
        raise bad("The target of a request must be a path.")
    segments = raw[1:].split(b"/")
    found = [_segment(each) for each in segments if each]
    # Only the last one may be empty, which is a path that ends in a slash.
    if b"" in segments[:-1]:
        raise bad("The path has an empty segment.")
    return found if segments[-1] else [*found, ""]


def _segment(raw: bytes) -> str:
    if raw.isalnum():
        return raw.decode("ascii")
    if _is_segment(raw) is None:
        raise bad("The path has a character, or a percent sign, that not all readers read alike.")
    if _hides(raw):
        raise bad("The path has an escaped slash, backslash, semicolon, percent sign or NUL.")
    text = _utf8(unescaped(raw), "The path")
    if text in (".", ".."):
        raise bad("The path has a dot segment.")
    return _plain(text, "The path")


def _utf8(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise bad(f"{what} is no UTF-8.") from None


def _plain(text: str, what: str) -> str:
    """Return `text` if it has no character that some reader takes for the end of a string or a
    line.
    """
    if _control(text):
        raise bad(f"{what} has a control character.")
    return text


# --- JSON -----------------------------------------------------------------------------------------


_DEEP = "The body is nested too deeply."


def json_value(body: bytes) -> Any:
    """The value of a JSON text: no key twice in whatever case, and each number exactly a double."""
    if is_crowded(body):
        raise bad("The body has too many arrays and objects.")
    text = _utf8(body, "The body")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_fraction,
            parse_constant=_constant,
        )
    except RecursionError:
        raise bad(_DEEP) from None
    except ValueError:
        raise bad("The body is not JSON.") from None
    if is_deep(value):
        raise bad(_DEEP)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    _told_apart(made, len(pairs))
    if any("\x00" in name for name in made):
        raise bad("The body has NUL in a name.")
    return made


def _told_apart(members: dict[str, Any], count: int) -> None:
    """Raise RequestError unless so many names stay, for a reader that does not tell case apart."""
    if len(set(map(str.casefold, members))) != count:
        raise bad("One object has a name twice, perhaps in another case.")


def _integer(text: str) -> int:
    if len(text) > NUMBER_CHARS:
        raise bad(f"The body has a number of more than {NUMBER_CHARS} characters.")
    return int(text)


def _fraction(text: str) -> float:
    """A number that is the same decimal in its shortest spelling as a double: all read it alike."""
    if len(text) > NUMBER_CHARS:
        raise bad(f"A number has more than {NUMBER_CHARS} characters.")
    value = float(text)
    try:
        exact = isfinite(value) and Decimal(repr(value)) == Decimal(text)
    except InvalidOperation:
        exact = False  # its exponent is none that a decimal has
    if not exact:
        raise bad("A number is not exactly what a double holds: readers would round it.")
    return value or 0.0  # -0.0 is 0


def _constant(text: str) -> Any:
    raise bad(f"{text} is no number in JSON.")


# Where a value stands: the names from outside in.
Place: TypeAlias = tuple[str, ...]


def fitting(value: Any, shape: Shape, place: Place) -> None:
    """Raise RequestError unless a JSON value has the shape that its operation declares.

    null is taken for any of them: it is an argument like others, which only `any` permits.
    """
    match shape:
        case _ if value is None:
            return
        case Members():
            if type(value) is not dict:
                raise bad(f"{_named(place)} is an object.")
            for name, item in value.items():
                fitting(item, declared(name, shape, place), (*place, name))
        case Listed():
            if type(value) is not list:
                raise bad(f"{_named(place)} is a list.")
            for item in value:
                fitting(item, shape.item, place)
        case Scalar(kind="any"):
            _any(value, place)
        case Scalar():
            _scalar(value, shape.kind, place)


def _any(value: Any, place: Place) -> None:
    """Look through a value of which nothing is declared: its integers, and NUL."""
    if type(value) in (dict, list):
        for item in value.values() if type(value) is dict else value:
            _any(item, place)
    elif type(value) is int:
        _scalar(value, "integer", place)
    elif type(value) is str:
        _scalar(value, "string", place)


_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "int64": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def _scalar(value: Any, kind: str, place: Place) -> None:
    if type(value) not in _TYPES[kind]:
        raise bad(f"{_named(place)} is of another type: {kind} is declared.")
    if type(value) is int:
        _in_range(value, kind, place)
    if type(value) is str and "\x00" in value:
        raise bad(f"{_named(place)} has NUL in it.")


def _in_range(value: int, kind: str, place: Place) -> None:
    least, most = (-INT64, INT64 - 1) if kind == "int64" else (-MAX_INTEGER, MAX_INTEGER)
    if not least <= value <= most:
        raise bad(f"{_named(place)} is an integer that not all readers keep exactly.")


def declared(name: str, shape: Members, place: Place) -> Shape:
    """The shape of a member of that name. Raises RequestError for a name that is not taken."""
    found = shape.members.get(name)
    if found is not None:
        return found
    where = _named((*place, name))
    if name.casefold() in shape.folded:
        raise bad(f"{where} is declared in another case.")
    if not shape.more:
        raise bad(f"{where} is no parameter of this operation.")
    if name.casefold() in _OVERRIDES:
        raise bad(f"{where} asks to take the request for another one.")
    try:
        member(name, "a parameter")
    except ValueError:
        raise bad(f"{shown(name)} is no name of a parameter.") from None
    return ANY


def _named(place: Place) -> str:
    """A place, for people. What a client wrote is escaped and cut."""
    return ".".join(shown(name).strip("'\"") for name in place) or "The body"


# --- queries and forms ----------------------------------------------------------------------------


def fields_value(raw: bytes, shape: Members, lists: str) -> dict[str, Any]:
    """What the fields of a query or a form say, by the shape of each: text becomes its type.

    `lists`: how the service takes lists: `repeat` (a=1&a=2), `brackets` (a[]=1) or `indices`
    (a[0]=1). The last two are both taken, where either is declared.
    """
    if not raw:
        return {}
    if raw.count(b"&") >= FIELDS:
        raise bad(f"There are more than {FIELDS} fields.")
    if _is_fields(raw) is None:
        raise bad("A field has a character, or a percent sign, that not all readers read alike.")
    value: dict[str, Any] = {}
    for field in raw.split(b"&"):
        name, equals, text = field.replace(b"+", b" ").partition(b"=")
        if not equals:
            raise bad("A field is without a value: write name=value.")
        spelled = _name_parts(_utf8(unescaped(name), "A field"))
        if spelled is None:
            raise bad("The name of a field has brackets that do not match.")
        if spelled[1] not in shape.members and any(map(str.isspace, spelled[1])):
            # PHP makes an underscore of it, which may be a name that is judged.
            raise bad("The name of a field has a space, and is not declared.")
        path = [spelled[1], *_keys(spelled[2])]
        if len(path) > DEEPEST:
            raise bad("The name of a field is nested too deeply.")
        _put(value, path, _utf8(unescaped(text), "A field"), shape, lists)
    _look_through(value)
    return value


def _look_through(value: Any) -> None:
    """Raise RequestError for a name twice in one object, at any depth."""
    if type(value) is dict:
        _told_apart(value, len(value))
    for item in value.values() if type(value) is dict else value:
        if type(item) in (dict, list):
            _look_through(item)


def _put(at: dict[str, Any], path: list[str], text: str, shape: Members, lists: str) -> None:
    """Put one field in its place. Raises RequestError where something else stands there."""
    name, *rest = path
    place = (_plain(name, "The name of a field"),)
    inner = declared(name, shape, ())
    if isinstance(inner, Listed):
        there = at.setdefault(name, [])
        return _put_in_list(there, rest, text, inner, lists, place)
    if not rest:
        # An empty text takes an object away, with services that have that.
        if name in at or (isinstance(inner, Members) and text):
            raise bad(f"{_named(place)} stands there twice, or is no text.")
        at[name] = of_text(text, inner if isinstance(inner, Scalar) else ANY, place)
        return None
    if inner == ANY:
        inner = _FREE
    if not isinstance(inner, Members) or not rest[0]:
        raise bad(f"{_named(place)} is no object.")
    there = at.setdefault(name, {})
    if type(there) is not dict:
        raise bad(f"{_named(place)} stands there twice.")
    return _put(there, rest, text, inner, lists)


_FREE = Members(more=True)


def _put_in_list(
    there: list[Any], rest: list[str], text: str, shape: Listed, lists: str, place: Place
) -> None:
    """The same for a list. Its items come in their order: others would be read in two ways."""
    indexed = rest[:1] == [str(len(there))]
    item = shape.item
    if isinstance(item, Scalar):
        fits = not rest if lists == "repeat" else len(rest) == 1 and (rest == [""] or indexed)
        if fits:
            return there.append(of_text(text, item, place))
    elif isinstance(item, Members) and len(rest) > 1 and lists != "repeat":
        if indexed:
            there.append({})
        if there and rest[0] == str(len(there) - 1):
            return _put(there[-1], rest[1:], text, item, lists)
    raise bad(f"{_named(place)} is a list that is not written as this service takes lists.")


_BOOLEANS = {"true": True, "false": False}


def of_text(text: str, shape: Scalar, place: Place) -> Any:
    """A value of its type, from its one spelling."""
    read: Callable[[str], Any] | None = None
    match shape.kind:
        case "integer" | "int64" if _is_integer(text) and len(text) <= NUMBER_CHARS:
            read = int
        case "number" if _is_integer(text) and len(text) <= NUMBER_CHARS:
            read = int
        case "number" if _is_number(text):
            read = _fraction
        case "boolean" if text in _BOOLEANS:
            read = _BOOLEANS.__getitem__
        case "string" | "any":
            read = str
        case _:
            raise bad(f"{_named(place)} is not written as {shape.kind} is.")
    value = read(text)
    _scalar(value, "string" if shape.kind == "any" else shape.kind, place)
    return value
