"""The PostgreSQL guard, on a real server: what a token does not cover does not run, by the text and by the role."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic, process_time
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg import errors
from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from captoken import Caller, Denied, Grant, Issuer, Keyring, Verifier
from captoken.adapters._postgres import (
    assessment,
    assumptions,
    lists,
    logins,
    needs,
    opening,
    overrun,
    prepared,
    reader,
    runner,
    templates,
    transaction,
)
from captoken.adapters._postgres.roles import TABLES
from captoken.adapters._postgres.text import Reference, Scope, Text
from captoken.adapters.postgres import (
    Database,
    Role,
    apply_plan,
    audit,
    guarded,
    guarded_async,
    plan_sql,
)
from captoken.audit import AuditTrail, read
from captoken.control import Feed, Operator, Overlay
from captoken.errors import CaptokenError, GuardError, StatementError
from captoken.keys import OperatorKey
from captoken.stores.memory import MemoryLedger, MemorySnapshots

from ..longer import drawing, times
from ..stores.servers import Wire
from .postgres_corpus import ALLOWED, CASES, CLASSES, EVERY, GRANTS, ROWS, SCHEMA, is_known

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


@pytest.fixture(scope="module")
def place(postgres_server: Any) -> Iterator[Place]:
    """A database of its own, planned for two logins, as `captoken postgres plan` does it."""
    with psycopg.connect(postgres_server.conninfo, autocommit=True) as connection:
        connection.execute("drop database if exists guarded")
        connection.execute("create database guarded")
    conninfo = postgres_server.conninfo.replace("dbname=postgres", "dbname=guarded")
    with psycopg.connect(conninfo, autocommit=True) as admin:
        admin.execute("create schema captoken_guard")
        admin.execute("create function captoken_guard.subject() returns text language sql as 'select null::text'")
        admin.execute(SCHEMA + ROWS)
        for login, roles in CLASSES.items():
            for _ in range(2):  # it can be run again
                apply_plan(admin, login, *(Role(name, **rights) for name, rights in roles.items()))
        admin.execute("grant usage on schema market, hidden to public")
        yield Place(admin, lambda login: conninfo.replace("user=postgres", f"user={login}"))


@pytest.fixture(params=["agents", "trusted"])
def connection(request: pytest.FixtureRequest, place: Place) -> Iterator[psycopg.Connection[Any]]:
    """By a login with narrow roles, and by one whose role may do all, so that the text alone is between it and the data."""
    with psycopg.connect(place.conninfo(request.param)) as opened:
        yield opened


@pytest.fixture
def agents(place: Place) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(place.conninfo("agents"), autocommit=True) as opened:
        yield opened


def release(place: Place) -> int:
    """Of the server: 18, say."""
    return place.admin.info.server_version // 10_000


def inherits(make: str, undo: str, place: Place) -> tuple[str, str]:
    """Before release 16, a login inherits from all roles or from none."""
    if "inherit true" not in make or release(place) >= 16:
        return make, undo
    return "alter role agents inherit", "alter role agents noinherit"


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
        elif came != case.verdict:
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


@pytest.fixture
def taken_for_a_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that takes every text for a read of all columns of sales."""

    def read(sql: str) -> Text:
        text = Text(sql)
        scope = Scope(None)
        scope.tables.append(("sales", ("public", "sales")))
        text.reads.append(("public", "sales"))
        text.references.append(Reference(scope, "sales", "id"))
        return text

    monkeypatch.setattr(assessment, "read", read)


class Anything:
    def __contains__(self, item: object) -> bool:
        return True


