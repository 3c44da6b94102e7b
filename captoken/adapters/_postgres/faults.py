"""Which errors of PostgreSQL are the statement's own fault, by their SQLSTATE.

    42703, 42P01 …    name          a column or a table that is not there
    22…               value         a division by zero, a text that is no number
    23505             unique

Decided by class, and within a class by the code where one says more. A class that is not here is
no fault of the statement: the connection (08), the state of the transaction (25), rollbacks that a
second try may not meet (40), resources (53), locks (55), timeouts and what the operator does (57),
the system's errors (58, XX), and what goes wrong within functions of the owner's (2F, 38, 39, P0),
but for what they raise on purpose (P0001). 42501 is a denial, and no part of this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from captoken._format.errors import StatementError
from captoken._verification.mistakes import mistake, word_at
from captoken.adapters._postgres.wire import ErrorReport

# By code. 42P01 and its like are about names in the text, which agents write.
_BY_CODE = {
    "23502": "not_null",
    "23503": "foreign_key",
    "23001": "foreign_key",  # ON DELETE RESTRICT
    "23505": "unique",
    "23P01": "unique",  # EXCLUDE
    "42602": "name",
    "42622": "name",  # too long
    "42702": "name",  # ambiguous column
    "42703": "name",  # column
    "42704": "name",  # object
    "42725": "name",  # ambiguous function
    "42883": "name",  # function or operator, for these types
    "42P01": "name",  # table
    "42P02": "parameters",  # $2, where no type tells what it is
    "42P08": "parameters",  # one that has two types
    "42P09": "name",  # ambiguous alias
    "42P18": "parameters",  # one whose type cannot be told
    "42804": "type",
    "42809": "name",  # something of another kind: `(x).name`, where x is no row
    "42846": "type",  # a cast
    "42P21": "type",  # collations
    "42P22": "type",
    "42939": "name",  # reserved
    "428C9": "value",  # a value for a generated column
    "3F000": "name",  # a schema
    "P0001": "raised",
}

# By class, which is the beginning of a code.
_BY_CLASS = {
    "0A": "unsupported",
    "10": "value",  # XQuery
    "21": "cardinality",
    "22": "value",
    "23": "check",  # what of it is not above
    "42": "syntax",  # what of it is not above: grouping, windows, too many names
    "44": "check",  # WITH CHECK OPTION
    "54": "too_large",
}

# The text itself was read by the grammar before. Where it says no place, it is of a value that is
# in a language of its own: a jsonpath, a query of a text search.
_SYNTAX_ERROR = "42601"

# The one error of the protocol that a statement causes: `select $2` with one parameter.
_PROTOCOL_VIOLATION = "08P01"
_BOUND_WRONGLY = "bind message supplies "


# A column that is not there.
_UNDEFINED_COLUMN = "42703"


def mistaken(
    sql: str,
    error: ErrorReport,
    shown: Iterable[tuple[str, Sequence[str]]] = (),
) -> StatementError | None:
    """The error to raise, if it is the statement's own fault. Nothing of its message is told.

    `shown` are the columns of each table that whoever asked may know of.
    """
    code = _BY_CODE.get(error.code) or _BY_CLASS.get(error.code[:2])
    if error.code == _SYNTAX_ERROR and not error.place:
        code = "value"
    if error.code == _PROTOCOL_VIOLATION and error.message.startswith(_BOUND_WRONGLY):
        code = "parameters"
    if code is None:
        return None
    if error.code == _UNDEFINED_COLUMN:
        return mistake(code, error.code, _misspelt(sql, error.place), _there(shown))
    return mistake(code, error.code, word_at(sql, error.place) if error.place else "")


def _misspelt(sql: str, place: int) -> str:
    """The column at that place, which is where its qualifier begins: `pay` of `p.pay`."""
    qualifier = re.compile(r"(?:[^\W\d]\w*\s*\.\s*)*").match(sql, place - 1) if place else None
    return "" if qualifier is None else word_at(sql, qualifier.end() + 1)


def _there(shown: Iterable[tuple[str, Sequence[str]]]) -> str:
    """What there is, where a column is not: `people has id, name here`."""
    return "; ".join(
        f"{table} has {', '.join(columns) or 'no column'} here" for table, columns in shown
    )
