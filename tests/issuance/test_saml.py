"""SAML: an assertion says who asks, and whatever is wrapped, hidden or doubled in it is refused, each beside its twin that is good.

The numbers are those of the list of what must be denied. Canonical bytes and signatures are lxml's and cryptography's.
"""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import warnings
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Any

import pytest
from cryptography.x509 import load_pem_x509_certificate
from hypothesis import HealthCheck, assume, example, given, settings
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
from captoken.issuance.signed_xml import CERTIFICATES, MAX_DEPTH, MAX_ELEMENTS, MAX_PREFIXES, XmlError, certificates, read_xml
from captoken.issuance.signed_xml import canonical as ours
from tests.issuance.assertions import identify, needed_key
from tests.issuance.saml_idp import (
    BEARER,
    DS,
    ENVELOPED,
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
    canonical,
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
        "iss": IDP, "jti": "_a1", "iat": NOW - 10, "exp": NOW + 290, "nbf": NOW - 40, "aud": US, "recipient": f"{US}/token", "sub": "jane",
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
EVIL = assertion("_evil", name=PARTS["name"].replace("jane", "root"))
SIGNATURE = GOOD[GOOD.index("<ds:Signature ") : GOOD.index("</ds:Signature>") + len("</ds:Signature>")]
BARE = GOOD.replace(SIGNATURE, "")
RESPONSE = '<samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" ID="_r" Version="2.0">{}</samlp:Response>'


def within(xml: str, inner: str) -> str:
    """An assertion with something at its end."""
    return xml.replace("</saml:Assertion>", f"{inner}</saml:Assertion>")


WRAPPED = {
    "1: the signed one in an Object of the signature": placed(EVIL, SIGNATURE.replace("</ds:Signature>", f"<ds:Object>{BARE}</ds:Object></ds:Signature>")),
    "2: the signature moved to the forged one, beside the signed one": within(placed(EVIL, SIGNATURE), BARE),
    "3: the signed one at the end of the forged one": within(EVIL, GOOD),
    "4: the forged one in the signed one": within(GOOD, EVIL),
    "5: the signed one in Advice": EVIL.replace("</saml:Conditions>", f"</saml:Conditions><saml:Advice>{GOOD}</saml:Advice>"),
    "6: the signed one as the value of an attribute": EVIL.replace(
        "</saml:AttributeStatement>",
        f'<saml:Attribute Name="x"><saml:AttributeValue>{GOOD}</saml:AttributeValue></saml:Attribute></saml:AttributeStatement>',
    ),
    "7: both under the same ID": within(placed(EVIL.replace("_evil", "_a1"), SIGNATURE), BARE),
    "8: the signed one in KeyInfo": placed(EVIL, SIGNATURE.replace("</ds:Signature>", f"<ds:KeyInfo>{BARE}</ds:KeyInfo></ds:Signature>")),
    "and in an element that nobody knows": f'<x xmlns="urn:x" ID="_x">{EVIL}{GOOD}</x>',
    "and in a Response": RESPONSE.format(EVIL + GOOD),
    "and under other capitals of ID": within(placed(EVIL, SIGNATURE), '<saml:Advice Id="_a1"/>'),
    "and an ID that stands in KeyInfo too": GOOD.replace("</ds:Signature>", '<ds:KeyInfo Id="_a1"/></ds:Signature>'),
    "and its own root renamed": placed(BARE.replace("saml:Assertion", "saml:EncryptedAssertion"), SIGNATURE),
}


@pytest.mark.parametrize("how", WRAPPED)
def test_76_what_is_wrapped_is_refused(how: str) -> None:
    refused(token(WRAPPED[how]), "a second|an ID twice|not one of its root|no Assertion|has not the parts|not over its root|no signature, or several")
    assert verify(token(GOOD)).sub == "jane"


def test_76_the_library_alone_takes_a_wrapped_one() -> None:
    """Why minisaml is not what decides: it finds the signed one, in whatever stands around it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a part of defusedxml that is no longer looked after
        from minisaml.response import validate_response

    now = int(time())
    info = f"<ds:KeyInfo><ds:X509Data><ds:X509Certificate>{''.join(certificate('rsa').splitlines()[1:-1])}</ds:X509Certificate></ds:X509Data></ds:KeyInfo>"
    good = sign(assertion(now=now), info=info)
    wrapped = within(assertion("_evil", name=PARTS["name"].replace("jane", "root"), now=now), good)
    for xml in (good, wrapped):
        said = validate_response(
            data=base64.b64encode(xml.encode()),
            certificate=load_pem_x509_certificate(certificate("rsa").encode()),
            expected_audience=US,
            idp_issuer=IDP,
        )
        assert said.name_id == "jane"
    assert verify(token(good), now=now).sub == "jane"
    refused(token(wrapped), "a second", now=now)


# --- 77: text in two pieces -----------------------------------------------------------------------


@pytest.mark.parametrize("hidden", ["<!-- -->", "<?x y?>", "<![CDATA[]]>", "<!---->", "<![CDATA[.example]]>"])
def test_77_a_comment_in_a_name_is_refused(hidden: str) -> None:
    """Signed as it is: comments are no part of the canonical form, so that the signature holds."""
    for part, whole in (("name", "jane.evil"), ("attributes", "finance"), ("issuer", IDP), ("conditions", US)):
        twin = PARTS[part] if part != "name" else PARTS[part].replace("jane", whole)
        spelled = {"issuer": "{idp}", "conditions": "{us}"}.get(part, whole)
        half = len(spelled) // 2
        pieces = spelled[:half] + hidden + spelled[half:] if "{" not in spelled else hidden + spelled
        assert verify(login({part: twin})).claims["groups"] == ["finance", "staff"]
        refused(login({part: twin.replace(spelled, pieces)}), "a DTD, a comment, CDATA or a processing instruction")


def test_77_text_beside_an_element_is_refused() -> None:
    for part, old, new in (
        ("name", "jane", "jane<saml:x/>"),
        ("attributes", ">finance", "><saml:x/>finance"),
        ("attributes", "<saml:Attribute ", "finance<saml:Attribute "),
        ("confirmation", "<saml:SubjectConfirmationData", "x<saml:SubjectConfirmationData"),
    ):
        refused(login({part: PARTS[part].replace(old, new, 1)}), "more than text|has text, which is not for it")
    assert verify(login({"name": PARTS["name"].replace("jane", "ja&#110;e")})).sub == "jane"


# --- 78: what is in XML and not in an assertion ---------------------------------------------------

XSLT = '<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116"><x xmlns="http://www.w3.org/1999/XSL/Transform"/></ds:Transform>'
DTDS = [
    '<!DOCTYPE x [<!ENTITY a "jane">]>',
    '<!DOCTYPE x SYSTEM "http://evil.example/x.dtd">',
    '<!DOCTYPE x [<!ENTITY % a SYSTEM "file:///etc/passwd"> %a;]>',
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
]


@pytest.mark.parametrize("dtd", DTDS)
def test_78_a_dtd_is_refused(dtd: str) -> None:
    refused(token(dtd + GOOD), "a DTD")
    refused(token(f'<?xml version="1.0"?>{dtd}{GOOD}'), "a DTD")
    refused(token(GOOD.replace(">jane<", ">&a;<")), "no XML")
    assert verify(token(f'<?xml version="1.0"?>{GOOD}')).sub == "jane"


FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "XSLT behind the two": ({"transforms": TRANSFORMS + XSLT}, "two transforms"),
    "XSLT before the two": ({"transforms": XSLT + TRANSFORMS}, "two transforms"),
    "XSLT in place of canonicalization": ({"transforms": TRANSFORMS[: TRANSFORMS.index("/>") + 2] + XSLT}, "a transform that is not taken|has parameters"),
    "XSLT in place of enveloped": ({"transforms": XSLT + f'<ds:Transform Algorithm="{EXCLUSIVE}"/>'}, "has parameters"),
    "the two in another order": ({"transforms": f'<ds:Transform Algorithm="{EXCLUSIVE}"/><ds:Transform Algorithm="{ENVELOPED}"/>'}, "a transform that is not taken"),
    "enveloped twice": ({"transforms": f'<ds:Transform Algorithm="{ENVELOPED}"/>' * 2}, "a transform that is not taken"),
    "enveloped alone": ({"transforms": f'<ds:Transform Algorithm="{ENVELOPED}"/>'}, "two transforms"),
    "no transform": ({"transforms": ""}, "two transforms"),
    "canonicalization with comments": ({"transforms": TRANSFORMS.replace(EXCLUSIVE, f"{EXCLUSIVE}WithComments")}, "a transform that is not taken"),
    "inclusive canonicalization": ({"transforms": TRANSFORMS.replace(EXCLUSIVE, "http://www.w3.org/TR/2001/REC-xml-c14n-20010315")}, "a transform that is not taken"),
    "XPath in canonicalization": ({"transforms": f'<ds:Transform Algorithm="{ENVELOPED}"/><ds:Transform Algorithm="{EXCLUSIVE}">{{}}</ds:Transform>'.format('<ds:XPath>1</ds:XPath>')}, "a transform that is not taken"),
    "two lists of prefixes": ({"transforms": f'<ds:Transform Algorithm="{ENVELOPED}"/><ds:Transform Algorithm="{EXCLUSIVE}">{{}}</ds:Transform>'.format(f'<x:InclusiveNamespaces xmlns:x="{EXCLUSIVE}" PrefixList=""/>' * 2)}, "a transform that is not taken"),
    "a list of prefixes with more in it": ({"transforms": f'<ds:Transform Algorithm="{ENVELOPED}"/><ds:Transform Algorithm="{EXCLUSIVE}">{{}}</ds:Transform>'.format(f'<x:InclusiveNamespaces xmlns:x="{EXCLUSIVE}" PrefixList=""><x:y/></x:InclusiveNamespaces>')}, "a transform that is not taken"),
    "SignedInfo by inclusive canonicalization": ({"form": "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"}, "exclusive canonicalization"),
    "SignedInfo with comments": ({"form": f"{EXCLUSIVE}WithComments"}, "exclusive canonicalization"),
    "several references": ({"more": f'<ds:Reference URI=""><ds:Transforms>{TRANSFORMS}</ds:Transforms><ds:DigestMethod Algorithm="{SHA256}"/><ds:DigestValue>AA==</ds:DigestValue></ds:Reference>'}, "not over one reference"),
    "a reference to the whole document": ({"uri": ""}, "'Reference' has no URI"),
    "a reference to another ID": ({"uri": "#_other"}, "not over its root"),
    "a reference that is no fragment": ({"uri": "_a1"}, "not over its root"),
    "a reference by XPointer": ({"uri": "#xpointer(/)"}, "not over its root"),
    "a reference to an address": ({"uri": "https://evil.example/a.xml"}, "not over its root"),
    "SHA-1 with RSA": ({"method": f"{DS}rsa-sha1"}, "the algorithm of its signature is not taken"),
    "SHA-1 with RSA by another name": ({"method": f"{MORE}rsa-sha1"}, "the algorithm of its signature is not taken"),
    "SHA-1 with ECDSA": ({"method": f"{MORE}ecdsa-sha1", "key": "P-256"}, "the algorithm of its signature is not taken"),
    "HMAC": ({"method": f"{DS}hmac-sha256", "value": "AAAA"}, "the algorithm of its signature is not taken"),
    "HMAC by another name": ({"method": f"{MORE}hmac-sha256", "value": "AAAA"}, "the algorithm of its signature is not taken"),
    "an algorithm in other case": ({"method": f"{MORE}RSA-SHA256", "value": "AAAA"}, "the algorithm of its signature is not taken"),
    "SHA-1 as digest": ({"hash": f"{DS}sha1"}, "the algorithm of its digest is not taken"),
    "base64 that is none": ({"value": "AA=A"}, "'SignatureValue' is no base64"),
    "base64 in other letters": ({"value": "\u00e4"}, "'SignatureValue' is no base64"),
    "an empty signature": ({"value": " "}, "its signature does not hold"),
    "an Object": ({"around": "{signed_info}{value}<ds:Object>x</ds:Object>"}, "has not the parts"),
    "two KeyInfo": ({"around": "{signed_info}{value}<ds:KeyInfo/><ds:KeyInfo/>"}, "has not the parts"),
    "parts in another order": ({"around": "{value}{signed_info}"}, "has not the parts"),
    "no signature value": ({"around": "{signed_info}"}, "has not the parts"),
    "text between the parts": ({"around": "{signed_info}{value}x"}, "has text, which is not for it"),
    "a stranger's element in KeyInfo": ({"info": '<ds:KeyInfo><x xmlns="urn:x"/></ds:KeyInfo>'}, "its KeyInfo has more"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_78_a_signature_of_another_form_is_refused(form: str) -> None:
    how, says = FORMS[form]
    refused(login(**how), says)
    assert verify(login()).sub == "jane"


def test_78_parameters_of_a_signature_are_refused() -> None:
    """Signed as they are: what is cut off, and whatever else an algorithm may be told."""
    for old, new in (
        ('-sha256"/><ds:Reference', '-sha256"><ds:HMACOutputLength>8</ds:HMACOutputLength></ds:SignatureMethod><ds:Reference'),
        ('<ds:Reference URI', '<ds:Reference Type="x" URI'),
        ("<ds:SignedInfo ", '<ds:SignedInfo Id="s" '),
        ("<ds:Transforms>", '<ds:Transforms Id="s">'),
        ("</ds:Transforms>", "</ds:Transforms><ds:Transforms/>"),
        ("<ds:CanonicalizationMethod ", '<ds:CanonicalizationMethod x="y" '),
        ("<ds:DigestMethod ", '<ds:DigestMethod xml:lang="en" '),
    ):
        refused(token(resigned(GOOD, old, new)), "which (is|are) not taken|has not the parts")
    assert verify(token(resigned(GOOD, "\n", "\n"))).sub == "jane"


def resigned(xml: str, old: str, new: str) -> str:
    """With another SignedInfo, that is signed again."""
    from tests.issuance import saml_idp

    info = xml[xml.index("<ds:SignedInfo>") : xml.index("</ds:SignedInfo>") + len("</ds:SignedInfo>")].replace("<ds:SignedInfo>", f'<ds:SignedInfo xmlns:ds="{DS}">')
    info = info.replace(old, new)
    value = base64.b64encode(saml_idp.signed(canonical(etree.fromstring(info)), "rsa", f"{MORE}rsa-sha256")).decode()
    signature = f'<ds:Signature xmlns:ds="{DS}">{info}<ds:SignatureValue>{value}</ds:SignatureValue></ds:Signature>'
    return placed(xml.replace(xml[xml.index("<ds:Signature ") : xml.index("</ds:Signature>") + len("</ds:Signature>")], ""), signature)


def test_78_a_key_of_its_own_is_not_believed() -> None:
    """Signed by a stranger, who sends the key along."""
    for info in (
        f"<ds:KeyInfo><ds:X509Data><ds:X509Certificate>{''.join(certificate('rsa-2').splitlines()[1:-1])}</ds:X509Certificate></ds:X509Data></ds:KeyInfo>",
        "<ds:KeyInfo><ds:KeyValue><ds:RSAKeyValue><ds:Modulus>AQAB</ds:Modulus><ds:Exponent>AQAB</ds:Exponent></ds:RSAKeyValue></ds:KeyValue></ds:KeyInfo>",
        '<ds:KeyInfo><ds:RetrievalMethod URI="https://evil.example/key"/></ds:KeyInfo>',
    ):
        refused(login(key="rsa-2", info=info), "its signature does not hold")
        assert verify(login(info=info)).sub == "jane"


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


# --- how it is spelled ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"<", "no XML"),
        (b"<a", "no XML"),
        (b"<a></b>", "no XML"),
        (b"<a/><b/>", "no XML"),
        (b"<a/>x", "no XML"),
        (b"<a>\x00</a>", "does not begin as XML in UTF-8"),
        (b"<a>&#0;</a>", "no XML"),
        (b"<a>\xff</a>", "no text in UTF-8"),
        (b"<a b='1' b='2'/>", "no XML"),
        (b"<a xmlns:p='u' xmlns:q='u' p:b='1' q:b='2'/>", "an attribute twice"),
        (b"<p:a/>", "prefix is not declared"),
        (b"<a p:b='1'/>", "prefix is not declared"),
        (b"<a xmlns:p='u'><p:b:c/></a>", "prefix is not declared"),
        (b"<:a/>", "prefix is not declared"),
        (b"<a xmlns:p='u'><p:/></a>", "prefix is not declared"),
        (b"<xmlns:a/>", "prefix is not declared"),
        (b"<a xmlns:='u'/>", "a name that is none"),
        (b"<a xmlns='u' xmlns:='v'/>", "a name that is none"),
        (b"<a xmlns:p:q='u'><p:q:b/></a>", "a name that is none"),
        (b"<a xmlns:p='u' p:q:r='1'/>", "a name that is none"),
        (b"<a xmlns:p=''/>", "a namespace that cannot be"),
        (b"<a xmlns:xml='http://www.w3.org/XML/1998/namespace'/>", "a namespace that cannot be"),
        (b"<a xmlns:xmlns='u'/>", "a namespace that cannot be"),
        (b"<a xmlns='http://www.w3.org/2000/xmlns/'/>", "a namespace that cannot be"),
        (b"<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>", "a namespace that cannot be"),
        (b"<a>" * (MAX_DEPTH + 1) + b"</a>" * (MAX_DEPTH + 1), "nested too deeply"),
        (b"<a>" * 4000, "nested too deeply"),
        (b"<a>" + b"<b/>" * MAX_ELEMENTS + b"</a>", "too many parts"),
        (b"<a>" + b"<b/>" * (MAX_ELEMENTS - 1) + b"</a>", "no signature"),
        (b"<a" + b"".join(b" xmlns:p%d='u'" % n for n in range(MAX_PREFIXES)) + b"/>", "too many namespaces"),
        (b"<a" + b"".join(b" xmlns:p%d='u'" % n for n in range(MAX_PREFIXES - 2)) + b"/>", "no signature"),
        (b"<?xml version='1.1'?><a/>", "a processing instruction"),
        (b"<?xml version='1.0' encoding='UTF-16'?><a/>", "a processing instruction"),
        (b"<?xml version='1.0' encoding='iso-8859-1'?><a/>", "a processing instruction"),
        (b"<?xml version='1.0\"?><a/>", "a processing instruction"),
        (b"<?xml version='1.0'?><?xml version='1.0'?><a/>", "a processing instruction"),
        (b"<?xml-stylesheet href='x'?><a/>", "a processing instruction"),
        ("<a/>".encode("utf-16-le"), "does not begin as XML in UTF-8"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>".encode("utf-16-le"), "does not begin as XML in UTF-8"),
        ("<?xml version='1.0'?>\ufeff<a/>".encode(), "does not begin as XML in UTF-8"),
        (b"<?xml version='1.0'?>", "does not begin as XML in UTF-8"),
        (b"<a/>", "no signature"),
        (b"<a>" * MAX_DEPTH + b"</a>" * MAX_DEPTH, "a second"),
    ],
)
def test_what_is_no_strict_xml_is_refused(data: bytes, says: str) -> None:
    refused(token(data), says)


@pytest.mark.parametrize("name", ["x" * 5000, "\u0439\u200d\u0439"])
def test_what_a_stranger_calls_an_element_is_told_short_and_in_plain_letters(name: str) -> None:
    for xml in (
        f"<{name}>x{SIGNATURE}</{name}>",
        f"<{name} ID='_a1'>{SIGNATURE}</{name}>",
        f"<{name} ID='_a1'><{name}/>{SIGNATURE}</{name}>",
        GOOD.replace("<ds:KeyName>", "").replace("</ds:Transforms>", f"<{name}>x</{name}></ds:Transforms>"),
        GOOD.replace("<ds:DigestMethod ", f"<ds:DigestMethod {name}='1' "),
        within(GOOD, f"<{name}>x</{name}>"),
    ):
        told = refused(token(xml), "it|has")
        assert str(told).isascii() and len(str(told)) < 250


def test_text_is_one_however_long_it_is() -> None:
    """The parser tells it in pieces of eight thousand bytes."""
    long = "jane&amp;" * 2000
    (text,) = read_xml(f"<a>{long}</a>".encode()).children
    assert text == long.replace("&amp;", "&")


def test_4_23_it_has_one_spelling_and_a_bound() -> None:
    text = login()
    for other in (f"{text}=", f"{text}==", f"{text}\n", f"{text[:40]}\n{text[40:]}", f"{text[:-1]}+", f"{text}!", text[:-1]):
        refused(other, "it is base64url|it is |no XML")
    wide = token(GOOD + " " * 20_000)
    refused(wide, "longer than 16384 characters")
    assert verify(token(GOOD + " " * 8)).sub == "jane"
    for other in (b"PA", None, 5, "", " ", "P.A.A", f" {text}", base64.b64encode(GOOD.encode()).decode().swapcase()):
        refused(other, "it (is|has not the three parts)|a part of it cannot be read")


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


SOUND = verify(token(GOOD))
SLOW = [HealthCheck.too_slow]


@given(st.binary(max_size=200).map(lambda data: b"<" + data) | st.text(max_size=100).map(lambda text: f"<{text}".encode("utf-8", "replace")))
@example(b"<a xmlns:a='\r'/>")
@settings(max_examples=times(100))
def test_fuzz_whatever_bytes(data: bytes) -> None:
    assert accepted(token(data)) is None


@given(st.data())
@settings(max_examples=times(150), suppress_health_check=SLOW)
def test_fuzz_a_changed_byte_is_refused_or_changes_nothing(data: st.DataObject) -> None:
    """Cut, doubled, or with something else in it. White space outside, and what is not looked at, may be other."""
    at = data.draw(st.integers(0, len(GOOD) - 1))
    other = data.draw(
        st.sampled_from([GOOD[:at], GOOD[at + 1 :], GOOD[:at] + GOOD[at] * 2 + GOOD[at + 1 :]])
        | st.characters(codec="utf-8").map(lambda one: GOOD[:at] + one + GOOD[at + 1 :])
        | st.sampled_from(["&#10;", "&amp;", "<x/>", " ", "<!---->", "\r\n", "]]>", 'ID="_a1"']).map(lambda one: GOOD[:at] + one + GOOD[at:])
    )
    assert accepted(token(other)) in (None, SOUND)


def spelled(element: Any) -> str:
    """An element as XML, with the declarations that it needs."""
    return ours(element).decode()


@given(st.data())
@settings(max_examples=times(150), suppress_health_check=SLOW)
def test_fuzz_a_changed_tree_is_refused_or_changes_nothing(data: st.DataObject) -> None:
    """Elements that are moved, doubled, dropped, renamed or emptied; and attributes likewise."""
    root = read_xml(GOOD.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        every = list(root.every())
        one = every[data.draw(st.integers(0, len(every) - 1))]
        other = every[data.draw(st.integers(0, len(every) - 1))]
        inside = any(each is one for each in other.every()) or any(each is other for each in one.every())
        match data.draw(st.sampled_from(["drop", "move", "double", "rename", "text", "attribute", "unstate", "reorder"])):
            case "drop":
                one.children = one.children[1:]
            case "move" if not inside:
                one.children.insert(0, other)
            case "double":
                one.children = one.children * 2
            case "rename":
                one.name, one.prefix, one.scope = other.name, other.prefix, other.scope
            case "text":
                one.children.append(data.draw(st.sampled_from(["x", " ", "jane", "\n"])))
            case "attribute" if other.attributes:
                one.attributes.append(other.attributes[0])
            case "unstate":
                one.attributes = one.attributes[1:]
            case "reorder":
                one.children = one.children[::-1]
            case _:
                pass
    xml = spelled(root)
    assume(len(xml) < 12_000)
    assert accepted(token(xml)) in (None, SOUND)


@given(st.sampled_from(sorted(PARTS)), st.data())
@settings(max_examples=times(100), suppress_health_check=SLOW)
def test_fuzz_a_changed_part_that_is_signed(part: str, data: st.DataObject) -> None:
    """Signed by the right key: it is refused, or it says what it says, and no more than one thing."""
    xml = assertion()
    start = xml.index(PARTS[part][:8])
    at = data.draw(st.integers(start, len(xml) - 1))
    new = data.draw(st.sampled_from(["", "<!---->", "<x/>", " ", "&#13;", "x", xml[at] * 2]))
    try:
        text = token(sign(xml[:at] + new + xml[at + 1 :]))
    except (etree.XMLSyntaxError, KeyError):
        return
    who = accepted(text)
    if who is not None:
        root = etree.fromstring(b64decode(text))
        assert who.sub == "".join(root.find(f".//{{{SAML}}}NameID").itertext())
        assert who.claims["aud"] == US and who.issuer == IDP


# --- canonical bytes ------------------------------------------------------------------------------

PREFIXES = st.sampled_from(["", "a", "b", "xs"])
URIS = st.sampled_from(["urn:1", "urn:2", "http://3.example/?a=b;c"])  # with an `&`, what lxml writes is no XML
WORDS = st.text("ab \t\n\r\"'&<>é\U0001f600", max_size=6)


@st.composite
def documents(draw: st.DrawFn, depth: int = 0, scope: tuple[str, ...] = ("",)) -> str:
    """XML with namespaces that are declared, shadowed, given back and never used."""
    declared = draw(st.dictionaries(PREFIXES, URIS, max_size=3))
    inside = tuple(sorted({*scope, *declared}))
    prefix = draw(st.sampled_from(inside))
    tag = f"{prefix}:e" if prefix else "e"
    made = "".join(f' xmlns{":" if key else ""}{key}="{value}"' for key, value in declared.items())
    if draw(st.booleans()) and "" not in declared:
        made += ' xmlns=""'
    for name in draw(st.sets(st.sampled_from(["c", "d", "Z"]), max_size=2)):
        owner = draw(st.sampled_from(["", "xml", *(one for one in inside if one)]))
        made += f' {owner}{":" if owner else ""}{name}="{draw(WORDS).replace("&", "&amp;").replace("<", "&lt;").replace(chr(34), "&#34;").replace(chr(13), "&#13;")}"'
    inner = "" if depth == 3 else "".join(draw(st.lists(documents(depth + 1, inside), max_size=2)))
    text = draw(WORDS).replace("&", "&amp;").replace("<", "&lt;").replace("]]>", "]]&gt;")
    return f"<{tag}{made}>{text}{inner}{text}</{tag}>"


@given(documents(), st.sets(st.sampled_from(["a", "b", "xs"]), max_size=2))
@settings(max_examples=times(60), suppress_health_check=SLOW)
@example("<e xmlns='urn:1'><e xmlns=''><e xmlns='urn:1'/></e></e>", set())
@example("<a:e xmlns:a='urn:1' xmlns:b='urn:2'><b:e xmlns:b='urn:2' b:x='1' a:x='2' x='3'/></a:e>", {"b"})
def test_canonical_bytes_are_those_of_another_writer(xml: str, inclusive: set[str]) -> None:
    """lxml's, for all of a document and for each part of it; and what they spell is the same again."""
    try:
        theirs = etree.fromstring(xml.encode())
    except etree.XMLSyntaxError:
        assume(False)
    root = read_xml(xml.encode())
    assert ours(root, inclusive) == canonical(theirs, tuple(inclusive))
    assert ours(read_xml(ours(root, inclusive)), inclusive) == ours(root, inclusive)
    for mine, other in zip(root.every(), theirs.iter(), strict=True):
        assert read_xml(ours(mine)).name == mine.name
        assert ours(mine) == canonical_of_part(other)


def canonical_of_part(node: Any) -> bytes:
    """Of an element within its document, and without what stands behind it."""
    tail, node.tail = node.tail, None
    try:
        return canonical(node)
    finally:
        node.tail = tail


@given(st.binary(max_size=120))
@settings(max_examples=times(100))
def test_whatever_is_read_is_refused_with_one_error(data: bytes) -> None:
    with suppress(XmlError):
        read_xml(data)


# --- what is imported -----------------------------------------------------------------------------


def test_no_library_is_imported_before_a_certificate_is_read() -> None:
    asked = "import captoken.issuance.identity, captoken.issuance.keys, captoken.issuance.saml, sys; print({'cryptography', 'lxml'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_without_the_extra_it_says_what_to_install() -> None:
    asked = "import sys; sys.modules['cryptography'] = None\nfrom captoken.issuance.signed_xml import certificates\ncertificates(b'')"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    assert done.returncode == 1 and "pip install 'captoken[saml]'" in done.stderr
