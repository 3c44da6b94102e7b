"""A discharger over HTTP, as an ASGI 3 application without a framework (docs/discharges.md).

    POST  …/3p               {"ticket"}: 200 {"discharge"}, 202 {"poll_url"} or {"user_interactive"}, 403 {"error"}
    GET   …/3p/poll/<id>     202 undecided; 200 {"discharge"} or 403 {"error"}, once; 404 unknown or over
    GET   …/3p/decide/<id>   a page for a person; its form posts the decision to the same address

Whoever asks is given both addresses, an agent too, so neither of them is a right to decide: `approver`, the login of the
service that this is part of, says who a person is, and whether they may. What waits is in the memory of one process.
Nothing here logs, and no answer repeats a ticket.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from time import time
from typing import Any, NamedTuple, TypeAlias

import msgspec

from captoken._format.clocks import Clock
from captoken._format.errors import DischargeError
from captoken._language.discharge import Discharge, Ticket
from captoken.adapters._discharge import approval_page as _approval_page
from captoken.adapters._discharge.waiting import Decided, Pending, Request, Waiting
from captoken.adapters.discharge_client import PATH, Answer, Interactive, origin_of
from captoken.discharge import Allow, Discharger, Refuse, Wait

__all__ = ["BODY_BYTES", "PATH", "Decided", "DischargeService", "Pending"]

Scope: TypeAlias = Mapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
Need: TypeAlias = Mapping[str, Any]
Approver: TypeAlias = "Callable[[Scope, Need], str | Awaitable[str | None] | None]"

BODY_BYTES = 8192  # of a request; a ticket has at most 2,048
_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", _approval_page.POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (
        b"referrer-policy",
        b"same-origin",
    ),  # under `no-referrer`, browsers would send the form with `Origin: null`
)


class DischargeService:
    """The application. `origin` is its scheme, host and port as browsers know them: `https://approvals.example`.

    `approver(scope, need)`: who the person is that sent a request, if they may decide on this need; otherwise None. May
    be a coroutine function. Without it, a policy that waits for a person is answered 501.
    `allowed`: what an approval gives: an Allow, or a function from need to Allow. Its life starts when it is fetched.
    `on_decision`: is given each Decided before it counts; if it raises, nothing is decided.
    `limit`: requests that wait at once; more are answered 503. `keep`: seconds until one is over.
    """

    def __init__(
        self,
        discharger: Discharger,
        *,
        origin: str,
        approver: Approver | None = None,
        allowed: Allow | Callable[[Need], Allow] | None = None,
        on_decision: Callable[[Decided], object] | None = None,
        limit: int = 1000,
        keep: float = 600,
        clock: Clock = time,
    ) -> None:
        if origin_of(origin) != origin:
            raise ValueError(f"browsers spell this origin {origin_of(origin)}")
        self._discharger, self._origin, self._approver = discharger, origin, approver
        self._allowed = Allow(expires_in=60) if allowed is None else allowed
        self._waiting = Waiting(discharger, on_decision, limit, keep, clock)

    def pending(self) -> tuple[Pending, ...]:
        """What waits to be decided, oldest first. For operators, from any thread."""
        return self._waiting.pending()

    def decide(self, id: str, answer: Allow | Refuse, *, by: str) -> bool:
        """Whether this decision counts. False: the request is unknown, over, or somebody else decides it."""
        return self._waiting.decide(id, answer, by)

    # --- for whoever needs a discharge -------------------------------------------------------------------------------

    async def _ask(self, scope: Scope, receive: Receive, _: str) -> _Response:
        body = await _body(scope, receive, b"application/json")
        try:
            ticket = Ticket.parse(msgspec.json.decode(body, type=_Asked).ticket)
            need = self._discharger.need(ticket)
        except (msgspec.MsgspecError, ValueError, RecursionError, DischargeError):
            raise _HTTPError(400, "This is no ticket for this discharger.") from None
        said = self._discharger.answer(ticket)
        if not isinstance(said, Wait):
            return _final(said)
        if said.person and self._approver is None:
            raise _HTTPError(501, "Nobody can approve here.")
        base = self._origin + _root(scope) + PATH
        request = self._waiting.add(ticket, need, said.person, base + "/decide/")
        if request is None:
            raise _HTTPError(503, "Too many requests wait to be decided.")
        poll_url = f"{base}/poll/{request.fetch_id}"
        if said.person:
            return _json(202, Answer(user_interactive=Interactive(poll_url, request.seen.user_url)))
        return _json(202, Answer(poll_url=poll_url))

    async def _poll(self, scope: Scope, receive: Receive, fetch_id: str) -> _Response:
        outcome = self._waiting.fetch(fetch_id)
        if outcome is None:
            raise _HTTPError(404, "Unknown, or over.")
        return (
            _Response(202, b"application/json", b"")
            if isinstance(outcome, Wait)
            else _final(outcome)
        )

    # --- for the person who decides ----------------------------------------------------------------------------------

    async def _show(self, scope: Scope, receive: Receive, id: str) -> _Response:
        request, by = await self._person(scope, id)
        if request.taken:
            return _outcome(200, request)
        return _html(200, _approval_page.form(request.seen.need, request.seen.expires_at, by))

    async def _submit(self, scope: Scope, receive: Receive, id: str) -> _Response:
        own = _values(scope, b"origin") == [self._origin.encode()]
        if not own or _values(scope, b"sec-fetch-site") not in ([], [b"same-origin"]):
            raise _HTTPError(
                403, "Only the page itself can decide."
            )  # another site's form would use the person's login
        request, by = await self._person(scope, id)
        body = await _body(scope, receive, b"application/x-www-form-urlencoded")
        answer: Allow | Refuse = Refuse("denied")
        if body == b"decision=approve":
            answer = (
                self._allowed
                if isinstance(self._allowed, Allow)
                else self._allowed(request.seen.need)
            )
        elif body != b"decision=deny":
            raise _HTTPError(400, "This neither approves nor denies.")
        return _outcome(200 if self.decide(id, answer, by=by) else 409, request)

    async def _person(self, scope: Scope, id: str) -> tuple[Request, str]:
        request = self._waiting.find(id)
        if request is None or self._approver is None or not request.seen.person:
            raise _HTTPError(404, "Unknown, or over.")
        by = self._approver(scope, request.seen.need)
        by = await by if isawaitable(by) else by
        if by is None:
            raise _HTTPError(403, "You are not signed in, or this is not yours to decide.")
        if type(by) is not str or not by:
            raise TypeError("an approver returns a name, or None")
        return request, by

    # --- ASGI --------------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What the policy, the approver and the callbacks raise is answered 500, without a detail, and raised on."""
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            return await send({"type": "lifespan.shutdown.complete"})
        if scope["type"] == "websocket":
            await receive()
            return await send({"type": "websocket.close", "code": 1008})
        path = scope["path"].removeprefix(_root(scope))
        above, _, id = path.rpartition("/")
        handlers: dict[str, _Handler] = {}
        if path == PATH:
            handlers = {"POST": self._ask}
        elif above == PATH + "/poll":
            handlers = {"GET": self._poll}
        elif above == PATH + "/decide":
            handlers = {"GET": self._show, "POST": self._submit}
        problem: Exception | None = None
        try:
            if scope["method"] not in handlers:
                raise (
                    _HTTPError(405, "Not with this method.")
                    if handlers
                    else _HTTPError(404, "Not found.")
                )
            response = await handlers[scope["method"]](scope, receive, id)
        except Exception as error:
            status, text = (
                (error.status, error.text)
                if isinstance(error, _HTTPError)
                else (500, "Something failed.")
            )
            problem = error if status == 500 else None
            for_people = "GET" in handlers and "POST" in handlers
            response = (
                _html(status, _approval_page.message(text))
                if for_people
                else _json(status, Answer(error=text))
            )
        length, allow = str(len(response.body)).encode(), ", ".join(handlers).encode()
        headers = [(b"content-type", response.kind), (b"content-length", length), *_HEADERS]
        headers += [(b"allow", allow)] if response.status == 405 else []
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})
        if problem is not None:
            raise problem


