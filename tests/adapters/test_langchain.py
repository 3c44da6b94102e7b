"""LangChain agents and LangGraph graphs under the guard, with fake models: the shared story, and what else can go wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, HumanInTheLoopMiddleware, ToolRetryMiddleware
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolRuntime
from pydantic import AnyUrl, BaseModel, ConfigDict, Field, SecretStr, field_serializer, field_validator, v1

from captoken import Access, CaptokenError, Decision, Denied, Issuer, Token, TokenFormatError, TokenSet, Verifier, current
from captoken._verification.mistakes import mistake
from captoken.adapters.langchain import TokenGuard, delegate_to
from captoken.current import Held
from captoken.errors import GuardError, NoToken
from captoken.keys import HolderKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from captoken.tools import ToolGuard
from tests.adapters import story
from tests.fixtures import KEYRING, NOW, clock


@pytest.fixture(autouse=True)
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2"):
        monkeypatch.setenv(name, "false")


class Fake(GenericFakeChatModel):
    """LangChain's fake model; it also lets tools be bound to it."""

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self


def model(*messages: Any) -> Fake:
    """A model that says these, one after the other; a list of calls is what it wants to call."""
    said = [AIMessage("", tool_calls=m) if isinstance(m, list) else AIMessage(m) for m in messages]
    return Fake(messages=iter(said))


def call(name: str, id: str = "1", **args: Any) -> dict[str, Any]:
    return {"name": name, "args": args, "id": id, "type": "tool_call"}


class Trail:
    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def record(self, decision: Decision) -> None:
        self.decisions.append(decision)


class World:
    def __init__(self, **facts: Any) -> None:
        self.trail, self.desk = Trail(), story.Desk()
        self.verifier = Verifier(KEYRING, clock=clock(), audit=self.trail, **facts)
        self.guard = ToolGuard(self.verifier)

    def tools(self, *names: str) -> list[BaseTool]:
        return [StructuredTool.from_function(getattr(self.desk, name)) for name in names]

    def agent(self, name: str, says: Fake, tools: Sequence[BaseTool], **options: Any) -> Any:
        middleware = [*options.pop("middleware", ()), TokenGuard(self.guard, agent=name)]
        return create_agent(says, tools, name=name, middleware=middleware, **options)

    @property
    def codes(self) -> list[str]:
        return [decision.code for decision in self.trail.decisions]


def root(**tools: Any) -> Token:
    issuer = Issuer(KEYRING, clock=clock())
    return issuer.mint(subject=story.SUBJECT, agent=story.ORCHESTRATOR, task=story.TASK, tools=tools or story.ROOT_TOOLS)


def invoke(agent: Any, text: str = "go", **options: Any) -> list[AnyMessage]:
    answer: list[AnyMessage] = agent.invoke({"messages": [HumanMessage(text)]}, **options)["messages"]
    return answer


def ainvoke(agent: Any, text: str = "go", **options: Any) -> list[AnyMessage]:
    answer: list[AnyMessage] = asyncio.run(agent.ainvoke({"messages": [HumanMessage(text)]}, **options))["messages"]
    return answer


def stream(agent: Any, text: str = "go", **options: Any) -> list[AnyMessage]:
    *_, last = agent.stream({"messages": [HumanMessage(text)]}, stream_mode="values", **options)
    answer: list[AnyMessage] = last["messages"]
    return answer


RUNS = {"sync": invoke, "async": ainvoke, "stream": stream}
each_run = pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
Run = Callable[..., list[AnyMessage]]


def order(pieces: int = 0, note: str = "") -> str:
    """Order so many."""
    return str(pieces)


@each_run
def test_limits_are_told_where_the_guard_says_so(run: Run) -> None:
    """And an argument that is missing is not named if only the token has it."""
    for tell in (True, False):
        world = World()
        world.guard = ToolGuard(world.verifier, tell_limits=tell)
        tool = StructuredTool.from_function(order)
        said = []
        for rule in ({"pieces": {"min": 1, "max": 9}, "note": {"any": True}}, {"pieces": {"any": True}, "note": {"any": True}, "more": {"any": True}}):
            one = world.agent(story.ORCHESTRATOR, model([call("order", pieces=10, note="x")], "done"), [tool])
            with current.use(root(order=rule)):
                said += results(run(one))
        limits, missing = said
        assert ("from 1 to 9" in limits.text) is tell and "`pieces`" in limits.text and "`more`" not in missing.text


def results(messages: Sequence[AnyMessage]) -> list[ToolMessage]:
    return [message for message in messages if isinstance(message, ToolMessage)]


# --- the story -------------------------------------------------------------------------------------------------------


def sub_agent(world: World, name: str) -> Any:
    """A sub-agent whose model does its work; that of filings-agent then obeys what it has read."""
    tool_name, arguments, _ = story.WORK[name]
    turns: list[Any] = [[call(tool_name, **arguments)]]
    if name == "filings-agent":
        turns.append([call(tried, str(at), **what) for at, (tried, what, _, _) in enumerate(story.INJECTED)])
    return world.agent(name, model(*turns, "done"), world.tools(*story.TOOLS[name]))


