"""Which files are one trail: each that continues another follows on its last record (spec 39.2).

    begins_after    the record that a file says it follows on
    span_of         that, and the last record of the file
    chains          the files in order, one chain for each trail

Names of files say nothing here. Nothing is checked either: whoever reads the files of a chain one
after the other checks that each record follows, across the files as within one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from captoken._format import primitives
from captoken._format.encoding import b64encode
from captoken._format.errors import AuditError
from captoken.audit._check import bytes_of, record_of
from captoken.stores.ports import Head


class Chain(NamedTuple):
    """Files that are one trail, by their places in what was given.

    `after` is what the first of them follows on: `Head()` where a trail begins. Any other is in a
    file that is not here. `trouble` says that two files claim one place.
    """

    files: tuple[int, ...]
    after: Head
    trouble: str | None


def begins_after(line: bytes) -> Head:
    """What the first line of a file says that it follows on; `Head()` for the first of a trail.

    This is a claim. A line that is no record gets `Head()`, and whoever reads it refuses it.
    """
    seq, prev = _place(line)
    return Head(seq - 1, prev) if seq > 1 and len(bytes_of(prev)) == 32 else Head()


def span_of(lines: Iterable[bytes]) -> tuple[Head, Head]:
    """What the lines of a file follow on, and their last record. Both are claims."""
    first = last = b""
    for last in lines:
        first = first or last
    seq, _ = _place(last)
    hash = b64encode(primitives.sha256(last.removesuffix(b"\n")))
    return begins_after(first), Head(seq, hash) if seq else Head()


def _place(line: bytes) -> tuple[int, str]:
    """The number of a record and the hash of the one before; 0 for a line that is no record."""
    try:
        record = record_of(line.removesuffix(b"\n"), 0)
    except AuditError:
        return 0, ""
    seq, prev = record.get("seq"), record.get("prev")
    return (seq, prev) if type(seq) is int and type(prev) is str else (0, "")


def chains(spans: Sequence[tuple[Head, Head]]) -> list[Chain]:
    """Which files are one trail. Of each: what it follows on, and its last record.

    A file is joined to the one before only where no other file claims its place, and one file alone
    ends there. So a forged file never hides the one that it imitates, whichever comes first.
    """
    ends: dict[Head, list[int]] = {}
    for place, (_, last) in enumerate(spans):
        ends.setdefault(last, []).append(place)
    claims = Counter(after for after, _ in spans)

    next_of: dict[int, int] = {}
    troubles: dict[int, str] = {}
    for place, (after, _) in enumerate(spans):
        before = ends.get(after, [])
        if after == Head():
            continue
        if claims[after] > 1 or len(before) > 1:
            troubles[place] = f"{_TWO} record {after.seq}: one of them is a copy, or forged"
        elif before:
            next_of[before[0]] = place

    joined = set(next_of.values())
    found: list[Chain] = []
    for place, (after, _) in enumerate(spans):
        if place not in joined:
            files = [place]
            while files[-1] in next_of:
                files.append(next_of[files[-1]])
            found.append(Chain(tuple(files), after, troubles.get(place)))
    return found


_TWO = "two files claim the same place around"


def not_here(after: Head) -> str | None:
    """That the file before is missing, in words; None where the trail begins."""
    if after == Head():
        return None
    return f"it continues a file that is not here, after record {after.seq}"
