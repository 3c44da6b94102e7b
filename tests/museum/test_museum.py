"""What earlier versions made is opened, or refused with the command that upgrades it; upgraded, it is opened, and nothing is lost.

`tests/museum/0.1.0` holds what commit 58e3be0 made, by `python -m tests.museum`, as the first version of each schema. This
build's own stands beside it: it is opened as it is. Who is killed while it upgrades leaves the old or the new.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sqlite3
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from time import sleep
from typing import Any

import psycopg
import pytest
import valkey
from msgspec import structs

from captoken import Token, Verifier
from captoken.audit import AuditTrail, check
from captoken.cli.console.index import Index
from captoken.control import Feed
from captoken.errors import StoreError
from captoken.issuance import desk
from captoken.issuance.policy import read
from captoken.issuance.registry._tables import schema_by as registry_tables
from captoken.issuance.registry.postgres import WITH_REGISTRY, PostgresRegistry
from captoken.issuance.registry.sqlite import SQLiteRegistry
from captoken.local import Office
from captoken.local._folder import _VERSION as OFFICE
from captoken.stores import sqlite as sqlite_stores
from captoken.stores import valkey as valkey_stores
from captoken.stores._postgres_sql import SCHEMA as STORES
from captoken.stores._rules import mark
from captoken.stores.memory import MemoryReplayStore, MemorySnapshots
from captoken.stores.ports import Forbidden, Mark, MarkedStep, Rule, Spend, Use
from captoken.stores.postgres import (
    AsyncPostgresLedger,
    PostgresLedger,
    PostgresReplayStore,
    PostgresSnapshots,
    create_tables,
    setup,
    upgrade_tables,
)
from captoken.stores.sqlite import SQLiteLedger, SQLiteReplayStore, SQLiteSnapshots
from captoken.stores.trail_file import TrailFile
from captoken.stores.valkey import ValkeyLedger, ValkeyReplayStore, ValkeySnapshots
from tests.longer import drawing, kills
from tests.museum import __main__ as museum
from tests.museum.__main__ import (
    BUCKET,
    DELTA,
    ENDED,
    KEYS,
    LIMIT,
    LIVE,
    NAME,
    NOW,
    PAYING,
    READING,
    SNAPSHOT,
    SPENT,
    UNUSED,
    USED,
    clock,
    reservation,
)
from tests.stores.servers import Postgres, Valkey
from tests.stores.test_rights import without_rights

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
KEPT = sorted(path.name for path in HERE.glob("[0-9]*"))
FIRST = "0.1.0"
NOW_TOO = [*KEPT, "this build"]
OLDER = r"has schema version 1, from an earlier captoken, and this one needs \d+: stop whatever uses it, then run `captoken upgrade "
ALL_KINDS: tuple[Any, ...] = (*sqlite_stores.KINDS, SQLiteRegistry)


@pytest.fixture(scope="session")
def server() -> Iterator[Valkey]:
    server = Valkey()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def made_now(tmp_path_factory: pytest.TempPathFactory, postgres_server: Postgres, server: Valkey) -> Path:
    """What this build writes."""
    folder = tmp_path_factory.mktemp("museum") / "now"
    drop(postgres_server.conninfo)
    with closing(server.client()) as client:
        client.flushall()  # what other versions have left there
        museum.write(folder, postgres_server.conninfo, client)
    return folder


@pytest.fixture(params=NOW_TOO)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(version: str, tmp_path: Path, made_now: Path) -> Path:
    """A copy, for its owner alone, as it was made."""
    return copied(HERE / version if version in KEPT else made_now, tmp_path / "copy")


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return copied(HERE / FIRST, tmp_path / "first")


def copied(source: Path, to: Path) -> Path:
    shutil.copytree(source, to)
    for path in (to, *to.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return to


@pytest.mark.parametrize("kept", [FIRST, *KEPT])
def test_each_version_has_all_that_this_build_writes(kept: str, made_now: Path) -> None:
    assert {path.name for path in (HERE / kept).iterdir()} == {path.name for path in made_now.iterdir()}


# --- tokens, keys, snapshots, trails, policies --------------------------------------------------------------------------


def test_tokens_are_read_and_mean_what_they_did(folder: Path) -> None:
    shop = Verifier(museum.KEYRING, audience="shop", replays=MemoryReplayStore(floor=0), clock=clock)
    tokens = json.loads((folder / "tokens.json").read_text())
    assert len(tokens) >= 5 and {one["code"] for one in tokens.values()} == {"allowed", "unaddressed"}
    for name, one in tokens.items():
        assert shop.check(one["text"], PAYING if one["pays"] else READING).code == one["code"], name
    assert Verifier(museum.KEYRING, clock=clock).check(Token.parse(tokens["delegated"]["text"]), READING)


def test_key_files_are_read(folder: Path) -> None:
    for name, key in KEYS.items():
        loaded: Any = type(key).load(folder / "keys" / f"{name}.json")
        if hasattr(key, "public"):
            assert loaded.public == key.public  # type: ignore[attr-defined]
        loaded.save(folder / "again.json")
        assert (folder / "again.json").read_bytes() == (folder / "keys" / f"{name}.json").read_bytes(), name


def test_a_snapshot_is_read(folder: Path) -> None:
    store = MemorySnapshots()
    assert store.publish((folder / "snapshot").read_bytes(), None)
    entries = Feed(store, [museum.OPERATOR.public], clock=clock).refresh().entries
    assert [(entry.select.agent, entry.why) for entry in entries] == [("lost", "laptop lost")]


def test_a_trail_is_whole_and_goes_on(folder: Path) -> None:
    path = folder / "trail.jsonl"
    assert check(path.read_bytes().splitlines(keepends=True), [museum.AUDITOR.public])
    with TrailFile(path) as file:
        trail = AuditTrail(file.write, head=file.head, key=museum.AUDITOR, clock=clock)
        Verifier(museum.KEYRING, audit=trail, clock=clock).check("cap1_x", READING)
        trail.checkpoint()
    assert check(path.read_bytes().splitlines(keepends=True), [museum.AUDITOR.public])


def test_a_policy_is_read(folder: Path) -> None:
    loaded = read((folder / "policy.toml").read_bytes())
    desk.check_policy(loaded)
    assert list(loaded.grants) == ["nightly"]


def test_an_index_of_the_console_is_gone_on_with(folder: Path) -> None:
    """One of an earlier version would be made anew, of the trail: it has nothing else."""
    with closing(sqlite3.connect(folder / "index.db")) as connection, connection:
        connection.execute("update trails set path = ?", (str((folder / "trail.jsonl").resolve()),))
    with closing(Index(folder / "index.db", [folder / "trail.jsonl"])) as index:
        assert not index.take() or index.trails()[0].trouble is None
        assert index.rows("select sum(allowed), sum(denied) from tasks") == [(1, 1)]


# --- stores ----------------------------------------------------------------------------------------------------------


def holds(replays: Any = None, ledger: Any = None, registry: Any = None, snapshots: Any = None) -> None:
    """What was counted is counted, what was used is used, what was started lives, and what was published lies there."""
    if replays is not None:
        assert not replays.add(USED, NOW) and replays.add(UNUSED, NOW)
    if ledger is not None:
        assert ledger.spent(BUCKET, "uses") == SPENT
        assert ledger.reserve(reservation(2, LIMIT - SPENT + 1), NOW) is not None
        assert ledger.reserve(reservation(3, LIMIT - SPENT), NOW) is None
    if registry is not None:
        assert registry.is_live(LIVE, NOW) and not registry.is_live(ENDED, NOW)
        assert [(one.number, one.task.id) for one in registry.unpublished()] == [(1, ENDED)]
        registry.keep_names([])
        with registry._to_read() as run:
            assert run([("select subject, count(*) from registry_used group by subject", ())])[0] == [("acme:jane", 2)]
    if snapshots is not None:
        assert snapshots.load() == SNAPSHOT + b"\n" + DELTA
        assert snapshots.since(mark(SNAPSHOT)) == [DELTA]


def refused_or(version: str, opens: Callable[[], Any]) -> None:
    """An earlier version's is refused, with the command; what this build made is opened."""
    if version == "this build":
        return
    with pytest.raises(StoreError, match=OLDER):
        opens()


