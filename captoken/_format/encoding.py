"""Strict base64url, canonical JSON and the limits: one spelling for everything (spec, "Encoding").

Whatever is not the one spelling is refused: base64url by alphabet and trailing bits, JSON by encoding it again.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn, TypeAlias

import msgspec

MAX_INTEGER = 2**53 - 1  # magnitude; beyond it JSON readers of other languages disagree
Integer: TypeAlias = Annotated[int, msgspec.Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
MAX_DEPTH = 32  # levels of arrays and objects below the object itself


@dataclass(frozen=True, slots=True)
class Limits:
    """What readers refuse and writers do not write (spec, "Limits")."""

    token_chars: int = 8192  # characters of text, prefix included
    links: int = 64  # links of one token
    root_bytes: int = 1024  # bytes of the root record
    discharges: int = 16  # discharges that go with one token; none asks a third party in its turn
    ticket_bytes: int = 2048  # bytes of what a third party is asked: a third-party caveat's id
    bundle_chars: int = 32768  # characters of a token and its discharges together
    field_bytes: int = (
        32767  # bytes of any one field: the largest that every macaroon library reads
    )
    present_chars: int = (
        7168  # characters that `present` writes: HTTP servers take about 8 KiB of headers
    )


LIMITS = Limits()


class EncodingError(ValueError):
    """Not the one spelling, or not to be spelled at all."""


# --- base64url -------------------------------------------------------------------------------------------------------

_TO_URL = bytes.maketrans(b"+/", b"-_")
_PADDING = (b"", b"", b"==", b"=")
_LAST = (
    "",
    "",
    "AQgw",
    "AEIMQUYcgkosw048",
)  # characters whose spare bits are zero, by characters in the last group


def b64encode(data: bytes) -> str:
    """Base64url without padding."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=").decode("ascii")


def b64decode(text: str) -> bytes:
    """The bytes of a canonical text: no padding, no foreign character, zero trailing bits. Raises EncodingError."""
    try:
        raw = text.encode("ascii")
        standard = raw.replace(b"-", b"+").replace(b"_", b"/") + _PADDING[len(raw) % 4]
        data = binascii.a2b_base64(standard, strict_mode=True)
    except ValueError:  # both binascii.Error and UnicodeEncodeError
        raise EncodingError(
            "not base64url: a space, a line feed or another foreign character is in the text"
        ) from None
    if b"+" in raw or b"/" in raw or b"=" in raw:
        raise EncodingError("base64, but not base64url without padding")
    spare = len(raw) % 4
    if spare and text[-1] not in _LAST[spare]:
        raise EncodingError("base64url with trailing bits that are not zero; is the text complete?")
    return data


# --- canonical JSON --------------------------------------------------------------------------------------------------
# RFC 8785, restricted to objects, arrays, strings, booleans and integers of magnitude below 2^53.


def _json_object(depth: int) -> Any:
    """A type `depth` levels deep, so that the decoder itself, in C, refuses floats, null and large integers."""
    scalar: Any = bool | Integer | str
    value = scalar
    for _ in range(depth):
        value = scalar | list[value] | dict[str, value]  # type: ignore[valid-type]
    return dict[str, value]  # type: ignore[valid-type]


_decode_shallow = msgspec.json.Decoder(
    _json_object(4)
).decode  # as deep as the deepest caveat of ours
_decode_any = msgspec.json.Decoder().decode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_encode_as_is = msgspec.json.Encoder().encode


def _refuse(what: str) -> NoReturn:
    raise EncodingError(what)


def _restricted(value: Any, depth: int = 0) -> None:
    """Raise EncodingError unless `value` is JSON of the restricted kind."""
    kind = type(value)
    if kind is str or kind is bool:
        return
    if kind is int:
        return (
            None
            if -MAX_INTEGER <= value <= MAX_INTEGER
            else _refuse("an integer of magnitude 2^53 or more")
        )
    if depth > MAX_DEPTH:
        _refuse("nested too deeply")
    if kind is list:
        for item in value:
            _restricted(item, depth + 1)
    elif kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                _refuse("a key that is not a string")
            _restricted(item, depth + 1)
    else:
        _refuse(f"a value of type {kind.__name__}")


def _by_utf16(value: Any) -> Any:
    """The same value with every object in RFC 8785 order, by UTF-16 unit: it differs only beyond the BMP."""
    if type(value) is dict:
        return {
            key: _by_utf16(value[key])
            for key in sorted(value, key=lambda key: key.encode("utf-16-be"))
        }
    return [_by_utf16(item) for item in value] if type(value) is list else value


def _spell(value: Any) -> bytes:
    data = _encode_sorted(value)  # by code point
    return data if data.isascii() or max(data) < 0xF0 else _encode_as_is(_by_utf16(value))


def encode_json(value: Any) -> bytes:
    """The one spelling of `value`. Raises EncodingError for what has none: floats, None, large integers, surrogates."""
    _restricted(value)
    try:
        return _spell(value)
    except UnicodeEncodeError:
        raise EncodingError("a lone surrogate") from None


def decode_json(data: bytes) -> dict[str, Any]:
    """The object that `data` spells canonically.

    Raises EncodingError for anything else, whatever the bytes are. Canonical means: decoded and
    encoded again, it is the same bytes (spec, "Canonical JSON").
    """
    try:
        value: dict[str, Any] = _decode_shallow(data)
        if _encode_sorted(value) == data and data.isascii():  # nearly always
            return value
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass  # deeper, or of a kind that is not ours
    return _decoded_with_care(data)


def _decoded_with_care(data: bytes) -> dict[str, Any]:
    """The same, where objects may be deep, or have keys beyond ASCII, or be none."""
    try:
        value: Any = _decode_any(data)
        _restricted(value)
        is_canonical = type(value) is dict and _spell(value) == data
    except (msgspec.DecodeError, UnicodeError, RecursionError, EncodingError):
        raise EncodingError("not canonical JSON") from None
    if not is_canonical:
        raise EncodingError("not a canonical JSON object")
    return value  # type: ignore[no-any-return]
