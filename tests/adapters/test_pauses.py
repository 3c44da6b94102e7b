"""A framework's own pause, where a call wants a person's consent: one set of claims for all frameworks.

What the model calls: a look-up that needs no consent, a mail and a refund that each need one. All stand in one message.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt.tool_node import ToolNode
from langgraph.types import Command, interrupt
from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults, ToolApproved
from pydantic_ai.messages import ModelMessagesTypeAdapter

from captoken import AsyncVerifier, Verifier
from captoken.adapters import langchain
from captoken.adapters._agents.handing import handed_on
from captoken.adapters._agents.pausing import is_no
from captoken.adapters.langchain import TokenGuard as LangGuard
from captoken.adapters.pydantic_ai import TokenGuard as PydanticGuard
from captoken.adapters.pydantic_ai import requests_of
from captoken.audit import AuditTrail
from captoken.consent import Approver, ApproverKey
from captoken.errors import ConsentError, GuardError
from captoken.stores.memory import MemoryReplayStore
from captoken.tools import ToolGuard
from tests.adapters.consents import AGENT, LOOKUP, MAIL, REFUND, Desk
from tests.adapters.pauses_langgraph import InAnAgent, InANode
from tests.adapters.pauses_openai import OpenAIAgents
from tests.adapters.pauses_pydantic_ai import PydanticAI

FRAMEWORKS = [OpenAIAgents, PydanticAI, InANode, InAnAgent]


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture(params=FRAMEWORKS, ids=lambda kind: kind.__name__)
def framework(request: pytest.FixtureRequest, desk: Desk) -> Any:
    return request.param(desk)


def test_one_pause_names_all_calls_that_want_a_consent(framework: Any, desk: Desk) -> None:
    with desk.using([]):
        stopped = framework.begin(LOOKUP, MAIL, REFUND)
    assert {one["id"]: one["tool"] for one in stopped.waiting} == {"call-2": "mail", "call-3": "refund"}
    shown = desk.jane.read(stopped.of("mail")["request"])
    assert [facts["arguments"] for facts in shown.accesses] == [MAIL[2]] and shown.audience == "desk"
    assert desk.count("mail") == desk.count("refund") == 0


def test_with_the_consents_each_call_runs_once(framework: Any, desk: Desk) -> None:
    with desk.using([]):
        stopped = framework.begin(LOOKUP, MAIL, REFUND)
    with desk.using(desk.yes(*stopped.waiting)):
        done = type(framework)(desk).go_on(stopped.stored)
    assert done.waiting == [] and sorted(tool for tool, _ in desk.ran) == ["lookup", "mail", "refund"]
    assert ("mail", MAIL[2]) in desk.ran and ("refund", REFUND[2]) in desk.ran


def test_nothing_waits_where_no_consent_is_wanted_or_all_are_there(framework: Any, desk: Desk) -> None:
    with desk.using([]):
        assert framework.begin(LOOKUP).waiting == []
        stopped = framework.begin(MAIL)
    with desk.using(desk.yes(*stopped.waiting)):
        assert framework.begin(MAIL).waiting == []
    assert [tool for tool, _ in desk.ran] == ["lookup", "mail"]


def test_a_stored_state_that_is_resumed_twice_runs_no_consented_call_twice(framework: Any, desk: Desk) -> None:
    """LangGraph goes back to a checkpoint by running what came after it: calls that need no consent, too."""
    with desk.using([]):
        stopped = framework.begin(LOOKUP, MAIL, REFUND)
    consents = desk.yes(*stopped.waiting)
    for _ in range(3):
        with desk.using(consents):
            type(framework)(desk).go_on(stopped.stored)
    assert desk.count("mail") == desk.count("refund") == 1 and (desk.count("lookup") == 1 or isinstance(framework, InANode))


def test_a_yes_in_the_framework_is_no_consent(framework: Any, desk: Desk) -> None:
    with desk.using([]):
        stopped = framework.begin(LOOKUP, MAIL)
        again = framework.go_on(stopped.stored)
    assert desk.count("mail") == 0 and desk.count("lookup") <= 1
    assert again.waiting or "consent" in again.told["call-2"]


def test_a_consent_to_one_call_runs_that_one_alone(framework: Any, desk: Desk) -> None:
    with desk.using([]):
        stopped = framework.begin(MAIL, REFUND)
    with desk.using(desk.yes(stopped.of("refund"))):
        framework.go_on(stopped.stored, no=("call-2",))
    assert desk.ran == [("refund", REFUND[2])]


def test_a_person_who_says_no_is_not_asked_again(framework: Any, desk: Desk) -> None:
    with desk.using([]):
        stopped = framework.begin(LOOKUP, MAIL)
        done = framework.go_on(stopped.stored, no=("call-2",))
    assert done.waiting == [] and desk.count("mail") == 0


def test_a_no_is_a_no_where_a_consent_to_the_same_call_is_shown(framework: Any, desk: Desk) -> None:
    with desk.using([]):
        stopped = framework.begin(LOOKUP, MAIL, REFUND)
    with desk.using(desk.yes(*stopped.waiting)):
        done = framework.go_on(stopped.stored, no=("call-2",))
    assert done.waiting == [] and desk.count("mail") == 0 and desk.count("refund") == 1


def test_a_consent_that_is_late_runs_nothing(framework: Any, desk: Desk) -> None:
    with desk.using([]):
        stopped = framework.begin(MAIL)
    consents = desk.yes(*stopped.waiting, expires_in=60)
    desk.clock.seconds += 60
    with desk.using(consents):
        framework.go_on(stopped.stored)
    assert desk.ran == []


def test_a_consent_of_somebody_else_runs_nothing(framework: Any, desk: Desk) -> None:
    with desk.using([]):
        stopped = framework.begin(MAIL)
    with pytest.raises(ConsentError, match="another key"):
        Approver(ApproverKey.generate(), clock=desk.clock).consent(stopped.of("mail")["request"])
    other = Desk()
    with other.using([]):
        asked = type(framework)(other).begin(MAIL)
    with desk.using(other.yes(*asked.waiting)):
        framework.go_on(stopped.stored)
    assert desk.ran == []


def test_what_is_stored_has_no_part_of_a_token(framework: Any, desk: Desk) -> None:
    with desk.using([]) as held:
        stopped = framework.begin(LOOKUP, MAIL)
        text, shown = desk.token.serialize(), held.present(audience="desk")
    stored = repr((stopped.stored, stopped.waiting))
    assert "cap1" not in stored and text[40:80] not in stored and shown[-40:] not in stored


def test_another_token_below_the_asking_link_will_do(framework: Any, desk: Desk) -> None:
    """After a restart the process gets its token as it did at first: it need not be the same one."""
    with desk.using([]):
        stopped = framework.begin(MAIL)
    narrowed = desk.token.attenuate(tools={"mail": {}}, expires_in=60)
    with desk.using(desk.yes(*stopped.waiting), narrowed):
        framework.go_on(stopped.stored)
    assert desk.count("mail") == 1
    with desk.using(desk.yes(*stopped.waiting), desk.minted(consent=desk.asks)):
        framework.go_on(stopped.stored)
    assert desk.count("mail") == 1, "the consent was to another token's link"


def test_without_a_pause_the_model_is_told(desk: Desk, framework: Any) -> None:
    with desk.using([]):
        done = type(framework)(desk, pause=False).begin(LOOKUP, MAIL)
    assert done.waiting == [] and desk.count("mail") == 0 and desk.count("lookup") == 1
    assert "a person has to consent" in done.told["call-2"]


# --- what each framework has of its own -------------------------------------------------------------------------------


def test_a_pydantic_ai_agent_that_cannot_pause_is_refused_when_it_is_built(desk: Desk) -> None:
    for output in (str, [str, bool], str | bool):
        with pytest.raises(GuardError, match="add DeferredToolRequests"):
            Agent("test", name=AGENT, output_type=output, capabilities=[PydanticGuard(desk.guard, pause=True)])
    for output in ([str, DeferredToolRequests], str | DeferredToolRequests):
        made = Agent("test", name=AGENT, output_type=output, capabilities=[PydanticGuard(desk.guard, pause=True)])
        assert made.name == AGENT


def test_arguments_that_an_approval_puts_in_place_of_those_consented_to_run_nothing(desk: Desk) -> None:
    framework = PydanticAI(desk)
    with desk.using([]):
        stopped = framework.begin(MAIL)
    history, _ = stopped.stored
    results = DeferredToolResults(approvals={"call-2": ToolApproved(override_args={"to": "eve@example.org", "text": "x"})})
    with desk.using(desk.yes(*stopped.waiting)):
        messages = ModelMessagesTypeAdapter.validate_json(history)
        done = asyncio.run(framework.agent().run(message_history=messages, deferred_tool_results=results))
    assert desk.ran == [] and requests_of(done.output)[0]["tool"] == "mail"


def test_a_node_of_langgraph_s_own_is_refused_where_a_call_wants_a_consent(desk: Desk) -> None:
    """It would run the other calls of the message again, each time that the graph goes on."""
    guard = LangGuard(desk.guard, agent=AGENT, pause=True)
    node = ToolNode([tool(desk.lookup), tool(desk.mail)], wrap_tool_call=guard.wrap_tool_call, handle_tool_errors=False)
    graph = StateGraph(MessagesState).add_node("tools", node).add_edge(START, "tools").compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    with desk.using([]), pytest.raises(GuardError, match=r"make it with TokenGuard\.node"):
        graph.invoke({"messages": [AIMessage("", tool_calls=[{"name": "mail", "args": MAIL[2], "id": "call-2"}])]}, config)
    assert desk.ran == []


def test_a_node_takes_all_that_a_tool_node_takes(desk: Desk) -> None:
    """State as a dict, an object or a list, and calls that are sent to it."""
    call: Any = {"name": "lookup", "args": LOOKUP[2], "id": "call-1", "type": "tool_call"}
    message = AIMessage("", tool_calls=[call])
    for given, found in (
        ({"messages": [message]}, 1), (SimpleNamespace(messages=[message]), 1), ([message], 1), ([call], 1), ([], 0),
        ({"__type": "tool_call_with_context", "tool_call": call, "state": {}}, 1), ({"messages": []}, 0), ({"messages": ["x"]}, 0),
    ):  # fmt: skip
        assert len(langchain._calls_in(given, "messages")) == found


@pytest.mark.parametrize("kind", [InANode, InAnAgent])
def test_an_answer_to_a_tool_of_its_own_is_no_word_on_a_consent(kind: Any, desk: Desk) -> None:
    """A tool that stops the graph itself, and is told False, hears it."""
    framework = kind(desk)
    heard: list[Any] = []

    def lookup(order: str) -> str:
        """Look up an order."""
        heard.append(interrupt("sure?"))
        return order

    desk.lookup = lookup  # type: ignore[method-assign]
    with desk.using([]):
        stopped = framework.begin(LOOKUP)
        graph = framework.graph()
        graph.invoke(Command(resume={graph.get_state(stopped.stored).interrupts[0].id: False}), stopped.stored)
    assert heard == [False]


@pytest.mark.parametrize("kind", [InANode, InAnAgent])
def test_in_an_event_loop_too(kind: Any, desk: Desk) -> None:
    framework = kind(desk)

    async def run() -> None:
        config: Any = {"configurable": {"thread_id": "loop"}}
        with desk.using([]):
            paused = await framework.graph(LOOKUP, MAIL, REFUND).ainvoke({"messages": [("user", "go")]}, config)
        waiting = langchain.requests_of(paused)
        with desk.using(desk.yes(*waiting)):
            state = await framework.graph().aget_state(config)
            done = await framework.graph().ainvoke(Command(resume={one.id: True for one in state.interrupts}), config)
        assert langchain.requests_of(state) == waiting and done["messages"][-1].content == "done"

    asyncio.run(run())
    assert sorted(tool for tool, _ in desk.ran) == ["lookup", "mail", "refund"]


def test_what_a_sub_agent_is_handed_asks_for_consents_and_they_are_good_when_it_runs_again(desk: Desk) -> None:
    """The link that asks stands above the hand-over, which is another one each time."""
    desk.token = desk.minted()
    with desk.using([]) as held:
        first, second = (handed_on(held, "clerk", {"tools": {"mail": {}}, "consent": desk.asks}) for _ in range(2))
        assert first.secret_text != second.secret_text
        asked = desk.guard.request("mail", MAIL[2], agent="clerk", held=first)
    assert asked is not None and desk.guard.request("mail", MAIL[2], agent="clerk", held=second) is not None
    given = second.with_consents([desk.jane.consent(asked)])
    assert [desk.guard.check("mail", MAIL[2], agent="clerk", held=given).code for _ in range(2)] == ["allowed", "replayed"]
    with desk.using([desk.jane.consent(asked)]) as held:
        third = handed_on(held, "clerk", {"consent": desk.asks})
    assert third.consents == held.consents


def test_a_look_spends_nothing_and_records_nothing(desk: Desk) -> None:
    told: list[bytes] = []
    verifier = Verifier(desk.keyring, "desk", clock=desk.clock, replays=MemoryReplayStore(floor=0), audit=AuditTrail(told.append))
    guard = ToolGuard(verifier)
    with desk.using([]):
        asked = guard.request("mail", MAIL[2], agent=AGENT)
        assert guard.request("lookup", LOOKUP[2]) is None, "it is allowed"
        assert guard.request("mail", {"to": float("nan")}) is None and guard.request("mail", MAIL[2], agent="\n") is None
        assert guard.request("mail", MAIL[2], agent="other") is None, "no consent would let it through"
    assert guard.request("mail", MAIL[2]) is None, "nothing is held"
    assert told == [] and asked is not None
    with desk.using([desk.jane.consent(asked)]):
        assert guard.request("mail", MAIL[2]) is None and guard.check("mail", MAIL[2]).code == "allowed"


def test_a_look_awaits_an_async_verifier(desk: Desk) -> None:
    guard = ToolGuard(AsyncVerifier(desk.keyring, "desk", clock=desk.clock, replays=MemoryReplayStore(floor=0)))

    async def run() -> None:
        with desk.using([]):
            assert await guard.request_async("lookup", LOOKUP[2]) is None
            assert await guard.request_async("mail", {"to": float("nan")}) is None
            asked = await guard.request_async("mail", MAIL[2], agent=AGENT)
        assert desk.jane.read(asked or "").agent == AGENT

    asyncio.run(run())


@pytest.mark.parametrize(("answer", "no"), [(False, True), (True, False), (None, False), ({"a": False}, True), ({"b": False}, False), (0, False)])
def test_a_no_is_said_in_one_way(answer: Any, no: bool) -> None:
    assert is_no(answer, "a") is no
