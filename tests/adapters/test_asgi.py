"""The ASGI guard: a request comes in with one verified token in one place, or it does not come in (class M of the attacks)."""

from __future__ import annotations

import asyncio
import importlib
import logging
import re
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from random import Random
from time import time
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest
import websockets.exceptions
import websockets.sync.client

from captoken import Access, AsyncVerifier, Decision, Denied, Issuer, Keyring, Token, Verifier, current
from captoken.adapters._http import credentials as _http
from captoken.adapters._http.refusals import Refusals
from captoken.adapters.asgi import GRANT, CaptokenMiddleware, Requires
from captoken.control import Feed, Operator, Overlay
from captoken.discharge import Allow, Discharger
from captoken.errors import CODES, NoToken
from captoken.keys import DischargerKey, HolderKey, OperatorKey
from captoken.proof import http_request, with_proof
from captoken.stores.memory import MemoryLedger, MemoryReplayStore, MemorySnapshots
from tests.library_code import is_library_code

from .serving import CUTTING, SERVERS, Reply, exchange, listening, replies, send, served

KEYRING = Keyring.from_keys({"k1": bytes(range(32))}, current="k1")
OTHERS = Keyring.from_keys({"k1": bytes(range(1, 33))}, current="k1")
STRANGERS = Keyring.from_keys({"k2": bytes(range(1, 33))}, current="k2")
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


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def origin(server: str) -> Iterator[str]:
    """A server whose name to its clients is another one than where it listens."""
    verifier = Verifier(KEYRING, audience="sales-api", replays=MemoryReplayStore(floor=0))
    app = CaptokenMiddleware(SERVICE, verifier, origin=ORIGIN, realm="sales", public={"/health", "/anybody"}, max_body=5000)
    with served(app, listening(), server) as at:
        yield at


