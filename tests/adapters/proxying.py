"""Proxies that others wrote, in processes of their own, and answers of theirs. `CAPTOKEN_PROXIES` names a folder with their programs."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple, cast

from tests.adapters.serving import exchange


def program(name: str) -> str:
    """One of them. A missing one is an error: without it nothing here says anything."""
    found = Path(os.environ["CAPTOKEN_PROXIES"]) / "bin" / name
    if not found.exists():
        raise FileNotFoundError(found)
    return str(found)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def running(command: list[str], port: int, log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program that serves at a port of this machine, until the block ends."""
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, **options) as process:
        try:
            for _ in range(300):
                assert process.poll() is None, log.read_text()[-3000:]
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                time.sleep(0.05)
            else:
                raise AssertionError(log.read_text()[-3000:])
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()


class Heard(NamedTuple):
    """An answer. Its body is None where it was cut off."""

    status: int
    headers: dict[str, str]
    body: bytes | None


class _Bytes:
    """What http.client takes for a connection."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self._data)


def heard(answered: bytes, method: str = "GET") -> Heard:
    """The first answer of these bytes, whole or cut off; status 0 for none."""
    if not answered:
        return Heard(0, {}, None)
    response = HTTPResponse(cast(Any, _Bytes(answered)), method=method)
    response.begin()
    headers = {name.lower(): value for name, value in response.getheaders()}
    try:
        body: bytes | None = response.read()
    except Exception:
        body = None
    return Heard(response.status, headers, body)


def ask(origin: str, raw: bytes, timeout: float = 10) -> Heard:
    """The answer to a request as it stands; status 0 where none came."""
    try:
        return heard(exchange(origin, raw, timeout), raw.partition(b" ")[0].decode("latin-1"))
    except TimeoutError:
        return Heard(0, {}, None)


def over_http_2(origin: str, target: str, token: str, body: bytes = b"", trailers: list[tuple[str, str]] | None = None, *, method: str = "GET", length: bool = True, head: list[tuple[str, str]] | None = None) -> tuple[int, bytes]:
    """One exchange over HTTP/2, in plain text; status 0 where the stream was reset. `head`: all of its headers, whatever they are."""
    import h2.config
    import h2.connection
    import h2.events

    host, _, port = origin.removeprefix("http://").rpartition(":")
    is_usual = head is None
    config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=is_usual, normalize_outbound_headers=is_usual)
    wire = h2.connection.H2Connection(config)
    wire.initiate_connection()
    if head is None:
        head = [(":method", method), (":path", target), (":scheme", "http"), (":authority", "x"), ("authorization", f"Bearer {token}")]
    if body and length:
        head.append(("content-length", str(len(body))))
    wire.send_headers(1, head, end_stream=not body and not trailers)
    if body:
        wire.send_data(1, body, end_stream=not trailers)
    if trailers:
        wire.send_headers(1, trailers, end_stream=True)
    status, answered = 0, b""
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(wire.data_to_send())
        while data := connection.recv(65536):
            for event in wire.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[":status"])
                elif isinstance(event, h2.events.DataReceived):
                    answered += event.data
                    wire.acknowledge_received_data(event.flow_controlled_length, 1)
                elif isinstance(event, h2.events.ConnectionTerminated):
                    return 0, answered
                elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                    return (status if isinstance(event, h2.events.StreamEnded) else 0), answered
            connection.sendall(wire.data_to_send())
    return 0, answered
