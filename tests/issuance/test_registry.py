"""One suite for every registry: what may start, what ends, what is remembered and what is forgotten.

The numbers are those of the cases that must be denied, each with a twin that passes.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from captoken.errors import IssuanceError, StoreError
from captoken.issuance.registry import MemoryRegistry, Named, StartedTask, Unpublished, is_silent
from captoken.issuance.registry._rules import DAY, REFUSED_CLOCK, REFUSED_ID, REMEMBERED, SWEEP
from captoken.issuance.registry.ports import LEEWAY, SILENCE
from captoken.stores.own_process import OwnProcess
from tests.fixtures import NOW
from tests.issuance import registries
from tests.issuance.registries import WAIT, Place, close_all, ending, entry, joining, said, seen

JANE = StartedTask("q3-1", "q3-risk", "acme:jane", NOW + 3600)
PAST = 60  # seconds that clocks may differ, and so long is kept what is over


def refused(registry: Any, asked: Any) -> tuple[str, str, str]:
    with pytest.raises(IssuanceError) as caught:
        registry.enter(asked)
    return caught.value.code, str(caught.value), caught.value.why


def sweep(registry: Any, now: int) -> None:
    """Something is written, and with it forgotten what may be: of somebody else, and without an assertion."""
    asked = entry(f"sweep-{now}", subject="acme:sweeper", session=None, now=now, issued_at=now)
    assert said(registry, asked) == f"sweep-{now}"


# --- names ------------------------------------------------------------------------------------------------------------

ACME = Named("acme", "oidc https://login.acme.example", "acme:{sub}")
OTHER = Named("other", "oidc https://other.example", "other:{sub}")


@pytest.mark.parametrize(
    "changed",
    [
        ACME._replace(provider="corp"), ACME._replace(template="acme:{sub#}"), ACME._replace(issuer="oidc https://login.acme.example/"),
        Named("corp", ACME.issuer, "corp:{sub}"), Named("acme", OTHER.issuer, "acme:{sub}"), Named("acme", "saml x", "acme:{sub}"),
    ],
    ids=["its name", "its subjects", "its issuer", "name and subjects", "to another issuer", "to another kind"],
)  # fmt: skip
def test_by_which_names_providers_are_known_stays(place: Place, changed: Named) -> None:
    """What ends tasks looks for them by these: under another name a logout would miss them."""
    registry = place.created()
    registry.keep_names([ACME])
    for one in (registry, *([] if place.kind == "memory" else [place.opened()])):
        for _ in range(2):
            with pytest.raises(IssuanceError, match="write that again, or stop the service, end all tasks") as caught:
                one.keep_names([Named("new", "oidc https://new.example", "new:{sub}"), changed])
            assert caught.value.code == "policy" and ACME.template in str(caught.value)
        one.keep_names([ACME])
        one.keep_names([OTHER, ACME])
    # What was refused was not kept.
    registry.keep_names([Named("new", "oidc https://other.example/2", "new:{sub}")])


def test_of_eight_that_name_a_provider_otherwise_at_once_one_is_kept(place: Place) -> None:
    registry = place.created()
    gate = Barrier(8)

    def name(number: int) -> bool:
        gate.wait(WAIT)
        try:
            registry.keep_names([ACME._replace(provider=f"acme{number}")])
        except IssuanceError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(name, range(8))) == 1


# --- what starts -----------------------------------------------------------------------------------------------------


def test_a_task_is_started_and_joined(place: Place) -> None:
    """The answer is what stands: of a task that is joined, its own deadline and grant."""
    registry = place.created()
    assert registry.enter(entry("q3-1", seen())) == JANE and registry.is_live("q3-1", NOW)
    again = joining("q3-1", seen(), deadline=NOW + 9999, now=NOW + 10)
    assert registry.enter(again) == JANE
    sentiment = entry("q3-1", seen(2), grant="q3-sentiment", within=("q3-sentiment", "q3-risk"), deadline=NOW + 9999)
    assert registry.enter(sentiment) == JANE


def test_what_is_refused_wrote_nothing(place: Place) -> None:
    """Neither the assertion, nor the task: the same request is taken once it is right."""
    registry = place.created()
    assert said(registry, joining("q3-1", seen(1, None))) == "invalid_grant"
    assert not registry.is_live("q3-1", NOW)
    assert said(registry, entry("q3-1", seen(1, None), seen(2), seen(2, "other"))) == "invalid_grant"
    assert registry.enter(entry("q3-1", seen(1, None), seen(2, "other"))) == JANE


def test_45_a_join_after_the_deadline(place: Place) -> None:
    registry = place.created()
    assert said(registry, entry(deadline=NOW + 100)) == "q3-1"
    assert said(registry, joining(now=NOW + 99)) == "q3-1"
    for late in (100, 101, 10**6):
        code, message, why = refused(registry, joining(now=NOW + late))
        assert (code, message, why) == ("invalid_grant", "there is no such task to join", "it is over")
        assert not registry.is_live("q3-1", NOW + late)
    assert registry.is_live("q3-1", NOW + 99)


def test_a_task_that_is_over_before_it_begins(place: Place) -> None:
    registry = place.created()
    assert refused(registry, entry(deadline=NOW))[2] == "past its deadline"
    assert said(registry, entry(deadline=NOW + 1)) == "q3-1"


def test_46_whatever_is_renewed_the_deadline_of_the_task_stands(place: Place) -> None:
    registry = place.created()
    for later in range(0, 3600, 600):
        asked = entry if later == 0 else joining
        renewed = asked("q3-1", seen(until=NOW + 9999), now=NOW + later, deadline=NOW + later + 3600)
        assert registry.enter(renewed).deadline == NOW + 3600
    late = joining("q3-1", seen(until=NOW + 9999), now=NOW + 3600, deadline=NOW + 7200)
    assert refused(registry, late)[2] == "it is over"


@pytest.mark.parametrize("other", ["another actor", "another key"])
def test_48_an_assertion_with_another_actor_or_key(place: Place, other: str) -> None:
    registry = place.created()
    assert said(registry, entry("a", seen())) == "a"
    for number, asked in enumerate((seen(1, other), seen(1, None))):
        code, message, why = refused(registry, entry(f"b{number}", asked, actor=other))
        assert (code, message) == ("invalid_grant", "the assertion cannot start a task: get a new one")
        assert why in ("it was used with another actor, client or key", "it was used, and alone it is good once")
    assert said(registry, entry("c", seen())) == "c", "with those that it came with, it is good again"
    assert said(registry, entry("d", seen(2, other), actor=other)) == "d"


def test_48_also_the_first_time_within_one_request(place: Place) -> None:
    """Where one assertion is two things at once, it is so with the same companions."""
    registry = place.created()
    assert said(registry, entry("a", seen(), seen(1, "other"))) == "invalid_grant"
    assert said(registry, entry("a", seen(1, None), seen(1, None))) == "invalid_grant"
    assert said(registry, entry("a", seen(), seen())) == "a"


def test_49_alone_it_is_good_once(place: Place) -> None:
    registry = place.created()
    assert said(registry, entry("a", seen(1, None))) == "a"
    for asked in (entry("b", seen(1, None)), joining("a", seen(1, None)), entry("c", seen(1))):
        assert said(registry, asked) == "invalid_grant"
    assert said(registry, entry("d", seen(2, None))) == "d"


def test_50_of_eight_actors_with_one_assertion_one_wins(place: Place) -> None:
    """Sixty-four uses at once, of eight threads each: those of one actor, and no other."""
    registry = place.created()
    gate = Barrier(64)

    def use(number: int) -> int | None:
        gate.wait(WAIT)
        who = f"actor {number % 8}"
        return number % 8 if said(registry, entry(f"t-{number}", seen(1, who), actor=who)) == f"t-{number}" else None

    with ThreadPoolExecutor(64) as pool:
        won = [who for who in pool.map(use, range(64)) if who is not None]
    assert len(won) == 8 and len(set(won)) == 1


def test_50_also_of_eight_processes(shared: Place) -> None:
    shared.created()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.issuance.registries"])
    gate = context.Barrier(8)
    with context.Pool(8, registries.together, (gate,)) as pool:
        won = pool.starmap(registries.race, [(shared, who, 8) for who in range(8)], chunksize=1)
    assert sorted(sum(one) for one in won) == [0] * 7 + [8]


def test_50_alone_one_of_64_is_taken_and_of_two_at_a_time_two_are_live(place: Place) -> None:
    registry = place.created()
    gate = Barrier(32)

    def alone(number: int) -> tuple[bool, bool]:
        gate.wait(WAIT)
        once = said(registry, entry(f"a-{number}", seen(1, None))) == f"a-{number}"
        live = said(registry, entry(f"l-{number}", grant="limited", most_live=2)) == f"l-{number}"
        return once, live

    with ThreadPoolExecutor(32) as pool:
        once, live = zip(*pool.map(alone, range(32)), strict=True)
    assert (sum(once), sum(live)) == (1, 2)


def test_51_a_proof_of_a_key_again(place: Place) -> None:
    """It is an assertion that comes alone, beside the login's."""
    registry = place.created()
    assert said(registry, entry("a", seen(1), seen(100, None, until=NOW + 60))) == "a"
    assert said(registry, joining("a", seen(1), seen(100, None, until=NOW + 60))) == "invalid_grant"
    assert said(registry, joining("a", seen(1), seen(101, None, until=NOW + 60))) == "a"


