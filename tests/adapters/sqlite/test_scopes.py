"""Names of tables are found where they stand, and compared as SQLite compares them."""

from __future__ import annotations

import sqlite3

import pytest

from captoken.adapters._sqlite.text import Text
from captoken.adapters.sqlite import guarded
from tests.adapters.sqlite.test_sqlite import grant, verdict
from tests.adapters.sqlite_corpus import ALLOWED


def test_names_are_compared_as_sqlite_compares_them(plain: sqlite3.Connection) -> None:
    plain.executescript('create table "\xe9" (x); create table "\xc9" (x)')  # two tables: only ASCII has no case
    with guarded(plain, grant(tables=["\xe9"], operations=["select"])) as db:
        assert verdict(db, 'select x from "\xe9"') == ALLOWED
        assert verdict(db, 'select x from "\xc9"') == "table"


@pytest.mark.parametrize(
    ("sql", "mentions"),
    [
        ("select * from a, b join c on x = y, d", "select a|select b|select c|select d"),
        ("select * from (a, (b join c)) , d where x in e and y in (1, f) and z not in main.g", "select a|select b|select c|select d|select e|select main.g"),
        ("with a as (select 1), b (c, d) as (select 2 from e) select * from a, b, c, main.a", "select e|select c|select main.a"),
        ("select (with a as (select 1) select * from a), x from a", "select a"),
        ("with recursive r as (select 1 union select x from r, s) select * from r", "select s"),
        ("insert into a with b as (select 1) select * from b, c on conflict do update set x = (select 1 from d)", "insert a|select c|select d"),
        ("with x as (select 1) replace into a (b, c) values (1, 2), (3, 4)", "insert a"),
        ("update or replace a set b = 1, c = 2 from d, e where f is not distinct from g", "update a|select d|select e"),
        ("select 1 from a join b on c is not distinct from d, e", "select a|select b|select e"),
        ("delete from main.a as b where c in (select d from e) returning f, g", "delete main.a|select e"),
        ("select a from b group by c, d having e order by f, g limit h, i", "select b"),
        ("select replace(a, b, c) from d join e on replace(f, g, h) = i, j", "select d|select e|select j"),
        ("select 'from a' /* from b */ -- from c\n from `d``e`, [f g], 'h', \"i\"", "select d`e|select f g|select h|select i"),
        ("select :a(from) , ?1, @b, $c::d(from) from e union select 1, 2 from f, g", "select e|select f|select g"),
        ("select sum(a) over (partition by b, c) from d window w as (order by e), v as ()", "select d"),
        ("select 1 from a natural left outer join b cross join (select 1 from c) x, json_each(d, e) f", "select a|select b|select c|select json_each"),
    ],
)  # fmt: skip
def test_the_names_of_tables_are_found_where_they_stand(sql: str, mentions: str) -> None:
    found = [f"{operation} {schema + '.' if schema else ''}{name}" for operation, schema, name in Text(sql).mentions]
    assert found == mentions.split("|")


def test_what_stands_in_the_lists_of_using_is_found_once() -> None:
    assert Text("select 1 from a join b using (x, y) join c using (using, x, 'z') where d").using == ("x", "y", "using", "z")
    assert Text("select 1 from a join b using x, y").using == ("x", "y")  # no SQL: all of it may be meant
