"""Rule 8: the columns that NATURAL and USING compare, and that no event names.

`select pin from (select 'z' as pin where 0) full join secret using (pin)` returns every pin, and
the authorizer is not asked about one. So where a join may hide columns, all columns count that the
opcodes read (`captoken.adapters.sqlite`). In the program of that statement:

    addr  opcode    p1  p2
    10    OpenRead  1   3       cursor 1 on page 3, which is secret (pin, region)
    18    Rewind    1   35
    20    Column    1   0       reads the column at place 0 of secret: pin

Whether there is such a join is asked of the texts alone, and of any that might play a part. Too
many texts refuse too much, and too few would let something pass.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from captoken.adapters._sqlite.account import Account
from captoken.adapters._sqlite.catalog import Catalog, Object
from captoken.adapters._sqlite.lexer import fold
from captoken.adapters._sqlite.naming import Key
from captoken.adapters._sqlite.opcodes import ON_CURSOR
from captoken.adapters._sqlite.programs import Programs, Reading
from captoken.adapters._sqlite.text import Text, hides_joins


def add_hidden_columns(
    account: Account,
    text: Text,
    programs: Programs,
    readers: list[Reading],
    catalog: Catalog,
    parts: Collection[Key],
) -> None:
    """Add what opcodes read, if the statement, or what it may reach, hides columns of joins.

    What the statement itself joins of `parts` are granted columns, and events name them all: the
    opcodes could read others by an index alone.
    """
    texts = _texts(text, programs, catalog)
    if not any(hides_joins(each.sql) for each in texts):
        return

    # USING names what is compared. NATURAL does not: two sides are compared by whatever names they
    # share, so that every column may be.
    joined = {fold(name) for each in texts for name in each.using}
    natural = any("natural" in each.sql.lower() for each in texts)

    joined_by_text = parts if len(texts) == 1 else ()
    for entry, read in _columns_read(readers, catalog):
        if entry.key in joined_by_text:
            continue
        layout = catalog.layout(entry)
        # SQLite also reads rowids for ends of its own. A rowid alone counts only if it can be what
        # is joined on: by its name, or by a generated column that is computed from it.
        certain = natural or layout.computes or read != layout.rowid
        if certain or joined & {fold(name) for name in read}:
            account.reads[entry.key] |= read


def _texts(text: Text, programs: Programs, catalog: Catalog) -> list[Text]:
    """The statement, and each view and trigger that it may reach.

    Triggers by their programs, which are part of the statement's. Views have no program, so any
    name counts that occurs in a text that was reached, wherever it stands there and however it is
    quoted. If no view or trigger hides a join, only the statement itself can.
    """
    texts = [text]
    if not catalog.schema.hides_joins:
        return texts
    bodies = catalog.schema.bodies
    reached = set(programs.fired)
    texts += [Text(bodies.get(name, "")) for name in reached]
    for each in texts:  # grows as views name views
        new = each.names & (bodies.keys() - reached)
        reached |= new
        texts += [Text(bodies[name]) for name in new]
    return texts


def _columns_read(
    readers: list[Reading], catalog: Catalog
) -> Iterator[tuple[Object, frozenset[str]]]:
    """Each time that an opcode reads columns of a table: the table, and the columns."""
    for reader in readers:
        for _, op, p1, p2, _, p4, *_ in reader.program:
            if op in ON_CURSOR:
                for entry in reader.by_cursor.get(p1, ()):
                    yield entry, catalog.layout(entry).read(op, p2, p4)
