"""Texts that differ in literals alone: each is judged, and answered, as by its own text, whichever came first.

The shape is a text of its own, in which values are bound: so what is judged is what runs. What is drawn here is that it means the
same: rows, names of columns, counts, errors, what is refused and what is left in the database. And that the grant is asked about
what the text itself needs.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from captoken import Denied
from captoken._language.access import Access
from captoken.adapters._sqlite.lexer import SPACED
from captoken.adapters._sqlite.plan import Plan
from captoken.adapters._sqlite.planner import Planner
from captoken.adapters._sqlite.shapes import Shape, shape_of
from captoken.adapters._sqlite.text import Text
from captoken.adapters._sqlite.trial import engine_of
from captoken.adapters._sqlite.watch import Watch
from captoken.adapters.sqlite import Connection, guarded
from captoken.errors import StatementError
from tests.adapters.sqlite.test_sqlite import grant
from tests.longer import drawing, times

SCHEMA = """
create table people (id integer primary key, name text collate nocase, city text, pay integer, rate real, tags text check (tags <> 'never'),
    low text generated always as (lower(city)) stored, twice integer as (pay * 2));
create unique index by_name on people (name);
create index by_city on people (city) where pay > 5;
create index by_tag on people (json_extract(tags, '$.a'));
create index by_sum on people (pay + 5);
create index by_rate on people (rate, city);
create table exact (id integer primary key, body text, n integer, r real, b blob, a any) strict;
create table pairs (a text, b integer, c, primary key (a, b)) without rowid;
create unique index few on pairs (c) where b = 1;
create table notes (id integer primary key, person integer references people (id) on delete cascade, body text, at text default 'x');
create view rich as select id, name, pay + 1 as more from people where pay > 5 and city <> 'x';
create trigger noted after update of city on people when new.city = 'eu' begin insert into notes (person, body) values (new.id, 'moved'); end;
insert into people (id, name, city, pay, rate, tags) values (1, 'ann', 'eu', 7, 1.5, '{"a": 1}'), (2, 'Bob', 'us', 2, 0.1, '{"a": "x"}'),
    (3, 'cy', 'eu', 9, null, '[]'), (4, 'it''s', '', null, 2.5, null), (7, '1', '1', 1, 1.0, '{}');
