"""The ASGI guard: a request comes in with one verified token in one place, or it does not come in (class M of the attacks)."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from time import time
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import websockets.exceptions
import websockets.sync.client

from captoken import Access, AsyncVerifier, Decision, Denied, Issuer, Keyring, Token, Verifier, current
from captoken.adapters._http import credentials as _http
from captoken.adapters.asgi import GRANT, CaptokenMiddleware, Requires
from captoken.discharge import Allow, Discharger
from captoken.errors import NoToken
from captoken.keys import DischargerKey, HolderKey
from captoken.proof import http_request, with_proof
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from tests.adapters.serving import CUTTING, Reply, exchange, replies, send
from tests.library_code import is_library_code

KEYRING = Keyring.from_keys({"k1": bytes(range(32))}, current="k1")
OTHERS = Keyring.from_keys({"k1": bytes(range(1, 33))}, current="k1")
KEY = HolderKey.from_bytes(bytes(range(32)))
WHO = {"subject": "user:jane", "agent": "clerk", "task": "task-1", "tables": ["sales"], "operations": ["select"]}
DAY = {"expires_in": 86_400}  # of what is made before the first test: it is for as long as all of them may take
HELD = Issuer(KEYRING).mint(**WHO, **DAY)
BOUND = Issuer(KEYRING).mint(**WHO, **DAY, key=KEY.public)
SELECT = Access(table="sales", operation="select")
ORIGIN = "https://api.example"


def text(token: Token = HELD, **keywords: Any) -> str:
    return token.present(audience="sales-api", **keywords)


def bearer(token: Token = HELD) -> str:
    return f"Authorization: Bearer {text(token)}"


class Service:
    """An application that notes what has reached it: it takes what the grant says, and nothing by itself."""

    def __init__(self) -> None:
        self.reached: list[str] = []
        self.seen: list[Mapping[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        self.reached.append(path)
        self.seen.append(scope)
        if scope["type"] == "websocket":
            return await self.talk(scope, receive, send)
        if path in ("/sales", "/hr"):
            current.grant().authorize(Access(table=path[1:], operation="select"))
        body = b"served"
        if path == "/echo":
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message["body"], message["more_body"]
        if path == "/mine":
            body = current.grant().issued.agent.encode()
        if path == "/anybody":
            body = f"{held()} {granted()}".encode()
        if path == "/raise":
            raise LookupError("a fault of the service's")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        if path == "/late":
            current.grant().authorize(Access(table="hr", operation="select"))
        await send({"type": "http.response.body", "body": body})
        if path == "/background":
            self.reached.append(current.grant().issued.agent)
        if path == "/leave":  # whatever runs next on this connection starts from this context
            await asyncio.sleep(0.02)

    async def talk(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        if scope["path"] == "/hr":
            current.grant().authorize(Access(table="hr", operation="select"))
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            current.grant().authorize(Access(table=message["text"], operation="select"))
            await send({"type": "websocket.send", "text": current.grant().actor.name})


def held() -> str:
    try:
        return repr(current.holding())
    except NoToken:
        return "nothing"


def granted() -> str:
    try:
        return repr(current.grant())
    except NoToken:
        return "nothing"


SERVICE = Service()


def is_refusal(reply: Reply, *statuses: int) -> None:
    """A refusal as it should be: nothing ran, nobody keeps it, it says how to authenticate, and no token is in it."""
    assert reply.status in statuses, reply
    assert SERVICE.reached == []
    assert b"cap1" not in reply.body and "cap1" not in str(reply.headers)
    if "cache-control" not in reply.headers:  # the server itself could not read the request
        assert reply.status in (400, 431) and reply.body in (b"Invalid HTTP request received.", b"")
        return
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["content-type"] == "application/problem+json"
    if reply.body:  # none comes of HEAD
        assert (reply.json["status"], reply.json["detail"]) == (reply.status, reply.json["error_description"])
    assert reply.headers.get("www-authenticate", "").startswith('Bearer realm="sales"') == (reply.status in (400, 401, 403))


# --- what comes in ---------------------------------------------------------------------------------------------------


def test_a_request_with_a_good_token_is_served(origin: str) -> None:
    assert send(origin, "/sales", bearer()).body == b"served"
    assert send(origin, "/sales?x=1", bearer(), version="1.0").status == 200
    assert send(origin, "/sales", bearer(), method="HEAD").status == 200
    assert send(origin, "/mine", bearer(HELD.delegate(to="helper"))).body == b"clerk"


TOKEN = text(**DAY)
A_PROOF = "cap1p_" + "A" * 118  # spelled as a proof is, and made by nobody
FORGED = Issuer(OTHERS).mint(**WHO, **DAY).present(audience="sales-api", **DAY)


# --- what is public --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    ["//health", "/health/", "/Health", "/%68ealth", "/health%2f", "/health;x", "/./health", "/x/../health", "/health/../sales",
     "/health%00", "/health%3f", "/health/x", "/healt", "/", "", "/health#x", "/health\\", "http://api.example/health"],
)  # fmt: skip
def test_a_public_path_is_public_in_one_spelling(target: str, origin: str, server: str) -> None:
    reply = send(origin, target)
    if server in CUTTING and target in ("/health#x", "http://api.example/health"):
        assert (reply.status, SERVICE.reached) == (200, ["/health"])  # it is what the server gives, and what runs
        return
    is_refusal(reply, 401, 400)


def test_a_public_path_needs_no_token_and_gets_no_grant(origin: str) -> None:
    for target in ("/health", "/health?x=1"):
        assert send(origin, target).status == 200
    assert send(origin, "/anybody", bearer()).body == b"nothing nothing"
    assert send(origin, "/health", method="POST").status == 200


def test_what_came_in_is_gone_whatever_becomes_of_a_request() -> None:
    """For what stands outside, and for a public path: a log of theirs has no token."""
    secret = [(b"authorization", f"Bearer {TOKEN}.{A_PROOF}".encode()), (b"AUTHORIZATION", b"x"), (b"Authorization", b"x")]
    for path, extra in (("/health", []), ("/sales", [(b"x-original-url", b"/hr")]), ("/sales", []), ("/hr", [])):
        scope = {"headers": [*secret, (b"x-other", b"kept"), *extra]}
        seen: dict[str, Any] = {}

        async def outside(asked: Any, receive: Any, send: Any, seen: Any = seen) -> None:
            seen["scope"] = asked
            verifier = Verifier(KEYRING, audience="sales-api")
            await CaptokenMiddleware(SERVICE, verifier, origin=ORIGIN, public={"/health"})(asked, receive, send)

        in_process(path, scope=scope, guard=outside)
        assert seen["scope"]["headers"] == [(b"x-other", b"kept"), *extra]


def test_a_request_starts_with_nothing_of_the_one_before_it(origin: str) -> None:
    """uvicorn runs a request that came early in the context of the one before, grant and all."""
    lines = f"Host: api.example\r\n{bearer()}\r\n\r\n"
    data = f"GET /leave HTTP/1.1\r\n{lines}GET /anybody HTTP/1.1\r\nHost: x\r\n\r\nGET /sales HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    first, second, third = replies(exchange(origin, data.encode()))
    assert (first.status, second.body, third.status) == (200, b"nothing nothing", 401)


def test_what_the_server_holds_is_not_what_a_request_holds() -> None:
    with current.use(HELD):
        assert in_process("/anybody", bearer=False, public={"/anybody"})[1]["body"] == b"nothing nothing"


# --- proofs ----------------------------------------------------------------------------------------------------------


def proven(
    target: str = "/echo?a=1",
    method: str = "GET",
    body: bytes = b"",
    origin: str = ORIGIN,
    *,
    token: Token = BOUND,
    clock: Any = time,
    **presented: Any,
) -> str:
    digest = http_request(method, origin, target, body)
    shown = with_proof(text(token, **presented), KEY, audience="sales-api", request=digest, clock=clock)
    return f"Authorization: Bearer {shown}"


def test_a_proof_goes_with_the_request_that_it_is_for(origin: str) -> None:
    for target in ("/echo?a=1", "/echo", "/a%20b?c=%2f", "/echo?a=1?b=2", "//echo", "/x/../echo;v=1"):
        assert send(origin, target, proven(target)).status == 200, target
    body = b"x" * 5000
    assert send(origin, "/echo", proven("/echo", "POST", body), method="POST", body=body).body == body
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + proven("/echo", "POST", b"ab").encode()
    chunked = head + b"\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n"
    assert replies(exchange(origin, chunked))[0].body == b"ab"


def test_the_origin_is_what_is_configured_whatever_host_is_asked_for(origin: str) -> None:
    """A proxy may ask under another name; and a proof for the name that it asks under is one for another server (40.2)."""
    data = "GET /echo HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n{}\r\n\r\n"
    assert replies(exchange(origin, data.format(proven("/echo")).encode()))[0].status == 200
    SERVICE.reached.clear()
    for other in ("http://evil.example", "https://evil.example", origin, "http://api.example", f"{ORIGIN}:443"):
        is_refusal(replies(exchange(origin, data.format(proven("/echo", origin=other)).encode()))[0], 401)


ELSEWHERE = {
    "two slashes": "//echo?a=1",
    "a trailing slash": "/echo/?a=1",
    "an escaped slash": "/%2fecho?a=1",
    "an escaped letter": "/%65cho?a=1",
    "a dot segment": "/./echo?a=1",
    "a parent segment": "/x/../echo?a=1",
    "a parameter of the path": "/echo;x?a=1",
    "another case": "/Echo?a=1",
    "no query": "/echo",
    "another query": "/echo?a=2",
    "a longer query": "/echo?a=1&b=2",
    "the query twice": "/echo?a=1&a=1",
    "an escape in the query": "/echo?a=%31",
    "an ampersand behind": "/echo?a=1&",
    "a query in the path": "/echo%3fa=1",
    "a fragment": "/echo?a=1#x",
}


@pytest.mark.parametrize("target", ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_proof_is_of_no_use_for_another_target(target: str, origin: str, server: str) -> None:
    reply = send(origin, target, proven())
    if server in CUTTING and "#" in target:
        assert (reply.status, SERVICE.seen[0]["path"], SERVICE.seen[0]["query_string"]) == (200, "/echo", b"a=1")
        return
    is_refusal(reply, 401, 400)


def test_a_proof_is_of_no_use_for_another_request(origin: str) -> None:
    """The specification's rule 29.7."""
    is_refusal(send(origin, "/echo?a=1", proven(), method="HEAD"), 401)
    is_refusal(send(origin, "/echo?a=1", proven(), method="DELETE"), 401)
    is_refusal(send(origin, "/echo?a=1", proven(method="POST", body=b"a"), method="POST", body=b"b"), 401)
    is_refusal(send(origin, "/echo?a=1", proven(method="POST", body=b"a"), method="POST"), 401)
    is_refusal(send(origin, "/echo?a=1", proven(), body=b"a"), 401)
    other = proven().rpartition(".")[2]  # made for a token that was presented otherwise
    is_refusal(send(origin, "/echo?a=1", f"Authorization: Bearer {text(BOUND, expires_in=30)}.{other}"), 401)
    shown = proven()
    assert send(origin, "/echo?a=1", shown).status == 200
    SERVICE.reached.clear()
    is_refusal(send(origin, "/echo?a=1", f"Authorization: Bearer {text(BOUND)}"), 401)  # without a proof
    reply = send(origin, "/echo?a=1", shown)
    is_refusal(reply, 401)
    assert "fresh proof" in reply.json["error_description"]
    is_refusal(send(origin, "/echo?a=1", proven(clock=lambda: 1_764_061_200)), 401)