def orchestrator(world: World, asks: Sequence[BaseTool], **options: Any) -> Any:
    at_once = [call(ask, str(at), task="Report.") for at, ask in enumerate(story.ASKS)]
    return world.agent(story.ORCHESTRATOR, model(at_once, story.REPORT), asks, **options)


@each_run
def test_the_story(run: Run) -> None:
    """Three sub-agents work at the same time; the one that is injected gets nothing by it."""
    tell(run, World(), root())


def test_the_story_with_a_set_of_tokens() -> None:
    """Nothing is written otherwise: the guard is shown the token of its own server."""
    world = World()
    world.guard = story.guard_of_a_set(world.trail)
    tell(invoke, world, story.a_set())


def tell(run: Run, world: World, held: Token | TokenSet) -> None:
    asks = [
        delegate_to(sub_agent(world, name), name=ask, tools=story.HANDED[name], expires_in=60)
        for ask, name in story.ASKS.items()
    ]
    with current.use(held):
        answer = run(orchestrator(world, asks))
    assert answer[-1].text == story.REPORT
    assert [message.status for message in results(answer)] == ["success"] * 3
    worked = [(tool_name, arguments) for tool_name, arguments, _ in story.WORK.values()]
    assert sorted(map(str, world.desk.reached)) == sorted(map(str, worked))
    refused = [decision for decision in world.trail.decisions if not decision]
    said = {(d.access.tool if d.access else None, d.code, d.refusals[0].added_by) for d in refused}
    assert said == {(tool_name, code, by) for tool_name, _, code, by in story.INJECTED}
    assert all(d.attribution is not None and d.attribution.chain[-1].name == "filings-agent" for d in refused)


@each_run
def test_a_sub_agent_that_was_handed_nothing_may_do_nothing(run: Run) -> None:
    """The orchestrator's own tool runs it, and forgets to delegate: it sees the parent's token, and that is refused."""
    world = World()
    sub = sub_agent(world, "sales-agent")
    seen: list[list[AnyMessage]] = []

    @tool
    def ask_sales(task: str) -> str:
        """Ask the sales agent."""
        seen.append(sub.invoke({"messages": [HumanMessage(task)]})["messages"])
        return "done"

    with current.use(root()):
        run(world.agent(story.ORCHESTRATOR, model([call("ask_sales", task="x")], "done"), [ask_sales]))
    (refused,) = results(seen[0])
    assert refused.status == "error" and "handed to another agent" in refused.text
    assert world.codes == ["allowed", "caller"] and world.desk.reached == []


@each_run
def test_without_any_token_nothing_runs(run: Run) -> None:
    world = World()
    (refused,) = results(run(sub_agent(world, "sales-agent")))
    assert refused.status == "error" and world.desk.reached == []


@each_run
def test_a_sub_agent_with_its_parents_middleware_may_do_nothing(run: Run) -> None:
    """As `deepagents` would share it: the framework says who runs, and that is not who the middleware was made for."""
    world = World()
    shared = TokenGuard(world.guard, agent=story.ORCHESTRATOR)
    work = model([call("query_sales", region="eu")], "done")
    sub = create_agent(work, world.tools("query_sales"), name="sales-agent", middleware=[shared])
    with current.use(root()):
        (refused,) = results(run(sub))
    assert refused.status == "error" and world.codes[-1] == "caller" and world.desk.reached == []


@each_run
@pytest.mark.parametrize("name", [None, story.ORCHESTRATOR])
def test_a_sub_agent_that_goes_by_its_callers_name_may_do_nothing(run: Run, name: str | None) -> None:
    """It has its parent's middleware and no name, or its parent's: it runs inside a tool call, and was handed nothing."""
    world = World()
    shared = TokenGuard(world.guard, agent=story.ORCHESTRATOR)
    work = model([call("query_sales", region="eu")], "done")
    sub = create_agent(work, world.tools("query_sales"), name=name, middleware=[shared])

    @tool
    def ask_sales(task: str) -> str:
        """Ask the sales agent."""
        return results(sub.invoke({"messages": [HumanMessage(task)]})["messages"])[0].text

    boss = create_agent(model([call("ask_sales", task="x")], "done"), [ask_sales], name=story.ORCHESTRATOR, middleware=[shared])
    with current.use(root()):
        (answer,) = results(run(boss))
    assert answer.text.startswith("Not permitted") and world.codes == ["allowed", "caller"] and world.desk.reached == []


@each_run
@pytest.mark.parametrize("name", [None, "filings", story.ORCHESTRATOR])
def test_an_agent_that_was_handed_nothing_hands_nothing_on(run: Run, name: str | None) -> None:
    """It has no guard, so nobody refuses its calls; but what its caller holds is not its own, whatever its name."""
    world = World()
    ask = delegate_to(sub_agent(world, "sales-agent"), name="ask_in_turn", tools={"query_sales": {}})
    bare = create_agent(model([call("ask_in_turn", task="x")], "done"), [ask], name=name)

    @tool
    def ask_sales(task: str) -> str:
        """Ask an agent that asks the sales agent."""
        return str(bare.invoke({"messages": [HumanMessage(task)]}))

    with current.use(root()), pytest.raises(GuardError, match="was given no token"):
        run(world.agent(story.ORCHESTRATOR, model([call("ask_sales", task="x")], "done"), [ask_sales]))
    assert world.desk.reached == []


