"""Strict base64url, canonical JSON and the limits: one spelling for everything.

Spec, "Encoding", "Canonical JSON" and "Limits". Whatever is not the one spelling is refused:
base64url by its alphabet and its trailing bits, JSON by encoding it again and comparing the bytes.

*Why:* two texts for one token escape whatever looks at the text, a deny-list or a cache. A reader
refuses, and never repairs.

*Why canonical JSON:* JSON has many texts for one value, and readers disagree about some of them.
Of a repeated key one reader takes the first and another the last. Two verifiers would then see two
links in one token. So a text that is not the one spelling is refused, before anybody asks what it
says.
"""

from __future__ import annotations

import binascii
from typing import Annotated, Any, NamedTuple, TypeAlias

import msgspec

MAX_INTEGER = 2**53 - 1  # magnitude; beyond it JSON readers of other languages disagree
Integer: TypeAlias = Annotated[int, msgspec.Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
MAX_DEPTH = 32  # levels of arrays and objects below the object itself


class Limits(NamedTuple):
    """What readers refuse and writers do not write (spec, "Limits").

    The same at all verifiers: a token that one takes and another refuses would be a difference to
    play on. So there is one value of it, `LIMITS`, and no setting.
    """

    # Characters of text, prefix included; of a discharge likewise.
    token_chars: int = 8192
    # Links of one token, or of one discharge.
    links: int = 64
    # The longest root record, in bytes.
    root_bytes: int = 1024
    # Discharges that go with one token. None asks a third party in its turn.
    discharges: int = 16
    # Consents that go with one presented token.
    consents: int = 16
    # Bytes of what a third party is asked: a third-party caveat's id.
    ticket_bytes: int = 2048
    # Characters of a token and its discharges together.
    bundle_chars: int = 32768
    # The longest field, in bytes. Every macaroon library can read one of this size.
    field_bytes: int = 32767
    # Characters that `present` writes: HTTP servers take about 8 KiB of headers.
    present_chars: int = 7168


LIMITS = Limits()


class EncodingError(ValueError):
    """Not the one spelling, or not to be spelled at all.

    For the core alone: at the edges it becomes one of the errors of the public tree. Its message
    holds nothing of the data.
    """


# The message if a typed decoder refuses the bytes.
OF_ANOTHER_SHAPE = "it is not canonical JSON with exactly the keys and types of version 1"


def own_words(error: BaseException, otherwise: str = OF_ANOTHER_SHAPE) -> str:
    """What an error of ours says, which a decoder may have wrapped; `otherwise` of any other.

    A library's own words change from release to release, and may quote what it read. Its errors are
    of classes below ValueError, and ours are of that very class, or of one that is made here.
    """
    if isinstance(error, msgspec.ValidationError) and error.__cause__ is not None:
        error = error.__cause__  # raised by a type of ours, when it was made
    kind = type(error)
    is_ours = kind in (TypeError, ValueError) or kind.__module__.partition(".")[0] == "captoken"
    return str(error) if is_ours else otherwise


# --- base64url ------------------------------------------------------------------------------------

_TO_URL = bytes.maketrans(b"+/", b"-_")

# By the number of characters in the last group, which is 0, 2 or 3; 1 spells nothing, and the
# decoder refuses it.
_PADDING = (b"", b"", b"==", b"=")
# The characters whose spare bits are zero (spec 1.2), likewise.
_LAST = ("", "", "AQgw", "AEIMQUYcgkosw048")


def b64encode(data: bytes) -> str:
    """Base64url without padding: the one text of these bytes (spec 1.1). Never raises for bytes.

    b64encode(b"\\xfb\\xff")    # "-_8"
    """
    standard = binascii.b2a_base64(data, newline=False)
    return standard.translate(_TO_URL).rstrip(b"=").decode()


_PLUS, _SLASH, _EQUALS = b"+/="


def b64decode(text: str) -> bytes:
    """The bytes of a canonical text: no padding, no foreign character, zero trailing bits.

    `b64encode` of what it returns is the same text (spec 1.1 to 1.3). Takes text of any length:
    callers bound it first. Raises EncodingError.

        b64decode("AQ")      # b"\\x01"
        b64decode("AQ==")    # EncodingError: padding
        b64decode("AR")      # EncodingError: a trailing bit that is not zero
    """
    # What is not ASCII becomes `?`, which is foreign to the decoder.
    raw = text.encode("ascii", "replace")
    # The decoder knows the standard alphabet, and is strict there. It is given what stands for `-`
    # and `_`, and padding, so what the text has of these itself is refused first. Bytes are looked
    # for by their numbers: for a string of one byte, Python makes an error first.
    if _PLUS in raw or _SLASH in raw or _EQUALS in raw:
        raise EncodingError("this is base64, and base64url without padding is needed")
    try:
        standard = raw.replace(b"-", b"+").replace(b"_", b"/") + _PADDING[len(raw) % 4]
        data = binascii.a2b_base64(standard, strict_mode=True)
    except ValueError:
        # One character more than whole groups of four is six bits, and no byte (spec 1.3).
        if len(text) % 4 == 1:
            raise EncodingError("not valid base64url: the text was cut, or made longer") from None
        raise EncodingError(
            "not valid base64url: the text contains a space, a line feed or another foreign "
            "character"
        ) from None

    # Not all decoders look at bits that no byte uses: two texts would then have the same bytes.
    # Three characters are 18 bits for two bytes, two are 12 bits for one. The 2 or 4 bits that
    # are left must be zero: `AQ` and `AR` would else both be the byte 1 (spec 1.2).
    spare = len(raw) % 4
    if spare and text[-1] not in _LAST[spare]:
        raise EncodingError("not valid base64url: its last bits are not zero; was the text cut?")
    return data


# --- canonical JSON -------------------------------------------------------------------------------
# RFC 8785, restricted to objects, arrays, strings, booleans and integers of magnitude below 2^53.

# What `as_spelled` made: bytes that go into another value as they are.
Spelled: TypeAlias = msgspec.Raw


def _json_object(depth: int) -> Any:
    """A type `depth` levels deep, for a decoder.

    So the decoder itself, in C, refuses floats, null and large integers.
    """
    scalar: Any = bool | Integer | str
    value = scalar
    # From the inside out: each round wraps one more level around what there is.
    for _ in range(depth):
        value = scalar | list[value] | dict[str, value]  # type: ignore[valid-type]
    return dict[str, value]  # type: ignore[valid-type]


# As deep as the deepest caveat of ours: nearly everything is read by this one.
_decode_shallow = msgspec.json.Decoder(_json_object(4)).decode
_decode_any = msgspec.json.Decoder().decode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_encode_as_is = msgspec.json.Encoder().encode


def _restricted(value: Any, depth: int = 0) -> None:
    """Raise EncodingError unless `value` is JSON of the restricted kind (spec 2.1, 2.7).

    By exact types: a subclass of str or int may compare and print as it likes.
    """
    kind = type(value)
    if kind is str or kind is bool:
        return
    if kind is int:
        # Readers that keep numbers as doubles round beyond this, and would read another link.
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise EncodingError("an integer of magnitude 2^53 or more")
        return

    # The depth comes before the items, so that this goes no deeper than the limit.
    if depth > MAX_DEPTH:
        raise EncodingError("nested too deeply")
    # Most items are strings or numbers: one is no call, which would only find that.
    if kind is list:
        for item in value:
            if type(item) is not str:
                _restricted(item, depth + 1)
    elif kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise EncodingError("a key that is not a string")
            kind = type(item)
            if kind is str or kind is bool or (kind is int and abs(item) <= MAX_INTEGER):
                continue
            _restricted(item, depth + 1)
    else:
        raise EncodingError(f"a value of type {kind.__name__}")


def _by_utf16(value: Any) -> Any:
    """The same value with every object in RFC 8785 order, by UTF-16 unit (spec 2.6).

    It differs from the order by code point only where a key has a character beyond U+FFFF. Such a
    character is two units, the first from D800 to DBFF. So it comes before U+E000 to U+FFFF, though
    its number is larger. U+1F600 comes before U+FF5E.
    """
    if type(value) is dict:
        # Big-endian UTF-16 compares byte by byte as its units compare number by number.
        in_order = sorted(
            value,
            key=lambda key: key.encode("utf-16-be"),
        )
        # A dict keeps the order in which it is filled, and the encoder follows it.
        return {key: _by_utf16(value[key]) for key in in_order}
    if type(value) is list:
        return [_by_utf16(item) for item in value]
    return value


def _spell(value: Any) -> bytes:
    """The bytes of a value that is of the restricted kind. Raises UnicodeEncodeError.

    The encoder sorts by code point, and there are two orders only for what is beyond U+FFFF.
    """
    data = _encode_sorted(value)  # by code point
    # A character beyond U+FFFF starts with a byte from F0 on in UTF-8, and nothing else does.
    # Without one, both orders are the same.
    if data.isascii() or max(data) < 0xF0:
        return data
    return _encode_as_is(_by_utf16(value))


def encode_json(value: Any, within: int = 0) -> bytes:
    """The one spelling of `value`: an object for most callers, though any value has one.

    `within` is how many arrays and objects it stands in, where it is a part of a larger whole: the
    depth is that of the whole (2.7).

    Raises EncodingError for what has none: floats, None, large integers, lone surrogates, what is
    nested too deeply, and values of other types.

        encode_json({"b": 1, "a": [True]})    # b'{"a":[true],"b":1}'
    """
    _restricted(value, within)
    try:
        return _spell(value)
    except UnicodeEncodeError:
        raise EncodingError("a lone surrogate") from None


def as_spelled(value: Any) -> Spelled:
    """The one spelling of a value, to be put into another one as it is: see `encode_with`."""
    return Spelled(encode_json(value))


def encode_with(value: dict[str, Any], members: dict[str, Spelled]) -> bytes:
    """The one spelling of an object, with these members beside its own, spelled before.

    So what is in many objects is spelled once. Raises what `encode_json` raises.

        encode_with({"b": 1}, {"a": as_spelled([True])})    # b'{"a":[true],"b":1}'
    """
    _restricted(value)
    try:
        return _spell(value | members)
    except UnicodeEncodeError:
        raise EncodingError("a lone surrogate") from None


def respelled(value: Any) -> bytes:
    """The bytes of a value that was read from canonical JSON, or of a part of one.

    Two such values have the same bytes if and only if they are the same. Not checked again, so not
    for a value that somebody made.
    """
    return _encode_as_is(value)


def decode_json(data: bytes) -> dict[str, Any]:
    """The object that `data` spells canonically.

    Repeated keys, white space, other orders and other escapes are refused, since none of them comes
    out again when the value is encoded (spec 2.8). Takes data of any length: callers bound it.

    Raises EncodingError for anything else, whatever the bytes are, and nothing else.

        decode_json(b'{"a":1}')     # {"a": 1}
        decode_json(b'{"a": 1}')    # EncodingError: there is a space
    """
    # In ASCII both orders of keys are the same. So one comparison tells for nearly everything.
    try:
        value: dict[str, Any] = _decode_shallow(data)
        if _encode_sorted(value) == data and data.isascii():
            return value
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass  # deeper, or of a kind that is not ours
    return _decoded_with_care(data)


def _decoded_with_care(data: bytes) -> dict[str, Any]:
    """The same, where objects may be deep, or have keys beyond ASCII, or be none.

    Whatever the first look refused is judged here, from the start. So the first look is only a
    shorter way: it takes nothing that would be refused here. Raises EncodingError.
    """
    try:
        # Of a repeated key the decoder keeps one, and escapes and spaces are gone. None of that
        # matters: the value is written again, and must give the very bytes that came.
        value: Any = _decode_any(data)
        _restricted(value)
        is_canonical = type(value) is dict and _spell(value) == data
    except (msgspec.DecodeError, UnicodeError, RecursionError, EncodingError):
        raise EncodingError("not canonical JSON") from None
    if not is_canonical:
        raise EncodingError("not a canonical JSON object")
    return value  # type: ignore[no-any-return]
