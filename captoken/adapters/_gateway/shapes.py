"""What an operation takes: parameters, the shape of each, and the arguments that come of them.

A shape is written in the file as it looks:

    amount = "integer"                      # of magnitude below 2^53
    expand = ["string"]                     # a list
    shipping = { city = "string" }          # an object, which is taken apart: shipping.city
    items = [{ price = "string" }]          # a list of objects: items.price is a list
    metadata = "any"                        # one argument, whatever is in it
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final, TypeAlias

import msgspec

from captoken._format import names

# Objects in objects, further than which nothing is taken apart.
DEEPEST = 8


class Scalar(msgspec.Struct, frozen=True):
    """A value that is one argument. `kind` is one of `KINDS`."""

    kind: str


class Listed(msgspec.Struct, frozen=True):
    """A list, of which each item has a shape."""

    item: Shape


class Members(msgspec.Struct, frozen=True, dict=True):
    """An object. `more` says whether members that are not declared may be there as well."""

    members: dict[str, Shape] = {}
    more: bool = False

    @cached_property
    def folded(self) -> frozenset[str]:
        """Its names, as a reader has them that does not tell capitals from small letters."""
        return frozenset(map(str.casefold, self.members))


Shape: TypeAlias = Scalar | Listed | Members

KINDS: Final = ("string", "integer", "int64", "number", "boolean", "any")
ANY: Final = Scalar("any")
NOTHING: Final = Members()


def shape_of(stated: Any, place: str, depth: int = 0) -> Shape:
    """The shape that somebody wrote in a file. Raises ValueError, with the place."""
    if isinstance(stated, str) and stated in KINDS:
        return Scalar(stated)
    if isinstance(stated, list) and len(stated) == 1:
        return Listed(shape_of(stated[0], place, depth))
    if isinstance(stated, dict):
        if depth == DEEPEST:
            raise ValueError(f"{place}: nested deeper than {DEEPEST}: write any")
        members = {
            member(name, place): shape_of(inner, f"{place}.{name}", depth + 1)
            for name, inner in stated.items()
        }
        return Members(members)
    raise ValueError(
            f"{place}: a type must be one of {', '.join(KINDS)}, "
            'a list of one type, like ["string"], or a table of members'
    )


def member(name: str, place: str) -> str:
    """The name of a parameter or a member. Raises ValueError for one that no argument can have."""
    names.free_name(name, place)
    # A full stop stands between an object and its member.
    if "." in name:
        raise ValueError(f"{place}: the name {name!r} must not contain a full stop")
    return name


def taken_apart(argument: str, value: Any, shape: Shape, out: dict[str, Any]) -> None:
    """Add the arguments that a value gives, which was read by this shape.

    Two values never give the same arguments. Where a list of objects could, it stays whole.
    """
    if isinstance(shape, Members) and type(value) is dict and value:
        for name, inner in value.items():
            taken_apart(f"{argument}.{name}", inner, shape.members.get(name, ANY), out)
    elif isinstance(shape, Listed) and isinstance(shape.item, Members) and _is_plain(value):
        _columns(argument, list(value), shape.item, out)
    else:
        out[argument] = value


def _is_plain(value: Any) -> bool:
    """Is it a list of objects in which nothing is null or empty, at any depth?

    A column has null where an item lacks the member, so that one which says null is told apart.
    """
    return (
        type(value) is list
        and bool(value)
        and all(type(item) is dict and item and _is_full(item) for item in value)
    )


def _is_full(item: dict[str, Any]) -> bool:
    inner = [each for each in item.values() if type(each) is dict]
    return None not in item.values() and all(each and _is_full(each) for each in inner)


def _columns(argument: str, items: list[Any], shape: Members, out: dict[str, Any]) -> None:
    """A list for each member that one of the items has; None stands for an item without it."""
    for name in dict.fromkeys(name for item in items if item is not None for name in item):
        column = [None if item is None else item.get(name) for item in items]
        inner = shape.members.get(name, ANY)
        objects = all(each is None or type(each) is dict for each in column)
        if isinstance(inner, Members) and objects:
            _columns(f"{argument}.{name}", column, inner, out)
        else:
            out[f"{argument}.{name}"] = column


def argument_names(argument: str, shape: Shape) -> dict[str, str]:
    """The arguments that a shape can give, with their types in words."""
    if isinstance(shape, Members) and shape.members:
        each = (argument_names(f"{argument}.{name}", one) for name, one in shape.members.items())
        return {name: kind for names_of in each for name, kind in names_of.items()}
    if isinstance(shape, Listed):
        within = argument_names(argument, shape.item)
        return {name: f"list of {kind}" for name, kind in within.items()}
    return {argument: shape.kind if isinstance(shape, Scalar) else "any"}
