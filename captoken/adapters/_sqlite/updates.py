"""Rule 13, for the table that an UPDATE changes: it stays itself, and has all of its columns.

So its names are looked up before, in a query that SQLite compiles and nobody runs. There `k` stands
for the table, with the columns that are granted:

    update people set name = title, (city, zip) = (1, 2) from jobs where jobs.id = job returning *

    select * from (
        select "people".name = title, ("people".city, "people".zip) = (1, 2)
        from k as "people", jobs where jobs.id = job
    ), (select * from k as "people")

Beside a FROM, a name without its table could be that of a hidden column, and SQLite would call it
ambiguous. So `k` is once more given every other word of the text as a column. What is ambiguous
then, whether there is such a column or not, gets the table in FROM before it that has it:

    update people set name = title from jobs …      update people set name = jobs.title from jobs …

It is refused where that is not one table alone, or the name stands in a query of its own. NATURAL
is refused beside a FROM, since no word says what it compares.

A name in double quotes, which SQLite takes for a string where there is no such column, is a name in
that query. If there is none it becomes a string in the text, as it would be one where nothing is
hidden. The star in RETURNING would be all columns: it is replaced by those that are granted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from captoken.adapters._sqlite.catalog import quoted
from captoken.adapters._sqlite.lexer import (
    CLOSING,
    COMMA,
    DOT,
    END,
    IDENTIFIER,
    JOINS,
    OPENING,
    OTHER,
    RESERVED,
    SEMICOLON,
    STAR,
    STRING,
    Token,
    cut,
    fold,
    places,
)
from captoken.adapters._sqlite.parts import Part, listed
from captoken.adapters._sqlite.text import Text

# The clauses of an UPDATE and of a DELETE, in their order. The first is before the table. Some
# builds of SQLite know ORDER BY and LIMIT there (SQLITE_ENABLE_UPDATE_DELETE_LIMIT).
_LAST = ("returning", "order", "limit")
_CLAUSES = ("update", "set", "from", "where", *_LAST)
_OF_DELETE = ("delete", "from", "where", *_LAST)

# Words in a FROM that are no table's, and those behind which a name is no column.
_NO_SOURCE = JOINS | RESERVED
_NO_COLUMN = frozenset(("as", "collate", "from", "join"))
_QUERIES = frozenset(("select", "values", "with"))


class Update:
    """The clauses of an UPDATE, or of a DELETE, found by its tokens outside of all parentheses.

    For a text that SQLite takes for one. Of any other what is made here is no SQL either.
    """

    def __init__(self, sql: str, operation: str = "update") -> None:
        self._sql = sql
        self._words = _CLAUSES if operation == "update" else _OF_DELETE
        placed = zip(cut(sql), places(sql), strict=True)
        kept = [(token, place) for token, place in placed if token != SEMICOLON]
        self._count = len(kept)

        # Nobody looks further behind the last one.
        kept += [(END, (len(sql), len(sql)))] * 4
        self._tokens = [token for token, _ in kept]
        self._places = [place for _, place in kept]

        # Of each token, in how many parentheses it is, and whether one of them has a query.
        around = list(_around(self._tokens))
        self._depths = [depth for depth, _ in around]
        self._in_query = [in_query for _, in_query in around]

        # The start of each clause: the number of its keyword's token.
        self._begins = self._clauses()

    @property
    def is_whole(self) -> bool:
        """Does it have what each UPDATE has?"""
        begins = self._begins
        return "update" in begins and begins.get("set", 0) > self._target

    @property
    def has_from(self) -> bool:
        """Does it read other tables beside its own? The FROM of a DELETE names that."""
        return "from" in self._begins and "update" in self._begins

    @property
    def natural(self) -> str:
        """The NATURAL in its FROM, if there is one: it would compare hidden columns, too."""
        begin, end = self._span("from")
        words = [text for _, text, keyword in self._tokens[begin:end] if keyword == "natural"]
        return words[0] if words else ""

    @property
    def _target(self) -> int:
        """The number of the token that names the table."""
        at = self._begins["from" if "delete" in self._begins else "update"] + 1
        if self._tokens[at][2] == "or":  # UPDATE OR IGNORE t
            at += 2
        return at + 2 if self._tokens[at + 1] == DOT else at

    @property
    def _end_of_target(self) -> int:
        """Where the first clause behind the table of a DELETE begins."""
        return min(self._begins.get(clause, self._count) for clause in ("where", *_LAST))

    @property
    def alias(self) -> str:
        """What its own table is called in it, quoted."""
        at = self._target
        return quoted(self._tokens[at + 2 if self._tokens[at + 1][2] == "as" else at][1])

    def held(self, condition: str, *, first: bool) -> str:
        """The text, which changes no row that does not satisfy the condition (rule 16).

        With `first` nothing else of it is asked of such a row.
        """
        begin, end = self._span("where")
        if begin >= end:
            end = min(self._begins.get(clause, self._count) for clause in _LAST)
            _, at = self._places[end - 1]
            return f"{self._sql[:at]} where {condition}{self._sql[at:]}"
        start, at = self._places[begin][0], self._places[end - 1][1]
        own = self._sql[start:at]
        held = f"case when {condition} then ({own}) end" if first else f"({condition}) and ({own})"
        return self._sql[:start] + held + self._sql[at:]

    @property
    def returns_query(self) -> bool:
        """Does its RETURNING read a table? `(select …)`, `id in people`"""
        begin, end = self._span("returning")
        tokens = self._tokens[begin : end + 1]
        return any(
            token[2] == "select" or (token[2] == "in" and behind != OPENING)
            for token, behind in itertools.pairwise(tokens)
        )

    def looked_up(self, name: str) -> str:
        """The query that looks up its names. `name` stands for the table.

        It begins as the text does: with a WITH of its own, perhaps.
        """
        behind = self._between(self._target + 1, self._begins.get("set", self._end_of_target))
        alias = self.alias
        has_alias = behind[:2].lower() == "as"
        source = f"{name} {behind}" if has_alias else f"{name} as {alias} {behind}"

        others = self._clause("from") if self.has_from else ""
        sources = f"{source}, {others}" if others else source
        rest = ""
        for clause in ("where", "order", "limit"):
            said = self._clause(clause)
            rest += f" {clause} {said}" if said else ""
        given = self._set(alias) if "set" in self._begins else "1"
        query = f"(select {given} from {sources}{rest})"  # noqa: S608
        returned = self._clause("returning")
        if returned:
            query += f", (select {returned} from {source})"  # noqa: S608
        start, _ = self._places[min(self._begins.values())]
        return f"{self._sql[:start]}select * from {query}"  # noqa: S608

    @property
    def sources(self) -> list[str]:
        """The names in its FROM, outside of parentheses, by which a table of it may go.

        None of them if USING makes one column of two: then a name stands for no table's.
        """
        found: dict[str, str] = {}
        begin, end = self._span("from")
        for at in range(begin, end):
            kind, name, keyword = self._tokens[at]
            if keyword == "using":
                return []
            if kind != OTHER and not self._depths[at] and self._tokens[at - 1] != DOT:
                found.setdefault(fold(name), name)
        return [name for folded, name in found.items() if folded not in _NO_SOURCE]

    def qualified(self, word: str, source: str) -> str:
        """The text, with the source before each column of that name that stands by itself.

        Not in a query of its own, where the name may be another's.
        """
        pieces: list[str] = []
        written = 0
        for clause in ("set", "from", "where", "order", "limit"):
            for at in range(*self._span(clause)):
                before, token, behind = self._tokens[at - 1 : at + 2]
                is_named = token[0] not in (OTHER, STRING) and fold(token[1]) == fold(word)
                is_first = before != DOT and before[2] not in _NO_COLUMN
                is_last = behind not in (DOT, OPENING)
                if is_named and is_first and is_last and not self._in_query[at]:
                    start, _ = self._places[at]
                    pieces += self._sql[written:start], quoted(source), "."
                    written = start
        return "".join([*pieces, self._sql[written:]])

    def with_string(self, word: str) -> str:
        """The text, with a string for the one place that has the word in double quotes by itself.

        What RETURNING gives is called by its text.
        """
        end = self._begins.get("returning", self._count)
        found = [
            at
            for at, (kind, name, _) in enumerate(self._tokens)
            if kind == IDENTIFIER and fold(name) == fold(word)
        ]
        if len(found) != 1 or found[0] > end or DOT in self._tokens[found[0] - 1 : found[0] + 2]:
            return self._sql
        (at,) = found
        start, end = self._places[at]
        string = self._tokens[at][1].replace("'", "''")
        return f"{self._sql[:start]}'{string}'{self._sql[end:]}"

    def others(self, part: Part) -> str:
        """Every word of it that is no granted column, as a column."""
        words = {fold(text) for kind, text, _ in self._tokens if kind != OTHER}
        others = sorted(words.difference(map(fold, part.columns)))
        return "".join(f", null as {quoted(word)}" for word in others)

    def returning(self, part: Part) -> str:
        """The text, with the granted columns in the place of each star in RETURNING."""
        sql = self._sql
        begin = self._begins.get("returning", self._count)
        for at in range(self._count - 1, begin, -1):
            before = self._tokens[at - 1]
            is_item = at == begin + 1 or before == COMMA
            if self._tokens[at] == STAR and is_item and not self._depths[at]:
                start, end = self._places[at]
                columns = ", ".join(f"{quoted(one)} as {quoted(one)}" for one in part.columns)
                sql = sql[:start] + (columns or listed(())) + sql[end:]
        return sql

    def _clauses(self) -> dict[str, int]:
        """Each clause begins at the first of its keywords behind those before it."""
        begins: dict[str, int] = {}
        for at, (_, _, keyword) in enumerate(self._tokens):
            is_clause = keyword in self._words and not self._depths[at] and keyword not in begins
            # x IS DISTINCT FROM y
            if is_clause and not (keyword == "from" and self._tokens[at - 1][2] == "distinct"):
                begins[keyword] = at
        return begins

    def _span(self, keyword: str) -> tuple[int, int]:
        """The tokens of a clause behind its keyword: the first, and the one behind the last."""
        begin = self._begins.get(keyword, self._count)
        later = [at for at in self._begins.values() if at > begin]
        return begin + 1, min(later, default=self._count)

    def _clause(self, keyword: str) -> str:
        """What a clause says behind its keyword. `""` if there is none."""
        return self._between(*self._span(keyword))

    def _between(self, begin: int, end: int) -> str:
        """The text of some tokens: to the end of the last, so that no comment runs on."""
        if begin >= end:
            return ""
        return self._sql[self._places[begin][0] : self._places[end - 1][1]]

    def _set(self, alias: str) -> str:
        """The SET, with the table before each column that it changes: `t.a = 1, (t.b, t.c) = …`."""
        begin, end = self._span("set")
        said = ""
        written = begin
        is_changed = True
        for at in range(begin, end):
            is_changed = _is_changed(self._tokens[at], self._depths[at], is_changed)
            if is_changed and self._tokens[at][0] != OTHER:
                said += f"{self._until(written, at)}{alias}."
                written = at
        return said + self._between(written, end)

    def _until(self, begin: int, end: int) -> str:
        """The text from one token to where another begins."""
        return self._sql[self._places[begin][0] : self._places[end][0]]


def without_strings(text: Text) -> str:
    """The text with names in backticks for those in double quotes.

    What is in double quotes is a string to SQLite if there is no such column, and so would tell
    that there is none. In backticks it is a name that is not there.
    """
    pieces: list[str] = []
    written = 0
    for (kind, name, _), (start, end) in zip(text.tokens, places(text.sql), strict=True):
        if kind == IDENTIFIER:
            pieces += text.sql[written:start], "`" + name.replace("`", "``") + "`"
            written = end
    return "".join([*pieces, text.sql[written:]])


def _is_changed(token: Token, depth: int, before: bool) -> bool:
    """Is the token in what is changed, to the left of an equals sign? `before`: the one before."""
    if depth:
        return before
    if token == COMMA:
        return True
    return before and token[1] != "="


def _around(tokens: list[Token]) -> Iterator[tuple[int, bool]]:
    """Of each token, in how many parentheses it is, and whether in a query in some of these.

    The parentheses themselves are outside.
    """
    around = [False]
    for token, behind in itertools.pairwise([*tokens, END]):
        if token == CLOSING and len(around) > 1:
            around.pop()
        yield len(around) - 1, around[-1]
        if token == OPENING:
            around.append(around[-1] or behind[2] in _QUERIES)
