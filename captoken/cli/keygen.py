"""`captoken keygen`: make, rotate and retire root keys, and derive those of one server."""

from __future__ import annotations

import click

from captoken.cli import files
from captoken.cli.options import json_option, keyring_option
from captoken.cli.output import say_json, tell
from captoken.keyring import Keyring


@click.command()
@click.option("--out", metavar="FILE", help="Write a new keyring to FILE, which must not be there yet.")
@click.option("--rotate", is_flag=True, help="Add a fresh key to --keyring and mint with it; the older ones still verify.")
@click.option("--retire", metavar="KEY_ID", help="Take a key out of --keyring: its tokens stop verifying.")
@click.option("--audience", metavar="NAME", help="Derive the keys of one server from --keyring into --out.")
@keyring_option
@json_option
def keygen(out: str | None, rotate: bool, retire: str | None, audience: str | None, keyring: str | None, as_json: bool) -> None:
    """Make root keys, in a file that its owner alone can read.

    \b
    captoken keygen --out keyring.json
    captoken keygen --rotate --keyring keyring.json
    captoken keygen --retire KEY_ID --keyring keyring.json
    captoken keygen --audience sales-db --keyring keyring.json --out sales-db.json

    Whoever has the file can mint anything. A server needs no more than the keys of its own audience: with them it can
    forge for itself and for nobody else.
    """
    if (rotate or retire is not None) and (out is not None or audience is not None):
        raise click.UsageError("--rotate and --retire change --keyring: they go with neither --out nor --audience")
    if out is not None:
        made = Keyring.generate() if audience is None else files.keyring(keyring).for_audience(audience)
        files.save_new(made, out)
        path = out
    elif rotate or retire is not None:
        made = files.keyring(keyring)
        path = keyring or ""
        made = made.rotate() if rotate else made
        made = made.retire(retire) if retire is not None else made
        made.save(path)
    else:
        raise click.UsageError("name a file with --out, or say --rotate or --retire")
    if as_json:
        say_json({"file": path, "current": made.current, "key_ids": list(made.key_ids), "audience": made.audience})
    else:
        others = ", ".join(key_id for key_id in made.key_ids if key_id != made.current)
        scope = f", for {made.audience} alone" if made.audience is not None else ""
        tell(f"{path}: mints with {made.current}{f', still verifies {others}' if others else ''}{scope}")
