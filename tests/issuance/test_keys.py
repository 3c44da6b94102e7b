"""Keys of providers: from a real server that redirects, drips, sends too much or is down; and which keys are none.

The numbers are those of the list of what must be denied.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from joserfc.errors import InvalidKeyCurveError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from captoken._format.encoding import b64encode
from captoken._format.errors import IssuanceError
from captoken.issuance import keys, policy
from captoken.issuance.identity import SUBJECTS
from captoken.issuance.jose import OF_AGENT, OF_BUNDLE, JoseError, Key, KeySet, UnverifiedJwt, holds, key_set, taken_apart
from captoken.issuance.keys import FRESH, GOOD, MAX_BYTES, PAUSE, ProviderKeys
from captoken.issuance.web import is_safe
from tests.issuance.assertions import LIVE, NOW, US, document, identify, joined, jwk, needed_key, private

# --- which keys are keys --------------------------------------------------------------------------


@cache
def weak() -> dict[str, Any]:
    """The public members of an RSA key of 1024 bits."""
    numbers = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
    return {"kty": "RSA", "n": b64encode(numbers.n.to_bytes(128)), "e": "AQAB"}


RSA = jwk("a", "RS256")
EC = jwk("a", "ES256")
ED = jwk("a", "Ed25519")


def bare(key: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A key that does not say what it is for."""
    return {name: value for name, value in key.items() if name not in ("alg", "use")} | {"kid": "k"} | more


@pytest.mark.parametrize(
    ("entry", "algorithms"),
    [
        (bare(RSA), ("RS256", "PS256")),
        (bare(RSA, alg="PS256"), ("PS256",)),
        (bare(RSA, use="sig", key_ops=["verify"]), ("RS256", "PS256")),
        (bare(EC), ("ES256",)),
        (bare(jwk("a", "ES384")), ("ES384",)),
        (bare(jwk("a", "ES512")), ("ES512",)),
        (bare(ED), ("Ed25519", "EdDSA")),
        (bare(ED, alg="EdDSA"), ("EdDSA",)),
        (bare(RSA, x5c=["MIIB"], x5t="abc", crv="P-256", more={"a": 1}), ("RS256", "PS256")),
    ],
)
def test_a_key_is_for_the_algorithms_of_its_kind_or_for_the_one_that_it_names(entry: dict[str, Any], algorithms: tuple[str, ...]) -> None:
    found = key_set(document(entry))
    assert (found.keys["k"].kid, found.keys["k"].algorithms, found.refused) == ("k", algorithms, ())


@pytest.mark.parametrize(
    "entry",
    [
        bare(RSA, use="enc"),
        bare(RSA, use="jwt-svid"),
        bare(RSA, use=["sig"]),
        bare(RSA, kid=None),
        bare(RSA, kid=""),
        bare(RSA, kid=7),
        bare(RSA, alg="RS512"),
        bare(RSA, alg="RSA-OAEP"),
        bare(RSA, alg="ES256"),
        bare(RSA, alg=None),
        bare(RSA, key_ops=["encrypt"]),
        bare(RSA, key_ops="verify"),
        bare(RSA, kty="AKP"),
        bare(RSA, kty=["RSA"]),
        bare(EC, crv="secp256k1"),
        bare(EC, crv=["P-256"]),
        bare(ED, crv="X25519"),
        bare(ED, crv="Ed448"),
        {"kty": "RSA"},
        {},
    ],
)
def test_a_key_for_something_else_is_passed_over(entry: dict[str, Any]) -> None:
    assert key_set(document(entry, bare(EC, kid="other"))) == KeySet({"other": key_set(document(bare(EC, kid="other"))).keys["other"]})


