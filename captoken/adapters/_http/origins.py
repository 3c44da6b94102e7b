"""Addresses of servers and targets of requests, each in the one spelling that browsers use.

A proof covers an origin and a target, and a token goes to an origin. So one server must never pass
for two by its spelling, nor two servers for one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

# ASCII without spaces, control characters and backslashes: no two readers disagree about it.
_address = re.compile(r"[!-\[\]-~]{1,2048}").fullmatch
_plain_path = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+,=:@-]+)+/?|/").fullmatch
_OWN_PORT = {"https": 443, "http": 80}


def is_address(text: str) -> bool:
    """Whether this is printable ASCII that every reader of addresses takes alike."""
    return _address(text) is not None


def spelled(scheme: str, host: str, port: int | None) -> str:
    """An origin from its parts. `port` is None where it is the scheme's own."""
    bracketed = f"[{host}]" if ":" in host else host
    if port is None:
        return f"{scheme}://{bracketed}"
    return f"{scheme}://{bracketed}:{port}"


def origin_of(address: str) -> str:
    """Scheme, host and port as browsers spell them.

    Raises ValueError for an address that is neither https nor on this machine.
    """
    parts = urlsplit(address)
    host = parts.hostname or ""
    port = parts.port
    safe = parts.scheme == "https" or (parts.scheme == "http" and _is_local(host))
    plain = is_address(address) and set(address).isdisjoint("@?#")
    if not safe or not host or not plain:
        raise ValueError(
            "a service's address is https://host[:port][/path], or http:// on this machine"
        )
    return spelled(parts.scheme, host, None if port == _OWN_PORT[parts.scheme] else port)


def _is_local(host: str) -> bool:
    """Whether what is sent to this host stays on this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def own_origin(origin: str) -> str:
    """`origin`, if it is an origin as browsers spell it, https or on this machine.

    Raises ValueError for any other.
    """
    usual = origin_of(origin)
    if usual != origin:
        raise ValueError(f"an origin is scheme, host and port alone, spelled {usual}")
    return origin


def target_of(path: bytes, query: bytes) -> bytes:
    """What stands in the request line.

    An empty query and none are one: servers do not tell them apart.
    """
    if not query:
        return path
    return path + b"?" + query


def public_paths(paths: Iterable[str]) -> frozenset[str]:
    """The paths that need no token, if each has one spelling. Raises TypeError or ValueError."""
    if isinstance(paths, str):
        raise TypeError("public is a set of paths, not one str")
    public = frozenset(paths)
    for path in public:
        if _plain_path(path) is None:
            raise ValueError(
                f"public path {path!r}: it starts with /, "
                "and has no percent sign, empty or dot segment"
            )
    return public
