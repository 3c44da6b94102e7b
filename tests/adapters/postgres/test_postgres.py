"""The PostgreSQL guard, on a real server: what a token does not cover does not run, by the text and by the role."""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import process_time
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from captoken import Caller, Denied, Grant, Issuer, Keyring, Verifier
from captoken.adapters._postgres import (
    lists,
    logins,
    needs,
    reader,
    templates,
)
from captoken.adapters._postgres.roles import TABLES
from captoken.adapters.postgres import (
    Database,
    audit,
    guarded,
    guarded_async,
)
from captoken.audit import AuditTrail, read
from captoken.control import Feed, Operator, Overlay
from captoken.errors import CaptokenError, GuardError, StatementError
from captoken.keys import OperatorKey
from captoken.stores.memory import MemoryLedger, MemorySnapshots
from tests.adapters.postgres_corpus import ALLOWED, CASES, EVERY, GRANTS, is_known

KEYRING = Keyring.from_keys({"k1": bytes(range(32))}, current="k1")
NOW = 1_764_061_200


def grant(clock: Callable[[], float] = lambda: NOW, subject: str = "user:jane", **keywords: Any) -> Grant:
    token = Issuer(KEYRING, clock=lambda: NOW).mint(subject=subject, agent="analyst", task="task-1", **keywords)
    return Verifier(KEYRING, clock=clock).authenticate(token.serialize())


READS = grant(**GRANTS["reads"])
WRITES = grant(**GRANTS["writes"])


class Place(NamedTuple):
    admin: psycopg.Connection[Any]
    conninfo: Callable[[str], str]  # by login


def release(place: Place) -> int:
    """Of the server: 18, say."""
    return place.admin.info.server_version // 10_000


class Back(Exception):
    """Leaves a block so that it rolls back."""


@contextmanager
def rolled_back(connection: psycopg.Connection[Any], grant: Grant, **facts: Any) -> Iterator[Database]:
    with suppress(Back), guarded(connection, grant, **facts) as db:
        yield db
        raise Back


def digest(admin: psycopg.Connection[Any], sequences: bool = True) -> str:
    """All rows, the catalog, the roles with their rights, and where sequences stand."""
    found: list[Any] = []
    for schema, name in admin.execute(TABLES).fetchall():
        found += [schema, name, sorted(admin.execute(f'select t::text from "{schema}"."{name}" t').fetchall())]
    for query in (
        "select oid::regclass::text, relacl::text, relkind from pg_class where relkind <> 'S' order by 1",
        "select proname::text, proacl::text from pg_proc order by oid",
        "select rolname, rolsuper, rolcanlogin, rolconfig from pg_roles order by 1",
        "select count(*) from pg_largeobject_metadata",
        *(["select sequencename, last_value from pg_sequences order by 1"] if sequences else []),
    ):
        found.append(admin.execute(query).fetchall())
    return hashlib.sha256(repr(found).encode()).hexdigest()


def verdict(db: Database, sql: str, parameters: Any = ()) -> str:
    try:
        db.execute(sql, parameters)
    except Denied as denied:
        assert denied.kind == "insufficient" and denied.__context__ is None
        return denied.decision.code
    except StatementError as error:
        assert error.__context__ is None and error.__cause__ is None
        return error.code
    return ALLOWED


def test_the_corpus_is_judged_without_a_bypass_and_without_a_false_denial(
    connection: psycopg.Connection[Any], place: Place
) -> None:
    """Each statement in a block of its own, which goes on afterwards; what is denied is committed, and left no trace."""
    grants = {name: grant(**keywords) for name, keywords in GRANTS.items()}
    bypasses, false_denials, others = [], [], []
    before, rows = digest(place.admin), digest(place.admin, sequences=False)
    for case in (case for case in CASES if case.verdict != ALLOWED):
        with guarded(connection, grants[case.grant]) as db:
            came = verdict(db, case.sql, case.parameters)
            db.execute("select 1")
        if came == ALLOWED:
            bypasses.append(case.sql[:200])
        elif came != case.verdict and is_known(case, release(place)):
            others.append((case.grant, case.sql[:200], came, case.verdict))
    assert (bypasses, others) == ([], [])
    assert digest(place.admin) == before
    for case in (case for case in CASES if case.verdict == ALLOWED and is_known(case, release(place))):
        with rolled_back(connection, grants[case.grant]) as db:
            came = verdict(db, case.sql, case.parameters)
            db.execute("select 1")
        if came != ALLOWED:
            false_denials.append((case.grant, case.sql[:200], came))
    assert not false_denials, false_denials
    assert digest(place.admin, sequences=False) == rows  # sequences do not roll back, by PostgreSQL's own rule
    assert len(CASES) > 400


