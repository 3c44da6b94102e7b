"""Groups of commands: listed as one meets them, and loaded when one of them is asked for.

A command line is short-lived: it should not load what thirty other commands need.
"""

from __future__ import annotations

from collections import UserDict
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple

import click

from captoken._format.spelling import shown
from captoken.cli.output import warn

USAGE = 2  # the exit code of what was not understood, or cannot be done

# The variable by which a shell asks how a command line may go on.
COMPLETING = "_CAPTOKEN_COMPLETE"


class Place(NamedTuple):
    """Where a command is that is not loaded yet, and what a list of commands says of it."""

    module: str  # below `captoken.cli`
    summary: str


class _Commands(UserDict[str, Any]):
    """Commands by name. One of which only the place is known is loaded when it is looked up."""

    def __getitem__(self, name: str) -> click.Command:
        found = self.data[name]
        if isinstance(found, Place):
            here = vars(import_module(f"captoken.cli.{found.module}")).values()
            commands = (each for each in here if isinstance(each, click.Command))
            found = self.data[name] = next(each for each in commands if each.name == name)
        command: click.Command = found
        return command

    def summary(self, name: str) -> str:
        """The first sentence of a command's help, whole: what is cut says nothing."""
        found = self.data[name]
        if isinstance(found, Place):
            return found.summary
        text: str = found.get_short_help_str(limit=1000)
        return text


class InOrder(click.Group):
    """Lists its commands in the order in which one meets them, with summaries that are whole."""

    commands: Any  # they load themselves

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.commands = _Commands(self.commands)

    def add_later(self, name: str, module: str, summary: str) -> None:
        """Add a command of a module below `captoken.cli`, and do not load it yet."""
        self.commands.data[name] = Place(module, summary)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """What stands behind the name of the group. Alone, it is a question: which ones are there?

        Answered on standard error, since nothing was done. `help mint` is `mint --help`.
        """
        if args[:1] == ["help"]:
            args = [*args[1:], "--help"]
        if not args and not ctx.resilient_parsing:  # which is a shell that asks how it goes on
            warn(*ctx.get_help().split("\n"))
            ctx.exit(USAGE)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is named. Raises UsageError for none, and says which may be meant."""
        if args[0] not in self.commands and not ctx.resilient_parsing:
            close = get_close_matches(args[0], self.commands, n=1)
            which = f"did you mean {close[0]}? " if close else ""
            all_of_them = f"{which}`{ctx.command_path} --help` lists all"
            raise click.UsageError(f"there is no command {shown(args[0])}: {all_of_them}", ctx)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands of a help, under a title for each section of them."""
        width = max(map(len, self.commands))
        for title, names in self.sections().items():
            with formatter.section(title):
                rows = [(name.ljust(width), self.commands.summary(name)) for name in names]
                formatter.write_dl(rows)

    def sections(self) -> dict[str, list[str]]:
        """The names of the commands, under the titles that a help has for them."""
        return {"Commands": list(self.commands)}
