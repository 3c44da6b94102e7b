"""openai-agents under guard: what the token permits runs, and no other tool does, however the agent comes by it or is run."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import gc
import json
import threading
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from agents import (
    Agent,
    CodeInterpreterTool,
    FileSearchTool,
    FunctionTool,
    HostedMCPTool,
    LocalShellTool,
    RunConfig,
    RunContextWrapper,
    Runner,
    WebSearchTool,
    add_trace_processor,
    function_tool,
    handoff,
    set_trace_processors,
    set_tracing_disabled,
    tool_namespace,
)
from agents.exceptions import ModelBehaviorError, UserError
from agents.mcp import MCPServer
from agents.testing import ScriptedModel, assistant_message, function_call
from agents.tool import ApplyPatchTool, CustomTool, ShellTool
from agents.tool_context import ToolContext
from agents.tracing import TracingProcessor
from mcp.types import CallToolResult, ListPromptsResult, TextContent
from mcp.types import Tool as MCPTool

from captoken import Access, Decision, Issuer, Token, TokenFormatError, TokenSet, WideningError, current
from captoken._verification.mistakes import mistake
from captoken.adapters import openai_agents
from captoken.adapters.openai_agents import (
    GuardedAgent,
    delegate_to,
    guarded,
    handoff_to,
    run_delegated,
)
from captoken.current import Held
from captoken.errors import DelegationError, GuardError, NoToken
from captoken.keys import HolderKey
from captoken.stores.memory import MemoryReplayStore
from captoken.tools import ToolGuard
from tests.adapters import story
from tests.fixtures import KEYRING, clock, verifier

Call = tuple[str, Any]
_ids = count()


class Told:
    """A trail that keeps the decisions themselves."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def record(self, decision: Decision) -> None:
        self.decisions.append(decision)

    @property
    def codes(self) -> list[str]:
        return [decision.code for decision in self.decisions]


class Spans(TracingProcessor):
    """What would go to the tracing back end."""

    def __init__(self) -> None:
        self.exported: list[Any] = []

    def on_trace_start(self, trace: Any) -> None:
        self.exported.append(trace.export())

    def on_trace_end(self, trace: Any) -> None:
        self.exported.append(trace.export())

    def on_span_start(self, span: Any) -> None: ...

    def on_span_end(self, span: Any) -> None:
        self.exported.append(span.export())

    def shutdown(self) -> None: ...

    def force_flush(self) -> None: ...


@pytest.fixture(autouse=True)
def untraced() -> Iterator[None]:
    set_trace_processors([])  # the one that is there by default sends traces to the network
    set_tracing_disabled(True)
    yield
    set_trace_processors([])


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def guard(told: Told) -> ToolGuard:
    return ToolGuard(verifier(audit=told))


def mint(**tools: Any) -> Token:
    who = {"subject": story.SUBJECT, "agent": story.ORCHESTRATOR, "task": story.TASK}
    return Issuer(KEYRING, clock=clock()).mint(**who, tools=tools or story.ROOT_TOOLS)


def obeying(*calls: Call | list[Call], final: str = "done") -> ScriptedModel:
    """A model that makes these calls, one response for each (a list is one response), and then says `final`."""
    responses = [call if isinstance(call, list) else [call] for call in calls]
    steps: list[Any] = [[function_call(*call, call_id=f"call-{next(_ids)}") for call in response] for response in responses]
    return ScriptedModel([*steps, [assistant_message(final)]])


def agent(guard: ToolGuard, model: ScriptedModel, *tools: Any, name: str = story.ORCHESTRATOR, **more: Any) -> GuardedAgent:
    return guarded(Agent(name=name, model=model, tools=list(tools), **more), guard)


def go(one: Agent[Any], prompt: Any = "go", **settings: Any) -> Any:
    return asyncio.run(Runner.run(one, prompt, **settings))


def results(done: Any) -> list[Any]:
    """What the model was told of its calls."""
    return [item.output for item in done.new_items if item.type == "tool_call_output_item"]


# --- the story -------------------------------------------------------------------------------------------------------


def subagents(guard: ToolGuard, desk: story.Desk) -> dict[str, GuardedAgent]:
    made = {}
    for name, tools in story.TOOLS.items():
        tool, arguments, _ = story.WORK[name]
        tried = [(tool, arguments) for tool, arguments, _, _ in story.INJECTED] if name == "filings-agent" else []
        model = obeying((tool, arguments), *tried, final=f"{name} is done")
        made[name] = agent(guard, model, *(function_tool(getattr(desk, tool)) for tool in tools), name=name)
    return made


def orchestrator(guard: ToolGuard, *tools: Any, at_once: bool = False) -> GuardedAgent:
    asks: list[Call] = [(ask, {"task": "your part"}) for ask in story.ASKS]
    return agent(guard, obeying(asks, final=story.REPORT) if at_once else obeying(*asks, final=story.REPORT), *tools)


def in_one_step(boss: Agent[Any]) -> str:
    return str(go(boss).final_output)


