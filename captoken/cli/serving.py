"""A server that a command runs in the foreground, until a signal."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import uvicorn


def run(server: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
    """Serve until a signal, and come back: what was opened is closed then.

    uvicorn raises the signal anew when it has ended, and that would end the process at once.
    """

    def end(*_: Any) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=sockets)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def beside(
    server: uvicorn.Server,
    sockets: list[socket.socket],
    begin: Callable[[], subprocess.Popen[bytes]],
) -> int:
    """Serve until a command has ended: its exit code, as a shell tells it. It gets our signals.

    `begin` starts it. Raises what that raises.
    """
    started: list[subprocess.Popen[bytes]] = []
    early: list[int] = []  # signals that come before there is a command

    def pass_on(number: int, _: Any) -> None:
        # What is typed at a terminal the command has got itself: twice would be another thing.
        is_typed = number in (signal.SIGINT, signal.SIGQUIT) and _is_at_terminal()
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
    # In a thread, uvicorn leaves signals alone.
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
