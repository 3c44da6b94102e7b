"""One guarded block at a time on a connection, in one thread: for the guards of databases.

Two blocks on one connection would share a transaction: the one could commit what the other is to
roll back, and would run under the other's authorizer or role.
"""

from __future__ import annotations

import threading

from captoken._format.errors import GuardError

# By id of a connection that is guarded: the thread of its block. An entry lives no longer than the
# block, which keeps the connection alive, so that no other one can have the id meanwhile. It is the
# module's, since all blocks of the process have to see it, and a connection of SQLite takes neither
# an attribute nor a weak reference. It never holds more than there are blocks open.
_claims: dict[int, int] = {}

# Around the look and the entry together.
_claiming = threading.Lock()


class Claim:
    """Around a block, before its connection is touched.

    Raises GuardError if the connection is guarded already, in this thread or another one. Does not
    keep anybody off who uses the connection without a guard.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: object) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        _claim(self._connection)

    def __exit__(self, *raised: object) -> None:
        # Its own: an entry is made by nobody else while it is there.
        del _claims[id(self._connection)]


def _claim(connection: object) -> None:
    """Claim the connection for this thread. The lookup and the entry are one step, under a lock."""
    own = threading.get_ident()
    with _claiming:
        holder = _claims.get(id(connection))
        if holder is None:
            _claims[id(connection)] = own
            return

    whose = "this thread" if holder == own else "another thread"
    raise GuardError(
        f"{whose} has a guarded block on this connection already: leave that block first"
    )
