"""Which logins are guarded: narrow ones with a plan, looked at anew when they change."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from captoken.adapters.postgres import (
    guarded,
)
from captoken.errors import GuardError
from tests.adapters.postgres.test_postgres import READS, WRITES, Place, count, grant, release, verdict
from tests.adapters.postgres_corpus import ALLOWED


def inherits(make: str, undo: str, place: Place) -> tuple[str, str]:
    """Before release 16, a login inherits from all roles or from none."""
    if "inherit true" not in make or release(place) >= 16:
        return make, undo
    return "alter role agents inherit", "alter role agents noinherit"


@pytest.mark.parametrize(
    ("make", "undo", "says"),
    [
        ("alter role agents superuser", "alter role agents nosuperuser", "superuser"),
        ("alter role agents bypassrls", "alter role agents nobypassrls", "row security"),
        ("alter role reader createrole", "alter role reader nocreaterole", "not narrow"),
        ("grant pg_read_all_data to agents", "revoke pg_read_all_data from agents", "pg_read_all_data"),
        ("grant writer to agents with inherit true", "grant writer to agents with inherit false", "writer"),
        ("grant pg_read_all_data to reader", "revoke pg_read_all_data from reader", "reader"),
        ("create table mine (); alter table mine owner to reader", "drop table mine", "owns"),
    ],
)
def test_a_login_that_is_no_narrow_one_is_refused(make: str, undo: str, says: str, place: Place) -> None:
    make, undo = inherits(make, undo, place)
    place.admin.execute(make)
    try:
        with psycopg.connect(place.conninfo("agents")) as connection:  # noqa: SIM117
            with pytest.raises(GuardError, match=says), guarded(connection, READS):
                pass
    finally:
        place.admin.execute(undo)
    with psycopg.connect(place.conninfo("agents")) as connection, guarded(connection, READS) as db:
        db.execute("select * from sales")


def test_a_superuser_and_a_database_without_a_plan_are_refused(place: Place, postgres_server: Any) -> None:
    for conninfo in (place.conninfo("postgres"), postgres_server.conninfo.replace("user=postgres", "user=agents")):
        with psycopg.connect(conninfo) as connection, pytest.raises(GuardError), guarded(connection, READS):
            pass


def test_a_login_that_is_found_to_be_no_narrow_one_in_a_block_costs_the_connection(place: Place) -> None:
    with psycopg.connect(place.conninfo("agents")) as connection:
        with guarded(connection, READS) as db:
            db.execute("select 1")
        place.admin.execute("alter table sales add column d integer; alter role reader createrole")
        try:
            with pytest.raises(GuardError, match="rolled back"), guarded(connection, WRITES) as db:  # noqa: SIM117
                with pytest.raises(GuardError, match="not narrow"):
                    db.execute("insert into sales (amount) values (7)")
            assert connection.closed
        finally:
            place.admin.execute("alter table sales drop column d; alter role reader nocreaterole")
    assert count(place, "sales") == 3


@pytest.mark.parametrize("name", ["seen", "open"])
def test_a_plan_of_an_older_release_has_to_be_run_again(name: str, place: Place) -> None:
    place.admin.execute(f"alter function captoken_guard.{name} rename to other")
    try:
        with psycopg.connect(place.conninfo("agents")) as connection, pytest.raises(GuardError, match="run the plan again"), guarded(connection, READS):
            pass
    finally:
        place.admin.execute(f"alter function captoken_guard.other rename to {name}")


def test_a_role_that_is_given_more_is_found_within_one_look(agents: psycopg.Connection[Any], place: Place) -> None:
    every = grant(tables=["*"], operations=["select"])
    with guarded(agents, every) as db:
        assert verdict(db, "select * from shops") == "table"  # no role covers it
        place.admin.execute("grant select on shops to reader")
    with guarded(agents, every) as db:
        assert verdict(db, "select * from shops") == ALLOWED
        place.admin.execute("revoke select on shops from reader")
        assert verdict(db, "select * from shops") == "table"  # by PostgreSQL itself
