"""Places where stores lie, by data alone, so that a process that is started fresh can open what another one made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg
import valkey

from captoken.stores import sqlite as sqlite_store
from captoken.stores.memory import MemoryLedger, MemoryReplayStore, MemorySnapshots
from captoken.stores.postgres import (
    PostgresLedger,
    PostgresReplayStore,
    PostgresSnapshots,
    create_tables,
)
from captoken.stores.valkey import ValkeyLedger, ValkeyReplayStore, ValkeySnapshots

KINDS = ("memory", "sqlite", "valkey", "postgres")


class Place(NamedTuple):
    """A kind of store, where it lies, and by what name: a file; a port and a prefix; a conninfo and a schema."""

    kind: str
    where: str = ""
    name: str = ""

    def replays(self, **facts: Any) -> Any:
        return self._open((MemoryReplayStore, sqlite_store.SQLiteReplayStore, ValkeyReplayStore, PostgresReplayStore), facts)

    def ledger(self, **facts: Any) -> Any:
        return self._open((MemoryLedger, sqlite_store.SQLiteLedger, ValkeyLedger, PostgresLedger), facts)

    def snapshots(self, **facts: Any) -> Any:
        return self._open((MemorySnapshots, sqlite_store.SQLiteSnapshots, ValkeySnapshots, PostgresSnapshots), facts)

    def _open(self, classes: tuple[Callable[..., Any], ...], facts: dict[str, Any]) -> Any:
        opened = classes[KINDS.index(self.kind)]
        if self.kind == "memory":
            return opened(**facts)
        if self.kind == "sqlite":
            store = opened(self.where, timeout=30, **facts)
        elif self.kind == "valkey":
            client = valkey.Valkey(port=int(self.where))
            _open.append(client)
            return opened(client, prefix=self.name, **facts)
        else:
            with psycopg.connect(self.where) as connection:
                create_tables(connection, schema=self.name)
            store = opened(self.where, schema=self.name, **facts)
        _open.append(store)
        return store


_open: list[Any] = []  # stores, and the clients that they were given


def close_all() -> None:
    """What was opened in this process."""
    while _open:
        _open.pop().close()
