"""SAML: an assertion says who asks, and whatever is wrapped, hidden or doubled in it is refused, each beside its twin that is good.

The numbers are those of the list of what must be denied. Canonical bytes and signatures are lxml's and cryptography's.
"""

from __future__ import annotations

import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lxml import etree
from msgspec import structs

from captoken._format.encoding import b64decode, b64encode
from captoken._format.errors import IssuanceError
from captoken.errors import CaptokenError
from captoken.issuance import identity, policy, signed_xml
from captoken.issuance.identity import ACTORS, SUBJECTS, Identity
from captoken.issuance.jose import JoseError, Key
from captoken.issuance.registry.ports import LEEWAY
from captoken.issuance.signed_xml import CERTIFICATES, certificates
from tests.issuance.assertions import identify, needed_key
from tests.issuance.saml_idp import (
    BEARER,
    EXCLUSIVE,
    IDP,
    MFA,
    MORE,
    NOW,
    PARTS,
    PERSISTENT,
    SAML,
    SHA256,
    TRANSFORMS,
    US,
    assertion,
    at,
    certificate,
    login,
    placed,
    policy_text,
    private_pem,
    sign,
    signature_over,
    token,
)
from tests.longer import times

POLICY = policy.read(policy_text())


def keys_of(*names: str) -> identity.Keys:
    """The keys of the provider `corp`: those of these certificates."""
    found = certificates("".join(map(certificate, names)).encode()).keys
    return lambda provider, kid: found.get(kid) if provider == "corp" else None


KEYS = keys_of("rsa")


def verify(text: Any, *, now: int = NOW, over: policy.Policy = POLICY, by: identity.Keys = KEYS) -> Identity:
    return identify(text, over, by, now, US, ("saml",))


def refused(text: Any, says: str, **how: Any) -> IssuanceError:
    """The one family, whose message holds nothing of the signature."""
    with pytest.raises(CaptokenError, match=says) as told:
        verify(text, **how)
    assert type(told.value) is IssuanceError and told.value.code == "invalid_grant"
    assert str(told.value).startswith("the assertion is refused: ")
    return told.value


def changed(**fields: str) -> policy.Policy:
    """The policy with other lines, or more of them, for the provider."""
    lines = "\n".join(f"{name} = {value}" for name, value in fields.items())
    provider, resource, rest = policy_text().partition("[resource.")
    kept = "\n".join(line for line in provider.splitlines() if line.partition(" ")[0] not in fields)
    return policy.read(f"{kept}\n{lines}\n{resource}{rest}")


# --- what is good ---------------------------------------------------------------------------------


def test_a_login_says_who_it_is() -> None:
    text = login()
    who = verify(text)
    assert (who.provider, who.kind, who.issuer, who.sub, who.session, who.auth_time, who.acr) == ("corp", "saml", IDP, "jane", "s-1", NOW - 60, MFA)
    assert (who.issued_at, who.expires_at, who.client_id) == (NOW - 10, NOW + 290 + LEEWAY, None)
    assert who.claims == {
        "iss": IDP, "jti": "_a1", "nonce": "_q1", "iat": NOW - 10, "exp": NOW + 290, "nbf": NOW - 40, "aud": US, "recipient": f"{US}/token", "sub": "jane",
        "name_id": "persistent", "auth_time": NOW - 60, "sid": "s-1", "acr": MFA, "groups": ["finance", "staff"], "department": "risk & audit",
    }  # fmt: skip
    assert needed_key(text, POLICY, ("saml",)) == ("corp", CERTIFICATES)
    assert POLICY.subjects["corp"].subject(who.issuer, who.claims) == "corp:jane"


def test_it_is_good_in_its_place_and_in_no_other() -> None:
    text = login()
    assert identify(text, POLICY, KEYS, NOW, US, SUBJECTS) == verify(text)
    for takes in (ACTORS, SUBJECTS - {"saml"}, ("oidc",)):
        with pytest.raises(IssuanceError, match="three parts"):
            identify(text, POLICY, KEYS, NOW, US, takes)
    # And a JWT that says it is of that issuer is of no kind.
    header, claims = b64encode(b'{"alg":"RS256","kid":"certificates"}'), b64encode(b'{"iss":"%s"}' % IDP.encode())
    for takes in (("saml",), SUBJECTS):
        with pytest.raises(IssuanceError, match="typ None is not for this place"):
            identify(f"{header}.{claims}.AA", POLICY, KEYS, NOW, US, takes)


