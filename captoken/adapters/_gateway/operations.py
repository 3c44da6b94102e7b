"""The operations of a service: each a method, a path and typed parameters, and which one is meant.

table = Table([Operation("stripe.refunds.create", "POST", …)])
table.find("POST", ["v1", "refunds"])       # the operation, and the values in its path
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from captoken._format import names
from captoken.adapters._gateway.shapes import (
    NOTHING,
    Members,
    Scalar,
    Shape,
    argument_names,
    member,
)

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
LISTS: Final = ("repeat", "brackets", "indices")
JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"

# What the gateway itself writes, or what is of one connection: no argument, whatever is declared.
OWN_HEADERS: Final = frozenset(
    (
        "accept-encoding",
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)

# A parameter whose value is a path: it takes all segments that are left.
SEGMENTS: Final = Scalar("segments")


class Price(msgspec.Struct, frozen=True):
    """What an operation takes of a unit: so much, or so many times what an argument says."""

    amount: int = 0
    argument: str | None = None
    times: int = 1

    def told(self, unit: str) -> str:
        """In words: `0 usd_cents`, `amount usd_cents`, `100 * amount usd_cents`."""
        if self.argument is None:
            return f"{self.amount} {unit}"
        times = f"{self.times} * " if self.times != 1 else ""
        return f"{times}{self.argument} {unit}"

    def of(self, arguments: dict[str, Any]) -> int | None:
        """The cost of these arguments; None where the argument does not say it."""
        if self.argument is None:
            return self.amount
        said = arguments.get(self.argument)
        return said * self.times if type(said) is int and said >= 0 else None


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation, as it is judged. `template`: its path; a segment in braces is a parameter."""

    tool: str
    method: str
    template: tuple[str, ...]
    path: dict[str, Scalar] = {}
    query: Members = NOTHING

    # By the name in small letters: the name as it is declared.
    headers: dict[str, str] = {}

    # What a body may be, by its content type. Without one, there is none.
    body: dict[str, Shape] = {}

    # Content types of bodies that go as they are: size and type are arguments then.
    opaque: tuple[str, ...] = ()
    cost: dict[str, Price] = {}
    lists: str = "repeat"

    # The argument of each parameter, by its place and its name.
    arguments: dict[tuple[str, str], str] = {}

    @property
    def request(self) -> str:
        """Method and path, for people."""
        return f"{self.method} /{'/'.join(self.template)}"

    def parameters(self) -> dict[str, str]:
        """The arguments that it can have, with their types in words, as `tools` of a token."""
        found = {self.arguments["path", name]: shape.kind for name, shape in self.path.items()}
        for place, shape in _top_level(self):
            for name, inner in shape.items():
                found |= argument_names(self.arguments[place, name], inner)
        if any(not isinstance(shape, Members) for shape in self.body.values()):
            found["body"] = "any"
        if self.opaque:
            found |= {"body.size": "integer", "body.type": "string"}
        return found


def _top_level(operation: Operation) -> Iterator[tuple[str, dict[str, Shape]]]:
    """The places, other than the path, whose parameters have names of their own."""
    yield "query", operation.query.members
    yield "header", dict.fromkeys(operation.headers.values(), Scalar("string"))
    for shape in operation.body.values():
        if isinstance(shape, Members):
            yield "body", shape.members


def made(operation: Operation) -> Operation:
    """The operation with the names of its arguments.

    A name that is in two places of a request stands behind its place: `path.id` and `body.id`.
    Raises ValueError for what cannot be told apart.
    """
    names.segmented(operation.tool, "tool")
    check_headers(operation.headers)
    places: dict[str, list[str]] = {}
    path = dict[str, Shape](operation.path)
    for place, members in (("path", path), *_top_level(operation)):
        for name in members:
            member(name, f"{operation.tool}: a parameter")
            if place not in places.setdefault(name, []):
                places[name].append(place)
    taken = {
        (place, name): name if len(there) == 1 else f"{place}.{name}"
        for name, there in places.items()
        for place in there
    }
    whole = msgspec.structs.replace(operation, arguments=taken)
    _check_template(whole)
    for unit, price in whole.cost.items():
        if price.argument is not None and price.argument not in whole.parameters():
            known = ", ".join(whole.parameters()) or "none"
            raise ValueError(
                f"{whole.tool}: cost.{unit} names {price.argument!r}, which is not one of its "
                f"arguments: {known}"
            )
    return whole