def synchronously(boss: Agent[Any]) -> str:
    """`run_sync` makes itself a loop and leaves it open: it gets one."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return str(Runner.run_sync(boss, "go").final_output)
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def streaming(boss: Agent[Any]) -> str:
    async def run() -> str:
        result = Runner.run_streamed(boss, "go")
        async for _ in result.stream_events():
            pass
        return str(result.final_output)

    return asyncio.run(run())


def streaming_after_the_block(boss: Agent[Any]) -> str:
    """A run belongs to the block that it was started in, wherever its events are read."""

    async def run() -> str:
        result = Runner.run_streamed(boss, "go")
        with current.nothing():
            async for _ in result.stream_events():
                pass
        return str(result.final_output)

    return asyncio.run(run())


def in_a_thread(boss: Agent[Any]) -> str:
    told: list[str] = []
    thread = threading.Thread(target=current.carry(lambda: told.append(in_one_step(boss))))
    thread.start()
    thread.join()
    return told[0]


WAYS = [in_one_step, synchronously, streaming, streaming_after_the_block, in_a_thread]


@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "all at once"])
@pytest.mark.parametrize("run", WAYS, ids=lambda way: way.__name__)
def test_the_story(run: Callable[[Agent[Any]], str], at_once: bool, guard: ToolGuard, told: Told) -> None:
    """Each sub-agent does its work, the injected one nothing else, and the report comes out."""
    tell(run, at_once, guard, told, mint())


def test_the_story_with_a_set_of_tokens(told: Told) -> None:
    """Nothing is written otherwise: the guard is shown the token of its own server."""
    tell(WAYS[0], True, story.guard_of_a_set(told), told, story.a_set())


def tell(run: Callable[[Agent[Any]], str], at_once: bool, guard: ToolGuard, told: Told, held: Token | TokenSet) -> None:
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


@pytest.mark.parametrize("as_tool", [False, True], ids=["a tool that runs it", "Agent.as_tool"])
@pytest.mark.parametrize("run", WAYS, ids=lambda way: way.__name__)
def test_a_hand_over_that_is_forgotten_leaves_nothing(
    run: Callable[[Agent[Any]], str], as_tool: bool, guard: ToolGuard, told: Told
) -> None:
    """The sub-agents run under the orchestrator's token, which permits what they try: and are refused it all the same."""
    desk = story.Desk()
    subs = subagents(guard, desk)

    def forgetful(ask: str, name: str) -> FunctionTool:
        if as_tool:
            return subs[name].as_tool(ask, "Ask.")

        async def run_it(task: str) -> str:
            return str((await Runner.run(subs[name], task)).final_output)

        return function_tool(run_it, name_override=ask)

    boss = orchestrator(guard, *(forgetful(ask, name) for ask, name in story.ASKS.items()))
    if as_tool:  # whose argument has another name
        boss.model = obeying(*((ask, {"input": "your part"}) for ask in story.ASKS), final=story.REPORT)
    with current.use(mint()):
        assert run(boss) == story.REPORT
    assert desk.reached == []
    work = {tool for tool, _, _ in story.WORK.values()}
    codes = [one.code for one in told.decisions if one.access and one.access.tool in work]
    assert codes == ["caller"] * 4


@pytest.mark.parametrize("run", WAYS, ids=lambda way: way.__name__)
def test_without_a_token_nothing_runs(run: Callable[[Agent[Any]], str], guard: ToolGuard) -> None:
    desk = story.Desk()
    run(agent(guard, obeying(("query_sales", {"region": "eu"})), function_tool(desk.query_sales)))
    assert desk.reached == []


# --- which tools -----------------------------------------------------------------------------------------------------


def take(reached: list[Any], **settings: Any) -> FunctionTool:
    def take(what: str = "all") -> str:
        """Take something."""
        reached.append(what)
        return f"took {what}"

    return function_tool(take, strict_mode=False, **settings)


class Server(MCPServer):
    """An MCP server in this process, as far as an agent sees one."""

    def __init__(self, reached: list[Any], name: str = "desk") -> None:
        super().__init__()
        self.reached, self._name = reached, name

    @property
    def name(self) -> str:
        return self._name

    async def connect(self) -> None: ...

    async def cleanup(self) -> None: ...

    async def list_tools(self, run_context: Any = None, agent: Any = None) -> list[MCPTool]:
        schema = {"type": "object", "properties": {"what": {"type": "string"}}}
        return [MCPTool(name="take", description="Take something.", inputSchema=schema)]

    async def call_tool(self, tool_name: str, arguments: dict[str, Any] | None, meta: Any = None) -> CallToolResult:
        self.reached.append((arguments or {}).get("what"))
        return CallToolResult(content=[TextContent(type="text", text="took it")])

    async def list_prompts(self) -> ListPromptsResult:
        return ListPromptsResult(prompts=[])

    async def get_prompt(self, name: str, arguments: Any = None) -> Any:
        raise NotImplementedError


def assigned(guard: ToolGuard, model: ScriptedModel, reached: list[Any]) -> GuardedAgent:
    one = agent(guard, model)
    one.tools = [take(reached)]
    return one


def by_hand(reached: list[Any]) -> FunctionTool:
    async def invoke(context: ToolContext[Any], text: str) -> str:
        reached.append(json.loads(text)["what"])
        return "took it"

    return FunctionTool("take", "Take something.", {"type": "object", "properties": {}}, invoke, strict_json_schema=False)


def narrow(reached: list[Any]) -> FunctionTool:
    """A tool whose invoker asks for less than the whole context."""

    async def invoke(context: RunContextWrapper[Any], text: str) -> str:
        reached.append(json.loads(text)["what"])
        return "took it"

    return FunctionTool("take", "Take something.", {"type": "object", "properties": {}}, invoke, strict_json_schema=False)


