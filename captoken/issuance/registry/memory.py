"""The registry in memory: for one process, and for tests.

It uses the tables of the other registries, in an in-memory SQLite database. A restart forgets
everything. Then leases of earlier tasks are refused, and so are assertions that were issued up to a
minute after the start: see the floor. An end that the overlay did not have yet is lost. If anything
must survive a restart, use a file or a server.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Lock
from time import time
from weakref import finalize

from captoken._format.errors import StoreError
from captoken.issuance.registry._logins import LoginTables
from captoken.issuance.registry._rules import Ruling, first_floor
from captoken.issuance.registry._tables import TABLES, Run, Statement, begin
from captoken.issuance.registry.ports import Exchange
from captoken.issuance.registry.sqlite import run_by
from captoken.stores.own_process import OwnProcess

# Of so many parts one subject may have one.
_PARTS = 10

# How many assertions there are.
_ROOM = (
    "create table registry_held (many integer not null)",
    "insert into registry_held values (0)",
    """
    create trigger registry_more after insert on registry_used begin
        update registry_held set many = many + 1;
    end
    """,
    """
    create trigger registry_less after delete on registry_used begin
        update registry_held set many = many - 1;
    end
    """,
)
_HELD = "select many from registry_held"
_KNOWN = "select count(*) from registry_used where digest == ?"


class MemoryRegistry(LoginTables):
    """Tasks for the threads of one process.

    - `floor=0` promises that no registry was here before. Else assertions that were issued up to a
      minute after the start are refused.
    - Holds at most `limit` assertions, and refuses more. One subject may have a tenth of them, so
      that it does not lock out the others.
    - `clock` is asked once, for the floor. Calls bring their own time.
    - A forked child is refused: its copy would go its own way.

        registry = MemoryRegistry(floor=0)
    """

    def __init__(
        self,
        *,
        floor: int | None = None,
        limit: int = 100_000,
        clock: Callable[[], float] = time,
    ) -> None:
        """A registry that knows nothing yet. Raises what the clock raises."""
        first = first_floor(clock) if floor is None else floor
        # Not re-entrant: no transaction is begun within another one.
        self._lock = Lock()
        self._process = OwnProcess()
        self._limit = limit

        # One exchange has two: a login, and the proof of a key.
        self._per_subject = max(limit // _PARTS, 2)
        self._database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        finalize(self, self._database.close)
        with self._to_write() as run:
            tables = [statement.format(int="integer", blob="blob") for statement in TABLES]
            run([(statement, ()) for statement in (*tables, *_ROOM)])
            begin(run, first)

    @contextmanager
    def _to_write(self) -> Generator[Run]:
        if not self._process.is_own():
            raise StoreError(
                "this registry in memory belongs to another process: use a file to share one"
            )
        with self._lock:
            try:
                self._database.execute("begin")
                try:
                    yield run_by(self._database.execute)
                except BaseException:
                    self._database.execute("rollback")
                    raise
                self._database.execute("commit")
                return
            except sqlite3.Error as error:
                failed = type(error).__name__
        raise StoreError(f"the registry in memory: {failed}")

    # One connection sees one state.
    _to_read = _to_write

    def _written(self, run: Run, entry: Exchange, verdict: Ruling) -> list[Statement]:
        """What is written, if it fits. Raises StoreError."""
        self._check_room(run, entry)
        return super()._written(run, entry, verdict)

    def _check_room(self, run: Run, entry: Exchange) -> None:
        """Raise StoreError where it is full."""
        digests = {seen.digest for seen in entry.seen}
        counted = run([(_HELD, ()), *((_KNOWN, (digest,)) for digest in digests)])
        every, *known = [rows[0][0] for rows in counted]
        if every + known.count(0) > self._limit:
            raise StoreError(
                f"{self._limit} assertions are remembered, and there is no room for more: pass a "
                "larger limit="
            )

    def __len__(self) -> int:
        """How many assertions are remembered, for tests and for whoever watches the memory."""
        with self._to_read() as run:
            return int(run([(_HELD, ())])[0][0][0])
