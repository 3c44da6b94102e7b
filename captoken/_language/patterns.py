"""The one rule of all maps: the most specific entry decides (spec, "Patterns").

A pattern is exact (`market.eu`), or everything below a segment (`market.*`), or everything (`*`). Two patterns are
nested or disjoint, so of the entries of a map that match a name one is the most specific: exact, then the longest
`.*`, then `*`. What holds where no entry matches is the map's default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

Value = TypeVar("Value")


def matches(pattern: str, name: str) -> bool:
    """Does `pattern` match the table or tool `name`? `market.*` does not match `market`."""
    return (
        pattern == name or pattern == "*" or (pattern[-1] == "*" and name.startswith(pattern[:-1]))
    )


def wider(pattern: str) -> Iterator[str]:
    """The patterns that contain `pattern`, itself first, from the most specific to `*`."""
    yield pattern
    if pattern == "*":
        return
    path = pattern.removesuffix(".*")
    while "." in path:
        path = path.rpartition(".")[0]
        yield path + ".*"
    yield "*"


def contains(pattern: str, other: str) -> bool:
    """Is every name that `other` matches matched by `pattern`?"""
    return (
        pattern == other
        or pattern == "*"
        or (pattern[-1] == "*" and other.startswith(pattern[:-1]))
    )


def decided(entries: Mapping[str, Value], pattern: str, default: Value) -> Value:
    """What the most specific entry says that contains `pattern` (a name is the most specific pattern there is)."""
    for candidate in wider(pattern):
        if candidate in entries:
            return entries[candidate]
    return default


def meet(
    one: Mapping[str, Value],
    two: Mapping[str, Value],
    default: Value,
    both: Callable[[Value, Value], Value],
) -> dict[str, Value]:
    """The map that says, everywhere, what `both` makes of what the two say there; in normal form.

    It has the keys of both, and at each the meet of the values that decide there: exact, since patterns are nested
    or disjoint, and never larger than the sum.
    """
    return normal(
        {
            key: both(decided(one, key, default), decided(two, key, default))
            for key in {**one, **two}
        },
        default,
    )


def normal(entries: Mapping[str, Value], default: Value) -> dict[str, Value]:
    """The smallest map that says the same: without the entries that repeat what the next wider one says."""
    kept: dict[str, Value] = {}
    for key in sorted(entries, key=_width):  # wider ones first
        inherited = default
        for candidate in wider(key):
            if candidate != key and candidate in kept:
                inherited = kept[candidate]
                break
        if entries[key] != inherited:
            kept[key] = entries[key]
    return kept


def _width(pattern: str) -> tuple[int, bool]:
    return (0, False) if pattern == "*" else (pattern.count("."), pattern[-1] != "*")