def test_53_a_restart_forgets_nothing(shared: Place) -> None:
    """What was used, what is out, what ended, what was heard, and what is due."""
    registry = shared.created()
    assert said(registry, entry("a", seen(1, None))) == "a" and said(registry, entry("b", seen(2), session="s2", counted=True)) == "b"
    (change,) = registry.end(ending(session="s1", jti="j1"))
    close_all()
    again = shared.opened()
    assert said(again, entry("c", seen(1, None), session=None)) == "invalid_grant"
    assert said(again, entry("c", seen(2, "other"), session=None)) == "invalid_grant"
    assert said(again, entry("c", seen(3))) == "invalid_grant", "the session has ended"
    assert said(again, joining("b", seen(2), session="s2", counted=True)) == "access_denied"
    assert not again.is_live("a", NOW) and again.is_live("b", NOW)
    assert again.unpublished() == (change,) and again.heard_at("acme") == NOW
    assert again.end(ending(session="s2", jti="j1")) == () and not again.hear("acme", "j1", NOW)
    assert said(again, joining("b", seen(2), session="s2")) == "b"


def test_53_one_that_was_lost_takes_no_assertion_of_before(place: Place) -> None:
    """Which were used is not known. One that was issued later is taken, and what is out is not live."""
    registry = place.created(floor=None, clock=lambda: NOW)
    for number, at in enumerate((0, NOW - 100, NOW, NOW + PAST)):
        late = {"now": at + 1, "issued_at": NOW + 100}
        code, message, why = refused(registry, entry("a", seen(number, issued_at=at), **late))
        # It is new: it says until when. After that, the assertion is just too old.
        told = "this service has just started" if at + 1 <= NOW + PAST else "the assertion cannot start a task: get a new one"
        assert code == "invalid_grant" and message.startswith(told)
        assert "before this registry began" in why
        assert refused(registry, entry("a", now=NOW + 100, issued_at=at))[2].startswith("it is of before this registry")
    fresh = NOW + PAST + 1
    assert said(registry, entry("a", seen(9, issued_at=fresh), issued_at=fresh, now=fresh)) == "a"
    assert not registry.is_live("q3-1", NOW)