# What can be read in two ways, and what is needed of `market.notes`, in which `max` is no column: columns, and all of them.
BOTH = [
    ("select n.max from market.notes n", [], True),  # no column of n: a call, of the whole row n
    ("select n.min from market.notes n", ["min"], False),
    ("select j.max from (market.notes n cross join sales s) j", [], True),  # a column of what is joined; a call, of all of it
    ("select j.amount from (market.notes n cross join sales s) j", [], True),
    ("select j.min from (market.notes n cross join sales s) j", ["min"], False),
    ("select (n.min).max from market.notes n", ["min"], False),  # a field; a call, of what stands in brackets
    ("select (n.max).min from market.notes n", [], True),
    ("select ts, (select ts from market.notes n) from market.notes m", ["ts"], False),  # a column here or outside
]


@pytest.mark.parametrize(("sql", "columns", "whole"), BOTH)
def test_a_name_that_can_be_read_in_two_ways_needs_both(sql: str, columns: list[str], whole: bool, place: Place) -> None:
    with psycopg.connect(place.conninfo("trusted")) as connection, guarded(connection, READS):
        known = logins.known_of(connection)
        assert known is not None
        accesses = [access for access in known.assessor.assess(sql, ()).accesses if access.table == "market.notes"]
    assert [access.columns for access in accesses] == [("hidden", "min", "ts") if whole else tuple(columns)]


# What is needed of `wide`: of a star the level that it stands at, and of an INSERT without names all that can get a value. Where
# less is shown of the table, that is what the text reaches.
WIDE = [
    ("select a from wide where 5 in (select * from market.sales)", (), ("a",)),
    ("insert into wide values (1)", (), ("a", "b", "c")),
    ("insert into wide values (1)", ((("public", "wide"), (("a", "b"), None)),), ("a",)),
]


@pytest.mark.parametrize(("sql", "view", "columns"), WIDE)
def test_no_more_columns_are_needed_than_the_text_can_mean(sql: str, view: Any, columns: tuple[str, ...], place: Place) -> None:
    with psycopg.connect(place.conninfo("trusted")) as connection, guarded(connection, READS):
        known = logins.known_of(connection)
        assert known is not None
        accesses = [access for access in known.assessor.assess(sql, view).accesses if access.table == "wide"]
    assert [access.columns for access in accesses] == [columns]


def test_each_kind_of_name_that_can_be_read_in_two_ways_is_on_the_list() -> None:
    """The list stands in `needs`, each with what judges it. A new kind belongs there, and above or into the corpus."""
    (listed,) = re.findall(r"judged as both in\n((?:    .+\n)+)", str(needs.__doc__))
    judges = {line.split("   ")[-1].strip() for line in listed.splitlines()}
    assert judges == {
        "_meant_unqualified", "_meant_qualified", "is_field", "lists.refused_function", 'catalog, "types"',
    }  # fmt: skip
    assert all(hasattr(needs, name) for name in judges if name.isidentifier()) and hasattr(lists, "refused_function")


# --- what holds if the text was read wrongly -------------------------------------------------------------------------

# Statements that the role alone has to withstand: `reader` is the role, and the guard is made to believe that they read sales.
BLIND = (
    "select * from hr", "table secret", "select * from secret_view", "select pay from people", "select * from people",
    "select 1 from sales natural join hr", "with secret as (select 1) delete from secret", "delete from sales",
    "update sales set amount = 1", "insert into sales (amount) values (1)", "select * from sales for update",
    "with x as (delete from hr returning *) select * from x", "truncate sales", "select * from both_view",
    "copy hr to stdout", "copy sales to program 'true'", "copy (select pin from secret) to stdout", "do $$ begin perform 1; end $$",
    "do $$begin set local role writer; delete from sales; end$$", "select set_config('role', 'writer', true)",
    "select set_config('role', 'writer', true), query_to_xml('delete from sales returning *', true, true, '')",
    "select query_to_xml('select * from hr', true, true, '')", "select pg_sleep(0)", "select pg_advisory_lock(1)",
    "select lo_create(1)", "select lo_import('/etc/passwd')", "select pg_read_file('/etc/passwd')", "select nextval('sales_id_seq')",
    "create temp table sales (a integer)", "create table x (a integer)", "create function f() returns integer language sql as 'select 1'",
    "select captoken_guard.begin('{}', 1000)", "select captoken_guard.sign('x')", "select * from captoken_guard.key", "alter role agents superuser",
    "grant select on hr to public", "set role postgres", "set session authorization postgres", "alter system set work_mem = 1",
    "select 1; delete from hr", "explain (format json) select 1; delete from hr", "select forget()", "lock table sales",
    "insert into inbox values (1, 'x')", "merge into sales s using orders o on s.id = o.id when matched then delete",
    "vacuum sales", "drop table hr", "select pg_notify('x', 'y')", "select * from pg_authid",
)  # fmt: skip


