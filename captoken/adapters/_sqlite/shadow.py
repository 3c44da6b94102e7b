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
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from captoken.adapters._sqlite.catalog import quoted
from captoken.adapters._sqlite.lexer import fold
from captoken.adapters._sqlite.watch import MOST_EQUAL, READ, UPDATE

# Words that are no column's by themselves: names of the rowid, which events tell, and of constants.
_NO_COLUMNS = frozenset(("rowid", "_rowid_", "oid", "true", "false"))

_AMBIGUOUS = re.compile(r"ambiguous column name: (?:\S*\.)?(.+)", re.DOTALL)

# SQLite takes no more columns in a table. A text with more words than that is refused as a whole.
_MOST = 1_900


class Shadow(NamedTuple):
    """A table as a text may see it."""

    schema: str  # as the text says it, folded; temp if it says none
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

    # A word that could mean a hidden column; and whether it has another meaning in the text.
    word: str | None = None
    has_another: bool = False

    # What is wrong with the text. On the tables it is wrong too, and perhaps something else first.
    error: Exception | None = None

    # Does it get too large while it is compiled? Then nothing is known of its words.
    too_large: bool = False


def look(sql: str, parameters: Any, shadows: Sequence[Shadow]) -> Look:
    """Compile the text on shadows. Runs nothing."""
    for shadow in shadows:
        if shadow.words and len(shadow.columns) + len(shadow.words) > _MOST:
            return Look(shadow.words[0])

    # A column that no text names, since it is longer than every word: so only a star reads it.
    longest = max((len(word) for shadow in shadows for word in shadow.words), default=0)
    nameless = "\x01" * (longest + 1)
    read, problem = _compiled(sql, parameters, shadows, nameless)
    if max(read.values(), default=0) > MOST_EQUAL:
        return Look(too_large=True)
    word = _captured(shadows, read, nameless)
    if word is None:
        return Look(error=problem)

    # Without it, does the text still mean something?
    granted = [Shadow(shadow.schema, shadow.name, shadow.columns) for shadow in shadows]
    _, problem = _compiled(sql, parameters, granted, nameless)
    return Look(word, has_another=problem is None)


def _captured(
    shadows: Sequence[Shadow],
    read: Mapping[tuple[str, str], int],
    nameless: str,
) -> str | None:
    """The first word that was read as a column, by what was read of each table."""
    for shadow in shadows:
        table = fold(shadow.name)
        # A star reads every column once, the nameless one as well. A name reads its own once more.
        by_star = read[table, nameless]
        for word in shadow.words:
            if read[table, fold(word)] > by_star:
                return word
    return None


def _compiled(
    sql: str,
    parameters: Any,
    shadows: Sequence[Shadow],
    nameless: str,
) -> tuple[Counter[tuple[str, str]], Exception | None]:
    """How often each column of each table is read or written, and what is wrong with the text."""
    read: Counter[tuple[str, str]] = Counter()

    def noted(what: int, table: str | None, column: str | None, *_: Any) -> int:
        # What is neither is counted as a column without a name, of no table.
        place = (fold(table or ""), fold(column or "")) if what in (READ, UPDATE) else ("", "")
        read[place] += 1
        return sqlite3.SQLITE_DENY if read[place] > MOST_EQUAL else sqlite3.SQLITE_OK

    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for statement in _made(shadows, nameless):
            connection.execute(statement)
        connection.set_authorizer(noted)
        try:
            connection.execute(f"EXPLAIN {sql}", parameters)
        except Exception as error:
            # Any: a parameter of a wrong type, too, is wrong with the text.
            ambiguous = _AMBIGUOUS.match(str(error))
            if ambiguous is not None:
                read.update((fold(shadow.name), fold(ambiguous[1])) for shadow in shadows)
            return read, error.with_traceback(None)
    return read, None


def _made(shadows: Sequence[Shadow], nameless: str) -> list[str]:
    """The statements that make the shadows. A schema that the text names is attached."""
    made: list[str] = []
    schemas = {"main", "temp"}
    for shadow in shadows:
        schema = shadow.schema
        if schema not in schemas:
            schemas.add(schema)
            made.append(f"ATTACH ':memory:' AS {quoted(schema)}")
        columns = shadow.columns
        if shadow.words or not columns:
            columns = (*columns, *shadow.words, nameless)
        named = ", ".join(map(quoted, columns))
        made.append(f"CREATE TABLE {quoted(schema)}.{quoted(shadow.name)} ({named})")
    return made
