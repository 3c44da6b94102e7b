"""A lock that outlives a fork.

A fork copies a lock as it is. If another thread held it, the child has a lock that nobody there
will ever release.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from threading import Lock

from captoken.stores.own_process import OwnProcess


class ForkSafeLock:
    """A lock that does not stay held in a child process, where whoever held it is not.

        with lock.held():
            ...

    What it guards is copied by a fork as it is at that moment, perhaps half changed. So it is for
    memory that each process may go on with by itself, as the newest overlay is. What must not go
    on by itself refuses a child instead: see `OwnProcess`.

    Threads of one process share one. It costs a look at the process id, and an uncontended lock.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        """A lock of this process, held by nobody."""
        self._lock = Lock()
        self._process = OwnProcess()

    @contextmanager
    def held(self, timeout: float = -1) -> Generator[bool, None, None]:
        """In the block: is it held here? Always, unless another has it for longer than `timeout`.

        `timeout` is in seconds: 0 does not wait, and -1 waits for as long as it takes. Not for a
        thread that holds it already: it would wait for itself.
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
