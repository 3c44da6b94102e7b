"""The stores whose calls are awaited, on their own and with a verifier: many tasks, tasks that are cancelled, connections that
are cut, other loops and processes. What they share with the other stores is in the suite, which calls them too."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from typing import Any

import psycopg
import pytest
import valkey
import valkey.asyncio

from captoken import AsyncVerifier
from captoken._format.encoding import b64decode
from captoken.audit import AuditTrail
from captoken.errors import StoreError
from captoken.stores.ports import AsyncLedger, AsyncReplayStore, Use
from captoken.stores.postgres import (
    AsyncPostgresLedger,
    AsyncPostgresReplayStore,
    PostgresLedger,
    create_tables,
)
from captoken.stores.valkey import (
    AsyncValkeyLedger,
    AsyncValkeyReplayStore,
    ValkeyLedger,
)
from tests.fixtures import KEYRING, NOW, clock
from tests.stores.begun import begun_awaited
from tests.stores.places import Place
from tests.stores.servers import Postgres, Valkey, Wire
from tests.stores.test_ledger import ASK, CHILD, ROOT, debit, minted, reservation
from tests.stores.test_replay_store import use

VALKEY: list[Any] = [AsyncValkeyLedger, AsyncValkeyReplayStore]
POSTGRES: list[Any] = [AsyncPostgresLedger, AsyncPostgresReplayStore]


class There:
    """Where the stores of one test lie, and how they are opened in its event loop."""

    def __init__(self, server: Valkey | Postgres) -> None:
        self.server, self.name, self.port = server, f"a{os.urandom(8).hex()}", server.port
        if isinstance(server, Postgres):
            with psycopg.connect(server.conninfo) as connection:
                create_tables(connection, schema=self.name)

    @property
    def conninfo(self) -> str:
        assert isinstance(self.server, Postgres)
        return self.server.conninfo.replace(str(self.server.port), str(self.port))

    @asynccontextmanager
    async def stores(self, **facts: Any) -> AsyncIterator[tuple[Any, Any]]:
        """A ledger and a store of used proofs."""
        if isinstance(self.server, Valkey):
            async with valkey.asyncio.Valkey(port=self.port) as client:
                ledger = await begun_awaited(AsyncValkeyLedger, client, prefix=self.name, shared=True)
                yield ledger, await begun_awaited(AsyncValkeyReplayStore, client, prefix=self.name)
        else:
            ledger = await begun_awaited(AsyncPostgresLedger, self.conninfo, schema=self.name, shared=True, **facts)
            replays = await begun_awaited(AsyncPostgresReplayStore, self.conninfo, schema=self.name, **facts)
            yield ledger, replays
            await ledger.aclose()
            await replays.aclose()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """In the block nothing that is written is answered, to nobody."""
        if isinstance(self.server, Valkey):
            with closing(self.server.client()) as other:
                other.execute_command("client pause", 30_000, "write")
                try:
                    yield
                finally:
                    other.execute_command("client unpause")
        else:
            with psycopg.connect(self.server.conninfo) as other:
                for table in ("proofs", "reservations"):
                    other.execute(f"lock table {self.name}.{table} in access exclusive mode".encode())
                yield
                other.rollback()


@pytest.fixture(params=["valkey", "postgres"])
def there(request: pytest.FixtureRequest) -> There:
    return There(request.getfixturevalue(f"{request.param}_server"))


def awaited(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test that is a coroutine, in an event loop of its own."""

    def run(there: There) -> None:
        asyncio.run(asyncio.wait_for(test(there), 120))

    run.__doc__, run.__name__ = test.__doc__, test.__name__
    return run


# --- many at once ----------------------------------------------------------------------------------------------------


@awaited
async def test_64_tasks_get_what_there_is_and_no_more(there: There) -> None:
    """Three hundred of three hundred, of 640 that are asked for at the same time; and each proof is taken once."""
    async with there.stores() as (ledger, replays):
        asked = debit(ROOT, 1, 300), debit(CHILD, 1, 1000)

        async def run(who: int) -> tuple[int, int]:
            got = first = 0
            for number in range(10):
                got += await ledger.reserve(reservation(who * 100 + number, *asked), NOW) is None
                first += await replays.add(use(number), NOW)
            return got, first

        rows = await asyncio.gather(*(run(who) for who in range(64)))
        assert [sum(column) for column in zip(*rows, strict=True)] == [300, 10]
        assert [await ledger.spent(bucket, "usd_cents") for bucket in (ROOT, CHILD)] == [300, 300]


