"""A store that several threads call, and a call that nobody waits for any more: a connection is one call's until it is done.

An event loop calls the stores through threads. A task that is cancelled leaves its thread behind, which goes on.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from threading import Lock, get_ident
from time import monotonic, sleep
from typing import Any

import psycopg
import pytest
import valkey

from captoken.stores.ports import Debit
from captoken.stores.postgres import PostgresLedger, PostgresReplayStore
from captoken.stores.valkey import ValkeyLedger, ValkeyReplayStore
from tests.fixtures import NOW
from tests.stores.begun import begun
from tests.stores.conftest import Kind
from tests.stores.servers import Valkey
from tests.stores.test_ledger import CHILD, ROOT, debit, reservation, spent
from tests.stores.test_replay_store import use


class Watch:
    """Which thread is at which connection, from what it asks to the answer; and whether two ever were."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._busy: dict[int, int] = {}
        self.calls = 0
        self.mixed = 0

    def enter(self, connection: Any) -> None:
        with self._lock:
            self.calls += 1
            self.mixed += self._busy.setdefault(id(connection), get_ident()) != get_ident()

    def leave(self, connection: Any) -> None:
        with self._lock:
            self._busy.pop(id(connection), None)

    def until_busy(self, connections: int = 1) -> None:
        """Until so many are waited at for an answer."""
        until = monotonic() + 60
        while len(self._busy) < connections:
            assert monotonic() < until, f"{len(self._busy)} of {connections} connections are waited at"
            sleep(0.001)


class Watched:
    """The stores of a kind on connections that are watched, and a way to make them wait."""

    def __init__(self, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self.watch = kind.place, Watch()
        watch = self.watch
        if kind.name == "sqlite":
            plain = sqlite3.connect

            class File(sqlite3.Connection):
                def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
                    if statement.startswith("begin"):
                        watch.enter(self)
                    try:
                        found = super().execute(statement, *values)
                    except sqlite3.OperationalError:
                        if statement.startswith("begin"):  # locked: it is let go of, until it is tried again
                            watch.leave(self)
                        raise
                    if statement in ("commit", "rollback"):
                        watch.leave(self)
                    return found

            monkeypatch.setattr(sqlite3, "connect", lambda *given, **named: plain(*given, **{"factory": File, **named}))
            self.replays, self.ledger = kind.place.replays(floor=0), kind.place.ledger(floor=0)
        elif kind.name == "postgres":
            kind.place.snapshots()  # makes the tables

            class Connected(psycopg.Connection[Any]):
                def wait(self, *given: Any, **named: Any) -> Any:
                    watch.enter(self)
                    try:
                        return super().wait(*given, **named)
                    finally:
                        watch.leave(self)

            def connect() -> psycopg.Connection[Any]:
                return Connected.connect(kind.place.where)

            self.replays = begun(PostgresReplayStore, connect, schema=kind.place.name)
            self.ledger = begun(PostgresLedger, connect, schema=kind.place.name)
        else:
            client = watched_client(watch, int(kind.place.where))
            self.replays = begun(ValkeyReplayStore, client, prefix=kind.place.name)
            self.ledger = begun(ValkeyLedger, client, prefix=kind.place.name)

    @contextmanager
    def held(self) -> Iterator[None]:
        """In the block nothing is answered, to nobody."""
        if self.place.kind == "sqlite":
            with closing(sqlite3.connect(self.place.where, isolation_level=None, factory=sqlite3.Connection)) as other:
                other.execute("begin immediate")
                yield
                other.execute("rollback")
        elif self.place.kind == "postgres":
            with psycopg.connect(self.place.where) as other:
                for table in ("proofs", "reservations"):
                    other.execute(f"lock table {self.place.name}.{table} in access exclusive mode".encode())
                yield
                other.rollback()
        else:
            with closing(valkey.Valkey(port=int(self.place.where))) as other:
                other.execute_command("client pause", 30_000, "write")
                try:
                    yield
                finally:
                    other.execute_command("client unpause")

    def close(self) -> None:
        for store in (self.replays, self.ledger):
            if hasattr(store, "close"):
                store.close()
            else:
                store._client.close()


def watched_client(watch: Watch, port: int, **facts: Any) -> valkey.Valkey:
    """A client whose connections are watched."""

    class Connection(valkey.Connection):
        def send_packed_command(self, *given: Any, **named: Any) -> None:
            watch.enter(self)
            super().send_packed_command(*given, **named)

        def read_response(self, *given: Any, **named: Any) -> Any:
            try:
                return super().read_response(*given, **named)
            finally:
                watch.leave(self)

    return valkey.Valkey(connection_pool=valkey.ConnectionPool(connection_class=Connection, port=port), **facts)


@pytest.fixture
def watched(shared_kind: Kind, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    made = Watched(shared_kind, monkeypatch)
    yield made
    made.close()


def asked(number: int) -> Debit:
    """Of two that ask, one is told that the bucket has not enough: each has an answer of its own."""
    return debit(CHILD if number % 2 else ROOT, number, 0 if number % 2 else 10**6, link=number)


def answer(number: int) -> Debit | None:
    return asked(number) if number % 2 else None


def test_threads_have_each_their_own_answer(watched: Watched) -> None:
    """Twelve threads call one store for whatever it is there for, and are never at one connection at the same time."""
    replays, ledger = watched.replays, watched.ledger

    def run(who: int) -> None:
        for number in range(20):
            one = 100 * who + number
            assert ledger.peek(reservation(one, asked(number)), NOW) == answer(number)
            assert ledger.reserve(reservation(one, asked(number)), NOW) == answer(number)
            assert ledger.settle(reservation(one).id, {}, NOW) is (number % 2 == 0)
            assert (replays.peek(use(one), NOW), replays.add(use(one), NOW), replays.peek(use(one), NOW)) == (True, True, False)
            assert ledger.spent(CHILD, "usd_cents") == 0

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(run, range(12)))
    assert watched.watch.mixed == 0 and watched.watch.calls > 12 * 20 * 6 and spent(ledger, ROOT, CHILD) == [0, 0]


def test_a_call_that_nobody_waits_for_keeps_its_connection_until_it_is_done(watched: Watched) -> None:
    """A task is cancelled while its thread waits for the store. What it asked for is done, and counts; those who ask meanwhile
    have their own answers, and nobody reads the one that was left."""
    replays, ledger, watch = watched.replays, watched.ledger, watched.watch

    async def left(busy: int, call: Callable[..., Any], *given: Any) -> None:
        task = asyncio.create_task(asyncio.to_thread(call, *given))
        await asyncio.to_thread(watch.until_busy, busy)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(32))
        with watched.held():
            await left(1, ledger.reserve, reservation(1000, debit(amount=500, limit=10**6)), NOW)
            await left(2, replays.add, use(1000), NOW)
            calls = [asyncio.create_task(asyncio.to_thread(ledger.reserve, reservation(number, asked(number)), NOW)) for number in range(10)]
            calls += [asyncio.create_task(asyncio.to_thread(replays.add, use(number), NOW)) for number in range(10)]
            await asyncio.sleep(0.1)
            assert not any(call.done() for call in calls)
        return await asyncio.gather(*calls)

    answers = asyncio.run(main())  # and waits for all threads
    assert answers == [answer(number) for number in range(10)] + [True] * 10
    assert watch.mixed == 0
    assert spent(ledger, ROOT) == [500 + 0 + 2 + 4 + 6 + 8]
    assert replays.add(use(1000), NOW) is False, "it was used, though nobody heard of it"
    assert ledger.settle(reservation(1000).id, {"usd_cents": 20}, NOW) is True and spent(ledger, ROOT) == [20 + 20]