@pytest.mark.parametrize(
    ("key", "method", "hash"),
    [
        ("rsa", "rsa-sha256", SHA256),
        ("rsa", "rsa-sha384", f"{MORE}sha384"),
        ("rsa", "rsa-sha512", "http://www.w3.org/2001/04/xmlenc#sha512"),
        ("P-256", "ecdsa-sha256", SHA256),
        ("P-384", "ecdsa-sha384", f"{MORE}sha384"),
        ("P-521", "ecdsa-sha512", SHA256),
        ("P-521", "ecdsa-sha256", SHA256),
    ],
)
def test_every_algorithm_of_the_policy_is_checked(key: str, method: str, hash: str) -> None:
    by = keys_of("dsa", "rsa-2", key, "P-256")
    text = login(key=key, method=f"{MORE}{method}", hash=hash)
    assert verify(text, by=by).sub == "jane"
    other = login({"name": PARTS["name"].replace("jane", "joan")}, key=key, method=f"{MORE}{method}", hash=hash)
    swapped = piece(text, "SignatureValue").join(b64decode(other).decode().split(piece(other, "SignatureValue")))
    refused(token(swapped), "its signature does not hold", by=by)
    refused(text, "its signature does not hold", by=keys_of("rsa-2", "P-521" if key != "P-521" else "P-384", "P-256" if key != "P-256" else "P-384"))
    only = "ecdsa-sha384" if method != "ecdsa-sha384" else "rsa-sha256"
    assert refused(text, f"algorithm {method} is not taken", over=changed(algorithms=f'["{only}"]'), by=by).why == "of provider corp"


def piece(text: str, name: str) -> str:
    """The one element of that name, of a text."""
    xml = b64decode(text).decode()
    return xml[xml.index(f"<ds:{name}") : xml.index(f"</ds:{name}>") + len(f"</ds:{name}>")]


def test_a_key_of_another_type_is_not_asked() -> None:
    refused(login(), "its key is not for rsa-sha256", by=keys_of("P-256"))
    refused(login(key="P-256", method=f"{MORE}ecdsa-sha256"), "its key is not for ecdsa-sha256", by=keys_of("rsa"))
    assert refused(login(), "there is no certificate", by=lambda provider, kid: None).why == "of provider corp"
    # The name of the one, by a key of the other.
    for key, method in (("rsa", "ecdsa-sha256"), ("P-256", "rsa-sha256"), ("P-384", "ecdsa-sha256")):
        refused(login(key=key, method=f"{MORE}{method}"), "its signature does not hold", by=keys_of("rsa", "P-256"))


def test_as_providers_write_it_too() -> None:
    """White space between parts, a declaration, prefixes that the canonical form keeps, other prefixes, Signature behind all."""
    wide = assertion().replace("><", ">\n  <")
    who = verify(token(f'<?xml version="1.0" encoding="UTF-8"?>\n{sign(wide)}\n'))
    assert who.sub == "jane" and who.claims["groups"] == ["finance", "staff"]
    kept = TRANSFORMS.replace(
        f'<ds:Transform Algorithm="{EXCLUSIVE}"/>',
        f'<ds:Transform Algorithm="{EXCLUSIVE}"><ec:InclusiveNamespaces xmlns:ec="{EXCLUSIVE}" PrefixList="xs #default none"/></ds:Transform>',
    )
    assert verify(login(transforms=kept, inclusive=("xs",))) == verify(login())
    empty = kept.replace(' PrefixList="xs #default none"', "")
    assert verify(login(transforms=empty)) == verify(login())
    other = assertion().replace("saml:", "").replace("xmlns:saml=", "xmlns=").replace('xmlns:saml="', 'xmlns="')
    assert verify(token(other.replace("</Issuer>", f"</Issuer>{signature_over(other)}"))) == verify(login())
    xml = assertion()
    assert verify(token(xml.replace("</saml:Assertion>", f"{signature_over(xml)}</saml:Assertion>"))) == verify(login())
    info = f"<ds:KeyInfo><ds:X509Data><ds:X509Certificate>{certificate('rsa-2')}</ds:X509Certificate></ds:X509Data></ds:KeyInfo>"
    assert verify(login(info=info)) == verify(login())


def test_what_need_not_be_stated_may_be_missing() -> None:
    plain = verify(
        login(
            {
                "attributes": "",
                "conditions": PARTS["conditions"].replace(' NotBefore="{before}"', ""),
                "login": '<saml:AuthnStatement AuthnInstant="{login}" SessionNotOnOrAfter="{soon}"><saml:SubjectLocality Address="10.0.0.1"/><saml:AuthnContext>'
                "<saml:AuthenticatingAuthority>https://up.example</saml:AuthenticatingAuthority></saml:AuthnContext></saml:AuthnStatement>",
                "issuer": '<saml:Issuer Format="urn:oasis:names:tc:SAML:2.0:nameid-format:entity">{idp}</saml:Issuer>',
                "name": '<saml:NameID Format="{persistent}" NameQualifier="{idp}" SPNameQualifier="{us}">jane</saml:NameID>',
            }
        )
    )
    assert (plain.session, plain.acr, plain.claims.keys() & {"groups", "department", "nbf"}) == (None, None, set())


def test_what_a_client_of_its_own_is_sent_is_told_by_the_policy() -> None:
    """Whoever logs in by its own address has assertions for that."""
    acs, application = "https://app.example/saml/acs", "urn:example:app"
    text = login(
        {
            "confirmation": PARTS["confirmation"].replace("{us}/token", acs),
            "conditions": PARTS["conditions"].replace("{us}", application),
        }
    )
    refused(text, "aud")
    assert verify(text, over=changed(audience=f'"{application}"', recipient=f'"{acs}"')).sub == "jane"
    refused(text, "Recipient", over=changed(audience=f'"{application}"'))
    refused(login(), "aud", over=changed(audience=f'"{application}"', recipient=f'"{acs}"'))


