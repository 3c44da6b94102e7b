"""A statement cut into tokens as SQLite cuts it: its first word, its conflict clauses, the names where tables stand.

The third of the guard's three accounts (`captoken.adapters.sqlite`). It reads what SQLite may leave out of the other two:
a name that is not there, or a table that cannot matter. What it misses is still seen by events and opcodes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

KINDS = frozenset(("select", "with", "values", "insert", "replace", "update", "delete"))
_CLAUSES = KINDS | {
    "where",
    "group",
    "having",
    "order",
    "limit",
    "window",
    "union",
    "except",
    "intersect",
    "set",
    "returning",
}
_JOINS = frozenset(
    (
        "join",
        "natural",
        "left",
        "right",
        "full",
        "inner",
        "cross",
        "outer",
        "on",
        "using",
        "not",
        "indexed",
    )
)
_CONFLICTS = frozenset(("or", "abort", "fail", "ignore", "replace", "rollback"))

# What is not closed runs to the end, as in SQLite, which then refuses it.
_TOKEN = re.compile(
    r"""(?P<skip>[\t-\r\ \ufeff]+ | --[^\n]* | /\*(?s:.*?)(?:\*/|\Z))
      | (?P<quoted>'[^']*(?:''[^']*)*(?:'|\Z) | "[^"]*(?:""[^"]*)*(?:"|\Z) | `[^`]*(?:``[^`]*)*(?:`|\Z) | \[[^\]]*(?:\]|\Z))
      | (?P<word>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)
      | (?P<other>\.?[0-9][A-Za-z0-9_$.]* | \?[0-9]* | [:@\#$][A-Za-z0-9_$:\x80-\U0010ffff]*(?:\([^)\s]*\)?)? | (?s:.))""",
    re.VERBOSE,
)


def fold(name: str) -> str:
    """As SQLite compares names: ASCII letters without case, all else as it is."""
    return (
        name.lower()
        if name.isascii()
        else "".join(char.lower() if char.isascii() else char for char in name)
    )


def hides_joins(sql: str) -> bool:
    """May there be a NATURAL or a USING, whose columns SQLite does not tell?"""
    sql = sql.lower()
    return "natural" in sql or "using" in sql


class Mention(NamedTuple):
    """A name where a table stands, spelled as in the text, and the operation that it is named for."""

    operation: str
    schema: str | None
    name: str


class Text:
    """One statement."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.tokens: list[tuple[str, str]] = []  # kind and text
        self.keys: list[str] = []  # of each token: the keyword that it may be, or ""
        for match in _TOKEN.finditer(sql):
            kind, text = match.lastgroup, match[0]
            if kind == "word":
                self.tokens.append((kind, text))
                self.keys.append(fold(text))
            elif kind == "quoted":
                self.tokens.append((text[0], text[1:-1].replace(text[-1] * 2, text[-1])))
                self.keys.append("")
            elif kind == "other":
                self.tokens.append((kind, text))
                self.keys.append("")
        self.first = self.keys[0] if self.keys else ""
        self.declared = set[str]()  # the names of all CTEs, once `mentions` was asked for

    @cached_property
    def mentions(self) -> tuple[Mention, ...]:
        """The names that stand where a table does, and are not those of CTEs."""
        return tuple(_mentions(self.tokens, self.keys, self.declared))

    @cached_property
    def words(self) -> tuple[str, ...]:
        """All that may be a name or a keyword, in order."""
        return tuple(text for kind, text in self.tokens if kind not in ("other", "'"))

    @cached_property
    def names(self) -> frozenset[str]:
        """The same, folded, and what is in single quotes: SQLite takes that for a name where only a name can stand."""
        return frozenset(fold(text) for kind, text in self.tokens if kind != "other")

    @cached_property
    def conflicts(self) -> frozenset[str]:
        """What it says is to happen on a conflict: INSERT OR this, or REPLACE."""
        triples = zip(self.keys, self.keys[1:], self.keys[2:], strict=False)
        said = {
            last
            for first, middle, last in triples
            if first in ("insert", "update") and middle == "or"
        }
        return frozenset(
            said | ({"replace"} if ("replace", "into") in itertools.pairwise(self.keys) else set())
        )

    @cached_property
    def using(self) -> tuple[str, ...]:
        """The names in the lists of USING."""
        found = list[str]()
        for at, key in enumerate(self.keys):
            if key == "using":
                inside = itertools.takewhile(lambda token: token[1] != ")", self.tokens[at + 1 :])
                found += [text for kind, text in inside if kind != "other"]
        return tuple(found)

    @cached_property
    def doubtful(self) -> set[str]:
        """What is in double quotes, and so a column, or a string if there is no such column."""
        return {text for kind, text in self.tokens if kind == '"'} - {
            text for kind, text in self.tokens if kind == "'"
        }

    @property
    def has_star(self) -> bool:
        return ("other", "*") in self.tokens


class _Scope:
    """A pair of parentheses in a statement: the CTEs it declares, and what may come next."""

    __slots__ = ("ctes", "declares", "expects", "in_from", "in_with", "outer")

    def __init__(self, outer: _Scope | None) -> None:
        self.outer, self.ctes = outer, set[str]()
        self.in_with = self.declares = self.in_from = (
            False  # declares: the name of a CTE comes next
        )
        self.expects = ""  # the operation on the table whose name comes next

    def binds(self, name: str) -> bool:
        scope: _Scope | None = self
        while scope is not None and name not in scope.ctes:
            scope = scope.outer
        return scope is not None


def _declares(tokens: list[tuple[str, str]], keys: list[str], at: int) -> bool:
    """Does the WITH before `at` declare CTEs? It can also be an alias."""
    if (
        keys[at : at + 1] == ["recursive"]
        and tokens[at + 1 : at + 2]
        and tokens[at + 1][0] != "other"
    ):
        at += 1
    named = at < len(tokens) and tokens[at][0] != "other" and keys[at] not in _CLAUSES | _JOINS
    return named and (
        keys[at + 1 : at + 2] == ["as"] or tokens[at + 1 : at + 2] == [("other", "(")]
    )


def _mentions(
    tokens: list[tuple[str, str]], keys: list[str], declared: set[str]
) -> Iterator[Mention]:
    scope, found = _Scope(None), list[tuple[Mention, _Scope]]()
    names = [kind != "other" for kind, _ in tokens] + [False] * 2
    for at, ((_, text), key) in enumerate(zip(tokens, keys, strict=True)):
        if not names[at]:
            if text == "(":
                inner, following = _Scope(scope), keys[at + 1] if at + 1 < len(keys) else ""
                if scope.expects and following not in (
                    "select",
                    "with",
                    "values",
                ):  # FROM (a JOIN b)
                    inner.expects, inner.in_from = scope.expects, True
                scope.expects = ""
                scope = inner
            elif text == ")":
                scope = scope.outer or scope
            elif text == ",":
                scope.declares, scope.expects = scope.in_with, "select" if scope.in_from else ""
        elif scope.declares and key != "recursive":
            scope.declares = False
            scope.ctes.add(fold(text))
            declared.add(fold(text))
        elif scope.expects == "update" and key in _CONFLICTS:
            continue
        elif scope.expects and key != "set":
            schema, name = (
                (text, tokens[at + 2][1])
                if names[at + 2] and tokens[at + 1][1] == "."
                else (None, text)
            )
            found.append((Mention(scope.expects, schema, name), scope))
            scope.expects = ""
        elif key == "with":
            scope.in_with = scope.declares = _declares(tokens, keys, at + 1)
        elif key == "from" and keys[at - 1] == "delete":
            scope.expects = "delete"
        elif key == "from" and keys[at - 1] != "distinct":  # IS NOT DISTINCT FROM compares
            scope.expects, scope.in_from = "select", True
        elif key == "join" or (key == "in" and names[at + 1]):
            scope.expects = "select"
        elif key == "into":
            scope.expects = "insert"
        elif key == "window" and keys[at + 2 : at + 3] != ["as"]:
            continue  # an alias
        elif key in _CLAUSES and (key != "replace" or keys[at + 1 : at + 2] == ["into"]):
            scope.in_from, scope.in_with = False, scope.in_with and key not in KINDS
            scope.expects = "update" if key == "update" else ""
    for mention, where in found:
        if (
            mention.operation != "select"
            or mention.schema is not None
            or not where.binds(fold(mention.name))
        ):
            yield mention