TOOLS: dict[str, Callable[[ToolGuard, ScriptedModel, list[Any]], GuardedAgent]] = {
    "its own": lambda guard, model, reached: agent(guard, model, take(reached)),
    "made by hand": lambda guard, model, reached: agent(guard, model, by_hand(reached)),
    "with less of a context": lambda guard, model, reached: agent(guard, model, narrow(reached)),
    "with a time limit": lambda guard, model, reached: agent(guard, model, dataclasses.replace(by_hand(reached), timeout_seconds=9)),
    "of an MCP server": lambda guard, model, reached: agent(guard, model, mcp_servers=[Server(reached)]),
    "assigned later": assigned,
    "of a clone": lambda guard, model, reached: agent(guard, obeying()).clone(model=model, tools=[take(reached)]),
    "of a copy": lambda guard, model, reached: copy.copy(agent(guard, model, take(reached))),
    "copied": lambda guard, model, reached: agent(guard, model, copy.copy(agent(guard, obeying(), take(reached)).tools[0])),
    "of another guarded agent": lambda guard, model, reached: agent(guard, model, *agent(guard, obeying(), take(reached), name="other").tools),
    "guarded again": lambda guard, model, reached: GuardedAgent("orchestrator", model=model, tools=agent(guard, model, take(reached)).tools, guard=guard),
}  # fmt: skip


@pytest.mark.parametrize("what, code", [("cash", "allowed"), ("all", "argument")])
@pytest.mark.parametrize("place", TOOLS)
def test_a_tool_is_asked_about_once_wherever_it_comes_from(
    place: str, what: str, code: str, guard: ToolGuard, told: Told
) -> None:
    reached: list[Any] = []
    with current.use(mint(take={"what": {"in": ["cash"]}})):
        go(TOOLS[place](guard, obeying(("take", {"what": what})), reached))
    assert told.codes == [code] and reached == (["cash"] if code == "allowed" else [])


def test_a_tool_of_a_namespace_has_its_whole_name(guard: ToolGuard, told: Told) -> None:
    reached: list[Any] = []
    tools = tool_namespace(name="desk", description="The desk.", tools=[take(reached)])
    model = ScriptedModel(
        [[function_call("take", {"what": "all"}, call_id="one", namespace="desk")], [assistant_message("done")]]
    )
    with current.use(mint(**{"desk.take": {}})):
        go(agent(guard, model, *tools))
    assert told.codes == ["allowed"] and reached == ["all"]


HOSTED: list[Any] = [
    WebSearchTool(),
    FileSearchTool(vector_store_ids=["v"]),
    CodeInterpreterTool({"type": "code_interpreter", "container": {"type": "auto"}}),
    HostedMCPTool({"type": "mcp", "server_label": "s", "server_url": "https://s.example", "require_approval": "never"}),
    LocalShellTool(executor=lambda request: "ran"),
    ShellTool(executor=lambda request: "ran"),
    ApplyPatchTool(editor=object()),  # type: ignore[arg-type]
    CustomTool(name="c", description="c", on_invoke_tool=lambda context, text: text),  # type: ignore[arg-type, return-value]
]


@pytest.mark.parametrize("tool", HOSTED, ids=lambda tool: type(tool).__name__)
def test_a_tool_that_something_else_runs_is_refused_when_the_agent_is_built(tool: Any, guard: ToolGuard) -> None:
    with pytest.raises(GuardError, match=type(tool).__name__):
        agent(guard, obeying(), tool)
    one = agent(guard, obeying())
    with pytest.raises(GuardError, match=type(tool).__name__):
        one.tools = [tool]
    with pytest.raises(GuardError, match=type(tool).__name__):
        one.clone(tools=[tool])
    one.tools.append(tool)
    with pytest.raises(GuardError, match=type(tool).__name__):
        go(one)


def test_what_no_guard_would_see_is_refused(guard: ToolGuard) -> None:
    reached: list[Any] = []
    one = agent(guard, obeying(("take", {})))
    one.tools.append(take(reached))
    with current.use(mint(take={})), pytest.raises(GuardError, match="added to the list"):
        go(one)
    with pytest.raises(GuardError, match="stored prompt"):
        agent(guard, obeying(), prompt={"id": "p"})
    one = agent(guard, obeying())
    one.prompt = {"id": "p"}
    with pytest.raises(GuardError, match="stored prompt"):
        go(one)
    with pytest.raises(GuardError, match="Special may run more"):
        guarded(type("Special", (Agent,), {})(name="s"), guard)
    with pytest.raises(TypeError, match="expected a ToolGuard"):
        guarded(Agent(name="s"), None)  # type: ignore[arg-type]
    assert reached == []


def test_a_sub_agent_without_a_guard_is_refused(guard: ToolGuard) -> None:
    bare = Agent(name="bare", model=obeying())
    for build in (
        lambda: agent(guard, obeying(), bare.as_tool("ask", "Ask.")),
        lambda: delegate_to(bare, tools={"take": {}}),  # type: ignore[arg-type]
        lambda: handoff_to(bare, tools={"take": {}}),  # type: ignore[arg-type]
        lambda: asyncio.run(run_delegated(bare, "go", tools={"take": {}})),  # type: ignore[arg-type]
    ):
        with current.use(mint(take={})), pytest.raises(GuardError, match="not guarded"):
            build()


def test_a_guarded_tool_runs_for_no_other_agent(guard: ToolGuard) -> None:
    """Nor for a guarded one under the name of the one that it was made for."""
    reached: list[Any] = []
    tools = agent(guard, obeying(), take(reached)).tools
    with current.use(mint(take={})):
        done = go(Agent(name=story.ORCHESTRATOR, model=obeying(("take", {})), tools=tools))
        assert results(done) == ["Not permitted: the agent that calls has no guard."]
        go(agent(guard, obeying(("take", {})), *tools, name="other"))
    assert reached == []


def test_a_name_that_the_model_invents_is_no_tool(guard: ToolGuard, told: Told) -> None:
    with current.use(mint(**{"*": {}})), pytest.raises(ModelBehaviorError):
        go(agent(guard, obeying(("rm", {})), take([])))
    assert told.codes == []


