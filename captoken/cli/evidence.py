"""`captoken audit export`, and what `captoken audit verify` makes of such a file.

A file of evidence is JSON lines (spec 39.11), or a page for people that has these lines in it. The
page is made of nothing but the lines. So whoever verifies it makes it again: a change of the page
is found, as is one of the lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import time
from typing import IO, Any

import click
import msgspec

from captoken._format.errors import AuditError
from captoken._format.spelling import shown
from captoken.audit import _evidence
from captoken.audit._chains import chains, span_of
from captoken.audit._evidence import EvidenceFile, Lines, Survey
from captoken.cli import evidence_page, files, words
from captoken.cli.console.trails import names_for
from captoken.cli.evidence_page import lines_in, page_of
from captoken.cli.logged import Asked
from captoken.cli.options import json_option
from captoken.cli.output import answer
from captoken.cli.values import FILE, MOMENT

_PAGE = b"<!doctype html>"
_LINES = b'{"evidence":'


# --- writing --------------------------------------------------------------------------------------


@click.command()
@click.argument("trail_files", type=FILE, metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--out",
    type=FILE,
    metavar="FILE",
    required=True,
    help="Where to write: a page for people if it ends in .html, and JSON lines if not.",
)
@click.option("--task", metavar="PATH", help="This task, and those below it.")
@click.option("--agent", metavar="NAME", help="What this agent did.")
@click.option("--denied", is_flag=True, help="What was refused alone.")
@click.option("--until", type=MOMENT, metavar="TIME", help="What was decided by then.")
@json_option
def export(
    trail_files: tuple[str, ...],
    out: str,
    task: str | None,
    agent: str | None,
    denied: bool,
    until: int | None,
    as_json: bool,
) -> None:
    """Write decisions with their proof to one file.

    Whoever gets it proves it with `captoken audit verify`, by the server's public key: offline, on
    another machine, without the trail. No key is needed to write it. FILE is a trail, or evidence,
    to write that as the other kind of file. Files that continue each other are one trail.

    \b
    captoken audit export trail.jsonl --task payday --out payday.html

    No file of some records can show that another was left out later. Keep the hash that is written
    here elsewhere: `verify` shows it again. It is an error if no record has that task or agent: the
    name may be misspelt.
    """
    asked = Asked(task, agent, denied, until)
    lines = _again(trail_files, asked)
    if lines is None:
        named = _Named(asked)
        surveys = list(_surveyed(trail_files, named.includes))
        if not named.is_known:
            raise click.ClickException(f"no record has {named.words}: is the name right?")
        lines = list(_evidence.exported(surveys, asked=asked, at=int(time())))
    found = _evidence.check_evidence(lines)
    is_page = out.lower().endswith((".html", ".htm"))
    with open(out, "wb") as file:
        file.writelines([page_of(lines, found)] if is_page else lines)
    data = data_of(found)
    line = f"{out}: {proved_in_words(data)}"
    answer(as_json, {"file": out, **data}, line, *left_out(found))


def _again(paths: Sequence[str], asked: Asked) -> list[bytes] | None:
    """The lines of a file that is evidence already; None for trails. Raises UsageError."""
    if len(paths) > 1:
        return None
    with open(paths[0], "rb") as file:
        if not is_evidence(file):
            return None
        if asked != Asked():
            raise click.UsageError("evidence is written again as it is: name the trail to choose")
        return _lines_of(file)[0]


class _Named:
    """Which decisions are asked for, and whether any record has the task and agent asked for."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._whose = Asked(asked.task, asked.agent)
        self.is_known = self._whose == Asked()

    @property
    def words(self) -> str:
        """The names that were asked for, for people."""
        said = (("task", self._asked.task), ("agent", self._asked.agent))
        return " and ".join(f"{what} {shown(name)}" for what, name in said if name is not None)

    def includes(self, record: Mapping[str, Any]) -> bool:
        """Is a record one of these? Raises AuditError."""
        self.is_known = self.is_known or self._whose.includes(record)
        return self._asked.includes(record)


def _surveyed(
    paths: Sequence[str], includes: Callable[[Mapping[str, Any]], bool]
) -> Iterator[Survey]:
    """The trails in some files. Those that continue each other are one, by the last one's name."""
    found = chains([span_of(lines_of(path)()) for path in paths])
    names = names_for([paths[one.files[-1]] for one in found])
    for one, name in zip(found, names, strict=True):
        own = [paths[place] for place in one.files]
        with files.about(", ".join(own)):
            yield _evidence.survey(
                name, lines_of(*own), includes, after=one.after, trouble=one.trouble
            )


def lines_of(*paths: str) -> Lines:
    """The lines of some files one after the other, from the beginning each time."""

    def lines() -> Iterator[bytes]:
        for path in paths:
            with open(path, "rb") as file:
                yield from file

    return lines


# --- verifying ------------------------------------------------------------------------------------


def is_evidence(file: IO[bytes]) -> bool:
    """Is it evidence, and no trail? Nothing is read away."""
    start: bytes = file.peek(32)[:32]  # type: ignore[attr-defined]
    return start.startswith((_PAGE, _LINES))


def verified(file: IO[bytes], servers: Iterable[str]) -> EvidenceFile:
    """What a file of evidence proves. Raises AuditError."""
    lines, page = _lines_of(file)
    found = _evidence.check_evidence(lines, servers)
    if page is not None and page_of(lines, found) != page:
        raise AuditError(
            "its records hold, and the page around them is not what they say: it was changed, or "
            "another version wrote it. `captoken audit export` writes it again"
        )
    return found


def _lines_of(file: IO[bytes]) -> tuple[list[bytes], bytes | None]:
    """The lines, and the page around them if there is one. Raises AuditError."""
    data = file.read()
    if not data.startswith(_PAGE):
        *whole, rest = data.split(b"\n")
        return [line + b"\n" for line in whole] + ([rest] if rest else []), None
    return lines_in(data), data


def data_of(found: EvidenceFile) -> dict[str, Any]:
    """How much of it is proved, for machines."""
    decided = [one for one in found.records if one.record["kind"] in ("decision", "issuance")]
    asked = Asked(**msgspec.structs.asdict(found.said.asked))
    chosen = [one for one in decided if asked.includes(one.record)]
    return {
        "decisions": len(chosen),
        "proved": sum(one.by != "nothing" for one in chosen),
        "not_sealed": [one.record["seq"] for one in chosen if one.by == "nothing"],
        "records": len(found.records),
        "hash": found.hash,
    }


def proved_in_words(data: Mapping[str, Any]) -> str:
    """The same in a line."""
    said = f"{words.counted(data['proved'], 'decision')} sealed by a checkpoint"
    waiting = len(data["not_sealed"])
    if waiting:
        said += f", and {waiting} not sealed yet"
    return f"{said}; hash {data['hash']}"


def left_out(found: EvidenceFile) -> list[str]:
    """How much of each trail is in the file, a line each."""
    unsealed = "; no checkpoint yet, or its server has no key"
    return [
        f"{one.name}: {evidence_page.left_out(found, number)}{'' if one.sealed else unsealed}"
        for number, one in enumerate(found.said.trails)
    ]
