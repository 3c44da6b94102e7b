"""A login at a provider: what comes back of another login, from somebody else, or too slowly."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from captoken._format.spelling import is_visible
from captoken.cli import oidc
from captoken.cli.app import run
from captoken.errors import IssuanceError
from tests.adapters.serving import listening, origin_of, served
from tests.issuance import signing


def same(good: dict[str, str]) -> dict[str, str]:
    return good


def test_what_is_asked_and_what_is_sent_for_the_code(stand_in: StandIn) -> None:
    login = stand_in.log_in(same)
    asked = stand_in.asked
    assert login.identity.sub == "jane" and login.text not in repr(login)
    assert asked["code_challenge_method"] == "S256" and asked["max_age"] == "3600" and asked["scope"] == "openid"
    assert asked["redirect_uri"].startswith("http://127.0.0.1:") and len(asked["state"]) >= 43 <= len(asked["nonce"])
    (form,) = stand_in.forms
    assert form["redirect_uri"] == asked["redirect_uri"] and form["code"] == "c" and "client_secret" not in form
    from base64 import urlsafe_b64encode
    from hashlib import sha256

    assert urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode() == asked["code_challenge"]


@pytest.mark.parametrize(
    "stranger",
    [
        lambda good: {**good, "state": "x" * 43},
        lambda good: {"code": "c"},
        lambda good: {**good, "code": ["c", "d"]},
        lambda good: {"error": "access_denied", "state": "ü"},
        lambda good: {},
    ],
    ids=["another state", "none", "two codes", "an error without it", "nothing"],
)
def test_whoever_comes_by_without_the_state_changes_nothing(stand_in: StandIn, stranger: Any) -> None:
    assert stand_in.log_in(stranger, stranger, same).identity.sub == "jane"
    assert stand_in.replies == [404, 404, 200]


@pytest.mark.parametrize(
    "came, claims, code",
    [
        (lambda good: {**good, "iss": "https://other.example"}, {}, "invalid_grant"),
        (lambda good: {name: good[name] for name in ("state", "code")}, {}, "invalid_grant"),
        (lambda good: {"state": good["state"], "iss": good["iss"], "error": "access_denied"}, {}, "access_denied"),
        (lambda good: {"state": good["state"], "iss": good["iss"]}, {}, "temporarily_unavailable"),
        (same, {"nonce": "another"}, "invalid_grant"),
        (same, {"nonce": None}, "invalid_grant"),
        (same, {"nonce": 7}, "invalid_grant"),
        (same, {"aud": "other"}, "invalid_grant"),
        (same, {"iss": "https://other.example"}, "invalid_grant"),
        (same, {"auth_time": None}, "invalid_grant"),
        (same, {"auth_time": 1}, "invalid_grant"),
        (same, {"exp": 1}, "invalid_grant"),
    ],
    ids=[
        "another sender", "no sender", "refused", "no code", "another nonce", "no nonce", "a number", "another application", "another issuer",
        "no auth_time", "an old login", "expired",
    ],
)  # fmt: skip
def test_what_is_of_another_login_is_none(stand_in: StandIn, came: Any, claims: dict[str, Any], code: str) -> None:
    with pytest.raises(IssuanceError) as told:
        stand_in.log_in(came, **claims)
    assert told.value.code == code


def test_a_provider_that_does_not_say_who_it_is_in_what_it_sends_back(stand_in: StandIn) -> None:
    del stand_in.document["authorization_response_iss_parameter_supported"]
    assert stand_in.log_in(lambda good: {name: good[name] for name in ("state", "code")}).identity.sub == "jane"


@pytest.mark.parametrize(
    "change, words",
    [
        ({"issuer": "https://other.example"}, "the document is of 'https://other.example'"),
        ({"token_endpoint": None}, "no token_endpoint"),
        ({"token_endpoint": "http://login.example/token"}, "no token_endpoint that is an https address"),
        ({"jwks_uri": "file:///etc/passwd"}, "no jwks_uri"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "no authorization_endpoint"),
    ],
)
def test_a_document_that_leads_elsewhere(stand_in: StandIn, change: dict[str, Any], words: str) -> None:
    stand_in.document |= change
    with pytest.raises(IssuanceError, match=words):
        if "authorization_endpoint" in change:
            oidc.Provider.at(stand_in.issuer, "captoken-cli").by_browser(max_age=1, show=print)
        else:
            stand_in.log_in(same)


def test_nobody_waits_for_ever(stand_in: StandIn) -> None:
    for way in ("by_browser", "by_device"):
        stand_in.answers = [(200, {"device_code": "d", "user_code": "u", "verification_uri": "https://a.example"})]
        with pytest.raises(IssuanceError, match="too long") as told:
            getattr(oidc.Provider.at(stand_in.issuer, "captoken-cli"), way)(max_age=1, show=str, patience=0)
        assert told.value.code == "expired_token"


def test_the_other_device_step_by_step(stand_in: StandIn) -> None:
    begun = {
        "device_code": "d",
        "user_code": "\x1b[2Ju",
        "verification_uri": "https://a.example",
        "interval": 1,
        "expires_in": 60,
    }
    pending, slow = (400, {"error": "authorization_pending"}), (400, {"error": "slow_down"})
    stand_in.answers = [(200, begun), pending, slow, pending, (200, {"id_token": stand_in.id_token()})]
    pauses: list[float] = []
    shown: list[str] = []
    at = oidc.Provider.at(stand_in.issuer, "captoken-cli")
    assert at.by_device(max_age=60, show=shown.append, sleep=pauses.append, acr="mfa").identity.sub == "jane"
    assert pauses == [1, 1, 6, 6] and "\x1b" not in shown[0]
    assert stand_in.forms[0]["acr_values"] == "mfa"

    for answers, code in (
        ([(200, begun), (400, {"error": "access_denied", "error_description": "no\x1b"})], "access_denied"),
        ([(200, begun), (200, {"id_token": stand_in.id_token(nonce="another")})], "invalid_grant"),
        ([(200, begun), (200, {"access_token": "x"})], "temporarily_unavailable"),
        ([(200, {**begun, "verification_uri": "http://a.example"})], "temporarily_unavailable"),
        ([(200, {"device_code": "d"})], "temporarily_unavailable"),
        ([(500, {})], "temporarily_unavailable"),
    ):
        stand_in.answers = list(answers)
        with pytest.raises(IssuanceError) as told:
            at.by_device(max_age=60, show=shown.append, sleep=pauses.append)
        assert told.value.code == code and "\x1b" not in str(told.value)


class Strangers:
    """Others at the port that the browser comes back to, before it does."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []

    def come(self, address: str, first: bytes, many: int) -> None:
        place = urlsplit(address)
        for _ in range(many):
            one = socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=10)
            self.sockets.append(one)
            one.sendall(first)

    def drip(self, ends: threading.Event) -> None:
        """A byte at a time, for good."""
        while not ends.wait(0.05):
            for one in self.sockets:
                with suppress(OSError):
                    one.sendall(b"x")

    def are_let_go(self) -> bool:
        """Has the other side hung up on all of them?"""
        for one in self.sockets:
            one.settimeout(oidc._VISIT + 1)
            try:
                while one.recv(4096):
                    pass
            except TimeoutError:
                return False
            except OSError:  # reset
                continue
        return True

    def close(self) -> None:
        for one in self.sockets:
            one.close()


