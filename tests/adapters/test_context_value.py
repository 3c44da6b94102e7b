"""A context variable has a value in a block, and in what is started there; after it, what it had before."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, copy_context
from threading import Thread

import pytest

from captoken.adapters._context_value import context_value

VARIABLE: ContextVar[str] = ContextVar("example", default="none")


def test_blocks_nest_and_give_back_what_there_was() -> None:
    with context_value(VARIABLE, "a"):
        with pytest.raises(LookupError), context_value(VARIABLE, "b"):
            assert VARIABLE.get() == "b"
            raise LookupError
        assert VARIABLE.get() == "a"
    assert VARIABLE.get() == "none"


def test_a_task_keeps_it_and_a_thread_has_none() -> None:
    seen: list[str] = []

    async def asked() -> str:
        await asyncio.sleep(0)
        return VARIABLE.get()

    async def begun() -> str:
        with context_value(VARIABLE, "a"):
            task = asyncio.create_task(asked())
            thread = Thread(target=lambda: seen.append(VARIABLE.get()))
            thread.start()
            thread.join()
        return await task

    assert (asyncio.run(begun()), seen, VARIABLE.get()) == ("a", ["none"], "none")


def test_a_block_that_is_left_in_another_context_raises() -> None:
    block = context_value(VARIABLE, "a")
    copy_context().run(block.__enter__)
    with pytest.raises(ValueError, match="was created in a different Context"):
        block.__exit__(None, None, None)
