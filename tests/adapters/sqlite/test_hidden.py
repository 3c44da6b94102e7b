"""What a token does not grant is not told: two databases that differ in all of it give the same answers.

They answer as one does that has nothing but what is granted. In what order rows come that nobody ordered, is not in question.
"""

from __future__ import annotations

import random
import sqlite3
from contextlib import suppress
from typing import Any

import pytest

from captoken import Denied
from captoken.adapters._sqlite import remembered
from captoken.adapters._sqlite.watch import Watch
from captoken.adapters.sqlite import Connection, guarded
from captoken.errors import StatementError
from tests.adapters.sqlite.test_sqlite import grant
from tests.longer import drawing, times

GRANT = grant(tables=["people", "other"], operations=["select", "update"], columns={"people": ["id", "name"]})
OPEN = "create table other (id integer, x text); insert into other values (1, 'q'), (2, 'w');"
WORLDS = {
    "nothing hidden": "create table people (id integer, name text); insert into people values (1, 'ann'), (2, 'bob');",
    "two columns, an index and a table": """
        create table people (id integer, pay integer, name text, ssn text);
        insert into people values (1, 900, 'ann', 's1'), (2, 800, 'bob', 's2');
        create index by_pay on people (pay); create table hr (id integer, pay integer); insert into hr values (1, 7);
    """,
    "other columns, and a view": """
        create table people (x text, id integer, name text, nope integer generated always as (id + 1), c blob);
        insert into people (x, id, name) values ('q', 1, 'ann'), ('w', 2, 'bob');
        create view hr as select x as pay from people; create unique index by_pay on people (x);
    """,
}

STATEMENTS = [
    "select pay from people, (select 1 as pay)",
    "select name from people natural join (select 1 as pay)",
    "select name from people natural join other",
    "select name from people p where exists (select 1 from other where x = pay)",
    "select name as pay from people where pay = 1",
    "select name as pay from people order by pay",
    "select name as pay from people group by pay",
    "select name as pay from people group by 1 having pay > 'a'",
    "select j.pay from (people join other) as j",
    "select 1 in people",
    "select name from people indexed by by_pay",
    "select name from people indexed by nope",
    "select name from people where \"pay\" = 'pay'",
    "select x from other where (id) in people",
    "select pay from hr",
    "select 1 from hr, people",
    "select name from people where ssn in (select pay from people)",
    "select count(pay) from people",
    "select name from people order by 9",
    "select people.pay from people, (select 1 as pay)",
    "with people as (select 1 as pay) select pay from people",
    "with t as (select name as pay from people) select pay from t",
    "update people set name = 'x' where pay = 1",
    "update people set pay = 1",
    "update other set x = (select pay from people)",
    "select name from people where id = ?",
    "select nosuch(pay) from people",
    "select name from people limit pay",
    "select x, c from other, (select 2 as c)",
]


def world(name: str, factory: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None, factory=factory)
    connection.executescript(WORLDS[name] + OPEN)
    return connection


def answer(connection: sqlite3.Connection, sql: str) -> tuple[Any, ...]:
    """All that whoever sent it gets to see."""
    found: tuple[Any, ...] = ()
    try:
        with guarded(connection, GRANT) as db:
            rows = db.execute(sql)
            found = rows.columns, sorted(rows.fetchall(), key=repr), rows.rowcount
            connection_of_nobody(db, found)
    except Denied as denied:
        return denied.decision.code, denied.decision.for_model(), str(denied)
    except Back:
        return found
    except StatementError as error:
        return error.code, error.for_model(), str(error)
    raise AssertionError(sql)


class Back(Exception):
    """Leaves a block so that it rolls back."""


def connection_of_nobody(db: Any, found: Any) -> None:
    raise Back