@pytest.fixture(autouse=True)
def nothing_reached() -> None:
    SERVICE.reached.clear()
    SERVICE.seen.clear()


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
HALF = len(TOKEN) // 2
FORGED = Issuer(OTHERS).mint(**WHO, **DAY).present(audience="sales-api", **DAY)
HEADERS: dict[str, tuple[tuple[bytes | str, ...], int]] = {
    "none at all": ((), 401),
    "empty": (("Authorization:",), 400),
    "a space": (("Authorization:  ",), 400),
    "the scheme only": (("Authorization: Bearer",), 400),
    "the scheme and a space": (("Authorization: Bearer ",), 400),
    "no scheme": ((f"Authorization: {TOKEN}",), 401),
    "another scheme": ((f"Authorization: Basic {TOKEN}",), 401),
    "a longer scheme": ((f"Authorization: Bearerx {TOKEN}",), 400),
    "another scheme first": ((f"Authorization: Basic YTpi, Bearer {TOKEN}",), 401),
    "DPoP": ((f"Authorization: DPoP {TOKEN}",), 401),
    "the scheme in lower case": ((f"Authorization: bearer {TOKEN}",), 400),
    "the scheme in upper case": ((f"Authorization: BEARER {TOKEN}",), 400),
    "two spaces": ((f"Authorization: Bearer  {TOKEN}",), 400),
    "a tab": ((f"Authorization: Bearer\t{TOKEN}",), 400),
    "a space and a tab": ((f"Authorization: Bearer \t{TOKEN}",), 400),
    "a space that does not break": ((f"Authorization: Bearer\xa0{TOKEN}",), 400),
    "an equals sign": ((f"Authorization: Bearer={TOKEN}",), 400),
    "a colon": ((f"Authorization: Bearer: {TOKEN}",), 400),
    "quotes": ((f'Authorization: Bearer "{TOKEN}"',), 400),
    "a parameter": ((f"Authorization: Bearer token={TOKEN}",), 400),
    "two headers, equal": ((f"Authorization: Bearer {TOKEN}",) * 2, 400),
    "two headers, a good one first": ((f"Authorization: Bearer {TOKEN}", f"Authorization: Bearer {FORGED}"), 400),
    "two headers, a good one last": ((f"Authorization: Bearer {FORGED}", f"Authorization: Bearer {TOKEN}"), 400),
    "two headers, one of another scheme": (("Authorization: Basic YTpi", f"Authorization: Bearer {TOKEN}"), 400),
    "two headers, one empty": (("Authorization:", f"Authorization: Bearer {TOKEN}"), 400),
    "two headers in two cases": ((f"Authorization: Bearer {TOKEN}", f"AUTHORIZATION: Bearer {TOKEN}"), 400),
    "two, joined by a comma": ((f"Authorization: Bearer {TOKEN}, Bearer {TOKEN}",), 400),
    "two, joined by a comma alone": ((f"Authorization: Bearer {TOKEN},{TOKEN}",), 400),
    "two tokens": ((f"Authorization: Bearer {TOKEN} {TOKEN}",), 400),
    "two tokens in one": ((f"Authorization: Bearer {TOKEN}.{TOKEN}",), 401),
    "a word behind it": ((f"Authorization: Bearer {TOKEN} x",), 400),
    "a folded header": ((f"Authorization: Bearer\r\n {TOKEN[:HALF]}\r\n {TOKEN[HALF:]}",), 400),
    "a folded token": ((f"Authorization: Bearer {TOKEN[:HALF]}\r\n {TOKEN[HALF:]}",), 400),
    "a name with a space behind it": ((f"Authorization : Bearer {TOKEN}",), 400),
    "a byte above 0x7f in it": ((f"Authorization: Bearer {TOKEN}\xe9",), 400),
    "bytes above 0x7f": ((b"Authorization: Bearer \xff\xfe" + TOKEN.encode(),), 400),
    "a NUL": ((b"Authorization: Bearer " + TOKEN.encode() + b"\x00",), 400),
    "a bare line feed": ((b"Authorization: Bearer " + TOKEN.encode()[:9] + b"\n" + TOKEN.encode()[9:],), 400),
    "a percent escape": ((f"Authorization: Bearer {TOKEN[:-1]}%2d",), 400),
    "padding": ((f"Authorization: Bearer {TOKEN}=",), 401),
    "padding alone": (("Authorization: Bearer ==",), 400),
    "no token of ours": (("Authorization: Bearer eyJhbGciOiJub25lIn0.e30.",), 401),
    "a token cut short": ((f"Authorization: Bearer {TOKEN[:-4]}",), 401),
    "a token with one character changed": ((f"Authorization: Bearer {TOKEN[:-9]}{'A' if TOKEN[-9] != 'A' else 'B'}{TOKEN[-8:]}",), 401),
    "a token in upper case": ((f"Authorization: Bearer {TOKEN.upper()}",), 401),
    "eight kilobytes": (("Authorization: Bearer cap1_" + "A" * 8192,), 401),
    "as long as may be": (("Authorization: Bearer " + "A" * 32_768,), 401),
    "a character longer": (("Authorization: Bearer " + "A" * 32_769,), 431),
    "sixty kilobytes": (("Authorization: Bearer " + "A" * 60_000,), 431),
    "sixty-four kilobytes": (("Authorization: Bearer " + "A" * 66_000,), 0),
    "a megabyte": (("Authorization: Bearer " + "A" * 1_000_000,), 0),
    "forwarded: X-Forwarded-Authorization": ((f"X-Forwarded-Authorization: Bearer {TOKEN}",), 400),
    "forwarded: X-Original-Authorization": ((f"X-Original-Authorization: Bearer {TOKEN}",), 400),
    "forwarded: Proxy-Authorization": ((f"Proxy-Authorization: Bearer {TOKEN}",), 400),
    "forwarded, beside a good one": ((f"Authorization: Bearer {TOKEN}", f"X-Forwarded-Authorization: Bearer {TOKEN}"), 400),
    "forwarded, of another scheme": (("X-Forwarded-Authorization: Basic YTpi",), 401),
    "an underscore for a hyphen": ((f"X_Authorization: Bearer {TOKEN}",), 400),
    "in a cookie": ((f"Cookie: token={TOKEN}",), 400),
    "in a cookie, beside a good one": ((f"Authorization: Bearer {TOKEN}", f"Cookie: a=b; token={TOKEN}"), 400),
    "a method override": ((f"Authorization: Bearer {TOKEN}", "X-HTTP-Method-Override: DELETE"), 400),
    "another method override": ((f"Authorization: Bearer {TOKEN}", "X-HTTP-Method: GET"), 400),
    "a target override": ((f"Authorization: Bearer {TOKEN}", "X-Original-URL: /health"), 400),
    "an override with underscores": ((f"Authorization: Bearer {TOKEN}", "X_HTTP_METHOD_OVERRIDE: DELETE"), 400),
    "an override with one underscore": ((f"Authorization: Bearer {TOKEN}", "X-Http_Method-Override: DELETE"), 400),
    "a forwarded method": ((f"Authorization: Bearer {TOKEN}", "X-Forwarded-Method: DELETE"), 400),
    "a forwarded target": ((f"Authorization: Bearer {TOKEN}", "X-Forwarded-Uri: /health"), 400),
    "an original method": ((f"Authorization: Bearer {TOKEN}", "X-Original-Method: DELETE"), 400),
    "an original target": ((f"Authorization: Bearer {TOKEN}", "X-Original-URI: /health"), 400),
    "a discharge header": ((f"Captoken-Discharge: {TOKEN}",), 400),
    "a proof for what is bound to no key": ((f"Authorization: Bearer {TOKEN}.{A_PROOF}",), 401),
    "a proof alone": ((f"Authorization: Bearer {A_PROOF}",), 401),
    "an empty proof": ((f"Authorization: Bearer {TOKEN}.cap1p_",), 401),
    "a proof that is none": ((f"Authorization: Bearer {TOKEN}.cap1p_AAAA",), 401),
    "a proof with a last bit set": ((f"Authorization: Bearer {TOKEN}.{A_PROOF[:-1]}B",), 401),
    "two proofs": ((f"Authorization: Bearer {TOKEN}.{A_PROOF}.{A_PROOF}",), 401),
    "a proof in front": ((f"Authorization: Bearer {A_PROOF}.{TOKEN}",), 401),
    "a proof behind a space": ((f"Authorization: Bearer {TOKEN} {A_PROOF}",), 400),
    "a proof in a header of its own": ((f"Authorization: Bearer {TOKEN}", f"Captoken-Proof: {A_PROOF}"), 400),
    "a proof in a header of its own, and no token": ((f"Captoken-Proof: {A_PROOF}",), 400),
    "a proof in a cookie": ((f"Authorization: Bearer {TOKEN}", f"Cookie: proof={A_PROOF}"), 400),
    "a text with a proof in a cookie": ((f"Cookie: token={TOKEN}.{A_PROOF}",), 400),
    "a text with a proof in another header": ((f"Authorization: Bearer {TOKEN}", f"X-Token: {TOKEN}.{A_PROOF}"), 400),
}  # fmt: skip


