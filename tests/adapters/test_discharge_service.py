"""Discharges over HTTP: no address is a right to decide, each decision is made once, and the client trusts one service."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from urllib.request import HTTPErrorProcessor, ProxyHandler, Request, build_opener

import msgspec
import pytest
import uvicorn

from captoken import Access, Denied, Issuer, Keyring, Verifier
from captoken.adapters.discharge_client import (
    ANSWER_BYTES,
    PATH,
    obtain,
)
from captoken.adapters.discharge_service import BODY_BYTES, Decided, DischargeService
from captoken.discharge import Allow, Discharge, Discharger, Refuse, Ticket, Wait
from captoken.errors import DischargeError
from captoken.keys import DischargerKey
from tests.fixtures import named

NOW = 1_764_061_200
ORIGIN = "https://approvals.example"
KEY = DischargerKey.from_bytes(bytes(range(32)))
OTHER = DischargerKey.from_bytes(bytes(range(1, 33)))
KEYRING = Keyring.from_keys({"k1": bytes(range(32))}, current="k1")
ROOT = Issuer(KEYRING, clock=lambda: NOW).mint(
    subject="user:jane", agent="buyer", task="task-1", tables=["sales"], operations=["select"], expires_in=3600
)
JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded", "origin": ORIGIN, "sec-fetch-site": "same-origin"}
PERSON = Wait(person=True)


def asking(need: Mapping[str, Any] | None = None, key: DischargerKey = KEY, location: str | None = None) -> Any:
    return ROOT.require(key.public, need={"approve": "payment"} if need is None else need, location=location)


def ticket(need: Mapping[str, Any] | None = None, key: DischargerKey = KEY, location: str | None = None) -> Ticket:
    needed: Ticket = asking(need, key, location).needs[0]
    return needed


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes
    unread: int  # pieces of the request

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


def call(
    app: Any,
    method: str,
    path: str,
    body: bytes | Sequence[bytes] = b"",
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    *,
    root: str = "",
    raises: type[Exception] | None = None,
) -> Reply:
    """One request to an ASGI application, in this thread. `body`: whole, or in the pieces in which it comes."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    scope = {"type": "http", "method": method, "path": path.removeprefix(ORIGIN), "root_path": root, "query_string": b""}
    scope["headers"] = [(name.encode(), value.encode("latin-1")) for name, value in pairs]
    pieces = [body] if isinstance(body, bytes) else list(body)
    coming = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    coming[-1]["more_body"] = False
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return coming.pop(0) if coming else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    if raises is None:
        asyncio.run(app(scope, receive, send))
    else:
        with pytest.raises(raises):
            asyncio.run(app(scope, receive, send))
    start, *rest = sent
    got = {name.decode(): value.decode() for name, value in start["headers"]}
    whole = b"".join(message["body"] for message in rest)
    assert int(got["content-length"]) == len(whole)
    return Reply(start["status"], got, whole, len(coming))


class Site:
    """A service whose policy answers what it is told to, with its clock, and the people who are signed in."""

    def __init__(self, *says: Any, **keywords: Any) -> None:
        self.now = float(NOW)
        self.says = list(says)  # the last one stays
        self.signed_in: Any = "jane"
        self.audit: list[Decided] = []
        keywords = {"approver": lambda scope, need: self.signed_in, "on_decision": self.audit.append, **keywords}
        self.discharger = Discharger(KEY, self.policy, clock=lambda: self.now)
        self.service = DischargeService(self.discharger, origin=ORIGIN, clock=lambda: self.now, **keywords)

    def policy(self, need: Mapping[str, Any]) -> Any:
        says = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if isinstance(says, Exception):
            raise says
        return says

    def ask(self, need: Mapping[str, Any] | None = None, **keywords: Any) -> Reply:
        return call(self.service, "POST", PATH, msgspec.json.encode({"ticket": ticket(need).text}), JSON, **keywords)

    def wait(self, need: Mapping[str, Any] | None = None) -> tuple[str, str]:
        """Ask for what a person has to decide: the addresses to poll, and to decide at."""
        asked = self.ask(need).json["user_interactive"]
        return asked["poll_url"], asked["user_url"]

    def get(self, url: str, **keywords: Any) -> Reply:
        return call(self.service, "GET", url, **keywords)

    def post(self, url: str, body: bytes = b"decision=approve", headers: Any = FORM, **keywords: Any) -> Reply:
        return call(self.service, "POST", url, body, headers, **keywords)


