"""What every store does when it is only looked at: it says what the call would, and is as it was."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import pytest
import valkey

from captoken._format.clocks import PROOF_AHEAD, PROOF_PAST
from captoken.errors import StoreError
from captoken.stores.memory import MemoryLedger, MemoryReplayStore, _Uses
from captoken.stores.ports import KEPT, Debit, Ledger, ReplayStore, Reservation, Use
from tests.fixtures import NOW
from tests.stores.conftest import LIMITED, Kind, Open, OpenLedger, place
from tests.stores.places import Place
from tests.stores.servers import Postgres
from tests.stores.test_ledger import CHILD, LEAF, ROOT, debit, reservation, spent
from tests.stores.test_replay_store import use

TABLES = {
    "sqlite": ("proofs", "proof_state", "buckets", "marks", "reservations", "ledger_state", "overlay"),
    "postgres": ("floors", "proofs", "buckets", "marks", "reservations", "overlay"),
}


def inside(value: Any) -> Any:
    """A copy that is equal to another one if what is in it is: of proofs and of consents, what is known of them."""
    return deepcopy(vars(value) if isinstance(value, _Uses) else value)


def state(place: Place, *stores: Any) -> Any:
    """All that there is: in the file, under the prefix, in the schema, in the memory."""
    if place.kind == "memory":
        return [{name: inside(value) for name, value in vars(store).items() if name not in ("_lock", "_process")} for store in stores]
    if place.kind == "valkey":
        with closing(valkey.Valkey(port=int(place.where))) as client:
            return {name: client.dump(name) for name in client.keys(f"{{{place.name}}}*")}
    if place.kind == "sqlite":
        with closing(sqlite3.connect(place.where)) as file:
            there = {name for (name,) in file.execute("select name from sqlite_master where type = 'table'")}
            return {name: file.execute(f"select * from {name}").fetchall() for name in TABLES["sqlite"] if name in there}
    with psycopg.connect(place.where) as connection:
        rows = {name: connection.execute(f"select * from {place.name}.{name}".encode()).fetchall() for name in TABLES["postgres"]}
    return {name: sorted(map(str, found)) for name, found in rows.items()}


def said(call: Callable[..., Any], *given: Any) -> Any:
    """The answer, or the text of the StoreError."""
    try:
        return call(*given)
    except StoreError as error:
        return str(error)


def looked(kind: Kind, store: Any, asked: Any, now: int) -> Any:
    """What it says three times when it is looked at; and it is as it was."""
    before = state(kind.place, store)
    first, *others = [said(store.peek, asked, now) for _ in range(3)]
    assert others == [first] * 2 and state(kind.place, store) == before
    return first


def added(kind: Kind, store: ReplayStore, asked: Use, now: int) -> Any:
    """What `add` says, which is what `peek` said."""
    first = looked(kind, store, asked, now)
    answer = said(store.add, asked, now)
    assert (answer, type(answer)) == (first, type(first)), (asked, now)
    return answer


def reserved(kind: Kind, ledger: Ledger, asked: Reservation, now: int) -> Any:
    """What `reserve` says, which is what `peek` said."""
    first = looked(kind, ledger, asked, now)
    answer = said(ledger.reserve, asked, now)
    assert answer == first, (asked, now)
    return answer


# --- proofs ----------------------------------------------------------------------------------------------------------


def test_a_use_that_is_looked_at_is_still_the_first(open_store: Open, kind: Kind) -> None:
    """Fresh, used, and used under another time."""
    store = open_store()
    assert added(kind, store, use(1), NOW) is True
    assert added(kind, store, use(1), NOW) is False and added(kind, store, use(1, NOW + 1), NOW) is False
    assert added(kind, store, use(2), NOW) is True


@pytest.mark.parametrize("offset", [-1000, -1, 0, 1, 1000])
def test_what_is_not_above_the_floor_is_told(open_store: Open, kind: Kind, offset: int) -> None:
    """A floor that was said, and one of a store that is new."""
    assert added(kind, open_store(floor=NOW), use(1, NOW + offset), NOW) is (offset > 0)


@pytest.mark.parametrize("offset", [0, PROOF_AHEAD, PROOF_AHEAD + 1])
def test_a_new_store_is_told(open_store: Open, kind: Kind, offset: int) -> None:
    store = open_store(floor=None, clock=lambda: NOW)
    assert added(kind, store, use(1, NOW + offset), NOW) is (offset > PROOF_AHEAD)


def test_what_the_clock_makes_too_old_is_told_before_it_is_forgotten(open_store: Open, kind: Kind) -> None:
    """The floor would rise, so a use is refused; a name of long ago is free again. And nothing rises, nothing is forgotten."""
    store = open_store()
    assert added(kind, store, use(1), NOW) is True
    later = NOW + PROOF_PAST + 1
    assert looked(kind, store, use(1), later) is False and looked(kind, store, use(2), later) is False
    assert looked(kind, store, use(1, later), later) is True
    assert store.add(use(2), NOW) is True, "the floor did not rise"
    assert added(kind, store, use(1, later), later) is True
    assert added(kind, store, use(3), NOW) is False, "and now it did, whatever the clock says"


def test_a_store_that_is_full_says_so(limited_kind: Kind) -> None:
    """What is used is told apart from what has no room; and what would be forgotten would make room."""
    kind = limited_kind
    store = kind.place.replays(floor=0, limit=3)
    assert [added(kind, store, use(number, NOW + number), NOW) for number in range(3)] == [True] * 3
    assert "3 proofs of the last 35 seconds" in added(kind, store, use(3), NOW)
    assert added(kind, store, use(1, NOW + 1), NOW) is False
    later = NOW + PROOF_PAST
    assert "there is no room for more" in looked(kind, store, use(4, later), later)
    assert looked(kind, store, use(4, later), later + 1) is True
    assert "there is no room for more" in added(kind, store, use(4, later), later) and added(kind, store, use(4, later), later + 1) is True
    assert "there is no room for more" in added(kind, store, use(5, later), later + 1)


@pytest.mark.parametrize("seed", range(2))
def test_any_walk_of_uses_is_foretold(kind: Kind, seed: int) -> None:
    """Random uses and times, names that come again, in a store that is full now and then: `add` says what `peek` said."""
    rng, answers = random.Random(seed), set()
    store = kind.place.replays(floor=0, **({"limit": 12} if kind.name in LIMITED else {}))
    now = NOW
    for _ in range(300):
        now += rng.choice([0, 0, 0, 1, 1, 2, 7, 40, -1, -3, -30])
        one = use(rng.randrange(40), now + rng.randint(-PROOF_PAST - 3, PROOF_AHEAD + 3))
        first = said(store.peek, one, now)
        assert said(store.peek, one, now) == first == said(store.add, one, now)
        answers.add(first)
    assert len(answers) == (3 if kind.name in LIMITED else 2)


# --- the ledger ------------------------------------------------------------------------------------------------------


def test_what_is_looked_at_is_not_debited(open_ledger: OpenLedger, kind: Kind) -> None:
    """A fresh bucket, one that has enough, one that has not, and the first of several that has not."""
    ledger = open_ledger()
    assert reserved(kind, ledger, reservation(1, debit(amount=9)), NOW) is None and spent(ledger, ROOT) == [9]
    assert reserved(kind, ledger, reservation(2, debit(amount=2)), NOW) == debit(amount=2)
    both = debit(ROOT, 1, link=0), debit(CHILD, 11, link=1), debit(LEAF, 11, link=2)
    assert reserved(kind, ledger, reservation(3, *both), NOW) == both[1] and spent(ledger) == [9, 0, 0]
    assert reserved(kind, ledger, reservation(4), NOW) is None and reserved(kind, ledger, reservation(5), NOW) == debit()


def test_a_debit_of_nothing_is_foretold(open_ledger: OpenLedger, kind: Kind) -> None:
    """No debit at all, one of nothing of a bucket with nothing, and one of something."""
    ledger = open_ledger()
    assert reserved(kind, ledger, Reservation(bytes(16), (), NOW, NOW + 60, None), NOW) is None
    assert reserved(kind, ledger, reservation(1, debit(amount=0, limit=0)), NOW) is None
    assert reserved(kind, ledger, reservation(2, debit(amount=1, limit=0)), NOW) == debit(amount=1, limit=0)


def test_what_one_access_takes_twice_is_added_up(open_ledger: OpenLedger, kind: Kind) -> None:
    ledger = open_ledger()
    assert reserved(kind, ledger, reservation(1, debit(amount=6, link=1), debit(amount=6, link=2)), NOW) == debit(amount=6, link=2)
    assert reserved(kind, ledger, reservation(2, debit(amount=5), debit(amount=5)), NOW) is None and spent(ledger, ROOT) == [10]


def test_an_amount_below_nothing_is_an_error_here_too(open_ledger: OpenLedger, kind: Kind) -> None:
    ledger = open_ledger()
    assert ledger.reserve(reservation(1, debit(amount=5)), NOW) is None
    for asked in ((debit(amount=-3),), (debit(CHILD, -3),), (debit(ROOT, 1), debit(CHILD, -1)), (debit(ROOT, 3), debit(ROOT, -3))):
        with pytest.raises(StoreError):
            ledger.peek(reservation(2, *asked), NOW)
        assert isinstance(reserved(kind, ledger, reservation(2, *asked), NOW), str) and spent(ledger) == [5, 0, 0]


def test_a_reservation_that_was_made_is_told_as_made(open_ledger: OpenLedger, kind: Kind) -> None:
    """By its id: when nothing is left, after it was settled, and when its token is refused by now. Not once it has run out
    where it is forgotten then."""
    ledger = open_ledger()
    assert reserved(kind, ledger, reservation(1, debit(amount=10)), NOW) is None
    assert reserved(kind, ledger, reservation(1, debit(amount=10)), NOW) is None and reserved(kind, ledger, reservation(2), NOW) == debit()
    assert ledger.settle(reservation(1).id, {"usd_cents": 4}, NOW) is True
    assert reserved(kind, ledger, reservation(1, debit(amount=10)), NOW) is None and spent(ledger, ROOT) == [4]
    for later in (NOW + 59, NOW + 60, NOW + 61):
        looked(kind, ledger, reservation(1, debit(amount=10)), later)
        reserved(kind, ledger, reservation(1, debit(amount=10)), later)


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_a_token_from_before_the_ledger_is_told(open_ledger: OpenLedger, kind: Kind, offset: int) -> None:
    ledger = open_ledger(floor=NOW)
    answer = reserved(kind, ledger, reservation(1, at=NOW + offset), NOW)
    assert answer is None if offset > 0 else "issued before this ledger began" in answer


def test_a_bucket_that_would_be_forgotten_is_looked_at_as_if_it_were(open_ledger: OpenLedger, kind: Kind) -> None:
    """Where it is forgotten by the clock; a clock that is set back is told, once something was forgotten."""
    ledger = open_ledger()
    assert ledger.reserve(reservation(1, debit(amount=10), keep=NOW), NOW) is None
    for now in (NOW + KEPT - 1, NOW + KEPT, NOW + KEPT + 1, NOW + 2 * KEPT, NOW, NOW - 1):
        looked(kind, ledger, reservation(2, debit(amount=3), keep=None), now)
    assert reserved(kind, ledger, reservation(3), NOW) == debit(), "nobody has forgotten it"
    reserved(kind, ledger, reservation(4, debit(CHILD), keep=None), NOW + KEPT)
    reserved(kind, ledger, reservation(2**124 + 5, debit(CHILD), keep=None), NOW + KEPT)
    for number, now in enumerate((NOW + KEPT, NOW, NOW - 1)):
        answer = reserved(kind, ledger, reservation(10 + number, debit(amount=3), keep=None), now)
        assert answer is None if now >= NOW else "this clock is behind" in answer


def test_what_is_forgotten_by_this_very_call_is_foretold(open_ledger: OpenLedger, kind: Kind) -> None:
    """Its bucket is full, and its time is up: where the call forgets it first, there is room."""
    ledger = open_ledger()
    assert ledger.reserve(reservation(1, debit(amount=10), keep=NOW), NOW) is None
    answer = reserved(kind, ledger, reservation(2, debit(amount=3), keep=None), NOW + KEPT)
    assert answer == (None if kind.name in ("memory", "sqlite") else debit(amount=3))


@pytest.mark.parametrize("name", ["valkey", "postgres"])
def test_a_floor_that_was_lost_is_not_begun_by_whoever_looks(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """It is refused as the call would be, and neither makes it."""
    kind = Kind(place(name, tmp_path, request))
    replays, ledger = kind.place.replays(floor=0), kind.place.ledger(floor=0)
    if name == "valkey":
        with closing(valkey.Valkey(port=int(kind.place.where))) as client:
            client.delete(f"{{{kind.place.name}}}:replay", f"{{{kind.place.name}}}:ledger")
    else:
        with psycopg.connect(kind.place.where) as connection:
            connection.execute(f"delete from {kind.place.name}.floors".encode())
    assert "there is no store here: create makes one" in str(added(kind, replays, use(1), NOW))
    assert "there is no store here: create makes one" in str(reserved(kind, ledger, reservation(1), NOW))


@pytest.mark.parametrize("seed", range(2))
def test_any_walk_of_reservations_is_foretold(open_ledger: OpenLedger, kind: Kind, seed: int) -> None:
    """Random chains, amounts, ids that come again, tokens that expire, a clock that jumps: `reserve` says what `peek` said."""
    ledger, rng = open_ledger(floor=NOW - 50), random.Random(seed)
    now, answers, refused = NOW, {True: 0, False: 0}, set()
    for _ in range(300):
        now += rng.choice([0, 0, 0, 1, 1, 30, -20, rng.choice([0, 0, 0, 0, 0, 0, KEPT + 300, -KEPT])])
        chain = [bytes([link]) * 16 for link in (1, 2 + rng.randrange(3), 10 + rng.randrange(20))][: rng.randint(1, 3)]
        asked = tuple(
            Debit(bucket, unit, rng.choice([5, 40, 100]), rng.choice([0, 1, 1, 3, 9, 9, -1] if rng.random() < 0.1 else [0, 1, 3, 9]), link)
            for link, bucket in enumerate(chain)
            for unit in rng.sample(["usd", "rows", "uses"], rng.randint(1, 2))
        )
        number = rng.randrange(16) * 2**124 + rng.randrange(60)
        one = reservation(number, *asked, at=now - rng.choice([0, 0, 5, 100]), until=now + rng.randint(0, 60), keep=rng.choice([None, now, now + 300]))
        first = said(ledger.peek, one, now)
        assert said(ledger.peek, one, now) == first == said(ledger.reserve, one, now)
        if isinstance(first, str):
            refused.add(first)
        else:
            answers[first is None] += 1
        if rng.random() < 0.3:
            ledger.settle(one.id, rng.choice([None, {}, {"usd": 1}]), now)
    assert min(answers.values()) > 20 and any("before this ledger" in text for text in refused)


# --- at the same time, and when something fails ----------------------------------------------------------------------


def test_looking_debits_nothing_while_others_reserve(open_ledger: OpenLedger) -> None:
    """Four threads look all the time, with ids of their own and with those of the others; four take three hundred of three
    hundred between them, and no reservation is lost or made by whoever looked."""
    ledger, over = open_ledger(), Event()
    asked = debit(ROOT, 1, 300), debit(CHILD, 1, 1000)

    def look(who: int) -> int:
        many = 0
        while not over.is_set():
            assert ledger.peek(reservation((who % 2) * 1000 + many % 400, *asked), NOW) in (None, asked[0])
            many += 1
        return many

    def take(who: int) -> int:
        return sum(ledger.reserve(reservation(who * 100 + number, *asked), NOW) is None for number in range(100))

    with ThreadPoolExecutor(8) as pool:
        looking = [pool.submit(look, who) for who in range(4)]
        try:
            taken = sum(pool.map(take, range(4)))
        finally:
            over.set()
        assert min(one.result(timeout=60) for one in looking) > 0
    assert taken == 300 and spent(ledger) == [300, 300, 0]


def test_looking_uses_nothing_up_while_others_add(open_store: Open) -> None:
    """A hundred proofs, each looked at by four threads and presented by four: one of these is the first."""
    store = open_store()

    def run(who: int) -> list[bool]:
        return [(store.peek if who % 2 else store.add)(use(number), NOW) for number in range(100)]

    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(run, range(8)))
    assert [sum(row[number] for row in rows[::2]) for number in range(100)] == [1] * 100
    assert not any(store.peek(use(number), NOW) for number in range(100))


def test_who_looks_at_a_file_does_not_wait_for_who_writes(tmp_path: Path) -> None:
    """The file is held by another one: `add` and `reserve` fail, and what is looked at is what was before."""
    there = Place("sqlite", str(tmp_path / "stores.db"))
    replays, ledger = there.replays(floor=0), there.ledger(floor=0)
    assert replays.add(use(1), NOW) and ledger.reserve(reservation(1, debit(amount=10)), NOW) is None
    with closing(sqlite3.connect(there.where, isolation_level=None)) as other:
        other.execute("begin immediate")
        other.execute("delete from buckets")
        assert replays.peek(use(1), NOW) is False and replays.peek(use(2), NOW) is True
        assert ledger.peek(reservation(2), NOW) == debit()
        other.execute("rollback")


def test_who_looks_at_rows_that_are_held_does_not_wait_for_ever(postgres_server: Postgres) -> None:
    """As `reserve`: it waits for as long as the login says. It holds nothing afterwards, and has changed nothing."""
    there = Place("postgres", f"{postgres_server.conninfo} options='-c lock_timeout=20'", f"t{random.SystemRandom().randrange(10**12)}")
    ledger = there.ledger(floor=0)
    assert ledger.reserve(reservation(1), NOW) is None
    with psycopg.connect(postgres_server.conninfo) as other:
        other.execute(f"select from {there.name}.buckets for update".encode())
        assert "LockNotAvailable" in said(ledger.peek, reservation(2), NOW)
        other.rollback()
        assert ledger.peek(reservation(2), NOW) is None
        other.execute(f"select from {there.name}.buckets for update nowait".encode())
    assert spent(ledger, ROOT) == [1]


@pytest.mark.parametrize("make", [MemoryReplayStore, MemoryLedger])
def test_a_memory_of_another_process_is_not_looked_at(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(floor=0)
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(StoreError, match="another process"):
        store.peek(use(1) if make is MemoryReplayStore else reservation(1), NOW)