def test_a_name_that_does_not_stay_is_taken_only_where_the_policy_says_so() -> None:
    for word, stated in (
        ("transient", "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"),
        ("emailAddress", "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"),
        ("unspecified", "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified"),
    ):
        text = login({"name": PARTS["name"].replace("{persistent}", stated)})
        assert "persistent" in refused(text, "its NameID is ").why
        assert verify(text, over=changed(name_ids=f'["{word}"]', subject='"corp:{department#}"')).claims["name_id"] == word
    refused(login({"name": PARTS["name"].replace(' Format="{persistent}"', "")}), "its NameID is 'unspecified'")
    refused(login({"name": PARTS["name"].replace("{persistent}", "urn:mine")}), "its NameID is 'urn:mine'")


def test_what_every_assertion_has_to_say_is_asked_of_attributes_too() -> None:
    over = changed(require='{ department = "risk & audit", name_id = "persistent" }')
    assert verify(login(), over=over).sub == "jane"
    assert "requires" in refused(login({"attributes": ""}), "not one of those that are taken", over=over).why


@pytest.mark.parametrize(
    ("old", "new"),
    [(">jane<", ">joan<"), ("finance", "board"), ("staff", "finance"), (US, "https://issuer.examplf"), (at(290), at(3000)), ("s-1", "s-2"), ("_a1", "_a2"),
     ('Name="department"', 'Name="dept"'), ("</saml:Assertion>", " </saml:Assertion>"), ('xsi:type="xs:string"', 'xsi:type="xs:token"')],
)  # fmt: skip
def test_20_what_is_changed_after_it_was_signed_is_refused(old: str, new: str) -> None:
    text = token(GOOD.replace(old, new))
    assert text != token(GOOD) and verify(token(GOOD)).sub == "jane"
    refused(text, "its signature does not hold")


# --- 76: wrapped ----------------------------------------------------------------------------------

GOOD = sign(assertion())
SIGNATURE = GOOD[GOOD.index("<ds:Signature ") : GOOD.index("</ds:Signature>") + len("</ds:Signature>")]
RESPONSE = '<samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" ID="_r" Version="2.0">{}</samlp:Response>'


# --- 79: a Response -------------------------------------------------------------------------------


def test_79_a_response_is_refused() -> None:
    """Signed itself, or around one that is, or with nothing signed in it."""
    whole = RESPONSE.format(assertion())
    response = whole.replace("<saml:Assertion ", signature_over(whole) + "<saml:Assertion ", 1)
    refused(token(response), "no Assertion")
    refused(token(RESPONSE.format(GOOD)), "its signature is not one of its root")
    refused(token(whole), "no signature")
    refused(token(assertion()), "no signature")
    encrypted = assertion().replace("saml:Assertion", "saml:EncryptedAssertion")
    refused(token(encrypted.replace("</saml:Issuer>", f"</saml:Issuer>{signature_over(encrypted)}")), "no Assertion")
    other = assertion().replace(SAML, "urn:oasis:names:tc:SAML:1.0:assertion")
    refused(token(placed(other, signature_over(other))), "no Assertion")
    assert verify(token(RESPONSE.format(GOOD)[RESPONSE.index("{") : -len("</samlp:Response>")])).sub == "jane"


# --- 80: for somebody else ------------------------------------------------------------------------

AUDIENCE = "<saml:Audience>{us}</saml:Audience>"
RESTRICTION = f"<saml:AudienceRestriction>{AUDIENCE}</saml:AudienceRestriction>"


@pytest.mark.parametrize(
    ("part", "old", "new", "says"),
    [
        ("confirmation", "{us}/token", "https://app.example/acs", "Recipient"),
        ("confirmation", "{us}/token", "{us}/token/", "Recipient"),
        ("confirmation", "{us}/token", "{us}", "Recipient"),
        ("confirmation", ' Recipient="{us}/token"', "", "no Recipient"),
        ("conditions", AUDIENCE, "<saml:Audience>https://app.example</saml:Audience>", "aud"),
        ("conditions", AUDIENCE, "<saml:Audience> {us}</saml:Audience>", "aud"),
        ("conditions", AUDIENCE, "<saml:Audience/>", "aud"),
        ("conditions", AUDIENCE, AUDIENCE + "<saml:Audience>https://app.example</saml:Audience>", "one Audience"),
        ("conditions", AUDIENCE, AUDIENCE * 2, "one Audience"),
        ("conditions", AUDIENCE, "", "one Audience"),
        ("conditions", RESTRICTION, "", "one AudienceRestriction"),
        ("conditions", RESTRICTION, RESTRICTION * 2, "one AudienceRestriction"),
        ("conditions", RESTRICTION, RESTRICTION + "<saml:OneTimeUse/>", "one AudienceRestriction"),
        ("conditions", RESTRICTION, RESTRICTION + '<saml:ProxyRestriction Count="0"/>', "one AudienceRestriction"),
    ],
    ids=[
        "another's Recipient",
        "a Recipient with a slash",
        "a Recipient above",
        "no Recipient",
        "another's Audience",
        "an Audience with a space",
        "an empty Audience",
        "a second Audience",
        "an Audience twice",
        "no Audience",
        "no AudienceRestriction",
        "an AudienceRestriction twice",
        "OneTimeUse beside the Audience",
        "ProxyRestriction beside the Audience",
    ],
)
def test_80_what_is_for_somebody_else_is_refused(part: str, old: str, new: str, says: str) -> None:
    assert old in PARTS[part]
    refused(login({part: PARTS[part].replace(old, new)}), says)
    assert verify(login()).sub == "jane"


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "old", "good", "bad", "says"),
    [
        ("conditions", "{soon}", at(-29), at(-30), "expired"),
        ("confirmation", "{soon}", at(-29), at(-30), "expired"),
        ("conditions", "{before}", at(30), at(31), "not good yet"),
        ("login", "{login}", at(-28800), at(-28801), "the login was 28801 s ago"),
        ("login", "{login}", at(30), at(31), "its login was in the future"),
        ("login", 'SessionIndex="s-1"', f'SessionIndex="s-1" SessionNotOnOrAfter="{at(-29)}"', f'SessionNotOnOrAfter="{at(-30)}"', "expired"),
        ("conditions", "{soon}", at(3590), None, ""),
    ],
)
def test_times_are_those_of_all_other_kinds(part: str, old: str, good: str, bad: str | None, says: str) -> None:
    """40, 41, 43, 44: thirty seconds that clocks may differ by, and a login that is not old. An assertion of a while ago, then."""
    assert old in PARTS[part]
    parts = {part: PARTS[part].replace(old, good)}
    text = login(parts) if at(-29) not in good else token(sign(assertion(**parts).replace(at(-10), at(-300))))
    assert verify(text).sub == "jane"
    if bad is not None:
        refused(login({part: PARTS[part].replace(old, bad)}), says)


