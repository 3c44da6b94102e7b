"""Verify an assertion: who is asking?

    opened = open_assertion(text, policy, SUBJECTS)    # checks the form, and finds the key's name
    await keys.want(opened.name, opened.kid)           # of provider "acme", "key-7"
    identity = identify(opened, policy, keys, now, audience)

There is one way, and one table of kinds. Each caller says which kinds it accepts, so an assertion
for one purpose works for no other. An access token is no login, and a login is no workload.

The order is cheap checks before expensive ones, and form before content:

1. size, three parts, strict JSON (`jose`); for SAML, size and strict XML (`signed_xml`);
2. the provider, by its exact `iss` or by its trust domain, and the kind;
3. the header: `typ` by kind, and an algorithm of the provider;
4. the key, by its id, for that algorithm; then the signature;
5. only then the claims: times, subject and audience, what the kind needs, `require`.

Pure: no network and no clock. It cannot see whether an assertion was used before, or whether a
login has ended; the registry can.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any, ClassVar, TypeAlias

import msgspec

from captoken._format import primitives
from captoken._format.errors import IssuanceError
from captoken._format.spelling import shown
from captoken.issuance import saml
from captoken.issuance.claims import Claims
from captoken.issuance.jose import JoseError, Json, Key, UnverifiedJwt, holds, taken_apart
from captoken.issuance.policy import Oidc, Policy, Provider, Saml, Spiffe
from captoken.issuance.registry.ports import LEEWAY, Named
from captoken.issuance.signed_xml import CERTIFICATES, UnverifiedXml, XmlError, xml_holds

# Seconds that an ID-JAG is good for at most, whatever the policy says.
MAX_ID_JAG = 300

# What may name who started a task, and what may name the workload that acts.
SUBJECTS = frozenset(
    (
        "oidc",
        "access-token",
        "id-jag",
        "workload",
        "spiffe",
        "saml",
    )
)
ACTORS = frozenset(("workload", "spiffe"))

# The key of a provider by its id, or None.
Keys: TypeAlias = Callable[[str, str], Key | None]

# Others would name a key (`jwk`, `jku`, `x5u`), or change what is signed (`crit`, `b64`, `zip`).
_HEADER = frozenset(
    (
        "alg",
        "kid",
        "typ",
        "x5t",
        "x5t#S256",
    )
)

# Claims that are text wherever they are. Of another type, a logout of that session would miss it.
_TEXTS = ("sub", "acr", "azp", "client_id", "jti", "sid")

_MAX_SPIFFE_ID = 2048  # bytes (SPIFFE ID, 2.3)
_path_of_spiffe_id = re.compile(r"(?:/[A-Za-z0-9._-]+)+").fullmatch


class Identity(msgspec.Struct, frozen=True):
    """Who somebody is, by an assertion whose signature held. No assertion is kept in it."""

    # The provider's name in the policy, and its kind.
    provider: str
    kind: str

    # The issuer identifier, or the trust domain.
    issuer: str

    # The claims as they were signed. For SAML, they are what `saml` has made of it.
    claims: Claims

    # SHA-256 of what was signed. The signature is no part of it: from one by ECDSA anybody makes a
    # second that is good as well, and the same assertion would look like another. Of SAML, of the
    # issuer and the ID: an ID is good once, whatever else is signed under it.
    digest: bytes

    # Seconds since the epoch. From `expires_at` on it is refused here: its `exp` and the leeway.
    issued_at: int
    expires_at: int

    # Proven by a key with this very request: nobody can show it again. It was issued just now.
    is_live: bool = False

    @property
    def sub(self) -> str:
        """Whom it is about, as the provider calls them."""
        return str(self.claims["sub"])

    @property
    def session(self) -> str | None:
        """The session at the provider that a logout ends, if it says. Always a text."""
        return self.claims.get("sid")

    @property
    def auth_time(self) -> int | None:
        """When the person logged in; always there for `oidc` and `saml`.

        Other kinds may leave it out, or say something else by that name, which is no time.
        """
        value = self.claims.get("auth_time")
        return value if type(value) is int else None

    @property
    def acr(self) -> str | None:
        """How the person logged in, in the provider's words, if it says."""
        return self.claims.get("acr")

    @property
    def client_id(self) -> str | None:
        """Whom an access token or an ID-JAG was given to; always there for these."""
        return self.claims.get("client_id")


