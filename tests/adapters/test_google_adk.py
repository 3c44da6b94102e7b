"""Google ADK under guard: what the token permits runs, and no other tool does, whoever's the agent is. In an environment of its own."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

pytest.importorskip("google.adk")

from google.adk.agents import LlmAgent
from google.adk.agents.context import Context
from google.adk.agents.invocation_context import InvocationContext
from google.adk.code_executors import BuiltInCodeExecutor, UnsafeLocalCodeExecutor
from google.adk.events.event import Event
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.runners import InMemoryRunner, Runner
from google.adk.sessions import InMemorySessionService
from google.adk.tools import FunctionTool, google_search
from google.adk.tools.agent_tool import AgentTool
from google.adk.tools.base_tool import BaseTool
from google.genai import types

from captoken import Access, AsyncVerifier, Decision, Issuer, Keyring, Token, Verifier, WideningError, current
from captoken._verification.mistakes import mistake
from captoken.adapters.google_adk import TokenGuard, delegate_to, requests_of
from captoken.errors import GuardError
from captoken.keys import HolderKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from captoken.tools import ToolGuard
from tests.adapters.consents import LOOKUP, MAIL, REFUND, Desk, Stopped
from tests.adapters.consents import Call as Made
from tests.adapters.interleaving import claim
from tests.fixtures import KEYRING, clock, verifier

pytestmark = pytest.mark.filterwarnings("ignore")  # the framework's own

Call = tuple[str, dict[str, Any]]


class Told:
    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def record(self, decision: Decision) -> None:
        self.decisions.append(decision)

    @property
    def codes(self) -> list[str]:
        return [decision.code for decision in self.decisions]


class Obeying(BaseLlm):
    """A model that makes these calls, one list for each turn, and is then done."""

    steps: list[list[Call]]
    turns: int = 0

    async def generate_content_async(self, llm_request: Any, stream: bool = False) -> Any:
        self.turns += 1
        calls = self.steps.pop(0) if self.steps else []
        parts = [types.Part.from_function_call(name=name, args=args) for name, args in calls] or [types.Part(text="done")]
        yield LlmResponse(content=types.Content(role="model", parts=parts))


def obeying(*calls: Call | list[Call]) -> Obeying:
    return Obeying(model="fake", steps=[call if isinstance(call, list) else [call] for call in calls])


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def guard(told: Told) -> ToolGuard:
    return ToolGuard(verifier(audit=told))


def mint(**tools: Any) -> Token:
    return Issuer(KEYRING, clock=clock()).mint(subject="user:jane", agent="orchestrator", task="q3-risk", tools=tools)


def agent(model: Obeying, *tools: Any, name: str = "orchestrator", **more: Any) -> LlmAgent:
    return LlmAgent(name=name, model=model, tools=list(tools), **more)


def go(one: Any, *plugins: BasePlugin) -> list[Any]:
    """What the model was told of its calls, in the outermost run."""

    async def main() -> list[Any]:
        runner = InMemoryRunner(one, app_name="desk", plugins=list(plugins))
        session = await runner.session_service.create_session(app_name="desk", user_id="jane")
        message = types.Content(role="user", parts=[types.Part(text="go")])
        said = []
        async for event in runner.run_async(user_id="jane", session_id=session.id, new_message=message):
            said += [response.response for response in event.get_function_responses()]
        return said

    return asyncio.run(main())


def take(reached: list[Any]) -> Any:
    def take(what: str = "all") -> str:
        """Take something."""
        reached.append((what, current.grant().actor.name))
        return f"took {what}"

    return take


def refused(said: Any) -> bool:
    return str(said["error"]).startswith("Not permitted")


def test_a_tool_runs_if_the_token_permits_the_call_and_under_its_grant(guard: ToolGuard, told: Told) -> None:
    reached: list[Any] = []
    calls = [("take", {"what": "cash"}), ("take", {"what": "all"}), ("take", {})]
    with current.use(mint(take={"what": {"in": ["cash"]}})):
        said = go(agent(obeying(*calls), take(reached)), TokenGuard(guard))
    assert told.codes == ["allowed", "argument", "argument"] and reached == [("cash", "orchestrator")]
    assert said[0] == {"result": "took cash"} and refused(said[1])


def test_without_a_token_nothing_runs(guard: ToolGuard) -> None:
    reached: list[Any] = []
    said = go(agent(obeying(("take", {})), take(reached)), TokenGuard(guard))
    assert reached == [] and "error" in said[0]


def test_calls_at_once_are_each_decided_by_themselves(guard: ToolGuard, told: Told) -> None:
    reached: list[Any] = []
    with current.use(mint(take={"what": {"in": ["a", "c"]}})):
        said = go(agent(obeying([("take", {"what": what}) for what in "abc"]), take(reached)), TokenGuard(guard))
    assert sorted(told.codes) == ["allowed", "allowed", "argument"] and [what for what, _ in sorted(reached)] == ["a", "c"]
    assert ["error" in one for one in said] == [False, True, False]


class Changing(BasePlugin):
    """Somebody's plugin, listed after the guard, that changes what a tool gets."""

    def __init__(self) -> None:
        super().__init__(name="changing")

    async def before_tool_callback(self, *, tool: Any, tool_args: dict[str, Any], tool_context: Any) -> None:
        tool_args["what"] = "all"


