"""One task at three servers, none of which can mint for another.

    python examples/three_servers.py

A database, a mail service and a calendar each have keys of their own, which the issuer derives for
them. The orchestrator holds a set of tokens, one a server, and hands on a part of each with one
call. An injected text makes the sub-agent try for more. The orchestrator then stops it, at all
three servers, with one request to the control plane.
"""

import logging

from captoken import Access, Issuer, Keyring, TokenSet, Verifier
from captoken.control import ControlPlane, Operator, Overlay, recall
from captoken.keys import OperatorKey
from captoken.stores.memory import MemorySnapshots

# What is refused is printed here. In earnest, each server logs it for its operator.
logging.getLogger("captoken").addHandler(logging.NullHandler())

# --- who has which key ------------------------------------------------------------------------

issuing = Keyring.generate()  # the issuer's: from it come the keys of each server
operator_key = OperatorKey.generate()
store = MemorySnapshots()  # what all servers read: in earnest PostgreSQL, Valkey or a bucket
operator = Operator(operator_key, store, by="control-plane")
operator.renew()


def overlay() -> Overlay:
    """The newest snapshot of the operator's."""
    return Overlay.open(store.load() or b"", [operator_key.public])


def server(name: str) -> Verifier:
    """A server with its own keys and nothing more."""
    return Verifier(issuing.for_audience(name), audience=name, overlay=overlay)


servers = {name: server(name) for name in ("sales-db", "mail", "calendar")}
plane = ControlPlane(server("control-plane"), operator)

# --- one mint, one hand-over ------------------------------------------------------------------

task = Issuer(issuing).mint_set(
    subject="user:jane",
    agent="orchestrator",
    task="q3-report",
    expires_in="30m",
    servers={
        "sales-db": {"tables": ["sales", "customers"], "operations": ["select"]},
        "mail": {"tools": {"send": {"to": {"in": ["board@example.com"]}}}},
        "calendar": {"tools": {"read": {}, "invite": {"who": {"any": True}}}},
    },
    control="control-plane",
)
clerk = task.delegate(
    to="clerk",
    expires_in="5m",
    only={"sales-db": {"tables": ["sales"]}, "mail": {}, "calendar": {"tools": {"read": {}}}},
)

# --- what the clerk does ----------------------------------------------------------------------

DESK = {
    "read the sales": ("sales-db", Access(table="sales", operation="select")),
    "read the customers": ("sales-db", Access(table="customers", operation="select")),
    "mail the board": ("mail", Access(tool="send", arguments={"to": "board@example.com"})),
    "mail a stranger": ("mail", Access(tool="send", arguments={"to": "eve@example.org"})),
    "read the calendar": ("calendar", Access(tool="read")),
    "invite somebody": ("calendar", Access(tool="invite", arguments={"who": "eve"})),
}


def tries(holder: TokenSet) -> None:
    """What each server says to a holder, which shows it the token of that server and no other."""
    for what, (name, access) in DESK.items():
        decision = servers[name].check(holder.present(audience=name), access)
        print(f"  {what:<20}{name:<10}{decision.code}")


print("The clerk, with what was handed over:")
tries(clerk)

# --- what a server can do with its keys -------------------------------------------------------

print("\nThe mail server is taken over, and mints for itself and for the database:")
forged = Issuer(issuing.for_audience("mail")).mint(
    subject="user:jane",
    agent="orchestrator",
    task="q3-report",
    tables=["*"],
    operations=["*"],
    tools={"*": {}},
)
for what in ("read the customers", "mail a stranger", "invite somebody"):
    name, access = DESK[what]
    print(f"  {what:<20}{name:<10}{servers[name].check(forged, access).code}")

# --- stopped everywhere -----------------------------------------------------------------------

request = recall(task, clerk, audience="control-plane", why="it asked for customers")
plane.handle(request)
print("\nThe orchestrator has recalled what it handed over:")
tries(clerk)
print("\nThe orchestrator itself goes on:")
tries(task)
