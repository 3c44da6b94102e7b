"""The policy file: who may start which task, and what that task may do.

TOML, read into typed values. What is unknown, doubtful or contradictory is refused when it is
loaded, with the place where it stands; nothing is left for the first request to find out.

    version = 1
    [service]
    origin = "https://issuer.example"
    [provider.acme]
    kind = "oidc"
    issuer = "https://login.acme.example"
    client_ids = ["captoken-cli"]
    max_login_age = 28800
    subject = "acme:{sub}"
    [resource.sales-db]
    [grant.q3-risk]
    subject = { provider = "acme", groups = ["finance"] }
    agents = ["orchestrator"]
    resources = ["sales-db"]
    give = { allow = { "sales" = ["select"] }, expires_in = 900 }

A file may have tests of its own (`[[test]]`). They are read here, and run by `desk`.
"""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from captoken._format import names, primitives
from captoken._format.encoding import b64encode
from captoken._format.errors import CaptokenError, IssuanceError
from captoken._format.public_keys import public_bytes
from captoken._language.access import Access
from captoken._writing.issuer import Issuer
from captoken._writing.token import Token
from captoken.issuance import saml, signed_xml
from captoken.issuance.claims import (
    Claims,
    Matcher,
    Template,
    is_reassigned,
    matcher,
    template,
)
from captoken.issuance.jose import JoseError
from captoken.keys.keyring import Keyring

# Algorithms that a provider may sign with unless it says less: none that shares a secret (RFC 8725,
# 3.2), and none that the field has given up.
ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")

# Issuers that sign for the whole world: there, who it is has to be required.
SHARED_ISSUERS = frozenset(
    (
        "https://token.actions.githubusercontent.com",
        "https://gitlab.com",
        "https://accounts.google.com",
        "https://login.microsoftonline.com/common/v2.0",
        "https://login.microsoftonline.com/organizations/v2.0",
        "https://login.microsoftonline.com/consumers/v2.0",
        "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0",
        "https://agent.buildkite.com",
        "https://oidc.circleci.com",
        "https://app.terraform.io",
        "https://api.pulumi.com/oidc",
        "https://oidc.vercel.com",
        "https://appleid.apple.com",
        "https://slack.com",
        "https://login.salesforce.com",
        "https://www.linkedin.com/oauth",
        "https://www.facebook.com",
        "https://id.twitch.tv/oauth2",
        "https://oauth2.sigstore.dev/auth",
    )
)

# What a grant may do instead of ending a task, by the event that asks for it (section "Ends").
EVENTS = ("device-compliance-change", "risk-level-change", "assurance-level-change")


# How often one identity may ask, where the file does not say it.
PER_MINUTE = 60


