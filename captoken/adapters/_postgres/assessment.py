"""What a statement needs: of the grant, and of the roles of the login.

For `select name, lower(ssn) from people where pay > 1`, by a login whose role `reader` may read
`id` and `name` of that table:

    accesses     select on people, columns name, pay and ssn
    refusal      none: `lower` is on the list
    role         none: `reader` may not read two of the columns
    by_columns   true: but for the columns, `reader` would do

Nothing of a grant is in it. So it is kept with the catalog, for whichever grant comes next. What
is kept is bounded, and goes with the connection (`logins`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from captoken._language.access import Access
from captoken.adapters._postgres.assumptions import Assumptions, assumptions_of
from captoken.adapters._postgres.catalog import NO_CATALOG, Catalog, Need
from captoken.adapters._postgres.columns import Columns
from captoken.adapters._postgres.lists import refused_function
from captoken.adapters._postgres.names import access_to, function_access
from captoken.adapters._postgres.needs import dotted_names, levels_of, needs_of
from captoken.adapters._postgres.reader import read
from captoken.adapters._postgres.text import Table, Text

# What a column of an enum is used for, by whoever may name its type.
_NAMING_A_TYPE = ("select", "insert", "update")

OTHER_DATABASE = "a table is named by its schema and name, or with the database that it is in"
NEVER_GRANTED = "catalogs, and names that no token can hold, are never granted"

# Columns times tables: some tenths of a second.
MAX_LOOKUPS = 1_000_000

# How many statements are remembered of a connection, and the longest: 5 MB of text, at most.
_REMEMBERED = 512
_REMEMBERED_CHARACTERS = 10_000

Call: TypeAlias = tuple[str | None, str]  # the schema and the name of a function


class Assessment(NamedTuple):
    """What a statement needs, of a grant and of a role, and what stands against it in any case."""

    # Why it is not granted, whatever a token says: a code and a sentence.
    refusal: tuple[str, str] | None

    # All that the grant is asked about, the owner's functions last.
    accesses: tuple[Access, ...] = ()

    # The same with the columns that are doubted (T4). Where it differs, it is asked about first.
    asked: tuple[Access, ...] = ()

    # The narrowest role that covers all of it.
    role: str | None = None

    # Does a role cover all of it but for the columns?
    by_columns: bool = False

    # For each type on no list, what permits to name it: for an enum, the use of a column of it.
    types: tuple[tuple[str, tuple[Access, ...]], ...] = ()

    # A qualifier that nothing in FROM goes by.
    nowhere: str | None = None

    # What all of this takes for granted of the schema; None if it takes nothing for granted.
    assumed: Assumptions | None = None


class Told(NamedTuple):
    """What a denial may be about: what the statement needs as far as its text alone says.

    No catalog has a part in it. So a denial reads the same whatever columns there are.
    """

    asked: tuple[Access, ...]

    # The places of those that some role has for some columns alone.
    restricted: frozenset[int]


class Assessor:
    """A catalog, with what statements were found to need in it.

    The texts are those of agents: how many are kept is bounded, and so is how long each of them is.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._remembered: dict[str, Assessment] = {}

    def remembers(self, sql: str) -> bool:
        """Whether it was read before."""
        return sql in self._remembered

    def assess(self, sql: str) -> Assessment:
        """What the statement needs here.

        `sql` must be an exact `str` (see `reader.read`). Raises psycopg's SyntaxError for what is
        no SQL: that is not remembered.
        """
        assessment = self._remembered.get(sql)
        if assessment is not None:
            return assessment

        assessment = _assessed(read(sql), self.catalog)
        if len(sql) <= _REMEMBERED_CHARACTERS:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[sql] = assessment
        return assessment

    def told(self, sql: str) -> Told:
        """What a denial of it may be about. It is read once more for that."""
        text = read(sql)
        if text.refusal is not None:
            return Told((), frozenset())

        references = list(dict.fromkeys(text.references))
        levels = levels_of(reference.scope for reference in references)
        _, asked = needs_of(
            text,
            references,
            levels,
            Columns(text, NO_CATALOG),
            NO_CATALOG,
        )
        accesses = _accesses(asked, NO_CATALOG) or ()
        return Told(tuple(accesses), _restricted(asked, self.catalog))


