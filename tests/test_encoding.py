"""One spelling: base64url, and canonical JSON in the order of RFC 8785."""

from __future__ import annotations

from typing import Any

import pytest

from captoken._format.encoding import (
    EncodingError,
    as_spelled,
    b64decode,
    b64encode,
    decode_json,
    encode_json,
    encode_with,
)
from tests.fixtures import named


@pytest.mark.parametrize("size", range(70))
def test_base64url_comes_back(size: int) -> None:
    data = bytes((size * 7 + at * 251) % 256 for at in range(size))
    assert b64decode(b64encode(data)) == data


@pytest.mark.parametrize("text", ["A", "AA=", "AA==", "AB", "AAB", "AAAA=", "AA\n", " AAAA", "A+AA", "A/AA", "\u00e9AAA", "AAAAA", "=", "A=A="])
def test_anything_else_is_not_base64url(text: str) -> None:
    with pytest.raises(EncodingError):
        b64decode(text)


def test_keys_are_sorted_by_utf_16_unit() -> None:
    """It differs from code-point order beyond the BMP, and there both readers and writers follow RFC 8785."""
    value = {"\uffff": 1, "\U0001f600": 2, "a": [{"\ue000": True, "\U00010000": "\U0001f600"}]}
    right = '{"a":[{"\U00010000":"\U0001f600","\ue000":true}],"\U0001f600":2,"\uffff":1}'.encode()
    assert encode_json(value) == right and decode_json(right) == value
    with pytest.raises(EncodingError):
        decode_json('{"\uffff":1,"\U0001f600":2}'.encode())


def test_what_was_spelled_before_goes_in_as_it_is() -> None:
    """The whole is spelled as if it had been written at once, also where two orders of keys differ."""
    for key in ("b", "\U0001f600", "\uff5e"):
        whole = {"a": [True, {"z": 1}], key: "x", "zz": 3}
        assert encode_with({key: "x", "zz": 3}, {"a": as_spelled(whole["a"])}) == encode_json(whole)
    for wrong in ({"b": 1.0}, {"b": "\ud800"}):
        with pytest.raises(EncodingError):
            encode_with(wrong, {"a": as_spelled(1)})


@pytest.mark.parametrize("value", [1.0, None, 2**53, -(2**53), {5: 1}, {"a": (1,)}, ["\ud800"], {"a": [None]}, b"x", object()], ids=named)
def test_what_has_no_spelling_is_not_written(value: Any) -> None:
    with pytest.raises(EncodingError):
        encode_json({"value": value})


@pytest.mark.parametrize("data", [b"[]", b"1", b'"a"', b"", b'{"a":null}', b'{"a":1.5}', b'{"a":[[[[[[1.5]]]]]]}', b'{"a":9007199254740992}'])
def test_what_is_no_object_of_the_restricted_kind_is_not_read(data: bytes) -> None:
    with pytest.raises(EncodingError):
        decode_json(data)


def test_values_deeper_than_our_own_caveats_are_read_up_to_the_limit() -> None:
    for depth, fits in ((6, True), (32, True), (33, False)):
        data = b'{"a":' + b"[" * depth + b"1" + b"]" * depth + b"}"
        if fits:
            assert encode_json(decode_json(data)) == data
        else:
            with pytest.raises(EncodingError):
                decode_json(data)
