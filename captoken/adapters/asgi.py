"""ASGI middleware: a request reaches the application only with a verified token (docs/http.md).

    app = CaptokenMiddleware(app, verifier, origin="https://api.example", public={"/health"})

1. Without a token, only requests to the exact paths in `public` pass. A path must match both as it
   was sent and after decoding.
2. The application asks the grant, `current.grant()`, for each access. If it lets a `Denied`
   through, that becomes the response. A `StatementError` of a guarded database becomes a 400.
3. A request starts with no token held and no grant but its own, because servers may run a request
   in the context of another.
4. The token and its proof are always removed from the scope's headers. So neither the application
   nor outer middleware can log them or pass them on.
5. A proof is the last part of the text. It covers the method, the configured origin (never the Host
   header), the target as it was sent, and the body. The target comes from the server's raw bytes.
   If the server provides none, or the application's path differs, no proof can be checked.
6. A websocket is refused before it is accepted.

Not checked: what the application does without asking. `Requires` checks that it asks.
`captoken.adapters.fastapi` refuses routes that declare nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Required, TypedDict

from captoken import current
from captoken._format.errors import NoToken, StatementError
from captoken._language.access import Access, Caller
from captoken._language.bounds import BODY_BYTES, FORM_BYTES, TOO_LARGE, is_bounded, read_bytes
from captoken._language.costs import Cost, costing
from captoken._verification.decision import Denied
from captoken._verification.grant import AsyncGrant, Grant
from captoken._verification.telling import answering
from captoken._verification.verifier import AnyVerifier, AsyncVerifier, Verifier
from captoken.adapters._asking import answer_of, served_by
from captoken.adapters._http.credentials import (
    Sent,
    check_head,
    read_sent,
    refuse_stray,
    without_credentials,
)
from captoken.adapters._http.escapes import unescaped
from captoken.adapters._http.exchange import (
    ASGIApp,
    Body,
    ClientGone,
    Header,
    Message,
    Receive,
    Reply,
    RequestError,
    Response,
    Scope,
    Send,
    values_of,
)
from captoken.adapters._http.origins import is_path, own_origin, public_paths, target_of
from captoken.adapters._http.proxies import Proxies
from captoken.adapters._http.refusals import (
    METADATA_PATH,
    Refusals,
    metadata_of,
    mistaken_answer,
)
from captoken.adapters._step_up import steps_of
from captoken.current import AnyGrant
from captoken.proof import http_request

__all__ = [
    "ASKED",
    "BODY_BYTES",
    "GRANT",
    "ASGIApp",
    "CaptokenMiddleware",
    "GuardOptions",
    "Message",
    "Receive",
    "Requires",
    "Scope",
    "Send",
    "ask",
    "granted_to",
]

GRANT = "captoken.grant"  # in the scope: the grant of this very request
PLACE = "captoken.place"  # in the scope: what log lines say of the request, where its path is not
ASKED = "captoken.asked"  # in the scope, a list: the accesses that were asked for, and allowed
_log = logging.getLogger("captoken")


class GuardOptions(TypedDict, total=False):
    """What a CaptokenMiddleware takes beside its verifier, as keywords."""

    origin: Required[str]
    """Scheme, host and port as clients know this server."""
    realm: str | None
    """In challenges; the origin unless said."""
    public: Iterable[str]
    """Paths that need no token, for HTTP alone."""
    resource_metadata: str | Mapping[str, Any] | None
    """The URL of the document of RFC 9728, or its fields."""
    max_body: int
    """Bytes of a body that is read before the application runs; 256 KiB unless said."""
    proxies: Iterable[str]
    """Addresses of proxies, whose headers about their request are taken off and not refused."""
    step_up: bool
    """True: a client is told what a person could allow after all. It needs resource_metadata."""


class CaptokenMiddleware:
    """Lets in requests with a token that `verifier` vouches for.

    `app`: what runs with the grant.
    `verifier`: the one of this server, so that it knows the audience that tokens are made for. The
    application's grant is its own: of an AsyncVerifier an AsyncGrant, whose answers are awaited.
    `origin`: scheme, host and port as clients know this server; proofs are made for it.
    `realm`: in challenges; the origin unless said.
    `public`: paths that need no token, as clients send them, for HTTP alone. None unless said.
    `resource_metadata`: the URL of the document of RFC 9728, or its fields, to be served here under
    its well-known path. None unless said: then challenges name none.
    `max_body`: bytes of a body that is read before the application runs, 256 KiB unless said. Those
    are the bodies of requests with a proof, and forms, which have 32 KiB at most in any case. A
    longer one is answered 413.
    `proxies`: addresses and networks of proxies in front, and `unix` for a Unix socket. What one of
    them says of the request that it got, as `X-Original-URI`, is taken off; from anybody else it is
    answered 400. None unless said.
    `step_up`: True tells clients that log people in what a person could allow after all: see
    docs/mcp-login.md. It needs `resource_metadata`. False unless said.

    Raises TypeError or ValueError for what it is built of.
    """

    def __init__(
        self,
        app: ASGIApp,
        verifier: AnyVerifier,
        *,
        origin: str,
        realm: str | None = None,
        public: Iterable[str] = (),
        resource_metadata: str | Mapping[str, Any] | None = None,
        max_body: int = BODY_BYTES,
        proxies: Iterable[str] = (),
        step_up: bool = False,
    ) -> None:
        if not isinstance(verifier, (Verifier, AsyncVerifier)):
            raise TypeError(f"expected a Verifier or AsyncVerifier, not {type(verifier).__name__}")
        self._app = app
        self._verifier = verifier
        self._origin = own_origin(origin)
        self._max_body = read_bytes(max_body, "max_body")
        self._public = public_paths(public)
        self._proxies = Proxies(proxies)
        self._metadata: Response | None = None
        if isinstance(resource_metadata, Mapping):
            # Served here, since a client has to find it where the challenge says (RFC 9728, 3).
            self._metadata = metadata_of(origin, resource_metadata)
            resource_metadata = origin + METADATA_PATH
        self._steps = steps_of(step_up, resource_metadata)
        self._refusals = Refusals(
            origin if realm is None else realm,
            resource_metadata,
            steps_up=self._steps is not None,
        )

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """One request.

        What the application raises passes through; a Denied or a StatementError too, if the
        response has started.
        """
        kind = scope["type"]
        if kind == "lifespan":
            return await self._app(scope, receive, send)
        if kind not in ("http", "websocket"):
            raise ValueError(
                "this scope is neither http, nor websocket, nor lifespan: it is not served"
            )
        reply = Reply(scope, send)
        # They are gone through once: ASGI says that headers can be any iterable.
        came = self._proxies.taken_off(scope, [(name, value) for name, value in scope["headers"]])
        # Rule 4: before anything can go wrong. The scope is that of whoever stands outside, too.
        scope["headers"] = without_credentials(came)
        is_public = kind == "http" and self._is_public(scope)
        sent: Sent | None = None
        try:
            if not is_public:
                check_head({**scope, "headers": came})
                sent = read_sent(came, scope.get("query_string", b""))
            del came  # so that no frame of a traceback holds it
            here = answering(lambda: _place_of(scope))
            with here, current.nothing(), current.traced(_trace_of(scope["headers"])):  # rule 3
                if is_public:
                    return await self._serve_public(scope, receive, reply)
                return await self._serve(sent, scope, receive, reply)
        except Denied as denied:
            # Rule 2. It is the application's, or the verifier's; the client is told the same.
            if reply.over:
                raise
            answer = self._refusals.denied(denied, self._scope_for(denied, scope))
        except StatementError as mistaken:
            if reply.over:
                raise
            answer = mistaken_answer(mistaken)
        except RequestError as problem:
            answer = self._refusals.bad(problem)
        except ClientGone:
            return None
        except Exception:
            await reply.end()  # the page that the application itself made of it
            raise
        await reply.answer(answer)

    def _scope_for(self, denied: Denied, scope: Scope) -> str | None:
        """What to ask a person for, who could let this request through; None for nothing."""
        if self._steps is None:
            return None
        return self._steps.scope_for(denied.decision, scope.get(ASKED, ()))

    def _is_public(self, scope: Scope) -> bool:
        """Whether this is one of the public paths (rule 1).

        Two spellings are compared, the one that was sent and the one that the server made of it. A
        path that only means a public one, by escapes or dots, could be routed to something else.
        """
        path = scope["path"]
        if path not in self._public and not self._is_for_metadata(scope):
            return False
        return bool(scope.get("raw_path") == path.encode())

    def _is_for_metadata(self, scope: Scope) -> bool:
        """Whether somebody asks how to get a token, which they can do without one."""
        if self._metadata is None:
            return False
        return scope["path"] == METADATA_PATH and scope["method"] in ("GET", "HEAD")

    async def _serve_public(
        self,
        scope: Scope,
        receive: Receive,
        reply: Reply,
    ) -> None:
        """A request that needs no token. One that came along is not read, and gives nothing.

        Raises what the application raises.
        """
        if self._metadata is not None and scope["path"] == METADATA_PATH:
            return await reply.answer(self._metadata)
        await self._app(scope, receive, reply.send)
        await reply.end()

    async def _serve(
        self,
        sent: Sent | None,
        scope: Scope,
        receive: Receive,
        reply: Reply,
    ) -> None:
        """A request that needs a token.

        Raises what the application raises, Denied, RequestError and ClientGone.
        """
        if sent is None:
            return await reply.answer(self._refusals.unauthenticated())
        is_form = _is_form(scope)
        most = min(self._max_body, FORM_BYTES) if is_form else self._max_body
        body = Body(receive, most)
        grant = await self._admitted(sent, scope, body, is_form=is_form)
        scope[GRANT] = grant
        if self._steps is not None:
            scope.setdefault(ASKED, [])
        with current.serving(grant):
            await self._app(scope, body.receive, reply.send)
        await reply.end()

    async def _admitted(
        self,
        sent: Sent,
        scope: Scope,
        body: Body,
        *,
        is_form: bool,
    ) -> AnyGrant:
        """The grant of a request, for the application. Raises Denied or RequestError.

        A websocket comes here before it is accepted (rule 6).
        """
        # Neither a whole address nor `*` names anything that a token could be for. A server that
        # shows no raw bytes has a decoded path, in which `#` may be a letter of a name.
        raw: bytes | None = scope.get("raw_path")
        query: bytes = scope.get("query_string", b"")
        named = scope["path"].startswith("/") if raw is None else is_path(raw, query)
        if not named:
            raise RequestError(400, "The target of a request must be a path.")
        digest: bytes | None = None
        if sent.has_proof:
            digest = await self._digest(sent, scope, body)
        grant: AnyGrant = await answer_of(
            self._verifier,
            lambda verifier: verifier.authenticate(sent.text, request=digest),
        )
        # RFC 6750, 2.2: a token could stand in a form as well. Bodies are read for those alone who
        # have shown a good token.
        if is_form:
            refuse_stray(await body.read_all())
        return served_by(self._verifier, grant)

    async def _digest(
        self,
        sent: Sent,
        scope: Scope,
        body: Body,
    ) -> bytes:
        """What the proof has to be about (rule 5)."""
        path: bytes | None = scope.get("raw_path")
        if path is None:
            _log.error("the ASGI server gives no raw_path: proofs cannot be checked")
            raise RequestError(503, "This server cannot check proofs.")
        # What is proven is what runs. Something that stands outside may have put another path there
        # for the application, and left the bytes that came.
        if unescaped(path).decode("utf-8", "replace") != scope["path"]:
            _log.error("path and raw_path of the scope differ: proofs cannot be checked")
            raise RequestError(503, "This server cannot check proofs.")
        if scope["type"] == "http":
            await self._read_for_proof(sent, body)
        target = target_of(path, scope.get("query_string", b""))
        method = scope.get("method", "GET")
        return http_request(method, self._origin, target, body.data)

    async def _read_for_proof(self, sent: Sent, body: Body) -> None:
        """Read the body, of which a stranger can make the server read one piece alone.

        If the token lacks more than its proof, the verifier will say no, to a proof that covers a
        part of the body too.
        """
        await body.read_piece()
        if body.complete:
            return
        good_but_for_proof = await answer_of(
            self._verifier,
            lambda verifier: verifier.owes_proof(sent.without_proof),
        )
        if good_but_for_proof:
            await body.read_all()


class Requires:
    """An application of which each request needs an access, asked for before it runs.

    For files, mounts, Starlette:

        reports = Requires(StaticFiles(directory="reports"), Access(tool="reports"))
        app.mount("/reports", reports)

    `app`: what runs then.
    `access`: what every request needs, or a function of the scope. None is refused, and so is what
    the function raises as TypeError, ValueError or LookupError.
    `cost`: what a request takes of a budget, in the units that `access` does not state. A mapping
    by unit, as `{"usd_cents": 2}`, or a function of the scope that gives one and raises as `access`
    does. None unless said.

    Raises NoToken where there is no CaptokenMiddleware outside.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access | Callable[[Scope], Access | None],
        *,
        cost: Cost | None = None,
    ) -> None:
        if not isinstance(access, Access) and not callable(access):
            raise TypeError(
                "access must be an Access, or a function that makes one from the scope, not "
                f"{type(access).__name__}"
            )
        self._app = app
        self._access: Access | Callable[[Scope], Access | None] = costing(access, cost)

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        if scope["type"] != "lifespan":
            await ask(scope, self._access_for(scope))
        await self._app(scope, receive, send)

    def _access_for(self, scope: Scope) -> Access | None:
        """What this request needs; None for what cannot be stated, which no token permits."""
        if isinstance(self._access, Access):
            return self._access
        try:
            return self._access(scope)
        except (TypeError, ValueError, LookupError):
            return None


