"""`captoken demo`: six agents, one database, and what they may not do."""

from __future__ import annotations

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
@click.option(
    "--no-color",
    is_flag=True,
    help="No colour. NO_COLOR says the same.",
)
@json_option
def demo(seed: int | None, no_color: bool, as_json: bool) -> int:
    """Six agents write a risk report on a SQLite database, each with what it needs and no more.

    Real tokens, real verifiers, a real database in a temporary file: what is refused is refused by
    the library. Exit 0 if all came out as it should.
    """
    # Here, since it needs sqlite3, and hardly any other command does.
    from captoken.cli.demo.story import play

    story = play(seed)
    if as_json:
        output.say_json(msgspec.to_builtins(story))
    else:
        from captoken.cli.demo.picture import Picture  # here, since it needs rich

        width = max(_NARROWEST, min(_WIDEST, output.columns()))
        Picture(story, output.console(color=not no_color, width=width)).draw()
    return 0 if all(call.allowed == call.expected for call in story.calls) else 1
