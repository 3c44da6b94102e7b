"""Class F: only the key that the keyring holds under the token's own (kid, aud) verifies it, and no key is weak.

F4's vectors of HMAC are in `tests/properties/test_chain.py`; keys of low order as holders' keys are in `test_h_possession.py`.
"""

import base64
import json
import os
from pathlib import Path

import pytest
from nacl.public import PrivateKey

from captoken import Denied, Issuer, Keyring, Verifier
from captoken._format import primitives
from captoken.keys import HolderKey, PairwiseKey
from captoken.proof import Evidence
from tests import edwards
from tests.reference import evaluator
from tests.reference.fixtures import ASK, KEY, NOW, OTHER_KEY, SALES, access, code, keyring, short, text, verifier

EIGHT = [bytes([i + 1]) * 31 + b"\0" for i in range(8)]
WHO = {"subject": "user:jane", "agent": "orchestrator", "task": "task-123", "tables": ["sales"], "operations": ["select"]}


@pytest.mark.parametrize("minted", range(8))
@pytest.mark.parametrize("verified", range(8))
def test_f1_only_the_diagonal_of_keys_allows(minted, verified):
    """F1: 8 x 8 mint and verify keys under one key id: allowed on the diagonal, `bad_signature` off it; under eight ids
    `unknown_key`."""
    ask = access(ASK)
    one = verifier(ring=keyring(EIGHT[verified]))
    assert one.check(text(SALES, key=EIGHT[minted]), ask).code == ("allowed" if minted == verified else "bad_signature")
    named = verifier(ring=keyring(EIGHT[verified], f"k{verified}"))
    assert named.check(text(SALES, key=EIGHT[minted], kid=f"k{minted}"), ask).code == (
        "allowed" if minted == verified else "unknown_key"
    )


@pytest.mark.parametrize(
    ("kid", "wanted"),
    [
        ("k1", "allowed"),
        ("k2", "unknown_key"),
        ("K1", "unknown_key"),
        ("k", "unknown_key"),
        ("k11", "unknown_key"),
        ("k1/", "unknown_key"),
        ("../k1", "unknown_key"),
        ("k1:sales-db", "unknown_key"),
        ("__class__", "unknown_key"),
        ("0", "unknown_key"),
        ("x" * 128, "unknown_key"),
        ("", "malformed"),
        ("k1\0", "malformed"),
        ("\0", "malformed"),
        ("k1 ", "malformed"),
        ("k1\n", "malformed"),
        ("k1'--", "malformed"),
        ("' or 1=1", "malformed"),
        ("*", "malformed"),
        ("\u212a1", "malformed"),
        ("k\u0661", "malformed"),
        ("x" * 129, "malformed"),
        ("x" * 5000, "malformed"),
        (1, "malformed"),
        (True, "malformed"),
        (["k1"], "malformed"),
        ({"k1": 1}, "malformed"),
        (None, "malformed"),
        ("file:///etc/passwd", "unknown_key"),
        ("http://example.com/key", "unknown_key"),
    ],
    ids=short,
)
def test_f1_a_key_id_is_looked_up_as_it_is(kid, wanted):
    """F1: thirty key ids, of other keys, missing, with NUL, paths, SQL, of other types: only the one that is held is used."""
    root = {
        key: value
        for key, value in {
            "agent": "a",
            "iat": NOW,
            "jti": "A" * 22,
            "kid": kid,
            "sub": "user:jane",
            "task": "t",
            "v": 1,
        }.items()
        if value is not None
    }
    assert code(evaluator.mint(KEY, root, [SALES])) == wanted


def test_f1_a_key_id_said_twice_is_malformed():
    """F1: a root record with two `kid`s is not canonical, whichever of them is known."""
    root = '{"agent":"a","iat":%d,"jti":"%s","kid":"%s","kid":"%s","sub":"user:jane","task":"t","v":1}'
    for first, second in (("k1", "k2"), ("k2", "k1"), ("k1", "k1")):
        assert code(evaluator.mint(KEY, (root % (NOW, "A" * 22, first, second)).encode(), [SALES])) == "malformed"
    assert (
        code(evaluator.mint(KEY, (root % (NOW, "A" * 22, "k1", "k1")).replace('"kid":"k1",', "", 1).encode(), [SALES]))
        == "allowed"
    )


