"""The parts of a text: how they are joined, how long each may be, and what a discharge is."""

from __future__ import annotations

import pytest

from captoken._format import text
from captoken._format.parts import Packet
from captoken._format.text import BOUND, PREFIX, UNBOUND
from tests.test_text import LINK, THIRD, TOKEN, refused, sized


@pytest.mark.parametrize("prefix", [UNBOUND, BOUND])
@pytest.mark.parametrize("count", [0, 1, 2, 16])
def test_parts_are_joined_by_full_stops(prefix: str, count: int) -> None:
    """A token and 0 to 16 discharges of one kind come back as they went."""
    answers = tuple(Packet(b"cid %d" % at, (LINK,), bytes([at]) * 32) for at in range(count))
    written = text.whole_text(TOKEN, answers, prefix)
    assert written.count(".") == count and text.parts_of(written, prefix) == text.Parts(TOKEN, answers)
    if count:
        refused(text.parts_of, written, BOUND if prefix == UNBOUND else UNBOUND)


def test_the_limits_of_a_part_are_inclusive() -> None:
    """8,192 characters of a token and of each discharge; 1,024 bytes of a root record, 2,048 of a discharge's id."""
    assert len(sized(8192, b"id", UNBOUND)) == len(sized(8191, b"id", PREFIX)) + 1 == 8192
    assert text.packet_of(sized(8191, b"id", PREFIX)) and text.discharge_of(sized(8192, b"id", UNBOUND), UNBOUND)
    refused(text.packet_of, sized(8195, b"id", PREFIX))
    refused(text.discharge_of, sized(8196, b"id", BOUND), BOUND)
    for size, read in ((1024, text.packet_of), (2048, lambda part: text.discharge_of(part, UNBOUND))):
        prefix = PREFIX if size == 1024 else UNBOUND
        assert read(text.text_of(Packet(b"i" * size, (LINK,), bytes(32)), prefix))
        assert refused(read, text.text_of(Packet(b"i" * (size + 1), (LINK,), bytes(32)), prefix)).step == 1


def test_a_discharge_has_a_link_and_no_third_party() -> None:
    """Without a link of whoever made it, or with a question of its own, it is none; a token may ask."""
    assert text.packet_of(text.text_of(TOKEN)).caveats[1] == THIRD
    for prefix in (UNBOUND, BOUND):
        assert "a discharge has a third-party caveat itself" in str(refused(text.discharge_of, text.text_of(TOKEN, prefix), prefix))
        bare = Packet(b"cid", (), bytes(32))
        assert "the token has no link: its issuer writes at least one" in str(refused(text.discharge_of, text.text_of(bare, prefix), prefix))
    refused(text.packet_of, text.text_of(Packet(b"root record", (), bytes(32))))
