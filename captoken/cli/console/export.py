"""One task in one file, for a report or an incident: it opens without a server, and has no script.

All text in it is escaped where it is put in. A policy in the file itself forbids scripts and all
that would be fetched, so that a name which somebody wrote can do nothing there either.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from hashlib import sha256
from html import escape
from typing import Any

from captoken._format.spelling import readable_time
from captoken._language.overlay import Overlay
from captoken.cli.console import views
from captoken.cli.console.index import Index

DECISIONS = 1000  # the last ones

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0 }
th, td { border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent) }
td, li { overflow-wrap: anywhere }
@media (max-width: 45rem) {
  thead { position: absolute; clip-path: inset(50%) }
  tr { display: block; padding: .4rem 0 }
  td { display: block; padding: 0; border: 0 }
  td:empty { display: none }
  tr { border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent) }
}
""".strip()
_DIGEST = b64encode(sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'"

Json = dict[str, Any]


def exported(
    index: Index,
    overlay: Overlay | None,
    spent: views.Spent,
    now: int,
    task: str,
) -> bytes | None:
    """The file of a task, in UTF-8. None if there is no such task."""
    found = views.task_view(index, overlay, spent, now, task)
    if found is None:
        return None
    stands = views.said_of_task(index, overlay, task, now)
    has_servers = len(index.names) > 1
    return "\n".join(_page(found, _decisions(index, task), stands, now, has_servers)).encode()


def _decisions(index: Index, task: str) -> Iterator[Json]:
    """The last decisions of a task, the last first."""
    before: str | None = None
    for _ in range(DECISIONS // views.PAGE):
        page = views.decisions_view(index, task=task, before=before)
        yield from page["rows"]
        if page["next"] is None:
            return
        before = page["next"]


def _page(
    found: Json,
    decisions: Iterable[Json],
    stands: list[Json],
    now: int,
    has_servers: bool,
) -> Iterator[str]:
    task = found["task"]
    title = f"Task {task['task']}"
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="content-security-policy" content="{escape(_POLICY)}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>{escape(title)}</h1>"
    yield f"<p>For {escape(task['subject'])}, as of {_time(now)}: {escape(task['state'])}. "
    yield f"{task['allowed']} calls were allowed, {task['denied']} refused.</p>"

    yield "<h2>Agents</h2>"
    yield from _tree(found["nodes"])
    yield "<h2>Operator actions</h2>"
    yield from _entries(stands)
    yield f"<h2>Decisions, the last {DECISIONS} at most</h2>"
    yield from _table(
        ("when", *(["server"] if has_servers else []), "who", "what", "outcome", "why"),
        (
            (
                _time(one["at"]),
                *([one["server"] or ""] if has_servers else []),
                one["who"],
                one["what"],
                "allowed" if one["allowed"] else f"refused: {one['code']}",
                _why(one),
            )
            for one in decisions
        ),
    )
    yield "</body></html>"


def _why(one: Json) -> str:
    """Why it was refused, and who had added that limit."""
    return f"{one['why']} (added by {one['added_by']})" if one["added_by"] else str(one["why"])


def _entries(stands: list[Json]) -> Iterator[str]:
    """What operators have said."""
    if not stands:
        yield "<p>Nothing that stands.</p>"
        return
    yield from _table(
        ("when", "who", "selects", "leaves", "why"),
        (
            (
                _time(one["at"]),
                one["by"],
                one["select"],
                "nothing" if one["narrows"] is None else "; ".join(one["narrows"]),
                one["why"],
            )
            for one in stands
        ),
    )


def _tree(nodes: list[Json]) -> Iterator[str]:
    """Who handed on to whom, as lists in lists."""
    below: dict[str | None, list[Json]] = {}
    for node in nodes:
        below.setdefault(node["parent"], []).append(node)

    def listed(parent: str | None) -> Iterator[str]:
        yield "<ul>"
        for node in below.get(parent, ()):
            counts = f"{node['allowed']} allowed, {node['denied']} refused"
            may = "; ".join(node["words"])
            yield f"<li><b>{escape(node['agent'])}</b> ({escape(node['basis'])}, "
            yield f"{escape(node['state'])}): {escape(may)}. {counts}"
            if node["id"] in below:
                yield from listed(node["id"])
            yield "</li>"
        yield "</ul>"

    yield from listed(None)


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    yield "<table><thead><tr>"
    yield "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    yield "</tr></thead><tbody>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
    yield "</tbody></table>"


def _time(at: int | None) -> str:
    return "" if at is None else readable_time(at)
