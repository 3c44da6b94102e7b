"""The gateway for Envoy, which asks by `ext_proc` for each request (docs/gateway-envoy.md).

    begun = await serving(gateway, found)       # a server of gRPC, which has begun
    await begun.drain(60)

One stream of gRPC is one exchange over HTTP. The doors of `Gateway` see it as they see any other:
it comes in by ASGI, and what goes to the service goes out by a `Passing` in place of a connection.
So judge and writer are those of the relay, and Envoy carries what they say.

1. Whoever asks shows that it is the proxy: by a socket that nobody else can open, a certificate, or
   a secret. Anybody else is told that there is no such method, as of any that is not there.
2. Envoy has to send bodies of requests whole, and those of answers as they come: another mode is
   refused.
3. Envoy keeps no header of the client's that was not written anew.
4. An answer that tells the service's key is reset where it begins. Trailers are none.
5. A stream that ends in order lets Envoy go on by itself. So one without an answer is aborted.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from captoken._format.extras import extra
from captoken.adapters._gateway.credentials import (
    SECRET_OF_PROXY,
    Source,
    is_secret,
    source_of,
)
from captoken.adapters._gateway.ext_authz import Authorizer, add_authorizer
from captoken.adapters._gateway.opening import Configuration
from captoken.adapters._gateway.upstream import UPSTREAM, Answer, Broken
from captoken.adapters._gateway.written import Outgoing
from captoken.adapters._http.escapes import unescaped
from captoken.adapters._http.exchange import (
    ClientGone,
    Header,
    Message,
    Receive,
    RequestError,
    Scope,
    Send,
)
from captoken.adapters._http.origins import origin_of

with extra("envoy"):
    import grpc  # type: ignore[import-untyped]
    from envoy.service.ext_proc.v3 import external_processor_pb2 as protocol
    from envoy.service.ext_proc.v3 import external_processor_pb2_grpc as services

if TYPE_CHECKING:
    from captoken.adapters.gateway import Gateway

_log = logging.getLogger("captoken.gateway")

# In the metadata of whoever asks: the shared secret.
PROXY = "x-captoken-proxy"

_BUFFERED, _STREAMED = 2, 1  # of ProcessingMode.BodySendMode
_OVERWRITE, _APPEND = 2, 0  # of HeaderAppendAction
_REPLACED = frozenset((b"content-length", b"host", b"transfer-encoding"))

App = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]


class Exchange:
    """One request and its answer: messages from Envoy, and messages to it.

    `read` and `write` are those of the stream; `authorities`, by the name of a service, its host.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[Any]],
        write: Callable[[Any], Awaitable[None]],
        authorities: Mapping[str, bytes],
    ) -> None:
        self._read = read
        self._write = write
        self._authorities = authorities
        self._authority = b""
        self._has_body = False
        self._came: list[Header] = []
        self._is_in_body = False  # the body of the request has come, and waits for an answer
        self._is_answered = False  # by the gateway, or by Envoy itself
        self._own: Message = {}  # the head of an answer of the gateway's own
        self.passing: Passing | None = None

    async def begin(self) -> Scope | None:
        """The request by ASGI; None where Envoy itself has refused it.

        Raises ClientGone for what is none, and another mode: the exchange is reset then.
        """
        first = await self._read()
        kind = "" if first is grpc.aio.EOF else first.WhichOneof("request")
        if kind != "request_headers":
            if not kind or not _is_refused(first):
                raise ClientGone
            await self._refused()
            return None
        modes = first.protocol_config
        if (
            first.observability_mode
            or modes.request_body_mode != _BUFFERED
            or modes.response_body_mode != _STREAMED
            or modes.send_body_without_waiting_for_header_response
        ):
            _log.error("Envoy asks in another mode than `captoken gateway envoy` writes")
            raise ClientGone
        pseudo, headers = _headers(first.request_headers.headers)
        self._came = headers
        host = pseudo.get(b":authority", b"")
        raw, _, query = pseudo.get(b":path", b"").partition(b"?")
        method = pseudo.get(b":method", b"").decode("latin-1")
        name = raw.removeprefix(b"/").partition(b"/")[0].decode("latin-1")
        self._authority = self._authorities.get(name, b"")
        self._has_body = not first.request_headers.end_of_stream
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": pseudo.get(b":scheme", b"http").decode("latin-1"),
            "path": unescaped(raw).decode("utf-8", "replace"),
            "raw_path": raw,
            "query_string": query,
            "root_path": "",
            "headers": [*headers, (b"host", host)],
            UPSTREAM: self,
        }

    async def _refused(self) -> None:
        """Let Envoy's own answer to what it does not take for a request pass as it is."""
        self._is_answered = True
        await self._write(_AS_IT_IS["response_headers"])
        while (came := await self._read()) is not grpc.aio.EOF:
            kind = came.WhichOneof("request")
            if kind != "response_body":
                raise ClientGone
            await self._write(_AS_IT_IS[kind])

    async def receive(self) -> Message:
        """The body of the request, whole. It is asked for once: the stream ends with its client."""
        if not self._has_body:
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._write(_AS_IT_IS["request_headers"])
        came = await self._read()
        if came is grpc.aio.EOF:
            return {"type": "http.disconnect"}
        if _is_refused(came):
            await self._refused()  # the body is too long, or did not come
            return {"type": "http.disconnect"}
        self._is_in_body = True
        body = came.request_body
        if not body.end_of_stream:  # as of a message without a body
            raise RequestError(400, "A request has no trailers.")
        return {"type": "http.request", "body": body.body, "more_body": False}

    async def send(self, message: Message) -> None:
        """What is answered: the service's answer through `passing`, or the gateway's own."""
        if message["type"] == "http.response.start":
            if self.passing is not None and self.passing.has_begun:
                # Another answer than the one that has begun comes too late.
                if message["headers"] is not self.passing.head:
                    raise ClientGone
                return
            self._own = message
        elif self._own:
            await self._write(_immediate(self._own, message.get("body", b"")))
            self._is_answered = True
        elif self.passing is not None:
            await self.passing.put(message.get("body", b""), not message.get("more_body", False))

    # --- the service, as Envoy reaches it ---------------------------------------------------------

    async def connect(self) -> Passing:
        """What a request goes out by: Envoy connects, whatever becomes of that."""
        self.passing = Passing(self._read, self._write, self._came, self._is_in_body)
        self.passing.authority = self._authority
        return self.passing

    @property
    def is_over(self) -> bool:
        """Did the client get an answer to its end? Else Envoy would go on, with nobody to ask."""
        return self._is_answered or (self.passing is not None and self.passing.has_ended)


