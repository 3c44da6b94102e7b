"""How long the SQLite guard lets one statement work: what it calls, and how large it gets while it is compiled (rule 11)."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from captoken import Denied
from captoken.adapters.sqlite import guarded
from tests.adapters.sqlite.test_sqlite import grant

COLUMNS = {"docs": ["id", "title", "body"]}


# --- how large it gets while it is compiled ---------------------------------------------------------------------------


def chain(first: str, body: Callable[[int], str], last: str) -> Callable[[int], str]:
    """A statement of so many queries of a WITH, each of which reads the one before."""
    return lambda many: f"with c0 as ({first}), {', '.join(f'c{n} as ({body(n)})' for n in range(1, many))} {last.format(many - 1)}"


def each(body: Callable[[int], str], last: Callable[[int], str]) -> Callable[[int], str]:
    return lambda many: f"with {', '.join(f'm{n} as ({body(n)})' for n in range(many))} {last(many)}"


HONEST = {
    "filters": chain("select * from sales", lambda n: f"select id, region, amount, day from c{n - 1} where amount > {n} and amount < 9{n} and day <> ''", "select region, sum(amount) from c{} group by region"),
    "filters, grouped": chain("select region, amount from sales", lambda n: f"select region, sum(amount) as amount from c{n - 1} where region <> '' group by region having sum(amount) > 0 order by region", "select region, amount from c{}"),
    "joins the table again": chain("select id, amount from sales", lambda n: f"select c.id, c.amount + s.day as amount from c{n - 1} c join sales s on s.id = c.id and s.amount = c.amount", "select * from c{}"),
    "months side by side": each(lambda n: f"select customer, sum(amount) as t from sales where day like '2025-{n}%' group by customer", lambda many: "select c.name, " + ", ".join(f"m{n}.t" for n in range(many)) + " from customers c " + " ".join(f"left join m{n} on m{n}.customer = c.id" for n in range(many))),
    "union of all": each(lambda n: f"select region, amount from sales where id % 9 = {n}", lambda many: "select region, sum(amount) from (" + " union all ".join(f"select * from m{n}" for n in range(many)) + ") group by region"),
    "funnel": chain("select distinct customer from sales where product = 0", lambda n: f"select distinct s.customer from sales s join c{n - 1} p on p.customer = s.customer where s.product = {n}", "select (select count(*) from c0), (select count(*) from c{})"),
    "in the one before": chain("select customer from sales", lambda n: f"select customer from sales where product = {n} and customer in (select customer from c{n - 1} where customer > 0)", "select count(*) from c{}"),
    "more columns": chain("select s.*, c.name, c.city from sales s join customers c on c.id = s.customer", lambda n: f"select *, amount * {n} as x{n} from c{n - 1}", "select * from c{}"),
    "window": chain("select id, amount, day from sales", lambda n: f"select id, amount, day, row_number() over (partition by day order by amount) as r{n} from c{n - 1} where amount is not null", "select * from c{}"),
    "views": each(lambda n: f"select region, sum(total) as t from twice where total > {n} group by region", lambda many: "select m0.region from m0 " + " ".join(f"join m{n} on m{n}.region = m0.region" for n in range(1, many))),
    "subqueries in FROM": lambda many: "select region, amount from " + "(select region, amount from " * many + "sales" + " where amount > 0 and amount < 9 order by amount)" * many,
    "scalar subqueries": lambda many: "select " + ", ".join(f"(select max(amount) from sales where id > {n} and id < 9{n})" for n in range(many)),
}  # fmt: skip


@pytest.fixture
def shop() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(
            """
            create table sales (id integer primary key, region, product, amount, day, customer);
            create table customers (id integer primary key, name, city);
            create view once as select s.*, c.city from sales s join customers c on c.id = s.customer;
            create view summed as select region, city, sum(amount) as total from once group by region, city;
            create view twice as select a.region, a.total, b.total as other from summed a join summed b on a.region = b.region;
            """
        )
        yield connection


@pytest.mark.parametrize("columns", [None, {"sales": ["id", "region", "product", "amount", "day", "customer"]}], ids=["all", "some"])
@pytest.mark.parametrize("many", [3, 6, 8, 13])
@pytest.mark.parametrize("text", HONEST.values(), ids=HONEST)
def test_honest_texts_run(shop: sqlite3.Connection, text: Callable[[int], str], many: int, columns: Any) -> None:
    """A dozen kinds, of up to thirteen queries each; and SQLite asks about one thing a few dozen times, of 2,000 that are let pass."""
    asked: Counter[tuple[Any, ...]] = Counter()

    def noted(*event: Any) -> int:
        asked[event] += 1
        return sqlite3.SQLITE_OK

    shop.set_authorizer(noted)
    shop.execute(f"explain {text(many)}").fetchall()
    shop.set_authorizer(None)
    assert max(asked.values()) < 100
    held = grant(tables=["sales", "customers"], operations=["select"], **({"columns": columns} if columns else {}))
    with guarded(shop, held) as db:
        db.execute(text(many))


GROWS = {
    "what it gives": chain("select id, amount as v from sales", lambda n: f"select id, v + v as v from c{n - 1} where v > 1", "select v from c{}"),
    "a case": chain("select id, amount as v from sales", lambda n: f"select id, case when v > {n} then v - 1 when v < 0 then 0 else v end as v from c{n - 1}", "select v from c{}"),
    "the clauses of a subquery that it gives": chain("select amount as v from sales", lambda n: f"select (select 1 from sales s where s.id = v and s.day = v) as v from c{n - 1}", "select v from c{}"),
    "those of a query in one": chain("select amount as v from sales", lambda n: f"select (select count(*) from (select id from sales s where s.id = v or s.day = v)) as v from c{n - 1}", "select v from c{}"),
    "both sides of USING": chain("select amount as v from sales", lambda n: f"select v from c{n - 1} full join (select v from c{n - 1}) using (v)", "select v from c{}"),
    "the second of a union": chain("select amount as v from sales", lambda n: f"select 1 as v from sales where id > 1 union all select v + v as v from c{n - 1}", "select v from c{}"),
    "a share of the sum": chain("select amount as v from sales", lambda n: f"select v * 1.0 / (select sum(v) from c{n - 1}) as v from c{n - 1}", "select v from c{}"),
}  # fmt: skip


@pytest.mark.parametrize("text", GROWS.values(), ids=GROWS)
def test_what_grows_with_each_of_its_lines_is_refused(shop: sqlite3.Connection, text: Callable[[int], str]) -> None:
    """A few lines of it are let pass, and twenty never."""
    held = grant(tables=["sales", "customers"], operations=["select"])
    with guarded(shop, held) as db:
        db.execute(text(4))
        with pytest.raises(Denied, match="SQLite makes the statement too large"):
            db.execute(text(20))
