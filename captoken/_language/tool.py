"""What a link says of tools: one caveat (spec, "Caveats").

At each tool pattern, which arguments. The most specific entry decides. What several of them say
together is a map of calls, in `calls.py`: for writers and for people.

An example: `{"*": {}, "mail.*": {"to": {"in": ["ops"]}}}`. Any tool can be called with any
arguments. The tools below `mail` take only the argument `to`, and only with the value `ops`. For
`mail.send` the entry `mail.*` decides, and `*` is not looked at.

These caveats compare arguments as the access states them. They do not run the tool, and they do not
know what it does with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from msgspec.structs import force_setattr

from captoken._format import names
from captoken._format.spelling import named, spelled
from captoken._language import constraints, patterns
from captoken._language.access import Access
from captoken._language.constraints import (
    FREE,
    NOTHING,
    Argument,
    Arguments,
    Call,
    CallMap,
    Constraint,
    first_failing,
    looked_at,
)
from captoken._language.kinds import BuiltIn, Caveat, Looked, LookUp, Situation
from captoken._language.reasons import Reason
from captoken._language.values import an_object


def _tools(given: Any, now: Callable[[], int], look_up: LookUp) -> Any:
    """The value for the keyword `tools`: as it was given, each `max` alone completed (spec 13.6).

    By what is held for the argument, at the entry that decides at the pattern. Raises ValueError
    for a negative `max` alone, and TypeError, with what to write, for names or values alone. What
    else may be wrong, `Tools` says.
    """
    from captoken._language.failing import completed_or_refused, no_rules  # words

    if not isinstance(given, Mapping):
        raise no_rules(given)
    before = look_up("tools")
    calls: CallMap = before.value if before is not None else {}
    made: dict[Any, Any] = {}
    for pattern, arguments in given.items():
        if type(pattern) is not str or not isinstance(arguments, Mapping):
            made[pattern] = arguments
            continue
        rule: Call = patterns.decided(calls, pattern, None)
        made[pattern] = {
            argument: completed_or_refused(constraint, _constraint_of(rule, argument), argument)
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

    On the wire: `"tools": {"search": {}, "read": {"file": {"path": ["/docs"]}}}`. An empty object
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
        stated = access.arguments or {}
        argument = first_failing(rule, stated) if rule else None
        if argument is None:
            return None
        from captoken._language.failing import call_failed  # words

        return call_failed(argument, access.tool, rule, stated)

    def looks(self, access: Access) -> Iterable[Looked]:
        if access.tool is None:
            return ()
        rule: Call = patterns.decided(self.rules, access.tool, None)
        stated = patterns.decided(self.value, access.tool, {})
        return looked_at(
            ((name, constraint) for name, (constraint, _) in (rule or FREE).items()),
            stated,
            access.arguments or {},
        )

    # The methods below are for writers and people. No verifier calls them.

    def normalized(self) -> BuiltIn:
        """The same map with each call in normal form, and then the map in normal form.

        Both steps keep what is permitted. The first drops arguments that nothing satisfies; the
        second drops entries that repeat a wider one. Maps that permit the same calls so become
        equal.
        """
        from captoken._language.calls import ToolCalls, normal_call

        calls: dict[str, Call] = {}
        for pattern, rule in self.rules.items():
            # An empty rule is no closed world, and stays as it is.
            calls[pattern] = normal_call(rule) if rule else FREE
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
            raise ValueError('"optional" must be true or left out')

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
