"""Rule 13: a name that could mean a hidden column is refused, whether there is one or not.

A name that is a hidden column is refused. Where there is no such column, the same name may be that
of an alias, or of a column of a subquery. Were it then let through, its sender would know that
nothing is hidden under the name:

    SELECT pay FROM people, (SELECT 1 AS pay)      ambiguous if people has a column pay, else 1
    SELECT name AS pay FROM people WHERE pay = 1   the column pay if there is one, else the alias
    SELECT name AS pay FROM people ORDER BY pay    the alias, whatever people has

So a text is compiled once more, on *shadows* of the tables that it names: empty ones, in memory.
The shadow of a table with hidden columns has the columns that are granted, and every other word of
the text as one more. What reads one of those could mean a hidden column. Nothing is hidden in a
shadow, so that nothing that happens there tells.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from typing import Any, NamedTuple

from captoken.adapters._sqlite.catalog import quoted
from captoken.adapters._sqlite.lexer import fold
from captoken.adapters._sqlite.watch import READ, UPDATE

# Words that are no column's by themselves: names of the rowid, which events tell, and of constants.
_NO_COLUMNS = frozenset(("rowid", "_rowid_", "oid", "true", "false"))

_AMBIGUOUS = re.compile(r"ambiguous column name: (?:\S*\.)?(.+)", re.DOTALL)

# A column that no text can name: no quotes hold a zero byte. So only a star reads it.
_NAMELESS = "\x01"

# SQLite takes no more columns in a table. A text with more words than that is refused as a whole.
_MOST = 1_900


class Shadow(NamedTuple):
    """A table as a text may see it."""

    schema: str | None  # as the text says it
    name: str
    columns: tuple[str, ...]  # those that are granted, or all of a table that hides none
    words: tuple[str, ...] = ()  # what else its columns might be called


def other_words(words: Sequence[str], columns: Sequence[str]) -> tuple[str, ...]:
    """The words of a text that could be columns beside those that are known. Each once."""
    known = _NO_COLUMNS.union(map(fold, columns))
    others = {fold(word): word for word in words if word}
    return tuple(word for folded, word in others.items() if folded not in known)


class Look(NamedTuple):
    """What came of a text on shadows."""

    # A word that could mean a hidden column.
    word: str | None = None

    # What is wrong with the text. On the tables it is wrong too, and perhaps something else first.
    error: Exception | None = None


def look(sql: str, parameters: Any, shadows: Sequence[Shadow]) -> Look:
    """Compile the text on shadows. Runs nothing."""
    for shadow in shadows:
        if len(shadow.columns) + len(shadow.words) > _MOST:
            return Look(shadow.words[0])

    read: Counter[tuple[str, str]] = Counter()
    problem: Exception | None = None

    def noted(what: int, table: str | None, column: str | None, *_: Any) -> int:
        if what in (READ, UPDATE):
            read[fold(table or ""), fold(column or "")] += 1
        return sqlite3.SQLITE_OK

    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for statement in _made(shadows):
            connection.execute(statement)
        connection.set_authorizer(noted)
        try:
            connection.execute(f"EXPLAIN {sql}", parameters)
        except Exception as error:
            problem = error.with_traceback(None)
            ambiguous = _AMBIGUOUS.match(str(error))
            if ambiguous is not None:
                read.update((fold(shadow.name), fold(ambiguous[1])) for shadow in shadows)

    for shadow in shadows:
        table = fold(shadow.name)
        # A star reads every column once, the nameless one as well. A name reads its own once more.
        by_star = read[table, _NAMELESS]
        for word in shadow.words:
            if read[table, fold(word)] > by_star:
                return Look(word)
    return Look(error=problem)


def _made(shadows: Sequence[Shadow]) -> list[str]:
    """The statements that make the shadows. A schema that the text names is attached."""
    made: list[str] = []
    schemas = {"main", "temp"}
    for shadow in shadows:
        schema = shadow.schema or "main"
        if fold(schema) not in schemas:
            schemas.add(fold(schema))
            made.append(f"ATTACH ':memory:' AS {quoted(schema)}")
        columns = ", ".join(map(quoted, (*shadow.columns, *shadow.words, _NAMELESS)))
        made.append(f"CREATE TABLE {quoted(schema)}.{quoted(shadow.name)} ({columns})")
    return made
