"""What the catalogs of a connection say: its tables and views, their columns, and its functions.

Rule 4 of `captoken.adapters.sqlite`: a cursor is known by the root page that it opens, and a name
by what the schema has under it. A row of sqlite_master has both:

    type   name             tbl_name  rootpage  sql
    table  sales            sales     2         CREATE TABLE sales …
    index  sales_by_region  sales     5         CREATE INDEX …      counts as its table
    view   sales_view                 0         CREATE VIEW …       is what its query touches
    table  docs             docs      0         CREATE VIRTUAL …    has no page: never granted

The catalog itself has page 1, which no row tells of. So a cursor on it is on nothing that is known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from captoken.adapters._sqlite.lexer import fold
from captoken.adapters._sqlite.naming import Key
from captoken.adapters._sqlite.opcodes import BY_KEY, BY_ROWID, WHOLE_ROW, decoded
from captoken.adapters._sqlite.scopes import Mention
from captoken.adapters._sqlite.text import hides_joins
from captoken.adapters._sqlite.watch import Event, Watch, explained

_INNOCUOUS = 0x200000  # SQLITE_INNOCUOUS: reads no more than its arguments, and changes nothing

# What is in a schema table. Expressions, so that no converter of the owner's sees the type of a
# column.
_OBJECTS = """
    SELECT +rootpage, +type, +name, +tbl_name, ifnull(sql, '')
    FROM {schema}.sqlite_master
"""

# Rule 7: the functions that are not granted.
_FOREIGN_FUNCTIONS = """
    SELECT name
    FROM pragma_function_list
    WHERE NOT builtin OR NOT flags & ?
"""

# The two virtual tables that are granted (rule 4).
_HARMLESS = "SELECT 1 FROM json_each('[]'), json_tree('[]')"

# The columns of a table. One that is hidden with _VIRTUAL is computed when it is read.
_COLUMNS = """
    SELECT name, upper(type), pk, hidden
    FROM pragma_table_xinfo(?, ?)
"""
_VIRTUAL = 2

# Is the table one WITHOUT ROWID?
_WITHOUT_ROWID = """
    SELECT 1
    FROM pragma_table_list(?)
    WHERE schema = ? AND wr
"""

# The index of its primary key, which such a table is.
_PRIMARY_KEY = """
    SELECT name
    FROM pragma_index_list(?, ?)
    WHERE origin = 'pk'
"""

# The tables that the foreign keys of a table lead to.
_PARENTS = """
    SELECT "table"
    FROM pragma_foreign_key_list(?, ?)
"""

# What an index is over. The number of the column is _ROWID for the rowid, and there is no name for
# an expression.
_INDEXED = """
    SELECT cid, name
    FROM pragma_index_xinfo(?, ?)
