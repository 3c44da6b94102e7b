"""One identity asks so often, and has a part of the registry: nobody else is kept waiting."""

from __future__ import annotations

from typing import Any

import pytest

from captoken.adapters._issuance.rates import MINUTE, Rates, seconds_for
from captoken.errors import IssuanceError, StoreError
from captoken.issuance.policy import read
from captoken.issuance.registry import MemoryRegistry
from captoken.issuance.registry._rules import PER_SUBJECT
from captoken.issuance.registry._tables import RegistryTables

from .fixtures import NOW, POLICY, policy
from .registries import Place, ending, entry, joining, said, seen, tasks
from .test_issuance import EXCHANGE, ID_TOKEN, ROOT, World, exchange, login, nightly, proof, svid, workflow
from .test_records import forged

JANE = ("acme", "jane")
OMAR = ("acme", "omar")


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# --- how often -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_minute", [1, 3, 60, 1000])
def test_so_many_at_once_and_then_so_many_a_minute(per_minute: int) -> None:
    clock = Clock()
    rates = Rates(clock=clock)
    assert [rates.over(JANE, None, per_minute) for _ in range(per_minute + 5)] == [0] * per_minute + [1, 2, 3, 4, 5]
    for _ in range(3):
        clock.now += seconds_for(per_minute)
        assert not rates.over(JANE, None, per_minute), "what was refused is not counted"
    clock.now += MINUTE
    assert [rates.over(JANE, None, per_minute) for _ in range(per_minute + 5)].count(0) == per_minute


def test_whoever_asks_evenly_is_never_refused() -> None:
    clock = Clock()
    rates = Rates(clock=clock)
    for _ in range(500):
        assert rates.over(JANE, None, 7) == 0
        clock.now += MINUTE / 7


def test_each_has_a_count_of_its_own_and_of_those_who_asked_long_ago_none_is_kept() -> None:
    clock = Clock()
    rates = Rates(remembered=3, clock=clock)
    assert [rates.over(one, None, 1) for one in (JANE, JANE, OMAR)] == [0, 1, 0]
    for number in range(100):
        assert rates.over(("ci", str(number)), None, 1) == 0
        assert rates.over(JANE, None, 1) == number + 2, "who goes on asking is not forgotten"
        assert len(rates) <= 3
    assert rates.over(OMAR, None, 1) == 0, "forgotten, and with it what it had used"


def test_another_policy_counts_by_its_own_number() -> None:
    rates = Rates(clock=Clock())
    assert [rates.over(JANE, None, 2) for _ in range(3)] == [0, 0, 1]
    assert rates.over(OMAR, None, 4) == 0 and rates.over(JANE, None, 4) == 2


def test_what_was_shown_before_is_counted_apart() -> None:
    """By who shows it, and by its digest: neither its owner nor another one of theirs waits for it."""
    clock = Clock()
    rates = Rates(clock=clock)
    assert [rates.over(JANE, b"spent", 3) for _ in range(6)] == [0, 0, 0, 1, 2, 3]
    assert [rates.over(JANE, bytes([number]), 3) for number in range(4)] == [0, 0, 1, 2], "the first of it was one of hers"
    assert rates.over(JANE, b"spent", 3) == 4 and rates.over(OMAR, b"spent", 3) == 0
    assert [rates.over(JANE, bytes([3]), 3) for _ in range(3)] == [3, 4, 5], "one that was too many is new the next time"
    clock.now += MINUTE / 3
    assert [rates.over(JANE, bytes([3]), 3), rates.over(JANE, bytes([4]), 3), rates.over(JANE, b"spent", 3)] == [0, 1, 0]


def test_many_that_were_shown_before_push_out_no_caller() -> None:
    rates = Rates(remembered=3, clock=Clock())
    assert [rates.over(JANE, None, 9) for _ in range(9)] == [0] * 9
    for number in range(20):
        assert rates.over(OMAR, bytes([number]), 1000) == 0
    assert rates.over(JANE, None, 9) == 1 and len(rates) == 2


def slow(per_minute: int = 2, **facts: Any) -> World:
    made = World(read(POLICY.replace("[service]", f"[service]\nper_minute = {per_minute}")), **facts)
    made.app._rates = Rates(clock=Clock())  # however long a test takes, no time passes
    return made