class Opened(msgspec.Struct, frozen=True):
    """A signed JWT that has the right form. Its signature was not looked at."""

    unverified: UnverifiedJwt

    # The provider that it says it is of, by the policy.
    name: str
    provider: Provider

    @property
    def kid(self) -> str:
        """The id of the key that it says it is signed with."""
        return str(self.unverified.header["kid"])


class OpenedSaml(msgspec.Struct, frozen=True):
    """An assertion of SAML that has the right form. Its signature was not looked at."""

    unverified: UnverifiedXml
    name: str
    provider: Saml

    # The certificates of a provider are fetched together: none has an id of its own.
    kid: ClassVar[str] = CERTIFICATES


def open_assertion(text: Any, policy: Policy, takes: Collection[str]) -> Opened | OpenedSaml:
    """Read an assertion up to the question which key it is signed with: to be fetched next.

    `takes` are the kinds of providers whose assertions are taken in this place. Nothing is
    verified, and the text may be anybody's. Raises IssuanceError, `invalid_grant`; ValueError where
    `takes` names a kind that there is not.
    """
    return _open_saml(text, policy) if _is_saml(text, takes) else _open_jwt(text, policy, takes)


def identify(
    opened: Opened | OpenedSaml,
    policy: Policy,
    keys: Keys,
    now: int,
    audience: str,
) -> Identity:
    """Who somebody is, by an assertion that was made for `audience`, which is this service.

    - `keys` gives the key of a provider by its id.
    - `now` is in seconds since the epoch.

    Raises IssuanceError, `invalid_grant`, whatever the text was. Its message may be shown to
    whoever sent the text; `why` is for the trail.
    """
    if isinstance(opened, OpenedSaml):
        claims = _saml_claims(opened, keys)
        once = f"{claims['iss']}\0{claims['jti']}".encode()
    else:
        check_signature(opened, keys)
        claims = opened.unverified.claims
        once = opened.unverified.signed

    # The provider signed it, so that what it says is to be believed. Is it for us, and for now?
    _check_claims(claims, opened.name, policy, now, audience)
    return Identity(
        provider=opened.name,
        kind=kind_of(opened.provider),
        issuer=issuer_of(opened.provider),
        claims=claims,
        digest=primitives.sha256(once),
        issued_at=claims["iat"],
        expires_at=claims["exp"] + LEEWAY,
    )


def check_signature(opened: Opened, keys: Keys) -> None:
    """Raise IssuanceError unless a key of that provider signed, by an algorithm that it is for.

    Does not look at what the claims say, not even whether they are of now.
    """
    algorithm = opened.unverified.header["alg"]
    key = keys(opened.name, opened.kid)
    if key is None:
        raise _refused(
            f"there is no key {shown(opened.kid)}",
            f"of provider {opened.name}",
        )
    if algorithm not in key.algorithms:
        raise _refused(f"its key is not for {shown(algorithm)}")
    if not holds(opened.unverified, key):
        raise _refused("its signature does not hold")


def _check_claims(claims: Json, name: str, policy: Policy, now: int, audience: str) -> None:
    """Raise IssuanceError unless a signed assertion is about somebody, for us, and good now."""
    provider = policy.providers[name]
    kind = kind_of(provider)
    _check_texts(claims)

    most = provider.max_life
    if kind == "id-jag":
        most = min(most, MAX_ID_JAG)
    check_times(claims, now, most)

    _KINDS[kind].check(claims, provider, now, audience)
    for matcher in policy.required[name]:
        if not matcher.matches(claims):
            raise _refused(
                "its issuer is known here, and it is not one of those that are taken",
                f"provider {name} requires: {matcher}",
            )


def _refused(message: str, why: str = "") -> IssuanceError:
    """`message` is for whoever sent the text, and `why` for the trail."""
    return IssuanceError(f"the assertion is refused: {message}", "invalid_grant", why)


# --- before the signature -------------------------------------------------------------------------


def _open_jwt(text: Any, policy: Policy, takes: Collection[str]) -> Opened:
    """Read a signed JWT. Raises IssuanceError."""
    if type(text) is str and text.startswith("cap1"):
        raise _refused("it is a captoken, which starts no other task")
    try:
        unverified = taken_apart(text)
    except JoseError as error:
        raise _refused(str(error)) from None

    candidates = _candidates(unverified.claims, policy, takes)
    header = unverified.header
    check_header(header)
    name, provider = _fitting(candidates, header.get("typ"))

    # Before a key is fetched for it.
    algorithm = header["alg"]
    if algorithm not in provider.algorithms:
        raise _refused(
            f"algorithm {shown(algorithm)} is not taken",
            f"of provider {name}",
        )
    return Opened(unverified, name, provider)


