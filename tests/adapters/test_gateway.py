"""The gateway: whose key is where, what is refused and recorded, what becomes of answers, and what fails closed.

Services are real servers. What the reading refuses, and what arrives, is in `gateway/test_strict.py`.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import pytest

from captoken import Access, AsyncVerifier, Issuer, Keyring, Token
from captoken.adapters._gateway.credentials import (
    FileSource,
    KeyringSource,
    Secret,
    Unavailable,
    checked,
    source_of,
    writer_of,
)
from captoken.adapters._gateway.seeking import Seeker, spellings_of
from captoken.adapters._gateway.upstream import Unreachable, Upstream
from captoken.adapters._gateway.written import Outgoing
from captoken.adapters.gateway import Gateway, as_bearer, configured
from captoken.audit.trail import AuditTrail
from captoken.keys import HolderKey
from captoken.proof import http_request
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from tests.adapters.serving import accepting, listening, origin_of, served

KEY = "sk_live_51HfakeKeyOfTheService/+x"

TABLE = """
version = 1
[gateway]
keyring = "keyring.json"
origin = "{origin}"
timeout = 2
{more}
[service.payments]
url = "{url}"
credential = {credential}
token = {token}
idempotency = "Idempotency-Key"
[service.payments.operations."refunds.create"]
request = "POST /v1/refunds"
form = {{ charge = "string", amount = "integer" }}
cost = {{ usd_cents = "amount" }}
[service.payments.operations."refunds.get"]
request = "GET /v1/refunds/{{refund}}"
query = {{ how = "string" }}
cost = {{ usd_cents = 0 }}
[service.payments.operations."refunds.look"]
request = "HEAD /v1/refunds/{{refund}}"
"""


class Service:
    """A service of somebody else: it keeps what it was sent, and answers as it is told."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answer: Callable[[Any], Any] | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.status = 200
        self.body = b'{"object":"refund"}'

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append({"method": scope["method"], "path": scope["raw_path"].decode(), "query": scope["query_string"].decode(), "headers": headers, "body": body})
        if self.answer is not None:
            return await self.answer(send)
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else self.body})


class World(NamedTuple):
    origin: str
    keyring: Keyring
    service: Service
    records: list[dict[str, Any]]
    gateway: Gateway
    folder: Path

    def token(self, **caveats: Any) -> Token:
        said = {"audience": "payments", "tools": {"payments.*": {}}, **caveats}
        return Issuer(self.keyring).mint(subject="user:jane", agent="support", task="returns", **said)

    def client(self, token: str | None = None, **headers: str) -> httpx.Client:
        own = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.origin, headers=own | headers, trust_env=False, timeout=20)

    def refund(self, token: str, amount: int | str = 500, **headers: str) -> httpx.Response:
        with self.client(token, **headers) as client:
            return client.post("/payments/v1/refunds", data={"charge": "ch_1", "amount": str(amount)})

    @property
    def decided(self) -> list[str]:
        return [record["code"] for record in self.records if "access" in record or not record.get("allowed", True)]


@contextmanager
def gateway(folder: Path, url: str | None = None, token: str = '"bearer"', credential: str = '"file:key"', more: str = "", **options: Any) -> Iterator[World]:
    """A gateway before a service, both real servers of this process."""
    (folder / "key").touch(0o600)
    (folder / "key").write_text(KEY + "\n")
    keyring = Keyring.generate()
    keyring.save(folder / "keyring.json")
    records: list[dict[str, Any]] = []
    service = Service()
    listens = listening()
    with ExitStack() as stack:
        place = stack.enter_context(served(service, listening())) if url is None else url
        text = TABLE.format(origin=origin_of(listens), url=place, credential=credential, token=token, more=more)
        (folder / "gateway.toml").write_text(text)
        found = configured(str(folder / "gateway.toml"))
        trail = AuditTrail(lambda line: records.extend(map(json.loads, line.splitlines())))
        ledger = MemoryLedger(floor=0)
        verifier = AsyncVerifier(keyring, "payments", audit=trail, ledger=ledger, replays=MemoryReplayStore(floor=0), **options)
        made = Gateway(found, {"payments": verifier})
        origin = stack.enter_context(served(made, listens, lifespan="on"))
        yield World(origin, keyring, service, records, made, folder)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with gateway(tmp_path) as made:
        yield made


# --- whose key is where ---------------------------------------------------------------------------


def test_the_service_sees_its_key_and_the_agent_its_answer(world: World) -> None:
    token = world.token().present(audience="payments")
    answer = world.refund(token)
    assert (answer.status_code, answer.json()) == (200, {"object": "refund"})
    (seen,) = world.service.requests
    assert seen["headers"]["authorization"] == f"Bearer {KEY}" and "cap1_" not in str(seen)
    assert (seen["method"], seen["path"], seen["body"]) == ("POST", "/v1/refunds", b"charge=ch_1&amount=500")
    assert KEY not in str(answer.headers) + answer.text + json.dumps(world.records)
    assert world.decided == ["allowed"]