class Anything:
    def __contains__(self, item: object) -> bool:
        return True


@pytest.mark.parametrize("sql", BLIND)
def test_the_role_withstands_what_the_text_hides(sql: str, agents: psycopg.Connection[Any], place: Place, blind: None) -> None:
    before = digest(place.admin)
    with suppress(GuardError), guarded(agents, READS) as db:
        with pytest.raises((CaptokenError, psycopg.Error)):
            db.execute(sql)
        assert db.execute("select 1").fetchall() == [(1,)]
    assert digest(place.admin) == before


def test_the_role_is_the_narrowest_that_covers_the_text(agents: psycopg.Connection[Any], blind: None) -> None:
    """So that a text that was read as one of sales cannot reach what only a wider role may."""
    with guarded(agents, WRITES) as db:  # positive control: what the narrowest role may, runs
        assert len(db.execute("select * from orders").fetchall()) == 2
        for sql in ("select * from secret_view", "update sales set amount = 1"):
            with pytest.raises(Denied, match="PostgreSQL refused it"):
                db.execute(sql)


def test_a_role_that_was_left_by_a_statement_has_no_rights(agents: psycopg.Connection[Any], blind: None) -> None:
    with guarded(agents, READS) as db:
        db.execute("reset role")
        with pytest.raises(Denied):
            db.execute("select * from sales")


def test_a_statement_that_leaves_its_role_is_undone(agents: psycopg.Connection[Any], misread: None) -> None:
    """The login may not ask what the role asks behind each statement."""
    with guarded(agents, READS) as db:
        assert verdict(db, "reset role") == "table"
        assert db.execute("select current_user").fetchall() == [("reader",)]


def test_a_grant_that_writes_nothing_is_a_read_only_transaction(place: Place, blind: None) -> None:
    with psycopg.connect(place.conninfo("trusted")) as connection, guarded(connection, READS) as db:
        for sql in ("delete from sales", "select nextval('sales_id_seq')", "select forget()"):
            with pytest.raises(Denied, match="read-only"):
                db.execute(sql)


OTHER_KINDS = (
    "reset role", "set local search_path = hidden", "set role writer", "prepare x as delete from hr", "deallocate all", "discard plans",
    "notify x", "commit", "rollback", "savepoint x", "declare c cursor for select 1",
    "set transaction read only", "show search_path", "lock table sales in access share mode", "explain select 1", "listen x",
)  # fmt: skip


@pytest.mark.parametrize("sql", OTHER_KINDS)
def test_what_is_no_kind_of_statement_that_is_granted_ends_the_connection(sql: str, place: Place, taken_for_a_read: None) -> None:
    """Whatever the text was taken for, the server says what it did. A statement before it is rolled back.

    What needs a transaction that was begun is an error in one that is not.
    """
    for once in (False, True):
        with psycopg.connect(place.conninfo("agents")) as connection:
            with suppress(GuardError), guarded(connection, WRITES) as db:
                if not once:
                    db.execute("select * from sales")
                with pytest.raises((CaptokenError, psycopg.Error)) as caught:
                    (db.execute_once if once else db.execute)(sql)
                with pytest.raises(GuardError):
                    db.execute("select * from sales")
            closes = isinstance(caught.value, GuardError)
            assert closes or once
            assert connection.closed == closes


# --- the block -------------------------------------------------------------------------------------------------------


def count(place: Place, table: str) -> int:
    (row,) = place.admin.execute(f"select count(*) from {table}").fetchall()
    return int(row[0])


def test_a_block_is_committed_at_its_end_and_rolled_back_by_an_exception(agents: psycopg.Connection[Any], place: Place) -> None:
    with guarded(agents, WRITES) as db:
        assert db.execute("insert into archive (id) values (1)").rowcount == 1
        assert count(place, "archive") == 0
    assert count(place, "archive") == 1
    with suppress(Back), guarded(agents, WRITES) as db:
        db.execute("delete from archive")
        raise Back
    assert count(place, "archive") == 1
    with guarded(agents, WRITES) as db:
        db.execute("delete from archive")
    assert count(place, "archive") == 0