HUGE = b64encode((1 << 9000).to_bytes(1126))
UNSAFE = [
    ("22 RSA under 2048", bare(weak()), "an RSA key has 2048 to 8192 bits"),
    ("22 RSA of 1024 with zeros before", bare(weak(), n="AAAA" * 200 + weak()["n"]), "an RSA key has 2048 to 8192 bits"),
    ("RSA that takes long", bare(RSA, n=HUGE), "an RSA key has 2048 to 8192 bits"),
    ("RSA with an exponent of 1", bare(RSA, e="AQ"), "no public key"),
    ("RSA without an exponent", bare(RSA, e=None), "no public key"),
    ("RSA with a number as text", bare(RSA, n=12345), "no public key"),
    ("RSA with padding", bare(RSA, n=RSA["n"] + "=="), "no public key"),
    ("EC off the curve", bare(EC, x=EC["y"], y=EC["x"]), "no public key"),
    ("EC at nowhere", bare(EC, x="", y=""), "no public key"),
    ("EC without y", bare({name: value for name, value in EC.items() if name != "y"}), "no public key"),
    ("Ed25519 of small order", bare(ED, x=b64encode(bytes([1, *bytes(31)]))), "no good Ed25519 key"),
    ("Ed25519 too short", bare(ED, x="AAAA"), "no good Ed25519 key"),
    ("private RSA", bare(private("a", "RS256").as_dict(private=True)), "private or shared"),
    ("private EC", bare(private("a", "ES256").as_dict(private=True)), "private or shared"),
    ("private Ed25519", bare(private("a", "Ed25519").as_dict(private=True)), "private or shared"),
    ("13 a shared key", {"kty": "oct", "k": "c2VjcmV0", "kid": "k"}, "private or shared"),
    ("13 a shared key without its secret", {"kty": "oct", "kid": "k"}, "private or shared"),
]


@pytest.mark.parametrize(("entry", "says"), [one[1:] for one in UNSAFE], ids=[one[0] for one in UNSAFE])
def test_an_unsafe_key_is_refused_and_the_others_stand(entry: dict[str, Any], says: str) -> None:
    found = key_set(document(entry, bare(EC, kid="other")))
    assert found.keys.keys() == {"other"}
    assert len(found.refused) == 1 and found.refused[0].startswith("key 'k': ") and says in found.refused[0]


def test_rsa_of_2048_to_8192_bits_is_good() -> None:
    assert RSAKey.import_key(RSA).public_key.key_size == 2048
    assert key_set(document(bare(RSA))).keys.keys() == {"k"}
    largest = b64encode(((1 << 8191) + 1).to_bytes(1024))
    assert key_set(document(bare(RSA, n=largest))).keys["k"].raw.public_key.key_size == 8192


@pytest.mark.parametrize("second", [bare(EC), bare(RSA), bare(weak()), {"kty": "oct", "kid": "k"}, {"kty": "AKP", "kid": "k"}])
def test_18_two_keys_of_one_id_refuse_the_document(second: dict[str, Any]) -> None:
    with pytest.raises(JoseError, match="two keys of the id 'k'"):
        key_set(document(bare(EC), second))
    assert key_set(document(bare(EC), second | {"kid": "l"})).keys.keys() >= {"k"}


def test_a_key_for_another_use_may_have_the_same_id() -> None:
    assert key_set(document(bare(EC), bare(RSA, use="enc"))).keys.keys() == {"k"}


def test_a_spiffe_bundle_has_keys_of_two_uses_and_one_is_for_jwts() -> None:
    """SPIFFE Trust Domain and Bundle, 4.2: a use is always stated."""
    bundle = {
        "spiffe_sequence": 7,
        "spiffe_refresh_hint": 300,
        "keys": [bare(RSA, use="x509-svid", x5c=["MIIB"]), bare(EC, use="jwt-svid"), bare(ED, kid="bare"), bare(ED, kid="sig", use="sig")],
    }
    data = json.dumps(bundle).encode()
    assert key_set(data, OF_BUNDLE).keys.keys() == {"k"}
    assert key_set(data, OF_AGENT).keys.keys() == {"k", "bare"}
    assert key_set(data).keys.keys() == {"bare", "sig"}


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":["a"]}', b'{"keys":[],"keys":[]}', b"<html>", b"\xff", b'{"keys":[{"kid":NaN}]}', b"[" * 100_000],
)
def test_a_document_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(JoseError):
        key_set(data)


MEMBERS = st.none() | st.integers() | st.text(max_size=8) | st.lists(st.text(max_size=3), max_size=2) | st.sampled_from(["RSA", "EC", "OKP", "P-256", "AQAB"])


@given(st.binary(max_size=200) | st.lists(st.dictionaries(st.sampled_from(["kty", "kid", "use", "alg", "key_ops", "crv", "n", "e", "x", "y", "d"]), MEMBERS), max_size=3))
def test_fuzz_no_document_makes_a_key_or_another_error(made: Any) -> None:
    data = made if type(made) is bytes else document(*made)
    with suppress(JoseError):
        assert key_set(data).keys == {}


