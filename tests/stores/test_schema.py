"""Each store says its version where it lies, and is opened in no other one. A store that is new is in here by being there."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import pkgutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
import valkey
import valkey.asyncio

import captoken.issuance.registry
import captoken.stores
from captoken.cli.console.index import Index
from captoken.cli.console.tables import INDEX
from captoken.errors import StoreError
from captoken.issuance.registry.postgres import WITH_REGISTRY
from captoken.stores._schema import Schema, SchemaChange
from captoken.stores.postgres import create_tables
from captoken.stores.sqlite import APPLICATION_ID, SQLiteLedger, SQLiteSnapshots
from tests.stores.servers import Postgres, Valkey

ROOMS = (captoken.stores, captoken.issuance.registry)


def makers() -> Iterator[type]:
    """Every class that makes a store which outlives its process: it has `create`."""
    for room in ROOMS:
        for found in pkgutil.iter_modules(room.__path__, room.__name__ + "."):
            module = importlib.import_module(found.name)
            for name, kind in vars(module).items():
                is_of_here = inspect.isclass(kind) and kind.__module__ == module.__name__
                if is_of_here and not name.startswith("_") and hasattr(kind, "create"):
                    yield kind


Versions = dict[str, int]  # by store: on a server several lie together


class Place(NamedTuple):
    """Where one store lies: how it is made and opened, and how versions are read there, and written by hand."""

    make: Callable[[], None]
    open: Callable[[], None]
    read: Callable[[], Versions]
    write: Callable[[int | str | Versions | None], None]


@pytest.fixture(params=sorted(makers(), key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """By the module that it is in; an engine that is new needs a place of its own here."""
    kind, engine = request.param, request.param.__module__.rpartition(".")[2]
    named = f"t{os.urandom(6).hex()}"
    if engine == "sqlite":
        path = tmp_path / "store.db"
        return Place(lambda: kind.create(path).close(), lambda: kind(path).close(), lambda: by_sqlite(path), lambda version: on_sqlite(path, version))
    if engine == "postgres":
        where = request.getfixturevalue("postgres_server").conninfo
        with psycopg.connect(where) as connection:
            create_tables(connection, schema=named, tables=WITH_REGISTRY)
        of = lambda: where  # noqa: E731
        return Place(
            lambda: run(kind, "create", of, schema=named), lambda: run(kind, "", of, schema=named),
            lambda: by_postgres(where, named), lambda version: on_postgres(where, named, version),
        )  # fmt: skip
    assert engine == "valkey", "another engine: where does it lie?"
    server = request.getfixturevalue("valkey_server")
    client_of = valkey.asyncio.Valkey if iscoroutinefunction(kind.create) else valkey.Valkey
    client = lambda: client_of(port=server.port)  # noqa: E731
    return Place(
        lambda: run(kind, "create", client, prefix=named), lambda: run(kind, "", client, prefix=named),
        lambda: by_valkey(server, named), lambda version: on_valkey(server, named, version),
    )  # fmt: skip


def run(kind: Any, how: str, source_of: Callable[[], Any], **facts: Any) -> None:
    """Make it or open it, and close it; of those that are awaited, in an event loop."""
    if not iscoroutinefunction(kind.create):
        source = source_of()
        try:
            (kind.create if how else kind)(source, **facts).close()
        finally:
            getattr(source, "close", lambda: None)()
        return

    async def awaited() -> None:
        source = source_of()
        store = None if how else kind(source, **facts)
        try:
            if store is None:
                store = await kind.create(source, **facts)
            else:
                await store.open()
        finally:
            for one in (store, source):
                if hasattr(one, "aclose"):
                    await one.aclose()

    asyncio.run(awaited())


def by_sqlite(path: Path) -> Versions:
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("select * from captoken_schema"))


def by_postgres(where: str, schema: str) -> Versions:
    with psycopg.connect(where) as connection:
        return dict(connection.execute(f"select * from {schema}.captoken_schema".encode()).fetchall())


def by_valkey(server: Valkey, prefix: str) -> Versions:
    with closing(server.client()) as client:
        return {store.decode(): int(version) for store, version in client.hgetall(f"{{{prefix}}}:schema").items()}


def each(version: int | str | Versions, stores: Iterable[str]) -> dict[str, int | str]:
    """What each is to say."""
    return {**version} if isinstance(version, dict) else dict.fromkeys(stores, version)


def on_sqlite(path: Path, version: int | str | Versions | None) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        if version is None:
            connection.execute("drop table captoken_schema")
        elif version == "":
            connection.execute("delete from captoken_schema")
        else:
            for store, its in each(version, by_sqlite(path)).items():
                connection.execute("update captoken_schema set version = ? where store = ?", (its, store))


def on_postgres(where: str, schema: str, version: int | str | Versions | None) -> None:
    with psycopg.connect(where) as connection:
        if version is None:
            connection.execute(f"drop table {schema}.captoken_schema".encode())
        elif version == "":
            connection.execute(f"delete from {schema}.captoken_schema".encode())
        else:
            for store, its in each(version, by_postgres(where, schema)).items():
                connection.execute(f"update {schema}.captoken_schema set version = %s where store = %s".encode(), (its, store))


def on_valkey(server: Valkey, prefix: str, version: int | str | Versions | None) -> None:
    with closing(server.client()) as client:
        key = f"{{{prefix}}}:schema"
        if version is None or version == "":
            client.delete(key)
        else:
            assert client.hkeys(key), "it says none"
            for store, its in each(version, by_valkey(server, prefix)).items():
                client.hset(key, store, str(its))


def test_makers_are_found() -> None:
    assert {"SQLiteLedger", "SQLiteRegistry", "PostgresRegistry", "AsyncPostgresLedger", "AsyncValkeyLedger", "ValkeySnapshots"} <= {
        kind.__name__ for kind in makers()
    }


def test_a_store_is_opened_in_its_own_version_alone(place: Place) -> None:
    """A newer one is refused, with what to install; an older one, with the command; and what is no version."""
    place.make()
    place.open()
    own = place.read()
    needs = "|".join(str(version) for version in own.values())
    place.write(999)
    with pytest.raises(StoreError, match=f"has schema version 999, from a newer captoken, and this one reads ({needs}): install the newer captoken here"):
        place.open()
    for older in range(1, max(own.values())):
        place.write({store: min(older, version) for store, version in own.items()})
        with pytest.raises(
            StoreError, match=f"has schema version {older}, from an earlier captoken, and this one needs ({needs}): stop whatever uses it, then run `captoken upgrade "
        ):
            place.open()
    place.write(0)
    with pytest.raises(StoreError, match=r"has no valid schema version|something that the store did not write"):
        place.open()
    place.write(own)
    place.open()
    for unsaid in ("", None):
        place.write(unsaid)
        with pytest.raises(StoreError, match="has schema version 1, from an earlier captoken"):
            place.open()


def test_what_is_not_there_is_not_called_an_earlier_version(place: Place) -> None:
    with pytest.raises(StoreError, match="there is no store here: create makes one"):
        place.open()


@pytest.mark.parametrize("text", ["", "0", "01", "-1", "1.0", "x", "1000", "2 "])
def test_what_is_no_version_on_valkey_is_damage(valkey_server: Valkey, text: str) -> None:
    from captoken.stores.valkey import ValkeyLedger

    prefix = f"t{os.urandom(6).hex()}"
    with closing(valkey_server.client()) as client:
        ValkeyLedger.create(client, prefix=prefix).close()
        client.hset(f"{{{prefix}}}:schema", "ledger", text)
        with pytest.raises(StoreError, match="something that the store did not write"):
            ValkeyLedger(client, prefix=prefix)


def test_a_registry_whose_tables_nobody_made_is_told_what_makes_them(postgres_server: Postgres) -> None:
    """Those of the stores are there, and say their version."""
    from captoken.issuance.registry.postgres import PostgresRegistry

    schema = f"t{os.urandom(6).hex()}"
    with psycopg.connect(postgres_server.conninfo) as connection:
        create_tables(connection, schema=schema)
    with pytest.raises(StoreError, match="create_tables makes what is missing"):
        PostgresRegistry(postgres_server.conninfo, schema=schema)


def test_a_file_says_whose_it_is(tmp_path: Path) -> None:
    """One that `create` made. One that was there before stays what it was."""
    SQLiteLedger.create(tmp_path / "new.db").close()
    with closing(sqlite3.connect(tmp_path / "mine.db")) as connection:
        connection.execute("create table mine (a)")
    SQLiteLedger.create(tmp_path / "mine.db").close()
    for name, wanted in (("new.db", APPLICATION_ID), ("mine.db", 0)):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            assert connection.execute("pragma application_id").fetchone() == (wanted,)


def test_the_version_is_read_before_anything_is_written(tmp_path: Path) -> None:
    """Not even the way in which SQLite keeps what is being written is changed in a file of a newer version."""
    path = tmp_path / "overlay.db"
    SQLiteSnapshots.create(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("update captoken_schema set version = 3")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma journal_mode = wal")
    with pytest.raises(StoreError, match="has schema version 3"):
        SQLiteSnapshots(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("pragma journal_mode").fetchone() == ("wal",)


# --- the rule --------------------------------------------------------------------------------------------------------

SCHEMA = Schema("test", (SchemaChange("one", ("a",)), SchemaChange("two", ("b", "c"))))


def test_a_step_more_is_a_version_more() -> None:
    assert SCHEMA.version == 3 and Schema("test", ()).version == 1
    steps = [[step.does for step in SCHEMA.missing_steps("x", found)] for found in (None, 1, 2, 3)]
    assert steps == [["one", "two"], ["one", "two"], ["two"], []]
    SCHEMA.check("x", 3, "y")


@pytest.mark.parametrize("found", [0, -1, "2", 2.0, True, b"2", [2]])
def test_what_is_no_version_is_refused(found: Any) -> None:
    with pytest.raises(StoreError, match="x: test has no valid schema version"):
        SCHEMA.missing_steps("x", found)


# --- the console's index ---------------------------------------------------------------------------------------------


def test_an_index_of_a_newer_version_is_refused_and_of_an_earlier_one_made_anew(tmp_path: Path) -> None:
    path, trail = tmp_path / "index.db", tmp_path / "trail.jsonl"
    trail.touch()
    Index(path, [trail]).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"pragma user_version = {INDEX.schema.version + 1}")
    newer = f"index has schema version {INDEX.schema.version + 1}, from a newer captoken, and this one reads {INDEX.schema.version}"
    with pytest.raises(StoreError, match=newer):
        Index(path, [trail])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma user_version = 1")
        connection.execute("drop table uses")
    with closing(Index(path, [trail])) as index:
        assert index.rows("select count(*) from uses") == [(0,)]


def test_an_index_takes_no_file_of_something_else(tmp_path: Path) -> None:
    """It would empty it: what an operator has revoked lies in one."""
    trail = tmp_path / "trail.jsonl"
    trail.write_text("x" * 4096)
    SQLiteSnapshots.create(tmp_path / "overlay.db").close()
    before = (tmp_path / "overlay.db").read_bytes()
    for path in (tmp_path / "overlay.db", trail):
        with pytest.raises(StoreError, match="it holds something else than an index: name another file"):
            Index(path, [trail])
    assert (tmp_path / "overlay.db").read_bytes() == before
