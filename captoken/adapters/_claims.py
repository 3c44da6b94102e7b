"""One guarded block at a time on a connection, in one thread: for the guards of databases."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

from captoken._format.errors import GuardError

_claims: dict[
    int, int
] = {}  # id of a connection that is guarded → its thread; an entry lives no longer than its block
_claiming = threading.Lock()


@contextmanager
def claimed(connection: object) -> Generator[None, None, None]:
    """Around a block, before its connection is touched. Raises GuardError if it is guarded already, here or elsewhere."""
    with _claiming:
        holder = _claims.setdefault(id(connection), 0)
        if holder:
            whose = "this thread" if holder == threading.get_ident() else "another thread"
            raise GuardError(f"the connection is guarded already, in {whose}: one block at a time")
        _claims[id(connection)] = threading.get_ident()
    try:
        yield
    finally:
        del _claims[id(connection)]
