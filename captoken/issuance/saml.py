"""Turn a SAML assertion into claims (SAML 2.0 Core; Web Browser SSO Profile; RFC 7522).

    unverified = opened_assertion(text)                  # base64url of an Assertion
    claims = claims_of(unverified.content, {"groups": "urn:oid:1.3.6.1.4.1.5923.1.5.1.1"})

Only the form is checked here. Each part must occur once and in its place, and unknown parts are
refused: a condition that nobody checks could be one that is not met. `identity` checks the claims
and the signature.

| claim | its place |
| --- | --- |
| `iss`, `jti`, `iat` | Issuer; ID and IssueInstant of the assertion |
| `sub`, `name_id` | NameID, and the last word of its format |
| `aud`, `recipient` | the one Audience; Recipient of the bearer confirmation |
| `nonce` | InResponseTo of the bearer confirmation: the request that it answers |
| `exp`, `nbf` | the earliest end that is stated, and NotBefore of the Conditions |
| `auth_time`, `sid`, `acr` | AuthnInstant, SessionIndex and AuthnContextClassRef |
| as named in the policy | an attribute: a text, or a list of texts unless it has one value |
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Mapping
from typing import Any

from captoken._format.encoding import EncodingError, b64decode, b64encode
from captoken._format.errors import IssuanceError
from captoken._format.spelling import shown
from captoken._language.bounds import ASSERTION_CHARS
from captoken.issuance.signed_xml import (
    SIGNATURE,
    Element,
    Name,
    UnverifiedXml,
    XmlError,
    canonical,
    opened_xml,
    read_xml,
)

NAMESPACE = _SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
PROTOCOL = "urn:oasis:names:tc:SAML:2.0:protocol"
_SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
_INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
_BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
_ENTITY = "urn:oasis:names:tc:SAML:2.0:nameid-format:entity"

# Formats of a NameID (SAML 2.0 Core, 8.3), by the words that a policy has for them.
_1_1 = "urn:oasis:names:tc:SAML:1.1:nameid-format:"
_2_0 = "urn:oasis:names:tc:SAML:2.0:nameid-format:"
_FORMATS = {
    f"{_2_0}persistent": "persistent",
    f"{_2_0}transient": "transient",
    f"{_2_0}kerberos": "kerberos",
    f"{_1_1}unspecified": "unspecified",
    f"{_1_1}emailAddress": "emailAddress",
    f"{_1_1}X509SubjectName": "X509SubjectName",
    f"{_1_1}WindowsDomainQualifiedName": "WindowsDomainQualifiedName",
}
NAME_IDS = tuple(_FORMATS.values())
FORMATS_OF_NAMES = {name: written for written, name in _FORMATS.items()}

# Claims that are not for an attribute to say: those of the table, and those of other kinds.
OWN_CLAIMS = frozenset(
    (
        "iss",
        "sub",
        "aud",
        "exp",
        "nbf",
        "iat",
        "jti",
        "auth_time",
        "acr",
        "sid",
        "azp",
        "typ",
        "act",
        "may_act",
        "events",
        "client_id",
        "scope",
        "scp",
        "cnf",
        "nonce",
        "name_id",
        "recipient",
        "provider",
    )
)

# What a response may have, each once.
_IN_RESPONSE = {
    (_SAML, "Issuer"),
    SIGNATURE,
    (PROTOCOL, "Status"),
    (_SAML, "Assertion"),
}
_STATUS_CODE = (PROTOCOL, "StatusCode")

# All times are in UTC (SAML 2.0 Core, 1.3.3).
_time = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]{1,9})?Z")


def is_one(text: Any) -> bool:
    """Does a text look like an assertion, and not like a JWT? It begins with a `<`."""
    return type(text) is str and text.startswith("P") and "." not in text


def opened_assertion(text: str) -> UnverifiedXml:
    """The parts of a text that looks like one, of any size. Raises XmlError.

    Its root is an Assertion: not a Response, and none that is encrypted. What it says is not looked
    at, nor its signature.
    """
    if len(text) > ASSERTION_CHARS:
        raise XmlError(f"it is longer than {ASSERTION_CHARS} characters")
    try:
        data = b64decode(text)
    except EncodingError as error:
        raise XmlError(f"it is {error}") from None

    unverified = opened_xml(data)
    name = unverified.content.name
    if name != (_SAML, "Assertion"):
        raise XmlError(f"it is {shown(name[1])}, and no Assertion")
    return unverified


def assertion_in(data: bytes, issuer: str, here: str, request: str) -> str:
    """The one assertion in a response, as a text that `opened_assertion` reads. Raises XmlError.

    What the response itself says may refuse it, and nothing more: it need not be signed. Raises
    IssuanceError where it says that nobody has logged in.
    """
    response = read_xml(data)
    if response.name != (PROTOCOL, "Response"):
        raise XmlError(f"it is {shown(response.name[1])}, and no Response")
    said = response.stated(
        "Version", "ID", "IssueInstant", may=("Destination", "InResponseTo", "Consent")
    )
    if said.get("Destination", here) != here:
        raise XmlError(f"it was sent to {shown(said['Destination'])}, and not here")
    if said.get("InResponseTo", request) != request:
        raise XmlError("it answers another request")

    # An assertion that is anywhere else, or a second one, is for another reader than this one.
    parts = {one.name: one for one in response.elements()}
    if len(parts) != len(response.elements()) or parts.keys() - _IN_RESPONSE:
        raise XmlError("it has other parts than an Issuer, a Signature, a Status, an Assertion")
    of = parts.get((_SAML, "Issuer"))
    if of is not None and of.text() != issuer:
        raise XmlError("it is of another issuer")
    _check_status(parts.get((PROTOCOL, "Status")))
    assertion = parts.get((_SAML, "Assertion"))
    if assertion is None or sum(one.name == assertion.name for one in response.every()) > 1:
        raise XmlError("it has not one assertion")

    # With all prefixes that mean something in it: its signature may be over their declarations.
    return b64encode(canonical(assertion, assertion.scope))


def _check_status(status: Element | None) -> None:
    """Raise IssuanceError where nobody has logged in, and XmlError where it does not say so."""
    codes = [] if status is None else [one for one in status.every() if one.name == _STATUS_CODE]
    if not codes:
        raise XmlError("it has no Status")
    said = [one.stated("Value")["Value"] for one in codes]
    if said != [_SUCCESS]:
        why = shown(said[-1].rpartition(":")[2])
        raise IssuanceError(f"the provider has logged nobody in: {why}", "access_denied")


def stated_issuer(assertion: Element) -> str:
    """Whom it says that it is of: the entity ID, character by character. Raises XmlError."""
    first = assertion.elements()[:1]
    if not first or first[0].name != (_SAML, "Issuer"):
        raise XmlError("it has no Issuer")
    if first[0].stated(may=("Format",)).get("Format", _ENTITY) != _ENTITY:
        raise XmlError("its Issuer is no entity ID")
    return first[0].text()


def claims_of(assertion: Element, attributes: Mapping[str, str]) -> dict[str, Any]:
    """What an assertion says. Raises XmlError.

    `attributes` are the names of attributes, by the claims that they become. Others are not read.
    """
    stated = assertion.stated("Version", "ID", "IssueInstant")
    if stated["Version"] != "2.0":
        raise XmlError("it is not of version 2.0")
    issuer = stated_issuer(assertion)
    subject, conditions, *statements = _parts(assertion)
    by_name = {one.name: one for one in statements}

    claims: dict[str, Any] = {
        "iss": issuer,
        "jti": stated["ID"],
        "iat": _time_of(stated["IssueInstant"]),
    }
    audience, begins, ends = _conditions(conditions)
    sub, confirmed = _subject(subject, issuer, audience)
    login = _login(by_name[_SAML, "AuthnStatement"])
    session_ends = login.pop("session_ends", ends)
    claims |= {"aud": audience, **sub, **login}

    # Of several ends the earliest: each of them is a condition.
    claims["exp"] = min(ends, confirmed, session_ends)
    if begins is not None:
        claims["nbf"] = begins

    said = by_name.get((_SAML, "AttributeStatement"))
    if said is not None:
        claims |= _attributes(said, attributes)
    return claims


def _parts(assertion: Element) -> list[Element]:
    """Its parts behind the Issuer: Subject, Conditions, and one or two statements.

    Raises XmlError for any others. A signature is none of them: it is left out of what was signed.
    """
    _, *parts = assertion.elements()
    names = [one.name for one in parts]
    if names[:2] != _names("Subject", "Conditions"):
        raise XmlError("it has no Subject, no Conditions, or other parts before them")

    # The statements may stand in any order.
    if sorted(names[2:]) not in (
        _names("AuthnStatement"),
        _names("AttributeStatement", "AuthnStatement"),
    ):
        raise XmlError("it has one AuthnStatement, and perhaps one AttributeStatement: no more")
    return parts


def _names(*names: str) -> list[Name]:
    """Names of SAML's own namespace."""
    return [(_SAML, name) for name in names]


