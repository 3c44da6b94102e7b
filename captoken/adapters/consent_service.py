"""A consent service over HTTP: the page on which a person reads one call, and consents to it.

    POST  …/consent               {"request"}: 202 {"user_interactive"}
    GET   …/consent/poll/<id>     202 undecided; 200 {"consent"} or 403 {"error"}, once;
                                  404 unknown or over
    GET   …/consent/decide/<id>   a page for a person; its form posts the decision

It is the sibling of DischargeService, with the same rules and the same login: see
`captoken.adapters.discharge_service`. Beside these:

1. The page shows each fact of the request, whole. What is longer than a person reads is refused
   when it is posted, and nobody is asked.
2. The consent is signed over what the page shows, by the service's key. So whoever wrote the
   request, and whoever posts it, the consent is to what the person has read.
3. The page cannot know who posts. Who asks, as the request has it, is marked as the writer's word.
   `so_far` adds what the owner's own trail knows of the task.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from inspect import isawaitable
from time import time
from typing import Any, TypeAlias

import msgspec

from captoken._format.clocks import CONSENT_LIFE, Clock, Seconds, seconds_of
from captoken._format.errors import ConsentError
from captoken.adapters._discharge import approval_page
from captoken.adapters._discharge.protocol import Answer
from captoken.adapters._discharge.waiting import Decided, Pending, Request
from captoken.adapters._http.exchange import RequestError
from captoken.adapters.discharge_service import Approver as Login
from captoken.adapters.discharge_service import DischargeService, Need
from captoken.consent import Approver, Asked
from captoken.discharge import Allow, Refuse, Wait

__all__ = ["PATH", "ConsentService", "Decided", "Pending"]

# Below the service's address: where requests are posted.
PATH = "/.well-known/captoken/consent"

# Characters of all facts together: some two pages.
READABLE = 4_000

# What the owner knows of a task: lines of a name and a text, for the person to see.
Lines: TypeAlias = Iterable[tuple[str, str]]
SoFar: TypeAlias = Callable[[Asked], Lines | Awaitable[Lines]]


class _Posted(msgspec.Struct):
    """What is posted: the text of `decision.request()`."""

    request: str


class _Text:
    """Consents, as they go to whoever asked."""

    def __init__(self, text: str) -> None:
        self._text = text

    def serialize(self) -> str:
        return self._text


class _Person:
    """Who answers: nobody but a person, with this key."""

    def __init__(self, key: Approver, life: int) -> None:
        self._key = key
        self._life = life

    def need(self, ticket: str) -> dict[str, Any]:
        """What the login sees: the server, and the word of the request's writer."""
        asked = self._key.read(ticket)
        return {
            "server": asked.audience,
            "agent": asked.agent,
            "subject": asked.subject,
            "task": asked.task,
            "token": asked.token_id,
            "request": ticket,
        }

    def answer(self, ticket: str) -> Wait:
        return Wait(person=True)

    def approve(self, ticket: str, allowed: Allow) -> _Text:
        return _Text(self._key.consent(ticket, expires_in=self._life))


class ConsentService(DischargeService):
    """The application.

        service = ConsentService(
            Approver(ApproverKey.load("jane.json")),
            origin="https://approvals.example",
            login=lambda scope, need: signed_in(scope),
        )

    `key`: the Approver that consents are asked of. Its requests alone are taken.
    `origin` is its scheme, host and port as browsers know them.
    `login(scope, need)`: who the person is that sent a request, if they may decide on this need;
    otherwise None. The need has `server`, `agent`, `subject`, `task`, `token` and `request`. May be
    a coroutine function.
    `expires_in`: how long a consent is valid, from when it is fetched: an hour at most.
    `so_far(asked)`: lines of a name and a text, such as what the task has done and its marks by the
    owner's trail. They stand below the call. May be a coroutine function. None unless said.
    `readable`: characters of a request that are shown; a longer one is refused.
    `on_decision`: is given each Decided before it counts; if it raises, nothing is decided.
    `limit`: requests that wait at once. `keep`: seconds until one is over.
    """

    _path = PATH

    def __init__(
        self,
        key: Approver,
        *,
        origin: str,
        login: Login,
        expires_in: Seconds = 300,
        so_far: SoFar | None = None,
        readable: int = READABLE,
        on_decision: Callable[[Decided], object] | None = None,
        limit: int = 1000,
        keep: float = 600,
        clock: Clock = time,
    ) -> None:
        life = seconds_of(expires_in, "expires_in")
        if life > CONSENT_LIFE:
            raise ValueError(f"a consent lives {CONSENT_LIFE} seconds at most, not {life}")
        super().__init__(
            _Person(key, life),
            origin=origin,
            approver=login,
            on_decision=on_decision,
            limit=limit,
            keep=keep,
            clock=clock,
        )
        self._key = key
        self._so_far = so_far
        self._readable = readable

    def ask(self, request: str) -> tuple[str, str]:
        """For a server of this process: the page of a request, and what its outcome is known by.

        The service is then at the root of its origin. Raises ConsentError for what is no request of
        this key, is longer than a person reads, or is one too many.
        """
        try:
            _, need = self._read(msgspec.json.encode({"request": request}))
        except RequestError as problem:
            raise ConsentError(problem.text) from None
        pages = f"{self._origin}{self._path}/decide/"
        waits = self._waiting.add(request, need, person=True, pages=pages)
        if waits is None:
            raise ConsentError("too many requests are waiting for a decision")
        return waits.seen.user_url, waits.fetch_id

    def outcome(self, number: str) -> str | Refuse | None:
        """For the same server: the consent, once, or a Refuse; None while nobody has decided.

        Raises ConsentError for a request that is over, or was never there.
        """
        found = self._waiting.fetch(number)
        if found is None:
            raise ConsentError("the request is over, or was never there")
        if isinstance(found, Wait):
            return None
        return found if isinstance(found, Refuse) else found.serialize()

    def _read(self, body: bytes) -> tuple[str, Need]:
        """The request, if it is one for this key that a person can read. Raises RequestError."""
        try:
            request = msgspec.json.decode(body, type=_Posted).request
            asked = self._key.read(request)
            need = self._discharger.need(request)
        except (msgspec.MsgspecError, ValueError, RecursionError, ConsentError):
            raise RequestError(400, "This is no request for a consent of this key.") from None
        size = sum(len(name) + len(text) for name, text in asked.lines())
        if size > self._readable:
            raise RequestError(
                400, f"This is longer than a person reads: more than {self._readable} characters."
            )
        return request, need

    def _given(self, text: str) -> Answer:
        return Answer(consent=text)

    async def _page(self, request: Request, by: str) -> str:
        """All of the request, and what the owner knows of the task."""
        asked = self._key.read(request.ticket)
        known = () if self._so_far is None else self._so_far(asked)
        if isawaitable(known):
            known = await known
        return approval_page.consent(asked.lines(), known, request.seen.expires_at, by)
