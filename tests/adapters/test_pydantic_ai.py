"""pydantic-ai under guard: what the token permits runs, and no other tool does, however the agent comes by it or is run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    AnyUrl,
    BaseModel,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    RootModel,
    SecretStr,
    WithJsonSchema,
    field_serializer,
    model_serializer,
)
from pydantic_ai import (
    Agent,
    BinaryImage,
    DeferredToolRequests,
    DeferredToolResults,
    ModelRetry,
    RunContext,
    TextOutput,
    Tool,
    ToolApproved,
)
from pydantic_ai.agent import AgentRunResult, WrapperAgent
from pydantic_ai.capabilities import AbstractCapability, Hooks, NativeTool, UseThreadExecutor
from pydantic_ai.exceptions import UnexpectedModelBehavior
from pydantic_ai.messages import (
    FilePart,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.native_tools import ImageGenerationTool, WebSearchTool
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import CombinedToolset, ExternalToolset, FunctionToolset, WrapperToolset
from pydantic_core import core_schema

from captoken import Access, Decision, Issuer, Token, TokenFormatError, TokenSet, WideningError, current
from captoken._verification.mistakes import mistake
from captoken.adapters.pydantic_ai import TokenGuard, delegate_to, run_delegated
from captoken.current import Held
from captoken.errors import GuardError, NoToken
from captoken.keys import HolderKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from captoken.tools import ToolGuard
from tests.adapters import story
from tests.fixtures import KEYRING, clock, verifier

Call = tuple[str, Any]


class Told:
    """A trail that keeps the decisions themselves."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def record(self, decision: Decision) -> None:
        self.decisions.append(decision)

    @property
    def codes(self) -> list[str]:
        return [decision.code for decision in self.decisions]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def guard(told: Told) -> ToolGuard:
    return ToolGuard(verifier(audit=told))


def mint(**tools: Any) -> Token:
    who = {"subject": story.SUBJECT, "agent": story.ORCHESTRATOR, "task": story.TASK}
    return Issuer(KEYRING, clock=clock()).mint(**who, tools=tools or story.ROOT_TOOLS)


def obeying(*calls: Call | list[Call], final: str = "done") -> FunctionModel:
    """A model that makes these calls, one response for each (a list is one response), and then says `final`."""

    def turn(messages: list[ModelMessage]) -> list[Call] | None:
        turns = sum(isinstance(message, ModelResponse) for message in messages)
        if turns >= len(calls):
            return None
        call = calls[turns]
        return call if isinstance(call, list) else [call]

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        made = turn(messages)
        return ModelResponse(parts=[TextPart(final)] if made is None else [ToolCallPart(*call) for call in made])

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> Any:
        made = turn(messages)
        if made is None:
            for word in final.split(" "):
                yield word + " "
        for at, (name, arguments) in enumerate(made or ()):
            yield {at: DeltaToolCall(name=name, json_args=ToolCallPart(name, arguments).args_as_json_str())}

    return FunctionModel(answer, stream_function=stream)


def agent(guard: ToolGuard, model: FunctionModel, *tools: Any, name: str = story.ORCHESTRATOR, **more: Any) -> Agent[Any, Any]:
    capabilities = [TokenGuard(guard), *more.pop("capabilities", ())]
    return Agent(model, name=name, tools=tools, capabilities=capabilities, **more)


def go(one: Agent[Any, Any], *prompt: str, **settings: Any) -> AgentRunResult[Any]:
    return asyncio.run(one.run(*prompt, **settings))


def results(messages: list[ModelMessage]) -> list[Any]:
    """What the model was told of its calls."""
    return [part.content for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]


# --- the story -------------------------------------------------------------------------------------------------------


def subagents(guard: ToolGuard, desk: story.Desk) -> dict[str, Agent[Any, Any]]:
    made = {}
    for name, tools in story.TOOLS.items():
        tool, arguments, _ = story.WORK[name]
        tried = [(tool, arguments) for tool, arguments, _, _ in story.INJECTED] if name == "filings-agent" else []
        model = obeying((tool, arguments), *tried, final=f"{name} is done")
        made[name] = agent(guard, model, *(getattr(desk, tool) for tool in tools), name=name)
    return made


def orchestrator(guard: ToolGuard, *tools: Any, at_once: bool = False) -> Agent[Any, Any]:
    asks: list[Call] = [(ask, {"task": "your part"}) for ask in story.ASKS]
    return agent(guard, obeying(asks, final=story.REPORT) if at_once else obeying(*asks, final=story.REPORT), *tools)


def in_one_step(boss: Agent[Any, Any]) -> str:
    return str(asyncio.run(boss.run("report")).output)


