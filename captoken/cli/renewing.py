"""`captoken operate`: what stands is signed anew, again and again, until somebody ends it.

    operate → renewed every 20s → SIGINT or SIGTERM → exit 0, after the renewal that is under way
    SIGHUP  → renewed at once, by the key as its file has it now
    operate resume → signed once, that it goes on from a store that lost something → exit 0

A store that cannot be reached is tried again. Whatever else goes wrong ends the command: a key that
is gone, a store that is missing or went back. Then somebody has to look.
"""

from __future__ import annotations

import select
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeAlias

import click

from captoken._format.errors import StoreError
from captoken._format.spelling import span
from captoken._language.overlay import LIFE, Overlay
from captoken.cli import serving
from captoken.cli.operate import (
    beginning_options,
    by_option,
    key_option,
    operating,
    renewal_data,
    store_option,
    title,
)
from captoken.cli.options import json_option, now_option, seconds
from captoken.cli.output import say, say_json, tell
from captoken.cli.values import DURATION

# Seconds until a store that could not be reached is tried again.
_AGAIN = 2

# Seconds after which verifiers deny, unless they were told otherwise.
_BOUND = 60

_MOST_SIGNALS = 4096  # that come in one wait

# Waits for so many seconds. True, at once and from then on, when a signal has come.
Wait: TypeAlias = Callable[[float], bool]


@click.command()
@click.argument("resume", metavar="[resume]", required=False, type=click.Choice(["resume"]))
@key_option
@store_option
@click.option(
    "--every",
    type=DURATION,
    metavar="TIME",
    default="20s",
    show_default=True,
    help="How often to sign. Must be shorter than any verifier's limit.",
)
@beginning_options
@click.option(
    "--why",
    metavar="TEXT",
    help="With resume: the reason to continue, and what was lost.",
)
@by_option
@now_option
@json_option
def operate(
    resume: str | None,
    key: str,
    store: str,
    every: int,
    trusted: tuple[str, ...],
    create: bool,
    why: str | None,
    by: str,
    now: int | None,
    as_json: bool,
) -> None:
    """Keep the overlay fresh, until Ctrl-C or SIGTERM.

    \b
    captoken operate --key operator.json --store overlay.db --create
    captoken operate --key operator.json --store overlay.db

    The overlay lists an operator's revocations and restrictions. Verifiers deny everything once its
    newest snapshot is older than their limit, a minute by default. This command signs the overlay
    again in time. It stays in the foreground: run it in a terminal or under a service manager. You
    can use the other commands meanwhile. If the store cannot be reached for a while, the command
    tries again. It reads the key again each time. SIGHUP renews at once.

    It refuses a store that has lost data, for example because a backup was restored. Verifiers
    refuse it too. Find out what is lost, because tokens that were revoked since may be allowed
    again. Revoke them again, and then say once that the overlay continues. That is signed under
    your name. It signs one snapshot and ends, so start the command again without `resume`:

    \b
    captoken operate resume --key operator.json --store overlay.db \\
        --by user:jane --why "Monday's backup: nothing was revoked since"

    With --json, it writes one object a line for each snapshot.
    """
    if (resume is None) != (why is None):
        raise click.UsageError("resume and --why go together: `captoken operate resume --why TEXT`")
    if not 1 <= every < LIFE:
        raise click.UsageError(
            f"--every is from 1s to less than {span(LIFE)}, when a snapshot runs out: --every 20s"
        )
    with until_ended() as wait:
        # Begun in earnest: what is wrong at first is wrong, and is not tried again.
        facts: dict[str, Any] = {"resume": why, "by": by, "trusted": trusted}
        with operating(key, store, now, create=create, **facts) as operator:
            first = operator.renew()
        _say_made(first, now, as_json)
        if resume is not None:
            tell(f"resumed: start `captoken operate` now, or verifiers deny in {span(_BOUND)}")
            return
        tell(f"{store} is renewed every {span(every)}: Ctrl-C ends that")
        if every >= _BOUND:
            tell(f"verifiers deny after {span(_BOUND)}, unless they have another max_staleness")

        while not wait(every):
            made = _renewed(key, store, trusted, wait, now)
            if made is not None and as_json:
                say_json(renewal_data(made), indent=None)


def _say_made(made: Overlay, now: int | None, as_json: bool) -> None:
    """Say which snapshot was signed."""
    if as_json:
        say_json(renewal_data(made), indent=None)
    else:
        say(title(made, seconds(now)))


def _renewed(
    key: str, store: str, trusted: tuple[str, ...], wait: Wait, now: int | None = None
) -> Overlay | None:
    """The next snapshot, as soon as the store can be reached; None if a signal came meanwhile.

    The store is opened anew, so that one that was removed is seen. Raises what is no matter of
    trying again: KeyringError, OverlayError, UsageError.
    """
    failed = ""
    while True:
        try:
            with operating(key, store, now, by="operator", trusted=trusted) as operator:
                made = operator.renew()
        except StoreError as error:
            # Said once, and not every two seconds.
            if str(error) != failed:
                failed = str(error)
                tell(f"not renewed: {failed}; tried again every {_AGAIN}s")
        else:
            if failed:
                tell(f"{store} is renewed again")
            return made
        if wait(_AGAIN):
            return None


@contextmanager
def until_ended() -> Generator[Wait]:
    """A wait that SIGINT or SIGTERM ends, and no renewal does. SIGHUP makes it shorter.

    A handler that raised would come in the middle of a renewal. So a signal is only noted, by a
    byte in a socket, and the wait is for that byte.
    """
    ours, theirs = socket.socketpair()
    is_left = serving.left_alone()

    def wait(seconds: float) -> bool:
        if not select.select([ours], [], [], seconds)[0]:
            return False
        came = ours.recv(_MOST_SIGNALS, socket.MSG_PEEK)
        if set(came) != {serving.HANGUP} or is_left():
            return True  # it stays there: it ends each later wait as well
        ours.recv(len(came))
        return False

    noted = dict.fromkeys((signal.SIGINT, signal.SIGTERM, serving.HANGUP), _note)
    with ours, theirs:
        theirs.setblocking(False)
        woken = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            with serving.handling(noted):
                yield wait
        finally:
            signal.set_wakeup_fd(woken)


def _note(number: int, frame: object) -> None:
    """The byte is written by Python, where a signal has a handler."""
