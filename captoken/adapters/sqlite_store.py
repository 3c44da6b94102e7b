"""Used proofs in one SQLite file: for the processes of one machine (spec, "Replay")."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from threading import Lock
from time import monotonic, sleep, time
from weakref import WeakSet

from captoken.errors import StoreError
from captoken.possession import AHEAD, PAST, Use

_SCHEMA = """
create table if not exists proofs (entry blob primary key, issued_at integer not null) without rowid, strict;
create index if not exists proofs_by_time on proofs (issued_at);
create table if not exists state (
    one integer primary key check (one = 1), floor integer not null, held integer not null
) strict;
"""


class SQLiteReplayStore:
    """Used proofs, for threads and processes that open one file; a restart forgets none.

    A use is on disk before `add` returns. The file keeps its floor, so only a new file has to refuse what was issued up
    to five seconds after it was made; `floor=0` says aloud that no earlier process took proofs for this audience. Holds
    at most `limit` uses of the last half minute, and refuses more. `timeout`: seconds to wait for another process.
    Servers stop before the file is taken away, or each remembers for itself. A clock that was once far ahead has raised
    the floor for good: stop the servers, and begin a new file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        floor: int | None = None,
        limit: int = 1_000_000,
        timeout: float = 5.0,
        clock: Callable[[], float] = time,
    ) -> None:
        self._path, self._limit, self._timeout = os.path.abspath(os.fspath(path)), limit, timeout
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None
        _stores.add(self)
        first = int(clock()) + AHEAD if floor is None else floor
        with self._transaction() as run:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                run(statement)
            run("insert or ignore into state (one, floor, held) values (1, ?, 0)", (first,))

    def add(self, use: Use, now: int) -> bool:
        """True if it is the first use, and after the floor. Raises StoreError when full, locked for too long or unreadable."""
        with self._transaction() as run:
            floor, held = run("select floor, held from state").fetchone()
            if (gone := now - PAST - 1) > floor:
                floor = gone
                held -= run("delete from proofs where issued_at <= ?", (floor,)).rowcount
            first = False
            if use.issued_at > floor:
                if held >= self._limit and run("select 1 from proofs where entry = ?", (use.entry,)).fetchone() is None:
                    raise StoreError(f"{self._limit} proofs of the last {PAST + AHEAD} seconds are remembered, and no more fit")
                first = run("insert or ignore into proofs values (?, ?)", (use.entry, use.issued_at)).rowcount == 1
            run("update state set floor = ?, held = ?", (floor, held + first))
        return first

    def close(self) -> None:
        """Close the file. The store opens it again when it is asked."""
        with self._lock:
            self._shut()

    def _shut(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _transaction(self) -> Generator[Callable[..., sqlite3.Cursor]]:
        """One transaction that nobody else writes in. Whatever SQLite raises becomes a StoreError."""
        with self._lock:
            try:
                connection = self._open()
                try:  # from here on, whatever interrupts
                    connection.execute("begin immediate")
                    yield connection.execute
                    connection.execute("commit")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("rollback")
                    raise
            except sqlite3.Error as error:
                raise StoreError(f"SQLite: {error}") from None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            with suppress(OSError):  # for its owner alone: whoever can read the files can hold their locks
                os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            connection = sqlite3.connect(self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Write-ahead logging, on disk before the answer. SQLite itself does not wait for others here."""
        until = monotonic() + self._timeout
        while True:
            try:
                connection.execute("pragma journal_mode = wal")
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() >= until:
                    raise
                sleep(0.01)
        connection.execute("pragma synchronous = full")


_stores: WeakSet[SQLiteReplayStore] = WeakSet()
_forking: list[SQLiteReplayStore] = []


def _before_fork() -> None:
    """No connection goes through a fork: SQLite's account of its locks would be copied, and be wrong on both sides."""
    for store in list(_stores):
        store._lock.acquire()
        _forking.append(store)
        store._shut()


def _after_fork() -> None:
    while _forking:
        _forking.pop()._lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
