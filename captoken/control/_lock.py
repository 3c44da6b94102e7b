"""A lock that outlives a fork."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from threading import Lock

from captoken.stores.own_process import OwnProcess


class _Lock:
    """A lock that does not stay held in a child process, where whoever held it is not."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._process = OwnProcess()

    @contextmanager
    def held(self, waits: bool = True) -> Generator[bool, None, None]:
        """In the block: is it held here?"""
        if not self._process.is_own():
            self._lock = Lock()
            self._process = OwnProcess()
        lock = self._lock
        mine = lock.acquire(blocking=waits)
        try:
            yield mine
        finally:
            if mine:
                lock.release()
