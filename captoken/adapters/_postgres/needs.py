"""What the names in a statement mean in a database: its tables, columns and calls.

The rules T4, T5 and T7 are in `text`. For an example, in `select name, (select pay) from people p`:

    name      a column of `people`, which has one of that name
    pay       the same, though it stands at a level that has no table: levels outside count
    zz        one of `people`, too, which has none of that name: a doubt

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

A doubt is a column that a table has not, as far as is known. The grant is asked about it as if it
were there. So what it permits by columns tells nothing of the columns that it does not permit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from captoken.adapters._postgres.catalog import Catalog, Need
from captoken.adapters._postgres.columns import Columns
from captoken.adapters._postgres.lists import SYSTEM_COLUMNS
from captoken.adapters._postgres.text import Field, Reference, Scope, Table, Text

# For each scope, the levels from there outwards that have something in FROM.
Levels: TypeAlias = Mapping[Scope, Sequence[Scope]]


class Meaning(NamedTuple):
    """What a name can mean: a column of a table, or all of them."""

    table: Table

    # None is all of them.
    column: str | None

    # Whether the table has that column, as far as is known.
    doubted: bool = False

    # T7. All of them, as what a call gets, beside the column that the name would otherwise be.
    called: bool = False


class Needs(NamedTuple):
    """What a statement does with which tables."""

    needs: list[Need]

    # The same, with the columns that are doubted.
    asked: list[Need]


class _Read:
    """What is read of one table, as it is found."""

    __slots__ = ("called", "columns", "doubted", "sure", "whole")

    def __init__(self, sure: bool) -> None:
        self.sure = sure
        self.whole = self.called = False
        self.columns: set[str] = set()
        self.doubted: set[str] = set()

    def note(self, meaning: Meaning) -> None:
        if meaning.doubted and meaning.column is not None:
            self.doubted.add(meaning.column)
            return

        self.sure = True
        if meaning.called:
            self.called = True
        elif meaning.column is None:
            self.whole = True
        else:
            self.columns.add(meaning.column)

    def needs(self, table: Table, columns: Iterable[str]) -> list[Need]:
        """One for the columns, and one for the whole row of a call.

        That one comes after the columns by their names. A column that is not permitted is so denied
        alike, whether it is there, or would be a call.
        """
        if self.whole:
            return [Need(table, "select", None)]
        found = [Need(table, "select", frozenset(columns))]
        if self.called:
            found.append(Need(table, "select", None))
        return found


def levels_of(scopes: Iterable[Scope]) -> Levels:
    """The levels to look through from each scope, from its own outwards.

    Levels with nothing in FROM are left out: how deep a statement nests is its author's choice.
    """
    found: dict[Scope, Sequence[Scope]] = {}
    for scope in scopes:
        if scope not in found:
            outward = scope.outward()
            found[scope] = [level for level in outward if level.tables or level.sources]
    return found


def needs_of(
    text: Text,
    references: Sequence[Reference],
    levels: Levels,
    columns: Columns,
    catalog: Catalog,
) -> Needs:
    """Each operation on each table, with all columns that the statement can mean.

    A table that is read without any column is read all the same: `select count(*) from people`.
    """
    reads = {table: _Read(sure=True) for table in text.reads}
    for reference in references:
        for meaning in meant(reference, levels[reference.scope], columns, catalog):
            reads.setdefault(meaning.table, _Read(sure=False)).note(meaning)

    needs: list[Need] = []
    asked: list[Need] = []
    for table, read in reads.items():
        if read.sure:
            needs += read.needs(table, read.columns)
        asked += read.needs(table, read.columns | read.doubted)

    writes: list[Need] = []
    for write in text.writes:
        written = None if write.columns is None else frozenset(write.columns)
        writes.append(Need(write.table, write.operation, written))
    return Needs(
        needs=list(dict.fromkeys(needs + writes)),
        asked=list(dict.fromkeys(asked + writes)),
    )


# --- T4 and T5: columns ---


def meant(
    reference: Reference,
    levels: Sequence[Scope],
    columns: Columns,
    catalog: Catalog,
) -> list[Meaning]:
    """T4, T5. All columns that a reference can mean, at any level in sight."""
    if reference.qualifier is None:
        return _meant_unqualified(reference, levels, columns, catalog)
    return _meant_qualified(reference.qualifier, reference.column, levels, catalog)


def _meant_unqualified(
    reference: Reference,
    levels: Sequence[Scope],
    columns: Columns,
    catalog: Catalog,
) -> list[Meaning]:
    """`pay`, `*`, and `people`, which is a whole row.

    PostgreSQL takes the innermost level that has a column of that name. Where it is certain that
    one has, those outside it do not count.
    """
    scope, _, column, local = reference
    found: list[Meaning] = []
    for level in levels:
        # T5. A star is about its own level alone.
        if level is not scope and (local or column == "*"):
            break
        if column == "*":
            found += [Meaning(table, None) for _, table in level.tables]
            continue

        names_a_join = column in level.joins
        for goes_by, table in level.tables:
            if column == goes_by or names_a_join:  # T5: a whole row
                found.append(Meaning(table, None))
            else:
                found.append(Meaning(table, column, not _may_have(table, column, catalog)))
        if columns.has(level, column):
            break
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
        return [Meaning(table, None)]
    if _has(table, column, catalog):
        return [Meaning(table, column)]
    return [Meaning(table, column), Meaning(table, None, called=True)]


def _meant_in_join(table: Table, column: str, catalog: Catalog) -> list[Meaning]:
    """`j.pay`, for one of the tables of a level where some join goes by `j`.

    Which tables it joins is not looked at. So another of them may have the column, and `j.pay` be
    a call of all that is joined: that counts for each table without it.
    """
    if column == "*":
        return [Meaning(table, None)]
    if _has(table, column, catalog):
        return [Meaning(table, column)]
    doubted = not _may_have(table, column, catalog)
    return [Meaning(table, column, doubted), Meaning(table, None, called=True)]


def _has(table: Table, column: str, catalog: Catalog) -> bool:
    """Whether a table has that column for certain, so that a name after a dot is no call.

    A view has no system columns. But then a function would have to go by such a name.
    """
    if column in SYSTEM_COLUMNS:
        return column not in catalog.foreign
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
    """What stands after a dot."""

    # The names that are no columns for certain.
    names: set[str]

    # A qualifier that nothing in FROM goes by. PostgreSQL would say so.
    nowhere: str | None


def dotted_names(
    text: Text,
    references: Sequence[Reference],
    levels: Levels,
    columns: Columns,
    catalog: Catalog,
) -> Dotted:
    """T7. The names after a dot that can be calls.

    `(x).name` is a call of `name(x)` where x has no field of that name; so is `t.name`. A call of
    a type is a cast. Whether anything can be called so is not looked at: the answer is the same for
    what is there and for what is not.
    """
    names: set[str] = set()
    nowhere: str | None = None
    for reference in references:
        qualifier, column = reference.qualifier, reference.column
        if qualifier is None or column == "*":
            continue

        having = _that_go_by(qualifier, levels[reference.scope], columns)
        if not having:
            nowhere = nowhere or qualifier
        elif not _all_have(having, column, catalog):
            names.add(column)

    for field in dict.fromkeys(text.fields):
        if not _is_field_for_certain(field, levels[field.scope], columns):
            names.add(field.name)
    return Dotted(names, nowhere)


def _that_go_by(
    qualifier: str, levels: Sequence[Scope], columns: Columns
) -> list[frozenset[str]]:
    """The columns of each item that goes by that name, at any level in sight."""
    found: list[frozenset[str]] = []
    for level in levels:
        items = columns.at(level)
        found += [known.names for name, known in items if name == qualifier]

        # What is joined has them together.
        join = level.joins.get(qualifier)
        if join is not None and level.renaming:
            found.append(join.named)
        elif join is not None:
            members = [known.names for name, known in items if name in join.members]
            found.append(join.named.union(*members))
    return found


def _all_have(having: Sequence[frozenset[str]], column: str, catalog: Catalog) -> bool:
    if column in SYSTEM_COLUMNS and column not in catalog.foreign:
        return True
    return all(column in names for names in having)


def _is_field_for_certain(field: Field, levels: Sequence[Scope], columns: Columns) -> bool:
    """`(s).region`, where s can be nothing else than a row that has it.

    A column that goes by `s` would come first. So all columns in sight have to be known.
    """
    if field.of is None:
        return False

    rows: list[frozenset[str]] = []
    for level in levels:
        if level.joins:
            return False
        for name, known in columns.at(level):
            if not known.complete or field.of in known.names or field.of in SYSTEM_COLUMNS:
                return False
            if name == field.of:
                rows.append(known.names)
    return bool(rows) and all(field.name in names for names in rows)
