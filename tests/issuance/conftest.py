"""The registries that the suite runs over: in memory, in a file, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.issuance.registries import KINDS, SHARED, Place, close_all
from tests.issuance.test_issuance import World


def place_of(kind: str, folder: Path, request: pytest.FixtureRequest) -> Place:
    if kind == "postgres":
        return Place(kind, request.getfixturevalue("postgres_server").conninfo, f"t{uuid4().hex}")
    return Place(kind, str(folder / "registry.db"))


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return place_of(request.param, tmp_path, request)


@pytest.fixture(params=SHARED)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Those that lie outside of the process."""
    return place_of(request.param, tmp_path, request)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Whatever a test opened."""
    yield
    close_all()


@pytest.fixture
def world() -> Iterator[World]:
    yield World()
