"""The stores on Valkey: which servers they refuse, when the floor rises, what a cluster and other clients change. What they
share with the other stores is in the suite."""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import valkey
import valkey.asyncio
from valkey.asyncio.cluster import ValkeyCluster as AwaitedCluster
from valkey.backoff import NoBackoff
from valkey.cluster import ValkeyCluster
from valkey.retry import Retry

from captoken.control import Feed, Operator
from captoken.errors import OverlayError, StoreError
from captoken.keys import OperatorKey
from captoken.stores import valkey as valkey_store
from captoken.stores._rules import mark
from captoken.stores.ports import Use
from captoken.stores.valkey import AsyncValkeyLedger, ValkeyLedger, ValkeyReplayStore, ValkeySnapshots, ValkeyStore
from tests.fixtures import NOW
from tests.stores.begun import begun
from tests.stores.servers import Valkey, Wire
from tests.stores.test_ledger import CHILD, ROOT, debit, reservation, spent

EVERY: list[Any] = [ValkeyReplayStore, ValkeyLedger, ValkeySnapshots]
COUNTING: list[Any] = [ValkeyReplayStore, ValkeyLedger]
KEY = OperatorKey.from_bytes(bytes(range(3, 35)))


# --- servers that are refused ----------------------------------------------------------------------------------------


POLICIES = ["volatile-lru", "allkeys-lru", "volatile-lfu", "allkeys-lfu", "volatile-random", "allkeys-random", "volatile-ttl"]


def made(store: Any, client: valkey.Valkey) -> Any:
    """Made, where opening does not make it."""
    return getattr(store, "create", store)(client)


@pytest.mark.parametrize("store", EVERY)
def test_a_server_that_evicts_is_refused(store: Any, own: Valkey) -> None:
    """Whatever it evicts first: what is forgotten can be used again."""
    with closing(own.client()) as client:
        for policy in POLICIES:
            client.config_set("maxmemory-policy", policy)
            with pytest.raises(StoreError, match=policy):
                store(client)
        client.config_set("maxmemory-policy", "noeviction")
        assert repr(made(store, client)) == f"<{store.__name__} {{captoken}}:>"


@pytest.mark.parametrize("store", EVERY)
def test_a_server_that_has_rdb_snapshots_alone_is_refused(store: Any, own: Valkey) -> None:
    """A crash would take it back to the last one. With an append-only file beside them they do no harm."""
    with closing(own.client()) as client:
        client.config_set("save", "3600 1")
        made(store, client)
        client.config_set("appendonly", "no")
        with pytest.raises(StoreError, match="RDB"):
            store(client)


def test_a_server_that_keeps_nothing_counts_and_publishes_nothing(own: Valkey) -> None:
    """What is lost at a crash is covered by the floor; a revocation is not, unless that is said aloud."""
    with closing(own.client()) as client:
        client.config_set("appendonly", "no")
        for store in COUNTING:
            made(store, client)
        with pytest.raises(StoreError, match="durable=False"):
            begun(ValkeySnapshots, client)
        loose = begun(ValkeySnapshots, client, durable=False)
        assert loose.publish(b"one", None) is True and loose.load() == b"one" and loose.publish(b"two", None) is False


def test_a_file_that_is_switched_off_later_is_noticed_when_something_is_published(own: Valkey) -> None:
    """It lies there then, but nobody is told that it is safe."""
    with closing(own.client()) as client:
        store = begun(ValkeySnapshots, client)
        client.config_set("appendonly", "no")
        with pytest.raises(StoreError, match="perhaps not saved to disk"):
            store.publish(b"one", None)
        assert store.load() == b"one" and store.publish(b"two", None) is False, "what was not published needs no disk"


def test_a_disk_that_is_too_slow_is_not_waited_for(own: Valkey) -> None:
    """With `everysec` the second is not over after a tenth of it."""
    with closing(own.client()) as client:
        client.config_set("appendfsync", "everysec")
        with pytest.raises(StoreError, match=r"perhaps not saved to disk|no answer within"):
            for number in range(20):
                begun(ValkeySnapshots, client, timeout=0.1, prefix=str(number)).publish(b"one", None)


