"""The gateway for proxies that only ask whether a request may pass (docs/gateway-proxies.md).

    door = ForwardAuth(Questions(doors, found), source)
    await door(scope, receive, send)          # a request to /.captoken/authorize

Caddy, nginx and Traefik ask with the head of a request, and its method and target in headers. What
the answer of 200 has in headers is to be sent: the target as `x-captoken-uri`, and all others, the
service's key among them, under their own names. Envoy asks likewise by `ext_authz` over HTTP, at
`/.captoken/check/…`, and by gRPC (`ext_authz`).

1. Whoever asks has the secret of `[proxy]`. Anybody else is told what any path is told at which
   there is no service.
2. Nobody sees bodies and answers. A service says `answers = "unseen"` for that; operations with a
   body are refused, and so are bound tokens, and requests whose body the proxy shows.
3. A refusal has the status 401 or 403, which proxies pass on, and its text in a header as well:
   nginx drops the body.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from captoken.adapters._gateway.credentials import SECRET_OF_PROXY, Source, is_secret
from captoken.adapters._gateway.opening import Configuration
from captoken.adapters._gateway.written import Outgoing
from captoken.adapters._http.credentials import read_sent
from captoken.adapters._http.escapes import unescaped
from captoken.adapters._http.exchange import (
    ASGIApp,
    Header,
    Message,
    Receive,
    RequestError,
    Response,
    Scope,
    Send,
    json_response,
    respond,
    values_of,
)
from captoken.adapters._http.origins import is_path

_log = logging.getLogger("captoken.gateway")

PLACE = b"/.captoken/authorize"

# Before the path of the request that Envoy asks about.
CHECKED = b"/.captoken/check"

# In the scope of a request: what tells a proxy what to send, instead of sending it.
TELL = "captoken.tell"
Tell = Callable[[Outgoing, Send], Awaitable[None]]

_SECRET = b"x-captoken-proxy"
_METHODS = (b"x-forwarded-method", b"x-original-method")
_TARGETS = (b"x-forwarded-uri", b"x-original-uri")

# What proxies say of a request beside what the client said, and what is of the connection to here.
OF_PROXY = frozenset(
    (
        *_METHODS,
        *_TARGETS,
        _SECRET,
        b"host",
        b"connection",
        b"content-length",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-forwarded-server",
        b"x-real-ip",
    )
)
# Envoy says none of what a request was: where that stands in a header, the client wrote it.
OF_ENVOY = OF_PROXY.difference(_METHODS, _TARGETS)
_EXACT = b"exact"
_REFUSAL = b"x-captoken-refusal"


class Question(NamedTuple):
    """A request that a proxy asks about."""

    method: bytes
    target: bytes
    headers: list[Header]

    # Does it have a body, or may it?
    has_body: bool

    # Must the target be spelled as the service has it, because the proxy rewrites none?
    is_exact: bool


class Questions:
    """What proxies ask about: judged by the doors of services, by name, and answered."""

    def __init__(self, doors: Mapping[str, ASGIApp], found: Configuration) -> None:
        self._doors = doors
        self._bases = {
            name: urlsplit(each.url).path.rstrip("/") for name, each in found.services.items()
        }

    async def ask(self, asked: Question, send: Send) -> None:
        """Answer one: of 200 with what to send, or a refusal. Raises RequestError."""
        inner = self._inner(asked)
        name = inner["raw_path"].split(b"/")[1].decode("latin-1")

        async def nothing() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        await self._doors[name](inner, nothing, send)

    def _inner(self, asked: Question) -> Scope:
        """The request that is asked about, as its door reads it. Raises RequestError."""
        raw, _, query = asked.target.partition(b"?")
        if not is_path(raw, query):
            raise RequestError(404, "There is no service of this name here.")
        name = raw.split(b"/")[1].decode("latin-1")
        if name not in self._bases:
            raise RequestError(404, "There is no service of this name here.")
        if asked.has_body:
            raise RequestError(403, "A request with a body cannot pass here: nobody would see it.")
        if values_of(asked.headers, b"upgrade"):
            raise RequestError(403, "Nobody would see what comes after an upgrade.")
        sent = read_sent(asked.headers, query)
        if sent is not None and sent.has_proof:
            raise RequestError(403, "A bound token cannot be used behind this proxy.")
        exact = b""
        if asked.is_exact:
            exact = self._bases[name].encode() + asked.target[len(name) + 1 :]

        async def tell(outgoing: Outgoing, send: Send) -> None:
            if exact and outgoing.target.encode() != exact:
                text = "Spell the target as the service has it: nobody rewrites it."
                raise RequestError(403, text)
            await respond(send, _answer(outgoing))

        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": "http",
            "root_path": "",
            "method": asked.method.decode("latin-1"),
            "path": unescaped(raw).decode("utf-8", "replace"),
            "raw_path": raw,
            "query_string": query,
            "headers": asked.headers,
            TELL: tell,
        }


class ForwardAuth:
    """The door of proxies that ask over HTTP, and are known by a secret."""

    def __init__(self, questions: Questions, source: Source) -> None:
        self._questions = questions
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One question, of a proxy that is known."""
        headers: list[Header] = list(scope["headers"])
        told = _Told(send)
        try:
            await self._questions.ask(await _asked(scope, headers, receive), told)
        except RequestError as problem:
            said = {"status": problem.status, "detail": problem.text}
            await respond(told, json_response(problem.status, said))

    async def is_asked(self, scope: Scope) -> bool:
        """Is it a question, of a proxy that is known? For anybody else nothing stands there."""
        raw: bytes = scope.get("raw_path") or b""
        if raw != PLACE and not raw.startswith(CHECKED):
            return False
        said = values_of(scope["headers"], _SECRET)
        return len(said) == 1 and await is_secret(self._source, said[0], SECRET_OF_PROXY)


