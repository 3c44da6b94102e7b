"""A server that a command runs in the foreground, until a signal.

SIGHUP has two meanings, and both are kept. A service manager, or a person, asks so that files are
read again. A terminal that goes away says so that nobody sits there any more: then it ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import uvicorn


Handler: TypeAlias = Callable[[int, Any], object]

# Not on every system.
HANGUP: int | None = getattr(signal, "SIGHUP", None)


def refuse_dumps() -> None:
    """Let no other process of this user read the memory, the environment or a dump of this one."""
    if sys.platform == "linux":
        set_dumpable = 4  # PR_SET_DUMPABLE
        ctypes.CDLL(None).prctl(set_dumpable, 0, 0, 0, 0)


def run(
    server: uvicorn.Server,
    sockets: list[socket.socket] | None = None,
    *,
    begin: Callable[[], None] = lambda: None,
    reload: Callable[[], None] = lambda: None,
) -> None:
    """Serve until a signal, and come back: what was opened is closed then.

    `begin` says that it serves: whoever reads that can send signals from then on. On SIGHUP,
    `reload` is called. It is called in a handler of signals, and so it has to be short.

    uvicorn raises the signal anew when it has ended, and that would end the process at once.
    """

    def end(*_: Any) -> None:
        server.should_exit = True

    with handling({signal.SIGINT: end, signal.SIGTERM: end, HANGUP: at_hangup(reload, end)}):
        begin()
        server.run(sockets=sockets)


@contextmanager
def handling(handlers: Mapping[int | None, Handler]) -> Generator[None]:
    """A block in which signals are handled so. None is one that this system does not have."""
    before = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if number is not None
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def at_hangup(reload: Callable[[], None], end: Handler) -> Handler:
    """What to do on SIGHUP: `end`, once the terminal is gone that this was started in."""
    is_left = left_alone()

    def hung_up(number: int, frame: Any) -> None:
        if is_left():
            end(number, frame)
        else:
            reload()

    return hung_up


def left_alone() -> Callable[[], bool]:
    """A function that says whether the terminal is gone that standard input is now."""
    return (lambda: not os.isatty(0)) if os.isatty(0) else (lambda: False)


def beside(
    server: uvicorn.Server,
    sockets: list[socket.socket],
    begin: Callable[[], subprocess.Popen[bytes]],
    *,
    reload: Callable[[], None],
) -> int:
    """Serve until a command has ended: its exit code, as a shell tells it. It gets our signals.

    `begin` starts it. On SIGHUP, `reload` is called as well. Raises what `begin` raises.
    """
    started: list[subprocess.Popen[bytes]] = []
    early: list[int] = []  # signals that come before there is a command

    def pass_on(number: int, _: Any) -> None:
        # What is typed at a terminal the command has got itself: twice would be another thing.
        is_typed = number in (signal.SIGINT, signal.SIGQUIT) and _is_at_terminal()
        if number == signal.SIGHUP:
            reload()
        if not is_typed and not started:
            early.append(number)
        elif not is_typed:
            started[0].send_signal(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    for number in (*numbers, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, pass_on)
    command = begin()
    started.append(command)
    for missed in early:
        command.send_signal(missed)
    # Once the command has ended, nobody is there who waits for an answer.
    server.config.timeout_graceful_shutdown = 1
    # uvicorn does not handle signals if it runs in a thread.
    serving = threading.Thread(target=server.run, kwargs={"sockets": sockets})
    serving.start()
    code = command.wait()
    server.should_exit = True
    serving.join()
    return code if code >= 0 else 128 - code


def _is_at_terminal() -> bool:
    """Are this process and what it started those that a terminal sends its signals to?"""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
