"""What a statement needs, of the grant and of the roles of the login, and what of it is sent.

For `select name, lower(ssn) from people where id > 1`, by a token that permits `id` and `name` of
that table:

    accesses     select on people, columns id and name
    role         the narrowest that may read these
    sent         select name, lower(ssn) from (select "id", "name" from "public"."people") as ...
    refusal      none: `lower` is on the list, and of `ssn` PostgreSQL says that it is not there

Of the token it is known which columns it permits of each table that it restricts (`View`), and
nothing else. So what is found is kept with the catalog, for whichever grant comes next with the
same view. What is kept is bounded, and goes with the connection (`logins`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from captoken._format.errors import GuardError
from captoken._language.access import Access
from captoken.adapters._postgres.assumptions import Assumptions, assumptions_of
from captoken.adapters._postgres.catalog import Catalog, Need, Policy
from captoken.adapters._postgres.columns import Columns
from captoken.adapters._postgres.edits import Sent
from captoken.adapters._postgres.held import Held, Rows
from captoken.adapters._postgres.lists import SYSTEM_COLUMNS, refused_function
from captoken.adapters._postgres.names import access_to, function_access, name_of
from captoken.adapters._postgres.needs import Levels, is_column, is_field, levels_of, reads_of
from captoken.adapters._postgres.reader import read
from captoken.adapters._postgres.rewriting import Narrowing, rewritten
from captoken.adapters._postgres.text import Dotted, Reference, RefusedError, Table, Text, Write

# What a column of an enum is used for, by whoever may name its type.
_NAMING_A_TYPE = ("select", "insert", "update")

OTHER_DATABASE = (
    "name a table by schema and name, without the database, or with the database that it is in"
)
NEVER_GRANTED = "catalogs, and names that no token can hold, are never granted"

# Columns times tables: some tenths of a second.
MAX_LOOKUPS = 1_000_000

# How many statements are remembered of a connection, and the longest: 5 MB of text, at most.
_REMEMBERED = 512
_REMEMBERED_CHARACTERS = 10_000

Call: TypeAlias = tuple[str | None, str]  # the schema and the name of a function
Use: TypeAlias = tuple[Table, str]  # a table, and what is done with it

# The columns of a table that a token permits, in order, and the rows. None means all.
Shows: TypeAlias = tuple[tuple[str, ...] | None, Held | None]

# The same for each restricted table of a statement, including those that views read for it.
View: TypeAlias = tuple[tuple[Table, Shows], ...]


class Asked:
    """What a grant was asked, about the tables of one catalog."""

    def __init__(self) -> None:
        self.shown: dict[Use, Shows] = {}

        # Whether there is an overlay that can restrict rows. None if nobody has asked yet.
        self.overlaid: bool | None = None

        # The token's restrictions on rows of tables that have a policy for them, once asked.
        self.rows: Rows | None = None


# The permissions, by the assessor whose tables they are about.
Permissions: TypeAlias = "dict[Assessor, Asked]"


class Reading(NamedTuple):
    """What a text says by itself, of no database and no token."""

    # The code and text if no token can permit the statement; otherwise None.
    refusal: tuple[str, str] | None

    # Each use of a table, once: first reads, then writes, in the order of the text.
    uses: tuple[Use, ...]


class Assessment(NamedTuple):
    """What a statement needs, of a grant and of a role, and what stands against it in any case."""

    # The code and text if the statement is refused in any case; otherwise None.
    refusal: tuple[str, str] | None

    # The accesses to ask the grant about; the owner's functions come last.
    accesses: tuple[Access, ...] = ()

    # The narrowest role that covers all accesses.
    role: str | None = None

    # For each unlisted type, the accesses that permit naming it: for an enum, a column of it.
    types: tuple[tuple[str, tuple[Access, ...]], ...] = ()

    # The text that is sent.
    sent: Sent = Sent("")

    # The visible columns of each table, under its name in tokens, to help with misspellings.
    shown: tuple[tuple[str, tuple[str, ...]], ...] = ()

    # What this assumes about the schema; None if it assumes nothing.
    assumed: Assumptions | None = None

    # Which tables it needs, and for what.
    needs: tuple[Need, ...] = ()


class Assessor:
    """A catalog, with what statements were found to need in it.

    The texts are those of agents: how many are kept is bounded, and so is how long each of them is.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._readings: dict[str, Reading] = {}
        self._assessed: dict[tuple[str, View], Assessment] = {}

        # What was read just now. Its tree is good for one assessment.
        self._text: Text | None = None

    def remembers(self, sql: str) -> bool:
        """Whether it was read before."""
        return sql in self._readings

    def reading(self, sql: str) -> Reading:
        """What the text says.

        `sql` must be an exact `str` (see `reader.read`). Raises StatementError for what is no SQL:
        that is not remembered.
        """
        found = self._readings.get(sql)
        if found is None:
            text = self._text = read(sql)
            found = _reading(text, self.catalog)
            _remember(self._readings, sql, found, len(sql))
        return found

    def assess(self, sql: str, view: View) -> Assessment:
        """What the statement needs here, where a token shows so much."""
        refusal = self.reading(sql).refusal
        if refusal is not None:
            return Assessment(refusal)
        key = sql, view
        found = self._assessed.get(key)
        if found is None:
            text, self._text = self._text, None
            if text is None or text.sql != sql:
                text = read(sql)
            found = _assessed(text, view, self.catalog)
            _remember(self._assessed, key, found, max(len(sql), len(found.sent.sql)))
        return found