@pytest.mark.parametrize("store", EVERY)
def test_a_server_that_does_not_say_is_believed(store: Any, own: Valkey) -> None:
    """Where neither CONFIG nor INFO may be asked, as with some that are hosted: then somebody has said that it loses nothing, where
    it counts. Where keys may not be touched, it fails."""
    facts = {} if store is ValkeySnapshots else {"lossless": True}
    with closing(own.client()) as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
        admin.execute_command("acl", "setuser", "app", "on", ">secret", "~{captoken}*", "+@all", "-config", "-info")
        admin.execute_command("acl", "setuser", "nobody", "on", ">secret", "~other*", "+@all")
        with closing(own.client(username="app", password="secret")) as client:
            getattr(store, "create", store)(client, **facts)
        with closing(own.client(username="app", password="wrong")) as client, pytest.raises(StoreError) as caught:
            store(client)
        assert "secret" not in str(caught.value) and "wrong" not in str(caught.value)
        with closing(own.client(username="nobody", password="secret")) as client, pytest.raises(StoreError, match="NoPermission"):
            store(client)


@pytest.mark.parametrize("store", EVERY)
def test_a_server_that_is_not_there_is_a_store_error_without_its_address(store: Any) -> None:
    """Nor does the error that was caught hang on it."""
    client = valkey.Valkey.from_url("valkey://user:password@127.0.0.1:1/0")
    with pytest.raises(StoreError, match=r"^Valkey: ConnectionError: the server cannot be reached, or has hung up$") as caught:
        store(client)
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert "127.0.0.1" not in "".join(traceback.format_exception_only(caught.value))
    client.close()


@pytest.mark.parametrize("store", EVERY)
def test_what_is_no_blocking_client_is_refused(store: Any, valkey_server: Valkey) -> None:
    """One of asyncio would hand out promises, and a promise is true."""
    client = valkey.asyncio.Valkey(port=valkey_server.port)
    with pytest.raises(TypeError, match=r"asyncio\.to_thread"):
        store(client)
    asyncio.run(client.aclose())
    for nothing in (None, object(), "valkey://127.0.0.1"):
        with pytest.raises(TypeError, match="valkey-py or redis-py"):
            store(nothing)


@pytest.mark.parametrize("prefix", ["", "a b", "{a}", "a}", "é", "a\n", 5, None])
def test_a_prefix_is_visible_ascii_without_braces(prefix: Any, client: valkey.Valkey) -> None:
    with pytest.raises(ValueError, match="prefix"):
        ValkeyStore(client, prefix)


@pytest.mark.parametrize("floor", [-1, 1.5, "0", 2**53, True])
@pytest.mark.parametrize("store", COUNTING)
def test_a_floor_is_an_int(store: Any, floor: Any, client: valkey.Valkey) -> None:
    with pytest.raises(ValueError, match="floor"):
        store.create(client, floor=floor)


# --- the floor -------------------------------------------------------------------------------------------------------


def counts(ledger: ValkeyLedger, number: int, at: int) -> bool:
    """Does it count a token that was issued then?"""
    try:
        return ledger.reserve(reservation(number, at=at, keep=at + 600), at) is None
    except StoreError as error:
        assert "before this ledger began" in str(error)
        return False


def seconds(client: valkey.Valkey) -> int:
    return int(client.time()[0])


