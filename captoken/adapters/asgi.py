"""ASGI middleware: a request reaches the application only with a token that was verified (docs/http.md).

    app = CaptokenMiddleware(app, verifier, origin="https://api.example", public={"/health"})

1. Without a token nothing passes but the exact paths that are `public`, matched on what was sent and on what it means.
2. The application asks the grant, `current.grant()`, for each access. A `Denied` that it lets through is the answer.
3. A request starts with nothing held and nothing granted but its own grant: servers may run one in the context of another.
4. The token and the proof are taken out of the scope's headers, whatever becomes of the request, so that nobody passes
   on or logs what came in: neither the application nor what stands outside.
5. A proof is about the method, the configured origin (never the Host header), the target as it was sent, and the body.
6. A websocket is refused before it is accepted.

Not checked: what the application does without asking. `Requires` asks for it; `captoken.adapters.fastapi` refuses
routes that declare nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, TypeAlias

from captoken import current
from captoken import proof as request
from captoken._format.errors import NoToken
from captoken._language.access import Access, Caller
from captoken._verification import aio
from captoken._verification.decision import Denied
from captoken._verification.grant import Grant
from captoken._verification.verifier import Verifier
from captoken.adapters._http.messages import (
    METADATA_PATH,
    Answer,
    Answers,
    BadRequest,
    Credentials,
    json_answer,
    own_origin,
    public_paths,
    read_credentials,
    refuse_stray,
    target_of,
    without_credentials,
)

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

GRANT = "captoken.grant"  # in the scope: the grant of this very request
ASKED = "captoken.asked"  # in the scope, a list: the accesses that were asked for, and allowed
BODY_BYTES = 1 << 20
_log = logging.getLogger("captoken")


class CaptokenMiddleware:
    """Lets in requests with a token that `verifier` vouches for. Raises TypeError or ValueError for what it is built of.

    `origin`: scheme, host and port as clients know this server; proofs are made for it. `realm`: in challenges, the origin
    unless given. `public`: paths that need no token, as clients send them, for HTTP alone. `max_body`: bytes of a body that
    is read before the application runs, which those with a proof are, and forms; a longer one is answered 413.
    `resource_metadata`: the URL of the document of RFC 9728, or its fields, to be served here under its well-known path.
    """

    def __init__(
        self,
        app: ASGIApp,
        verifier: Verifier,
        *,
        origin: str,
        realm: str | None = None,
        public: Iterable[str] = (),
        resource_metadata: str | Mapping[str, Any] | None = None,
        max_body: int = BODY_BYTES,
    ) -> None:
        if not isinstance(verifier, Verifier):
            raise TypeError(f"a {type(verifier).__name__} is no Verifier")
        if type(max_body) is not int or max_body < 0:
            raise ValueError("max_body is a number of bytes")
        self._app, self._verifier, self._origin, self._max_body = (
            app,
            verifier,
            own_origin(origin),
            max_body,
        )
        self._public = public_paths(public)
        self._metadata: Answer | None = None
        if isinstance(resource_metadata, Mapping):
            fields = {
                "bearer_methods_supported": ["header"],
                **resource_metadata,
                "resource": origin,
            }
            self._metadata = json_answer(200, fields)
            resource_metadata = origin + METADATA_PATH
        self._answers = Answers(origin if realm is None else realm, resource_metadata)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. What the application raises passes through, a Denied too if the response has started."""
        kind = scope["type"]
        if kind == "lifespan":
            return await self._app(scope, receive, send)
        if kind not in ("http", "websocket"):
            raise ValueError("neither http, nor websocket, nor lifespan: not served")
        reply = _Reply(scope, send)
        came = [(name, value) for name, value in scope["headers"]]  # once: it may be any iterable
        scope["headers"] = headers = without_credentials(came)  # rule 4
        try:
            with current.nothing(), current.traced(_trace_of(headers)):  # rule 3
                if kind == "http" and (self._public or self._metadata) and self._passes(scope):
                    del came  # so that no frame of a traceback holds it
                    if self._metadata is not None and scope["path"] == METADATA_PATH:
                        return await reply.answer(self._metadata)
                    await self._app(scope, receive, reply.send)
                    return await reply.end()
                found = read_credentials(came, scope.get("query_string", b""))
                del came
                if found is None:
                    return await reply.answer(self._answers.unauthenticated())
                grant, receive = await self._admitted(found, scope, receive)
                scope[GRANT] = grant
                with current.serving(grant):
                    await self._app(scope, receive, reply.send)
                return await reply.end()
        except Denied as denied:
            if reply.over:
                raise
            _log.info("refused: %s", denied.decision.summary)
            answer = self._answers.denied(denied)
        except BadRequest as problem:
            answer = self._answers.bad(problem)
        except _Gone:
            return
        except Exception:
            await reply.end()
            raise
        await reply.answer(answer)

    def _passes(self, scope: Scope) -> bool:
        """Is this one of the public paths, spelled in the one way (rule 1)?"""
        path = scope["path"]
        if path not in self._public and not (
            self._metadata and path == METADATA_PATH and scope["method"] in ("GET", "HEAD")
        ):
            return False
        return bool(scope.get("raw_path") == path.encode())

    async def _admitted(
        self, found: Credentials, scope: Scope, receive: Receive
    ) -> tuple[Grant, Receive]:
        """The grant, and the source of a body that may have been read. Raises Denied or BadRequest."""
        path: bytes | None = scope.get("raw_path")
        if path is not None and path[:1] != b"/":
            raise BadRequest(400, "The target of a request is a path.")
        digest = None
        if found.proof is not None:
            if path is None:
                _log.error("the ASGI server gives no raw_path: proofs cannot be checked")
                raise BadRequest(503, "This server cannot check proofs.")
            body = b""
            if scope["type"] == "http":
                body, receive = await self._read(receive, found)
            target = target_of(path, scope.get("query_string", b""))
            digest = request.of_http(scope.get("method", "GET"), self._origin, target, body)
        check = self._verifier.authenticate
        grant = await aio.answer(
            self._verifier, check, found.text, proof=found.proof, request=digest
        )
        if scope["type"] == "http" and _is_form(scope["headers"]):
            body, receive = await self._read(receive, None)
            refuse_stray(body)
        return grant, receive

    async def _lacks_proof_alone(self, found: Credentials) -> bool:
        """Whether a token is good here but for its proof, with nothing committed and nothing recorded."""
        without = (None, None)
        decision = await aio.answer(
            self._verifier, self._verifier._decide, found.text, None, None, without, dry=True
        )
        return decision.code == "proof_missing"

    async def _read(self, receive: Receive, unknown: Credentials | None) -> tuple[bytes, Receive]:
        """The body, and what gives it again. Of somebody unknown, the first piece alone unless only the proof is missing."""
        pieces: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise _Gone
            pieces.append(message.get("body", b""))
            size, more = size + len(pieces[-1]), message.get("more_body", False)
            if size > self._max_body:
                raise BadRequest(413, "The body is too long.")
            if more and unknown is not None:
                if not await self._lacks_proof_alone(unknown):
                    break  # and the verifier will say no, to a proof that covers nothing too
                unknown = None
        whole = b"".join(pieces)
        left: list[Message] = [{"type": "http.request", "body": whole, "more_body": more}]

        async def again() -> Message:
            return left.pop() if left else await receive()

        return whole, again


