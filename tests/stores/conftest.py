"""The stores that the suite runs over, on real servers. A server or a package that is missing is a failure.

A test that takes `kind` runs once for each; `open_store`, `open_ledger` and `open_snapshots` open the test's own store,
and the same one again if asked again, where that kind is `shared`. Another kind joins in `places.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import valkey
import valkey.asyncio

from captoken.issuance.registry.postgres import WITH_REGISTRY, PostgresRegistry
from captoken.stores.ports import Ledger, ReplayStore, SnapshotStore
from captoken.stores.postgres import (
    PostgresLedger,
    PostgresReplayStore,
    PostgresSnapshots,
    create_tables,
)
from tests.stores.places import AWAITED, KINDS, Place, close_all
from tests.stores.servers import Postgres, Valkey

SHARED = ("sqlite", "valkey", "postgres")
LIMITED = ("memory", "sqlite", "valkey", "valkey-awaited")  # hold a number of proofs; PostgreSQL holds what the disk does


class Kind:
    """A kind of store, and where the test's own one lies."""

    def __init__(self, place: Place) -> None:
        self.place, self.name = place, place.kind
        self.shared = place.kind in SHARED  # do two that are opened remember together, also after both were closed?


Open = Callable[..., ReplayStore]
OpenLedger = Callable[..., Ledger]
OpenSnapshots = Callable[..., SnapshotStore]


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    server = Valkey()
    yield server
    server.stop()


def place(kind: str, folder: Path, request: pytest.FixtureRequest) -> Place:
    name, awaited, kind = f"t{uuid4().hex}", kind in AWAITED, kind.removesuffix("-awaited")
    if kind == "valkey":
        return Place(kind, str(request.getfixturevalue("valkey_server").port), name, awaited)
    if kind == "postgres":
        return Place(kind, request.getfixturevalue("postgres_server").conninfo, name, awaited)
    return Place(kind, str(folder / "stores.db"))


@pytest.fixture(params=KINDS + AWAITED)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    return Kind(place(request.param, tmp_path, request))


@pytest.fixture(params=SHARED)
def shared_kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    return Kind(place(request.param, tmp_path, request))


@pytest.fixture(params=LIMITED)
def limited_kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    return Kind(place(request.param, tmp_path, request))


def opener(make: Callable[..., Any], **usual: Any) -> Callable[..., Any]:
    return lambda **facts: make(**{**usual, **facts})


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Whatever a test opened."""
    yield
    close_all()


@pytest.fixture
def open_store(kind: Kind) -> Open:
    """Opens the test's store; again and again, if asked. Without a floor, unless one is given."""
    return opener(kind.place.replays, floor=0)


@pytest.fixture
def open_limited(limited_kind: Kind) -> Open:
    """The same, for kinds that hold a number of proofs."""
    return opener(limited_kind.place.replays, floor=0)


@pytest.fixture
def open_ledger(kind: Kind) -> OpenLedger:
    """Opens the test's ledger, without a floor and shared, unless told otherwise."""
    return opener(kind.place.ledger, floor=0, shared=True)


@pytest.fixture
def open_snapshots(kind: Kind) -> OpenSnapshots:
    """Opens where the test's snapshot lies."""
    return opener(kind.place.snapshots)


@pytest.fixture
def schema(postgres_server: Postgres) -> str:
    """Stores and a registry of the test's own, all made."""
    name, where = f"t{os.urandom(8).hex()}", postgres_server.conninfo
    with psycopg.connect(where) as connection:
        create_tables(connection, schema=name, tables=WITH_REGISTRY)
    for kind, facts in ((PostgresReplayStore, {"floor": 0}), (PostgresLedger, {"floor": 0}), (PostgresSnapshots, {}), (PostgresRegistry, {"floor": 0})):
        kind.create(where, schema=name, **facts).close()
    return name


@pytest.fixture
def where(postgres_server: Postgres, schema: str) -> str:
    """By which the backends of this test's stores are known."""
    return f"{postgres_server.conninfo} application_name={schema}"


@pytest.fixture
def own(serve: Callable[..., Valkey]) -> Valkey:
    """A server of the test's own."""
    return serve()


@pytest.fixture
def client(valkey_server: Valkey) -> Iterator[valkey.Valkey]:
    with closing(valkey_server.client()) as made:
        yield made


@pytest.fixture
def prefix() -> str:
    return os.urandom(8).hex()


@pytest.fixture
def serve() -> Iterator[Callable[..., Valkey]]:
    """Servers of the test's own, with other settings."""
    made: list[Valkey] = []

    def start(**settings: str) -> Valkey:
        made.append(Valkey(**settings))
        return made[-1]

    yield start
    for server in made:
        server.stop()
