"""How long one row of a statement may take: what it calls, and how long the values are that it gives (rule 11)."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest

from captoken.adapters._sqlite import watch
from captoken.adapters._sqlite.lengths import MAX_COMPARED, MAX_LOOKED_FOR, calls_of, can_fail
from captoken.adapters._sqlite.opcodes import Program
from captoken.adapters._sqlite.programs import Programs
from captoken.adapters.sqlite import guarded
from captoken.errors import StatementError
from tests.adapters.sqlite.test_sqlite import grant
from tests.fixtures import NOW

TOO_BIG = pytest.raises(StatementError, match="too_large: ")


# Whether the second argument may be long.
CALLS = {
    "select trim(title, '/') from docs": False,
    "select id from docs order by ltrim(title, '/')": False,
    "select rtrim(title, '/'), count(*) from docs group by rtrim(title, '/') having rtrim(title, '/') <> ''": False,
    "select unhex(title, ' -') from docs": False,
    "select json_patch(body, '{}') from docs": False,
    "select t from short": False,
    "insert into kept values ('a')": False,
    "update docs set title = trim(title, '/') returning trim(title, 'x')": False,
    "select case when id then trim(title, '/') else trim(title, 'x') end from docs": False,
    f"select trim(title, '{'x' * MAX_LOOKED_FOR}') from docs": False,
    "select trim(title) from docs": False,
    "select replace(title, body, body) from docs": False,
    f"select trim(title, '{'x' * (MAX_LOOKED_FOR + 1)}') from docs": True,
    "select trim(title, ?1) from docs": True,
    "select trim(title, body) from docs": True,
    "select trim(title, 'a' || 'b') from docs": True,
    "select trim(title, case when id then 'a' else body end) from docs": True,
    "select trim(title, case when ?1 then 'a' else hex(zeroblob(9)) end) from docs": True,
    "select trim(title, coalesce(?1, 'a')) from docs": True,
    "select trim(title, (select body from docs)) from docs": True,
    "select trim('abc', ?1)": True,
    "select trim(title, '/'), trim(title, ?1) from docs": True,
    "select json_patch('{}', body) from docs": True,
    "select t from long": True,
    "insert into fired values ('a')": True,
    "delete from docs where ltrim(title, body) = ''": True,
}


@pytest.mark.parametrize(("sql", "compares"), CALLS.items())
def test_the_second_argument_of_the_slowest_is_short_or_all_values_are(docs: sqlite3.Connection, sql: str, compares: bool) -> None:
    """In the statement itself, in a view, in a trigger, in a check of the table."""
    docs.text_factory = bytes
    given = ("x",) if "?1" in sql else ()
    calls = calls_of(Programs(docs.execute(f"explain {sql}", given).fetchall()).all)
    assert calls == (True, compares)
    assert calls_of(Programs(docs.execute("explain select id, max(title) from docs").fetchall()).all) == (False, False)


def test_what_asks_for_the_type_of_a_value_calls_nothing_that_takes_long(docs: sqlite3.Connection) -> None:
    """The conditions on rows do, and a statement is asked no more often for them."""
    docs.text_factory = bytes
    program = Programs(docs.execute("explain select id from docs where typeof(title) = 'text'").fetchall()).all
    assert any(one[5] == b"typeof(1)" for one in program[0]) and calls_of(program) == (False, False)


def test_only_an_argument_that_the_call_has_as_constant_is_a_string_of_the_text() -> None:
    """Of another one, a string that was put in its place may be gone by the time of the call."""

    def compares(constants: int) -> bool:
        program: Program = [
            (0, b"Init", 0, 3, 0, None, 0, None),
            (1, b"Function", constants, 1, 3, b"trim(2)", 0, None),
            (2, b"Halt", 0, 0, 0, None, 0, None),
            (3, b"String8", 0, 2, 0, b"/", 0, None),
            (4, b"Goto", 0, 1, 0, None, 0, None),
        ]
        return calls_of([program]).compares

    assert [compares(constants) for constants in (0b00, 0b01, 0b10, 0b11)] == [True, True, False, False]


@pytest.mark.parametrize(
    ("sql", "fails"),
    [
        ("select id from docs where title = body", False), ("select length(title) from docs", False), ("select trim(title, '/') from docs", False),
        ("select title || body from docs", True), ("select abs(id) from docs", True), ("select trim(title, body) from docs", True),
        ("select title like 'a%' from docs", False), ("select title like body from docs", True), ("select value from docs, json_each(body)", True),
    ],
)  # fmt: skip
def test_what_can_fail_on_a_value_is_known(docs: sqlite3.Connection, sql: str, fails: bool) -> None:
    """Two texts that get too long together, a number that has no other sign, a pattern or JSON that is none."""
    docs.text_factory = bytes
    assert can_fail(docs.execute(f"explain {sql}").fetchall()) is fails


def test_no_value_of_such_a_statement_is_long(docs: sqlite3.Connection) -> None:
    """A parameter, a value of the table, one that is made. What the row has beside it does not matter, and the next statement has its
    limit again."""
    held = grant(tables=["docs"], operations=["select"])
    with guarded(docs, held) as db:
        for name in ("trim", "ltrim", "rtrim"):
            asked = f"select {name}(?, ?)"
            assert db.execute(asked, ("a" * MAX_COMPARED, "a")).fetchall() == [("",)]
            for given in (("a" * (MAX_COMPARED + 1), "a"), ("a", "a" * (MAX_COMPARED + 1))):
                with TOO_BIG:
                    db.execute(asked, given)
        for sql in ("select trim(hex(zeroblob(9000)), ?)", "select trim(body, ?) from docs", "select body, trim(title, ?) from docs"):
            with TOO_BIG:
                db.execute(sql, ("0",))
        assert db.execute("select trim(title, ?) from docs", ("/",)).fetchall() == [("a",), ("b",)]
        assert db.execute("select trim(title, '/'), length(body) from docs").fetchall() == [("a", 100_000), ("b", 3)]
        assert db.execute("select length(trim(cast(body as text), 'x')) from docs where id = 2").fetchall() == [(1,)]
        assert db.execute("select length(body), length(hex(body)) from docs where id = 1").fetchall() == [(100_000, 200_000)]
    with guarded(docs, held, max_value=10) as db, pytest.raises(sqlite3.DataError, match="too big"):  # the schema is
        db.execute("select trim(?, ?)", ("a" * 11, "a"))
    docs.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 50_000)
    with guarded(docs, held) as db:
        db.execute("select trim(?, ?)", ("a", "a"))
        assert docs.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) == 50_000


def test_between_two_rows_that_take_long_the_grant_is_asked(docs: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand opcodes can be a thousand rows of ten seconds each. Without a pause it does not turn on the machine how often."""
    asked = Counter[str]()

    def clock() -> int:
        asked["in all"] += 1
        return NOW

    held = grant(clock, tables=["docs"], operations=["select"])
    slow = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 20) select sum(instr(?, ? || i)) from n"
    with guarded(docs, held) as db:
        db.execute("select 1")
        asked.clear()
        with monkeypatch.context() as patched:
            patched.setattr(watch, "_PAUSE", 0.0)
            rows = db.execute(slow, ("a" * 100_000, "a" * 4_000 + "b")).fetchall()
        assert rows == [(0,)] and asked["in all"] > 15

        # Many quick rows ask no more often than it takes time to ask.
        asked.clear()
        db.execute("with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000) select sum(abs(i)) from n")
        assert asked["in all"] < 1000


@pytest.fixture
def docs() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(
            """
            create table docs (id integer primary key, title, body);
            insert into docs values (1, '/a/', zeroblob(100000)), (2, '/b/', 'xbx');
            create view short as select trim(title, '/') as t, body from docs;
            create view long as select trim(title, body) as t from docs;
            create table kept (a check (trim(a, 'x') = a));
            create table fired (a);
            create trigger fires after insert on fired begin insert into kept values (trim(new.a, new.a)); end;
            """
        )
        yield connection