class Requires:
    """An application of which each request needs an access, asked for before it runs: for files, mounts, Starlette.

    `access`: what every request needs, or a function of the scope; None is refused, and so is what it raises as
    TypeError or ValueError. Raises NoToken where there is no CaptokenMiddleware outside.
    """

    def __init__(self, app: ASGIApp, access: Access | Callable[[Scope], Access | None]) -> None:
        if not isinstance(access, Access) and not callable(access):
            raise TypeError("access is an Access, or a function from the scope to one")
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await ask(scope, self._access if isinstance(self._access, Access) else self._of(scope))
        await self._app(scope, receive, send)

    def _of(self, scope: Scope) -> Access | None:
        try:
            return self._access(scope)  # type: ignore[operator]
        except (TypeError, ValueError, LookupError):
            return None


def granted_to(scope: Scope) -> Grant:
    """The grant of this very request. Raises NoToken where no middleware has let it in."""
    grant = scope.get(GRANT)
    if not isinstance(grant, Grant):
        raise NoToken(
            "nothing is granted here: there is no CaptokenMiddleware outside, or the path is public"
        )
    return grant


async def ask(scope: Scope, access: Access | None, caller: Caller | None = None) -> Grant:
    """The grant of this request, if it permits `access`; None is what no token permits. Raises Denied or NoToken."""
    grant = granted_to(scope)

    def decide() -> None:
        if access is None:
            raise Denied(
                grant.record(grant.refusal("domain", "no access is stated for this request"))
            )
        grant.authorize(access, caller=caller)

    await aio.answer(grant._verifier, decide)
    asked = scope.get(ASKED)
    if isinstance(asked, list):
        asked.append(access)
    return grant


class _Gone(Exception):  # noqa: N818, the name reads as what it is
    """The client has gone."""


class _Reply:
    """The way out of one request: what has been sent, and an answer in its place while there still can be one.

    A response of status 500 is kept to the end: the error page of an application that is mounted comes before the Denied.
    """

    __slots__ = ("_accepted", "_kept", "_scope", "_send", "_started")

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self._started = self._accepted = False
        self._kept: list[Message] = []

    @property
    def over(self) -> bool:
        return self._started and not self._accepted

    async def send(self, message: Message) -> None:
        kind = message["type"]
        begins = kind == "http.response.start"
        if self._kept or (begins and not self._started and message.get("status") == 500):
            return self._kept.append(message)
        self._started = self._started or begins or kind.startswith("websocket.")
        self._accepted = kind in ("websocket.accept", "websocket.send")
        await self._send(message)

    async def end(self) -> None:
        """The application is through, and no Denied came of it."""
        kept, self._kept = self._kept, []
        for message in kept:
            await self._send(message)

    async def answer(self, answer: Answer) -> None:
        """The answer; on a websocket that is open, the end of it."""
        kind = "http.response"
        if self._scope["type"] == "websocket":
            if self._accepted or "websocket.http.response" not in (
                self._scope.get("extensions") or {}
            ):
                return await self._send(
                    {"type": "websocket.close", "code": 1008, "reason": "refused"}
                )
            kind = "websocket.http.response"
        body = b"" if self._scope.get("method") == "HEAD" else answer.body
        await self._send(
            {"type": f"{kind}.start", "status": answer.status, "headers": answer.headers}
        )
        await self._send({"type": f"{kind}.body", "body": body, "more_body": False})


def _trace_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The one traceparent that came along, or None: anybody's word, for finding what belongs together."""
    stated = [value for name, value in headers if name == b"traceparent"]
    return stated[0].decode("latin-1") if len(stated) == 1 else None


def _is_form(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    kinds = [value for name, value in headers if name == b"content-type"]
    return any(b"x-www-form-urlencoded" in kind.lower() for kind in kinds)
