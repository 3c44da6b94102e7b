"""Making and opening: `create` makes a store, once; opening never does; and what is made along with keys takes their tokens."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import product
from pathlib import Path
from threading import Barrier
from typing import Any

import psycopg
import pytest
import valkey
from msgspec import structs

from captoken import Access, Issuer, Keyring, Verifier
from captoken._format.clocks import CLOCKS_DIFFER, PROOF_AHEAD, PROOF_PAST
from captoken.control import Feed, Operator
from captoken.errors import StoreError
from captoken.issuance.registry.sqlite import SQLiteRegistry
from captoken.keys import HolderKey, OperatorKey
from captoken.stores.ports import Reservation, Use
from captoken.stores.sqlite import SQLiteLedger, SQLiteReplayStore, SQLiteSnapshots
from captoken.testing import FixedClock
from tests.fixtures import KEYRING, NOW, WHO, clock, mint
from tests.issuance.registries import entry, said, seen
from tests.stores.conftest import SHARED, Kind, place
from tests.stores.places import AWAITED, Place
from tests.stores.servers import Valkey
from tests.stores.test_ledger import debit, reservation

NOT_THERE = "there is no store here: create makes one"
OPERATOR_KEY = OperatorKey.from_bytes(bytes(range(32)))
COUNTED = pytest.mark.parametrize("what", ["replays", "ledger"])
# Stores with a floor, on each kind of place that they lie in.
FLOORED = pytest.mark.parametrize(
    ("shared_kind", "what"),
    [*product(SHARED + AWAITED, ("replays", "ledger")), *product(("sqlite", "postgres"), ("registry",))],
    indirect=["shared_kind"],
)


@pytest.fixture(params=SHARED + AWAITED)
def shared_kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    """Also those that are awaited."""
    return Kind(place(request.param, tmp_path, request))


def use(number: int, at: int, kid: str = "") -> Use:
    return Use(number.to_bytes(16, "big"), at, kid)


def counted(number: int, at: int, kid: str = "") -> Reservation:
    return structs.replace(reservation(number, debit(number.to_bytes(16, "big"), 1, 1), at=at, keep=None), kid=kid)


def takes(store: Any, number: int, at: int, kid: str = "", now: int = NOW) -> bool:
    """Does it take this, issued then? `peek` says the same before. A floor of proofs says no, one of counts raises."""
    if hasattr(store, "enter"):
        return said(store, entry(f"t{number}-{kid}", seen(number, kid, issued_at=at), issued_at=at, now=now)) != "invalid_grant"
    try:
        if hasattr(store, "add"):
            foretold = store.peek(use(number, at, kid), now)
            assert store.add(use(number, at, kid), now) is foretold
            return bool(foretold)
        short = store.peek(counted(number, at, kid), now)
        assert store.reserve(counted(number, at, kid), now) == short
        return short is None
    except StoreError as error:
        assert "before this ledger began" in str(error)
        with suppress(StoreError):
            assert store.reserve(counted(number, at, kid), now) is None, "raised by peek alone"
        return False


# --- opening ---------------------------------------------------------------------------------------------------------


@FLOORED
def test_opening_makes_none(shared_kind: Kind, what: str, tmp_path: Path) -> None:
    """Neither once nor twice; in a place where nothing is, and beside a store of another kind (31.6)."""
    other = "replays" if what == "ledger" else "ledger"
    for _ in range(2):
        with pytest.raises(StoreError, match=NOT_THERE):
            shared_kind.place.opened(what)
    assert list(tmp_path.iterdir()) == []
    shared_kind.place.created(other)
    with pytest.raises(StoreError, match=NOT_THERE):
        shared_kind.place.opened(what)
    shared_kind.place.created(what, clock=lambda: NOW)
    assert takes(shared_kind.place.opened(what), 1, NOW + 10**6, now=NOW + 10**6)


@FLOORED
def test_opening_takes_no_floor(shared_kind: Kind, what: str) -> None:
    """Which could be left in a configuration. Who makes one may say its floor, and who opens it then finds that one (38.15)."""
    shared_kind.place.created(what, floor=NOW - 10)
    with pytest.raises(TypeError, match="floor"):
        shared_kind.place.opened(what, floor=0)
    store = shared_kind.place.opened(what)
    assert takes(store, 1, NOW - 9) and not takes(store, 2, NOW - 10)


@FLOORED
def test_what_is_there_is_not_made_again(shared_kind: Kind, what: str) -> None:
    """What was used stays used; also where the second one names keys, which have a floor then."""
    later = NOW + 1000
    store = shared_kind.place.created(what, clock=lambda: NOW)
    assert takes(store, 1, later, now=later)
    for facts in [{}] if what == "registry" else [{}, {"keys": ["k1"]}]:
        with pytest.raises(StoreError, match="this store already exists"):
            shared_kind.place.created(what, **facts)
    again = shared_kind.place.opened(what)
    assert not takes(again, 2, NOW, "k1")
    if what != "ledger":
        assert not takes(again, 1, later, "another", later)
    else:
        assert again.spent((1).to_bytes(16, "big"), "usd_cents") == 1


@FLOORED
def test_of_eight_that_make_it_at_once_one_does(shared_kind: Kind, what: str) -> None:
    gate = Barrier(8)
    shared_kind.place.snapshots()

    def make(_: int) -> bool:
        gate.wait(timeout=60)
        try:
            shared_kind.place.created(what)
        except StoreError as error:
            assert "already exists" in str(error)
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(make, range(8))) == 1


@pytest.mark.parametrize("keys", ["k1", [1], [None], ["a b"], [""], ["*"]], ids=repr)
@COUNTED
def test_keys_are_a_list_of_key_ids(shared_kind: Kind, what: str, keys: Any) -> None:
    shared_kind.place.snapshots()
    with pytest.raises((TypeError, ValueError)):
        shared_kind.place.created(what, keys=keys)
    with pytest.raises(StoreError, match=NOT_THERE):
        shared_kind.place.opened(what)


# --- snapshots -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=SHARED)
def place_of_snapshots(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return place(request.param, tmp_path, request)


def test_a_place_for_snapshots_is_made_once(place_of_snapshots: Place) -> None:
    """Opening makes none, also beside a store of another kind; and what is there is not made again, with a snapshot or without."""
    place_of_snapshots.created("ledger")
    for _ in range(2):
        with pytest.raises(StoreError, match=NOT_THERE):
            place_of_snapshots.opened("snapshots")
    for store in (place_of_snapshots.created("snapshots"), place_of_snapshots.opened("snapshots")):
        assert store.load() is None and store.since(bytes(32)) is None and store.append(b"1", bytes(32), bytes(32)) is False
    for snapshot in (None, b"one"):
        assert snapshot is None or store.publish(snapshot, None)
        with pytest.raises(StoreError, match="this store already exists"):
            place_of_snapshots.created("snapshots")
        assert place_of_snapshots.opened("snapshots").load() == snapshot


def test_of_eight_that_make_a_place_for_snapshots_at_once_one_does(place_of_snapshots: Place) -> None:
    gate = Barrier(8)
    place_of_snapshots.created("ledger")

    def make(_: int) -> bool:
        gate.wait(timeout=60)
        try:
            place_of_snapshots.created("snapshots")
        except StoreError as error:
            assert "already exists" in str(error)
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(make, range(8))) == 1


def lose(one: Place) -> None:
    """What lies on the server is gone, as after a disk was."""
    if one.kind == "valkey":
        with closing(valkey.Valkey(port=int(one.where))) as client:
            client.delete(*client.keys(f"{{{one.name}}}:overlay*"))
    else:
        with psycopg.connect(one.where) as connection:
            for table in ("overlay", "overlay_deltas", "floors"):
                connection.execute(f"delete from {one.name}.{table}".encode())


@pytest.mark.parametrize("kind", ["valkey", "postgres"], indirect=True)
def test_snapshots_that_were_lost_are_an_error_and_not_the_first_of_all(kind: Kind) -> None:
    """An operator who found nothing would begin anew, and all revocations would be gone."""
    store, token = kind.place.created("snapshots"), mint()
    operator = Operator(OPERATOR_KEY, store, by="operator", clock=clock())
    operator.revoke(token=token.token_id, why="lost")
    feed = Feed(store, [OPERATOR_KEY.public], every=0, clock=clock())
    verifier = Verifier(KEYRING, overlay=feed, clock=clock())
    asked = Access(table="sales", operation="select")
    assert verifier.check(token, asked).code == "revoked"

    lose(kind.place)
    calls: tuple[Callable[[], Any], ...] = (
        store.load,
        lambda: store.publish(b"one", None),
        lambda: store.publish(b"one", b"two"),
        lambda: store.append(b"1", bytes(32), bytes(32)),
        lambda: store.since(bytes(32)),
        lambda: operator.revoke(subject="user:jane", why="lost"),
        lambda: kind.place.opened("snapshots"),
    )
    for call in calls:
        with pytest.raises(StoreError, match=NOT_THERE):
            call()
    assert verifier.check(token, asked).code == "revoked", "who has seen them keeps them"
    fresh = Verifier(KEYRING, overlay=Feed(store, [OPERATOR_KEY.public], every=0, clock=clock()), clock=clock())
    assert fresh.check(token, asked).code == "stale_overlay"
    assert kind.place.created("snapshots").load() is None


@pytest.mark.parametrize("kind", ["valkey", "postgres"], indirect=True)
def test_a_snapshot_of_before_stores_were_made_is_found(kind: Kind) -> None:
    """It lies there without a note that the store was made. So it is there."""
    assert kind.place.created("snapshots").publish(b"one", None)
    if kind.name == "valkey":
        with closing(valkey.Valkey(port=int(kind.place.where))) as client:
            assert client.hdel(f"{{{kind.place.name}}}:overlay:state", "made") == 1
    else:
        with psycopg.connect(kind.place.where) as connection:
            connection.execute(f"delete from {kind.place.name}.floors".encode())
    assert kind.place.opened("snapshots").load() == b"one"
    with pytest.raises(StoreError, match="this store already exists"):
        kind.place.created("snapshots")


# --- keys that are made along ----------------------------------------------------------------------------------------


@COUNTED
def test_tokens_of_keys_that_were_made_along_have_no_floor(shared_kind: Kind, what: str) -> None:
    """By whoever opens it; all others have the floor, whatever their key is called."""
    ahead = {"replays": PROOF_AHEAD, "ledger": CLOCKS_DIFFER}[what]
    first = shared_kind.place.created(what, keys=["k1", "k2", "k1"], clock=lambda: NOW)
    for number, store in enumerate((first, shared_kind.place.opened(what))):
        for other in ("", "k", "k3", "k1k2", "1", "K1"):
            assert not takes(store, 100, NOW, other) and not takes(store, 100, NOW + ahead, other), other
        assert takes(store, 200 + number, NOW + ahead + 1, now=NOW + ahead)
        for kid in ("k1", "k2"):
            assert takes(store, 300 + 10 * number + int(kid[1]), NOW, kid)


def test_a_proof_on_such_a_token_is_taken_once(shared_kind: Kind) -> None:
    """Also under another key's name, and for as long as it could pass; once the floor has risen, it is the same for all."""
    store = shared_kind.place.created("replays", keys=["k1"], clock=lambda: NOW)
    assert takes(store, 1, NOW, "k1")
    for now in (NOW, NOW + 5, NOW + PROOF_PAST):
        assert not takes(store, 1, NOW, "k1", now) and not takes(store, 1, NOW + 6, "", now) and not takes(store, 1, NOW - 1, "k1", now)
    assert takes(store, 2, NOW - 20, "k1", NOW + PROOF_PAST), "the floor has not risen yet"
    later = NOW + PROOF_AHEAD + PROOF_PAST + 2  # now it has, by a second over the first
    assert takes(store, 3, later, "k1", later)
    for now in (later, NOW):
        for number in (1, 2, 4):
            assert not takes(store, number, NOW, "k1", now), "forgotten, and so refused"