"""
_ROWID = -1


class Object(NamedTuple):
    """A table, virtual table, view or index. An index is known by its table."""

    kind: str  # "table", "virtual", "view" or "index"
    schema: str
    name: str
    table: str
    sql: str

    @property
    def key(self) -> Key:
        """What the guard counts: an index is as much as its table."""
        return self.schema, self.table


class Schema:
    """What the names and the root pages of a connection stand for (rule 4).

    `databases`: number and name, of main, temp and what is attached. `rows`: of all schema tables,
    the number of the database, root page, type, name, table and SQL.
    """

    def __init__(
        self, databases: tuple[tuple[int, str], ...], rows: tuple[tuple[Any, ...], ...]
    ) -> None:
        names = dict(databases)
        # Where SQLite looks for a name without a schema: temp, which is number 1, then main, then
        # what is attached.
        self.order = [
            names[number] for number in sorted(names, key=lambda number: (number != 1, number))
        ]

        # The objects that cursors open, by database number and root page.
        self.roots: dict[tuple[int, int], Object] = {}

        # The objects that names mean, by schema and name in lower case.
        self.objects: dict[tuple[str, str], Object] = {}

        # The names of all tables, folded.
        self.tables: set[str] = set()

        # By name, folded: the SQL of views and triggers. Of all schemas together, since a trigger
        # or a view is told by its bare name.
        self.bodies: defaultdict[str, str] = defaultdict(str)
        for number, root, *fields in rows:
            kind, name, table, sql = map(decoded, fields)
            if kind == "table" and not root:
                kind = "virtual"  # a table without a page of its own
            self._add(number, root, Object(kind, names[number], name, table, sql))

        # Rule 8: may any view or trigger hide the columns of a join? Mostly none does, and then no
        # statement has to look.
        self.hides_joins = any(map(hides_joins, self.bodies.values()))

    def _add(self, number: int, root: int, entry: Object) -> None:
        """Keep an entry for what asks about it: its page, its name, or its SQL."""
        name = fold(entry.name)
        if root:
            self.roots[number, root] = entry
        if entry.kind in ("table", "virtual", "view"):
            self.objects[fold(entry.schema), name] = entry
        if entry.kind == "table":
            self.tables.add(name)
        if entry.kind in ("view", "trigger"):
            self.bodies[name] += entry.sql + " "

    def find(self, mention: Mention) -> Object | None:
        """What SQLite would find under the name, or None if nothing is there."""
        name = fold(mention.name)
        schemas = self.order if mention.schema is None else [mention.schema]
        found = (self.objects.get((fold(schema), name)) for schema in schemas)
        return next(filter(None, found), None)

    def of(self, event: Event) -> Object | None:
        """What an event is about that names a table, with its schema."""
        _, name, _, schema, _ = event
        return self.objects.get((fold(schema or ""), fold(name or "")))


# A pure function of what the schema tables hold: blocks that see the same schema share one. The
# memory is the module's, since nothing of SQLite's outlives a block and could own it: a connection
# takes no attribute and no weak reference. It is bounded by its 16 entries, each of them a schema
# of the operator's. What agents send never gets into it.
_read_schema = lru_cache(maxsize=16)(Schema)


class Layout(NamedTuple):
    """Rule 8: the columns at each place of a cursor, and the one that is the rowid.

    A place has one column, except where it is an expression over any of them.
    """

    places: tuple[frozenset[str], ...]
    rowid: frozenset[str]
    keyed: bool  # sought by its columns, not by the rowid
    computes: bool  # has columns that are computed when read, from the rowid perhaps

    def read(self, op: bytes, p2: int, p4: bytes | None) -> frozenset[str]:
        """The columns that an opcode reads. Where it cannot be told which, all of them."""
        if op in BY_ROWID or (op in BY_KEY and not self.keyed):
            # The key of a table is its rowid.
            return self.rowid
        if op == b"Column" and p2 < len(self.places):  # p2: the place
            return self.places[p2]
        if op in BY_KEY:
            # p4 is how many columns are compared; without it, take all.
            compared = int(p4 or 0) or None
            return frozenset[str]().union(*self.places[:compared])
        if op in WHOLE_ROW:
            return frozenset[str]().union(*self.places)
        return frozenset()


class Catalog:
    """What a connection has. Lives as long as the transaction that holds the schema still.

    Each look is taken when it is needed first, by queries that only the guard makes (rule 2).
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._layouts: dict[Object, Layout] = {}
        self._columns: dict[Object, dict[str, str]] = {}

    def resume(self, watch: Watch) -> None:
        """Go on in another transaction, on the same ground (`remembered`)."""
        self._watch = watch
        # An address in memory: by now it may be that of another virtual table.
        self.__dict__.pop("harmless_modules", None)

    def release(self) -> None:
        """Let go of the connection. Nothing is asked until it is resumed."""
        del self._watch

    @cached_property
    def schema(self) -> Schema:
        """What names and root pages stand for, in all databases.

        To read each schema table makes SQLite notice what others changed, and holds it until the
        transaction ends.
        """
        databases = tuple((number, name) for number, name, _ in databases_of(self._watch))
        return _read_schema(databases, rows_of(self._watch, databases))

    @cached_property
    def foreign_functions(self) -> frozenset[str]:
        """Rule 7: the functions that are not SQLite's own, not innocuous, or were replaced.

        By name, whatever their arguments: if one of a name is the owner's, none of it is granted.
        """
        rows = self._watch.own(_FOREIGN_FUNCTIONS, _INNOCUOUS)
        return frozenset(fold(decoded(name)) for (name,) in rows)

    @cached_property
    def harmless_modules(self) -> set[bytes | None]:
        """Rule 4: how EXPLAIN spells json_each and json_tree on this connection.

        It tells a virtual table by an address in memory, not by a name.
        """
        program = self._watch.own(explained(_HARMLESS))
        return {p4 for _, op, _, _, _, p4, *_ in program if op == b"VOpen"}

    def columns(self, entry: Object) -> tuple[str, ...]:
        """The names of the columns of a table or a view, as the schema spells them."""
        return tuple(self.types(entry))

    def types(self, entry: Object) -> dict[str, str]:
        """The type of each of its columns, in upper case, by name."""
        if entry not in self._columns:
            info = self._watch.own(_COLUMNS, entry.name, entry.schema)
            self._columns[entry] = {
                decoded(name): decoded(kind).removesuffix(" GENERATED ALWAYS")
                for name, kind, *_ in info
            }
        return self._columns[entry]

    def parents(self, key: Key) -> set[Key]:
        """The tables, in the same schema, that the foreign keys of a table lead to."""
        schema, table = key
        names = [fold(decoded(name)) for (name,) in self._watch.own(_PARENTS, table, schema)]
        found = (self.schema.objects.get((fold(schema), name)) for name in names)
        return {entry.key for entry in found if entry is not None}

    def layout(self, entry: Object) -> Layout:
        """The columns of a table or an index, in the order of its cursors."""
        if entry not in self._layouts:
            self._layouts[entry] = self._read_layout(entry)
        return self._layouts[entry]

    def _read_layout(self, entry: Object) -> Layout:
        """Ask SQLite. The rows of a table have its columns; those of an index, what it is over."""
        info = self._watch.own(_COLUMNS, entry.table, entry.schema)

        # INTEGER PRIMARY KEY is another name of the rowid.
        rowid = frozenset(decoded(name) for name, kind, pk, _ in info if pk and kind == b"INTEGER")
        computes = any(hidden == _VIRTUAL for *_, hidden in info)
        index = self._index_of(entry)
        if index is not None:
            columns = frozenset(decoded(name) for name, *_ in info)
            places = self._places_of_index(index, entry.schema, rowid, columns)
        else:
            places = [
                frozenset((decoded(name),)) for name, _, _, hidden in info if hidden != _VIRTUAL
            ]
        return Layout(tuple(places), rowid, keyed=index is not None, computes=computes)

    def _index_of(self, entry: Object) -> str | None:
        """The index that the cursor is on, or None for the rows of a table. `""` is a name too.

        A table WITHOUT ROWID is the index of its primary key.
        """
        if entry.kind == "index":
            return entry.name
        if not self._watch.own(_WITHOUT_ROWID, entry.table, entry.schema):
            return None
        keys = self._watch.own(_PRIMARY_KEY, entry.table, entry.schema)
        return decoded(keys[0][0])

    def _places_of_index(
        self, index: str, schema: str, rowid: frozenset[str], columns: frozenset[str]
    ) -> list[frozenset[str]]:
        """What each place of an index holds. `columns` are all those of its table."""
        places: list[frozenset[str]] = []
        for at, name in self._watch.own(_INDEXED, index, schema):
            if at == _ROWID:
                places.append(rowid)
            elif name is None:
                places.append(columns)  # an expression, over any of the columns
            else:
                places.append(frozenset((decoded(name),)))
        return places


def databases_of(watch: Watch) -> tuple[tuple[int, str, str], ...]:
    """Number, name and file of main, temp and what is attached."""
    rows = watch.own("PRAGMA database_list")
    return tuple((number, decoded(name), decoded(file)) for number, name, file in rows)


def rows_of(watch: Watch, databases: Iterable[tuple[int, str]]) -> tuple[tuple[Any, ...], ...]:
    """All rows of their schema tables, each behind the number of its database."""
    rows: list[tuple[Any, ...]] = []
    for number, name in databases:
        query = _OBJECTS.format(schema=quoted(name))
        rows += [(number, *row) for row in watch.own(query)]
    return tuple(rows)


def quoted(name: str) -> str:
    """An identifier as it is written in SQL."""
    return '"' + name.replace('"', '""') + '"'
