"""What the rows of a table satisfy, and whether those of an access do (spec, 15.13).

One entry of the caveat `rows`, as it is read: `data.py` asks the entry of each link by itself, and
`rights.py` holds what all of them say together.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from msgspec import UNSET

from captoken._format import names
from captoken._language.access import Access
from captoken._language.constraints import Anything, Constraint, read_constraint
from captoken._language.values import an_object

# By column. A column that is free is not in it.
RowRule: TypeAlias = Mapping[str, Constraint]
EVERY_ROW: RowRule = MappingProxyType({})


def read_rule(entry: Any) -> dict[str, Constraint]:
    """What an entry asks of a row. Raises TypeError or ValueError for what is no such entry."""
    rule = {}
    for column, stated in an_object(entry, "the rows of a table").items():
        names.free_name(column, "column")
        constraint = read_constraint(stated)
        if not isinstance(constraint, Anything):
            rule[column] = constraint
    return rule


# What an operation touches: the row as it is stored, or as it will be. Any other may touch both.
_TOUCHED = {"select": ("row",), "delete": ("row",), "insert": ("becomes",)}
_BOTH = ("row", "becomes")


def failing_row(rule: RowRule, access: Access) -> tuple[str, str] | None:
    """The fact and the column for which an access is refused that states rows, or None.

    The column is empty where the row has to be stated. Of what may touch both, both have to be, and
    one of the two may be None: there is no such row. A column that a row lacks satisfies nothing.
    """
    rows = {"row": access.row, "becomes": access.becomes}
    touched = _TOUCHED.get(access.operation or "", _BOTH)
    stated = {fact: row for fact, row in rows.items() if type(row) is dict}
    for fact in touched:
        if fact not in stated and (rows[fact] is UNSET or stated.keys().isdisjoint(touched)):
            return fact, ""
    for fact, row in stated.items():
        for column, constraint in rule.items():
            if column not in row or not constraint.accepts(row[column]):
                return fact, column
    return None
