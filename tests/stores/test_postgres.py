"""The stores on PostgreSQL: what the database must be like, when the floor rises, locks and connections. What they share with
the other stores is in the suite."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.rows import dict_row

from captoken.errors import StoreError
from captoken.stores import postgres as postgres_store
from captoken.stores.ports import KEPT, Debit, Use
from captoken.stores.postgres import (
    PostgresLedger,
    PostgresReplayStore,
    PostgresSnapshots,
    create_tables,
    setup,
)
from tests.fixtures import NOW
from tests.stores.begun import begun
from tests.stores.places import Place
from tests.stores.servers import Postgres
from tests.stores.test_ledger import CHILD, ROOT, debit, reservation, spent
from tests.stores.test_replay_store import use

EVERY: list[Any] = [PostgresReplayStore, PostgresLedger, PostgresSnapshots]
COUNTING: list[Any] = [PostgresReplayStore, PostgresLedger]


@pytest.fixture
def own() -> Iterator[Postgres]:
    """A server of the test's own."""
    server = Postgres()
    yield server
    server.stop()


@pytest.fixture
def place(postgres_server: Postgres) -> Place:
    """A schema of the test's own."""
    name = f"t{os.urandom(8).hex()}"
    with psycopg.connect(postgres_server.conninfo) as connection:
        create_tables(connection, schema=name)
    return Place("postgres", postgres_server.conninfo, name)


@pytest.fixture
def admin(place: Place) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(place.where, autocommit=True) as connection:
        connection.execute(f"set search_path = {place.name}".encode())
        yield connection


# A store waits for a lock for five seconds, unless its login says otherwise. A test in which something happens to a call
# *while* it waits must not depend on that: first another connection has to see it wait, then it must be struck, and a busy
# machine may take longer for both. The call would then end by itself, with LockNotAvailable, and what was meant for it
# strike whatever comes next. So these calls wait for longer than anybody looks for them.
PATIENT, LOOKING = "lock_timeout=120s", 60


def patient(place: Place) -> Place:
    """The same place, for a login that waits for locks as good as for ever."""
    return place._replace(where=f"{place.where} options='-c {PATIENT}'")


def until_it_waits(admin: psycopg.Connection[Any], backend: int) -> None:
    """Until this backend waits for a lock. It is an error if it never does."""
    ask, end = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and pid = %s", monotonic() + LOOKING
    while admin.execute(ask, (backend,)).fetchone() == (0,):
        assert monotonic() < end, "it does not wait for a lock"


# --- tables ----------------------------------------------------------------------------------------------------------


def test_tables_are_made_once_and_again(place: Place, admin: psycopg.Connection[Any]) -> None:
    """By many at the same time, by a connection that does not commit by itself; and what is in them stays."""
    assert place.ledger(floor=0).reserve(reservation(1), NOW) is None

    def make(_: int) -> None:
        with psycopg.connect(place.where, autocommit=bool(_ % 2)) as connection:
            create_tables(connection, schema=place.name)
            create_tables(connection, schema=place.name + "_other")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(8)))
    assert place.ledger(floor=NOW).reserve(reservation(2), NOW) is None
    names = admin.execute("select schemaname from pg_tables where tablename = 'buckets' and schemaname ~ %s", (place.name,)).fetchall()
    assert len(names) == 2
    assert "captoken." not in setup("other") and "captoken." in setup()


@pytest.mark.parametrize("store", EVERY)
def test_without_tables_it_says_what_makes_them(store: Any, postgres_server: Postgres) -> None:
    """A store makes none by itself: a new one would know nothing."""
    with pytest.raises(StoreError, match="create_tables makes what is missing"):  # noqa: SIM117
        with closing(store(postgres_server.conninfo, schema="nowhere")) as made:
            made.load()


@pytest.mark.parametrize("schema", ["", "A", "a-b", "a.b", 'a"', "pg_x", "1a", "a; drop table x", "é", "a" * 64, None])
def test_a_schema_is_a_plain_name(schema: Any, postgres_server: Postgres) -> None:
    for store in EVERY:
        with pytest.raises(ValueError, match="schema"):
            store(postgres_server.conninfo, schema=schema)


@pytest.mark.parametrize("floor", [-1, 1.5, "0", 2**53, True])
@pytest.mark.parametrize("store", COUNTING)
def test_a_floor_is_an_int(store: Any, floor: Any, postgres_server: Postgres) -> None:
    with pytest.raises(ValueError, match="floor"):
        store.create(postgres_server.conninfo, floor=floor)