# --- the three answers -----------------------------------------------------------------------------------------------


def test_a_discharge_that_came_over_http_satisfies_a_verifier() -> None:
    token, site = asking(), Site(Allow(expires_in=60))
    reply = call(site.service, "POST", PATH, msgspec.json.encode({"ticket": token.needs[0].text}), JSON)
    assert (reply.status, list(reply.json)) == (200, ["discharge"])
    text = token.with_discharge(reply.json["discharge"]).present(audience="sales-api", clock=lambda: NOW)
    verifier = Verifier(KEYRING, audience="sales-api", clock=lambda: NOW)
    verifier.authorize(text, Access(table="sales", operation="select"))
    with pytest.raises(Denied, match="discharge"):
        verifier.authorize(token.present(audience="sales-api", clock=lambda: NOW), Access(table="sales", operation="select"))


def test_a_refusal_says_why() -> None:
    reply = Site(Refuse("over the limit")).ask()
    assert (reply.status, reply.json) == (403, {"error": "over the limit"})


def test_without_a_person_the_policy_is_asked_again_at_each_poll() -> None:
    site = Site(Wait(), Wait(), Allow(expires_in=60))
    reply = site.ask()
    assert (reply.status, list(reply.json)) == (202, ["poll_url"])
    url = reply.json["poll_url"]
    assert (site.get(url).status, site.get(url).status, site.get(url).status) == (202, 200, 404)
    site = Site(Wait(), Refuse("no"))
    url = site.ask().json["poll_url"]
    assert (site.get(url).json, site.get(url).status) == ({"error": "no"}, 404)


def test_what_a_person_approved_is_fetched_once_and_lives_from_then_on() -> None:
    site = Site(PERSON)
    poll, user = site.wait()
    undecided = site.get(poll)
    assert (undecided.status, undecided.body) == (202, b"")
    assert b"payment" in site.get(user).body
    assert b"Approved by jane." in site.post(user).body
    site.now += 300
    reply = site.get(poll)
    assert reply.status == 200
    assert Discharge.parse(reply.json["discharge"]).expires_at == NOW + 360
    assert site.get(poll).status == 404
    assert site.get(user).status == 404


def test_what_a_person_denied_is_refused() -> None:
    site = Site(PERSON)
    poll, user = site.wait()
    assert b"Denied by jane." in site.post(user, b"decision=deny").body
    assert (site.get(poll).status, site.get(poll).status) == (403, 404)


def test_an_approval_gives_what_the_service_allows_for_that_need() -> None:
    def allowed(need: Mapping[str, Any]) -> Allow:
        return Allow(expires_in=need["seconds"], tables=["sales"])

    site = Site(PERSON, allowed=allowed)
    poll, user = site.wait({"seconds": 7})
    site.post(user)
    assert Discharge.parse(site.get(poll).json["discharge"]).expires_at == NOW + 7


def test_what_a_person_decides_the_policy_does_not() -> None:
    site = Site(PERSON, Allow(expires_in=60))
    poll, _ = site.wait()
    assert site.get(poll).status == 202


def test_a_service_that_nobody_can_approve_at_says_so() -> None:
    site = Site(PERSON, approver=None)
    assert site.ask().status == 501
    assert site.service.pending() == ()


@pytest.mark.parametrize("left_in_path", [True, False])
@pytest.mark.parametrize("root", ["/tools/approvals", "/tools/approvals/", ""])
def test_it_can_be_mounted_anywhere(root: str, left_in_path: bool) -> None:
    """Servers differ in whether they leave the mount's path in the request's."""
    site, above = Site(PERSON), root.rstrip("/") if left_in_path else ""
    body = msgspec.json.encode({"ticket": ticket().text})
    asked = call(site.service, "POST", above + PATH, body, JSON, root=root).json["user_interactive"]
    for url in asked.values():
        assert url.startswith(ORIGIN + root.rstrip("/") + PATH + "/")
        path = above + url.removeprefix(ORIGIN + root.rstrip("/"))
        assert call(site.service, "GET", path, root=root).status in (200, 202)


