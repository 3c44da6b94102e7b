"""The grant is asked before each statement, after it and at the commit; each time it may say no."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.pq import TransactionStatus

from captoken import Caller, Denied, Grant, Issuer, Verifier
from captoken.adapters._postgres import (
    logins,
)
from captoken.adapters.postgres import (
    guarded,
    guarded_async,
)
from captoken.audit import AuditTrail
from captoken.control import Operator
from captoken.stores.memory import MemoryLedger
from tests.adapters.postgres.test_postgres import (
    KEYRING,
    NOW,
    READS,
    Control,
    Place,
    count,
    digest,
    grant,
    rolled_back,
    verdict,
)
from tests.adapters.postgres_corpus import ALLOWED, GRANTS


def test_each_statement_asks_the_grant_anew(agents: psycopg.Connection[Any]) -> None:
    now = [NOW]
    with guarded(agents, grant(lambda: now[0], **GRANTS["reads"], expires_in=60)) as db:
        db.execute("select * from sales")
        now[0] += 61
        for sql in ("select * from sales", "select 1"):
            with pytest.raises(Denied) as denied:
                db.execute(sql)
            assert denied.value.decision.code == "expired"


def test_the_same_text_under_another_token_is_judged_again(agents: psycopg.Connection[Any]) -> None:
    for keywords, expected in ((GRANTS["writes"], ALLOWED), (GRANTS["inserts"], "operation"), (GRANTS["writes"], ALLOWED)):
        with rolled_back(agents, grant(**keywords)) as db:
            assert verdict(db, "select count(*) from sales") == expected


def test_a_statement_does_not_outlive_the_token(agents: psycopg.Connection[Any]) -> None:
    """The limit is the server's own, so that it holds whatever this process does; what is left is looked at each time."""
    slow = "select count(*) from generate_series(1, 20000) a, generate_series(1, 20000) b"
    since = monotonic()
    begun = [0]
    held = grant(lambda: NOW + begun[0] * int(59 + (monotonic() - since)), **GRANTS["reads"], expires_in=60)
    with guarded(agents, held, timeout=3600) as db:
        db.execute("select 1")  # told of a minute
        since, begun[0] = monotonic(), 1  # of which a second is left
        with pytest.raises(Denied) as denied:
            db.execute(slow)
        assert denied.value.decision.code == "expired" and monotonic() - since < 30


SPOKEN = [
    ("revoked", lambda operator: operator.end_task("task-1")),
    ("narrowed", lambda operator: operator.narrow(task="task-1", operations=["delete"], why="odd")),
]


@pytest.mark.parametrize(("code", "say"), SPOKEN, ids=[code for code, _ in SPOKEN])
def test_what_was_written_is_not_committed_once_it_is_not_permitted(
    agents: psycopg.Connection[Any], place: Place, code: str, say: Callable[[Operator], object]
) -> None:
    """The operator speaks after the last statement of the block: it is rolled back, refused, and on record."""
    before, control = digest(place.admin, sequences=False), Control(**GRANTS["writes"])
    with pytest.raises(Denied) as caught, guarded(agents, control.grant) as db:
        db.execute("update sales set note = 'x'")
        say(control.operator)
    assert caught.value.code == code == control.codes[-1]
    assert digest(place.admin, sequences=False) == before and agents.info.transaction_status == TransactionStatus.IDLE


@pytest.mark.parametrize(("code", "say"), SPOKEN, ids=[code for code, _ in SPOKEN])
def test_what_ran_while_the_operator_spoke_is_not_handed_out_and_undone(
    agents: psycopg.Connection[Any], place: Place, code: str, say: Callable[[Operator], object]
) -> None:
    """Said between the question before the statement and the one after it; the block goes on, as far as it may."""
    asks = Control(**GRANTS["writes"])
    with rolled_back(agents, asks.grant) as db:
        first = asks.asks
        db.execute("update sales set note = 'x'")
    logins.forget(agents)  # so that its text is read anew, with a question before that
    before, control = digest(place.admin, sequences=False), Control(say, first + 3, **GRANTS["writes"])
    with guarded(agents, control.grant) as db:
        with pytest.raises(Denied) as caught:
            db.execute("update sales set note = 'x'")
        assert caught.value.code == code == control.codes[-1]
        with pytest.raises(Denied):
            db.execute("update sales set note = 'x'")
    assert digest(place.admin, sequences=False) == before


