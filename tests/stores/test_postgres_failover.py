"""A PostgreSQL that loses what it answered, and each store on it: a denial, or a loss that docs/stores.md names. What loses: a standby
takes over, a dump is restored, another database or an older folder is put in its place, a table that is unlogged is emptied by a crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from time import time
from typing import Any

import psycopg
import pytest

from captoken.errors import StoreError
from captoken.issuance.registry.postgres import WITH_REGISTRY, PostgresRegistry
from captoken.stores.ports import Use
from captoken.stores.postgres import PostgresLedger, PostgresReplayStore, PostgresSnapshots, create_tables
from tests.issuance.registries import entry, seen
from tests.stores.servers import Postgres
from tests.stores.test_ledger import ROOT, debit, reservation

SCHEMA = "captoken"


@pytest.fixture(scope="module")
def own() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.stop()


class Stores:
    """One of each, opened before anything is lost; and what each is asked, with the real time."""

    def __init__(self, where: str) -> None:
        self.where, self.now, self.asked = where, int(time()), 0
        for kind in (PostgresReplayStore, PostgresLedger, PostgresRegistry):
            kind.create(where, floor=0).close()
        PostgresSnapshots.create(where).close()
        self.replays, self.ledger = PostgresReplayStore(where), PostgresLedger(where, shared=True)
        self.registry, self.snapshots = PostgresRegistry(where), PostgresSnapshots(where)

    def proof(self) -> bool:
        return self.replays.add(Use(b"p" * 16, self.now), self.now)

    def spend(self, at: int | None = None) -> bool:
        """Of a budget that is enough for one."""
        self.asked += 1
        issued = self.now if at is None else at
        try:
            return self.ledger.reserve(reservation(self.asked, debit(ROOT, 1, 1), at=issued, keep=issued + 600), self.now) is None
        except StoreError as error:
            if "before this ledger began" not in str(error):
                raise
            return False

    def start(self, number: int = 1) -> bool:
        """By an assertion that is good for one."""
        self.asked += 1
        used = seen(number, None, issued_at=self.now - 10, until=self.now + 600)
        with suppress(Exception):
            return bool(self.registry.enter(entry(f"t-{self.asked}", used, now=self.now, issued_at=self.now - 10, subject=f"s-{self.asked}")))
        return False

    def close(self) -> None:
        for store in (self.replays, self.ledger, self.registry, self.snapshots):
            store.close()


@pytest.fixture
def stores(own: Postgres) -> Iterator[Stores]:
    with psycopg.connect(own.conninfo, autocommit=True) as admin:
        admin.execute(f"drop schema if exists {SCHEMA} cascade")
        create_tables(admin, tables=WITH_REGISTRY)
    made = Stores(own.conninfo)
    made.snapshots.publish(b"old", None)
    yield made
    made.close()


def folder_put_back(own: Postgres, lose: Callable[[], None], *signals: str) -> None:
    """The folder as it was before, with these files in it, in the place of what it has become."""
    own.rest()
    copy = own.copied()
    own.start()
    lose()
    own.rest()
    for signal in signals:
        Path(copy, signal).touch()
    own.put_back(copy)
    own.start()


def dump_restored(own: Postgres, lose: Callable[[], None]) -> None:
    """As pg_dump and psql do it: rows out, everything dropped, made anew, rows in."""
    with psycopg.connect(own.conninfo, autocommit=True) as admin:
        tables = [name for (name,) in admin.execute(f"select tablename from pg_tables where schemaname = '{SCHEMA}'")]
        rows: dict[str, bytes] = {}
        for name in tables:
            with admin.cursor().copy(f"copy {SCHEMA}.{name} to stdout (format binary)".encode()) as out:
                rows[name] = b"".join(bytes(part) for part in out)
        lose()
        with admin.transaction():
            admin.execute(f"drop schema {SCHEMA} cascade")
            create_tables(admin, tables=WITH_REGISTRY)
            del rows["captoken_schema"]  # which is made with its rows
            for name, data in rows.items():
                with admin.cursor().copy(f"copy {SCHEMA}.{name} from stdin (format binary)".encode()) as into:
                    into.write(data)


def standby_promoted(own: Postgres, lose: Callable[[], None]) -> None:
    """A copy that runs behind, and lacks the last transactions."""
    folder_put_back(own, lose, "standby.signal")
    with psycopg.connect(own.conninfo, autocommit=True) as admin:
        admin.execute("select pg_promote()")


def database_replaced(own: Postgres, lose: Callable[[], None]) -> None:
    """By a copy that was made by `create database … template`, while the server runs."""
    other = own.conninfo.replace("dbname=postgres", "dbname=template1")

    def run(*statements: str) -> None:
        with psycopg.connect(other, autocommit=True) as admin:
            for statement in statements:
                admin.execute(statement.encode())

    gone = "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'postgres'"
    run(gone, "create database copy template postgres")
    lose()
    run(gone, "drop database postgres", "alter database copy rename to postgres")


LOSSES = {one.__name__: one for one in (folder_put_back, dump_restored, standby_promoted, database_replaced)}


@pytest.mark.parametrize("lost", LOSSES.values(), ids=list(LOSSES))
def test_what_was_answered_and_lost_is_denied(lost: Any, own: Postgres, stores: Stores) -> None:
    """Proofs, budgets and assertions that were used in what is lost. Tasks from before are over. A newer snapshot is lost, as the
    page names it: the older one comes back."""

    def use() -> None:
        assert stores.proof() and stores.spend() and stores.start() and stores.start(2)
        assert stores.snapshots.publish(b"new", b"old")

    assert stores.start(7)
    task = f"t-{stores.asked}"
    assert stores.registry.is_live(task, stores.now)
    lost(own, use)
    assert not stores.proof() and not stores.spend() and not stores.start()
    assert not stores.registry.is_live(task, stores.now)
    assert stores.snapshots.load() == b"old"
    later = int(time()) + 1000
    assert stores.replays.add(Use(b"q" * 16, later), later) and stores.spend(later), "what is issued later is taken"
    assert not stores.start(2), "also once it has looked"


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_restart_loses_nothing(how: str, own: Postgres, stores: Stores) -> None:
    """Again and again: whoever has seen an earlier start, or none, goes on."""
    assert stores.start(9)
    task = f"t-{stores.asked}"
    late = PostgresLedger(stores.where, shared=True)
    for number in range(3):
        own.kill() if how == "killed" else own.rest()
        own.start()
        one = reservation(500 + number, debit(b"%d" % number * 16, 1, 1), at=stores.now, keep=stores.now + 600)
        assert stores.ledger.reserve(one, stores.now) is None and stores.registry.is_live(task, stores.now)
        assert stores.replays.add(Use(b"%d" % number * 16, stores.now), stores.now)
        with closing(PostgresLedger(stores.where, shared=True)) as fresh:
            assert fresh.peek(reservation(600, debit(b"n" * 16, 1, 1), at=stores.now, keep=stores.now + 600), stores.now) is None
    with closing(late):
        assert late.peek(reservation(601, debit(b"n" * 16, 1, 1), at=stores.now, keep=stores.now + 600), stores.now) is None


def test_once_a_folder_was_put_back_the_floor_rises_once(own: Postgres, stores: Stores) -> None:
    """Another process that saw the start that is lost does not raise it again, whenever it comes."""
    others = [PostgresLedger(stores.where, shared=True) for _ in range(2)]

    def use() -> None:
        assert stores.spend()
        for other in others:
            other.peek(reservation(900, debit(b"x" * 16, 1, 1), at=stores.now, keep=stores.now + 600), stores.now)

    folder_put_back(own, use)
    assert not stores.spend()
    with psycopg.connect(own.conninfo) as admin:
        admin.execute(f"update {SCHEMA}.floors set floor = floor - 1000 where kind = 'ledger'")
    for other in others:
        with closing(other):
            assert other.peek(reservation(901, debit(b"x" * 16, 1, 1), at=stores.now, keep=stores.now + 600), stores.now) is None


def test_an_older_folder_is_not_noticed_where_nobody_knows_better(own: Postgres, stores: Stores) -> None:
    """Named on the page: all stores were opened after it was put back."""

    def use() -> None:
        assert stores.spend()

    folder_put_back(own, use)
    with closing(PostgresLedger(stores.where, shared=True)) as fresh:
        one = reservation(950, debit(ROOT, 1, 1), at=stores.now, keep=stores.now + 600)
        assert fresh.peek(one, stores.now) is None
        assert not stores.spend(), "until one comes that does"
        with pytest.raises(StoreError, match="before this ledger began"):
            fresh.peek(one, stores.now)


@pytest.mark.parametrize("table", ["buckets", "proofs", "registry_used", "floors", "overlay"])
def test_a_table_that_is_unlogged_and_emptied_is_missed(table: str, own: Postgres, stores: Stores) -> None:
    assert stores.proof() and stores.spend() and stores.start()
    with psycopg.connect(own.conninfo, autocommit=True) as admin:
        admin.execute(f"alter table {SCHEMA}.{table} set unlogged")
    own.kill()
    own.start()
    assert not stores.start(), "the assertion is not taken again, whatever is said"
    asks: tuple[Callable[[], Any], ...] = (stores.proof, stores.spend, lambda: stores.registry.is_live("t", stores.now))
    for ask in asks:
        with pytest.raises(StoreError, match=r"unlogged|no store here"):
            ask()
    with psycopg.connect(own.conninfo, autocommit=True) as admin:
        admin.execute(f"alter table {SCHEMA}.{table} set logged")
    for ask in asks:
        with pytest.raises(StoreError, match="no store here"):
            ask()
    if table == "overlay":
        with pytest.raises(StoreError, match="no store here"):
            stores.snapshots.load()
        with closing(PostgresSnapshots.create(stores.where)) as again:
            assert again.load() is None and again.publish(b"new", None)