def synchronously(boss: Agent[Any, Any]) -> str:
    """`run_sync` makes itself a loop and leaves it open: it gets one."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return str(boss.run_sync("report").output)
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def streaming(boss: Agent[Any, Any]) -> str:
    async def run() -> str:
        async with boss.run_stream("report") as result:
            return "".join([text async for text in result.stream_text(delta=True)]).strip()

    return asyncio.run(run())


def by_iterating(boss: Agent[Any, Any]) -> str:
    async def run() -> str:
        async with boss.iter("report") as nodes:
            async for _ in nodes:
                pass
            assert nodes.result is not None
            return str(nodes.result.output)

    return asyncio.run(run())


def by_events(boss: Agent[Any, Any]) -> str:
    async def run() -> str:
        async with boss.run_stream_events("report") as events:
            last = [event async for event in events][-1]
        return str(last.result.output).strip()  # type: ignore[union-attr]

    return asyncio.run(run())


def in_a_thread(boss: Agent[Any, Any]) -> str:
    told: list[str] = []
    thread = threading.Thread(target=current.carry(lambda: told.append(synchronously(boss))))
    thread.start()
    thread.join()
    return told[0]


WAYS = [in_one_step, synchronously, streaming, by_iterating, by_events, in_a_thread]


@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "all at once"])
@pytest.mark.parametrize("run", WAYS, ids=lambda way: way.__name__)
def test_the_story(run: Callable[[Agent[Any, Any]], str], at_once: bool, guard: ToolGuard, told: Told) -> None:
    """Each sub-agent does its work, the injected one nothing else, and the report comes out."""
    tell(run, at_once, guard, told, mint())


def test_the_story_with_a_set_of_tokens(told: Told) -> None:
    """Nothing is written otherwise: the guard is shown the token of its own server."""
    tell(WAYS[0], True, story.guard_of_a_set(told), told, story.a_set())


def tell(run: Callable[[Agent[Any, Any]], str], at_once: bool, guard: ToolGuard, told: Told, held: Token | TokenSet) -> None:
    desk = story.Desk()
    subs = subagents(guard, desk)
    asks = [delegate_to(subs[name], name=ask, tools=story.HANDED[name]) for ask, name in story.ASKS.items()]
    with current.use(held):
        assert run(orchestrator(guard, *asks, at_once=at_once)) == story.REPORT
    assert sorted(desk.reached, key=str) == sorted(((tool, args) for tool, args, _ in story.WORK.values()), key=str)
    refused = [decision for decision in told.decisions if not decision]
    assert [(one.access.tool, one.code, one.refusals[0].added_by) for one in refused if one.access] == [
        (tool, code, by) for tool, _, code, by in story.INJECTED
    ]
    assert {one.attribution.chain[-1].name for one in refused if one.attribution} == {"filings-agent"}


@pytest.mark.parametrize("run", WAYS, ids=lambda way: way.__name__)
def test_a_hand_over_that_is_forgotten_leaves_nothing(
    run: Callable[[Agent[Any, Any]], str], guard: ToolGuard, told: Told
) -> None:
    """The sub-agents run under the orchestrator's token, which permits what they try: and are refused it all the same."""
    desk = story.Desk()
    subs = subagents(guard, desk)

    def forgetful(name: str) -> Any:
        async def ask(task: str) -> str:
            return str((await subs[name].run(task)).output)

        return ask

    asks = [Tool(forgetful(name), name=ask) for ask, name in story.ASKS.items()]
    with current.use(mint()):
        assert run(orchestrator(guard, *asks)) == story.REPORT
    assert desk.reached == []
    work = {tool for tool, _, _ in story.WORK.values()}
    assert {one.code for one in told.decisions if one.access and one.access.tool in work} == {"caller"}


@pytest.mark.parametrize("run", WAYS, ids=lambda way: way.__name__)
def test_without_a_token_nothing_runs(run: Callable[[Agent[Any, Any]], str], guard: ToolGuard) -> None:
    desk = story.Desk()
    run(agent(guard, obeying(("query_sales", {"region": "eu"})), desk.query_sales))
    assert desk.reached == []


# --- which tools -----------------------------------------------------------------------------------------------------


def take(reached: list[Any], name: str = "take") -> Tool[Any]:
    def take(what: str = "all") -> str:
        """Take something."""
        reached.append(what)
        return f"took {what}"

    return Tool(take, name=name)


class Contributing(AbstractCapability[Any]):
    def __init__(self, tool: Tool[Any]) -> None:
        self.tool = tool

    def get_toolset(self) -> Any:
        return FunctionToolset([self.tool])


@dataclass
class _Adding(WrapperToolset[Any]):
    reached: list[Any]

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, Any]:
        made = await FunctionToolset([take([])]).get_tools(ctx)
        return {**await super().get_tools(ctx), **made}

    async def call_tool(self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: Any) -> Any:
        if name != "take":
            return await super().call_tool(name, tool_args, ctx, tool)
        self.reached.append(tool_args["what"])
        return "took it"


class Wrapping(AbstractCapability[Any]):
    """A capability with a tool that is in no toolset behind the guard."""

    def __init__(self, reached: list[Any]) -> None:
        self.reached = reached

    def get_wrapper_toolset(self, toolset: Any) -> Any:
        return _Adding(toolset, self.reached)


TOOLS: dict[str, Callable[[list[Any]], tuple[dict[str, Any], dict[str, Any]]]] = {
    "its own": lambda reached: ({"tools": [take(reached)]}, {}),
    "of a toolset": lambda reached: ({"toolsets": [FunctionToolset([take(reached)])]}, {}),
    "of a toolset made for the run": lambda reached: ({"toolsets": [lambda ctx: FunctionToolset([take(reached)])]}, {}),
    "of a toolset given to the run": lambda reached: ({}, {"toolsets": [FunctionToolset([take(reached)])]}),
    "renamed": lambda reached: ({"toolsets": [FunctionToolset([take(reached, "grab")]).renamed({"take": "grab"})]}, {}),
    "of a capability": lambda reached: ({"capabilities": [Contributing(take(reached))]}, {}),
    "of a capability given to the run": lambda reached: ({}, {"capabilities": [Contributing(take(reached))]}),
    "of a wrapper": lambda reached: ({"capabilities": [Wrapping(reached)]}, {}),
    "of a wrapper, before": lambda reached: ({"before": [Wrapping(reached)]}, {}),
    "of a wrapper given to the run": lambda reached: ({}, {"capabilities": [Wrapping(reached)]}),
}


@pytest.mark.parametrize("what, code", [("cash", "allowed"), ("all", "argument")])
@pytest.mark.parametrize("place", TOOLS)
def test_a_tool_is_asked_about_once_wherever_it_comes_from(
    place: str, what: str, code: str, guard: ToolGuard, told: Told
) -> None:
    reached: list[Any] = []
    built, run = TOOLS[place](reached)
    capabilities = [*built.pop("before", ()), TokenGuard(guard), *built.pop("capabilities", ())]
    one = Agent(obeying(("take", {"what": what})), name=story.ORCHESTRATOR, capabilities=capabilities, **built)
    with current.use(mint(take={"what": {"in": ["cash"]}})):
        go(one, "go", **run)
    assert told.codes == [code] and reached == (["cash"] if code == "allowed" else [])


def test_what_an_override_brings_is_asked_about(guard: ToolGuard, told: Told) -> None:
    reached: list[Any] = []
    one = agent(guard, obeying(("take", {})))
    with current.use(mint(other={})):
        with one.override(tools=[take(reached)]):
            go(one, "go")
        with one.override(toolsets=[FunctionToolset([take(reached)])]):
            go(one, "go")
    assert told.codes == ["tool", "tool"] and reached == []