@pytest.mark.parametrize("sql", STATEMENTS)
def test_three_databases_that_differ_in_what_is_hidden_answer_alike(sql: str) -> None:
    answers = []
    for name in WORLDS:
        connection = world(name)
        answers.append(answer(connection, sql))
        connection.close()
    assert answers[1:] == answers[:-1]


def test_tables_of_other_schemas_are_read_by_their_bare_names() -> None:
    held = grant(tables=["side.people", "side.other"], operations=["select", "update"], columns={"side.people": ["name"]})
    for hidden in ("", ", pay integer"):
        connection = world("nothing hidden")
        connection.executescript("drop table people; drop table other")
        connection.execute("attach ':memory:' as side")
        connection.executescript(f"create table side.people (name text{hidden}); create table side.other (x)")
        connection.execute("insert into side.people (name) values ('eve')")
        with guarded(connection, held) as db:
            assert db.execute("select name as pay from people group by pay").fetchall() == [("eve",)]
            assert db.execute("select * from people p left join side.other").fetchall() == [("eve", None)]
            assert db.execute("update side.people set name = 'eva' returning *").fetchall() == [("eva",)]
            for sql in ("select pay from side.other, people", "select p.pay from people p", "update side.people set pay = 1"):
                with pytest.raises(StatementError, match="at pay") as fault:
                    db.execute(sql)
                assert "side.people has name here" in fault.value.for_model()
            with pytest.raises(Denied) as denied:
                db.execute("select name from side.people")
            assert str(denied.value) == "column: only some columns of side.people are granted: write people instead"
        connection.close()


def test_a_table_with_its_schema_is_refused_in_words() -> None:
    for name in WORLDS:
        connection = world(name)
        with guarded(connection, GRANT) as db:
            for sql in (
                "select name from main.people",
                'select 1 from other, "MAIN".[people]',
                "select main.people.name from main.people",
                "with x as (select pay from main.people) select * from x",
                "update other set x = (select name from main.people)",
                "with people as (select 1) select name from main.people",
                "update main.people set name = 'x' where main.people.name = 'y'",
            ):
                with pytest.raises(Denied, match="write people instead") as denied:
                    db.execute(sql)
                assert denied.value.decision.code == "column"
            assert db.execute("update main.people set name = upper(people.name) where people.id = 9").rowcount == 0
        connection.close()


def test_a_table_that_another_one_hides_is_no_other_one() -> None:
    """The bare name stands for the temporary table, and the one behind it is read by no name."""
    connection = world("two columns, an index and a table")
    connection.execute("create temp table people (y)")
    connection.execute("insert into temp.people values (5)")
    tables = ["people", "temp.people", "other"]
    with guarded(connection, grant(tables=tables, operations=["select"], columns={"people": ["id", "name"]})) as db:
        assert db.execute("select * from people").fetchall() == [(5,)]
        with pytest.raises(Denied, match="write people instead"):
            db.execute("select name from main.people")
    held = grant(tables=tables, operations=["select"], columns={"people": ["id", "name"], "temp.people": ["y"]})
    with guarded(connection, held) as db:
        assert db.execute("select * from people, PEOPLE p").fetchall() == [(5, 5)]
        for sql in ("select pay from people", "select name from people"):
            with pytest.raises(StatementError, match="name: ") as fault:
                db.execute(sql)
            assert "temp.people has y here" in fault.value.for_model()
    connection.close()


def test_a_wide_table_that_hides_nothing_is_no_matter() -> None:
    connection = world("nothing hidden")
    connection.execute(f"create table wide ({', '.join(f'c{at}' for at in range(2_000))})")
    with guarded(connection, grant(tables=["people", "wide"], operations=["select"], columns={"people": ["id", "name"]})) as db:
        assert db.execute(
            "select people.name, wide.c7 from people left join wide on wide.c1 = people.id order by 1"
        ).fetchall() == [
            ("ann", None),
            ("bob", None),
        ]
    connection.close()


