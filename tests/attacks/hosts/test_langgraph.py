"""LangChain's agents and LangGraph as a hostile host: their own runtime, with a loop and without, under a model that tries what it can."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langgraph")
pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import StructuredTool
from langgraph.graph import START, MessagesState, StateGraph

from captoken import current
from captoken.adapters.langchain import TokenGuard, delegate_to
from captoken.tools import ToolGuard
from tests.longer import times

from .world import ATTACKS, LATE, MAIN, READ, SUB, Attack, Turns, World

ASK = f"ask_{SUB}"
GO: dict[str, Any] = {"messages": [HumanMessage("go")]}
_ids = count()


@pytest.fixture(autouse=True)
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2"):
        monkeypatch.setenv(name, "false")


class Heard(GenericFakeChatModel):
    """A scripted model that keeps what it is sent."""

    world: Any

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self

    def _generate(self, messages: Any, *args: Any, **options: Any) -> Any:
        self.world.hear(messages)
        return super()._generate(messages, *args, **options)


def model(world: World, turns: Turns) -> Heard:
    script = world.turns(turns, ask=(ASK, {"task": "go"}))
    said = [AIMessage("", tool_calls=[call(*each) for each in turn]) for turn in script]
    return Heard(world=world, messages=iter([*said, *(AIMessage("done") for _ in range(8))]))


def call(name: str, arguments: Any) -> dict[str, Any]:
    return {"name": name, "args": arguments, "id": f"call-{next(_ids)}", "type": "tool_call"}


def tools(world: World) -> list[Any]:
    made: list[Any] = [StructuredTool.from_function(tool) for tool in (world.read_file, world.write_file, world.run_command)]
    return [*made, StructuredTool.from_function(coroutine=world.write_late)]


def host(world: World, attack: Attack, guard: ToolGuard) -> Any:
    sub = create_agent(model(world, attack.sub), tools(world), name=SUB, middleware=[TokenGuard(guard, agent=SUB)])
    mine = [*tools(world), delegate_to(sub, tools=world.handed)]
    return create_agent(model(world, attack.main), mine, name=MAIN, middleware=[TokenGuard(guard, agent=MAIN)])


@pytest.mark.parametrize("awaited", [False, True], ids=["threads", "loop"])
@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_happens_that_no_token_permits(name: str, awaited: bool, tmp_path: Path) -> None:
    world, attack = World(tmp_path), ATTACKS[name]
    agent = host(world, attack, world.guard())
    with current.use(world.token(ASK, attack.uses)):
        if awaited:
            asyncio.run(agent.ainvoke(GO))
        else:
            agent.invoke(GO)
    world.judge(effects=attack.effects)


def test_what_is_cancelled_has_its_record(tmp_path: Path) -> None:
    world = World(tmp_path)

    with current.use(world.token(ASK)):
        asyncio.run(world.cancel(host(world, LATE, world.guard()).ainvoke(GO)))
    assert world.trail
    world.judge()


def test_each_call_is_asked_about_once_however_many_runs_there_were(tmp_path: Path) -> None:
    """A guard and a graph for each run, over tools that live longer."""
    world = World(tmp_path)
    runs = times(100)
    guard, shared = world.guard(), tools(world)
    (read,) = world.turns([[READ]], ask=(ASK, {}))
    with current.use(world.token()):
        for _ in range(runs):
            graph = StateGraph(MessagesState)
            graph.add_node("tools", TokenGuard(guard, agent=MAIN).node(shared))
            graph.add_edge(START, "tools")
            asked = AIMessage("", tool_calls=[call(*each) for each in read])
            world.hear(graph.compile(name=MAIN).invoke({"messages": [asked]}))
    world.judge(effects=runs)
    assert len(world.trail) == runs
