"""The typed caveats, and the vocabulary that knows them by key (spec, "Caveats").

A caveat is a frozen value with one verb, `prohibits`: given an access and the verifier's own facts it says why not, or
nothing. It cannot grant and it does no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeAlias

import msgspec
from msgspec.structs import force_setattr

from captoken._format import names
from captoken._format.encoding import decode_json, encode_json
from captoken._format.spelling import shown, spelled, spelled_time
from captoken._language import constraints, patterns
from captoken._language.access import Access, amounts
from captoken._language.reasons import CODES, Reason

Domain = Literal["data", "tool", "all"]


class Situation(msgspec.Struct, frozen=True):
    """The verifier's own facts: what is judged against them cannot be stated by a token or a caller."""

    now: int  # seconds since the epoch
    leeway: int = 0  # seconds
    audiences: frozenset[str] = (
        frozenset()
    )  # the verifier's own names that every `aud` so far has left
    task: str = ""  # the token's task, as far as the root record and the links before this one say
    overlay_age: int | None = None  # seconds; None if there is no overlay


class Caveat(msgspec.Struct, frozen=True):
    """One restriction, as the JSON `value` under `key`. Subclass it for a caveat of your own, with a namespaced `key`.

    A subclass checks `value` in `__post_init__` (raise TypeError or ValueError) and says in `prohibits` why an access
    is prohibited: a Reason, or a sentence, or None. Whatever it raises or otherwise returns prohibits. With a `domain`
    of `data` or `tool` it is asked only about accesses of that domain. `covers` and `meet` make narrowing checks finer.
    """

    value: Any
    key: ClassVar[str] = ""
    domain: ClassVar[Domain] = "all"
    asks_access: ClassVar[bool] = True  # False for what can be judged without an access

    def prohibits(self, access: Access, situation: Situation) -> Reason | str | None:
        """Why `access` is prohibited, or None."""
        return f"{self.key} has no rule"

    def covers(self, other: Caveat) -> bool:
        """Does this permit all that `other`, of the same key, permits? Equality is always a right answer."""
        return self == other

    def meet(self, other: Caveat) -> Caveat | None:
        """One caveat that permits what both permit, or None: then both are kept."""
        return None


# --- reading values --------------------------------------------------------------------------------------------------


def _list(value: Any, what: str) -> list[Any]:
    if type(value) is not list:
        raise TypeError(f"{what} must be a list, not {type(value).__name__}")
    return value


def _object(value: Any, what: str, like: str = "") -> dict[str, Any]:
    if type(value) is not dict:
        raise TypeError(f"{what} must be a mapping, not {type(value).__name__}{like}")
    return value


def _said(value: dict[str, Any], what: str) -> dict[str, Any]:
    if not value:
        raise ValueError(f"{what} that is empty says nothing")
    return value


_OPERATIONS = frozenset(("*", "select", "insert", "update", "delete"))  # nearly all there are


def _operation(value: Any) -> None:
    if value != "*":
        names.name(value, "operation")


def _integer(value: Any, what: str) -> int:
    if type(value) is not int:
        raise TypeError(f"{what} must be an integer, not {type(value).__name__}")
    return value


# --- the caveats of version 1 ----------------------------------------------------------------------------------------


class Tables(Caveat, frozen=True):
    """The table matches one of the patterns."""

    key = "tables"
    domain = "data"

    def __post_init__(self) -> None:
        for pattern in _list(self.value, "tables"):
            # Most are ASCII identifiers, each a pattern of one segment. (Beyond ASCII, identifiers hold format characters.)
            if (
                type(pattern) is not str
                or not (pattern.isascii() and pattern.isidentifier())
                or len(pattern) > 64
            ):
                names.pattern(pattern, "table")

    def prohibits(self, access: Access, situation: Situation) -> Reason | None:
        table = access.table or ""
        for pattern in self.value:
            if pattern == table or (pattern[-1] == "*" and patterns.matches(pattern, table)):
                return None
        return Reason("table", f"table {table} is not among {spelled(self.value)}")


class Operations(Caveat, frozen=True):
    """The operation is one of these; `*` is any."""

    key = "operations"
    domain = "data"

    def __post_init__(self) -> None:
        for operation in _list(self.value, "operations"):
            if operation not in _OPERATIONS:
                _operation(operation)

    def prohibits(self, access: Access, situation: Situation) -> Reason | None:
        if access.operation in self.value or "*" in self.value:
            return None
        return Reason(
            "operation", f"operation {access.operation} is not among {spelled(self.value)}"
        )


