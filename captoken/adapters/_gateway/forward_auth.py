"""The gateway for proxies that only ask whether a request may pass (docs/gateway-proxies.md).

    door = ForwardAuth(doors, found)
    await door(scope, receive, send)          # a request to /.captoken/authorize

Caddy, nginx and Traefik ask with the head of a request, and its method and target in headers. What
the answer of 200 has in headers is to be sent: the target as `x-captoken-uri`, and all others, the
service's key among them, under their own names.

1. Whoever asks has the secret of `[proxy]`. Anybody else is told that nothing is here.
2. Nobody sees bodies and answers. A service says `answers = "unseen"` for that; operations with a
   body are refused, and so are bound tokens, and requests whose body the proxy shows.
3. A refusal has the status 401 or 403, which proxies pass on, and its text in a header as well:
   nginx drops the body.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlsplit

from captoken._format import primitives
from captoken.adapters._gateway.credentials import Unavailable, source_of
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

# In the scope of a request: what tells a proxy what to send, instead of sending it.
TELL = "captoken.tell"
Tell = Callable[[Outgoing, Send], Awaitable[None]]

_SECRET = b"x-captoken-proxy"
_METHODS = (b"x-forwarded-method", b"x-original-method")
_TARGETS = (b"x-forwarded-uri", b"x-original-uri")

# What proxies say of a request beside what the client said, and what is of the connection to here.
_OF_PROXY = frozenset(
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
_EXACT = b"exact"
_REFUSAL = b"x-captoken-refusal"


class ForwardAuth:
    """The door of proxies that ask. `doors`: those of services, by name."""

    def __init__(self, doors: Mapping[str, ASGIApp], found: Configuration) -> None:
        self._doors = doors
        self._bases = {
            name: urlsplit(each.url).path.rstrip("/") for name, each in found.services.items()
        }
        secret = found.file.proxy.secret
        self._source = None if secret is None else source_of(secret, 60, found.folder)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One question."""
        headers: list[Header] = list(scope["headers"])
        if not await self._is_proxy(headers):
            return await respond(send, json_response(404, {"status": 404, "detail": "Not found."}))
        try:
            inner = await self._asked(scope, headers, receive)
        except RequestError as problem:
            said = {"status": problem.status, "detail": problem.text}
            return await respond(send, _refusal(json_response(problem.status, said)))
        name = inner["raw_path"].split(b"/")[1].decode("latin-1")

        async def nothing() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        await self._doors[name](inner, nothing, _Told(send))

    async def _is_proxy(self, headers: list[Header]) -> bool:
        said = values_of(headers, _SECRET)
        if self._source is None or len(said) != 1:
            return False
        try:
            secret = await self._source.read()
        except Unavailable as problem:
            _log.error("the secret of the proxy cannot be had: %s", problem)
            return False
        return primitives.equal(said[0], secret.text.encode())

    async def _asked(self, scope: Scope, headers: list[Header], receive: Receive) -> Scope:
        """The request that is asked about. Raises RequestError."""
        method, target = (_one(headers, names) for names in (_METHODS, _TARGETS))
        raw, _, query = target.partition(b"?")
        if not is_path(raw, query):
            raise RequestError(404, "There is no service of this name here.")
        name = raw.split(b"/")[1].decode("latin-1")
        if name not in self._bases:
            raise RequestError(404, "There is no service of this name here.")
        lengths = values_of(headers, b"content-length")
        has_body = lengths not in ([], [b"0"]) or values_of(headers, b"transfer-encoding")
        if has_body or (await receive()).get("body"):
            raise RequestError(403, "A request with a body cannot pass here: nobody would see it.")
        own = [(key, value) for key, value in headers if key not in _OF_PROXY]
        sent = read_sent(own, query)
        if sent is not None and sent.has_proof:
            raise RequestError(403, "A bound token cannot be used behind this proxy.")
        exact = b""
        if scope["query_string"] == _EXACT:
            exact = self._bases[name].encode() + target[len(name) + 1 :]

        async def tell(outgoing: Outgoing, send: Send) -> None:
            if exact and outgoing.target.encode() != exact:
                text = "Spell the target as the service has it: nobody rewrites it."
                raise RequestError(403, text)
            await respond(send, _answer(outgoing))

        return {
            **scope,
            "method": method.decode("latin-1"),
            "path": unescaped(raw).decode("utf-8", "replace"),
            "raw_path": raw,
            "query_string": query,
            "headers": own,
            TELL: tell,
        }


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