# --- inside the application ------------------------------------------------------------------------------------------


def test_the_grant_is_asked_for_each_access(origin: str) -> None:
    reply = send(origin, "/hr", bearer())
    assert (reply.status, reply.json["error"]) == (403, "insufficient_scope")
    assert 'error="insufficient_scope"' in reply.headers["www-authenticate"]
    assert send(origin, "/background", bearer()).status == 200
    assert send(origin, "/sales", bearer()).status == 200
    assert SERVICE.reached == ["/hr", "/background", "clerk", "/sales"]


def test_a_denial_after_the_response_has_started_cuts_it_off(origin: str, server: str) -> None:
    data = f"GET /late HTTP/1.1\r\nHost: x\r\n{bearer()}\r\n\r\n".encode()
    if server == "granian":  # it leaves the connection open, and sends nothing
        with pytest.raises(TimeoutError):
            exchange(origin, data, timeout=0.3)
    else:
        answered = exchange(origin, data)
        assert answered.startswith(b"HTTP/1.1 200") and b"served" not in answered
    with pytest.raises(Denied):
        in_process("/late")


def test_what_the_application_raises_passes_through(origin: str) -> None:
    assert send(origin, "/raise", bearer()).status == 500
    with pytest.raises(LookupError):
        in_process("/raise")


