"""What the page asks for, as JSON: read off the index, the overlay and the ledger. Changes nothing.

All names, arguments and reasons in it are what strangers wrote. They leave this file as `plain`
text: what does not print, what steers, and letters that only look like others come out as their
numbers. The page shows them as text, and builds nothing of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from captoken._format.encoding import encode_json
from captoken._language import patterns
from captoken._language.capability import Capability
from captoken._language.caveats import COUNTED, V1
from captoken._language.entries import Entry, SelectorFacts
from captoken._language.link import BadLink, Link
from captoken._language.links import read_link
from captoken._language.overlay import Overlay
from captoken.audit import analysis
from captoken.cli import words
from captoken.cli.console import histories
from captoken.cli.console.index import Index
from captoken.cli.console.queries import Query, tallied
from captoken.cli.console.tables import BELOW, Call
from captoken.cli.logged import tried
from captoken.cli.words import may, plain

TASKS = 200  # of one answer
PAGE = 100  # decisions of one answer, unless asked for fewer
BARS = 60  # of a series
SPARKS = 30  # of one agent's
_MINUTE = 60

# A task that is younger has bars of seconds, not of minutes, unless its calls are too many for it.
_YOUNG = 600
_FINE = 10
_FEW = 20_000

Json = dict[str, Any]

# What a bucket of the ledger has been debited; None where no ledger is at hand.
Spent = Callable[[bytes, str], int | None]


# --- tokens and hops ------------------------------------------------------------------------------


class Known(msgspec.Struct, frozen=True, eq=False):
    """A hop as its token was described: what it may do, and what entries ask about it."""

    hop: analysis.Hop
    facts: SelectorFacts
    through: tuple[analysis.Hop, ...]

    # What it has in common with the same hand-over at the other servers of a set.
    way: tuple[Any, ...]

    @property
    def select(self) -> dict[str, str]:
        """What an entry selects that stops it and all below, at every server of a set.

        The hand-over by its `n`: the link has another id at each server.
        """
        token = {"token": self.hop.root.token_id}
        if len(self.through) == 1:
            return token
        nonce = self.hop.nonce
        return {"link": self.hop.id} if nonce is None else token | {"hop": nonce}


@lru_cache(maxsize=20_000)
def known(said: str) -> Known:
    """A hop, read from what the index keeps of it."""
    (token,) = analysis.gather([json.loads(said)]).tokens.values()
    return Known(token.hop, token.selected_by, token.hops, analysis.way_to(token.hops))


def _same(index: Index, id: str) -> list[str]:
    """A hop, and the same hand-over at the other servers of a set. Empty if there is none."""
    rows = index.rows("select task, agent, token, said from hops where id = ?", id)
    if not rows:
        return []
    *values, said = rows[0]
    query = "select id, said from hops where task = ? and agent = ? and token = ? order by id"
    its = known(said).way
    return [one for one, other in index.rows(query, *values) if known(other).way == its]


# --- what stands ----------------------------------------------------------------------------------


class Past:
    """What operators had said by a time, out of an overlay of that time or of a later one.

    What was lifted before that overlay is not in it.
    """

    def __init__(self, overlay: Overlay, at: int) -> None:
        self._overlay = overlay
        self._at = at
        self.entries = tuple(entry for entry in overlay.entries if entry.at <= at)

    def touches(self, keys: Sequence[str | bytes]) -> bool:
        """May an entry be on what has these keys?"""
        return self._overlay.touches(keys)

    def on(self, facts: SelectorFacts, now: int) -> list[Entry]:
        """The entries on a token, of those that were there."""
        return [entry for entry in self._overlay.on(facts, now) if entry.at <= self._at]


Said = Overlay | Past


def _entries_on(facts: SelectorFacts, overlay: Said | None, now: int) -> Sequence[Entry]:
    if overlay is None or not overlay.touches(facts.keys):
        return ()
    return overlay.on(facts, now)


def entries_of(found: Known, overlay: Said | None, now: int) -> Sequence[Entry]:
    """What operators say of a hop now."""
    return _entries_on(found.facts, overlay, now)


def left_of(found: Known, entries: Iterable[Entry]) -> Capability:
    """What a hop permits together with entries of the overlay."""
    return _left(found, tuple(sorted(encode_json(one.link) for one in entries if one.link)))


@lru_cache(maxsize=20_000)
def _left(found: Known, narrowing: tuple[bytes, ...]) -> Capability:
    links = [*found.hop.links, *(read_link(one, V1) for one in narrowing)]
    known_links = [link for link in links if isinstance(link, Link)]
    return Capability.of(known_links, found.hop.root.task, found.hop.root.audience)


def state_of(found: Known, overlay: Said | None, now: int) -> str:
    """Whether a hop can still do anything, and whether an operator said something of it.

    `stopped` is one that entries leave nothing, though none revokes it.
    """
    entries = _entries_on(found.facts, overlay, now)
    if any(entry.link is None for entry in entries):
        return "revoked"
    ends = found.hop.capability.expires_at
    if found.hop.is_dead or (ends is not None and now >= ends):
        return "expired"
    if not entries:
        return "live"
    return "stopped" if left_of(found, entries).nothing else "narrowed"


_TASK = "task, subject, first_at, last_at, allowed, denied"

# The same, but a record dated ahead of this clock is not the last: it would keep its task on top.
_TASK_BY_NOW = """
task, subject, first_at, case when last_at <= ? then last_at else coalesce(
    (select max(moment) / 1000 from calls where calls.task = tasks.task and moment < ?), first_at
) end as last_by_now, allowed, denied
"""
_BEGUN = "exists (select 1 from calls where calls.task = tasks.task and moment <= ?)"
_AHEAD = 5  # seconds that servers' clocks may be ahead of this one
# --- now ------------------------------------------------------------------------------------------


def now_view(
    index: Index,
    overlay: Said | None,
    now: int,
    at: int | None = None,
) -> Json:
    """All tasks, those that did something last first. As of `at`, where that is said."""
    then = now if at is None else at
    trails = [
        {
            "name": plain(trail.name),
            "records": trail.head.seq - trail.after.seq,
            "last_at": trail.last_at,
            "trouble": None if trail.trouble is None else plain(trail.trouble),
            "lacks": trail.lacks,
        }
        for trail in index.wholes()
    ]
    # Looking back, a task that had no call yet was not there.
    ahead = now + _AHEAD if at is None else at
    begun = "" if at is None else f"and {_BEGUN}"
    values = (then,) if at is None else (then, at * 1000 + 999)
    rows = index.rows(
        f"""
        select {_TASK_BY_NOW} from tasks where first_at <= ? {begun}
        order by last_by_now desc, task limit ?
        """,
        ahead,
        (ahead + 1) * 1000,
        *values,
        TASKS + 1,
    )
    tasks = [_task(index, overlay, row, then, at) for row in rows[:TASKS]]
    ((count,),) = index.rows(f"select count(*) from tasks where first_at <= ? {begun}", *values)
    ((first,),) = index.rows("select min(first_at) from tasks")
    return {
        "rev": index.revision,
        "now": now,
        "first_at": first,
        "trails": trails,
        "tasks": tasks,
        "more": max(0, count - len(tasks)),
    }


def overlay_facts(overlay: Overlay | None) -> Json | None:
    """How fresh it is, and how much it says."""
    if overlay is None:
        return None
    return {
        "seq": overlay.seq,
        "issued_at": overlay.issued_at,
        "expires_at": overlay.expires_at,
        "entries": len(overlay.entries),
    }


def _task(
    index: Index,
    overlay: Said | None,
    row: tuple[Any, ...],
    now: int,
    at: int | None,
) -> Json:
    """A task in a line."""
    task, subject, first_at, last_at, allowed, denied = row
    if at is not None:
        allowed, denied, last_at = _counted_until(index, task, at)
    of_then = "" if at is None else f"and id in (with recursive {_THERE} select id from there)"
    ((tokens, agents, ends, endless),) = index.rows(
        f"""
        select count(distinct token), count(*), max(expires_at), sum(expires_at is null)
        from hops where task = ? {of_then}
        """,
        task,
        *(() if at is None else (task, at)),
    )
    expires_at = None if endless else ends
    return {
        "task": plain(task),
        "key": task,
        "subject": plain(subject),
        "tokens": tokens,
        "agents": agents,
        "first_at": first_at,
        "last_at": last_at,
        "allowed": allowed,
        "denied": denied,
        "expires_at": expires_at,
        "state": _state_of_task(index, overlay, task, expires_at, now),
    }


def _counted_until(index: Index, task: str, at: int) -> tuple[int, int, int | None]:
    """Calls of a task up to a second, allowed and denied; and when the last was, if there was."""
    ((last,),) = index.rows(
        "select max(moment) from calls where task = ? and moment <= ?", task, at * 1000 + 999
    )
    within = "hop in (select id from hops where task = ?)"
    return (*_counts(index, within, "task = ?", task, at), None if last is None else last // 1000)


def _counts(index: Index, of_minutes: str, of_calls: str, value: str, at: int) -> tuple[int, int]:
    """Calls up to a second, allowed and denied: whole minutes, and what was in the last one."""
    minute = at // _MINUTE
    ((allowed, denied),) = index.rows(
        f"""
        select coalesce(sum(allowed), 0), coalesce(sum(denied), 0)
        from minutes where {of_minutes} and minute < ?
        """,
        value,
        minute,
    )
    ((more, of_these),) = index.rows(
        f"""
        select count(*), coalesce(sum(allowed), 0) from calls
        where {of_calls} and moment between ? and ?
        """,
        value,
        minute * _MINUTE * 1000,
        at * 1000 + 999,
    )
    return allowed + of_these, denied + more - of_these


def _state_of_task(
    index: Index,
    overlay: Said | None,
    task: str,
    expires_at: int | None,
    now: int,
) -> str:
    """Of all its tokens: one that is over has none that works."""
    if expires_at is not None and now >= expires_at:
        return "over"
    if overlay is None or not overlay.entries:
        return "live"
    said = index.rows("select said from hops where task = ? and parent is null limit 50", task)
    states = {state_of(known(one), overlay, now) for (one,) in said}
    if states <= {"revoked", "expired", "stopped"}:
        return "ended"
    return "live" if states <= {"live", "expired"} else "narrowed"


# The hops of a task that had a call by a second, and those that these came of.
_THERE = """
there (id) as (select id from hops where task = ? and first_at <= ?
union select hops.parent from hops join there using (id) where hops.parent is not null)
"""

# --- one task -------------------------------------------------------------------------------------

# Where records of marks are.
_PLACE = "trail, offset, length, digest"
_OF_TASK = "subject = ? and task = ? and moment <= ?"
_MARKS = 100
_CLOSED = 10

_NODE = "id, parent, agent, basis, first_at, expires_at, allowed, denied, last, said, trails"


def task_view(
    index: Index,
    overlay: Said | None,
    spent: Spent,
    now: int,
    task: str,
    at: int | None = None,
) -> Json | None:
    """The tree of a task: who handed on to whom, and what came of it. None if there is none."""
    then = now if at is None else at
    rows = index.rows(f"select {_TASK} from tasks where task = ?", task)
    if not rows:
        return None
    step = _step(index, rows[0], then)
    sparks = _sparks(index, "task = ?", task, then, step)
    strange = stolen_calls(index, "hop in (select id from hops where task = ?)", task, then)
    there = None
    if at is not None:
        found = index.rows(f"with recursive {_THERE} select id from there", task, at)
        there = {id for (id,) in found}
    nodes = _put_together(
        [
            (
                known(row[9]).way,
                _node(index, overlay, spent, row, then, at, (step, sparks), strange),
            )
            for row in index.rows(
                f"select {_NODE} from hops where task = ? order by depth, first_at, id", task
            )
            if there is None or row[0] in there
        ]
    )
    return {
        "task": _task(index, overlay, rows[0], then, at),
        "nodes": nodes,
        "marks": _marks(index, rows[0], then),
        "closed": _closed(index, rows[0], then),
        "series": _series(sparks, then, step),
    }


def _marks(index: Index, row: tuple[Any, ...], now: int) -> list[Json]:
    """What a task has set up to now: by whom and by what, as the first record says it."""
    query = f"""
        select name, whose, 0, {_PLACE}, moment, null from marks
        where {_OF_TASK} order by moment limit {_MARKS}
    """
    found = index.rows(query, *_marked_as(row), now * 1000 + 999)
    calls = [Call(*call) for _, _, *call in found]
    return [
        {
            "name": plain(name),
            "whose": plain(whose),
            "since": call.moment // 1000,
            "by": by,
        }
        for (name, whose, *_), call, by in zip(
            found, calls, rows_of(index, calls), strict=True
        )
    ]


def _closed(index: Index, row: tuple[Any, ...], now: int) -> Json:
    """What rules over marks denied up to now: how much, and the last of it."""
    values = (*_marked_as(row), now * 1000 + 999)
    ((count,),) = index.rows(f"select count(*) from closed where {_OF_TASK}", *values)
    query = f"""
        select 0, {_PLACE}, moment, null from closed
        where {_OF_TASK} order by moment desc limit {_CLOSED}
    """
    calls = [Call(*call) for call in index.rows(query, *values)]
    return {"count": count, "rows": rows_of(index, calls)}


def _marked_as(row: tuple[Any, ...]) -> tuple[str, str]:
    """Whose marks a task shares: those of its subject, and of the name up to the first slash."""
    task, subject, *_ = row
    return subject, analysis.shares_marks(task)


def _put_together(found: Iterable[tuple[tuple[Any, ...], Json]]) -> list[Json]:
    """One node for each hand-over: at the servers of a set it is one, by the same way (spec 45.8).
    """
    groups: dict[tuple[Any, ...], list[Json]] = {}
    for way, node in found:
        groups.setdefault(way, []).append(node)
    nodes = [_one_of(group) for group in groups.values()]
    shown = {
        one["id"]: node["id"]
        for group, node in zip(groups.values(), nodes, strict=True)
        for one in group
    }
    return [{**node, "parent": shown.get(node["parent"])} for node in nodes]


# From the one that can do most: what works at one server works.
ALIVE = ("live", "narrowed", "used", "expired", "stopped", "revoked")
_KNOWN = ("vouched", "issued", "proven")


def _one_of(nodes: Sequence[Json]) -> Json:
    """The node of a hand-over, from those of each server: it looks no safer than any of them.

    `at` has what each server says, by itself.
    """
    if len(nodes) == 1:
        return nodes[0]
    first = min(nodes, key=lambda node: (node["since"] is None, node["since"], node["id"]))
    ends = [node["expires_at"] for node in nodes]
    lasts = [node["last"] for node in nodes if node["last"] is not None]
    return {
        **first,
        "basis": min((node["basis"] for node in nodes), key=_KNOWN.index),
        "expires_at": None if None in ends else max(ends),
        "allowed": sum(node["allowed"] for node in nodes),
        "denied": sum(node["denied"] for node in nodes),
        "strange": sum(node["strange"] for node in nodes),
        "last": max(lasts, key=lambda last: last["at"], default=None),
        "words": _by_server((node["servers"], node["words"]) for node in nodes),
        "budget": [one for node in nodes for one in node["budget"]],
        "state": min((node["state"] for node in nodes), key=ALIVE.index),
        "spark": [sum(bars) for bars in zip(*(node["spark"] for node in nodes), strict=True)],
        "refused": [sum(bars) for bars in zip(*(node["refused"] for node in nodes), strict=True)],
        "servers": list(dict.fromkeys(name for node in nodes for name in node["servers"])),
        "at": [{key: node[key] for key in ("servers", "allowed", "denied")} for node in nodes],
    }


def _by_server(said: Iterable[tuple[Sequence[str], Iterable[str]]]) -> list[str]:
    """Lines that are the same at all servers, and then what each has of its own."""
    lines = [(", ".join(servers) or "a server", list(own)) for servers, own in said]
    common = [line for line in lines[0][1] if all(line in own for _, own in lines)]
    rest = [(server, [line for line in own if line not in common]) for server, own in lines]
    return common + [f"at {server}: {line}" for server, own in rest for line in own]


# What was called lately, by hop: of each bar, how many calls were allowed and denied.
Sparks = dict[str, dict[int, tuple[int, int]]]


def _step(index: Index, task: tuple[Any, ...], now: int) -> int:
    """Seconds of a bar: few while the task is young."""
    _, _, first_at, _, allowed, denied = task
    is_young = now - first_at < _YOUNG - _MINUTE and allowed + denied <= _FEW
    return _FINE if is_young else _MINUTE


def _sparks(index: Index, condition: str, value: str, now: int, step: int) -> Sparks:
    """The bars of the hops of a task, or of one hop."""
    last = now // step
    span = (last - BARS + 1, last)
    if step == _MINUTE:
        rows = index.rows(
            f"""
            select hop, minute, minutes.allowed, minutes.denied
            from minutes join hops on hops.id = minutes.hop
            where hops.{condition} and minute between ? and ?
            """,
            value,
            *span,
        )
    else:
        which = condition.replace("id", "hop")
        rows = index.rows(
            f"""
            select hop, moment / {step * 1000} as bar, sum(allowed), sum(1 - allowed)
            from calls where {which} and moment between ? and ? and hop is not null
            group by hop, bar
            """,
            value,
            span[0] * step * 1000,
            now * 1000 + 999,
        )
    found: Sparks = {}
    for hop, bar, allowed, denied in rows:
        found.setdefault(hop, {})[bar] = (allowed, denied)
    return found


def _bars(sparks: Iterable[Mapping[int, tuple[int, int]]], last: int, count: int) -> list[Any]:
    """Allowed and denied, a bar each, up to the last one."""
    allowed = [0] * count
    denied = [0] * count
    for found in sparks:
        for bar, (yes, no) in found.items():
            place = bar - last + count - 1
            if 0 <= place < count:
                allowed[place] += yes
                denied[place] += no
    return [allowed, denied]


def _series(sparks: Sparks, now: int, step: int) -> Json:
    """Calls of a task, up to now."""
    last = now // step
    allowed, denied = _bars(sparks.values(), last, BARS)
    first = (last - BARS + 1) * step
    return {"from": first, "step": step, "allowed": allowed, "denied": denied}


def _node(
    index: Index,
    overlay: Said | None,
    spent: Spent,
    row: tuple[Any, ...],
    now: int,
    at: int | None,
    sparks: tuple[int, Sparks],
    strange: Mapping[str, int],
) -> Json:
    """A hop: who holds it, what it may do and did. What a thief was refused is not among that."""
    id, parent, agent, basis, first_at, expires_at, allowed, denied, last, said, trails = row
    found = known(said)
    if at is not None:
        allowed, denied = _counts(index, "hop = ?", "hop = ?", id, at)
    step, by_hop = sparks
    yes, no = _bars([by_hop.get(id, {})], now // step, SPARKS)
    budget = budget_of(found, spent if at is None else not_known)
    return {
        "id": id,
        "parent": parent,
        "agent": plain(agent),
        "basis": basis,
        "since": first_at,
        "expires_at": expires_at,
        "allowed": allowed,
        "denied": denied - strange.get(id, 0),
        "strange": strange.get(id, 0),
        "last": None if last is None or at is not None else _last(index, json.loads(last)),
        "words": may_now(found, overlay, now),
        "budget": budget,
        "state": _spent_state(state_of(found, overlay, now), budget),
        "spark": [a + b for a, b in zip(yes, no, strict=True)],
        "refused": no,
        "step": step,
        "servers": [plain(name) for name in _names(index, trails)],
        "at": [],
    }


def may_now(found: Known, overlay: Said | None, now: int) -> list[str]:
    """What it may do, by its token and by what operators say."""
    entries = _entries_on(found.facts, overlay, now)
    if any(entry.link is None for entry in entries):
        return ["nothing"]
    return may(found.hop, now, left_of(found, entries) if entries else None)


# What those are refused who have a token, and not its key.
STOLEN = ("bad_proof", "proof_missing")


def stolen_calls(index: Index, of: str, value: str, now: int) -> dict[str, int]:
    """How many calls up to a second were made with a token, and not with its key. By hop."""
    condition = f"what in (select id from whats where code in (?, ?)) and {of}"
    query = Query(condition, (*STOLEN, value), 0, now * 1000 + 999)
    return {tally.hop: tally.denied for tally in tallied(index, query)}


def _names(index: Index, trails: int) -> list[str]:
    """The trails that have a hop, each once: several files can be one trail."""
    return list(
        dict.fromkeys(name for trail, name in index.names.items() if trails >> (trail - 1) & 1)
    )


def not_known(bucket: bytes, unit: str) -> None:
    """What was left at a time, no ledger says."""


def _last(index: Index, place: Mapping[str, Any]) -> Json | None:
    """What was decided last."""
    its: dict[str, Any] = {**place, "digest": bytes.fromhex(place["digest"])}
    call = Call(id=0, hop=None, **its)
    (record,) = index.records([call])
    decided = decided_of(record)
    if decided is None:
        return None
    return {
        "at": decided.moment // 1000,
        "what": plain(tried(decided.access)),
        "allowed": decided.allowed,
        "code": plain(decided.code),
    }


def decided_of(record: Mapping[str, Any] | None) -> analysis.Decided | None:
    """A decision, as its record says it. None where it is not what it was."""
    try:
        return None if record is None else msgspec.convert(record, analysis.Decided)
    except ValueError:  # msgspec's errors are ValueErrors, too
        return None


def budget_of(found: Known, spent: Spent) -> list[Json]:
    """What may be used how often, at each link that counts, and what is left of it by the ledger.

    A link above counts for all below it: what it has left is shared.
    """
    links = zip(_holders(found), found.facts.links, found.hop.links, strict=True)
    return [
        {
            "unit": plain(unit),
            "of": plain(holder),
            "limit": limit,
            "spent": spent(bucket, unit),
        }
        for holder, bucket, link in links
        for unit, limit in _limits(link)
    ]


def _spent_state(state: str, budget: list[Json]) -> str:
    """`used` where it would be live, and nothing is left in one of its units."""
    works = state in ("live", "narrowed")
    is_used = any((one["spent"] or 0) >= one["limit"] for one in budget)
    return "used" if works and is_used else state


def _holders(found: Known) -> list[str]:
    """Whose each link is: who got the token with it."""
    holders: list[str] = []
    for hop in found.through:
        holders += [hop.agent] * (len(hop.links) - len(holders))
    return holders


def _limits(link: Link | BadLink) -> list[tuple[str, int]]:
    """What a link counts: uses, and each unit of its budget."""
    limits: list[tuple[str, int]] = []
    for caveat in () if isinstance(link, BadLink) else link.late:
        if caveat.key == "uses":
            limits.append(("uses", caveat.value))
        elif caveat.key == "budget":
            limits += sorted(caveat.value.items())
    return limits


# --- one agent ------------------------------------------------------------------------------------


def agent_view(
    index: Index,
    overlay: Said | None,
    spent: Spent,
    now: int,
    id: str,
    at: int | None = None,
) -> Json | None:
    """One hop: how it came to be, what it may do, did, and never needed, and what stops it.

    As of `at`, where that is said, but for what it never needed.
    """
    then = now if at is None else at
    same = _same(index, id)
    if not same:
        return None
    rows = [index.rows(f"select {_NODE} from hops where id = ?", one)[0] for one in same]
    rows.sort(key=lambda row: (row[4] is None, row[4], row[0]))  # as `_one_of` has it
    ((task,),) = index.rows("select task from hops where id = ?", id)
    (facts,) = index.rows(f"select {_TASK} from tasks where task = ?", task)
    step = _step(index, facts, then)
    nodes = [
        _node(
            index,
            overlay,
            spent,
            row,
            then,
            at,
            (step, _sparks(index, "id = ?", row[0], then, step)),
            stolen_calls(index, "hop = ?", row[0], then),
        )
        for row in rows
    ]
    founds = [known(row[9]) for row in rows]
    servers = [node["servers"] for node in nodes]
    said = {
        entry.id: entry for found in founds for entry in _entries_on(found.facts, overlay, then)
    }
    chains = [_chain(index, found, then) for found in founds]
    return {
        "node": _one_of(nodes),
        "chain": [
            {
                **steps[0],
                "took": _by_server(zip(servers, (one["took"] for one in steps), strict=True)),
            }
            for steps in zip(*chains, strict=True)
        ],
        "may": _by_server(
            zip(servers, (may_now(one, overlay, then) for one in founds), strict=True)
        ),
        "by_token": _by_server(zip(servers, (may(one.hop, then) for one in founds), strict=True))
        if said
        else [],
        "said": [entry_view(entry, then) for entry in said.values()],
        # What would have been enough differs from server to server.
        "unused": _unused(index, id) if len(same) == 1 else None,
        "reach": _reach(index, overlay, id, then),
        "decisions": decisions_view(index, hop=id, at=at),
    }


def _chain(index: Index, found: Known, now: int) -> list[Json]:
    """From the first holder to this one: what each left when it handed on, and what it took."""
    bases: dict[str, str] = dict(
        index.rows(
            f"select id, basis from hops where id in ({', '.join('?' * len(found.through))})",
            *(hop.id for hop in found.through),
        )
    )
    before = [0, *(len(hop.links) for hop in found.through)]
    return [
        {
            "holder": plain(hop.agent),
            "basis": bases.get(hop.id, hop.basis),
            "id": hop.id,
            "took": [plain(line) for link in hop.links[start:] for line in took(link, now)],
            "lost": [] if above is None else _lost(above, hop),
        }
        for start, above, hop in zip(before, (None, *found.through), found.through, strict=False)
    ]


def _lost(above: analysis.Hop, hop: analysis.Hop) -> list[str]:
    """The names that a holder had, and the next one has not: tables, operations and tools."""
    had, has = above.capability.json(), hop.capability.json()
    lost: list[str] = []
    for kind, keys in _NAMING.items():
        left = [name for key in keys for name in has.get(key) or ()]
        names = [name for key in keys for name in had.get(key) or ()]
        gone = [one for one in names if not any(patterns.contains(own, one) for own in left)]
        if gone:
            lost.append(plain(f"{kind} {', '.join(gone)}"))
    return lost


_NAMING = {"tables": ("tables", "allow"), "operations": ("operations",), "tools": ("tools",)}


def _below(index: Index, id: str) -> list[str]:
    """A hop, and all below it."""
    query = f"with recursive {BELOW} select id from below limit 10000"
    return [one for (one,) in index.rows(query, id)]


def took(link: Link | BadLink, now: int) -> list[str]:
    """What a link took away, in words."""
    if isinstance(link, BadLink):
        return ["everything: the link cannot be read"]
    said = words.of_caveats([*link.early, *link.late], now)
    return [*said, *words.of_position(link.depth, link.delegate_only)]


def _unused(index: Index, id: str) -> Json | None:
    """The narrower token that would have done, in words to be pasted. None where all was needed.

    Of calls that are like each other one is looked at, unless the token counts them.
    """
    below = _below(index, id)
    ((said,),) = index.rows("select said from hops where id = ?", id)
    is_counted = any(_limits(link) for link in known(said).hop.links)
    history, is_all = histories.of_uses(index, below), True
    if is_counted:
        history, is_all = histories.of_hops(index, below)
    for usage in analysis.unused(history):
        if usage.hop.id == id and not usage.is_tight:
            keywords = {key: value for key, value in usage.sufficient.items() if key != "depth"}
            if not is_all:
                # What was counted of some calls is too little for all.
                keywords = {key: value for key, value in keywords.items() if key not in COUNTED}
            said = ", ".join(f"{key}={value!a}" for key, value in keywords.items())
            return {
                # What an operator can narrow it to: no entry counts.
                "keywords": {k: value for k, value in keywords.items() if k not in COUNTED},
                "python": f"token.attenuate({said})",
                "allowed": _allowed(index, below),
            }
    return None


def _allowed(index: Index, hops: Sequence[str]) -> int:
    """How many calls of some hops were allowed."""
    marks = ", ".join("?" * len(hops))
    ((allowed,),) = index.rows(f"select sum(allowed) from hops where id in ({marks})", *hops)
    return int(allowed or 0)


def _reach(index: Index, overlay: Said | None, id: str, now: int) -> Json:
    """What still works of it and of all that came of it, and the entry that stops all of that.

    `named` selects by its name, in its task and below: all tokens that it was handed there.
    """
    agents: dict[tuple[Any, ...], Json] = {}
    ((name, task, top),) = index.rows("select agent, task, said from hops where id = ?", id)
    for below in (one for same in _same(index, id) for one in _below(index, same)):
        ((agent, said),) = index.rows("select agent, said from hops where id = ?", below)
        found = known(said)
        state = state_of(found, overlay, now)
        if state in ("live", "narrowed"):
            agents.setdefault(found.way, {"id": below, "agent": plain(agent), "state": state})
    named = {"agent": name, "task": task}
    return {"agents": list(agents.values()), "select": known(top).select, "named": named}


# --- what an act hits -----------------------------------------------------------------------------

LOOKED_AT = 5000  # agents whose tokens have not expired
_NAMED = 12  # agents of one token

# A token: its task, whose it is, and its id.
Hit = tuple[str, str, str]


class Hits(NamedTuple):
    """What an entry is about, of what works now: the agents by token, and who has the same name.

    `left` is what an agent may do then, in words; nothing of one that is revoked.
    """

    agents: Mapping[Hit, list[str]]
    left: Mapping[tuple[str, ...], list[str]]
    namesakes: list[Hit]
    is_all: bool

    def view(self) -> Json:
        """For the dialog. `more` agents of a token are not named."""
        groups = [
            {
                **_token(hit),
                "agents": [plain(one) for one in names[:_NAMED]],
                "more": max(0, len(names) - _NAMED),
            }
            for hit, names in self.agents.items()
        ]
        left = [
            {"agents": [plain(one) for one in dict.fromkeys(names)], "says": says}
            for says, names in self.left.items()
        ]
        return {
            "groups": groups,
            "agents": sum(map(len, self.agents.values())),
            "left": left,
            "namesakes": list(map(_token, self.namesakes)),
            "is_all": self.is_all,
        }


# What may be selected by a field: more than is, so that few have to be looked into. A link of
# no hop may be of any.
_SELECTED = {
    "token": "token = ?1",
    "task": "(task = ?1 or substr(task, 1, length(?1) + 1) = ?1 || '/' "
    "or substr(?1, 1, length(task) + 1) = task || '/')",
    "agent": "id in (with recursive below (id) as (select id from hops where agent = ?1 union "
    "select hops.id from hops join below on hops.parent = below.id) select id from below)",
    "link": "token = coalesce((select token from hops where id = ?1), token)",
    "subject": "task in (select task from tasks where subject = ?1)",
}


def selected(index: Index, select: Mapping[str, str]) -> set[str]:
    """Hops that a selector may be about: it is about no other."""
    found: set[str] | None = None
    for key, condition in _SELECTED.items():
        if key in select:
            rows = index.rows(f"select id from hops where {condition}", select[key])
            ids = {id for (id,) in rows}
            found = ids if found is None else found & ids
    return {id for (id,) in index.rows("select id from hops")} if found is None else found


_HIT = """
select hops.id, agent, hops.task, subject, token, said from hops join tasks using (task)
where (hops.expires_at is null or hops.expires_at > ?) and {} order by hops.first_at limit ?
"""


def hits(
    index: Index,
    overlay: Said | None,
    proposed: Overlay,
    select: Mapping[str, str],
    now: int,
) -> Hits:
    """What the proposed entries are about, which `select` this. A hand-over of a set counts once.

    Namesakes are other tokens that were handed to the agent of that hand-over, or that is selected.
    """
    agents: dict[Hit, list[str]] = {}
    left: dict[tuple[str, ...], list[str]] = {}
    counted: set[tuple[Any, ...]] = set()
    aimed = select.get("agent", "")

    def working(condition: str, value: str) -> Iterator[tuple[Any, ...]]:
        for id, agent, *hit, said in index.rows(
            _HIT.format(condition), now, value, LOOKED_AT + 1
        )[:LOOKED_AT]:
            found = known(said)
            if state_of(found, overlay, now) in ("live", "narrowed"):
                yield id, agent, tuple(hit), found, _entries_on(found.facts, proposed, now)

    ids = sorted(selected(index, select))
    for id, agent, hit, found, entries in working(
        "hops.id in (select value from json_each(?))", json.dumps(ids)
    ):
        if not entries:
            continue
        if found.way not in counted:
            agents.setdefault(hit, []).append(agent)
            if all(entry.link for entry in entries):
                together = [*entries, *_entries_on(found.facts, overlay, now)]
                says = tuple(may(found.hop, now, left_of(found, together)))
                left.setdefault(says, []).append(agent)
        counted.add(found.way)
        aimed = agent if select in (found.select, {"link": id}) else aimed
    others = [hit for _, _, hit, _, entries in working("agent = ?", aimed) if not entries]
    return Hits(agents, left, list(dict.fromkeys(others)), len(ids) <= LOOKED_AT)


def _token(hit: Hit) -> Json:
    task, subject, token = hit
    return {"task": plain(task), "subject": plain(subject), "token": plain(token)}


# --- decisions ------------------------------------------------------------------------------------


def decisions_view(
    index: Index,
    *,
    hop: str | None = None,
    task: str | None = None,
    trace: str | None = None,
    before: str | None = None,
    at: int | None = None,
    refused: bool = False,
    limit: int = PAGE,
) -> Json:
    """Decisions, the last first, a page at a time; of all servers, in the order of their moments.

    `before` is the `next` of the page before. Raises ValueError for what is none.
    """
    limit = max(1, min(limit, PAGE))
    asked, values = ["1"], list[Any]()
    if hop is not None:
        values += _same(index, hop)
        asked.append(f"hop in ({', '.join('?' * len(values))})")
    for column, value in (("task", task), ("trace", trace)):
        if value is not None:
            asked.append(f"{column} = ?")
            values.append(value)
    if before is not None:
        moment, _, id = before.partition(".")
        asked.append("(moment, id) < (?, ?)")
        values += [int(moment), int(id)]
    if at is not None:
        asked.append("moment <= ?")
        values.append(at * 1000 + 999)
    if refused:
        asked.append("allowed = 0")
    calls = index.calls(" and ".join(asked), *values, most=limit + 1)
    shown = calls[:limit]
    rows = rows_of(index, shown)
    last = f"{shown[-1].moment}.{shown[-1].id}" if len(calls) > limit else None
    return {"rows": rows, "next": last}


def rows_of(index: Index, calls: Sequence[Call]) -> list[Json]:
    """Decisions as their records say them."""
    return [
        row_from(record, index.names[call.trail], key_of(call))
        for call, record in zip(calls, index.records(calls), strict=True)
    ]


def key_of(call: Call) -> str:
    """What finds a decision again, in whichever index: its moment, and the digest of its record."""
    return f"{call.moment}.{call.digest.hex()}"


_GONE: Json = {
    "key": None,
    "server": None,
    "trace": None,
    "seq": None,
    "at": None,
    "what": "the record is not there any more, or was changed after it was read",
    "allowed": False,
    "code": "",
    "why": "",
    "added_by": None,
    "who": "",
    "link": None,
}


def row_from(record: Mapping[str, Any] | None, server: str, key: str) -> Json:
    """A decision, as its record says it."""
    decided = decided_of(record)
    if record is None or decided is None:
        return _GONE
    refusal = decided.refusal
    added_by = refusal.get("added_by")
    trace = record.get("trace")
    return {
        "key": key,
        "server": plain(server),
        "trace": None if trace is None else {"text": plain(str(trace)), "key": str(trace)},
        "seq": decided.seq,
        "at": decided.moment // 1000,
        "what": plain(tried(decided.access)),
        "allowed": decided.allowed,
        "code": plain(decided.code),
        "why": plain(str(refusal.get("text", ""))),
        "added_by": None if added_by is None else plain(str(added_by)),
        "who": plain(" > ".join(actor.name for actor in decided.chain)),
        "link": decided.link,
    }


def row_of(decided: analysis.Decided, why: str) -> Json:
    """A decision as it would have come out."""
    return {
        "key": None,
        "server": None,
        "trace": None,
        "seq": decided.seq,
        "at": decided.moment // 1000,
        "what": plain(tried(decided.access)),
        "allowed": False,
        "code": "",
        "why": plain(why),
        "who": plain(" > ".join(actor.name for actor in decided.chain)),
        "link": decided.link,
    }


# --- the overlay ----------------------------------------------------------------------------------


def overlay_view(index: Index, overlay: Said | None, now: int) -> Json:
    """What stands, by whom and why, and who is meant by a link or a token."""
    entries = () if overlay is None else overlay.entries
    return {
        "entries": [
            entry_view(entry, now) | {"whom": _whom(index, msgspec.to_builtins(entry.select))}
            for entry in entries
            if entry.stands(now)
        ]
    }


def _whom(index: Index, select: Mapping[str, str]) -> str | None:
    """The agent whose hand-over an entry is about, and its task. None where no trail has it."""
    if "link" in select:
        rows = index.rows("select agent, task, said from hops where id = ?", select["link"])
    elif "token" in select:
        which = "select agent, task, said from hops where token = ? order by depth limit 10000"
        rows = index.rows(which, select["token"])
    else:
        return None
    nonce = select.get("hop")
    for agent, task, said in rows:
        if nonce is None or known(said).hop.nonce == nonce:
            return plain(f"{agent} in {task}")
    return None


def said_of_task(index: Index, overlay: Said | None, task: str, now: int) -> list[Json]:
    """The entries on any token of a task, in the order of the overlay."""
    hops = index.rows("select said from hops where task = ?", task)
    on = {entry.id for (said,) in hops for entry in _entries_on(known(said).facts, overlay, now)}
    entries = () if overlay is None else overlay.entries
    return [entry_view(entry, now) for entry in entries if entry.id in on]


_CALLED = {"hop": "hand-over"}


def entry_view(entry: Entry, now: int) -> Json:
    select = msgspec.to_builtins(entry.select)
    return {
        "id": entry.id,
        "at": entry.at,
        "by": plain(entry.by),
        "why": plain(entry.why),
        "until": entry.until,
        "select": plain(
            ", ".join(f"{_CALLED.get(key, key)} {value}" for key, value in select.items())
        ),
        # What it leaves, in words.
        "narrows": None
        if entry.link is None
        else [plain(line) for line in words.of_stated(entry.link, now)],
    }
