"""Questions about decisions, typed into one line: which there were, by whom, in which tasks.

    table:customers operation:update task:q3 agent:sales* code:argument refused since:10m

What is said of one key holds for any of its values; all keys have to hold, and all words without a
key. A star at the end of a value stands for any text. A value in quotes is a JSON string, and is
meant as it is.

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
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple

from captoken.cli.console.counting import HOUR
from captoken.cli.console.index import Index
from captoken.cli.console.tables import BELOW, Call
from captoken.cli.words import plain

LONGEST: Final = 2000  # characters
_MOST: Final = 30  # words
_OFFERED: Final = 12  # completions
_CALL: Final = ", ".join(Call._fields)

# Of a kind of decision, and of who asked: the column for each key.
_WHAT: Final = {"table": "data", "operation": "operation", "tool": "tool", "code": "code"}
_WHO: Final = {"agent": "agent", "task": "hops.task", "subject": "subject", "token": "token"}
_TIMES: Final = ("since", "until")
_BELOW: Final = "below"  # a hop and all that came of it, by its id
KEYS: Final = (*_WHAT, *_WHO, *_TIMES, _BELOW)
_OUTCOMES: Final = {"refused": 0, "allowed": 1}

_WORDS = re.compile(r'(?:([a-z]+):)?("(?:[^"\\]|\\.)*"|[^\s"]+)(?=\s|$)').finditer
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


def parse(text: str, now: int, at: int | None = None) -> Query:
    """Read a question. Nothing after the second `at` is looked at. Raises Unclear."""
    said: dict[str, list[tuple[str, bool]]] = {}
    words: list[str] = []
    outcomes: set[int] = set()
    for key, value, is_exact in _split(text):
        if key:
            said.setdefault(key, []).append((value, is_exact))
        elif value in _OUTCOMES and not is_exact:
            outcomes.add(_OUTCOMES[value])
        else:
            words.append(value)

    parts, values = ["1"], list[Any]()
    for keys, subquery in ((_WHAT, _OF_WHATS), (_WHO, _OF_HOPS)):
        asked = [_any_of(key, column, said[key]) for key, column in keys.items() if key in said]
        if keys is _WHAT and len(outcomes) == 1:
            asked.append(("allowed = ?", list(outcomes)))
        if asked:
            parts.append(subquery.format(" and ".join(condition for condition, _ in asked)))
            values += [value for _, own in asked for value in own]
    for id, _ in said.get(_BELOW, ()):
        parts.append(f"hop in (with recursive {BELOW} select id from below)")
        values.append(id)
    for word in words:
        parts.append(f"({_OF_WHATS.format(_HAS_WHAT)} or {_OF_HOPS.format(_HAS_WHO)})")
        values += [word.lower()] * (_HAS_WHAT.count("?") + _HAS_WHO.count("?"))

    ends = {key: [_second(one, now) for one, _ in said.get(key, ())] for key in _TIMES}
    if at is not None:
        ends["until"].append(at)
    first = max(ends["since"], default=0) * 1000
    last = min(ends["until"], default=_END // 1000 - 1) * 1000 + 999
    return Query(" and ".join(parts), tuple(values), first, last)


_OF_WHATS = "what in (select id from whats where {})"
_OF_HOPS = "hop in (select id from hops join tasks using (task) where {})"
_HAS_WHAT = " or ".join(f"instr(lower({column}), ?)" for column in ("data", "tool", "operation"))
_HAS_WHO = " or ".join(f"instr(lower({column}), ?)" for column in ("agent", "hops.task", "subject"))


def _split(text: str) -> Iterator[tuple[str, str, bool]]:
    """The words of a question: key, value, and whether the value is meant as it is."""
    if len(text) > LONGEST:
        raise Unclear(f"a question has at most {LONGEST} characters")
    end = 0
    for count, found in enumerate(_WORDS(text)):
        if text[end : found.start()].strip() or count >= _MOST:
            break
        key, value = found.groups(default="")
        end = found.end()
        if key and key not in KEYS:
            raise Unclear(f"there is no {plain(key)}: ask by {', '.join(KEYS)}")
        yield key, _unquoted(value), value[0] == '"'
    if text[end:].strip():
        raise Unclear(f"this cannot be read: {plain(text[end:].strip()[:40])}")


def _unquoted(value: str) -> str:
    if value[0] != '"':
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        raise Unclear(f"this is no JSON string: {plain(value[:40])}") from None


def _any_of(key: str, column: str, stated: list[tuple[str, bool]]) -> tuple[str, list[Any]]:
    """A condition on a column: any of these values. A task stands for those below it, too."""
    parts, values = list[str](), list[Any]()
    for value, is_exact in stated:
        if value[-1:] == "*" and not is_exact:
            parts.append(f"substr({column}, 1, ?) = ?")
            values += [len(value) - 1, value[:-1]]
        elif key == "task":
            parts.append(f"({column} = ? or substr({column}, 1, ?) = ?)")
            values += [value, len(value) + 1, f"{value}/"]
        else:
            parts.append(f"{column} = ?")
            values.append(value)
    return f"({' or '.join(parts)})", values


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
    for hop, allowed, denied, hour in _counted(index, query):
        before = found.get(hop, Tally(hop, 0, 0, 0))
        counts = (before.allowed + allowed, before.denied + denied)
        found[hop] = Tally(hop, *counts, max(hour, before.hour))
    return list(found.values())


def _counted(index: Index, query: Query) -> Iterator[tuple[str, int, int, int]]:
    """By hop: whole hours as they were counted, and the calls of those that are not whole."""
    whole = (-(-query.first // HOUR), (query.last + 1) // HOUR - 1)
    if whole[0] <= whole[1]:
        yield from index.rows(
            f"""
            select hop, sum(calls * allowed), sum(calls * (1 - allowed)), max(hour)
            from tallies join whats on whats.id = what
            where hour between ? and ? and {query.condition} group by hop
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
                select coalesce(hop, ''), sum(allowed), sum(1 - allowed), max(moment) / {HOUR}
                from calls where moment between ? and ? and {query.condition} group by hop
                """,
                first,
                last,
                *query.values,
            )


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
    "code": "select code, 0 from whats where {} group by code",
    "agent": "select agent, 0 from hops where {} group by agent",
    "task": "select task, 0 from tasks where {}",
    "subject": "select subject, 0 from tasks where {} group by subject",
    "token": "select token, 0 from hops where {} group by token",
}
_COLUMNS: Final = {"table": "data"}
_SPANS: Final = ("10m", "1h", "1d")


def completed(index: Index, word: str) -> list[str]:
    """Words that begin as this one, of what the trails have. ASCII, and read back as meant."""
    key, colon, value = word[:LONGEST].partition(":")
    if not colon:
        offered = [one for one in _OUTCOMES if one.startswith(word)]
        offered += [f"{one}:" for one in KEYS if one.startswith(word)]
        if word:
            offered += [one for name in _VALUES for one in _offered(index, name, word, 3)]
        return offered[:_OFFERED]
    if key in _TIMES:
        return [f"{key}:{span}" for span in _SPANS if span.startswith(value)]
    return _offered(index, key, value.strip('"'), _OFFERED) if key in _VALUES else []


def _offered(index: Index, key: str, begins: str, most: int) -> list[str]:
    column = _COLUMNS.get(key, key)
    query = _VALUES[key].format(f"instr(lower({column}), ?) = 1")
    rows = index.rows(f"{query} order by {column} limit ?", begins.lower(), most)
    return [f"{key}:{spelled(value)}" for value, _ in rows]


def spelled(value: str) -> str:
    """A value as it is typed: in quotes, in ASCII, unless it is a plain name."""
    return value if _SIMPLE(value) else json.dumps(value)
