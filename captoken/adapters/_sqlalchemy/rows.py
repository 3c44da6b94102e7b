"""What a token says of rows, as a condition of SQLAlchemy.

It is compiled where the query is: only there are dialect, types and aliases known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Table, inspect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from captoken._format.errors import GuardError
from captoken._verification.decision import Denied
from captoken._verification.grant import Grant
from captoken.rows import asked, condition

Conditions = Sequence[Mapping[str, Any]]


class _Held(FunctionElement[bool]):
    """Conditions on columns, which it has as its clauses: so they follow aliases."""

    type = Boolean()
    inherit_cache = False  # the conditions are no part of a key

    def __init__(self, conditions: Conditions, columns: Mapping[str, ColumnElement[Any]]) -> None:
        self.conditions = conditions
        self.names = tuple(columns)
        super().__init__(*columns.values())


@compiles(_Held)
def _compiled(element: _Held, compiler: Any, **options: Any) -> str:
    """The condition in the dialect of the query, its values spelled out."""
    columns = dict(zip(element.names, element.clauses, strict=True))
    types = {
        name: compiler.dialect.type_compiler_instance.process(column.type)
        for name, column in columns.items()
    }
    dialect = compiler.dialect.name
    said = condition(
        element.conditions,
        "sqlite" if dialect == "default" else dialect,  # a query that is printed, and never sent
        types,
        lambda name: str(compiler.process(columns[name], **options)),
    )
    # As of any text: where placeholders begin with a percent sign, it is written twice.
    return f"({compiler.escape_literal_column(said)})"


def held_rows(grant: Grant, model: Any) -> ColumnElement[bool]:
    """What `captoken.adapters.sqlalchemy.rows` gives."""
    selected: Any = inspect(model).selectable
    table = selected if isinstance(selected, Table) else selected.element
    conditions = grant.rows(".".join(filter(None, (table.schema, str(table.name)))))
    columns: dict[str, ColumnElement[Any]] = {}
    try:
        for name, _ in asked(conditions):
            found = [column for column in selected.columns if column.name == name]
            columns.update((name, column) for column in found)
    except GuardError as error:
        refused = str(error)
    else:
        missing = [name for name, _ in asked(conditions) if name not in columns]
        if not missing:
            return _Held(conditions, columns)
        refused = f"the table has no column {missing[0]}"
    raise Denied(grant.deny("row", refused))