def test_what_there_is_of_a_wide_table_is_told_in_part() -> None:
    connection = world("nothing hidden")
    connection.execute(f'create table wide ({", ".join(f"column_{at}" for at in range(900))}, "a, b")')
    for columns, told in (
        ([f"column_{at}" for at in range(300)], "column_90, and more here"),
        (["a, b"], "wide has 'a, b' here."),
        (["nothing"], "wide has no columns here."),
    ):
        with (
            guarded(connection, grant(tables=["wide"], operations=["select"], columns={"wide": columns})) as db,
            pytest.raises(StatementError) as fault,
        ):
            db.execute("select wide.nosuch from wide")
        assert told in fault.value.for_model() and len(fault.value.for_model()) < 1_500
        assert fault.value.for_model().endswith("and send it again.") and told.rstrip(".") in str(fault.value)
    connection.close()


def test_a_table_of_which_no_column_is_granted_has_rows_alone() -> None:
    held = grant(tables=["people", "other"], operations=["select", "update"], columns={"people": ["nobody"]})
    for name in WORLDS:
        connection = world(name)
        with guarded(connection, held) as db:
            assert db.execute("select count(*) from people").fetchall() == [(2,)]
            assert db.execute("select x from people, other where x = 'q'").fetchall() == [("q",), ("q",)]
            assert db.execute("select * from people").fetchall() == [(None,), (None,)]
            for sql in ("select name from people", "update people set name = 1", "select people.nobody from people"):
                with pytest.raises(StatementError, match="name: ") as fault:
                    db.execute(sql)
                assert "people has no columns here" in fault.value.for_model()
        connection.close()


def test_a_text_is_looked_at_once_for_each_part_of_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    look = Watch.look

    def noted(watch: Watch, sql: str, parameters: Any) -> Any:
        looks.append(sql)
        return look(watch, sql, parameters)

    monkeypatch.setattr(Watch, "look", noted)
    monkeypatch.setattr(remembered, "_MOST", 4)
    connection = world("nothing hidden", Connection)
    for _ in range(2):
        with guarded(connection, GRANT) as db:
            for sql in ("select name from people", "select id from people") * 2:
                db.execute(sql)
    assert len(looks) == 2
    for _ in range(2):
        with guarded(connection, grant(tables=["people"], operations=["select"], columns={"people": ["name"]})) as db:
            for sql in ("select name from people", "select * from people"):
                db.execute(sql)  # another grant sees another part of what the star means, and the same of the name
    assert [sql.rpartition("select ")[2] for sql in looks] == ["name from people", "id from people", "* from people"]
    with guarded(connection, GRANT) as db:
        db.execute("select * from people")
    assert len(looks) == 4
    connection.close()


def test_a_text_that_was_refused_once_is_told_alike_when_it_comes_again() -> None:
    """Whatever came in between: what is wrong with one text is not told of another."""
    texts = [
        "select name from people where id = ?",
        "select name from people where nosuch(id)",
        "select name, missing.id from people, other",
        "select id from people",
    ]
    answers = []
    for name in WORLDS:
        said = []
        with guarded(world(name), GRANT) as db:
            for sql in texts * 3:
                try:
                    said.append(str(db.execute(sql).fetchall()))
                except (Denied, StatementError) as error:
                    said.append(str(error))
        assert said[:4] == said[4:8] == said[8:]
        answers.append(said)
    assert answers[1:] == answers[:-1]


def test_what_is_kept_of_the_texts_of_one_block_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_MOST", 3)
    with guarded(world("nothing hidden"), GRANT) as db:
        for at in range(10):
            db.execute(f"select {at}, name from people")
            found = db._block._planner.found
            assert max(len(kept._kept) for kept in (found.parts, found.plans, found.texts)) <= 3


