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

from captoken._format.errors import IssuanceError, StoreError
from captoken.issuance.registry._logins import LoginTables
from captoken.issuance.registry._rules import Ruling, first_floor
from captoken.issuance.registry._tables import TABLES, Run, Statement, begin
from captoken.issuance.registry.ports import Exchange
from captoken.issuance.registry.sqlite import run_by
from captoken.stores.own_process import OwnProcess

# Of so many parts one subject may have one.
_PARTS = 10

# How many assertions there are of each subject, and of all under the empty name. The subject stays
# with the assertion, since its task may be forgotten first.
_ROOM = (
    "alter table registry_used add column subject text",
    "create table registry_held (subject text primary key, many integer not null)",
    """
    create trigger registry_more after insert on registry_used begin
        update registry_used set subject = (select subject from registry_tasks where id = new.task)
            where digest = new.digest;
        insert into registry_held
            select subject, 1 from registry_tasks where id = new.task union all select '', 1
            on conflict do update set many = many + 1;
    end
    """,
    """
    create trigger registry_less after delete on registry_used begin
        update registry_held set many = many - 1 where subject in ('', old.subject);
        delete from registry_held where many = 0;
    end
    """,
)
_HELD = "select coalesce(sum(many), 0) from registry_held where subject == ?"
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
        """What is written, if it fits. Raises StoreError and IssuanceError."""
        self._check_room(run, entry)
        return super()._written(run, entry, verdict)

    def _check_room(self, run: Run, entry: Exchange) -> None:
        """Raise StoreError where it is full, and IssuanceError where that subject's part is.

        The subject is told of its own part alone.
        """
        digests = {seen.digest for seen in entry.seen}
        room = [(_HELD, ("",)), (_HELD, (entry.subject,))]
        counted = run([*room, *((_KNOWN, (digest,)) for digest in digests)])
        every, held, *known = [rows[0][0] for rows in counted]
        new = known.count(0)
        if every + new > self._limit:
            raise StoreError(
                f"{self._limit} assertions are remembered, and there is no room for more: pass a "
                "larger limit="
            )

        # One exchange has two: a login, and the proof of a key.
        part = max(self._limit // _PARTS, 2)
        if new and held + new > part:
            raise IssuanceError(
                f"this service remembers {held} of your assertions, and takes no more now",
                "access_denied",
                f"one subject has {part} of {self._limit} at most",
            )

    def __len__(self) -> int:
        """How many assertions are remembered, for tests and for whoever watches the memory."""
        with self._to_read() as run:
            return int(run([(_HELD, ("",))])[0][0][0])