def in_every_way(one: Agent[Any, Any]) -> dict[str, Callable[[], Any]]:
    async def streamed() -> None:
        async with one.run_stream("go") as run:
            await run.get_output()

    async def events() -> None:
        async with one.run_stream_events("go") as run:
            async for _ in run:
                pass

    async def stepped() -> None:
        async with one.iter("go") as run:
            async for _ in run:
                pass

    return {
        "run": lambda: asyncio.run(one.run("go")),
        "streamed": lambda: asyncio.run(streamed()),
        "events": lambda: asyncio.run(events()),
        "iter": lambda: asyncio.run(stepped()),
        "wrapped": lambda: asyncio.run(WrapperAgent(one).run("go")),
        "delegated": lambda: asyncio.run(delegated_by_another(one)),
        "spec of the run": lambda: asyncio.run(one.run("go", spec={"capabilities": []})),
        "tools too": lambda: asyncio.run(with_other_tools(one)),
    }


async def delegated_by_another(one: Agent[Any, Any]) -> None:
    boss = Issuer(KEYRING, clock=clock()).mint(subject=story.SUBJECT, agent="boss", task=story.TASK, tools={"take": {}})
    with current.use(boss):
        await run_delegated(one, "go", tools={"take": {}})


async def with_other_tools(one: Agent[Any, Any]) -> None:
    with one.override(toolsets=[FunctionToolset([take([])])], tools=[]):
        await one.run("go")


@pytest.mark.parametrize("way", in_every_way(Agent(name="a")))
def test_a_run_whose_guard_an_override_replaced_raises(way: str, guard: ToolGuard, told: Told) -> None:
    """Capabilities of its spec take the place of the agent's, and a guard is one of them."""
    reached: list[Any] = []
    one = agent(guard, obeying(("take", {})), take(reached))
    with current.use(mint(take={})):
        with one.override(spec={"capabilities": ["Thinking"]}), pytest.raises(GuardError, match="is gone"):
            in_every_way(one)[way]()
        assert reached == [] and told.codes == []
        with one.override(spec={"instructions": "Be brief."}):  # which replaces none
            go(one, "go")
        go(one, "go", spec={"capabilities": ["Thinking"]})  # which adds
    assert len(reached) == 2 and told.codes == ["allowed"] * 2


def test_a_guard_for_one_run_is_for_no_other(guard: ToolGuard, told: Told) -> None:
    reached: list[Any] = []
    bare = Agent(obeying(("take", {})), name=story.ORCHESTRATOR, tools=[take(reached)])
    with current.use(mint(other={})):
        go(bare, "go", capabilities=[TokenGuard(guard)])
        assert told.codes == ["tool"] and reached == []
    go(bare, "go")
    assert told.codes == ["tool"] and len(reached) == 1


def test_a_call_that_is_found_in_the_history_is_asked_about(guard: ToolGuard, told: Told) -> None:
    """A run can begin with a response that still waits for its tools: somebody else's word, if the history is."""
    reached: list[Any] = []
    history = [ModelRequest(parts=[UserPromptPart("go")]), ModelResponse(parts=[ToolCallPart("take", {"what": "all"})])]
    with current.use(mint(take={"what": {"in": ["cash"]}})):
        asyncio.run(agent(guard, obeying(), take(reached)).run(message_history=history))
    assert told.codes == ["argument"] and reached == []


def test_a_tool_in_an_executor_of_the_applications_has_its_grant(guard: ToolGuard) -> None:
    seen: list[str] = []

    def look() -> str:
        seen.append(current.grant().actor.name + " " + threading.current_thread().name)
        return "seen"

    with ThreadPoolExecutor(1, "pool") as pool, current.use(mint(look={})):
        go(agent(guard, obeying(("look", {})), look, capabilities=[UseThreadExecutor(pool)]), "go")
    assert seen == ["orchestrator pool_0"]


def test_two_guards_are_both_asked(guard: ToolGuard) -> None:
    """A guard that is added for a run takes nothing away from the agent's own."""
    reached: list[Any] = []
    one = agent(guard, obeying(("take", {})), take(reached))
    with current.use(mint(other={})):
        go(one, "go", capabilities=[TokenGuard(ToolGuard(verifier()))])
    assert reached == []


def test_a_tool_within_a_tool_is_asked_about(guard: ToolGuard, told: Told) -> None:
    """As a sandbox calls tools for a program that the model wrote."""
    reached: list[Any] = []

    async def script(ctx: RunContext[Any]) -> str:
        assert ctx.tool_manager is not None
        return str(await ctx.tool_manager.handle_call(ToolCallPart("take", {"what": "all"}), wrap_validation_errors=False))

    with current.use(mint(script={})):
        go(agent(guard, obeying(("script", {})), script, take(reached)), "go")
    assert told.codes == ["allowed", "tool"] and reached == []


class _Scripting(WrapperToolset[Any]):
    """Turns each call into one of the tool behind it, past the tool manager."""

    async def call_tool(self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: Any) -> Any:
        return await super().call_tool("take", {"what": "all"}, ctx, (await self.wrapped.get_tools(ctx))["take"])


class Scripting(AbstractCapability[Any]):
    def get_wrapper_toolset(self, toolset: Any) -> Any:
        return _Scripting(toolset)


@pytest.mark.parametrize("first", [False, True], ids=["before the guard", "after the guard"])
def test_what_another_capability_makes_of_a_call_is_asked_about(first: bool, guard: ToolGuard) -> None:
    """The guard stands next to the tools, wherever in the list it is."""
    reached: list[Any] = []
    capabilities = [TokenGuard(guard), Scripting()] if first else [Scripting(), TokenGuard(guard)]
    tools = [take(reached), take([], name="other")]
    with current.use(mint(other={})):
        go(Agent(obeying(("other", {})), name=story.ORCHESTRATOR, tools=tools, capabilities=capabilities), "go")
    assert reached == []


class _Answering(WrapperToolset[Any]):
    """Answers for the tool from what it remembers, and calls `before` in its stead, if that is said."""

    before: Any = None

    async def call_tool(self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: Any) -> Any:
        if self.before is not None:
            await super().call_tool(self.before, {}, ctx, (await self.wrapped.get_tools(ctx))[self.before])
        return "remembered"


