"""The Claude Agent SDK under guard, over its own transport seam: a fake CLI asks the hooks. In an environment of its own."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("claude_agent_sdk")

from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, CLIConnectionError, HookMatcher, Transport

from captoken import AsyncVerifier, Decision, Issuer, Token, Verifier, current
from captoken.adapters.claude_agent import TokenGuard
from captoken.errors import GuardError, NoToken
from captoken.keys import HolderKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from captoken.tools import ToolGuard
from tests.adapters.consents import AGENT, LOOKUP, MAIL, Call, Desk, Stopped
from tests.adapters.interleaving import claim
from tests.fixtures import KEYRING, clock, verifier

TOOLS: dict[str, Any] = {
    "Read": {"file_path": {"path": ["/reports"]}}, "Task": {}, "Agent": {}, "mcp__sales__query": {"region": {"in": ["eu", "us"]}},
}  # fmt: skip
HANDS: dict[str, Any] = {"sales-agent": {"tools": {"mcp__sales__query": {"region": {"in": ["eu"]}}}}}


class Told:
    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def record(self, decision: Decision) -> None:
        self.decisions.append(decision)

    @property
    def codes(self) -> list[str]:
        return [decision.code for decision in self.decisions]


class CLI(Transport):
    """What stands in for the CLI: it speaks the SDK's control protocol, and asks the hooks about calls."""

    def __init__(self, *, blocks: bool = True) -> None:
        self.blocks = blocks
        self.config: dict[str, Any] = {}
        self.out: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.answers: dict[str, asyncio.Future[Any]] = {}

    async def connect(self) -> None: ...

    def is_ready(self) -> bool:
        return True

    async def end_input(self) -> None: ...

    async def close(self) -> None:
        await self.out.put(None)

    async def write(self, data: str) -> None:
        for line in data.splitlines():
            message = json.loads(line)
            if message["type"] == "control_request":
                self.config = message["request"]
                said = {"commands": [], "hook_on_failure_supported": self.blocks, "hooks_applied": True}
                response = {"subtype": "success", "request_id": message["request_id"], "response": said}
                await self.out.put({"type": "control_response", "response": response})
            elif message["type"] == "control_response":
                self.answers[message["response"]["request_id"]].set_result(message["response"])

    async def read_messages(self) -> Any:
        while (message := await self.out.get()) is not None:
            yield message

    async def call(self, tool: str, arguments: Any, **who: Any) -> str:
        """What becomes of a call: the reason for the model, or nothing where it goes on."""
        said = ""
        asked = {"tool_name": tool, "tool_input": arguments, "tool_use_id": "t", **who}
        for answer in await self.ask("PreToolUse", **asked):
            if answer["subtype"] != "success":
                return f"blocked: {answer.get('error')}"
            decided = (answer["response"] or {}).get("hookSpecificOutput", {})
            if decided.get("permissionDecision") == "deny":
                said = decided["permissionDecisionReason"]
        return said

    async def prompt(self, text: Any, folder: Any) -> str:
        """What becomes of a prompt: why it is blocked, or nothing where it goes on."""
        for answer in await self.ask("UserPromptSubmit", prompt=text, cwd=str(folder)):
            if answer["subtype"] != "success":
                return f"blocked: {answer.get('error')}"
            if (answer["response"] or {}).get("decision") == "block":
                return str(answer["response"]["reason"])
        return ""

    async def ask(self, event: str, **said: Any) -> list[Any]:
        """What the hooks of an event answer."""
        asked = {"hook_event_name": event, "session_id": "s", "transcript_path": "", "cwd": "/", **said}
        answers = []
        for matcher in self.config["hooks"][event]:
            assert matcher.get("matcher") is None and matcher.get("onFailure") == "block"
            for callback in matcher["hookCallbackIds"]:
                request = f"cli-{len(self.answers)}"
                self.answers[request] = asyncio.get_running_loop().create_future()
                body = {"subtype": "hook_callback", "callback_id": callback, "input": asked, "tool_use_id": asked.get("tool_use_id", "t")}
                await self.out.put({"type": "control_request", "request_id": request, "request": body})
                answers.append(await asyncio.wait_for(self.answers[request], 10))
        return answers


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def guard(told: Told) -> ToolGuard:
    return ToolGuard(verifier(audit=told))


def mint(**more: Any) -> Token:
    return Issuer(KEYRING, clock=clock()).mint(subject="user:jane", agent="orchestrator", task="q3-risk", tools=TOOLS, **more)


