"""Browsers that are logged in, and how they get there.

    GET   /login/callback       where a provider of OpenID Connect sends a browser back to
    POST  /login/saml           where one of SAML does

1. The login is the provider's. This service is its client, and has no passwords.
2. What comes back counts in the browser that went there, and once: a cookie of that browser knows
   the attempt. An ID token is had by a code that is good once; of SAML, the registry remembers
   which assertion was used.
3. Each login is a new session, with a new secret. A cookie leads to a page of this service, or
   nowhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import msgspec
from msgspec import structs

from captoken._format.clocks import Clock, read_clock
from captoken._format.encoding import b64encode
from captoken._format.errors import IssuanceError
from captoken.adapters._http.escapes import fields
from captoken.adapters._http.exchange import Receive, Response, Scope
from captoken.adapters._issuance.answers import form
from captoken.adapters._issuance.ends import Ends
from captoken.adapters._issuance.reviews import Reviews
from captoken.adapters._issuance.sessions import Cookies, Session
from captoken.adapters._issuance.standing import Standing
from captoken.issuance.identity import Identity, identify, kind_of, open_assertion
from captoken.issuance.oidc import Attempt, Provider
from captoken.issuance.policy import LoginOf, Oidc, Policy, Saml
from captoken.issuance.registry import KeptLogin, LoginRegistry
from captoken.issuance.saml import FORMATS_OF_NAMES
from captoken.issuance.saml_login import SamlProvider, check_answers, read_key

CALLBACK = "/login/callback"
POSTED = "/login/saml"

_DOCUMENT_LIFE = 300.0  # seconds that the provider's document is kept
_AT_ONCE = 8  # logins that ask the provider at a time

# What a browser brings that has just come from the provider: it is to have a session now.
BACK = b"&logged_in=1"


class Visit(NamedTuple):
    """A browser that is logged in."""

    session: Session
    login: KeptLogin
    identity: Identity


class Visits:
    """Who is logged in, and the way to the provider and back. For one event loop."""

    def __init__(
        self,
        standing: Callable[[], Standing],
        registry: LoginRegistry,
        ends: Ends,
        reviews: Reviews,
        clock: Clock,
    ) -> None:
        """`standing` gives what stands now."""
        self._standing = standing
        self._registry = registry
        self._ends = ends
        self._reviews = reviews
        self._clock = clock
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._provider: tuple[float, tuple[Any, ...], Provider | SamlProvider] | None = None

    async def visit(self, scope: Scope, standing: Standing) -> Visit | None:
        """Who is logged in, if somebody is, and by the provider that the policy has now."""
        session = cookies(standing.policy).session(scope)
        if session is None:
            return None
        now = read_clock(self._clock)
        login = await asyncio.to_thread(self._registry.login, session.id, now)
        if login is None or login.client or login.provider != login_of(standing.policy).provider:
            return None
        return Visit(session, login, msgspec.json.decode(login.content, type=Identity))

    async def to_provider(
        self, standing: Standing, leads: bytes, *, is_forced: bool = False
    ) -> Response:
        """Send the browser to the provider, and remember in it where it leads.

        `is_forced`: the login that the provider knows is too old.
        """
        policy = standing.policy
        login = login_of(policy)
        provider = await self._at_provider(policy)
        max_age = 0 if is_forced else _provider_of(policy).max_login_age
        is_posted = isinstance(provider, SamlProvider)
        if isinstance(provider, SamlProvider):
            here = policy.origin + POSTED
            address, attempt = provider.begin(here, max_age=max_age, acr=login.acr)
        else:
            address, attempt = provider.begin(
                policy.origin + CALLBACK,
                max_age=max_age,
                scope=" ".join(("openid", *login.scopes)),
                acr=login.acr,
            )
        response = redirect(address)
        response.headers.append(cookies(policy).begin(attempt, leads, is_posted=is_posted))
        return response

    # --- and back ---------------------------------------------------------------------------------

    async def called(self, scope: Scope, receive: Receive) -> Response:
        """The browser is back from a provider of OpenID Connect."""
        standing = self._standing()
        came = _came(scope.get("query_string", b""))
        attempt, leads = self._attempt(scope, standing, came.get("state", ""))
        provider = await self._at_provider(standing.policy)
        if not isinstance(provider, Provider):
            raise IssuanceError("people log in here by SAML", "invalid_request")
        async with self._turn:
            found = await asyncio.to_thread(provider.finish, attempt, came)
        identity = await self._verified(found.text, attempt, standing)
        return await self._logged_in(scope, standing, identity, attempt, leads)

    async def posted(self, scope: Scope, receive: Receive) -> Response:
        """The browser brings what a provider of SAML has answered."""
        standing = self._standing()
        came = _came(await form(scope, receive))
        attempt, leads = self._attempt(scope, standing, came.get("RelayState", ""))
        provider = await self._at_provider(standing.policy)
        if not isinstance(provider, SamlProvider):
            raise IssuanceError("people log in here by OpenID Connect", "invalid_request")
        identity = await self._verified(provider.finish(attempt, came), attempt, standing)
        check_answers(identity, attempt)

        # Of SAML no age can be asked for: it is asked for a new login, once.
        if attempt.max_age and login_ends(identity, standing.policy) <= read_clock(self._clock):
            return await self.to_provider(standing, leads, is_forced=True)
        await self._use(identity, standing)
        return await self._logged_in(scope, standing, identity, attempt, leads)

    def _attempt(self, scope: Scope, standing: Standing, state: str) -> tuple[Attempt, bytes]:
        """The login that was begun in this browser. Raises IssuanceError."""
        begun = cookies(standing.policy).attempt(scope, state)
        if begun is None:
            raise IssuanceError(
                "this login was not begun in this browser, or too long ago: start again",
                "invalid_request",
            )
        return begun

    async def _verified(self, text: str, attempt: Attempt, standing: Standing) -> Identity:
        """Who an assertion is about: it is of that provider, and for this service's login alone."""
        policy, keys = standing.policy, standing.keys
        login, provider = login_of(policy), _provider_of(policy)
        now = read_clock(self._clock)
        ours: Oidc | Saml
        if isinstance(provider, Saml):
            ours = structs.replace(
                provider,
                audience=login.client_id,
                recipient=policy.origin + POSTED,
                # The first one may be too old: see `posted`.
                max_login_age=now if attempt.max_age else provider.max_login_age,
            )
        else:
            ours = structs.replace(provider, client_ids=(login.client_id,))
        here = structs.replace(policy, providers={login.provider: ours})
        opened = open_assertion(text, here, (kind_of(ours),))
        await keys.want(opened.name, opened.kid)
        identity = identify(opened, here, keys, now, policy.origin)
        await self._reviews.check(identity, text, "invalid_grant")
        return identity

    async def _use(self, identity: Identity, standing: Standing) -> None:
        """Remember that an assertion was used. Raises IssuanceError for one that was before."""
        await standing.name_in(self._registry)
        now = read_clock(self._clock)
        id = f"saml {b64encode(identity.digest)}"
        used = _kept(id, identity, standing, now, identity.expires_at)
        if not await asyncio.to_thread(self._registry.keep_login, used, now):
            raise IssuanceError("this login was used before: start again", "invalid_grant")

    async def _logged_in(
        self,
        scope: Scope,
        standing: Standing,
        identity: Identity,
        attempt: Attempt,
        leads: bytes,
    ) -> Response:
        """A session begins, and a new secret with it; the one before is over."""
        policy = standing.policy
        await self._ends.check_heard(standing, identity)
        await standing.name_in(self._registry)
        now = read_clock(self._clock)
        until = min(now + login_of(policy).session, login_ends(identity, policy))
        session = Session.fresh()
        login = _kept(session.id, identity, standing, now, until)
        await asyncio.to_thread(self._registry.keep_login, login, now)

        known = cookies(policy)
        before = known.session(scope)
        if before is not None:
            await asyncio.to_thread(self._registry.drop_login, before.id)
        response = redirect(policy.origin + (leads + BACK).decode("latin-1"))
        response.headers.append(known.keep(session, max(until - now, 0)))
        response.headers.append(known.end(attempt.state))
        return response

    async def _at_provider(self, policy: Policy) -> Provider | SamlProvider:
        """The provider; its document, if it has one, is kept for a while. Raises IssuanceError."""
        login, stated = by = login_of(policy), _provider_of(policy)
        known = self._provider
        if known is not None and known[0] > monotonic() and known[1] == by:
            return known[2]
        made: Provider | SamlProvider
        async with self._turn:
            secret = await asyncio.to_thread(_secret_of, login)
            if isinstance(stated, Saml):
                formats = [FORMATS_OF_NAMES[one] for one in stated.name_ids]
                name_id = formats[0] if len(formats) == 1 else None
                key = None if secret is None else await asyncio.to_thread(read_key, secret)
                made = SamlProvider(
                    stated.issuer, login.sso or "", login.client_id, name_id, key, self._clock
                )
            else:
                made = await asyncio.to_thread(
                    Provider.at, stated.issuer, login.client_id, secret, self._clock
                )
        self._provider = (monotonic() + _DOCUMENT_LIFE, by, made)
        return made


