"""An MCP server that is somewhere else, over Streamable HTTP: the far end of a gateway.

    end = Remote(upstream, service)
    async for came in end.exchange(message): ...     # Unreachable: nothing was sent; Broken
    end.session, end.version                         # once it has answered `initialize`

Of the client's headers nothing goes on. What the protocol repeats of a message in headers is
written from the message (`mirrored`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

from captoken.adapters._gateway import envelopes
from captoken.adapters._gateway.credentials import Secret, Unavailable
from captoken.adapters._gateway.ends import LONGEST, Came
from captoken.adapters._gateway.mirrored import MISMATCH, Mirrored, header_value
from captoken.adapters._gateway.opening import McpService
from captoken.adapters._gateway.seeking import Seeker, Told, spellings_of
from captoken.adapters._gateway.upstream import Answer, Broken, Connection, Unreachable, Upstream
from captoken.adapters._gateway.written import Outgoing
from captoken.adapters._http.exchange import Header, values_of
from captoken.adapters._mcp.messages import CALL, Headers

_log = logging.getLogger("captoken.gateway")

# A request whose answer is a stream without an end.
LISTEN = "subscriptions/listen"

_JSON, _EVENTS = b"application/json", b"text/event-stream"
_SESSION, _VERSION = b"mcp-session-id", b"mcp-protocol-version"

# Two ends of lines: the end of an event. A line ends in three ways (HTML, 9.2.6).
_event_end = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_line_end = re.compile(rb"\r\n|\n|\r")
_is_plain = re.compile(rb"[!-~]{1,512}").fullmatch

# Pages of a server's list of tools, at most.
_PAGES = 100

# What a message names, by its method: a header repeats it.
_NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


class Over(Broken):
    """The server knows the session no more."""


class Remote:
    """One server, in one session of it or in none."""

    def __init__(
        self, upstream: Upstream, service: McpService, mirrored: Mirrored, version: str = ""
    ) -> None:
        self._upstream = upstream
        self._mirrored = mirrored
        self._service = service
        self._path = urlsplit(service.url or "").path or "/"
        self.spellings: tuple[bytes, ...] = ()

        # What the server has said at `initialize`; or of a client that began no session here.
        self.session = b""
        self.version = version

    async def exchange(
        self, message: Mapping[str, Any], stated: Headers = ()
    ) -> AsyncGenerator[Came]:
        """Send a message, and what comes until its answer. Raises Unreachable and Broken.

        `stated`: what the client has repeated of a call's arguments in headers.
        """
        number = message.get("id") if "method" in message else None
        outgoing = self._outgoing("POST", message, envelopes.encode(message))
        outgoing.headers.append((b"content-type", _JSON))
        is_mirrored = message.get("method") == CALL and _own_version(message) is not None
        if is_mirrored:
            outgoing.headers += await self._repeated(message["params"], stated)
        is_long = message.get("method") == LISTEN
        connection, answer = await self._sent(outgoing, patient=is_long)
        try:
            if answer.status == 404 and self.session:
                raise Over("the session is over")
            if number is None:
                return
            if message["method"] == "initialize":
                self.session = self._given(answer)
            async for came in _messages(answer):
                if message["method"] == "initialize":
                    self._note(came.data)
                if is_mirrored and answer.status == 400 and _is_mismatch(came.data):
                    self._mirrored.forget()
                yield came
        finally:
            connection.release()

    async def listen(self) -> AsyncGenerator[Came]:
        """What the server says unasked. Raises Unreachable and Broken."""
        outgoing = self._outgoing("GET", {}, b"")
        connection, answer = await self._sent(outgoing, patient=True)
        try:
            if answer.status != 200:
                raise Over("the server says nothing unasked, or the session is over")
            yield Came()
            async for came in _messages(answer):
                yield came
        finally:
            connection.release()

    async def close(self) -> None:
        """End the session, if there is one."""
        if self.session:
            connection, _ = await self._sent(self._outgoing("DELETE", {}, b""))
            self.session = b""
            connection.close()

    # --- what goes out ----------------------------------------------------------------------------

    async def _repeated(self, params: Mapping[str, Any], stated: Headers) -> list[Header]:
        """The headers that repeat arguments of a call. Raises Unreachable, and Unfit."""
        name = params["name"]
        if not self._mirrored.is_known(name):
            await self._learn(params["_meta"])
        headers = self._mirrored.headers(name, params.get("arguments") or {}, stated)
        writer = self._service.writer
        # Only the key stands in the header of the key.
        own = b"" if writer is None else writer.header.encode()
        return [header for header in headers if header[0] != own]

    async def _learn(self, meta: Mapping[str, Any]) -> None:
        """List the tools: nobody has done so yet. Raises Unreachable where that fails."""
        params: dict[str, Any] = {
            "_meta": {key: item for key, item in meta.items() if key != "progressToken"}
        }
        for _ in range(_PAGES):
            listed = await self._listed(params)
            tools = listed.get("tools")
            for tool in tools if type(tools) is list else ():
                if type(tool) is dict and type(tool.get("name")) is str:
                    self._mirrored.note(tool["name"], tool)
            params["cursor"] = listed.get("nextCursor")
            if type(params["cursor"]) is not str:
                self._mirrored.is_whole = True
                return
        raise Unreachable("the list of tools has no end")

    async def _listed(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A page of the tools. Raises Unreachable, since nothing of a call was sent yet."""
        message = {"jsonrpc": "2.0", "id": 0, "method": "tools/list", "params": params}
        try:
            async with aclosing(self.exchange(message)) as stream:
                async for came in stream:
                    heard = envelopes.hear(came.data) if came.data else None
                    if heard is not None and heard.is_answer:
                        Seeker(self.spellings).look(came.data)
                        return envelopes.opened(heard.result)
        except (Broken, Told, ValueError) as problem:
            raise Unreachable(f"the tools are not listed: {problem}") from None
        raise Unreachable("the tools are not listed")

    def _outgoing(self, method: str, message: Mapping[str, Any], body: bytes) -> Outgoing:
        """A request, but for the key."""
        headers: list[Header] = [(b"accept", _JSON + b", " + _EVENTS)]
        if self.session:
            headers.append((_SESSION, self.session))
        own = _own_version(message)
        version = own or self.version
        if version and message.get("method") != "initialize":
            headers.append((_VERSION, version.encode("ascii")))
        if own:
            headers.append((b"mcp-method", header_value(message["method"])))
            named = message["params"].get(_NAMED.get(message["method"], ""))
            if type(named) is str:
                headers.append((b"mcp-name", header_value(named)))
        return Outgoing(method, self._path, "", headers, body)

    async def _sent(
        self, outgoing: Outgoing, *, patient: bool = False
    ) -> tuple[Connection, Answer]:
        """Send it, with the key. Raises Unreachable and Broken."""
        service = self._service
        try:
            secret = Secret(text="") if service.source is None else await service.source.read()
        except Unavailable as problem:
            _log.error("%s: the key cannot be had: %s", service.name, problem)
            raise Unreachable("the key cannot be had") from None
        connection = await self._upstream.connect()
        try:
            if service.writer is not None:
                self.spellings = tuple(
                    spelling
                    for hidden in service.writer.hidden(secret)
                    for spelling in spellings_of(hidden)
                )
                service.writer.write(secret, outgoing)
            answer = await connection.send(outgoing, patient=patient)
            self._check(answer)
        except BaseException:
            connection.close()
            raise
        return connection, answer

    def _check(self, answer: Answer) -> None:
        """Raise Broken for an answer that is none of MCP's."""
        if answer.status == 401:
            if self._service.source is not None:
                self._service.source.forget()
            _log.error("%s does not take the gateway's key", self._service.name)
            raise Broken("the service does not take the gateway's key")
        if 300 <= answer.status < 400:
            raise Broken("the service answers with a redirect, which is not followed")
        if values_of(answer.headers, b"content-encoding") not in ([], [b"identity"]):
            raise Broken("the answer has a coding that was not asked for")

    def _given(self, answer: Answer) -> bytes:
        """The id of the session that a server opens. Raises Broken for what is none."""
        given = values_of(answer.headers, _SESSION)
        if not given:
            return b""
        try:
            Seeker(self.spellings).look(given[0])
        except Told:
            given = []
        if len(given) != 1 or _is_plain(given[0]) is None:
            raise Broken("the session has no id that can be passed on")
        return given[0]

    def _note(self, data: bytes) -> None:
        """The revision that the server chose: each later request names it."""
        try:
            heard = envelopes.hear(data)
        except ValueError:
            return
        version = envelopes.opened(heard.result).get("protocolVersion")
        if version in envelopes.HANDSHAKE:
            self.version = version


