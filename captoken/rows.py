"""A token's restrictions on the rows of a table, as a SQL condition (spec 24.27).

    conditions = grant.rows("orders")    # ({"tenant": {"in": ["acme"]}},)
    condition, given = sql(conditions, dialect="sqlite", columns={"tenant": "text"})
    connection.execute(f"select id from orders where {condition}", given)

A row satisfies the condition exactly if no link prohibits it. Values are compared by type, and
never by the engine's conversions: on SQLite `typeof` gives the type of a value, and on PostgreSQL
the column has it. Text is compared byte by byte, whatever the collation of the column is. Text is
never cast to a number. NULL satisfies nothing.

The condition is true or false, and never NULL. So you may put it below NOT.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Literal, NamedTuple, TypeAlias

from captoken._format.errors import GuardError
from captoken._format.names import frozen_copy
from captoken._format.spelling import named, shown
from captoken._language.constraints import Anything, In, Prefixes, Range, read_constraint

__all__ = ["sql"]

Dialect: TypeAlias = Literal["sqlite", "postgresql"]

# The kinds of constraints that SQL can hold.
_Held: TypeAlias = In | Range | Prefixes

# How a value gets into the condition: as a placeholder, or spelled out.
_Put: TypeAlias = Callable[[Any], str]

# A statement of SQLite takes a thousand terms one after the other.
_MOST_PREFIXES = 250

# The start of a url, and the characters of an address. Neither satisfies a prefix (spec 13.8).
_URLS = ("https://", "http://", "wss://", "ws://")
_is_of_address = re.compile(r"[0-9a-f.:]*").fullmatch


def sql(
    conditions: Sequence[Mapping[str, Any]],
    *,
    dialect: Dialect,
    columns: Mapping[str, str],
    alias: str = "",
    literals: bool = False,
) -> tuple[str, tuple[Any, ...]]:
    """The condition for the permitted rows of a table, and its parameters.

    - `conditions` are those of `grant.rows(table)`; all of them must hold.
    - `columns` has the type of each column that they name, as the database calls it. On SQLite, 1
      and 0 in a `boolean` column are true and false.
    - `alias` is put in front of each column.
    - Placeholders are `?` on SQLite and `%s` on PostgreSQL, for `sqlite3` and `psycopg`. With
      `literals` the values are in the condition itself.

    Raises GuardError with the code `row` if SQL cannot express a condition. It can express the
    constraints `any`, `in`, `min` and `max`, and `prefix` unless the prefix starts a url or an
    address. Each column must be in `columns`, with a type that can be compared exactly.
    """
    engine = _engine(dialect)
    before = f"{engine.quoted(alias)}." if alias else ""
    given: list[Any] = []

    def name(column: str) -> str:
        spelled = before + engine.quoted(column)
        return spelled if literals else spelled.replace("%", engine.percent)

    def place(value: Any) -> str:
        given.append(value)
        return engine.placeholder

    # Read once (spec 7.10).
    stated = [frozen_copy(one, "a condition") for one in conditions]
    types = frozen_copy(columns, "columns")
    said = condition(stated, dialect, types, name, engine.literal if literals else place)
    return said, tuple(given)


def condition(
    conditions: Sequence[Mapping[str, Any]],
    dialect: Dialect,
    columns: Mapping[str, str],
    name: Callable[[str], str],
    put: _Put | None = None,
) -> str:
    """The same for guards: `name` spells a column, and `put` a value, by default as a literal."""
    engine = _engine(dialect)
    held: list[str] = []
    for column, constraint in asked(conditions):
        if column not in columns:
            raise _not_held(column, "the table has no such column")
        # Remove lengths and precisions, as in numeric(9, 2) and timestamp(3) with time zone.
        kind = re.sub(r"\s*\([^()]*\)", "", columns[column].lower()).strip()
        term = engine.term(name(column), kind, constraint, put or engine.literal)
        if term is None:
            raise _not_held(column, f"a column of type {kind} is not compared exactly with it")
        held.append(f"({term})")
    return " and ".join(held) or engine.true


def _engine(dialect: Dialect) -> _SQLite | _PostgreSQL:
    if dialect not in _ENGINES:
        raise ValueError(f'dialect must be "sqlite" or "postgresql", not {shown(dialect)}')
    return _ENGINES[dialect]


def asked(conditions: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, _Held]]:
    """Each restricted column with its constraint.

    Raises GuardError for constraints SQL cannot express.
    """
    for stated in conditions:
        for column, spelled in stated.items():
            constraint = read_constraint(spelled)
            if isinstance(constraint, Anything):
                continue
            if not isinstance(constraint, (In, Range, Prefixes)):
                raise _not_held(column, "no condition in SQL says the same as this constraint")
            if isinstance(constraint, Prefixes):
                _check_prefixes(column, constraint)
            yield column, constraint


def _check_prefixes(column: str, constraint: Prefixes) -> None:
    """No url and no address begins with one of them: SQL cannot tell these from other text."""
    for start in constraint.starts:
        if _is_of_address(start) or any(url.startswith(start) for url in _URLS):
            raise _not_held(column, "an address or a url could begin with one of its prefixes")
    if len(constraint.starts) > _MOST_PREFIXES:
        raise _not_held(column, f"it has more than {_MOST_PREFIXES} prefixes")


def _not_held(column: str, why: str) -> GuardError:
    """What a token says of a column, and SQL does not."""
    return GuardError(f"this guard cannot hold rows by {named(column)}: {why}", "row")


def _listed(constraint: In) -> dict[type, list[Any]]:
    """The values of a list by type, in one order."""
    found: dict[type, list[Any]] = {str: [], int: [], bool: []}
    for value in constraint.json()["in"]:
        found[type(value)].append(value)
    return found


class _SQLite:
    """By `typeof`: a value has a type of its own there, whatever its column says.

    A name in backticks is never taken for a string. 9e999 is infinity, which satisfies no range.
    """

    true = "1"
    placeholder = "?"
    percent = "%"

    def quoted(self, name: str) -> str:
        return "`" + name.replace("`", "``") + "`"

    def literal(self, value: str | int) -> str:
        return _text(value) if isinstance(value, str) else str(int(value))

    def term(self, name: str, kind: str, constraint: _Held, put: _Put) -> str | None:
        is_boolean = kind in ("boolean", "bool")
        if isinstance(constraint, In):
            listed = _listed(constraint)
            numbers = [*map(int, listed[bool])] if is_boolean else listed[int]
            texts = self._among(name, "text", " collate binary", listed[str], put)
            whole = self._among(name, "integer", "", numbers, put)
            return " or ".join(filter(None, (texts, whole))) or "0"
        if isinstance(constraint, Prefixes):
            escaped = [re.sub(r"[*?\[]", r"[\g<0>]", start) for start in constraint.starts]
            begins = " or ".join(f"{name} glob {put(start + '*')}" for start in escaped)
            return f"typeof({name}) = 'text' and ({begins})"
        if is_boolean:
            return "0"
        low = "> -9e999" if constraint.low is None else f">= {put(constraint.low)}"
        high = "< 9e999" if constraint.high is None else f"<= {put(constraint.high)}"
        return f"typeof({name}) in ('integer', 'real') and {name} {low} and {name} {high}"

    def _among(self, name: str, kind: str, how: str, values: Sequence[Any], put: _Put) -> str:
        """A value of this type that is one of these. `""` for none."""
        listed = ", ".join(map(put, values))
        return f"typeof({name}) = '{kind}' and {name}{how} in ({listed})" if values else ""


class _PostgreSQL:
    """By the type of the column. Operators and types are named with their schema.

    Text is equal in the column's own collation, which an index serves, and in that of bytes: the
    first alone would take two texts for one where the collation is not deterministic.
    """

    may_be_loose = True
    true = "true"
    placeholder = "%s"
    percent = "%%"

    def quoted(self, name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    def literal(self, value: Any) -> str:
        if isinstance(value, list):
            return f"array[{', '.join(map(self.literal, value))}]"
        if isinstance(value, str):
            # This is right for both settings of standard_conforming_strings.
            return "e" * ("\\" in value) + _text(value.replace("\\", "\\\\"))
        return str(value).lower() if isinstance(value, bool) else f"'{value}'"

    def term(self, name: str, kind: str, constraint: _Held, put: _Put) -> str | None:
        found = _TYPES.get(kind)
        if found is None:
            return None
        said: str | None
        if isinstance(constraint, In):
            said = self._among(name, found, constraint, put)
        elif isinstance(constraint, Prefixes):
            said = self._begins(name, found, constraint, put)
        else:
            said = self._within(name, *found, constraint, put)
        return said and f"{name} is not null and {said}"

    def _among(self, name: str, kind: _Type, constraint: In, put: _Put) -> str | None:
        if kind.to == "numeric" and constraint.json()["in"]:
            return None  # 5 and 5.00 are one value there, and as JSON two
        spelled = FORMS.get(kind.to)
        values = [
            value
            for value in _listed(constraint).get(kind.read, ())
            if spelled is None or spelled(value)
        ]
        if not values:
            return "false"
        is_loose = kind.to == "text" and self.may_be_loose
        bytewise = (name, f"{name} {_BYTES}") if is_loose else (name,)
        return " and ".join(
            f"{one} {_OPERATOR.format('=')} any ({put(values)}::{_PG}{kind.to}[])"
            for one in bytewise
        )

    def _begins(self, name: str, kind: _Type, constraint: Prefixes, put: _Put) -> str | None:
        if kind.to in FORMS:
            return None  # an index knows nothing of how they are spelled
        if kind.read is not str:
            return "false"
        begins = [
            f"{name} {_BYTES} {_OPERATOR.format('^@')} {put(start)}::{_PG}text"
            for start in constraint.starts
        ]
        return f"({' or '.join(begins)})"

    def _within(self, name: str, read: type, to: str, constraint: Range, put: _Put) -> str:
        if read not in (int, float):
            return "false"
        bounds: list[tuple[str, Any]] = [(">=", constraint.low), ("<=", constraint.high)]
        if read is float:  # neither infinity nor NaN, which is above it
            bounds += [(">", "-Infinity"), ("<", "Infinity")]
        return " and ".join(
            f"{name} {_OPERATOR.format(how)} {put(bound)}::{_PG}{to}"
            for how, bound in bounds
            if bound is not None
        )


class _Deterministic(_PostgreSQL):
    """The same for a guard that knows of each column that its collation takes no two texts for one.

    So the index has all of the condition, and no row is looked at for it.
    """

    may_be_loose = False


_PG = "pg_catalog."
_OPERATOR = "operator(pg_catalog.{})"
_BYTES = 'collate pg_catalog."C"'


def _is_uuid(text: str) -> bool:
    return _hex_with_hyphens(text) is not None


def _is_date(text: str) -> bool:
    return _is_written(date.fromisoformat, text)


def _is_timestamp(text: str) -> bool:
    # With an offset it is longer.
    return len(text) in (19, 26) and _is_written(datetime.fromisoformat, text)


def _is_moment(text: str) -> bool:
    return text.endswith(_UTC) and _is_timestamp(text.removesuffix(_UTC))


def _is_written(read: Callable[[str], date], text: str) -> bool:
    """Whether `isoformat` writes it so: more is read than that."""
    try:
        return read(text).isoformat() == text
    except ValueError:
        return False


_UTC = "+00:00"
_hex_with_hyphens = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch

# Types that JSON spells as text, each in one form: how Python writes it, and a moment in UTC. A
# text in another form is no value of a column, and no row has it. Nothing is cast that can fail.
FORMS: Mapping[str, Callable[[str], bool]] = {
    "uuid": _is_uuid,
    "date": _is_date,
    "timestamp": _is_timestamp,
    "timestamptz": _is_moment,
}


class _Type(NamedTuple):
    """What the values of a column are as JSON, and what they are compared as."""

    read: type
    to: str


# The comparisons for each column type.
_TYPES: Mapping[str, _Type] = {
    of: _Type(read, to)
    for read, to, names in (
        (str, "text", ("text", "character varying", "varchar")),
        (str, "uuid", ("uuid",)),
        (str, "date", ("date",)),
        (str, "timestamp", ("timestamp without time zone", "timestamp")),
        (str, "timestamptz", ("timestamp with time zone", "timestamptz")),
        (int, "int8", ("smallint", "integer", "bigint", "int", "int2", "int4", "int8")),
        (float, "float8", ("real", "double precision", "float", "float4", "float8")),
        (float, "numeric", ("numeric", "decimal")),
        (bool, "bool", ("boolean", "bool")),
    )
    for of in names
}
_ENGINES: Mapping[str, _SQLite | _PostgreSQL] = {
    "sqlite": _SQLite(),
    "postgresql": _PostgreSQL(),
    "deterministic": _Deterministic(),
}


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
