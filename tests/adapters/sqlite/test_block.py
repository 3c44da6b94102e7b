"""A block on SQLite: one transaction, one thread, one statement at a time, and nothing of it is left behind."""

from __future__ import annotations

import gc
import sqlite3
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from captoken import Denied, Issuer
from captoken.adapters import _claims
from captoken.adapters._sqlite import remembered
from captoken.adapters.sqlite import guarded
from captoken.errors import GuardError, StatementError
from tests.adapters.sqlite.test_running import WRITER
from tests.adapters.sqlite.test_sqlite import KEYRING, NOW, READER, Back, grant, verdict
from tests.adapters.sqlite_corpus import ALLOWED


class TestBlock:
    """Rule 10: one transaction, one thread, one at a time."""

    def test_it_commits_at_its_end_and_rolls_back_when_an_exception_leaves_it(self, plain: sqlite3.Connection) -> None:
        with guarded(plain, WRITER) as db:
            db.execute("insert into sales (id, amount) values (3, 1)")
        with pytest.raises(Denied), guarded(plain, WRITER) as db:
            db.execute("insert into sales (id, amount) values (4, 1)")
            db.execute("delete from hr")
        with pytest.raises(KeyboardInterrupt), guarded(plain, WRITER) as db:
            db.execute("delete from sales")
            raise KeyboardInterrupt
        assert plain.execute("select id from sales order by id").fetchall() == [(1,), (2,), (3,)] and not plain.in_transaction

    def test_an_error_of_a_statement_leaves_the_block_usable(self, plain: sqlite3.Connection) -> None:
        with guarded(plain, WRITER) as db:
            db.execute("insert into sales (id, amount) values (3, 1)")
            for sql in ("insert into sales (id, amount) values (4, 1), (1, 1)", "update sales set amount = -1"):
                with pytest.raises(StatementError):
                    db.execute(sql)
            assert db.execute("select count(*) from sales").fetchone() == (3,)
        assert plain.execute("select count(*) from sales").fetchone() == (3,)

    def test_a_commit_that_fails_rolls_back(self, plain: sqlite3.Connection) -> None:
        plain.execute("pragma foreign_keys = on")
        plain.execute("create table late (sale integer references sales (id) deferrable initially deferred)")
        with pytest.raises(StatementError), guarded(plain, grant(tables=["late"], operations=["insert"])) as db:
            db.execute("insert into late values (99)")
        assert not plain.in_transaction and plain.execute("select count(*) from late").fetchone() == (0,)
        with guarded(plain, READER) as db:
            assert db.execute("select count(*) from sales").fetchone() == (2,)

    def test_an_open_transaction_of_the_owners_is_refused_and_kept(self, connection: sqlite3.Connection) -> None:
        connection.execute("begin")
        connection.execute("update hr set pay = 1")
        with pytest.raises(GuardError, match="open transaction"), guarded(connection, READER):
            raise AssertionError
        assert connection.in_transaction and connection.execute("select distinct pay from hr").fetchall() == [(1,)]
        connection.rollback()
        if hasattr(connection, "autocommit"):
            always = sqlite3.connect(":memory:", autocommit=False)
            with pytest.raises(GuardError, match="autocommit=False"), guarded(always, READER):
                raise AssertionError
            always.close()

    def test_blocks_do_not_nest(self, plain: sqlite3.Connection) -> None:
        other = sqlite3.connect(":memory:")
        with guarded(plain, READER) as db:
            with pytest.raises(GuardError, match="this thread"), guarded(plain, grant(tables=["hr"], operations=["select"])):
                raise AssertionError
            with guarded(other, READER) as second:  # another connection is another matter
                assert second.execute("select 1").fetchall() == [(1,)]
            assert verdict(db, "select * from hr") == "table" and verdict(db, "select * from sales") == ALLOWED
        other.close()

    def test_nothing_works_after_its_end(self, plain: sqlite3.Connection) -> None:
        with guarded(plain, READER) as db:
            rows = db.execute("select id from sales")
        with pytest.raises(GuardError, match="has ended"):
            db.execute("select 1")
        assert rows.fetchall() == [(1,), (2,)]  # fetched before `execute` returned
        with guarded(plain, READER), pytest.raises(GuardError, match="has ended"):
            db.execute("select 1")

    @pytest.mark.parametrize("kept", [True, False], ids=["committed", "rolled back"])
    def test_it_can_be_left_in_another_thread(self, kept: bool) -> None:
        """As pools and web frameworks close what a request used."""
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        connection.execute("create table sales (id)")
        block = guarded(connection, WRITER)
        db = block.__enter__()
        db.execute("insert into sales values (1)")
        left = (None, None, None) if kept else (Back, Back(), None)
        leaving = threading.Thread(target=lambda: block.__exit__(*left))
        leaving.start()
        leaving.join()
        with pytest.raises(GuardError):
            db.execute("select 1")
        assert not connection.in_transaction
        assert connection.execute("select count(*) from sales").fetchall() == [(int(kept),)]
        connection.close()

    @pytest.mark.parametrize("shared", [True, False], ids=["shared", "of one thread"])
    def test_a_second_thread_gets_a_clear_error_and_no_deadlock(self, shared: bool) -> None:
        connection = sqlite3.connect(":memory:", check_same_thread=not shared)
        connection.execute("create table sales (id)")
        heard: list[Any] = []

        def enter() -> None:
            with guarded(connection, READER) as db:
                heard.append(db.execute("select count(*) from sales").fetchall())

        def use() -> None:
            db.execute("select 1")

        def in_thread(work: Callable[[], None]) -> None:
            def run() -> None:
                try:
                    work()
                except Exception as error:
                    heard.append(error)

            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            thread.join(20)
            assert not thread.is_alive()

        with guarded(connection, READER) as db:
            in_thread(enter)
            in_thread(use)
            assert verdict(db, "select * from sales") == ALLOWED
        assert [type(error) for error in heard] == [GuardError, GuardError]
        assert "another thread" in str(heard[0]) and "another thread" in str(heard[1])
        in_thread(enter)
        assert heard[2] == [(0,)] if shared else isinstance(heard[2], GuardError)
        with guarded(connection, READER) as db:  # whatever came of it, the connection is whole
            assert verdict(db, "select * from sales") == ALLOWED
        connection.close()

    def test_many_threads_that_take_turns_do_not_deadlock(self) -> None:
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        connection.execute("create table sales (id)")
        turn, counts = threading.Lock(), []

        def work() -> None:
            for _ in range(50):
                with turn, guarded(connection, READER) as db:
                    counts.append(verdict(db, "select count(*) from sales") + verdict(db, "select * from hr"))

        threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert counts == [ALLOWED + "table"] * 200
        connection.close()

    def test_it_is_not_left_while_a_statement_runs(self, plain: sqlite3.Connection) -> None:
        manager = guarded(plain, READER)
        db = manager.__enter__()

        class Parameter:
            def __conform__(self, protocol: object) -> int:
                with pytest.raises(GuardError, match="while its statement was running"):
                    manager.__exit__(None, None, None)
                raise Back

        with pytest.raises((Back, sqlite3.Error)):
            db.execute("select ?", [Parameter()])
        plain.rollback()
        assert not _claims._claims

    def test_it_keeps_a_bounded_number_of_plans(self, monkeypatch: pytest.MonkeyPatch, plain: sqlite3.Connection) -> None:
        monkeypatch.setattr(remembered, "_MOST", 3)
        monkeypatch.setattr(remembered, "_CHARACTERS", 300)
        with guarded(plain, READER) as db:
            plans = db._block._planner.found.plans
            for number in [*range(10), *range(10)]:  # and makes one anew where it must
                assert db.execute(f"select {number} from sales where id = 1").fetchall() == [(number,)]
                assert 0 < len(plans._kept) <= 3
            for spaces in (280, 281, 282, 400):  # of long ones fewer
                db.execute("select 1" + " " * spaces)
                assert len(plans._kept) == 1

    def test_only_a_grant_and_a_connection_are_taken(self, plain: sqlite3.Connection) -> None:
        token = Issuer(KEYRING).mint(subject="user:jane", agent="analyst", task="t", tables=["sales"], operations=["select"])
        for thing in (token, token.serialize(), None):
            with pytest.raises(TypeError, match="Grant"), guarded(plain, thing):  # type: ignore[arg-type]
                raise AssertionError
        for other in (plain.cursor(), ":memory:", None):
            with pytest.raises(TypeError, match=r"sqlite3\.Connection"), guarded(other, READER):  # type: ignore[arg-type]
                raise AssertionError

    def test_a_connection_is_not_kept_alive(self) -> None:
        class Owned(sqlite3.Connection):
            pass

        connection = Owned(":memory:")
        with guarded(connection, READER) as db:
            db.execute("select count(*)")
        gone = weakref.ref(connection)
        connection.close()
        del connection, db
        gc.collect()
        assert gone() is None and not _claims._claims

    def test_a_connection_of_another_thread_cannot_be_guarded(self) -> None:
        made: list[sqlite3.Connection] = []
        is_there, is_over = threading.Event(), threading.Event()

        def of_another() -> None:
            made.append(sqlite3.connect(":memory:"))
            is_there.set()
            is_over.wait()
            made[0].close()

        other = threading.Thread(target=of_another)
        other.start()
        is_there.wait()
        with pytest.raises(GuardError, match="cannot be guarded here: it is closed, or belongs to another thread"), guarded(made[0], READER):
            raise AssertionError
        is_over.set()
        other.join()

    def test_a_connection_that_is_closed_inside_is_let_go(self) -> None:
        connection = sqlite3.connect(":memory:")
        with pytest.raises(sqlite3.ProgrammingError), guarded(connection, READER):
            connection.close()
        assert not _claims._claims


