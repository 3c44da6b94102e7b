"""Nothing in the tests reaches out of the machine: a connection to anywhere but loopback fails. And the shared server."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests import platforms

# gRPC has hooks that run in every forked child, as `initdb` is before it begins; with other tests' servers in its threads
# these now and then end the child. No test uses gRPC on both sides of a fork. Read when gRPC is imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

_connect = socket.socket.connect


def _loopback_only(self: socket.socket, address: object) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6):
        assert isinstance(address, tuple)
        assert ipaddress.ip_address(address[0]).is_loopback, f"a test tried to reach {address[0]}"
    return _connect(self, address)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", _loopback_only)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """One PostgreSQL server for all suites, started if a test asks for it."""
    from tests.stores.servers import Postgres

    server = Postgres()
    yield server
    server.stop()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many tests were left out, and for want of what."""
    skipped = terminalreporter.stats.get("skipped", [])
    for what, count in platforms.left_out(str(report.longrepr) for report in skipped).items():
        terminalreporter.write_line(f"{count} tests left out: no wheel of {what}")
