"""What the service says of itself (RFC 8414), so that clients find its addresses and its ways."""

from __future__ import annotations

from typing import Any

from captoken.adapters._issuance.form import ASSERTION_TYPES, GRANT_TYPES
from captoken.issuance.policy import ALGORITHMS, IdJag, Policy, Spiffe

PATH = "/.well-known/oauth-authorization-server"
_JAG = "urn:ietf:params:oauth:grant-profile:id-jag"


def metadata(policy: Policy) -> dict[str, Any]:
    """The document. It names no grant: what a policy holds is nobody's business."""
    origin = policy.origin
    said: dict[str, Any] = {
        "issuer": origin,
        "token_endpoint": f"{origin}/token",
        "grant_types_supported": list(GRANT_TYPES),
        # No secret is taken; `private_key_jwt` is what clients call a signed assertion.
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "client_assertion_types_supported": list(ASSERTION_TYPES),
        "dpop_signing_alg_values_supported": ["EdDSA", "Ed25519"],
        "authorization_details_types_supported": ["captoken"],
        # There is no login here. Some clients want the address all the same, and it says so.
        "authorization_endpoint": f"{origin}/authorize",
        "response_types_supported": [],
        "backchannel_logout_supported": True,
    }
    methods: list[str] = said["token_endpoint_auth_methods_supported"]
    meshes = [one for one in policy.providers.values() if isinstance(one, Spiffe)]
    if meshes:
        methods.append("spiffe_jwt")
    if any(mesh.x509_bundle is not None for mesh in meshes):
        methods.append("spiffe_x509")
    if any(isinstance(provider, IdJag) for provider in policy.providers.values()):
        said["authorization_grant_profiles_supported"] = [_JAG]
        if policy.clients:
            methods.append("client_secret_post")
    return said
