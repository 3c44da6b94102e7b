"""A shop with goods, in each kind of database that engines are guarded for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import (
    AsyncAdaptedQueuePool,
    Engine,
    create_engine,
    text,
)  # fmt: skip
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests.adapters.sqlalchemy.test_sqlalchemy import ASYNC, KINDS, ROWS, Shop
from tests.adapters.sqlalchemy_statements import (
    Base,
)


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    if request.param.startswith("psycopg"):
        address = request.getfixturevalue("agents")
        login = address.replace("postgres@", "alchemists@")
    else:
        address = login = f"sqlite:///{tmp_path}/shop.db"
    owner = create_engine(address)
    with owner.begin() as connection:
        if owner.dialect.name == "postgresql":
            connection.execute(text("truncate sales, lines, hr, kept restart identity"))
        else:
            Base.metadata.create_all(connection)
        for sql in ROWS.split("; "):
            connection.execute(text(sql))

    with asyncio.Runner() as runner:
        engine: Engine | AsyncEngine
        if request.param in ASYNC:
            engine = create_async_engine(login.replace("sqlite:", "sqlite+aiosqlite:"), poolclass=AsyncAdaptedQueuePool)
            yield Shop(owner, engine, runner)
            runner.run(engine.dispose())
        else:
            engine = create_engine(login)
            yield Shop(owner, engine, runner)
            engine.dispose()
    owner.dispose()
