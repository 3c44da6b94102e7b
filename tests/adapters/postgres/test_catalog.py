"""What was changed since the catalog was read is found by the block."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from captoken import Denied, Issuer, Verifier
from captoken.adapters._postgres import (
    assumptions,
    logins,
    runner,
)
from captoken.adapters.postgres import (
    guarded,
)
from captoken.errors import GuardError, StatementError
from captoken.stores.memory import MemoryLedger
from tests.adapters.postgres.test_postgres import KEYRING, NOW, READS, WRITES, Place, count, grant, verdict
from tests.adapters.postgres_corpus import ALLOWED, GRANTS

CHANGED = [
    ("alter table people add column extra text default 'hidden'", "alter table people drop column extra", "select extra as extra from people", "name"),
    ("alter table people rename column ssn to id2", "alter table people rename column id2 to ssn", "select (select id2 as id2) from people", "name"),
    ("create function spilt(sales) returns text language sql as 'select ''x''::text'", "drop function spilt(sales)", "select s.spilt from sales s", "name"),
    ("create function upper(integer) returns text language sql as 'select ''x''::text'", "drop function upper(integer)", "select upper(1)", "operation"),
    ("alter table sales rename column amount to total", "alter table sales rename column total to amount", "select s.total from sales s", "name"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "undo", "sql", "code"), CHANGED)
def test_what_was_changed_since_the_catalog_was_read_is_found_by_the_block(
    connection: psycopg.Connection[Any], place: Place, change: str, undo: str, sql: str, code: str
) -> None:
    """The catalog is seconds old, and the name seems to be one that the text makes, or PostgreSQL's own."""
    people = grant(**GRANTS["people"])
    with guarded(connection, people) as db:
        db.execute("select name, upper(name) from people")
    place.admin.execute(change)
    try:
        with guarded(connection, people) as db:
            for _ in range(2):
                assert verdict(db, sql) == code
        with guarded(connection, people) as db:
            assert verdict(db, sql) == (ALLOWED if "total" in sql else code)
        logins.forget(connection)
    finally:
        place.admin.execute(undo)
    with guarded(connection, people) as db:
        assert verdict(db, "select id, name, upper(name) from people") == verdict(db, "select s.amount from sales s") == ALLOWED


def test_what_was_found_to_hold_is_asked_about_as_of_then(agents: psycopg.Connection[Any], place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once after others committed, and not again until they do. Whatever is said of one table, another is asked about by itself."""
    said: list[tuple[str, str | None]] = []
    hold = assumptions.Assumptions.hold

    def heard(its: Any, answer: str | None) -> bool:
        said.append((its.about[1].decode(), answer))
        return hold(its, answer)

    monkeypatch.setattr(assumptions.Assumptions, "hold", heard)
    for _ in range(3):
        for changed in (False, True):
            if changed:
                place.admin.execute("insert into log (what) values ('x')")
            for sql in ("select id from sales", "select count(id) from sales", "select ts from market.notes"):
                with guarded(agents, READS) as db:
                    db.execute(sql)
    assert said[:3] == [('{"sales"}', "same"), ('{"sales"}', "same"), ('{"notes"}', "same")]
    looked = [(table, "same" if answer == "same" else "") for table, answer in said]
    after = [('{"sales"}', ""), ('{"sales"}', ""), ('{"notes"}', "")]  # the two differ in a function
    assert looked == (looked[:3] + after) * 3
    place.admin.execute("delete from log; alter table sales add column d integer")
    try:
        with guarded(agents, READS) as db:
            assert verdict(db, "select s.d from sales s") == "name"
    finally:
        place.admin.execute("alter table sales drop column d")


def test_a_statement_that_is_judged_again_is_charged_once(agents: psycopg.Connection[Any], place: Place) -> None:
    """And where the grant ended meanwhile, it is denied like any other."""
    token = Issuer(KEYRING, clock=lambda: NOW).mint(
        subject="user:jane", agent="analyst", task="task-1", budget={"cents": 10}, expires_in=60, **GRANTS["writes"]
    )
    now, ledger = [NOW], MemoryLedger(floor=0, shared=True, clock=lambda: NOW)
    paying = Verifier(KEYRING, clock=lambda: now[0], ledger=ledger).authenticate(token.serialize())
    read = logins.assessor_anew
    for ended, spent in ((False, 3), (True, 6)):

        def anew(*given: Any, later: int = 61 * ended, **how: Any) -> Any:
            now[0] += later
            return read(*given, **how)

        logins.forget(agents)
        with guarded(agents, paying, cost={"cents": 3}) as db:
            db.execute("select 1")
            place.admin.execute("alter table wide add column d integer")
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(runner, "assessor_anew", anew)
                if ended:
                    with pytest.raises(Denied, match="expired"):
                        db.execute("select a from wide")
                else:
                    assert db.execute("select a from wide").fetchall() == [(1,)]
        place.admin.execute("alter table wide drop column d")
        assert sum(ledger._spent.values()) == spent


SEEN = "create or replace function captoken_guard.seen(schemas name[], tables name[], functions name[], since text) returns text language plpgsql stable as $$ begin {} end $$"


@pytest.mark.parametrize(
    ("does", "raised", "says"),
    [
        ("return random()::text;", GuardError, "being changed"),
        ("raise exception 'gone';", StatementError, "raised: "),
    ],
)  # fmt: skip
def test_where_it_cannot_be_told_what_there_is_nothing_is_handed_out(
    does: str, raised: type[Exception], says: str, agents: psycopg.Connection[Any], place: Place
) -> None:
    (its,), = place.admin.execute("select pg_get_functiondef('captoken_guard.seen'::regproc)").fetchall()
    place.admin.execute(SEEN.format(does))
    try:
        with guarded(agents, WRITES) as db:
            with pytest.raises(raised, match=says):
                db.execute("insert into archive (id) values (1)")
            with pytest.raises(StatementError, match="22012"):
                db.execute("select id / 0 from sales")  # it fails before it is asked
            assert db.execute("select 1").fetchall() == [(1,)]
        assert count(place, "archive") == 0
    finally:
        place.admin.execute(its)


def test_what_is_remembered_goes_with_its_connection_and_is_bounded(place: Place) -> None:
    """No module holds on to it: another connection, by the same login, has what it read itself."""
    kept = []
    for _ in range(2):
        with psycopg.connect(place.conninfo("agents")) as connection:
            assert logins.known_of(connection) is None
            with guarded(connection, READS) as db:
                db.execute("select 1")
            known = logins.known_of(connection)
            assert known is not None
            assert known.assessor.assess("select 0", ()) is known.assessor.assess("select 0", ())
            for number in range(600):
                known.assessor.assess(f"select {number}", ())
            kept.append(known)
    first, second = kept
    assert first.assessor is not second.assessor
    assert all(0 < len(known.assessor._assessed) <= 512 and len(known.assessor._readings) <= 512 for known in kept)
