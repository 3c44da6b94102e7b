"""`captoken.rows.sql`: on real engines a row satisfies the condition exactly if the token does not prohibit it (spec 24.27)."""

from __future__ import annotations

import math
import random
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from captoken._language.access import Access
from captoken._language.data import Rows
from captoken._language.kinds import Situation
from captoken.errors import GuardError
from captoken.rows import sql
from tests.longer import drawing, times

STRINGS = [
    "", "acme", "ACME", "Acme", "acme ", " acme", "acm", "acme-2", "caf\u00e9", "cafe\u0301", "CAF\u00c9", "acct-1", "acct-", "Acct-1", "acct.1", "1", "01", "1.0",
    "7b1e0c6a-0000-4000-8000-00000000000a", "7B1E0C6A-0000-4000-8000-00000000000A", "2024-02-29", "2024-03-01", "2024-03-01T10:00:00", "2024-2-29", "20240229", "2024-02-29T10:00:00", "2024-02-29 10:00:00",
    "2024-02-29T10:00:00.500000", "2024-02-29T10:00:00.5", "2024-02-29T10:00:00+00:00", "2024-02-29T10:00:00Z", "2024-02-29T11:00:00+01:00", "5", "9007199254740993", "true", "t", "o'b", "a\\b", "a%b", "a_b", "a*[?]b", "a*", "ab", "\U0001f600", "\uffee", "ac\u0000", "NaN", "inf",
]  # fmt: skip
BIG = 2**53
NUMBERS: list[int | float] = [
    0, -0.0, 1, 1.0, -1, 2, 5, 4.5, 5.0, 0.1, BIG - 1, BIG, BIG + 1, -BIG - 1, 2**62, -(2**63), float(BIG), 1e300, -1e300, math.inf, -math.inf,
]  # fmt: skip
LITE = {"t": "text", "n": "text collate nocase", "i": "integer", "r": "real", "d": "decimal(9, 2)", "b": "boolean", "x": ""}
POSTGRES = {
    "t": "text", "v": "character varying(40)", "c": "text collate \"C\"", "u": "text collate alike", "i2": "smallint", "i4": "integer", "i8": "bigint",
    "f4": "real", "f8": "double precision", "d": "numeric", "b": "boolean", "g": "uuid", "day": "date", "at": "timestamp without time zone",
    "tz": "timestamp(6) with time zone",
}  # fmt: skip

# What PostgreSQL reads as each of these, in many spellings, and a few that Python has no value for.
FORMS: dict[str, list[str]] = {
    "g": ["7b1e0c6a-0000-4000-8000-00000000000a", "{7B1E0C6A-0000-4000-8000-00000000000B}"],
    "day": ["2024-02-29", "20240301", "infinity", "2024-03-01 BC", "20240-02-29"],
    "at": ["2024-02-29T10:00:00", "2024-02-29 10:00:00.5", "2024-02-29 10:00:00.000001", "-infinity", "2024-03-01 10:00:00 BC"],
    "tz": ["2024-02-29T10:00:00+00:00", "2024-02-29 11:00:00+01:00", "2024-02-29 10:00:00", "2024-02-29T10:00:00.5Z", "infinity"],
}  # fmt: skip


def drawn(source: random.Random, of: Mapping[str, str]) -> dict[str, Any]:
    """A condition on one or two columns."""
    return {column: constraint(source) for column in source.sample(sorted(of), source.choice((1, 1, 2)))}


def constraint(source: random.Random) -> dict[str, Any]:
    kind = source.choice(("in", "in", "in", "range", "range", "prefix", "any"))
    if kind == "in":
        listable = [text for text in STRINGS if text.strip() == text and text and "\u0000" not in text]
        pool: list[Any] = [*listable, 0, 1, -1, 5, BIG - 1, 1 - BIG, True, False]
        pool = source.choice((pool, [text for text in listable if len(text) > 7]))
        return {"in": source.sample(pool, source.randint(0, 6))}
    if kind == "range":
        low, high = sorted(source.choice((-1, 0, 1, 2, 5, BIG - 1, 1 - BIG)) for _ in range(2))
        return source.choice(({"min": low, "max": high}, {"min": low}, {"max": high}))
    if kind == "prefix":
        return {"prefix": source.sample(["acct-", "acm", "A", "caf\u00e9", "t", "a*", "a*[?", "a%", "a_", "a\\", "o'", "N"], source.randint(0, 4))}
    return {"any": True}