def _remember(kept: dict[Any, Any], key: Any, found: Any, size: int) -> None:
    if size <= _REMEMBERED_CHARACTERS:
        if len(kept) >= _REMEMBERED:
            kept.clear()
        kept[key] = found


def _reading(text: Text, catalog: Catalog) -> Reading:
    """Return what was read in a text.

    A refused text was not read to its end, so it has nothing else.
    """
    if text.refusal is not None:
        return Reading(text.refusal, ())

    # What is in another database cannot be reached, and nothing is told of it.
    if text.databases - {catalog.database}:
        return Reading(("table", OTHER_DATABASE), ())

    uses = [(table, "select") for table in text.reads]
    uses += [(write.table, write.operation) for write in text.writes]

    # What the grant cannot be asked about, it does not permit.
    if any(name_of(table) is None for table, _ in uses):
        return Reading(("table", NEVER_GRANTED), ())
    return Reading(None, tuple(dict.fromkeys(uses)))


class _Measure(NamedTuple):
    """What a statement needs, where so much is shown of its tables."""

    needs: list[Need]
    narrowing: Narrowing
    columns: Columns

    # What is spelled as a call, and what can be one (T7).
    calls: set[Call]

    # The names after a dot that were taken for fields.
    fields: set[str]


def _assessed(text: Text, view: View, catalog: Catalog) -> Assessment:
    """What a text needs by this catalog and this view."""
    # Each once, in the order of the text.
    references = list(dict.fromkeys(text.references))
    held = {table: rows for table, (_, rows) in view if rows is not None}

    # Each reference is looked up in each table. That is bounded before it begins: an agent could
    # make the guard busy for minutes with one statement.
    names = len(references) + len(text.dotted)
    items = len(text.reads) + len(text.writes) + text.sources
    if names * items > MAX_LOOKUPS:
        sentence = "a statement with more columns, times tables, than can be told apart"
        return Assessment(("operation", sentence))

    scopes = [reference.scope for reference in references]
    levels = levels_of(scopes + [dotted.field.scope for dotted in text.dotted])

    # The role is one that covers what is meant, of all that any role has. Where it has less itself,
    # less is shown.
    seen = _seen(text, view, catalog, None)
    measure = _measured(text, references, levels, seen, catalog)
    role = catalog.role_for(measure.needs) or catalog.nearest(measure.needs)
    if role is not None:
        by_role = _seen(text, view, catalog, role)
        if by_role != seen:
            measure = _measured(text, references, levels, by_role, catalog)

    conditions = {table: rows.conditions for table, rows in held.items()}
    accesses = [
        access_to(need.table, need.operation, need.columns, conditions.get(need.table))
        for need in measure.needs
    ]
    called = _calls_to_ask_about(measure.calls, catalog)
    refusal = _refused_call(text, measure.calls, catalog)
    sent = Sent(text.sql)
    policies: list[Policy] = []
    if refusal is None and role is not None:
        try:
            for table, rows in held.items():
                policies += _policy_of(table, rows, role, catalog)
                measure.narrowing.conditions[table] = _condition(table, rows, text, catalog)
            sent = rewritten(text, measure.narrowing, measure.columns)
        except RefusedError as refused:
            code, sentence = refused.args
            refusal = code, sentence
    return Assessment(
        refusal=refusal,
        accesses=(*filter(None, accesses), *called),
        role=role,
        types=_types(text, catalog),
        sent=sent,
        shown=_told(measure),
        assumed=assumptions_of(
            tables=[need.table for need in measure.needs],
            functions=measure.fields | _taken_for_own(measure.calls, catalog),
            catalog=catalog,
            policies=policies,
        ),
        needs=tuple(measure.needs),
    )


