"""What select, insert, update, delete and merge say, and their WITH clauses.

Each rule opens with the SQL that it is about. The rules T1, T3 and T5 are in `text`. For example:

    select id from sales                          reads sales: id
    select 1 from sales for update                reads sales, and may update it
    insert into sales select * from hr            inserts into sales, all columns; reads hr: *
    update sales set amount = amount + 1          updates sales: amount; reads sales: amount
    delete from sales returning 1                 deletes from sales; reads sales
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from captoken.adapters._postgres.outputs import fields_of, leftmost, names_in, outputs_of, width_of
from captoken.adapters._postgres.text import (
    Level,
    Query,
    Reference,
    RefusedError,
    Scope,
    Source,
    Table,
    Write,
)
from captoken.adapters._postgres.walk import (
    MAX_TABLES,
    Rule,
    Sight,
    Walk,
    goes_by,
    joined,
    name_of,
    own_name,
    strings,
    too_many_tables,
)

# --- WITH ---


def _with(
    walk: Walk,
    clause: Any,
    scope: Scope,
    ctes: Mapping[str, Source],
) -> Mapping[str, Source]:
    """T3. Put the queries of a WITH clause to be walked. Returns the names in sight below it.

        with a as (...), b as (select * from a) select * from a, b
        with recursive n(i) as (values (1) union all select i + 1 from n) select i from n

    In `with secret as (select * from secret) select * from secret`, the first `secret` after FROM
    is the table: without RECURSIVE, a query sees the names before it, not its own, and none after
    it.
    """
    if clause is None:
        return ctes

    # T1. What is in sight of each is copied below.
    walk.count_ctes(len(clause.ctes))

    # The names in sight of the query that comes next, and those of all queries.
    before = ctes
    every = {**ctes, **{cte.ctename: _columns_of(cte) for cte in clause.ctes}}

    for cte in clause.ctes:
        visible = every if clause.recursive else before
        sight = Sight(Scope(scope), visible)
        walk.add(cte, sight)
        before = {**before, cte.ctename: every[cte.ctename]}
    return every


def _columns_of(cte: Any) -> Source:
    """The columns of a CTE: those of its query, or as it renames them, and what it adds."""
    named = set(strings(cte.aliascolnames))
    query = None if named else id(leftmost(cte.ctequery))
    if cte.search_clause is not None:
        named.add(cte.search_clause.search_seq_column)
    if cte.cycle_clause is not None:
        named |= {cte.cycle_clause.cycle_mark_column, cte.cycle_clause.cycle_path_column}
    return Source(frozenset(named), query)


# --- SELECT, VALUES, TABLE ---


def _select(walk: Walk, node: Any, sight: Sight) -> None:
    """A query. VALUES, TABLE and each side of a UNION are of this kind, too.

        with eu as (...) select amount * 2 as twice from sales join eu using (id) for update

    It makes a level of its own. What its FROM clause names is in sight in all of its parts.
    """
    if node.intoClause is not None:
        raise RefusedError("operation", "SELECT INTO makes a table, which is not granted")

    own = Scope(sight.scope)
    own.certain = True
    ctes = _with(walk, node.withClause, sight.scope, sight.ctes)

    # T1. Before the locks: each of them goes through the whole list.
    if len(node.fromClause or ()) > MAX_TABLES:
        too_many_tables()
    for clause in node.lockingClause or ():
        _lock(walk, node, clause, ctes)

    # Of a UNION it is the first query that names the columns.
    outputs = outputs_of(node)
    if node.larg is None:
        walk.text.queries[id(node)] = Query(own, outputs)

    if node.groupClause is not None:
        walk.text.grouped.append(Level(node, own))
    inside = Sight(own, ctes)
    walk.add(node.fromClause, Sight(own.from_within(), ctes))
    _sorted(walk, node, names_in(outputs), inside)
    walk.below(
        node,
        inside,
        "withClause",
        "lockingClause",
        "fromClause",
        "sortClause",
        "distinctClause",
    )


def _sorted(walk: Walk, node: Any, outputs: set[str], sight: Sight) -> None:
    """What rows are sorted by, and what makes them distinct.

        select distinct on (twice) amount * 2 as twice from sales order by twice

    A name alone is that of a result there, if there is one of that name, and no column. In an
    expression (`twice + 1`), and in GROUP BY, it is not: there the column comes first.
    """
    for sort in node.sortClause or ():
        if _is_output(sort.node, outputs):
            own_name(sort.useOp, "an operator")
        else:
            walk.add(sort, sight)
    for expression in node.distinctClause or ():
        if not _is_output(expression, outputs):
            walk.add(expression, sight)


def _is_output(expression: Any, outputs: set[str]) -> bool:
    fields = fields_of(expression)
    return len(fields) == 1 and fields[0] in outputs


def _lock(
    walk: Walk,
    node: Any,
    clause: Any,
    ctes: Mapping[str, Source],
) -> None:
    """A lock on rows needs `update`: on the tables that it names, or else on all of FROM.

        select * from sales for update
        select * from sales s join orders o using (id) for share of s

    PostgreSQL asks for that right, too. No column is written, so none is named.
    """
    named = {table.relname for table in clause.lockedRels or ()}
    for item in joined(node.fromClause or ()):
        name = name_of(item)
        is_locked = not named or name is None or name in named

        # T3. A CTE has no rows of its own to lock.
        if type(item).__name__ == "RangeVar":
            table = walk.table_or_cte(item, ctes)
            if table is not None and is_locked:
                walk.text.writes.append(Write(table, "update", ()))

        # A subquery, above all. PostgreSQL would lock the rows of the tables below it, which this
        # loop does not see. A function has no rows to lock.
        elif is_locked and type(item).__name__ != "RangeFunction":
            raise RefusedError("operation", "FOR UPDATE and FOR SHARE are granted for tables only")


# --- INSERT ---


def _insert(walk: Walk, node: Any, sight: Sight) -> None:
    """Rows that are added, from VALUES or from a query.

        insert into people (id, name) values (1, 'ann') on conflict (id) do nothing returning id

    The target is in sight after ON CONFLICT and RETURNING, and not in what is inserted.
    """
    target = walk.table(node.relation)  # T3: no CTE hides the target of a write
    ctes = _with(walk, node.withClause, sight.scope, sight.ctes)

    # The list of columns may be left out. Then VALUES or a query fills all of them: None. With
    # DEFAULT VALUES there is no query, and the statement names no column.
    every_column = node.cols is None and node.selectStmt is not None
    columns = None if every_column else _column_names(node.cols)
    width = width_of(node.selectStmt) if every_column else None
    walk.text.writes.append(Write(target, "insert", columns, width))

    # What is inserted does not see the target.
    outside = Sight(sight.scope, ctes)
    for column in node.cols or ():
        walk.add(column.indirection, outside)
    walk.add(node.selectStmt, outside)

    # What comes after it does.
    inside = Sight(_sees_target(walk, node, target, sight.scope), ctes)
    if node.onConflictClause is not None:
        _on_conflict(walk, node.onConflictClause, target, inside)
    _returning(walk, node.returningClause, inside)


def _on_conflict(
    walk: Walk,
    clause: Any,
    target: Table,
    sight: Sight,
) -> None:
    """What happens where a row is there already.

        on conflict (id) where live do update set name = excluded.name where people.live
        on conflict on constraint people_ssn_key do nothing

    It compares columns of the target, and may update the row that it finds.
    """
    # DO UPDATE, and whatever a later grammar adds.
    if clause.action != "ONCONFLICT_NOTHING":
        columns = _column_names(clause.targetList)
        walk.text.writes.append(Write(target, "update", columns))

    if clause.infer is not None:
        _compared_columns(walk, clause.infer, sight)

    # The row that was to be inserted goes by this name, with the columns of the target.
    sight.scope.tables.append(("excluded", target))
    sight.scope.target_names.add("excluded")
    walk.add((clause.targetList, clause.whereClause), sight)


def _compared_columns(walk: Walk, infer: Any, sight: Sight) -> None:
    """The columns by which a row is found that is there already. They are read.

    An agent that may not read `ssn` could otherwise try values of it, and see which are taken.
    """
    references = walk.text.references
    if infer.conname is not None:
        # T5. A constraint: the text does not say which columns that is about.
        references.append(Reference(sight.scope, None, "*"))
    for element in infer.indexElems or ():
        if element.name is not None:
            references.append(Reference(sight.scope, None, element.name, local=True))
        walk.add(element, sight)
    walk.add(infer.whereClause, sight)


# --- UPDATE, DELETE, MERGE ---


def _update(walk: Walk, node: Any, sight: Sight) -> None:
    """Rows that are changed.

        update people set name = 'x', region = o.region from orders o where o.id = people.id

    Columns that it reads are noted where they are walked. The right to update covers none of them.
    """
    target = walk.table(node.relation)  # T3: no CTE hides the target of a write
    columns = _column_names(node.targetList)
    walk.text.writes.append(Write(target, "update", columns))
    _change(walk, node, target, sight)


def _delete(walk: Walk, node: Any, sight: Sight) -> None:
    """Rows that are removed, with all of their columns.

        delete from sales using orders where orders.id = sales.id

    There is no right to delete that is limited to columns.
    """
    target = walk.table(node.relation)  # T3: no CTE hides the target of a write
    walk.text.writes.append(Write(target, "delete", None))
    _change(walk, node, target, sight)


def _merge(walk: Walk, node: Any, sight: Sight) -> None:
    """Rows that are added, changed or removed, by what else is there.

        merge into people p using new n on p.id = n.id
            when matched then update set name = n.name
            when not matched then insert (id, name) values (n.id, n.name)

    It reads rows of its target in any case, even where it does nothing with them.
    """
    target = walk.table(node.relation)  # T3: no CTE hides the target of a write
    walk.text.reads.append(target)

    # What each of them may do, whichever applies to a row.
    for clause in node.mergeWhenClauses:
        write = _merge_write(clause, target)
        if write is not None:
            walk.text.writes.append(write)
    _change(walk, node, target, sight)


def _merge_write(clause: Any, target: Table) -> Write | None:
    """What one WHEN clause of a MERGE writes. None: it does nothing."""
    kind = clause.commandType
    if kind == "CMD_NOTHING":
        return None
    if kind == "CMD_DELETE":
        return Write(target, "delete", None)
    if kind == "CMD_UPDATE":
        return Write(target, "update", _column_names(clause.targetList))
    if kind == "CMD_INSERT":
        # Without a list of columns, VALUES fills all of them, as in `_insert`.
        every_column = clause.targetList is None and clause.values is not None
        columns = None if every_column else _column_names(clause.targetList)
        return Write(target, "insert", columns)
    # T2. Whatever a later grammar adds.
    raise RefusedError("operation", "MERGE may only insert, update or delete")


def _change(
    walk: Walk,
    node: Any,
    target: Table,
    sight: Sight,
) -> None:
    """What update, delete and merge have in common: all of their parts see the target."""
    own = _sees_target(walk, node, target, sight.scope)
    ctes = _with(walk, node.withClause, sight.scope, sight.ctes)
    inside = Sight(own, ctes)
    _returning(walk, node.returningClause, inside)
    walk.below(node, inside, "relation", "withClause", "returningClause")


# --- the target of a write ---


def _sees_target(
    walk: Walk,
    node: Any,
    target: Table,
    outer: Scope,
) -> Scope:
    """A level that sees the target of a write, by all names that it has there.

        update people as p set name = 'x' returning p.id, old.name, new.*
        update people set name = 'x' returning with (old as o) o.name

    After RETURNING, the row before and after goes by `old` and `new`, or by what WITH says there.
    """
    own = Scope(outer)
    names = {goes_by(node.relation)}

    returning = node.returningClause
    if returning is not None:
        options = returning.options or ()
        names |= {"old", "new"}
        names |= {option.value for option in options}

    own.tables += [(name, target) for name in sorted(names)]
    own.target, own.target_names = target, names
    walk.text.targets.append(Level(node, own))

    alias = node.relation.alias
    if alias is not None and alias.colnames:
        # T5. As in a FROM clause: a new name can stand for any column.
        own.renamed.update(dict.fromkeys(names, strings(alias.colnames)))
        walk.text.references.append(Reference(own, None, "*"))
    walk.text.queries[id(node)] = Query(own, outputs_of(node))
    return own


def _returning(walk: Walk, clause: Any, sight: Sight) -> None:
    """What comes back of the rows that were written. That reads the target.

        delete from sales returning 1

    Even a constant says how many rows there were.
    """
    if clause is None:
        return

    # All names of this level are names of the target: nothing else was put there yet.
    _, target = sight.scope.tables[0]
    walk.text.reads.append(target)

    walk.add(clause.exprs, sight)


def _column_names(targets: Any) -> tuple[str, ...]:
    """The columns of a list of assignments, or of columns to insert. The list may be absent.

    Each once: `set point[1] = 2, point[2] = 3` assigns to one column.
    """
    names = {target.name for target in targets or ()}
    return tuple(sorted(names))


# T1. What a statement can be.
STATEMENT_RULES: dict[str, Rule] = {
    "DeleteStmt": _delete,
    "InsertStmt": _insert,
    "MergeStmt": _merge,
    "SelectStmt": _select,
    "UpdateStmt": _update,
}
