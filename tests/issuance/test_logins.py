"""One suite for who logged in, over every registry: kept, found, changed once, and over with the login at the provider."""

from __future__ import annotations

import multiprocessing
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec import structs
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from captoken._format.clocks import CLOCKS_DIFFER
from captoken.cli.issue import _registry
from captoken.errors import IssuanceError, StoreError
from captoken.issuance.registry import Ending, KeptLogin
from captoken.issuance.registry._rules import REMEMBERED, SWEEP
from captoken.issuance.registry.ports import GRACE, LEEWAY
from tests.fixtures import NOW
from tests.issuance import registries
from tests.issuance.conftest import place_of
from tests.issuance.registries import Place, ending, entry, said
from tests.longer import kills
from tests.stores.killing import killed, starts_fresh

FIRST, SECOND, THIRD = (bytes([number]) * 32 for number in (1, 2, 3))


def login(id: str = "a", **facts: Any) -> KeptLogin:
    usual = {
        "id": id, "client": "app", "subject": "acme:jane", "provider": "acme", "session": "s1", "issued_at": NOW - 10, "content": b"{}",
        "secret": FIRST, "salt": b"salt", "begun": NOW, "until": NOW + 60,
    }  # fmt: skip
    return KeptLogin(**{**usual, **facts})


def turned(registry: Any, shown: bytes, next: bytes, now: int = NOW, task: str = "q3-1") -> KeptLogin | None:
    found: KeptLogin | None = registry.turn_login(login(task=task, until=NOW + 3600), shown, next, now).login
    return found


def test_one_is_kept_once_and_found_until_its_end(place: Place) -> None:
    registry = place.created()
    assert registry.keep_login(login(), NOW) and not registry.keep_login(login(content=b"other"), NOW)
    assert registry.login("a", NOW + 59) == login() and registry.login("a", NOW + 60) is None and registry.login("b", NOW) is None
    assert "salt" not in repr(login()) and str(FIRST) not in repr(login())


def test_a_secret_is_changed_once_and_then_the_former_one_ends_the_task(place: Place) -> None:
    registry = place.created()
    assert said(registry, entry("q3-1")) == "q3-1"
    registry.keep_login(login(), NOW)
    after = turned(registry, FIRST, SECOND)
    assert after is not None and (after.turn, after.task, after.until, after.secret) == (1, "q3-1", NOW + 3600, SECOND)
    assert turned(registry, SECOND, THIRD) is not None
    # The second, again and in time: nothing is changed. The first was a code.
    assert turned(registry, SECOND, THIRD, NOW + GRACE) == registry.login("a", NOW)
    assert registry.is_live("q3-1", NOW)
    assert turned(registry, FIRST, SECOND) is None and not registry.is_live("q3-1", NOW)
    assert [one.task.id for one in registry.unpublished()] == ["q3-1"]
    with pytest.raises(IssuanceError, match="over"):
        turned(registry, THIRD, FIRST)


@pytest.mark.parametrize("shown, now", [(SECOND, NOW + GRACE + 1), (SECOND, NOW - CLOCKS_DIFFER - 1), (FIRST, NOW), (b"x" * 32, NOW)])
def test_another_secret_or_a_late_one_ends_it(place: Place, shown: bytes, now: int) -> None:
    registry = place.created()
    registry.keep_login(login(), NOW)
    turned(registry, FIRST, SECOND, task="")
    turned(registry, SECOND, THIRD, task="")
    assert registry.turn_login(login(until=NOW + 3600), shown, THIRD, now) == (None, ())
    assert registry.login("a", NOW) is None


def test_a_code_has_no_grace(place: Place) -> None:
    registry = place.created()
    registry.keep_login(login(), NOW)
    turned(registry, FIRST, SECOND)
    assert turned(registry, FIRST, SECOND) is None