def test_a_spent_login_that_a_thief_shows_again_does_not_lock_its_owner_out(place: Place) -> None:
    """A thousand times, between each two logins of hers. She has as many as ever, and no more."""
    reading = {"grant_type": EXCHANGE, "subject_token_type": ID_TOKEN, "resource": "sales-db", "requested_token_type": ROOT}
    one = slow(12, registry=place.created())
    spent = {**reading, "subject_token": login(groups=["readers"], iat=NOW - 20)}
    assert one.ask(**spent)["status"] == 200

    def thief() -> set[int]:
        return {int(one.ask(**spent)["status"]) for _ in range(40)}

    fresh = []
    for number in range(13):
        assert thief() <= {400, 429}
        mine = {**reading, "subject_token": login(groups=["readers"], iat=NOW - number)}
        fresh.append(one.ask(**mine)["status"])
    assert fresh == [200] * 11 + [429] * 2, "the spent one was the first of twelve"


def test_nor_does_a_spent_identity_of_a_workload(place: Place) -> None:
    one = slow(3, registry=place.created())
    spent = nightly(client_assertion=workflow(jti="spent"))
    assert one.ask(**spent)["status"] == 200
    assert {one.ask(**spent)["status"] for _ in range(50)} == {400, 429}
    fresh = [one.ask(**nightly(client_assertion=workflow(jti=str(number))))["status"] for number in range(3)]
    assert fresh == [200, 200, 429]


def test_429_after_the_signature_for_that_identity_alone() -> None:
    one = slow()
    for number in range(2):
        assert one.ask(**nightly(client_assertion=workflow(jti=str(number))))["status"] == 200
    answer = one.send("POST", "/token", data=nightly(client_assertion=workflow(jti="3")))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
    assert answer.json() == {"error": "slow_down", "error_description": "you have sent too many requests: wait"}
    other = workflow(jti="4", sub="repo:acme/y:ref:refs/heads/main")
    assert one.ask(**nightly(client_assertion=other))["status"] == 200, "another's are not concerned"


def test_the_pair_of_subject_and_actor_is_counted() -> None:
    one = slow(1)
    assert one.ask(proof(), **exchange())["status"] == 200
    assert one.ask(proof(jti="j2"), **exchange(subject_token=login(iat=NOW - 4)))["status"] == 429
    other = exchange(subject_token=login(iat=NOW - 3), client_assertion=svid("deputy"))
    assert one.ask(proof(jti="j3"), **other)["status"] == 200
    assert one.ask(proof(jti="j4"), **exchange(subject_token=login(sub="omar", iat=NOW - 2)))["status"] == 200


def test_what_is_refused_by_the_policy_counts_and_what_is_not_verified_leaves_no_trace() -> None:
    one = slow()
    for _ in range(5):
        assert one.ask(**nightly(client_assertion=forged(workflow())))["status"] == 401
    assert len(one.app._rates) == 0
    stranger = [one.ask(**nightly(client_assertion=workflow(ref="x", jti=str(number))))["status"] for number in range(3)]
    assert stranger == [400, 400, 429] and len(one.app._rates) == 1


@pytest.mark.parametrize("number", [0, -1])
def test_the_policy_says_how_often(number: int) -> None:
    assert policy().per_minute == 60 and slow(7).policy.per_minute == 7
    with pytest.raises(IssuanceError, match="per_minute is a number of requests"):
        slow(number)


# --- how much --------------------------------------------------------------------------------------------------------


def test_there_is_always_an_end_of_the_tasks_that_a_subject_has() -> None:
    loaded = policy()
    assert loaded.grants["nightly"].tasks.live == 1000 and loaded.grants["nightly"].tasks.per_day is None
    assert loaded.grants["q3-risk"].tasks.live == 3
    once = World(read(POLICY.replace("[grant.nightly]", "[grant.nightly]\ntasks = { live = 1 }")))
    assert once.ask(**nightly())["status"] == 200
    assert once.ask(**nightly(client_assertion=workflow(jti="2")))["error"] == "unauthorized_client"


