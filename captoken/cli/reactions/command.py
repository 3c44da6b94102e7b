"""`captoken react`: rules that act when the behaviour of agents changes.

    react run → follows the trails every 0.2s → SIGINT or SIGTERM → exit 0
    react run --replay → what would have been done → exit 0
    react check → what the rules are, or where they are wrong
    react level → how dangerous it is, for rules that ask
    react listen → other programs set that, by signed messages → SIGINT or SIGTERM → exit 0
"""

from __future__ import annotations

import glob
import os
import time as clocks
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from typing import Final

import click

from captoken._format import names
from captoken._format.encoding import own_words
from captoken._format.spelling import escape, readable_time, span
from captoken.cli import files, serving, words
from captoken.cli.console.command import listen as listen_at
from captoken.cli.console.command import must_have_server, server_of
from captoken.cli.groups import InOrder
from captoken.cli.operate import MAKES_STORE, operating
from captoken.cli.options import json_option, now_option, seconds
from captoken.cli.output import say, say_json, tell
from captoken.cli.reactions.acting import Acting, line_of
from captoken.cli.reactions.alerts import Alerts, problem_of, secret_of, stated
from captoken.cli.reactions.replaying import Replayed, replay
from captoken.cli.reactions.rules import Rule
from captoken.cli.reactions.stated import Rules, read
from captoken.cli.reactions.watching import ACTS, Cause, Reactor, alone, levels, set_level
from captoken.cli.renewing import until_ended
from captoken.cli.values import FILE
from captoken.control.operator import Operator
from captoken.stores.levels import LEVELS

_EVERY: Final = 0.2  # seconds between two looks at the trails
_TIDY: Final = 60.0  # seconds between two looks at what is wrong with trails, and what is old


@click.group(cls=InOrder)
def react() -> None:
    """Act by rules when the behaviour of agents changes.

    Rules count what servers record. They revoke or restrict tokens as an operator does.
    """


_file = click.argument("path", type=FILE, metavar="RULES.toml")
_state_option = click.option(
    "--state",
    type=FILE,
    metavar="FILE.db",
    help="Where it keeps what it has read and done, for the next start.",
)


@react.command()
@_file
@click.option(
    "--trail",
    "trails",
    type=FILE,
    metavar="FILE",
    multiple=True,
    required=True,
    help="A server's trail, a folder of trails, or a pattern in quotes. Repeatable.",
)
@click.option("--key", type=FILE, metavar="FILE", help="The operator's key.")
@click.option("--store", type=FILE, metavar="FILE.db", help="The SQLite file of the overlay.")
@_state_option
@click.option("--replay", "replays", is_flag=True, help="Only say what would have been done.")
@json_option
def run(
    path: str,
    trails: tuple[str, ...],
    key: str | None,
    store: str | None,
    state: str | None,
    replays: bool,
    as_json: bool,
) -> None:
    """Follow trails, and act by rules, until Ctrl-C or SIGTERM.

    \b
    captoken react run rules.toml --trail trails/ --replay
    captoken react run rules.toml --trail trails/ \\
        --key operator.json --store overlay.db --state react.db

    Begin with --replay: it says what the rules would have done to whom, and does nothing. Without
    it, each act is an entry of the overlay, by react: and the name of the rule. `captoken lift`
    undoes it. A record has an effect once, also if the command is killed and started again.

    Run `captoken operate` beside it, which keeps the overlay fresh.
    """
    rules = _read(path)
    for trail in trails:
        if not os.path.lexists(trail) and not glob.has_magic(trail):
            raise click.UsageError(f"{trail} is not there: the server that keeps it makes it")
    if replays:
        if key or store or state:
            raise click.UsageError("--replay does nothing: leave out --key, --store and --state")
        return _say_replay(rules, trails, as_json)
    if not key or not store or not state:
        raise click.UsageError("acting needs --key, --store and --state; or begin with --replay")
    files.must_be_there(store, MAKES_STORE)
    with opened(key, store) as operator:  # what is wrong at first is wrong, and is not tried again
        operator.entries()
    _follow(rules, trails, key, store, state, as_json)


