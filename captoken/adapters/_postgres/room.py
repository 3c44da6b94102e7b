"""In which thread the library works: in that of the caller, or in one that has room for deep texts.

The library recurses, and does not look at how much of the stack is left. Neither does Python, when
it lets go of a tree. Where that is not enough, the process ends: an agent could end the server with
`((((…` on a thread with a small stack. So a deep tree begins and ends in that thread.

It takes a key of the process for each thread that calls it, for good. On Linux there are 1,024, for
all libraries together. So not every thread calls it, and deep texts share one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import count
from typing import TypeVar

_Given = TypeVar("_Given")
_Result = TypeVar("_Result")

_STACK = 32 << 20  # bytes: several times what the deepest statement takes that is read
_MOST = 250  # threads that call the library themselves


class _Room:
    """One thread with a large stack. It is started when it is first needed."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the thread. After a fork there is none in the child, though it looks so."""
        self._starting = threading.Lock()
        self._thread: Executor | None = None

    def run(self, work: Callable[[_Given], _Result], given: _Given) -> _Result:
        """What the work gives, or raises, there."""
        with self._starting:
            if self._thread is None:
                self._thread = self._started()
            thread = self._thread
        return thread.submit(work, given).result()

    def _started(self) -> Executor:
        """The size of a stack is the process's: it counts for whatever starts while it is set."""
        thread = ThreadPoolExecutor(1, "captoken-reader", _let_in)
        before = threading.stack_size(_STACK)
        try:
            thread.submit(int).result()
        finally:
            threading.stack_size(before)
        return thread


_ROOM = _Room()
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_ROOM.clear)

_numbers = count()
_this_thread = threading.local()


def _let_in() -> None:
    """The thread in the room calls the library, however many have done so."""
    _this_thread.number = 0


def run(work: Callable[[_Given], _Result], given: _Given, deep: bool = False) -> _Result:
    """What the work gives, or raises: `deep` where it could need more than a small stack."""
    if not hasattr(_this_thread, "number"):
        _this_thread.number = next(_numbers)
    if deep or _this_thread.number >= _MOST:
        return _ROOM.run(work, given)
    return work(given)
