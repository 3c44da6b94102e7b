"""The stores on Valkey: a server that stops, connections that are all in use, clients that wait for ever, and keys that are evicted.
Whatever it is denies in time, and what was sent counts. And that each store has a `timeout`."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from threading import Event, Thread
from time import monotonic
from typing import Any

import pytest
import valkey
import valkey.asyncio
from valkey.backoff import ConstantBackoff
from valkey.cluster import ValkeyCluster
from valkey.retry import Retry

from captoken.control import Feed, Operator
from captoken.errors import StoreError
from captoken.keys import OperatorKey
from captoken.stores._rules import TIMEOUT, mark
from captoken.stores.ports import Use
from captoken.stores.sqlite import SQLiteLedger, SQLiteReplayStore, SQLiteSnapshots
from captoken.stores.valkey import AsyncValkeyLedger, AsyncValkeyReplayStore, ValkeyLedger, ValkeyReplayStore, ValkeySnapshots
from tests.fixtures import NOW
from tests.stores.begun import begun
from tests.stores.places import AWAITED_STORES, STORES
from tests.stores.servers import Valkey, free_port
from tests.stores.test_ledger import ROOT, debit, reservation
from tests.stores.test_replay_store import use

SOON = 1.0  # seconds that a call has, in which a server that is stopped cannot answer
SPARE = 2.0  # seconds by which a busy machine may be late; what a client waits by itself is longer
KEY = OperatorKey.from_bytes(bytes(range(3, 35)))
ONE = reservation(1, debit(ROOT, 1, 1))


@pytest.fixture
def server() -> Iterator[Valkey]:
    """One of the test's own, which it may stop."""
    made = Valkey()
    yield made
    made.stop()


@contextmanager
def stopped(server: Valkey) -> Iterator[None]:
    """The server does nothing meanwhile, as a machine that hangs; then it goes on."""
    with closing(server.client()) as client:
        pid = client.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def soon(times: float = 1) -> Iterator[None]:
    """In the block no call lasts longer than it may."""
    began = monotonic()
    yield
    assert monotonic() - began < times * SOON + SPARE


def pooled(port: int) -> valkey.Valkey:
    pool = valkey.BlockingConnectionPool(port=port, max_connections=1, timeout=None, socket_timeout=None)
    return valkey.Valkey(connection_pool=pool)


CLIENTS: dict[str, Callable[[int], valkey.Valkey]] = {
    "as it comes": lambda port: valkey.Valkey(port=port),
    "waits for ever": lambda port: valkey.Valkey(port=port, socket_timeout=None),
    "tries again": lambda port: valkey.Valkey(port=port, socket_timeout=0.3, retry=Retry(ConstantBackoff(60), 9), retry_on_timeout=True),
    "checks its health": lambda port: valkey.Valkey(port=port, socket_timeout=None, health_check_interval=1),
    "one connection": lambda port: valkey.Valkey(port=port, socket_timeout=None, single_connection_client=True),
    "a pool that waits": pooled,
}
CALLS: dict[str, tuple[Any, Callable[[Any, int], Any], Callable[[Any], Any]]] = {
    # A kind of store, what is asked of it with a number, and what shows that the second one counts.
    "replays": (ValkeyReplayStore, lambda it, n: it.add(use(n), NOW), lambda it: not it.peek(use(2), NOW)),
    "ledger": (ValkeyLedger, lambda it, n: it.reserve(reservation(n, debit(ROOT, n, 9)), NOW), lambda it: it.spent(ROOT, "usd_cents") == 3),
    "snapshots": (ValkeySnapshots, lambda it, n: it.publish(b"%d" % n, None if n == 1 else b"1"), lambda it: it.load() == b"2"),
}


# --- called ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
def test_a_server_that_does_not_answer_is_an_error_and_what_was_sent_counts(name: str, server: Valkey) -> None:
    kind, ask, counts = CALLS[name]
    server.know_scripts()
    with closing(server.client(socket_timeout=None)) as client:
        store, other = begun(kind, client, timeout=SOON), kind(client)
        ask(store, 1)
        with stopped(server), soon(), pytest.raises(StoreError, match="no answer within 1 seconds: the request may still"):
            ask(store, 2)
        end = monotonic() + 60
        while not counts(other):
            assert monotonic() < end, "what was sent is done when the server goes on"
        store.close()
        assert counts(store), "it makes another connection"


