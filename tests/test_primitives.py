"""The few functions of cryptography that all else stands on, beside what the standard library and the curve say."""

from __future__ import annotations

import hmac

import pytest
from nacl import bindings

from captoken._format import primitives
from tests import edwards


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
