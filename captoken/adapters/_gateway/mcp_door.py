"""A gateway for MCP whose clients speak Streamable HTTP to it, at `/NAME/mcp`.

    door = McpDoor(service, verifier, timeout=60, max_body=262144)
    await door(scope, receive, send)

Revisions until 2025-11-25 have sessions. The id of one is the gateway's own, and known to the tree
alone that opened it; behind it stands one session of the server's, or one server that was started.
No stream is resumed: a server might go on with what it has sent in another session.
In 2026-07-28 each request stands by itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from time import monotonic
from typing import Any

from captoken._format.encoding import b64encode
from captoken._format.entropy import random_bytes
from captoken._verification.verifier import AsyncVerifier
from captoken.adapters._gateway import envelopes
from captoken.adapters._gateway.credentials import Unavailable
from captoken.adapters._gateway.ends import Came, Child, End
from captoken.adapters._gateway.envelopes import Malformed
from captoken.adapters._gateway.lines import BROKEN
from captoken.adapters._gateway.opening import McpService
from captoken.adapters._gateway.reading import check_framing
from captoken.adapters._gateway.relaying import Asked, Conversation, Refused, Relay, unsupported
from captoken.adapters._gateway.remote import LISTEN, Over, Remote
from captoken.adapters._gateway.upstream import Broken, Unreachable, Upstream
from captoken.adapters._http.credentials import check_head
from captoken.adapters._http.exchange import (
    Body,
    Header,
    Receive,
    RequestError,
    Response,
    Scope,
    Send,
    json_response,
    respond,
    until_gone,
    values_of,
)
from captoken.adapters._http.refusals import Refusals
from captoken.adapters._step_up import steps_of

_log = logging.getLogger("captoken.gateway")

_SESSION = b"mcp-session-id"
_VERSION = b"mcp-protocol-version"

# Sessions at once, of servers elsewhere and of those that were started; and the seconds after which
# one is over in which nothing was said.
_MOST = {False: 10_000, True: 100}
_IDLE = 1800

# Seconds in which a server ends its answer, so that the connection is used again.
_LINGER = 0.2

_EVENTS: list[Header] = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
_STATUS = {"invalid": 401, "proof": 401, "unavailable": 503}


class _Session:
    """One client, and its server, which is there with the first message that was let through."""

    def __init__(self, relay: Relay, end: End | None) -> None:
        self.talk = Conversation(relay)
        self.end = end
        self.used = monotonic()
        self.streams = 0


class McpDoor:
    """Requests to one MCP server: judged, and passed on."""

    def __init__(
        self,
        service: McpService,
        verifier: AsyncVerifier,
        *,
        timeout: float,
        max_body: int,
        metadata: str | None = None,
        step_up: bool = False,
    ) -> None:
        """`metadata`: where clients find out who logs people in.

        `step_up`: they are told what a person could allow after all.
        """
        self._steps = steps_of(step_up, metadata)
        self._refusals = Refusals(service.name, metadata)
        named = "" if metadata is None else f' resource_metadata="{metadata}"'
        self._challenge = f"Bearer{named}"
        self._service = service
        self._max_body = max_body
        self._relay = Relay(
            service.name,
            verifier,
            prices=service.prices,
            asks=service.asks,
            free=service.free,
        )
        self._relay.gate.steps_up = self._steps is not None
        self._path = f"/{service.name}/mcp".encode()
        self._sessions: dict[str, _Session] = {}
        self._upstream = None
        if service.url is not None:
            self._upstream = Upstream(service.url, timeout=timeout, ca=service.ca)

    @property
    def opened(self) -> int:
        """The number of connections that were opened."""
        return 0 if self._upstream is None else self._upstream.opened

    async def close(self) -> None:
        """End all sessions: those of servers that were started end with them."""
        for name in list(self._sessions):
            await self._over(name, is_told=self._upstream is None)
        if self._upstream is not None:
            self._upstream.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        try:
            answer = await self._answered(scope, receive, send)
        except RequestError as problem:
            answer = _said(problem.status, envelopes.error(None, envelopes.INVALID, problem.text))
        except Malformed as problem:
            said = envelopes.error(problem.id, problem.code, problem.text, problem.data)
            answer = _said(400, said)
        except Refused as refused:
            answer = self._refused(refused)
        if answer is not None:
            await respond(send, answer)

    def _refused(self, refused: Refused) -> Response:
        """The answer to what is not sent: an invitation, where a person could allow it."""
        if self._steps is not None and refused.denied is not None and refused.answer is not None:
            scope = self._steps.scope_for(refused.denied.decision)
            if scope is not None:
                return self._refusals.denied(refused.denied, scope)
        return _refusal(refused, self._challenge)

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """The answer of the gateway's own, or None where the server's was passed on."""
        check_framing(scope["headers"])
        check_head(scope)
        if scope["raw_path"] != self._path or scope["query_string"]:
            raise RequestError(404, f"The address is /{self._service.name}/mcp.")
        match scope["method"]:
            case "POST":
                return await self._post(scope, receive, send)
            case "GET":
                return await self._listen(scope, receive, send)
            case "DELETE":
                return await self._end(scope)
            case _:
                raise RequestError(405, "POST, and in a session GET and DELETE.")

    # --- sessions ---------------------------------------------------------------------------------

    def _named(self, headers: list[Header]) -> tuple[str, _Session | None]:
        """The session that a request names. Raises RequestError for one that is not there."""
        named = [value.decode("latin-1") for value in values_of(headers, _SESSION)]
        if len(named) > 1:
            raise RequestError(400, "More than one session is named.")
        if not named:
            return "", None
        session = self._sessions.get(named[0])
        if session is None:
            raise RequestError(404, "Session not found")
        session.used = monotonic()
        return named[0], session

    async def _numbered(self, session: _Session) -> str:
        """The id of a new session. Raises Broken where there are too many."""
        late = monotonic() - _IDLE
        for name, each in list(self._sessions.items()):
            if each.used < late and not each.streams:
                await self._over(name)
        if len(self._sessions) >= _MOST[self._upstream is None]:
            raise Broken("there are too many sessions")
        name = b64encode(random_bytes(24))
        self._sessions[name] = session
        return name

    async def _over(self, name: str, *, is_told: bool = True) -> None:
        """A session has ended. The server is told, unless it said so."""
        session = self._sessions.pop(name, None)
        if session is not None and session.end is not None and is_told:
            with suppress(Unreachable, Broken):
                await session.end.close()

    def _shared(self, end: End) -> bool:
        """Does the server give a session that another client has?"""
        own = getattr(end, "session", b"")
        return bool(own) and any(
            getattr(each.end, "session", b"") == own for each in self._sessions.values()
        )

    async def _reached(self, session: _Session) -> End:
        """The server of a session, started where it is to be. Raises Unreachable."""
        if session.end is None:
            try:
                session.end = await Child.start(
                    self._service.command, self._service.source, self._service.variable
                )
            except (Unavailable, OSError) as problem:
                _log.error("%s cannot be started: %s", self._service.name, problem)
                raise Unreachable(type(problem).__name__) from None
        return session.end

    # --- what is asked ----------------------------------------------------------------------------

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        headers = list(scope["headers"])
        kinds = values_of(headers, b"content-type")
        if [kind.partition(b";")[0].strip().lower() for kind in kinds] != [b"application/json"]:
            raise RequestError(415, "A message is application/json.")
        said = envelopes.read(await Body(receive, self._max_body).read_all())
        name, session = self._named(headers)
        if session is None:
            session = self._begun(said, headers)
        asked = await session.talk.ask(said, headers, name)
        out = _Out(send)
        session.streams += 1
        try:
            await until_gone(receive, self._pass_on(asked, name, session, out))
        finally:
            session.streams -= 1
            if not name and self._upstream is None and not _is_kept(self._sessions, session):
                await _closed(session)
        return None

    def _begun(self, said: envelopes.Said, headers: list[Header]) -> _Session:
        """What stands before one message that names no session. Raises Malformed."""
        if self._upstream is not None:
            stated = b"".join(values_of(headers, _VERSION)).decode("latin-1")
            version = stated if stated in envelopes.HANDSHAKE else ""
            end = Remote(self._upstream, self._service, self._relay.mirrored, version)
            return _Session(self._relay, end)
        if said.version is not None:
            raise unsupported(said.version, said.id, envelopes.HANDSHAKE)
        if said.method != "initialize":
            raise Malformed(envelopes.INVALID, "A session begins with initialize.", said.id)
        return _Session(self._relay, None)

    async def _pass_on(self, asked: Asked, name: str, session: _Session, out: _Out) -> None:
        """Send a message, and bring back what comes of it."""
        talk = session.talk
        answer: dict[str, Any] | None
        try:
            end = await self._reached(session)
            async with aclosing(end.exchange(asked.sent, asked.stated)) as stream:
                if await self._brought(stream, asked, session, end, out):
                    return await _lingered(stream)
            answer = talk.failed(asked, BROKEN)
        except Unreachable as problem:
            answer = await talk.undone(asked, problem)
        except asyncio.CancelledError:
            talk.gone(asked)
            raise
        except Over:
            await self._over(name, is_told=False)
            raise RequestError(404, "Session not found") from None
        except Broken as problem:
            _log.warning("%s gave no whole answer: %s", self._service.name, problem)
            answer = talk.failed(asked, BROKEN)
        if answer is not None:
            await out.say(envelopes.encode(answer), is_last=True)
        await out.end()

    async def _brought(
        self,
        stream: AsyncIterator[Came],
        asked: Asked,
        session: _Session,
        end: End,
        out: _Out,
    ) -> bool:
        """Bring back what comes of a message, to its answer. Was there one?"""
        async for came in stream:
            # The token of a long stream may have expired since, or been revoked.
            if asked.said.method == LISTEN and not await asked.grant.recheck():
                break
            if asked.said.method == "initialize" and not out.session:
                out.session = await self._open(session, end)
            await self._heard(came, session, end, out, asked)
            if not session.talk.is_waiting(asked):
                await out.end()
                return True
        return False

    async def _open(self, session: _Session, end: End) -> str:
        """A session, if the server has one. Raises Broken."""
        if isinstance(end, Remote) and not end.session:
            return ""
        if self._shared(end):
            raise Broken("the server gave a session that another client has")
        return await self._numbered(session)

    async def _heard(
        self, came: Came, session: _Session, end: End, out: _Out, asked: Asked | None = None
    ) -> None:
        """One message of the server's, on its way to the client."""
        if not came.data:
            return await out.say(b"")
        passed = await session.talk.answer(came.data, end.spellings)
        if passed.client is not None:
            is_last = asked is not None and not session.talk.is_waiting(asked)
            await out.say(passed.client, is_last=is_last)
        if passed.server is not None:
            async for _ in end.exchange(passed.server):
                pass

    async def _listen(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """A stream in a session, for what the server says unasked."""
        headers = list(scope["headers"])
        name, session = self._named(headers)
        if session is None or session.end is None:
            raise RequestError(405, "Nothing is said unasked but in a session.")
        grant = await session.talk.enter("GET", headers, name)
        # Servers keep events by the number of their request, which is the same in many sessions.
        if values_of(headers, b"last-event-id"):
            raise RequestError(400, "No stream is resumed here: make the request anew.")
        end, out = session.end, _Out(send)

        async def bring() -> None:
            async with aclosing(end.listen()) as stream:
                async for came in stream:
                    # The token may have expired since, or been revoked.
                    if not await grant.recheck():
                        break
                    await self._heard(came, session, end, out)
            await out.end()

        session.streams += 1
        try:
            await until_gone(receive, bring())
        except (Broken, Unreachable):
            if not out.has_begun:
                raise RequestError(405, "The server says nothing unasked.") from None
            await out.end()
        finally:
            session.streams -= 1
            session.used = monotonic()
        return None

    async def _end(self, scope: Scope) -> Response:
        """The end of a session, as its client says."""
        name, session = self._named(list(scope["headers"]))
        if session is None:
            raise RequestError(405, "No session is named.")
        await session.talk.enter("DELETE", scope["headers"], name)
        await self._over(name)
        return Response(204, [], b"")


def _is_kept(sessions: dict[str, _Session], session: _Session) -> bool:
    return any(each is session for each in sessions.values())


async def _closed(session: _Session) -> None:
    """End a server that no session came of."""
    if session.end is not None:
        await session.end.close()


async def _lingered(stream: AsyncIterator[Came]) -> None:
    """Let a server end its answer, which has come."""
    with suppress(TimeoutError, Broken):
        async with asyncio.timeout(_LINGER):
            async for _ in stream:
                pass


class _Out:
    """What goes to the client: one message as JSON, or several as events."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.session = ""
        self.has_begun = False
        self._has_ended = False

    async def say(self, data: bytes, *, is_last: bool = False) -> None:
        """One message. Without data it is a sign of life."""
        if is_last and not self.has_begun:
            return await self._whole(200, data)
        if not self.has_begun:
            self.has_begun = True
            await self._start(200, _EVENTS)
        text = b"data: " + data + b"\n\n" if data else b":\n\n"
        await self._send({"type": "http.response.body", "body": text, "more_body": True})

    async def end(self) -> None:
        """Nothing more. What brought no message was accepted."""
        if not self.has_begun:
            return await self._whole(202, b"")
        if not self._has_ended:
            self._has_ended = True
            await self._send({"type": "http.response.body", "body": b""})

    async def _whole(self, status: int, data: bytes) -> None:
        self.has_begun = self._has_ended = True
        answer = Response.of(status, b"application/json", data)
        await self._start(status, answer.headers)
        await self._send({"type": "http.response.body", "body": data})

    async def _start(self, status: int, headers: list[Header]) -> None:
        own = [(_SESSION, self.session.encode("ascii"))] if self.session else []
        start = {"type": "http.response.start", "status": status, "headers": [*headers, *own]}
        await self._send(start)


def _said(status: int, message: dict[str, Any]) -> Response:
    return json_response(status, message)


def _refusal(refused: Refused, challenge: str) -> Response:
    """The answer to what is not sent: an error of JSON-RPC, and 401 where no token is good."""
    # What waits for no answer is told by the status: 403 for what is denied.
    unanswered = 403 if refused.kind else 202
    status = _STATUS.get(refused.kind, 200 if refused.answer else unanswered)
    if refused.answer is not None and status == 503:
        status = 200
    body = b"" if refused.answer is None else json.dumps(refused.answer).encode("ascii")
    answer = Response.of(status, b"application/json", body)
    if status == 401:
        header = (b"www-authenticate", challenge.encode("ascii"))
        return answer._replace(headers=[*answer.headers, header])
    return answer
