"""The one rule of all maps: the most specific entry decides (spec, "Patterns").

A pattern is exact (`market.eu`), or everything below a segment (`market.*`), or everything (`*`).
Two patterns are nested or disjoint. So of the entries of a map that match a name one is the most
specific: exact, then the longest `.*`, then `*`. What holds where no entry matches is the map's
default.

*Why a star only at the end:* were `*.eu` a pattern, it and `market.*` would overlap, and neither be
more specific. Then the order of entries would decide, and a meet could grow without bound.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

Value = TypeVar("Value")


def contains(pattern: str, other: str) -> bool:
    """Is every name that `other` matches matched by `pattern`? A name is a pattern of itself alone.

    `market.*` does not contain `market` (spec 12.1). Takes legal patterns, and does not check them.

        contains("market.*", "market.eu.west")    # True: at any depth
        contains("market.*", "markets")           # False: the dot stays in the comparison
    """
    if pattern == other or pattern == "*":
        return True
    return pattern[-1] == "*" and other.startswith(pattern[:-1])


def among(listed: Collection[str], name: str) -> bool:
    """Does one of the patterns match the name?

        among(["market.*", "rates"], "market.eu")    # True
    """
    # A pattern without a star at its end can match only by being equal.
    if name in listed:
        return True
    for pattern in listed:  # noqa: SIM110, asked for each link: a generator would cost more
        if pattern[-1] == "*" and contains(pattern, name):
            return True
    return False


def wider(pattern: str) -> Iterator[str]:
    """The patterns that contain `pattern`, itself first, from the most specific to `*`.

        list(wider("a.b.c"))    # a.b.c, a.b.*, a.*, *
        list(wider("a.b.*"))    # a.b.*, a.*, *

    As many as it has segments, and one more.
    """
    yield pattern
    if pattern == "*":
        return

    # Remove the star, so that each round cuts off one segment.
    path = pattern.removesuffix(".*")
    while "." in path:
        path = path.rpartition(".")[0]
        yield path + ".*"
    yield "*"


def decided(entries: Mapping[str, Value], pattern: str, default: Value) -> Value:
    """What the most specific entry says that contains `pattern`, or `default` if none does.

        decided({"*": 1, "hr.*": 2}, "hr.pay", 0)    # 2
        decided({"hr.*": 2}, "sales", 0)             # 0

    Goes up from the pattern, one look for each segment; or through the map, where that is shorter.
    So neither a long map nor a name of many segments makes it slow. The wider entries are not
    looked at: `{"*": ["select"], "hr.*": []}` gives nothing on `hr.pay` (spec 12.3). An entry below
    the pattern is not looked at either: `within` names those.
    """
    if pattern in entries:
        return entries[pattern]
    if len(entries) <= pattern.count("."):
        # Those that contain it contain each other: the longest is the most specific.
        above = (key for key in entries if contains(key, pattern))
        return entries.get(max(above, key=len, default=""), default)
    for candidate in wider(pattern):
        if candidate in entries:
            return entries[candidate]
    return default


def within(entries: Mapping[str, Any], pattern: str) -> list[str]:
    """Where inside `pattern` a map may say different things: there, and at the entries below it.

        within({"*": 1, "a.b": 2, "c": 3}, "a.*")    # a.*, a.b

    To compare two maps inside a pattern it is enough to look at these places.
    """
    if pattern[-1] != "*":  # a name: nothing is below it, however many entries there are
        return [pattern]
    below = (key for key in entries if key != pattern and contains(pattern, key))
    return [pattern, *below]


def widest(entries: Mapping[str, Any]) -> list[str]:
    """The patterns of a map that lie below no other, sorted.

    Values are not looked at, so that an entry may permit nothing.
    """
    return sorted(key for key in entries if not any(above in entries for above in above(key)))


def meet(
    one: Mapping[str, Value],
    two: Mapping[str, Value],
    default: Value,
    both: Callable[[Value, Value], Value],
) -> dict[str, Value]:
    """The map that says, everywhere, what `both` makes of what the two say there; in normal form.

    It has the keys of both, and at each the meet of the values that decide there. That is exact,
    since patterns are nested or disjoint, and never larger than the sum. Between two keys nothing
    changes: a name that both maps decide by the same two entries is decided by the narrower of
    the two keys.

    `both` must make the default of two defaults.

        meet({"*": 5}, {"hr.*": 3}, 0, min)             # {"hr.*": 3}: elsewhere the second has 0
        meet({"*": 5, "hr.*": 1}, {"*": 3}, 0, min)     # {"*": 3, "hr.*": 1}
    """
    made = {}
    for key in {**one, **two}:
        # Its own entry is the most specific one that there can be, and needs no search.
        mine = one[key] if key in one else decided(one, key, default)
        its = two[key] if key in two else decided(two, key, default)
        made[key] = both(mine, its)
    return normal(made, default)


def normal(entries: Mapping[str, Value], default: Value) -> dict[str, Value]:
    """The smallest map that says the same: no entry repeats what the next wider one says.

    One pass, from wide to narrow. When a key is looked at, every pattern above it has been kept or
    dropped for good. A dropped one said what the one above it says, so nothing has to be redone.
    Two maps that say the same have one normal form, and are compared by `==`.

        normal({"*": 1, "a.*": 1, "b": 0}, 0)    # {"*": 1, "b": 0}
    """
    kept: dict[str, Value] = {}
    for key in sorted(entries, key=_width):  # wider ones first
        # What would hold here without this entry: the next wider one, or the default.
        inherited = default
        for candidate in above(key):
            if candidate in kept:
                inherited = kept[candidate]
                break
        if entries[key] != inherited:
            kept[key] = entries[key]
    return kept


def above(pattern: str) -> Iterator[str]:
    """The patterns that contain `pattern` and more: none for `*`.

    From the most specific on, as `wider` has them.
    """
    above = wider(pattern)
    next(above)  # the pattern itself
    return above


def _width(pattern: str) -> tuple[int, bool]:
    """Sorts a pattern after every pattern that contains it.

    By dots; and `a.*` before `a.b`, which has as many.
    """
    if pattern == "*":
        return 0, False
    return pattern.count("."), pattern[-1] != "*"