def _is_saml(text: Any, takes: Collection[str]) -> bool:
    """Is it to be read as SAML? Raises ValueError for a kind that there is not."""
    unknown = set(takes) - _KINDS.keys()
    if unknown:
        raise ValueError(f"takes: there is no kind {', '.join(sorted(unknown))}")
    return "saml" in takes and saml.is_one(text)


def _open_saml(text: str, policy: Policy) -> OpenedSaml:
    """Read an assertion of SAML. Raises IssuanceError."""
    try:
        unverified = saml.opened_assertion(text)
        issuer = saml.stated_issuer(unverified.content)
    except XmlError as error:
        raise _refused(str(error)) from None

    found = [
        (name, one)
        for name, one in policy.providers.items()
        if isinstance(one, Saml) and one.issuer == issuer
    ]
    if not found:
        raise _refused("its issuer is not known here")
    # It would depend on the order in a file whose it is.
    if len(found) > 1:
        names = ", ".join(name for name, _ in found)
        raise _refused("it could be of several", f"of providers {names}")

    name, provider = found[0]
    if unverified.algorithm not in provider.algorithms:
        raise _refused(
            f"algorithm {unverified.algorithm} is not taken",
            f"of provider {name}",
        )
    return OpenedSaml(unverified, name, provider)


def _saml_claims(opened: OpenedSaml, keys: Keys) -> Json:
    """What an assertion of SAML says, if its provider signed it. Raises IssuanceError."""
    unverified = opened.unverified
    key = keys(opened.name, opened.kid)
    if key is None:
        raise _refused(
            "there is no certificate to check it by",
            f"of provider {opened.name}",
        )
    if unverified.algorithm not in key.algorithms:
        raise _refused(f"its key is not for {unverified.algorithm}")
    if not xml_holds(unverified, key):
        raise _refused("its signature does not hold")

    # Only now: what it says is read from the bytes that the signature is over.
    try:
        return saml.claims_of(unverified.content, opened.provider.attributes)
    except XmlError as error:
        raise _refused(str(error)) from None


def kind_of(provider: Provider) -> str:
    """What the policy calls the kind of a provider."""
    return str(type(provider).__struct_config__.tag)


def issuer_of(provider: Provider) -> str:
    """What a provider is known as: its issuer identifier, or its trust domain."""
    return provider.trust_domain if isinstance(provider, Spiffe) else provider.issuer


def names_of(policy: Policy) -> tuple[Named, ...]:
    """By which names the subjects of a policy are known: for the registry."""
    return tuple(
        Named(name, f"{kind_of(one)} {issuer_of(one)}", policy.subjects[name].text)
        for name, one in policy.providers.items()
        if name in policy.subjects
    )


def _candidates(
    claims: Json,
    policy: Policy,
    takes: Collection[str],
) -> list[tuple[str, Provider]]:
    """The providers that an assertion could be of, of the kinds that are taken.

    There may be several: one issuer signs ID tokens and access tokens. `typ` tells them apart.
    """
    if "iss" in claims and type(claims["iss"]) is not str:
        raise _refused("its iss is no text")
    known = [(name, one) for name, one in policy.providers.items() if _is_of(one, claims)]
    if not known:
        raise _refused("its issuer is not known here")

    taken = [(name, one) for name, one in known if kind_of(one) in takes]
    if not taken:
        names = ", ".join(name for name, _ in known)
        raise _refused(
            "its issuer is known here, and not for this place",
            f"providers {names}",
        )
    return taken


def _fitting(candidates: list[tuple[str, Provider]], typ: str | None) -> tuple[str, Provider]:
    """The one provider whose kind has such a `typ`. Raises IssuanceError.

    Of several none is taken: it would depend on the order in a file what an assertion means.
    """
    fitting = [
        (name, provider) for name, provider in candidates if typ in _KINDS[kind_of(provider)].types
    ]
    if not fitting:
        raise _refused(f"typ {shown(typ)} is not for this place")
    if len(fitting) > 1:
        names = ", ".join(name for name, _ in fitting)
        raise _refused("it could be of several kinds", f"of providers {names}")
    return fitting[0]