def test_60_a_counted_grant_is_taken_once_in_a_task(place: Place) -> None:
    registry = place.created()
    assert said(registry, entry("a", seen(), counted=True)) == "a"
    code, message, why = refused(registry, joining("a", seen(), counted=True))
    assert code == "access_denied" and "has a limit" in message and "a second time in a" in why
    assert said(registry, entry("b", seen())) == "b"
    paid = {"grant": "paid", "within": ("q3-risk",), "counted": True}
    assert said(registry, entry("b", seen(2), **paid)) == "b"
    assert said(registry, entry("b", seen(3), **paid)) == "access_denied"
    assert said(registry, joining("b", seen(2))) == "b", "one that is not counted is taken again"


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"task": "unknown"}, "no task has this id"),
        ({"subject": "acme:john"}, "it is another subject's"),
        ({"actor": "mesh:other"}, "it is another actor's"),
        ({"actor": None}, "it is another actor's"),
        ({"now": NOW + 3600}, "it is over"),
        ({"task": "ended", "session": "s1"}, "it is over"),
        ({"within": ("q3-other",)}, "grant q3-risk is not taken within a task of q3-risk"),
        ({"within": ()}, "grant q3-risk is not taken within a task of q3-risk"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_61_a_join_that_is_not_theirs_has_one_answer(place: Place, facts: dict[str, Any], why: str) -> None:
    registry = place.created()
    assert said(registry, entry()) == "q3-1" and said(registry, entry("ended")) == "ended"
    assert len(registry.end(ending(task="ended"))) == 1
    assert refused(registry, joining(**facts)) == ("invalid_grant", "there is no such task to join", why)
    assert said(registry, joining()) == "q3-1"


def test_a_new_task_never_has_the_id_of_another(place: Place) -> None:
    registry = place.created()
    assert said(registry, entry()) == "q3-1"
    with pytest.raises(StoreError, match=REFUSED_ID):
        registry.enter(entry(subject="acme:john"))
    assert said(registry, entry("q3-2", subject="acme:john")) == "q3-2"


def test_65_no_more_tasks_of_a_grant_are_live_than_may_be(place: Place) -> None:
    """For each subject; one that is over makes room, and one of another grant takes none."""
    registry = place.created()
    limits: dict[str, Any] = {"most_live": 2, "session": "s2"}
    assert said(registry, entry("a", most_live=2, deadline=NOW + 100)) == "a" and said(registry, entry("b", **limits)) == "b"
    code, message, _ = refused(registry, entry("c", **limits))
    assert (code, message) == ("access_denied", "2 tasks of grant q3-risk are live, and that is the limit")
    assert said(registry, joining("b", **limits)) == "b", "to join begins none"
    assert said(registry, entry("other", grant="other", **limits)) == "other"
    assert said(registry, entry("john", subject="acme:john", **limits)) == "john"
    assert said(registry, entry("d", now=NOW + 100, **limits)) == "d"
    assert said(registry, entry("e", now=NOW + 100, **limits)) == "access_denied"
    registry.end(ending(task="b"))
    assert said(registry, entry("e", now=NOW + 100, **limits)) == "e"


def test_65_no_more_are_begun_within_a_day_than_may_be(place: Place) -> None:
    """Whatever became of them."""
    registry = place.created()
    for number in range(2):
        assert said(registry, entry(f"t{number}", now=NOW + number, deadline=NOW + 50, most_per_day=2)) == f"t{number}"
    registry.end(ending(task="t0"))
    later: dict[str, Any] = {"issued_at": NOW + DAY, "most_per_day": 2}
    for at in (NOW + 2, NOW + DAY - 1):
        code, message, _ = refused(registry, entry("c", now=at, **later))
        assert (code, message) == ("access_denied", "2 tasks of grant q3-risk were begun in 24 hours, and that is the limit")
    assert said(registry, entry("c", now=NOW + DAY, **later)) == "c"
    assert said(registry, entry("d", now=NOW + DAY, **later)) == "access_denied"
    assert said(registry, entry("d", now=NOW + DAY + 1, **later)) == "d"


def test_the_same_assertion_may_be_the_same_task(place: Place) -> None:
    """An ID-JAG that is sent again: the task that it started, as long as that is theirs and live."""
    registry = place.created()
    jag = seen(1, same_task=True)
    assert registry.enter(entry("q3-1", jag)) == JANE
    assert registry.enter(entry("q3-2", jag)) == JANE and not registry.is_live("q3-2", NOW)
    assert said(registry, entry("q3-3", seen(1, "other", same_task=True))) == "invalid_grant"
    assert refused(registry, entry("q3-3", jag, grant="other"))[2] == "grant other is not taken within a task of q3-risk"
    assert said(registry, joining("q3-1", jag)) == "q3-1", "nor does it matter where it is joined by its id"
    assert refused(registry, entry("q3-3", jag, actor="mesh:other"))[2] == "it is another actor's"
    registry.end(ending(task="q3-1"))
    assert refused(registry, entry("q3-3", jag))[2] == "it is over"
    assert said(registry, entry("q3-3", seen(2, same_task=True))) == "q3-3"
    assert said(registry, entry("q3-4", seen(3, same_task=True), seen(3, same_task=True))) == "q3-4"


def test_of_the_same_assertion_a_counted_grant_is_taken_once(place: Place) -> None:
    """Else a request that is sent again doubles the budget."""
    registry = place.created()
    jag = seen(1, same_task=True)
    assert said(registry, entry("a", jag, counted=True)) == "a"
    assert said(registry, entry("b", jag, counted=True)) == "access_denied"


# --- what ends -------------------------------------------------------------------------------------------------------


def test_82_an_end_is_due_until_the_overlay_says_so(place: Place) -> None:
    """The task is not live from then on; its lease is refused."""
    registry = place.created()
    for number in (1, 2, 3):
        assert said(registry, entry(f"q3-{number}", seen(number))) == f"q3-{number}"
    assert registry.end(ending(task="q3-1")) == (Unpublished(1, JANE, None),) == registry.unpublished()
    assert [registry.is_live(f"q3-{number}", NOW) for number in (1, 2, 3)] == [False, True, True]
    ended = registry.end(ending(session="s1"))
    assert [(change.number, change.task.id, change.narrowing) for change in ended] == [(2, "q3-2", None), (3, "q3-3", None)]
    registry.published(2)
    assert [change.number for change in registry.unpublished()] == [1, 3]
    for number in (2, 1, 3, 99):
        registry.published(number)
    assert registry.unpublished() == () and registry.end(ending(session="s1")) == ()
    assert said(registry, entry("q3-4", session="s2")) == "q3-4"
    assert [change.number for change in registry.end(ending(subject="acme:jane"))] == [4], "no number twice"


@pytest.mark.parametrize(
    ("facts", "ended"),
    [
        ({"session": "s1"}, "ab"),
        ({"subject": "acme:jane"}, "abcf"),
        ({"session": "s1", "subject": "acme:jane"}, "ab"),
        ({"session": "s1", "subject": "acme:john"}, ""),
        ({"session": "s9"}, ""),
        ({"subject": "acme:jan"}, ""),
        ({"task": "a"}, "a"),
        ({"task": "a", "provider": None}, "a"),
        ({"task": "d", "subject": "acme:jane"}, ""),
        ({"provider": "other", "session": "s1"}, "e"),
        ({"provider": "other", "subject": "acme:jane"}, ""),
        ({"subject": "acme:jane", "grants": ("q3-other",)}, "c"),
        ({"subject": "acme:jane", "grants": ("none",)}, ""),
        ({"subject": "acme:jane", "grants": ()}, ""),
        ({"subject": "acme:jane", "sessionless": True}, "f"),
        ({"subject": "acme:john", "sessionless": True}, ""),
        ({"subject": "acme:jane", "sessionless": True, "task": "f"}, "f"),
        ({"provider": "other", "subject": "acme:jane", "sessionless": True}, ""),
    ],
)
def test_an_ending_is_of_whom_it_names(place: Place, facts: dict[str, Any], ended: str) -> None:
    """Also 84: an event about a subject of another issuer ends nothing of this one's."""
    registry = place.created()
    tasks: dict[str, dict[str, Any]] = {
        "a": {},
        "b": {"session": "s2"},  # which s1 joins
        "c": {"session": "s2", "grant": "q3-other"},
        "d": {"session": "s2", "subject": "acme:john"},
        "e": {"provider": "other", "subject": "other:jane"},
        "f": {"session": None},
    }
    for task, its in tasks.items():
        assert said(registry, entry(task, **its)) == task
    assert said(registry, joining("b")) == "b"
    assert "".join(change.task.id for change in registry.end(ending(**facts))) == ended
    assert "".join(task for task in tasks if not registry.is_live(task, NOW)) == ended


def test_an_end_reaches_what_a_server_with_a_slow_clock_still_takes(place: Place) -> None:
    """A task past its deadline is not live any more, and may be out for a minute."""
    registry = place.created()
    for task, deadline in (("a", NOW + 1), ("b", NOW + PAST), ("c", NOW + PAST + 1)):
        assert said(registry, entry(task, deadline=deadline)) == task
    assert [change.task.id for change in registry.end(ending(now=NOW + 2 * PAST, session="s1"))] == ["c"]


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"provider": None, "session": "s1"},
        {"provider": None, "subject": "acme:jane"},
        {"session": ""},
        {"subject": "acme:jane", "task": ""},
        {"session": "s1", "sessionless": True},
        {"task": "a", "sessionless": True},
        {"session": "s1", "subject": "acme:jane", "sessionless": True},
    ],
)
def test_an_ending_of_nobody_is_an_error(place: Place, facts: dict[str, Any]) -> None:
    registry = place.created()
    assert said(registry, entry()) == "q3-1" and said(registry, entry("b", session=None)) == "b"
    with pytest.raises(ValueError, match=r"an ending .*must name"):
        registry.end(ending(**facts))
    for odd in ({"instead": {"q3-risk": b"x"}}, {"instead": {"x": b"x"}, "grants": ("q3-risk",)}):
        with pytest.raises(ValueError, match="instead"):
            registry.end(ending(subject="acme:jane", **odd))
    with pytest.raises(ValueError, match="event"):
        registry.end(ending(task="q3-1", provider=None, jti="j"))
    assert registry.is_live("q3-1", NOW)
    assert registry.end(ending(task="q3-1", provider=None, jti="j", stream="signals")) and registry.heard_at("signals") == NOW


