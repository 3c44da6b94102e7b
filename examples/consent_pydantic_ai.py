"""A mail waits for a person's yes in pydantic-ai, and goes out once.

    pip install 'captoken[pydantic-ai]' && python examples/consent_pydantic_ai.py

One message of the model has three calls: a look-up, a mail and a refund. The token lets the agent
mail and refund only with Jane's consent, each time. So the run pauses before these two. What is
stored of it has no token. The process is killed there. Another one builds everything anew, and
Jane says yes to the mail alone. The state is resumed twice, and the mail goes out once.
"""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults, ToolDenied
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelResponse,
    TextPart,
    ToolCallPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel

from captoken import Issuer, Keyring, Verifier, current
from captoken.adapters.pydantic_ai import TokenGuard, requests_of
from captoken.consent import Approver, ApproverKey
from captoken.stores.memory import MemoryReplayStore
from captoken.tools import ToolGuard

keyring = Keyring.generate().for_audience("desk")
jane = Approver(ApproverKey.generate())  # her key is where no agent reaches it
token = Issuer(keyring).mint(
    subject="user:jane",
    agent="desk-agent",
    task="orders",
    tools={"lookup": {}, "mail": {}, "refund": {}},
    consent=[{"by": jane.public, "for": {"tools": ["mail", "refund"]}}],
)
guard = ToolGuard(Verifier(keyring, audience="desk", replays=MemoryReplayStore(floor=0)))
temporary = TemporaryDirectory()
folder = Path(temporary.name)  # what outlives a process: no token is stored in it


def ran(line: str) -> None:
    with (folder / "done").open("a") as file:
        file.write(f"{line}\n")


def lookup(order: str) -> str:
    """Look up an order."""
    ran(f"lookup {order}")
    return "paid, and returned yesterday"


def mail(to: str, text: str) -> str:
    """Send a mail."""
    ran(f"mail {to}: {text}")
    return "sent"


def refund(order: str, cents: int) -> str:
    """Refund an order."""
    ran(f"refund {order} {cents}")
    return "refunded"


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("lookup", {"order": "o-1"}),
    ("mail", {"to": "ann@example.com", "text": "Your refund is on its way."}),
    ("refund", {"order": "o-1", "cents": 900_000}),
]


def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """A fake: it makes its three calls, and then it is done."""
    if any(isinstance(message, ModelResponse) for message in messages):
        return ModelResponse([TextPart("Done.")])
    parts = [ToolCallPart(tool, arguments) for tool, arguments in CALLS]
    return ModelResponse(parts)


def agent() -> Agent[None, Any]:
    return Agent(
        FunctionModel(model),
        name="desk-agent",
        output_type=[str, DeferredToolRequests],
        tools=[lookup, mail, refund],
        capabilities=[TokenGuard(guard, pause=True)],
    )


def jane_reads(waiting: list[Any]) -> tuple[list[str], list[str]]:
    """She is shown each call as it will run. She says yes to mails, and no to this refund."""
    consents, refused = [], []
    for call in waiting:
        asked = jane.read(call["request"])
        for name, value in asked.accesses[0]["arguments"].items():
            print(f"      {call['tool']} {name} = {value!r}")
        if call["tool"] == "mail":
            consents.append(jane.consent(call["request"], expires_in="5m"))
        else:
            refused.append(call["id"])
    return consents, refused


def in_a_process_that_is_killed(first: Callable[[], None]) -> None:
    """Run it in a process of its own, which is then killed. What it stored is left."""
    child = os.fork()
    if child == 0:
        first()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def until_the_pause() -> None:
    with current.use(token):
        paused = asyncio.run(agent().run("See to order o-1."))
    assert isinstance(paused.output, DeferredToolRequests)
    (folder / "messages").write_bytes(paused.all_messages_json())
    (folder / "waiting").write_text(json.dumps(requests_of(paused.output)))


in_a_process_that_is_killed(until_the_pause)
stored = (folder / "messages").read_bytes()
waiting = json.loads((folder / "waiting").read_text())
assert b"cap1" not in stored

print("Jane is asked:")
consents, refused = jane_reads(waiting)

for attempt in ("resumed", "resumed from the same state once more"):
    with current.use(token, consents=consents):
        answers = DeferredToolResults(
            approvals={
                call["id"]: ToolDenied("Jane says no.") if call["id"] in refused else True
                for call in waiting
            }
        )
        history = ModelMessagesTypeAdapter.validate_json(stored)
        result = asyncio.run(agent().run(message_history=history, deferred_tool_results=answers))
    print(f"\n{attempt}: {result.output}")

print("\nWhat has run:")
done = (folder / "done").read_text().splitlines()
for line in done:
    print(f"      {line}")
assert done == ["lookup o-1", "mail ann@example.com: Your refund is on its way."]
temporary.cleanup()
