"""The few functions of cryptography that all else stands on, beside what the standard library and the curve say."""

from __future__ import annotations

import hmac
from collections.abc import Callable

import pytest
from nacl import bindings
from nacl.public import PrivateKey, SealedBox
from nacl.secret import SecretBox

from captoken._format import primitives
from captoken._format.encoding import b64encode
from captoken._format.entropy import random_bytes
from captoken.testing import fixed_random
from tests import edwards
from tests.test_discharge import PARTY


def test_the_table_of_small_points_is_what_the_curve_says() -> None:
    """Eight points, five y; libsodium calls none of their encodings a point to trust."""
    assert {y for _, y in edwards.TORSION} == primitives._LOW_ORDER and len(set(edwards.LOW_ORDER)) == 14
    for point in edwards.TORSION:
        assert not bindings.crypto_core_ed25519_is_valid_point(edwards.encode(point))


@pytest.mark.parametrize("length", [0, 1, 32, 63, 64, 65, 200])
def test_an_hmac_is_that_of_the_standard_library_whatever_the_key(length: int) -> None:
    """A key of more than a block is hashed first, and one of just a block is not (RFC 2104)."""
    key = bytes(range(200))[:length]
    assert primitives.hmac_sha256(key, b"message") == hmac.digest(key, b"message", "sha256")


def test_boxes_are_libsodium_s_own() -> None:
    """What `seal` and `enclose` write PyNaCl opens, and what PyNaCl writes `unseal` and `disclose` open; byte for byte where
    nothing is drawn."""
    secret = bytes(range(2, 34))
    theirs = PrivateKey(secret)
    public = bytes(theirs.public_key)
    assert primitives.exchange_public(secret) == public and PARTY.public == b64encode(public)
    for size in (0, 1, 32, 500):
        message = bytes(range(256))[:size] * (size > 0)
        box = primitives.seal(public, message, fixed_random(f"box {size}"))
        assert SealedBox(theirs).decrypt(box) == message == primitives.unseal(secret, box)
        assert primitives.unseal(secret, SealedBox(theirs.public_key).encrypt(message)) == message
        assert box == primitives.seal(public, message, fixed_random(f"box {size}")) and len(box) == 48 + len(message)
        key, nonce = bytes(range(32)), bytes(range(24))
        enclosed = primitives.enclose(key, message, nonce)
        assert enclosed == bytes(SecretBox(key).encrypt(message, nonce)) and primitives.disclose(key, enclosed) == message


@pytest.mark.parametrize(
    "harm", [lambda box: b"", lambda box: box[:-1], lambda box: box + b"x", lambda box: bytes(len(box)), lambda box: box[:30]]
)
def test_a_box_that_was_harmed_is_none(harm: Callable[[bytes], bytes]) -> None:
    """Too short, too long, emptied, or under another key: None, and nothing raised."""
    secret, other, key = bytes(range(2, 34)), bytes(range(3, 35)), bytes(range(32))
    sealed = primitives.seal(primitives.exchange_public(secret), b"message", random_bytes)
    enclosed = primitives.enclose(key, b"message", bytes(24))
    assert primitives.unseal(secret, harm(sealed)) is None and primitives.disclose(key, harm(enclosed)) is None
    assert primitives.unseal(other, sealed) is None and primitives.disclose(other, enclosed) is None