def _is_of(provider: Provider, claims: Json) -> bool:
    """Does an assertion say that it is of this provider? Exactly so, character by character."""
    if not isinstance(provider, Spiffe):
        return claims.get("iss") == provider.issuer
    sub = claims.get("sub")
    if type(sub) is not str or not sub.startswith("spiffe://"):
        return False
    return sub.removeprefix("spiffe://").partition("/")[0] == provider.trust_domain


def check_header(header: Json) -> None:
    """Raise IssuanceError for a header that names its own key, or misses one."""
    for name, value in header.items():
        # Also one that would do no harm: what is not known here may change what the rest means.
        if name not in _HEADER:
            members = ", ".join(sorted(_HEADER))
            raise _refused(f"its header has {shown(name)}, and may have {members}")
        if type(value) is not str:
            raise _refused(f"{name} in its header is no text")
    for name in ("alg", "kid"):
        if not header.get(name):
            raise _refused(f"its header has no {name}")


# --- claims that all have -------------------------------------------------------------------------


def _check_texts(claims: Json) -> None:
    """Raise IssuanceError for claims that are not of their type, or that no assertion has here."""
    for name in (name for name in _TEXTS if name in claims):
        if type(claims[name]) is not str or not claims[name]:
            raise _refused(f"its {name} is no text")
    if "sub" not in claims:
        raise _refused("it has no sub")

    # Somebody acts for the subject. To start a task as the subject alone would shed the actor.
    for name in ("act", "may_act"):
        if name in claims:
            raise _refused(f"it has {name}: an assertion of the subject alone is taken")

    # Whoever steals it cannot use it without that key (RFC 7800), and could here: nobody asks for
    # it. A DPoP proof of the caller's own key is about the root, and not about this.
    if "cnf" in claims:
        raise _refused("it is bound to a key (cnf), and only bearer assertions are taken")

    # A logout token or an event, whatever its `typ` says.
    if "events" in claims:
        raise _refused("it tells of an event")


def check_times(claims: Json, now: int, most: int) -> None:
    """Raise IssuanceError unless the assertion is good now, and for `most` seconds in all."""
    issued_at = time_of(claims, "iat")
    expires_at = time_of(claims, "exp")
    if now >= expires_at + LEEWAY:
        raise _refused(f"it expired {now - expires_at} s ago")
    if issued_at > now + LEEWAY:
        raise _refused("it was issued in the future, by the clock here")
    if "nbf" in claims and time_of(claims, "nbf") > now + LEEWAY:
        raise _refused("it is not good yet, by the clock here")

    # However short the rest of it is: who has stolen a long one could wait for that.
    life = expires_at - issued_at
    if not 0 < life <= most:
        raise _refused(
            f"it is good for {life} s, which is not taken",
            f"at most {most} s",
        )


def time_of(claims: Json, name: str) -> int:
    """A time, in whole seconds since the epoch. `True` is none, and no text is.

    Raises IssuanceError, also for one that is missing.
    """
    if name not in claims:
        raise _refused(f"it has no {name}")
    value = claims[name]
    if type(value) is not int or value < 0:
        raise _refused(f"its {name} is no time in whole seconds")
    return value


def audiences_of(claims: Json) -> list[str]:
    """Whom it is for: one, or several. Raises IssuanceError for none."""
    stated = claims.get("aud")
    audiences: list[Any] = stated if type(stated) is list else [stated]
    if not audiences or not all(type(one) is str for one in audiences):
        raise _refused("it does not say whom it is for (aud)")
    return audiences


def _check_for_us_alone(claims: Json, audience: str) -> None:
    """Raise IssuanceError if anybody else could be sent it: they could send it here."""
    audiences = audiences_of(claims)
    if audiences != [audience]:
        stated = shown(", ".join(audiences))
        raise _refused(f"it is for {stated} (aud), and not for this service alone")


# --- what each kind asks --------------------------------------------------------------------------


def _check_oidc(claims: Json, provider: Any, now: int, audience: str) -> None:
    """An ID token: for an application of ours, of a fresh login (OpenID Connect Core, 3.1.3.7)."""
    login: Oidc = provider
    _check_given_to_ours(claims, login)

    # An access token without a type of its own: it went to a server, and servers could send it on.
    has_scope = "scope" in claims or "scp" in claims
    if has_scope or claims.get("typ", "ID") != "ID":
        raise _refused("it is no ID token: it has a scope, or another typ among its claims")

    if "auth_time" not in claims:
        raise _refused("it does not say when the login was (auth_time): ask with max_age")
    _check_login(claims, now, login.max_login_age)


