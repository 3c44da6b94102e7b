"""What the service says of itself (RFC 8414), so that clients find its addresses and its ways."""

from __future__ import annotations

from typing import Any

from captoken.adapters._issuance.form import ASSERTION_TYPES, CODE, GRANT_TYPES, REFRESH
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
        # Without a login, some clients want the address all the same, and it says so.
        "authorization_endpoint": f"{origin}/authorize",
        "response_types_supported": [],
        "backchannel_logout_supported": True,
    }
    if policy.login is not None:
        said |= _of_login(policy)
    methods: list[str] = said["token_endpoint_auth_methods_supported"]
    meshes = [one for one in policy.providers.values() if isinstance(one, Spiffe)]
    if meshes:
        methods.append("spiffe_jwt")
    if any(mesh.x509_bundle is not None for mesh in meshes):
        methods.append("spiffe_x509")
    if any(isinstance(provider, IdJag) for provider in policy.providers.values()):
        said["authorization_grant_profiles_supported"] = [_JAG]
        if any(client.secret_sha256 is not None for client in policy.clients.values()):
            methods.append("client_secret_post")
    return said


def _of_login(policy: Policy) -> dict[str, Any]:
    """What applications that people log in with go by (RFC 7636, 9207; MCP)."""
    clients = {client for grant in policy.grants.values() for client in grant.clients}
    has_documents = any(client == "*" or "://" in client for client in clients)
    return {
        "grant_types_supported": [CODE, REFRESH, *GRANT_TYPES],
        "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "client_id_metadata_document_supported": has_documents,
    }