def test_a_login_that_may_do_little_will_do(place: Place, admin: psycopg.Connection[Any]) -> None:
    """Usage of the schema, and the rows of its tables: no more is needed."""
    name = f"app_{place.name}"
    admin.execute(f"create role {name} login".encode())
    where = place.where.replace("user=postgres", f"user={name}")
    for store in EVERY:
        with pytest.raises(StoreError, match=r"42501"), closing(store(where, schema=place.name)) as made:
            made.load()
    with psycopg.connect(where) as connection, pytest.raises(StoreError, match="42501"):
        create_tables(connection, schema="nowhere")
    admin.execute(f"grant usage on schema {place.name} to {name}".encode())
    admin.execute(f"grant select, insert, update, delete on all tables in schema {place.name} to {name}".encode())
    with closing(begun(PostgresLedger, where, schema=place.name)) as ledger:
        assert ledger.reserve(reservation(1), NOW) is None and ledger.settle(reservation(1).id, {}, NOW)
    with closing(begun(PostgresReplayStore, where, schema=place.name)) as replays:
        assert replays.add(Use(bytes(16), NOW), NOW)
    with closing(begun(PostgresSnapshots, where, schema=place.name)) as snapshots:
        assert snapshots.publish(b"one", None) and snapshots.load() == b"one"


# --- what the database must be like ----------------------------------------------------------------------------------


def test_a_server_that_does_not_wait_for_the_disk_is_refused(own: Postgres) -> None:
    with psycopg.connect(own.conninfo, autocommit=True) as connection:
        create_tables(connection)
        connection.execute("alter system set fsync = off")
        connection.execute("select pg_reload_conf()")
        while connection.execute("show fsync").fetchone() != ("off",):
            pass
    for store in EVERY:
        with pytest.raises(StoreError, match="fsync"):
            store(own.conninfo)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_what_was_committed_before_must_be_seen(place: Place, level: str) -> None:
    """Where transactions see an older state, all is refused: it could be one from before a proof was used."""
    where = f"{place.where} options='-c default_transaction_isolation={level.replace(' ', chr(92) + chr(92) + ' ')}'"
    for store in COUNTING:
        with pytest.raises(StoreError, match="default_transaction_isolation must be read committed"):
            store(where, schema=place.name)
    place.snapshots()
    with closing(PostgresSnapshots(where, schema=place.name)) as snapshots, pytest.raises(StoreError, match="read committed"):
        snapshots.publish(b"one", None)


def test_a_commit_is_waited_for_whatever_the_login_says(place: Place, admin: psycopg.Connection[Any]) -> None:
    """`synchronous_commit` off would lose the last second; what else was chosen is left."""
    for said, then in (("off", "on"), ("on", "on"), ("local", "local"), ("remote_apply", "remote_apply")):
        admin.execute(f"set synchronous_commit = {said}".encode())
        with admin.transaction():
            admin.execute("select ready()")
            assert admin.execute("show synchronous_commit").fetchone() == (then,)
        assert admin.execute("show synchronous_commit").fetchone() == (said,)


# --- the floor -------------------------------------------------------------------------------------------------------


def counts(ledger: PostgresLedger, number: int, at: int) -> bool:
    """Does it count a token that was issued then?"""
    try:
        return ledger.reserve(reservation(number, at=at, keep=None), at) is None
    except StoreError as error:
        assert "before this ledger began" in str(error)
        return False


