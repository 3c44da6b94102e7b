"""`captoken try`, one accident in a minute, and `captoken demo`, six agents and one database."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import click
import msgspec

from captoken.cli import output
from captoken.cli.console.command import must_have_server
from captoken.cli.options import json_option

if TYPE_CHECKING:
    from captoken.cli.demo.data import Call, Cast, Report
    from captoken.cli.demo.picture import Picture
    from captoken.cli.demo.world import World

_NARROWEST, _WIDEST = 76, 100  # columns that the picture is made for
_PACE = 1.5  # seconds of a step beside the console
_TO_READ = 2.5  # seconds for a part of the accident, where a terminal is recorded


@click.command("try", short_help="Watch one accident, with an API key and with captoken.")
@click.option(
    "--auto",
    is_flag=True,
    help="Do not wait for keypresses, as in pipes. For recordings.",
)
@click.option("--no-color", is_flag=True, help="No colour, as with NO_COLOR.")
@json_option
def accident(auto: bool, no_color: bool, as_json: bool) -> int:
    """A filing tells an agent to mail salaries to a stranger. Four parts, each at a keypress.

    On the left the agent holds an API key, on the right a token. The model is a script, the same on
    both sides. The database, the token and the denials are real. No mail is sent.

    Exit 0 if captoken allowed the work and denied the rest.
    """
    from captoken.cli.demo.accident import draw, play  # here, since it needs sqlite3 and rich

    beats = list(play())
    if as_json:
        output.say_json({"beats": msgspec.to_builtins(beats)})
    else:
        is_watched = sys.stdin.isatty() and sys.stdout.isatty()
        draw(beats, color=not no_color, rest=_rest_between(auto, is_watched))
    _, work, what_must_not, _ = beats
    came_out = [row.denied for row in (*work.rows, *what_must_not.rows)]
    return 0 if came_out == [False, False, True, True] else 1


def _rest_between(auto: bool, is_watched: bool) -> Callable[[], None]:
    """What is waited for between two parts: a key, some time, or nothing."""
    if not is_watched:
        return lambda: None
    return (lambda: time.sleep(_TO_READ)) if auto else _wait_for_key


def _wait_for_key() -> None:
    output.warn("", "press any key to go on, Ctrl-C to end")
    click.getchar()


@click.command(short_help="Watch six agents at work, and see what they are denied.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="N",
    help="Use N as the seed, for the same story each time.",
)
@click.option("--brief", is_flag=True, help="Show one page: each agent, and each kind of denial.")
@click.option("--fast", is_flag=True, help="Do not pause for readers at a terminal.")
@click.option(
    "--no-color",
    is_flag=True,
    help="No colour, as with NO_COLOR.",
)
@click.option(
    "--console",
    "beside",
    is_flag=True,
    help="Run the story next to the console, in a browser.",
)
@click.option(
    "--pace",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Seconds for each step next to the console. The default is 1.5.",
)
@click.option("--open/--no-open", "opens", default=True, help="Whether to open a browser.")
@json_option
def demo(
    seed: int | None,
    brief: bool,
    fast: bool,
    no_color: bool,
    beside: bool,
    pace: float | None,
    opens: bool,
    as_json: bool,
) -> int:
    """Six agents write a risk report on a SQLite database, each with what it needs and no more.

    Tokens, verifiers and the database are real, so the library itself denies what is denied. Only
    the time is simulated. At a terminal the story pauses a tenth of a second between steps. Exit 0
    if everything came out as expected.

    With --console it first prints the address of a console, and starts when you open that. You are
    the operator: agents notice at their next step what you restrict or end there. It runs until
    Ctrl-C, and then exits with 0.
    """
    if not beside and (pace is not None or not opens):
        raise click.UsageError("--pace and --no-open go with --console")
    if beside and (as_json or fast):
        raise click.UsageError("--console goes without --json and --fast")
    if beside:
        must_have_server("demo --console")
        return _beside(seed, brief, no_color, _PACE if pace is None else pace, opens)

    # Here, since it needs sqlite3, and hardly any other command does.
    from captoken.cli.demo.story import play

    if as_json:
        story = play(seed)
        output.say_json(msgspec.to_builtins(story))
    else:
        read_along = sys.stdout.isatty() and not fast
        picture = _picture(brief, no_color, time.sleep if read_along else _no_rest)
        picture.begin()
        story = play(seed, picture.see)
        picture.end(story)
    return 0 if all(call.allowed == call.expected for call in story.calls) else 1


def _picture(brief: bool, no_color: bool, rest: Callable[[float], None]) -> Picture:
    """The story on a terminal."""
    from captoken.cli.demo.picture import Picture  # here, since it needs rich

    width = max(_NARROWEST, min(_WIDEST, output.columns()))
    return Picture(output.console(color=not no_color, width=width), brief=brief, rest=rest)


def _beside(seed: int | None, brief: bool, no_color: bool, pace: float, opens: bool) -> int:
    """The story on a terminal and in the console at once, until a signal."""
    from captoken.cli.demo.beside import Beside, Ended
    from captoken.cli.demo.story import play

    with Beside(pace, opens=opens) as beside:
        picture = _picture(brief, no_color, _no_rest)

        def begin(world: World) -> None:
            beside.begin(world)
            picture.begin()

        def see(piece: Cast | Call | Report) -> None:
            picture.see(piece)
            beside.see(piece)

        with suppress(Ended):
            picture.end(play(seed, see, begin))
            beside.stay()
    return 0


def _no_rest(seconds: float) -> None:
    """Nobody reads along."""
