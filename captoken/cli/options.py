"""The options that commands share: of caveats, one row a keyword, and of what is attempted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from typing import Any, TypeVar

import click
from msgspec import UNSET

from captoken._format.clocks import Clock, read_clock
from captoken._language.access import Access
from captoken._language.caveats import MARKING
from captoken._language.overlay import Overlay
from captoken._writing.keywords import OF_THE_TOKEN, LinkCaveats, MintCaveats, PresentCaveats
from captoken.cli import files
from captoken.cli.values import (
    ASKING,
    COUNT,
    DURATION,
    FACT,
    FILE,
    LISTS,
    MARKS,
    MOMENT,
    NOW,
    OBJECT,
    OPERATION,
    PUBLIC,
    ROWS,
    RULE,
    TABLE,
    TOOLS,
    WHERE,
)
from captoken.proof import http_request

Command = TypeVar("Command", bound=Callable[..., Any])


def merged(
    ctx: click.Context, param: click.Parameter, given: tuple[dict[str, Any], ...]
) -> dict[str, Any]:
    """One map of all that was given.

    The lists of a key add up, and nothing else may be said twice.
    """
    made: dict[str, Any] = {}
    pairs = [pair for part in given for pair in part.items()]
    for key, value in pairs:
        if key not in made:
            made[key] = value
        elif isinstance(value, list):
            made[key] = made[key] + value
        else:
            raise click.BadParameter(f"{key!r} is given twice", ctx, param)
    return made


def _facts(
    ctx: click.Context, param: click.Parameter, given: tuple[tuple[str, Any], ...]
) -> dict[str, Any]:
    """One map of `key=value` pairs, none of which is said twice."""
    made = dict(given)
    if len(made) != len(given):
        raise click.BadParameter("a name is given twice", ctx, param)
    return made


def clock(now: int | None) -> Clock:
    """The clock of a command: the time of `--now`, or that of the machine."""
    return time.time if now is None else lambda: now


def seconds(now: int | None) -> int:
    """The same in seconds since the epoch."""
    return read_clock(clock(now))


def stacked(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several decorators as one, listed in the order of the help."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def facts_option(flag: str, *, help: str) -> Callable[[Command], Command]:
    """An option of facts, `key=value`."""
    return click.option(
        flag,
        type=FACT,
        multiple=True,
        callback=_facts,
        help=help,
    )


keyring_option = click.option(
    "--keyring",
    type=FILE,
    metavar="FILE",
    envvar="CAPTOKEN_KEYRING_FILE",
    show_envvar=True,
    help="The file of root keys.",
)
token_option = click.option(
    "--token-file",
    type=FILE,
    metavar="FILE",
    default="-",
    help="Read the token from FILE instead of standard input.",
)
now_option = click.option(
    "--now",
    type=NOW,
    help="Use this as the present time (RFC 3339, or seconds), for tests.",
)
json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Write JSON, for programs.",
)


# --- caveats --------------------------------------------------------------------------------------

# For each keyword of a caveat the option that states it. A command has those of its keywords, in
# this order: a new caveat is one row here.
_CAVEATS: dict[str, Callable[..., Any]] = {
    "tables": click.option(
        "--tables",
        type=TABLE,
        metavar="PATTERN",
        multiple=True,
        help="A table, 'market.*' or '*'. Repeatable.",
    ),
    "operations": click.option(
        "--operations",
        type=OPERATION,
        metavar="NAME",
        multiple=True,
        help="An operation, or '*'. Repeatable.",
    ),
    "allow": click.option(
        "--allow",
        type=LISTS,
        multiple=True,
        callback=merged,
        metavar="PATTERN=OP,OP",
        help="Operations for a table: 'sales=select,insert'; 'hr=' is none. Repeatable.",
    ),
    "columns": click.option(
        "--columns",
        type=LISTS,
        multiple=True,
        callback=merged,
        metavar="PATTERN=COL,COL",
        help="Columns for a table: 'people=name,city'. Repeatable.",
    ),
    "rows": click.option(
        "--rows",
        type=ROWS,
        multiple=True,
        callback=merged,
        metavar="PATTERN[=JSON]",
        help="Rows of a table, by column: "
        """'orders={"tenant":{"in":["acme"]}}'; 'countries' is any row. Repeatable.""",
    ),
    "tools": click.option(
        "--tools",
        type=TOOLS,
        multiple=True,
        callback=merged,
        metavar="PATTERN[=JSON]",
        help="A tool, with any arguments, or with constraints: "
        """'search={"q":{"any":true},"limit":{"max":10}}'. Repeatable.""",
    ),
    "where": click.option(
        "--where",
        type=WHERE,
        multiple=True,
        callback=merged,
        metavar="ATTRIBUTE=JSON",
        help="""What an attribute must satisfy: 'region={"in":["eu"]}'. Repeatable.""",
    ),
    "not_before": click.option(
        "--not-before",
        type=MOMENT,
        metavar="TIME",
        help="RFC 3339, or seconds since the epoch.",
    ),
    "fresh": click.option(
        "--fresh",
        type=DURATION,
        metavar="TIME",
        help="Only if the server's overlay is no older than this.",
    ),
    "depth": click.option(
        "--depth",
        type=COUNT,
        metavar="N",
        help="At most N more delegations.",
    ),
    "delegate_only": click.option(
        "--delegate-only",
        is_flag=True,
        help="Only for handing over, not for use.",
    ),
    "uses": click.option(
        "--uses",
        type=COUNT,
        metavar="N",
        help="At most N accesses, including those of sub-agents.",
    ),
    "budget": facts_option(
        "--budget",
        help="At most this amount of a unit, including what sub-agents use: 'usd_cents=100'. "
        "Repeatable.",
    ),
    "marks": click.option(
        "--marks",
        type=MARKS,
        multiple=True,
        callback=merged,
        metavar="NAME=JSON",
        help="A mark, and what sets it: 'private={\"tables\":[\"crm.*\"]}'. Repeatable.",
    ),
    "forbid": click.option(
        "--forbid",
        type=RULE,
        multiple=True,
        metavar="MARK=MARK,MARK",
        help="What is in the first mark is denied once all others are set: "
        "'outside=private,untrusted'. Repeatable.",
    ),
    "consent": click.option(
        "--consent",
        type=ASKING,
        multiple=True,
        metavar="KEY=JSON",
        help="Calls that need the consent of this key, each one: "
        "'KEY={\"tools\":[\"mail.send\"]}'. Repeatable.",
    ),
    "expires_in": click.option(
        "--expires-in",
        type=DURATION,
        metavar="TIME",
        help="Valid for at most this long: 90s, 10m, 2h, 1d.",
    ),
    "expires_at": click.option(
        "--expires-at",
        type=MOMENT,
        metavar="TIME",
        help="RFC 3339, or seconds since the epoch.",
    ),
    "audience": click.option(
        "--audience",
        metavar="NAME",
        multiple=True,
        help="Only valid at this server. Repeatable.",
    ),
    "task": click.option(
        "--task",
        metavar="PATH",
        help="Only for this task: the token's own, or one below it.",
    ),
}


def _options_of(keywords: Iterable[str]) -> Callable[[Command], Command]:
    """The options for these keywords."""
    wanted = frozenset(keywords)
    return stacked(*(option for keyword, option in _CAVEATS.items() if keyword in wanted))


# What each method of the library that writes a link takes as keywords.
mint_options = _options_of(MintCaveats.__annotations__)
link_options = _options_of(LinkCaveats.__annotations__)
present_options = _options_of(PresentCaveats.__annotations__)
# What a discharge can say: nothing of the token itself. An operator's entry has marks of its own.
request_options = _options_of(LinkCaveats.__annotations__.keys() - OF_THE_TOKEN)
entry_options = _options_of(LinkCaveats.__annotations__.keys() - (OF_THE_TOKEN - MARKING))
# The same without an expiry, for who has an own one.
timeless_options = _options_of(
    LinkCaveats.__annotations__.keys() - OF_THE_TOKEN - {"expires_in", "expires_at"}
)
# What a service can be asked for, which says itself which task it is, and for which server.
asking_options = _options_of(LinkCaveats.__annotations__.keys() - {"task", "audience"})

keep_option = click.option(
    "--keep",
    type=click.Choice(["tables", "tools"]),
    multiple=True,
    help="Keep the rights on tables (or tools) when you restrict only tools (or tables).",
)
clamp_option = click.option(
    "--clamp",
    is_flag=True,
    help="If you ask for more than the token allows, take what it allows.",
)


def caveats(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that options ask for: those that were given."""
    return {key: value for key, value in given.items() if _is_given(value)}