@pytest.mark.parametrize(("headers", "status"), HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_credentials_have_one_spelling(headers: tuple[bytes | str, ...], status: int, version: str, origin: str) -> None:
    statuses = (status,) if status else (400, 431)  # by the server's own limit, or by ours
    is_refusal(send(origin, "/sales", *headers, version=version), *statuses)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "get"])
def test_no_method_goes_without_a_token(method: str, origin: str) -> None:
    """A preflight either: what answers it stands outside, as Starlette's CORSMiddleware does."""
    asked = ("Origin: https://app.example", "Access-Control-Request-Method: GET") if method == "OPTIONS" else ()
    is_refusal(send(origin, "/sales", *asked, method=method), 401, 405, *((400,) if method == "get" else ()))


TARGETS = {
    "in the query": (f"/sales?access_token={TOKEN}", 400),
    "in the query, under another name": (f"/sales?a=1&t={TOKEN}", 400),
    "an empty parameter of that name": ("/sales?a=1&access_token=", 400),
    "behind a semicolon": ("/sales?a=1;access_token=x", 400),
    "an address": ("http://api.example/sales", 400),
    "an address of somebody else's": ("http://evil.example/sales", 400),
    "an address of the origin": (f"{ORIGIN}/sales", 400),
    "an asterisk": ("*", 400),
    "no slash": ("sales", 400),
}


