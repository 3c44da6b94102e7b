"""The files of trails: which there are, whether one is what it was, and what is new in it.

Nothing here keeps anything. What was read of a trail, the index has (`index`).
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from captoken._format.errors import AuditError
from captoken.audit._check import numbered
from captoken.stores.ports import Head

STEP = 1 << 20  # bytes of a trail that are taken in one transaction
LONGEST = 1 << 26  # bytes of one record


class Trail(NamedTuple):
    """How far a trail was read."""

    id: int
    path: str

    # Its name, for people.
    name: str
    offset: int
    head: Head
    last_at: int | None

    # Why nothing more is read of it.
    trouble: str | None

    # Which file it is, whatever its name; None before anything was read.
    inode: str | None


def files_of(source: str) -> list[str]:
    """The files that a source names: itself, those of a folder, or those that fit a pattern."""
    if os.path.isdir(source):
        return sorted(glob.glob(os.path.join(glob.escape(source), "*.jsonl")))
    if glob.has_magic(source) and not os.path.lexists(source):
        return sorted(glob.glob(source))
    return [source]


def inode_of(path: str) -> str | None:
    """Which file has the name, if one has."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return f"{found.st_dev}:{found.st_ino}"


def next_lines(trail: Trail) -> list[bytes]:
    """The next whole lines of a trail: what is still being written is left for the next time.

    Raises OSError, and AuditError for a file that is not what it was.
    """
    with open(trail.path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < trail.offset:
            raise AuditError("the file is shorter than it was: it was cut, or is another one")
        file.seek(trail.offset)
        pieces = [file.read(STEP)]
        length = len(pieces[0])
        # Each piece is looked at once: a long line that is not at its end comes at each look.
        while pieces[-1] and b"\n" not in pieces[-1]:
            if length > LONGEST:
                raise AuditError(f"a line of more than {LONGEST} bytes")
            pieces.append(file.read(STEP))
            length += len(pieces[-1])
    data = b"".join(pieces)
    whole = data[: data.rfind(b"\n") + 1]
    # Split only at line feeds, because `splitlines` knows other ends of lines.
    return [line + b"\n" for line in whole.split(b"\n")[:-1]]


def head_again(trail: Trail) -> Head | None:
    """The head to which the records lead that were read of a trail. None where they do not hold.

    Raises OSError where the file cannot be read.
    """
    head, at = Head(), 0
    try:
        while at < trail.offset:
            lines = next_lines(trail._replace(offset=at))
            for line, (_, reached) in zip(lines, numbered(lines, head), strict=True):
                at += len(line)
                head = reached
                if at == trail.offset:
                    return head
            if not lines:
                return None
    except AuditError:
        return None
    return None


def names_for(paths: Sequence[str]) -> list[str]:
    """A name for each file: its own, with as many of its folders as tell it from the others."""
    parts = [Path(path).with_suffix("").parts for path in paths]
    for count in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(one[-count:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)