# --- who decides -----------------------------------------------------------------------------------------------------


def test_an_agent_that_knows_the_address_cannot_approve_itself() -> None:
    site = Site(PERSON)
    poll, user = site.wait()
    site.signed_in = None
    for reply in (site.get(user), site.post(user)):
        assert reply.status == 403 and reply.headers["content-type"].startswith("text/html") and b"payment" not in reply.body
    assert site.get(poll).status == 202
    assert len(site.service.pending()) == 1 and site.audit == []


def test_the_approver_is_told_what_is_needed_and_may_be_a_coroutine() -> None:
    """So one's own request, or too large a sum, can be somebody else's to decide."""

    async def approver(scope: Mapping[str, Any], need: Mapping[str, Any]) -> str | None:
        who = dict(scope["headers"])[b"x-user"].decode()
        return who if need["cents"] <= {"jane": 500, "joe": 5000}[who] else None

    site = Site(PERSON, approver=approver)
    _, user = site.wait({"cents": 1000})
    assert site.post(user, headers=FORM | {"x-user": "jane"}).status == 403
    assert site.post(user, headers=FORM | {"x-user": "joe"}).status == 200
    assert [decided.by for decided in site.audit] == ["joe"]


FOREIGN = {
    "no origin": {"origin": None},
    "an opaque origin": {"origin": "null"},
    "another host": {"origin": "https://evil.example"},
    "another scheme": {"origin": "http://approvals.example"},
    "another port": {"origin": "https://approvals.example:8443"},
    "an origin that starts alike": {"origin": "https://approvals.example.evil.example"},
    "an origin with a path": {"origin": "https://approvals.example/"},
    "another site, says the browser": {"sec-fetch-site": "cross-site"},
    "a neighbour of the same site": {"sec-fetch-site": "same-site"},
    "no page at all": {"sec-fetch-site": "none"},
}


@pytest.mark.parametrize("changed", FOREIGN.values(), ids=FOREIGN)
def test_a_form_on_another_site_decides_nothing(changed: Mapping[str, str | None]) -> None:
    """Though it is sent with the login of the person who was lured there."""
    site = Site(PERSON)
    poll, user = site.wait()
    headers = {name: value for name, value in (FORM | changed).items() if value is not None}
    assert site.post(user, headers=headers).status == 403
    assert site.get(poll).status == 202 and site.audit == []


def test_two_origins_are_no_origin() -> None:
    site = Site(PERSON)
    _, user = site.wait()
    assert site.post(user, headers=[*FORM.items(), ("origin", "https://evil.example")]).status == 403
    assert site.post(user, headers={name: value for name, value in FORM.items() if name != "sec-fetch-site"}).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"decision=",
        b"decision=Approve",
        b"decision=approve&decision=deny",
        b"decision=deny&decision=approve",
        b"x=approve",
    ],
)
def test_a_form_says_one_thing(body: bytes) -> None:
    site = Site(PERSON)
    poll, user = site.wait()
    assert site.post(user, body).status == 400
    assert site.get(poll).status == 202


def test_a_decision_stands() -> None:
    """Sent again, or by somebody else, or by an operator: the first one counts, and is audited once."""
    site = Site(PERSON)
    poll, user = site.wait()
    assert site.post(user, b"decision=deny").status == 200
    site.signed_in = "joe"
    again = site.post(user)
    assert again.status == 409 and b"Denied by jane." in again.body
    assert b"<form" not in site.get(user).body
    assert not site.service.decide(site.audit[0].request.id, Allow(expires_in=60), by="operator")
    assert [(decided.by, decided.answer) for decided in site.audit] == [("jane", Refuse("denied"))]
    assert site.get(poll).status == 403


