"""Reads a statement: from the text to what it names. The rules T1 to T7 are in `text`.

The steps, of which each can end it:

1. the text is UTF-8 without a NUL, not too long, and has nothing that takes long to scan (T1);
2. the scanner counts tokens that nest, and there are not too many (T1);
3. the parser of the server makes a tree of it, or says that it is no SQL;
4. the tree is one statement, of a kind that is granted (T1);
5. the tree is walked: each kind of node is known (T2), and says what it names (T3 to T7).

For example:

    select id from sales; drop table hr     ends at 4: two statements
    drop table hr                           ends at 4: of no kind that is granted
    select nonsense from                    ends at 3: a SyntaxError, as of the server
    select * from xmltable(…)               ends at 5: a kind of node that is on no list
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable
from typing import Any

from captoken._format.extras import extra

with extra("postgres"):
    from pglast.parser import ParseError, parse_sql, scan
    from psycopg import errors

from captoken.adapters._postgres.expressions import EXPRESSION_RULES
from captoken.adapters._postgres.statements import CLAUSE_RULES, STATEMENT_RULES
from captoken.adapters._postgres.tables import TABLE_RULES
from captoken.adapters._postgres.text import Scope, Text
from captoken.adapters._postgres.walk import RefusedError, Sight, Walk

MAX_BYTES = 100_000  # T1
_MAX_NESTING = 3_000  # T1: tokens of a statement that can nest

# The parser recurses in C. A token that nests takes a kilobyte or two of the stack. So many of
# them fit on the stack of any thread; a statement with more gets a thread with more room.
_SHALLOW = 200
_STACK = 32 << 20  # bytes: several times what _MAX_NESTING tokens take

# Commas, names and constants nest nothing.
_FLAT = frozenset(
    (
        "ASCII_44",  # a comma
        "FCONST",
        "ICONST",
        "IDENT",
        "PARAM",
        "SCONST",
    )
)

# T2. What is said of each kind of node, by its name.
_RULES = {
    **STATEMENT_RULES,
    **CLAUSE_RULES,
    **TABLE_RULES,
    **EXPRESSION_RULES,
}

# T1. What the scanner and the parser do is bounded by these: tenths of a second at most.
_MAX_RUN = 500  # signs of which operators and comments are made, in a row
_MAX_LOOKED_UP = 100_000_000  # tokens times bytes, of a text with characters beyond ASCII

_operator_runs = re.compile(r"[~!@#^&|`?+\-*/%<>=]+").findall
_is_beyond_ascii = re.compile(r"[^\x00-\x7f]")
# What no text has in it by itself: nobody else knows it.
_MARK = secrets.token_hex(8)
_is_tag = re.compile(r"[A-Za-z0-9_\x80-\U0010ffff]*").fullmatch

# Around the start of a thread with more room.
_starting = threading.Lock()


def read(sql: str) -> Text:
    """What a statement says, or why no token permits it (`Text.refusal`).

    `sql` must be an exact `str`: a subclass could say one thing here and encode to another. Raises
    psycopg's SyntaxError, as the server would.
    """
    text = Text(sql)
    nesting = _nesting(text)
    if text.refusal is not None:
        return text

    # Most statements are short, and need no thread.
    if nesting <= _SHALLOW:
        _parse(text)
    else:
        _with_room(lambda: _parse(text))
    return text


def _nesting(text: Text) -> int:
    """T1. How many tokens of the text can nest; for a short text, at most how many.

    A text that is too long is refused here, before the parser sees it. What counts the tokens is
    the scanner of the server's own grammar, which does not recurse.
    """
    # A lone surrogate has no UTF-8. The server could not be sent what was read.
    try:
        size = len(text.sql.encode())
    except UnicodeEncodeError:
        raise errors.SyntaxError("the statement is not UTF-8") from None

    # The parser would stop there, and not see what follows.
    if "\0" in text.sql:
        raise errors.SyntaxError("the statement has a NUL character")

    # Each token has a byte at least, so that a short text needs no scanner.
    if size <= _SHALLOW:
        return size
    if size > MAX_BYTES:
        text.refusal = ("operation", f"a statement of more than {MAX_BYTES} bytes")
        return 0

    # Of `+-+-+-…` the scanner takes one operator at a time, and looks at all of the rest for each.
    if any(len(run) > _MAX_RUN for run in _operator_runs(text.sql)):
        text.refusal = ("operation", f"a statement with more than {_MAX_RUN} signs in a row")
        return 0

    try:
        tokens = scan(_in_ascii(text.sql))
    except ParseError as error:
        raise errors.SyntaxError(str(error.args[0])) from None

    nesting = sum(token.name not in _FLAT for token in tokens)
    if nesting > _MAX_NESTING:
        sentence = f"a statement with more than {_MAX_NESTING} operators and brackets"
        text.refusal = ("operation", sentence)

    # So does the parser, and it gets the text as it is.
    elif not text.sql.isascii() and len(tokens) * size > _MAX_LOOKED_UP:
        sentence = "a statement with too many words, for one with characters beyond ASCII"
        text.refusal = ("operation", sentence)
    return nesting


def _in_ascii(sql: str) -> str:
    """A text of as many tokens, of the same kinds, with ASCII alone.

    For each token the scanner looks up at which character that is, from the beginning, unless the
    text is ASCII. Any character beyond it is part of a name for the scanner, as `_` is.
    """
    if sql.isascii():
        return sql

    # `$é$` opens a string that `$è$` does not close. What may stand between such dollars is spelled
    # so that no two tags become one.
    parts = sql.split("$")
    for place, part in enumerate(parts):
        if _is_tag(part):
            parts[place] = _is_beyond_ascii.sub(_spelled, part)
    return _is_beyond_ascii.sub("_", "$".join(parts))


def _spelled(found: re.Match[str]) -> str:
    return f"_{_MARK}{ord(found[0]):x}_"


def _with_room(parse: Callable[[], None]) -> None:
    """T1. Run it in a thread whose stack holds any statement that is not too long.

    The parser does not look at how much of the stack is left. Where that is not enough, the
    process ends: an agent could end the server with `((((…` on a thread with a small stack.
    """
    # At most one, which the caller is to see.
    raised: list[BaseException] = []

    def run() -> None:
        """In that thread. What is raised there would be printed, and not be seen here."""
        try:
            parse()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)

    # The size is one for the process, and counts for the threads that start while it is set. Two
    # at once could leave it as the other one had set it.
    with _starting:
        before = threading.stack_size(_STACK)
        try:
            thread.start()
        finally:
            threading.stack_size(before)

    thread.join()

    if raised:
        raise raised[0]


def _parse(text: Text) -> None:
    """T1. Exactly one statement, of those that are granted at all.

    Nothing is no statement: an empty text, or comments. `select 1;` is one.
    """
    try:
        parsed = parse_sql(text.sql)
    except ParseError as error:
        raise errors.SyntaxError(str(error.args[0])) from None

    # A second statement would run without having been read.
    if len(parsed) != 1:
        text.refusal = ("operation", "exactly one statement is granted at a time")
        return

    # EXPLAIN, COPY, DO, CALL, SET, DDL and all else end here.
    statement = parsed[0].stmt
    kind = type(statement).__name__
    if kind not in STATEMENT_RULES:
        sentence = "only select, values, insert, update, delete and merge are granted"
        text.refusal = ("operation", sentence)
        return

    _walk(text, statement)


def _walk(text: Text, statement: Any) -> None:
    """Note in the text what the statement says, or why it is refused.

    A refusal ends the walk. What was noted by then is not complete, and nobody may use it.
    """
    walk = Walk(text)
    text.tree = statement

    # The statement sees no table and no CTE yet: it makes a level of its own.
    nothing = Sight(Scope(None), {})
    walk.add(statement, nothing)
    try:
        walk.run(_RULES)
    except RefusedError as refused:
        code, sentence = refused.args
        text.refusal = (code, sentence)