def test_a_block_goes_on_after_an_error_without_what_the_statement_did(agents: psycopg.Connection[Any], place: Place) -> None:
    with rolled_back(agents, WRITES) as db:
        db.execute("insert into archive (id) values (1)")
        for sql in ("insert into archive select id / 0 from sales", "update sales set amount = -amount", "selec", "select * from hr"):
            with pytest.raises((StatementError, Denied)):
                db.execute(sql)
        assert db.execute("select count(*) from archive").fetchall() == [(1,)]


def test_rows_are_tuples_without_a_way_back(agents: psycopg.Connection[Any]) -> None:
    with guarded(agents, READS) as db:
        rows = db.execute("select id, region from sales where id < $1 order by id", [3])
        assert rows.columns == ("id", "region") and rows.rowcount == 2
        assert rows.fetchone() == (1, "eu") and rows.fetchall() == [(2, "us")] and list(rows) == []
        assert db.execute("select 1 where false").columns == ("?column?",)
        assert not hasattr(rows, "connection") and [name for name in dir(db) if not name.startswith("_")] == ["execute", "execute_once"]
        many = db.execute("select i, i * 2 from generate_series(1, 2345) i").fetchall()
        assert many == [(i, i * 2) for i in range(1, 2346)]


def test_too_many_rows_are_a_mistake_and_the_block_goes_on(agents: psycopg.Connection[Any]) -> None:
    with guarded(agents, READS, max_rows=1000) as db:
        assert len(db.execute("select generate_series(1, 1000)").fetchall()) == 1000
        for sql in ("select generate_series(1, 1001)", "select generate_series(1, 1000000000)"):
            with pytest.raises(StatementError, match="too_many_rows: "):
                db.execute(sql)
        assert db.execute("select 1").fetchall() == [(1,)]


def test_parameters_are_never_sql(agents: psycopg.Connection[Any]) -> None:
    with guarded(agents, READS) as db:
        for value in ("x'; drop table sales; --", "\\", "%s", "$1", "\u0000"[:0]):
            assert db.execute("select $1::text, $2::integer", [value, 3]).fetchall() == [(value, 3)]
        for given in ("text", {"a": 1}, 3):
            with pytest.raises(TypeError):
                db.execute("select 1", given)  # type: ignore[arg-type]
        for wrong in ([], [object()], ["\0"]):
            with pytest.raises(StatementError, match="parameters: "):
                db.execute("select $1::text", wrong)
        with pytest.raises(TypeError):
            db.execute(b"select 1")  # type: ignore[arg-type]
        assert db.execute("select 1").fetchall() == [(1,)]


def test_a_value_that_python_cannot_hold_is_an_error_and_the_block_goes_on(agents: psycopg.Connection[Any]) -> None:
    with guarded(agents, READS) as db:
        with pytest.raises(StatementError, match="value: "):
            db.execute("select date '9999-12-31' + i from generate_series(0, 2000) i")
        assert db.execute("select 1").fetchall() == [(1,)]


@pytest.mark.parametrize("sql", ["select ('1' || repeat('0', 5000))::json", "select (repeat('[', 11000) || repeat(']', 11000))::json"])
def test_no_value_costs_the_block_what_it_wrote(sql: str, agents: psycopg.Connection[Any], place: Place) -> None:
    with guarded(agents, WRITES) as db:
        db.execute("insert into archive (id) values (7)")
        with pytest.raises(StatementError, match="value: "):
            db.execute(sql)
        for sql, wrong in (("select 1", [1] * 70_000), ("select $1::text", ["\ud800"])):
            with pytest.raises(StatementError, match="parameters: "):
                db.execute(sql, wrong)
    assert count(place, "archive") == 1
    place.admin.execute("delete from archive")


def test_a_block_that_lost_its_connection_does_not_end_as_if_committed(place: Place) -> None:
    with psycopg.connect(place.conninfo("agents")) as connection:  # noqa: SIM117
        with pytest.raises(GuardError, match="rolled back"), guarded(connection, WRITES) as db:
            db.execute("insert into archive (id) values (7)")
            connection.close()
    assert count(place, "archive") == 0


def test_a_limit_longer_than_postgresql_counts_is_its_longest(agents: psycopg.Connection[Any]) -> None:
    with guarded(agents, READS, timeout=10**9) as db:
        assert db.execute("select 1").fetchall() == [(1,)]


def test_a_str_that_lies_about_itself_is_judged_by_what_is_sent(agents: psycopg.Connection[Any]) -> None:
    class Liar(str):
        def encode(self, *how: Any) -> bytes:
            return b"select * from hr"

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = str.__hash__

    with guarded(agents, READS) as db:
        assert db.execute(Liar("select 1")).fetchall() == [(1,)]
        with pytest.raises(Denied):
            db.execute(Liar("select * from hr"))