def _assessed(text: Text, catalog: Catalog) -> Assessment:
    """What a text needs by this catalog.

    Of a text that is refused nothing but the refusal is said: it was not read to its end.
    """
    if text.refusal is not None:
        return Assessment(text.refusal)

    # What is in another database cannot be reached, and nothing is told of it.
    if text.databases - {catalog.database}:
        return Assessment(("table", OTHER_DATABASE))

    # Each once, in the order of the text.
    references = list(dict.fromkeys(text.references))

    # Each reference is looked up in each table. That is bounded before it begins: an agent could
    # make the guard busy for minutes with one statement.
    names = len(references) + len(text.fields)
    items = len(text.reads) + len(text.writes) + text.sources
    if names * items > MAX_LOOKUPS:
        sentence = "a statement with more columns, times tables, than can be told apart"
        return Assessment(("operation", sentence))

    scopes = [reference.scope for reference in references]
    levels = levels_of(scopes + [field.scope for field in text.fields])
    columns = Columns(text, catalog)
    needs, asked = needs_of(
        text,
        references,
        levels,
        columns,
        catalog,
    )

    # What the grant cannot be asked about, it does not permit.
    accesses = _accesses(needs, catalog)
    to_ask = accesses if asked == needs else _accesses(asked, catalog)
    if accesses is None or to_ask is None:
        return Assessment(("table", NEVER_GRANTED))

    # What is spelled as a call, and what can be one (T7).
    dotted = dotted_names(text, references, levels, columns, catalog)
    fields = (dotted.names & catalog.fields) - catalog.foreign
    calls = text.functions | {(None, name) for name in dotted.names - fields}
    called = tuple(_calls_to_ask_about(calls, catalog))

    # To tell what is missing: a role for the tables, or one for the columns alone.
    without_columns = [Need(need.table, need.operation, frozenset()) for need in asked]
    return Assessment(
        refusal=_refused_call(text, calls, catalog),
        accesses=(*accesses, *called),
        asked=(*to_ask, *called),
        role=catalog.role_for(asked),
        by_columns=catalog.role_for(without_columns) is not None,
        types=_types(text, catalog),
        nowhere=dotted.nowhere,
        assumed=assumptions_of(
            tables=[need.table for need in asked],
            functions=fields | _taken_for_own(calls, catalog),
            catalog=catalog,
        ),
    )


def _accesses(needs: Sequence[Need], catalog: Catalog) -> list[Access] | None:
    """What the grant is asked about, or None if it cannot be asked about one of them.

    T5. All columns of a table are those that it has when the statement runs (`assumptions`). A
    token that names each of them permits `*`.
    """
    found: list[Access] = []
    for need in needs:
        columns: Iterable[str] | None = need.columns
        if columns is None:
            columns = catalog.every.get(need.table)
        access = access_to(need.table, need.operation, columns)
        if access is None:
            return None
        found.append(access)
    return found


def _types(text: Text, catalog: Catalog) -> tuple[tuple[str, tuple[Access, ...]], ...]:
    """T6. What permits to name each type that is on no list.

    A cast calls the input function of its type, which can be anybody's. That of an enum is
    PostgreSQL's own, and is granted to whoever may use a column of that type. So no cast tells of
    an enum, or of its labels, that only hidden columns have. Any other type nothing permits.
    """
    found: list[tuple[str, tuple[Access, ...]]] = []
    for schema, name in sorted(text.types, key=str):
        # What pg_catalog has is no enum. An unqualified name can mean one of `public`.
        users = catalog.types.get((schema or "public", name), [])
        uses: list[Access] = []
        for table, column in users:
            uses += _uses_of(table, column, catalog)
        found.append((name, tuple(uses)))
    return tuple(found)


def _uses_of(table: Table, column: str, catalog: Catalog) -> list[Access]:
    """What some role may do with a column, and a token can permit."""
    found: list[Access] = []
    for operation in _NAMING_A_TYPE:
        need = Need(table, operation, frozenset((column,)))
        access = access_to(table, operation, (column,))
        if access is not None and catalog.role_for([need]) is not None:
            found.append(access)
    return found


def _taken_for_own(calls: set[Call], catalog: Catalog) -> set[str]:
    """The names without a schema that were taken for PostgreSQL's own, and not for the owner's."""
    own = calls - catalog.allowed
    return {name for schema, name in own if schema is None and name not in catalog.foreign}


def _calls_to_ask_about(calls: set[Call], catalog: Catalog) -> list[Access]:
    """The owner's functions that are called, of those that are listed.

    Each is asked about once, however it is spelled: `score` and `public.score` are one function.
    """
    found: dict[str | None, Access] = {}
    for schema, name in sorted(calls & catalog.allowed, key=str):
        access = function_access(schema, name)
        found[access.table] = access
    return list(found.values())


def _restricted(needs: Sequence[Need], catalog: Catalog) -> frozenset[int]:
    """The places of those of which some role has no more than columns."""
    return frozenset(place for place, need in enumerate(needs) if catalog.is_restricted(need))


def _refused_call(
    text: Text,
    calls: set[Call],
    catalog: Catalog,
) -> tuple[str, str] | None:
    """T6, T7. The first function that is not granted.

    `calls` are those that the text spells as calls, and those that a name after a dot can mean. In
    the order of their names, so that the same statement gets the same answer each time.
    """
    for schema, name in sorted(calls, key=str):
        if not refused_function(schema, name, catalog.foreign, catalog.allowed):
            continue
        if (schema, name) in text.functions:
            return "operation", f"function {name} is not among those that are granted"
        return "operation", (
            f"{name} after a dot is no column for certain, and {name} as a function is not among "
            "those that are granted: qualify what has that column, or read it without a qualifier"
        )
    return None


def type_refused(name: str) -> str:
    """The sentence for a type that is not there, and for one that is not granted."""
    return f"type {name} is not among those that are granted"
