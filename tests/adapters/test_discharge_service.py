"""Discharges over HTTP: no address is a right to decide, each decision is made once, and the client trusts one service."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import threading
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any, NamedTuple
from urllib.request import HTTPErrorProcessor, ProxyHandler, Request, build_opener

import msgspec
import pytest
import uvicorn

from captoken import Access, Denied, Issuer, Keyring, Verifier
from captoken.adapters.discharge_client import (
    ANSWER_BYTES,
    PATH,
    ServiceError,
    obtain,
    obtain_async,
    origin_of,
)
from captoken.adapters.discharge_service import BODY_BYTES, Decided, DischargeService
from captoken.discharge import Allow, Discharge, Discharger, Lease, Refuse, Ticket, Wait
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


# --- the page --------------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = [
    "<script>alert(1)</script>",
    "</td></table><form action=https://evil.example>",
    "<img src=x onerror=alert(1)>",
    '"><b style="position:fixed">',
    "' onmouseover='x",
    "&lt;b&gt;",
    "</title><script>",
    "<!--",
    "]]>",
    "{{7*7}}",
    "\u2028<b>",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_is_needed_is_text_wherever_it_stands(hostile: str) -> None:
    site, plain = Site(PERSON), Site(PERSON)
    site.signed_in = hostile
    _, user = site.wait({hostile: hostile, "nested": [{hostile: hostile}]})
    _, harmless = plain.wait({"a": "b", "nested": [{"a": "b"}]})
    shown, expected = Tags(site.get(user).body), Tags(plain.get(harmless).body)
    assert shown.tags == expected.tags and shown.attributes == expected.attributes
    assert shown.text.count(hostile.replace("\u2028", "\\u{2028}")) >= 3
    site.post(user)
    assert " ".join(Tags(site.get(user).body).tags) == "html head meta meta title style body main h1 bdi p bdi"


def test_what_cannot_be_seen_is_shown_by_its_number() -> None:
    """Else a value could turn around what is beside it, or hide a part of itself, or fake a row."""
    site = Site(PERSON)
    _, user = site.wait({"pay": "1\u202e000\u200b\n", "list": ["\u2066x"]})
    text = Tags(site.get(user).body).text
    assert r"1\u{202e}000\u{200b}\u{a}" in text and r"\u{2066}x" in text
    assert all(char.isprintable() or char == "\n" for char in text)


def test_the_page_runs_no_script_and_fetches_nothing() -> None:
    site = Site(PERSON)
    _, user = site.wait()
    page = site.get(user)
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    (style,) = re.findall(rb"<style>(.*?)</style>", page.body, re.DOTALL)
    assert policy == {
        "default-src": "'none'",
        "style-src": f"'sha256-{b64encode(sha256(style).digest()).decode()}'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    parsed = Tags(page.body)
    assert not {"script", "img", "link", "a", "iframe"} & set(parsed.tags)
    assert not {"src", "href", "style", "action"} & parsed.attributes and b"url(" not in style
    assert parsed.text.index("Deny") < parsed.text.index("Approve", parsed.text.index("Deny"))


def test_every_answer_is_private_and_is_what_it_says() -> None:
    site = Site(PERSON)
    poll, user = site.wait()
    replies = [site.ask(), site.get(poll), site.get(user), site.post(user), site.get(poll), site.get(poll), site.get("/x")]
    for reply in replies:
        assert reply.headers["cache-control"] == "no-store" and reply.headers["x-content-type-options"] == "nosniff"
        assert (
            reply.headers["referrer-policy"] == "same-origin" and "frame-ancestors" in reply.headers["content-security-policy"]
        )
    assert [reply.headers["content-type"].partition(";")[0] for reply in replies[:4]] == [
        "application/json", "application/json", "text/html", "text/html",
    ]  # fmt: skip


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
    assert (reply.status, reply.json) == (400, {"error": "This is no ticket for this discharger."})


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


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp"]
)
def test_a_form_cannot_ask(kind: str | None) -> None:
    """A page of another site can send forms and plain text on its own, but not JSON."""
    site = Site(Allow(expires_in=60))
    headers = {} if kind is None else {"content-type": kind}
    assert call(site.service, "POST", PATH, asks(ticket().text), headers).status == 415
    assert (
        call(site.service, "POST", PATH, asks(ticket().text), {"content-type": "Application/JSON; charset=utf-8"}).status == 200
    )


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


@pytest.mark.parametrize("origin", ["https://Approvals.example", "https://approvals.example/", "https://approvals.example:443"])
def test_an_origin_is_spelled_as_browsers_do(origin: str) -> None:
    """Else every form would be refused, for a difference that cannot be seen."""
    with pytest.raises(ValueError, match=re.escape("https://approvals.example")):
        DischargeService(Discharger(KEY, lambda need: PERSON), origin=origin)


# --- what waits ------------------------------------------------------------------------------------------------------


def test_a_request_is_over_after_its_time_decided_or_not() -> None:
    site = Site(PERSON, keep=100)
    (poll, user), (second, approved) = site.wait(), site.wait()
    site.post(approved)
    ids = [pending.id for pending in site.service.pending()]
    site.now += 99
    assert site.get(poll).status == 202 and site.service.pending()[0].expires_at == NOW + 100
    site.now += 1
    assert site.get(poll).status == site.get(second).status == site.get(user).status == site.post(user).status == 404
    assert site.service.pending() == () and not site.service.decide(ids[0], Allow(expires_in=60), by="operator")


def test_when_it_is_full_nobody_is_dropped() -> None:
    site = Site(PERSON, limit=3, keep=100)
    polls = [site.wait()[0] for _ in range(3)]
    assert site.ask().status == 503
    assert [site.get(poll).status for poll in polls] == [202] * 3
    site.now += 100
    assert site.ask().status == 202
    assert [site.get(poll).status for poll in polls] == [404] * 3


def test_an_operator_decides_without_the_page() -> None:
    site = Site(Wait())
    polls = [site.ask({"n": n}).json["poll_url"] for n in range(3)]
    first, second, third = site.service.pending()
    assert [pending.need["n"] for pending in (first, second, third)] == [0, 1, 2]
    assert site.service.decide(first.id, Allow(expires_in=5), by="operator")
    assert site.service.decide(second.id, Refuse("not today"), by="operator")
    assert site.service.pending() == (third,)
    assert [site.get(poll).status for poll in polls] == [200, 403, 202]
    assert [(decided.request, decided.by) for decided in site.audit] == [(first, "operator"), (second, "operator")]
    with pytest.raises(TypeError):
        site.service.decide(third.id, True, by="operator")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expires"):
        site.service.decide(third.id, Allow(tables=["sales"]), by="operator")
    assert site.service.pending() == (third,)
    assert not site.service.decide("unknown", Refuse(), by="operator")


def test_while_somebody_decides_the_policy_does_not() -> None:
    """Else a poll could fetch the policy's yes while an operator's no is being written down."""
    statuses: list[int] = []
    site = Site(Wait(), Allow(expires_in=60), on_decision=lambda decided: statuses.append(site.get(poll).status))
    poll = site.ask().json["poll_url"]
    assert site.service.decide(site.service.pending()[0].id, Refuse("no"), by="operator")
    assert (statuses, site.get(poll).status) == ([202], 403)


def together(work: Callable[[int], Any]) -> list[Any]:
    """What `work` returns in 8 threads that start at once."""
    barrier, results, interval = threading.Barrier(8), [], sys.getswitchinterval()

    def one(number: int) -> None:
        barrier.wait()
        results.append(work(number))

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(results) == 8
    return results


def test_of_eight_who_decide_at_once_one_does_and_of_eight_who_fetch_one_gets_it() -> None:
    site = Site(PERSON)
    for _ in range(20):
        poll, user = site.wait()
        id, site.audit[:] = user[-43:], []
        answers = [Allow(expires_in=60) if number % 2 else Refuse(str(number)) for number in range(8)]
        won = together(lambda number: site.service.decide(id, answers[number], by=str(number)))  # noqa: B023
        assert sorted(won) == [False] * 7 + [True]
        (decided,) = site.audit
        assert decided.answer is answers[int(decided.by)]
        got = together(lambda number: site.get(poll).status)  # noqa: B023
        assert sorted(got) == sorted([200 if int(decided.by) % 2 else 403] + [404] * 7)


# --- the client ------------------------------------------------------------------------------------------------------

TICKET = ticket(location="https://evil.example")
ANSWERS = Discharger(KEY, lambda need: Allow(expires_in=86_400))  # for as long as all of these tests may take
GOOD, ELSE = ANSWERS.discharge(TICKET).serialize(), ANSWERS.discharge(ticket()).serialize()
SERVICE = ORIGIN + "/tools"
POLL = ORIGIN + "/tools/poll/1"


class Line:
    """A line to a service that answers by the book: (status, what) one after the other, the last one again and again."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, str]] = []
        self.slept: list[float] = []
        self.told: list[str] = []
        self.now = 0.0

    def send(self, method: str, url: str, body: bytes | None) -> tuple[int, bytes]:
        self.sent.append((method, url))
        assert (body is None) == (method == "GET")
        status, what = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return status, what if isinstance(what, bytes) else msgspec.json.encode(what)

    def sleep(self, seconds: float) -> None:
        assert len(self.slept) < 1000, "it does not end"
        self.slept.append(seconds)

    @property
    def with_all(self) -> dict[str, Any]:
        return {"send": self.send, "sleep": self.sleep, "tell": self.told.append, "clock": lambda: self.now}