class _Stated(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that the file states. What it does not know is refused, never passed over."""


# --- providers ------------------------------------------------------------------------------------


class _Provider(_Stated, frozen=True, tag_field="kind", kw_only=True):
    """Who signs assertions, and what is taken of them."""

    # How a subject of this provider is named. Without one, it names actors alone.
    subject: str | None = None

    # Claims that every assertion of it has to have.
    require: dict[str, Any] = {}

    # Seconds that an assertion may be good for, from `iat` to `exp`.
    max_life: int = 3600
    algorithms: tuple[str, ...] = ALGORITHMS


class _OfIssuer(_Provider, frozen=True, kw_only=True):
    """A provider that is known by an issuer identifier."""

    issuer: str

    # Where its keys are: an https address or a file. By its discovery document, unless given.
    jwks: str | None = None


class Oidc(_OfIssuer, frozen=True, kw_only=True, tag="oidc"):
    """ID tokens of a person's login (OpenID Connect Core)."""

    client_ids: tuple[str, ...]
    max_login_age: int  # seconds since `auth_time`


class AccessToken(_OfIssuer, frozen=True, kw_only=True, tag="access-token"):
    """Access tokens of RFC 9068 that are for this service."""


class IdJag(_OfIssuer, frozen=True, kw_only=True, tag="id-jag"):
    """Identity assertions that another authorization server is shown."""


class Workload(_OfIssuer, frozen=True, kw_only=True, tag="workload"):
    """JWTs that a platform gives to what runs there: Kubernetes, GitHub, GitLab, clouds."""


class Spiffe(_Provider, frozen=True, kw_only=True, tag="spiffe"):
    """JWT-SVIDs of one trust domain, and X.509-SVIDs where it has authorities for these."""

    trust_domain: str
    bundle: str  # an https address, a file, or the Workload API as unix:///…

    # Where its authorities for certificates are, likewise. Without it, none is taken.
    x509_bundle: str | None = None

    # Seconds that a certificate may be good for. Nobody can use it without its key.
    x509_max_life: int = 86_400


class Saml(_Provider, frozen=True, kw_only=True, tag="saml"):
    """Assertions of a person's login at an identity provider of SAML 2.0."""

    issuer: str  # its entity ID

    # In PEM: a file, or the text itself. They pin its keys; their dates are not looked at.
    certificates: str
    max_login_age: int  # seconds since AuthnInstant

    # Whom an assertion has to be for, and where it was sent: the origin, and its token endpoint,
    # unless given. Clients that log in themselves state their own.
    audience: str | None = None
    recipient: str | None = None

    # Formats of NameID that are taken. Another one may be reassigned, or new with each login.
    name_ids: tuple[str, ...] = ("persistent",)

    # The names of attributes, by the claims that they become.
    attributes: dict[str, str] = {}
    algorithms: tuple[str, ...] = signed_xml.XML_ALGORITHMS


class Signals(_OfIssuer, frozen=True, kw_only=True, tag="signals"):
    """Security events about subjects of another provider."""

    about: str
    audience: str
    fail_closed: bool = False

    # The claim of `about` that has the address, if events name people by `email`. Without it,
    # an event that does is refused.
    email: str | None = None


Provider: TypeAlias = Oidc | AccessToken | IdJag | Workload | Spiffe | Saml | Signals


# --- the rest of the file -------------------------------------------------------------------------


class Proxy(_Stated, frozen=True):
    """What ends TLS before the service, and says which certificate it was shown (RFC 9440).

    It is known by its address, by a secret that it sends, or by both; and believed by nothing else.
    """

    addresses: tuple[str, ...] = ()
    secret_sha256: str | None = None


class Service(_Stated, frozen=True):
    """The service itself: its issuer identifier, which is the audience of assertions."""

    origin: str

    # How often one identity may ask: so many at once, and then so many a minute.
    per_minute: int = PER_MINUTE
    proxy: Proxy | None = None


class Resource(_Stated, frozen=True):
    """A server, known by the audience of its tokens, and what clients call it."""

    uris: tuple[str, ...] = ()


class DischargerOf(_Stated, frozen=True):
    """A third party whose approval a grant can ask for."""

    public: str
    url: str


class Client(_Stated, frozen=True):
    """A client that some libraries insist on giving a secret. It opens nothing by itself."""

    secret_sha256: str


class Tasks(_Stated, frozen=True):
    """How many tasks of a grant a subject may have: at a time, and begun in a day.

    At a time there is always an end, so that one subject cannot fill the registry.
    """

    live: int = 1000
    per_day: int | None = None


class Approval(_Stated, frozen=True):
    """What a discharger has to say before a token of the grant is good."""

    discharger: str = msgspec.field(name="from")
    need: dict[str, Any]


class _StatedGrant(_Stated, frozen=True):
    """A grant as the file has it."""

    agents: tuple[str, ...]
    resources: tuple[str, ...]
    give: dict[str, Any]
    subject: dict[str, Any] | None = None
    actor: dict[str, Any] | None = None
    bound: bool = False
    lease: int = 0
    task_max: int = 3600
    tasks: Tasks = Tasks()
    on: dict[str, dict[str, Any]] = {}
    joins: tuple[str, ...] = ()
    approval: Approval | None = None
    keys: Literal["each", "shared"] = "each"


class Test(_Stated, frozen=True):
    """A test of the file's own: who asks for what, and what the token then allows and denies."""

    __test__: ClassVar = False  # pytest takes it for one of its own

    subject: dict[str, Any] | None = None
    actor: dict[str, Any] | None = None
    grant: str | None = None
    resource: str | None = None
    ask: dict[str, Any] = {}
    allows: tuple[dict[str, Any], ...] = ()
    denies: tuple[dict[str, Any], ...] = ()
    refused: bool = False


class _File(_Stated, frozen=True):
    """The file."""

    version: Literal[1]
    service: Service
    provider: dict[str, Provider]
    resource: dict[str, Resource]
    grant: dict[str, _StatedGrant]
    discharger: dict[str, DischargerOf] = {}
    client: dict[str, Client] = {}
    test: tuple[Test, ...] = ()


# --- what it means --------------------------------------------------------------------------------


class Party(msgspec.Struct, frozen=True):
    """Whom a grant wants as subject or actor: of which provider, with which claims."""

    provider: str
    matchers: tuple[Matcher, ...]

    def misses(self, provider: str, claims: Claims) -> str | None:
        """Why somebody is not one of these, for people; None if they are."""
        if provider != self.provider:
            return f"of provider {provider}, and it is for {self.provider}"
        for one in self.matchers:
            if not one.matches(claims):
                return f"not so: {one}"
        return None


class PolicyGrant(msgspec.Struct, frozen=True):
    """A grant that was checked: what its tasks may do, and who may start them."""

    name: str

    # Whom it wants: subject and actor, or one who is both.
    parties: tuple[Party, ...]
    agents: tuple[str, ...]
    resources: tuple[str, ...]
    give: dict[str, Any]
    expires_in: int
    counts: bool
    bound: bool
    lease: int
    task_max: int
    tasks: Tasks
    on: dict[str, dict[str, Any]]
    joins: tuple[str, ...]
    approval: Approval | None
    shares_keys: bool


class Policy(msgspec.Struct, frozen=True):
    """A policy that loaded. A value: to change it, load another one."""

    origin: str
    providers: dict[str, Provider]
    subjects: dict[str, Template]
    required: dict[str, tuple[Matcher, ...]]
    resources: dict[str, Resource]
    dischargers: dict[str, DischargerOf]
    clients: dict[str, Client]
    grants: dict[str, PolicyGrant]
    tests: tuple[Test, ...]

    # Of the bytes of the file: each token names the policy that it came of.
    digest: str
    per_minute: int = PER_MINUTE
    proxy: Proxy | None = None

    def resource_of(self, named: str) -> str | None:
        """The resource that a client calls so: its audience, or one of its addresses."""
        if named in self.resources:
            return named
        for audience, resource in self.resources.items():
            if named in resource.uris:
                return audience
        return None


def read(text: str | bytes) -> Policy:
    """Read a policy. Raises IssuanceError, `policy`, which says what is wrong and where.

    Its tests are not run: see `desk.check_policy`.
    """
    try:
        raw = text.encode() if isinstance(text, str) else bytes(text)
        tables = tomllib.loads(raw.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _wrong(f"this is no TOML: {error}") from None
    except RecursionError:
        raise _wrong("it is nested too deeply") from None
    try:
        file = msgspec.convert(tables, _File)
    except msgspec.ValidationError as error:
        raise _wrong(_located(tables, error)) from None

    _check_service(file.service)
    subjects = dict(_subjects(file))
    required = {name: _required(name, one) for name, one in file.provider.items()}
    _check_resources(file)
    for name, one in file.discharger.items():
        with _at(f"discharger.{name}"):
            public_bytes(one.public, "public")
        _check_origin(one.url, f"discharger.{name}.url")
    for name, client in file.client.items():
        _check_digest(client.secret_sha256, f"client.{name}")

    policy = Policy(
        origin=file.service.origin,
        per_minute=file.service.per_minute,
        proxy=file.service.proxy,
        providers=file.provider,
        subjects=subjects,
        required=required,
        resources=file.resource,
        dischargers=file.discharger,
        clients=file.client,
        grants={name: _grant(name, one, file, subjects) for name, one in file.grant.items()},
        tests=file.test,
        digest=b64encode(primitives.sha256(raw)[:16]),
    )
    for name, grant in policy.grants.items():
        for other in grant.joins:
            if other not in policy.grants or other == name:
                raise _wrong(f"grant.{name}: joins {other}, which is no other grant of this file")
    for number, test in enumerate(policy.tests, 1):
        _check_test(number, test, policy)
    return policy


# The tables of the file whose entries have names.
_NAMED: dict[str, Any] = {
    "provider": Provider,
    "resource": Resource,
    "grant": _StatedGrant,
    "discharger": DischargerOf,
    "client": Client,
}


def _located(tables: Mapping[str, Any], error: msgspec.ValidationError) -> str:
    """What is wrong with a file, and in which of its entries: msgspec leaves out the names."""
    for table, kind in _NAMED.items():
        entries = tables.get(table)
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            try:
                msgspec.convert(entry, kind)
            except msgspec.ValidationError as found:
                return f"{table}.{name}: {found}"
    return str(error)


class _at:  # noqa: N801, reads as the word that it is
    """Around what is read: an error that it raises says where in the file it is."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, *_: Any) -> None:
        if isinstance(error, (ValueError, TypeError, CaptokenError)):
            raise _wrong(f"{self.place}: {error}") from None


def _wrong(message: str) -> IssuanceError:
    return IssuanceError(f"the policy does not load: {message}", "policy")


def _check_service(service: Service) -> None:
    """Raise IssuanceError for an origin that is none, and for a rate at which nobody asks."""
    _check_origin(service.origin, "service.origin")
    if "?" in service.origin or service.origin.endswith("/"):
        raise _wrong("service.origin has no query, and no slash at its end (RFC 8414)")
    if service.per_minute < 1:
        raise _wrong("service.per_minute is a number of requests, 1 or more")
    if service.proxy is not None:
        _check_proxy(service.proxy)


def _check_proxy(proxy: Proxy) -> None:
    """Raise IssuanceError for a proxy that anybody could be."""
    if not proxy.addresses and proxy.secret_sha256 is None:
        raise _wrong("service.proxy is known by addresses, by secret_sha256, or by both")
    for address in proxy.addresses:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise _wrong(f"service.proxy: {address!r} is no IP address") from None
    if proxy.secret_sha256 is not None:
        _check_digest(proxy.secret_sha256, "service.proxy")


def _check_digest(stated: str, place: str) -> None:
    """Raise IssuanceError for what is no SHA-256 in the one spelling that is compared."""
    if len(stated) != 64 or set(stated) - set("0123456789abcdef"):
        raise _wrong(f"{place}: secret_sha256 is 64 lower-case hexadecimal digits")


def _check_origin(address: str, what: str) -> None:
    """Raise IssuanceError unless it is an address that nobody can listen in on.

    Plain http is for this machine alone, which is what tests run on.
    """
    try:
        parts = urlsplit(address)
        is_local = parts.hostname in ("127.0.0.1", "localhost", "::1")
        good = parts.scheme == "https" or (parts.scheme == "http" and is_local)
        good = good and bool(parts.hostname) and parts.username is None and not parts.fragment
        _ = parts.port
    except ValueError:
        good = False
    if not good or address != address.strip() or not address.isascii():
        raise _wrong(f"{what}: {address!r} is no https address")


def _subjects(file: _File) -> Iterator[tuple[str, Template]]:
    """The templates of providers, of which no two can make one subject."""
    made: dict[str, str] = {}
    for name, provider in file.provider.items():
        place = f"provider.{name}"
        with _at(place):
            names.name(name, "provider")
        if isinstance(provider, Spiffe):
            if not _is_trust_domain(provider.trust_domain):
                raise _wrong(f"{place}: trust_domain is a lower-case name without spiffe://")
        elif isinstance(provider, Saml):
            _check_saml(place, provider)
        else:
            _check_origin(provider.issuer, f"{place}.issuer")
        _check_numbers(place, provider)
        if provider.subject is None:
            continue

        with _at(place):
            read = template(provider.subject)
        by_sub = any(claim in ("sub", "/sub") for _, claim, _ in read.parts)
        if isinstance(provider, Saml) and "transient" in provider.name_ids and by_sub:
            raise _wrong(f"{place}: a transient NameID names nobody: write an attribute")
        for other, prefix in made.items():
            if prefix.startswith(read.prefix) or read.prefix.startswith(prefix):
                raise _wrong(f"{place}: its subjects could be those of provider {other}")
        made[name] = read.prefix
        yield name, read
    _check_alone(file)
    _check_streams(file, made)


def _check_alone(file: _File) -> None:
    """Raise IssuanceError for two providers of one kind and issuer: no assertion is of one alone.

    Which provider an assertion is of is known by its issuer and kind, before it is believed. So no
    claim of it, and no place in the file, could say which of two is meant.
    """
    known: dict[tuple[type[Provider], str], str] = {}
    for name, provider in file.provider.items():
        issuer = provider.trust_domain if isinstance(provider, Spiffe) else provider.issuer
        before = known.setdefault((type(provider), issuer), name)
        if before != name:
            raise _wrong(f"provider.{name}: kind and issuer are those of {before}: make it one")


def _check_streams(file: _File, named: Collection[str]) -> None:
    """Raise IssuanceError for a stream of events about nobody who starts a task.

    `named` are the providers whose subjects have names.
    """
    for name, provider in file.provider.items():
        if not isinstance(provider, Signals):
            continue
        about = file.provider.get(provider.about)
        if provider.about not in named or isinstance(about, (Signals, Spiffe)):
            text = f"about is a provider of this file that names subjects, not {provider.about}"
            raise _wrong(f"provider.{name}: {text}")
        _check_email(name, provider, about)


def _check_email(name: str, stream: Signals, about: Any) -> None:
    """Raise IssuanceError where an address says nothing of who it is: it would end nobody's tasks.

    `about` names its subjects: that was checked.
    """
    if stream.email is None:
        return
    claims = {claim for _, claim, _ in template(about.subject).parts if claim}
    if claims != {stream.email}:
        text = f"email is the one claim that subjects of {stream.about} are named by"
        raise _wrong(f"provider.{name}: {text}, not {stream.email}")


def _check_numbers(place: str, provider: Provider) -> None:
    """Raise IssuanceError for a provider that takes nothing, or what shares a secret."""
    if provider.max_life < 1:
        raise _wrong(f"{place}: max_life is a number of seconds, 1 or more")
    if isinstance(provider, Spiffe) and provider.x509_max_life < 1:
        raise _wrong(f"{place}: x509_max_life is a number of seconds, 1 or more")
    known = signed_xml.XML_ALGORITHMS if isinstance(provider, Saml) else ALGORITHMS
    if not provider.algorithms or set(provider.algorithms) - set(known):
        raise _wrong(f"{place}: algorithms are among {', '.join(known)}")
    if isinstance(provider, Oidc) and (provider.max_login_age < 1 or not provider.client_ids):
        raise _wrong(f"{place}: an oidc provider has client_ids, and a max_login_age of 1 or more")


def _check_saml(place: str, provider: Saml) -> None:
    """Raise IssuanceError for what no assertion would match, or that would say it twice."""
    for what in ("issuer", "audience", "recipient"):
        value = getattr(provider, what)
        # An entity ID is a URI of any scheme (SAML 2.0 Core, 8.3.6).
        if value is not None and not (0 < len(value) <= 1024 and set(value) <= _IN_URI):
            raise _wrong(f"{place}: {what} is a URI, as assertions have it")
    if provider.max_login_age < 1:
        raise _wrong(f"{place}: a saml provider has a max_login_age of 1 or more")
    if not provider.name_ids or set(provider.name_ids) - set(saml.NAME_IDS):
        raise _wrong(f"{place}: name_ids are among {', '.join(saml.NAME_IDS)}")
    for claim, attribute in provider.attributes.items():
        if claim in saml.OWN_CLAIMS or "/" in claim or not claim or not attribute:
            raise _wrong(f"{place}: attributes: {claim!r} is no name for an attribute's claim")
    _check_certificates(place, provider.certificates)


def _check_certificates(place: str, certificates: str) -> None:
    """Raise IssuanceError for a text that has a bad one. A file is read when the service begins."""
    if not signed_xml.is_pem(certificates):
        if "://" in certificates or not certificates:
            raise _wrong(f"{place}: certificates are a file, or their text in PEM")
        return
    try:
        found = signed_xml.certificates(certificates.encode())
    except JoseError as error:
        raise _wrong(f"{place}: certificates: {error}") from None
    if found.refused:
        raise _wrong(f"{place}: certificates: {'; '.join(found.refused)}")


# Printable ASCII without spaces.
_IN_URI = frozenset(map(chr, range(0x21, 0x7F)))


def _is_trust_domain(name: str) -> bool:
    """Is it the name of a trust domain (SPIFFE ID, 2.1)?"""
    return bool(name) and len(name) <= 255 and not set(name) - set(
        "abcdefghijklmnopqrstuvwxyz0123456789-._"
    )


def _required(name: str, provider: Provider) -> tuple[Matcher, ...]:
    """What every assertion of a provider has to say."""
    place = f"provider.{name}"
    issuer = None if isinstance(provider, Spiffe) else provider.issuer
    says = any(_tells(claim, wanted) for claim, wanted in provider.require.items())
    if issuer in SHARED_ISSUERS and not says:
        raise _wrong(f"{place}: {issuer} signs for the whole world: say with `require` who it is")
    return _matchers(f"{place}.require", provider, provider.require)


# What every assertion of an issuer says, or says of the assertion itself.
_OF_ALL = frozenset(("iss", "aud", "typ", "ver", "iat", "exp", "nbf", "jti"))


def _tells(claim: str, wanted: Any) -> bool:
    """Does a claim tell somebody from anybody? That an address is verified does not."""
    return claim.removeprefix("/") not in _OF_ALL and type(wanted) is not bool


def _matchers(
    place: str,
    provider: Provider,
    stated: Mapping[str, Any],
) -> tuple[Matcher, ...]:
    """What claims have to be. Of people not what they can change: it would let in who did."""
    of_people = isinstance(provider, (Oidc, AccessToken, IdJag, Saml))
    made: list[Matcher] = []
    for claim, wanted in stated.items():
        with _at(place):
            made.append(matcher(claim, wanted))
        if of_people and is_reassigned(claim):
            text = f"people can change {claim}, or get another's: ask for sub, or for a group"
            raise _wrong(f"{place}: {text}")
    return tuple(made)


def _check_resources(file: _File) -> None:
    """Raise IssuanceError for resources of one address."""
    seen: dict[str, str] = {}
    for audience, resource in file.resource.items():
        with _at(f"resource.{audience}"):
            names.name(audience, "audience")
        for uri in resource.uris:
            if uri in seen or uri in file.resource:
                raise _wrong(f"resource.{audience}: {uri} is another resource too")
            seen[uri] = audience


def _grant(
    name: str,
    stated: _StatedGrant,
    file: _File,
    subjects: Mapping[str, Template],
) -> PolicyGrant:
    """A grant, checked: everything that it names is there, and what it gives can be minted."""
    place = f"grant.{name}"
    with _at(place):
        names.name(name, "grant")
        for agent in stated.agents:
            names.name(agent, "agent")
    if "/" in name or not stated.agents or not stated.resources:
        raise _wrong(f"{place}: it has agents and resources, and no slash in its name")
    for audience in stated.resources:
        if audience not in file.resource:
            raise _wrong(f"{place}: there is no resource {audience}")

    parties = _parties(place, stated, file, subjects)
    root = _minted(place, stated)
    said = root.unverified
    capability = said.capability
    expires_in = (said.expires_at or 0) - said.root.issued_at
    counts = capability.uses is not None or bool(capability.budget)
    if stated.task_max < 1 or expires_in > stated.task_max:
        raise _wrong(f"{place}: a token of {expires_in} s outlives the task of {stated.task_max} s")
    if counts and len(stated.resources) > 1:
        raise _wrong(f"{place}: what it counts is counted in one place, so it has one resource")
    if not 0 <= stated.lease <= expires_in:
        raise _wrong(f"{place}: lease is in seconds, 0 for none, and not longer than the token")
    _check_limits(place, stated, file, root)
    _check_events(place, stated, root)
    return PolicyGrant(
        name=name,
        parties=parties,
        agents=stated.agents,
        resources=stated.resources,
        give=stated.give,
        expires_in=expires_in,
        counts=counts,
        bound=stated.bound,
        lease=stated.lease,
        task_max=stated.task_max,
        tasks=stated.tasks,
        on=stated.on,
        joins=stated.joins,
        approval=stated.approval,
        shares_keys=stated.keys == "shared",
    )


def _parties(
    place: str,
    stated: _StatedGrant,
    file: _File,
    subjects: Mapping[str, Template],
) -> tuple[Party, ...]:
    """Whom the grant wants: one of the two at least, who has a name, and is not just anybody."""
    both = (
        _party(f"{place}.subject", stated.subject, file),
        _party(f"{place}.actor", stated.actor, file),
    )
    _, acts = both
    if acts is not None and not isinstance(file.provider[acts.provider], (Workload, Spiffe)):
        raise _wrong(f"{place}.actor: provider {acts.provider} names no workloads, and one acts")
    parties = tuple(party for party in both if party is not None)
    if not parties:
        raise _wrong(f"{place}: it has neither subject nor actor, so that anybody could start it")
    starts = parties[0].provider
    if starts not in subjects:
        raise _wrong(f"{place}: provider {starts} does not say how its subjects are named")
    for party in parties:
        if party.matchers:
            continue
        if isinstance(file.provider[party.provider], (Workload, Spiffe)):
            raise _wrong(f"{place}: any workload of {party.provider} would do: say which")
    return parties


def _check_limits(place: str, stated: _StatedGrant, file: _File, root: Token) -> None:
    """Raise IssuanceError for an approval that nobody gives, and for numbers that are none."""
    if stated.approval is not None:
        if stated.approval.discharger not in file.discharger:
            raise _wrong(f"{place}: there is no discharger {stated.approval.discharger}")
        # By a key that nobody asks: what cannot be asked for does not load.
        with _at(f"{place}.approval"):
            root.require(primitives.exchange_public(bytes(range(32))), need=stated.approval.need)
    for most in (stated.tasks.live, stated.tasks.per_day):
        if most is not None and most < 1:
            raise _wrong(f"{place}: tasks are numbers of 1 or more")


def _check_events(place: str, stated: _StatedGrant, root: Token) -> None:
    """Raise IssuanceError for what an event would do, if it is not a narrowing of the grant."""
    for event, narrower in stated.on.items():
        if event not in EVENTS:
            raise _wrong(f"{place}.on: {event} is none of {', '.join(EVENTS)}")
        if not narrower or not narrower.keys() <= _RIGHTS:
            raise _wrong(f"{place}.on: an event narrows {', '.join(sorted(_RIGHTS))}")
        with _at(f"{place}.on"):
            root.attenuate(**narrower)


def _party(place: str, stated: Mapping[str, Any] | None, file: _File) -> Party | None:
    """Whom a grant wants. None: nobody is asked for."""
    if stated is None:
        return None
    provider = stated.get("provider")
    if type(provider) is not str or provider not in file.provider:
        raise _wrong(f"{place}: provider names one of the providers of this file")
    if isinstance(file.provider[provider], Signals):
        raise _wrong(f"{place}: provider {provider} sends events, and nobody starts a task by one")
    claims = {claim: wanted for claim, wanted in stated.items() if claim != "provider"}
    return Party(provider, _matchers(place, file.provider[provider], claims))


# What the issuer itself says of a root.
_NOT_GIVEN = frozenset(
    (
        "unrestricted",
        "audience",
        "task",
        "key",
        "expires_at",
        "ext",
        "subject",
        "agent",
    )
)

# What an event may narrow: rights, and nothing of the token itself.
_RIGHTS = frozenset(("tables", "operations", "allow", "columns", "tools", "where"))


def _minted(place: str, stated: _StatedGrant) -> Token:
    """A token of the grant, by a key that nobody has: what cannot be minted does not load."""
    refused = sorted(_NOT_GIVEN & stated.give.keys())
    if refused:
        raise _wrong(f"{place}.give: {', '.join(refused)} is not for a policy to say")
    with _at(f"{place}.give"):
        return Issuer(Keyring.generate()).mint(
            subject="a:subject",
            agent=stated.agents[0],
            task="a-task",
            **stated.give,
        )


def _check_test(number: int, test: Test, policy: Policy) -> None:
    """Raise IssuanceError for a test that could not be run, or that tests nothing."""
    place = f"test {number}"
    if test.grant is not None and test.grant not in policy.grants:
        raise _wrong(f"{place}: there is no grant {test.grant}")
    if test.refused == bool(test.allows or test.denies):
        raise _wrong(f"{place}: it says `refused = true`, or what it allows and denies")
    for party in (test.subject, test.actor):
        if party is not None and party.get("provider") not in policy.providers:
            raise _wrong(f"{place}: provider names one of the providers of this file")
    with _at(place):
        for access in (*test.allows, *test.denies):
            Access(**access)