def test_one_id_does_not_open_the_other_door() -> None:
    site = Site(PERSON)
    poll, user = site.wait()
    assert re.fullmatch(re.escape(ORIGIN + PATH) + r"/poll/[\w-]{43}", poll)
    assert re.fullmatch(re.escape(ORIGIN + PATH) + r"/decide/[\w-]{43}", user)
    fetch_id, id = poll[-43:], user[-43:]
    guesses = [id, fetch_id[:-1], fetch_id + "A", fetch_id.swapcase(), "", "%00", "../poll/" + fetch_id, fetch_id + "/"]
    assert {site.get(f"{ORIGIN}{PATH}/poll/{guess}").status for guess in guesses} == {404}
    guesses = [fetch_id, id[:-1], id + "A", id.swapcase(), "", id + "/"]
    assert {site.post(f"{ORIGIN}{PATH}/decide/{guess}").status for guess in guesses} == {404}
    assert fetch_id not in repr(site.service.pending()) and site.service.pending()[0].id == id
    assert len({url[-43:] for _ in range(100) for url in site.wait()}) == 200


def test_what_no_person_was_asked_for_has_no_page() -> None:
    site = Site(Wait())
    site.ask()
    (pending,) = site.service.pending()
    assert site.get(pending.user_url).status == site.post(pending.user_url).status == 404


# --- hostile requests ------------------------------------------------------------------------------------------------


def asks(text: Any) -> bytes:
    return msgspec.json.encode({"ticket": text})


BAD = {
    "no JSON": b"x",
    "nothing": b"",
    "no object": b"[]",
    "no ticket": b"{}",
    "a ticket that is no text": asks({"for": "x"}),
    "no ticket in it": asks("cap1_AAAA"),
    "a token": asks(ROOT.serialize()),
    "for another discharger": asks(ticket(key=OTHER).text),
    "said to be for this one": asks(ticket(key=OTHER).text.replace(OTHER.public, KEY.public)),
    "too long": asks('{"box":"' + "A" * 3000 + '"}'),
    "a lone surrogate": b'{"ticket":"\\ud800"}',
    "not UTF-8": b'{"ticket":"\xff"}',
    "deep": b'{"x":' + b"[" * 4000 + b"]" * 4000 + b',"ticket":""}',
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_what_is_no_ticket_for_it_is_answered_alike(body: bytes) -> None:
    reply = call(Site(Allow(expires_in=60)).service, "POST", PATH, body, JSON)
    assert (reply.status, reply.json) == (400, {"error": "This ticket is not for this discharger."})


def test_no_more_of_a_body_is_read_than_may_come() -> None:
    site, text = Site(Allow(expires_in=60)), ticket().text
    exact = asks(text)[:-1] + b" " * (BODY_BYTES - len(asks(text))) + b"}"
    assert call(site.service, "POST", PATH, exact, JSON).status == 200
    assert call(site.service, "POST", PATH, [exact[:100], exact[100:]], JSON).status == 200
    assert call(site.service, "POST", PATH, exact + b" ", JSON).status == 413

    pieces = [b"x" * 1024 for _ in range(1000)]
    left = call(site.service, "POST", PATH, pieces, JSON).unread
    assert left == 1000 - BODY_BYTES // 1024 - 1
    site = Site(PERSON)
    _, user = site.wait()
    assert site.post(user, b"decision=approve" + b"&" * BODY_BYTES).status == 413


def test_a_client_that_goes_away_in_the_middle_asked_nothing() -> None:
    site, received = Site(PERSON), [{"type": "http.request", "body": asks(ticket().text), "more_body": True}]

    async def receive() -> dict[str, Any]:
        return received.pop() if received else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        pass

    scope = {"type": "http", "method": "POST", "path": PATH, "headers": [(b"content-type", b"application/json")]}
    asyncio.run(site.service(scope, receive, send))
    assert site.service.pending() == ()


def test_methods_and_places() -> None:
    site = Site(PERSON)
    poll, user = site.wait()
    for url, allowed in ((PATH, "POST"), (poll, "GET"), (user, "GET, POST")):
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"):
            if method not in allowed.split(", "):
                reply = call(site.service, method, url)
                assert (reply.status, reply.headers["allow"]) == (405, allowed)
    for path in ("/", "", PATH + "/", PATH + "/poll", PATH + "/poll/a/b", "/x" + PATH, PATH.upper(), PATH + "/other/x"):
        assert call(site.service, "GET", path).status == 404
    assert site.get(poll).status == 202


@pytest.mark.parametrize(
    "says", [RuntimeError("secret"), None, True, "Allow", Allow(tables=["sales"]), Allow(expires_in=60, depth=1)]
)
def test_a_policy_that_fails_discharges_nothing_and_tells_nothing(says: Any) -> None:
    """Its error goes to the server's log."""
    reply = Site(says).ask(raises=Exception)
    assert (reply.status, reply.json) == (500, {"error": "Something failed."})


def _fail(*_: object) -> Any:
    raise RuntimeError("secret")


@pytest.mark.parametrize(
    "broken",
    [
        {"approver": _fail},
        {"approver": lambda scope, need: ""},
        {"approver": lambda scope, need: True},
        {"allowed": _fail},
        {"allowed": lambda need: None},
        {"allowed": Allow(tables=["sales"])},
        {"on_decision": _fail},
    ],
    ids=named,
)
def test_an_approval_in_which_something_fails_is_none(broken: Any) -> None:
    """What cannot be audited, in particular, is not decided; it can be tried again."""
    site = Site(PERSON, **broken)
    poll, user = site.wait()
    for _ in range(2):
        reply = site.post(user, raises=Exception)
        assert reply.status == 500 and b"Something failed." in reply.body and b"secret" not in reply.body
    assert site.get(poll).status == 202
    assert len(site.service.pending()) == 1


def test_lifespan_and_websockets() -> None:
    def run(kind: str, *coming: str) -> list[str]:
        left, sent = list(coming), []

        async def receive() -> dict[str, Any]:
            return {"type": left.pop(0)}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message["type"])

        asyncio.run(Site(PERSON).service({"type": kind, "path": PATH}, receive, send))
        return sent

    assert run("lifespan", "lifespan.startup", "lifespan.shutdown") == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert run("websocket", "websocket.connect") == ["websocket.close"]


