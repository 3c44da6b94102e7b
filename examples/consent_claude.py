"""A mail waits for a person's yes in the Claude Agent SDK, in processes of which one is killed.

    pip install 'captoken[claude-agent]' && python examples/consent_claude.py

One message of the model has three calls: a look-up, a mail and a refund. The token lets the agent
mail and refund only with Jane's consent, each time. So the hook denies these two, and says what to
ask. The process is killed there. Jane says yes to the mail alone. A second process gets its token
as the first did, resumes the session with her consent, and the model calls again what was denied.
A third one does so as well, and the mail goes out once.

Offline: what stands in for the CLI, and for the model in it, is a transport of the SDK's own kind.
The SDK brings a large program: `.ci/nightly large` runs this, not the test suite.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

try:
    from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, Transport
except ImportError:
    print("claude-agent-sdk is not installed: nothing to show. It takes `pip install` of it.")
    sys.exit(0)

from captoken import Issuer, Keyring, Token, Verifier, current
from captoken.adapters.claude_agent import TokenGuard
from captoken.consent import Approver, ApproverKey
from captoken.stores.sqlite import SQLiteReplayStore
from captoken.tools import ToolGuard

LOOKUP: tuple[str, dict[str, Any]] = ("mcp__desk__lookup", {"order": "o-1"})
MAIL: tuple[str, dict[str, Any]] = (
    "mcp__desk__mail",
    {"to": "ann@example.com", "text": "Your refund is on its way."},
)
REFUND: tuple[str, dict[str, Any]] = ("mcp__desk__refund", {"order": "o-1", "cents": 900_000})


class FakeCLI(Transport):
    """In your service: left out, and the SDK starts the CLI, with `resume=` a session's id.

    This one asks the hook about the model's calls, and makes those that go on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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

    async def call(self, tool: str, arguments: dict[str, Any]) -> None:
        """A call that the model makes: it runs if the hook lets it."""
        self.answer = asyncio.get_running_loop().create_future()
        asked = {"hook_event_name": "PreToolUse", "tool_name": tool, "tool_input": arguments}
        request = {"subtype": "hook_callback", "callback_id": self.hook, "input": asked}
        request["tool_use_id"] = tool
        await self.out.put({"type": "control_request", "request_id": "1", "request": request})
        if "hookSpecificOutput" not in await self.answer:
            with (self.folder / "done").open("a") as file:
                file.write(f"{tool} {' '.join(map(str, arguments.values()))}\n")


async def session(folder: Path, step: str) -> None:
    """One process. What outlives it is in a folder: no token is stored with the session."""
    # In your service the process gets its token as it did at first: from its issuer, say.
    token = Token.parse((folder / "token").read_text())
    store = SQLiteReplayStore(folder / "used.db")
    verifier = Verifier(Keyring.load(folder / "keyring.json"), audience="desk", replays=store)
    waiting: list[Any] = []
    own = TokenGuard(ToolGuard(verifier), agent="desk-agent", ask=waiting.append)

    begins = step == "begin"
    consents = [] if begins else json.loads((folder / "consents.json").read_text())
    with current.use(token, consents=consents):
        options = own.guarded(ClaudeAgentOptions(resume=None if begins else "the-session"))
    cli = FakeCLI(folder)
    async with ClaudeSDKClient(options, transport=cli):
        for tool, given in [LOOKUP, MAIL, REFUND] if begins else [MAIL, REFUND]:
            await cli.call(tool, given)
        if begins:
            (folder / "waiting.json").write_text(json.dumps(waiting))
            os.kill(os.getpid(), signal.SIGKILL)


def jane_reads(jane: Approver, waiting: list[Any]) -> list[str]:
    """She is shown each call as it will run. She says yes to mails, and not to this refund."""
    consents = []
    for call in waiting:
        for name, value in jane.read(call["request"]).accesses[0]["arguments"].items():
            print(f"      {call['tool']} {name} = {value!r}")
        if call["tool"] == MAIL[0]:
            consents.append(jane.consent(call["request"], expires_in="5m"))
    return consents


def process(folder: Path, step: str) -> int:
    """Run one step in a process of its own."""
    command = [sys.executable, __file__, str(folder), step]
    return subprocess.run(command, stderr=subprocess.DEVNULL).returncode


def main(folder: Path) -> None:
    keyring = Keyring.generate().for_audience("desk")
    keyring.save(folder / "keyring.json")
    SQLiteReplayStore.create(folder / "used.db", clock=lambda: 0).close()
    jane = Approver(ApproverKey.generate())  # her key is where no agent reaches it
    token = Issuer(keyring).mint(
        subject="user:jane",
        agent="desk-agent",
        task="orders",
        tools={tool: {} for tool, _ in (LOOKUP, MAIL, REFUND)},
        consent=[{"by": jane.public, "for": {"tools": [MAIL[0], REFUND[0]]}}],
    )
    (folder / "token").write_text(token.serialize())

    print(f"the first process ends with {process(folder, 'begin')}: it was killed")
    waiting = (folder / "waiting.json").read_text()
    assert "cap1" not in waiting
    print("Jane is asked:")
    (folder / "consents.json").write_text(json.dumps(jane_reads(jane, json.loads(waiting))))
    for _ in range(2):
        print(f"another process goes on, and ends with {process(folder, 'go on')}")

    done = (folder / "done").read_text().splitlines()
    print("What has run:")
    for line in done:
        print(f"      {line}")
    assert done == [
        "mcp__desk__lookup o-1",
        "mcp__desk__mail ann@example.com Your refund is on its way.",
    ]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(session(Path(sys.argv[1]), sys.argv[2]))
    else:
        with TemporaryDirectory() as place:
            main(Path(place))