def test_81_an_assertion_of_before_the_logout_starts_nothing(place: Place) -> None:
    """By session, whenever it was issued; by subject, if it was issued until then. Nor does it join."""
    registry = place.created()
    assert said(registry, entry("john", subject="acme:john", session="s3")) == "john"
    assert registry.end(ending(session="s1")) == ()
    for later in (-10, 0, 1, 10_000):
        assert refused(registry, entry("a", seen(1), now=NOW + 1, issued_at=NOW + later))[2] == "the login has ended"
    for number, other in enumerate(({"session": "s2"}, {"session": None}, {"provider": "other"})):
        assert said(registry, entry(f"t{number}", **other)) == f"t{number}"

    assert [change.task.id for change in registry.end(ending(subject="acme:john"))] == ["john"]
    john: dict[str, Any] = {"subject": "acme:john", "session": "s4", "now": NOW + 1}
    for at in (NOW - 10, NOW, NOW + LEEWAY):
        assert refused(registry, entry("a", seen(1), issued_at=at, **john))[2] == "the login has ended"
    assert said(registry, entry("a", seen(1), issued_at=NOW + LEEWAY + 1, **john)) == "a", "whoever logs in again"
    registry.end(ending(subject="acme:john", now=NOW - 100))
    assert said(registry, entry("b", seen(2), issued_at=NOW, **john)) == "invalid_grant", "the later logout counts"


