"""What a capability says of itself: the laws are proved by brute force in `properties`."""

from __future__ import annotations

from typing import Any

import pytest

from captoken import Access, Capability
from captoken._format.encoding import encode_json
from captoken._language.caveats import V1
from captoken._language.link import Link
from captoken._language.links import read_link
from captoken._writing.keywords import UNSET
from captoken.caveats import Caveat, Situation, Vocabulary
from tests.fixtures import NOW, data, tool


def of(*links: dict[str, Any], vocabulary: Vocabulary = V1) -> Capability:
    """What links say together; those that count have the nonce that they need."""
    counted = [link | {"n": "AAAAAAAAAAA"} if {"uses", "budget"} & link.keys() else link for link in links]
    read = [read_link(encode_json(link), vocabulary) for link in counted]
    assert all(isinstance(link, Link) for link in read)
    return Capability.of([link for link in read if isinstance(link, Link)])


LINKS: list[dict[str, Any]] = [
    {"tables": ["sales", "market.*"], "operations": ["select"]},
    {"allow": {"*": ["select"], "hr.*": []}},
    {"allow": {"a": ["*"], "b": ["select"]}, "columns": {"a": ["x"], "*": ["*"]}},
    {"tools": {"search": {}, "fetch": {"url": {"in": ["a"]}, "n": {"min": 1, "max": 5, "optional": True}}, "f.*": {"p": {"path": ["/a"]}}}},
    {"tools": {"t": {"x": {"in": [], "optional": True}}}},
    {"tables": ["a"], "tools": {"t": {}}},
    {"where": {"r": {"in": ["eu", 1, True]}}, "exp": 5, "nbf": 1, "aud": ["a"], "task": "t"},
    {"tables": []},
    {"tools": {"*": {}, "t": {"x": {"in": []}}}},
    {"uses": 5, "budget": {"eur": 5, "rows": 0}, "fresh": 60},
    {"uses": 0},
    {"tables": ["a"], "budget": {"eur": 2**53 - 1}},
]


@pytest.mark.parametrize("link", LINKS, ids=repr)
def test_json_says_the_same_as_the_links(link: dict[str, Any]) -> None:
    """Read back as a link it is an equal capability."""
    capability = of(link)
    assert of(capability.json()) == capability and capability.covers(capability)


def test_what_permits_nothing_is_equal_however_it_came_about() -> None:
    nothing = [
        of({"tables": []}), of({"tables": ["a"], "operations": ["x"]}, {"tables": ["b"]}), of({"tables": ["a"]}, {"tools": {"t": {}}}),
        of({"where": {"r": {"in": []}}}), of({"aud": ["a"]}, {"aud": ["b"]}), of({"task": "a"}, {"task": "b"}), of({"allow": {"a": []}}),
        of({"tools": {"t": {"x": {"in": []}}}}), of({"where": {"n": {"min": 5}}}, {"where": {"n": {"path": ["/"]}}}),
    ]  # fmt: skip
    assert all(one.nothing and one == two and (one != two) is False for one in nothing for two in nothing)
    assert repr(nothing[0]) == "<Capability nothing>" and nothing[0] != of({"tables": ["a"]}) and nothing[0] != "nothing"
    assert nothing[5].prohibits(Access()) is not None
    assert all(of(one.json()).nothing for one in nothing), "and is spelled as nothing"


def test_a_capability_is_immutable_and_has_no_hash() -> None:
    capability = of({"tables": ["a"]})
    with pytest.raises(AttributeError):
        capability.data = None
    with pytest.raises(TypeError):
        hash(capability)
    assert repr(UNSET) == "UNSET"


def test_time_and_audience_are_asked_about_with_a_situation() -> None:
    capability = of({"exp": NOW + 5, "nbf": NOW, "aud": ["a"]})
    assert capability.prohibits(Access()) is None
    for now, audiences, code in [(NOW, {"a"}, None), (NOW + 5, {"a"}, "expired"), (NOW - 1, {"a"}, "not_yet_valid"), (NOW, {"b"}, "wrong_audience")]:
        reason = capability.prohibits(Access(), Situation(now, 0, frozenset(audiences)))
        assert (reason.code if reason else None) == code


def test_the_narrowest_times_and_places_are_held() -> None:
    """The latest start, the earliest end, the servers that every link names; a start behind the end is not nothing yet."""
    both = of({"nbf": NOW, "exp": NOW + 9, "aud": ["a", "b"]}, {"nbf": NOW + 5, "exp": NOW + 3, "aud": ["b", "c"]})
    assert (both.not_before, both.expires_at, both.audiences) == (NOW + 5, NOW + 3, {"b"}) and not both.nothing
    assert (of().not_before, of().expires_at, of().audiences) == (None, None, None)
    assert of({"nbf": 0}).not_before == 0 and of({"aud": []}).audiences == set()