def _policy_of(table: Table, rows: Held, role: str, catalog: Catalog) -> list[Policy]:
    """The policy that holds the rows of a table; none for a view. Raises RefusedError."""
    kind, _ = catalog.kinds.get(table, ("r", {}))
    name = name_of(table)
    if kind in ("m", "f"):
        sentence = (
            f"rows of {name} are restricted, but it is not a table: no policy can restrict its rows"
        )
        raise RefusedError("row", sentence)
    asked = _or_refused(rows.columns)
    if kind == "v":
        return []
    policy = catalog.policies.get((role, table))
    lacking = sorted(asked - policy.columns if policy is not None else asked)
    if policy is None or lacking:
        line = " ".join(f"--rows {name}.{column}" for column in lacking)
        sentence = (
            f"role {role} has no policy that restricts these rows, or somebody changed it: run "
            f"`captoken postgres plan` with {line}"
        )
        raise RefusedError("row", sentence)
    return [policy]


def _condition(table: Table, rows: Held, text: Text, catalog: Catalog) -> tuple[str, bool]:
    """In SQL what the rows satisfy, and whether nothing else may run before it: of a view.

    Raises RefusedError for what cannot be said so, and for a view that is written: no policy of its
    own holds what it is given.
    """
    kind, types = catalog.kinds.get(table, ("r", {}))
    is_view = kind == "v"
    if is_view and any(write.table == table for write in text.writes):
        name = name_of(table)
        sentence = (
            f"rows of view {name} are restricted, and nothing can restrict what is written to it"
        )
        raise RefusedError("row", sentence)
    return _or_refused(lambda: rows.condition(types)), is_view


def _or_refused(said: Callable[[], Any]) -> Any:
    """What a token says of rows, or RefusedError where the guard cannot hold it."""
    try:
        return said()
    except GuardError as error:
        raise RefusedError(error.code, str(error)) from None


class _Seen(NamedTuple):
    """What is shown of the tables of a statement."""

    shown: dict[Table, tuple[str, ...]]
    writable: dict[Use, tuple[str, ...]]

    # Those of which less is shown than they may have.
    narrowed: set[Table]


def _seen(text: Text, permitted: View, catalog: Catalog, role: str | None) -> _Seen:
    """What the token and the role show. Without a role: the token, and any of the roles."""
    view = {table: columns for table, (columns, _) in permitted if columns is not None}
    tables = dict.fromkeys([*text.reads, *(write.table for write in text.writes)])
    uses = [(table, "select") for table in tables]
    uses += [(write.table, write.operation) for write in text.writes]
    narrowed = {table for table in tables if table in view}
    visible: dict[Use, tuple[str, ...]] = {}
    for table, operation in uses:
        limit = catalog.limits(table, operation, role)
        every = view.get(table, catalog.every.get(table, ()))
        visible[table, operation] = (
            every if limit is None else tuple(name for name in every if name in limit)
        )
        if limit is not None:
            narrowed.add(table)
    shown = {table: visible[table, "select"] for table in tables if table in catalog.every}
    return _Seen(shown, visible, narrowed)


