"""Applications show a code, and then refresh tokens, for what a person has let them do.

    code                  good once, for a minute, by whoever has the verifier of its challenge
    refresh token         good once, and again for a minute while its successor is unused

A code that is shown twice, and a refresh token that is shown after that, were copied: one of two
who have it is not the application. Nobody knows which, so the login is over for both, and its task
ends. The trail says so.

The policy is asked each time. A task that was ended, a login that is over, or a person for whom the
grant is no more, gets nothing.
"""

from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec
from msgspec import structs

from captoken._format import primitives
from captoken._format.clocks import Clock, read_clock
from captoken._format.encoding import b64encode
from captoken._format.errors import IssuanceError, StoreError
from captoken.adapters._issuance.allowances import Allowed
from captoken.adapters._issuance.answers import SLOW_DOWN
from captoken.adapters._issuance.ends import Ends
from captoken.adapters._issuance.form import CODE, CodeRequest
from captoken.adapters._issuance.offers import read_scope
from captoken.adapters._issuance.rates import Rates
from captoken.adapters._issuance.records import Asking
from captoken.adapters._issuance.sessions import Text
from captoken.adapters._issuance.standing import Standing
from captoken.adapters._issuance.starts import Starts
from captoken.adapters._issuance.visits import login_ends
from captoken.issuance.desk import Plan
from captoken.issuance.minting import Ask
from captoken.issuance.registry import Ending, KeptLogin, LoginRegistry

_SPENT = "this code or refresh token is not good: ask the person again"


class _Held(NamedTuple):
    """What an application has shown, and what it is for."""

    text: Text
    login: KeptLogin
    allowed: Allowed


