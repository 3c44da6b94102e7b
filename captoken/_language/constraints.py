"""The small decidable constraints on one value (spec, "Constraints").

Each kind is one class. A constraint is a frozen value in normal form that says which values it
accepts, what it and another one accept together, and how it is spelled, for readers and for people.
Types never coerce: `True`, `1` and `"1"` are three values. A fraction satisfies `any` and ranges, a
list `any` and `each`, an object only `any`. There are no regular expressions.

    spelled                                    accepts
    {"any": true}                              every value
    {"in": ["eu", 3, true]}                    a string, integer or boolean of the list
    {"min": 1, "max": 5}                       a number between the two, or with one bound alone
    {"path": ["/data"]}                        a path at or below one of the list
    {"prefix": ["acct-"]}                      a string that begins with one of the list
    {"url": ["https://*.example.com/a"]}       a url at or below one of the list
    {"cidr": ["10.0.0.0/8"]}                   an address in one of the blocks
    {"each": {"in": ["eu"]}, "most": 3}        a list, whose items all satisfy a constraint

What a url is, says `urls`, and what an address is, `addresses`. A string that is a path, a url or
an address satisfies no prefix: so two unlike kinds but `any` and `in` have nothing in common.

`completed` is for writers alone: to them `{"max": 500}` means 0 to 500.

*Why no regular expressions:* two engines read one expression differently, and some take time
without bound. And nobody can say of two expressions what both accept. These kinds can be
met exactly, so that one can say whether a new link asks for more than is held.

A constraint does not ask whether an argument is stated at all: `first_failing` does, and the
`where` caveat. What the value means is not checked here. The server alone knows that.

An attack that this answers: a holder may call a tool with `{"max": 5}` on `amount`. It sends the
text `"5000"`, in the hope that it is compared as text here and read as a number by the tool. Here a
string is no number, and is refused.

A constraint that is read has been looked at in full. Judging a value never raises, so that nothing
a stranger states can turn a denial into an error.

*Cost:* every kind judges in time linear in the constraint plus the value (spec 24.23). No kind goes
through its list for each item of a value, since a holder writes both: lists are sets, or are sorted
so that one entry alone can match, and the items of an array are judged together.

Each class answers the same questions: `read` and `json` for the wire, `accepts` for a decision,
`meet` for what two links leave together, `words` for people. A new kind would be one class more and
a name in `_KINDS`, if no string satisfies both it and another kind: else `meet` must know the two.
Verifiers that do not know it find its link unreadable, and prohibit.

Python's own comparisons are not enough here: `True == 1 == 1.0` holds, and their hashes are equal.
So every class looks at the exact type before it compares.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import chain
from math import isfinite
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias

import msgspec

from captoken._format import names
from captoken._format.names import frozen_copy
from captoken._format.spelling import escape, json_text, named_all, shown
from captoken._language import addresses, urls
from captoken._language.values import a_bounded_integer, a_list, an_object

# A scalar with its type, so that True and 1 differ in sets: is it a boolean, and the value.
Typed = tuple[bool, "str | int"]


class Constraint(msgspec.Struct, frozen=True):
    """What one value must satisfy: the argument of a tool, or an attribute of a request.

    A subclass is one kind. It is always in normal form: two constraints of one kind that accept
    the same values are equal. Types never coerce (spec 13.3). If they did, a server that reads
    `"1"` as text and one that reads it as a number would decide differently about one token.

        read_constraint({"in": ["eu", "us"]}).accepts("eu")    # True
        read_constraint({"max": 5}).accepts(True)              # False: a boolean is no number
    """

    # A kind is told by its keys alone. No key belongs to two kinds.
    # The keys of the JSON object this constraint is written as.
    keys: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def read(cls, stated: dict[str, Any]) -> Constraint:
        """The constraint that an object with keys of this kind states.

        Raises TypeError or ValueError for one that cannot be read.
        """
        raise NotImplementedError

    def accepts(self, value: Any) -> bool:
        """Does the JSON `value` satisfy it?

        Never raises for a JSON value. A value of another type is simply not accepted.
        """
        raise NotImplementedError

    def accepts_all(self, values: list[Any]) -> bool:
        """Does each of the JSON `values` satisfy it? As `accepts` says, for the items of arrays.

        A kind that can look at many values in fewer steps does so here.
        """
        return all(map(self.accepts, values))

    # The methods below are for writers and people. No verifier calls them.

    def alike(self, other: Any) -> Constraint:
        """What this one and another of its kind accept together.

        Called by `meet` alone, which has looked at the kinds.
        """
        raise NotImplementedError

    def json(self) -> dict[str, Any]:
        """The object that spells it, with lists sorted.

        `read_constraint` of the result is an equal constraint.
        """
        raise NotImplementedError

    def words(self) -> str:
        """What a value must be, for people. Foreign text in it is escaped."""
        raise NotImplementedError

    def meet(self, other: Constraint) -> Constraint:
        """The constraint that accepts what both accept (spec, "Constraints").

        Exact: it accepts no value that one of them refuses, and refuses none that both accept.

            {"in": [1, 2, 9]} and {"max": 5}           meet in {"in": [1, 2]}
            {"min": 1, "max": 5} and {"min": 3}        meet in {"min": 3, "max": 5}
            {"path": ["/a"]} and {"path": ["/a/b"]}    meet in {"path": ["/a/b"]}
            {"max": 5} and {"path": ["/a"]}            meet in {"in": []}, which accepts nothing
        """
        # `any` adds nothing to the other one.
        if isinstance(other, Anything):
            return self
        if isinstance(self, Anything):
            return other

        # A list meets every kind value by value.
        if isinstance(self, In):
            return self.filtered(other)
        if isinstance(other, In):
            return other.filtered(self)

        # After that only two of one kind have something in common. Ranges accept numbers, `each`
        # lists, and of the kinds about strings no two accept the same one.
        if type(self) is type(other):
            return self.alike(other)
        return NOTHING


class Anything(Constraint, frozen=True):
    """Every value, of every type: `{"any": true}`.

    The only kind that accepts null and objects. It still asks that the value is
    stated: an argument that is left out satisfies no constraint. Its meet with another is the
    other.
    """

    keys = frozenset(("any",))

    @classmethod
    def read(cls, stated: dict[str, Any]) -> Constraint:
        """Only `true` will do: `{"any": false}` could be read as nothing or as no rule.

        Raises ValueError for anything else.
        """
        if stated["any"] is not True:
            raise ValueError('"any" can only be true: write {"any": true}')
        return ANYTHING

    def accepts(self, value: Any) -> bool:
        """Always, of whatever type.

        Whether the value was stated is asked before, by the caveat.
        """
        return True

    # The methods below are for writers and people. No verifier calls them.

    def json(self) -> dict[str, Any]:
        """The one object that spells it.

        A new one each time, since the `tools` caveat adds `optional` to it.
        """
        return {"any": True}

    def words(self) -> str:
        return "anything"


class In(Constraint, frozen=True):
    """One of the listed values: `{"in": ["eu", 3, true]}`. An empty list accepts nothing.

    The list holds strings, integers and booleans, in any order. Each is kept with its type. Python
    says that `True == 1`, so a plain set would take one for the other. Its meet with any kind is
    the values of the list that the other accepts too.
    """

    values: frozenset[Typed]
    keys = frozenset(("in",))

    @classmethod
    def read(cls, stated: dict[str, Any]) -> Constraint:
        """Raises TypeError for a value of another type, ValueError for no free name.

        Also ValueError for an integer of magnitude 2^53 or more. Repeated values count once.
        """
        listed = a_list(stated["in"], "in")
        return cls(frozenset(_scalar(item) for item in listed))

    def accepts(self, value: Any) -> bool:
        """Exact types only: a float or a subclass of str is never in the list.

        The type is looked at first, so that a list, which cannot be hashed, is never looked up.
        """
        return type(value) in (str, int, bool) and (type(value) is bool, value) in self.values

    def accepts_all(self, values: list[Any]) -> bool:
        """Strings and integers are looked up as they are: booleans would pass for integers there.

        Only the list is made a set. A client chooses its values, and can choose integers that all
        have one hash.
        """
        if not {str, int}.issuperset(map(type, values)):
            return super().accepts_all(values)
        listed = {value for is_boolean, value in self.values if not is_boolean}
        return all(map(listed.__contains__, values))

    # The methods below are for writers and people. No verifier calls them.

    def filtered(self, other: Constraint) -> Constraint:
        """The values of the list that `other` accepts too, of whatever kind it is.

        The result is a list again, and never longer. So a meet with a list always can be written
        down.
        """
        return In(frozenset(item for item in self.values if other.accepts(item[1])))

    def json(self) -> dict[str, Any]:
        """The list in one order: booleans, integers, strings. So equal lists are spelled alike."""
        return {"in": self._listed()}

    def _listed(self) -> list[str | int]:
        """The values in their order for lists, without the types they are kept with."""
        return [value for _, value in sorted(self.values, key=_order)]

    def words(self) -> str:
        """The values as JSON has them, so that `"1"` and 1 look different.

        An empty list is "nothing there is". Not shortened: a list may be long.
        """
        # Strings of a list were chosen by a stranger: what would steer a terminal is escaped.
        values = [escape(json_text(value)) for value in self._listed()]
        if len(values) > 1:
            return f"one of {', '.join(values)}"
        return values[0] if values else "nothing there is"


class Range(Constraint, frozen=True):
    """A number of at least `low` and at most `high`; None is no bound on that side.

    Spelled `{"min": 1}`, `{"max": 5}` or `{"min": 1, "max": 5}`. Both bounds belong to it, and are
    integers of magnitude below 2^53. A value is an integer of any size or a finite fraction, and is
    compared exactly (spec 13.5). A boolean is no number. The tool has to be run with the number
    that was compared, and not with the text that it was read from.

        Range(1, 5).accepts(5)       # True: both bounds belong to it
        Range(1, 5).accepts(4.5)     # True, and so is 5.0
        Range(1, 5).accepts(True)    # False
    """

    low: int | None
    high: int | None
    keys = frozenset(("min", "max"))

    @classmethod
    def read(cls, stated: dict[str, Any]) -> Constraint:
        """Raises TypeError for a bound that is no integer, ValueError for one that is too large.

        A `min` above `max` is ValueError too: it reads like a mistake. To accept nothing, write
        `{"in": []}`.
        """
        low = a_bounded_integer(stated["min"], "min") if "min" in stated else None
        high = a_bounded_integer(stated["max"], "max") if "max" in stated else None

        # With one bound alone there is nothing to cross.
        if low is not None and high is not None and low > high:
            raise ValueError(f"min {low} is above max {high}")
        return cls(low, high)

    def accepts(self, value: Any) -> bool:
        """A number within the bounds, both of which are included.

        By exact type: `isinstance` would take True for 1. Python compares an integer with a
        fraction exactly, however large they are, and -0.0 with 0 as equal.
        """
        # NaN is on no side of a bound, so that no comparison would refuse it.
        if type(value) is not int and not (type(value) is float and isfinite(value)):
            return False
        if self.low is not None and value < self.low:
            return False
        return self.high is None or value <= self.high

    def accepts_all(self, values: list[Any]) -> bool:
        """The least and the greatest of them are within, where all are integers."""
        if not values or not {int}.issuperset(map(type, values)):
            return super().accepts_all(values)
        return self.accepts(min(values)) and self.accepts(max(values))

    # The methods below are for writers and people. No verifier calls them.

    def alike(self, other: Range) -> Constraint:
        """The higher `min` and the lower `max`. If they cross, nothing is left.

        Here that is no error, as it is in `read`: two links may well exclude each other.
        """
        # None is no bound, so it takes part in neither comparison. Without any bound None is left.
        lows = [bound for bound in (self.low, other.low) if bound is not None]
        highs = [bound for bound in (self.high, other.high) if bound is not None]
        low = max(lows, default=None)
        high = min(highs, default=None)
        if low is not None and high is not None and low > high:
            return NOTHING
        return Range(low, high)

    def json(self) -> dict[str, Any]:
        """The bounds that there are. At least one is, or it would have no kind.

        `{"min": 3, "max": 3}` stays a range: it accepts 3.0 too, and a list does not.
        """
        bounds = {
            "min": self.low,
            "max": self.high,
        }
        return {key: bound for key, bound in bounds.items() if bound is not None}

    def words(self) -> str:
        """Its bounds, both included: "1 to 5", "at least 1", "at most 5"."""
        if self.low is None:
            return f"at most {self.high}"
        return f"at least {self.low}" if self.high is None else f"{self.low} to {self.high}"


class Paths(Constraint, frozen=True):
    """A path at or below one of `tops`, none of which lies below another.

    Spelled `{"path": ["/data", "/tmp/x"]}`. `/data` accepts `/data` and `/data/a`, and does not
    accept `/database` (spec 14.3). Nothing is resolved or decoded: this compares text. Symbolic
    links, mounts and letter case are the server's matter, before it states the path (spec 14.5).
    """

    # Each top with a slash behind it, sorted: what every path below it begins with.
    starts: tuple[str, ...]
    keys = frozenset(("path",))

    @classmethod
    def read(cls, stated: dict[str, Any]) -> Constraint:
        """Raises TypeError for what is no list of strings, ValueError for an entry that is no path.

        An empty list is legal and accepts nothing.
        """
        listed = a_list(stated["path"], "path")
        return _paths({_top(top) for top in listed})

    @property
    def tops(self) -> frozenset[str]:
        """The paths of the list, without those below others."""
        return frozenset(start[:-1] or "/" for start in self.starts)

    def accepts(self, value: Any) -> bool:
        """A value that is no path in the one spelling is refused, whatever it would resolve to.

        So `/data/../etc` is not accepted below `/data`, and neither is `/data//x` (spec 14.4).
        """
        if type(value) is not str or not is_path(value):
            return False
        # The slash behind both keeps `/database` out of `/data`.
        return _begins_with_one(f"{value}/", self.starts)

    # The methods below are for writers and people. No verifier calls them.

    def alike(self, other: Paths) -> Constraint:
        """Of each list the paths that lie at or below one of the other.

        That is all: two paths are nested or disjoint, so no other path is below both.
        """
        # A top in both lists is found twice, which a set does not mind. One that lies beside all of
        # the other list is below none of them, and is dropped.
        mine = {top for top in self.tops if other.accepts(top)}
        theirs = {top for top in other.tops if self.accepts(top)}
        return _paths(mine | theirs)

    def json(self) -> dict[str, Any]:
        """The tops, sorted. None of them lies below another, so this is the shortest list."""
        return {"path": sorted(self.tops)}

    def words(self) -> str:
        """The tops as names: in quotes where one has unusual characters. Sorted."""
        return f"at or below {named_all(self.tops)}"


class Prefixes(Constraint, frozen=True):
    """A string that begins with one of `starts`, none of which begins with another.

    Spelled `{"prefix": ["acct-", "inv-2026"]}`: for ids whose beginning says what they are. A
    string that is a path, a url or an address satisfies none (spec 13.8). Those have parts, and a
    prefix would cut through one: `https://example.com` is also how `https://example.com.evil.org`
    begins. So what looks like the beginning of one is no prefix.

        {"prefix": ["acct-"]} accepts "acct-1" and "acct-", not "Acct-1"
    """

    # The prefixes, sorted.
    starts: tuple[str, ...]
    keys = frozenset(("prefix",))

    @classmethod
    def read(cls, stated: dict[str, Any]) -> Constraint:
        """Raises TypeError for what is no list of strings, ValueError for no free name.

        Also ValueError for what begins with a slash or holds `://`, with the kind to use instead.
        An empty list is legal and accepts nothing.
        """
        listed = a_list(stated["prefix"], "prefix")
        return _prefixes(_start(start) for start in listed)

    def accepts(self, value: Any) -> bool:
        """Character by character, from the first. Nothing is folded or normalised.

        No prefix begins with a slash, so that a path begins with none.
        """
        if type(value) is not str or not _begins_with_one(value, self.starts):
            return False
        is_url = "://" in value and urls.url_of(value) is not None
        return not is_url and addresses.address(value) is None

    # The methods below are for writers and people. No verifier calls them.

    def alike(self, other: Prefixes) -> Constraint:
        """Of each list the prefixes that begin with one of the other: longer ones say less."""
        mine = [start for start in self.starts if _begins_with_one(start, other.starts)]
        theirs = [start for start in other.starts if _begins_with_one(start, self.starts)]
        return _prefixes([*mine, *theirs])

    def json(self) -> dict[str, Any]:
        """The prefixes, sorted. None of them begins with another, so this is the shortest list."""
        return {"prefix": list(self.starts)}

    def words(self) -> str:
        """The prefixes as names: in quotes where one has unusual characters. Sorted."""
        return f"text that begins with {named_all(self.starts)}"


class Urls(Constraint, frozen=True):
    """A url at or below one of `sites`, none of which lies within another (spec 13.9 to 13.13).

    Spelled `{"url": ["https://*.example.com/reports", "http://10.0.0.7:8080"]}`. Scheme, host and
    port are equal, but that `*.` stands for one or more labels; the path is at or below, segment by
    segment. The query of a value is free. Whatever could be read as another url is none.

    It is about the string. Whoever fetches it has to follow no redirect without asking again, and
    names may resolve to any address.
    """

    sites: frozenset[urls.Url]
    keys = frozenset(("url",))

    @classmethod
    def read(cls, stated: dict[str, Any]) -> Constraint:
        """Raises TypeError for what is no list of strings, ValueError for an entry that is no url.

        Also ValueError for more than 16 entries, however often one is repeated: two lists meet
        entry by entry. An empty list is legal and accepts nothing.
        """
        listed = a_list(stated["url"], "url")
        if len(listed) > urls.MAX_LISTED:
            raise ValueError(f"a list may have at most {urls.MAX_LISTED} urls, not {len(listed)}")
        return _urls([urls.site(names.exact_str(entry, "url")) for entry in listed])

    def accepts(self, value: Any) -> bool:
        """A string that is no url in the strict form is refused, wherever it would lead."""
        if type(value) is not str:
            return False
        asked = urls.url_of(value)
        return asked is not None and urls.is_within_one(asked, self.sites)

    # The methods below are for writers and people. No verifier calls them.

    def alike(self, other: Urls) -> Constraint:
        """What each entry of one has in common with each of the other: one url or nothing.

        More than 256 leave nothing, as a bound on the work that links can make (spec 13.13).
        """
        if self.sites == other.sites:
            return self
        return _urls(urls.both(self.sites, other.sites))

    def json(self) -> dict[str, Any]:
        """The entries, sorted, each with its path.

        After a meet they may be more than a link can list.
        """
        return {"url": sorted(map(str, self.sites))}

    def words(self) -> str:
        """The entries as names, sorted."""
        return f"a url at or below {named_all(map(str, self.sites))}"


class Networks(Constraint, frozen=True):
    """An IP address in one of `blocks`, which are as few as can be (spec 13.14, 13.15).

    Spelled `{"cidr": ["10.0.0.0/8", "2001:db8::/32"]}`. A value is an address in its one spelling,
    without brackets, port or zone. An address of version 4 is never in a block of version 6.

    One exception to equality: a list of addresses and the block that holds just these accept the
    same, and are not equal.
    """

    # The blocks, in order.
    blocks: tuple[addresses.Block, ...]
    keys = frozenset(("cidr",))

    @classmethod
    def read(cls, stated: dict[str, Any]) -> Constraint:
        """Raises TypeError for what is no list of strings, ValueError for what is no block.

        An empty list is legal and accepts nothing.
        """
        listed = a_list(stated["cidr"], "cidr")
        return _networks(addresses.block(names.exact_str(entry, "cidr")) for entry in listed)

    def accepts(self, value: Any) -> bool:
        """An address that could be spelled otherwise is refused, whatever it would be."""
        found = addresses.address(value) if type(value) is str else None
        return found is not None and addresses.in_any_block(self.blocks, *found)

    # The methods below are for writers and people. No verifier calls them.

    def alike(self, other: Networks) -> Constraint:
        """The addresses in both, as blocks: two blocks are nested or disjoint."""
        return _networks(addresses.in_both(self.blocks, other.blocks))

    def json(self) -> dict[str, Any]:
        """The blocks, sorted as text, as all lists are."""
        return {"cidr": sorted(map(str, self.blocks))}

    def words(self) -> str:
        """The blocks, sorted as text."""
        return f"an address in {named_all(map(str, self.blocks))}"


class Each(Constraint, frozen=True):
    """A list of at most `most` items, all of which satisfy `inside`; None is no bound.

    Spelled `{"each": {"in": ["eu", "us"]}, "most": 3}`. The empty list satisfies every `each` (spec
    13.16). A single value is no list. `inside` may be an `each` in turn, four deep in all.
    """

    inside: Constraint
    most: int | None
    keys = frozenset(("each", "most"))

    @classmethod
    def read(cls, stated: dict[str, Any]) -> Constraint:
        """Raises TypeError or ValueError for an `inside` that is none, and for a bad `most`.

        Also ValueError for `most` alone, and for more than four in each other.
        """
        if "each" not in stated:
            raise ValueError('"most" needs "each": write {"each": …, "most": …}')
        # Looked at from outside, so that no depth of nesting is gone into.
        depth, inside = 1, stated["each"]
        while type(inside) is dict and "each" in inside:
            depth, inside = depth + 1, inside["each"]
            if depth > _MAX_DEPTH:
                raise ValueError(f"each is nested more than {_MAX_DEPTH} deep")

        most = a_bounded_integer(stated["most"], "most") if "most" in stated else None
        if most is not None and most < 0:
            raise ValueError(f"most {most} is negative")
        return _each(read_constraint(stated["each"]), most)

    def accepts(self, value: Any) -> bool:
        """By exact type: a string is no list of its letters."""
        if type(value) is not list or (self.most is not None and len(value) > self.most):
            return False
        return self.inside.accepts_all(value)

    def accepts_all(self, values: list[Any]) -> bool:
        """All are lists that are short enough, and what is inside accepts the items of all.

        Together, so that a constraint is gone through once, whatever the number of lists.
        """
        if not {list}.issuperset(map(type, values)):
            return False
        if self.most is not None and max(map(len, values), default=0) > self.most:
            return False
        return self.inside.accepts_all([*chain.from_iterable(values)])

    # The methods below are for writers and people. No verifier calls them.

    def alike(self, other: Each) -> Constraint:
        """Items that satisfy both, and the lower `most`. The empty list is always left."""
        bounds = [bound for bound in (self.most, other.most) if bound is not None]
        return _each(self.inside.meet(other.inside), min(bounds, default=None))

    def json(self) -> dict[str, Any]:
        """What is inside, and `most` if there is a bound."""
        stated: dict[str, Any] = {"each": self.inside.json()}
        return stated if self.most is None else {**stated, "most": self.most}

    def words(self) -> str:
        """What each item is, and how many there may be."""
        if self.most == 0:
            return "the empty list"
        items = "" if self.most is None else f" of at most {self.most}"
        return f"a list{items}, each item {self.inside.words()}"


_MAX_DEPTH = 4  # of `each` in `each`

# Two constraints that others compare with. Nothing is an empty list, in every normal form.
ANYTHING = Anything()
NOTHING = In(frozenset())
_KINDS: tuple[type[Constraint], ...] = (
    Anything,
    In,
    Range,
    Paths,
    Prefixes,
    Urls,
    Networks,
    Each,
)
# By each key that can stand in a constraint. No key is of two kinds.
_KIND_OF = {key: kind for kind in _KINDS for key in kind.keys}
CONSTRAINT_KEYS = frozenset(_KIND_OF)


def read_constraint(value: Any) -> Constraint:
    """The constraint that the JSON `value` states (spec 13.1).

    Exactly one kind: no keys, unknown keys and keys of two kinds are refused. Raises TypeError for
    what is no object or has a value of a wrong type, ValueError otherwise. `"optional"` is not
    known here; the `tools` caveat takes it off first (spec 13.4).

        read_constraint({"min": 1, "max": 5})            # Range(low=1, high=5)
        read_constraint({"in": [1], "path": ["/a"]})     # ValueError: keys of two kinds
        read_constraint({})                              # ValueError: it would say nothing
    """
    if type(value) is not dict:
        like = '{"in": […]}, {"max": 5} or {"any": true}'
        raise TypeError(f"a constraint looks like {like}, not {type(value).__name__}")
    # Any key tells the kind, since none is of two; and then the others have to be of that kind.
    kind = _KIND_OF.get(next(iter(value), ""))
    if kind is not None and value.keys() <= kind.keys:
        return kind.read(value)
    stated = shown(sorted(value))
    kinds = "any, in, min and max, path, prefix, url, cidr, each and most"
    raise ValueError(f"there is no constraint with the keys {stated}: {kinds}")


def looked_at(
    rules: Iterable[tuple[str, Constraint]],
    stated: Mapping[str, Any],
    values: Mapping[str, Any],
) -> Iterator[tuple[Any, Any]]:
    """Each constraint as it is stated, with the value that it looks at (spec 24.25).

    `any` looks at none, and no constraint at what is not there.
    """
    for name, constraint in rules:
        if name in values and not isinstance(constraint, Anything):
            yield stated[name], values[name]


def completed(given: Any, held: Constraint, depth: int = 0) -> Any:
    """What a writer gave as a constraint, with a `max` that stands alone completed by a `min`.

    `{"max": 500}` would permit -500 as well, and hardly anybody means that. So writers complete it
    by the `min` of the range that is held for the same value, and else by 0 (spec 13.6). Readers
    never do: on the wire `{"max": 500}` has no bound below. `held` is ANYTHING where nothing is.

    Inside `each` likewise, by what is held inside.

        completed({"max": 5}, ANYTHING)        # {"max": 5, "min": 0}
        completed({"max": 5}, Range(-9, 9))    # {"max": 5, "min": -9}

    What is no constraint is given back as it is, for `read_constraint` to refuse. Raises ValueError
    for a negative `max` alone: nobody could say what was meant.
    """
    # Deeper than a constraint can be, there is none to complete.
    if not isinstance(given, Mapping) or depth > _MAX_DEPTH:
        return given
    made = frozen_copy(given, "a constraint")  # what is looked at is what is written
    if "each" in made:
        inside = held.inside if isinstance(held, Each) else ANYTHING
        made["each"] = completed(made["each"], inside, depth + 1)
    high = made.get("max")
    if type(high) is not int or "min" in made:
        return made
    if high < 0:
        raise ValueError(f"max {high} alone: write min as well, which is 0 if you leave it out")

    low = held.low if isinstance(held, Range) else None
    # A `min` above it leaves nothing in common: that is for the check of what is held to say.
    made["min"] = 0 if low is None or low > high else low
    return made


# --- the arguments of a call ----------------------------------------------------------------------

# What an argument's value satisfies, and whether it may be absent.
Argument: TypeAlias = tuple[Constraint, bool]
Arguments: TypeAlias = Mapping[str, Argument]

# What holds at a tool: None is nothing, FREE leaves the arguments free, anything else is a closed
# world of arguments. A closed world without arguments is CLOSED, since {} is taken.
Call: TypeAlias = Arguments | None
# FREE is the empty map, and so is false in a condition. So a caller asks `if rule` only after it
# has asked about None.
FREE: Arguments = MappingProxyType({})
# The name `_` has no meaning of its own. The argument may be absent, and if it is stated it
# satisfies nothing. So it must be absent, like all that are not named.
CLOSED: Arguments = MappingProxyType({"_": (NOTHING, True)})
CallMap: TypeAlias = Mapping[str, Call]


def first_failing(rule: Arguments, stated: Mapping[str, Any]) -> str | None:
    """The first argument for which a closed world refuses a call, or None.

    First it looks for an argument that the rule does not name. A server may give a meaning to any
    argument, so one that nobody constrained cannot pass.

    Then each named argument is asked. One that is missing prohibits unless it is optional: the
    server's own default for it might not satisfy the constraint. An optional one that is stated
    must satisfy it all the same.
    """
    for argument in stated:
        if argument not in rule:
            return argument

    for argument, (constraint, optional) in rule.items():
        if argument in stated:
            if not constraint.accepts(stated[argument]):
                return argument
        elif not optional:
            return argument
    return None


# --- lists ----------------------------------------------------------------------------------------


def _scalar(value: Any) -> Typed:
    """One value of an `in` list, with its type. Raises TypeError or ValueError.

    The boolean is asked for first, since in Python it is an integer too.
    """
    is_boolean = type(value) is bool
    # A string follows the rules of free names, so that no invisible character hides in a list.
    if type(value) is str:
        names.free_name(value, "a value of 'in'")
    elif not is_boolean:
        a_bounded_integer(value, "a value of 'in'")
    return is_boolean, value


def _order(item: Typed) -> tuple[str, str | int]:
    """Booleans, then integers, then strings, as their types are called: bool, int, str.

    Python cannot compare a string with an integer, so that sorting needs the type first.
    """
    return type(item[1]).__name__, item[1]


# --- paths ----------------------------------------------------------------------------------------

# What a server further down may decode into a separator or an end of string (spec, "Paths"): the
# percent codes of `.`, `/`, `\\`, `%` and NUL. `%25` is the percent sign: with it, `%252e` would
# become `%2e` after one decoding and a dot after two.
_EVASIVE = ("%2e", "%2f", "%5c", "%25", "%00")


def is_path(value: str) -> bool:
    """Is it a path in the one spelling (spec 14.1, 14.2)? Whether it exists is not asked.

    By searches for a few characters, which read a long text many times sooner than a regular
    expression does.
    """
    if value == "/":
        return True
    # Before the segments are looked at: a code in a segment may decode to a separator.
    if value[:1] != "/" or "\\" in value or "\0" in value:
        return False
    if "%" in value and any(map(value.lower().__contains__, _EVASIVE)):
        return False

    # The empty segment excludes `//` and a slash at the end. `..` excludes the way out of a top.
    ended = f"{value}/"
    return not ("//" in ended or "/./" in ended or "/../" in ended)


def _top(value: Any) -> str:
    """An entry of a `path` list. Raises TypeError, or ValueError for no free name or no path.

    So an entry has at most 256 bytes. A value that is judged may be longer.
    """
    path = names.free_name(value, "path")
    if not is_path(path):
        like = "'/', or '/a/b' without empty, '.' or '..' segments"
        raise ValueError(f"path {shown(value)} is not an absolute path: {like}")
    return path


def _paths(tops: Set[str]) -> Constraint:
    """The constraint in normal form: tops below other tops say nothing more.

    No tops at all is `NOTHING`, so that there is one constraint that accepts nothing.
    """
    # The root is its own slash.
    kept = _shortest(top.rstrip("/") + "/" for top in tops)
    return Paths(kept) if kept else NOTHING


# --- prefixes, urls, blocks, items ----------------------------------------------------------------


def _begins_with_one(text: str, starts: tuple[str, ...]) -> bool:
    """Does a text begin with one of `starts`, which are sorted, and none of which begins another?

    Whatever stands between a start and a text that begins with it begins with it too. So only the
    last one at or before the text can be it: a long list costs a few comparisons.
    """
    at = bisect_right(starts, text)
    return at > 0 and text.startswith(starts[at - 1])


def _shortest(starts: Iterable[str]) -> tuple[str, ...]:
    """Those that begin with no other, sorted: all that begin with one stand right behind it."""
    kept: list[str] = []
    for start in sorted(starts):
        if not kept or not start.startswith(kept[-1]):
            kept.append(start)
    return tuple(kept)


def _start(value: Any) -> str:
    """An entry of a `prefix` list. Raises TypeError or ValueError."""
    start = names.free_name(value, "prefix")
    if start.startswith("/"):
        raise ValueError(f"prefix {shown(start)} looks like a path: write path")
    if "://" in start:
        raise ValueError(f"prefix {shown(start)} looks like a url: write url")
    return start


def _prefixes(starts: Iterable[str]) -> Constraint:
    """The constraint in normal form: what begins with another prefix says nothing more."""
    kept = _shortest(starts)
    return Prefixes(kept) if kept else NOTHING


def _urls(given: Iterable[urls.Url]) -> Constraint:
    """The constraint in normal form: the widest entries; nothing if they are none or too many."""
    sites = urls.widest_of(given)
    return Urls(sites) if sites else NOTHING


def _networks(blocks: Iterable[addresses.Block]) -> Constraint:
    """The constraint in normal form: as few blocks as can be, and nothing if there is none."""
    kept = addresses.merged(blocks)
    return Networks(kept) if kept else NOTHING


def _each(inside: Constraint, most: int | None) -> Constraint:
    """The constraint in normal form: where only the empty list is left, there is one spelling."""
    if inside == NOTHING or most == 0:
        return Each(NOTHING, 0)
    return Each(inside, most)


# --- the rows of a table --------------------------------------------------------------------------

# What they satisfy, by column. A column that is free is not in it.
RowRule: TypeAlias = Mapping[str, Constraint]
EVERY_ROW: RowRule = MappingProxyType({})


def read_rule(entry: Any) -> dict[str, Constraint]:
    """What an entry asks of a row. Raises TypeError or ValueError for what is no such entry."""
    rule = {}
    for column, stated in an_object(entry, "the rows of a table").items():
        names.free_name(column, "column")
        constraint = read_constraint(stated)
        if not isinstance(constraint, Anything):
            rule[column] = constraint
    return rule
