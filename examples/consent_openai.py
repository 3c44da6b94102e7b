"""A mail waits for a person's yes in openai-agents, and goes out once.

    pip install 'captoken[openai-agents]' && python examples/consent_openai.py

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

from agents import Agent, Runner, RunState, function_tool, set_tracing_disabled
from agents.testing import ScriptedModel, assistant_message, function_call

from captoken import Issuer, Keyring, Verifier, current
from captoken.adapters.openai_agents import GuardedAgent, guarded, requests_of
from captoken.consent import Approver, ApproverKey
from captoken.stores.memory import MemoryReplayStore
from captoken.tools import ToolGuard

# Else what the agents say goes to the tracing service of the models' vendor.
set_tracing_disabled(True)

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


def agent(*, resumed: bool = False) -> GuardedAgent:
    """With a fake model: it makes its three calls, and then it is done."""
    calls = [function_call(tool, json.dumps(given), call_id=tool) for tool, given in CALLS]
    model = ScriptedModel([*([] if resumed else [calls]), [assistant_message("Done.")]])
    tools: list[Any] = [function_tool(tool) for tool in (lookup, mail, refund)]
    plain = Agent(name="desk-agent", model=model, tools=tools)
    return guarded(plain, guard, pause=True)


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


async def until_the_pause() -> None:
    with current.use(token):
        paused = await Runner.run(agent(), "See to order o-1.")
        waiting = await requests_of(paused)
    (folder / "state").write_text(paused.to_state().to_string())
    (folder / "waiting").write_text(json.dumps(waiting))


async def go_on(consents: list[str], refused: list[str]) -> None:
    for attempt in ("resumed", "resumed from the same state once more"):
        again = agent(resumed=True)
        state: RunState[Any] = await RunState.from_string(again, (folder / "state").read_text())
        for item in state.get_interruptions():
            if item.call_id in refused:
                state.reject(item)
            else:
                state.approve(item)
        with current.use(token, consents=consents):
            result = await Runner.run(again, state)
        print(f"\n{attempt}: {result.final_output}")


in_a_process_that_is_killed(lambda: asyncio.run(until_the_pause()))
assert "cap1" not in (folder / "state").read_text()

print("Jane is asked:")
asyncio.run(go_on(*jane_reads(json.loads((folder / "waiting").read_text()))))

print("\nWhat has run:")
done = (folder / "done").read_text().splitlines()
for line in done:
    print(f"      {line}")
assert done == ["lookup o-1", "mail ann@example.com: Your refund is on its way."]
temporary.cleanup()
