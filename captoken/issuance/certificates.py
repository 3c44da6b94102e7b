"""Identify a workload by its client certificate, an X.509-SVID (RFC 8705; SPIFFE).

    svid = shown_by(chain, client_id, policy)               # checks the form and the claimed name
    identity = verify(svid, policy, authorities, now)       # checks whose it is

The TLS handshake has proven that the client has the key of the first certificate, and nothing here
can check that again. This module decides whose certificate it is, in this order:

1. the number and size of the certificates;
2. the first one has exactly one URI, the SPIFFE ID that the request names;
3. it is not an authority's, and its key is for signatures;
4. a path leads from it to an authority in the bundle of its trust domain, at this time. The
   machine's certificate store is never used, because any authority in it could name any workload;
5. its lifetime, and what the policy requires.

Pure: no network and no clock. It checks no revocation list, because SVIDs expire soon.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from captoken._format import primitives
from captoken._format.errors import IssuanceError
from captoken._format.extras import extra
from captoken._format.spelling import escape, shown
from captoken.issuance.identity import Identity, is_workload_id
from captoken.issuance.jose import Key, KeysError, KeySet, read_json
from captoken.issuance.policy import Policy, Spiffe

MAX_CERTIFICATES = 8  # of a chain that is shown
MAX_BYTES = 16 * 1024  # of one certificate
MAX_AUTHORITIES = 64  # of a bundle

SCHEME = "spiffe://"

# The one entry of a bundle's set.
AUTHORITIES = "x509"


class Certificate(msgspec.Struct, frozen=True):
    """What a certificate says of itself. Anybody may have written it."""

    der: bytes
    raw: Any  # cryptography's

    # The URIs among its alternative names. Other kinds say nothing of a workload.
    uris: tuple[str, ...]
    is_authority: bool
    begins: datetime
    ends: datetime

    # May its key sign? None if it does not say what its key is for.
    signs: bool | None

    # May its key sign certificates, or lists of revoked ones?
    certifies: bool


class Svid(msgspec.Struct, frozen=True):
    """Certificates that have the right form. Where they come from was not looked at."""

    provider: str  # its name in the policy
    spiffe_id: str
    leaf: Certificate
    between: tuple[Certificate, ...]


def domain_of(client_id: str, policy: Policy) -> tuple[str, Spiffe]:
    """The provider whose trust domain a SPIFFE ID is of. Raises IssuanceError for a stranger's.

    Only providers that take certificates count.
    """
    trust_domain = client_id.removeprefix(SCHEME).partition("/")[0]
    for name, provider in policy.providers.items():
        if not isinstance(provider, Spiffe) or provider.x509_bundle is None:
            continue
        if provider.trust_domain == trust_domain:
            return name, provider
    raise _refused("its trust domain is not known here, or no certificates of it are taken")


def shown_by(chain: Sequence[bytes], client_id: str, policy: Policy) -> Svid:
    """What these certificates say: the own one first and those between behind it, in DER.

    `client_id` is the SPIFFE ID that the request names. Nothing is verified. Raises IssuanceError,
    `invalid_client`, whatever the bytes are.
    """
    name, provider = domain_of(client_id, policy)
    leaf, *between = _parsed(chain)
    _check_leaf(leaf, client_id, provider)
    return Svid(
        provider=name,
        spiffe_id=client_id,
        leaf=leaf,
        between=tuple(between),
    )


def verify(svid: Svid, policy: Policy, authorities: Key | None, now: int) -> Identity:
    """Who has shown this.

    - `authorities` are those of that provider's trust domain, as `read_bundle` gives them.
    - `now` is in seconds since the epoch.

    That the other side has the key is for whoever ended TLS to see. Raises IssuanceError,
    `invalid_client`. Its message may be shown to whoever asked; `why` is for the trail.
    """
    _check_path(svid, authorities, now)

    # What it says is to be believed from here on.
    name, provider = domain_of(svid.spiffe_id, policy)
    life = int((svid.leaf.ends - svid.leaf.begins).total_seconds())
    if life > provider.x509_max_life:
        raise _refused(
            f"it is good for {life} s, which is not taken",
            f"at most {provider.x509_max_life} s",
        )

    # A certificate says no more of whom it is about.
    claims = {"sub": svid.spiffe_id}
    for matcher in policy.required[name]:
        if not matcher.matches(claims):
            raise _refused(
                "its trust domain is known here, and it is not one of those that are taken",
                f"provider {name} requires: {matcher}",
            )
    return Identity(
        provider=name,
        kind="spiffe",
        issuer=provider.trust_domain,
        claims=claims,
        digest=primitives.sha256(svid.leaf.der),
        issued_at=now,
        expires_at=int(svid.leaf.ends.timestamp()),
        is_live=True,
    )


def _refused(message: str, why: str = "") -> IssuanceError:
    """`message` is for whoever asked, and `why` for the trail."""
    return IssuanceError(f"the certificate is refused: {message}", "invalid_client", why)


# --- what was shown -------------------------------------------------------------------------------


def _parsed(chain: Sequence[bytes]) -> list[Certificate]:
    """Certificates of a chain. Raises IssuanceError for what are none, too many or too large."""
    if not chain:
        raise _refused("none was shown")
    if len(chain) > MAX_CERTIFICATES:
        raise _refused(f"more than {MAX_CERTIFICATES} were shown")
    if any(len(one) > MAX_BYTES for one in chain):
        raise _refused(f"it is larger than {MAX_BYTES} bytes")

    try:
        return [_read(one) for one in chain]
    except KeysError as error:
        raise _refused(str(error)) from None


def _read(data: bytes) -> Certificate:
    """One certificate, with all that is asked of it. Raises KeysError, whatever the bytes are."""
    with extra("issuance"):
        from cryptography import x509

    found: dict[type[Any], Any] = {}
    try:
        raw = x509.load_der_x509_certificate(data)
        for extension in raw.extensions:
            found[type(extension.value)] = extension.value
        begins = raw.not_valid_before_utc
        ends = raw.not_valid_after_utc
        # It ends in its signature, which is of whole bytes. DER can leave out last bits, and where
        # these are zero, one certificate would have a second spelling.
        is_whole = data.endswith(b"\0" + raw.signature)
    except Exception as error:  # the library has no one family for what it cannot read
        raise KeysError(f"it cannot be read: {type(error).__name__}") from None
    if not is_whole:
        raise KeysError("it cannot be read: its signature is not of whole bytes")

    names = found.get(x509.SubjectAlternativeName, ())
    uris = [one.value for one in names if type(one) is x509.UniformResourceIdentifier]
    constraints = found.get(x509.BasicConstraints)
    usage = found.get(x509.KeyUsage)
    return Certificate(
        der=data,
        raw=raw,
        uris=tuple(uris),
        is_authority=constraints is not None and constraints.ca,
        begins=begins,
        ends=ends,
        signs=None if usage is None else usage.digital_signature,
        certifies=usage is not None and (usage.key_cert_sign or usage.crl_sign),
    )


def _check_leaf(leaf: Certificate, client_id: str, provider: Spiffe) -> None:
    """Raise IssuanceError for what is no SVID of that workload (X509-SVID, 4 and 5.2)."""
    if len(leaf.uris) != 1:
        raise _refused(f"it has {len(leaf.uris)} URIs, and an SVID has one")
    (spiffe_id,) = leaf.uris
    if spiffe_id != client_id:
        raise _refused(f"it is of {shown(spiffe_id)}, and not of the client_id")
    if not is_workload_id(spiffe_id, provider.trust_domain):
        raise _refused(f"{shown(spiffe_id)} is no SPIFFE ID of a workload")

    # An authority could sign others, and those who run it are no workload.
    if leaf.is_authority or leaf.certifies:
        raise _refused("it is an authority's")
    if not leaf.signs:
        raise _refused("its key is not for signatures")


def _check_path(svid: Svid, authorities: Key | None, now: int) -> None:
    """Raise IssuanceError unless a path leads to one of these authorities, now (RFC 5280, 6)."""
    with extra("issuance"):
        from cryptography.x509 import verification

    if authorities is None:
        raise _refused("no authority of its trust domain is known")

    # Without a zone, which the library takes for UTC.
    at = datetime.fromtimestamp(now, UTC).replace(tzinfo=None)
    builder = verification.PolicyBuilder().store(authorities.raw).time(at)
    between = [one.raw for one in svid.between]
    try:
        builder.build_client_verifier().verify(svid.leaf.raw, between)
    except Exception as error:  # so that nothing escapes that a stranger's bytes could cause
        raise _refused(
            "no path leads from it to an authority of its trust domain",
            escape(str(error)),
        ) from None


# --- bundles --------------------------------------------------------------------------------------


def read_bundle(data: bytes) -> KeySet:
    """The authorities of a trust domain's bundle: PEM, a SPIFFE bundle, or what an agent tells.

    An agent of SPIFFE tells certificates in DER, one behind the other. What is no authority is
    refused, and the others stand; a bundle may have none any more. Raises KeysError, and JoseError
    for a SPIFFE bundle that is no JSON.
    """
    with extra("issuance"):
        from cryptography.x509 import verification

    good: list[Any] = []
    refused: list[str] = []
    for number, one in enumerate(_certificates_in(data), 1):
        if number > MAX_AUTHORITIES:
            raise KeysError(f"a bundle has at most {MAX_AUTHORITIES} authorities")
        try:
            read = _read(one)
        except KeysError as error:
            refused.append(f"certificate {number}: {error}")
            continue
        if read.is_authority and read.certifies:
            good.append(read.raw)
        else:
            refused.append(f"certificate {number}: it is no authority's")

    keys: dict[str, Key] = {}
    if good:  # the library has no store without any
        keys[AUTHORITIES] = Key(kid=AUTHORITIES, algorithms=(), raw=verification.Store(good))
    return KeySet(keys=keys, refused=tuple(refused))


_PEM = b"-----BEGIN CERTIFICATE-----"
_PEM_END = b"-----END CERTIFICATE-----"


def _certificates_in(data: bytes) -> Iterator[bytes]:
    """The certificates of a bundle, in DER. Raises KeysError, JoseError.

    Which form it has is seen by its first bytes, and not told by whoever sent it.
    """
    if b"PRIVATE KEY-----" in data:
        raise KeysError("the bundle has a private key, which others could sign with")
    if data.lstrip().startswith(b"{"):
        return _in_spiffe_bundle(data)
    return _in_pem(data) if _PEM in data else _in_der(data)


def _in_spiffe_bundle(data: bytes) -> Iterator[bytes]:
    """Of keys for X.509-SVIDs, each has its certificate (SPIFFE Trust Domain and Bundle, 4.2)."""
    found = read_json(data).get("keys")
    if type(found) is not list:
        raise KeysError("a bundle has a list of keys")
    for jwk in found:
        if type(jwk) is not dict or jwk.get("use") != "x509-svid":
            continue
        stated = jwk.get("x5c")
        if type(stated) is not list or len(stated) != 1 or type(stated[0]) is not str:
            raise KeysError("a key for X.509-SVIDs has one certificate in x5c")
        yield _from_base64(stated[0].encode())


def _in_pem(data: bytes) -> Iterator[bytes]:
    """What stands between two marks. What is written beside them is passed over (RFC 7468, 2)."""
    _, *parts = data.split(_PEM)
    for part in parts:
        text, end, _ = part.partition(_PEM_END)
        if not end:
            raise KeysError("a certificate of the bundle has no end")
        yield _from_base64(b"".join(text.split()))


def _from_base64(text: bytes) -> bytes:
    """A certificate in DER. Raises KeysError."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise KeysError("a certificate of the bundle is no base64") from None


def _in_der(data: bytes) -> Iterator[bytes]:
    """Certificates one behind the other: each says how long it is (X.690, 8.1.3)."""
    at = 0
    while at < len(data):
        head = data[at : at + 2]
        if len(head) < 2 or head[0] != 0x30:
            raise KeysError("the bundle is no certificates")

        # A short length, or how many bytes the length has.
        extra_bytes = head[1] & 0x7F if head[1] > 0x7F else 0
        begins = at + 2 + extra_bytes
        ends = begins + (int.from_bytes(data[at + 2 : begins]) if extra_bytes else head[1])
        if ends > len(data):
            raise KeysError("a certificate of the bundle is cut off")
        yield data[at:ends]
        at = ends