@awaited
async def test_of_200_requests_of_which_some_are_cancelled_exactly_the_limit_is_taken(there: There) -> None:
    """Through a verifier, with a trail: what was told yes is at most what was taken, which is what the records say."""
    async with there.stores() as (ledger, _):
        trail: list[bytes] = []
        one = AsyncVerifier(KEYRING, clock=clock(), ledger=ledger, audit=AuditTrail(trail.append))
        text = minted(budget={"usd_cents": 50}).serialize()
        tasks = [asyncio.create_task(one.check(text, ASK)) for _ in range(200)]
        for number, task in enumerate(tasks[::3]):
            await asyncio.sleep(0.002 * (number % 2))
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        told = sum(bool(answer) for answer in answers if not isinstance(answer, BaseException))
        link = b64decode((await one.authenticate(text)).link_ids[0])
        recorded = sum(b'"allowed":true' in line and b'"taken"' in line for line in trail)
        assert 0 < told <= recorded == 50 == await ledger.spent(link, "usd_cents")


# --- tasks that are cancelled ----------------------------------------------------------------------------------------


@awaited
async def test_a_request_that_is_cancelled_while_its_ledger_is_asked_runs_to_its_record(there: There) -> None:
    """What it took counts, and the record says so; then it raises (24.20)."""
    async with there.stores() as (ledger, _):
        trail: list[bytes] = []
        one = AsyncVerifier(KEYRING, clock=clock(), ledger=ledger, audit=AuditTrail(trail.append))
        text = minted(budget={"usd_cents": 1}).serialize()
        await ledger.open()
        async with there.held():
            task = asyncio.create_task(one.check(text, ASK))
            await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.sleep(0.1)
            assert not task.done() and trail == []
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(trail) == 2 and b'"allowed":true' in trail[1] and b'"taken"' in trail[1]
        assert (await one.check(text, ASK)).code == "budget_exhausted"


@awaited
async def test_a_call_that_is_cancelled_leaves_no_answer_to_the_next(there: There) -> None:
    """Calls of the store itself, cancelled while they wait: those that come after have their own answers, each of them."""
    async with there.stores() as (ledger, replays):
        for number in range(8):
            assert await ledger.reserve(reservation(number, debit(bytes([number]) * 16, number + 1)), NOW) is None
        await replays.open()
        async with there.held():
            tasks = [asyncio.create_task(ledger.reserve(reservation(100 + n, debit(bytes([n]) * 16, 9, 9)), NOW)) for n in range(8)]
            tasks += [asyncio.create_task(replays.add(use(n), NOW)) for n in range(8)]
            await asyncio.sleep(0.2)
            for task in tasks:
                task.cancel()
            stopped = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(one) for one in stopped} == {asyncio.CancelledError}
        for _ in range(3):
            found = await asyncio.gather(*(ledger.spent(bytes([number]) * 16, "usd_cents") for number in range(8)))
            assert found == [number + 1 for number in range(8)]
        for number in range(8):
            assert await ledger.reserve(reservation(number, debit(bytes([number]) * 16, number + 1)), NOW) is None
            assert await ledger.reserve(reservation(200 + number, debit(CHILD, 99, 9)), NOW) == debit(CHILD, 99, 9)
            assert await replays.add(use(100 + number), NOW) is True and await replays.add(use(100 + number), NOW) is False


# --- connections that are cut ----------------------------------------------------------------------------------------


