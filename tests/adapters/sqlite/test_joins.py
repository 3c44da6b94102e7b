"""A join does not ask about a hidden column, whatever answers it."""

from __future__ import annotations

import sqlite3

import pytest

from captoken.adapters.sqlite import guarded
from tests.adapters.sqlite.test_sqlite import grant, verdict, with_only
from tests.adapters.sqlite_corpus import ALLOWED

HIDDEN_KEYS = """
    create table people (id integer primary key, name, ssn);
    create table made (id integer primary key, name, code generated always as (id + 1000) virtual);
    create table keys (ssn);
    create view joined as select p.name from people p natural join keys;
    insert into people values (1, 'ann', 'x'), (2, 'bob', 'y');
    insert into made (id, name) values (1, 'ann'), (2, 'bob');
    insert into keys values ('y');
"""


JOINS_ON_WHAT_IS_HIDDEN = [
    "select name from people natural join (select 2 as 'id')",
    "select name from people natural join (select 2 'id')",
    "with t('id') as (values (2)) select name from people natural join t",
    "select name from people join (select 2 as 'id') using ('id')",
    "select name from made join (select 1002 as code) using (code)",
    "select name from made natural join (select 1002 as code)",
    "select name from made natural join (select 1002 as 'code')",
    "select name from joined",
    "select name from 'joined'",
    "select name from main.'joined'",
    "select 1 from people where name in 'joined'",
    "select name from people natural join 'keys'",
    "select name from people p, people q join keys using (ssn)",
]


@pytest.mark.parametrize("sql", JOINS_ON_WHAT_IS_HIDDEN)
def test_a_join_does_not_ask_about_a_hidden_column(sql: str) -> None:
    """However the name of the column, or of the view that joins on it, is quoted: it is as if there were none."""
    connection, only = sqlite3.connect(":memory:"), sqlite3.connect(":memory:")
    connection.executescript(HIDDEN_KEYS)
    only.executescript(HIDDEN_KEYS + "drop view joined;")
    tables = ["people", "made", "keys", "joined"]
    columns = {"people": ["name"], "made": ["name"]}
    with_only(only, columns)
    with guarded(connection, grant(tables=tables, operations=["select"], columns=columns)) as db:
        if "joined" in sql:
            assert verdict(db, sql) == "column"
        elif "using" in sql:
            assert verdict(db, sql) == "name"
            with pytest.raises(sqlite3.OperationalError):
                only.execute(sql)
        else:
            assert db.execute(sql).fetchall() == only.execute(sql).fetchall()
        assert db.execute("select name from people").fetchall() == [("ann",), ("bob",)]
    with guarded(connection, grant(tables=tables, operations=["select"])) as db:
        assert verdict(db, sql) in (ALLOWED, "name")
    connection.close()
    only.close()


@pytest.mark.parametrize("index", ['""', "by_ssn"])
@pytest.mark.parametrize("tail", ["", " without rowid"])
def test_a_join_that_an_index_answers_does_not_ask_about_a_hidden_column(index: str, tail: str) -> None:
    """Whatever the index is called: SQLite takes an empty name."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(
        f"create table people (name text primary key, pad, ssn){tail}; create index {index} on people (ssn, name);"
    )
    connection.execute("insert into people values ('ann', 1, 's1')")
    connection.commit()
    with guarded(connection, grant(tables=["people"], operations=["select"], columns={"people": ["name", "pad"]})) as db:
        assert db.execute("select name from people natural join (select 'x' as ssn)").fetchall() == [("ann",)]
        assert verdict(db, "select name from people join (select 'x' as ssn) using (ssn)") == "name"
        assert db.execute("select name from people natural join (select 'ann' as name, 's2' as ssn)").fetchall() == [("ann",)]
        assert db.execute("select name from people").fetchall() == [("ann",)]
    connection.close()


def test_an_index_over_an_expression_may_tell_of_any_column() -> None:
    """No name says which, where a view hides the join: so all have to be granted."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(HIDDEN_KEYS + "create table names (name); create view shouted as select id from people natural join names where upper(name) = 'ANN'")
    tables = ["people", "names", "shouted"]
    some, every = grant(tables=tables, operations=["select"], columns={"people": ["id", "name"]}), grant(tables=tables, operations=["select"])
    for index, expected in (("", ALLOWED), ("create index by_shout on people (upper(name))", "column")):
        connection.executescript(index)
        with guarded(connection, some) as db:
            assert verdict(db, "select id from shouted") == expected
        with guarded(connection, every) as db:
            assert verdict(db, "select id from shouted") == ALLOWED
    connection.close()
