"""One guarded block at a time on a connection, in one thread: for the guards of databases."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

from captoken._format.errors import GuardError

# By id of a connection that is guarded: the thread of its block. An entry lives no longer than the
# block, which keeps the connection alive, so that no other one can have the id meanwhile.
_claims: dict[int, int] = {}
_claiming = threading.Lock()


@contextmanager
def claimed(connection: object) -> Generator[None, None, None]:
    """Around a block, before its connection is touched.

    Raises GuardError if the connection is guarded already, in this thread or another one.
    """
    _claim(connection)
    try:
        yield
    finally:
        del _claims[id(connection)]


def _claim(connection: object) -> None:
    """Two threads that claim at once are told apart: the look and the entry are one step."""
    own = threading.get_ident()
    with _claiming:
        holder = _claims.get(id(connection))
        if holder is not None:
            whose = "this thread" if holder == own else "another thread"
            raise GuardError(f"the connection is guarded already, in {whose}: one block at a time")
        _claims[id(connection)] = own
