"""A task starts: its row is written, its token is minted and recorded, and then it is sent.

In that order, whoever asked: with an assertion, with a certificate, or with an application's code.
What fails leaves no token.
"""

from __future__ import annotations

import asyncio
from typing import Any

from captoken._format.errors import IssuanceError, StoreError
from captoken._writing.token import Token
from captoken._writing.token_set import TokenSet
from captoken.adapters._issuance.answers import unavailable
from captoken.adapters._issuance.ends import Leases
from captoken.adapters._issuance.form import ACCESS_TOKEN
from captoken.adapters._issuance.records import Asking, Records
from captoken.adapters._issuance.standing import Standing
from captoken.discharge import Allow
from captoken.issuance.desk import Plan
from captoken.issuance.minting import ROOT, TOKEN_SET, Ask, granted_keywords, tokens_of
from captoken.issuance.registry import Registry, StartedTask

# The longest life of a text for an OAuth client, in seconds. Such a client sends it many times.
MOST_PRESENTED = 300


class Starts:
    """Starts the tasks that the desk has planned. What it writes is written in threads."""

    def __init__(
        self,
        registry: Registry,
        records: Records | None,
        leases: Leases | None,
    ) -> None:
        self._registry = registry
        self._records = records
        self._leases = leases

    async def started(self, standing: Standing, asking: Asking, plan: Plan) -> dict[str, Any]:
        """What the answer says, once the entry is written. Raises IssuanceError, StoreError."""
        task = await asyncio.to_thread(self._registry.enter, plan.entry)
        root = standing.desk.mint(plan, task)
        answer = self._answer(asking.ask, plan, task, root, asking.at)
        if self._records is not None:
            keyring = standing.desk.minter.keyring()
            name = plan.grant.name
            for token in tokens_of(root):
                await asyncio.to_thread(self._records.granted, asking, name, token, keyring)
        return answer

    async def refused(self, asking: Asking, error: IssuanceError | StoreError, over: int) -> None:
        """Put on record that nothing is started. `over`: by how many requests there are too many.

        Of those in a row, the first is recorded: or else they would fill the trail. Raises
        StoreError.
        """
        if self._records is not None and over <= 1:
            told = unavailable(error) if isinstance(error, StoreError) else error
            await asyncio.to_thread(self._records.refused, asking, told)

    def _answer(
        self,
        ask: Ask,
        plan: Plan,
        task: StartedTask,
        root: Token | TokenSet,
        now: int,
    ) -> dict[str, Any]:
        """What a client gets: the held token, or the set of them, or a text for one server."""
        kind = ROOT
        if isinstance(root, TokenSet):
            text, ends, kind = root.serialize(), root.expires_at, TOKEN_SET
        elif ask.held:
            text, ends = root.serialize(), root.unverified.expires_at
        else:
            text, ends = self._presented(root, plan)
            kind = ACCESS_TOKEN
        return {
            "access_token": text,
            "issued_token_type": kind,
            "token_type": "N_A" if ask.held else "Bearer",
            "expires_in": None if ends is None else ends - now,
            "scope": plan.grant.name,
            "task": task.id,
            "authorization_details": [_detail(token) for token in tokens_of(root)],
        }

    def _presented(self, root: Token, plan: Plan) -> tuple[str, int | None]:
        """The text that an OAuth client sends as it is, and when it ends.

        A leased root comes with its first discharge, and lives as long as that.
        """
        # What is counted comes once, and so for as long as the policy gives it.
        is_once = plan.ask.by_login and plan.grant.counts
        life = plan.grant.expires_in if is_once else MOST_PRESENTED
        if plan.grant.lease and self._leases is not None:
            life = min(life, plan.grant.lease)
            for ticket in root.needs:
                alive = self._leases.discharger.approve(ticket, Allow(expires_in=life))
                root = root.with_discharge(alive)
        (audience,) = plan.audiences
        shown = root.presentation(audience=audience, expires_in=life)
        return shown.text(), shown.ends


def _detail(token: Token) -> dict[str, Any]:
    """What a token is good for, and where: a token of a set says that in its root record alone."""
    server = token.unverified.root.audience
    at = {} if server is None else {"audience": [server]}
    return {"type": "captoken", **at, **granted_keywords(token)}
