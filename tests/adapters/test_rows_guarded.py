"""Rows in SQLAlchemy: in guarded engines, and in the condition for queries of one's own (docs/rows.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    select,
    text,
    update,
)
from sqlalchemy.orm import aliased, registry

from captoken import Denied
from captoken.adapters import sqlalchemy
from captoken.errors import GuardError
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
def token(**more: Any) -> str:
    return mint(tables=["*"], operations=["*"], rows=ACME, **more).serialize()


def test_engines_of_sqlalchemy_hold_what_the_guard_of_their_database_holds() -> None:
    engine = create_engine("sqlite://")
    with engine.begin() as owner:
        for statement in SCHEMA.strip().split(";\n"):
            if "trigger" not in statement and statement.strip(" ;\n"):
                owner.execute(text(statement))
    with sqlalchemy.guarded(engine, verifier().authenticate(token())) as guarded_connection:
        assert guarded_connection.execute(text("select id from orders")).all() == [(1,)]
        with pytest.raises(Denied) as error:
            guarded_connection.execute(text("select id from all_orders"))
        assert error.value.code == "row" and "does not say which rows" in str(error.value.decision)
        assert guarded_connection.execute(text("select code from countries")).all() == [("de",)]


METADATA = MetaData()
ORDERS = Table("orders", METADATA, Column("id", Integer, primary_key=True), Column("tenant", String(20)), Column("paid", Boolean), Column("raw", LargeBinary))


@registry().mapped
class Order:
    __table__ = ORDERS


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    address = "sqlite://"
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        address = f"postgresql+psycopg://postgres@127.0.0.1:{server.port}/postgres"
    made = create_engine(address)
    METADATA.create_all(made)
    with made.begin() as owner:
        rows = [(1, "acme", True), (2, "acme", False), (3, "globex", True), (4, "a%b:c'\\", True), (5, None, True), (6, "ACME", True)]
        owner.execute(ORDERS.insert(), [dict(zip(("id", "tenant", "paid"), row, strict=True)) for row in rows])
    yield made
    METADATA.drop_all(made)
    made.dispose()


def test_own_queries_of_sqlalchemy_hold_what_the_token_permits(engine: Engine) -> None:
    grant = verifier().authenticate(
        mint(tables=["*"], operations=["*"], rows={"orders": {"tenant": {"in": ["acme", "a%b:c'\\"]}, "paid": {"in": [True]}}})
        .attenuate(rows={"orders": {"paid": {"any": True}, "tenant": {"prefix": ["ac", "a%b:c"]}, "id": {"min": 1, "max": 4}}}, clamp=True)
        .serialize()
    )
    other: Any = aliased(Order)
    some = ORDERS.alias("some")
    with engine.begin() as connection:
        held = sqlalchemy.rows(grant, Order)
        assert connection.scalars(select(ORDERS.c.id).where(held).order_by(ORDERS.c.id)).all() == [1, 4]
        assert connection.scalars(select(ORDERS.c.id).where(~held).order_by(ORDERS.c.id)).all() == [2, 3, 5, 6]
        assert connection.scalars(select(other.id).where(sqlalchemy.rows(grant, other)).order_by(other.id)).all() == [1, 4]
        joined = select(some.c.id).join(ORDERS, some.c.id > ORDERS.c.id).where(sqlalchemy.rows(grant, some), held)
        assert connection.scalars(joined).all() == [4]
        assert connection.execute(update(ORDERS).where(held).values(paid=False)).rowcount == 2
        free = verifier().authenticate(mint(tables=["*"], operations=["*"]).serialize())
        assert len(connection.scalars(select(ORDERS.c.id).where(sqlalchemy.rows(free, ORDERS))).all()) == 6
    assert "in ('acme')" in str(select(ORDERS).where(sqlalchemy.rows(verifier().authenticate(token()), Order)))  # to be printed


def test_what_no_query_holds_is_denied(engine: Engine) -> None:
    for rows, why in (({"tenant": {"path": ["/a"]}}, "no condition in SQL"), ({"region": {"in": ["eu"]}}, "no column region")):
        grant = verifier().authenticate(mint(tables=["*"], operations=["*"], rows={"orders": rows}).serialize())
        with pytest.raises(Denied, match=why) as denied:
            sqlalchemy.rows(grant, Order)
        assert denied.value.code == "row"
    with pytest.raises(Denied):
        sqlalchemy.rows(verifier().authenticate(mint(tables=["other"], operations=["*"]).serialize()), Order)
    grant = verifier().authenticate(mint(tables=["*"], operations=["*"], rows={"orders": {"raw": {"in": ["x"]}}}).serialize())
    with engine.connect() as connection:
        query = select(ORDERS.c.id).where(sqlalchemy.rows(grant, Order))
        if engine.dialect.name == "sqlite":
            assert connection.scalars(query).all() == []
        else:
            with pytest.raises(GuardError, match="of type bytea is not compared exactly"):
                connection.scalars(query)