def _kept(id: str, identity: Identity, standing: Standing, now: int, until: int) -> KeptLogin:
    """What the registry keeps of a browser's login."""
    return KeptLogin(
        id=id,
        subject=standing.desk.name_of(identity),
        provider=identity.provider,
        session=identity.session,
        issued_at=identity.issued_at,
        content=msgspec.json.encode(identity),
        secret=b"",
        begun=now,
        until=until,
    )


def login_ends(identity: Identity, policy: Policy) -> int:
    """When a login at the provider is too old. Raises IssuanceError for a provider that is gone."""
    provider = policy.providers.get(identity.provider)
    if not isinstance(provider, (Oidc, Saml)) or identity.auth_time is None:
        raise IssuanceError("the login is over: log in again", "invalid_grant")
    return identity.auth_time + provider.max_login_age


def login_of(policy: Policy) -> LoginOf:
    """Where people log in. Raises IssuanceError where nobody does."""
    if policy.login is None:
        raise IssuanceError("this service has no login", "invalid_request")
    return policy.login


def cookies(policy: Policy) -> Cookies:
    """The cookies of a service."""
    return Cookies(policy.origin.startswith("https:"))


def redirect(address: str) -> Response:
    """On to an address, which is asked anew and without what was posted: 303, and never 307."""
    response = Response.of(303, b"text/plain", b"")
    response.headers.append((b"location", address.encode("latin-1")))
    return response


def _provider_of(policy: Policy) -> Oidc | Saml:
    provider = policy.providers[login_of(policy).provider]
    if not isinstance(provider, (Oidc, Saml)):  # which no policy that loaded has
        raise IssuanceError("this service has no login", "invalid_request")
    return provider


def _secret_of(login: LoginOf) -> str | None:
    """The secret in its file. Raises IssuanceError, which does not tell what is there."""
    if login.secret_file is None:
        return None
    try:
        return Path(login.secret_file).read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        why = f"login.secret_file: {type(error).__name__}"
        raise IssuanceError("try again later", "temporarily_unavailable", why) from None


def _came(query: bytes) -> Mapping[str, str]:
    """What the provider sends, each parameter once. Raises IssuanceError."""
    try:
        pairs = fields(query, 16)
    except ValueError:
        pairs = []
    given = dict(pairs)
    if not given or len(given) != len(pairs):
        raise IssuanceError("the provider's answer cannot be read", "invalid_request")
    return given