def test_a_tree_of_agents_has_one_budget_and_the_trail_names_each(world: World) -> None:
    """Eleven refunds of 500, each of which its token permits: two pass."""
    refunds = {"payments.refunds.create": {"charge": {"any": True}, "amount": {"max": 900}}}
    root = world.token(tools=refunds, budget={"usd_cents": 1000})
    children = [root.delegate(to=f"support-{number}", tools=refunds).present(audience="payments") for number in range(11)]
    statuses = [world.refund(text).status_code for text in children]
    assert statuses == [200] * 2 + [403] * 9 and len(world.service.requests) == 2
    asked = [record for record in world.records if "access" in record]
    assert [record["chain"][-1]["name"] for record in asked] == [f"support-{number}" for number in range(11)]
    assert [record["code"] for record in asked] == ["allowed"] * 2 + ["budget_exhausted"] * 9
    assert world.refund(children[0], 901).json()["code"] == "argument"


@pytest.mark.parametrize("amount", ["", "-5", "+5", "5.0"])
def test_a_cost_that_cannot_be_read_is_never_zero(world: World, amount: str) -> None:
    token = world.token(budget={"usd_cents": 1000}).present(audience="payments")
    answer = world.refund(token, amount)
    assert answer.status_code in (400, 403) and not world.service.requests


@pytest.mark.parametrize("said", [{}, {"amount": "-1"}])
def test_an_amount_that_a_budget_counts_by_has_to_be_said(world: World, said: dict[str, str]) -> None:
    """A service may refund all there is when no amount is said."""
    token = world.token(budget={"usd_cents": 1000}).present(audience="payments")
    with world.client(token) as client:
        answer = client.post("/payments/v1/refunds", data={"charge": "ch_1", **said})
        told = "Say 'amount', a whole number of 0 or more: a budget of the token counts by it."
        assert (answer.status_code, answer.json()["detail"]) == (400, told)
        assert "retry" not in answer.json()
        refused = world.records[-1]
        assert (refused["id"], refused["code"]) == (answer.json()["decision"], "argument"), "whoever reports it names the line"
        assert client.get("/payments/v1/refunds/re_1").status_code == 200
        unread = client.post("/payments//v1/refunds", data={"charge": "ch_1"})
        assert (unread.status_code, unread.json()["decision"]) == (400, world.records[-1]["id"])
    assert world.decided == ["argument", "allowed", "argument"] and len(world.service.requests) == 1


def test_whose_fault_a_missing_cost_is(world: World) -> None:
    """The request's, where its argument would have been the cost. Without a budget, none is asked for."""
    narrow = world.token(tools={"payments.refunds.get": {}}, budget={"usd_cents": 1000})
    foreign = world.token(budget={"eur_cents": 1000})
    free = world.token()
    for token, code in ((narrow, "argument"), (foreign, "cost_unstated"), (free, "allowed")):
        with world.client(token.present(audience="payments")) as client:
            client.post("/payments/v1/refunds", data={"charge": "ch_1"})
        assert world.decided[-1] == code


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


PLACES = {
    '"bearer"': {"Authorization": "Bearer TOKEN"},
    '"basic"': {"Authorization": basic("x:TOKEN")},
    '["bearer", "basic"]': {"Authorization": basic("TOKEN:")},
    '"scheme:token"': {"Authorization": "token TOKEN"},
    '"header:X-Api-Key"': {"X-Api-Key": "TOKEN"},
}


@pytest.mark.parametrize("place", PLACES)
def test_a_token_stands_where_clients_put_their_key_and_there_alone(tmp_path: Path, place: str) -> None:
    with gateway(tmp_path, token=place) as world:
        token = world.token().present(audience="payments")

        def ask(headers: dict[str, str]) -> int:
            put = {name: basic(base64.b64decode(value[6:]).decode().replace("TOKEN", token)) if value.startswith("Basic") else value.replace("TOKEN", token) for name, value in headers.items()}
            with world.client(**put) as client:
                return client.get("/payments/v1/refunds/re_1").status_code

        for other, headers in PLACES.items():
            taken = {"bearer", "basic"} if place.startswith("[") else {place.strip('"')}
            permitted = bool({each.strip('"') for each in other.strip("[]").split(", ")[-1:]} & taken)
            assert (ask(headers) == 200) is permitted, (place, other)
        assert all("TOKEN" not in str(each) and token not in str(each) for each in world.service.requests)
        assert ask(PLACES[place] | {"X-Other": "TOKEN"}) == 400


def test_clients_put_the_token_where_the_key_stands_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    credential = '{ from = "file:key", as = "header:X-Api-Key" }'
    with gateway(tmp_path, token='"bearer"', credential=credential) as world:
        text = (tmp_path / "gateway.toml").read_text()
    (tmp_path / "gateway.toml").write_text(text.replace('token = "bearer"\n', ""))
    assert configured(str(tmp_path / "gateway.toml")).services["payments"].tokens == ("bearer", "header:X-Api-Key")
    with gateway(tmp_path, token='["bearer", "header:X-Api-Key"]', credential=credential) as world:
        token = world.token().present(audience="payments")
        for place in ({"X-Api-Key": token}, {"Authorization": f"Bearer {token}"}):
            with world.client(**place) as client:
                assert client.get("/payments/v1/refunds/re_1").status_code == 200
        assert [each["headers"]["x-api-key"] for each in world.service.requests] == [KEY] * 2
        with world.client(**{"X-Api-Key": token, "Authorization": f"Bearer {token}"}) as client:
            assert client.get("/payments/v1/refunds/re_1").status_code == 400


