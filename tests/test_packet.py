"""Fields of a packet: any length that fits is written and read back, and what does not is an error of the writer's."""

from __future__ import annotations

import pytest

from captoken import TokenFormatError
from captoken._format.packet import encode
from captoken._format.parts import Packet
from tests.fixtures import SALES, mint


def test_a_foreign_caveat_may_have_an_empty_location_only_where_a_third_party_is_asked() -> None:
    vid = b"\x04\x48" + bytes(72)
    head, tail = b"\x02\x02\x01i\x00", b"\x00\x06\x20" + bytes(32)
    from captoken._format.packet import decode, without_locations

    asked = head + b"\x01\x00\x02\x01c" + vid + b"\x00" + tail
    assert decode(without_locations(asked)).caveats == ((b"c", bytes(72)),)
    for wrong in (head + b"\x01\x00\x02\x01c\x00" + tail, head + b"\x02\x01c\x04\x47" + bytes(71) + b"\x00" + tail):
        with pytest.raises(TokenFormatError):
            decode(without_locations(wrong))
    with pytest.raises(TokenFormatError):
        decode(asked)


def test_fields_of_every_length_are_written_and_read_back() -> None:
    from captoken._format.packet import decode

    for size in (1, 127, 128, 16383, 16384, 32767):
        packet = Packet(b"i", ((b"c" * size, b""), (b"d", bytes(72))), bytes(32))
        assert decode(encode(packet)) == packet
    for size in (0, 32768):
        with pytest.raises(ValueError):
            encode(Packet(b"i", ((b"c" * size, b""),), bytes(32)))
    assert "caveats" in repr(packet) and "0, 0" not in repr(packet)


def test_what_would_outgrow_a_field_is_an_error_of_the_writers() -> None:
    from captoken.errors import LimitError

    with pytest.raises((LimitError, ValueError)):
        mint(**SALES).attenuate(where={"a": {"in": [f"{n:0200}" for n in range(200)]}})
