"""A word to a task that waits: from its loop, from a thread, and before it has begun."""

from __future__ import annotations

import asyncio
from threading import Thread

from captoken.adapters._told import Told


def test_a_word_ends_the_wait_and_is_taken() -> None:
    async def seen() -> list[bool]:
        told = Told()
        told.tell()
        before, after = await told.within(60), await told.within(0)
        asyncio.get_running_loop().call_soon(told.tell)
        return [before, after, await told.within(60)]

    assert asyncio.run(seen()) == [True, False, True], "also one that came before the task began"


def test_a_thread_may_tell() -> None:
    async def seen() -> list[bool]:
        told = Told()
        nothing = await told.within(0)
        thread = Thread(target=told.tell)
        thread.start()
        word = await told.within(60)
        thread.join()
        return [nothing, word]

    assert asyncio.run(seen()) == [False, True]
