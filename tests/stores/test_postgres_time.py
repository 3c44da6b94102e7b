"""The stores and the registry on PostgreSQL: a server that stops, connections that are all in use, names that a pooler loses, and what
is said of each. Whatever it is denies, and what was sent counts."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from captoken.errors import StoreError
from captoken.issuance.registry.postgres import PostgresRegistry
from captoken.stores.postgres import (
    AsyncPostgresLedger,
    AsyncPostgresReplayStore,
    PostgresLedger,
    PostgresReplayStore,
    PostgresSnapshots,
    create_tables,
)
from captoken.stores.sqlite import SQLiteLedger
from tests.fixtures import NOW
from tests.issuance.registries import entry, seen
from tests.stores.servers import Postgres, free_port
from tests.stores.test_ledger import ROOT, debit, reservation
from tests.stores.test_replay_store import use

SOON = 1.0  # seconds that a call has, in which a server that is stopped cannot answer
ONE = reservation(1, debit(ROOT, 1, 1))


@contextmanager
def stopped(postgres_server: Postgres, name: str) -> Iterator[None]:
    """The backends of that name do nothing meanwhile, as on a machine that hangs; then they go on."""
    with psycopg.connect(postgres_server.conninfo) as connection:
        pids = [pid for (pid,) in connection.execute("select pid from pg_stat_activity where application_name = %s", (name,))]
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


CALLS: dict[str, tuple[Any, Callable[[Any, int], Any], Callable[[Any], Any]]] = {
    # A kind of store, what is asked of it with a number, and what shows that the third one counts.
    "replays": (PostgresReplayStore, lambda it, n: it.add(use(n), NOW), lambda it: not it.peek(use(3), NOW)),
    "ledger": (PostgresLedger, lambda it, n: it.reserve(reservation(n, debit(ROOT, n, 9)), NOW), lambda it: it.spent(ROOT, "usd_cents") == 6),
    "snapshots": (PostgresSnapshots, lambda it, n: it.publish(b"%d" % n, b"%d" % (n - 1) if n > 1 else None), lambda it: it.load() == b"3"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_server_that_does_not_answer_is_an_error_and_what_was_sent_counts(
    name: str, where: str, schema: str, postgres_server: Postgres
) -> None:
    kind, ask, counts = CALLS[name]
    with closing(kind(where, schema=schema, timeout=SOON)) as store, closing(kind(postgres_server.conninfo, schema=schema)) as other:
        # By the second time a statement is prepared, which is a question of its own.
        ask(store, 1)
        ask(store, 2)
        with stopped(postgres_server, schema), pytest.raises(StoreError, match="no answer within 1 seconds: the request may still"):
            ask(store, 3)
        end = monotonic() + 60
        while not counts(other):
            assert monotonic() < end, "what was sent is done when the server goes on"


@pytest.mark.parametrize("kind", [AsyncPostgresReplayStore, AsyncPostgresLedger])
def test_a_store_that_is_awaited_waits_no_longer(kind: Any, where: str, schema: str, postgres_server: Postgres) -> None:
    """Neither for an answer nor for a connection: those who come later wait for the one that is in use."""

    async def run() -> None:
        store = await kind(where, schema=schema, timeout=SOON, connections=1).open()
        ask = (lambda: store.add(use(1), NOW)) if kind is AsyncPostgresReplayStore else (lambda: store.reserve(ONE, NOW))
        with stopped(postgres_server, schema):
            both = await asyncio.gather(ask(), ask(), return_exceptions=True)
            assert all(isinstance(one, StoreError) for one in both) and "no answer within" in str(both[0])
            assert "no connection within 1 seconds" in str(both[1])
        await store.aclose()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_whoever_waits_for_its_turn_waits_no_longer(where: str, schema: str, postgres_server: Postgres) -> None:
    """Eight threads and one server that hangs: eight errors, and none waits for the others' time, too."""
    with closing(PostgresLedger(where, schema=schema, timeout=SOON)) as ledger, ThreadPoolExecutor(8) as pool:
        with stopped(postgres_server, schema):
            asked = [pool.submit(ledger.peek, ONE, NOW) for _ in range(8)]
            said = [str(one.exception(60)) for one in asked]
        assert any("no answer within" in one for one in said) and any("other calls used the connection" in one for one in said)


def test_a_registry_waits_no_longer(where: str, schema: str, postgres_server: Postgres) -> None:
    with closing(PostgresRegistry(where, schema=schema, timeout=SOON)) as registry:
        asks: tuple[Callable[[], Any], ...] = (lambda: registry.enter(entry("t-1", seen(1))), lambda: registry.is_live("t-1", NOW))
        for ask in asks:
            registry.unpublished()
            with stopped(postgres_server, schema), pytest.raises(StoreError, match="no answer within"):
                ask()
        assert registry.enter(entry("t-2", seen(2))).id == "t-2"


