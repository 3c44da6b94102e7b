"""What a question finds, as JSON: decisions, and the agents and tasks that they were about."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from captoken._language import patterns
from captoken.cli.console import queries, views
from captoken.cli.console.index import Index
from captoken.cli.console.queries import Query, Tally
from captoken.cli.console.tables import BELOW
from captoken.cli.console.views import Json, Said, Spent
from captoken.cli.words import plain

SHOWN: Final = 100  # agents, and tasks
_WEIGHED: Final = 300  # agents of which rights and budgets are looked at
_NAMED: Final = 12  # rights that were never used
_VALUES: Final = 6  # of one key

_HOP: Final = "hops.task, agent, token, id, basis, subject, hops.first_at, said"


def query_view(
    index: Index,
    overlay: Said | None,
    spent: Spent,
    now: int,
    text: str,
    *,
    at: int | None = None,
    before: str | None = None,
    limit: int = views.PAGE,
    sort: str = "refused",
    only: str = "",
) -> Json:
    """What a question finds. `trouble` says why it cannot be read.

    `sort` is one of `SORTS`, and orders agents and tasks. With `only` as `rows`, the decisions
    alone, a page of them; as behind a page before. As `counts`, none of them, and no agent or task.
    """
    limit = max(1, min(limit, views.PAGE))
    try:
        query = queries.parse(text, now, at)
    except queries.Unclear as unclear:
        return {"trouble": str(unclear)}
    is_counted = only == "counts"
    calls = [] if is_counted else queries.found_calls(index, query, before, limit + 1)
    shown = calls[:limit]
    page = {
        "trouble": None,
        "rows": views.rows_of(index, shown),
        "next": f"{shown[-1].moment}.{shown[-1].id}" if len(calls) > limit else None,
    }
    if only == "rows" or before is not None:
        return page
    tallies = queries.tallied(index, query)
    then = now if at is None else at
    agents = _agents(index, tallies)
    tasks = _tasks(agents)
    by = SORTS.get(sort, SORTS["refused"])
    if sort in ("unused", "spent"):
        agents = sorted(agents, key=SORTS["calls"])[:_WEIGHED]
        for agent in agents:
            _weigh(index, agent, spent if at is None else views.not_known)
    agents.sort(key=by)
    tasks.sort(key=by)
    most = 0 if is_counted else SHOWN
    for agent in agents[:most]:
        _finish(index, overlay, query, then, agent)
    return page | {
        "allowed": sum(tally.allowed for tally in tallies),
        "denied": sum(tally.denied for tally in tallies),
        "agents": [_stripped(one) for one in agents[:most]],
        "tasks": [_stripped(one) for one in tasks[:most]],
        "counts": {"agents": len(agents), "tasks": len(tasks)},
        "series": queries.series(index, query, then),
        "values": _values(index, query, agents),
    }


def _values(index: Index, query: Query, agents: Iterable[Json]) -> list[Json]:
    """By key: the values that came most, each with the word that asks for it alone."""
    found = queries.of_kinds(index, query)
    for key in ("agent", "task", "subject"):
        found[key] = {}
    for agent in agents:
        for key, value in agent["named"].items():
            allowed, denied = found[key].get(value, (0, 0))
            found[key][value] = (allowed + agent["allowed"], denied + agent["denied"])
    return [
        {
            "key": key,
            "count": len(counts),
            "most": [
                {
                    "value": plain(value),
                    "word": f"{key}:{queries.spelled(value)}",
                    "allowed": allowed,
                    "denied": denied,
                }
                for value, (allowed, denied) in sorted(
                    counts.items(), key=lambda one: (-sum(one[1]), one[0])
                )[:_VALUES]
            ],
        }
        for key, counts in found.items()
        if len(counts) > 1
    ]


# The most, or the oldest, first.
SORTS: Final[dict[str, Callable[[Json], Any]]] = {
    "refused": lambda one: (-one["denied"], -one["allowed"], one["since"] or 0),
    "calls": lambda one: (-one["denied"] - one["allowed"], one["since"] or 0),
    "oldest": lambda one: (one["since"] or 0, -one["allowed"]),
    "unused": lambda one: (-one.get("unused_count", 0), one["since"] or 0),
    "spent": lambda one: (-one.get("spent", 0), one["since"] or 0),
}


def _agents(index: Index, tallies: Iterable[Tally]) -> list[Json]:
    """The agents, each once in a task: a hand-over at the servers of a set is one."""
    named: dict[tuple[str, ...], list[tuple[Tally, tuple[Any, ...]]]] = {}
    for tally in tallies:
        rows = index.rows(
            f"select {_HOP} from hops join tasks using (task) where id = ?", tally.hop
        )
        for row in rows:
            named.setdefault(row[:3], []).append((tally, row))
    found: list[Json] = []
    for group in named.values():
        by_way: dict[Any, list[tuple[Tally, tuple[Any, ...]]]] = {}
        for tally, row in group:
            # Few have one of the same name beside them: only these are looked into.
            way = views.known(row[-1]).way if len(group) > 1 else None
            by_way.setdefault(way, []).append((tally, row))
        found += map(_agent, by_way.values())
    return found


def _agent(of: list[tuple[Tally, tuple[Any, ...]]]) -> Json:
    (task, agent, _, id, basis, subject, since, _) = of[0][1]
    return {
        "id": id,
        "agent": plain(agent),
        "basis": basis,
        "task": plain(task),
        "key": task,
        "subject": plain(subject),
        "since": since,
        "allowed": sum(tally.allowed for tally, _ in of),
        "denied": sum(tally.denied for tally, _ in of),
        "of": [(tally, row[-1]) for tally, row in of],
        "named": {"agent": agent, "task": task, "subject": subject},
    }


def _tasks(agents: Iterable[Json]) -> list[Json]:
    found: dict[str, Json] = {}
    for agent in agents:
        named = {key: agent[key] for key in ("task", "key", "subject", "since")}
        task = found.setdefault(agent["key"], named | {"agents": 0, "allowed": 0, "denied": 0})
        task["agents"] += 1
        task["allowed"] += agent["allowed"]
        task["denied"] += agent["denied"]
        task["since"] = min(task["since"] or 0, agent["since"] or 0)
    return list(found.values())


def _weigh(index: Index, agent: Json, spent: Spent) -> None:
    """How many rights it never used, and how much of a budget is gone."""
    founds = [views.known(said) for _, said in agent["of"]]
    never = [
        name
        for (tally, _), found in zip(agent["of"], founds, strict=True)
        for name in never_used(index, tally.hop, found)
    ]
    agent["unused"] = [plain(name) for name in never[:_NAMED]]
    agent["unused_count"] = len(never)
    agent["spent"] = max((share for found in founds for share in shares(found, spent)), default=0)


def shares(found: views.Known, spent: Spent) -> list[int]:
    """Of each budget: what percentage is gone, as far as a ledger says."""
    budgets = views.budget_of(found, spent)
    return [share_of(one) for one in budgets if one["spent"] is not None]


def share_of(budget: Json) -> int:
    """What percentage of a budget is gone, of which a ledger says what was spent."""
    return min(100, int(budget["spent"]) * 100 // max(1, int(budget["limit"])))


def never_used(index: Index, hop: str, found: views.Known) -> list[str]:
    """The tables and tools of a hop that neither it nor anybody below was allowed to use.

    As they were granted: a pattern is used once any table below it was.
    """
    stated = found.hop.capability.json()
    granted = [("data", name) for key in ("tables", "allow") for name in stated.get(key) or ()]
    granted += [("tool", name) for name in stated.get("tools") or ()]
    if not granted:
        return []
    used = index.rows(
        f"""
        with recursive {BELOW}
        select distinct data, tool from tallies join whats on whats.id = what
        where hop in (select id from below) and allowed = 1
        """,
        hop,
    )
    names = {"data": [data for data, _ in used], "tool": [tool for _, tool in used]}
    return [
        name
        for kind, name in dict.fromkeys(granted)
        if not any(patterns.contains(name, one) for one in names[kind] if one)
    ]


def _finish(
    index: Index, overlay: Said | None, query: Query, now: int, agent: Json
) -> None:
    """What is shown of it, and costs a look at each."""
    lasts = [queries.last_moment(index, query, tally) for tally, _ in agent["of"]]
    agent["last_at"] = max((last // 1000 for last in lasts if last is not None), default=None)
    states = [views.state_of(views.known(said), overlay, now) for _, said in agent["of"]]
    agent["state"] = min(states, key=views.ALIVE.index)


def _stripped(one: Json) -> Json:
    return {key: value for key, value in one.items() if key not in ("of", "named")}
