"""The policy file: it loads, or says what is wrong and where (case 86)."""

from __future__ import annotations

import pytest

from captoken.errors import IssuanceError
from captoken.issuance import desk
from captoken.issuance.policy import Oidc, read

from .fixtures import POLICY, policy


def test_the_example_loads_and_its_tests_hold() -> None:
    loaded = policy()
    assert list(loaded.grants) == ["q3-risk", "q3-sentiment", "reading", "nightly", "guests"]
    risk = loaded.grants["q3-risk"]
    assert (risk.expires_in, risk.counts, risk.bound, risk.lease, risk.shares_keys) == (900, False, True, 60, False)
    assert loaded.grants["q3-sentiment"].counts and loaded.grants["reading"].shares_keys
    assert loaded.resource_of("sales-db") == loaded.resource_of("https://sales.example/mcp") == "sales-db"
    assert loaded.resource_of("https://sales.example/mcp/") is None and isinstance(loaded.providers["acme"], Oidc)
    assert len(loaded.digest) == 22 and loaded.digest != read(POLICY + "\n").digest
    desk.check_policy(loaded)
    assert read(POLICY.encode()).digest == loaded.digest


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("version = 1", "version = 2", "version"),
        ("max_login_age = 28800", "max_login_age = 28800\nmax_logn_age = 1", "provider.acme has an unknown key"),
        ("lease = 60", "lease = '60'", "grant.q3-risk.lease must be an int, not str"),
        ("[resource.scratch-db]", "[resource]\nscratch-db = 3", "resource.scratch-db must be a mapping, not int"),
        ("[service]", "grant = 3\n[service]", "TOML"),
        ("version = 1", "version = 1\nnew = 1", "unknown key"),
        ("[service]", "[service", "this is not TOML"),
        ('origin = "https://issuer.example"', 'origin = "http://issuer.example"', "service.origin"),
        ('origin = "https://issuer.example"', 'origin = "https://u:p@issuer.example"', "service.origin"),
        ('origin = "https://issuer.example"', 'origin = "https://issuer.example:x"', "service.origin"),
        ('origin = "https://issuer.example"', 'origin = "issuer"', "service.origin"),
        ('origin = "https://issuer.example"', 'origin = "https://issuer example"', "service.origin"),
        ('kind = "oidc"', 'kind = "oidc2"', "kind must be one of oidc, access-token, id-jag, workload, spiffe, saml, signals, not 'oidc2'"),
        ('client_ids = ["captoken-cli"]', "client_ids = []", "client_ids"),
        ("max_login_age = 28800", "max_login_age = 0", "max_login_age"),
        ("max_login_age = 28800", "max_login_age = 28800\nmax_life = 0", "max_life"),
        ("max_login_age = 28800", 'max_login_age = 28800\nalgorithms = ["HS256"]', "algorithms"),
        ("max_login_age = 28800", "max_login_age = 28800\nalgorithms = []", "algorithms"),
        ("max_login_age = 28800", 'max_login_age = 28800\nsecret = "x"', "unknown key"),
        ('issuer = "https://login.acme.example"', 'issuer = "http://login.acme.example"', "provider.acme.issuer"),
        ('subject = "acme:{sub}"', 'subject = "acme:{email}"', "somebody else later"),
        ('subject = "acme:{sub}"', 'subject = "ci:{sub}"', "could be those of provider"),
        ('subject = "acme:{sub}"', 'subject = "c{sub}"', "could be those of provider"),
        ('subject = "acme:{sub}"', "", "does not say how its subjects are named"),
        ('trust_domain = "acme.example"', 'trust_domain = "spiffe://acme.example"', "trust_domain"),
        ('trust_domain = "acme.example"', 'trust_domain = "Acme.example"', "trust_domain"),
        ('require = { repository_owner_id = "1234567" }', "", "the whole world"),
        ('require = { repository_owner_id = "1234567" }', "require = { a = [] }", "provider.ci.require"),
        ('uris = ["https://sales.example/mcp"]', 'uris = ["scratch-db"]', "another resource"),
        ("[resource.scratch-db]", '[resource.scratch-db]\nuris = ["https://sales.example/mcp"]', "another resource"),
        ("[resource.scratch-db]", '[resource."scratch db"]', "resource.scratch db"),
        ("url = ", "url2 = ", "unknown key"),
        ('url = "https://approvals.example"', 'url = "ftp://approvals.example"', "discharger.approvals.url"),
        ('agents = ["nightly"]', "agents = []", "agents"),
        ('agents = ["nightly"]', 'agents = ["a b"]', "not a name"),
        ('agents = ["nightly"]\nresources = ["sales-db"]', 'agents = ["nightly"]\nresources = []', "resources"),
        ('agents = ["nightly"]\nresources = ["sales-db"]', 'agents = ["nightly"]\nresources = ["hr-db"]', "no resource hr-db"),
        ("[grant.nightly]", '[grant."night/ly"]', "no slash"),
        ("[grant.nightly]", '[grant."night ly"]', "not a name"),
        ('subject = { provider = "ci", repository_id = "42", ref = "refs/heads/main" }', "", "neither subject nor actor"),
        ('subject = { provider = "ci", repository_id = "42", ref = "refs/heads/main" }', 'subject = { provider = "ci" }', "any workload"),
        ('subject = { provider = "ci", repository_id = "42", ref = "refs/heads/main" }', 'subject = { provider = "x", a = 1 }', "provider names"),
        ('subject = { provider = "ci", repository_id = "42", ref = "refs/heads/main" }', "subject = { a = 1 }", "provider names"),
        ('subject = { provider = "ci", repository_id = "42", ref = "refs/heads/main" }', 'subject = { provider = "ci", sub = "*" }', "only sub may"),
        ("expires_in = 300 }\n[grant.guests]", "expires_in = 7200 }\n[grant.guests]", "outlives the task"),
        ("expires_in = 300 }\n[grant.guests]", "unrestricted = true }\n[grant.guests]", "not for a policy to say"),
        ("expires_in = 300 }\n[grant.guests]", 'audience = "x" }\n[grant.guests]', "not for a policy to say"),
        ("expires_in = 300 }\n[grant.guests]", "tabels = 3 }\n[grant.guests]", "grant.nightly.give"),
        ("task_max = 3600", "task_max = 0", "outlives the task"),
        ('subject = "acme:{sub}"', 'subject = "acme:{/email}"', "somebody else later"),
        ('subject = "acme:{sub}"', 'subject = "acme:{/a/email#}"', "somebody else later"),
        ("expires_in = 300 }\n[grant.guests]", 'ext = { "a:b" = 1 } }\n[grant.guests]', "not for a policy to say"),
        ('need = { approve = "sentiment" }', "need = { approve = 1.5 }", "grant.q3-sentiment.approval"),
        ('need = { approve = "sentiment" }', "need = { approve = 2026-01-01 }", "grant.q3-sentiment.approval"),
        ('{ operations = ["select"] } }', '{ key = "x" } }', "an event narrows"),
        ('{ operations = ["select"] } }', "{} }", "an event narrows"),
        ('require = { repository_owner_id = "1234567" }', 'require = { iss = "https://token.actions.githubusercontent.com" }', "iss is of the assertion"),
        ('sub = "spiffe://acme.example/ns/risk/*"', 'sub = "spiffe:*"', "too wide"),
        ('sub = "spiffe://acme.example/ns/risk/*"', 'sub = "spiffe://*"', "too wide"),
        ('origin = "https://issuer.example"', 'origin = "https://issuer.example?x"', "no query"),
        ('origin = "https://issuer.example"', 'origin = "https://issuer.example/"', "no slash at its end"),
        ("lease = 60", "lease = 1000", "lease"),
        ("lease = 60", "lease = -1", "lease"),
        ("live = 3", "live = 0", "tasks are numbers"),
        ("device-compliance-change", "session-revoked", "is none of"),
        ('{ operations = ["select"] } }', '{ operations = ["delete"] } }', "grant.q3-risk.on"),
        ('resources = ["sentiment-api"]', 'resources = ["sentiment-api", "sales-db"]', "counted in one place"),
        ('joins = ["q3-risk"]', 'joins = ["q9"]', "no other grant"),
        ('joins = ["q3-risk"]', 'joins = ["q3-sentiment"]', "no other grant"),
        ('from = "approvals"', 'from = "nobody"', "no discharger nobody"),
        ('keys = "shared"', 'keys = "each one"', "keys must be one of each, shared, not 'each one'"),
        ('grant = "q3-risk"\nsubject', 'grant = "q9"\nsubject', "there is no grant q9"),
        ("refused = true", "", "test 2"),
        ("refused = true", 'refused = true\nallows = [{ table = "sales", operation = "select" }]', "test 2"),
        ('denies = [{ table = "hr"', 'denies = [{ tabel = "hr"', "test 1"),
        ('[[test]]\nsubject = { provider = "acme"', '[[test]]\nsubject = { provider = "nobody"', "test 2"),
    ],
)  # fmt: skip
def test_what_does_not_load_says_why(old: str, new: str, says: str) -> None:
    assert POLICY.count(old) >= 1, old
    with pytest.raises(IssuanceError) as caught:
        read(POLICY.replace(old, new))
    assert caught.value.code == "policy" and says in str(caught.value), str(caught.value)


@pytest.mark.parametrize("text", [b"\xff", "a = " + "[" * 5000, "", "version = 1"], ids=["no text", "nested", "empty", "little"])
def test_what_is_no_policy_at_all(text: str | bytes) -> None:
    with pytest.raises(IssuanceError, match="does not load"):
        read(text)


@pytest.mark.parametrize(
    "old, new, says",
    [
        ('denies = [{ table = "hr"', 'denies = [{ table = "market.eu"', "q3-risk allows"),
        ('columns = ["amount"] }]', 'columns = ["pay"] }]', "q3-risk denies"),
        ("refused = true", 'allows = [{ table = "sales", operation = "select" }]', "test 2: it is refused: no grant is for this caller"),
        ('groups = ["sales"] }\nrefused', 'groups = ["readers"] }\nrefused', "test 2: it is granted, as reading"),
    ],
)
def test_a_test_of_the_file_that_fails_says_what_came(old: str, new: str, says: str) -> None:
    assert POLICY.count(old) == 1, old
    loaded = read(POLICY.replace(old, new))
    with pytest.raises(IssuanceError) as caught:
        desk.check_policy(loaded)
    assert says in str(caught.value) and caught.value.code == "policy"
