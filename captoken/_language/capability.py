"""The meet of all caveats about accesses: the most that a token can do (spec, "Capability").

A capability is a plain set of permitted accesses. `meet` permits exactly what both permit, `a.covers(b)` iff
`a.meet(b) == b`, and equal authority is `==`, but for a list of integers and the range that says the same. Order and
repetition of links do not matter. Nothing here depends on the position of a link in the chain.

Within the data domain all caveats say one thing: at each table pattern, which operations and which columns. Within the
tool domain: at each tool pattern, which arguments. Both are maps in which the most specific entry decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from captoken._format import names
from captoken._format.encoding import encode_json
from captoken._format.sealed import Sealed
from captoken._format.spelling import spelled, spelled_time
from captoken._language import constraints, patterns
from captoken._language.access import Access
from captoken._language.caveats import (
    Argument,
    Caveat,
    Situation,
    attribute_prohibited,
    call_prohibited,
    cost_unstated,
    not_fresh,
    prohibited,
)  # fmt: skip
from captoken._language.constraints import NOTHING, Constraint
from captoken._language.links import Link
from captoken._language.reasons import Reason

Names: TypeAlias = frozenset[str]  # of operations or columns; exactly {"*"} is any
ANY: Names = frozenset("*")


class Rights(NamedTuple):
    """What holds at a table: the operations, and the columns, None where they need not be stated."""

    operations: Names
    columns: Names | None


NO_RIGHTS = Rights(frozenset(), None)
ALL_RIGHTS = Rights(ANY, None)

# What holds at a tool: None is nothing, {} leaves the arguments free, otherwise a closed world of arguments. A closed
# world without arguments is CLOSED, since {} is taken.
Call: TypeAlias = "Mapping[str, Argument] | None"
FREE: Mapping[str, Argument] = MappingProxyType({})
CLOSED: Mapping[str, Argument] = MappingProxyType({"_": (NOTHING, True)})

RightsMap: TypeAlias = Mapping[str, Rights]
CallMap: TypeAlias = "Mapping[str, Call]"


def _named(given: Iterable[str]) -> Names:
    found = frozenset(given)
    return ANY if "*" in found else found


def both_named(one: Names, two: Names) -> Names:
    """The names that both list."""
    return two if one == ANY else one if two == ANY else one & two


def both_columns(one: Names | None, two: Names | None) -> Names | None:
    return two if one is None else one if two is None else both_named(one, two)


def both_rights(one: Rights, two: Rights) -> Rights:
    operations = both_named(one.operations, two.operations)
    return Rights(operations, both_columns(one.columns, two.columns)) if operations else NO_RIGHTS


def normal_call(arguments: Mapping[str, Argument]) -> Call:
    """A closed world in normal form: an argument that nothing satisfies is absent, or, if it must be present, a wall."""
    kept = {}
    for argument, (constraint, optional) in arguments.items():
        if constraint != NOTHING:
            kept[argument] = (constraint, optional)
        elif not optional:
            return None
    return MappingProxyType(kept) if kept else CLOSED


def both_calls(one: Call, two: Call) -> Call:
    """The calls that both permit: an argument that only one of two closed worlds names must be absent."""
    if one is None or two is None:
        return None
    if not one or not two:
        return one or two
    return normal_call(
        {
            argument: (
                constraints.meet(one[argument][0], two[argument][0])
                if argument in one and argument in two
                else NOTHING,
                all(world[argument][1] for world in (one, two) if argument in world),
            )
            for argument in {**one, **two}
        }
    )


def rights_of(stated: Mapping[str, Any]) -> RightsMap:
    """The map that the data caveats of one link state; what they leave open is ALL_RIGHTS."""
    operations = _named(stated["operations"]) if "operations" in stated else ANY
    made = (
        {pattern: Rights(operations, None) for pattern in stated.get("tables", ("*",))}
        if operations
        else {}
    )
    if len(made) > 1:
        made = patterns.normal(made, NO_RIGHTS)
    if "allow" in stated:
        allowed = {
            pattern: Rights(_named(given), None) for pattern, given in stated["allow"].items()
        }
        made = patterns.meet(made, allowed, NO_RIGHTS, both_rights)
    if "columns" in stated:
        # No match says nothing, so "*" stands for what the map leaves open.
        limited = {"*": ALL_RIGHTS} | {
            key: Rights(ANY, _named(given)) for key, given in stated["columns"].items()
        }
        made = patterns.meet(made, limited, NO_RIGHTS, both_rights)
    return made


def calls_of(rules: Mapping[str, Mapping[str, Argument]]) -> CallMap:
    return patterns.normal(
        {key: normal_call(rule) if rule else FREE for key, rule in rules.items()}, None
    )


def _view(entries: Mapping[str, Any]) -> Mapping[str, Any]:
    return entries if isinstance(entries, MappingProxyType) else MappingProxyType(entries)


class Capability(Sealed):
    """A set of permitted accesses. Immutable; built from links, never from wishes.

    `data` and `tool` are None where no link has named any domain: then every access is open. `json()` says the same as
    the caveats of one link would.
    """

    _instead = "send capability.json()"
    __slots__ = (
        "audiences", "budget", "data", "expires_at", "fresh", "not_before", "own", "task", "tool", "torn", "uses", "where",
    )  # fmt: skip

    data: RightsMap | None
    tool: CallMap | None
    where: Mapping[str, Constraint]
    expires_at: int | None  # seconds since the epoch
    not_before: int | None
    audiences: Names | None
    task: str | None
    torn: bool  # two tasks that do not lie on one path
    own: tuple[Caveat, ...]  # caveats of an embedding project
    uses: int | None  # the smallest allowance of the chain; what is left of it the ledger knows
    budget: Mapping[str, int]
    fresh: int | None  # seconds

    def __init__(
        self,
        data: RightsMap | None = None,
        tool: CallMap | None = None,
        where: Mapping[str, Constraint] = MappingProxyType({}),
        expires_at: int | None = None,
        not_before: int | None = None,
        audiences: Names | None = None,
        task: str | None = None,
        torn: bool = False,
        own: tuple[Caveat, ...] = (),
        uses: int | None = None,
        budget: Mapping[str, int] = MappingProxyType({}),
        fresh: int | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "data", None if data is None else _view(data))
        put(self, "tool", None if tool is None else _view(tool))
        put(self, "where", _view(where))
        put(self, "expires_at", expires_at)
        put(self, "not_before", not_before)
        put(self, "audiences", audiences)
        put(self, "task", task)
        put(self, "torn", torn)
        put(self, "own", own)
        put(self, "uses", uses)
        put(self, "budget", _view(budget))
        put(self, "fresh", fresh)

    @classmethod
    def of_link(cls, link: Link) -> Capability:
        """What one link permits."""
        data: dict[str, Any] = {}
        tool: CallMap | None = None
        stated: dict[str, Any] = {}
        own: list[Caveat] = []
        domains = link.domains
        for caveat in link.caveats:
            if ":" in caveat.key:
                own.append(caveat)
            elif caveat.domain == "data":
                data[caveat.key] = caveat.value
            elif caveat.key == "tools":
                tool = calls_of(caveat.rules)  # type: ignore[attr-defined]
            else:
                stated[caveat.key] = caveat.rules if caveat.key == "where" else caveat.value  # type: ignore[attr-defined]
        audiences = stated.get("aud")
        return cls(
            rights_of(data) if "data" in domains else {} if domains else None,
            (tool if tool is not None else {"*": FREE})
            if "tool" in domains
            else {}
            if domains
            else None,
            stated.get("where", {}),
            stated.get("exp"),
            stated.get("nbf"),
            None if audiences is None else frozenset(audiences),
            stated.get("task"),
            own=tuple(own),
            uses=stated.get("uses"),
            budget=stated.get("budget", {}),
            fresh=stated.get("fresh"),
        )

    @classmethod
    def of(
        cls, links: Iterable[Link], task: str | None = None, audience: str | None = None
    ) -> Capability:
        """What all `links` permit together, with the task and audience that a root record states."""
        held = cls(task=task, audiences=None if audience is None else frozenset((audience,)))
        for link in links:
            held = held.meet(cls.of_link(link))
        return held

    @property
    def nothing(self) -> bool:
        """Does it permit no access at all, whatever the time?"""
        return (
            self.torn
            or (self.data is not None and not self.data and not self.tool)
            or NOTHING in self.where.values()
            or self.audiences == frozenset()
        )

    def meet(self, other: Capability) -> Capability:
        """The capability that permits exactly what both permit."""
        task, torn = self.task, self.torn or other.torn
        if task is None or (other.task is not None and names.at_or_below(other.task, task)):
            task = other.task if other.task is not None else task
        elif other.task is not None and not names.at_or_below(task, other.task):
            torn = True
        if self.data is None or self.tool is None:
            data, tool = other.data, other.tool
        elif other.data is None or other.tool is None:
            data, tool = self.data, self.tool
        else:
            # Chains repeat themselves, and what meets its equal stays.
            data, tool = self.data, self.tool
            if data != other.data:
                data = patterns.meet(data, other.data, NO_RIGHTS, both_rights)
            if tool != other.tool:
                tool = patterns.meet(tool, other.tool, None, both_calls)
        where = dict(self.where)
        for attribute, constraint in other.where.items():
            where[attribute] = constraints.meet(
                where.get(attribute, constraints.ANYTHING), constraint
            )
        audiences = other.audiences if self.audiences is None else self.audiences
        return Capability(
            data,
            tool,
            where,
            _bound(min, self.expires_at, other.expires_at),
            _bound(max, self.not_before, other.not_before),
            audiences if other.audiences is None or audiences is None else audiences & other.audiences,
            task,
            torn,
            _both_own(self.own, other.own),
            _bound(min, self.uses, other.uses),
            {unit: min(budget[unit] for budget in (self.budget, other.budget) if unit in budget)
             for unit in (*self.budget, *other.budget)} if self.budget or other.budget else {},
            _bound(min, self.fresh, other.fresh),
        )  # fmt: skip

    def covers(self, other: Capability) -> bool:
        """Does this permit all that `other` permits?"""
        return self.meet(other) == other

    def prohibits(self, access: Access, situation: Situation | None = None) -> Reason | None:
        """Why `access` is prohibited, or None. Without a `situation`, time and audience are not looked at."""
        if situation is not None:
            if self.expires_at is not None and situation.now >= self.expires_at + situation.leeway:
                return Reason("expired", f"expired at {spelled_time(self.expires_at)}")
            if self.not_before is not None and situation.now < self.not_before - situation.leeway:
                return Reason("not_yet_valid", f"not valid before {spelled_time(self.not_before)}")
            if self.audiences is not None and situation.audiences.isdisjoint(self.audiences):
                return Reason("wrong_audience", f"addressed to {spelled(sorted(self.audiences))}")
            if self.fresh is not None:
                reason = not_fresh(self.fresh, situation)
                if reason is not None:
                    return reason
        if self.budget:
            reason = cost_unstated(self.budget, access)
            if reason is not None:
                return reason
        if self.torn:
            return Reason("task", "its tasks do not lie on one path")
        for attribute, constraint in self.where.items():
            reason = attribute_prohibited(attribute, constraint, access)
            if reason is not None:
                return reason
        if self.data is not None and self.tool is not None:
            reason = self._domains_prohibit(self.data, self.tool, access)
            if reason is not None:
                return reason
        return prohibited(self.own, access, situation or Situation(0)) if self.own else None

    def _domains_prohibit(self, data: RightsMap, tool: CallMap, access: Access) -> Reason | None:
        if access.table is not None:
            rights = data.get(access.table)  # an exact entry, most often
            operations, columns = rights or patterns.decided(data, access.table, NO_RIGHTS)
            if access.operation not in operations and operations != ANY:
                code = "operation" if operations else "table"
                return Reason(code, f"{access.operation} on table {access.table} is not permitted")
            if columns is not None and (
                access.columns is None
                or (columns != ANY and not columns.issuperset(access.columns))
            ):
                return Reason(
                    "column",
                    f"columns of table {access.table} are restricted to {spelled(sorted(columns))}",
                )
        if access.tool is not None:
            rule = patterns.decided(tool, access.tool, None)
            if rule is None:
                return Reason("tool", f"tool {access.tool} is not permitted")
            return call_prohibited(rule, access) if rule else None
        if access.table is None:
            return Reason("domain", "no table or tool is stated")
        return None

    def json(self) -> dict[str, Any]:
        """The caveats of one link that would permit the same; without what the root record alone can say."""
        made: dict[str, Any] = {}
        if self.torn:
            made["tables"] = []  # nothing
        elif self.data is not None and self.tool is not None:
            if self.data or not self.tool:
                made.update(spelled_rights(self.data))
            if self.tool:
                made["tools"] = spelled_calls(self.tool)
        if self.where:
            made["where"] = {
                attribute: constraint.json() for attribute, constraint in sorted(self.where.items())
            }
        bounds = {
            "exp": self.expires_at,
            "nbf": self.not_before,
            "task": self.task,
            "uses": self.uses,
            "fresh": self.fresh,
        }
        for key, bound in bounds.items():
            if bound is not None:
                made[key] = bound
        if self.budget:
            made["budget"] = dict(sorted(self.budget.items()))
        if self.audiences is not None:
            made["aud"] = sorted(self.audiences)
        for caveat in self.own:
            made.setdefault(caveat.key, caveat.value)
        return made

    def _parts(self) -> tuple[Any, ...]:
        own = {(caveat.key, encode_json({"": caveat.value})) for caveat in self.own}
        return (
            self.data, self.tool, self.where, self.expires_at, self.not_before, self.audiences, self.task, own,
            self.uses, self.budget, self.fresh,
        )  # fmt: skip

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Capability):
            return NotImplemented
        if self.nothing or other.nothing:
            return self.nothing and other.nothing
        return self._parts() == other._parts()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Capability {'nothing' if self.nothing else spelled(self.json())}>"


def _bound(choose: Any, one: int | None, two: int | None) -> int | None:
    if one is None or two is None:
        return two if one is None else one
    return int(choose(one, two))


def _both_own(one: tuple[Caveat, ...], two: tuple[Caveat, ...]) -> tuple[Caveat, ...]:
    """Own caveats of both, without those that another one makes superfluous."""
    kept = list(one)
    for caveat in two:
        for at, other in enumerate(kept):
            if other.key != caveat.key:
                continue
            merged = _merged(caveat, other)
            if merged is not None:
                kept[at] = merged
                break
        else:
            kept.append(caveat)
    return tuple(kept)


def covers(one: Caveat, two: Caveat) -> bool:
    """Does `one` say that it covers `two`? An embedder's answer that is none is no."""
    try:
        return one.covers(two) is True
    except Exception:  # keeping both, or calling it widening, is always safe
        return False


