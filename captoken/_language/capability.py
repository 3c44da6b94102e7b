"""The meet of all caveats about accesses: the most that a token can do (spec, "Capability").

A capability is a plain set of permitted accesses. `meet` permits exactly what both permit,
`a.covers(b)` iff `a.meet(b) == b`, and equal authority is `==`, but for a list of addresses and the
blocks that hold just these. Order and repetition of links do not matter. Nothing here depends on
the position of a link in the chain.

It knows no kind of caveat by name. It holds one caveat of each kind, in normal form, and asks it:
all that is said of tables is one caveat, all that is said of tools another. Of own caveats it keeps
as many as do not make each other superfluous.

Three laws follow, and each is a check on the code. `a.meet(a) == a`. `a.meet(b) == b.meet(a)`. And
whatever `a.meet(b)` permits, `a` permits. So a further link can only take away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from functools import reduce
from types import MappingProxyType
from typing import Any, TypeAlias, cast

from msgspec.structs import force_setattr

from captoken._format.encoding import encode_json
from captoken._format.sealed import SealedValue
from captoken._format.spelling import spelled
from captoken._language.access import Access
from captoken._language.calls import ToolCalls
from captoken._language.caveats import BUILT_IN, is_own
from captoken._language.conditions import Audience, TaskPath
from captoken._language.constraints import FREE, CallMap, Constraint
from captoken._language.data import Allowances, Columns, Operations, Rows, Tables
from captoken._language.kinds import BuiltIn, Caveat, Situation, prohibited
from captoken._language.link import Link
from captoken._language.reasons import Reason
from captoken._language.rights import ALL_RIGHTS, RightsMap, TableRights, met

# What is held in each place: by domain, or by key for what has no domain.
Held: TypeAlias = Mapping[str, BuiltIn]
# What a caveat of version 1 answers: never a sentence alone, as an own one may.
Check: TypeAlias = Callable[[Access, Any], Reason | None]

# Caveats of no domain, in their order.
_UNIVERSAL = tuple(kind.key for kind in BUILT_IN if kind.domain == "all")
_NOTHING_HELD: Held = MappingProxyType({})
# A domain that is closed: a map without entries, so that no table or tool matches.
_CLOSED: Held = MappingProxyType(
    {
        "data": TableRights({}),
        "tool": ToolCalls({}),
    }
)
# A domain that is open: one entry for all, with nothing asked.
_OPEN: Held = MappingProxyType(
    {
        "data": TableRights({"*": ALL_RIGHTS}),
        "tool": ToolCalls({"*": FREE}),
    }
)


class Capability(SealedValue, frozen=True, eq=False):
    """A set of permitted accesses. Immutable, and built from links.

    `Capability()` is everything. `data` and `tool` are None where no link has named any domain:
    then every access is open. `json()` says the same as the caveats of one link would.

    An example: one link says `tables: ["market.*"]`, the next `operations: ["select"]`. The
    capability permits `select` on the tables below `market`, and no tool.

        capability = token.unverified.capability
        capability.data         # {"market.*": Rights(operations={"select"}, columns=None)}
        capability.tool         # {}, since a link that names tables closes tools
        capability.prohibits(Access(table="rates", operation="select")).code    # "table"

    It does not know what is left of an allowance, whether a token is revoked, or who holds it. So
    it says what a token can do at most, and verification still asks every link.
    """

    # Its JSON is for showing: of two own caveats of one key a link can say one.
    _instead = "hand on the token, and read the capability from it"

    held: Held = _NOTHING_HELD
    own: tuple[Caveat, ...] = ()  # caveats of an embedding project
    # What is asked of an access, put in order once: `prohibits` of each caveat, of no domain first.
    # All four are made of `held`, and take no part in `==`.
    _early: tuple[Check, ...] = ()
    _late: tuple[Check, ...] = ()
    _tables: Check | None = None
    _tools: Check | None = None

    def __post_init__(self) -> None:
        """Sort what has to be asked, once.

        Silent caveats prohibit nothing by themselves and are left out. Early ones need the
        verifier's facts; late ones need the access. A domain is asked only where a link has named
        one.
        """
        early: list[Check] = []
        late: list[Check] = []
        for caveat in self._universal():
            if not caveat.is_silent:
                checks = late if caveat.asks_access else early
                checks.append(caveat.prohibits)

        # The struct is frozen. So this is the one place that sets them, before anybody has it.
        force_setattr(self, "_early", tuple(early))
        force_setattr(self, "_late", tuple(late))
        if "data" in self.held:  # then the other domain is, too
            force_setattr(self, "_tables", self.held["data"].prohibits)
            force_setattr(self, "_tools", self.held["tool"].prohibits)

    @classmethod
    def of(
        cls,
        links: Iterable[Link],
        task: str | None = None,
        audience: str | None = None,
    ) -> Capability:
        """What all `links` allow together, with the task and audience of a root record.

        The meet of all their caveats. No link at all leaves everything, and the root's task and
        audience are one more caveat each. What a link repeats of the one before it counts once, and
        the rest meets in pairs. So the work grows with the length of what links say, and hardly
        with their number.
        """
        said: dict[str, list[BuiltIn]] = {}
        own: tuple[Caveat, ...] = ()
        closed: set[str] = set()
        if task is not None:
            said["task"] = [TaskPath(task)]
        if audience is not None:
            said["aud"] = [Audience([audience])]

        for link in links:
            _gather(said, link.early)
            _gather(said, link.late)
            for caveat in link.late:
                if is_own(caveat.key):
                    own = _both_own(own, (caveat,))
            # A link that names any domain closes those that it does not name (spec, "Domains").
            if link.domains:
                closed |= _CLOSED.keys() - link.domains
                said.setdefault("data", [])
                said.setdefault("tool", [])

        return cls(_met(said, closed), own)

    @classmethod
    def of_link(cls, link: Link) -> Capability:
        """What one link permits by itself, without those before and after it.

        For a link that is compared with a capability, and may belong to no token.
        """
        return cls.of((link,))

    @classmethod
    def nowhere(cls) -> Capability:
        """What a link permits that cannot be read: nothing.

        Both domains are closed, so an access to either is prohibited, and one to neither as well.
        """
        return cls(_CLOSED)

    # --- what it says ---------------------------------------------------------------------------

    @property
    def nothing(self) -> bool:
        """Does it permit no access at all, whatever the time?

        Each domain that is named is empty, or one universal caveat that must hold cannot.

        Time is left out: a token that has expired is not nothing in this sense.
        """
        domains = [
            self.held[domain].is_nothing  # of both domains, or of none
            for domain in _CLOSED
            if domain in self.held
        ]
        if domains and all(domains):
            return True
        return any(caveat.is_nothing for caveat in self._universal())

    @property
    def data(self) -> RightsMap | None:
        """At each table pattern, the operations and columns; None if no link names a domain.

        An empty map is the opposite of None: no table at all. The most specific pattern decides.
        """
        rights: RightsMap | None = self._value("data")
        return None if rights is None else MappingProxyType(rights)

    @property
    def tool(self) -> CallMap | None:
        """At each tool pattern, the arguments; None if no link names a domain.

        An empty map permits no tool. An entry that is None permits no call, and an empty one leaves
        all arguments free.
        """
        calls: CallMap | None = self._value("tool")
        return None if calls is None else MappingProxyType(calls)

    @property
    def where(self) -> Mapping[str, Constraint]:
        """For each attribute that is asked about, what it must satisfy.

        Empty if no link has a `where`. Attributes that are not in it are free.
        """
        where: Any = self.held.get("where")
        return MappingProxyType({} if where is None else where.rules)

    @property
    def expires_at(self) -> int | None:
        """The earliest `exp` of the chain, in seconds since the epoch; None is never.

        At that second it has expired. Whether it has by now, is not asked here.
        """
        return _number(self._value("exp"))

    @property
    def not_before(self) -> int | None:
        """The latest `nbf` of the chain, in seconds since the epoch; None is always.

        It may lie behind `expires_at`. Then it never holds, and `nothing` does not say so.
        """
        return _number(self._value("nbf"))

    @property
    def audiences(self) -> frozenset[str] | None:
        """The servers that take it: the names in every `aud`. None is any, and empty is none.

        A verifier may still refuse a token that names no server (spec, 16.2).
        """
        audiences = self._value("aud")
        return None if audiences is None else frozenset(audiences)

    @property
    def task(self) -> str | None:
        """The longest task that was stated, the root record's included; None if none was.

        It says nothing of whether all of them lie on one path: `nothing` does.
        """
        task = self._value("task")
        return None if task is None else str(task)

    @property
    def uses(self) -> int | None:
        """The smallest allowance of the chain; None is without bound.

        The ledger knows what is left of it.
        """
        return _number(self._value("uses"))

    @property
    def budget(self) -> Mapping[str, int]:
        """Of each unit the smallest allowance of the chain.

        A unit that is not in it is not bounded. The ledger knows what is left.
        """
        return MappingProxyType(self._value("budget") or {})

    @property
    def fresh(self) -> int | None:
        """The greatest age that a verifier's overlay may have, in seconds; None is any.

        Verifiers have a bound of their own as well (spec, 36.7).
        """
        return _number(self._value("fresh"))

    def _universal(self) -> Iterator[BuiltIn]:
        """The caveats of no domain, in their order, whatever order the links had.

        So equal capabilities give equal reasons.
        """
        held = self.held
        return (held[key] for key in _UNIVERSAL if key in held)

    def _value(self, slot: str) -> Any:
        """The value of the caveat in that place, or None if no link has one.

        No caveat has None as its value, so that the two cannot be confused.
        """
        caveat = self.held.get(slot)
        return None if caveat is None else caveat.value

    # --- the algebra ----------------------------------------------------------------------------

    def meet(self, other: Capability) -> Capability:
        """The capability that permits exactly what both permit.

        Each caveat meets the one in the same place. An access is permitted by both if it is
        permitted in every place by both, so to meet place by place is exact. A place that only one
        of them has is kept.

        Neither of the two is changed. The result may permit nothing, which is no error.
        """
        held = dict(self.held)
        _add(held, other.held)
        return Capability(held, _both_own(self.own, other.own))

    def covers(self, other: Capability) -> bool:
        """Does this permit all that `other` permits?

        If what both permit is all of `other`, then this one takes nothing away from it. For a list
        of addresses and the blocks that hold just these the answer may be no; that is safe, for it
        only refuses.

        Nothing in the library decides by it: writers and verifiers ask caveat by caveat. It is for
        comparing what two tokens can do.
        """
        return self.meet(other) == other

    def __eq__(self, other: object) -> bool:
        """Equal if they permit the same, as far as normal forms tell.

        All that permit nothing are equal, whatever the cause. Else the caveats are compared, which
        are in normal form. It has no hash, since values of own caveats may have none.

        `json` is not asked: of two own caveats of one key it writes one, and here both count.
        """
        if not isinstance(other, Capability):
            return NotImplemented
        if self.nothing or other.nothing:
            return self.nothing and other.nothing
        return self.held == other.held and self._own_values() == other._own_values()

    __hash__ = None  # type: ignore[assignment]

    def _own_values(self) -> set[tuple[str, bytes]]:
        """Every own caveat as it is spelled: their order and repetitions say nothing.

        As bytes, since `==` of Python takes True for 1, and lists are not to be hashed.
        """
        return {
            (caveat.key, encode_json({"": caveat.value}))  # an object, as the encoder takes
            for caveat in self.own
        }

    # --- asking it ------------------------------------------------------------------------------

    def prohibits(self, access: Access, situation: Situation | None = None) -> Reason | None:
        """Why `access` is prohibited, or None.

        Without a `situation`, time and audience are not looked at.

        The order decides only which reason is given, never whether there is one. Caveats of no
        domain come first, then tables, tools, and the rule that some domain is stated. Own caveats
        come last. An access with a table and a tool must pass both.

        It says what the links together permit. A server asks a `Grant` instead, which also looks at
        revocation, possession and the ledger.
        """
        # Caveats of no domain. Without the verifier's facts, those that ask for them are left out.
        if situation is not None:
            for check in self._early:
                reason = check(access, situation)
                if reason is not None:
                    return reason
        for check in self._late:
            reason = check(access, situation)
            if reason is not None:
                return reason

        # The two domains. Where no link names one, both are open and nothing is asked.
        if self._tables is not None and self._tools is not None:
            if access.table is not None:
                reason = self._tables(access, situation)
                if reason is not None:
                    return reason
            if access.tool is not None:
                reason = self._tools(access, situation)
                if reason is not None:
                    return reason
            elif access.table is None:
                return Reason("domain", "no table or tool is stated")

        # An embedder's caveats get a situation always, if need be one without any fact in it.
        return prohibited(self.own, access, situation or Situation(0)) if self.own else None

    # --- spelling it ----------------------------------------------------------------------------

    def json(self) -> dict[str, Any]:
        """The caveats of one link that would permit the same.

        Without what the root record alone can say.

        Read again as a link, it permits the same. There is one exception: of own caveats of one key
        that did not merge only the first is written, since a link has each key once. And of urls
        several links may leave more than one link can list.

        So it is for showing, and never what is handed on: whoever narrows adds a link to the chain,
        in which both of them still stand. The reader may change it: it shares nothing with this
        capability, and so with no token.
        """
        made = self._domains_stated()
        for caveat in self._universal():
            made.update(caveat.stated())
        for own in self.own:
            made.setdefault(own.key, own.value)
        return deepcopy(made)

    def _domains_stated(self) -> dict[str, Any]:
        """A domain in which nothing is permitted is left out where another is not (spec, 19.8).

        If data and tool are both empty, or the tasks are torn, one empty list of tables says so.
        Where one domain permits something, writing it alone closes the other.

            neither is named         {}
            tables, and no tool      {"tables": ["sales"], "operations": ["*"]}
            no table, and no tool    {"tables": []}
        """
        nothing: dict[str, Any] = {"tables": []}
        # A link has one task, and cannot say that two of them lie apart.
        task = self.held.get("task")
        if task is not None and task.is_nothing:
            return nothing

        named = [self.held[domain] for domain in _CLOSED if domain in self.held]
        permitting = [domain for domain in named if not domain.is_nothing]
        if not permitting:
            return nothing if named else {}

        made: dict[str, Any] = {}
        for domain in permitting:
            made.update(domain.stated())
        return made

    def __repr__(self) -> str:
        """Short, and for people: what it permits, or that it permits nothing.

        Nothing in it is secret. It shows names of tables, tools and servers.
        """
        return f"<Capability {'nothing' if self.nothing else spelled(self.json())}>"


def _number(value: Any) -> int | None:
    """For type checkers: a value that is an integer, or not there."""
    return None if value is None else int(value)


# --- what is held of links ------------------------------------------------------------------------


def _gather(said: dict[str, list[BuiltIn]], caveats: Iterable[Caveat]) -> None:
    """Add caveats of version 1 to what links say, by key; one that repeats the last counts once."""
    for caveat in caveats:
        before = said.get(caveat.key)
        if before is None:
            # By its key as well: an embedder may subclass a caveat of ours, under a key of its own.
            if isinstance(caveat, BuiltIn) and not is_own(caveat.key):
                said[caveat.key] = [caveat]
        elif before[-1] != caveat:
            before.append(cast("BuiltIn", caveat))


def _met(said: Mapping[str, list[BuiltIn]], closed: Iterable[str]) -> dict[str, BuiltIn]:
    """What is held of all that links say: one caveat in normal form at each place.

    The five caveats of tables share one place, and meet there. A domain that an own caveat alone
    has named stays open. One in `closed` permits nothing: `{"tables": ["a"]}` names data and not
    tool, so that tools are closed. `{"exp": 1}` names neither, and closes nothing (spec 18).
    """
    places: dict[str, list[BuiltIn]] = {}
    for key, caveats in said.items():
        place = caveats[0].slot() if caveats else key
        places.setdefault(place, []).extend(caveat.normalized() for caveat in caveats)
    for domain in closed:
        places[domain] = [_CLOSED[domain]]

    held: dict[str, BuiltIn] = {}
    for place, caveats in places.items():
        if not caveats:
            held[place] = _OPEN[place]
        elif place == "task":
            # One after the other: where tasks lie apart, their order says what is held (19.1).
            held[place] = reduce(_both, caveats)
        else:
            held[place] = meet_of(caveats)
    return held


def _both(one: BuiltIn, other: BuiltIn) -> BuiltIn:
    return one.meet(other)


def meet_of(caveats: list[BuiltIn]) -> BuiltIn:
    """The meet of all of them, in normal form. In pairs, and the results in pairs again.

    One after the other, a long first one would be gone through once for each of the others.
    """
    while len(caveats) > 1:
        pairs = zip(caveats[::2], caveats[1::2], strict=False)
        odd = caveats[len(caveats) & ~1 :]
        caveats = [one.meet(two) for one, two in pairs] + odd
    return caveats[0]


def _add(held: dict[str, BuiltIn], more: Held) -> None:
    """Let what is held meet what more is said.

    What was not held before is taken as it is: the meet of everything and a caveat is that caveat.
    `held` is changed in place. The caveats in it are frozen, and so may be shared.
    """
    for slot, caveat in more.items():
        before = held.get(slot)
        held[slot] = caveat if before is None else before.meet(caveat)


# --- own caveats: an embedder's code, whose answers may be anything -------------------------------


def _both_own(one: tuple[Caveat, ...], two: Iterable[Caveat]) -> tuple[Caveat, ...]:
    """Own caveats of both, without those that another one makes superfluous.

    To keep both is always right, since all that are kept must hold. To leave one out is right only
    if another says as much. It never raises, whatever an embedder's code does.
    """
    kept = list(one)
    for caveat in two:
        at, merged = _place(kept, caveat)
        kept[at : at + 1] = [merged]
    return tuple(kept)


def _place(kept: list[Caveat], caveat: Caveat) -> tuple[int, Caveat]:
    """Where a caveat goes: in the place of one that it merges with, or at the end.

    Only caveats of one key are compared. Two of different keys ask about different things.
    """
    for at, other in enumerate(kept):
        merged = _merged(caveat, other) if other.key == caveat.key else None
        if merged is not None:
            return at, merged
    return len(kept), caveat


def _merged(one: Caveat, two: Caveat) -> Caveat | None:
    """One own caveat that permits what both permit, or None: then both are kept.

    If `one` covers `two`, whatever `two` permits is permitted by `one` too. So `two` alone says
    both. These answers come from the embedder's code, and an exception or another type counts as no
    answer.

    A wrong answer shows a capability that is too wide, and grants nothing: verifiers ask every own
    caveat of every link.
    """
    if says_it_covers(one, two):
        return two
    if says_it_covers(two, one):
        return one
    try:
        merged = two.meet(one)
    except Exception:  # keeping both is always safe
        return None
    return merged if isinstance(merged, Caveat) else None


def says_it_covers(one: Caveat, two: Caveat) -> bool:
    """Does `one` say that it covers `two`? An embedder's answer that is none is no.

    Only `True` itself counts. Any other value, even one that is true in a condition, is no answer.
    """
    try:
        return one.covers(two) is True
    except Exception:  # calling it widening is always safe
        return False


def rights_of(stated: Mapping[str, Any]) -> RightsMap:
    """The map that data caveats state, by key. Raises TypeError or ValueError for what is none.

    Other keys are passed over, so that all caveats of a link may be given. Without any data caveat
    it has all rights.
    """
    kinds = (
        Tables,
        Operations,
        Allowances,
        Columns,
        Rows,
    )
    given = (kind(stated[kind.key]) for kind in kinds if kind.key in stated)
    rights: RightsMap = met(given).value
    return rights
