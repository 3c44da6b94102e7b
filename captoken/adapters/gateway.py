"""A gateway to third-party HTTP services, whose API keys the agent never sees (docs/gateway.md).

    with opened("gateway.toml") as gateway:
        uvicorn.run(gateway, …)

1. A request to `/NAME/…` is for the service of that name. Its token is for that audience only.
2. The token must be where the service's clients put their API key, and nowhere else.
3. The whole request is read, strictly, before anything is decided. A request that is no operation
   of the service is refused with the code `tool`, and the gateway does not connect anywhere.
4. The outgoing request is written anew from what was judged. The service's API key is added last.
5. Without a verifier, a ledger, a key and a description, nothing is sent and the response is 503. A
   request that was sent counts as spent, whatever happens to it. Nothing is sent twice.
6. Responses are passed on unchanged. If a response reveals the API key, it is cut off there.

Not checked: everything else that a response says. A `GET` may return more than somebody should see.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import zlib
from base64 import b64decode
from binascii import Error as NoBase64
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from captoken._language.bounds import BODY_BYTES, TOO_LARGE, is_bounded
from captoken._verification.decision import Denied
from captoken._verification.grant import AsyncGrant
from captoken._verification.verifier import AsyncVerifier
from captoken.adapters._gateway.credentials import Secret, Unavailable, source_of
from captoken.adapters._gateway.forward_auth import TELL, ForwardAuth, Questions, Tell
from captoken.adapters._gateway.kept import Kept
from captoken.adapters._gateway.opening import Configuration, Service, configured, stores
from captoken.adapters._gateway.reading import Asked, NoOperation, check_framing
from captoken.adapters._gateway.seeking import Links, Seeker, Told, spellings_of
from captoken.adapters._gateway.signed import CHUNKED, unchunked
from captoken.adapters._gateway.strict import bad
from captoken.adapters._gateway.upstream import (
    UPSTREAM,
    Answer,
    Broken,
    Connection,
    Unreachable,
    Upstream,
)
from captoken.adapters._gateway.waiting import within
from captoken.adapters._http.credentials import without_credentials
from captoken.adapters._http.exchange import (
    Body,
    ClientGone,
    Header,
    Message,
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
from captoken.adapters._http.origins import is_path
from captoken.adapters._http.refusals import METADATA_PATH, metadata_of
from captoken.adapters.asgi import PLACE, CaptokenMiddleware, granted_to
from captoken.stores.ports import Once

if TYPE_CHECKING:
    from captoken.adapters._gateway.authzen import Point
    from captoken.adapters._gateway.mcp_door import McpDoor

__all__ = ["Gateway", "configured", "opened"]

_log = logging.getLogger("captoken.gateway")

# Of one connection alone (RFC 9110, 7.6.1), or about the origin that a client does not see.
_NOT_PASSED = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"set-cookie",
        b"set-cookie2",
        b"strict-transport-security",
        b"alt-svc",
        b"content-encoding",
    )
)
_RETRY_AFTER = (b"retry-after", b"5")

_SEGMENTS = 16  # of a path that the log has

_PIECE = 64 << 10  # of an answer that was compressed



@contextmanager
def opened(path: str, *, create: bool = False) -> Generator[Gateway]:
    """Open the gateway of a file, until the end of the block.

    `create` creates its ledger and its store of proofs, if they are files that are missing. Raises
    ValueError, OSError, KeyringError, StoreError or AuditError for whatever is wrong with the file.
    """
    found = configured(path)
    with stores(found, create=create) as parts:
        verifiers = {name: parts.verifier(name) for name in found.file.audiences}
        yield Gateway(found, verifiers, closing=parts.aclose, kept=parts.kept)


class Gateway:
    """An ASGI application that forwards what tokens permit: see the module.

    `found` is a checked file. `verifiers` has a verifier for each service, whose audience is the
    service's name. `closing` is awaited when the server ends, and closes their stores. `kept` is
    what `opened` reads again while it runs.
    """

    def __init__(
        self,
        found: Configuration,
        verifiers: Mapping[str, AsyncVerifier],
        *,
        closing: Callable[[], Awaitable[None]] | None = None,
        kept: Kept | None = None,
    ) -> None:
        self._closing = closing
        self._kept = kept
        stated = found.file.gateway
        self._doors: dict[str, _Door | McpDoor | Point] = {
            name: _Door(
                service,
                verifiers[name],
                origin=found.origin,
                timeout=stated.timeout,
                max_body=stated.max_body,
                metadata=found.metadata(name),
                step_up=stated.step_up,
            )
            for name, service in found.services.items()
        }
        if found.mcp:
            # The guard of MCP's messages is loaded where it is needed.
            from captoken.adapters._gateway.mcp_door import McpDoor

            for name, each in found.mcp.items():
                self._doors[name] = McpDoor(
                    each,
                    verifiers[name],
                    timeout=stated.timeout,
                    max_body=stated.max_body,
                    metadata=found.metadata(name),
                    step_up=stated.step_up,
                )
        self._metadata = _documents(found)
        # The addresses of doors that do not begin with their name.
        self._places: dict[bytes, Point] = {}
        if found.authzen:
            from captoken.adapters._gateway.authzen import Point

            for name, audience in found.authzen.items():
                point = Point(
                    audience, verifiers[name], origin=found.origin, max_body=stated.max_body
                )
                self._doors[name] = self._places[point.place_of_metadata] = point
        # For proxies that ask whether a request may pass: over HTTP, if they are known by a secret.
        self.questions = Questions(self._doors, found)
        self._forward = None
        if found.file.proxy.secret is not None:
            source = source_of(found.file.proxy.secret, 60, found.folder)
            self._forward = ForwardAuth(self.questions, source)
        self._streams = stated.streams
        self._timeout = stated.timeout
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. Nothing but HTTP is served."""
        if scope["type"] == "lifespan":
            return await self._live(receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        if self._open >= self._streams:
            return await respond(send, _problem(503, "The gateway has all the streams it takes."))
        self._open += 1
        try:
            await self._serve(scope, receive, send)
        finally:
            self._open -= 1

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A server that gives no raw bytes has decoded them, and nobody knows what was sent.
        raw: bytes = scope.get("raw_path") or b""
        if self._forward is not None and await self._forward.is_asked(scope):
            with suppress(ClientGone):
                await self._forward(
                    scope, _timed(receive, self._timeout), _taken(send, self._timeout)
                )
            return
        document = self._metadata.get(raw)
        if document is not None and scope["method"] in ("GET", "HEAD"):
            is_head = scope["method"] == "HEAD"
            return await respond(send, document, without_body=is_head)
        name, slash, _ = raw.removeprefix(b"/").partition(b"/")
        door = self._places.get(raw) or self._doors.get(name.decode("latin-1"))
        if not slash or door is None or not is_path(raw, scope["query_string"]):
            is_head = scope["method"] == "HEAD"
            response = _problem(404, "There is no service of this name here.")
            return await respond(send, response, without_body=is_head)
        # Whoever takes nothing has gone, also where the answer is the gateway's own.
        taken = send if UPSTREAM in scope else _taken(send, self._timeout)
        with suppress(ClientGone):
            await door(scope, _timed(receive, self._timeout), taken)

    @property
    def opened(self) -> dict[str, int]:
        """The number of opened connections, by service."""
        return {name: door.opened for name, door in self._doors.items()}

    def reload(self) -> None:
        """Read the keyring again, and open a trail again that was moved: on SIGHUP.

        It takes effect soon. For handlers of signals, and from whichever thread. A keyring that has
        changed is read again without it, within a second.
        """
        if self._kept is not None:
            self._kept.tell()

    async def _live(self, receive: Receive, send: Send) -> None:
        """Until the server ends: then the connections that wait are closed."""
        kind = ""
        looking: asyncio.Task[None] | None = None
        while kind != "lifespan.shutdown":
            kind = (await receive())["type"]
            if kind == "lifespan.startup" and self._kept is not None:
                looking = asyncio.create_task(self._kept.look_after())
            if kind == "lifespan.shutdown":
                if looking is not None:
                    looking.cancel()
                for door in self._doors.values():
                    await door.close()
                if self._closing is not None:
                    await self._closing()
            await send({"type": f"{kind}.complete"})


def _documents(found: Configuration) -> dict[bytes, Response]:
    """What says who logs people in for each service (RFC 9728), by its path."""
    servers = list(found.file.gateway.authorization_servers)
    if not servers:
        return {}
    return {
        f"{METADATA_PATH}{found.place(name)}".encode(): metadata_of(
            found.origin + found.place(name), {"authorization_servers": servers}
        )
        for name in found.file.service
    }


def _problem(status: int, text: str) -> Response:
    """An answer of the gateway's own, to whoever asks."""
    response = json_response(status, {"status": status, "detail": text})
    if status != 503:
        return response
    return response._replace(headers=[*response.headers, _RETRY_AFTER])


def _timed(receive: Receive, timeout: float) -> Receive:
    """`receive`, by which a body has to be there in time. What comes behind it has all the time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    whole = False

    async def timed() -> Message:
        nonlocal whole
        if whole:
            return await receive()
        try:
            message = await within(deadline - loop.time(), receive())
        except TimeoutError:
            raise RequestError(408, "The body did not come in time.") from None
        whole = not message.get("more_body", False)
        return message

    return timed


def _taken(send: Send, timeout: float) -> Send:
    """`send`, of which each piece has to be taken in time: a slow reader holds no stream.

    Raises ClientGone for a client that takes nothing.
    """

    async def taken(message: Message) -> None:
        try:
            await within(timeout, send(message))
        except TimeoutError:
            raise ClientGone from None

    return taken


_PASSED = "captoken.passed"  # in the scope: what is answered is the service's own answer


def _saying(scope: Scope, send: Send, service: Service) -> Send:
    """`send`, of which the gateway's own answers say when to come again, where it is unavailable.

    And where the token stands, which may not be where RFC 6750 has it; and what is wrong, where
    clients of the service look for it.
    """
    start: Message = {}

    async def saying(message: Message) -> None:
        nonlocal start
        if _PASSED in scope:
            return await send(message)
        if message["type"] == "http.response.start":
            start = message
            return
        headers = [(name, _in_place(value, service.tokens)) for name, value in start["headers"]]
        if start["status"] == 503:
            headers.append(_RETRY_AFTER)
        if message["body"]:
            body = _in_place(message["body"], service.tokens)
            if service.nests_errors:
                body = _nested(body)
            message = {**message, "body": body}
            length = b"%d" % len(body)
            headers = [
                (name, length if name == b"content-length" else value) for name, value in headers
            ]
        await send({**start, "headers": headers})
        await send(message)

    return saying


def _in_place(said: bytes, tokens: tuple[str, ...]) -> bytes:
    """A text that says where a token stands, for a service whose clients put it elsewhere."""
    if tokens == ("bearer",):
        return said
    places = " or ".join(map(_spelled_place, tokens)).encode("ascii")
    said = said.replace(b"A bearer token is needed.", b"A token is needed, as " + places + b".")
    stray = b"Send the token in the Authorization header,"
    return said.replace(stray, b"Send the token as " + places + b",")


def _spelled_place(place: str) -> str:
    """How a client writes a token in one of the places that a file names."""
    kind, _, name = place.partition(":")
    if kind == "header":
        return f"{name}: TOKEN"
    if kind == "basic":
        return "Authorization: Basic, its password"
    return f"Authorization: {name or 'Bearer'} TOKEN"


def _nested(body: bytes) -> bytes:
    """An answer of the gateway's own, whose `error` is an object: others break clients."""
    said = json.loads(body)
    error = {
        "type": said.get("error", "invalid_request"),
        "code": said.get("code"),
        "message": said.get("for_model", said["detail"]),
    }
    return json.dumps({**said, "error": error}).encode("ascii")


# --- one service ----------------------------------------------------------------------------------


class _Door:
    """Requests to one service: judged, and passed on."""

    def __init__(
        self,
        service: Service,
        verifier: AsyncVerifier,
        *,
        origin: str,
        timeout: float,
        max_body: int,
        metadata: str | None,
        step_up: bool,
    ) -> None:
        self._service = service
        self._max_body = max_body
        self._once = service.reading.once
        self._spelled: tuple[Secret, tuple[bytes, ...]] = (Secret(text=""), ())
        self._outside = f"{origin}/{service.name}".encode()
        self.upstream = Upstream(service.url, timeout=timeout, ca=service.ca)
        self._inside = service.url.rstrip("/").encode()
        self._base = urlsplit(service.url).path.rstrip("/").encode()
        self._guarded = CaptokenMiddleware(
            self._judge,
            verifier,
            origin=origin,
            realm=service.name,
            resource_metadata=metadata,
            max_body=max_body,
            step_up=step_up,
        )

    @property
    def opened(self) -> int:
        """The number of connections that were opened."""
        return self.upstream.opened

    async def close(self) -> None:
        """Close the connections that wait."""
        self.upstream.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        came = list(scope["headers"])
        try:
            # Before anything is read of a body: where it ends is what readers differ about.
            check_framing(came, self._service.writer.coding)
        except RequestError as problem:
            return await respond(send, _problem(problem.status, problem.text))
        headers = as_bearer(came, self._service.tokens)
        # A scope of its own: who stands outside does not see the token anywhere else.
        # The log says the tool, once it is known: a path has values in it.
        inner = {**scope, "headers": headers, PLACE: f"{scope['method']} /{self._service.name}"}
        saying = _saying(inner, send, self._service)
        try:
            await self._guarded(inner, receive, saying)
        except Unavailable as problem:
            _log.error("there is no keyring, and all is denied: %s", problem)
            await respond(send, _problem(503, "The gateway has no keyring now."))

    async def _judge(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the request, decide, and pass it on. Raises Denied, RequestError, ClientGone."""
        grant = granted_to(scope)
        if not isinstance(grant, AsyncGrant):
            raise TypeError("a gateway needs an AsyncVerifier")
        asked = await self._asked(grant, scope, Body(receive, self._max_body))
        if not is_bounded(asked.access):
            raise Denied(await grant.deny(*TOO_LARGE))
        tell: Tell | None = scope.get(TELL)
        if tell is not None:
            await self._check_unseen(grant, asked)
        await _check_said(grant, asked)
        # Before anything is taken of a budget: without the key nothing can be sent.
        try:
            secret = await self._service.source.read()
            self._spellings(secret)
        except Unavailable as problem:
            _log.error("%s: the key cannot be had: %s", self._service.name, problem)
            raise RequestError(503, "The gateway has no key for this service now.") from None
        reserved = await grant.reserve(asked.access, once=self._known_as(asked, grant))
        # What is neither settled nor cancelled counts as spent.
        async with reserved:
            if tell is not None:
                self._service.writer.write(secret, asked.outgoing)
                scope[_PASSED] = True
                return await tell(asked.outgoing, send)
            try:
                connection = await scope.get(UPSTREAM, self.upstream).connect()
            except Unreachable as problem:
                await reserved.cancel()
                _log.error("%s cannot be reached: %s", self._service.name, problem)
                raise RequestError(503, "The service cannot be reached.") from None
            passing = self._pass_on(scope, asked, secret, connection, send)
            # A proxy that connects itself ends what runs here when its client has gone.
            await (passing if UPSTREAM in scope else until_gone(receive, passing))

    async def _check_unseen(self, grant: AsyncGrant, asked: Asked) -> None:
        """Raise Denied for what a proxy cannot send that shows neither bodies nor answers."""
        if not self._service.unseen:
            why = 'the service does not say answers = "unseen": its answers have to pass here'
            raise Denied(await grant.deny("tool", why, asked.access))
        if asked.operation.body or asked.operation.opaque:
            why = "the operation has a body, which nobody would see"
            raise Denied(await grant.deny("tool", why, asked.access))

    def _known_as(self, asked: Asked, grant: AsyncGrant) -> Once | None:
        """Give the request its key, if the agent has one, and say how it counts once.

        None for what counts each time: services keep keys for a POST alone.
        """
        if not asked.once:
            return None
        key, counted = asked.named(grant.link_ids[max((0, *grant.handed_on_at))])
        asked.outgoing.headers.append((self._once, key))
        seconds = self._service.retries_for
        if seconds is None or asked.outgoing.method != "POST":
            return None
        return Once(counted, seconds)

    async def _asked(self, grant: AsyncGrant, scope: Scope, body: Body) -> Asked:
        """What a request asks for. One that cannot be read, or is none, is denied and recorded."""
        raw = scope["raw_path"][len(self._service.name) + 1 :]
        try:
            began = self._service.reading.begin(scope["method"], raw, list(scope["headers"]))
            scope[PLACE] = began.operation.tool
            query = scope["query_string"]
            whole = await body.read_all()
            if (b"content-encoding", CHUNKED) in scope["headers"]:
                whole = unchunked(scope["headers"], whole)
            return self._service.reading.complete(began, query, whole)
        except NoOperation as problem:
            scope[PLACE] = f"{scope['method']} /{self._service.name}{_shape_of(raw)}"
            raise Denied(await grant.deny("tool", str(problem))) from None
        except RequestError as problem:
            problem.decision = (await grant.deny("argument", problem.text)).id
            raise

    async def _pass_on(
        self,
        scope: Scope,
        asked: Asked,
        secret: Secret,
        connection: Connection,
        send: Send,
    ) -> None:
        """Send it, and the answer back. Raises RequestError, or ClientGone once an answer began."""
        began = False
        try:
            self._service.writer.write(secret, asked.outgoing)
            answer = await connection.send(asked.outgoing)
            seeker = Seeker(self._spellings(secret))
            is_packed, has_links = _is_packed(answer), self._has_links(answer)
            is_changed = is_packed or has_links
            headers = self._checked(answer, seeker, is_changed)
            scope[_PASSED] = True
            await connection.begin(headers)
            pieces = _passed(answer, seeker, is_packed)
            if has_links:
                pieces = _linked(pieces, Links(self._inside, self._outside))
            # The first piece comes before the head goes out: one that tells the key is no answer.
            piece = await anext(pieces, b"")
            start = {"type": "http.response.start", "status": answer.status, "headers": headers}
            await send(start)
            began = answer.status != 500
            goes_on = True
            while goes_on:
                may_follow = is_changed or seeker.holds or not connection.is_whole
                goes_on = bool(piece) and may_follow
                await send({"type": "http.response.body", "body": piece, "more_body": goes_on})
                piece = await anext(pieces, b"")
        except Told:
            _log.error("%s told its key in an answer, which was withheld", self._service.name)
            raise _unanswered(began, 502, "The service's answer is withheld.") from None
        except Broken as problem:
            _log.warning("%s gave no whole answer: %s", self._service.name, problem)
            status = 504 if problem.late else 502
            raise _unanswered(began, status, "The service gave no whole answer.") from None
        finally:
            connection.release()

    def _spellings(self, secret: Secret) -> tuple[bytes, ...]:
        """How an answer could tell the key: worked out anew when it has changed.

        Raises Unavailable for a text that is no key of this service.
        """
        if secret.text != self._spelled[0].text:
            hidden = self._service.writer.hidden(secret)
            self._spelled = (secret, tuple(text for each in hidden for text in spellings_of(each)))
        return self._spelled[1]

    def _checked(self, answer: Answer, seeker: Seeker, is_changed: bool) -> list[Header]:
        """The headers that go back. Raises Told, and Broken for an answer that is not passed on.

        `is_changed`: its body does not go back as long as it came.
        """
        if answer.status > 599:
            raise Broken("the answer has a status that is none")
        if answer.status == 401:
            # Whoever asks can do nothing about it: it is the gateway's key that is not taken.
            self._service.source.forget()
            _log.error("%s does not take the gateway's key", self._service.name)
            raise Broken("the service does not take the gateway's key")
        named = b",".join(values_of(answer.headers, b"connection"))
        dropped = {each.strip().lower() for each in named.split(b",")}
        if is_changed:
            dropped.add(b"content-length")
        # No key has a line feed: none is found that stands in two headers.
        seeker.look(b"\n".join([value for _, value in answer.headers]))
        out = []
        for name, value in answer.headers:
            if name in (b"location", b"link", b"content-location"):
                value = self._seen_from_outside(name, value)
            if name not in _NOT_PASSED and name not in dropped:
                out.append((name, value))
        return out

    def _has_links(self, answer: Answer) -> bool:
        """Are addresses to be looked for in this answer?"""
        if not self._service.links:
            return False
        kinds = values_of(answer.headers, b"content-type")
        return any(b"json" in kind.lower() for kind in kinds)

    def _seen_from_outside(self, name: bytes, value: bytes) -> bytes:
        """An address of the service, as its clients reach it here."""
        whole, outside = self._inside, self._outside
        if name == b"link":
            return value.replace(b"<" + whole + b"/", b"<" + outside + b"/")
        if value.startswith(b"/") and not value.startswith(b"//"):
            whole, outside = self._base, b"/" + self._service.name.encode()
        rest = value.removeprefix(whole)
        fits = value.startswith(whole) and rest[:1] in (b"/", b"?", b"#", b">", b"")
        return outside + rest if fits else value


# A segment that names a kind of thing, as `refunds` or `v1` does. All else may be a value.
_is_word = re.compile(rb"[a-z][a-z-]{0,31}|v[0-9]{1,3}").fullmatch


def _shape_of(raw: bytes) -> str:
    """The path of a request that is no operation, for the log: without what may be a value."""
    segments = raw.split(b"/")[:_SEGMENTS]
    return "/".join(
        each.decode("ascii") if not each or _is_word(each) else "{…}" for each in segments
    )


async def _check_said(grant: AsyncGrant, asked: Asked) -> None:
    """Raise RequestError, where a budget counts by an argument that the request does not say.

    A cost that the operation itself does not state is no fault of the request's: `reserve` says so.
    """
    if not asked.unsaid or (await grant.recheck([asked.access])).code != "cost_unstated":
        return
    if (await grant.recheck([asked.costing_nothing])).code != "cost_unstated":
        unsaid = bad(asked.unsaid_text)
        unsaid.decision = (await grant.deny("argument", asked.unsaid_text, asked.access)).id
        raise unsaid


def _unanswered(began: bool, status: int, text: str) -> Exception:
    """What ends a request that has no whole answer. Of one that began, the connection ends."""
    return ClientGone() if began else RequestError(status, text)


async def _passed(answer: Answer, seeker: Seeker, is_packed: bool) -> AsyncIterator[bytes]:
    """The body of an answer, decoded and looked through. Raises Told or Broken."""
    kept = 0
    async for piece in _decoded(answer) if is_packed else answer.pieces:
        kept += len(piece)
        if answer.status == 500 and kept > BODY_BYTES:
            raise Broken("an answer of status 500 is too long")
        if ready := seeker.feed(piece):
            yield ready
    if rest := seeker.end():
        yield rest


async def _linked(pieces: AsyncIterator[bytes], links: Links) -> AsyncIterator[bytes]:
    """The same body, with addresses that lead back here."""
    async for piece in pieces:
        if ready := links.feed(piece):
            yield ready
    if rest := links.end():
        yield rest


def _is_packed(answer: Answer) -> bool:
    """Is it in gzip, in spite of what was asked? Raises Broken for any other coding."""
    codings = [value.lower() for value in values_of(answer.headers, b"content-encoding")]
    if codings not in ([], [b"identity"], [b"gzip"]):
        raise Broken("the answer has a coding that was not asked for")
    return codings == [b"gzip"]


async def _decoded(answer: Answer) -> AsyncIterator[bytes]:
    """The pieces of an answer in gzip, unpacked."""
    stream = zlib.decompressobj(31)
    try:
        async for piece in answer.pieces:
            while piece:
                yield stream.decompress(piece, _PIECE)
                piece = stream.unconsumed_tail
                if stream.unused_data:
                    raise Broken("something stands behind what is compressed")
    except zlib.error:
        raise Broken("the answer is not in the coding that it names") from None
    if not stream.eof:
        raise Broken("the answer ends within its coding")


# --- where the token stands -----------------------------------------------------------------------


def as_bearer(headers: Iterable[Header], places: tuple[str, ...]) -> list[Header]:
    """The headers, with a token from the place of the service's API key moved to Bearer.

    Anything else in that place stays and is refused by its reader. A token elsewhere is removed.
    """
    came = list(headers)
    if places == ("bearer",):
        return came
    for place in places:
        kind, _, name = place.partition(":")
        header = name.lower().encode() if kind == "header" else b"authorization"
        found = [value for each, value in came if each == header]
        if len(found) != 1:
            continue
        if place == "bearer":
            token = None  # it stands there already
        elif kind == "header":
            token = found[0]
        elif place == "basic":
            token = _password(found[0])
        else:
            scheme, space, rest = found[0].partition(b" ")
            token = rest if space and scheme.lower() == name.lower().encode() else None
        if token is not None and token.startswith((b"cap1_", b"caps1_")):
            # A client that signs has no key of its service: its signature says nothing to anybody.
            signed = (b"authorization", b"AWS4-HMAC-SHA256")
            rest_of = [
                pair for pair in came if pair[0] != header and (pair[0], pair[1][:16]) != signed
            ]
            return [*rest_of, (b"authorization", b"Bearer " + token)]
    return came if "bearer" in places else without_credentials(came)


def _password(value: bytes) -> bytes | None:
    """The token in the credentials of Basic: the password, or else the name before it."""
    scheme, _, coded = value.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    with suppress(NoBase64, ValueError):
        name, _, password = b64decode(coded, validate=True).partition(b":")
        return password or name
    return None