def test_the_application_does_not_see_what_came_in(origin: str) -> None:
    """So it cannot pass it on to another server, nor write it to a log."""
    assert send(origin, "/echo", proven("/echo"), "X-Other: kept").status == 200
    seen = SERVICE.seen[0]
    assert (b"x-other", b"kept") in seen["headers"] and "cap1" not in repr(seen)


def test_no_frame_of_ours_shows_a_token() -> None:
    for facts in ({}, {"keyring": broken_keyring}):
        with pytest.raises(LookupError) as caught:
            in_process("/raise", **facts)
        frames = [entry.frame for entry in caught.traceback if is_library_code(entry.frame.raw.f_code, "adapters")]
        assert frames and not any("cap1_" in repr(frame.f_locals) for frame in frames)


def broken_keyring() -> Keyring:
    raise LookupError("the key service is away")


def test_a_denial_is_logged_for_the_operator_without_a_token(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "captoken"):
        in_process("/hr")
    assert "table" in caplog.text and "cap1" not in caplog.text


# --- other servers, in this process ----------------------------------------------------------------------------------


def in_process(
    path: str,
    *,
    bearer: bool = True,
    app: Any = None,
    keyring: Any = KEYRING,
    verifier: Any = None,
    scope: Any = None,
    coming: Any = None,
    guard: Any = None,
    **keywords: Any,
) -> list[Any]:
    """What the guard sends for one request, of a server that we play ourselves."""
    headers = [(b"authorization", f"Bearer {text()}".encode())] if bearer else []
    asked: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": b"",
    }
    asked |= {"headers": headers, **(scope or {})}
    asked = {name: value for name, value in asked.items() if value is not None}
    sent: list[Any] = []
    coming = coming or [
        {"type": "websocket.connect"} if asked["type"] == "websocket" else {"type": "http.request", "body": b""}
    ]

    async def receive() -> Any:
        return coming.pop(0)

    async def out(message: Any) -> None:
        sent.append(message)

    guard = guard or CaptokenMiddleware(
        app or SERVICE, verifier or Verifier(keyring, audience="sales-api"), origin=ORIGIN, **keywords
    )
    asyncio.run(guard(asked, receive, out))
    return sent


