"""Trails, followed: each record once, checked to follow on the one before, whatever becomes of the
files.

    class Index(Follower): ...
    index = Index("index.db", ["trail.jsonl"])
    index.take()                      # what the trails have that was not read yet

How far each file was read stands in an SQLite file, along with what was made of the records, and
both change in one transaction. So whoever is stopped goes on where it was. What a trail says that
does not hold together is not believed: the trail is marked, and what stood before stays.

A file may be renamed, and another one begun in its place; it may be out of reach for a while; and a
folder may have new ones. The console follows so, and so do reactions.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Protocol

from captoken._format.encoding import OF_ANOTHER_SHAPE, own_words
from captoken._format.errors import AuditError
from captoken.audit._chains import begins_after
from captoken.audit._check import numbered
from captoken.cli.console.tables import Layout, Place, Tables
from captoken.cli.console.trails import (
    Trail,
    Whole,
    beside,
    files_of,
    goes_on_elsewhere,
    head_again,
    identity_of,
    next_lines,
    wholes,
)
from captoken.stores.ports import Head

CHANGED = "a record was changed after it was read"


class Batch(Protocol):
    """What some records of one trail come to, until it is written."""

    def add(self, place: Place, record: dict[str, Any]) -> None:
        """Take one record. Raises AuditError or ValueError for one that is not believed."""
        ...

    def write(self, trail: int) -> None:
        """Write what they come to, in the transaction that says how far the trail was read."""
        ...


class Follower(ABC):
    """Reads trails as they grow. Threads share one.

    `path` is where it keeps how far it has read; `:memory:` is as good for a small one. One that is
    of an earlier version, or of other trails, is made anew, unless its layout says that it must
    not. Raises StoreError for one that is of a newer version, and for a file of something else.
    """

    _layout: ClassVar[Layout]

    @abstractmethod
    def _batch(self) -> Batch:
        """What takes the next records of one trail."""

    def _forget(self) -> None:  # noqa: B027, most remember nothing
        """Drop what was remembered beside the tables, since they went back."""

    def _written(self) -> None:  # noqa: B027, most have nothing to do between
        """What is to be done behind each batch, before more is read."""

    def __init__(
        self, path: str | os.PathLike[str], trails: Iterable[str | os.PathLike[str]]
    ) -> None:
        # Files, folders and patterns, as they were given.
        self._sources = list(dict.fromkeys(str(Path(trail).resolve()) for trail in trails))
        self._tables = Tables(path, self._sources, self._layout)
        self.rows = self._tables.run
        self.rows_each = self._tables.run_each
        # By the id of a file that cannot be read now: why. It is tried again.
        self._out_of_reach: dict[int, str] = {}
        # By the id of a file: what its trail is called, for people.
        self.names: dict[int, str] = {}
        # Moves on with each change, so that a page can ask whether there is any.
        self.revision = 1
        self._find()

    def close(self) -> None:
        """Give the file back."""
        self._tables.close()

    def _find(self) -> None:
        """Take up each file that is new: of a folder or a pattern, or in the place of a trail that
        was rotated.
        """
        known = {value for row in self.rows("select path, identity from trails") for value in row}
        start = (Head().seq, Head().hash)
        # One that was renamed a moment ago is no new one.
        rows = [
            (path, source, *start, *start)
            for source in self._sources
            for path in files_of(source)
            if path not in known and (identity_of(path) or path) not in known
        ]
        self._tables.run_each(
            """
            insert or ignore into trails
            (path, source, offset, after_seq, after_hash, seq, hash)
            values (?, ?, 0, ?, ?, ?, ?)
            """,
            rows,
        )
        if rows or not self.names:
            self._name_all()

    def _name_all(self) -> None:
        self.names = {file.id: one.name for one in self.wholes() for file in one.files}

    # --- reading ----------------------------------------------------------------------------------

    def trails(self) -> list[Trail]:
        """The files, and how far each was read."""
        query = """
            select id, path, offset, last_at, identity, trouble, after_seq, after_hash, seq, hash
            from trails order by id
        """
        return [
            Trail(
                id,
                path,
                self.names.get(id, ""),
                offset,
                Head(*heads[:2]),
                Head(*heads[2:]),
                last_at,
                trouble or self._out_of_reach.get(id),
                identity,
            )
            for id, path, offset, last_at, identity, trouble, *heads in self.rows(query)
        ]

    def wholes(self) -> list[Whole]:
        """The trails: files that continue each other are one."""
        return wholes(self.trails())

    def verify(self) -> None:
        """Read again what was read before, of an index that is opened anew or of one that is old.

        Each record names the hash of the one before. So a trail that was changed anywhere ends in
        another head than the one that was kept, and is marked.
        """
        for trail in self._located():
            if trail.trouble is None:
                self._compare(trail)

    def _compare(self, trail: Trail) -> Trail:
        """See that what was read of a trail stands there still, and mark it if not."""
        try:
            is_same = not trail.offset or head_again(trail) == trail.head
        except OSError as error:
            return self._wait(trail, error)
        return trail if is_same else self._end(trail, CHANGED)

    # --- taking -----------------------------------------------------------------------------------

    def take(self) -> bool:
        """Take what the trails have that is not here. True if there was any."""
        taken = False
        for trail in self._located():
            if trail.id in self._out_of_reach:
                trail = trail._replace(trouble=None)
            while trail.trouble is None:
                after = self._take(trail)
                if after == trail:
                    break
                trail = after
                taken = True
                self.revision += 1
        if taken:
            self._name_all()  # a file may turn out to continue another
        return taken

    def _located(self) -> list[Trail]:
        """The trails, each where its file is now, and those that are new."""
        self._follow()
        self._find()
        return self.trails()

    def _follow(self) -> set[int]:
        """Go after files that were renamed: who rotates begins another one under their names.

        Returns the ids of those whose place changed. Rotating by number renames all at once. A file
        that is nowhere is gone if another trail's file has its name, or one that continues it.
        """
        moved: dict[int, str] = {}
        lost: dict[str, Trail] = {}
        gone: list[Trail] = []
        for trail in self.trails():
            if trail.identity in (None, identity_of(trail.path)):
                continue
            there = (path for path in beside(trail.path) if identity_of(path) == trail.identity)
            path = next(there, None)
            if path is None:
                lost[trail.path] = trail
                if goes_on_elsewhere(trail):
                    gone.append(trail)
            else:
                moved[trail.id] = path
        gone += [lost[path] for path in moved.values() if path in lost]
        if not moved and not gone:
            return set()
        named = moved | {one.id: f"{one.path} (removed, {one.id})" for one in gone}
        query = "update trails set path = ? where id = ?"
        with self._tables.writing():
            self._tables.run_each(query, ((None, id) for id in named))
            self._tables.run_each(query, ((path, id) for id, path in named.items()))
        self._name_all()
        return set(named)

    def _take(self, trail: Trail) -> Trail:
        """Take some whole lines, in one transaction: all that was read of them, and how far."""
        try:
            lines, identity = next_lines(trail)
        except OSError as error:
            return self._wait(trail, error)
        except AuditError as error:
            # Rotated a moment ago: it is read where it is now, the next time.
            return trail if trail.id in self._follow() else self._end(trail, str(error))
        is_back = self._out_of_reach.pop(trail.id, None) is not None
        self.revision += is_back
        # Another file may be there now.
        is_other = trail.identity not in (None, identity)
        if is_other and trail.id in self._follow():
            return trail
        if is_back or is_other:
            trail = self._compare(trail)
        if trail.trouble is None and is_other:
            trail = trail._replace(identity=identity)
            self.rows("update trails set identity = ? where id = ?", identity, trail.id)
        if not lines or trail.trouble is not None:
            return trail

        batch = self._batch()
        try:
            with self._tables.writing():
                after = self._taken(trail._replace(identity=identity), lines, batch)
                batch.write(trail.id)
        except BaseException:
            self._forget()
            raise
        self._written()
        return after

    def _taken(self, trail: Trail, lines: Sequence[bytes], batch: Batch) -> Trail:
        """Put whole lines in, up to one that does not follow, or says nothing that can be read."""
        at = trail.offset
        after = trail.after if at else begins_after(lines[0])
        head = trail.head if at else after
        last_at = trail.last_at
        trouble: str | None = None
        try:
            for line, (record, reached) in zip(lines, numbered(lines, head), strict=True):
                batch.add(Place(trail.id, at, len(line), digest_of(line)), record)
                at += len(line)
                head = reached
                last_at = record.get("at", last_at)
        except AuditError as error:
            trouble = str(error)
        except (KeyError, TypeError, ValueError) as error:
            why = own_words(error) if isinstance(error, ValueError) else OF_ANOTHER_SHAPE
            trouble = f"record {head.seq + 1} cannot be read: {why}"

        self.rows(
            """
            update trails set offset = ?, after_seq = ?, after_hash = ?, seq = ?, hash = ?,
            last_at = ?, trouble = ?, identity = ? where id = ?
            """,
            *(at, after.seq, after.hash, head.seq, head.hash),
            *(last_at, trouble, trail.identity, trail.id),
        )
        return trail._replace(offset=at, after=after, head=head, last_at=last_at, trouble=trouble)

    def _end(self, trail: Trail, trouble: str) -> Trail:
        self.mark(trail.id, trouble)
        return trail._replace(trouble=trouble)

    def _wait(self, trail: Trail, error: OSError) -> Trail:
        """Say that the file is not to be read now: it may be there again the next time."""
        why = f"it cannot be read now ({error.strerror}), and is tried again"
        if self._out_of_reach.get(trail.id) != why:
            self._out_of_reach[trail.id] = why
            self.revision += 1
        return trail

    def mark(self, trail: int, trouble: str) -> None:
        """Read nothing more of a trail, and say why."""
        self.rows("update trails set trouble = ? where id = ?", trouble, trail)
        self.revision += 1


def digest_of(line: bytes) -> bytes:
    """What tells a record from another one in its place."""
    return sha256(line).digest()[:16]