def test_who_puts_the_token_elsewhere_is_told_where_it_stands(tmp_path: Path) -> None:
    with gateway(tmp_path, token='["header:X-Api-Key", "basic", "scheme:token"]') as world:
        with world.client() as client:
            missing = client.get("/payments/v1/refunds/re_1")
        places = "as X-Api-Key: TOKEN or Authorization: Basic, its password or Authorization: token TOKEN"
        assert (missing.status_code, missing.json()["detail"]) == (401, f"A token is needed, {places}.")
        with world.client(**{"X-Other": world.token().present(audience="payments")}) as client:
            stray = client.get("/payments/v1/refunds/re_1")
        assert stray.json()["detail"] == stray.json()["error_description"] == f"Send the token {places}, and nowhere else."
        assert f'error_description="{stray.json()["detail"]}"' in stray.headers["www-authenticate"] and not world.service.requests


def test_what_is_the_servers_fault_is_not_told_as_the_clients(tmp_path: Path) -> None:
    with gateway(tmp_path) as world:
        token = world.token().present(audience="payments")
        world.service.status = 401
        broken = world.refund(token)
        assert (broken.status_code, broken.json()["error"], broken.json()["retry"]) == (502, "server_error", "no")
        assert broken.json()["for_model"] == broken.json()["detail"]
        (tmp_path / "key").unlink()
        gone = world.refund(token)
        assert (gone.status_code, gone.json()["error"], gone.json()["retry"]) == (503, "temporarily_unavailable", "later")


def test_the_token_is_sought_once() -> None:
    two = [(b"authorization", b"Bearer cap1_a"), (b"authorization", b"Basic Y2FwMV9hOg==")]
    assert as_bearer(two, ("bearer", "basic")) == two
    assert as_bearer([(b"authorization", b"Basic not base64")], ("basic",)) == []
    assert as_bearer([(b"x-key", b"sk_live")], ("header:X-Key",)) == [(b"x-key", b"sk_live")]


WRITTEN = {
    "bearer": ("authorization", f"Bearer {KEY}"),
    "basic": ("authorization", basic(f"me:{KEY}")),
    "header:X-Api-Key": ("x-api-key", KEY),
    "scheme:token": ("authorization", f"token {KEY}"),
}


@pytest.mark.parametrize("place", [*WRITTEN, "query:key"])
def test_a_key_is_written_where_its_service_looks(tmp_path: Path, place: str) -> None:
    credential = f'{{ from = "file:key", as = "{place}", user = "me" }}'
    with gateway(tmp_path, credential=credential) as world:
        with world.client(world.token().present(audience="payments"), **{"X-Api-Key": "mine"}) as client:
            assert client.get("/payments/v1/refunds/re_1?how=a").status_code == 200
            assert client.get("/payments/v1/refunds/re_1?key=mine").status_code == 400
            assert client.get("/payments/v1/refunds/re_1?KEY=mine").status_code == 400
        (seen,) = world.service.requests
        if place == "query:key":
            assert seen["query"] == f"how=a&key={quote(KEY, safe='')}" and "authorization" not in seen["headers"]
        else:
            name, value = WRITTEN[place]
            assert seen["headers"][name] == value and seen["query"] == "how=a"


def test_a_key_that_changes_is_taken_at_the_next_request(world: World) -> None:
    token = world.token().present(audience="payments")
    world.refund(token)
    (world.folder / "key").write_text("sk_live_another_key_of_it")
    world.refund(token)
    assert [each["headers"]["authorization"] for each in world.service.requests] == [f"Bearer {KEY}", "Bearer sk_live_another_key_of_it"]


BROKEN = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_text(""),
    "of two lines": lambda path: path.write_text("sk_a\nsk_b"),
    "not ASCII": lambda path: path.write_text("sk_ä"),
    "open to others": lambda path: path.chmod(0o644),
}


@pytest.mark.parametrize("how", BROKEN)
def test_without_its_key_nothing_is_sent_and_nothing_is_taken_of_a_budget(world: World, how: str, caplog: pytest.LogCaptureFixture) -> None:
    text = world.token(budget={"usd_cents": 500}).present(audience="payments")
    # It has read the key before: what it keeps is not used any more either.
    with world.client(text) as client:
        assert client.get("/payments/v1/refunds/re_1").status_code == 200
    world.service.requests.clear()
    BROKEN[how](world.folder / "key")
    answer = world.refund(text)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5") and not world.service.requests
    assert "sk_" not in answer.text + caplog.text
    (world.folder / "key").touch(0o600)
    (world.folder / "key").chmod(0o600)
    (world.folder / "key").write_text(KEY)
    assert world.refund(text).status_code == 200


def test_sources_say_what_is_wrong_and_nothing_of_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYMENTS_KEY", KEY)
    assert asyncio.run(source_of("env:PAYMENTS_KEY", 60, tmp_path).read()).text == KEY
    monkeypatch.delenv("PAYMENTS_KEY")
    with pytest.raises(Unavailable, match="PAYMENTS_KEY is not set"):
        asyncio.run(source_of("env:PAYMENTS_KEY", 60, tmp_path).read())
    for stated in (KEY, "sk_live", "env:", "keyring:alone", "vault:x"):
        with pytest.raises(ValueError, match="a credential is env:NAME") as told:
            source_of(stated, 60, tmp_path)
        assert KEY not in str(told.value)
    secret = checked(KEY)
    assert KEY not in repr(secret) + repr(FileSource(tmp_path)) + repr(Seeker(spellings_of(secret))) and isinstance(secret, Secret)
    out = Outgoing("GET", "/a", "", [], b"")
    writer_of("bearer", "").write(secret, out)
    assert KEY not in repr(out) and KEY not in repr(Outgoing("GET", "/a", f"key={KEY}", [], b""))


