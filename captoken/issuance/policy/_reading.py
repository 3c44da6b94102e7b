"""A policy, read: from the bytes of a file to values that were all checked.

The order: TOML, the types of what is stated, the service, providers, resources, third parties and
clients, grants, and at last the tests. What comes later may lean on what was checked before.
"""

from __future__ import annotations

import ipaddress

from captoken._format import names, primitives
from captoken._format.encoding import b64encode
from captoken._format.public_keys import public_bytes
from captoken._format.shapes import fit, made
from captoken._format.toml import read_toml
from captoken._language.access import Access
from captoken.issuance.applications import check_redirects
from captoken.issuance.policy._grants import checked_grant
from captoken.issuance.policy._places import at, check_digest, check_origin, wrong
from captoken.issuance.policy._providers import required, subjects
from captoken.issuance.policy._stated import (
    Client,
    File,
    LoginOf,
    Oidc,
    Proxy,
    Saml,
    Service,
    Test,
)
from captoken.issuance.policy._values import Policy


def read_policy(text: str | bytes) -> Policy:
    """Read a policy. Raises IssuanceError, `policy`, which says what is wrong and where.

    Its tests are not run: see `desk.check_policy`.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)
    file = _file(raw)

    _check_service(file.service)
    named = dict(subjects(file))
    says = {name: required(name, one) for name, one in file.provider.items()}
    _check_resources(file)
    _check_others(file)
    grants = {name: checked_grant(name, stated, file, named) for name, stated in file.grant.items()}

    # So long that nobody makes a second policy of that digest.
    digest = b64encode(primitives.sha256(raw)[:16])
    policy = Policy(
        origin=file.service.origin,
        per_minute=file.service.per_minute,
        proxy=file.service.proxy,
        providers=file.provider,
        subjects=named,
        required=says,
        resources=file.resource,
        dischargers=file.discharger,
        clients=file.client,
        grants=grants,
        tests=file.test,
        digest=digest,
        login=file.login,
    )
    _check_joins(policy)
    for number, test in enumerate(policy.tests, 1):
        _check_test(number, test, policy)
    return policy


# --- the file -------------------------------------------------------------------------------------

def _file(raw: bytes) -> File:
    """What the file states, by its types alone. Raises IssuanceError."""
    try:
        return fit(read_toml(raw), File)
    except ValueError as error:
        raise wrong(str(error)) from None


# --- the service, and what is beside it -----------------------------------------------------------


def _check_service(service: Service) -> None:
    """Raise IssuanceError for an origin that is none, and for a rate at which nobody asks."""
    check_origin(service.origin, "service.origin")
    if "?" in service.origin or service.origin.endswith("/"):
        raise wrong("service.origin has no query, and no slash at its end (RFC 8414)")
    if service.per_minute < 1:
        raise wrong("service.per_minute is a number of requests, 1 or more")
    if service.proxy is not None:
        _check_proxy(service.proxy)


def _check_proxy(proxy: Proxy) -> None:
    """Raise IssuanceError for a proxy that anybody could be."""
    if not proxy.addresses and proxy.secret_sha256 is None:
        raise wrong("service.proxy is known by addresses, by secret_sha256, or by both")
    for address in proxy.addresses:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise wrong(f"service.proxy: {address!r} is no IP address") from None
    if proxy.secret_sha256 is not None:
        check_digest(proxy.secret_sha256, "service.proxy")


def _check_resources(file: File) -> None:
    """Raise IssuanceError for resources of one address."""
    seen: dict[str, str] = {}
    for audience, resource in file.resource.items():
        with at(f"resource.{audience}"):
            names.name(audience, "audience")
        for uri in resource.uris:
            # Nor may the address of one be the audience of another.
            if uri in seen or uri in file.resource:
                raise wrong(f"resource.{audience}: {uri} is another resource too")
            seen[uri] = audience


def _check_others(file: File) -> None:
    """Raise IssuanceError for a third party or a client that nobody could be."""
    for name, discharger in file.discharger.items():
        with at(f"discharger.{name}"):
            public_bytes(discharger.public, "public")
        check_origin(discharger.url, f"discharger.{name}.url")
    for name, client in file.client.items():
        _check_client(f"client.{name}", client)
    if file.login is not None:
        _check_login(file.login, file)


def _check_client(place: str, client: Client) -> None:
    """Raise IssuanceError for a client that nobody could be."""
    if (client.secret_sha256 is not None) is bool(client.redirects):
        raise wrong(f"{place}: it has secret_sha256, or redirects, and one of the two")
    if client.secret_sha256 is not None:
        check_digest(client.secret_sha256, place)
    if client.redirects:
        with at(f"{place}.redirects"):
            check_redirects(client.redirects)


def _check_login(login: LoginOf, file: File) -> None:
    """Raise IssuanceError for a login that nobody gets through."""
    provider = file.provider.get(login.provider)
    if not isinstance(provider, (Oidc, Saml)):
        raise wrong("login.provider is a provider of this file of the kind oidc or saml")
    if not login.client_id:
        raise wrong("login.client_id is what the provider calls this service")
    if isinstance(provider, Saml):
        if login.sso is None or login.scopes:
            raise wrong("login: a provider of SAML has sso, and no scopes")
        check_origin(login.sso, "login.sso")
    elif login.sso is not None:
        raise wrong("login.sso is for a provider of SAML")
    if login.session < 60:
        raise wrong("login.session is in seconds, 60 or more")


# --- what needs the whole policy ------------------------------------------------------------------


def _check_joins(policy: Policy) -> None:
    """Raise IssuanceError for a grant that is to be taken in tasks of one that there is not."""
    for name, grant in policy.grants.items():
        for other in grant.joins:
            if other not in policy.grants or other == name:
                raise wrong(f"grant.{name}: joins {other}, which is no other grant of this file")


def _check_test(number: int, test: Test, policy: Policy) -> None:
    """Raise IssuanceError for a test that could not be run, or that tests nothing."""
    place = f"test {number}"
    if test.grant is not None and test.grant not in policy.grants:
        raise wrong(f"{place}: there is no grant {test.grant}")

    if test.refused == bool(test.allows or test.denies):
        raise wrong(f"{place}: it says `refused = true`, or what it allows and denies")

    for party in (test.subject, test.actor):
        if party is not None and party.get("provider") not in policy.providers:
            raise wrong(f"{place}: provider names one of the providers of this file")
    with at(place):
        for access in (*test.allows, *test.denies):
            made(Access, access)
