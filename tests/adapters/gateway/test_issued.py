"""Keys that a server gives for a time: asked for, kept, rotated by several processes, and in no error. Servers are real ones."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest

from captoken.adapters._gateway import credentials, issued
from captoken.adapters._gateway.credentials import Unavailable
from captoken.adapters._gateway.issued import issued_of
from captoken.adapters._gateway.opening import configured
from captoken.adapters._gateway.stated import StatedCredential
from captoken.keys.files import read_private, write_private
from tests.adapters.serving import listening, served
from tests.adapters.test_gateway import World, gateway

CLIENT_SECRET = "secret:of the+gateway/%"
SUBJECT = "the-workloads-own-token-1234"


class Office:
    """An authorization server as strict as they are: a refresh token is good once, and ends the access token before it."""

    def __init__(self) -> None:
        self.requests: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.refresh = "refresh-token-0"
        self.access: list[str] = []
        self.reused = 0
        self.seconds: Any = 3600
        self.more: dict[str, Any] = {}
        self.status = 200
        self.slow = 0.0

    @property
    def current(self) -> str:
        return self.access[-1]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        form = dict(parse_qsl(body.decode(), strict_parsing=True))
        self.requests.append(form)
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        await asyncio.sleep(self.slow)
        status, said = self.status, self._said(form)
        if said.get("error"):
            status = 400
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(said | self.more).encode()})

    def _said(self, form: dict[str, str]) -> dict[str, Any]:
        number = len(self.access) + 1
        said: dict[str, Any] = {"token_type": "Bearer", "expires_in": self.seconds, "access_token": f"access-token-number-{number}"}
        if form["grant_type"] == "refresh_token":
            if form["refresh_token"] != self.refresh:
                self.reused += 1
                return {"error": "invalid_grant", "error_description": form["refresh_token"]}
            said["refresh_token"] = self.refresh = f"refresh-token-{number}"
        self.access.append(said["access_token"])
        return said


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.fixture
def url(office: Office) -> Iterator[str]:
    with served(office, listening()) as origin:
        yield f"oauth:{origin}/as/token"


def stated(source: str, **said: Any) -> StatedCredential:
    return StatedCredential(source=source, **said)


def private(folder: Path, name: str, text: str) -> Path:
    write_private(folder / name, text.encode())
    return folder / name


def behind(folder: Path, **said: str) -> Any:
    """A gateway whose key is of such a credential."""
    return gateway(folder, credential="{ " + ", ".join(f"{name} = {value}" for name, value in said.items()) + " }")


def presented(world: World, **caveats: Any) -> str:
    return world.token(**caveats).present(audience="payments")


# --- client credentials ---------------------------------------------------------------------------


def test_an_access_token_is_asked_for_once_and_is_the_key(tmp_path: Path, office: Office, url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    private(tmp_path, "client", CLIENT_SECRET)
    with behind(tmp_path, **{"from": f'"{url}"', "client": '"the gateway"', "secret": '"file:client"', "ask": '{ scope = "refunds", audience = "https://payments.example" }'}) as world:
        text = presented(world)
        office.slow = 0.2
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: world.refund(text).status_code, range(8))) == {200}
        assert {each["headers"]["authorization"] for each in world.service.requests} == {"Bearer access-token-number-1"}
        assert office.requests == [{"grant_type": "client_credentials", "scope": "refunds", "audience": "https://payments.example"}]
        scheme, _, coded = office.headers[0]["authorization"].partition(" ")
        name, _, secret = base64.b64decode(coded).decode().partition(":")
        assert (scheme, unquote(name), unquote(secret)) == ("Basic", "the gateway", CLIENT_SECRET)
        # An answer that tells it does not get through.
        world.service.body = b"you sent access-token-number-1"
        assert world.refund(text).status_code == 502
        assert "access-token" not in (seen := caplog.text + json.dumps(world.records)) and CLIENT_SECRET not in seen


def test_one_that_ends_is_asked_for_anew_before_its_end(tmp_path: Path, office: Office, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(credentials, "monotonic", lambda: now[0])
    source = issued_of(stated(url, client="gateway"), tmp_path)

    async def read() -> str:
        return (await source.read()).text

    async def at(*moments: float) -> list[str]:
        found = []
        for moment in moments:
            now[0] = 1000.0 + moment
            found.append((await read())[-1])
        return found

    assert asyncio.run(at(0, 3569, 3571)) == ["1", "1", "2"]
    office.seconds = 100
    assert asyncio.run(at(9000, 9074, 9076)) == ["3", "3", "4"]
    assert office.requests[0] == {"grant_type": "client_credentials", "client_id": "gateway"} and "authorization" not in office.headers[0]
    # The life of one whose end is not said is what the file says, and of none that it said wrongly.
    office.more = {"expires_in": 0}
    with pytest.raises(Unavailable, match="has expired"):
        asyncio.run(at(20000))


REFUSED: dict[str, Callable[[Office], None]] = {
    "an error": lambda office: setattr(office, "status", 500),
    "a redirect": lambda office: setattr(office, "status", 302),
    "a code": lambda office: office.more.update(error="invalid_client"),
    "a word of its own": lambda office: office.more.update(error=CLIENT_SECRET),
    "another type": lambda office: office.more.update(token_type="DPoP"),
    "no type": lambda office: office.more.update(token_type=None),
    "no token": lambda office: office.more.update(access_token=None),
    "a token of two lines": lambda office: office.more.update(access_token="access-token\r\nX-A: b"),
    "an end that is none": lambda office: office.more.update(expires_in="soon"),
    "an end that is true": lambda office: office.more.update(expires_in=True),
    "an end before it begins": lambda office: office.more.update(expires_in=-5),
    "too much": lambda office: office.more.update(x="a" * 70_000),
}


@pytest.mark.parametrize("how", REFUSED)
def test_without_a_token_nothing_is_sent_and_nothing_of_it_is_said(tmp_path: Path, office: Office, url: str, how: str, caplog: pytest.LogCaptureFixture) -> None:
    private(tmp_path, "client", CLIENT_SECRET)
    REFUSED[how](office)
    with behind(tmp_path, **{"from": f'"{url}"', "client": '"gateway"', "secret": '"file:client"'}) as world:
        text = presented(world, budget={"usd_cents": 500})
        answer = world.refund(text)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5") and not world.service.requests
        assert "the key cannot be had" in caplog.text and len(office.requests) == 1
        for secret in (CLIENT_SECRET, "access-token"):
            assert secret not in answer.text + caplog.text
        # Nothing of the budget was taken, and it goes on by itself.
        office.more, office.status = {}, 200
        assert world.refund(text).status_code == 200


def test_a_server_that_is_gone_or_silent_fails_closed(tmp_path: Path, office: Office, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issued, "_SECONDS", 0.2)
    office.slow = 1
    with pytest.raises(Unavailable, match="gives no answer: TimeoutError"):
        asyncio.run(issued_of(stated(url), tmp_path).read())
    closed = listening()
    gone = f"oauth:http://127.0.0.1:{closed.getsockname()[1]}/token"
    closed.close()
    with pytest.raises(Unavailable, match="gives no answer: Unreachable"):
        asyncio.run(issued_of(stated(gone), tmp_path).read())


def test_a_key_that_its_service_does_not_take_is_asked_for_anew_and_not_at_each_request(tmp_path: Path, office: Office, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with behind(tmp_path, **{"from": f'"{url}"'}) as world:
        text = presented(world)
        world.service.status = 401
        assert [world.refund(text).status_code for _ in range(4)] == [502] * 4 and len(office.access) == 1
        monkeypatch.setattr(credentials, "PAUSE", 0)
        assert world.refund(text).status_code == 502
        world.service.status = 200
        assert world.refund(text).status_code == 200 and len(office.access) == 2
        assert world.service.requests[-1]["headers"]["authorization"] == "Bearer access-token-number-2"


# --- token exchange -------------------------------------------------------------------------------


def test_another_token_is_exchanged_as_it_is_now(tmp_path: Path, office: Office, url: str) -> None:
    subject = private(tmp_path, "subject", SUBJECT)
    office.seconds = 0.001
    office.more = {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}
    ask = '{ subject_token_type = "urn:ietf:params:oauth:token-type:jwt", resource = "https://payments.example/" }'
    with behind(tmp_path, **{"from": f'"{url}"', "client": '"gateway"', "subject": '"file:subject"', "ask": ask}) as world:
        text = presented(world)
        assert world.refund(text).status_code == 200
        write_private(subject, b"another-token-of-the-workload")
        assert world.refund(text).status_code == 200
        subject.unlink()
        assert world.refund(text).status_code == 503
    exchanged = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "resource": "https://payments.example/",
        "client_id": "gateway",
    }
    assert office.requests == [exchanged | {"subject_token": SUBJECT}, exchanged | {"subject_token": "another-token-of-the-workload"}]
    assert [each["headers"]["authorization"][-1] for each in world.service.requests] == ["1", "2"] and SUBJECT not in str(world.service.requests)


# --- refresh tokens -------------------------------------------------------------------------------


def refreshing(folder: Path, url: str, **said: Any) -> Any:
    return issued_of(stated(url, client="gateway", refresh="file:refresh", **said), folder)


def test_a_refresh_token_is_replaced_in_its_file_before_the_access_token_is_used(tmp_path: Path, office: Office, url: str) -> None:
    path = private(tmp_path, "refresh", office.refresh + "\n")
    with behind(tmp_path, **{"from": f'"{url}"', "client": '"gateway"', "refresh": '"file:refresh"'}) as world:
        text = presented(world)
        stood: list[str] = []

        async def answer(send: Any) -> None:
            stood.append(read_private(path).decode())
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})

        world.service.answer = answer
        assert [world.refund(text).status_code for _ in range(2)] == [200, 200]
    refresh, access, end = stood[0].split()
    assert (refresh, access) == ("refresh-token-1", "access-token-number-1") and 0 <= time.time() + 3570 - float(end) < 60
    assert path.stat().st_mode & 0o777 == 0o600 and len(office.requests) == 1 and not office.reused
    # Another process, or this one after it was started again, has the same token.
    assert asyncio.run(refreshing(tmp_path, url).read()).text == access and len(office.requests) == 1


def test_what_cannot_be_written_back_is_not_asked_for(tmp_path: Path, office: Office, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    private(tmp_path, "refresh", office.refresh)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(Unavailable, match="cannot be saved: No space left") as told:
            asyncio.run(refreshing(tmp_path, url).read())
    assert not office.requests and "refresh-token" not in str(told.value) and read_private(tmp_path / "refresh") == b"refresh-token-0"
    # What could no more be written once it was there is not used.
    wrote = []

    def once(*paths: Any) -> None:
        wrote.append(paths)
        (full if len(wrote) > 1 else replace)(*paths)

    replace = os.replace
    monkeypatch.setattr(os, "replace", once)
    with pytest.raises(Unavailable, match="cannot be saved"):
        asyncio.run(refreshing(tmp_path, url).read())
    assert len(office.requests) == 1


WRONG = {"empty": "", "of two lines": "a\nb", "of four lines": "a\nb\n1\nc", "no number": "a\nb\nsoon", "no ASCII": "ä"}


@pytest.mark.parametrize("how", [*WRONG, "gone", "open to others"])
def test_a_file_of_refresh_tokens_that_is_wrong_fails_closed(tmp_path: Path, office: Office, url: str, how: str) -> None:
    path = private(tmp_path, "refresh", WRONG.get(how, office.refresh))
    if how == "gone":
        path.unlink()
    elif how == "open to others":
        path.chmod(0o640)
    with pytest.raises(Unavailable):
        asyncio.run(refreshing(tmp_path, url).read())
    assert not office.requests


def test_one_that_was_used_up_elsewhere_fails_closed_until_there_is_another(tmp_path: Path, office: Office, url: str, caplog: pytest.LogCaptureFixture) -> None:
    path = private(tmp_path, "refresh", "refresh-token-of-old")
    with behind(tmp_path, **{"from": f'"{url}"', "refresh": '"file:refresh"'}) as world:
        text = presented(world)
        assert world.refund(text).status_code == 503 and "invalid_grant" in caplog.text and "refresh-token" not in caplog.text
        write_private(path, office.refresh.encode())
        assert world.refund(text).status_code == 200


def test_a_file_that_stays_locked_fails_closed(tmp_path: Path, office: Office, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    private(tmp_path, "refresh", office.refresh)
    monkeypatch.setattr(issued, "_WAIT", 0.1)
    with open(tmp_path / "refresh.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="stays locked"):
            asyncio.run(refreshing(tmp_path, url).read())
    assert asyncio.run(refreshing(tmp_path, url).read()).text == "access-token-number-1"


def test_a_token_that_is_refused_before_its_end_is_replaced_once_for_all(tmp_path: Path, office: Office, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers have it, and both meet the refusal."""
    monkeypatch.setattr(credentials, "PAUSE", -1)
    private(tmp_path, "refresh", office.refresh)
    workers = [refreshing(tmp_path, url) for _ in range(2)]

    async def read() -> list[str]:
        return [each.text for each in await asyncio.gather(*(each.read() for each in workers))]

    assert asyncio.run(read()) == ["access-token-number-1"] * 2
    for each in workers:
        each.forget()
    assert asyncio.run(read()) == ["access-token-number-2"] * 2 and not office.reused and len(office.requests) == 2


