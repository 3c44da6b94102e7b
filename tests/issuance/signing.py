"""Providers of the tests: keys that sign assertions, and the documents of their public halves."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from captoken.keys import HolderKey
from captoken.proof import Signer


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def spelled(value: Any) -> str:
    return b64(json.dumps(value, separators=(",", ":")).encode())


class Provider:
    """An issuer with one ES256 key."""

    def __init__(self, kid: str = "key-1") -> None:
        self.kid = kid
        self._key = ec.generate_private_key(ec.SECP256R1())

    def jwk(self, **members: Any) -> dict[str, Any]:
        point = self._key.public_key().public_numbers()
        return {
            "kty": "EC", "crv": "P-256", "kid": self.kid, "use": "sig",
            "x": b64(point.x.to_bytes(32, "big")), "y": b64(point.y.to_bytes(32, "big")), **members,
        }  # fmt: skip

    def private(self) -> dict[str, Any]:
        """The same with its secret half, for clients that sign by themselves."""
        secret = self._key.private_numbers().private_value
        return {**self.jwk(alg="ES256"), "d": b64(secret.to_bytes(32, "big"))}

    def jwks(self, **members: Any) -> bytes:
        return json.dumps({"keys": [self.jwk(**members)]}).encode()

    def sign(self, claims: Mapping[str, Any], **header: Any) -> str:
        made = {"alg": "ES256", "kid": self.kid, **header}
        signed = f"{spelled({key: value for key, value in made.items() if value is not None})}.{spelled(claims)}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def dpop(holder: HolderKey | Signer, url: str, now: int, **claims: Any) -> str:
    """A DPoP proof of that key for a POST to that address."""
    assert isinstance(holder, HolderKey)
    header = claims.pop("header", {})
    made = {
        "typ": "dpop+jwt", "alg": "EdDSA", "jwk": {"kty": "OKP", "crv": "Ed25519", "x": holder.public}, **header,
    }  # fmt: skip
    said = {"jti": "j1", "htm": "POST", "htu": url, "iat": now, **claims}
    signed = f"{spelled(made)}.{spelled({key: value for key, value in said.items() if value is not None})}"
    return f"{signed}.{b64(holder.sign(signed.encode()))}"