@pytest.mark.parametrize("saver", [None, InMemorySaver()], ids=["", "with a checkpointer"])
def test_a_sub_agent_that_waits_for_a_person_has_no_answer(saver: Any) -> None:
    world = World()
    waiting = HumanInTheLoopMiddleware(interrupt_on={"query_sales": True})
    says = model([call("query_sales", region="eu")], "done")
    sub = world.agent("sales-agent", says, world.tools("query_sales"), middleware=[waiting])
    ask = delegate_to(sub, tools={"query_sales": {}})
    boss = world.agent(story.ORCHESTRATOR, model([call("ask_sales_agent", task="x")], "done"), [ask], checkpointer=saver)
    with current.use(root(ask_sales_agent={}, query_sales={})), pytest.raises(GuardError, match="waits for a person"):
        invoke(boss, config={"configurable": {"thread_id": "1"}})
    assert world.desk.reached == []


# --- handing on ------------------------------------------------------------------------------------------------------


@each_run
def test_a_sub_agent_gets_its_token_and_nothing_else_of_its_caller(run: Run) -> None:
    world, seen = World(), []

    @tool
    def look(runtime: ToolRuntime) -> str:
        """Look around."""
        with pytest.raises(CaptokenError):
            current.holding().delegate(to="x-agent", tools={"ask_sales_agent": {}})
        seen.append((runtime.context, runtime.config.get("configurable", {}).get("thread_id"), current.grant().actor.name))
        return "seen"

    sub = world.agent("sales-agent", model([call("look")], "done"), [look])
    boss = world.agent(
        story.ORCHESTRATOR,
        model([call("ask_sales_agent", task="look")], "done"),
        [delegate_to(sub, tools={"look": {}})],
        context_schema=dict,
        checkpointer=InMemorySaver() if run is not ainvoke else None,
    )
    with current.use(root(ask_sales_agent={}, look={})) as held:
        answer = run(boss, context={"database": "all of it"}, config={"configurable": {"thread_id": "7"}})
        assert current.holding() is held
    assert results(answer)[0].text == "done" and seen == [(None, None, "sales-agent")]


def test_a_sub_agent_can_be_given_a_context_of_its_own() -> None:
    world, seen = World(), []

    @tool
    def look(runtime: ToolRuntime[dict[str, str], Any]) -> str:
        """Look around."""
        seen.append(runtime.context)
        return "seen"

    sub = world.agent("sales-agent", model([call("look")], "done"), [look], context_schema=dict)
    ask = delegate_to(sub, tools={"look": {}}, context={"region": "eu"})
    with current.use(root(look={})):
        assert ask.invoke({"task": "look"}) == "done"
    assert seen == [{"region": "eu"}]


def test_a_graph_without_a_name_is_named_when_it_is_handed_a_token() -> None:
    """A plain graph of LangGraph, nested in an agent: its tools run by its own name, not by that of the agent around it."""
    world = World()
    own = TokenGuard(world.guard, agent="sales-agent")
    node = own.node(world.tools("query_sales"))
    graph = StateGraph(MessagesState)
    graph.add_node("plan", lambda state: {"messages": [AIMessage("", tool_calls=[call("query_sales", region="eu")])]})
    graph.add_node("tools", node)
    graph.add_edge(START, "plan").add_edge("plan", "tools")
    compiled = graph.compile()
    with pytest.raises(GuardError, match="give the agent a name="):
        delegate_to(compiled, tools={"query_sales": {}})
    ask = delegate_to(compiled, to="sales agent", tools={"query_sales": {}})
    boss = world.agent(story.ORCHESTRATOR, model([call("ask_sales_agent", task="x")], "done"), [ask])
    with current.use(root(ask_sales_agent={}, query_sales={})):
        (answer,) = results(invoke(boss))
        assert answer.text == "eu: 41 overdue" and world.codes == ["allowed", "allowed"]
        own_run = graph.compile().invoke({"messages": []})["messages"]
    assert results(own_run)[0].status == "error" and world.codes[-1] == "caller"


def test_a_sub_agent_is_not_granted_what_its_caller_was() -> None:
    """The orchestrator's tool runs under a grant; a node of the sub-agent that asks for one finds none."""
    world, seen = World(), []

    def look(state: MessagesState) -> dict[str, Any]:
        seen.append(current.holding().token.unverified.holder)
        with pytest.raises(NoToken):
            current.grant()
        return {"messages": [AIMessage("looked")]}

    graph = StateGraph(MessagesState)
    graph.add_node("look", look)
    graph.add_edge(START, "look")
    ask = delegate_to(graph.compile(name="sales-agent"), tools={"query_sales": {}})
    boss = world.agent(story.ORCHESTRATOR, model([call("ask_sales_agent", task="x")], "done"), [ask])
    with current.use(root(ask_sales_agent={}, query_sales={})):
        (answer,) = results(invoke(boss))
    assert answer.text == "looked" and seen == ["sales-agent"]


