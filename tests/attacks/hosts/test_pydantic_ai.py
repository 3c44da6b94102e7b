"""pydantic-ai as a hostile host: its own runtime, by hand and in parallel, under a model that tries what it can."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic_ai")

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from captoken import current
from captoken.adapters.pydantic_ai import TokenGuard, delegate_to
from tests.longer import times

from .world import ATTACKS, LATE, MAIN, READ, SUB, Attack, Turns, World

ASK = f"ask_{SUB}"


def model(world: World, turns: Turns) -> FunctionModel:
    script = iter(world.turns(turns, ask=(ASK, {"task": "go"})))

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        world.hear(messages)
        return ModelResponse(parts=[ToolCallPart(*call) for call in next(script, ())] or [TextPart("done")])

    return FunctionModel(answer)


def host(world: World, attack: Attack) -> Agent[Any, Any]:
    guard = world.guard()
    sub = Agent(model(world, attack.sub), name=SUB, tools=world.tools, capabilities=[TokenGuard(guard)], retries=20)
    ask = delegate_to(sub, tools=world.handed)
    return Agent(model(world, attack.main), name=MAIN, tools=[*world.tools, ask], capabilities=[TokenGuard(guard)], retries=20)


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_happens_that_no_token_permits(name: str, tmp_path: Path) -> None:
    world, attack = World(tmp_path), ATTACKS[name]
    with current.use(world.token(ASK, attack.uses)):
        asyncio.run(host(world, attack).run("go"))
    world.judge(effects=attack.effects)


def test_what_is_cancelled_has_its_record(tmp_path: Path) -> None:
    world = World(tmp_path)

    with current.use(world.token(ASK)):
        asyncio.run(world.cancel(host(world, LATE).run("go")))
    assert world.trail
    world.judge()


def test_each_call_is_asked_about_once_however_many_runs_there_were(tmp_path: Path) -> None:
    """A guard for each run, over tools and an agent that live longer: for one run alone, and for all."""
    world = World(tmp_path)
    runs = times(100)
    guard = world.guard()
    bare = Agent(model(world, [[READ], []] * runs), name=MAIN, tools=world.tools)

    async def main() -> None:
        for _ in range(runs):
            await bare.run("go", capabilities=[TokenGuard(guard)])

    with current.use(world.token()):
        asyncio.run(main())
    world.judge(effects=runs)
    assert len(world.trail) == runs
