"""Questions to a verifier that may have to wait for a store, from within an event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from captoken._verification import aio
from captoken._verification.grant import Grant
from captoken._verification.verifier import Verifier
from captoken.adapters._http.credentials import Credentials

_R = TypeVar("_R")


async def decided(grant: Grant, decide: Callable[[], _R]) -> _R:
    """What `decide`, which asks `grant`, returns: from a thread where a store is waited for."""
    return await aio.answer(grant._verifier, decide)


async def lacks_proof_alone(verifier: Verifier, found: Credentials) -> bool:
    """Whether a token is good here but for its proof. Commits nothing and records nothing."""
    without = (None, None)
    decision = await aio.answer(
        verifier, verifier._decide, found.text, None, None, without, dry=True
    )
    return decision.code == "proof_missing"