def test_a_call_with_wrong_parameters_says_nothing_of_the_next_one() -> None:
    connection = world("two columns, an index and a table")
    with guarded(connection, GRANT) as db:
        for sql, found in (("select name from people where id = ?", 1), ("select name as pay from people where pay = ?", 0)):
            for parameters in ((), (1,), (object(),), (2,)):
                if parameters in ((1,), (2,)):
                    assert len(db.execute(sql, parameters).fetchall()) == found
                else:
                    with pytest.raises(StatementError, match="parameters: "):
                        db.execute(sql, parameters)
    connection.close()


@pytest.mark.parametrize("hidden", ["", ", gold text default 'hidden'"])
@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ('update people set name = "gold" where id = 1', ["gold", "bob"]),
        ('update people set name = "gold" || "it\'s" where name = "bob"', ["ann", "goldit's"]),
        ('update people set name = (select "gold" from other where other.id = people.id)', ["gold", "gold"]),
        ('update people set name = x || "gold" from other where other.id = people.id and x <> "w"', ["qgold", "bob"]),
        ('update people set name = "id"', ["1", "2"]),
        ('update people set name = people."gold"', None),
        ('update people set "gold" = 1', None),
        ('update people set name = "gold" where name = "gold"', None),
        ("update people set name = 'x' returning \"gold\"", None),
        ("update people set name = gold", None),
    ],
)
def test_in_double_quotes_is_a_string_what_is_no_column_that_is_granted(sql: str, names: list[str] | None, hidden: str) -> None:
    connection = world("nothing hidden")
    connection.executescript(f"drop table people; create table people (id integer, name text{hidden})")
    connection.execute("insert into people (id, name) values (1, 'ann'), (2, 'bob')")
    with suppress(Back), guarded(connection, GRANT) as db:
        if names is None:
            with pytest.raises(StatementError, match=r"name: .*at gold"):
                db.execute(sql)
        else:
            assert db.execute(sql).rowcount >= 1
            assert [name for (name,) in db.execute("select name from people order by id")] == names
        raise Back
    connection.close()


LIMITED = [
    ("update people set name = upper(name) order by id desc limit 1", ["ann", "BOB"]),
    ("update people set name = 'x' where id > 0 order by id limit 1 offset 1", ["ann", "x"]),
    ("update people set name = 'x' where id < 9 returning id order by name limit 1", ["x", "bob"]),
    ("update people set name = x from other where other.id = people.id order by x desc limit 1", ["ann", "w"]),
    ("delete from people order by id limit 1", ["bob"]),
    ("delete from people where id > 0 order by name desc limit 1", ["ann"]),
    ("update people set name = 'x' order by pay limit 1", None),
    ("update people set name = 'x' limit (select pay from people)", None),
]


@pytest.mark.parametrize(("sql", "names"), LIMITED)
@pytest.mark.parametrize("restricted", ["columns", "rows"])
def test_an_order_and_a_limit_of_an_update_see_what_is_granted(sql: str, names: list[str] | None, restricted: str) -> None:
    """Some builds of SQLite know them. For any other they are no SQL, and a table that is not restricted says which it is."""
    connection = world("nothing hidden" if restricted == "rows" else "two columns, an index and a table")
    if restricted == "rows":
        connection.execute("insert into people values (0, 'zoe'), (9, 'aaa')")
    held = grant(tables=["people", "other"], operations=["*"], **KINDS[restricted])
    known = True
    try:
        connection.execute("explain update other set x = 1 limit 1")
    except sqlite3.OperationalError:
        known = False
    with suppress(Back), guarded(connection, held) as db:
        if not known or names is None or (restricted == "columns" and sql.startswith("delete")):
            with pytest.raises((Denied, StatementError)) as refused:
                db.execute(sql)
            assert names is not None or not known or "at pay" in str(refused.value)
        else:
            assert db.execute(sql).rowcount == 1
            assert [name for (name,) in db.execute("select name from people order by id")] == names
        raise Back
    connection.close()


