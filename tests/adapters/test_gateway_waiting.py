"""Waiting with a limit: as `asyncio.timeout` does it, and without a timer where nothing is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from captoken.adapters._gateway.waiting import within


async def at_once(how: str) -> str:
    if how == "raised":
        raise LookupError(how)
    return how


async def later(how: str) -> str:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return await at_once(how)


async def stubborn(seen: list[str], *, waits: bool) -> str:
    """It is not through when it is cancelled, as what shields its end."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        seen.append("cancelled")
        if waits:
            await asyncio.sleep(0)
    return "all the same"


async def said(awaited: Awaitable[str]) -> str:
    try:
        return await within(60, awaited)
    except LookupError as error:
        return f"raised {error}"


@pytest.mark.parametrize("how", ["it", "raised"])
@pytest.mark.parametrize("when", [at_once, later])
def test_it_gives_and_raises_what_is_awaited(when: Any, how: str) -> None:
    assert asyncio.run(said(when(how))) == ("it" if how == "it" else "raised raised")


def test_a_future_is_awaited_too() -> None:
    async def run() -> str:
        loop = asyncio.get_running_loop()
        waits, done = loop.create_future(), loop.create_future()
        loop.call_soon(waits.set_result, "later")
        done.set_result("now")
        return await within(60, done) + await within(60, waits)

    assert asyncio.run(run()) == "nowlater"


def test_what_is_there_takes_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[float | None] = []
    timeout = asyncio.timeout
    monkeypatch.setattr(asyncio, "timeout", lambda seconds: made.append(seconds) or timeout(seconds))
    assert asyncio.run(said(at_once("it"))) == "it" and not made
    assert asyncio.run(said(later("it"))) == "it" and made == [60]


def test_what_takes_longer_is_ended() -> None:
    seen: list[str] = []

    async def waits() -> str:
        try:
            return await later("it") + str(await asyncio.sleep(60))
        finally:
            seen.append("ended")

    with pytest.raises(TimeoutError):
        asyncio.run(within(0.01, waits()))
    assert seen == ["ended"]


@pytest.mark.parametrize("waits", [False, True])
def test_a_cancellation_reaches_what_is_awaited_which_may_answer_it(waits: bool) -> None:
    async def run() -> list[str]:
        seen: list[str] = []
        task = asyncio.ensure_future(within(60, stubborn(seen, waits=waits)))
        await asyncio.sleep(0)
        task.cancel()
        return [*seen, await task, *seen]

    assert asyncio.run(run()) == ["all the same", "cancelled"]
