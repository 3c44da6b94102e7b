"""The curve edwards25519 in a few lines of integers, to make the points and signatures that no library hands out.

Slow, not constant-time, and no use for anything but attacks: points of small and of mixed order, encodings that are not
canonical, scalars beyond the group's order.
"""

from __future__ import annotations

import hashlib

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493  # the order of the large group
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
BASE: Point = (
    15112221349535400772501151409588531511454012693041857206046113283949847762202,
    46316835694926478169428394003475163141307993866256225615783033603165251855960,
)
IDENTITY: Point = (0, 1)


def plus(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    cross = D * x1 * x2 * y1 * y2
    x, y = (x1 * y2 + x2 * y1) * pow(1 + cross, -1, P), (y1 * y2 + x1 * x2) * pow(1 - cross, -1, P)
    return x % P, y % P


def times(scalar: int, point: Point) -> Point:
    total = IDENTITY
    while scalar:
        if scalar & 1:
            total = plus(total, point)
        point, scalar = plus(point, point), scalar >> 1
    return total


def encode(point: Point) -> bytes:
    """The one canonical encoding."""
    x, y = point
    return (y | (x & 1) << 255).to_bytes(32, "little")


def on_curve(y: int) -> Point | None:
    """The point with this y and an even x, or None."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    root = pow(square, (P + 3) // 8, P)
    root = root if root * root % P == square else root * pow(2, (P - 1) // 4, P) % P
    return (P - root if root % 2 else root, y) if root * root % P == square else None


def torsion() -> list[Point]:
    """The eight points of small order: a multiple by L of any point is one of them."""
    y = 2
    while True:
        point = on_curve(y)
        if point is not None:
            small = times(L, point)
            if times(4, small) != IDENTITY:  # of order 8: it generates them all
                return [times(n, small) for n in range(8)]
        y += 1


TORSION = torsion()


def low_order_encodings() -> list[bytes]:
    """Every string of 32 bytes that a lenient reader takes for a point of small order: both signs, and y beyond P."""
    found = []
    for y in sorted({y for _, y in TORSION}):
        for spelled in (y, y + P):
            if spelled < 2**255:
                found += [(spelled | sign << 255).to_bytes(32, "little") for sign in (0, 1)]
    return found


LOW_ORDER = low_order_encodings()


def not_canonical() -> list[bytes]:
    """Every y beyond P, with both signs: readable for whoever reduces, and refused by whoever compares."""
    return [((P + y) | sign << 255).to_bytes(32, "little") for y in range(19) for sign in (0, 1)]


def scalar_of(seed: bytes) -> int:
    """The secret scalar of an Ed25519 seed (RFC 8032, 5.1.5)."""
    half = int.from_bytes(hashlib.sha512(seed).digest()[:32], "little")
    return half & (2**254 - 8) | 2**254


def challenge(encoded: bytes, public: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(encoded + public + message).digest(), "little") % L
