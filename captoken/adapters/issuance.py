"""The service that starts tasks: an ASGI 3 application without a framework.

    POST  /token                                    an assertion becomes a token (RFC 6749, 8693)
    GET   /.well-known/oauth-authorization-server   the service's metadata (RFC 8414)
    POST  /logout/backchannel                       a login has ended (OpenID Connect)
    POST  /signals                                  a security event (RFC 8935)
    POST  /.well-known/captoken/3p                  whether a task is alive, for its lease
    GET   /authorize                                what an application may do for a person
    GET   /grants                                   what it does, with a button that ends it
    GET   /health                                   200 if it can start tasks, else 503

1. A secret alone starts nothing: the client shows an assertion that somebody else signed, or a
   certificate.
2. The signature is checked first. Only then is the content of an assertion used.
3. The row of a task and the record in the trail are written before its token is sent. If that
   fails, no token is sent.
4. A response tells the client only about its own mistakes. Everything else goes to the log.
5. Everything that is read is bounded, and nothing that was received is logged.
6. Each identity has its own rate limit and its own part of the registry. So it cannot delay others.

People log in only where the policy has a table `[login]`: see `_issuance.logins`. Else `/authorize`
says that there is no login.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from time import time
from typing import Any, TypeAlias

from msgspec import structs

from captoken._format import primitives
from captoken._format.clocks import Clock, read_clock
from captoken._format.errors import IssuanceError, StoreError
from captoken._format.spelling import escape
from captoken.adapters._http.credentials import check_head
from captoken.adapters._http.exchange import (
    Receive,
    RequestError,
    Response,
    Scope,
    Send,
    respond,
    values_of,
)
from captoken.adapters._issuance.answers import SLOW_DOWN, failed, form, json, unavailable
from captoken.adapters._issuance.certificates import by_certificate
from captoken.adapters._issuance.codes import Codes
from captoken.adapters._issuance.ends import Ends, Leases
from captoken.adapters._issuance.form import (
    CLIENT_CREDENTIALS,
    EXCHANGE,
    JWT_BEARER,
    Request,
    Shown,
    read,
    read_code,
)
from captoken.adapters._issuance.logins import Logins
from captoken.adapters._issuance.metadata import PATH as METADATA
from captoken.adapters._issuance.metadata import metadata
from captoken.adapters._issuance.rates import Rates, seconds_for
from captoken.adapters._issuance.records import Asking, Records
from captoken.adapters._issuance.reviews import Review, Reviews
from captoken.adapters._issuance.standing import Setup, Standing, checked
from captoken.adapters._issuance.starts import Starts
from captoken.adapters.discharge_service import PATH as LEASES
from captoken.audit._kept import TrailKept
from captoken.audit.trail import AuditTrail
from captoken.control import Operator
from captoken.issuance.certificates import SCHEME
from captoken.issuance.desk import UNWANTED
from captoken.issuance.documents import Documents
from captoken.issuance.dpop import Proven, proven_key
from captoken.issuance.identity import Identity, identify, open_assertion
from captoken.issuance.keys import ProviderKeys
from captoken.issuance.policy import Policy
from captoken.issuance.registry import LoginRegistry, Registry, Seen
from captoken.keys.keyring import Keyring
from captoken.keys.secret import DischargerKey

__all__ = ["IssuanceService", "Setup"]

_log = logging.getLogger("captoken.issuance")

# The answer to an unsuitable caller, by the kind of its request.
_UNWANTED = {
    EXCHANGE: "invalid_request",
    JWT_BEARER: "invalid_grant",
    CLIENT_CREDENTIALS: "unauthorized_client",
}

_Handler: TypeAlias = Callable[[Scope, Receive], Awaitable[Response]]


class IssuanceService:
    """The application.

        policy = read(Path("policy.toml").read_bytes())
        service = IssuanceService(policy, keyring, registry, lease=DischargerKey.load("lease.key"))

    `policy`: a policy that loaded. `desk.check_policy` runs its tests, which is not done here.
    `keyring`: the root keys, or a callable that gives those of the moment.
    `registry`: where tasks are kept. It is called in threads.
    `lease`: the key that says which tasks are alive; needed where a grant has a lease.
    `operator`: says in the overlay which tasks have ended; without one, their leases alone end. It
    is called in threads.
    `trail`: where each token, and each refusal of somebody who is verified, has its record. What
    cannot be recorded is not given. It is written to in threads.
    `reviews`: by provider, what is asked whether the issuer still stands by an assertion that held.
    It is awaited with the text of that, or with a certificate in PEM. Unless it says True, in five
    seconds, no task starts.
    `keys`: the keys of providers; made for the policy unless given.
    `documents`: those of applications that people log in with; fetched unless given.
    `is_trial`: says on every page that anybody can log in as anybody.
    """

    def __init__(
        self,
        policy: Policy,
        keyring: Keyring | Callable[[], Keyring],
        registry: Registry,
        *,
        lease: DischargerKey | None = None,
        operator: Operator | None = None,
        trail: AuditTrail | TrailKept | None = None,
        reviews: Mapping[str, Review] | None = None,
        keys: ProviderKeys | None = None,
        documents: Documents | None = None,
        is_trial: bool = False,
        clock: Clock = time,
    ) -> None:
        """Raises IssuanceError, `policy`, for a policy with leases without `lease`.

        Raises ValueError for reviews of a provider that the policy has not.
        """
        self._registry = registry
        self._clock = clock
        self._lease = None if lease is None else lease.public
        keys = ProviderKeys(policy) if keys is None else keys

        # Replaced as a whole, by a reload alone. A request takes it once.
        self._standing = Standing(policy, keyring, keys, self._lease, clock)
        self._reloading = asyncio.Lock()
        self._has_failed = False  # the last reload

        self._leases = None if lease is None else Leases(lease, self._stands, registry, clock)
        self._ends = Ends(self._stands, registry, operator, clock)
        self._rates = Rates()
        self._reviews = Reviews(reviews, policy.providers)
        records = None if trail is None else Records(trail)
        self._starts = Starts(registry, records, self._leases)
        self._routes: dict[tuple[str, str], _Handler] = {
            ("POST", "/token"): self._token,
            ("POST", "/logout/backchannel"): self._ends.logout,
            ("POST", "/signals"): self._ends.signal,
            ("GET", METADATA): self._describe,
            ("GET", "/authorize"): self._no_login,
            ("GET", "/health"): self._health,
        }

        # A registry of the embedder's own need not keep who logs in.
        self._logins: Logins | None = None
        self._codes: Codes | None = None
        if hasattr(registry, "turn_login"):
            kept: LoginRegistry = registry  # type: ignore[assignment]
            found = Documents() if documents is None else documents
            self._logins = Logins(
                self._stands, kept, self._ends, self._reviews, clock, found, is_trial
            )
            self._codes = Codes(kept, self._ends, self._rates, self._starts, clock)
        self._check_login(policy)

    def _check_login(self, policy: Policy) -> None:
        """Raise IssuanceError for a policy with a login, where the registry keeps none."""
        if policy.login is not None and self._logins is None:
            raise IssuanceError("the policy has a login, and the registry keeps none", "policy")

    def _stands(self) -> Standing:
        return self._standing

    async def reload(self, load: Callable[[], Setup]) -> bool:
        """Go on with what `load` gives: a policy, a keyring, an operator. It is called in a thread.

        The policy's own tests are run first. Whatever fails, what stood before stands, the log says
        why, and `/health` that it was so. Requests that are under way end by what they began with.
        False: nothing has changed.
        """
        async with self._reloading:
            before = self._standing
            try:
                setup = await asyncio.to_thread(checked, load, before.policy, self._clock)
                self._reviews.check_names(setup.policy.providers)
                self._check_login(setup.policy)
                keys = before.keys.reloaded(setup.policy)
                after = Standing(setup.policy, setup.keyring, keys, self._lease, self._clock)
                await after.name_in(self._registry)
            # Whatever a file or a callable does: the service goes on.
            except Exception as error:
                told = escape(str(error))
                _log.error("nothing is reloaded, and what stood before stands: %s", told)
                self._has_failed = True
                return False

            # The keys of new providers. It does not matter here whether they can be had.
            await keys.start()
            self._standing = after
            self._ends.publisher.operator = setup.operator
            self._has_failed = False
            _log.warning("policy %s stands", setup.policy.digest)
            return True

    # --- the token endpoint -----------------------------------------------------------------------

    async def _token(self, scope: Scope, receive: Receive) -> Response:
        """A token for an assertion, or an error of OAuth's."""
        request: Request | None = None
        standing = self._standing
        try:
            body = await form(scope, receive)
            authorization = values_of(scope["headers"], b"authorization")
            coded = read_code(body, authorization) if standing.policy.login is not None else None
            if coded is not None and self._codes is not None:
                await standing.name_in(self._registry)
                return json(200, await self._codes.exchanged(coded, standing))
            request = read(body, authorization)
            return json(200, await self._exchanged(scope, request, standing))
        except StoreError as error:
            _log.error("no task is started: %s", error)
            return failed(unavailable(error))
        except IssuanceError as error:
            _log.info("no task is started: %s %s", escape(str(error)), escape(error.why))
            if error.code == UNWANTED:
                code = _UNWANTED[request.grant_type] if request is not None else "invalid_grant"
                error = IssuanceError(str(error), code)
            return failed(error, seconds_for(standing.policy.per_minute))

    async def _exchanged(
        self,
        scope: Scope,
        request: Request,
        standing: Standing,
    ) -> dict[str, Any]:
        """What the answer says. Raises IssuanceError, StoreError."""
        now = read_clock(self._clock)
        policy = standing.policy
        proven = _proven(scope, policy, now)
        subject = await _identity(request.subject, standing, now)
        actor, acts = await _actor(scope, request, standing, now)

        # From here on it is known who asks, so that a refusal has a record, too.
        asking = Asking(now, policy.digest, subject, actor, request.ask)
        over = self._rates.over(
            _caller(subject, actor),
            _shown_again(subject, actor),
            policy.per_minute,
        )
        try:
            if over:
                raise IssuanceError("you have sent too many requests: wait", SLOW_DOWN)
            await standing.name_in(self._registry)
            await self._ends.check_heard(standing, subject, actor)
            await self._review((subject, request.subject), (actor, acts))
            client = _client(request, policy, subject, actor)
            key = None if proven is None else proven.key
            asking = structs.replace(
                asking,
                ask=structs.replace(request.ask, key=key, client=client),
            )
            return await self._started(standing, asking, proven)
        except (IssuanceError, StoreError) as error:
            await self._starts.refused(asking, error, over)
            raise

    async def _review(self, *those: tuple[Identity | None, Shown | None]) -> None:
        """Raise IssuanceError for what its issuer does not stand by any more."""
        for who, shown in those:
            if who is not None and shown is not None:
                await self._reviews.check(who, shown.text, shown.error)

    async def _started(
        self,
        standing: Standing,
        asking: Asking,
        proven: Proven | None,
    ) -> dict[str, Any]:
        """Decide, write, mint, record: what the answer says. Raises IssuanceError and StoreError.

        What is written is written in threads. Between that, nothing waits.
        """
        plan = standing.desk.plan(asking.ask, asking.subject, asking.actor)
        if proven is not None:
            used = Seen(proven.digest, None, proven.until, proven.issued_at)
            entry = structs.replace(plan.entry, seen=(*plan.entry.seen, used))
            plan = structs.replace(plan, entry=entry)
        return await self._starts.started(standing, asking, plan)

    # --- the rest ---------------------------------------------------------------------------------

    async def _describe(self, scope: Scope, receive: Receive) -> Response:
        return json(200, metadata(self._standing.policy))

    async def _no_login(self, scope: Scope, receive: Receive) -> Response:
        """Some clients want this address to be there. Nobody is sent anywhere from it."""
        text = "this service has no login: send an assertion to the token endpoint"
        return failed(IssuanceError(text, "unsupported_response_type"))

    async def _health(self, scope: Scope, receive: Receive) -> Response:
        """Can tasks be started, and is it heard when they end? The registry is asked.

        With `?live`, a stream that is silent is told, and does not fail: whoever routes by it would
        else send no events, and the stream would stay silent.
        """
        try:
            await self._standing.name_in(self._registry)
            await asyncio.to_thread(self._registry.is_live, "-", read_clock(self._clock))
            silent = await self._ends.silent()
        except StoreError:
            return json(503, {"status": "the registry cannot be asked"})
        said: dict[str, Any] = {"status": "ok"}
        if self._has_failed:
            said["reload"] = "the last one failed, and what stood before stands: see the log"
        if silent:
            said |= {"status": "streams of events are silent", "silent": silent}
        is_live = scope.get("query_string") == b"live"
        return json(503 if silent and not is_live else 200, said)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. What fails is answered 500 without a detail, and raised on, for the log."""
        if scope["type"] == "lifespan":
            return await self._live(receive, send)
        if scope["type"] == "websocket":
            await receive()
            return await send({"type": "websocket.close", "code": 1008})
        path = scope["path"].removeprefix(scope.get("root_path", "").rstrip("/"))
        if path == LEASES and self._leases is not None:
            return await self._leases(scope, receive, send)

        problem: Exception | None = None
        routes = self._routes
        if self._logins is not None and self._standing.policy.login is not None:
            routes = {**routes, **self._logins.routes}
        handler = routes.get((scope["method"], path))
        try:
            check_head(scope)
            if handler is None:
                known = any(path == other for _, other in routes)
                response = json(405 if known else 404, {"error": "not_found"})
            else:
                response = await handler(scope, receive)
        except RequestError as error:
            said = {"error": "invalid_request", "error_description": error.text}
            response = json(error.status, said)
        except Exception as error:
            problem = error
            response = json(500, {"error": "server_error"})
        await respond(send, response)
        if problem is not None:
            raise problem
        return None

    async def _live(self, receive: Receive, send: Send) -> None:
        """The lifespan: keys are fetched when it starts, and ends published that were due before.

        What fetches and what publishes is closed.
        """
        while (await receive())["type"] != "lifespan.shutdown":
            self._ends.publisher.wake()
            await self._standing.keys.start()
            await send({"type": "lifespan.startup.complete"})
        await self._ends.publisher.close()
        if self._logins is not None:
            await self._logins.close()
        await self._standing.keys.close()
        await send({"type": "lifespan.shutdown.complete"})


def _caller(*who: Identity | None) -> tuple[str, ...]:
    """Whose requests are counted together: those of one subject by one actor."""
    return tuple(part for one in who if one is not None for part in (one.provider, one.sub))


def _shown_again(subject: Identity | None, actor: Identity | None) -> bytes | None:
    """What is known again of the assertion that starts, if somebody could show it again.

    An actor's own assertion beside it is its login here, and comes with each request.
    """
    starts = subject or actor
    return None if starts is None or starts.is_live else starts.digest


def _proven(scope: Scope, policy: Policy, now: int) -> Proven | None:
    """The key that the caller has proven, if it sent a proof (RFC 9449)."""
    proofs = values_of(scope["headers"], b"dpop")
    if not proofs:
        return None
    if len(proofs) > 1:
        raise IssuanceError("send exactly one DPoP proof", "invalid_dpop_proof")
    return proven_key(proofs[0], method="POST", url=f"{policy.origin}/token", now=now)


async def _identity(shown: Shown | None, standing: Standing, now: int) -> Identity | None:
    """Who an assertion is about, once it held (rule 2)."""
    if shown is None:
        return None
    policy, keys = standing.policy, standing.keys
    try:
        opened = open_assertion(shown.text, policy, shown.takes)
        await keys.want(opened.name, opened.kid)
        return identify(opened, policy, keys, now, policy.origin)
    except IssuanceError as error:
        if error.code != "invalid_grant":
            raise
        raise IssuanceError(str(error), shown.error, error.why) from None


async def _actor(
    scope: Scope,
    request: Request,
    standing: Standing,
    now: int,
) -> tuple[Identity | None, Shown | None]:
    """Which workload acts, and what it has shown.

    That is its assertion, or its certificate where `client_id` names that alone.
    """
    client_id, shown = request.client_id, request.actor
    is_named = client_id is not None and client_id.startswith(SCHEME)
    if client_id is not None and is_named and shown is None:
        return await by_certificate(scope, client_id, standing.policy, standing.keys, now)
    actor = await _identity(shown, standing, now)

    # A client is whom its assertion is about (RFC 7521, 4.2). An `actor_token` is no client's.
    is_client = shown is not None and shown.error == "invalid_client"
    if client_id is None or actor is None or not (is_client or is_named):
        return actor, shown
    if actor.sub != client_id:
        raise IssuanceError(
            "the assertion is not by the client that client_id names",
            "invalid_client",
        )
    return actor, shown


def _client(
    request: Request,
    policy: Policy,
    subject: Identity | None,
    actor: Identity | None,
) -> str | None:
    """Whoever authenticated as a client. Raises IssuanceError for one who did not.

    A secret is compared for an ID-JAG alone, which is signed for that very client.
    """
    if request.client_secret is not None:
        known = policy.clients.get(request.client_id or "")
        digest = primitives.sha256(request.client_secret.encode()).hex()
        secret = None if known is None else known.secret_sha256
        good = secret is not None and hmac.compare_digest(secret, digest)
        if not good or subject is None or subject.kind != "id-jag":
            raise IssuanceError("this service does not know the client", "invalid_client")
        return request.client_id
    # A workload alone is no client of anybody's: it is who starts.
    return None if actor is None or subject is None or actor == subject else actor.sub