def test_a_hand_over_without_a_token_fails() -> None:
    world = World()
    with pytest.raises(NoToken):
        delegate_to(sub_agent(world, "sales-agent"), tools={}).invoke({"task": "x"})
    assert world.desk.reached == []


def test_bound_tokens_are_handed_on_by_key_and_proven_at_each_call() -> None:
    boss_key, sales_key = HolderKey.generate(), HolderKey.generate()
    world = World()
    world.guard = ToolGuard(
        Verifier(KEYRING, "desk", clock=clock(), audit=world.trail, replays=MemoryReplayStore(floor=NOW - 3600))
    )
    handed = {"query_sales": {"region": {"in": ["eu"]}}}
    ask = delegate_to(sub_agent(world, "sales-agent"), name="ask_sales", key=sales_key, tools=handed)
    boss = world.agent(story.ORCHESTRATOR, model([call("ask_sales", task="x")], "done"), [ask])
    issuer = Issuer(KEYRING, clock=clock())
    token = issuer.mint(
        subject=story.SUBJECT, agent=story.ORCHESTRATOR, task=story.TASK, tools=story.ROOT_TOOLS, key=boss_key.public
    )
    with current.use(token, boss_key):
        invoke(boss)
    assert world.codes == ["allowed", "allowed"] and world.desk.reached == [("query_sales", {"region": "eu"})]
    assert world.trail.decisions[-1].attribution.chain[-1].basis == "proven"  # type: ignore[union-attr]


def test_a_bound_token_without_its_key_is_refused() -> None:
    world = World()
    own = HolderKey.generate()
    issuer = Issuer(KEYRING, clock=clock())
    token = issuer.mint(subject="user:jane", agent="sales-agent", task="t", tools=story.ROOT_TOOLS, key=own.public)
    with current.use(Held(token)):
        (refused,) = results(invoke(sub_agent(world, "sales-agent")))
    assert refused.status == "error" and world.desk.reached == []


# --- either face of a verifier ---------------------------------------------------------------------------------------


@each_run
@pytest.mark.parametrize("kind", ["Grant", "AsyncGrant"])
def test_a_guard_takes_either_face_and_a_tool_gets_the_grant_of_it(kind: str, run: Run) -> None:
    """With a bound token: each call is proven anew, and neither the text nor its proof reaches a tool.

    Where no event loop runs the agent there is nothing to await with: the grant is the plain one.
    """
    world, own, shown = World(), HolderKey.generate(), []
    world.guard = story.guards(world.trail)[kind]

    @tool
    async def arows(runtime: ToolRuntime) -> str:
        """Ask for rows."""
        shown.append(repr(runtime))
        return await story.asking()

    @tool
    def rows(runtime: ToolRuntime) -> str:
        """Ask for rows."""
        shown.append(repr(runtime))
        return asyncio.run(story.asking())

    arows.name = "rows"
    served = kind if run is ainvoke else "Grant"
    who: dict[str, Any] = {"subject": story.SUBJECT, "agent": story.ORCHESTRATOR, "task": story.TASK, "tools": {"rows": {}}}
    token = Issuer(KEYRING, clock=clock()).mint(**who, tables=["sales"], operations=["select"], key=own.public)
    says = model([call("rows")], [call("rows")], [call("query_sales", region="eu")], "done")
    one = world.agent(story.ORCHESTRATOR, says, [arows if run is ainvoke else rows, *world.tools("query_sales")])
    with current.use(token, own):
        messages = run(one)
    said = results(messages)
    assert [message.text for message in said[:2]] == [f"{served}, allowed, table"] * 2 and len(shown) == 2
    assert said[2].status == "error" and world.desk.reached == []
    # Each call that is permitted asks for two tables in turn.
    assert world.codes == [*["allowed", "allowed", "table"] * 2, "tool"]
    assert "cap1" not in "".join(shown) + repr(messages)


def test_text_that_was_made_for_one_sending_is_not_held() -> None:
    world, own = World(), HolderKey.generate()
    bound = Held(root().attenuate(key=own.public), own)
    with pytest.raises(TokenFormatError), current.use(bound.present(audience="desk"), own):
        invoke(sub_agent(world, "sales-agent"))
    assert world.desk.reached == []
    with current.use(root().delegate(to="sales-agent").serialize()):
        invoke(sub_agent(world, "sales-agent"))
    assert world.desk.reached == [("query_sales", {"region": "eu"})]


# --- what is asked is what runs --------------------------------------------------------------------------------------


def one_call(
    world: World, tools: Sequence[BaseTool], wanted: dict[str, Any], held: Token, run: Run = invoke, **options: Any
) -> Any:
    with current.use(held):
        (result,) = results(run(world.agent(story.ORCHESTRATOR, model([wanted], "done"), tools, **options)))
    return result


def pay(got: list[Any]) -> BaseTool:
    @tool
    def pay(cents: int, to: str = "acct-1") -> str:
        """Pay."""
        got.append((cents, to))
        return "paid"

    return pay


