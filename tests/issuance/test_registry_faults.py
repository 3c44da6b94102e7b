"""What crashes, full disks and servers that are set back do to a registry: an error, and nothing was started.

What is done to every kind of store alike is done to a registry in `tests/stores/test_faults.py`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event
from time import time
from typing import Any

import psycopg
import pytest

from captoken.errors import StoreError
from captoken.issuance.registry.postgres import WITH_REGISTRY, PostgresRegistry
from captoken.issuance.registry.sqlite import SQLiteRegistry
from captoken.stores.postgres import create_tables, setup
from tests.fixtures import NOW
from tests.issuance import registries
from tests.issuance.registries import WAIT, Place, ending, entry, joining, said, seen
from tests.longer import kills
from tests.stores.killing import killed, starts_fresh
from tests.stores.servers import Postgres, Wire
from tests.stores.subjects import Tasks


def goes_on(registry: Any) -> None:
    """Nothing was started, and it does what it did."""
    assert registry.is_live("a", NOW) and not registry.is_live("b", NOW)
    assert said(registry, entry("b", seen(1, "other"))) == "invalid_grant"
    assert said(registry, entry("b", seen(2, "other"))) == "b", "the assertion was not used"


# --- a server ------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Postgres]:
    """One of the test's own, to be killed."""
    made = Postgres()
    yield made
    made.stop()


def test_54_a_server_that_is_gone_starts_nothing_until_it_is_back(server: Postgres) -> None:
    """Opened before, or opened now; with its data it goes on where it was, and without it is not there."""
    place = Place("postgres", server.conninfo, "p")
    registry = place.created()
    assert said(registry, entry("a", seen(1))) == "a"
    server.kill()
    for call in (*Tasks(registry).calls().values(), place.opened):
        with pytest.raises(StoreError) as caught:
            call()
        assert str(server.port) not in str(caught.value)
    server.start()
    goes_on(registry)
    goes = place.opened()
    assert not goes.unpublished() and goes.heard_at("signals") is None

    server.kill()
    server.wipe()
    server.start()
    for call in (*Tasks(registry).calls().values(), place.opened):
        with pytest.raises(StoreError):
            call()
    anew = place.created(floor=None, clock=lambda: NOW)
    assert said(anew, entry("b", seen(1), issued_at=NOW)) == said(registry, joining("a")) == "invalid_grant"
    assert not registry.is_live("a", NOW)


def test_a_database_that_was_set_back_takes_no_assertion_of_before(postgres_server: Postgres) -> None:
    """A standby that was promoted: what was answered last may be lost, a use or an end. With `lossless` that is denied aloud."""
    place = Place("postgres", postgres_server.conninfo, f"t{os.urandom(8).hex()}")
    registry = place.created()
    for task in ("a", "e"):
        assert said(registry, entry(task, seen(1))) == task
    (change,) = registry.end(ending(task="e"))
    with psycopg.connect(place.where) as connection:
        connection.execute(f"update {place.schema}.floors set timeline = '00000000'".encode())
    with closing(PostgresRegistry(place.where, schema=place.schema, lossless=True)) as lossless:
        assert said(lossless, entry("b", seen(1))) == "b" and lossless.is_live("a", NOW)
    assert not registry.is_live("a", NOW), "nobody knows whether it was ended"
    assert registry.unpublished() == (change,), "what is due stays so"
    for one in (registry, place.opened()):
        assert said(one, entry("c", seen(1))) == said(one, joining("a", seen(1))) == "invalid_grant"
        assert not one.is_live("a", NOW) and not one.is_live("b", NOW)
    late = int(time()) + 300
    assert said(registry, joining("a", now=late, issued_at=late)) == "invalid_grant"
    for later, told in ((0, "invalid_grant"), (30, "invalid_grant"), (300, "d")):
        at = int(time()) + later
        assert said(registry, entry("d", now=at, issued_at=at)) == told, "the floor is a minute ahead, as a clock may be"


class Losing(Wire):
    """One that loses the answer of a number, and the connection with it."""

    left = 0

    @property
    def _cut(self) -> bool:  # type: ignore[override]
        self.left -= 1
        return self.left == 0

    @_cut.setter
    def _cut(self, _: bool) -> None: ...


