"""Macaroon V2 binary, in its one spelling (spec, "Wire").

    02                                   version
    02 <length> <identifier> 00          header section
    02 <length> <cid> [04 48 <vid>] 00   one section a caveat; vid only for a third party's
    00                                   end of caveats
    06 20 <signature, 32 bytes>          nothing after it

Lengths are minimal base-128 varints. There are no location fields: they are outside the signature,
and anybody could write them. No keys here, and no JSON. One pass over the bytes, and every length
is held against what is there before anything is cut out.

*Why so strict:* a field that is passed over, or a length that is written longer, gives one token
two texts. A deny-list that knows one of them would not stop the other.
"""

from __future__ import annotations

from captoken._format.encoding import LIMITS
from captoken._format.errors import TokenFormatError
from captoken._format.parts import Packet, RawCaveat

VID_BYTES = 72  # nonce 24, tag 16, key 32
# Type 6 and a length of 32: the one way in which a signature begins.
_SIGNATURE = b"\x06\x20"
# Type 1 and a length of 0, which other libraries write. No token of ours has it.
_EMPTY_LOCATION = b"\x01\x00"


def _length(data: bytes, at: int) -> tuple[int, int]:
    """A varint of two bytes or three, minimal and up to 32,767, and where it ends (spec 10.1).

    Seven bits a byte, least significant first; the high bit says that another byte follows. 300 is
    `ac 02`: 0x2c, and 2 times 128. Written as `ac 82 00` it would be 300 too. Two spellings are
    two texts of one token, so only the shortest is read.

    The first byte has its high bit: `_field` looked. Raises TokenFormatError, IndexError at the
    end.
    """
    # Most fields are short, and have a length of one byte.
    size = data[at] & 0x7F | (data[at + 1] & 0x7F) << 7
    end = at + 2
    least = 0x80
    if data[at + 1] >= 0x80:
        size |= data[end] << 14  # a high bit here makes it larger than the limit
        end += 1
        least = 0x4000

    # Less than the least would have fitted into fewer bytes: a second spelling of one token.
    if not least <= size <= LIMITS.field_bytes:
        raise TokenFormatError(
            "a field is longer than the limit, or its length is not written minimally"
        )
    return size, end


def _field(data: bytes, at: int) -> tuple[bytes, int]:
    """The bytes of a field whose length stands at `at`, and where it ends.

    Does not look at the type before it. No field may be empty (spec 10.5). Raises TokenFormatError,
    and IndexError at the end of the data.

        _field(b"\\x02\\x02ab\\x00", 1)    # b"ab", 4: the byte behind it is at 4
    """
    size = data[at]
    if size < 0x80:
        at += 1
    else:
        size, at = _length(data, at)

    # A slice that goes beyond the end would be cut short in silence.
    end = at + size
    if not size or end > len(data):
        raise TokenFormatError(
            "a field is empty, or runs past the end of the token: was the text cut?"
        )
    return data[at:end], end


def decode(data: bytes, identifier_bytes: int = LIMITS.root_bytes) -> Packet:
    """The packet that `data` spells.

    `identifier_bytes` is the most that its identifier may have: a token's root record, or a
    discharge's ticket. Does not look at what identifier and links say, and verifies nothing.

    Takes time with the length of the data, which callers bound. Raises TokenFormatError and nothing
    else, whatever the bytes are (spec, "Wire").
    """
    # One error for all data that ends too early: a byte that is missing is an IndexError.
    try:
        # The version, and the type of the identifier. A location would have type 1 (spec 10.3).
        if data[0] != 2 or data[1] != 2:
            raise TokenFormatError("not a version 2 macaroon, or it has a location")
        identifier, at = _field(data, 2)
        # Before anything is hashed, so that a stranger cannot ask for much work (spec 3.1). `step`
        # says that the limits refuse it, and not the form.
        if len(identifier) > identifier_bytes:
            raise TokenFormatError(
                f"the identifier is longer than {identifier_bytes} bytes", step=1
            )
        # A zero byte ends the section. Any other is the type of a field more.
        if data[at]:
            raise TokenFormatError("the header has a field that does not belong there")
        at += 1

        # The caveats, up to an empty section. The limit comes before the next one is read.
        caveats: list[RawCaveat] = []
        while data[at]:
            if len(caveats) == LIMITS.links:
                raise TokenFormatError(f"more than {LIMITS.links} links", step=1)
            if data[at] != 2:
                raise TokenFormatError(
                    "a caveat does not start with its identifier, or has a location"
                )
            # The link itself is not read: `links` does, after the chain has held.
            cid, at = _field(data, at + 1)

            # A third party's caveat has one field more, and all others have none.
            # Types are one byte, and stand in one order: whatever else comes is refused (10.4).
            vid = b""
            if data[at] == 4:
                vid, at = _verification_id(data, at + 1)
            if data[at]:
                raise TokenFormatError("a caveat has a field that does not belong there")
            at += 1
            caveats.append((cid, vid))

        # The signature ends the data: what stands behind it would be another text of one token.
        # Here `at` is the empty section; then come type and length, and 32 bytes.
        signature = data[at + 3 :]
        if data[at + 1 : at + 3] != _SIGNATURE or len(signature) != 32:
            raise TokenFormatError("the signature is not the last 32 bytes: was the text cut?")
    except IndexError:
        raise TokenFormatError("the token ends too early: was the text cut?") from None
    return Packet(identifier, tuple(caveats), signature)


