"""An address has one spelling, which Python's own library writes and this reads in a fraction of the time."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Iterable

import pytest

from captoken._language.addresses import Block, address, in_any_block, in_both, merged


def by_the_library(text: str) -> tuple[int, int] | None:
    """What `ipaddress` reads, if it would write the same; mapped addresses are none."""
    try:
        read = ipaddress.ip_address(text)
    except ValueError:
        return None
    if str(read) != text or "%" in text:
        return None
    is_mapped = read.version == 6 and int(read) >> 32 == 0xFFFF
    return None if is_mapped else (read.version, int(read))


def spelled(rng: random.Random) -> str:
    """Some address, with many zeros in it, as the library spells it."""
    groups = (rng.choice(("0000", "0000", "0001", "ffff", "00a0", "1234")) for _ in range(8))
    return str(ipaddress.IPv6Address(int("".join(groups), 16)))


def joined(rng: random.Random) -> str:
    return ":".join(rng.choice(("0", "0", "1", "ff", "", "abcd", "01", "A")) for _ in range(rng.randint(1, 9)))


def shortened(rng: random.Random) -> str:
    return "::".join(":".join(rng.choice(("0", "1", "ff")) for _ in range(rng.randint(0, 5))) for _ in range(2))


def decimal(rng: random.Random) -> str:
    return ".".join(rng.choice(("0", "1", "9", "10", "255", "256", "01", "")) for _ in range(rng.choice((3, 4, 4, 4, 5))))


def changed(rng: random.Random) -> str:
    text = rng.choice((spelled, decimal))(rng)
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice("0:1aF.%/ ") + text[at + rng.randint(0, 1) :]


@pytest.mark.parametrize("made", [spelled, joined, shortened, decimal, changed])
def test_an_address_is_read_as_the_library_reads_it(made: Callable[[random.Random], str]) -> None:
    """And in no other spelling."""
    rng = random.Random(made.__name__)
    texts = [made(rng) for _ in range(5_000)]
    wrong = [text for text in texts if address(text) != by_the_library(text)]
    assert not wrong[:5]
    assert any(address(text) for text in texts) or made is changed


def test_blocks_are_merged_and_met_as_by_their_addresses() -> None:
    """Of the 16 smallest blocks that halve both versions four times, any lists: as few blocks as hold the addresses, in order."""
    rng = random.Random(5)
    bits = {4: 32, 6: 128}
    places = [(version, at << (bits[version] - 4)) for version in bits for at in range(16)]

    def drawn() -> list[Block]:
        made = []
        for _ in range(rng.randrange(6)):
            version, length = rng.choice((4, 6)), rng.randint(0, 4)
            made.append(Block(version, rng.randrange(1 << length) << (bits[version] - length), length))
        return made

    def held(blocks: Iterable[Block]) -> set[tuple[int, int]]:
        shift = {block: bits[block.version] - block.length for block in blocks}
        return {(version, at) for version, at in places for block in shift if block.version == version and at >> shift[block] == block.first >> shift[block]}

    for _ in range(2000):
        one, two = drawn(), drawn()
        mine, its = merged(one), merged(two)
        assert held(mine) == held(one) and list(mine) == sorted(mine) and merged(reversed(mine)) == mine
        assert {place for place in places if in_any_block(mine, *place)} == held(mine)
        assert not any(held([a]) & held([b]) for a in mine for b in mine if a != b)
        both = in_both(mine, its)
        assert held(both) == held(mine) & held(its) and both == merged(both) == in_both(its, mine)
        # As few as can be: one for each largest block of which all is held.
        whole = [
            Block(version, at << (bits[version] - length), length)
            for version in bits for length in range(5) for at in range(1 << length)
            if held([Block(version, at << (bits[version] - length), length)]) <= held(one)
        ]  # fmt: skip
        assert list(mine) == sorted(block for block in whole if not any(held([block]) < held([wider]) for wider in whole))