def test_one_subject_has_its_part_of_a_registry(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000, and in memory a tenth of what there is room for. Here ten."""
    assert RegistryTables._per_subject == PER_SUBJECT == MemoryRegistry(floor=0)._per_subject == 10_000
    assert MemoryRegistry(floor=0, limit=100)._per_subject == 10 and MemoryRegistry(floor=0, limit=3)._per_subject == 2
    registry = place.created()
    monkeypatch.setattr(registry, "_per_subject", 10)
    for number in range(10):
        assert said(registry, entry(f"a{number}", seen(number))) == f"a{number}"
    with pytest.raises(IssuanceError) as caught:
        registry.enter(entry("b", seen(11)))
    assert caught.value.code == "access_denied" and caught.value.why == "one subject has 10 at most"
    assert str(caught.value) == "this service remembers 10 of your assertions, and takes no more now"
    assert said(registry, joining("a0", seen(1))) == "a0", "what is known takes no room"
    assert said(registry, joining("a0")) == "a0"
    omar: dict[str, Any] = {"subject": "acme:omar", "session": None}
    assert said(registry, entry("c", seen(12), **omar)) == "c", "others have theirs"

    # What is over makes room.
    later = {"now": NOW + 1000, "issued_at": NOW + 900}
    for number in range(13, 23):
        assert said(registry, entry(f"d{number}", seen(number, until=NOW + 2000), **later)) == f"d{number}"
    assert said(registry, entry("e", seen(23, until=NOW + 2000), **later)) == "access_denied"
    assert said(registry, entry("e", seen(23), subject="acme:omar", now=NOW + 5000, issued_at=NOW + 5000)) == "invalid_grant"


def test_an_assertion_that_outlives_its_task_is_counted_for_its_subject() -> None:
    """For as long as it is remembered, and no longer."""
    registry, day = MemoryRegistry(floor=0, limit=20), 86_400
    assert said(registry, entry("a", seen(1, until=NOW + 3 * day), deadline=NOW + 100)) == "a"
    second: dict[str, Any] = {"now": NOW + 2 * day, "issued_at": NOW + 2 * day}
    assert said(registry, entry("b", seen(2, until=NOW + 2 * day + 600), **second)) == "b"
    assert tasks(registry) == ["b"] and len(registry) == 2
    assert said(registry, entry("c", seen(3), **second)) == "access_denied", "one subject has two of twenty"
    third: dict[str, Any] = {"now": NOW + 4 * day, "issued_at": NOW + 4 * day}
    for number in (4, 5):
        assert said(registry, entry(f"t{number}", seen(number, until=NOW + 5 * day), **third)) == f"t{number}"
    assert len(registry) == 2 and said(registry, entry("d", seen(6, until=NOW + 5 * day), **third)) == "access_denied"


def test_the_whole_is_full_for_everybody() -> None:
    registry = MemoryRegistry(floor=0, limit=20)
    for number in range(20):
        assert said(registry, entry(f"a{number}", seen(number), subject=f"acme:{number // 2}")) == f"a{number}"
    with pytest.raises(StoreError, match="20 assertions are remembered"):
        registry.enter(entry("b", seen(21), subject="acme:other"))


def test_a_task_that_is_over_counts_no_more_however_it_ended() -> None:
    registry = MemoryRegistry(floor=0)
    once: dict[str, Any] = {"most_live": 1}
    assert said(registry, entry("a", deadline=NOW + 50, **once)) == "a"
    assert said(registry, entry("b", now=NOW + 50, **once)) == "b"

    # Past its deadline, and ended after that, for a server whose clock is behind.
    (change,) = registry.end(ending(now=NOW + 51, task="a"))
    assert change.task.id == "a"
    registry.published(change.number)
    (change,) = registry.end(ending(now=NOW + 51, task="b"))
    registry.published(change.number)
    assert tasks(registry) == ["a", "b"]
    assert said(registry, entry("c", now=NOW + 52, **once)) == "c"

    long = NOW + 10 * 86_400
    assert said(registry, entry("d", now=long, issued_at=long, subject="acme:omar")) == "d"
    assert tasks(registry) == ["d"]
