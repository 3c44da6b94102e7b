"""Which columns the items of FROM have for certain: tables by what is shown, all else by the text.

    from sales s, (select id as i, s.* from orders) q, generate_series(1, 3) g, people as p(a)

    s    the columns of sales
    q    i, and the columns of what goes by s in it
    g    g
    p    a, and the columns of people but for the first

What is certain decides two things. An unqualified name is looked for no further out than at a level
that has it (T4). A name after a dot is no call where it is a column (T7). So nothing is certain
that PostgreSQL could take otherwise, and what is not known is not there.

Of a table, that is what is shown of it: the columns that the token permits, of those that the role
may read. The others are not in sight of a statement (`rewriting`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from captoken.adapters._postgres.text import Query, Scope, Source, Star, Table, Text

# Of each table that is known, the columns that are shown, in their order.
Shown: TypeAlias = Mapping[Table, tuple[str, ...]]

# How deep subqueries are followed that hand on the columns of others.
_DEEPEST = 40


class Known(NamedTuple):
    """Columns that are there for certain, and whether these are all."""

    names: frozenset[str]
    complete: bool


_NOTHING = Known(frozenset(), complete=False)


class Columns:
    """The columns of one statement, by what is shown of its tables."""

    def __init__(self, text: Text, shown: Shown) -> None:
        self._queries = text.queries
        self._shown = shown

        # By the place of the query. One that is being looked at has nothing: it may see itself.
        self._found: dict[int, Known] = {}

        # What each level has, when it was asked once.
        self._levels: dict[Scope, list[tuple[str, Known]]] = {}

    # --- a level ---

    def at(self, level: Scope) -> list[tuple[str, Known]]:
        """Of each item of a level, by its name. A join that has one is not among them."""
        found = self._levels.get(level)
        if found is None:
            tables = [(name, self.of_table(level, name, table)) for name, table in level.tables]
            others = [(name, self.of_source(source)) for name, source in level.sources]
            found = [*tables, *others]
            self._levels[level] = found
        return found

    def has(self, level: Scope, column: str) -> bool:
        """Whether a level has that column for certain, in sight of whoever looks from there.

        A system column is not: a view has none, and then one further out is meant.
        """
        # Within FROM itself, `from a, (select x) q`, what is beside it is not in sight.
        if not level.certain:
            return False

        # `(a cross join b) as j(x, y)`: which of the columns got other names is not known.
        if level.renaming:
            return False
        return any(column in known.names for _, known in self.at(level))

    # --- an item of FROM ---

    def of_table(self, level: Scope, goes_by: str, table: Table) -> Known:
        """Of a table, with the new names that FROM gives its first columns."""
        every = self._shown.get(table)
        if every is None:
            return _NOTHING

        # In `people as p(a, b)`, the first two columns have other names.
        renamed = level.renamed.get(goes_by, ())
        return Known(frozenset(renamed + every[len(renamed) :]), complete=True)

    def of_source(self, source: Source, deep: int = 0) -> Known:
        """Of a subquery, a CTE or a function."""
        # generate_series(1, 3) as g
        if source.query is None:
            return Known(source.named, source.complete)

        # (select id from sales) as q, (select id from sales) as q(a)
        known = self._of_query(source.query, deep)
        if not source.named:
            return known
        return Known(source.named | known.names, known.complete)

    # --- a query that is one ---

    def _of_query(self, place: int, deep: int) -> Known:
        """Return the columns of a query, by its place in the text. Each query is read once."""
        known = self._found.get(place)
        if known is not None:
            return known

        # `with recursive r as (select 1 union select * from r)` sees itself.
        self._found[place] = _NOTHING
        query = self._queries.get(place)
        if query is None or deep >= _DEEPEST:
            return _NOTHING

        known = self._outputs(query, deep + 1)
        self._found[place] = known
        return known

    def _outputs(self, query: Query, deep: int) -> Known:
        """Of the columns of its result, those whose names are certain."""
        names: set[str] = set()
        complete = True
        for output in query.outputs:
            # p.*
            if isinstance(output, Star):
                known = self._handed_on(query.scope, output.qualifier, deep)
                names |= known.names
                complete = complete and known.complete

            # 1 + 1
            elif output is None:
                complete = False

            # id, name as who
            else:
                names.add(output)
        return Known(frozenset(names), complete)

    def _handed_on(self, scope: Scope, qualifier: str | None, deep: int) -> Known:
        """What `*` or `q.*` stands for at a level. Without a qualifier, all items do."""
        if scope.renaming:
            return _NOTHING

        meant = [
            self.of_table(scope, name, table)
            for name, table in scope.tables
            if qualifier in (None, name)
        ]
        meant += [
            self.of_source(source, deep)
            for name, source in scope.sources
            if qualifier in (None, name)
        ]
        return _together(meant)


def _together(items: Sequence[Known]) -> Known:
    """The columns of several items. Of none, nothing is known."""
    if not items:
        return _NOTHING
    if len(items) == 1:
        return items[0]

    names = frozenset().union(*(known.names for known in items))
    complete = all(known.complete for known in items)
    return Known(names, complete)
