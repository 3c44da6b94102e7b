"""Files that are taken anew while a service lives."""

from __future__ import annotations

import asyncio
from time import time
from typing import Any

import httpx
import pytest

from captoken.adapters.issuance import Setup
from captoken.audit._kept import TrailKept
from captoken.cli import reloading
from captoken.cli.reloading import Reloading, Watched
from captoken.issuance.policy import read
from captoken.keys import AuditKey
from tests.issuance.test_standing import OTHER

from .fixtures import KEYRING, POLICY
from .test_issuance import ORIGIN, World


def test_a_file_counts_once_it_stays_as_it_is(tmp_path: Any) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("a")
    watched = Watched([str(path), str(tmp_path / "missing")])
    assert not watched.changed() and not watched.changed()
    path.write_text("half")
    assert not watched.changed(), "it may be written on"
    path.write_text("half and half")
    assert not watched.changed()
    assert watched.changed() and watched.changed(), "until it is taken"
    watched.take()
    assert not watched.changed()
    path.unlink()
    assert not watched.changed() and watched.changed()
    watched.take()
    path.write_text("a")
    watched.changed()
    assert watched.changed(), "it is there again"


def test_what_its_trail_has_is_signed_in_time(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that starts few tasks would else have a trail that is unsigned for weeks."""
    monkeypatch.setattr(reloading, "SIGN_EVERY", 0)
    kept = TrailKept(tmp_path / "trail.jsonl", key=AuditKey.generate())
    app = Reloading(World().app, lambda: Setup(read(POLICY.encode()), KEYRING), Watched([]), 0.01, kept)

    async def lived() -> None:
        came: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

        async def send(message: Any) -> None:
            pass

        living = asyncio.create_task(app({"type": "lifespan"}, came.get, send))
        await came.put({"type": "lifespan.startup"})
        kept.record_issuance({"at": int(time())})
        while b'"checkpoint"' not in (tmp_path / "trail.jsonl").read_bytes():
            await asyncio.sleep(0.01)
        await came.put({"type": "lifespan.shutdown"})
        await living

    with kept:
        asyncio.run(asyncio.wait_for(lived(), 20))


def test_it_is_watched_while_the_service_lives(tmp_path: Any) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    one = World()
    app = Reloading(one.app, lambda: Setup(read(path.read_bytes()), KEYRING), Watched([str(path)]), 0.01)

    async def lived() -> list[dict[str, Any]]:
        came: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(message)

        living = asyncio.create_task(app({"type": "lifespan"}, came.get, send))
        await came.put({"type": "lifespan.startup"})
        path.write_text(OTHER)
        while one.app._standing.policy.digest != read(OTHER).digest:
            await asyncio.sleep(0.01)
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            assert (await client.get("/health")).json() == {"status": "ok"}
        await came.put({"type": "lifespan.shutdown"})
        await living
        return sent

    sent = asyncio.run(asyncio.wait_for(lived(), 20))
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
