"""A discharge service over HTTP: an ASGI 3 application without a framework (docs/discharges.md).

    POST  …/3p               {"ticket"}: 200 {"discharge"}, 403 {"error"},
                             202 {"poll_url"} or {"user_interactive"}
    GET   …/3p/poll/<id>     202 undecided; 200 {"discharge"} or 403 {"error"}, once;
                             404 unknown or over
    GET   …/3p/decide/<id>   a page for a person; its form posts the decision to the same address

1. Whoever asks gets both addresses, agents included. So neither address gives the right to decide.
   `approver` is the login of the surrounding service: it says who a person is, and whether they may
   decide.
2. A decision is accepted only from the page itself. Another site's form would use the person's
   login.
3. Nothing here logs, and no response repeats a ticket. Outsiders learn nothing about errors.
4. Everything that is read is bounded, and waiting requests are in the memory of one process.

The page cannot show who asks, with which token, and what else the token permits, because the
service does not know it. The need is shown in the words of whoever added the caveat.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from time import time
from typing import Any, TypeAlias

import msgspec

from captoken._format.clocks import Clock
from captoken._format.errors import DischargeError
from captoken._language.bounds import DISCHARGE_BYTES
from captoken._language.discharge import Ticket
from captoken.adapters._discharge import approval_page
from captoken.adapters._discharge.protocol import PATH, Answer, DischargeRequest, Interactive
from captoken.adapters._discharge.waiting import (
    Decided,
    Deciding,
    Pending,
    Request,
    Serialized,
    Waiting,
)
from captoken.adapters._http.credentials import check_head
from captoken.adapters._http.exchange import (
    Body,
    ClientGone,
    Receive,
    RequestError,
    Response,
    Scope,
    Send,
    respond,
    values_of,
)
from captoken.adapters._http.origins import own_origin
from captoken.discharge import Allow, Refuse, Wait

__all__ = ["BODY_BYTES", "PATH", "Decided", "DischargeService", "Pending"]

# What a ticket says is needed, in the words of whoever wrote the caveat.
Need: TypeAlias = Mapping[str, Any]

# Who a person is, by the request that they send, if they may decide on a need.
Approver: TypeAlias = "Callable[[Scope, Need], str | Awaitable[str | None] | None]"

# What answers at an address: given what ASGI gives, and the id in the address.
_Handler: TypeAlias = Callable[[Scope, Receive, str], Awaitable[Response]]

BODY_BYTES = DISCHARGE_BYTES  # of a request

_JSON = b"application/json"
_FORM = b"application/x-www-form-urlencoded"

# Beside what each response has, on all of them: an error is as good a page to attack as any.
_FOR_BROWSERS = (
    (b"content-security-policy", approval_page.POLICY.encode()),
    # Under `no-referrer`, browsers would send the form with `Origin: null`.
    (b"referrer-policy", b"same-origin"),
)


class DischargeService:
    """The application.

        policy = lambda need: Wait(person=True) if need["cents"] > 500 else Allow(expires_in=60)
        service = DischargeService(
            Discharger(key, policy),
            origin="https://approvals.example",
            approver=lambda scope, need: signed_in(scope),
        )

    `origin` is its scheme, host and port as browsers know them: `https://approvals.example`.
    `approver(scope, need)`: who the person is that sent a request, if they may decide on this need;
    otherwise None. May be a coroutine function. Without it, a policy that waits for a person is
    answered 501.
    `allowed`: what an approval gives: an Allow, or a function from need to Allow. Its life starts
    when it is fetched.
    `on_decision`: is given each Decided before it counts; if it raises, nothing is decided.
    `limit`: requests that wait at once; more are answered 503.
    `keep`: seconds until one is over.
    """

    _path = PATH

    def __init__(
        self,
        discharger: Deciding,
        *,
        origin: str,
        approver: Approver | None = None,
        allowed: Allow | Callable[[Need], Allow] | None = None,
        on_decision: Callable[[Decided], object] | None = None,
        limit: int = 1000,
        keep: float = 600,
        clock: Clock = time,
    ) -> None:
        self._discharger = discharger
        self._origin = own_origin(origin)
        self._approver = approver
        self._allowed = Allow(expires_in=60) if allowed is None else allowed
        self._waiting = Waiting(discharger, on_decision, limit, keep, clock)

    def pending(self) -> tuple[Pending, ...]:
        """What waits to be decided, oldest first. For operators, from any thread."""
        return self._waiting.pending()

    def decide(
        self,
        id: str,
        answer: Allow | Refuse,
        *,
        by: str,
    ) -> bool:
        """Whether this decision counts. For operators, who decide without the page.

        `id`: that of a Pending.
        `by`: who decides, for the audit.

        False: the request is unknown, over, or somebody else decides it. Raises TypeError for what
        is no decision, and what `on_decision` raises.
        """
        return self._waiting.decide(id, answer, by)

    # --- for whoever needs a discharge ------------------------------------------------------------

    async def _ask(
        self,
        scope: Scope,
        receive: Receive,
        _: str,
    ) -> Response:
        """A ticket is posted: it is decided by the policy, or waits.

        Whoever has a ticket may post it. A discharge is of use to the one alone who holds the token
        that the ticket belongs to.
        """
        ticket, need = self._read(await _body(scope, receive, _JSON))
        said = await self._said(ticket)
        if not isinstance(said, Wait):
            return self._final(said)
        # Better now than never: nobody would ever see the page.
        if said.person and self._approver is None:
            raise RequestError(501, "Nobody can approve here.")
        # By the configured origin: the Host header is whatever a client writes into it. A person
        # follows the one address, and the client that asked the other one.
        base = self._origin + _root(scope) + self._path
        request = self._waiting.add(
            ticket,
            need,
            person=said.person,
            pages=base + "/decide/",
        )
        if request is None:
            raise RequestError(503, "Too many requests are waiting for a decision.")
        poll_url = f"{base}/poll/{request.fetch_id}"
        if not said.person:
            return _json(202, Answer(poll_url=poll_url))
        person = Interactive(
            poll_url=poll_url,
            user_url=request.seen.user_url,
        )
        return _json(202, Answer(user_interactive=person))

    def _read(self, body: bytes) -> tuple[Any, Need]:
        """What is asked, and what is needed by it. Raises RequestError."""
        try:
            ticket = Ticket.parse(msgspec.json.decode(body, type=DischargeRequest).ticket)
            return ticket, self._discharger.need(ticket)
        except (msgspec.MsgspecError, ValueError, RecursionError, DischargeError):
            # One sentence for all of it: a stranger learns nothing by trying.
            raise RequestError(400, "This ticket is not for this discharger.") from None

    async def _said(self, ticket: Any) -> Serialized | Refuse | Wait:
        """What the policy says. It is called here, unless a service has one that blocks."""
        return self._discharger.answer(ticket)

    async def _poll(
        self,
        scope: Scope,
        receive: Receive,
        fetch_id: str,
    ) -> Response:
        """The outcome is asked for. Whoever knows the id has asked for it in the first place."""
        outcome = self._waiting.fetch(fetch_id)
        if outcome is None:
            raise RequestError(404, "This request is unknown, or has expired.")
        if isinstance(outcome, Wait):
            return Response.of(202, _JSON, b"")
        return self._final(outcome)

    def _final(self, said: Serialized | Refuse) -> Response:
        """What was decided, for whoever asked.

        A refusal has a status of its own: a client that knows no more than HTTP sees it too.
        """
        if isinstance(said, Refuse):
            return _json(403, Answer(error=said.reason))
        return _json(200, self._given(said.serialize()))

    def _given(self, text: str) -> Answer:
        return Answer(discharge=text)

    # --- for the person who decides ---------------------------------------------------------------

    async def _show(
        self,
        scope: Scope,
        receive: Receive,
        id: str,
    ) -> Response:
        """The page: what is needed, with two buttons, or what has come of it.

        Looking at it decides nothing, whatever opens it in the person's name.
        """
        request, by = await self._person(scope, id)
        if request.taken:
            return _outcome(200, request)
        return _html(200, await self._page(request, by))

    async def _page(self, request: Request, by: str) -> str:
        """What the person `by` is asked."""
        return approval_page.form(request.seen.need, request.seen.expires_at, by)

    async def _submit(
        self,
        scope: Scope,
        receive: Receive,
        id: str,
    ) -> Response:
        """The person has pressed a button.

        It may be too late: somebody else has decided, or begun to.
        """
        self._refuse_other_sites(scope)
        request, by = await self._person(scope, id)
        body = await _body(scope, receive, _FORM)
        answer = self._decision_in(body, request.seen.need)
        counts = self.decide(id, answer, by=by)
        return _outcome(200 if counts else 409, request)

    def _refuse_other_sites(self, scope: Scope) -> None:
        """Raise RequestError for a form that is not the page's own (rule 2).

        Every browser sends `Origin` with a form that is posted. The other header is newer, and is
        looked at where it is sent.
        """
        headers = scope["headers"]
        own = values_of(headers, b"origin") == [self._origin.encode()]
        if not own or values_of(headers, b"sec-fetch-site") not in ([], [b"same-origin"]):
            raise RequestError(403, "Only the page itself can decide.")

    def _decision_in(self, body: bytes, need: Need) -> Allow | Refuse:
        """What the form says.

        It is compared as it stands: the page sends one of two texts. What is needed comes from the
        ticket, and nothing in the form can change it.
        """
        if body == b"decision=deny":
            return Refuse("denied")
        if body != b"decision=approve":
            raise RequestError(400, "This neither approves nor denies.")
        if isinstance(self._allowed, Allow):
            return self._allowed
        return self._allowed(need)

    async def _person(self, scope: Scope, id: str) -> tuple[Request, str]:
        """The request that a person may decide, and who that is (rule 1).

        Raises RequestError, and what the approver raises.
        """
        request = self._waiting.find(id)
        if request is None or self._approver is None or not request.seen.person:
            raise RequestError(404, "This request is unknown, or has expired.")
        by = self._approver(scope, request.seen.need)
        if isawaitable(by):
            by = await by
        if by is None:
            raise RequestError(403, "You are not signed in, or this decision is not yours.")
        # True, or an object of the login's, would stand in the audit as the one who decided.
        if type(by) is not str or not by:
            raise TypeError(
                f"an approver must return a name, as str, or None, not {type(by).__name__}"
            )
        return request, by

    # --- ASGI -------------------------------------------------------------------------------------

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """One request.

        What the policy, the approver and the callbacks raise is answered 500, without a detail, and
        raised on, for the server's log (rule 3).
        """
        if scope["type"] == "lifespan":
            return await _live(receive, send)
        if scope["type"] == "websocket":
            await receive()  # the handshake, which is refused
            return await send({"type": "websocket.close", "code": 1008})
        handlers, id = self._handlers(scope)
        problem: Exception | None = None  # what is raised on, once the client has its answer
        try:
            check_head(scope)
            if not handlers:
                raise RequestError(404, "Not found.")
            if scope["method"] not in handlers:
                raise RequestError(405, "This method is not allowed here.")
            response = await handlers[scope["method"]](scope, receive, id)
        except RequestError as error:
            response = _error(error, handlers)
        except Exception as error:
            problem = error
            response = _error(RequestError(500, "Something failed."), handlers)
        response.headers.extend(_FOR_BROWSERS)
        await respond(send, response)
        if problem is not None:
            raise problem

    def _handlers(self, scope: Scope) -> tuple[dict[str, _Handler], str]:
        """What answers at the address of a request, by method, and the id in the address.

        Nothing answers at other addresses. An id is looked up as it stands: it is one of ours or
        unknown.
        """
        path = scope["path"].removeprefix(_root(scope))
        if path == self._path:
            return {"POST": self._ask}, ""
        above, _, id = path.rpartition("/")
        if above == self._path + "/poll":
            return {"GET": self._poll}, id
        if above == self._path + "/decide":
            return {"GET": self._show, "POST": self._submit}, id
        return {}, ""


async def _live(receive: Receive, send: Send) -> None:
    """The lifespan of the application, in which nothing happens.

    Servers want an answer to both of its messages.
    """
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


def _json(status: int, answer: Answer) -> Response:
    """For whoever needs a discharge."""
    return Response.of(status, _JSON, msgspec.json.encode(answer))


def _html(status: int, page: str) -> Response:
    """For the person who decides."""
    return Response.of(status, b"text/html; charset=utf-8", page.encode())


def _error(error: RequestError, handlers: Mapping[str, _Handler]) -> Response:
    """What is wrong: a page where people come, JSON elsewhere.

    `handlers`: what answers at this address. People come where there is a form to see and to send.
    """
    if "GET" in handlers and "POST" in handlers:
        response = _html(error.status, approval_page.message(error.text))
    else:
        response = _json(error.status, Answer(error=error.text))
    if error.status == 405:
        response.headers.append((b"allow", ", ".join(handlers).encode()))
    return response


def _outcome(status: int, request: Request) -> Response:
    """The page that says what became of a request, to whoever may decide on it.

    It names who decided: two people may look at one request.
    """
    if request.decided is None:
        other = approval_page.message("Somebody else decides this, or it is over.")
        return _html(status, other)
    how = "Approved" if isinstance(request.decided.answer, Allow) else "Denied"
    said = f"{how} by {request.decided.by}."
    return _html(status, approval_page.message(said, "You can close this page."))


def _root(scope: Scope) -> str:
    """Where this is mounted, without a slash at its end.

    Some servers leave it in the path of a request, and some do not.
    """
    root: str = scope.get("root_path", "")
    return root.rstrip("/")


async def _body(
    scope: Scope,
    receive: Receive,
    kind: bytes,
) -> bytes:
    """The body, if it is of this kind and not too long (rule 4). Raises RequestError.

    The kind is asked for: another site's page can post text without asking, but no JSON.
    """
    stated = values_of(scope["headers"], b"content-type")
    kinds = [value.partition(b";")[0].strip().lower() for value in stated]
    if kinds != [kind]:
        raise RequestError(415, f"The content type must be {kind.decode()}.")
    try:
        return await Body(receive, BODY_BYTES).read_all()
    except ClientGone:
        raise RequestError(400, "The body is incomplete.") from None
