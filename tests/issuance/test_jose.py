"""Signed JSON: one spelling, one reading, an algorithm of the key's, and a length that is looked at first."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from joserfc import jwe
from joserfc.jwk import ECKey

from captoken._format.encoding import b64decode, b64encode
from captoken._format.errors import IssuanceError
from captoken._language.bounds import ASSERTION_CHARS
from captoken.issuance.jose import JoseError, taken_apart
from tests.issuance.assertions import (
    LIVE,
    LOGIN,
    NARROW,
    joined,
    jwk,
    private,
    signed,
    verify,
)
from tests.issuance.test_identity import login, refused


def unsigned(alg: str, signature: bytes) -> str:
    header, claims = json.dumps({"alg": alg, "kid": "acme-ES256"}), json.dumps(LOGIN)
    return f"{b64encode(header.encode())}.{b64encode(claims.encode())}.{b64encode(signature)}"


def shared_secret(alg: str, kid: str) -> str:
    """A text whose MAC is under the public key, in the spelling that libraries fell for."""
    header, claims = json.dumps({"alg": "HS256", "kid": kid}), json.dumps(LOGIN)
    text = f"{b64encode(header.encode())}.{b64encode(claims.encode())}"
    pem = private("acme", alg).as_pem(private=False)
    return f"{text}.{b64encode(hmac.digest(pem, text.encode(), 'sha256'))}"


SIGNATURES = [
    ("12 none", lambda: unsigned("none", b"x"), "algorithm 'none' is not taken"),
    ("12 none, and no signature", lambda: unsigned("none", b""), "three parts"),
    ("12 nOnE", lambda: unsigned("nOnE", b"x"), "algorithm 'nOnE' is not taken"),
    ("13 HS256 under the public key of EC", lambda: shared_secret("ES256", "acme-ES256"), "algorithm 'HS256' is not taken"),
    ("13 HS256 under the public key of RSA", lambda: shared_secret("RS256", "acme-RS256"), "algorithm 'HS256' is not taken"),
    ("15 no alg", lambda: login(drop=("alg",)), "its header has no alg"),
    ("15 no kid", lambda: login(drop=("kid",)), "its header has no kid"),
    ("15 an empty kid", lambda: login(header={"kid": ""}), "its header has no kid"),
    ("15 a kid that is a number", lambda: login(header={"kid": 1}), "kid in its header is no text"),
    ("16 an unknown kid", lambda: login(header={"kid": "acme-9"}), "there is no key 'acme-9'"),
    ("17 another provider's kid", lambda: joined(json.dumps({"alg": "ES256", "kid": "hub-ES256"}).encode(), json.dumps(LOGIN).encode(), private("hub"), "ES256"), "there is no key 'hub-ES256'"),
    ("17 another provider's key", lambda: joined(json.dumps({"alg": "ES256", "kid": "acme-ES256"}).encode(), json.dumps(LOGIN).encode(), private("hub"), "ES256"), "its signature does not hold"),
    ("19 jwk", lambda: login(header={"jwk": jwk("acme")}), "its header has 'jwk', and may have alg, kid, typ, x5t, x5t#S256"),
    ("19 jku", lambda: login(header={"jku": "https://evil.example/keys"}), "its header has 'jku'"),
    ("19 x5u", lambda: login(header={"x5u": "https://evil.example/cert"}), "its header has 'x5u'"),
    ("19 x5c", lambda: login(header={"x5c": ["MIIB"]}), "its header has 'x5c'"),
    ("19 crit", lambda: login(header={"crit": ["exp"]}), "its header has 'crit'"),
    ("19 b64", lambda: login(header={"b64": False, "crit": ["b64"]}), "its header has 'b64'"),
    ("19 zip", lambda: login(header={"zip": "DEF"}), "its header has 'zip'"),
    ("19 a typ that is no text", lambda: login(header={"typ": None}), "typ in its header is no text"),
    ("69 an address of keys among the claims' names in the header", lambda: login(header={"iss": "https://evil.example"}), "its header has 'iss'"),
    ("21 JWE", lambda: encrypted(), "it is encrypted"),
    ("23 padding", lambda: login() + "==", "a part of it cannot be read: this is base64"),
    ("23 padding of the header", lambda: login().replace(".", "=.", 1), "a part of it cannot be read"),
    ("23 a line feed behind", lambda: login() + "\n", "a part of it cannot be read"),
    ("23 a space before", lambda: " " + login(), "a part of it cannot be read"),
    ("23 a trailing character", lambda: login() + "A", "a part of it cannot be read|does not hold"),
    ("23 a fourth part", lambda: login() + ".AAAA", "three parts"),
    ("23 a full stop behind", lambda: login() + ".", "three parts"),
    ("23 the standard alphabet", lambda: re.sub(r"\.([^.]*)$", lambda found: "." + found[1][:-4] + "+/+/", login()), "a part of it cannot be read: this is base64"),
    ("23 other letters", lambda: login()[:-1] + "é", "a part of it cannot be read"),
    ("23 no text", lambda: login().encode(), "it is no text"),
    ("23 nothing", lambda: "", "three parts"),
    (" 4 over 16 KiB", lambda: login(more="x" * ASSERTION_CHARS), "it is longer than 16384 characters"),
]


def encrypted() -> str:
    """A login in a JWE to a key: nobody here decrypts."""
    to = ECKey.generate_key("P-256")
    return jwe.encrypt_compact({"alg": "ECDH-ES", "enc": "A128GCM", "cty": "JWT"}, login(), to)


@pytest.mark.parametrize(("make", "says"), [one[1:] for one in SIGNATURES], ids=[one[0] for one in SIGNATURES])
def test_a_text_that_is_not_so_signed_is_refused(make: Callable[[], Any], says: str) -> None:
    refused(make(), says)
    assert verify(login()).sub == "jane"


def test_as_long_as_may_be_is_good() -> None:
    room = ASSERTION_CHARS - len(login(more=""))
    text = login(more="x" * (room * 3 // 4 - 2))
    assert ASSERTION_CHARS - 8 < len(text) <= ASSERTION_CHARS and verify(text).sub == "jane"


def test_the_length_is_looked_at_to_the_character() -> None:
    begun = f"{b64encode(b'{}')}.{b64encode(b'{}')}."
    assert taken_apart(begun + "A" * (ASSERTION_CHARS - len(begun))).claims == {}
    with pytest.raises(JoseError, match="it is longer than 16384 characters"):
        taken_apart(begun + "A" * (ASSERTION_CHARS - len(begun) + 1))


def test_certificates_may_be_named_beside_the_key() -> None:
    """Platforms do so; nothing is looked up by it."""
    assert verify(login(header={"x5t": "dGh1bWI", "x5t#S256": "dGh1bWI"})).sub == "jane"


def test_14_an_algorithm_that_is_not_the_keys_is_refused() -> None:
    """The right key signed, by an algorithm that it could do: its document says that it does another one."""
    rsa = private("acme", "RS256")
    as_pss = joined(b'{"alg":"PS256","kid":"acme-RS256"}', json.dumps(LOGIN).encode(), rsa, "PS256")
    refused(as_pss, "its key is not for 'PS256'")
    assert verify(joined(b'{"alg":"RS256","kid":"acme-RS256"}', json.dumps(LOGIN).encode(), rsa, "RS256")).sub == "jane"
    refused(joined(b'{"alg":"ES384","kid":"acme-ES256"}', json.dumps(LOGIN).encode(), private("acme", "ES384"), "ES384"), "its key is not for 'ES384'")


def test_14_an_algorithm_that_is_not_the_providers_is_refused() -> None:
    told = refused(signed("narrow", NARROW, "ES384"), "algorithm 'ES384' is not taken")
    assert told.why == "of provider narrow"
    assert verify(signed("narrow", NARROW, "ES256")).sub == "worker"


def test_20_no_other_bit_of_the_payload_or_the_signature_is_good() -> None:
    text = login()
    head, payload, signature = text.split(".")
    for number in range(0, len(b64decode(signature)) * 8, 7):
        refused(f"{head}.{payload}.{flipped(signature, number)}", "its signature does not hold")
    for number in range(0, len(b64decode(payload)) * 8, 23):
        changed = f"{head}.{flipped(payload, number)}.{signature}"
        with pytest.raises(IssuanceError):
            verify(changed)
    assert verify(text).sub == "jane"


def flipped(part: str, number: int) -> str:
    data = bytearray(b64decode(part))
    data[number // 8] ^= 1 << number % 8
    return b64encode(bytes(data))


def test_a_second_signature_that_anybody_can_make_of_the_first_is_the_same_assertion() -> None:
    """Of (r, s) by ECDSA, (r, n - s) is as good. What is used once must not be good twice, by that."""
    text = login()
    head, _, signature = text.rpartition(".")
    raw = b64decode(signature)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    r, s = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])
    assert decode_dss_signature(encode_dss_signature(r, s)) == (r, s)
    twin = f"{head}.{b64encode(r.to_bytes(32) + (order - s).to_bytes(32))}"
    assert twin != text and verify(twin).digest == verify(text).digest


SOUND = json.dumps(LOGIN)[1:-1]


JSONS = [
    ("24 nesting", '{"deep":' + "[" * 17 + "]" * 17 + "," + SOUND + "}", "nested too deeply"),
    ("24 nesting without end", '{"deep":' + "[" * 5000 + "]" * 5000 + "," + SOUND + "}", "nested too deeply"),
    ("24 nesting of objects", '{"deep":' + '{"a":' * 16 + "1" + "}" * 16 + "," + SOUND + "}", "nested too deeply"),
    ("24 NaN", '{"score":NaN,' + SOUND + "}", "no JSON"),
    ("24 Infinity", '{"score":-Infinity,' + SOUND + "}", "no JSON"),
    ("24 1e400", '{"score":1e400,' + SOUND + "}", "too large"),
    ("24 1e400 as exp", "{" + SOUND.replace(f'"exp": {LIVE["exp"]}', '"exp": 1e400') + "}", "too large"),
    ("24 an integer of thousands of digits", '{"score":' + "9" * 5000 + "," + SOUND + "}", "too large"),
    ("24 a name twice", '{"sub":"root",' + SOUND + "}", "a name that is repeated"),
    ("24 a name twice, once escaped", '{"s\\u0075b":"root",' + SOUND + "}", "a name that is repeated"),
    ("24 a name twice, deep", '{"more":{"a":1,"a":2},' + SOUND + "}", "a name that is repeated"),
    ("24 an array", "[{" + SOUND + "}]", "no object"),
    ("24 a text", '"' + "a" * 9 + '"', "no object"),
    ("24 two objects", "{" + SOUND + "}{}", "no JSON"),
    ("24 a comment", "{" + SOUND + "}/**/", "no JSON"),
    ("24 a comma too many", "{" + SOUND + ",}", "no JSON"),
    ("24 a control character", '{"more":"a\nb",' + SOUND + "}", "no JSON"),
    ("24 half a character", '{"more":"\\ud800",' + SOUND + "}", "no JSON"),
    ("24 half a character as a name", '{"\\uDC00":1,' + SOUND + "}", "no JSON"),
    ("24 a byte order mark", "\ufeff{" + SOUND + "}", "no JSON"),
]


@pytest.mark.parametrize(("payload", "says"), [one[1:] for one in JSONS], ids=[one[0] for one in JSONS])
def test_json_that_two_readers_would_read_in_two_ways_is_refused(payload: str, says: str) -> None:
    """24: the right key signed it. Nothing of it is believed, its issuer included."""
    header = json.dumps({"alg": "ES256", "kid": "acme-ES256"}).encode()
    refused(joined(header, payload.encode(), private("acme"), "ES256"), f"its payload is JSON.*{says}|its payload is {says}")
    odd_header = payload.replace(SOUND, header.decode()[1:-1]).replace('"sub"', '"kid"').replace("s\\u0075b", "k\\u0069d")
    if '"exp"' not in payload or SOUND in payload:
        refused(joined(odd_header.encode(), json.dumps(LOGIN).encode(), private("acme"), "ES256"), f"its header is JSON.*{says}|its header is {says}")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_24_json_in_another_encoding_is_refused(encoding: str) -> None:
    payload = json.dumps(LOGIN | {"name": "Jürgen"}, ensure_ascii=False)
    header = b'{"alg":"ES256","kid":"acme-ES256"}'
    refused(joined(header, payload.encode(encoding), private("acme"), "ES256"), "its payload is no JSON")
    assert verify(joined(header, payload.encode(), private("acme"), "ES256")).claims["name"] == "Jürgen"


def test_json_as_writers_like_it_is_good() -> None:
    """Spaces, escapes, fractions and 16 levels are nobody's fault."""
    payload = json.dumps(LOGIN | {"name": "Jürgen 🎈", "score": 0.5, "big": -(2**63), "deep": json.loads("[" * 15 + "]" * 15)}, indent=1)
    who = verify(joined(b'{ "alg" : "ES256", "kid":"acme\\u002dES256"}\n', payload.encode(), private("acme"), "ES256"))
    assert (who.claims["name"], who.claims["score"], who.claims["big"]) == ("Jürgen 🎈", 0.5, -(2**63))
