"""A gateway for MCP whose client speaks to it by lines, and so started it (docs/gateway-mcp.md).

    client = Lines(relay, start, write)
    code = await client.serve(reader)         # until the client, or the server, has ended

The server is started with the first message of a genuine token. It is of the tree of that token: a
token of another tree gets another server, to which the opening of the session is said again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any

from captoken.adapters._gateway import envelopes
from captoken.adapters._gateway.credentials import Unavailable
from captoken.adapters._gateway.ends import Came, End, lines
from captoken.adapters._gateway.envelopes import Malformed
from captoken.adapters._gateway.relaying import Asked, Conversation, Refused, Relay
from captoken.adapters._gateway.remote import Over, Remote
from captoken.adapters._gateway.upstream import Broken, Unreachable

_log = logging.getLogger("captoken.gateway")

# Messages that are passed on at once.
_MOST = 1000

# Seconds in which whoever waits is told that the server has ended.
_TELLING = 0.5

# Seconds until a server elsewhere is listened to again.
_AGAIN = 1

BROKEN = "The server gave no whole answer."


class Lines:
    """One client, and the server that it speaks to.

    `start` gives a server anew, and raises Unavailable or OSError. `write` takes a line.
    """

    def __init__(
        self,
        relay: Relay,
        start: Callable[[], Awaitable[End]],
        write: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._talk = Conversation(relay, self._move)
        self._start = start
        self._write = write
        self._end: End | None = None
        self._opening: list[dict[str, Any]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader) -> int:
        """Until the client has no more to say: 0; or the server has ended: 1."""
        reading = asyncio.create_task(self._read(reader))
        ending = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait((reading, ending), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                # Whoever waits is told first that nobody answers.
                await asyncio.wait((ending, *self._tasks), timeout=_TELLING)
                return 1
            reading.result()
            return 0
        finally:
            for task in (reading, ending, *self._tasks):
                task.cancel()
            if self._end is not None:
                await self._end.close()

    def stop(self) -> None:
        """End it, as a signal says. For handlers of the event loop."""
        self._ended.set()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        async for line in lines(reader):
            await self._said(line)

    async def _said(self, line: bytes | None) -> None:
        """One line of the client's: answered here, or passed on."""
        answer: dict[str, Any] | None
        try:
            if line is None:
                raise Malformed(envelopes.INVALID, "The message is too long.")
            asked = await self._talk.ask(envelopes.read(line), None)
        except Malformed as problem:
            answer = envelopes.error(problem.id, problem.code, problem.text)
        except Refused as refused:
            answer = refused.answer
        else:
            return await self._begin(asked)
        if answer is not None:
            await self._write(envelopes.encode(answer))

    async def _begin(self, asked: Asked) -> None:
        """Pass a message on, beside those that are under way."""
        try:
            end = await self._reached()
        except Unreachable as problem:
            return await self._undone(asked, problem)
        if asked.said.method in ("initialize", "notifications/initialized"):
            self._opening.append(asked.sent)
        self._beside(self._pass_on(asked, end))
        if asked.said.method == "notifications/initialized" and isinstance(end, Remote):
            self._beside(self._listen(end))
        if len(self._tasks) > _MOST:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    async def _reached(self) -> End:
        """The server, started where it is not yet. Raises Unreachable."""
        if self._end is None:
            try:
                self._end = await self._start()
            except (Unavailable, OSError) as problem:
                _log.error("%s cannot be started: %s", self._talk.relay.name, problem)
                raise Unreachable(type(problem).__name__) from None
            if not isinstance(self._end, Remote):  # there, it takes a session first
                self._beside(self._listen(self._end))
        return self._end

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it while the client says more."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _move(self) -> None:
        """Another server, for another tree, which is told what the first one was told at first."""
        before, self._end = self._end, None
        if before is None:
            return
        await before.close()
        with suppress(Unreachable, Broken):  # each message finds that out by itself
            end = await self._reached()
            for message in self._opening:
                async for _ in end.exchange(message):
                    pass

    async def _pass_on(self, asked: Asked, end: End) -> None:
        """Send it, and bring back what comes of it."""
        try:
            async with aclosing(end.exchange(asked.sent, asked.stated)) as stream:
                async for came in stream:
                    await self._heard(came, end)
        except Unreachable as problem:
            return await self._undone(asked, problem)
        except Broken as problem:
            _log.warning("%s gave no whole answer: %s", self._talk.relay.name, problem)
            if isinstance(problem, Over):
                self._ended.set()
        answer = self._talk.failed(asked, BROKEN)
        if answer is not None:
            await self._write(envelopes.encode(answer))

    async def _undone(self, asked: Asked, problem: Unreachable) -> None:
        answer = await self._talk.undone(asked, problem)
        if answer is not None:
            await self._write(envelopes.encode(answer))

    async def _listen(self, end: End) -> None:
        """What the server says unasked. Where one that was started ends, so does this."""
        while end is self._end:
            try:
                async with aclosing(end.listen()) as stream:
                    async for came in stream:
                        await self._heard(came, end)
            except Over:
                return  # it says nothing unasked
            except (Broken, Unreachable) as problem:
                _log.info("%s is listened to again: %s", self._talk.relay.name, problem)
            if not isinstance(end, Remote):
                break
            await asyncio.sleep(_AGAIN)
        if end is self._end:
            self._ended.set()

    async def _heard(self, came: Came, end: End) -> None:
        if not came.data:
            return
        passed = await self._talk.answer(came.data, end.spellings)
        if passed.client is not None:
            await self._write(passed.client)
        if passed.server is not None:
            async for _ in end.exchange(passed.server):
                pass
