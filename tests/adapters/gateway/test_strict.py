"""What is judged is what is sent: requests that two readers read differently are refused, and each has a twin that arrives equal.

Real services, each with a parser of its own, in processes of their own: h11, Node's http with `CAPTOKEN_NODE`, and Go's net/http with `CAPTOKEN_GO`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from captoken import AsyncVerifier, Issuer, Keyring
from captoken.adapters.gateway import Gateway, configured
from captoken.audit.trail import AuditTrail
from tests import longer
from tests.adapters.gateway_echo import KEY, READERS, dotted, echoing, text
from tests.adapters.serving import exchange, listening, replies, served

OPERATIONS = """
[service.{name}]
url = "{url}"
credential = "file:key"
headers = {{ "{name}-Account" = "argument", "{name}-Version" = "7", "{name}-Noise" = "drop" }}
lists = "indices"
[service.{name}.operations."items.get"]
request = "GET /v1/items/{{id}}"
query = {{ q = "string", limit = "integer", tags = ["string"], live = "boolean" }}
lists = "repeat"
[service.{name}.operations."items.count"]
request = "GET /v1/items/count"
[service.{name}.operations."items.create"]
request = "POST /v1/items"
json = {{ name = "string", amount = "integer", big = "int64", rate = "number", live = "boolean", shipping = {{ city = "string" }}, items = [{{ price = "string", count = "integer" }}], tags = ["string"], metadata = "any" }}
[service.{name}.operations."refunds.create"]
request = "POST /v1/refunds/{{charge}}"
form = {{ amount = "integer", reason = "string", live = "boolean", expand = ["string"], shipping = {{ city = "string" }}, metadata = "any" }}
[service.{name}.operations."files.put"]
request = "PUT /v1/files/{{path}}"
path = {{ path = "segments" }}
json = {{ text = "string" }}
[service.{name}.operations."open.create"]
request = "POST /v1/open"
form = {{ Amount = "integer" }}
more = true
"""


class World(NamedTuple):
    """A gateway before services, and what it decided."""

    origin: str
    tokens: dict[str, str]
    records: list[dict[str, Any]]
    gateway: Gateway

    def send(self, raw: bytes, service: str, timeout: float = 20) -> tuple[int, Any]:
        """One request as it stands, with the token of the service in the place of TOKEN: status, and what came back.

        Status 0: nothing, as the gateway waits for more of it.
        """
        raw = raw.replace(b"TOKEN", self.tokens[service].encode()).replace(b"SERVICE", service.encode())
        try:
            answers = replies(exchange(self.origin, raw, timeout))
        except TimeoutError:
            return 0, b""
        assert len(answers) <= 1, "one request was taken for two"
        return (answers[0].status, answers[0].body) if answers else (0, b"")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    (folder / "key").touch(0o600)
    (folder / "key").write_text(KEY)
    keyring = Keyring.generate()
    keyring.save(folder / "keyring.json")
    records: list[dict[str, Any]] = []

    def write(line: bytes) -> None:
        records.extend(map(json.loads, line.splitlines()))

    with ExitStack() as stack:
        urls = {reader: stack.enter_context(echoing(reader)) for reader in READERS}
        tables = "".join(OPERATIONS.format(name=name, url=url) for name, url in urls.items())
        (folder / "gateway.toml").write_text('version = 1\n[gateway]\nkeyring = "keyring.json"\n' + tables)
        found = configured(str(folder / "gateway.toml"))
        trail = AuditTrail(write, values=True)
        gateway = Gateway(found, {name: AsyncVerifier(keyring, name, audit=trail) for name in urls})
        tokens = {
            name: Issuer(keyring)
            .mint(subject="user:jane", agent="tester", task="t", audience=name, tools={f"{name}.*": {}}, expires_in=3600)
            .present(audience=name, expires_in=3600)
            for name in urls
        }
        origin = stack.enter_context(served(gateway, listening(), lifespan="on"))
        yield World(origin, tokens, records, gateway)


# --- requests by hand -----------------------------------------------------------------------------


def request(target: str | bytes, method: str = "GET", *headers: str | bytes, body: str | bytes = b"", kind: str = "", version: str = "1.1") -> bytes:
    """The bytes of a request. It has the token, and a length, unless its headers say something of either."""
    raw = body if isinstance(body, bytes) else body.encode()
    lines = [f"{method} ".encode() + (target if isinstance(target, bytes) else target.encode()) + f" HTTP/{version}".encode(), b"Host: gateway.example", b"Connection: close"]
    given = [each if isinstance(each, bytes) else each.encode("latin-1") for each in headers]
    named = {each.partition(b":")[0].strip().lower() for each in given}
    if b"authorization" not in named:
        lines.append(b"Authorization: Bearer TOKEN")
    if kind:
        lines.append(b"Content-Type: " + kind.encode())
    if raw and not named & {b"content-length", b"transfer-encoding"}:
        lines.append(b"Content-Length: %d" % len(raw))
    return b"\r\n".join([*lines, *given]) + b"\r\n\r\n" + raw


def get(tail: str | bytes = b"", *headers: str | bytes, item: str | bytes = b"7", method: str = "GET") -> bytes:
    parts = [each if isinstance(each, bytes) else each.encode() for each in (item, tail)]
    return request(b"/SERVICE/v1/items/" + parts[0] + parts[1], method, *headers)


def post(body: str | bytes, *headers: str | bytes, kind: str = "application/json") -> bytes:
    return request("/SERVICE/v1/items", "POST", *headers, body=body, kind=kind)


FORM = "application/x-www-form-urlencoded"


def form(body: str | bytes, *headers: str | bytes, kind: str = FORM, at: str = "/SERVICE/v1/refunds/ch_1") -> bytes:
    return request(at, "POST", *headers, body=body, kind=kind)


def chunked(body: bytes, *headers: str) -> bytes:
    return form(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body), *(headers or ("Transfer-Encoding: chunked",)))


AMOUNT = b"amount=500"
FRAMING = {
    "length and chunked": form(AMOUNT, "Content-Length: 10", "Transfer-Encoding: chunked"),
    "chunked and length": form(b"a\r\namount=500\r\n0\r\n\r\n", "Transfer-Encoding: chunked", "Content-Length: 10"),
    "two lengths": form(AMOUNT, "Content-Length: 10", "Content-Length: 11"),
    "two lengths in one": form(AMOUNT, "Content-Length: 10, 11"),
    "a length with a sign": form(AMOUNT, "Content-Length: +10"),
    "a negative length": form(AMOUNT, "Content-Length: -1"),
    "a length in hex": form(AMOUNT, "Content-Length: 0xa"),
    "a length with a space": form(AMOUNT, "Content-Length: 1 0"),
    "chunked twice": chunked(AMOUNT, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "chunked, chunked": chunked(AMOUNT, "Transfer-Encoding: chunked, chunked"),
    "gzip, chunked": chunked(AMOUNT, "Transfer-Encoding: gzip, chunked"),
    "identity": form(AMOUNT, "Transfer-Encoding: identity"),
    "xchunked": chunked(AMOUNT, "Transfer-Encoding: xchunked"),
    "a vertical tab": chunked(AMOUNT, "Transfer-Encoding: \x0bchunked"),
    "a space before the colon": chunked(AMOUNT, "Transfer-Encoding : chunked"),
    "a name with a tab": chunked(AMOUNT, "Transfer-Encoding\t: chunked"),
    "a chunk of no size": form(b"\r\namount=500\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    "a chunk in 0x": form(b"0xa\r\namount=500\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    "a chunk with a sign": form(b"+a\r\namount=500\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    "a chunk that lies": form(b"5\r\namount=500\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    "a second host": get("", "Host: other.example"),
    "a header without a colon": get("", "nothing here"),
    "a header with a bare CR": get("", b"X-A: b\rX-C: d"),
    "a header with NUL": get("", b"X-A: b\0c"),
    "an upgrade": get("", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
    "trailers announced": chunked(AMOUNT, "Transfer-Encoding: chunked", "Trailer: X-Amount"),
    "a coding": form(AMOUNT, "Content-Encoding: gzip"),
    "two codings": form(AMOUNT, "Content-Encoding: identity", "Content-Encoding: gzip"),
}
_HIDDEN = [
    "%2f", "%2F", "%5c", "%5C", "%00", "%25", "%252f", "%3b", "%3B", ";", ";x=1", "\\", "%0a", "%0d%0a", "%09", "%7f", "%", "%z1", "%1", "%c0%af", "%c0%ae",
    "%e0%80%af", "%ff", "%ed%a0%80", "\x80", "ä", "[", "]", "{", "}", "|", "^", "`", '"', "<", ">", "//", "/", "/.", "/..", "/../count", "/./", "/%2e",
    "/%2e%2e", "/%2E.", "/.%2e/count", "/%2e%2e/refunds", "/..;/count", "#x",
]  # fmt: skip
PATHS = {f"{hidden!r} {where}": get(item=item) for hidden in _HIDDEN for where, item in (("behind", f"7{hidden}"), ("before", f"{hidden}7"), ("within", f"7{hidden}8"))} | {
    "a whole address": request("http://other.example/SERVICE/v1/items/7"),
    "an authority": request("gateway.example:80"),
    "a star": request("*", "OPTIONS"),
    "no slash": request("SERVICE/v1/items/7"),
    "two slashes first": request("//SERVICE/v1/items/7"),
    "an escaped service": request("/%53ERVICE/v1/items/7"),
    "no service": request("/v1/items/7"),
    "dots before the service": request("/../SERVICE/v1/items/7"),
    "dots out of the service": request("/SERVICE/../SERVICE/v1/items/7"),
    "a slash at the end": request("/SERVICE/v1/items/7/"),
    "nothing behind the service": request("/SERVICE"),
    "a file with dots": request("/SERVICE/v1/files/a/../b", "PUT", body='{"text":"x"}', kind="application/json"),
    "a file with an escaped slash": request("/SERVICE/v1/files/a%2fb", "PUT", body='{"text":"x"}', kind="application/json"),
    "a file with an empty segment": request("/SERVICE/v1/files/a//b", "PUT", body='{"text":"x"}', kind="application/json"),
    "a file that is a folder": request("/SERVICE/v1/files/a/", "PUT", body='{"text":"x"}', kind="application/json"),
    "no file": request("/SERVICE/v1/files/", "PUT", body='{"text":"x"}', kind="application/json"),
}
# As a field of a query, and of a form: one reader takes the first of two, and another one the last.
_FIELDS = [
    "live=true&live=true", "live=true&%6cive=false", "live=true&LIVE=false", "Live=true", "li%76e=true&live=true", "live=True", "live=1", "live=yes", "live=",
    "live", "=true", "&", "live=true&", "&live=true", "live=true&&", "live=true;live=false", "live=true;x", "live=%", "live=%7", "live=%zz", "live=\x80",
    "live=ä", "live=%ff", "live=%c0%ae", "live[=true", "live]=true", "live[]=true", "live[0]=true", "[live]=true", "live[a]=true", "other=1", "_method=DELETE",
    "live=true#x", "live=tr%00ue", "live%00=true", "live+=true", "+live=true", " live=true", "live =true", "%E2%84%AA=1", "l\u0131ve=true", "a.b=1",
    "__proto__[live]=true", "constructor=1", "live=true\tx", "live=<true>", 'live="true"', "live=true|", "live=\\u0074rue", "live=^", "live[live]=1&live=true",
]  # fmt: skip
_INTEGERS = ["+5", "05", "00", "-0", "5.0", "5.", ".5", "5e0", "1e3", "0x5", "0b1", "0o7", "5_0", "5 ", " 5", "5%20", "%205", "", "--5", "5-", "%EF%BC%95", "%D9%A5", "5,0", "5a", "NaN", "Infinity", "null", "9007199254740992", "-9007199254740992", "9" * 33, "5%00", "5%0a"]
QUERIES = {f"?{each}": get("?" + each) for each in _FIELDS} | {f"?limit={each}": get("?limit=" + each) for each in _INTEGERS} | {
    "?tags[]=": get("?tags[]=a"), "?tags[0]=": get("?tags[0]=a"), "?q twice": get("?q=a&q=b"), "?Q": get("?Q=a"), "?q in another case beside": get("?q=a&Q=b"),
}  # fmt: skip
FORMS = {each: form(each) for each in _FIELDS} | {f"amount={each}": form("amount=" + each) for each in _INTEGERS} | {
    "Amount": form("Amount=900"), "amount, AMOUNT": form("amount=1&AMOUNT=900"), "amount twice": form("amount=1&amount=900"),
    "expand without an index": form("expand=a"), "expand out of order": form("expand[1]=a"), "expand with a gap": form("expand[0]=a&expand[2]=b"),
    "expand twice": form("expand[0]=a&expand[0]=b"), "expand with 00": form("expand[00]=a"), "expand as an object": form("expand[x]=a"),
    "expand in expand": form("expand[0][0]=a"), "shipping as a text": form("shipping=x"), "shipping in another case": form("shipping[City]=x"),
    "shipping twice": form("shipping[city]=x&shipping[city]=y"), "shipping as a list": form("shipping[]=x"), "shipping with more": form("shipping[zip]=1"),
    "shipping as both": form("shipping[city]=x&shipping="), "a city with members": form("shipping[city][a]=x"), "metadata twice": form("metadata[a]=1&metadata[a]=2"),
    "metadata in two cases": form("metadata[a]=1&metadata[A]=2"), "metadata as both": form("metadata=&metadata[a]=1"), "metadata too deep": form("metadata" + "[a]" * 9 + "=1"),
    "in utf-16": form("amount=500", kind=f"{FORM}; charset=utf-16"), "in latin-1": form("amount=500", kind=f"{FORM}; charset=iso-8859-1"),
    "with a boundary": form("amount=500", kind=f"{FORM}; boundary=x"), "as a multipart": form("--x\r\n", kind="multipart/form-data; boundary=x"),
    "as a text": form("amount=500", kind="text/plain"), "as JSON": form('{"amount":500}', kind="application/json"), "of no kind": form("amount=500", kind=""),
    "of two kinds": form("amount=500", "Content-Type: application/json"), "of a kind with a tab": form("amount=500", kind="application/x-www-form-urlencoded\t,application/json"),
    "open: in another case": form("amount=900", at="/SERVICE/v1/open"), "open: beside it": form("Amount=1&amount=900", at="/SERVICE/v1/open"),
    "open: a method": form("_method=delete&Amount=1", at="/SERVICE/v1/open"), "open: a full stop": form("a.b=1", at="/SERVICE/v1/open"),
    "open: twice in two cases": form("x=1&X=2", at="/SERVICE/v1/open"),
}  # fmt: skip
_JSON = [
    '{"amount":1,"amount":900}', '{"amount":1,"Amount":900}', '{"amount":1,"am\\u006funt":900}', '{"AMOUNT":1}', '{"name":"a","n\u0061me":"b"}', '{"\u212aey":1}',
    '{"live":true,"li\u017fve":false}', '{"tag\u017f":["a"]}', '{"metadata":{"a":1,"a":2}}', '{"metadata":{"a":1,"A":2}}', '{"metadata":{"k":1,"\u212a":2}}',
    '{"metadata":[{"a":1,"A":2}]}', '{"shipping":{"city":"a","city":"b"}}', '{"shipping":{"City":"a"}}', '{"shipping":{"zip":"1"}}', '{"shipping":[]}', '{"shipping":"x"}',
    '{"items":{}}', '{"items":[1]}', '{"items":[{"Price":"1"}]}', '{"items":[{"price":"1","price":"2"}]}', '{"items":[{"price":1}]}', '{"items":[[]]}', '{"tags":"a"}', '{"tags":[1]}',
    '{"tags":[["a"]]}', '{"other":1}', '{"__proto__":{"amount":1}}', '{"constructor":1}', '{"a.b":1}', '{"shipping.city":"x"}', '{"":1}', '{"amount":"5"}', '{"amount":5.0}', '{"amount":5e0}',
    '{"amount":true}', '{"amount":[5]}', '{"amount":{"a":5}}', '{"amount":NaN}', '{"amount":Infinity}', '{"amount":-Infinity}', '{"amount":05}', '{"amount":+5}', '{"amount":0x5}', '{"amount":5.}',
    '{"amount":.5}', '{"amount":9007199254740992}', '{"amount":-9007199254740992}', '{"big":9223372036854775808}', '{"big":1e3}', '{"rate":1e400}', '{"rate":-1e400}', '{"rate":0.1000000000000000055}',
    '{"rate":9007199254740993.0}', '{"rate":"1"}', '{"rate":1.00000000000000000000000000000000001}', '{"rate":9007199254740992}', '{"metadata":9007199254740993}', '{"metadata":{"a":[1e400]}}',
    '{"metadata":0.30000000000000004440892098500626}', '{"live":1}', '{"live":"true"}', '{"live":True}', '{"name":1}', '{"name":["a"]}', "{'name':'a'}", '{name:"a"}', '{"name":"a",}', '{"name":"a"}}',
    '{"name":"a"}{"name":"b"}', '{"name":"a"}\0', '[{"name":"a"}]', '"name"', "7", '{"name":"a" /* b */}', '{"name":"a"} // b', '{"name":"a\nb"}', '{"name":"a\tb"}', '{"name":"\\x61"}',
    '{"name":"\\ud800"}', '{"name":"\\udc00\\ud800"}', '{"name":"a\\u0000b"}', '{"n\\u0000ame":"a"}', '{"metadata":{"a\\u0000":1}}', '{"metadata":"\\u0000"}', "\ufeff" + '{"name":"a"}', "", " ", "{", "nul", "{}{}",
    '{"name":"a"', '{"metadata":' + "[" * 2000 + "]" * 2000 + "}", '{"amount":' + "1" * 5000 + "}", "amount=500",
]  # fmt: skip
BODIES = {each[:70]: post(each or b" ") for each in _JSON} | {
    "in utf-16": post('{"name":"a"}'.encode("utf-16")), "in utf-16 by name": post('{"name":"a"}', kind="application/json; charset=utf-16"),
    "in utf-7 by name": post('{"name":"a"}', kind="application/json; charset=utf-7"), "in latin-1": post('{"name":"ä"}'.encode("latin-1")),
    "overlong": post(b'{"name":"\xc0\xaf"}'), "as a form": post("name=a", kind=FORM), "as a text": post('{"name":"a"}', kind="text/plain"),
    "as a vendor's": post('{"name":"a"}', kind="application/vnd.api+json"), "of two kinds": post('{"name":"a"}', "Content-Type: text/plain"), "with a get": request("/SERVICE/v1/items/7", "GET", body='{"name":"a"}', kind="application/json"),
    "a get with a form": request("/SERVICE/v1/items/7", "GET", body="q=a", kind=FORM), "too long": post('{"name":"' + "a" * 300_000 + '"}'),
    "crowded": post('{"metadata":[' + "[]," * 20_000 + "[]]}"),
}  # fmt: skip
HEADERS = {
    f"{name}": get("", f"{name}: {value}")
    for name, value in [
        ("X-HTTP-Method-Override", "DELETE"), ("X-HTTP-Method", "DELETE"), ("X-Method-Override", "DELETE"), ("X-Original-URL", "/v1/x"), ("X-Rewrite-URL", "/v1/x"),
        ("X-Original-URI", "/v1/x"), ("X-Forwarded-Method", "DELETE"), ("X-Forwarded-URI", "/x"), ("X_HTTP_Method_Override", "DELETE"), ("x-original_url", "/x"),
        ("If-Match", "a"), ("If-None-Match", "*"), ("If-Modified-Since", "x"), ("If-Unmodified-Since", "x"), ("If-Range", "a"), ("Range", "bytes=0-"), ("Trailer", "X-A"),
        ("Proxy-Authorization", "Basic eDp5"), ("SERVICE-Other", "x"), ("X-SERVICE-Other", "x"), ("SERVICE-ACCOUNT", "a\r\nSERVICE-Account: b"), ("Authorization", "Bearer TOKEN\r\nAuthorization: Bearer TOKEN"),
        ("Authorization", "bearer TOKEN"), ("Authorization", "Bearer  TOKEN"), ("Authorization", "Bearer TOKEN,Bearer x"), ("Cookie", "access=TOKEN"), ("X-Token", "TOKEN"), ("Upgrade", "websocket"),
        ("SERVICE-Account", "a\x80b"), ("SERVICE-Account", "a\tb"),
    ]
} | {f"Authorization {n}": get("", each) for n, each in enumerate(("Authorization: Bearer", "Authorization: ", "Authorization: Basic eDpUT0tFTg==", "Proxy-Connection: x\r\nAuthorization: Token TOKEN"))}  # fmt: skip
METHODS = {each: get(method=each) for each in ("get", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "GETT", "G-ET", "get\t")} | {
    "a token in the query": get("?access_token=TOKEN"), "a token as q": get("?q=TOKEN"),
    "a fragment": get("#x"), "1.0 with chunked": request("/SERVICE/v1/refunds/ch_1", "POST", "Transfer-Encoding: chunked", body=b"a\r\namount=500\r\n0\r\n\r\n", kind=FORM, version="1.0").replace(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nContent-Length: 3"),
}  # fmt: skip
CLASSES = {"framing": FRAMING, "path": PATHS, "query": QUERIES, "form": FORMS, "json": BODIES, "header": HEADERS, "method": METHODS}

# What each of them could have been, and is let through.
TWINS = {
    "framing": [form(AMOUNT), chunked(AMOUNT), form(b"5;x=y\r\namoun\r\n5\r\nt=500\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), get("", "X-A: b"), form(AMOUNT, "Content-Length: 10"), form(AMOUNT, "Content-Encoding: identity")],
    "path": [get(item=each) for each in ("7", "%37", "a%20b", "%C3%A4", "~", "a.b", "a..b", "...", "a:b", "a@b", "a,b", "a+b", "(a)", "a=b&c", "$a", "a*!'", "%F0%9F%98%80", "%3F", "%23", "%5B%5D", "count", "%22", "%7B")]
    + [request(f"/SERVICE/v1/files/{each}", "PUT", body='{"text":"x"}', kind="application/json") for each in ("a", "a/b", "a/b%20c/%C3%A4", "...", "a:b/c+d")],
    "query": [get("?" + each) for each in ("", "q=", "q=a", "q=a+b", "q=a%20b", "q=%26%3D%3B%23", "%71=a", "q=%C3%A4", "limit=5", "limit=-5", "limit=0", "limit=9007199254740991", "live=true", "live=false", "tags=a", "tags=a&tags=b&q=c&tags=d", "q=a[b]", "q=%0a")],
    "form": [form(each) for each in ("amount=500", "reason=a+b&amount=1", "reason=%C3%A4%26%3D", "expand[0]=a&expand[1]=b", "expand[]=a&expand[]=b", "expand%5B0%5D=a", "shipping[city]=x", "metadata[a]=1&metadata[b]=2", "metadata[a][b]=1", "metadata=", "reason=%3B;".rstrip(";"), "live=true")]
    + [form("amount=500", kind=f"{FORM}; charset=UTF-8"), form("amount=5", kind=FORM.upper()), form("Amount=1&other=x&more[a]=b", at="/SERVICE/v1/open"), form("", kind="")],
    "json": [post(each) for each in ('{"name":"a"}', '{"name":"\\u00e4\\n\\t\\"\\\\/"}', '{"name":"ä"}', '{"amount":-5,"rate":0.5,"live":false}', '{"rate":1e3}', '{"rate":-0.0}', '{"rate":2.50}', '{"amount":-0}', '{"big":9223372036854775807}', '{"big":-9223372036854775808}', '{"shipping":{"city":"x"}}', '{"items":[{"price":"1","count":2},{"price":"3"}]}', '{"tags":["a","b"]}', '{"tags":[]}', '{"items":[]}', '{"shipping":{}}', '{"metadata":{"a":[1,{"b":null}],"c":0.25}}', '{"name":null}', '{"items":[{"price":null}]}', "{}", '{"name":"\\ud83d\\ude00"}', ' { "name" : "a" } ')]
    + [post('{"name":"a"}', kind="application/json; charset=utf-8"), post('{"name":"a"}', kind='Application/JSON;charset="UTF-8"')],
    "header": [get("", each) for each in ("SERVICE-Account: acct_1", "SERVICE-Version: 9", "SERVICE-Noise: x", "Accept: application/json, */*", "User-Agent: stripe/1.0", "X-Other: x", "Cookie: a=b", "Accept-Encoding: gzip", "TE: trailers", "Date: x")],
    "method": [get(), form("amount=1"), request("/SERVICE/v1/items/count"), request("/SERVICE/v1/items/7", version="1.0")],
}  # fmt: skip


def allowed(world: World) -> list[dict[str, Any]]:
    return [record for record in world.records if record.get("access") and record["allowed"]]


def test_there_are_enough_of_them() -> None:
    assert sum(map(len, CLASSES.values())) >= 500 and CLASSES.keys() == TWINS.keys()
    assert all(len(TWINS[name]) >= 4 for name in CLASSES)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_request_that_two_readers_could_read_differently_opens_no_connection(world: World, kind: str) -> None:
    """Not one byte of it gets to a service, and none is allowed."""
    before = len(allowed(world))
    opened = world.gateway.opened
    wrong = {}
    for name, raw in CLASSES[kind].items():
        status, body = world.send(raw, "h11", 2 if kind == "framing" else 20)
        if not 400 <= status < 500 and status != 0:
            wrong[name] = (status, body[:200])
    assert not wrong
    assert world.gateway.opened == opened
    assert len(allowed(world)) == before


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", TWINS)
def test_its_twin_arrives_as_it_was_judged(world: World, kind: str, reader: str) -> None:
    for raw in TWINS[kind]:
        check_arrives(world, raw, reader)


def check_arrives(world: World, raw: bytes, reader: str) -> None:
    """What the service understood is what was judged: by its own parser, and named here by other code than the gateway's."""
    status, body = world.send(raw, reader)
    assert status == 200, (raw, status, body)
    seen, judged = json.loads(body), world.records[-1]["access"]
    assert world.records[-1]["code"] == "allowed"
    arguments = {name: unmarked(value) for name, value in judged.get("arguments", {}).items()}
    assert judged["tool"].startswith(f"{reader}.") and judged["attributes"] == {"method": seen["method"]}
    found: dict[str, Any] = {}
    match judged["tool"].partition(".")[2], seen["segments"]:
        case "items.get", ["v1", "items", item]:
            found["id"] = item
        case "items.count", ["v1", "items", "count"]:
            pass
        case "refunds.create", ["v1", "refunds", charge]:
            found["charge"] = charge
        case "files.put", ["v1", "files", *rest]:
            found["path"] = "/" + "/".join(rest)
        case ("items.create" | "open.create"), ["v1", ("items" | "open")]:
            pass
        case other:
            raise AssertionError(other)
    for name, value in [*seen["query"], *seen["form"]]:
        put(found, name, value)
    if seen["json"] is not None:
        found |= {name: value for name, value in of_json(seen["json"]).items() if name}
    account = seen["headers"].get(f"{reader}-account")
    if account is not None:
        found[f"{reader}-Account"] = account
    if seen["json"] is None:
        arguments = {name: texts(value) for name, value in arguments.items()}
    assert numbers(found) == numbers(arguments), raw
    assert seen["headers"]["authorization"] == f"Bearer {KEY.removeprefix('sk_live_')}" and seen["headers"][f"{reader}-version"] == "7"
    assert seen["headers"].keys() <= {"host", "authorization", "accept", "accept-encoding", "user-agent", "content-type", "content-length", f"{reader}-account", f"{reader}-version"}


