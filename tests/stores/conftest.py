"""The stores that the suite runs over, on real servers. A server or a package that is missing is a failure.

A test that takes `kind` runs once for each; `open_store`, `open_ledger` and `open_snapshots` open the test's own store,
and the same one again if asked again, where that kind is `shared`. Another kind joins in `places.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from captoken.stores.ports import Ledger, ReplayStore, SnapshotStore
from tests.stores.places import AWAITED, KINDS, Place, close_all
from tests.stores.servers import Valkey

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
