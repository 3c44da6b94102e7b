"""`captoken mint`, `attenuate`, `delegate` and `present`: they write a token.

It goes to standard output, and nothing else does. Notes on it go to standard error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import click
from click.core import ParameterSource

from captoken._format.spelling import span
from captoken._writing.issuer import Issuer
from captoken._writing.token import Token
from captoken._writing.token_set import TokenSet
from captoken.cli import files
from captoken.cli.beside import note_revoked
from captoken.cli.options import (
    ACCESS_OPTIONS,
    access_of,
    access_options,
    caveats,
    clamp_option,
    clock,
    facts_option,
    http_of,
    http_options,
    is_stated,
    json_option,
    keep_option,
    keyring_option,
    link_options,
    mint_options,
    now_option,
    present_options,
    seconds,
    stacked,
    token_option,
)
from captoken.cli.output import say_held, say_token, tell
from captoken.cli.values import DURATION, FILE, PUBLIC
from captoken.cli.view import read
from captoken.keys.secret import HolderKey


@click.command()
@keyring_option
@click.option(
    "--subject",
    metavar="NAME",
    required=True,
    help="The person or service that the task is for: 'user:jane'.",
)
@click.option(
    "--agent",
    metavar="NAME",
    required=True,
    help="The agent that gets the token.",
)
@click.option(
    "--task",
    metavar="PATH",
    required=True,
    help="The task that the subject started.",
)
@click.option(
    "--key",
    type=PUBLIC,
    metavar="PUBLIC",
    help="Bind the token to this public key of the agent.",
)
@mint_options
@click.option(
    "--no-expiry",
    is_flag=True,
    help="The token never expires. The default is 15 minutes.",
)
@click.option(
    "--unrestricted",
    is_flag=True,
    help="Allow any table and any tool. Otherwise you must name some.",
)
@facts_option(
    "--ext", help="A fact of your own that no holder can change: 'acme:tenant=blue'. Repeatable."
)
@click.option(
    "--servers",
    type=FILE,
    metavar="FILE.toml",
    help="Write a set. The file has a table for each server with its caveats, as in `mint_set`.",
)
@click.option(
    "--control",
    metavar="NAME",
    help="The control plane of a set, where holders can recall hand-overs. Needs --servers.",
)
@now_option
@json_option
def mint(
    keyring: str | None,
    subject: str,
    agent: str,
    task: str,
    no_expiry: bool,
    unrestricted: bool,
    ext: dict[str, Any],
    servers: str | None,
    control: str | None,
    now: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Write the first token of a task, or a set of them.

    SUBJECT starts TASK. In it, AGENT may do what the options say.

    \b
    umask 077
    captoken mint --keyring keyring.json --subject user:jane \\
        --agent orchestrator --task task-123 \\
        --tables sales --operations select --expires-in 10m > root.token

    With --servers, it writes a token for each server, with that server's own keys. The other
    options then apply to all of them.
    """
    wanted = caveats(given)
    if no_expiry:
        if wanted.keys() & {"expires_in", "expires_at"}:
            raise click.UsageError("--no-expiry, and yet an expiry")
        wanted["expires_at"] = None
    issuer = Issuer(files.keyring(keyring), clock=clock(now))
    who: dict[str, Any] = {"subject": subject, "agent": agent, "task": task, "ext": ext}
    made: Token | TokenSet
    if servers is not None:
        if unrestricted:
            raise click.UsageError("--servers, and yet --unrestricted")
        at_each = files.table(servers)
        made = issuer.mint_set(servers=at_each, control=control, **who, **wanted)
        for its in at_each.values():
            say_of_caveats(its)
        if "forbid" in wanted:
            _note("--forbid holds between these servers only where they share one ledger")
    elif control is not None:
        raise click.UsageError("--control goes with --servers")
    else:
        made = issuer.mint(unrestricted=unrestricted, **who, **wanted)
    say_of_caveats(wanted)
    say_held(made, as_json)
    for each in made.secret_tokens.values() if isinstance(made, TokenSet) else [made]:
        note_revoked(files.named_keyring(keyring), each, seconds(now))