def changing(tool: Any, args: dict[str, Any], tool_context: Any) -> None:
    args["what"] = "all"


@pytest.mark.parametrize("by", ["plugin", "callback"])
def test_what_a_later_callback_makes_of_a_call_is_asked_about(by: str, guard: ToolGuard, told: Told) -> None:
    reached: list[Any] = []
    plugins = [TokenGuard(guard), Changing()] if by == "plugin" else [TokenGuard(guard)]
    more = {"before_tool_callback": changing} if by == "callback" else {}
    with current.use(mint(take={"what": {"in": ["cash"]}})):
        said = go(agent(obeying(("take", {"what": "cash"})), take(reached), **more), *plugins)
    assert told.codes == ["allowed", "argument"] and reached == [] and refused(said[0])


def test_numbers_that_are_equal_are_not_the_same_argument(guard: ToolGuard, told: Told) -> None:
    reached: list[Any] = []

    def truly(tool: Any, args: dict[str, Any], tool_context: Any) -> None:
        args["what"] = True

    with current.use(mint(take={"what": {"in": [1]}})):
        go(agent(obeying(("take", {"what": 1})), take(reached), before_tool_callback=truly), TokenGuard(guard))
    assert told.codes == ["allowed", "argument"] and reached == []


def test_a_call_is_charged_once(told: Told) -> None:
    ledger = MemoryLedger(shared=True, floor=0)
    guard = ToolGuard(verifier(audit=told, ledger=ledger))
    reached: list[Any] = []
    root = Issuer(KEYRING, clock=clock()).mint(subject="user:jane", agent="orchestrator", task="t", tools={"take": {}}, uses=2)
    with current.use(root):
        go(agent(obeying(*[("take", {})] * 3), take(reached)), TokenGuard(guard))
    assert told.codes == ["allowed", "allowed", "budget_exhausted"] and len(reached) == 2


def test_an_invented_name_and_another_kind_of_tool_are_asked_about(guard: ToolGuard, told: Told) -> None:
    class Own(BaseTool):
        def __init__(self) -> None:
            super().__init__(name="own", description="Own.")

        def _get_declaration(self) -> Any:
            return types.FunctionDeclaration(name="own", description="Own.")

        async def run_async(self, *, args: Any, tool_context: Any) -> Any:
            return {"holder": current.grant().actor.name}

    with current.use(mint(own={})):
        said = go(agent(obeying(("own", {}), ("invented", {})), Own()), TokenGuard(guard))
    assert said[0] == {"holder": "orchestrator"} and refused(said[1]) and told.codes == ["allowed", "tool"]


def test_what_a_tool_itself_is_refused_is_told_to_the_model(guard: ToolGuard) -> None:
    def rows(table: str) -> str:
        """Rows."""
        current.grant().authorize(Access(table=table, operation="select"))
        return "rows"

    with current.use(mint(rows={})):
        (said,) = go(agent(obeying(("rows", {"table": "hr"})), rows), TokenGuard(guard))
    assert refused(said) and "hr" not in said["error"].replace("table hr", "")


