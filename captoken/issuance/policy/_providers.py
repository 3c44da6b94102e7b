"""Providers, checked: whom they name, and what an assertion of theirs has to say.

What is refused here would make one subject of two people, would take what anybody can get, or would
never match at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from captoken._format import names
from captoken.issuance import saml, signed_xml
from captoken.issuance.claims import (
    Matcher,
    Template,
    is_reassigned,
    matcher,
    path_of,
    template,
)
from captoken.issuance.jose import JoseError
from captoken.issuance.policy._issuers import (
    OF_THE_ASSERTION,
    OF_THE_LOGIN,
    fits_a_stranger,
    issuer_for,
)
from captoken.issuance.policy._places import at, check_origin, wrong
from captoken.issuance.policy._stated import (
    ALGORITHMS,
    SHARED_ISSUERS,
    AccessToken,
    File,
    IdJag,
    Oidc,
    Provider,
    Saml,
    Signals,
    Spiffe,
)

# Printable ASCII without spaces.
_IN_URI = frozenset(map(chr, range(0x21, 0x7F)))

# Characters of an entity ID or an address of SAML.
_MAX_URI = 1024

# What the name of a trust domain is made of (SPIFFE ID, 2.1), and its length.
_IN_TRUST_DOMAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._")
_MAX_TRUST_DOMAIN = 255


# --- whom they name -------------------------------------------------------------------------------


def subjects(file: File) -> Iterator[tuple[str, Template]]:
    """The templates of providers, of which no two can make one subject.

    Checks the providers on the way, and the streams of events about them. Raises IssuanceError.
    """
    prefixes: dict[str, str] = {}
    for name, provider in file.provider.items():
        place = f"provider.{name}"
        with at(place):
            names.name(name, "provider")
        _check_issuer(place, provider)
        _check_numbers(place, provider)
        if isinstance(provider, Oidc):
            # Where people log in here, nobody else need show its ID tokens.
            has_login = file.login is not None and file.login.provider == name
            if provider.max_login_age < 1 or not (provider.client_ids or has_login):
                raise wrong(
                    f"{place}: an oidc provider has client_ids, and a max_login_age of 1 or more",
                )
        if provider.subject is None:
            continue

        with at(place):
            read = template(provider.subject)
        _check_names_somebody(place, provider, read)
        _check_prefix(place, read.prefix, prefixes)
        prefixes[name] = read.prefix
        yield name, read

    _check_alone(file)
    _check_streams(file, prefixes)


def _check_names_somebody(place: str, provider: Provider, read: Template) -> None:
    """Raise IssuanceError for a name that many have, or that is another one with each login."""
    claims = {claim for _, claim, _ in read.parts if claim}
    for claim in sorted(claims):
        if path_of(claim)[0] in OF_THE_ASSERTION:
            raise wrong(
                f"{place}: subject: {claim} is of the assertion, and names nobody: write {{sub}}"
            )
    if all(path_of(claim)[0] in OF_THE_LOGIN for claim in claims):
        raise wrong(f"{place}: subject: all who log in alike would be one: write {{sub}}")

    known = issuer_for(provider, [Matcher(claim, ()) for claim in claims])
    if known is not None and not any(map(known.is_told_by, claims)):
        raise wrong(
            f"{place}: subject: others at {known.name} could have that name, too: "
            f"write {', or '.join(['{sub}', *known.tell])}"
        )

    if not isinstance(provider, Saml) or "transient" not in provider.name_ids:
        return
    if claims & {"sub", "/sub"}:
        raise wrong(f"{place}: a transient NameID names nobody: write an attribute")


def _check_prefix(place: str, prefix: str, others: Mapping[str, str]) -> None:
    """Raise IssuanceError for subjects that could be those of another provider.

    Of two prefixes one must not begin with the other: with `a:` and `a:b`, who is `a:bc`?
    """
    for other, taken in others.items():
        if taken.startswith(prefix) or prefix.startswith(taken):
            raise wrong(f"{place}: its subjects could be those of provider {other}")


def _check_alone(file: File) -> None:
    """Raise IssuanceError for two providers of one kind and issuer: no assertion is of one alone.

    Which provider an assertion is of is known by its issuer and kind, before it is believed. So no
    claim of it, and no place in the file, could say which of two is meant.
    """
    known: dict[tuple[type[Provider], str], str] = {}
    for name, provider in file.provider.items():
        issuer = provider.trust_domain if isinstance(provider, Spiffe) else provider.issuer
        before = known.setdefault((type(provider), issuer), name)
        if before != name:
            raise wrong(f"provider.{name}: kind and issuer are those of {before}: make it one")


# --- streams of events ----------------------------------------------------------------------------


def _check_streams(file: File, named: Collection[str]) -> None:
    """Raise IssuanceError for a stream of events about nobody who starts a task.

    `named` are the providers whose subjects have names.
    """
    for name, provider in file.provider.items():
        if not isinstance(provider, Signals):
            continue
        about = file.provider.get(provider.about)
        if provider.about not in named or isinstance(about, (Signals, Spiffe)):
            raise wrong(
                f"provider.{name}: about is a provider of this file that names subjects, "
                f"not {provider.about}"
            )
        _check_email(name, provider, about)


def _check_email(name: str, stream: Signals, about: Any) -> None:
    """Raise IssuanceError where an address says nothing of who it is: it would end nobody's tasks.

    `about` names its subjects: that was checked.
    """
    if stream.email is None:
        return
    claims = {claim for _, claim, _ in template(about.subject).parts if claim}
    if claims != {stream.email}:
        raise wrong(
            f"provider.{name}: email is the one claim that subjects of {stream.about} "
            f"are named by, not {stream.email}"
        )


# --- what each states -----------------------------------------------------------------------------


def _check_issuer(place: str, provider: Provider) -> None:
    """Raise IssuanceError for what no assertion of that kind can be of."""
    if isinstance(provider, Spiffe):
        name = provider.trust_domain  # SPIFFE ID, 2.1
        if not (0 < len(name) <= _MAX_TRUST_DOMAIN and set(name) <= _IN_TRUST_DOMAIN):
            raise wrong(f"{place}: trust_domain is a lower-case name without spiffe://")
    elif isinstance(provider, Saml):
        _check_saml(place, provider)
    else:
        check_origin(provider.issuer, f"{place}.issuer")


def _check_numbers(place: str, provider: Provider) -> None:
    """Raise IssuanceError for a provider that takes nothing, or what shares a secret."""
    if provider.max_life < 1:
        raise wrong(f"{place}: max_life is a number of seconds, 1 or more")
    if isinstance(provider, Spiffe) and provider.x509_max_life < 1:
        raise wrong(f"{place}: x509_max_life is a number of seconds, 1 or more")

    known = signed_xml.XML_ALGORITHMS if isinstance(provider, Saml) else ALGORITHMS
    if not provider.algorithms or set(provider.algorithms) - set(known):
        raise wrong(f"{place}: algorithms are among {', '.join(known)}")


def _check_saml(place: str, provider: Saml) -> None:
    """Raise IssuanceError for what no assertion would match, or that would say it twice."""
    for what in ("issuer", "audience", "recipient"):
        value = getattr(provider, what)
        # An entity ID is a URI of any scheme (SAML 2.0 Core, 8.3.6).
        if value is not None and not (0 < len(value) <= _MAX_URI and set(value) <= _IN_URI):
            raise wrong(f"{place}: {what} is a URI, as assertions have it")
    if provider.max_login_age < 1:
        raise wrong(f"{place}: a saml provider has a max_login_age of 1 or more")
    if not provider.name_ids or set(provider.name_ids) - set(saml.NAME_IDS):
        raise wrong(f"{place}: name_ids are among {', '.join(saml.NAME_IDS)}")

    for claim, attribute in provider.attributes.items():
        # A claim of the library's own would then be said by the attribute as well.
        if claim in saml.OWN_CLAIMS or "/" in claim or not claim or not attribute:
            raise wrong(
                f"{place}: attributes: {claim!r} is no name for an attribute's claim",
            )
    _check_certificates(place, provider.certificates)


def _check_certificates(place: str, certificates: str) -> None:
    """Raise IssuanceError for a text that has a bad one. A file is read when the service begins."""
    if not signed_xml.is_pem(certificates):
        # Nothing is fetched for SAML: who answers for an address could change the keys.
        if "://" in certificates or not certificates:
            raise wrong(f"{place}: certificates are a file, or their text in PEM")
        return

    try:
        found = signed_xml.certificates(certificates.encode())
    except JoseError as error:
        raise wrong(f"{place}: certificates: {error}") from None
    if found.refused:
        raise wrong(f"{place}: certificates: {'; '.join(found.refused)}")


# --- what their assertions have to say ------------------------------------------------------------


def required(name: str, provider: Provider) -> tuple[Matcher, ...]:
    """What every assertion of a provider has to say. Raises IssuanceError.

    Of an issuer that signs for everybody, who it is.
    """
    place = f"provider.{name}"
    made = matchers(f"{place}.require", provider, provider.require)
    if isinstance(provider, Spiffe) or provider.issuer not in SHARED_ISSUERS:
        return made

    known = issuer_for(provider)
    if known is not None and fits_a_stranger(known, made):
        raise wrong(
            f"{place}: {provider.issuer} signs for the whole world, and any of it would do: "
            f"`require` {known.what_to_write}",
        )
    return made


def matchers(
    place: str,
    provider: Provider,
    stated: Mapping[str, Any],
) -> tuple[Matcher, ...]:
    """What claims have to be. Of people not what they can change: it would let in who did.

    Raises IssuanceError.
    """
    of_people = isinstance(provider, (Oidc, AccessToken, IdJag, Saml))
    made: list[Matcher] = []
    for claim, wanted in stated.items():
        with at(place):
            made.append(matcher(claim, wanted))
        if path_of(claim)[0] in OF_THE_ASSERTION:
            raise wrong(
                f"{place}: {claim} is of the assertion, and says nothing of who shows it: "
                "ask for sub, or for a claim of theirs"
            )
        if of_people and is_reassigned(claim):
            raise wrong(
                f"{place}: people can change {claim}, or get another's: ask for sub, or for a group"
            )
    return tuple(made)