@awaited
async def test_connections_that_are_cut_are_store_errors_and_the_next_call_has_its_own_answer(there: There) -> None:
    """Sixteen tasks, whose connections are cut again and again in the midst of it: each answer is right, or none."""
    wire = Wire(there.port)
    there.port = wire.port
    async with there.stores() as (ledger, _):
        await ledger.open()
        for number in range(16):
            assert await ledger.reserve(reservation(number, debit(bytes([number]) * 16, number + 1, 99)), NOW) is None

        async def ask(who: int) -> int:
            failures = 0
            for _ in range(40):
                try:
                    assert await ledger.spent(bytes([who]) * 16, "usd_cents") == who + 1
                    assert await ledger.reserve(reservation(who, debit(bytes([who]) * 16, who + 1, 99)), NOW) is None
                    over = debit(bytes([who]) * 16, 100 + who, 99)
                    assert await ledger.peek(reservation(100 + who, over), NOW) == over
                except StoreError:
                    failures += 1
            return failures

        async def cut() -> None:
            while True:
                await asyncio.sleep(0.02)
                wire.drop()

        cutting = asyncio.create_task(cut())
        failed = sum(await asyncio.gather(*(ask(who) for who in range(16))))
        cutting.cancel()
        assert [await ledger.spent(bytes([who]) * 16, "usd_cents") for who in range(16)] == [who + 1 for who in range(16)]
    await asyncio.to_thread(wire.close)
    assert failed or isinstance(there.server, Postgres), "PostgreSQL's asks again by itself"


# --- homes -----------------------------------------------------------------------------------------------------------


def test_a_store_is_for_the_first_event_loop_that_asks(there: There) -> None:
    """In another one it is an error, and nothing is sent."""
    made: list[Any] = []

    async def first() -> None:
        async with there.stores() as stores:
            made.extend(stores)
            assert await stores[0].reserve(reservation(1), NOW) is None and await stores[1].add(use(1), NOW)

    async def second() -> None:
        for call in (made[0].reserve(reservation(2), NOW), made[0].spent(ROOT, "usd_cents"), made[0].open(), made[1].add(use(2), NOW)):
            with pytest.raises(StoreError, match="another event loop"):
                await call

    asyncio.run(first())
    asyncio.run(second())


@awaited
async def test_a_copy_in_a_forked_child_asks_nothing(there: There) -> None:
    """Its connections are those of its parent: both would read each other's answers."""
    async with there.stores() as (ledger, replays):
        assert await ledger.reserve(reservation(1), NOW) is None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("os.getpid", lambda: -1)
            for call in (ledger.reserve(reservation(2), NOW), ledger.open(), replays.add(use(1), NOW)):
                with pytest.raises(StoreError, match="another process"):
                    await call
        assert await ledger.spent(ROOT, "usd_cents") == 1 and await replays.add(use(1), NOW) is True


@awaited
async def test_those_that_are_called_and_those_that_are_awaited_count_together(there: There) -> None:
    """In one place: reserved by the one, settled by the other."""
    kind = "valkey" if isinstance(there.server, Valkey) else "postgres"
    called = Place(kind, str(there.port) if kind == "valkey" else there.conninfo, there.name).ledger(floor=0)
    async with there.stores() as (ledger, _):
        assert await ledger.reserve(reservation(1, debit(amount=6)), NOW) is None
        assert called.reserve(reservation(2, debit(amount=6)), NOW) == debit(amount=6)
        assert called.settle(reservation(1).id, {"usd_cents": 2}, NOW) is True
        assert await ledger.settle(reservation(1).id, {}, NOW) is False and await ledger.spent(ROOT, "usd_cents") == 2


@awaited
async def test_it_is_a_store_by_its_face_and_says_that_it_is_awaited(there: There) -> None:
    """By its class; those that are called say nothing of the kind."""
    async with there.stores() as stores:
        ledger: AsyncLedger = stores[0]
        replays: AsyncReplayStore = stores[1]
        assert type(ledger).awaited is type(replays).awaited is True and repr(ledger).startswith("<Async")
    assert not hasattr(ValkeyLedger, "awaited") and not hasattr(PostgresLedger, "awaited")


