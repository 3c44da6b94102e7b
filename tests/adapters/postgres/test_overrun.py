"""What does not end by itself costs the connection, and the server is asked to cancel it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic

import psycopg
import pytest
from psycopg import errors

from captoken import Denied
from captoken.adapters._postgres import (
    opening,
    overrun,
)
from captoken.adapters.postgres import (
    guarded,
    guarded_async,
)
from captoken.errors import GuardError
from tests.adapters.postgres.test_postgres import NOW, READS, WRITES, Place, count, grant
from tests.adapters.postgres_corpus import GRANTS

# It takes some seconds, in which PostgreSQL does not look whether it is to end.
DEAF = "select translate(repeat('z', 24000), repeat('a', 24000) || 'z', '')"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overrun, "_GRACE", 0.2)
    monkeypatch.setattr(overrun, "_PATIENCE", 0.2)


@pytest.mark.parametrize("once", [False, True])
def test_a_statement_that_does_not_look_at_the_clock_costs_the_connection(once: bool, place: Place, impatient: None) -> None:
    """Whoever waits gets an error in time. What the block wrote is rolled back."""
    with psycopg.connect(place.conninfo("agents")) as connection:  # noqa: SIM117
        with suppress(GuardError), guarded(connection, WRITES, timeout=1) as db:
            if not once:
                db.execute("insert into archive (id) values (1)")
            since = monotonic()
            with pytest.raises(errors.QueryCanceled, match="closed"):
                (db.execute_once if once else db.execute)(DEAF)
            assert monotonic() - since < 2.5 and connection.closed
    assert count(place, "archive") == 0


def test_async_a_statement_that_does_not_look_at_the_clock_costs_the_connection(place: Place, impatient: None) -> None:
    """By then the token has ended, and that is what is told."""
    since = monotonic()
    held = grant(lambda: NOW + int(monotonic() - since), **GRANTS["reads"], expires_in=1)

    async def run() -> None:
        async with await psycopg.AsyncConnection.connect(place.conninfo("agents")) as connection:
            with pytest.raises(GuardError, match="rolled back"):
                async with guarded_async(connection, held) as db:
                    with pytest.raises(Denied) as caught:
                        await db.execute(DEAF)
                    assert caught.value.code == "expired" and connection.closed

    asyncio.run(run())
    assert monotonic() - since < 5


@pytest.mark.parametrize("safely", [False, True])
def test_the_server_is_asked_to_cancel_what_it_does_not_end(safely: bool, place: Place, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a function of the owner's has set another limit. The block goes on."""
    monkeypatch.setattr(overrun.capabilities, "has_cancel_safe", lambda: safely)
    monkeypatch.setattr(overrun, "_PATIENCE", 20)
    monkeypatch.setattr(opening.Opening, "seconds", lambda its: 0.1)
    with psycopg.connect(place.conninfo("agents")) as connection, guarded(connection, READS) as db:
        with pytest.raises(errors.QueryCanceled):
            db.execute("select count(*) from generate_series(1, 20000) a, generate_series(1, 20000) b")
        assert db.execute("select 1").fetchall() == [(1,)]


def test_a_commit_that_does_not_end_is_told_as_unknown(place: Place, impatient: None) -> None:
    """It is made in the end, when what it waits for is done."""
    place.admin.execute("create function slow() returns trigger language plpgsql as $$ begin perform translate(repeat('z', 24000), repeat('a', 24000) || 'z', ''); return null; end $$")
    place.admin.execute("create constraint trigger slow after insert on archive deferrable initially deferred for each row execute function slow()")
    try:
        with psycopg.connect(place.conninfo("agents")) as connection:
            with guarded(connection, WRITES, timeout=1) as db, pytest.raises(GuardError) as caught:
                db.execute_once("insert into archive (id) values (1)")
            assert caught.value.code == "outcome_unknown" and connection.closed
    finally:
        place.admin.execute("drop trigger slow on archive; drop function slow()")  # waits for it
        place.admin.execute("delete from archive")