def awaited(line: Line, **keywords: Any) -> Discharge:
    """`obtain_async`, all of whose callables are coroutine functions."""

    def later(call: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        async def called(*arguments: Any) -> Any:
            await asyncio.sleep(0)
            return call(*arguments)

        return called

    given = {name: later(call) if name != "clock" and callable(call) else call for name, call in keywords.items()}
    return asyncio.run(obtain_async(given.pop("ticket"), **given))


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Callable[..., Discharge]:
    """Both faces of the client, called alike."""

    def run(line: Line, **keywords: Any) -> Discharge:
        keywords = {"ticket": TICKET, "service": SERVICE, **line.with_all, **keywords}
        return obtain(keywords.pop("ticket"), **keywords) if request.param == "sync" else awaited(line, **keywords)

    return run


Face = Callable[..., Discharge]


def test_the_trusted_service_is_asked_and_the_location_of_the_ticket_is_not(face: Face) -> None:
    """The location was chosen by whoever wrote the caveat: asking there would be asking what they like."""
    line = Line((200, {"discharge": GOOD, "more": 1}))
    assert face(line).cid == TICKET.cid
    assert (
        face(line, ticket=TICKET.text, service={OTHER.public: "https://x.example", KEY.public: SERVICE + "/"}).cid == TICKET.cid
    )
    assert line.sent == [("POST", SERVICE + PATH)] * 2
    with pytest.raises(DischargeError, match="no service is known") as caught:
        face(line, service={OTHER.public: SERVICE})
    assert caught.value.code == "bad_ticket" and len(line.sent) == 2


def test_it_polls_until_it_is_decided(face: Face) -> None:
    line = Line(
        (202, {"poll_url": "/tools/poll/1"}), (202, b""), (202, b"\xff"), (503, b"busy"), (429, b""), (200, {"discharge": GOOD})
    )
    assert face(line).serialize() == GOOD
    assert line.sent == [("POST", SERVICE + PATH)] + [("GET", POLL)] * 5
    assert line.slept == [0.5, 0.75, 1.125, 1.6875, 2.53125]


def test_a_person_is_told_where_to_decide(face: Face) -> None:
    asked = {"user_interactive": {"poll_url": POLL, "user_url": ORIGIN + "/decide/1"}}
    line = Line((201, asked), (202, b""), (200, {"discharge": GOOD}))
    assert face(line).serialize() == GOOD
    assert line.told == [ORIGIN + "/decide/1"]
    with pytest.raises(DischargeError, match="tell") as caught:
        face(Line((201, asked)), tell=None)
    assert caught.value.code == "undecided"


def test_waiting_ends_by_the_clock_and_by_what_was_slept(face: Face) -> None:
    line = Line((202, {"poll_url": POLL}), (202, b""))
    with pytest.raises(DischargeError) as caught:
        face(line, wait=60)
    assert caught.value.code == "undecided" and sum(line.slept) == 60 and max(line.slept) == 5.0
    assert line.sent[-1] == ("GET", POLL) and len(line.sent) == len(line.slept) + 1  # a last look at the very end

    ticks = iter(range(0, 1000, 25))  # each request takes 25 seconds
    line = Line((202, {"poll_url": POLL}), (202, b""))
    with pytest.raises(DischargeError):
        face(line, wait=60, clock=lambda: next(ticks))
    assert len(line.sent) == 3


def test_whoever_does_not_wait_does_not_bother_anybody(face: Face) -> None:
    line = Line((202, {"user_interactive": {"poll_url": POLL, "user_url": POLL}}))
    with pytest.raises(DischargeError) as caught:
        face(line, wait=0)
    assert caught.value.code == "undecided" and (line.told, line.slept, len(line.sent)) == ([], [], 1)
    for wait in (-1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="wait"):
            face(line, wait=wait)


WRONG = {
    "refused": (403, {"error": "over the limit"}, "refused"),
    "refused, as fly.io says it": (200, {"error": "denied"}, "refused"),
    "refused by a gateway": (401, b"<html>", "refused"),
    "nobody can approve": (501, {"error": "nobody"}, "refused"),
    "a bad ticket": (400, {"error": "no ticket"}, "bad_ticket"),
    "a redirect": (302, b"", "bad_discharge"),
    "a redirect with a discharge": (307, {"discharge": GOOD}, "bad_discharge"),
    "a place that is not there": (404, b"Not Found", "bad_discharge"),
    "no JSON": (200, b"<html>", "bad_discharge"),
    "not UTF-8": (200, b'{"discharge":"\xff"}', "bad_discharge"),
    "another shape": (200, [GOOD], "bad_discharge"),
    "a discharge that is no text": (200, {"discharge": [GOOD]}, "bad_discharge"),
    "nothing": (200, {}, "bad_discharge"),
    "no discharge": (200, {"discharge": "cap1u_AAAA"}, "bad_discharge"),
    "a token": (200, {"discharge": ROOT.serialize()}, "bad_discharge"),
    "a discharge for another ticket": (200, {"discharge": ELSE}, "bad_discharge"),
    "too much": (200, {"discharge": GOOD, "x": "x" * ANSWER_BYTES}, "bad_discharge"),
    "deep": (200, b'{"x":' + b"[" * 7000 + b"]" * 7000 + b"}", "bad_discharge"),
    "half of what a person needs": (200, {"user_interactive": {"poll_url": POLL}}, "bad_discharge"),
}


@pytest.mark.parametrize(("status", "what", "code"), WRONG.values(), ids=WRONG)
def test_an_answer_that_is_no_discharge_raises(status: int, what: Any, code: str, face: Face) -> None:
    with pytest.raises(DischargeError) as caught:
        face(Line((status, what)))
    assert caught.value.code == code and GOOD not in str(caught.value) and TICKET.text not in str(caught.value)


@pytest.mark.parametrize(("status", "what", "code"), WRONG.values(), ids=WRONG)
def test_so_it_does_when_it_is_polled(status: int, what: Any, code: str, face: Face) -> None:
    line = Line((202, {"poll_url": POLL}), (status, what))
    with pytest.raises(DischargeError) as caught:
        face(line)
    assert caught.value.code == ("undecided" if status == 404 else code) and len(line.sent) == 2


ELSEWHERE = [
    "https://evil.example/poll", "//evil.example/poll", "http://approvals.example/poll", "https://approvals.example:444/poll",
    "https://approvals.example.evil.example/", "https://approvals.example@evil.example/", "https://approvals.example", "/\\evil.example",
    "https://approvals.example\\@evil.example/", " https://approvals.example/", "/a b", "/a\n", "/\t/evil.example", "poll/1", "", "?x",
    "javascript:alert(1)", "file:///etc/passwd", "https:/approvals.example/", "HTTPS://approvals.example/p", "/é", "/" + "a" * 3000,
]  # fmt: skip


@pytest.mark.parametrize("url", ELSEWHERE)
def test_a_service_sends_nobody_elsewhere(url: str, face: Face) -> None:
    """Neither the client to poll, nor a person to decide."""
    for answer in ({"poll_url": url}, {"user_interactive": {"poll_url": url, "user_url": POLL}}):
        line = Line((202, answer))
        with pytest.raises(DischargeError) as caught:
            face(line)
        assert caught.value.code == "bad_discharge" and len(line.sent) == 1
    line = Line((202, {"user_interactive": {"poll_url": POLL, "user_url": url}}))
    with pytest.raises(DischargeError):
        face(line)
    assert line.told == []


def test_what_a_service_says_is_cut_and_cleaned(face: Face) -> None:
    with pytest.raises(DischargeError) as caught:
        face(Line((403, {"error": "no\x1b[2J\u202e\n" + "x" * 5000})))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 250


def test_a_fault_is_no_refusal(face: Face) -> None:
    for status in (429, 500, 502, 503, 504):
        with pytest.raises(ServiceError):
            face(Line((status, {"discharge": GOOD})))

    def broken(*_: object) -> Any:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        face(Line((200, b"")), send=broken)


@pytest.mark.parametrize(
    "service",
    [
        "http://approvals.example", "ftp://approvals.example", "approvals.example", "//approvals.example", "", "https://", "https:///x",
        "https://user@approvals.example", "https://approvals.example?x", "https://approvals.example#x", "https://approvals.example:x",
        "https://approvals.example:99999", "http://127.0.0.1.evil.example", "http://localhost.evil.example", "https://é.example", "https://[::1",
        "http://0.0.0.0", "http://10.0.0.1", "file:///etc/passwd", "https://a b", "https://a\\b",
    ],
)  # fmt: skip
def test_a_service_is_https_or_on_this_machine(service: str, face: Face) -> None:
    """A discharge is a secret of whoever holds the token."""
    line = Line((200, {"discharge": GOOD}))
    with pytest.raises(ValueError):
        face(line, service=service)
    assert line.sent == []


def test_an_origin_has_one_spelling() -> None:
    assert origin_of("https://Approvals.example:443/x/") == ORIGIN
    assert origin_of("https://approvals.example:8443") == ORIGIN + ":8443"
    assert origin_of("http://localhost:80/x") == "http://localhost"
    assert origin_of("http://[::1]:8000") == "http://[::1]:8000"
    assert origin_of("http://127.0.0.1:443") == "http://127.0.0.1:443"


def test_it_serves_a_lease() -> None:
    """A refusal ends it; a fault does not, as long as the last discharge lives."""
    site = Site(Allow(expires_in=60))
    line = Line((200, {"discharge": site.discharger.discharge(TICKET).serialize()}), (503, b""), (403, {"error": "enough"}))
    got: list[Discharge] = []
    ask = partial(obtain, send=line.send, service=SERVICE, wait=0)
    lease = Lease(TICKET, ask, got.append, clock=lambda: site.now)
    assert lease.renew() == 30
    site.now += 30
    assert lease.renew() == 1
    site.now += 1
    with pytest.raises(DischargeError, match="enough"):
        lease.renew()
    assert len(got) == 1 and lease.ended is not None


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


def test_a_redirect_leads_nowhere() -> None:
    visited: list[str] = []

    async def redirecting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await Site(PERSON).service(scope, receive, send)
        visited.append(scope["path"])
        await send({"type": "http.response.start", "status": 307, "headers": [(b"location", b"/elsewhere")]})
        await send({"type": "http.response.body", "body": b""})

    with served(lambda origin: redirecting) as origin, pytest.raises(DischargeError, match="307"):
        obtain(TICKET, send, service=origin)
    assert visited == [PATH]
