"""What went wrong, in one line: what it is about, as it was typed, and what to write instead.

    mint: --subject NAME is missing. For whom: 'user:jane'. `captoken mint --help` has an example
    keyring.json is not there: `captoken keygen keyring --out FILE` makes one
    widening: --tables asks for more than the token holds: …

The library's own messages speak of its keywords. Here they have the names of options. What is
secret in a message, and what a stranger wrote, `tell` sees to.
"""

from __future__ import annotations

import json
import re

import click

from captoken._format.errors import WideningError
from captoken._format.spelling import shown, spelled_time
from captoken.cli.values import SPELLED

# What the library says, and what it is called here. In this order.
_SENTENCES = (
    (
        "name the tables with operations, or allow, or the tools; or write unrestricted=True",
        "say what it may do: --tables with --operations, or --allow, or --tools; "
        "or else --unrestricted",
    ),
    ("tables alone is not enough", "--tables alone is not enough"),
    ("operations alone is not enough", "--operations alone is not enough"),
    (
        "name tables with operations, or allow",
        "name --tables with --operations, or --allow",
    ),
    (
        "an entry must select something: token, link, task, agent, subject, kid or issued_before",
        "say which tokens: by --token, --link, --task, --agent, --subject, --kid or "
        "--issued-before; revoke takes --all",
    ),
    (
        "nothing is restricted: name tables, tools, a time or another caveat",
        "say what to restrict: by --tables, --expires-in or another option",
    ),
    ("already exists: open it, or", "already exists: leave out --create, or"),
    ("table and operation go together", "--table and --operation go together"),
    ("name one with overlay=", "name one with --overlay"),
    ("why is empty: give", "--why is empty: give"),
    ("resume is empty: write why you resume", "--why is empty: write why you resume"),
    (
        "until is in the past: pass a later time, in seconds since the epoch",
        "--until is in the past",
    ),
    ("is it the newest?", "is it the newest? If so, `captoken operate resume` goes on from it"),
    (
        "signer needs the key that the token is handed to: pass key as well",
        "--signer goes with --key, the key that the token is handed to",
    ),
    ("so pass it as signer", "so pass it as --signer"),
    ("leave signer out", "leave --signer out"),
    (
        "servers=[...] or only={...} says where keywords go",
        "--server says where the options hold",
    ),
    ("name one server, by servers=[...] or only={...}", "name one, by --server"),
    ("unrestricted=True", "--unrestricted"),
    ("clamp=True", "--clamp"),
    ('go on by resume="…", which says it', "go on by `captoken operate resume --why TEXT`"),
)

# The options of caveats whose keys are not called as they are.
_OPTIONS = {
    "exp": "--expires-at",
    "nbf": "--not-before",
    "aud": "--audience",
}

# Keywords that are no words of the language: wherever they stand, the option is meant.
_keywords = re.compile(r"\b(expires_in|expires_at|not_before|delegate_only|issued_before)\b=?").sub

_unexpected = re.compile(r"Got unexpected extra arguments? \((.*)\)", re.DOTALL).fullmatch


def problem(error: Exception) -> str:
    """What went wrong, in one line, with what to do about it where that is known."""
    if isinstance(error, click.UsageError):
        return _of_usage(error)
    if isinstance(error, WideningError):
        return _as_options(_widening(error))
    if isinstance(error, OSError):
        return f"{error.filename or 'input or output'}: {error.strerror or error}"
    return _as_options(str(error))


# --- the command line itself ----------------------------------------------------------------------


def _of_usage(error: click.UsageError) -> str:
    """What is wrong with the arguments, behind the name of the command that got them."""
    message = error.format_message()
    if isinstance(error, click.BadOptionUsage) and "requires an argument" in message:
        message = f"{error.option_name} is without its value"
    if error.ctx is None:
        return message

    command = error.ctx.command_path
    path = command.removeprefix("captoken").strip()
    unexpected = _unexpected(message)
    if isinstance(error, click.MissingParameter) and error.param is not None:
        message = _missing(error.param, error.ctx, command)
    elif isinstance(error, click.BadParameter) and error.param is not None:
        message = f"{_named(error.param, error.ctx)}: {error.message}"
        if error.param.type in SPELLED and isinstance(error.param, click.Option):
            message += f". {_meaning(error.param)}"
    elif isinstance(error, click.NoSuchOption):
        close = [f"did you mean {name}?" for name in (error.possibilities or ())[:1]]
        which = " ".join([*close, f"`{command} --help` lists all"])
        message = f"there is no option {shown(error.option_name)}: {which}"
    elif unexpected is not None:
        message = f"unexpected: {unexpected[1]}; {_instead(error.ctx, command)}"
    return f"{path}: {message}" if path else message


def _missing(parameter: click.Parameter, ctx: click.Context, command: str) -> str:
    """That something has to be said, what it means, and where it is shown."""
    name = _named(parameter, ctx)
    meaning = ""
    if isinstance(parameter, click.Option):
        name = f"{name} {parameter.make_metavar(ctx)}"
        meaning = f" {_meaning(parameter)}"
    return f"{name} is missing.{meaning} `{command} --help` has an example"


def _meaning(option: click.Option) -> str:
    """What an option says, with an example where it has a spelling of its own."""
    return (option.help or "").removesuffix(" Repeatable.")


def _named(parameter: click.Parameter, ctx: click.Context) -> str:
    """An option as it is typed, and an argument as the help calls it."""
    if isinstance(parameter, click.Option):
        return parameter.opts[0]
    return parameter.make_metavar(ctx).strip("[]")


def _instead(ctx: click.Context, command: str) -> str:
    """What to do with an argument that is none. Mostly it is the name of a file."""
    options = {option for one in ctx.command.params for option in one.opts}
    for option, what in (("--token-file", "token"), ("--ticket-file", "ticket")):
        if option in options:
            return f"a {what} is read from standard input, or with {option} FILE"
    return f"`{command} --help` has an example"


# --- the library ----------------------------------------------------------------------------------


# Which command makes a store that is not there, by the class that the library names.
_MAKES = {
    "SQLiteLedger": "`captoken gateway run --create`, or `captoken keygen keyring --create` with "
    "new keys, makes one",
    "SQLiteReplayStore": "`captoken gateway run --create` makes one",
    "SQLiteSnapshots": "`captoken operate --create` makes one",
    "SQLiteRegistry": "`captoken issue serve --create` makes one",
}
_made = re.compile(r"create makes one, as (\w+)\.create\(path\)").sub


def in_commands(text: str) -> str:
    """A message of the library, whose advice is a command where there is one for it."""
    return _made(lambda found: _MAKES.get(found[1], found[0]), text)


def _as_options(text: str) -> str:
    """A message of the library with the names that its keywords have here."""
    text = in_commands(text)
    for said, here in _SENTENCES:
        text = text.replace(said, here)
    return _keywords(lambda found: f"--{found[1].replace('_', '-')}", text)


def _widening(error: WideningError) -> str:
    """What is asked for and what is held, in JSON instead of Python."""
    spelled = spelled_time if error.dimension in ("exp", "nbf") else json.dumps
    option = _OPTIONS.get(error.dimension, f"--{error.dimension.replace('_', '-')}")
    asked = spelled(error.asked)
    held = spelled(error.held)
    more = f"{error.code}: {option} asks for more than the token holds"
    return f"{more}: asked for {asked}, held is {held}; {error.hint}"