# --- Valkey ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", VALKEY)
def test_what_is_no_client_of_asyncio_is_refused(store: Any, valkey_server: Valkey) -> None:
    """A blocking one; one of one connection, of which a cancelled task would give its turn to two; and what is none."""
    with closing(valkey_server.client()) as client, pytest.raises(TypeError, match="this client is blocking"):
        store(client)
    with pytest.raises(TypeError, match="one connection"):
        store(valkey.asyncio.Valkey(port=valkey_server.port, single_connection_client=True))
    with pytest.raises(TypeError, match="valkey-py or redis-py"):
        store(None)
    client = valkey.asyncio.Valkey(port=valkey_server.port)
    with pytest.raises(ValueError, match="prefix"):
        store(client, prefix="a b")
    for facts in ({"prefix": "a b"}, {"floor": -1}):
        with pytest.raises(ValueError, match=r"prefix|floor"):
            asyncio.run(store.create(client, **facts))


@pytest.mark.parametrize("store", VALKEY)
def test_a_server_that_forgets_is_refused_until_it_does_not(store: Any) -> None:
    """By `open`, and by each call while it has not gone well; and then it works."""
    server = Valkey()

    async def ask() -> None:
        async with valkey.asyncio.Valkey(port=server.port) as client:
            for setting, value, good in (("maxmemory-policy", "allkeys-lru", "noeviction"), ("save", "3600 1", "")):
                await client.config_set("appendonly", "no" if setting == "save" else "yes")
                await client.config_set(setting, good)
                await store.create(client, floor=0, prefix=setting)
                await client.config_set(setting, value)
                made = store(client, prefix=setting)
                call: Any = (lambda m=made: m.add(use(1), NOW)) if store is AsyncValkeyReplayStore else (lambda m=made: m.spent(ROOT, "usd_cents"))
                for refused in (made.open, call, call, lambda: store.create(client, prefix="other")):
                    with pytest.raises(StoreError, match=r"allkeys-lru|RDB"):
                        await refused()
                await client.config_set(setting, good)
                assert await made.open() is made and await call() == (store is AsyncValkeyReplayStore)

    asyncio.run(ask())
    server.stop()


@pytest.mark.parametrize("store", VALKEY)
def test_a_server_that_does_not_say_is_believed(store: Any) -> None:
    """Where neither CONFIG nor INFO may be asked, and somebody has said that it loses nothing. Where keys may not be touched, it fails."""
    server = Valkey()

    async def ask() -> None:
        with closing(server.client()) as admin:
            admin.config_set("maxmemory-policy", "allkeys-lru")
            admin.execute_command("acl", "setuser", "app", "on", ">secret", "~{captoken}*", "+@all", "-config", "-info")
            admin.execute_command("acl", "setuser", "nobody", "on", ">secret", "~other*", "+@all")
        async with valkey.asyncio.Valkey(port=server.port, username="app", password="secret") as client:
            await store.create(client, floor=0, lossless=True)
        for user, password, said in (("app", "wrong", "Authentication"), ("nobody", "secret", "NoPermission"), ("app", "secret", "which server")):
            async with valkey.asyncio.Valkey(port=server.port, username=user, password=password) as client:
                with pytest.raises(StoreError, match=said):
                    await store(client).open()

    asyncio.run(ask())
    server.stop()


def test_a_server_is_asked_for_its_settings_once(valkey_server: Valkey) -> None:
    """However many tasks come at once, and whatever they ask."""
    there, asked = There(valkey_server), []

    class Client(valkey.asyncio.Valkey):
        def info(self, *given: Any, **named: Any) -> Any:
            asked.append(given)
            return super().info(*given, **named)

    async def ask() -> None:
        async with valkey.asyncio.Valkey(port=there.port) as client:
            await AsyncValkeyLedger.create(client, prefix=there.name, floor=0)
        async with Client(port=there.port) as client:
            ledger = AsyncValkeyLedger(client, prefix=there.name)
            assert await asyncio.gather(*(ledger.reserve(reservation(number), NOW) for number in range(9)), ledger.open()) == [None] * 9 + [ledger]
            assert len(asked) == len(set(asked)) == 2

    asyncio.run(ask())


