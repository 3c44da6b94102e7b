"""One exchange by ASGI 3: what comes in, piece by piece and bounded, and what goes out.

Nothing here knows of tokens.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, NamedTuple, TypeAlias

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Header: TypeAlias = tuple[bytes, bytes]

_KEPT_BY_NOBODY = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


class RequestError(Exception):
    """A request that is answered with this status, and this sentence for the client."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class ClientGone(Exception):  # noqa: N818, the name reads as what it is
    """The client has gone, perhaps in the middle of its request."""


# --- what comes in --------------------------------------------------------------------------------


def values_of(headers: Iterable[Header], name: bytes) -> list[bytes]:
    """What each header of this name says. `name` is in lower case, as ASGI has them."""
    return [value for header, value in headers if header == name]


class Body:
    """The body of a request, as far as it was read before the application runs.

    `most`: bytes that it may have.
    """

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._most = most
        self._pieces: list[bytes] = []
        self._size = 0
        self._replayed = False
        self.complete = False

    @property
    def data(self) -> bytes:
        """What has been read so far."""
        return b"".join(self._pieces)

    async def read_piece(self) -> None:
        """Wait for the next piece. Raises ClientGone, or RequestError for a body too long."""
        message = await self._receive()
        if message["type"] != "http.request":
            raise ClientGone
        piece = message.get("body", b"")
        self._pieces.append(piece)
        self._size += len(piece)
        self.complete = not message.get("more_body", False)
        if self._size > self._most:
            raise RequestError(413, f"The body is longer than {self._most} bytes.")

    async def read_all(self) -> bytes:
        """The whole body. Raises what `read_piece` raises."""
        while not self.complete:
            await self.read_piece()
        return self.data

    @property
    def receive(self) -> Receive:
        """The application's `receive`: it gives what was read, and then what is still to come."""
        return self._replay if self._pieces else self._receive

    async def _replay(self) -> Message:
        if self._replayed:
            return await self._receive()
        self._replayed = True
        return {"type": "http.request", "body": self.data, "more_body": not self.complete}


# --- what goes out --------------------------------------------------------------------------------


class Response(NamedTuple):
    """An HTTP response, which nobody keeps and no browser takes for another kind."""

    status: int
    headers: list[Header]
    body: bytes

    @classmethod
    def of(cls, status: int, kind: bytes, body: bytes) -> Response:
        """A response whose content type is `kind`."""
        about = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        return cls(status, [*about, *_KEPT_BY_NOBODY], body)


def json_response(status: int, said: Mapping[str, Any]) -> Response:
    """A JSON object."""
    return Response.of(status, b"application/json", json.dumps(said).encode())


async def respond(
    send: Send, response: Response, *, kind: str = "http.response", without_body: bool = False
) -> None:
    """Send a response. `kind`: how ASGI's messages are named. `without_body`: it answers HEAD."""
    start = {"type": f"{kind}.start", "status": response.status, "headers": response.headers}
    await send(start)
    body = b"" if without_body else response.body
    await send({"type": f"{kind}.body", "body": body, "more_body": False})


class Reply:
    """The way out of one request.

    It knows what was sent, so that a refusal can take the application's place while there is time.
    A response of status 500 is kept to the end: the error page of a mounted application comes
    before the exception that says why.
    """

    __slots__ = ("_accepted", "_kept", "_scope", "_send", "_started")

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._started = False
        self._accepted = False
        self._kept: list[Message] = []

    @property
    def over(self) -> bool:
        """Whether it is too late for another response, or for the end of an open websocket."""
        return self._started and not self._accepted

    async def send(self, message: Message) -> None:
        """The application's `send`."""
        kind = message["type"]
        begins = kind == "http.response.start"
        fails = begins and not self._started and message.get("status") == 500
        if self._kept or fails:
            self._kept.append(message)
            return
        if begins or kind.startswith("websocket."):
            self._started = True
        self._accepted = kind in ("websocket.accept", "websocket.send")
        await self._send(message)

    async def end(self) -> None:
        """The application is through, and nothing takes the place of what it sent."""
        kept = self._kept
        self._kept = []
        for message in kept:
            await self._send(message)

    async def answer(self, response: Response) -> None:
        """Send this in the application's place; on an open websocket, end it."""
        if self._scope["type"] == "http":
            is_head = self._scope.get("method") == "HEAD"
            return await respond(self._send, response, without_body=is_head)
        extensions = self._scope.get("extensions") or {}
        if self._accepted or "websocket.http.response" not in extensions:
            close = {"type": "websocket.close", "code": 1008, "reason": "refused"}
            return await self._send(close)
        return await respond(self._send, response, kind="websocket.http.response")