def test_81_an_assertion_without_a_session_of_before_a_logout(place: Place) -> None:
    """It could be of the session that ended. One that names another one, or that is newer, is not."""
    registry = place.created()
    assert registry.end(ending(subject="acme:jane", sessionless=True)) == ()
    for number, none in enumerate((None, "")):
        assert refused(registry, entry("a", seen(number), session=none, issued_at=NOW + LEEWAY))[2] == "the login has ended"
        newer = entry(f"new-{number}", seen(number), session=none, issued_at=NOW + LEEWAY + 1)
        assert said(registry, newer) == f"new-{number}"
    assert said(registry, entry("b", seen(3), session="s2")) == "b"
    assert said(registry, entry("c", seen(4), session=None, subject="acme:john")) == "c"
    assert said(registry, entry("d", seen(5), session=None, provider="other")) == "d"


def test_81_what_starts_while_the_logout_arrives_is_ended_or_refused(place: Place) -> None:
    """Of a login that starts and joins tasks in eight threads, nothing lives once the end has been written."""
    registry = place.created()
    gate = Barrier(9)
    assert said(registry, entry("first", session="other")) == "first"

    def start(who: int) -> list[str]:
        gate.wait(WAIT)
        asked = [joining("first"), *(entry(f"t-{who}-{number}", seen(who)) for number in range(8))]
        return [said(registry, one) for one in asked]

    def end(_: int) -> list[str]:
        gate.wait(WAIT)
        return [change.task.id for change in registry.end(ending(session="s1"))]

    with ThreadPoolExecutor(9) as pool:
        running = [pool.submit(start, who) for who in range(8)]
        ended = pool.submit(end, 0).result(WAIT)
        started = {task for one in running for task in one.result(WAIT)} - {"invalid_grant"}
    assert started == set(ended)
    assert not any(registry.is_live(task, NOW) for task in started)
    assert said(registry, entry("last", session="other")) == "last"


def test_81_by_a_clock_of_the_provider_that_is_ahead(place: Place) -> None:
    """The event says its own time: the login of a moment before it is over as well."""
    registry = place.created()
    registry.end(ending(subject="acme:jane", issued_at=NOW + 20))
    last = NOW + 20 + LEEWAY
    assert said(registry, entry("a", issued_at=NOW + 20)) == said(registry, entry("a", issued_at=last)) == "invalid_grant"
    assert said(registry, entry("a", issued_at=last + 1)) == "a"


@pytest.mark.parametrize("grants", [None, ("q3-risk",)])
@pytest.mark.parametrize("whose", [{"subject": "acme:jane"}, {"subject": "acme:jane", "sessionless": True}])
def test_81_an_assertion_that_is_stamped_ahead_is_of_before_the_event(place: Place, whose: Any, grants: Any) -> None:
    """A provider's clock may be ahead by the leeway, and such an assertion is taken: so an event reaches as far."""
    registry = place.created()
    registry.end(ending(**whose, grants=grants, issued_at=NOW - 5))
    for ahead in (0, 1, LEEWAY - 1, LEEWAY):
        stamped = entry("a", seen(ahead, issued_at=NOW + ahead), session=None, issued_at=NOW + ahead)
        assert refused(registry, stamped)[2] == "the login has ended"
    after = NOW + LEEWAY + 1
    assert said(registry, entry("a", seen(99, issued_at=after), session=None, issued_at=after)) == "a"


def test_an_end_of_one_task_ends_no_login(place: Place) -> None:
    registry = place.created()
    assert said(registry, entry("a", seen())) == "a"
    assert len(registry.end(ending(task="a", subject="acme:jane", session="s1"))) == 1
    assert said(registry, entry("b", seen())) == "b"


def test_an_end_of_some_grants_voids_assertions_for_these(place: Place) -> None:
    """Else the same login would start the same task again."""
    registry = place.created()
    registry.end(ending(subject="acme:jane", grants=("q3-risk",)))
    assert said(registry, entry("a", seen())) == "invalid_grant"
    assert said(registry, entry("b", seen(), grant="q3-other")) == "b"
    assert said(registry, entry("a", seen(2), issued_at=NOW + LEEWAY + 1)) == "a"


def test_52_an_event_that_was_heard_has_no_effect(place: Place) -> None:
    """Also where it says something else the second time; another stream has names of its own."""
    registry = place.created()
    assert said(registry, entry("a")) == "a"
    assert len(registry.end(ending(subject="acme:jane", jti="j1"))) == 1
    assert said(registry, entry("b", issued_at=NOW + LEEWAY + 1, now=NOW + 1)) == "b"
    for facts in ({"subject": "acme:jane"}, {"task": "b"}):
        assert registry.end(ending(now=NOW + 50, jti="j1", **facts)) == ()
    assert registry.hear("acme", "j1", NOW + 50) is False
    assert registry.heard_at("acme") == NOW, "nor does it say that the stream lives"
    assert registry.is_live("b", NOW) and said(registry, entry("c", issued_at=NOW + LEEWAY + 2, now=NOW + 60)) == "c"
    assert len(registry.end(ending(subject="acme:jane", jti="j1", stream="signals", now=NOW + 70))) == 2