def opened(key: str, store: str) -> AbstractContextManager[Operator]:
    """The operator, whose key is read anew."""
    return operating(key, store, None, by="react")


def _follow(
    rules: Rules, trails: tuple[str, ...], key: str, store: str, state: str, as_json: bool
) -> None:
    """Follow the trails, until a signal."""
    with ExitStack() as stack:
        with files.about(state):
            stack.enter_context(alone(state))
            reactor = Reactor(state, trails, rules, clocks.time, lambda: acting.do_all())
        stack.enter_context(closing(reactor))
        wait = stack.enter_context(until_ended())
        said = say_one_json if as_json else say
        acting = Acting(reactor, lambda: opened(key, store), said, tell)
        alerts = Alerts(reactor, tell)
        tell(f"{words.counted(len(rules.rules), 'rule', 'rules')} at work: Ctrl-C ends that")
        tidied = float("-inf")
        try:
            acting.do_all()  # what was due when it was stopped
            while True:
                reactor.take()
                if clocks.monotonic() - tidied >= _TIDY:
                    reactor.drop_old()
                    tidied = clocks.monotonic()
                reactor.look_after()
                alerts.look()
                if wait(_EVERY):
                    break
        finally:
            alerts.close()


def say_one_json(line: str) -> None:
    """A line of a log, for machines."""
    say_json({"said": line}, indent=None)


def _read(path: str) -> Rules:
    """The rules in a file. Raises ClickException, with the line."""
    try:
        return read(path)
    except ValueError as error:
        raise click.ClickException(own_words(error)) from None
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None


# --- replay ---------------------------------------------------------------------------------------


def _say_replay(rules: Rules, trails: tuple[str, ...], as_json: bool) -> None:
    found = replay(rules, trails)
    if as_json:
        causes = [
            {**stated(one.cause, "replayed"), "later": one.later, "others": _others(one)}
            for one in found.causes
        ]
        say_json({"decisions": found.decisions, "causes": causes, "troubles": found.troubles})
        return
    decisions = words.counted(found.decisions, "decision", "decisions")
    say(f"{decisions}, and the rules would have acted {_times(found.causes)}")
    for one in found.causes:
        say("", *_lines(one))
    for trouble in found.troubles:
        tell(trouble)


def _times(causes: list[Replayed]) -> str:
    acts = sum(one.cause.does in ACTS for one in causes)
    told = len(causes) - acts
    times = words.counted(acts, "time", "times")
    return times if not told else f"{times}, and told somebody {told}"


def _others(one: Replayed) -> list[str]:
    """Agents that it hits, and that did not cause it."""
    return sorted(name for name in one.later if name != one.cause.agent)


def _lines(one: Replayed) -> Iterator[str]:
    """A cause for people: what, to whom, when, and who else."""
    cause = one.cause
    yield f"{readable_time(cause.at)}  {escape(line_of(cause))}"
    if cause.does not in ACTS:
        return
    for name, calls in sorted(one.later.items()):
        who = "" if name == cause.agent else ", which did not cause it"
        yield f"  on {words.counted(calls, 'later call', 'later calls')} of {escape(name)}{who}"
    if not one.later:
        yield "  on no later call"


# --- check and level ------------------------------------------------------------------------------


@react.command()
@_file
@click.option("--send", is_flag=True, help="Also send a test alert to each receiver.")
@json_option
def check(path: str, send: bool, as_json: bool) -> int:
    """Check a file of rules, and say what they do. Exit 1 if a test alert fails.

    An error names the line.

    \b
    captoken react check rules.toml --send
    """
    rules = _read(path)
    sent = _test_alerts(rules) if send else {}
    failed = 1 if any(sent.values()) else 0
    if as_json:
        names = [rule.name for rule in rules.rules]
        say_json({"rules": names, "most": rules.most, **({"alerts": sent} if send else {})})
        return failed
    for rule in rules.rules:
        say(in_words(rule))
    say(f"At most {rules.most} acts an hour. Then they only tell somebody.")
    for name, problem in sent.items():
        say(f"alert {name}: {'sent' if problem is None else escape(problem)}")
    return failed