insert into exact values (1, 'eu', 1, 1.5, x'00', 'x'), (2, '1', 7, 1.0, null, 1);
insert into pairs values ('eu', 1, 1), ('eu', 2, '1'), ('1', 1, 7.0), ('a', 1, 'a');
insert into notes values (1, 1, 'eu', '2026-01-01'), (2, 3, '1', 'x');
"""
ALL = grant(tables=["*"], operations=["*"])
SOME = grant(
    tables=["*"], operations=["*"], columns={"people": ["id", "name", "city", "rate", "tags"], "exact": ["id", "body", "n"]}
)
ROWS = grant(tables=["*"], operations=["*"], rows={"people": {"city": {"in": ["eu", "1"]}}})
GRANTS = {"all": ALL, "some columns": SOME, "some rows": ROWS, "reading": grant(tables=["*"], operations=["select"])}


@pytest.mark.parametrize(
    ("sql", "shape", "values"),
    [
        ("select name from t where id = 7 and city = 'it''s' limit 5", "select name from t where id = ? and city = ? limit 5", (7, "it's")),
        ("select * from t where a in (1, 'x', 2.50) or -7 < b", "select * from t where a in (?, ?, ?) or -? < b", (1, "x", 2.5, 7)),
        ("insert into t (a, 'b') values (1, 'x'), (2, '')", "insert into t (a, 'b') values (?, ?), (?, ?)", (1, "x", 2, "")),
        ("update t set a = 1, b = a || 'x' where c between 1 and 2", "update t set a = ?, b = a || ? where c between ? and ?", (1, "x", 1, 2)),
        # What a query gives, what orders and groups, what is called, and what is nested in that.
        ("select 1, a + 2, (select b from u where c = 3) from t where d = 4", "select 1, a + 2, (select b from u where c = 3) from t where d = ?", (4,)),
        ("select a from t where b = 1 group by 1, a + 2 having c > 3 order by 4", "select a from t where b = ? group by 1, a + 2 having c > ? order by 4", (1, 3)),
        ("select count(*) filter (where a = 1) from t where b = 2", "select count(*) filter (where a = 1) from t where b = ?", (2,)),
        ("select a is distinct from 1, 2 from t where a is not distinct from 3", "select a is distinct from 1, 2 from t where a is not distinct from 3", None),
        ("delete from t where a = 1 returning b + 2", "delete from t where a = ? returning b + 2", (1,)),
        ("select a from t where trim(b, 'x') = 'y' and json_extract(c, '$.a') = 1", "select a from t where trim(b, 'x') = ? and json_extract(c, '$.a') = ?", ("y", 1)),
        ("select a from t where b -> 'x' = 1 and c ->> 'y' > 'z' and d >'w'", "select a from t where b -> 'x' = ? and c ->> 'y' > ? and d >?", (1, "z", "w")),
        ("select a from t where b like 'x%' and c glob 'y' and d not like 'z' and e = 1", "select a from t where b like 'x%' and c glob 'y' and d not like 'z' and e = ?", (1,)),
        # Names, and strings where a name stands.
        ("""select a 'x' from t 'u' where "y" = [z] and b = 1""", """select a 'x' from t 'u' where "y" = [z] and b = ?""", (1,)),
        ("select a from t where b collate 'nocase' = 'x' and 1 in 'u'", "select a from t where b collate 'nocase' = ? and 1 in 'u'", ("x",)),
        # Not as Python reads it, or not at all.
        ("select a from t where b = x'00' and c = 0x10 and d = 1e3 and e = 1_0 and f = .5 and g = 1", "select a from t where b = x'00' and c = 0x10 and d = 1e3 and e = 1_0 and f = .5 and g = ?", (1,)),
        ("select a from t where b = 9223372036854775807", "select a from t where b = ?", (9223372036854775807,)),
        ("select a from t where b = 9223372036854775808", None, None),
        ("select a from t where 0 and b = 1 or 'x' having (2) and not 3", "select a from t where 0 and b = ? or 'x' having (2) and not 3", (1,)),
        ("select a from t where b = 0.1234567890123456", None, None),
        ("select a from t where b = 1e-5", None, None),
        ("select a from t where b = null and c = true", None, None),
        ("select a from t where b = 'x", None, None),
        ("select a from t where b = 'x''", None, None),
        # With parameters of its own, or a join that compares columns by their names.
        ("select a from t where b = 1 and c = ?", None, None),
        ("select a from t where b = 1 and c = :c", None, None),
        ("select a from t natural join u where b = 1", None, None),
        ("select a from t join u using (a) where b = 1", None, None),
        ("select a from t where b in (" + "1, " * 100 + "1)", None, None),
        ("select a /* where b = 1 */ from t -- where c = 2", None, None),
        ("with u as (select 1 as a where 2 = 3) select * from u where a = (4)", "with u as (select 1 as a where 2 = ?) select * from u where a = (?)", (3, 4)),
        (") select a from t where b = 1", ") select a from t where b = ?", (1,)),
    ],
)  # fmt: skip
def test_the_shape_of_a_text(sql: str, shape: str | None, values: tuple[Any, ...] | None) -> None:
    assert shape_of(sql) == (None if values is None or shape is None else Shape(shape, values))


def test_a_shape_is_looked_at_once_for_all_of_its_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    look = Watch.look
    engine_of(sqlite3.Connection)

    def noted(watch: Watch, sql: str, parameters: Any) -> Any:
        looks.append(sql)
        return look(watch, sql, parameters)

    monkeypatch.setattr(Watch, "look", noted)
    for factory in (sqlite3.Connection, Connection):
        looks.clear()
        with closing(opened(factory)) as connection:
            for _ in range(2):
                with guarded(connection, ALL) as db:
                    for at in (1, 2, 3):
                        assert db.execute(f"select id from people where id = {at}").fetchall() == [(at,)]
                        assert db.execute(f"select id from people where id = {at}").fetchall() == [(at,)]
                    assert db.execute("select id from people where id = 'x'").fetchall() == []
        assert len(looks) == (2 if factory is sqlite3.Connection else 1)


def test_parameters_that_a_text_has_no_place_for_are_wrong_whatever_came_before() -> None:
    sql = "select id from people where id = 1"
    with closing(opened()) as connection, guarded(connection, ALL) as db:
        for _ in range(2):
            assert db.execute(sql).fetchall() == [(1,)]
            with pytest.raises(StatementError, match="parameters"):
                db.execute(sql, (2,))


def test_what_the_owners_python_makes_of_bound_values_is_no_part_of_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter of str would change what is bound, and not what is written."""
    kinds = {**sqlite3.adapters, (str, sqlite3.PrepareProtocol): str.upper}
    monkeypatch.setattr(sqlite3, "adapters", kinds)
    assert shape_of("select id from people where name = 'ann'") is None


