"""The HMAC chain over the bytes that arrived: what makes a token unforgeable (spec, "Chain").

Byte for byte the construction of libmacaroons. Nothing here decodes anything.
"""

from __future__ import annotations

from captoken.primitives import equal, hmac_sha256, mac
from captoken.wire import Caveat, Packet

_GENERATOR = b"macaroons-key-generator"


def derive(key: bytes) -> bytes:
    """The macaroon key of an application key: every chain starts from the derived one."""
    return hmac_sha256(_GENERATOR, key)


mint_tag = mac  # (derived key, identifier) -> tag
link_tag = mac  # (tag, link) -> tag


def third_party_tag(tag: bytes, vid: bytes, cid: bytes) -> bytes:
    """The tag after a third-party caveat: vid first, then cid."""
    return mac(tag, mac(tag, vid) + mac(tag, cid))


def bind(root_tag: bytes, discharge_tag: bytes) -> bytes:
    """A discharge's tag once it is bound to the token whose final tag is `root_tag`."""
    return third_party_tag(bytes(32), root_tag, discharge_tag)


def extend(tag: bytes, caveat: Caveat) -> bytes:
    """The tag after one more caveat of either kind."""
    cid, vid = caveat
    return third_party_tag(tag, vid, cid) if vid else mac(tag, cid)


def fold(derived_key: bytes, packet: Packet) -> tuple[bytes, ...] | None:
    """The tag after each caveat, if the last one is the signature that the packet carries; else None.

    Every caveat is hashed, held or not. What the caveats mean is not looked at.
    """
    tag = mac(derived_key, packet.identifier)
    tags: list[bytes] = []
    for caveat in packet.caveats:
        tag = extend(tag, caveat)
        tags.append(tag)
    return tuple(tags) if equal(tag, packet.signature) else None
