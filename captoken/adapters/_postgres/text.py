"""What a PostgreSQL statement names, by the server's grammar: tables, columns, functions, types.

The rules, which the code cites as T1, T2 and so on:

T1. It is one statement: select, values, insert, update, delete or merge. It has at most 100,000
    bytes, 3,000 tokens that nest, 200 tables and 200 CTEs. No text takes long to be read.
T2. Every kind of node in the tree is on a list. What is on none is refused. So new grammar is
    refused until somebody reads it.
T3. The name of a CTE excuses an unqualified name where rows are read, in the scope of the CTE. It
    never excuses the target of a write.
T4. An unqualified column belongs to every table in sight that has one of that name, at its own
    level or outside. A qualified one belongs to every table in sight that goes by the qualifier.
    So too many columns are named rather than too few.
T5. All columns are meant, those that are added later too, by `*`, by a whole row, by NATURAL and
    by renamed columns (`t as a(x, y)`).
T6. Functions are on a list, and are PostgreSQL's own; so are types. Operators are unqualified, or
    of pg_catalog.
T7. A name after a dot is a call, since `(x).name` is `name(x)`. It is none where every table that
    goes by the qualifier has a column of that name. A table without it is then read whole, since
    that is what the call gets.

This file says what is found. The others, in the order in which they build on each other:

- `lists`: what may be named (T2, T6);
- `walk`: how the tree is walked, and tables counted (T1);
- `expressions`, `tables`, `statements`: what each kind of node says (T3 to T7);
- `reader`: from the text of a statement to the `Text` that says what it names (T1, T2).

None of them knows a database. That is the part of three more files:

- `catalog`: what the roles of a login may do, and which names there are;
- `needs`: what the names in a text mean there (T4, T5, T7);
- `assessment`: what the text needs, of a grant and of a role, and what is refused (T6, T7).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from captoken.adapters._postgres.lists import RESULT_NAMES

Table: TypeAlias = tuple[str, str]  # schema and name


class Scope:
    """The tables in sight at one level of a statement. `outer` is the level around it."""

    __slots__ = ("joins", "outer", "tables")

    def __init__(self, outer: Scope | None) -> None:
        self.outer = outer
        # Each table with the name by which it goes here: its alias, or else its own name.
        self.tables: list[tuple[str, Table]] = []
        # The names of joins. Each of them stands for all tables of the level.
        self.joins: set[str] = set()

    def outward(self) -> Iterator[Scope]:
        """This level, and each level around it."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.outer


class Reference(NamedTuple):
    """A column that is read, as it is qualified and spelled. The column "*" is all of them."""

    scope: Scope
    qualifier: str | None
    column: str


class Write(NamedTuple):
    """An insert, update or delete, with its columns. None is all of them."""

    table: Table
    operation: str
    columns: tuple[str, ...] | None


class Text:
    """What one statement says, or why no token permits it: `refusal`, a code and a sentence."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.refusal: tuple[str, str] | None = None

        # The tables of which rows are read, in the order of mention.
        self.reads: list[Table] = []
        self.writes: list[Write] = []
        self.references: list[Reference] = []

        # The names of columns, tables and results that the statement makes itself.
        self.declared: set[str] = set(RESULT_NAMES)
        # The names after the dot of what is no plain column: `(x).name` (T7).
        self.fields: set[str] = set()
        # The names by which functions in FROM go. Each may be a value, and no row (T7).
        self.values: set[str] = set()

        # The functions that are called, by schema and name.
        self.functions: set[tuple[str | None, str]] = set()
        # The types that are on no list, by schema and name.
        self.types: set[tuple[str | None, str]] = set()
