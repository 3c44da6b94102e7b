"""Google ADK as a hostile host: its own runner, under a model that tries what it can. In an environment of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("google.adk")

from google.adk.agents import LlmAgent
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import InMemoryRunner
from google.adk.tools import FunctionTool
from google.genai import types

from captoken import current
from captoken.adapters.google_adk import TokenGuard, delegate_to
from captoken.tools import ToolGuard
from tests.longer import times

from .world import ATTACKS, LATE, MAIN, READ, SUB, Attack, Turns, World

pytestmark = pytest.mark.filterwarnings("ignore")  # the framework's own


class Scripted(BaseLlm):
    """A scripted model that keeps what it is sent."""

    world: Any
    script: list[Any]

    async def generate_content_async(self, llm_request: Any, stream: bool = False) -> Any:
        self.world.hear(llm_request.model_dump_json(exclude={"tools_dict"}))
        calls = self.script.pop(0) if self.script else []
        parts = [types.Part.from_function_call(name=name, args=args) for name, args in calls] or [types.Part(text="done")]
        yield LlmResponse(content=types.Content(role="model", parts=parts))


def model(world: World, turns: Turns) -> Scripted:
    return Scripted(model="fake", world=world, script=world.turns(turns, ask=(SUB, {"request": "go"})))


def tools(world: World) -> list[Any]:
    return [FunctionTool(tool) for tool in world.tools]


def host(world: World, attack: Attack) -> LlmAgent:
    sub = LlmAgent(name=SUB, model=model(world, attack.sub), tools=tools(world), description="Sells.")
    ask = delegate_to(sub, tools=world.handed)
    return LlmAgent(name=MAIN, model=model(world, attack.main), tools=[*tools(world), ask])


async def run(agent: LlmAgent, guard: ToolGuard, session: str = "s") -> None:
    runner = InMemoryRunner(agent, app_name="desk", plugins=[TokenGuard(guard)])
    await runner.session_service.create_session(app_name="desk", user_id="jane", session_id=session)
    message = types.Content(role="user", parts=[types.Part(text="go")])
    async for _ in runner.run_async(user_id="jane", session_id=session, new_message=message):
        pass


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_happens_that_no_token_permits(name: str, tmp_path: Path) -> None:
    world, attack = World(tmp_path), ATTACKS[name]
    with current.use(world.token(SUB, attack.uses)):
        asyncio.run(run(host(world, attack), world.guard()))
    world.judge(effects=attack.effects)


def test_what_is_cancelled_has_its_record(tmp_path: Path) -> None:
    world = World(tmp_path)

    with current.use(world.token(SUB)):
        asyncio.run(world.cancel(run(host(world, LATE), world.guard())))
    assert world.trail
    world.judge()


def test_each_call_is_asked_about_once_however_many_runs_there_were(tmp_path: Path) -> None:
    """A guard for each run, over tools and an agent that live longer. By the 488th, tools that were wrapped anew had failed."""
    world = World(tmp_path)
    runs = max(500, times(100))
    guard = world.guard()
    lasting = LlmAgent(name=MAIN, model=model(world, [[READ], []] * runs), tools=tools(world))

    async def main() -> None:
        for number in range(runs):
            await run(lasting, guard, f"s{number}")
            world.sent.clear()

    with current.use(world.token()):
        asyncio.run(main())
    world.judge(effects=runs)
    assert len(world.trail) == runs
