from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.console import picture
from tests.console.world import Browser, World


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