PAY: dict[str, Any] = {"pay": {"cents": {"max": 500}, "to": {"in": ["acct-1"]}}}
PAYMENTS: list[tuple[dict[str, Any], Any]] = [
    ({"cents": 500, "to": "acct-1"}, (500, "acct-1")),
    ({"cents": "500"}, (500, "acct-1")),  # the tool gets a number, and its default: so both are asked about
    ({"cents": 400.0}, (400, "acct-1")),
    ({"cents": 501}, None),
    ({"cents": "501"}, None),
    ({"cents": 1, "to": "acct-2"}, None),
    ({"cents": 1, "to": ["acct-1"]}, None),
    ({"to": "acct-1"}, None),
    ({}, None),
    ({"cents": float("nan")}, None),
    ({"cents": 1, "note": "of no use"}, (1, "acct-1")),  # which the tool does not get
]


@pytest.mark.parametrize(("arguments", "expected"), PAYMENTS)
@pytest.mark.parametrize("run", [invoke, ainvoke])
def test_what_is_asked_about_is_what_the_tool_gets(arguments: dict[str, Any], expected: Any, run: Run) -> None:
    got: list[Any] = []
    result = one_call(World(), [pay(got)], call("pay", **arguments), root(**PAY), run)
    assert got == ([expected] if expected else [])
    assert result.status == ("success" if expected else "error")


def test_an_argument_that_a_validator_changes_is_asked_about_as_changed() -> None:
    got: list[str] = []

    class Where(BaseModel):
        region: str = Field(alias="Region")

        @field_validator("region")
        @classmethod
        def spelled(cls, value: str) -> str:
            return value.strip().lower()

    def query(region: str) -> str:
        """Query."""
        got.append(region)
        return region

    query_ = StructuredTool.from_function(query, args_schema=Where)
    token = root(query={"region": {"in": ["eu"]}})
    assert one_call(World(), [query_], call("query", Region=" EU "), token).status == "success" and got == ["eu"]
    assert one_call(World(), [query_], call("query", Region="us"), token).status == "error" and got == ["eu"]
    assert one_call(World(), [query_], call("query", Region="us", region="eu"), token).status == "error" and got == ["eu"]


def test_an_argument_that_is_read_otherwise_each_time_is_refused() -> None:
    """A tool that decodes twice would get what nobody asked about."""
    got: list[str] = []

    class Path(BaseModel):
        path: str

        @field_validator("path")
        @classmethod
        def decoded(cls, value: str) -> str:
            return value.replace("%2e", ".").replace("%25", "%")

    def read(path: str) -> str:
        """Read."""
        got.append(path)
        return path

    tool_ = StructuredTool.from_function(read, args_schema=Path)
    token = root(read={"path": {"any": True}})
    assert one_call(World(), [tool_], call("read", path="a%2eb"), token).status == "success"
    assert one_call(World(), [tool_], call("read", path="a%252eb"), token).status == "error"
    assert got == ["a.b"]


def test_a_schema_that_refuses_its_own_output_is_refused() -> None:
    got: list[str] = []

    class Once(BaseModel):
        path: str

        @field_validator("path")
        @classmethod
        def decoded(cls, value: str) -> str:
            if not value.startswith("x:"):
                raise ValueError("a path starts with x:")
            return value[2:]

    read = StructuredTool.from_function(lambda path: got.append(path) or path, name="read", description=".", args_schema=Once)
    assert one_call(World(), [read], call("read", path="x:a"), root(read={"path": {"any": True}})).status == "error"
    assert got == []


def test_validators_that_cannot_be_asked_refuse() -> None:
    """The schema that the model is shown leaves out what the framework adds, and with it every validator."""
    got: list[str] = []

    class Where(BaseModel):
        region: str
        state: Annotated[dict[str, Any], InjectedState]

        @field_validator("region")
        @classmethod
        def spelled(cls, value: str) -> str:
            return "us"

    def query(region: str, state: dict[str, Any]) -> str:
        """Query."""
        got.append(region)
        return region

    tool_ = StructuredTool.from_function(query, args_schema=Where)
    assert one_call(World(), [tool_], call("query", region="eu"), root(query={"region": {"in": ["eu"]}})).status == "error"
    assert got == []


Added = Annotated[dict[str, Any], InjectedState]  # which the framework adds, and the model is not shown


class Lowered(BaseModel):
    model_config = ConfigDict(str_to_lower=True)
    region: str
    state: Added


class Finished(BaseModel):
    region: str
    state: Added

    def model_post_init(self, context: Any) -> None:
        self.region = "eu"


class Initialised(BaseModel):
    region: str
    state: Added

    def __init__(self, **given: Any) -> None:
        super().__init__(**{**given, "region": "eu"})


class Aliased(BaseModel):
    model_config = ConfigDict(extra="ignore")
    region: str = Field("eu", alias="place")
    state: Added


class Otherwise(BaseModel):
    region: str
    state: Added

    @classmethod
    def model_validate(cls, given: Any, **options: Any) -> Any:
        return super().model_validate({**given, "region": "eu"}, **options)


class Secret(BaseModel):
    region: SecretStr


