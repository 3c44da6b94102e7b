"""Tokens, whole and broken, from the standard library alone: what this shares with captoken is the specification.

No part of it checks anything, so that it can write what no library would.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any, NamedTuple

KEY = bytes(range(1, 33))
OTHER_KEY = bytes(range(101, 133))
NOW = 1_764_061_200
JTI = "MDEyMzQ1Njc4OWFiY2RlZg"

Json = Any
Caveat = tuple[bytes, bytes]  # cid, and vid, empty for a first party's


# --- encoding --------------------------------------------------------------------------------------------------------


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def canonical(value: Json) -> bytes:
    """The one spelling of a JSON value, its objects sorted by UTF-16 unit."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: str(key).encode("utf-16-be"))
        return b"{" + b",".join(canonical(key) + b":" + canonical(value[key]) for key in keys) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(canonical(item) for item in value) + b"]"
    return json.dumps(value, ensure_ascii=False).encode()


def varint(number: int, width: int = 0) -> bytes:
    """`number` in base 128, over-long if `width` asks for more bytes than it needs."""
    out = bytearray()
    while number >= 0x80 or len(out) + 1 < width:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


# --- the chain -------------------------------------------------------------------------------------------------------


def mac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def derive(key: bytes) -> bytes:
    return mac(b"macaroons-key-generator", key)


def pair(key: bytes, first: bytes, second: bytes) -> bytes:
    return mac(key, mac(key, first) + mac(key, second))


def label(purpose: str) -> bytes:
    return b"captoken/v1 " + purpose.encode() + b"\0"


def audience_key(key: bytes, audience: str) -> bytes:
    return mac(key, label("audience") + audience.encode())


def link_id(tag: bytes) -> str:
    return b64(hashlib.sha256(label("link") + tag).digest()[:16])


# --- the wire --------------------------------------------------------------------------------------------------------


def field(kind: int, payload: bytes, size: int | None = None, width: int = 0) -> bytes:
    """One field; `size` and `width` lie about its length, or write it over-long."""
    return bytes((kind,)) + varint(len(payload) if size is None else size, width) + payload


def section(cid: bytes, vid: bytes = b"") -> bytes:
    return field(2, cid) + (field(4, vid) if vid else b"") + b"\0"


class Parts(NamedTuple):
    """A token's parts, which need not belong together. `tags` are the chain's: one for the identifier, one a caveat."""

    identifier: bytes
    caveats: tuple[Caveat, ...]
    tags: tuple[bytes, ...]

    @property
    def signature(self) -> bytes:
        return self.tags[-1]

    @property
    def head(self) -> bytes:
        """Version and header section."""
        return b"\2" + section(self.identifier)

    @property
    def middle(self) -> bytes:
        return b"".join(section(cid, vid) for cid, vid in self.caveats)

    @property
    def wire(self) -> bytes:
        return self.head + self.middle + b"\0" + field(6, self.signature)

    @property
    def text(self) -> str:
        return text(self.wire)

    @property
    def bodies(self) -> list[bytes]:
        return [cid for cid, _ in self.caveats]

    def signed(self, signature: bytes) -> Parts:
        """The same with another signature."""
        return self._replace(tags=(*self.tags[:-1], signature))

    def carrying(self, *caveats: Caveat) -> Parts:
        """The same identifier and signature around other caveats."""
        return self._replace(caveats=caveats)


def text(wire: bytes) -> str:
    return "cap1_" + b64(wire)


def root(**changes: Json) -> dict[str, Json]:
    """The root record of all vectors, but for `changes`; a key that is None is left out."""
    stated = {
        "agent": "orchestrator", "iat": NOW, "jti": JTI, "kid": "k1", "sub": "user:jane", "task": "task-123", "v": 1,
        **changes,
    }  # fmt: skip
    return {key: value for key, value in stated.items() if value is not None}


def token(*links: Json, key: bytes = KEY, identifier: bytes | None = None, **changes: Json) -> Parts:
    """A genuine token. A link is an object, or bytes as they are, or (cid, vid)."""
    if identifier is None:
        identifier = canonical(root(**changes))
    return extended(Parts(identifier, (), (mac(derive(key), identifier),)), *links)


def extended(parts: Parts, *links: Json) -> Parts:
    """The same token with more links, as any holder can add them."""
    caveats, tags = list(parts.caveats), list(parts.tags)
    for link in links:
        cid, vid = link if isinstance(link, tuple) else (link if isinstance(link, bytes) else canonical(link), b"")
        caveats.append((cid, vid))
        tags.append(pair(tags[-1], vid, cid) if vid else mac(tags[-1], cid))
    return Parts(parts.identifier, tuple(caveats), tuple(tags))


def nonce(number: int = 0) -> str:
    """An `n`."""
    return b64(number.to_bytes(8, "big"))


def hand_over(to: str, giver: str = "orchestrator", number: int = 0, **caveats: Json) -> dict[str, Json]:
    """A link that delegates."""
    return {"from": giver, "n": nonce(number), "to": to, **caveats}
