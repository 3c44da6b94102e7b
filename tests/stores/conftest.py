"""The stores that the suite runs over. Another one joins by one line in `STORES`: its name, and a function that opens it.

`opened(path, **limits)` gives a store; `path` is a folder of the test's own, and one that is opened twice on one path is
one store where `shared` says so. A store on a server takes a prefix or a schema from the folder's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from captoken.adapters.sqlite_store import SQLiteReplayStore
from captoken.memory import MemoryReplayStore
from captoken.possession import ReplayStore


class Kind(NamedTuple):
    """A kind of store."""

    opened: Callable[..., Any]  # (folder, floor=, limit=, clock=) -> store
    shared: bool  # do two that are opened on one folder remember together, also after both were closed?


STORES: dict[str, Kind] = {
    "memory": Kind(lambda folder, **facts: MemoryReplayStore(**facts), shared=False),
    "sqlite": Kind(lambda folder, **facts: SQLiteReplayStore(folder / "proofs.db", **facts), shared=True),
}

Open = Callable[..., ReplayStore]


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> Kind:
    return STORES[request.param]


@pytest.fixture
def open_store(kind: Kind, tmp_path: Path) -> Iterator[Open]:
    """Opens the test's store; again and again, if asked. Without a floor, unless one is given."""
    made: list[Any] = []

    def opened(**facts: Any) -> ReplayStore:
        made.append(kind.opened(tmp_path, **{"floor": 0, **facts}))
        store: ReplayStore = made[-1]
        return store

    yield opened
    for store in made:
        if hasattr(store, "close"):
            store.close()
