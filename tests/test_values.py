"""Readers of JSON values: each gives its argument, or raises by its exact type; none converts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import pytest

from captoken._format.encoding import b64encode
from captoken._language import values
from captoken.keys import HolderKey


class List(list[Any]):
    """A subclass iterates and compares as it likes."""


class Five(IntEnum):
    FIVE = 5


@pytest.mark.parametrize(
    ("read", "good", "wrong"),
    [
        (values.a_list, ([], ["a", 1]), ((), List(), "a", {"a": 1}, None)),
        (values.an_object, ({}, {"a": 1}), ([], OrderedDict(a=1), "a", None)),
        (values.an_integer, (0, -5, 2**70), (True, 1.0, "1", None, Five.FIVE)),
        (values.a_bounded_integer, (0, -(2**53) + 1, 2**53 - 1), (True, 1.0, "1", None, Five.FIVE)),
    ],
)
def test_a_value_is_of_its_exact_type(read: Callable[[Any, str], Any], good: tuple[Any, ...], wrong: tuple[Any, ...]) -> None:
    for value in good:
        assert read(value, "uses") == value
    for value in wrong:
        with pytest.raises(TypeError, match=r"^uses must be "):
            read(value, "uses")


@pytest.mark.parametrize("value", [2**53, -(2**53), 10**5000], ids=["more", "less", "endless"])
def test_an_integer_that_readers_would_round_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match=r"^uses .* is of magnitude 2\^53 or more$"):
        values.a_bounded_integer(value, "uses")


def test_an_object_that_says_nothing_is_refused() -> None:
    assert values.not_empty({"a": []}, "tools") == {"a": []}
    with pytest.raises(ValueError, match=r"^tools is empty: leave it out$"):
        values.not_empty({}, "tools")


def test_a_key_is_one_that_can_have_a_secret() -> None:
    """A point of low order takes signatures that nobody made."""
    key = HolderKey.generate().public
    assert b64encode(values.a_signing_key(key, "key")) == key
    for weak in (bytes(32), b"\1" + bytes(31), bytes(31) + b"\x80", b"\xff" * 32):
        with pytest.raises(ValueError, match="key must be an Ed25519 key, canonical and not of low order"):
            values.a_signing_key(b64encode(weak), "key")
