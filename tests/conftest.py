"""Nothing in the tests reaches out of the machine: a connection to anywhere but loopback fails. And the shared server."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.database import InMemoryExampleDatabase

from tests import platforms
from tests.catalogue_check import is_told, stands_on_the_page

# gRPC has hooks that run in every forked child, as `initdb` is before it begins; with other tests' servers in its threads
# these now and then end the child. No test uses gRPC on both sides of a fork. Read when gRPC is imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# A program that a test starts imports the tree that the test stands in, and no captoken that is installed.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.path.dirname(os.path.dirname(__file__)), os.environ.get("PYTHONPATH")]))

_connect = socket.socket.connect


def _loopback_only(self: socket.socket, address: object) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6):
        assert isinstance(address, tuple)
        assert ipaddress.ip_address(address[0]).is_loopback, f"a test tried to reach {address[0]}"
    return _connect(self, address)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", _loopback_only)


_wait_is_over = pytest.RaisesExc.__exit__


def _told_as_on_the_page(
    self: pytest.RaisesExc[BaseException],
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
) -> bool:
    if error is not None and is_told(error, traceback):
        text = str(error)
        assert stands_on_the_page(type(error), text), f"no message of docs/errors.md: {text}"
    return _wait_is_over(self, kind, error, traceback)


def pytest_configure() -> None:
    """Every error that a test waits for says what docs/errors.md has (tests/catalogue_check.py)."""
    pytest.RaisesExc.__exit__ = _told_as_on_the_page  # type: ignore[method-assign]
    # Nothing fails by the clock: a busy machine is slow. Of a read-only checkout Hypothesis warns, and a warning is a failure here.
    kept = settings.default.database if os.access(os.getcwd(), os.W_OK) else InMemoryExampleDatabase()
    settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=kept)
    settings.load_profile("untimed")


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