# --- with which arguments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, code",
    [
        ('{"what": "cash"}', "allowed"),
        ('{"what": "all"}', "argument"),
        ("{}", "argument"),
        ("", "argument"),
        ('{"what": "all", "what": "cash"}', "tool"),
        ('{"what": "cash", "what": "all"}', "tool"),
        ('{"what": "cash", "more": {"a": 1, "a": 2}}', "tool"),
        ('{"what": NaN}', "argument"),
        ('{"what": 1e400}', "argument"),
        ("[]", "tool"),
        ("null", "tool"),
        ('"cash"', "tool"),
        ("{what: cash}", "tool"),
        ('{"what": "cash"', "tool"),
        ('{"what": ' + "9" * 5000 + "}", "tool"),
    ],
    ids=lambda text: text[:30],
)
def test_only_one_json_object_with_each_name_once_is_arguments(text: str, code: str, guard: ToolGuard, told: Told) -> None:
    """The rest is read by one reader in one way and by the next in another. Nothing runs, and the run goes on."""
    reached: list[Any] = []
    with current.use(mint(take={"what": {"in": ["cash"]}})):
        assert go(agent(guard, obeying(("take", text)), take(reached))).final_output == "done"
    assert told.codes[-1] == code and reached == (["cash"] if code == "allowed" else [])


# --- approvals -------------------------------------------------------------------------------------------------------


def test_an_approval_is_no_permission(guard: ToolGuard, told: Told) -> None:
    """A person's yes does not stand in for the token's; what is approved runs by the token of then."""

    def asked(what: str) -> tuple[list[Any], GuardedAgent, Any]:
        reached: list[Any] = []
        one = agent(guard, obeying(("take", {"what": what})), take(reached, needs_approval=True))
        state = go(one).to_state()
        state.approve(state.get_interruptions()[0])
        return reached, one, state

    with current.use(mint(take={"what": {"in": ["cash"]}})):
        for what, ran in (("cash", ["cash"]), ("all", [])):
            reached, one, state = asked(what)
            assert go(one, state).final_output == "done" and reached == ran
        reached, one, state = asked("cash")
    assert go(one, state).final_output == "done" and reached == []
    assert told.codes == ["allowed", "argument", "malformed"]


@pytest.mark.parametrize("arguments, asked", [({"what": "cash"}, False), ({}, True), ({"what": "all"}, True)])
def test_a_policy_that_does_not_see_what_the_tool_gets_asks_a_person(arguments: Any, asked: bool, guard: ToolGuard) -> None:
    """As it does without a guard: where a default is filled in, a policy would not have seen it."""

    async def policy(context: Any, parameters: dict[str, Any], call_id: str) -> bool:
        return parameters.get("what") == "all"

    bare = Agent(name="bare", model=obeying(("take", arguments)), tools=[take([], needs_approval=policy)])
    assert bool(go(bare).interruptions) == asked
    with current.use(mint(take={})):
        one = agent(guard, obeying(("take", arguments)), take([], needs_approval=policy))
        assert bool(go(one).interruptions) == asked


# --- what the model is told, and what a tool has ---------------------------------------------------------------------


@function_tool
def order(pieces: int) -> str:
    """Order so many."""
    return str(pieces)


def test_limits_are_told_where_the_guard_says_so() -> None:
    """And an argument that is missing is named if the tool has it."""
    with current.use(mint(order={"pieces": {"min": 1, "max": 9}})):
        for tell in (True, False):
            one = agent(ToolGuard(verifier(), tell_limits=tell), obeying(("order", {"pieces": 10}), ("order", {})), order)
            limits, missing = results(go(one))
            assert ("from 1 to 9" in limits) is tell and "argument `pieces` of `order` is not stated" in missing


def test_a_refusal_is_the_tools_output(guard: ToolGuard) -> None:
    with current.use(mint(other={})):
        done = go(agent(guard, obeying(*[("take", {})] * 6), take([])))
    assert done.final_output == "done" and len(results(done)) == 6
    assert set(results(done)) == {
        "Not permitted: tool take is not among the tools of this task. Retrying will not help. "
        "Whoever gave you this task can grant more; do not look for another way."
    }


def test_what_a_tool_itself_is_refused_is_told_to_the_model_if_the_tool_lets_it_through(guard: ToolGuard) -> None:
    """The framework has words of its own for what a tool raises, unless the tool says that it has none."""

    def rows(table: str) -> str:
        current.grant().authorize(Access(table=table, operation="select"))
        return "rows"

    with current.use(mint(rows={})):
        for settings, begins in (({"failure_error_function": None}, "Not permitted"), ({}, "An error occurred")):
            done = go(agent(guard, obeying(("rows", {"table": "hr"})), function_tool(rows, **settings)))  # type: ignore[call-overload]
            (said,) = results(done)
            assert said.startswith(begins) and "hr" not in said and done.final_output == "done"


def test_a_mistake_in_a_statement_is_told_to_the_model_if_the_tool_lets_it_through(guard: ToolGuard) -> None:
    def ask(sql: str) -> str:
        raise mistake("syntax", "42601")

    with current.use(mint(ask={})):
        done = go(agent(guard, obeying(("ask", {"sql": "selct"})), function_tool(ask, failure_error_function=None)))
    assert results(done) == [mistake("syntax").for_model()]