def test_a_server_that_does_not_say_how_a_target_was_spelled() -> None:
    """Bearer tokens go; no path is public there, and no proof can be checked."""
    assert in_process("/sales", scope={"raw_path": None})[0]["status"] == 200
    assert in_process("/health", bearer=False, public={"/health"}, scope={"raw_path": None})[0]["status"] == 401
    headers = [(b"authorization", proven("/echo").partition(": ")[2].encode())]
    assert in_process("/echo", scope={"raw_path": None, "headers": headers})[0]["status"] == 503
    for target in ("http://api.example/sales", "*", "sales", ""):
        assert in_process(target, scope={"raw_path": None})[0]["status"] == 400


def test_what_is_proven_is_what_runs() -> None:
    """Something that stands outside puts another path there, and leaves the bytes that came."""
    for path, raw, status in (
        ("/echo", b"/echo", 200), ("/echo", b"/%65cho", 200), ("/é", b"/%C3%A9", 200), ("/hr", b"/echo", 503), ("/echo/", b"/echo", 503)
    ):  # fmt: skip
        secret = proven(raw.decode()).partition(": ")[2].encode()
        verifier = Verifier(KEYRING, audience="sales-api", replays=MemoryReplayStore(floor=0))
        scope = {"raw_path": raw, "headers": [(b"authorization", secret)]}
        assert in_process(path, scope=scope, verifier=verifier)[0]["status"] == status, path
        assert (path in SERVICE.reached) == (status == 200)


def test_a_store_that_fails_is_told_as_such() -> None:
    stale = Verifier(KEYRING, audience="sales-api", overlay=lambda: None)
    start, body = in_process("/sales", verifier=stale)
    assert start["status"] == 503 and b"temporarily_unavailable" in body["body"]
    assert "www-authenticate" not in dict(start["headers"])


