"""Grants, checked: everything that they name is there, and what they give can be minted.

A grant is minted once when it is loaded, by keys that nobody has. So the rules of the language are
asked, and not written down a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from captoken._format import names, primitives
from captoken._language.caveats import RESERVED
from captoken._writing.issuer import Issuer
from captoken._writing.token import Token
from captoken._writing.token_set import MOST_SERVERS, TokenSet
from captoken.issuance.applications import is_client_address
from captoken.issuance.claims import Template
from captoken.issuance.policy._issuers import fits_a_stranger, issuer_for
from captoken.issuance.policy._places import at, wrong
from captoken.issuance.policy._providers import matchers
from captoken.issuance.policy._stated import (
    EVENTS,
    File,
    Provider,
    Signals,
    Spiffe,
    StatedGrant,
    Workload,
)
from captoken.issuance.policy._values import Party, PolicyGrant
from captoken.keys.keyring import Keyring

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
_RIGHTS = frozenset(
    (
        "tables",
        "operations",
        "allow",
        "columns",
        "rows",
        "tools",
        "where",
    )
)

# What a page can offer a part of.
_OFFERED = frozenset(("tables", "operations", "allow", "columns", "tools"))


def checked_grant(
    name: str,
    stated: StatedGrant,
    file: File,
    subjects: Mapping[str, Template],
) -> PolicyGrant:
    """A grant, as the policy has it. Raises IssuanceError.

    That the grants which it joins are there is checked when all of them are read.
    """
    place = f"grant.{name}"
    _check_names(name, stated, file)
    parties = _parties(place, stated, file, subjects)
    if stated.clients:
        _check_clients(place, stated, file)

    common, servers = _given(place, stated)
    roots = _minted(place, stated, common, servers)
    said = [root.unverified for root in roots]
    lives = [(one.expires_at or 0) - one.root.issued_at for one in said]
    expires_in = max(lives)
    counts = any(one.capability.uses is not None or one.capability.budget for one in said)

    if stated.task_max < 1 or expires_in > stated.task_max:
        raise wrong(f"{place}: a token of {expires_in} s outlives the task of {stated.task_max} s")
    if counts and not servers and len(stated.resources) > 1:
        raise wrong(f"{place}: what it counts is counted in one place, so it has one resource")
    if not 0 <= stated.lease <= min(lives):
        raise wrong(f"{place}: lease is in seconds, 0 for none, and not longer than the token")
    _check_limits(place, stated, file, roots[0])
    _check_events(place, stated, TokenSet.of(*roots) if servers else roots[0])
    _check_first(place, stated, roots)

    return PolicyGrant(
        name=name,
        parties=parties,
        agents=stated.agents,
        resources=stated.resources,
        give=common,
        servers=servers,
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
        clients=stated.clients,
        first=stated.first,
    )


def _check_names(name: str, stated: StatedGrant, file: File) -> None:
    """Raise IssuanceError for a grant without agents or resources, or with one that is not there.

    A grant's name is also the label of its tasks, and a label has no slash.
    """
    place = f"grant.{name}"
    with at(place):
        names.name(name, "grant")
        for agent in stated.agents:
            names.name(agent, "agent")
    if "/" in name or not stated.agents or not stated.resources:
        raise wrong(f"{place}: it has agents and resources, and no slash in its name")
    for audience in stated.resources:
        if audience not in file.resource:
            raise wrong(f"{place}: there is no resource {audience}")


# --- whom it wants --------------------------------------------------------------------------------


def _parties(
    place: str,
    stated: StatedGrant,
    file: File,
    subjects: Mapping[str, Template],
) -> tuple[Party, ...]:
    """Whom the grant wants: one of the two at least, who has a name, and is not just anybody.

    Raises IssuanceError.
    """
    asks = _party(f"{place}.subject", stated.subject, file)
    acts = _party(f"{place}.actor", stated.actor, file)
    if acts is not None and not _is_of_workloads(file, acts):
        raise wrong(f"{place}.actor: provider {acts.provider} names no workloads, and one acts")

    parties = tuple(party for party in (asks, acts) if party is not None)
    if not parties:
        raise wrong(f"{place}: it has neither subject nor actor, so that anybody could start it")
    starts = parties[0].provider
    if starts not in subjects:
        raise wrong(f"{place}: provider {starts} does not say how its subjects are named")

    # Of people any may be meant: a company's provider names its own. What runs on a platform is
    # whatever somebody put there.
    for party in parties:
        if _is_of_workloads(file, party):
            _check_no_stranger(place, party, file.provider[party.provider])
    return parties


def _check_no_stranger(place: str, party: Party, provider: Provider) -> None:
    """Raise IssuanceError where another one than is meant could take the place of a workload.

    By what the grant itself asks for: what its provider requires of all is wider.
    """
    values = [value for matcher in party.matchers for value in matcher.values]
    if all(type(value) is bool for value in values):
        raise wrong(f"{place}: any workload of {party.provider} would do: say which")

    known = issuer_for(provider, party.matchers)
    if known is not None and fits_a_stranger(known, party.matchers):
        asked = ", ".join(map(str, party.matchers))
        raise wrong(
            f"{place}: a stranger at {known.name} can have all that it asks of {party.provider} "
            f"({asked}): ask for {known.what_to_write}"
        )


def _is_of_workloads(file: File, party: Party) -> bool:
    """Does its provider name what runs somewhere, and not people?"""
    return isinstance(file.provider[party.provider], (Workload, Spiffe))


def _party(place: str, stated: Mapping[str, Any] | None, file: File) -> Party | None:
    """Whom a grant wants. None: nobody is asked for. Raises IssuanceError."""
    if stated is None:
        return None
    name = stated.get("provider")
    if type(name) is not str or name not in file.provider:
        raise wrong(f"{place}: provider names one of the providers of this file")
    provider = file.provider[name]
    if isinstance(provider, Signals):
        raise wrong(f"{place}: provider {name} sends events, and nobody starts a task by one")

    claims = {claim: wanted for claim, wanted in stated.items() if claim != "provider"}
    return Party(
        provider=name,
        matchers=matchers(place, provider, claims),
    )


def _check_clients(place: str, stated: StatedGrant, file: File) -> None:
    """Raise IssuanceError for a grant that no application could take, or that one could not use."""
    login = file.login
    if login is None:
        raise wrong(f"{place}: clients needs a table [login], which says where people log in")
    if (stated.subject or {}).get("provider") != login.provider or stated.actor is not None:
        raise wrong(
            f"{place}: with clients, the subject is of provider {login.provider}, where people log "
            "in, and there is no actor"
        )
    if stated.bound or stated.approval is not None or stated.keys == "shared":
        raise wrong(
            f"{place}: an application gets a text for one server, so with clients there is no "
            "bound, no approval, and no shared keys"
        )
    # Such a scope is a right (spec 44.24).
    if place.startswith(("grant.table:", "grant.tool:")):
        raise wrong(f"{place}: with clients, a grant's name must not begin with table: or tool:")
    for client in stated.clients:
        known = file.client.get(client)
        is_named = known is not None and known.redirects
        if client != "*" and not is_named and not is_client_address(client):
            raise wrong(
                f"{place}: clients has {client!r}: write the address of an application's document, "
                'a client of this file that has redirects, or "*"'
            )


# --- what it gives --------------------------------------------------------------------------------


def _given(place: str, stated: StatedGrant) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What every token of the grant gets; and what each server's token gets beside that.

    There is nothing beside it unless `give` has `servers`. That names each resource, and nothing
    else: a resource that was forgotten would get what holds for all. Raises IssuanceError.
    """
    common = {**stated.give}
    if "servers" not in common:
        return common, {}

    place = f"{place}.give.servers"
    servers = common.pop("servers")
    if not isinstance(servers, dict) or not all(isinstance(its, dict) for its in servers.values()):
        raise wrong(f"{place}: it is a table for each of the grant's resources")
    if stated.keys == "shared":
        raise wrong(f'{place}: with keys = "shared" one token is for all of the resources')
    for audience in servers.keys() - set(stated.resources):
        raise wrong(f"{place}.{audience}: the grant has no resource {audience}")
    for audience in set(stated.resources) - servers.keys():
        raise wrong(f"{place}: it does not say what {audience} gets: write {audience} = {{}}")
    if len(servers) > MOST_SERVERS:
        raise wrong(f"{place}: a set has at most {MOST_SERVERS} servers, not {len(servers)}")

    counted = sorted(RESERVED & common.keys())
    if counted:
        raise wrong(f"{place}: {', '.join(counted)} is counted by one server: say it there")
    for audience, its in servers.items():
        twice = sorted(its.keys() & common.keys())
        if twice:
            raise wrong(f"{place}.{audience}: {', '.join(twice)} is said for all servers, too")
    return common, servers


