"""Records of an index, put together as an audit does it: of some hops, or of a time.

Whoever asks for records that are more than can be put together at once is given the last of them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from captoken.audit import analysis
from captoken.cli.console.index import Index
from captoken.cli.console.tables import Call

_TOGETHER = 20_000  # decisions that are put together at once


def of_uses(index: Index, hops: Sequence[str]) -> analysis.History:
    """What was allowed to some hops, each kind of access once, put together as an audit does.

    Of those that are more than can be put together, some.
    """
    query = f"""
        select 0, trail, offset, length, digest, 0, hop from uses
        where hop in ({", ".join("?" * len(hops))}) limit ?
    """
    return _gathered(index, hops, [Call(*row) for row in index.rows(query, *hops, _TOGETHER)])


def of_hops(index: Index, hops: Sequence[str]) -> tuple[analysis.History, bool]:
    """The records of some hops, and whether these are all."""
    return _last(index, f"hop in ({', '.join('?' * len(hops))})", hops, _TOGETHER, hops)


def between(
    index: Index, first: int, last: int, most: int, hops: Collection[str]
) -> tuple[analysis.History, bool]:
    """The records of some hops between two seconds, and whether these are all."""
    span = (first * 1000, last * 1000 + 999, json.dumps([*hops]))
    among = "moment between ? and ? and hop in (select value from json_each(?))"
    return _last(index, among, span, most)


def _last(
    index: Index, condition: str, values: Sequence[Any], most: int, hops: Sequence[str] = ()
) -> tuple[analysis.History, bool]:
    """The records of these calls, and those of `hops` that say what they are."""
    calls = index.calls(condition, *values, most=most + 1)
    return _gathered(index, hops, calls[:most]), len(calls) <= most


def _gathered(index: Index, hops: Sequence[str], calls: Sequence[Call]) -> analysis.History:
    last_link: dict[str, str] = {}
    records: list[dict[str, Any]] = []
    for hop in dict.fromkeys([*hops, *(call.hop for call in calls if call.hop is not None)]):
        ((said,),) = index.rows("select said from hops where id = ?", hop)
        records.append(json.loads(said))
        last_link[hop] = records[-1]["links"][-1]["id"]
    in_order = calls[::-1]
    for call, record in zip(in_order, index.records(in_order), strict=True):
        # A holder narrows for each call. What it did is the hop's, whose own last link is here.
        if record is not None and call.hop is not None:
            records.append({**record, "link": last_link[call.hop]})
    return analysis.gather(records)
