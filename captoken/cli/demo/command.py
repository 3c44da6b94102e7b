"""`captoken demo`: six agents, one database, and what they may not do."""

from __future__ import annotations

import sys
import time

import click
import msgspec

from captoken.cli import output
from captoken.cli.options import json_option

_NARROWEST, _WIDEST = 76, 100  # columns that the picture is made for


@click.command(short_help="Watch six agents at work, and what they are refused.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="N",
    help="Make everything of N: the same story each time.",
)
@click.option("--brief", is_flag=True, help="Show a page of it: each agent, each kind of refusal.")
@click.option("--fast", is_flag=True, help="Do not stop for whoever reads along at a terminal.")
@click.option(
    "--no-color",
    is_flag=True,
    help="No colour. NO_COLOR says the same.",
)
@json_option
def demo(seed: int | None, brief: bool, fast: bool, no_color: bool, as_json: bool) -> int:
    """Six agents write a risk report on a SQLite database, each with what it needs and no more.

    Real tokens, real verifiers, a real database in a temporary file: what is refused is refused by
    the library. Only the time is simulated. It is told as it happens, at a terminal with stops of a
    tenth of a second. Exit 0 if all came out as it should.
    """
    # Here, since it needs sqlite3, and hardly any other command does.
    from captoken.cli.demo.story import play

    if as_json:
        story = play(seed)
        output.say_json(msgspec.to_builtins(story))
    else:
        from captoken.cli.demo.picture import Picture  # here, since it needs rich

        width = max(_NARROWEST, min(_WIDEST, output.columns()))
        console = output.console(color=not no_color, width=width)
        read_along = sys.stdout.isatty() and not fast
        picture = Picture(console, brief=brief, rest=time.sleep if read_along else _no_rest)
        picture.begin()
        story = play(seed, picture.see)
        picture.end(story)
    return 0 if all(call.allowed == call.expected for call in story.calls) else 1


def _no_rest(seconds: float) -> None:
    """Nobody reads along."""
