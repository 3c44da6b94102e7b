"""What servers, connections, crashes and garbage do to the stores: a denial, and never more than there was."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from hashlib import sha256
from itertools import product
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import psycopg
import pytest

from captoken.control import Operator, Overlay
from captoken.errors import StoreError
from captoken.stores.ports import Debit, Forbidden, Mark, Rule, Use
from tests.fixtures import NOW, clock
from tests.longer import kills
from tests.stores import processes
from tests.stores.conftest import Kind
from tests.stores.killing import killed, starts_fresh
from tests.stores.places import AWAITED, KINDS, Place, close_all
from tests.stores.servers import Postgres, Valkey, Wire
from tests.stores.subjects import CLOSED, KEY, SUBJECTS, Snapshots, Subject, Tasks, opened, subjects_of, taken
from tests.stores.test_ledger import CHILD as CHILD_OF_IT
from tests.stores.test_ledger import ROOT as BUCKET
from tests.stores.test_ledger import debit, reservation, spent
from tests.stores.test_marks import OUTSIDE, PRIVATE, before, is_set, mark, stepped

SERVERS: dict[str, Callable[[], Any]] = {"valkey": Valkey, "postgres": Postgres}


def said(name: str, store: Any) -> str:
    """What is answered to something new by whoever rests on that store."""
    (kind,) = (one for one in SUBJECTS if one.what == name)
    return kind(store).code()


def codes(subjects: Iterable[Subject]) -> list[str]:
    return [one.code() for one in subjects]


def denials(subjects: Iterable[Subject]) -> list[str]:
    return [one.denied for one in subjects]


# --- a server that goes away -----------------------------------------------------------------------------------------


@pytest.fixture(params=[*SERVERS, *AWAITED])
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A server of the test's own, to be killed. Its stores are called, or awaited."""
    made = SERVERS[request.param.removesuffix("-awaited")]()
    made.awaited = request.param in AWAITED
    yield made
    made.stop()


def at(server: Any, port: int | None = None) -> Place:
    awaited = getattr(server, "awaited", False)
    if isinstance(server, Valkey):
        return Place("valkey", str(port or server.port), "p", awaited)
    return Place("postgres", server.conninfo.replace(str(server.port), str(port or server.port)), "p", awaited)


def test_a_server_that_is_killed_denies_until_it_is_back(server: Any) -> None:
    """Each of the stores, opened before and opened now; and with its data it goes on where it was."""
    place = at(server)
    assert codes(taken(place._replace(name="other"))) == ["allowed"] * len(subjects_of(place))
    subjects = taken(place, lossless=True)  # each write is on the disk, and there is no replica
    server.kill()
    for _ in range(2):
        assert codes(subjects) == denials(subjects)
    for one in subjects:
        for call in (*one.calls().values(), lambda one=one: place.opened(one.what)):
            with pytest.raises((StoreError, psycopg.OperationalError)) as caught:
                call()
            assert str(server.port) not in str(caught.value) or not isinstance(caught.value, StoreError)
    server.start()
    assert all(one.stands() for one in subjects), "what was used stays used"
    assert codes(subjects) == ["allowed"] * len(subjects)


@pytest.mark.parametrize("rounds", [3])
def test_never_more_than_there_is_with_a_server_that_is_killed_in_between(server: Any, rounds: int) -> None:
    """Eight threads take from four hundred while the server is killed and started again three times. Every answer counts,
    and what was taken without one is lost to them; at the end there is nothing left, and nobody got too much."""
    place, stop = at(server), Event()
    ledgers = [place.ledger(floor=0, lossless=True) for _ in range(8)]

    def run(who: int) -> int:
        ledger, got, number = ledgers[who], 0, 0
        while not stop.is_set():
            number += 1
            try:
                got += ledger.reserve(reservation(who * 100_000 + number, debit(BUCKET, 1, 400)), NOW) is None
            except StoreError:
                stop.wait(0.005)
        return got

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(run, who) for who in range(8)]
        try:
            for _ in range(rounds):
                stop.wait(0.05)
                server.kill()
                server.start()
        except BaseException:
            stop.set()
            raise
        for number in range(1, 400):
            if ledgers[0].reserve(reservation(-number % 2**128, debit(BUCKET, 1, 400)), NOW) is not None:
                break
            running.append(pool.submit(int, "1"))
        stop.set()
        got = sum(one.result() for one in running)
    assert spent(ledgers[0], BUCKET) == [400] and 400 - 8 * rounds <= got <= 400


