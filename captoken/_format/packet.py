"""Macaroon V2 binary, in its one spelling (spec, "Wire").

    02                                   version
    02 <length> <identifier> 00          header section
    02 <length> <cid> [04 48 <vid>] 00   one section a caveat; vid, 72 bytes, only for a third party's
    00                                   end of caveats
    06 20 <signature, 32 bytes>          nothing after it

Lengths are minimal base-128 varints. There are no location fields. No keys here, and no JSON.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from captoken._format.encoding import LIMITS
from captoken._format.errors import TokenFormatError

VID_BYTES = 72  # nonce 24, tag 16, key 32
_SIGNATURE = b"\x06\x20"


# One caveat as it travels: its id, which is a link's bytes, and a verification id, empty unless a third party is asked.
RawCaveat: TypeAlias = tuple[bytes, bytes]


class Packet(msgspec.Struct, frozen=True):
    """A macaroon as it travels. The signature is the key to every narrower token: a secret, like the text."""

    identifier: bytes
    caveats: tuple[RawCaveat, ...]
    signature: bytes

    def __repr__(self) -> str:
        return f"<Packet, {len(self.caveats)} caveats>"


def _length(data: bytes, at: int) -> tuple[int, int]:
    """A varint of two bytes or three, minimal and up to 32,767, and where it ends."""
    size, end = data[at] & 0x7F | (data[at + 1] & 0x7F) << 7, at + 2
    least = 0x80
    if data[at + 1] >= 0x80:
        size, end = size | data[end] << 14, end + 1
        least = 0x4000
    if not least <= size <= LIMITS.field_bytes:
        raise TokenFormatError(
            "a field is longer than the limit, or its length is not written minimally"
        )
    return size, end


def _field(data: bytes, at: int) -> tuple[bytes, int]:
    size = data[at]
    if size < 0x80:
        at += 1
    else:
        size, at = _length(data, at)
    end = at + size
    if not size or end > len(data):
        raise TokenFormatError("a field is empty, or ends beyond the token")
    return data[at:end], end


def _skip_empty_location(data: bytes, at: int) -> int:
    return at + 2 if data[at : at + 2] == b"\x01\x00" else at


def decode(
    data: bytes, identifier_bytes: int = LIMITS.root_bytes, *, foreign: bool = False
) -> Packet:
    """The packet that `data` spells. Raises TokenFormatError and nothing else, whatever the bytes are.

    `identifier_bytes` is the most that its identifier, a token's root record or a discharge's ticket, may have.

    `foreign` lets the empty location fields pass that other macaroon libraries write; only `captoken.interop` sets it.
    Does not look at what identifier and links say.
    """
    try:
        at = 1
        if foreign:
            at = _skip_empty_location(data, at)
        if data[0] != 2 or data[at] != 2:
            raise TokenFormatError("not a macaroon of version 2, or with a location")
        identifier, at = _field(data, at + 1)
        if len(identifier) > identifier_bytes:
            raise TokenFormatError(
                f"the identifier is longer than {identifier_bytes} bytes", step=1
            )
        if data[at]:
            raise TokenFormatError("a field that does not belong in the header")
        at += 1
        caveats: list[RawCaveat] = []
        while data[at]:
            if len(caveats) == LIMITS.links:
                raise TokenFormatError(f"more than {LIMITS.links} links", step=1)
            start = at
            if foreign:
                at = _skip_empty_location(data, at)
            if data[at] != 2:
                raise TokenFormatError(
                    "a caveat that does not start with its identifier, or has a location"
                )
            cid, at = _field(data, at + 1)
            vid = b""
            if data[at] == 4:
                vid, at = _field(data, at + 1)
                if len(vid) != VID_BYTES:
                    raise TokenFormatError(f"a verification id that is not {VID_BYTES} bytes")
            elif foreign and data[start] == 1:
                raise TokenFormatError("a location on a first-party caveat")
            if data[at]:
                raise TokenFormatError("a field that does not belong in a caveat")
            at += 1
            caveats.append((cid, vid))
        signature = data[at + 3 :]
        if data[at + 1 : at + 3] != _SIGNATURE or len(signature) != 32:
            raise TokenFormatError("the signature is not the last 32 bytes")
    except IndexError:
        raise TokenFormatError("cut short") from None
    return Packet(identifier, tuple(caveats), signature)


def _written(kind: int, payload: bytes) -> bytes:
    size = len(payload)
    if not 0 < size <= LIMITS.field_bytes:
        raise ValueError(f"a field of {size} bytes")
    if size < 0x80:
        return bytes((kind, size)) + payload
    if size < 0x4000:
        return bytes((kind, size & 0x7F | 0x80, size >> 7)) + payload
    return bytes((kind, size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14)) + payload


def encode(packet: Packet) -> bytes:
    """The bytes of a packet. Raises ValueError for a field that is empty or longer than the limit."""
    parts = [b"\x02", _written(2, packet.identifier), b"\0"]
    for cid, vid in packet.caveats:
        parts.append(_written(2, cid))
        if vid:
            parts.append(_written(4, vid))
        parts.append(b"\0")
    parts += (b"\0", _SIGNATURE, packet.signature)
    return b"".join(parts)
