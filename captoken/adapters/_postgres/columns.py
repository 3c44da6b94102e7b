"""Which columns the items of FROM have for certain: tables by the catalog, all else by the text.

    from sales s, (select id as i, s.* from orders) q, generate_series(1, 3) g, people as p(a)

    s    the columns of sales
    q    i, and the columns of what goes by s in it
    g    g
    p    a, and the columns of people but for the first

What is certain decides two things. An unqualified name is looked for no further out than at a level
that has it (T4). A name after a dot is no call where it is a column (T7). So nothing is certain
that PostgreSQL could take otherwise, and what is not known is not there.
"""

from __future__ import annotations

from typing import NamedTuple

from captoken.adapters._postgres.catalog import Catalog
from captoken.adapters._postgres.text import Query, Scope, Source, Star, Table, Text

# How deep subqueries are followed that hand on the columns of others.
_DEEPEST = 40


class Known(NamedTuple):
    """Columns that are there for certain, and whether these are all."""

    names: frozenset[str]
    complete: bool


_NOTHING = Known(frozenset(), complete=False)


class Columns:
    """The columns of one statement, by one catalog."""

    def __init__(self, text: Text, catalog: Catalog) -> None:
        self._queries = text.queries
        self._catalog = catalog

        # By the place of the query. One that is being looked at has nothing: it may see itself.
        self._found: dict[int, Known] = {}

        # What each level has, when it was asked once.
        self._levels: dict[Scope, list[tuple[str, Known]]] = {}

    def of_table(self, level: Scope, goes_by: str, table: Table) -> Known:
        """Of a table, with the new names that FROM gives its first columns."""
        every = self._catalog.every.get(table)
        if every is None:
            return _NOTHING

        usable = self._catalog.columns[table]
        renamed = level.renamed.get(goes_by)
        if renamed is None:
            return Known(usable, complete=True)
        kept = usable.intersection(every[len(renamed) :])
        return Known(kept.union(renamed), complete=True)

    def of_source(self, source: Source, deep: int = 0) -> Known:
        """Of a subquery, a CTE or a function."""
        if source.query is None:
            return Known(source.named, source.complete)
        known = self._of_query(source.query, deep)
        if not source.named:
            return known
        return Known(source.named | known.names, known.complete)

    def at(self, level: Scope) -> list[tuple[str, Known]]:
        """Of each item of a level, by its name. A join that has one is not among them."""
        found = self._levels.get(level)
        if found is None:
            found = [(name, self.of_table(level, name, table)) for name, table in level.tables]
            found += [(name, self.of_source(source)) for name, source in level.sources]
            self._levels[level] = found
        return found

    def has(self, level: Scope, column: str) -> bool:
        """Whether a level has that column for certain, in sight of whoever looks from there.

        A system column is not: a view has none, and then one further out is meant.
        """
        if not level.certain or level.renaming:
            return False
        return any(column in known.names for _, known in self.at(level))

    def _of_query(self, place: int, deep: int) -> Known:
        found = self._found.get(place)
        if found is None:
            self._found[place] = _NOTHING
            query = self._queries.get(place)
            if query is not None and deep < _DEEPEST:
                self._found[place] = self._outputs(query, deep + 1)
            found = self._found[place]
        return found

    def _outputs(self, query: Query, deep: int) -> Known:
        names: set[str] = set()
        complete = True
        for output in query.outputs:
            if isinstance(output, Star):
                known = self._handed_on(query.scope, output.qualifier, deep)
                names |= known.names
                complete = complete and known.complete
            elif output is None:
                complete = False
            else:
                names.add(output)
        return Known(frozenset(names), complete)

    def _handed_on(self, scope: Scope, qualifier: str | None, deep: int) -> Known:
        """What `*` or `q.*` stands for at a level."""
        if scope.renaming:
            return _NOTHING

        items = [
            self.of_table(scope, name, table)
            for name, table in scope.tables
            if qualifier in (None, name)
        ]
        items += [
            self.of_source(source, deep)
            for name, source in scope.sources
            if qualifier in (None, name)
        ]
        if not items:
            return _NOTHING
        if len(items) == 1:
            return items[0]
        names = frozenset().union(*(known.names for known in items))
        return Known(names, all(known.complete for known in items))
