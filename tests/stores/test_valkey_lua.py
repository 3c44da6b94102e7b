"""The scripts of the stores on Valkey: how long what they keep lives, and what a full server changes."""

from __future__ import annotations

from contextlib import closing
from math import inf

import pytest
import valkey
import valkey.asyncio

from captoken.errors import StoreError
from captoken.stores._rules import mark
from captoken.stores.ports import KEPT, Use
from captoken.stores.valkey import ValkeyLedger, ValkeyReplayStore, ValkeySnapshots
from tests.fixtures import NOW
from tests.stores.begun import begun
from tests.stores.servers import Valkey
from tests.stores.test_ledger import CHILD, ROOT, debit, reservation, spent


def test_a_bucket_lives_an_hour_longer_than_its_token(client: valkey.Valkey, prefix: str) -> None:
    """Never shorter than it was; for good where the token does not expire. It has no time to live of the server's own."""
    ledger = begun(ValkeyLedger, client, prefix=prefix)

    def until(bucket: bytes) -> float | None:
        assert client.ttl(f"{{{prefix}}}:spent:{bucket.hex()}:usd_cents") == -1
        return client.zscore(f"{{{prefix}}}:kept", f"{bucket.hex()}:usd_cents")

    for number, (keep, lives) in enumerate([(600, 600), (60, 600), (900, 900), (None, None), (60, None)]):
        asked = reservation(number, debit(), keep=None if keep is None else NOW + keep)
        assert ledger.reserve(asked, NOW) is None
        assert until(ROOT) == (inf if lives is None else NOW + lives + KEPT)
    assert 0 <= 120 - client.ttl(f"{{{prefix}}}:reserved:{reservation(0).id.hex()}") <= 1
    far = reservation(10, debit(bytes(16)), keep=2**53)
    assert ledger.reserve(far, NOW) is None and until(bytes(16)) == 2**53 + KEPT


def test_a_bucket_is_forgotten_when_both_clocks_say_so(client: valkey.Valkey, prefix: str) -> None:
    """The caller's and the server's; a hundred in one step, and nothing of them is left."""
    ledger = begun(ValkeyLedger, client, prefix=prefix, clock=lambda: NOW + KEPT)
    for number in range(150):
        assert ledger.reserve(reservation(number, debit(number.to_bytes(16, "big")), keep=NOW), NOW) is None
    assert ledger.reserve(reservation(200, debit(b"x" * 16)), NOW + KEPT - 1) is None
    held = lambda: (len(client.keys(f"{{{prefix}}}:spent:*")), client.zcard(f"{{{prefix}}}:kept"))  # noqa: E731
    assert held() == (151, 151)
    slow = ValkeyLedger(client, prefix=prefix, clock=lambda: NOW + KEPT - 1)
    assert slow.reserve(reservation(201, debit(b"x" * 16)), NOW + KEPT) is None and held() == (151, 151)
    assert ledger.reserve(reservation(202, debit(b"x" * 16)), NOW + KEPT) is None and held() == (51, 51)
    assert ledger.reserve(reservation(203, debit(b"x" * 16)), NOW + KEPT) is None and held() == (1, 1)


def test_a_use_is_kept_for_36_seconds_of_uses(client: valkey.Valkey, prefix: str) -> None:
    """One key has those that can be fresh; nothing has a time to live that could run out before the floor is above it."""
    store = begun(ValkeyReplayStore, client, prefix=prefix)
    for second in range(200):
        assert store.add(Use(second.to_bytes(16, "big"), NOW + second), NOW + second)
    assert client.zcard(f"{{{prefix}}}:proofs") == 31
    assert {name: client.ttl(name) for name in client.keys(f"{{{prefix}}}*")} == {
        f"{{{prefix}}}:proofs".encode(): -1,
        f"{{{prefix}}}:replay".encode(): -1,
        f"{{{prefix}}}:schema".encode(): -1,
    }


