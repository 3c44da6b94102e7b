"""What the page asks for, as JSON: read off the index, the overlay and the ledger. Changes nothing.

All names, arguments and reasons in it are what strangers wrote. They leave this file as `plain`
text: what does not print, what steers, and letters that only look like others come out as their
numbers. The page shows them as text, and builds nothing of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from captoken._format.encoding import b64decode
from captoken._format.spelling import escape
from captoken._language.entries import Entry, SelectorFacts
from captoken._language.links import BadLink, Link
from captoken._language.overlay import Overlay
from captoken.audit import analysis
from captoken.cli import words
from captoken.cli.audit import tried
from captoken.cli.console.index import Index

TASKS = 200  # of one answer
PAGE = 100  # decisions of one answer, unless asked for fewer
BARS = 60  # of a series
SPARKS = 30  # of one agent's
_MINUTE = 60

Json = dict[str, Any]

# What a bucket of the ledger has been debited; None where no ledger is at hand.
Spent = Callable[[bytes, str], int | None]


def plain(text: str) -> str:
    """A name of a stranger for people: ASCII, so that no letter is taken for another."""
    visible = escape(text)
    if visible.isascii():
        return visible
    return visible.encode("ascii", "backslashreplace").decode()


# --- tokens and hops ------------------------------------------------------------------------------


class Known(msgspec.Struct, frozen=True):
    """A hop as its token was described: what it may do, and what entries ask about it."""

    hop: analysis.Hop
    facts: SelectorFacts
    through: tuple[analysis.Hop, ...]


@lru_cache(maxsize=20_000)
def known(said: str) -> Known:
    """A hop, read from what the index keeps of it."""
    (token,) = analysis.gather([json.loads(said)]).tokens.values()
    facts = SelectorFacts(
        token.hop.root,
        [b64decode(link) for link in token.link_ids],
        token.task,
        token.hop.holders,
    )
    return Known(token.hop, facts, token.hops)


def _may(hop: analysis.Hop, now: int) -> list[str]:
    """What a hop permits, in words."""
    stated = hop.capability.json()
    said = words.of_rights(stated, now) or ["any access"]
    if "aud" in stated:
        said.append("only at " + ", ".join(stated["aud"]))
    if hop.asks:
        said.append("if a third party answers")
    if hop.unknown:
        said.append("and caveats of its own: " + ", ".join(hop.unknown))
    return [plain(line) for line in said]


# --- what stands ----------------------------------------------------------------------------------


def _entries_on(facts: SelectorFacts, overlay: Overlay | None, now: int) -> Sequence[Entry]:
    if overlay is None or not overlay.touches(facts.keys):
        return ()
    return overlay.on(facts, now)


def _state(found: Known, overlay: Overlay | None, now: int) -> str:
    """Whether a hop can still do anything, and whether an operator said something of it."""
    entries = _entries_on(found.facts, overlay, now)
    if any(entry.link is None for entry in entries):
        return "revoked"
    ends = found.hop.capability.expires_at
    if found.hop.is_dead or (ends is not None and now >= ends):
        return "expired"
    return "narrowed" if entries else "live"


_TASK = "task, subject, first_at, last_at, allowed, denied"
_FOUND = """
instr(lower(task), ?) or instr(lower(subject), ?) or exists (
    select 1 from hops where hops.task = tasks.task and instr(lower(agent), ?)
)
"""

# --- now ------------------------------------------------------------------------------------------


def now_view(
    index: Index,
    overlay: Overlay | None,
    now: int,
    at: int | None = None,
    find: str = "",
) -> Json:
    """All tasks, those that did something last first. As of `at`, where that is said.

    `find` is a part of a task's name, its subject, or the name of an agent in it.
    """
    trails = [
        {
            "name": plain(Path(trail.path).name),
            "records": trail.head.seq,
            "last_at": trail.last_at,
            "trouble": None if trail.trouble is None else plain(trail.trouble),
        }
        for trail in index.trails()
    ]
    asked, values = "first_at <= ?", list[Any]((now if at is None else at,))
    if find:
        asked += f" and ({_FOUND})"
        values += [find.lower()] * 3
    rows = index.rows(
        f"select {_TASK} from tasks where {asked} order by last_at desc limit ?",
        *values,
        TASKS + 1,
    )
    tasks = [_task(index, overlay, row, now if at is None else at, at) for row in rows[:TASKS]]
    ((count,),) = index.rows(f"select count(*) from tasks where {asked}", *values)
    return {
        "rev": index.revision,
        "now": now,
        "trails": trails,
        "overlay": None if overlay is None else _overlay_facts(overlay),
        "tasks": tasks,
        "more": max(0, count - len(tasks)),
    }


def _overlay_facts(overlay: Overlay) -> Json:
    return {
        "seq": overlay.seq,
        "issued_at": overlay.issued_at,
        "expires_at": overlay.expires_at,
        "entries": len(overlay.entries),
    }


def _task(
    index: Index,
    overlay: Overlay | None,
    row: tuple[Any, ...],
    now: int,
    at: int | None,
) -> Json:
    """A task in a line."""
    task, subject, first_at, last_at, allowed, denied = row
    if at is not None:
        allowed, denied, last_at = _counted_until(index, task, at)
    ((tokens, agents, ends, endless),) = index.rows(
        """
        select count(distinct token), count(*), max(expires_at), sum(expires_at is null)
        from hops where task = ?
        """,
        task,
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


_COUNTS = "coalesce(sum(allowed), 0), coalesce(sum(not allowed), 0)"


def _counted_until(index: Index, task: str, at: int) -> tuple[int, int, int]:
    ((allowed, denied, last),) = index.rows(
        f"select {_COUNTS}, max(at) from calls where task = ? and at <= ?",
        task,
        at,
    )
    return allowed, denied, last or 0


def _state_of_task(
    index: Index,
    overlay: Overlay | None,
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
    states = {_state(known(one), overlay, now) for (one,) in said}
    if states <= {"revoked", "expired"}:
        return "ended"
    return "live" if states <= {"live", "expired"} else "narrowed"


# --- one task -------------------------------------------------------------------------------------

_NODE = "id, parent, agent, basis, first_at, expires_at, allowed, denied, last, said"


def task_view(
    index: Index,
    overlay: Overlay | None,
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
    nodes = [
        _node(index, overlay, spent, row, then, at)
        for row in index.rows(
            f"select {_NODE} from hops where task = ? order by depth, first_at, id", task
        )
        if at is None or row[4] is None or row[4] <= at
    ]
    return {
        "task": _task(index, overlay, rows[0], then, at),
        "nodes": nodes,
        "series": _series(index, task, then),
    }


def _series(index: Index, task: str, now: int) -> Json:
    """Calls of a task over its last hour, a minute a bar."""
    last = now // _MINUTE
    first = last - BARS + 1
    allowed = [0] * BARS
    denied = [0] * BARS
    for minute, yes, no in index.rows(
        """
        select minute, sum(minutes.allowed), sum(minutes.denied)
        from minutes join hops on hops.id = minutes.hop
        where hops.task = ? and minute between ? and ? group by minute
        """,
        task,
        first,
        last,
    ):
        allowed[minute - first] = yes
        denied[minute - first] = no
    return {"from": first * _MINUTE, "step": _MINUTE, "allowed": allowed, "denied": denied}


def _node(
    index: Index,
    overlay: Overlay | None,
    spent: Spent,
    row: tuple[Any, ...],
    now: int,
    at: int | None,
) -> Json:
    """A hop: who holds it, what it may do and did."""
    id, parent, agent, basis, first_at, expires_at, allowed, denied, last, said = row
    found = known(said)
    if at is not None:
        ((allowed, denied),) = index.rows(
            f"select {_COUNTS} from calls where hop = ? and at <= ?", id, at
        )
    sparks, refused = _sparks(index, id, now)
    return {
        "id": id,
        "parent": parent,
        "agent": plain(agent),
        "basis": basis,
        "since": first_at,
        "expires_at": expires_at,
        "allowed": allowed,
        "denied": denied,
        "last": None if last is None or at is not None else _last(index, json.loads(last)),
        "words": _may(found.hop, now),
        "budget": _budget(found, spent),
        "state": _state(found, overlay, now),
        "spark": sparks,
        "refused": refused,
    }


def _sparks(index: Index, hop: str, now: int) -> tuple[list[int], list[int]]:
    """Calls of the last half an hour, and those that were refused, a minute each."""
    last = now // _MINUTE
    first = last - SPARKS + 1
    calls = [0] * SPARKS
    refused = [0] * SPARKS
    query = "select minute, allowed, denied from minutes where hop = ? and minute between ? and ?"
    for minute, yes, no in index.rows(query, hop, first, last):
        calls[minute - first] = yes + no
        refused[minute - first] = no
    return calls, refused


def _last(index: Index, place: Mapping[str, int]) -> Json | None:
    """What was decided last."""
    try:
        record = index.record(place["trail"], place["offset"], place["length"])
    except (OSError, ValueError):
        return None
    decided = msgspec.convert(record, analysis.Decided)
    return {
        "at": decided.at,
        "what": plain(tried(decided.access)),
        "allowed": decided.allowed,
        "code": plain(decided.code),
    }


def _budget(found: Known, spent: Spent) -> list[Json]:
    """What may be used how often, at each link that counts, and what is left of it by the ledger.

    A link above counts for all below it: what it has left is shared.
    """
    counted: list[Json] = []
    for bucket, link in zip(found.facts.links, found.hop.links, strict=True):
        for unit, limit in _limits(link):
            counted.append({"unit": plain(unit), "limit": limit, "spent": spent(bucket, unit)})
    return counted


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
    overlay: Overlay | None,
    spent: Spent,
    now: int,
    id: str,
    at: int | None = None,
) -> Json | None:
    """One hop: how it came to be, what it may do, did, and never needed, and what stops it.

    As of `at`, where that is said, but for what it never needed.
    """
    then = now if at is None else at
    rows = index.rows(f"select {_NODE} from hops where id = ?", id)
    if not rows:
        return None
    found = known(rows[0][9])
    return {
        "node": _node(index, overlay, spent, rows[0], then, at),
        "chain": _chain(index, found, then),
        "may": _may(found.hop, then),
        "said": [entry_view(entry, then) for entry in _entries_on(found.facts, overlay, then)],
        "unused": _unused(index, id),
        "reach": _reach(index, overlay, id, then),
        "decisions": decisions_view(index, hop=id, at=at),
    }


def _chain(index: Index, found: Known, now: int) -> list[Json]:
    """From the first holder to this one: what each took away when it handed on."""
    bases = dict(
        index.rows(
            f"select id, basis from hops where id in ({', '.join('?' * len(found.through))})",
            *(hop.id for hop in found.through),
        )
    )
    chain: list[Json] = []
    before = 0
    for hop in found.through:
        took: list[str] = []
        for link in hop.links[before:]:
            took += _took(link, now)
        before = len(hop.links)
        chain.append(
            {
                "holder": plain(hop.agent),
                "basis": bases.get(hop.id, hop.basis),
                "id": hop.id,
                "took": [plain(line) for line in took],
            }
        )
    return chain


def _below(index: Index, id: str) -> list[str]:
    """A hop, and all below it."""
    query = """
        with recursive below (id) as (
            select ? union select hops.id from hops join below on hops.parent = below.id
        )
        select id from below limit 10000
    """
    return [one for (one,) in index.rows(query, id)]


def _took(link: Link | BadLink, now: int) -> list[str]:
    """What a link took away, in words."""
    if isinstance(link, BadLink):
        return ["everything: the link cannot be read"]
    took = list(words.of_caveats([*link.early, *link.late], now))
    return [*took, *words.of_position(link.depth, link.delegate_only)]


def _unused(index: Index, id: str) -> Json | None:
    """The narrower token that would have done, in words to be pasted. None where all was needed."""
    try:
        history = index.history_of(_below(index, id))
    except (OSError, ValueError):
        return None
    for usage in analysis.unused(history):
        if usage.hop.id == id and not usage.is_tight:
            keywords = {key: value for key, value in usage.sufficient.items() if key != "depth"}
            said = ", ".join(f"{key}={value!a}" for key, value in keywords.items())
            return {
                "keywords": keywords,
                "python": f"token.attenuate({said})",
                "allowed": usage.allowed,
            }
    return None


def _reach(index: Index, overlay: Overlay | None, id: str, now: int) -> Json:
    """What still works of it and of all that came of it, and the entry that stops all of that."""
    agents: list[Json] = []
    for below in _below(index, id):
        ((agent, said),) = index.rows("select agent, said from hops where id = ?", below)
        state = _state(known(said), overlay, now)
        if state in ("live", "narrowed"):
            agents.append({"id": below, "agent": plain(agent), "state": state})
    return {"agents": agents, "select": {"link": id}}


# --- decisions ------------------------------------------------------------------------------------


def decisions_view(
    index: Index,
    *,
    hop: str | None = None,
    task: str | None = None,
    before: int | None = None,
    at: int | None = None,
    refused: bool = False,
    limit: int = PAGE,
) -> Json:
    """Decisions, the last first, a page at a time."""
    limit = max(1, min(limit, PAGE))
    asked, values = ["1"], list[Any]()
    for column, value in (("hop", hop), ("task", task)):
        if value is not None:
            asked.append(f"{column} = ?")
            values.append(value)
    if before is not None:
        asked.append("id < ?")
        values.append(before)
    if at is not None:
        asked.append("at <= ?")
        values.append(at)
    if refused:
        asked.append("not allowed")
    condition = " and ".join(asked)
    rows = index.rows(
        f"select id, trail, offset, length from calls where {condition} order by id desc limit ?",
        *values,
        limit + 1,
    )
    shown = [_row(index, trail, offset, length) for _, trail, offset, length in rows[:limit]]
    return {"rows": shown, "next": str(rows[limit - 1][0]) if len(rows) > limit else None}


_GONE: Json = {
    "seq": None,
    "at": None,
    "what": "the record is not there any more",
    "allowed": False,
    "code": "",
    "why": "",
    "added_by": None,
    "who": "",
    "link": None,
}


def _row(index: Index, trail: int, offset: int, length: int) -> Json:
    """A decision, as its record says it."""
    try:
        record = index.record(trail, offset, length)
        decided = msgspec.convert(record, analysis.Decided)
    except (OSError, ValueError):  # it is not what it was: msgspec's errors are ValueErrors, too
        return _GONE
    refusals = record.get("refusals") or [{}]
    added_by = refusals[0].get("added_by")
    return {
        "seq": decided.seq,
        "at": decided.at,
        "what": plain(tried(decided.access)),
        "allowed": decided.allowed,
        "code": plain(decided.code),
        "why": plain(str(refusals[0].get("text", ""))),
        "added_by": None if added_by is None else plain(str(added_by)),
        "who": plain(" > ".join(actor.name for actor in decided.chain)),
        "link": decided.link,
    }


def row_of(decided: analysis.Decided, why: str) -> Json:
    """A decision as it would have come out."""
    return {
        "seq": decided.seq,
        "at": decided.at,
        "what": plain(tried(decided.access)),
        "allowed": False,
        "code": "",
        "why": plain(why),
        "who": plain(" > ".join(actor.name for actor in decided.chain)),
        "link": decided.link,
    }


# --- the overlay ----------------------------------------------------------------------------------


def overlay_view(overlay: Overlay | None, now: int) -> Json:
    """What stands, by whom and why."""
    entries = () if overlay is None else overlay.entries
    return {"entries": [entry_view(entry, now) for entry in entries if entry.stands(now)]}


def entry_view(entry: Entry, now: int) -> Json:
    select = msgspec.to_builtins(entry.select)
    return {
        "id": entry.id,
        "at": entry.at,
        "by": plain(entry.by),
        "why": plain(entry.why),
        "until": entry.until,
        "select": plain(", ".join(f"{key} {value}" for key, value in select.items())),
        "narrows": None if entry.link is None else _words_of(entry.link, now),
    }


def _words_of(stated: Mapping[str, Any], now: int) -> list[str]:
    """What an entry leaves, in words."""
    return [plain(line) for line in words.of_stated(stated, now)]
