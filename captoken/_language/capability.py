"""What a token can do at most: the intersection of its caveats (spec, "Capability").

A capability is a set of permitted accesses. `a.meet(b)` is the intersection: it permits exactly
what both permit. `a.covers(b)` is true if and only if `a.meet(b) == b`. Two capabilities with equal
authority are `==`, with one exception: a list of addresses and the equivalent CIDR blocks. The
order and repetition of links make no difference, and neither does the position of a link in the
chain.

This module knows no kind of caveat by name. A capability holds one caveat of each kind, in normal
form, and asks it. All statements about tables form one caveat, and all about tools another. A
capability drops an own caveat only if another one makes it redundant.

Three laws follow, and tests check each: `a.meet(a) == a`; `a.meet(b) == b.meet(a)`; and `a` permits
whatever `a.meet(b)` permits. So a further link can only remove rights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from functools import reduce
from types import MappingProxyType
from typing import Any, TypeAlias, cast

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

# The caveats of a capability, by domain, or by key if they have none.
Held: TypeAlias = Mapping[str, BuiltIn]

# The keys of caveats that apply to every access, in their order.
_UNIVERSAL = tuple(kind.key for kind in BUILT_IN if kind.domain == "all")
# Both domains closed: a map without entries matches no table and no tool.
_CLOSED: Held = MappingProxyType(
    {
        "data": TableRights({}),
        "tool": ToolCalls({}),
    }
)
# Both domains open: one entry matches everything and restricts nothing.
_OPEN: Held = MappingProxyType(
    {
        "data": TableRights({"*": ALL_RIGHTS}),
        "tool": ToolCalls({"*": FREE}),
    }
)


class _BuiltIns(SealedValue, frozen=True, eq=False, kw_only=False):
    """The caveats of version 1 in a capability, and the questions that they answer together."""

    held: Held

    def universal(self) -> Iterator[BuiltIn]:
        """The caveats that apply to every access, in a fixed order.

        The order of the links makes no difference, so equal capabilities give equal reasons.
        """
        held = self.held
        return (held[key] for key in _UNIVERSAL if key in held)

    def value(self, slot: str) -> Any:
        """The value of the caveat under that key, or None if no link has one.

        No caveat has the value None, so the result is unambiguous.
        """
        caveat = self.held.get(slot)
        return None if caveat is None else caveat.value

    @property
    def is_nothing(self) -> bool:
        """True if both domains are empty, or a caveat for every access can never hold."""
        named = [self.held[domain] for domain in _CLOSED if domain in self.held]
        if named and all(domain.is_nothing for domain in named):
            return True
        return any(caveat.is_nothing for caveat in self.universal())

    def prohibits(self, access: Access, situation: Situation | None) -> Reason | None:
        """The first reason against `access`, in a fixed order, or None if there is none."""
        # Caveats for every access: first those that ask for the verifier's facts, if there are any.
        asked = [one for one in self.universal() if situation is not None or one.asks_access]
        # The domains follow. If no link names one, both are open and there is nothing to ask.
        names_data, names_tool = access.table is not None, access.tool is not None
        if "data" in self.held:  # then the other domain is there too
            asked += [self.held["data"]] if names_data else []
            asked += [self.held["tool"]] if names_tool else []
        for caveat in sorted(asked, key=lambda one: one.asks_access):
            reason = caveat.prohibits(access, situation)
            if reason is not None:
                return reason

        if "data" in self.held and not (names_data or names_tool):
            return Reason("domain", "the access names no table and no tool")
        return None

    def stated(self) -> dict[str, Any]:
        """The caveats as one link says them."""
        made = self._domains_stated()
        for caveat in self.universal():
            made.update(caveat.stated())
        return made

    def _domains_stated(self) -> dict[str, Any]:
        """The domains as one link says them (spec, 19.8).

        A closed domain is left out if the other one is open.

        If both data and tool are closed, or the tasks lie apart, one empty list of tables says so.
        If one domain permits something, naming only that one closes the other.

            neither is named         {}
            tables, and no tool      {"tables": ["sales"], "operations": ["*"]}
            no table, and no tool    {"tables": []}
        """
        nothing: dict[str, Any] = {"tables": []}
        # A link has only one task, so it cannot say that two tasks lie apart.
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


_NONE = _BuiltIns(MappingProxyType({}))


class Capability(SealedValue, frozen=True, eq=False):
    """A set of permitted accesses, made from links. Immutable.

    `Capability()` permits everything. `data` and `tool` are None if no link has named tables or
    tools: then every access is open. `json()` gives the same capability as the caveats of one link.

    In this example one link says `tables: ["market.*"]` and the next `operations: ["select"]`. The
    capability permits `select` on the tables below `market`, and no tool:

        capability = token.unverified.capability
        capability.data         # {"market.*": Rights(operations={"select"}, columns=None)}
        capability.tool         # {}, since a link that names tables closes tools
        capability.prohibits(Access(table="rates", operation="select")).code    # "table"

    A capability says what a token can do at most. It does not know how much of an allowance is
    left, whether the token is revoked, or who holds it. Verification checks these, and asks every
    link again.
    """

    # The text of the error when somebody tries to serialize it. Its JSON is only for showing.
    _instead = "hand on the token, and read the capability from it"

    _built_in: _BuiltIns = _NONE
    own: tuple[Caveat, ...] = ()  # the caveats that an embedding project defines

    @property
    def held(self) -> Held:
        """The caveats of version 1: one of each kind, in normal form, by domain or key."""
        return self._built_in.held

    @classmethod
    def of(
        cls,
        links: Iterable[Link],
        task: str | None = None,
        audience: str | None = None,
    ) -> Capability:
        """The capability of all `links` together, with the task and audience of a root record.

        It is the intersection of all their caveats. Without links, everything is permitted. The
        root's task and audience each count as one more caveat. What a link repeats from the link
        before it is counted once; the rest is intersected in pairs. So the work grows with the
        length of the links, and hardly with their number.
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
            # A link that names one domain closes the other (spec, "Domains").
            if link.domains:
                closed |= _CLOSED.keys() - link.domains
                said.setdefault("data", [])
                said.setdefault("tool", [])

        return cls(_BuiltIns(_met(said, closed)), own)

    @classmethod
    def of_link(cls, link: Link) -> Capability:
        """The capability of one link by itself, without the links before and after it.

        Use it to compare a link with a capability. The link need not belong to a token.
        """
        return cls.of((link,))

    @classmethod
    def nowhere(cls) -> Capability:
        """The capability of a link that cannot be read: it permits nothing.

        Both domains are closed. So it prohibits an access to a table, to a tool, and to neither.
        """
        return cls(_BuiltIns(_CLOSED))

    # --- what it says ---------------------------------------------------------------------------

    @property
    def nothing(self) -> bool:
        """True if this permits no access at all, whatever the time.

        That is so if each named domain is empty, or if a caveat that applies to every access can
        never hold. Time is ignored: a token that has expired can still return False here.
        """
        return self._built_in.is_nothing

    @property
    def data(self) -> RightsMap | None:
        """The operations and columns for each table pattern; None if no link names a domain.

        An empty map is the opposite of None: it permits no table. The most specific pattern
        decides.
        """
        rights: RightsMap | None = self._built_in.value("data")
        return None if rights is None else MappingProxyType(rights)

    @property
    def tool(self) -> CallMap | None:
        """The arguments for each tool pattern; None if no link names a domain.

        An empty map permits no tool. An entry that is None permits no call of that tool. An empty
        entry leaves all arguments free.
        """
        calls: CallMap | None = self._built_in.value("tool")
        return None if calls is None else MappingProxyType(calls)

    @property
    def where(self) -> Mapping[str, Constraint]:
        """The condition for each attribute that links restrict.

        Empty if no link has a `where`. An attribute without an entry is not restricted.
        """
        where: Any = self.held.get("where")
        return MappingProxyType({} if where is None else where.rules)

    @property
    def expires_at(self) -> int | None:
        """The earliest `exp` of the chain, in seconds since the epoch; None means never.

        The token has expired from that second on. This does not compare it with the present time.
        """
        return _number(self._built_in.value("exp"))

    @property
    def not_before(self) -> int | None:
        """The latest `nbf` of the chain, in seconds since the epoch; None means always valid.

        It can be later than `expires_at`. Such a token is never valid, and `nothing` does not
        report that.
        """
        return _number(self._built_in.value("nbf"))

    @property
    def audiences(self) -> frozenset[str] | None:
        """The servers that accept it: the names in every `aud`. None means any; empty means none.

        A verifier can still refuse a token that names no server (spec, 16.2).
        """
        audiences = self._built_in.value("aud")
        return None if audiences is None else frozenset(audiences)

    @property
    def task(self) -> str | None:
        """The longest task path in the links and the root record; None if there is none.

        It does not tell whether all tasks lie on one path; `nothing` does.
        """
        task = self._built_in.value("task")
        return None if task is None else str(task)

    @property
    def uses(self) -> int | None:
        """The smallest number of uses in the chain; None means no limit.

        Only the ledger knows how many are left.
        """
        return _number(self._built_in.value("uses"))

    @property
    def budget(self) -> Mapping[str, int]:
        """The smallest budget in the chain for each unit.

        A unit without an entry has no limit. Only the ledger knows how much is left.
        """
        return MappingProxyType(self._built_in.value("budget") or {})

    @property
    def fresh(self) -> int | None:
        """The greatest age that a verifier's overlay may have, in seconds; None means any age.

        Verifiers also apply their own limit (spec, 36.7).
        """
        return _number(self._built_in.value("fresh"))

    # --- the algebra ----------------------------------------------------------------------------

    def meet(self, other: Capability) -> Capability:
        """The capability that permits exactly what both permit.

        Caveats of the same kind are intersected. A caveat that only one side has is kept. This is
        exact, because an access is permitted only if every caveat of both sides permits it.

        Neither capability is changed. The result may permit nothing; that is no error.
        """
        held = _BuiltIns(_both_held(self.held, other.held))
        return Capability(held, _both_own(self.own, other.own))

    def covers(self, other: Capability) -> bool:
        """True if this permits everything that `other` permits.

        For a list of addresses and the equivalent CIDR blocks, the answer can be False although the
        two are equal. That is safe: it only refuses more.

        The library makes no decision by this: writers and verifiers compare caveat by caveat. Use
        it to compare what two tokens can do.
        """
        return self.meet(other) == other

    def __eq__(self, other: object) -> bool:
        """True if both permit the same, as far as normal forms show.

        All capabilities that permit nothing are equal, whatever the cause. All others are compared
        caveat by caveat. There is no hash, because values of own caveats may be unhashable.

        This does not compare `json()`, which writes only one of two own caveats with the same key.
        """
        if not isinstance(other, Capability):
            return NotImplemented
        if self.nothing or other.nothing:
            return self.nothing and other.nothing
        return self.held == other.held and self._own_values() == other._own_values()

    __hash__ = None  # type: ignore[assignment]

    def _own_values(self) -> set[tuple[str, bytes]]:
        """The encoded value of each own caveat, without order and repetitions.

        The values are compared as bytes, because in Python `True == 1`, and lists have no hash.
        """
        return {
            (caveat.key, encode_json({"": caveat.value}))  # an object, as the encoder takes
            for caveat in self.own
        }

    # --- asking it ------------------------------------------------------------------------------

    def prohibits(self, access: Access, situation: Situation | None = None) -> Reason | None:
        """The reason why `access` is prohibited, or None if it is permitted.

        Without a `situation`, time and audience are not checked.

        Caveats that apply to every access are asked first. Tables and tools follow, then the rule
        that a domain must be named, and own caveats last. The order decides only which reason is
        returned. An access with both a table and a tool must pass both.

        This covers only what the links say. In a server, ask a `Grant` instead: it also checks
        revocation, possession of the key, and the ledger.
        """
        reason = self._built_in.prohibits(access, situation)
        if reason is not None or not self.own:
            return reason

        # An embedder's caveats always get a situation, if necessary one without facts.
        return prohibited(self.own, access, situation or Situation(0))

    # --- spelling it ----------------------------------------------------------------------------

    def json(self) -> dict[str, Any]:
        """The caveats of one link that permits the same as this capability.

        The facts that only a root record has are left out.

        Read as a link, the result permits the same, with two exceptions. A link has each key once,
        so of several own caveats with one key only the first is written. And several links can
        leave more urls than one link can list.

        So use it to show a capability, and never as something to hand over: to narrow a token, add
        a link to its chain. You may change the returned object, because it shares nothing with this
        capability.
        """
        made = self._built_in.stated()
        for own in self.own:
            made.setdefault(own.key, own.value)
        return deepcopy(made)

    def __repr__(self) -> str:
        """A short text for people: what it permits, or that it permits nothing.

        It contains names of tables, tools and servers, but no secret.
        """
        return f"<Capability {'nothing' if self.nothing else spelled(self.json())}>"