class Allow(Caveat, frozen=True):
    """The most specific pattern that matches the table lists the operation; no match prohibits."""

    key = "allow"
    domain = "data"

    def __post_init__(self) -> None:
        for pattern, operations in _object(self.value, "allow").items():
            names.pattern(pattern, "table")
            for operation in _list(operations, "operations"):
                _operation(operation)

    def prohibits(self, access: Access, situation: Situation) -> Reason | None:
        operations = patterns.decided(self.value, access.table or "", ())
        if access.operation in operations or "*" in operations:
            return None
        if not operations:
            return Reason("table", f"no operation is allowed on table {access.table}")
        return Reason(
            "operation",
            f"operation {access.operation} on table {access.table} is not among {spelled(operations)}",
        )


class Columns(Caveat, frozen=True):
    """The most specific pattern that matches the table lists all columns that the access states; no match says nothing.

    On a matching table the access must state its columns, also where `*` lets any pass.
    """

    key = "columns"
    domain = "data"

    def __post_init__(self) -> None:
        for pattern, columns in _said(_object(self.value, "columns"), "columns").items():
            names.pattern(pattern, "table")
            for column in _list(columns, "columns"):
                names.free_name(column, "column")

    def prohibits(self, access: Access, situation: Situation) -> Reason | None:
        columns = patterns.decided(self.value, access.table or "", None)
        if columns is None:
            return None
        if access.columns is None:
            return Reason(
                "column", f"columns of table {access.table} are restricted, and none are stated"
            )
        if "*" in columns:
            return None
        excess = [column for column in access.columns if column not in columns]
        if excess:
            return Reason(
                "column",
                f"columns {spelled(excess)} of table {access.table} are not among {spelled(columns)}",
            )
        return None


Argument: TypeAlias = (
    "tuple[constraints.Constraint, bool]"  # what its value satisfies, and whether it may be absent
)


def _arguments(value: Any) -> dict[str, Argument]:
    made = {}
    for argument, constraint in _object(value, "arguments", ": {} leaves them free").items():
        names.free_name(argument, "argument")
        stated = dict(_object(constraint, f"the constraint on {argument}", ', like {"in": [...]}'))
        optional = stated.pop("optional", None)
        if optional is not None and optional is not True:
            raise ValueError('"optional" is true or left out')
        made[argument] = (constraints.read(stated), optional is True)
    return made


class Tools(Caveat, frozen=True):
    """The most specific pattern that matches the tool is satisfied; no match prohibits.

    `{}` leaves the arguments free. Otherwise a closed world: arguments that are not named are absent, the named ones
    are present (or `"optional": true`) and satisfied. Presence is asked because a server has defaults of its own.
    """

    value: Any
    rules: Any = None  # pattern -> argument -> (constraint, optional)
    key = "tools"
    domain = "tool"

    def __post_init__(self) -> None:
        rules = {}
        like = ', like {"search": {}}, which leaves its arguments free'
        for pattern, arguments in _object(self.value, "tools", like).items():
            rules[names.pattern(pattern, "tool")] = _arguments(arguments)
        force_setattr(self, "rules", rules)

    def prohibits(self, access: Access, situation: Situation) -> Reason | None:
        rule: dict[str, Argument] | None = patterns.decided(self.rules, access.tool or "", None)
        if rule is None:
            return Reason("tool", f"tool {access.tool} is not among {spelled(sorted(self.rules))}")
        return call_prohibited(rule, access) if rule else None


def call_prohibited(rule: Mapping[str, Argument], access: Access) -> Reason | None:
    """Why the arguments of `access` do not satisfy a closed world of arguments, or None."""
    stated = access.arguments or {}
    for argument in stated:
        if argument not in rule:
            return Reason(
                "argument",
                f"argument {argument} of tool {access.tool} is not among {spelled(sorted(rule))}",
            )
    for argument, (constraint, optional) in rule.items():
        if argument in stated:
            if not constraint.accepts(stated[argument]):
                return Reason(
                    "argument",
                    f"argument {argument} of tool {access.tool} does not satisfy {spelled(constraint.json())}",
                )
        elif not optional:
            return Reason("argument", f"argument {argument} of tool {access.tool} must be present")
    return None