PEM = b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"
# fmt: off
WEAK = {
    "empty": b"", "one byte": b"k", "16 bytes": bytes(range(16)), "31 bytes": bytes(range(31)), "33 bytes": bytes(range(33)),
    "64 bytes": bytes(range(64)), "zeros": bytes(32), "ones": b"\xff" * 32, "one letter": b"a" * 32, "nothing": None,
    "text": "k" * 32, "text of 32 letters": "abcdefghijklmnopqrstuvwxyz012345", "hex": "00" * 32,
    "hex bytes": bytes(range(32)).hex().encode(), "base64": base64.b64encode(bytes(range(32))), "an integer": 32,
    "a list": list(range(32)), "a bool": True, "PEM": PEM, "PEM text": PEM.decode(),
    "DER": base64.b64decode(PEM.splitlines()[1]), "JWK": json.dumps({"kty": "oct", "k": "AAAA"}),
    "a JWK object": {"kty": "oct", "k": "AAAA"}, "SSH": b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1",
    "a password": b"correct horse battery staple", "a tuple": (1,) * 32,
}
# fmt: on


@pytest.mark.parametrize("name", WEAK)
def test_f2_a_weak_key_is_refused_when_built(name):
    """F2: 26 things that are no 32-byte key, or a trivial one: TypeError or ValueError, as the only key and beside a good
    one."""
    keyring(KEY)
    with pytest.raises((TypeError, ValueError)):
        Keyring.from_keys({"k1": WEAK[name]}, current="k1")
    with pytest.raises((TypeError, ValueError)):
        Keyring.from_keys({"k1": KEY, "k2": WEAK[name]}, current="k1")


@pytest.mark.parametrize(
    ("keys", "current"),
    [
        ({}, "k1"),
        ({"k1": KEY}, "k2"),
        ({"k1": KEY}, None),
        ({"k1": KEY}, ""),
        ({"": KEY}, ""),
        ({"a b": KEY}, "a b"),
        ({"k1\0": KEY}, "k1\0"),
        ({1: KEY}, 1),
        ({b"k1": KEY}, b"k1"),
        ({"x" * 129: KEY}, "x" * 129),
        ([("k1", KEY)], "k1"),
        (None, "k1"),
        ("k1", "k1"),
    ],
    ids=short,
)
def test_f2_a_keyring_that_makes_no_sense_is_refused_when_built(keys, current):
    """F2: no key, no such current key, a key id that no token can name: an error at once."""
    with pytest.raises((TypeError, ValueError)):
        Keyring.from_keys(keys, current=current)


def test_f2_no_key_means_no_hmac_under_an_empty_key():
    """F2: a forgery under the empty key, or under None's derivation, is refused by every keyring, also one whose key was
    retired."""
    body, identifier = (
        evaluator.canonical(SALES).encode(),
        evaluator.canonical(
            {"agent": "a", "iat": NOW, "jti": "A" * 22, "kid": "k1", "sub": "user:jane", "task": "t", "v": 1}
        ).encode(),
    )
    forged = evaluator.mint(b"", identifier, [body])
    ring = keyring().rotate()
    assert verifier(ring=ring).check(text(SALES), access(ASK))
    assert verifier(ring=ring).check(forged, access(ASK)).code == "bad_signature"
    retired = verifier(ring=ring.retire("k1"))
    assert retired.check(forged, access(ASK)).code == retired.check(text(SALES), access(ASK)).code == "unknown_key"


SERVERS = ["sales-db", "hr-db", "mail-api", "sales-db2", "sales"]


@pytest.mark.parametrize("minted", SERVERS)
@pytest.mark.parametrize("verified", SERVERS)
def test_f3_one_server_s_key_is_no_other_s(minted, verified):
    """F3: tokens minted with each of five servers' keys at each of five servers: allowed at its own; elsewhere there is no key
    for it."""
    ring, ask = keyring(), access(ASK)
    token_text = Issuer(ring.for_audience(minted), clock=lambda: NOW).mint(**WHO).serialize()
    server = verifier(ring=ring.for_audience(verified), audience=verified)
    assert server.check(token_text, ask).code == ("allowed" if minted == verified else "unknown_key")
    issuer_side = verifier(ring=ring, audience=verified)
    assert issuer_side.check(token_text, ask).code == ("allowed" if minted == verified else "wrong_audience")
    forged = evaluator.mint(
        evaluator.audience_key(KEY, minted), {**json.loads(evaluator.parse(token_text)[0]), "aud": verified}, [SALES]
    )
    assert server.check(forged, ask).code == ("allowed" if minted == verified else "bad_signature")


