"""What is attempted, as options state it: alike for whoever proves and for whoever verifies it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from msgspec import UNSET

from captoken._language.access import Access
from captoken.cli import files
from captoken.cli.options import facts_option, stacked
from captoken.cli.values import FILE, OBJECT
from captoken.proof import http_request

access_options = stacked(
    click.option(
        "--table",
        metavar="NAME",
        help="The table that is accessed.",
    ),
    click.option(
        "--operation",
        metavar="NAME",
        help="The operation on it.",
    ),
    click.option(
        "--column",
        metavar="NAME",
        multiple=True,
        help="A column that it touches. Repeatable.",
    ),
    click.option(
        "--row",
        type=OBJECT,
        metavar="JSON",
        help="""The row as it is stored, where rows are restricted: '{"tenant":"acme"}'.""",
    ),
    click.option(
        "--becomes",
        type=OBJECT,
        metavar="JSON",
        help="The row as it will be, in the same form.",
    ),
    click.option(
        "--tool",
        metavar="NAME",
        help="The tool that is called.",
    ),
    click.option(
        "--arguments",
        type=OBJECT,
        metavar="JSON",
        help="""Its arguments: '{"q":"rates"}'.""",
    ),
    facts_option(
        "--attribute", help="A fact: 'region=eu', 'size=5' (JSON, or else a string). Repeatable."
    ),
    click.option(
        "--token-only",
        is_flag=True,
        help="Check no access, only whether the token is valid at this server.",
    ),
)
# What they are called in a command's function.
ACCESS_OPTIONS = frozenset(
    ("table", "operation", "column", "tool", "arguments", "attribute", "token_only")
) | {"row", "becomes"}
http_options = stacked(
    click.option(
        "--http",
        nargs=3,
        metavar="METHOD ORIGIN TARGET",
        help="The HTTP request that a proof covers: POST https://api.example '/v1/rows?page=2'.",
    ),
    click.option(
        "--body",
        type=FILE,
        metavar="FILE",
        help="The body of that request. The default is an empty body.",
    ),
)


def is_stated(given: Mapping[str, Any]) -> bool:
    """Does an option state an access, or that there is none?"""
    facts = ("table", "operation", "row", "becomes", "tool", "arguments")
    named = any(given[fact] is not None for fact in facts)
    return named or bool(given["column"] or given["attribute"] or given["token_only"])


def access_of(given: Mapping[str, Any], *, http: bool = False, or_http: str = "") -> Access | None:
    """The access that options state.

    None for --token-only, and where an HTTP request stands for it.
    """
    stated = is_stated({**given, "token_only": False})
    if stated + given["token_only"] + http != 1:
        raise click.UsageError(
            f"state --table and --operation, or --tool, or --attribute{or_http}; "
            "or else --token-only"
        )
    if not stated:
        return None
    return Access(
        table=given["table"],
        operation=given["operation"],
        columns=given["column"] or None,
        row=UNSET if given["row"] is None else given["row"],
        becomes=UNSET if given["becomes"] is None else given["becomes"],
        tool=given["tool"],
        arguments=given["arguments"],
        attributes=given["attribute"],
        cost=given.get("cost", {}),  # which nobody can prove: `present` does not state it
    )


def http_of(http: tuple[str, str, str] | None, body: str | None) -> bytes | None:
    """The digest of the HTTP request that options state, or None."""
    if http is None:
        if body is not None:
            raise click.UsageError("--body is that of a request: it goes with --http")
        return None
    content = files.data(body) if body is not None else b""
    try:
        return http_request(*http, content)
    except ValueError:
        raise click.UsageError(
            "--http takes method, origin and target as they travel: in ASCII"
        ) from None
