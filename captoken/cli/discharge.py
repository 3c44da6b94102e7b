"""`captoken require`, `tickets`, `discharge`, `approve` and `attach`: asking third parties.

    require    a token is worth nothing without the third party's answer
    tickets    what goes to the third party: no token
    discharge  its answer, by a program that has decided
    approve    its answer, by a person at the terminal
    attach     the token, with the answer

Root keys are needed for none of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import click

from captoken._format.spelling import span
from captoken._language.discharge import Ticket
from captoken.cli import files
from captoken.cli.options import (
    caveats,
    clock,
    facts_option,
    json_option,
    now_option,
    request_options,
    stacked,
    timeless_options,
    token_option,
)
from captoken.cli.output import say_discharge, say_exact, say_json, say_token, tell
from captoken.cli.terminal import Facts, is_agreed
from captoken.cli.values import DURATION, FILE, PUBLIC, strict_json
from captoken.discharge import Allow, Discharger, Wait
from captoken.keys.secret import DischargerKey

_TITLE = "This is needed, and you are asked:"
_INSTEAD = "a program that has decided runs `captoken discharge`"

# A name that needs no quotes: nobody takes a part of it for something else.
_is_plain = re.compile(r"[A-Za-z0-9._-]+").fullmatch


@click.command()
@token_option
@click.option(
    "--discharger",
    type=PUBLIC,
    metavar="PUBLIC",
    required=True,
    help="The public key of the third party to ask.",
)
@facts_option(
    "--need",
    help="What to ask: 'approve=payment', 'cents=500' (JSON, or else a string). Repeatable.",
)
@click.option(
    "--need-json",
    type=FILE,
    metavar="FILE",
    help="The same as a JSON object in a file, which other users cannot see in the list of "
    "processes.",
)
@click.option(
    "--location",
    metavar="URL",
    help="A hint where to ask. Everybody can read it.",
)
@now_option
@json_option
def require(
    token_file: str,
    discharger: str,
    need: dict[str, Any],
    need_json: str | None,
    location: str | None,
    now: int | None,
    as_json: bool,
) -> None:
    """Require a third party's consent.

    From then on, the token does not work without the answer. Needs no key. The question is
    encrypted for the third party. Nobody can remove the requirement again.

    \b
    umask 077
    captoken require --discharger "$(cat approvals.public)" \\
        --need approve=payment --need cents=500 \\
        --location https://approvals.example < child.token > asking.token
    """
    files.one_stdin(token_file, need_json)
    needed = _needed(need, need_json)
    held = files.token(token_file, clock(now))
    say_token(held.require(discharger, need=needed, location=location).serialize(), as_json)


def _needed(need: dict[str, Any], need_json: str | None) -> dict[str, Any]:
    """What --need and --need-json say is needed."""
    needed = dict(need)
    if need_json is not None:
        stated = strict_json(files.text(need_json, "JSON object"))
        if not isinstance(stated, dict) or not stated.keys().isdisjoint(needed):
            raise click.UsageError("--need-json takes a JSON object, of other names than --need")
        needed |= stated
    if not needed:
        raise click.UsageError("say what is needed, with --need or --need-json")
    return needed


@click.command()
@token_option
@click.option(
    "--discharger",
    type=PUBLIC,
    metavar="PUBLIC",
    help="Only the tickets for this public key.",
)
@json_option
def tickets(token_file: str, discharger: str | None, as_json: bool) -> None:
    """Write the tickets for third parties, one a line.

    Only the third party can use a ticket.

    \b
    captoken tickets < asking.token > ticket
    """
    asked = files.token(token_file, clock(None)).needs
    found = [ticket for ticket in asked if discharger in (None, ticket.discharger)]
    if as_json:
        return say_json({"tickets": [_ticket_data(ticket) for ticket in found]})
    if not found:
        return tell("nobody is left to ask")
    return say_exact("\n".join(ticket.text for ticket in found))


def _ticket_data(ticket: Ticket) -> dict[str, Any]:
    return {
        "ticket": ticket.text,
        "discharger": ticket.discharger,
        "location": ticket.location,
    }


_answering = stacked(
    click.option(
        "--key",
        type=FILE,
        metavar="FILE",
        required=True,
        help="The key of the discharger.",
    ),
    click.option(
        "--ticket-file",
        type=FILE,
        metavar="FILE",
        default="-",
        help="Read the ticket from FILE instead of standard input.",
    ),
)


def _discharger(key: str, now: int | None) -> Discharger:
    """A discharger that decides nothing by itself: the command does, or a person."""
    return Discharger(files.key(DischargerKey, key), lambda need: Wait(), clock=clock(now))


@click.command()
@_answering
@click.option(
    "--show",
    is_flag=True,
    help="Show what is asked, in JSON, without answering.",
)
@request_options
@now_option
@json_option
def discharge(
    key: str,
    ticket_file: str,
    show: bool,
    now: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Answer a ticket from a program that has already decided.

    The discharge says that what is asked holds, for a limited time and under the given conditions.
    It is secret: send it only to whoever sent the ticket.

    \b
    umask 077
    captoken discharge --key approvals.json --show < ticket
    captoken discharge --key approvals.json --expires-in 60s < ticket > discharge
    """
    wanted = caveats(given)
    if show and wanted:
        raise click.UsageError("--show discharges nothing: it goes with no condition")
    discharger = _discharger(key, now)
    ticket = files.ticket(ticket_file)
    if show:
        say_json(discharger.need(ticket))
    else:
        say_discharge(discharger.approve(ticket, Allow(**wanted)), as_json)


