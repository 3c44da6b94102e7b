"""What a statement needs: of the grant, and of the roles of the login.

For `select name, lower(ssn) from people where pay > 1`, by a login whose role `reader` may read
`id` and `name` of that table:

    accesses     select on people, columns name, pay and ssn
    refusal      none: `lower` is on the list
    role         none: `reader` may not read two of the columns
    by_columns   true: but for the columns, `reader` would do
    restricted   the first access: its table is one that a role has by columns

Nothing of a grant is in it. So it is kept with the catalog, for whichever grant comes next. What
is kept is bounded, and goes with the connection (`logins`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from captoken._language.access import Access
from captoken.adapters._postgres.assumptions import Assumptions, assumptions_of
from captoken.adapters._postgres.catalog import Catalog, Need
from captoken.adapters._postgres.lists import refused_function
from captoken.adapters._postgres.names import access_to, function_access
from captoken.adapters._postgres.needs import dotted_names, levels_of, needs_of
from captoken.adapters._postgres.reader import read
from captoken.adapters._postgres.text import Text

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

    # The narrowest role that covers all of it.
    role: str | None = None

    # Columns of no table in sight that the statement does not make itself either.
    unknown: tuple[str, ...] = ()

    # Columns of no table in sight that it may make itself.
    doubtful: frozenset[str] = frozenset()

    # Which of the accesses some role has for some columns alone, by their places.
    restricted: frozenset[int] = frozenset()

    # Whether a role covers all of it but for the columns.
    by_columns: bool = False

    # What all of this takes for granted of the schema. None: nothing.
    assumed: Assumptions | None = None


class Assessor:
    """A catalog, with what statements were found to need in it.

    The texts are those of agents: how many are kept is bounded, and so is how long each of them is.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._remembered: dict[str, Assessment] = {}

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


def _assessed(text: Text, catalog: Catalog) -> Assessment:
    """What a text needs by this catalog.

    Of a text that is refused nothing but the refusal is said: it was not read to its end.
    """
    if text.refusal is not None:
        return Assessment(text.refusal)

    # Each once, in the order of the text.
    references = list(dict.fromkeys(text.references))

    # Each reference is looked up in each table. That is bounded before it begins: an agent could
    # make the guard busy for minutes with one statement.
    tables = len(text.reads) + len(text.writes)
    if len(references) * tables > MAX_LOOKUPS:
        sentence = "a statement with more columns, times tables, than can be told apart"
        return Assessment(("operation", sentence))

    levels = levels_of(references)
    needs, unknown, doubtful = needs_of(
        text,
        references,
        levels,
        catalog,
    )

    accesses: list[Access] = []
    for need in needs:
        access = access_to(
            need.table,
            need.operation,
            need.columns,
        )
        # What the grant cannot be asked about, it does not permit.
        if access is None:
            return Assessment(("table", NEVER_GRANTED))
        accesses.append(access)

    # What is spelled as a call, and what can be one (T7).
    dotted = dotted_names(text, references, levels, catalog)
    calls = text.functions | dotted.calls

    # To tell what is missing: a role for the tables, or one for the columns alone.
    without_columns = [Need(need.table, need.operation, frozenset()) for need in needs]
    return Assessment(
        refusal=_refused_call(text, calls, catalog) or _refused_type(text, catalog),
        accesses=(*accesses, *_calls_to_ask_about(calls, catalog)),
        role=catalog.role_for(needs),
        unknown=unknown,
        doubtful=doubtful,
        restricted=_restricted(needs, catalog),
        by_columns=catalog.role_for(without_columns) is not None,
        assumed=assumptions_of(
            tables=[need.table for need in needs],
            functions=dotted.others | _taken_for_own(calls, catalog),
            catalog=catalog,
        ),
    )


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
        spelled_as_call = (schema, name) in text.functions
        dotted = "" if spelled_as_call else ", as which a name after a dot can be read,"
        return "operation", f"function {name}{dotted} is not among those that are granted"
    return None


def _refused_type(text: Text, catalog: Catalog) -> tuple[str, str] | None:
    """T6. The first type that is neither on the list nor an enum.

    A cast calls the input function of its type, which can be anybody's. That of an enum is
    PostgreSQL's own.
    """
    for schema, name in sorted(text.types, key=str):
        # What pg_catalog has is granted by the list alone.
        of_catalog = schema == "pg_catalog"

        # An unqualified name can mean one of `public`.
        spelled_out = ("public" if schema is None else schema, name)
        if of_catalog or spelled_out not in catalog.types:
            return "operation", f"type {name} is not among those that are granted"
    return None
