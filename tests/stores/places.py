"""Places where stores lie, by data alone, so that a process that is started fresh can open what another one made."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from inspect import iscoroutinefunction
from threading import Thread
from typing import Any, NamedTuple

import psycopg
import valkey
import valkey.asyncio

from captoken.errors import StoreError
from captoken.issuance.registry import MemoryRegistry
from captoken.issuance.registry import postgres as postgres_registry
from captoken.issuance.registry.sqlite import SQLiteRegistry
from captoken.stores import sqlite as sqlite_store
from captoken.stores.memory import MemoryLedger, MemoryReplayStore, MemorySnapshots
from captoken.stores.postgres import (
    AsyncPostgresLedger,
    AsyncPostgresReplayStore,
    PostgresLedger,
    PostgresReplayStore,
    PostgresSnapshots,
    create_tables,
)
from captoken.stores.valkey import (
    AsyncValkeyLedger,
    AsyncValkeyReplayStore,
    ValkeyLedger,
    ValkeyReplayStore,
    ValkeySnapshots,
)

KINDS = ("memory", "sqlite", "valkey", "postgres")
LONG = 120  # seconds that a call has where a test makes it wait
AWAITED = ("valkey-awaited", "postgres-awaited")  # the same places, and stores whose calls are awaited


class Place(NamedTuple):
    """A kind of store, where it lies, and by what name: a file; a port and a prefix; a conninfo and a schema.

    Are its counting stores awaited? Then they come with `OnLoop` before them, so that the suite can call them.
    """

    kind: str
    where: str = ""
    name: str = ""
    awaited: bool = False

    @property
    def overlay(self) -> str:
        """The file of the snapshots, which on SQLite have one of their own."""
        return f"{self.where}-overlay"

    def replays(self, **facts: Any) -> Any:
        return self.opened_or_made("replays", **facts)

    def ledger(self, **facts: Any) -> Any:
        return self.opened_or_made("ledger", **facts)

    def snapshots(self, **facts: Any) -> Any:
        return self.opened_or_made("snapshots", **facts)

    def opened(self, what: str, **facts: Any) -> Any:
        """One that is there: opening makes none."""
        return self._got(what, "", facts)

    def opened_as_it_is(self, what: str) -> Any:
        """The same, in tables that nobody mends before."""
        if self.kind != "postgres":
            return self.opened(what)
        store = STORES[what][KINDS.index(self.kind)](self.where, schema=self.name, timeout=LONG)
        _open.append(store)
        return store

    def created(self, what: str, **facts: Any) -> Any:
        """One that is not there yet."""
        return self._got(what, "create", facts)

    def opened_or_made(self, what: str, **facts: Any) -> Any:
        """Made, if it is not there: with a floor by its clock where a test gives None."""
        if self.kind == "memory":
            return self._got(what, "", facts)
        opening = {name: fact for name, fact in facts.items() if name != "floor"}
        for how, given, told in (("", opening, "no store here"), ("create", facts, "already exists")):
            try:
                return self._got(what, how, given)
            except StoreError as error:
                if told not in str(error):
                    raise
        return self._got(what, "", opening)

    def _got(self, what: str, how: str, facts: dict[str, Any]) -> Any:
        if self.awaited and what != "snapshots":
            return self._got_awaited(what, how, facts)
        got: Any = STORES[what][KINDS.index(self.kind)]
        if not how and (self.kind == "sqlite" or what == "registry"):  # has no clock of its own
            facts = {name: fact for name, fact in facts.items() if name != "clock"}
        got = getattr(got, how) if how else got
        if self.kind == "memory":
            return got(**facts)
        if self.kind == "sqlite":
            where = self.overlay if what == "snapshots" else self.where
            store = got(where, **{"timeout": 30, **facts})
        elif self.kind == "valkey":
            client = valkey.Valkey(port=int(self.where))
            _open.append(client)
            return got(client, prefix=self.name, **facts)
        else:
            self._make_tables()
            store = got(self.where, schema=self.name, **{"timeout": LONG, **facts})
        _open.append(store)
        return store

    def _got_awaited(self, what: str, how: str, facts: dict[str, Any]) -> Any:
        got = AWAITED_STORES[what][("valkey", "postgres").index(self.kind)]
        source: Any = self.where
        if self.kind == "valkey":
            source = valkey.asyncio.Valkey(port=int(self.where))
            _open.append(OnLoop(source))
            facts = {"prefix": self.name, **facts}
        else:
            self._make_tables()
            facts = {"schema": self.name, "timeout": LONG, **facts}
        store = OnLoop(on_loop(got.create(source, **facts)) if how else got(source, **facts))
        if self.kind == "postgres":
            _open.append(store)
        store.open()
        return store

    def _make_tables(self) -> None:
        with psycopg.connect(self.where) as connection:
            create_tables(connection, schema=self.name, tables=postgres_registry.WITH_REGISTRY)


STORES: dict[str, tuple[Any, ...]] = {
    "replays": (MemoryReplayStore, sqlite_store.SQLiteReplayStore, ValkeyReplayStore, PostgresReplayStore),
    "ledger": (MemoryLedger, sqlite_store.SQLiteLedger, ValkeyLedger, PostgresLedger),
    "snapshots": (MemorySnapshots, sqlite_store.SQLiteSnapshots, ValkeySnapshots, PostgresSnapshots),
    "registry": (MemoryRegistry, SQLiteRegistry, None, postgres_registry.PostgresRegistry),  # none on Valkey
}
AWAITED_STORES: dict[str, tuple[Any, ...]] = {
    "replays": (AsyncValkeyReplayStore, AsyncPostgresReplayStore),
    "ledger": (AsyncValkeyLedger, AsyncPostgresLedger),
}


class OnLoop:
    """What is awaited, for tests that call: each call is a task of one event loop, and the thread that calls waits for it."""

    awaited = False

    def __init__(self, awaited: Any) -> None:
        self.of = awaited

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.of, name)
        return (lambda *given, **named: on_loop(found(*given, **named))) if iscoroutinefunction(found) else found

    def close(self) -> None:
        on_loop(self.of.aclose())


def on_loop(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine comes to, in the event loop of this process that runs beside the tests."""
    if not _loops:
        _loops.append(asyncio.new_event_loop())
        Thread(target=_loops[0].run_forever, daemon=True).start()
    return asyncio.run_coroutine_threadsafe(coroutine, _loops[0]).result(120)


_loops: list[asyncio.AbstractEventLoop] = []
_open: list[Any] = []  # stores, and the clients that they were given


def close_all() -> None:
    """What was opened in this process."""
    while _open:
        _open.pop().close()
