"""Names: how SQL quotes them, and by which of them a token knows a table or a function.

a table in SQL            its name in a token
"public"."sales"          sales
"market"."moves"          market.moves
"public"."a.b"            none: it would be the table b of the schema a
"pg_catalog"."pg_class"   none: it is a catalog
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from captoken._format.names import segmented
from captoken._language.access import Access
from captoken.adapters._costed_grant import access_or_none
from captoken.adapters._postgres.text import Table

# Where the guard's own functions are, and the key.
SCHEMA = "captoken_guard"

# What a role can be granted on a table.
OPERATIONS = ("select", "insert", "update", "delete")

# And on some columns of it. PostgreSQL has no DELETE by columns.
WITH_COLUMNS = frozenset(("select", "insert", "update"))


# --- in SQL ---


def quoted(name: str) -> str:
    """An identifier in SQL, whatever it holds: a quote in it is doubled, and ends nothing."""
    return '"' + name.replace('"', '""') + '"'


def quoted_table(table: Table) -> str:
    """A table in SQL, with its schema."""
    schema, name = table
    return f"{quoted(schema)}.{quoted(name)}"


def literal(text: str) -> str:
    """A string in SQL, whatever standard_conforming_strings says.

    With that setting off, a backslash in a plain string takes the quote after it for text. So a
    string with a backslash is written as `E'...'`, which means the same under either setting.
    """
    doubled = text.replace("'", "''")
    if "\\" not in text:
        return f"'{doubled}'"
    return "E'" + doubled.replace("\\", "\\\\") + "'"


# --- in tokens ---


def name_of(table: Table) -> str | None:
    """The name by which tokens know a table, or None if no token can hold one for it.

    A table of `public` goes by its bare name, any other by `schema.name`. Catalogs have no name:
    they tell of all databases and roles, whatever a token says of tables.
    """
    schema, name = table

    # Catalogs, and what the guard keeps. A table `pg_…` of another schema looks like a catalog, and
    # without its schema it would be one.
    if schema in ("information_schema", SCHEMA):
        return None
    if schema.startswith("pg_") or name.startswith("pg_"):
        return None

    # A dot of its own would make `a.b` mean two tables. A star would make it a pattern.
    if "." in schema or "." in name or "*" in (schema, name):
        return None

    spelled = name if schema == "public" else f"{schema}.{name}"

    # Too long, or with characters that a token has no place for.
    try:
        segmented(spelled, "table")
    except ValueError:
        return None
    return spelled


def access_to(
    table: Table,
    operation: str,
    columns: Iterable[str] | None,
    rows: Sequence[Mapping[str, Any]] | None = None,
) -> Access | None:
    """The access that a grant is asked about, or None if no token can name it.

    `columns` None is all of them. `rows` are the conditions that are held of the table's rows.
    """
    is_stated = operation in WITH_COLUMNS
    return access_or_none(name_of(table), operation, columns if is_stated else None, rows)


def function_access(schema: str | None, name: str) -> Access:
    """What a call of a listed function is asked about as: `execute` on its name.

    A function of `public` goes by its bare name. Raises ValueError for one that no token can name.
    """
    known_as = name if schema in (None, "public") else f"{schema}.{name}"
    return Access(table=known_as, operation="execute")