def _no_yes(ctx: click.Context, param: click.Parameter, given: bool) -> None:
    if given:
        raise click.UsageError(f"a person is asked: {_INSTEAD}", ctx)


def needed_facts(need: Mapping[str, Any]) -> Facts:
    """What is needed, as JSON: names that are not plain stand in quotes."""
    for name, value in need.items():
        yield name if _is_plain(name) else json.dumps(name), json.dumps(value)


@click.command()
@_answering
@click.option(
    "--expires-in",
    type=DURATION,
    metavar="TIME",
    default="5m",
    show_default=True,
    help="How long the discharge is valid.",
)
@timeless_options
@click.option(
    "--yes",
    is_flag=True,
    hidden=True,
    expose_value=False,
    callback=_no_yes,
)
@now_option
@json_option
def approve(
    key: str,
    ticket_file: str,
    now: int | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Ask the person at the terminal whether to answer a ticket. Exit 1 if not.

    It asks at the terminal itself, even if input and output are redirected. Only `y` or `yes`
    counts as consent, and no option can give it.

    \b
    umask 077
    captoken approve --key approvals.json < ticket > discharge
    """
    discharger = _discharger(key, now)
    ticket = files.ticket(ticket_file)
    need = discharger.need(ticket)
    allowed = Allow(**caveats(given))
    discharger.approve(ticket, allowed)  # what cannot be given is told before anybody is asked
    question = f"Approve, for {span(given['expires_in'])}?"
    if not is_agreed(_TITLE, needed_facts(need), question, instead=_INSTEAD):
        if as_json:
            say_json({"discharge": None, "expires_at": None})
        tell("refused, and nothing is discharged")
        return 1
    say_discharge(discharger.approve(ticket, allowed), as_json)
    return 0


@click.command()
@token_option
@click.option(
    "--discharge",
    "discharges",
    type=FILE,
    metavar="FILE",
    multiple=True,
    required=True,
    help="A discharge. Repeatable.",
)
@json_option
def attach(token_file: str, discharges: tuple[str, ...], as_json: bool) -> None:
    """Attach discharges to the token that needs them. Needs no key.

    \b
    umask 077
    captoken attach --discharge discharge < asking.token > token
    """
    files.one_stdin(token_file, *discharges)
    made = files.token(token_file, clock(None))
    for path in discharges:
        made = made.with_discharge(files.discharge(path))
    say_token(made.serialize(), as_json)
