"""What a trail tells: who handed what to whom, what was used of it, and what an overlay would change (spec, "Audit").

    gather          the records, by the hand-overs that they are about
    unused          per hop: granted against used, and the narrower keywords that would have sufficed
    replay          the recorded accesses under a proposed overlay
    blast_radius    what an agent, and all that it has handed on to, can still do, and what cuts it off

Pure functions over records: `read` in `captoken.audit` yields them, and has checked their order. What they say of a
token is what a verifier saw of it: what was never shown to that server is not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from captoken._format import names
from captoken._format.encoding import EncodingError, Integer, b64decode, encode_json
from captoken._format.errors import AuditError, TokenFormatError
from captoken._format.root import RootRecord
from captoken._language.access import Access
from captoken._language.capability import Capability
from captoken._language.caveats import V1, Situation, Vocabulary
from captoken._language.lineage import Actor, read_along
from captoken._language.links import (
    BadLink,
    Link,
    ThirdParty,
    link_prohibits,
    read_link,
    unknown_keys,
)
from captoken._language.overlay import Entry, SelectorFacts, Overlay

RIGHTS = (
    "tables",
    "operations",
    "allow",
    "columns",
    "tools",
    "where",
)  # caveats that say which accesses
_AMOUNTS = ("uses", "budget")


class _LinkSaid(msgspec.Struct):
    id: str
    says: dict[str, Any]


class _Token(msgspec.Struct):
    links: list[_LinkSaid]
    root: dict[str, Any]


class Accessed(msgspec.Struct):
    """What was tried, as it was recorded: names of arguments and attributes, or their values too."""

    table: str | None = None
    operation: str | None = None
    columns: list[str] | None = None
    tool: str | None = None
    arguments: list[str] | dict[str, Any] | None = None
    attributes: list[str] | dict[str, Any] = []
    cost: dict[str, int] = {}


class Decided(msgspec.Struct):
    """A decision as it was recorded."""

    seq: int
    at: Integer
    allowed: bool
    code: str
    access: Accessed | None = None
    chain: list[Actor] = []
    link: str | None = None
    task: str | None = None
    token: str | None = None
    taken: str | None = None  # of a ledger: accesses of one step took it together
    leeway: Integer = 0  # of the verifier


class Hop(msgspec.Struct, eq=False):
    """One holding of a token: from the link that handed it over to whatever the holder added before it handed it on.

    `id` is of that link: an entry on it cuts off this hop and all below. `decisions` are on tokens of this very hop.
    """

    id: str
    root: RootRecord
    holders: tuple[str, ...]
    links: tuple[
        Link | BadLink, ...
    ]  # down to the one that handed it over; of each what is known here
    task: str
    basis: str = "vouched"
    below: list[Hop] = []
    decisions: list[Decided] = []
    unknown: tuple[str, ...] = ()  # caveats among its links that are not known here

    @property
    def agent(self) -> str:
        return self.holders[-1]

    @property
    def capability(self) -> Capability:
        """The most that the holder can do. A caveat that is not known here may leave less: see `unknown`."""
        return Capability.of(
            (link for link in self.links if isinstance(link, Link)),
            self.root.task,
            self.root.audience,
        )

    @property
    def asks(self) -> bool:
        """Does it take a third party's answer as well?"""
        return any(isinstance(link, ThirdParty) for link in self.links)

    @property
    def is_dead(self) -> bool:
        """Does a link prohibit everything? One that is not known here may not, where it is known."""
        return any(isinstance(link, BadLink) for link in self.links) or self.capability.nothing

    @property
    def allowed(self) -> int:
        """Accesses that were allowed."""
        return sum(decision.allowed and decision.access is not None for decision in self.decisions)

    @property
    def denied(self) -> int:
        return sum(not decision.allowed for decision in self.decisions)

    @property
    def shown(self) -> int:
        """How often the token was found in order, and no access was asked: what `authenticate` records."""
        return len(self.decisions) - self.allowed - self.denied

    def walk(self) -> Iterator[Hop]:
        """This hop and all below, from the top."""
        waiting: list[Hop] = [self]
        while waiting:
            hop = waiting.pop()
            yield hop
            waiting += reversed(hop.below)