def test_a_mistake_in_a_statement_is_told_to_the_model(guard: ToolGuard) -> None:
    def ask(sql: str) -> str:
        """Ask."""
        raise mistake("syntax", "42601")

    with current.use(mint(ask={})):
        (said,) = go(agent(obeying(("ask", {"sql": "selct"})), ask), TokenGuard(guard))
    assert said == {"error": mistake("syntax").for_model()}


def test_a_sub_agent_is_handed_a_narrowed_token(guard: ToolGuard, told: Told) -> None:
    reached: list[Any] = []
    sub = agent(obeying([("take", {"what": "cash"}), ("take", {"what": "all"})]), take(reached), name="sales_agent", description="Sells.")
    ask = delegate_to(sub, tools={"take": {"what": {"in": ["cash"]}}}, expires_in=60)
    with current.use(mint(take={}, sales_agent={})):
        go(agent(obeying(("sales_agent", {"request": "sell"}), ("take", {"what": "all"})), ask, take(reached)), TokenGuard(guard))
    assert told.codes == ["allowed", "allowed", "argument", "allowed"]
    assert reached == [("cash", "sales_agent"), ("all", "orchestrator")]


def test_a_set_is_handed_to_a_sub_agent_as_a_token_is(told: Told) -> None:
    """The guard is shown the token of its own server. A tool that calls another server presents that one's, narrowed alike."""
    reached: list[Any] = []
    sent: list[str] = []

    def report() -> str:
        """Ask the warehouse."""
        sent.append(current.holding().present(audience="warehouse"))
        return "asked"

    tools = {"take": {}, "report": {}, "sales_agent": {}}
    servers: dict[str, Any] = {"desk": {"tools": tools}, "warehouse": {"tables": ["sales", "hr"], "operations": ["select"]}}
    held = Issuer(KEYRING, clock=clock()).mint_set(subject="user:jane", agent="orchestrator", task="q3-risk", servers=servers)
    guard = ToolGuard(Verifier(KEYRING.for_audience("desk"), "desk", clock=clock(), audit=told))
    turns = obeying([("take", {"what": "cash"}), ("take", {"what": "all"}), ("report", {})])
    sub = agent(turns, take(reached), report, name="sales_agent", description="Sells.")
    ask = delegate_to(sub, tools={"take": {"what": {"in": ["cash"]}}, "report": {}}, tables=["sales"], expires_in=60)
    with current.use(held):
        go(agent(obeying(("sales_agent", {"request": "sell"}), ("take", {"what": "all"})), ask, take(reached)), TokenGuard(guard))
    assert told.codes == ["allowed", "allowed", "argument", "allowed", "allowed"]
    assert reached == [("cash", "sales_agent"), ("all", "orchestrator")]
    warehouse = Verifier(KEYRING.for_audience("warehouse"), "warehouse", clock=clock())
    (text,) = sent
    answers = [warehouse.check(text, Access(table=table, operation="select")) for table in ("sales", "hr")]
    assert [answer.code for answer in answers] == ["allowed", "table"]
    assert [actor.name for actor in answers[0].grant.chain] == ["orchestrator", "sales_agent"]


@pytest.mark.parametrize("name", ["sales_agent", "orchestrator"])
def test_a_sub_agent_that_was_handed_nothing_may_do_nothing(name: str, guard: ToolGuard, told: Told) -> None:
    """By ADK's own AgentTool, under a name of its own or under its caller's."""
    reached: list[Any] = []
    sub = agent(obeying(("take", {})), take(reached), name=name)
    with current.use(mint(take={}, **{name: {}})):
        go(agent(obeying((name, {"request": "go"})), AgentTool(sub)), TokenGuard(guard))
    assert told.codes == ["allowed", "caller"] and reached == []


