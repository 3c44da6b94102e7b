"""The reference of the command line, from the commands themselves: each with all of its options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click
from sources import as_text

from captoken.cli.app import commands

# What click shows as it stands, line by line, begins with this mark.
_AS_IT_STANDS = "\b"


def found(
    command: click.Command = commands, above: str = ""
) -> Iterator[tuple[str, click.Command]]:
    """Each command with the words that call it, groups before what is in them."""
    words = f"{above} {command.name or 'captoken'}".strip() if above else "captoken"
    yield words, command
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            if not inner.hidden:
                yield from found(inner, words)


def page() -> str:
    """All commands, in the order of `captoken --help`."""
    out = [
        "# Commands and options",
        "",
        "Each command with all of its options, as `--help` shows them.",
        "[The command line](../docs/cli.md) says how they work together.",
        "",
    ]
    for words, command in found():
        out += _section(words, command)
    return "\n".join(out)


def _section(words: str, command: click.Command) -> list[str]:
    context = click.Context(command, info_name=words)
    usage = " ".join([words, *command.collect_usage_pieces(context)])
    out = [f"## {words}", "", "```text", usage, "```", "", *_help(command), ""]
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            anchor = f"{words} {name}".replace(" ", "-")
            said = as_text(inner.get_short_help_str(limit=100))
            out += [] if inner.hidden else [f"- [{words} {name}](#{anchor}): {said}"]
        out += [""]
    rows = [_row(parameter, context) for parameter in command.get_params(context)]
    rows = [row for row in rows if row]
    if rows:
        out += ["| option | what |", "| --- | --- |", *rows, ""]
    return out


def _help(command: click.Command) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(command.help or "")):
        if paragraph.startswith(_AS_IT_STANDS):
            yield f"\n```text\n{paragraph.removeprefix(_AS_IT_STANDS).strip(chr(10))}\n```\n"
        else:
            yield f"{as_text(paragraph)}\n"


def _row(parameter: click.Parameter, context: click.Context) -> str:
    """An option, as a row of a table. "" for an argument, which stands in the usage."""
    record = parameter.get_help_record(context)
    if record is None or isinstance(parameter, click.Argument):
        return ""
    option, said = (part.replace("|", "\\|") for part in record)
    return f"| `{option}` | {as_text(said)} |"