_narrowing = stacked(
    token_option,
    click.option(
        "--key",
        type=PUBLIC,
        metavar="PUBLIC",
        help="Bind the new token to this public key.",
    ),
    click.option(
        "--signer",
        type=FILE,
        metavar="FILE",
        help="The key that the token is bound to. It signs the hand-over to --key.",
    ),
    click.option(
        "--server",
        metavar="NAME",
        multiple=True,
        help="For a set: restrict only the token for this server. Repeatable.",
    ),
    click.option(
        "--only",
        metavar="NAME",
        multiple=True,
        help="For a set: keep only the token for this server. Repeatable.",
    ),
    link_options,
    keep_option,
    clamp_option,
    now_option,
    json_option,
)


def _narrow(
    verb: str,
    *,
    token_file: str,
    now: int | None,
    signer: str | None,
    as_json: bool,
    server: tuple[str, ...],
    only: tuple[str, ...],
    **given: Any,
) -> None:
    """Write what a verb of the token, or of the set, makes of the caveats that are given."""
    key = None if signer is None else files.key(HolderKey, signer)
    wanted = caveats(given)
    held = files.held(token_file, clock(now))
    if isinstance(held, Token) and (server or only):
        raise click.UsageError("--server and --only are for a set of tokens, and this is a token")
    before = seconds(now)
    where: dict[str, Any] = {"servers": server} if server else {}
    if isinstance(held, TokenSet) and only:
        held = held.only(*only)
    made: Token | TokenSet = getattr(held, verb)(signer=key, **where, **wanted)

    say_of_caveats(wanted)
    # What has expired is cut as well, and one note says enough.
    if not say_of_end(held, before):
        say_of_cut(made, wanted.get("expires_in"), before)
    say_held(made, as_json)


@click.command()
@_narrowing
def attenuate(**given: Any) -> None:
    """Narrow a token. Needs no key: the new token can do less, and the old one still works.

    \b
    umask 077
    captoken attenuate --operations select < child.token > narrower.token
    """
    _narrow("attenuate", **given)


@click.command()
@click.option(
    "--to",
    metavar="NAME",
    required=True,
    help="The agent to hand it to.",
)
@_narrowing
def delegate(**given: Any) -> None:
    """Narrow a token and hand it over to a sub-agent.

    Needs no key, unless the token is bound to one.

    \b
    umask 077
    captoken delegate --to sales-agent --tables sales --expires-in 5m \\
        < root.token > child.token
    captoken delegate --to sales-agent --key "$(cat agent.public)" \\
        --signer own.json < root.token > child.token
    """
    _narrow("delegate", **given)


@click.command()
@token_option
@click.option(
    "--audience",
    metavar="NAME",
    multiple=True,
    required=True,
    help="The server it goes to. Repeatable.",
)
@click.option(
    "--expires-in",
    type=DURATION,
    metavar="TIME",
    default="60s",
    show_default=True,
    help="How long the copy is valid, at most.",
)
@present_options
@keep_option
@clamp_option
@click.option(
    "--signer",
    type=FILE,
    metavar="FILE",
    help="The key that the token is bound to. It proves one request, given by --http or an access.",
)
@click.option(
    "--with-consent",
    type=FILE,
    metavar="FILE",
    multiple=True,
    help="A consent to show with the token: see `captoken consent`. Repeatable.",
)
@http_options
@access_options
@now_option
@json_option
def present(
    token_file: str,
    now: int | None,
    signer: str | None,
    with_consent: tuple[str, ...],
    as_json: bool,
    http: tuple[str, str, str] | None,
    body: str | None,
    **given: Any,
) -> None:
    """Write a short-lived copy for one server. Never send the token itself.

    \b
    captoken present --audience sales-db < child.token

    For a set, it writes that server's token, and nothing of the others.

    If the token is bound to a key, the copy includes a proof by that key. It works for one request,
    once, within 30 seconds. State the request with --http for a server that is reached over HTTP,
    or else with the options for an access.

    \b
    captoken present --audience sales-db --signer agent.json \\
        --table sales --operation select < child.token
    """
    wanted = caveats({key: value for key, value in given.items() if key not in ACCESS_OPTIONS})
    held = _for_server(files.held(token_file, clock(now)), wanted["audience"])
    before = seconds(now)
    if signer is not None:
        access = access_of(given, http=http is not None, or_http=", or --http")
        files.one_stdin(token_file, body)
        digest = http_of(http, body)
        wanted["signer"] = files.key(HolderKey, signer)
        wanted["request"] = access if digest is None else digest
    # Whoever states a request believes that it is proven, and would send a text that is not.
    elif http is not None or body is not None or is_stated(given):
        raise click.UsageError("a request goes with --signer: it is what the key proves")
    files.one_stdin(token_file, body, *with_consent)
    if with_consent:
        wanted["consents"] = [files.text(path, "consent") for path in with_consent]
    made = held.present(**wanted)
    _say_of_sent(held, made, before)
    say_token(made, as_json)


