"""A person's consent to one SQL statement: its text, its parameters and all that it touches (47.5)."""

from __future__ import annotations

import sqlite3
from typing import Any

import psycopg
import pytest

from captoken import Denied, Grant, Issuer, Keyring, Verifier
from captoken.adapters import postgres
from captoken.adapters._costed_grant import statement_of
from captoken.adapters.sqlite import guarded
from captoken.consent import Approver, ApproverKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from captoken.testing import FixedClock
from tests.adapters.postgres.conftest import place  # noqa: F401, a fixture

CLOCK = FixedClock(1764061200)
KEYRING = Keyring.generate().for_audience("crm")
JANE = Approver(ApproverKey.generate(), clock=CLOCK)
DELETE = "delete from deals where id = ?"


def database() -> sqlite3.Connection:
    made = sqlite3.connect(":memory:", isolation_level=None)
    made.execute("create table deals (id integer primary key, name text)")
    made.execute("create table people (id integer primary key)")
    made.executemany("insert into deals values (?, ?)", [(number, f"deal {number}") for number in range(5)])
    return made


def grant(**more: Any) -> Grant:
    token = Issuer(KEYRING, clock=CLOCK).mint(
        subject="user:jane", agent="clerk", task="t", tables=["*"], operations=["*"], expires_in=600,
        consent=[{"by": JANE.public, "for": {"tables": ["deals"], "operations": ["delete"]}}], **more,
    )  # fmt: skip
    verifier = Verifier(KEYRING, "crm", clock=CLOCK, replays=MemoryReplayStore(floor=0), ledger=MemoryLedger(shared=True, floor=0))
    return verifier.authenticate(token.present(audience="crm", clock=CLOCK))


def run(held: Grant, made: sqlite3.Connection, sql: str, parameters: Any = ()) -> Any:
    with guarded(made, held) as db:
        return db.execute(sql, parameters).fetchall()


def asked(held: Grant, made: sqlite3.Connection, sql: str, parameters: Any) -> str:
    with pytest.raises(Denied) as caught:
        run(held, made, sql, parameters)
    assert caught.value.code == "consent_missing"
    return caught.value.decision.request() or ""


@pytest.mark.parametrize("more", [{}, {"budget": {"rows": 100}}, {"budget": {"rows_written": 100, "bytes": 10_000}}])
def test_a_statement_runs_once_with_a_consent_to_it_and_no_other_does(more: dict[str, Any]) -> None:
    held, made = grant(**more), database()
    assert len(run(held, made, "select * from deals")) == 5, "other statements need none"
    request = asked(held, made, DELETE, (3,))
    shown = JANE.read(request)
    assert shown.statement == DELETE and shown.parameters == (["int", "3"],) and shown.accesses
    given = held.with_consents([JANE.consent(request)])
    for sql, parameters in (
        (DELETE, (4,)), (DELETE, ("3",)), (DELETE, (3.0,)), (DELETE, (True,)), ("delete from deals", ()), (DELETE + " ", (3,)),
        ("delete from deals where id = :id", {"id": 3}), ("delete from deals where id = ? and id in (select id from people)", (3,)),
    ):  # fmt: skip
        asked(given, made, sql, parameters)
    assert made.execute("select count(*) from deals").fetchone() == (5,)
    run(given, made, DELETE, (3,))
    with pytest.raises(Denied) as caught:
        run(given, made, DELETE, (3,))
    assert caught.value.code == "replayed"
    assert made.execute("select id from deals").fetchall() == [(0,), (1,), (2,), (4,)]


def test_parameters_by_name_are_consented_to_by_name() -> None:
    held, made = grant(), database()
    sql = "delete from deals where id = :one or id = :two"
    request = asked(held, made, sql, {"two": 2, "one": 1})
    assert JANE.read(request).parameters == (["one: int", "1"], ["two: int", "2"])
    given = held.with_consents([JANE.consent(request)])
    asked(given, made, sql, {"two": 1, "one": 2})
    run(given, made, sql, {"one": 1, "two": 2})
    assert made.execute("select count(*) from deals").fetchone() == (3,)


def test_values_of_two_types_are_two() -> None:
    texts = [statement_of("x", (value,)).parameters for value in (1, "1", 1.0, True, b"1", None, "None")]
    assert len(set(texts)) == len(texts)


def test_postgresql_runs_a_statement_once_with_a_consent_to_it_and_no_other(place: Any) -> None:  # noqa: F811
    """Its text, its parameters with their types, and all that it touches. (47.5)"""
    update = "update sales set amount = amount + $1 where id = $2"
    token = Issuer(KEYRING, clock=CLOCK).mint(
        subject="user:jane", agent="clerk", task="t", tables=["sales"], operations=["select", "update"], expires_in=600,
        consent=[{"by": JANE.public, "for": {"tables": ["sales"], "operations": ["update"]}}],
    )  # fmt: skip
    verifier = Verifier(KEYRING, "crm", clock=CLOCK, replays=MemoryReplayStore(floor=0))
    held = verifier.authenticate(token.present(audience="crm", clock=CLOCK))

    with psycopg.connect(place.conninfo("agents"), autocommit=True) as connection:

        def tried(grant: Grant, sql: str, *parameters: Any) -> Any:
            try:
                with postgres.guarded(connection, grant) as db:
                    return db.execute(sql, parameters).fetchall() if sql.startswith("select") else db.execute(sql, parameters) and "ran"
            except Denied as denied:
                return denied.decision.request() or denied.code

        (first,) = tried(held, "select id, amount from sales order by id limit 1")
        request = tried(held, update, 5, first[0])
        asked = JANE.read(request)
        assert asked.statement == update and asked.parameters == (["int", "5"], ["int", str(first[0])])
        given = held.with_consents([JANE.consent(request)])
        for sql, parameters in ((update, (6, first[0])), (update, (5.0, first[0])), (update.replace("+", "-"), (5, first[0]))):
            assert JANE.read(tried(given, sql, *parameters)).digest != asked.digest
        assert [tried(given, update, 5, first[0]) for _ in range(2)] == ["ran", "replayed"]
        assert tried(held, "select id, amount from sales order by id limit 1") == [(first[0], first[1] + 5)]