def test_what_a_tool_raises_is_handled_as_without_a_guard(guard: ToolGuard) -> None:
    def fail() -> str:
        raise ValueError("no such thing")

    with current.use(mint(fail={})):
        bare = Agent(name="bare", model=obeying(("fail", {})), tools=[function_tool(fail)])
        assert results(go(agent(guard, obeying(("fail", {})), function_tool(fail)))) == results(go(bare))
        with pytest.raises(UserError, match="no such thing"):
            go(agent(guard, obeying(("fail", {})), function_tool(fail, failure_error_function=None)))


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
            streamed = Runner.run_streamed(
                agent(guard, obeying(calls, calls), function_tool(threaded), function_tool(looped)), "go"
            )
        async for _ in streamed.stream_events():
            pass

    async def all_of_them() -> None:
        await asyncio.gather(*(one(f"task-{n}") for n in range(4)))

    asyncio.run(all_of_them())
    assert seen == {f"task-{n}": {(f"task-{n}", "orchestrator", f"task-{n}")} for n in range(4)}
    with pytest.raises(NoToken):
        current.holding()


# --- handing over ----------------------------------------------------------------------------------------------------


def looker(seen: list[Any]) -> FunctionTool:
    def look(context: RunContextWrapper[Any]) -> str:
        seen.append((context.context, current.holding().token.unverified.holder, current.grant().actor.name))
        return "seen"

    return function_tool(look)


def test_a_sub_agent_gets_the_token_and_nothing_else(guard: ToolGuard) -> None:
    seen: list[Any] = []

    def instructions(context: Any, one: Any) -> str:
        with pytest.raises(NoToken):
            current.grant()  # what its caller was granted is not its own
        return "look"

    sub = agent(guard, obeying(("look", {})), looker(seen), name="sub agent", instructions=instructions)
    ask = delegate_to(sub, tools={"look": {}})
    boss = agent(guard, obeying(("ask_sub_agent", {"task": "look"}), ("look", {})), ask, looker(seen))
    with current.use(mint(look={}, ask_sub_agent={})):
        go(boss, context="the whole database")
    assert seen == [(None, "sub-agent", "sub-agent"), ("the whole database", "orchestrator", "orchestrator")]


def test_a_context_goes_on_if_somebody_says_so(guard: ToolGuard) -> None:
    seen: list[Any] = []
    sub = agent(guard, obeying(("look", {})), looker(seen), name="sub")
    ask = delegate_to(sub, name="ask", description="Ask.", context=lambda caller: caller.context[:3], tools={"look": {}})
    with current.use(mint(look={}, ask={})):
        go(agent(guard, obeying(("ask", {"task": "look"})), ask), context="the whole database")
    assert [context for context, *_ in seen] == ["the"]


def test_a_sub_agent_hands_on_in_turn(guard: ToolGuard, told: Told) -> None:
    reached: list[Any] = []
    reader = agent(guard, obeying(("take", {"what": "cash"}), ("take", {"what": "all"})), take(reached), name="reader")
    ask = delegate_to(reader, tools={"take": {"what": {"in": ["cash"]}}})
    sub = agent(guard, obeying(("ask_reader", {"task": "go"})), ask, name="sub")
    boss = agent(guard, obeying(("ask_sub", {"task": "go"})), delegate_to(sub, tools={"take": {}, "ask_reader": {}}))
    with current.use(mint(take={}, ask_sub={}, ask_reader={})):
        go(boss)
    assert reached == ["cash"] and told.codes == ["allowed", "allowed", "allowed", "argument"]
    assert [actor.name for actor in told.decisions[-1].attribution.chain] == ["orchestrator", "sub", "reader"]  # type: ignore[union-attr]


def test_more_than_is_held_cannot_be_handed_on(guard: ToolGuard) -> None:
    sub = agent(guard, obeying(), name="sub")
    with current.use(mint(take={})):
        with pytest.raises(WideningError):
            asyncio.run(run_delegated(sub, "go", tools={"hr": {}}))
        assert asyncio.run(run_delegated(sub, "go", tools={"take": {}, "hr": {}}, clamp=True)).final_output == "done"
    with pytest.raises(NoToken):
        asyncio.run(run_delegated(sub, "go", tools={"take": {}}))


def test_nobody_could_approve_what_a_sub_agent_asks_for(guard: ToolGuard) -> None:
    reached: list[Any] = []
    sub = agent(guard, obeying(("take", {})), take(reached, needs_approval=True), name="sub")
    boss = agent(guard, obeying(("ask_sub", {"task": "go"})), delegate_to(sub, tools={"take": {}}))
    with current.use(mint(take={}, ask_sub={})), pytest.raises((GuardError, UserError), match="waits for an approval"):
        go(boss)
    assert reached == []


@pytest.mark.parametrize("name", ["filings", story.ORCHESTRATOR])
def test_an_agent_that_was_handed_nothing_hands_nothing_on(name: str, guard: ToolGuard) -> None:
    """It has no guard, so nobody refuses its calls; but what its caller holds is not its own, whatever its name."""
    reached: list[Any] = []
    sub = agent(guard, obeying(("take", {})), take(reached), name="sub")
    bare = Agent(name=name, model=obeying(("ask_sub", {"task": "go"})), tools=[delegate_to(sub, tools={"take": {}})])

    async def ask(task: str) -> str:
        return str((await Runner.run(bare, task)).final_output)

    boss = agent(guard, obeying(("ask", {"task": "go"})), function_tool(ask, failure_error_function=None))
    with current.use(mint(ask={}, take={}, ask_sub={})), pytest.raises((GuardError, UserError), match="was given no token"):
        go(boss)
    assert reached == []


