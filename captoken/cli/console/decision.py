"""One decision, on a page of its own: along which links it came about, and what would have done.

    view = decision_view(index, key)        # `key` is of a row of `views`

What a record says of links are their numbers; what stands in them is in the record of the token,
which the index finds by its last link.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from captoken._format.spelling import readable_time
from captoken._language.access import Access
from captoken._language.lineage import read_along
from captoken._verification.records import CODES
from captoken.audit import analysis
from captoken.cli.console import views
from captoken.cli.console.index import Index
from captoken.cli.console.tables import Call
from captoken.cli.console.views import Json
from captoken.cli.logged import moment
from captoken.cli.words import plain

_key = re.compile(r"([0-9]{1,16})\.([0-9a-f]{32})", re.ASCII).fullmatch


def decision_view(index: Index, key: str) -> Json | None:
    """A decision. None if there is none of that key, or its record is not what it was."""
    found = _key(key)
    if found is None:
        return None
    calls = index.calls("moment = ? and digest = ?", int(found[1]), bytes.fromhex(found[2]), most=1)
    for call, record in zip(calls, index.records(calls), strict=True):
        decided = views.decided_of(record)
        if record is None or decided is None:
            return None
        reasons = _reasons(record)
        return {
            "row": views.row_from(record, index.names[call.trail], key),
            "moment": plain(moment(decided.at, decided.ms)),
            "id": plain(str(record.get("id", ""))),
            "digest": call.digest.hex(),
            "task": {"text": plain(decided.task or ""), "key": decided.task},
            "hop": call.hop,
            "subject": plain(str(record.get("sub", ""))),
            "token": plain(decided.token or ""),
            "reasons": reasons,
            # As it was then: what was left of its time has run out since.
            "links": _links(index, record, reasons, decided.at),
            "needs": _needs(decided),
            "consents": _consents(record),
            "marks": [plain(mark.name) for mark in decided.marks],
            "json": json.dumps(record, indent=2, sort_keys=True),
        }
    return None


def _reasons(record: Mapping[str, Any]) -> list[Json]:
    """What was wrong, as far as it is said in a shape of ours: the first is the one that counts."""
    stated = record.get("refusals")
    return [
        {
            "link": one["link"] if isinstance(one.get("link"), int) else None,
            "code": plain(str(one.get("code", ""))),
            "text": plain(str(one.get("text", ""))),
            "added_by": plain(str(one["added_by"])) if "added_by" in one else None,
        }
        for one in (stated if isinstance(stated, list) else ())
        if isinstance(one, dict)
    ]


def _links(
    index: Index, record: Mapping[str, Any], reasons: list[Json], at: int
) -> list[Json]:
    """The links of its token from the root on: who added each, who held it then, what it says."""
    said = _token_of(index, record.get("link"))
    if said is None:
        return []
    links = analysis.links_of(said)
    first = str(said["root"]["agent"])
    found: list[Json] = []
    before = "the issuer"
    for place, link in enumerate(links):
        holder = read_along(first, links[: place + 1]).holders[-1]
        found.append(
            {
                "place": place,
                "id": plain(str(said["links"][place]["id"])),
                "added_by": plain(before),
                "holder": plain(holder),
                "says": [plain(line) for line in views.took(link, at)],
                "stopped": [one for one in reasons if one["link"] == place],
            }
        )
        before = holder
    return found


def _token_of(index: Index, link: Any) -> dict[str, Any] | None:
    """The record that describes a token, by its last link."""
    rows = index.rows("select trail, offset, length, digest from tokens where link = ?", link)
    calls = [
        Call(0, trail, offset, length, digest, 0, None) for trail, offset, length, digest in rows
    ]
    return next(index.records(calls), None)


def _needs(decided: analysis.Decided) -> str | None:
    """The smallest grant that would have permitted it, if more rights would have.

    Of arguments and attributes a record has the names, and seldom the values.
    """
    access = decided.access
    record = CODES.get(decided.code)
    if decided.allowed or access is None or record is None or not record.wider:
        return None
    if decided.code == "column" and access.columns is None:
        return None
    try:
        asked = Access(
            table=access.table,
            operation=access.operation,
            columns=access.columns,
            tool=access.tool,
            arguments=None if access.tool is None else dict.fromkeys(access.arguments or ()),
            attributes=dict.fromkeys(access.attributes),
        )
    except (TypeError, ValueError):
        return None
    return plain(asked.needed_text())


def _consents(record: Mapping[str, Any]) -> list[Json]:
    """The consents that it spent: whose they are, and of when."""
    stated = record.get("consents")
    return [
        {
            "by": plain(str(one.get("by", ""))),
            "link": one["link"] if isinstance(one.get("link"), int) else None,
            "given": _time(one.get("iat")),
            "until": _time(one.get("exp")),
        }
        for one in (stated if isinstance(stated, list) else ())
        if isinstance(one, dict)
    ]


def _time(stated: Any) -> str:
    return plain(readable_time(stated)) if isinstance(stated, int) else ""
