"""The files of trails: which there are, whether one is what it was, and what is new in it.

Nothing here keeps anything. What was read of a trail, the index has (`index`).
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import IO, NamedTuple

from captoken._format.errors import AuditError
from captoken.audit._chains import begins_after, chains, not_here
from captoken.audit._check import numbered
from captoken.stores.ports import Head

STEP = 1 << 20  # bytes of a trail that are taken in one transaction
LONGEST = 1 << 26  # bytes of one record
_FIRST = 4096  # bytes of the first line that tell a file from another

# A file of a trail, and one that logrotate has renamed: `.1`, or `-20261201`.
_TRAIL = re.compile(r"(.*)\.jsonl([.-][0-9]+)*", re.DOTALL).fullmatch


class Trail(NamedTuple):
    """How far a trail was read."""

    id: int
    path: str

    # Its name, for people.
    name: str
    offset: int

    # What its first record follows on, and its last record.
    after: Head
    head: Head
    last_at: int | None

    # Why nothing more is read of it.
    trouble: str | None

    # Which file it is, whatever its name; None before anything was read.
    identity: str | None


class Whole(NamedTuple):
    """The files of one trail, in order, under the name of the last one."""

    name: str
    files: list[Trail]

    # What the first follows on: `Head()` where it is the first of the trail.
    after: Head
    trouble: str | None

    # That another file claims the same place.
    twin: str | None

    @property
    def head(self) -> Head:
        """The last record."""
        return self.files[-1].head

    @property
    def paths(self) -> list[str]:
        """The files of which something was read."""
        return [one.path for one in self.files if one.offset]

    @property
    def last_at(self) -> int | None:
        """When the last record was written."""
        return max((one.last_at for one in self.files if one.last_at is not None), default=None)

    @property
    def lacks(self) -> str | None:
        """Why it is not whole, in words: what is here is shown all the same."""
        return self.twin or not_here(self.after)


def wholes(trails: Sequence[Trail]) -> list[Whole]:
    """The trails, each of one file or of several that continue each other."""
    found = chains([(one.after, one.head) for one in trails])
    names = names_for([trails[one.files[-1]].path for one in found])
    return [
        Whole(name, files, one.after, _trouble_of(files), one.trouble)
        for name, one in zip(names, found, strict=True)
        for files in [[trails[place] for place in one.files]]
    ]


def _trouble_of(files: Sequence[Trail]) -> str | None:
    """What is wrong with a file of a trail: with its name, where there are several."""
    for one in files:
        if one.trouble is not None:
            of_many = len(files) > 1
            return f"{os.path.basename(one.path)}: {one.trouble}" if of_many else one.trouble
    return None


def files_of(source: str) -> list[str]:
    """The files that a source names: itself, those of a folder, or those that fit a pattern.

    Of a folder, those too that were rotated, unless they are compressed.
    """
    if os.path.isdir(source):
        there = glob.glob(os.path.join(glob.escape(source), "*.jsonl*"))
        return sorted(path for path in there if _TRAIL(path))
    if glob.has_magic(source) and not os.path.lexists(source):
        return sorted(glob.glob(source))
    return [source]


def beside(path: str) -> list[str]:
    """The files whose names begin as that of a trail does, before and after it is rotated."""
    found = _TRAIL(path)
    stem = path if found is None else found[1]
    return sorted(glob.glob(f"{glob.escape(stem)}*"))


def identity_of(path: str) -> str | None:
    """Which file has the name, if one has."""
    try:
        with open(path, "rb") as file:
            return _identity(file)
    except OSError:
        return None


def _number(identity: str) -> str:
    return identity.partition(" ")[0]


def _identity(file: IO[bytes]) -> str:
    """Which file it is, whatever its name: by its first line, too.

    The number of a file that was removed is given to the next one.
    """
    opened = os.fstat(file.fileno())
    file.seek(0)
    return f"{opened.st_dev}:{opened.st_ino} {sha256(file.readline(_FIRST)).hexdigest()[:16]}"


def goes_on_elsewhere(trail: Trail) -> bool:
    """Has another file its name, which is empty yet or continues a trail?

    Then whoever rotates has moved its own file out of sight.
    """
    try:
        with open(trail.path, "rb") as file:
            first = file.readline(LONGEST)
            is_another = _number(_identity(file)) != _number(trail.identity or "")
    except OSError:
        return False
    # One that was cut to nothing where it stands is still the same.
    return begins_after(first) not in (Head(), trail.after) if first else is_another


def next_lines(trail: Trail) -> tuple[list[bytes], str]:
    """The next whole lines of a trail, and which file they are of.

    What is still being written is left for the next time.

    Raises OSError, and AuditError for a file that is not what it was.
    """
    with open(trail.path, "rb") as file:
        identity = _identity(file)
        if os.fstat(file.fileno()).st_size < trail.offset:
            raise AuditError("the file is shorter than it was: it was cut, or replaced")
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
    return [line + b"\n" for line in whole.split(b"\n")[:-1]], identity


def head_again(trail: Trail) -> Head | None:
    """The head to which the records lead that were read of a trail. None where they do not hold.

    Raises OSError where the file cannot be read.
    """
    head, at = trail.after, 0
    try:
        while at < trail.offset:
            lines, _ = next_lines(trail._replace(offset=at))
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
    parts = [_without_suffix(Path(path)).parts for path in paths]
    for count in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(one[-count:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


def _without_suffix(path: Path) -> Path:
    """A path without `.jsonl` or what stands there. What a rotation has added tells files apart."""
    return path.with_suffix("") if path.suffix[1:].isalpha() else path
