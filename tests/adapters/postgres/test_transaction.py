"""One statement with its commit, and commits whose answer is lost: committed, rolled back, or told as unknown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.pq import TransactionStatus

from captoken import Denied, Grant
from captoken.adapters._postgres import (
    logins,
    opening,
    transaction,
)
from captoken.adapters.postgres import (
    guarded,
    guarded_async,
)
from captoken.control import Operator
from captoken.errors import GuardError, StatementError
from tests.adapters.postgres.test_judging import SPOKEN
from tests.adapters.postgres.test_postgres import NOW, READS, WRITES, Back, Control, Place, count, digest, grant
from tests.adapters.postgres_corpus import GRANTS
from tests.stores.servers import Wire


@pytest.mark.parametrize("given", [READS, WRITES], ids=["reads", "writes"])
def test_one_statement_has_a_limit_too(given: Grant, agents: psycopg.Connection[Any]) -> None:
    """The server ends it by itself, and the connection stays."""
    for sql in ("select", "update sales set amount = 1 where 0 <"):
        with guarded(agents, given, timeout=1) as db, pytest.raises((errors.QueryCanceled, Denied)):
            db.execute_once(f"{sql} (select count(*) from generate_series(1, 20000) a, generate_series(1, 20000) b)")
        assert idle(agents)


def idle(connection: psycopg.Connection[Any]) -> bool:
    return connection.info.transaction_status == TransactionStatus.IDLE


def test_one_statement_is_committed_when_its_rows_are_handed_out(agents: psycopg.Connection[Any], place: Place) -> None:
    """And the block is over: nothing runs in it any more, and its end does nothing."""
    with suppress(Back), guarded(agents, WRITES) as db:
        assert db.execute_once("insert into archive (id) values ($1) returning id", [1]).fetchall() == [(1,)]
        assert count(place, "archive") == 1 and idle(agents)
        for again in (db.execute, db.execute_once):
            with pytest.raises(GuardError, match="ended"):
                again("select 1")
        raise Back
    assert count(place, "archive") == 1 and idle(agents)
    with guarded(agents, WRITES) as db:
        assert db.execute_once("delete from archive").rowcount == 1
    assert count(place, "archive") == 0
    with guarded(agents, WRITES) as db:
        assert db.execute_once("select id, region from sales order by id limit 1").fetchall() == [(1, "eu")]
    with guarded(agents, READS) as db:
        assert db.execute_once("select 1").fetchall() == [(1,)]


def test_one_statement_is_the_first_of_its_block(agents: psycopg.Connection[Any], place: Place) -> None:
    with guarded(agents, WRITES) as db:
        db.execute("insert into archive (id) values (1)")
        with pytest.raises(GuardError, match="the only statement"):
            db.execute_once("delete from archive")
        db.execute("insert into archive (id) values (2)")
    assert count(place, "archive") == 2
    place.admin.execute("delete from archive")


def test_one_statement_takes_as_few_commands_as_it_can(agents: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that only reads is a transaction by itself. No savepoint is made for either."""
    sent: list[list[Any]] = []
    exchange = transaction.exchange

    def watched(connection: Any, commands: Any, seconds: float) -> Any:
        sent.append(list(commands))
        return exchange(connection, commands, seconds)

    monkeypatch.setattr(transaction, "exchange", watched)
    for sql in ("select id from sales", "delete from archive"):
        with guarded(agents, WRITES) as db:
            db.execute_once(sql)
    (opened, read, seen), (begin, *_, wrote, seen_too), (commit,) = sent
    assert b"open" in opened.sql and opened.values[-1] == b"t" and read.sql == b"select id from sales"
    assert (begin.sql, wrote.sql, commit.sql) == (b"begin read write", b"delete from archive", b"commit") and seen.sql == seen_too.sql


@pytest.mark.parametrize("sql", ["delete from sales", "select nextval('sales_id_seq')", "set transaction read write"])
def test_one_statement_that_was_taken_for_a_read_writes_nothing(sql: str, place: Place, blind: None) -> None:
    """Whatever the grant may write."""
    before = digest(place.admin)
    with psycopg.connect(place.conninfo("trusted")) as connection, guarded(connection, WRITES) as db:
        with pytest.raises((Denied, psycopg.Error), match=r"read-only|any query"):
            db.execute_once(sql)
        assert idle(connection)
    assert digest(place.admin) == before


