"""What the tests of the guard share: connections to databases that the guard is tried on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from captoken.adapters import sqlite
from tests.adapters.sqlite.test_sqlite import filled


@pytest.fixture(params=["autocommit", "legacy", "file", "remembering"])
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The kinds of connection that people open."""
    if request.param == "file":
        opened = sqlite3.connect(tmp_path / "main.db", isolation_level="IMMEDIATE", detect_types=sqlite3.PARSE_DECLTYPES)
        opened.execute("pragma journal_mode = wal")
        opened.execute("pragma recursive_triggers = on")
        filled(opened, str(tmp_path / "archive.db"))
    elif request.param == "remembering":
        opened = filled(sqlite3.connect(":memory:", factory=sqlite.Connection))
    else:
        opened = filled(sqlite3.connect(":memory:", isolation_level=None if request.param == "autocommit" else ""))
    yield opened
    opened.close()


@pytest.fixture
def plain() -> Iterator[sqlite3.Connection]:
    opened = sqlite3.connect(":memory:", isolation_level=None)
    opened.executescript(
        """
        create table sales (id integer primary key, region text, amount integer check (amount > 0));
        create table hr (id integer primary key, name text, pay integer);
        insert into sales values (1, 'eu', 10), (2, 'us', 20);
        insert into hr values (7, 'ann', 900);
        """
    )
    yield opened
    opened.close()
