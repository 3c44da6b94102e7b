"""Every store in a SQLite file: for the processes of one machine.

Spec, "Replay", "Ledger", "Overlay".

Used proofs, counts and registries may share a file. Every process that opens it must be able to
write its write-ahead log. The overlay has its own file, which a server can read without write
permission.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from threading import Lock
from time import monotonic, sleep, time
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

import msgspec

from captoken._format.errors import StoreError
from captoken._format.spelling import shown_file
from captoken.stores._rules import (
    OF_CONSENTS,
    OF_PROOFS,
    TIMEOUT,
    Answer,
    Bucket,
    Sums,
    add_up,
    consent_too_old,
    first_ledger_floor,
    first_replay_floor,
    is_full,
    kept_marks,
    lines,
    making,
    mark,
    missing,
    there_already,
    too_old,
    weigh_step,
    what_was_taken,
)
from captoken.stores._schema import (
    SAYS_VERSION,
    VERSIONS,
    Schema,
    SchemaChange,
    Upgrade,
    none_there,
    upgrade_of,
)
from captoken.stores.own_process import tell_of_forks, unforked
from captoken.stores.ports import (
    DELTAS,
    Debit,
    Forbidden,
    MarkedStep,
    Reservation,
    SetBefore,
    Spend,
    Use,
)

Run: TypeAlias = Callable[..., sqlite3.Cursor]

_PAUSE = 0.002  # seconds between two looks whether another process is done
_SLICE = 0.002  # seconds that SQLite waits by itself
_TOO_LONG = "other threads had the file for longer than the timeout"

# What SQLite says where a process that wrote was cut off, and where a right is missing.
_CUT_OFF = frozenset((sqlite3.SQLITE_READONLY_ROLLBACK, sqlite3.SQLITE_READONLY_RECOVERY))
_NO_RIGHT = frozenset((sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM))

# What `create` writes into the header of a file that it makes: "capt".
APPLICATION_ID = 0x63617074


class SQLiteStore:
    """One file, opened by any number of threads and processes.

    What was answered is on disk; a restart forgets nothing. `timeout`: seconds that a call waits
    for others, threads and processes together; then it raises StoreError. Stores of different kinds
    may share a file; the overlay has one of its own.

    To open one makes none: `create` does, once. What is not there, or is another file than the one
    that was opened, is a StoreError. With `readonly=True` it is for looking alone: what is to be
    written is a StoreError. A clock that was once far ahead has raised the floors for good: stop
    the servers, and make a new file.
    """

    _schema: ClassVar[tuple[str, ...]] = ()

    # The table that is there if this store is.
    _table: ClassVar[str] = ""

    # What it says of itself, and has to say to be opened.
    _version: ClassVar[Schema]

    # How SQLite keeps what is being written.
    _journal: str = "wal"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        readonly: bool = False,
        timeout: float = TIMEOUT,
    ) -> None:
        self._access = "ro" if readonly else "rw"
        self._path = os.path.abspath(os.fspath(path))
        self._where = _where(path)  # for messages
        self._shown = shown_file(os.fspath(path))
        self._timeout = timeout
        # Held from the first statement of a call to its last: threads take turns, and whoever
        # works for a call that nobody waits for any more keeps the connection until it is done.
        self._lock = Lock()
        self._is_forking = False
        self._is_inherited = False
        self._connection: sqlite3.Connection | None = None
        tell_of_forks(
            self,
            before=SQLiteStore._before_fork,
            in_parent=SQLiteStore._after_fork,
            in_child=SQLiteStore._in_child,
        )
        self._file: tuple[int, int] | None = None  # device and number of what was opened
        if self._table:
            try:
                self._look()
            except BaseException:
                self.close()
                raise

    @classmethod
    def _make(
        cls,
        path: str | os.PathLike[str],
        timeout: float,
        begin: Callable[[Run], object],
    ) -> None:
        """Make the tables of this kind and their first rows, in one step; the file too, if need be.

        Raises StoreError where they are, and where the file cannot be made.
        """
        is_new = _make_file(path)
        made = SQLiteStore(path, timeout=timeout)
        made._journal = cls._journal
        with closing(made) as file, file._writing() as run:
            if _is_there(run, cls._table):
                raise there_already(_where(path))
            # One that lies with others is older. No other store comes to it.
            if _is_there(run, SQLiteSnapshots._table):
                made._check_version(run, SQLiteSnapshots._version)
            if is_new:
                run(f"pragma application_id = {APPLICATION_ID}")
            for statement in cls._schema:
                run(statement)
            _say_version(run, cls._version)
            begin(run)

    def _look(self) -> None:
        """Raise StoreError if the store is not there."""
        with self._reading() as run:
            if not _is_there(run, self._table):
                raise self._missing()

    def close(self) -> None:
        """Close the file. The store opens it again when it is asked."""
        with self._lock:
            self._shut()

    def _shut(self) -> None:
        if self._connection is not None and not self._is_inherited:
            self._connection.close()
            self._connection = None

    def _writing(self) -> AbstractContextManager[Run]:
        """One transaction that nobody else writes in."""
        if self._access == "ro":
            raise StoreError(
                f"{self._where}: it was opened with readonly=True, and cannot be written"
            )
        # Without a write-ahead log a writer waits for readers; do all of that waiting first.
        waits = "immediate" if self._journal == "wal" else "exclusive"
        return self._transaction(f"begin {waits}")

    def _reading(self) -> AbstractContextManager[Run]:
        """One transaction that sees one state of the file.

        With a write-ahead log it waits for nobody who writes.
        """
        return self._transaction("begin")

    @contextmanager
    def _transaction(self, begin: str) -> Generator[Run]:
        """Whatever SQLite raises becomes a StoreError, and nothing of the transaction stays.

        Waits for others, but holds nothing meanwhile: whoever has the lock works.
        """
        until = monotonic() + self._timeout
        while True:
            # Others work at the file, one after the other.
            has_to_wait = self._lock.locked()
            if has_to_wait and monotonic() >= until:
                raise self._problem(_TOO_LONG)
            # By `with` alone: no interrupt comes between the lock and what gives it back.
            with self._lock:
                if has_to_wait and monotonic() >= until:
                    raise self._problem(_TOO_LONG)
                if self._is_inherited:
                    raise self._problem("this connection belongs to another process")
                has_begun = False
                try:
                    connection = self._open(until)
                    try:  # from here on, whatever interrupts
                        connection.execute(begin)
                        # The first look takes the state that all others see, or finds it locked.
                        connection.execute("select 1 from sqlite_master")
                        has_begun = True
                        yield connection.execute
                        connection.execute("commit")
                    except BaseException:
                        if connection.in_transaction:
                            connection.execute("rollback")
                        raise
                    return
                except sqlite3.Error as error:
                    if has_begun or not _is_busy(error) or monotonic() >= until:
                        code = getattr(error, "sqlite_errorcode", 0)
                        raise self._failed(str(error), code) from None
            sleep(_PAUSE)

    def _missing(self) -> StoreError:
        """What is raised where it is not there, with what makes it."""
        return missing(self._where, f", as {type(self).__name__}.create(path)")

    def _problem(self, text: str) -> StoreError:
        """What is raised: which file it is, and what is wrong with it."""
        return StoreError(f"{self._where}: {text}")

    def _failed(self, text: str, code: int) -> StoreError:
        """What is raised for what SQLite says, with what to do where a right is missing."""
        if code in _CUT_OFF:
            return StoreError(
                f"{self._where}: a process was stopped while it wrote, and its unfinished change "
                "has to be undone: open the file in a process that may write to it and its folder"
            )
        if code & 0xFF in _NO_RIGHT:
            needs = "read and write the file and its folder"
            if self._access == "ro":
                needs = "read the file, and to enter its folder"
            return StoreError(f"{self._where}: {text}: this process has to {needs}")
        return self._problem(text)

    def _open(self, until: float) -> sqlite3.Connection:
        file = self._file_there()
        if self._connection is not None:
            if file != self._file:
                raise self._problem(
                    "another file lies there than the one that was opened: "
                    "if that is meant, start this server again"
                )
            return self._connection

        # Never makes it: one that is missing may have been lost. SQLite waits for other processes
        # in slices, so that threads need not wait along with it.
        connection = sqlite3.connect(
            f"{Path(self._path).as_uri()}?mode={self._access}",
            uri=True,
            timeout=min(self._timeout, _SLICE),
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self._prepare(connection, until)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._file = file
        return connection

    def _file_there(self) -> tuple[int, int]:
        """What lies at the path. An open file that was taken away would go on for itself alone."""
        try:
            found = os.stat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            raise self._missing() from None
        except OSError as error:
            what = error.strerror
            raise StoreError(f"{self._where}: the file cannot be examined: {what}") from None
        return found.st_dev, found.st_ino

    def _prepare(self, connection: sqlite3.Connection, until: float) -> None:
        """The journal of this kind, and on disk before the answer.

        To change the mode, SQLite itself does not wait for others.
        """
        while True:
            try:
                self._check_kind(connection.execute)
                connection.execute(f"pragma journal_mode = {self._journal}")
                break
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or monotonic() >= until:
                    raise
                sleep(0.01)
        connection.execute("pragma synchronous = full")

    def _check_kind(self, run: Run) -> None:
        """Raise StoreError for a file of other stores.

        Also for one whose store has another version: before anything is written to it.
        """
        if self._table and _is_there(run, self._table):
            self._check_version(run, self._version)
        elif self._journal != "wal" and run("pragma journal_mode").fetchone() == ("wal",):
            raise StoreError(
                f"{self._where}: the overlay needs a file of its own, and this file holds other "
                "stores"
            )
        if self._journal == "wal" and _said_version(run, SQLiteSnapshots._version) is not None:
            raise StoreError(
                f"{self._where}: this file is for the overlay only: choose another one for this "
                "store"
            )

    def _check_version(self, run: Run, version: Schema) -> None:
        """Raise StoreError where a store of the file has another version than that."""
        version.check(self._where, _said_version(run, version), self._shown)

    # No connection goes through a fork: SQLite's account of its locks would be copied, and be wrong
    # on both sides. So it is closed before, while nobody uses it, and both sides open it anew.

    def _before_fork(self) -> None:
        self._lock.acquire()
        self._is_forking = True
        self._shut()

    def _after_fork(self) -> None:
        if self._is_forking:
            self._is_forking = False
            self._lock.release()

    def _in_child(self) -> None:
        """In the child, where the threads that wait for the lock are not."""
        # What interrupted the hook before has left a connection, or a thread that was opening one.
        # It is kept, and never used.
        if not self._is_forking or self._connection is not None:
            self._is_inherited = True
        self._is_forking = False
        self._lock = Lock()


def _where(path: str | os.PathLike[str]) -> str:
    """Which store a message is about."""
    return f"SQLite {shown_file(os.fspath(path))}"


def _is_busy(error: sqlite3.Error) -> bool:
    """Has somebody else locked it?"""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _make_file(path: str | os.PathLike[str]) -> bool:
    """Make the file, if it is not there: True if it was not. Raises StoreError.

    For its owner alone: whoever can read the files can hold their locks. Never one that is there:
    to close any descriptor of a file gives up all locks that this process has on it.
    """
    try:
        with unforked():
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return False
    except OSError as error:
        raise StoreError(f"{_where(path)}: the file cannot be made: {error.strerror}") from None
    return True


def _said_version(run: Run, version: Schema) -> Any:
    """The version that a store of the file says; None if it says none."""
    if not _is_there(run, VERSIONS):
        return None
    said = run(f"select version from {VERSIONS} where store = ?", (version.store,))  # noqa: S608
    row = said.fetchone()
    return None if row is None else row[0]


def _say_version(run: Run, version: Schema, place: str = "main") -> None:
    """Write the version of a store. `place` is the database of the connection."""
    run(
        f"""
        create table if not exists {place}.{VERSIONS} (
            store text primary key, version integer not null
        ) without rowid, strict
        """
    )
    says = f"insert or replace into {place}.{VERSIONS} values (?, ?)"  # noqa: S608
    run(says, (version.store, version.version))


def _row(found: sqlite3.Cursor) -> tuple[int, ...]:
    row: tuple[int, ...] | None = found.fetchone()
    if row is None:
        raise StoreError(
            "SQLite: the file's record of what it forgot is missing: the file is damaged"
        )
    return row


def _is_there(run: Run, table: str) -> bool:
    found = run("select 1 from sqlite_master where type = 'table' and name = ?", (table,))
    return found.fetchone() is not None


def _tables_of(name: str) -> tuple[str, ...]:
    """The tables for uses of one kind: what was used, and the floor."""
    return (
        f"""
        create table {name}s (entry blob primary key, issued_at integer not null)
        without rowid, strict
        """,
        f"create index {name}s_by_time on {name}s (issued_at)",
        f"""
        create table {name}_state (
            one integer primary key check (one = 1), floor integer not null, held integer not null
        ) strict
        """,
    )


# A consent of before cannot have been spent in a store that did not know any. But another store may
# have stood here: so nothing is taken that this one was too young for.
_SPENDS = (
    *_tables_of("consent"),
    "insert into consent_state select one, floor, 0 from proof_state",
)


class SQLiteReplayStore(SQLiteStore):
    """Used proofs and consents.

    The file keeps its floor, so only a new one has to refuse what was issued up to five seconds
    after it was made. Holds at most `limit` uses of the last half minute, and refuses more; so many
    consents of the last hour, too.
    """

    _table = "proof_state"
    _version = Schema(
        "replay", (SchemaChange(SAYS_VERSION), SchemaChange("keeps consents", _SPENDS))
    )
    _schema = (
        *_tables_of("proof"),
        "create table proof_keys (kid text primary key) without rowid, strict",
        *_tables_of("consent"),
    )

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        limit: int = 1_000_000,
        readonly: bool = False,
        timeout: float = TIMEOUT,
    ) -> None:
        super().__init__(path, readonly=readonly, timeout=timeout)
        self._limit = limit

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        keys: Iterable[str] = (),
        floor: int | None = None,
        limit: int = 1_000_000,
        timeout: float = TIMEOUT,
        clock: Callable[[], float] = time,
    ) -> Self:
        """Make it, and open it. Raises StoreError if there is one.

        `keys` are the ids of root keys that are made in the same act, and of no others: proofs on
        their tokens are taken at once, as none can have been used before (31.6). `floor` is for
        tests alone: it stands in for the one by the clock.
        """
        new = making(keys, floor)
        first = first_replay_floor(clock) if new.floor is None else new.floor
        SQLiteReplayStore._make(path, timeout, _begin_proofs(first, new.keys))
        return cls(path, limit=limit, timeout=timeout)

    def add(self, use: Use, now: int) -> bool:
        """True if it is the first use, and above the floor.

        Raises StoreError when full, locked for too long or unreadable.
        """
        return self._add(_PROOFS, use, now)

    def peek(self, use: Use, now: int) -> bool:
        """Would `add` return True? Raises StoreError when full or unreadable."""
        return self._peek(_PROOFS, use, now)

    def spend(self, spend: Spend, now: int) -> bool:
        """True if it is the first use of a consent, and above the floor. Raises as `add` does."""
        return self._add(_CONSENTS, spend, now)

    def peek_spend(self, spend: Spend, now: int) -> bool:
        """Would `spend` return True? Raises StoreError when full or unreadable."""
        return self._peek(_CONSENTS, spend, now)

    def _add(self, of: _Uses, use: Use | Spend, now: int) -> bool:
        # 31.2. To look and to add is one step: nobody else writes until this is committed.
        with self._writing() as run:
            before, held = _row(run(of.state))
            first = self._would_take(run, of, use, before, now, held)

            # 31.6. Once the floor has risen it is the same for all.
            floor = max(before, of.too_old(now))
            if floor > before:
                held -= run(of.forget, (floor,)).rowcount
                if isinstance(use, Use):
                    run("delete from proof_keys")
            if first:
                run(of.remember, (use.entry, use.issued_at))
                held += 1
            run(of.write, (floor, held))
        return first

    def _peek(self, of: _Uses, use: Use | Spend, now: int) -> bool:
        with self._reading() as run:
            before, held = _row(run(of.state))
            return self._would_take(run, of, use, before, now, held)

    def _would_take(
        self, run: Run, of: _Uses, use: Use | Spend, before: int, now: int, held: int
    ) -> bool:
        """The decision, as if all were forgotten that may be. Raises StoreError when full.

        `before` is the floor that the file has, and `held` how many uses.
        """
        # Up to here all is forgotten now; nothing, where the floor does not rise.
        gone = of.too_old(now) if of.too_old(now) > before else 0

        # 31.3. At or below the floor it may have been used, and forgotten since.
        if use.issued_at <= max(before, gone) and (gone or not self._is_made_along(run, use)):
            return False
        # The name may have been used long ago, with another time, and be free again.
        if run(of.known, (use.entry, gone)).fetchone() is not None:
            return False

        # 31.4. No room is made by forgetting what could still pass as fresh.
        if held >= self._limit:
            (over,) = run(of.over, (gone,)).fetchone()
            if held - over >= self._limit:
                raise is_full(self._limit, of.what)
        return True

    @staticmethod
    def _is_made_along(run: Run, use: Use | Spend) -> bool:
        """31.6. Of proofs: was the key made along with the store, and has no floor risen since?"""
        if isinstance(use, Spend):
            return False
        found = run("select 1 from proof_keys where kid = ?", (use.kid,))
        return found.fetchone() is not None


class _Uses(NamedTuple):
    """The statements for uses of one kind, and up to when what was issued may be forgotten."""

    what: str
    too_old: Callable[[int], int]
    state: str
    write: str
    known: str
    over: str
    remember: str
    forget: str

    @classmethod
    def of(cls, what: str, name: str, too_old: Callable[[int], int]) -> _Uses:
        """Those of the tables that begin with this name."""
        return cls(
            what,
            too_old,
            f"select floor, held from {name}_state",  # noqa: S608, a name of ours
            f"update {name}_state set floor = ?, held = ?",  # noqa: S608
            f"select 1 from {name}s where entry = ? and issued_at > ?",  # noqa: S608
            f"select count(*) from {name}s where issued_at <= ?",  # noqa: S608
            f"insert into {name}s values (?, ?)",  # noqa: S608
            f"delete from {name}s where issued_at <= ?",  # noqa: S608
        )


_PROOFS = _Uses.of(OF_PROOFS, "proof", too_old)
_CONSENTS = _Uses.of(OF_CONSENTS, "consent", consent_too_old)


def _begin_proofs(floor: int, keys: tuple[str, ...]) -> Callable[[Run], None]:
    def begin(run: Run) -> None:
        for name in ("proof", "consent"):
            run(f"insert into {name}_state values (1, ?, 0)", (floor,))  # noqa: S608, ours
        for kid in set(keys):
            run("insert into proof_keys values (?)", (kid,))

    return begin


# A mark of a task or of an overlay's entry has no tree: it is not counted with a tree's buckets.
_MARKS = (
    """
    create table marks (
        bucket blob primary key, keep integer, tree text, at integer not null, said text not null
    ) without rowid, strict
    """,
    "create index marks_by_time on marks (keep)",
    "create index marks_by_tree on marks (tree)",
)


class SQLiteLedger(SQLiteStore):
    """Counts. `shared=True` says that all servers that take these tokens count in this file.

    Only a new file has a floor: see Ledger.
    """

    _table = "ledger_state"
    _version = Schema("ledger", (SchemaChange(SAYS_VERSION), SchemaChange("keeps marks", _MARKS)))
    _schema = (
        *_MARKS,
        """
        create table buckets (
            link blob, unit text, spent integer not null, keep integer, tree text not null,
            primary key (link, unit)
        ) without rowid, strict
        """,
        """
        create table reservations (
            id blob primary key, debits blob, until integer not null, open integer not null
        ) without rowid, strict
        """,
        "create index reservations_by_time on reservations (until)",
        "create index buckets_by_time on buckets (keep)",
        "create index buckets_by_tree on buckets (tree)",
        """
        create table ledger_state (
            one integer primary key check (one = 1),
            floor integer not null,
            gone integer not null default 0
        ) strict
        """,
        "create table ledger_keys (kid text primary key) without rowid, strict",
    )

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        shared: bool = False,
        readonly: bool = False,
        timeout: float = TIMEOUT,
    ) -> None:
        super().__init__(path, readonly=readonly, timeout=timeout)
        self.shared = shared

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        keys: Iterable[str] = (),
        floor: int | None = None,
        shared: bool = False,
        timeout: float = TIMEOUT,
        clock: Callable[[], float] = time,
    ) -> Self:
        """Make it, and open it. Raises StoreError if there is one.

        `keys` are the ids of root keys that are made in the same act, and of no others: their
        tokens count at once, as none can have been used before (38.15). `floor` is for tests alone:
        it stands in for the one by the clock.
        """
        new = making(keys, floor)
        first = first_ledger_floor(clock) if new.floor is None else new.floor
        SQLiteLedger._make(path, timeout, _begin_counts(first, new.keys))
        return cls(path, shared=shared, timeout=timeout)

    def reserve(self, reservation: Reservation, now: int) -> Debit | None:
        """None if every bucket had enough and was debited, else the first that had not.

        Raises StoreError.
        """
        with self._writing() as run:
            self._forget(run, now)
            # 38.8. The same reservation twice is one, also when nothing is left by now.
            if self._is_known(run, reservation.id, now):
                return None
            short, spent = self._add_up(run, reservation, now)
            if short is None:
                self._debit(run, reservation, spent)
        return short

    @staticmethod
    def _debit(run: Run, reservation: Reservation, spent: Mapping[Bucket, int]) -> None:
        """Write down what a reservation comes to."""
        for (bucket, unit), amount in spent.items():
            # 38.10. Kept for the longest lived of all that use it. Null is for good, and the
            # `max` of null and anything is null.
            run(
                """
                insert into buckets values (?, ?, ?, ?, ?)
                on conflict do update
                set spent = excluded.spent, keep = max(keep, excluded.keep)
                """,
                (bucket, unit, amount, reservation.kept_until, reservation.tree),
            )
        row = (reservation.id, _encode(reservation.debits), reservation.until)
        run("insert into reservations values (?, ?, ?, 1)", row)

    def step(self, step: MarkedStep, now: int) -> Forbidden | Debit | None:
        """None if all marks are set and all buckets debited, else what denies it.

        Raises StoreError.
        """
        with self._writing() as run:
            self._forget(run, now)
            answer, spent = self._weigh(run, step, now)
            for one in step.marks if answer is None else ():
                tree = step.tree if one.is_of_holder else None
                row = (one.bucket, one.keep, tree, now, step.by)
                run("insert or ignore into marks values (?, ?, ?, ?, ?)", row)
            for one in () if isinstance(answer, Debit) else kept_marks(step):
                # Null is for good: nothing is above it.
                later = "update marks set keep = ?1 where bucket = ?2"
                run(f"{later} and (?1 is null or keep < ?1)", (one.keep, one.bucket))
            if spent and step.reservation is not None:
                self._debit(run, step.reservation, spent)
        return answer

    def peek_step(self, step: MarkedStep, now: int) -> Forbidden | Debit | None:
        """What `step` would answer. Raises StoreError."""
        with self._reading() as run:
            answer, _ = self._weigh(run, step, now)
            return answer

    def _weigh(self, run: Run, step: MarkedStep, now: int) -> Answer:
        def set_before(bucket: bytes) -> SetBefore | None:
            found = run(
                """
                select bucket, at, said from marks
                where bucket = ? and (keep is null or keep > ?)
                """,
                (bucket, now),
            )
            row = found.fetchone()
            return None if row is None else SetBefore(*row)

        reservation = step.reservation
        is_reserved = reservation is not None and self._is_known(run, reservation.id, now)
        known = self._known_so_far(run, step, now)
        return weigh_step(step, now, *known, is_reserved=is_reserved, set_before=set_before)

    def peek(self, reservation: Reservation, now: int) -> Debit | None:
        """What `reserve` would answer: None, or the first bucket that has not enough."""
        with self._reading() as run:
            if self._is_known(run, reservation.id, now):
                return None
            short, _ = self._add_up(run, reservation, now)
            return short

    def settle(self, reservation_id: bytes, amounts: Mapping[str, int] | None, now: int) -> bool:
        """True if the reservation was open: what was not taken of it goes back.

        Raises StoreError, and TypeError for what is no amounts.
        """
        taken = what_was_taken(amounts)
        with self._writing() as run:
            self._forget(run, now)
            # 38.8. Once, and in its time: whatever is neither settled nor cancelled is spent.
            found = run(
                "select debits from reservations where id = ? and open", (reservation_id,)
            ).fetchone()
            if found is None:
                return False

            run("update reservations set open = 0 where id = ?", (reservation_id,))
            try:
                debits = _decode(found[0])
            except (msgspec.MsgspecError, TypeError):
                raise self._problem("a reservation cannot be read: the file is damaged") from None
            for debit in debits:
                back = (debit.back(taken), debit.bucket, debit.unit)
                run("update buckets set spent = spent - ? where link = ? and unit = ?", back)
        return True

    def spent(self, bucket: bytes, unit: str) -> int:
        """What a bucket has been debited. Raises StoreError."""
        with self._reading() as run:
            found = run("select spent from buckets where link = ? and unit = ?", (bucket, unit))
            row = found.fetchone()
        return 0 if row is None else int(row[0])

    # What is next to be forgotten is passed over by the two below, so that `peek` sees what
    # `reserve` sees after it has forgotten.

    @staticmethod
    def _is_known(run: Run, reservation_id: bytes, now: int) -> bool:
        found = run("select 1 from reservations where id = ? and until > ?", (reservation_id, now))
        return found.fetchone() is not None

    def _add_up(self, run: Run, reservation: Reservation, now: int) -> Sums:
        return add_up(reservation, now, *self._known_so_far(run, reservation, now))

    @staticmethod
    def _known_so_far(
        run: Run,
        asked: Reservation | MarkedStep,
        now: int,
    ) -> tuple[int, int, Callable[[Bucket], int | None], Callable[[str], int]]:
        """The floor for that token, `gone`, what buckets have been debited, how many there are."""

        def spent_of(bucket: Bucket) -> int | None:
            found = run(
                """
                select spent from buckets
                where link = ? and unit = ? and (keep is null or keep > ?)
                """,
                (*bucket, now),
            )
            row = found.fetchone()
            return None if row is None else int(row[0])

        def kept_of(tree: str) -> int:
            of_tree = "select count(*) from {} where tree = ? and (keep is null or keep > ?)"
            tables = ("buckets", "marks")
            return sum(_row(run(of_tree.format(table), (tree, now)))[0] for table in tables)

        floor, gone = _row(run("select floor, gone from ledger_state"))
        for table in ("buckets", "marks"):
            gone = max(gone, _last_over(run, table, now) or 0)
        # 38.15. Nothing of a key that was made along with the ledger was used before.
        if asked.issued_at <= floor:
            kid = (asked.kid,)
            if run("select 1 from ledger_keys where kid = ?", kid).fetchone() is not None:
                floor = asked.issued_at - 1
        return floor, gone, spent_of, kept_of

    @staticmethod
    def _forget(run: Run, now: int) -> None:
        """Forget what is over: reservations, spent for good, and buckets of expired tokens."""
        run("delete from reservations where until <= ?", (now,))
        # 38.10. How late the last of them was kept is noted: by that, a clock that is set back is
        # told.
        for table in ("buckets", "marks"):
            last = _last_over(run, table, now)
            if last is not None:
                run("update ledger_state set gone = max(gone, ?)", (last,))
                run(f"delete from {table} where keep <= ?", (now,))  # noqa: S608


def _last_over(run: Run, table: str, now: int) -> int | None:
    """Until when the last is kept, in one of the two tables, of what is over; None for nothing."""
    last: int | None
    (last,) = run(f"select max(keep) from {table} where keep <= ?", (now,)).fetchone()  # noqa: S608
    return last


def _begin_counts(floor: int, keys: tuple[str, ...]) -> Callable[[Run], None]:
    def begin(run: Run) -> None:
        run("insert into ledger_state (one, floor) values (1, ?)", (floor,))
        for kid in set(keys):
            run("insert into ledger_keys values (?)", (kid,))

    return begin


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Debit, ...]).decode


_OVERLAY = Schema("overlay", (SchemaChange(f"{SAYS_VERSION}, and keeps no write-ahead log"),))


class SQLiteSnapshots(SQLiteStore):
    """The newest snapshot of the overlay, in a file of its own.

    Who may read the file, and enter its folder, can look; to publish one has to write both. With
    `readonly=True` it is for looking alone, whatever this process may do: it writes nothing, and
    takes back nothing that a process which was cut off has left. Until the operator's next look has
    done that, it raises StoreError.
    """

    _table = "overlay"
    _version = _OVERLAY

    # Kept in place from one snapshot to the next. Who reads needs no other file.
    _journal = "truncate"
    # A delta with `is_in` led to the snapshot that lies there whole, and is behind it no more.
    _schema = (
        """
        create table overlay (
            one integer primary key check (one = 1), snapshot blob not null
        ) strict
        """,
        """
        create table overlay_deltas (
            number integer primary key, after blob not null, gives blob not null,
            delta blob not null, is_in integer not null default 0
        ) strict
        """,
        "create index overlay_deltas_by_mark on overlay_deltas (after)",
    )

    @classmethod
    def create(cls, path: str | os.PathLike[str], *, timeout: float = TIMEOUT) -> Self:
        """Make it, without a snapshot, and open it. Raises StoreError if there is one.

        Verifiers deny until an operator publishes: who makes it renews at once.
        """
        SQLiteSnapshots._make(path, timeout, lambda run: None)
        return cls(path, timeout=timeout)

    def load(self) -> bytes | None:
        """The newest snapshot, and the deltas behind it, if there is one. Raises StoreError."""
        with self._reading() as run:
            return self._lies(run)

    def publish(self, snapshot: bytes, after: bytes | None) -> bool:
        """False if another one lies there than `after`. On disk when it returns True.

        Raises StoreError.
        """
        with self._writing() as run:
            if self._lies(run) != after:
                return False

            # The same made whole: whoever is on the way to it by deltas goes on.
            newest = self._newest(run)
            if newest is not None and newest == mark(snapshot):
                run("update overlay_deltas set is_in = 1")
                run(
                    """
                    delete from overlay_deltas
                    where number <= (select max(number) from overlay_deltas) - ?
                    """,
                    (DELTAS,),
                )
            else:
                run("delete from overlay_deltas")
            run("insert or replace into overlay values (1, ?)", (snapshot,))
        return True

    def append(self, delta: bytes, after: bytes, gives: bytes) -> bool:
        """False if the newest has another mark than `after`. On disk when it returns True.

        Raises StoreError.
        """
        with self._writing() as run:
            if self._mark(run) != after:
                return False
            run(
                "insert into overlay_deltas (after, gives, delta) values (?, ?, ?)",
                (after, gives, delta),
            )
        return True

    def since(self, mark: bytes) -> list[bytes] | None:
        """The deltas that lead from that mark to the newest; None if it is not known here.

        Raises StoreError.
        """
        with self._reading() as run:
            if self._mark(run) == mark:
                return []
            found = run("select min(number) from overlay_deltas where after = ?", (mark,))
            (first,) = found.fetchone()
            return None if first is None else self._deltas(run, "number >= ?", (first,))

    def _lies(self, run: Run) -> bytes | None:
        row = run("select snapshot from overlay").fetchone()
        if row is None:
            return None
        return lines(bytes(row[0]), self._deltas(run, "not is_in"))

    @staticmethod
    def _deltas(run: Run, which: str, values: tuple[int, ...] = ()) -> list[bytes]:
        """The deltas for which that holds, in their order. `which` is one of the two above."""
        select = f"select delta from overlay_deltas where {which} order by number"  # noqa: S608
        return [bytes(row[0]) for row in run(select, values)]

    def _mark(self, run: Run) -> bytes | None:
        """The mark of the newest; None if there is none."""
        newest = self._newest(run)
        if newest is not None:
            return newest
        row = run("select snapshot from overlay").fetchone()
        return None if row is None else mark(bytes(row[0]))

    @staticmethod
    def _newest(run: Run) -> bytes | None:
        """What the last delta gives; None if there is none."""
        row = run("select gives from overlay_deltas order by number desc limit 1").fetchone()
        return None if row is None else bytes(row[0])


# --- upgrades -------------------------------------------------------------------------------------

KINDS: tuple[type[SQLiteStore], ...] = (SQLiteReplayStore, SQLiteLedger, SQLiteSnapshots)


class _AsItLies(SQLiteStore):
    """A file with whatever stores are in it, also of earlier versions.

    `alone`: nobody else may have it open. `moves_to`: another file, to which the overlay moves in
    the same transaction.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        timeout: float,
        *,
        alone: bool = False,
        moves_to: str | None = None,
    ) -> None:
        self._alone = alone
        self._moves_to = moves_to
        super().__init__(path, timeout=timeout)

    def _prepare(self, connection: sqlite3.Connection, until: float) -> None:
        # To leave the write-ahead log, SQLite has to have the file alone. And it commits to two
        # files at once where neither has one.
        if self._alone:
            # Of a file that is read-only, SQLite says "disk I/O error" here.
            if not os.access(self._path, os.W_OK):
                raise self._failed("attempt to write a readonly database", sqlite3.SQLITE_READONLY)
            connection.execute("pragma journal_mode = delete")
        connection.execute("pragma synchronous = full")
        if self._moves_to is not None:
            connection.execute("attach ? as moved", (os.path.abspath(self._moves_to),))

    def _missing(self) -> StoreError:
        return missing(self._where)

    def _failed(self, text: str, code: int) -> StoreError:
        if code & 0xFF == sqlite3.SQLITE_BUSY:
            text = "another process has it open: stop whatever uses it"
        return super()._failed(text, code)

    def found(self, kinds: Iterable[type[SQLiteStore]]) -> list[type[SQLiteStore]]:
        """The kinds of stores that are in it."""
        with self._reading() as run:
            return [kind for kind in kinds if _is_there(run, kind._table)]

    def plan(self, kinds: Iterable[type[SQLiteStore]]) -> list[Upgrade]:
        """What is to be done with each of these. Raises StoreError for a newer one."""
        with self._reading() as run:
            versions = [kind._version for kind in kinds]
            return [upgrade_of(one, self._where, _said_version(run, one)) for one in versions]

    def bring_on(self, kinds: Iterable[type[SQLiteStore]]) -> None:
        """Do it, for all of these at once. Raises StoreError."""
        with self._writing() as run:
            for kind in kinds:
                version = kind._version
                # Another upgrade may have been first.
                for step in version.missing_steps(self._where, _said_version(run, version)):
                    for statement in step.statements:
                        run(statement)
                if kind is SQLiteSnapshots and self._moves_to is not None:
                    self._move_overlay(run, self._moves_to)
                else:
                    _say_version(run, version)

    @staticmethod
    def _move_overlay(run: Run, to: str) -> None:
        """The snapshot and its deltas, with all that holds them. Raises StoreError."""
        if run("select 1 from moved.sqlite_master").fetchone() is not None:
            raise there_already(_where(to))
        run(f"pragma moved.application_id = {APPLICATION_ID}")
        for statement in SQLiteSnapshots._schema:
            run(re.sub(r"create (table|index) ", r"create \1 moved.", statement.strip()))
        for table in ("overlay", "overlay_deltas"):
            run(f"insert into moved.{table} select * from main.{table}")  # noqa: S608
            run(f"drop table main.{table}")
        _say_version(run, SQLiteSnapshots._version, "moved")


