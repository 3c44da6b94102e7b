"""What people let applications do for them, as the registry keeps it. Of one person at a time.

A page is answered once, and an allowance is written with the code that the application gets for it.
The application's part is in `codes`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from captoken._format import primitives
from captoken._format.clocks import Clock, read_clock
from captoken._format.entropy import random_bytes
from captoken.adapters._issuance.offers import GoesOn, Offer
from captoken.adapters._issuance.visits import Visit
from captoken.issuance.applications import Application
from captoken.issuance.identity import Identity
from captoken.issuance.registry import Ending, KeptLogin, LoginRegistry

CODE_LIFE = 60  # seconds for the application to use a code


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """What a person let an application do, as the registry keeps it."""

    identity: Identity
    name: str
    grant: str
    audience: str
    redirect: str
    challenge: str
    keywords: dict[str, Any]

    # The rights that were asked for by name, and are there; and the end of the task that this is
    # added to, if it is.
    scope: tuple[str, ...] = ()
    until: int | None = None


class Allowances:
    """Adds, lists and ends them. The registry is asked in threads, since it blocks."""

    def __init__(self, registry: LoginRegistry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock

    async def running(
        self, application: Application, visit: Visit
    ) -> list[tuple[str, str, GoesOn]]:
        """What an application does for her now: grant, server and the rest, the newest first."""
        found: list[tuple[str, str, GoesOn]] = []
        for one, allowed in await self.live(visit):
            if one.client == application.id:
                rest = GoesOn(task=one.task, until=one.until, keywords=allowed.keywords)
                found.append((allowed.grant, allowed.audience, rest))
        return found

    async def live(self, visit: Visit) -> list[tuple[KeptLogin, Allowed]]:
        """What she has allowed, and still lasts: of each task the newest."""
        now = read_clock(self._clock)
        found: dict[str, KeptLogin] = {}
        for one in await asyncio.to_thread(self._registry.logins_of, visit.login.subject, now):
            newest = found.get(one.task, one)
            found[one.task] = msgspec.structs.replace(newest, begun=min(newest.begun, one.begun))
        return [
            (one, msgspec.json.decode(one.content, type=Allowed))
            for one in found.values()
            if await asyncio.to_thread(self._registry.is_live, one.task, now)
        ]

    async def add(
        self,
        offer: Offer,
        visit: Visit,
        keywords: dict[str, Any],
        said: Mapping[str, Any],
    ) -> str | None:
        """Write what she allowed. The code for the application; None if the page was answered."""
        now = read_clock(self._clock)
        asked, goes_on = offer.asked, offer.goes_on
        allowed = Allowed(
            identity=visit.identity,
            name=offer.application.name,
            grant=offer.grant.name,
            audience=offer.audience,
            redirect=asked.redirect,
            challenge=asked.challenge,
            keywords=keywords,
            scope=offer.scope(keywords),
            until=None if goes_on is None else goes_on.until,
        )
        content = msgspec.json.encode(allowed)
        code = visit.session.code(said["once"], primitives.sha256(content))
        login = KeptLogin(
            id=code.id,
            client=offer.application.id,
            subject=offer.subject,
            provider=visit.identity.provider,
            session=visit.identity.session,
            issued_at=visit.identity.issued_at,
            content=content,
            secret=code.digest,
            salt=random_bytes(32),
            task="" if goes_on is None else goes_on.task,
            begun=now,
            until=now + CODE_LIFE,
        )
        # The page's one answer: another one to the same page is another code, and too late.
        answered = msgspec.structs.replace(
            login, id=f"page {said['once']}", content=b"", salt=b"", until=said["until"]
        )
        if not await asyncio.to_thread(self._registry.keep_login, answered, now):
            before = await asyncio.to_thread(self._registry.login, answered.id, now)
            if before is None or not primitives.equal(before.secret, code.digest):
                return None
        if not await asyncio.to_thread(self._registry.keep_login, login, now):
            # The button was pressed twice: the same answer, unless the application has it already.
            known = await asyncio.to_thread(self._registry.login, code.id, now)
            if known is None or known.turn:
                return None
        return code.text()

    async def end(self, id: str, visit: Visit) -> bool:
        """End what an application does for her. False for what is another's, or over."""
        now = read_clock(self._clock)
        found = await asyncio.to_thread(self._registry.login, id, now)
        # Nobody ends what is another's, whatever form they have.
        if found is None or found.subject != visit.login.subject:
            return False
        await asyncio.to_thread(self._registry.end, Ending(now=now, task=found.task))
        await asyncio.to_thread(self._registry.drop_login, found.id)
        return True