def test_42_too_long_a_life_is_refused() -> None:
    """From its issue to the first of the ends that it states."""
    def lives(confirmed: int, conditions: int) -> str:
        return login({"confirmation": PARTS["confirmation"].replace("{soon}", at(confirmed)), "conditions": PARTS["conditions"].replace("{soon}", at(conditions))})

    assert verify(lives(3590, 3590)).expires_at == NOW + 3590 + LEEWAY
    assert verify(lives(290, 10**8)).expires_at == verify(lives(10**8, 290)).expires_at == NOW + 290 + LEEWAY
    refused(lives(3591, 3591), "it is good for 3601 s")
    refused(lives(290, 290), "it is good for 300 s", over=changed(max_life="299"))
    refused(lives(-20, 290), "it is good for -10 s")


@pytest.mark.parametrize(
    "stated",
    ["", "2027-01-15", "2027-01-15T08:00:00", "2027-01-15T08:00:00+00:00", "2027-01-15 08:00:00Z", "2027-02-30T08:00:00Z", "2027-01-15T25:00:00Z",
     "0000-01-15T08:00:00Z", "20270-01-15T08:00:00Z", "-2027-01-15T08:00:00Z", "2027-01-15T08:00:00.Z", "2027-01-15T08:00:00.1234567890Z",
     "1800000000", "\u0662027-01-15T08:00:00Z", "2027-01-15T08:00:00z", " 2027-01-15T08:00:00Z", "1927-01-15T08:00:00Z"],
)  # fmt: skip
def test_41_a_time_that_is_none_is_refused(stated: str) -> None:
    for part, old in (("conditions", "{soon}"), ("conditions", "{before}"), ("confirmation", "{soon}"), ("login", "{login}")):
        if part == "conditions" and old == "{before}" and not stated:
            continue  # said to be empty, which is no time either
        refused(login({part: PARTS[part].replace(old, stated)}), "a time that is none|no time in whole|has no|expired|s ago")
    refused(token(sign(assertion().replace(at(-10), stated))), "a time that is none|no time in whole|has no|good for")
    assert verify(token(sign(assertion().replace(at(-10), at(-10).replace("Z", ".999Z"))))).issued_at == NOW - 10


# --- all else that is not an assertion of ours ----------------------------------------------------