class Answering(AbstractCapability[Any]):
    def __init__(self, before: Any = None) -> None:
        self.before = before

    def get_wrapper_toolset(self, toolset: Any) -> Any:
        made = _Answering(toolset)
        made.before = self.before
        return made


@pytest.mark.parametrize("before", [None, "other"])
def test_an_answer_that_a_wrapper_has_for_a_tool_is_asked_about(before: Any, guard: ToolGuard, told: Told) -> None:
    """Though the tool itself, behind the guard, is never called."""

    def run() -> list[Any]:
        capabilities = [Answering(before), TokenGuard(guard)]
        tools = [take([]), take([], "other")]
        one = Agent(obeying(("take", {})), name=story.ORCHESTRATOR, tools=tools, capabilities=capabilities)
        return results(go(one, "go").all_messages())

    with current.use(mint(take={}, other={})):
        assert run() == ["remembered"]
    with current.use(mint(other={})):
        assert run() != ["remembered"] and told.codes[-1] == "tool"
    assert run() != ["remembered"] and told.codes[-1] == "malformed"


def test_a_mark_that_a_tool_brings_itself_is_not_believed(guard: ToolGuard, told: Told) -> None:
    """What says that it is behind the guard is asked about before it runs, all the same."""
    for mark in (True, "behind the guard"):
        reached: list[Any] = []
        tool = take(reached)
        tool.metadata = {"captoken.asked": mark}

        class Beside(AbstractCapability[Any]):
            def get_wrapper_toolset(self, toolset: Any, tool: Tool[Any] = tool) -> Any:
                return CombinedToolset([toolset, FunctionToolset([tool])])

        one = Agent(obeying(("take", {})), name=story.ORCHESTRATOR, capabilities=[Beside(), TokenGuard(guard)])
        with current.use(mint(other={})):
            go(one, "go")
        assert told.codes[-1] == "tool" and reached == []


def test_a_name_that_the_model_invents_is_no_tool(guard: ToolGuard, told: Told) -> None:
    with current.use(mint(**{"*": {}})):
        done = go(agent(guard, obeying(("rm", {}), ("take", "{not json")), take([])), "go")
    assert done.output == "done" and told.codes == []


# --- with which arguments --------------------------------------------------------------------------------------------


class Order(BaseModel):
    what: str
    n: int = 1


def test_what_is_asked_about_is_what_the_tool_gets(guard: ToolGuard, told: Told) -> None:
    """After coercion, and after what the hooks of other capabilities made of it."""
    reached: list[Any] = []

    def take(n: int) -> str:
        reached.append(n)
        return "took"

    async def more(ctx: Any, *, call: Any, tool_def: Any, args: dict[str, Any]) -> dict[str, Any]:
        return {"n": args["n"] * 10}

    hooked = Hooks[Any]()
    hooked.on.before_tool_execute(more)
    token = mint(take={"n": {"max": 5}})
    with current.use(token):
        go(agent(guard, obeying(("take", {"n": "5"}), ("take", '{"n": 9, "n": 5}'), ("take", '{"n": 5, "n": 9}')), take), "go")
        assert told.codes == ["allowed", "allowed", "argument"] and reached == [5, 5]
        for capabilities in ([hooked, TokenGuard(guard)], [TokenGuard(guard), hooked]):
            one = Agent(obeying(("take", {"n": 5})), name=story.ORCHESTRATOR, tools=[take], capabilities=capabilities)
            go(one, "go")
    assert told.codes[3:] == ["argument", "argument"] and reached == [5, 5]


def test_an_argument_that_the_model_leaves_out_satisfies_nothing(guard: ToolGuard, told: Told) -> None:
    reached: list[Any] = []
    with current.use(mint(take={"what": {"in": ["cash"]}})):
        go(agent(guard, obeying(("take", {})), take(reached)), "go")
    assert told.codes == ["argument"] and reached == []


@pytest.mark.parametrize("unreadable", [float("nan"), float("inf"), object(), "\ud800"])
def test_arguments_that_are_no_json_are_refused(unreadable: Any, guard: ToolGuard, told: Told) -> None:
    reached: list[Any] = []

    def take(what: Any) -> str:
        reached.append(what)
        return "took"

    async def make(ctx: Any, *, call: Any, tool_def: Any, args: dict[str, Any]) -> dict[str, Any]:
        return {"what": unreadable}

    hooked = Hooks[Any]()
    hooked.on.before_tool_execute(make)
    with current.use(mint(take={})):
        go(agent(guard, obeying(("take", {"what": 1})), take, capabilities=[hooked]), "go")
    code = "argument" if isinstance(unreadable, float) else "tool"  # a number that is not finite is a client's
    assert told.codes[-1] == code and reached == []


def test_a_model_as_an_argument_is_asked_about_as_json(guard: ToolGuard, told: Told) -> None:
    def take(order: Order, by: str) -> str:
        return f"{by} took {order.what}"

    with current.use(mint(take={"by": {"in": ["jane"]}, "order": {"any": True}})):
        done = go(agent(guard, obeying(("take", {"order": {"what": "cash"}, "by": "jane"})), take), "go")
    assert results(done.all_messages()) == ["jane took cash"] and told.codes == ["allowed"]


