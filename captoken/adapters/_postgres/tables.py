"""What the nodes of FROM clauses say: tables, joins, functions, and the names that these get.

Each rule opens with the SQL that it is about. The rules T3, T5, T6 and T7 are in `text`.
"""

from __future__ import annotations

from typing import Any

from captoken.adapters._postgres.lists import SAMPLERS
from captoken.adapters._postgres.text import Reference
from captoken.adapters._postgres.walk import (
    RefusedError,
    Rule,
    Sight,
    Walk,
    goes_by,
    own_name,
    strings,
)


def _table(walk: Walk, node: Any, sight: Sight) -> None:
    """A table of which rows are read, or a CTE (T3).

        from sales, market.moves, people as p, people as p(a, b)

    A table is read even where none of its columns is: how many rows it has is something to know.
    """
    text = walk.text
    table = walk.table_or_cte(node, sight.ctes)
    renamed = strings(node.alias.colnames) if node.alias is not None else set()
    text.declared |= renamed

    name = goes_by(node)
    if table is None:
        # A CTE has no columns that anybody is to be asked about: its own query reads them.
        text.declared.add(name)
        return

    text.reads.append(table)
    sight.scope.tables.append((name, table))
    if renamed:
        # T5. In `p(a, b)` the name `b` stands for the second column, and the text does not say
        # which that is. So all are meant. Columns that get no new name keep their own.
        text.references.append(Reference(sight.scope, name, "*"))
        # T7. Declared, so that `p.b` is not taken for a column that the table itself has.
        text.declared.add(name)


def _alias(walk: Walk, node: Any, sight: Sight) -> None:
    """The names that a subquery, a function or VALUES is given.

        from (select ...) as x, unnest(a) as u(v)

    The statement makes them itself, so that they need not be columns of a table.
    """
    walk.text.declared.add(node.aliasname)
    walk.text.declared |= strings(node.colnames)


def _join(walk: Walk, node: Any, sight: Sight) -> None:
    """A join, which can read columns that it does not spell, and can have a name of its own (T5).

        a natural join b, a join b using (id) as u, (a join b on true) as j(x, y)

    Both sides are walked, and so is the condition after ON.
    """
    references = walk.text.references
    every_column = Reference(sight.scope, None, "*")
    if node.isNatural:
        # It compares all columns that both sides have. Whether rows come back tells their values.
        references.append(every_column)
    for column in strings(node.usingClause):
        # The column is one of each side: `using (pay)` reads `people.pay`.
        references.append(Reference(sight.scope, None, column))

    for alias in (node.alias, node.join_using_alias):
        if alias is None:
            continue
        # `j.pay` and `j.*` mean columns of any table of this level. `j` is a whole row of them.
        sight.scope.joins.add(alias.aliasname)
        if alias.colnames:
            # As in `_table`: a new name can stand for any column.
            references.append(every_column)
    walk.below(node, sight, "usingClause")


def _function(walk: Walk, node: Any, sight: Sight) -> None:
    """A function in FROM, or several in one.

        from generate_series(1, 3) as g(i), rows from (a(), b() as (c integer))

    The calls are walked like any other call.
    """
    calls = tuple(call for call, _ in node.functions)
    if node.alias is not None:
        name = node.alias.aliasname
    elif type(calls[0]).__name__ == "FuncCall":
        name = calls[0].funcname[-1].sval
    else:
        # `from current_date` goes by a name that PostgreSQL makes up. A qualifier could be that
        # name, and T7 would not know that what it qualifies is a value.
        message = "in FROM, what is no plain function needs a name: `as x`"
        raise RefusedError("operation", message)
    # T7. A function can return a value that is no row. Then `g.text` is a call of `text(g)`.
    walk.text.values.add(name)

    for definition in node.coldeflist or ():
        _column_definition(walk, definition, sight)
    for _, definitions in node.functions:
        for definition in definitions or ():
            _column_definition(walk, definition, sight)
    walk.add((calls, node.alias), sight)


def _column_definition(walk: Walk, node: Any, sight: Sight) -> None:
    """A column that the statement gives to a record.

        from json_to_record('{}') as t(a integer, b text collate "C")

    Its type is walked as in a cast.
    """
    walk.text.declared.add(node.colname)
    walk.add((node.typeName, node.collClause), sight)


def _json_column(walk: Walk, node: Any, sight: Sight) -> None:
    """A column that JSON_TABLE makes.

        from json_table(doc, '$[*]' columns (x integer path '$', nested path '$.b' columns (...)))

    One that is nested has no name, but columns of its own.
    """
    if node.name is not None:
        walk.text.declared.add(node.name)
    walk.below(node, sight)


def _sample(walk: Walk, node: Any, sight: Sight) -> None:
    """A sample of the rows of a table (T6).

        from sales tablesample system (10)

    The method is a function, and an extension can add others.
    """
    if own_name(node.method, "TABLESAMPLE") not in SAMPLERS:
        raise RefusedError("operation", "a sampling method that is not PostgreSQL's own")
    walk.below(node, sight, "method")


TABLE_RULES: dict[str, Rule] = {
    "Alias": _alias,
    "JoinExpr": _join,
    "JsonTableColumn": _json_column,
    "RangeFunction": _function,
    "RangeTableSample": _sample,
    "RangeVar": _table,
}
