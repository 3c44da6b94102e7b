"""Nothing in the tests reaches out of the machine: a connection to anywhere but loopback fails."""

from __future__ import annotations

import ipaddress
import socket

import pytest

_connect = socket.socket.connect


def _loopback_only(self: socket.socket, address: object) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6):
        assert isinstance(address, tuple)
        assert ipaddress.ip_address(address[0]).is_loopback, f"a test tried to reach {address[0]}"
    return _connect(self, address)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", _loopback_only)