def permits(condition: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    access = Access(table="orders", operation="select", row=row)
    return not condition or Rows({"orders": dict(condition)}).prohibits(access, Situation(0)) is None


def as_json(value: Any, kind: str) -> Any:
    """What a value is in JSON: an empty list for what is no JSON, which satisfies nothing but `any`."""
    if kind == "boolean" and type(value) in (int, float):
        return bool(value) if value in (0, 1) and type(value) is int else []
    if kind == "uuid":
        return str(value)
    if isinstance(value, (date, datetime)):  # a moment in UTC
        return (value.astimezone(UTC) if kind.endswith(" with time zone") else value).isoformat()
    if isinstance(value, Decimal):
        value = int(value) if value.is_finite() and value == int(value) else float(value)
    if isinstance(value, bytes) or (isinstance(value, float) and not math.isfinite(value)):
        return []
    return value


def equal(rows: list[tuple[Any, ...]], kinds: Mapping[str, str], refused: Callable[[Mapping[str, Any]], bool], dialect: Any, ask: Any) -> int:
    """How many conditions were asked for which some rows, and not all, are there."""
    stated = [(row[0], {column: as_json(value, kinds[column]) for column, value in zip(kinds, row[1:], strict=True)}) for row in rows]
    source, telling = drawing(f"rows {dialect}"), 0
    for _ in range(times(400)):
        conditions = [one for one in (drawn(source, kinds) for _ in range(source.choice((1, 1, 2)))) if not refused(one)]
        wanted = {number for number, row in stated if all(permits(one, row) for one in conditions)}
        told, given = sql(conditions, dialect=dialect, columns=kinds)
        spelled, none = sql(conditions, dialect=dialect, columns=kinds, alias="o", literals=True)
        assert none == ()
        assert ask(told, given) == wanted, (conditions, told)
        assert ask(f"not ({told})", given) == {number for number, _ in stated} - wanted, told
        assert ask(spelled, None) == wanted, spelled
        telling += 0 < len(wanted) < len(stated)
    return telling


def test_on_sqlite_it_holds_what_the_token_permits() -> None:
    for encoding in ("UTF-8", "UTF-16le"):
        connection = sqlite3.connect(":memory:")
        connection.execute(f"pragma encoding = '{encoding}'")
        connection.execute(f"create table orders (number integer primary key, {', '.join(f'{name} {kind}' for name, kind in LITE.items())})")
        for value in [*STRINGS, *NUMBERS, None, b"acme", b"", True, False]:
            connection.execute(f"insert into orders values (null{', ?' * len(LITE)})", [value] * len(LITE))
        for column in "tx":
            connection.execute(f"create index by_{column} on orders ({column})")

        def ask(condition: str, given: Any, connection: sqlite3.Connection = connection) -> set[int]:
            return {number for (number,) in connection.execute(f"select number from orders o where {condition}", given or ())}

        rows = connection.execute("select * from orders").fetchall()
        assert equal(rows, LITE, lambda _: False, "sqlite", ask) > times(60)
        connection.close()


@pytest.fixture
def admin(postgres_server: Any) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres_server.conninfo) as connection:
        connection.execute("select 1")  # from here on in one transaction, which is rolled back
        try:
            with connection.transaction():
                connection.execute("create collation alike (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
        except psycopg.errors.FeatureNotSupported:  # a build without ICU has none that is not deterministic
            connection.execute('create collation alike from "C"')
        yield connection
        connection.rollback()


@pytest.mark.parametrize("conforming", ["on", "off"])
def test_on_postgresql_it_holds_what_the_token_permits(conforming: str, admin: psycopg.Connection[Any]) -> None:
    """Whatever the collation of a column is, whatever a backslash means in a string, and however dates are written."""
    admin.execute(f"set local standard_conforming_strings = {conforming}")
    admin.execute("set local timezone = 'Asia/Kolkata'")
    admin.execute("set local backslash_quote = off")
    admin.execute(f"create table orders (number serial, {', '.join(f'{name} {kind}' for name, kind in POSTGRES.items())})")
    values: list[Any] = [*(text for text in STRINGS if "\u0000" not in text), *NUMBERS, None, True, False, math.nan, Decimal("5.00")]
    for value in values:
        row = {name: value if fits(value, kind) else None for name, kind in POSTGRES.items()}
        admin.execute(f"insert into orders ({', '.join(row)}) values ({', '.join(['%s'] * len(row))})", [*row.values()])
    for column, spelled in FORMS.items():
        for text in spelled:
            admin.execute(f"insert into orders ({column}) values (%s)".encode(), [text])
    kinds = {name: kind.partition(" collate")[0] for name, kind in POSTGRES.items()}

    def ask(condition: str, given: Any) -> set[int]:
        return {number for (number,) in admin.execute(f"select number from orders o where {condition}".encode(), given)}

    # Of those that Python has no value for, no text is one: as of NULL.
    seen = [f"case when isfinite({one}) and {one} between '0001-01-01' and '9999-12-31' then {one} end" for one in ("day", "at", "tz")]
    rows = admin.execute(f"select number, t, v, c, u, i2, i4, i8, f4::float8, f8, d, b, g, {', '.join(seen)} from orders".encode()).fetchall()
    admin.execute("set local datestyle = 'sql, dmy'")
    deterministic = admin.execute("select collisdeterministic from pg_collation where collname = 'alike'").fetchone() == (True,)
    assert admin.execute("select count(*) from orders where u = 'acme'").fetchone() == (1 if deterministic else 3,)
    assert equal(rows, kinds, lambda one: bool(one.get("d", {}).get("in")) or any("prefix" in one.get(column, ()) for column in FORMS), "postgresql", ask) > times(60)


def fits(value: Any, kind: str) -> bool:
    if isinstance(value, str):
        return "text" in kind or "varying" in kind
    if isinstance(value, bool):
        return kind == "boolean"
    if kind in ("smallint", "integer", "bigint"):
        bits = {"smallint": 15, "integer": 31, "bigint": 63}[kind]
        return isinstance(value, int) and -(2**bits) <= value < 2**bits
    if kind == "real":
        return isinstance(value, (int, float)) and (abs(value) < 1e38 or not math.isfinite(value))
    return kind in ("double precision", "numeric") and isinstance(value, (int, float, Decimal))


def test_an_index_serves_it(admin: psycopg.Connection[Any]) -> None:
    """What stands on the column itself, beside what makes it exact."""
    lite = sqlite3.connect(":memory:")
    lite.execute("create table orders (tenant text, year integer)")
    lite.execute("create index by_tenant on orders (tenant)")
    lite.execute("create index by_year on orders (year)")
    spelled = {"id": "uuid", "day": "date", "at": "timestamp", "tz": "timestamptz"}
    admin.execute(f"create table orders (tenant text, year integer, {', '.join(map(' '.join, spelled.items()))})")
    for column in ("tenant", "year", *spelled):
        admin.execute(f"create index by_{column} on orders ({column})".encode())
    admin.execute("insert into orders select 't' || n, n, gen_random_uuid(), date '2024-01-01' + n, timestamp '2024-01-01' + n * interval '1 hour', timestamptz '2024-01-01' + n * interval '1 hour' from generate_series(1, 10000) n")
    admin.execute("analyze orders")
    kinds = {"tenant": "text", "year": "integer", **spelled}
    for column, value in (("id", "7b1e0c6a-0000-4000-8000-00000000000a"), ("day", "2024-02-29"), ("at", "2024-02-29T10:00:00"), ("tz", "2024-02-29T10:00:00+00:00")):
        told, _ = sql([{column: {"in": [value]}}], dialect="postgresql", columns=kinds, literals=True)
        assert f"by_{column}" in str(admin.execute(f"explain select 1 from orders where {told}".encode()).fetchall())
    for condition, index in (({"tenant": {"in": ["t7", "t8"]}}, "by_tenant"), ({"year": {"in": [7]}}, "by_year"), ({"year": {"max": 7}}, "by_year")):
        told, _ = sql([condition], dialect="sqlite", columns=kinds, literals=True)
        assert index in str(lite.execute(f"explain query plan select 1 from orders where {told}").fetchall())
        told, _ = sql([condition], dialect="postgresql", columns=kinds, literals=True)
        assert index in str(admin.execute(f"explain select 1 from orders where {told}".encode()).fetchall())
    told, _ = sql([{"tenant": {"prefix": ["t-"]}}], dialect="sqlite", columns=kinds, literals=True)
    assert "by_tenant" in str(lite.execute(f"explain query plan select 1 from orders where {told}").fetchall())
    lite.close()


def test_without_conditions_each_row_is_there() -> None:
    assert sql((), dialect="sqlite", columns={}) == ("1", ())
    assert sql([{"x": {"any": True}}], dialect="postgresql", columns={}) == ("true", ())


def test_names_are_never_taken_for_strings_or_placeholders() -> None:
    lite = sqlite3.connect(":memory:")
    lite.execute('create table t ("a`b" text)')
    lite.execute("insert into t values ('x')")
    told, given = sql([{"a`b": {"in": ["x"]}}], dialect="sqlite", columns={"a`b": "text"}, alias="t`")
    assert lite.execute(f'select 1 from t as "t`" where {told}', given).fetchall() == [(1,)]
    told, given = sql([{"tenant": {"in": ["tenant"]}}], dialect="sqlite", columns={"tenant": "text"})
    with pytest.raises(sqlite3.OperationalError, match="no such column"):
        lite.execute(f"select 1 from t where {told}", given)
    lite.close()
    columns = {'a"%s': "text"}
    assert sql([{'a"%s': {"in": ["x"]}}], dialect="postgresql", columns=columns)[0].startswith('("a""%%s" is not null')
    assert sql([{'a"%s': {"in": ["x"]}}], dialect="postgresql", columns=columns, literals=True)[0].startswith('("a""%s" is not null')


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
@pytest.mark.parametrize(
    ("constraint", "why"),
    [
        ({"path": ["/a"]}, "no condition in SQL"),
        ({"url": ["https://example.com"]}, "no condition in SQL"),
        ({"cidr": ["10.0.0.0/8"]}, "no condition in SQL"),
        ({"each": {"any": True}}, "no condition in SQL"),
        ({"prefix": ["10."]}, "an address or a url could begin with one of its prefixes"),
        ({"prefix": ["acct-", "fe80:"]}, "an address or a url could begin with one of its prefixes"),
        ({"prefix": ["http"]}, "an address or a url could begin with one of its prefixes"),
        ({"prefix": [f"x{number}-" for number in range(251)]}, "more than 250 prefixes"),
    ],
)
def test_what_sql_cannot_say_is_refused(dialect: Any, constraint: dict[str, Any], why: str) -> None:
    with pytest.raises(GuardError, match=why) as error:
        sql([{"site": constraint}], dialect=dialect, columns={"site": "text"})
    assert error.value.code == "row"


@pytest.mark.parametrize("kind", ["citext", "char(5)", "json", "interval", "time(3) with time zone", "bytea", "text[]", "varchar(9)[]", "uuid[]", "mood"])
def test_a_column_that_is_not_compared_exactly_is_refused(kind: str) -> None:
    for constraint in ({"in": ["a"]}, {"min": 1}, {"prefix": ["a-"]}):
        with pytest.raises(GuardError, match="is not compared exactly") as error:
            sql([{"a": constraint}], dialect="postgresql", columns={"a": kind})
        assert error.value.code == "row"
    assert sql([{"a": {"any": True}}], dialect="postgresql", columns={"a": kind}) == ("true", ())


def test_what_is_left_out_is_refused() -> None:
    with pytest.raises(GuardError, match="the table has no such column"):
        sql([{"a": {"in": []}}], dialect="sqlite", columns={"A": "text"})
    with pytest.raises(GuardError, match="of type numeric is not compared exactly"):
        sql([{"a": {"in": [5]}}], dialect="postgresql", columns={"a": "numeric(9, 2)"})
    for kind in ("uuid", "date", "timestamp", "timestamp(3) with time zone"):
        with pytest.raises(GuardError, match="is not compared exactly with it"):
            sql([{"a": {"prefix": ["2024-"]}}], dialect="postgresql", columns={"a": kind})
    with pytest.raises(ValueError, match="dialect must be"):
        sql((), dialect="mysql", columns={})  # type: ignore[arg-type]
