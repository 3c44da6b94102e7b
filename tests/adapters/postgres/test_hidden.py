"""What the PostgreSQL guard tells: two databases that differ in everything hidden answer alike, word for word.

One has what a token does not name: more columns in the tables that it restricts, other tables, views, types and functions. The
other has none of it. Each statement is asked in both. Columns, rows, the class of an error, its text, its code, and what the model
is told have to be the same. The names that statements are made of are those of what is hidden, those of what is granted, and
some that are in neither database.

Not hidden, and so the same in both: functions of the owner's that are called like a granted one of PostgreSQL's own; constraints.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from captoken import Denied, Grant, Issuer, Keyring, Verifier
from captoken.adapters.postgres import Database, Role, apply_plan, guarded
from captoken.errors import StatementError
from tests.longer import drawing, times

KEYRING = Keyring.from_keys({"k1": bytes(range(32))}, current="k1")
NOW = 1_764_061_200

SHOWN = """
create table people (id integer primary key, name text, region text);
create table sales (id integer primary key, region text, amount integer, doc jsonb default '{"a": 1}');
create table moods (id integer, label text);
create schema market;
create table market.notes (ts integer, note text);
insert into people values (1, 'ann', 'eu'), (2, 'bob', 'us');
insert into sales values (1, 'eu', 10), (2, 'us', 20), (3, 'eu', 30);
insert into moods values (1, 'x');
insert into market.notes values (1, 'n');
"""
# Columns that a token does not name are in both, so that both have some.
OTHERS = """
alter table people add column other integer default 5;
alter table market.notes add column other integer default 5;
alter table moods add column other integer default 5;
"""
HIDDEN = """
alter table people add column pay integer default 900, add column ssn text default 's-1', add column max integer default 7,
    add column amount integer default 8, add column zzz text default 'z', add column q text default 'q', add column doc jsonb default '{"hidden": 1}';
