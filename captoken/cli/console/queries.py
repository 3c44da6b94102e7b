"""Questions about decisions, typed into one line: which there were, by whom, in which tasks.

    table:customers operation:update task:q3 agent:sales* -code:argument refused since:10m

What is said of one key holds for any of its values; all keys have to hold, and all words without a
key. A star at the end of a value stands for any text. A value in quotes is a JSON string, and is
meant as it is. What a minus stands before must not hold.

    query = parse("table:hr refused", now)       # raises Unclear
    found = answer(index, query, ...)            # counts, decisions, agents, tasks
    completed(index, "agent:sa")                 # what the trails have that begins so

The index has counted decisions by kind, hop and hour (`tallies`). So a million records are answered
for by a few thousand rows; single decisions are looked at in the hours in which there are some, the
last first, and in the hours at the ends of a span.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

from captoken.cli.console.counting import HOUR
from captoken.cli.console.index import Index
from captoken.cli.console.tables import BELOW, Call
from captoken.cli.words import plain

LONGEST: Final = 2000  # characters
_MOST: Final = 30  # words
_OFFERED: Final = 14  # completions
_CALL: Final = ", ".join(Call._fields)

# Of a kind of decision, and of who asked: the column for each key.
_WHAT: Final = {
    "table": "data",
    "operation": "operation",
    "tool": "tool",
    "code": "code",
    "server": "name",
}
_WHO: Final = {"agent": "agent", "task": "hops.task", "subject": "subject", "token": "token"}
_TIMES: Final = ("since", "until")
_BELOW: Final = "below"  # a hop and all that came of it, by its id
ASKED_BY: Final = (*_WHAT, *_WHO, *_TIMES)
KEYS: Final = (*ASKED_BY, _BELOW)
_OUTCOMES: Final = {"refused": 0, "allowed": 1}

_WORDS = re.compile(r'(-?)(?:([a-z]+):)?("(?:[^"\\]|\\.)*"|[^\s"]+)(?=\s|$)').finditer
_SPAN = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII).fullmatch
_SIMPLE = re.compile(r"[\w./@+-][\w./:@+-]*", re.ASCII).fullmatch
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_END: Final = 1 << 62


class Unclear(Exception):  # noqa: N818, the name reads as what it is
    """A question that cannot be read. The message is for whoever asked."""


class Query(NamedTuple):
    """A question: a condition on `what` and `hop`, of tallies and calls alike, and a span."""

    condition: str
    values: tuple[Any, ...]

    # Milliseconds, both included.
    first: int
    last: int


class _Word(NamedTuple):
    """A word of a question. `is_exact` is one in quotes, and `is_not` one behind a minus."""

    key: str
    value: str
    is_exact: bool
    is_not: bool


def parse(text: str, now: int, at: int | None = None) -> Query:
    """Read a question. Nothing after the second `at` is looked at. Raises Unclear."""
    said: dict[str, list[_Word]] = {}
    for word in _split(text):
        said.setdefault(word.key, []).append(word)

    parts, values = ["1"], list[Any]()

    def add(condition: str, own: Iterable[Any]) -> None:
        parts.append(condition)
        values.extend(own)

    for keys, among in ((_WHAT, _OF_WHATS), (_WHO, _OF_HOPS)):
        for key, column in keys.items():
            for is_not in (False, True):
                words = [word for word in said.get(key, ()) if word.is_not is is_not]
                if words:
                    condition, own = _any_of(key, column, words)
                    add(among[is_not].format(condition), own)
    outcomes = [word for word in said.get("", ()) if _is_outcome(word)]
    wanted = {_OUTCOMES[word.value] ^ word.is_not for word in outcomes}
    if len(wanted) == 1:
        add(_OF_WHATS[False].format("allowed = ?"), wanted)
    for word in said.get(_BELOW, ()):
        add(f"hop in (with recursive {BELOW} select id from below)", [word.value])
    for word in said.get("", ()):
        if not _is_outcome(word):
            either = [_OF_WHATS[word.is_not].format(_HAS_WHAT)]
            either.append(_OF_HOPS[word.is_not].format(_HAS_WHO))
            own = [word.value.lower()] * "".join(either).count("?")
            add(f"({(' and ' if word.is_not else ' or ').join(either)})", own)

    ends = {key: [_second(word.value, now) for word in said.get(key, ())] for key in _TIMES}
    if at is not None:
        ends["until"].append(at)
    first = max(ends["since"], default=0) * 1000
    last = min(ends["until"], default=_END // 1000 - 1) * 1000 + 999
    return Query(" and ".join(parts), tuple(values), first, last)


# Among those that are meant, or among all others. A decision may be about no hop.
_OF_WHATS = {
    False: "what in (select id from whats where {})",
    True: "what not in (select id from whats where {})",
}
_OF_HOPS = {
    False: "hop in (select id from hops join tasks using (task) where {})",
    True: "coalesce(hop, '') not in (select id from hops join tasks using (task) where {})",
}
_HAS_WHAT = " or ".join(f"instr(lower({column}), ?)" for column in ("data", "tool", "operation"))
_HAS_WHO = " or ".join(f"instr(lower({column}), ?)" for column in ("agent", "hops.task", "subject"))


def _is_outcome(word: _Word) -> bool:
    return word.value in _OUTCOMES and not word.is_exact


def _split(text: str) -> Iterator[_Word]:
    """The words of a question."""
    if len(text) > LONGEST:
        raise Unclear(f"a question has at most {LONGEST} characters")
    end = 0
    for count, found in enumerate(_WORDS(text)):
        if text[end : found.start()].strip() or count >= _MOST:
            break
        minus, key, value = found.groups(default="")
        end = found.end()
        if key and key not in KEYS:
            raise Unclear(f"there is no {plain(key)}: ask by {', '.join(ASKED_BY)}")
        if minus and key in (*_TIMES, _BELOW):
            raise Unclear(f"there is no minus before {key}")
        yield _Word(key, _unquoted(value), value[0] == '"', bool(minus))
    if text[end:].strip():
        raise Unclear(f"this cannot be read: {plain(text[end:].strip()[:40])}")


def _unquoted(value: str) -> str:
    if value[0] != '"':
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        raise Unclear(f"this is no JSON string: {plain(value[:40])}") from None


def _any_of(key: str, column: str, words: Iterable[_Word]) -> tuple[str, list[Any]]:
    """A condition on a column: any of these values. A task stands for those below it, too."""
    parts, values = list[str](), list[Any]()
    for _, value, is_exact, _ in words:
        if value[-1:] == "*" and not is_exact:
            parts.append(f"substr({column}, 1, ?) = ?")
            values += [len(value) - 1, value[:-1]]
        elif key == "task":
            parts.append(f"({column} = ? or substr({column}, 1, ?) = ?)")
            values += [value, len(value) + 1, f"{value}/"]
        else:
            parts.append(f"{column} = ?")
            values.append(value)
    condition = f"({' or '.join(parts)})"
    if key == "server":
        condition = f"trail in (select trail from servers where {condition})"
    return condition, values


def _second(text: str, now: int) -> int:
    """A time: `10m` ago, or a date with or without a time, in UTC. Raises Unclear."""
    if found := _SPAN(text):
        return now - int(found[1]) * _SECONDS[found[2]]
    try:
        stated = datetime.fromisoformat(text)
        return int(stated.replace(tzinfo=stated.tzinfo or UTC).timestamp())
    except (ValueError, OverflowError):
        raise Unclear(f"{plain(text[:40])} is no time: 10m, 2h, or 2026-12-01T09:30") from None


# --- what was found -------------------------------------------------------------------------------


class Tally(NamedTuple):
    """How many decisions on a hop were found, and the hour of the last one."""

    hop: str
    allowed: int
    denied: int
    hour: int


def tallied(index: Index, query: Query) -> list[Tally]:
    """What was found, by hop. A decision that is about none of a known token has an empty one."""
    found: dict[str, Tally] = {}
    for hop, allowed, denied, hour in _counted(index, query, "hop"):
        before = found.get(hop, Tally(hop, 0, 0, 0))
        counts = (before.allowed + allowed, before.denied + denied)
        found[hop] = Tally(hop, *counts, max(hour, before.hour))
    return list(found.values())


# What decisions are counted by: its column in tallies, and in calls.
_BY: Final = {
    "hop": ("hop", "coalesce(hop, '')"),
    "what": ("what", "what"),
    "hour": ("hour", f"moment / {HOUR}"),
}


def _counted(index: Index, query: Query, by: str) -> Iterator[tuple[Any, int, int, int]]:
    """By hop, kind or hour, how many were allowed and denied, and the hour of the last: whole hours
    as they were counted, and the calls of those that are not whole.
    """
    of_tallies, of_calls = _BY[by]
    whole = (-(-query.first // HOUR), (query.last + 1) // HOUR - 1)
    if whole[0] <= whole[1]:
        yield from index.rows(
            f"""
            select {of_tallies}, sum(calls * allowed), sum(calls * (1 - allowed)), max(hour)
            from tallies join whats on whats.id = what
            where hour between ? and ? and {query.condition} group by {of_tallies}
            """,
            *whole,
            *query.values,
        )
        spans = [(query.first, whole[0] * HOUR - 1), ((whole[1] + 1) * HOUR, query.last)]
    else:
        spans = [(query.first, query.last)]
    for first, last in spans:
        if first <= last:
            yield from index.rows(
                f"""
                select {of_calls} as key, sum(allowed), sum(1 - allowed), max(moment) / {HOUR}
                from calls where moment between ? and ? and {query.condition} group by key
                """,
                first,
                last,
                *query.values,
            )


# --- when, and of which kinds ---------------------------------------------------------------------

_BARS: Final = 60
_SECOND: Final = 1000  # milliseconds
_STEPS: Final = (1, 5, 10, 30, 60, 120, 300, 600, 1200, 1800)  # seconds of a bar, below an hour
_FEW: Final = 50_000  # records that are looked at one by one

# Of a bar or a value: how many were allowed and denied.
Counts: TypeAlias = tuple[int, int]


def series(index: Index, query: Query, now: int) -> dict[str, Any] | None:
    """When that was: bars from the first to the last of it, or from `since:` on.

    None where nothing was found. Bars of seconds or minutes take a look at each record of that
    time: of too many there are bars of hours.
    """
    hours: dict[int, Counts] = {}
    for hour, allowed, denied, _ in _counted(index, query, "hour"):
        hours[hour] = _sum(hours.get(hour), (allowed, denied))
    if not hours:
        return None
    first = max(query.first, min(hours) * HOUR)
    last = min(query.last, (max(hours) + 1) * HOUR - 1)
    ((records,),) = index.rows(
        "select sum(calls) from tallies where hour between ? and ?", first // HOUR, last // HOUR
    )
    if records <= _FEW:
        ((first, last),) = index.rows(
            f"""
            select min(moment), max(moment) from calls
            where moment between ? and ? and {query.condition}
            """,
            first,
            last,
            *query.values,
        )
    if query.first:
        first, last = query.first, min(query.last, now * _SECOND + _SECOND - 1)
    step = next((one for one in _STEPS if last - first < one * _SECOND * (_BARS - 1)), None)
    if step is None or records > _FEW:
        step = HOUR // _SECOND * -(-(last // HOUR - first // HOUR + 1) // _BARS)
        found = [(hour * HOUR, *counts) for hour, counts in hours.items()]
    else:
        found = index.rows(
            f"""
            select moment, allowed, 1 - allowed from calls
            where moment between ? and ? and {query.condition}
            """,
            first,
            last,
            *query.values,
        )
    begin, width = first // (step * _SECOND), step * _SECOND
    bars: list[Counts] = [(0, 0)] * (last // width - begin + 1)
    for moment, allowed, denied in found:
        place = max(0, moment // width - begin)
        bars[place] = _sum(bars[place], (allowed, denied))
    return {
        "from": begin * step,
        "step": step,
        "allowed": [allowed for allowed, _ in bars],
        "denied": [denied for _, denied in bars],
    }


def of_kinds(index: Index, query: Query) -> dict[str, dict[str, Counts]]:
    """By key of a kind of decision, as `code`: how often each value came."""
    found: dict[str, dict[str, Counts]] = {key: {} for key in _WHAT}
    counts: dict[int, Counts] = {}
    for what, allowed, denied, _ in _counted(index, query, "what"):
        counts[what] = _sum(counts.get(what), (allowed, denied))
    for id, *values in index.rows(
        "select id, data, operation, tool, code, name from whats left join servers using (trail)"
    ):
        if id in counts:
            for key, value in zip(_WHAT, values, strict=True):
                if value:
                    found[key][value] = _sum(found[key].get(value), counts[id])
    return found


def _sum(one: Counts | None, other: Counts) -> Counts:
    return other if one is None else (one[0] + other[0], one[1] + other[1])


def found_calls(index: Index, query: Query, before: str | None, most: int) -> list[Call]:
    """Decisions, the last first. `before` is the place of the last one that is known already."""
    last, id = query.last, _END
    if before is not None:
        moment, _, known = before.partition(".")
        last, id = min(last, int(moment)), int(known)
    rows = index.rows(
        f"""
        select distinct hour, hop from tallies
        where hour between ? and ? and {query.condition} order by hour desc
        """,
        query.first // HOUR,
        last // HOUR,
        *query.values,
    )
    found: list[Call] = []
    for hour, group in groupby(rows, itemgetter(0)):
        hops = [hop for _, hop in group]
        span = (max(query.first, hour * HOUR), min(last, (hour + 1) * HOUR - 1))
        # By the hops of that hour: their calls stand in the order of time.
        among = "hop in (select value from json_each(?))"
        in_hour = _in_hour(index, query, (among, json.dumps(hops)), span, (last, id), most)
        if "" in hops:
            in_hour += _in_hour(index, query, ("hop is ?", None), span, (last, id), most)
        found += sorted(in_hour, key=lambda call: (call.moment, call.id), reverse=True)
        if len(found) >= most:
            break
    return found[:most]


def _in_hour(
    index: Index,
    query: Query,
    of: tuple[str, str | None],
    span: tuple[int, int],
    before: tuple[int, int],
    most: int,
) -> list[Call]:
    rows = index.rows(
        f"""
        select {_CALL} from calls indexed by calls_by_hop
        where {of[0]} and moment between ? and ? and (moment, id) < (?, ?) and {query.condition}
        order by moment desc, id desc limit ?
        """,
        of[1],
        *span,
        *before,
        *query.values,
        most,
    )
    return [Call(*row) for row in rows]


def last_moment(index: Index, query: Query, tally: Tally) -> int | None:
    """When the last of these was."""
    ((last,),) = index.rows(
        f"select max(moment) from calls where hop is ? and moment between ? and ? and "
        f"{query.condition}",
        tally.hop or None,
        max(query.first, tally.hour * HOUR),
        min(query.last, (tally.hour + 1) * HOUR - 1),
        *query.values,
    )
    return None if last is None else int(last)


# --- completion -----------------------------------------------------------------------------------

_VALUES: Final = {
    "table": "select data, 0 from whats where data != '' and {} group by data",
    "operation": "select operation, 0 from whats where operation != '' and {} group by operation",
    "tool": "select tool, 0 from whats where tool != '' and {} group by tool",
    "code": "select code, 0 from whats where code != '' and {} group by code",
    "server": "select name, 0 from servers where {} group by name",
    "agent": "select agent, 0 from hops where {} group by agent",
    "task": "select task, 0 from tasks where {}",
    "subject": "select subject, 0 from tasks where {} group by subject",
    "token": "select token, 0 from hops where {} group by token",
}
_COLUMNS: Final = {"table": "data", "server": "name"}
_SPANS: Final = ("10m", "1h", "1d")


def completed(index: Index, word: str) -> list[str]:
    """Words that this one may become, of what the trails have. ASCII, and read back as meant."""
    word = word[:LONGEST]
    if word[:1] == "-":
        times = tuple(f"{key}:" for key in _TIMES)
        return [f"-{one}" for one in completed(index, word[1:]) if not one.startswith(times)]
    key, colon, value = word.partition(":")
    if not colon:
        offered = [one for one in _OUTCOMES if one.startswith(word)]
        offered += [f"{one}:" for one in ASKED_BY if one.startswith(word)]
        if word:
            offered += [one for name in _VALUES for one in _offered(index, name, word, 3)]
        return offered[:_OFFERED]
    if key in _TIMES:
        return [f"{key}:{span}" for span in _SPANS if span.startswith(value)]
    return _offered(index, key, value.strip('"'), _OFFERED) if key in _VALUES else []


def _offered(index: Index, key: str, part: str, most: int) -> list[str]:
    """Values that have this part: first those that begin with it, and the short before the long."""
    column = _COLUMNS.get(key, key)
    query = _VALUES[key].format(f"instr(lower({column}), ?)")
    order = f"instr(lower({column}), ?) > 1, length({column}), {column}"
    rows = index.rows(f"{query} order by {order} limit ?", part.lower(), part.lower(), most)
    return [f"{key}:{spelled(value)}" for value, _ in rows]


def spelled(value: str) -> str:
    """A value as it is typed: in quotes, in ASCII, unless it is a plain name."""
    return value if _SIMPLE(value) else json.dumps(value)
