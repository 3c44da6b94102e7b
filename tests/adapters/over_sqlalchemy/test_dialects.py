"""What is compiled for a guard: types go in and out, keys are the database's, and columns are those that are granted."""

from __future__ import annotations

import pytest
from sqlalchemy import (
    Connection,
    insert,
    select,
    update,
)  # fmt: skip
from sqlalchemy.orm import Session, load_only

from captoken.errors import StatementError
from tests.adapters.over_sqlalchemy.test_sqlalchemy import READER, VALUES, WRITER, Shop, grant
from tests.adapters.sqlalchemy_statements import (
    Kept,
    Person,
    Sale,
)


@pytest.mark.parametrize("name", VALUES)
def test_each_type_goes_in_and_out(shop: Shop, name: str) -> None:
    value, column = VALUES[name], getattr(Kept, name)
    if name == "aware" and not shop.postgres:
        value = value.replace(tzinfo=None)  # type: ignore[attr-defined]

    def body(connection: Connection) -> None:
        key = connection.execute(insert(Kept).values({name: value})).inserted_primary_key
        found = connection.execute(select(column).where(Kept.id == key[0])).scalar()
        assert found == value and type(found) is type(value)
        if name != "doc":  # which PostgreSQL compares with nothing
            assert connection.execute(select(Kept.id).where(column == value)).scalar() == key[0]
        connection.execute(update(Kept).values({name: None}))
        assert connection.execute(select(column)).scalar() is None

    shop.run(WRITER, body)


def test_what_was_compiled_is_good_for_all_grants(shop: Shop) -> None:
    compiled: list[int] = []

    def body(connection: Connection) -> None:
        context = connection.execute(select(Sale.amount).where(Sale.id == 1)).context
        compiled.append(id(context.compiled))
        assert len(compiled) == 1 or "cached" in context._get_cache_stats()

    shop.run(READER, body)
    shop.run(WRITER, body)
    assert compiled[0] == compiled[1]


@pytest.mark.parametrize("shop", ["sqlite", "aiosqlite"], indirect=True)
def test_on_sqlite_whoever_may_only_insert_does_with_a_key_of_the_database(shop: Shop) -> None:
    inserter = grant(tables=["sales"], operations=["insert"])

    def body(connection: Connection) -> None:
        with Session(connection) as session:
            sale = Sale(region="ap")
            session.add(sale)
            session.flush()
            assert sale.id == 3
            session.commit()

    shop.run(inserter, body)


def test_columns_that_are_granted_are_loaded(shop: Shop) -> None:
    some = grant(tables=["hr"], operations=["select"], columns={"hr": ["id", "name"]})

    def body(connection: Connection) -> None:
        with Session(connection) as session:
            person = session.scalars(select(Person).options(load_only(Person.name))).one()
            assert person.name == "ann"
            with pytest.raises(StatementError) as told:
                assert person.pay
            assert told.value.code == "name"

    shop.run(some, body)