def _minted(
    place: str,
    stated: StatedGrant,
    common: Mapping[str, Any],
    servers: Mapping[str, Mapping[str, Any]],
) -> list[Token]:
    """A token of the grant, by a key that nobody has: what cannot be minted does not load.

    Of a grant with `servers`, one for each of them. Raises IssuanceError.
    """
    keyring = Keyring.generate()
    made: list[Token] = []
    for audience in servers or stated.resources[:1]:
        own = servers.get(audience, {})
        its_place = f"{place}.give.servers.{audience}" if servers else f"{place}.give"
        refused = sorted(_NOT_GIVEN & (common.keys() | own.keys()))
        if refused:
            raise wrong(f"{its_place}: {', '.join(refused)} is not for a policy to say")
        with at(its_place):
            root = Issuer(keyring.for_audience(audience)).mint(
                subject="a:subject",
                agent=stated.agents[0],
                task="a-task",
                **common,
                **own,
            )
        made.append(root)
    return made


def _check_limits(place: str, stated: StatedGrant, file: File, root: Token) -> None:
    """Raise IssuanceError for an approval that nobody gives, and for numbers that are none."""
    if stated.approval is not None:
        discharger = stated.approval.discharger
        if discharger not in file.discharger:
            raise wrong(f"{place}: there is no discharger {discharger}")

        # By a key that nobody asks: what cannot be asked for does not load.
        key = primitives.exchange_public(bytes(range(32)))
        with at(f"{place}.approval"):
            root.require(key, need=stated.approval.need)

    for most in (stated.tasks.live, stated.tasks.per_day):
        if most is not None and most < 1:
            raise wrong(f"{place}: tasks are numbers of 1 or more")


def _check_first(place: str, stated: StatedGrant, roots: list[Token]) -> None:
    """Raise IssuanceError for what an application cannot be offered at first."""
    if not stated.first:
        return
    if not stated.clients:
        raise wrong(f"{place}.first: it is for a grant that has clients")
    if not stated.first.keys() <= _OFFERED:
        raise wrong(f"{place}.first: it has {', '.join(sorted(_OFFERED))}, and nothing else")
    with at(f"{place}.first"):
        for root in roots:
            root.attenuate(**stated.first)


def _check_events(place: str, stated: StatedGrant, root: Token | TokenSet) -> None:
    """Raise IssuanceError for what an event would do, if it is not a narrowing of the grant."""
    for event, narrower in stated.on.items():
        if event not in EVENTS:
            raise wrong(f"{place}.on: {event} is none of {', '.join(EVENTS)}")
        if not narrower or not narrower.keys() <= _RIGHTS:
            raise wrong(f"{place}.on: an event narrows {', '.join(sorted(_RIGHTS))}")
        with at(f"{place}.on"):
            root.attenuate(**narrower)