def asked(options: ClaudeAgentOptions, *calls: Any, cli: CLI | None = None) -> list[str]:
    """What becomes of these calls in a session of the SDK's own client."""

    async def main() -> list[str]:
        transport = cli or CLI()
        async with ClaudeSDKClient(options, transport=transport):
            return [await transport.call(tool, arguments, **who) for tool, arguments, who in calls]

    return asyncio.run(main())


def options(guard: ToolGuard, token: Token | None = None, hands: Any = HANDS, **more: Any) -> ClaudeAgentOptions:
    with current.use(token or mint()):
        return TokenGuard(guard, agent="orchestrator", hands=hands).guarded(ClaudeAgentOptions(**more))


MAIN: dict[str, Any] = {}
SALES = {"agent_id": "a1", "agent_type": "sales-agent"}


def query(region: str) -> tuple[str, dict[str, Any]]:
    return "mcp__sales__query", {"region": region}


def test_a_call_goes_on_if_the_token_permits_it(guard: ToolGuard, told: Told) -> None:
    said = asked(options(guard), ("Read", {"file_path": "/reports/q3"}, MAIN), ("Read", {"file_path": "/etc/passwd"}, MAIN), ("Bash", {"command": "ls"}, MAIN))
    assert said[0] == "" and all(one.startswith("Not permitted") for one in said[1:])
    assert told.codes == ["allowed", "argument", "tool"]


def test_a_sub_agent_holds_what_it_was_handed_and_its_parent_what_it_had(guard: ToolGuard, told: Told) -> None:
    calls = [(*query("eu"), SALES), (*query("us"), SALES), ("Read", {"file_path": "/reports/q3"}, SALES), (*query("us"), MAIN)]
    said = asked(options(guard), *calls)
    assert [bool(one) for one in said] == [False, True, True, False]
    assert [decision.attribution.chain[-1].name for decision in told.decisions if decision.attribution] == ["sales-agent"] * 3 + ["orchestrator"]


@pytest.mark.parametrize(
    "who",
    [{"agent_id": "a2", "agent_type": "general-purpose"}, {"agent_id": "a2"}, {"agent_id": "", "agent_type": ""}, {"agent_id": "a1", "agent_type": "orchestrator"}],
)
def test_a_sub_agent_that_nobody_handed_a_token_may_do_nothing(who: Any, guard: ToolGuard, told: Told) -> None:
    (said,) = asked(options(guard), (*query("eu"), who))
    assert said.startswith("Not permitted") and told.codes == ["caller"]


@pytest.mark.parametrize(("tool", "arguments"), [("Task", {}), ("Agent", {}), ("Spawn", {"subagent_type": "sales-agent"})])
def test_a_sub_agent_starts_no_further_ones(tool: str, arguments: Any, guard: ToolGuard) -> None:
    """They would be handed what the main agent holds, and not what their parent was."""
    hands = {"sales-agent": {"tools": {"Task": {}, "Agent": {}}}}
    said = asked(options(guard, hands=hands), (tool, arguments, SALES), ("Task", {"subagent_type": "sales-agent"}, MAIN))
    assert said[0].startswith("Not permitted: a sub-agent starts") and said[1] == ""


def test_more_than_is_held_is_not_handed_on(guard: ToolGuard) -> None:
    (said,) = asked(options(guard, hands={"sales-agent": {"tools": {"Bash": {}}}}), ("Bash", {"command": "ls"}, SALES))
    assert said.startswith("Not permitted")


def test_sub_agents_share_what_is_counted_and_each_keeps_its_own(told: Told) -> None:
    guard = ToolGuard(verifier(audit=told, ledger=MemoryLedger(shared=True, floor=0)))
    hands = {"sales-agent": {**HANDS["sales-agent"], "uses": 2}}
    other = {**SALES, "agent_id": "a9"}
    calls = [(*query("eu"), who) for who in (SALES, SALES, SALES, other, MAIN)]
    said = asked(options(guard, mint(uses=10), hands), *calls)
    assert [bool(one) for one in said] == [False, False, True, False, False]
    assert told.codes == ["allowed", "allowed", "budget_exhausted", "allowed", "allowed"]


@pytest.mark.parametrize("broken", [{"tool_name": None}, {"tool_input": None}, {"tool_input": "x"}, {"tool_input": {"region": float("inf")}}])
def test_what_is_no_call_is_blocked(broken: Any, guard: ToolGuard) -> None:
    (said,) = asked(options(guard), (*query("eu"), broken))
    assert said