@pytest.mark.parametrize("kind", ["sqlite", "valkey"], indirect=True)
def test_what_such_proofs_take_of_the_room_is_not_forgotten(kind: Kind) -> None:
    """A store that is full says so, though all that it holds lies below the floor."""
    store = kind.place.created("replays", keys=["k1"], limit=2, clock=lambda: NOW)
    assert takes(store, 1, NOW, "k1") and takes(store, 2, NOW, "k1")
    for kid, at in (("k1", NOW), ("", NOW + 6)):
        for ask in (store.peek, store.add):
            with pytest.raises(StoreError, match="there is no room for more"):
                ask(use(3, at, kid), NOW + 3)
    assert not takes(store, 1, NOW, "k1")


def test_whatever_the_clocks_do_a_proof_is_taken_once(shared_kind: Kind) -> None:
    """Of both keys, at times before, in and behind the first floor, with clocks that jump; and a proof that is out of time is not
    asked for."""
    store, rng = shared_kind.place.created("replays", keys=["k1"], clock=lambda: NOW), random.Random(3)
    taken: Counter[int] = Counter()
    for _ in range(600):
        number = rng.randrange(60)
        at, kid = NOW + number % 40 - 10, ("k1", "")[number % 3 == 0]
        now = at + rng.choice([-PROOF_AHEAD, 0, 1, 10, PROOF_PAST])
        taken[number] += takes(store, number, at, kid, now)
    assert set(taken.values()) <= {0, 1} and sum(taken.values()) > 5


