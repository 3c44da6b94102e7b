"""How many rows a statement wrote, with those of triggers and cascades: for budgets (rule 13).

PostgreSQL says of a statement how many rows it wrote itself. What triggers and foreign keys write
for it, only its statistics tell. So they are asked before the statement and after it, in the same
round trip; the difference is what it wrote.

Rows that are written when the transaction is committed, by a deferred constraint trigger, are not
among them.
"""

from __future__ import annotations

from captoken.adapters._postgres.wire import Answer, Command

HOW_MANY = Command(
    b"""
    select case pg_catalog.current_setting('track_counts')
        when 'on' then coalesce(pg_catalog.sum(n_tup_ins + n_tup_upd + n_tup_del), 0)
    end
    from pg_catalog.pg_stat_xact_user_tables
    """,
    own=True,
)

# What the server says that it did, where it counts rows that were written.
_WRITES = (b"INSERT", b"UPDATE", b"DELETE", b"MERGE")


def written(before: Answer, statement: Answer, after: Answer) -> int | None:
    """How many rows it wrote. None where the server does not count (`track_counts` is off).

    Rows of a foreign table are not in the statistics: of these the statement itself tells.
    """
    if before.text is None or after.text is None:
        return None
    told = statement.count if statement.did.startswith(_WRITES) else 0
    return max(int(after.text) - int(before.text), told)
