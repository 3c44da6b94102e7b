"""What the names in a statement mean in a database: its tables, columns and calls.

The rules T4, T5 and T7 are in `text`. For an example, in `select name, (select pay) from people p`:

    name      a column of `people`, which has one of that name
    pay       the same, though it stands at a level that has no table: levels outside count

And of what else could stand there:

    p.pay     a column of `people`, whether it has one of that name or not
    p         all columns of `people`: a whole row
    p.lower   a call, `lower(p)`, since `people` has no column `lower`: a whole row, too

A name that can be read in two ways means both, unless it is known which of them PostgreSQL takes.
What is granted has to cover either. These are all the names of that kind:

    written             can be                                       judged as both in
    pay                 a column here or outside; a whole row        _meant_unqualified
    p.pay               a column of p; a call, of the whole row p    _meant_in_table
    j.pay, of a join    a column of what is joined; a call, of all   _meant_in_join
    (x).pay             a field; a call, or a cast, of x             dotted_names
    lower(x)            PostgreSQL's function; the owner's           lists.refused_function
    x::mood             PostgreSQL's type; an enum of the owner's    catalog, "types"

What is not of that kind: a table and a CTE of one name. Of these the text says which it is (T3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from captoken.adapters._postgres.catalog import Catalog, Need
from captoken.adapters._postgres.lists import SYSTEM_COLUMNS
from captoken.adapters._postgres.text import Reference, Scope, Table, Text

# For each scope, the levels from there outwards that have tables.
Levels: TypeAlias = Mapping[Scope, Sequence[Scope]]
# T7. In place of a column: the whole row, as what a call gets. No column has no name at all.
CALLED = ""

# A column of a table. None is all of them. CALLED is all of them too, beside the column that the
# name would otherwise be.
Meaning: TypeAlias = tuple[Table, str | None]


class Needs(NamedTuple):
    """What a statement does with which tables, and the columns that belong to none of them."""

    needs: list[Need]
    unknown: tuple[str, ...]  # columns of no table in sight
    doubtful: frozenset[str]  # the same, but the statement may make them itself


def levels_of(references: Sequence[Reference]) -> Levels:
    """The levels to look through for each reference, from its own outwards.

    Levels without a table are left out: how deep a statement nests is its author's choice.
    """
    scopes = {reference.scope for reference in references}
    return {scope: [level for level in scope.outward() if level.tables] for scope in scopes}


def needs_of(
    text: Text,
    references: Sequence[Reference],
    levels: Levels,
    catalog: Catalog,
) -> Needs:
    """Each operation on each table, with all columns that the statement can mean.

    A table that is read without any column is read all the same: `select count(*) from people`.
    """
    # By table, the columns that are read. None is all of them.
    reads: dict[Table, set[str] | None] = {table: set() for table in text.reads}
    called: set[Table] = set()
    unknown: dict[str, None] = {}
    for reference in references:
        meanings = meant(reference, levels[reference.scope], catalog)
        for table, column in meanings:
            if column is CALLED:
                called.add(table)
                continue
            columns = reads.setdefault(table, set())
            if columns is not None and column is not None:
                columns.add(column)
            else:
                reads[table] = None
        if not meanings and reference.column != "*" and not reference.qualifier:
            unknown[reference.column] = None

    needs: list[Need] = []
    for table, columns in reads.items():
        needs.append(Need(table, "select", _frozen(columns)))

        # After the columns by their names. A column that is not permitted is so denied alike,
        # whether it is there, or would be a call.
        if table in called and columns is not None:
            needs.append(Need(table, "select", None))
    needs += [Need(write.table, write.operation, _frozen(write.columns)) for write in text.writes]

    made = text.declared | _columns_read_whole(reads, catalog)
    return Needs(
        needs=list(dict.fromkeys(needs)),
        unknown=tuple(name for name in unknown if name not in made),
        doubtful=frozenset(unknown) & made,
    )


def _columns_read_whole(reads: Mapping[Table, set[str] | None], catalog: Catalog) -> set[str]:
    """The columns of tables that are read whole. A subquery can hand them on by their names."""
    found: set[str] = set()
    for table, columns in reads.items():
        if columns is None:
            found |= catalog.columns.get(table, frozenset())
    return found


def _frozen(columns: set[str] | tuple[str, ...] | None) -> frozenset[str] | None:
    return None if columns is None else frozenset(columns)


# --- T4 and T5: columns ---


def meant(reference: Reference, levels: Sequence[Scope], catalog: Catalog) -> list[Meaning]:
    """T4, T5. All columns that a reference can mean, at any level in sight.

    PostgreSQL takes the innermost level that has one. Here they all count: a name that is found at
    two levels is asked about at both.
    """
    if reference.qualifier is None:
        return _meant_unqualified(reference, levels, catalog)
    return _meant_qualified(reference.qualifier, reference.column, levels, catalog)


def _meant_unqualified(
    reference: Reference, levels: Sequence[Scope], catalog: Catalog
) -> list[Meaning]:
    """`pay`, `*`, and `people`, which is a whole row."""
    scope, _, column = reference
    found: list[Meaning] = []
    for level in levels:
        if column == "*":
            # T5. A star is about its own level alone.
            if level is scope:
                found += [(table, None) for _, table in level.tables]
            continue

        names_a_join = column in level.joins
        for goes_by, table in level.tables:
            if column == goes_by or names_a_join:  # T5: a whole row
                found.append((table, None))
            elif _may_have(table, column, catalog):
                found.append((table, column))
    return found


def _meant_qualified(
    qualifier: str,
    column: str,
    levels: Sequence[Scope],
    catalog: Catalog,
) -> list[Meaning]:
    """`people.pay`, `people.*`, and the same of a join that has a name."""
    found: list[Meaning] = []
    for level in levels:
        names_a_join = qualifier in level.joins
        for goes_by, table in level.tables:
            if qualifier == goes_by:
                found += _meant_in_table(table, column, catalog)
            elif names_a_join:
                found += _meant_in_join(table, column, catalog)
    return found


def _meant_in_table(table: Table, column: str, catalog: Catalog) -> list[Meaning]:
    """`people.pay`: the column, there or not, and a whole row where it can be a call.

    So a column that is missing, and one that is not permitted, are denied alike.
    """
    if column == "*":
        return [(table, None)]
    if _has(table, column, catalog):
        return [(table, column)]
    return [(table, column), (table, CALLED)]


def _meant_in_join(table: Table, column: str, catalog: Catalog) -> list[Meaning]:
    """`j.pay`, for one of the tables of a level where some join goes by `j`.

    Which tables it joins is not looked at. So another of them may have the column, and `j.pay` be
    a call of all that is joined: that counts for each table without it.
    """
    if column == "*":
        return [(table, None)]
    if _has(table, column, catalog):
        return [(table, column)]
    if _may_have(table, column, catalog):
        return [(table, column), (table, CALLED)]
    return [(table, CALLED)]


def _has(table: Table, column: str, catalog: Catalog) -> bool:
    """Whether a table has that column for certain, so that a name after a dot is no call.

    A view has no system columns. But then nothing can be called by such a name either.
    """
    if column in SYSTEM_COLUMNS:
        return column not in catalog.callable
    return column in catalog.columns.get(table, ())


def _may_have(table: Table, column: str, catalog: Catalog) -> bool:
    """Whether a table has that column, as far as anybody knows.

    A table that is not in the catalog may have any: no role can use it, or it was made since.
    """
    if column in SYSTEM_COLUMNS:
        return True
    columns = catalog.columns.get(table)
    return columns is None or column in columns


# --- T7: calls ---


class Dotted(NamedTuple):
    """The names after a dot that are no columns for certain (T7)."""

    calls: set[tuple[str | None, str]]  # those that can be called, by schema and name
    others: set[str]  # those that nothing is called by


def dotted_names(
    text: Text,
    references: Sequence[Reference],
    levels: Levels,
    catalog: Catalog,
) -> Dotted:
    """T7. The functions and types that a name after a dot can mean, and what can mean none.

    `(x).name` is a call of `name(x)` where x has no field of that name; so is `t.name`. A call of
    a type is a cast: a value can be cast to the row type of a table, a row cannot.
    """
    row_types = {name for schema, name in catalog.columns if schema == "public"}
    called = {name for name in text.fields if name in catalog.callable or name in row_types}
    others = text.fields - called

    for scope, qualifier, column in references:
        if qualifier is None or column == "*":
            continue
        if _is_column_of_all(column, qualifier, text, levels[scope], catalog):
            continue
        casts_a_value = column in row_types and qualifier in text.values
        if column in catalog.callable or casts_a_value:
            called.add(column)
        else:
            others.add(column)

    calls: set[tuple[str | None, str]] = set()
    for name in called:
        if not _is_enum(name, catalog):
            calls.add((None, name))
    return Dotted(calls, others)


def _is_column_of_all(
    column: str,
    qualifier: str,
    text: Text,
    levels: Sequence[Scope],
    catalog: Catalog,
) -> bool:
    """T7. Whether whatever goes by a qualifier is a table, and has that column of its own.

    A qualifier that the statement declares may be a subquery or a value. What that has is not
    known.
    """
    tables = {table for level in levels for goes_by, table in level.tables if goes_by == qualifier}
    if qualifier in text.declared or not tables:
        return False
    return all(column in catalog.columns.get(table, ()) for table in tables)


def _is_enum(name: str, catalog: Catalog) -> bool:
    """Whether a call is a cast to an enum of `public`. A function of that name would come first."""
    return ("public", name) in catalog.types and name not in catalog.called
