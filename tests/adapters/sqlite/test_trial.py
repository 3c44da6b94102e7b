"""What this build of SQLite shows is tried, and what it does not show fails closed."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from captoken.adapters._sqlite import trial, watch
from captoken.adapters._sqlite.opcodes import Engine
from captoken.adapters._sqlite.watch import Watch
from captoken.adapters.sqlite import guarded
from captoken.errors import GuardError
from tests.adapters.sqlite.test_sqlite import READER, grant, rolled_back, verdict
from tests.adapters.sqlite_corpus import ALLOWED


class TestSelfTest:
    """EXPLAIN is no stable interface: a build of SQLite that is not understood is not guarded."""

    @pytest.mark.parametrize("hidden", [b"OpenRead", b"OpenWrite", b"VOpen", b"Column", b"-- TRIGGER t"])
    def test_it_fails_closed(self, monkeypatch: pytest.MonkeyPatch, hidden: bytes, plain: sqlite3.Connection) -> None:
        real = Watch.look

        def look(self: Watch, sql: str, parameters: Any) -> Any:
            program, events = real(self, sql, parameters)
            rows = [(*row[:5], None if row[5] == hidden else row[5], *row[6:]) for row in program if row[1] != hidden]
            return rows, events

        monkeypatch.setattr(Watch, "look", look)
        trial.engine_of.cache_clear()
        try:
            with pytest.raises(GuardError, match="cannot work with this build"), guarded(plain, READER):
                raise AssertionError
        finally:
            trial.engine_of.cache_clear()

    def test_an_authorizer_that_is_not_asked_is_noticed(
        self, monkeypatch: pytest.MonkeyPatch, plain: sqlite3.Connection
    ) -> None:
        real = Watch.look
        with guarded(plain, READER) as db:
            monkeypatch.setattr(Watch, "look", lambda *given: (real(*given)[0], {}))
            with pytest.raises(GuardError, match="without asking"):
                db.execute("select id from sales")

    def test_what_the_authorizer_never_asked_before_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, plain: sqlite3.Connection
    ) -> None:
        sql = "with recursive n (i) as (select 1 union select i + 1 from n where i < 3) select i from n"
        with guarded(plain, READER) as db:
            assert verdict(db, sql) == ALLOWED
        monkeypatch.setattr(watch, "KNOWN", watch.KNOWN - {watch.RECURSIVE})
        with guarded(plain, READER) as db:
            assert verdict(db, sql) == "operation"

    def test_opcodes_that_name_another_table_need_that_table(
        self, monkeypatch: pytest.MonkeyPatch, plain: sqlite3.Connection
    ) -> None:
        """Each by itself, whatever the authorizer said."""
        root = plain.execute("select rootpage from sqlite_master where name = 'hr'").fetchone()[0]
        real, sql = Watch.look, "update sales set region = 'x' where id = 1"
        extra: list[tuple[Any, ...]] = []

        def look(self: Watch, sql: str, parameters: Any) -> Any:
            program, events = real(self, sql, parameters)
            return [*program[:2], *extra, *program[2:]], events

        monkeypatch.setattr(Watch, "look", look)
        for rows, operation in [
            ([(2, b"OpenRead", 9, root, 0, b"5", 0, None)], "select"),
            ([(2, b"ReopenIdx", 9, root, 0, b"5", 0, None)], "select"),
            ([(2, b"Clear", root, 0, 0, None, 0, None)], "delete"),
        ]:
            extra[:] = rows
            allow = {"sales": ["update"]}
            with rolled_back(plain, grant(allow=allow)) as db:
                assert verdict(db, sql) == "table", rows
            with rolled_back(plain, grant(allow={**allow, "hr": [operation]})) as db:
                assert verdict(db, sql) == ALLOWED, rows

    @pytest.mark.parametrize(
        "row",
        [
            (2, b"OpenElsewhere", 9, 2, 0, None, 0, None),
            (2, b"VUpdate", 0, 1, 2, b"vtab:0", 0, None),
            (2, b"VOpen", 9, 0, 0, b"vtab:0", 0, None),
            (2, b"OpenRead", 9, 1, 0, b"5", 0, None),
            (2, b"OpenRead", 9, 2, 0, b"5", 0x10, None),
            (2, b"OpenWrite", 9, 3, 0, b"5", 0, None),
            (2, b"Clear", 99, 0, 0, None, 0, None),
            (2, b"AutoCommit", 1, 0, 0, None, 0, None),
            (2, b"Halt", 19, 1, 0, None, 0, None),
        ],
    )
    def test_an_opcode_that_may_do_anything_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, plain: sqlite3.Connection, row: tuple[Any, ...]
    ) -> None:
        real = Watch.look

        def look(self: Watch, sql: str, parameters: Any) -> Any:
            program, events = real(self, sql, parameters)
            return [*program[:2], row, *program[2:]], events

        with guarded(plain, grant(tables=["*"], operations=["*"])) as db:
            assert verdict(db, "update sales set region = 'x' where id = 1") == ALLOWED
            monkeypatch.setattr(Watch, "look", look)
            assert verdict(db, "update sales set region = upper('y') where id = 1") in ("operation", "table")

    def test_this_build_shows_what_is_replaced(self, plain: sqlite3.Connection) -> None:
        assert trial.engine_of(sqlite3.Connection) in (Engine(True), Engine(False))