def _merged(one: Caveat, two: Caveat) -> Caveat | None:
    if covers(one, two):
        return two
    if covers(two, one):
        return one
    try:
        merged = two.meet(one)
    except Exception:  # the same
        return None
    return merged if isinstance(merged, Caveat) else None


def spelled_rights(rights: RightsMap) -> dict[str, Any]:
    """The data caveats that state the map: `tables` and `operations` where they say it all, else `allow`; `columns`."""
    columns = {
        key: sorted(value.columns)
        for key, value in sorted(rights.items())
        if value.columns is not None
    }
    kinds = {value.operations for value in rights.values()}
    made: dict[str, Any]
    if not rights:
        made = {"tables": []}
    elif len(kinds) == 1 and kinds != {frozenset()}:
        made = {"tables": _widest(rights), "operations": sorted(kinds.pop())}
    else:
        made = {"allow": {key: sorted(value.operations) for key, value in sorted(rights.items())}}
    return made | ({"columns": columns} if columns else {})


def _widest(entries: Mapping[str, Any]) -> list[str]:
    """The patterns of a map that lie below no other."""
    return sorted(
        key
        for key in entries
        if not any(wider != key and wider in entries for wider in patterns.wider(key))
    )


def spelled_calls(calls: CallMap) -> dict[str, Any]:
    """The `tools` caveat that states the map. A pattern without any call is spelled with an argument that none satisfies."""
    wall: dict[str, Any] = {"_": {"in": []}}
    return {
        key: wall if call is None else _spelled_call(call) for key, call in sorted(calls.items())
    }


def _spelled_call(call: Mapping[str, Argument]) -> dict[str, Any]:
    return {
        argument: constraint.json() | ({"optional": True} if optional else {})
        for argument, (constraint, optional) in sorted(call.items())
    }