class Masked(BaseModel):
    region: str

    @field_serializer("region")
    def written(self, value: str) -> str:
        return "eu"


class Unwritten(BaseModel):
    region: str = Field("us", exclude=True)


class Translated(BaseModel):
    """Writes what it then reads as what it was: what is asked about would be no more than the spelling."""

    region: str

    @field_validator("region")
    @classmethod
    def read(cls, value: str) -> str:
        return "us" if value == "eu" else value

    @field_serializer("region")
    def written(self, value: str) -> str:
        return "eu" if value == "us" else value


class Old(v1.BaseModel):
    region: str

    @v1.validator("region")
    def read(cls, value: str) -> str:
        return "us"


UNREADABLE = [Lowered, Finished, Initialised, Aliased, Otherwise, Secret, Masked, Unwritten, Translated, Old]


@pytest.mark.parametrize("schema", UNREADABLE, ids=lambda schema: schema.__name__)
def test_a_schema_of_which_nobody_can_say_how_it_reads_is_refused(schema: Any) -> None:
    """Whatever the token permits: what the tool would get is not what was asked about."""
    got: list[Any] = []
    query = StructuredTool.from_function(
        lambda region=None, state=None: got.append(region) or "x", name="query", description="Query.", args_schema=schema
    )
    world = World()
    result = one_call(world, [query], call("query", region="us"), root(query={}))
    assert result.status == "error" and world.codes == ["tool"] and got == []


class Kind(Enum):
    FULL = "full"


class Part(BaseModel):
    size: int = Field(1, alias="Size")


class Plain(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)
    text: str = Field(alias="Text")
    part: Part
    day: date
    kind: Kind
    price: Decimal
    data: bytes
    either: int | str
    tags: set[str] = {"one"}
    url: AnyUrl | None = None
    key: str = Field(default_factory=lambda: uuid4().hex)


def test_the_common_types_are_written_as_they_are_read() -> None:
    """By their aliases, nested ones too; stripped; with defaults, made ones too: and the tool gets them as its own types."""
    got: list[Any] = []
    file = StructuredTool.from_function(
        lambda **given: got.append(given) or "x", name="file", description="File.", args_schema=Plain
    )
    given = {
        "Text": " a ", "part": {"Size": "3"}, "day": "2026-01-02", "kind": "full", "price": "1.50", "data": "raw",
        "either": "7", "url": "https://a.example/b",
    }  # fmt: skip
    rules: dict[str, Any] = {name: {"any": True} for name in Plain.model_fields}
    token = root(file={**rules, "text": {"in": ["a"]}, "day": {"in": ["2026-01-02"]}, "price": {"in": ["1.50"]}})
    result = one_call(World(), [file], {**call("file"), "args": given}, token)
    assert result.status == "success", result.text
    (had,) = got
    assert (had["text"], had["part"].size, had["day"], had["kind"]) == ("a", 3, date(2026, 1, 2), Kind.FULL)
    assert (had["price"], had["data"], had["either"], had["tags"]) == (Decimal("1.50"), b"raw", "7", {"one"})


def test_a_tool_that_another_middleware_put_in_the_place_of_one_is_refused() -> None:
    world = World()
    (danger,) = world.tools("query_hr")

    class Swap(AgentMiddleware[Any, Any, Any]):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(tool=danger))

    wanted = call("query_sales", column="salary")
    result = one_call(world, world.tools("query_sales"), wanted, root(query_sales={}), middleware=[Swap()])
    assert result.status == "error" and world.codes == ["tool"] and world.desk.reached == []


@each_run
def test_what_a_tool_itself_is_refused_is_told_to_the_model(run: Run) -> None:
    @tool
    def rows(table: str) -> str:
        """Rows of a table."""
        current.grant().authorize(Access(table=table, operation="select"))
        return "rows"

    result = one_call(World(), [rows], call("rows", table="hr"), root(rows={}), run)
    assert result.status == "error" and result.text.startswith("Not permitted")


@each_run
def test_a_mistake_in_a_statement_is_told_to_the_model(run: Run) -> None:
    @tool
    def ask(sql: str) -> str:
        """Ask."""
        raise mistake("syntax", "42601")

    result = one_call(World(), [ask], call("ask", sql="selct"), root(ask={}), run)
    assert result.status == "error" and result.text == mistake("syntax").for_model()


def test_a_schema_that_is_put_in_later_is_the_one_that_reads() -> None:
    """What the guard keeps of a tool is kept as long as that is the schema that the tool has."""
    world, got = World(), []

    class Cents(BaseModel):
        amount: int

    class Euros(BaseModel):
        amount: int

        @field_validator("amount")
        def times(cls, value: int) -> int:
            return min(value * 10, 100)

    def pay(amount: int) -> str:
        got.append(amount)
        return "paid"

    paying = StructuredTool.from_function(pay, description="Pay.", args_schema=Cents)
    own = TokenGuard(world.guard, agent=story.ORCHESTRATOR)
    says = [call("pay", amount=amount) for amount in ("5", 50, 100)]
    for schema in (Cents, Euros, Cents):
        paying.args_schema = schema
        agent = create_agent(model(*([one] for one in says), "done"), [paying], name=story.ORCHESTRATOR, middleware=[own])
        with current.use(root(pay={"amount": {"max": 60}})):
            invoke(agent)
    assert got == [5, 50, 5, 50]
    assert world.codes == ["allowed", "allowed", "argument", "tool", "argument", "argument", "allowed", "allowed", "argument"]


