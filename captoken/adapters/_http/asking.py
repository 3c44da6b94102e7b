"""Questions to a verifier that may have to wait for a store, from within an event loop.

A store is waited for in a thread, so that other requests go on meanwhile. What reaches into the
core for that is here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from captoken._verification import aio
from captoken._verification.grant import Grant
from captoken._verification.verifier import Verifier
from captoken.adapters._http.credentials import Credentials

_R = TypeVar("_R")


async def decided(grant: Grant, decide: Callable[[], _R]) -> _R:
    """What `decide`, which asks `grant`, returns. Raises what it raises.

    It runs in a thread if the grant's verifier has a store.
    """
    return await aio.answer(grant._verifier, decide)


async def lacks_proof_alone(verifier: Verifier, found: Credentials) -> bool:
    """Whether a token is good here but for its proof.

    Nothing is committed by the question, and nothing recorded: the one that counts comes later.
    """
    without_proof = (None, None)
    decision = await aio.answer(
        verifier,
        verifier._decide,
        found.text,
        None,  # no access,
        None,  # and no caller: those are asked about later
        without_proof,
        dry=True,
    )
    return decision.code == "proof_missing"