class Custom:
    """A class that reads and writes itself."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return core_schema.no_info_plain_validator_function(
            lambda value: cls(), serialization=core_schema.plain_serializer_function_ser_schema(lambda value: "x")
        )


class Amount(BaseModel):
    """It writes itself otherwise than it is used."""

    cents: int

    @model_serializer
    def small(self) -> int:
        return min(self.cents, 10)


class Hidden(BaseModel):
    cents: int = Field(exclude=True)

    @field_serializer("cents")
    def none(self, value: int) -> int:
        return 0


@dataclass
class Sum:
    cents: Annotated[int, PlainSerializer(lambda cents: 1)]


@pytest.mark.parametrize("kind", [Amount, Hidden, Sum, RootModel[int], list[Amount], Annotated[int, PlainSerializer(lambda cents: 1)]])
@pytest.mark.parametrize(("token", "allowed"), [({"max": 10}, False), ({"any": True}, True)])
def test_what_is_asked_about_is_the_value_and_not_what_its_class_writes(
    kind: Any, token: Any, allowed: bool, guard: ToolGuard, told: Told
) -> None:
    reached: list[Any] = []

    def pay(amount: Any, by: str = "") -> str:
        reached.append(amount)
        return "paid"

    pay.__annotations__["amount"] = kind
    of_one = [{"cents": 100}] if kind == list[Amount] else 100 if "int" in str(kind) else {"cents": 100}
    asked: list[Any] = []
    seeing = ToolGuard(verifier(audit=told), attributes=lambda tool, arguments: asked.append(arguments) or {})
    with current.use(mint(pay={"amount": token, "by": {"any": True}})):
        go(agent(seeing, obeying(("pay", {"amount": of_one})), pay), "go")
    assert told.codes == ["allowed" if allowed else "argument"] and len(reached) == allowed
    assert asked == [{"amount": of_one, "by": ""}]


@pytest.mark.parametrize(
    ("kind", "sent", "seen"),
    [(Literal["a"], "a", "a"), (StrEnum("E", ["A"]), "a", "a"), (date, "2026-01-02", "2026-01-02"), (AnyUrl, "https://a.example", "https://a.example/"),
     (Decimal, "1.50", "1.50"), (bytes, "x", "x"), (set[int], [1], [1]), (dict[int, bool], {"1": True}, {"1": True}), (Path, "a/b", "a/b"),
     (IntEnum("N", ["A"]), 1, 1)],
)  # fmt: skip
def test_kinds_that_have_one_way_to_be_written_are_asked_about_in_it(kind: Any, sent: Any, seen: Any, told: Told) -> None:
    asked: list[Any] = []
    guard = ToolGuard(verifier(audit=told), attributes=lambda tool, arguments: asked.append(arguments) or {})

    def use(what: Any) -> str:
        return "used"

    use.__annotations__["what"] = kind
    with current.use(mint(use={})):
        go(agent(guard, obeying(("use", {"what": sent})), use), "go")
    assert told.codes == ["allowed"] and asked == [{"what": seen}]


@pytest.mark.parametrize(("kind", "sent"), [(SecretStr, "pin"), (Iterable[int], [1, 2]), (Annotated[Custom, WithJsonSchema({"type": "string"})], "x")])
def test_what_hides_itself_or_is_used_up_is_refused(kind: Any, sent: Any, guard: ToolGuard, told: Told) -> None:
    reached: list[Any] = []

    def use(what: Any) -> str:
        reached.append(what)
        return "used"

    use.__annotations__["what"] = kind
    with current.use(mint(use={})):
        go(agent(guard, obeying(("use", {"what": sent})), use), "go")
    assert told.codes == ["tool"] and reached == []


# --- what is executed elsewhere or later -----------------------------------------------------------------------------


def test_a_call_for_elsewhere_is_handed_out_only_if_it_is_permitted(guard: ToolGuard, told: Told) -> None:
    external = ExternalToolset([ToolDefinition(name="fax"), ToolDefinition(name="wire")])
    one = Agent(
        obeying([("fax", {}), ("wire", {})]), name=story.ORCHESTRATOR, toolsets=[external],
        output_type=[str, DeferredToolRequests], capabilities=[TokenGuard(guard)],
    )  # fmt: skip
    with current.use(mint(fax={})):
        done = go(one, "go")
    assert isinstance(done.output, DeferredToolRequests)
    assert [call.tool_name for call in done.output.calls] == ["fax"] and sorted(told.codes) == ["allowed", "tool"]


def test_an_approval_is_no_permission(guard: ToolGuard, told: Told) -> None:
    """A person's yes does not stand in for the token's; what is approved runs by the token of then, with the arguments of then."""
    reached: list[Any] = []
    tool = take(reached)
    tool.requires_approval = True
    one = agent(guard, obeying(("take", {"what": "cash"})), tool, output_type=[str, DeferredToolRequests])
    with current.use(mint(take={"what": {"in": ["cash"]}})):
        asked = go(one, "go")
        assert isinstance(asked.output, DeferredToolRequests)
        (call,) = asked.output.approvals

        def resume(answer: Any) -> None:
            answers = DeferredToolResults(approvals={call.tool_call_id: answer})
            go(one, message_history=asked.all_messages(), deferred_tool_results=answers)

        resume(ToolApproved(override_args={"what": "all"}))
        assert reached == [] and told.codes == ["argument"]
        resume(True)
        assert reached == ["cash"] and told.codes == ["argument", "allowed"]
    resume(True)
    assert reached == ["cash"] and told.codes == ["argument", "allowed", "malformed"]


def mail(to: str) -> str:
    return f"sent to {to}"


def cable(to: str, text: str) -> str:
    return f"sent to {to}"


def post(to: str) -> str:
    return f"posted to {to}"


@pytest.mark.parametrize(
    "output_type, said, token, allowed",
    [
        (mail, {"to": "jane"}, {"mail": {"output": {"in": ["jane"]}}}, True),
        (mail, {"to": "mallory"}, {"mail": {"output": {"in": ["jane"]}}}, False),
        (cable, {"to": "jane", "text": "hi"}, {"cable": {"to": {"in": ["jane"]}, "text": {"any": True}}}, True),
        (cable, {"to": "mallory", "text": "hi"}, {"cable": {"to": {"in": ["jane"]}, "text": {"any": True}}}, False),
        (mail, {"to": "jane"}, {"final_result": {}}, False),
        (TextOutput(mail), "jane", {"mail": {"output": {"in": ["jane"]}}}, True),
        (TextOutput(mail), "mallory", {"mail": {"output": {"in": ["jane"]}}}, False),
        (Order, {"what": "cash"}, {"other": {}}, True),
    ],
    ids=[
        "permitted",
        "argument",
        "two",
        "one of two",
        "by the name of the output tool",
        "text",
        "text refused",
        "no function: data",
    ],
)
def test_an_output_function_is_a_tool(output_type: Any, said: Any, token: Any, allowed: bool, guard: ToolGuard) -> None:
    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if isinstance(said, str):
            return ModelResponse(parts=[TextPart(said)])
        return ModelResponse(parts=[ToolCallPart(info.output_tools[0].name, said)])

    one = agent(guard, FunctionModel(answer), output_type=output_type)
    with current.use(mint(**token)):
        if allowed:
            assert go(one, "go").output in ("sent to jane", Order(what="cash"))
        else:
            with pytest.raises(UnexpectedModelBehavior):
                go(one, "go")


def test_an_output_function_is_asked_about_while_its_output_is_streamed(guard: ToolGuard) -> None:
    sent: list[str] = []

    def mail(to: str) -> str:
        sent.append(to)
        return f"sent to {to}"

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> Any:
        for at, text in enumerate(['{"to": "mal', "lo", 'ry"}']):
            yield {0: DeltaToolCall(name=info.output_tools[0].name if at == 0 else None, json_args=text)}

    async def run() -> None:
        async with agent(guard, FunctionModel(stream_function=stream), output_type=mail).run_stream("go") as result:
            async for _ in result.stream_output(debounce_by=None):
                pass

    with current.use(mint(mail={"output": {"in": ["jane"]}})), pytest.raises((UnexpectedModelBehavior, ModelRetry)):
        asyncio.run(run())
    assert sent == []


def test_of_several_output_functions_each_is_asked_about(guard: ToolGuard) -> None:
    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse(parts=[ToolCallPart(info.output_tools[1].name, {"to": "jane"})])

    one = agent(guard, FunctionModel(answer), output_type=[mail, post])
    with current.use(mint(mail={})), pytest.raises(UnexpectedModelBehavior):
        go(one, "go")
    with current.use(mint(post={})):
        assert go(one, "go").output == "posted to jane"


def test_what_the_provider_runs_cannot_be_asked_about(guard: ToolGuard) -> None:
    model = FunctionModel(
        lambda messages, info: ModelResponse(parts=[TextPart("done")]),
        profile={"supported_native_tools": frozenset({WebSearchTool})},
    )
    search = NativeTool(WebSearchTool())
    with current.use(mint(**{"*": {}})):
        with pytest.raises(GuardError, match="web_search"):
            go(agent(guard, model, capabilities=[search]), "go")
        with pytest.raises(GuardError, match="web_search"):
            go(agent(guard, model), "go", capabilities=[search])
        allowing = Agent(model, name=story.ORCHESTRATOR, capabilities=[TokenGuard(guard, native=["web_search"]), search])
        assert go(allowing, "go").output == "done"


@pytest.mark.parametrize("output_type", [BinaryImage, [str, BinaryImage]])
def test_nor_can_an_image_which_the_provider_makes_by_a_tool(output_type: Any, guard: ToolGuard) -> None:
    sent: list[Any] = []
    image = FilePart(content=BinaryImage(data=b"x", media_type="image/png"))
    model = FunctionModel(
        lambda messages, info: sent.append(1) or ModelResponse(parts=[image]),
        profile={"supports_image_output": True, "supported_native_tools": frozenset({ImageGenerationTool})},
    )
    with current.use(mint(**{"*": {}})):
        for settings in ({}, {"output_type": output_type}):
            made = agent(guard, model, **({} if settings else {"output_type": output_type}))
            with pytest.raises(GuardError, match="image_generation"):
                go(made, "go", **settings)
        assert sent == []
        allowing = Agent(model, name=story.ORCHESTRATOR, capabilities=[TokenGuard(guard, native=["image_generation"])])
        assert go(allowing, "go", output_type=output_type).output.data == b"x"


# --- what the model is told, and what a tool has ---------------------------------------------------------------------


def test_a_refusal_is_told_to_the_model_and_uses_up_no_retries(guard: ToolGuard) -> None:
    tool = Tool(take([]).function, max_retries=0)
    with current.use(mint(other={})):
        done = go(agent(guard, obeying(*[("take", {})] * 6), tool), "go")
    assert done.output == "done" and len(results(done.all_messages())) == 6
    assert set(results(done.all_messages())) == {
        "Not permitted: tool take is not among the tools of this task. Retrying will not help. "
        "Whoever gave you this task can grant more; do not look for another way."
    }


def order(pieces: int = 0) -> str:
    return str(pieces)


def test_limits_are_told_where_the_guard_says_so() -> None:
    """And an argument that is missing is not named if only the token has it."""
    for tell in (True, False):
        said = []
        for rule in ({"pieces": {"min": 1, "max": 9}}, {"pieces": {"any": True}, "more": {"any": True}}):
            with current.use(mint(order=rule)):
                one = agent(ToolGuard(verifier(), tell_limits=tell), obeying(("order", {"pieces": 10})), order)
                said += results(go(one, "go").all_messages())
        limits, missing = said
        assert ("from 1 to 9" in limits) is tell and "`pieces`" in limits and "`more`" not in missing


def rows(table: str) -> str:
    current.grant().authorize(Access(table=table, operation="select"))
    return "rows"


def test_what_a_tool_itself_is_refused_is_told_to_the_model(guard: ToolGuard) -> None:
    """In the words that are for it; an output function's as well."""
    with current.use(mint(rows={})):
        done = go(agent(guard, obeying(("rows", {"table": "hr"})), rows), "go")
        (said,) = results(done.all_messages())
        assert said.startswith("Not permitted") and done.output == "done"
        with pytest.raises(UnexpectedModelBehavior, match="output retries"):
            go(agent(guard, obeying(("final_result", {"table": "hr"})), output_type=rows), "go")


