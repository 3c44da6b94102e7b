"""Tokens of SQL: in no time, and names whatever they are quoted in."""

from __future__ import annotations

import sqlite3

import pytest

from captoken.adapters._sqlite.text import Text
from captoken.adapters.sqlite import guarded
from tests.adapters.sqlite.test_sqlite import grant, verdict
from tests.adapters.sqlite_corpus import ALLOWED


@pytest.mark.parametrize(
    "sql",
    [
        "[" * 200_000,
        "'" * 200_001,
        "$a(" * 100_000,
        "/*" * 100_000,
        "(" * 200_000,
        "with a as (" * 20_000,
        "\"'`[" * 50_000,
        "using " * 50_000,
        "join a using (b, " * 20_000,
    ],
    ids=["brackets", "quotes", "variables", "comments", "parentheses", "with", "quotes of all kinds", "using", "lists"],
)
def test_hostile_text_is_cut_into_tokens_in_no_time(sql: str) -> None:
    assert isinstance(Text(sql).mentions, tuple)
    assert len(Text(sql).using) <= 5


def test_punctuation_in_quotes_is_a_name() -> None:
    """It ends no list, and separates no schema from its table."""
    connection = sqlite3.connect(":memory:")
    connection.executescript('create table people (id integer primary key, ")", name); create table "." (x)')
    open_columns = {"people": ["name", ")"]}
    with guarded(connection, grant(tables=["people"], operations=["select"], columns=open_columns)) as db:
        for columns in ('")", id', 'id, ")"'):
            sql = f"""select name from people join (select 2 as id, 1 as ")") using ({columns})"""
            assert verdict(db, sql) == "name", sql
        assert verdict(db, 'select name from people "." where 1') == ALLOWED
        assert verdict(db, 'select x from people "." natural join "."') == "table"
    connection.close()