def _test_alerts(rules: Rules) -> dict[str, str | None]:
    """Why each receiver could not be told of a test; None for one that was."""
    now = int(clocks.time())
    cause = Cause(id="test", rule="test", does="alert", why="a test", at=now, trail="")
    return {name: problem_of(told, cause, "found", now) for name, told in rules.told.items()}


def in_words(rule: Rule) -> str:
    """A rule in a sentence."""
    what = f"{rule.usual} times what is usual" if rule.usual else f"{rule.count}"
    whom = {"link": "the hand-over", "agent": "the agent in its task"}.get(rule.by, rule.by)
    does = {"narrow": f"narrows the {rule.by} to {', '.join(rule.caveats)}"}.get(
        rule.then, f"{rule.then}s".replace("alerts", "only tells somebody")
    )
    lasts = " until lifted" if rule.lasts is None else f" for {span(rule.lasts)}"
    lasts = lasts if rule.acts else ""
    return f"{rule.name}: {what} within {span(rule.within)}, by {whom}: {does}{lasts}. {rule.why}"


@react.command()
@click.argument("level", required=False, type=click.Choice(LEVELS), metavar="[low|medium|high]")
@_state_option
@click.option("--task", metavar="PATH", default="", help="For this task alone, and those below it.")
@click.option("--why", metavar="TEXT", help="The reason, for the record.")
@now_option
@json_option
def level(
    level: str | None,
    state: str | None,
    task: str,
    why: str | None,
    now: int | None,
    as_json: bool,
) -> None:
    """Set how dangerous it is, for rules with a level; or show it.

    \b
    captoken react level high --state react.db --why "a leak is reported"
    captoken react level --state react.db
    """
    if state is None:
        raise click.UsageError("name the file of the reactions: --state react.db")
    if task:
        names.task(task)
    if (level is None) != (why is None):
        raise click.UsageError("a level and --why go together")
    with files.about(state):
        if level is not None and why is not None:
            set_level(state, task, level, why, seconds(now))
        found = levels(state)
    if as_json:
        say_json({"levels": [one._asdict() for one in found]})
        return
    for one in found:
        of = f"task {one.task}" if one.task else "all tasks"
        say(f"{one.level} for {of} since {readable_time(one.at)}: {escape(one.why)}")
    if not found:
        say("low for all tasks")



@react.command()
@_state_option
@click.option(
    "--secret",
    metavar="SECRET",
    required=True,
    help="What messages are signed with: env:NAME or file:PATH.",
)
@click.option("--port", default=8701, show_default=True, metavar="NUMBER", type=int)
@json_option
def listen(state: str | None, secret: str, port: int, as_json: bool) -> None:
    """Let other programs set how dangerous it is, by signed messages.

    \b
    captoken react listen --state react.db --secret file:level.secret

    A message is a POST, with a JSON object of level, why, and perhaps task. It is signed as the
    alerts of `react run` are, works for 300 seconds, and once. It listens on this machine alone:
    put a proxy with TLS in front of it. Needs uvicorn.
    """
    if state is None:
        raise click.UsageError("name the file of the reactions: --state react.db")
    must_have_server("react listen")
    from captoken.cli.reactions.listening import Listening  # which needs asyncio

    try:
        secret_of(secret, Path())
    except OSError as error:
        raise click.ClickException(f"{secret}: {error.strerror}") from None
    except ValueError as error:
        raise click.ClickException(own_words(error)) from None
    with files.about(state):
        levels(state)  # what is wrong with the file is told now

    def said(task: str, level: str, why: str) -> None:
        of = f"task {task}" if task else "all tasks"
        (say_one_json if as_json else say)(f"{level} for {of}: {escape(why)}")

    app = Listening(state, lambda: secret_of(secret, Path()), said, clocks.time)
    listening, address = listen_at(port)
    tell(f"levels are set at http://{address}: Ctrl-C ends that")
    serving.run(server_of(app), [listening])
