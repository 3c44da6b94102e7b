"""`captoken audit` and `blast-radius`: what a trail shows.

All that a record says is escaped when it is written (`output`).
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import IO, TYPE_CHECKING, Any

import click
import msgspec

from captoken._format.errors import AuditError
from captoken._format.spelling import escape, named, named_all, readable_time, shown_file
from captoken._language.overlay import Overlay
from captoken.audit import analysis as trails
from captoken.audit._chains import begins_after, chains, not_here, span_of
from captoken.audit._check import Verdict, check, read
from captoken.audit._evidence import EvidenceFile
from captoken.cli import evidence, files, output, words
from captoken.cli.groups import InOrder
from captoken.cli.logged import (
    Asked,
    Logged,
    consented,
    in_marks,
    is_in,
    logged_of,
    moment,
    refused,
    told_of_issuer,
    tried,
)
from captoken.cli.options import json_option, newest_overlay, now_option, overlay_options, seconds
from captoken.cli.output import answer, spaced, tell
from captoken.cli.values import DURATION, FILE, ID, PUBLIC
from captoken.stores.ports import Head

if TYPE_CHECKING:
    from rich.tree import Tree

file_argument = click.argument("trail_file", type=FILE, metavar="FILE")


class _OfTrails(InOrder):
    """Commands that read a file. A file without a command is an error that names two of them."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and os.path.isfile(args[0]):
            shows, checks = (f"`{ctx.command_path} {name} FILE`" for name in ("log", "verify"))
            what = f"{shows} shows what it says, and {checks} whether it is whole"
            raise click.UsageError(f"{shown_file(args[0])} is a file: {what}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_OfTrails)
def audit() -> None:
    """Read the trail that a server has kept.

    Is it complete, who did what, and which rights were never needed? FILE is the trail, or - for
    standard input. All commands except `verify` refuse an incomplete trail, and check no signature.
    """


@contextmanager
def _opened(path: str) -> Generator[IO[bytes]]:
    """A trail as it is read: a file, or standard input for `-`."""
    if path == "-":
        yield sys.stdin.buffer
        return
    with open(path, "rb") as file:
        yield file


def _records(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The records of a trail. One that continues another file is read from there on, with a note.

    The command `verify` alone says whether a trail is whole, and it wants both files.
    """
    first = file.readline()
    after = begins_after(first)
    missing = not_here(after)
    if missing is not None:
        tell(f"note: {missing}")
    yield from read(chain([first] if first else [], file), after)


def _logged(paths: Sequence[str]) -> Iterator[tuple[dict[str, Any], Logged | None]]:
    """The records of some trails, one trail after the other, as `logged_of` reads them.

    Files that continue each other are one trail. Raises AuditError, and UsageError for standard
    input beside a file.
    """
    if len(paths) == 1:
        with _opened(paths[0]) as file, files.about(paths[0]):
            yield from ((record, logged_of(record)) for record in _records(file))
        return
    if "-" in paths:
        raise click.UsageError("standard input (-) cannot be read together with files")
    for one in chains([span_of(evidence.lines_of(path)()) for path in paths]):
        own = [paths[place] for place in one.files]
        with files.about(", ".join(own)):
            if one.trouble is not None:
                raise AuditError(one.trouble)
            missing = not_here(one.after)
            if missing is not None:
                tell(f"note: {own[0]}: {missing}")
            records = read(evidence.lines_of(*own)(), one.after)
            yield from ((record, logged_of(record)) for record in records)


def history(path: str) -> trails.History:
    """What a trail tells. Raises AuditError for one that is not whole."""
    with _opened(path) as file, files.about(path):
        return trails.gather(_records(file))


# --- verify ---------------------------------------------------------------------------------------


@audit.command()
@file_argument
@click.option(
    "--server",
    type=PUBLIC,
    metavar="PUBLIC",
    multiple=True,
    help="The public key of a server whose checkpoints you trust. Repeatable.",
)
@click.option(
    "--head",
    type=FILE,
    metavar="FILE",
    help="The file that keeps the last record seen.",
)
@click.option(
    "--new-head",
    type=FILE,
    metavar="FILE",
    help="Create that file, for the first time. It must not exist yet.",
)
@click.option(
    "--after",
    type=FILE,
    metavar="FILE",
    help="The last head of the previous file, if the trail continues one.",
)
@json_option
def verify(
    trail_file: str,
    server: tuple[str, ...],
    head: str | None,
    new_head: str | None,
    after: str | None,
    as_json: bool,
) -> int:
    """Check that a trail or exported evidence is complete and unchanged.

    It detects a cut, an edit, a new order and a rollback. Exit 0: complete, 1: not. FILE is a
    trail, or a file that `captoken audit export` wrote, which needs no other file.

    \b
    captoken audit verify trail.jsonl \\
        --server "$(cat server.public)" --head trail.head

    Without --server it checks no signature: whoever can write the file can write a consistent one.
    Without --head it cannot detect records cut off at the end. Keep the head where whoever writes
    the trail cannot change it. If a file continues another one, use --after. All other commands
    read several files in order from standard input.
    """
    if head is not None and new_head is not None:
        raise click.UsageError("a head is either kept in a file, or begins one")
    if new_head is not None and os.path.exists(new_head):
        raise click.UsageError(f"{new_head} is there: --head checks against it")
    known = [] if head is None else [_known(head)]
    before = None if after is None else _known(after)
    try:
        with _opened(trail_file) as file:
            if evidence.is_evidence(file):
                if (head or new_head or after) is not None:
                    raise click.UsageError("heads are of trails, and this file is evidence")
                return _say_evidence(evidence.verified(file, server), server, as_json)
            first = file.readline()
            missing = not_here(begins_after(first)) if before is None else None
            if missing is not None:
                both = "give both, as in `cat OLD NEW | captoken audit verify -`, or --after"
                return _not_whole("PART   ", f"{missing}: {both}", as_json)
            found = check(
                chain([first] if first else [], file),
                server,
                known=known,
                after=before,
            )
    except AuditError as error:
        return _not_whole("BROKEN ", str(error), as_json)
    # In order, but for all one can tell whoever wrote the file made it up.
    if server and found.signed == 0:
        count = words.counted(found.head.seq, "record")
        unsigned = (
            "no checkpoint yet: a server signs one after 1000 records, and by trail.checkpoint(), "
            "if it has an audit key, as trail_key of a gateway, --trail-key of `issue serve`, or "
            "AuditTrail(…, key=…)"
        )
        return _not_whole("UNSIGNED", f"{count} in order, and {unsigned}", as_json)

    # Only of a trail that is whole: a head of another one would be checked against from now on.
    kept = head or new_head
    if kept is not None:
        _keep(kept, found.head)
    records = words.counted(found.head.seq, "record")
    decisions = words.counted(found.decisions, "decision")
    line = f"WHOLE    {records}, {decisions}; {_signed(found, server)}"
    answer(as_json, _verdict_data(found), line)
    return 0


def _say_evidence(found: EvidenceFile, server: tuple[str, ...], as_json: bool) -> int:
    """What of a file of evidence is proved. 1 where a server was named, and none of it is."""
    data = evidence.data_of(found)
    if server and not data["proved"]:
        problem = "no checkpoint of a server that is trusted here seals any of it"
        return _not_whole("UNSIGNED", problem, as_json)
    whose = "" if server else "; no server was named, so nothing is vouched for"
    lines = [f"PROVED   {evidence.proved_in_words(data)}{whose}"]
    lines += [f"         {line}" for line in evidence.left_out(found)]
    answer(as_json, {"whole": True, **data}, *lines)
    return 0


def _verdict_data(found: Verdict) -> dict[str, Any]:
    head = msgspec.structs.asdict(found.head)
    return {"whole": True, **msgspec.structs.asdict(found), "head": head}


def _not_whole(how: str, problem: str, as_json: bool) -> int:
    answer(as_json, {"whole": False, "problem": problem}, f"{how}  {problem}")
    return 1


def _signed(found: Verdict, server: tuple[str, ...]) -> str:
    """How much of the trail a server vouches for."""
    if not server:
        return "no server was named, so nothing is vouched for"
    said = f"signed up to record {found.signed}"
    left = found.head.seq - found.signed - 1  # without the checkpoint itself
    if left > 0:
        said += f", and {words.counted(left, 'record')} after that"
    return said


def _known(path: str) -> Head:
    """The head that is kept in a file.

    Raises UsageError for a file that holds none, or is not there.
    """
    if not os.path.exists(path):
        unknown = "nothing shows that the trail was not rolled back; --new-head begins it"
        raise click.UsageError(f"{path} is not there: {unknown}")
    with open(path, "rb") as file:
        try:
            return msgspec.json.decode(file.read(1 << 12), type=Head)
        except (msgspec.DecodeError, UnicodeError):
            raise click.UsageError(f"{path} holds no head of a trail") from None


def _keep(path: str, head: Head) -> None:
    """Write the head to a file: all of it, or what was there stays."""
    # A head that is lost or half written would let a rollback pass the next time.
    fresh = f"{path}.part"
    with open(fresh, "wb") as file:
        file.write(msgspec.json.encode(head) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


# --- log ------------------------------------------------------------------------------------------


@audit.command()
@click.argument("trail_files", type=FILE, metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--task",
    metavar="PATH",
    help="This task, and the tasks below it.",
)
@click.option(
    "--agent",
    metavar="NAME",
    help="Only what this agent did.",
)
@click.option(
    "--denied",
    is_flag=True,
    help="Only what was denied.",
)
@click.option(
    "--id",
    "id_",
    metavar="ID",
    help="Only the decision with this id, which the answer and the log name.",
)
@json_option
def log(
    trail_files: tuple[str, ...],
    task: str | None,
    agent: str | None,
    denied: bool,
    id_: str | None,
    as_json: bool,
) -> None:
    """Show each access: who tried it, and the outcome.

    For an issuer: who asked for a task. Sorted by time, because an earlier decision may have been
    written later. Name the trails of several servers to read them as one log.

    \b
    captoken audit log trail.jsonl --task payday --denied
    """
    wanted = Asked(task, agent, denied)
    shown = _json_of if as_json else _line_of
    matched = 0
    with _ByTime() as texts:
        for record, logged in _logged(trail_files):
            is_named = id_ is None or record.get("id") == id_
            if logged is not None and is_named and wanted.is_about(logged):
                texts.add(logged.at * 1000 + (logged.ms or 0), shown(record, logged))
                matched += 1
        if id_ is not None and not matched:
            raise click.ClickException(f"no decision has the id {escape(id_)}: is this its trail?")
        if as_json:
            found = [json.loads(text) for text in texts]
            decided = [each["decision"] for each in found if "decision" in each]
            issued = [each["issuance"] for each in found if "issuance" in each]
            return output.say_json({"decisions": decided, "issuances": issued})
        if not matched:
            return tell("no recorded decision matches")
        lines = iter(texts)
        while some := list(islice(lines, _LINES)):
            output.say(*some)
    return None


_LINES = 1000  # that are written at once


class _ByTime:
    """Texts in the order of their times: however many there are, they are sorted on the disk."""

    def __enter__(self) -> _ByTime:
        self._database = sqlite3.connect("")  # a file of SQLite's own, which ends with this
        self._database.execute("create table texts (at integer, text text)")
        return self

    def __exit__(self, *raised: object) -> None:
        self._database.close()

    def add(self, at: int, text: str) -> None:
        self._database.execute("insert into texts values (?, ?)", (at, text))

    def __iter__(self) -> Iterator[str]:
        """Equal times keep the order in which they were added."""
        found = self._database.execute("select text from texts order by at, rowid")
        return (text for (text,) in found)


def _line_of(record: Mapping[str, Any], logged: Logged) -> str:
    """A decision, or an exchange, in one line."""
    if isinstance(logged, trails.Issued):
        return told_of_issuer(logged)
    return _decision_line(record, logged)


def _json_of(record: Mapping[str, Any], logged: Logged) -> str:
    """The same for machines."""
    if isinstance(logged, trails.Issued):
        return json.dumps({"issuance": msgspec.to_builtins(logged)})
    return json.dumps({"decision": _logged_data(record, logged)})


def _logged_data(record: Mapping[str, Any], decided: trails.Decided) -> dict[str, Any]:
    """A decision for machines. What nothing vouches for is null."""
    return {
        "seq": decided.seq,
        "at": decided.at,
        "ms": decided.ms,
        "allowed": decided.allowed,
        "code": decided.code,
        "id": record.get("id"),
        "subject": record.get("sub"),
        "task": decided.task,
        "chain": [msgspec.to_builtins(actor) for actor in decided.chain],
        "token": decided.token,
        "link": decided.link,
        "tried": tried(decided.access),
        "marks": msgspec.to_builtins(decided.marks),
        "consents": msgspec.to_builtins(decided.consents),
        "refusals": record.get("refusals", []),
    }


def _decision_line(record: Mapping[str, Any], decided: trails.Decided) -> str:
    """A decision in one line."""
    chain = " > ".join(actor.name for actor in decided.chain)
    who = f"{chain}, for {record.get('sub')}" if chain else "unknown"
    when = moment(decided.at, decided.ms)
    marks = in_marks(decided)
    # What was refused before it was read as an access.
    is_unread = decided.access is None and not decided.allowed
    what = "a request" if is_unread else tried(decided.access)
    came = f"{what}{f'; {marks}' if marks else ''}{refused(decided)}"
    came += consented(decided)
    return f"{when}  {decided.code:<16}  {who}: {came}"


# --- tree -----------------------------------------------------------------------------------------


@audit.command()
@click.argument("trail_file", type=FILE, metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--task",
    metavar="PATH",
    help="Only tokens of this task and of the tasks below it.",
)
@click.option(
    "--token",
    type=ID,
    metavar="ID",
    help="Only tokens of this tree.",
)
@json_option
def tree(trail_file: tuple[str, ...], task: str | None, token: str | None, as_json: bool) -> None:
    """Show who handed what to whom, and what was allowed.

    It also shows how each name is known:

    \b
    issued   the issuer wrote the name
    vouched  the agent that handed the token over wrote it
    proven   that agent also signed it with its key

    allowed and denied count accesses. shown counts tokens that were checked without an access. If a
    task has set marks, it shows when each was set, and which rules denied something after that.

    If you give the trails of several servers, each set of tokens has one tree. Each line then names
    the trail that it is from, and the server that the token is for. A server vouches only for
    itself.

    \b
    captoken audit tree trail.jsonl --task payday
    captoken audit tree sales.jsonl mail.jsonl
    """
    files.one_stdin(*trail_file)
    if len({*trail_file}) < len(trail_file):
        raise click.UsageError("a trail is named twice, and would count twice")
    seen = {path: history(path) for path in trail_file}
    roots = [root for root in trails.join(seen) if _is_about(root, task, token)]
    # On tokens that the trail does not describe.
    strange = {
        path: [
            one for one in trail.strange if token in (None, one.token) and is_in(task, one.task)
        ]
        for path, trail in seen.items()
    }
    shown = {(one.root.subject, trails.shares_marks(one.root.task)) for one in roots}
    marked = [one for one in trails.marked(seen.values()) if (one.subject, one.task) in shown]
    if as_json:
        trees = [_hop_data(root) for root in roots]
        codes = {path: _codes(decisions) for path, decisions in strange.items()}
        data = {"trees": trees, "marked": list(map(_marked_data, marked)), "not_vouched_for": codes}
        return output.say_json(data)
    if not roots and not any(strange.values()):
        return tell("no record is about that")

    several = len(seen) > 1
    drawn: list[Tree | str] = [_drawn(root, several) for root in roots]
    drawn += map(_drawn_marks, marked)
    for path, decisions in strange.items():
        if decisions:
            where = f"{shown_file(path)}: " if several else ""
            count = words.counted(len(decisions), "decision")
            spelled = _spelled_codes(decisions)
            drawn.append(f"{where}{count} on tokens that nothing vouches for: {spelled}")
    return output.draw(output.console(), *drawn)


def _is_about(root: trails.Joined, task: str | None, token: str | None) -> bool:
    """Is a tree the one that is asked for, and is one of its hops in the task?"""
    if token not in (None, root.root.token_id):
        return False
    return any(is_in(task, hop.task) for one in root.walk() for _, hop in one.said)


def _codes(decisions: Iterable[trails.Decided]) -> dict[str, int]:
    return dict(sorted(Counter(decision.code for decision in decisions).items()))


def _spelled_codes(decisions: Iterable[trails.Decided]) -> str:
    return ", ".join(f"{named(code)} {count}" for code, count in _codes(decisions).items())


def _hop_data(one: trails.Joined) -> dict[str, Any]:
    return {
        "agent": one.agent,
        "token": one.root.token_id,
        "subject": one.root.subject,
        "n": one.nonce,
        "said": [_said_data(path, hop) for path, hop in one.said],
        "below": [_hop_data(below) for below in one.below],
    }


def _said_data(path: str, hop: trails.Hop) -> dict[str, Any]:
    """What one trail says of a hop."""
    return {
        "trail": path,
        "server": hop.root.audience,
        "basis": hop.basis,
        "link": hop.id,
        "task": hop.task,
        "allowed": hop.allowed,
        "denied": hop.denied,
        "shown": hop.shown,
        "codes": _codes(hop.decisions),
    }


def _drawn(top: trails.Joined, several: bool) -> Tree:
    """A tree of hand-overs. Not by recursion: a chain may be long."""
    from rich.text import Text
    from rich.tree import Tree

    root = top.root
    started = f"{named(root.subject)} started task {named(root.task)}"
    drawn = Tree(Text(f"{started}, token {root.token_id}", "bold"))
    is_of_one = not several and all(len(one.said) == 1 for one in top.walk())
    waiting = [(top, drawn)]
    while waiting:
        one, above = waiting.pop()
        lines = [_line(one)] if is_of_one else _lines(one, several)
        here = above.add(Text("\n  ".join(lines)))
        waiting += [(below, here) for below in reversed(one.below)]
    return drawn


def _drawn_marks(done: trails.TaskMarks) -> Tree:
    """What a task has set, and what its rules closed after that."""
    from rich.text import Text
    from rich.tree import Tree

    drawn = Tree(Text(f"marks of task {named(done.task)}, for {named(done.subject)}", "bold"))
    for mark in done.marks:
        drawn.add(Text(f"{named(mark.name)}{_whose(mark)}: since {_done(mark.first)}"))
    for (rule, added_by), closed in _by_rule(done).items():
        by = f" (added by {escape(added_by)})" if added_by else ""
        here = drawn.add(Text(f"{escape(rule)}{by}: {len(closed)} denied"))
        for (holders, what), count in Counter(map(_who_and_what, closed)).items():
            here.add(Text(f"{holders}: {what}{f', {count} times' if count > 1 else ''}"))
    return drawn


def _whose(mark: trails.MarkSet) -> str:
    """Whose a mark is, unless it is the task's."""
    if mark.of == "task":
        return ""
    return " of an operator's entry" if mark.of == "entry" else f" of link {named(mark.of)}"


def _done(first: trails.Decided) -> str:
    holders, what = _who_and_what(first)
    return f"{moment(first.at, first.ms)} by {holders}: {what}"


def _who_and_what(decided: trails.Decided) -> tuple[str, str]:
    return " > ".join(named(actor.name) for actor in decided.chain), tried(decided.access)


def _by_rule(done: trails.TaskMarks) -> dict[tuple[str, str], list[trails.Decided]]:
    """What was closed, by the rule and who added it."""
    found: dict[tuple[str, str], list[trails.Decided]] = {}
    for one in done.closed:
        key = (trails.rule_of(one), str(one.refusal.get("added_by", "")))
        found.setdefault(key, []).append(one)
    return found


def _marked_data(done: trails.TaskMarks) -> dict[str, Any]:
    def told(decided: trails.Decided) -> dict[str, Any]:
        return {
            "seq": decided.seq,
            "at": decided.at,
            "chain": [actor.name for actor in decided.chain],
            "tried": tried(decided.access),
        }

    return {
        "subject": done.subject,
        "task": done.task,
        "marks": [{"name": one.name, "of": one.of, **told(one.first)} for one in done.marks],
        "closed": [
            {"rule": rule, "added_by": added_by or None, "denied": list(map(told, closed))}
            for (rule, added_by), closed in _by_rule(done).items()
        ],
    }


def _line(one: trails.Joined) -> str:
    """A hop in one line: who had the token, and what came of it."""
    _, hop = one.said[0]
    return f"{named(one.agent)} ({hop.basis}){_told_of(hop)}"


def _lines(one: trails.Joined, several: bool) -> Iterator[str]:
    """A hop of which more than one trail or token tells: who had it, and a line each."""
    yield named(one.agent)
    for path, hop in one.said:
        audience = hop.root.audience
        at = "any server" if audience is None else named(audience)
        by = f", by {shown_file(path)}" if several else ""
        yield f"at {at}{by} ({hop.basis}){_told_of(hop)}"


def _told_of(hop: trails.Hop) -> str:
    """In what task, and what came of it."""
    task = f", task {named(hop.task)}" if hop.task != hop.root.task else ""
    dead = ", permits nothing" if hop.is_dead else ""
    return f"{task}{dead}: {_counts(hop)}; link {named(hop.id)}"


def _counts(hop: trails.Hop) -> str:
    """How often a token was used, and what came of it."""
    if not hop.decisions:
        return "not used"
    denied = [decision for decision in hop.decisions if not decision.allowed]
    why = f" ({_spelled_codes(denied)})" if denied else ""
    shown = f", {hop.shown} shown" if hop.shown else ""
    return f"{hop.allowed} allowed, {hop.denied} denied{why}{shown}"


# --- unused ---------------------------------------------------------------------------------------


@audit.command()
@file_argument
@json_option
def unused(trail_file: str, as_json: bool) -> None:
    """Show what was granted and never used.

    For each hop: what it was granted, what it and those below it used, and what would have been
    enough.

    The keywords are those of `attenuate` and `delegate`. Only allowed accesses count as used. If
    the values of arguments and attributes were not recorded, their restrictions stay as granted.

    \b
    captoken audit unused trail.jsonl
    """
    uses = trails.unused(history(trail_file))
    answer(as_json, {"hops": [_use_data(use) for use in uses]}, *spaced(map(_use_lines, uses)))
    if not uses and not as_json:
        tell("no token is described")


def _use_data(use: trails.Usage) -> dict[str, Any]:
    return {
        "agent": use.hop.agent,
        "link": use.hop.id,
        "token": use.hop.root.token_id,
        "allowed": use.allowed,
        "granted": use.granted,
        "sufficient": use.sufficient,
        "last": use.last,
    }


def _use_lines(use: trails.Usage) -> Iterator[str]:
    chain = " > ".join(map(named, use.hop.holders))
    last = f", last at {readable_time(use.last)}" if use.last is not None else ""
    suffices = "the same" if use.is_tight else _keywords(use.sufficient)
    below = " here and below" if use.allowed else ""
    yield f"{chain}, token {use.hop.root.token_id}: {use.allowed} allowed{below}{last}"
    yield f"  granted   {_keywords(use.granted) or 'anything'}"
    yield f"  suffices  {suffices}"
    never = "; ".join(_never_used(use.granted, use.sufficient))
    if never and use.allowed:
        yield f"  unused    {escape(never)}"


def _never_used(granted: Mapping[str, Any], sufficient: Mapping[str, Any]) -> Iterator[str]:
    """The names of what was granted and not used. A pattern has no single name, and is left out."""
    for key in ("tables", "operations", "tools"):
        used = sufficient.get(key, ())
        names = [name for name in granted.get(key, ()) if name not in used and "*" not in name]
        if names:
            yield f"{key} {', '.join(sorted(names))}"
    for table, columns in granted.get("columns", {}).items():
        used = sufficient.get("columns", {}).get(table, columns)
        names = [name for name in columns if name not in used and "*" not in name]
        if names:
            yield f"columns {', '.join(sorted(names))} of {table}"


def _keywords(stated: Mapping[str, Any]) -> str:
    return escape(", ".join(f"{key}={json.dumps(value)}" for key, value in stated.items()))


# --- replay ---------------------------------------------------------------------------------------


@audit.command()
@file_argument
@click.option(
    "--overlay",
    type=FILE,
    metavar="SNAPSHOT",
    required=True,
    help="The snapshot: see `captoken overlay --raw`.",
)
@click.option(
    "--operator",
    type=PUBLIC,
    metavar="PUBLIC",
    multiple=True,
    required=True,
    help="The public key of the operator who signed it. Repeatable.",
)
@json_option
def replay(trail_file: str, overlay: str, operator: tuple[str, ...], as_json: bool) -> int:
    """Decide all recorded accesses again, under a proposed overlay.

    Shows which decisions would change. Exit 1 if any would.

    Entries apply from the start, whenever they were made. If a decision needs a value that was not
    recorded, it says so.

    \b
    captoken renew --key proposal.json --store proposal.db --create
    captoken revoke --key proposal.json --store proposal.db \\
        --agent clerk --why proposal
    captoken overlay --store proposal.db \\
        --operator "$(cat proposal.public)" --raw > proposal
    captoken audit replay trail.jsonl --overlay proposal \\
        --operator "$(cat proposal.public)"
    """
    files.one_stdin(trail_file, overlay)
    with files.about(overlay):
        proposed = Overlay.open(files.snapshot(overlay), operator)
    again = trails.replay(history(trail_file), proposed)
    changed = [one for one in again if one.outcome != "same"]
    data = {"decisions": len(again), "changed": [_replayed_data(one) for one in changed]}
    answer(as_json, data, *(line for one in changed for line in _replayed(one)), _total(again))
    return 1 if changed else 0


def _replayed(one: trails.Replayed) -> Iterator[str]:
    """An answer that would change, and why."""
    label = "WOULD BE DENIED" if one.outcome == "denied" else "CANNOT BE KNOWN"
    where = f"record {one.decision.seq}, {readable_time(one.decision.at)}"
    chain = " > ".join(named(actor.name) for actor in one.decision.chain)
    entry = f"; entry {named(one.entry.id)}" if one.entry is not None else ""
    yield f"{label}  {where}, {chain}: {tried(one.decision.access)}"
    yield f"{'':{len(label)}}  {one.why}{entry}"


def _total(again: Sequence[trails.Replayed]) -> str:
    """How many answers would change, in one line."""
    counted = Counter(one.outcome for one in again)
    changes = f"{counted['denied']} would be denied, {counted['unknown']} cannot be known"
    decisions = words.counted(len(again), "decision")
    return f"{decisions}: {changes}, {counted['same']} stay as they are"


def _replayed_data(one: trails.Replayed) -> dict[str, Any]:
    return {
        "seq": one.decision.seq,
        "at": one.decision.at,
        "chain": [actor.name for actor in one.decision.chain],
        "link": one.decision.link,
        "tried": tried(one.decision.access),
        "was": one.decision.code,
        "outcome": one.outcome,
        "why": one.why,
        "entry": one.entry.id if one.entry is not None else None,
    }


# --- what an agent can still do -------------------------------------------------------------------


@click.command("blast-radius")
@file_argument
@click.option(
    "--agent",
    metavar="NAME",
    required=True,
    help="The agent that may be compromised.",
)
@now_option
@click.option(
    "--leeway",
    type=DURATION,
    metavar="TIME",
    default="0s",
    help="How long servers still accept an expired token.",
)
@overlay_options
@json_option
def blast_radius(
    trail_file: str,
    agent: str,
    now: int | None,
    leeway: int,
    overlay: str | None,
    operator: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show what the tokens of an agent can still do.

    It covers the tokens that the agent holds or has handed over. It shows when they expire, and
    which revocation would stop them.

    Tokens that this server never saw are missing. Name the overlay to leave out what is revoked. A
    server's own caveats are named, and may allow less than is shown, as may restrictions of the
    overlay.

    \b
    captoken blast-radius trail.jsonl --agent clerk
    captoken blast-radius trail.jsonl --agent clerk \\
        --overlay overlay.db --operator "$(cat operator.public)"
    """
    at = seconds(now)
    entries = newest_overlay(overlay, operator)
    reach = trails.blast_radius(history(trail_file), agent, at, leeway=leeway, overlay=entries)
    lines = [line for one in reach for line in _reach_lines(one.hop, at)]
    if reach:
        lines += ["", "cut off by"]
    for cut in dict.fromkeys(one.cut.id for one in reach):
        lines.append(f"  captoken revoke --link {named(cut)} ...")
    data = {"agent": agent, "now": at, "reach": [_reach_data(one) for one in reach]}
    answer(as_json, data, *lines)
    if not reach and not as_json:
        tell("no token is recorded that this agent has or has handed on, and that still works")
    if reach and overlay is None:
        tell("revocations were not asked: --overlay names the operator's store")


def _reach_lines(hop: trails.Hop, now: int) -> Iterator[str]:
    """A token that still works: who has it, what it can do, and until when."""
    chain = " > ".join(map(named, hop.holders))
    yield f"{chain}, for {named(hop.root.subject)}, task {named(hop.task)}"
    yield f"  may       {_may(hop, now)}"
    yield f"  lives     {words.ends(hop.capability.expires_at, now)}"
    yield f"  link      {named(hop.id)}"


def _may(hop: trails.Hop, now: int) -> str:
    """Which accesses a token permits, where, and what else has to hold."""
    stated = hop.capability.json()
    rights = words.of_rights(stated, now) or ["anything"]
    said = "; ".join(rights + words.of_rules(stated, now))
    if "aud" in stated:
        said += f"; only at {named_all(stated['aud'])}"
    if hop.asks:
        said += ", if a third party answers"
    if hop.unknown:
        said += f", and caveats of its own: {named_all(hop.unknown)}"
    return said


def _reach_data(one: trails.Reach) -> dict[str, Any]:
    hop, capability = one.hop, one.hop.capability
    return {
        "holders": list(hop.holders),
        "subject": hop.root.subject,
        "task": hop.task,
        "token": hop.root.token_id,
        "link": hop.id,
        "may": capability.json(),
        "asks": hop.asks,
        "unknown": list(hop.unknown),
        "expires_at": capability.expires_at,
        "cut": one.cut.id,
    }


audit.add_later("propose", "propose", "Propose narrower tokens from what was done.")
audit.add_command(evidence.export)