def test_a_failover_ends_it(valkey_server: Valkey, kind: Kind) -> None:
    """What was answered last may be lost: the floor rises, and it is one for all keys."""
    if kind.name == "postgres":
        ledger = kind.place.created("ledger", keys=["k1"])
        assert takes(ledger, 1, NOW, "k1")
        with psycopg.connect(kind.place.where) as connection:
            connection.execute(f"update {kind.place.name}.floors set timeline = '00000000'".encode())
    elif kind.name == "valkey":
        ledger = kind.place.created("ledger", keys=["k1"])
        assert takes(ledger, 1, NOW, "k1")
        with closing(valkey_server.client()) as client:
            client.hset(f"{{{kind.place.name}}}:ledger", mapping={"server": "0" * 40, "looked": ""})
    else:
        return
    assert not takes(ledger, 2, NOW, "k1") and not takes(kind.place.opened("ledger"), 3, NOW, "k1")


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SQLiteReplayStore, SQLiteLedger, SQLiteSnapshots, SQLiteRegistry])
def test_a_file_that_was_taken_away_is_refused_and_not_made(kind: Any, tmp_path: Path) -> None:
    """Deleted, renamed, or another one put in its place; put back, it goes on."""
    path, aside = tmp_path / "stores.db", tmp_path / "aside"
    with closing(kind.create(path)) as store:
        ask: Callable[[], Any] = {
            SQLiteReplayStore: lambda: store.add(use(1, NOW), NOW),
            SQLiteLedger: lambda: store.spent(bytes(16), "eur"),
            SQLiteSnapshots: lambda: store.load(),
            SQLiteRegistry: lambda: store.unpublished(),
        }[kind]
        ask()
        path.rename(aside)
        with pytest.raises(StoreError, match=NOT_THERE):
            ask()
        assert not path.exists()
        kind.create(path).close()
        with pytest.raises(StoreError, match="another file lies there"):
            ask()
        path.unlink()
        aside.rename(path)
        ask()
        store.close()
        path.unlink()
        for again in (ask, lambda: kind(path)):
            with pytest.raises(StoreError, match=NOT_THERE):
                again()
        assert not path.exists()


