"""A mail waits for a person's yes in Google's ADK, in processes of which one is killed.

    pip install 'captoken[google-adk]' && python examples/consent_google_adk.py

One message of the model has three calls: a look-up, a mail and a refund. The token lets the agent
mail and refund only with Jane's consent, each time. So the run pauses before these two. What is
stored of it, the events of its session, has no token. The process is killed there. A second one
gets its token as the first did, and goes on from the stored events. Jane says yes to the mail
alone. The events are resumed twice, by a process each, and the mail goes out once.

The model is a fake one: offline. ADK is large: `.ci/nightly large` runs this, not the test suite.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

try:
    from google.adk.agents import LlmAgent
    from google.adk.events.event import Event
    from google.adk.models.base_llm import BaseLlm
    from google.adk.models.llm_request import LlmRequest
    from google.adk.models.llm_response import LlmResponse
    from google.adk.runners import Runner
    from google.adk.sessions import InMemorySessionService
    from google.genai import types
except ImportError:
    print("google-adk is not installed: nothing to show. It takes `pip install google-adk`.")
    sys.exit(0)

from captoken import Issuer, Keyring, Token, Verifier, current
from captoken.adapters.google_adk import TokenGuard, requests_of
from captoken.consent import Approver, ApproverKey
from captoken.stores.sqlite import SQLiteReplayStore
from captoken.tools import ToolGuard

CALLS: list[tuple[str, dict[str, Any]]] = [
    ("lookup", {"order": "o-1"}),
    ("mail", {"to": "ann@example.com", "text": "Your refund is on its way."}),
    ("refund", {"order": "o-1", "cents": 900_000}),
]
WHO = {"app_name": "desk", "user_id": "jane"}


class Fake(BaseLlm):
    """In your service: a model. This one makes its three calls, and then it is done."""

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        parts = [types.Part.from_function_call(name=tool, args=given) for tool, given in CALLS]
        if len(llm_request.contents) > 1:
            parts = [types.Part(text="Done.")]
        yield LlmResponse(content=types.Content(role="model", parts=parts))


class Desk:
    """One process of the agent. What outlives it is in a folder: no token is stored with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # In your service the process gets its token as it did at first: from its issuer, say.
        self.token = Token.parse((folder / "token").read_text())
        store = SQLiteReplayStore(folder / "used.db")
        verifier = Verifier(Keyring.load(folder / "keyring.json"), audience="desk", replays=store)
        self.guard = TokenGuard(ToolGuard(verifier), pause=True)
        self.service = InMemorySessionService()

    def lookup(self, order: str) -> str:
        """Look up an order."""
        return self.done(f"lookup {order}")

    def mail(self, to: str, text: str) -> str:
        """Send a mail."""
        return self.done(f"mail {to}: {text}")

    def refund(self, order: str, cents: int) -> str:
        """Refund an order."""
        return self.done(f"refund {order} {cents}")

    def done(self, line: str) -> str:
        with (self.folder / "done").open("a") as file:
            file.write(f"{line}\n")
        return "done"

    async def run(self, message: types.Content, consents: list[str]) -> dict[str, Any]:
        """Run the session, and store it; what waits, by the id of ADK's confirmation."""
        tools: list[Any] = [self.lookup, self.mail, self.refund]
        agent = LlmAgent(name="desk_agent", model=Fake(model="fake"), tools=tools)
        runner = Runner(
            app_name="desk", agent=agent, session_service=self.service, plugins=[self.guard]
        )
        waiting: dict[str, Any] = {}
        with current.use(self.token, consents=consents):
            async for event in runner.run_async(
                user_id="jane", session_id="s", new_message=message
            ):
                waiting |= requests_of(event)
        return waiting

    async def begin(self) -> None:
        """The first process: it stores the paused run, and what Jane is to be asked."""
        await self.service.create_session(session_id="s", **WHO)
        waiting = await self.run(types.Content(role="user", parts=[types.Part(text="Go.")]), [])
        session = await self.service.get_session(session_id="s", **WHO)
        assert session is not None
        stored = {"events": [one.model_dump_json() for one in session.events], "waiting": waiting}
        (self.folder / "stored.json").write_text(json.dumps(stored))
        os.kill(os.getpid(), signal.SIGKILL)

    async def go_on(self) -> None:
        """A later process: it reads the events, and answers each confirmation."""
        stored = json.loads((self.folder / "stored.json").read_text())
        said = json.loads((self.folder / "said.json").read_text())
        session = await self.service.create_session(session_id="s", **WHO)
        for event in stored["events"]:
            await self.service.append_event(session, Event.model_validate_json(event))
        answers = [
            types.Part(
                function_response=types.FunctionResponse(
                    id=confirmation,
                    name="adk_request_confirmation",
                    response={"confirmed": one["id"] not in said["refused"]},
                )
            )
            for confirmation, one in stored["waiting"].items()
        ]
        await self.run(types.Content(role="user", parts=answers), said["consents"])


def jane_reads(jane: Approver, waiting: dict[str, Any]) -> dict[str, list[str]]:
    """She is shown each call as it will run. She says yes to mails, and no to this refund."""
    said: dict[str, list[str]] = {"consents": [], "refused": []}
    for call in waiting.values():
        asked = jane.read(call["request"])
        for name, value in asked.accesses[0]["arguments"].items():
            print(f"      {call['tool']} {name} = {value!r}")
        if call["tool"] == "mail":
            said["consents"].append(jane.consent(call["request"], expires_in="5m"))
        else:
            said["refused"].append(call["id"])
    return said


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
        agent="desk_agent",
        task="orders",
        tools={"lookup": {}, "mail": {}, "refund": {}},
        consent=[{"by": jane.public, "for": {"tools": ["mail", "refund"]}}],
    )
    (folder / "token").write_text(token.serialize())

    print(f"the first process ends with {process(folder, 'begin')}: it was killed")
    stored = (folder / "stored.json").read_text()
    assert "cap1" not in stored
    print("Jane is asked:")
    said = jane_reads(jane, json.loads(stored)["waiting"])
    (folder / "said.json").write_text(json.dumps(said))
    for _ in range(2):
        print(f"another process goes on, and ends with {process(folder, 'go on')}")

    done = (folder / "done").read_text().splitlines()
    print("What has run:")
    for line in done:
        print(f"      {line}")
    assert done == ["lookup o-1", "mail ann@example.com: Your refund is on its way."]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        desk = Desk(Path(sys.argv[1]))
        asyncio.run(desk.begin() if sys.argv[2] == "begin" else desk.go_on())
    else:
        with TemporaryDirectory() as place:
            main(Path(place))
