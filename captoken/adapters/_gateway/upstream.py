"""The one place that connects to a service, and sends: HTTP/1.1 by h11, over asyncio.

    upstream = Upstream("https://api.example", timeout=60)
    connection = await upstream.connect()          # Unreachable: nothing was sent
    answer = await connection.send(outgoing)       # Broken: what became of it is not known
    async for piece in answer.pieces: ...

A library of requests follows redirects, keeps cookies, reads proxies from the environment, tries
again, and spells addresses its own way. Here nothing goes out but what `Outgoing` has, once.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from captoken._format.extras import extra
from captoken._language.bounds import HEADER_BYTES
from captoken.adapters._gateway.waiting import within
from captoken.adapters._gateway.written import Outgoing
from captoken.adapters._http.exchange import Header
from captoken.adapters._http.origins import origin_of

with extra("gateway"):
    import h11

# In the scope of a request: what connects to its service, where a proxy does that.
UPSTREAM = "captoken.upstream"

_CONNECT_SECONDS = 10
_FOREVER = 365 * 86_400
_PIECE = 64 << 10

# A connection that waits longer than this is not used again: servers close theirs after 5 seconds,
# and a request that meets the end of one may have been taken.
_IDLE_SECONDS = 3
_IDLE = 100

# Turns of the event loop by which it has read what the system had, where nobody can ask for that.
_TURNS = 4


class Unreachable(Exception):  # noqa: N818, the name reads as what it is
    """There is no connection: nothing was sent."""


class Broken(Exception):  # noqa: N818, the name reads as what it is
    """Something was sent, and no whole answer came. `late`: there was no answer in time."""

    def __init__(self, text: str, *, late: bool = False) -> None:
        super().__init__(text)
        self.late = late


class Answer(NamedTuple):
    """An answer, whose body comes in pieces. Raises Broken where it does not come whole."""

    status: int
    headers: list[Header]
    pieces: AsyncIterator[bytes]


class Upstream:
    """Connections to one service.

    Raises ValueError for an address that is neither https nor on this machine.
    """

    def __init__(self, url: str, *, timeout: float, ca: str | None = None) -> None:
        self.origin = origin_of(url)
        parts = urlsplit(self.origin)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context(cafile=ca) if parts.scheme == "https" else None
        self._authority = parts.netloc.encode()
        self._timeout = timeout
        self._idle: deque[Connection] = deque(maxlen=_IDLE)

        # How many were opened: of a request that is refused, none is.
        self.opened = 0

    async def connect(self) -> Connection:
        """A connection that nobody else uses. Raises Unreachable."""
        while self._idle:
            connection = self._idle.pop()
            if await connection.is_fresh():
                return connection
            connection.close()
        self.opened += 1
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                pair = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        except (OSError, TimeoutError) as error:
            # A certificate that is not the service's is of this family as well.
            raise Unreachable(type(error).__name__) from None
        return Connection(self, *pair, self._authority, self._timeout)

    def keep(self, connection: Connection) -> None:
        """Use it again, perhaps."""
        if len(self._idle) == _IDLE:
            self._idle.popleft().close()
        self._idle.append(connection)

    def close(self) -> None:
        """Close what waits."""
        while self._idle:
            self._idle.pop().close()


class Connection:
    """One connection to a service, for one request at a time."""

    def __init__(
        self,
        upstream: Upstream,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        authority: bytes,
        timeout: float,
    ) -> None:
        self._upstream = upstream
        self._reader = reader
        self._writer = writer
        self._authority = authority
        self._timeout = timeout
        self._waits = timeout  # for what comes next
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEADER_BYTES)
        self._since = monotonic()

    async def is_fresh(self) -> bool:
        """Can it be used again? It has not waited long, and the service has said nothing since.

        What it said unasked, or its end, would be taken for the answer to the next request.
        """
        for _ in range(0 if hasattr(select, "poll") else _TURNS):
            await asyncio.sleep(0)
        is_open = not self._writer.is_closing()
        return is_open and monotonic() - self._since < _IDLE_SECONDS and self._is_quiet()

    def _is_quiet(self) -> bool:
        """Whether nothing has come: neither to the reader, nor to the system until now."""
        reading = self._reader.read(1)
        try:
            reading.send(None)
        except (StopIteration, OSError):
            return False
        reading.close()
        return not _has_arrived(self._writer.get_extra_info("socket"))

    async def send(self, outgoing: Outgoing, *, patient: bool = False) -> Answer:
        """Send a request, once, and read the head of its answer. Raises Broken.

        `patient`: its body may come as late as it likes.
        """
        headers = [
            (b"host", self._authority),
            *outgoing.headers,
            (b"accept-encoding", b"identity"),
        ]
        if outgoing.body or outgoing.method in ("POST", "PUT", "PATCH"):
            headers.append((b"content-length", b"%d" % len(outgoing.body)))
        request = h11.Request(method=outgoing.method, target=outgoing.target, headers=headers)
        parts = [self._http.send(request)]
        if outgoing.body:
            parts.append(self._http.send(h11.Data(data=outgoing.body)))
        parts.append(self._http.send(h11.EndOfMessage()))
        self._waits = self._timeout
        try:
            self._writer.write(b"".join(part for part in parts if part))
            await within(self._timeout, self._writer.drain())
            # What is asked meanwhile, as 103 answers, says nothing.
            while isinstance(event := await self._event(), h11.InformationalResponse):
                pass
        except (OSError, TimeoutError) as error:
            raise Broken(type(error).__name__, late=isinstance(error, TimeoutError)) from None
        if not isinstance(event, h11.Response):
            raise Broken("the service closed the connection")
        self._waits = _FOREVER if patient else self._timeout
        return Answer(event.status_code, list(event.headers), self._pieces())

    async def begin(self, headers: list[Header]) -> None:
        """The head of an answer is known. Its body comes without that being said."""

    async def _pieces(self) -> AsyncIterator[bytes]:
        """The body, to its end."""
        event = await self._event()
        while isinstance(event, h11.Data):
            following = self._arrived_event()
            yield bytes(event.data)
            event = await self._event() if following is h11.NEED_DATA else following
        if not isinstance(event, h11.EndOfMessage):
            raise Broken("the service closed the connection in its answer")

    async def _event(self) -> Any:
        """Return the next event. Raises Broken if it is broken, or does not come in time."""
        try:
            while (event := self._arrived_event()) is h11.NEED_DATA:
                data = await within(self._waits, self._reader.read(_PIECE))
                self._http.receive_data(data)
        except (OSError, TimeoutError) as error:
            raise Broken(type(error).__name__, late=isinstance(error, TimeoutError)) from None
        return event

    def _arrived_event(self) -> Any:
        """What comes next of what was read; NEED_DATA if that is all. Raises Broken."""
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise Broken(type(error).__name__) from None

    @property
    def is_whole(self) -> bool:
        """Is the piece of an answer that was given last the end of it?

        False says nothing: more may have to be read before that is known.
        """
        return self._http.their_state is h11.DONE

    def release(self) -> None:
        """Nobody reads on. One that was read to its end is used again; any other is closed."""
        done = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        # What stands behind an answer is not the answer to somebody's next request.
        if done and self._http.trailing_data == (b"", False):
            self._http.start_next_cycle()
            self._since = monotonic()
            self._upstream.keep(self)
        else:
            self.close()

    def close(self) -> None:
        """Close it at once."""
        with suppress(OSError, RuntimeError):
            self._writer.transport.abort()


def _has_arrived(connection: Any) -> bool:
    """Has the system something that nobody read, or the end? Windows cannot be asked."""
    if not hasattr(select, "poll"):
        return False
    asked = select.poll()
    asked.register(connection, select.POLLIN)
    return bool(asked.poll(0))