@pytest.mark.parametrize(
    ("part", "old", "new", "says"),
    [
        ("issuer", "{idp}", "https://idp.other.example", "its issuer is not known here"),
        ("issuer", "{idp}", "{idp}/", "its issuer is not known here"),
        ("issuer", "{idp}", " {idp}", "its issuer is not known here"),
        ("issuer", "<saml:Issuer>", '<saml:Issuer Format="urn:mine">', "its Issuer is no entity ID"),
        ("issuer", "<saml:Issuer>", '<saml:Issuer NameQualifier="x">', "which is not taken"),
        ("name", "jane", "", "its sub is no text"),
        ("name", "<saml:NameID", '<saml:NameID NameQualifier="https://other.example"', "NameQualifier"),
        ("name", "<saml:NameID", '<saml:NameID SPNameQualifier="https://app.example"', "SPNameQualifier"),
        ("name", "<saml:NameID", '<saml:NameID SPProvidedID="joan"', "which is not taken"),
        ("name", "<saml:NameID", '<saml:NameID xsi:nil="true"', "which is not taken"),
        ("name", "saml:NameID", "saml:EncryptedID", "its Subject has one NameID"),
        ("name", "saml:NameID", "saml:BaseID", "its Subject has one NameID"),
        ("name", "<saml:NameID", "<saml:NameID>joan</saml:NameID><saml:NameID", "its Subject has one NameID"),
        ("confirmation", "{bearer}", "urn:oasis:names:tc:SAML:2.0:cm:holder-of-key", "not for its bearer"),
        ("confirmation", "{bearer}", "urn:oasis:names:tc:SAML:2.0:cm:sender-vouches", "not for its bearer"),
        ("confirmation", "<saml:SubjectConfirmation Method", "<saml:SubjectConfirmation x", "has no Method"),
        ("confirmation", " NotOnOrAfter", ' NotBefore="{before}" NotOnOrAfter', "which is not taken"),
        ("confirmation", 'NotOnOrAfter="{soon}" ', "", "has no NotOnOrAfter"),
        ("confirmation", "</saml:SubjectConfirmation>", "<saml:SubjectConfirmationData/></saml:SubjectConfirmation>", "one SubjectConfirmationData"),
        ("confirmation", "<saml:SubjectConfirmationData", "<saml:NameID>x</saml:NameID><saml:SubjectConfirmationData", "one SubjectConfirmationData"),
        ("confirmation", ' InResponseTo="_q1"/>', "><ds:KeyInfo xmlns:ds='http://www.w3.org/2000/09/xmldsig#'/></saml:SubjectConfirmationData>", "more than attributes"),
        ("confirmation", PARTS["confirmation"], PARTS["confirmation"] * 2, "its Subject has one NameID"),
        ("confirmation", PARTS["confirmation"], "", "its Subject has one NameID"),
        ("conditions", PARTS["conditions"], "", "no Conditions"),
        ("conditions", ' NotOnOrAfter="{soon}"', "", "has no NotOnOrAfter"),
        ("conditions", "</saml:Conditions>", "</saml:Conditions><saml:Advice/>", "one AuthnStatement"),
        ("login", PARTS["login"], "", "one AuthnStatement"),
        ("login", PARTS["login"], PARTS["login"] * 2, "one AuthnStatement"),
        ("login", "AuthnInstant", "Instant", "has no AuthnInstant"),
        ("login", 'SessionIndex="s-1"', 'SessionIndex=""', "its sid is no text"),
        ("login", "<saml:AuthnContext>", "<saml:SubjectLocality/><saml:SubjectLocality/><saml:AuthnContext>", "one AuthnContext"),
        ("login", "</saml:AuthnContext>", "</saml:AuthnContext><saml:AuthnContext/>", "one AuthnContext"),
        ("login", "</saml:AuthnContext>", "<saml:AuthnContextClassRef>x</saml:AuthnContextClassRef></saml:AuthnContext>", "one AuthnContextClassRef"),
        ("login", "</saml:AuthnContext>", "<saml:AuthnContextDecl/></saml:AuthnContext>", "one AuthnContextClassRef"),
        ("login", "{mfa}", "", "its acr is no text"),
        ("attributes", PARTS["attributes"], PARTS["attributes"] * 2, "one AuthnStatement"),
        ("attributes", PARTS["attributes"], "<saml:AuthzDecisionStatement/>", "one AuthnStatement"),
        ("attributes", 'Name="department"', 'Name="{groups}"', "is there in two formats"),
        ("attributes", ' Name="department"', "", "has no Name"),
        ("attributes", "saml:Attribute N", "saml:EncryptedAttribute N", "no XML"),
        ("attributes", "<saml:AttributeStatement>", '<saml:AttributeStatement><x Name="y" xmlns="urn:x"/>', "its 'x' is not taken"),
        ("attributes", 'xsi:type="xs:string"', 'xsi:nil="true"', "texts"),
        ("attributes", "saml:AttributeValue", "saml:Value", "texts"),
        ("attributes", "risk &amp; audit", "<saml:NameID>x</saml:NameID>", "more than text"),
        ("before_subject", "", "<saml:Advice/>", "no Subject"),
        ("last", "", '<x xmlns="urn:x"/>', "one AuthnStatement"),
        ("last", "", "x", "has text"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused(part: str, old: str, new: str, says: str) -> None:
    whole = PARTS.get(part, "")
    assert old in whole
    changed_part = whole.replace(old, new) if old else new
    try:
        text = login({part: changed_part})
    except etree.XMLSyntaxError:
        text = token(placed(assertion(**{part: changed_part}), SIGNATURE))
    refused(text, says)


def test_attributes_that_the_policy_does_not_want_are_not_read() -> None:
    more = PARTS["attributes"].replace(
        "</saml:AttributeStatement>",
        '<saml:Attribute Name="photo"><saml:AttributeValue><x xmlns="urn:x">y</x></saml:AttributeValue></saml:Attribute>'
        '<saml:Attribute Name="none"/></saml:AttributeStatement>',
    )
    assert verify(login({"attributes": more})).claims == verify(login()).claims
    over = changed(attributes='{ photo = "photo", none = "none", missing = "missing", empty = "department" }')
    refused(login({"attributes": more}), "more than text", over=over)
    said = verify(login({"attributes": more.replace('<x xmlns="urn:x">y</x>', "").replace("risk &amp; audit", "")}), over=over).claims
    assert (said["photo"], said["none"], said["empty"], "missing" in said) == ("", [], "", False)


# Assertions in the forms that products write, by their documentation and by examples that people have published of them. Values are
# ours, and so are the keys: what is tested is that the form is taken.
FORMS_OF = {
    # https://learn.microsoft.com/en-us/entra/identity-platform/single-sign-on-saml-protocol
    "Microsoft Entra ID": """<Assertion ID="_bf9c" IssueInstant="{issued}.1839884Z" Version="2.0" xmlns="{saml}"><Issuer>{idp}</Issuer>{signature}<Subject>
      <NameID>Uz2Pqz1X7pxe4XLWxV9KJQ+n59d573SepSAkuYKSde8=</NameID><SubjectConfirmation Method="{bearer}"><SubjectConfirmationData
      InResponseTo="id758d" NotOnOrAfter="{soon}" Recipient="{us}/token" /></SubjectConfirmation></Subject><Conditions NotBefore="{before}"
      NotOnOrAfter="{soon}"><AudienceRestriction><Audience>{us}</Audience></AudienceRestriction></Conditions><AttributeStatement>
      <Attribute Name="http://schemas.microsoft.com/identity/claims/objectidentifier"><AttributeValue>3f25-04e0</AttributeValue></Attribute>
      <Attribute Name="http://schemas.microsoft.com/ws/2008/06/identity/claims/groups"><AttributeValue>finance</AttributeValue>
      <AttributeValue>staff</AttributeValue></Attribute></AttributeStatement><AuthnStatement AuthnInstant="{login}" SessionIndex="_bf9c">
      <AuthnContext><AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:Password</AuthnContextClassRef></AuthnContext></AuthnStatement>
      </Assertion>""",
    # https://www.keycloak.org/docs/latest/server_admin/: roles are one attribute each, unless "Single Role Attribute" is on; KeyName.
    "Keycloak": """<saml:Assertion xmlns:saml="{saml}" xmlns="{saml}" ID="ID_1e" IssueInstant="{issued}.927Z" Version="2.0"><saml:Issuer>{idp}</saml:Issuer>
      {signature}<saml:Subject><saml:NameID Format="{persistent}">G-7c1e</saml:NameID><saml:SubjectConfirmation Method="{bearer}">
      <saml:SubjectConfirmationData InResponseTo="id43" NotOnOrAfter="{soon}" Recipient="{us}/token"/></saml:SubjectConfirmation></saml:Subject>
      <saml:Conditions NotBefore="{before}" NotOnOrAfter="{soon}"><saml:AudienceRestriction><saml:Audience>{us}</saml:Audience>
      </saml:AudienceRestriction></saml:Conditions><saml:AuthnStatement AuthnInstant="{login}" SessionIndex="ee6d::573e" SessionNotOnOrAfter="{soon}">
      <saml:AuthnContext><saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:unspecified</saml:AuthnContextClassRef></saml:AuthnContext>
      </saml:AuthnStatement><saml:AttributeStatement><saml:Attribute Name="Role" NameFormat="urn:oasis:names:tc:SAML:2.0:attrname-format:basic">
      <saml:AttributeValue xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="xs:string"
      >finance</saml:AttributeValue></saml:Attribute><saml:Attribute Name="Role" NameFormat="urn:oasis:names:tc:SAML:2.0:attrname-format:basic">
      <saml:AttributeValue xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="xs:string"
      >staff</saml:AttributeValue></saml:Attribute></saml:AttributeStatement></saml:Assertion>""",
    # https://developer.okta.com/docs/concepts/saml/: prefixes that the canonical form keeps, an Issuer with a format.
    "Okta": """<saml2:Assertion ID="id168" IssueInstant="{issued}.718Z" Version="2.0" xmlns:saml2="{saml}" xmlns:xs="http://www.w3.org/2001/XMLSchema">
      <saml2:Issuer Format="urn:oasis:names:tc:SAML:2.0:nameid-format:entity">{idp}</saml2:Issuer>{signature}<saml2:Subject>
      <saml2:NameID Format="{persistent}">00u1</saml2:NameID><saml2:SubjectConfirmation Method="{bearer}"><saml2:SubjectConfirmationData
      NotOnOrAfter="{soon}" Recipient="{us}/token"/></saml2:SubjectConfirmation></saml2:Subject><saml2:Conditions NotBefore="{before}"
      NotOnOrAfter="{soon}"><saml2:AudienceRestriction><saml2:Audience>{us}</saml2:Audience></saml2:AudienceRestriction></saml2:Conditions>
      <saml2:AuthnStatement AuthnInstant="{login}" SessionIndex="id15"><saml2:AuthnContext><saml2:AuthnContextClassRef
      >urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport</saml2:AuthnContextClassRef></saml2:AuthnContext></saml2:AuthnStatement>
      <saml2:AttributeStatement><saml2:Attribute Name="groups" NameFormat="urn:oasis:names:tc:SAML:2.0:attrname-format:unspecified">
      <saml2:AttributeValue xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="xs:string">finance</saml2:AttributeValue>
      <saml2:AttributeValue xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="xs:string">staff</saml2:AttributeValue>
      </saml2:Attribute></saml2:AttributeStatement></saml2:Assertion>""",
    # https://shibboleth.atlassian.net/wiki/spaces/IDP4: qualifiers, an address, and a value that is no text.
    "Shibboleth": """<saml2:Assertion xmlns:saml2="{saml}" ID="_8e8d" IssueInstant="{issued}.023Z" Version="2.0" xmlns:xsd="http://www.w3.org/2001/XMLSchema">
      <saml2:Issuer>{idp}</saml2:Issuer>{signature}<saml2:Subject><saml2:NameID Format="{persistent}" NameQualifier="{idp}" SPNameQualifier="{us}"
      >AAdzZWNyZXQx</saml2:NameID><saml2:SubjectConfirmation Method="{bearer}"><saml2:SubjectConfirmationData Address="192.0.2.7" InResponseTo="_6"
      NotOnOrAfter="{soon}" Recipient="{us}/token"/></saml2:SubjectConfirmation></saml2:Subject><saml2:Conditions NotBefore="{before}" NotOnOrAfter="{soon}">
      <saml2:AudienceRestriction><saml2:Audience>{us}</saml2:Audience></saml2:AudienceRestriction></saml2:Conditions><saml2:AuthnStatement
      AuthnInstant="{login}" SessionIndex="_5c"><saml2:SubjectLocality Address="192.0.2.7"/><saml2:AuthnContext><saml2:AuthnContextClassRef
      >https://refeds.org/profile/mfa</saml2:AuthnContextClassRef></saml2:AuthnContext></saml2:AuthnStatement><saml2:AttributeStatement>
      <saml2:Attribute FriendlyName="eduPersonAffiliation" Name="urn:oid:1.3.6.1.4.1.5923.1.1.1.1" NameFormat="urn:oasis:names:tc:SAML:2.0:attrname-format:uri">
      <saml2:AttributeValue>finance</saml2:AttributeValue><saml2:AttributeValue>staff</saml2:AttributeValue></saml2:Attribute>
      <saml2:Attribute FriendlyName="eduPersonTargetedID" Name="urn:oid:1.3.6.1.4.1.5923.1.1.1.10"><saml2:AttributeValue><saml2:NameID
      Format="{persistent}">x</saml2:NameID></saml2:AttributeValue></saml2:Attribute></saml2:AttributeStatement></saml2:Assertion>""",
}  # fmt: skip
SAYS_OF: dict[str, tuple[str, str, dict[str, str]]] = {
    "Microsoft Entra ID": ("http://schemas.microsoft.com/ws/2008/06/identity/claims/groups", "_bf9c", {"name_ids": '["unspecified"]', "subject": '"corp:{sub#}"'}),
    "Keycloak": ("Role", "ee6d::573e", {}),
    "Okta": ("groups", "id15", {}),
    "Shibboleth": ("urn:oid:1.3.6.1.4.1.5923.1.1.1.1", "_5c", {}),
}
KEPT = TRANSFORMS.replace(
    f'<ds:Transform Algorithm="{EXCLUSIVE}"/>',
    f'<ds:Transform Algorithm="{EXCLUSIVE}"><ec:InclusiveNamespaces xmlns:ec="{EXCLUSIVE}" PrefixList="xs"/></ds:Transform>',
)


@pytest.mark.parametrize("product", FORMS_OF)
def test_what_products_write_is_taken(product: str) -> None:
    attribute, session, more = SAYS_OF[product]
    values = {
        "saml": SAML, "idp": IDP, "us": US, "persistent": PERSISTENT, "bearer": BEARER, "issued": at(-10)[:-1], "soon": at(290), "before": at(-40), "login": at(-60),
    }  # fmt: skip
    bare = FORMS_OF[product].format_map(values | {"signature": ""})
    how: dict[str, Any] = {"transforms": KEPT, "inclusive": ("xs",)} if product == "Okta" else {}
    info = "<ds:KeyInfo><ds:KeyName>k</ds:KeyName><ds:KeyValue><ds:RSAKeyValue><ds:Modulus>AQAB</ds:Modulus></ds:RSAKeyValue></ds:KeyValue></ds:KeyInfo>"
    xml = FORMS_OF[product].format_map(values | {"signature": signature_over(bare, info=info, **how)})
    who = verify(token(xml), over=changed(attributes=f'{{ groups = "{attribute}" }}', **more))
    assert (who.claims["groups"], who.session, who.auth_time) == (["finance", "staff"], session, NOW - 60)
    refused(token(xml.replace("finance", "board")), "its signature does not hold", over=changed(attributes=f'{{ groups = "{attribute}" }}', **more))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('Version="2.0"', 'Version="1.1"', "not of version 2.0"),
        ('Version="2.0"', "", "has no Version"),
        ('Version="2.0"', 'Version="2.0" x="y"', "which is not taken"),
        ('Version="2.0"', 'Version="2.0" xml:base="https://evil.example"', "which is not taken"),
        ('ID="_a1"', 'ID=""', "has no ID|Reference has"),
        ('ID="_a1"', "", "not over its root"),
        ('ID="_a1"', 'Id="_a1"', "not over its root"),
    ],
)
def test_the_root_has_what_it_has_to_have(old: str, new: str, says: str) -> None:
    refused(token(sign(assertion().replace(old, new), uri="#_a1" if 'ID=""' not in new else "#")), says)


def test_what_could_be_of_two_providers_is_refused() -> None:
    text = policy_text()
    start, end = text.index("[provider.corp]"), text.index("[resource.")
    again = text[start:end].replace("[provider.corp]", "[provider.again]").replace('"corp:', '"again:')
    with pytest.raises(IssuanceError, match="kind and issuer are those of corp"):
        policy.read(text[:end] + again + text[end:])
    one = policy.read(text)
    both = structs.replace(one, providers={**one.providers, "again": one.providers["corp"]})
    assert refused(login(), "it could be of several", over=both).why == "of providers corp, again"
    with pytest.raises(IssuanceError, match="not known"):
        needed_key(login({"issuer": "<saml:Issuer>x</saml:Issuer>"}), POLICY, ("saml",))


def test_an_assertion_without_an_issuer_is_refused() -> None:
    xml = assertion(issuer="")
    refused(token(xml.replace("<saml:Subject>", signature_over(xml) + "<saml:Subject>")), "no Issuer")
    empty = f'<saml:Assertion xmlns:saml="{SAML}" ID="_a1"></saml:Assertion>'
    refused(token(empty.replace("></", f">{signature_over(empty)}</", 1)), "no Issuer")


def test_an_id_is_good_once_whatever_is_signed_under_it() -> None:
    one = verify(login())
    assert one.digest == sha256(f"{IDP}\0_a1".encode()).digest()
    again = verify(token(sign(assertion().replace("jane", "joan").replace(at(-10), at(-9)))))
    assert again.sub == "joan" and again.digest.hex() == one.digest.hex()
    assert verify(token(sign(assertion("_a2")))).digest.hex() != one.digest.hex()


# --- certificates ---------------------------------------------------------------------------------


def test_a_certificate_pins_its_key_and_its_dates_are_not_looked_at() -> None:
    ended = policy.read(policy_text().replace(certificate("rsa"), certificate("rsa", days=-5)))
    found = certificates(certificate("rsa", days=-5).encode()).keys
    assert verify(login(), over=ended, by=lambda provider, kid: found[kid]).sub == "jane"


def test_weak_and_strange_keys_are_not_among_those_that_count() -> None:
    found = certificates("".join(map(certificate, ("weak", "dsa", "P-256k", "rsa"))).encode())
    assert found.refused == (
        "certificate 1: an RSA key has 2048 to 8192 bits",
        "certificate 2: its key is neither RSA nor of a curve that is taken",
        "certificate 3: its key is neither RSA nor of a curve that is taken",
    )
    key = found.keys[CERTIFICATES]
    assert len(key.raw) == 1 and key.algorithms == ("rsa-sha256", "rsa-sha384", "rsa-sha512") and isinstance(key, Key)
    assert certificates(certificate("weak").encode()).keys == {}
    assert certificates("".join(map(certificate, ("rsa", "P-256"))).encode()).keys[CERTIFICATES].algorithms == signed_xml.XML_ALGORITHMS


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no certificates in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificates in PEM"),
        (b"\xff\xfe", "no certificates in PEM"),
        ((certificate("rsa") + private_pem("P-256")).encode(), "it has a private key"),
        (certificate("P-256").encode() * 9, "more than 8 certificates"),
    ],
)
def test_what_are_no_certificates_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(JoseError, match=says):
        certificates(data)