def _verification_id(data: bytes, at: int) -> tuple[bytes, int]:
    """What a third party's caveat carries beside its identifier, and where it ends.

    A box with its nonce, of one length: it is not opened here. Raises TokenFormatError, and
    IndexError at the end of the data.
    """
    # Other lengths would not open as a box either; here they are refused before any key is used.
    vid, end = _field(data, at)
    if len(vid) != VID_BYTES:
        raise TokenFormatError(f"a verification id is not {VID_BYTES} bytes")
    return vid, end


def without_locations(data: bytes) -> bytes:
    """`data` without the empty location fields that other macaroon libraries write.

    They stand first in the header, and first in the caveat of a third party (spec 25.3). A location
    that says something is kept, and so refused by `decode`: it is outside of the signature.

    For `captoken.interop` alone: with it, one token has more than one spelling. Checks no limits,
    since `decode` does so afterwards. Raises TokenFormatError for what is cut short.
    """
    # The version byte is passed on as it is, whatever it says.
    sections = [data[:1]]
    try:
        # Header and caveats without their locations, up to an empty section.
        kept, at = _section(data, 1, is_header=True)
        sections.append(kept)
        while data[at]:
            kept, at = _section(data, at, is_header=False)
            sections.append(kept)
    except IndexError:
        raise TokenFormatError("the token ends too early: was the text cut?") from None

    # And the rest as it is: the end of the caveats, the signature, and whatever stands behind it.
    sections.append(data[at:])
    return b"".join(sections)


def _section(data: bytes, at: int, *, is_header: bool) -> tuple[bytes, int]:
    """A header or a caveat without its empty location, and where it ends.

    Raises TokenFormatError, and IndexError at the end of the data.
    """
    has_location = data[at : at + 2] == _EMPTY_LOCATION
    if has_location:
        at += len(_EMPTY_LOCATION)

    # Fields are passed over, whatever their types: which ones belong here `decode` says.
    start = at  # behind the location
    kinds: list[int] = []
    while data[at]:
        kinds.append(data[at])
        _, at = _field(data, at + 1)

    # Other libraries write a location with a third party's caveat, and with no other.
    is_first_party = not is_header and 4 not in kinds
    if has_location and is_first_party:
        raise TokenFormatError("a first-party caveat has a location")
    return data[start : at + 1], at + 1


def _written(kind: int, payload: bytes) -> bytes:
    """A field with its type and its length, in as few bytes as it needs. Raises ValueError.

    The other way round of `_field` and `_length`. Up to 127 a length is one byte, up to 16,383 two.
    The limit of 32,767 takes three and no more.

        _written(2, b"ab")         # 02 02 61 62
        _written(2, b"a" * 300)    # 02 ac 02 61 61 …
    """
    size = len(payload)
    # What would not be read back is not written (spec 3.2).
    if not 0 < size <= LIMITS.field_bytes:
        raise ValueError(f"a field of {size} bytes")

    if size < 0x80:
        return bytes((kind, size)) + payload

    # Two bytes or three: the least significant seven bits come first.
    low = size & 0x7F | 0x80  # the high bit says that another byte follows
    if size < 0x4000:
        return bytes((kind, low, size >> 7)) + payload
    # Three bytes: seven bits in each of the first two, and what is left in the third.
    middle = size >> 7 & 0x7F | 0x80
    return bytes((kind, low, middle, size >> 14)) + payload


def encode(packet: Packet) -> bytes:
    """The bytes of a packet, which `decode` reads back if it keeps the limits.

    `encode(decode(data))` is `data`, for all that `decode` takes: there is one spelling.

    Does not look at how many caveats there are, or at lengths of vid and signature: what `decode`
    gave has them right, and writers ask `check_limits`. Computes no tag. Raises ValueError for a
    field that is empty or longer than the limit.
    """
    parts = [
        b"\x02",
        _written(2, packet.identifier),
        b"\0",
    ]
    for cid, vid in packet.caveats:
        parts.append(_written(2, cid))
        if vid:
            parts.append(_written(4, vid))
        parts.append(b"\0")

    parts += (
        b"\0",
        _SIGNATURE,
        packet.signature,
    )
    return b"".join(parts)
