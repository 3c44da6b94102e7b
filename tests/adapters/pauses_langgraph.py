"""LangGraph, for tests of pauses: a checkpointer keeps the graph's state, and a graph that is built anew goes on with it."""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command

from captoken.adapters.langchain import TokenGuard, requests_of
from tests.adapters.consents import AGENT, Call, Desk, Stopped


class Model(GenericFakeChatModel):
    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


def saying(calls: tuple[Call, ...]) -> Any:
    said = [{"name": name, "args": arguments, "id": call_id} for call_id, name, arguments in calls]
    return Model(messages=iter([*([AIMessage("", tool_calls=said)] if said else []), *[AIMessage("done")] * 9]))


class InANode:
    """A graph with a node of `TokenGuard.node`."""

    def __init__(self, desk: Desk, *, pause: bool = True) -> None:
        self.desk, self.pause = desk, pause
        self.saver = vars(desk).setdefault("saver", InMemorySaver())

    def graph(self, *calls: Call) -> Any:
        model, guard = saying(calls), TokenGuard(self.desk.guard, agent=AGENT, pause=self.pause)
        graph = StateGraph(MessagesState)
        graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
        graph.add_node("tools", guard.node([tool(one) for one in (self.desk.lookup, self.desk.mail, self.desk.refund)]))
        graph.add_edge(START, "model")
        graph.add_conditional_edges("model", lambda state: "tools" if state["messages"][-1].tool_calls else END, ["tools", END])
        graph.add_edge("tools", "model")
        return graph.compile(checkpointer=self.saver)

    def begin(self, *calls: Call) -> Stopped:
        number = vars(self.desk)["threads"] = vars(self.desk).get("threads", 0) + 1
        config = {"configurable": {"thread_id": f"t{number}"}}
        return self._stopped(self.graph(*calls), {"messages": [("user", "go")]}, config)

    def go_on(self, stored: Any, *, no: tuple[str, ...] = ()) -> Stopped:
        graph = self.graph()
        paused = graph.get_state(stored).interrupts
        answers = {one.id: dict.fromkeys(no, False) for one in paused}
        return self._stopped(graph, Command(resume=answers), stored)

    def _stopped(self, graph: Any, given: Any, config: Any) -> Stopped:
        result = graph.invoke(given, config)
        told = {one.tool_call_id: str(one.content) for one in result["messages"] if one.type == "tool"}
        return Stopped(graph.get_state(config).config, requests_of(result), told)


class InAnAgent(InANode):
    """An agent of `create_agent`, which runs each call as a task of its own."""

    def graph(self, *calls: Call) -> Any:
        guard = TokenGuard(self.desk.guard, agent=AGENT, pause=self.pause)
        tools = [tool(one) for one in (self.desk.lookup, self.desk.mail, self.desk.refund)]
        return create_agent(saying(calls), tools, name=AGENT, middleware=[guard], checkpointer=self.saver)