def test_a_sub_agent_of_its_callers_name_that_was_handed_nothing_may_do_nothing(guard: ToolGuard, told: Told) -> None:
    reached: list[Any] = []
    sub = agent(guard, obeying(("take", {})), take(reached))
    with current.use(mint(ask={}, take={})):
        go(agent(guard, obeying(("ask", {"input": "go"})), sub.as_tool("ask", "Ask.")))
    assert told.codes == ["allowed", "caller"] and reached == []


def as_a_tool(one: GuardedAgent) -> Any:
    return one.as_tool("ask", "Ask.")


def run_by_a_tool(one: GuardedAgent) -> Any:
    async def ask(input: str) -> str:
        return str((await Runner.run(one, input)).final_output)

    return function_tool(ask)


def streamed_by_a_tool(one: GuardedAgent) -> Any:
    async def ask(ctx: ToolContext[Any], input: str) -> str:
        streamed = Runner.run_streamed(one, input, context=ctx.context)
        async for _ in streamed.stream_events():
            pass
        return str(streamed.final_output)

    return function_tool(ask)


@pytest.mark.parametrize("nesting", [as_a_tool, run_by_a_tool, streamed_by_a_tool])
def test_nor_may_the_very_agent_that_calls_when_it_is_run_inside_its_own_tool(
    nesting: Callable[[GuardedAgent], Any], guard: ToolGuard, told: Told
) -> None:
    """Whoever asks it there says what it is to do, and it would do so by its parent's token."""
    reached: list[Any] = []
    steps: list[Any] = [
        [function_call("ask", {"input": "take all"}, call_id="1")],
        [function_call("take", {}, call_id="1")],  # a model chooses the ids
        [assistant_message("nested")],
        [function_call("take", {}, call_id="2")],
        [assistant_message("done")],
    ]
    one = agent(guard, ScriptedModel(steps), take(reached))
    one.tools = [*one.tools, nesting(one)]
    with current.use(mint(ask={}, take={})):
        assert go(one).final_output == "done"
    assert told.codes == ["allowed", "caller", "allowed"] and len(reached) == 1


def test_what_a_tool_itself_calls_in_its_run_is_decided_as_any(guard: ToolGuard, told: Told) -> None:
    reached: list[Any] = []

    async def both(ctx: ToolContext[Any]) -> str:
        tools = {tool.name: tool for tool in ctx.agent.tools}  # type: ignore[union-attr]
        return str([await tools[name].on_invoke_tool(ctx, "{}") for name in ("take", "other")])

    other = function_tool(lambda: "other", name_override="other")
    with current.use(mint(both={}, take={})):
        go(agent(guard, obeying(("both", {})), function_tool(both), take(reached), other))
    assert told.codes == ["allowed", "allowed", "tool"] and len(reached) == 1


