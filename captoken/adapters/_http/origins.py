"""Addresses of servers and targets of requests, each in the one spelling that browsers use.

A proof covers an origin and a target, and a token goes to an origin. So one server must never pass
for two by its spelling, nor two servers for one.

    address   https://Api.example:443/sales     as somebody writes it
    origin    https://api.example               scheme, host and port
    target    /sales?region=eu                  path and query, as they were sent

A path is public if it is listed, and a path that can be listed has one spelling.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

# ASCII without spaces, control characters and backslashes: no two readers disagree about it. Some
# readers take a backslash for a slash, and some drop tabs and line feeds.
_address = re.compile(r"[!-\[\]-~]{1,2048}").fullmatch

# Segments of RFC 3986's characters, of which none is empty and none is a dot or two. No percent
# sign either: an escape would be a second spelling.
_plain_path = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+,=:@-]+)+/?|/").fullmatch

_OWN_PORT = {"https": 443, "http": 80}


def is_address(text: str) -> bool:
    """Whether this is printable ASCII that every reader of addresses takes alike.

    Whether it is an address in other respects is not looked at.
    """
    return _address(text) is not None


def spelled(
    scheme: str,
    host: str,
    port: int | None,
) -> str:
    """An origin from its parts.

    `host` is without brackets, which an address of IPv6 gets here. `port` is None where it is the
    scheme's own.
    """
    bracketed = f"[{host}]" if ":" in host else host
    if port is None:
        return f"{scheme}://{bracketed}"
    return f"{scheme}://{bracketed}:{port}"


def origin_of(address: str) -> str:
    """Scheme, host and port as browsers spell them: in lower case, without the scheme's own port.

    Raises ValueError for an address that is neither https nor on this machine. It also does for one
    with a user, a query or a fragment, which no service's address has.
    """
    parts = urlsplit(address)
    host = parts.hostname or ""
    port = parts.port
    # Tokens, tickets and discharges are secrets: they go over TLS, or do not leave this machine.
    safe = parts.scheme == "https" or (parts.scheme == "http" and _is_local(host))
    # `https://known.example@other.example` is a server of its owner's choice, as are the others.
    plain = is_address(address) and set(address).isdisjoint("@?#")
    if not safe or not host or not plain:
        raise ValueError(
            "a service's address must be https://host[:port][/path], or http:// on this machine"
        )
    if port == _OWN_PORT[parts.scheme]:
        port = None
    return spelled(parts.scheme, host, port)


def _is_local(host: str) -> bool:
    """Whether what is sent to this host stays on this machine.

    By its name alone. A name that resolves to this machine today may not tomorrow, so `localhost`
    is the only one (RFC 6761, 6.3).
    """
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False  # it is a name


def own_origin(origin: str) -> str:
    """`origin`, if it is an origin as browsers spell it, https or on this machine.

    Raises ValueError for any other. It is not mended here: whoever states it should see what
    clients will compare with.
    """
    usual = origin_of(origin)
    if usual != origin:
        raise ValueError(f"an origin must be scheme, host and port only: write {usual}")
    return origin


def is_path(path: bytes, query: bytes) -> bool:
    """Whether what stands in the request line is a path, and a query perhaps (RFC 9112, 3.2.1).

    It is not where it is a whole address, as a proxy is sent one, or `*`, which is the server. Nor
    where a fragment stands behind it: that is the client's own affair, and is never sent.
    """
    return path.startswith(b"/") and b"#" not in path and b"#" not in query


def target_of(path: bytes, query: bytes) -> bytes:
    """What stands in the request line: the path as it was sent, and the query.

    An empty query and none are one: servers do not tell them apart.
    """
    if not query:
        return path
    return path + b"?" + query


def public_paths(paths: Iterable[str]) -> frozenset[str]:
    """The paths that need no token, if each has one spelling.

    Raises TypeError for a `str`, which would be the set of its characters; ValueError for a path
    that a server could understand in another way.
    """
    if isinstance(paths, str):
        raise TypeError('public must be a set of paths, like {"/health"}, not one str')
    public = frozenset(paths)
    for path in public:
        if _plain_path(path) is None:
            raise ValueError(
                f"public path {path!r} must start with /, and have no percent sign, no empty "
                "segment and no segment of dots"
            )
    return public