class Path(msgspec.Struct, frozen=True):
    """A token that was seen: the hops that it went through, and all its links."""

    hops: tuple[Hop, ...]  # of those who have held it, the present holder's last
    link_ids: tuple[str, ...]
    task: str

    @property
    def hop(self) -> Hop:
        return self.hops[-1]


class Trail(msgspec.Struct):
    """The records, in order."""

    roots: list[Hop] = []  # in the order in which they were seen
    paths: dict[str, Path] = {}  # by the id of the last link
    decisions: list[Decided] = []
    strange: list[
        Decided
    ] = []  # on tokens that the records do not describe: nothing of them is vouched for

    def hops(self) -> Iterator[Hop]:
        for root in self.roots:
            yield from root.walk()


def gather(records: Iterable[Mapping[str, Any]], *, vocabulary: Vocabulary = V1) -> Trail:
    """The records of one trail put together. Raises AuditError for one that is none."""
    trail = Trail()
    hops: dict[str, Hop] = {}
    for record in records:
        try:
            if record.get("kind") == "token":
                _describe(trail, hops, msgspec.convert(record, _Token), vocabulary)
            elif record.get("kind") == "decision":
                _decided(trail, msgspec.convert(record, Decided))
        except (msgspec.ValidationError, TokenFormatError, EncodingError) as error:
            raise AuditError(
                f"record {record.get('seq')} says nothing that can be read: {error}"
            ) from None
    return trail


def _describe(trail: Trail, hops: dict[str, Hop], said: _Token, vocabulary: Vocabulary) -> None:
    root = RootRecord.decode(encode_json(said.root))
    read = [_link(link, vocabulary) for link in said.links]
    links = tuple(link for link, _ in read)
    task = root.task
    through: list[Hop] = []
    unknown: dict[str, None] = {}
    for count, (link, strange) in enumerate(read, 1):
        task = _task(task, link)
        unknown.update(dict.fromkeys(strange))
        holders = read_along(root.agent, links[:count]).holders
        if not through or holders != through[-1].holders:
            link_id, basis = said.links[count - 1].id, "vouched" if through else "issued"
            hop = hops.get(link_id)
            if hop is None:
                hop = hops[link_id] = Hop(
                    link_id, root, holders, links[:count], task, basis, unknown=tuple(unknown)
                )
                (through[-1].below if through else trail.roots).append(hop)
            through.append(hop)
    if through:
        link_ids = tuple(link.id for link in said.links)
        trail.paths[link_ids[-1]] = Path(tuple(through), link_ids, task)


def _link(said: _LinkSaid, vocabulary: Vocabulary) -> tuple[Link | BadLink, list[str]]:
    """What is known of a link, and the keys of the caveats that are not: without these it is wider, never narrower."""
    b64decode(said.id)
    if said.says.keys() == {
        "asks"
    }:  # what a third party is asked is sealed, so that there is nothing to say of it
        return ThirdParty(cid=b""), []
    if said.says.keys() == {"unreadable"}:
        return BadLink("unreadable_link", "recorded as unreadable"), []
    link = read_link(encode_json(said.says), vocabulary)
    if isinstance(link, Link) or link.code != "unknown_caveat":
        return link, []
    unknown = unknown_keys(said.says, vocabulary)
    rest = {key: value for key, value in said.says.items() if key not in unknown}
    known = read_link(encode_json(rest), vocabulary) if rest else link
    # What else is wrong with it may be right where the caveat is known.
    if isinstance(known, BadLink):
        known = Link(sender=link.sender, receiver=link.receiver, key=link.key)
    return known, unknown


