"""A shop with goods, in each kind of database that engines are guarded for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import (
    AsyncAdaptedQueuePool,
    Engine,
    create_engine,
    text,
)  # fmt: skip  # fmt: skip
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from captoken.adapters.postgres import Role, apply_plan
from tests.adapters.over_sqlalchemy.test_sqlalchemy import ASYNC, KINDS, ROWS, TABLES, Shop
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


@pytest.fixture(scope="module")
def agents(postgres_server: Any) -> str:
    """A database, with a login for agents: where it is."""
    with psycopg.connect(postgres_server.conninfo, autocommit=True) as admin:
        admin.execute("drop database if exists alchemy")
        admin.execute("create database alchemy")
    address = f"postgresql+psycopg://postgres@127.0.0.1:{postgres_server.port}/alchemy"
    owner = create_engine(address)
    Base.metadata.create_all(owner)
    with owner.connect() as connection:
        every = ["select", "insert", "update", "delete"]
        roles = Role("keeper", dict.fromkeys(TABLES, every)), Role("counter", {"hr": every})
        assert apply_plan(connection.connection.driver_connection, "alchemists", *roles) == []  # type: ignore[arg-type]
    owner.dispose()
    return address