def test_52_of_eight_deliveries_at_once_one_ends(place: Place) -> None:
    registry = place.created()
    assert said(registry, entry("a")) == "a"
    gate = Barrier(8)

    def deliver(_: int) -> int:
        gate.wait(WAIT)
        return len(registry.end(ending(session="s1", jti="j1")))

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(deliver, range(8))) == [0] * 7 + [1]


def test_an_event_may_narrow_instead(place: Place) -> None:
    """What the overlay is to say is due as an end is. The task stays; the login starts no other one, and may join it."""
    registry = place.created()
    for task, grant in (("a", "q3-risk"), ("b", "q3-other"), ("c", "q3-third"), ("d", "q3-risk")):
        assert said(registry, entry(task, grant=grant)) == task
    assert said(registry, entry("d", grant="q3-other", within=("q3-risk",))) == "d"
    event = {"subject": "acme:jane", "grants": ("q3-risk", "q3-other"), "instead": {"q3-risk": b"select"}}
    made = registry.end(ending(**event))
    assert [(change.task.id, change.narrowing) for change in made] == [("a", b"select"), ("b", None), ("d", None)]
    assert made == registry.unpublished()
    assert [registry.is_live(task, NOW) for task in "abcd"] == [True, False, True, False]
    assert said(registry, entry("e")) == "invalid_grant" and said(registry, joining("a")) == "a"
    assert said(registry, entry("e", grant="q3-third")) == "e"
    assert registry.end(ending(**event)) == (), "what is said already is not said again"
    other = {**event, "instead": {"q3-risk": b"nothing"}}
    assert [change.narrowing for change in registry.end(ending(**other))] == [b"nothing"]
    assert [change.narrowing for change in registry.end(ending(task="a"))] == [None], "narrowed, it still can be ended"
    assert registry.end(ending(**{**event, "instead": {"q3-risk": b"more"}})) == ()


def test_two_grants_of_a_task_are_each_narrowed(place: Place) -> None:
    registry = place.created()
    assert said(registry, entry("a")) == said(registry, entry("a", grant="q3-other", within=("q3-risk",))) == "a"
    both = {"q3-risk": b"2", "q3-other": b"1"}
    made = registry.end(ending(subject="acme:jane", grants=tuple(both), instead=both))
    assert [change.narrowing for change in made] == [b"1", b"2"] and registry.is_live("a", NOW)
    alike = dict.fromkeys(both, b"3")
    assert [change.narrowing for change in registry.end(ending(session="s1", grants=tuple(both), instead=alike))] == [b"3"]


def test_a_stream_is_heard(place: Place) -> None:
    registry = place.created()
    assert registry.heard_at("signals") is None
    assert registry.hear("signals", "j1", NOW) is True and registry.heard_at("signals") == NOW
    assert registry.hear("signals", "j2", NOW + 5) is True and registry.heard_at("signals") == NOW + 5
    assert registry.hear("other", "j1", NOW) is True and registry.heard_at("other") == NOW
    registry.end(ending(session="s1", jti="j9", stream="signals", now=NOW + 9))
    assert registry.heard_at("signals") == NOW + 9
    registry.end(ending(session="s1", now=NOW + 10))
    assert registry.heard_at("acme") is None


def test_a_stream_that_says_nothing_is_silent() -> None:
    assert is_silent(None, NOW) and is_silent(NOW - SILENCE - 1, NOW)
    assert not is_silent(NOW - SILENCE, NOW) and not is_silent(NOW + PAST, NOW)
    assert is_silent(NOW + PAST + 1, NOW), "it was heard by a clock that is wrong"


# --- what is forgotten -----------------------------------------------------------------------------------------------


def test_47_a_clock_that_steps_back_revives_no_assertion(place: Place) -> None:
    """It was used, and forgotten since; and its time comes again. One that is good for longer is taken."""
    registry = place.created()
    assert said(registry, entry("a", seen(1, None), seen(3, None, until=NOW + 300))) == "a"
    kept = NOW + 600 + PAST - 1
    sweep(registry, kept)
    assert "alone it is good once" in refused(registry, entry("b", seen(1, None), now=kept))[2], "not forgotten yet"
    sweep(registry, kept + SWEEP)
    for back in (NOW, NOW + 599):
        why = refused(registry, entry("b", seen(1, None), now=back))[2]
        assert why == "it is over, and what it was used for is forgotten"
        assert "forgotten" in refused(registry, entry("b", seen(7, until=NOW + 600), now=back))[2]
    assert said(registry, entry("b", seen(2, None, until=NOW + 601), now=NOW + 599)) == "b"


def test_47_a_clock_that_steps_back_revives_no_task(place: Place) -> None:
    """Once it was seen past its deadline, it is over by any clock."""
    registry = place.created()
    assert said(registry, entry("a", deadline=NOW + 100, most_live=1)) == "a"
    sweep(registry, NOW + 100)
    assert not registry.is_live("a", NOW + 50) and refused(registry, joining("a", now=NOW + 50))[2] == "it is over"
    assert said(registry, entry("b", deadline=NOW + 100, most_live=1, now=NOW + 50)) == "b" and registry.is_live("b", NOW + 50)
    sweep(registry, NOW + 40)
    assert registry.is_live("b", NOW + 99)


