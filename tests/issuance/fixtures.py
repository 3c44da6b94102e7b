"""The small world of the tests of issuance: a policy, and identities that somebody would have verified."""

from __future__ import annotations

import hashlib
from typing import Any

from captoken import Keyring
from captoken.issuance.desk import Desk
from captoken.issuance.identity import Identity
from captoken.issuance.minting import Ask
from captoken.issuance.policy import Policy, Spiffe, read
from captoken.keys import DischargerKey, HolderKey
from captoken.testing import FixedClock

NOW = 1_764_061_200
KEYRING = Keyring.from_keys({"k1": bytes(range(1, 33))}, current="k1")
LEASE = DischargerKey.from_bytes(bytes(range(2, 34)))
APPROVER = DischargerKey.from_bytes(bytes(range(4, 36)))
HOLDER = HolderKey.from_bytes(bytes(range(3, 35)))

POLICY = f"""
version = 1
[service]
origin = "https://issuer.example"
[provider.acme]
kind = "oidc"
issuer = "https://login.acme.example"
client_ids = ["captoken-cli"]
max_login_age = 28800
subject = "acme:{{sub}}"
[provider.partner]
kind = "id-jag"
issuer = "https://partner.example"
subject = "partner:{{sub#}}"
[provider.mesh]
kind = "spiffe"
trust_domain = "acme.example"
bundle = "/run/bundle.json"
subject = "mesh:{{sub#}}"
[provider.ci]
kind = "workload"
issuer = "https://token.actions.githubusercontent.com"
require = {{ repository_owner_id = "1234567" }}
subject = "ci:{{repository_id}}"
[resource.sales-db]
uris = ["https://sales.example/mcp"]
[resource.scratch-db]
[resource.sentiment-api]
[discharger.approvals]
public = "{APPROVER.public}"
url = "https://approvals.example"

[grant.q3-risk]
subject = {{ provider = "acme", groups = ["finance"], acr = ["mfa"] }}
actor = {{ provider = "mesh", sub = "spiffe://acme.example/ns/risk/*" }}
agents = ["orchestrator", "deputy"]
resources = ["sales-db", "scratch-db"]
bound = true
lease = 60
task_max = 3600
tasks = {{ live = 3, per_day = 20 }}
on = {{ device-compliance-change = {{ operations = ["select"] }} }}
[grant.q3-risk.give]
allow = {{ "sales" = ["select"], "market.*" = ["select"], "scratch.results" = ["insert", "select"] }}
columns = {{ "sales" = ["amount", "region"] }}
expires_in = 900
depth = 3
[grant.q3-sentiment]
subject = {{ provider = "acme", groups = ["finance"] }}
actor = {{ provider = "mesh", sub = "spiffe://acme.example/ns/risk/*" }}
agents = ["orchestrator"]
resources = ["sentiment-api"]
joins = ["q3-risk"]
approval = {{ from = "approvals", need = {{ approve = "sentiment" }} }}
[grant.q3-sentiment.give]
tools = {{ "sentiment.score" = {{ issuer = {{ any = true }} }} }}
budget = {{ usd_cents = 500 }}
expires_in = 600
[grant.reading]
subject = {{ provider = "acme", groups = ["readers"] }}
agents = ["reader"]
resources = ["sales-db", "scratch-db"]
keys = "shared"
give = {{ allow = {{ "sales" = ["select"] }}, expires_in = 300 }}
[grant.nightly]
subject = {{ provider = "ci", repository_id = "42", ref = "refs/heads/main" }}
agents = ["nightly"]
resources = ["sales-db"]
give = {{ allow = {{ "sales" = ["select"] }}, expires_in = 300 }}
[grant.guests]
subject = {{ provider = "partner", aud_sub = "guest" }}
agents = ["guest"]
resources = ["sales-db"]
give = {{ allow = {{ "sales" = ["select"] }}, expires_in = 300 }}

[[test]]
grant = "q3-risk"
subject = {{ provider = "acme", sub = "jane", groups = ["finance"], acr = "mfa" }}
actor = {{ provider = "mesh", sub = "spiffe://acme.example/ns/risk/sa/orchestrator" }}
allows = [{{ table = "sales", operation = "select", columns = ["amount"] }}]
denies = [{{ table = "hr", operation = "select" }}, {{ table = "sales", operation = "update" }}]
[[test]]
subject = {{ provider = "acme", sub = "jane", groups = ["sales"] }}
refused = true
"""


def policy(text: str = POLICY) -> Policy:
    return read(text)


def who(provider: str, of: Policy | None = None, **claims: Any) -> Identity:
    """Somebody by that provider. `digest` is by what the claims say: another assertion is another one."""
    made = (of or policy()).providers[provider]
    return Identity(
        provider=provider,
        kind=type(made).__struct_config__.tag or "",
        issuer=made.trust_domain if isinstance(made, Spiffe) else made.issuer,
        claims={"sub": "jane", **claims},
        digest=hashlib.sha256(repr((provider, sorted(claims.items()))).encode()).digest(),
        issued_at=NOW - 5,
        expires_at=NOW + 295,
    )


def jane(**claims: Any) -> Identity:
    return who("acme", **{"groups": ["finance"], "acr": "mfa", "sid": "s1", **claims})


def pod(name: str = "orchestrator") -> Identity:
    return who("mesh", sub=f"spiffe://acme.example/ns/risk/sa/{name}")


def workflow(**claims: Any) -> Identity:
    return who("ci", **{"repository_id": "42", "ref": "refs/heads/main", "sub": "repo:acme/x:ref:refs/heads/main", **claims})


def desk(of: Policy | None = None, **facts: Any) -> Desk:
    return Desk(of or policy(), KEYRING, **{"lease": LEASE.public, "clock": FixedClock(NOW), **facts})


def ask(**facts: Any) -> Ask:
    return Ask(**{"held": True, **facts})
