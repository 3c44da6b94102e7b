"""The third account: what the text names, or says, and SQLite may leave out of the other two.

Rule 6, what a statement replaces, and rule 9, what is missing (`captoken.adapters.sqlite`).

    REPLACE INTO codes VALUES (1, 'x')         an INSERT for the authorizer; it may delete a row
    SELECT s.id FROM sales s LEFT JOIN hr …    hr cannot matter: left out, if there is one
    INSERT INTO sales … RETURNING id           reads the row, as it is in the table
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from captoken.adapters._sqlite.account import ENDS_IT, Account
from captoken.adapters._sqlite.catalog import Object, Schema
from captoken.adapters._sqlite.lexer import fold
from captoken.adapters._sqlite.naming import Key, is_harmless
from captoken.adapters._sqlite.opcodes import Engine
from captoken.adapters._sqlite.programs import Programs
from captoken.adapters._sqlite.scopes import Mention
from captoken.adapters._sqlite.text import Text


def add_replaced(
    account: Account,
    text: Text,
    programs: Programs,
    schema: Schema,
    engine: Engine,
) -> None:
    """Rule 6: to replace rows is to delete them, which no event tells.

    Here by the text, and for the table that it names: whether a row is replaced depends on the rows
    that are there, and a caller could learn them from what happens.
    """
    target = account.target
    if target is None:
        return

    # INSERT OR ROLLBACK would end the transaction of the block.
    if "rollback" in text.conflicts:
        account.refuse("operation", ENDS_IT)
    if "replace" in text.conflicts and target.kind == "table":
        account.deletes.add(target.key)
    if not engine.shows_replaced:
        _add_replaced_by_schema(account, text, programs, schema)


def _add_replaced_by_schema(
    account: Account,
    text: Text,
    programs: Programs,
    schema: Schema,
) -> None:
    """For a build whose opcodes do not show it: by what the texts of tables and triggers say.

    OR REPLACE is passed on from a statement to its triggers, and from a trigger to what it writes.
    """
    by_text = "replace" in text.conflicts
    by_trigger = any("replace" in schema.bodies.get(name, "").lower() for name in programs.fired)
    passed_on = by_text or by_trigger

    # The word alone is enough, in a comment too: one delete too many is asked about, never one too
    # few.
    for key in account.inserts | account.updates.keys():
        if passed_on or "replace" in _sql_of(key, schema).lower():
            account.deletes.add(key)


def _sql_of(key: Key, schema: Schema) -> str:
    """The CREATE TABLE of a table: there, too, it can say ON CONFLICT REPLACE.

    In `CREATE TABLE codes (code UNIQUE ON CONFLICT REPLACE)`, a plain INSERT deletes rows.
    """
    name, table = key
    entry = schema.objects[fold(name), fold(table)]
    return entry.sql


def add_names(
    account: Account,
    mentions: Iterable[Mention],
    schema: Schema,
    view_of: Callable[[Object], Account | None],
) -> None:
    """Rule 9: SQLite drops a table that cannot matter, but says so if there is none.

    So whatever the text names is needed, whether it is read or not. A name under which nothing is
    there is needed too: the grant decides whether that may be told.
    """
    for mention in mentions:
        entry = schema.find(mention)
        if entry is None:
            if not is_harmless(mention):
                account.missing.append(mention)
        elif entry.kind == "virtual":  # rule 4
            account.refuse_table()
        elif mention.operation == "select":
            _add_selected(account, entry, view_of)


def _add_selected(
    account: Account,
    entry: Object,
    view_of: Callable[[Object], Account | None],
) -> None:
    """A table that is read, or a view, which is what its tables are: all its columns included.

    SQLite may leave out a view that cannot matter. What it would read is needed all the same: else
    it would be told that the name is that of a view.
    """
    if entry.kind == "table":
        account.selects.add(entry.key)
        return

    view = view_of(entry)
    if view is None:
        account.refuse("table", "a view that SQLite cannot compile")
        return
    account.selects |= view.selects
    for key, columns in view.reads.items():
        account.reads[key] |= columns
    account.refusals |= view.refusals


def add_returned(account: Account, programs: Programs) -> None:
    """Rule 6: RETURNING hands back rows of the table that is written.

    `UPDATE people SET name = name RETURNING ssn` would else read by the right to update.
    """
    target = account.target
    if target is not None and target.kind == "table" and programs.returns_rows:
        account.selects.add(target.key)
