"""Every store in one SQLite file: for the processes of one machine (spec, "Replay", "Ledger", "Overlay")."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from threading import Lock
from time import monotonic, sleep, time
from typing import ClassVar, TypeAlias
from weakref import WeakSet

import msgspec

from captoken._format.clocks import CLOCKS_DIFFER, PROOF_AHEAD, PROOF_PAST
from captoken._format.errors import StoreError
from captoken.stores.ports import (
    KEPT,
    REFUSED_AMOUNT,
    REFUSED_BEFORE,
    REFUSED_CLOCK,
    Debit,
    Reservation,
    Use,
    is_lost,
)

Run: TypeAlias = Callable[..., sqlite3.Cursor]


class SQLiteStore:
    """One file, opened by any number of threads and processes. What was answered is on disk; a restart forgets nothing.

    `timeout`: seconds to wait for another process. Stores of different kinds may share a file. Servers stop before the
    file is taken away, or each goes on for itself. A clock that was once far ahead has raised the floors for good: stop the
    servers, and begin a new file.
    """

    _schema: ClassVar[tuple[str, ...]]

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 5.0) -> None:
        self._path, self._timeout = os.path.abspath(os.fspath(path)), timeout
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None
        _stores.add(self)
        with self._transaction() as run:
            for statement in self._schema:
                run(statement)

    def close(self) -> None:
        """Close the file. The store opens it again when it is asked."""
        with self._lock:
            self._shut()

    def _shut(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _transaction(self) -> Generator[Run]:
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
            with suppress(
                OSError
            ):  # for its owner alone: whoever can read the files can hold their locks
                os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            connection = sqlite3.connect(
                self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False
            )
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


_stores: WeakSet[SQLiteStore] = WeakSet()
_forking: list[SQLiteStore] = []


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
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )


def _row(found: sqlite3.Cursor) -> tuple[int, ...]:
    row: tuple[int, ...] | None = found.fetchone()
    if row is None:
        raise StoreError("SQLite: the file has lost its floor")
    return row


class SQLiteReplayStore(SQLiteStore):
    """Used proofs.

    The file keeps its floor, so only a new file has to refuse what was issued up to five seconds after it was made;
    `floor=0` says aloud that no earlier process took proofs for this audience. Holds at most `limit` uses of the last
    half minute, and refuses more.
    """

    _schema = (
        "create table if not exists proofs (entry blob primary key, issued_at integer not null) without rowid, strict",
        "create index if not exists proofs_by_time on proofs (issued_at)",
        "create table if not exists proof_state"
        " (one integer primary key check (one = 1), floor integer not null, held integer not null) strict",
    )

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        floor: int | None = None,
        limit: int = 1_000_000,
        timeout: float = 5.0,
        clock: Callable[[], float] = time,
    ) -> None:
        super().__init__(path, timeout=timeout)
        self._limit = limit
        first = int(clock()) + PROOF_AHEAD if floor is None else floor
        with self._transaction() as run:
            run("insert or ignore into proof_state (one, floor, held) values (1, ?, 0)", (first,))

    def add(self, use: Use, now: int) -> bool:
        """True if it is the first use, and after the floor. Raises StoreError when full, locked for too long or unreadable."""
        with self._transaction() as run:
            floor, held = _row(run("select floor, held from proof_state"))
            if (gone := now - PROOF_PAST - 1) > floor:
                floor = gone
                held -= run("delete from proofs where issued_at <= ?", (floor,)).rowcount
            first = False
            if use.issued_at > floor:
                if (
                    held >= self._limit
                    and run("select 1 from proofs where entry = ?", (use.entry,)).fetchone() is None
                ):
                    raise StoreError(
                        f"{self._limit} proofs of the last {PROOF_PAST + PROOF_AHEAD} seconds are remembered, and no more fit"
                    )
                first = (
                    run(
                        "insert or ignore into proofs values (?, ?)", (use.entry, use.issued_at)
                    ).rowcount
                    == 1
                )
            run("update proof_state set floor = ?, held = ?", (floor, held + first))
        return first


class SQLiteLedger(SQLiteStore):
    """Counts. `shared=True` says that all servers that take these tokens count in this file.

    Only a new file has a floor: see Ledger.
    """

    _schema = (
        "create table if not exists buckets"
        " (link blob, unit text, spent integer not null, keep integer, primary key (link, unit)) without rowid, strict",
        "create table if not exists reservations"
        " (id blob primary key, debits blob, until integer not null, open integer not null) without rowid, strict",
        "create index if not exists reservations_by_time on reservations (until)",
        "create index if not exists buckets_by_time on buckets (keep)",
        "create table if not exists ledger_state"
        " (one integer primary key check (one = 1), floor integer not null, gone integer not null default 0) strict",
    )

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        shared: bool = False,
        floor: int | None = None,
        timeout: float = 5.0,
        clock: Callable[[], float] = time,
    ) -> None:
        super().__init__(path, timeout=timeout)
        self.shared = shared
        first = int(clock()) + CLOCKS_DIFFER if floor is None else floor
        with self._transaction() as run:
            run("insert or ignore into ledger_state (one, floor) values (1, ?)", (first,))

    def reserve(self, reservation: Reservation, now: int) -> Debit | None:
        """None if every bucket had enough and was debited, else the first that had not. Raises StoreError."""
        with self._transaction() as run:
            self._forget(run, now)
            if (
                run("select 1 from reservations where id = ?", (reservation.id,)).fetchone()
                is not None
            ):
                return None
            floor, gone = _row(run("select floor, gone from ledger_state"))
            if reservation.issued_at <= floor:
                raise StoreError(REFUSED_BEFORE)
            if is_lost(gone, now):
                raise StoreError(REFUSED_CLOCK)
            spent: dict[tuple[bytes, str], int] = {}
            for debit in reservation.debits:
                if debit.amount < 0:
                    raise StoreError(REFUSED_AMOUNT)
                key = debit.bucket, debit.unit
                spent[key] = (spent[key] if key in spent else self._spent(run, *key)) + debit.amount
                if spent[key] > debit.limit:
                    return debit
            keep = None if reservation.keep is None else reservation.keep + KEPT
            for (bucket, unit), amount in spent.items():
                run(
                    "insert into buckets values (?, ?, ?, ?)"
                    " on conflict do update set spent = excluded.spent, keep = max(keep, excluded.keep)",  # null is for good
                    (bucket, unit, amount, keep),
                )
            row = reservation.id, _encode(reservation.debits), reservation.until
            run("insert into reservations values (?, ?, ?, 1)", row)
        return None

    def settle(self, reservation_id: bytes, amounts: Mapping[str, int] | None, now: int) -> bool:
        """True if the reservation was open: what was not taken of it goes back. Raises StoreError."""
        with self._transaction() as run:
            self._forget(run, now)
            found = run(
                "select debits from reservations where id = ? and open", (reservation_id,)
            ).fetchone()
            if found is None:
                return False
            run("update reservations set open = 0 where id = ?", (reservation_id,))
            try:
                debits = _decode(found[0])
            except (msgspec.MsgspecError, TypeError):
                raise StoreError("SQLite: a reservation cannot be read") from None
            for debit in debits:
                back = (debit.back(amounts), debit.bucket, debit.unit)
                run("update buckets set spent = spent - ? where link = ? and unit = ?", back)
        return True

    def spent(self, bucket: bytes, unit: str) -> int:
        """What a bucket has been debited. Raises StoreError."""
        with self._transaction() as run:
            return self._spent(run, bucket, unit)

    @staticmethod
    def _spent(run: Run, bucket: bytes, unit: str) -> int:
        found = run(
            "select spent from buckets where link = ? and unit = ?", (bucket, unit)
        ).fetchone()
        return int(found[0]) if found is not None else 0

    @staticmethod
    def _forget(run: Run, now: int) -> None:
        run("delete from reservations where until <= ?", (now,))
        last = run("select max(keep) from buckets where keep <= ?", (now,)).fetchone()[0]
        if last is not None:
            run("update ledger_state set gone = max(gone, ?)", (last,))
            run("delete from buckets where keep <= ?", (now,))


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Debit, ...]).decode


class SQLiteSnapshots(SQLiteStore):
    """The newest snapshot of the overlay."""

    _schema = (
        "create table if not exists overlay (one integer primary key check (one = 1), snapshot blob not null) strict",
    )

    def load(self) -> bytes | None:
        """The newest snapshot, if there is one. Raises StoreError."""
        with self._transaction() as run:
            found = run("select snapshot from overlay").fetchone()
        return bytes(found[0]) if found is not None else None

    def publish(self, snapshot: bytes, after: bytes | None) -> bool:
        """False if another one lies there than `after`. On disk when it returns True. Raises StoreError."""
        with self._transaction() as run:
            found = run("select snapshot from overlay").fetchone()
            if (None if found is None else bytes(found[0])) != after:
                return False
            run("insert or replace into overlay values (1, ?)", (snapshot,))
        return True
