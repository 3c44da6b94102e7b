"""What a link says of tools: one caveat, and the map of calls that it is held as.

At each tool pattern, which arguments. In the map the most specific entry decides (spec, "Caveats",
"Capability").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from msgspec.structs import force_setattr

from captoken._format import names
from captoken._format.spelling import named, spelled
from captoken._language import constraints, patterns
from captoken._language.access import Access
from captoken._language.constraints import NOTHING, Constraint
from captoken._language.kinds import BuiltIn, Caveat, Excess, Situation
from captoken._language.reasons import Reason
from captoken._language.values import an_object

# What an argument's value satisfies, and whether it may be absent.
Argument: TypeAlias = tuple[Constraint, bool]
Arguments: TypeAlias = Mapping[str, Argument]

# What holds at a tool: None is nothing, FREE leaves the arguments free, anything else is a closed
# world of arguments. A closed world without arguments is CLOSED, since {} is taken.
Call: TypeAlias = Arguments | None
FREE: Arguments = MappingProxyType({})
CLOSED: Arguments = MappingProxyType({"_": (NOTHING, True)})
CallMap: TypeAlias = Mapping[str, Call]


# --- the caveat -----------------------------------------------------------------------------------


class Tools(BuiltIn, frozen=True):
    """The most specific pattern that matches the tool is satisfied; no match prohibits.

    `{}` leaves the arguments free. Otherwise a closed world: arguments that are not named are
    absent, the named ones are present (or `"optional": true`) and satisfied. Presence is asked
    because a server has defaults of its own.
    """

    value: Any
    rules: Any = None  # pattern to arguments
    key = "tools"
    domain = "tool"

    def __post_init__(self) -> None:
        rules = {}
        like = ', like {"search": {}}, which leaves its arguments free'
        for pattern, arguments in an_object(self.value, "tools", like).items():
            rules[names.pattern(pattern, "tool")] = _read(arguments)
        force_setattr(self, "rules", rules)

    def prohibits(self, access: Access, situation: Situation) -> Reason | None:
        rule: Call = patterns.decided(self.rules, access.tool or "", None)
        if rule is None:
            return Reason("tool", f"tool {access.tool} is not among {spelled(sorted(self.rules))}")
        return _call_prohibited(rule, access) if rule else None

    def held(self) -> ToolCalls:
        calls = {key: _normal(rule) if rule else FREE for key, rule in self.rules.items()}
        return ToolCalls(patterns.normal(calls, None))

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        for pattern, rule in sorted(self.rules.items()):
            yield f"tool {named(pattern)}, with {_in_words(rule)}"
        if not self.rules:
            yield "no tool"


def _read(value: Any) -> dict[str, Argument]:
    """The arguments that a rule states. Raises TypeError or ValueError."""
    made = {}
    for argument, constraint in an_object(value, "arguments", ": {} leaves them free").items():
        names.free_name(argument, "argument")
        what = f"the constraint on {argument}"
        stated = dict(an_object(constraint, what, ', like {"in": [...]}'))
        optional = stated.pop("optional", None)
        if optional is not None and optional is not True:
            raise ValueError('"optional" is true or left out')
        made[argument] = (constraints.read_constraint(stated), optional is True)
    return made


def _in_words(rule: Arguments) -> str:
    if not rule:
        return "any arguments"
    parts = []
    for argument, (constraint, optional) in sorted(rule.items()):
        may_miss = " (optional)" if optional else ""
        parts.append(f"{named(argument)} {constraint.words()}{may_miss}")
    return "; ".join(parts)


def _call_prohibited(rule: Arguments, access: Access) -> Reason | None:
    """Why the arguments of `access` do not satisfy a closed world of arguments, or None."""
    stated = access.arguments or {}
    for argument in stated:
        if argument not in rule:
            text = f"argument {argument} of tool {access.tool}"
            return Reason("argument", f"{text} is not among {spelled(sorted(rule))}")
    for argument, (constraint, optional) in rule.items():
        text = ""
        if argument not in stated:
            text = "" if optional else "must be present"
        elif not constraint.accepts(stated[argument]):
            text = f"does not satisfy {spelled(constraint.json())}"
        if text:
            return Reason("argument", f"argument {argument} of tool {access.tool} {text}")
    return None


# --- what it is held as ---------------------------------------------------------------------------


class ToolCalls(BuiltIn, frozen=True):
    """All that is said of tools, as one map: pattern to call, in normal form.

    It has no key on the wire: a capability holds it for the tool domain.
    """

    key = "tool"
    domain = "tool"

    def prohibits(self, access: Access, situation: Situation | None) -> Reason | None:
        rule: Call = patterns.decided(self.value, access.tool or "", None)
        if rule is None:
            return Reason("tool", f"tool {access.tool} is not permitted")
        return _call_prohibited(rule, access) if rule else None

    @property
    def is_nothing(self) -> bool:
        return not self.value

    def meet(self, other: Any) -> ToolCalls:
        if self.value == other.value:  # chains repeat themselves
            return self
        return ToolCalls(patterns.meet(self.value, other.value, None, _both))

    def stated(self) -> dict[str, Any]:
        return {"tools": {key: _spelled(call) for key, call in sorted(self.value.items())}}

    def beyond(self, asked: Mapping[str, Any]) -> Iterator[Excess]:
        """Each pattern is held, and wherever it is, its arguments are among those permitted there.

        An argument that is constrained and left out would be free: that is more, too.
        """
        calls: CallMap = self.value
        wishes: CallMap = asked["tools"].held().value
        excess: dict[str, Call] = {}
        left: dict[str, Call] = {}
        for pattern in asked["tools"].value:
            found = False
            within = {*patterns.within(calls, pattern), *patterns.within(wishes, pattern)}
            for key in sorted(within):
                have = patterns.decided(calls, key, None)
                wanted = patterns.decided(wishes, key, None)
                left[key] = _both(have, wanted)
                if have is None:
                    continue
                found = True
                if left[key] != wanted:
                    excess[key] = wanted
            if not found:
                excess[pattern] = patterns.decided(wishes, pattern, None)
        if excess:
            too_much = ToolCalls(excess).stated()["tools"]
            held = self.stated()["tools"]
            rest = ToolCalls(patterns.normal(left, None))
            kept = {} if rest.is_nothing else rest.stated()
            yield Excess("tools", asked["tools"].value, held, too_much, kept)


def _normal(arguments: Arguments) -> Call:
    """A closed world in normal form.

    An argument that nothing satisfies is absent; where it must be present, nothing is permitted.
    """
    kept = {}
    for argument, (constraint, optional) in arguments.items():
        if constraint != NOTHING:
            kept[argument] = (constraint, optional)
        elif not optional:
            return None
    return MappingProxyType(kept) if kept else CLOSED


def _both(one: Call, two: Call) -> Call:
    """The calls that both permit.

    An argument that only one of two closed worlds names must be absent.
    """
    if one is None or two is None:
        return None
    if not one or not two:
        return one or two
    made: dict[str, Argument] = {}
    for argument in {**one, **two}:
        mine, my_optional = one.get(argument, _UNNAMED)
        its, its_optional = two.get(argument, _UNNAMED)
        made[argument] = (mine.meet(its), my_optional and its_optional)
    return _normal(made)


# An argument that a closed world does not name is absent.
_UNNAMED: Argument = (NOTHING, True)


def _spelled(call: Call) -> dict[str, Any]:
    """A call as the caveat spells it; nothing is an argument that none satisfies."""
    if call is None:
        return {"_": {"in": []}}
    made = {}
    for argument, (constraint, optional) in sorted(call.items()):
        made[argument] = constraint.json()
        if optional:
            made[argument]["optional"] = True
    return made