def upgrade_file(
    path: str | os.PathLike[str],
    *,
    apply: bool = False,
    overlay: str | os.PathLike[str] | None = None,
    kinds: Iterable[type[SQLiteStore]] = KINDS,
    timeout: float = TIMEOUT,
) -> list[Upgrade]:
    """What brings the stores in a file to the version of this code; with `apply`, it is done.

    In one transaction, while no other process has the file open. `overlay` is the file that the
    overlay gets, where it lies with other stores, as the first version kept it. Raises StoreError.
    """
    with closing(_AsItLies(path, timeout)) as file:
        there = file.found(kinds)
        found = file.plan(there)
    if not found:
        raise none_there(_where(path))
    older = [kind for kind, one in zip(there, found, strict=True) if one.does]
    if not older:
        return found

    to: str | None = None
    if SQLiteSnapshots in older and len(there) > 1:
        if overlay is None:
            raise StoreError(
                f"{_where(path)}: the overlay shares its file with other stores, and needs its "
                "own: name one with overlay="
            )
        to = os.fspath(overlay)
        found = [_moving(one, to) for one in found]
    if apply:
        if to is not None:
            _make_file(to)
        with closing(_AsItLies(path, timeout, alone=True, moves_to=to)) as file:
            file.bring_on(older)
    return found


def _moving(one: Upgrade, to: str) -> Upgrade:
    """With the words for where the overlay goes."""
    if one.store != _OVERLAY.store:
        return one
    return one._replace(does=(*one.does, f"moves to {shown_file(to)}"))
