"""Decide on one request: which grant it is, what the task may do, and what to write.

    plan = desk.plan(ask, subject, actor)       # pure: a refusal, or everything that will happen
    task = registry.enter(plan.entry)           # one atomic step; nothing is issued before it
    root = desk.mint(plan, task)                # the token, or the set of them

The decision uses verified identities (`identity`) and the policy. The policy becomes link 0 of the
token, and the request link 1. `attenuate` itself says whether the request asks for more than the
grant gives. `_narrowing` handles the two wishes that `attenuate` would take for less. A request for
several servers gets a set: a token for each of them, under that server's own keys (`minting`).

Nothing here waits or writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from time import time
from typing import Any

import msgspec
from msgspec import structs

from captoken._format import primitives
from captoken._format.clocks import Clock, read_clock
from captoken._format.encoding import b64encode
from captoken._format.entropy import random_bytes
from captoken._format.errors import IssuanceError
from captoken._format.spelling import shown
from captoken._language.access import Access
from captoken._writing.token import Token
from captoken._writing.token_set import MOST_SERVERS, TokenSet, at_each
from captoken.issuance.identity import Identity
from captoken.issuance.minting import ROOT, TOKEN_SET, Ask, Minter, Order, ended, tokens_of
from captoken.issuance.policy import Party, Policy, PolicyGrant, Spiffe, Test
from captoken.issuance.registry import Exchange, Seen, StartedTask
from captoken.keys.keyring import Keyring, keyring_source

# A task's id is a label of whoever asked, and what the issuer adds to it.
_TASK = re.compile(r"[^/]+-[0-9a-f]{10}").fullmatch

# A refusal of who asks. The service makes of it what the kind of request calls it.
UNWANTED = "access_denied"


class Plan(Order, frozen=True, kw_only=True):
    """What is to happen for one request. `root` is not out before the entry is written."""

    root: Token | TokenSet


class Fit(msgspec.Struct, frozen=True):
    """A grant, and why it is not the one, for people; None if it fits."""

    grant: PolicyGrant
    misses: str | None


class Desk:
    """Decides by one policy, and mints under one keyring. Shared by all requests."""

    def __init__(
        self,
        policy: Policy,
        keyring: Keyring | Callable[[], Keyring],
        *,
        lease: str | None = None,
        clock: Clock = time,
        random: Callable[[int], bytes] = random_bytes,
    ) -> None:
        """`lease` is the public key of the discharger that says which tasks are alive.

        Raises IssuanceError, `policy`, for a policy with leases without that key.
        """
        leased = [name for name, grant in policy.grants.items() if grant.lease]
        if leased and lease is None:
            raise IssuanceError(
                f"grant {leased[0]} has a lease: pass the discharger's key",
                "policy",
            )
        self.policy = policy
        self.minter = Minter(policy, keyring_source(keyring), lease, random)
        self._clock = clock
        self._random = random

    # --- which grant ---

    def fits(
        self,
        subject: Identity | None,
        actor: Identity | None,
        application: str | None = None,
    ) -> Iterator[Fit]:
        """Each grant of the policy, and why it does not fit who asks.

        `application`: what the subject has logged in with, if that was here.
        """
        for grant in self.policy.grants.values():
            yield Fit(grant, _misses(grant, subject, actor, application))

    def chosen(self, ask: Ask, subject: Identity | None, actor: Identity | None) -> PolicyGrant:
        """The one grant. Raises IssuanceError where it is none, or one of several.

        Who does not fit is told no more than that: what a policy asks for is nobody's business.
        """
        application = ask.client if ask.by_login else None
        if ask.grant is not None:
            return self._named(ask.grant, subject, actor, application)

        found = self.fits(subject, actor, application)
        fitting = [fit.grant for fit in found if fit.misses is None]
        # An application that logs people in knows its server, and no grant's name.
        if ask.by_login and ask.resources:
            meant = {self.policy.resource_of(one) for one in ask.resources}
            fitting = [grant for grant in fitting if meant <= set(grant.resources)]
        if not fitting:
            raise IssuanceError("no grant is for this caller", UNWANTED, "no grant fits")
        if len(fitting) > 1:
            names = ", ".join(grant.name for grant in fitting)
            raise IssuanceError(
                f"several grants fit: name one as scope: {names}",
                "invalid_scope",
            )
        return fitting[0]

    def _named(
        self,
        name: str,
        subject: Identity | None,
        actor: Identity | None,
        application: str | None,
    ) -> PolicyGrant:
        """The grant of that name. Raises IssuanceError where there is none, or it does not fit."""
        grant = self.policy.grants.get(name)
        if grant is None:
            raise IssuanceError("there is no such grant", "invalid_scope")
        misses = _misses(grant, subject, actor, application)
        if misses is not None:
            raise IssuanceError("the grant is not for this caller", UNWANTED, misses)
        return grant

    # --- the plan ---

    def plan(self, ask: Ask, subject: Identity | None, actor: Identity | None) -> Plan:
        """What is to happen. Raises IssuanceError, or StoreError without keys: then nothing is.

        `subject` is who started it, `actor` the workload that acts. One of the two may be both.
        """
        now = read_clock(self._clock)
        # One assertion that is shown twice is one: nobody stands beside it.
        if actor == subject:
            actor = None
        starts = subject or actor
        if starts is None:
            raise IssuanceError("nothing says who asks: send an assertion", "invalid_request")

        grant = self.chosen(ask, subject, actor)
        name = self.name_of(starts)
        agent = _one_of(ask.agent, grant.agents, "agent", "invalid_request")
        audiences = self._audiences(ask, grant)
        _check_key(ask, grant)
        self._check_jag(ask, grant, subject, audiences)

        # A workload that started the task itself is its subject, and nobody acts for it.
        acts_for = actor if subject is not None else None
        task, within = self._task(ask, grant)
        entry = Exchange(
            now=now,
            grant=grant.name,
            task=task,
            within=within,
            counted=grant.counts,
            subject=name,
            actor=_acting(ask, acts_for),
            provider=starts.provider,
            session=starts.session,
            issued_at=starts.issued_at,
            deadline=now + grant.task_max,
            most_live=grant.tasks.live,
            most_per_day=grant.tasks.per_day,
            # A code and a refresh token are good once by themselves.
            seen=() if ask.by_login else _seen(ask, starts, actor),
        )
        order = Order(
            grant=grant,
            entry=entry,
            ask=ask,
            issuer=starts.issuer,
            agent=agent,
            audiences=audiences,
        )
        return Plan(**structs.asdict(order), root=self.minter.mint(order))

    def mint(self, plan: Plan, task: StartedTask) -> Token | TokenSet:
        """What is given, once the entry is written: of that task, and not good for longer than it.

        The task is another one than was planned where an assertion came again that makes one alone.
        """
        root = plan.root
        if task.id != plan.entry.task:
            entry = structs.replace(plan.entry, task=task.id)
            root = self.minter.mint(structs.replace(plan, entry=entry))
        if isinstance(root, TokenSet):
            return at_each(root, lambda _, token: ended(token, task.deadline))
        return ended(root, task.deadline)

    def name_of(self, starts: Identity) -> str:
        """What the subject is called. Raises IssuanceError where its claims give no name."""
        template = self.policy.subjects[starts.provider]
        try:
            return template.subject(starts.issuer, starts.claims)
        except ValueError as error:
            raise IssuanceError(
                "this service has no name for the subject",
                UNWANTED,
                str(error),
            ) from None

    def _audiences(self, ask: Ask, grant: PolicyGrant) -> tuple[str, ...]:
        """The servers of a set; or that of the token, which is one unless servers share the keys.

        Raises IssuanceError, `invalid_target`.
        """
        _check_set(ask, grant)
        if not ask.resources:
            if not ask.held:
                raise IssuanceError(
                    "resource is missing: it names the server that the token is for",
                    "invalid_target",
                )
            if ask.as_set or grant.shares_keys:
                return grant.resources
            return (_one_of(None, grant.resources, "resource", "invalid_target"),)

        found: list[str] = []
        for named in ask.resources:
            audience = self.policy.resource_of(named)
            if audience is None or audience not in grant.resources:
                raise IssuanceError("the grant has no such resource", "invalid_target")
            # By another of its names, perhaps.
            if audience in found:
                raise IssuanceError(f"resource names {audience} twice", "invalid_target")
            found.append(audience)
        return tuple(found)

    def _check_jag(
        self,
        ask: Ask,
        grant: PolicyGrant,
        subject: Identity | None,
        audiences: tuple[str, ...],
    ) -> None:
        """An ID-JAG is for one client, and perhaps for one grant and resource. Raises
        IssuanceError.
        """
        if subject is None or subject.kind != "id-jag":
            return
        claims = subject.claims
        if ask.client is None or claims.get("client_id") != ask.client:
            raise IssuanceError("the assertion is for another client", "invalid_grant")
        # They would narrow the token, and nobody here would do it.
        if "authorization_details" in claims:
            raise IssuanceError(
                "this service takes no authorization_details in an assertion",
                "invalid_grant",
            )

        scope = claims.get("scope", grant.name)
        if not isinstance(scope, str) or grant.name not in scope.split(" "):
            raise IssuanceError("the assertion is for another scope", "invalid_scope")

        if "resource" not in claims:
            return
        named = claims["resource"]
        those = named if isinstance(named, list) else [named]
        meant = {self.policy.resource_of(one) for one in those if isinstance(one, str)}
        if not set(audiences) <= meant:
            raise IssuanceError("the assertion is for another resource", "invalid_target")

    def _task(self, ask: Ask, grant: PolicyGrant) -> tuple[str, tuple[str, ...] | None]:
        """The id of the task, and, where one is joined, the grants in whose tasks that may be.

        Whether there is such a task is for the registry. Raises IssuanceError.
        """
        label = ask.task if ask.task is not None else grant.name
        if _TASK(label) is not None:
            return label, (grant.name, *grant.joins)
        if not label or "/" in label:
            raise IssuanceError(
                "a task's label must not be empty, or contain a slash",
                "invalid_request",
            )
        return f"{label}-{self._random(5).hex()}", None


def _check_set(ask: Ask, grant: PolicyGrant) -> None:
    """Raise IssuanceError for a set of what has none, and for several servers in one token."""
    if len(ask.resources) > MOST_SERVERS:
        raise IssuanceError(f"resource names more than {MOST_SERVERS} servers", "invalid_target")
    if ask.as_set and not grant.servers:
        why = "it has no give.servers"
        raise IssuanceError(
            "the grant does not give a set: ask for one resource",
            "invalid_target", why,
        )
    if len(ask.resources) > 1 and not ask.as_set:
        raise IssuanceError(
            f"a token for several servers is a set: ask for requested_token_type {TOKEN_SET}",
            "invalid_target",
        )


# --- parts of a plan ------------------------------------------------------------------------------


def _misses(
    grant: PolicyGrant,
    subject: Identity | None,
    actor: Identity | None,
    application: str | None,
) -> str | None:
    """Why a grant does not fit who asks; None if it does.

    An actor that the grant does not ask for does not fit: who sends one expects that it counts. Nor
    does an application, and what is for applications fits nobody without one.
    """
    if not grant.takes(application):
        if application is None:
            return f"it is for people who log in with {', '.join(grant.clients)}"
        return f"it is not for people who log in with {shown(application)}"
    first, *second = grant.parties
    if second:
        if subject is None or actor is None:
            return "it wants a subject and an actor"
        return _is_not(first, subject) or _is_not(second[0], actor)

    # One party, and so one identity: a workload without a human is both.
    if subject is not None and actor is not None and subject != actor:
        return "it wants one of the two, and both came"
    one = subject or actor
    return "nobody came" if one is None else _is_not(first, one)


def _is_not(party: Party, identity: Identity) -> str | None:
    """Why somebody is not whom a grant wants; None if they are."""
    return party.misses(identity.provider, identity.claims)


def _one_of(named: str | None, those: tuple[str, ...], what: str, code: str) -> str:
    """The one that is named, or the only one there is. Raises IssuanceError."""
    if named is None:
        if len(those) == 1:
            return those[0]
        raise IssuanceError(f"name the {what}: one of {', '.join(those)}", code)
    if named not in those:
        raise IssuanceError(f"the grant has no such {what}", code)
    return named


def _check_key(ask: Ask, grant: PolicyGrant) -> None:
    """Raise IssuanceError for a bound grant without a proof of the key, and for what nobody could
    use: a bound or an approved token is held by whoever has the key, or asks for the approval.
    """
    if grant.bound and ask.key is None:
        raise IssuanceError("the grant needs a DPoP proof by an Ed25519 key", "invalid_dpop_proof")
    wants_holder = ask.key is not None or grant.approval is not None
    if wants_holder and not ask.held:
        raise IssuanceError(
            f"a token that is bound, or needs an approval, comes as requested_token_type {ROOT}",
            "invalid_request",
        )


def _acting(ask: Ask, actor: Identity | None) -> str | None:
    """Who acts for the subject, as the registry compares it: a workload, or an application."""
    if ask.by_login:
        return f"application {ask.client}"
    return None if actor is None else _called(actor)


def _called(identity: Identity) -> str:
    """Who acts, as the registry compares it."""
    return f"{identity.provider} {identity.sub}"


def _seen(ask: Ask, starts: Identity, actor: Identity | None) -> tuple[Seen, ...]:
    """The subject's assertion, with whom and what it came: that pair alone is good again.

    An actor's own assertion is its login to this service, and comes with each request. What nobody
    can show again need not be remembered.
    """
    if starts.is_live:
        return ()
    companions = [
        "" if actor is None or actor == starts else _called(actor),
        ask.client or "",
        ask.key or "",
    ]
    digest = primitives.sha256("\0".join(companions).encode()) if any(companions) else None

    # An ID-JAG stands for one task: shown again, it gives a token of the same one.
    seen = Seen(
        digest=starts.digest,
        companions=digest,
        until=starts.expires_at,
        issued_at=starts.issued_at,
        same_task=starts.kind == "id-jag",
    )
    return (seen,)


# --- a policy's own tests -------------------------------------------------------------------------


def check_policy(policy: Policy, clock: Clock = time) -> None:
    """Run the tests of a policy. Raises IssuanceError, `policy`, with the first that fails.

    Claims are taken at their word here, and keys are made up: what is tested is the policy.
    """
    # A key of a discharger that nobody asks.
    lease = b64encode(primitives.exchange_public(bytes(range(32))))
    desk = Desk(policy, Keyring.generate(), lease=lease, clock=clock)
    for number, test in enumerate(policy.tests, 1):
        wrong = _failure(desk, test, read_clock(clock))
        if wrong is not None:
            raise IssuanceError(f"the policy does not load: test {number}: {wrong}", "policy")


def _failure(desk: Desk, test: Test, now: int) -> str | None:
    """What is wrong with a test; None if it holds.

    A test that is to be refused holds whatever it is refused for.
    """
    subject = imagined(desk.policy, test.subject, now)
    actor = imagined(desk.policy, test.actor, now)
    # Held, and with a key: so that bound and approved grants are tested too.
    key = b64encode(primitives.signing_public(bytes(range(32))))
    ask = Ask(
        grant=test.grant,
        resources=() if test.resource is None else (test.resource,),
        keywords=test.ask,
        # What is for applications is never bound.
        key=key if test.client is None else None,
        held=True,
        client=test.client,
        by_login=test.client is not None,
    )
    try:
        grant = desk.chosen(ask, subject, actor)

        # A test need not say what is the same for all of them. Where each server gets rights of
        # its own, what one of them denies says nothing of the others.
        if grant.servers and test.resource is None and not test.refused:
            return f"it names no resource, and {grant.name} gives each of them something else"
        resources = ask.resources or grant.resources[:1]
        named = structs.replace(ask, resources=resources, agent=grant.agents[0])
        plan = desk.plan(named, subject, actor)
    except IssuanceError as error:
        return None if test.refused else f"it is refused: {error} {error.why}".rstrip()
    return f"it is granted, as {plan.grant.name}" if test.refused else _judged(plan, test)


def _judged(plan: Plan, test: Test) -> str | None:
    """Which access is judged otherwise than the test has it; None if none is."""
    (root,) = tokens_of(plan.root)
    capability = root.unverified.capability
    for stated in test.allows:
        refused = capability.prohibits(Access(**stated))
        if refused is not None:
            return f"{plan.grant.name} denies {stated}: {refused.text}"
    for stated in test.denies:
        if capability.prohibits(Access(**stated)) is None:
            return f"{plan.grant.name} allows {stated}"
    return None


def imagined(policy: Policy, stated: Mapping[str, Any] | None, now: int) -> Identity | None:
    """Somebody whose claims are what a test says. There is no assertion, and nothing is verified.

    None, where the test names nobody.
    """
    if stated is None:
        return None
    claims = {"sub": "test", **stated}
    name = claims.pop("provider")
    provider = policy.providers[name]
    issuer = provider.trust_domain if isinstance(provider, Spiffe) else provider.issuer
    return Identity(
        provider=name,
        kind="test",
        issuer=issuer,
        claims=claims,
        digest=primitives.sha256(f"{name} {claims['sub']}".encode()),
        issued_at=now,
        expires_at=now + 60,
    )