alter table market.notes add column hidden text default 'h', add column count integer default 3, add column to_json text default 'j';
create type mood as enum ('glad', 'sad');
alter table moods add column mood mood default 'glad', add column id2 integer default 1;
create table hr (id integer, pay integer, name text, region text);
create table region (id integer, note text);
insert into hr values (1, 900, 'ann', 'eu');
create view secret as select * from hr;
create schema hidden;
create table hidden.sales (id integer, amount integer);
create type pair as (x integer, y integer);
create domain cents as integer check (value > 0);
create function spill(people) returns text language sql security definer as 'select ''spilled''::text';
create function spill(text) returns text language sql security definer as 'select ''spilled''::text';
create function spill(integer) returns text language sql security definer as 'select ''spilled''::text';
create function label(record) returns text language plpgsql as 'begin return ''labelled''; end';
create function peek() returns setof text language sql security definer as 'select name from hr';
grant usage on schema hidden to public;
"""
COLUMNS = {"people": ["id", "name", "region"], "market.notes": ["ts", "note"], "moods": ["id", "label"]}
ALLOW = {"people": ["select", "insert", "update"], "sales": ["select"], "market.*": ["select"], "moods": ["select"]}


def tokens() -> dict[str, Grant]:
    def made(**keywords: Any) -> Grant:
        token = Issuer(KEYRING, clock=lambda: NOW).mint(subject="user:jane", agent="analyst", task="t", **keywords)
        return Verifier(KEYRING, clock=lambda: NOW).authenticate(token.serialize())

    return {
        "by the token": made(allow=ALLOW, columns=COLUMNS),
        "by the role": made(allow={**ALLOW, "hr": ["select"]}),  # the token has no columns, and a table that no role has
    }


@pytest.fixture(scope="module")
def twins(postgres_server: Any) -> Iterator[list[Callable[[str], str]]]:
    """The one without and the one with, each with two logins: the roles of one have the columns, those of the other all."""
    found: list[Callable[[str], str]] = []
    for name, schema in (("bare", SHOWN + OTHERS), ("full", SHOWN + HIDDEN)):
        with psycopg.connect(postgres_server.conninfo, autocommit=True) as connection:
            connection.execute(f"drop database if exists twin_{name}")
            connection.execute(f"create database twin_{name}")
        conninfo = postgres_server.conninfo.replace("dbname=postgres", f"dbname=twin_{name}")
        with psycopg.connect(conninfo, autocommit=True) as admin:
            admin.execute(schema)
            apply_plan(admin, "twins_narrow", Role("twin_narrow", ALLOW, COLUMNS))
            apply_plan(admin, "twins_wide", Role("twin_wide", ALLOW))
        found.append(lambda login, conninfo=conninfo: conninfo.replace("user=postgres", f"user={login}"))  # type: ignore[misc]
    yield found


def answer(db: Database, sql: str) -> tuple[Any, ...]:
    """All that whoever wrote the statement gets to see."""
    try:
        rows = db.execute(sql)
    except Denied as denied:
        return ("denied", denied.code, str(denied), denied.public, denied.decision.for_model(), denied.decision.needed)
    except StatementError as error:
        return (error.code, str(error), error.state, error.for_model())
    return ("rows", rows.columns, sorted(map(repr, rows)))  # in whichever order: wide rows are joined in another one


def told_apart(twins: list[Callable[[str], str]], login: str, grant: Grant, statements: list[str]) -> tuple[list[str], int, int]:
    """The statements that are answered in two ways; how many gave rows, and how many errors of the database."""
    apart: list[str] = []
    rows = failed = 0
    for begin in range(0, len(statements), 50):
        with ExitStack() as stack:
            both = []
            for conninfo in twins:
                connection = stack.enter_context(psycopg.connect(conninfo(login)))
                both.append(stack.enter_context(guarded(connection, grant)))
            for sql in statements[begin : begin + 50]:
                bare, full = (answer(db, sql) for db in both)
                rows += bare[0] == "rows"
                failed += bare[0] not in ("rows", "denied")
                if bare != full:
                    apart.append(f"{sql}\n    {bare}\n    {full}")
            for db in both:
                db.execute("select 1")
    return apart, rows, failed


# By hand: each of these told something once, or could.
TOLD = [
    "select pay from people, (select 1 as pay) q", "select zz from people, (select 1 as zz) q", "select pay from people", "select nope from people",
    "select p.pay from people p", "select p.nope from people p", "select q._hr from (select 1 as a) q", "select q._nope from (select 1 as a) q",
    "select q.hr from (select 1 as a) q", "select q.spill from (select 1 as a) q", "select q.secret from (select 1 as a) q",
    "select q.mood from (select 'glad'::text as a) q", "select ('glad').mood", "select ('glad').nope", "select 'glad'::mood", "select 'nope'::mood",
    "select 'glad'::nope", "select null::hr", "select null::nope", "select null::pair", "select 1::cents", "select ('(1,2)').pair", "select (1).cents",
    "select * from hr", "select * from nope", "select * from hidden.sales", "select * from hidden.nope", "select * from nope.nope",
    "select * from market.nope", "select * from market.notes", "select hr.id from sales", "select nope.id from sales", "select secret from sales",
    "select spill('x')", "select nope('x')", "select spill(p) from people p", "select p.spill from people p", "select s.spill from sales s",
    "select (s.region).spill from sales s", "select (s).region from sales s", "select (p).region from people p", "select ('x').region",
    "select (q).region from (select 1 as region) q", "select (q).hr from (select 1 as hr) q", "select q.region from (select 1 as region) q",
    "select j.pay from (people p cross join (select 1 as pay) q) as j", "select j.nope from (people p cross join (select 1 as nope) q) as j",
    "select j.spill from (people p cross join sales s) as j", "select j.to_json from (people p cross join sales s) as j",
    "select 1 from people natural join (select 1 as pay) q", "select 1 from people natural join (select 1 as nope) q",
    "select 1 from people join (select 1 as pay) q using (pay)", "select 1 from people join (select 1 as nope) q using (nope)",
    "select 1 from people p join sales s using (id) join (select 1 as amount) q using (amount)",
    "select (select pay) from people", "select (select nope) from people", "select (select amount from sales limit 1) from people",
    "select (select 1 from sales where pay = 1) from people", "select (select doc from sales limit 1) from people", "select doc from people, sales",
    "select id as pay from people where pay = 1", "select id as pay from people order by pay", "select id as nope from people order by nope",
    "select id as pay from people group by pay", "select id as nope from people group by nope", "select id as pay from people order by pay + 1",
    "select upper(name) as zzz from people group by zzz", "select upper(name) as zzz from people order by zzz", "select distinct on (zzz) name as zzz from people",
    "select id as pay from people union select 1 order by pay", "select id from people union select 1 order by pay",
    "select (select 1 as a union select 2 order by pay limit 1) from people", "select (select 1 as a union select 2 order by nope limit 1) from people",
    "select b from people as p(a, b, c)", "select d from people as p(a, b, c, d)", "select a from people as p(a, b, c, d, e, f, g, h, i, j, k)",
    "select m.max from market.notes m", "select n.count from market.notes n", "select n.to_json from market.notes n", "select n.min from market.notes n",
    "select id2 as id2 from moods", "select mood from moods", "select m.mood from moods m", "select 'glad'::mood from moods", "select label from moods",
    "select m.label from moods m", "select (m).label from moods m", "select (m.id).label from moods m", "select q.label from (select m.id from moods m) q",
    "insert into people values (7, 'x', 'y')", "insert into people values (7, 'x', 'y', 1)", "insert into people (id, pay) values (7, 1)",
    "insert into people (id, nope) values (7, 1)", "insert into people (id) values (7) returning pay", "insert into people (id) values (7) returning nope",
    "insert into people (id) values (7) returning id", "insert into people (id) values (7) on conflict (pay) do nothing",
    "insert into people (id) values (7) on conflict (nope) do nothing", "insert into people (id) select pay from sales", "insert into people (id) values (1, 2)",
    "update people set pay = 1", "update people set nope = 1", "update people set name = ssn", "update people set name = nope", "update people set name = 'x' returning id",
    "update people set name = q.ssn from (select 'x' as ssn) q", "update people set name = ssn from (select 'x' as ssn) q",
    "update people set name = nope from (select 'x' as nope) q", "update people set (name, pay) = ('x', 1)",
    "select count(*) from people where region = 1", "select name + 1 from people", "select max(name, 1) from people", "select id from people group by name",
    "select * from people", "select p from people p", "select count(*) from people", "select row_to_json(p) from people p", "select id from people p where p is null",
    "select xmin from people", "select p.ctid from people p", "select s.ctid from sales s",
    "with hr as (select 1 as id) select id from hr", "with q as (select 1 as pay) select pay from q", "with q as (select 1 as pay) select (select pay from q) from people",
    "with q as (select 1 as pay) select pay from q, people", "select pay from generate_series(1, 2) pay, people", "select pay from generate_series(1, 2) pay",
    "select value from people, json_each('{}')", "select p.name, e.value from people p, json_each('{}') e", "select people.id, pay.pay from people, generate_series(1, 2) pay",
    "select id from people for update", "select * from people tablesample system (1)", "select 1 from people where (1, 2) in (select id, 2 from sales)",
    "select 1 from people where 1 in (select id, 2 from sales)", "select name from people union select 1, 2", "select sum(pay) over () from people",
    "selct 1", "select", "select 1; select pay from people", "select spill", "select q.q from (select id as q from people) q", "select q from (select id as a from people) q",
    "select (select q from sales q limit 1) from people", "select (select q.amount from sales q limit 1) from people q", "select q from sales q, people",
]  # fmt: skip


@pytest.mark.parametrize(("login", "token"), [("twins_wide", "by the token"), ("twins_narrow", "by the token"), ("twins_narrow", "by the role")])
def test_what_told_something_once_is_told_no_more(twins: list[Callable[[str], str]], login: str, token: str) -> None:
    apart, rows, failed = told_apart(twins, login, tokens()[token], TOLD)
    assert not apart, "\n".join(apart)
    assert rows > 25 and failed > 5


# Mistakes that PostgreSQL finds in what was granted: of types, operators, functions, and counts.
MISTAKES = [
    "select name + 1 from people", "select round(id::float8, 2) from people", "select upper(id) from people", "select sum(name) from people",
    "select id from people union select name from people", "select coalesce(id, 'a', name) from people", "select array[id, name] from people",
    "select case when name then 1 end from people", "select id from people where name", "select 1 from people where id in (select name from people)",
    "select (id, name) = (name, id) from people", "select id::date from people", "select id[1] from people", "select name = any(id) from people",
    "select id collate \"C\" from people", "select p.name from people p join (select 'a'::text as id) q using (id)", "select 1 from people where 1 in (select id, 2 from people)",
    "update people set name = id::date", "insert into people (id) values (1, 2)", "update people set name = 'x', name = 'y'",
]  # fmt: skip


@pytest.mark.parametrize(("login", "token"), [("twins_wide", "by the token"), ("twins_narrow", "by the token"), ("twins_narrow", "by the role")])
def test_a_mistake_in_what_is_granted_is_told_as_what_it_is(twins: list[Callable[[str], str]], login: str, token: str) -> None:
    """A type, a name or a count: never a denial, and the same in both."""
    said = []
    for conninfo in twins:
        with psycopg.connect(conninfo(login)) as connection, guarded(connection, tokens()[token]) as db:
            said.append([answer(db, sql) for sql in MISTAKES])
    assert said[0] == said[1]
    assert {told[0] for told in said[0]} == {"name", "type", "syntax", "value"} and not any("does not exist" in told[1] for told in said[0] if told[0] == "type")


NAMES = ["id", "name", "region", "amount", "doc", "ts", "note", "label"]
DOUBTED = ["pay", "ssn", "max", "zzz", "q", "hr", "_hr", "region", "secret", "spill", "mood", "pair", "cents", "count", "to_json", "label",
           "hidden", "id2", "nope", "_nope", "glad", "value", "key", "lower", "f1"]  # fmt: skip
ALIASES = ["q", "p", "s", "j", "pay", "hr", "amount", "nope", "people"]
TABLES = ["people", "people", "people", "sales", "market.notes", "moods", "hr", "nope", "secret", "market.nope"]


class Writer:
    """Writes statements at random: most of them parse, and some run."""

    def __init__(self, source: random.Random) -> None:
        self._draw = source
        self._doubts = 3
        self._near = ["q"]  # what the last items of a FROM go by

    def statement(self) -> str:
        self._doubts = self.one_of((2, 3, 30, 60))
        made = self._draw.randrange(12)
        if made == 0:
            return f"update people set {self.name()} = {self.value(1)} {self.maybe('where ' + self.value(1) + ' is null')} {self.maybe('returning ' + self.value(1))}"
        if made == 1:
            return f"insert into people ({self.name()}) values ({self.value(1)}) {self.maybe('returning ' + self.value(1))}"
        if made == 2:
            return f"with {self.alias()} as ({self.query(1)}) {self.query(2)}"
        return self.query(self.one_of((0, 0, 0, 1, 2, 3)))

    def one_of(self, of: tuple[int, ...]) -> int:
        return self._draw.choice(of)

    def one(self, of: list[str]) -> str:
        return self._draw.choice(of)

    def maybe(self, what: str, often: int = 3) -> str:
        return what if self._draw.randrange(often) == 0 else ""

    def name(self) -> str:
        return self.one(DOUBTED if self._draw.randrange(self._doubts) == 0 else NAMES)

    def alias(self) -> str:
        return self.one(ALIASES)

    def qualifier(self) -> str:
        return self.one(self._near[-2:]) if self._draw.randrange(4) else self.alias()

    def query(self, deep: int) -> str:
        items = self.items(deep)
        values = ", ".join(self.value(deep) + self.maybe(f" as {self.name()}") for _ in range(self._draw.randrange(1, 3)))
        return (
            f"select {self.maybe('distinct ', 8)}{values} from {items} {self.maybe('where ' + self.value(deep) + ' is not null')} "
            f"{self.maybe('group by ' + self.name(), 6)} {self.maybe('order by ' + self.name(), 4)} "
            f"{self.maybe('union select ' + self.value(0), 9)} {self.maybe('limit 100', 9)}"
        )

    def items(self, deep: int) -> str:
        first = self.item(deep)
        made = self._draw.randrange(9)
        if made < 3:
            return first
        second = self.item(deep)
        joins = [
            f"{first}, {second}", f"{first} cross join {second}", f"{first} join {second} using ({self.name()})", f"{first} natural join {second}",
            f"{first} join {second} on {self.value(0)} is null", f"({first} cross join {second}) as {self.alias()}{self.maybe('(a, pay)', 4)}",
        ]  # fmt: skip
        return self.one(joins)

    def item(self, deep: int) -> str:
        made = self._draw.randrange(8)
        if made < 5 or deep == 0:
            table = self.one(TABLES[: 10 if self._doubts < 9 else 6])
            self._near.append(table)
            return table if self._draw.randrange(2) else f"{table} as {self.called()}{self.maybe('(a, pay)', 6)}"
        if made == 5:
            return f"generate_series(1, 2) as {self.called()}"
        return f"{self.maybe('lateral ', 4)}({self.query(deep - 1)}) as {self.called()}{self.maybe('(pay)', 6)}"

    def called(self) -> str:
        self._near.append(self.alias())
        return self._near[-1]

    def value(self, deep: int) -> str:
        made = self._draw.randrange(16)
        if made < 5:
            return self.name()
        if made < 9:
            return f"{self.qualifier()}.{self.name()}"
        if made == 9:
            return self.one(["1", "'x'", "'glad'"])
        if made == 10:
            return f"({self.value(0)}).{self.name()}"
        if made == 11:
            return f"{self.one(['max', 'count', 'lower', 'to_json', 'spill', 'nope'])}({self.value(0)})"
        if made == 12:
            return f"{self.value(0)}::{self.one(['text', 'integer', 'mood', 'hr', 'nope', 'cents'])}"
        if made == 13:
            return self.one(["*", f"{self.qualifier()}.*"])
        if deep == 0:
            return self.name()
        return f"(select {self.value(deep - 1)} {self.maybe('from ' + self.items(deep - 1), 2)} order by 1 limit 1)"


@pytest.mark.parametrize(("login", "token"), [("twins_wide", "by the token"), ("twins_narrow", "by the role")])
def test_two_databases_that_differ_in_what_is_hidden_answer_alike(twins: list[Callable[[str], str]], login: str, token: str) -> None:
    writer = Writer(drawing(f"told, {login}"))
    statements = [writer.statement() for _ in range(times(1_500))]
    apart, rows, failed = told_apart(twins, login, tokens()[token], statements)
    assert not apart, f"{len(apart)}:\n" + "\n".join(apart[:20])
    assert rows > 12 and failed > 12
