"""One exchange by ASGI 3: what comes in, piece by piece and bounded, and what goes out.

Nothing here knows of tokens. The guard of ASGI applications, the one of FastAPI and the service of
discharges all read a body and send a response by this.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

# The types of ASGI, in the words of its specification.
Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]  # what ASGI says of a connection
Receive: TypeAlias = Callable[[], Awaitable[Message]]  # gives what comes next
Send: TypeAlias = Callable[[Message], Awaitable[None]]  # takes what is answered
# An application: what is called once for a request, or for a connection of WebSocket.
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

Header: TypeAlias = tuple[bytes, bytes]  # the name in lower case, and the value

# An answer may tell of one person's rights: no cache keeps it. No browser takes JSON for a page.
_KEPT_BY_NOBODY = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)


_A_WHILE = 0.05  # seconds of an answer before somebody looks whether its client has gone


class RequestError(Exception):
    """A request that is answered with this status, and this sentence for the client.

    The sentence is public: it says nothing of a token or a key. `decision`: the id of the denial
    that is on record, if one is.
    """

    decision = ""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class ClientGone(Exception):  # noqa: N818, the name reads as what it is
    """The client has gone, perhaps in the middle of its request.

    Nobody is left to be answered, so a guard lets the request end.
    """


# --- what comes in --------------------------------------------------------------------------------


def values_of(headers: Iterable[Header], name: bytes) -> list[bytes]:
    """What each header of this name says, in the order in which they came.

    `name` is in lower case, as ASGI has them. Headers of one name are not joined: for what decides
    about a request, two of them are not one with a comma.
    """
    return [value for header, value in headers if header == name]


class Body:
    """The body of a request, as far as it was read before the application runs.

        body = Body(receive, 8192)
        text = await body.read_all()
        await app(scope, body.receive, send)

    It is read on demand: most requests are decided on by their headers alone, and their application
    then reads the body itself.

    `most`: how many bytes it may have. What a client says about the length is not believed; what
    came is counted.
    """

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._most = most
        self._pieces: list[bytes] = []
        self._size = 0
        self._replayed = False
        self.complete = False  # the last piece has come

    @property
    def data(self) -> bytes:
        """What has been read so far."""
        return b"".join(self._pieces)

    async def read_piece(self) -> None:
        """Wait for the next piece.

        Raises ClientGone, or RequestError for a body that is too long. It holds one piece more than
        `most` bytes at worst, and how large a piece can be is up to the server.
        """
        message = await self._receive()
        # The other message that can come is `http.disconnect`.
        if message["type"] != "http.request":
            raise ClientGone
        # Both keys may be left out, and stand for an empty last piece then.
        piece = message.get("body", b"")
        self.complete = not message.get("more_body", False)
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self._most:
            raise RequestError(413, f"The body is longer than {self._most} bytes.")

    async def read_all(self) -> bytes:
        """The whole body. Raises what `read_piece` raises."""
        while not self.complete:
            await self.read_piece()
        return self.data

    @property
    def receive(self) -> Receive:
        """The application's `receive`: it gives what was read, and then what is still to come.

        Where nothing was read, this is the server's own.
        """
        if not self._pieces:
            return self._receive
        return self._replay

    async def _replay(self) -> Message:
        """Return the body that was read as one message, and afterwards what the server receives."""
        if self._replayed:
            return await self._receive()
        self._replayed = True
        return {
            "type": "http.request",
            "body": self.data,
            "more_body": not self.complete,
        }


async def until_gone(receive: Receive, working: Awaitable[None]) -> None:
    """Run it until it is through, or until the client has gone. Raises what it raises.

    Nobody looks at the client before that takes a while: most services answer sooner.
    """
    watching: asyncio.Task[None] | None = None

    def watch() -> None:
        nonlocal watching
        watching = asyncio.ensure_future(_gone(receive))
        watching.add_done_callback(lambda _: _end(limit))

    begins = asyncio.get_running_loop().call_later(_A_WHILE, watch)
    limit = asyncio.timeout(None)
    try:
        async with limit:
            await working
    except TimeoutError:
        if not limit.expired():
            raise
        raise ClientGone from None
    finally:
        begins.cancel()
        if watching is not None:
            watching.cancel()
            await asyncio.wait((watching,))


def _end(limit: asyncio.Timeout) -> None:
    """End what runs in it, if it still does."""
    with suppress(RuntimeError):
        limit.reschedule(0)


async def _gone(receive: Receive) -> None:
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


# --- what goes out --------------------------------------------------------------------------------


class Response(NamedTuple):
    """An HTTP response that nobody keeps, and that no browser takes for another kind of thing.

    `headers`: in the order in which they are sent, with names in lower case.
    """

    status: int
    headers: list[Header]
    body: bytes

    @classmethod
    def of(
        cls,
        status: int,
        kind: bytes,
        body: bytes,
    ) -> Response:
        """A response whose content type is `kind`.

        Its headers are a list of its own, to which a caller may add.
        """
        headers = [
            (b"content-type", kind),
            (b"content-length", b"%d" % len(body)),
            *_KEPT_BY_NOBODY,
        ]
        return cls(status, headers, body)


def json_response(status: int, said: Mapping[str, Any]) -> Response:
    """A JSON object, in ASCII: whatever else a name has is escaped."""
    body = json.dumps(said).encode("ascii")
    return Response.of(status, b"application/json", body)


async def respond(
    send: Send,
    response: Response,
    *,
    kind: str = "http.response",
    without_body: bool = False,
) -> None:
    """Send a response.

    `kind`: how ASGI's messages are named; a websocket that is refused has others.
    `without_body`: it answers HEAD, whose headers are those of GET.
    """
    start = {
        "type": f"{kind}.start",
        "status": response.status,
        "headers": response.headers,
    }
    body = {
        "type": f"{kind}.body",
        "body": b"" if without_body else response.body,
        "more_body": False,
    }
    await send(start)
    await send(body)


class Reply:
    """The way out of one request.

    It knows what was sent, so that a refusal can take the application's place while there is time.

    A response of status 500 is kept to the end. Where an application is mounted in another one, the
    inner one sends an error page first, and then lets the exception out that says why: a denial may
    be what it was.
    """

    __slots__ = ("_accepted", "_kept", "_scope", "_send", "_started")

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._started = False  # something has gone to the client
        self._accepted = False  # it was the last word on a websocket, which is open
        self._kept: list[Message] = []  # the response of status 500

    @property
    def over(self) -> bool:
        """Whether it is too late for an answer in the application's place.

        On an open websocket it is not: the answer is that it is closed.
        """
        return self._started and not self._accepted

    async def send(self, message: Message) -> None:
        """The application's `send`.

        It changes nothing of a message, and holds back nothing but a response of status 500.
        """
        kind = message["type"]
        begins = kind == "http.response.start"
        fails = begins and not self._started and message.get("status") == 500
        # Once a start is kept, all that follows is: the body belongs to it.
        if self._kept or fails:
            self._kept.append(message)
            return
        if begins or kind.startswith("websocket."):
            self._started = True
        self._accepted = kind in ("websocket.accept", "websocket.send")
        await self._send(message)

    async def end(self) -> None:
        """The application is through, and nothing takes the place of what it sent.

        What was kept goes out now.
        """
        kept = self._kept
        self._kept = []
        for message in kept:
            await self._send(message)

    async def answer(self, response: Response) -> None:
        """Send this in the application's place; on an open websocket, end it.

        It must not be `over`. What was kept is dropped.
        """
        if self._scope["type"] == "http":
            is_head = self._scope.get("method") == "HEAD"
            return await respond(self._send, response, without_body=is_head)
        # A response in place of a handshake is an extension of ASGI. Without it a close, before the
        # websocket is accepted, is what servers answer 403.
        extensions = self._scope.get("extensions") or {}
        if self._accepted or "websocket.http.response" not in extensions:
            close = {
                "type": "websocket.close",
                "code": 1008,  # RFC 6455, 7.4.1: it violates a policy
                "reason": "refused",
            }
            return await self._send(close)
        return await respond(self._send, response, kind="websocket.http.response")