class Passing:
    """The way of one request to its service, and of the answer back, in place of a connection."""

    is_whole = False

    def __init__(
        self,
        read: Callable[[], Awaitable[Any]],
        write: Callable[[Any], Awaitable[None]],
        came: list[Header],
        is_in_body: bool,
    ) -> None:
        self._read = read
        self._write = write
        self._came = came
        self._is_in_body = is_in_body
        self._out = bytearray()
        self._owed: bytes | None = None  # the piece in whose place Envoy waits to get one
        self._answered: list[Header] = []
        self.head: list[Header] | None = None
        self.has_ended = False
        self.authority = b""

    @property
    def has_begun(self) -> bool:
        """Has the answer's head gone to the client?"""
        return self.head is not None

    async def send(self, outgoing: Outgoing) -> Answer:
        """Tell Envoy what it sends, and read the head of the answer. Raises Broken."""
        headers = [*outgoing.headers, (b"accept-encoding", b"identity")]
        if outgoing.body or outgoing.method in ("POST", "PUT", "PATCH"):
            headers.append((b"content-length", b"%d" % len(outgoing.body)))
        kept = {name for name, _ in headers}
        pseudo = [
            (b":method", outgoing.method.encode()),
            (b":path", outgoing.target.encode()),
            (b":authority", self.authority),
        ]
        gone = {name for name, _ in self._came} - kept - {b"host"}
        said = {"header_mutation": _mutation([*pseudo, *headers], gone)}
        if self._is_in_body:
            await self._write(_of("request_body", {**said, **_body(outgoing.body)}))
        elif outgoing.body:
            raise Broken("a request without a body cannot get one")
        else:
            await self._write(_of("request_headers", said))
        came = await self._read()
        if came is grpc.aio.EOF or came.WhichOneof("request") != "response_headers":
            raise Broken("no answer came")
        answered, self._answered = _headers(came.response_headers.headers)
        is_whole = came.response_headers.end_of_stream
        return Answer(_status(answered), self._answered, self._pieces(is_whole))

    async def begin(self, headers: list[Header]) -> None:
        """The head of the answer goes to the client: Envoy sends no body before it has that."""
        self.head = headers
        if headers == self._answered:
            return await self._write(_AS_IT_IS["response_headers"])
        left, right = _by_name(self._answered), _by_name(headers)
        changed = [(name, value) for name, value in headers if left[name] != right[name]]
        mutation = _mutation(changed, left.keys() - right.keys())
        await self._write(_of("response_headers", {"header_mutation": mutation}))

    async def _pieces(self, is_last: bool) -> AsyncIterator[bytes]:
        """The body of the answer, to its end. Raises Broken."""
        while not is_last:
            await self._pay()
            came = await self._read()
            if came is grpc.aio.EOF or came.WhichOneof("request") != "response_body":
                raise Broken("the answer has trailers, or no end")
            self._owed = came.response_body.body
            is_last = came.response_body.end_of_stream
            yield self._owed

    async def put(self, body: bytes, is_last: bool) -> None:
        """A piece of the body for the client, which goes in place of what came last."""
        self._out += body
        if is_last:
            self.has_ended = True
            await self._pay()

    async def _pay(self) -> None:
        """Give Envoy what stands in the place of the last piece, which it waits for."""
        if self._owed is None:
            return
        owed, self._owed = self._owed, None
        said = _AS_IT_IS["response_body"]
        if owed != self._out:
            said = _of("response_body", _body(bytes(self._out)))
        self._out.clear()
        await self._write(said)

    def release(self) -> None:
        """Nothing is kept of it."""


