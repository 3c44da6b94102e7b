"""Which errors of SQLite are the statement's own fault, by their result code.

    SQLITE_ERROR               syntax, name     when it is compiled, by what SQLite looked for
    SQLITE_ERROR               value            when it runs: integer overflow, malformed JSON
    SQLITE_CONSTRAINT_UNIQUE   unique

Those that Python finds have no result code: parameters that do not fit, and text of a row that is
no UTF-8. Of all that is not here the statement is not at fault: locks, files, memory, a database
that cannot be written, an interrupt, a connection that is closed.
"""

from __future__ import annotations

import re
import sqlite3

from captoken._format.errors import StatementError
from captoken._verification.mistakes import mistake, word_in

# By extended result code, and then by the primary one, which is its last byte.
_BY_CODE = {
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY: "foreign_key",
    sqlite3.SQLITE_CONSTRAINT_NOTNULL: "not_null",
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: "unique",
    sqlite3.SQLITE_CONSTRAINT_ROWID: "unique",
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: "unique",
    sqlite3.SQLITE_CONSTRAINT_TRIGGER: "raised",
    3091: "value",  # SQLITE_CONSTRAINT_DATATYPE, of a STRICT table: sqlite3 has no name for it
    sqlite3.SQLITE_CONSTRAINT: "check",  # what of it is not above
    sqlite3.SQLITE_MISMATCH: "value",
    sqlite3.SQLITE_TOOBIG: "too_large",
    sqlite3.SQLITE_RANGE: "parameters",
}
_PRIMARY = 0xFF

# What SQLite says of a name that it does not find, or finds twice: the name is the first word
# behind that, or the last of all.
_NAME = re.compile(
    r"(?:cannot join using column |ambiguous reference to )(\w+)"
    r"|(?:no such |ambiguous column name: |.* has no column named )(?:.*[ .\"])?(\w+)",
    re.DOTALL,
)
_NEAR = re.compile(r'near "(\w+)"')
_TOO_LARGE = re.compile(r".*\btoo (?:big|complex|large|long|many)\b", re.DOTALL)

# What Python's module says without a result code. "Could not decode …" quotes the text of a row.
_OF_PARAMETERS = re.compile(
    r"Incorrect number of bindings|Error binding parameter|You did not supply a value for binding"
    r"|Binding \d+ "
)
_OF_TEXT = re.compile(r"You can only execute one statement")
_OF_VALUES = re.compile(r"Could not decode to UTF-8")


def mistaken(
    sql: str,
    error: Exception,
    *,
    ran: bool,
    there: str = "",
) -> StatementError | None:
    """The error to raise, if it is the statement's own fault. Nothing of its message is told.

    `ran`: it compiled before. `there`: what there is, for a name that is not.
    """
    said = str(error)
    number = getattr(error, "sqlite_errorcode", None)
    state = getattr(error, "sqlite_errorname", "")
    if number is None:
        found = _without_number(error, said)
        return None if found is None else mistake(found)
    if number & _PRIMARY != sqlite3.SQLITE_ERROR:
        code = _BY_CODE.get(number) or _BY_CODE.get(number & _PRIMARY)
        return None if code is None else mistake(code, state)

    if _TOO_LARGE.match(said):
        return mistake("too_large", state)
    if ran:
        return mistake("value", state)
    name = _NAME.match(said)
    near = name or _NEAR.match(said)
    word = word_in(sql, near[near.lastindex or 0]) if near else ""
    if name is None:
        return mistake("syntax", state, word)
    return mistake("name", state, word, there)


def _without_number(error: Exception, said: str) -> str | None:
    """The code of an error that Python's module, or Python, has found."""
    if _OF_TEXT.match(said):
        return "syntax"
    if isinstance(error, (OverflowError, UnicodeEncodeError)) or _OF_PARAMETERS.match(said):
        return "parameters"
    return "value" if _OF_VALUES.match(said) else None
