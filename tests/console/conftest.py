from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from captoken.cli.console.index import Index
from tests.console import picture
from tests.console.fixtures import Browser, World


@pytest.fixture(autouse=True)
def every_index_is_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Python 3.13 tells of a database that nobody closes."""
    made: list[Index] = []
    begin = Index.__init__

    def noted(self: Index, *given: Any, **facts: Any) -> None:
        begin(self, *given, **facts)
        made.append(self)

    monkeypatch.setattr(Index, "__init__", noted)
    yield
    for index in made:
        index.close()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def browser(world: World) -> Browser:
    return Browser(world.console)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with picture.chromium() as browser:
        yield browser