def test_stores_of_other_prefixes_know_nothing_of_each_other(client: valkey.Valkey, prefix: str) -> None:
    for name in (prefix, f"{prefix}:spent", f"{prefix}x"):
        replays, ledger = begun(ValkeyReplayStore, client, prefix=name), begun(ValkeyLedger, client, prefix=name)
        assert replays.add(Use(bytes(16), NOW), NOW) and ledger.reserve(reservation(1, debit(amount=10)), NOW) is None


def test_scripts_that_were_forgotten_are_loaded_again(own: Valkey) -> None:
    """In the midst of it, for each call."""
    with closing(own.client()) as client:
        replays, ledger, snapshots = begun(ValkeyReplayStore, client), begun(ValkeyLedger, client), begun(ValkeySnapshots, client)
        for number in range(3):
            client.script_flush()
            assert replays.add(Use(bytes([number]) * 16, NOW), NOW)
            assert ledger.reserve(reservation(number), NOW) is None
            client.script_flush()
            assert ledger.settle(reservation(number).id, {}, NOW) is True
            assert snapshots.publish(b"%d" % number, snapshots.load())


def test_a_full_server_takes_nothing_and_changes_nothing(own: Valkey) -> None:
    """An error for each, no half of a reservation; and it goes on when there is room again."""
    with closing(own.client()) as client:
        replays, ledger, snapshots = begun(ValkeyReplayStore, client), begun(ValkeyLedger, client), begun(ValkeySnapshots, client)
        assert ledger.reserve(reservation(1, debit(amount=4), debit(CHILD, 4)), NOW) is None and snapshots.publish(b"one", None)
        assert replays.add(Use(b"u" * 16, NOW), NOW) and snapshots.append(b"1", mark(b"one"), mark(b"whole"))
        before = {name: client.dump(name) for name in client.keys("*")}
        client.config_set("maxmemory", 1)
        for call in (
            lambda: replays.add(Use(b"v" * 16, NOW), NOW),
            lambda: ledger.reserve(reservation(2, debit(amount=1), debit(CHILD, 1)), NOW),
            lambda: ledger.settle(reservation(1).id, {}, NOW),
            lambda: snapshots.publish(b"two", b"one\n1"),
            lambda: snapshots.publish(b"whole", b"one\n1"),  # whose mark is the newest
            lambda: snapshots.append(b"2", mark(b"whole"), bytes(32)),
        ):
            with pytest.raises(StoreError, match=r"OutOfMemory|OOM"):
                call()
        assert replays.add(Use(b"u" * 16, NOW), NOW) is False and spent(ledger, ROOT) == [4] and snapshots.load() == b"one\n1"
        assert {name: client.dump(name) for name in client.keys("*")} == before
        client.config_set("maxmemory", 0)
        assert replays.add(Use(b"v" * 16, NOW), NOW) and ledger.settle(reservation(1).id, {}, NOW) and snapshots.publish(b"two", b"one\n1")
        assert spent(ledger, ROOT, CHILD) == [0, 0]


def test_a_full_server_that_can_forget_makes_room(own: Valkey) -> None:
    """Proofs that are too old to matter go first, and then there may be room."""
    with closing(own.client()) as client:
        store = begun(ValkeyReplayStore, client)
        for number in range(2000):
            assert store.add(Use(number.to_bytes(16, "big"), NOW), NOW)
        client.config_set("maxmemory", client.info("memory")["used_memory"] - 1000)
        with pytest.raises(StoreError, match=r"OutOfMemory|OOM"):
            store.add(Use(b"v" * 16, NOW), NOW)
        assert store.add(Use(b"v" * 16, NOW + 100), NOW + 100) and not store.add(Use(bytes(16), NOW), NOW)


def test_no_amount_gives_back_more_than_was_reserved(client: valkey.Valkey, prefix: str) -> None:
    """Not a negative one either, which no grant passes on."""
    ledger = begun(ValkeyLedger, client, prefix=prefix)
    assert ledger.reserve(reservation(1, debit(amount=5)), NOW) is None and ledger.reserve(reservation(2, debit(amount=5)), NOW) is None
    assert ledger.settle(reservation(1).id, {"usd_cents": -3}, NOW) is True and spent(ledger, ROOT) == [5]
