"""Providers of the tests, their keys, and what they sign. Every text is signed by the right key, unless that is the fault."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from captoken._format.encoding import b64encode
from captoken.issuance import identity, policy
from captoken.issuance.identity import Identity
from captoken.issuance.jose import Key, key_set

NOW = 1_800_000_000
US = "https://issuer.example"
TENANT = "5e1a7d4c-0000-4000-8000-00000000e4a1"

TEXT = f"""
version = 1
[service]
origin = "{US}"
[provider.acme]
kind = "oidc"
issuer = "https://login.acme.example"
client_ids = ["captoken-cli", "captoken-web"]
max_login_age = 28800
subject = "acme:{{sub}}"
[provider.acme-api]
kind = "access-token"
issuer = "https://login.acme.example"
[provider.hub]
kind = "id-jag"
issuer = "https://hub.example"
[provider.keycloak]
kind = "oidc"
issuer = "https://keycloak.example/realms/acme"
client_ids = ["captoken-cli"]
max_login_age = 28800
subject = "keycloak:{{sub}}"
[provider.mesh]
kind = "spiffe"
trust_domain = "acme.example"
bundle = "https://spire.acme.example/bundle"
subject = "mesh:{{sub}}"
[provider.cluster]
kind = "workload"
issuer = "https://cluster.example"
subject = "cluster:{{/kubernetes.io/serviceaccount/uid}}"
[provider.ci]
kind = "workload"
issuer = "https://token.actions.githubusercontent.com"
require = {{ repository_owner_id = "65" }}
subject = "ci:{{repository_id}}"
[provider.lab]
kind = "workload"
issuer = "https://gitlab.com"
require = {{ namespace_id = "72" }}
subject = "lab:{{project_id}}"
[provider.google]
kind = "workload"
issuer = "https://accounts.google.com"
require = {{ "/google/compute_engine/project_number" = 739419398126 }}
subject = "google:{{sub}}"
[provider.aws]
kind = "workload"
issuer = "https://abc123-def456-ghi789-jkl012.tokens.sts.global.api.aws"
require = {{ "/https:~1~1sts.amazonaws.com~1/org_id" = "o-abc1234567" }}
subject = "aws:{{sub#}}"
[provider.azure]
kind = "workload"
issuer = "https://login.microsoftonline.com/{TENANT}/v2.0"
require = {{ tid = "{TENANT}", idtyp = "app" }}
max_life = 90000
subject = "azure:{{oid}}"
[provider.narrow]
kind = "workload"
issuer = "https://narrow.example"
algorithms = ["ES256"]
max_life = 600
[provider.events]
kind = "signals"
issuer = "https://login.acme.example"
about = "acme"
audience = "{US}/signals"
[resource.sales-db]
[grant.nightly]
subject = {{ provider = "ci", repository_id = "74" }}
agents = ["nightly"]
resources = ["sales-db"]
give = {{ allow = {{ "sales" = ["select"] }}, expires_in = 300 }}
"""
POLICY = policy.read(TEXT)

# `typ` that assertions of a kind come with here.
TYPES = {"access-token": "at+jwt", "id-jag": "oauth-id-jag+jwt"}


def private(provider: str, alg: str = "ES256") -> Any:
    """A provider's private key for an algorithm: joserfc's."""
    return _made(provider, alg)


@cache
def _made(provider: str, alg: str) -> Any:
    match alg:
        case "RS256" | "PS256":
            return RSAKey.generate_key(2048)
        case "Ed25519" | "EdDSA":
            return OKPKey.generate_key("Ed25519")
    return ECKey.generate_key({"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}[alg])


def jwk(provider: str, alg: str = "ES256", **more: Any) -> dict[str, Any]:
    """The entry of it in the provider's key set."""
    public = private(provider, alg).as_dict(private=False)
    return {**public, "kid": f"{provider}-{alg}", "use": "sig", "alg": alg} | more


def document(*keys: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


@cache
def keys(provider: str, kid: str) -> Key | None:
    """The keys of all providers, by the id that tells the algorithm."""
    owner, _, alg = kid.rpartition("-")
    if owner != provider or alg not in policy.ALGORITHMS:
        return None
    return key_set(document(jwk(owner, alg))).keys[kid]


def joined(header: bytes, payload: bytes, signer: Any, alg: str) -> str:
    """A signed text of these bytes, whatever they are. EdDSA is Ed25519: joserfc warns of the name."""
    signed = f"{b64encode(header)}.{b64encode(payload)}"
    model = JWSRegistry.algorithms["Ed25519" if alg == "EdDSA" else alg]
    return f"{signed}.{b64encode(model.sign(signed.encode(), signer))}"


def signed(
    provider: str,
    claims: Mapping[str, Any],
    alg: str = "ES256",
    header: Mapping[str, Any] | None = None,
    without: tuple[str, ...] = (),
) -> str:
    """Claims, signed by a provider's key. `header` is put over what is right, and `without` taken out of it."""
    kind = identity.kind_of(POLICY.providers[provider])
    made = {"alg": alg, "kid": f"{provider}-{alg}", "typ": TYPES.get(kind, "JWT")} | dict(header or {})
    made = {name: value for name, value in made.items() if name not in without}
    return joined(json.dumps(made).encode(), json.dumps(claims).encode(), private(provider, alg), alg)


LIVE = {"iat": NOW - 10, "exp": NOW + 290}
LOGIN = {
    "iss": "https://login.acme.example",
    "sub": "jane",
    "aud": "captoken-cli",
    "auth_time": NOW - 60,
    "acr": "mfa",
    "sid": "s-1",
    "groups": ["finance"],
    **LIVE,
}
ACCESS = {"iss": "https://login.acme.example", "sub": "jane", "aud": US, "client_id": "reporter", "jti": "t-1", "scope": "q3", **LIVE}
ID_JAG = {"iss": "https://hub.example", "sub": "jane", "aud": US, "client_id": "agent-app", "jti": "j-1", "resource": "https://sales.example/mcp", **LIVE}
WORKLOAD = {"iss": "https://cluster.example", "sub": "system:serviceaccount:risk:orchestrator", "aud": [US], **LIVE}
SVID = {"sub": "spiffe://acme.example/ns/risk/sa/orchestrator", "aud": [US], **LIVE}
NARROW = {"iss": "https://narrow.example", "sub": "worker", "aud": US, **LIVE}


def verify(text: Any, *takes: str, now: int = NOW, over: policy.Policy = POLICY, by: identity.Keys = keys) -> Identity:
    """As in the place for a subject, unless some kinds are named."""
    return identify(text, over, by, now, US, takes or identity.SUBJECTS)


def identify(text: Any, over: policy.Policy, by: identity.Keys, now: int, audience: str, takes: Collection[str]) -> Identity:
    """Who a text says that somebody is, with the keys at hand."""
    return identity.identify(identity.open_assertion(text, over, takes), over, by, now, audience)


def needed_key(text: Any, over: policy.Policy, takes: Collection[str]) -> tuple[str, str]:
    """The provider and the id of the key that a text says it is signed with."""
    opened = identity.open_assertion(text, over, takes)
    return opened.name, opened.kid


def without(claims: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in claims.items() if name not in names}
