"""A real server for the tests of what speaks HTTP, and a client that sends what others refuse to send."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import msgspec
import uvicorn


@contextmanager
def served(app: Any, listening: socket.socket, **config: Any) -> Iterator[str]:
    """The application on a loopback port of the system's choice, until the block ends: its origin."""
    server = uvicorn.Server(uvicorn.Config(app, **{"log_level": "critical", "lifespan": "off", **config}))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield origin_of(listening)
    finally:
        server.should_exit = True
        thread.join()


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def origin_of(listening: socket.socket) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


def exchange(origin: str, data: bytes) -> bytes:
    """What a server answers to these bytes, until it closes or has nothing to say."""
    host, _, port = origin.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
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
