"""The HMAC chain over the bytes that arrived: what makes a token unforgeable (spec, "Chain").

    derive              an application key becomes the key of a chain
    mint_tag            the tag of the identifier, where a chain starts
    extend              the tag after one more caveat
    fold                all tags of a chain that arrived, if its signature is the last of them

Byte for byte the construction of libmacaroons. Nothing here decodes anything, and nothing is
encoded again: what is hashed is what arrived. Each tag is the key to all narrower tokens, and so a
secret. To go back from a tag to the one before is to invert HMAC.
"""

from __future__ import annotations

from collections.abc import Callable

from captoken._format.parts import Packet, RawCaveat
from captoken._format.primitives import disclose, enclose, equal, hmac_sha256, mac

_GENERATOR = b"macaroons-key-generator"


def derive(key: bytes) -> bytes:
    """The macaroon key of an application key: every chain starts from the derived one."""
    return hmac_sha256(_GENERATOR, key)


# Two names for one function, so that a caller says what it means. Both take a key of 32 bytes.
mint_tag = mac  # (derived key, identifier) -> tag
link_tag = mac  # (tag, link) -> tag


def third_party_tag(tag: bytes, vid: bytes, cid: bytes) -> bytes:
    """The tag after a third-party caveat: vid first, then cid (spec 11.3).

    Both are hashed before they are joined, so that no byte goes over from the one to the other.
    """
    return mac(tag, mac(tag, vid) + mac(tag, cid))


def bind(root_tag: bytes, discharge_tag: bytes) -> bytes:
    """A discharge's tag once it is bound to the token whose final tag is `root_tag` (spec 11.5).

    Under a key of zeros, which everybody knows: it is two tags that make it, and it hides both.
    """
    return third_party_tag(bytes(32), root_tag, discharge_tag)


def extend(tag: bytes, caveat: RawCaveat) -> bytes:
    """The tag after one more caveat of either kind.

    Does not look at how many there are, or how long: `check_limits` does.
    """
    cid, vid = caveat
    if vid:
        return third_party_tag(tag, vid, cid)
    return mac(tag, cid)


def ask(tag: bytes, key: bytes, cid: bytes, random: Callable[[int], bytes]) -> RawCaveat:
    """The third-party caveat that asks for a discharge under the caveat key `key`.

    It goes after the link that ends in `tag`, and nowhere else: the key is boxed under that tag, so
    that a verifier alone can open it (spec 32.1). `random` gives the nonce of 24 bytes, which must
    be fresh.
    """
    nonce = random(24)
    return cid, enclose(tag, derive(key), nonce)


def fold(
    derived_key: bytes,
    packet: Packet,
    bound_to: bytes | None = None,
) -> tuple[bytes, ...] | None:
    """The tag after each caveat, if the last one is the packet's signature; else None.

    For a discharge, `bound_to` is the signature of the token that it goes with. Every caveat is
    hashed, held or not (spec 11.4). What the caveats mean is not looked at.

    Costs one HMAC for each first-party caveat, and three for each of a third party.
    """
    tag = mac(derived_key, packet.identifier)
    tags: list[bytes] = []
    for cid, vid in packet.caveats:  # as `extend` does, without the call
        tag = third_party_tag(tag, vid, cid) if vid else mac(tag, cid)
        tags.append(tag)

    # In constant time: otherwise a signature could be guessed one byte after the other. No tag is
    # given out unless it holds, so that nothing is judged on a chain that somebody made up.
    carried = tag if bound_to is None else bind(bound_to, tag)
    return tuple(tags) if equal(carried, packet.signature) else None


def answer_key(
    derived_key: bytes, packet: Packet, tags: tuple[bytes, ...], at: int
) -> bytes | None:
    """The macaroon key that the discharge of third-party caveat `at` is under.

    None if its box does not open: a holder can write any vid. The box was made with the tag before
    the caveat; `tags` are those that `fold` gave.
    """
    before = tags[at - 1] if at else mac(derived_key, packet.identifier)
    _, vid = packet.caveats[at]
    return disclose(before, vid)
