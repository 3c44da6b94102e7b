"""openai-agents as a hostile host: its own runner, under a model that tries what it can."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("agents")

from agents import Agent, Runner, function_tool, set_trace_processors, set_tracing_disabled
from agents.testing import ScriptedModel, assistant_message, function_call

from captoken import current
from captoken.adapters.openai_agents import GuardedAgent, delegate_to, guarded
from captoken.tools import ToolGuard
from tests.longer import times

from .world import ATTACKS, LATE, MAIN, READ, SUB, Attack, Turns, World

ASK = f"ask_{SUB}"
_ids = count()


@pytest.fixture(autouse=True)
def untraced() -> Iterator[None]:
    set_trace_processors([])  # the one that is there by default sends traces to the network
    set_tracing_disabled(True)
    yield
    set_trace_processors([])


class Heard(ScriptedModel):
    """A scripted model that keeps what it is sent."""

    world: World

    async def get_response(self, *args: Any, **options: Any) -> Any:
        self.world.hear((args, options))
        return await super().get_response(*args, **options)


def model(world: World, turns: Turns) -> Heard:
    script = world.turns(turns, ask=(ASK, {"task": "go"}))
    steps: list[Any] = [[function_call(*call, call_id=f"call-{next(_ids)}") for call in turn] for turn in script]
    made = Heard([*steps, *([assistant_message("done")] for _ in range(8))])
    made.world = world
    return made


def tools(world: World) -> list[Any]:
    return [function_tool(tool) for tool in world.tools]


def host(world: World, attack: Attack, guard: ToolGuard) -> GuardedAgent:
    sub = guarded(Agent(name=SUB, model=model(world, attack.sub), tools=tools(world)), guard)
    ask = delegate_to(sub, tools=world.handed)
    return guarded(Agent(name=MAIN, model=model(world, attack.main), tools=[*tools(world), ask]), guard)


def drive(world: World, attack: Attack) -> None:
    with current.use(world.token(ASK, attack.uses)):
        try:
            asyncio.run(Runner.run(host(world, attack, world.guard()), "go"))
        except Exception as error:  # a tool that is not there ends a run of this framework
            world.errors.append(error)


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_happens_that_no_token_permits(name: str, tmp_path: Path) -> None:
    world, attack = World(tmp_path), ATTACKS[name]
    drive(world, attack)
    world.judge(effects=attack.effects)
    assert all("not found" in str(error) for error in world.errors)


def test_what_is_cancelled_has_its_record(tmp_path: Path) -> None:
    world = World(tmp_path)

    with current.use(world.token(ASK)):
        asyncio.run(world.cancel(Runner.run(host(world, LATE, world.guard()), "go")))
    assert world.trail
    world.judge()


def test_each_call_is_asked_about_once_however_many_runs_there_were(tmp_path: Path) -> None:
    """A guarded agent for each run, over tools that live longer, and one that is guarded once more by assigning its tools."""
    world = World(tmp_path)
    runs = times(100)
    guard, shared = world.guard(), tools(world)
    lasting = guarded(Agent(name=MAIN, model=model(world, ()), tools=shared), guard)

    async def main() -> None:
        for number in range(runs):
            one = lasting if number % 2 else guarded(Agent(name=MAIN, tools=shared), guard)
            one.model = model(world, [[READ]])
            one.tools = list(one.tools)
            await Runner.run(one, "go")

    with current.use(world.token()):
        asyncio.run(main())
    world.judge(effects=runs)
    assert len(world.trail) == runs
