"""What the file of a policy states, as values. What a file does not know is refused.

msgspec reads a file into these, and checks the types alone. Whether what is stated makes sense is
looked at by `_providers` and `_grants`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

import msgspec

from captoken.issuance import signed_xml

# Algorithms that a provider may sign with unless it says less: none that shares a secret (RFC 8725,
# 3.2), and none that the field has given up.
ALGORITHMS = (
    "RS256",
    "PS256",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
)

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
EVENTS = (
    "device-compliance-change",
    "risk-level-change",
    "assurance-level-change",
)

# How often one identity may ask, where the file does not say it.
PER_MINUTE = 60


class _Stated(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that the file states. What it does not know is refused, never passed over."""


# --- providers ------------------------------------------------------------------------------------


class _Provider(_Stated, frozen=True, tag_field="kind", kw_only=True):
    """Who signs assertions, and what is taken of them."""

    # The pattern of its subjects' names. Without one, it identifies only actors.
    subject: str | None = None

    # The claims that every assertion must have.
    require: dict[str, Any] = {}

    # The longest life of an assertion in seconds, from `iat` to `exp`.
    max_life: int = 3600
    algorithms: tuple[str, ...] = ALGORITHMS


class _OfIssuer(_Provider, frozen=True, kw_only=True):
    """A provider that is known by an issuer identifier."""

    issuer: str

    # The address or file of its keys. The default is to read its discovery document.
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

    # The place of its certificate authorities. Without it, certificates are refused.
    x509_bundle: str | None = None

    # The longest life of a certificate in seconds. It is useless without its key.
    x509_max_life: int = 86_400


class Saml(_Provider, frozen=True, kw_only=True, tag="saml"):
    """Assertions of a person's login at an identity provider of SAML 2.0."""

    issuer: str  # its entity ID

    # PEM text, or a file. They pin the provider's keys; their dates are ignored.
    certificates: str
    max_login_age: int  # seconds since AuthnInstant

    # The audience and the recipient that an assertion must name. The defaults are the origin and
    # its token endpoint. Clients that log in themselves state their own.
    audience: str | None = None
    recipient: str | None = None

    # The accepted NameID formats. Others may be reassigned, or new with each login.
    name_ids: tuple[str, ...] = ("persistent",)

    # The name of the attribute for each claim.
    attributes: dict[str, str] = {}
    algorithms: tuple[str, ...] = signed_xml.XML_ALGORITHMS


class Signals(_OfIssuer, frozen=True, kw_only=True, tag="signals"):
    """Security events about subjects of another provider."""

    # The provider whose subjects the events are about, and the audience that they must name.
    about: str
    audience: str

    # Whether a silent stream stops new tasks of these subjects.
    fail_closed: bool = False

    # The claim of `about` that has the address, if events name people by `email`. Without it,
    # an event that does is refused.
    email: str | None = None


# Who signs assertions, by what kind it is.
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

    # The rate limit of one identity: this many requests at once, then this many a minute.
    per_minute: int = PER_MINUTE
    proxy: Proxy | None = None


class Resource(_Stated, frozen=True):
    """A server, known by the audience of its tokens, and what clients call it."""

    uris: tuple[str, ...] = ()


class DischargerOf(_Stated, frozen=True):
    """A third party whose approval a grant can ask for."""

    public: str
    url: str


class LoginOf(_Stated, frozen=True):
    """How people log in here themselves, with applications that know nothing of captoken."""

    # The provider where they log in, and what it calls this service.
    provider: str
    client_id: str

    # Where a provider of SAML takes requests.
    sso: str | None = None

    # The file of the secret that the provider has given to this service, if it has; of SAML, of
    # the private key that requests are signed with.
    secret_file: str | None = None

    # The scopes to ask for besides openid, and the kind of login, as the provider names it.
    scopes: tuple[str, ...] = ()
    acr: str | None = None

    # The seconds for which a browser stays logged in here.
    session: int = 28_800


class Client(_Stated, frozen=True):
    """A client that the policy names: it insists on a secret, or people log in with it.

    A secret opens nothing by itself.
    """

    secret_sha256: str | None = None

    # Where the browser goes back to, and what people are told that it is called.
    redirects: tuple[str, ...] = ()
    name: str | None = None


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


class StatedGrant(_Stated, frozen=True):
    """A grant as the file has it. Whether it can be minted is not known yet."""

    agents: tuple[str, ...]

    # The audiences of the tokens. A token is for one of them, unless they share keys.
    resources: tuple[str, ...]

    # The keywords of `mint`; or those of `mint_set`, with `servers`.
    give: dict[str, Any]

    # The subject and actor that it is for. At least one is stated; that is checked later.
    subject: dict[str, Any] | None = None
    actor: dict[str, Any] | None = None

    # The applications that people may start it with, in place of an actor: addresses of their
    # documents, names of clients of this file, or "*" for any that has a document.
    clients: tuple[str, ...] = ()

    # What of it such an application is offered if it does not say what it needs. It can ask for
    # the rest later.
    first: dict[str, Any] = {}

    # Whether the client must prove possession of a key, to which the token is then bound.
    bound: bool = False

    # How long a confirmation that the task is alive stays valid, in seconds. 0: none is needed.
    lease: int = 0

    # The longest life of a task in seconds, whatever the life of its tokens.
    task_max: int = 3600
    tasks: Tasks = Tasks()

    # The restrictions that an event puts on a task instead of ending it.
    on: dict[str, dict[str, Any]] = {}

    # The grants whose tasks this grant can join.
    joins: tuple[str, ...] = ()
    approval: Approval | None = None

    # Whether each server has its own root keys, or all share them.
    keys: Literal["each", "shared"] = "each"


class Test(_Stated, frozen=True):
    """A test of the file's own: who asks for what, and what the token then allows and denies."""

    __test__: ClassVar = False  # pytest takes it for one of its own

    # The claims, which the test does not verify.
    subject: dict[str, Any] | None = None
    actor: dict[str, Any] | None = None

    # The request, and the application that it is made with.
    grant: str | None = None
    client: str | None = None
    resource: str | None = None
    ask: dict[str, Any] = {}

    # The expected result: what the token allows and denies, or that there is none.
    allows: tuple[dict[str, Any], ...] = ()
    denies: tuple[dict[str, Any], ...] = ()
    refused: bool = False


class File(_Stated, frozen=True):
    """The file as a whole: its tables, by their names in it."""

    version: Literal[1]
    service: Service
    provider: dict[str, Provider]
    resource: dict[str, Resource]
    grant: dict[str, StatedGrant]
    discharger: dict[str, DischargerOf] = {}
    client: dict[str, Client] = {}
    login: LoginOf | None = None
    test: tuple[Test, ...] = ()
