"""Facts for row security: policies see who acts, and nobody writes over them."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from captoken import Issuer, Verifier
from captoken.adapters.postgres import (
    guarded,
)
from captoken.errors import CaptokenError
from tests.adapters.postgres.test_postgres import KEYRING, NOW, READS, Place, grant

ASKING: dict[str, Any] = {"functions": [f"captoken_guard.{name}" for name in ("subject", "agent", "task", "chain", "token", "facts")]}


FACTS = {name: ["execute"] for name in ASKING["functions"]}


TENANTS = grant(allow={"tenants": ["select"], "sales": ["select"]} | FACTS)


def test_policies_see_who_acts_and_for_whom(agents: psycopg.Connection[Any]) -> None:
    token = Issuer(KEYRING, clock=lambda: NOW).mint(subject="user:bob", agent="orchestrator", task="t/1", allow={"tenants": ["select"]} | FACTS)
    handed = token.delegate(to="reader", task="t/1/a")
    bob = Verifier(KEYRING, clock=lambda: NOW).authenticate(handed.serialize())
    with guarded(agents, bob, **ASKING) as db:
        assert db.execute("select value from tenants").fetchall() == [(2,)]
        sql = "select captoken_guard.subject(), captoken_guard.agent(), captoken_guard.task(), captoken_guard.chain(), captoken_guard.token()"
        assert db.execute(sql).fetchall() == [("user:bob", "reader", "t/1/a", ["orchestrator", "reader"], token.token_id)]
    with guarded(agents, TENANTS) as db:
        assert db.execute("select value from tenants").fetchall() == [(1,)]


@pytest.mark.parametrize(
    "sql",
    [
        "set captoken.facts = '{\"subject\": \"user:bob\"}'",
        "set local captoken.facts = '0000000000000000000000000000000000000000000000000000000000000000{\"subject\": \"user:bob\"}'",
        "set local captoken.facts = ''",
        "reset captoken.facts",
        "set local captoken.facts = '%s'",
    ],
)
def test_what_the_agent_writes_over_them_is_no_fact(sql: str, agents: psycopg.Connection[Any], place: Place, blind: None) -> None:
    """Even SET, which no text gets as far as, makes them no more than nothing; nor do those of another transaction count."""
    with guarded(agents, grant(subject="user:bob", tables=["tenants", "sales"], operations=["select"])) as db:
        kept = db.execute("select current_setting('captoken.facts')").fetchall()[0][0]
        assert db.execute("select value from tenants").fetchall() == [(2,)]
    assert json.loads(kept[64:])["subject"] == "user:bob"
    with guarded(agents, TENANTS) as db:
        assert db.execute("select value from tenants").fetchall() == [(1,)]
        db.execute(sql.replace("%s", kept))
        assert db.execute("select value from tenants").fetchall() == []
        assert db.execute("select captoken_guard.subject()").fetchall() == [(None,)]


def test_nobody_signs_twice_in_a_transaction_not_even_the_login(agents: psycopg.Connection[Any], blind: None) -> None:
    """All that an agent could do whose statements were let through whatever they are: it has no second set of facts."""
    forged = "select captoken_guard.begin('{\"subject\": \"user:bob\"}', 60000)"
    for before in ((), ("reset role",), ("reset role", "set captoken.facts = ''"), ("reset role", "discard plans")):
        with guarded(agents, TENANTS) as db:
            for sql in (*before, forged):
                with suppress(CaptokenError, psycopg.Error):
                    db.execute(sql)
            with suppress(CaptokenError, psycopg.Error):
                db.execute("set local role reader")
            assert db.execute("select value from tenants").fetchall() in ([(1,)], []), before


@pytest.mark.parametrize("sql", ["commit", "rollback", "commit and chain", "rollback and chain"])
def test_a_statement_that_ends_the_transaction_costs_the_connection(
    sql: str, place: Place, taken_for_a_read: None, unasked: None
) -> None:
    """What even the grammar would have to miss: nothing runs on after it, and nothing runs with other facts."""
    with psycopg.connect(place.conninfo("agents")) as connection:
        with suppress(CaptokenError, psycopg.Error), guarded(connection, READS) as db:
            db.execute("select 1")
            with suppress(CaptokenError, psycopg.Error):
                db.execute(sql)
            with pytest.raises((CaptokenError, psycopg.Error)):
                db.execute("select captoken_guard.begin('{}', 1000)")
            with pytest.raises((CaptokenError, psycopg.Error)):
                db.execute("select 1")
        assert connection.closed


def test_the_log_of_the_database_says_who(agents: psycopg.Connection[Any], place: Place) -> None:
    heard: list[str] = []
    agents.add_notice_handler(lambda diagnostic: heard.append(diagnostic.message_primary or ""))
    agents.execute("set client_min_messages = log")  # what goes to the log comes here too
    with guarded(agents, TENANTS) as db:
        db.execute("select 1")
        pid = agents.info.backend_pid
        (name,), = place.admin.execute("select application_name from pg_stat_activity where pid = %s", [pid]).fetchall()
    (said,) = (line.removeprefix("captoken ") for line in heard if line.startswith("captoken "))
    assert json.loads(said) == {
        "subject": "user:jane", "agent": "analyst", "task": "task-1", "token": TENANTS.token_id,
        "chain": [{"name": "analyst", "basis": "issued"}],
    }  # fmt: skip
    assert name == f"captoken {TENANTS.token_id} analyst"
