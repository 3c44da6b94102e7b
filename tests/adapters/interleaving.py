"""One run that is approved, refused, let expire, built anew and resumed, in any order: what tests of all frameworks draw."""

from __future__ import annotations

import random
from typing import Any

from tests.adapters.consents import LOOKUP, MAIL, REFUND, Call, Desk
from tests.longer import drawing, times

ASKED = {one[1]: one[2] for one in (LOOKUP, MAIL, REFUND)}


def claim(framework: Any, calls: tuple[Call, ...] = (LOOKUP, MAIL, REFUND)) -> None:
    """No order of steps makes a call twice, or without a consent of its own: 25 orders by day, 10,000 by night."""
    rng = drawing(f"consents {framework.__name__}")
    ran = [interleaved(framework, rng, calls).ran for _ in range(times(25))]
    paid = sum(tool != "lookup" for calls in ran for tool, _ in calls)
    assert len(ran) / 8 < paid < len(ran), "some orders lead to a call, and many to none"


def interleaved(framework: Any, rng: random.Random, calls: tuple[Call, ...]) -> Desk:
    """One order of steps. Each step may see any state that was stored before, and is made by what is built anew."""
    desk = Desk()
    one = framework(desk)  # which may have another name for the agent
    with desk.using([]):
        states = [one.begin(*rng.sample(calls, len(calls)))]
    given: list[tuple[str, int, str]] = []  # of each consent: what it is to, until when, and its text
    for _ in range(rng.randint(3, 8)):
        at = rng.choice(states)
        step = rng.choice(("approve", "approve", "expire", "resume", "resume", "refuse"))
        if step == "expire":
            desk.clock.seconds += rng.choice((1, 60, 3600))
        elif not at.waiting:
            continue
        elif step == "approve":
            wanted, lasts = rng.choice(at.waiting), rng.choice((1, 60, 3600))
            given.append((wanted["tool"], desk.clock.seconds + lasts, *desk.yes(wanted, expires_in=lasts)))
        else:
            no = {one["id"]: one["tool"] for one in at.waiting if step == "refuse" and rng.random() < 0.7}
            shown = rng.sample(given, rng.choice((rng.randint(0, len(given)), len(given))))
            before = len(desk.ran)
            with desk.using([text for *_, text in shown]):
                states.append(framework(desk).go_on(at.stored, no=tuple(no)))
            check(desk, before, shown, no, given)
    return desk


def check(desk: Desk, before: int, shown: list[Any], no: dict[str, str], given: list[Any]) -> None:
    """What ran in a step is what was asked for, with a consent of its own that was shown and was still good, and no refusal."""
    ran = [tool for tool, _ in desk.ran[before:]]
    assert all(arguments == ASKED[tool] for tool, arguments in desk.ran)
    for tool in ("mail", "refund"):
        good = sum(to == tool and until > desk.clock.seconds for to, until, _ in shown)
        assert ran.count(tool) <= good, (tool, ran, shown)
        assert desk.count(tool) <= sum(to == tool for to, *_ in given), (tool, desk.ran)
    assert not set(ran) & set(no.values()), (ran, no)