def test_whichever_answer_is_lost_all_of_it_was_written_or_nothing(postgres_server: Postgres) -> None:
    """Of each statement, and of the commit. Whoever asks is told that it failed, and may ask again with the same companions."""
    wire = Losing(postgres_server.port)
    place = Place("postgres", postgres_server.conninfo, f"t{os.urandom(8).hex()}")
    direct = place.created()
    through = place._replace(where=place.where.replace(str(postgres_server.port), str(wire.port))).opened()
    written = []
    for number in range(1, 100):
        task = f"t-{number}"
        assert not through.is_live(task, NOW)
        wire.left = number
        told = said(through, entry(task, seen(number), session=task))
        wire.left = 0
        written.append(direct.is_live(task, NOW))
        assert said(direct, entry(f"other-{number}", seen(number, "other"))) == ("invalid_grant" if written[-1] else f"other-{number}")
        assert len(direct.end(ending(session=task))) == written[-1]
        if told == task:
            break
        assert told == "store"
    assert written[-3:] == [False, True, True], "the answer to the commit, and then all of them"
    assert len(written) == 3, "two answers: to what is asked, and to what is written"
    through.close()
    wire.close()


# --- what lies there -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["start", "end", "hear"])
def test_54_a_disk_that_is_full_starts_nothing(call: str, tmp_path: Path) -> None:
    """Whatever is written; once there is room, it goes on."""
    place = Place("sqlite", str(tmp_path / "registry.db"))
    registry = place.created()
    assert said(registry, entry("a", seen(1))) == "a"
    assert registry._connection is not None
    (pages,) = registry._connection.execute("pragma page_count").fetchone()
    registry._connection.execute(f"pragma max_page_count = {pages}")
    large = "x" * 50_000
    full: dict[str, Callable[[], Any]] = {
        "start": lambda: registry.enter(entry(large, seen(3))),
        "end": lambda: registry.end(ending(session="s1", jti=large)),
        "hear": lambda: registry.hear("signals", large, NOW),
    }
    with pytest.raises(StoreError, match="full"):
        full[call]()
    assert not registry.is_live(large, NOW) and registry.heard_at("signals") is None
    goes_on(registry)
    registry._connection.execute(f"pragma max_page_count = {pages + 1000}")
    full[call]()


@pytest.mark.parametrize(
    "odd",
    [{"task": "\ud800"}, {"deadline": 2**63}, {"session": "s\udfff"}, {"grant": "\udead"}],
    ids=["task", "deadline", "session", "grant"],
)
def test_what_no_table_holds_is_an_error(shared: Place, odd: dict[str, Any]) -> None:
    registry = shared.created()
    assert said(registry, entry("a", seen(1))) == "a"
    with pytest.raises(StoreError):
        registry.enter(entry(**{"task": "c", **odd}))
    goes_on(registry)


