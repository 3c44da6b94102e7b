"""A policy that lets a stranger in does not load: another repository, namespace or tenant at the same issuer.

The specification's rule 44.16. Each row is what somebody would write, and the claims of a stranger whom the issuer would sign such an assertion for.
"""

from __future__ import annotations

from typing import Any

import pytest

from captoken.errors import IssuanceError
from captoken.issuance.claims import Claims, Matcher
from captoken.issuance.policy import SHARED_ISSUERS, read
from captoken.issuance.policy._issuers import KUBERNETES, OF_THE_ASSERTION, fits_a_stranger, issuer_for

GITHUB = "https://token.actions.githubusercontent.com"
GITLAB = "https://gitlab.com"
CLUSTER = "https://cluster.example"
EKS = "https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF"
GOOGLE = "https://accounts.google.com"
TENANT = "https://login.microsoftonline.com/0b0b0b0b-0000-4000-8000-000000000001/v2.0"

# Where an issuer signs for the whole world, what makes an assertion one of ours.
OURS = {
    GITHUB: 'require = { repository_owner_id = "1234567" }',
    GITLAB: 'require = { namespace_id = "77" }',
    GOOGLE: 'require = { sub = "110169484474386276334" }',
}


def policy_of(issuer: str, asks: str, *, subject: str = "w:{sub#}", require: str | None = None) -> str:
    kind = f'kind = "spiffe"\ntrust_domain = "{issuer}"\nbundle = "/run/b.json"' if "://" not in issuer else f'kind = "workload"\nissuer = "{issuer}"'
    return f"""
version = 1
[service]
origin = "https://issuer.example"
[provider.w]
{kind}
{OURS.get(issuer, "") if require is None else require}
subject = "{subject}"
[resource.sales-db]
[grant.nightly]
subject = {{ provider = "w", {asks} }}
agents = ["nightly"]
resources = ["sales-db"]
give = {{ allow = {{ "sales" = ["select"] }}, expires_in = 300 }}
"""


def strange_repository(**claims: Any) -> Claims:
    return {
        "sub": "repo:stranger/evil:ref:refs/heads/main", "repository": "stranger/evil", "repository_id": "666", "repository_owner": "stranger",
        "repository_owner_id": "667", "ref": "refs/heads/main", "event_name": "push", "environment": "production", "actor": "stranger",
        "workflow": "nightly", "job_workflow_ref": "acme/shared/.github/workflows/build.yml@refs/heads/main", "ref_type": "branch",
        "ref_protected": "true", "runner_environment": "github-hosted", "workflow_ref": "stranger/evil/.github/workflows/a.yml@refs/heads/main",
        **claims,
    }  # fmt: skip


def strange_pod(namespace: str = "stranger", name: str = "nightly") -> Claims:
    return {
        "sub": f"system:serviceaccount:{namespace}:{name}",
        "kubernetes.io": {
            "namespace": namespace, "serviceaccount": {"name": name, "uid": "666"}, "pod": {"name": "nightly-1", "uid": "667"}, "node": {"name": "n1"},
        },
    }  # fmt: skip


OPEN: list[tuple[str, str, Claims]] = [
    (GITHUB, 'ref = "refs/heads/main"', strange_repository()),
    (GITHUB, 'event_name = "push"', strange_repository()),
    (GITHUB, 'ref = "refs/heads/main", event_name = "push", environment = "production"', strange_repository()),
    (GITHUB, 'job_workflow_ref = "acme/shared/.github/workflows/build.yml@refs/heads/main"', strange_repository()),
    (GITHUB, "runner_environment = ['github-hosted', 'self-hosted']", strange_repository()),
    (GITHUB, 'sub = ["repo:acme/reports:*", "ref:refs/heads/main"]', strange_repository(sub="ref:refs/heads/main")),
    # A repository says by itself what its `sub` is made of.
    (GITHUB, 'sub = "environment:production"', strange_repository(sub="environment:production")),
    (GITHUB, 'sub = "ref:refs/heads/*"', strange_repository(sub="ref:refs/heads/main")),
    (GITLAB, 'ref = "main", ref_protected = "true"', {"sub": "project_path:stranger/x:ref_type:branch:ref:main", "ref": "main", "ref_protected": "true"}),
    (CLUSTER, 'sub = "system:serviceaccount:*"', strange_pod()),
    (CLUSTER, '"/kubernetes.io/serviceaccount/name" = "nightly"', strange_pod()),
    (CLUSTER, '"/kubernetes.io/pod/name" = "nightly-1", "/kubernetes.io/node/name" = "n1"', strange_pod()),
    (CLUSTER, '"/kubernetes.io/serviceaccount/name" = ["nightly", "other"], "/kubernetes.io/node/name" = { all = ["n1"] }', strange_pod()),
    (EKS, 'role = "batch"', {**strange_pod(), "role": "batch"}),
    ("acme.example", 'sub = "spiffe://acme.example/*"', {"sub": "spiffe://acme.example/ns/stranger/sa/nightly"}),
    (TENANT, 'tid = "0b0b0b0b-0000-4000-8000-000000000001"', {"sub": "s", "tid": "0b0b0b0b-0000-4000-8000-000000000001"}),
]  # fmt: skip

