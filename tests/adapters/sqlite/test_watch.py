"""What the authorizer sees: whoever goes round the block does nothing, and a statement does what was seen."""

from __future__ import annotations

import sqlite3
import threading
from typing import Any

import pytest

from captoken.adapters._sqlite import watch
from captoken.adapters._sqlite.watch import Watch
from captoken.adapters.sqlite import guarded
from captoken.errors import GuardError
from tests.adapters.sqlite.test_sqlite import READER, grant, verdict
from tests.adapters.sqlite_corpus import ALLOWED


class TestBackDoors:
    """The block's object has one door."""

    def test_it_offers_execute_and_nothing_else(self, plain: sqlite3.Connection) -> None:
        with guarded(plain, READER) as db:
            assert [name for name in dir(db) if not name.startswith("_")] == ["execute", "execute_once"]
            rows = db.execute("select id, region from sales")
            assert sorted(name for name in dir(rows) if not name.startswith("_")) == [
                "columns",
                "fetchall",
                "fetchone",
                "rowcount",
            ]
            assert not isinstance(rows, sqlite3.Cursor)
            for door in [
                "executescript",
                "executemany",
                "cursor",
                "backup",
                "iterdump",
                "serialize",
                "deserialize",
                "blobopen",
                "create_function",
                "create_aggregate",
                "create_collation",
                "set_authorizer",
                "set_progress_handler",
                "set_trace_callback",
                "enable_load_extension",
                "load_extension",
                "commit",
                "rollback",
                "close",
                "connection",
                "interrupt",
                "row_factory",
                "text_factory",
                "isolation_level",
                "setlimit",
                "setconfig",
                "__enter__",
            ]:
                assert not hasattr(db, door) and not hasattr(rows, door), door
            with pytest.raises(AttributeError):
                db.execute = None  # type: ignore[method-assign]

    def test_meanwhile_the_connection_itself_does_nothing(self, connection: sqlite3.Connection) -> None:
        known = "select pay from hr"
        connection.execute(known).fetchall()  # compiled before the block, and cached
        with guarded(connection, READER) as db:
            for sql in (known, "select 1", "commit", "pragma user_version", "delete from hr", "select region from sales"):
                with pytest.raises(sqlite3.DatabaseError, match=r"not authorized|prohibited"):
                    connection.execute(sql).fetchall()
            assert verdict(db, "select region from sales") == ALLOWED
            with pytest.raises(sqlite3.DatabaseError, match=r"not authorized|prohibited"):
                connection.execute("select  region from sales")  # not even what has just been seen and allowed
        assert len(connection.execute(known).fetchall()) == 2
        connection.execute("create table free_again (x)")

    def test_a_statement_that_is_cached_is_judged_again_for_another_token(self, connection: sqlite3.Connection) -> None:
        sql = "select count(*) from hr"
        for _ in range(3):
            with guarded(connection, grant(tables=["hr"], operations=["select"])) as db:
                assert db.execute(sql).fetchall() == db.execute(sql).fetchall() == [(2,)]
            with guarded(connection, READER) as db:
                assert [verdict(db, sql), verdict(db, sql)] == ["table", "table"]

    def test_a_str_that_lies_is_taken_for_what_it_holds(self, plain: sqlite3.Connection) -> None:
        class Liar(str):
            def __eq__(self, other: object) -> bool:
                return True

            def __hash__(self) -> int:
                return hash("select id from sales")

            def __str__(self) -> str:
                return "select id from sales"

        with guarded(plain, READER) as db:
            db.execute("select id from sales")
            assert verdict(db, Liar("select pay from hr")) == "table"
            with pytest.raises(TypeError):
                db.execute(b"select 1")  # type: ignore[arg-type]

    def test_python_that_runs_in_a_statement_cannot_use_the_block(self, plain: sqlite3.Connection) -> None:
        heard = []

        class Parameter:
            def __conform__(self, protocol: object) -> int:
                with pytest.raises(GuardError, match="running") as caught:
                    db.execute("select pay from hr")
                heard.append(caught.value)
                return 1

        with guarded(plain, READER) as db:
            assert db.execute("select region from sales where id = ?", [Parameter()]).fetchall() == [("eu",)]
            assert verdict(db, "select pay from hr") == "table"
        assert heard

    def test_a_statement_that_runs_may_do_what_was_seen_and_no_more(
        self, monkeypatch: pytest.MonkeyPatch, plain: sqlite3.Connection
    ) -> None:
        real = Watch.look

        def look(self: Watch, sql: str, parameters: Any) -> Any:
            program, events = real(self, sql, parameters)
            return program, {event: None for event in events if event[0] != watch.READ}

        with guarded(plain, READER) as db:
            assert verdict(db, "select id from sales") == ALLOWED
            monkeypatch.setattr(Watch, "look", look)
            with pytest.raises(sqlite3.DatabaseError, match="prohibited"):
                db.execute("select region from sales")

    def test_another_thread_is_authorized_to_nothing_whatever_the_guard_does(self, plain: sqlite3.Connection) -> None:
        answers = []
        with guarded(plain, READER) as db:
            watched = db._block.watch
            for mode in (watch.CLOSED, watch.OWN, watch.LOOK, watch.RUN):
                watched.mode = mode
                watched.allowed = {(watch.SELECT, None, None, None, None): None}
                ask = threading.Thread(target=lambda: answers.append(watched._judge(watch.SELECT, None, None, None, None)))
                ask.start()
                ask.join()
            watched.mode = watch.CLOSED
        assert answers == [sqlite3.SQLITE_DENY] * 4
