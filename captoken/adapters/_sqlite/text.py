"""What the text of a statement says, by its tokens alone: the third of the guard's accounts.

It reads what SQLite may leave out of the other two: a name that is not there, or a table that
cannot matter. What it misses is still seen by events and opcodes (`captoken.adapters.sqlite`).

    INSERT OR REPLACE INTO codes SELECT "x", name FROM people JOIN hr USING (id)

    first       insert
    mentions    insert codes, select people, select hr
    conflicts   replace
    using       id

Each is found when it is asked for, once for a statement.
"""

from __future__ import annotations

import itertools
from functools import cached_property

from captoken.adapters._sqlite.growth import is_bounded
from captoken.adapters._sqlite.lexer import (
    CLOSING,
    END,
    OPENING,
    OTHER,
    STAR,
    cut,
    fold,
    places,
)
from captoken.adapters._sqlite.scopes import Mention, Names


def hides_joins(sql: str) -> bool:
    """May there be a NATURAL or a USING, whose columns SQLite does not tell? (rule 8)

    By the letters alone, in a string too: a yes without need costs a look, and hides nothing.
    """
    lowered = sql.lower()
    return "natural" in lowered or "using" in lowered


class Text:
    """One statement, of whatever kind. Nothing is refused here."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.tokens = cut(sql)

    @property
    def first(self) -> str:
        """The keyword that it begins with, or "" (rule 1).

        The first token, so neither a comment nor white space hides another kind of statement.
        """
        if not self.tokens:
            return ""
        _, _, keyword = self.tokens[0]
        return keyword

    @cached_property
    def _names(self) -> Names:
        """The names, from one walk through the tokens."""
        return Names(self.tokens)

    @cached_property
    def mentions(self) -> tuple[Mention, ...]:
        """The names that stand where a table does, and are not those of CTEs (rule 9)."""
        return tuple(self._names.mentions)

    @property
    def declared(self) -> set[str]:
        """The names of all CTEs, folded, in whichever scope they are."""
        return self._names.declared

    @property
    def is_bounded(self) -> bool:
        """Does SQLite compile it in a time that is known? (rule 11)"""
        return is_bounded(self._names.whole)

    @cached_property
    def names(self) -> frozenset[str]:
        """All that may be a name, folded, and what is in single quotes.

        SQLite takes a string for a name where only a name can stand.
        """
        return frozenset(fold(text) for kind, text, _ in self.tokens if kind != OTHER)

    @cached_property
    def conflicts(self) -> frozenset[str]:
        """What it says is to happen on a conflict (rule 6).

        `INSERT OR IGNORE`, `UPDATE OR ROLLBACK`: the word after OR. `REPLACE INTO` is short for
        `INSERT OR REPLACE INTO`.
        """
        keywords = [keyword for _, _, keyword in self.tokens]
        triples = zip(
            keywords,
            keywords[1:],
            keywords[2:],
            strict=False,  # the later ones are shorter: the last triple ends the text
        )

        # Anywhere in the text: a statement has one such clause, and a trigger's is not in it.
        said = {
            conflict
            for verb, conjunction, conflict in triples
            if verb in ("insert", "update") and conjunction == "or"
        }
        if ("replace", "into") in itertools.pairwise(keywords):
            said.add("replace")
        return frozenset(said)

    @cached_property
    def using(self) -> tuple[str, ...]:
        """The names in the lists of USING: columns that are compared (rule 8).

        In `FROM people JOIN hr USING (id, name)`: id and name, of both tables.
        """
        found: dict[str, None] = {}
        is_listed = False
        for token in self.tokens:
            kind, name, keyword = token
            # A list runs to the next closing parenthesis. Between its names are commas, and before
            # them the opening parenthesis. A USING in it is a name, and begins no second list.
            if token == CLOSING:
                is_listed = False
            elif is_listed and kind != OTHER:
                found[name] = None
            if keyword == "using":
                is_listed = True
        return tuple(found)

    @property
    def declared_first(self) -> set[str]:
        """The names of the CTEs of the WITH that it begins with, folded."""
        return self._names.declared_first

    @cached_property
    def behind_with(self) -> int:
        """Where the first query of that WITH is declared, by its character. 0 if there is none."""
        if self.first != "with":
            return 0
        at = 1 if [keyword for _, _, keyword in self.tokens[1:2]] == ["recursive"] else 0
        _, end = places(self.sql)[at]
        return end

    def qualified(self, schema: str, name: str) -> int:
        """How often it writes the name with the schema before it, whatever it means by that."""
        return self._qualified.count((fold(schema), fold(name)))

    @cached_property
    def _qualified(self) -> list[tuple[str, str]]:
        """What stands on both sides of each dot, folded."""
        tokens = self.tokens
        dots = [at for at in range(1, len(tokens) - 1) if tokens[at][1] == "."]
        return [(fold(tokens[at - 1][1]), fold(tokens[at + 1][1])) for at in dots]

    @cached_property
    def may_mean_all(self) -> bool:
        """May it mean all columns of a table without naming each? `*`, `x IN t`, NATURAL

        A star between two values is taken for one, and count(*) is not.
        """
        tokens = [END, *self.tokens, END]
        for before, token, behind in zip(tokens, tokens[1:], tokens[2:], strict=False):
            if token == STAR and not (before == OPENING and behind == CLOSING):
                return True
            _, _, keyword = token
            if keyword == "natural" or (keyword == "in" and behind[0] != OTHER):
                return True
        return False
