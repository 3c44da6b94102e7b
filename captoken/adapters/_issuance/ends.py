"""What ends tasks: told by a provider, written in the registry, and then said by the overlay.

An answer says that the end is written. It is published after that, and until it stands.
"""

from __future__ import annotations

import asyncio
import logging

from captoken._format.clocks import Clock, read_clock
from captoken._format.errors import IssuanceError, StoreError
from captoken._format.spelling import escape
from captoken.adapters._http.exchange import Receive, Response, Scope
from captoken.adapters._issuance.answers import failed, form
from captoken.adapters._issuance.form import logout_token
from captoken.adapters._issuance.publisher import Publisher
from captoken.control import Operator
from captoken.issuance.keys import ProviderKeys
from captoken.issuance.policy import Policy
from captoken.issuance.registry import Registry
from captoken.issuance.signals import LOGOUT, Effect, named, told

_log = logging.getLogger("captoken.issuance")


class Ends:
    """The routes of signals, and what they come to. Without an operator, leases alone end."""

    def __init__(
        self,
        policy: Policy,
        keys: ProviderKeys,
        registry: Registry,
        operator: Operator | None,
        clock: Clock,
    ) -> None:
        self._policy = policy
        self._keys = keys
        self._registry = registry
        self._clock = clock
        self.publisher = Publisher(registry, operator, clock)

    async def logout(self, scope: Scope, receive: Receive) -> Response:
        """A logout token (OpenID Connect Back-Channel Logout 1.0, 2.5 and 2.8)."""
        try:
            await self._taken(logout_token(await form(scope, receive)), LOGOUT)
        except (IssuanceError, StoreError) as error:
            return failed(_called(error, "a logout"))
        return Response.of(200, b"application/json", b"")

    async def _taken(self, text: str, kind: str) -> None:
        """Verify a signal and write what it comes to. Raises IssuanceError, StoreError."""
        now = read_clock(self._clock)
        provider, kid = named(text, self._policy, kind)
        await self._keys.want(provider, kid)
        effect = told(text, self._policy, self._keys, now, kind)
        ended = await asyncio.to_thread(self._written, effect, now)
        _log.info("provider %s: %s: %d tasks", effect.stream, escape(effect.note), ended)

        # Written first. Also where it was heard before: the one who heard it may have died then.
        self.publisher.wake()

    def _written(self, effect: Effect, now: int) -> int:
        """Write it, and count what came of it. Blocks. Raises StoreError."""
        if not effect.endings:
            self._registry.hear(effect.stream, effect.jti, now)
        return sum(len(self._registry.end(ending)) for ending in effect.endings)


def _called(error: IssuanceError | StoreError, what: str) -> IssuanceError:
    """The error as it is answered; and it is logged: whoever has logged out goes on for now."""
    if isinstance(error, StoreError):
        _log.error("%s has no effect yet: %s", what, error)
        return IssuanceError("try again later", "temporarily_unavailable")
    _log.warning("%s is refused: %s %s", what, error, escape(error.why))
    if error.code == "temporarily_unavailable":
        return error
    return IssuanceError(str(error), "invalid_request")