def _headers(said: Any) -> tuple[dict[bytes, bytes], list[Header]]:
    """Headers as Envoy has them: those with a colon before the name, and the others."""
    every = [
        (each.key.lower().encode("latin-1"), each.raw_value or each.value.encode("latin-1"))
        for each in said.headers
    ]
    pseudo = {name: value for name, value in every if name[:1] == b":"}
    return pseudo, [pair for pair in every if pair[0][:1] != b":"]


def _status(pseudo: Mapping[bytes, bytes]) -> int:
    """The status of an answer; 0 for none."""
    said = pseudo.get(b":status", b"")
    return int(said) if said.isdigit() else 0


def _is_refused(came: Any) -> bool:
    """Is it an answer of Envoy's own, to what it does not take for a request?"""
    if came.WhichOneof("request") != "response_headers":
        return False
    return _status(_headers(came.response_headers.headers)[0]) >= 400


def _by_name(headers: list[Header]) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        found.setdefault(name, []).append(value)
    return found


def _mutation(headers: list[Header], gone: Iterable[bytes]) -> dict[str, Any]:
    """Headers that are there afterwards, whatever was there under their names; and what is not."""
    made = []
    seen: set[bytes] = set()
    for name, value in headers:
        header = {"key": name.decode("latin-1"), "raw_value": value}
        made.append({"header": header, "append_action": _APPEND if name in seen else _OVERWRITE})
        seen.add(name)
    return {"set_headers": made, "remove_headers": sorted(map(bytes.decode, gone))}


def _body(body: bytes) -> dict[str, Any]:
    """What stands in the place of a body that came."""
    return {"body_mutation": {"body": body}}


def _of(kind: str, said: dict[str, Any]) -> Any:
    """The answer to a message of that kind, and what is said of what came by it."""
    return protocol.ProcessingResponse(**{kind: {"response": said}})


# Answers that change nothing.
_KINDS = ("request_headers", "response_headers", "response_body")
_AS_IT_IS = {kind: _of(kind, {}) for kind in _KINDS}


def _immediate(start: Message, body: bytes) -> Any:
    """An answer of the gateway's own, in place of one of the service."""
    own = [(name, value) for name, value in start["headers"] if name not in _REPLACED]
    made = {
        "status": {"code": start["status"]},
        "headers": _mutation(own, ()),
        "body": body,
        "details": "captoken",
    }
    return protocol.ProcessingResponse(immediate_response=made)


# --- the server -----------------------------------------------------------------------------------


