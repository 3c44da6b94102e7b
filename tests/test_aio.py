"""The verifier for asyncio decides as the plain one does, and never more often."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from captoken._verification.aio import AsyncVerifier

from captoken import Access, Denied
from captoken.stores.memory import MemoryLedger
from tests.world import SALES, data, mint, verifier


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


def test_it_decides_as_the_plain_one_does() -> None:
    plain = verifier()
    text = mint().delegate(to="sales-agent", tables=["sales"]).serialize()

    async def ask() -> None:
        one = AsyncVerifier(plain)
        for access in (data("sales"), data("hr"), data("sales", "update")):
            assert (await one.check(text, access)).code == plain.check(text, access).code
        grant = await one.authenticate(text)
        assert grant.grant.actor.name == "sales-agent" and await grant.authorize(data("sales")) is grant
        assert (await grant.check(data("hr"))).code == "table"
        assert (await one.authorize(text, data("sales"))).grant.task == "task-123"
        assert await one.explain(text, data("sales")) and (await grant.explain(data("hr"))).code == "table"
        assert await grant.recheck() and await grant.check_all([data("sales"), data("sales")])
        with pytest.raises(Denied):
            await one.authorize(text, data("hr"))

    run(ask())


def test_a_reservation_is_settled_or_cancelled() -> None:
    ledger = MemoryLedger(floor=0, shared=True)
    token = mint(**SALES, budget={"cents": 10})
    access = Access(table="sales", operation="select", cost={"cents": 10})

    async def spend() -> None:
        grant = await AsyncVerifier(verifier(ledger=ledger)).authenticate(token)
        reserved = await grant.reserve(access)
        assert not await grant.check(access) and await reserved.cancel() and not await reserved.cancel()
        async with await grant.reserve(access) as reserved:
            assert await reserved.settle({"cents": 4})
        with pytest.raises(KeyError):
            async with await grant.reserve(Access(table="sales", operation="select", cost={"cents": 6})):
                raise KeyError
        with pytest.raises(Denied):
            await grant.reserve(Access(table="sales", operation="select", cost={"cents": 1}))

    run(spend())


def test_of_200_tasks_with_some_cancelled_never_more_than_the_limit_are_allowed() -> None:
    """Each of 200 asks at once for one of 50 uses, and every third is cancelled: at most 50 are told yes."""
    ledger = MemoryLedger(floor=0, shared=True)
    text = mint(**SALES, uses=50).serialize()

    async def race() -> int:
        one = AsyncVerifier(verifier(ledger=ledger))
        tasks = [asyncio.create_task(one.check(text, data("sales"))) for _ in range(200)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        return sum(bool(answer) for answer in answers if not isinstance(answer, BaseException))

    allowed = run(race())
    assert 0 < allowed <= 50 and not verifier(ledger=ledger).check(text, data("sales"))
