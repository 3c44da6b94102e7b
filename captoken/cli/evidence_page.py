"""Evidence as a page for people: it opens without a server, and has no script.

The page is a function of its lines, which it has in it, and of nothing else: no clock, no zone and
no store is asked. So who verifies it makes it once more, and compares.

All text is made plain, and escaped where it is put in. A policy in the file itself forbids scripts
and all that would be fetched, so that a name which somebody wrote can do nothing there.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from html import escape
from typing import Any

import msgspec

from captoken._format.encoding import EncodingError, b64decode
from captoken._format.encoding import b64encode as b64url
from captoken._format.errors import AuditError
from captoken._format.spelling import readable_time
from captoken.audit import analysis
from captoken.audit._chains import not_here
from captoken.audit._evidence import EvidenceFile, Proved
from captoken.cli.logged import Asked, Logged, in_marks, logged_of, moment, tried
from captoken.cli.words import counted, may, plain

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
body { max-width: 80rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0 }
th, td { border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent) }
td, li, code { overflow-wrap: anywhere }
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

# Around the lines, each in base64url: no text of a record is in the page's source as it is.
_BEGIN = b'<pre id="evidence" hidden>\n'
_END = b"</pre>\n</body></html>\n"

# What proves a record, for people.
_BY = {
    "tree": "sealed by checkpoint {}",
    "chain": "sealed by checkpoint {}, with the records between",
    "nothing": "not sealed yet",
}


def page_of(lines: Iterable[bytes], found: EvidenceFile) -> bytes:
    """The page of some lines. `found` is what `check_evidence` says of them. Raises AuditError."""
    text = "\n".join(_page(found)) + "\n"
    embedded = b"".join(b64url(line).encode() + b"\n" for line in lines)
    return text.encode("ascii") + _BEGIN + embedded + _END


def lines_in(page: bytes) -> list[bytes]:
    """The lines that a page has in it. Raises AuditError."""
    _, begin, rest = page.partition(_BEGIN)
    if not begin or not rest.endswith(_END):
        raise AuditError("a page without its evidence: it was cut, or captoken did not write it")
    try:
        return [b64decode(line.decode("ascii")) for line in rest[: -len(_END)].split(b"\n")[:-1]]
    except (EncodingError, UnicodeError):
        raise AuditError("the evidence in the page cannot be read: it was changed") from None


def _page(found: EvidenceFile) -> Iterator[str]:
    said = found.said
    asked = Asked(**msgspec.structs.asdict(said.asked))
    chosen = [
        (one, logged)
        for one in found.records
        if (logged := logged_of(one.record)) is not None and asked.is_about(logged)
    ]
    title = f"Evidence: {_selection(asked)}"
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="content-security-policy" content="{escape(_POLICY)}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>{_text(title)}</h1>"
    allowed = sum(logged.allowed for _, logged in chosen)
    yield f"<p>Exported at {readable_time(said.at)}: {allowed} allowed, "
    yield f"{len(chosen) - allowed} refused. All times are UTC. To prove this file by a server's "
    yield "public key, run <code>captoken audit verify FILE --server PUBLIC</code>. Its hash is "
    yield f"<code>{_text(found.hash)}</code>.</p>"
    yield "<h2>Trails</h2>"
    yield from _trails(found)
    yield "<h2>Agents</h2>"
    yield from _agents([one.record for one in found.records], asked, said.at)
    if said.told:
        yield "<h2>Operator actions</h2>"
        yield "<p>As whoever exported saw them. Nothing here proves them.</p>"
        yield from _table(
            ("when", "who", "selects", "leaves", "why"),
            (
                [readable_time(one.at), one.by, one.selects, one.leaves, one.why]
                for one in said.told
            ),
        )
    yield "<h2>Decisions</h2>"
    yield from _table(
        ("record", "when", "who", "what", "outcome", "why", "proof"), _rows(found, chosen)
    )
    between = sum(one.record["kind"] in ("decision", "issuance") for one in found.records)
    if between > len(chosen):
        yield f"<p>{counted(between - len(chosen), 'other decision')} are in the file because no "
        yield "checkpoint has a tree that leads past them. They are not shown here.</p>"


def _selection(asked: Asked) -> str:
    """What was asked for, in words."""
    parts = ["refused decisions" if asked.denied else "all decisions"]
    if asked.task is not None:
        parts.append(f"of task {asked.task} and below")
    if asked.agent is not None:
        parts.append(f"by {asked.agent}")
    if asked.until is not None:
        parts.append(f"up to {readable_time(asked.until)}")
    return " ".join(parts)


def _trails(found: EvidenceFile) -> Iterator[str]:
    """How far each was read, what seals it, and what of it is not here."""
    yield from _table(
        ("trail", "last record", "last checkpoint", "key", "in this file"),
        (
            [
                trail.name,
                f"{trail.head.seq} {trail.head.hash}",
                str(trail.sealed) if trail.sealed else "none yet, or its server has no key",
                ", ".join(_keys(found, number)),
                left_out(found, number),
            ]
            for number, trail in enumerate(found.said.trails)
        ),
    )


def left_out(found: EvidenceFile, number: int) -> str:
    """How much of a trail is here, and what is wrong with the rest."""
    trail = found.said.trails[number]
    here = counted(sum(one.trail == number for one in found.records), "record")
    missing = not_here(trail.begins)
    if missing is not None:
        here += f"; {missing}"
    if trail.trouble is not None:
        return f"{here}; nothing that no checkpoint seals, since {trail.trouble}"
    return f"{here} of {trail.head.seq}" if missing is None else f"{here}, up to {trail.head.seq}"


def _keys(found: EvidenceFile, number: int) -> dict[str, None]:
    """The keys that its checkpoints name, in order."""
    of_trail = (one.record for one in found.records if one.trail == number)
    return {str(one["key"]): None for one in of_trail if one["kind"] == "checkpoint"}


def _rows(found: EvidenceFile, chosen: Sequence[tuple[Proved, Logged]]) -> Iterator[list[str]]:
    """The decisions in the order of time, each with its proof."""
    seals = _seals(found)
    for one, logged in sorted(chosen, key=lambda one: one[1].at * 1000 + (one[1].ms or 0)):
        record = one.record
        seal = seals.get((one.trail, record["seq"]))
        yield [
            f"{found.said.trails[one.trail].name} {record['seq']}",
            moment(logged.at, logged.ms),
            _who(record, logged),
            tried(logged.access) if isinstance(logged, analysis.Decided) else "starts a task",
            "allowed" if logged.allowed else f"refused: {logged.code}",
            _why(record, logged),
            _BY[one.by].format(seal),
        ]


def _seals(found: EvidenceFile) -> dict[tuple[int, int], int]:
    """By trail and number: the checkpoint that stands behind a record."""
    seals: dict[tuple[int, int], int] = {}
    seal: dict[int, int] = {}
    for one in reversed(found.records):
        seq = one.record["seq"]
        if one.by == "checkpoint":
            seal[one.trail] = seq
        elif one.trail in seal:
            seals[one.trail, seq] = seal[one.trail]
    return seals


def _who(record: dict[str, Any], logged: Logged) -> str:
    """Who did it, with how each name is known, and for whom."""
    chain = " > ".join(f"{actor.name} ({actor.basis})" for actor in logged.chain)
    return f"{chain}, for {record.get('sub')}" if chain else "unknown"


def _why(record: dict[str, Any], logged: Logged) -> str:
    """Each limit that refused, and who added it. Of what was allowed, the marks that it is in."""
    if logged.allowed and isinstance(logged, analysis.Decided):
        return in_marks(logged)
    refusals = record.get("refusals")
    lines: list[str] = []
    for one in refusals if isinstance(refusals, list) else ():
        if isinstance(one, dict):
            added_by = one.get("added_by")
            who = "" if added_by is None else f" (added by {added_by})"
            lines.append(f"{one.get('text', '')}{who}")
    return "; ".join(lines)


def _agents(records: Sequence[dict[str, Any]], asked: Asked, at: int) -> Iterator[str]:
    """Who handed on to whom, as lists in lists: each with its link, and what that leaves."""
    tokens = [one for one in records if one["kind"] == "token"]
    decided = [one for one in records if one["kind"] == "decision" and asked.includes(one)]
    seen = analysis.gather([*tokens, *decided])

    # A list is kept in place of recursion: what closes a list waits below what is in it.
    waiting: list[analysis.Hop | str] = ["</ul>", *reversed(seen.roots)]
    yield "<ul>"
    while waiting:
        hop = waiting.pop()
        if isinstance(hop, str):
            yield hop
            continue
        by = hop.holders[-2] if len(hop.holders) > 1 else "the issuer"
        yield f"<li><b>{_text(hop.agent)}</b> ({_text(hop.basis)}, by {_text(by)}, link "
        yield f"{_text(hop.id)}): {_text('; '.join(may(hop, at)))}. "
        yield f"{hop.allowed} allowed, {hop.denied} refused"
        waiting.append("</li>")
        if hop.below:
            yield "<ul>"
            waiting += ["</ul>", *reversed(hop.below)]


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    yield "<table><thead><tr>"
    yield "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    yield "</tr></thead><tbody>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>"
    yield "</tbody></table>"


def _text(said: str) -> str:
    """A text that a stranger may have written, for the page."""
    return escape(plain(said))