def test_an_interrupt_between_question_and_answer_leaves_nothing(shared: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = shared.created()
    assert said(registry, entry("a", seen(1))) == "a"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("captoken.issuance.registry._tables.RegistryTables._written", interrupt)
        with pytest.raises(KeyboardInterrupt):
            registry.enter(entry("b", seen(2)))
    goes_on(registry)


def test_who_writes_waits_no_longer_than_the_timeout(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    with closing(SQLiteRegistry.create(path, floor=0, timeout=0.05)) as registry:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("begin immediate")
            with pytest.raises(StoreError, match="locked"):
                registry.enter(entry("a", seen(1)))
            assert not registry.is_live("a", NOW), "a look waits for nobody"
            other.execute("rollback")
        assert said(registry, entry("a", seen(1))) == "a"


def test_on_a_server_one_clock_that_is_ahead_forgets_nothing_for_others(postgres_server: Postgres) -> None:
    """By the earlier of its clock and the server's."""
    place = Place("postgres", postgres_server.conninfo, f"t{os.urandom(8).hex()}")
    registry, now = place.created(), int(time())
    assert said(registry, entry("a", seen(1, until=now + 60), now=now)) == "a"
    ahead = now + 1_000_000
    assert said(registry, entry("b", now=ahead, issued_at=ahead)) == "b"
    assert registry.is_live("a", now) and not registry.is_live("a", ahead)
    assert said(registry, joining("a", seen(1, until=now + 60), now=now)) == "a"
    assert said(registry, joining("a", seen(1, "other", until=now + 60), now=now)) == "invalid_grant"


def test_on_a_server_too_nobody_waits_for_a_lock_for_ever(postgres_server: Postgres) -> None:
    """Five seconds, or what the connection says. A look waits for nobody."""
    place = Place("postgres", postgres_server.conninfo, f"t{os.urandom(8).hex()}")
    place.created()
    impatient = place._replace(where=f"{place.where} options='-c lock_timeout=50'").opened()
    with psycopg.connect(place.where) as other:
        other.execute(f"select 1 from {place.schema}.registry_state for update".encode())
        with pytest.raises(StoreError, match="LockNotAvailable"):
            impatient.enter(entry("a", seen(1)))
        assert not impatient.is_live("a", NOW)
    assert said(impatient, entry("a", seen(1))) == "a"


def test_the_level_of_isolation_is_read_committed_or_it_is_an_error(postgres_server: Postgres) -> None:
    place = Place("postgres", postgres_server.conninfo, f"t{os.urandom(8).hex()}")
    place.created()
    serial = f"{place.where} options='-c default_transaction_isolation=serializable'"
    with pytest.raises(StoreError, match="must be read committed"):
        place._replace(where=serial).opened()


def test_the_tables_are_made_once_and_again_without_harm(postgres_server: Postgres) -> None:
    """In whatever schema; a name that would need quotes is none."""
    schema = f"registry_{os.urandom(4).hex()}"
    with psycopg.connect(postgres_server.conninfo) as connection:
        create_tables(connection, schema=schema, tables=WITH_REGISTRY)
    place = Place("postgres", postgres_server.conninfo, schema)
    registry = place.created()
    assert said(registry, entry("a", seen(1))) == "a"
    with psycopg.connect(postgres_server.conninfo) as connection:
        create_tables(connection, schema=schema, tables=WITH_REGISTRY)
    assert place.opened().is_live("a", NOW)
    for odd in ("A", "a b", "pg_x", "", 'a"b'):
        with pytest.raises(ValueError, match="a schema's name may only"):
            setup(odd, tables=WITH_REGISTRY)
    with psycopg.connect(postgres_server.conninfo) as connection:
        connection.execute("set default_transaction_read_only = on")
        connection.commit()
        with pytest.raises(StoreError, match="PostgreSQL"):
            create_tables(connection, schema=f"t{os.urandom(8).hex()}", tables=WITH_REGISTRY)


def test_two_that_are_opened_take_turns(shared: Place) -> None:
    """Threads on several connections: each task is there, and the counts are what they are."""
    shared.created()
    several = [shared.opened() for _ in range(4)]

    def run(who: int) -> list[str]:
        return [said(several[who], entry(f"t-{who}-{number}", grant="limited", most_live=10)) for number in range(10)]

    with ThreadPoolExecutor(4) as pool:
        told = [one for all_of_it in pool.map(run, range(4)) for one in all_of_it]
    assert told.count("access_denied") == 30 and len(set(told)) == 11


# --- kill -9, again and again ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fresh() -> Any:
    """Processes that start quickly: forks of one that has nothing but the code."""
    return starts_fresh("tests.issuance.registries")


def stands(registry: Any, told: list[Any]) -> int:
    """All that was acknowledged: how many ends are due."""
    due = {change.task.id: change.number for change in registry.unpublished()}
    ended = {task for what, task, _ in told if what == "ended"}
    for what, task, number in told:
        if what == "ended":
            assert due[task] == number and not registry.is_live(task, NOW)
        else:
            # What was under way when it was killed may have been done.
            assert registry.is_live(task, NOW) or task in ended | due.keys()
            assert said(registry, entry(f"again-{task}", seen(number, None))) == "invalid_grant", "it is used"
    return len(due)


@pytest.mark.parametrize("rounds", [kills(20)])
def test_kill_9_again_and_again_loses_no_row_and_no_end(fresh: Any, rounds: int, shared: Place) -> None:
    """A process that starts and ends tasks is killed in the midst of it, and what it was told stands."""
    shared.created()
    many = 0
    for number in range(rounds):
        told = killed(fresh, registries.work, 2 + number % 3, shared, number)
        with closing(shared.opened()) as registry:
            many = stands(registry, told)
    assert many >= rounds // 3


class Told:
    """What a thread was told, and when that is several things."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.several = Event()

    def send(self, answer: Any) -> None:
        self.told.append(answer)
        if len(self.told) > 3:
            self.several.set()


@pytest.mark.parametrize("rounds", [kills(3)])
def test_kill_9_of_the_server_loses_no_row_and_no_end(server: Postgres, rounds: int) -> None:
    place = Place("postgres", server.conninfo, "p")
    registry = place.created()
    for number in range(rounds):
        answers = Told()

        def work(number: int = number, answers: Told = answers) -> None:
            with pytest.raises(StoreError):
                registries.work(place, number, answers)

        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(work)
            assert answers.several.wait(WAIT)
            server.kill()
            running.result(timeout=WAIT)
        server.start()
        assert stands(registry, answers.told) >= 1
