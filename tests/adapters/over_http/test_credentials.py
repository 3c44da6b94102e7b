"""The token of one HTTP request: in one place, in one spelling, and not where others might read it."""

from __future__ import annotations

import importlib
import sys
from random import Random

import pytest

from tests.adapters.over_http.test_asgi import A_PROOF, FORGED, ORIGIN, SERVICE, TOKEN, bearer, in_process, is_refusal, text
from tests.adapters.serving import CUTTING, exchange, replies, send

HALF = len(TOKEN) // 2


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
