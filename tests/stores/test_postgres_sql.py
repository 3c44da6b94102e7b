"""What our SQL means by a name: PostgreSQL's own, whatever lies in `public`. A twin of each function, operator, type and table that
it names lies there, where the login's search path looks first, and raises when it runs."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from postgast import parse_plpgsql

from captoken import Issuer, Keyring, Verifier
from captoken.adapters._postgres.auditing import AUDIT
from captoken.adapters._postgres.catalog import CATALOG
from captoken.adapters._postgres.grammar import parse
from captoken.adapters._postgres.roles import TABLES
from captoken.adapters._postgres.templates import ROLES, SERIALS
from captoken.adapters._postgres.templates import SETUP as GUARD_SETUP
from captoken.adapters.postgres import Role, apply_plan, audit, guarded, plan_sql
from captoken.issuance.registry import _tables
from captoken.issuance.registry import postgres as registry_of
from captoken.issuance.registry.ports import Named
from captoken.issuance.registry.postgres import PostgresRegistry
from captoken.stores import postgres as stores
from captoken.stores._postgres_sql import qualified
from captoken.stores.postgres import AsyncPostgresLedger, PostgresLedger, PostgresReplayStore, PostgresSnapshots
from tests.fixtures import NOW
from tests.issuance.registries import ending, entry, seen
from tests.stores.servers import Postgres
from tests.stores.test_ledger import CHILD, ROOT, debit, reservation, spent
from tests.stores.test_replay_store import use

DATABASE, FIRST = "hostile", "options='-c search_path=public,pg_catalog'"
TYPES = ("text", "bytea", "void", "jsonb", "name", "oid", "regclass", "regprocedure", "regrole")
STATE = "P0666"
RAISES = f"language plpgsql as $$ begin raise exception using errcode = '{STATE}', message = 'a twin ran'; end $$"


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that the registry runs from now on, as the server reads them."""
    found: list[str] = []

    def record(statement: str) -> str:
        found.append(qualified(statement))
        return found[-1]

    monkeypatch.setattr(registry_of, "qualified", record)
    return found


def named() -> set[str]:
    """All words and operators of all our SQL."""
    texts = [stores.setup(tables=registry_of.WITH_REGISTRY), inspect.getsource(_tables), inspect.getsource(stores), inspect.getsource(registry_of)]
    texts += [AUDIT, CATALOG, TABLES, ROLES, SERIALS, GUARD_SETUP]
    return set(re.findall(r"\w+|[-+*/<>=~!@#%^&|`?]+", "\n".join(texts)))


def signature(kinds: str, names: str) -> str:
    return ", ".join(f"variadic {name}" if kind == "v" else name for kind, name in zip(kinds, names.split(" "), strict=False) if name)