def test_f3_a_server_s_keyring_has_that_server_s_keys_and_no_others():
    """F3: it verifies no unaddressed token, forges none that the issuer's verifier takes for its own, and neither rotates nor
    derives."""
    ring, ask = keyring(), access(ASK)
    server = ring.for_audience("sales-db")
    assert server.reveal("k1") == evaluator.audience_key(KEY, "sales-db") != KEY
    assert verifier(ring=server, audience="sales-db", allow_unaddressed=True).check(text(SALES), ask).code == "unknown_key"
    assert (
        verifier(ring=ring)
        .check(
            evaluator.mint(
                server.reveal("k1"),
                {"agent": "a", "iat": NOW, "jti": "A" * 22, "kid": "k1", "sub": "user:jane", "task": "t", "v": 1},
                [SALES],
            ),
            ask,
        )
        .code
        == "bad_signature"
    )
    for call in (server.rotate, lambda: server.for_audience("hr-db"), lambda: server.for_audience("sales-db")):
        with pytest.raises(ValueError, match="audience"):
            call()
    assert ring.reveal("k1") == KEY


def wycheproof(name):
    """The cases of one of Wycheproof's files, each with the group that it is in."""
    folder = os.environ.get("CAPTOKEN_WYCHEPROOF", "")
    path = Path(folder) / name
    if not folder or not path.is_file():
        pytest.fail(
            f"set CAPTOKEN_WYCHEPROOF to a folder that holds Wycheproof's {name} (github.com/C2SP/wycheproof, folder testvectors_v1)"
        )
    groups = json.loads(path.read_text(encoding="utf-8"))["testGroups"]
    return [(group, case, set(case["flags"])) for group in groups for case in group["tests"]]


@pytest.mark.wycheproof
def test_f4_wycheproof_ed25519():
    """F4: the 151 cases of Wycheproof's Ed25519, 88 valid and 63 not: 0 wrong, and every key that is
    used is one to bind to."""
    wrong, valid, cases = [], 0, wycheproof("ed25519_test.json")
    for group, case, _ in cases:
        public, message, signature = (bytes.fromhex(text) for text in (group["publicKey"]["pk"], case["msg"], case["sig"]))
        expected = case["result"] == "valid"
        valid += expected
        if primitives.signed(public, message, signature) is not expected:
            wrong.append(case["tcId"])
        if expected and not primitives.is_signing_key(public):
            wrong.append((case["tcId"], "the key"))
    assert (len(cases), valid, wrong) == (151, 88, [])


@pytest.mark.wycheproof
def test_f4_wycheproof_x25519():
    """F4: the 518 cases of Wycheproof's X25519: the shared secret where there is one, none where it would be zeros, and no key
    accepted that is of low order or not canonical: 0 wrong."""
    wrong, refused, cases = [], 0, wycheproof("x25519_test.json")
    for _, case, flags in cases:
        secret, public, shared = (bytes.fromhex(case[name]) for name in ("private", "public", "shared"))
        expected = None if "ZeroSharedSecret" in flags else shared
        if primitives.shared_secret(secret, public) != expected or (expected is None) is not (shared == bytes(32)):
            wrong.append(case["tcId"])
        good = not flags & {"ZeroSharedSecret", "LowOrderPublic", "NonCanonicalPublic"} and public[31] < 0x80
        refused += not good
        if primitives.is_good_exchange_key(public) is not good:
            wrong.append((case["tcId"], "the key"))
    assert (len(cases), refused, wrong) == (518, 44, [])


SIGNERS = [HolderKey.from_bytes(bytes([n]) * 31 + b"\0") for n in range(1, 9)]


@pytest.mark.parametrize("by", range(8))
def test_f4_only_the_diagonal_of_signing_keys_holds(by):
    """F4: eight keys' signatures under eight keys, as they are, truncated, lengthened and over another message: the diagonal."""
    message = b"captoken/v1 test\0"
    signature = SIGNERS[by].sign(message)
    for other in range(8):
        public = evaluator.unbase64(SIGNERS[other].public)
        assert primitives.signed(public, message, signature) is (by == other)
        for changed in (signature[:-1], signature + b"\0", b"", signature[::-1], bytes(64)):
            assert not primitives.signed(public, message, changed)
        assert not primitives.signed(public, message + b"\0", signature) and not primitives.signed(
            public[:-1], message, signature
        )


def test_f4_a_key_of_another_length_is_nobody_s():
    """F4: every length but 32, from none to twice as much; also where the first 32 bytes are a good key."""
    signs, exchanges = evaluator.unbase64(SIGNERS[0].public), bytes(PrivateKey(KEY).public_key)
    for length in range(65):
        same = [check((public * 3)[:length]) for check, public in (
            (primitives.is_signing_key, signs), (primitives.is_good_signing_key, signs), (primitives.is_good_exchange_key, exchanges),
        )]  # fmt: skip
        assert same == [length == 32] * 3, length


