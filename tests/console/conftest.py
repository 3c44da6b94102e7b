from __future__ import annotations

from pathlib import Path

import pytest

from tests.console.world import Browser, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def browser(world: World) -> Browser:
    return Browser(world.console)