def test_nor_may_one_that_the_conversation_was_transferred_to(guard: ToolGuard, told: Told) -> None:
    reached: list[Any] = []
    sub = agent(obeying(("take", {})), take(reached), name="sales_agent", description="Sells.")
    boss = agent(obeying(("transfer_to_agent", {"agent_name": "sales_agent"})), sub_agents=[sub])
    with current.use(mint(take={}, transfer_to_agent={})):
        go(boss, TokenGuard(guard))
    assert told.codes == ["allowed", "caller"] and reached == []


def test_more_than_is_held_is_not_handed_on_and_without_a_guard_nothing_is(guard: ToolGuard) -> None:
    reached: list[Any] = []
    sub = agent(obeying(("take", {})), take(reached), name="sales_agent")
    ask = delegate_to(sub, tools={"hr": {}})
    with current.use(mint(take={}, sales_agent={})):
        with pytest.raises(WideningError):
            go(agent(obeying(("sales_agent", {"request": "go"})), ask), TokenGuard(guard))
        bare = delegate_to(sub, tools={"take": {}})
        with pytest.raises(GuardError, match="without a TokenGuard"):
            go(agent(obeying(("sales_agent", {"request": "go"})), bare))
    assert reached == []


def test_a_tool_that_was_guarded_once_does_not_run_without_a_guard(guard: ToolGuard, told: Told) -> None:
    reached: list[Any] = []
    shared = FunctionTool(take(reached))
    with current.use(mint(take={})):
        go(agent(obeying(("take", {})), shared), TokenGuard(guard))
        with pytest.raises(GuardError, match="'take' was guarded in another run"):
            go(agent(obeying(("take", {})), shared))
        go(agent(obeying(("take", {})), shared), TokenGuard(guard))
    assert len(reached) == 2 and told.codes == ["allowed"] * 2


def test_a_guard_for_each_request_asks_once_however_many_came_before(told: Told) -> None:
    """A tool outlives its guards: none asks, or charges, for those before it."""
    ledger = MemoryLedger(shared=True, floor=0)
    guard = ToolGuard(verifier(audit=told, ledger=ledger))
    reached: list[Any] = []
    shared = FunctionTool(take(reached))
    model = Obeying(model="fake", steps=[step for _ in range(21) for step in ([("take", {})], [])])
    root = Issuer(KEYRING, clock=clock()).mint(subject="user:jane", agent="orchestrator", task="t", tools={"take": {}}, uses=20)

    async def main() -> None:
        one = agent(model, shared)
        message = types.Content(role="user", parts=[types.Part(text="go")])
        for number in range(21):
            runner = InMemoryRunner(one, app_name="desk", plugins=[TokenGuard(guard)])
            await runner.session_service.create_session(app_name="desk", user_id="jane", session_id=f"s{number}")
            async for _ in runner.run_async(user_id="jane", session_id=f"s{number}", new_message=message):
                pass

    with current.use(root):
        asyncio.run(main())
    assert told.codes == ["allowed"] * 20 + ["budget_exhausted"] and len(reached) == 20


def test_two_keyrings_share_a_tool_and_each_run_asks_its_own(told: Told) -> None:
    """The other keyring's guard, which could not read this token, is not asked."""
    other = Keyring.generate()
    reached: list[Any] = []
    shared = FunctionTool(take(reached))
    whose = [(KEYRING, guard_of(KEYRING, told)), (other, guard_of(other, told))]
    for keyring, guard in whose * 2:
        root = Issuer(keyring, clock=clock()).mint(subject="user:jane", agent="orchestrator", task="t", tools={"take": {}})
        with current.use(root):
            go(agent(obeying(("take", {})), shared), TokenGuard(guard))
    assert told.codes == ["allowed"] * 4 and len(reached) == 4


def guard_of(keyring: Keyring, told: Told) -> ToolGuard:
    return ToolGuard(Verifier(keyring, clock=clock(), audit=told))