class _Backend:
    """A keyring of the system, as the library has it for its callers."""

    found: str | None = KEY
    asked = 0

    def get_password(self, service: str, user: str) -> str | None:
        self.asked += 1
        if self.found == "error":
            raise RuntimeError(KEY)
        return self.found if (service, user) == ("payments/live", "gateway") else None


def test_a_keyring_is_asked_once_in_its_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    backend = _Backend()
    monkeypatch.setitem(sys.modules, "keyring", backend)  # type: ignore[arg-type]
    source = source_of("keyring:payments/live/gateway", 60, tmp_path)
    assert isinstance(source, KeyringSource)
    assert [asyncio.run(source.read()).text for _ in range(3)] == [KEY] * 3 and backend.asked == 1
    again = source_of("keyring:payments/live/gateway", 0, tmp_path)
    asyncio.run(again.read())
    for found in ("error", None):
        backend.found = found
        with pytest.raises(Unavailable) as told:
            asyncio.run(again.read())
        assert KEY not in str(told.value)
    monkeypatch.setitem(sys.modules, "keyring", None)  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="pip install keyring"):
        asyncio.run(again.read())


# --- who is let in --------------------------------------------------------------------------------


def test_who_has_no_token_for_this_service_is_refused_and_nobody_connects(world: World) -> None:
    other = Issuer(world.keyring).mint(subject="user:jane", agent="a", task="t", audience="github", tools={"*": {}}).present(audience="github")
    plain = Issuer(world.keyring).mint(subject="user:jane", agent="a", task="t", tools={"*": {}})
    forged = Issuer(Keyring.generate()).mint(subject="user:jane", agent="a", task="t", audience="payments", tools={"*": {}}).present(audience="payments")
    narrow = world.token(tools={"payments.refunds.get": {}}).present(audience="payments")
    for text, status in ((other, 401), (plain.serialize(), 401), (forged, 401), (narrow, 403), (KEY, 401), ("cap1_x", 401)):
        assert world.refund(text).status_code == status
    with world.client() as client:
        assert client.post("/payments/v1/refunds").status_code == 401
        assert client.get("/nothing/v1/x").status_code == client.get("/").status_code == client.get("/payments").status_code == 404
    assert world.gateway.opened == {"payments": 0}


def test_a_request_that_is_no_operation_is_denied_and_recorded(world: World) -> None:
    with world.client(world.token().present(audience="payments")) as client:
        for method, path in (("DELETE", "/v1/refunds/re_1"), ("GET", "/v1/refunds"), ("GET", "/v1/payouts"), ("OPTIONS", "/v1/refunds")):
            answer = client.request(method, f"/payments{path}")
            assert (answer.status_code, answer.json()["code"]) == (403, "tool")
        assert client.get("/payments/v1/refunds/re_1?other=1").status_code == 400
        assert client.head("/payments/v1/refunds/re_1").status_code == 200
    assert world.decided == ["tool"] * 4 + ["argument", "allowed"] and len(world.service.requests) == 1


def test_a_token_in_a_form_is_refused(world: World) -> None:
    token = world.token().present(audience="payments")
    with world.client(token) as client:
        assert client.post("/payments/v1/refunds", data={"charge": token}).status_code == 400
    assert not world.service.requests


def test_a_bound_token_shows_a_proof_of_the_request_as_it_was_sent(world: World) -> None:
    own = HolderKey.generate()
    bound = world.token(key=own.public)
    body = b"charge=ch_1&amount=5"
    target = "/payments/v1/refunds"
    text = bound.present(audience="payments", signer=own, request=http_request("POST", world.origin, target, body))
    with world.client(text, **{"Content-Type": "application/x-www-form-urlencoded"}) as client:
        assert client.post(target, content=b"charge=ch_1&amount=6").status_code == 401
        assert client.post(target, content=body).status_code == 200
        assert client.post(target, content=body).status_code == 401
    assert len(world.service.requests) == 1


def test_a_retry_has_one_key_and_another_amount_another(world: World) -> None:
    """What goes out is made of the agent's key, the hand-over and all that is sent."""
    root = world.token()
    mine, other = (root.delegate(to=name, tools={"payments.*": {}}) for name in ("a", "b"))
    for child, amount, key in ((mine, 500, "k1"), (mine, 500, "k1"), (mine, 501, "k1"), (mine, 500, "k2"), (other, 500, "k1")):
        world.refund(child.present(audience="payments"), amount, **{"Idempotency-Key": key})
    world.refund(mine.present(audience="payments"))
    keys = [each["headers"].get("idempotency-key") for each in world.service.requests]
    assert keys[0] == keys[1] and len(set(keys)) == 5 and keys[-1] is None
    assert not {"k1", "k2"} & set(keys)


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[World]:
    """A gateway before a service of which it says how long that knows a key."""
    with gateway(tmp_path, token='"bearer"\nidempotency_seconds = 86400') as found:
        yield found


