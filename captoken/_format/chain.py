"""The HMAC chain over the bytes that arrived: what makes a token unforgeable (spec, "Chain").

Byte for byte the construction of libmacaroons. Nothing here decodes anything.
"""

from __future__ import annotations

from collections.abc import Callable

from captoken._format.packet import Packet, RawCaveat
from captoken._format.primitives import disclose, enclose, equal, hmac_sha256, mac

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


def extend(tag: bytes, caveat: RawCaveat) -> bytes:
    """The tag after one more caveat of either kind."""
    cid, vid = caveat
    return third_party_tag(tag, vid, cid) if vid else mac(tag, cid)


def ask(tag: bytes, key: bytes, cid: bytes, random: Callable[[int], bytes]) -> RawCaveat:
    """The third-party caveat that asks for a discharge under the caveat key `key`, to go after the link that ends in `tag`."""
    return cid, enclose(tag, derive(key), random(24))


def fold(
    derived_key: bytes, packet: Packet, bound_to: bytes | None = None
) -> tuple[bytes, ...] | None:
    """The tag after each caveat, if the last one is the signature that the packet carries; else None.

    For a discharge, `bound_to` is the signature of the token that it goes with. Every caveat is hashed, held or not. What
    the caveats mean is not looked at.
    """
    tag = mac(derived_key, packet.identifier)
    tags: list[bytes] = []
    for cid, vid in packet.caveats:  # as `extend` does, without the call
        tag = third_party_tag(tag, vid, cid) if vid else mac(tag, cid)
        tags.append(tag)
    carried = tag if bound_to is None else bind(bound_to, tag)
    return tuple(tags) if equal(carried, packet.signature) else None


def answer_key(
    derived_key: bytes, packet: Packet, tags: tuple[bytes, ...], at: int
) -> bytes | None:
    """The macaroon key that the discharge of third-party caveat `at` is under, or None if its box does not open.

    The box was made with the tag before the caveat; `tags` are those that `fold` gave.
    """
    before = tags[at - 1] if at else mac(derived_key, packet.identifier)
    return disclose(before, packet.caveats[at][1])