@pytest.mark.parametrize("rounds", [3])
def test_nothing_passes_a_mark_that_was_answered_with_a_server_that_is_killed_in_between(server: Any, rounds: int) -> None:
    """Six threads set marks, each with a debit, while the server is killed and started again three times. What was answered is
    set, and was debited; whoever then runs into it is closed, or has no answer."""
    place, stop, told = at(server), Event(), list[int]()
    ledgers = [place.ledger(floor=0, lossless=True) for _ in range(6)]

    def run(who: int) -> None:
        for number in range(1000 + who * 100_000, 10**9):
            if stop.is_set():
                break
            one = mark(number)
            try:
                taken = reservation(number + 1, debit(number.to_bytes(16, "big"), 1, 1))
                assert ledgers[who].step(stepped(one, reserves=taken), NOW) is None
                told.append(number)
                assert ledgers[who].step(stepped(OUTSIDE, rules=(Rule((one,)),)), NOW) == Forbidden(0, (before(one),))
            except StoreError:
                stop.wait(0.005)

    def until_told(many: int) -> None:
        until = monotonic() + processes.WAIT
        while len(told) < many:
            assert monotonic() < until and not any(one.done() for one in running)
            stop.wait(0.002)

    with ThreadPoolExecutor(6) as pool:
        running = [pool.submit(run, who) for who in range(6)]
        try:
            for _ in range(rounds):
                until_told(len(told) + 10)
                server.kill()
                server.start()
            until_told(len(told) + 10)
        finally:
            stop.set()
        for one in running:
            one.result()
    assert not is_set(ledgers[0], OUTSIDE)
    for number in told[:: max(1, len(told) // 200)]:
        assert is_set(ledgers[0], mark(number)) and spent(ledgers[0], number.to_bytes(16, "big")) == [1]


def test_a_server_that_comes_back_without_its_data_refuses_what_was_issued_before(server: Any) -> None:
    """Stores that were open all the time, and new ones that do not say otherwise: what was used is not known any more."""
    place = at(server)
    before = taken(place)
    assert codes(before) == ["allowed"] * len(before)
    server.kill()
    server.wipe()
    server.start()
    assert codes(before) == denials(before)
    for kind, one in zip(subjects_of(place), before, strict=True):
        anew = kind.at(place, **({} if kind is Snapshots else {"clock": clock()}))
        assert anew.code() == one.code() == kind.anew


# --- a connection that breaks ----------------------------------------------------------------------------------------


@pytest.fixture(params=["valkey", "postgres", *AWAITED])
def wired(request: pytest.FixtureRequest) -> Iterator[tuple[Place, Place, Wire]]:
    """A place on a server, the same place through a wire, and the wire."""
    server = request.getfixturevalue(f"{request.param.removesuffix('-awaited')}_server")
    if isinstance(server, Valkey):
        server.know_scripts()
    wire = Wire(server.port)
    facts = {"name": f"wired{os.urandom(8).hex()}", "awaited": request.param in AWAITED}
    yield at(server)._replace(**facts), at(server, wire.port)._replace(**facts), wire
    wire.close()


def test_a_connection_that_was_dropped_meanwhile_is_made_anew(wired: tuple[Place, Place, Wire]) -> None:
    """Before each kind of call: none fails, and none is done twice."""
    _, place, wire = wired
    for one in opened(place):
        for call in (one.take, one.stands, *one.calls().values(), one.done):
            wire.drop()
            Event().wait(0.01)  # until the end has arrived
            assert call() or call not in (one.take, one.stands, one.done)


def test_an_answer_that_is_lost_is_no_allowance(wired: tuple[Place, Place, Wire]) -> None:
    """The server has done it, and nobody is told. A proof is used up, a settlement stands, a snapshot lies there; a
    reservation may be asked for again by its id, and is debited once."""
    direct, place, wire = wired
    replays, ledger, snapshots = place.replays(floor=0), place.ledger(floor=0), place.snapshots()
    wire.lose_answer()
    with pytest.raises(StoreError):
        replays.add(Use(b"u" * 16, NOW), NOW)
    assert replays.add(Use(b"u" * 16, NOW), NOW) is False

    for number in (1, 2):
        wire.lose_answer()
        try:
            assert ledger.reserve(reservation(number, debit(amount=3)), NOW) is None
        except StoreError:
            assert place.kind == "valkey", "PostgreSQL's asks again by itself"
        assert ledger.reserve(reservation(number, debit(amount=3)), NOW) is None and spent(ledger, BUCKET) == [3 * number]
    for number in (11, 12):
        asked = stepped(mark(number), reserves=reservation(number, debit(CHILD_OF_IT, amount=3)))
        wire.lose_answer()
        try:
            assert ledger.step(asked, NOW) is None
        except StoreError:
            assert place.kind == "valkey", "PostgreSQL's asks again by itself"
        assert is_set(ledger, mark(number)) and ledger.step(asked, NOW + 1) is None
        assert spent(ledger, CHILD_OF_IT) == [3 * (number - 10)]
        assert ledger.step(stepped(OUTSIDE, rules=(Rule((mark(number),)),)), NOW) == Forbidden(0, (before(mark(number)),)), "set the first time"
    wire.lose_answer()
    with pytest.raises(StoreError):
        ledger.settle(reservation(1).id, {}, NOW)
    assert spent(ledger, BUCKET) == [3] and ledger.settle(reservation(1).id, {}, NOW) is False

    wire.lose_answer()
    with pytest.raises(StoreError):
        snapshots.publish(b"one", None)
    other = direct.snapshots()
    assert snapshots.load() == other.load() == b"one" and other.publish(b"two", b"one") and snapshots.load() == b"two"


def test_for_whoever_rests_on_a_store_a_lost_answer_is_a_denial(wired: tuple[Place, Place, Wire]) -> None:
    """Each kind, each time. PostgreSQL's ledger and its snapshots ask again by themselves."""
    _, place, wire = wired
    for one in taken(place):
        asks_again = place.kind == "postgres" and one.what in ("ledger", "snapshots")
        wire.lose_answer()
        assert one.code() in {one.denied, *(["allowed"] if asks_again else [])}
        assert one.code() == "allowed"


# --- garbage ---------------------------------------------------------------------------------------------------------

# What is done to a store of each kind, and which calls then fail: of the ledger's reserve (r), settle (s), spent (p) and step
# (m), the replay store's add (a), the snapshots' load (l). Where reserve, step or add fail, the look does too.
LOOKS = str.maketrans("rma", "RMA", "spl")

VALKEY = [
    ("ledger", "del", (), "", "lost: the floor rises"),
    ("ledger", "set", ("text",), "rm", "a floor of another type"),
    ("ledger", "hset", ("floor", "soon"), "rm", "a floor that is no number"),
    ("ledger", "hset", ("floor", "-5"), "rm", "a negative floor"),
    ("ledger", "hset", ("floor", ""), "rm", "an empty floor"),
    ("bucket", "rpush", ("1",), "rsp", "a list for a bucket"),
    ("bucket", "set", ("many",), "rsp", "a word for a number"),
    ("bucket", "set", ("-5",), "rsp", "a negative number"),
    ("bucket", "set", ("1e3",), "rsp", "a number with an exponent"),
    ("bucket", "set", ("0x10",), "rsp", "a number in another base"),
    ("bucket", "set", (" 3",), "rsp", "a number with a blank"),
    ("bucket", "set", ("007",), "rs", "a number with zeros before it"),
    ("bucket", "set", ("nan",), "rsp", "no number at all"),
    ("bucket", "set", ("9007199254740993",), "rs", "more than is exact"),
    ("bucket", "set", ("9" * 30,), "rsp", "more than fits"),
    ("bucket", "set", ("0",), "s", "less than is to go back"),
    ("mark", "rpush", ("1",), "m", "a list for a mark"),
    ("mark", "set", ("done",), "m", "a mark without a time"),
    ("mark", "set", ("-5 by",), "m", "a time below nothing"),
    ("mark", "set", (f"{10**16} by",), "m", "a time that never is"),
    ("kept", "set", ("x",), "rm", "text for the times until which they are kept"),
    ("kept", "hset", ("x", "1"), "rm", "a hash for these"),
    ("reserved", "set", ("text",), "s", "text for a reservation"),
    ("reserved", "hset", ("until", "later"), "s", "a time that is no number"),
    ("reserved", "hset", ("debits", "many"), "s", "a count that is no number"),
    ("reserved", "hset", ("debits", "3"), "s", "a debit that is missing"),
    ("reserved", "hset", ("1", "5"), "s", "a debit without a bucket"),
    ("reserved", "hset", ("1", "-5 00:usd_cents"), "s", "a negative debit"),
    ("reserved", "hset", ("2", "x"), "s", "the second debit alone"),
    ("replay", "set", ("text",), "a", "a floor of another type"),
    ("replay", "hset", ("floor", "1e9"), "a", "a floor that is no number"),
    ("proofs", "set", ("text",), "a", "text for the proofs"),
    ("proofs", "sadd", ("x",), "a", "a plain set for the proofs"),
    ("overlay", "rpush", ("x",), "lwu", "a list for the snapshot"),
    ("overlay:deltas", "set", ("x",), "lwun", "text for the deltas"),
    ("overlay:state", "set", ("x",), "lwun", "text for what is known of them"),
]


@pytest.mark.parametrize("awaited", [False, True], ids=["", "awaited"])
@pytest.mark.parametrize(("key", "command", "values", "fails", "_"), VALKEY, ids=[f"{case[0]}: {case[4]}" for case in VALKEY])
def test_garbage_in_a_key_of_valkey_is_a_store_error(
    key: str, command: str, values: tuple[str, ...], fails: str, _: str, awaited: bool, valkey_server: Valkey
) -> None:
    """And nothing has changed: no bucket was debited, and nothing given back."""
    place = Place("valkey", str(valkey_server.port), os.urandom(8).hex(), awaited)
    replays, ledger, snapshots = place.replays(floor=0), place.ledger(floor=0), place.snapshots()
    other = bytes(15) + b"o"
    asked = debit(other, 5, 100), debit(BUCKET, 5, 10**6)
    assert ledger.reserve(reservation(1, *asked), NOW) is None and replays.add(Use(b"u" * 16, NOW), NOW)
    assert ledger.step(stepped(PRIVATE), NOW) is None
    name = f"{{{place.name}}}:" + {"bucket": f"spent:{BUCKET.hex()}:usd_cents", "mark": f"spent:{PRIVATE.bucket.hex()}:marks", "reserved": f"reserved:{reservation(1).id.hex()}"}.get(key, key)
    with closing(valkey_server.client()) as client:
        assert client.exists(name) or key.startswith("overlay")
        if key != "overlay" and key.startswith("overlay"):
            assert snapshots.publish(b"one", None) and snapshots.append(b"two", sha256(b"").digest(), bytes(32))
        if command != "hset" or key == "kept":
            client.delete(name)
        if command != "del":
            client.execute_command(command, name, *values)
        before = {found: client.dump(found) for found in client.keys(f"{{{place.name}}}*")}
        calls: dict[str, Callable[[], Any]] = {
            "r": lambda: ledger.reserve(reservation(2, *asked), NOW),
            "s": lambda: ledger.settle(reservation(1).id, {}, NOW),
            "p": lambda: ledger.spent(BUCKET, "usd_cents"),
            "a": lambda: replays.add(Use(b"v" * 16, NOW), NOW),
            "l": snapshots.load,
            "w": lambda: snapshots.publish(b"x", None),
            "u": lambda: snapshots.publish(b"x", b"one\ntwo"),
            "n": lambda: snapshots.append(b"x", bytes(32), bytes(32)),
            "m": lambda: ledger.step(CLOSED, NOW),
            "M": lambda: ledger.peek_step(CLOSED, NOW),
            "R": lambda: ledger.peek(reservation(2, *asked), NOW),
            "A": lambda: replays.peek(Use(b"v" * 16, NOW), NOW),
        }
        for call in fails + fails.translate(LOOKS):
            with pytest.raises(StoreError, match=r"^Valkey: "):
                calls[call]()
        assert {found: client.dump(found) for found in client.keys(f"{{{place.name}}}*")} == before
    if command == "del":
        with pytest.raises(StoreError, match="no store here: create makes one"):
            calls["r"]()
    if "a" in fails:
        assert said("replays", replays) == "store_unavailable"
    if "l" in fails:
        assert said("snapshots", snapshots) == "stale_overlay"


# A `reserve` that says what it never says: of two debits, the third is short.
ANSWERS = """
    create or replace function {0}.reserve(
        its_id bytea, its_links bytea[], its_units text[], limits bigint[], its_amounts bigint[],
        issued bigint, its_until bigint, its_keep bigint, its_tree text, leeway bigint, its_kid text, told bigint, ahead bigint,
        clock bigint, seen text
    ) returns integer language sql"""
STEPS = """
    create or replace function {0}.step(
        its_id bytea, its_links bytea[], its_units text[], limits bigint[], its_amounts bigint[],
        its_until bigint, its_keep bigint, its_marks bytea[], keeps bigint[], of_holder boolean[],
        own integer, its_rules text[], its_said bytea, issued bigint, its_tree text, leeway bigint,
        its_kid text, told bigint, ahead bigint, clock bigint, seen text
    ) returns bytea[] language sql"""
NO_ANSWERS = (
    "null::bytea[]", "array[]::bytea[]", "array['1'::bytea]", "array['-3'::bytea]", "array['2002'::bytea]", "array['x'::bytea]", "array[''::bytea]",
    "array['1'::bytea, '', '']", "array['0'::bytea, '', '']", "array['0'::bytea, 'x y']", "array['-1'::bytea, '5 y']", "array[null::bytea, '5 y']",
)
POSTGRES = [
    ("drop table {0}.marks", "reserve step set"),
    ("alter table {0}.marks drop column said", "step set"),
    ("alter table {0}.marks drop column keep", "reserve step set"),
    ("alter table {0}.marks drop constraint marks_pkey", "set"),
    ("alter function {0}.step rename to stride", "step set"),
    *((STEPS + f" as $$ select {answer} $$", "step") for answer in NO_ANSWERS),
    ("drop table {0}.buckets", "reserve settle spent"),
    ("drop table {0}.reservations", "reserve settle"),
    ("drop table {0}.floors", "reserve step set add start join end hear open"),
    ("drop table {0}.proofs", "add"),
    ("drop table {0}.overlay", "load"),
    ("drop schema {0} cascade", "reserve settle step set spent add load start join end hear live due said heard open"),
    ("alter table {0}.buckets drop constraint buckets_spent_check, alter spent type bytea using 'many'", "reserve settle spent"),
    ("alter table {0}.buckets drop column keep", "reserve"),
    ("update {0}.buckets set spent = 0", "settle"),
    ("alter table {0}.reservations alter amounts type text[] using '{{many}}'", "settle"),
    ("alter table {0}.reservations drop constraint reservations_pkey", "reserve"),
    ("alter table {0}.proofs drop constraint proofs_pkey", "add"),
    ("alter table {0}.overlay drop column snapshot", "load"),
    ("drop function {0}.ready", "reserve settle step set add start join end hear open"),
    ("create or replace function {0}.ready() returns void language plpgsql as $$ begin raise disk_full; end $$", "reserve settle step set add start join end hear open"),
    ("delete from {0}.floors", "reserve step set add start join end hear open"),
    ("alter table {0}.registry_tasks drop column deadline", "start join live end due"),
    ("alter function {0}.add rename to subtract", "add"),
    *((ANSWERS + f" as 'select {answer}'", "reserve") for answer in ("3", "-3", "1000", "1003", "null::integer")),
]

# A registry has the same tables in a file and on a server.
REGISTRY = [
    ("drop table {0}.registry_state", "start join end hear open"),
    ("delete from {0}.registry_state", "start join end hear open"),
    ("drop table {0}.registry_used", "start join"),
    ("drop table {0}.registry_tasks", "start join live end due"),
    ("drop table {0}.registry_taken", "start join end"),
    ("drop table {0}.registry_voids", "start join end"),
    ("drop table {0}.registry_heard", "end hear"),
    ("drop table {0}.registry_streams", "end hear heard"),
    ("drop table {0}.registry_changes", "end due said"),
]

# Where these fail, so does the look of the same store.
WITH_LOOK = {"reserve": "look", "step": "look at a step", "add": "peek"}


def check_damaged(place: Place, subjects: list[Subject], fails: str, where: str) -> None:
    """These calls fail, by a StoreError of that server. Whoever rests on a store that cannot answer is denied."""
    calls = {name: call for one in subjects for name, call in one.calls().items()}
    if Tasks in subjects_of(place):
        calls["open"] = lambda: place.opened_as_it_is("registry")
    told = [name for name in fails.split() if name in calls]
    for name in (*told, *(WITH_LOOK[name] for name in told if name in WITH_LOOK)):
        with pytest.raises(StoreError, match=where):
            calls[name]()
    for one in subjects:
        if {"add", "reserve", "load", "start"} & one.calls().keys() & set(told):
            assert one.code() == one.denied and not one.is_more()


# No registry is awaited.
DAMAGED = [*((*one, awaited) for one, awaited in product(POSTGRES, (False, True))), *((*one, False) for one in REGISTRY)]


@pytest.mark.parametrize(("damage", "fails", "awaited"), DAMAGED)
def test_damaged_tables_of_postgres_are_a_store_error(damage: str, fails: str, awaited: bool, postgres_server: Postgres) -> None:
    """A disk that is full is one of them. And nothing has changed."""
    place = Place("postgres", postgres_server.conninfo, f"t{os.urandom(8).hex()}", awaited)
    subjects = taken(place)
    with psycopg.connect(place.where, autocommit=True) as connection:
        connection.execute(damage.format(place.name).encode())
    check_damaged(place, subjects, fails, r"^PostgreSQL: ")
    if "spent" not in fails:
        with psycopg.connect(place.where) as connection:
            kept = connection.execute(f"select spent from {place.name}.buckets order by link".encode()).fetchall()
        assert kept == [(0,), (0,)] if "set spent" in damage else [(5,), (5,)]


SQLITE = [
    ("drop table marks", "reserve settle step set"),
    ("drop table buckets", "reserve settle spent step set"),
    ("drop table reservations", "reserve settle set"),
    ("drop table ledger_state", "reserve step set"),
    ("delete from ledger_state", "reserve step set"),
    ("drop table proofs", "add"),
    ("delete from proof_state", "add"),
    ("drop table overlay", "load"),
    ("update reservations set debits = x'c1'", "settle"),
    ("update reservations set debits = x'93010203'", "settle"),
    ("update reservations set debits = null", "settle"),
]


@pytest.mark.parametrize(("damage", "fails"), SQLITE + REGISTRY)
def test_damaged_tables_of_sqlite_are_a_store_error(damage: str, fails: str, tmp_path: Path) -> None:
    place = Place("sqlite", str(tmp_path / "stores.db"))
    subjects = taken(place)
    with closing(sqlite3.connect(place.overlay if "overlay" in damage else place.where)) as connection, connection:
        connection.execute(damage.replace("{0}.", ""))
    # A file is not asked for what it has when it is opened, but for whether it is there.
    check_damaged(place, subjects, fails if "drop table {0}.registry_state" in damage else fails.replace(" open", ""), r"^SQLite(: | '.*': )")


@pytest.mark.parametrize("kind", KINDS, indirect=True)
@pytest.mark.parametrize("data", [b"", b"garbage", b"\xff" * 200, b"{}." + b"A" * 86], ids=repr)
def test_a_snapshot_that_is_garbage_denies_all(data: bytes, kind: Kind) -> None:
    """It lies in a place that needs no trust."""
    store = kind.place.snapshots()
    assert store.publish(data, None) is True
    assert said("snapshots", store) == "stale_overlay"


# --- kill -9, again and again ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fresh() -> Any:
    """Processes that start quickly: forks of one that has nothing but the code."""
    return starts_fresh("tests.stores.processes")


@pytest.mark.parametrize("by_deltas", [False, True], ids=["whole", "by deltas"])
@pytest.mark.parametrize("rounds", [kills(200)])
def test_kill_9_again_and_again_loses_no_revocation_that_sqlite_acknowledged(
    fresh: Any, rounds: int, by_deltas: bool, tmp_path: Path
) -> None:
    """A process revokes token after token and is killed in the midst of it; the file is opened again: each one stands, and
    whoever knew the snapshot before is led to it."""
    place, acknowledged, known = Place("sqlite", str(tmp_path / "stores.db")), 0, None
    for number in range(rounds):
        told = killed(fresh, processes.publish, 1 + number % 3, place, bytes(range(32)), by_deltas)
        acknowledged += len(told)
        store = place.snapshots()
        newest = Overlay.open(store.load() or b"", [KEY.public])
        if by_deltas and known is not None:
            deltas = store.since(known.digest)
            assert deltas and known.follow(deltas, [KEY.public]).digest == newest.digest
        known = newest
        assert {entry.id for entry in newest.entries} >= set(told) and newest.seq == len(newest.entries)
        if newest.seq > 50:  # a new file: a snapshot has all entries, and grows
            place, known = Place("sqlite", str(tmp_path / f"stores-{number}.db")), None
        close_all()
    assert acknowledged >= rounds


@pytest.mark.parametrize("rounds", [kills(40)])
def test_kill_9_gives_nobody_more_than_the_sqlite_ledger_has(fresh: Any, rounds: int, tmp_path: Path) -> None:
    """A process that reserves is killed: every answer is on record, and at most one more."""
    place = Place("sqlite", str(tmp_path / "stores.db"))
    asked, known = Debit(BUCKET, "usd_cents", 10**9, 1), 0
    for number in range(rounds):
        told = killed(fresh, processes.reserve, 3, place, asked, number)
        ledger = place.ledger(floor=0)
        (now,) = spent(ledger, BUCKET)
        assert len(told) <= now - known <= len(told) + 1
        known = now
        close_all()


@pytest.mark.parametrize("rounds", [kills(40)])
def test_kill_9_loses_no_mark_that_the_sqlite_ledger_acknowledged(fresh: Any, rounds: int, tmp_path: Path) -> None:
    """A process that sets marks is killed: every answer is on record, with its debit; and of one more both or neither."""
    place = Place("sqlite", str(tmp_path / "stores.db"))
    for seed in range(rounds):
        told = killed(fresh, processes.mark, 1 + seed % 3, place, seed)
        ledger = place.ledger(floor=0)
        several = [*told, seed.to_bytes(8, "big") + len(told).to_bytes(8, "big")]
        found = [(is_set(ledger, Mark(its * 2, None, False)), ledger.spent(its, "eur")) for its in several]
        assert found[:-1] == [(True, 1)] * len(told) and found[-1] in ((True, 1), (False, 0))
        close_all()


@pytest.mark.parametrize(("server", "rounds", "fsync"), [("valkey", kills(60), "always"), ("valkey", kills(4), "everysec"), ("postgres", kills(40), "")])
def test_kill_9_of_the_server_loses_no_revocation_that_was_acknowledged(server: str, rounds: int, fsync: str) -> None:
    """While an operator revokes token after token, the server is killed and started again; each one that was acknowledged
    stands. With `everysec` the acknowledgement waits for the second to be over."""
    made = Valkey(appendfsync=fsync) if fsync else Postgres()
    store, acknowledged = at(made).snapshots(), [0]
    try:
        for _ in range(rounds):
            told: list[str] = []
            first, over = Event(), Event()
            operator = Operator(KEY, store, by="operator")

            def revoke(operator: Operator = operator, told: list[str] = told, first: Event = first, over: Event = over) -> None:
                while not over.is_set():
                    try:
                        told.append(operator.revoke(subject="user:jane", why="test").id)
                    except StoreError:
                        return
                    first.set()

            with ThreadPoolExecutor(1) as pool:
                running = pool.submit(revoke)
                assert first.wait(processes.WAIT)
                made.kill()
                running.result(timeout=processes.WAIT)
            made.start()
            newest = Overlay.open(store.load() or b"", [KEY.public])
            stands = {entry.id for entry in newest.entries}
            assert stands >= set(told) and told and newest.seq >= acknowledged[-1] + len(told)
            acknowledged.append(newest.seq)
            while newest.entries and len(newest.entries) > 20:
                operator.lift(newest.entries[0].id)
                newest = Overlay.open(store.load() or b"", [KEY.public])
                acknowledged.append(newest.seq)
    finally:
        made.stop()
