"""A lock that outlives a fork."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from threading import Lock


class _Lock:
    """A lock that does not stay held in a child process, where whoever held it is not."""

    def __init__(self) -> None:
        self._lock, self._process = Lock(), os.getpid()

    @contextmanager
    def held(self, waits: bool = True) -> Generator[bool, None, None]:
        """In the block: is it held here?"""
        if self._process != os.getpid():
            self._lock, self._process = Lock(), os.getpid()
        lock = self._lock
        mine = lock.acquire(blocking=waits)
        try:
            yield mine
        finally:
            if mine:
                lock.release()
