"""What waits for a decision: it is over after its time, nobody is dropped, and one of many decides."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from captoken.discharge import Allow, Refuse, Wait
from tests.adapters.test_discharge_service import NOW, PERSON, Site


def test_a_request_is_over_after_its_time_decided_or_not() -> None:
    site = Site(PERSON, keep=100)
    (poll, user), (second, approved) = site.wait(), site.wait()
    site.post(approved)
    ids = [pending.id for pending in site.service.pending()]
    site.now += 99
    assert site.get(poll).status == 202 and site.service.pending()[0].expires_at == NOW + 100
    site.now += 1
    assert site.get(poll).status == site.get(second).status == site.get(user).status == site.post(user).status == 404
    assert site.service.pending() == () and not site.service.decide(ids[0], Allow(expires_in=60), by="operator")


def test_when_it_is_full_nobody_is_dropped() -> None:
    site = Site(PERSON, limit=3, keep=100)
    polls = [site.wait()[0] for _ in range(3)]
    assert site.ask().status == 503
    assert [site.get(poll).status for poll in polls] == [202] * 3
    site.now += 100
    assert site.ask().status == 202
    assert [site.get(poll).status for poll in polls] == [404] * 3


def test_an_operator_decides_without_the_page() -> None:
    site = Site(Wait())
    polls = [site.ask({"n": n}).json["poll_url"] for n in range(3)]
    first, second, third = site.service.pending()
    assert [pending.need["n"] for pending in (first, second, third)] == [0, 1, 2]
    assert site.service.decide(first.id, Allow(expires_in=5), by="operator")
    assert site.service.decide(second.id, Refuse("not today"), by="operator")
    assert site.service.pending() == (third,)
    assert [site.get(poll).status for poll in polls] == [200, 403, 202]
    assert [(decided.request, decided.by) for decided in site.audit] == [(first, "operator"), (second, "operator")]
    with pytest.raises(TypeError):
        site.service.decide(third.id, True, by="operator")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expires"):
        site.service.decide(third.id, Allow(tables=["sales"]), by="operator")
    assert site.service.pending() == (third,)
    assert not site.service.decide("unknown", Refuse(), by="operator")


def test_while_somebody_decides_the_policy_does_not() -> None:
    """Else a poll could fetch the policy's yes while an operator's no is being written down."""
    statuses: list[int] = []
    site = Site(Wait(), Allow(expires_in=60), on_decision=lambda decided: statuses.append(site.get(poll).status))
    poll = site.ask().json["poll_url"]
    assert site.service.decide(site.service.pending()[0].id, Refuse("no"), by="operator")
    assert (statuses, site.get(poll).status) == ([202], 403)


def together(work: Callable[[int], Any]) -> list[Any]:
    """What `work` returns in 8 threads that start at once."""
    barrier, results, interval = threading.Barrier(8), [], sys.getswitchinterval()

    def one(number: int) -> None:
        barrier.wait()
        results.append(work(number))

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(results) == 8
    return results


def test_of_eight_who_decide_at_once_one_does_and_of_eight_who_fetch_one_gets_it() -> None:
    site = Site(PERSON)
    for _ in range(20):
        poll, user = site.wait()
        id, site.audit[:] = user[-43:], []
        answers = [Allow(expires_in=60) if number % 2 else Refuse(str(number)) for number in range(8)]
        won = together(lambda number: site.service.decide(id, answers[number], by=str(number)))  # noqa: B023
        assert sorted(won) == [False] * 7 + [True]
        (decided,) = site.audit
        assert decided.answer is answers[int(decided.by)]
        got = together(lambda number: site.get(poll).status)  # noqa: B023
        assert sorted(got) == sorted([200 if int(decided.by) % 2 else 403] + [404] * 7)