# --- the policy -----------------------------------------------------------------------------------


def test_what_the_page_says_of_it_holds(tmp_path: Path) -> None:
    """Its policy takes an assertion for the service, and its command spells one as it is sent."""
    page = (Path(__file__).parents[2] / "docs" / "issuance.md").read_text("utf-8")
    loaded = policy.read("\n".join(re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)))
    who = verify(login(), over=loaded)
    assert (who.provider, who.claims["groups"], loaded.subjects["corp"].subject(IDP, who.claims)) == ("corp", ["finance", "staff"], "corp:jane")

    (command,) = re.findall(r'"subject_token=\$\((.*?)\)"', page)
    (tmp_path / "assertion.xml").write_text(GOOD)
    assert subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True).stdout == token(GOOD)


# --- what nobody thought of -----------------------------------------------------------------------


def accepted(text: str) -> Identity | None:
    """Who it is; None if it is refused. Nothing else is raised."""
    try:
        return verify(text)
    except IssuanceError as error:
        assert error.code == "invalid_grant"
        return None


@given(st.binary(max_size=200).map(lambda data: b"<" + data) | st.text(max_size=100).map(lambda text: f"<{text}".encode("utf-8", "replace")))
@example(b"<a xmlns:a='\r'/>")
@settings(max_examples=times(100))
def test_fuzz_whatever_bytes(data: bytes) -> None:
    assert accepted(token(data)) is None


# --- what is imported -----------------------------------------------------------------------------


def test_no_library_is_imported_before_a_certificate_is_read() -> None:
    asked = "import captoken.issuance.identity, captoken.issuance.keys, captoken.issuance.saml, sys; print({'cryptography', 'lxml'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_without_the_extra_it_says_what_to_install() -> None:
    asked = "import sys; sys.modules['cryptography'] = None\nfrom captoken.issuance.signed_xml import certificates\ncertificates(b'')"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    assert done.returncode == 1 and "pip install 'captoken[saml]'" in done.stderr
