"""The Claude Agent SDK: each tool call of a session, and of its sub-agents, by a token of its own.

    pip install 'captoken[claude-agent]' && python examples/agents_claude.py

Offline: what stands in for the CLI, and for the model in it, is a transport of the SDK's own kind.
The SDK brings a large program: `.ci/nightly large` runs this, not the test suite.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

try:
    from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, Transport
except ImportError:
    print("claude-agent-sdk is not installed: nothing to show. It takes `pip install` of it.")
    sys.exit(0)

from captoken import Issuer, Keyring, Verifier, current
from captoken.adapters.claude_agent import TokenGuard
from captoken.tools import ToolGuard


class FakeCLI(Transport):
    """In your service: left out, and the SDK starts the CLI. This one asks the hook about calls."""

    def __init__(self) -> None:
        self.out: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.hook = ""
        self.answer: asyncio.Future[dict[str, Any]]

    async def connect(self) -> None:
        pass

    async def end_input(self) -> None:
        pass

    async def close(self) -> None:
        await self.out.put(None)

    def is_ready(self) -> bool:
        return True

    async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        while (message := await self.out.get()) is not None:
            yield message

    async def write(self, data: str) -> None:
        message = json.loads(data)
        if message["type"] == "control_request":
            (matcher,) = message["request"]["hooks"]["PreToolUse"]
            (self.hook,) = matcher["hookCallbackIds"]
            said = {"hook_on_failure_supported": True, "hooks_applied": True}
            request = message["request_id"]
            answer = {"subtype": "success", "request_id": request, "response": said}
            await self.out.put({"type": "control_response", "response": answer})
        else:
            self.answer.set_result(message["response"]["response"])

    async def call(self, who: str, tool: str, **arguments: str) -> None:
        """A call that a model makes, and what the hook says of it."""
        self.answer = asyncio.get_running_loop().create_future()
        asked: dict[str, Any] = {
            "hook_event_name": "PreToolUse",
            "tool_name": tool,
            "tool_input": arguments,
        }
        if who != "orchestrator":
            asked |= {"agent_id": f"id-of-{who}", "agent_type": who}
        request = {"subtype": "hook_callback", "callback_id": self.hook, "input": asked}
        await self.out.put({"type": "control_request", "request_id": "1", "request": request})
        decided = (await self.answer).get("hookSpecificOutput")
        told = "permitted" if decided is None else decided["permissionDecisionReason"]
        print(f"{who}: {tool}({', '.join(map(str, arguments.values()))})\n    {told}")


async def main() -> None:
    keyring = Keyring.generate()
    guard = TokenGuard(
        ToolGuard(Verifier(keyring)),
        agent="orchestrator",
        hands={"sales-agent": {"tools": {"mcp__sales__query": {"region": {"in": ["eu"]}}}}},
    )
    root = Issuer(keyring).mint(
        subject="user:jane",
        agent="orchestrator",
        task="q3-risk",
        tools={
            "Task": {},
            "Read": {"file_path": {"path": ["/reports"]}},
            "mcp__sales__query": {"region": {"any": True}},
        },
    )
    with current.use(root):
        options = guard.guarded(ClaudeAgentOptions())

    cli = FakeCLI()
    async with ClaudeSDKClient(options, transport=cli):
        await cli.call("orchestrator", "Read", file_path="/reports/q3.txt")
        await cli.call("orchestrator", "Read", file_path="/etc/passwd")
        await cli.call("orchestrator", "Task", subagent_type="sales-agent")
        await cli.call("sales-agent", "mcp__sales__query", region="eu")
        await cli.call("sales-agent", "mcp__sales__query", region="us")
        await cli.call("sales-agent", "Task", subagent_type="sales-agent")
        await cli.call("general-purpose", "mcp__sales__query", region="eu")


if __name__ == "__main__":
    asyncio.run(main())