def check_headers(names_of: Iterable[str]) -> None:
    """Raise ValueError for a header that is the gateway's own."""
    for name in names_of:
        if name.lower() in OWN_HEADERS:
            raise ValueError(f"{name} is reserved for the gateway")


def _check_template(operation: Operation) -> None:
    """Raise ValueError for a path whose parameters are not whole segments."""
    for number, each in enumerate(operation.template, 1):
        name = placeholder(each)
        if name is None and ("{" in each or "}" in each):
            raise ValueError(f"{operation.tool}: a parameter of the path must be a whole segment")
        many = name is not None and operation.path.get(name) == SEGMENTS
        if many and number < len(operation.template):
            raise ValueError(f"{operation.tool}: a parameter of type segments must end the path")
    found = [name for each in operation.template if (name := placeholder(each)) is not None]
    if sorted(found) != sorted(operation.path):
        raise ValueError(
            f"{operation.tool}: path must name exactly these parameters: {', '.join(found)}"
        )


def placeholder(segment: str) -> str | None:
    """The parameter that a segment of a template stands for; None for a literal one."""
    if segment[:1] == "{" and segment[-1:] == "}" and "{" not in segment[1:]:
        return segment[1:-1]
    return None


class _Node:
    """One segment of templates: what may follow, and the operation that ends here."""

    def __init__(self) -> None:
        self.literal: dict[str, _Node] = {}
        self.folded: set[str] = set()
        self.named: _Node | None = None

        # The operations at this path, by their method.
        self.here: dict[str, Operation] = {}
        self.many: dict[str, Operation] = {}

    def after(self, segment: str) -> _Node:
        """The node behind a segment of a template, which is made where there is none."""
        if placeholder(segment) is None:
            self.folded.add(segment.casefold())
            return self.literal.setdefault(segment, _Node())
        if self.named is None:
            self.named = _Node()
        return self.named


class Table:
    """The operations of a service. Raises ValueError for two that are one request."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.operations: dict[str, Operation] = {}
        self._root = _Node()
        for each in operations:
            self.add(each)

    def add(self, operation: Operation) -> None:
        """One more. Raises ValueError where another one is the same request."""
        *above, last = operation.template
        node = self._root
        for segment in above:
            node = node.after(segment)
        name = placeholder(last)
        takes_rest = name is not None and operation.path[name] == SEGMENTS
        ends = node.many if takes_rest else node.after(last).here
        other = ends.setdefault(operation.method, operation)
        if other is not operation:
            raise ValueError(f"{other.tool} and {operation.tool} describe the same request")
        self.operations[operation.tool] = operation

    def find(self, method: str, segments: list[str]) -> tuple[Operation, dict[str, str]] | None:
        """The operation that a request is, and the values in its path.

        Of those that match, the one whose first differing segment is literal.
        """
        found = _found(self._root, method, segments, 0)
        if found is None:
            return None
        named = zip(found.template, segments, strict=False)
        values = {name: value for each, value in named if (name := placeholder(each)) is not None}
        last = placeholder(found.template[-1])
        if last is not None and found.path[last] == SEGMENTS:
            values[last] = "/" + "/".join(segments[len(found.template) - 1 :])
        return found, values


def _found(node: _Node, method: str, segments: list[str], at: int) -> Operation | None:
    if at == len(segments):
        return node.here.get(method)
    # A template is gone through once, whatever the path is: each node has one way to it.
    literal = node.literal.get(segments[at])
    if literal is None and segments[at].casefold() in node.folded:
        return None  # a service that does not tell case apart takes it for the literal one
    found = None if literal is None else _found(literal, method, segments, at + 1)
    if found is None and node.named is not None and segments[at]:
        found = _found(node.named, method, segments, at + 1)
    if found is None and "" not in segments[at:]:
        found = node.many.get(method)
    return found


def template_of(path: str) -> tuple[str, ...]:
    """The segments of a path template. Raises ValueError for what is none."""
    if not path.startswith("/"):
        raise ValueError(f"a path must begin with a slash: {path!r} does not")
    segments = tuple(path[1:].split("/"))
    if "" in segments[:-1] or not {".", ".."}.isdisjoint(segments):
        raise ValueError(f"{path!r} has an empty segment, or a segment of dots")
    return segments


def path_shapes(template: tuple[str, ...], stated: dict[str, Scalar]) -> dict[str, Scalar]:
    """The shape of each parameter in a path: a string, unless it is stated."""
    found = (placeholder(each) for each in template)
    return {name: Scalar("string") for name in found if name is not None} | stated