# --- the grant, each time --------------------------------------------------------------------------------------------


OPERATOR = OperatorKey.generate()


class Control:
    """An operator, and a grant whose verifier asks what it says each time."""

    def __init__(self, say: Callable[[Operator], object] | None = None, asked: int = 0, **rights: Any) -> None:
        self.store, self.lines, self.asks = MemorySnapshots(), list[bytes](), 0
        self.operator = Operator(OPERATOR, self.store, by="ops", clock=lambda: NOW)
        self.operator.renew()
        self.say, self.asked = say, asked
        feed = Feed(self.store, [OPERATOR.public], every=0, clock=lambda: NOW)

        def overlay() -> Overlay | None:
            self.asks += 1
            if self.say is not None and self.asks == self.asked:
                self.say(self.operator)
            return feed()

        verifier = Verifier(KEYRING, clock=lambda: NOW, overlay=overlay, audit=AuditTrail(self.lines.append))
        token = Issuer(KEYRING, clock=lambda: NOW).mint(subject="user:jane", agent="analyst", task="task-1", **rights)
        self.grant = verifier.authenticate(token.serialize())

    @property
    def codes(self) -> list[str]:
        return [record["code"] for record in read(self.lines) if record["kind"] == "decision"]


# --- what the guard refuses to guard ---------------------------------------------------------------------------------


def test_one_block_at_a_time_in_one_thread(agents: psycopg.Connection[Any]) -> None:
    with guarded(agents, READS) as db:
        with pytest.raises(GuardError, match="already"), guarded(agents, READS):
            pass
        caught: list[BaseException] = []

        def elsewhere() -> None:
            for attempt in (lambda: db.execute("select 1"), lambda: guarded(agents, READS).__enter__()):
                try:
                    attempt()
                except GuardError as error:
                    caught.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert len(caught) == 2
        db.execute("select 1")
    with pytest.raises(GuardError, match="ended"):
        db.execute("select 1")


def test_an_open_transaction_a_pipeline_and_another_encoding_are_refused(agents: psycopg.Connection[Any]) -> None:
    with agents.transaction(), pytest.raises(GuardError, match="open transaction"), guarded(agents, READS):
        pass
    with agents.pipeline(), pytest.raises(GuardError), guarded(agents, READS):
        pass
    agents.execute("set client_encoding = latin1")
    with pytest.raises(GuardError, match="UTF8"), guarded(agents, READS):
        pass
    agents.execute("set client_encoding = utf8")
    with guarded(agents, READS) as db:
        db.execute("select 1")
    agents.close()
    with pytest.raises(GuardError, match="closed"), guarded(agents, READS):
        pass


def test_a_transaction_that_is_begun_within_a_block_is_not_taken_for_its_own(agents: psycopg.Connection[Any]) -> None:
    """Before the first statement, and after one that was undone with all of its transaction."""
    for undone in (False, True):
        with guarded(agents, READS) as db:
            if undone:
                with pytest.raises(StatementError, match="22012"):
                    db.execute("select id / 0 from sales")
            agents.execute("begin")
            for run in (db.execute, db.execute_once):
                with pytest.raises(GuardError, match="open transaction"):
                    run("select 1")
            agents.execute("rollback")
            assert db.execute("select 1").fetchall() == [(1,)]


def test_only_what_a_verifier_handed_out_is_a_grant(agents: psycopg.Connection[Any]) -> None:
    for given in ("token", None, object()):
        with pytest.raises(TypeError), guarded(agents, given):  # type: ignore[arg-type]
            pass
    with pytest.raises(TypeError), guarded("dbname=x", READS):  # type: ignore[arg-type]
        pass
    for facts in ({"timeout": 0}, {"timeout": 1.5}, {"functions": "score"}):
        with pytest.raises((TypeError, ValueError)), guarded(agents, READS, **facts):
            pass


def test_functions_of_the_owners_run_if_they_are_named(agents: psycopg.Connection[Any]) -> None:
    scores = grant(allow={"score": ["execute"]})
    with guarded(agents, scores, functions=["score", "public.score"]) as db:
        assert db.execute("select score(2), public.score(3)").fetchall() == [(4, 6)]
        assert verdict(db, "select market.score(1)") == "operation"
    with guarded(agents, READS) as db:
        assert verdict(db, "select score(2)") == "operation"