def test_the_tightest_allowance_is_held() -> None:
    """Of each unit, of uses, of freshness; what it covers is no more, unit by unit."""
    both = of({"uses": 5, "budget": {"eur": 5}}, {"uses": 3, "budget": {"eur": 9, "rows": 1}, "fresh": 60}, {"fresh": 30}, {"tables": ["a"]})
    assert (both.uses, dict(both.budget), both.fresh) == (3, {"eur": 5, "rows": 1}, 30)
    assert both.json() == {"tables": ["a"], "operations": ["*"], "uses": 3, "budget": {"eur": 5, "rows": 1}, "fresh": 30}
    assert of({"uses": 5}).covers(of({"uses": 5, "fresh": 1})) and not of({"uses": 5}).covers(of({"uses": 6})) and not of({"uses": 5}).covers(of())
    assert of({"budget": {"eur": 5}}).covers(of({"budget": {"eur": 5, "rows": 1}})) and of().covers(of({"budget": {"eur": 5}}))
    assert not of({"budget": {"eur": 5, "rows": 1}}).covers(of({"budget": {"eur": 5}})) and not of({"fresh": 5}).covers(of({"fresh": 6}))
    assert of({"uses": 1}) != of() != of({"budget": {"eur": 1}}) and of({"fresh": 1}) != of() and not of({"uses": 0}).nothing
    with pytest.raises(TypeError):
        both.budget["eur"] = 6  # type: ignore[index]


def test_what_is_to_be_paid_and_how_fresh_the_overlay_is_are_asked_about() -> None:
    """The cost always; the overlay's age with a situation."""
    capability = of({"budget": {"eur": 5, "rows": 1}, "fresh": 30})
    for cost, age, code in [
        ({"eur": 6, "rows": 0}, 30, None), ({"eur": 0, "rows": 0, "x": 1}, 0, None), ({"eur": 0}, 0, "cost_unstated"), ({}, 0, "cost_unstated"),
        ({"eur": 0, "rows": 0}, 31, "stale_overlay"), ({"eur": 0, "rows": 0}, None, "stale_overlay"), ({}, None, "stale_overlay"),
    ]:  # fmt: skip
        reason = capability.prohibits(Access(cost=cost), Situation(NOW, overlay_age=age))
        assert (reason.code if reason else None) == code
        reason = capability.prohibits(Access(cost=cost))
        assert (reason.code if reason else None) == (None if len(cost) > 1 else "cost_unstated")


def test_reasons_name_the_fact_that_is_refused() -> None:
    capability = of({"allow": {"sales": ["select"]}, "columns": {"sales": ["a"]}, "tools": {"t": {"x": {"any": True}}}})
    for access, code in [
        (data("sales", "select", "a"), None), (data("sales"), "column"), (data("sales", "select", "b"), "column"), (data("hr"), "table"),
        (data("sales", "drop", "a"), "operation"), (tool("t", x=1), None), (tool("t"), "argument"), (tool("t", x=1, y=1), "argument"),
        (tool("u"), "tool"), (Access(), "domain"),
    ]:  # fmt: skip
        reason = capability.prohibits(access)
        assert (reason.code if reason else None) == code


def test_own_caveats_meet_as_they_say_they_do() -> None:
    """Merged where `meet` knows how, dropped where another covers them, kept side by side otherwise."""

    class AtMost(Caveat, frozen=True):
        key = "acme:rows"

        def prohibits(self, access: Access, situation: Situation) -> str | None:
            return None if access.attributes.get("rows", 10**9) <= self.value else "too many rows"

        def covers(self, other: Caveat) -> bool:
            return bool(self.value >= other.value)

    class OneOf(Caveat, frozen=True):
        key = "acme:region"

        def prohibits(self, access: Access, situation: Situation) -> str | None:
            return None if access.attributes.get("region") in self.value else "another region"

        def meet(self, other: Caveat) -> Caveat:
            return OneOf(sorted(set(self.value) & set(other.value)))

    class Opaque(AtMost, frozen=True):
        key = "acme:opaque"

        def covers(self, other: Caveat) -> bool:
            return self == other

    words = Vocabulary(AtMost, OneOf, Opaque)
    both = of({"acme:rows": 5, "acme:region": ["eu", "us"]}, {"acme:rows": 9, "acme:region": ["us", "asia"]}, {"acme:opaque": 1}, {"acme:opaque": 2}, vocabulary=words)
    assert [(caveat.key, caveat.value) for caveat in both.own] == [("acme:region", ["us"]), ("acme:rows", 5), ("acme:opaque", 1), ("acme:opaque", 2)]
    assert both == of({"acme:opaque": 2}, {"acme:opaque": 1}, {"acme:rows": 5}, {"acme:region": ["us"]}, vocabulary=words)
    assert of({"acme:rows": 9}, vocabulary=words).covers(of({"acme:rows": 5}, vocabulary=words))
    assert not of({"acme:rows": 5}, vocabulary=words).covers(of({"acme:rows": 9}, vocabulary=words))
    reason = both.prohibits(Access(attributes={"region": "us", "rows": 6}))
    assert reason is not None and reason.code == "attribute"
    assert both.prohibits(Access(attributes={"region": "us", "rows": 1})) is None


def test_json_writes_the_first_own_caveat_of_a_key_and_equality_counts_all() -> None:
    """What is read back from it is wider, and no comparison takes it for the same."""

    class Opaque(Caveat, frozen=True):
        key = "acme:opaque"

    words = Vocabulary(Opaque)
    both = of({"acme:opaque": 1}, {"acme:opaque": 2}, vocabulary=words)
    first = of(both.json(), vocabulary=words)
    assert both.json() == {"acme:opaque": 1} and both != first
    assert first.covers(both) and not both.covers(first)