def schema_of(path: Path, *, but: tuple[str, ...] = ("captoken_schema",)) -> dict[str, Any]:
    """Tables with their columns, and indexes with what they are on, as SQLite has them."""
    with closing(sqlite3.connect(path)) as connection:
        named = "select type, name from sqlite_master where name not like 'sqlite_%' order by name"
        found = [(kind, name) for kind, name in connection.execute(named) if name not in but]
        what = {"table": "table_xinfo", "index": "index_xinfo"}
        return {name: connection.execute(f"pragma {what[kind]}({name})").fetchall() for kind, name in found}


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(("-wal", "-shm"))}


def test_stores_on_sqlite(folder: Path, version: str, tmp_path: Path) -> None:
    """A dry run changes nothing. What is upgraded is as if it were new."""
    shared, alone, moved = folder / "sqlite" / "shared.db", folder / "sqlite" / "overlay.db", tmp_path / "moved.db"
    counting = (SQLiteReplayStore, SQLiteLedger, SQLiteRegistry)
    for path, kinds in ((shared, counting), (alone, (SQLiteSnapshots,))):
        for kind in kinds:
            refused_or(version, lambda kind=kind, path=path: kind(path))
    refused_or(version, lambda: SQLiteSnapshots(alone, readonly=True))

    before = bytes_of(folder / "sqlite")
    planned = [sqlite_stores.upgrade_file(path, overlay=moved, kinds=ALL_KINDS) for path in (shared, alone)]
    assert bytes_of(folder / "sqlite") == before and not moved.exists()
    done = [sqlite_stores.upgrade_file(path, overlay=moved, kinds=ALL_KINDS, apply=True) for path in (shared, alone)]
    assert done == planned and all(bool(one.does) == (version in KEPT) for several in done for one in several)
    again = [sqlite_stores.upgrade_file(path, overlay=moved, kinds=ALL_KINDS, apply=True) for path in (shared, alone)]
    assert not any(one.does for several in again for one in several)

    with closing(SQLiteReplayStore(shared)) as replays, closing(SQLiteLedger(shared)) as ledger, closing(SQLiteRegistry(shared)) as registry:
        holds(replays, ledger, registry)
    overlays = [alone, moved] if version in KEPT else [alone]
    new = tmp_path / "new.db"
    SQLiteSnapshots.create(new).close()
    for path in overlays:
        assert (path.stat().st_mode & 0o777, path.stat().st_nlink) == (0o600, 1)
        with closing(SQLiteSnapshots(path, readonly=True)) as snapshots:
            holds(snapshots=snapshots)
        assert schema_of(path) == schema_of(new)
    for kind in counting:
        kind.create(tmp_path / "counting.db").close()
    assert schema_of(shared) == schema_of(tmp_path / "counting.db")


