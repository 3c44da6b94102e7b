"""The far end of a gateway for MCP: a server that was started, or one that is somewhere else.

    end = await Child.start(service, command)        # Unavailable, OSError
    async for came in end.exchange(message): ...     # Unreachable: nothing was sent; Broken
    async for came in end.listen(): ...              # what comes unasked

What comes with one request comes in its order. Nothing here is judged: see `relaying`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, TypeAlias

from captoken.adapters._gateway import envelopes
from captoken.adapters._gateway.credentials import Source
from captoken.adapters._gateway.seeking import Seeker, Told, spellings_of
from captoken.adapters._gateway.upstream import Broken, Unreachable
from captoken.adapters._mcp.messages import Headers

# Bytes of one message of a server's, and messages that wait to be read.
LONGEST = 16 << 20
_WAITING = 100
_PIECE = 64 << 10

# Seconds that a server has to end once its input has ended, and once it was told to.
_ENDING = 2

# What a server needs to run at all. All else of the environment may be a key.
USUAL = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TERM", "TMPDIR", "SystemRoot")


class Came(NamedTuple):
    """A message of a server's. Without data it is a sign of life.

    `is_last`: nothing more comes of the request that it is about.
    """

    data: bytes = b""
    is_last: bool = False


_Queue: TypeAlias = "asyncio.Queue[Came | None]"

_PROGRESS = "notifications/progress"


class _Route(NamedTuple):
    """Where the messages go that are about one request, and what names it in its progress."""

    queue: _Queue
    token: Any


class End(Protocol):
    """One server, for one conversation."""

    spellings: tuple[bytes, ...]

    def exchange(self, message: Mapping[str, Any], stated: Headers = ()) -> AsyncGenerator[Came]:
        """Send a message, and what comes of it, to the answer. Raises Unreachable and Broken.

        `stated`: what the client has repeated of it in headers, which not every end reads.
        """
        ...

    def listen(self) -> AsyncGenerator[Came]:
        """What the server says unasked, and first a sign of life. Raises Broken."""
        ...

    async def close(self) -> None:
        """End it."""
        ...


async def lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes | None]:
    """The lines that come, without their ends; None for one that is longer than the limit.

    What is longer is not kept. A line without an end is none: whoever wrote it was interrupted.
    """
    is_long = False
    while True:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as problem:
            await reader.readexactly(problem.consumed)
            is_long = True
            continue
        except asyncio.IncompleteReadError:
            return
        if is_long or line.strip():
            yield None if is_long else line.strip()
        is_long = False


class Child:
    """A server that was started, which reads and writes a message a line."""

    def __init__(self, process: Process, spellings: tuple[bytes, ...]) -> None:
        self.spellings = spellings
        self._process = process
        self._in, self._out, self._err = _pipes(process)
        # What came, by the request that it is about; None is the end of the server.
        self._routes: dict[Any, _Route] = {}
        self._unasked: _Queue = asyncio.Queue(_WAITING)
        self._has_ended = False
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._tell())]

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        source: Source | None,
        variable: str,
        passed: Sequence[str] = (),
    ) -> Child:
        """Start a server, which has its key in `variable`. Raises Unavailable and OSError."""
        env = {name: os.environ[name] for name in (*USUAL, *passed) if name in os.environ}
        spellings: tuple[bytes, ...] = ()
        if source is not None:
            secret = await source.read()
            env[variable] = secret.text
            spellings = spellings_of(secret)
        process = await asyncio.create_subprocess_exec(
            *command,
            env=env,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=LONGEST,
            start_new_session=True,  # so that what it starts ends with it
        )
        return cls(process, spellings)

    async def exchange(
        self, message: Mapping[str, Any], stated: Headers = ()
    ) -> AsyncGenerator[Came]:
        """Send a message, and what comes until its answer. See `End`."""
        number = message.get("id") if "method" in message else None
        if self._has_ended or self._in.is_closing():
            raise Unreachable("the server has ended")
        queue: _Queue = asyncio.Queue(_WAITING)
        if number is not None:
            meta = message["params"].get("_meta", {})
            self._routes[number] = _Route(queue, meta.get("progressToken"))
        try:
            # In one piece, and before anything is waited for: messages keep their order.
            self._in.write(envelopes.encode(message) + b"\n")
            with suppress(OSError):
                await self._in.drain()
            if message.get("method") == "notifications/cancelled":
                await self._cancel(message["params"].get("requestId"))
            is_last = number is None
            while not is_last:
                came = await queue.get()
                if came is None:
                    raise Broken("the server has ended")
                is_last = came.is_last
                yield came
        finally:
            if number in self._routes and self._routes[number].queue is queue:
                del self._routes[number]
            # Whoever waits to put something goes on.
            while not queue.empty():
                queue.get_nowait()

    async def _cancel(self, number: Any) -> None:
        """Nobody waits any more for the answer to a request, and the server may give none."""
        route = self._routes.pop(number, None)
        if route is not None:
            await route.queue.put(Came(is_last=True))

    async def listen(self) -> AsyncGenerator[Came]:
        """What comes while nothing is asked; ends with the server."""
        yield Came()
        while (came := await self._unasked.get()) is not None:
            yield came

    async def _read(self) -> None:
        """Bring each message to whoever waits for it. A line that is too long ends the server."""
        try:
            async for line in lines(self._out):
                if line is None:
                    break
                await self._bring(line)
        finally:
            self._has_ended = True
            for route in list(self._routes.values()):
                await route.queue.put(None)
            self._note(None)

    async def _bring(self, line: bytes) -> None:
        heard = None
        with suppress(ValueError):
            heard = envelopes.hear(line)
        if heard is not None and heard.is_answer and heard.id in self._routes:
            return await self._routes.pop(heard.id).queue.put(Came(line, is_last=True))
        routes = list(self._routes.values())
        if heard is not None and heard.method == _PROGRESS:
            token = envelopes.opened(heard.params).get("progressToken")
            routes = [each for each in routes if _is_same(each.token, token)]
        if not routes:
            return self._note(Came(line))
        # What else is said meanwhile goes with the latest request: it is about that, most likely.
        return await routes[-1].queue.put(Came(line))

    def _note(self, came: Came | None) -> None:
        """What comes unasked. Where nobody listens, the oldest is lost."""
        if self._unasked.full():
            self._unasked.get_nowait()
        self._unasked.put_nowait(came)

    async def _tell(self) -> None:
        """What the server writes for people, without its key."""
        out, seeker = sys.stderr.buffer, Seeker(self.spellings)
        try:
            while piece := await self._err.read(_PIECE):
                out.write(seeker.feed(piece))
                out.flush()
            out.write(seeker.end())
        except Told:
            out.write(b"[the server told its key: what it writes here is withheld]\n")
            while await self._err.read(_PIECE):
                pass
        out.flush()

    async def close(self) -> None:
        """End it: by the end of its input, by a signal, and by force."""
        self._in.close()
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                self._signal(number)
            with suppress(TimeoutError):
                async with asyncio.timeout(_ENDING):
                    await self._process.wait()
                    break
        self._signal(signal.SIGKILL)  # what it started, and left
        for task in self._tasks:
            task.cancel()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _is_same(token: Any, named: Any) -> bool:
    """Is it the same name of a request? 1 is neither "1" nor True."""
    return token is not None and type(token) is type(named) and token == named


def _pipes(process: Process) -> tuple[Any, Any, Any]:
    return process.stdin, process.stdout, process.stderr
