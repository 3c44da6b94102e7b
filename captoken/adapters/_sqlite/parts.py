"""Rule 13: where a token grants some columns of a table, SQLite itself sees no others.

Each such table is a *part*. A text that names it is sent behind two queries, and so the name of the
table stands for the columns that are granted:

    select * from people natural join pay

    with k_0 as not materialized (select "id", "name" from "main"."people"),
    "people" as not materialized (select * from k_0) select * from people natural join pay

So a hidden name is one that is not there, and SQLite says so in the same words. `k` is drawn for
the connection and never told. SQLite names to its authorizer the innermost query that a read is in,
and what reads the table elsewhere is refused (`events`). The name of the table would not do: a
query of the text can have it, and then takes the place of ours, as it takes that of the table.
Views and triggers see none of the two.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from captoken._format.spelling import shown
from captoken.adapters._sqlite.catalog import quoted
from captoken.adapters._sqlite.lexer import fold
from captoken.adapters._sqlite.naming import Key, table_name
from captoken.adapters._sqlite.text import Text

# Behind the query of a part: SQLite then asks nothing of a row before it has the row (`lengths`).
APART = " limit -1"

# Stands for what comes before a column in the condition of a part. No name and no value has it.
MARK = "\0"

# Characters of what is told of one table.
_MOST_TOLD = 1_000


class Part(NamedTuple):
    """A table, and what a token grants of it, as far as a text may mean it (`granted`)."""

    schema: str
    name: str
    columns: tuple[str, ...]  # as the schema spells them, and in its order
    is_bare: bool = True  # its name without a schema stands for it, and for no other table
    is_whole: bool = False  # are all of its columns granted?

    # Where rows are restricted: the conditions that an access states, as JSON, and the same in SQL,
    # with a mark before each column (rule 16).
    rows: tuple[bytes, ...] = ()
    condition: str = ""

    @property
    def key(self) -> Key:
        """What the guard counts it by."""
        return self.schema, self.name

    def held(self, before: str = "") -> str:
        """The condition on its rows, with a name before each column: `new.`, say."""
        return self.condition.replace(MARK, before)

    def told(self) -> str:
        """What there is of it, for whoever has used another name."""
        names = [name if name.isidentifier() else shown(name) for name in self.columns]
        columns = ", ".join(names) or "no columns"
        if len(columns) > _MOST_TOLD:
            columns = columns[:_MOST_TOLD].rpartition(", ")[0] + ", and more"
        return f"{table_name(*self.key)} has {columns} here"


Parts = tuple[Part, ...]


def names_of(parts: Parts, drawn: str) -> dict[Key, str]:
    """What the query of each part is called: all reads of the table come under this name."""
    return {part.key: f"{drawn}_{at}" for at, part in enumerate(parts)}


def sent(
    sql: str,
    text: Text,
    parts: Parts,
    drawn: str,
    behind: str = "",
    more: Iterable[str] = (),
    is_blind: bool = False,
) -> str:
    """The SQL as SQLite gets it, which begins and names tables as the text does.

    `behind` is put behind the query of each part. `more` are further queries. With `is_blind`
    nothing is read where rows are restricted.
    """
    queries: list[str] = []
    for part, name in zip(parts, names_of(parts, drawn).values(), strict=True):
        if is_blind and part.rows:
            queries.append(blind_query(name, part))
        else:
            queries.append(query(name, part, listed(part.columns), behind))

        # A name that the text itself declares stays the text's own.
        if part.is_bare and fold(part.name) not in text.declared_first:
            bare = quoted(part.name)
            queries.append(f"{bare} as not materialized (select * from {name})")  # noqa: S608

    declared = ", ".join([*queries, *more])
    if not declared:
        return sql
    at = text.behind_with
    return f"{sql[:at]} {declared}, {sql[at:]}" if at else f"with {declared} {sql}"


def query(name: str, part: Part, columns: str, behind: str = "") -> str:
    """A query of a WITH: it gives these columns of a part."""
    where = f" where {part.held()}" if part.rows else ""
    source = f"{qualified(part)}{where}{behind}"
    return f"{name} as not materialized (select {columns} from {source})"  # noqa: S608


# What `*` gives where no column is granted, or none that there is: a query has one column at least.
_NO_COLUMN = 'null as "no column"'


def blind_query(name: str, part: Part) -> str:
    """A query with the same columns that reads no table, and whose values nobody knows."""
    columns = ", ".join(f"value as {quoted(one)}" for one in part.columns) or _NO_COLUMN
    return f"{name} as not materialized (select {columns} from json_each('[]'))"  # noqa: S608


def qualified(part: Part) -> str:
    """The table itself, as it is written in SQL."""
    return f"{quoted(part.schema)}.{quoted(part.name)}"


def listed(columns: Iterable[str]) -> str:
    """Columns as a query gives them. None is a query too: it gives one value for each row."""
    return ", ".join(map(quoted, columns)) or _NO_COLUMN
