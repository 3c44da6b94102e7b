"""The threat levels that `captoken react level` sets, for verifiers whose tokens ask about them.

    levels = ThreatLevels("react.db")
    verifier = Verifier(keyring, "sales-db", context=levels)
    token = issuer.mint(…, where={"threat": {"in": ["low"]}})

They lie in the file in which reactions keep what they have read (docs/reactions.md).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Final

from captoken._format.errors import StoreError
from captoken._format.root import RootRecord
from captoken._format.spelling import shown_file

# From calm to dangerous.
LEVELS: Final = ("low", "medium", "high")

# The version of the file's tables that this reads.
_VERSION: Final = 1


class ThreatLevels:
    """How dangerous it is now, as a `context` for verifiers: `{"threat": "low"}`.

    It looks at the file at most every `every` seconds. What is set for a task holds for the tasks
    below it; what is set for all holds for those without one of their own, and else it is low.

    It raises StoreError if the file cannot be read, and the verifier then denies every access:
    `attribute`. So a file that is gone is not taken for a quiet day. Threads may share it.
    """

    waits = False  # a look at a small table of this machine: no thread is needed for that

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str = "threat",
        every: float = 1.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._path = os.fspath(path)
        self._name = name
        self._every = every
        self._clock = clock
        self._lock = Lock()
        self._levels: dict[str, str] = {}
        self._looked: float | None = None

    def __call__(self, issued: RootRecord) -> dict[str, str]:
        """The level of what was issued, under the name. Raises StoreError."""
        return {self._name: self.of(issued.task)}

    def of(self, task: str) -> str:
        """The level of a task. Raises StoreError."""
        with self._lock:
            now = self._clock()
            if self._looked is None or not 0 <= now - self._looked < self._every:
                self._levels = self._read()
                self._looked = now
            return level_of(self._levels.get, task)

    def _read(self) -> dict[str, str]:
        try:
            address = f"{Path(self._path).absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(address, uri=True, timeout=1)) as db:
                ((version,),) = db.execute("pragma user_version").fetchall()
                found = dict(db.execute("select task, level from levels").fetchall())
        except sqlite3.Error as error:
            where = shown_file(self._path)
            raise StoreError(f"threat levels in {where}: {type(error).__name__}") from None
        if version != _VERSION or not set(found.values()) <= set(LEVELS):
            raise StoreError(f"threat levels in {shown_file(self._path)}: of another version")
        return found

    def __repr__(self) -> str:
        return f"<ThreatLevels {shown_file(self._path)}>"


def level_of(said: Callable[[str], str | None], task: str) -> str:
    """The level of a task: its own, that of the nearest task above it, or that of all: ''.

    `said` gives what was set for exactly one task, or None.
    """
    while task and said(task) is None:
        task = task.rpartition("/")[0]
    return said(task) or "low"
