"""The client of a discharger trusts one service: it polls in time, and what is no discharge raises."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from captoken.adapters.discharge_client import (
    ANSWER_BYTES,
    PATH,
    ServiceError,
    obtain,
    obtain_async,
)
from captoken.discharge import Allow, Discharge, Discharger, Lease
from captoken.errors import DischargeError
from tests.adapters.test_discharge_service import (
    KEY,
    ORIGIN,
    OTHER,
    PERSON,
    ROOT,
    TICKET,
    Site,
    send,
    served,
    ticket,
)

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
    with pytest.raises(DischargeError, match="knows no service") as caught:
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
