"""`captoken postgres`: the roles that the PostgreSQL guard works with, and what undermines them."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from captoken.cli.groups import InOrder
from captoken.cli.options import json_option, merged, stacked
from captoken.cli.output import say, say_exact, say_json, tell
from captoken.cli.values import LISTS

if TYPE_CHECKING:
    from psycopg import Connection


@click.group(cls=InOrder)
def postgres() -> None:
    """Prepare a PostgreSQL database for agents.

    Makes a login and narrow roles, and checks for anything that undermines them.
    """


_DSN = (
    "A connection string of a superuser's, as libpq reads it; "
    "what it leaves out, PGHOST and the like say."
)
_login = click.option(
    "--login",
    metavar="NAME",
    required=True,
    help="The role that the server logs in as.",
)
_planned = stacked(
    _login,
    click.option(
        "--role",
        metavar="NAME",
        required=True,
        help="The narrow role, for agents with the same trust.",
    ),
    click.option(
        "--allow",
        type=LISTS,
        multiple=True,
        callback=merged,
        required=True,
        metavar="PATTERN=OP,OP",
        help="What the role may do, by table: select, insert, update, delete. Repeatable.",
    ),
    click.option(
        "--columns",
        type=LISTS,
        multiple=True,
        callback=merged,
        metavar="PATTERN=COL,COL",
        help="The columns that it may use, by table. Repeatable.",
    ),
    click.option(
        "--rows",
        multiple=True,
        metavar="PATTERN.COL",
        help="A column that a token may restrict rows by, with its table. Repeatable. "
        "`countries.` says: none of countries.",
    ),
    click.option(
        "--dsn",
        metavar="DSN",
        help=f"{_DSN} Patterns need it: market.* is spelled out.",
    ),
    click.option(
        "--adopt",
        is_flag=True,
        help="Also narrow an existing login or role that no plan has made.",
    ),
    click.option(
        "--apply",
        is_flag=True,
        help="Run the SQL in that database, in one transaction, and audit the result.",
    ),
)


@postgres.command()
@_planned
@json_option
def plan(
    login: str,
    role: str,
    allow: Mapping[str, list[str]],
    columns: Mapping[str, list[str]],
    rows: Sequence[str],
    dsn: str | None,
    adopt: bool,
    apply: bool,
    as_json: bool,
) -> int:
    """Print the SQL that makes a login and a narrow role.

    Make one role for each group of agents with the same trust.

    \b
    captoken postgres plan --login agents --role reader --allow sales=select \\
        --allow 'market.*=select' --columns people=id,name \\
        --dsn 'dbname=shop user=postgres' --apply

    With --rows orders.tenant, tokens can restrict which tenants' rows are visible: the plan adds a
    policy that enforces it.

    The role can do only what is listed, whatever a token says. To change that, run the command
    again. It refuses an existing role that no plan has made. With --adopt it takes that role, and
    removes all rights that a narrow role must not have.
    """
    roles = _roles()
    planned = roles.Role(role, allow, columns, rows)
    if dsn is None:
        if apply:
            raise click.UsageError("--apply goes with --dsn")
        _say_plan(roles.plan_sql(login, planned, adopt=adopt), as_json)
        return 0

    with connected(dsn) as connection:
        sql = roles.plan_sql(login, planned, roles.tables_of(connection), adopt=adopt)
        if not apply:
            _say_plan(sql, as_json)
            return 0
        # What is run is seen first, also if it then fails.
        if not as_json:
            _say_plan(sql, as_json)

        found = roles.apply_plan(connection, login, planned, adopt=adopt)
        connection.commit()
    if as_json:
        _say_plan(sql, as_json, found)
        return 1 if found else 0
    tell(f"applied: {login} can take on {role}")
    return _say_found(found, login)


def _say_plan(sql: str, as_json: bool, found: Sequence[str] | None = None) -> None:
    """The SQL; for machines also whether it was applied, and then what the audit found."""
    if not as_json:
        return say_exact(sql.rstrip())
    return say_json(
        {
            "sql": sql.rstrip(),
            "applied": found is not None,
            "found": None if found is None else list(found),
        }
    )


@postgres.command()
@_login
@click.option(
    "--dsn",
    metavar="DSN",
    required=True,
    help=_DSN,
)
@json_option
def audit(login: str, dsn: str, as_json: bool) -> int:
    """Show what lets a login do more than its grants.

    It finds functions that run with their owner's rights, and rights that everybody has. Exit 0:
    nothing found, 1: something found. Only the owner of a function can say what it does.
    """
    roles = _roles()
    with connected(dsn) as connection:
        found = roles.audit(connection, login)
    if not as_json:
        return _say_found(found, login)
    say_json({"found": list(found)})
    return 1 if found else 0


def _roles() -> ModuleType:
    """What plans and audits roles. Imported here, since most commands need no extra but `cli`."""
    with needing("postgres"):
        from captoken.adapters._postgres import roles
    return roles


@contextmanager
def needing(name: str) -> Generator[None]:
    """What a command imports, by an extra. Raises ClickException where that is not installed."""
    try:
        yield
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError):  # it is here, and says why it does not work
            raise click.ClickException(str(error)) from None
        raise click.ClickException(f"this needs an extra: pip install 'captoken[{name}]'") from None


def _say_found(found: Sequence[str], login: str) -> int:
    """Say what an audit found, a line each. Returns the exit status."""
    if found:
        say(*(f"-- found: {line}" for line in found))
    else:
        tell(f"nothing was found that lets {login} do more than its grants")
    return 1 if found else 0


@contextmanager
def connected(dsn: str) -> Generator[Connection[Any], None, None]:
    """A connection. What the database says of an error comes as one line.

    It comes without the connection string, which can have a password in it.
    """
    import psycopg

    try:
        with psycopg.connect(dsn) as connection:
            yield connection
    except psycopg.Error as error:
        said = error.diag.message_primary or str(error).partition("\n")[0]
        raise click.ClickException(f"PostgreSQL: {said}") from None