def test_an_overlay_that_lies_with_others_wants_a_file_of_its_own(first: Path) -> None:
    """One that is named, and that is not there yet. Nothing is changed before."""
    shared, before = first / "sqlite" / "shared.db", bytes_of(first / "sqlite")
    for apply in (False, True):
        with pytest.raises(StoreError, match="the overlay shares its file with other stores, and needs its own: name one with overlay="):
            sqlite_stores.upgrade_file(shared, kinds=ALL_KINDS, apply=apply)
    other = first / "sqlite" / "other.db"
    SQLiteSnapshots.create(other).close()
    with pytest.raises(StoreError, match="already exists"):
        sqlite_stores.upgrade_file(shared, kinds=ALL_KINDS, overlay=other, apply=True)
    with pytest.raises(StoreError, match="the file cannot be made: No such file or directory"):
        sqlite_stores.upgrade_file(shared, kinds=ALL_KINDS, overlay=first / "nowhere" / "x.db", apply=True)
    with pytest.raises(StoreError, match=OLDER):
        SQLiteLedger.create(first / "sqlite" / "overlay.db")
    after = bytes_of(first / "sqlite")
    assert after["overlay.db"] == before["overlay.db"]
    with pytest.raises(StoreError, match=OLDER):
        SQLiteSnapshots(shared)
    sqlite_stores.upgrade_file(shared, kinds=ALL_KINDS, overlay=first / "moved.db", apply=True)
    with closing(SQLiteSnapshots(first / "moved.db")) as snapshots:
        holds(snapshots=snapshots)