def twins(admin: psycopg.Connection[Any]) -> int:
    """A twin in `public` of each thing of PostgreSQL's own that has one of these names, with the very same arguments."""
    words = list(named())
    made = 0
    for name in TYPES:
        admin.execute(f'create domain public."{name}" as pg_catalog.int4 check (false)')
    relations = "select relname from pg_catalog.pg_class where relnamespace = 'pg_catalog'::regnamespace and relkind in ('r', 'v') and relname = any(%s)"
    for (name,) in admin.execute(relations, (words,)).fetchall():
        admin.execute(f'create table public."{name}" (twin pg_catalog.int4)')
    functions = """
        select p.proname, pg_catalog.array_to_string(array(
            select case when p.provariadic <> 0 and place = p.pronargs then 'variadic ' else '' end || pg_catalog.format('%%I.%%I', n.nspname, t.typname)
            from pg_catalog.unnest(p.proargtypes) with ordinality a(type, place)
            join pg_catalog.pg_type t on t.oid = a.type join pg_catalog.pg_namespace n on n.oid = t.typnamespace order by place
        ), ', '), pg_catalog.format_type(p.prorettype, null), p.proretset
        from pg_catalog.pg_proc p where pronamespace = 'pg_catalog'::regnamespace and proname = any(%s)
        and not exists (select from pg_catalog.unnest(p.proargtypes || p.prorettype) u where u in ('internal'::regtype, 'cstring'::regtype, '"any"'::regtype))
    """
    for name, given, gives, is_set in admin.execute(functions, (words,)).fetchall():
        admin.execute(f'create or replace function public."{name}"({given}) returns {"setof " * is_set}{gives} {RAISES}'.encode())
        made += 1
    # What takes anything at all is fitted better by what is taken here.
    for name, given in (("format", "text, text, text"), ("concat_ws", "text, text"), ("json_build_object", "text, json"), ("count", "bytea")):
        given = ", ".join(f"pg_catalog.{one}" for one in given.split(", "))
        admin.execute(f'create or replace function public."{name}"({given}) returns pg_catalog.text {RAISES}'.encode())
    operators = """
        select o.oprname, pg_catalog.format_type(nullif(o.oprleft, 0), null), pg_catalog.format_type(o.oprright, null), pg_catalog.format_type(o.oprresult, null)
        from pg_catalog.pg_operator o where o.oprname = any(%s) and oprnamespace = 'pg_catalog'::regnamespace
    """
    for number, (name, left, right, gives) in enumerate(admin.execute(operators, (words,)).fetchall()):
        both = ", ".join(side for side in (left, right) if side)
        admin.execute(f"create function public.twin_{number}({both}) returns {gives} {RAISES}".encode())
        sides = f"leftarg = {left}, rightarg = {right}" if left else f"rightarg = {right}"
        admin.execute(f"create operator public.{name} (function = public.twin_{number}, {sides})".encode())
        made += 1
    return made


@pytest.fixture(scope="module")
def hostile(postgres_server: Postgres) -> Iterator[str]:
    """A database with all these twins, as a login that finds them first."""
    with psycopg.connect(postgres_server.conninfo, autocommit=True) as connection:
        connection.execute(f"drop database if exists {DATABASE}")
        connection.execute(f"create database {DATABASE}")
    where = postgres_server.conninfo.replace("dbname=postgres", f"dbname={DATABASE}")
    with psycopg.connect(f"{where} options='-c search_path=pg_catalog'", autocommit=True) as admin:
        admin.execute("create table public.sales (id pg_catalog.int4, region pg_catalog.text)")
        admin.execute("insert into public.sales values (1, 'north')")
        assert twins(admin) > 500
    yield f"{where} {FIRST}"


@pytest.mark.parametrize(
    "asked",
    [
        "select cardinality(array[]::pg_catalog.bytea[])",
        "select array_position(array['a'::pg_catalog.text], 'a'::pg_catalog.text)",
        "select pg_catalog.int8 '1' = pg_catalog.int8 '1'",
        "select pg_catalog.int8 '2' - pg_catalog.int8 '1'",
        "select current_setting('fsync')",
    ],
)
def test_twins_run_where_no_schema_is_named(hostile: str, asked: str) -> None:
    """Else the tests below would show nothing."""
    with psycopg.connect(hostile, autocommit=True) as connection, pytest.raises(psycopg.Error, match="twin"):
        connection.execute(asked.encode())


@pytest.fixture
def schema(hostile: str) -> str:
    with psycopg.connect(hostile) as connection:
        stores.create_tables(connection, schema="ours", tables=registry_of.WITH_REGISTRY)
        stores.create_tables(connection, schema="ours")
        connection.execute("truncate ours.floors, ours.proofs, ours.buckets, ours.reservations, ours.overlay, ours.overlay_deltas, ours.registry_state")
    return "ours"


def test_proofs_are_used_once(hostile: str, schema: str) -> None:
    PostgresReplayStore.create(hostile, schema=schema, floor=0).close()
    with closing(PostgresReplayStore(hostile, schema=schema)) as replays:
        assert replays.peek(use(1), NOW) and replays.add(use(1), NOW) and not replays.add(use(1), NOW)
        later = use(2, at=NOW + 3600)
        assert replays.add(later, NOW + 3600) and not replays.add(use(1), NOW + 3600)