def ask(sql: str) -> str:
    raise mistake("syntax", "42601")


def test_a_mistake_in_a_statement_is_told_to_the_model(guard: ToolGuard) -> None:
    with current.use(mint(ask={})):
        done = go(agent(guard, obeying(("ask", {"sql": "selct"})), ask), "go")
    assert results(done.all_messages()) == [mistake("syntax").for_model()]


def test_a_retry_of_the_tool_itself_is_a_call_of_its_own() -> None:
    """Each is charged: the tool ran."""
    spent: list[int] = []

    def flaky() -> str:
        spent.append(1)
        raise ModelRetry("again")

    token = Issuer(KEYRING, clock=clock()).mint(
        subject="user:jane", agent="orchestrator", task="t", tools={"flaky": {}}, uses=2
    )
    guard = ToolGuard(verifier(ledger=MemoryLedger(shared=True, floor=0)))
    with current.use(token):
        go(agent(guard, obeying(*[("flaky", {})] * 3), Tool(flaky, max_retries=5)), "go")
    assert len(spent) == 2


def test_runs_at_the_same_time_do_not_see_each_others_tokens(guard: ToolGuard) -> None:
    """Tools in threads and in the loop; each has the grant of its own call, and holds its own run's token."""
    seen: dict[str, set[Any]] = {}
    meet = threading.Barrier(4, timeout=20)

    def threaded(who: str) -> str:
        meet.wait()
        note(who)
        return who

    async def looped(who: str) -> str:
        await asyncio.sleep(0.01)
        note(who)
        return who

    def note(who: str) -> None:
        grant = current.grant()
        seen.setdefault(who, set()).add((grant.issued.task, grant.actor.name, current.holding().token.unverified.task))

    async def one(task: str) -> None:
        who = {"subject": "user:jane", "agent": "orchestrator", "task": task, "tools": {"*": {}}}
        calls: list[Call] = [("threaded", {"who": task}), ("looped", {"who": task})]
        with current.use(Issuer(KEYRING, clock=clock()).mint(**who)):
            await agent(guard, obeying(calls, calls), threaded, looped).run("go")

    async def all_of_them() -> None:
        await asyncio.gather(*(one(f"task-{n}") for n in range(4)))

    asyncio.run(all_of_them())
    assert seen == {f"task-{n}": {(f"task-{n}", "orchestrator", f"task-{n}")} for n in range(4)}
    with pytest.raises(NoToken):
        current.holding()