def _own_version(message: Mapping[str, Any]) -> Any:
    """The revision that a message itself is of; None before 2026-07-28."""
    return (message.get("params") or {}).get("_meta", {}).get(envelopes.VERSION)


def _is_mismatch(data: bytes) -> bool:
    """Does the server say that headers and message disagree?"""
    try:
        return envelopes.opened(envelopes.hear(data).error).get("code") == MISMATCH
    except ValueError:
        return False


# --- what comes back ------------------------------------------------------------------------------


async def _messages(answer: Answer) -> AsyncIterator[Came]:
    """The messages of an answer: one of JSON, or events. Raises Broken."""
    kind = b"".join(values_of(answer.headers, b"content-type")).partition(b";")[0].strip().lower()
    if kind == _EVENTS:
        async for came in _events(answer.pieces):
            yield came
        return
    whole = bytearray()
    async for piece in answer.pieces:
        whole += piece
        if len(whole) > LONGEST:
            raise Broken("the answer is too long")
    if kind != _JSON:
        raise Broken(f"the answer has the status {answer.status} and is no message")
    yield Came(bytes(whole), is_last=True)


async def _events(pieces: AsyncIterator[bytes]) -> AsyncIterator[Came]:
    """Server-sent events. Raises Broken for one that is too long."""
    held, start = b"", 0
    async for piece in pieces:
        held += piece
        while (found := _event_end.search(held, start)) is not None:
            yield _event(held[: found.start()])
            held, start = held[found.end() :], 0
        start = max(0, len(held) - 3)
        if len(held) > LONGEST:
            raise Broken("an event is too long")


def _event(block: bytes) -> Came:
    """One event; without data a comment, or a place to go on from, where nobody does."""
    data = []
    for line in _line_end.split(block):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
    return Came(b"\n".join(data))