def _number(value: Any) -> int | None:
    """The value, typed as an integer or None."""
    return None if value is None else int(value)


# --- what is held of links ------------------------------------------------------------------------


def _gather(said: dict[str, list[BuiltIn]], caveats: Iterable[Caveat]) -> None:
    """Collect caveats of version 1 by key; one that repeats the last one counts once."""
    for caveat in caveats:
        before = said.get(caveat.key)
        if before is None:
            # Check the key too: an embedder may subclass a caveat of ours under another key.
            if isinstance(caveat, BuiltIn) and not is_own(caveat.key):
                said[caveat.key] = [caveat]
        elif before[-1] != caveat:
            before.append(cast("BuiltIn", caveat))


def _met(said: Mapping[str, list[BuiltIn]], closed: Iterable[str]) -> dict[str, BuiltIn]:
    """The intersection of all that the links say: one caveat in normal form for each kind.

    The five caveats about tables share one entry and are intersected there. If only an own caveat
    has named a domain, that domain stays open. A domain in `closed` permits nothing: `{"tables":
    ["a"]}` names data but not tools, so tools are closed. `{"exp": 1}` names neither, and closes
    nothing (spec 18).
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
            # One after the other: if tasks lie apart, their order decides the result (19.1).
            held[place] = reduce(_both, caveats)
        else:
            held[place] = meet_of(caveats)
    return held


def _both(one: BuiltIn, other: BuiltIn) -> BuiltIn:
    return one.meet(other)


def meet_of(caveats: list[BuiltIn]) -> BuiltIn:
    """The intersection of all of them, in normal form, computed in pairs.

    Computed one after the other, a long first caveat would be read once for each of the others.
    """
    while len(caveats) > 1:
        pairs = zip(caveats[::2], caveats[1::2], strict=False)
        odd = caveats[len(caveats) & ~1 :]
        caveats = [one.meet(two) for one, two in pairs] + odd
    return caveats[0]


def _both_held(one: Held, two: Held) -> Held:
    """The caveats of both, intersected place by place.

    A caveat without a counterpart is taken as it is. The caveats are frozen, so they may be shared.
    """
    both = dict(one)
    for slot, caveat in two.items():
        before = both.get(slot)
        both[slot] = caveat if before is None else before.meet(caveat)
    return both


# --- own caveats: an embedder's code, whose answers may be anything -------------------------------


def _both_own(one: tuple[Caveat, ...], two: Iterable[Caveat]) -> tuple[Caveat, ...]:
    """The own caveats of both, without those that another one makes redundant.

    It is always safe to keep both, since all kept caveats must hold. Dropping one is right only if
    another one says at least as much. Never raises, whatever an embedder's code does.
    """
    kept = list(one)
    for caveat in two:
        at, merged = _place(kept, caveat)
        kept[at : at + 1] = [merged]
    return tuple(kept)


def _place(kept: list[Caveat], caveat: Caveat) -> tuple[int, Caveat]:
    """The position of an own caveat: that of one it merges with, or the end.

    Only caveats with the same key are compared, because different keys ask about different things.
    """
    for at, other in enumerate(kept):
        merged = _merged(caveat, other) if other.key == caveat.key else None
        if merged is not None:
            return at, merged
    return len(kept), caveat


def _merged(one: Caveat, two: Caveat) -> Caveat | None:
    """One own caveat that permits exactly what both permit, or None to keep both.

    If `one` covers `two`, then `one` also permits whatever `two` permits. So `two` alone says both.
    The embedder's code gives these answers; an exception or a value of another type counts as no
    answer.

    A wrong answer can make the shown capability too wide, but grants nothing: verifiers ask every
    own caveat of every link.
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
    """True if `one` says that it covers `two`. Only `True` itself counts.

    Any other answer of an embedder's code counts as no, even if it is truthy. So does an exception.
    """
    try:
        return one.covers(two) is True
    except Exception:  # calling it widening is always safe
        return False


def rights_of(stated: Mapping[str, Any]) -> RightsMap:
    """The map of table rights that data caveats state, by key.

    Raises TypeError or ValueError for an invalid one. Other keys are ignored, so you may pass all
    caveats of a link. Without a data caveat, the map has all rights.
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
