"""`captoken prove`: whoever sends this text holds the key that it is bound to."""

from __future__ import annotations

from typing import Any

import click

from captoken._writing.token import Token
from captoken.cli import files
from captoken.cli.facts import access_of, access_options, http_of, http_options
from captoken.cli.options import clock, now_option, token_option
from captoken.cli.output import say
from captoken.keys.secret import HolderKey
from captoken.proof import prove as proof_of


@click.command()
@token_option
@click.option("--signer", metavar="FILE", required=True, help="The key that the token is bound to.")
@click.option("--audience", metavar="NAME", required=True, help="The server that it goes to.")
@http_options
@access_options
@now_option
def prove(
    token_file: str, signer: str, audience: str, http: tuple[str, str, str] | None, body: str | None, now: int | None,
    **given: Any,
) -> None:  # fmt: skip
    """Write the proof that goes to a server with a token that is bound to a key: for one request, once, within 30 seconds.

    It is about the very text that goes there, as `present` wrote it, and about what the server will ask: --http for one
    that is reached over HTTP, or else the access.

    \b
    captoken present --audience sales-db < child.token > presented.token
    captoken prove --signer agent.json --audience sales-db --table sales --operation select \\
        < presented.token > proof
    """
    access = access_of(given, http=http is not None, or_http=", or --http")
    files.one_stdin(token_file, body)
    request = http_of(http, body)
    key = HolderKey.load(signer)
    text = files.token_text(token_file)
    bound_to = Token.parse(text.partition(".")[0]).unverified.key
    if bound_to != key.public:
        what = (
            "to no key, and asks for no proof"
            if bound_to is None
            else "to another key than that of --signer"
        )
        raise click.UsageError(f"the token is bound {what}")
    say(
        proof_of(
            text,
            key,
            audience=audience,
            request=access if request is None else request,
            clock=clock(now),
        )
    )