def test_what_a_shape_is_refused_for_is_told_of_the_text() -> None:
    held = grant(tables=["people"], operations=["select"], columns={"people": ["id", "name"]})
    with closing(opened()) as connection, guarded(connection, held) as db:
        for _ in range(2):
            for sql, told in (
                ("select id from people where pay = 7", "name: .*at pay"),
                ("select id from people where name = 'x' from", "syntax: "),
                ("select id from exact where n = 7", "table: .*exact"),
                ("delete from people where id = 7", "column: .*people"),
            ):
                with pytest.raises((Denied, StatementError), match=told):
                    db.execute(sql)


class Writer:
    """Draws statements, and others of the same shape: literals are marks, and each mark gets a value of its own."""

    VALUES = ("0", "1", "2", "7", "5", "007", "9223372036854775807", "9223372036854775808", "1.5", "0.1", "1.0", "1e1", ".5", "0x7", "'eu'", "'us'",
              "'it''s'", "''", "'1'", "'1.0'", "'a%'", "'x'", "'$.a'", "'name'", "'people'", "'nocase'", "x'00'", "null", "true")  # fmt: skip
    NAMES = ("id", "name", "city", "pay", "rate", "tags", "low", "twice", "p.id", "people.city", '"eu"', '"city"', "rowid")

    def __init__(self, drawn: random.Random) -> None:
        self.drawn = drawn

    def one(self, *choices: str) -> str:
        return self.drawn.choice(choices)

    def maybe(self, text: str, often: float = 0.3) -> str:
        return text if self.drawn.random() < often else ""

    def filled(self, text: str) -> str:
        """The text, with values of this drawing: in most places any, in some one of the same kind."""
        while "§" in text:
            text = text.replace("§", self.drawn.choice(self.VALUES[:21] if self.drawn.random() < 0.8 else self.VALUES), 1)
        return text

    def again(self, sql: str) -> str:
        """Another text of the same shape. If it has none, the same text."""
        shape = shape_of(sql)
        if shape is None:
            return sql
        bound = [value for value in self.VALUES if shape_of(f"select a from t where b = {value}")]
        tokens = SPACED.findall(shape.sql)
        return "".join(skipped + (self.drawn.choice(bound) if other == "?" else word + other) for skipped, word, other in tokens)

    def value(self, depth: int = 0) -> str:
        made = self.drawn.randrange(16 if depth < 3 else 8)
        if made < 4:
            return self.drawn.choice(self.NAMES[:9])
        if made < 7:
            return "§"
        if made == 7:
            return self.drawn.choice(self.NAMES)
        inner = self.value(depth + 1)
        if made < 10:
            return f"{inner} {self.one('+', '-', '*', '%', '||', '=', '<', '<>', 'is', 'is not', '>>', '&', 'and', 'or')} {self.value(depth + 1)}"
        if made == 10:
            return self.one(f"-{inner}", f"({inner})", f"not {inner}", f"{inner} collate {self.one('nocase', 'binary')}", f"cast({inner} as {self.one('text', 'integer', 'varchar(7)', 'real')})")  # fmt: skip
        if made == 11:
            return self.one(f"length({inner})", f"substr({inner}, §, §)", f"coalesce({inner}, §)", f"trim({inner}, §)", "json_extract(tags, §)", f"printf('%s', {inner})", f"iif({inner}, §, §)", f"abs({inner})", f"max({inner}, §)", f"typeof({inner})", f"likelihood({inner}, 0.5)")  # fmt: skip
        if made == 12:
            return f"{inner} {self.maybe('not ')}{self.one('in (§, §)', 'between § and §', 'like §', 'glob §', 'like § escape §', 'in (select b from pairs where a = §)', 'in pairs')}"
        if made == 13:
            return f"case {self.maybe(inner)} when § then § else {self.value(depth + 1)} end"
        if made == 14:
            return f"tags {self.one('->', '->>')} §"
        return f"(select {self.one('max(b)', 'b', 'count(*)')} from pairs where {self.one('a', 'b', 'c')} = {self.value(depth + 1)})"

    def query(self, depth: int = 0) -> str:
        items = ", ".join(self.value(1) + self.maybe(f" as {self.one('a', 'b', 'n')}") for _ in range(self.drawn.choice((1, 1, 2))))
        source = self.one("people", "people", "people p", "rich as p", "people p join notes n on n.person = p.id and n.at = §",
                          "people p, json_each(§) j", "people, (select b, c from pairs where b > §) q", "(select * from people where id > §) p", "exact")  # fmt: skip
        text = f"select {self.maybe('distinct ', 0.1)}{items} from {source}{self.maybe(' where ' + self.value(0), 0.7)}"
        text += self.maybe(f" group by {self.value(2)}{self.maybe(' having ' + self.value(1))}", 0.2)
        if depth == 0:
            text += self.maybe(f" union select §{self.maybe(' where § = §')}", 0.1)
        return text + self.maybe(f" order by {self.value(2)}{self.maybe(' desc')}", 0.3) + self.maybe(" limit § offset §", 0.15)

    def statement(self) -> str:
        made = self.drawn.randrange(12)
        if made < 6:
            return self.query()
        if made == 6:
            return f"with {self.one('q', 'people')} as ({self.query(1)}) select * from {self.one('q', 'people')} where {self.value(1)}"
        if made == 7:
            rows = ", ".join("(§, §, §)" for _ in range(self.drawn.choice((1, 2))))
            clash = self.one("", "on conflict (a, b) do nothing", "on conflict (c) where b = § do update set c = §", "on conflict do update set c = excluded.c + § where b = §")  # fmt: skip
            return f"insert {self.one('', 'or ignore ', 'or replace ')}into pairs values {rows} {clash} {self.maybe('returning a, c + §')}"
        if made == 8:
            return f"insert into exact (id, body, n, r, a) values (§, §, §, §, §) {self.maybe('returning *')}"
        if made == 9:
            return f"insert into notes (person, body) select id, § from people where {self.value(1)}"
        if made == 10:
            return f"delete from {self.one('people', 'notes')} where {self.one('id', self.value(1))} = § {self.maybe('returning id, §')}"
        column = self.one("name", "city", "pay", "rate", "tags", "'city'", '"city"')
        return f"update {self.maybe('or ignore ')}people set {column} = {self.value(1)} where {self.value(0)} {self.maybe('returning id, §')}"


