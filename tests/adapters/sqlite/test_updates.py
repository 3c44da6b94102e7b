"""The clauses of an UPDATE or a DELETE: found outside of parentheses, looked up, and put together again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from captoken.adapters._sqlite.parts import Part
from captoken.adapters._sqlite.text import Text
from captoken.adapters._sqlite.updates import Update, without_strings


@pytest.fixture
def people() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as opened:
        opened.executescript(
            """
            create table people (id integer primary key, name text, city text, zip text);
            create table jobs (id integer primary key, title text);
            insert into people values (1, 'ann', 'x', '1'), (2, 'bob', 'y', '2');
            insert into jobs values (1, 'clerk'), (2, 'cook');
            """
        )
        yield opened


@pytest.mark.parametrize(
    ("sql", "is_whole", "has_from", "natural"),
    [
        ("update people set name = 'x'", True, False, ""),
        ("UPDATE OR IGNORE main.people AS p SET name = 'x' FROM jobs WHERE 1", True, True, ""),
        ("update people set name = (select title from jobs natural join people)", True, False, ""),
        ("update people set name = 'x' from jobs Natural join people", True, True, "Natural"),
        ("update people set name = 'x' where a is distinct from b", True, False, ""),
        ("with x as (select 1 from jobs) update people set name = 'x'", True, False, ""),
        ("update people where set = 1", True, False, ""),
        ("update people", False, False, ""),
        ("select 1", False, False, ""),
    ],
)
def test_clauses_are_found_outside_of_parentheses(sql: str, is_whole: bool, has_from: bool, natural: str) -> None:
    update = Update(sql)
    assert (update.is_whole, update.has_from, update.natural) == (is_whole, has_from, natural)


@pytest.mark.parametrize(
    ("sql", "alias"),
    [
        ("update people set name = 1", '"people"'), ("update main.people set name = 1", '"people"'),
        ("update or replace people as p set name = 1", '"p"'), ('update "my people" set name = 1', '"my people"'),
    ],
)  # fmt: skip
def test_a_table_is_called_by_its_alias(sql: str, alias: str) -> None:
    assert Update(sql).alias == alias


@pytest.mark.parametrize(
    ("sql", "operation", "ids"),
    [
        ("update people set city = 'z'", "update", [1]),
        ("update people set city = 'z' where id = 2 or id = 1", "update", [1]),
        ("update people set city = 'z' where id = 2 -- the end", "update", []),
        ("delete from people", "delete", [1]),
        ("delete from people where id = 2 or 1 = 1 returning id", "delete", [1]),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_no_row_is_changed_that_does_not_satisfy_the_condition(
    people: sqlite3.Connection, sql: str, operation: str, ids: list[int], first: bool
) -> None:
    """Whatever the text asks for beside it: an OR of its own does not get past it."""
    before = set(people.execute("select * from people"))
    people.execute(Update(sql, operation).held("id = 1", first=first)).fetchall()
    assert sorted(id for id, *_ in before - set(people.execute("select * from people"))) == ids


@pytest.mark.parametrize(
    ("sql", "reads"),
    [
        ("delete from people returning id", False), ("delete from people returning (select title from jobs)", True),
        ("delete from people returning id in jobs", True), ("delete from people returning id in (1, 2)", False),
        ("delete from people where id in (select id from jobs) returning id", False),
    ],
)  # fmt: skip
def test_a_returning_that_reads_a_table_is_known(sql: str, reads: bool) -> None:
    assert Update(sql, "delete").returns_query is reads


@pytest.mark.parametrize(
    ("sql", "operation", "fails"),
    [
        ("update people set name = title, (city, zip) = (1, 2) from jobs where jobs.id = people.id returning *", "update", ""),
        ("update people as p set name = p.city where p.zip = '1'", "update", ""),
        ("update people set name = hidden", "update", "no such column: hidden"),
        ("update people set hidden = 1", "update", "no such column: people.hidden"),
        ("update people set name = 1 where hidden = 1", "update", "no such column: hidden"),
        ("update people set name = 1 returning hidden", "update", "no such column: hidden"),
        ("update people set name = 1 order by hidden", "update", "no such column: hidden"),
        ("update people set name = 1 limit (select hidden from jobs)", "update", "no such column: hidden"),
        ("delete from people where hidden = 1", "delete", "no such column: hidden"),
        ("delete from people where zip = '1' returning id", "delete", ""),
    ],
)
def test_its_names_are_looked_up_in_what_stands_for_the_table(people: sqlite3.Connection, sql: str, operation: str, fails: str) -> None:
    """In the query there is a table of another name, with the columns that are granted."""
    people.execute("create temp view shown as select id, name, city, zip from people")
    query = Update(sql, operation).looked_up("shown")
    assert "update" not in query and "delete" not in query
    if fails:
        with pytest.raises(sqlite3.OperationalError, match=fails):
            people.execute(f"explain {query}")
    else:
        assert people.execute(f"explain {query}").fetchall()


def test_the_sources_of_a_from_are_its_names() -> None:
    update = Update("update people set name = 1 from jobs as j, (select 1 from inner_one) left join other on 1")
    assert [name for name in ("jobs", "j", "other") if name in update.sources] == ["jobs", "j", "other"]
    assert "inner_one" not in update.sources and "left" not in update.sources
    assert Update("update people set name = 1 from jobs join other using (id)").sources == []


def test_a_source_stands_before_a_column_that_stands_by_itself() -> None:
    sql = "update people set title = title from jobs where title > 1 and jobs.title = 2 and title(3) and id in (select title from x)"
    assert Update(sql).qualified("title", "jobs") == (
        'update people set "jobs".title = "jobs".title from jobs where "jobs".title > 1 and jobs.title = 2 and title(3) '
        "and id in (select title from x)"
    )


@pytest.mark.parametrize(
    ("sql", "changed"),
    [
        ('update people set name = "it\'s"', "update people set name = 'it''s'"),
        ('update people set name = "x" where "x" = 1', None),  # in two places
        ('update people set name = 1 returning "x"', None),  # what it gives is called by its text
        ('update people set name = "x".y', None),  # a table
    ],
)
def test_a_name_in_double_quotes_becomes_a_string_in_one_place(sql: str, changed: str | None) -> None:
    word = "it's" if changed else "x"
    assert Update(sql).with_string(word) == (changed or sql)


def test_without_strings_a_name_in_double_quotes_is_never_taken_for_a_text(people: sqlite3.Connection) -> None:
    text = Text('select "gold" from people')
    assert people.execute(text.sql).fetchall() == [("gold",), ("gold",)], "as SQLite has it"
    with pytest.raises(sqlite3.OperationalError, match="no such column: gold"):
        people.execute(without_strings(text))


def test_a_backtick_in_a_name_stays_in_it(people: sqlite3.Connection) -> None:
    """It would end the name, and what stands behind it would be SQL."""
    people.execute('alter table people add "go`ld" default 7')
    assert people.execute(without_strings(Text('select "go`ld" from people'))).fetchall() == [(7,), (7,)]


@pytest.mark.parametrize(
    ("returning", "given"),
    [
        ("*", [1, "ann"]), ("id, *", [1, 1, "ann"]), ("*, id", [1, "ann", 1]), ("id * 2, *, id * 3", [2, 1, "ann", 3]),
        ("*, *", [1, "ann", 1, "ann"]), ("(select count(*) from jobs), id", [2, 1]),
    ],
)  # fmt: skip
def test_each_star_in_returning_is_the_granted_columns(people: sqlite3.Connection, returning: str, given: list[object]) -> None:
    """Wherever it stands: and no star that multiplies, or counts."""
    part = Part("main", "people", ("id", "name"))
    sql = Update(f"delete from people where id = 1 returning {returning}", "delete").returning(part)
    assert people.execute(sql).fetchall() == [tuple(given)]