def test_an_awaited_client_of_a_cluster_will_do() -> None:
    """All keys lie in one slot, whose server is the one that is asked for its settings."""
    server = Valkey(**{"cluster-enabled": "yes", "cluster-announce-ip": "127.0.0.1"})

    async def ask() -> None:
        with closing(server.client()) as one:
            one.execute_command("cluster addslotsrange", 0, 16383)
            while one.execute_command("cluster info")["cluster_state"] != "ok":
                await asyncio.sleep(0.01)
        async with valkey.asyncio.ValkeyCluster(host="127.0.0.1", port=server.port) as client:
            ledger, replays = await AsyncValkeyLedger.create(client, floor=0), await AsyncValkeyReplayStore.create(client, floor=0)
            assert await replays.add(use(1), NOW) is True and await replays.add(use(1), NOW) is False
            assert await ledger.reserve(reservation(1, debit(amount=4), debit(CHILD, 4)), NOW) is None
            assert await ledger.settle(reservation(1).id, {"usd_cents": 1}, NOW) and await ledger.spent(CHILD, "usd_cents") == 1
            await client.config_set("maxmemory-policy", "allkeys-lru")
            with pytest.raises(StoreError, match="allkeys-lru"):
                await AsyncValkeyLedger(client).open()

    asyncio.run(ask())
    server.stop()


def test_what_tasks_ask_for_at_once_is_sent_together(valkey_server: Valkey) -> None:
    """On one connection, in two batches: the first, and all that came while it was under way. Each has its own answer."""
    there, sizes = There(valkey_server), []

    class Client(valkey.asyncio.Valkey):
        def pipeline(self, *given: Any, **named: Any) -> Any:
            made = super().pipeline(*given, **named)
            plain = made.execute

            async def execute(**facts: Any) -> Any:
                sizes.append(len(made))
                return await plain(**facts)

            made.execute = execute
            return made

    async def ask() -> None:
        async with Client(port=there.port) as client:
            ledger = await AsyncValkeyLedger.create(client, prefix=there.name, floor=0)
            sizes.clear()
            first = asyncio.create_task(ledger.reserve(reservation(0, debit(amount=5)), NOW))
            while not sizes:
                await asyncio.sleep(0)
            others = [ledger.reserve(reservation(1 + number, debit(bytes([number]) * 16, number, 9)), NOW) for number in range(20)]
            answers = await asyncio.gather(first, *others, ledger.settle(reservation(0).id, {}, NOW))
            assert answers == [None] * 11 + [debit(bytes([number]) * 16, number, 9) for number in range(10, 20)] + [True]
            assert sizes == [1, 21] and len(client.connection_pool._available_connections) == 1
            many = [ledger.reserve(reservation(100 + number, debit(CHILD, 1, 999)), NOW) for number in range(300)]
            assert await asyncio.gather(*many) == [None] * 300 and sizes[2:] == [128, 128, 44]

    asyncio.run(ask())


def test_a_call_that_was_cancelled_before_it_was_sent_is_never_sent(valkey_server: Valkey) -> None:
    """It waited for the batch before it. What was sent is done, whoever heard of it."""
    there = There(valkey_server)

    async def ask() -> None:
        async with there.stores() as (ledger, _):
            await ledger.open()
            async with there.held():
                sent = asyncio.create_task(ledger.reserve(reservation(1, debit(ROOT)), NOW))
                await asyncio.sleep(0.1)
                waiting = asyncio.create_task(ledger.reserve(reservation(2, debit(CHILD)), NOW))
                await asyncio.sleep(0.1)
                sent.cancel()
                waiting.cancel()
                await asyncio.gather(sent, waiting, return_exceptions=True)
            assert await ledger.reserve(reservation(3, debit(b"x" * 16)), NOW) is None
            assert [await ledger.spent(bucket, "usd_cents") for bucket in (ROOT, CHILD)] == [1, 0]

    asyncio.run(ask())


def test_scripts_that_were_forgotten_are_loaded_again(valkey_server: Valkey) -> None:
    """In the midst of a batch; each call is done once."""
    there = There(valkey_server)

    async def ask() -> None:
        async with there.stores() as (ledger, _), valkey.asyncio.Valkey(port=there.port) as client:
            for number in range(3):
                await client.script_flush()
                asked = [ledger.reserve(reservation(number * 100 + n, debit(ROOT, 1, 99)), NOW) for n in range(10)]
                assert await asyncio.gather(*asked, ledger.settle(reservation(999).id, {}, NOW)) == [None] * 10 + [False]
            assert await ledger.spent(ROOT, "usd_cents") == 30

    asyncio.run(ask())