# --- a server -------------------------------------------------------------------------------------


class Server:
    """A provider on this machine. `answers` says what it does by path; what was asked is counted."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[str] = []
        self.over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.answers.get(self.path, status(404))(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients hang up
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        scheme = "http" if context is None else "https"
        self.origin = f"{scheme}://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def serve(self, *entries: dict[str, Any]) -> None:
        """A discovery document, and these keys."""
        self.answers["/.well-known/openid-configuration"] = sends({"issuer": self.origin, "jwks_uri": f"{self.origin}/keys"})
        self.answers["/keys"] = sends({"keys": list(entries)})

    def stop(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()


def sends(value: Any, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    data = value if type(value) is bytes else json.dumps(value).encode()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        for name, one in headers.items():
            handler.send_header(name.replace("_", "-"), one)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def status(code: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, one in headers.items():
            handler.send_header(name, one)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    one.serve(jwk("one"))
    yield one
    one.stop()


class Ticks:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


PROVIDERS = """
version = 1
service = {{ origin = "https://issuer.example" }}
resource = {{}}
grant = {{}}
[provider]
{}
"""


def of(*providers: str) -> policy.Policy:
    return policy.read(PROVIDERS.format("\n".join(providers)))


def one(server: Server, more: str = "") -> policy.Policy:
    return of(f'one = {{ kind = "workload", issuer = "{server.origin}"{more} }}')


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 20))


def text_of(issuer: str, kid: str = "one-ES256") -> str:
    """What a workload of this issuer sends."""
    claims = {"iss": issuer, "sub": "worker", "aud": US, **LIVE}
    return joined(json.dumps({"alg": "ES256", "kid": kid}).encode(), json.dumps(claims).encode(), private("one"), "ES256")


def test_from_a_text_to_who_it_is(server: Server) -> None:
    """The whole way, as a service goes it: whose key, fetch, verify. A thousand more fetch nothing."""
    loaded, text = one(server), text_of(server.origin)

    async def story() -> None:
        known = ProviderKeys(loaded)
        for _ in range(1000):
            await known.want(*needed_key(text, loaded, SUBJECTS))
        assert identify(text, loaded, known, NOW, US, SUBJECTS).sub == "worker"
        assert server.asked == ["/.well-known/openid-configuration", "/keys"]
        assert known.problems == {}
        await known.close()

    run(story())


def test_a_start_fetches_the_keys_of_all_and_tells_of_those_that_fail(server: Server, tmp_path: Path) -> None:
    (tmp_path / "bundle").write_bytes(document(jwk("mesh", use="jwt-svid"), jwk("mesh", "ES384")))
    loaded = of(
        f'one = {{ kind = "workload", issuer = "{server.origin}" }}',
        f'two = {{ kind = "oidc", issuer = "https://two.example", jwks = "{server.origin}/keys", client_ids = ["a"], max_login_age = 60 }}',
        f'mesh = {{ kind = "spiffe", trust_domain = "acme.example", bundle = "{tmp_path}/bundle" }}',
        f'gone = {{ kind = "spiffe", trust_domain = "gone.example", bundle = "{tmp_path}/gone" }}',
        f'lost = {{ kind = "id-jag", issuer = "https://lost.example", jwks = "{server.origin}/lost" }}',
    )

    async def story() -> None:
        known = ProviderKeys(loaded)
        assert known("one", "one-ES256") is None and set(known.problems) == {"one", "two", "mesh", "gone", "lost"}
        problems = await known.start()
        assert problems == known.problems and problems.keys() == {"gone", "lost"}
        assert "No such file" in problems["gone"] and problems["lost"] == f"{server.origin}/lost answers 404"
        for name, kid in (("one", "one-ES256"), ("two", "one-ES256"), ("mesh", "mesh-ES256")):
            found = known(name, kid)
            assert found is not None and found.kid == kid
        assert known("mesh", "mesh-ES384") is None  # not for JWT-SVIDs
        assert known("mesh", "one-ES256") is None  # 17
        assert known("nobody", "one-ES256") is None

    run(story())


# --- 68 to 73 -------------------------------------------------------------------------------------


def chunks(handler: BaseHTTPRequestHandler) -> None:
    """300 KB, whose length nobody has said."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(300):
        handler.wfile.write(b" " * 1024)