@pytest.mark.parametrize("name", CLIENTS)
def test_whatever_the_client_waits_by_itself_no_thread_is_held_longer(name: str, server: Valkey) -> None:
    """Neither in an answer nor in its turn nor in an attempt anew. And the client is the same as before."""
    with closing(CLIENTS[name](server.port)) as client:
        ledger = begun(ValkeyLedger, client, timeout=SOON)
        with ThreadPoolExecutor(8) as pool:
            with stopped(server), soon():
                said = [str(one.exception(60)) for one in [pool.submit(ledger.peek, ONE, NOW) for _ in range(8)]]
            assert all("no answer within 1 seconds" in one or "no connection left" in one or "in time" in one for one in said), said
        assert ledger.peek(ONE, NOW) is None and client.ping()


@pytest.mark.parametrize("name", CLIENTS)
def test_a_store_is_not_opened_for_longer(name: str) -> None:
    """On a machine that takes the connection and says nothing, and on one that refuses it."""
    if name == "one connection":  # that client asks when it is made
        return
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (silent.getsockname()[1], free_port()):
            with closing(CLIENTS[name](port)) as client, soon(), pytest.raises(StoreError, match=r"no answer within|cannot be reached|in time"):
                ValkeyLedger(client, timeout=SOON)


def test_a_server_that_says_a_byte_at_a_time_is_an_error() -> None:
    """Each of its bytes is in time for the client."""
    done = Event()
    with socket.create_server(("127.0.0.1", 0)) as slow:

        def speak() -> None:
            end, _ = slow.accept()
            with suppress(OSError), end:
                while not done.wait(0.1):
                    end.sendall(b"+")

        speaking = Thread(target=speak, daemon=True)
        speaking.start()
        with closing(valkey.Valkey(port=slow.getsockname()[1])) as client, soon(), pytest.raises(StoreError, match="no answer within 1 sec"):
            ValkeyLedger(client, timeout=SOON)
        done.set()
        speaking.join(60)


@pytest.fixture
def cluster() -> Iterator[Valkey]:
    made = Valkey(**{"cluster-enabled": "yes", "cluster-announce-ip": "127.0.0.1"})
    with closing(made.client()) as one:
        one.execute_command("cluster addslotsrange", 0, 16383)
        while one.execute_command("cluster info")["cluster_state"] != "ok":
            Event().wait(0.01)
    yield made
    made.stop()


def test_a_cluster_that_does_not_answer_is_an_error(cluster: Valkey) -> None:
    with closing(ValkeyCluster(host="127.0.0.1", port=cluster.port, socket_timeout=60)) as client:
        ledger, snapshots = begun(ValkeyLedger, client, timeout=SOON), begun(ValkeySnapshots, client, timeout=SOON)
        for ask in (lambda: ledger.reserve(ONE, NOW), lambda: snapshots.publish(b"1", None), lambda: ValkeyLedger(client, timeout=SOON)):
            ledger.peek(ONE, NOW)
            with stopped(cluster), soon(), pytest.raises(StoreError, match="no answer within 1 seconds"):
                ask()
        ledger.close()
        assert ledger.spent(ROOT, "usd_cents") == 1 and client.ping()


# --- awaited ---------------------------------------------------------------------------------------------------------


def asked(store: Any, number: int) -> Any:
    if isinstance(store, AsyncValkeyReplayStore):
        return store.add(use(number), NOW)
    return store.reserve(reservation(number, debit(ROOT, 1, 99)), NOW)


