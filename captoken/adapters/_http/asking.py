"""Questions to a verifier, or to a grant, from within an event loop.

A store is waited for in a thread, so that other requests go on meanwhile.
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Callable
from typing import Any

from captoken._verification.verifier import AnyVerifier, AsyncVerifier
from captoken.current import AnyGrant


async def answer_of(asked: AnyVerifier | AnyGrant, question: Callable[[Any], Any]) -> Any:
    """What a verifier or a grant answers to a question. Raises what it raises.

    `question` is asked of the awaited face, which is asyncio's. ASGI is served by other event loops
    as well: there the plain face is asked, in place.
    """
    if _in_asyncio():
        return await question(asked.awaited)
    return question(asked.blocking)


def _in_asyncio() -> bool:
    """Is it asyncio that runs this, and not trio?"""
    try:
        get_running_loop()
    except RuntimeError:
        return False
    return True


def served_by(verifier: AnyVerifier, grant: AnyGrant) -> AnyGrant:
    """The grant as an endpoint asks it: awaited only where the verifier of its owner is."""
    if isinstance(verifier, AsyncVerifier):
        return grant.awaited
    return grant.blocking