def test_what_is_kept_of_tools_is_bounded() -> None:
    world = World()
    own = TokenGuard(world.guard, agent=story.ORCHESTRATOR)
    for at in range(300):
        one = StructuredTool.from_function(order, name=f"order_{at}")
        own._known(one)
    assert len(own._tools) <= 256


HANDLING: dict[str, Any] = {
    "as it is": None,
    "nothing": False,
    "everything": True,
    "in words": "It failed.",
    "some": (Exception,),
    "one": CaptokenError,
    "by a function": lambda error: f"{error!r} {error}",
}


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("run", [invoke, ainvoke])
@pytest.mark.parametrize("handling", HANDLING)
def test_whoever_handles_a_tools_errors_shows_the_model_nothing_for_the_operator(handling: str, run: Run, grouped: bool) -> None:
    world = World()

    @tool
    def rows(table: str) -> str:
        """Rows of a table."""
        try:
            current.grant().authorize(Access(table=table, operation="select"))
        except Denied as denied:
            told.append(denied.decision.for_model())
            if grouped:
                raise ExceptionGroup("tasks", [denied]) from None
            raise
        return "rows"

    told: list[str] = []
    options = {} if handling == "as it is" else {"handle_tool_errors": HANDLING[handling]}
    node = TokenGuard(world.guard, agent=story.ORCHESTRATOR).node([rows], **options)
    graph = StateGraph(MessagesState)
    graph.add_node("plan", lambda state: {"messages": [AIMessage("", tool_calls=[call("rows", table="hr")])]})
    graph.add_node("tools", node)
    graph.add_edge(START, "plan").add_edge("plan", "tools")
    with current.use(root(rows={})):
        (answer,) = results(run(graph.compile()))
    assert answer.status == "error" and answer.text == told[0]


def test_nor_does_a_middleware_that_is_listed_after_the_guard() -> None:
    world = World()

    class Telling(AgentMiddleware[Any, Any, Any]):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            assert isinstance(request.tool, StructuredTool) and request.tool.name == "rows" and "Rows" in request.tool.description
            try:
                return handler(request)
            except Exception as error:
                return ToolMessage(str(error), tool_call_id=request.tool_call["id"])

    @tool
    def rows(table: str) -> str:
        """Rows of a table."""
        current.grant().authorize(Access(table=table, operation="select"))
        return "rows"

    wrapped = [TokenGuard(world.guard, agent=story.ORCHESTRATOR), Telling()]
    agent = create_agent(model([call("rows", table="hr")], "done"), [rows], name=story.ORCHESTRATOR, middleware=wrapped)
    with current.use(root(rows={})):
        (answer,) = results(invoke(agent))
    assert answer.status == "error" and answer.text.startswith("Not permitted")


def test_a_tool_that_keeps_something_keeps_it_in_itself() -> None:
    """What stands in for a tool while it is called is not what runs."""

    class Counting(BaseTool):
        name: str = "count"
        description: str = "Count."
        calls: int = 0

        def _run(self) -> str:
            self.calls += 1
            return str(self.calls)

    counting = Counting()
    for at in (1, 2):
        assert one_call(World(), [counting], call("count"), root(count={})).text == str(at)
    assert counting.calls == 2


@pytest.mark.parametrize("run", [invoke, ainvoke, stream])
def test_a_node_is_guarded_however_its_graph_is_run(run: Run) -> None:
    """A ToolNode that was given the async half alone would run the tool here, and ask nobody."""
    world = World()
    node = TokenGuard(world.guard, agent=story.ORCHESTRATOR).node(world.tools("query_hr"))
    graph = StateGraph(MessagesState)
    graph.add_node("plan", lambda state: {"messages": [AIMessage("", tool_calls=[call("query_hr", column="salary")])]})
    graph.add_node("tools", node)
    graph.add_edge(START, "plan").add_edge("plan", "tools")
    with current.use(root(query_sales={})):
        (answer,) = results(run(graph.compile()))
    assert answer.status == "error" and world.codes == ["tool"] and world.desk.reached == []
    with pytest.raises(TypeError):
        TokenGuard(world.guard, agent="a").node([], awrap_tool_call=None)


def test_what_the_framework_adds_is_not_asked_about() -> None:
    @tool
    def count(state: Annotated[dict[str, Any], InjectedState], runtime: ToolRuntime, upto: int = 9) -> str:
        """Count."""
        return str(min(upto, len(state["messages"])))

    assert one_call(World(), [count], call("count"), root(count={"upto": {"max": 9}})).text == "2"
    assert one_call(World(), [count], call("count", upto=10), root(count={"upto": {"max": 9}})).status == "error"