@pytest.mark.parametrize("kind", [AsyncValkeyReplayStore, AsyncValkeyLedger])
@pytest.mark.parametrize("waits", [True, False], ids=["a pool that waits", "as it comes"])
def test_a_store_that_is_awaited_waits_no_longer(kind: Any, waits: bool, server: Valkey) -> None:
    """Neither for an answer, nor for its turn behind a batch, nor for a connection. What waited is never sent."""

    async def run() -> None:
        pool = valkey.asyncio.BlockingConnectionPool(port=server.port, max_connections=1, timeout=None, socket_timeout=None)
        source = {"connection_pool": pool} if waits else {"port": server.port}
        async with valkey.asyncio.Valkey(**source) as client:
            store = await kind.create(client, floor=0, timeout=SOON)
            server.know_scripts()
            with stopped(server), soon(1.5):
                first = asyncio.create_task(asked(store, 1))
                await asyncio.sleep(0.3)
                said = await asyncio.gather(first, *(asked(store, number) for number in range(2, 9)), return_exceptions=True)
                assert all(isinstance(one, StoreError) and "no answer within 1 seconds" in str(one) for one in said), said
            answers = [await asked(store, number) for number in range(20, 23)]
            assert answers == [True if kind is AsyncValkeyReplayStore else None] * 3
            if kind is AsyncValkeyLedger:
                spent = await store.spent(ROOT, "usd_cents")
                assert spent == 4 or (spent == 11 and not waits), "what was sent, and those three: the others by another connection, or not"
        await pool.disconnect()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_tasks_that_wait_for_it_to_open_wait_no_longer(server: Valkey) -> None:
    """And not one after the other."""

    async def run() -> None:
        async with valkey.asyncio.Valkey(port=server.port, socket_timeout=None) as client:
            await AsyncValkeyLedger.create(client, floor=0)
            ledger = AsyncValkeyLedger(client, timeout=SOON)
            with stopped(server), soon():
                said = await asyncio.gather(*(asked(ledger, number) for number in range(8)), return_exceptions=True)
                assert all(isinstance(one, StoreError) for one in said), said
            with stopped(server), soon(2):
                said = await asyncio.gather(*(ledger.open() for _ in range(8)), return_exceptions=True)
                assert all(isinstance(one, StoreError) for one in said), said
                assert any("did not open within 1 seconds" in str(one) for one in said)
            assert await asked(ledger, 9) is None

    asyncio.run(asyncio.wait_for(run(), 60))


def test_an_awaited_cluster_that_does_not_answer_is_an_error(cluster: Valkey) -> None:
    async def run() -> None:
        async with valkey.asyncio.ValkeyCluster(host="127.0.0.1", port=cluster.port, socket_timeout=60) as client:
            ledger = await AsyncValkeyLedger.create(client, floor=0, timeout=SOON)
            with stopped(cluster), soon(), pytest.raises(StoreError, match="no answer within 1 seconds"):
                await ledger.reserve(ONE, NOW)

    asyncio.run(asyncio.wait_for(run(), 60))


# --- every store -----------------------------------------------------------------------------------------------------

ON_DISK = [one for kinds in STORES.values() for one in kinds[1:] if one is not None]
TIMED = ON_DISK + [one for kinds in AWAITED_STORES.values() for one in kinds]


@pytest.mark.parametrize("kind", TIMED, ids=lambda kind: kind.__name__)
def test_each_store_has_a_timeout_by_which_it_is_made_and_opened(kind: Any) -> None:
    """Five seconds, unless its maker says otherwise: called and awaited, by the constructor and by `create`."""
    given = [inspect.signature(base.__init__).parameters.get("timeout") for base in kind.__mro__]
    assert {one.default for one in given if one and one.default is not one.empty} == {TIMEOUT}
    made = inspect.signature(kind.create).parameters
    passed_on = "facts" in made and made["facts"].kind is inspect.Parameter.VAR_KEYWORD
    assert passed_on or made["timeout"].default == TIMEOUT


@pytest.mark.parametrize("timeout", [0, -1, "5", None, True, float("nan"), float("inf"), 86_401])
def test_a_timeout_is_seconds(timeout: Any, valkey_server: Valkey) -> None:
    async def awaited(kind: Any) -> None:
        async with valkey.asyncio.Valkey(port=valkey_server.port) as client:
            with pytest.raises(ValueError, match="timeout must be seconds"):
                kind(client, timeout=timeout)
            with pytest.raises(ValueError, match="timeout must be seconds"):
                await kind.create(client, timeout=timeout)

    with closing(valkey_server.client()) as client:
        for kind in (ValkeyReplayStore, ValkeyLedger, ValkeySnapshots):
            for made in (kind, kind.create):
                with pytest.raises(ValueError, match="timeout must be seconds"):
                    made(client, timeout=timeout)
    for kind in (AsyncValkeyReplayStore, AsyncValkeyLedger):
        asyncio.run(awaited(kind))


@pytest.mark.parametrize("kind", [SQLiteReplayStore, SQLiteLedger, SQLiteSnapshots])
def test_a_file_that_another_holds_is_an_error_in_time(kind: Any, tmp_path: Any) -> None:
    """To make it, to open it, and to ask it."""
    path = tmp_path / "stores.db"
    with closing(begun(kind, path, timeout=SOON)) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        asks: tuple[Callable[[], Any], ...] = (
            lambda: kind.create(tmp_path / "stores.db", timeout=SOON),
            {
                SQLiteReplayStore: lambda: store.add(use(1), NOW),
                SQLiteLedger: lambda: store.reserve(ONE, NOW),
                SQLiteSnapshots: lambda: store.publish(b"1", None),
            }[kind],
        )
        for ask in asks:
            other.execute("begin exclusive")
            with soon(), pytest.raises(StoreError, match=r"locked|longer than the timeout"):
                ask()
            other.execute("rollback")
        with soon(), closing(kind(path, timeout=SOON)) as another:
            assert another is not None


