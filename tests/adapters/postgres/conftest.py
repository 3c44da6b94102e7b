"""What the tests of the guard share: connections to databases that the guard is tried on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from captoken.adapters._postgres import (
    assessment,
    transaction,
)
from captoken.adapters._postgres.text import Reference, Scope, Text
from captoken.adapters.postgres import (
    Role,
    apply_plan,
)
from tests.adapters.postgres.test_postgres import Anything, Place
from tests.adapters.postgres_corpus import CLASSES, ROWS, SCHEMA


@pytest.fixture(scope="module")
def place(postgres_server: Any) -> Iterator[Place]:
    """A database of its own, planned for two logins, as `captoken postgres plan` does it."""
    with psycopg.connect(postgres_server.conninfo, autocommit=True) as connection:
        connection.execute("drop database if exists guarded")
        connection.execute("create database guarded")
    conninfo = postgres_server.conninfo.replace("dbname=postgres", "dbname=guarded")
    with psycopg.connect(conninfo, autocommit=True) as admin:
        admin.execute("create schema captoken_guard")
        admin.execute("create function captoken_guard.subject() returns text language sql as 'select null::text'")
        admin.execute(SCHEMA + ROWS)
        for login, roles in CLASSES.items():
            for _ in range(2):  # it can be run again
                apply_plan(admin, login, *(Role(name, **rights) for name, rights in roles.items()))
        admin.execute("grant usage on schema market, hidden to public")
        yield Place(admin, lambda login: conninfo.replace("user=postgres", f"user={login}"))


@pytest.fixture(params=["agents", "trusted"])
def connection(request: pytest.FixtureRequest, place: Place) -> Iterator[psycopg.Connection[Any]]:
    """By a login with narrow roles, and by one whose role may do all, so that the text alone is between it and the data."""
    with psycopg.connect(place.conninfo(request.param)) as opened:
        yield opened


@pytest.fixture
def agents(place: Place) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(place.conninfo("agents"), autocommit=True) as opened:
        yield opened


@pytest.fixture
def taken_for_a_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that takes every text for a read of all columns of sales."""

    def read(sql: str) -> Text:
        text = Text(sql)
        scope = Scope(None)
        scope.tables.append(("sales", ("public", "sales")))
        text.reads.append(("public", "sales"))
        text.references.append(Reference(scope, "sales", "id"))
        return text

    monkeypatch.setattr(assessment, "read", read)


@pytest.fixture
def misread(taken_for_a_read: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that takes the word of the server for nothing."""
    monkeypatch.setattr(transaction, "_KINDS", Anything())


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that asks the server nothing behind a statement."""
    monkeypatch.setattr(assessment, "assumptions_of", lambda **facts: None)


@pytest.fixture
def blind(misread: None, unasked: None) -> None:
    """All of that, so that the role stands alone."""