# --- handing over ----------------------------------------------------------------------------------------------------


def test_a_sub_agent_gets_the_token_and_nothing_else(guard: ToolGuard) -> None:
    seen: list[Any] = []

    def look(ctx: RunContext[Any]) -> str:
        seen.append((ctx.deps, current.holding().token.unverified.holder, current.grant().actor.name))
        return "seen"

    def instructions(ctx: RunContext[Any]) -> str:
        with pytest.raises(NoToken):
            current.grant()  # what its caller was granted is not its own
        return "look"

    sub = agent(guard, obeying(("look", {})), look, name="sub agent", instructions=instructions)
    boss = agent(guard, obeying(("ask_sub_agent", {"task": "look"}), ("look", {})), delegate_to(sub, tools={"look": {}}), look)
    with current.use(mint(look={}, ask_sub_agent={})):
        go(boss, "go", deps="the whole database")
    assert seen == [(None, "sub-agent", "sub-agent"), ("the whole database", "orchestrator", "orchestrator")]


def test_dependencies_go_on_if_somebody_says_so(guard: ToolGuard) -> None:
    seen: list[Any] = []

    def look(ctx: RunContext[Any]) -> str:
        seen.append(ctx.deps)
        return "seen"

    sub = agent(guard, obeying(("look", {})), look, name="sub")
    ask = delegate_to(sub, name="ask", description="Ask.", deps=lambda ctx: ctx.deps[:3], tools={"look": {}})
    with current.use(mint(look={}, ask={})):
        go(agent(guard, obeying(("ask", {"task": "look"})), ask), "go", deps="the whole database")
    assert seen == ["the"]


def test_a_sub_agent_hands_on_in_turn(guard: ToolGuard, told: Told) -> None:
    reached: list[Any] = []
    reader = agent(guard, obeying(("take", {"what": "cash"}), ("take", {"what": "all"})), take(reached), name="reader")
    sub = agent(
        guard,
        obeying(("ask_reader", {"task": "go"})),
        delegate_to(reader, tools={"take": {"what": {"in": ["cash"]}}}),
        name="sub",
    )
    boss = agent(guard, obeying(("ask_sub", {"task": "go"})), delegate_to(sub, tools={"take": {}, "ask_reader": {}}))
    with current.use(mint(take={}, ask_sub={}, ask_reader={})):
        go(boss, "go")
    assert reached == ["cash"] and told.codes == ["allowed", "allowed", "allowed", "argument"]
    assert [actor.name for actor in told.decisions[-1].attribution.chain] == ["orchestrator", "sub", "reader"]  # type: ignore[union-attr]


def test_more_than_is_held_cannot_be_handed_on(guard: ToolGuard) -> None:
    sub = agent(guard, obeying(), name="sub")
    with current.use(mint(take={})):
        with pytest.raises(WideningError):
            asyncio.run(run_delegated(sub, "go", tools={"hr": {}}))
        assert asyncio.run(run_delegated(sub, "go", tools={"take": {}, "hr": {}}, clamp=True)).output == "done"
    with pytest.raises(NoToken):
        asyncio.run(run_delegated(sub, "go", tools={"take": {}}))


def test_what_has_no_guard_or_no_name_is_handed_nothing(guard: ToolGuard) -> None:
    bare: Agent[None, str] = Agent(obeying(), name="sub")
    with pytest.raises(GuardError, match="has no TokenGuard"):
        delegate_to(bare, tools={"take": {}})
    with current.use(mint(take={})), pytest.raises(GuardError, match="has no TokenGuard"):
        asyncio.run(run_delegated(bare, "go", tools={"take": {}}))
    with pytest.raises(GuardError, match="give the agent a name"):
        Agent(obeying(), capabilities=[TokenGuard(guard)])
    with pytest.raises(GuardError, match="give the agent a name"):
        go(Agent(obeying()), "go", capabilities=[TokenGuard(guard)], infer_name=False)


@pytest.mark.parametrize("name", ["sälés", "x" * 200, "  ", "a\nb:c!"])
def test_a_name_that_no_token_has_is_nobodys(name: str, guard: ToolGuard) -> None:
    reached: list[Any] = []
    with current.use(mint(take={})):
        go(agent(guard, obeying(("take", {})), take(reached), name=name), "go")
    assert reached == []


