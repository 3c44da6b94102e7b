"""Providers of a policy: what would name nobody, or somebody else, does not load."""

from __future__ import annotations

from typing import Any

import pytest

from captoken.errors import IssuanceError
from captoken.issuance import policy
from captoken.issuance.policy import read
from tests.issuance.saml_idp import (
    IDP,
    certificate,
    policy_text,
    private_pem,
)
from tests.issuance.test_saml import changed

from .fixtures import POLICY


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"issuer": '""'}, "issuer is a URI"),
        ({"issuer": '"a b"'}, "issuer is a URI"),
        ({"issuer": f'"urn:{"x" * 1024}"'}, "issuer is a URI"),
        ({"audience": '""'}, "audience is a URI"),
        ({"recipient": '"ä"'}, "recipient is a URI"),
        ({"max_login_age": "0"}, "max_login_age"),
        ({"max_life": "0"}, "max_life"),
        ({"algorithms": "[]"}, "algorithms are among rsa-sha256"),
        ({"algorithms": '["RS256"]'}, "algorithms are among rsa-sha256"),
        ({"name_ids": "[]"}, "name_ids are among persistent"),
        ({"name_ids": '["entity"]'}, "name_ids are among persistent"),
        ({"name_ids": '["transient"]'}, "names nobody"),
        ({"attributes": '{ sub = "uid" }'}, "is no name for an attribute"),
        ({"attributes": '{ acr = "uid" }'}, "is no name for an attribute"),
        ({"attributes": '{ provider = "uid" }'}, "is no name for an attribute"),
        ({"attributes": '{ "a/b" = "uid" }'}, "is no name for an attribute"),
        ({"attributes": '{ "" = "uid" }'}, "is no name for an attribute"),
        ({"attributes": '{ a = "" }'}, "is no name for an attribute"),
        ({"attributes": '{ a = 1 }'}, "provider.corp.attributes.a must be a str, not int"),
        ({"jwks": '"https://idp.example/keys"'}, "unknown key"),
        ({"subject": '"corp:{email}"'}, "somebody else later"),
    ],
)
def test_86_what_no_assertion_would_match_does_not_load(fields: dict[str, str], says: str) -> None:
    with pytest.raises(IssuanceError, match=says) as told:
        changed(**fields)
    assert told.value.code == "policy"


@pytest.mark.parametrize(
    ("pem", "says"),
    [
        ("", "a file, or their text"),
        ("https://idp.example/metadata", "a file, or their text"),
        ("-----BEGIN CERTIFICATE-----", "no certificates in PEM"),
        (private_pem("rsa"), "a private key"),
        (certificate("weak"), "certificate 1: an RSA key"),
        (certificate("rsa") + certificate("weak"), "certificate 2: an RSA key"),
    ],
)
def test_86_certificates_that_are_none_do_not_load(pem: str, says: str) -> None:
    with pytest.raises(IssuanceError, match=says):
        policy.read(policy_text().replace(certificate("rsa"), pem))


def test_an_entity_id_is_any_uri_and_certificates_may_lie_in_a_file() -> None:
    text = policy_text().replace(f"'''\n{certificate('rsa')}'''", '"idp.pem"').replace(IDP, "urn:example:idp")
    provider: Any = policy.read(text).providers["corp"]
    assert (provider.certificates, provider.issuer, provider.name_ids) == ("idp.pem", "urn:example:idp", ("persistent",))


@pytest.mark.parametrize(
    "provider",
    [
        'kind = "oidc"\nissuer = "https://login.acme.example"\nclient_ids = ["other"]\nmax_login_age = 60\nsubject = "other:{sub}"',
        'kind = "spiffe"\ntrust_domain = "acme.example"\nbundle = "/run/other.json"',
        'kind = "id-jag"\nissuer = "https://partner.example"',
    ],
)
def test_two_providers_of_one_kind_and_issuer_do_not_load(provider: str) -> None:
    """An assertion is of a provider by its issuer and kind, and so of neither."""
    with pytest.raises(IssuanceError, match=r"provider\.again: kind and issuer are those of \w+: make it one"):
        read(POLICY.replace("[resource.sales-db]", f"[provider.again]\n{provider}\n[resource.sales-db]"))
    # Of another kind, or of an issuer that is spelled otherwise, it is another one.
    read(POLICY.replace("[resource.sales-db]", '[provider.again]\nkind = "access-token"\nissuer = "https://login.acme.example"\n[resource.sales-db]'))
    read(POLICY.replace("[resource.sales-db]", '[provider.again]\nkind = "id-jag"\nissuer = "https://partner.example/"\n[resource.sales-db]'))


def test_signals_start_nothing() -> None:
    signals = '[provider.events]\nkind = "signals"\nissuer = "https://login.acme.example"\nabout = "acme"\naudience = "https://issuer.example"\n'
    read(POLICY.replace("[resource.sales-db]", signals + "[resource.sales-db]"))
    with pytest.raises(IssuanceError, match="sends events"):
        read(POLICY.replace("[resource.sales-db]", signals + "[resource.sales-db]").replace('provider = "ci", rep', 'provider = "events", rep'))


def test_a_client_has_the_digest_of_a_secret() -> None:
    client = '[client.desk]\nsecret_sha256 = "{}"\n[resource.sales-db]'
    assert read(POLICY.replace("[resource.sales-db]", client.format("0a" * 32))).clients
    for wrong in ("0A" * 32, "0a" * 31, "secret"):
        with pytest.raises(IssuanceError, match="secret_sha256"):
            read(POLICY.replace("[resource.sales-db]", client.format(wrong)))