def test_an_overload_that_no_role_may_execute_costs_nobody_the_function(agents: psycopg.Connection[Any], place: Place) -> None:
    """PostgreSQL refuses the one, and runs the other."""
    with guarded(agents, READS) as db:
        assert verdict(db, "select lower('A')") == "operation"
    place.admin.execute("revoke execute on function lower(integer) from public")
    logins.forget(agents)  # which is found within 30 seconds
    try:
        with guarded(agents, READS) as db:
            assert db.execute("select lower('A')").fetchall() == [("a",)]
            assert verdict(db, "select lower(1)") == "table"
    finally:
        place.admin.execute("grant execute on function lower(integer) to public")
    with guarded(agents, READS) as db:
        assert verdict(db, "select lower('A')") == "operation"


SCORES = {"uses": 1, "allow": {"score": ["execute"], "forget": ["execute"], "sales": ["select"]}}


def test_a_call_of_a_function_of_the_owners_asks_for_execute_on_its_name(agents: psycopg.Connection[Any]) -> None:
    """The caller, the count and the record are those of any access; whether it is spelled as a call or after a dot."""
    for sql in ("select score(1)", "select (1).score", "select public.score(1)"):
        for given, code in ((READS, "operation"), (grant(allow={"sales": ["execute"]}), "table")):
            with guarded(agents, given, functions=["score", "public.score"]) as db:
                assert verdict(db, sql) == code, sql
        scores = grant(allow={"score": ["execute"]})
        with guarded(agents, scores, functions=["score", "public.score"], caller=Caller(agent="mallory")) as db:
            assert verdict(db, sql) == "caller", sql
    lines: list[bytes] = []
    token = Issuer(KEYRING, clock=lambda: NOW).mint(subject="user:jane", agent="analyst", task="task-1", **SCORES)
    ledger = MemoryLedger(floor=0, shared=True, clock=lambda: NOW)
    verifier = Verifier(KEYRING, clock=lambda: NOW, ledger=ledger, audit=AuditTrail(lines.append))
    with guarded(agents, verifier.authenticate(token.serialize()), functions=["score"]) as db:
        before = len(lines)
        assert db.execute("select score(1)").fetchall() == [(2,)] and len(lines) == before + 1
        for sql in ("select score(1)", "select * from sales"):
            assert verdict(db, sql) == "budget_exhausted"


def test_what_a_function_wrote_is_not_committed_once_it_is_not_permitted(agents: psycopg.Connection[Any], place: Place) -> None:
    place.admin.execute("create function note() returns integer language sql security definer as 'insert into log (what) values (''x''); select 1'")
    rights: dict[str, Any] = {"allow": {"note": ["execute"], "sales": ["insert"]}}
    try:
        control = Control(**rights)
        with pytest.raises(Denied, match="revoked"), guarded(agents, control.grant, functions=["note"]) as db:
            db.execute("select note()")
            control.operator.end_task("task-1")
        assert count(place, "log") == 0
        with guarded(agents, Control(allow={"note": ["execute"]}).grant, functions=["note"]) as db:
            assert verdict(db, "select note()") == "operation"  # without a write, the transaction is read-only
        with guarded(agents, Control(**rights).grant, functions=["note"]) as db:
            db.execute("select note()")
        assert count(place, "log") == 1
    finally:
        place.admin.execute("drop function note(); delete from log")


def test_a_function_that_no_token_can_name_cannot_be_listed(agents: psycopg.Connection[Any]) -> None:
    for name in ("", "*", "market."):
        with pytest.raises(ValueError), guarded(agents, READS, functions=[name]):
            pass


@pytest.mark.parametrize(
    ("sql", "code", "said", "told"),
    [
        ("delete from people", "operation", "no role of this login may delete on table people", "operation delete on table people"),
        ("select * from hr", "table", "no role of this login may select on table hr", "table hr is not among the tables"),
        ("select * from archive, secret_view, parent", "table", "no one role of this login has all", "table parent is not among"),
    ],
)
def test_what_the_roles_lack_is_told_apart_from_what_the_token_lacks(
    agents: psycopg.Connection[Any], sql: str, code: str, said: str, told: str
) -> None:
    """The token permits it: the operator is told to plan, and the agent what it was not permitted."""
    with guarded(agents, grant(**GRANTS["all"])) as db, pytest.raises(Denied) as caught:
        db.execute(sql)
    decision = caught.value.decision
    assert decision.code == code and said in str(decision) and "captoken postgres plan" in str(decision)
    assert told in decision.for_model()


