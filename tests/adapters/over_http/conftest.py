"""Servers of every kind with one application behind a guard."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from captoken import Verifier
from captoken.adapters.asgi import CaptokenMiddleware
from captoken.stores.memory import MemoryReplayStore
from tests.adapters.over_http.test_asgi import KEYRING, ORIGIN, SERVICE
from tests.adapters.serving import SERVERS, listening, served


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def origin(server: str) -> Iterator[str]:
    """A server whose name to its clients is another one than where it listens."""
    verifier = Verifier(KEYRING, audience="sales-api", replays=MemoryReplayStore(floor=0))
    app = CaptokenMiddleware(SERVICE, verifier, origin=ORIGIN, realm="sales", public={"/health", "/anybody"}, max_body=5000)
    with served(app, listening(), server) as at:
        yield at


@pytest.fixture(autouse=True)
def nothing_reached() -> None:
    SERVICE.reached.clear()
    SERVICE.seen.clear()