def test_the_floor_is_the_servers_time_and_a_minute(client: valkey.Valkey, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five seconds for proofs; by the server's clock, or by the caller's where that one is ahead."""
    replays, ledger = ValkeyReplayStore.create(client, prefix=prefix), ValkeyLedger.create(client, prefix=prefix)
    began = seconds(client)
    assert int(client.hget(f"{{{prefix}}}:ledger", "floor") or 0) - began in (58, 59, 60)
    assert int(client.hget(f"{{{prefix}}}:replay", "floor") or 0) - began in (3, 4, 5)
    client.delete(f"{{{prefix}}}:ledger", f"{{{prefix}}}:replay")
    monkeypatch.setattr(valkey_store, "time", lambda: began + 2000.5)
    ValkeyLedger.create(client, prefix=prefix), ValkeyReplayStore.create(client, prefix=prefix)
    assert client.hget(f"{{{prefix}}}:ledger", "floor") == str(began + 2060).encode()
    assert client.hget(f"{{{prefix}}}:replay", "floor") == str(began + 2005).encode()
    assert not counts(ledger, 1, began + 1000) and not replays.add(Use(bytes(16), began + 1005), began + 1000)


@pytest.mark.parametrize("command", ["flushall", "flushdb"])
def test_a_store_that_lost_its_data_takes_nothing_from_before(command: str, own: Valkey) -> None:
    """It is not there any more, and nothing makes it in passing. Made again, it takes what is issued from then on."""
    with closing(own.client()) as client:
        now = seconds(client)
        replays, ledger = begun(ValkeyReplayStore, client), begun(ValkeyLedger, client)
        assert replays.add(Use(b"u" * 16, now), now) and counts(ledger, 1, now)
        client.execute_command(command)
        asks: tuple[Callable[[], Any], ...] = (
            lambda: replays.add(Use(b"u" * 16, now), now),
            lambda: replays.peek(Use(b"u" * 16, now), now),
            lambda: ledger.reserve(reservation(2, at=now + 10**6), now),
            lambda: ledger.peek(reservation(2, at=now + 10**6), now),
            lambda: ValkeyLedger(client),
            lambda: ValkeyReplayStore(client),
        )
        for ask in asks:
            with pytest.raises(StoreError, match="there is no store here: create makes one"):
                ask()
        assert not client.keys("*")
        ValkeyReplayStore.create(client), ValkeyLedger.create(client)
        assert not replays.add(Use(b"u" * 16, now), now) and not replays.add(Use(b"v" * 16, now + 5), now)
        assert not counts(ledger, 2, now) and not counts(ledger, 3, now + 59) and counts(ledger, 4, now + 200)
        assert replays.add(Use(b"w" * 16, now + 20), now + 15)


def restart(server: Valkey) -> None:
    server.kill()
    server.start()


@pytest.mark.parametrize(
    ("settings", "facts", "goes_on"),
    [
        ({"appendfsync": "always"}, {}, False),
        ({"appendfsync": "always"}, {"lossless": True}, True),
        ({"appendfsync": "everysec"}, {}, False),
        ({"appendfsync": "no"}, {}, False),
        ({"appendonly": "no"}, {}, False),
        ({"appendfsync": "everysec"}, {"lossless": True}, True),
    ],
    ids=str,
)
def test_a_restart_that_may_have_lost_a_second_raises_the_floor(
    settings: dict[str, str], facts: dict[str, Any], goes_on: bool, serve: Callable[..., Valkey]
) -> None:
    """Unless it is said aloud that none is ever lost: whatever the settings are. And new tokens count."""
    server = serve(**settings)
    with closing(server.client()) as client:
        now = seconds(client)
        replays, ledger = begun(ValkeyReplayStore, client, **facts), begun(ValkeyLedger, client, **facts)
        assert counts(ledger, 1, now) and replays.add(Use(b"u" * 16, now), now)
        if settings.get("appendfsync") == "everysec" and goes_on:
            client.waitaof(1, 0, 5000)
        restart(server)
        if settings.get("appendonly") == "no":  # all of it is gone
            with pytest.raises(StoreError, match="no store here"):
                replays.add(Use(b"u" * 16, now), now)
            ValkeyReplayStore.create(client, **facts), ValkeyLedger.create(client, **facts)
        assert not replays.add(Use(b"u" * 16, now), now)
        assert counts(ledger, 2, now) is goes_on and replays.add(Use(b"v" * 16, now), now) is goes_on
        assert spent(ledger, ROOT) == [{True: 2, False: 0 if "appendonly" in settings else 1}[goes_on]]
        assert counts(ledger, 3, now + 200) and counts(begun(ValkeyLedger, client, **facts), 4, now + 200)


def test_a_setting_raises_nothing_and_another_server_does(own: Valkey) -> None:
    """Changed while it runs, the server is the one that it was. After a restart it is another one, each time."""
    with closing(own.client()) as client:
        now = seconds(client)
        client.config_set("appendfsync", "everysec")
        assert counts(begun(ValkeyLedger, client), 1, now) and counts(ValkeyLedger(client), 2, now)
        client.config_set("appendfsync", "always")
        assert counts(ValkeyLedger(client), 3, now) and counts(ValkeyLedger(client), 4, now)
        restart(own)
        assert not counts(ValkeyLedger(client), 5, now) and counts(ValkeyLedger(client), 6, now + 200)
        restart(own)
        assert not counts(ValkeyLedger(client), 7, now) and counts(ValkeyLedger(client), 8, now + 200)


def test_a_replica_that_takes_over_raises_the_floor(own: Valkey, serve: Callable[..., Valkey]) -> None:
    """It may lack the last reservations. `lossless` is not assumed of a server that has replicas."""
    second = serve()
    with closing(own.client()) as client, closing(second.client()) as other:
        now = seconds(client)
        client.config_set("repl-diskless-sync-delay", 0)
        other.execute_command("replicaof", "127.0.0.1", own.port)
        while client.info("replication")["connected_slaves"] == 0:
            Event().wait(0.01)
        ledger, sure = begun(ValkeyLedger, client), begun(ValkeyLedger, client, prefix="sure", lossless=True)
        assert counts(ledger, 1, now) and counts(sure, 1, now)
        client.set("last", 1)
        assert client.wait(1, 5000) == 1
        with pytest.raises(StoreError, match="ReadOnly"):
            ValkeyLedger(other)
        own.kill()
        other.execute_command("replicaof", "no", "one")
        assert not counts(ValkeyLedger(other), 3, now), "though it has no replica itself, and loses nothing from now on"
        assert counts(ValkeyLedger(other, prefix="sure", lossless=True), 3, now)
        own.start()


# --- failover: each store against what may lose the last second ------------------------------------------------------


@pytest.mark.parametrize("store", EVERY)
def test_who_may_not_ask_which_server_it_is_says_that_nothing_is_lost(store: Any, own: Valkey) -> None:
    """A login as hosted servers give it: a store that counts cannot see a failover, so it neither opens nor is made, and one that is
    open denies from then on. Snapshots are signed, and verifiers see by their numbers."""
    with closing(own.client()) as admin:
        admin.execute_command("acl", "setuser", "app", "on", ">secret", "~{captoken}*", "~{new}*", "+@all", "-@dangerous")
        with closing(own.client(username="app", password="secret")) as client:
            if store is ValkeySnapshots:
                assert made(store, client).publish(b"one", None) is True
                return
            store.create(client, lossless=True), store(client, lossless=True)
            for begin in (lambda: store(client), lambda: store.create(client, prefix="new")):
                with pytest.raises(StoreError, match=r"which server it is.*\+info.*lossless=True"):
                    begin()

            admin.execute_command("acl", "setuser", "app", "+info")
            now, at = seconds(client), seconds(client) + 200
            watching = store(client)
            admin.execute_command("acl", "setuser", "app", "-info")
            asks: tuple[Callable[[], Any], ...] = (
                lambda: watching.add(Use(b"u" * 16, at), now), lambda: watching.peek(Use(b"u" * 16, at), now)
            ) if store is ValkeyReplayStore else (
                lambda: watching.reserve(reservation(1, at=at), now), lambda: watching.peek(reservation(1, at=at), now)
            )  # fmt: skip
            for ask in asks:
                with pytest.raises(StoreError, match="which server it is"):
                    ask()


def promoted(own: Valkey, second: Valkey, client: valkey.Valkey, wire: Wire) -> Callable[[], None]:
    """A replica that is attached after the stores were opened, and whose link is cut. Gives what makes it the primary."""
    client.config_set("repl-diskless-sync-delay", 0)
    other = second.client()
    other.execute_command("replicaof", "127.0.0.1", own.port)
    while other.info("replication")["master_link_status"] != "up":
        Event().wait(0.01)
    other.execute_command("replicaof", "127.0.0.1", 1)  # where nobody answers

    def take_over() -> None:
        own.kill()
        other.execute_command("replicaof", "no", "one")
        other.close()
        wire.move(second.port)

    return take_over


def cut(own: Valkey, second: Valkey, client: valkey.Valkey, wire: Wire) -> Callable[[], None]:
    """What is written from now on is lost from the end of the append-only file, as at a crash of the machine."""
    folder = Path(client.config_get("dir")["dir"]) / client.config_get("appenddirname")["appenddirname"]
    (log,) = folder.glob("*.incr.aof")
    length = log.stat().st_size

    def take_over() -> None:
        own.kill()
        os.truncate(log, length)
        own.start()

    return take_over


EVENTS = [promoted, cut]


@pytest.mark.parametrize("fails", EVENTS)
@pytest.mark.parametrize("anew", [False, True], ids=["goes on", "opened anew"])
def test_a_proof_and_a_budget_are_not_taken_twice_over_a_failover(fails: Any, anew: bool, serve: Callable[..., Valkey]) -> None:
    """Though each write was synchronized, and no replica was there when the stores were opened: 38.9, 31.3."""
    own, second = serve(appendfsync="always"), serve(appendfsync="always")
    with closing(Wire(own.port)) as wire, closing(valkey.Valkey(port=wire.port)) as client:
        now = seconds(client)
        replays, ledger = begun(ValkeyReplayStore, client), begun(ValkeyLedger, client)
        assert counts(ledger, 1, now) and replays.add(Use(b"t" * 16, now), now)
        take_over = fails(own, second, client, wire)
        spends = [counts(ledger, number, now) for number in range(2, 20)]
        assert True in spends and replays.add(Use(b"u" * 16, now), now)
        take_over()
        if anew:
            replays, ledger = ValkeyReplayStore(client), ValkeyLedger(client)
        assert replays.peek(Use(b"u" * 16, now), now) is False
        assert replays.add(Use(b"u" * 16, now), now) is False
        assert not counts(ledger, 30, now)
        assert counts(ledger, 31, now + 200) and replays.add(Use(b"v" * 16, now + 20), now + 15)


@pytest.mark.parametrize("fails", EVENTS)
def test_a_revocation_that_a_failover_lost_is_missed_by_all_that_saw_it(fails: Any, serve: Callable[..., Valkey]) -> None:
    """The store is at the snapshot before. Verifiers keep to what they know, whoever signs on; the operator refuses to go on. Who
    begins then knows nothing of it: docs/stores.md says so."""
    own, second = serve(appendfsync="always"), serve(appendfsync="always")
    with closing(Wire(own.port)) as wire, closing(valkey.Valkey(port=wire.port)) as client:
        store = ValkeySnapshots.create(client)
        operator = Operator(KEY, store, by="ops")
        operator.renew()
        feed = Feed(store, [KEY.public], every=0)
        take_over = fails(own, second, client, wire)
        operator.revoke(agent="a", why="lost laptop")
        assert len(feed.refresh().entries) == 1
        take_over()
        with pytest.raises(OverlayError, match="the store has lost snapshots"):
            operator.renew()
        unaware = Operator(KEY, store, by="another")
        for _ in range(3):
            unaware.renew()
            overlay = feed()
            assert overlay is not None and len(overlay.entries) == 1
        with pytest.raises(OverlayError, match="does not continue"):
            operator.renew()
        assert Feed(store, [KEY.public]).refresh().entries == ()


# --- clients ---------------------------------------------------------------------------------------------------------


def test_a_client_that_decodes_will_do(valkey_server: Valkey, prefix: str) -> None:
    """Text comes back as bytes; what is no text is an error, not something else."""
    with closing(valkey_server.client(decode_responses=True)) as client:
        replays, ledger = begun(ValkeyReplayStore, client, prefix=prefix), begun(ValkeyLedger, client, prefix=prefix)
        assert replays.add(Use(b"\xff" * 16, NOW), NOW) and not replays.add(Use(b"\xff" * 16, NOW), NOW)
        assert ledger.reserve(reservation(1, debit(b"\xff" * 16)), NOW) is None and spent(ledger, b"\xff" * 16) == [1]
        snapshots = begun(ValkeySnapshots, client, prefix=prefix)
        assert snapshots.publish("é".encode(), None) and snapshots.load() == "é".encode()
        assert snapshots.append("à".encode(), mark(b"x"), b"\xff" * 32) and snapshots.since(mark(b"x")) == ["à".encode()]
        assert snapshots.load() == "é\nà".encode() and snapshots.publish(b"\xff", "é\nà".encode())
        with pytest.raises(StoreError, match="UnicodeDecodeError"):
            snapshots.load()


def test_the_newer_protocol_will_do(valkey_server: Valkey, prefix: str) -> None:
    with closing(valkey_server.client(protocol=3)) as client:
        ledger, snapshots = begun(ValkeyLedger, client, prefix=prefix), begun(ValkeySnapshots, client, prefix=prefix)
        assert ledger.reserve(reservation(1), NOW) is None and ledger.settle(reservation(1).id, {}, NOW) is True
        assert snapshots.publish(b"one", None) and snapshots.load() == b"one"


def test_a_client_that_sends_again_after_a_lost_answer_does_no_harm(valkey_server: Valkey, prefix: str) -> None:
    """A reservation is debited once, a snapshot is published; a proof and a settlement are found done: a denial."""
    valkey_server.know_scripts()
    wire = Wire(valkey_server.port)
    again = {"retry": Retry(NoBackoff(), 2), "retry_on_error": [valkey.ConnectionError]}
    with closing(valkey.Valkey(port=wire.port, **again)) as client:
        replays, ledger = begun(ValkeyReplayStore, client, prefix=prefix), begun(ValkeyLedger, client, prefix=prefix)
        snapshots = begun(ValkeySnapshots, client, prefix=prefix)
        assert ledger.reserve(reservation(1), NOW) is None and replays.add(Use(b"t" * 16, NOW), NOW)
        wire.lose_answer()
        assert ledger.reserve(reservation(2, debit(amount=5)), NOW) is None and spent(ledger, ROOT) == [6]
        wire.lose_answer()
        assert replays.add(Use(b"u" * 16, NOW), NOW) is False
        wire.lose_answer()
        assert ledger.settle(reservation(2).id, {}, NOW) is False and spent(ledger, ROOT) == [1]
        wire.lose_answer()
        assert snapshots.publish(b"one", None) is True and snapshots.load() == b"one"
    wire.close()


def test_in_a_cluster_all_keys_lie_in_one_slot(serve: Callable[..., Valkey]) -> None:
    """A cluster of one server, whose client would refuse a script over several slots; and each store works."""
    server = serve(**{"cluster-enabled": "yes", "cluster-announce-ip": "127.0.0.1"})
    with closing(server.client()) as one:
        one.execute_command("cluster addslotsrange", 0, 16383)
        while one.execute_command("cluster info")["cluster_state"] != "ok":
            Event().wait(0.01)
    with closing(ValkeyCluster(host="127.0.0.1", port=server.port)) as client:
        for prefix in ("captoken", "other"):
            replays, ledger = begun(ValkeyReplayStore, client, prefix=prefix), begun(ValkeyLedger, client, prefix=prefix)
            snapshots = begun(ValkeySnapshots, client, prefix=prefix)
            assert replays.add(Use(bytes(16), NOW), NOW) and not replays.add(Use(bytes(16), NOW), NOW)
            asked = debit(amount=4), debit(CHILD, 4)
            assert ledger.reserve(reservation(1, *asked), NOW) is None and ledger.settle(reservation(1).id, {"usd_cents": 1}, NOW)
            assert spent(ledger, ROOT, CHILD) == [1, 1]
            assert snapshots.publish(b"one", None) and snapshots.publish(b"two", b"one") and snapshots.load() == b"two"
            assert len({client.keyslot(name) for name in client.keys(f"{{{prefix}}}*")}) == 1
        client.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(StoreError, match="allkeys-lru"):
            ValkeyLedger(client)
        client.config_set("maxmemory-policy", "noeviction")

    async def closed() -> None:
        async with AwaitedCluster(host="127.0.0.1", port=server.port, client_name="awaited") as many:
            awaited = await AsyncValkeyLedger(many, prefix="captoken").open()
            assert await awaited.spent(ROOT, "usd_cents") == 1
            await awaited.aclose()
            with closing(server.client()) as one:
                while any(each["name"] == "awaited" for each in one.client_list()):
                    await asyncio.sleep(0.01)
            assert await awaited.spent(ROOT, "usd_cents") == 1

    asyncio.run(closed())