class TestOnce:
    """One statement with its commit: its rows are handed out when it lasts."""

    def test_it_is_committed_before_its_rows_are_seen_and_the_block_is_over(self, plain: sqlite3.Connection) -> None:
        with pytest.raises(Back), guarded(plain, WRITER) as db:
            rows = db.execute_once("insert into sales (id, amount) values (3, ?) returning id", (7,))
            assert not plain.in_transaction and rows.fetchall() == [(3,)]
            for again in (db.execute, db.execute_once):
                with pytest.raises(GuardError, match="the block has ended"):
                    again("select id from sales")
            raise Back
        assert plain.execute("select amount from sales where id = 3").fetchall() == [(7,)]
        with guarded(plain, READER) as db:
            assert db.execute_once("select count(*) from sales").fetchall() == [(3,)]

    def test_it_is_for_a_block_of_its_own(self, plain: sqlite3.Connection) -> None:
        for first in ("select id from sales", "select pay from nothing", "update sales set amount = -1"):
            with guarded(plain, WRITER) as db:
                with suppress(Denied, StatementError):
                    db.execute(first)
                with pytest.raises(GuardError, match="the only statement"):
                    db.execute_once("delete from sales")
                assert db.execute("select count(*) from sales").fetchall() == [(2,)], "the block goes on"

    @pytest.mark.parametrize(
        "sql, error",
        [
            ("delete from hr", Denied), ("update sales set amount = -1", StatementError), ("pragma user_version", Denied),
            ("insert into sales (id, amount) select 4 - 1, 5 union all select 1, 2", StatementError), ("selct", StatementError),
        ],
    )  # fmt: skip
    def test_what_is_refused_or_fails_leaves_nothing_and_ends_the_block(
        self, plain: sqlite3.Connection, sql: str, error: type[Exception]
    ) -> None:
        with guarded(plain, WRITER) as db:
            with pytest.raises(error):
                db.execute_once(sql)
            assert not plain.in_transaction
            with pytest.raises(GuardError, match="the block has ended"):
                db.execute("select id from sales")
        assert plain.execute("select id, amount from sales").fetchall() == [(1, 10), (2, 20)]

    def test_it_is_asked_about_when_it_is_done_and_only_then_committed(self, plain: sqlite3.Connection) -> None:
        now = [NOW]
        held = grant(lambda: now[0], tables=["sales"], operations=["insert", "select"], expires_in=60)

        def slowly(raw: bytes) -> str:
            now[0] += 60
            return raw.decode()

        plain.text_factory = slowly
        with guarded(plain, held) as db, pytest.raises(Denied) as caught:
            db.execute_once("insert into sales (id, region) values (3, 'eu') returning region")
        assert caught.value.code == "expired" and plain.execute("select count(*) from sales").fetchone() == (2,)

    def test_a_commit_that_fails_hands_out_nothing(self, plain: sqlite3.Connection) -> None:
        plain.execute("pragma foreign_keys = on")
        plain.execute("create table late (sale integer references sales (id) deferrable initially deferred)")
        held = grant(tables=["late"], operations=["insert", "select"])
        with guarded(plain, held) as db, pytest.raises(StatementError):
            db.execute_once("insert into late values (99) returning sale")
        assert not plain.in_transaction and plain.execute("select count(*) from late").fetchone() == (0,)