def test_to_close_a_store_waits_for_who_is_at_it(watched: Watched) -> None:
    """The connection is not taken from under a call; and afterwards the store opens again."""
    ledger = watched.ledger
    if not hasattr(ledger, "close"):
        ledger.close = lambda: None  # the client of Valkey is the caller's
    with ThreadPoolExecutor(2) as pool:
        with watched.held():
            asking = pool.submit(ledger.reserve, reservation(1, debit(amount=3)), NOW)
            watched.watch.until_busy()
            closing_ = pool.submit(ledger.close)
            assert wait([asking], timeout=0.1).done == set()
        assert asking.result(timeout=60) is None and closing_.result(timeout=60) is None
    assert spent(ledger, ROOT) == [3]


# --- one connection for all ------------------------------------------------------------------------------------------


@pytest.fixture
def one_connection(valkey_server: Valkey) -> Iterator[tuple[valkey.Valkey, Watch]]:
    """A client that has one connection, as some are made for one thread."""
    watch = Watch()
    client = watched_client(watch, valkey_server.port, single_connection_client=True)
    yield client, watch
    client.close()


def test_a_client_of_one_connection_is_as_good_as_another(one_connection: tuple[valkey.Valkey, Watch]) -> None:
    """Two stores of one client, and twelve threads: each has a connection and its own answer, and a proof is used once."""
    client, watch = one_connection
    replays, ledger = begun(ValkeyReplayStore, client, prefix="one"), begun(ValkeyLedger, client, prefix="one")

    def run(who: int) -> list[bool]:
        for number in range(20):
            assert ledger.reserve(reservation(100 * who + number, asked(number)), NOW) == answer(number)
        return [replays.add(use(number), NOW) for number in range(50)]

    with ThreadPoolExecutor(12) as pool:
        rows = list(pool.map(run, range(12)))
    assert watch.mixed == 0 and watch.calls > 12 * 70
    assert [sum(row[number] for row in rows) for number in range(50)] == [1] * 50
    assert spent(ledger, ROOT) == [12 * sum(range(0, 20, 2))]
