"""A lock that also works after a fork.

A fork copies a lock as it is. If another thread held it, nobody in the child can ever release it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from threading import Lock

from captoken.stores.own_process import OwnProcess


class ForkSafeLock:
    """A lock that is free in a forked child, even if another thread held it in the parent.

        with lock.held():
            ...

    A fork copies the guarded data as it is at that moment, perhaps half changed. So use this lock
    only for memory that each process can continue with by itself, such as the newest overlay. Data
    that must not be continued refuses a child instead: see `OwnProcess`.

    The threads of one process share a lock. It costs a look at the process id, and an uncontended
    lock.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        """A lock of this process that nobody holds."""
        self._lock = Lock()
        self._process = OwnProcess()

    @contextmanager
    def held(self, timeout: float = -1) -> Generator[bool, None, None]:
        """A block that holds the lock.

        Its value is False if another holds it longer than `timeout`.

        `timeout` is in seconds: 0 does not wait, and -1 waits without limit. A thread that already
        holds the lock must not call this: it would wait for itself.
        """
        # A child that was just forked has one thread, so that no two begin at once.
        if not self._process.is_own():
            self._begin()

        # The one that was taken is released, also where the block itself forks.
        lock = self._lock
        mine = lock.acquire(timeout=timeout)
        try:
            yield mine
        finally:
            if mine:
                lock.release()