def test_f4_small_points_are_nobody_s_key():
    """F4: the 14 encodings of small points and the 38 that are not reduced, as a holder's key, as evidence and as a pairwise key."""
    for encoded in edwards.LOW_ORDER + edwards.not_canonical():
        assert not primitives.is_signing_key(encoded) and not primitives.is_good_signing_key(encoded)
        assert not primitives.signed(encoded, b"", encoded + bytes(32))
        assert not Evidence(encoded, bytes(32), b"{}", bytes([1]) + bytes(63)).holds()
    server = PairwiseKey.from_bytes(KEY)
    for u in (0, 1, edwards.P - 1, edwards.P, edwards.P + 1, *(edwards.P + n for n in range(2, 19))):
        for encoded in (u.to_bytes(32, "little"), (u | 1 << 255).to_bytes(32, "little")):
            with pytest.raises(ValueError, match="not an X25519"):
                server.serving(issuers=[encoded], audience="sales-db")


@pytest.mark.parametrize(
    "key", ["alg", "typ", "enc", "cty", "crv", "kty", "jwk", "jku", "x5u", "x5c", "hash", "mac", "zip", "crit"]
)
@pytest.mark.parametrize("value", ["none", "HS256", "sha1"])
def test_f5_nothing_in_a_token_names_an_algorithm(key, value):
    """F5: 42 attempts to name an algorithm: malformed in the root record, `unknown_caveat` in a link, no effect anywhere."""
    assert code(text(SALES)) == "allowed"
    assert code(text(SALES, **{key: value})) == "malformed"
    assert code(text({**SALES, key: value})) == "unknown_caveat"


def test_f6_rotation_overlaps_until_the_old_key_is_retired():
    """F6: before, during and after a rotation, with two issuers: both keys verify in the overlap, and after it only the new
    one."""
    ask = access(ASK)
    before = keyring()
    overlap = before.rotate()
    old, new = (
        Issuer(before, clock=lambda: NOW).mint(**WHO).serialize(),
        Issuer(overlap, clock=lambda: NOW).mint(**WHO).serialize(),
    )
    after = overlap.retire("k1")
    table = {
        "before": (before, "allowed", "unknown_key"),
        "overlap": (overlap, "allowed", "allowed"),
        "after": (after, "unknown_key", "allowed"),
    }
    for name, (ring, old_code, new_code) in table.items():
        assert verifier(ring=ring).check(old, ask).code == old_code, name
        assert verifier(ring=ring).check(new, ask).code == new_code, name
    again = overlap.rotate()
    assert [verifier(ring=again).check(token, ask).code for token in (old, new)] == ["allowed", "allowed"]


def test_f6_a_running_server_sees_the_new_keyring_at_once():
    """F6: a verifier that is given a callable follows it, there and back; a keyring itself never changes."""
    held = [keyring()]
    one, ask, token_text = Verifier(lambda: held[0], clock=lambda: NOW), access(ASK), text(SALES)
    codes = []
    for ring in (held[0], held[0].rotate().retire("k1"), held[0], keyring(OTHER_KEY), keyring(KEY, "k2"), held[0]):
        held.append(ring)
        held[0] = ring
        codes.append(one.check(token_text, ask).code)
    assert codes == ["allowed", "unknown_key", "allowed", "bad_signature", "unknown_key", "allowed"]


def test_f6_only_an_older_key_is_retired():
    """F6: retiring the current key, or one that is not there, is an error: an issuer always has its key, and no other takes
    its place."""
    ring = keyring().rotate()
    for kid in (ring.current, "no-such-key", "", "K1"):
        with pytest.raises(ValueError, match="key"):
            ring.retire(kid)
    assert ring.retire("k1").key_ids == (ring.current,)


def test_f6_keys_of_a_rotation_and_their_ids_are_all_different():
    """F6: a thousand fresh keyrings and fifty rotations repeat no key and no key id."""
    rings = [Keyring.generate() for _ in range(1000)]
    ids = [json.loads(evaluator.parse(Issuer(ring).mint(**WHO).serialize())[0])["kid"] for ring in rings]
    ring = rings[0]
    for _ in range(50):
        ring = ring.rotate()
        ids.append(json.loads(evaluator.parse(Issuer(ring).mint(**WHO).serialize())[0])["kid"])
        rings.append(ring)
    assert len(set(ids)) == 1050
    assert len({ring.reveal(kid) for ring, kid in zip(rings, ids, strict=True)}) == 1050


def test_denials_about_keys_look_alike_from_outside():
    """F, J6: malformed, unknown key and bad signature have one public message and one kind."""
    seen = set()
    for token_text in (text(SALES) + "=", text(SALES, kid="k2"), text(SALES, key=OTHER_KEY), "", text(SALES)[:-1]):
        with pytest.raises(Denied) as raised:
            verifier().authorize(token_text, access(ASK))
        seen.add((raised.value.kind, str(raised.value.public)))
    assert len(seen) == 1 and next(iter(seen))[0] == "invalid"
