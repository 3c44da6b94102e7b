"""What a policy means: the values that the rest of this room decides by. They were all checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from captoken.issuance.claims import Claims, Matcher, Template
from captoken.issuance.policy._stated import (
    PER_MINUTE,
    Approval,
    Client,
    DischargerOf,
    LoginOf,
    Provider,
    Proxy,
    Resource,
    Tasks,
    Test,
)


class Party(msgspec.Struct, frozen=True):
    """Whom a grant wants as subject or actor: of which provider, with which claims."""

    # The name of its provider in the policy.
    provider: str

    # Each of them has to match. None are needed of people: then anybody of that provider will do.
    matchers: tuple[Matcher, ...]

    def misses(self, provider: str, claims: Claims) -> str | None:
        """Why somebody is not one of these, for people; None if they are.

        The claims are taken at their word: whoever asks has verified them.
        """
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

    # What a token of it permits; and of a set what each server's token permits beside that, by the
    # names of `resources`. It is empty in a grant that gives no sets.
    give: dict[str, Any]
    servers: dict[str, dict[str, Any]]

    # Seconds that a token of it is good for: of a set, the one that is good for longest.
    expires_in: int

    # Has it uses or a budget? Then it is taken once in a task.
    counts: bool

    # As the file states them, and each of them checked against what it gives.
    bound: bool
    lease: int
    task_max: int
    tasks: Tasks
    on: dict[str, dict[str, Any]]
    joins: tuple[str, ...]
    approval: Approval | None

    # May one token be for all of its resources?
    shares_keys: bool

    # The applications that people start it with. Empty: it is for whoever shows assertions.
    clients: tuple[str, ...] = ()

    # What they are offered at first, in the keywords of `attenuate`; all of it, if nothing is said.
    first: Mapping[str, Any] = {}

    def takes(self, application: str | None) -> bool:
        """Is it for people who log in with that application; or, None, for assertions?"""
        if application is None or not self.clients:
            return application is None and not self.clients
        return application in self.clients or ("*" in self.clients and "://" in application)


class Policy(msgspec.Struct, frozen=True):
    """A policy that loaded. A value: to change it, load another one."""

    origin: str
    providers: dict[str, Provider]

    # By the provider's name: how its subjects are named, and what each assertion has to say.
    # Providers that name actors alone are not among `subjects`.
    subjects: dict[str, Template]
    required: dict[str, tuple[Matcher, ...]]

    # The resources, by their names in the file.
    resources: dict[str, Resource]
    dischargers: dict[str, DischargerOf]
    clients: dict[str, Client]
    grants: dict[str, PolicyGrant]
    tests: tuple[Test, ...]

    # The digest of the file. Each token names the policy that it came of.
    digest: str
    per_minute: int = PER_MINUTE
    proxy: Proxy | None = None
    login: LoginOf | None = None

    def names_client(self, application: str) -> bool:
        """Does a grant name that application itself, and not just any?"""
        return any(application in grant.clients for grant in self.grants.values())

    def resource_of(self, named: str) -> str | None:
        """The resource that a client calls so: its audience, or one of its addresses.

        None if there is none. No address is of two resources: that was checked.
        """
        if named in self.resources:
            return named
        for audience, resource in self.resources.items():
            if named in resource.uris:
                return audience
        return None