# --- the client ------------------------------------------------------------------------------------------------------

TICKET = ticket(location="https://evil.example")


# --- for real --------------------------------------------------------------------------------------------------------


@contextmanager
def served(app: Callable[[str], Any]) -> Iterator[str]:
    """An application behind a real server, on a port of this machine: its origin."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    origin = f"http://127.0.0.1:{listening.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(app(origin), log_level="critical", lifespan="on", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            thread.join(0.01)
        yield origin
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


class Raw(HTTPErrorProcessor):
    """Answers as they come: none is an exception, and no redirect is followed."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response

    https_response = http_response


OPENER = build_opener(ProxyHandler({}), Raw)


def send(method: str, url: str, body: bytes | None, headers: Mapping[str, str] = JSON) -> tuple[int, bytes]:
    with OPENER.open(Request(url, body, dict(headers), method=method), timeout=10) as answer:
        return answer.status, answer.read(ANSWER_BYTES + 1)


def test_a_real_client_a_real_server_and_a_person() -> None:
    site = Site(PERSON, Allow(expires_in=60), Refuse("no"))
    signed_in = FORM | {"cookie": "session=jane"}

    def app(origin: str) -> DischargeService:
        return DischargeService(
            site.discharger,
            origin=origin,
            approver=lambda scope, need: "jane" if (b"cookie", b"session=jane") in scope["headers"] else None,
            clock=lambda: site.now,
        )

    with served(app) as origin:

        def jane(url: str) -> None:
            own = signed_in | {"origin": origin}
            assert send("POST", url, b"decision=approve", FORM | {"origin": origin})[0] == 403  # the agent itself
            status, page = send("GET", url, None, own)
            assert status == 200 and b"payment" in page
            assert send("POST", url, b"decision=approve", own)[0] == 200

        asked = partial(obtain, TICKET, send, service=origin, tell=jane, sleep=lambda seconds: None)
        assert asked().cid == TICKET.cid  # by a person
        assert asked().cid == TICKET.cid  # by the policy
        with pytest.raises(DischargeError, match="no"):
            asked()
        assert send("POST", origin + PATH, b"x" * 100_000)[0] == 413
        assert send("HEAD", origin + PATH, None)[0] == 405