class Where(Caveat, frozen=True):
    """Each attribute is stated and satisfies its constraint."""

    value: Any
    rules: Any = None  # attribute -> constraint
    key = "where"

    def __post_init__(self) -> None:
        rules = {}
        for attribute, constraint in _said(_object(self.value, "where"), "where").items():
            rules[names.free_name(attribute, "attribute")] = constraints.read(constraint)
        force_setattr(self, "rules", rules)

    def prohibits(self, access: Access, situation: Situation) -> Reason | None:
        for attribute, constraint in self.rules.items():
            reason = attribute_prohibited(attribute, constraint, access)
            if reason is not None:
                return reason
        return None


def attribute_prohibited(
    attribute: str, constraint: constraints.Constraint, access: Access
) -> Reason | None:
    if attribute not in access.attributes:
        return Reason("attribute", f"attribute {attribute} is asked about and not stated")
    if not constraint.accepts(access.attributes[attribute]):
        return Reason(
            "attribute", f"attribute {attribute} does not satisfy {spelled(constraint.json())}"
        )
    return None


class Expires(Caveat, frozen=True):
    """now < exp + leeway: at the second of `exp` the token has expired."""

    key = "exp"
    asks_access = False

    def __post_init__(self) -> None:
        _integer(self.value, "exp")

    def prohibits(self, access: Access | None, situation: Situation) -> Reason | None:
        if situation.now < self.value + situation.leeway:
            return None
        return Reason("expired", f"expired at {spelled_time(self.value)}")


class NotBefore(Caveat, frozen=True):
    """now >= nbf - leeway."""

    key = "nbf"
    asks_access = False

    def __post_init__(self) -> None:
        _integer(self.value, "nbf")

    def prohibits(self, access: Access | None, situation: Situation) -> Reason | None:
        if situation.now >= self.value - situation.leeway:
            return None
        return Reason("not_yet_valid", f"not valid before {spelled_time(self.value)}")


class Audience(Caveat, frozen=True):
    """One of the verifier's own audiences is in every `aud` of the token: of those the links before have left, one is here."""

    key = "aud"
    asks_access = False

    def __post_init__(self) -> None:
        for audience in _list(self.value, "aud"):
            names.name(audience, "audience")

    def prohibits(self, access: Access | None, situation: Situation) -> Reason | None:
        if not situation.audiences.isdisjoint(self.value):
            return None
        return Reason("wrong_audience", f"addressed to {spelled(self.value)}")


class Task(Caveat, frozen=True):
    """The token's task is this one or below it: all of them lie on one path."""

    key = "task"
    asks_access = False

    def __post_init__(self) -> None:
        names.task(self.value)

    def prohibits(self, access: Access | None, situation: Situation) -> Reason | None:
        if names.at_or_below(situation.task, self.value) or names.at_or_below(
            self.value, situation.task
        ):
            return None
        return Reason("task", f"task {self.value} is not on one path with task {situation.task}")


class Uses(Caveat, frozen=True):
    """At most so many accesses, by this token and all below it together: the ledger counts (spec, "Ledger")."""

    key = "uses"

    def __post_init__(self) -> None:
        amounts({"uses": self.value}, "uses")

    def prohibits(self, access: Access, situation: Situation) -> Reason | None:
        return None


class Budget(Caveat, frozen=True):
    """At most so much of each unit, by this token and all below it together: the ledger counts (spec, "Ledger")."""

    key = "budget"

    def __post_init__(self) -> None:
        if "uses" in amounts(_said(_object(self.value, "budget"), "budget"), "budget"):
            raise ValueError("no unit of a budget is called uses: say uses")

    def prohibits(self, access: Access, situation: Situation) -> Reason | None:
        return cost_unstated(self.value, access)


def cost_unstated(budget: Iterable[str], access: Access) -> Reason | None:
    missing = sorted(unit for unit in budget if unit not in access.cost)
    return (
        Reason("cost_unstated", f"what it costs in {spelled(missing)} is not stated")
        if missing
        else None
    )


class Fresh(Caveat, frozen=True):
    """The verifier's overlay is no older than so many seconds (spec, "Overlay")."""

    key = "fresh"
    asks_access = False

    def __post_init__(self) -> None:
        amounts({"seconds": self.value}, "fresh")

    def prohibits(self, access: Access | None, situation: Situation) -> Reason | None:
        return not_fresh(self.value, situation)


