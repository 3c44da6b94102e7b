"""What failed is named, and what to write instead: for the operator without a value, and for writers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest

from captoken import WideningError
from captoken._format.encoding import b64decode
from captoken.control import Operator
from captoken.discharge import Allow, Discharger
from captoken.keys import DischargerKey, OperatorKey
from captoken.stores.memory import MemorySnapshots
from tests.fixtures import clock, code, mint, tool
from tests.test_constraints import FREE, last, where

HELD = {"unrestricted": True, "where": {"x": {"min": -9, "max": 9}}}


@pytest.mark.parametrize(
    ("held", "given", "written"),
    [
        (FREE, {"max": 500}, {"max": 500, "min": 0}),
        (FREE, {"max": 0}, {"max": 0, "min": 0}),
        (FREE, {"each": {"max": 5}, "most": 3}, {"each": {"max": 5, "min": 0}, "most": 3}),
        (FREE, {"each": {"each": {"max": 5}}}, {"each": {"each": {"max": 5, "min": 0}}}),
        (FREE, MappingProxyType({"max": 500}), {"max": 500, "min": 0}),
        (FREE, {"min": 5}, {"min": 5}),
        (FREE, {"min": -5, "max": -1}, {"min": -5, "max": -1}),
        (HELD, {"max": 5}, {"max": 5, "min": -9}),
        ({**FREE, "where": {"x": {"each": {"min": -9}}}}, {"each": {"max": 5}}, {"each": {"max": 5, "min": -9}}),
        ({**FREE, "where": {"x": {"min": 3}}}, {"max": 5}, {"max": 5, "min": 3}),
        ({**FREE, "where": {"x": {"in": [1, 2]}}}, {"in": [1]}, {"in": [1]}),
        ({**FREE, "where": {"y": {"min": -9}}}, {"max": 5}, {"max": 5, "min": 0}),
    ],
)
def test_a_max_alone_is_completed(held: dict[str, Any], given: Mapping[str, Any], written: dict[str, Any]) -> None:
    assert where(given, **held) == written


def test_a_negative_max_alone_is_a_mistake_wherever_it_is_written() -> None:
    for held in (FREE, HELD):
        with pytest.raises(ValueError, match="alone: write min as well, which is 0 if you leave it out"):
            where({"max": -1}, **held)
    with pytest.raises(ValueError, match="alone: write min as well, which is 0 if you leave it out"):
        where({"each": {"max": -1}})
    with pytest.raises(ValueError, match="alone: write min as well, which is 0 if you leave it out"):
        mint(tools={"pay": {"cents": {"max": -500, "optional": True}}})


def test_what_is_no_range_is_refused_as_before() -> None:
    for given in ({"max": "5"}, {"max": True}, {"max": 1.5}, {"max": None}, {"max": [5]}, [("max", 5)], "max", {"max": 2**53}):
        with pytest.raises((TypeError, ValueError)):
            where(given)
    for tools in ("pay", ["pay"], {5: {"n": {"max": 5}}}, {"pay": [1]}, {"pay": {"n": 5}}, {"a..b": {"n": {"max": 5}}}):
        with pytest.raises((TypeError, ValueError)):
            mint(tools=tools)


@pytest.mark.parametrize(
    ("given", "write"),
    [
        ({"tools": ["pay"]}, 'tools must be a mapping, not list: {"pay": {}} leaves all arguments free'),
        ({"tools": {"send", "pay"}}, 'tools must be a mapping, not set: {"pay": {}, "send": {}} leaves all arguments free'),
        ({"tools": "pay"}, 'tools must be a mapping, not str: {"pay": {}} leaves all arguments free'),
        ({"tools": []}, 'tools must be a mapping, not list: {"search": {}} leaves all arguments free'),
        ({"tools": [{"pay": {}}]}, 'tools must be a mapping, not list: {"search": {}} leaves all arguments free'),
        ({"tools": {"pay": {"to": "acct-1"}}}, """the constraint on 'to' must be a mapping, not str: write {"in": ["acct-1"]}"""),
        ({"tools": {"pay": {"to": ["a", "b"]}}}, """the constraint on 'to' must be a mapping, not list: write {"in": ["a", "b"]}"""),
        ({"tools": {"pay": {"cents": 500}}}, """the constraint on 'cents' must be a mapping, not int: write {"in": [500]} for that value alone, or {"max": 500}"""),
        ({"tools": {"pay": {"cents": -5}}}, """the constraint on 'cents' must be a mapping, not int: write {"in": [-5]}"""),
        ({"tools": {"pay": {"to": []}}}, """the constraint on 'to' must be a mapping, not list: write {"in": [...]}"""),
        ({**FREE, "where": {"region": "eu"}}, """the constraint on 'region' must be a mapping, not str: write {"in": ["eu"]}"""),
        ({**FREE, "where": {"vip": True}}, """the constraint on 'vip' must be a mapping, not bool: write {"in": [true]}"""),
        ({**FREE, "where": {"rate": 1.5}}, """the constraint on 'rate' must be a mapping, not float: write {"in": [...]}"""),
    ],
)  # fmt: skip
def test_names_and_values_alone_are_refused_with_what_to_write(given: dict[str, Any], write: str) -> None:
    """`["pay"]` could mean any arguments or none, `"/docs"` that path or all below: so writers guess nothing (spec 23.2)."""
    for writes in (mint, mint(unrestricted=True).attenuate):
        with pytest.raises(TypeError) as caught:
            writes(**{key: value for key, value in given.items() if key != "unrestricted" or writes is mint})
        assert str(caught.value) == write
    if "[...]" not in write:  # what it says to write is taken
        value, _ = json.JSONDecoder().raw_decode(write, write.index("{"))
        mint(tools=value if "tools" in write else {"pay": {"x": value}})


def test_a_max_below_the_min_that_is_held_is_widening_and_no_mistake() -> None:
    token = mint(unrestricted=True, where={"x": {"min": 5, "max": 9}})
    with pytest.raises(WideningError) as caught:
        token.attenuate(where={"x": {"max": 4}})
    assert caught.value.dimension == "where"
    with pytest.raises(WideningError) as caught:
        token.attenuate(where={"x": {"max": 4}}, clamp=True)
    assert caught.value.code == "nothing_left"


def test_an_argument_is_completed_by_the_entry_that_decides_at_its_pattern() -> None:
    token = mint(tools={"a.*": {"n": {"min": -5, "max": 5}}, "a.b": {"n": {"min": -9, "max": 9}}, "c": {}})
    asked = {"a.b": {"n": {"max": 1}}, "a.c": {"n": {"max": 1}}, "c": {"n": {"max": 1}}}
    written = {"a.b": -9, "a.c": -5, "c": 0}
    assert last(token.attenuate(tools=asked))["tools"] == {
        name: {"n": {"max": 1, "min": low}} for name, low in written.items()
    }


def test_whoever_writes_completes_and_no_reader_does() -> None:
    """A mint, an operator's entry and a discharge; and a link that was written without this library keeps its meaning."""
    asked = {"pay": {"cents": {"max": 500}}}
    completed = {"tools": {"pay": {"cents": {"max": 500, "min": 0}}}}
    token = mint(tools=asked)
    assert last(token).items() >= completed.items()
    assert [code(token, tool("pay", cents=cents)) for cents in (-1, 0, 500, 501)] == ["argument", "allowed", "allowed", "argument"]

    entry = Operator(OperatorKey.generate(), MemorySnapshots(), by="ops", clock=clock()).narrow(
        task="task-123", why="less", tools=asked
    )
    assert entry.link == completed

    key = DischargerKey.generate()
    ticket = mint(**FREE).require(key.public, need={"pay": True}).needs[0]
    discharge = Discharger(key, lambda need: Allow(expires_in=60, tools=asked), clock=clock()).discharge(ticket)
    assert b'"tools":{"pay":{"cents":{"max":500,"min":0}}}' in b64decode(discharge.serialize().partition("_")[2])

    bare = mint(tools={"pay": {}}).with_raw_link(b'{"tools":{"pay":{"cents":{"max":500}}}}')
    assert code(bare, tool("pay", cents=-1)) == "allowed"
    assert bare.unverified.capability.json()["tools"] == {"pay": {"cents": {"max": 500}}}
    assert last(bare.attenuate(tools=asked))["tools"]["pay"]["cents"] == {"max": 500, "min": 0}