def unmarked(value: Any) -> Any:
    """A value as it was, of what the trail writes for it: it knows neither fractions nor null."""
    if isinstance(value, list):
        return [unmarked(each) for each in value]
    if isinstance(value, dict):
        if value.keys() == {"~"}:
            value = value["~"]  # an object that looks like a mark stands in one
        if isinstance(value, str):
            return int(value, 16) if "0x" in value else json.loads(value)
        return {name: unmarked(each) for name, each in value.items()}
    return value


def of_json(value: Any) -> dict[str, Any]:
    """A body's arguments. Members that are declared are taken apart, and `metadata` is not; nor is a list in which one is null."""
    found: dict[str, Any] = {}
    for name, inner in value.items():
        objects = isinstance(inner, list) and all(isinstance(each, dict) for each in inner)
        whole = name == "metadata" or (name == "items" and not (objects and all(None not in each.values() for each in inner)))
        found |= {name: inner} if whole else dotted(inner, name)
    return found


def put(found: dict[str, Any], name: str, value: str) -> None:
    """A field of a query or a form, as a service of this kind reads it."""
    base, *keys = name.replace("]", "").split("[")
    if base in ("expand", "tags"):
        found.setdefault(base, []).append(value)
    elif base == "shipping":
        found[f"{base}.{keys[0]}"] = value
    elif keys:
        at = found.setdefault(base, {})
        for key in keys[:-1]:
            at = at.setdefault(key, {})
        at[keys[-1]] = value
    else:
        assert base not in found
        found[base] = value


