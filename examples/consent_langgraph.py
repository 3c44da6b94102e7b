"""A mail waits for a person's yes in LangGraph, and goes out once.

    pip install 'captoken[langchain]' && python examples/consent_langgraph.py

One message of the model has three calls: a look-up, a mail and a refund. The token lets the agent
mail and refund only with Jane's consent, each time. So the run pauses before these two. What is
stored of it has no token. The process is killed there. Another one builds everything anew, and
Jane says yes to the mail alone. The mail goes out once.
"""

import json
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command

from captoken import Issuer, Keyring, Verifier, current
from captoken.adapters.langchain import TokenGuard, requests_of
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


def model(state: MessagesState) -> dict[str, list[AnyMessage]]:
    """A fake: it makes its three calls, and then it is done."""
    if any(isinstance(message, AIMessage) for message in state["messages"]):
        return {"messages": [AIMessage("Done.")]}
    calls: list[Any] = [
        {"name": tool, "args": arguments, "id": f"call-{number}"}
        for number, (tool, arguments) in enumerate(CALLS)
    ]
    return {"messages": [AIMessage("", tool_calls=calls)]}


def next_step(state: MessagesState) -> str:
    last = state["messages"][-1]
    return "tools" if isinstance(last, AIMessage) and last.tool_calls else END


kept = InMemorySaver()  # in your service a database: then nothing has to be stored below


def graph() -> Any:
    own = TokenGuard(guard, agent="desk-agent", pause=True)
    made = StateGraph(MessagesState)
    made.add_node("model", model)
    made.add_node("tools", own.node([lookup, mail, refund]))
    made.add_edge(START, "model")
    made.add_conditional_edges("model", next_step)
    made.add_edge("tools", "model")
    return made.compile(checkpointer=kept)


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


config = {"configurable": {"thread_id": "order-o-1"}}
def in_a_process_that_is_killed(first: Callable[[], None]) -> None:
    """Run it in a process of its own, which is then killed. What it stored is left."""
    child = os.fork()
    if child == 0:
        first()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def until_the_pause() -> None:
    with current.use(token):
        paused = graph().invoke({"messages": [HumanMessage("See to order o-1.")]}, config)
    checkpoints = dict(kept.storage), dict(kept.writes), dict(kept.blobs)
    (folder / "checkpoints").write_bytes(pickle.dumps(checkpoints))
    (folder / "waiting").write_text(json.dumps(requests_of(paused)))


in_a_process_that_is_killed(until_the_pause)
assert not (folder / "done").exists()  # all calls are asked about before the first one runs
stored = (folder / "checkpoints").read_bytes()
assert b"cap1" not in stored
parts: list[Any] = [kept.storage, kept.writes, kept.blobs]
for own, theirs in zip(parts, pickle.loads(stored), strict=True):
    own.update(theirs)

print("Jane is asked:")
consents, refused = jane_reads(json.loads((folder / "waiting").read_text()))

with current.use(token, consents=consents):
    result = graph().invoke(Command(resume=dict.fromkeys(refused, False)), config)
print(f"\nresumed: {result['messages'][-1].content}")

print("\nWhat has run:")
done = sorted((folder / "done").read_text().splitlines())  # the tools run side by side
for line in done:
    print(f"      {line}")
assert done == ["lookup o-1", "mail ann@example.com: Your refund is on its way."]
temporary.cleanup()