def opened(factory: type[sqlite3.Connection] = Connection) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None, factory=factory)
    connection.execute("pragma foreign_keys = on")
    connection.executescript(SCHEMA)
    return connection


def left(db: Any) -> list[Any]:
    """What is in the database by now, as far as it may be read."""
    try:
        return [db.execute(f"select * from {table} order by 1, 2").fetchall() for table in ("people", "exact", "pairs", "notes")]
    except Denied:
        return []


def answer(connection: sqlite3.Connection, sql: str, held: Any) -> tuple[Any, ...]:
    """All that comes of it: told, and left. Nothing stays."""
    said: tuple[Any, ...] = ()
    with suppress_back(), guarded(connection, held) as db:
        try:
            rows = db.execute(sql)
            said = "rows", rows.columns, sorted(map(repr, rows.fetchall())), rows.rowcount, left(db)
        except Denied as denied:
            said = "denied", denied.decision.code, str(denied)
        except StatementError as error:
            said = error.code, error.state, str(error)
        raise Back
    return said


class Back(Exception):
    """Leaves a block so that it rolls back."""


class suppress_back:
    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, *_: Any) -> bool:
        return kind is Back


def plans(connection: sqlite3.Connection, held: Any, *sent: tuple[str, Any]) -> Iterator[Plan | Exception]:
    """What some texts need, each found out anew."""
    with suppress_back(), guarded(connection, held) as db:
        db.execute("select 1")
        block = db._block
        for sql, values in sent:
            text = Text(sql)
            yield block._planner.plan(text, block._permitting._granted.parts(text), values)
        raise Back