# --- keys that are evicted -------------------------------------------------------------------------------------------


def evicting(client: valkey.Valkey, policy: str) -> None:
    """Other keys push out as much as lies there."""
    count = lambda: client.info("stats")["evicted_keys"]  # noqa: E731
    before = count()
    client.config_set("maxmemory-policy", policy)
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 50_000)
    for number in range(2000):
        client.set(f"filler{number}", b"x" * 1000, ex=1000)
    assert count() > before


@pytest.mark.parametrize("over", [True, False], ids=["it was switched off again", "it goes on"])
@pytest.mark.parametrize("policy", ["allkeys-random", "allkeys-lru", "volatile-ttl"])
def test_eviction_that_is_switched_on_later_gives_no_single_use_again(policy: str, over: bool, server: Valkey) -> None:
    """Of two hundred tokens that were used, none can be used again a second later. Whoever is issued after it ended can."""
    with closing(server.client()) as client:
        now = int(client.time()[0])
        replays, ledger = begun(ValkeyReplayStore, client), begun(ValkeyLedger, client)

        def taken(number: int, at: int) -> bool:
            try:
                one = reservation(number + 1000 * (at - now), debit(number.to_bytes(16, "big"), 1, 1), at=at, keep=at + 600)
                return ledger.reserve(one, at) is None
            except StoreError:
                return False

        def proved(number: int, issued: int, at: int) -> bool:
            try:
                return replays.add(Use(number.to_bytes(16, "big"), issued), at)
            except StoreError:
                return False

        assert all(taken(number, now) and proved(number, now, now) for number in range(200))
        evicting(client, policy)
        if over:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 0)
        else:
            with pytest.raises(StoreError, match=r"maxmemory-policy may evict more|no store here"):
                ledger.peek(reservation(1, at=now), now + 1)
        assert not any(taken(number, now + 1) or proved(number, now, now + 1) for number in range(200))
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 0)
        assert not any(taken(number, now + 2) or proved(number, now, now + 2) for number in range(200))
        ledger, replays = begun(ValkeyLedger, client), begun(ValkeyReplayStore, client)
        if policy == "volatile-ttl":  # the stores themselves are there yet
            assert taken(1000, now + 200) and proved(1000, now + 200, now + 200)


@pytest.mark.parametrize("gone", [[0], [1], [2], [0, 1], [1, 2], [0, 2]], ids=str)
def test_a_snapshot_of_which_a_part_was_evicted_is_no_older_snapshot(gone: list[int], server: Valkey) -> None:
    """Without the deltas a revoked token would be allowed. It denies, whichever of the keys is left."""
    with closing(server.client()) as client:
        store = begun(ValkeySnapshots, client)
        operator = Operator(KEY, store, by="ops")
        operator.renew()
        assert store.append(b"delta", mark(bytes(store.load() or b"")), bytes(32))
        keys = [b"{captoken}:overlay", b"{captoken}:overlay:deltas", b"{captoken}:overlay:state"]
        client.delete(*(keys[one] for one in gone))
        asks: tuple[Callable[[], Any], ...] = (
            store.load,
            lambda: store.since(bytes(32)),
            lambda: store.append(b"more", bytes(32), b"m" * 32),
            lambda: store.publish(b"new", None),
            lambda: Feed(store, [KEY.public]).refresh(),
        )
        for ask in asks:
            with pytest.raises(StoreError, match=r"something that the store did not write|no store here"):
                ask()


def test_snapshots_are_not_given_out_by_a_server_that_evicts(server: Valkey) -> None:
    with closing(server.client()) as client:
        store = begun(ValkeySnapshots, client)
        assert store.publish(b"one", None)
        client.config_set("maxmemory-policy", "allkeys-lru")
        for ask in (store.load, lambda: store.publish(b"two", b"one"), lambda: store.since(bytes(32))):
            with pytest.raises(StoreError, match="set it to noeviction"):
                ask()
        client.config_set("maxmemory-policy", "noeviction")
        assert store.load() == b"one"
