"""One statement of a store on PostgreSQL: names that a pooler loses, values as the server reads them, and what a text is."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest

from captoken.errors import StoreError
from captoken.stores._postgres_wire import _written
from captoken.stores.postgres import (
    PostgresLedger,
    create_tables,
)
from tests.fixtures import NOW
from tests.stores.servers import Postgres
from tests.stores.test_ledger import ROOT, debit, reservation
from tests.stores.test_postgres_time import ONE


@pytest.mark.parametrize("forget", ["deallocate all", "discard all"])
def test_names_that_are_lost_are_no_error(where: str, schema: str, forget: str) -> None:
    """As a pool resets a connection; again and again. What was asked is done once."""
    with psycopg.connect(where, autocommit=True) as connection, closing(PostgresLedger(lambda: connection, schema=schema)) as ledger:
        for number in range(6):
            assert ledger.reserve(reservation(number, debit(ROOT, 1, 100)), NOW) is None
            connection.execute(forget)
        assert ledger.spent(ROOT, "usd_cents") == 6


def test_a_name_is_never_that_of_another_connection(where: str, schema: str) -> None:
    """Else a pooler could have `peek` answer what `reserve` was asked: both are given the same."""
    names: set[str] = set()
    for _ in range(2):
        with psycopg.connect(where, autocommit=True) as connection, closing(PostgresLedger(lambda c=connection: c, schema=schema)) as ledger:
            for number in range(12):
                ledger.reserve(reservation(number, debit(ROOT, 1, 100)), NOW)
                ledger.peek(reservation(number, debit(ROOT, 1, 100)), NOW)
            found = {name for (name,) in connection.execute("select name from pg_prepared_statements where from_sql is false")}
            ours = {name for name in found if name.startswith("captoken_")}
            assert len(ours) >= 2 and found == ours and not ours & names
            names |= ours


def test_a_database_that_does_not_say_what_a_text_is(postgres_server: Postgres) -> None:
    """It was said that fsync is off. With an encoding of the client's it will do."""
    with psycopg.connect(postgres_server.conninfo, autocommit=True) as connection:
        connection.execute("drop database if exists asciionly")
        connection.execute("create database asciionly encoding 'SQL_ASCII' locale 'C' template template0")
    where = postgres_server.conninfo.replace("dbname=postgres", "dbname=asciionly")
    with psycopg.connect(where) as connection:
        create_tables(connection)
    with pytest.raises(StoreError, match="the encoding SQL_ASCII does not define what a text is"):
        PostgresLedger.create(where)
    with closing(PostgresLedger.create(f"{where} client_encoding=utf8", floor=0)) as ledger:
        assert ledger.reserve(ONE, NOW) is None


def test_a_value_is_written_as_the_server_reads_it() -> None:
    values = [None, b"\x01\xff", True, False, 5, "\u00e9"]
    assert [_written(value, "utf-8") for value in values] == [None, b"\\x01ff", b"t", b"f", b"5", b"\xc3\xa9"]
