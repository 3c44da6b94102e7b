"""`captoken audit` and `captoken blast-radius`: what a trail shows. All that a record says is escaped before it is shown."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import click
import msgspec

from captoken._format.errors import AuditError
from captoken._format.spelling import escape
from captoken._language.overlay import Overlay
from captoken.audit import analysis as trails
from captoken.audit._check import Verdict, check, read
from captoken.cli import files, output, words
from captoken.cli.options import DURATION, ID, PUBLIC, json_option, now_option, seconds
from captoken.cli.output import say, say_json, tell
from captoken.stores.ports import Head

if TYPE_CHECKING:
    from rich.tree import Tree

_file = click.argument("trail_file", metavar="FILE")


class _InOrder(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder)
def audit() -> None:
    """Read the trail that a server has kept: is it whole, who did what, and what was never needed.

    FILE is the trail, or - for standard input. All but `verify` refuse one that is not whole, and ask no signature.
    """


@contextmanager
def _opened(path: str) -> Generator[IO[bytes]]:
    if path == "-":
        yield sys.stdin.buffer
        return
    with open(path, "rb") as file:
        yield file


def _trail(path: str) -> trails.History:
    with _opened(path) as file:
        return trails.gather(read(file))


# --- verify ----------------------------------------------------------------------------------------------------------


@audit.command()
@_file
@click.option(
    "--server",
    type=PUBLIC,
    metavar="PUBLIC",
    multiple=True,
    help="A server whose checkpoints count. Repeatable.",
)
@click.option("--head", metavar="FILE", help="Where the last record that was seen is kept.")
@click.option(
    "--new-head", metavar="FILE", help="The same for the first time: it must not be there yet."
)
@click.option(
    "--after",
    metavar="FILE",
    help="The last head of the file before, where the trail goes on from another file.",
)
@json_option
def verify(
    trail_file: str, server: tuple[str, ...], head: str | None, new_head: str | None, after: str | None, as_json: bool
) -> int:  # fmt: skip
    """Is the trail whole? Finds a cut, an edit, a reorder and a rollback. Exit 0: whole, 1: not.

    \b
    captoken audit verify trail.jsonl --server "$(cat server.public)" --head trail.head

    Without --server nothing is vouched for: whoever can write the file can write a whole one. Without --head what was
    cut off at the end does not show. Keep the head where whoever writes the trail cannot. A file that goes on where
    another ended needs --after; all other commands read the files one after another from standard input.
    """
    if head is not None and new_head is not None:
        raise click.UsageError("a head is either kept in a file, or begins one")
    if new_head is not None and os.path.exists(new_head):
        raise click.UsageError(f"{new_head} is there: --head checks against it")
    known = [] if head is None else [_known(head)]
    try:
        with _opened(trail_file) as file:
            found = check(file, server, known=known, after=None if after is None else _known(after))
    except AuditError as error:
        return _not_whole("BROKEN ", str(error), as_json)
    if server and found.signed == 0:
        count = _counted(found.head.seq, "record")
        said = f"{count} in order, and no checkpoint of a server that is trusted here: trail.checkpoint() signs"
        return _not_whole("UNSIGNED", said, as_json)
    kept = head or new_head
    if kept is not None:
        _keep(kept, found.head)
    if as_json:
        say_json(
            {
                "whole": True,
                **msgspec.structs.asdict(found),
                "head": msgspec.structs.asdict(found.head),
            }
        )
    else:
        say(
            f"WHOLE    {_counted(found.head.seq, 'record')}, {_counted(found.decisions, 'decision')}; {_signed(found, server)}"
        )
    return 0


def _not_whole(how: str, problem: str, as_json: bool) -> int:
    if as_json:
        say_json({"whole": False, "problem": problem})
    else:
        say(f"{how}  {escape(problem)}")
    return 1


def _signed(found: Verdict, server: tuple[str, ...]) -> str:
    if not server:
        return "no server was named, so nothing is vouched for"
    left = found.head.seq - found.signed - 1  # without the checkpoint itself
    return f"signed up to record {found.signed}" + (
        f", and {_counted(left, 'record')} after that" if left > 0 else ""
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _known(path: str) -> Head:
    """The head that is kept in a file. Raises UsageError for a file that holds none, or is not there."""
    if not os.path.exists(path):
        raise click.UsageError(
            f"{path} is not there: nothing shows that the trail was not rolled back; --new-head begins it"
        )
    with open(path, "rb") as file:
        try:
            return msgspec.json.decode(file.read(1 << 12), type=Head)
        except (msgspec.DecodeError, UnicodeError):
            raise click.UsageError(f"{path} holds no head of a trail") from None


def _keep(path: str, head: Head) -> None:
    fresh = f"{path}.part"
    with open(fresh, "wb") as file:
        file.write(msgspec.json.encode(head) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


# --- log -------------------------------------------------------------------------------------------------------------


@audit.command()
@_file
@click.option("--task", metavar="PATH", help="This task, and those below it.")
@click.option("--agent", metavar="NAME", help="What this agent did.")
@click.option("--denied", is_flag=True, help="What was refused alone.")
def log(trail_file: str, task: str | None, agent: str | None, denied: bool) -> None:
    """Who tried what, and what came of it: a line for each decision, in order.

    \b
    captoken audit log trail.jsonl --task payday --denied
    """
    with _opened(trail_file) as file:
        for record in read(file):
            if record.get("kind") != "decision" or (denied and record.get("allowed")):
                continue
            decided = msgspec.convert(record, trails.Decided)
            holder = decided.chain[-1].name if decided.chain else None
            if (task is None or _below(decided.task, task)) and agent in (None, holder):
                say(escape(_told(record, decided)))


def _told(record: Mapping[str, Any], decided: trails.Decided) -> str:
    chain = " > ".join(actor.name for actor in decided.chain)
    who = f"{chain}, for {record.get('sub')}" if chain else "unknown"
    said = f"{words.moment(decided.at)}  {decided.code:<16}  {who}: {_tried(decided.access)}"
    for refusal in record.get("refusals", ())[:1]:
        said += f"; {refusal['text']}" + (
            f" (added by {refusal['added_by']})" if refusal.get("added_by") else ""
        )
    return said


def _tried(access: trails.Accessed | None) -> str:
    """An access as it was recorded, in a line: with values, where they were recorded."""
    if access is None:
        return "the token itself"
    parts: list[str] = []
    if access.table is not None:
        columns = (
            f" ({', '.join(access.columns) or 'no columns'})" if access.columns is not None else ""
        )
        parts.append(f"{access.operation} on table {access.table}{columns}")
    if access.tool is not None:
        parts.append(f"tool {access.tool}({_facts(access.arguments or ())})")
    if access.attributes:
        parts.append(f"with {_facts(access.attributes)}")
    if access.cost:
        parts.append(
            f"costing {', '.join(f'{amount} {unit}' for unit, amount in sorted(access.cost.items()))}"
        )
    return escape(" and ".join(parts) or "nothing in particular")


def _facts(stated: Mapping[str, Any] | Iterable[str]) -> str:
    if isinstance(stated, Mapping):
        return ", ".join(f"{key}={json.dumps(value)}" for key, value in stated.items())
    return ", ".join(stated)


# --- tree ------------------------------------------------------------------------------------------------------------


@audit.command()
@_file
@click.option("--task", metavar="PATH", help="Tokens of this task, and of those below it.")
@click.option("--token", type=ID, metavar="ID", help="Tokens of this tree.")
@json_option
def tree(trail_file: str, task: str | None, token: str | None, as_json: bool) -> None:
    """Who handed what to whom, how each name is known, and what each was allowed and denied.

    issued: the issuer wrote the name. vouched: whoever handed the token on did. proven: and its key signed that.
    allowed, denied: accesses. shown: the token was found in order, and no access was asked then.

    \b
    captoken audit tree trail.jsonl --task payday
    """
    trail = _trail(trail_file)
    roots = [
        hop
        for hop in trail.roots
        if token in (None, hop.root.token_id) and any(_is_in(task, one) for one in hop.walk())
    ]
    strange = [
        one
        for one in trail.strange
        if token in (None, one.token) and (task is None or _below(one.task, task))
    ]
    if as_json:
        say_json({"trees": [_hop_data(hop) for hop in roots], "not_vouched_for": _codes(strange)})
        return
    if not roots and not strange:
        tell("no record is about that")
        return
    drawn: list[Tree | str] = [_drawn(hop) for hop in roots]
    if strange:
        drawn.append(
            f"{_counted(len(strange), 'decision')} on tokens that nothing vouches for: {_spelled_codes(strange)}"
        )
    output.draw(output.console(), *drawn)


def _is_in(task: str | None, hop: trails.Hop) -> bool:
    return task is None or _below(hop.task, task)


def _below(task: str | None, above: str) -> bool:
    return task is not None and (task == above or task.startswith(f"{above}/"))


def _codes(decisions: Iterable[trails.Decided]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for decision in decisions:
        counted[decision.code] = counted.get(decision.code, 0) + 1
    return dict(sorted(counted.items()))


def _spelled_codes(decisions: Iterable[trails.Decided]) -> str:
    return ", ".join(f"{words.name(code)} {count}" for code, count in _codes(decisions).items())


def _hop_data(hop: trails.Hop) -> dict[str, Any]:
    return {
        "agent": hop.agent,
        "basis": hop.basis,
        "link": hop.id,
        "token": hop.root.token_id,
        "subject": hop.root.subject,
        "task": hop.task,
        "allowed": hop.allowed,
        "denied": hop.denied,
        "shown": hop.shown,
        "codes": _codes(hop.decisions),
        "below": [_hop_data(below) for below in hop.below],
    }


def _drawn(top: trails.Hop) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    root = top.root
    drawn = Tree(
        Text(
            words.name(root.subject)
            + f" started task {words.name(root.task)}, token {root.token_id}",
            "bold",
        )
    )
    waiting = [(top, drawn)]
    while waiting:
        hop, above = waiting.pop()
        here = above.add(Text(_line(hop)))
        waiting += [(below, here) for below in reversed(hop.below)]
    return drawn


def _line(hop: trails.Hop) -> str:
    denied = [decision for decision in hop.decisions if not decision.allowed]
    why = f" ({_spelled_codes(denied)})" if denied else ""
    task = f", task {words.name(hop.task)}" if hop.task != hop.root.task else ""
    dead = ", permits nothing" if hop.is_dead else ""
    shown = f", {hop.shown} shown" if hop.shown else ""
    counts = (
        f"{hop.allowed} allowed, {hop.denied} denied{why}{shown}" if hop.decisions else "not used"
    )
    return f"{words.name(hop.agent)} ({hop.basis}){task}{dead}: {counts}; link {words.name(hop.id)}"


# --- unused ----------------------------------------------------------------------------------------------------------


@audit.command()
@_file
@json_option
def unused(trail_file: str, as_json: bool) -> None:
    """What each hop was granted against what it and those below it used; and what would have sufficed.

    The keywords are those of `attenuate` and `delegate`. What was allowed is what counts as used; of arguments and
    attributes whose values were not recorded, no more can be said than what was granted.

    \b
    captoken audit unused trail.jsonl
    """
    uses = trails.unused(_trail(trail_file))
    if as_json:
        say_json([
            {
                "agent": use.hop.agent, "link": use.hop.id, "token": use.hop.root.token_id, "allowed": use.allowed,
                "granted": use.granted, "sufficient": use.sufficient, "last": use.last,
            }
            for use in uses
        ])  # fmt: skip
        return
    for count, use in enumerate(uses):
        chain = " > ".join(map(words.name, use.hop.holders))
        last = f", last at {words.moment(use.last)}" if use.last is not None else ""
        say(
            ("\n" if count else "")
            + f"{chain}, token {use.hop.root.token_id}: {use.allowed} allowed{last}"
        )
        say(f"  granted   {_keywords(use.granted) or 'anything'}")
        say(f"  suffices  {'the same' if use.is_tight else _keywords(use.sufficient)}")
    if not uses:
        tell("no token is described")


def _keywords(stated: Mapping[str, Any]) -> str:
    return escape(", ".join(f"{key}={json.dumps(value)}" for key, value in stated.items()))


# --- replay ----------------------------------------------------------------------------------------------------------


@audit.command()
@_file
@click.option(
    "--overlay",
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
    help="Who signed it. Repeatable.",
)
@json_option
def replay(trail_file: str, overlay: str, operator: tuple[str, ...], as_json: bool) -> int:
    """Decide what is recorded again under a proposed overlay, and say which answers would change. Exit 1 if any would.

    Entries count from their first second on, whenever they were made. Where a value is needed that was not recorded, it
    says so.

    \b
    captoken renew --key proposal.json --store proposal.db
    captoken revoke --key proposal.json --store proposal.db --agent clerk --why proposal
    captoken overlay --store proposal.db --operator "$(cat proposal.public)" --raw > proposal
    captoken audit replay trail.jsonl --overlay proposal --operator "$(cat proposal.public)"
    """
    files.one_stdin(trail_file, overlay)
    proposed = Overlay.open(files.snapshot(overlay), operator)
    again = trails.replay(_trail(trail_file), proposed)
    changed = [one for one in again if one.outcome != "same"]
    if as_json:
        say_json({"decisions": len(again), "changed": [_replayed_data(one) for one in changed]})
    else:
        for one in changed:
            label = "WOULD BE DENIED" if one.outcome == "denied" else "CANNOT BE KNOWN"
            entry = f"; entry {words.name(one.entry.id)}" if one.entry is not None else ""
            chain = " > ".join(words.name(actor.name) for actor in one.decision.chain)
            where = f"record {one.decision.seq}, {words.moment(one.decision.at)}"
            say(f"{label}  {where}, {chain}: {_tried(one.decision.access)}")
            say(f"                 {escape(one.why)}{entry}")
        denied = sum(one.outcome == "denied" for one in changed)
        say(f"{_counted(len(again), 'decision')}: {denied} would be denied, {len(changed) - denied} cannot be known, "
            f"{len(again) - len(changed)} stay as they are")  # fmt: skip
    return 1 if changed else 0


def _replayed_data(one: trails.Replayed) -> dict[str, Any]:
    return {
        "seq": one.decision.seq,
        "at": one.decision.at,
        "chain": [actor.name for actor in one.decision.chain],
        "link": one.decision.link,
        "tried": _tried(one.decision.access),
        "was": one.decision.code,
        "outcome": one.outcome,
        "why": one.why,
        "entry": one.entry.id if one.entry is not None else None,
    }


# --- blast radius ----------------------------------------------------------------------------------------------------


@click.command("blast-radius")
@_file
@click.option(
    "--agent", metavar="NAME", required=True, help="The agent that may have been taken over."
)
@now_option
@click.option(
    "--leeway",
    type=DURATION,
    metavar="TIME",
    default="0s",
    help="How long servers go on taking what has expired.",
)
@json_option
def blast_radius(trail_file: str, agent: str, now: int | None, leeway: int, as_json: bool) -> None:
    """What the tokens that an agent has, or has handed on, can still do, until when, and which entry cuts them off.

    From the trail: tokens that this server never saw are not in it, and no overlay is looked at. A caveat of a server's
    own is named, and may leave less than is shown.

    \b
    captoken blast-radius trail.jsonl --agent clerk
    """
    at = seconds(now)
    reach = trails.blast_radius(_trail(trail_file), agent, at, leeway=leeway)
    if as_json:
        say_json({"agent": agent, "now": at, "reach": [_reach_data(one) for one in reach]})
        return
    for one in reach:
        hop, capability = one.hop, one.hop.capability
        stated = capability.json()
        ends = (
            f"until {words.until(capability.expires_at, at)}"
            if capability.expires_at is not None
            else "never expires"
        )
        may = (
            "; ".join(
                words.rights({key: value for key, value in stated.items() if key in trails.RIGHTS})
            )
            or "anything"
        )
        only = f"; only at {words.names(stated['aud'])}" if "aud" in stated else ""
        more = ", if a third party answers" if hop.asks else ""
        say(
            f"{' > '.join(map(words.name, hop.holders))}, for {words.name(hop.root.subject)}, task {words.name(hop.task)}"
        )
        own = f", and caveats of its own: {words.names(hop.unknown)}" if hop.unknown else ""
        say(f"  may       {may}{only}{more}{own}")
        say(f"  lives     {ends}")
        say(f"  link      {words.name(hop.id)}")
    if not reach:
        tell("no token is recorded that this agent has or has handed on, and that still works")
        return
    cuts = list(dict.fromkeys(one.cut.id for one in reach))
    say("\ncut off by")
    for cut in cuts:
        say(f"  captoken revoke --link {words.name(cut)} ...")


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
