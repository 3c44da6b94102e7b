"""Public keys as they are given: 32 bytes or their one spelling, and no point of low order."""

from __future__ import annotations

from typing import Any

import pytest
from nacl import bindings
from nacl.signing import SigningKey

from captoken._format import primitives
from captoken._format.encoding import b64encode
from captoken._format.public_keys import exchange_key, signing_key
from tests import edwards
from tests.test_secret import SECRET

SIGNING = bytes(SigningKey(SECRET).verify_key)


EXCHANGE = bindings.crypto_scalarmult_base(SECRET)


class Text(str):
    """A string that is not quite one."""


@pytest.mark.parametrize(
    ("accept", "good"), [(signing_key, SIGNING), (exchange_key, EXCHANGE)], ids=["signing", "exchange"]
)
def test_a_public_key_is_32_bytes_or_their_one_spelling(accept: Any, good: bytes) -> None:
    """TypeError for other types; ValueError for other lengths, alphabets, and bits left over."""
    spelled = b64encode(good)
    assert accept(good, "key") == accept(spelled, "key") == good
    last = spelled[:-1] + "AEIMQUYcgkosw048"["AEIMQUYcgkosw048".index(spelled[-1]) - 1]
    assert len(last) == 43, "another key, spelled as it should be"
    for wrong in (
        "", spelled[:-1], spelled + "A", spelled + "=", spelled[:-1] + chr(ord(spelled[-1]) + 1), " " + spelled[1:], "+" * 43,
        "é" * 43, "\ud800" * 43, good.hex(), b"", good[:31], good + b"\0", spelled.encode(),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"key|base64"):
            accept(wrong, "key")
    # As `captoken keygen … > file` leaves it.
    with pytest.raises(ValueError, match=r"key ends in a line feed: read the file with \.strip\(\)"):
        accept(f"{spelled}\n", "key")
    for odd in (None, 5, bytearray(good), memoryview(good), [good], Text(spelled), True):
        with pytest.raises(TypeError, match="key must be 32 bytes"):
            accept(odd, "key")


@pytest.mark.parametrize("encoded", edwards.LOW_ORDER + edwards.not_canonical(), ids=bytes.hex)
def test_no_signing_key_is_of_low_order_or_not_canonical(encoded: bytes) -> None:
    """The fourteen encodings of the eight small points, and all 38 that are not reduced: refused on the wire and when built."""
    assert not primitives.is_signing_key(encoded)
    with pytest.raises(ValueError, match="not an Ed25519 public key"):
        signing_key(encoded)


def test_a_key_off_the_curve_or_of_mixed_order_is_refused_when_built() -> None:
    """Readers of links, which do not ask libsodium, take it for a key that signs nothing."""
    off = next(y for y in range(2, 50) if edwards.on_curve(y) is None)
    for encoded in (
        off.to_bytes(32, "little"),
        *(edwards.encode(edwards.plus(edwards.BASE, small)) for small in edwards.TORSION[1:]),
    ):
        assert primitives.is_signing_key(encoded)
        with pytest.raises(ValueError, match="not on the curve"):
            signing_key(encoded)
    assert signing_key(edwards.encode(edwards.BASE))


# The u of small order on curve25519 and its twist, with those that are not reduced.
SMALL_U = [
    0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
]  # fmt: skip


@pytest.mark.parametrize("u", SMALL_U)
def test_no_exchange_key_is_of_low_order_or_not_canonical(u: int) -> None:
    """Seven of small order; each also with the top bit, which X25519 passes over and we do not."""
    for encoded in (u.to_bytes(32, "little"), (u | 1 << 255).to_bytes(32, "little")):
        with pytest.raises(ValueError, match="not an X25519 public key"):
            exchange_key(encoded, "server")
    with pytest.raises(ValueError, match="not an X25519 public key"):
        exchange_key((int.from_bytes(EXCHANGE, "little") | 1 << 255).to_bytes(32, "little"), "server")