def _check_given_to_ours(claims: Json, login: Oidc) -> None:
    """Raise IssuanceError unless each application that an ID token is for is one of ours."""
    audiences = audiences_of(claims)
    if not set(audiences) <= set(login.client_ids):
        stated = shown(", ".join(audiences))
        raise _refused(f"it is for {stated} (aud), which is not taken here")

    if "azp" not in claims:
        if len(audiences) > 1:
            raise _refused("it is for several (aud), and does not say whom it was given to (azp)")
        return
    if claims["azp"] not in login.client_ids:
        raise _refused(f"it was given to {shown(claims['azp'])} (azp), which is not taken here")


def _check_login(claims: Json, now: int, most: int) -> None:
    """Raise IssuanceError for a login that is to come, or more than `most` seconds ago."""
    logged_in = time_of(claims, "auth_time")
    if logged_in > now + LEEWAY:
        raise _refused("its login was in the future, by the clock here")
    age = now - logged_in
    if age > most:
        raise _refused(
            f"the login was {age} s ago: log in again",
            f"at most {most} s",
        )


def _check_saml(claims: Json, provider: Any, now: int, audience: str) -> None:
    """SAML: for us alone and sent to us, about somebody who keeps that name, of a fresh login."""
    login: Saml = provider
    _check_for_us_alone(claims, login.audience or audience)
    if claims["recipient"] != (login.recipient or f"{audience}/token"):
        raise _refused(f"it was sent to {shown(claims['recipient'])} (Recipient), and not here")
    if claims["name_id"] not in login.name_ids:
        raise _refused(
            f"its NameID is {shown(claims['name_id'])}, which is not taken",
            f"provider's name_ids: {', '.join(login.name_ids)}",
        )
    _check_login(claims, now, login.max_login_age)


def _check_given(claims: Json, provider: Any, now: int, audience: str) -> None:
    """An access token (RFC 9068, 2.2) or an ID-JAG: for us, and it says whom it was given to."""
    _check_for_us_alone(claims, audience)
    for name in ("client_id", "jti"):
        if name not in claims:
            raise _refused(f"it has no {name}")


def _check_workload(claims: Json, provider: Any, now: int, audience: str) -> None:
    """A platform's JWT. The default one of Kubernetes is for its own API, and would be refused."""
    _check_for_us_alone(claims, audience)


def _check_spiffe(claims: Json, provider: Any, now: int, audience: str) -> None:
    """A JWT-SVID: of a workload below the trust domain, which is known already (JWT-SVID, 3)."""
    mesh: Spiffe = provider
    _check_for_us_alone(claims, audience)
    sub = claims["sub"]
    if not is_workload_id(sub, mesh.trust_domain):
        raise _refused(f"its sub {shown(sub)} is no SPIFFE ID of a workload")


def is_workload_id(spiffe_id: str, trust_domain: str) -> bool:
    """Is it the SPIFFE ID of a workload of that trust domain (SPIFFE ID, 2)?

    The ID of the domain itself has no path, and is nobody's.
    """
    # One of another domain keeps its scheme, and is no path by that.
    path = spiffe_id.removeprefix(f"spiffe://{trust_domain}")
    if len(spiffe_id) > _MAX_SPIFFE_ID or not _path_of_spiffe_id(path):
        return False
    return {".", ".."}.isdisjoint(path.split("/"))


class _Kind(msgspec.Struct, frozen=True):
    """How assertions of a kind look, and what they have to say."""

    # What `typ` may be; None is one that is not there.
    types: frozenset[str | None]

    # Its claims, its provider, the time and this service. Raises IssuanceError.
    check: Callable[[Json, Any, int, str], None]


_KINDS = {
    "oidc": _Kind(frozenset((None, "JWT")), _check_oidc),
    "access-token": _Kind(frozenset(("at+jwt",)), _check_given),
    "id-jag": _Kind(frozenset(("oauth-id-jag+jwt",)), _check_given),
    "workload": _Kind(frozenset((None, "JWT")), _check_workload),
    "spiffe": _Kind(frozenset((None, "JWT", "JOSE")), _check_spiffe),
    # No JWT is of it.
    "saml": _Kind(frozenset(), _check_saml),
}
