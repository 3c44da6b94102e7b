"""What tells of earlier statements, and what a statement costs: asked before it runs."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from captoken import Denied
from captoken.adapters.sqlite import guarded
from tests.adapters.sqlite.test_sqlite import READER, grant, paying, verdict
from tests.adapters.sqlite_corpus import ALLOWED


class TestFunctions:
    """Rule 7."""

    def test_what_tells_of_earlier_statements_is_refused_until_the_block_wrote(self, plain: sqlite3.Connection) -> None:
        plain.execute("insert into hr (id, pay) values (4711, 1)")
        plain.execute("create table keyed (a text primary key) without rowid")
        held = grant(tables=["sales", "keyed"], operations=["select", "insert", "update"])
        with guarded(plain, held) as db:
            calls = ["select last_insert_rowid()", "select changes()", "select total_changes()"]
            assert [verdict(db, sql) for sql in calls] == ["operation"] * 3
            db.execute("insert or ignore into sales (id, amount) values (1, 1)")  # inserts nothing
            assert [verdict(db, sql) for sql in calls] == ["operation", ALLOWED, "operation"]
            db.execute("insert into sales (id, amount) values (1, 1) on conflict (id) do update set amount = 2")
            db.execute("insert into keyed values ('x')")
            assert verdict(db, calls[0]) == "operation"
            db.execute("insert into sales (id, amount) values (33, 1)")
            assert db.execute(calls[0]).fetchall() == [(33,)] and db.execute(calls[1]).fetchall() == [(1,)]
            assert verdict(db, calls[2]) == "operation"
        with guarded(plain, held) as db:
            assert [verdict(db, sql) for sql in calls] == ["operation"] * 3
            assert db.execute("update sales set amount = 7").rowcount == 3
            assert db.execute(calls[1]).fetchall() == [(3,)] and verdict(db, calls[0]) == "operation"

    def test_a_name_of_sqlites_own_that_the_owner_has_taken(self, plain: sqlite3.Connection) -> None:
        with guarded(plain, READER) as db:
            assert verdict(db, "select upper(region) from sales") == ALLOWED
        plain.create_function("upper", 3, lambda *given: None)
        with guarded(plain, READER) as db:
            assert verdict(db, "select upper(region) from sales") == "operation"
            assert verdict(db, "select lower(region) from sales") == ALLOWED


@pytest.mark.parametrize("cost", [{"cents": 3}, lambda sql, parameters: {"cents": 3}], ids=["always the same", "by statement"])
def test_a_statement_takes_what_it_costs_of_a_budget_once(cost: Any, plain: sqlite3.Connection) -> None:
    plain.execute("create table people (id, name, ssn)")
    one, spent = paying()
    with guarded(plain, one, cost=cost) as db:
        assert verdict(db, "select * from sales, people") == ALLOWED and spent() == 3, "however many tables"
        assert verdict(db, "select * from hr") == "table" and spent() == 3, "what is denied takes nothing"
        assert verdict(db, "select 1") == ALLOWED and spent() == 3, "and so what touches no table"
        assert verdict(db, "update sales set amount = 1") == ALLOWED and spent() == 6
        assert verdict(db, "update sales set amount = 1") == ALLOWED and spent() == 9
        assert verdict(db, "select * from sales") == "budget_exhausted" and spent() == 9
    assert plain.execute("select distinct amount from sales").fetchall() == [(1,)], "committed, and asked about once more"


def test_what_a_statement_costs_is_told_by_its_text_and_parameters(plain: sqlite3.Connection) -> None:
    asked: list[Any] = []

    def cost(sql: str, parameters: Any) -> dict[str, int]:
        asked.append((sql, parameters))
        return {"cents": 0 if sql == "select :n from sales" else parameters["n"]}

    one, spent = paying()
    with guarded(plain, one, cost=cost) as db:
        for sql, n, total in (
            ("select :n from sales", 5, 0),
            ("select :n, 1 from sales", 5, 5),
            ("select :n, 1 from sales", 4, 9),
        ):
            db.execute(sql, {"n": n})
            assert asked[-1] == (sql, {"n": n}) and spent() == total
        assert verdict(db, "select :n, 1 from sales", {"n": 2}) == "budget_exhausted"


def test_without_a_cost_a_token_with_a_budget_permits_nothing_and_the_denial_says_what_to_write(
    plain: sqlite3.Connection,
) -> None:
    one, _ = paying()
    for cost in (None, {}, {"eur": 1}, lambda sql, parameters: {}):
        with guarded(plain, one, cost=cost) as db, pytest.raises(Denied) as caught:
            db.execute("select * from sales")
        assert caught.value.code == "cost_unstated" and 'cost={"cents": 0}' in str(caught.value)
    with guarded(plain, one, cost={"cents": 0}) as db:
        assert verdict(db, "select * from sales") == ALLOWED


def test_what_is_no_cost_is_told_before_anything_ran(plain: sqlite3.Connection) -> None:
    one, spent = paying()
    before = list(plain.iterdump())
    with pytest.raises(TypeError, match="cost"), guarded(plain, one, cost={"cents": 1.5}):  # type: ignore[dict-item]
        pass
    for wrong in (lambda sql, parameters: None, lambda sql, parameters: {"cents": -1}, lambda sql, parameters: 1 / 0):
        with pytest.raises((TypeError, ValueError, ZeroDivisionError)), guarded(plain, one, cost=wrong) as db:  # type: ignore[arg-type]
            db.execute("update sales set amount = 1")
    assert spent() == 0 and list(plain.iterdump()) == before