class _Processor(services.ExternalProcessorServicer):
    def __init__(self, app: App, authorities: dict[str, bytes]) -> None:
        self._app = app
        self._authorities = authorities

    async def Process(self, _: Any, context: Any) -> None:  # noqa: N802, as the protocol has it
        """One exchange."""
        exchange = Exchange(context.read, context.write, self._authorities)
        try:
            scope = await exchange.begin()
            if scope is not None:
                await self._app(scope, exchange.receive, exchange.send)
        except ClientGone:
            pass
        if not exchange.is_over:
            await context.abort(grpc.StatusCode.ABORTED, "The exchange is reset.")


class _ForProxy(grpc.aio.ServerInterceptor):
    """For whoever has the secret. Anybody else finds that no method is here, whatever they ask."""

    def __init__(self, source: Source) -> None:
        self._source = source

    async def intercept_service(self, going_on: Any, call: Any) -> Any:
        said = [value for name, value in call.invocation_metadata or () if name == PROXY]
        given = said[0].encode() if len(said) == 1 and type(said[0]) is str else b""
        is_proxy = await is_secret(self._source, given, SECRET_OF_PROXY)
        return await going_on(call) if is_proxy else None


class Health:
    """Whether this process takes questions, by the protocol that gRPC has for that."""

    def __init__(self) -> None:
        self.serves = True
        check = grpc.unary_unary_rpc_method_handler(self._check)
        service = "grpc.health.v1.Health"
        self.handler = grpc.method_handlers_generic_handler(service, {"Check": check})

    async def _check(self, asked: bytes, context: Any) -> bytes:
        """The answer: of its one field, SERVING is 1 and NOT_SERVING 2.

        There is one service, whichever name of it is asked for.
        """
        return b"\x08\x01" if self.serves else b"\x08\x02"


class Serving(NamedTuple):
    """A server that has begun."""

    server: Any
    health: Health

    async def drain(self, seconds: float) -> None:
        """End: nothing new begins, and what is under way has so long to end."""
        self.health.serves = False
        await self.server.stop(seconds)


async def serving(app: Gateway, found: Configuration, worker: int = 0) -> Serving:
    """A server for Envoy, as `[proxy]` of the file says it, which has begun.

    `worker`: of several processes, the number of this one. Raises ValueError and OSError for an
    address that cannot be served at.
    """
    stated = found.file.proxy
    # Without a secret, a socket or a certificate shows who asks.
    known = []
    if stated.secret is not None:
        known.append(_ForProxy(source_of(stated.secret, 60, found.folder)))
    authorities = {
        name: urlsplit(origin_of(each.url)).netloc.encode() for name, each in found.services.items()
    }
    # A message has the head, or a body of the most that is taken.
    longest = max(found.file.gateway.max_body, 1 << 20) + (64 << 10)
    server = grpc.aio.server(
        interceptors=known,
        options=[("grpc.max_receive_message_length", longest), ("grpc.so_reuseport", 0)],
    )
    services.add_ExternalProcessorServicer_to_server(_Processor(app, authorities), server)
    add_authorizer(Authorizer(app.questions), server)
    health = Health()
    server.add_generic_rpc_handlers((health.handler,))
    at = found.asked_at[worker]
    place = Path(at)
    if stated.socket is not None and stated.listen is None:
        place.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            server.add_insecure_port(f"unix:{at}")
            await server.start()
        finally:
            os.umask(before)
        if stated.group is not None:
            shutil.chown(place, group=stated.group)
            place.chmod(0o660)
        return Serving(server, health)
    if stated.ca is None:
        server.add_insecure_port(at)
    else:
        server.add_secure_port(at, _tls(found.folder, stated))
    await server.start()
    return Serving(server, health)


def _tls(folder: Path, stated: Any) -> Any:
    """Who asks has a certificate of `ca`, and sees ours."""
    key, certificate, ca = (
        (folder / name).read_bytes() for name in (stated.key, stated.certificate, stated.ca)
    )
    return grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True)


@asynccontextmanager
async def living(app: App) -> AsyncIterator[None]:
    """A block in which an application runs, and what it opened is closed behind it."""
    said: asyncio.Queue[Message] = asyncio.Queue()
    heard: asyncio.Queue[Message] = asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan"}, said.get, heard.put))
    said.put_nowait({"type": "lifespan.startup"})
    await heard.get()
    try:
        yield
    finally:
        said.put_nowait({"type": "lifespan.shutdown"})
        await task
