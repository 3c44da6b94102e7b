"""A statement cut into tokens where SQLite's own tokenizer cuts it, and its keywords.

The text is one of the guard's three accounts (`captoken.adapters.sqlite`). A token that begins or
ends elsewhere than in SQLite could hide a name. So the expression below follows SQLite's tokenizer:
its white space, its four kinds of quotes, its comments, its letters (all beyond ASCII are letters).

    SELECT "a b" FROM /* not */ [hr] WHERE x = 'it''s'

    word  SELECT  select        the keyword that it may be, folded
    "     a b                   an identifier, or a string if there is no such column
    word  FROM    from
    [     hr                    an identifier: a keyword in quotes is none
    word  WHERE   where
    word  x       x
    other =
    '     it's                  a string, or an identifier where only that can stand
"""

from __future__ import annotations

import re

# The kinds of tokens. What is quoted has its opening quote as its kind.
WORD = "word"
OTHER = "other"  # numbers, parameters, operators and punctuation
STRING = "'"
IDENTIFIER = '"'  # and, if there is no such column, a string

Token = tuple[str, str, str]  # kind; text, without its quotes; the keyword that it may be, or ""
END: Token = (OTHER, "", "")

# Punctuation that is looked for. In quotes it is a name, if a strange one: `people AS "."`.
DOT: Token = (OTHER, ".", "")
OPENING: Token = (OTHER, "(", "")
CLOSING: Token = (OTHER, ")", "")
COMMA: Token = (OTHER, ",", "")
SEMICOLON: Token = (OTHER, ";", "")
STAR: Token = (OTHER, "*", "")

# Rule 1: how a statement may begin.
KINDS = frozenset(("select", "with", "values", "insert", "replace", "update", "delete"))

# Of these, the ones that change rows, and have a count of them.
CHANGING = KINDS - {"select", "with", "values"}

# What else begins a statement, to SQLite or to other databases: it is of another kind. A text that
# begins with any other word is no SQL.
OTHER_KINDS = frozenset(
    (
        "abort",
        "alter",
        "analyze",
        "attach",
        "begin",
        "call",
        "checkpoint",
        "close",
        "cluster",
        "comment",
        "commit",
        "copy",
        "create",
        "deallocate",
        "declare",
        "desc",
        "describe",
        "detach",
        "discard",
        "do",
        "drop",
        "end",
        "exec",
        "execute",
        "explain",
        "fetch",
        "grant",
        "import",
        "listen",
        "load",
        "lock",
        "merge",
        "move",
        "notify",
        "pragma",
        "plan",
        "prepare",
        "query",
        "reassign",
        "refresh",
        "reindex",
        "release",
        "rename",
        "reset",
        "revoke",
        "rollback",
        "savepoint",
        "security",
        "set",
        "show",
        "start",
        "table",
        "truncate",
        "unlisten",
        "use",
        "vacuum",
    )
)

# What begins a clause, so that what a FROM or a WITH began is over.
CLAUSES = KINDS | frozenset(
    (
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
    )
)

# What may follow a table in a FROM, where an alias could stand.
JOINS = frozenset(
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

# What may stand between UPDATE and the table: UPDATE OR REPLACE t.
CONFLICTS = frozenset(("or", "abort", "fail", "ignore", "replace", "rollback"))

# What is no name without quotes, and common in a query.
RESERVED = frozenset(
    (
        "all",
        "and",
        "as",
        "between",
        "case",
        "distinct",
        "else",
        "exists",
        "is",
        "isnull",
        "not",
        "notnull",
        "null",
        "on",
        "or",
        "then",
        "using",
        "when",
    )
)

# White space is what SQLite's tokenizer takes for it, U+FEFF included, and not what Unicode does.
# What is not closed runs to the end, as in SQLite, which then refuses it. No alternative can be
# entered twice at one place, so that no text takes more than linear time.
_SKIPPED = r"""
            [\t-\r\ \ufeff]+
          | --[^\n]*
          | /\*(?s:.*?)(?:\*/|\Z)
"""
_QUOTED = r"""
            '[^']*(?:''[^']*)*(?:'|\Z)
          | "[^"]*(?:""[^"]*)*(?:"|\Z)
          | `[^`]*(?:``[^`]*)*(?:`|\Z)
          | \[[^\]]*(?:\]|\Z)
"""
_WORD = r"[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*"
_OTHER = r"""
            \.?[0-9][A-Za-z0-9_$.]*
          | \?[0-9]*
          | [:@\#$][A-Za-z0-9_$:\x80-\U0010ffff]*(?:\([^)\s]*\)?)?
          | (?s:.)
"""
_TOKEN = re.compile(
    f"(?P<skip>{_SKIPPED})|(?P<quoted>{_QUOTED})|(?P<word>{_WORD})|(?P<other>{_OTHER})",
    re.VERBOSE,
)

# The same, each token with what is skipped before it, and whether it is a word.
SPACED = re.compile(f"((?:{_SKIPPED})*)(?:({_WORD})|({_QUOTED}|{_OTHER}|\\Z))", re.VERBOSE)


def fold(name: str) -> str:
    """A name as SQLite compares it: ASCII letters without case, all else as it is.

    `str.lower` would do more: it makes one name of two that SQLite keeps apart.
    """
    if name.isascii():
        return name.lower()
    return "".join(char.lower() if char.isascii() else char for char in name)


def cut(sql: str) -> list[Token]:
    """The tokens of a statement, without white space and comments."""
    tokens: list[Token] = []
    for match in _TOKEN.finditer(sql):
        kind = match.lastgroup
        text = match[0]
        if kind == "word":
            tokens.append((WORD, text, fold(text)))
        elif kind == "quoted":
            tokens.append((text[0], _unquoted(text), ""))
        elif kind == "other":
            tokens.append((OTHER, text, ""))
    return tokens


def places(sql: str) -> list[tuple[int, int]]:
    """Where each of its tokens begins and ends."""
    return [match.span() for match in _TOKEN.finditer(sql) if match.lastgroup != "skip"]


def _unquoted(text: str) -> str:
    """What is between the quotes, where a doubled one stands for one."""
    quote = text[-1]
    return text[1:-1].replace(quote * 2, quote)