@pytest.fixture
def strangers() -> Iterator[Strangers]:
    one = Strangers()
    yield one
    one.close()


@pytest.mark.parametrize(
    "first, many",
    [(b"", 1), (b"GET /callback?", 1), (b"GET / HTTP/1.1\r\n", 200), (b"", 200), (b"GET /" + b"a" * 70_000, 3), (b"\x00\xff\r\n\r\n", 3)],
    ids=["silent", "slow", "two hundred slow", "two hundred silent", "too long", "no request"],
)
def test_nobody_who_is_slow_keeps_the_browser_waiting(stand_in: StandIn, strangers: Strangers, first: bytes, many: int) -> None:
    """The listener had one thread, and one client that sent a byte a second had it for good."""
    ends = threading.Event()
    dripping = threading.Thread(target=strangers.drip, args=(ends,))

    def after_them(good: dict[str, str]) -> dict[str, str]:
        strangers.come(stand_in.asked["redirect_uri"], first, many)
        dripping.start()
        return good

    began = time.monotonic()
    try:
        assert stand_in.log_in(after_them).identity.sub == "jane" and stand_in.replies == [200]
        assert time.monotonic() - began < oidc._VISIT, "before any of them had to go"
    finally:
        ends.set()
        dripping.join()
    assert strangers.are_let_go()


