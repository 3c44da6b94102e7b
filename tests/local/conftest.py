"""What the tests of an office share: a folder that is not there yet, and a clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from captoken.testing import FixedClock
from tests.fixtures import NOW


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)
