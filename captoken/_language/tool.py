"""What a link says of tools: one caveat, and the map of calls that it is held as.

At each tool pattern, which arguments. In the map the most specific entry decides (spec, "Caveats",
"Capability").

An example: `{"*": {}, "mail.*": {"to": {"in": ["ops"]}}}`. Any tool can be called with any
arguments. The tools below `mail` take only the argument `to`, and only with the value `ops`. For
`mail.send` the entry `mail.*` decides, and `*` is not looked at.

These caveats compare arguments as the access states them. They do not run the tool, and they do not
know what it does with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from msgspec.structs import force_setattr

from captoken._format import names
from captoken._format.spelling import named, named_all, spelled
from captoken._language import constraints, patterns
from captoken._language.access import Access
from captoken._language.constraints import NOTHING, Constraint, looked_at
from captoken._language.failing import argument_failed, unknown_argument
from captoken._language.kinds import BuiltIn, Caveat, Excess, HeldAt, Looked, Situation
from captoken._language.reasons import Reason
from captoken._language.values import an_object

# What an argument's value satisfies, and whether it may be absent.
Argument: TypeAlias = tuple[Constraint, bool]
Arguments: TypeAlias = Mapping[str, Argument]

# What holds at a tool: None is nothing, FREE leaves the arguments free, anything else is a closed
# world of arguments. A closed world without arguments is CLOSED, since {} is taken.
Call: TypeAlias = Arguments | None
# FREE is the empty map, and so is false in a condition. That is why the code below asks `if rule`
# only after it has asked about None.
FREE: Arguments = MappingProxyType({})
# The name `_` has no meaning of its own. The argument may be absent, and if it is stated it
# satisfies nothing. So it must be absent, like all that are not named.
CLOSED: Arguments = MappingProxyType({"_": (NOTHING, True)})
CallMap: TypeAlias = Mapping[str, Call]


def _tools(given: Any, now: Callable[[], int], held: HeldAt) -> Any:
    """The value for the keyword `tools`: as it was given, each `max` alone completed (spec 13.6).

    By what is held for the argument, at the entry that decides at the pattern. Raises ValueError
    for a negative `max` alone; what else may be wrong, `Tools` says.
    """
    if not isinstance(given, Mapping):
        return given
    before = held("tools")
    calls: CallMap = before.value if isinstance(before, ToolCalls) else {}
    made: dict[Any, Any] = {}
    for pattern, arguments in given.items():
        if type(pattern) is not str or not isinstance(arguments, Mapping):
            made[pattern] = arguments
            continue
        rule: Call = patterns.decided(calls, pattern, None)
        made[pattern] = {
            argument: constraints.completed(constraint, _constraint_of(rule, argument))
            for argument, constraint in arguments.items()
        }
    return made


def _constraint_of(rule: Call, argument: Any) -> Constraint:
    """What a call says of an argument; ANYTHING where it says nothing."""
    constraint, _ = (rule or {}).get(argument, (constraints.ANYTHING, True))
    return constraint


# --- the caveat -----------------------------------------------------------------------------------


class Tools(BuiltIn, frozen=True):
    """The most specific pattern that matches the tool is satisfied; no match prohibits.

    `{}` leaves the arguments free. Otherwise a closed world: arguments that are not named are
    absent, the named ones are present (or `"optional": true`) and satisfied. Presence is asked
    because a server has defaults of its own.

    On the wire: `"tools": {"search": {}, "read": {"file": {"path": ["docs"]}}}`. An empty object
    permits no tool.

    It asks for the tool and its arguments. It prohibits with the code `tool` if no entry matches.
    It prohibits with `argument` if the entry that decides is not satisfied: an argument is not
    named, is missing, or has another value (spec, 15.5).

    Two of them meet at each tool in the calls that both permit. An argument that both name must
    satisfy both constraints. Writers name it with the keyword `tools`, and complete a `max` alone.

    It does not check that the tool exists or that an argument means what its name says. An entry
    `{}` checks no argument at all. To permit a call without arguments only, an entry has to name
    one that nothing satisfies: `{"_": {"in": [], "optional": true}}`.
    """

    value: Any
    rules: Any = None  # pattern to arguments
    key = "tools"
    domain = "tool"
    keywords = MappingProxyType({"tools": _tools})

    def __post_init__(self) -> None:
        """Read each rule once, so that no access has to. Raises TypeError or ValueError.

        An empty object is legal: it permits no tool (spec, 17.5).
        """
        like = ', like {"search": {}}, which leaves its arguments free'
        stated = an_object(self.value, "tools", like)
        rules = {}
        for pattern, arguments in stated.items():
            # The pattern is checked before its rule, so that the first mistake is the one told.
            name = names.pattern(pattern, "tool")
            rules[name] = _read(arguments)
        force_setattr(self, "rules", rules)

    def prohibits(self, access: Access, situation: Situation) -> Reason | None:
        """The entry that decides must be satisfied; entries that are wider do not count.

        An empty rule leaves the arguments free, so nothing more is asked.
        """
        rule: Call = patterns.decided(self.rules, access.tool or "", None)
        if rule is None:
            listed = spelled(sorted(self.rules))
            return Reason("tool", f"tool {access.tool} is not among {listed}")
        return _call_prohibited(rule, access) if rule else None

    def looks(self, access: Access) -> Iterable[Looked]:
        """Each constraint of the entry that decides, at the argument, where that is stated."""
        if access.tool is None:
            return ()
        rule: Call = patterns.decided(self.rules, access.tool, None)
        stated = patterns.decided(self.value, access.tool, {})
        return looked_at(
            ((name, constraint) for name, (constraint, _) in (rule or FREE).items()),
            stated,
            access.arguments or {},
        )

    def held(self) -> ToolCalls:
        """The same map with each call in normal form, and then the map in normal form.

        Both steps keep what is permitted. The first drops arguments that nothing satisfies; the
        second drops entries that repeat a wider one. Maps that permit the same calls so become
        equal.
        """
        calls: dict[str, Call] = {}
        for pattern, rule in self.rules.items():
            # An empty rule is no closed world, and stays as it is.
            calls[pattern] = _normal(rule) if rule else FREE
        return ToolCalls(patterns.normal(calls, None))

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        """One line for each pattern, in their order: `tool search, with any arguments`.

        Entries are not compared with each other: a wider one may stand beside a narrower one.
        """
        for pattern, rule in sorted(self.rules.items()):
            yield f"tool {named(pattern)}, with {_in_words(rule)}"
        if not self.rules:
            yield "no tool"


def _read(value: Any) -> dict[str, Argument]:
    """The arguments that a rule states. Raises TypeError or ValueError.

    `optional` stands beside the kind of the constraint, so it is taken out before the rest is read.
    Only `true` is accepted: `false` would be a second spelling of leaving it out. What remains must
    be a constraint, so an unknown kind makes the link unreadable and never passes unasked (spec,
    13.4).
    """
    made = {}
    for argument, constraint in an_object(value, "arguments", ": {} leaves them free").items():
        names.free_name(argument, "argument")
        given = an_object(
            constraint,
            f"the constraint on {argument}",
            ', like {"in": [...]}',
        )
        # `stated` is a copy, so the value of the caveat stays as it was on the wire.
        stated = dict(given)
        optional = stated.pop("optional", None)
        if optional is not None and optional is not True:
            raise ValueError('"optional" is true or left out')

        rest = constraints.read_constraint(stated)
        made[argument] = (rest, optional is True)
    return made


def _in_words(rule: Arguments) -> str:
    """The arguments of a rule for people, in their order.

    `to one of "ops", "sales"; urgent anything (optional)`: with a semicolon between two, since a
    list of values has commas.
    """
    if not rule:
        return "any arguments"
    parts = []
    for argument, (constraint, optional) in sorted(rule.items()):
        if optional and constraint == NOTHING:
            continue  # it must be absent, as all that are not named
        may_miss = " (optional)" if optional else ""
        parts.append(f"{named(argument)} {constraint.words()}{may_miss}")
    return "; ".join(parts) or "no arguments"


def _call_prohibited(rule: Arguments, access: Access) -> Reason | None:
    """Why the arguments of `access` do not satisfy a closed world of arguments, or None.

    First it looks for an argument that the rule does not name. A server may give a meaning to any
    argument, so one that nobody constrained cannot pass.

    Then each named argument is asked. One that is missing prohibits unless it is optional: the
    server's own default for it might not satisfy the constraint. An optional one that is stated
    must satisfy it all the same.
    """
    stated = access.arguments or {}
    for argument in stated:
        if argument not in rule:
            return unknown_argument(argument, access.tool, rule)

    for argument, (constraint, optional) in rule.items():
        if argument in stated:
            if constraint.accepts(stated[argument]):
                continue
            # Named to keep it out, as `_` is where no argument is permitted.
            if optional and constraint == NOTHING:
                return unknown_argument(argument, access.tool, rule)
        elif optional:
            continue
        return argument_failed(argument, access.tool, constraint, stated)
    return None


# --- what it is held as ---------------------------------------------------------------------------


class ToolCalls(BuiltIn, frozen=True):
    """All that is said of tools, as one map: pattern to call, in normal form.

    It has no key on the wire: a capability holds it for the tool domain.

    The invariant: an access to a tool is permitted here if and only if every `tools` caveat that
    was met permits it. A tool that no entry matches has no permitted call.
    """

    key = "tool"
    domain = "tool"

    def prohibits(self, access: Access, situation: Situation | None) -> Reason | None:
        """The entry that decides, as for the caveat.

        An entry None is a wall below a wider entry that permits something. FREE is empty and asks
        no more. Any other is a closed world and is asked.
        """
        rule: Call = patterns.decided(self.value, access.tool or "", None)
        if rule is None:
            return Reason("tool", f"tool {access.tool} is not permitted")
        return _call_prohibited(rule, access) if rule else None

    @property
    def is_nothing(self) -> bool:
        """Is the map empty?

        In normal form a wall only stands below an entry that permits something.
        """
        return not self.value

    def meet(self, other: Any) -> ToolCalls:
        """At each pattern of either, the calls that both permit there (spec, 19.4).

        An example: `{"*": {}}` and `{"read": {"file": {"path": ["docs"]}}}` meet in the second. At
        `read` the first leaves all free, so the second decides. At `*` the second permits nothing.

        It is exact for the reason that holds for every map of patterns. Patterns are nested or
        disjoint, so at each name the most specific key of both maps has what both say there.
        """
        if self.value == other.value:  # chains repeat themselves
            return self
        both = patterns.meet(
            self.value,
            other.value,
            None,
            _both,
        )
        return ToolCalls(both)

    def stated(self) -> dict[str, Any]:
        """The caveat that says the same, in the order of its patterns.

        Walls are spelled out, since a wider entry would decide where one was left out (spec, 19.8).
        Read again, it gives an equal map.
        """
        calls = {pattern: _spelled(call) for pattern, call in sorted(self.value.items())}
        return {"tools": calls}

    def beyond(self, asked: Mapping[str, Any]) -> Iterator[Excess]:
        """Each pattern is held, and wherever it is, its arguments are among those permitted there.

        An argument that is constrained and left out would be free: that is more, too.

        An example: held is `{"read": {"file": {"path": ["docs"]}}}`, and `{"read": {}}` is asked
        for. The meet at `read` is what is held, and that is not what was asked for. So `read` is in
        excess.

        It compares at the pattern and at every entry of either map below it. Between those nothing
        changes. Where nothing is held it passes over the entry, so one may ask for `*` and hold
        only some tools. A pattern with nothing held at or below it is in excess (spec, 23.8).

        This is a check for the writer. A link that got past it would still gain nothing, for the
        links before are asked too.
        """
        wish: Tools = asked["tools"]
        calls: CallMap = self.value
        wishes: CallMap = wish.held().value  # in normal form, as what is held
        excess: dict[str, Call] = {}
        left: dict[str, Call] = {}
        for pattern in wish.value:
            is_found = False
            places = {
                *patterns.within(calls, pattern),
                *patterns.within(wishes, pattern),
            }
            for key in sorted(places):
                have = patterns.decided(calls, key, None)
                wanted = patterns.decided(wishes, key, None)
                # Walls are kept in `left` too: below a wider entry they take out what is not held.
                left[key] = _both(have, wanted)
                if have is None:
                    continue
                is_found = True
                if left[key] != wanted:
                    excess[key] = wanted
            if not is_found:
                excess[pattern] = patterns.decided(wishes, pattern, None)
        if not excess:
            return

        first = min(excess)
        rest = ToolCalls(patterns.normal(left, None))
        yield Excess(
            "tools",
            wish.value,
            self.stated()["tools"],
            ToolCalls(excess).stated()["tools"],
            {} if rest.is_nothing else rest.stated(),
            cause=_cause(first, patterns.decided(calls, first, None), excess[first]),
        )


def _cause(tool: str, held: Call, wanted: Call) -> str:
    """Why a call that is asked for is more than the one held, for the writer of it.

    Names one argument, or all that were left out, and says what to write. Empty where no call is
    held, or none is wanted: then there is no argument to name.
    """
    if not held or wanted is None:
        return ""
    of_tool = f"of tool {named(tool)}"

    # An argument that is constrained and not named: free, if all are; else absent, which only an
    # optional one may be.
    left_out = {
        argument: rule
        for argument, rule in held.items()
        if argument not in wanted and not (wanted and rule[1])
    }
    if held is not CLOSED and left_out:
        which = "argument" if len(left_out) == 1 else "arguments"
        those = f"{which} {named_all(left_out)} {of_tool}"
        return f"constrained, and left out: {those}; write {spelled(_spelled(left_out))}"

    for argument, (constraint, optional) in sorted(wanted.items()):
        have, may_miss = held.get(argument, _UNNAMED)
        if have == NOTHING:
            return f"no argument {named(argument)} {of_tool} is held: leave it out"
        if optional and not may_miss:
            return f"argument {named(argument)} {of_tool} must be present: it is not optional"
        if have.meet(constraint) != constraint:
            held_to = spelled(have.json())
            return f"argument {named(argument)} {of_tool} is held to {held_to}"
    return ""


def _normal(arguments: Arguments) -> Call:
    """A closed world in normal form.

    An argument that nothing satisfies is absent; where it must be present, nothing is permitted.

    Two examples. `{"a": {"any": true}, "b": {"in": [], "optional": true}}` permits the same as
    `{"a": {"any": true}}`: in both, `b` has to be absent. And `{"b": {"in": []}}` permits no call,
    since `b` must be present with a value that does not exist.

    If no argument remains, the result is CLOSED and not the empty map. The empty map would leave
    the arguments free, which is the opposite.
    """
    kept = {}
    for argument, (constraint, optional) in arguments.items():
        if constraint != NOTHING:
            kept[argument] = (constraint, optional)
        elif not optional:
            return None
        # Else it is optional and never satisfied: absent, like all that are not named.
    return MappingProxyType(kept) if kept else CLOSED


def _both(one: Call, two: Call) -> Call:
    """The calls that both permit.

    An argument that only one of two closed worlds names must be absent.

    The order of the questions matters. Nothing meets anything in nothing. Free arguments ask
    nothing, so the other call is the answer; if both are free, so is the result. Only then are
    there two closed worlds to compare.

    An example: one world has `a` and an optional `b`, the other has `a` alone. In the second `b`
    must be absent. So `b` meets a constraint that nothing satisfies, and the normal form drops it.
    Had the first asked for `b`, no call could satisfy both, and nothing is left.

    An argument may be absent only if both worlds let it be. So presence is never lost by a meet.
    """
    if one is None or two is None:
        return None
    # An empty call is FREE. Of two such, `or` gives the second, which is empty as well.
    if not one or not two:
        return one or two

    made: dict[str, Argument] = {}
    for argument in {**one, **two}:
        mine, may_miss_mine = one.get(argument, _UNNAMED)
        its, may_miss_its = two.get(argument, _UNNAMED)
        both = mine.meet(its)
        made[argument] = (both, may_miss_mine and may_miss_its)
    return _normal(made)


# An argument that a closed world does not name is absent.
_UNNAMED: Argument = (NOTHING, True)


def _spelled(call: Call) -> dict[str, Any]:
    """A call as the caveat spells it; nothing is an argument that none satisfies.

    The map has None for nothing, but the wire has no such word. An argument that must be present
    and that no value satisfies permits no call, so it says the same. CLOSED is spelled like any
    other world.
    """
    if call is None:
        return {"_": {"in": []}}

    made = {}
    for argument, (constraint, optional) in sorted(call.items()):
        spelled_out = constraint.json()
        # False is not written: leaving it out says so already (spec, 13.4).
        if optional:
            spelled_out["optional"] = True
        made[argument] = spelled_out
    return made
