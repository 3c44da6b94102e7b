"""A sub-agent whose call wants a consent: what pauses is the run of whoever handed it the task. (38 of the pauses)

Where a framework cannot do so, the test says what happens in its place.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command
from pydantic_ai import Agent, DeferredToolRequests, ToolDenied
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from captoken.adapters import langchain, pydantic_ai
from captoken.errors import GuardError
from tests.adapters.consents import AGENT, LOOKUP, MAIL, REFUND, Call, Desk
from tests.adapters.pauses_langgraph import saying
from tests.adapters.pauses_openai import OpenAIAgents

ASK: Call = ("call-9", "ask_clerk", {"task": "tell Ann"})
BELOW = (LOOKUP, MAIL)


@pytest.fixture
def desk() -> Desk:
    return Desk()


# --- pydantic-ai ------------------------------------------------------------------------------------------------------


def function_model(*calls: Call) -> FunctionModel:
    said = [ToolCallPart(name, arguments, tool_call_id=call_id) for call_id, name, arguments in calls]

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        done = any(isinstance(message, ModelResponse) for message in messages)
        return ModelResponse([TextPart("done")] if done else said)

    return FunctionModel(model)


def boss(desk: Desk, output: Any = (str, DeferredToolRequests)) -> Agent[None, Any]:
    """An agent that hands its task to a clerk, both built anew."""
    clerk: Agent[None, Any] = Agent(
        function_model(*BELOW), name="clerk", output_type=[str, DeferredToolRequests], tools=[desk.lookup, desk.mail],
        capabilities=[pydantic_ai.TokenGuard(desk.guard, pause=True)],
    )  # fmt: skip
    return Agent(
        function_model(ASK), name=AGENT, output_type=list(output), tools=[pydantic_ai.delegate_to(clerk)],
        capabilities=[pydantic_ai.TokenGuard(desk.guard)],
    )  # fmt: skip


def stopped(desk: Desk) -> tuple[bytes, DeferredToolRequests]:
    with desk.using([]):
        result = asyncio.run(boss(desk).run("go"))
    assert isinstance(result.output, DeferredToolRequests) and [one.tool_name for one in result.output.approvals] == ["ask_clerk"]
    return result.all_messages_json(), result.output


def went_on(desk: Desk, history: bytes, results: Any, consents: list[str]) -> Any:
    with desk.using(consents):
        messages = ModelMessagesTypeAdapter.validate_json(history)
        return asyncio.run(boss(desk).run(message_history=messages, deferred_tool_results=results))


def test_pydantic_ai_pauses_the_caller_and_the_sub_agent_begins_anew_with_the_consent(desk: Desk) -> None:
    history, paused = stopped(desk)
    (asked,) = pydantic_ai.requests_of(paused)
    assert (asked["id"], asked["tool"]) == ("call-2", "mail") and desk.jane.read(asked["request"]).agent == "clerk"
    assert b"cap1" not in history and desk.count("mail") == 0
    again = went_on(desk, history, paused.build_results(approve_all=True), [])
    assert isinstance(again.output, DeferredToolRequests) and desk.count("mail") == 0, "a yes in the framework is no consent"
    consents = desk.yes(asked)
    for _ in range(2):
        done = went_on(desk, history, paused.build_results(approve_all=True), consents)
    assert desk.count("mail") == 1 and isinstance(done.output, str | DeferredToolRequests)


def test_pydantic_ai_runs_no_sub_agent_that_a_person_said_no_to(desk: Desk) -> None:
    history, paused = stopped(desk)
    results = paused.build_results(approvals={"call-9": ToolDenied("no")})
    assert went_on(desk, history, results, desk.yes(*pydantic_ai.requests_of(paused))).output == "done"
    assert desk.count("mail") == 0


def test_pydantic_ai_says_so_where_the_caller_cannot_pause(desk: Desk) -> None:
    with desk.using([]), pytest.raises(GuardError, match="waits for a person"):
        asyncio.run(boss(desk, output=(str,)).run("go"))


# --- LangGraph --------------------------------------------------------------------------------------------------------


def clerk_of(desk: Desk) -> Any:
    own = langchain.TokenGuard(desk.guard, agent="clerk", pause=True)
    clerk = create_agent(saying(BELOW), [tool(desk.lookup), tool(desk.mail)], name="clerk", middleware=[own])
    return langchain.delegate_to(clerk)


def graph_of(desk: Desk, saver: Any, *calls: Call) -> Any:
    guard = langchain.TokenGuard(desk.guard, agent=AGENT)
    return create_agent(saying(calls), [clerk_of(desk)], name=AGENT, middleware=[guard], checkpointer=saver)


CONFIG: Any = {"configurable": {"thread_id": "t"}}


@pytest.mark.parametrize("loop", [False, True])
def test_create_agent_pauses_the_caller_and_the_sub_agent_begins_anew_with_the_consent(desk: Desk, loop: bool) -> None:
    saver = InMemorySaver()

    def run(graph: Any, given: Any) -> Any:
        return asyncio.run(graph.ainvoke(given, CONFIG)) if loop else graph.invoke(given, CONFIG)

    with desk.using([]):
        paused = run(graph_of(desk, saver, ASK), {"messages": [("user", "go")]})
        (asked,) = langchain.requests_of(paused)
        assert (asked["tool"], desk.jane.read(asked["request"]).agent) == ("mail", "clerk")
        again = run(graph_of(desk, saver), Command(resume=True))
        assert langchain.requests_of(again)[0]["tool"] == "mail" and desk.count("mail") == 0, "a yes in the framework is no consent"
    with desk.using(desk.yes(asked)):
        done = run(graph_of(desk, saver), Command(resume=True))
    assert langchain.requests_of(done) == [] and done["messages"][-1].content == "done" and desk.count("mail") == 1
    assert "cap1" not in repr(list(saver.list(CONFIG)))


@pytest.mark.parametrize("no", [False, {"call-2": False}])
def test_create_agent_runs_no_sub_agent_that_a_person_said_no_to(desk: Desk, no: Any) -> None:
    saver = InMemorySaver()
    with desk.using([]):
        paused = graph_of(desk, saver, ASK).invoke({"messages": [("user", "go")]}, CONFIG)
    with desk.using(desk.yes(*langchain.requests_of(paused))):
        done = graph_of(desk, saver).invoke(Command(resume=no), CONFIG)
    assert desk.count("mail") == 0 and any("said no" in str(one.content) for one in done["messages"])


def test_a_node_says_so_for_it_would_run_the_other_calls_again(desk: Desk) -> None:
    guard = langchain.TokenGuard(desk.guard, agent=AGENT, pause=True)
    node = guard.node([clerk_of(desk), tool(desk.refund)])
    graph = StateGraph(MessagesState).add_node("tools", node).add_edge(START, "tools").compile(checkpointer=InMemorySaver())
    with desk.using([]), pytest.raises(GuardError, match="waits for a person"):
        graph.invoke({"messages": [AIMessage("", tool_calls=[{"name": ASK[1], "args": ASK[2], "id": ASK[0]}])]}, CONFIG)
    assert desk.count("mail") == 0


# --- openai-agents ----------------------------------------------------------------------------------------------------


def test_openai_agents_says_so_for_a_tool_cannot_stop_the_run_that_calls_it(desk: Desk) -> None:
    """It asks for approvals before a tool runs, and the sub-agent has not run then."""
    import json

    from agents import Agent as Plain
    from agents import Runner
    from agents.testing import ScriptedModel, assistant_message, function_call

    from captoken.adapters.openai_agents import delegate_to, guarded

    clerk = OpenAIAgents(desk).agent(*BELOW)
    clerk.name = "clerk"
    model = ScriptedModel([[function_call(ASK[1], json.dumps(ASK[2]), call_id=ASK[0])], [assistant_message("done")]])
    caller = guarded(Plain(name=AGENT, model=model, tools=[delegate_to(clerk)]), desk.guard, pause=True)
    with desk.using([]), pytest.raises(Exception, match="waits for an approval"):
        asyncio.run(Runner.run(caller, "go"))
    assert desk.count("mail") == desk.count("refund") == 0 and REFUND[1] == "refund"