WORKER = """
import asyncio, sys
from pathlib import Path
from captoken.adapters._gateway.issued import issued_of
from captoken.adapters._gateway.stated import StatedCredential

async def work():
    stated = StatedCredential(source=sys.argv[1], client="gateway", refresh="file:refresh")
    source = issued_of(stated, Path(sys.argv[2]))
    for _ in range(40):
        print((await source.read()).text, flush=True)
        await asyncio.sleep(0.02)

asyncio.run(work())
"""


def test_two_workers_that_are_processes_never_use_one_twice(tmp_path: Path, office: Office, url: str) -> None:
    office.seconds, office.slow = 0.1, 0.01
    private(tmp_path, "refresh", office.refresh)
    command = [sys.executable, "-c", WORKER, url, str(tmp_path)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [each.communicate(timeout=60)[0].split() for each in workers]
    assert [each.returncode for each in workers] == [0, 0] and not office.reused
    assert all(len(each) == 40 for each in printed) and len(office.access) > 5
    # Where both were at work, one has what the other was given.
    assert set(printed[0]) & set(printed[1]) and set(printed[0]) | set(printed[1]) <= set(office.access)


# --- what a file may say --------------------------------------------------------------------------

BAD = {
    "oauth:https://": "a service's address must be",
    "oauth:http://issuer.example/token": "a service's address must be",
    "oauth:https://issuer.example/token?a=b": "a service's address must be",
}


@pytest.mark.parametrize("source", BAD)
def test_a_server_is_asked_over_tls_or_on_this_machine(tmp_path: Path, source: str) -> None:
    with pytest.raises(ValueError, match=BAD[source]):
        issued_of(stated(source), tmp_path)


@pytest.mark.parametrize("said", [{"refresh": "env:A"}, {"refresh": "file:"}, {"refresh": "file:a", "subject": "env:A"}, {"subject": "sk_live_1"}, {"secret": "sk_live_1"}])
def test_a_secret_is_said_as_a_source_and_a_refresh_token_as_a_file(tmp_path: Path, said: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"refresh must be file:PATH|a credential is env:NAME") as told:
        issued_of(stated("oauth:https://issuer.example/token", **said), tmp_path)
    assert "sk_live_1" not in str(told.value)


@pytest.mark.parametrize("source", ["openbao:secret/data/a", "openbao:#key", "openbao:a#", "openbao:a//b#key", "openbao:a/../b#key"])
def test_a_secret_of_openbao_is_a_path_and_a_field(tmp_path: Path, source: str) -> None:
    with pytest.raises(ValueError, match="openbao:PATH#FIELD needs url and secret beside it"):
        issued_of(stated(source, url="http://127.0.0.1:8200", secret="env:BAO_TOKEN"), tmp_path)
    with pytest.raises(ValueError, match="openbao:PATH#FIELD needs url and secret beside it"):
        issued_of(stated("openbao:a#key", url="http://127.0.0.1:8200"), tmp_path)
    with pytest.raises(ValueError, match="a service's address must be"):
        issued_of(stated("openbao:a#key", url="http://bao.example", secret="env:BAO_TOKEN"), tmp_path)


def test_a_secret_of_openbao_is_kept_for_its_lease_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As dynamic ones are, which another key follows."""
    now = [1000.0]
    monkeypatch.setattr(credentials, "monotonic", lambda: now[0])
    monkeypatch.setenv("BAO_TOKEN", "login-of-the-gateway")
    seen: list[Any] = []

    async def bao(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["path"], dict(scope["headers"]).get(b"x-vault-token")))
        said = {"data": {"key": f"dynamic-key-{len(seen)}"}, "lease_duration": 20}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(said).encode()})

    with served(bao, listening()) as origin:
        source = issued_of(stated("openbao:database/creds/a b#key", url=f"{origin}/base/", secret="env:BAO_TOKEN"), tmp_path)
        found = []
        for moment in (0, 19, 21):
            now[0] = 1000.0 + moment
            found.append(asyncio.run(source.read()).text[-1])
    assert found == ["1", "1", "2"] and seen[0] == ("/base/v1/database/creds/a b", b"login-of-the-gateway")


def test_a_source_shows_nothing_of_what_it_has(tmp_path: Path, office: Office, url: str) -> None:
    private(tmp_path, "refresh", office.refresh)
    source = refreshing(tmp_path, url)
    secret = asyncio.run(source.read())
    assert "token" not in repr(secret) and "access-token" not in repr(source) and "refresh-token" not in repr(source)


def test_a_file_without_its_certificates_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text('version = 1\n[gateway]\nkeyring = "k"\n[service.a]\nurl = "https://a.example"\ncredential = { from = "oauth:https://issuer.example/t", ca = "none.pem" }\n')
    with pytest.raises(ValueError, match=r"line 6: service\.a\.credential: "):
        configured(str(tmp_path / "gateway.toml"))