def test_two_guards_of_one_run_are_each_asked_once(told: Told) -> None:
    strict = Told()
    guards = [TokenGuard(guard_of(KEYRING, told)), TokenGuard(guard_of(KEYRING, strict), name="second")]
    reached: list[Any] = []
    with current.use(mint(take={"what": {"in": ["cash"]}})):
        said = go(agent(obeying(("take", {"what": "cash"}), ("take", {"what": "all"})), take(reached)), *guards)
    assert told.codes == ["allowed", "argument"] and strict.codes == ["allowed"] and len(reached) == 1 and refused(said[1])
    with current.use(mint(take={"what": {"in": ["cash"]}})):
        go(agent(obeying(("take", {"what": "cash"})), take(reached), before_tool_callback=changing), *guards)
    assert told.codes[2:] == ["allowed", "argument"] and strict.codes[1:] == ["allowed"] and len(reached) == 1


def test_a_copy_of_a_guarded_tool_is_asked_about_by_its_own_name(guard: ToolGuard, told: Told) -> None:
    """Toolsets with a prefix copy their tools: what is run, and asked about when it is changed, is the copy."""
    reached: list[Any] = []
    tool = FunctionTool(take(reached))
    with current.use(mint(take={}, sales_take={})):
        go(agent(obeying(("take", {})), tool), TokenGuard(guard))
        other = copy.copy(tool)
        other.name, other.func = "sales_take", take(sold := [])
        changed = {"before_tool_callback": changing}
        go(agent(obeying(("sales_take", {})), other, **changed), TokenGuard(guard))
    asked = [decision.access.tool for decision in told.decisions if decision.access]
    assert asked == ["take", "sales_take", "sales_take"] and len(reached) == 1 and sold == [("all", "orchestrator")]


@pytest.mark.parametrize(
    ("more", "kind"),
    [({"tools": [google_search]}, "google_search"), ({"code_executor": UnsafeLocalCodeExecutor()}, "code_executor"),
     ({"code_executor": BuiltInCodeExecutor()}, "code_executor")],
)  # fmt: skip
def test_what_no_guard_sees_ends_the_run_before_anything_is_sent(more: dict[str, Any], kind: str, guard: ToolGuard) -> None:
    def one() -> LlmAgent:
        model = obeying()
        model.model = "gemini-2.5-flash"
        return LlmAgent(name="orchestrator", model=model, **more)

    with current.use(mint(**{"*": {}})):
        refusing = one()
        with pytest.raises(RuntimeError, match=kind) as caught:
            go(refusing, TokenGuard(guard))
        assert isinstance(caught.value.__cause__, GuardError) and refusing.model.turns == 0
        allowed = one()
        go(allowed, TokenGuard(guard, native=[kind, "code_execution"]))
        assert allowed.model.turns == 1


def test_a_bound_token_is_proven_at_each_call(told: Told) -> None:
    key, child = HolderKey.from_bytes(bytes(range(32))), HolderKey.from_bytes(bytes(range(1, 33)))
    guard = ToolGuard(AsyncVerifier(KEYRING, "desk", clock=clock(), audit=told, replays=MemoryReplayStore(floor=0)))
    got: list[str] = []

    def look() -> str:
        """Look."""
        got.append(str(current.grant().actor.basis))
        return "seen"

    sub = agent(obeying(("look", {}), ("look", {})), look, name="sales_agent")
    ask = delegate_to(sub, tools={"look": {}}, key=child)
    root = Issuer(KEYRING, clock=clock()).mint(
        subject="user:jane", agent="orchestrator", task="t", tools={"look": {}, "sales_agent": {}}, key=key.public
    )
    with current.use(root, key):
        go(agent(obeying(("sales_agent", {"request": "go"})), ask), TokenGuard(guard))
    assert told.codes == ["allowed"] * 3 and got == ["proven"] * 2


def test_no_token_is_in_events_or_state(guard: ToolGuard) -> None:
    said: list[Any] = []
    with current.use(mint(take={"what": {"in": ["cash"]}})) as held:
        said = go(agent(obeying(("take", {"what": "cash"}), ("take", {})), take([])), TokenGuard(guard))
        assert held.token.serialize()[:40] not in str(said) and "cap1_" not in str(said)


