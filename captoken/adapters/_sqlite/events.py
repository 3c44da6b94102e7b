"""The first account: what SQLite asked the authorizer while it compiled a statement.

Events name tables and columns, and every function. They do not name the columns that NATURAL and
USING compare, nor what a REPLACE deletes (`captoken.adapters.sqlite`). Of a statement that joins
all of two tables they tell next to nothing:

    SELECT count(*) FROM sales NATURAL JOIN hr

    (SELECT, None, None, None, None)
    (FUNCTION, None, "count", None, None)
    (READ, "sales", "", None, None)         a name as the text spells it, and no column
    (READ, "hr", "", None, None)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from captoken.adapters._sqlite.account import Account
from captoken.adapters._sqlite.catalog import Catalog, Object, Schema
from captoken.adapters._sqlite.lexer import fold
from captoken.adapters._sqlite.naming import Key, table_name
from captoken.adapters._sqlite.text import Text
from captoken.adapters._sqlite.watch import FUNCTION, INSERT, READ, UPDATE, WRITES, Event


def add_events(account: Account, events: Iterable[Event], catalog: Catalog) -> None:
    """Add the tables, the columns and the functions that the authorizer was asked about.

    Those of triggers, views and foreign keys are among them: SQLite compiles them along with it.
    """
    for event in events:
        code, _, column, _, _ = event
        if code == FUNCTION:
            account.functions.add(fold(column or ""))
        elif code in WRITES or (code == READ and column):
            # A read without a column has the name as the text spells it, or that of a CTE. It
            # proves nothing; what is read there the opcodes tell.
            _add_table(account, catalog.schema, event)
    account.writes = account.inserts | account.deletes | account.updates.keys()

    # A function of the owner's can do anything, and one that is not innocuous can read files or
    # load code. One that was replaced has the name of SQLite's own.
    if account.functions and account.functions & catalog.foreign_functions:  # rule 7
        account.refuse("operation", "a function that is not SQLite's own, or not innocuous")


def refuse_reads_elsewhere(
    account: Account,
    events: Iterable[Event],
    names: Mapping[Key, str],
    text: Text,
    catalog: Catalog,
) -> None:
    """Rule 13: a text reads a part by the query that stands for it, and by nothing else.

    `names` are those of the queries. Views and triggers read the table itself, and are judged by
    the columns. So does the statement where it changes the table, and SQLite for foreign keys.

    SQLite looks some names up again, once it has made one query of two: it then says that a column
    of the query is read around it. A text that reads the table itself has to name its schema.
    """
    reads = [
        (entry, event[2], event[4])
        for event in events
        if event[0] == READ and event[2]
        for entry in (catalog.schema.of(event),)
        if entry is not None and entry.key in names
    ]
    by_query = {
        (entry.key, column) for entry, column, within in reads if within == names[entry.key]
    }
    for entry, column, within in reads:
        if within == names[entry.key] or fold(within or "") in catalog.schema.bodies:
            continue
        is_its_query = (entry.key, column) in by_query and not text.qualified(*entry.key)
        is_of_write = within is None and _is_of_write(account, entry, catalog)
        if not is_its_query and not is_of_write:
            account.refuse("column", f"the statement reads {entry.name} itself")


def _is_of_write(account: Account, entry: Object, catalog: Catalog) -> bool:
    """Is it what the statement writes, or does a foreign key lead from one to the other?"""
    if entry.key in account.writes:
        return True
    if catalog.parents(entry.key) & account.writes:
        return True
    return any(entry.key in catalog.parents(key) for key in account.writes)


def _add_table(account: Account, schema: Schema, event: Event) -> None:
    """Add one read or write of a table, if the schema has it."""
    code, name, column, _, _ = event
    entry = schema.of(event)
    if entry is None and code == READ and table_name("main", name or "") is not None:
        # A virtual table that is always there (json_each), or a subquery: opcodes tell.
        return
    if entry is None or entry.kind == "virtual":
        # Rule 4: a catalog, a virtual table of the owner's, or nobody knows what.
        account.refuse_table()
        return
    if account.target is None and code in WRITES:
        # The first write is the statement's own.
        account.target = entry
    if entry.kind != "view":
        # A view has no rows: it is judged by what its query, or its INSTEAD OF triggers, touch.
        _count(account, entry.key, code, column or "")


def _count(account: Account, key: Key, code: int, column: str) -> None:
    """Add one read or write of a table of the owner's."""
    if code == READ:
        account.reads[key].add(column)
    elif code == UPDATE:
        account.updates[key].add(column)
    elif code == INSERT:
        account.inserts.add(key)
    else:
        account.deletes.add(key)
