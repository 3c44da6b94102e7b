"""Real servers for the tests of what speaks HTTP, and a client that sends what others refuse to send."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import hypercorn.asyncio
import hypercorn.config
import msgspec
import uvicorn
from granian.constants import Interfaces
from granian.server.embed import Server as Granian

# What people serve applications with. The two parsers of uvicorn read requests in ways of their own.
SERVERS = ("h11", "httptools", "hypercorn", "granian")

# These give an application the path alone, where the request line has a whole address or a fragment behind the path.
CUTTING = ("httptools", "granian")


@contextmanager
def served(app: Any, listening: socket.socket, by: str = "h11", lifespan: str = "off") -> Iterator[str]:
    """The application on a loopback port of the system's choice, until the block ends: its origin."""
    start = {"hypercorn": _hypercorn, "granian": _granian}.get(by, _uvicorn)
    origin = origin_of(listening)
    end = start(app, listening, by, lifespan)
    try:
        yield origin
    finally:
        end()


def _uvicorn(app: Any, listening: socket.socket, by: str, lifespan: str) -> Any:
    config = uvicorn.Config(app, log_level="critical", lifespan=lifespan, http=by)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()

    def end() -> None:
        server.should_exit = True
        thread.join()

    return end


def _hypercorn(app: Any, listening: socket.socket, by: str, lifespan: str) -> Any:
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listening.detach()}"]
    config.errorlog = config.accesslog = None
    ended = asyncio.Event()
    return _in_thread(hypercorn.asyncio.serve(app, config, shutdown_trigger=ended.wait), ended.set)


def _granian(app: Any, listening: socket.socket, by: str, lifespan: str) -> Any:
    port = listening.getsockname()[1]
    listening.close()  # it takes no socket from elsewhere
    interface = Interfaces.ASGINL if lifespan == "off" else Interfaces.ASGI
    made: list[Granian] = []

    async def serve() -> None:
        made.append(Granian(app, "127.0.0.1", port, interface=interface, log_enabled=False))
        await made[0].serve()

    end = _in_thread(serve(), lambda: made[0].stop())
    wait_for(port)
    return end


def _in_thread(serving: Any, stop: Any) -> Any:
    """Runs a server in an event loop of its own; what is returned ends it."""
    loop = asyncio.new_event_loop()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serving)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()

    def end() -> None:
        loop.call_soon_threadsafe(stop)
        thread.join()

    return end


def wait_for(port: int) -> None:
    """Until somebody listens there."""
    for _ in range(500):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        threading.Event().wait(0.01)
    raise TimeoutError(port)


def listening() -> socket.socket:
    """A socket that sends small pieces at once, as those do that servers open themselves."""
    made = socket.create_server(("127.0.0.1", 0))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def origin_of(listening: socket.socket) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


def exchange(origin: str, data: bytes, timeout: float = 10) -> bytes:
    """What a server answers to these bytes, until it closes or has nothing to say."""
    host, _, port = origin.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=timeout) as connection:
        parts = []
        with suppress(BrokenPipeError, ConnectionResetError):  # it has heard enough
            connection.sendall(data)
        with suppress(ConnectionResetError):
            while part := connection.recv(65536):
                parts.append(part)
        return b"".join(parts)


def replies(answered: bytes) -> list[Reply]:
    """The answers in a row, each with its content-length."""
    found = []
    while answered:
        head, _, answered = answered.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)}
        length = int(headers.get("content-length", len(answered)))
        found.append(Reply(int(line.split()[1]), headers, answered[:length]))
        answered = answered[length:]
    return found


def send(
    origin: str,
    target: bytes | str = "/sales",
    *headers: bytes | str,
    method: str = "GET",
    body: bytes = b"",
    version: str = "1.1",
) -> Reply:
    """One request, written by hand: the headers go as they are."""
    lines = [f"{method} ".encode() + encoded(target) + f" HTTP/{version}".encode(), b"Host: api.example", b"Connection: close"]
    lines += [encoded(header) for header in headers]
    if body:
        lines.append(b"Content-Length: %d" % len(body))
    answered = exchange(origin, b"\r\n".join(lines) + b"\r\n\r\n" + body)
    if method == "HEAD":
        answered = answered.partition(b"\r\n\r\n")[0]
        return replies(answered.replace(b"content-length: ", b"content-length-was: ") + b"\r\n\r\n")[0]
    return replies(answered)[0]


def encoded(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


@contextmanager
def accepting(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A service that does so with each connection, in a thread of its own, and closes it: its origin."""
    listens = listening()

    def answered(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            answer(connection)

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listens.accept()
                threading.Thread(target=answered, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield origin_of(listens)
    finally:
        listens.shutdown(socket.SHUT_RDWR)
        listens.close()
        thread.join()