def test_what_is_spent_is_spent(hostile: str, schema: str) -> None:
    PostgresLedger.create(hostile, schema=schema, floor=0).close()
    with closing(PostgresLedger(hostile, schema=schema, shared=True)) as ledger:
        both = (debit(ROOT, 2, 3), debit(CHILD, 1, 1))
        assert ledger.peek(reservation(1, *both), NOW) is None and ledger.reserve(reservation(1, *both), NOW) is None
        assert ledger.reserve(reservation(1, *both), NOW) is None, "the same one, once more"
        assert ledger.reserve(reservation(2, *both), NOW) == both[0] and spent(ledger, ROOT, CHILD) == [2, 1]
        assert ledger.settle(reservation(1).id, {"usd_cents": 1}, NOW) is True and spent(ledger, ROOT, CHILD) == [1, 1]
        assert ledger.reserve(reservation(3, debit(CHILD, 1, 1)), NOW) == debit(CHILD, 1, 1)
        with psycopg.connect(hostile.replace(FIRST, ""), autocommit=True) as admin:
            admin.execute("update ours.floors set timeline = 'another'")
        real = 2**40
        assert ledger.reserve(reservation(5, debit(b"n" * 16), at=real + 100, keep=real + 100), real) is None

    async def awaited() -> Any:
        store = AsyncPostgresLedger(hostile, schema=schema, shared=True)
        try:
            return await store.peek(reservation(6, debit(b"n" * 16, 1, 1), at=real + 100, keep=real + 100), real)
        finally:
            await store.aclose()

    assert asyncio.run(awaited()) == debit(b"n" * 16, 1, 1)


def test_a_snapshot_and_its_deltas_are_what_was_published(hostile: str, schema: str) -> None:
    with closing(PostgresSnapshots.create(hostile, schema=schema)) as snapshots:
        one, two = b"1" * 100, b"2" * 100
        assert snapshots.load() is None and snapshots.publish(one, None) and not snapshots.publish(two, None)
        assert not snapshots.publish(two, b"another") and snapshots.publish(two, one) and snapshots.load() == two
        with psycopg.connect(hostile.replace(FIRST, ""), autocommit=True) as admin:
            (mark,) = admin.execute("select ours.mark()").fetchone() or (b"",)
        assert snapshots.append(b"delta", mark, b"3" * 32) and not snapshots.append(b"delta", mark, b"3" * 32)
        assert snapshots.since(mark) == [b"delta"] and snapshots.since(b"3" * 32) == [] and snapshots.load() == two + b"\ndelta"


def walk_the_registry(where: str, schema: str) -> None:
    """All that a registry is asked."""
    PostgresRegistry.create(where, schema=schema, floor=0).close()
    with closing(PostgresRegistry(where, schema=schema)) as registry:
        registry.keep_names([Named("acme", "https://login.acme.example", "acme:{sub}")])
        facts: dict[str, Any] = {"most_live": 5, "most_per_day": 5, "counted": True}
        for number, task in enumerate(("one", "two", "three")):
            registry.enter(entry(task, seen(number), **facts))
        registry.enter(entry("two", seen(7), within=("q3-risk",)))
        assert registry.is_live("one", NOW) and registry.heard_at("acme") is None
        assert len(registry.end(ending(task="one"))) == 1 and registry.end(ending(session="s1", jti="j1")) != ()
        assert registry.hear("acme", "j2", NOW) and not registry.hear("acme", "j2", NOW) and registry.heard_at("acme") == NOW
        (first, *_) = registry.unpublished()
        registry.published(first.number)
        assert not registry.is_live("one", NOW)
        with psycopg.connect(where.replace(FIRST, ""), autocommit=True) as admin:
            admin.execute(f"update {schema}.floors set timeline = 'another' where kind = 'registry'")
        assert registry.is_live("two", NOW) is False
        late = NOW + 10**8
        registry.end(ending(task="two", now=late))
        with psycopg.connect(where.replace(FIRST, ""), autocommit=True) as admin:
            admin.execute(f"update {schema}.registry_state set swept = 0, floor = 0")
        registry.hear("acme", "j9", late)


