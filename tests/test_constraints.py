"""Constraints, kind by kind: which values they accept, how two meet, what writers complete, what is said of a mistake."""

from __future__ import annotations

import ipaddress
import itertools
import json
import random
from typing import Any

import pytest

from captoken import Token
from captoken._language import addresses
from captoken._language.constraints import Range, read_constraint
from tests.fixtures import code, mint, tool

FREE: dict[str, Any] = {"unrestricted": True}


def last(token: Token) -> dict[str, Any]:
    """The caveats of the last link."""
    stated: dict[str, Any] = json.loads(token.unverified.bodies[-1])
    return stated


def where(constraint: Any, **held: Any) -> Any:
    """What a writer makes of a constraint under `where`."""
    return last(mint(**(held or FREE)).attenuate(where={"x": constraint}))["where"]["x"]


# --- ranges ----------------------------------------------------------------------------------------------------------


def test_a_range_takes_every_finite_number_and_nothing_else() -> None:
    """Compared exactly: an integer beyond doubles, the least fraction, minus zero; NaN stands on no side."""
    some = read_constraint({"min": 0, "max": 2**53 - 1})
    for value in (0, -0.0, 5e-324, 1.5, 2**53 - 1, float(2**53 - 1)):
        assert some.accepts(value), value
    for value in (-5e-324, -1, 2**53, float(2**53), 10**400, True, False, "1", None, [1], {"n": 1}):
        assert not some.accepts(value), value
    for one in ({"min": 0}, {"max": 0}, {"min": 0, "max": 1}):
        for value in (float("nan"), float("inf"), float("-inf")):
            assert not read_constraint(one).accepts(value)


def test_a_list_takes_no_fraction_that_a_range_takes() -> None:
    assert read_constraint({"min": 3, "max": 3}).accepts(3.0) and not read_constraint({"in": [3]}).accepts(3.0)


# --- prefixes, urls, addresses, lists --------------------------------------------------------------------------------


def test_no_string_satisfies_two_kinds_about_strings() -> None:
    """So that what two unlike kinds have in common is nothing, exactly."""
    kinds = [
        read_constraint({"path": ["/"]}),
        read_constraint({"prefix": ["a", "1", "2", ":", "h", "w"]}),
        read_constraint({"url": ["https://a.b", "ws://[::1]", "http://10.0.0.1"]}),
        read_constraint({"cidr": ["0.0.0.0/0", "2000::/3", "::/97"]}),
    ]
    satisfied = []
    for value in ("/a", "ab", "https://a.b/x", "ws://[::1]/", "10.0.0.1", "::1", "2001:db8::1", "https://u@a.b", "10.0.0.1:80"):
        satisfied.append([kind.accepts(value) for kind in kinds].count(True))
        assert all(not (one.accepts(value) and two.accepts(value)) for one in kinds for two in kinds if one is not two)
        assert all(one.meet(two) == read_constraint({"in": []}) for one in kinds for two in kinds if one is not two)
    assert satisfied == [1] * 9


def test_a_prefix_that_begins_like_another_kind_says_which_kind_to_use() -> None:
    for prefix, kind in (("/data", "write path"), ("https://a.b", "write url"), ("x://", "write url")):
        with pytest.raises(ValueError, match=kind):
            read_constraint({"prefix": [prefix]})