CLOSED = [
    (GITHUB, 'repository_id = "42", ref = "refs/heads/main"'),
    (GITHUB, 'repository = "acme/reports"'),
    (GITHUB, 'repository_owner_id = "1234567", environment = "production"'),
    (GITHUB, 'sub = "repo:acme/reports:*"'),
    (GITHUB, 'sub = "repo:acme/*"'),
    (GITHUB, 'sub = ["repo:acme/reports:ref:refs/heads/main", "repo:acme/sales:*"]'),
    (GITHUB, 'sub = "repository_id:42:environment:production"'),
    (GITLAB, 'project_id = "7", ref = "main"'),
    (GITLAB, 'sub = "project_path:acme/reports:*"'),
    (CLUSTER, 'sub = "system:serviceaccount:risk:*"'),
    (CLUSTER, 'sub = "system:serviceaccount:risk:nightly"'),
    (CLUSTER, '"/kubernetes.io/namespace" = "risk", "/kubernetes.io/serviceaccount/name" = "nightly"'),
    (CLUSTER, '"/kubernetes.io/serviceaccount/uid" = "42"'),
    (CLUSTER, 'repository_id = "42"'),
    (EKS, 'sub = "system:serviceaccount:risk:*"'),
    ("acme.example", 'sub = "spiffe://acme.example/ns/risk/*"'),
    ("acme.example", 'sub = "spiffe://acme.example/nightly"'),
    (GOOGLE, 'sub = "110169484474386276334"'),
    (TENANT, 'oid = "42"'),
]


def _matchers(text: str) -> Any:
    (party,) = read(text).grants["nightly"].parties
    return party


@pytest.mark.parametrize("issuer, asks, stranger", OPEN)
def test_a_grant_that_a_stranger_fits_does_not_load(issuer: str, asks: str, stranger: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IssuanceError) as caught:
        read(policy_of(issuer, asks))
    told = str(caught.value)
    assert told.startswith("the policy does not load: grant.nightly: a stranger at ") and "ask for " in told and " sub as " in told

    # And it is so: without this rule it would load, and fit.
    monkeypatch.setattr("captoken.issuance.policy._grants.fits_a_stranger", lambda *_: False)
    assert _matchers(policy_of(issuer, asks)).misses("w", stranger) is None


@pytest.mark.parametrize("issuer, asks", CLOSED)
def test_a_grant_that_says_who_it_is_loads_and_no_stranger_fits(issuer: str, asks: str) -> None:
    party = _matchers(policy_of(issuer, asks))
    for other, _, stranger in OPEN:
        if other == issuer:
            assert party.misses("w", stranger) is not None


@pytest.mark.parametrize("issuer, asks", [(issuer, asks) for issuer, asks in CLOSED if asks.startswith("sub = ")])
def test_a_wider_one_beside_it_does_not_load(issuer: str, asks: str) -> None:
    """Of a list any will do: one way in that a stranger has is enough."""
    wide = {"acme.example": "spiffe://acme.example/*", CLUSTER: "system:serviceaccount:*", EKS: "system:serviceaccount:*", GITHUB: "repo:*"}
    value = asks.removeprefix("sub = ")
    beside = f'sub = [{value.strip("[]")}, "{wide.get(issuer, "project_path:*")}"]'
    with pytest.raises(IssuanceError, match=r"grant\.nightly.*(a stranger at|is too wide)"):
        read(policy_of(issuer, beside))


