"""What a file has to look like: msgspec says whether it does, and words of our own say where it does not."""

from __future__ import annotations

import copy
import random
import tomllib
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
import pytest

from captoken._format.encoding import OF_ANOTHER_SHAPE, own_words
from captoken._format.shapes import fit, made
from captoken._language.access import Access
from captoken.audit import analysis
from captoken.issuance.policy._stated import File
from captoken.testing import _scenarios
from tests.issuance.fixtures import POLICY

SCENARIO = """
captoken = 1
[[scenario]]
name = "one"
token = { tables = ["sales"] }
[[scenario.call]]
table = "sales"
operation = "select"
after = "5m"
arguments = { a = [1, 2] }
caller = { agent = "reader" }
code = "allowed"
"""
DECIDED = {
    "seq": 1, "at": 5, "allowed": True, "code": "allowed", "access": {"tool": "pay", "arguments": ["cents"], "attributes": {"x": 1}},
    "chain": [{"name": "clerk", "basis": "proven"}], "ms": 3, "link": "x", "token": "y",
}  # fmt: skip
TOKEN = {"links": [{"id": "A" * 22, "says": {"exp": 5}}], "root": {"v": 1}}
WHOLE: dict[str, tuple[Any, dict[str, Any]]] = {
    "a policy": (File, tomllib.loads(POLICY)),
    "scenarios": (_scenarios._FileSaid, tomllib.loads(SCENARIO)),
    "a decision": (analysis.Decided, DECIDED),
    "a token": (analysis._TokenSaid, TOKEN),
}


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a value, with a key or a number of it."""
    found = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(found):
        yield value, key
        yield from places(item)


ODD: list[Any] = [None, True, 0, -5, 2**60, 1.5, "", "x", [], ["x"], [None], {}, {"x": 1}, {"kind": "x"}]


@pytest.mark.parametrize(("kind", "good"), WHOLE.values(), ids=WHOLE)
def test_wherever_a_value_does_not_fit_its_place_is_told(kind: Any, good: dict[str, Any]) -> None:
    """Each value in turn becomes another, goes, or gets a neighbour: msgspec says whether that fits, and we where not."""
    assert isinstance(fit(good, kind), kind)
    drawn = random.Random(7)
    refused = taken = 0
    for at in range(len(list(places(good)))):
        for odd in (*ODD, "gone", "more"):
            changed = copy.deepcopy(good)
            holder, key = list(places(changed))[at]
            if odd == "gone":
                del holder[key]
            elif odd == "more" and isinstance(holder, dict):
                holder[f"new{drawn.random()}"] = 1
            else:
                holder[key] = odd
            try:
                msgspec.convert(changed, kind)
            except msgspec.ValidationError:
                refused += 1
                with pytest.raises(ValueError) as caught:
                    fit(changed, kind)
                assert str(caught.value) != OF_ANOTHER_SHAPE, (odd, key)
            else:
                taken += 1
                assert isinstance(fit(changed, kind), kind)
    assert refused > 20 and taken > 10


class Small(msgspec.Struct, forbid_unknown_fields=True, tag="small"):
    """One of two, which a tag tells apart."""

    count: int = 0
    size: Literal["s", "m"] = "s"


class Large(msgspec.Struct, tag="large"):
    """The other."""

    names: list[str]
    parts: dict[str, Small] = {}


class Both(msgspec.Struct):
    """A file that has both."""

    things: dict[str, Small | Large]
    number: int | str | None = None
    level: Literal[1, 2] = 1


MISFITS: dict[str, tuple[Any, str]] = {
    "a list": ([], "it must be a mapping, not list"),
    "nothing": ({}, "it lacks the key things"),
    "a list below": ({"things": []}, "things must be a mapping, not list"),
    "no tag": ({"things": {"a": {}}}, "things.a.type must be one of small, large, not None"),
    "another tag": ({"things": {"a": {"type": "huge"}}}, "things.a.type must be one of small, large, not 'huge'"),
    "a key too many": ({"things": {"a": {"type": "small", "n": 1}}}, "things.a has an unknown key 'n'"),
    "a key too few": ({"things": {"a": {"type": "large", "n": 1}}}, "things.a lacks the key names"),
    "an item": ({"things": {"a": {"type": "large", "names": ["x", 5]}}}, "things.a.names[1] must be a str, not int"),
    "a word": ({"things": {"a": {"type": "small", "size": "l"}}}, "things.a.size must be one of m, s, not 'l'"),
    "a deep one": ({"things": {"a": {"type": "large", "names": [], "parts": {"b": {"type": "small", "count": True}}}}}, "things.a.parts.b.count must be an int, not bool"),
    "none of several": ({"things": {}, "number": 1.5}, "number must be an int or a str, not float"),
    "a version": ({"things": {}, "level": 3}, "level must be one of 1, 2, not 3"),
    "a version of another type": ({"things": {}, "level": "1"}, "level must be one of 1, 2, not str"),
}  # fmt: skip


@pytest.mark.parametrize(("value", "told"), MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_is_told_in_words_of_our_own(value: Any, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        fit(value, Both)
    assert str(caught.value) == told


def test_bounds_of_numbers_and_lists_are_told() -> None:
    with pytest.raises(ValueError, match=r"^at must be from -9007199254740991 to 9007199254740991$"):
        fit({**DECIDED, "at": 2**53}, analysis.Decided)
    with pytest.raises(ValueError, match=r"^links has more than 64 items$"):
        fit({**TOKEN, "links": TOKEN["links"] * 65}, analysis._TokenSaid)


def test_a_kind_that_is_not_known_here_is_refused_all_the_same() -> None:
    class Timed(msgspec.Struct):
        at: float

    assert fit({"at": 1.5}, Timed).at == 1.5
    with pytest.raises(ValueError, match=OF_ANOTHER_SHAPE):
        fit({"at": "soon"}, Timed)


def test_a_keyword_that_a_struct_does_not_have_is_told() -> None:
    assert made(Access, {"tool": "pay"}) == Access(tool="pay")
    with pytest.raises(ValueError, match=r"^it has an unknown key 'tol'$"):
        made(Access, {"tol": "pay"})


def test_words_of_others_are_not_passed_on() -> None:
    class Checked(msgspec.Struct):
        at: int

        def __post_init__(self) -> None:
            raise (ValueError("ours") if self.at else UnicodeError("another's"))

    def told(data: bytes) -> str:
        with pytest.raises(msgspec.ValidationError) as caught:
            msgspec.json.decode(data, type=Checked)
        return own_words(caught.value)

    assert [told(data) for data in (b'{"at":1}', b'{"at":0}', b'{"at":"x"}')] == ["ours", OF_ANOTHER_SHAPE, OF_ANOTHER_SHAPE]
    assert [own_words(error) for error in (ValueError("a"), TypeError("b"), ValueError("c"))] == ["a", "b", "c"]
    assert own_words(KeyError("d"), "otherwise") == own_words(UnicodeError("e"), "otherwise") == "otherwise"