@pytest.mark.parametrize(
    ("sql", "raised"),
    [
        ("delete from hr", Denied), ("selec", StatementError), ("insert into archive (id) select id / 0 from sales", StatementError),
        ("select id / 0 from sales", StatementError), ("insert into archive (id) select 1 from generate_series(1, 20) returning id", StatementError),
        ("select generate_series(1, 20)", StatementError), ("insert into archive (id) select 1 from pg_sleep(1)", Denied),
    ],
)  # fmt: skip
def test_one_statement_that_fails_leaves_nothing(sql: str, raised: type[Exception], agents: psycopg.Connection[Any], place: Place) -> None:
    before = digest(place.admin, sequences=False)
    with guarded(agents, WRITES, max_rows=10) as db:
        with pytest.raises(raised):
            db.execute_once(sql)
        assert idle(agents)
        with pytest.raises(GuardError, match="ended"):
            db.execute("select 1")
    assert digest(place.admin, sequences=False) == before
    with guarded(agents, WRITES) as db:
        db.execute("select 1")


def spoken_late(say: Callable[[Operator], object]) -> Control:
    """Between a statement that writes, and the question after it."""
    return Control(say, 5, **GRANTS["writes"])


@pytest.mark.parametrize("sql", ["insert into archive (id) values (1)", "select id from sales"])
@pytest.mark.parametrize(("code", "say"), SPOKEN, ids=[code for code, _ in SPOKEN])
def test_one_statement_is_not_committed_once_it_is_not_permitted(
    agents: psycopg.Connection[Any], place: Place, code: str, say: Callable[[Operator], object], sql: str
) -> None:
    control = spoken_late(say)
    with guarded(agents, control.grant) as db, pytest.raises(Denied) as caught:
        db.execute_once(sql)
    assert caught.value.code == code == control.codes[-1] and "allowed" in control.codes
    assert count(place, "archive") == 0 and idle(agents)


def test_one_statement_that_breaks_a_deferred_constraint_is_an_error_of_the_commit(agents: psycopg.Connection[Any], place: Place) -> None:
    place.admin.execute("create table due (id integer primary key, up integer references due deferrable initially deferred)")
    place.admin.execute("grant insert, select on due to writer")
    try:
        logins.forget(agents)
        with guarded(agents, grant(tables=["due"], operations=["insert", "select"])) as db, pytest.raises(StatementError):
            db.execute_once("insert into due values (1, 7) returning id")
        assert count(place, "due") == 0 and idle(agents)
    finally:
        place.admin.execute("drop table due")


@pytest.fixture
def wired(place: Place) -> Iterator[tuple[Wire, psycopg.Connection[Any]]]:
    """A connection over a wire that can be cut."""
    port = place.admin.info.port
    wire = Wire(port)
    conninfo = place.conninfo("agents").replace(f"port={port}", f"port={wire.port}")
    try:
        with psycopg.connect(conninfo) as connection:
            with guarded(connection, WRITES) as db:
                db.execute("select id from sales")
            yield wire, connection
    finally:
        wire.close()
        place.admin.execute("delete from archive")


def test_a_commit_whose_answer_is_lost_is_told_as_unknown_and_never_made_again(wired: Any, place: Place) -> None:
    """It was made, in fact: once. What it cost is spent."""
    wire, connection = wired
    control = spoken_late(lambda operator: wire.lose_answer())
    with pytest.raises(GuardError) as caught, guarded(connection, control.grant) as db:
        db.execute_once("insert into archive (id) values (1)")
    assert caught.value.code == "outcome_unknown" and "may or may not be saved" in str(caught.value)
    assert connection.closed and count(place, "archive") == 1


def test_a_block_whose_commit_is_not_answered_is_told_as_unknown(wired: Any, place: Place) -> None:
    wire, connection = wired
    with pytest.raises(GuardError) as caught, guarded(connection, WRITES) as db:
        db.execute("insert into archive (id) values (1)")
        wire.lose_answer()
    assert caught.value.code == "outcome_unknown" and count(place, "archive") == 1


@pytest.mark.parametrize("sql", ["insert into archive (id) values (1)", "delete from archive"])
def test_a_commit_that_did_not_arrive_is_told_as_unknown(sql: str, place: Place) -> None:
    """Nobody here can tell the two apart."""
    with psycopg.connect(place.conninfo("agents")) as connection:
        pid = connection.info.backend_pid
        control = spoken_late(lambda operator: place.admin.execute("select pg_terminate_backend(%s, 5000)", [pid]))
        with guarded(connection, control.grant) as db:
            with pytest.raises(GuardError) as caught:
                db.execute_once(sql)
            assert caught.value.code == "outcome_unknown" and connection.closed
    assert count(place, "archive") == 0


