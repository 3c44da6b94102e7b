"""Waiting with a limit. Most of what is waited for is there already: that takes no timer.

    message = await within(60, receive())        # TimeoutError
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Generator
from typing import Any, TypeVar

_T = TypeVar("_T")


async def within(seconds: float, awaited: Awaitable[_T]) -> _T:
    """What is awaited. Raises TimeoutError where that takes longer."""
    steps: Generator[Any, Any, _T] = awaited.__await__()
    try:
        waits = next(steps)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    async with asyncio.timeout(seconds):
        return await _rest(steps, waits)


@types.coroutine
def _rest(steps: Generator[Any, Any, _T], waits: Any) -> Generator[Any, Any, _T]:
    """The steps behind the first one, which waits for `waits`."""
    while True:
        try:
            yield waits
        except BaseException as error:  # a cancellation, which the steps may answer
            try:
                waits = steps.throw(error)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
        else:
            return (yield from steps)