def test_a_registry_starts_and_ends_tasks(hostile: str, schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each statement that `_tables` has is asked here, and names what it means."""
    found = recorded(monkeypatch)
    with psycopg.connect(hostile.replace(FIRST, ""), autocommit=True) as admin:
        admin.execute("drop schema if exists tasks cascade")
    with psycopg.connect(hostile) as connection:
        stores.create_tables(connection, schema="tasks", tables=registry_of.WITH_REGISTRY)
    walk_the_registry(hostile, "tasks")
    asked = [one for one in found if not one.strip().startswith("create")]
    written = [node.value for node in ast.walk(ast.parse(inspect.getsource(_tables))) if isinstance(node, ast.Constant)]
    statements = [one for one in written if isinstance(one, str) and re.match(r"\s*(select|insert|update|delete)\s.*\s(from|into|set)\s", one, re.S)]
    every = [qualified(one).strip() for one in statements]
    assert len(every) > 20
    missing = [one for one in every if not any(one in statement for statement in asked)]
    (upgrade,) = missing  # a step from an older version, which a new registry is not asked
    assert upgrade.startswith("update registry_used set subject")
    for statement in (*asked, upgrade):
        check(statement.replace("?", "$1"), schemas=False)


# --- the guard, its plan and its audit -------------------------------------------------------------------------------------------


def test_a_plan_runs_nothing_of_another_as_who_runs_it(hostile: str) -> None:
    """From code, and as it is printed; the path is then as it was."""
    sql = plan_sql("hostile_agents", Role("hostile_reader", {"sales": ["select", "insert"]}))
    with psycopg.connect(hostile, autocommit=True) as admin:
        admin.execute(sql.encode())
        assert admin.execute("show search_path").fetchone() == ("public,pg_catalog",)
        found = apply_plan(admin, "hostile_agents", Role("hostile_reader", {"*": ["select"]}))
        assert found == audit(admin, "hostile_agents") and admin.execute("show search_path").fetchone() == ("public,pg_catalog",)
        # The domains of the twins are nobody's; what everybody may execute is found.
        assert not [line for line in found if "superuser" in line]


def test_the_guard_reads_what_the_login_may_do(hostile: str) -> None:
    with psycopg.connect(hostile, autocommit=True) as admin:
        apply_plan(admin, "hostile_agents", Role("hostile_reader", {"sales": ["select"]}))
    keyring = Keyring.from_keys({"k1": bytes(range(32))}, current="k1")
    token = Issuer(keyring, clock=lambda: NOW).mint(subject="user:jane", agent="a", task="t", tables=["sales"], operations=["select"])
    grant = Verifier(keyring, clock=lambda: NOW).authenticate(token.serialize())
    with psycopg.connect(hostile.replace("user=postgres", "user=hostile_agents")) as connection, guarded(connection, grant) as db:
        assert db.execute("select id from sales").fetchall() == [(1,)]


# --- what the texts say ----------------------------------------------------------------------------------------------------------

KINDS = {"AEXPR_OP", "AEXPR_OP_ANY", "AEXPR_OP_ALL"}
GRAMMAR = {"int8", "int4", "bool"}  # of words of the language, which the reader gives their schema


# What stands in these fields comes without the name of its kind.
INNER = {"typeName": "TypeName", "returnType": "TypeName", "argType": "TypeName", "relation": "RangeVar", "pktable": "RangeVar"}


def nodes(tree: Any) -> Iterator[tuple[str, Any]]:
    """What the parser makes of a statement, as JSON: node by node, each with its kind."""
    for each in tree if isinstance(tree, list) else ():
        yield from nodes(each)
    for name, value in tree.items() if isinstance(tree, dict) else ():
        if isinstance(value, dict) and (name[0].isupper() or name in INNER):
            yield INNER.get(name, name), value
        yield from nodes(value)


def check(statement: str, *, schemas: bool = True) -> None:
    """Each name in it has its schema, and nothing looks for an operator that none can be written to."""
    tree = list(nodes(parse(statement)))
    common = {node["ctename"] for kind, node in tree if kind == "CommonTableExpr"}
    for kind, node in tree:
        match kind:
            case "FuncCall":
                assert len(node["funcname"]) == 2, statement
            case "A_Expr":
                assert node["kind"] in KINDS and len(node["name"]) == 2, statement
            case "SubLink":
                assert "testexpr" not in node or len(node.get("operName", ())) == 2, statement
            case "CaseExpr":
                assert "arg" not in node, statement
            case "JoinExpr":
                assert "usingClause" not in node and "isNatural" not in node, statement
            case "TypeName":
                assert len(node["names"]) == 2, statement
            case "RangeVar" if schemas:
                assert "schemaname" in node or node["relname"] in common, statement


FUNCTION = re.compile(r"create or replace function .*?\$\$.*?\$\$;", re.S)


def expressions(setup: str) -> Iterator[str]:
    """What stands in the functions, each as a statement; and what makes tables and functions. What is done once is a function too."""
    setup = setup.replace("do $$", "create or replace function captoken.once() returns pg_catalog.void language plpgsql as $$")
    yield re.sub(FUNCTION, "", setup)
    for function in re.findall(FUNCTION, setup):
        if "language sql" in function:
            yield function.split("$$")[1]
            continue
        for query, mode in queries(parse_plpgsql(function)):
            yield query if mode == 0 else f"select {query.partition(':=')[2] if mode == 3 else query}"


def queries(tree: Any) -> Iterator[tuple[str, int]]:
    if isinstance(tree, dict):
        if isinstance(tree.get("query"), str):  # of a loop it is what holds the text
            yield tree["query"], tree.get("parseMode", 0)
        tree = list(tree.values())
    for each in tree if isinstance(tree, list) else ():
        yield from queries(each)


SETUPS = {"stores": stores.setup(), "registry": stores.setup(tables=registry_of.WITH_REGISTRY)}


@pytest.mark.parametrize("setup", SETUPS.values(), ids=list(SETUPS))
def test_each_name_in_tables_and_functions_has_its_schema(setup: str) -> None:
    texts = [setup, *expressions(setup)]
    assert len(texts) > 100
    for text in texts:
        check(text)
    assert not re.findall(r"""(?<![."'\w])(?:text|bytea|void)\b""", setup), "also where a function declares"


@pytest.mark.parametrize(
    "statement",
    [
        "select a.b from c.d where e = 1",
        "select count(*) from a.b",
        "select 'x'::text",
        "select from a.b where c is distinct from d",
        "select from a.b where c in (select d from a.e)",
        "select from a.b where c between pg_catalog.f(1) and 2",
        "select case x when 1 then 2 end",
        "select from a.b join a.c using (d)",
        "select from b",
    ],
)
def test_a_name_without_a_schema_is_found(statement: str) -> None:
    with pytest.raises(AssertionError):
        check(statement)


def meaning(statement: str) -> list[Any]:
    """A statement without its places and without `pg_catalog`."""

    def bare(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: bare(value) for key, value in node.items() if not key.endswith(("location", "_start", "_end", "_len"))}
        if isinstance(node, list):
            return [bare(each) for each in node if each != {"String": {"sval": "pg_catalog"}}]
        return node

    return bare(parse(statement))


@pytest.mark.parametrize("setup", SETUPS.values(), ids=list(SETUPS))
def test_a_schema_before_an_operator_changes_nothing_of_what_is_meant(setup: str) -> None:
    """Operators with a schema bind alike: `a - b < c - d` would be read from left to right."""
    for text in expressions(setup):
        plain = re.sub(r"operator\(pg_catalog\.(\S+?)\)", r"\1", text)
        assert meaning(plain) == meaning(text), text
    assert meaning("select 1 - 2 < 3 - 4") != meaning(qualified("select 1 - 2 < 3 - 4"))
