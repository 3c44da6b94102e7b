"""A client's certificate: who says which one was shown, and whose it is.

TLS ends in one of two places, and the policy says in which:

- in the server that runs the service. It says so in the scope (ASGI TLS extension);
- in a proxy before it, which the policy names. It says so in `Client-Cert` (RFC 9440), and anybody
  could write such a header: it is believed of that proxy alone. What the connection itself says is
  then the proxy's own certificate, and is not looked at.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import ssl
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice

from captoken._format import primitives
from captoken._format.errors import IssuanceError
from captoken.adapters._http.exchange import Header, Scope, values_of
from captoken.adapters._issuance.form import Shown
from captoken.issuance import certificates
from captoken.issuance.identity import Identity
from captoken.issuance.keys import ProviderKeys
from captoken.issuance.policy import Policy, Proxy

# What a proxy proves itself by, if the policy has the digest of it.
SECRET = b"captoken-proxy-secret"

# A byte sequence of structured fields (RFC 8941, 3.3.5).
_sequence = re.compile(rb" *:([A-Za-z0-9+/]*={0,2}): *").fullmatch


async def by_certificate(
    scope: Scope,
    client_id: str,
    policy: Policy,
    keys: ProviderKeys,
    now: int,
) -> tuple[Identity, Shown]:
    """The workload of that SPIFFE ID, by the certificate that it has shown; and that one, in PEM.

    Raises IssuanceError: `invalid_client`, or `temporarily_unavailable`.
    """
    svid = certificates.shown_by(shown_chain(scope, policy.proxy), client_id, policy)
    shown = Shown(
        text=ssl.DER_cert_to_PEM_cert(svid.leaf.der),
        takes=("spiffe",),
        error="invalid_client",
    )
    await keys.want_authorities(svid.provider)
    known = keys.authorities(svid.provider)
    try:
        return certificates.verify(svid, policy, known, now), shown
    except IssuanceError:
        # Its authority may be newer than what is known here.
        await keys.want_authorities(svid.provider, anew=True)
        newer = keys.authorities(svid.provider)
        if newer is known:
            raise
    return certificates.verify(svid, policy, newer, now), shown


def shown_chain(scope: Scope, proxy: Proxy | None) -> list[bytes]:
    """The certificates that a client has shown, its own first, in DER. None were: an empty list.

    Nothing of them is verified but that the client has the key of the first one. Raises
    IssuanceError, `invalid_client`.
    """
    if proxy is None:
        return _of_connection(scope)
    _check_proxy(scope, proxy)
    return _forwarded(scope["headers"])


def _refused(message: str) -> IssuanceError:
    """What is raised for certificates that will not do. Made here, raised by the caller."""
    return IssuanceError(f"the certificate is refused: {message}", "invalid_client")


def _of_connection(scope: Scope) -> list[bytes]:
    """Return the certificate that the server reports. A server without TLS reports none.

    Raises IssuanceError for what the server itself has refused, or what is no certificate.
    """
    said = (scope.get("extensions") or {}).get("tls") or {}
    # The server's own check failed, and it goes on all the same.
    if said.get("client_cert_error"):
        raise _refused("the server says so")
    shown: Iterable[str] = said.get("client_cert_chain") or ()
    try:
        # One more than are taken, so that too many are seen as such.
        some = islice(shown, certificates.MAX_CERTIFICATES + 1)
        return [ssl.PEM_cert_to_DER_cert(one) for one in some]
    except (ValueError, TypeError):
        raise _refused("it is no PEM") from None


# --- behind a proxy -------------------------------------------------------------------------------


def _check_proxy(scope: Scope, proxy: Proxy) -> None:
    """Raise IssuanceError unless the proxy of the policy has sent this."""
    stranger = _refused("certificates are believed of the proxy alone, and this is not from it")
    if proxy.addresses:
        client = scope.get("client")
        known = [_address(one) for one in proxy.addresses]
        if client is None or _address(client[0]) not in known:
            raise stranger

    # Both, where the policy has both.
    if proxy.secret_sha256 is not None:
        sent = values_of(scope["headers"], SECRET)
        digest = primitives.sha256(sent[0]).hex() if len(sent) == 1 else ""
        if not hmac.compare_digest(proxy.secret_sha256, digest):
            raise stranger


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address in one spelling. None: it is none, as that of a socket in the file system."""
    try:
        address = ip_address(text)
    except ValueError:
        return None

    # A server that listens for both kinds writes addresses of IPv4 in this way.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _forwarded(headers: Iterable[Header]) -> list[bytes]:
    """What a proxy says was shown (RFC 9440, 2). Raises IssuanceError for another spelling."""
    pairs = list(headers)
    own = values_of(pairs, b"client-cert")
    if len(own) > 1:
        raise _refused("Client-Cert is given twice")

    # Some proxies write an empty one where none was shown.
    first = _decoded(own[0]) if own else b""
    if not first:
        return []

    # A list may come in several headers, and may be empty.
    between = b",".join(values_of(pairs, b"client-cert-chain"))
    if not between.strip():
        return [first]
    return [first, *map(_decoded, between.split(b",", certificates.MAX_CERTIFICATES))]


def _decoded(text: bytes) -> bytes:
    """A certificate as a header has it. Raises IssuanceError."""
    found = _sequence(text)
    try:
        if found is not None:
            return base64.b64decode(found[1], validate=True)
    except binascii.Error:
        pass
    raise _refused("Client-Cert is written as RFC 9440 has it: base64 between two colons")