@pytest.mark.parametrize("order", [0, 1])
def test_each_column_that_was_written_is_asked_about_again(place: Place, order: int) -> None:
    """Whichever statement came last."""
    statements = ["update hr set pay = 1", "update hr set name = name"]
    with psycopg.connect(place.conninfo("trusted")) as connection:
        control = Control(tables=["hr"], operations=["select", "update"])
        with pytest.raises(Denied) as caught, guarded(connection, control.grant) as db:
            for sql in statements if order else reversed(statements):
                db.execute(sql)
            control.operator.narrow(task="task-1", columns={"hr": ["id", "name"]}, why="odd")
        assert caught.value.code == "narrowed"
    assert place.admin.execute("select min(pay) from hr").fetchone() == (800,)


@pytest.mark.parametrize("at", range(1, 9))
def test_who_is_asked_and_does_not_answer_lets_nothing_stand(agents: psycopg.Connection[Any], place: Place, at: int) -> None:
    """At whichever question: what was not said to have succeeded is not there, and no transaction is left open."""
    asked, done = [-1000], False

    def clock() -> int:
        asked[0] += 1
        if asked[0] == at:
            raise RuntimeError("the clock is gone")
        return NOW

    held = grant(clock, **GRANTS["writes"])
    with suppress(RuntimeError), guarded(agents, held) as db:
        asked[0] = 0
        with suppress(RuntimeError):
            db.execute("insert into archive (id) values (1)")
            done = True
        db.execute("select 1")
    assert agents.info.transaction_status == TransactionStatus.IDLE
    kept = count(place, "archive")
    place.admin.execute("delete from archive")
    assert kept <= done


@pytest.mark.parametrize("sql", ["select id from sales", "select 1", "values (1), (2)"])
def test_rows_of_a_token_that_ended_while_they_came_are_not_handed_out(sql: str, place: Place) -> None:
    """Time goes on while values are read; a statement that touches no table is asked about as well. Sync and async."""
    now = [NOW]

    class Slow(psycopg.types.numeric.IntLoader):
        def load(self, data: Any) -> int:
            now[0] += 61
            return super().load(data)

    def held() -> Grant:
        now[0] = NOW
        return grant(lambda: now[0], **GRANTS["reads"], expires_in=60)

    async def run() -> Any:
        async with await psycopg.AsyncConnection.connect(place.conninfo("agents")) as connection:
            connection.adapters.register_loader("int4", Slow)
            async with guarded_async(connection, held()) as db:
                return await db.execute(sql)

    with psycopg.connect(place.conninfo("agents")) as connection:
        connection.adapters.register_loader("int4", Slow)
        with guarded(connection, held()) as db, pytest.raises(Denied) as caught:
            db.execute(sql)
    assert caught.value.code == "expired"
    with pytest.raises(Denied) as caught:
        asyncio.run(run())
    assert caught.value.code == "expired"


def test_what_was_only_read_needs_nothing_at_the_end(agents: psycopg.Connection[Any]) -> None:
    control = Control(**GRANTS["writes"])
    with guarded(agents, control.grant) as db:
        db.execute("select count(*) from sales")
        control.operator.end_task("task-1")


def test_a_statement_has_a_limit_of_its_own(agents: psycopg.Connection[Any]) -> None:
    with guarded(agents, READS, timeout=1) as db:
        with pytest.raises(errors.QueryCanceled):
            db.execute("select count(*) from generate_series(1, 20000) a, generate_series(1, 20000) b")
        assert db.execute("select 1").fetchall() == [(1,)]


def test_who_calls_is_asked_about_with_every_access(agents: psycopg.Connection[Any]) -> None:
    with guarded(agents, READS, caller=Caller(agent="mallory")) as db, pytest.raises(Denied) as denied:
        db.execute("select * from sales")
    assert denied.value.decision.code == "caller"
    with guarded(agents, READS, caller=Caller(agent="analyst")) as db:
        db.execute("select * from sales")


