"""A person logs in at an identity provider of SAML, and a response comes back (Web Browser SSO).

    provider = SamlProvider(IDP, "https://idp.corp.example/sso", "https://issuer.example")
    address, attempt = provider.begin(here, max_age=28800)      # the browser goes there
    text = provider.finish(attempt, came)                       # what it posts to `here`

1. A response says which assertion is in it, and nothing else that is believed. That assertion is
   verified as every other one: see `saml` and `identity`.
2. What comes back is of this very login, which `check_answers` looks at: the ID of a request is a
   digest of a secret that stays in the browser. So an answer that was stolen on its way is of no
   use in another one, and what a provider sends unasked is refused.
3. A request is signed where there is a key. The answer does not depend on that.
"""

from __future__ import annotations

import binascii
import secrets
import time
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from html import escape
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from captoken._format import primitives
from captoken._format.errors import IssuanceError
from captoken._format.extras import extra
from captoken._language.bounds import RESPONSE_CHARS
from captoken.issuance import saml
from captoken.issuance.identity import Identity
from captoken.issuance.jose import MAX_RSA, MIN_RSA
from captoken.issuance.oidc import Attempt
from captoken.issuance.signed_xml import XmlError

_POST = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
_RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"


class SamlProvider(NamedTuple):
    """An identity provider, and what this service is called there."""

    issuer: str  # its entity ID
    sso: str  # where it takes requests
    entity: str  # the entity ID of this service

    # The one NameID format to ask for, in full.
    name_id: str | None = None

    # What requests are signed with: see `read_key`.
    key: Any = None
    clock: Callable[[], float] = time.time

    def begin(
        self, redirect: str, *, max_age: int, acr: str | None = None
    ) -> tuple[str, Attempt]:
        """Where to send the browser, and the attempt, which stays with it.

        With a `max_age` of 0 the provider is asked for a new login.
        """
        state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        id = _id_of(verifier)
        asked = {
            "SAMLRequest": _deflated(self._request(id, redirect, max_age, acr)),
            "RelayState": state,
            **({} if self.key is None else {"SigAlg": _RSA_SHA256}),
        }
        query = urlencode(asked)
        if self.key is not None:
            query += f"&Signature={quote(b64encode(_signed(query, self.key)), safe='')}"
        address = f"{self.sso}{'&' if '?' in self.sso else '?'}{query}"
        return address, Attempt(state, "", verifier, redirect, max_age)

    def _request(self, id: str, redirect: str, max_age: int, acr: str | None) -> str:
        """An AuthnRequest (SAML 2.0 Core, 3.4.1)."""
        issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.clock()))
        force = "" if max_age else ' ForceAuthn="true"'
        name = "" if self.name_id is None else f' Format="{self.name_id}"'
        kind = "" if acr is None else (
            '<p:RequestedAuthnContext Comparison="exact"><a:AuthnContextClassRef>'
            f"{escape(acr)}</a:AuthnContextClassRef></p:RequestedAuthnContext>"
        )
        return (
            f'<p:AuthnRequest xmlns:p="{saml.PROTOCOL}" xmlns:a="{saml.NAMESPACE}" ID="{id}"'
            f' Version="2.0" IssueInstant="{issued}" Destination="{escape(self.sso)}"{force}'
            f' ProtocolBinding="{_POST}" AssertionConsumerServiceURL="{escape(redirect)}">'
            f"<a:Issuer>{escape(self.entity)}</a:Issuer>"
            f'<p:NameIDPolicy{name} AllowCreate="true"/>{kind}</p:AuthnRequest>'
        )

    def finish(self, attempt: Attempt, came: Mapping[str, str]) -> str:
        """The assertion in what the browser came back with, which nobody has verified.

        It is as `open_assertion` takes it. Raises IssuanceError.
        """
        text = came.get("SAMLResponse", "")
        try:
            if len(text) > RESPONSE_CHARS:
                raise XmlError(f"it is longer than {RESPONSE_CHARS} characters")
            request = _id_of(attempt.verifier)
            return saml.assertion_in(_decoded(text), self.issuer, attempt.redirect, request)
        except XmlError as error:
            raise _refused(str(error)) from None


def check_answers(identity: Identity, attempt: Attempt) -> None:
    """Raise IssuanceError for an assertion that answers no request, or another one.

    The provider has signed which one it answers.
    """
    answered = str(identity.claims.get("nonce", ""))
    if not primitives.equal(answered.encode(), _id_of(attempt.verifier).encode()):
        raise _refused("it answers no request of this login")


def read_key(pem: str) -> Any:
    """The private key of a text in PEM: RSA. Takes a tenth of a second.

    Raises IssuanceError, which does not tell what is there.
    """
    with extra("saml"):
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import rsa
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a password
        key = None
    if isinstance(key, rsa.RSAPrivateKey) and MIN_RSA <= key.key_size <= MAX_RSA:
        return key
    why = "login.secret_file: no private key of RSA in PEM without a password"
    raise IssuanceError("try again later", "temporarily_unavailable", why)


def _id_of(verifier: str) -> str:
    """The ID of the request of an attempt. It does not tell the verifier."""
    return f"_{sha256(verifier.encode()).hexdigest()}"


def _refused(message: str) -> IssuanceError:
    return IssuanceError(f"the response is refused: {message}", "invalid_grant")


def _deflated(text: str) -> str:
    """As the redirect binding has it (SAML 2.0 Bindings, 3.4.4.1)."""
    made = zlib.compressobj(wbits=-15)
    return b64encode(made.compress(text.encode()) + made.flush()).decode()


def _decoded(text: str) -> bytes:
    """What base64 spells, with line breaks as the provider likes. Raises XmlError."""
    try:
        return binascii.a2b_base64("".join(text.split()).encode("ascii"), strict_mode=True)
    except ValueError:  # of base64, and of characters
        raise XmlError("it is no base64") from None


def _signed(query: str, key: Any) -> bytes:
    """The signature over a query."""
    with extra("saml"):
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

    signature: bytes = key.sign(query.encode(), padding.PKCS1v15(), hashes.SHA256())
    return signature
