"""Trails, put in order: what they say, in an SQLite file that answers quickly.

    index = Index("index.db", ["trail.jsonl"])
    index.take()                      # what the trails have that the index has not

Each record is checked to follow on the one before, as `captoken.audit.read` does it, and counted
once. What a trail says that does not hold together is not believed: the trail is marked, and what
stood before stays. The file holds nothing that the trails do not: delete it, and it is made anew.

What is counted while it is read, so that a million records are answered for at once:

    tasks       a row each: when, how much was allowed and denied
    hops        a row for each holding of a token by an agent, as `captoken.audit` groups them
    minutes     by hop and minute: allowed, denied
    calls       a row a decision, with the place of its record in the trail
    uses        by hop, each kind of access that was allowed, once: the place of its first record

Several trails are one story: decisions stand in the order of their moments, whichever server wrote
them, and each says in which trail it is. Of two records that say two things of one link, the later
one marks its trail.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import msgspec

from captoken._format import primitives
from captoken._format.encoding import OF_ANOTHER_SHAPE, own_words
from captoken._format.errors import AuditError
from captoken.audit._chains import begins_after
from captoken.audit._check import numbered
from captoken.cli.console.counting import Counting, Remembered
from captoken.cli.console.tables import Call, Place, Tables
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

_CALL = ", ".join(Call._fields)
_CHANGED = "a record was changed after it was read"


class Index:
    """What trails say. Threads share one.

    `path` is where it lies; `:memory:` is as good for a small one. One that is of an earlier
    version, or of other trails, is made anew. Raises StoreError for one that is of a newer version,
    and for a file of something else.
    """

    def __init__(
        self, path: str | os.PathLike[str], trails: Iterable[str | os.PathLike[str]]
    ) -> None:
        # Files, folders and patterns, as they were given.
        self._sources = list(dict.fromkeys(str(Path(trail).resolve()) for trail in trails))
        self._tables = Tables(path, self._sources)
        self.rows = self._tables.run
        self._remembered = Remembered()
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

    def calls(self, condition: str, *values: Any, most: int) -> list[Call]:
        """Decisions, the last first: in the order of their moments, whichever trail they are in."""
        query = f"select {_CALL} from calls where {condition} order by moment desc, id desc limit ?"
        return [Call(*row) for row in self.rows(query, *values, most)]

    def records(self, calls: Iterable[Call]) -> Iterator[dict[str, Any] | None]:
        """Their records as they stand in the trails. None where one is not there any more.

        And where it is not the one that was read: then the trail is marked as well.
        """
        paths: dict[int, str] = dict(self.rows("select id, path from trails"))
        with ExitStack() as stack:
            files: dict[int, IO[bytes]] = {}
            for call in calls:
                try:
                    file = files.get(call.trail)
                    if file is None:
                        file = files[call.trail] = stack.enter_context(
                            open(paths[call.trail], "rb")
                        )
                    file.seek(call.offset)
                    line = file.read(call.length)
                    if not primitives.equal(_digest(line), call.digest):
                        self._mark(call.trail, _CHANGED)
                        yield None
                        continue
                    yield msgspec.json.decode(line, type=dict[str, Any])
                except (OSError, ValueError):  # msgspec's errors are ValueErrors, too
                    yield None

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
        return trail if is_same else self._end(trail, _CHANGED)

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

        counting = Counting(self._tables, self._remembered)
        try:
            with self._tables.writing():
                after = self._taken(trail._replace(identity=identity), lines, counting)
                counting.write(trail.id)
        except BaseException:
            self._remembered = Remembered()
            raise
        return after

    def _taken(self, trail: Trail, lines: Sequence[bytes], counting: Counting) -> Trail:
        """Put whole lines in, up to one that does not follow, or says nothing that can be read."""
        at = trail.offset
        after = trail.after if at else begins_after(lines[0])
        head = trail.head if at else after
        last_at = trail.last_at
        trouble: str | None = None
        try:
            for line, (record, reached) in zip(lines, numbered(lines, head), strict=True):
                counting.add(Place(trail.id, at, len(line), _digest(line)), record)
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
        self._mark(trail.id, trouble)
        return trail._replace(trouble=trouble)

    def _wait(self, trail: Trail, error: OSError) -> Trail:
        """Say that the file is not to be read now: it may be there again the next time."""
        why = f"it cannot be read now ({error.strerror}), and is tried again"
        if self._out_of_reach.get(trail.id) != why:
            self._out_of_reach[trail.id] = why
            self.revision += 1
        return trail

    def _mark(self, trail: int, trouble: str) -> None:
        """Read nothing more of a trail, and say why."""
        self.rows("update trails set trouble = ? where id = ?", trouble, trail)
        self.revision += 1


def _digest(line: bytes) -> bytes:
    return sha256(line).digest()[:16]