async def _asked(scope: Scope, headers: list[Header], receive: Receive) -> Question:
    """What a proxy asks about. Raises RequestError."""
    raw: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    if raw.startswith(CHECKED):
        # Envoy sends the request itself, without its body, behind a prefix.
        method = scope["method"].encode("latin-1")
        target = raw.removeprefix(CHECKED) + (b"?" + query if query else b"")
        is_exact, not_client_s = True, OF_ENVOY
    else:
        method, target = (_one(headers, names) for names in (_METHODS, _TARGETS))
        is_exact, not_client_s = query == _EXACT, OF_PROXY
    lengths = values_of(headers, b"content-length")
    has_body = lengths not in ([], [b"0"]) or bool(values_of(headers, b"transfer-encoding"))
    has_body = has_body or bool((await receive()).get("body"))
    own = [(key, value) for key, value in headers if key not in not_client_s]
    return Question(method, target, own, has_body, is_exact)


def _one(headers: list[Header], names: tuple[bytes, ...]) -> bytes:
    """The one header of these names, each proxy having its own. Raises RequestError."""
    said = [value for name, value in headers if name in names]
    if len(said) != 1:
        raise RequestError(400, "The proxy has to say one method and one target.")
    return said[0]


def _answer(outgoing: Outgoing) -> Response:
    """What is to be sent."""
    own = [
        (b"x-captoken-uri", outgoing.target.encode()),
        (b"cache-control", b"no-store"),
        (b"content-length", b"0"),
    ]
    return Response(200, [*outgoing.headers, *own], b"")


def _refusal(response: Response) -> Response:
    """A refusal as proxies pass it on."""
    status = response.status if response.status in (401, 403) else 403
    return Response(status, [*response.headers, (_REFUSAL, response.body)], response.body)


class _Told:
    """`send`, by which a refusal goes out as proxies pass it on."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message = {}

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        response = Response(self._start["status"], self._start["headers"], message.get("body", b""))
        if response.status != 200:
            response = _refusal(response)
        await respond(self._send, response)
