"""People log in here, and say what an application may do for them.

    GET   /authorize            what an application asks for (RFC 6749, 4.1; RFC 7636)
    POST  /authorize/decide     what the person says
    GET   /grants               what acts for her
    POST  /grants/end           what she ends

1. Who is logged in, `visits` knows.
2. Nobody's document is fetched before somebody has logged in.
3. Nobody is sent to an application but by a button. An error is a page, which says where it leads.
4. A form is of one session (`sessions`). It shows what was offered, and is refused if that changed.
5. What the person ticked is written into the registry with the code. The application's part is in
   `codes`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias
from urllib.parse import urlencode, urlsplit

from captoken._format import primitives
from captoken._format.clocks import Clock, read_clock
from captoken._format.encoding import b64decode, b64encode
from captoken._format.entropy import random_bytes
from captoken._format.errors import IssuanceError, StoreError
from captoken._format.spelling import escape
from captoken.adapters._http.escapes import fields
from captoken.adapters._http.exchange import Receive, Response, Scope, values_of
from captoken.adapters._issuance import login_pages as pages
from captoken.adapters._issuance.allowances import Allowances
from captoken.adapters._issuance.answers import form
from captoken.adapters._issuance.ends import Ends
from captoken.adapters._issuance.offers import (
    Asked,
    Offer,
    offer_of,
    read_asked,
    rights_in,
)
from captoken.adapters._issuance.reviews import Reviews
from captoken.adapters._issuance.standing import Standing
from captoken.adapters._issuance.visits import (
    BACK,
    CALLBACK,
    POSTED,
    Visit,
    Visits,
    cookies,
    login_of,
    redirect,
)
from captoken.issuance.applications import Application, address_of
from captoken.issuance.documents import Documents
from captoken.issuance.policy import Policy
from captoken.issuance.registry import LoginRegistry

_log = logging.getLogger("captoken.issuance")

PAGE_LIFE = 900  # seconds for the person to answer
_FIELDS = 512  # of a form: a box for each right

_ANSWERED = (
    "You have answered this already. Go back to the application, and start again there."
)

# The forms, by which no form is taken for another.
_CONSENT = "consent"
_END = "end"

_Handler: TypeAlias = Callable[[Scope, Receive], Awaitable[Response]]


class Logins:
    """The routes of people. For one event loop."""

    def __init__(
        self,
        standing: Callable[[], Standing],
        registry: LoginRegistry,
        ends: Ends,
        reviews: Reviews,
        clock: Clock,
        documents: Documents,
        is_trial: bool,
    ) -> None:
        """`standing` gives what stands now."""
        self._standing = standing
        self._registry = registry
        self._ends = ends
        self._clock = clock
        self._documents = documents
        self._is_trial = is_trial
        self._allowances = Allowances(registry, clock)
        self._visits = Visits(standing, registry, ends, reviews, clock)
        self.routes: dict[tuple[str, str], _Handler] = {
            ("GET", "/authorize"): self._guarded(self._authorize),
            ("POST", "/authorize/decide"): self._guarded(self._decide),
            ("GET", CALLBACK): self._guarded(self._visits.called),
            ("POST", POSTED): self._guarded(self._visits.posted),
            ("GET", "/grants"): self._guarded(self._grants),
            ("POST", "/grants/end"): self._guarded(self._end),
        }

    async def close(self) -> None:
        """Give up what is being fetched."""
        await self._documents.close()

    def _guarded(self, handler: _Handler) -> _Handler:
        """A route whose errors are pages."""

        async def guarded(scope: Scope, receive: Receive) -> Response:
            try:
                return await handler(scope, receive)
            except StoreError as error:
                _log.error("nobody logs in: %s", error)
                text = "This service cannot do this now. Try again later."
                return pages.message(self._look, 503, "Not now", text)
            except IssuanceError as error:
                _log.info("nobody logs in: %s %s", escape(str(error)), escape(error.why))
                status = 503 if error.code == "temporarily_unavailable" else 400
                return pages.message(self._look, status, "This did not work", _sentence(error))

        return guarded

    @property
    def _look(self) -> pages.Look:
        base = urlsplit(self._standing().policy.origin).path.rstrip("/")
        return pages.Look(base, self._is_trial)

    # --- what an application asks for -------------------------------------------------------------

    async def _authorize(self, scope: Scope, receive: Receive) -> Response:
        """The page that asks; or the provider first, where nobody is logged in."""
        standing = self._standing()
        login_of(standing.policy)
        query = scope.get("query_string", b"")
        is_back = query.endswith(BACK)
        query = query.removesuffix(BACK)
        asked = read_asked(query)
        visit = await self._visits.visit(scope, standing)
        if visit is None:
            return await self._unknown(standing, b"/authorize?" + query, is_back)
        try:
            offer = await self._offer(asked, visit, standing)
        except _ReturnedError as error:
            return self._returned(error)
        return self._asking(offer, visit, query)

    async def _unknown(self, standing: Standing, asked: bytes, is_back: bool) -> Response:
        """The way to the provider, and back to what was asked for; once, where cookies are lost."""
        if is_back:
            text = "Your browser keeps no cookies of this service, so it cannot log you in."
            return pages.message(self._look, 400, "No cookies", text)
        return await self._visits.to_provider(standing, asked)

    def _asking(self, offer: Offer, visit: Visit, query: bytes, notice: str = "") -> Response:
        """The page with a form for this session alone."""
        said = {
            "once": b64encode(random_bytes(16)),
            "until": read_clock(self._clock) + PAGE_LIFE,
            "query": query.decode("latin-1"),
            "seen": b64encode(offer.digest),
        }
        return pages.consent(self._look, offer, visit.session.sealed(_CONSENT, said), notice)

    async def _offer(self, asked: Asked, visit: Visit, standing: Standing) -> Offer:
        """What the policy gives. Raises IssuanceError, and _ReturnedError for the application."""
        application = await self._application(asked.client, standing.policy)
        if not application.takes(asked.redirect):
            raise IssuanceError(
                "the redirect_uri is not one of the application's", "invalid_request"
            )
        running = await self._allowances.running(application, visit) if asked.rights else []
        try:
            return offer_of(asked, application, visit.identity, standing.desk, running)
        except IssuanceError as error:
            raise _ReturnedError(error, asked) from None

    async def _application(self, id: str, policy: Policy) -> Application:
        """The application with this id. Raises IssuanceError for one that no grant is for."""
        if not any(grant.takes(id) for grant in policy.grants.values()):
            raise IssuanceError("this service does not know the application", "invalid_client")
        known = policy.clients.get(id)
        if known is not None:
            return Application(id, known.name or id, known.redirects)
        return await self._documents.get(id, is_named=policy.names_client(id))

    def _returned(self, error: _ReturnedError) -> Response:
        """An error that the application is to hear: by a link, which the person may follow."""
        asked, why = error.asked, error.error
        _log.info("nothing is allowed: %s %s", escape(str(why)), escape(why.why))
        said = {"error": why.code, "error_description": _ascii(str(why))}
        back = address_of(asked.redirect)
        host = "the application" if back is None else back.host
        link = _with(asked.redirect, said, asked.state, self._standing().policy.origin)
        text = _sentence(why)
        return pages.message(self._look, 400, "This is not possible", text, (link, host))

    # --- what the person says ---------------------------------------------------------------------

    async def _decide(self, scope: Scope, receive: Receive) -> Response:
        """Her answer. It is of this session, of the page that she has seen, and counts once."""
        standing = self._standing()
        policy = standing.policy
        visit, said, given = await self._answered(scope, receive, standing, _CONSENT)
        query = str(said["query"]).encode("latin-1")
        try:
            offer = await self._offer(read_asked(query), visit, standing)
        except _ReturnedError as error:
            return self._returned(error)
        if said["until"] <= read_clock(self._clock):
            return self._asking(offer, visit, query, "You took long to answer. Please look again.")
        if not primitives.equal(b64decode(said["seen"]), offer.digest):
            notice = "What is offered has changed meanwhile. Please look again."
            return self._asking(offer, visit, query, notice)
        if given.get("answer") != ["allow"]:
            denied = {"error": "access_denied"}
            return _sent_on(_with(offer.asked.redirect, denied, offer.asked.state, policy.origin))
        try:
            keywords = offer.keywords(given.get("right", []))
        except IssuanceError as error:
            return self._asking(offer, visit, query, _sentence(error))
        code = await self._allowances.add(offer, visit, keywords, said)
        if code is None:
            return pages.message(self._look, 409, "Answered already", _ANSWERED)
        told = {"code": code}
        return _sent_on(_with(offer.asked.redirect, told, offer.asked.state, policy.origin))

    # --- what acts for her ------------------------------------------------------------------------

    async def _grants(self, scope: Scope, receive: Receive) -> Response:
        """What she has allowed, and still lasts."""
        standing = self._standing()
        visit = await self._visits.visit(scope, standing)
        if visit is None:
            is_back = scope.get("query_string", b"").endswith(BACK)
            return await self._unknown(standing, b"/grants?", is_back)
        return await self._list(visit)

    async def _list(self, visit: Visit) -> Response:
        running = [
            pages.Running(
                sealed=visit.session.sealed(_END, {"id": one.id}),
                application=_named(one.client, allowed.name),
                grant=allowed.grant,
                audience=allowed.audience,
                rights=rights_in(allowed.keywords),
                begun=one.begun,
                until=one.until,
            )
            for one, allowed in await self._allowances.live(visit)
        ]
        log_out = visit.session.sealed(_END, {"id": None})
        return pages.grants(self._look, visit.login.subject, running, log_out)

    async def _end(self, scope: Scope, receive: Receive) -> Response:
        """End what an application does for her, or log out here."""
        standing = self._standing()
        visit, said, _ = await self._answered(scope, receive, standing, _END)
        if said["id"] is None:
            await asyncio.to_thread(self._registry.drop_login, visit.login.id)
            text = "You are logged out here. Your provider may still know you."
            response = pages.message(self._look, 200, "Logged out", text)
            response.headers.append(cookies(standing.policy).forget())
            return response
        if await self._allowances.end(said["id"], visit):
            self._ends.publisher.wake()
        return redirect(f"{standing.policy.origin}/grants")

    async def _answered(
        self,
        scope: Scope,
        receive: Receive,
        standing: Standing,
        what: str,
    ) -> tuple[Visit, dict[str, Any], dict[str, list[str]]]:
        """A form of this session: who sends it, what was sealed in it, and what was filled in.

        Raises IssuanceError for a form that comes from elsewhere, or is of another session.
        """
        _check_from_here(scope, standing.policy)
        visit = await self._visits.visit(scope, standing)
        try:
            pairs = fields(await form(scope, receive), _FIELDS)
        except ValueError:
            raise IssuanceError("the form cannot be read", "invalid_request") from None
        given: dict[str, list[str]] = {}
        for name, value in pairs:
            given.setdefault(name, []).append(value)
        sealed = given.get("request", [])
        said = visit.session.opened(what, sealed[0]) if visit and len(sealed) == 1 else None
        if visit is None or said is None:
            raise IssuanceError(
                "this page is of another login: go back to the application, and start again there",
                "invalid_request",
            )
        return visit, said, given


class _ReturnedError(Exception):
    """What is wrong with a request whose application is known: it may hear it."""

    def __init__(self, error: IssuanceError, asked: Asked) -> None:
        super().__init__(str(error))
        self.error = error
        self.asked = asked


def _check_from_here(scope: Scope, policy: Policy) -> None:
    """Raise IssuanceError for a form that a browser sends from another site."""
    sites = values_of(scope["headers"], b"sec-fetch-site")
    origins = values_of(scope["headers"], b"origin")
    here = address_of(policy.origin)
    is_here = here is not None and origins in ([], [here.origin.encode()])
    if not is_here or sites not in ([], [b"same-origin"]):
        raise IssuanceError("this form comes from another site", "invalid_request")


def _named(client: str, name: str) -> str:
    """An application by what it calls itself, and by who publishes it."""
    address = address_of(client)
    return name if address is None else f"{name} ({address.host})"


def _with(redirect: str, said: Mapping[str, str], state: str | None, origin: str) -> str:
    """An application's address, with what it is told, by whom (RFC 9207)."""
    told = {**said, **({} if state is None else {"state": state}), "iss": origin}
    return f"{redirect}{'&' if '?' in redirect else '?'}{urlencode(told)}"


def _sent_on(address: str) -> Response:
    """To an application, which hears nothing of where the browser was."""
    response = redirect(address)
    response.headers.append((b"referrer-policy", b"no-referrer"))
    return response


def _sentence(error: IssuanceError) -> str:
    text = str(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _ascii(text: str) -> str:
    return "".join(char if " " <= char <= "~" and char not in '"\\' else "'" for char in text)