def test_what_triggers_do_with_the_rights_of_the_role_is_refused_by_the_database(agents: psycopg.Connection[Any], place: Place) -> None:
    boxes = grant(tables=["inbox", "outbox", "log"], operations=EVERY)
    with guarded(agents, boxes) as db:
        assert verdict(db, "insert into inbox values (1, 'x')") == "table"
        assert verdict(db, "insert into outbox values (1, 'x')") in (ALLOWED, "table")  # a rule has the rights of its owner
    assert count(place, "inbox") == 0


def test_deferred_constraints_are_raised_at_the_end_and_nothing_stays(agents: psycopg.Connection[Any], place: Place) -> None:
    place.admin.execute("create table due (id integer primary key, up integer references due deferrable initially deferred)")
    place.admin.execute("grant insert on due to writer")
    try:
        logins.forget(agents)
        with pytest.raises(StatementError), guarded(agents, grant(tables=["due"], operations=["insert"])) as db:
            db.execute("insert into due values (1, 7)")
        assert count(place, "due") == 0
        with guarded(agents, READS) as db:
            db.execute("select 1")
    finally:
        place.admin.execute("drop table due")


def test_a_connection_that_is_lost_is_an_error_and_no_commit(place: Place) -> None:
    with psycopg.connect(place.conninfo("agents")) as connection:  # noqa: SIM117
        with pytest.raises(psycopg.OperationalError), guarded(connection, WRITES) as db:
            db.execute("insert into archive (id) values (5)")
            place.admin.execute("select pg_terminate_backend(%s)", [connection.info.backend_pid])
            db.execute("select 1")
    assert count(place, "archive") == 0


# --- async -----------------------------------------------------------------------------------------------------------


def test_async_is_the_same(place: Place) -> None:
    async def run() -> None:
        async with await psycopg.AsyncConnection.connect(place.conninfo("agents")) as connection:
            before = digest(place.admin, sequences=False)
            grants = {name: grant(**keywords) for name, keywords in GRANTS.items()}
            for case in (case for case in CASES[::7] if is_known(case, release(place))):
                with suppress(Back):
                    async with guarded_async(connection, grants[case.grant]) as db:
                        came = ALLOWED
                        try:
                            await db.execute(case.sql, case.parameters)
                        except Denied as denied:
                            came = denied.decision.code
                        except StatementError as error:
                            came = error.code
                        assert came == case.verdict, case.sql[:100]
                        raise Back
            assert digest(place.admin, sequences=False) == before

    asyncio.run(run())


def test_an_async_statement_that_is_cancelled_leaves_nothing(place: Place) -> None:
    slow = "select count(*) from generate_series(1, 20000) a, generate_series(1, 20000) b"

    async def run() -> None:
        async with await psycopg.AsyncConnection.connect(place.conninfo("agents")) as connection:
            with pytest.raises(asyncio.CancelledError):
                async with guarded_async(connection, WRITES) as db:
                    await db.execute("insert into archive (id) values (6)")
                    task = asyncio.ensure_future(db.execute(slow))
                    await asyncio.sleep(0.02)
                    with pytest.raises(GuardError, match="running"):
                        await db.execute("select 1")
                    task.cancel()
                    await task
            assert connection.closed or connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE

    asyncio.run(run())
    assert count(place, "archive") == 0


# --- pools -----------------------------------------------------------------------------------------------------------


def test_a_connection_of_a_pool_is_guarded_as_it_is(place: Place) -> None:
    """Block after block on the same one; what the guard closed, the pool gives to nobody."""
    with ConnectionPool(place.conninfo("agents"), min_size=1, max_size=1, open=True) as pool:
        for _ in range(3):
            with pool.connection() as connection, guarded(connection, WRITES) as db:
                assert verdict(db, "select pay from hr") == "table"
                db.execute("insert into archive (id) values (6)")
        with pytest.raises(Back), pool.connection() as connection, guarded(connection, WRITES) as db:
            db.execute("insert into archive (id) values (6)")
            raise Back
        with pytest.raises(Denied), pool.connection() as connection, guarded(connection, READS) as db:
            db.execute("select pay from hr")
        assert count(place, "archive") == 3
        with pytest.raises(psycopg.OperationalError), pool.connection() as connection, guarded(connection, WRITES) as db:
            place.admin.execute("select pg_terminate_backend(%s)", [connection.info.backend_pid])
            db.execute("delete from archive")
        with pool.connection() as connection, guarded(connection, WRITES) as db:
            db.execute("delete from archive")
    assert count(place, "archive") == 0


