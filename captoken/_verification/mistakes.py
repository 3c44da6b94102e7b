"""A statement that is at fault: what the guards of databases say of it, each code in one place.

    raise mistake("name", "42703", word_in(sql, "amuont"))

    name: a name in the statement does not exist, or is ambiguous (42703, at amuont)
    for a model: A name in the statement does not exist, or is ambiguous (at amuont). …

What a database says of an error can quote rows, parameters and names that are hidden. So nothing of
that is passed on, whatever the error: what is said is one of the sentences below, the code of the
database, and perhaps a word. The word is one that whoever asked has written.

Which error is whose, each guard decides: `_postgres/faults.py` by SQLSTATE, `_sqlite/faults.py` by
result code. What is the service's own, or the server's, stays what it is.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from captoken._format.errors import StatementError

_WORD_CHARS = 80


class Words(NamedTuple):
    """What is said of one code: what is at fault, and what may help."""

    fault: str
    advice: str

    @property
    def sentence(self) -> str:
        """What is at fault, as a sentence begins."""
        return self.fault[0].upper() + self.fault[1:]


_REWRITE = "Correct the statement, and send it again."
_VALUES = "Change the values, and send it again."

WORDS = {
    "syntax": Words("the database cannot make sense of the statement", _REWRITE),
    "name": Words(
        "a name in the statement does not exist, or is ambiguous",
        "Check how it is spelled, write the table before each column, and send it again.",
    ),
    "type": Words(
        "the types of two things in the statement do not go together",
        "Convert one of them, and send it again.",
    ),
    "value": Words(
        "a value is one that the statement cannot work with: of another form, out of range, or a "
        "division by zero",
        "Leave out or convert such values, and send it again.",
    ),
    "cardinality": Words(
        "one row is needed in a place where the statement gives several",
        "Narrow that part of it, and send it again.",
    ),
    "unique": Words("a row with the same key is there already", _VALUES),
    "foreign_key": Words(
        "a row refers to one that is not there, or is referred to by one that is", _VALUES
    ),
    "not_null": Words("a column that needs a value gets none", "State it, and send it again."),
    "check": Words("a rule of the table does not permit these values", _VALUES),
    "raised": Words("a trigger or a function of the database refuses it", _VALUES),
    "parameters": Words(
        "the parameters do not fit the statement, by their number or their types",
        "Give one for each place in it, and send it again.",
    ),
    "too_large": Words(
        "the statement, or a value that it makes, is too large for the database",
        "Do it in smaller parts.",
    ),
    "too_many_rows": Words(
        "the statement yields more rows than the server hands out", "Ask for fewer."
    ),
    "unsupported": Words(
        "the statement asks for something that the database does not have",
        "Write it in another way.",
    ),
}


def mistake(code: str, state: str = "", word: str = "", there: str = "") -> StatementError:
    """The error for one of the codes above. `word` is what `named` has found.

    `there` says what there is instead: names that the token grants, or a limit.

    For whoever raises it outside of a handler: what the database said would be its context.
    """
    words = WORDS[code]
    at = f"at {word}" if word else ""
    behind = ", ".join(filter(None, (state, at)))
    message = f"{code}: {words.fault}" + (f" ({behind})" if behind else "")
    message += f"; {there}" if there else ""
    told = words.sentence + (f" ({at})" if at else "")
    instead = f" {there}." if there else ""
    return StatementError(
        message, code, f"{told}. Nothing was done.{instead} {words.advice}", state
    )


def is_sendable(sql: str) -> bool:
    """Can a database be sent this text?

    A lone surrogate has no UTF-8. At a NUL a parser would stop, and not see what follows.
    """
    return re.search("[\0\ud800-\udfff]", sql) is None


def word_in(sql: str, word: str) -> str:
    """The word, if it is a name or a keyword that stands in the statement; else nothing.

    So no name is told that whoever asked did not write, and no literal.
    """
    if len(word) > _WORD_CHARS or re.fullmatch(r"[^\W\d]\w*", word) is None:
        return ""
    is_there = re.search(rf"(?<!\w){word}(?!\w)", sql, re.IGNORECASE)
    return word if is_there else ""


def word_at(sql: str, position: int) -> str:
    """The name or keyword at a character of the statement, which are counted from 1, or nothing."""
    found = re.compile(r"[^\W\d]\w*").match(sql, position - 1)
    return word_in(sql, found[0]) if found else ""
