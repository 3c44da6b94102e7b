"""A connection that remembers (rule 12): it answers sooner, and never otherwise."""

from __future__ import annotations

import gc
import sqlite3
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from captoken import Caller, Denied, Grant, Issuer, Verifier
from captoken.adapters._sqlite import remembered
from captoken.adapters._sqlite.granted import Granted
from captoken.adapters._sqlite.watch import Watch
from captoken.adapters.sqlite import Connection, Database, guarded
from captoken.control import Feed, Operator
from captoken.errors import StatementError
from captoken.keys import OperatorKey
from captoken.stores.memory import MemorySnapshots
from tests.adapters.sqlite.test_sqlite import KEYRING, NOW, READER, grant, verdict
from tests.adapters.sqlite_corpus import ALLOWED
from tests.longer import drawing, times

MANY = grant(tables=["sales", "side.sales", "sales_view"], operations=["select", "insert"])


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that were compiled to be looked at."""
    seen: list[str] = []
    look = Watch.look

    def noted(self: Watch, sql: str, parameters: object) -> object:
        seen.append(sql)
        return look(self, sql, parameters)

    monkeypatch.setattr(Watch, "look", noted)
    return seen


def opened(where: str | Path = ":memory:") -> Connection:
    connection = sqlite3.connect(where, isolation_level=None, factory=Connection)
    connection.executescript("create table if not exists sales (id integer primary key, x); create table if not exists hr (id integer primary key, x)")
    return connection


def ask(connection: sqlite3.Connection, sql: str) -> str:
    with guarded(connection, MANY) as db:
        return verdict(db, sql)


def test_a_statement_is_looked_at_once_for_all_blocks_and_all_grants(looks: list[str]) -> None:
    connection = opened()
    texts = ["select x from sales", "select x from hr", "select count(*) from sales natural join hr"]
    first = [ask(connection, sql) for sql in texts]
    assert first == [ALLOWED, "table", "table"] and looks
    looks.clear()
    assert [ask(connection, sql) for sql in texts] == first
    with guarded(connection, grant(tables=["hr"], operations=["select"])) as db:
        assert [verdict(db, sql) for sql in texts] == ["table", ALLOWED, "table"]
    assert looks == []
    connection.close()


def test_any_other_connection_finds_out_anew(looks: list[str]) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table sales (x)")
    for _ in range(2):
        looks.clear()
        assert ask(connection, "select x from sales") == ALLOWED
        assert looks == ["select x from sales"]
    connection.close()


VIEW = "select x from side.v"


def attached(connection: sqlite3.Connection, table: str) -> None:
    """Another database under the same name, of the same version, with another view in it."""
    if len(connection.execute("pragma database_list").fetchall()) > 1:
        connection.execute("detach side")
    connection.execute("attach ':memory:' as side")
    connection.executescript(f"create table side.sales (x); create table side.hr (x); create view side.v as select x from {table}")


CHANGES: dict[str, tuple[str, Callable[[Connection], object], Callable[[Connection], object]]] = {
    "a view of other tables": (
        "select x from v",
        lambda c: c.execute("create view v as select x from sales"),
        lambda c: c.executescript("drop view v; create view v as select x from hr"),
    ),
    "a trigger": (
        "insert into sales (x) values (1)",
        lambda c: None,
        lambda c: c.execute("create trigger t after insert on sales begin delete from hr; end"),
    ),
    "a trigger on the tables of another schema": (
        "insert into sales (x) values (1)",
        lambda c: None,
        lambda c: c.execute("create temp trigger t after insert on main.sales begin delete from hr; end"),
    ),
    "a temporary table that shadows": (
        "select x from sales",
        lambda c: None,
        lambda c: c.execute("create temp table sales as select x from hr"),
    ),
    "another database under the name": (VIEW, lambda c: attached(c, "sales"), lambda c: attached(c, "hr")),
    "another database in the place of main": (
        "select x from v",
        lambda c: c.execute("create view v as select x from sales"),
        lambda c: c.deserialize(same_version_with_a_view_of_hr()),
    ),
    "a function": ("select upper(x) from sales", lambda c: None, lambda c: c.create_function("upper", 1, lambda x: x)),
    "an aggregate": ("select sum(x) from sales", lambda c: None, lambda c: c.create_aggregate("sum", 1, type("Sum", (), {}))),
    "foreign keys": (
        "delete from sales",
        lambda c: c.executescript("create table child (x references sales on delete cascade); pragma foreign_keys = off"),
        lambda c: c.execute("pragma foreign_keys = on"),
    ),
}


def same_version_with_a_view_of_hr() -> bytes:
    """As `opened` and one view make it: the version is the same."""
    other = opened()
    other.execute("create view v as select x from hr")
    return other.serialize()


@pytest.mark.parametrize("change", CHANGES, ids=lambda name: name.replace(" ", "-"))
def test_what_changes_what_a_statement_is_is_seen(change: str) -> None:
    sql, before, then = CHANGES[change]
    held = grant(tables=["sales", "side.sales"], operations=["select", "insert", "delete"])
    connection = opened()

    def asked() -> str:
        with guarded(connection, held) as db:
            return verdict(db, sql)

    before(connection)
    assert [asked(), asked()] == [ALLOWED] * 2
    then(connection)
    assert asked() in ("table", "operation")
    connection.close()


def test_that_recursive_triggers_were_turned_on_is_seen(looks: list[str]) -> None:
    connection = opened()
    for _ in range(2):
        assert ask(connection, "select x from sales") == ALLOWED
    assert len(looks) == 1
    connection.execute("pragma recursive_triggers = on")
    assert ask(connection, "select x from sales") == ALLOWED
    assert len(looks) == 2
    connection.close()


def test_changes_by_others_are_seen_and_the_block_holds_the_schema(tmp_path: Path) -> None:
    ours, theirs = opened(tmp_path / "x.db"), sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    theirs.execute("create view v as select x from sales")
    for _ in range(2):
        assert ask(ours, "select x from v") == ALLOWED
    theirs.executescript("drop view v; create view v as select x from hr; pragma busy_timeout = 0")
    assert ask(ours, "select x from v") == "table"
    with guarded(ours, READER) as db:
        for _ in range(2):  # the second time nothing but the ground was read
            assert verdict(db, "select x from sales") == ALLOWED
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                theirs.execute("drop table hr")
    ours.close()
    theirs.close()


def test_the_virtual_tables_that_are_granted_are_told_anew_in_each_block() -> None:
    """By an address in memory, which another one may have by now: so none is remembered."""
    connection = opened()
    sql = "select value from json_each('[1]')"
    for at in range(3):
        with guarded(connection, MANY) as db:
            assert db.execute(sql + "--" * at).fetchall() == [(1,)]
            kept = db._block._planner.found.catalog
            assert kept.harmless_modules
        with guarded(connection, MANY) as db:
            assert db.execute(sql + "--" * at).fetchall() == [(1,)]  # needs none of them
            assert kept is db._block._planner.found.catalog and "harmless_modules" not in vars(kept)
    connection.close()


def test_who_may_load_extensions_is_asked_anew_each_time(looks: list[str]) -> None:
    """Not every Python can: so the method is one that can be told apart."""
    connection = opened()
    enabled = remembered._forgetting(lambda self, enable: enable, remembered._GIVEN["enable_load_extension"])
    assert enabled(connection, True) is True
    assert hasattr(sqlite3.Connection, "enable_load_extension") == ("enable_load_extension" in vars(Connection))
    for _ in range(3):
        assert ask(connection, "select x from sales") == ALLOWED
    assert len(looks) == 3
    connection.close()


def test_a_dead_grant_reads_no_ground(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_764_061_200]
    held = grant(lambda: now[0], tables=["sales"], operations=["select"], expires_in=60)
    connection = opened()
    with guarded(connection, held) as db:
        assert verdict(db, "select x from sales") == ALLOWED
    with guarded(connection, held) as db:
        now[0] += 60
        expect_dead(db)
        assert not db._block._planner.is_ready
    connection.close()


def expect_dead(db: Database) -> None:
    with pytest.raises(Denied) as caught:
        db.execute("select x from sales")
    assert caught.value.decision.code == "expired"


def test_a_connection_that_remembers_is_not_kept_alive() -> None:
    connection = opened()
    for _ in range(2):
        ask(connection, "select x from sales")
    gone = weakref.ref(connection)
    connection.close()
    gc.disable()
    try:
        del connection
        assert gone() is None  # no cycle
    finally:
        gc.enable()


def test_what_one_grant_was_shown_of_a_table_is_not_what_another_one_is_shown() -> None:
    """Tokens in turn, on one connection that remembers: each sees what it sees on a connection of its own."""
    drawn = drawing("in turn")
    columns: list[dict[str, list[str]]] = [{}, {"sales": ["x"]}, {"sales": ["y"]}, {"sales": ["x", "y"]}, {"hr": ["z"]}, {"sales": ["none"], "hr": []}]
    held = [
        grant(tables=tables, operations=operations, **({"columns": some} if some else {}), **rows)
        for some in columns
        for tables, operations in ((["sales", "hr"], ["select", "update", "insert"]), (["sales"], ["select"]), (["hr"], ["update"]))
        for rows in ({}, {"rows": {"sales": {"x": {"in": ["a"]}}}})
    ]
    texts = [
        "select * from sales", "select x from sales", "select y from sales where x = 'a'", "select * from sales, hr", "select z from hr where z > 1",
        "update sales set x = 'b' where y = 2", "update sales set y = x", "insert into hr values (7)", "update hr set z = 1", "select 1", "select x, nope from sales",
    ]  # fmt: skip
    script = "create table sales (x text, y); create table hr (z); insert into sales values ('a', 1), ('b', 2); insert into hr values (3)"
    kept = sqlite3.connect(":memory:", isolation_level=None, factory=Connection)
    kept.executescript(script)
    ran = 0
    for _ in range(times(500)):
        sql, one = drawn.choice(texts), drawn.choice(held)
        said = []
        fresh = sqlite3.connect(":memory:", isolation_level=None)
        fresh.executescript(script)
        for connection in (kept, fresh):
            try:
                with guarded(connection, one) as db:
                    rows = db.execute(sql)
                    said.append((rows.columns, rows.fetchall(), rows.rowcount))
                    raise LookupError
            except LookupError:
                ran += 1
            except (Denied, StatementError) as error:
                said.append((str(error),))
        assert said[0] == said[1], (sql, one.caveats)
        fresh.close()
    assert ran > times(300)
    kept.close()


def test_what_a_table_has_for_a_token_is_remembered_for_these_links_and_this_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who else has a say in it, as an operator has, has it in each block."""
    asked: list[str] = []
    among = Granted._among
    monkeypatch.setattr(Granted, "_among", lambda its, tables, text: (asked.append(text.sql), among(its, tables, text))[1])
    connection = opened()
    connection.execute("insert into sales values (1, 'x')")
    keywords = {"tables": ["*"], "operations": ["select"], "columns": {"sales": ["id"]}}
    token = Issuer(KEYRING, clock=lambda: NOW).mint(subject="user:jane", agent="analyst", task="task-1", **keywords)
    verifier = Verifier(KEYRING, clock=lambda: NOW)

    def star(held: Grant, **caller: str) -> list[tuple[object, ...]]:
        with guarded(connection, held, caller=Caller(**caller) if caller else None) as db:
            return db.execute("select * from sales").fetchall()

    for _ in range(3):
        assert star(verifier.authenticate(token.serialize())) == [(1,)]
    assert len(asked) == 1
    assert star(verifier.authenticate(token.attenuate(columns={"sales": []}).serialize())) == [(None,)]  # a row, and no column
    assert star(grant(tables=["*"], operations=["select"])) == [(1, "x")]
    assert len(asked) == 2, "a token that grants whole tables is not asked"
    for _ in range(2):
        assert star(verifier.authenticate(token.serialize()), agent="analyst") == [(1,)]
    assert len(asked) == 3
    key, snapshots = OperatorKey.generate(), MemorySnapshots()
    Operator(key, snapshots, by="ops:kim", clock=lambda: NOW).renew()
    under_control = Verifier(KEYRING, clock=lambda: NOW, overlay=Feed(snapshots, [key.public], every=0, clock=lambda: NOW))
    for _ in range(2):
        assert star(under_control.authenticate(token.serialize())) == [(1,)]
    assert len(asked) == 5
