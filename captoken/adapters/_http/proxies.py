"""Proxies in front of a guard, known by the address that they connect from.

    named = Proxies(["127.0.0.1", "10.0.0.0/8", "unix"])
    headers = named.taken_off(scope, headers)

Some tell in headers which request they got: its method and its target. A guard refuses these, since
an application or a framework might run that request instead of the one that was decided on. From a
proxy that is named they are no reason to refuse. They are taken off, and decide nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from captoken.adapters._http.exchange import Header, Scope

# What proxies say of the request that they got. A method override is none: clients send that.
_SAID = frozenset(
    (
        b"x-forwarded-method",
        b"x-forwarded-uri",
        b"x-original-method",
        b"x-original-uri",
        b"x-original-url",
    )
)


class Proxies:
    """The proxies of a server, by address, network, or `unix` for whoever opens its Unix socket.

    Raises TypeError for a `str`, and ValueError for what is no address.
    """

    def __init__(self, named: Iterable[str]) -> None:
        if isinstance(named, str):
            raise TypeError('proxies must be a list of addresses, like ["127.0.0.1"], not one str')
        every = list(named)
        self._has_unix = "unix" in every
        try:
            self._networks = [ip_network(each) for each in every if each != "unix"]
        except ValueError:
            raise ValueError(
                'proxies must be addresses or networks, like "127.0.0.1" or "10.0.0.0/8", or "unix"'
            ) from None

    def taken_off(self, scope: Scope, headers: list[Header]) -> list[Header]:
        """The headers without what a proxy of these has said of its request."""
        if not self._is_one(scope.get("client")):
            return headers
        return [(name, value) for name, value in headers if name not in _SAID]

    def _is_one(self, client: Iterable[object] | None) -> bool:
        """Did a proxy of these connect? Over a Unix socket, servers name no client."""
        if client is None:
            return self._has_unix
        try:
            address = ip_address(str(next(iter(client), "")))
        except ValueError:
            return False
        return any(address in network for network in self._networks)
