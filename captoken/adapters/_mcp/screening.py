"""Requests over HTTP are screened before the guard has them: by the token in their header.

The guard answers in MCP's words, with the status 200. A client waits for another status, to refresh
a token that is no good, or to ask a person for more. So a challenge (`challenge.py`) asks here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import structs

from captoken._format.text import without_proof
from captoken._language.access import Access
from captoken._language.bounds import is_bounded
from captoken._verification.decision import Decision, Denied
from captoken._verification.grant import Grant
from captoken._verification.verifier import AnyVerifier, Verifier
from captoken.adapters._http.credentials import text_in
from captoken.adapters._http.exchange import Header, RequestError
from captoken.adapters._mcp.calls import Stated, access_of, answer_of
from captoken.adapters._mcp.denials import Denials
from captoken.adapters._mcp.messages import LISTS
from captoken.adapters._step_up import StepUps


class Screening:
    """Finds the requests that are refused whatever the guard would say, and those to step up.

    It looks without effects, and by a verifier without a trail: the guard makes a record of what it
    lets in. What is refused here is on record. `needs_token`: whether a method does. `steps`: None
    where nobody is asked for more. `prefix`: what stands before the tools in tokens.
    """

    def __init__(
        self,
        verifier: AnyVerifier,
        denials: Denials,
        stated: Stated,
        needs_token: Callable[[str], bool],
        steps: StepUps | None,
        prefix: str,
    ) -> None:
        parts = verifier.blocking.parts
        quiet = structs.replace(parts, stores=structs.replace(parts.stores, trail=None))
        self._quiet = Verifier.of_parts(quiet)
        self._verifier = verifier
        self._denials = denials
        self._stated = stated
        self.needs_token = needs_token
        self._steps = steps
        self._prefix = prefix

    async def note_missing(self) -> None:
        """Put on record that no token came with a request that needs one."""
        await self._denials.record_unverified()

    async def denial_of(
        self, headers: Iterable[Header], said: Any
    ) -> tuple[Denied, str | None] | None:
        """The denial of a token that is no good, or of a message that a person could allow.

        With the latter, what to ask her for. None for any other: the guard says what becomes of it.
        So too for a text with a proof: here nobody knows what it has to be about.
        """
        text = _bearer(headers)
        if text is None:
            return None
        try:
            grant = await answer_of(self._quiet, lambda face: face.authenticate(text))
        except Denied as denied:
            if denied.kind != "invalid":
                return None
        else:
            return await self._lifted(text, grant, said)
        found: Decision = await answer_of(
            self._verifier, lambda face: face.deny(text, "malformed", "it is no good now")
        )
        return Denied(found), None

    async def _lifted(self, text: str, grant: Grant, said: Any) -> tuple[Denied, str] | None:
        """The denial of a message that a person could allow, on record, and what to ask her for."""
        access = self._called(said)
        if self._steps is None or access is None:
            return None
        # What the server knows of a call is asked where it could matter, as in each decision.
        found: Decision = await answer_of(grant, lambda face: face.recheck([access]))
        if not found and self._stated.asks_server:
            try:
                access = self._stated.access(access)
            except Exception:
                return None
            found = await answer_of(grant, lambda face: face.recheck([access]))
        scope = None if found else self._steps.scope_for(found)
        if scope is None:
            return None
        denied: Decision = await answer_of(
            self._verifier, lambda face: face.check(text, access)
        )
        return None if denied else (Denied(denied), scope)

    def _called(self, said: Any) -> Access | None:
        """The access of a request that waits for an answer; None for any other message."""
        if not isinstance(said, dict) or said.get("id") is None:
            return None
        method, params = said.get("method"), said.get("params", {})
        if not isinstance(method, str) or not isinstance(params, dict) or method in LISTS:
            return None
        access = access_of(method, params, self._prefix)
        return access if access is not None and is_bounded(access) else None


def _bearer(headers: Iterable[Header]) -> str | None:
    """The text in headers, if it is one without a proof."""
    try:
        text = text_in(headers)
    except RequestError:
        return None
    return text if text is not None and text == without_proof(text) else None