def test_a_file_without_stores_is_none_to_upgrade(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store here"):
        sqlite_stores.upgrade_file(tmp_path / "none.db")
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("create table mine (a)")
    with pytest.raises(StoreError, match="there is no store of captoken here to upgrade"):
        sqlite_stores.upgrade_file(tmp_path / "other.db")


def test_a_file_that_another_process_has_open_is_left_as_it_is(first: Path) -> None:
    """That process would go on by the old schema."""
    shared = first / "sqlite" / "shared.db"
    with closing(sqlite3.connect(shared, isolation_level=None)) as other:
        other.execute("select count(*) from proofs").fetchone()
        with pytest.raises(StoreError, match="another process has it open: stop whatever uses it"):
            sqlite_stores.upgrade_file(shared, kinds=ALL_KINDS, overlay=first / "moved.db", apply=True, timeout=0.1)
        with pytest.raises(StoreError, match=OLDER):
            SQLiteLedger(shared)
    sqlite_stores.upgrade_file(shared, kinds=ALL_KINDS, overlay=first / "moved.db", apply=True)


def test_an_overlay_that_an_old_process_has_opened_since_is_put_right(first: Path) -> None:
    """It gives it a write-ahead log again, and knows no version."""
    path = first / "sqlite" / "overlay.db"
    sqlite_stores.upgrade_file(path, apply=True)
    with closing(sqlite3.connect(path)) as old:
        assert old.execute("pragma journal_mode = wal").fetchone() == ("wal",)
    with closing(SQLiteSnapshots(path)) as snapshots:
        holds(snapshots=snapshots)
    with closing(sqlite3.connect(path)) as now:
        assert now.execute("pragma journal_mode").fetchone() != ("wal",)


def test_two_upgrades_of_a_file_at_once(first: Path) -> None:
    shared = first / "sqlite" / "shared.db"
    bring_on = lambda _: sqlite_stores.upgrade_file(shared, kinds=ALL_KINDS, overlay=first / "moved.db", apply=True)  # noqa: E731
    with ThreadPoolExecutor(2) as pool, suppress(StoreError):  # the second may find the file of the first
        list(pool.map(bring_on, range(2)))
    with closing(SQLiteLedger(shared)) as ledger, closing(SQLiteSnapshots(first / "moved.db")) as snapshots:
        holds(ledger=ledger, snapshots=snapshots)


def test_an_upgrade_without_the_right_to_write_says_so(tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    shutil.copy(HERE / FIRST / "sqlite" / "shared.db", path)
    for parent in (*tmp_path.parents, tmp_path):
        with suppress(PermissionError):
            parent.chmod(parent.stat().st_mode | 0o055)
    path.chmod(0o444)
    said = without_rights(lambda: sqlite_stores.upgrade_file(path, kinds=ALL_KINDS, overlay=tmp_path / "o.db", apply=True))
    assert said.startswith("StoreError") and ("has to read and write the file and its folder" in said or "cannot be made" in said)


# --- an office -------------------------------------------------------------------------------------------------------


def works(folder: Path) -> None:
    """What lived lives, with one use less; what had ended has."""
    texts = json.loads((folder.parent / "office-tokens.json").read_text())
    with Office.open(folder, clock=clock) as office:
        codes = [office.verifier.check(texts["live"], PAYING).code for _ in range(3)]
        assert codes == ["allowed", "allowed", "budget_exhausted"]
        assert office.verifier.check(texts["ended"], PAYING).code == "revoked"
        office.revoke(agent="clerk", why="test")
        assert office.verifier.check(texts["live"], PAYING).code == "revoked"
        assert office.audit().hops()


def test_an_office(folder: Path, version: str) -> None:
    place = folder / "office"
    refused_or(version, lambda: Office.open(place, clock=clock))
    before = bytes_of(place)
    planned = Office.upgrade(place)
    assert {**bytes_of(place), "lock": b""} == {**before, "lock": b""}
    assert Office.upgrade(place, apply=True) == planned and any(one.does for one in planned) == (version in KEPT)
    assert not any(one.does for one in Office.upgrade(place, apply=True))
    works(place)


def test_an_office_that_is_open_or_none_is_not_upgraded(first: Path, tmp_path: Path) -> None:
    place = first / "office"
    with pytest.raises(StoreError, match=r"there is no office\.json in it: it is no office"):
        Office.upgrade(tmp_path)
    (place / "operator.json").rename(tmp_path / "operator.json")
    with pytest.raises(StoreError, match=r"operator\.json is missing"):
        Office.upgrade(place, apply=True)
    (tmp_path / "operator.json").rename(place / "operator.json")
    Office.upgrade(place, apply=True)
    with Office.open(place, clock=clock), pytest.raises(StoreError, match="has opened it"):
        Office.upgrade(place)


def test_an_office_of_a_newer_version_is_refused(first: Path) -> None:
    place = first / "office"
    (place / "office.json").write_text('{"files":[],"v":3}\n')
    for act in (Office.open, Office.upgrade):
        with pytest.raises(StoreError, match="office has schema version 3, from a newer captoken, and this one reads 2: install the newer captoken here"):
            act(place)


# --- killed in the middle --------------------------------------------------------------------------------------------


class Dying(sqlite3.Connection):
    """Counts what is executed, before and after it; and dies at the step that was told."""

    steps, dies_at = 0, 0

    def execute(self, *given: Any) -> sqlite3.Cursor:
        step()
        done = super().execute(*given)
        step()
        return done


def step(*_: Any) -> None:
    Dying.steps += 1
    if Dying.steps == Dying.dies_at:
        os.kill(os.getpid(), signal.SIGKILL)


def killed_at(step_of: int, act: Callable[[], Any]) -> bool:
    """Was the process killed that did it? At that step: a statement, a file that is opened or gets another name."""
    child = os.fork()
    if child == 0:
        Dying.dies_at = step_of
        connect = sqlite3.connect
        sqlite3.connect = lambda *given, **named: connect(*given, **named, factory=Dying)  # type: ignore[assignment]
        sys.addaudithook(lambda event, given: step() if event in ("open", "os.rename") else None)
        with suppress(BaseException):
            act()
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "it failed by itself"
    return os.WIFSIGNALED(status)


def killed_after(seconds: float, act: Callable[[], Any]) -> None:
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            act()
        os._exit(0)
    sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def is_new(*opens: Callable[[], Any]) -> bool:
    """All of them are of the new version, or all of the old one, and refused with the remedy."""
    found = set()
    for one in opens:
        try:
            one().close()
            found.add(True)
        except StoreError as error:
            assert "captoken upgrade" in str(error) or "no store here" in str(error), error
            found.add(False)
    assert len(found) == 1, "some are old, and some are new"
    return found.pop()


def fresh(to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    return copied(HERE / FIRST, to)


def is_upgraded(place: Path) -> bool:
    shared, moved = place / "sqlite" / "shared.db", place / "moved.db"
    kinds = (SQLiteReplayStore, SQLiteLedger, SQLiteRegistry)
    return is_new(*(lambda kind=kind: kind(shared) for kind in kinds), lambda: SQLiteSnapshots(moved))


def bring_on(place: Path) -> None:
    sqlite_stores.upgrade_file(place / "sqlite" / "shared.db", kinds=ALL_KINDS, overlay=place / "moved.db", apply=True)


def all_is_there(place: Path) -> None:
    shared = place / "sqlite" / "shared.db"
    opened = [SQLiteReplayStore(shared), SQLiteLedger(shared), SQLiteRegistry(shared), SQLiteSnapshots(place / "moved.db")]
    try:
        holds(*opened)
    finally:
        for one in opened:
            one.close()


def test_a_killed_upgrade_of_files_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """Two files, of which one takes the overlay of the other: both are old, or both are new. At each step."""
    at, seen = 0, set()
    while True:
        at += 1
        place = fresh(tmp_path / "place")
        was_killed = killed_at(at, lambda place=place: bring_on(place))
        seen.add(is_upgraded(place))
        if not is_upgraded(place):
            bring_on(place)
        all_is_there(place)
        if not was_killed:
            break
    assert at > 30 and seen == {True, False}


def test_a_killed_upgrade_of_files_leaves_the_old_or_the_new_at_any_time(tmp_path: Path) -> None:
    """Also within a commit."""
    source = drawing("killed upgrades")
    for _ in range(kills(12)):
        place = fresh(tmp_path / "place")
        killed_after(source.uniform(0, 0.06), lambda place=place: bring_on(place))
        if not is_upgraded(place):
            bring_on(place)
        all_is_there(place)


def test_a_killed_upgrade_of_an_office_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    at, seen = 0, set()
    while True:
        at += 1
        place = fresh(tmp_path / "place") / "office"
        was_killed = killed_at(at, lambda place=place: Office.upgrade(place, apply=True))
        seen.add(is_new(lambda place=place: Office.open(place, clock=clock)))
        if not is_new(lambda place=place: Office.open(place, clock=clock)):
            Office.upgrade(place, apply=True)
        works(place)
        if not was_killed:
            break
    assert at > 30 and seen == {True, False}


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


def drop(conninfo: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(f"drop schema if exists {NAME} cascade".encode())


def load(conninfo: str, folder: Path) -> None:
    drop(conninfo)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute((folder / "postgres.sql").read_bytes())


@pytest.fixture
def where(postgres_server: Postgres, folder: Path) -> str:
    load(postgres_server.conninfo, folder)
    return postgres_server.conninfo


def upgraded(conninfo: str, *, apply: bool = True) -> Any:
    with psycopg.connect(conninfo) as connection:
        return upgrade_tables(connection, schema=NAME, tables=WITH_REGISTRY, apply=apply)


def on_postgres(conninfo: str, *, lossless: bool = False) -> None:
    """`lossless`: for tables that were dumped and restored, which is noticed from the second version on."""
    opened: list[Any] = [
        kind(conninfo, schema=NAME, lossless=lossless) for kind in (PostgresReplayStore, PostgresLedger, PostgresRegistry)
    ]
    opened.append(PostgresSnapshots(conninfo, schema=NAME))
    try:
        holds(*opened)
    finally:
        for one in opened:
            one.close()


def tables_of(conninfo: str, schema: str) -> Any:
    """Columns, indexes and functions, as PostgreSQL has them."""
    with psycopg.connect(conninfo) as connection:
        return [
            connection.execute(text, (schema,)).fetchall()
            for text in (
                "select table_name, column_name, data_type, is_nullable from information_schema.columns where table_schema = %s order by 1, 2",
                "select tablename, indexname from pg_indexes where schemaname = %s order by 2",
                "select p.oid::regprocedure::text from pg_proc p where pronamespace = to_regnamespace(%s) order by 1",
            )
        ]


def test_stores_on_postgres(where: str, version: str) -> None:
    for kind in (PostgresReplayStore, PostgresLedger, PostgresRegistry, PostgresSnapshots):
        refused_or(version, lambda kind=kind: kind(where, schema=NAME))
    with psycopg.connect(where) as connection:
        refused_or(version, lambda: create_tables(connection, schema=NAME, tables=WITH_REGISTRY))
    planned = upgraded(where, apply=False)
    assert upgraded(where) == planned and all(bool(one.does) == (version in KEPT) for one in planned)
    assert not any(one.does for one in upgraded(where))
    on_postgres(where, lossless=version not in KEPT)
    new = f"{NAME}_new"
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute(f"drop schema if exists {new} cascade".encode())
        create_tables(connection, schema=new, tables=WITH_REGISTRY)
    as_new = json.loads(json.dumps(tables_of(where, new)).replace(f"{new}.", f"{NAME}."))
    assert json.loads(json.dumps(tables_of(where, NAME))) == as_new


def test_an_awaited_store_is_refused_as_well(postgres_server: Postgres) -> None:
    load(postgres_server.conninfo, HERE / FIRST)

    async def opens() -> None:
        ledger = AsyncPostgresLedger(postgres_server.conninfo, schema=NAME)
        with pytest.raises(StoreError, match=OLDER):
            await ledger.open()
        await ledger.aclose()

    asyncio.run(opens())


def test_the_statements_by_hand_do_not_pass_over_an_earlier_version(postgres_server: Postgres) -> None:
    """`setup` gives them to whoever runs them by psql."""
    load(postgres_server.conninfo, HERE / FIRST)
    with psycopg.connect(postgres_server.conninfo, autocommit=True) as connection:
        with pytest.raises(psycopg.Error, match="an earlier version made these tables: run captoken upgrade"):
            connection.execute(setup(NAME, tables=WITH_REGISTRY).encode())
        upgraded(postgres_server.conninfo)
        connection.execute(setup(NAME, tables=WITH_REGISTRY).encode())
        for store in ("stores", "registry"):
            connection.execute(f"update {NAME}.captoken_schema set version = 9 where store = '{store}'".encode())
            with pytest.raises(psycopg.Error, match="another version made these tables: run captoken upgrade"):
                connection.execute(setup(NAME, tables=WITH_REGISTRY).encode())
            connection.execute(f"update {NAME}.captoken_schema set version = case store when 'stores' then 3 else 2 end".encode())


def test_what_an_old_process_calls_is_gone(postgres_server: Postgres) -> None:
    """So it denies, and counts nothing beside the new ones."""
    load(postgres_server.conninfo, HERE / FIRST)
    call = f"select {NAME}.look('ledger', 1::bigint, 1::bigint, null::bigint, false)".encode()
    with psycopg.connect(postgres_server.conninfo, autocommit=True) as connection:
        assert connection.execute(call).fetchone() is not None
        upgraded(postgres_server.conninfo)
        with pytest.raises(psycopg.errors.UndefinedFunction):
            connection.execute(call)


def test_a_login_has_the_rights_it_had_and_reads_the_version(postgres_server: Postgres) -> None:
    """Its rights were given on the tables that there were. It may not change the version; nobody else gets any right."""
    load(postgres_server.conninfo, HERE / FIRST)
    login, stranger = f"login_{os.getpid()}", f"stranger_{os.getpid()}"
    with psycopg.connect(postgres_server.conninfo, autocommit=True) as admin:
        for name in (login, stranger):
            admin.execute(f"create role {name} login".encode())
            admin.execute(f"grant usage on schema {NAME} to {name}".encode())
        admin.execute(f"grant select, insert, update, delete on all tables in schema {NAME} to {login}".encode())
    where = postgres_server.conninfo.replace("user=postgres", f"user={login}")
    with psycopg.connect(where) as connection, pytest.raises(StoreError, match=r"42501.*the owner of the tables may do this"):
        upgrade_tables(connection, schema=NAME, tables=WITH_REGISTRY, apply=True)
    upgraded(postgres_server.conninfo)
    on_postgres(where)
    with psycopg.connect(where, autocommit=True) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(f"update {NAME}.captoken_schema set version = 9".encode())
    with pytest.raises(StoreError, match="42501"):
        PostgresLedger(where.replace(login, stranger), schema=NAME)


def test_what_is_new_belongs_to_the_owner_of_the_rest(postgres_server: Postgres) -> None:
    """Whoever runs the upgrade: the owner can make the tables again."""
    owner = f"owner_{os.getpid()}"
    where = postgres_server.conninfo.replace("user=postgres", f"user={owner}")
    drop(postgres_server.conninfo)
    with psycopg.connect(postgres_server.conninfo, autocommit=True) as admin:
        admin.execute(f"create role {owner} login".encode())
        admin.execute(f"grant create on database postgres to {owner}".encode())
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute((HERE / FIRST / "postgres.sql").read_bytes())
    upgraded(postgres_server.conninfo)
    with psycopg.connect(where) as connection:
        create_tables(connection, schema=NAME, tables=WITH_REGISTRY)
    with psycopg.connect(postgres_server.conninfo) as admin:
        owners = admin.execute("select distinct tableowner from pg_tables where schemaname = %s", (NAME,)).fetchall()
        assert owners == [(owner,)]


def test_two_upgrades_of_a_database_at_once(postgres_server: Postgres) -> None:
    load(postgres_server.conninfo, HERE / FIRST)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: upgraded(postgres_server.conninfo), range(2)))
    assert sorted(any(one.does for one in found) for found in done) == [False, True]
    on_postgres(postgres_server.conninfo)


def test_an_upgrade_does_not_wait_for_ever(postgres_server: Postgres) -> None:
    load(postgres_server.conninfo, HERE / FIRST)
    with psycopg.connect(postgres_server.conninfo) as busy:
        busy.execute(f"lock table {NAME}.floors in access exclusive mode".encode())
        with pytest.raises(StoreError, match="55P03: another call holds what this one waits for"):
            upgraded(postgres_server.conninfo)
    upgraded(postgres_server.conninfo)
    on_postgres(postgres_server.conninfo)


def test_a_schema_without_tables_is_none_to_upgrade(postgres_server: Postgres) -> None:
    drop(postgres_server.conninfo)
    with pytest.raises(StoreError, match=f"schema {NAME}: there is no store of captoken here to upgrade"):
        upgraded(postgres_server.conninfo)


def test_a_killed_upgrade_of_a_database_leaves_the_old_or_the_new(postgres_server: Postgres) -> None:
    """At each statement."""
    where, at, seen = postgres_server.conninfo, 0, set()

    def dying() -> None:
        execute = psycopg.Cursor.execute

        def counted(*given: Any, **named: Any) -> Any:
            step()
            return execute(*given, **named)

        psycopg.Cursor.execute = counted  # type: ignore[method-assign]
        upgraded(where)

    load(where, HERE / FIRST)
    while True:
        at += 1
        was_killed = killed_at(at, dying)
        found = upgraded(where, apply=False)  # waits for its turn, until that process is gone
        assert len({bool(one.does) for one in found}) == 1, "one is old, and one is new"
        seen.add(bool(found[0].does))
        if not found[0].does:
            on_postgres(where)
            load(where, HERE / FIRST)
        if not was_killed:
            break
    assert at > 10 and seen == {True, False}


# --- Valkey ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(server: Valkey, folder: Path) -> Iterator[valkey.Valkey]:
    with closing(server.client()) as client:
        client.flushall()
        for command in json.loads((folder / "valkey.json").read_text()):
            client.execute_command(*map(b64decode, command))
        yield client


def test_stores_on_valkey(client: valkey.Valkey, version: str) -> None:
    kinds: list[Callable[[], Any]] = [
        lambda: ValkeyReplayStore(client, prefix=NAME, lossless=True),
        lambda: ValkeyLedger(client, prefix=NAME, lossless=True),
        lambda: ValkeySnapshots(client, prefix=NAME),
    ]
    before = {key: client.dump(key) for key in client.keys("*")}
    for opens in kinds:
        refused_or(version, opens)
    planned = valkey_stores.upgrade_keys(client, prefix=NAME)
    assert {key: client.dump(key) for key in client.keys("*")} == before, "neither a refusal nor a dry run writes"
    assert valkey_stores.upgrade_keys(client, prefix=NAME, apply=True) == planned
    assert all(bool(one.does) == (version in KEPT) for one in planned) and len(planned) == 3
    assert not any(one.does for one in valkey_stores.upgrade_keys(client, prefix=NAME, apply=True))
    replays, ledger, snapshots = (opens() for opens in kinds)
    holds(replays, ledger, snapshots=snapshots)
    for one in (replays, ledger, snapshots):
        one.close()
    with pytest.raises(StoreError, match="prefix other: there is no store of captoken here to upgrade"):
        valkey_stores.upgrade_keys(client, prefix="other")


# --- the second version of a ledger, which keeps no marks -------------------------------------------------------------

SECOND = "has schema version 2, from an earlier captoken, and this one needs 3"
OF_POSTGRES = "has schema version 2, from an earlier captoken, and this one needs 4"
MARKED = MarkedStep((Mark(bytes(32), None, is_of_holder=True),), (), NOW, tree="t")


def marks(ledger: Any) -> None:
    """What was counted before is counted, and from now on marks are kept."""
    assert ledger.reserve(reservation(3, 1), NOW) is None and ledger.spent(BUCKET, "uses") == SPENT + 1
    assert ledger.step(MARKED, NOW) is None
    closed = structs.replace(MARKED, marks=(Mark(b"o" * 32, None, is_of_holder=False),), rules=(Rule(MARKED.marks),))
    assert isinstance(ledger.step(closed, NOW), Forbidden)
    ledger.close()


def made_second(path: Path) -> None:
    """As the second version made it."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("drop table marks")
        connection.execute("update captoken_schema set version = 2 where store = 'ledger'")


def test_a_second_version_on_sqlite(tmp_path: Path) -> None:
    path, new = tmp_path / "old.db", tmp_path / "new.db"
    for where in (path, new):
        with closing(SQLiteLedger.create(where, floor=0)) as ledger:
            assert ledger.reserve(reservation(1, SPENT), NOW) is None
    made_second(path)
    with pytest.raises(StoreError, match=SECOND):
        SQLiteLedger(path)
    assert [one.does for one in sqlite_stores.upgrade_file(path, apply=True)] == [("keeps marks",)]
    assert schema_of(path) == schema_of(new)
    marks(SQLiteLedger(path))


def test_an_office_with_a_ledger_of_the_second_version(first: Path) -> None:
    """The office itself is of this version."""
    place = first / "office"
    Office.upgrade(place, apply=True)
    made_second(place / "office.db")
    with pytest.raises(StoreError, match=SECOND):
        Office.open(place, clock=clock)
    assert [one.does for one in Office.upgrade(place, apply=True) if one.does] == [("keeps marks",)]
    works(place)


def test_a_second_version_on_postgres(postgres_server: Postgres) -> None:
    """A login that had rights on buckets has them on marks; nobody else has."""
    where, login = postgres_server.conninfo, f"second_{os.getpid()}"
    drop(where)
    with psycopg.connect(where, autocommit=True) as admin:
        create_tables(admin, schema=NAME)
        with closing(PostgresLedger.create(where, schema=NAME, floor=0)) as ledger:
            assert ledger.reserve(reservation(1, SPENT), NOW) is None
        functions = admin.execute(
            "select p.oid::regprocedure::text from pg_proc p where pronamespace = to_regnamespace(%s) and proname = any(%s)",
            (NAME, ["step", "peek_step", "set_marks", "turns_of", "spend", "peek_spend", "is_after_begun"]),
        ).fetchall()
        for (function,) in functions:
            admin.execute(f"drop function {function}".encode())
        admin.execute(f"drop table {NAME}.marks, {NAME}.consents".encode())
        admin.execute(f"alter table {NAME}.floors drop column begun".encode())
        admin.execute(f"update {NAME}.captoken_schema set version = 2 where store = 'stores'".encode())
        admin.execute(f"create role {login} login".encode())
        admin.execute(f"grant usage on schema {NAME} to {login}".encode())
        admin.execute(f"grant select, insert, update, delete on all tables in schema {NAME} to {login}".encode())
        with pytest.raises(StoreError, match=OF_POSTGRES):
            PostgresLedger(where, schema=NAME)
        with pytest.raises(StoreError, match=OF_POSTGRES):
            create_tables(admin, schema=NAME)
        assert len(functions) == 7
    with psycopg.connect(where) as connection:
        assert [one.does for one in upgrade_tables(connection, schema=NAME, apply=True)] == [("keeps marks", "keeps consents")]
    with psycopg.connect(where, autocommit=True) as admin:
        admin.execute(f"drop schema if exists {NAME}_new cascade".encode())
        create_tables(admin, schema=f"{NAME}_new")
        granted = admin.execute(
            "select distinct grantee from information_schema.role_table_grants where table_schema = %s and table_name = 'marks'", (NAME,)
        ).fetchall()
    as_new = json.loads(json.dumps(tables_of(where, f"{NAME}_new")).replace(f"{NAME}_new.", f"{NAME}."))
    assert json.loads(json.dumps(tables_of(where, NAME))) == as_new
    assert {name for (name,) in granted} == {"postgres", login}
    marks(PostgresLedger(where.replace("user=postgres", f"user={login}"), schema=NAME))


def test_a_second_version_on_valkey(server: Valkey) -> None:
    with closing(server.client()) as client:
        client.flushall()
        with closing(ValkeyLedger.create(client, prefix=NAME, floor=0)) as ledger:
            assert ledger.reserve(reservation(1, SPENT), NOW) is None
        client.hset(f"{{{NAME}}}:schema", "ledger", "2")
        with pytest.raises(StoreError, match=SECOND):
            ValkeyLedger(client, prefix=NAME)
        assert [one.does for one in valkey_stores.upgrade_keys(client, prefix=NAME, apply=True)] == [("keeps marks",)]
        marks(ValkeyLedger(client, prefix=NAME))


# --- the second version of a store of proofs, which keeps no consents --------------------------------------------------


def test_a_second_version_of_proofs_on_sqlite(tmp_path: Path) -> None:
    """What was used stays used, and no consent of before the store is taken."""
    path, new = tmp_path / "old.db", tmp_path / "new.db"
    for where in (path, new):
        with closing(SQLiteReplayStore.create(where, floor=NOW - 10)) as store:
            assert store.add(Use(bytes(16), NOW), NOW)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("drop table consents")
        connection.execute("drop table consent_state")
        connection.execute("update captoken_schema set version = 2 where store = 'replay'")
    with pytest.raises(StoreError, match=SECOND):
        SQLiteReplayStore(path)
    assert [one.does for one in sqlite_stores.upgrade_file(path, apply=True)] == [("keeps consents",)]
    assert schema_of(path) == schema_of(new)
    with closing(SQLiteReplayStore(path)) as store:
        assert not store.add(Use(bytes(16), NOW), NOW)
        spends = [Spend(bytes([at]) * 16, NOW - 10 + at, NOW + 60) for at in (0, 1)]
        assert [store.spend(one, NOW) for one in spends] == [False, True]


# --- the page ---


def test_the_page_says_what_each_version_brought() -> None:
    """And shows what the command says today."""
    page = (ROOT / "docs/upgrade.md").read_text("utf-8")
    newest: dict[str, int] = {}
    stores = (SQLiteLedger, SQLiteReplayStore, ValkeyLedger, ValkeyReplayStore, ValkeySnapshots)
    for one in (sqlite_stores._OVERLAY, *(store._version for store in stores), STORES, registry_tables(str), OFFICE):
        newest[one.store] = max(one.version, newest.get(one.store, 0))
    rows = re.findall(r"^\| `(\w+)`[^|]* \|(.*)\|(.*)\|(.*)\|$", page, re.MULTILINE)
    assert {name: 1 + sum(bool(cell.strip()) for cell in cells) for name, *cells in rows} == newest
    (shown,) = re.findall(r"\$ captoken upgrade state/\n(.*?)```", page, re.DOTALL)
    said = (ROOT / "tests/cli/upgrade.txt").read_text("utf-8")
    assert shown.replace("'state/'", "'state'").replace("captoken: nothing", "2> captoken: nothing") in said


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_upgrades_servers(postgres_server: Postgres, server: Valkey, capsys: pytest.CaptureFixture[str]) -> None:
    """Several at once: all are looked at before any is changed."""
    from captoken.cli.app import run

    load(postgres_server.conninfo, HERE / FIRST)
    with closing(server.client()) as client:
        client.flushall()
        for command in json.loads((HERE / FIRST / "valkey.json").read_text()):
            client.execute_command(*map(b64decode, command))
    both = ["--dsn", postgres_server.conninfo, "--schema", NAME, "--valkey", f"valkey://127.0.0.1:{server.port}", "--prefix", NAME]
    assert run(["upgrade", *both[:4], *both[4:6], "--prefix", "other", "--apply"]) == 2
    assert "there is no store of captoken here to upgrade" in capsys.readouterr().err
    for more, said in (([], "nothing was changed"), (["--apply"], "upgraded"), ([], "nothing to upgrade")):
        assert run(["upgrade", *both, *more]) == 0
        heard = capsys.readouterr()
        assert said in heard.err and len(heard.out.splitlines()) == 5
        assert ("version 1 to 2" in heard.out) is ("version 1 to 3" in heard.out) is (said != "nothing to upgrade")
    on_postgres(postgres_server.conninfo)