class Trail:
    """Notes what was decided, and in which thread it was recorded."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.codes: list[str] = []

    def record(self, decision: Decision) -> None:
        self.codes.append(decision.code)
        self.threads.append(threading.current_thread().name)


def test_what_may_have_to_wait_does_so_in_a_thread() -> None:
    trail = Trail()
    in_process("/sales", verifier=Verifier(KEYRING, audience="sales-api", audit=trail), app=Requires(SERVICE, SELECT))
    authenticated, required, endpoint = trail.threads
    assert authenticated != "MainThread" != required and endpoint == "MainThread"  # the last one asked for itself


def test_scopes_of_other_kinds() -> None:
    with pytest.raises(ValueError, match="neither"):
        in_process("/", scope={"type": "rpc"})
    assert SERVICE.reached == []


def test_the_lifespan_is_the_applications() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    asyncio.run(CaptokenMiddleware(app, Verifier(KEYRING), origin=ORIGIN)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == [({"type": "lifespan"}, None, None)]


WRONG: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "no verifier": ({"verifier": KEYRING}, TypeError),
    "an origin with a path": ({"origin": "https://api.example/"}, ValueError),
    "an origin in the clear": ({"origin": "http://api.example"}, ValueError),
    "an origin that browsers spell otherwise": ({"origin": "https://API.example:443"}, ValueError),
    "no origin": ({"origin": "api.example"}, ValueError),
    "a public path that is one str": ({"public": "/health"}, TypeError),
    "a public path without a slash": ({"public": {"health"}}, ValueError),
    "a public path with an escape": ({"public": {"/he%61lth"}}, ValueError),
    "a public path with a parent": ({"public": {"/x/../health"}}, ValueError),
    "a public path with an empty segment": ({"public": {"//health"}}, ValueError),
    "a public path with a query": ({"public": {"/health?x"}}, ValueError),
    "a public pattern": ({"public": {"/{path}"}}, ValueError),
    "a realm with a quote": ({"realm": 'a"b'}, ValueError),
    "a realm with a line break": ({"realm": "a\r\nb"}, ValueError),
    "a body without an end": ({"max_body": -1}, ValueError),
    "a body of no size": ({"max_body": None}, ValueError),
    "a proxy that is one str": ({"proxies": "127.0.0.1"}, TypeError),
    "a proxy by its name": ({"proxies": ["proxy.example"]}, ValueError),
    "metadata in the clear": ({"resource_metadata": "http://api.example/x"}, ValueError),
    "metadata with a quote": ({"resource_metadata": 'https://api.example/"'}, ValueError),
}


@pytest.mark.parametrize(("given", "error"), WRONG.values(), ids=WRONG)
def test_a_guard_that_is_built_wrongly_is_not_built(given: dict[str, Any], error: type[Exception]) -> None:
    given = {"verifier": Verifier(KEYRING), "origin": ORIGIN, **given}
    with pytest.raises(error):
        CaptokenMiddleware(SERVICE, given.pop("verifier"), **given)


# --- websockets ------------------------------------------------------------------------------------------------------


def talk(origin: str, path: str, *headers: str) -> Any:
    given = [tuple(header.split(": ", 1)) for header in headers]
    return websockets.sync.client.connect(origin.replace("http", "ws") + path, additional_headers=given, compression=None)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/talk", (), 401),
        ("/health", (), 401),
        (f"/talk?access_token={TOKEN}", (), 400),
        (f"/talk?access_token={TOKEN}", (f"Authorization: Bearer {TOKEN}",), 400),
        ("/talk", (f"Authorization: Bearer {FORGED}",), 401),
        ("/talk", (f"Authorization: Bearer {TOKEN}",) * 2, 400),
        ("/talk", (f"Sec-WebSocket-Protocol: {TOKEN}",), 400),
        ("/talk", (f"Authorization: Bearer {text(BOUND, **DAY)}",), 401),
    ],
    ids=["no token", "a public path", "in the query", "in both", "forged", "twice", "as a protocol", "bound, without a proof"],
)
def test_a_websocket_without_a_good_token_is_not_accepted(
    path: str, headers: tuple[str, ...], status: int, origin: str
) -> None:
    with pytest.raises(websockets.exceptions.InvalidStatus) as caught, talk(origin, path, *headers):
        pass
    response = caught.value.response
    assert response.status_code == status and response.headers["Cache-Control"] == "no-store"
    assert SERVICE.reached == []


def test_a_websocket_is_asked_about_each_message(origin: str) -> None:
    with talk(origin, "/talk", bearer()) as connection:
        connection.send("sales")
        assert connection.recv() == "clerk"
        connection.send("hr")
        with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
            connection.recv()
    assert caught.value.rcvd is not None and caught.value.rcvd.code == 1008
    with talk(origin, "/talk?a=1", proven("/talk?a=1")) as connection:
        connection.send("sales")
        assert connection.recv() == "clerk"


def test_a_websocket_that_the_application_denies_is_not_accepted(origin: str) -> None:
    with pytest.raises(websockets.exceptions.InvalidStatus) as caught, talk(origin, "/hr", bearer()):
        pass
    assert caught.value.response.status_code == 403


@pytest.mark.parametrize("extensions", [None, {}, {"websocket.http.response": {}}])
def test_servers_refuse_a_websocket_in_two_ways(extensions: Any) -> None:
    scope = {"type": "websocket", "method": None, "extensions": extensions}
    sent = in_process("/talk", bearer=False, scope=scope)
    assert [message["type"] for message in sent] == (
        ["websocket.http.response.start", "websocket.http.response.body"] if extensions else ["websocket.close"]
    )


# --- both faces of a verifier ----------------------------------------------------------------------------------------


async def asking(scope: Any, receive: Any, send: Any) -> None:
    """An application that awaits its grant, and notes it."""
    grant = scope[GRANT]
    SERVICE.reached.append(type(grant).__name__)
    assert current.grant() is grant
    await grant.awaited.authorize(Access(table=scope["path"][1:], operation="select"))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": grant.actor.name.encode()})


@pytest.mark.parametrize(("face", "grant"), [(Verifier, "Grant"), (AsyncVerifier, "AsyncGrant")])
def test_the_application_gets_the_grant_of_the_face_that_was_given(face: Any, grant: str) -> None:
    """With a store and a trail, too: the bound token is taken once, and what is denied is recorded."""
    trail = Trail()
    replays = MemoryReplayStore(floor=0)
    for header, target, status in (
        (bearer(), "/sales", 200),
        (bearer(), "/hr", 403),
        (proven("/sales"), "/sales", 200),
        (proven("/sales"), "/hr", 401),
        (f"Authorization: Bearer {text(BOUND)}", "/sales", 401),
    ):
        headers = [(b"authorization", header.partition(": ")[2].encode())]
        verifier = face(KEYRING, audience="sales-api", replays=replays, audit=trail)  # one for each event loop
        start = in_process(target, app=asking, verifier=verifier, scope={"headers": headers})[0]
        assert start["status"] == status, (header, target)
    assert SERVICE.reached == [grant] * 3
    assert trail.codes == ["allowed", "allowed", "allowed", "table", "allowed", "allowed", "bad_proof", "proof_missing"]


@pytest.mark.parametrize("face", [Verifier, AsyncVerifier])
def test_one_access_for_an_application_is_asked_of_either_face(face: Any) -> None:
    for path, status in (("/sales", 200), ("/hr", 403), ("/none", 403)):
        app = Requires(asking, by_path)
        assert in_process(path, app=app, verifier=face(KEYRING, audience="sales-api"))[0]["status"] == status


@pytest.mark.parametrize("face", [Verifier, AsyncVerifier])
def test_a_body_is_waited_for_by_either_face_for_a_good_token_alone(face: Any) -> None:
    """It comes in pieces: one who lacks nothing but the proof is waited for, and whoever else is answered after one."""
    for token, reads in ((BOUND, 3), (Issuer(OTHERS).mint(**WHO, key=KEY.public), 1)):
        coming = [{"type": "http.request", "body": b"x", "more_body": more} for more in (True, True, False)]
        headers = [(b"authorization", proven("/echo", "POST", b"xxx", token=token).partition(": ")[2].encode())]
        verifier = face(KEYRING, audience="sales-api", replays=MemoryReplayStore(floor=0))
        asked = {"headers": headers, "method": "POST"}
        start, *_ = in_process("/echo", scope=asked, verifier=verifier, coming=coming)
        assert (start["status"], 3 - len(coming)) == (200 if reads == 3 else 401, reads)


@pytest.mark.parametrize(("path", "status"), [("/sales", 200), ("/hr", 403)])
def test_another_event_loop_than_asyncios_asks_in_place(path: str, status: int) -> None:
    """trio's, say: here the steps are taken by hand, and nothing of ours waits for what asyncio alone has."""
    verifier = Verifier(KEYRING, audience="sales-api", audit=Trail())
    guard = CaptokenMiddleware(Requires(SERVICE, SELECT), verifier, origin=ORIGIN)
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
    sent: list[Any] = []

    async def out(message: Any) -> None:
        sent.append(message)

    request = guard({**scope, "headers": [(b"authorization", f"Bearer {TOKEN}".encode())]}, out, out)
    with pytest.raises(StopIteration):
        request.send(None)
    assert sent[0]["status"] == status


