"""A denial tells a hidden table or column like one that is missing, and a mistake like a mistake."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from captoken import Denied, Grant
from captoken.adapters._sqlite.text import Text
from captoken.adapters.sqlite import guarded
from captoken.errors import StatementError
from tests.adapters.sqlite.test_sqlite import READER, filled, grant, verdict
from tests.adapters.sqlite_corpus import ALLOWED, GRANTS

# Rule 9. {t} is a table that is hidden, or that is missing.
TABLE_TEMPLATES = """
select * from {t} | select count(*) from {t} | select nosuch from {t} | select x.nosuch from {t} x | select {t}.* from {t} | select * from main.{t}
select * from "{t}" | select * from [{t}] | select * from sales, {t} | select nosuch from sales, {t} | select * from sales join {t} using (id)
select * from sales join {t} using (nosuch) | select * from sales natural join {t} | select count(*) from sales natural left join {t}
select * from sales left join {t} using (region) | select 1 in {t} | select (1, 2) in {t} | select 1 where exists (select 1 from {t})
with x as (select * from {t}) select 1 | with x as (select nosuch from {t}) select 1 | with x as (select * from {t}) select * from x
with {t} as (select 1 as id) select * from main.{t} | with {t} as (select 1 as id) select * from {t} | with {t} as (select 1) select nosuch from {t}
select * from (with {t} as (select 1) select * from {t}), {t} | select 1 from {t} where exists (with {t} as (select 1 as x) select x from {t})
select a from (select region as a, (select count(*) from {t}) as b from sales) | select * from {t} order by 99 | select (select * from {t})
select * from sales union select * from {t} | select * from {t} where | select * from {t}; select 1 | select * from {t} where id = ?
select * from {t} indexed by nosuch | select nofunction(1) from {t} | select owned(1) from {t} | select changes() from {t} | select * from {t}(1)
select value from json_each('[]', {t}.id), {t} | select {t} from sales | select {t}.id from sales | select {t}.* from sales | select {t}(1)
insert into {t} values (1) | insert into {t} (nosuch) values (1) | insert into {t} default values | insert into {t} select * from sales
insert or replace into {t} (id) values (1) | insert or rollback into {t} (id) values (1) | replace into {t} values (1) | delete from {t}
update {t} set pay = 1 | update {t} set nosuch = 1 | update or replace {t} set id = 1 | delete from {t} where nosuch | delete from {t} returning *
with {t} as (select 1) delete from {t} | with {t} as (select 1 as id) insert into {t} (nosuch) select * from {t}
update sales set amount = (select pay from {t}) | delete from sales where id in (select id from {t}) | update sales set amount = 1 from {t}
""".replace("\n", " | ").split(" | ")[1:-1]


def told(connection: sqlite3.Connection, grant: Grant, sql: str, parameters: Any = ()) -> Any:
    """All that a caller hears of a statement."""
    try:
        with guarded(connection, grant) as db:
            return db.execute(sql, parameters).fetchall()
    except Denied as denied:
        return denied.decision.code, str(denied), denied.public, denied.decision.for_model(), repr(denied.__context__)
    except StatementError as error:
        return error.code, str(error), error.for_model(), repr(error), repr(error.__context__)


@pytest.mark.parametrize("hidden", ["hr", "secret", "hr_view", "natural_view", "catalog_view", "docs", "trapped"])
def test_a_hidden_table_is_told_like_one_that_is_missing(hidden: str) -> None:
    connection, tried = filled(sqlite3.connect(":memory:")), 0
    for name in ("reader", "updater", "columns"):
        held = grant(**GRANTS[name])
        for template in TABLE_TEMPLATES:
            for parameters in [()] if "?" not in template else [(), (1,), (2**70,), (object(),)]:
                there = told(connection, held, template.replace("{t}", hidden), parameters)
                missing = told(connection, held, template.replace("{t}", "nosuchtable"), parameters)
                assert repr(there).replace(hidden, "T") == repr(missing).replace("nosuchtable", "T"), template
                tried += 1
    connection.close()
    assert tried >= 150


# {c} is a column that is hidden, or that is missing.
COLUMN_TEMPLATES = """
select {c} from people | select name, {c} from people | select "{c}" from people | select [{c}] from people | select people.{c} from people
select p.{c} from people p | select name from people where {c} > 1 | select name from people order by {c} | select name from people group by {c}
select name from people group by name having {c} | select sum({c}) from people | select x from (select {c} as x from people)
with x as (select {c} from people) select 1 | with x as (select {c} from people) select * from x | select p.{c} from sales s, people p
select name from people join sales on people.{c} = sales.amount | select name from people join people p2 using ({c})
select name from people join sales using ({c}) | select 1 from (select 1 as {c}) join people using ({c}) | select {c} from people, people p2
select {c} from (select 1 as {c} where 0) full join people using ({c}) | select (select {c} from people) | update people set {c} = 1
update people set name = {c} | update people set name = 1 where {c} | update people set name = 1 returning {c} | insert into people ({c}) values (1)
update people set (name, {c}) = (1, 2) | update sales set amount = {c} from people | insert into people (name) values (1) returning {c}
insert into people (name) values (1) on conflict ({c}) do nothing | delete from people where {c} | select name from people order by "{c}"
select name from people where "{c}" = "x" | select name from people where "x" = "{c}" | select substr("{c}", 1) from people | select name || "{c}" from people | select owned({c}) from people
select name from people where name in ("{c}") | select {c}(1) from people | select rowid from people where {c} | select name from people limit {c}
""".replace("\n", " | ").split(" | ")[1:-1]


@pytest.mark.parametrize("hidden", ["pay", "ssn"])
def test_a_hidden_column_is_told_like_one_that_is_missing(hidden: str) -> None:
    connection = filled(sqlite3.connect(":memory:"))
    for name in ("columns", "column", "region"):
        held = grant(**GRANTS[name])
        for template in COLUMN_TEMPLATES:
            there = told(connection, held, template.replace("{c}", hidden))
            missing = told(connection, held, template.replace("{c}", "nosuchcolumn"))
            assert repr(there).replace(hidden, "C") == repr(missing).replace("nosuchcolumn", "C"), template
        stars = [
            told(connection, held, sql)
            for sql in ("select * from people", "select (select * from people)", "select * from people order by 9")
        ]
        assert isinstance(stars[0], list) and len(stars[0][0]) == len(GRANTS[name]["columns"]["people"])
        assert stars[1] == [("ann",)] if name == "column" else stars[1][0] == "syntax"
        assert stars[2][0] == "syntax"
    connection.close()
    assert len(COLUMN_TEMPLATES) >= 40


def test_what_a_grant_would_permit_is_an_error_of_sqlite_when_it_is_missing(plain: sqlite3.Connection) -> None:
    with (
        guarded(plain, grant(tables=["*"], operations=["select"])) as db,
        pytest.raises(StatementError, match=r"name: .* at gone"),
    ):
        db.execute("select * from gone")
    with guarded(plain, READER) as db:
        for sql, message in [
            ("select nosuch from sales", "name: .* at nosuch"),
            ("select nosuch from json_each('[1]')", "name: .* at nosuch"),
            ("select region frm sales", "syntax: .* at "),
            ("select nofunction(1)", "name: .* at nofunction"),
            ("select region from sales where id = ?", "parameters: "),
        ]:
            with pytest.raises(StatementError, match=message):
                db.execute(sql)
        for sql in ("select 1; select 2", "select 1\0", "select '\ud800'"):
            with pytest.raises(StatementError, match="syntax: "):
                db.execute(sql)


def test_a_table_that_is_missing_is_refused_even_if_the_text_was_not_understood(
    monkeypatch: pytest.MonkeyPatch, plain: sqlite3.Connection
) -> None:
    monkeypatch.setattr(Text, "mentions", ())
    with guarded(plain, READER) as db:
        assert [verdict(db, f"select 1 from {table}") for table in ("sales", "hr", "gone", "main.gone")] == [
            ALLOWED,
            *["table"] * 3,
        ]


def test_a_mistake_is_told_as_one_where_nothing_is_hidden(connection: sqlite3.Connection) -> None:
    with guarded(connection, grant(**GRANTS["columns"])) as db:
        for sql, message in [
            ("select nosuch from sales_view", "name: .* at nosuch"),
            ("select * from people wher id = 1", "syntax: .* at "),
            ("select *, nofunction(1) from sales", "name: .* at nofunction"),
        ]:
            with pytest.raises(StatementError, match=message):
                db.execute(sql)


def test_a_name_that_the_text_does_not_hold_is_for_the_operator_alone(connection: sqlite3.Connection) -> None:
    held = grant(allow={"trapped": ["insert", "update"]})
    with guarded(connection, held) as db, pytest.raises(Denied) as caught:
        db.execute("insert into trapped (amount) values (1)")
    assert "hr" in str(caught.value) and "hr" not in caught.value.decision.for_model() + caught.value.public


@pytest.mark.parametrize(
    "named", ["{}", "sales as with, {}", "sales as window, {}", "sales window, {}", "(select 1 as with), {}", "{} x", "main.{}", "(select 1 as with) join (select 2 as b) on with in (1), {}"]
)
def test_a_table_that_is_missing_is_refused_as_one_that_is_there(named: str) -> None:
    """The same words, whatever stands before it, and in whatever case it is written."""
    connection = sqlite3.connect(":memory:")
    connection.executescript("create table sales (region); create table hr (pay)")
    told = set()
    with guarded(connection, READER) as db:
        for table, written in (("hr", "hr"), ("hr", "HR"), ("nn", "nn"), ("nn", "NN")):
            with pytest.raises(Denied) as caught:
                db.execute(f"select 1 from {named.format(written)}")
            told.add(str(caught.value).replace(written, "-").replace(table, "-"))
    assert len(told) == 1
    connection.close()