def not_fresh(seconds: int, situation: Situation) -> Reason | None:
    age = situation.overlay_age
    if age is not None and age <= seconds:
        return None
    have = "there is none" if age is None else f"it is {age} s old"
    return Reason("stale_overlay", f"asks for an overlay of the last {seconds} s, and {have}")


def prohibited(
    caveats: Iterable[Caveat], access: Access | None, situation: Situation
) -> Reason | None:
    """What the first of `caveats` says that prohibits and whose domain `access` states, or None.

    A checker that raises, or returns what is no answer, prohibits. Without an access only those caveats are asked that
    do not ask about one (spec, "Caveats").
    """
    key = ""
    try:
        for caveat in caveats:
            key, domain = caveat.key, caveat.domain
            if domain == "all":
                if access is None and caveat.asks_access:
                    continue
            elif access is None or (access.table if domain == "data" else access.tool) is None:
                continue
            said: Any = caveat.prohibits(access, situation)  # type: ignore[arg-type]
            if said is not None:
                if type(said) is Reason and said.code in CODES:
                    return said
                return Reason(
                    "attribute", said if type(said) is str else f"{key} could not be judged"
                )
    except (
        Exception
    ) as error:  # fail closed, and say no more than its type: its text may hold anything
        return Reason("attribute", f"{key} could not be judged: {type(error).__name__}")
    return None


# --- vocabulary ------------------------------------------------------------------------------------------------------

_BUILT_IN: tuple[type[Caveat], ...] = (
    Tables, Operations, Allow, Columns, Tools, Where, Expires, NotBefore, Audience, Task, Uses, Budget, Fresh,
)  # fmt: skip

# Keys of the caveats that look at the token and the server alone, and never at the access: aud, exp, fresh, nbf, task.
# A caveat of an embedder's is never early: what it costs to ask is not known here.
EARLY = frozenset(kind.key for kind in _BUILT_IN if not kind.asks_access)


class Vocabulary:
    """The caveats that an issuer, a holder or a verifier knows: those of version 1, and own ones given as classes.

    Immutable; passed as a value to `Issuer`, `Token.parse` and `Verifier`. Raises TypeError or ValueError for a class
    that is no Caveat, or whose `key` is not namespaced or is taken.
    """

    __slots__ = ("kinds",)

    kinds: Mapping[str, type[Caveat]]

    def __init__(self, *own: type[Caveat]) -> None:
        kinds = {kind.key: kind for kind in _BUILT_IN}
        for kind in own:
            if not (isinstance(kind, type) and issubclass(kind, Caveat)):
                raise TypeError(f"{kind!r} is not a class of Caveat")
            if names.namespaced(kind.key, "key") in kinds:
                raise ValueError(f"two caveats with the key {kind.key}")
            if kind.domain not in ("data", "tool", "all"):
                raise ValueError(
                    f"{kind.key} has the domain {shown(kind.domain)}: data, tool or all"
                )
            kinds[kind.key] = kind
        object.__setattr__(self, "kinds", MappingProxyType(kinds))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Vocabulary is immutable")

    def __repr__(self) -> str:
        return (
            f"<Vocabulary {', '.join(sorted(set(self.kinds) - set(V1.kinds))) or 'of version 1'}>"
        )


V1 = Vocabulary()


# --- writing ---------------------------------------------------------------------------------------------------------


def _tidy(given: Any) -> Any:
    """A JSON copy with its lists sorted and without repetition: in version 1 every list is a set."""
    if isinstance(given, Mapping):
        return {_tidy(key): _tidy(value) for key, value in given.items()}
    if isinstance(given, (list, tuple, set, frozenset)):
        items = dict.fromkeys((type(item).__name__, _tidy(item)) for item in given)
        return [item for _, item in sorted(items)]
    if type(given) not in (str, int, bool):  # a subclass may compare and print as it likes
        raise TypeError(
            f"a caveat is made of str, int, bool, lists and mappings, not of {type(given).__name__}"
        )
    return given


def write(key: str, given: Any, vocabulary: Vocabulary) -> Caveat:
    """The caveat that `given` asks for, tidied and checked as writers must. Raises TypeError or ValueError."""
    try:  # an embedder's lists keep their order
        value = decode_json(encode_json({key: given}))[key] if ":" in key else _tidy(given)
    except RecursionError:
        raise ValueError(f"{key} is nested too deeply") from None
    caveat = vocabulary.kinds[key](value)
    names.composed(value)
    return caveat