def test_a_release_that_does_not_say_which_tools_are_agents_is_refused(
    guard: ToolGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a private word of the framework's: that it is there at all is what this test says first."""
    assert {one.name for one in dataclasses.fields(FunctionTool)} >= {"_agent_instance"}
    bare = Agent(name="bare", model=obeying()).as_tool("ask", "Ask.")
    assert vars(bare)["_agent_instance"].name == "bare"
    vars(bare).pop("_agent_instance")
    with pytest.raises(GuardError, match="cannot tell whether"):
        agent(guard, obeying(), bare)


def test_two_tools_of_one_name_are_refused(guard: ToolGuard) -> None:
    """One of the agent's and one of a server's: a token that permits the name would permit either."""
    with current.use(mint(take={})), pytest.raises(GuardError, match="two tools are called"):
        go(agent(guard, obeying(("take", {})), take([]), mcp_servers=[Server([])]))


@pytest.mark.parametrize("name", ["sälés", "x" * 200, "  ", "", "a\nb:c!"])
def test_a_name_that_no_token_has_is_nobodys(name: str, guard: ToolGuard) -> None:
    reached: list[Any] = []
    with current.use(mint(take={})):
        go(agent(guard, obeying(("take", {})), take(reached), name=name))
    assert reached == []


# --- handoffs --------------------------------------------------------------------------------------------------------


def test_a_handoff_that_hands_nothing_on_is_refused_when_the_agent_is_built(guard: ToolGuard) -> None:
    sub = agent(guard, obeying(), name="sub")
    for item in (sub, handoff(sub), Agent(name="bare"), handoff(Agent(name="bare"))):
        with pytest.raises(GuardError, match="handoff_to"):
            agent(guard, obeying(), handoffs=[item])
        one = agent(guard, obeying())
        one.handoffs.append(item)
        with pytest.raises(GuardError, match="handoff_to"):
            go(one)


@pytest.mark.parametrize("run", WAYS, ids=lambda way: way.__name__)
def test_on_a_handoff_the_token_goes_on_narrowed(run: Callable[[Agent[Any]], str], guard: ToolGuard, told: Told) -> None:
    """Down to a third agent, and back to the first, which has its own token again: each has its own powers at each time."""
    seen: list[Any] = []
    both = [take(seen), looker(seen)]
    third = agent(guard, obeying([("look", {}), ("take", {})], ("back", {})), *both, name="third")
    second = agent(guard, obeying([("look", {}), ("take", {})], ("to_third", {})), *both, name="second")
    second.handoffs = [handoff_to(third, name="to_third", tools={"look": {}})]
    first = agent(guard, obeying(("to_second", {}), [("take", {}), ("look", {})]), *both)
    first.handoffs = [handoff_to(second, name="to_second", tools={"look": {}, "take": {"what": {"in": ["cash"]}}})]
    third.handoffs = [handoff_to(first, name="back", tools={"look": {}})]
    with current.use(mint(look={}, take={"what": {"in": ["cash", "all"]}})):
        run(first)
    chains = [[actor.name for actor in one.attribution.chain] for one in told.decisions if one.attribution]
    assert chains == [["orchestrator", "second"]] * 2 + [["orchestrator", "second", "third"]] * 2 + [["orchestrator"]] * 2
    tried = [(one.access.tool, one.code) for one in told.decisions if one.access]  # two at a time, in any order
    assert [sorted(tried[at : at + 2]) for at in (0, 2, 4)] == [[("look", "allowed"), ("take", "argument")]] * 3
    assert [held for _, held, _ in seen] == ["second", "third", "orchestrator"]


def test_what_a_handoff_hands_on_is_for_its_run_alone(guard: ToolGuard, told: Told) -> None:
    """In a second run of the same task the same sub-agent holds nothing, unless it is handed something again."""
    reached: list[Any] = []
    sub = agent(guard, obeying(("take", {"what": "cash"})), take(reached), name="sub")
    boss = agent(guard, obeying(("to_sub", {})), handoffs=[handoff_to(sub, name="to_sub", tools={"take": {}})])

    async def run() -> None:
        with current.use(mint(take={})):
            first = await Runner.run(boss, "go")
            sub.model = obeying(("take", {"what": "all"}))
            await Runner.run(sub, "go")
            assert first.final_output == "done"

    asyncio.run(run())
    assert reached == ["cash"] and told.codes == ["allowed", "caller"]
    gc.collect()
    assert openai_agents._inside.get().handed.runs == {}  # nor is it kept


@pytest.mark.parametrize("name", ["other", story.ORCHESTRATOR])
@pytest.mark.parametrize("as_tool", [False, True], ids=["a tool that runs it", "Agent.as_tool"])
def test_a_handoff_of_an_agent_that_was_handed_nothing_hands_nothing_on(as_tool: bool, name: str, guard: ToolGuard) -> None:
    """Not its caller's token, which is current there; nor under its caller's name, in a run that shares its bookkeeping."""
    reached: list[Any] = []
    sub = agent(guard, obeying(("take", {})), take(reached), name="sub")
    middle = agent(guard, obeying(("to_sub", {})), name="middle")
    middle.handoffs = [handoff_to(sub, name="to_sub", tools={"take": {}})]

    async def run_it(input: str) -> str:
        return str((await Runner.run(middle, input)).final_output)

    ask = middle.as_tool("ask", "Ask.") if as_tool else function_tool(run_it, name_override="ask")
    boss = agent(guard, obeying(("ask", {"input": "go"})), ask)
    with current.use(mint(take={}, ask={})):
        go(boss)
    assert reached == []


def build_nested(guard: ToolGuard, reached: list[Any], pollute: bool) -> GuardedAgent:
    """sales, which may take cash alone, hands off to market: after it has asked a helper that hands off in turn, or not."""
    market = agent(guard, obeying(("take", {"what": "all"})), take(reached), name="market")
    ghost = agent(guard, obeying())
    helper = agent(guard, obeying(("back", {})), name="helper", handoffs=[handoff_to(ghost, name="back")])
    asks: list[Call] = [("help", {"input": "x"})] if pollute else []
    sales = agent(guard, obeying(*asks, ("to_market", {})), helper.as_tool("help", "Help."), name="sales")
    sales.handoffs = [handoff_to(market, name="to_market", tools={"take": {"what": {"any": True}}})]
    handed: dict[str, Any] = {"take": {"what": {"in": ["cash"]}}, "help": {}}
    return agent(guard, obeying(("to_sales", {})), handoffs=[handoff_to(sales, name="to_sales", tools=handed)])


@pytest.mark.parametrize("pollute", [False, True])
def test_a_run_inside_a_tool_call_does_not_change_who_holds_what_around_it(pollute: bool, guard: ToolGuard) -> None:
    reached: list[Any] = []
    with current.use(mint(take={}, help={})), pytest.raises(WideningError):
        go(build_nested(guard, reached, pollute))
    assert reached == []


def test_a_run_inside_a_tool_call_has_nothing_of_what_was_handed_around_it(guard: ToolGuard, told: Told) -> None:
    """Not even an agent of a name that was handed something there."""
    reached: list[Any] = []
    nested = agent(guard, obeying(("take", {})), take(reached), name="sales")
    market = agent(guard, obeying(("ask", {"input": "x"})), nested.as_tool("ask", "Ask."), name="market")
    sales = agent(guard, obeying(("to_market", {})), name="sales")
    sales.handoffs = [handoff_to(market, name="to_market", tools={"ask": {}})]
    boss = agent(guard, obeying(("to_sales", {})))
    boss.handoffs = [handoff_to(sales, name="to_sales", tools={"take": {}, "ask": {}})]
    with current.use(mint(take={}, ask={})):
        go(boss)
    assert told.codes == ["allowed", "tool"] and reached == []


def test_a_handoff_is_of_the_agent_that_has_it(guard: ToolGuard) -> None:
    """One object in the lists of several, and of one that gets another name; what is added to a list later is nobody's."""
    reached: list[Any] = []
    sub = agent(guard, obeying(("take", {})), take(reached), name="sub")
    one = handoff_to(sub, name="to_sub", tools={"take": {}})
    first, second = (agent(guard, obeying(("to_sub", {})), name=name, handoffs=[one]) for name in ("first", "second"))
    second.name = story.ORCHESTRATOR
    with current.use(mint(take={})):
        go(second)
        assert reached == ["all"]
        with pytest.raises(GuardError, match="'first' was given no token"):
            go(first)
    late = agent(guard, obeying(("to_sub", {})))
    late.handoffs.append(one)
    with current.use(mint(take={})), pytest.raises(GuardError, match=r"assign to agent\.handoffs"):
        go(late)
    with current.use(mint(take={})), pytest.raises(GuardError, match="None was given no token"):
        go(Agent(name=story.ORCHESTRATOR, model=obeying(("to_sub", {})), handoffs=[one]))
    assert reached == ["all"]


def test_each_handoff_narrows_by_its_own_word(guard: ToolGuard, told: Told) -> None:
    """A second handoff to the same agent, by less, does not leave it what the first gave it."""
    reached: list[Any] = []
    sub = agent(guard, obeying(("take", {"what": "all"}), ("back", {}), ("take", {"what": "all"})), take(reached), name="sub")
    boss = agent(guard, obeying(("more", {}), ("less", {})))
    boss.handoffs = [
        handoff_to(sub, name="more", tools={"take": {}}),
        handoff_to(sub, name="less", tools={"take": {"what": {"in": ["cash"]}}}),
    ]
    sub.handoffs = [handoff_to(boss, name="back", tools={"take": {}})]
    with current.use(mint(take={})):
        go(boss)
    assert reached == ["all"] and told.codes == ["allowed", "argument"]


def test_a_handoff_of_more_than_is_held_ends_the_run(guard: ToolGuard) -> None:
    sub = agent(guard, obeying(), name="sub")
    boss = agent(guard, obeying(("to_sub", {})), handoffs=[handoff_to(sub, name="to_sub", tools={"hr": {}})])
    with current.use(mint(take={})), pytest.raises(WideningError):
        go(boss)
    boss.model = obeying(("to_sub", {}))
    with pytest.raises(NoToken):
        go(boss)
    boss = agent(guard, obeying(("to_sub", {})), handoffs=[handoff_to(sub, name="to_sub", tools={"take": {}})])
    who = {"subject": "user:jane", "agent": "orchestrator", "task": "t", "tools": {"take": {}}}
    with current.use(Issuer(KEYRING, clock=clock()).mint(**who, depth=0)), pytest.raises(DelegationError):
        go(boss)


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
        go(boss)
    assert reached == ["all"] * 3 and told.codes == ["allowed"] * 4
    assert [actor.basis for actor in told.decisions[-1].attribution.chain] == ["issued", "proven"]  # type: ignore[union-attr]
    with current.use(token, other):  # a key that is not its own, and none
        go(agent(guard, obeying(("take", {})), take(reached)))
    with current.use(token):
        go(agent(guard, obeying(("take", {})), take(reached)))
    assert len(reached) == 3 and told.codes[4:] == ["bad_proof", "proof_missing"]


# --- either face of a verifier ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Grant", "AsyncGrant"])
def test_a_guard_takes_either_face_and_a_tool_gets_the_grant_of_it(kind: str) -> None:
    """With a bound token: each call is proven anew, and neither the text nor its proof reaches a tool."""
    told, own, shown = Told(), HolderKey.generate(), []
    guard = story.guards(told)[kind]

    async def rows(context: ToolContext[Any]) -> str:
        shown.append(repr(context) + repr(context.agent) + repr(context.run_config))
        return await story.asking()

    def other() -> str:
        return "other"

    who: dict[str, Any] = {"subject": "user:jane", "agent": "orchestrator", "task": "t", "tools": {"rows": {}}}
    token = Issuer(KEYRING, clock=clock()).mint(**who, tables=["sales"], operations=["select"], key=own.public)
    one = agent(guard, obeying(("rows", {}), ("rows", {}), ("other", {})), function_tool(rows), function_tool(other))
    with current.use(token, own):
        done = go(one)
    said = results(done)
    assert said[:2] == [f"{kind}, allowed, table"] * 2 and said[2].startswith("Not permitted") and len(shown) == 2
    # Each call that is permitted asks for two tables in turn.
    assert told.codes == [*["allowed", "allowed", "table"] * 2, "tool"]
    assert "cap1" not in "".join(shown) + json.dumps(done.to_input_list())


def test_text_that_was_made_for_one_sending_is_not_held(guard: ToolGuard) -> None:
    own, reached = HolderKey.generate(), list[Any]()
    bound = Held(mint().attenuate(key=own.public), own)
    with pytest.raises(TokenFormatError), current.use(bound.present(audience="desk"), own):
        go(agent(guard, obeying(("take", {})), take(reached)))
    assert reached == []
    with current.use(mint(take={}).serialize()):
        go(agent(guard, obeying(("take", {})), take(reached)))
    assert reached == ["all"]


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_no_token_gets_into_traces_messages_or_reprs(guard: ToolGuard) -> None:
    spans, shown = Spans(), []
    set_tracing_disabled(False)
    set_trace_processors([])
    add_trace_processor(spans)

    def look(context: ToolContext[Any]) -> str:
        shown.append(repr(context) + repr(context.agent) + repr(context.run_config))
        return "seen"

    sub = agent(guard, obeying(("look", {}), ("look", {})), function_tool(look), name="sub")
    third = agent(guard, obeying(("look", {})), function_tool(look), name="third")
    boss = agent(guard, obeying(("ask", {"task": "look"}), ("to_third", {})), delegate_to(sub, name="ask", tools={"look": {}}))
    boss.handoffs = [handoff_to(third, name="to_third", tools={"look": {}})]
    with current.use(mint(look={}, ask={})):
        done = go(boss, run_config=RunConfig(trace_include_sensitive_data=True))
    shown += [
        repr(done),
        json.dumps(done.to_input_list()),
        json.dumps(done.to_state().to_json()),
        repr(boss),
        repr(spans.exported),
    ]
    assert len(shown) == 8 and len(spans.exported) > 8
    assert "cap1" not in "".join(shown)