def test_a_loop_that_ends_leaves_no_task_waiting_for_a_batch(valkey_server: Valkey) -> None:
    """What was under way is cancelled with it; whoever waited beside it hears of an error."""
    there, heard = There(valkey_server), []

    async def wait(ledger: Any) -> None:
        try:
            await asyncio.shield(asyncio.ensure_future(ledger.reserve(reservation(1), NOW)))
        except StoreError as error:
            heard.append(str(error))

    async def ask() -> None:
        async with there.stores() as (ledger, _):
            await ledger.open()
            async with there.held():
                task = asyncio.create_task(wait(ledger))
                await asyncio.sleep(0.1)
                ledger._batches._sending.cancel()
                await task

    asyncio.run(ask())
    assert heard == ["Valkey: ConnectionError: the server cannot be reached, or has hung up"]


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


@pytest.fixture
def tables(postgres_server: Postgres) -> There:
    return There(postgres_server)


@pytest.mark.parametrize("store", VALKEY)
def test_a_store_on_valkey_closes_what_serves_no_call_and_opens_again(store: Any, valkey_server: Valkey) -> None:
    name = f"a{os.urandom(8).hex()}"

    def many(admin: Any) -> int:
        return sum(client["name"] == name for client in admin.client_list())

    async def ask() -> None:
        async with valkey.asyncio.Valkey(port=valkey_server.port, client_name=name) as client:
            with closing(valkey_server.client()) as admin:
                made = await begun_awaited(store, client, prefix=name)
                assert many(admin) >= 1
                await made.aclose()
                while many(admin):
                    await asyncio.sleep(0.01)
                if store is AsyncValkeyReplayStore:
                    assert await made.add(use(1), NOW) and not await made.add(use(1), NOW)
                else:
                    assert await made.spent(ROOT, "usd_cents") == 0
                assert many(admin) == 1
                await made.aclose()

    asyncio.run(ask())


@pytest.mark.parametrize("connections", [1, 3])
def test_a_store_has_so_many_connections_at_most(connections: int, tables: There) -> None:
    """However many tasks ask; and none is left when it was closed."""
    many = f"select count(*) from pg_stat_activity where application_name = '{tables.name}'".encode()

    async def ask() -> None:
        where = f"{tables.conninfo} application_name={tables.name}"
        ledger = await AsyncPostgresLedger.create(where, schema=tables.name, floor=0, connections=connections)
        with psycopg.connect(tables.conninfo, autocommit=True) as admin:
            asked = [ledger.reserve(reservation(number, debit(ROOT, 1, 99)), NOW) for number in range(60)]
            assert await asyncio.gather(*asked) == [None] * 60
            assert admin.execute(many).fetchone() == (connections,)
            await ledger.aclose()
            while admin.execute(many).fetchone() != (0,):
                await asyncio.sleep(0.01)
            assert await ledger.spent(ROOT, "usd_cents") == 60, "a store that was closed opens again"
            await ledger.aclose()

    asyncio.run(ask())


class Pool:
    """A pool with the two methods that count, of as many connections as are asked for."""

    def __init__(self, conninfo: str, **facts: Any) -> None:
        self.conninfo, self.facts, self.idle, self.lent, self.dropped = conninfo, facts, [], 0, 0

    async def getconn(self) -> Any:
        self.lent += 1
        return self.idle.pop() if self.idle else await psycopg.AsyncConnection.connect(self.conninfo, **self.facts)

    async def putconn(self, conn: Any) -> None:
        self.lent -= 1
        if conn.closed:
            self.dropped += 1
        else:
            self.idle.append(conn)

    async def close(self) -> None:
        for connection in self.idle:
            await connection.close()