def test_of_several_at_once_one_changes_it(place: Place) -> None:
    registry = place.created()
    registry.keep_login(login(), NOW)
    turned(registry, FIRST, SECOND)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: turned(registry, SECOND, THIRD), range(8)))
    assert {one.turn for one in found if one is not None} == {2} and None not in found


@pytest.mark.parametrize("facts", [{"session": "s1"}, {"subject": "acme:jane"}, {"subject": "acme:jane", "session": "s1"}], ids=str)
def test_it_is_over_with_the_login_at_the_provider(place: Place, facts: dict[str, Any]) -> None:
    registry = place.created()
    registry.keep_login(login(), NOW)
    registry.end(Ending(now=NOW, provider="acme", **{**facts, "session": "other"} if "session" in facts else {**facts, "subject": "acme:joe"}))
    assert registry.login("a", NOW) is not None
    registry.end(Ending(now=NOW, provider="acme", **facts))
    assert registry.login("a", NOW) is None
    with pytest.raises(IssuanceError) as caught:
        registry.keep_login(login("b"), NOW)
    assert caught.value.why == "the login has ended"


def test_a_new_registry_says_until_when_it_takes_none(place: Place) -> None:
    registry = place.created(floor=None, clock=lambda: NOW)
    with pytest.raises(IssuanceError, match=r"has just started, and takes logins .* after 2025-"):
        registry.keep_login(login(issued_at=NOW), NOW)
    assert registry.keep_login(login(issued_at=NOW + 61), NOW)


def test_what_acts_for_somebody_is_listed_and_forgotten(place: Place) -> None:
    registry = place.created()
    for id, client, subject in (("a", "app", "acme:jane"), ("b", "", "acme:jane"), ("c", "app", "acme:joe")):
        registry.keep_login(login(id, client=client, subject=subject), NOW)
    # Until its code was used, nothing acts.
    assert registry.logins_of("acme:jane", NOW) == ()
    turned(registry, FIRST, SECOND)
    assert [one.id for one in registry.logins_of("acme:jane", NOW)] == ["a"]
    assert registry.logins_of("acme:jane", NOW + 3600) == ()
    registry.drop_login("a")
    assert registry.logins_of("acme:jane", NOW) == () and registry.login("b", NOW) is not None


def test_of_one_subject_so_many_are_kept(place: Place) -> None:
    """Whoever can log in fills nobody's registry, and pushes out nobody else."""
    registry = place.created()
    registry.keep_login(login("joe", subject="acme:joe"), NOW)
    registry.keep_login(login("browser", client=""), NOW)
    for number in range(103):
        registry.keep_login(login(f"n{number}", begun=NOW + number, until=NOW + 600), NOW)
    found = [number for number in range(103) if registry.login(f"n{number}", NOW) is not None]
    assert found == list(range(3, 103))
    assert registry.login("joe", NOW) is not None and registry.login("browser", NOW) is not None
    # What is over goes with the next one that comes.
    registry.keep_login(login("late", begun=NOW + 5000, until=NOW + 9000), NOW + 5000)
    assert registry.login("n50", NOW) is None


def test_it_is_there_for_another_process(shared: Place) -> None:
    registry = shared.created()
    registry.keep_login(login(session=None), NOW)
    assert shared.opened().login("a", NOW) == structs.replace(login(), session=None)