def test_whoever_is_slow_has_to_go(stand_in: StandIn, strangers: Strangers, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a byte comes: the deadline is of the whole visit."""
    monkeypatch.setattr(oidc, "_VISIT", 0.5)
    ends = threading.Event()
    dripping = threading.Thread(target=strangers.drip, args=(ends,))

    def once_they_are_gone(good: dict[str, str]) -> dict[str, str]:
        strangers.come(stand_in.asked["redirect_uri"], b"GET /callback?", 5)
        dripping.start()
        assert strangers.are_let_go()
        return good

    try:
        assert stand_in.log_in(once_they_are_gone).identity.sub == "jane"
    finally:
        ends.set()
        dripping.join()


def test_a_browser_that_hangs_up_at_once_has_brought_it_all_the_same(stand_in: StandIn) -> None:
    provider = oidc.Provider.at(stand_in.issuer, "captoken-cli")

    def show(address: str) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        stand_in.answers = [(200, {"id_token": stand_in.id_token(nonce=asked["nonce"])})]
        query = urlencode({"state": asked["state"], "code": "c", "iss": stand_in.issuer})
        place = urlsplit(asked["redirect_uri"])
        with socket.create_connection((str(place.hostname), int(place.port or 0))) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.sendall(f"GET {place.path}?{query} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            one.shutdown(socket.SHUT_WR)
            time.sleep(0.1)

    assert provider.by_browser(max_age=3600, show=show, patience=5).identity.sub == "jane"


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS", "get"])
def test_what_no_browser_asks_is_answered_404(stand_in: StandIn, strangers: Strangers, method: str) -> None:
    answers: list[bytes] = []

    def otherwise(good: dict[str, str]) -> dict[str, str]:
        first = f"{method} /callback?{urlencode(good)} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
        strangers.come(stand_in.asked["redirect_uri"], first, 1)
        answers.append(strangers.sockets[0].recv(4096))
        return good

    assert stand_in.log_in(otherwise).identity.sub == "jane"
    assert answers[0].startswith(b"HTTP/1.1 404 ") and b"no-store" in answers[0] and b"captoken" not in answers[0]


class StandIn:
    """A provider that errs: it answers what a test says."""

    def __init__(self) -> None:
        self.key = signing.Provider("k")
        self.socket = listening()
        self.issuer = origin_of(self.socket)
        self.document: dict[str, Any] = {
            "issuer": self.issuer,
            "authorization_response_iss_parameter_supported": True,
            "jwks_uri": f"{self.issuer}/jwks",
            **{
                name: f"{self.issuer}/{name}"
                for name in ("authorization_endpoint", "token_endpoint", "device_authorization_endpoint")
            },
        }
        self.answers: list[tuple[int, dict[str, Any]]] = []
        self.asked: dict[str, str] = {}
        self.forms: list[dict[str, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        form = dict(httpx.QueryParams((await receive())["body"].decode()))
        status, body = 200, json.dumps(self.document).encode()
        if scope["path"] == "/jwks":
            body = self.key.jwks()
        elif scope["method"] == "POST":
            self.forms.append(form)
            status, said = self.answers.pop(0)
            body = json.dumps(said).encode()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def id_token(self, **claims: Any) -> str:
        now = int(time.time())
        made = {
            "iss": self.issuer,
            "sub": "jane",
            "aud": "captoken-cli",
            "iat": now,
            "exp": now + 60,
            "auth_time": now,
            **claims,
        }
        return self.key.sign({name: value for name, value in made.items() if value is not None})

    def log_in(self, *visits: Callable[[dict[str, str]], dict[str, str]], **claims: Any) -> oidc.Login:
        """A login at which a browser comes back with these parameters, one visit after the other."""
        provider = oidc.Provider.at(self.issuer, "captoken-cli")
        replies: list[int] = []
        threads: list[threading.Thread] = []

        def show(address: str) -> None:
            asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
            self.asked = asked
            self.answers = [(200, {"id_token": self.id_token(**{"nonce": asked["nonce"], **claims})})]
            good = {"state": asked["state"], "code": "c", "iss": self.issuer}

            def visit() -> None:
                for one in visits:
                    query = urlencode(one(good), doseq=True)
                    replies.append(httpx.get(f"{asked['redirect_uri']}?{query}", timeout=10).status_code)

            threads.append(threading.Thread(target=visit))
            threads[0].start()

        try:
            return provider.by_browser(max_age=3600, show=show, patience=5)
        finally:
            threads[0].join()
            self.replies = replies


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    one = StandIn()
    with served(one, one.socket):
        yield one


@pytest.mark.parametrize("within", ["\x1b[2J", "\nallowed", "\r", "\t", "\x07", "\x00", " ", "\u202e", "\x9b"])
@pytest.mark.parametrize("named", ["authorization_endpoint", "verification_uri", "token_endpoint"])
def test_an_address_that_steers_the_terminal_is_none(
    stand_in: StandIn, within: str, named: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    address = f"{stand_in.issuer}/{within}x"
    begun = {"device_code": "d", "user_code": "u", "verification_uri": address}
    stand_in.answers = [(200, begun)]
    if named != "verification_uri":
        stand_in.document[named] = address
    device = [] if named == "authorization_endpoint" else ["--device"]
    if named == "token_endpoint":
        begun["verification_uri"] = "https://a.example"
        begun["interval"] = 0  # type: ignore[assignment]
    assert run(["login", stand_in.issuer, "--client-id", "captoken-cli", *device]) == 2
    told = capsys.readouterr()
    lines = told.err.removesuffix("\n").split("\n")
    assert told.out == "" and not opened and lines[-1].startswith("captoken: temporarily_unavailable: ")
    assert len(lines) == (2 if named == "token_endpoint" else 1) and all(is_visible(char) for line in lines for char in line)


@pytest.mark.parametrize("said", [{"error": "no\x1b[2J\nallowed", "error_description": "a\x1b]0;x\x07\nb"}, {"user_code": "u\x1b[2J\nallowed"}])
def test_nor_does_what_else_a_provider_says(stand_in: StandIn, said: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    begun = {"device_code": "d", "user_code": "u", "verification_uri": "https://a.example", "interval": 0}
    refused = (400, {"error": "access_denied"} | said)
    stand_in.answers = [(200, begun | said), refused] if "user_code" in said else [refused]
    assert run(["login", stand_in.issuer, "--client-id", "captoken-cli", "--device"]) == 2
    lines = capsys.readouterr().err.removesuffix("\n").split("\n")
    assert len(lines) == (2 if "user_code" in said else 1) and all(is_visible(char) for line in lines for char in line)
