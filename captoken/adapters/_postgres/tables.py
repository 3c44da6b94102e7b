"""What the nodes of FROM clauses say: tables, joins, functions, and the names that these get.

Each rule opens with the SQL that it is about. The rules T3, T5, T6 and T7 are in `text`.
"""

from __future__ import annotations

from typing import Any

from captoken.adapters._postgres.lists import FUNCTION_COLUMNS, SAMPLERS, SCALAR_FUNCTIONS
from captoken.adapters._postgres.outputs import leftmost
from captoken.adapters._postgres.text import Item, Join, Reference, RefusedError, Scope, Source
from captoken.adapters._postgres.walk import (
    Rule,
    Sight,
    Walk,
    alias_of,
    joined,
    name_of,
    own_name,
    strings,
)


def _table(walk: Walk, node: Any, sight: Sight) -> None:
    """A table of which rows are read, or a CTE (T3).

        from sales, market.moves, people as p, people as p(a, b)

    A table is read even where none of its columns is: how many rows it has is something to know.
    """
    table = walk.table_or_cte(node, sight.ctes)
    name, renamed = alias_of(node, node.relname)
    if table is None:
        # A CTE has no columns that anybody is to be asked about: its own query reads them.
        source = _renamed(sight.ctes[node.relname], renamed)
        walk.source(sight.scope, name, source)
        return

    walk.text.reads.append(table)
    walk.text.items.append(Item(node, table))
    sight.scope.tables.append((name, table))
    if renamed:
        # T5. In `p(a, b)` the name `b` stands for the second column, and the text does not say
        # which that is. So all are meant. Columns that get no new name keep their own.
        walk.text.references.append(Reference(sight.scope, name, "*"))
        sight.scope.renamed[name] = renamed


def _subselect(walk: Walk, node: Any, sight: Sight) -> None:
    """A subquery, or VALUES.

        from (select ...) as x, (values (1, 2)) as v(a, b)

    It sees what is beside it, and the target of a write, only by LATERAL.
    """
    name, renamed = alias_of(node)
    query = Source(query=id(leftmost(node.subquery)))
    walk.source(sight.scope, name, _renamed(query, renamed))
    inside = sight if node.lateral else Sight(sight.scope.outer or Scope(None), sight.ctes)
    walk.add(node.subquery, inside)


def _renamed(source: Source, names: tuple[str, ...]) -> Source:
    """A source whose first columns get new names. Which these were, nobody says: none is left."""
    return Source(frozenset(names)) if names else source


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
        references.append(Reference(sight.scope, None, column, local=True))

    # `j.pay` and `j.*` mean columns of any table of this level. `j` is a whole row of them.
    if node.join_using_alias is not None:
        merged = frozenset(strings(node.usingClause))
        sight.scope.joins[node.join_using_alias.aliasname] = Join(merged, ())
    if node.alias is not None:
        names = strings(node.alias.colnames)
        # By which names the tables and subqueries go that are joined.
        members = tuple(filter(None, map(name_of, joined([node.larg, node.rarg]))))
        sight.scope.joins[node.alias.aliasname] = Join(frozenset(names), members)
        if names:
            # As in `_table`: a new name can stand for any column.
            references.append(every_column)
            sight.scope.renaming.add(node.alias.aliasname)
    walk.below(node, sight, "usingClause", "alias", "join_using_alias")


def _function(walk: Walk, node: Any, sight: Sight) -> None:
    """A function in FROM, or several in one.

        from generate_series(1, 3) as g(i), rows from (a(), b() as (c integer))

    The calls are walked like any other call.
    """
    calls = tuple(call for call, _ in node.functions)
    parts = strings(calls[0].funcname) if type(calls[0]).__name__ == "FuncCall" else ()
    called = parts[-1] if parts else None
    if node.alias is not None:
        name = node.alias.aliasname
    elif called is not None:
        name = called
    else:
        # `from current_date` goes by a name that PostgreSQL makes up. A qualifier could be that
        # name, and T7 would not know that what it qualifies is a value.
        message = "in FROM, anything but a plain function needs a name: `as x`"
        raise RefusedError("operation", message)

    defined = list(node.coldeflist or ())
    for _, definitions in node.functions:
        defined += definitions or ()
    for definition in defined:
        _column_definition(walk, definition, sight)

    # T7. A function can return a value that is no row. Then `g.text` is a call of `text(g)`.
    names = {definition.colname for definition in defined}
    if node.alias is not None:
        names |= set(strings(node.alias.colnames))
    if node.ordinality and not names:
        names = {"ordinality"}
    if len(calls) == 1 and not names:
        own = parts[:-1] in ((), ("pg_catalog",))
        walk.source(sight.scope, name, _of_function(called if own else None, name))
    else:
        walk.source(sight.scope, name, Source(frozenset(names)))
    walk.add(calls, sight)


def _of_function(called: str | None, name: str) -> Source:
    """The columns of a function of PostgreSQL's own, of those that are used in FROM."""
    columns = FUNCTION_COLUMNS.get(called or "")
    if columns is not None:
        return Source(columns, complete=True)
    if called in SCALAR_FUNCTIONS:
        return Source(frozenset((name,)), complete=True)
    return Source()


def _column_definition(walk: Walk, node: Any, sight: Sight) -> None:
    """A column that the statement gives to a record.

        from json_to_record('{}') as t(a integer, b text collate "C")

    Its type is walked as in a cast.
    """
    walk.add((node.typeName, node.collClause), sight)


def _json_table(walk: Walk, node: Any, sight: Sight) -> None:
    """Rows out of a document.

        from json_table(doc, '$[*]' columns (x integer path '$', nested path '$.b' columns (...)))

    A column that is nested has no name, but columns of its own.
    """
    names = set[str]()
    to_come = list(node.columns)
    while to_come:
        column = to_come.pop()
        if column.name is not None:
            names.add(column.name)
        to_come += column.columns or ()

    name, renamed = alias_of(node, "json_table")
    walk.source(sight.scope, name, _renamed(Source(frozenset(names)), renamed))
    walk.below(node, sight, "alias")


def _sample(walk: Walk, node: Any, sight: Sight) -> None:
    """A sample of the rows of a table (T6).

        from sales tablesample system (10)

    The method is a function, and an extension can add others.
    """
    if own_name(node.method, "TABLESAMPLE") not in SAMPLERS:
        raise RefusedError("operation", "only PostgreSQL's own sampling methods are granted")
    walk.text.sampled = True
    walk.below(node, sight, "method")


TABLE_RULES: dict[str, Rule] = {
    "JoinExpr": _join,
    "JsonTable": _json_table,
    "RangeFunction": _function,
    "RangeSubselect": _subselect,
    "RangeTableSample": _sample,
    "RangeVar": _table,
}
