"""Who may use a guarded block of a database, and what it is asked about at its commit.

One thread, one statement at a time, and none once it has ended: for the guards of databases.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable

from captoken._format.errors import GuardError
from captoken._language.access import Access
from captoken._verification.decision import Decision
from captoken.adapters._costed_grant import CostedGrant


class GuardedBlock:
    """What the blocks of both guards have in common. It sends nothing and decides nothing."""

    def __init__(self, grant: CostedGrant) -> None:
        self._grant = grant
        self._thread = threading.get_ident()

        # Does a statement run? Was one asked for? Has the block ended?
        self._busy = False
        self._used = False
        self._over = False

        # What the block wrote that a commit makes last, each once.
        self._written: dict[Hashable, Access] = {}

    def check_usable(self) -> None:
        """Raise GuardError in another thread, after the end, and while a statement runs.

        Whoever has kept `db` from a block cannot use it once the block is over, nor from elsewhere.
        Two tasks that share a block come to a second statement, and so does Python code which the
        database calls for the first one: a converter, a collation, an adapter of the owner's.
        """
        if threading.get_ident() != self._thread:
            raise GuardError("the block belongs to another thread: open a block in each thread")
        if self._over:
            raise GuardError("the block has ended: run statements within its `with`")
        if self._busy:
            raise GuardError("a statement of this block is still running: run one after the other")

    def _check_unused(self) -> None:
        """Raise GuardError where a statement was asked for before the only one."""
        if self._used:
            raise GuardError(
                "execute_once must run the only statement of its block: open a block for it"
            )

    def _note_written(self, needs: Iterable[Access]) -> None:
        """Note what a statement wrote. The commit checks it again.

        Each once, however many statements wrote it: a block of a thousand inserts asks about one.
        """
        for need in needs:
            if need.operation != "select":
                key = need.table, need.operation, need.columns
                self._written[key] = self._grant.stated(need)

    def _late(self) -> Decision | None:
        """The denial, if the grant does not permit any more what was written. Not recorded yet.

        A block can be open for long. A grant that is revoked meanwhile leaves nothing behind. What
        only read leaves nothing that could be taken back.
        """
        return self._grant.late(self._written.values()) if self._written else None
