"""A guard that cannot hold rows denies what touches a table whose rows a token restricts, in whatever way (docs/rows.md)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from captoken import Denied
from captoken.adapters import sqlalchemy
from captoken.adapters.sqlite import guarded
from tests.fixtures import mint, verifier

ACME = {"orders": {"tenant": {"in": ["acme"]}}}
SCHEMA = """
    create table tenants (id text primary key, name text);
    create table orders (id integer primary key, tenant text references tenants on delete cascade on update cascade, cents integer);
    create view all_orders as select * from orders;
    create table countries (code text);
    create table changed (code text);
    create trigger kept after insert on changed begin update orders set cents = 0; end;
    insert into tenants values ('acme', 'A'), ('globex', 'G');
    insert into orders values (1, 'acme', 5), (2, 'globex', 7);
    insert into countries values ('de');
"""
TOUCHING = [
    "select id, tenant, cents from orders",
    "select count(*) from orders",
    "select 1 from countries where exists (select 1 from orders)",
    "select countries.code from countries join orders on orders.tenant = 'acme'",
    "select id from orders where tenant = 'acme'",
    "select id from all_orders",
    "with orders_of as (select id from orders) select id from orders_of",
    "insert into orders values (3, 'acme', 1)",
    "update orders set cents = 1 where tenant = 'acme'",
    "delete from orders where tenant = 'acme'",
    "insert into changed values ('x')",
    "delete from tenants where id = 'globex'",
    "update tenants set id = 'x' where id = 'globex'",
]


def token(**more: Any) -> str:
    return mint(tables=["*"], operations=["*"], rows=ACME, **more).serialize()


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:")
    made.execute("pragma foreign_keys = on")
    made.executescript(SCHEMA)
    yield made
    made.close()


@pytest.mark.parametrize("sql", TOUCHING)
def test_sqlite_s_guard_denies_what_touches_such_a_table(sql: str, connection: sqlite3.Connection) -> None:
    before = list(connection.iterdump())
    with pytest.raises(Denied) as error, guarded(connection, verifier().authenticate(token())) as db:
        db.execute(sql)
    assert error.value.code == "row" and "Not permitted" in error.value.decision.for_model()
    assert "cannot hold this yet" in str(error.value.decision) and list(connection.iterdump()) == before
    free = mint(tables=["*"], operations=["*"], rows={**ACME, "orders": {}}).serialize()
    with guarded(connection, verifier().authenticate(free)) as db:
        db.execute(sql)


def test_sqlite_s_guard_goes_on_with_other_tables(connection: sqlite3.Connection) -> None:
    with guarded(connection, verifier().authenticate(token())) as db:
        assert db.execute("select code from countries").fetchall() == [("de",)]


def test_engines_of_sqlalchemy_deny_it_too() -> None:
    engine = create_engine("sqlite://")
    with engine.begin() as owner:
        for statement in SCHEMA.strip().split(";\n"):
            if "trigger" not in statement and statement.strip(" ;\n"):
                owner.execute(text(statement))
    with sqlalchemy.guarded(engine, verifier().authenticate(token())) as guarded_connection:
        with pytest.raises(Denied) as error:
            guarded_connection.execute(text("select id from orders"))
        assert error.value.code == "row"
        assert guarded_connection.execute(text("select code from countries")).all() == [("de",)]
