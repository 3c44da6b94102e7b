"""An identity provider of SAML: assertions as such providers write them, signed by the right key unless that is the fault.

Canonical bytes are lxml's here, and not ours.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from lxml import etree

from captoken._format.encoding import b64encode

NOW = 1_800_000_000
US = "https://issuer.example"
IDP = "https://idp.corp.example/metadata"

SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
DS = "http://www.w3.org/2000/09/xmldsig#"
MORE = "http://www.w3.org/2001/04/xmldsig-more#"
EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
ENVELOPED = f"{DS}enveloped-signature"
SHA256 = "http://www.w3.org/2001/04/xmlenc#sha256"
PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
MFA = "https://refeds.org/profile/mfa"
GROUPS = "urn:oid:1.3.6.1.4.1.5923.1.5.1.1"


def at(seconds: int, now: int = NOW) -> str:
    return datetime.fromtimestamp(now + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- keys -----------------------------------------------------------------------------------------


@cache
def private(name: str) -> Any:
    """A key by its name: `rsa`, `rsa-2`, `P-256`, …; made once."""
    curves: dict[str, Any] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1(), "P-256k": ec.SECP256K1()}
    if name in curves:
        return ec.generate_private_key(curves[name])
    if name == "dsa":
        return dsa.generate_private_key(2048)
    return rsa.generate_private_key(65537, 1024 if name == "weak" else 2048)


@cache
def certificate(name: str, days: int = 30) -> str:
    """A certificate of that key, in PEM. It ended long ago, if `days` are negative."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"idp {name}")])
    begins = datetime(2020, 1, 1, tzinfo=UTC) if days < 0 else datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private(name).public_key())
        .serial_number(7)
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=abs(days)))
        .sign(private("rsa"), hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()


def private_pem(name: str) -> str:
    return private(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


# --- assertions -----------------------------------------------------------------------------------

# The parts of an assertion, which a test puts others over. What is in braces is put in when it is made.
PARTS = {
    "issuer": "<saml:Issuer>{idp}</saml:Issuer>",
    "name": '<saml:NameID Format="{persistent}">jane</saml:NameID>',
    "confirmation": (
        '<saml:SubjectConfirmation Method="{bearer}"><saml:SubjectConfirmationData NotOnOrAfter="{soon}" Recipient="{us}/token"'
        ' InResponseTo="_q1"/></saml:SubjectConfirmation>'
    ),
    "conditions": (
        '<saml:Conditions NotBefore="{before}" NotOnOrAfter="{soon}"><saml:AudienceRestriction><saml:Audience>{us}</saml:Audience>'
        "</saml:AudienceRestriction></saml:Conditions>"
    ),
    "login": (
        '<saml:AuthnStatement AuthnInstant="{login}" SessionIndex="s-1"><saml:AuthnContext>'
        "<saml:AuthnContextClassRef>{mfa}</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>"
    ),
    "attributes": (
        '<saml:AttributeStatement><saml:Attribute Name="{groups}" NameFormat="urn:oasis:names:tc:SAML:2.0:attrname-format:uri">'
        '<saml:AttributeValue xsi:type="xs:string">finance</saml:AttributeValue>'
        '<saml:AttributeValue xsi:type="xs:string">staff</saml:AttributeValue></saml:Attribute>'
        '<saml:Attribute Name="department"><saml:AttributeValue>risk &amp; audit</saml:AttributeValue></saml:Attribute>'
        "</saml:AttributeStatement>"
    ),
}  # fmt: skip
SHAPE = (
    '<saml:Assertion xmlns:saml="{saml}" xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    ' ID="{id}" IssueInstant="{issued}" Version="2.0">'
    "{issuer}{before_subject}<saml:Subject>{name}{confirmation}</saml:Subject>{conditions}{login}{attributes}{last}</saml:Assertion>"
)


def assertion(id: str = "_a1", now: int = NOW, **parts: str) -> str:
    """An assertion without a signature."""
    values = {
        "idp": IDP, "us": US, "persistent": PERSISTENT, "bearer": BEARER, "mfa": MFA, "groups": GROUPS, "issued": at(-10, now),
        "soon": at(290, now), "before": at(-40, now), "login": at(-60, now),
    }  # fmt: skip
    made = {name: text.format_map(values) for name, text in (PARTS | {"before_subject": "", "last": ""} | parts).items()}
    return SHAPE.format_map({"saml": SAML, "id": id, "issued": values["issued"]} | made)


def canonical(node: Any, inclusive: tuple[str, ...] = ()) -> bytes:
    """By lxml, and so by libxml2."""
    made: bytes = etree.tostring(node, method="c14n", exclusive=True, with_comments=False, inclusive_ns_prefixes=list(inclusive) or None)
    return made


TRANSFORMS = f'<ds:Transform Algorithm="{ENVELOPED}"/><ds:Transform Algorithm="{EXCLUSIVE}"/>'
REFERENCE = '<ds:Reference URI="{uri}"><ds:Transforms>{transforms}</ds:Transforms><ds:DigestMethod Algorithm="{hash}"/><ds:DigestValue>{digest}</ds:DigestValue></ds:Reference>'
SIGNED_INFO = (
    '<ds:SignedInfo xmlns:ds="{ds}"><ds:CanonicalizationMethod Algorithm="{form}"/><ds:SignatureMethod Algorithm="{method}"/>{references}</ds:SignedInfo>'
)


def signature_over(
    xml: str,
    key: str = "rsa",
    *,
    method: str = f"{MORE}rsa-sha256",
    hash: str = SHA256,
    form: str = EXCLUSIVE,
    transforms: str = TRANSFORMS,
    inclusive: tuple[str, ...] = (),
    uri: str | None = None,
    more: str = "",
    info: str = "",
    around: str = "{signed_info}{value}{info}",
    value: str | None = None,
) -> str:
    """A Signature over the root of a document."""
    root = etree.fromstring(xml.encode())
    used = {"sha1": hashlib.sha1, "sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512}[hash.rpartition("#")[2]]
    digest = base64.b64encode(used(canonical(root, inclusive)).digest()).decode()
    to = f"#{root.get('ID')}" if uri is None else uri
    one = REFERENCE.format(uri=to, transforms=transforms, hash=hash, digest=digest)
    signed_info = SIGNED_INFO.format(ds=DS, form=form, method=method, references=one + more)
    stands = value or base64.encodebytes(signed(canonical(etree.fromstring(signed_info)), key, method)).decode()
    written = around.format(
        signed_info=signed_info.replace(f' xmlns:ds="{DS}"', ""), value=f"<ds:SignatureValue>{stands}</ds:SignatureValue>", info=info
    )
    return f'<ds:Signature xmlns:ds="{DS}">{written}</ds:Signature>'


def signed(data: bytes, key: str, method: str) -> bytes:
    """The bytes of a signature."""
    used: Any = {"sha1": hashes.SHA1, "sha256": hashes.SHA256, "sha384": hashes.SHA384, "sha512": hashes.SHA512}[method.rpartition("-")[2]]()
    own = private(key)
    if isinstance(own, rsa.RSAPrivateKey):
        return own.sign(data, padding.PKCS1v15(), used)
    r, s = decode_dss_signature(own.sign(data, ec.ECDSA(used)))
    size = (own.key_size + 7) // 8
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def placed(xml: str, signature: str) -> str:
    """A signature where it belongs: behind the issuer."""
    return xml.replace("</saml:Issuer>", f"</saml:Issuer>{signature}", 1)


def sign(xml: str, key: str = "rsa", **how: Any) -> str:
    return placed(xml, signature_over(xml, key, **how))


def token(xml: str | bytes) -> str:
    """As it is sent."""
    return b64encode(xml if isinstance(xml, bytes) else xml.encode())


def login(parts: Mapping[str, str] | None = None, **how: Any) -> str:
    """A login that is good, but for what is put over its parts, or done to its signature."""
    return token(sign(assertion(**(parts or {})), **how))


PROTOCOL = "urn:oasis:names:tc:SAML:2.0:protocol"
SUCCESS = '<p:Status><p:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/></p:Status>'


def response(*parts: str, status: str = SUCCESS, issuer: str = f"<a:Issuer>{IDP}</a:Issuer>", name: str = "Response", **stated: str) -> str:
    """What a browser posts: the parts as they are, behind a status."""
    attributes = {"ID": "_r1", "Version": "2.0", "IssueInstant": at(0), **stated}
    said = "".join(f' {key}="{value}"' for key, value in attributes.items())
    return f'<p:{name} xmlns:p="{PROTOCOL}" xmlns:a="{SAML}"{said}>{issuer}{status}{"".join(parts)}</p:{name}>'


POLICY = """
version = 1
[service]
origin = "https://issuer.example"
[provider.corp]
kind = "saml"
issuer = "https://idp.corp.example/metadata"      # the provider's entity ID
certificates = '''
{certificates}'''
max_login_age = 28800                             # seconds since the person logged in there
subject = "corp:{{sub}}"
attributes = {{ groups = "urn:oid:1.3.6.1.4.1.5923.1.5.1.1", department = "department" }}
[resource.sales-db]
[grant.report]
subject = {{ provider = "corp", groups = ["finance"] }}
agents = ["reporter"]
resources = ["sales-db"]
give = {{ allow = {{ "sales" = ["select"] }}, expires_in = 300 }}
[[test]]
subject = {{ provider = "corp", sub = "jane", groups = ["finance"] }}
allows = [{{ table = "sales", operation = "select" }}]
denies = [{{ table = "hr", operation = "select" }}]
[[test]]
subject = {{ provider = "corp", sub = "joan", groups = ["sales"] }}
refused = true
"""


def policy_text(*names: str) -> str:
    """A policy with the certificates of these keys."""
    return POLICY.format(certificates="".join(certificate(name) for name in names or ("rsa",)))