def test_a_tool_whose_schema_is_plain_json_is_asked_about_as_called() -> None:
    got: list[Any] = []
    schema = {"type": "object", "properties": {"region": {"type": "string"}}, "title": "query", "description": "Query."}
    query = StructuredTool(
        name="query", description="Query.", args_schema=schema, func=lambda **given: got.append(given) or "x"
    )
    token = root(query={"region": {"in": ["eu"]}})
    assert one_call(World(), [query], call("query", region="eu"), token).status == "success"
    assert one_call(World(), [query], call("query", region="us"), token).status == "error"
    assert [given["region"] for given in got] == ["eu"]


NAMES = ["query_hr", "nothing-of-the-kind", "", "a b", "*", "query.*", "x" * 300]


@pytest.mark.parametrize("name", NAMES)
def test_a_tool_that_is_not_granted_or_not_there_is_refused(name: str) -> None:
    world = World()
    result = one_call(world, world.tools("query_hr"), call(name, column="salary"), root())
    assert result.status == "error" and world.desk.reached == []


def test_each_of_many_calls_at_once_is_decided_by_itself() -> None:
    world = World()
    calls = [call("read_filing", str(at), issuer=issuer) for at, issuer in enumerate(("cedar", "dune", "cedar", "elm"))]
    for run in (invoke, ainvoke):
        with current.use(root(read_filing={"issuer": {"in": ["cedar"]}})):
            answer = run(world.agent(story.ORCHESTRATOR, model(calls, "done"), world.tools("read_filing")))
        assert [message.status for message in results(answer)] == ["success", "error", "success", "error"]
    assert world.desk.reached == [("read_filing", {"issuer": "cedar"})] * 4


def test_a_retry_is_asked_about_again_and_counts_again() -> None:
    world = World(ledger=MemoryLedger(shared=True, floor=NOW - 3600))
    tries: list[int] = []

    @tool
    def flaky() -> str:
        """Fail."""
        tries.append(1)
        raise OSError("down")

    issuer = Issuer(KEYRING, clock=clock())
    token = issuer.mint(subject="user:jane", agent=story.ORCHESTRATOR, task="t", tools={"flaky": {}}, uses=2)
    retry = ToolRetryMiddleware(max_retries=5, initial_delay=0, jitter=False)
    one_call(world, [flaky], call("flaky"), token, middleware=[retry])
    assert len(tries) == 2 and world.codes == ["allowed", "allowed", "budget_exhausted"]


def test_the_tool_runs_under_the_grant_of_its_call() -> None:
    @tool
    def who() -> str:
        """Who asks?"""
        return current.grant().actor.name

    assert one_call(World(), [who], call("who"), root(who={})).text == story.ORCHESTRATOR
    with pytest.raises(NoToken):
        current.grant()


# --- what no guard sees ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [invoke, ainvoke])
def test_a_tool_that_the_provider_runs_is_refused_unless_it_is_named(run: Run) -> None:
    world = World()
    search: Any = {"type": "web_search"}
    with current.use(root()):
        with pytest.raises(GuardError, match="web_search"):
            run(world.agent(story.ORCHESTRATOR, model("done"), [search]))
        named = TokenGuard(world.guard, agent=story.ORCHESTRATOR, native=["web_search"])
        assert run(create_agent(model("done"), [search], middleware=[named]))[-1].text == "done"


MISUSE: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"guard": World().verifier, "agent": "a"}, TypeError),
    ({"guard": World().guard, "agent": ""}, ValueError),
    ({"guard": World().guard, "agent": " "}, ValueError),
    ({"guard": World().guard, "agent": None}, ValueError),
    ({"guard": World().guard, "agent": "a", "native": "web_search"}, TypeError),
]


@pytest.mark.parametrize(("options", "error"), MISUSE)
def test_misuse_is_told_at_once(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        TokenGuard(**options)


# --- what is shown ---------------------------------------------------------------------------------------------------


class Everything(BaseCallbackHandler):
    """What a tracer would be told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def _keep(self, *args: Any, **kwargs: Any) -> None:
        self.told.append(repr((args, kwargs)))

    on_chain_start = on_chain_end = on_chain_error = on_tool_start = on_tool_end = on_tool_error = _keep
    on_chat_model_start = on_llm_start = on_llm_end = on_llm_error = on_custom_event = _keep


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_no_token_is_in_what_a_tracer_a_checkpoint_or_a_log_gets(asynchronous: bool, caplog: pytest.LogCaptureFixture) -> None:
    world, handler, saver = World(), Everything(), InMemorySaver()
    asks = [delegate_to(sub_agent(world, name), name=ask, tools=story.HANDED[name]) for ask, name in story.ASKS.items()]
    config: Any = {"configurable": {"thread_id": "7"}, "callbacks": [handler]}
    with caplog.at_level(logging.DEBUG), current.use(root()):
        (ainvoke if asynchronous else invoke)(orchestrator(world, asks, checkpointer=saver), config=config)
    kept = repr((saver.storage, saver.writes, saver.blobs))
    assert any("query_sales" in told for told in handler.told), "the sub-agents' runs are traced too"
    assert story.REPORT in kept
    for text in (*handler.told, kept, caplog.text):
        assert "cap1" not in text and "<Held" not in text and "Grant" not in text
