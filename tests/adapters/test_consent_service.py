"""The page on which a person consents: it shows the call whole, nobody but who is logged in decides, and one consent comes of it."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import msgspec
import pytest

from captoken import Access
from captoken.adapters.consent_service import PATH, ConsentService, Decided
from captoken.consent import Asked
from captoken.discharge import Allow, Refuse
from tests.adapters.consents import LOOKUP, MAIL, Desk
from tests.adapters.test_discharge_service import FORM, JSON, ORIGIN, call

MAILED = Access(tool="mail", arguments=MAIL[2])


@pytest.fixture
def desk() -> Desk:
    return Desk()


def request(desk: Desk, access: Access = MAILED) -> str:
    return desk.verifier.check(desk.token.present(audience="desk"), access).request() or ""


def service(desk: Desk, **more: Any) -> ConsentService:
    given = {"login": lambda scope, need: "jane", "clock": desk.clock, **more}
    return ConsentService(desk.jane, origin=ORIGIN, **given)


def posted(app: ConsentService, text: Any) -> Any:
    return call(app, "POST", PATH, json.dumps({"request": text}).encode(), JSON)


def asked(app: ConsentService, desk: Desk, access: Access = MAILED) -> tuple[str, str]:
    """The addresses of the page and of the outcome."""
    reply = posted(app, request(desk, access))
    assert reply.status == 202
    both = reply.json["user_interactive"]
    return both["user_url"], both["poll_url"]


def cells(page: str) -> list[tuple[str, str]]:
    found = re.findall(r'<th scope="row"><bdi>(.*?)</bdi></th><td><bdi>(.*?)</bdi></td>', page, re.DOTALL)
    return [(html.unescape(name), html.unescape(text)) for name, text in found]


def test_a_person_reads_the_call_whole_and_consents_to_it_once(desk: Desk) -> None:
    app = service(desk)
    page_url, poll_url = asked(app, desk)
    assert call(app, "GET", poll_url).status == 202
    page = call(app, "GET", page_url).body.decode()
    assert cells(page) == desk.jane.read(request(desk)).lines()
    for fact in (("server", "desk"), ("tool", "mail"), ("  to", '"ann@example.com"'), ("agent", "desk-agent, for user:jane")):
        assert fact in cells(page), fact
    assert "cap1" not in page and "<script" not in page and "Consent to this call?" in page
    assert call(app, "POST", page_url, b"decision=approve", FORM).status == 200
    consent = call(app, "GET", poll_url).json["consent"]
    assert call(app, "GET", poll_url).status == 404, "it is fetched once"
    with desk.using([consent]):
        assert desk.guard.check("mail", {**MAIL[2], "to": "eve@example.org"}).code == "consent_missing"
        assert [desk.guard.check("mail", MAIL[2]).code for _ in range(2)] == ["allowed", "replayed"]


def test_a_no_gives_no_consent(desk: Desk) -> None:
    app = service(desk)
    page_url, poll_url = asked(app, desk)
    assert call(app, "POST", page_url, b"decision=deny", FORM).status == 200
    told = call(app, "GET", poll_url)
    assert told.status == 403 and told.json == {"error": "denied"}


def test_what_is_longer_than_a_person_reads_is_refused_before_anybody_is_asked(desk: Desk) -> None:
    app = service(desk)
    for number, status in ((3_000, 202), (5_000, 400)):
        reply = posted(app, request(desk, Access(tool="mail", arguments={"text": "x" * number})))
        assert reply.status == status
    assert "longer than a person reads" in reply.json["error"] and len(app.pending()) == 1
    assert posted(service(desk, readable=20), request(desk)).status == 400


def test_nothing_on_the_page_is_hidden_or_read_as_something_else(desk: Desk) -> None:
    """Markup, characters that reorder, names that look like other facts, long texts: all is there as text."""
    nasty = {"to": "ann@example.com</td><script>alert(1)</script>", "server": "bank", "a b": "\u202eevil", "text": "x" * 500 + "END"}
    app = service(desk)
    page_url, _ = asked(app, desk, Access(tool="mail", arguments=nasty))
    page = call(app, "GET", page_url).body.decode()
    shown = cells(page)
    assert [text for name, text in shown if name == "server"] == ["desk"] and ("  server", '"bank"') in shown
    assert "<script" not in page and "\u202e" not in page and "END" in page and ('  "a b"', '"\\u{202e}evil"') in shown
    assert ("  to", json.dumps(nasty["to"])) in shown


@pytest.mark.parametrize("text", ["", "{}", 5, None, "cap1_AAAA", "x" * 70_000])
def test_what_is_no_request_is_refused(text: Any, desk: Desk) -> None:
    reply = posted(service(desk), text)
    assert reply.status in (400, 413) and "text" not in reply.json


def test_a_request_for_another_key_is_refused_and_so_is_another_body(desk: Desk) -> None:
    app, other = service(desk), Desk()
    assert posted(app, request(other)).json == {"error": "This is no request for a consent of this key."}
    assert call(app, "POST", PATH, b"{", JSON).status == 400
    assert call(app, "POST", PATH, json.dumps({"request": request(desk)}).encode(), FORM).status == 415


@pytest.mark.parametrize(
    ("headers", "status"), [({"origin": "https://evil.example"}, 403), ({"origin": ""}, 403), ({"sec-fetch-site": "cross-site"}, 403), ({}, 200)]
)
def test_only_the_page_itself_decides(headers: dict[str, str], status: int, desk: Desk) -> None:
    app = service(desk)
    page_url, poll_url = asked(app, desk)
    assert call(app, "POST", page_url, b"decision=approve", {**FORM, **headers}).status == status
    assert call(app, "GET", poll_url).status == (200 if status == 200 else 202)


def test_nobody_decides_who_is_not_logged_in_or_may_not(desk: Desk) -> None:
    """The login sees whom it is about, and the whole request."""
    seen: list[Any] = []

    async def login(scope: Any, need: Any) -> str | None:
        seen.append(need)
        return None

    app = service(desk, login=login)
    page_url, poll_url = asked(app, desk)
    assert call(app, "GET", page_url).status == 403
    assert call(app, "POST", page_url, b"decision=approve", FORM).status == 403
    assert call(app, "GET", poll_url).status == 202
    assert {key: seen[0][key] for key in ("server", "agent", "subject", "task")} == {
        "server": "desk", "agent": "desk-agent", "subject": "user:jane", "task": "orders",
    }  # fmt: skip
    assert desk.jane.read(seen[0]["request"]).audience == "desk"
    assert call(app, "GET", ORIGIN + PATH + "/decide/unknown").status == 404


def test_what_the_task_did_so_far_stands_below_the_call(desk: Desk) -> None:
    def lines(one: Asked) -> list[tuple[str, str]]:
        return [("09:00", f"{LOOKUP[1]} in {one.task}"), ("marks", "<b>untrusted</b>")]

    async def later(one: Asked) -> list[tuple[str, str]]:
        return lines(one)

    for so_far in (lines, later):
        app = service(desk, so_far=so_far)
        page_url, _ = asked(app, desk)
        page = call(app, "GET", page_url).body.decode()
        assert cells(page)[-2:] == [("09:00", "lookup in orders"), ("marks", "<b>untrusted</b>")] and "<b>" not in page


def test_each_decision_is_told_before_it_counts_and_one_counts(desk: Desk) -> None:
    told: list[Decided] = []
    app = service(desk, on_decision=told.append)
    page_url, _ = asked(app, desk)
    assert call(app, "POST", page_url, b"decision=approve", FORM).status == 200
    assert call(app, "POST", page_url, b"decision=deny", FORM).status == 409
    assert [(one.by, type(one.answer)) for one in told] == [("jane", Allow)]
    page_url, poll_url = asked(app, desk)
    assert app.decide(app.pending()[0].id, Refuse("no"), by="operator") and call(app, "GET", poll_url).status == 403


def test_a_consent_is_good_from_when_it_is_fetched(desk: Desk) -> None:
    app = service(desk, expires_in=60)
    page_url, poll_url = asked(app, desk)
    assert call(app, "POST", page_url, b"decision=approve", FORM).status == 200
    desk.clock.seconds += 500
    consent = call(app, "GET", poll_url).json["consent"]
    desk.clock.seconds += 59
    with desk.using([consent]):
        assert desk.guard.check("mail", MAIL[2]).code == "allowed"
    with pytest.raises(ValueError, match="3600 seconds at most"):
        service(desk, expires_in="61m")


def test_too_many_are_not_taken_and_nobody_who_waits_is_dropped(desk: Desk) -> None:
    app = service(desk, limit=1)
    page_url, _ = asked(app, desk)
    assert posted(app, request(desk)).status == 503 and call(app, "GET", page_url).status == 200
    desk.clock.seconds += 600
    assert call(app, "GET", page_url).status == 404
    assert msgspec.json.decode(posted(app, request(desk)).body)["user_interactive"]
