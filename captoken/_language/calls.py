"""What the caveat of tools is held as: one map of calls, and what a new link asks for beyond it.

At each tool pattern, which arguments: in the map the most specific entry decides (spec,
"Capability"). It is for what needs the whole: what a token can do, whether a narrowing asks for too
much, and what a clamp leaves. No decision rests on it: a verifier asks each caveat of each link
(24.23).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from captoken._format.spelling import named, named_all, spelled
from captoken._language import patterns
from captoken._language.access import Access
from captoken._language.constraints import (
    CLOSED,
    NOTHING,
    Argument,
    Arguments,
    Call,
    CallMap,
    first_failing,
)
from captoken._language.failing import call_failed
from captoken._language.kinds import BuiltIn, Excess, Situation
from captoken._language.reasons import Reason


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
        stated = access.arguments or {}
        argument = first_failing(rule, stated) if rule else None
        return None if argument is None else call_failed(argument, access.tool, rule, stated)

    @property
    def is_nothing(self) -> bool:
        """Is the map empty?

        In normal form a wall only stands below an entry that permits something.
        """
        return not self.value

    def meet(self, other: Any) -> ToolCalls:
        """At each pattern of either, the calls that both permit there (spec, 19.4).

        An example: `{"*": {}}` and `{"read": {"file": {"path": ["/docs"]}}}` meet in the second. At
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

        An example: held is `{"read": {"file": {"path": ["/docs"]}}}`, and `{"read": {}}` is asked
        for. The meet at `read` is what is held, and that is not what was asked for. So `read` is in
        excess.

        It compares at the pattern and at every entry of either map below it. Between those nothing
        changes. Where nothing is held it passes over the entry, so one may ask for `*` and hold
        only some tools. A pattern with nothing held at or below it is in excess (spec, 23.8).

        This is a check for the writer. A link that got past it would still gain nothing, for the
        links before are asked too.
        """
        wish: BuiltIn = asked["tools"]
        calls: CallMap = self.value
        wishes: CallMap = wish.normalized().value  # in normal form, as what is held
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
        return (
            f"the token restricts these, and you left them out: {those}; write "
            f"{spelled(_spelled(left_out))}"
        )

    for argument, (constraint, optional) in sorted(wanted.items()):
        have, may_miss = held.get(argument, _UNNAMED)
        if have == NOTHING:
            return f"the token permits no argument {named(argument)} {of_tool}: leave it out"
        if optional and not may_miss:
            return f"argument {named(argument)} {of_tool} must be present: it is not optional"
        if have.meet(constraint) != constraint:
            held_to = spelled(have.json())
            return f"the token restricts argument {named(argument)} {of_tool} to {held_to}"
    return ""


def normal_call(arguments: Arguments) -> Call:
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
    return normal_call(made)


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
