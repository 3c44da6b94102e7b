"""What needs a person now, the gravest first: read off the index, the overlay and the ledger.

    for need in needs_view(index, overlay, spent, now)["needs"]: ...

Each says in a sentence what is so, since when, and where to look: a task, an agent, or a question
(`queries`). What is asked for often is asked of the counts by kind, hop and hour, and never of each
call. What a thief is refused is told here, and not held against whom the token was made for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from captoken._format.spelling import readable_time
from captoken._language.overlay import Overlay
from captoken.cli.console import queries, views
from captoken.cli.console.answers import never_used, share_of
from captoken.cli.console.index import Index
from captoken.cli.console.views import Json, Spent
from captoken.cli.words import counted, plain

_MINUTE: Final = 60_000  # milliseconds
_HOUR: Final = 3600
_OFTEN: Final = 5  # refusals in a minute
_SOON: Final = 80  # percent of a budget
_STALE: Final = 60  # seconds: verifiers deny with an overlay that is older, unless told otherwise
_LOOKED_AT: Final = 20_000  # refusals
_AGENTS: Final = 300  # of which budgets and rights are looked at
_EACH: Final = 8  # of one kind

# Agents that work, those first that were active last.
_WORKING: Final = """
select id, agent, hops.task, said from hops join tasks using (task)
where hops.first_at is not null and (hops.expires_at is null or hops.expires_at > ?)
order by last_at desc limit ?
"""
_HAS_BELOW: Final = "select 1 from hops where parent = ? limit 1"


def needs_view(
    index: Index,
    overlay: Overlay | None,
    spent: Spent,
    now: int,
    *,
    trouble: str | None = None,
    alerts: Iterable[Json] = (),
) -> Json:
    """What needs a person. `trouble` is why the overlay cannot be read; `alerts` are of rules."""
    working = [
        row
        for row in index.rows(_WORKING, now, _AGENTS)
        if views.state_of(views.known(row[-1]), overlay, now) in ("live", "narrowed")
    ]
    kinds: list[Iterator[Json]] = [
        _stolen(index, now),
        _trails(index),
        _overlay(index, overlay, trouble, now),
        _failing(index, now),
        iter(alerts),
        _forged(index, now),
        _often(index, now),
        _closed(index, now),
        _running_out(index, spent, now, working),
        _never_used(index, now, working),
    ]
    found = [_handled(index, overlay, now, need) for kind in kinds for need in kind]
    return {"needs": sorted(found, key=lambda one: (one["handled"], not one["grave"]))}


# What is over once its token, or its task, does not work any more.
_OF_TOKENS: Final = ("stolen", "replayed", "often", "closed", "budget")


def _handled(index: Index, overlay: Overlay | None, now: int, one: Json) -> Json:
    """The same, if nothing has to be done about it: with what was done."""
    if one["kind"] not in _OF_TOKENS or one["task"] is None:
        return one
    where = "id = ?" if one["node"] else "task = ? and parent is null limit 50"
    hops = index.rows(f"select said from hops where {where}", one["node"] or one["task"])
    founds = [views.known(said) for (said,) in hops]
    if any(views.state_of(found, overlay, now) in ("live", "narrowed") for found in founds):
        return one
    entries = [entry for found in founds for entry in views.entries_of(found, overlay, now)]
    said = "Its token has expired." if one["node"] else "Its tokens have expired."
    for entry in sorted(entries, key=lambda entry: entry.at)[-1:]:
        said = f"Stopped by {entry.by}, {readable_time(entry.at)}: {entry.why}"
    return one | {"handled": True, "grave": False, "more": plain(said)}


def need(
    kind: str,
    text: str,
    *,
    grave: bool = True,
    at: int | None = None,
    task: str | None = None,
    node: str | None = None,
    query: str | None = None,
    more: str = "",
) -> Json:
    """Something that needs a person: a sentence, what to make of it, and where to look."""
    return {
        "kind": kind,
        "text": plain(text),
        "more": plain(more),
        "grave": grave,
        "handled": False,
        "at": at,
        "task": task,
        "node": node,
        "query": query,
    }


# --- refusals -------------------------------------------------------------------------------------


def _refused(
    index: Index, now: int, codes: Sequence[str], since: str
) -> Iterator[tuple[queries.Tally, str, str, int, str]]:
    """What was refused by these codes, by hop: with its agent, its task, the second of the last
    one, and the question that finds them.
    """
    asked = " ".join(f"code:{code}" for code in codes)
    query = queries.parse(f"{asked} since:{since}", now)
    tallies = sorted(queries.tallied(index, query), key=lambda tally: -tally.denied)
    for tally in tallies[:_EACH]:
        rows = index.rows("select agent, task from hops where id = ?", tally.hop)
        agent, task = rows[0] if rows else ("", "")
        last = queries.last_moment(index, query, tally) or 0
        whose = f" agent:{queries.spelled(agent)} task:{queries.spelled(task)}" if rows else ""
        yield tally, agent, task, last // 1000, f"{asked}{whose} since:{since}"


def _stolen(index: Index, now: int) -> Iterator[Json]:
    for tally, agent, task, last, query in _refused(index, now, views.STOLEN, "1d"):
        yield need(
            "stolen",
            f"The token of {agent} is used by somebody without its key: "
            f"{counted(tally.denied, 'call')} refused",
            more="Somebody else has this token, or its holder is set up wrongly. Its holder is "
            "not stopped by that. To stop the token, revoke it.",
            at=last,
            task=task or None,
            node=tally.hop or None,
            query=query,
        )
    for tally, agent, task, last, query in _refused(index, now, ("replayed",), "1d"):
        yield need(
            "replayed",
            f"A request of {agent or 'nobody known'} came again: "
            f"{counted(tally.denied, 'call')} refused",
            more="Somebody has seen one on its way, or a client repeats what it has sent.",
            at=last,
            task=task or None,
            node=tally.hop or None,
            query=query,
        )


def _forged(index: Index, now: int) -> Iterator[Json]:
    for tally, _, _, last, query in _refused(index, now, ("bad_signature", "unknown_key"), "1h"):
        yield need(
            "forged",
            f"{counted(tally.denied, 'call')} with a token that this issuer has not made",
            more="It was changed, or is of another issuer's keys.",
            grave=tally.denied >= _OFTEN,
            at=last,
            query=query,
        )


def _failing(index: Index, now: int) -> Iterator[Json]:
    """Servers that refuse for want of something of their own."""
    for codes, what in (
        (("stale_overlay",), "no fresh overlay reaches them"),
        (("store_unavailable",), "a ledger, or another store, does not answer"),
    ):
        query = queries.parse(f"code:{codes[0]} since:10m", now)
        tallies = queries.tallied(index, query)
        if tallies:
            lasts = [queries.last_moment(index, query, one) or 0 for one in tallies[:_EACH]]
            yield need(
                "failing",
                f"Servers refuse, since {what}: "
                f"{counted(sum(one.denied for one in tallies), 'call')} in ten minutes",
                at=max(lasts) // 1000,
                query=f"code:{codes[0]} since:10m",
            )


def _often(index: Index, now: int) -> Iterator[Json]:
    """Agents that were refused five times in a minute, in the last hour."""
    stolen = ", ".join(f"'{code}'" for code in (*views.STOLEN, "replayed"))
    rows = index.rows(
        f"""
        select hop, moment from calls where allowed = 0 and moment > ? and hop is not null
        and what not in (select id from whats where code in ({stolen}))
        order by moment desc limit ?
        """,
        (now - _HOUR) * 1000,
        _LOOKED_AT,
    )
    found: list[tuple[int, str, int]] = []
    for hop, group in groupby(sorted(rows), itemgetter(0)):
        moments = [moment for _, moment in group]
        spans = zip(moments, moments[_OFTEN - 1 :], strict=False)
        lasts = [last for first, last in spans if last - first < _MINUTE]
        if lasts:
            found.append((lasts[-1], hop, len(moments)))
    for last, hop, count in sorted(found, reverse=True)[:_EACH]:
        ((agent, task),) = index.rows("select agent, task from hops where id = ?", hop)
        yield need(
            "often",
            f"{agent} in {task} was refused {_OFTEN} times in a minute, {count} in the last hour",
            more="It tries what it may not do, or has too little for what it is to do.",
            at=last // 1000,
            task=task,
            node=hop,
            query=f"refused agent:{queries.spelled(agent)} task:{queries.spelled(task)} since:1h",
        )


def _closed(index: Index, now: int) -> Iterator[Json]:
    """Tasks that rules over marks have closed."""
    rows = index.rows(
        """
        select task, count(*), max(moment) from closed where moment > ?
        group by subject, task order by 3 desc limit ?
        """,
        (now - _HOUR) * 1000,
        _EACH,
    )
    for task, count, last in rows:
        yield need(
            "closed",
            f"Task {task} is closed by its own rules: {counted(count, 'call')} refused",
            more="What it has done before forbids what it tries now.",
            grave=False,
            at=last // 1000,
            task=task if index.rows("select 1 from tasks where task = ?", task) else None,
            query=f"code:forbidden_after task:{queries.spelled(task)} since:1h",
        )


# --- what stands ----------------------------------------------------------------------------------


def _trails(index: Index) -> Iterator[Json]:
    for trail in index.wholes():
        if trail.trouble is not None:
            yield need("trail", f"The trail {trail.name} is not followed: {trail.trouble}")
        elif trail.lacks is not None:
            yield need("trail", f"The trail {trail.name} is not whole: {trail.lacks}")


def _overlay(
    index: Index, overlay: Overlay | None, trouble: str | None, now: int
) -> Iterator[Json]:
    """What is known of its age. Which age a server accepts, nothing here says."""
    if trouble is not None:
        yield need("overlay", f"The overlay cannot be read: {trouble}")
        return
    if overlay is None or (overlay.expires_at > now and now - overlay.issued_at <= _STALE):
        return
    since = (overlay.issued_at + _STALE + 1) * 1000
    came = index.rows("select allowed from calls where moment >= ? limit 1", since)
    goes_on = index.rows("select 1 from calls where moment >= ? and allowed = 1 limit 1", since)
    if overlay.expires_at <= now:
        text = "The overlay has expired: servers that ask for it refuse every call"
    else:
        text = f"The overlay was signed {now - overlay.issued_at} s ago, and not since"
    at_most = f"Servers that accept at most {_STALE} s, the default, refuse every call until it is."
    seen = "Calls were allowed since then." if goes_on else "No call was allowed since then."
    yield need(
        "overlay",
        text,
        more=f"{at_most} {seen} `captoken operate` signs it again and again: keep it running.",
        grave=overlay.expires_at <= now or bool(came and not goes_on),
        at=overlay.issued_at,
    )


def _running_out(
    index: Index, spent: Spent, now: int, working: Sequence[tuple[Any, ...]]
) -> Iterator[Json]:
    """Budgets of which little is left, each by whose it is: who shares one is not told again."""
    found: list[tuple[int, str, str, str, str]] = []
    for id, agent, task, said in working:
        for one in views.budget_of(views.known(said), spent):
            if one["spent"] is not None and one["of"] == plain(agent):
                share = share_of(one)
                left = max(0, one["limit"] - one["spent"])
                what = f"{left or 'none'} of {one['limit']} {one['unit']} left"
                found.append((share, agent, task, id, what))
    found = [one for one in found if one[0] >= _SOON]
    for share, agent, task, id, what in sorted(found, reverse=True)[:_EACH]:
        yield need(
            "budget",
            f"{agent} in {task} has {what}",
            more="All below it share these." if index.rows(_HAS_BELOW, id) else "",
            grave=share >= 100,
            task=task,
            node=id,
        )
    short = {id for _, _, _, id, _ in found}
    for tally, agent, task, last, query in _refused(index, now, ("budget_exhausted",), "1h"):
        if tally.hop not in short:
            yield need(
                "budget",
                f"{agent} was refused for want of budget: {counted(tally.denied, 'call')}",
                at=last,
                task=task or None,
                node=tally.hop or None,
                query=query,
            )


def _never_used(index: Index, now: int, working: Sequence[tuple[Any, ...]]) -> Iterator[Json]:
    """One line for all: it is no alarm."""
    names = [
        agent
        for id, agent, _, said in working
        if _is_half_over(views.known(said), now) and never_used(index, id, views.known(said))
    ]
    if names:
        yield need(
            "unused",
            f"{counted(len(names), 'agent')} with rights that were never used",
            more="Less would do: " + ", ".join(list(dict.fromkeys(names))[:_EACH]),
            grave=False,
            query="agent:*",
        )


def _is_half_over(found: views.Known, now: int) -> bool:
    """Has it had more than half of its time? Before that it may need its rights yet."""
    ends = found.hop.capability.expires_at
    begun = found.hop.root.issued_at
    return now - begun > (_HOUR if ends is None else (ends - begun) / 2)