def _is_given(value: Any) -> bool:
    return value is not None and value is not False and value != () and value != {}


# --- what is attempted ----------------------------------------------------------------------------

# Alike for whoever proves it, and for whoever verifies it.
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


overlay_options = stacked(
    click.option(
        "--overlay",
        type=FILE,
        metavar="FILE.db",
        help="Revocations and restrictions: see `captoken revoke`.",
    ),
    click.option(
        "--operator",
        type=PUBLIC,
        metavar="PUBLIC",
        multiple=True,
        help="The public key of an operator who may sign the overlay. Repeatable.",
    ),
)


def newest_overlay(path: str | None, operators: tuple[str, ...]) -> Overlay | None:
    """The newest snapshot in a store that was named, if one was."""
    if (path is None) != (not operators):
        raise click.UsageError(
            "--overlay goes with --operator, the public key of who signs it: "
            "nobody is trusted by default"
        )
    if path is None:
        return None
    from captoken.stores.sqlite import SQLiteSnapshots  # here, since it needs sqlite3

    files.must_be_there(path, "captoken operate --create")
    with files.about(path):
        with closing(SQLiteSnapshots(path, readonly=True)) as store:
            data = store.load()
        if data is None:
            raise click.UsageError(f"{path} holds no snapshot yet")
        return Overlay.open(data, operators)


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