def test_what_is_no_verifier_is_refused_at_once() -> None:
    with pytest.raises(TypeError):
        CaptokenMiddleware(SERVICE, KEYRING, origin=ORIGIN)  # type: ignore[arg-type]


def test_a_proof_stands_behind_discharges_in_the_one_text() -> None:
    asked = DischargerKey.generate()
    token = BOUND.require(asked.public, need={"alive": "task-1"})
    answered = token.with_discharge(Discharger(asked, lambda need: Allow(expires_in=60)).discharge(token.needs[0]))
    verifier = Verifier(KEYRING, audience="sales-api", replays=MemoryReplayStore(floor=0))
    for shown, status in ((answered, 200), (token, 401)):
        header = proven("/sales", token=shown).partition(": ")[2]
        assert header.count(".cap1p_") == 1 and header.count(".cap1d_") == (status == 200)
        scope = {"headers": [(b"authorization", header.encode())]}
        assert in_process("/sales", scope=scope, verifier=verifier)[0]["status"] == status


# --- Requires --------------------------------------------------------------------------------------------------------


def by_path(scope: Any) -> Access | None:
    return None if scope["path"] == "/none" else Access(table=scope["path"][1:], operation="select")


@pytest.mark.parametrize(("path", "status"), [("/sales", 200), ("/hr", 403), ("/none", 403), ("/a..b", 403), ("/*", 403)])
def test_an_application_can_be_put_behind_one_access(path: str, status: int) -> None:
    assert in_process(path, app=Requires(SERVICE, by_path))[0]["status"] == status
    assert SERVICE.reached == ([path] if status == 200 else [])