def _task(task: str, link: Link | BadLink) -> str:
    named = (
        [caveat.value for caveat in link.caveats if caveat.key == "task"]
        if isinstance(link, Link)
        else []
    )
    return next((below for below in named if names.at_or_below(below, task)), task)


def _decided(trail: Trail, decision: Decided) -> None:
    trail.decisions.append(decision)
    path = trail.paths.get(decision.link or "")
    if path is None:
        trail.strange.append(decision)
        return
    path.hop.decisions.append(decision)
    proven = {actor.name for actor in decision.chain if actor.basis == "proven"}
    for hop in path.hops:
        if hop.agent in proven:
            hop.basis = "proven"


# --- granted against used --------------------------------------------------------------------------------------------


class Use(msgspec.Struct, frozen=True):
    """What a hop was granted, and what it and all below it were seen to use.

    `sufficient` are the keywords that would have permitted all that was allowed, and no more than was granted: of
    arguments and attributes whose values were not recorded, what was granted of them. Of `uses` and `budget` it is what
    was reserved: what was given back is not recorded.
    """

    hop: Hop
    allowed: int
    granted: dict[str, Any]
    sufficient: dict[str, Any]
    last: int | None  # seconds since the epoch

    @property
    def is_tight(self) -> bool:
        return self.granted == self.sufficient


def unused(trail: Trail) -> list[Use]:
    """For every hop that is no dead end."""
    return [_use(hop) for hop in trail.hops() if not hop.is_dead]


def _use(hop: Hop) -> Use:
    within = list(hop.walk())
    decisions = [decision for below in within for decision in below.decisions if decision.allowed]
    accesses = [decision.access for decision in decisions if decision.access is not None]
    held = hop.capability
    granted = _stated(held)
    sufficient: dict[str, Any] = (
        _stated(held.meet(_needed(accesses))) if accesses else {"tables": []}
    )
    if held.uses is not None:
        steps = {one.taken or str(one.seq) for one in decisions if one.access is not None}
        sufficient["uses"] = min(held.uses, len(steps))
    if held.budget:
        spent = {unit: sum(access.cost.get(unit, 0) for access in accesses) for unit in held.budget}
        sufficient["budget"] = {
            unit: min(most, spent[unit]) for unit, most in sorted(held.budget.items())
        }
    left = read_along(hop.root.agent, hop.links).left
    if left is not None:
        granted["depth"] = left
    sufficient["depth"] = max(len(below.holders) for below in within) - len(hop.holders)
    return Use(
        hop,
        len(decisions),
        granted,
        sufficient,
        max((decision.at for decision in decisions), default=None),
    )


def _stated(capability: Capability) -> dict[str, Any]:
    return {
        key: value for key, value in capability.json().items() if key in RIGHTS or key in _AMOUNTS
    }


def _needed(accesses: Sequence[Accessed]) -> Capability:
    """The least that permits all of the accesses, as far as they are recorded."""
    said: dict[str, Any] = {}
    tables = sorted({access.table for access in accesses if access.table is not None})
    tools = sorted({access.tool for access in accesses if access.tool is not None})
    if any(access.table is None and access.tool is None for access in accesses):
        tables = (
            tools
        ) = []  # no rights at all: a token that has some permits nothing but tables and tools
    if tables:
        said["allow"] = {
            table: sorted({access.operation or "" for access in _on(accesses, table)})
            for table in tables
        }
        columns = {table: [access.columns for access in _on(accesses, table)] for table in tables}
        listed = {
            table: sorted({column for one in all_ or () for column in one or ()})
            for table, all_ in columns.items()
        }
        said["columns"] = {
            table: listed[table] for table, all_ in columns.items() if None not in all_
        }
    if tools:
        said["tools"] = {
            tool: _calls([access for access in accesses if access.tool == tool]) for tool in tools
        }
    always = [
        key
        for key in accesses[0].attributes
        if all(key in access.attributes for access in accesses)
    ]
    said["where"] = {
        key: _values([access.attributes for access in accesses], key) for key in sorted(always)
    }
    link = (
        read_link(encode_json({key: value for key, value in said.items() if value}), V1)
        if any(said.values())
        else None
    )
    return Capability.of_link(link) if isinstance(link, Link) else Capability()