def drips(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then, so that each is in time."""
    handler.send_response(200)
    handler.send_header("Content-Length", "5000")
    handler.end_headers()
    while not SERVER_OVER.wait(0.02):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def drips_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not SERVER_OVER.wait(0.02):
        handler.wfile.write(b"X: y\r\n")
        handler.wfile.flush()


def is_silent(handler: BaseHTTPRequestHandler) -> None:
    SERVER_OVER.wait(5)


def hangs_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.close()


SERVER_OVER = threading.Event()
GOOD_KEYS = {"keys": [jwk("one")]}
PACKED = gzip.compress(b" " * 10_000_000)
BAD = [
    ("68 a redirect", status(302, Location="/keys"), "answers 302"),
    ("68 a redirect that keeps the method", status(308, Location="/keys"), "answers 308"),
    ("68 300 KB", sends(b" " * 300 * 1024), f"answers with more than {MAX_BYTES} bytes"),
    ("68 300 KB of no stated length", chunks, f"answers with more than {MAX_BYTES} bytes"),
    ("68 good keys behind 256 KB of spaces", sends(b" " * MAX_BYTES + json.dumps(GOOD_KEYS).encode()), "more than"),
    ("68 what is small until it is unpacked", sends(PACKED, Content_Encoding="gzip"), "compressed"),
    ("68 a slow drip", drips, "they did not come within"),
    ("68 a slow drip of headers", drips_headers, "they did not come within"),
    ("68 silence", is_silent, "they did not come within"),
    ("an error", status(500), "answers 500"),
    ("another success", status(204), "answers 204"),
    ("a page", sends(b"<html>"), "no JSON"),
    ("a document without keys", sends({"issuer": "x"}), "a key set has a list of keys"),
    ("18 two keys of one id", sends({"keys": [jwk("one"), jwk("one", "ES384", kid="one-ES256")]}), "two keys of the id 'one-ES256'"),
    ("nothing", hangs_up, "."),
]


@pytest.mark.parametrize(("answer", "says"), [one[1:] for one in BAD], ids=[one[0] for one in BAD])
def test_68_what_a_provider_sends_is_bounded_and_what_is_known_stands(
    server: Server, monkeypatch: pytest.MonkeyPatch, answer: Callable[[BaseHTTPRequestHandler], None], says: str
) -> None:
    # Nobody waits for long in a test, and what comes at once has time enough.
    patience = 0.3 if "come within" in says else 5.0
    SERVER_OVER.clear()
    server.answers["/bad"] = answer
    bad = one(server, f', jwks = "{server.origin}/bad"')
    ticks = Ticks()

    async def story() -> None:
        known = ProviderKeys(bad, clock=ticks)
        monkeypatch.setattr(keys, "PATIENCE", patience)
        began = time.monotonic()
        with pytest.raises(IssuanceError, match="this service cannot get the") as told:
            await known.want("one", "one-ES256")
        assert time.monotonic() - began < 4
        assert told.value.code == "temporarily_unavailable" and says in told.value.why
        assert known("one", "one-ES256") is None and says in known.problems["one"]

        # The twin: the same place with good keys. Then it is bad again, and they stay known.
        server.answers["/bad"] = sends(GOOD_KEYS)
        monkeypatch.setattr(keys, "PATIENCE", 5.0)
        ticks.now += PAUSE
        await known.want("one", "one-ES256")
        assert known("one", "one-ES256") is not None and known.problems == {}
        server.answers["/bad"] = answer
        monkeypatch.setattr(keys, "PATIENCE", patience)
        ticks.now += PAUSE
        with pytest.raises(IssuanceError, match="this service cannot get the"):
            await known.want("one", "unknown")
        assert known("one", "one-ES256") is not None and says in known.problems["one"]

    try:
        run(story())
    finally:
        SERVER_OVER.set()


def test_as_much_as_may_be_is_taken(server: Server) -> None:
    data = json.dumps(GOOD_KEYS).encode()
    server.answers["/keys"] = sends(data + b" " * (MAX_BYTES - len(data)), Content_Encoding="identity")

    async def story() -> None:
        known = ProviderKeys(one(server))
        assert await known.start() == {}

    run(story())


def test_a_server_that_is_down_is_a_problem_and_no_other_error(server: Server) -> None:
    server.stop()

    async def story() -> None:
        known = ProviderKeys(one(server))
        with pytest.raises(IssuanceError) as told:
            await known.want("one", "one-ES256")
        assert told.value.code == "temporarily_unavailable" and told.value.why.startswith("provider one: ")

    run(story())


def test_69_no_address_in_a_token_is_asked(server: Server) -> None:
    loaded = one(server)
    evil = Server()
    evil.serve(jwk("one"))
    for header in ({"jku": f"{evil.origin}/keys"}, {"x5u": f"{evil.origin}/keys"}, {}):
        header = {"alg": "ES256", "kid": "one-ES256", **header}
        claims = {"iss": server.origin if len(header) > 2 else evil.origin, "sub": "worker", "aud": US, **LIVE}
        text = joined(json.dumps(header).encode(), json.dumps(claims).encode(), private("one"), "ES256")
        with pytest.raises(IssuanceError):
            needed_key(text, loaded, SUBJECTS)
    evil.stop()
    assert evil.asked == server.asked == []
    assert needed_key(text_of(server.origin), loaded, SUBJECTS) == ("one", "one-ES256")


def test_70_ten_thousand_unknown_ids_are_one_fetch(server: Server) -> None:
    ticks = Ticks()

    async def story() -> None:
        known = ProviderKeys(one(server), clock=ticks)
        await asyncio.gather(*(known.want("one", f"made-up-{number}") for number in range(5000)))
        for number in range(5000):
            ticks.now += 0.9 * PAUSE / 5000
            await known.want("one", f"made-up-{number}")
        assert server.asked.count("/keys") == 1
        assert known("one", "one-ES256") is not None and known("one", "made-up-1") is None

        # The twin: an id that is new is found, once a fetch is due.
        server.serve(jwk("one"), jwk("one", "ES384"))
        await known.want("one", "one-ES384")
        assert known("one", "one-ES384") is None
        ticks.now += PAUSE
        await known.want("one", "one-ES384")
        assert known("one", "one-ES384") is not None and server.asked.count("/keys") == 2

    run(story())


def test_71_known_keys_outlive_an_outage_by_an_hour_and_no_longer(server: Server) -> None:
    ticks = Ticks()

    async def story() -> None:
        known = ProviderKeys(one(server), clock=ticks)
        await known.want("one", "one-ES256")
        server.answers.clear()
        ticks.now += GOOD - 1
        await known.want("one", "one-ES256")
        assert known("one", "one-ES256") is not None
        ticks.now += 1
        assert known("one", "one-ES256") is None
        with pytest.raises(IssuanceError) as told:
            await known.want("one", "one-ES256")
        assert told.value.code == "temporarily_unavailable" and told.value.why.endswith("/.well-known/openid-configuration answers 404")

        # The twin: the outage ends.
        server.serve(jwk("one"))
        ticks.now += PAUSE
        await known.want("one", "one-ES256")
        assert known("one", "one-ES256") is not None

    run(story())


async def settled(known: ProviderKeys) -> None:
    """Fetches that nobody waits for are over."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        if task.get_name().startswith("keys of "):
            await asyncio.wait((task,))


def test_72_a_withdrawn_key_goes_with_the_next_good_fetch(server: Server) -> None:
    ticks = Ticks()

    async def story() -> None:
        known = ProviderKeys(one(server), clock=ticks)
        await known.want("one", "one-ES256")
        server.serve(jwk("one", "ES384"))
        ticks.now += FRESH - 1
        await known.want("one", "one-ES256")
        await settled(known)
        assert known("one", "one-ES256") is not None and server.asked.count("/keys") == 1

        ticks.now += 1
        await known.want("one", "one-ES256")  # asked for, so that it is fetched again; nobody waits
        await settled(known)
        assert known("one", "one-ES256") is None and known("one", "one-ES384") is not None

        # All of them may be withdrawn.
        server.serve()
        ticks.now += PAUSE
        with pytest.raises(IssuanceError) as told:
            await known.want("one", "one-ES256")
        assert told.value.why == "provider one: the document has no key for signatures"
        assert known("one", "one-ES384") is None

    run(story())


def test_while_keys_are_fetched_again_nobody_waits(server: Server) -> None:
    ticks = Ticks()

    async def story() -> None:
        known = ProviderKeys(one(server), clock=ticks)
        await known.want("one", "one-ES256")
        SERVER_OVER.clear()
        server.answers["/keys"] = is_silent
        ticks.now += FRESH
        began = time.monotonic()
        for _ in range(100):
            await known.want("one", "one-ES256")
        assert time.monotonic() - began < 1
        assert known("one", "one-ES256") is not None and known.problems == {}
        await known.close()

    try:
        run(story())
    finally:
        SERVER_OVER.set()


OTHERS: list[tuple[str, Callable[[str], Any], str]] = [
    ("73 another issuer", lambda us: {"issuer": "https://other.example", "jwks_uri": f"{us}/keys"}, "of another issuer"),
    ("73 a slash more", lambda us: {"issuer": f"{us}/", "jwks_uri": f"{us}/keys"}, "of another issuer"),
    ("73 no issuer", lambda us: {"jwks_uri": f"{us}/keys"}, "of another issuer"),
    ("73 an issuer that is a list", lambda us: {"issuer": [us], "jwks_uri": f"{us}/keys"}, "of another issuer"),
    ("73 an issuer twice", lambda us: f'{{"issuer":"https://other.example","issuer":"{us}","jwks_uri":"{us}/keys"}}'.encode(), "repeated"),
    ("no place of keys", lambda us: {"issuer": us}, "no jwks_uri"),
    ("a place that is a list", lambda us: {"issuer": us, "jwks_uri": [f"{us}/keys"]}, "no jwks_uri"),
    ("a place that is a file", lambda us: {"issuer": us, "jwks_uri": "file:///etc/keys"}, "no jwks_uri"),
    ("a place without protection", lambda us: {"issuer": us, "jwks_uri": "http://keys.example/keys"}, "no jwks_uri"),
]


@pytest.mark.parametrize(("made", "says"), [one[1:] for one in OTHERS], ids=[one[0] for one in OTHERS])
def test_73_a_discovery_document_of_another_issuer_is_refused(server: Server, made: Callable[[str], Any], says: str) -> None:
    server.answers["/.well-known/openid-configuration"] = sends(made(server.origin))
    ticks = Ticks()

    async def story() -> None:
        known = ProviderKeys(one(server), clock=ticks)
        problems = await known.start()
        assert says in problems["one"] and server.asked == ["/.well-known/openid-configuration"]
        assert known("one", "one-ES256") is None
        server.serve(jwk("one"))
        ticks.now += PAUSE
        assert await known.start() == {}

    run(story())


def test_an_issuer_with_a_path_or_a_slash_is_found_where_it_says(server: Server) -> None:
    """OpenID Connect Discovery, 4: below the path, and a slash at its end is taken off."""
    for path in ("/realms/acme", "/tenant/"):
        issuer = server.origin + path
        server.answers[f"{path.rstrip('/')}/.well-known/openid-configuration"] = sends({"issuer": issuer, "jwks_uri": f"{server.origin}/keys"})
        known = ProviderKeys(of(f'one = {{ kind = "workload", issuer = "{issuer}" }}'))
        assert run(known.start()) == {}


# --- over https -----------------------------------------------------------------------------------


@contextmanager
def https(tmp_path: Path) -> Iterator[tuple[Server, ssl.SSLContext]]:
    """A provider whose certificate is of an authority that nobody knows, and a context that does."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(pem)
    server = Server(served)
    server.serve(jwk("one"))
    yield server, ssl.create_default_context(cafile=str(pem))
    server.stop()


def test_a_certificate_of_an_unknown_authority_is_refused_unless_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    with https(tmp_path) as (server, context):
        stranger = ProviderKeys(one(server))
        assert "CERTIFICATE_VERIFY_FAILED" in run(stranger.start())["one"] and server.asked == []
        assert run(ProviderKeys(one(server), context=context).start()) == {}
        assert server.asked == ["/.well-known/openid-configuration", "/keys"]

        # From here, keys do not lead to where anybody could change them.
        plain = server.origin.replace("https:", "http:")
        server.answers["/.well-known/openid-configuration"] = sends({"issuer": server.origin, "jwks_uri": f"{plain}/keys"})
        problems = run(ProviderKeys(one(server), context=context).start())
        assert problems == {"one": "the discovery document leads from https to http"}


@pytest.mark.parametrize(
    ("address", "safe"),
    [
        ("https://login.example/keys", True),
        ("https://login.example:8443/keys?tenant=a", True),
        ("http://127.0.0.1:8000/keys", True),
        ("http://localhost/keys", True),
        ("http://[::1]:8000/keys", True),
        ("http://login.example/keys", False),
        ("http://127.0.0.1.evil.example/keys", False),
        ("http://localhost@evil.example/keys", False),
        ("https://user:secret@login.example/keys", False),
        ("https://login.example/keys#a", False),
        ("https:///keys", False),
        ("https://login.example:x/keys", False),
        ("https://[login/keys", False),
        ("https://lögin.example/keys", False),
        ("ftp://login.example/keys", False),
        ("file:///keys", False),
        ("unix:///run/spire/agent.sock", False),
        ("", False),
    ],
)
def test_keys_come_over_https_or_from_this_machine(address: str, safe: bool) -> None:
    assert is_safe(address) is safe


@pytest.mark.parametrize("place", ["http://login.example/keys", "unix://run/agent.sock", "tcp://127.0.0.1:8081", "https://user@login.example/keys"])
def test_a_place_where_keys_cannot_be_does_not_load(place: str) -> None:
    loaded = of(f'mesh = {{ kind = "spiffe", trust_domain = "acme.example", bundle = "{place}" }}')
    with pytest.raises(IssuanceError, match=r"provider.mesh: keys must be at an https address, in a file, or for spiffe at unix:///") as told:
        ProviderKeys(loaded)
    assert told.value.code == "policy"
    with pytest.raises(IssuanceError, match=r"provider.one: keys must be at an https address"):
        ProviderKeys(of('one = { kind = "workload", issuer = "https://one.example", jwks = "unix:///run/agent.sock" }'))
    for good in ("https://login.example/keys", "unix:///run/agent.sock", "/etc/bundle", "bundle"):
        ProviderKeys(of(f'mesh = {{ kind = "spiffe", trust_domain = "acme.example", bundle = "{good}" }}'))


# --- files, and sources of one's own --------------------------------------------------------------


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "keys"
    loaded = of(f'one = {{ kind = "workload", issuer = "https://one.example", jwks = "{place}" }}')
    data = document(jwk("one"))
    place.write_bytes(data + b" " * (MAX_BYTES - len(data) + 1))
    assert run(ProviderKeys(loaded).start()) == {"one": f"the document has more than {MAX_BYTES} bytes"}
    place.write_bytes(data + b" " * (MAX_BYTES - len(data)))
    assert run(ProviderKeys(loaded).start()) == {}


def test_a_source_of_ones_own_is_asked_instead(caplog: pytest.LogCaptureFixture) -> None:
    """As the Workload API would be. Whatever it raises is told, and no more."""
    loaded = of('mesh = { kind = "spiffe", trust_domain = "acme.example", bundle = "unix:///run/agent.sock" }')
    ticks = Ticks()
    good = document(jwk("mesh", use="jwt-svid"))
    answers: list[Any] = [good, RuntimeError("the agent\nis away"), RuntimeError(), None, good + b" " * MAX_BYTES]

    async def source() -> bytes:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def story() -> None:
        known = ProviderKeys(loaded, sources={"mesh": source}, clock=ticks)
        assert await known.start() == {}
        for says in ("the agent\nis away", "RuntimeError", "object of type 'NoneType' has no len()", "the document has more than 262144 bytes"):
            ticks.now += PAUSE
            assert (await known.start())["mesh"] == says
            assert known("mesh", "mesh-ES256") is not None

    with caplog.at_level(logging.WARNING, "captoken"):
        run(story())
    assert caplog.messages[0] == r"the keys of provider mesh: the agent\x0ais away"


def test_the_log_tells_what_changed_and_nothing_twice(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    ticks = Ticks()
    refused = bare(weak(), kid="weak")

    async def story() -> None:
        known = ProviderKeys(one(server), clock=ticks)
        for answer in (sends({"keys": [refused, jwk("one")]}),) * 2 + (status(500),) * 2 + (sends({"keys": [refused, jwk("one")]}),) * 2:
            server.answers["/keys"] = answer
            await known.start()
            ticks.now += PAUSE

    with caplog.at_level(logging.WARNING, "captoken"):
        run(story())
    assert [one.removeprefix("the keys of provider one: ") for one in caplog.messages] == [
        "key 'weak': an RSA key has 2048 to 8192 bits",
        f"{server.origin}/keys answers 500",
        "can be had again",
    ]


# --- one task for each provider -------------------------------------------------------------------


class Slow:
    """A source that answers when it is let go."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = asyncio.Event()

    async def __call__(self) -> bytes:
        self.asked += 1
        await self.go.wait()
        return document(jwk("one"))


ONE = of('one = { kind = "workload", issuer = "https://one.example" }')


def test_who_stops_waiting_stops_nobody_else() -> None:
    async def story() -> None:
        slow = Slow()
        known = ProviderKeys(ONE, sources={"one": slow})
        waiting = [asyncio.create_task(known.want("one", "one-ES256")) for _ in range(50)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        assert not any(one.done() for one in waiting[1:])
        slow.go.set()
        await asyncio.gather(*waiting[1:])
        assert slow.asked == 1 and known("one", "one-ES256") is not None

    run(story())


def test_a_close_gives_up_and_who_waits_is_told() -> None:
    async def story() -> None:
        known = ProviderKeys(ONE, sources={"one": Slow()})
        await known.close()  # nothing to give up
        waiting = asyncio.create_task(known.want("one", "one-ES256"))
        await asyncio.sleep(0)
        await known.close()
        with pytest.raises(IssuanceError) as told:
            await waiting
        assert told.value.why == "provider one: they were not fetched yet"

    run(story())


def test_a_reload_keeps_what_is_unchanged_and_forgets_the_rest(server: Server) -> None:
    async def story() -> None:
        slow = Slow()
        two = 'two = { kind = "workload", issuer = "https://two.example" }'
        first = of(f'one = {{ kind = "workload", issuer = "{server.origin}" }}', two)
        known = ProviderKeys(first, sources={"two": slow})
        await known.want("one", "one-ES256")
        waiting = asyncio.create_task(known.want("two", "k"))
        await asyncio.sleep(0)

        # `two` is gone: who waits for its keys gets none. `one` has other rules, and the same keys.
        known.reload(one(server, ", max_life = 60"))
        with pytest.raises(IssuanceError, match="this service cannot get the") as told:
            await waiting
        assert told.value.why == "provider two: they were not fetched yet"  # given up at once
        assert known("one", "one-ES256") is not None and known("two", "k") is None
        await known.want("two", "k")
        assert server.asked.count("/keys") == 1

        # A place that cannot be: the old policy stands. Another place: nothing is known there.
        with pytest.raises(IssuanceError, match=r"provider.one"):
            known.reload(one(server, ', jwks = "http://keys.example"'))
        assert known("one", "one-ES256") is not None
        known.reload(one(server, f', jwks = "{server.origin}/other"'))
        assert known("one", "one-ES256") is None

    run(story())


def test_a_reload_lets_a_fetch_go_on_that_is_still_needed() -> None:
    async def story() -> None:
        slow = Slow()
        known = ProviderKeys(ONE, sources={"one": slow})
        waiting = asyncio.create_task(known.want("one", "one-ES256"))
        await asyncio.sleep(0)
        known.reload(ONE)
        slow.go.set()
        await waiting
        assert known("one", "one-ES256") is not None and slow.asked == 1

    run(story())


def test_a_signature_holds_by_an_algorithm_of_its_key_alone() -> None:
    """Whoever calls it has asked before, and it asks again."""
    key = key_set(document(jwk("one"))).keys["one-ES256"]
    signed = taken_apart(text_of(US))
    assert holds(signed, key)
    for alg in ("ES384", "none", "HS256", None, ["ES256"]):
        other = UnverifiedJwt({**signed.header, "alg": alg}, signed.claims, signed.signature, signed.signed)
        assert not holds(other, key)

    # A key that was put together wrongly is a mistake of the program, which joserfc sees.
    with pytest.raises(InvalidKeyCurveError):
        holds(signed, Key("k", ("ES256",), key_set(document(jwk("one", "ES384"))).keys["one-ES384"].raw))


def test_keys_of_every_kind_are_joserfcs() -> None:
    found = key_set(document(*(bare(key, kid=name) for name, key in (("r", RSA), ("e", EC), ("o", ED))))).keys
    assert [type(found[name].raw) for name in "reo"] == [RSAKey, ECKey, OKPKey]
    assert not any(key.raw.is_private for key in found.values())
