"""The one rule of all maps, against a reference that asks each name of a small world."""

from __future__ import annotations

from itertools import product

import pytest

from captoken._language import patterns

SEGMENTS = ("a", "b", "ab")
NAMES = [".".join(path) for length in (1, 2, 3) for path in product(SEGMENTS, repeat=length)]
PATTERNS = ["*", *NAMES[:12], *(f"{name}.*" for name in NAMES[:12])]


def matches(pattern: str, name: str) -> bool:
    """Segment by segment, and not by the text."""
    if pattern == "*":
        return True
    path, of = name.split("."), pattern.split(".")
    if of[-1] == "*":
        return len(path) >= len(of) and path[: len(of) - 1] == of[:-1]
    return path == of


def says(entries: dict[str, int], name: str) -> int:
    """What the entry says that matches the name and fewest others of the world; 0 if none does."""
    found = [pattern for pattern in entries if matches(pattern, name)]
    return entries[min(found, key=lambda pattern: sum(matches(pattern, other) for other in NAMES))] if found else 0


def test_a_pattern_contains_another_if_it_matches_all_its_names() -> None:
    for pattern, other in product(PATTERNS, PATTERNS):
        within = [name for name in NAMES if matches(other, name)]
        if within and other not in NAMES:
            assert patterns.contains(pattern, other) == all(matches(pattern, name) for name in within), (pattern, other)
    for pattern, name in product(PATTERNS, NAMES):
        assert patterns.contains(pattern, name) == matches(pattern, name), (pattern, name)


@pytest.mark.parametrize(("listed", "name", "there"), [
    (["market.*", "rates"], "market.eu", True), (["market.*", "rates"], "rates", True), (["market.*"], "market", False),
    (["market.*"], "markets.eu", False), ([], "a", False), (["*"], "a.b", True), (["a"], "a.b", False),
])  # fmt: skip
def test_a_list_matches_by_one_of_its_patterns(listed: list[str], name: str, there: bool) -> None:
    assert patterns.among(listed, name) is there


def test_wider_patterns_go_up_segment_by_segment() -> None:
    assert list(patterns.wider("a.b.c")) == ["a.b.c", "a.b.*", "a.*", "*"]
    assert list(patterns.wider("a.b.*")) == ["a.b.*", "a.*", "*"]
    assert list(patterns.wider("*")) == ["*"] and list(patterns.above("*")) == []
    assert list(patterns.above("a")) == ["*"]


MAPS: list[dict[str, int]] = [
    {}, {"*": 1}, {"a": 1, "b.*": 2}, {"*": 1, "a.*": 2, "a.b": 1}, {"a.*": 1, "a.b.*": 0, "a.b.a": 3}, {"*": 2, "a.*": 2, "b": 0},
    {"ab": 1, "a.ab.*": 2, "*": 3}, {"a": 1, "a.*": 1},
]  # fmt: skip


@pytest.mark.parametrize("entries", MAPS, ids=str)
def test_the_most_specific_entry_decides_and_the_normal_form_says_the_same(entries: dict[str, int]) -> None:
    smallest = patterns.normal(entries, 0)
    assert smallest.items() <= entries.items()
    for name in NAMES:
        assert patterns.decided(entries, name, 0) == says(entries, name) == patterns.decided(smallest, name, 0), name
    # None of what is left can be left out.
    for key in smallest:
        less = {other: value for other, value in smallest.items() if other != key}
        assert any(patterns.decided(less, name, 0) != says(entries, name) for name in [*NAMES, "x", "a.a.a.a", "b.x"]), key


@pytest.mark.parametrize(("one", "two"), list(product(MAPS, MAPS)), ids=str)
def test_what_two_maps_say_is_made_of_both_at_each_name(one: dict[str, int], two: dict[str, int]) -> None:
    met = patterns.meet(one, two, 0, min)
    assert met == patterns.meet(two, one, 0, min)
    for name in NAMES:
        assert patterns.decided(met, name, 0) == min(says(one, name), says(two, name)), name


def test_a_map_differs_within_a_pattern_at_its_own_entries_alone() -> None:
    assert patterns.within({"*": 1, "a.b": 2, "c": 3}, "a.*") == ["a.*", "a.b"]
    assert patterns.widest({"a.*": 0, "a.b": 1, "c": 2}) == ["a.*", "c"] and patterns.widest({"*": 0, "c": 2}) == ["*"]
