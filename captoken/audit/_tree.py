"""The Merkle tree of RFC 6962, section 2.1, over lines of a trail (spec 39.4).

    hashes = [leaf(line) for line in lines]      # without their line feeds
    root(hashes)                                 # what a checkpoint signs
    steps = path(levels(hashes), 3)              # what shows that the fourth line is under it
    root_by(leaf(line), 3, len(hashes), steps)

A leaf and a node are hashed with another first byte each, so that none is taken for the other.
"""

from __future__ import annotations

from collections.abc import Sequence

from captoken._format import primitives

MOST = 65_536  # leaves of one tree


def leaf(line: bytes) -> bytes:
    """The hash of a line, without its line feed."""
    return primitives.sha256(b"\0" + line)


def _node(left: bytes, right: bytes) -> bytes:
    return primitives.sha256(b"\1" + left + right)


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over at least one leaf."""
    return levels(leaves)[-1][0]


def path(levels: Sequence[Sequence[bytes]], index: int) -> list[bytes]:
    """The hashes beside the way from a leaf up to the root, from the leaf on."""
    steps: list[bytes] = []
    for level in levels[:-1]:
        if index ^ 1 < len(level):
            steps.append(level[index ^ 1])
        index >>= 1
    return steps


def root_by(hashed: bytes, index: int, count: int, steps: Sequence[bytes]) -> bytes | None:
    """The root to which a leaf leads, of `count` leaves; None for another number of steps."""
    left = list(steps)
    while count > 1:
        # The last of an odd number has nothing beside it: it goes up as it is.
        if index ^ 1 < count:
            if not left:
                return None
            beside = left.pop(0)
            hashed = _node(beside, hashed) if index & 1 else _node(hashed, beside)
        index >>= 1
        count = (count + 1) >> 1
    return None if left else hashed


def levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """From the leaves up to the root. The last of an odd number goes up as it is (RFC 6962)."""
    found = [list(leaves)]
    while len(found[-1]) > 1:
        below = found[-1]
        above = [_node(below[at], below[at + 1]) for at in range(0, len(below) - 1, 2)]
        found.append(above + below[len(above) * 2 :])
    return found
