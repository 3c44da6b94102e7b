"""The policy file: who may start which task, and what that task may do.

It is TOML, read into typed values. Unknown, ambiguous or contradictory content is refused when the
file is loaded, with its place in the file; nothing is left for the first request to discover.

    version = 1
    [service]
    origin = "https://issuer.example"
    [provider.acme]
    kind = "oidc"
    issuer = "https://login.acme.example"
    client_ids = ["captoken-cli"]
    max_login_age = 28800
    subject = "acme:{sub}"
    [resource.sales-db]
    [grant.q3-risk]
    subject = { provider = "acme", groups = ["finance"] }
    agents = ["orchestrator"]
    resources = ["sales-db"]
    give = { allow = { "sales" = ["select"] }, expires_in = 900 }

A file may have tests of its own (`[[test]]`). They are read here, and run by `desk`.

    _stated      the content of the file, table by table
    _values      its meaning: `Policy`, its grants, and whom they are for
    _places      errors that name the place in the file
    _issuers     the claims of each issuer that say who it is
    _providers   providers, checked
    _grants      grants, checked
    _reading     from the bytes of a file to a policy
"""

from captoken.issuance.policy._reading import read_policy as read
from captoken.issuance.policy._stated import (
    ALGORITHMS,
    EVENTS,
    PER_MINUTE,
    SHARED_ISSUERS,
    AccessToken,
    Approval,
    Client,
    DischargerOf,
    IdJag,
    LoginOf,
    Oidc,
    Provider,
    Proxy,
    Resource,
    Saml,
    Service,
    Signals,
    Spiffe,
    Tasks,
    Test,
    Workload,
)
from captoken.issuance.policy._values import Party, Policy, PolicyGrant

__all__ = [
    "ALGORITHMS",
    "EVENTS",
    "PER_MINUTE",
    "SHARED_ISSUERS",
    "AccessToken",
    "Approval",
    "Client",
    "DischargerOf",
    "IdJag",
    "LoginOf",
    "Oidc",
    "Party",
    "Policy",
    "PolicyGrant",
    "Provider",
    "Proxy",
    "Resource",
    "Saml",
    "Service",
    "Signals",
    "Spiffe",
    "Tasks",
    "Test",
    "Workload",
    "read",
]
