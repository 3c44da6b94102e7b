"""A block in which a context variable has a value: for what adapters keep beside `current`.

    with within(_call, call):
        answer = handler(request)    # and whatever it calls finds the call

A variable of a context, and not a global: other requests of the process do not see it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

_T = TypeVar("_T")


@contextmanager
def within(variable: ContextVar[_T], value: _T) -> Generator[None, None, None]:
    """In this block `variable` has that value; after it, what it had before.

    Tasks that are started in the block keep the value, as with any context variable. Threads do not
    get it. Raises ValueError at the end where the block is left in another context than it was
    entered in, as a generator can be.
    """
    before = variable.set(value)
    try:
        yield
    finally:
        variable.reset(before)