def test_a_retry_counts_once(keeping: World) -> None:
    """The same request with the same key: what is new in it, or another holder's, counts anew."""
    root = keeping.token(budget={"usd_cents": 2000}, uses=4)
    mine, other = (root.delegate(to=name, tools={"payments.*": {}}) for name in ("a", "b"))

    def refund(child: Token, amount: int, key: str | None) -> int:
        said = {} if key is None else {"Idempotency-Key": key}
        return keeping.refund(child.present(audience="payments"), amount, **said).status_code

    assert [refund(mine, 500, "k1") for _ in range(6)] == [200] * 6
    assert len(keeping.service.requests) == 6, "each try is sent, and the service does it once"
    assert [refund(mine, 500, "k2"), refund(other, 500, "k1"), refund(mine, 501, "k1")] == [200, 200, 403]
    assert refund(mine, 500, None) == 200 and refund(mine, 500, None) == 403, "2000 are spent, by four uses"
    assert refund(mine, 500, "k1") == 200, "it was counted when it came first"


def test_what_is_known_as_counted_was_counted(keeping: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that was not sent keeps its place: else the next try would find it, and be free."""
    token = keeping.token(budget={"usd_cents": 500}).present(audience="payments")

    async def no(self: Any) -> Any:
        raise Unreachable("gone")

    with monkeypatch.context() as away:
        away.setattr(Upstream, "connect", no)
        assert keeping.refund(token, 500, **{"Idempotency-Key": "k"}).status_code == 503
    assert keeping.refund(token, 500, **{"Idempotency-Key": "other"}).status_code == 403, "nothing went back"
    assert keeping.refund(token, 500, **{"Idempotency-Key": "k"}).status_code == 200, "its own try goes on"


def test_only_a_post_counts_once(keeping: World) -> None:
    """A service does a GET each time, whatever key comes with it."""
    token = keeping.token(uses=2).present(audience="payments")
    with keeping.client(token, **{"Idempotency-Key": "k"}) as client:
        assert [client.get("/payments/v1/refunds/re_1").status_code for _ in range(3)] == [200, 200, 403]


# --- answers --------------------------------------------------------------------------------------

LONG = b"a" * 70_000
SPELLINGS = {
    "as it is": KEY.encode(),
    "in JSON": json.dumps({"key": KEY}).encode(),
    "with escaped slashes": json.dumps(KEY).replace("/", "\\/").encode(),
    "with JSON escapes": "".join(f"\\u{ord(each):04x}" for each in KEY).encode(),
    "with some JSON escapes": "".join(f"\\u{ord(each):04X}" if each in "s_5" else each for each in KEY).encode(),
    "with percent escapes": "".join(f"%{ord(each):02x}" for each in KEY).encode(),
    "as a form": quote(KEY, safe="").encode(),
    **{f"in base64, {n}": base64.b64encode(b"x" * n + KEY.encode() + b"yz") for n in range(3)},
    **{f"in base64url, {n}": base64.urlsafe_b64encode(b"x" * n + KEY.encode()).rstrip(b"=") for n in range(3)},
    "in base64 in JSON": json.dumps(base64.b64encode(KEY.encode()).decode()).replace("/", "\\/").encode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_answer_that_tells_the_key_does_not_get_through(world: World, spelling: str, caplog: pytest.LogCaptureFixture) -> None:
    told = SPELLINGS[spelling]
    token = world.token().present(audience="payments")
    world.service.body = b"before " + told + b" after"
    answer = world.refund(token)
    assert answer.status_code == 502 and told not in answer.content and KEY not in answer.text + caplog.text
    # It is one character short of it.
    world.service.body = b"before " + SPELLINGS["as it is"][:-1]
    assert world.refund(token).status_code == 200


def test_a_key_in_a_header_or_in_a_compressed_answer_is_found(world: World) -> None:
    token = world.token().present(audience="payments")
    world.service.headers = [(b"x-echo", f"Bearer {KEY}".encode())]
    assert world.refund(token).status_code == 502
    world.service.headers = [(b"content-encoding", b"gzip")]
    world.service.body = gzip.compress(LONG + KEY.encode())
    answer = b""
    with suppress(httpx.RemoteProtocolError):
        answer = world.refund(token).content
    assert KEY.encode() not in answer
    world.service.body = gzip.compress(LONG)
    whole = world.refund(token)
    assert (whole.status_code, whole.content) == (200, LONG) and "content-encoding" not in whole.headers
    world.service.headers = [(b"content-encoding", b"br")]
    assert world.refund(token).status_code == 502
    world.service.headers, world.service.body = [(b"content-encoding", b"gzip")], b"no gzip"
    assert world.refund(token).status_code == 502


def test_headers_of_an_answer_are_those_of_its_content(world: World) -> None:
    world.service.headers = [
        (b"set-cookie", b"session=1"), (b"content-type", b"application/json"), (b"x-request-id", b"7"), (b"strict-transport-security", b"max-age=1"), (b"alt-svc", b"h3"),
        (b"connection", b"x-hop"), (b"x-hop", b"1"), (b"keep-alive", b"timeout=9"),
    ]  # fmt: skip
    headers = world.refund(world.token().present(audience="payments")).headers
    assert headers["content-type"] == "application/json" and headers["x-request-id"] == "7"
    assert not {"set-cookie", "strict-transport-security", "alt-svc", "x-hop", "keep-alive"} & set(headers)


def test_addresses_of_the_service_lead_back_here_and_others_are_not_followed(world: World) -> None:
    token = world.token().present(audience="payments")
    world.refund(token)
    inside = f"http://{world.service.requests[0]['headers']['host']}"
    world.service.status = 302
    moved = {
        "/v1/refunds/re_2": "/payments/v1/refunds/re_2",
        f"{inside}/v1/x?a=1": f"{world.origin}/payments/v1/x?a=1",
        inside: f"{world.origin}/payments",
        f"{inside}@evil.example/": f"{inside}@evil.example/",
        "//evil.example/": "//evil.example/",
        "https://evil.example/": "https://evil.example/",
    }
    for told, seen in moved.items():
        world.service.headers = [(b"location", told.encode())]
        answer = world.refund(token)
        assert (answer.status_code, answer.headers["location"]) == (302, seen)
    world.service.status, world.service.headers = 200, [(b"link", f'<{inside}/v1/x?page=2>; rel="next", <https://other.example/>'.encode())]
    assert world.refund(token).headers["link"] == f'<{world.origin}/payments/v1/x?page=2>; rel="next", <https://other.example/>'


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_addresses_in_json_lead_back_to_the_gateway_where_clients_follow_them(tmp_path: Path, cut: int) -> None:
    with gateway(tmp_path, token='"bearer"\nlinks = true') as world:
        token = world.token().present(audience="payments")
        world.refund(token)
        inside = f"http://{world.service.requests[0]['headers']['host']}"
        outside = f"{world.origin}/payments"
        said = f'{{"url":"{inside}/v1/x","text":"at {inside}/, \\"{inside}/v1\\"","other":["{inside}.example/","{inside}","{inside[:-1]}'
        shown = said.replace(f'"url":"{inside}', f'"url":"{outside}')

        async def in_pieces(send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": world.service.headers})
            for at in range(0, len(said), cut):
                await send({"type": "http.response.body", "body": said[at : at + cut].encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        world.service.answer = in_pieces
        for kind, expected in (("application/vnd.example+json; charset=utf-8", shown), ("text/plain", said)):
            world.service.headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(said))]
            assert world.refund(token).text == expected


def test_refusals_are_in_the_shape_that_clients_of_the_service_read(tmp_path: Path) -> None:
    with gateway(tmp_path, token='"bearer"\nerrors = "object"') as world:
        token = world.token(tools={"payments.refunds.create": {"charge": {"any": True}, "amount": {"max": 900}}}).present(audience="payments")
        denied = world.refund(token, 901)
        assert denied.json()["error"] == {"type": "insufficient_scope", "code": "argument", "message": denied.json()["for_model"]}
        assert world.refund(token, "9.5").json()["error"]["type"] == "invalid_request"
        with world.client() as client:
            assert client.get("/payments/v1/refunds/re_1").json()["error"] == {"type": "invalid_request", "code": None, "message": "A bearer token is needed."}
        with world.client(token) as client:
            assert client.head("/payments/v1/refunds/re_1").content == b""
        (tmp_path / "key").unlink()
        gone = world.refund(token)
        assert (gone.status_code, gone.json()["error"]["code"], gone.headers["retry-after"]) == (503, None, "5")
        # What the service says itself is its own.
        world.service.status, world.service.body = 400, b'{"error": "text"}'
        (tmp_path / "key").touch(0o600)
        (tmp_path / "key").write_text(KEY)
        assert world.refund(token).json() == {"error": "text"}


def test_a_service_that_does_not_take_the_key_is_the_gateways_affair(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.service.status, world.service.body = 401, b"bad key"
    answer = world.refund(world.token().present(audience="payments"))
    assert answer.status_code == 502 and b"bad key" not in answer.content and "www-authenticate" not in answer.headers
    assert "does not take the gateway's key" in caplog.text


@pytest.mark.parametrize("status", [201, 204, 304, 400, 404, 429, 500, 503])
def test_any_other_answer_is_the_services_own(world: World, status: int) -> None:
    world.service.status, world.service.body = status, b"" if status in (204, 304) else b"its words"
    answer = world.refund(world.token().present(audience="payments"))
    assert (answer.status_code, answer.content) == (status, world.service.body) and "retry-after" not in answer.headers


def test_an_answer_comes_piece_by_piece(world: World) -> None:
    """An event is not held back until the next one: the service sends that only when the first has arrived."""
    arrived = threading.Event()

    async def answer(send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        assert await asyncio.to_thread(arrived.wait, 20)
        await send({"type": "http.response.body", "body": b"data: 2\n\n"})

    world.service.answer = answer
    with world.client(world.token().present(audience="payments")) as client, client.stream("GET", "/payments/v1/refunds/re_1") as stream:
        pieces = stream.iter_raw()
        assert next(pieces) == b"data: 1\n\n"
        arrived.set()
        assert next(pieces) == b"data: 2\n\n"


# --- failing closed -------------------------------------------------------------------------------


def test_a_service_that_cannot_be_reached_takes_nothing_of_a_budget(tmp_path: Path) -> None:
    taken = listening()
    place = origin_of(taken)
    taken.close()
    with gateway(tmp_path, url=place) as world:
        token = world.token(budget={"usd_cents": 500}).present(audience="payments")
        first = world.refund(token)
        assert (first.status_code, first.headers["retry-after"]) == (503, "5")
        host, port = place.removeprefix("http://").split(":")
        with served(Service(), socket.create_server((host, int(port)))):
            assert world.refund(token).status_code == 200
        assert world.refund(token).json()["code"] == "budget_exhausted"


RAW = {
    "closes at once": b"",
    "no HTTP": b"hello\r\n\r\n",
    "a length and chunks that differ": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "a head that never ends": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000,
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
}


@contextmanager
def answering(raw: bytes, *, hold: bool = False) -> Iterator[str]:
    """A service that says these bytes to each connection, and closes it; with `hold`, when the block ends."""
    ended = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(raw)
        if hold:
            ended.wait(20)

    with accepting(answer) as origin:
        try:
            yield origin
        finally:
            ended.set()


@pytest.mark.parametrize("how", RAW)
def test_an_answer_that_is_none_is_502_and_counts_as_spent(tmp_path: Path, how: str) -> None:
    with answering(RAW[how]) as url, gateway(tmp_path, url=url) as world:
        token = world.token(budget={"usd_cents": 500}).present(audience="payments")
        assert world.refund(token).status_code == 502
        assert world.refund(token).json()["code"] == "budget_exhausted"


def test_a_service_that_is_slow_is_504_and_counts_as_spent(tmp_path: Path) -> None:
    with answering(b"", hold=True) as url, gateway(tmp_path, url=url) as world:
        token = world.token(budget={"usd_cents": 500}).present(audience="payments")
        assert world.refund(token).status_code == 504
        assert world.refund(token).json()["code"] == "budget_exhausted"


def test_an_answer_that_breaks_off_is_not_told_as_whole(tmp_path: Path) -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc") as url, gateway(tmp_path, url=url) as world, pytest.raises(httpx.RemoteProtocolError):
        world.refund(world.token().present(audience="payments"))


def test_an_answer_of_status_500_is_kept_to_its_bound(tmp_path: Path) -> None:
    with answering(b"HTTP/1.1 500 No\r\nContent-Length: 9000000\r\n\r\n" + b"a" * 9_000_000) as url, gateway(tmp_path, url=url) as world:
        assert world.refund(world.token().present(audience="payments")).status_code == 502


def test_a_body_that_never_ends_is_408_and_a_long_one_413(world: World) -> None:
    token = world.token().present(audience="payments")
    head = f"POST /payments/v1/refunds HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    port = int(world.origin.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head.encode() + b"Content-Length: 100\r\n\r\namount=")
        assert b" 408 " in connection.recv(65536).split(b"\r\n")[0]
    with world.client(token, **{"Content-Type": "application/x-www-form-urlencoded"}) as client:
        assert client.post("/payments/v1/refunds", content=b"charge=" + b"a" * 300_000).status_code == 413
    assert world.gateway.opened == {"payments": 0}


def test_a_client_that_goes_away_ends_the_answer(tmp_path: Path) -> None:
    """The service sends without end, and the gateway closes the connection."""
    gone = threading.Event()
    listens = listening()

    def serve() -> None:
        connection, _ = listens.accept()
        with connection:
            connection.recv(65536)
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                while True:
                    connection.sendall(LONG)
            except OSError:
                gone.set()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with gateway(tmp_path, url=origin_of(listens)) as world:
        with world.client(world.token().present(audience="payments")) as client, client.stream("GET", "/payments/v1/refunds/re_1") as stream:
            next(stream.iter_raw())
        assert gone.wait(20)
    thread.join()
    listens.close()


def test_a_client_that_reads_nothing_holds_its_stream_no_longer_than_the_timeout(tmp_path: Path) -> None:
    with gateway(tmp_path, more="streams = 1") as world, socket.socket() as slow:
        until = time.monotonic() + 15

        async def endless(send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            with suppress(OSError):
                while time.monotonic() < until:
                    await send({"type": "http.response.body", "body": b"a" * (64 << 10), "more_body": True})
                    await asyncio.sleep(0)

        world.service.answer = endless
        token = world.token().present(audience="payments")
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", int(world.origin.rpartition(":")[2])))
        slow.sendall(f"GET /payments/v1/refunds/re_1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        while not world.service.requests:
            time.sleep(0.01)
        world.service.answer = None
        assert world.refund(token).status_code == 503
        while world.refund(token).status_code == 503 and time.monotonic() < until:
            time.sleep(0.1)
        assert world.refund(token).status_code == 200


def test_more_streams_than_it_takes_are_503(tmp_path: Path) -> None:
    with answering(b"HTTP/1.1 200 OK\r\n\r\nabc", hold=True) as url, gateway(tmp_path, url=url, more="streams = 1") as world:
        held = world.client(world.token().present(audience="payments"))
        with held, held.stream("GET", "/payments/v1/refunds/re_1") as stream:
            pieces = stream.iter_raw()
            next(pieces)
            answer = httpx.get(f"{world.origin}/payments/v1/refunds/re_1", trust_env=False)
            assert (answer.status_code, answer.headers.get("retry-after")) == (503, "5")


def test_a_ledger_that_is_gone_is_503_and_nothing_is_sent(tmp_path: Path) -> None:
    with gateway(tmp_path) as world:
        without = AsyncVerifier(world.keyring, "payments")
        made = Gateway(configured(str(tmp_path / "gateway.toml")), {"payments": without})
        with served(made, listening(), lifespan="on") as origin:
            token = world.token(budget={"usd_cents": 500}).present(audience="payments")
            answer = httpx.post(f"{origin}/payments/v1/refunds", data={"charge": "x", "amount": "1"}, headers={"Authorization": f"Bearer {token}"}, trust_env=False)
        assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "store_unavailable", "5")
        assert not world.service.requests


def test_a_connection_that_the_service_has_closed_is_not_used_again(world: World) -> None:
    token = world.token().present(audience="payments")
    for _ in range(3):
        assert world.refund(token).status_code == 200
    assert world.gateway.opened == {"payments": 1}
    world.service.headers = [(b"connection", b"close")]
    for _ in range(2):
        assert world.refund(token).status_code == 200
    assert world.gateway.opened == {"payments": 2}


def test_certificates_are_looked_at(tmp_path: Path) -> None:
    """What is no TLS, or another's certificate, is never sent anything."""

    async def connect() -> None:
        upstream = Upstream("https://localhost:1", timeout=1)
        with pytest.raises(Unreachable):
            await upstream.connect()

    asyncio.run(connect())
    with pytest.raises(ValueError, match="https://host"):
        Upstream("http://api.example", timeout=1)


def test_killed_between_its_reservation_and_the_answer_it_counts_as_spent(tmp_path: Path) -> None:
    """`captoken gateway run`, in a process of its own, with a ledger in a file, killed while the service is at work."""
    keyring = Keyring.generate()
    keyring.save(tmp_path / "keyring.json")
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_text(KEY)
    reached = threading.Event()
    listens = listening()

    def serve() -> None:
        connection, _ = listens.accept()
        with connection:
            connection.recv(65536)
            reached.set()
            connection.recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    more = 'ledger = "used.db"\nlisten = "127.0.0.1:0"'
    text = TABLE.format(origin="http://127.0.0.1:1", url=origin_of(listens), credential='"file:key"', token='"bearer"', more=more)
    (tmp_path / "gateway.toml").write_text(text)
    from captoken.stores.sqlite import SQLiteLedger

    SQLiteLedger.create(tmp_path / "used.db", keys=keyring.key_ids).close()
    command = [sys.executable, "-m", "captoken", "gateway", "run", "--json", str(tmp_path / "gateway.toml")]
    token = Issuer(keyring).mint(subject="user:jane", agent="a", task="t", audience="payments", tools={"payments.*": {}}, budget={"usd_cents": 500}).present(audience="payments")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        assert running.stdout is not None
        address = json.loads(running.stdout.readline())["address"]

        def ask() -> None:
            with suppress(httpx.HTTPError):
                httpx.post(f"{address}/payments/v1/refunds", data={"charge": "x", "amount": "500"}, headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=20)

        asking = threading.Thread(target=ask)
        asking.start()
        assert reached.wait(20)
        running.send_signal(signal.SIGKILL)
        running.wait(20)
        asking.join()
    thread.join()
    listens.close()
    from captoken import Verifier

    with_cost = Access(tool="payments.refunds.create", arguments={"charge": "x", "amount": 500}, cost={"usd_cents": 500})
    ledger = SQLiteLedger(tmp_path / "used.db")
    assert Verifier(keyring, "payments", ledger=ledger).check(token, with_cost).code == "budget_exhausted"
    ledger.close()


def test_what_runs_the_gateway_is_not_dumpable() -> None:
    """So no other process of its user reads its memory or its environment, and no dump has the key."""
    script = "import ctypes; from captoken.cli.serving import refuse_dumps; get = lambda: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0); a = get(); refuse_dumps(); print(a, get())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1 0\n"


def test_a_denial_is_a_line_that_says_who_and_what_and_no_value(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """What it would have cost is no secret: the line of a budget says it."""
    caplog.set_level(logging.INFO, "captoken")
    narrow = world.token(tools={"payments.refunds.create": {"charge": {"any": True}, "amount": {"max": 9_000}}}, budget={"usd_cents": 100})
    token = narrow.present(audience="payments")
    world.refund(token, 4321)
    world.refund(token, 98_765)
    with world.client(token) as client:
        client.get("/payments/v1/refunds/re_private")
        client.get("/payments/v1/nothing/re_private")
    with world.client(world.token(audience="other").present(audience="other")) as client:
        client.get("/payments/v1/refunds/re_private")
    lines = [line for line in caplog.messages if line.startswith("refused: ")]
    codes = ("budget_exhausted", "argument", "tool", "tool", "wrong_audience")
    assert [line.split(": ")[1] for line in lines] == list(codes), lines
    for line, place in zip(lines, ("payments.refunds.create",) * 2 + ("payments.refunds.get", "GET /payments/v1/nothing/{…}", "GET /payments"), strict=True):
        assert "user:jane, task returns, support" in line and f", {place})" in line, line
    assert not any(value in caplog.text for value in ("98765", "re_private", "ch_1", "cap1_"))


def test_nothing_secret_is_in_a_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = world.token().present(audience="payments")
    world.refund(token)
    world.service.body = KEY.encode()
    world.refund(token)
    world.service.status = 401
    world.refund(token)
    time.sleep(0)
    assert KEY not in caplog.text and token not in caplog.text