@pytest.mark.parametrize(("target", "status"), TARGETS.values(), ids=TARGETS)
def test_a_target_is_a_path_and_has_no_token(target: str, status: int, origin: str, server: str) -> None:
    """Of an address some servers give the path alone: that is judged, and that is what runs."""
    is_refusal(send(origin, target), 400, 401)
    reply = send(origin, target, bearer())
    if server in CUTTING and "://" in target:
        assert (reply.status, SERVICE.reached) == (200, ["/sales"])
        return
    is_refusal(reply, status)


@pytest.mark.parametrize("target", ["/sales#x", "/sales?a=1#x", "/sales#", "/#/sales"])
def test_a_target_has_no_fragment(target: str, origin: str, server: str) -> None:
    reply = send(origin, target, bearer())
    if server in CUTTING:
        assert (reply.status, SERVICE.reached) == (200, [target.partition("#")[0].partition("?")[0]])
        return
    is_refusal(reply, 400)


CHUNKS = b"1\r\na\r\n0\r\n"


@pytest.mark.parametrize("secret", [f"Bearer {TOKEN}", f"Bearer {FORGED}", "Basic YTpi"], ids=["good", "forged", "of another scheme"])
@pytest.mark.parametrize("own", [False, True], ids=["alone", "beside a good one"])
def test_a_token_in_a_trailer_is_none(secret: str, own: bool, origin: str) -> None:
    """The request comes at once, so that a server that mixes has its trailers when the application begins."""
    lines = ["POST /echo HTTP/1.1", "Host: x", "Connection: close", *([bearer()] if own else []), "Transfer-Encoding: chunked"]
    data = "\r\n".join([*lines, "", ""]).encode() + CHUNKS + f"Authorization: {secret}\r\n\r\n".encode()
    reply = replies(exchange(origin, data))[0]
    if own and reply.status == 200:
        assert reply.body == b"a" and b"authorization" not in dict(SERVICE.seen[0]["headers"])
        return
    is_refusal(reply, 400, 401)


def test_a_token_in_front_of_a_body_in_chunks_is_taken(origin: str) -> None:
    for coding in ("{0}\r\nTransfer-Encoding: chunked", "{0}\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked"):
        head = f"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{coding.format(bearer())}\r\n\r\n"
        assert replies(exchange(origin, head.encode() + CHUNKS + b"\r\n"))[0].body == b"a"