def test_47_a_clock_that_steps_back_revives_no_login(place: Place) -> None:
    """A logout is forgotten after a day. Whatever was issued until then starts nothing, of anybody."""
    registry = place.created()
    registry.end(ending(session="s1"))
    registry.end(ending(subject="acme:john", now=NOW + 1))
    later = NOW + LEEWAY + REMEMBERED + PAST
    sweep(registry, later - 1)
    back: dict[str, Any] = {"now": NOW + 5, "issued_at": NOW + LEEWAY + 4}
    assert refused(registry, entry("a", **back))[2] == "the login has ended"
    sweep(registry, later + SWEEP)
    for at in (NOW - 10, NOW + LEEWAY + 1):
        for facts in ({}, {"subject": "acme:john"}, {"subject": "acme:other", "session": None}):
            assert "forgotten logout" in refused(registry, entry("a", now=NOW + 5, issued_at=at, **facts))[2]
            assert "forgotten logout" in refused(registry, entry("a", seen(1, issued_at=at), **{**back, **facts}))[2]
    assert said(registry, entry("a", seen(1, issued_at=NOW + LEEWAY + 2), **back)) == "a"


def test_what_is_forgotten_lowers_no_floor(place: Place) -> None:
    registry = place.created(floor=None, clock=lambda: NOW)
    registry.end(ending(session="s1", now=NOW - 100))
    registry.end(ending(session="s2", now=NOW + PAST + 1))
    sweep(registry, NOW + REMEMBERED)
    assert said(registry, entry("a", issued_at=NOW + PAST, session="s3")) == "invalid_grant"
    assert said(registry, entry("a", issued_at=NOW + PAST + 1, session="s3")) == "a"
    sweep(registry, NOW + 2 * REMEMBERED)
    last = NOW + PAST + 1 + LEEWAY
    assert said(registry, entry("b", issued_at=last, session="s3")) == "invalid_grant"
    assert said(registry, entry("b", issued_at=last + 1, session="s3")) == "b"


def test_47_how_many_were_begun_is_not_known_by_a_clock_that_steps_back(place: Place) -> None:
    """Of a task that is forgotten nobody knows whether it began within the day. Without a limit, nobody asks."""
    registry = place.created()
    assert said(registry, entry("a", deadline=NOW + 100, most_per_day=1)) == "a"
    sweep(registry, NOW + 100 + DAY + PAST)
    limit: dict[str, Any] = {"most_per_day": 1, "issued_at": NOW + 100}
    for back in (NOW + 50, NOW + DAY + 99):
        with pytest.raises(StoreError, match=REFUSED_CLOCK):
            registry.enter(entry("b", now=back, **limit))
    assert said(registry, entry("b", now=NOW + DAY + 100, **limit)) == "b"
    assert said(registry, entry("c", now=NOW + 50)) == "c"


def test_a_clock_that_was_far_ahead_for_a_moment_does_not_end_it_for_good(place: Place) -> None:
    """What is out is over; what comes then goes on as before."""
    registry = place.created()
    assert said(registry, entry("a", seen())) == "a"
    sweep(registry, NOW + 100 * DAY)
    assert said(registry, entry("b", seen(2, until=NOW + 900), now=NOW + 1)) == "b" and registry.is_live("b", NOW + 1)
    assert refused(registry, entry("c", seen(), now=NOW + 1))[2] == "it is over, and what it was used for is forgotten"
    assert counted(registry)["used"] == 1
    sweep(registry, NOW + 900 + PAST)
    assert counted(registry)["used"] == 0, "and it goes on to forget"


def test_what_nothing_depends_on_is_forgotten(place: Place) -> None:
    """And no more than that: it is as large as what is out, and a day."""
    registry = place.created()
    for number in range(5):
        assert said(registry, entry(f"t{number}", seen(number))) == f"t{number}"
    registry.hear("signals", "j", NOW)
    for change in registry.end(ending(session="s1", jti="j")):
        registry.published(change.number)
    sweep(registry, NOW + 3600 + DAY + PAST - 1)
    assert counted(registry)["tasks"] == 6
    sweep(registry, NOW + 3600 + DAY + PAST + SWEEP)
    assert counted(registry) == {"used": 0, "tasks": 2, "taken": 2, "voids": 0, "heard": 0, "changes": 0, "streams": 2}


def test_what_is_due_is_never_forgotten(place: Place) -> None:
    """A clock goes ahead by days before the overlay says that a task is over."""
    registry = place.created()
    assert said(registry, entry("a", seen())) == "a"
    (change,) = registry.end(ending(session="s1"))
    sweep(registry, NOW + 10 * DAY)
    assert registry.unpublished() == (change,) and counted(registry)["tasks"] == 2
    registry.published(change.number)
    sweep(registry, NOW + 10 * DAY + SWEEP)
    assert counted(registry)["tasks"] == 2 and registry.unpublished() == ()


def counted(registry: Any) -> dict[str, int]:
    """How many rows there are."""
    tables = ("used", "tasks", "taken", "voids", "heard", "changes", "streams")
    with registry._to_write() as run:
        rows = run([(f"select count(*) from registry_{table}", ()) for table in tables])
    return {table: many for table, ((many,),) in zip(tables, rows, strict=True)}


@pytest.mark.parametrize(("first", "then"), [(100, 200), (200, 100)])
def test_an_assertion_is_remembered_for_as_long_as_anybody_may_take_it(place: Place, first: int, then: int) -> None:
    """Of two leeways the longer one counts."""
    registry = place.created()
    assert said(registry, entry("a", seen(1, until=NOW + first))) == "a"
    assert said(registry, joining("a", seen(1, until=NOW + then))) == "a"
    sweep(registry, NOW + 199 + PAST)
    assert refused(registry, entry("b", seen(1, "other", until=NOW + 200)))[2] == "it was used with another actor, client or key"
    sweep(registry, NOW + 199 + PAST + SWEEP)
    assert "forgotten" in refused(registry, entry("b", seen(1, "other", until=NOW + 200)))[2]