class Two(dict[str, Any]):
    """A mapping that says one thing when it is looked up, and another when it is gone through."""

    def __contains__(self, key: object) -> bool:
        return key == "min" or super().__contains__(key)

    def keys(self) -> Any:
        return ("max",)

    def __iter__(self) -> Iterator[str]:
        return iter(("max",))


def test_a_mapping_that_says_two_things_is_read_once() -> None:
    assert where(Two(max=5)) == {"max": 5, "min": 0}


PAY: dict[str, Any] = {"pay": {"cents": {"max": 500}, "to": {"in": ["acct-1"]}, "note": {"any": True, "optional": True}}}


@pytest.mark.parametrize(
    ("held", "asked", "said", "clamped"),
    [
        (PAY, {"pay": {"cents": {"max": 5}}},
         'the token restricts these, and you left them out: argument to of tool pay; write {"to": {"in": ["acct-1"]}}', "nothing_left"),
        (PAY, {"pay": {"note": {"any": True}}},
         "you left them out: arguments cents, to of tool pay; write "
         '{"cents": {"min": 0, "max": 500}, "to": {"in": ["acct-1"]}}', "nothing_left"),
        ({"pay": {"to": {"in": ["a"]}}}, {"pay": {}}, 'you left them out: argument to of tool pay; write {"to": {"in": ["a"]}}', ""),
        ({"a.*": {"to": {"in": ["a"]}}}, {"a.b": {}}, 'you left them out: argument to of tool a.b; write {"to": {"in": ["a"]}}', ""),
        ({"a.b": {"to": {"in": ["a"]}}}, {"*": {}}, 'you left them out: argument to of tool a.b; write {"to": {"in": ["a"]}}', ""),
        ({"a b": {"x\"y": {"in": ["\u2014"]}}}, {"a b": {}},
         'argument "x\\"y" of tool "a b"; write {"x\\"y": {"in": ["\\u2014"]}}', ""),
        (PAY, {"pay": {"cents": {"max": 501}, "to": {"in": ["acct-1"]}}},
         'the token restricts argument cents of tool pay to {"min": 0, "max": 500}', ""),
        (PAY, {"pay": {"cents": {"max": 5}, "to": {"in": ["acct-1"], "optional": True}}},
         "argument to of tool pay must be present: it is not optional", ""),
        (PAY, {"pay": {"cents": {"max": 5}, "to": {"in": ["acct-1"]}, "memo": {"any": True}}},
         "the token permits no argument memo of tool pay: leave it out", "nothing_left"),
        ({"ping": {"_": {"in": [], "optional": True}}}, {"ping": {"n": {"any": True}}},
         "the token permits no argument n of tool ping: leave it out", "nothing_left"),
    ],
)  # fmt: skip
def test_the_argument_that_is_too_much_is_named_with_what_to_write(
    held: dict[str, Any], asked: dict[str, Any], said: str, clamped: str
) -> None:
    """So it is where a clamp would leave nothing; where it leaves something, that is written."""
    token = mint(tools=held)
    with pytest.raises(WideningError) as caught:
        token.attenuate(tools=asked)
    assert said in caught.value.hint and said in str(caught.value)
    assert ("clamp=True" in caught.value.hint) == (not clamped)  # where it leaves nothing, it is no advice
    if not clamped:
        assert last(token.attenuate(tools=asked, clamp=True))["tools"]
        return
    with pytest.raises(WideningError) as caught:
        token.attenuate(tools=asked, clamp=True)
    assert caught.value.code == clamped and said in caught.value.hint and said in str(caught.value)


def test_the_attribute_that_is_too_much_is_named() -> None:
    token = mint(unrestricted=True, where={"region": {"in": ["eu"]}, "score": {"min": 1, "max": 9}})
    with pytest.raises(WideningError, match=r'the token restricts attribute score to \{"min": 1, "max": 9\}; ask for less'):
        token.attenuate(where={"region": {"in": ["eu"]}, "score": {"max": 10}})
    with pytest.raises(WideningError, match=r'^where: the token restricts attribute region to \{"in": \["eu"\]\}; asked for'):
        token.attenuate(where={"region": {"in": ["us"]}}, clamp=True)


def test_a_long_list_does_not_hide_what_to_do() -> None:
    token = mint(tools={"pay": {"to": {"in": [f"account-{number}" for number in range(300)]}}})
    with pytest.raises(WideningError) as caught:
        token.attenuate(tools={"pay": {}})
    assert len(str(caught.value)) <= 2010 and "to take what is left; asked for" in str(caught.value)
