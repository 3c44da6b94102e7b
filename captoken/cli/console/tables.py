"""The SQLite file of an index: which tables it has, and that it is one of ours."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager, suppress
from threading import RLock
from typing import Any, NamedTuple, TypeAlias

from captoken._format.errors import StoreError
from captoken._format.spelling import shown_file
from captoken.stores._schema import Schema, SchemaChange

Row: TypeAlias = tuple[Any, ...]


class Layout(NamedTuple):
    """Which tables a file has, and of which version they are."""

    schema: Schema
    tables: str

    # What messages call it.
    called: str

    # Is it made anew where its version or its sources are others? Else that is an error.
    is_derived: bool = True


VERSION = Schema(
    "index",
    (
        SchemaChange("is made anew"),
        SchemaChange("digests; is made anew"),
        SchemaChange("what files continue; is made anew"),
        SchemaChange("marks; is made anew"),
        SchemaChange("what was asked for; is made anew"),
        SchemaChange("of which server it was asked; is made anew"),
        SchemaChange("minutes and last calls by their moments; is made anew"),
    ),
)

# The files of trails, and how far each was read.
TRAILS = """
create table trails (
    id integer primary key, path text unique, source text, identity text,
    offset integer, after_seq integer, after_hash text, seq integer, hash text,
    last_at integer, trouble text
);
"""
_TABLES = f"""
{TRAILS}
create table tasks (
    task text primary key, subject text,
    first_at integer, last_at integer, allowed integer, denied integer
) without rowid;
create table hops (
    id text primary key, parent text, token text, task text, agent text, basis text, depth integer,
    first_at integer, expires_at integer, said text, last text, allowed integer, denied integer,
    trails integer
) without rowid;
create index hops_by_task on hops (task);
create index hops_by_parent on hops (parent);
create table tokens (
    link text primary key, hop text, through text, links text,
    trail integer, offset integer, length integer, digest blob
) without rowid;
create table whats (
    id integer primary key, data text, operation text, tool text, code text, allowed integer,
    trail integer, unique (data, operation, tool, code, allowed, trail)
);
create table servers (trail integer primary key, name text);
create table tallies (
    what integer, hop text, hour integer, calls integer, primary key (what, hop, hour)
) without rowid;
create index tallies_by_hop on tallies (hop, hour);
create table minutes (
    hop text, minute integer, allowed integer, denied integer, primary key (hop, minute)
) without rowid;
create table calls (
    id integer primary key, trail integer, offset integer, length integer, digest blob,
    moment integer, hop text, task text, allowed integer, trace text, what integer
);
create index calls_by_hop on calls (hop, moment, what);
create index calls_by_task on calls (task, moment);
create index calls_by_time on calls (moment);
create index calls_by_trace on calls (trace, moment) where trace is not null;
create index refused_by_hop on calls (hop, moment) where allowed = 0;
create index refused_by_task on calls (task, moment) where allowed = 0;
create index refused_by_time on calls (moment) where allowed = 0;
create table uses (
    hop text, what blob, trail integer, offset integer, length integer, digest blob,
    primary key (hop, what)
) without rowid;
create table marks (
    subject text, task text, name text, whose text, moment integer,
    trail integer, offset integer, length integer, digest blob,
    primary key (subject, task, name, whose)
) without rowid;
create table closed (
    subject text, task text, moment integer,
    trail integer, offset integer, length integer, digest blob
);
create index closed_by_task on closed (subject, task, moment);
"""
# A hop, and all below it: for `with recursive`.
BELOW = """
below (id) as (select ? union select hops.id from hops join below on hops.parent = below.id)
"""
INDEX = Layout(VERSION, _TABLES, "an index")


class Place(NamedTuple):
    """Where a record is, and the digest of it."""

    trail: int
    offset: int
    length: int
    digest: bytes


class Call(NamedTuple):
    """A decision: where its record is, as `Place` has it, and what it is about."""

    id: int
    trail: int
    offset: int
    length: int
    digest: bytes
    moment: int
    hop: str | None


class Tables:
    """The tables of an index. Threads share them.

    A file that is of an earlier version, or of other sources, is made anew. Raises StoreError for
    one that is of a newer version, and for a file of something else.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sources: Collection[str],
        layout: Layout = INDEX,
    ) -> None:
        self._lock = RLock()
        self._layout = layout
        _make_private(path)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._check_kind(f"SQLite {shown_file(os.fspath(path))}")
        except BaseException:
            self._db.close()
            raise
        self.run("pragma journal_mode = wal")
        if layout.is_derived:
            self.run("pragma synchronous = off")  # it can be made anew
        if not self._names() or (layout.is_derived and not self._is_of(sources)):
            self._make()

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self._db.close()

    def run(self, statement: str, *values: Any) -> list[Row]:
        """What a statement of ours gives."""
        with self._lock:
            return self._db.execute(statement, values).fetchall()

    def run_each(self, statement: str, rows: Iterable[Iterable[Any]]) -> None:
        """Run a statement for each of these rows."""
        with self._lock:
            self._db.executemany(statement, map(tuple, rows))

    @contextmanager
    def writing(self) -> Generator[None]:
        """A block that is one transaction. Nothing of it stays if it raises."""
        with self._lock:
            self.run("begin immediate")
            try:
                yield
                self.run("commit")
            except BaseException:
                self.run("rollback")
                raise

    def _names(self) -> set[str]:
        """The tables that there are."""
        found = self.run("select name from sqlite_master where type = 'table'")
        return {name for (name,) in found}

    def _check_kind(self, where: str) -> None:
        """Raise StoreError for a file of something else, which is not to be made anew, and for an
        index of a newer version.
        """
        try:
            names = self._names()
        except sqlite3.DatabaseError:
            names = {"none of ours"}
        if names and "trails" not in names:
            raise StoreError(
                f"{where}: it holds something else than {self._layout.called}: name another file"
            )
        if names:
            self._layout.schema.missing_steps(where, self._version())

    def _version(self) -> int:
        ((version,),) = self.run("pragma user_version")
        return int(version)

    def _is_of(self, sources: Collection[str]) -> bool:
        """Is it of this version, and of no other sources?"""
        if self._version() != self._layout.schema.version:
            return False
        return {source for (source,) in self.run("select source from trails")} <= {*sources}

    def _make(self) -> None:
        for name in self._names():
            self.run(f'drop table "{name}"')
        self._db.executescript(self._layout.tables)
        self.run(f"pragma user_version = {self._layout.schema.version}")


def _make_private(path: str | os.PathLike[str]) -> None:
    """A new file is for its owner alone, as trails are. One that is there keeps what it has."""
    if os.fspath(path) == ":memory:":
        return
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
