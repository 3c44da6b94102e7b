"""What one statement touches, added up: events, opcodes and names each add what they see.

What one of the three has counted no other takes away again, so that nothing counts less for being
left out by one of them (`captoken.adapters.sqlite`). For example:

    UPDATE sales SET amount = 1 WHERE id IN (SELECT id FROM hr)

    target     sales
    updates    sales: amount
    reads      sales: id; hr: id
    selects    hr                 its cursor only reads (rule 5), and the text names it (rule 9)

    needs      update on sales (amount, id), select on hr (id)

Knows no grant.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from captoken._language.access import Access
from captoken.adapters._sqlite.catalog import Object
from captoken.adapters._sqlite.naming import NEVER_GRANTED, Key, access_to, spelled, table_name
from captoken.adapters._sqlite.scopes import Mention

ENDS_IT = "the statement may end the transaction"


class Account:
    """The sums for one statement. Tables are counted by their keys, indexes with their tables."""

    def __init__(self) -> None:
        # What no token can grant: code and reason, in the order in which it was met.
        self.refusals: dict[tuple[str, str], None] = {}

        # What the events say. The target is the table or view that the statement itself writes;
        # what its triggers and foreign keys write comes after it.
        self.functions: set[str] = set()
        self.target: Object | None = None
        self.reads: defaultdict[Key, set[str]] = defaultdict(set)  # columns by table
        self.updates: defaultdict[Key, set[str]] = defaultdict(set)  # columns by table
        self.inserts: set[Key] = set()
        self.deletes: set[Key] = set()
        self.writes: set[Key] = set()  # all tables that an event wrote

        # What the opcodes and the names say.
        self.selects: set[Key] = set()
        self.looked_up: set[Key] = set()  # by foreign keys alone
        self.missing: list[Mention] = []

    def refuse(self, code: str, reason: str) -> None:
        """Say that the statement does what no token can grant."""
        self.refusals[code, reason] = None

    def refuse_table(self) -> None:
        """Say that the statement touches a table that no token can grant (rule 4)."""
        self.refuse("table", NEVER_GRANTED)

    def needs(self) -> list[Access]:
        """The accesses to ask a grant about. Refuses the statement where one has no name.

        An update needs the columns that it writes, and those of the rows that it reads to find
        them. Of inserts and deletes SQLite tells no columns, so that they are not stated.
        """
        needs = [
            *(_access(key, "insert") for key in self.inserts),
            *(_access(key, "update", self.updates[key] | self.reads[key]) for key in self.updates),
            *(_access(key, "delete") for key in self.deletes),
            *(_access(key, "select", self.reads[key]) for key in self.selects),
            *(access_to(spelled(name), name.operation, ()) for name in self.missing),
        ]
        named = [need for need in needs if need is not None]
        if len(named) < len(needs):
            self.refuse_table()
        return named


def _access(key: Key, operation: str, columns: Iterable[str] | None = None) -> Access | None:
    return access_to(table_name(*key), operation, columns)
