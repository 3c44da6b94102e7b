"""The shape of a statement: its text with values that are bound in the place of literals.

    select name from people where id = 7 and city = 'Oslo' limit 5
    select name from people where id = ? and city = ? limit 5          7, 'Oslo'

The shape is what is planned, asked about, compiled and run, as if the agent had sent it with these
parameters. So texts of one shape need no argument that they need the same: SQLite gets one text for
all of them. It is taken only where it is permitted. Whatever is wrong with a shape, or refused, the
statement goes by its own text, and what is said is said of that (`permitting`).

A shape has to mean what its text does. So literals stay where SQLite reads more than their value:

- in what a query or RETURNING gives: an expression without a name is called by its text;
- in ORDER BY and GROUP BY, where a number is the place of a column; behind LIMIT;
- in the arguments of functions, and behind LIKE and `->`: they choose an index, and tell how long
  a call may take (`lengths`);
- where they are a condition, as in `where 0 and …`: then SQLite looks at nothing beside them;
- where a name can stand: a string there is one. What is in double quotes is never a literal;
- blobs, and numbers that Python might read otherwise.
"""

from __future__ import annotations

import re
import sqlite3
from typing import NamedTuple

from captoken.adapters._sqlite.lexer import SPACED, fold
from captoken.adapters._sqlite.text import hides_joins

# A statement with more literals than that goes by its own text.
_MOST = 100

# What begins a clause whose literals stay, and one whose literals are bound.
_KEEPING = frozenset(("select", "group", "order", "limit", "returning", "window"))
_BINDING = frozenset(
    ("from", "where", "on", "having", "set", "values", "join", "union", "except", "intersect")
)

# Behind these a literal is a value, and nothing else. The AND of a BETWEEN counts as a BETWEEN.
_BEFORE_VALUES = frozenset("=<>+-*/%|&~,(") | {"between", "case", "else", "is", "then", "when"}

# Behind these it is a condition. SQLite drops what stands beside a 0 before it asks about that.
_BEFORE_CONDITIONS = frozenset(("and", "having", "not", "on", "or", "where"))

# Behind these a parenthesis has the literals of the clause around it. Behind any other word it has
# the arguments of a function, or names.
_BEFORE_PARENTHESES = (
    _BEFORE_VALUES
    | _BEFORE_CONDITIONS
    | frozenset(("as", "exists", "from", "in", "join", "materialized", "values"))
)

# Whether literals are bound: they are, they stay in this clause, they stay in all of a parenthesis.
_BOUND = 0
_KEPT = 1
_ALL_KEPT = 2

# `data -> 'x'` and `data ->> 'x'`, sign by sign.
_ARROWS = frozenset(("-", ">", "->"))

# A text with parameters of its own, or with a sign in a number (`1e-5`), goes by itself.
_UNCLEAR = frozenset("?:@#$")
_EXPONENT = re.compile(r"[0-9.]+[eE]")

# The largest integer that SQLite and Python read alike, and decimals that both read exactly.
_MOST_INTEGER = (1 << 63) - 1
_DECIMAL = re.compile(r"[0-9]{1,8}\.[0-9]{1,7}")

Value = int | float | str


class Shape(NamedTuple):
    """A text with placeholders, and what is bound to them."""

    sql: str
    values: tuple[Value, ...]


def shape_of(sql: str) -> Shape | None:
    """The shape of a statement; None if it has no literals to bind, or goes by its own text.

    NATURAL and USING compare columns that no event names, and what an index has decides (rule 8).
    """
    if hides_joins(sql) or _are_adapted():
        return None
    pieces: list[str] = []
    values: list[Value] = []
    modes = [_BOUND]  # by parenthesis
    before = ""  # what is said before: a word, folded, or a sign
    in_between = False  # the AND of a BETWEEN is still to come
    for skipped, word, other in SPACED.findall(sql):
        piece = word or other
        said = fold(word) if word else other
        mode = modes[-1]
        if word:
            modes[-1] = _mode_behind(said, before, mode)
            said, in_between = _between(said, in_between)
        elif said == "(":
            modes.append(_mode_within(before, mode))
            said = before if before in _BEFORE_CONDITIONS else said
        elif said == ")":
            modes = modes[:-1] or modes
        elif said[:1] in _UNCLEAR or _EXPONENT.fullmatch(said):
            return None
        elif said == ">" and before in _ARROWS:
            said = "->"
        elif mode == _BOUND and before in _BEFORE_VALUES:
            value = _value(said)
            if value is not None:
                values.append(value)
                piece = "?"
        before = said
        pieces += skipped, piece

    return Shape("".join(pieces), tuple(values)) if 0 < len(values) <= _MOST else None


def _are_adapted() -> bool:
    """Does the owner's Python make something else of values when they are bound?"""
    return any((kind, sqlite3.PrepareProtocol) in sqlite3.adapters for kind in (int, float, str))


def _between(word: str, is_open: bool) -> tuple[str, bool]:
    """The word, where the AND of a BETWEEN counts as a BETWEEN; and whether one is to come."""
    if word == "and" and is_open:
        return "between", False
    return word, is_open or word == "between"


def _mode_behind(word: str, before: str, mode: int) -> int:
    """What happens to literals behind a word. `x is distinct from y` begins no clause."""
    if mode == _ALL_KEPT:
        return mode
    if word in _KEEPING:
        return _KEPT
    return _BOUND if word in _BINDING and before != "distinct" else mode


def _mode_within(before: str, mode: int) -> int:
    """What happens to them in a parenthesis."""
    return _BOUND if mode == _BOUND and before in _BEFORE_PARENTHESES else _ALL_KEPT


def _value(text: str) -> Value | None:
    """What a literal says; None if it is none, or none that can be bound."""
    if text.startswith("'"):
        # One that is not closed is no string.
        return None if text.count("'") % 2 else text[1:-1].replace("''", "'")
    if text.isascii() and text.isdecimal():
        number = int(text) if len(text) < 20 else _MOST_INTEGER + 1
        return number if number <= _MOST_INTEGER else None
    return float(text) if _DECIMAL.fullmatch(text) else None
