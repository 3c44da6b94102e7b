"""The names that a statement puts where a table stands, and what happens to the table there.

SQLite drops a table that cannot matter, and then neither events nor opcodes tell of it. Whether it
is there still shows: a missing one is an error. So rule 9 of `captoken.adapters.sqlite` needs the
names themselves. What this reader misses is still seen by events and opcodes. A name that it takes
for a table without need is asked about, and at worst refused.

    WITH x AS (SELECT id FROM hr) SELECT * FROM x JOIN sales USING (id), (SELECT 1)

    select hr          in the scope of the first parenthesis
    select x           left out at the end: the outermost scope has a CTE of that name
    select sales

It is no parser: it goes once from left to right, keeps a scope for each pair of parentheses, and in
it what may come next. SQLite itself refuses what is not well formed, so a text that misleads this
reader has to be one that SQLite compiles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from captoken.adapters._sqlite.lexer import (
    CLAUSES,
    CLOSING,
    CONFLICTS,
    DOT,
    END,
    JOINS,
    KINDS,
    OPENING,
    OTHER,
    RESERVED,
    STRING,
    Token,
    fold,
)

# How a subquery may begin. What else is in parentheses where a table stands is a list of tables.
_QUERIES = frozenset(("select", "with", "values"))

# The keywords that change what may come next. All others are passed over.
_HEARD = CLAUSES | {
    "with",
    "from",
    "join",
    "in",
    "into",
}


class Mention(NamedTuple):
    """A name where a table stands, spelled as in the text, and the operation it is named for.

    In `DELETE FROM main.hr`: delete, "main", "hr". Whether such a table is there, is not known.
    """

    operation: str  # "select", "insert", "update" or "delete"
    schema: str | None  # None: the text says none, and SQLite looks through all
    name: str


class Query:
    """The statement, a query that stands where a table does, or that of a CTE.

    What is in parentheses elsewhere, as in an expression, is part of the query around it.
    """

    __slots__ = ("gives", "reads", "uses")

    def __init__(self) -> None:
        # The queries that it reads from, as often as it does.
        self.reads: list[Query] = []

        # How often each word stands in it that may be a column; and how often in what it gives,
        # from SELECT to FROM. That alone stands for a column in the query around it.
        self.uses: Counter[str] = Counter()
        self.gives: Counter[str] = Counter()


class _Scope:
    """A pair of parentheses in a statement, or all of it.

    It has the CTEs that a WITH declares in it, and says what the next token may be. A parenthesis
    that closes gives back what was expected outside of it.
    """

    __slots__ = (
        "begins",
        "ctes",
        "declared",
        "declares",
        "expects",
        "in_from",
        "in_given",
        "in_with",
        "is_given",
        "outer",
        "query",
    )

    def __init__(self, outer: _Scope | None, query: Query) -> None:
        # The scope around this one. None for the whole statement.
        self.outer = outer

        # The query that its words are in.
        self.query = query

        # The CTEs that are declared here, by their names, folded. And the last of these names.
        self.ctes: dict[str, Query] = {}
        self.declared = ""

        # Between WITH and the statement that it is for: after a comma comes another CTE.
        self.in_with = False

        # The name of a CTE comes next.
        self.declares = False

        # Between FROM and the next clause: after a comma comes another table.
        self.in_from = False

        # A query of its own begins here, and is no part of an expression.
        self.begins = outer is None

        # The next words are in what the query gives. All here are, in an expression that is.
        self.is_given: bool = outer is not None and outer.in_given
        self.in_given: bool = self.is_given

        # A table comes next, and this is the operation on it. "" if none does.
        self.expects = ""

    def bound(self, name: str) -> Query | None:
        """The CTE that the name is here, or None. Those of outer scopes are seen from inner ones.

        `name` is folded.
        """
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.ctes:
                return scope.ctes[name]
            scope = scope.outer
        return None


class Names:
    """Goes through the tokens of one statement, and keeps the names where tables stand.

    In `SELECT id FROM sales s, (hr) WHERE id IN (SELECT id FROM pay)`:

        FROM      a table comes next, and after a comma another one
        sales     is a table; `s` is none, since no table comes next any more
        ,         a table comes next
        (         in its place, and no query begins: in this scope a table comes next
        hr        is a table
        )         the outer scope again, still in its FROM
        WHERE     the FROM is over: no comma after it brings a table
        IN (      a scope of its own, for a query
    """

    def __init__(self, tokens: list[Token]) -> None:
        # Nobody looks further ahead than two tokens, and behind the last one finds an end there.
        self.tokens = [*tokens, END, END]

        # The statement, and the scope that the next token is in.
        self.whole = Query()
        self.scope = _Scope(None, self.whole)

        # Each name with its scope, since the CTEs of that are known only when all is read.
        self.found: list[tuple[Mention, _Scope]] = []

        # The names of all CTEs, in whichever scope; and of those that the statement begins with.
        self.declared: set[str] = set()
        self.declared_first: set[str] = set()
        self._is_first = True

        self._read(tokens)

        # A CTE may come later than a query that reads it.
        for mention, scope in self.found:
            cte = self._cte(mention, scope)
            if cte is not None:
                scope.query.reads.append(cte)

    @property
    def mentions(self) -> Iterator[Mention]:
        """The names that are not those of CTEs, in the order of the text.

        Asked when all is read: CTEs of one WITH see each other, also those that come later. A name
        that stands in the text twice is here twice.
        """
        for mention, scope in self.found:
            if self._cte(mention, scope) is None:
                yield mention

    def _read(self, tokens: list[Token]) -> None:
        """Go through all tokens. What is expected decides first, and only then what is said.

        So a keyword counts as a name where a name has to stand. SQLite takes many for one: in
        `SELECT * FROM replace`, the last word is a table. To hear the keyword there would hide it.
        """
        for at, (kind, text, keyword) in enumerate(tokens):
            scope = self.scope
            if kind == OTHER:
                self._hear_punctuation(at, text)

            # WITH RECURSIVE x: the name is still to come.
            elif scope.declares and keyword != "recursive":
                self._declare(text)

            # UPDATE OR IGNORE t: the table is still to come.
            elif scope.expects == "update" and keyword in CONFLICTS:
                pass

            # ON CONFLICT DO UPDATE SET has no table: it is the one of the INSERT.
            elif scope.expects and keyword != "set":
                self._mention(at, text)

            elif keyword in _HEARD:
                self._hear_keyword(at, keyword)

            elif kind != STRING:
                self._use(at, text, keyword)

    def _use(self, at: int, text: str, keyword: str) -> None:
        """Count a word that may be a column: no alias, no table before its column, no function."""
        _, _, before = self.tokens[at - 1] if at else END
        behind = self.tokens[at + 1]
        if keyword not in RESERVED and before != "as" and behind not in (DOT, OPENING):
            word = fold(text)
            self.scope.query.uses[word] += 1
            if self.scope.in_given:
                self.scope.query.gives[word] += 1

    def _declare(self, name: str) -> None:
        """Keep the name of a CTE, for the scope that its WITH is in."""
        scope = self.scope
        scope.declares = False
        scope.declared = fold(name)
        scope.ctes[scope.declared] = Query()
        self.declared.add(scope.declared)
        if self._is_first and scope.outer is None:
            self.declared_first.add(scope.declared)

    def _mention(self, at: int, name: str) -> None:
        """Keep the name at `at`. If a dot and a name follow, it is that of a schema: `main.hr`.

        The name after the dot is met again as a token of its own. By then no table is expected.
        """
        schema: str | None = None
        kind, following, _ = self.tokens[at + 2]
        if self.tokens[at + 1] == DOT and kind != OTHER:
            schema = name
            name = following

        mention = Mention(self.scope.expects, schema, name)
        self.found.append((mention, self.scope))
        self.scope.expects = ""

    def _hear_punctuation(self, at: int, text: str) -> None:
        """Parentheses open and close scopes, and a comma goes on with what a keyword began."""
        scope = self.scope
        if text == "(":
            self.scope = self._opened(at)
        elif text == ")":
            # One that closes nothing is no SQL, and SQLite refuses it.
            self.scope = scope.outer or scope
        elif text == ",":
            # What the comma separates goes on: CTEs in a WITH, tables in a FROM. In both of the
            # statements below, hr would be hidden if it did not:
            #     SELECT * FROM sales, hr
            #     WITH x AS (SELECT 1), sales AS (SELECT 2) SELECT * FROM sales, hr
            scope.declares = scope.in_with
            scope.expects = "select" if scope.in_from else ""

    def _opened(self, at: int) -> _Scope:
        """The scope of the parenthesis at `at`.

        Where a table has to stand, there can be a query, or tables in parentheses:
        `FROM (SELECT …)`, `FROM (a JOIN b)`. The latter are as much in the FROM as before.
        """
        outer = self.scope
        inner = _Scope(outer, outer.query)
        _, _, before = self.tokens[at - 1] if at else END
        _, _, following = self.tokens[at + 1]
        if outer.expects and following not in _QUERIES:
            inner.expects = outer.expects
            inner.in_from = True
        elif outer.expects:
            inner.query = Query()
            inner.begins = True
            outer.query.reads.append(inner.query)
        elif outer.in_with and before in ("as", "materialized"):
            inner.query = outer.ctes[outer.declared]
            inner.begins = True
        elif before == "using":
            # SQLite may write one expression of both sides for such a column.
            inner.in_given = True

        # What was expected stands in the parenthesis, whichever of the two it is.
        outer.expects = ""
        return inner

    def _hear_keyword(self, at: int, keyword: str) -> None:
        """What a keyword says of the tokens that follow it."""
        scope = self.scope

        # WITH x AS (…) SELECT …, or an alias: FROM sales AS with
        if keyword == "with":
            declares = self._declares(at + 1)
            scope.in_with = declares
            scope.declares = declares

        elif keyword == "from":
            self._hear_from(at)

        elif keyword == "join":
            scope.expects = "select"

        # x IN t reads a table. x IN (…) has a list or a query.
        elif keyword == "in":
            kind, _, _ = self.tokens[at + 1]
            if kind != OTHER:
                scope.expects = "select"

        # INSERT INTO t, REPLACE INTO t
        elif keyword == "into":
            scope.expects = "insert"

        elif self._begins_clause(at, keyword):
            # A clause ends the FROM before it, and the statement ends its own WITH.
            scope.in_from = False
            scope.in_given = scope.in_given or (keyword in _QUERIES and scope.begins)
            scope.in_with = scope.in_with and keyword not in KINDS
            self._is_first = self._is_first and scope.outer is not None
            scope.expects = "update" if keyword == "update" else ""

    def _hear_from(self, at: int) -> None:
        """What a FROM says, which is one of three by the word before it.

        DELETE FROM t              deletes from a table
        SELECT … FROM t, u         reads tables, and a comma goes on
        x IS NOT DISTINCT FROM y   compares, and no table follows
        """
        _, _, previous = self.tokens[at - 1] if at else END
        if previous == "delete":
            self.scope.expects = "delete"
        elif previous != "distinct":
            self.scope.expects = "select"
            self.scope.in_from = True
            self.scope.in_given = self.scope.is_given

    def _begins_clause(self, at: int, keyword: str) -> bool:
        """Does the keyword begin a clause?

        WINDOW can be an alias (`FROM sales window`), and REPLACE a function (`replace(x, y, z)`).
        Taken for a clause, either would end the FROM, and hide the tables after the next comma.
        """
        if keyword == "window":
            return self.tokens[at + 2][2] == "as"
        if keyword == "replace":
            return self.tokens[at + 1][2] == "into"
        return True

    def _declares(self, at: int) -> bool:
        """Does the WITH before `at` declare CTEs? It can also be an alias.

        Taken for a WITH, an alias would make a CTE of the table after it: `FROM sales AS with, hr`.
        So a name has to follow, perhaps columns, and AS with a query: `WITH x AS (…)`,
        `WITH x (a, b) AS MATERIALIZED (…)`. A column can be called so, too: `ON with IN (1), hr`.
        """
        # RECURSIVE comes before a name, and is none by itself.
        _, _, first = self.tokens[at]
        kind_of_second, _, _ = self.tokens[at + 1]
        if first == "recursive" and kind_of_second != OTHER:
            at += 1

        # The name. A keyword that goes on with the FROM shows that the WITH was an alias.
        kind, _, keyword = self.tokens[at]
        if kind == OTHER or keyword in CLAUSES or keyword in JOINS:
            return False

        # Columns have no parentheses among them, so that no text is gone through twice.
        at += 1
        if self.tokens[at] == OPENING:
            inside = range(at + 1, len(self.tokens))
            at = next((to for to in inside if self.tokens[to] in (OPENING, CLOSING, END)), at) + 1
        keywords = [keyword for _, _, keyword in self.tokens[at : at + 3]]
        behind = keywords.index("materialized") + 1 if "materialized" in keywords else 1
        return keywords[:1] == ["as"] and self.tokens[at + behind : at + behind + 1] == [OPENING]

    def _cte(self, mention: Mention, scope: _Scope) -> Query | None:
        """The CTE that the name stands for. It does only where rows are read, and without a schema.

        `WITH hr AS (SELECT 1) DELETE FROM hr` deletes from the table, and so does `FROM main.hr`
        read it. A CTE that excused either would hide what the statement touches.
        """
        if mention.operation != "select" or mention.schema is not None:
            return None
        # What no WITH declares is sought nowhere: scopes may be nested by the thousand.
        name = fold(mention.name)
        return scope.bound(name) if name in self.declared else None
