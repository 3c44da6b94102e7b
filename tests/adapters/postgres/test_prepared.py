"""Statements by name: made once, told by no error, made again when they are lost, and bounded."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from captoken import Denied
from captoken.adapters._postgres import (
    prepared,
)
from captoken.adapters.postgres import (
    guarded,
)
from captoken.errors import StatementError
from tests.adapters.postgres.test_postgres import READS, WRITES, Place, count, grant


def named(connection: psycopg.Connection[Any]) -> list[str]:
    """The texts that the server has prepared for the guard."""
    rows = connection.execute("select statement from pg_prepared_statements where name ~ '^captoken_' order by 1").fetchall()
    connection.rollback()
    return [statement for (statement,) in rows]


def test_a_statement_that_comes_again_goes_by_a_name(place: Place) -> None:
    """One for each role and each list of types: what was checked for one role does not count for another."""
    with psycopg.connect(place.conninfo("agents")) as connection:
        for _ in range(3):
            with guarded(connection, READS) as db:
                assert db.execute("select id from sales where id = $1", [2]).fetchall() == [(2,)]
        for statements, count in ((["select 1"], 0), (["select 1"], 1), (["select 1", "select 1"], 1), (["select 1 -- " + "x" * 10_000] * 3, 0)):
            with guarded(connection, READS) as db:
                for sql in statements:
                    assert db.execute(sql).fetchall() == [(1,)]
            assert named(connection).count(statements[0]) == count
        for _ in range(2):
            for given in (2, "2"):
                with guarded(connection, READS) as db, suppress(StatementError):
                    db.execute("select id from sales where id = $1", [given])
        for _ in range(2):
            with guarded(connection, WRITES) as db:
                assert len(db.execute("select s.id from sales s, orders o where o.id = s.id").fetchall()) == 2
                assert db.execute("select id from sales where id = $1", [2]).fetchall() == [(2,)]
        assert named(connection).count("select id from sales where id = $1") == 2
        names = connection.execute("select name from pg_prepared_statements where name ~ '^captoken_'").fetchall()
        assert all(re.fullmatch(r"captoken_[0-9a-f]{16}_\d+", name) for (name,) in names)


def test_no_error_tells_a_name(place: Place) -> None:
    """So that it reads the same, whether the statement came before or not."""
    with psycopg.connect(place.conninfo("agents")) as connection, guarded(connection, READS) as db:
        said = set()
        for given in ([1], [1], [1], [], [1, 2]):
            try:
                db.execute("select id from sales where id = $1::integer", given)
            except StatementError as error:
                said.add(str(error))
        assert said == {"parameters: the parameters do not fit the statement, by their number or their types (08P01)"}


@pytest.mark.parametrize("how", ["discard all", "deallocate all"])
def test_names_that_are_lost_are_made_again_and_then_done_without(how: str, place: Place) -> None:
    """As behind a pooler that resets a connection, or gives each transaction another server."""
    with psycopg.connect(place.conninfo("agents"), autocommit=True) as connection:
        for lost in range(4):
            for _ in range(3):
                with guarded(connection, WRITES) as db:
                    db.execute("insert into archive (id) values (1)")
                    assert db.execute("select count(*) from archive").fetchall() == [(1,)]
                    with pytest.raises(Denied):
                        db.execute("select * from hr")
                    db.execute("delete from archive")
            assert bool(named(connection)) == (lost < 2)
            connection.execute(how)
    assert count(place, "archive") == 0


def test_a_name_that_is_lost_by_itself_is_made_again(place: Place) -> None:
    with psycopg.connect(place.conninfo("agents"), autocommit=True) as connection:
        for once in (False, True):
            for _ in range(3):
                with guarded(connection, WRITES) as db:
                    db.execute("select id from sales where id = 2")
            query = "select name from pg_prepared_statements where statement = 'select id from sales where id = 2'"
            (name,), = connection.execute(query).fetchall()
            connection.execute(f"deallocate {name}")
            with guarded(connection, WRITES) as db:
                if not once:
                    db.execute("insert into archive (id) values (1)")
                run = db.execute_once if once else db.execute
                assert run("select id from sales where id = 2").fetchall() == [(2,)]
    assert count(place, "archive") == 1
    place.admin.execute("delete from archive")


def test_a_statement_by_name_gives_the_columns_that_there_are(place: Place) -> None:
    """PostgreSQL refuses what was prepared with others."""
    every = grant(tables=["*"], operations=["select"])
    with psycopg.connect(place.conninfo("trusted")) as connection:
        for _ in range(3):
            with guarded(connection, every) as db:
                assert db.execute("select * from wide").columns == ("a", "b", "c")
        place.admin.execute("alter table wide add column d integer")
        try:
            for run in ("execute", "execute_once"):
                with guarded(connection, every) as db:
                    assert getattr(db, run)("select * from wide").columns == ("a", "b", "c", "d")
        finally:
            place.admin.execute("alter table wide drop column d")


def test_how_much_the_server_keeps_is_bounded(place: Place) -> None:
    """The one that was not used for the longest time gives way."""
    with psycopg.connect(place.conninfo("agents")) as connection:
        with guarded(connection, READS) as db:
            for number in range(70):
                for _ in range(2):
                    assert db.execute(f"select {number}").fetchall() == [(number,)]
                    db.execute("select 'kept'")
        kept = named(connection)
        assert 64 <= len(kept) < 80 and "select 'kept'" in kept and "select 69" in kept and "select 3" not in kept
        names = prepared.names_of(connection)
        for number in range(1_500):
            names.is_due(number, b"select 1")
        assert len(names._came_once) <= 512
