"""The small decidable constraints on one value: `any`, `in`, `min`/`max`, `path` (spec, "Constraints").

Each is a frozen value in normal form with `accepts`, `meet` and `json`. Types never coerce: `True`, `1` and `"1"` are
three values, and a float, list or object satisfies only `any`. There are no regular expressions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from typing import Any, TypeAlias

import msgspec

from captoken._format import names
from captoken._format.encoding import MAX_INTEGER
from captoken._format.spelling import shown

# A scalar with its type, so that True and 1 differ in sets. (is it a boolean, value)
_Typed = tuple[bool, "str | int"]

# What a server further down may decode into a separator or an end of string (spec, "Paths").
_is_evasive = re.compile(r"[\\\0]|%(?:2e|2f|5c|25|00)", re.IGNORECASE).search


def _typed(value: Any) -> _Typed:
    return type(value) is bool, value


def _order(item: _Typed) -> tuple[int, str | int]:
    """Booleans, then integers, then strings: an order for lists that mix them."""
    is_bool, value = item
    return (0 if is_bool else 2 if isinstance(value, str) else 1), value


class Anything(msgspec.Struct, frozen=True):
    """Every value, of every type."""

    def accepts(self, value: Any) -> bool:
        return True

    def json(self) -> dict[str, Any]:
        return {"any": True}


class In(msgspec.Struct, frozen=True):
    """One of the listed values. An empty list accepts nothing."""

    values: frozenset[_Typed]

    def accepts(self, value: Any) -> bool:
        return type(value) in (str, int, bool) and (type(value) is bool, value) in self.values

    def json(self) -> dict[str, Any]:
        return {"in": [value for _, value in sorted(self.values, key=_order)]}


class Range(msgspec.Struct, frozen=True):
    """An integer of at least `low` and at most `high`; None is no bound on that side."""

    low: int | None
    high: int | None

    def accepts(self, value: Any) -> bool:
        if type(value) is not int:
            return False
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def json(self) -> dict[str, Any]:
        return {
            key: bound
            for key, bound in (("min", self.low), ("max", self.high))
            if bound is not None
        }


class Path(msgspec.Struct, frozen=True):
    """A path at or below one of `tops`, none of which lies below another."""

    tops: frozenset[str]

    def accepts(self, value: Any) -> bool:
        # A value may be long, and tops are few: so top by top, and not up from the value.
        return (
            type(value) is str and _is_path(value) and any(_below(value, top) for top in self.tops)
        )

    def json(self) -> dict[str, Any]:
        return {"path": sorted(self.tops)}


Constraint: TypeAlias = Anything | In | Range | Path
ANYTHING = Anything()
NOTHING = In(frozenset())


def _is_path(value: str) -> bool:
    if value == "/":
        return True
    if not value.startswith("/") or _is_evasive(value):
        return False
    return not {"", ".", ".."}.intersection(value[1:].split("/"))


def _below(path: str, top: str) -> bool:
    return top == "/" or path == top or path.startswith(top + "/")


def _above(path: str) -> Iterator[str]:
    """The paths above `path`, nearest first."""
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        yield path


def _at_or_below(path: str, tops: Set[str]) -> bool:
    return path in tops or any(above in tops for above in _above(path))


def _paths(tops: Set[str]) -> Constraint:
    """The constraint in normal form: tops below other tops say nothing more."""
    kept = frozenset(top for top in tops if not any(above in tops for above in _above(top)))
    return Path(kept) if kept else NOTHING


def meet(one: Constraint, two: Constraint) -> Constraint:
    """The constraint that accepts what both accept: exact, but for a range and the list that says the same."""
    if isinstance(one, Anything):
        return two
    if isinstance(two, Anything):
        return one
    if isinstance(one, In):
        return In(frozenset(item for item in one.values if two.accepts(item[1])))
    if isinstance(two, In):
        return In(frozenset(item for item in two.values if one.accepts(item[1])))
    if isinstance(one, Range) and isinstance(two, Range):
        low = max((bound for bound in (one.low, two.low) if bound is not None), default=None)
        high = min((bound for bound in (one.high, two.high) if bound is not None), default=None)
        return Range(low, high) if low is None or high is None or low <= high else NOTHING
    if isinstance(one, Path) and isinstance(two, Path):
        return _paths(
            {top for top in one.tops if _at_or_below(top, two.tops)}
            | {top for top in two.tops if _at_or_below(top, one.tops)}
        )
    return NOTHING  # an integer and a path


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{shown(value)} is not an integer")
    if not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise ValueError(f"{shown(value)} is of magnitude 2^53 or more")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if type(value) is not list:
        raise TypeError(f"{what} must be a list, not {type(value).__name__}")
    return value


def _scalar(value: Any) -> _Typed:
    if type(value) is str:
        names.free_name(value, "a value of 'in'")
    elif type(value) is not bool:
        _integer(value)
    return _typed(value)


def _top(value: Any) -> str:
    if not _is_path(names.free_name(value, "path")):
        raise ValueError(
            f"path {shown(value)} is no path: '/', or '/a/b' without empty, '.' or '..' segments"
        )
    return str(value)


def read(value: Any) -> Constraint:
    """The constraint that the JSON `value` states. Raises TypeError or ValueError for anything else."""
    if type(value) is not dict:
        raise TypeError(
            f'a constraint is like {{"in": […]}}, {{"max": 5}} or {{"any": true}}, not {type(value).__name__}'
        )
    kinds = set(value)
    if kinds == {"any"} and value["any"] is True:
        return ANYTHING
    if kinds == {"in"}:
        return In(frozenset(_scalar(item) for item in _list(value["in"], "in")))
    if kinds == {"path"}:
        return _paths({_top(top) for top in _list(value["path"], "path")})
    if kinds and kinds <= {"min", "max"}:
        low, high = (_integer(value[key]) if key in value else None for key in ("min", "max"))
        if low is not None and high is not None and low > high:
            raise ValueError(f"min {low} is above max {high}")
        return Range(low, high)
    raise ValueError(
        f"no constraint has the keys {shown(sorted(kinds))}: any, in, min and max, path"
    )