@pytest.fixture
def misread(taken_for_a_read: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that takes the word of the server for nothing."""
    monkeypatch.setattr(transaction, "_KINDS", Anything())


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that asks the server nothing behind a statement."""
    monkeypatch.setattr(assessment, "assumptions_of", lambda **facts: None)


@pytest.fixture
def blind(misread: None, unasked: None) -> None:
    """All of that, so that the role stands alone."""


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


# --- facts for row security ------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("given", [READS, WRITES], ids=["reads", "writes"])
def test_one_statement_has_a_limit_too(given: Grant, agents: psycopg.Connection[Any]) -> None:
    """The server ends it by itself, and the connection stays."""
    for sql in ("select", "update sales set amount = 1 where 0 <"):
        with guarded(agents, given, timeout=1) as db, pytest.raises((errors.QueryCanceled, Denied)):
            db.execute_once(f"{sql} (select count(*) from generate_series(1, 20000) a, generate_series(1, 20000) b)")
        assert idle(agents)


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
    from captoken.stores.memory import MemoryLedger

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
    from captoken.stores.memory import MemoryLedger

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
    from captoken.audit import AuditTrail

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


def test_what_triggers_do_with_the_rights_of_the_role_is_refused_by_the_database(agents: psycopg.Connection[Any], place: Place) -> None:
    boxes = grant(tables=["inbox", "outbox", "log"], operations=EVERY)
    with guarded(agents, boxes) as db:
        assert verdict(db, "insert into inbox values (1, 'x')") == "table"
        assert verdict(db, "insert into outbox values (1, 'x')") in (ALLOWED, "table")  # a rule has the rights of its owner
    assert count(place, "inbox") == 0


def without(said: str, name: str) -> str:
    """What was said, without a name: the word, and not the letters, which the id of a token can have too."""
    return re.sub(rf"\b{name}\b", "…", said)


def test_a_missing_table_and_a_forbidden_one_are_denied_alike(connection: psycopg.Connection[Any]) -> None:
    with guarded(connection, READS) as db:
        said = []
        for name in ("hr", "no_such"):
            with pytest.raises(Denied) as denied:
                db.execute(f"select pay from {name}")
            said.append(without(str(denied.value.decision), name))
            said.append(without(denied.value.decision.for_model(), name))
    assert said[:2] == said[2:]


def test_a_missing_column_and_a_hidden_one_are_one_mistake(connection: psycopg.Connection[Any]) -> None:
    """In whatever place of a statement, and of whatever role: nothing is denied, and what there is is told."""
    statements = (
        "select {} from people", "select p.{} from people p", "select (p).{} from people p", "select id from people order by {}",
        "select id as {} from people where {} = 1", "select (select {}) from people", "update people set {} = 1", "update people set name = {}",
        "update people p set name = 'x' where p.{} is null", "update people set name = 'x' returning old.{}", "insert into people (id, {}) values (7, 1)",
        "insert into people (id) values (7) on conflict (id) do update set name = excluded.{}", "insert into people (id) values (7) returning {}",
    )  # fmt: skip
    by_role = [grant(tables=["people"], operations=["select", "insert", "update"])]
    for given in [grant(**GRANTS["edits"]), *(by_role if connection.info.user == "agents" else [])]:
        for sql in statements:
            said = []
            for name in ("pay", "no_such"):
                with rolled_back(connection, given) as db, pytest.raises(StatementError) as caught:
                    db.execute(sql.replace("{}", name))
                assert (caught.value.code, caught.value.state) == ("name", "42703")
                assert " people has id, name, region here." in caught.value.for_model()
                said.append((without(str(caught.value), name), without(caught.value.for_model(), name)))
            assert said[0] == said[1], sql
            assert "(p)." in sql or "…" in said[0][0], sql  # the word that was written


def test_errors_do_not_quote_rows(connection: psycopg.Connection[Any]) -> None:
    with guarded(connection, grant(**GRANTS["edits"])) as db, pytest.raises(StatementError) as caught:
        db.execute("update people set id = 1")
    assert str(caught.value) == "unique: a row with the same key is there already (23505)"


@pytest.mark.parametrize(
    "hides", ["note::integer > 0", "to_tsquery(note || ' ' || note) is null",
              "note::jsonpath is null", "date_trunc(note, now()) is null", "to_tsvector(note::json) is null"],
)  # fmt: skip
def test_an_error_does_not_quote_the_rows_that_a_view_hides(hides: str, agents: psycopg.Connection[Any], place: Place) -> None:
    place.admin.execute("create view seen as select note, amount from sales where region = 'eu' and amount < 20; grant select on seen to reader")
    try:
        logins.forget(agents)
        with guarded(agents, grant(tables=["seen"], operations=["select"])) as db, pytest.raises(StatementError, match="value: ") as caught:
            db.execute(f"select count(*) from seen where {hides}")
        assert not re.search(r"\b(one|two|three)\b", str(caught.value).replace("out of range, or a", "").replace("is one that", ""))
    finally:
        place.admin.execute("drop view seen")


def test_of_an_error_in_the_text_its_word_is_told_and_no_literal(agents: psycopg.Connection[Any]) -> None:
    with guarded(agents, READS) as db:
        for sql, says in (("select 'x'::integer", "(22P02)"), ("select nothing from sales", "(42703, at nothing)"), ("select region + 1 from sales", "(42883)")):
            with pytest.raises(StatementError, match=re.escape(says)):
                db.execute(sql)


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


# --- one statement with its commit ------------------------------------------------------------------------------------


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
        with pytest.raises(GuardError, match="first and only"):
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
    assert caught.value.code == "outcome_unknown" and "not known" in str(caught.value)
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


# --- what does not end by itself --------------------------------------------------------------------------------------

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


# --- statements by name -----------------------------------------------------------------------------------------------


def named(connection: psycopg.Connection[Any]) -> list[str]:
    """The texts that the server has prepared for the guard."""
    rows = connection.execute("select statement from pg_prepared_statements where name ~ '^captoken_' order by 1").fetchall()
    connection.rollback()
    return [statement for (statement,) in rows]


def test_a_statement_that_comes_again_goes_by_a_name(place: Place) -> None:
    """One for each role and each list of types: what was checked for one role does not count for another."""
    with psycopg.connect(place.conninfo("agents")) as connection:
        for _ in range(3):
            with guarded(connection, READS) as db:
                assert db.execute("select id from sales where id = $1", [2]).fetchall() == [(2,)]
        for statements, count in ((["select 1"], 0), (["select 1"], 1), (["select 1", "select 1"], 1), (["select 1 -- " + "x" * 10_000] * 3, 0)):
            with guarded(connection, READS) as db:
                for sql in statements:
                    assert db.execute(sql).fetchall() == [(1,)]
            assert named(connection).count(statements[0]) == count
        for _ in range(2):
            for given in (2, "2"):
                with guarded(connection, READS) as db, suppress(StatementError):
                    db.execute("select id from sales where id = $1", [given])
        for _ in range(2):
            with guarded(connection, WRITES) as db:
                assert len(db.execute("select s.id from sales s, orders o where o.id = s.id").fetchall()) == 2
                assert db.execute("select id from sales where id = $1", [2]).fetchall() == [(2,)]
        assert named(connection).count("select id from sales where id = $1") == 2
        names = connection.execute("select name from pg_prepared_statements where name ~ '^captoken_'").fetchall()
        assert all(re.fullmatch(r"captoken_[0-9a-f]{16}_\d+", name) for (name,) in names)


def test_no_error_tells_a_name(place: Place) -> None:
    """So that it reads the same, whether the statement came before or not."""
    with psycopg.connect(place.conninfo("agents")) as connection, guarded(connection, READS) as db:
        said = set()
        for given in ([1], [1], [1], [], [1, 2]):
            try:
                db.execute("select id from sales where id = $1::integer", given)
            except StatementError as error:
                said.add(str(error))
        assert said == {"parameters: the parameters do not fit the statement, by their number or their types (08P01)"}


@pytest.mark.parametrize("how", ["discard all", "deallocate all"])
def test_names_that_are_lost_are_made_again_and_then_done_without(how: str, place: Place) -> None:
    """As behind a pooler that resets a connection, or gives each transaction another server."""
    with psycopg.connect(place.conninfo("agents"), autocommit=True) as connection:
        for lost in range(4):
            for _ in range(3):
                with guarded(connection, WRITES) as db:
                    db.execute("insert into archive (id) values (1)")
                    assert db.execute("select count(*) from archive").fetchall() == [(1,)]
                    with pytest.raises(Denied):
                        db.execute("select * from hr")
                    db.execute("delete from archive")
            assert bool(named(connection)) == (lost < 2)
            connection.execute(how)
    assert count(place, "archive") == 0


def test_a_name_that_is_lost_by_itself_is_made_again(place: Place) -> None:
    with psycopg.connect(place.conninfo("agents"), autocommit=True) as connection:
        for once in (False, True):
            for _ in range(3):
                with guarded(connection, WRITES) as db:
                    db.execute("select id from sales where id = 2")
            query = "select name from pg_prepared_statements where statement = 'select id from sales where id = 2'"
            (name,), = connection.execute(query).fetchall()
            connection.execute(f"deallocate {name}")
            with guarded(connection, WRITES) as db:
                if not once:
                    db.execute("insert into archive (id) values (1)")
                run = db.execute_once if once else db.execute
                assert run("select id from sales where id = 2").fetchall() == [(2,)]
    assert count(place, "archive") == 1
    place.admin.execute("delete from archive")


def test_a_statement_by_name_gives_the_columns_that_there_are(place: Place) -> None:
    """PostgreSQL refuses what was prepared with others."""
    every = grant(tables=["*"], operations=["select"])
    with psycopg.connect(place.conninfo("trusted")) as connection:
        for _ in range(3):
            with guarded(connection, every) as db:
                assert db.execute("select * from wide").columns == ("a", "b", "c")
        place.admin.execute("alter table wide add column d integer")
        try:
            for run in ("execute", "execute_once"):
                with guarded(connection, every) as db:
                    assert getattr(db, run)("select * from wide").columns == ("a", "b", "c", "d")
        finally:
            place.admin.execute("alter table wide drop column d")


def test_how_much_the_server_keeps_is_bounded(place: Place) -> None:
    """The one that was not used for the longest time gives way."""
    with psycopg.connect(place.conninfo("agents")) as connection:
        with guarded(connection, READS) as db:
            for number in range(70):
                for _ in range(2):
                    assert db.execute(f"select {number}").fetchall() == [(number,)]
                    db.execute("select 'kept'")
        kept = named(connection)
        assert 64 <= len(kept) < 80 and "select 'kept'" in kept and "select 69" in kept and "select 3" not in kept
        names = prepared.names_of(connection)
        for number in range(1_500):
            names.is_due(number, b"select 1")
        assert len(names._came_once) <= 512


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


CLEAN = 8  # what the schema has that no plan takes away


def found(place: Place, login: str) -> list[str]:
    return audit(place.admin, login)


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


def test_a_plan_that_is_run_again_takes_back_what_it_no_longer_says(place: Place) -> None:
    wider = Role("temporal", {"sales": ["select", "insert"], "hr": ["select"]})
    narrower = Role("temporal", {"sales": ["select"]}, {"sales": ["id"]})
    rights = "select string_agg(privilege_type, ' ' order by 1) from information_schema.role_table_grants where grantee = 'temporal'"
    columns = "select column_name, privilege_type from information_schema.role_column_grants where grantee = 'temporal'"
    place.admin.execute(plan_sql("others", wider))
    assert place.admin.execute(rights).fetchone() == ("SELECT INSERT SELECT",)
    place.admin.execute(plan_sql("others", narrower))
    assert place.admin.execute(rights).fetchone() == (None,)
    assert place.admin.execute(columns).fetchall() == [("id", "SELECT")]


# Words that are no role, or mean another one than is written.
RESERVED = ("user", "current_user", "session_user", "current_role", "public", "none", "select", "table")


@pytest.mark.parametrize(
    ("login", "role", "says"),
    [
        ("agents; drop table hr", Role("r", {"sales": ["select"]}), "a role is named by"),
        ("agents", Role('r"', {"sales": ["select"]}), "a role is named by"),
        ("agents", Role("pg_read_all_data", {"sales": ["select"]}), "a role is named by"),
        *[("agents", Role(word, {"sales": ["select"]}), "is a reserved word of SQL") for word in RESERVED],
        *[(word, Role("r", {"sales": ["select"]}), "is a reserved word of SQL") for word in RESERVED],
        ("agents", Role("r", {"sales": ["truncate"]}), "a role is granted"),
        ("agents", Role("r", {"market.*": ["select"]}), "needs a database"),
        ("agents", Role("r", {"sales": ["delete"]}, {"sales": ["id"]}), "cannot be granted by columns"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(login: str, role: Role, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        plan_sql(login, role)


@pytest.mark.parametrize("word", ["authorization", "binary", "left", "values", "between", "name"])
def test_a_word_that_sql_knows_is_the_name_of_a_role_all_the_same(place: Place, word: str) -> None:
    """Each name is quoted wherever it stands: what the plan does, it does to this role."""
    before = place.admin.execute("select rolname, rolsuper, rolcanlogin, rolconfig from pg_roles where not rolname ~ '_login$' order by 1").fetchall()
    assert isinstance(apply_plan(place.admin, f"{word}_login", Role(word, {"sales": ["select", "insert"]})), list)
    apply_plan(place.admin, f"{word}_login", Role(word, {"sales": ["select"]}))
    after = place.admin.execute("select rolname, rolsuper, rolcanlogin, rolconfig from pg_roles where not rolname ~ '_login$' order by 1").fetchall()
    assert sorted(after) == sorted([*before, (word, False, False, None)])
    rights = "select string_agg(privilege_type, ' ') from information_schema.role_table_grants where grantee = %s"
    assert place.admin.execute(rights, (word,)).fetchone() == ("SELECT",)
    for role in (word, f"{word}_login"):
        place.admin.execute(f'drop owned by "{role}"; drop role "{role}"')


def test_whatever_is_reserved_is_refused(place: Place) -> None:
    """By the list of the server itself."""
    words = place.admin.execute("select word from pg_get_keywords() where catcode = 'R'").fetchall()
    assert len(words) > 70
    for (word,) in words:
        with pytest.raises(ValueError, match="is a reserved word of SQL"):
            plan_sql("agents", Role(word, {"sales": ["select"]}))


def test_a_name_cannot_end_the_code_that_a_plan_runs(place: Place) -> None:
    """Whoever may make a table, may name it so that it ends `$$`, or any other tag."""
    name = "x$$; create role planted; do $$ begin"
    place.admin.execute(f'create table "{name}" (a integer)')
    try:
        apply_plan(place.admin, "copyists", Role("copyist", {"*": ["select", "insert"]}))
        place.admin.execute(plan_sql("copyists", Role("copyist", {name: ["insert"]}), [("public", name)]))
        assert place.admin.execute("select count(*) from pg_roles where rolname = 'planted'").fetchone() == (0,)
    finally:
        place.admin.execute(f'drop table "{name}"')


def test_a_plan_leaves_roles_alone_that_no_plan_made_unless_it_is_told_to_adopt_them(place: Place) -> None:
    place.admin.execute("create role live login superuser")
    about = "select rolcanlogin, rolsuper from pg_roles where rolname = 'live'"
    try:
        for login, role in (("live", "narrow"), ("planners", "live")):
            with pytest.raises(errors.RaiseException, match="role live exists, and no plan made it"):
                apply_plan(place.admin, login, Role(role, {"sales": ["select"]}))
            assert place.admin.execute(about).fetchone() == (True, True)
        with pytest.raises(ValueError, match="two roles"):
            plan_sql("live", Role("live", {"sales": ["select"]}))
        for _ in range(2):
            apply_plan(place.admin, "planners", Role("live", {"sales": ["select"]}), adopt=True)
        apply_plan(place.admin, "planners", Role("live", {"sales": ["select"]}))
        assert place.admin.execute(about).fetchone() == (False, False)
    finally:
        place.admin.execute("drop owned by live; drop role live")


def test_a_schema_of_somebody_elses_for_the_facts_is_not_built_upon(place: Place, postgres_server: Any) -> None:
    """Who made it before could note facts, or run code as whoever plans; nothing of it is run."""
    with psycopg.connect(postgres_server.conninfo, autocommit=True) as connection:
        for sql in ("drop database if exists taken", "drop role if exists early", "create role early login", "create database taken owner early"):
            connection.execute(sql)
    as_early = postgres_server.conninfo.replace("dbname=postgres", "dbname=taken").replace("user=postgres", "user=early")
    with psycopg.connect(as_early, autocommit=True) as early:
        early.execute("create schema captoken_guard; create table captoken_guard.key (one boolean primary key, key bytea)")
        early.execute("create function captoken_guard.trap() returns trigger language plpgsql as $$ begin alter role early superuser; return new; end $$")
        early.execute("create trigger trap before insert on captoken_guard.key for each row execute function captoken_guard.trap()")
    with psycopg.connect(postgres_server.conninfo.replace("dbname=postgres", "dbname=taken"), autocommit=True) as admin:
        admin.execute("create table sales ()")
        for what in ("schema captoken_guard", "captoken_guard"):
            with pytest.raises(errors.RaiseException, match=f"{what}.* belongs to somebody else"):
                apply_plan(admin, "takers", Role("taker", {"sales": ["select"]}))
            admin.execute("alter schema captoken_guard owner to postgres")
        assert admin.execute("select rolsuper from pg_roles where rolname = 'early'").fetchone() == (False,)


def test_names_are_cut_off_as_the_server_cuts_them_off(place: Place) -> None:
    """By its own word: what it calls a column, and whether two names are one to it."""
    draw = drawing(63)
    for _ in range(times(300)):
        name = "".join(draw.choice("aé字😀_") for _ in range(draw.randrange(10, 40))) + "a" * draw.choice([0, 0, 30, 50])
        query = f'select 1 as "{name}"'
        text = reader.read(query)
        (outputs,) = [query.outputs for query in text.queries.values()]
        description = place.admin.execute(query.encode()).description
        assert description is not None and (description[0].name,) == outputs, name


def test_psql_runs_a_plan_as_it_is_printed(place: Place) -> None:
    """Its lexer is another than the server's: every statement arrives whole."""
    from tests.stores.servers import programs

    sql = plan_sql("printers", Role("printer", {"sales": ["select", "insert"]}))
    command = [str(programs() / "psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file=-", place.conninfo("postgres")]
    ran = subprocess.run(command, input=sql, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, [line for line in ran.stderr.splitlines() if "NOTICE" not in line]) == (0, "", []), ran.stderr
    with psycopg.connect(place.conninfo("printers")) as connection, guarded(connection, READS) as db:
        assert db.execute("select count(*) from sales").fetchall() == [(3,)]


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
            for number in range(600):
                known.assessor.assess(f"select {number}", ())
            kept.append(known)
    first, second = kept
    assert first.assessor is not second.assessor
    assert all(0 < len(known.assessor._assessed) <= 512 and len(known.assessor._readings) <= 512 for known in kept)


def test_names_in_a_plan_are_quoted() -> None:
    sql = plan_sql("agents", Role("r", {'odd"; drop table hr; --': ["select", "insert"]}))
    assert '"odd""; drop table hr; --"' in sql and 'odd"; drop' not in sql.replace('""', "")


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


def test_the_command_line_plans_applies_and_audits(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    from captoken.cli.app import run

    dsn = place.conninfo("postgres")
    planned = ["postgres", "plan", "--login", "clerks", "--role", "clerk", "--allow", "market.*=select", "--dsn", dsn]
    assert run(planned) == 0
    sql = capsys.readouterr().out
    assert 'grant select on "market"."moves" to "clerk";' in sql and 'grant select on "market"."sales" to "clerk";' in sql
    assert place.admin.execute("select count(*) from pg_roles where rolname = 'clerk'").fetchone() == (0,)
    assert run([*planned, "--apply"]) == 1  # the audit finds the owner's functions
    assert "-- found: clerk, clerks may execute public.peek(), which runs with the rights of postgres" in capsys.readouterr().out
    assert run(["postgres", "audit", "--login", "clerks", "--dsn", dsn]) == 1
    assert run(["postgres", "plan", "--login", "clerks", "--role", "clerk", "--allow", "nowhere=select", "--dsn", dsn]) == 2
    assert "there is no table 'nowhere'" in capsys.readouterr().err
    other = ["postgres", "plan", "--login", "postgres", "--role", "clerk", "--allow", "sales=select", "--dsn", dsn, "--apply"]
    assert run(other) == 2
    assert "role postgres exists, and no plan made it" in capsys.readouterr().err
    with psycopg.connect(place.conninfo("clerks")) as connection, guarded(connection, READS) as db:
        assert db.execute("select count(*) from market.moves").fetchall() == [(1,)]
        assert verdict(db, "select * from sales") == "table"  # the token would, no role of this login does
