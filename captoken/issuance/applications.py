"""Applications that people log in with: what they are called, and where a browser may go back to.

    https://app.example/client.json      a Client ID Metadata Document: the id is its address
    inspector                            a client of the policy, which says where it is

An application proves nothing of itself. What is known of it is who publishes its document, and that
a browser goes back to an address which stands there. So addresses are compared as they are written,
and what two readers could read as two addresses is refused.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address

import msgspec

from captoken._format.errors import IssuanceError
from captoken._format.spelling import shown
from captoken.issuance.jose import JoseError, read_json

# A document's bytes, and what is taken of it.
DOCUMENT_BYTES = 16 << 10
_MOST_REDIRECTS = 32
_MOST_CHARS = 1024
_MOST_NAME = 80

# A label of a host's name, in its one spelling; an address of IPv6 stands in brackets.
_label = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?").fullmatch
_IPV6_LOOPBACK = "[::1]"

# The address of this machine in figures: there a port is the client's to choose (RFC 8252, 7.3).
_FIGURES = ("127.0.0.1", _IPV6_LOOPBACK)
_LOCAL = (*_FIGURES, "localhost")

# What a path and a query are made of. A backslash, say, is a slash to some readers.
_REST = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-F]{2})*").fullmatch

# Escapes of what would be read as a part of a path by some: a dot, a slash, a backslash.
_HIDDEN = ("%2E", "%2F", "%5C", "%00")


class Address(msgspec.Struct, frozen=True):
    """An address that was taken apart, and that every reader takes apart alike."""

    scheme: str
    host: str
    port: str
    rest: str

    @property
    def is_local(self) -> bool:
        """Is it on the person's own machine? Whatever program runs there may be behind it."""
        return self.host in _LOCAL or self.host.endswith(".localhost") or _is_loopback(self.host)

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"{self.scheme}://{self.host}{self.port}"


def address_of(text: str) -> Address | None:
    """The parts of an https address, or of an http address of this machine; None for any other.

    None also for what has more than one reading: user information, upper case in the host, a
    fragment, escapes that hide a slash, a query right behind the host.
    """
    scheme, slashes, after = text.partition("://")
    if not slashes or scheme not in ("https", "http") or len(text) > _MOST_CHARS:
        return None
    place = re.match(r"[^/?#]*", after)
    authority = "" if place is None else place[0]
    rest = after[len(authority) :]
    host, colon, port = authority.rpartition(":")
    if not colon or authority.endswith("]"):
        host, port, colon = authority, "", ""
    if colon and not re.fullmatch(r"[1-9][0-9]{0,4}", port):
        return None
    if not _is_host(host):
        return None
    if scheme == "http" and host not in _LOCAL:
        return None
    # In `https://app.example?@evil.example` some look for the host behind the `@`.
    if rest and not rest.startswith("/"):
        return None
    if _REST(rest) is None or any(one in rest for one in _HIDDEN) or _has_dots(rest):
        return None
    return Address(scheme, host, f":{port}" if colon else "", rest)


def _is_host(host: str) -> bool:
    """Is it a name, or an address, in the one spelling that it has?

    A name whose last label looks like a number is an address to a browser: `127.1`, `0x7f000001`.
    """
    if host == _IPV6_LOOPBACK:
        return True
    labels = host.split(".")
    if len(host) > 253 or not all(map(_label, labels)):
        return False
    if not labels[-1].isdigit() and not labels[-1].startswith("0x"):
        return True
    try:
        return str(IPv4Address(host)) == host
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return IPv4Address(host).is_loopback
    except ValueError:
        return False


def _has_dots(rest: str) -> bool:
    """Does its path have a segment that readers take away, with the one before?"""
    return not {".", ".."}.isdisjoint(rest.partition("?")[0].split("/"))


def is_client_address(text: str) -> bool:
    """May it be the id of an application that has a document there?

    It has a path, and no query (draft-ietf-oauth-client-id-metadata-document, 3). What is on this
    machine is for trying out: a policy has to name it.
    """
    address = address_of(text)
    return address is not None and len(address.rest) > 1 and "?" not in address.rest


class Application(msgspec.Struct, frozen=True):
    """An application that people log in with. Its name is its own word."""

    id: str
    name: str
    redirects: tuple[str, ...]

    @property
    def publisher(self) -> str | None:
        """The host that publishes its document; None for one that the policy itself names."""
        address = address_of(self.id)
        return None if address is None else address.host

    def takes(self, redirect: str) -> bool:
        """May the browser be sent there? As it is written in the document, and else nowhere.

        On this machine, by its address in figures, the port is free.
        """
        if redirect in self.redirects:
            return True
        asked = address_of(redirect)
        if asked is None or asked.host not in _FIGURES or asked.scheme != "http":
            return False
        return any(_without_port(one) == (asked.host, asked.rest) for one in self.redirects)


def _without_port(text: str) -> tuple[str, str] | None:
    known = address_of(text)
    return None if known is None or known.scheme != "http" else (known.host, known.rest)


def check_redirects(redirects: object) -> tuple[str, ...]:
    """The addresses that a browser may go back to. Raises ValueError, which says what is wrong."""
    if not isinstance(redirects, (list, tuple)) or not 0 < len(redirects) <= _MOST_REDIRECTS:
        raise ValueError(f"redirect_uris must be a list of 1 to {_MOST_REDIRECTS} addresses")
    for one in redirects:
        if type(one) is not str or address_of(one) is None:
            raise ValueError(
                f"{shown(one)} is not an https address, nor an http address of this machine"
            )
    return tuple(redirects)


def application_in(address: str, data: bytes) -> Application:
    """The application that a document at an address describes.

    Raises IssuanceError, `invalid_client`: one that is another's, or that proves itself by a key.
    """
    try:
        stated = read_json(data)
        if stated.get("client_id") != address:
            raise ValueError("its client_id is not its own address")
        if stated.get("token_endpoint_auth_method", "none") != "none":
            raise ValueError('its token_endpoint_auth_method is not "none"')
        if "client_secret" in stated:
            raise ValueError("it shows a secret")
        redirects = check_redirects(stated.get("redirect_uris"))
    except (JoseError, ValueError) as error:
        raise IssuanceError(
            "the application's document cannot be used", "invalid_client", str(error)
        ) from None
    return Application(address, called(stated.get("client_name"), address), redirects)


def called(name: object, otherwise: str) -> str:
    """What an application calls itself, if it says so in one short line."""
    if type(name) is not str or not name.strip():
        return otherwise
    return name.strip()[:_MOST_NAME]