def test_stores_are_made_in_one_file(tmp_path: Path) -> None:
    """Each by itself, and the overlay apart; a name with what a URI would read otherwise is the name of the file."""
    path = tmp_path / "a b%20?mode=memory#c.db"
    for kind in (SQLiteReplayStore, SQLiteLedger, SQLiteRegistry):
        with pytest.raises(StoreError, match=NOT_THERE):
            kind(path)
        kind.create(path).close()
        kind(path).close()
    assert {one.name for one in tmp_path.iterdir()} == {path.name}


# --- the whole way ---------------------------------------------------------------------------------------------------


def test_a_server_that_is_set_up_along_with_its_keys_goes_on_at_once(shared_kind: Kind) -> None:
    """Its first tokens count, and its first proofs are taken. A key that is added later has the floor of the day."""
    ticking = FixedClock(NOW)
    keyring, own = Keyring.generate(), HolderKey.generate()
    replays = shared_kind.place.created("replays", keys=keyring.key_ids, clock=lambda: NOW)
    ledger = shared_kind.place.created("ledger", keys=keyring.key_ids, clock=lambda: NOW)
    access = Access(table="sales", operation="select")

    def codes(ring: Keyring) -> list[str]:
        server = Verifier(ring, "sales-db", replays=replays, ledger=ledger, clock=ticking)
        what: dict[str, Any] = {**WHO, "tables": ["sales"], "operations": ["select"], "audience": "sales-db"}
        once = Issuer(ring, clock=ticking).mint(**what, uses=1)
        bound = Issuer(ring, clock=ticking).mint(**what, key=own.public)
        text = bound.present(audience="sales-db", signer=own, request=access, clock=ticking)
        return [server.check(asked, access).code for asked in (once, once, text, text)]

    assert codes(keyring) == ["allowed", "budget_exhausted", "allowed", "replayed"]
    assert codes(keyring.rotate()) == ["store_unavailable", "store_unavailable", "replayed", "replayed"]