def needed(plan: Plan) -> dict[tuple[Any, Any], set[str] | None]:
    def columns(need: Access) -> set[str] | None:
        return None if need.columns is None else set(need.columns)

    return {(need.table, need.operation): columns(need) for need in plan.needs}


def is_within(some: dict[tuple[Any, Any], set[str] | None], most: dict[tuple[Any, Any], set[str] | None]) -> bool:
    """Does one need nothing that the other does not?"""
    return all(
        place in most and (most[place] is None or (columns is not None and columns <= (most[place] or set()))) for place, columns in some.items()
    )


@pytest.mark.parametrize("held", GRANTS)
def test_a_text_is_answered_as_by_itself_whichever_text_of_its_shape_came_first(held: str) -> None:
    """300 shapes by day, and 30,000 in `.ci/nightly properties`."""
    writer = Writer(drawing(f"shapes, {held}"))
    found: dict[str, int] = {}
    with closing(opened()) as own, closing(opened()) as shaped:
        for _ in range(times(300)):
            first = writer.filled(writer.statement())
            sql = writer.again(first)
            for text in (first, sql):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(Planner, "shape", lambda self, sql: None)
                    expected = answer(own, text, GRANTS[held])
                assert answer(shaped, text, GRANTS[held]) == expected, (first, text)
            found[expected[0]] = found.get(expected[0], 0) + 1
    assert found["rows"] > times(50) and len(found) > 4, found


def test_a_shape_needs_what_each_of_its_texts_needs() -> None:
    """Now and then more: of `(0) and tags` SQLite looks at the 0 alone. A shape that is refused for that is not taken."""
    writer = Writer(drawing("shapes, needs"))
    judged = more = 0
    with closing(opened()) as connection:
        for _ in range(times(750)):
            first = writer.filled(writer.statement())
            sql = writer.again(first)
            one, two = shape_of(first), shape_of(sql)
            if one is None or two is None:
                continue
            assert one.sql == two.sql
            # Of a part SQLite is shown what a word of the text could name, and a string is such a word.
            for held in (ALL,) if {"name", "people", "eu", "x"} & {*one.values, *two.values} else (ALL, SOME):
                own, shaped = plans(connection, held, (sql, ()), (one.sql, one.values))
                if isinstance(own, Exception) or isinstance(shaped, Exception):
                    continue
                judged += 1
                assert is_within(needed(own), needed(shaped)), (first, sql)
                if needed(own) != needed(shaped):
                    more += 1
                    continue
                assert own.events.keys() == shaped.events.keys(), (first, sql)
                assert own.refusals == shaped.refusals and own.calls == shaped.calls, (first, sql)
                assert (own.asks, own.tells, own.writes, own.replaces) == (shaped.asks, shaped.tells, shaped.writes, shaped.replaces), (first, sql)
    assert judged > times(150) and more <= judged // 100, more