def test_a_server_that_greets_nobody_is_an_error() -> None:
    """Its machine takes the connection, and nobody says anything."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source = f"host=127.0.0.1 port={silent.getsockname()[1]} user=a dbname=b"
        with pytest.raises(StoreError, match="PostgreSQL: ConnectionTimeout"):
            PostgresLedger(source, timeout=SOON)

        async def run() -> None:
            with pytest.raises(StoreError, match="no connection within"):
                await AsyncPostgresLedger(source, timeout=SOON).open()

        asyncio.run(asyncio.wait_for(run(), 60))


@pytest.mark.parametrize("timeout", [0, -1, "5", None, True, float("nan"), float("inf"), 86_401])
def test_a_timeout_is_seconds(timeout: Any, where: str, schema: str) -> None:
    for kind in (PostgresReplayStore, PostgresLedger, PostgresSnapshots, PostgresRegistry, AsyncPostgresLedger, AsyncPostgresReplayStore):
        with pytest.raises(ValueError, match="timeout must be seconds"):
            kind(where, schema=schema, timeout=timeout)


# --- poolers ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["0", "100"], ids=["knows no names", "knows names"])
def pooled(request: pytest.FixtureRequest, postgres_server: Postgres) -> Iterator[str]:
    """A PgBouncer before the server, which gives each transaction another connection; with and without prepared statements."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "apt install pgbouncer"
    port = free_port()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o777)
        Path(folder, "users").write_text('"postgres" ""\n')
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "server_round_robin": 1,
            "default_pool_size": 4,
            "min_pool_size": 4,
            "max_prepared_statements": request.param,
        }
        lines = [
            "[databases]",
            f"postgres = host=127.0.0.1 port={postgres_server.port} user=postgres",
            "[pgbouncer]",
            *(f"{key} = {value}" for key, value in settings.items()),
        ]
        Path(folder, "ini").write_text("\n".join(lines) + "\n")
        lent: dict[str, Any] = {"user": "nobody"} if os.geteuid() == 0 else {}
        running = subprocess.Popen([program, "-q", f"{folder}/ini"], **lent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        where, end = f"host=127.0.0.1 port={port} user=postgres dbname=postgres", monotonic() + 60
        try:
            while True:
                try:
                    psycopg.connect(where, connect_timeout=2).close()
                    break
                except psycopg.OperationalError:
                    assert monotonic() < end and running.poll() is None, "PgBouncer did not start"
                    sleep(0.05)
            yield where
        finally:
            running.terminate()
            running.wait(60)


@pytest.mark.pgbouncer
def test_behind_pgbouncer_each_call_is_what_was_asked(pooled: str, schema: str) -> None:
    """Many threads, called and awaited, and a registry: what is there is spent once, and no call is an error."""

    def work(who: int) -> list[bool]:
        with closing(PostgresLedger(pooled, schema=schema, shared=True)) as ledger, closing(PostgresReplayStore(pooled, schema=schema)) as replays:
            taken = []
            for number in range(20):
                one = reservation(who * 1000 + number, debit(ROOT, 1, 100))
                ledger.peek(one, NOW)
                taken.append(ledger.reserve(one, NOW) is None)
                assert replays.peek(use(who * 1000 + number), NOW) and replays.add(use(who * 1000 + number), NOW)
                assert not replays.add(use(who * 1000 + number), NOW)
            return taken

    with ThreadPoolExecutor(8) as pool:
        taken = [one for many in pool.map(work, range(8)) for one in many]
    assert sum(taken) == 100

    async def awaited() -> None:
        ledger = AsyncPostgresLedger(pooled, schema=schema, shared=True)
        got = await asyncio.gather(*(ledger.reserve(reservation(10_000 + one, debit(b"a" * 16, 1, 30)), NOW) for one in range(60)))
        assert sum(one is None for one in got) == 30
        await ledger.aclose()

    asyncio.run(awaited())
    with closing(PostgresRegistry(pooled, schema=schema)) as registry:
        for number in range(20):
            assert registry.enter(entry(f"t-{number}", seen(number), subject=f"s-{number}", session=None)).id == f"t-{number}"
            assert registry.is_live(f"t-{number}", NOW)
    with closing(PostgresSnapshots(pooled, schema=schema)) as snapshots:
        assert snapshots.publish(b"one", None) and snapshots.load() == b"one"


# --- what is said ----------------------------------------------------------------------------------------------------------------


def test_a_pool_that_has_no_connection_left(where: str, schema: str) -> None:
    """It was said that the server cannot be reached."""
    said = "PoolTimeout: the pool has no connection left"
    facts: dict[str, Any] = {"min_size": 1, "max_size": 1, "timeout": 0.2, "kwargs": {"autocommit": True}}
    with ConnectionPool(where, open=True, **facts) as pool, pool.connection(), pytest.raises(StoreError, match=said):
        PostgresLedger(pool.getconn, schema=schema)

    async def run() -> None:
        async with AsyncConnectionPool(where, open=False, **facts) as pool, pool.connection():
            with pytest.raises(StoreError, match=said):
                await AsyncPostgresLedger(pool, schema=schema).open()

    asyncio.run(run())


def test_a_column_that_is_missing(where: str, schema: str, postgres_server: Postgres) -> None:
    """As in tables of an older release. Nothing was said of it."""
    with closing(PostgresLedger(where, schema=schema)) as ledger:
        with psycopg.connect(postgres_server.conninfo) as admin:
            admin.execute(f"alter table {schema}.floors drop column keys".encode())
        with pytest.raises(StoreError, match="42703: its tables are of another release: run create_tables"):
            ledger.reserve(ONE, NOW)
        with psycopg.connect(postgres_server.conninfo) as admin:
            create_tables(admin, schema=schema)
        assert ledger.reserve(ONE, NOW) is None


def test_a_file_that_others_write_in_is_waited_for_no_longer(tmp_path: Path) -> None:
    """SQLite has had its time all along."""
    with closing(SQLiteLedger.create(tmp_path / "a.db", floor=0, timeout=SOON)) as ledger:
        with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
            other.execute("begin immediate")
            with pytest.raises(StoreError):
                ledger.reserve(ONE, NOW)
        assert ledger.reserve(ONE, NOW) is None
