"""Ordinary statements run within rights, and give what they give where there are no other columns."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any, TypeAlias

import psycopg
import pytest

from captoken import Grant
from captoken.adapters.postgres import Role, apply_plan
from captoken.adapters.postgres import guarded as guarded_postgres
from captoken.adapters.sqlite import guarded as guarded_sqlite

from .ordinary import BOTH, COLUMNS, POSTGRES, SCHEMA, SQLITE
from .test_sqlite import grant

ALL = ["select", "insert", "update", "delete"]
RIGHTS = {**{table: ALL[:3] for table in COLUMNS}, "notes": ALL, "revenue": ["select"]}
GRANT: Grant = grant(allow=RIGHTS, columns=COLUMNS)


class Undone(Exception):
    """Ends a block without a trace."""


def schema(json: str, *, hidden: bool) -> str:
    return re.sub("«(.*?)»", r"\1" if hidden else "", SCHEMA).replace("{json}", json)


def told(columns: Any, rows: list[Any], sql: str) -> tuple[tuple[str, ...], list[str]]:
    """Rows come in the order that was asked for, or in none."""
    said = list(map(repr, rows))
    return tuple(columns), said if re.search(r"order by [^()]*$", sql) else sorted(said)


def test_there_are_as_many_as_are_said() -> None:
    assert len({*BOTH, *SQLITE}) >= 120
    assert len({*BOTH, *POSTGRES}) >= 130


@pytest.mark.parametrize("sql", BOTH + SQLITE)
def test_sqlite_answers_as_without_hidden_columns(sql: str) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as plain:
        plain.executescript(schema("text", hidden=False))
        cursor = plain.execute(sql)
        expected = told([column[0] for column in cursor.description or ()], cursor.fetchall(), sql)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as full:
        full.executescript(schema("text", hidden=True))
        with suppress(Undone), guarded_sqlite(full, GRANT) as db:
            rows = db.execute(sql)
            assert told(rows.columns, rows.fetchall(), sql) == expected
            raise Undone


Pair: TypeAlias = tuple[psycopg.Connection[Any], psycopg.Connection[Any]]


@pytest.fixture(scope="module")
def databases(postgres_server: Any) -> Iterator[Pair]:
    conninfos = []
    for name in ("ordinary_bare", "ordinary_full"):
        with psycopg.connect(postgres_server.conninfo, autocommit=True) as connection:
            connection.execute(f"drop database if exists {name} with (force)")
            connection.execute(f"create database {name}")
        conninfo = postgres_server.conninfo.replace("dbname=postgres", f"dbname={name}")
        with psycopg.connect(conninfo, autocommit=True) as admin:
            admin.execute(schema("jsonb", hidden=name == "ordinary_full").encode())
            if name == "ordinary_full":
                apply_plan(admin, "ordinary_agents", Role("ordinary_role", RIGHTS))
        conninfos.append(conninfo)
    full = conninfos[1].replace("user=postgres", "user=ordinary_agents")
    with psycopg.connect(conninfos[0]) as plain, psycopg.connect(full) as guarded:
        yield plain, guarded


@pytest.mark.parametrize("sql", BOTH + POSTGRES)
def test_postgresql_answers_as_without_hidden_columns(sql: str, databases: Pair) -> None:
    plain, full = databases
    cursor = plain.execute(sql.encode())
    expected = told([column.name for column in cursor.description or ()], cursor.fetchall() if cursor.description else [], sql)
    plain.rollback()
    with suppress(Undone), guarded_postgres(full, GRANT) as db:
        rows = db.execute(sql)
        assert told(rows.columns, rows.fetchall(), sql) == expected
        raise Undone
