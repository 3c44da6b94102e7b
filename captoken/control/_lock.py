"""A lock that outlives a fork."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from threading import Lock

from captoken.stores.own_process import OwnProcess


class ForkSafeLock:
    """A lock that does not stay held in a child process, where whoever held it is not.

        with lock.held():
            ...

    What it guards is copied by a fork as it is at that moment. So it is for memory that each
    process may go on with by itself, as the newest overlay is.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        """A lock of this process, held by nobody."""
        self._lock = Lock()
        self._process = OwnProcess()

    @contextmanager
    def held(self, waits: bool = True) -> Generator[bool, None, None]:
        """In the block: is it held here? Always, unless `waits` is False and another has it."""
        if not self._process.is_own():
            self._begin()
        lock = self._lock
        mine = lock.acquire(blocking=waits)
        try:
            yield mine
        finally:
            if mine:
                lock.release()