@pytest.mark.parametrize("wrong", [None, verifier(), "guard"])
def test_misuse_is_told_at_once(wrong: Any, guard: ToolGuard) -> None:
    with pytest.raises(TypeError, match="expected a ToolGuard"):
        TokenGuard(wrong)
    with pytest.raises(TypeError, match="native"):
        TokenGuard(guard, native="google_search")


def test_the_names_of_the_framework_that_the_guard_stands_on_are_there() -> None:
    """By name: where one is gone, a call would go past the guard."""
    for name in ("before_tool_callback", "before_model_callback", "before_agent_callback", "on_tool_error_callback"):
        assert name in vars(BasePlugin) and name in vars(TokenGuard)
    assert "get_invocation_context" in vars(Context) and "plugin_manager" in InvocationContext.model_fields
    assert "run_async" in vars(BaseTool) and AgentTool(agent(obeying())).include_plugins


# --- consents: rule 7 ------------------------------------------------------------------------------------------------


class Session:
    """One session that is stored, and runners that are made anew for each run of it."""

    def __init__(self, desk: Desk, *, pause: bool = True) -> None:
        self.desk, self.pause = desk, pause
        self.service = InMemorySessionService()

    calls: list[Call] = []

    def agents(self, steps: list[list[Call]]) -> Any:
        desk = self.desk
        return agent(Obeying(model="fake", steps=steps), desk.lookup, desk.mail, desk.refund, name="desk_agent")

    def run(self, *steps: list[Call], parts: list[types.Part] | None = None) -> tuple[dict[str, Any], list[Any]]:
        """What waits, by ADK's id, and what the model was told."""

        async def main() -> tuple[dict[str, Any], list[Any]]:
            desk, one = self.desk, self.agents(list(steps))
            runner = Runner(
                app_name="desk", agent=one, session_service=self.service, plugins=[TokenGuard(desk.guard, pause=self.pause)]
            )
            if parts is None:
                await self.service.create_session(app_name="desk", user_id="jane", session_id="s")
            message = types.Content(role="user", parts=parts or [types.Part(text="go")])
            waiting: dict[str, Any] = {}
            told = []
            async for event in runner.run_async(user_id="jane", session_id="s", new_message=message):
                waiting |= requests_of(event)
                told += [answer.response for answer in event.get_function_responses()]
            return waiting, told

        return asyncio.run(main())

    async def stored(self) -> list[str]:
        """What there is of the session, as JSON."""
        session = await self.service.get_session(app_name="desk", user_id="jane", session_id="s")
        return [event.model_dump_json() for event in session.events]

    async def restore(self, events: list[str]) -> None:
        """The session as it was stored."""
        session = await self.service.create_session(app_name="desk", user_id="jane", session_id="s")
        for event in events:
            await self.service.append_event(session, Event.model_validate_json(event))

    def go_on(self, answers: dict[str, bool]) -> tuple[dict[str, Any], list[Any]]:
        parts = [
            types.Part(function_response=types.FunctionResponse(id=one, name="adk_request_confirmation", response={"confirmed": yes}))
            for one, yes in answers.items()
        ]
        return self.run(parts=parts)


ALL: list[Call] = [(tool, arguments) for _, tool, arguments in (LOOKUP, MAIL, REFUND)]


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.token = made.minted(agent="desk_agent", consent=made.asks)
    return made


def test_one_pause_names_all_calls_that_want_a_consent_and_each_runs_once(desk: Desk) -> None:
    session = Session(desk)
    with desk.using([]):
        waiting, _ = session.run(ALL)
    assert sorted(one["tool"] for one in waiting.values()) == ["mail", "refund"] and [tool for tool, _ in desk.ran] == ["lookup"]
    consents = desk.yes(*waiting.values())
    for _ in range(2):
        with desk.using(consents):
            session.go_on(dict.fromkeys(waiting, True))
    assert sorted(tool for tool, _ in desk.ran) == ["lookup", "mail", "refund"]
    stored = repr(asyncio.run(session.service.get_session(app_name="desk", user_id="jane", session_id="s")))
    assert "cap1" not in stored and desk.token.serialize()[40:80] not in stored


