"""What the connection has: changes of the schema are seen, whoever made them, and what shadows counts."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from captoken.adapters._sqlite.catalog import Schema
from captoken.adapters.sqlite import guarded
from captoken.errors import StatementError
from tests.adapters.sqlite.test_sqlite import READER, grant, rolled_back, verdict
from tests.adapters.sqlite_corpus import ALLOWED, GRANTS


def test_the_words_that_may_be_tables_are_the_names_of_tables_alone() -> None:
    """Of each schema, folded: by these a table is found that a text names where nobody expects one."""
    rows = [
        (0, 2, b"table", b"Sales", b"Sales", b"create table Sales(id)"),
        (0, 3, b"index", b"by_id", b"Sales", b"create index by_id on Sales(id)"),
        (0, 0, b"view", b"wide", b"wide", b"create view wide as select 1"),
        (0, 0, b"table", b"found", b"found", b"create virtual table found using fts5(x)"),
        (1, 2, b"table", b"kept", b"kept", b"create table kept(id)"),
    ]
    assert Schema(((0, "main"), (1, "temp")), tuple(rows)).tables == {"sales", "kept"}


class TestSchema:
    """The guard sees the schema of the moment."""

    def test_a_temporary_table_that_shadows(self, connection: sqlite3.Connection) -> None:
        connection.execute("create temp table sales as select pay as region, id from hr")
        connection.commit()
        with rolled_back(connection, READER) as db:
            for sql in (
                "select region from sales",
                "select count(*) from sales",
                "select 1 from temp.sales",
                "select id from sales join sales using (id)",
            ):
                assert verdict(db, sql) == "table", sql
            assert verdict(db, "select region from main.sales") == ALLOWED
            assert verdict(db, "select count(*) from main.sales natural join temp.sales") == "table"
        with rolled_back(connection, grant(tables=["temp.*"], operations=["select"])) as db:
            assert verdict(db, "select region from sales") == ALLOWED
            assert verdict(db, "select region from main.sales") == "table"

    def test_a_temporary_trigger_counts(self, connection: sqlite3.Connection) -> None:
        connection.execute("create temp trigger spy after insert on main.sales begin delete from hr; end")
        connection.commit()
        with rolled_back(connection, grant(tables=["sales"], operations=["insert", "delete"])) as db:
            assert verdict(db, "insert into sales (amount) values (1)") == "table"

    def test_changes_between_blocks_are_seen(self, connection: sqlite3.Connection) -> None:
        sql = "select count(*) from changing"
        held = grant(tables=["sales", "changing"], operations=["select"])
        for definition, expected in [
            ("create view changing as select * from sales", ALLOWED),
            ("create view changing as select * from hr", "table"),
            ("create table changing (x)", ALLOWED),
            ("create view changing as select 1 from sales natural join hr", "table"),
        ]:
            connection.execute(definition)
            connection.commit()
            with rolled_back(connection, held) as db:
                assert verdict(db, sql) == expected, definition
            connection.execute(f"drop {definition.split()[1]} changing")
            connection.commit()

    def test_a_view_is_judged_by_all_its_columns_and_a_broken_one_is_refused(self, connection: sqlite3.Connection) -> None:
        connection.executescript(
            """
            create view wide as select name, pay from people;
            create view broken as select * from gone;
            create view narrow as select id, name from people;
            """
        )
        with rolled_back(connection, grant(**GRANTS["columns"])) as db:
            for sql in ("select name from wide", "select count(*) from wide", "select pay from wide", "select * from broken"):
                assert verdict(db, sql) == "table", sql
            assert verdict(db, "select name from narrow") == ALLOWED
        with rolled_back(connection, grant(tables=["*"], operations=["select"])) as db:
            assert verdict(db, "with x as (select * from broken) select 1") == "table"
            with pytest.raises(StatementError, match="name: "):
                db.execute("select * from broken")

    def test_changes_by_others_are_seen(self, tmp_path: Path) -> None:
        ours, theirs = (sqlite3.connect(tmp_path / "x.db", isolation_level=None) for _ in range(2))
        theirs.executescript(
            "create table sales (id integer primary key, x); create table hr (id integer primary key, x); create view v as select x from sales"
        )
        sql = "select count(*) from v"
        with guarded(ours, READER) as db:
            assert verdict(db, sql) == ALLOWED
        # The root pages of the two change places, and the view looks elsewhere.
        theirs.executescript("drop view v; create view v as select x from sales natural join hr")
        with guarded(ours, READER) as db:
            assert verdict(db, sql) == "table"
        theirs.executescript(
            "drop view v; drop table sales; drop table hr; create table hr (id integer primary key, x); create table sales (id integer primary key, x)"
        )
        with guarded(ours, READER) as db:
            assert (
                verdict(db, "select count(*) from sales") == ALLOWED
                and verdict(db, "select count(*) from sales natural join hr") == "table"
            )
            theirs.execute("pragma busy_timeout = 0")
            with pytest.raises(sqlite3.OperationalError, match="locked"):  # the block holds the schema still
                theirs.execute("drop table hr")
        ours.close()
        theirs.close()

    def test_a_restored_database_with_the_same_schema_version_is_another_one(self) -> None:
        connection = sqlite3.connect(":memory:")
        for sql, expected in [
            ("create view side.v as select 1 from sales", ALLOWED),
            ("create view side.v as select 1 from hr", "table"),
        ]:
            connection.execute("attach ':memory:' as side")
            connection.executescript(f"create table side.sales (x); create table side.hr (x); {sql}")
            with guarded(connection, grant(tables=["side.sales"], operations=["select"])) as db:
                assert verdict(db, "select * from v") == expected
            connection.execute("detach side")
        connection.close()