def _for_server(held: Token | TokenSet, audience: tuple[str, ...]) -> Token:
    """The token that goes to a server. Raises UsageError for a set and several servers."""
    if isinstance(held, Token):
        return held
    if len(audience) != 1:
        raise click.UsageError("each token of a set goes to one server: give one --audience")
    return held.token(audience[0])


def _say_of_sent(held: Token, sent: str, before: int) -> None:
    """Notes on what `present` has made of a token, at that time."""
    if say_of_end(held, before):
        return
    # The end that nobody has asked for is cut in silence: every token has its last minute.
    context = click.get_current_context()
    if context.get_parameter_source("expires_in") is ParameterSource.COMMANDLINE:
        say_of_cut(read(sent).token, context.params["expires_in"], before)


# --- notes ----------------------------------------------------------------------------------------

# What whoever writes a token is told beside it: that it works, but not as it may be meant.
#
#     note: slect is no operation that captoken's guards know (select, insert, update, delete): did
#         you mean select?
#     note: this token expired 2s ago: nothing made of it works
#
# To standard error, a line each. The token is written all the same, with exit 0: a server of one's
# own may know more. Nothing here refuses anything.

# What the guards of databases ask for. A server of one's own may have other operations.
_KNOWN = ("select", "insert", "update", "delete")


def say_of_caveats(given: Mapping[str, Any]) -> None:
    """Notes on caveats that a link was given, as keywords: those that hardly anybody means.

    Only beside tables that are named: without them operations may be those of anything.
    """
    tables: list[str] = [
        *given.get("tables", ()),
        *given.get("allow", {}),
    ]
    if not tables:
        return

    for operation in _operations(given):
        if operation not in _KNOWN and operation != "*":
            _note(_unknown(operation))


def _operations(given: Mapping[str, Any]) -> Iterator[str]:
    """All operations that are named, each once, in their order."""
    named: list[str] = list(given.get("operations", ()))
    for of_table in given.get("allow", {}).values():
        named += of_table

    # A dict keeps the order, as a set does not.
    yield from dict.fromkeys(named)


def _unknown(operation: str) -> str:
    """What is told of an operation that no guard knows: the one that may be meant, if one is near.

    Case counts in tokens: `SELECT` is as unknown as `slect`, and the same one is meant.
    """
    known = f"{operation} is no operation that captoken's guards know ({', '.join(_KNOWN)})"
    close = get_close_matches(operation.lower(), _KNOWN, n=1)
    if close:
        return f"{known}: did you mean {close[0]}?"
    return f"{known}: only a server that asks for it by this name permits anything"


def say_of_end(held: Token | TokenSet, now: int) -> bool:
    """A note if a token has expired, from which others are made. True if it has."""
    end = _end_of(held)
    if end is None or end > now:
        return False

    _note(f"this token expired {span(now - end)} ago: nothing made of it works")
    return True


def say_of_cut(made: Token | TokenSet, asked: int | None, now: int) -> None:
    """A note if a token ends earlier than after the seconds that were asked for.

    `asked` is None where no such end was asked for. `now` is a time before the token was made: from
    a later one on, an end that was not cut would look as if it had been.
    """
    end = _end_of(made)
    if asked is None or end is None or end >= now + asked:
        return
    _note(f"--expires-in {span(asked)} is cut to what is held: the token ends in {span(end - now)}")


def _end_of(held: Token | TokenSet) -> int | None:
    """When it ends; of a set, when the first of its tokens does."""
    return held.unverified.expires_at if isinstance(held, Token) else held.expires_at


def _note(text: str) -> None:
    tell(f"note: {text}")