@pytest.mark.parametrize(
    ("block", "why"),
    [
        ("10.0.0.1/8", "is not a block: it has bits set beyond its length; write"),
        ("2001:db8::1/32", "write 2001:db8::/32"),
        ("10.0.0.0", "like 10.0.0.0/8"),
        ("10.0.0.0/33", "longer than an address"),
        ("::/0", "::ffff:0:0/96"),
        ("::ffff:0:0/96", "canonical form"),
    ],
)
def test_an_entry_that_is_no_block_says_why(block: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_constraint({"cidr": [block]})


def test_a_kind_of_another_type_is_a_type_error() -> None:
    for kind in ("prefix", "url", "cidr"):
        for value in ("a", {"a": 1}, 1, True, [1], [True], [["a"]], [None]):
            with pytest.raises(TypeError):
                read_constraint({kind: value})
    for stated in ({"most": 1}, {"each": {"in": ["a"]}, "most": -1}, {"each": {"in": ["a"]}, "most": 2**53}, {"each": {}}):
        with pytest.raises(ValueError):
            read_constraint(stated)
    for stated in ({"each": "a"}, {"each": {"any": True}, "most": True}, {"each": {"any": True}, "most": 1.0}):
        with pytest.raises(TypeError):
            read_constraint(stated)


def test_each_of_each_holds_every_list_to_its_own_bound() -> None:
    """All lists are judged together: by their number of items one by one, and by what is no list among them."""
    two = read_constraint({"each": {"each": {"max": 5}, "most": 2}, "most": 3})
    for value in ([], [[]], [[1, 2], [3], []], [[5, 5], [5, 5], [5, 5]]):
        assert two.accepts(value), value
    for value in ([[1, 2, 3]], [[1], [1, 2, 3]], [[], [], [], []], [[1], 2], [[1], "ab"], [[1], None], [[6]], [[1], [[1]]], [1], [{}]):
        assert not two.accepts(value), value


def test_what_many_values_satisfy_each_of_them_does() -> None:
    """Whatever the kind: together they are judged as one by one, none among them, and too long lists too."""
    values: list[Any] = [1, 5, -1, 1.5, True, False, "a", "b", "/a/b", "10.0.0.1", None, {}, [], ["a"], [[]], ["a", "b"], [1, True]]
    kinds: list[Any] = [
        {"any": True}, {"in": []}, {"in": ["a", 1]}, {"in": [True, 5]}, {"min": 1}, {"max": 1}, {"min": 0, "max": 5}, {"path": ["/a"]}, {"prefix": ["a"]},
        {"cidr": ["10.0.0.0/8"]}, {"each": {"in": ["a"]}}, {"each": {"any": True}, "most": 1}, {"each": {"any": True}, "most": 0}, {"each": {"each": {"any": True}, "most": 0}},
    ]  # fmt: skip
    for stated in kinds:
        one = read_constraint(stated)
        assert one.accepts_all([]) is True
        for many in ([value] for value in values):
            assert one.accepts_all(many) is one.accepts(many[0]) is one.accepts_all(many * 3), (stated, many)
        for first in values:
            for second in values:
                assert one.accepts_all([first, second]) is (one.accepts(first) and one.accepts(second)), (stated, first, second)


def test_ranges_meet_at_the_higher_low_and_the_lower_high() -> None:
    bounds = (None, 0, 1, 2)
    for low, high, least, most in itertools.product(bounds, repeat=4):
        met = Range(low, high).meet(Range(least, most))
        for value in (-1, 0, 0.5, 1, 2, 3):
            assert met.accepts(value) is (Range(low, high).accepts(value) and Range(least, most).accepts(value))


def test_each_is_no_deeper_than_four_and_never_a_crash() -> None:
    nested: Any = {"in": ["x"]}
    for _ in range(4):
        nested = {"each": nested}
    assert where(nested) == nested
    for _ in range(5000):
        nested = {"each": nested}
    with pytest.raises(ValueError, match="nested"):
        where(nested)
    bodies = [b'{"where":{"x":' + b'{"each":' * deep + b'{"any":true}' + b"}" * deep + b"}}" for deep in (4, 5, 29)]
    bare = mint(**FREE)
    assert [code(bare.with_raw_link(body), tool("t")) for body in bodies] == ["attribute", "unreadable_link", "unreadable_link"]


def test_a_list_in_a_list_says_what_is_wrong() -> None:
    for given in ({"in": [["a"]]}, {"in": [{"a": 1}]}, {"in": (("a",),)}, {"in": [["a"], ["b"]]}, {"url": [["https://a.b"]]}):
        with pytest.raises(TypeError, match=r"must be made of lists that hold str, int and bool, not (list|dict|tuple)"):
            where(given)


# --- what is said of too much ----------------------------------------------------------------------------------------


def test_an_address_of_version_6_is_read_as_the_library_of_python_spells_it() -> None:
    """3,000 groups with runs of zeros, cut anywhere: read where they are spelled so, and none otherwise."""
    rng = random.Random(6)
    read = 0
    for _ in range(3000):
        groups = [rng.choice(["0", "0", "1", "10", "f0"]) for _ in range(8)]
        at = rng.randint(0, 8)
        behind = rng.randint(at, 8)
        text = f"{':'.join(groups[:at])}::{':'.join(groups[behind:])}" if rng.random() < 0.8 else ":".join(groups)
        number = int(ipaddress.IPv6Address(text)) if behind > at or "::" not in text else None
        spelled = number is not None and str(ipaddress.IPv6Address(number)) == text
        assert addresses.address(text) == ((6, number) if spelled else None), text
        read += spelled
    assert 500 < read < 2500