def test_the_command_makes_and_opens_one_in_postgresql(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """`captoken issue serve --registry postgresql://… --create`, and then without it."""
    facts = conninfo_to_dict(place_of("postgres", tmp_path, request).where)
    name = f"cli_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(**facts, autocommit=True) as connection:  # type: ignore[arg-type]
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        try:
            where = f"postgresql://{facts['user']}@{facts['host']}:{facts['port']}/{name}"
            with closing(_registry(where, True)) as made, pytest.raises(IssuanceError, match="has just started"):
                made.keep_login(login(issued_at=0), NOW)
            with closing(_registry(where, False)) as opened:
                assert opened.logins_of("acme:jane", NOW) == ()
            with pytest.raises(StoreError, match="already exists"):
                _registry(where, True)
        finally:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def test_a_login_of_before_a_forgotten_logout_is_over(place: Place) -> None:
    """A logout is forgotten after a day: then nobody knows any more whose it was."""
    registry = place.created()
    later = NOW + LEEWAY + REMEMBERED + 2 * SWEEP + 120
    registry.keep_login(login(until=later + 600, subject="acme:joe", session="s2"), NOW)
    registry.end(ending(session="s1"))
    assert registry.login("a", NOW + 1) is not None
    for now in (later - SWEEP - 1, later):
        assert said(registry, entry(f"sweep-{now}", subject="acme:sweeper", session=None, now=now, issued_at=now))
    assert registry.login("a", later) is None


# --- two workers, and kill -9 -----------------------------------------------------------------------------------------


def raced(shared: Place, ids: list[str], turn: int) -> list[list[int | None]]:
    """By id: what each of two processes was told, which showed one secret at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.issuance.registries"])
    with context.Pool(2, registries.together, (context.Barrier(2),)) as pool:
        told = pool.starmap(registries.race_to_turn, [(shared, ids, turn)] * 2, chunksize=1)
    return [list(pair) for pair in zip(*told, strict=True)]


def test_two_workers_that_are_shown_one_refresh_token_give_one_successor(shared: Place) -> None:
    """Two windows of one application, and two workers of the service: nothing ends, and nothing is given twice over."""
    registry = shared.created()
    ids = [f"l-{number}" for number in range(20)]
    for id in ids:
        assert said(registry, entry(f"t-{id}", subject=f"acme:{id}")) == f"t-{id}"
        registry.keep_login(registries.login(id, registries.secret(0)), NOW)
        assert registries.turned(registry, id, 0) == 1
    assert raced(shared, ids, 1) == [[2, 2]] * 20
    assert all(registry.login(id, NOW).turn == 2 and registry.is_live(f"t-{id}", NOW) for id in ids)


def test_two_workers_that_are_shown_one_code_give_one_token_and_then_end_its_task(shared: Place) -> None:
    registry = shared.created()
    ids = [f"l-{number}" for number in range(20)]
    for id in ids:
        assert said(registry, entry(f"t-{id}", subject=f"acme:{id}")) == f"t-{id}"
        registry.keep_login(registries.login(id, registries.secret(0)), NOW)
    assert {tuple(sorted(pair, key=str)) for pair in raced(shared, ids, 0)} == {(1, None)}
    assert not any(registry.is_live(f"t-{id}", NOW) for id in ids)
    assert sorted(one.task.id for one in registry.unpublished()) == sorted(f"t-{id}" for id in ids)


@pytest.fixture(scope="module")
def fresh() -> Any:
    return starts_fresh("tests.issuance.registries")


@pytest.mark.parametrize("rounds", [kills(10)])
def test_kill_9_loses_no_use_of_a_code_and_no_end(fresh: Any, rounds: int, shared: Place) -> None:
    """What was acknowledged stands: a code that was used ends the task when it is shown, and a task that was ended is."""
    shared.created()
    used = ended = 0
    for number in range(rounds):
        told = killed(fresh, registries.log_in, 3 + number % 6, shared, number)
        with closing(shared.opened()) as registry:
            due = {one.task.id for one in registry.unpublished()}
            over = {id for what, id, _ in told if what == "ended"}
            for what, id, turn in told:
                if what == "ended":
                    assert f"t-{id}" in due and not registry.is_live(f"t-{id}", NOW) and registry.login(id, NOW) is None
                    ended += 1
                    continue
                # What was under way when it was killed may have been done.
                known = registry.login(id, NOW)
                assert known.turn > turn if known is not None else id in over or f"t-{id}" in due
                used += 1
            for id in {id for _, id, _ in told} - over:
                if registry.login(id, NOW) is not None:
                    assert registries.turned(registry, id, 0) is None and not registry.is_live(f"t-{id}", NOW)
    assert used >= rounds and (ended or rounds < 3)
