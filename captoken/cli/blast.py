"""`captoken blast-radius`: what an agent's tokens can still do, out of a trail.

All that a record says is escaped before it is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from captoken._format.spelling import named, named_all
from captoken.audit import analysis as trails
from captoken.cli import words
from captoken.cli.audit import file_argument, history
from captoken.cli.options import json_option, now_option, seconds
from captoken.cli.output import say, say_json, tell
from captoken.cli.values import DURATION


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
@json_option
def blast_radius(trail_file: str, agent: str, now: int | None, leeway: int, as_json: bool) -> None:
    """Show what the tokens of an agent can still do.

    It covers the tokens that the agent holds or has handed over. It shows when they expire, and
    which revocation would stop them.

    It reads only the trail. Tokens that this server never saw are missing, and the overlay is not
    checked. A server's own caveats are named, and may allow less than is shown.

    \b
    captoken blast-radius trail.jsonl --agent clerk
    """
    at = seconds(now)
    reach = trails.blast_radius(
        history(trail_file),
        agent,
        at,
        leeway=leeway,
    )
    if as_json:
        say_json({"agent": agent, "now": at, "reach": [_reach_data(one) for one in reach]})
        return
    if not reach:
        tell("no token is recorded that this agent has or has handed on, and that still works")
        return

    for one in reach:
        for line in _reach_lines(one.hop, at):
            say(line)
    say("", "cut off by")
    for cut in dict.fromkeys(one.cut.id for one in reach):
        say(f"  captoken revoke --link {named(cut)} ...")


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
    said = "; ".join(words.of_rights(stated, now)) or "anything"
    if "aud" in stated:
        said += f"; only at {named_all(stated['aud'])}"
    if hop.asks:
        said += ", if a third party answers"
    if hop.unknown:
        said += f", and caveats of its own: {named_all(hop.unknown)}"
    return said


def _reach_data(one: trails.Reach) -> dict[str, Any]:
    hop = one.hop
    capability = hop.capability
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
