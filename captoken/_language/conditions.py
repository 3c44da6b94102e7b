"""The caveats on every access, whatever its domain: facts, time, place, task, amounts, freshness.

Each is one class (spec, "Caveats"): what the others need to know of it is said here, and nowhere
else.

Those about time, place, task and freshness can be judged without an access; `asks_access` is False
for them. The others ask what the access states. All links must hold, so two caveats of one key meet
in what both permit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Any, TypeAlias

from msgspec import structs

from captoken._format import names
from captoken._format.clocks import epoch_seconds, seconds_of
from captoken._format.encoding import Integer, b64encode, decode_json, encode_json
from captoken._format.spelling import (
    named,
    named_all,
    readable_time,
    span,
    spelled,
    spelled_time,
    until,
)
from captoken._language import constraints
from captoken._language.access import Access, amount, amounts
from captoken._language.constraints import NOTHING, Constraint, looked_at
from captoken._language.kinds import (
    ASK_FOR_LESS,
    BuiltIn,
    Caveat,
    Excess,
    Looked,
    LookUp,
    Situation,
)
from captoken._language.reasons import Reason
from captoken._language.values import a_list, a_signing_key, an_integer, an_object, not_empty

Now = Callable[[], int]  # seconds since the epoch, asked for only where they are needed

_value = attrgetter("value")


def _where(given: Any, now: Now, look_up: LookUp) -> Any:
    """The value for the keyword `where`: as it was given, each `max` alone completed (spec 13.6).

    By the constraints that are held so far. Raises ValueError for a negative `max` alone, and
    TypeError, with what to write, for a value alone. What else may be wrong, `Where` says.
    """
    from captoken._language.failing import completed_or_refused  # words

    if not isinstance(given, Mapping):
        return given
    before = look_up("where")
    rules: Mapping[str, Constraint] = before.rules if isinstance(before, Where) else {}
    return {
        attribute: completed_or_refused(
            constraint, rules.get(attribute, constraints.ANYTHING), attribute
        )
        for attribute, constraint in given.items()
    }


class Where(BuiltIn, frozen=True):
    """Each attribute is stated and satisfies its constraint.

    On the wire: `"where": {"region": {"in": ["eu"]}, "amount": {"max": 100}}`, not empty.

    It asks for each attribute that it names. It prohibits with the code `attribute` if one is not
    stated, or does not satisfy its constraint (spec, 15.6). Attributes that it does not name are
    free.

    Two of them meet attribute by attribute. An attribute that only one names keeps that constraint.
    `{"max": 100}` and `{"min": 50}` meet in the range from 50 to 100. Writers name it with the
    keyword `where`, and complete a `max` alone.

    It does not check that what the access states is true. The server that builds the access answers
    for that.
    """

    value: Any
    rules: Any = None  # attribute to constraint
    key = "where"
    keywords = MappingProxyType({"where": _where})

    def __post_init__(self) -> None:
        """Read each constraint once, so that no access has to (spec, 13.1).

        What `of` makes was read before. Raises TypeError or ValueError for what is no such object.
        An empty one would say nothing, and is refused too (spec, 17.5).
        """
        if self.rules is not None:
            return
        stated = not_empty(an_object(self.value, "where"), "where")
        rules = {}
        for attribute, constraint in stated.items():
            # The name is checked before its constraint, so that the first mistake is the one told.
            name = names.free_name(attribute, "attribute")
            rules[name] = constraints.read_constraint(constraint)
        structs.force_setattr(self, "rules", rules)

    @classmethod
    def of(cls, rules: Mapping[str, Constraint]) -> Where:
        """The caveat of these constraints, in normal form.

        Sorted by attribute, so that rules that came in another order are spelled alike. Not read
        again: of urls, several links may leave more than one could list.
        """
        made = dict(sorted(rules.items()))
        return cls({attribute: rule.json() for attribute, rule in made.items()}, made)

    def prohibits(self, access: Access, situation: Situation | None) -> Reason | None:
        """An attribute that is not stated prohibits: silence must not pass a rule (spec, 15.10)."""
        stated = access.attributes
        for attribute, constraint in self.rules.items():
            if attribute not in stated or not constraint.accepts(stated[attribute]):
                from captoken._language.failing import attribute_failed  # words

                return attribute_failed(attribute, constraint, stated)
        return None

    def looks(self, access: Access) -> Iterable[Looked]:
        return looked_at(self.rules.items(), self.value, access.attributes)

    # The methods below are for writers and people. No verifier calls them.

    def normalized(self) -> Where:
        """Constraints in normal form, in order of attributes, so that equal rules compare equal."""
        return Where.of(self.rules)

    @property
    def is_nothing(self) -> bool:
        """One attribute that nothing satisfies is enough, for all of them must hold.

        It comes of a meet, or of `{"in": []}`. A range whose bounds cross is never read.
        """
        return NOTHING in self.rules.values()

    def meet(self, other: Any) -> Where:
        """The attributes of both, with both constraints where both name one.

        No attribute is dropped, so the result asks all that either asked.
        """
        rules: dict[str, Constraint] = dict(self.rules)
        for attribute, constraint in other.rules.items():
            mine = rules.get(attribute)
            # An attribute that only the other one names keeps its constraint.
            rules[attribute] = constraint if mine is None else mine.meet(constraint)
        return Where.of(rules)

    def beyond(self, asked: Mapping[str, Any]) -> Iterator[Excess]:
        """Each attribute's constraint is covered by the one held, if one is.

        The wish is covered if its meet with what is held is the wish itself. A range never equals a
        list, so a range under a list is in excess (spec, 23.9). Nothing is left if one attribute is
        left nothing.
        """
        wanted: Where = asked["where"]
        excess: dict[str, Any] = {}
        left: dict[str, Any] = {}
        for attribute, constraint in wanted.rules.items():
            # What is held says nothing of an attribute that it does not name: any wish is within.
            mine = self.rules.get(attribute, constraints.ANYTHING)
            both = mine.meet(constraint)
            left[attribute] = both
            if both != constraint:
                excess[attribute] = constraint.json()
        if not excess:
            return

        # All attributes must hold. So one that nothing satisfies leaves nothing of the others.
        rest = {} if NOTHING in left.values() else Where.of(left).stated()
        is_listed = any("in" in self.value[attribute] for attribute in excess)
        yield Excess(
            "where",
            wanted.value,
            self.value,
            excess,
            rest,
            "this value is below a list: write the whole list" if is_listed else ASK_FOR_LESS,
            cause=self._cause(min(excess)),
        )

    def _cause(self, attribute: str) -> str:
        """What is held of an attribute that is in excess, for the error."""
        return (
            f"the token restricts attribute {named(attribute)} to "
            f"{spelled(self.rules[attribute].json())}"
        )

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        """One line for each attribute, in their order: `where amount is at most 5`.

        Names that could be misread stand in quotes, and control characters are escaped.
        """
        for attribute, constraint in sorted(self.rules.items()):
            yield f"where {named(attribute)} is {constraint.words()}"


class AtMost(BuiltIn, frozen=True):
    """A caveat whose value is a bound: the smaller, the less it permits.

    Two meet in the smaller bound: what is within both is within the smaller. One covers another
    whose bound is not greater. Both answers are exact, since bounds are integers and lie in one
    order.
    """

    # The methods below are for writers and people. No verifier calls them.

    def meet(self, other: Any) -> AtMost:
        """The one with the smaller bound. Of two equal ones either will do.

        `other` is of the same class, as in every meet of two caveats of one key.
        """
        smaller: AtMost = min(self, other, key=_value)
        return smaller

    def covers(self, other: Any) -> bool:
        """Is the other's bound no greater?

        By default `covers` makes the meet and compares. Two integers are compared at once.
        """
        return bool(other.value <= self.value)

    def plainly_covers(self, other: Any) -> bool:
        return self.covers(other)

    def excess(self, wanted: Any) -> Excess:
        """The excess is the difference; what is left is the bound that is held.

        Asked only where `covers` said no, so the difference is at least 1.
        """
        too_much = wanted.value - self.value
        return Excess(
            self.key,
            wanted.value,
            self.value,
            too_much,
            self.stated(),
        )


# --- time -----------------------------------------------------------------------------------------

# How writers say a time. Each makes the value of a caveat of what was given for a keyword. The
# first alone asks `now` and `look_up`.


def _expires_in(given: Any, now: Now, look_up: LookUp) -> int:
    """At most so long from now: cut to what is held (spec, 23.11).

    As seconds, as a timedelta, or as a text with units like `5m`.

    It means "at most", so to cut it is no surprise. Raises TypeError for another type, and
    ValueError for a text that is no duration or less than a second: such a token would be dead when
    it is made.
    """
    seconds = seconds_of(given, "expires_in")
    end = now() + seconds
    before = look_up("exp")
    return end if before is None else min(end, int(before.value))


def _expires_at(given: Any, now: Now, look_up: LookUp) -> int:
    """The end as it is stated, as seconds or an aware datetime.

    Not cut to what is held: a later end than that is WideningError. Raises as `epoch_seconds`.
    """
    return epoch_seconds(given, "expires_at")


def _not_before(given: Any, now: Now, look_up: LookUp) -> int:
    """The beginning as it is stated, as seconds or an aware datetime.

    It may lie in the past. An earlier one than what is held is WideningError.
    """
    return epoch_seconds(given, "not_before")


class Expires(AtMost, frozen=True):
    """now < exp + leeway: at the second of `exp` the token has expired.

    On the wire: `"exp": 1767225600`, seconds since the epoch. It asks only for the verifier's time,
    and prohibits with the code `expired` (spec, 15.7). Leeway allows for clocks that differ.

    Two of them meet in the earlier time. The keywords are `expires_in`, which is cut to what is
    held, and `expires_at`, which is not.
    """

    key = "exp"
    asks_access = False
    plain = Integer
    keywords = MappingProxyType({"expires_in": _expires_in, "expires_at": _expires_at})

    def __post_init__(self) -> None:
        """Any integer is legal, of any sign: whether it lies in the past is asked when it is used.

        Raises TypeError for what is no integer.
        """
        an_integer(self.value, "exp")

    def prohibits(self, access: Access | None, situation: Situation) -> Reason | None:
        """No reason before the end, and before the leeway behind it is over (spec, 15.7).

        The end itself is not within: at that second the token has expired.
        """
        if situation.now < self.value + situation.leeway:
            return None
        return Reason("expired", f"expired at {spelled_time(self.value)}")

    # The methods below are for writers and people. No verifier calls them.

    def excess(self, wanted: Any) -> Excess:
        """As for all bounds, with a hint at the keyword that cannot ask for too much.

        Only `expires_at` leads here, for it is not cut (spec, 23.11).
        """
        return structs.replace(
            AtMost.excess(self, wanted),
            hint=(
                "ask for an earlier time, or use expires_in=, which is cut to the token's own "
                "expiry"
            ),
        )

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        """When it ends, and how far off that is: `until 2026-01-01 00:00:00Z, 5m left`.

        `now` serves only to say this. One that has expired is shown as well.
        """
        yield f"until {until(self.value, now)}"


class NotBefore(BuiltIn, frozen=True):
    """now >= nbf - leeway.

    On the wire: `"nbf": 1767139200`, seconds since the epoch. It asks only for the verifier's time,
    and prohibits with the code `not_yet_valid` (spec, 15.8).

    Two of them meet in the later time, for that one permits less. So it is no `AtMost`. The keyword
    is `not_before`. It does not check that the time lies before `exp`: such a token never holds.
    """

    key = "nbf"
    asks_access = False
    keywords = MappingProxyType({"not_before": _not_before})

    def __post_init__(self) -> None:
        """Any integer is legal, of any sign, as with `exp`.

        Raises TypeError for what is no integer.
        """
        an_integer(self.value, "nbf")

    def prohibits(self, access: Access | None, situation: Situation) -> Reason | None:
        """No reason from that second on, or from so much leeway before it (spec, 15.8).

        The second itself is within, other than with `exp`: so one token may end where another
        begins.
        """
        if situation.now >= self.value - situation.leeway:
            return None
        return Reason("not_yet_valid", f"not valid before {spelled_time(self.value)}")

    # The methods below are for writers and people. No verifier calls them.

    def meet(self, other: Any) -> NotBefore:
        """The later of the two times.

        From then on both hold, and at no time before.
        """
        later: NotBefore = max(self, other, key=_value)
        return later

    def excess(self, wanted: Any) -> Excess:
        """The excess is how many seconds too early; what is left is the time that is held.

        So a clamp moves the beginning back to what is held.
        """
        too_early = self.value - wanted.value
        return Excess(
            "nbf",
            wanted.value,
            self.value,
            too_early,
            self.stated(),
        )

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        """When it begins, in UTC: `not before 2026-01-01 00:00:00Z`.

        Whether that time has come is not said: `now` is not looked at.
        """
        yield f"not before {readable_time(self.value)}"


# --- place and task -------------------------------------------------------------------------------


def _audience(given: Any, now: Now, look_up: LookUp) -> Any:
    """The value for the keyword `audience`: one server as a string, or several as a list.

    Checks nothing, since `Audience` does. Nothing is cut to what is held (spec, 23.10).
    """
    # A string is iterable: without this, one name would be the list of its letters.
    return [given] if type(given) is str else given


class Audience(BuiltIn, frozen=True):
    """One of the verifier's own audiences is in every `aud` of the token.

    `situation.audiences` are those that the links before have left: one of them is here.

    On the wire: `"aud": ["orders", "billing"]`, a list of names. It asks who the verifier is, and
    prohibits with the code `wrong_audience` (spec, section 16).

    Two of them meet in the names that both list. A verifier with two names needs one that is in
    every list. Two names that are in one list each will not do, so the links before narrow the
    names.

    The keyword is `audience`, for one name or several. It does not check who sends the token.
    Whether a token without any `aud` is taken is the verifier's decision, and not asked here.
    """

    key = "aud"
    plain = list[str]
    asks_access = False
    narrows_situation = True
    keywords = MappingProxyType({"audience": _audience})

    def __post_init__(self) -> None:
        """A list of names, in any order and maybe with repetitions. An empty one permits nothing.

        Raises TypeError or ValueError.
        """
        for audience in a_list(self.value, "audience"):
            # Asked of the pattern itself, since nearly all are names. Else `name` says why not.
            if type(audience) is not str or names.is_name(audience) is None:
                names.name(audience, "audience")  # raises

    def prohibits(self, access: Access | None, situation: Situation) -> Reason | None:
        """No reason if the list has one of the names that are left to the verifier (spec, 16.1).

        A verifier without names has none in any list, so it takes no token that has an `aud`.
        """
        if not situation.audiences.isdisjoint(self.value):
            return None
        return Reason("wrong_audience", f"addressed to {spelled(self.value)}")

    # The methods below are for writers and people. No verifier calls them.

    def normalized(self) -> Audience:
        """The names sorted, each once, so that lists that permit the same compare equal.

        A list that is so already makes no copy.
        """
        normal = sorted(set(self.value))
        return self if normal == self.value else Audience(normal)

    @property
    def is_nothing(self) -> bool:
        return not self.value

    def meet(self, other: Any) -> Audience:
        """The names that both list.

        There may be none. Then no server takes the token, and no later link changes that.
        """
        return Audience(sorted(set(self.value).intersection(other.value)))

    def covers(self, other: Any) -> bool:
        """Are all of the other's names in this list?

        An empty list is covered by every one: it permits nothing.
        """
        return set(self.value).issuperset(other.value)

    def excess(self, wanted: Any) -> Excess:
        """The excess are the names that are not held; what is left are the others.

        If none is left, a clamp says `nothing_left`, and writes no empty list.
        """
        too_many = sorted(set(wanted.value).difference(self.value))
        left = self.meet(wanted).stated()
        return Excess(
            "aud",
            wanted.value,
            self.value,
            too_many,
            left,
        )

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        """One line, with the names sorted: `only at billing, orders`.

        Of an empty list it says what that comes to.
        """
        yield f"only at {named_all(self.value)}" if self.value else "at no server"


class Task(BuiltIn, frozen=True):
    """The token's task is this one or below it: all of them lie on one path.

    On the wire: `"task": "report/q3"`, a task path. It asks for the token's task so far, and
    prohibits with the code `task` (spec, 16.3). If it holds, the longer of the two is the token's
    task.

    Two of them meet in the longer one, if one is at or below the other; see `TaskPath`. The keyword
    is `task`. It does not look at the access: what an access is done for is not checked against it.
    """

    key = "task"
    asks_access = False
    narrows_situation = True

    def __post_init__(self) -> None:
        """A task path: segments with slashes between, none of them empty, `.` or `..` (spec, 4.2).

        Raises TypeError or ValueError for what is none.
        """
        names.task(self.value)

    def prohibits(self, access: Access | None, situation: Situation) -> Reason | None:
        """No reason if this task and the token's so far lie on one path (spec, 16.3).

        A link may also name a task above. That is no way up: the longer one stays the token's task.
        """
        if _on_one_path(situation.task, self.value):
            return None
        return Reason("task", f"task {self.value} is neither above nor below task {situation.task}")

    # The methods below are for writers and people. No verifier calls them.

    def normalized(self) -> TaskPath:
        """As a path, which can also say that it is torn.

        One task alone never is. It may be when it meets another one.
        """
        return TaskPath(self.value)

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        """One line: `in task report/q3`.

        It is this link's task. The token's own may be longer, by another link or the root record.
        """
        yield f"in task {named(self.value)}"


def _on_one_path(one: str, two: str) -> bool:
    """Is one of two task paths the other, or below it?

    _on_one_path("q3", "q3/eu")       # True, and the other way round too
    _on_one_path("q3/eu", "q3/us")    # False: they part at the second segment
    """
    return names.at_or_below(one, two) or names.at_or_below(two, one)


class TaskPath(BuiltIn, frozen=True):
    """All tasks that were stated, the root record's too: the longest, if they lie on one path.

    A capability holds it under `task`. That is the token's task, so nothing is left to ask of an
    access; only where the tasks do not lie on one path, all is prohibited.

    Why it has to be remembered: `a` meets `b` in a torn path, and no later task can mend that.
    Without the mark the result would depend on the order of the links.
    """

    value: Any
    is_torn: bool = False
    key = "task"

    def prohibits(self, access: Access, situation: Situation | None) -> Reason | None:
        """Every access where the tasks are torn, and none where they are not.

        Which task an access serves is not asked. The server compares that with its own knowledge.
        """
        if not self.is_torn:
            return None
        return Reason("task", "its tasks are not above or below one another")

    @property
    def is_nothing(self) -> bool:
        """Torn is for good: no verifier takes such a chain, at no time and for no access."""
        return self.is_torn

    def stated(self) -> dict[str, Any]:
        """The path. A torn one is not written: what is held is nothing, and says so (19.8)."""
        return {} if self.is_torn else {"task": self.value}

    def meet(self, other: Any) -> TaskPath:
        """The longer path, and whether any two of all tasks so far lie apart.

        To compare with the longest is enough. All others lie at or above it, so what is on one path
        with it is on one path with them.
        """
        is_torn = self.is_torn or other.is_torn or not _on_one_path(self.value, other.value)
        # Where they lie apart, the first: what is apart from it is passed over (spec 19.1).
        longest = other.value if names.at_or_below(other.value, self.value) else self.value
        return TaskPath(longest, is_torn)

    def beyond(self, asked: Mapping[str, Any]) -> Iterator[Excess]:
        """It is the one held or below it; one above is cut to the one held (spec, 23.10).

        Of one that lies apart nothing is left, which an empty task says.
        """
        wanted = asked["task"].value
        if names.at_or_below(wanted, self.value):
            return

        left = self.value if names.at_or_below(self.value, wanted) else ""
        yield Excess(
            "task",
            wanted,
            self.value,
            wanted,
            {"task": left},
        )


# --- amounts, which a ledger counts (spec, "Ledger") ----------------------------------------------


class Uses(AtMost, frozen=True):
    """At most so many accesses, by this token and all below it together.

    On the wire: `"uses": 10`, an integer of 0 or more. The ledger counts, and prohibits with the
    code `budget_exhausted` (spec, section 38). So `prohibits` here has nothing to ask.

    Two of them meet in the smaller number. The keyword is `uses`. What is left of it is not known
    here, and it sets nothing aside: ten children may each be promised ten uses under a parent that
    has ten.
    """

    key = "uses"
    counts = True

    def __post_init__(self) -> None:
        """An integer from 0 to 2^53 - 1. With 0 no access passes, since each takes one use.

        Raises TypeError or ValueError. That a nonce stands beside it, the link checks (spec, 17.6).
        """
        amount(self.value, "uses")

    def prohibits(self, access: Access, situation: Situation | None) -> Reason | None:
        """Nothing: only the ledger knows how many were used.

        A verifier asks it last of all, when no caveat has prohibited the access (spec, 38.5).
        """
        return None

    # The methods below are for writers and people. No verifier calls them.

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        """One line, which says that the number is shared with all who get the token from here.

        It is what the link promises, and not what is left of it.
        """
        plural = "" if self.value == 1 else "s"
        yield f"at most {self.value} use{plural}, with all that is handed on"


class Budget(BuiltIn, frozen=True):
    """At most so much of each unit, by this token and all below it together.

    On the wire: `"budget": {"eur": 500, "rows": 10000}`, not empty. It asks for the cost in each
    unit that it names. If one is not stated it prohibits with the code `cost_unstated`. The ledger
    prohibits with `budget_exhausted` if too little is left.

    Two of them meet unit by unit in the smaller amount. The keyword is `budget`. It does not check
    that the stated cost is the real one.
    """

    key = "budget"
    counts = True

    def __post_init__(self) -> None:
        """Amounts from 0 to 2^53 - 1 by unit, at least one. Raises TypeError or ValueError.

        What a unit stands for, issuer and servers agree on: nothing here knows of currencies.
        """
        stated = not_empty(an_object(self.value, "budget"), "budget")
        units = amounts(stated, "budget")
        # The ledger counts both by unit. A unit `uses` would have the bucket of the caveat `uses`.
        if "uses" in units:
            raise ValueError("a budget cannot have the unit uses: write uses= beside it")

    def prohibits(self, access: Access, situation: Situation | None) -> Reason | None:
        """A cost that is not stated cannot be counted, so it prohibits.

        The amount is left to the ledger.
        """
        missing = [unit for unit in self.value if unit not in access.cost]
        if not missing:
            return None
        what = "it" if access.tool is None else f"tool {access.tool}"
        how = ", as in guarded_tool(..., cost=...) or Guard(..., cost=...)"
        where = "" if access.tool is None else how
        units = ", ".join(sorted(missing))
        others = sorted(access.cost.keys() - self.value.keys())
        states = f" (it states {', '.join(others)})" if others else ""
        nothing = spelled(dict.fromkeys(sorted(missing), 0))
        return Reason(
            "cost_unstated",
            f"the server did not state what {what} costs in {units}{states}; if it costs nothing, "
            f"write cost={nothing}{where}",
        )

    # The methods below are for writers and people. No verifier calls them.

    def meet(self, other: Any) -> Budget:
        """Of each unit the smaller amount; a unit that only one names is bounded by that one.

        That is the most that can be spent. The ledger counts each link by itself (spec, 38.3).
        """
        # The units of both, each with the other's amount where the other names it.
        both = {**self.value, **other.value}
        for unit, most in self.value.items():
            both[unit] = min(most, both[unit])
        return Budget(both)

    def beyond(self, asked: Mapping[str, Any]) -> Iterator[Excess]:
        """No more in any unit than any link above has (spec, 23.20).

        Compares what links promise. How much the ledger has left, nobody asks here.
        """
        wanted: Mapping[str, int] = asked["budget"].value
        excess: dict[str, int] = {}
        left: dict[str, int] = {}
        for unit, value in wanted.items():
            # A unit that is not held was never bounded: any amount of it is within.
            most = self.value.get(unit, value)
            left[unit] = min(value, most)
            if value > most:
                excess[unit] = value - most
        if excess:
            yield Excess(
                "budget",
                wanted,
                self.value,
                excess,
                {"budget": left},
            )

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        """One line for all units, sorted: `at most 500 eur, 9 rows, with all that is handed on`.

        Amounts are not converted: nothing here knows what a unit is.
        """
        units = ", ".join(f"{amount} {named(unit)}" for unit, amount in sorted(self.value.items()))
        yield f"at most {units}, with all that is handed on"


# --- marks, which a ledger keeps (spec, "Marks") --------------------------------------------------


class _Gathered(BuiltIn, frozen=True):
    """What several links say under one key, each statement by itself: as a capability holds it.

    Nothing of it meets: marks of two links are two, and each rule is asked by itself.
    """

    # The statements, as canonical JSON, sorted. A mark is its name with its definition.
    value: tuple[bytes, ...]

    def prohibits(self, access: Access, situation: Situation | None) -> Reason | None:
        """Nothing: only the ledger knows which marks are set."""
        return None

    # The methods below are for writers and people. No verifier calls them.

    def meet(self, other: Any) -> BuiltIn:
        """The statements of both. More of them only ever permit less."""
        return type(self)(tuple(sorted({*self.value, *other.value})))

    def beyond(self, asked: Mapping[str, Any]) -> Iterator[Excess]:
        """Nothing: whatever is held, a further mark or rule asks for no more."""
        return iter(())


class GatheredMarks(_Gathered, frozen=True):
    """All marks of several links."""

    key = "marks"

    def stated(self) -> dict[str, Any]:
        """By name. Of two links that give one name, the second has a number behind it."""
        made: dict[str, Any] = {}
        for statement in self.value:
            ((name, definition),) = decode_json(statement).items()
            also = 2
            while name in made:
                name, also = f"{name.partition('/')[0]}/{also}", also + 1
            made[name] = definition
        return {"marks": made}


class GatheredRules(_Gathered, frozen=True):
    """All rules of several links."""

    key = "forbid"

    def stated(self) -> dict[str, Any]:
        """In their order."""
        return {"forbid": [decode_json(statement) for statement in self.value]}


class Marks(BuiltIn, frozen=True):
    """Gives names to accesses, so that `forbid` can say what must not follow on what.

    On the wire: `"marks": {"private": {"tables": ["crm.*"]}, "outside": {"tools": ["mail.*"]}}`, an
    object of 1 to 8 names. An access that is allowed sets the marks that it is in. A ledger keeps
    them, and nothing clears them. A mark of link 0 is the task's, one of a later link that link's
    (spec, section 46).

    It prohibits nothing by itself. Two of them stand side by side: two links with one name have two
    marks. The keyword is `marks`. It does not look at what the access returns.
    """

    value: Any
    rules: Any = None  # name to Definition
    key = "marks"
    counts = True

    def __post_init__(self) -> None:
        """Read each definition once. Raises TypeError or ValueError."""
        from captoken._language.marks import read_definition  # of tokens that have marks

        like = ', like {"private": {"tables": ["crm.*"]}}'
        stated = not_empty(an_object(self.value, "marks", like), "marks")
        if len(stated) > _MOST_MARKS:
            raise ValueError(f"marks have at most {_MOST_MARKS} names, not {len(stated)}")
        rules = {
            names.name(name, "mark"): read_definition(definition, f"the mark {name}")
            for name, definition in stated.items()
        }
        structs.force_setattr(self, "rules", rules)

    def prohibits(self, access: Access, situation: Situation | None) -> Reason | None:
        """Nothing: a mark is only a name."""
        return None

    def looks(self, access: Access) -> Iterable[Looked]:
        return (pair for rule in self.rules.values() for pair in rule.looks(access))

    # The methods below are for writers and people. No verifier calls them.

    def normalized(self) -> BuiltIn:
        """Each mark by itself, so that those of several links stand side by side."""
        made = (encode_json({name: given}) for name, given in self.value.items())
        return GatheredMarks(tuple(sorted(made)))

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        """One line for each mark: `mark private: any operation on crm.*`."""
        for name, rule in sorted(self.rules.items()):
            yield f"mark {named(name)}: {rule.words()}"


class Forbid(BuiltIn, frozen=True):
    """Once every mark in `after` is set, no access in a mark of `in` is permitted.

    On the wire: `"forbid": [{"in": ["outside"], "after": ["private", "untrusted"]}]`, a list of 1
    to 16 rules, with names of marks of the same link. `unless` may name an Ed25519 key: a consent
    of that key lets one access through (spec, section 47).

    Only the ledger knows which marks are set, and prohibits with the code `forbidden_after` (spec,
    section 46). So `prohibits` has nothing to ask. The keyword is `forbid`.
    """

    value: Any
    rules: Any = None  # of each rule the names of `in` and of `after`
    unless: Any = None  # of each rule the key whose consent lets an access through, or None
    key = "forbid"
    counts = True

    def __post_init__(self) -> None:
        """Read each rule once. Raises TypeError or ValueError.

        That its names are marks of the same link, the link checks.
        """
        stated = a_list(self.value, "forbid")
        if not 1 <= len(stated) <= _MOST_RULES:
            raise ValueError(f"forbid has 1 to {_MOST_RULES} rules, not {len(stated)}")
        read = tuple(map(_read_rule, stated))
        structs.force_setattr(self, "rules", tuple(rule for rule, _ in read))
        structs.force_setattr(self, "unless", tuple(unless for _, unless in read))

    def prohibits(self, access: Access, situation: Situation | None) -> Reason | None:
        """Nothing: which marks are set, the ledger knows. It is asked last (spec, 46.6)."""
        return None

    # The methods below are for writers and people. No verifier calls them.

    def normalized(self) -> BuiltIn:
        """Each rule by itself."""
        return GatheredRules(tuple(sorted({*map(encode_json, self.value)})))

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        """One line for each rule: `nothing in outside after private and untrusted`."""
        for (closed, after), unless in zip(self.rules, self.unless, strict=True):
            names_after = map(named, dict.fromkeys(after))
            but = "" if unless is None else f", unless {b64encode(unless)} consents to the call"
            yield f"nothing in {named_all(set(closed))} after {' and '.join(names_after)}{but}"


_MOST_MARKS = 8  # of a link
_MOST_RULES = 16  # of a link


_Rule: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]


def _read_rule(value: Any) -> tuple[_Rule, bytes | None]:
    """The names in `in` and in `after` of one rule, and the key in `unless`.

    Raises TypeError or ValueError.
    """
    stated = an_object(value, "a rule of forbid", ', like {"in": ["a"], "after": ["b"]}')
    unknown = stated.keys() - {"in", "after", "unless"}
    if unknown or not {"in", "after"} <= stated.keys():
        raise ValueError("a rule of forbid has in and after, and perhaps unless")
    for key, most in (("in", _MOST_MARKS), ("after", _MOST_MARKS - 1)):
        if not 1 <= len(a_list(stated[key], key)) <= most:
            raise ValueError(f"{key} of a rule names 1 to {most} marks")
        for name in stated[key]:
            names.name(name, "mark")
    unless = a_signing_key(stated["unless"], "unless") if "unless" in stated else None
    return (tuple(stated["in"]), tuple(stated["after"])), unless


# --- consent (spec, "Consent") --------------------------------------------------------------------


class GatheredConsents(_Gathered, frozen=True):
    """What several links ask consent for."""

    key = "consent"

    def stated(self) -> dict[str, Any]:
        """In their order."""
        return {"consent": [decode_json(statement) for statement in self.value]}


class Consent(BuiltIn, frozen=True):
    """Each access in `for` needs a consent of the key `by`, to this very access, and once.

    On the wire: `"consent": [{"by": "<Ed25519 public key>", "for": {"tools": ["mail.send"]}}]`, a
    list of 1 to 4. `for` is read as a mark is: whatever is in doubt needs a consent. Other accesses
    go on without one.

    A consent travels behind the token. It names the link, the server and the access, so the plan
    looks for it, and `prohibits` has nothing to ask. Without one it prohibits with the code
    `consent_missing` (spec, section 47). The keyword is `consent`.
    """

    value: Any
    asks: Any = None  # of each entry its key and its Definition
    key = "consent"

    def __post_init__(self) -> None:
        """Read each entry once. Raises TypeError or ValueError."""
        stated = a_list(self.value, "consent")
        if not 1 <= len(stated) <= _MOST_CONSENTS:
            raise ValueError(f"consent has 1 to {_MOST_CONSENTS} entries, not {len(stated)}")
        structs.force_setattr(self, "asks", tuple(map(_read_ask, stated)))

    def prohibits(self, access: Access, situation: Situation | None) -> Reason | None:
        """Nothing: the plan knows which consents came along. They are asked for last (47.3)."""
        return None

    def looks(self, access: Access) -> Iterable[Looked]:
        return (pair for _, rule in self.asks for pair in rule.looks(access))

    # The methods below are for writers and people. No verifier calls them.

    def normalized(self) -> BuiltIn:
        """Each entry by itself."""
        return GatheredConsents(tuple(sorted({*map(encode_json, self.value)})))

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        """One line for each entry: `consent of KEY to each: tool mail.send`."""
        for by, rule in self.asks:
            yield f"consent of {b64encode(by)} to each: {rule.words()}"


_MOST_CONSENTS = 4  # of a link


def _read_ask(value: Any) -> tuple[bytes, Any]:
    """The key and the definition of one entry. Raises TypeError or ValueError."""
    from captoken._language.marks import read_definition  # of tokens that ask

    like = ', like {"by": "<public key>", "for": {"tools": ["mail.send"]}}'
    stated = an_object(value, "an entry of consent", like)
    if stated.keys() != {"by", "for"}:
        raise ValueError(f"an entry of consent has by and for, and nothing else{like}")
    by = a_signing_key(stated["by"], "by")
    return by, read_definition(stated["for"], "what needs a consent")


# --- freshness (spec, "Overlay") ------------------------------------------------------------------


class Fresh(AtMost, frozen=True):
    """The verifier's overlay is no older than so many seconds.

    On the wire: `"fresh": 60`, in seconds. It asks for the age of the verifier's overlay. If that
    is greater, or there is no overlay, it prohibits with the code `stale_overlay` (spec, section
    36).

    Two of them meet in the smaller age. The keyword is `fresh`. It does not look at what the
    overlay says; the verifier does that elsewhere.
    """

    key = "fresh"
    asks_access = False

    def __post_init__(self) -> None:
        """Seconds as an integer from 0 to 2^53 - 1. With 0 the overlay is of this very second.

        Raises TypeError or ValueError.
        """
        amount(self.value, "fresh")

    def prohibits(self, access: Access | None, situation: Situation) -> Reason | None:
        """No reason if there is an overlay, and it is no older than that.

        Without an overlay nobody could say that the token was not revoked, so it prohibits. The
        verifier has a bound of its own as well (spec, 36.7).
        """
        age = situation.overlay_age
        if age is not None and age <= self.value:
            return None

        have = "there is none" if age is None else f"it is {age} s old"
        wanted = f"asks for an overlay of the last {self.value} s"
        return Reason("stale_overlay", f"{wanted}, and {have}")

    # The methods below are for writers and people. No verifier calls them.

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        """One line, in the two largest units of time: `only under an overlay of the last 1m`.

        The overlay is what operators take away from issued tokens.
        """
        yield f"only under an overlay of the last {span(self.value)}"
