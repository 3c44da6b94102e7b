"""`captoken login` and `captoken exchange`: from who somebody is to the root token of a task.

    login       a person logs in at an identity provider: an ID token
    exchange    that, or a workload's identity, or both, become a token, or a set of them

Nobody needs root keys for it: the service has them.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import click

from captoken._format.errors import IssuanceError
from captoken._writing.token import Token
from captoken._writing.token_set import TokenSet
from captoken.cli import files
from captoken.cli.options import (
    asking_options,
    caveats,
    clamp_option,
    clock,
    json_option,
    stacked,
)
from captoken.cli.output import answer, say_held, tell, warn
from captoken.cli.values import DURATION, FILE
from captoken.keys.secret import HolderKey


@contextmanager
def _codes_in_errors() -> Generator[None]:
    """Around what asks others: an error says their code as well, for who looks it up."""
    try:
        yield
    except IssuanceError as error:
        raise click.ClickException(f"{error.code}: {error}") from None


@click.command()
@click.argument("issuer", metavar="ISSUER")
@click.option(
    "--client-id",
    required=True,
    metavar="NAME",
    help="The provider's name for this application, which has no secret.",
)
@click.option(
    "--max-age",
    type=DURATION,
    default="8h",
    show_default=True,
    metavar="TIME",
    help="Log in again if the last login is older.",
)
@click.option("--acr", metavar="NAME", help="The required kind of login, as the provider names it.")
@click.option(
    "--scope",
    multiple=True,
    metavar="NAME",
    help="A scope to ask for besides openid: 'groups'. Repeatable.",
)
@click.option("--device", is_flag=True, help="Log in on another device, with a code.")
@click.option("--no-browser", is_flag=True, help="Show the address instead of opening a browser.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="NUMBER",
    help="The local port that the browser returns to, if the provider needs it fixed.",
)
@json_option
def login(
    issuer: str,
    client_id: str,
    max_age: int,
    acr: str | None,
    scope: tuple[str, ...],
    device: bool,
    no_browser: bool,
    port: int,
    as_json: bool,
) -> None:
    """Log in at an identity provider, and write the ID token.

    \b
    umask 077
    captoken login https://login.acme.example --client-id captoken-cli > id.token

    If there is no browser, use --device. The command verifies the ID token and writes only that. It
    asks for no refresh token. Whoever has the ID token can act as you until it expires.
    """
    from captoken.cli.oidc import Provider

    if "offline_access" in scope:
        raise click.UsageError("--scope offline_access: a login is not kept on")
    asked: dict[str, Any] = {
        "max_age": max_age,
        "acr": acr,
        "scope": " ".join(dict.fromkeys(("openid", *scope))),
    }

    def show(address: str) -> None:
        warn(f"log in at {address}")
        if not device and not no_browser:
            import webbrowser

            webbrowser.open(address)

    with _codes_in_errors():
        provider = Provider.at(issuer, client_id)
        if device:
            found = provider.by_device(show=show, **asked)
        else:
            found = provider.by_browser(show=show, port=port, **asked)

    who = found.identity
    if not as_json:
        tell(f"{who.sub} has logged in")
    data = {
        "id_token": found.text,
        "issuer": who.issuer,
        "sub": who.sub,
        "auth_time": who.auth_time,
        "expires_at": who.claims["exp"],
    }
    answer(as_json, data, found.text)


@click.command()
@click.argument("service", metavar="SERVICE")
@click.option(
    "--login",
    type=FILE,
    metavar="FILE",
    help="The login that starts the task: an ID token from `captoken login`, or '-' for standard "
    "input.",
)
@click.option(
    "--actor",
    type=FILE,
    metavar="FILE",
    help="The JWT of the workload that acts.",
)
@click.option(
    "--workload",
    is_flag=True,
    help="The same, fetched from the platform: see CAPTOKEN_IDENTITY.",
)
@click.option(
    "--signer",
    type=FILE,
    metavar="FILE",
    help="The holder's key to bind the token to.",
)
@click.option("--grant", metavar="NAME", help="The grant in the policy, if several match.")
@click.option(
    "--resource",
    metavar="NAME",
    multiple=True,
    help="The server, if the grant has several. Repeat it to get a set with a token for each.",
)
@click.option("--set", "as_set", is_flag=True, help="Get a set for all servers of the grant.")
@click.option(
    "--server",
    metavar="NAME",
    multiple=True,
    help="In a set, apply the restrictions only at this server. Repeatable.",
)
@click.option(
    "--agent",
    metavar="NAME",
    help="The agent that will hold the token, if the grant has several.",
)
@click.option(
    "--task",
    metavar="NAME",
    help="The start of the new task's id; or the whole id of a task to join.",
)
@click.option(
    "--join",
    type=FILE,
    metavar="FILE",
    help="A root token or a set whose task to join.",
)
@stacked(asking_options, clamp_option, json_option)
def exchange(
    service: str,
    login: str | None,
    actor: str | None,
    workload: bool,
    signer: str | None,
    grant: str | None,
    resource: tuple[str, ...],
    as_set: bool,
    server: tuple[str, ...],
    agent: str | None,
    task: str | None,
    join: str | None,
    clamp: bool,
    as_json: bool,
    **restrictions: Any,
) -> None:
    """Start a task with a login, a workload's identity, or both.

    The service's policy says what the task may do. With the options for caveats you ask for less.

    \b
    captoken exchange https://issuer.example --login id.token --workload \\
        --signer agent.json --grant q3-risk --resource sales-db > root.token

    For several servers, repeat --resource. You get a set, with a token for each server under that
    server's own keys.

    Keep the token or the set, like one from `mint`. To send it to a server, use `captoken present`.
    """
    from captoken.issuance import client

    if login is None and actor is None and not workload:
        raise click.UsageError("say who asks: --login, or --actor or --workload, or both")
    if actor is not None and workload:
        raise click.UsageError("--actor or --workload: one of the two")
    if task is not None and join is not None:
        raise click.UsageError("--task or --join: one of the two")
    wants_set = as_set or len(resource) > 1
    if server and not wants_set:
        raise click.UsageError("--server is for a set: name each --resource, or say --set")
    files.one_stdin(login, actor, join)

    key = None if signer is None else files.key(HolderKey, signer)
    office = client.Issuance(service, key=key)
    acts: client.Identity | None = None
    if workload:
        acts = client.workload()
    elif actor is not None:
        acts = files.text(actor, "workload's identity")
    asked: dict[str, Any] = {
        "login": None if login is None else files.text(login, "login"),
        "actor": acts,
        "grant": grant,
        "agent": agent,
        "clamp": clamp,
        **caveats(restrictions),
    }
    if wants_set:
        asked |= {"resources": resource, "servers": server or None}
    else:
        asked["resource"] = next(iter(resource), None)
    made: Token | TokenSet
    with _codes_in_errors():
        if join is not None:
            within = files.held(join, clock(None))
            made = (office.join_set if wants_set else office.join)(within, **asked)
        else:
            made = (office.start_set if wants_set else office.start)(task=task, **asked)
    say_held(made, as_json)