def texts(value: Any) -> Any:
    if isinstance(value, list):
        return [texts(each) for each in value]
    return value if isinstance(value, dict) else text(value)


def numbers(value: Any) -> Any:
    """Numbers as the doubles that they are. Node has no others: what it shows of a larger integer is rounded."""
    if isinstance(value, dict):
        return {name: numbers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [numbers(each) for each in value]
    return float(value) if type(value) in (int, float) else value


# --- drawn ----------------------------------------------------------------------------------------

_LETTERS = "abAB01 -_.~!*'();:@&=+$,/?#[]%\\\"<>^`{}|äß😀\u212a\u017f\n\t"


def drawn(source: random.Random) -> bytes:
    """Any request, in one spelling of many: half of it legal, and all of it well-formed enough to be looked at."""

    def some(most: int = 6) -> str:
        return "".join(source.choice(_LETTERS) for _ in range(source.randrange(most)))

    def spelled(text: str) -> str:
        way = source.randrange(4)
        if way == 0:
            return "".join(f"%{byte:02{source.choice('xX')}}" for byte in text.encode())
        return text if way == 1 and text.isascii() and text.isprintable() else quote(text, safe=source.choice(["", "/", ":@!$'()*,"]))

    def fields(names: list[str]) -> str:
        values = ["true", "false", "5", "-5", "05", "", some(), some()]
        pairs = [f"{spelled(source.choice(names))}={spelled(source.choice(values))}" for _ in range(source.randrange(4))]
        return "&".join(pairs)

    def value(depth: int = 0) -> Any:
        match source.randrange(9 if depth < 3 else 6):
            case 0:
                return source.randrange(-(2**54), 2**54)
            case 1:
                return source.choice([0.5, -0.0, 1e-7, 1e22, 123456.789, source.random()])
            case 2:
                return source.choice([True, False, None])
            case 3 | 4 | 5:
                return some()
            case 6:
                return [value(depth + 1) for _ in range(source.randrange(3))]
            case _:
                return {source.choice(["a", "A", "b", some()]): value(depth + 1) for _ in range(source.randrange(3))}

    match source.randrange(4):
        case 0:
            return get("?" + fields(["q", "limit", "tags", "live", "Q", "x"]), item=spelled(some()) or "7")
        case 1:
            names = ["amount", "reason", "expand[0]", "expand[1]", "expand[]", "shipping[city]", "metadata[a]", "metadata[b][c]", "live", "Amount"]
            return form(fields(names), at="/SERVICE/v1/refunds/" + (spelled(some()) or "ch_1"))
        case 2:
            path = "/".join(spelled(some()) for _ in range(1 + source.randrange(3)))
            return request("/SERVICE/v1/files/" + path, "PUT", body=json.dumps({"text": some()}), kind="application/json")
        case _:
            plain = {"name": some(), "amount": 5, "rate": source.random(), "live": True, "tags": [some()], "shipping": {"city": some()}, "items": [{"price": some()}, {"count": 3}]}
            chosen = {name: source.choice([plain[name], plain[name], value()]) for name in source.sample(sorted(plain), source.randrange(4))}
            if source.random() < 0.5:
                chosen["metadata"] = value()
            return post(json.dumps(chosen, ensure_ascii=source.random() < 0.5))


@pytest.mark.parametrize("reader", READERS)
def test_whatever_is_drawn_arrives_as_it_was_judged_or_not_at_all(world: World, reader: str) -> None:
    source = longer.drawing(f"gateway {reader}")
    allowed = refused = 0
    for _ in range(longer.times(300)):
        raw = drawn(source)
        connections = world.gateway.opened
        status, _ = world.send(raw, reader)
        if status == 200:
            check_arrives(world, raw, reader)
            allowed += 1
        else:
            assert 400 <= status < 500, raw
            assert world.gateway.opened == connections
            refused += 1
    assert min(allowed, refused) > 60
