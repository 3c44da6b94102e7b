"""The only file that touches hash functions, comparison of secrets and randomness, and the labels that keep uses apart.

`mac` and `hmac_sha256` are two plain SHA-256 calls (RFC 2104): the same function as `hmac.digest`, a third faster on
OpenSSL 3.
The tests prove them equal on RFC 4231 and Wycheproof. Python promises no constant-time arithmetic and no wiping of memory.
"""

from __future__ import annotations

import hmac
import os
from hashlib import sha256 as _sha256

_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))
_INNER_REST = bytes(32).translate(_INNER)  # what follows a key of 32 bytes in a block of 64
_OUTER_REST = bytes(32).translate(_OUTER)

equal = hmac.compare_digest  # constant time in the content, for byte strings
random_bytes = os.urandom  # asked anew each time: safe after fork


def label(purpose: str) -> bytes:
    """Domain separation: what is hashed for one purpose is never mistaken for another (spec, "Labels")."""
    return b"captoken/v1 " + purpose.encode("ascii") + b"\0"


_LINK = label("link")
_AUDIENCE = label("audience")


def sha256(message: bytes) -> bytes:
    return _sha256(message).digest()


def mac(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA-256 under a key of exactly 32 bytes, as every tag is. Does not check that it is."""
    inner = _sha256(key.translate(_INNER) + _INNER_REST + message).digest()
    return _sha256(key.translate(_OUTER) + _OUTER_REST + inner).digest()


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA-256, 32 bytes, under a key of any length."""
    if len(key) <= 32:
        return mac(key.ljust(32, b"\0"), message)
    block = (key if len(key) <= 64 else _sha256(key).digest()).ljust(64, b"\0")
    return _sha256(block.translate(_OUTER) + _sha256(block.translate(_INNER) + message).digest()).digest()


def link_id(tag: bytes) -> bytes:
    """The public name of the link that ends in `tag`: 16 bytes. Tells nothing of the tag (spec, "Link ids")."""
    return _sha256(_LINK + tag).digest()[:16]


def audience_key(key: bytes, audience: str) -> bytes:
    """The root key of one audience: whoever has it can forge for that audience and for nobody else."""
    return mac(key, _AUDIENCE + audience.encode("ascii"))
