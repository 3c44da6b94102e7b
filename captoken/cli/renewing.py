"""`captoken operate`: what stands is signed anew, again and again, until somebody ends it.

    operate → renewed every 20s → SIGINT or SIGTERM → exit 0, after the renewal that is under way

A store that cannot be reached is tried again. Whatever else goes wrong ends the command: a key that
is gone, a store that is missing or went back. Then somebody has to look.
"""

from __future__ import annotations

import select
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeAlias

import click

from captoken._format.errors import StoreError
from captoken._format.spelling import span
from captoken._language.overlay import LIFE, Overlay
from captoken.cli.operate import (
    beginning_options,
    key_option,
    operating,
    renewal_data,
    store_option,
    title,
)
from captoken.cli.options import json_option, seconds
from captoken.cli.output import say, say_json, tell
from captoken.cli.values import DURATION

# Seconds until a store that could not be reached is tried again.
_AGAIN = 2

# Seconds after which verifiers deny, unless they were told otherwise.
_BOUND = 60

# Waits for so many seconds. True, at once and from then on, when a signal has come.
Wait: TypeAlias = Callable[[float], bool]


@click.command()
@key_option
@store_option
@click.option(
    "--every",
    type=DURATION,
    metavar="TIME",
    default="20s",
    show_default=True,
    help="How often: in less than the bound of any verifier.",
)
@beginning_options
@json_option
def operate(
    key: str,
    store: str,
    every: int,
    trusted: tuple[str, ...],
    resume: bool,
    create: bool,
    as_json: bool,
) -> None:
    """Keep the overlay fresh, until Ctrl-C or SIGTERM.

    \b
    captoken operate --key operator.json --store overlay.db --create
    captoken operate --key operator.json --store overlay.db

    The overlay is what an operator has done to tokens that are out. Verifiers deny all once its
    newest snapshot is older than their bound, a minute by default. This signs it anew in time, and
    stays in the foreground: a terminal or a service manager runs it. The other commands work beside
    it. A store that cannot be reached for a while is tried again.

    With --json, writes an object a line for each snapshot.
    """
    if not 1 <= every < LIFE:
        raise click.UsageError(
            f"--every is from 1s to less than {span(LIFE)}, when a snapshot runs out: --every 20s"
        )
    with _until_ended() as wait:
        # Begun in earnest: what is wrong at first is wrong, and is not tried again.
        beginning = operating(
            key,
            store,
            None,
            create=create,
            resume=resume,
            by="operator",
            trusted=trusted,
        )
        with beginning as operator:
            first = operator.renew()
        _begun(first, store, every, as_json)

        while not wait(every):
            made = _renewed(key, store, trusted, wait)
            if made is not None and as_json:
                _say_line(made)


def _begun(made: Overlay, store: str, every: int, as_json: bool) -> None:
    """Say what is kept fresh, and how often."""
    if as_json:
        _say_line(made)
    else:
        say(title(made, seconds(None)))
    tell(f"{store} is renewed every {span(every)}: Ctrl-C ends that")
    if every >= _BOUND:
        tell(f"verifiers deny after {span(_BOUND)}, unless they have another max_staleness")


def _say_line(made: Overlay) -> None:
    say_json(renewal_data(made), indent=None)


def _renewed(key: str, store: str, trusted: tuple[str, ...], wait: Wait) -> Overlay | None:
    """The next snapshot, as soon as the store can be reached; None if a signal came meanwhile.

    The store is opened anew, so that one that was removed is seen. Raises what is no matter of
    trying again: KeyringError, OverlayError, UsageError.
    """
    failed = ""
    while True:
        try:
            with operating(key, store, None, by="operator", trusted=trusted) as operator:
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
def _until_ended() -> Generator[Wait]:
    """A wait that SIGINT or SIGTERM ends, and no renewal does.

    A handler that raised would come in the middle of a renewal. So a signal is only noted, by a
    byte in a socket, and the wait is for that byte.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        woken = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        before = {
            number: signal.signal(number, lambda *_: None)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield lambda seconds: bool(select.select([ours], [], [], seconds)[0])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(woken)