def test_it_is_looked_for_what_may_be_forgotten_every_ten_seconds(place: Place) -> None:
    registry = place.created()
    assert said(registry, entry("a", seen(1, until=NOW + 5))) == "a"
    sweep(registry, NOW + 5 + PAST)
    assert said(registry, entry("b", seen(2, until=NOW + 6 + PAST), now=NOW + 6 + PAST)) == "b"
    sweep(registry, NOW + 5 + PAST + SWEEP - 1)
    assert counted(registry)["used"] == 1
    sweep(registry, NOW + 6 + PAST + PAST + SWEEP)
    assert counted(registry)["used"] == 0


# --- making and opening ----------------------------------------------------------------------------------------------


def test_a_new_one_takes_nothing_of_before(shared: Place) -> None:
    """And whoever opens it finds the floor that it was made with. That opening makes none, the suite of the stores says of all."""
    first = shared.created(floor=None, clock=lambda: NOW)
    for registry in (first, shared.opened()):
        assert said(registry, entry("a", issued_at=NOW + PAST)) == "invalid_grant"
        assert said(registry, entry(f"t{id(registry)}", issued_at=NOW + PAST + 1)).startswith("t")


@pytest.mark.parametrize("floor", [-1, True, 1.5, "0", 2**63])
def test_a_floor_is_seconds_since_the_epoch(shared: Place, floor: Any) -> None:
    with pytest.raises(ValueError, match="a floor must be seconds"):
        shared.created(floor=floor)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_is_refused_or_asks_by_itself(place: Place) -> None:
    """In memory it would go its own way; a file and a server are opened anew."""
    registry = place.created()
    assert said(registry, entry("a", seen(1, None))) == "a"
    child = os.fork()
    if child == 0:
        told = said(registry, entry("b", seen(1, None))), said(registry, entry("b", seen(2, None)))
        os._exit(told != (("store", "store") if place.kind == "memory" else ("invalid_grant", "b")))
    assert os.waitpid(child, 0)[1] == 0
    assert said(registry, entry("c", seen(2, None))) == ("c" if place.kind == "memory" else "invalid_grant")
    assert said(registry, entry("d", seen(3, None))) == "d"


def test_in_a_process_that_is_another_one_memory_answers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = MemoryRegistry(floor=0)
    assert said(registry, entry("a", seen())) == "a"
    with monkeypatch.context() as patched:
        patched.setattr(OwnProcess, "is_own", lambda _: False)
        for call in (lambda: registry.enter(joining("a")), lambda: registry.is_live("a", NOW), registry.unpublished):
            with pytest.raises(StoreError, match="belongs to another process"):
                call()
    assert registry.is_live("a", NOW)


def test_what_sqlite_says_in_memory_is_a_store_error() -> None:
    registry = MemoryRegistry(floor=0)
    registry._database.close()
    for call in (lambda: registry.enter(entry("a", seen())), registry.unpublished):
        with pytest.raises(StoreError, match="the registry in memory: ProgrammingError"):
            call()


def test_54_one_that_is_full_starts_nothing() -> None:
    """In memory there is a limit. What is over makes room."""
    registry = MemoryRegistry(floor=0, limit=2)
    assert said(registry, entry("a", seen(1), seen(2))) == "a"
    with pytest.raises(StoreError, match="2 assertions are remembered"):
        registry.enter(entry("b", seen(3), subject="acme:omar"))
    assert not registry.is_live("b", NOW) and len(registry) == 2
    assert said(registry, entry("b", seen(1), seen(2))) == "b", "what is known takes no room"
    assert said(registry, entry("c", seen(3, until=NOW + 2000), now=NOW + 1000)) == "c" and len(registry) == 1


def test_nothing_of_an_assertion_but_its_digest_lies_there(tmp_path: Path) -> None:
    """A registry has names and times."""
    place = Place("sqlite", str(tmp_path / "registry.db"))
    registry = place.created()
    assert said(registry, entry("a", seen())) == "a"
    assert "digest" not in repr(registry) and os.stat(place.where).st_mode & 0o077 == 0


def test_a_grant_that_was_removed_is_meant_by_what_names_those_that_there_are(place: Place) -> None:
    """Its tasks end, whatever is said instead for others; and one in which a grant that stays is taken as well."""
    registry = place.created()
    for task, grant in (("gone-1", "gone"), ("stays-1", "q3-risk"), ("other-1", "other"), ("both-1", "q3-risk")):
        assert said(registry, entry(task, grant=grant)) == task
    within = entry("both-1", grant="gone", within=("gone", "q3-risk"))
    assert said(registry, within) == "both-1"
    known = ("q3-risk", "other")
    made = registry.end(ending(subject="acme:jane", grants=("q3-risk",), known=known, instead={"q3-risk": b"{}"}))
    assert {(change.task.id, change.narrowing) for change in made} == {("gone-1", None), ("stays-1", b"{}"), ("both-1", None)}
    assert registry.is_live("other-1", NOW) and not registry.is_live("gone-1", NOW)
    assert said(registry, entry("gone-2", grant="gone")) == "gone-2", "of a grant that is there again, the login is not over"
    (change,) = registry.end(ending(subject="acme:jane", grants=(), known=known))
    assert change.task.id == "gone-2"
    assert registry.end(ending(subject="acme:jane", grants=())) == ()
