"""The one rule of all maps: the most specific entry decides (spec, "Patterns").

A pattern is exact (`market.eu`), or everything below a segment (`market.*`), or everything (`*`).
Two patterns are nested or disjoint. So of the entries of a map that match a name one is the most
specific: exact, then the longest `.*`, then `*`. What holds where no entry matches is the map's
default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

Value = TypeVar("Value")


def contains(pattern: str, other: str) -> bool:
    """Is every name that `other` matches matched by `pattern`? A name is a pattern of itself alone.

    `market.*` does not contain `market`.
    """
    if pattern == other or pattern == "*":
        return True
    return pattern[-1] == "*" and other.startswith(pattern[:-1])


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


def decided(entries: Mapping[str, Value], pattern: str, default: Value) -> Value:
    """What the most specific entry says that contains `pattern`, or `default` if none does."""
    for candidate in wider(pattern):
        if candidate in entries:
            return entries[candidate]
    return default


def within(entries: Mapping[str, Any], pattern: str) -> list[str]:
    """Where inside `pattern` a map may say different things: there, and at the entries below it."""
    below = (key for key in entries if key != pattern and contains(pattern, key))
    return [pattern, *below]


def widest(entries: Mapping[str, Any]) -> list[str]:
    """The patterns of a map that lie below no other."""
    return sorted(key for key in entries if not any(above in entries for above in _above(key)))


def meet(
    one: Mapping[str, Value],
    two: Mapping[str, Value],
    default: Value,
    both: Callable[[Value, Value], Value],
) -> dict[str, Value]:
    """The map that says, everywhere, what `both` makes of what the two say there; in normal form.

    It has the keys of both, and at each the meet of the values that decide there. That is exact,
    since patterns are nested or disjoint, and never larger than the sum.
    """
    made = {}
    for key in {**one, **two}:
        made[key] = both(decided(one, key, default), decided(two, key, default))
    return normal(made, default)


def normal(entries: Mapping[str, Value], default: Value) -> dict[str, Value]:
    """The smallest map that says the same: no entry repeats what the next wider one says."""
    kept: dict[str, Value] = {}
    for key in sorted(entries, key=_width):  # wider ones first
        inherited = default
        for candidate in _above(key):
            if candidate in kept:
                inherited = kept[candidate]
                break
        if entries[key] != inherited:
            kept[key] = entries[key]
    return kept


def _above(pattern: str) -> Iterator[str]:
    """The patterns that contain `pattern` and more."""
    above = wider(pattern)
    next(above)
    return above


def _width(pattern: str) -> tuple[int, bool]:
    """Sorts a pattern after every pattern that contains it."""
    if pattern == "*":
        return 0, False
    return pattern.count("."), pattern[-1] != "*"