@pytest.mark.parametrize("name", ["filings", story.ORCHESTRATOR])
def test_an_agent_that_was_handed_nothing_hands_nothing_on(name: str, guard: ToolGuard) -> None:
    """It has no guard, so nobody refuses its calls; but what its caller holds is not its own, whatever its name."""
    reached: list[Any] = []
    sub = agent(guard, obeying(("take", {})), take(reached), name="sub")
    bare: Agent[None, str] = Agent(
        obeying(("ask_sub", {"task": "go"})), name=name, tools=[delegate_to(sub, tools={"take": {}})]
    )

    async def ask(task: str) -> str:
        return str((await bare.run(task)).output)

    with current.use(mint(ask={}, take={}, ask_sub={})), pytest.raises(GuardError, match="was given no token"):
        go(agent(guard, obeying(("ask", {"task": "go"})), ask), "go")
    assert reached == []


def test_a_sub_agent_of_its_callers_name_that_was_handed_nothing_may_do_nothing(guard: ToolGuard, told: Told) -> None:
    reached: list[Any] = []
    sub = agent(guard, obeying(("take", {})), take(reached))

    async def ask(task: str) -> str:
        return str((await sub.run(task)).output)

    with current.use(mint(ask={}, take={})):
        go(agent(guard, obeying(("ask", {"task": "go"})), ask), "go")
    assert told.codes == ["allowed", "caller"] and reached == []


def test_a_name_is_of_the_run_not_of_the_guard(guard: ToolGuard) -> None:
    """One TokenGuard for several agents; and an override of the name is a change of who runs."""
    reached: list[Any] = []
    shared = TokenGuard(guard)
    boss = Agent(obeying(("take", {})), name=story.ORCHESTRATOR, tools=[take(reached)], capabilities=[shared])
    other = Agent(obeying(("take", {})), name="other", tools=[take(reached)], capabilities=[shared])
    with current.use(mint(take={})):
        go(boss, "go")
        go(other, "go")
        with boss.override(name="other"):
            go(boss, "go")
    assert reached == ["all"]


def test_tokens_that_are_bound_to_keys_go_from_key_to_key() -> None:
    """Presented to the verifier by its name, with a proof for each call: each agent in the chain but the first is proven."""
    told, own, key, other = Told(), HolderKey.generate(), HolderKey.generate(), HolderKey.generate()
    guard = ToolGuard(verifier(audience="desk", replays=MemoryReplayStore(floor=0), audit=told))
    reached: list[Any] = []
    who = {"subject": "user:jane", "agent": "orchestrator", "task": "t", "tools": {"take": {}, "ask": {}}}
    token = Issuer(KEYRING, clock=clock()).mint(**who, key=own.public)
    sub = agent(guard, obeying(("take", {}), [("take", {}), ("take", {})]), take(reached), name="sub")
    boss = agent(guard, obeying(("ask", {"task": "go"})), delegate_to(sub, name="ask", key=key, tools={"take": {}}))
    with current.use(token, own):
        go(boss, "go")
    assert reached == ["all"] * 3 and told.codes == ["allowed"] * 4
    assert [actor.basis for actor in told.decisions[-1].attribution.chain] == ["issued", "proven"]  # type: ignore[union-attr]
    with current.use(token, other):  # a key that is not its own, and none
        go(agent(guard, obeying(("take", {})), take(reached)), "go")
    with current.use(token):
        go(agent(guard, obeying(("take", {})), take(reached)), "go")
    assert len(reached) == 3 and told.codes[4:] == ["bad_proof", "proof_missing"]


# --- either face of a verifier ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Grant", "AsyncGrant"])
def test_a_guard_takes_either_face_and_a_tool_gets_the_grant_of_it(kind: str) -> None:
    """With a bound token: each call is proven anew, and neither the text nor its proof reaches a tool."""
    told, own, shown = Told(), HolderKey.generate(), []
    guard = story.guards(told)[kind]

    async def rows(ctx: RunContext[Any]) -> str:
        shown.append(repr(ctx) + repr(ctx.agent) + repr(ctx.tool_manager))
        return await story.asking()

    who: dict[str, Any] = {"subject": "user:jane", "agent": "orchestrator", "task": "t", "tools": {"rows": {}}}
    token = Issuer(KEYRING, clock=clock()).mint(**who, tables=["sales"], operations=["select"], key=own.public)
    one = agent(guard, obeying(("rows", {}), ("rows", {}), ("other", {})), rows, Tool(lambda: "other", name="other"))
    with current.use(token, own):
        done = go(one, "go")
    said = results(done.all_messages())
    assert said[:2] == [f"{kind}, allowed, table"] * 2 and len(shown) == 2
    # Each call that is permitted asks for two tables in turn.
    assert told.codes == [*["allowed", "allowed", "table"] * 2, "tool"]
    assert "cap1" not in "".join(shown) + done.all_messages_json().decode()


def test_text_that_was_made_for_one_sending_is_not_held(guard: ToolGuard) -> None:
    own, reached = HolderKey.generate(), list[Any]()
    bound = Held(mint().attenuate(key=own.public), own)
    one = agent(guard, obeying(("take", {})), take(reached))
    with pytest.raises(TokenFormatError), current.use(bound.present(audience="desk"), own):
        go(one, "go")
    assert reached == []
    with current.use(mint(take={}).serialize()):
        go(one, "go")
    assert reached == ["all"]


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_no_token_gets_into_messages_or_reprs(guard: ToolGuard) -> None:
    shown: list[str] = []

    def look(ctx: RunContext[Any]) -> str:
        shown.append(repr(ctx) + repr(ctx.agent) + repr(ctx.capabilities) + repr(ctx.tool_manager))
        return "seen"

    sub = agent(guard, obeying(("look", {}), ("hr", {})), look, name="sub")
    boss = agent(
        guard, obeying(("ask", {"task": "look"}), ("look", {})), delegate_to(sub, name="ask", tools={"look": {}}), look
    )
    with current.use(mint(look={}, ask={})):
        done = go(boss, "go")
    shown += [done.all_messages_json().decode(), repr(done), repr(TokenGuard(guard))]
    assert len(shown) == 5 and "cap1" not in "".join(shown)


@pytest.mark.parametrize("wrong", [None, object(), verifier()])
def test_a_guard_is_a_tool_guard(wrong: Any) -> None:
    with pytest.raises(TypeError, match="expected a ToolGuard"):
        TokenGuard(wrong)
