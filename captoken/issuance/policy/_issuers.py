"""What issuers sign, and for whom: which of their claims say who it is, and which anybody may have.

A stranger at such an issuer, another repository, namespace or tenant, chooses most of what it signs
for them: the branch, the name of a workflow, of a service account. What they cannot have is what it
says of whose they are. `stranger` makes of a grant the most hostile identity that its issuer would
sign: all that can be chosen is as the grant wants it. If it fits, the grant lets anybody in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from captoken.issuance.claims import Matcher, path_of
from captoken.issuance.policy._stated import SHARED_ISSUERS, Provider, Spiffe

# What an assertion says of itself: alike for everybody, or another one each time.
OF_THE_ASSERTION = frozenset(
    (
        "iss",
        "aud",
        "typ",
        "ver",
        "iat",
        "exp",
        "nbf",
        "jti",
        "nonce",
        "at_hash",
        "c_hash",
        "auth_time",
        "sid",
    )
)

# How somebody has logged in, and where: many have it alike, so that it names nobody.
OF_THE_LOGIN = frozenset(("acr", "amr", "azp"))


class KnownIssuer(NamedTuple):
    """A sort of issuer: what of its claims says whose an assertion is."""

    name: str

    # Claims, by their names or as JSON Pointers, beside `sub`.
    tell: tuple[str, ...]

    # The `sub` that says so, as a policy writes it, with or without its `*`; and an example.
    sub: re.Pattern[str]
    example: str

    def is_told_by(self, claim: str) -> bool:
        """Can nobody else have that claim?"""
        return claim in ("sub", "/sub") or claim in self.tell

    def says_who(self, claim: str, value: Any) -> bool:
        """Has no stranger an assertion with that value?"""
        if type(value) is bool:
            return False
        if claim in ("sub", "/sub"):
            return type(value) is str and self.sub.fullmatch(value) is not None
        return self.is_told_by(claim)

    @property
    def what_to_write(self) -> str:
        """For people."""
        claims = f"one of {', '.join(self.tell)}, or " if self.tell else ""
        return f"{claims}a sub as {self.example}"


# A name, and a part that is not only a `*`: `organization:acme:*`, and no `organization:*`.
_EXACT_OR_BELOW = re.compile(r"[^*]+|[^:/*]+[:/]+[^:/*]+[:/].*")

GITHUB = KnownIssuer(
    "GitHub Actions",
    (
        "repository_id",
        "repository_owner_id",
        "repository",
        "repository_owner",
        "workflow_ref",
        "enterprise_id",
        "enterprise",
    ),
    # A repository says itself what its `sub` is made of, so that another one may begin otherwise.
    re.compile(
        r"(repo|repository|repository_id|repository_owner|repository_owner_id):[^:/*]+[:/].+"
    ),
    "repo:acme/reports:*",
)
KUBERNETES = KnownIssuer(
    "Kubernetes",
    (
        "/kubernetes.io/namespace",
        "/kubernetes.io/serviceaccount/uid",
        "/kubernetes.io/pod/uid",
    ),
    re.compile(r"system:serviceaccount:[^:*]+:.+"),
    "system:serviceaccount:reports:*",
)
SPIFFE = KnownIssuer(
    "SPIFFE",
    (),
    re.compile(r"spiffe://[^/*]+/[^/*]+(/.*)?"),
    "spiffe://acme.example/ns/risk/*",
)
_ENTRA = KnownIssuer("Entra", ("tid", "oid"), re.compile(r"[^*]+"), "AAAAAAAAAAAAAAAAAAAAAIkz")

# Its issuer says which tenant it is, so that `tid` tells none of it from another.
_TENANT = KnownIssuer("Entra", ("oid", "azp", "appid", "roles"), *_ENTRA[2:])

# By issuer, which has a path of its own below it where it has one for each tenant.
_KNOWN = {
    "https://token.actions.githubusercontent.com": GITHUB,
    "https://gitlab.com": KnownIssuer(
        "GitLab",
        ("project_id", "namespace_id", "project_path", "namespace_path"),
        re.compile(r"project_path:[^:/*]+/.+"),
        "project_path:acme/reports:*",
    ),
    "https://accounts.google.com": KnownIssuer(
        "Google",
        (
            "hd",
            "email",
            "/google/compute_engine/project_id",
            "/google/compute_engine/project_number",
            "/google/compute_engine/instance_id",
        ),
        re.compile(r"[^*]+"),
        "110169484474386276334",
    ),
    "https://login.microsoftonline.com": _TENANT,
    "https://sts.windows.net": _TENANT,
    "https://agent.buildkite.com": KnownIssuer(
        "Buildkite",
        ("organization_id", "organization_slug", "pipeline_id"),
        _EXACT_OR_BELOW,
        "organization:acme:*",
    ),
    "https://oidc.circleci.com": KnownIssuer(
        "CircleCI",
        ("/oidc.circleci.com~1project-id", "oidc.circleci.com/project-id"),
        _EXACT_OR_BELOW,
        "org/acme/*",
    ),
    "https://app.terraform.io": KnownIssuer(
        "Terraform",
        ("terraform_organization_id", "terraform_workspace_id", "terraform_organization_name"),
        _EXACT_OR_BELOW,
        "organization:acme:*",
    ),
    "https://oidc.vercel.com": KnownIssuer(
        "Vercel",
        ("owner_id", "project_id", "owner"),
        _EXACT_OR_BELOW,
        "owner:acme:*",
    ),
    "https://slack.com": KnownIssuer(
        "Slack",
        ("https://slack.com/team_id", "https://slack.com/user_id"),
        _EXACT_OR_BELOW,
        "U123ABC456",
    ),
    "https://login.salesforce.com": KnownIssuer(
        "Salesforce",
        ("organization_id", "user_id"),
        _EXACT_OR_BELOW,
        "https://login.salesforce.com/id/00D/005",
    ),
}

# Where Kubernetes is run for others.
_is_kubernetes = re.compile(
    r"https://(oidc\.eks\.[^/]+|oidc-eks\.[^/]+|container\.googleapis\.com|"
    r"[^/]+\.oic\.prod-aks\.azure\.com|kubernetes\.default\.svc[^/]*)(/.*)?"
).fullmatch


def issuer_for(provider: Provider, matchers: Iterable[Matcher] = ()) -> KnownIssuer | None:
    """What sort of issuer it is, by its address or by what is asked of it. None: not known here.

    An issuer of the whole world that has no list is known by `sub` alone.
    """
    if isinstance(provider, Spiffe):
        return SPIFFE
    if provider.issuer in SHARED_ISSUERS and "microsoftonline" in provider.issuer:
        return _ENTRA
    for address, known in _KNOWN.items():
        if provider.issuer == address or provider.issuer.startswith(f"{address}/"):
            return known
    if provider.issuer in SHARED_ISSUERS:
        return KnownIssuer(provider.issuer, (), _EXACT_OR_BELOW, "248289761001")
    # A cluster may be anywhere. What is asked of it shows that it is one.
    if _is_kubernetes(provider.issuer) or any(map(_asks_a_cluster, matchers)):
        return KUBERNETES
    return None


def _asks_a_cluster(matcher: Matcher) -> bool:
    if matcher.claim.startswith("/kubernetes.io/"):
        return True
    values = matcher.values if matcher.claim in ("sub", "/sub") else ()
    return any(str(value).startswith("system:serviceaccount:") for value in values)


def fits_a_stranger(issuer: KnownIssuer, matchers: Iterable[Matcher]) -> bool:
    """Does the most hostile identity that the issuer would sign have all that is asked for?"""
    asked = tuple(matchers)
    claims: dict[str, Any] = {}
    for matcher in asked:
        # Any of its values will do, so that the one which is easiest to have is taken.
        free = [value for value in matcher.values if not issuer.says_who(matcher.claim, value)]
        _put(claims, path_of(matcher.claim), free)
    return all(matcher.matches(claims) for matcher in asked)


def _put(claims: dict[str, Any], path: list[str], values: list[Any]) -> None:
    """Put values to those that a claim has."""
    *above, name = path
    for part in above:
        inner = claims.setdefault(part, {})
        # It is asked for as a value as well: then nobody has both.
        if not isinstance(inner, dict):
            return
        claims = inner
    known = claims.setdefault(name, [])
    if isinstance(known, list):
        known += values