KINDS: dict[str, Any] = {
    "columns": {"columns": {"people": ["id", "name"]}},
    "rows": {"rows": {"people": {"name": {"in": ["ann", "bob", "BOB", "x", "w"]}}}},
}

NAMES = [
    "id",
    "id",
    "id",
    "name",
    "name",
    "people.name",
    "1",
    "pay",
    "ssn",
    "x",
    "nope",
    "c",
    "p.name",
    "p.pay",
    "o.x",
    "o.pay",
    "people.id",
    "people.ssn",
    '"pay"',
    '"c"',
    "1",
    "'s1'",
    "rowid",
]
ALIASES = ["pay", "ssn", "n", "x", "c"]


class Text:
    """A statement drawn from the words that could tell something."""

    def __init__(self, drawn: random.Random) -> None:
        self.drawn = drawn

    def one(self, *choices: str) -> str:
        return self.drawn.choice(choices)

    def value(self, depth: int) -> str:
        kind = self.drawn.randrange(9 if depth < 2 else 5)
        if kind < 5:
            return self.drawn.choice(NAMES)
        if kind == 5:
            return f"{self.one('max', 'count', 'length', 'nosuch')}({self.value(depth + 1)})"
        if kind == 6:
            return f"({self.query(depth + 1, 1)})"
        return f"{self.value(depth + 1)} {self.one('=', '||', 'in', 'is', '<')} ({self.value(depth + 1)})"

    def source(self, depth: int) -> str:
        kind = self.drawn.randrange(6 if depth < 2 else 4)
        if kind < 4:
            return self.one(
                "people", "people", "people p", "people as p", "other o", "other", "main.people", self.one("hr", "t", "missing")
            )
        return f"({self.query(depth + 1, 1)}) {self.one('as pay', 'p', 'o', '')}"

    def query(self, depth: int = 0, width: int = 0) -> str:
        items = [
            self.value(depth) + self.one("", "", f" as {self.drawn.choice(ALIASES)}")
            for _ in range(width or self.drawn.choice((1, 2)))
        ]
        sources = self.source(depth)
        for _ in range(self.drawn.choice((0, 0, 1))):
            sources += f" {self.one(',', 'join', 'left join', 'full join', 'natural join')} {self.source(depth)}"
            if self.drawn.random() < 0.4:
                sources += self.one(" using (id)", " using (pay)", " using (x)", f" on {self.value(2)}")
        text = f"select {', '.join(items)} from {sources}"
        if self.drawn.random() < 0.4:
            text += f" where {self.value(depth)}"
        if self.drawn.random() < 0.2:
            text += f" group by {self.value(2)}" + self.one("", f" having {self.value(2)}")
        if not width and self.drawn.random() < 0.3:
            text += f" order by {self.value(2)}"
        return text

    def statement(self) -> str:
        kind = self.drawn.randrange(10)
        if kind == 0:
            return f"update {self.one('people', 'other')} set {self.one('name', 'x', 'pay')} = {self.value(1)} where {self.value(1)}"
        if kind == 1:
            return f"with {self.one('t', 'people', 'hr')} as ({self.query(1)}) {self.query()}"
        if kind == 2:
            return f"{self.query()} union {self.query()}"
        return self.query()


def test_statements_drawn_at_random_tell_the_databases_apart_as_little() -> None:
    """1,500 of them; some run, some are denied, some are no SQL."""
    drawn = drawing(11)
    connections = [world(name, Connection) for name in WORLDS]
    kinds: dict[str, int] = {}
    for _ in range(times(1_500)):
        sql = Text(drawn).statement()
        answers = [answer(connection, sql) for connection in connections]
        assert answers[1:] == answers[:-1], sql
        kind = answers[0][0] if isinstance(answers[0][0], str) else "rows"
        kinds[kind] = kinds.get(kind, 0) + 1
    assert min(kinds.get("rows", 0), kinds.get("name", 0), kinds.get("table", 0)) > times(30), kinds
    for connection in connections:
        connection.close()
