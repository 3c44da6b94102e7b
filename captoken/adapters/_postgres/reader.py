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
    select nonsense from                    ends at 3: a StatementError, `syntax`
    select * from xmltable(…)               ends at 5: a kind of node that is on no list
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from captoken._verification.mistakes import is_sendable, mistake, word_in
from captoken.adapters._postgres.expressions import EXPRESSION_RULES
from captoken.adapters._postgres.grammar import GrammarError, parse, scan
from captoken.adapters._postgres.room import run
from captoken.adapters._postgres.statements import STATEMENT_RULES
from captoken.adapters._postgres.tables import TABLE_RULES
from captoken.adapters._postgres.text import RefusedError, Scope, Text
from captoken.adapters._postgres.tree import take_apart, tree_of
from captoken.adapters._postgres.walk import Sight, Walk

MAX_BYTES = 100_000  # T1
_MAX_NESTING = 3_000  # T1: tokens of a statement that can nest

# A token that nests takes a kilobyte or two of the stack. So many fit on that of any thread.
_SHALLOW = 200

# Commas, names and constants nest nothing.
_FLAT = frozenset(kind for kind, _ in scan("a, 1, 1.5, 'a', $1"))

# T2. What is said of each kind of node, by its name.
_RULES = {
    **STATEMENT_RULES,
    **TABLE_RULES,
    **EXPRESSION_RULES,
}

# T1. What the scanner does is bounded by this: tenths of a second at most.
_MAX_RUN = 500  # signs of which operators and comments are made, in a row

# What the grammar says of a text that is no SQL.
_SYNTAX_ERROR = "42601"
_TOO_COMPLEX = "54001"
_near = re.compile(r'.* at or near "(\w+)"').match

_operator_runs = re.compile(r"[~!@#^&|`?+\-*/%<>=]+").findall
# Each token that nests has one of these to itself at least: a word, or any sign but a comma. White
# space is what it is for the scanner.
_words = re.compile(r"\w+|[^\w, \t\n\r\f\v]").findall


def read(sql: str) -> Text:
    """What a statement says, or why no token permits it (`Text.refusal`).

    `sql` must be an exact `str`: a subclass could say one thing here and encode to another. Raises
    StatementError, `syntax`, for what the server would not read.
    """
    text = parsed(sql)
    if text.refusal is None:
        _or_refused(_walk, text)
    return text


def parsed(sql: str) -> Text:
    """The tree of a statement, or why there is none. What it names is not noted."""
    text = Text(sql)
    _or_refused(_read_tree, text)
    return text


def _read_tree(text: Text) -> None:
    is_deep = _nesting(text.sql) > _SHALLOW

    # A refusal is noted there: with the exception goes what was parsed, which needs a large stack.
    run(partial(_or_refused, _parse), text, deep=is_deep)
    if is_deep and text.tree is not None:
        # So does the tree, which is taken apart when the text goes.
        weakref.finalize(text, take_apart, text.tree)


def _nesting(sql: str) -> int:
    """T1. How many tokens of the text can nest; for a short text, at most how many.

    A text that is too long is refused here, before the parser sees it. What counts the tokens is
    the scanner of the server's own grammar, which does not recurse.
    """
    # A lone surrogate has no UTF-8. The server could not be sent what was read.
    if not is_sendable(sql):
        raise mistake("syntax", _SYNTAX_ERROR)
    if len(sql.encode()) > MAX_BYTES:
        raise RefusedError("operation", f"the statement has more than {MAX_BYTES} bytes")

    # A short text needs no scanner.
    words = len(_words(sql))
    if words <= _SHALLOW:
        return words

    # Of `+-+-+-…` the scanner takes one operator at a time, and looks at all of the rest for each.
    if any(len(run) > _MAX_RUN for run in _operator_runs(sql)):
        raise RefusedError("operation", f"the statement has more than {_MAX_RUN} signs in a row")

    nesting = sum(kind not in _FLAT for kind, _ in _by_grammar(scan, sql))
    if nesting > _MAX_NESTING:
        sentence = f"the statement has more than {_MAX_NESTING} operators and brackets"
        raise RefusedError("operation", sentence)
    return nesting


def _by_grammar(read: Callable[[str], list[Any]], sql: str) -> list[Any]:
    """What the server's grammar makes of the text. Raises StatementError for what is no SQL."""
    try:
        return read(sql)
    except GrammarError as error:
        said = str(error)
    # Out of the handler: what the grammar says can quote a literal.
    if said.startswith("memory exhausted"):
        raise mistake("too_large", _TOO_COMPLEX)
    near = _near(said)
    raise mistake("syntax", _SYNTAX_ERROR, word_in(sql, near[1]) if near else "")


def _parse(text: Text) -> None:
    """T1. Exactly one statement, of those that are granted at all.

    Nothing is no statement: an empty text, or comments. `select 1;` is one.
    """
    found = _by_grammar(parse, text.sql)

    # A second statement would run without having been read.
    if len(found) != 1:
        raise RefusedError("operation", "send exactly one statement at a time")

    # EXPLAIN, COPY, DO, CALL, SET, DDL and all else end here.
    statement = found[0]["stmt"]
    if len(statement) != 1 or statement.keys() - STATEMENT_RULES.keys():
        sentence = "only select, values, insert, update, delete and merge are granted"
        raise RefusedError("operation", sentence)
    text.tree = statement  # also where a node of it is refused: it has to be taken apart
    text.tree = tree_of(statement)


def _or_refused(work: Callable[[Text], None], text: Text) -> None:
    """Do it, and note in the text what refuses it."""
    try:
        work(text)
    except RefusedError as refused:
        code, sentence = refused.args
        text.refusal = (code, sentence)


def _walk(text: Text) -> None:
    """Note in the text what the statement says. Raises RefusedError.

    A refusal ends the walk. What was noted by then is not complete, and nobody may use it.
    """
    walk = Walk(text)

    # The statement sees no table and no CTE yet: it makes a level of its own.
    nothing = Sight(Scope(None), {})
    walk.add(text.tree, nothing)
    walk.run(_RULES)