def test_the_floor_is_the_servers_time_and_a_minute(
    place: Place, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five seconds for proofs; by the server's clock, or by the caller's where that one is ahead. Where the row is gone all is
    refused, until the store is made again: so whoever has restored a backup can say so."""
    replays, ledger = place.replays(), place.ledger()
    floors = dict(admin.execute("select kind, floor from floors").fetchall())
    (began,) = admin.execute("select floor(extract(epoch from now()))::bigint").fetchone() or (0,)
    assert began - 2 <= floors["ledger"] - 60 <= began and began - 2 <= floors["replay"] - 5 <= began
    admin.execute("delete from floors")
    asks: tuple[Callable[[], Any], ...] = (
        lambda: ledger.reserve(reservation(1, at=began + 1000), began + 1000),
        lambda: replays.add(Use(bytes(16), began + 1005), began + 1000),
        lambda: place.opened("ledger"),
        lambda: place.opened("replays"),
    )
    for ask in asks:
        with pytest.raises(StoreError, match="there is no store here: create makes one"):
            ask()
    assert admin.execute("select from floors").fetchall() == []
    monkeypatch.setattr(postgres_store, "time", lambda: began + 2000.5)
    place.created("ledger"), place.created("replays")
    assert dict(admin.execute("select kind, floor from floors").fetchall()) == {"ledger": began + 2060, "replay": began + 2005}
    assert not counts(ledger, 1, began + 1000) and not replays.add(Use(bytes(16), began + 1005), began + 1000)


def test_a_standby_that_takes_over_raises_the_floor(own: Postgres) -> None:
    """It may lack the last transactions: its timeline is another one. Not where it is said aloud that it lacks none."""
    with psycopg.connect(own.conninfo) as connection:
        create_tables(connection)
        create_tables(connection, schema="sure")
    now = NOW
    ledger, sure = begun(PostgresLedger, own.conninfo), begun(PostgresLedger, own.conninfo, schema="sure", lossless=True)
    replays = begun(PostgresReplayStore, own.conninfo)
    with closing(ledger), closing(sure), closing(replays):
        assert counts(ledger, 1, now) and counts(sure, 1, now) and replays.add(Use(b"u" * 16, now), now)
        own.kill()
        own.start()
        assert counts(ledger, 2, now), "a crash loses nothing, and is the same timeline"
        own.kill()
        Path(own.folder, "standby.signal").touch()
        own.start()
        with pytest.raises(StoreError, match=r"55000|25006"):
            ledger.reserve(reservation(3), now)
        with psycopg.connect(own.conninfo, autocommit=True) as connection:
            assert connection.execute("select pg_promote()").fetchone() == (True,)
        assert not counts(ledger, 3, now) and not replays.add(Use(b"v" * 16, now), now) and counts(sure, 3, now)
        assert counts(ledger, 4, 2**40) and spent(ledger, ROOT) == [3]


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_what_has_run_out_is_swept_away(place: Place, admin: psycopg.Connection[Any]) -> None:
    """By one reservation in sixteen; where both clocks agree that it has; and not what another transaction holds."""
    ledger = place.ledger(floor=0)
    for number in range(20):
        assert ledger.reserve(reservation(2**124 + number, debit(bytes([number]) * 16), keep=NOW), NOW) is None
    many = "select (select count(*) from reservations), (select count(*) from buckets)"
    assert ledger.reserve(reservation(255 * 2**120, debit(b"k" * 16)), NOW + KEPT) is None
    assert admin.execute(many).fetchone() == (21, 21)
    with psycopg.connect(place.where) as other:
        other.execute(f"select from {place.name}.buckets where link = %s for update".encode(), (bytes(16),))
        other.execute(f"select from {place.name}.reservations where id = %s for update".encode(), (reservation(2**124).id,))
        assert ledger.reserve(reservation(1, debit(b"k" * 16)), NOW + KEPT) is None
        assert admin.execute(many).fetchone() == (1, 2)
    assert ledger.reserve(reservation(2, debit(b"k" * 16)), NOW + KEPT) is None
    assert admin.execute(many).fetchone() == (0, 1)
    (real,) = admin.execute("select floor(extract(epoch from now()))::bigint").fetchone() or (0,)
    assert ledger.reserve(reservation(3, debit(ROOT), keep=real), real) is None
    assert ledger.reserve(reservation(4, debit(b"k" * 16)), real + 10**6) is None and spent(ledger, ROOT) == [1]


def test_rows_are_found_by_an_index_also_where_the_plan_was_made_for_an_empty_table(place: Place, admin: psycopg.Connection[Any]) -> None:
    """Else each call reads all that is kept, until the server takes its next statistics: it is slower the more is counted."""
    ledger, replays = place.ledger(floor=0), place.replays(floor=0)
    tables = ("buckets", "proofs", "reservations")

    def counted(what: LiteralString) -> dict[str, int]:
        """By table, once the server has counted each: it does so when a connection ends."""
        found: dict[str, int] = {}
        while found.keys() != set(tables):
            read = f"select relname, seq_scan from pg_stat_user_tables where schemaname = %s and relname = any(%s) and {what} > 0"
            found = dict(admin.execute(read, (place.name, list(tables))).fetchall())
        return found

    assert counted("seq_scan"), "their indexes were made"
    for table in tables:
        admin.execute("select pg_stat_reset_single_table_counters(%s::regclass)", (f"{place.name}.{table}",))
    for number in range(30):
        one = reservation(number, debit(amount=1, limit=10**6), debit(number.to_bytes(16, "big")))  # each sweeps
        assert ledger.peek(one, NOW) is None and ledger.reserve(one, NOW) is None
        assert ledger.settle(one.id, {}, NOW) is True and ledger.spent(ROOT, "usd_cents") == 0
        assert replays.peek(use(number), NOW) is replays.add(use(number), NOW) is True
    ledger.close(), replays.close()
    assert counted("idx_scan") == dict.fromkeys(tables, 0)


@pytest.mark.parametrize("unit", ['"', '","', "\\", '\\"', "{", "}", ",", "{1,2}", "NULL", "null", "", " ", " a ", "'", "%s", "é", "\U0001f600"])
def test_a_unit_is_written_as_it_is(place: Place, unit: str) -> None:
    """Whatever the server would read as something else; settled by that name, and beside another one."""
    ledger = place.ledger(floor=0)
    assert ledger.reserve(reservation(1, debit(amount=5, unit=unit), debit(CHILD, 3)), NOW) is None
    assert ledger.settle(reservation(1).id, {unit: 2, "usd_cents": 1}, NOW) is True
    assert ledger.spent(ROOT, unit) == 2 and spent(ledger, ROOT, CHILD) == [0, 1]


def test_proofs_that_are_too_old_are_swept_away(place: Place, admin: psycopg.Connection[Any]) -> None:
    store = place.replays(floor=0)
    for second in range(200):
        assert store.add(Use(second.to_bytes(16, "big"), NOW + second), NOW + second)
    assert admin.execute("select count(*) from proofs").fetchone() == (31,)


def test_no_amount_gives_back_more_than_was_reserved(place: Place) -> None:
    """Not a negative one either, which no grant passes on."""
    ledger = place.ledger(floor=0)
    assert ledger.reserve(reservation(1, debit(amount=5)), NOW) is None and ledger.reserve(reservation(2, debit(amount=5)), NOW) is None
    assert ledger.settle(reservation(1).id, {"usd_cents": -3}, NOW) is True and spent(ledger, ROOT) == [5]


# --- locks -----------------------------------------------------------------------------------------------------------


def test_a_bucket_that_is_forgotten_at_that_moment_is_not_begun_anew(place: Place, admin: psycopg.Connection[Any]) -> None:
    """While another connection, whose clock is far ahead, deletes it: whoever waited for the row is told, and debits nothing.
    Whoever has not enough by what was committed before need not wait."""
    ledger = place.ledger(floor=0)
    assert ledger.reserve(reservation(1, debit(amount=4)), NOW) is None
    with psycopg.connect(place.where) as ahead, ThreadPoolExecutor(1) as pool:
        ahead.execute(f"select {place.name}.sweep({NOW + 600 + KEPT})".encode())
        assert ledger.reserve(reservation(2, debit(amount=7)), NOW) == debit(amount=7)
        waiting = pool.submit(ledger.reserve, reservation(2, debit(amount=6)), NOW)
        with pytest.raises(TimeoutError):
            waiting.result(0.5)
        ahead.commit()
        with pytest.raises(StoreError, match="this clock is behind"):
            waiting.result(30)
    assert spent(ledger, ROOT) == [0] and admin.execute("select count(*) from reservations where open").fetchone() == (0,)


def test_nobody_waits_for_each_other_for_ever(place: Place) -> None:
    """Eight connections, two hundred random reservations each in one tree, settled in any order: none is a deadlock."""

    def run(who: int) -> int:
        ledger, rng, total, open_ = ledgers[who], random.Random(who), 0, []
        for number in range(200):
            chain = [ROOT, bytes([10 + rng.randrange(2)]) * 16, bytes([20 + rng.randrange(3)]) * 16][: rng.randint(1, 3)]
            asked = [Debit(bucket, unit, 10**6, 1) for bucket in chain for unit in ("usd", "uses")]
            one = reservation(rng.randrange(16) * 2**124 + who * 1000 + number, *asked, until=NOW + rng.randint(0, 60))
            assert ledger.reserve(one, NOW) is None
            open_.append(one)
            if rng.random() < 0.5:
                done = open_.pop(rng.randrange(len(open_)))
                total += ledger.settle(done.id, {"usd": 0}, NOW)
        return 200 - total

    ledgers = [place.ledger(floor=0) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(run, range(8))) == ledgers[0].spent(ROOT, "usd") == ledgers[0].spent(ROOT, "uses")


def test_a_lock_that_another_holds_is_not_waited_for_for_ever(place: Place, admin: psycopg.Connection[Any]) -> None:
    """Five seconds, or what the login says. It denies, and nothing is debited: neither above nor below."""
    ledger = begun(PostgresLedger, f"{place.where} options='-c lock_timeout=20'", schema=place.name)
    with closing(ledger), psycopg.connect(place.where) as other:
        assert ledger.reserve(reservation(1, debit(), debit(CHILD)), NOW) is None
        other.execute(f"select from {place.name}.buckets where link = %s for update".encode(), (CHILD,))
        for call in (lambda: ledger.reserve(reservation(2, debit(), debit(CHILD)), NOW), lambda: ledger.settle(reservation(1).id, {}, NOW)):
            with pytest.raises(StoreError, match="LockNotAvailable"):
                call()
        other.rollback()
        assert spent(ledger, ROOT, CHILD) == [1, 1]
        assert ledger.settle(reservation(1).id, {}, NOW) is True and ledger.reserve(reservation(2), NOW) is None
    with admin.transaction():
        admin.execute("select ready()")
        assert admin.execute("show lock_timeout").fetchone() == ("5s",)


def test_a_proof_that_is_being_forgotten_is_not_taken_again(place: Place) -> None:
    """One server raises the floor over a proof and forgets it; another one, that had read the old floor, waits and is told no."""
    slow, fast = psycopg.connect(place.where), patient(place).replays(floor=0)
    assert fast.add(Use(b"u" * 16, NOW), NOW) is True
    with slow, ThreadPoolExecutor(1) as pool:
        with slow.transaction():
            later = (b"v" * 16, NOW + 100, "k1", NOW + 100, NOW + 69, 5, None, None)
            assert slow.execute(f"select {place.name}.add(%s, %s, %s, %s, %s, %s, %s::bigint, %s::text)".encode(), later).fetchone() == (True,)
            waiting = pool.submit(fast.add, Use(b"u" * 16, NOW), NOW)
            with psycopg.connect(place.where, autocommit=True) as other:
                until_it_waits(other, pid(fast))
        assert waiting.result(timeout=30) is False


# --- connections -----------------------------------------------------------------------------------------------------


def pid(store: Any) -> int:
    return int(store._connection.info.backend_pid)


def test_a_connection_that_was_ended_by_the_server_is_made_anew(place: Place, admin: psycopg.Connection[Any]) -> None:
    """Once for a call, before anything is sent: each of the calls is done, and done once."""
    ledger = place.ledger(floor=0)
    for call, answer in (
        (lambda: ledger.reserve(reservation(1, debit(amount=3)), NOW), None),
        (lambda: ledger.settle(reservation(1).id, {"usd_cents": 1}, NOW), True),
        (lambda: ledger.spent(ROOT, "usd_cents"), 1),
    ):
        before = pid(ledger)
        admin.execute("select pg_terminate_backend(%s, 5000)", (before,))
        assert call() == answer and pid(ledger) != before


def test_a_reservation_whose_connection_breaks_is_asked_for_again(place: Place, admin: psycopg.Connection[Any]) -> None:
    """While it waits for a lock: it was not made, and is made now. A settlement is not sent twice."""
    ledger = patient(place).ledger(floor=0)
    assert ledger.reserve(reservation(1, debit(amount=1)), NOW) is None
    for call, again in ((lambda: ledger.reserve(reservation(2, debit(amount=3)), NOW), True), (lambda: ledger.settle(reservation(1).id, {}, NOW), False)):
        with psycopg.connect(place.where) as other, ThreadPoolExecutor(1) as pool:
            other.execute(f"select from {place.name}.buckets for update".encode())
            running, before = pool.submit(call), pid(ledger)
            until_it_waits(admin, before)
            admin.execute("select pg_terminate_backend(%s, 5000)", (before,))
            other.rollback()
            if again:
                assert running.result(timeout=30) is None
            else:
                with pytest.raises(StoreError, match="AdminShutdown"):
                    running.result(timeout=30)
    assert spent(ledger, ROOT) == [4] and ledger.settle(reservation(1).id, {}, NOW) is True and spent(ledger, ROOT) == [3]


def test_a_callable_gives_the_connection(place: Place) -> None:
    """With settings of its own: rows as dicts, no commit by itself. Called again when the connection is gone."""
    made: list[Any] = []

    def connect() -> Any:
        made.append(psycopg.connect(place.where, row_factory=dict_row, autocommit=False))
        return made[-1]

    place.ledger(floor=0)
    with closing(PostgresLedger(connect, schema=place.name)) as ledger:
        assert ledger.reserve(reservation(1), NOW) is None and len(made) == 1
        made[0].close()
        assert spent(ledger, ROOT) == [1] and len(made) == 2
        made[1].autocommit = False
        made[1].execute("select 1")  # somebody else's transaction: what is done in it might be rolled back
        assert ledger.reserve(reservation(2), NOW) is None and len(made) == 3 and made[1].closed
    assert all(connection.closed for connection in made)
    assert ledger.reserve(reservation(3), NOW) is None, "a store that was closed opens again"
    ledger.close()


@pytest.mark.parametrize("answer", [None, "connection", 5])
def test_a_callable_that_gives_something_else_is_a_store_error(answer: Any) -> None:
    with pytest.raises(StoreError, match="expected a connection"):
        PostgresLedger(lambda: answer)


def test_a_callable_that_raises_is_a_store_error() -> None:
    """Whatever it raises, and without what it says."""

    def connect() -> Any:
        raise RuntimeError("password")

    with pytest.raises(StoreError, match=r"^PostgreSQL: RuntimeError$"):
        PostgresLedger(connect)


@pytest.mark.parametrize("where", ["host=127.0.0.1 port=1 user=jane password=secret", "postgresql://jane:secret@127.0.0.1:1/x", "jane secret", "postgresql://jane:secret@["])
@pytest.mark.parametrize("store", EVERY)
def test_no_error_shows_a_connection_string(store: Any, where: str) -> None:
    """Nor does the error that was caught hang on it, nor does the store's repr."""
    with pytest.raises(StoreError, match=r"^PostgreSQL: \w+(: the server cannot be reached, or has hung up)?$") as caught:
        store(where)
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert "secret" not in "".join(traceback.format_exception_only(caught.value))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Control-C interrupts here, also where whoever started the tests ignores it, as a shell does for what runs behind it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_leaves_no_half_of_an_answer(place: Place, admin: psycopg.Connection[Any]) -> None:
    """Control-C while it waits: the connection is given up, the next call has its own answer, and nothing was debited twice."""
    ledger = patient(place).ledger(floor=0)
    assert ledger.reserve(reservation(1, debit(amount=2)), NOW) is None and repr(ledger) == f"<PostgresLedger {place.name}>"
    with psycopg.connect(place.where) as other:
        other.execute(f"select from {place.name}.buckets for update".encode())
        before = pid(ledger)

        def interrupt() -> None:
            until_it_waits(admin, before)
            signal.raise_signal(signal.SIGINT)

        with ThreadPoolExecutor(1) as pool:
            interrupted = pool.submit(interrupt)
            try:
                with pytest.raises(KeyboardInterrupt):
                    ledger.reserve(reservation(2, debit(amount=3)), NOW)
            finally:
                interrupted.result()  # what went wrong there is why it was not interrupted
    assert spent(ledger, ROOT) in ([2], [5]) and pid(ledger) != before
    assert ledger.reserve(reservation(2, debit(amount=3)), NOW) is None and spent(ledger, ROOT) == [5]


FORKED = """
import os, sys, warnings
from captoken.stores import postgres as postgres_store
from captoken.stores.postgres import PostgresReplayStore
from captoken.stores.ports import Use
def use(number): return Use(number.to_bytes(16, "big"), 1000)
store = PostgresReplayStore.create(sys.argv[1], schema=sys.argv[2], floor=0)
assert store.add(use(1), 1000)
store._lock.acquire()  # as another thread of the parent's might hold it at that moment
for number, ending in ((10, os._exit), (20, sys.exit)):
    child = os.fork()
    if child == 0:
        assert store.add(use(1), 1000) is False and store.add(use(number), 1000) is True
        store.close()
        assert store.add(use(number), 1000) is False
        store.close()
        warnings.simplefilter("ignore")  # the parent's connection is left alone, and lives on there
        ending(0)
    assert os.waitpid(child, 0)[1] == 0
store._lock.release()
assert [store.add(use(number), 1000) for number in (1, 10, 20, 30)] == [False, False, False, True]
store.close()
"""


def test_a_fork_leaves_both_sides_whole(place: Place) -> None:
    """The child connects anew, a lock held at the fork is not waited for, and neither way of ending harms the parent."""
    command = [sys.executable, "-W", "error", "-c", FORKED, place.where, place.name]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