def _only(element: Element, name: str) -> Element:
    """Its one child, of that name. Raises XmlError."""
    otherwise = f"{shown(element.name[1])} has one {name}, and nothing else"
    return element.parts(_SAML, (name,), otherwise)[0]


def _time_of(text: str) -> int:
    """A time, in whole seconds since the epoch. Raises XmlError."""
    found = _time.fullmatch(text)
    try:
        if found is not None:
            return calendar.timegm(time.strptime(found[1], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        pass
    raise XmlError("it has a time that is none in UTC")


# --- whom it is about -----------------------------------------------------------------------------


def _subject(subject: Element, issuer: str, audience: str) -> tuple[dict[str, str], int]:
    """Whom it is about and to whom it was sent, and until when that is good. Raises XmlError."""
    subject.stated()
    name, confirmation = subject.parts(
        _SAML,
        ("NameID", "SubjectConfirmation"),
        "its Subject has one NameID and one SubjectConfirmation, and nothing else",
    )
    stated = name.stated(may=("Format", "NameQualifier", "SPNameQualifier"))

    # The same value with another qualifier is somebody else (SAML 2.0 Core, 8.3.7).
    if stated.get("NameQualifier", issuer) != issuer:
        raise XmlError("its NameID is of another issuer (NameQualifier)")
    if stated.get("SPNameQualifier", audience) != audience:
        raise XmlError("its NameID is for somebody else (SPNameQualifier)")
    stated_format = stated.get("Format", f"{_1_1}unspecified")

    if confirmation.stated("Method")["Method"] != _BEARER:
        raise XmlError("it is not for its bearer (SubjectConfirmation)")
    data = _only(confirmation, "SubjectConfirmationData")

    # NotBefore has no place in it (Web Browser SSO Profile, 4.1.4.2).
    confirmed = data.stated(
        "Recipient",
        "NotOnOrAfter",
        may=("InResponseTo", "Address"),
    )
    if data.elements():
        raise XmlError("its SubjectConfirmationData has more than attributes")

    # A format that is not known here goes by its whole name, which no policy takes.
    said = {
        "sub": name.text(),
        "name_id": _FORMATS.get(stated_format, stated_format),
        "recipient": confirmed["Recipient"],
    }
    if "InResponseTo" in confirmed:
        said["nonce"] = confirmed["InResponseTo"]
    return said, _time_of(confirmed["NotOnOrAfter"])


def _conditions(conditions: Element) -> tuple[str, int | None, int]:
    """Whom it is for alone, and from when until when. Raises XmlError.

    A condition that is not known here may not hold (SAML 2.0 Core, 2.5.1.1).
    """
    stated = conditions.stated("NotOnOrAfter", may=("NotBefore",))
    restriction = _only(conditions, "AudienceRestriction")
    restriction.stated()
    audience = _only(restriction, "Audience")
    audience.stated()
    begins = _time_of(stated["NotBefore"]) if "NotBefore" in stated else None
    return audience.text(), begins, _time_of(stated["NotOnOrAfter"])


def _login(statement: Element) -> dict[str, Any]:
    """When and how somebody logged in, and in which session. Raises XmlError."""
    stated = statement.stated(
        "AuthnInstant",
        may=("SessionIndex", "SessionNotOnOrAfter"),
    )
    parts = statement.elements()

    # From where somebody logged in is not read.
    if parts and parts[0].name == (_SAML, "SubjectLocality"):
        parts = parts[1:]
    if [one.name for one in parts] != _names("AuthnContext"):
        raise XmlError("its AuthnStatement has one AuthnContext")

    said: dict[str, Any] = {"auth_time": _time_of(stated["AuthnInstant"])}
    if "SessionIndex" in stated:
        said["sid"] = stated["SessionIndex"]
    if "SessionNotOnOrAfter" in stated:
        said["session_ends"] = _time_of(stated["SessionNotOnOrAfter"])
    for one in parts[0].elements():
        if one.name == (_SAML, "AuthnContextClassRef") and "acr" not in said:
            said["acr"] = one.text()
        # Which other providers took part is not read.
        elif one.name != (_SAML, "AuthenticatingAuthority"):
            raise XmlError("its AuthnContext has more than one AuthnContextClassRef")
    return said


# --- attributes -----------------------------------------------------------------------------------


def _attributes(statement: Element, wanted: Mapping[str, str]) -> dict[str, Any]:
    """The claims that attributes become: a text, or a list of several. Raises XmlError.

    Some providers write an attribute once for each of its values. Of another format, it is another
    attribute (SAML 2.0 Core, 2.7.3.1), and whose name it has is not for us to guess.
    """
    statement.stated()
    said: dict[str, list[str]] = {}
    formats: dict[str, str | None] = {}
    for one in statement.elements():
        stated = one.stated("Name", may=("NameFormat", "FriendlyName"))
        name = stated["Name"]
        if one.name != (_SAML, "Attribute"):
            raise XmlError(f"its {shown(one.name[1])} is not taken")
        if name not in wanted.values():
            continue

        written = stated.get("NameFormat")
        if formats.setdefault(name, written) != written:
            raise XmlError(f"its attribute {shown(name)} is there in two formats")
        said.setdefault(name, []).extend(_values(one))

    values = {name: found[0] if len(found) == 1 else found for name, found in said.items()}
    return {claim: values[name] for claim, name in wanted.items() if name in values}


def _values(attribute: Element) -> list[str]:
    """The values of an attribute, each a text of which nothing is left out. Raises XmlError."""
    values: list[str] = []
    for one in attribute.elements():
        # A type may be stated, and is not read: all are texts. What is null is none.
        others = [each.name for each in one.attributes if each.name != (_INSTANCE, "type")]
        if one.name != (_SAML, "AttributeValue") or others:
            raise XmlError("an attribute has more than values that are texts")
        values.append(one.text())
    return values
