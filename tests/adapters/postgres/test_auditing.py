"""The audit of a login: functions with the rights of their owners, and what undermines a role."""

from __future__ import annotations

import pytest

from tests.adapters.postgres.test_logins import inherits
from tests.adapters.postgres.test_postgres import Place, found

CLEAN = 8  # what the schema has that no plan takes away


def test_the_audit_names_functions_with_the_rights_of_their_owners(place: Place) -> None:
    lines = found(place, "agents")
    for name in ("peek()", "steal(integer)", "lower(integer)", "spill(public.sales)", "note_of(public.orders)"):
        assert any(f"may execute public.{name}, which runs with the rights of postgres" in line for line in lines), name
    for name in ("reader may select public.sales_view", "writer may select public.secret_view"):
        assert any(line.startswith(f"{name}, a view without security_barrier") for line in lines), name
    assert len(lines) == CLEAN  # and nothing else: a login that was planned is clean


@pytest.mark.parametrize(
    ("make", "undo", "says"),
    [
        ("alter role agents superuser", "alter role agents nosuperuser", "agents is a superuser"),
        ("grant pg_monitor to agents", "revoke pg_monitor from agents", "is no narrow role"),
        ("grant reader to agents with inherit true", "grant reader to agents with inherit false", "inherits from reader"),
        ("grant temporary on database guarded to public", "revoke temporary on database guarded from public", "temporary tables"),
        ("grant create on schema public to public", "revoke create on schema public from public", "schema public"),
        ("grant usage on language plpgsql to public", "revoke usage on language plpgsql from public", "code in plpgsql"),
        ("grant execute on function set_config(text, text, boolean) to public", "revoke execute on function set_config(text, text, boolean) from public", "set_config"),
        ("grant select on hr to public", "revoke select on hr from public", "everybody may select public.hr"),
        ("grant select (pay) on hr to public", "revoke select (pay) on hr from public", "everybody may select (pay) of public.hr"),
        ("grant select on hr to agents", "revoke select on hr from agents", "agents may select public.hr"),
        ("grant truncate on sales to reader", "revoke truncate on sales from reader", "reader may truncate public.sales"),
        ("grant trigger on sales to reader", "revoke trigger on sales from reader", "reader may trigger public.sales"),
        ("alter default privileges grant select on tables to public", "alter default privileges revoke select on tables from public", "everybody may select what postgres makes later"),
        ("alter default privileges grant insert on tables to reader", "alter default privileges revoke insert on tables from reader", "reader may insert what postgres makes later"),
        ("select lo_from_bytea(777, 'abc'); grant select on large object 777 to public", "select lo_unlink(777)", "everybody may select large object 777"),
        ("grant set on parameter session_replication_role to public", "revoke set on parameter session_replication_role from public", "parameter session_replication_role"),
        ("grant select on captoken_guard.key to reader", "revoke select on captoken_guard.key from reader", "reader may use captoken_guard.key"),
        ("grant execute on function captoken_guard.begin(text, integer) to reader", "revoke execute on function captoken_guard.begin(text, integer) from reader", "reader may execute captoken_guard.begin"),
        ("grant execute on function captoken_guard.sign(text) to agents", "revoke execute on function captoken_guard.sign(text) from agents", "agents may execute captoken_guard.sign"),
        ("create role dev; alter table captoken_guard.key owner to dev", "alter table captoken_guard.key owner to postgres; drop role dev", "captoken_guard.key belongs to dev"),
        ("create foreign data wrapper w; create server s foreign data wrapper w; grant usage on foreign server s to public", "drop foreign data wrapper w cascade", "everybody may use server s"),
        ("create function crosstab2(text) returns text language sql as 'select 1'", "drop function crosstab2(text)", "may execute public.crosstab2(text)"),
        ("alter function forget() owner to reader", "alter function forget() owner to postgres", "owns function public.forget()"),
    ],
)  # fmt: skip
def test_the_audit_finds_what_undermines_a_role(make: str, undo: str, says: str, place: Place) -> None:
    make, undo = inherits(make, undo, place)
    place.admin.execute(make)
    try:
        assert any(says in line for line in found(place, "agents"))
    finally:
        place.admin.execute(undo)
    assert len(found(place, "agents")) == CLEAN