def test_a_hook_that_fails_blocks(guard: ToolGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(*args: Any, **who: Any) -> Any:
        raise OSError("the disk is full")

    monkeypatch.setattr(guard, "check_async", failing)
    (said,) = asked(options(guard), (*query("eu"), MAIN))
    assert said.startswith("blocked")


def test_a_cli_that_would_not_block_is_not_connected_to(guard: ToolGuard) -> None:
    with pytest.raises(CLIConnectionError, match="on_failure"):
        asked(options(guard), cli=CLI(blocks=False))


def test_hooks_of_others_stay(guard: ToolGuard) -> None:
    seen: list[str] = []

    async def theirs(asked: Any, tool_use_id: Any, context: Any) -> Any:
        seen.append(asked["tool_name"])
        return {}

    own = options(guard, hooks={"PreToolUse": [HookMatcher(hooks=[theirs], on_failure="block")], "Stop": [HookMatcher(hooks=[theirs])]})
    assert asked(own, ("Bash", {"command": "ls"}, MAIN))[0].startswith("Not permitted") and seen == ["Bash"]
    assert set(own.hooks or {}) == {"PreToolUse", "UserPromptSubmit", "Stop"}


def test_the_token_is_that_of_the_options_whatever_is_current_later(guard: ToolGuard, told: Told) -> None:
    own = options(guard)
    with current.nothing():
        assert asked(own, (*query("eu"), MAIN)) == [""]
    with pytest.raises(NoToken):
        TokenGuard(guard, agent="orchestrator").guarded(ClaudeAgentOptions())
    given = TokenGuard(guard, agent="other").guarded(ClaudeAgentOptions(), held=mint())
    assert asked(given, (*query("eu"), MAIN))[0].startswith("Not permitted") and told.codes[-1] == "caller"


def test_a_bound_token_is_proven_at_each_call_and_handed_on_by_key(told: Told) -> None:
    key, child = HolderKey.from_bytes(bytes(range(32))), HolderKey.from_bytes(bytes(range(1, 33)))
    guard = ToolGuard(AsyncVerifier(KEYRING, "desk", clock=clock(), audit=told, replays=MemoryReplayStore(floor=0)))
    hands = {"sales-agent": {**HANDS["sales-agent"], "key": child}}
    with current.use(mint(key=key.public), key):
        own = TokenGuard(guard, agent="orchestrator", hands=hands).guarded(ClaudeAgentOptions())
    assert asked(own, *[(*query("eu"), who) for who in (MAIN, MAIN, SALES, SALES)]) == [""] * 4
    assert told.codes == ["allowed"] * 4


def test_of_a_set_each_call_is_judged_by_the_token_of_the_guard_s_own_server(told: Told) -> None:
    """The set is handed on as one; a guard of another server, and one without a name, say that it is a set."""
    servers: dict[str, Any] = {"desk": {"tools": TOOLS}, "warehouse": {"tables": ["*"], "operations": ["select"]}}
    held = Issuer(KEYRING, clock=clock()).mint_set(subject="user:jane", agent="orchestrator", task="q3-risk", servers=servers)
    calls = [(*query(region), who) for region, who in (("eu", MAIN), ("us", SALES), ("eu", SALES))]

    def said(guard: ToolGuard) -> list[str]:
        own = TokenGuard(guard, agent="orchestrator", hands=HANDS).guarded(ClaudeAgentOptions(), held=held)
        return asked(own, *calls)

    desk = said(ToolGuard(Verifier(KEYRING.for_audience("desk"), "desk", clock=clock(), audit=told)))
    assert [bool(one) for one in desk] == [False, True, False]
    assert told.codes == ["allowed", "argument", "allowed"]
    assert [actor.name for actor in told.decisions[-1].grant.chain] == ["orchestrator", "sales-agent"]
    for other in (Verifier(KEYRING.for_audience("mail"), "mail", clock=clock(), audit=told), verifier(audit=told)):
        before = len(told.decisions)
        assert all(said(ToolGuard(other)))
        assert all("this is a set of tokens" in one.line() for one in told.decisions[before:]) and len(told.decisions) == before + 3


@pytest.mark.parametrize("more", [{}, {"setting_sources": []}, {"skills": "all"}])
def test_no_files_of_settings_are_read_and_no_servers_but_those_of_the_options(more: Any, guard: ToolGuard) -> None:
    own = options(guard, **more)
    assert own.setting_sources == [] and own.strict_mcp_config is True


def test_sources_of_settings_are_read_where_somebody_says_what_is_risked(guard: ToolGuard) -> None:
    own = TokenGuard(guard, agent="orchestrator")
    for given, said in ((None, ["user"]), (["user"], ["project", "user"]), ([], ["user"])):
        made = own.guarded(ClaudeAgentOptions(setting_sources=given), held=mint(), sources_run_unasked=said)  # type: ignore[arg-type]
        assert made.setting_sources == (["user"] if given is None else given) and made.strict_mcp_config is True


@pytest.mark.parametrize(
    ("more", "said", "why"),
    [
        ({"setting_sources": ["project"]}, [], "'project'.* run commands"),
        ({"setting_sources": ["user", "local"]}, ["user"], "'local'.* run commands"),
        ({"permission_mode": "bypassPermissions"}, ["user"], "bypassPermissions"),
        ({"extra_args": {"setting-sources": "project"}}, [], "setting_sources="),
        ({"extra_args": {"permission-mode": "bypassPermissions"}}, ["user"], "permission_mode="),
    ],
)
def test_options_that_read_settings_without_a_word_are_refused(more: Any, said: list[str], why: str, guard: ToolGuard) -> None:
    own = TokenGuard(guard, agent="orchestrator")
    with pytest.raises(GuardError, match=why):
        own.guarded(ClaudeAgentOptions(**more), held=mint(), sources_run_unasked=said)
    with pytest.raises(TypeError, match="collection of sources"):
        own.guarded(ClaudeAgentOptions(), held=mint(), sources_run_unasked="user")
    own.guarded(ClaudeAgentOptions(permission_mode="bypassPermissions"), held=mint())


def test_beside_settings_nothing_runs_once_the_cli_asks_nobody(guard: ToolGuard, told: Told) -> None:
    """The mode can change after the options were made: each call says it."""
    read = ("Read", {"file_path": "/reports/q3"})
    for sources, stopped in (((), False), (("user",), True)):
        own = TokenGuard(guard, agent="orchestrator").guarded(ClaudeAgentOptions(), held=mint(), sources_run_unasked=sources)
        said = asked(own, (*read, {"permission_mode": "bypassPermissions"}), (*read, {"permission_mode": "acceptEdits"}))
        assert [bool(one) for one in said] == [stopped, False]
    assert told.codes == ["allowed", "allowed", "caller", "allowed"]


def test_a_session_is_asked_for_once_whatever_came_before(guard: ToolGuard, told: Told) -> None:
    """Plain options are good for any number of sessions; guarded ones would ask for those before, and are refused."""
    plain = ClaudeAgentOptions()
    for _ in range(50):
        made = TokenGuard(guard, agent="orchestrator").guarded(plain, held=mint())
        assert asked(made, (*query("eu"), MAIN)) == [""]
    assert told.codes == ["allowed"] * 50
    for again in (TokenGuard(guard, agent="orchestrator"), TokenGuard(guard, agent="other")):
        with pytest.raises(GuardError, match="these options are already guarded"):
            again.guarded(made, held=mint())


def prompted(own: ClaudeAgentOptions, *prompts: Any, folder: Path) -> list[str]:
    """What becomes of these prompts in a session."""

    async def main() -> list[str]:
        transport = CLI()
        async with ClaudeSDKClient(own, transport=transport):
            return [await transport.prompt(text, folder) for text in prompts]

    return asyncio.run(main())


def test_a_file_that_a_prompt_names_is_asked_about_as_if_it_was_read(guard: ToolGuard, told: Told, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    for name in ("mine", "theirs", "home/key"):
        (tmp_path / name).write_text("x")
    token = Issuer(KEYRING, clock=clock()).mint(
        subject="user:jane", agent="orchestrator", task="t", tools={"Read": {"file_path": {"in": [str(tmp_path / "mine")]}}}
    )
    own = options(guard, token, env={"HOME": str(tmp_path / "home")})
    prompts = ["hello", "jane@example.com", "@nobody", "see @mine", "see @theirs", f"@mine @{tmp_path}/theirs", "@~/key"]
    said = prompted(own, *prompts, folder=tmp_path)
    assert [one[:13] for one in said] == [""] * 4 + ["Not permitted"] * 3
    assert told.codes == ["allowed", "argument", "allowed", "argument", "argument"]
    (last,) = [decision.access.arguments for decision in told.decisions[-1:] if decision.access]
    assert last == {"file_path": str(tmp_path / "home/key")}


def test_what_is_no_prompt_or_too_much_of_one_is_blocked(guard: ToolGuard, tmp_path: Path) -> None:
    said = prompted(options(guard), None, "@a " * 1001, folder=tmp_path)
    assert said[0].startswith("blocked") and said[1].startswith("Not permitted: more than 1000")


def test_a_prompt_of_which_nothing_is_expanded_is_not_asked_about(guard: ToolGuard, told: Told, tmp_path: Path) -> None:
    """`verbatim_prompts`: the CLI takes the prompt as text, and reads nothing."""
    (tmp_path / "theirs").write_text("x")
    assert prompted(options(guard, verbatim_prompts=True), "@theirs", folder=tmp_path) == [""] and told.codes == []


def test_no_token_goes_to_the_cli(guard: ToolGuard) -> None:
    cli, token = CLI(), mint()
    asked(options(guard, token), (*query("us"), SALES), cli=cli)
    sent = json.dumps(cli.config) + str([future.result() for future in cli.answers.values()])
    assert "cap1_" not in sent and token.serialize()[10:40] not in sent


def test_misuse_is_told_at_once(guard: ToolGuard) -> None:
    for wrong in (None, verifier(), "guard"):
        with pytest.raises(TypeError, match="expected a ToolGuard"):
            TokenGuard(wrong, agent="a")  # type: ignore[arg-type]
    for name in ("", "  ", None):
        with pytest.raises(ValueError, match="pass agent="):
            TokenGuard(guard, agent=name)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        TokenGuard(guard, agent="a", hands=["sales-agent"])  # type: ignore[arg-type]


def test_the_words_of_the_framework_that_the_guard_stands_on_are_there() -> None:
    """A hook that is not told of `agent_id`, or may not block, would let sub-agents act as their parent."""
    from claude_agent_sdk import types

    hints = types.PreToolUseHookInput.__annotations__
    assert {"tool_name", "tool_input", "agent_id", "agent_type"} <= set(hints)
    assert {"prompt", "cwd", "permission_mode"} <= set(types.UserPromptSubmitHookInput.__annotations__) | set(types.BaseHookInput.__annotations__)
    assert "on_failure" in HookMatcher.__dataclass_fields__
    assert {"setting_sources", "strict_mcp_config", "verbatim_prompts", "extra_args"} <= set(ClaudeAgentOptions.__dataclass_fields__)


def test_a_call_that_wants_a_consent_is_denied_and_says_what_to_ask() -> None:
    """It is not deferred: where a message has more than one call, the CLI takes no notice of that. (rule 8)"""
    desk = Desk()
    asked: list[Any] = []
    own = TokenGuard(desk.guard, agent=AGENT, ask=asked.append)

    async def run(consents: list[str]) -> list[str]:
        cli = CLI()
        with desk.using(consents):
            options = own.guarded(ClaudeAgentOptions())
        async with ClaudeSDKClient(options, transport=cli):
            return [await cli.call("mail", MAIL[2]), await cli.call("lookup", LOOKUP[2]), await cli.call("mail", MAIL[2])]

    refused = asyncio.run(run([]))
    assert "a person has to consent" in refused[0] and refused[1] == "" and [one["tool"] for one in asked] == ["mail", "mail"]
    again = asyncio.run(run(desk.yes(asked[0])))
    assert again[:2] == ["", ""] and "used already" in again[2] and len(asked) == 2
    own = TokenGuard(desk.guard, agent=AGENT)
    assert "a person has to consent" in asyncio.run(run([]))[0] and len(asked) == 2, "nobody wants to know"


class Claude:
    """A session that is resumed: the calls of the message that were denied are made again, but those that a person said no to."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def begin(self, *calls: Call) -> Stopped:
        waiting: list[Any] = []
        own = TokenGuard(self.desk.guard, agent=AGENT, ask=waiting.append)
        made = asked(own.guarded(ClaudeAgentOptions()), *((tool, given, {"tool_use_id": number}) for number, tool, given in calls))
        for said, (_, tool, given) in zip(made, calls, strict=True):
            if not said:
                getattr(self.desk, tool)(**given)
        denied = {one["id"] for one in waiting}
        return Stopped([call for call in calls if call[0] in denied], waiting, {call[0]: said for said, call in zip(made, calls, strict=True)})

    def go_on(self, stored: Any, *, no: tuple[str, ...] = ()) -> Stopped:
        return self.begin(*(call for call in stored if call[0] not in no))


def test_no_order_of_steps_makes_a_call_twice_or_without_its_own_consent() -> None:
    claim(Claude)
