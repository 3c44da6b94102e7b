"""Questions to a verifier, or to a grant, from within an event loop: for all adapters.

A store is waited for in a thread, so that other requests go on meanwhile.

    grant = await answer_of(verifier, lambda face: face.authenticate(text))

asks `verifier.awaited` in asyncio, and `verifier.blocking` in any other event loop.
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Awaitable, Callable
from typing import Any

from captoken._verification.verifier import AnyVerifier, AsyncVerifier
from captoken.current import AnyGrant

# Where the plain face is asked: it is given the question, and the face.
Elsewhere = Callable[[Callable[[Any], Any], Any], Awaitable[Any]]


async def in_place(question: Callable[[Any], Any], face: Any) -> Any:
    """Ask here and now. What else runs in this event loop waits."""
    return question(face)


async def answer_of(
    asked: AnyVerifier | AnyGrant,
    question: Callable[[Any], Any],
    elsewhere: Elsewhere = in_place,
) -> Any:
    """What a verifier or a grant answers to a question.

    `question` is asked of the awaited face, which is asyncio's. An adapter can run in another event
    loop as well, trio's for one. The plain face is asked there, by `elsewhere`: in place, unless
    the adapter knows of a thread of that loop's.

    Raises what the question raises, a Denied above all.
    """
    # The awaited face is asked for anew each time: it belongs to the event loop that first uses it.
    if in_asyncio():
        return await question(asked.awaited)
    return await elsewhere(question, asked.blocking)


def in_asyncio() -> bool:
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