def _measured(
    text: Text,
    references: Sequence[Reference],
    levels: Levels,
    seen: _Seen,
    catalog: Catalog,
) -> _Measure:
    """What the text needs, where so much is shown."""
    shown, writable, narrowed = seen

    # T7. A name after a dot that is no column for certain is a call: of one that is granted, or
    # else it is void.
    columns = Columns(text, shown)
    calls = set(text.functions)
    fields: set[str] = set()

    def is_void(name: str) -> bool:
        if name in catalog.fields and name not in catalog.foreign:
            fields.add(name)
            return False
        if refused_function(None, name, catalog.foreign, catalog.allowed):
            return True
        calls.add((None, name))
        return False

    void = {
        reference
        for reference in references
        if not is_column(reference, levels[reference.scope], columns, catalog)
        and is_void(reference.column)
    }
    dotted: list[Dotted] = []
    for place in text.dotted:
        field = place.field
        if not is_field(field, levels[field.scope], columns) and is_void(field.name):
            if type(place.node.arg).__name__ == "ColumnRef":
                dotted.append(place)
            else:
                calls.add((None, field.name))  # which is refused

    # No token names a system column: where columns are restricted, it is refused (`rewriting`).
    void_or_no_column = void.union(r for r in references if r.column in SYSTEM_COLUMNS)
    meant = [reference for reference in references if reference not in void_or_no_column]
    needs = reads_of(text.reads, meant, levels, columns, shown)
    for write in text.writes:
        needs.append(_write_need(write, writable, narrowed))
    return _Measure(
        # Each once, in the order of the text.
        list(dict.fromkeys(needs)),
        Narrowing(
            shown,
            writable,
            frozenset(narrowed),
            {},
            frozenset(void),
            dotted,
            catalog.keys,
            catalog.constraints,
        ),
        columns,
        calls,
        fields,
    )


def _write_need(
    write: Write,
    writable: Mapping[Use, tuple[str, ...]],
    narrowed: set[Table],
) -> Need:
    """What a write needs: of a table of which less is shown, no more than the text can reach."""
    table, operation, columns, width = write
    if operation == "delete":
        return Need(table, operation, None)

    its = writable[table, operation]
    if columns is None:
        return Need(table, operation, frozenset(its[:width] if table in narrowed else its))
    if table in narrowed:
        columns = tuple(name for name in columns if name in its)
    return Need(table, operation, frozenset(columns))


def _told(measure: _Measure) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The columns that are shown of each table, by the names of tokens."""
    shown = measure.narrowing.shown
    tables = dict.fromkeys(need.table for need in measure.needs if need.table in shown)
    named = [(name_of(table), shown[table]) for table in tables]
    return tuple((name, columns) for name, columns in named if name is not None)


def _types(text: Text, catalog: Catalog) -> tuple[tuple[str, tuple[Access, ...]], ...]:
    """T6. What permits to name each type that is on no list.

    A cast calls the input function of its type, which can be anybody's. That of an enum is
    PostgreSQL's own, and is granted to whoever may use a column of that type. So no cast tells of
    an enum, or of its labels, that only hidden columns have. Any other type nothing permits.
    """
    return tuple(
        (name, tuple(_uses_of(schema, name, catalog)))
        for schema, name in sorted(text.types, key=str)
    )


def _uses_of(schema: str | None, name: str, catalog: Catalog) -> Iterator[Access]:
    """What some role may do with a column of an enum, and a token can permit.

    What pg_catalog has is no enum. An unqualified name can mean one of `public`.
    """
    for table, column in catalog.types.get((schema or "public", name), []):
        for operation in _NAMING_A_TYPE:
            need = Need(table, operation, frozenset((column,)))
            access = access_to(table, operation, (column,))
            if access is not None and catalog.role_for([need]) is not None:
                yield access


def _taken_for_own(calls: set[Call], catalog: Catalog) -> set[str]:
    """The names without a schema that were taken for PostgreSQL's own, and not for the owner's."""
    own = calls - catalog.allowed
    return {name for schema, name in own if schema is None and name not in catalog.foreign}


def _calls_to_ask_about(calls: set[Call], catalog: Catalog) -> list[Access]:
    """The owner's functions that are called, of those that are listed.

    Each is asked about once, however it is spelled: `score` and `public.score` are one function.
    """
    found = [function_access(*call) for call in sorted(calls & catalog.allowed, key=str)]
    return list({access.table: access for access in found}.values())


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
