"""What stands: the policy, its keys, and what is decided by it.

A request takes it once, when it begins, and goes by it to its end. So no request sees one half of a
reload: it has the old policy with the old keys, or the new one with the new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from captoken._format.clocks import Clock
from captoken._format.errors import IssuanceError, StoreError
from captoken.control import Operator
from captoken.issuance.desk import Desk, check_policy
from captoken.issuance.identity import names_of
from captoken.issuance.keys import ProviderKeys
from captoken.issuance.policy import Policy, Signals
from captoken.issuance.registry import Registry
from captoken.keys.keyring import Keyring


class Setup(NamedTuple):
    """What a service goes by, and what it can take anew while it serves."""

    policy: Policy
    keyring: Keyring | Callable[[], Keyring]
    operator: Operator | None = None


class Standing:
    """One policy with all that follows from it. It does not change."""

    def __init__(
        self,
        policy: Policy,
        keyring: Keyring | Callable[[], Keyring],
        keys: ProviderKeys,
        lease: str | None,
        clock: Clock,
    ) -> None:
        """`lease`: the public key that says which tasks are alive.

        Raises IssuanceError, `policy`, for a policy with leases without it.
        """
        self.policy = policy
        self.keys = keys
        self.desk = Desk(policy, keyring, lease=lease, clock=clock)
        self._is_named = False
        self.streams = {
            name: one for name, one in policy.providers.items() if isinstance(one, Signals)
        }


    async def name_in(self, registry: Registry) -> None:
        """See that the registry knows the providers by these names. It is asked once.

        Raises StoreError where it does not: nothing may start or end by other ones.
        """
        if self._is_named:
            return
        try:
            await asyncio.to_thread(registry.keep_names, names_of(self.policy))
        except IssuanceError as error:
            raise StoreError(str(error)) from None
        self._is_named = True


def checked(load: Callable[[], Setup], before: Policy, clock: Clock) -> Setup:
    """What is to stand, once the policy's own tests held. Blocks.

    Raises IssuanceError for a test that fails, and for another issuer: all addresses are its own.
    Raises what `load` raises.
    """
    setup = load()
    check_policy(setup.policy, clock)
    if setup.policy.origin != before.origin:
        text = (
            "the policy does not load: service.origin has changed: restart the service to change it"
        )
        raise IssuanceError(text, "policy")
    return setup