def _on(accesses: Iterable[Accessed], table: str) -> Iterator[Accessed]:
    return (access for access in accesses if access.table == table)


def _calls(accesses: Sequence[Accessed]) -> dict[str, Any]:
    given = [access.arguments or {} for access in accesses]
    named = sorted({argument for arguments in given for argument in arguments})
    made = {}
    for argument in named:
        optional = {} if all(argument in arguments for arguments in given) else {"optional": True}
        made[argument] = _values(given, argument) | optional
    return made or {"_": {"in": [], "optional": True}}  # no arguments at all


def _values(given: Iterable[list[str] | dict[str, Any]], key: str) -> dict[str, Any]:
    """The narrowest constraint that accepts all values that `key` had; anything where one was not recorded."""
    values: list[Any] = []
    for stated in given:
        if key in stated:
            if not isinstance(stated, dict) or not _is_exact(stated[key]):
                return {"any": True}
            values.append(stated[key])
    return {
        "in": [value for _, value in sorted({(type(value).__name__, value) for value in values})]
    }


def _is_exact(value: Any) -> bool:
    """Is it a value that a constraint can be about? What canonical JSON has no spelling for is recorded as an object."""
    return type(value) in (str, int, bool)


# --- what an overlay would change ------------------------------------------------------------------------------------

Outcome = Literal["same", "denied", "unknown"]


class Replayed(msgspec.Struct, frozen=True):
    """A recorded decision under another overlay: the same, denied, or not to be known from what was recorded."""

    decision: Decided
    outcome: Outcome
    why: str = ""
    entry: Entry | None = None  # the one that denies it, or on which it depends


_OVERLAID = ("revoked", "narrowed", "stale_overlay")
_TAKEN = ("budget_exhausted", "replayed")  # since an earlier request had taken it


def replay(trail: Trail, overlay: Overlay, *, vocabulary: Vocabulary = V1) -> list[Replayed]:
    """Each decision again, as if this overlay had stood at the time, from its first second on.

    An overlay only takes away: what was denied for another reason stays denied. What an earlier overlay had denied, and
    this one would not, is unknown: what else would have denied it was not recorded. So is what was denied for want of what
    an earlier request on a token of the same tree had taken, if that one is no longer allowed for certain.
    """
    found: list[Replayed] = []
    freed: set[str | None] = set()  # token ids
    for decision in trail.decisions:
        again = _again(trail, decision, overlay, vocabulary, decision.token in freed)
        if decision.allowed and again.outcome != "same":
            freed.add(decision.token)
        found.append(again)
    return found


def _again(
    trail: Trail, decision: Decided, overlay: Overlay, vocabulary: Vocabulary, freed: bool
) -> Replayed:
    path = trail.paths.get(decision.link or "")
    left = freed and decision.code in _TAKEN
    if not (decision.allowed or decision.code in _OVERLAID or left):
        return Replayed(decision, "same")
    if path is None:
        return Replayed(decision, "unknown", "the records do not describe the token")
    ids = [b64decode(link) for link in path.link_ids]
    facts = SelectorFacts(path.hop.root, ids, path.task, path.hop.holders)
    unknown: Replayed | None = None
    for entry in overlay.on(facts, decision.at):
        link = overlay.link(entry)
        if link is None:
            return _denied(decision, "revoked", f"revoked: {entry.why}", entry)
        reason, missing = _asked(link, entry.link or {}, decision, vocabulary)
        if reason is not None:
            return _denied(decision, "narrowed", f"{entry.why}; {reason}", entry)
        if missing and unknown is None:
            unknown = Replayed(decision, "unknown", f"not recorded: {', '.join(missing)}", entry)
    if unknown is not None and decision.allowed:
        return unknown
    if left:
        return Replayed(decision, "unknown", "what an earlier request had taken may be left")
    if not decision.allowed:
        return Replayed(
            decision,
            "unknown",
            "this overlay would not deny it, and what else would was not recorded",
        )
    return Replayed(decision, "same")