@pytest.mark.parametrize(
    ("cost", "statuses"),
    [
        (None, [403]),
        ({"cents": 0}, [200, 200]),
        ({"cents": 6}, [200, 403]),
        (lambda scope: {"cents": len(scope["path"])}, [200, 403]),
        (lambda scope: {"cents": -1}, [403]),
    ],
)
def test_a_request_takes_what_it_costs_of_a_budget(cost: Any, statuses: list[int]) -> None:
    ledger = MemoryLedger(shared=True, floor=0)
    verifier = Verifier(KEYRING, audience="sales-api", ledger=ledger)
    paying = Issuer(KEYRING).mint(**WHO, **DAY, budget={"cents": 10})
    header = [(b"authorization", f"Bearer {text(paying)}".encode())]
    for rule in (SELECT, lambda scope: SELECT):
        app = Requires(Silent(), rule, cost=cost)
        found = [in_process("/sales", verifier=verifier, app=app, scope={"headers": header})[0]["status"] for _ in statuses]
        assert found == statuses
        ledger._spent.clear()
    with pytest.raises(TypeError, match="cost"):
        Requires(SERVICE, SELECT, cost={"cents": 1.5})  # type: ignore[dict-item]


class Silent:
    """An application that asks for nothing by itself."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def test_an_access_required_outside_of_a_guard_is_refused() -> None:
    async def run() -> None:
        await Requires(SERVICE, SELECT)({"type": "http"}, None, None)  # type: ignore[arg-type]

    with pytest.raises(NoToken):
        asyncio.run(run())
    with current.serving(Verifier(KEYRING).authenticate(HELD)), pytest.raises(NoToken):  # another request's grant
        asyncio.run(run())
    with pytest.raises(TypeError):
        Requires(SERVICE, "sales")  # type: ignore[arg-type]
    assert SERVICE.reached == []


def test_a_client_of_httpx_in_one_process() -> None:
    """httpx's own transport for ASGI applications, which tests of services use."""

    async def run() -> httpx.Response:
        app = CaptokenMiddleware(SERVICE, Verifier(KEYRING, audience="sales-api"), origin=ORIGIN)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ORIGIN) as client:
            return await client.get("/sales", headers={"Authorization": f"Bearer {text()}"})

    assert asyncio.run(run()).text == "served"


def test_the_size_of_what_is_measured_is_that_of_the_largest_token() -> None:
    assert len("Bearer ") + 32_768 == _http.CREDENTIALS_BYTES
