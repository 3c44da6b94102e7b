"""One call on its way through a guard: each message is decided on, and a stream ends with its grant."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from captoken import Access
from captoken.adapters.grpc import Guard
from captoken.control import Feed, Operator
from captoken.keys import OperatorKey
from captoken.stores.memory import MemoryLedger, MemorySnapshots
from tests.adapters.over_grpc.test_grpc import HOLD, HR, REFUSED, RULES, SALES, STATUS, Asking, World, aask, aserving, by_table
from tests.fixtures import NOW, clock, mint


def test_each_message_of_a_client_is_decided_on(calls: Asking) -> None:
    world = World()
    refused = (STATUS.PERMISSION_DENIED, REFUSED)
    said = calls(world, ("Chat", [SALES, HR, HOLD, SALES], {"held": mint()}))
    assert said[0][-1] == refused and HR not in world.done and world.done.count(SALES) == 1


def test_a_handler_that_catches_the_refusal_answers_nothing(calls: Asking) -> None:
    world = World()
    assert calls(world, ("Load", [SALES, HR, HOLD, SALES], {"held": mint()})) == [(STATUS.PERMISSION_DENIED, REFUSED)]
    # The client has its answer first, and the server that stops then may cancel the handler before it catches anything.
    assert world.done in ([SALES, "caught"], [SALES])


@pytest.mark.parametrize("given", [[], [HR, HOLD]], ids=["no message", "a message that is refused"])
def test_a_stream_does_not_start_before_a_message_is_permitted(given: Any, calls: Asking) -> None:
    world = World()
    refused = (STATUS.PERMISSION_DENIED, REFUSED)
    assert calls(world, ("Chat", given, {"held": mint()}), ("Load", given, {"held": mint()})) == [(refused,), refused]
    assert world.done == []


def test_a_stream_ends_with_its_grant(calls: Asking) -> None:
    world = World()
    said = calls(world, ("Watch", {"table": "sales", "pause": 40}, {"held": mint()}))
    expired = (STATUS.UNAUTHENTICATED, "The token has expired.")
    assert said == [(["orchestrator", 0], ["orchestrator", 1], expired)]
    assert world.trail.decisions[-1].code == "expired"


def test_a_stream_of_reads_and_writes_is_watched_as_well() -> None:
    """The other style of `grpc.aio`: `context.read` and `context.write`."""
    rules = RULES | {"/shop.Sales/Follow": by_table}

    async def run() -> None:
        world = World()
        async with aserving(world, rules) as target:
            said = await aask(target, "Follow", [SALES, HR, HOLD, SALES], held=mint())
        assert said == (["orchestrator", "sales"], (STATUS.PERMISSION_DENIED, REFUSED))
        assert world.done == ["started", SALES]

    asyncio.run(run())


def test_a_write_asks_whether_the_grant_still_stands() -> None:
    async def run() -> None:
        world = World()
        async with aserving(world) as target:
            late = {"table": "sales", "pause": 70}
            said = await aask(target, "Follow", [SALES, late, HOLD], held=mint())
        assert said == (["orchestrator", "sales"], (STATUS.UNAUTHENTICATED, "The token has expired."))

    asyncio.run(run())


def test_a_stream_that_one_access_judges_is_used_once_and_its_messages_each(calls: Asking) -> None:
    def counted(uses: int) -> dict[str, Any]:
        return {"held": mint(tables=["sales"], operations=["select"], uses=uses)}

    many = [SALES] * 3  # the third is one too many for two uses
    ledger = MemoryLedger(shared=True, floor=NOW - 3600)
    assert calls(World(ledger=ledger), ("Follow", many, counted(1))) == [(["orchestrator", "sales"],) * 3]
    used_up = (STATUS.PERMISSION_DENIED, "The token has too little left for this request.")
    ledger = MemoryLedger(shared=True, floor=NOW - 3600)
    assert calls(World(ledger=ledger), ("Chat", [*many, HOLD], counted(2)))[0][-1] == used_up


@pytest.mark.parametrize("cost", [{"cents": 6}, lambda message: {"cents": message["cents"]}], ids=["always the same", "by message"])
def test_a_call_takes_what_it_costs_of_a_budget(cost: Any, calls: Asking) -> None:
    """In the units that its rule does not state; without it, a token with a budget permits nothing."""
    held = {"held": mint(tables=["sales"], operations=["select"], budget={"cents": 10})}
    used_up, asked = (STATUS.PERMISSION_DENIED, "The token has too little left for this request."), {**SALES, "cents": 6}

    def ledger() -> MemoryLedger:
        return MemoryLedger(shared=True, floor=NOW - 3600)

    for method in ("Read", "Total"):
        call = (method, asked, held)
        assert calls(World(ledger=ledger()), call, cost=cost)[0] == "orchestrator"
        assert calls(World(ledger=ledger()), call, call, cost=cost) == ["orchestrator", used_up]
        assert calls(World(ledger=ledger()), call)[0] == (STATUS.PERMISSION_DENIED, "The server did not state what the request costs.")
    stated = {"/shop.Sales/Total": Access(table="sales", operation="select", cost={"cents": 11})}
    assert calls(World(ledger=ledger()), ("Total", asked, held), rules=stated, cost={"cents": 0}) == [used_up]
    with pytest.raises(TypeError, match="cost"):
        Guard(World().verifier, RULES, cost={"cents": None})  # type: ignore[dict-item]


def test_an_overlay_that_narrows_ends_a_stream_too(calls: Asking) -> None:
    store, key = MemorySnapshots(), OperatorKey.generate()
    operator = Operator(key, store, by="operator", clock=clock())
    operator.renew()
    world = World(overlay=Feed(store, [key.public], every=0, clock=clock()))
    world.between = lambda: operator.narrow(task="task-123", tables=["market.*"], operations=["select"], why="too much")
    said = calls(world, ("Watch", SALES, {"held": mint()}))
    assert said == [(["orchestrator", 0], (STATUS.PERMISSION_DENIED, REFUSED))]
    assert world.trail.decisions[-1].code == "narrowed"
