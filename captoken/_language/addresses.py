"""IP addresses and blocks of them, as constraints compare them (spec, "Constraints").

    address("10.1.2.3")           # (4, 167838211)
    block("10.0.0.0/8")           # Block(version=4, first=167772160, length=8)
    in_block(one, 4, number)      # is the address in it?

An address has one spelling: four decimals without leading zeros, or RFC 5952 for version 6. It is
read here, since Python's `ipaddress` reads more than that, and takes several times as long: a
holder can fill a token with a thousand of them. What writes is that library.

*Why one spelling:* `010.0.0.1` is 8.0.0.1 to one program and 10.0.0.1 to another. `::ffff:10.0.0.1`
is an address of version 4 in the clothes of version 6, which a block of either would miss: such a
mapped address is none here, and a block that touches them is refused.

Nothing is resolved: a name is no address. What an address embeds, as 64:ff9b::/96 and 2002::/16 do,
is not looked at.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from captoken._format.spelling import shown

# The decimals of version 4, each in its one spelling.
_DECIMALS = {str(number): number for number in range(256)}
# Groups of four digits, in lower case and without leading zeros (RFC 5952, 4.1 and 4.3): eight of
# them, or fewer around one `::`. No zone, and no decimals of version 4 at the end.
_GROUP = "(?:0|[1-9a-f][0-9a-f]{0,3})"
_is_whole_v6 = re.compile(rf"{_GROUP}(?::{_GROUP}){{7}}").fullmatch
_is_short_v6 = re.compile(
    rf"((?:{_GROUP}(?::{_GROUP}){{0,5}})?)::((?:{_GROUP}(?::{_GROUP}){{0,5}})?)"
).fullmatch
_is_length = re.compile(r"0|[1-9][0-9]{0,2}").fullmatch
_BITS = {4: 32, 6: 128}
_MAX_CHARS = 39  # eight groups of four digits, with colons between


class Block(NamedTuple):
    """All addresses that begin with the same `length` bits. `first` has no other bit set.

    Two blocks are nested or disjoint. In their order a block stands before those inside it.
    """

    version: int
    first: int
    length: int

    def __str__(self) -> str:
        """In its one spelling, like `10.0.0.0/8`."""
        from ipaddress import IPv4Address, IPv6Address  # for words and for writers

        if self.version == 4:
            return f"{IPv4Address(self.first)}/{self.length}"
        return f"{IPv6Address(self.first)}/{self.length}"


# The first 96 bits of an IPv4 address in IPv6 notation.
_MAPPED_BITS = 0xFFFF


def address(text: str) -> tuple[int, int] | None:
    """The version and the number of an address in its one spelling, or None.

    A mapped one is none. Never raises, whatever the text.

        address("10.0.0.1")      # (4, 167772161)
        address("010.0.0.1")     # None, and so are 10.1, 0xa000001 and 10.0.0.1:80
        address("2001:DB8::1")   # None: in lower case it is one
    """
    # A longer text is none, and is not looked at: this is asked of each string for a prefix.
    if len(text) > _MAX_CHARS:
        return None
    number = _v4(text) if text.count(".") == 3 else None
    if number is not None:
        return 4, number
    number = _v6(text) if ":" in text else None
    if number is None or number >> 32 == _MAPPED_BITS:
        return None
    return 6, number


def _v4(text: str) -> int | None:
    """The number of an address of version 4, or None for another text with three dots."""
    try:
        first, second, third, fourth = map(_DECIMALS.__getitem__, text.split("."))
    except KeyError:  # no decimal from 0 to 255, in its one spelling
        return None
    return first << 24 | second << 16 | third << 8 | fourth


def _v6(text: str) -> int | None:
    """The number of an address of version 6 as RFC 5952 spells it, or None. Mapped ones too."""
    if "::" not in text:
        # Two zeros side by side are left out (4.2.1).
        is_spelled = _is_whole_v6(text) is not None and ":0:0:" not in f":{text}:"
        return _number(text.split(":")) if is_spelled else None

    short = _is_short_v6(text)
    if short is None:
        return None
    head, tail = short.groups()
    before = head.split(":") if head else []
    after = tail.split(":") if tail else []
    zeros = 8 - len(before) - len(after)
    if zeros < 2:  # one zero alone is written (4.2.2)
        return None

    # All of the run is left out, and no other run is longer, or as long and before it (4.2.3).
    if before[-1:] == ["0"] or after[:1] == ["0"]:
        return None
    if "0:0" in text:  # seldom: most have no other run
        run = ":" + "0:" * zeros
        if run in f":{head}:" or f"{run}0:" in f":{tail}:":
            return None
    return _number([*before, *["0000"] * zeros, *after])


def _number(groups: Iterable[str]) -> int:
    """The number that groups spell, one behind the other."""
    return int("".join([group.zfill(4) for group in groups]), 16)


def block(text: str) -> Block:
    """The block that a text spells: its first address, a slash, and its length (spec 13.15).

        block("10.0.0.0/8")     # Block(4, 167772160, 8)
        block("10.0.0.1/8")     # ValueError, which says 10.0.0.0/8

    Raises ValueError for another spelling, for bits set behind the length, and for a block that
    holds mapped addresses or lies among them.
    """
    start, slash, behind = text.partition("/")
    found = address(start)
    if found is None or not slash or not _is_length(behind):
        like = "10.0.0.0/8, 192.0.2.7/32 or 2001:db8::/32"
        raise ValueError(
            f"{shown(text)} is not a block of addresses in canonical form, like {like}"
        )

    # What is behind the length is free, and has to be zero: a block has one spelling.
    version, number = found
    free = _BITS[version] - int(behind)
    if free < 0:
        raise ValueError(f"{shown(text)} is not a block: its length is longer than an address")
    made = Block(version, number >> free << free, int(behind))
    if made.first != number:
        raise ValueError(
            f"{shown(text)} is not a block: it has bits set beyond its length; write {made}"
        )
    # One that lies among them has no address that is one, and was refused above.
    if version == 6 and in_block(made, 6, _MAPPED_BITS << 32):
        raise ValueError(
            f"{shown(text)} includes ::ffff:0:0/96, which are IPv4 addresses in disguise"
        )
    return made


def in_block(outer: Block, version: int, number: int) -> bool:
    """Is the address in the block? An address of the other version never is.

    Asked of the first address of another block, it says whether the two overlap from there on.
    """
    if outer.version != version:
        return False
    # Only the bits that all its addresses have in common are compared.
    free = _BITS[version] - outer.length
    return number >> free == outer.first >> free


def merged(blocks: Iterable[Block]) -> tuple[Block, ...]:
    """The fewest blocks that hold the same addresses, in order: one result for one set.

    A block inside another says nothing more, and two halves are the whole.

        10.0.0.0/9, 10.128.0.0/9, 10.1.0.0/16     # 10.0.0.0/8
    """
    kept: list[Block] = []
    for one in sorted(blocks):
        # What could hold it stands before it, and is the last of those that were kept.
        if kept and in_block(kept[-1], one.version, one.first):
            continue
        kept.append(one)
        # A whole may be half of the next larger one in turn.
        while len(kept) > 1 and _are_halves(kept[-2], kept[-1]):
            kept.pop()
            low = kept.pop()
            whole = Block(low.version, low.first, low.length - 1)
            kept.append(whole)
    return tuple(kept)


def _are_halves(low: Block, high: Block) -> bool:
    """Are they the two halves of one block, in this order?"""
    if low.version != high.version or low.length != high.length:
        return False
    # They differ in the last of their bits alone, and the lower one has not set it.
    last = 1 << (_BITS[low.version] - low.length)
    return low.first ^ high.first == last


def in_both(one: Sequence[Block], two: Sequence[Block]) -> tuple[Block, ...]:
    """The blocks of the addresses that both hold, merged. Both are merged already.

    One pass over both: blocks are nested or disjoint, so that the inner one is what both hold.
    """
    found: list[Block] = []
    at = 0
    other = 0
    while at < len(one) and other < len(two):
        mine = one[at]
        its = two[other]
        # The inner one is found, and the next of its list may lie in the same outer one.
        if in_block(mine, its.version, its.first) and mine.length <= its.length:
            found.append(its)
            other += 1
        elif in_block(its, mine.version, mine.first):
            found.append(mine)
            at += 1
        # They are disjoint: the one that stands before the other has no more to meet.
        elif mine < its:
            at += 1
        else:
            other += 1
    return merged(found)


def in_any_block(blocks: Sequence[Block], version: int, number: int) -> bool:
    """Is the address in one of the blocks, which are merged?

    In their order, only the last that begins at or before the address can hold it. So a long list
    costs a request no more than a few comparisons.
    """
    at = bisect_right(blocks, (version, number, _BITS[version]))
    return at > 0 and in_block(blocks[at - 1], version, number)
