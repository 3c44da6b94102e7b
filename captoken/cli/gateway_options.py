"""Parameters that several commands of `captoken gateway` have, written once."""

from __future__ import annotations

import click

from captoken.cli.values import FILE

file_argument = click.argument("path", type=FILE, metavar="GATEWAY.toml")

create_option = click.option(
    "--create",
    is_flag=True,
    help="Create the files of the ledger and of used proofs, if they are missing.",
)

pass_option = click.option(
    "--pass",
    "passed",
    multiple=True,
    metavar="NAME",
    help="An environment variable to pass on to COMMAND. Repeatable.",
)
