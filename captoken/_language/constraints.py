"""The small decidable constraints on one value: any, in, min and max, path (spec, "Constraints").

Each kind is one class. A constraint is a frozen value in normal form that says which values it
accepts, what it and another one accept together, and how it is spelled, for readers and for people.
Types never coerce: `True`, `1` and `"1"` are three values, and a float, a list or an object
satisfies only `any`. There are no regular expressions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Set
from typing import Any, ClassVar

import msgspec

from captoken._format import names
from captoken._format.spelling import escape, named_all, shown
from captoken._language.values import a_bounded_integer, a_list

# A scalar with its type, so that True and 1 differ in sets: is it a boolean, and the value.
Typed = tuple[bool, "str | int"]


class Constraint(msgspec.Struct, frozen=True):
    """What one value must satisfy."""

    keys: ClassVar[frozenset[str]] = frozenset()  # of the object that spells it

    @classmethod
    def read(cls, stated: dict[str, Any]) -> Constraint:
        """The constraint that an object with keys of this kind states.

        Raises TypeError or ValueError for one that cannot be read.
        """
        raise NotImplementedError

    def accepts(self, value: Any) -> bool:
        """Does the JSON `value` satisfy it?"""
        raise NotImplementedError

    def alike(self, other: Any) -> Constraint:
        """What this one and another of its kind accept together."""
        raise NotImplementedError

    def json(self) -> dict[str, Any]:
        """The object that spells it."""
        raise NotImplementedError

    def words(self) -> str:
        """What a value must be, for people."""
        raise NotImplementedError

    def meet(self, other: Constraint) -> Constraint:
        """The constraint that accepts what both accept.

        Exact. But a range and the list that says the same are two constraints.
        """
        if isinstance(other, Anything):
            return self
        if isinstance(self, Anything):
            return other
        if isinstance(self, In):
            return self.filtered(other)
        if isinstance(other, In):
            return other.filtered(self)
        if type(self) is type(other):
            return self.alike(other)
        return NOTHING  # no value is of two types


class Anything(Constraint, frozen=True):
    """Every value, of every type."""

    keys = frozenset(("any",))

    @classmethod
    def read(cls, stated: dict[str, Any]) -> Constraint:
        if stated["any"] is not True:
            raise ValueError('"any" is true')
        return ANYTHING

    def accepts(self, value: Any) -> bool:
        return True

    def json(self) -> dict[str, Any]:
        return {"any": True}

    def words(self) -> str:
        return "anything"


class In(Constraint, frozen=True):
    """One of the listed values. An empty list accepts nothing."""

    values: frozenset[Typed]
    keys = frozenset(("in",))

    @classmethod
    def read(cls, stated: dict[str, Any]) -> Constraint:
        return cls(frozenset(_scalar(item) for item in a_list(stated["in"], "in")))

    def accepts(self, value: Any) -> bool:
        return type(value) in (str, int, bool) and (type(value) is bool, value) in self.values

    def filtered(self, other: Constraint) -> Constraint:
        """The values of the list that `other` accepts too, of whatever kind it is."""
        return In(frozenset(item for item in self.values if other.accepts(item[1])))

    def json(self) -> dict[str, Any]:
        return {"in": self._listed()}

    def _listed(self) -> list[str | int]:
        return [value for _, value in sorted(self.values, key=_order)]

    def words(self) -> str:
        values = [escape(json.dumps(value, ensure_ascii=False)) for value in self._listed()]
        if len(values) > 1:
            return f"one of {', '.join(values)}"
        return values[0] if values else "nothing there is"


class Range(Constraint, frozen=True):
    """An integer of at least `low` and at most `high`; None is no bound on that side."""

    low: int | None
    high: int | None
    keys = frozenset(("min", "max"))

    @classmethod
    def read(cls, stated: dict[str, Any]) -> Constraint:
        low = a_bounded_integer(stated["min"], "min") if "min" in stated else None
        high = a_bounded_integer(stated["max"], "max") if "max" in stated else None
        if low is not None and high is not None and low > high:
            raise ValueError(f"min {low} is above max {high}")
        return cls(low, high)

    def accepts(self, value: Any) -> bool:
        if type(value) is not int:
            return False
        if self.low is not None and value < self.low:
            return False
        return self.high is None or value <= self.high

    def alike(self, other: Range) -> Constraint:
        low = max((bound for bound in (self.low, other.low) if bound is not None), default=None)
        high = min((bound for bound in (self.high, other.high) if bound is not None), default=None)
        if low is not None and high is not None and low > high:
            return NOTHING
        return Range(low, high)

    def json(self) -> dict[str, Any]:
        bounds = {"min": self.low, "max": self.high}
        return {key: bound for key, bound in bounds.items() if bound is not None}

    def words(self) -> str:
        bounds = {"least": self.low, "most": self.high}
        return " and ".join(f"at {word} {at}" for word, at in bounds.items() if at is not None)


class Paths(Constraint, frozen=True):
    """A path at or below one of `tops`, none of which lies below another."""

    tops: frozenset[str]
    keys = frozenset(("path",))

    @classmethod
    def read(cls, stated: dict[str, Any]) -> Constraint:
        return _paths({_top(top) for top in a_list(stated["path"], "path")})

    def accepts(self, value: Any) -> bool:
        if type(value) is not str or not _is_path(value):
            return False
        # A value may be long, and tops are few: so top by top, and not up from the value.
        return any(_is_below(value, top) for top in self.tops)

    def alike(self, other: Paths) -> Constraint:
        mine = {top for top in self.tops if _is_within(top, other.tops)}
        theirs = {top for top in other.tops if _is_within(top, self.tops)}
        return _paths(mine | theirs)

    def json(self) -> dict[str, Any]:
        return {"path": sorted(self.tops)}

    def words(self) -> str:
        return f"at or below {named_all(self.tops)}"


ANYTHING = Anything()
NOTHING = In(frozenset())
_KINDS: tuple[type[Constraint], ...] = (Anything, In, Range, Paths)


def read_constraint(value: Any) -> Constraint:
    """The constraint that the JSON `value` states. Raises TypeError or ValueError otherwise."""
    if type(value) is not dict:
        like = '{"in": […]}, {"max": 5} or {"any": true}'
        raise TypeError(f"a constraint is like {like}, not {type(value).__name__}")
    for kind in _KINDS:
        if value and value.keys() <= kind.keys:
            return kind.read(value)
    stated = shown(sorted(value))
    raise ValueError(f"no constraint has the keys {stated}: any, in, min and max, path")


# --- lists ----------------------------------------------------------------------------------------


def _scalar(value: Any) -> Typed:
    is_boolean = type(value) is bool
    if type(value) is str:
        names.free_name(value, "a value of 'in'")
    elif not is_boolean:
        a_bounded_integer(value, "a value of 'in'")
    return is_boolean, value


def _order(item: Typed) -> tuple[int, str | int]:
    """Booleans, then integers, then strings: an order for lists that mix them."""
    is_boolean, value = item
    if is_boolean:
        return 0, value
    return (2 if isinstance(value, str) else 1), value


# --- paths ----------------------------------------------------------------------------------------

# What a server further down may decode into a separator or an end of string (spec, "Paths").
_is_evasive = re.compile(r"[\\\0]|%(?:2e|2f|5c|25|00)", re.IGNORECASE).search
_NO_SEGMENTS = frozenset(("", ".", ".."))


def _is_path(value: str) -> bool:
    if value == "/":
        return True
    if not value.startswith("/") or _is_evasive(value):
        return False
    return _NO_SEGMENTS.isdisjoint(value[1:].split("/"))


def _top(value: Any) -> str:
    if not _is_path(names.free_name(value, "path")):
        like = "'/', or '/a/b' without empty, '.' or '..' segments"
        raise ValueError(f"path {shown(value)} is no path: {like}")
    return str(value)


def _is_below(path: str, top: str) -> bool:
    return top == "/" or path == top or path.startswith(top + "/")


def _above(path: str) -> Iterator[str]:
    """The paths above `path`, nearest first."""
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        yield path


def _is_within(path: str, tops: Set[str]) -> bool:
    """Is a path at or below one of many others?"""
    return path in tops or any(above in tops for above in _above(path))


def _paths(tops: Set[str]) -> Constraint:
    """The constraint in normal form: tops below other tops say nothing more."""
    kept = frozenset(top for top in tops if not any(above in tops for above in _above(top)))
    return Paths(kept) if kept else NOTHING
