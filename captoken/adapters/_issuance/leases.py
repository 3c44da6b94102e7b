"""Leases: whether a task is alive, for servers that ask before they believe its token.

The issuer is the discharger of its own leases, and answers from the registry.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from captoken._format.clocks import Clock, read_clock
from captoken._format.errors import StoreError
from captoken._language.discharge import Discharge, Ticket
from captoken.adapters._issuance.standing import Standing
from captoken.adapters.discharge_service import DischargeService
from captoken.discharge import Allow, Discharger, Refuse, Wait
from captoken.issuance.registry import Registry
from captoken.keys.secret import DischargerKey

# Seconds that a lease lives of a task whose grant the policy has no more.
_LIFE = 60

_log = logging.getLogger("captoken.issuance")


class Leases(DischargeService):
    """The discharger of leases, over HTTP. The registry is asked in threads, since it blocks."""

    def __init__(
        self,
        key: DischargerKey,
        standing: Callable[[], Standing],
        registry: Registry,
        clock: Clock,
    ) -> None:
        """`standing` gives what stands now. Its origin stays the first one's."""
        self._standing = standing
        self._registry = registry
        self._now = clock
        self.discharger = Discharger(key, self._alive, clock=clock)
        super().__init__(
            self.discharger,
            origin=standing().policy.origin,
            clock=clock,
        )

    async def _said(self, ticket: Ticket) -> Discharge | Refuse | Wait:
        return await asyncio.to_thread(self.discharger.answer, ticket)

    def _alive(self, need: Any) -> Allow | Refuse:
        """Is the task of a lease out? Its discharge lives as long as the lease.

        What cannot be told is refused: a server does not believe the token for now.
        """
        task = need.get("alive")
        if need.keys() != {"alive"} or not isinstance(task, str):
            return Refuse("no task of ours")

        try:
            alive = self._registry.is_live(task, read_clock(self._now))
        except StoreError as error:
            _log.error("whether a task is alive cannot be told: %s", error)
            return Refuse("try again later")
        return Allow(expires_in=self._life()) if alive else Refuse("the task is over")

    def _life(self) -> int:
        """How long a lease lives, in seconds: the shortest of any grant."""
        grants = self._standing().policy.grants.values()
        return min((grant.lease for grant in grants if grant.lease), default=_LIFE)
