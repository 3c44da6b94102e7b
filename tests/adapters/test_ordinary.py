"""Ordinary statements run within rights, and give what they give where there are no other columns."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any, TypeAlias

import psycopg
import pytest

from captoken import Denied
from captoken.adapters.postgres import Role, apply_plan
from captoken.adapters.postgres import guarded as guarded_postgres
from captoken.adapters.sqlite import guarded as guarded_sqlite
from captoken.errors import StatementError
from tests.adapters.sqlite.test_sqlite import grant

from . import ordinary, ordinary_clinic, ordinary_freight
from .ordinary_refused import DIFFERENT, POSTGRES, SQLITE

WORLDS = {"shop": ordinary.WORLD, "clinic": ordinary_clinic.WORLD, "freight": ordinary_freight.WORLD}
GRANTS = {name: grant(allow=world.rights, columns=world.columns) for name, world in WORLDS.items()}


class Undone(Exception):
    """Ends a block without a trace."""


def told(columns: Any, rows: list[Any], sql: str) -> tuple[tuple[str, ...], list[str]]:
    """Rows come in the order that was asked for, or in none."""
    said = list(map(repr, rows))
    return tuple(columns), said if re.search(r"order by [^()]*$", sql, re.IGNORECASE) else sorted(said)


def test_there_are_as_many_as_are_said() -> None:
    assert all(len(world.columns) == 10 for world in WORLDS.values())
    own = {name: len({*world.both, *world.sqlite, *world.postgres}) for name, world in WORLDS.items()}
    assert own["shop"] >= 160 and own["clinic"] >= 110 and own["freight"] >= 110
    assert sum(len({*world.both, *world.sqlite}) for world in WORLDS.values()) >= 280
    assert sum(len({*world.both, *world.postgres}) for world in WORLDS.values()) >= 310


def test_no_more_are_refused_than_are_listed() -> None:
    """Whoever adds one says here that there is one more."""
    assert (len(SQLITE), len(POSTGRES), len(DIFFERENT)) == (14, 18, 3)
    assert all(why for _, _, why in SQLITE + POSTGRES)


def code_of(db: Any, sql: str) -> str:
    with pytest.raises((Denied, StatementError)) as caught:
        db.execute(sql)
    error = caught.value
    return error.decision.code or "" if isinstance(error, Denied) else error.code


@pytest.mark.parametrize(("code", "sql", "why"), SQLITE)
def test_sqlite_refuses_what_is_listed_and_else_runs_it(code: str, sql: str, why: str) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as plain:
        plain.executescript(WORLDS["freight"].script("sqlite", hidden=False))
        plain.execute(sql).fetchall()
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as full:
        full.executescript(WORLDS["freight"].script("sqlite", hidden=True))
        with guarded_sqlite(full, GRANTS["freight"]) as db:
            assert code_of(db, sql) == code, why


@pytest.mark.parametrize(("name", "sql"), [(name, sql) for name, world in WORLDS.items() for sql in [*world.both, *world.sqlite]])
def test_sqlite_answers_as_without_hidden_columns(name: str, sql: str) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as plain:
        plain.executescript(WORLDS[name].script("sqlite", hidden=False))
        cursor = plain.execute(sql)
        expected = told([column[0] for column in cursor.description or ()], cursor.fetchall(), sql)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as full:
        full.executescript(WORLDS[name].script("sqlite", hidden=True))
        with suppress(Undone), guarded_sqlite(full, GRANTS[name]) as db:
            rows = db.execute(sql)
            assert told(rows.columns, rows.fetchall(), sql) == expected
            raise Undone


Pair: TypeAlias = tuple[psycopg.Connection[Any], psycopg.Connection[Any]]


@pytest.fixture(scope="module")
def databases(postgres_server: Any) -> Iterator[dict[str, Pair]]:
    """For each world a database that has what is granted and nothing else, and one that has all."""

    def connect(world: str, *, hidden: bool) -> psycopg.Connection[Any]:
        name = f"ordinary_{world}_{'full' if hidden else 'bare'}"
        with psycopg.connect(postgres_server.conninfo, autocommit=True) as connection:
            connection.execute(f"drop database if exists {name} with (force)".encode())
            connection.execute(f"create database {name}".encode())
        conninfo = postgres_server.conninfo.replace("dbname=postgres", f"dbname={name}")
        with psycopg.connect(conninfo, autocommit=True) as admin:
            admin.execute(WORLDS[world].script("postgres", hidden=hidden).encode())
            if hidden:
                apply_plan(admin, "ordinary_agents", Role(f"ordinary_{world}", WORLDS[world].rights))
        return psycopg.connect(conninfo.replace("user=postgres", "user=ordinary_agents") if hidden else conninfo)

    found = {world: (connect(world, hidden=False), connect(world, hidden=True)) for world in WORLDS}
    yield found
    for pair in found.values():
        for connection in pair:
            connection.close()


@pytest.mark.parametrize(("name", "sql"), [(name, sql) for name, world in WORLDS.items() for sql in [*world.both, *world.postgres]])
def test_postgresql_answers_as_without_hidden_columns(name: str, sql: str, databases: dict[str, Pair]) -> None:
    plain, full = databases[name]
    cursor = plain.execute(sql.encode())
    expected = told([column.name for column in cursor.description or ()], cursor.fetchall() if cursor.description else [], sql)
    plain.rollback()
    with suppress(Undone), guarded_postgres(full, GRANTS[name]) as db:
        rows = db.execute(sql)
        assert told(rows.columns, rows.fetchall(), sql) == expected
        raise Undone


@pytest.mark.parametrize(("code", "sql", "why"), POSTGRES)
def test_postgresql_refuses_what_is_listed_and_else_runs_it(code: str, sql: str, why: str, databases: dict[str, Pair]) -> None:
    plain, full = databases["freight"]
    plain.execute(sql.encode())
    plain.rollback()
    with guarded_postgres(full, GRANTS["freight"]) as db:
        assert code_of(db, sql) == code, why


@pytest.mark.parametrize("sql", DIFFERENT)
def test_a_whole_row_on_postgresql_has_the_granted_columns_as_strings(sql: str, databases: dict[str, Pair]) -> None:
    plain, full = databases["freight"]
    expected = plain.execute(sql.encode()).fetchall()
    plain.rollback()
    with guarded_postgres(full, GRANTS["freight"]) as db:
        found = db.execute(sql).fetchall()
    assert len(found) == len(expected)
    words = re.findall(r"[^\W_]+", repr(expected))
    assert re.findall(r"[^\W_]+", repr(found).replace("None", "")) == words
    assert "hidden" not in repr(found) and found != expected
