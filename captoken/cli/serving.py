"""A server that a command runs in the foreground, until a signal."""

from __future__ import annotations

import signal
import socket
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