def test_a_pool_lends_connections_and_gets_them_back(tables: There) -> None:
    """Each of them, also after an error, a cancellation and a connection that broke, which it gets back closed."""

    async def ask() -> None:
        pool = Pool(tables.conninfo, autocommit=True)
        ledger = await AsyncPostgresLedger.create(pool, schema=tables.name, floor=0)
        assert await asyncio.gather(*(ledger.reserve(reservation(n, debit(ROOT, 1, 99)), NOW) for n in range(20))) == [None] * 20
        assert pool.lent == 0 == pool.dropped
        with pytest.raises(StoreError, match=r"22003|DataError|NumericValue"):
            await ledger.reserve(reservation(30, debit(ROOT, 2**70, 2**71)), NOW)
        assert pool.lent == 0 == pool.dropped, "an error of the server is an answer"
        async with tables.held():
            task = asyncio.create_task(ledger.reserve(reservation(50), NOW))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert pool.lent == 0 and pool.dropped == 1
        for connection in pool.idle:
            connection.pgconn.finish()
        assert await ledger.spent(ROOT, "usd_cents") == 20 and pool.lent == 0, "those that broke meanwhile are given back"
        await ledger.aclose()
        assert await ledger.spent(ROOT, "usd_cents") == 20, "the pool is somebody else's"
        await pool.close()

    asyncio.run(ask())


def test_a_pool_whose_connections_do_not_commit_is_refused(tables: There) -> None:
    """What was answered could be rolled back. It has its connection again."""

    async def ask() -> None:
        pool = Pool(tables.conninfo)
        with pytest.raises(StoreError, match="commit by themselves"):
            await AsyncPostgresLedger(pool, schema=tables.name).open()
        assert pool.lent == 0
        await pool.close()

    asyncio.run(ask())


@pytest.mark.parametrize("store", POSTGRES)
def test_what_is_no_source_of_awaited_connections_is_refused(store: Any, tables: There) -> None:
    """When it is made, or, for what a callable gives, when it is asked; without a word of where the database is."""
    for wrong, said in ((5, "async callable or a pool"), (None, "async callable or a pool")):
        with pytest.raises(TypeError, match=said):
            store(wrong)
    for facts in ({"connections": 0}, {"connections": True}, {"schema": "A"}):
        with pytest.raises(ValueError, match=r"connections|schema"):
            store(tables.conninfo, **facts)
    for facts in ({"connections": 0}, {"floor": -1}, {"schema": "A"}):
        with pytest.raises(ValueError, match=r"connections|floor|schema"):
            asyncio.run(store.create(tables.conninfo, **facts))

    async def given(answer: Any) -> Any:
        return answer

    async def ask() -> None:
        with psycopg.connect(tables.conninfo) as called, pytest.raises(StoreError, match="expected an AsyncConnection"):
            await store(lambda: given(called), schema=tables.name).open()
        for source in (lambda: None, lambda: given(None), "host=127.0.0.1 port=1 user=jane password=secret", "jane secret"):
            with pytest.raises(StoreError, match=r"^PostgreSQL: ") as caught:
                await store(source, schema=tables.name).open()
            assert "secret" not in str(caught.value) and caught.value.__cause__ is None is caught.value.__context__
        await (await store.create(tables.conninfo, schema=tables.name, floor=0)).aclose()
        own = store(lambda: psycopg.AsyncConnection.connect(tables.conninfo), schema=tables.name)
        assert await own.open() is own
        await own.aclose()

    asyncio.run(ask())


@pytest.mark.parametrize("port", [1])
def test_a_valkey_that_is_not_there_is_a_store_error_without_its_address(port: int) -> None:
    """Nor does the error that was caught hang on it."""

    async def ask() -> None:
        async with valkey.asyncio.Valkey.from_url(f"valkey://user:password@127.0.0.1:{port}/0") as client:
            for call in (AsyncValkeyLedger(client).open(), AsyncValkeyReplayStore(client).add(Use(bytes(16), NOW), NOW)):
                with pytest.raises(StoreError, match=r"^Valkey: ConnectionError: the server cannot be reached, or has hung up$") as caught:
                    await call
                assert caught.value.__cause__ is None is caught.value.__context__

    asyncio.run(ask())
