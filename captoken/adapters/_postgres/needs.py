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


# --- from the names in a text to what it needs ---


class Meaning(NamedTuple):
    """What a name can mean: a column of a table, or all of them."""

    table: Table

    # The column; None stands for all of them.
    column: str | None

    # Is it a doubt? As far as is known, the table has no such column.
    doubted: bool = False

    # T7. All of them, as what a call gets, beside the column that the name would otherwise be.
    called: bool = False


class Needs(NamedTuple):
    """What a statement does with which tables."""

    needs: list[Need]

    # The same, with the columns that are doubted.
    asked: list[Need]


def levels_of(scopes: Iterable[Scope]) -> Levels:
    """The levels to look through from each scope, from its own outwards.

        select (select pay) from people         `select pay` has nothing in FROM

    Such levels are left out: how deep a statement nests is its author's choice.
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
            # A table in sight that is only written: `update people set pay = pay + 1`.
            read = reads.setdefault(meaning.table, _Read(sure=False))
            read.note(meaning)

    needs: list[Need] = []
    asked: list[Need] = []
    for table, read in reads.items():
        if read.sure:
            needs += read.needs(table, read.columns)
        with_doubted = read.columns | read.doubted
        asked += read.needs(table, with_doubted)

    writes: list[Need] = []
    for write in text.writes:
        written = None if write.columns is None else frozenset(write.columns)
        writes.append(Need(write.table, write.operation, written))

    # Each once, in the order of the text.
    return Needs(
        needs=list(dict.fromkeys(needs + writes)),
        asked=list(dict.fromkeys(asked + writes)),
    )


class _Read:
    """What is read of one table, as it is found."""

    __slots__ = ("called", "columns", "doubted", "sure", "whole")

    def __init__(self, sure: bool) -> None:
        # Whether it is read at all. If not, there are nothing but doubts.
        self.sure = sure

        # Whether all columns are, and whether a call gets them all.
        self.whole = False
        self.called = False

        self.columns: set[str] = set()
        self.doubted: set[str] = set()

    def note(self, meaning: Meaning) -> None:
        """One of the things that a name can mean is of this table."""
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

            select n.ts, n.max from notes n         ts and max; and all, if max is a call

        That one comes after the columns by their names. A column that is not permitted is so denied
        alike, whether it is there, or would be a call.
        """
        all_of_them = Need(table, "select", None)
        if self.whole:
            return [all_of_them]

        by_name = Need(table, "select", frozenset(columns))
        return [by_name, all_of_them] if self.called else [by_name]


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

        found += _meant_at(level, column, catalog)
        if columns.has(level, column):
            break
    return found


def _meant_at(level: Scope, column: str, catalog: Catalog) -> list[Meaning]:
    """What an unqualified name can mean at one level: a column of each table, or a whole row.

        select pay from people p, sales s           pay of people, and of sales
        select p from people p                      a whole row of people
        select j from (people p cross join sales s) as j            of both
    """
    found: list[Meaning] = []
    names_a_join = column in level.joins
    for goes_by, table in level.tables:
        is_whole_row = names_a_join or column == goes_by
        if is_whole_row:
            found.append(Meaning(table, None))
        else:
            doubted = not _may_have(table, column, catalog)
            found.append(Meaning(table, column, doubted))
    return found


def _meant_qualified(
    qualifier: str,
    column: str,
    levels: Sequence[Scope],
    catalog: Catalog,
) -> list[Meaning]:
    """`people.pay`, `people.*`, and the same of a join that has a name.

    At all levels in sight: two of them can have something that goes by that name.
    """
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

    by_name = Meaning(table, column)
    if _has(table, column, catalog):
        return [by_name]

    whole_row = Meaning(table, None, called=True)
    return [by_name, whole_row]


def _meant_in_join(table: Table, column: str, catalog: Catalog) -> list[Meaning]:
    """`j.pay`, for one of the tables of a level where some join goes by `j`.

        select j.pay from (people p cross join sales s) as j

    Which tables it joins is not looked at. So another of them may have the column, and `j.pay` be
    a call of all that is joined: that counts for each table without it.
    """
    if column == "*":
        return [Meaning(table, None)]
    if _has(table, column, catalog):
        return [Meaning(table, column)]

    by_name = Meaning(table, column, doubted=not _may_have(table, column, catalog))
    whole_row = Meaning(table, None, called=True)
    return [by_name, whole_row]


# Two questions about one column. Of a table that is not in the catalog the first one says no, and
# the second one yes.


def _has(table: Table, column: str, catalog: Catalog) -> bool:
    """Whether a table has that column for certain, so that a name after a dot is no call.

    A view has no system columns (`people.xmin`). But then a function would have to go by such a
    name.
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

    known = catalog.columns.get(table)
    return known is None or column in known


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

        select t.name, (t.id).name, (row(1, 2)).f1 from people t

    `(x).name` is a call of `name(x)` where x has no field of that name; so is `t.name`. A call of
    a type is a cast. Whether anything can be called so is not looked at: the answer is the same for
    what is there and for what is not.
    """
    names: set[str] = set()
    nowhere: str | None = None

    # t.name
    for reference in references:
        qualifier, column = reference.qualifier, reference.column
        if qualifier is None or column == "*":
            continue

        having = _that_go_by(qualifier, levels[reference.scope], columns)
        if not having:
            nowhere = nowhere or qualifier
        elif not _all_have(having, column, catalog):
            names.add(column)

    # (x).name
    for field in dict.fromkeys(text.fields):
        if not _is_field_for_certain(field, levels[field.scope], columns):
            names.add(field.name)
    return Dotted(names, nowhere)


def _that_go_by(
    qualifier: str,
    levels: Sequence[Scope],
    columns: Columns,
) -> list[frozenset[str]]:
    """The columns of each item that goes by that name, at any level in sight."""
    found: list[frozenset[str]] = []
    for level in levels:
        items = columns.at(level)
        found += [known.names for name, known in items if name == qualifier]

        join = level.joins.get(qualifier)
        if join is None:
            continue

        # What is joined has its columns together: `(a cross join b) as j`. Of `as j(x, y)`, those
        # that the text names are certain, and no others.
        if level.renaming:
            found.append(join.named)
        else:
            members = [known.names for name, known in items if name in join.members]
            found.append(join.named.union(*members))
    return found


def _all_have(having: Sequence[frozenset[str]], column: str, catalog: Catalog) -> bool:
    """Whether all that go by a name have that column: which of them is meant is not looked at."""
    is_system_column = column in SYSTEM_COLUMNS and column not in catalog.foreign
    return is_system_column or all(column in names for names in having)


def _is_field_for_certain(field: Field, levels: Sequence[Scope], columns: Columns) -> bool:
    """`(s).region`, where s can be nothing else than a row that has it.

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
