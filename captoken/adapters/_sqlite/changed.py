"""Rule 13: the names in an UPDATE whose table has columns that are not granted (`updates`).

They are looked up before the UPDATE itself is compiled, in queries that nobody runs. What is wrong
with them is the agent's mistake. Some of it SQLite would not have called one where nothing is
hidden: then there is a clearer text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from captoken._verification.mistakes import mistake
from captoken.adapters._sqlite.held import Looked
from captoken.adapters._sqlite.lexer import fold
from captoken.adapters._sqlite.parts import Part, Parts, listed, query, sent
from captoken.adapters._sqlite.text import Text
from captoken.adapters._sqlite.updates import Update, without_strings

# Names in an UPDATE … FROM that get a table before them, and tables that are tried for each.
MOST_UNCLEAR = 8

# Of two tables that have these, neither says so.
_ROWIDS = frozenset(("rowid", "oid", "_rowid_"))


class ChangedPart(NamedTuple):
    """An UPDATE of a table of which some columns are granted."""

    text: Text
    parts: Parts

    # The one of them that it updates.
    part: Part

    # What names that the text cannot have begin with, in this transaction.
    drawn: str

    # Compiles a query, with the parameters of the UPDATE.
    look: Callable[[str], Looked | Exception]

    def problem(self) -> Exception | None:
        """What is wrong with its names, or None."""
        update = Update(without_strings(self.text))
        if not update.is_whole:
            return mistake("syntax", "SQLITE_ERROR")
        if update.natural:
            return mistake("unsupported", word=update.natural)

        for more in ("", update.others(self.part)) if update.has_from else ("",):
            problem = self._problem_of_names(more)
            if problem is not None:
                return problem
        return None

    def _problem_of_names(self, more: str) -> Exception | None:
        """What is wrong with them where the table has what is granted, and `more`."""
        name = f"{self.drawn}_changed"
        stands_for_it = query(name, self.part, listed(self.part.columns) + more)
        looked_up = Update(without_strings(self.text)).looked_up(name)
        run = sent(looked_up, self.text, self.parts, self.drawn, more=(stands_for_it,))
        looked = self.look(run)
        return looked if isinstance(looked, Exception) else None

    def clearer(self, said: str) -> Text | None:
        """The text with the one table before an ambiguous name that has it, of what is granted.

        Or with a string in the place of `"gold"`, as SQLite takes it where no column has that name.
        What is ambiguous without any hidden column stays a mistake.
        """
        before, _, word = said.rpartition(": ")
        update = Update(self.text.sql)
        fits: list[str] = []
        if before == "no such column":
            fits = [update.with_string(word)]
        elif before == "ambiguous column name" and fold(word) not in _ROWIDS:
            sources = update.sources
            if len(sources) <= MOST_UNCLEAR and self._is_clear(self.text.sql):
                tried = [update.qualified(word, source) for source in sources]
                fits = [one for one in tried if one != self.text.sql and self._is_clear(one)]
        return Text(fits[0]) if len(fits) == 1 and fits[0] != self.text.sql else None

    def _is_clear(self, sql: str) -> bool:
        """Are the names of that text right where the table has what is granted alone?"""
        return self._replace(text=Text(sql))._problem_of_names("") is None
