"""Parameter types and the options that commands share."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from captoken._format.clocks import Clock, read_clock
from captoken._format.public_keys import public_bytes

Command = TypeVar("Command", bound=Callable[..., Any])

_durations = re.compile(r"(\d{1,12})([smhd])").findall
_is_duration = re.compile(r"(?:\d{1,12}[smhd])+", re.ASCII).fullmatch
_is_id = re.compile(r"[A-Za-z0-9_-]{22}").fullmatch
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LAST_SECOND = 253402300799  # of the year 9999


def strict_json(text: str) -> Any:
    """The value of a JSON text without duplicate keys. Raises ValueError."""

    def paired(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a key stands twice in one object")
        return made

    try:
        return json.loads(text, object_pairs_hook=paired)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # generic from click 8.4 on


class _Type(_ParamType):
    """A parameter type made of a function that raises ValueError."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name, self._read = name, read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _duration(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 12:
        return int(text)
    if _is_duration(text) is None:
        raise ValueError(f"{text!r} is no duration: 90s, 10m, 2h, 1d, 1h30m, or seconds")
    return sum(int(count) * _SECONDS[unit] for count, unit in _durations(text))


def _moment(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 15:
        return int(text)
    try:
        stated = datetime.fromisoformat(text)
    except ValueError:
        stated = None
    if stated is None or stated.utcoffset() is None:
        raise ValueError(
            f"{text!r} is no time: 2030-01-31T12:00:00Z, with a zone, or seconds since the epoch"
        )
    return int(stated.timestamp() // 1)


def _now(text: str) -> int:
    seconds = _moment(text)
    if not 0 <= seconds <= _LAST_SECOND:
        raise ValueError("between 1970 and 9999")
    return seconds


def _object(text: str) -> dict[str, Any]:
    value: Any = strict_json(text)
    if type(value) is not dict:
        raise ValueError("a JSON object is meant")
    return cast("dict[str, Any]", value)


def _lists(text: str) -> dict[str, list[str]]:
    """`sales=select,insert`, or a JSON object of lists."""
    if text.startswith("{"):
        value = _object(text)
        if not all(isinstance(listed, list) for listed in value.values()):
            raise ValueError("a JSON object of lists is meant")
        return value
    key, equals, listed = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} has no '='")
    return {key: [item for item in listed.split(",") if item]}


def _objects(text: str) -> dict[str, dict[str, Any]]:
    """`search={"q":{"any":true}}`, or a JSON object of objects."""
    if text.startswith("{"):
        value = _object(text)
        if not all(isinstance(inner, dict) for inner in value.values()):
            raise ValueError("a JSON object of objects is meant")
        return value
    key, equals, inner = text.partition("=")
    return {key: _object(inner) if equals else {}}


def _where(text: str) -> dict[str, dict[str, Any]]:
    if "=" not in text and not text.startswith("{"):
        raise ValueError(f"{text!r} has no '='")
    return _objects(text)


def _fact(text: str) -> tuple[str, Any]:
    """`region=eu`: the value as JSON, or else as it stands."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} has no '='")
    try:
        return key, strict_json(value)
    except ValueError:
        return key, value


def _public(text: str) -> str:
    """A public key, its form alone. What is none is not repeated: it may be a secret."""
    try:
        public_bytes(text, "a public key")
    except ValueError:
        raise ValueError(
            "a public key is 43 characters of base64url: `captoken keygen --public FILE` shows it"
        ) from None
    return text


def _id(text: str) -> str:
    """The public id of a token or a link. What is none is not repeated: it may be a token."""
    if _is_id(text) is None:
        raise ValueError("an id is 22 characters of base64url, as `captoken inspect` shows it")
    return text


DURATION = _Type("duration", _duration)
MOMENT = _Type("time", _moment)
ID = _Type("id", _id)
NOW = _Type("time", _now)
OBJECT = _Type("json", _object)
LISTS = _Type("key=a,b", _lists)
OBJECTS = _Type("tool=json", _objects)
WHERE = _Type("attribute=json", _where)
FACT = _Type("key=value", _fact)
PUBLIC = _Type("public key", _public)


def merged(
    ctx: click.Context, param: click.Parameter, given: tuple[dict[str, Any], ...]
) -> dict[str, Any]:
    """One map of all that was given; the lists of a key add up, and nothing else may be said twice."""
    made: dict[str, Any] = {}
    for key, value in (pair for part in given for pair in part.items()):
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
    made = dict(given)
    if len(made) != len(given):
        raise click.BadParameter("a name is given twice", ctx, param)
    return made


def clock(now: int | None) -> Clock:
    """The clock of a command: the time of `--now`, or that of the machine."""
    return time.time if now is None else lambda: now


def seconds(now: int | None) -> int:
    return read_clock(clock(now))


def stacked(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several decorators as one, listed in the order of the help."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def facts_option(flag: str, *, help: str) -> Callable[[Command], Command]:
    return click.option(flag, type=FACT, multiple=True, callback=_facts, help=help)


keyring_option = click.option(
    "--keyring",
    metavar="FILE",
    envvar="CAPTOKEN_KEYRING_FILE",
    show_envvar=True,
    help="The file of root keys.",
)
token_option = click.option(
    "--token-file",
    metavar="FILE",
    default="-",
    help="Read the token from FILE instead of standard input.",
)
now_option = click.option(
    "--now",
    type=NOW,
    help="Take this for the present time (RFC 3339, or seconds), for trials and transcripts.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON, for machines.")

restriction_options = stacked(
    click.option("--tables", metavar="PATTERN", multiple=True, help="A table, 'market.*' or '*'. Repeatable."),
    click.option("--operations", metavar="NAME", multiple=True, help="An operation, or '*'. Repeatable."),
    click.option(
        "--allow", type=LISTS, multiple=True, callback=merged, metavar="PATTERN=OP,OP",
        help="Operations for a table: 'sales=select,insert'; 'hr=' is none. Repeatable.",
    ),
    click.option(
        "--columns", type=LISTS, multiple=True, callback=merged, metavar="PATTERN=COL,COL",
        help="Columns for a table: 'people=name,city'. Repeatable.",
    ),
    click.option(
        "--tools", type=OBJECTS, multiple=True, callback=merged, metavar="PATTERN[=JSON]",
        help="""A tool, with any arguments, or with constraints: 'search={"q":{"any":true},"limit":{"max":10}}'. Repeatable.""",
    ),
    click.option(
        "--where", type=WHERE, multiple=True, callback=merged, metavar="ATTRIBUTE=JSON",
        help="""What an attribute must satisfy: 'region={"in":["eu"]}'. Repeatable.""",
    ),
    click.option("--not-before", type=MOMENT, metavar="TIME", help="RFC 3339, or seconds since the epoch."),
    click.option("--fresh", type=click.IntRange(min=0), metavar="SECONDS", help="Only under an overlay no older than that."),
)  # fmt: skip
rights_options = stacked(
    restriction_options,
    click.option(
        "--depth", type=click.IntRange(min=0), metavar="N", help="At most N more delegations."
    ),
    click.option("--delegate-only", is_flag=True, help="For handing on, not for use."),
    click.option(
        "--uses",
        type=click.IntRange(min=0),
        metavar="N",
        help="At most N accesses, with all that is handed on.",
    ),
    facts_option(
        "--budget",
        help="At most so much of a unit, with all that is handed on: 'usd_cents=100'. Repeatable.",
    ),
)
expiry_options = stacked(
    click.option(
        "--expires-in", type=DURATION, metavar="TIME", help="At most so long: 90s, 10m, 2h, 1d."
    ),
    click.option(
        "--expires-at", type=MOMENT, metavar="TIME", help="RFC 3339, or seconds since the epoch."
    ),
)
audience_option = click.option(
    "--audience", metavar="NAME", multiple=True, help="Good at this server alone. Repeatable."
)
keep_option = click.option(
    "--keep", type=click.Choice(["tables", "tools"]), multiple=True,
    help="Keep the tables (or tools) there were, though only tools (or tables) are named.",
)  # fmt: skip
narrowing_options = stacked(
    click.option("--task", metavar="PATH", help="Only in this task, at or below the token's own."),
    keep_option,
    click.option("--clamp", is_flag=True, help="Take what is held of what is asked for, instead of refusing."),
)  # fmt: skip


def caveats(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that options ask for: those that were given."""
    return {key: value for key, value in given.items() if _is_given(value)}


def _is_given(value: Any) -> bool:
    return value is not None and value is not False and value != () and value != {}