@pytest.mark.parametrize("sql", ["insert into archive (id) values (1)", "select id from sales"])
def test_a_connection_that_is_lost_before_the_commit_is_no_unknown_outcome(sql: str, place: Place) -> None:
    """The commit was not sent, or there was nothing to commit."""
    with psycopg.connect(place.conninfo("agents")) as connection:
        with guarded(connection, WRITES) as db:
            db.execute("select 1")
        place.admin.execute("select pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
        with guarded(connection, WRITES) as db, pytest.raises(psycopg.OperationalError):
            db.execute_once(sql)
    assert count(place, "archive") == 0


def test_a_block_that_only_read_loses_nothing_at_its_end(wired: Any) -> None:
    wire, connection = wired
    with pytest.raises(psycopg.OperationalError), guarded(connection, READS) as db:
        db.execute("select id from sales")
        wire.lose_answer()


@pytest.mark.parametrize(("sql", "gives"), [("select a from wide", 1), ("update wide set a = a + 1 returning a", 2)])
def test_one_statement_is_judged_by_the_schema_that_there_is(sql: str, gives: int, agents: psycopg.Connection[Any], place: Place) -> None:
    """Found behind it, and undone. Then it runs as it is judged anew, and is committed once."""
    wide = grant(tables=["wide"], operations=["select", "update"])
    logins.forget(agents)
    with guarded(agents, wide) as db:
        db.execute("select 1")
    place.admin.execute("alter table wide add column d integer")
    try:
        with guarded(agents, wide) as db:
            assert db.execute_once(sql).fetchall() == [(gives,)]
        assert idle(agents) and place.admin.execute("select a from wide").fetchall() == [(gives,)]
    finally:
        place.admin.execute("alter table wide drop column d; update wide set a = 1")


def test_what_fails_at_the_end_of_a_round_trip_is_not_handed_out(place: Place, blind: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a transaction by itself is to be serializable, and could not be. Here it is made to write."""
    opens = opening.Opening._open
    monkeypatch.setattr(opening.Opening, "_open", lambda its, *facts, only_reads: opens(its, *facts, only_reads=False))
    place.admin.execute("create table due (id integer primary key, up integer references due deferrable initially deferred)")
    place.admin.execute("grant insert, select on due to public")
    try:
        with psycopg.connect(place.conninfo("trusted")) as connection, guarded(connection, READS) as db:
            with pytest.raises(StatementError):
                db.execute_once("insert into due values (1, 7) returning id")
            assert idle(connection) and count(place, "due") == 0
    finally:
        place.admin.execute("drop table due")


def test_an_interrupt_before_the_commit_costs_the_connection(place: Place) -> None:
    asked = [-1000]

    def clock() -> int:
        asked[0] += 1
        if asked[0] == 4:
            raise KeyboardInterrupt
        return NOW

    with psycopg.connect(place.conninfo("agents")) as connection:
        with guarded(connection, grant(clock, **GRANTS["writes"])) as db:
            asked[0] = 0
            with pytest.raises(KeyboardInterrupt):
                db.execute_once("insert into archive (id) values (1)")
        assert connection.closed
    assert count(place, "archive") == 0


def test_a_block_that_its_owner_spoilt_does_not_end_as_if_committed(agents: psycopg.Connection[Any], place: Place) -> None:
    with pytest.raises(GuardError, match="rolled back"), guarded(agents, WRITES) as db:
        db.execute("insert into archive (id) values (1)")
        with suppress(psycopg.Error):
            agents.execute("select 1 / 0")
    assert count(place, "archive") == 0 and idle(agents)


def test_async_one_statement_is_the_same(place: Place) -> None:
    async def run() -> None:
        async with await psycopg.AsyncConnection.connect(place.conninfo("agents")) as connection:
            async with guarded_async(connection, WRITES) as db:
                assert (await db.execute_once("insert into archive (id) values (1) returning id")).fetchall() == [(1,)]
                assert count(place, "archive") == 1
                with pytest.raises(GuardError, match="ended"):
                    await db.execute("select 1")
            async with guarded_async(connection, WRITES) as db:
                with pytest.raises(Denied):
                    await db.execute_once("delete from hr")

    asyncio.run(run())
    place.admin.execute("delete from archive")