def granted_to(scope: Scope) -> AnyGrant:
    """The grant of this very request. Raises NoToken where no middleware has let it in.

    Of an AsyncVerifier it is an AsyncGrant. It is read from the scope and not from `current`: a
    scope belongs to one request, whatever runs in whose context.
    """
    grant = scope.get(GRANT)
    if not isinstance(grant, (Grant, AsyncGrant)):
        raise NoToken(
            "this request has no grant: no CaptokenMiddleware is around the app, or the path is "
            "public"
        )
    return grant


async def ask(
    scope: Scope,
    access: Access | None,
    caller: Caller | None = None,
) -> AnyGrant:
    """The grant of this request, if it permits `access`; None is what no token permits.

    `caller`: what the server itself knows of who calls.

    What was asked for is noted in the scope, where there is a list for it.

    Raises Denied or NoToken.
    """
    grant = granted_to(scope)
    if access is None:
        # It is recorded like every other denial.
        why = "no access is stated for this request"
        raise Denied(await answer_of(grant, lambda face: face.deny("domain", why)))
    if not is_bounded(access):
        raise Denied(await answer_of(grant, lambda face: face.deny(*TOO_LARGE)))
    await answer_of(grant, lambda face: face.authorize(access, caller=caller))
    asked = scope.get(ASKED)
    if isinstance(asked, list):
        asked.append(access)
    return grant


def _place_of(scope: Scope) -> str:
    """What is asked for, for the log: the route, once it is known, else the path. No query.

    A path may have values: whoever knows better says so by PLACE.
    """
    if PLACE in scope:
        return str(scope[PLACE])
    route = getattr(scope.get("route"), "path", None) or scope["path"]
    return f"{scope.get('method', 'WEBSOCKET')} {route}"


def _trace_of(headers: Iterable[Header]) -> str | None:
    """The one traceparent that came along, or None.

    It is anybody's word, for finding what belongs together.
    """
    stated = values_of(headers, b"traceparent")
    return stated[0].decode("latin-1") if len(stated) == 1 else None


def _is_form(scope: Scope) -> bool:
    """Whether somebody could read the body as a form. Some readers take any of several kinds."""
    if scope["type"] != "http":
        return False
    kinds = values_of(scope["headers"], b"content-type")
    return any(b"x-www-form-urlencoded" in kind.lower() for kind in kinds)
