"""A word to a task that waits: from a handler of signals, or from whichever thread."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Told:
    """What one task waits for, again and again."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def tell(self) -> None:
        """Have the task go on, soon."""
        if self._loop is None:
            self._event.set()  # it has not begun
        else:
            self._loop.call_soon_threadsafe(self._event.set)

    async def within(self, seconds: float) -> bool:
        """Wait that long at most. Was it told? Then the word is taken."""
        self._loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)
        was_told = self._event.is_set()
        self._event.clear()
        return was_told
