"""Make and check a DPoP proof at the token endpoint: the client has an Ed25519 key (RFC 9449).

The root token is then bound to that key, and servers accept captoken's own proofs by it. So other
kinds of keys are useless here, and are refused. A proof is for one request at one address, and
valid for a minute. The registry ensures that it is used once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from captoken._format import primitives
from captoken._format.encoding import EncodingError, b64decode, b64encode
from captoken._format.errors import IssuanceError
from captoken._format.public_keys import signing_key
from captoken.issuance.jose import JoseError, Json, UnverifiedJwt, taken_apart
from captoken.proof import Signer

# Seconds that a proof may be old, and that its clock may be ahead.
PAST = 60
AHEAD = 30

_HEADER = frozenset(("typ", "alg", "jwk"))
_ALGORITHMS = ("EdDSA", "Ed25519")

# Of the key: what it is, and what may stand beside it. Not `d`, the secret half.
_JWK = frozenset(("kty", "crv", "x", "kid", "use", "alg"))


class Proven(msgspec.Struct, frozen=True):
    """A key that somebody has proven to have."""

    # The public key, as base64url.
    key: str

    # Of the proof, which is good once; and from when on it is refused by its age.
    digest: bytes
    issued_at: int
    until: int


def proof_for(
    signer: Signer,
    *,
    method: str,
    url: str,
    now: int,
    random: Callable[[int], bytes],
) -> str:
    """A proof for one request: its method, its address, and the time.

    Raises what the signer does, and ValueError for a public key that is none.
    """
    public = b64encode(signing_key(signer.public))
    header = {
        "typ": "dpop+jwt",
        "alg": "EdDSA",
        "jwk": {"kty": "OKP", "crv": "Ed25519", "x": public},
    }
    claims = {
        "jti": b64encode(random(16)),
        "htm": method,
        "htu": url,
        "iat": now,
    }
    signed = f"{_spelled(header)}.{_spelled(claims)}"
    return f"{signed}.{b64encode(signer.sign(signed.encode()))}"


def _spelled(stated: Any) -> str:
    """A part of the proof, in base64url."""
    return b64encode(json.dumps(stated, separators=(",", ":")).encode())


def proven_key(
    proof: bytes,
    *,
    method: str,
    url: str,
    now: int,
) -> Proven:
    """The key that a proof is by. Raises IssuanceError, `invalid_dpop_proof`.

    Does not check whether the proof was used before: the registry does.
    """
    try:
        read = taken_apart(proof.decode("ascii"))
    except UnicodeDecodeError:
        raise _refused("it is no text") from None
    except JoseError as error:
        raise _refused(str(error)) from None

    public = _key_of(read.header)
    if not primitives.signed(public, read.signed, read.signature):
        raise _refused("its signature does not hold")
    issued_at = _issued_at(read, method, url, now)
    return Proven(
        key=b64encode(public),
        digest=primitives.sha256(read.signed),
        issued_at=issued_at,
        until=issued_at + PAST + 1,
    )


def _key_of(header: Json) -> bytes:
    """The key in the header, which the proof itself names. Raises IssuanceError."""
    if header.keys() != _HEADER or header["typ"] != "dpop+jwt":
        raise _refused("its header has typ, alg and jwk, and the typ is dpop+jwt")

    jwk = header["jwk"]
    if header["alg"] not in _ALGORITHMS or type(jwk) is not dict or not jwk.keys() <= _JWK:
        raise _refused("its key is a public Ed25519 key")
    is_ed25519 = jwk.get("kty") == "OKP" and jwk.get("crv") == "Ed25519"
    if not is_ed25519 or type(jwk.get("x")) is not str:
        raise _refused("its key is a public Ed25519 key")
    try:
        return signing_key(b64decode(jwk["x"]))
    except (EncodingError, ValueError):
        raise _refused("its key is no Ed25519 key") from None


def _issued_at(read: UnverifiedJwt, method: str, url: str, now: int) -> int:
    """When it was made. Raises IssuanceError for one of another request, or of another time."""
    claims = read.claims
    jti = claims.get("jti")
    if type(jti) is not str or not jti:
        raise _refused("it has no jti")
    if claims.get("htm") != method or claims.get("htu") != url:
        raise _refused(f"it is for {method} {url}, or for nothing here")

    issued_at = claims.get("iat")
    if type(issued_at) is not int or not now - PAST <= issued_at <= now + AHEAD:
        raise _refused("it was not made just now: its iat is of another time, or missing")
    return issued_at


def _refused(why: str) -> IssuanceError:
    """What is raised for a proof that will not do. Made here, raised by the caller."""
    return IssuanceError(f"the DPoP proof is refused: {why}", "invalid_dpop_proof")
