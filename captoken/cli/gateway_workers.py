"""Several processes of `captoken gateway processor`, which one process keeps running."""

from __future__ import annotations

import ctypes
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from captoken.cli.serving import HANGUP, handling

_log = logging.getLogger("captoken.gateway")

# Seconds between two looks, and between the start of a worker and the next one in its place.
_LOOK, _PAUSE = 0.1, 1.0

# Beyond what the requests under way are given.
_LAST = 5


class _Worker:
    """One of them, started. `number` says which address it has."""

    def __init__(self, path: str, number: int) -> None:
        self.number = number
        self.started = monotonic()
        command = [sys.executable, "-m", "captoken", "gateway", "processor", "--json"]
        # It writes one line when it serves. Its log goes where ours does.
        self.process = subprocess.Popen(  # noqa: S603, it is this program again
            [*command, "--worker", str(number), path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )

    def begins(self) -> bool:
        """Wait until it serves. False for one that has ended before."""
        said = self.process.stdout
        return said is not None and bool(said.readline())


def kept(path: str, count: int, timeout: float, announce: Callable[[], None]) -> int:
    """Keep `count` workers running until a signal: the exit code.

    `announce` is called once all of them serve. One that does not even begin ends them all. One
    that ends later is started anew.
    """
    ended = threading.Event()

    def pass_on(number: int, _: object) -> None:
        for each in workers:
            each.process.send_signal(number)

    workers: list[_Worker] = []
    handlers = {signal.SIGINT: _setting(ended), signal.SIGTERM: _setting(ended), HANGUP: pass_on}
    with handling(handlers):
        try:
            workers += [_Worker(path, number) for number in range(count)]
            if not all([each.begins() for each in workers]):
                return 1
            announce()
            while not ended.wait(_LOOK):
                for place, each in enumerate(workers):
                    if each.process.poll() is None or monotonic() - each.started < _PAUSE:
                        continue
                    code = each.process.returncode
                    _log.error("worker %d ended with %d: it is started anew", each.number, code)
                    workers[place] = _Worker(path, each.number)
        finally:
            _end(workers, timeout)
    return 0


def _setting(ended: threading.Event) -> Callable[[int, object], None]:
    return lambda *_: ended.set()


def _end(workers: list[_Worker], timeout: float) -> None:
    """Have all of them end what is under way."""
    for each in workers:
        each.process.terminate()
    for each in workers:
        with suppress(subprocess.TimeoutExpired):
            each.process.wait(timeout + _LAST)
        each.process.kill()
        each.process.wait()
        if each.process.stdout is not None:
            each.process.stdout.close()


def end_with_parent() -> None:
    """Have this process told to end, when the one that started it is gone."""
    if sys.platform == "linux":
        set_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_signal, int(signal.SIGTERM), 0, 0, 0)