def test_a_confirmation_is_no_consent_and_a_no_is_a_no(desk: Desk) -> None:
    session = Session(desk)
    with desk.using([]):
        waiting, _ = session.run([ALL[1]])
        again, told = session.go_on(dict.fromkeys(waiting, True))
    assert desk.ran == [] and again == {} and "a person has to consent" in told[0]["error"]
    session = Session(desk)
    with desk.using([]):
        waiting, _ = session.run([ALL[1]])
    with desk.using(desk.yes(*waiting.values())):
        _, told = session.go_on(dict.fromkeys(waiting, False))
    assert desk.ran == [] and "said no" in told[0]["error"]


def test_a_late_consent_runs_nothing(desk: Desk) -> None:
    session = Session(desk)
    with desk.using([]):
        waiting, _ = session.run([ALL[1]])
    consents = desk.yes(*waiting.values(), expires_in=60)
    desk.clock.seconds += 60
    with desk.using(consents):
        session.go_on(dict.fromkeys(waiting, True))
    assert desk.ran == []


def test_without_a_pause_the_model_is_told(desk: Desk) -> None:
    with desk.using([]):
        waiting, told = Session(desk, pause=False).run([ALL[0], ALL[1]])
    assert waiting == {} and [tool for tool, _ in desk.ran] == ["lookup"] and "a person has to consent" in told[1]["error"]


class Below(Session):
    """A session whose agent hands its task to a clerk, who makes the calls."""

    def agents(self, steps: list[list[Call]]) -> Any:
        desk = self.desk
        clerk = agent(Obeying(model="fake", steps=[self.calls]), desk.lookup, desk.mail, desk.refund, name="clerk")
        return agent(Obeying(model="fake", steps=steps), delegate_to(clerk), name="desk_agent")


def test_a_call_of_a_sub_agent_pauses_its_caller_and_runs_once_with_the_consent(desk: Desk) -> None:
    """The sub-agent begins anew. Of two calls that wait, the model is told."""
    session = Below(desk)
    session.calls = ALL[:2]
    with desk.using([]):
        waiting, _ = session.run([("clerk", {"request": "tell Ann"})])
        (asked,) = waiting.values()
        assert asked["tool"] == "mail" and desk.jane.read(asked["request"]).agent == "clerk"
        session.go_on(dict.fromkeys(waiting, True))
    assert desk.count("mail") == 0, "a confirmation is no consent"
    for yes, made in ((False, 0), (True, 1), (True, 1)):
        session = Below(desk)
        session.calls = ALL[:2]
        with desk.using([]):
            waiting, _ = session.run([("clerk", {"request": "tell Ann"})])
        with desk.using(desk.yes(asked) if made == 0 or desk.count("mail") == 0 else []):
            session.go_on(dict.fromkeys(waiting, yes))
        assert desk.count("mail") == made
    session = Below(desk)
    session.calls = ALL
    with desk.using([]):
        assert session.run([("clerk", {"request": "tell Ann"})])[0] == {}


class GoogleADK:
    """A session whose events are stored as JSON, and are read again into a service that is built anew."""

    def __init__(self, desk: Desk) -> None:
        if desk.token.unverified.holder != "desk_agent":  # ADK's names of agents are identifiers
            desk.token = desk.minted(agent="desk_agent", consent=desk.asks)
        self.desk = desk

    def begin(self, *calls: Made) -> Stopped:
        session = Session(self.desk)
        waiting, _ = session.run([(tool, arguments) for _, tool, arguments in calls])
        return self._stopped(session, waiting)

    def go_on(self, stored: Any, *, no: tuple[str, ...] = ()) -> Stopped:
        events, asked = stored
        session = Session(self.desk)
        asyncio.run(session.restore(events))
        again, _ = session.go_on({confirmation: one["id"] not in no for confirmation, one in asked.items()})
        return self._stopped(session, again)

    def _stopped(self, session: Session, waiting: dict[str, Any]) -> Stopped:
        return Stopped((asyncio.run(session.stored()), waiting), list(waiting.values()), {})


def test_no_order_of_steps_makes_a_call_twice_or_without_its_own_consent() -> None:
    claim(GoogleADK)
