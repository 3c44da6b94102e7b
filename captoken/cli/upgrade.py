"""`captoken upgrade`: stores that an earlier version made, brought to this one."""

from __future__ import annotations

import os
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Protocol

import click

from captoken.cli.options import json_option
from captoken.cli.output import say, say_json, tell
from captoken.cli.postgres import connected, needing
from captoken.cli.values import FILE

if TYPE_CHECKING:
    from captoken.stores._schema import Upgrade


class _Upgrading(Protocol):
    """What looks at stores, and brings them on if that is to be."""

    def __call__(self, *, apply: bool) -> list[Upgrade]: ...


@click.command()
@click.argument("paths", nargs=-1, type=FILE, metavar="[FILE.db|FOLDER]...")
@click.option(
    "--overlay",
    type=FILE,
    metavar="FILE.db",
    help="The new file for the overlay, if it shares a file with other stores.",
)
@click.option("--dsn", metavar="DSN", help="A PostgreSQL database, with the login of its owner.")
@click.option("--schema", default="captoken", metavar="NAME", help="The schema of its stores.")
@click.option("--valkey", "url", metavar="URL", help="A Valkey or Redis server.")
@click.option("--prefix", default="captoken", metavar="NAME", help="The prefix of its keys.")
@click.option(
    "--apply",
    is_flag=True,
    help="Make the changes, each file or database in one transaction.",
)
@json_option
def upgrade(
    paths: tuple[str, ...],
    overlay: str | None,
    dsn: str | None,
    schema: str,
    url: str | None,
    prefix: str,
    apply: bool,
    as_json: bool,
) -> None:
    """Convert stores of an earlier version.

    It takes an SQLite file, an office's folder, a PostgreSQL database or a Valkey server. Without
    --apply it shows what it would do, and changes nothing. Before you add --apply, stop everything
    that uses the stores, and keep a copy.

    \b
    captoken upgrade state/
    captoken upgrade used.db --apply
    captoken upgrade --dsn 'dbname=shop user=postgres' --apply
    """
    several: list[_Upgrading] = [partial(_upgrade_file, path, overlay) for path in paths]
    if dsn is not None:
        several.append(partial(_upgrade_postgres, dsn, schema))
    if url is not None:
        several.append(partial(_upgrade_valkey, url, prefix))
    if not several:
        raise click.UsageError("name what to upgrade: a file, a folder, --dsn or --valkey")

    # All of them are looked at first, and what is run is seen first, also if it then fails.
    found = [one for look in several for one in look(apply=False)]
    if not as_json:
        say(*map(_line, found))
    if apply:
        for bring_on in several:
            bring_on(apply=True)
    _say_done(found, apply, as_json)


def _line(one: Upgrade) -> str:
    """What was found of a store, and what is to be done."""
    if not one.does:
        return f"{one.where}: {one.store}, version {one.version}: nothing to do"
    which = f"version {one.found} to {one.version}"
    return f"{one.where}: {one.store}, {which}: {'; '.join(one.does)}"


def _say_done(found: list[Upgrade], apply: bool, as_json: bool) -> None:
    """What was done; all that was found, for machines."""
    is_due = any(one.does for one in found)
    if as_json:
        say_json({"stores": [one._asdict() for one in found], "applied": apply and is_due})
    elif not is_due:
        tell("nothing to upgrade")
    elif apply:
        tell("upgraded")
    else:
        tell("nothing was changed: stop whatever uses these, keep a copy, then add --apply")


# Each imports what it needs here, since hardly any other command does.


def _upgrade_file(path: str, overlay: str | None, *, apply: bool) -> list[Upgrade]:
    if os.path.isdir(path):
        from captoken.local import Office

        return Office.upgrade(path, apply=apply)

    from captoken.issuance.registry.sqlite import SQLiteRegistry
    from captoken.stores import sqlite

    kinds: tuple[type[sqlite.SQLiteStore], ...] = (*sqlite.KINDS, SQLiteRegistry)
    return sqlite.upgrade_file(path, apply=apply, overlay=overlay, kinds=kinds)


def _upgrade_postgres(dsn: str, schema: str, *, apply: bool) -> list[Upgrade]:
    with needing("postgres"):
        from captoken.issuance.registry.postgres import WITH_REGISTRY
        from captoken.stores.postgres import upgrade_tables

    with connected(dsn) as connection:
        return upgrade_tables(connection, schema=schema, tables=WITH_REGISTRY, apply=apply)


def _upgrade_valkey(url: str, prefix: str, *, apply: bool) -> list[Upgrade]:
    with needing("valkey"):
        import valkey

    from captoken.stores import valkey as stores

    with closing(valkey.Valkey.from_url(url)) as client:
        return stores.upgrade_keys(client, prefix=prefix, apply=apply)
