"""The names that a statement puts where a table stands, and what happens to the table there.

SQLite drops a table that cannot matter, and then neither events nor opcodes tell of it. Whether it
is there still shows: a missing one is an error. So rule 9 of `captoken.adapters.sqlite` needs the
names themselves. What this reader misses is still seen by events and opcodes. A name that it takes
for a table without need is asked about, and at worst refused.

It is no parser: it goes once from left to right, keeps a scope for each pair of parentheses, and in
it what may come next.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from captoken.adapters._sqlite.lexer import (
    CLAUSES,
    CONFLICTS,
    END,
    JOINS,
    KINDS,
    OTHER,
    Token,
    fold,
)

_QUERIES = frozenset(("select", "with", "values"))  # how a subquery may begin
_HEARD = CLAUSES | {"with", "from", "join", "in", "into"}


class Mention(NamedTuple):
    """A name where a table stands, spelled as in the text, and the operation it is named for."""

    operation: str
    schema: str | None
    name: str


class _Scope:
    """A pair of parentheses in a statement: the CTEs it declares, and what may come next."""

    __slots__ = ("ctes", "declares", "expects", "in_from", "in_with", "outer")

    def __init__(self, outer: _Scope | None) -> None:
        self.outer = outer
        self.ctes: set[str] = set()
        self.in_with = False
        self.declares = False  # the name of a CTE comes next
        self.in_from = False
        self.expects = ""  # the operation on the table whose name comes next

    def binds(self, name: str) -> bool:
        """Is the name that of a CTE here, whether it was declared before or comes later?"""
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.ctes:
                return True
            scope = scope.outer
        return False


class Names:
    """Goes through the tokens of one statement, and keeps the names where tables stand."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = [*tokens, END, END]  # whoever looks ahead finds something
        self.scope = _Scope(None)
        self.found: list[tuple[Mention, _Scope]] = []
        self.declared: set[str] = set()  # the names of all CTEs
        self._read(tokens)

    @property
    def mentions(self) -> Iterator[Mention]:
        """The names that are not those of CTEs. Asked last: a CTE may be declared further on."""
        for mention, scope in self.found:
            if not _is_cte(mention, scope):
                yield mention

    def _read(self, tokens: list[Token]) -> None:
        for at, (kind, text, keyword) in enumerate(tokens):
            scope = self.scope
            if kind == OTHER:
                self._hear_punctuation(at, text)
            elif scope.declares and keyword != "recursive":
                self._declare(text)
            elif scope.expects == "update" and keyword in CONFLICTS:
                pass  # UPDATE OR IGNORE: the table is still to come
            elif scope.expects and keyword != "set":
                self._mention(at, text)
            elif keyword in _HEARD:
                self._hear_keyword(at, keyword)

    def _declare(self, name: str) -> None:
        scope = self.scope
        scope.declares = False
        scope.ctes.add(fold(name))
        self.declared.add(fold(name))

    def _mention(self, at: int, name: str) -> None:
        """Keep the name at `at`, which `schema.` may precede."""
        schema: str | None = None
        _, dot, _ = self.tokens[at + 1]
        kind, following, _ = self.tokens[at + 2]
        if dot == "." and kind != OTHER:
            schema = name
            name = following
        self.found.append((Mention(self.scope.expects, schema, name), self.scope))
        self.scope.expects = ""

    def _hear_punctuation(self, at: int, text: str) -> None:
        scope = self.scope
        if text == "(":
            self.scope = self._opened(at)
        elif text == ")":
            self.scope = scope.outer or scope
        elif text == ",":
            # What the comma separates goes on: CTEs in a WITH, tables in a FROM.
            scope.declares = scope.in_with
            scope.expects = "select" if scope.in_from else ""

    def _opened(self, at: int) -> _Scope:
        """The scope of the parenthesis at `at`."""
        inner = _Scope(self.scope)
        _, _, following = self.tokens[at + 1]
        if self.scope.expects and following not in _QUERIES:  # FROM (a JOIN b)
            inner.expects = self.scope.expects
            inner.in_from = True
        self.scope.expects = ""
        return inner

    def _hear_keyword(self, at: int, keyword: str) -> None:
        scope = self.scope
        if keyword == "with":
            declares = self._declares(at + 1)
            scope.in_with = declares
            scope.declares = declares
        elif keyword == "from":
            self._hear_from(at)
        elif keyword == "join":
            scope.expects = "select"
        elif keyword == "in":
            if self.tokens[at + 1][0] != OTHER:  # x IN t
                scope.expects = "select"
        elif keyword == "into":
            scope.expects = "insert"
        elif self._begins_clause(at, keyword):
            scope.in_from = False
            scope.in_with = scope.in_with and keyword not in KINDS
            scope.expects = "update" if keyword == "update" else ""

    def _hear_from(self, at: int) -> None:
        _, _, previous = self.tokens[at - 1] if at else END
        if previous == "delete":
            self.scope.expects = "delete"
        elif previous != "distinct":  # IS NOT DISTINCT FROM compares
            self.scope.expects = "select"
            self.scope.in_from = True

    def _begins_clause(self, at: int, keyword: str) -> bool:
        """Does the keyword begin a clause? WINDOW can be an alias, REPLACE a function."""
        if keyword == "window":
            return self.tokens[at + 2][2] == "as"
        if keyword == "replace":
            return self.tokens[at + 1][2] == "into"
        return True

    def _declares(self, at: int) -> bool:
        """Does the WITH before `at` declare CTEs? It can also be an alias."""
        if self.tokens[at][2] == "recursive" and self.tokens[at + 1][0] != OTHER:
            at += 1
        kind, _, keyword = self.tokens[at]
        if kind == OTHER or keyword in CLAUSES or keyword in JOINS:
            return False
        kind, text, keyword = self.tokens[at + 1]
        return keyword == "as" or (kind == OTHER and text == "(")


def _is_cte(mention: Mention, scope: _Scope) -> bool:
    """Does the name stand for a CTE? It does only where rows are read, and without a schema."""
    if mention.operation != "select" or mention.schema is not None:
        return False
    return scope.binds(fold(mention.name))