class Codes:
    """The part of the token endpoint that is for applications. For one event loop."""

    def __init__(
        self,
        registry: LoginRegistry,
        ends: Ends,
        rates: Rates,
        starts: Starts,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._ends = ends
        self._rates = rates
        self._starts = starts
        self._clock = clock

    async def exchanged(self, request: CodeRequest, standing: Standing) -> dict[str, Any]:
        """What the answer says. Raises IssuanceError, StoreError."""
        now = read_clock(self._clock)
        held = await self._held(request, now)
        allowed = held.allowed
        ask = Ask(
            grant=allowed.grant,
            resources=(allowed.audience,),
            task=held.login.task or None,
            keywords=allowed.keywords,
            client=request.client_id,
            by_login=True,
        )
        asking = Asking(now, standing.policy.digest, allowed.identity, None, ask)
        caller = (allowed.identity.provider, allowed.identity.sub, request.client_id)
        over = self._rates.over(caller, None, standing.policy.per_minute)
        try:
            if over:
                raise IssuanceError("you have sent too many requests: wait", SLOW_DOWN)
            return await self._turned(request, standing, held, asking)
        except (IssuanceError, StoreError) as error:
            await self._starts.refused(asking, error, over)
            raise

    async def _held(self, request: CodeRequest, now: int) -> _Held:
        """What was shown, if it is of this client. Raises IssuanceError, in one wording."""
        text = Text.read(request.text)
        login = None
        if text is not None:
            login = await asyncio.to_thread(self._registry.login, text.id, now)
        if text is None or login is None or not login.client:
            raise IssuanceError(_SPENT, "invalid_grant", "it is unknown, or over")
        if login.client != request.client_id:
            raise IssuanceError(_SPENT, "invalid_grant", "it is another application's")
        return _Held(text, login, msgspec.json.decode(login.content, type=Allowed))

    async def _turned(
        self,
        request: CodeRequest,
        standing: Standing,
        held: _Held,
        asking: Asking,
    ) -> dict[str, Any]:
        """Use what was shown, and give a token and what comes next. Raises IssuanceError."""
        text, login, allowed = held
        is_code = request.grant_type == CODE
        if is_code and login.turn:
            # What is good now is a refresh token, which is no code.
            if not primitives.equal(login.secret, text.digest):
                await self._use(login, text, asking)
            raise IssuanceError(_SPENT, "invalid_grant", "it is no code any more")
        if is_code:
            await self._check_code(request, held, asking)
        elif not login.turn:
            raise IssuanceError(_SPENT, "invalid_grant", "a code is no refresh token")

        until = min(login.until, login_ends(allowed.identity, standing.policy))
        plan: Plan | None = None
        task = login.task
        if login.turn == 0:
            # Its task has a name before the code is used, so that the registry knows both.
            plan = self._planned(request, standing, asking)
            task = plan.entry.task
            ends = login_ends(allowed.identity, standing.policy)
            until = min(plan.entry.deadline, ends, allowed.until or ends)
        await self._use(structs.replace(login, task=task, until=until), text, asking)
        if plan is None:
            plan = self._planned(request, standing, asking)

        await self._ends.check_heard(standing, allowed.identity)
        answer = await self._starts.started(standing, asking, plan)
        # What was shown again before its task was there has ended the login alone.
        if not login.turn and await self._is_over(login.id, asking.at):
            await asyncio.to_thread(self._registry.end, Ending(now=asking.at, task=task))
            raise self._used_before()
        answer["scope"] = " ".join((plan.grant.name, *allowed.scope))
        # What is counted is taken once in a task.
        if not plan.grant.counts:
            answer["refresh_token"] = text.successor(login.salt).text()
        return answer

    async def _use(self, login: KeptLogin, text: Text, asking: Asking) -> None:
        """Have the secret changed. Raises IssuanceError for one that was used before."""
        if login.until <= asking.at:
            raise IssuanceError(_SPENT, "invalid_grant", "the login is too old")
        after = text.successor(login.salt)
        turned = await asyncio.to_thread(
            self._registry.turn_login, login, text.digest, after.digest, asking.at
        )
        if turned.login is None:
            raise self._used_before()

    async def _is_over(self, id: str, now: int) -> bool:
        return await asyncio.to_thread(self._registry.login, id, now) is None

    def _used_before(self) -> IssuanceError:
        """What is raised for what was shown before. Its task has ended, and servers hear it now."""
        self._ends.publisher.wake()
        why = "it was used before: the login is over, and its task has ended"
        return IssuanceError(_SPENT, "invalid_grant", why)

    async def _check_code(self, request: CodeRequest, held: _Held, asking: Asking) -> None:
        """Raise IssuanceError for a code that comes otherwise than it was asked for.

        It is lost then, whoever shows it beside: nobody guesses at its verifier twice.
        """
        allowed = held.allowed
        verifier = request.verifier or ""
        challenge = b64encode(sha256(verifier.encode()).digest())
        is_redirect = request.redirect == allowed.redirect
        if is_redirect and primitives.equal(challenge.encode(), allowed.challenge.encode()):
            return
        if primitives.equal(held.login.secret, held.text.digest):
            await self._use(held.login, held.text, asking)
            await asyncio.to_thread(self._registry.drop_login, held.login.id)
        why = "another code_verifier" if is_redirect else "another redirect_uri"
        raise IssuanceError(_SPENT, "invalid_grant", why)

    def _planned(self, request: CodeRequest, standing: Standing, asking: Asking) -> Plan:
        """What is to happen, by the policy of now. Raises IssuanceError, StoreError."""
        ask = asking.ask
        grant = standing.desk.chosen(ask, asking.subject, None)
        named, _ = read_scope(request.scope)
        if named not in (None, grant.name):
            raise IssuanceError("the scope is not what was allowed", "invalid_scope")
        meant = {standing.policy.resource_of(one) for one in request.resources}
        if meant - set(ask.resources):
            raise IssuanceError("the resource is not what was allowed", "invalid_target")
        return standing.desk.plan(
            structs.replace(ask, agent=grant.agents[0]), asking.subject, None
        )