def test_an_async_connection_of_a_pool_is_guarded_as_it_is(place: Place) -> None:
    async def run() -> None:
        async with AsyncConnectionPool(place.conninfo("agents"), min_size=1, max_size=2, open=False) as pool:

            async def add(name: int) -> None:
                async with pool.connection() as connection, guarded_async(connection, WRITES) as db:
                    await db.execute("insert into archive (id) values ($1)", [name])
                    with pytest.raises(Denied):
                        await db.execute("select pay from hr")

            await asyncio.gather(*(add(name) for name in range(6)))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1), pool.connection() as connection, guarded_async(connection, WRITES) as db:
                    await db.execute("delete from archive")
                    await db.execute("select count(*) from generate_series(1, 20000) a, generate_series(1, 20000) b")
            async with pool.connection() as connection, guarded_async(connection, READS) as db:
                assert (await db.execute("select 1")).fetchall() == [(1,)]

    asyncio.run(run())
    assert count(place, "archive") == 6
    place.admin.execute("delete from archive")


# --- the plan --------------------------------------------------------------------------------------------------------


def found(place: Place, login: str) -> list[str]:
    return audit(place.admin, login)


@pytest.mark.parametrize(
    "sql",
    ["+-" * 49_000, "*/" * 49_000, "/**/" * 24_000, "é," * 33_000, '"é",' * 19_000, "'é' " * 19_000, ("+-" * 249 + "1 ") * 198, "/* a */ " * 12_000],
    ids=lambda sql: sql[:8],
)
def test_no_text_takes_the_scanner_long(sql: str) -> None:
    """Some of these took it 25 seconds. Processor time, and ten times what it takes."""
    since = process_time()
    with suppress(StatementError):
        reader.read("select " + sql)
    assert process_time() - since < 3


def test_what_a_statement_costs_before_it_is_judged_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: each column that a statement names is looked up once in each table, and not at all where that would
    be too often."""

    with psycopg.connect(place.conninfo("agents")) as connection, guarded(connection, READS) as db:
        db.execute("select 1")
        known = logins.known_of(connection)
    assert known is not None
    assessor = known.assessor
    asked = 0
    meant = needs.meant

    def counted(reference: Any, levels: Any, *others: Any) -> Any:
        nonlocal asked
        asked += sum(len(level.tables) for level in levels)
        return meant(reference, levels, *others)

    monkeypatch.setattr(needs, "meant", counted)
    for columns, tables, lookups in (
        (["a"] * 24_000, 150, 150),
        ([f"a{i}" for i in range(12_000)], 83, 996_000),
        ([f"a{i}" for i in range(12_000)], 84, None),
        ([f"w{i % 80}.a" for i in range(2900)], 80, 80 * 80),
        ([f"w{i % 80}.a{i}" for i in range(2900)], 200, 0),  # none is a column, which the items say
    ):
        asked = 0
        sql = f"select {', '.join(columns)} from {', '.join(f'wide w{i}' for i in range(tables))}"
        assert reader.read(sql).refusal is None, (columns[-1], tables)
        refusal = assessor.assess(sql, ()).refusal
        done = refusal is None or "told apart" not in refusal[1]
        assert (asked, done) == ((0, False) if lookups is None else (lookups, True)), (columns[-1], tables)


def test_the_functions_on_the_list_are_postgresqls_own_and_none_of_them_is_dangerous(place: Place) -> None:
    """Each is in pg_catalog, but for those that are spelled like types; none writes, sleeps, locks or reads outside."""
    known = {name for (name,) in place.admin.execute("select proname from pg_proc where pronamespace = 'pg_catalog'::regnamespace")}
    types = {name for (name,) in place.admin.execute("select typname from pg_type")}
    newest = release(place) >= 18  # of which the list is; what an older one does not have, nobody can call
    assert set(lists.FUNCTIONS) - known - types <= {"merge_action"} or not newest
    query = "select proname from pg_proc where pronamespace = 'pg_catalog'::regnamespace and proname ~ %s"
    dangerous = {name for (name,) in place.admin.execute(query, [templates.DANGEROUS])}
    called = lists.FUNCTIONS | lists.TYPES
    assert dangerous and not dangerous & called
    volatile = "select distinct proname from pg_proc where provolatile = 'v' and pronamespace = 'pg_catalog'::regnamespace"
    writes = {name for (name,) in place.admin.execute(volatile)} & called
    by_chance = {
        "array_sample", "array_shuffle", "clock_timestamp", "gen_random_uuid", "random", "random_normal", "timeofday", "uuidv4", "uuidv7",
    }  # fmt: skip
    assert writes == by_chance if newest else writes <= by_chance
    assert place.admin.execute("select count(*) from pg_class where relnamespace = 'pg_catalog'::regnamespace and relname !~ '^pg_'").fetchone() == (0,)