@pytest.mark.parametrize("mixing", [False, True])
def test_where_trailers_are_shown_among_the_headers_a_token_is_taken_in_front_alone(
    mixing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvicorn does with httptools; elsewhere a client may put its headers in any order."""
    name = "uvicorn.protocols.http.httptools_impl"
    if mixing:
        assert name in sys.modules or importlib.import_module(name)  # what the guard goes by is there
    else:
        monkeypatch.delitem(sys.modules, name, raising=False)
    secret, coding = (b"authorization", f"Bearer {text()}".encode()), (b"transfer-encoding", b"chunked")
    for headers, status in (([secret, coding], 200), ([coding, secret], 400 if mixing else 200)):
        empty = [{"type": "http.request", "body": b"", "more_body": False}]
        assert in_process("/echo", scope={"headers": headers}, coming=empty)[0]["status"] == status


def test_a_word_in_a_query_is_no_token(origin: str) -> None:
    assert send(origin, "/sales?q=cap1_&about=access_token&xaccess_token=1", bearer()).status == 200


def test_a_token_in_a_form_is_refused_beside_a_good_one_and_alone(origin: str) -> None:
    form = "Content-Type: application/x-www-form-urlencoded"
    for body in (f"access_token={TOKEN}".encode(), f"a=b&access_token={TOKEN}".encode(), f"x={TOKEN}".encode()):
        is_refusal(send(origin, "/echo", form, method="POST", body=body), 401)
        is_refusal(send(origin, "/echo", form, bearer(), method="POST", body=body), 400)
    is_refusal(send(origin, "/echo", form, bearer(), method="POST", body=f"x={TOKEN}".replace("_", "%5F").encode()), 400)
    is_refusal(send(origin, f"/echo?x={TOKEN}".replace("_", "%5f"), bearer()), 400)
    assert send(origin, "/echo", form, bearer(), method="POST", body=b"a=b&c=d").body == b"a=b&c=d"
    SERVICE.reached.clear()
    is_refusal(send(origin, "/echo", form, bearer(), method="POST", body=b"a" * 5001), 413)


def without_id(told: str) -> str:
    """An answer without the id of its decision, which is random."""
    plain, ids = re.subn(r'"decision": "[A-Za-z0-9_-]{12}"', '"decision": ""', told)
    assert ids == 1
    return plain



def test_what_a_stranger_can_cause_is_told_as_one(origin: str, server: str) -> None:
    """Malformed, an unknown key and a bad signature give the same answer, to the byte; so does what was revoked."""
    strange = {
        "malformed": "cap1_AAAA",
        "no token": "eyJhbGciOiJub25lIn0.e30.",
        "bad signature": FORGED,
        "unknown key": Issuer(STRANGERS).mint(**WHO).present(audience="sales-api"),
    }
    told = {name: send(origin, "/sales", f"Authorization: Bearer {each}") for name, each in strange.items()}
    snapshots, key = MemorySnapshots(), OperatorKey.generate()
    Operator(key, snapshots, by="ops").revoke(token=HELD.token_id, why="lost")
    verifier = Verifier(KEYRING, audience="sales-api", overlay=Feed(snapshots, [key.public], every=0))
    with served(CaptokenMiddleware(SERVICE, verifier, origin=ORIGIN, realm="sales"), listening(), server) as other:
        told["revoked"] = send(other, "/sales", bearer())
    dateless = {name: (r.status, r.body, {k: v for k, v in r.headers.items() if k != "date"}) for name, r in told.items()}
    assert len({without_id(str(each)) for each in dateless.values()}) == 1, dateless
    assert told["revoked"].json == {
        "decision": told["revoked"].json["decision"],
        "type": "about:blank", "title": "Unauthorized", "status": 401, "detail": "The token was not accepted.",
        "error": "invalid_token", "error_description": "The token was not accepted.", "retry": "no",
        "for_model": "The credential was not accepted. Retrying with the same credential will not help. "
        "Ask whoever gave you this task for a new one.",
    }  # fmt: skip
    is_refusal(told["revoked"], 401)


@pytest.mark.parametrize(
    ("token", "status", "error"),
    [
        (HELD.present(audience="other-api", **DAY), 401, "invalid_token"),
        (HELD.serialize(), 401, "invalid_token"),
        (HELD.present(audience="sales-api", clock=lambda: 1_764_061_200), 401, "invalid_token"),
        (HELD.require(DischargerKey.generate().public, need={"a": 1}).present(audience="sales-api", **DAY), 401, "invalid_token"),
        (BOUND.present(audience="sales-api", **DAY), 401, "invalid_token"),
        (HELD.attenuate(delegate_only=True).present(audience="sales-api", **DAY), 403, "insufficient_scope"),
    ],
    ids=["for another server", "for no server", "expired", "without its discharge", "bound, without a proof", "for handing on"],
)
def test_a_genuine_token_that_is_no_good_here_is_told_why(token: str, status: int, error: str, origin: str) -> None:
    """The specification's rules 24.13 and 40.8."""
    reply = send(origin, "/sales", f"Authorization: Bearer {token}")
    is_refusal(reply, status)
    assert reply.json["error"] == error and f'error="{error}"' in reply.headers["www-authenticate"]


def test_each_code_is_told_as_far_as_its_sentence_tells_it_apart() -> None:
    """What 401's single message hides stays hidden; a retry is said to help where the model is told so."""
    refusals = Refusals("sales", None)
    genuine = Verifier(KEYRING, audience="sales-api").authenticate(text())
    single = {without_id(refusals.denied(Denied(genuine.deny(code, "because"))).body.decode()) for code in UNTOLD}
    assert len(single) == 1 and all(code not in str(single) for code in UNTOLD)
    access = Access(table="hr", operation="select", columns=["pay"], attributes={"risk": 7})
    for code in CODES.keys() - UNTOLD:
        told = msgspec.json.decode(refusals.denied(Denied(genuine.deny(code, "because of jane", access))).body)
        assert told["code"] == code and "jane" not in str(told) and "risk" not in str(told)
        wider = code in ("table", "operation", "column", "row", "tool", "argument", "domain")
        assert told.get("needed") == ({"allow": {"hr": ["select"]}, "columns": {"hr": ["pay"]}} if wider else None)
        assert (told["retry"] != "no") == ("retry can help" in told["for_model"] or "Retry with a fresh proof" in told["for_model"]
            or "Present the credential again" in told["for_model"]), told  # fmt: skip


def test_what_was_needed_is_told_only_where_a_wider_token_would_have_done() -> None:
    refusals = Refusals("sales", None)
    genuine = Verifier(KEYRING, audience="sales-api").authenticate(text())
    unstated, pay = SELECT, Access(tool="pay", arguments={"cents": 7, "to": "a" * 300})
    for code, access, needed in (
        ("column", unstated, None),
        ("domain", None, None),
        ("table", unstated, {"allow": {"sales": ["select"]}}),
        ("argument", pay, {"tools": {"pay": {"cents": {"in": [7]}, "to": {"any": True}}}}),
    ):
        told = msgspec.json.decode(refusals.denied(Denied(genuine.deny(code, "because", access))).body)
        assert told.get("needed") == needed


UNTOLD = {"malformed", "unsupported_version", "unknown_key", "bad_signature", "revoked"}


def test_no_credentials_are_told_the_scheme_and_no_error(origin: str) -> None:
    reply = send(origin, "/sales")
    assert reply.headers["www-authenticate"] == 'Bearer realm="sales"' and "error" not in reply.json


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


def test_a_body_that_is_too_long_is_not_read_to_its_end(origin: str) -> None:
    is_refusal(send(origin, "/echo", proven("/echo", "POST", b"x" * 5001), method="POST", body=b"x" * 5001), 413)
    assert len(send(origin, "/echo", bearer(), method="POST", body=b"x" * 100_000).body) == 100_000  # nobody else's is held


def test_a_strangers_body_is_not_waited_for(origin: str) -> None:
    """One who has no genuine token cannot make the server hold a body: the answer comes with most of it outstanding."""
    lines = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\nConnection: close\r\n{}\r\n\r\nx"
    answered = exchange(origin, lines.format(f"Authorization: Bearer {FORGED}.{A_PROOF}").encode())
    is_refusal(replies(answered)[0], 401)


def dead() -> dict[str, tuple[str, Verifier]]:
    """Tokens that are no good but for their signature, each with a verifier that says so."""
    key, store = OperatorKey.generate(), MemorySnapshots()
    operator = Operator(key, store, by="ops@example")
    operator.renew()
    operator.revoke(token=BOUND.token_id, why="lost")
    operator.revoke(token=HELD.token_id, why="lost")
    replays = MemoryReplayStore(floor=0)
    overlaid = Verifier(
        KEYRING, audience="sales-api", replays=replays, overlay=lambda: Overlay.open(store.load(), [key.public])
    )
    late = Verifier(KEYRING, audience="sales-api", replays=replays, clock=lambda: time() + 10_000)
    plain = Verifier(KEYRING, audience="sales-api", replays=replays)
    return {
        "forged": (FORGED, plain),
        "revoked": (text(BOUND), overlaid),
        "revoked, bound to no key": (text(), overlaid),
        "expired": (text(BOUND), late),
        "for another server": (BOUND.present(audience="hr-api"), plain),
        "bound to no key": (text(), plain),
    }


@pytest.mark.parametrize("kind", dead())
def test_a_dead_token_holds_no_body_and_is_answered_like_a_forged_one(kind: str) -> None:
    """Neither by what is waited for nor by what is told apart: a body that is too long is 413 to good tokens alone."""
    token, verifier = dead()[kind]
    headers = [(b"authorization", f"Bearer {token}.{A_PROOF}".encode())]
    for size in (1, 60):
        pieces = [{"type": "http.request", "body": b"x" * size, "more_body": True}]  # and nothing after it
        start, body = in_process("/echo", scope={"headers": headers}, verifier=verifier, coming=pieces, max_body=100)
        assert start["status"] == 401 and (kind not in ("forged", "revoked") or b"was not accepted" in body["body"])
    assert SERVICE.reached == []


@pytest.mark.parametrize("raising", [False, True])
def test_an_error_page_that_hides_a_denial_is_not_what_is_answered(raising: bool) -> None:
    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        try:
            current.grant().authorize(Access(table="hr" if raising else "sales", operation="select"))
        finally:
            await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body", "body": b"<h1>why</h1>"})

    start, body = in_process("/sales", app=mounted)
    assert (start["status"], b"why" in body["body"]) == ((403, False) if raising else (500, True))


def test_hints_ahead_of_a_response_do_not_begin_it() -> None:
    async def hinting(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.early_hint", "links": []})
        current.grant().authorize(Access(table="hr", operation="select"))

    assert in_process("/hr", app=hinting)[1]["status"] == 403


def test_denials_in_a_group_are_a_denial_and_a_fault_among_them_is_none() -> None:
    async def grouped(scope: Any, receive: Any, send: Any) -> None:
        async def look(table: str) -> None:
            if table == "fault":
                raise LookupError(table)
            current.grant().authorize(Access(table=table, operation="select"))

        async with asyncio.TaskGroup() as group:
            for table in scope["path"].strip("/").split("/"):
                group.create_task(look(table))

    assert in_process("/sales/hr/salaries", app=grouped)[0]["status"] == 403
    with pytest.raises(ExceptionGroup):
        in_process("/hr/fault", app=grouped)


def test_a_client_that_goes_in_the_middle_of_its_body_reaches_nothing(origin: str) -> None:
    lines = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n{}\r\n\r\nx"
    host, _, port = origin.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(lines.format(proven("/echo", "POST", b"x")).encode())
    assert send(origin, "/sales", bearer()).status == 200
    assert SERVICE.reached == ["/sales"]


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


def test_a_refusal_of_head_has_no_body_but_the_length_of_one() -> None:
    start, body = in_process("/sales", bearer=False, scope={"method": "HEAD"})
    assert body["body"] == b"" and int(dict(start["headers"])[b"content-length"]) > 0


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
    "metadata in the clear": ({"resource_metadata": "http://api.example/x"}, ValueError),
    "metadata with a quote": ({"resource_metadata": 'https://api.example/"'}, ValueError),
}


@pytest.mark.parametrize(("given", "error"), WRONG.values(), ids=WRONG)
def test_a_guard_that_is_built_wrongly_is_not_built(given: dict[str, Any], error: type[Exception]) -> None:
    given = {"verifier": Verifier(KEYRING), "origin": ORIGIN, **given}
    with pytest.raises(error):
        CaptokenMiddleware(SERVICE, given.pop("verifier"), **given)


# --- RFC 9728 --------------------------------------------------------------------------------------------------------


def test_the_metadata_is_served_and_named_in_each_challenge() -> None:
    told = {"authorization_servers": ["https://issuer.example"], "resource": "https://evil.example"}
    app = CaptokenMiddleware(SERVICE, Verifier(KEYRING), origin=ORIGIN, resource_metadata=told)
    with served(app, listening()) as origin:
        reply = send(origin, "/.well-known/oauth-protected-resource")
        assert reply.json == {
            "resource": ORIGIN, "authorization_servers": ["https://issuer.example"], "bearer_methods_supported": ["header"],
        }  # fmt: skip
        named = f'Bearer realm="{ORIGIN}", resource_metadata="{ORIGIN}/.well-known/oauth-protected-resource"'
        assert send(origin, "/sales").headers["www-authenticate"] == named
        assert send(origin, "/sales", bearer()).headers["www-authenticate"].startswith(named + ', error="invalid_token"')
        assert send(origin, "/.well-known/oauth-protected-resource", method="POST").status == 401
        assert send(origin, "/.well-known/oauth-protected-resource", method="HEAD").status == 200
    assert SERVICE.reached == []


def test_the_metadata_can_be_elsewhere() -> None:
    start, _ = in_process("/sales", bearer=False, resource_metadata="https://meta.example/sales")
    assert b'resource_metadata="https://meta.example/sales"' in dict(start["headers"])[b"www-authenticate"]


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


def test_whatever_is_written_into_the_headers_only_the_good_one_goes() -> None:
    """Two thousand headers, each a good one with something done to it: refused with a status, and nothing raised."""
    random = Random(7)
    good = f"Bearer {TOKEN}".encode()
    names = [b"authorization"] * 6 + [
        b"x-captoken-proof",
        b"cookie",
        b"x-forwarded-authorization",
        b"traceparent",
        b"content-type",
    ]

    def spoiled() -> bytes:
        value = bytearray(good)
        for _ in range(random.randint(1, 3)):
            at, until = sorted(random.choices(range(len(value) + 1), k=2))
            byte = random.choice([*b' \t,;=%"\x00\x7f\x80\xff', random.randrange(256)])
            random.choice([
                lambda at=at, byte=byte: value.insert(at, byte),
                lambda at=at, byte=byte: value.__setitem__(slice(at, at + 1), bytes([byte])),
                lambda at=at, until=until: value.__delitem__(slice(at, until)),
                lambda at=at, until=until: value.extend(value[at:until]),
            ])()  # fmt: skip
        return bytes(value)

    seen: set[int] = set()
    for _ in range(2000):
        headers = [(random.choice(names), spoiled()) for _ in range(random.randint(1, 2))]
        if good in [value for name, value in headers if name == b"authorization"]:
            continue  # undone again
        seen.add(in_process("/sales", scope={"headers": headers})[0]["status"])
        assert SERVICE.reached == [], headers
    assert {400, 401} <= seen <= {400, 401, 431}


def test_a_client_of_httpx_in_one_process() -> None:
    """httpx's own transport for ASGI applications, which tests of services use."""

    async def run() -> httpx.Response:
        app = CaptokenMiddleware(SERVICE, Verifier(KEYRING, audience="sales-api"), origin=ORIGIN)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ORIGIN) as client:
            return await client.get("/sales", headers={"Authorization": f"Bearer {text()}"})

    assert asyncio.run(run()).text == "served"


def test_the_size_of_what_is_measured_is_that_of_the_largest_token() -> None:
    assert len("Bearer ") + 32_768 == _http.CREDENTIALS_BYTES
