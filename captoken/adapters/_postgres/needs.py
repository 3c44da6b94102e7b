"""What the names in a statement mean in a database: its tables, columns and calls.

The rules T4, T5 and T7 are in `text`. For an example, in `select name, (select pay) from people p`:

    name      a column of `people`, which has one of that name
    pay       the same, though it stands at a level that has no table: levels outside count
    zz        nothing, if no table in sight has a column of that name

And of what else could stand there:

    p.pay     a column of `people`
    p         all columns of `people`: a whole row
    p.lower   a call, `lower(p)`, since `people` has no column `lower`: a whole row, too

A table has the columns that are shown of it (`columns`). A name that can be read in two ways means
both, unless it is known which of them PostgreSQL takes. What is granted has to cover either. These
are all the names of that kind:

    written             can be                                       judged as both in
    pay                 a column here or outside; a whole row        _meant_unqualified
    p.pay               a column of p; a call, of the whole row p    _meant_qualified
    j.pay, of a join    a column of what is joined; a call, of all   _meant_qualified
    (x).pay             a field; a call, or a cast, of x             is_field
    lower(x)            PostgreSQL's function; the owner's           lists.refused_function
    x::mood             PostgreSQL's type; an enum of the owner's    catalog, "types"

What is not of that kind: a table and a CTE of one name. Of these the text says which it is (T3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from captoken.adapters._postgres.catalog import Catalog, Need
from captoken.adapters._postgres.columns import Columns, Shown
from captoken.adapters._postgres.lists import SYSTEM_COLUMNS
from captoken.adapters._postgres.text import Field, Reference, Scope, Table

# For each scope, the levels from there outwards that have something in FROM.
Levels: TypeAlias = Mapping[Scope, Sequence[Scope]]


# --- from the names in a text to what it needs ---


class Meaning(NamedTuple):
    """What a name can mean: a column of a table, or all of them, which is None."""

    table: Table
    column: str | None


def levels_of(scopes: Iterable[Scope]) -> Levels:
    """The levels to look through from each scope, from its own outwards.

        select (select pay) from people         `select pay` has nothing in FROM

    Such levels are left out: how deep a statement nests is its author's choice.
    """
    return {
        scope: [level for level in scope.outward() if level.tables or level.sources]
        for scope in set(scopes)
    }


def reads_of(
    tables: Iterable[Table],
    references: Iterable[Reference],
    levels: Levels,
    columns: Columns,
    shown: Shown,
) -> list[Need]:
    """`select` on each table that is read, with all columns that the names can mean.

    `tables` are those of which rows are read. That counts even without any column: `select count(*)
    from people`. A table in sight that is only written is read by what is read of it: `update
    people set pay = pay + 1`.
    """
    found: dict[Table, set[str | None]] = {table: set() for table in tables}
    for reference in references:
        for table, column in meant(reference, levels[reference.scope], columns, shown):
            found.setdefault(table, set()).add(column)

    needs: list[Need] = []
    for table, names in found.items():
        every = shown.get(table)
        if None in names:
            read = None if every is None else frozenset(every)
        else:
            read = frozenset(name for name in names if name is not None)
        needs.append(Need(table, "select", read))
    return needs


# --- T4 and T5: columns ---


def meant(
    reference: Reference,
    levels: Sequence[Scope],
    columns: Columns,
    shown: Shown,
) -> list[Meaning]:
    """T4, T5. All columns that a reference can mean, at any level in sight."""
    if reference.qualifier is None:
        return _meant_unqualified(reference, levels, columns, shown)
    return _meant_qualified(reference.qualifier, reference.column, levels, shown)


def _meant_unqualified(
    reference: Reference,
    levels: Sequence[Scope],
    columns: Columns,
    shown: Shown,
) -> list[Meaning]:
    """`pay`, `*`, and `people`, which is a whole row.

        select name, (select pay from sales) from people

    PostgreSQL takes the innermost level that has a column of that name: `pay` of `sales`, or else
    that of `people`. Where it is certain that `sales` has one, `people` does not count.
    """
    scope, _, column, local = reference
    found: list[Meaning] = []
    for level in levels:
        is_outside = level is not scope

        # T5. `select *` is about its own level alone, and so is `using (id)`.
        if is_outside and (local or column == "*"):
            break
        if column == "*":
            found += [Meaning(table, None) for _, table in level.tables]
            continue

        found += _meant_at(level, column, shown)
        if columns.has(level, column):
            break
    return found


def _meant_at(level: Scope, column: str, shown: Shown) -> list[Meaning]:
    """What an unqualified name can mean at one level: a column of each table, or a whole row.

        select pay from people p, sales s           pay of people, and of sales
        select p from people p                      a whole row of people
        select j from (people p cross join sales s) as j            of both
    """
    found: list[Meaning] = []
    names_a_join = column in level.joins
    for goes_by, table in level.tables:
        if names_a_join or column == goes_by:
            found.append(Meaning(table, None))
        elif _has(table, column, shown):
            found.append(Meaning(table, column))
    return found


def _meant_qualified(
    qualifier: str,
    column: str,
    levels: Sequence[Scope],
    shown: Shown,
) -> list[Meaning]:
    """`people.pay`, `people.*`, and the same of a join that has a name.

    At all levels in sight: two of them can have something that goes by that name. What is no column
    there can be a call, which gets the whole row. Which tables a join has is not looked at.
    """
    found: list[Meaning] = []
    for level in levels:
        names_a_join = qualifier in level.joins
        for goes_by, table in level.tables:
            if names_a_join or qualifier == goes_by:
                is_column = column != "*" and _has(table, column, shown)
                found.append(Meaning(table, column if is_column else None))
    return found


def _has(table: Table, column: str, shown: Shown) -> bool:
    """Whether a table has that column. One of which nothing is known may have any."""
    every = shown.get(table)
    return every is None or column in every


# --- T7: calls ---


def is_column(
    reference: Reference,
    levels: Sequence[Scope],
    columns: Columns,
    catalog: Catalog,
) -> bool:
    """T7. Whether a name after a dot, as in `t.name`, is a column for certain, and so no call.

    Where nothing goes by the qualifier it counts as one: PostgreSQL says that then, and calls
    nothing.
    """
    qualifier, column = reference.qualifier, reference.column
    if qualifier is None or column == "*":
        return True
    if column in SYSTEM_COLUMNS and column not in catalog.foreign:
        return True
    return all(column in names for names in _that_go_by(qualifier, levels, columns))


def _that_go_by(
    qualifier: str,
    levels: Sequence[Scope],
    columns: Columns,
) -> list[frozenset[str]]:
    """The columns of each item that goes by that name: at the innermost level that has one.

    From within FROM what is beside it may be in sight, and then one further out is not.
    """
    found: list[frozenset[str]] = []
    for level in levels:
        items = columns.at(level)
        found += [known.names for name, known in items if name == qualifier]

        # What is joined has its columns together: `(a cross join b) as j`. Of `as j(x, y)`, those
        # that the text names are certain, and no others.
        join = level.joins.get(qualifier)
        if join is not None and level.renaming:
            found.append(join.named)
        elif join is not None:
            members = [known.names for name, known in items if name in join.members]
            found.append(join.named.union(*members))
        if found and level.certain:
            break
    return found


def is_field(field: Field, levels: Sequence[Scope], columns: Columns) -> bool:
    """T7. `(s).region`, where s can be nothing else than a row that has it.

        select (s).region from sales s              a field of the row s
        select (s).region from sales s, (select ...) as q

    A column that goes by `s` would come first: in the second one, q may have it. So all columns in
    sight have to be known.
    """
    its_name = field.of
    if its_name is None or its_name in SYSTEM_COLUMNS:
        return False

    rows: list[frozenset[str]] = []
    for level in levels:
        if level.joins:
            return False
        for name, known in columns.at(level):
            may_be_a_column = not known.complete or its_name in known.names
            if may_be_a_column:
                return False
            if name == its_name:
                rows.append(known.names)
    return bool(rows) and all(field.name in names for names in rows)