def _denied(decision: Decided, code: str, why: str, entry: Entry) -> Replayed:
    return Replayed(decision, "denied" if decision.allowed else "same", why, entry)


def _asked(
    link: Link, stated: Mapping[str, Any], decision: Decided, vocabulary: Vocabulary
) -> tuple[str | None, list[str]]:  # fmt: skip
    """Why the link prohibits for certain, or None; and what would have to be known to say that it does not."""
    missing = [
        f"{what} of the server"
        for key, what in (("aud", "the name"), ("fresh", "the overlay's age"))
        if key in stated
    ]
    said = decision.access
    loose = {key: value for key, value in stated.items() if key not in ("aud", "fresh")}
    access = None
    if said is not None:
        arguments, lost = _recorded(said.arguments or {}, "argument")
        attributes, lost_too = _recorded(said.attributes, "attribute")
        if "tools" in loose and said.tool is not None and lost:
            loose["tools"] = {
                tool: _loosened(rule, lost, missing, "argument")
                for tool, rule in loose["tools"].items()
            }
        if "where" in loose and lost_too:
            loose["where"] = _loosened(loose["where"], lost_too, missing, "attribute")
        try:
            access = Access(
                table=said.table, operation=said.operation, columns=said.columns, tool=said.tool,
                arguments=arguments if said.tool is not None else None, attributes=attributes, cost=said.cost,
            )  # fmt: skip
        except (TypeError, ValueError) as error:
            return None, [f"an access ({error})"]
    if loose != stated:
        read = read_link(encode_json(loose), vocabulary) if loose else None
        if not isinstance(read, Link):
            return None, missing
        link = read
    reason = link_prohibits(
        link, access, Situation(decision.at, decision.leeway, task=decision.task or "")
    )
    return (reason.text if reason is not None else None), list(dict.fromkeys(missing))


def _recorded(given: list[str] | dict[str, Any], what: str) -> tuple[dict[str, Any], set[str]]:
    """Names and values, and the names whose values were not recorded."""
    if isinstance(given, dict):
        return given, {key for key, value in given.items() if not _is_exact(value)}
    return dict.fromkeys(given), set(given)


def _loosened(
    rule: Mapping[str, Any], lost: set[str], missing: list[str], what: str
) -> dict[str, Any]:
    """A rule that asks of the values that are lost nothing; what it did ask is missing."""
    made = dict(rule)
    for key in sorted(lost & rule.keys()):
        kept = {"optional": True} if rule[key].get("optional") else {}
        if rule[key] not in ({"any": True} | kept, {"in": []} | kept):
            missing.append(f"the value of {what} {key}")
            made[key] = {"any": True} | kept
    return made


# --- what an agent can still do --------------------------------------------------------------------------------------


class Reach(msgspec.Struct, frozen=True):
    """A hop that still works, and the hop of the agent from which it came: an entry on that one's link cuts off both."""

    hop: Hop
    cut: Hop


def blast_radius(trail: Trail, agent: str, now: int, *, leeway: int = 0) -> list[Reach]:
    """The tokens that an agent has, and all that came of them, that still work at `now`, at a server with that `leeway`.

    What it could make of them without showing it to this server is no more than they permit. Revocations that were
    published meanwhile are not looked at. Caveats that are not known here are taken for ones that permit.
    """
    found: list[Reach] = []
    for top in trail.hops():
        if top.agent == agent:
            found += [Reach(hop, top) for hop in top.walk() if _works(hop, now - leeway)]
    return found


def _works(hop: Hop, now: int) -> bool:
    ends = hop.capability.expires_at
    return not hop.is_dead and (ends is None or now < ends)
