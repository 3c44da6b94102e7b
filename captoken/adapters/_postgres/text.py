"""What a PostgreSQL statement names, by the server's grammar: tables, columns, functions, types.

The rules, which the code cites as T1, T2 and so on:

T1. It is one statement: select, values, insert, update, delete or merge. It has at most 100,000
    bytes, 3,000 tokens that nest, 200 tables and 200 CTEs. No text takes long to be read.
T2. Every kind of node in the tree is on a list, and so is every field of it. What is on none is
    refused. So new grammar is refused until somebody reads it.
T3. The name of a CTE excuses an unqualified name where rows are read, in the scope of the CTE. It
    never excuses the target of a write.
T4. An unqualified column belongs to every table in sight that shows one of that name, at its own
    level and at those outside, up to a level that has one for certain. A qualified one belongs to
    every table in sight that goes by the qualifier. A column that is not shown belongs to none, and
    the statement does not see it (`rewriting`).
T5. All columns that are shown of a table when the statement runs are meant by `*`, by a whole row,
    by NATURAL and by renamed columns (`t as a(x, y)`).
T6. Functions are on a list, and are PostgreSQL's own; so are types. Operators are unqualified, or
    of pg_catalog.
T7. A name after a dot is a call, since `(x).name` is `name(x)`. It is none where what goes by the
    qualifier has a column of that name for certain. A call that is granted reads the table whole.
    Of any other, the name is one that is not there.

This file says what is found. The others, in the order in which they build on each other:

- `lists`: what may be named (T2, T6);
- `grammar`: the scanner and the parser of PostgreSQL;
- `tree`: what the parser makes of a text, as nodes (T2);
- `walk`: how the tree is walked, and tables counted (T1);
- `outputs`: what PostgreSQL calls the columns of a result;
- `expressions`, `tables`, `statements`: what each kind of node says (T3 to T7);
- `reader`: from the text of a statement to the `Text` that says what it names (T1, T2).

None of them knows a database. That is the part of five more files:

- `catalog`: what the roles of a login may do, and which names there are;
- `columns`: which columns the tables, subqueries and functions of a statement have for certain;
- `rewriting`: the text that is sent, in which names mean what is shown; `edits`: how it is changed;
- `needs`: what the names in a text mean there (T4, T5, T7);
- `assessment`: what the text needs, of a grant and of a role, and what is refused (T6, T7).
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Any, NamedTuple, TypeAlias

Table: TypeAlias = tuple[str, str]  # schema and name

# A function of the owner's that may be called: its schema, if one is said, and its name.
Functions: TypeAlias = frozenset[tuple[str | None, str]]


class RefusedError(Exception):
    """Ends the reading: no token permits this statement.

    Its arguments are a code, "operation" or "table", and a sentence for the caller.
    """


class Source(NamedTuple):
    """What is no table in FROM: a subquery, a CTE, a function. With its columns, by the text."""

    # The columns that the text gives a name: `x(a, b)`.
    named: frozenset[str] = frozenset()

    # The query that gives the others, by its place in `Text.queries`.
    query: int | None = None

    # Are these all of them?
    complete: bool = False


class Join(NamedTuple):
    """A join that has a name: the columns that the text names there, and what is joined."""

    named: frozenset[str]

    # The names that it goes by; none for `using (id) as u`.
    members: tuple[str, ...]


class Scope:
    """What is in sight at one level of a statement. `outer` is the level around it."""

    __slots__ = (
        "certain",
        "joins",
        "outer",
        "renamed",
        "renaming",
        "sources",
        "tables",
        "target",
        "target_names",
    )

    def __init__(self, outer: Scope | None) -> None:
        self.outer = outer
        # Each table with the name by which it goes here: its alias, or else its own name.
        self.tables: list[tuple[str, Table]] = []
        # What is no table, with its name. A subquery without one goes by "".
        self.sources: list[tuple[str, Source]] = []
        # The joins that have a name. Each of them stands for all tables of the level.
        self.joins: dict[str, Join] = {}
        # Those of them that give other names to the columns of what they join: `j(x, y)`.
        self.renaming: set[str] = set()
        # The new names of columns: `people as p(a, b)`, in their order.
        self.renamed: dict[str, tuple[str, ...]] = {}
        # Whether all of this is in sight of whoever looks from here (T4). It is not from within the
        # FROM clause itself, nor from the parts of what writes.
        self.certain = False
        # The table that is written at this level, and the names by which it goes here. It is no
        # item of FROM, and stays what it is where those are replaced (`rewriting`).
        self.target: Table | None = None
        self.target_names: set[str] = set()

    def from_within(self) -> Scope:
        """The same level as its own FROM clause sees it: perhaps less of it."""
        within = copy(self)
        within.certain = False
        return within

    def outward(self) -> Iterator[Scope]:
        """This level, and each level around it."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.outer


class Star(NamedTuple):
    """`*` or `q.*` among the columns of a result."""

    qualifier: str | None


class Query(NamedTuple):
    """A query, or what comes back of a write: its level, and the names of its columns.

    None is a name that is not known.
    """

    scope: Scope
    outputs: tuple[str | Star | None, ...]


class Reference(NamedTuple):
    """A column that is read, as it is qualified and spelled. The column "*" is all of them."""

    scope: Scope
    qualifier: str | None
    column: str

    # Is it one of its own level in any case, as in `using (id)`?
    local: bool = False


class Field(NamedTuple):
    """A name after the dot of what is no plain column: `(x).name` (T7)."""

    scope: Scope

    # The name in the brackets, where it is one.
    of: str | None
    name: str


# --- where all that stands, for who changes the text there (`rewriting`) ---


class Item(NamedTuple):
    """A table of which rows are read, and the node of it."""

    node: Any
    table: Table


class Named(NamedTuple):
    """A column, or all of them, and the node of it."""

    node: Any
    reference: Reference


class Dotted(NamedTuple):
    """A name after the dot of an expression, with the node, and at which place of it."""

    node: Any
    place: int
    field: Field


class Level(NamedTuple):
    """A query, or what writes, with its level."""

    node: Any
    scope: Scope


class Write(NamedTuple):
    """An insert, update or delete, with its columns. None is all of them."""

    table: Table
    operation: str
    columns: tuple[str, ...] | None

    # How many columns an insert fills that names none, as far as the text says.
    width: int | None = None


class Text:
    """What one statement says, or why no token permits it: `refusal`, a code and a sentence."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.refusal: tuple[str, str] | None = None

        # The tables of which rows are read, in the order of mention.
        self.reads: list[Table] = []
        self.writes: list[Write] = []
        self.references: list[Reference] = []

        # The same with their places.
        self.items: list[Item] = []
        self.named: list[Named] = []
        self.dotted: list[Dotted] = []
        self.grouped: list[Level] = []
        self.targets: list[Level] = []

        # Is there a TABLESAMPLE? And the tree, in which all of that is.
        self.sampled = False
        self.tree: Any = None

        # The queries of which a source has its columns, by the identity of their nodes: no two have
        # the same, since all nodes are there until the walk ends.
        self.queries: dict[int, Query] = {}

        # The databases that names of tables are qualified by.
        self.databases: set[str] = set()

        # How many sources there are.
        self.sources = 0

        # The functions that are called, by schema and name.
        self.functions: set[tuple[str | None, str]] = set()
        # The types that are on no list, by schema and name.
        self.types: set[tuple[str | None, str]] = set()