@pytest.mark.parametrize("claim", sorted(OF_THE_ASSERTION))
@pytest.mark.parametrize("issuer", [GITHUB, CLUSTER, "acme.example"])
def test_what_is_of_the_assertion_is_asked_by_no_grant_and_names_nobody(claim: str, issuer: str) -> None:
    for spelled in (claim, f'"/{claim}"', f'"/{claim}/a"'):
        for asks in (f'{spelled} = "x"', f'sub = "repo:acme/x:y", {spelled} = "x"'):
            with pytest.raises(IssuanceError, match=r"grant\.nightly\.subject: .* is of the assertion, and says nothing of who"):
                read(policy_of(issuer, asks))
    with pytest.raises(IssuanceError, match=r"provider\.w\.require: .* is of the assertion"):
        read(policy_of(issuer, 'sub = "x"', require=f'require = {{ {claim} = "x" }}'))
    for template in (f"w:{{{claim}}}", f"w:{{{claim}#}}", f"w:{{/{claim}}}", f"w:{{sub#}}/{{{claim}#}}"):
        with pytest.raises(IssuanceError, match=r"provider\.w: subject: .* is of the assertion, and names nobody: write {sub}"):
            read(policy_of(issuer, 'sub = "x"', subject=template))


@pytest.mark.parametrize(
    "issuer, subject",
    [
        (GITHUB, "w:{ref}"), (GITHUB, "w:{environment}/{workflow}"), (GITLAB, "w:{ref}"), (CLUSTER, "w:{/kubernetes.io/pod/ip}"),
        (EKS, "w:{role}"), ("acme.example", "w:{hint}"), (CLUSTER, "w:{acr}"), (CLUSTER, "w:{acr}/{azp#}"),
    ],
)  # fmt: skip
def test_a_name_that_others_could_have_does_not_load(issuer: str, subject: str) -> None:
    with pytest.raises(IssuanceError, match=r"provider\.w: subject: (others at|all who log in alike)"):
        read(policy_of(issuer, 'sub = "repo:acme/x:y"', subject=subject))


@pytest.mark.parametrize("require", ["", "require = { email_verified = true }", 'require = { ref = "refs/heads/main" }', 'require = { event_name = "push" }'])
@pytest.mark.parametrize("issuer", sorted(SHARED_ISSUERS))
def test_of_an_issuer_of_the_whole_world_it_is_required_who_it_is(issuer: str, require: str) -> None:
    with pytest.raises(IssuanceError, match=r"provider\.w: .* signs for the whole world, and any of it would do: `require` .*a sub as "):
        read(policy_of(issuer, 'sub = "x"', require=require))


@pytest.mark.parametrize("issuer", sorted(SHARED_ISSUERS))
def test_and_each_has_a_list_with_which_it_loads(issuer: str) -> None:
    loaded = read(policy_of(GITHUB, 'repository_id = "42"'))
    known = issuer_for(type(loaded.providers["w"])(issuer=issuer))  # type: ignore[call-arg]
    assert known is not None and known.sub.fullmatch(known.example)
    for tells in (*known.tell, "sub"):
        value = known.example if tells == "sub" else "acme"
        read(policy_of(issuer, f'"{tells}" = "{value}"', require=f'require = {{ "{tells}" = "{value}" }}'))


def test_a_claim_that_is_asked_for_as_a_value_and_as_an_object_is_nobodys() -> None:
    """Nor does it open anything: whoever has the one has not the other."""
    assert _matchers(policy_of(CLUSTER, 'a = "x", "/a/b" = "y"'))
    assert _matchers(policy_of(EKS, '"/a/b" = "y", a = "x"')), "nobody fits"


def test_a_claim_that_is_to_be_a_value_and_an_object_is_nobody_s() -> None:
    asked = [Matcher("kubernetes.io", ("x",)), Matcher("/kubernetes.io/node/name", ("n1",))]
    assert not fits_a_stranger(KUBERNETES, asked) and not fits_a_stranger(KUBERNETES, reversed(asked))
    assert fits_a_stranger(KUBERNETES, asked[1:]) and fits_a_stranger(KUBERNETES, asked[:1])