def test_a_counted_token_is_used_once_for_a_statement_and_not_for_a_denial(agents: psycopg.Connection[Any]) -> None:

    token = Issuer(KEYRING, clock=lambda: NOW).mint(subject="user:jane", agent="analyst", task="task-1", uses=2, **GRANTS["reads"])
    ledger = MemoryLedger(floor=0, shared=True, clock=lambda: NOW)
    counted = Verifier(KEYRING, clock=lambda: NOW, ledger=ledger).authenticate(token.serialize())
    with guarded(agents, counted) as db:
        for sql, expected in (
            ("select * from sales, market.moves", ALLOWED), ("select * from hr", "table"), ("select pg_sleep(1)", "operation"),
            ("select * from sales", ALLOWED), ("select * from sales", "budget_exhausted"),
        ):  # fmt: skip
            assert verdict(db, sql) == expected, sql


@pytest.mark.parametrize("cost", [{"cents": 3}, lambda sql, parameters: {"cents": 3}], ids=["always the same", "by statement"])
def test_a_statement_takes_what_it_costs_of_a_budget_once(cost: Any, agents: psycopg.Connection[Any]) -> None:

    token = Issuer(KEYRING, clock=lambda: NOW).mint(
        subject="user:jane", agent="analyst", task="task-1", budget={"cents": 10}, **GRANTS["writes"]
    )
    ledger = MemoryLedger(floor=0, shared=True, clock=lambda: NOW)
    paying = Verifier(KEYRING, clock=lambda: NOW, ledger=ledger).authenticate(token.serialize())
    with rolled_back(agents, paying, cost=cost) as db:
        for sql, expected, spent in (
            ("select id from sales", ALLOWED, 3), ("select 1", ALLOWED, 3), ("select * from hr", "table", 3),
            ("update sales set amount = 1", ALLOWED, 6), ("update sales set amount = 1", ALLOWED, 9),
            ("select id from sales", "budget_exhausted", 9),
        ):  # fmt: skip
            assert verdict(db, sql) == expected, sql
            assert sum(ledger._spent.values()) == spent, sql
    with guarded(agents, paying, cost={"cents": 0}) as db:
        db.execute("update sales set amount = amount where false")  # asked about again when it is committed
    for unstated in (None, {}, {"eur": 1}):
        with guarded(agents, paying, cost=unstated) as db, pytest.raises(Denied) as caught:
            db.execute("select id from sales")
        assert caught.value.code == "cost_unstated" and 'cost={"cents": 0}' in str(caught.value)
    with pytest.raises(TypeError, match="cost"), guarded(agents, paying, cost={"cents": None}):  # type: ignore[dict-item]
        pass


def test_what_a_statement_costs_is_told_by_its_text_and_parameters(agents: psycopg.Connection[Any]) -> None:
    asked: list[Any] = []

    def cost(sql: str, parameters: Any) -> dict[str, int]:
        asked.append((sql, parameters))
        return {}

    with guarded(agents, READS, cost=cost) as db:
        db.execute("select id from sales where id = $1", [1])
        assert asked == [("select id from sales where id = $1", (1,))]
        with pytest.raises(TypeError):
            db.execute("select id from sales", 5)  # type: ignore[arg-type]
    with guarded(agents, READS, cost=lambda sql, parameters: {"cents": -1}) as db, pytest.raises(ValueError, match="cost"):
        db.execute("select id from sales")


def test_every_decision_is_recorded_once(agents: psycopg.Connection[Any]) -> None:

    lines: list[bytes] = []
    token = Issuer(KEYRING, clock=lambda: NOW).mint(subject="user:jane", agent="analyst", task="task-1", **GRANTS["reads"])
    audited = Verifier(KEYRING, clock=lambda: NOW, audit=AuditTrail(lines.append)).authenticate(token.serialize())
    with guarded(agents, audited) as db:
        for sql, records in (
            ("select * from sales", 1), ("select * from sales, market.moves", 1), ("select * from hr", 1), ("drop table sales", 1),
            ("select pg_sleep(1)", 1), ("select * from market.nothing", 1),
        ):  # fmt: skip
            before = len(lines)
            with suppress(Denied):
                db.execute(sql)
            assert len(lines) - before == records, sql
