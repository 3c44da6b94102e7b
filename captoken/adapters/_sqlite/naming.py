"""What tokens call tables, and the accesses that a grant is asked about.

    main.sales, temp.x, archive.sales     sales, temp.x, archive.sales
    sqlite_master, pragma_table_info      no name: a catalog is never granted (rule 4)
    "dotted.name"                         no name: it would look like a table of another schema

Tokens are case-sensitive and SQLite is not. So a table goes by the spelling of the schema where it
is there, and by that of the text where it is not.
"""

from __future__ import annotations

from collections.abc import Iterable

from captoken._language.access import Access
from captoken.adapters._costed_grant import access_or_none
from captoken.adapters._sqlite.lexer import fold
from captoken.adapters._sqlite.scopes import Mention

NEVER_GRANTED = "catalogs, virtual tables, and names that no token can hold, are never granted"

Key = tuple[str, str]  # schema and table, as the schema spells them

# Virtual tables that read nothing but their arguments (rule 4).
_HARMLESS = frozenset(("json_each", "json_tree"))

# The only operations that have columns. Of an insert or a delete SQLite does not tell any.
_WITH_COLUMNS = frozenset(("select", "update"))


def table_name(schema: str, name: str) -> str | None:
    """What a token calls the table: `sales`, or `archive.sales` outside of `main` (rule 4).

    None for a catalog, and for an identifier that is no segment of a name: a dot in it would make
    it look like a schema and a table. U+FFFD stands for bytes that are not UTF-8.
    """
    folded = fold(name)
    if folded.startswith(("sqlite_", "pragma_")) or folded == "dbstat":
        return None
    parts = (name,) if fold(schema) == "main" else (schema, name)
    if any("." in part or "\ufffd" in part for part in parts):
        return None
    return ".".join(parts)


def spelled(mention: Mention) -> str | None:
    """What a token would call a table that is spelled so, were it there."""
    return table_name(mention.schema or "main", mention.name)


def is_harmless(mention: Mention) -> bool:
    """Is it json_each or json_tree, which touch no table? (rule 4)"""
    return mention.schema is None and fold(mention.name) in _HARMLESS


def access_to(
    table: str | None, operation: str | None, columns: Iterable[str] | None = None
) -> Access | None:
    """The access, or None if no token can name it. Only select and update state columns.

    No columns at all (`()`) is something else than columns that are not stated (None): a grant that
    restricts the columns of the table permits the former, and prohibits the latter.
    """
    is_stated = operation in _WITH_COLUMNS
    return access_or_none(table, operation, columns if is_stated else None)