class _Asked(msgspec.Struct):
    ticket: str


class _Response(NamedTuple):
    status: int
    kind: bytes
    body: bytes


class _HTTPError(Exception):
    def __init__(self, status: int, text: str) -> None:
        self.status, self.text = status, text


_Handler: TypeAlias = Callable[[Scope, Receive, str], Awaitable[_Response]]


def _json(status: int, answer: Answer) -> _Response:
    return _Response(status, b"application/json", msgspec.json.encode(answer))


def _html(status: int, page: str) -> _Response:
    return _Response(status, b"text/html; charset=utf-8", page.encode())


def _final(said: Discharge | Refuse) -> _Response:
    if isinstance(said, Refuse):
        return _json(403, Answer(error=said.reason))
    return _json(200, Answer(discharge=said.serialize()))


def _outcome(status: int, request: Request) -> _Response:
    if request.decided is None:
        return _html(status, _approval_page.message("Somebody else decides this, or it is over."))
    how = "Approved" if isinstance(request.decided.answer, Allow) else "Denied"
    return _html(
        status,
        _approval_page.message(f"{how} by {request.decided.by}.", "You can close this page."),
    )


def _root(scope: Scope) -> str:
    """Where this is mounted. Some servers leave it in the path, and some do not."""
    root: str = scope.get("root_path", "")
    return root.rstrip("/")


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key == name]


async def _body(scope: Scope, receive: Receive, kind: bytes) -> bytes:
    """The body, if it is of this kind and not too long."""
    if [value.partition(b";")[0].strip().lower() for value in _values(scope, b"content-type")] != [
        kind
    ]:
        raise _HTTPError(415, f"The content type is {kind.decode()}.")
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":  # the client has gone, perhaps in the middle
            raise _HTTPError(400, "Not all of it came.")
        body, more = body + message.get("body", b""), message.get("more_body", False)
        if len(body) > BODY_BYTES:
            raise _HTTPError(413, f"At most {BODY_BYTES} bytes.")
    return body
