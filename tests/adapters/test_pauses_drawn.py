"""Pauses for a person's consent, in any order of steps, and in processes that are killed: no call is made twice by one consent."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.adapters import resuming
from tests.adapters.consents import LOOKUP, MAIL, REFUND, Desk
from tests.adapters.pauses_langgraph import InAnAgent, InANode
from tests.adapters.pauses_openai import OpenAIAgents
from tests.adapters.pauses_pydantic_ai import PydanticAI
from tests.longer import drawing, kills, times

FRAMEWORKS = [OpenAIAgents, PydanticAI, InANode, InAnAgent]


def interleaved(framework: Any, rng: random.Random) -> Desk:
    """One run that is approved, refused, let expire, rebuilt and resumed in any order. Each step may see an earlier state."""
    desk = Desk()
    with desk.using([]):
        stopped = framework(desk).begin(*rng.sample([LOOKUP, MAIL, REFUND], 3))
    states, consents, given = [stopped], [], {"mail": 0, "refund": 0}
    for _ in range(rng.randint(3, 8)):
        at = rng.choice(states)
        step = rng.choice(("approve", "approve", "expire", "resume", "resume", "refuse"))
        if step == "approve" and at.waiting:
            wanted = rng.choice(at.waiting)
            consents += desk.yes(wanted, expires_in=rng.choice((1, 60, 3600)))
            given[wanted["tool"]] += 1
        elif step == "expire":
            desk.clock.seconds += rng.choice((1, 60, 3600))
        else:
            no = tuple(one["id"] for one in at.waiting if step == "refuse" and rng.random() < 0.7)
            shown = rng.sample(consents, rng.choice((rng.randint(0, len(consents)), len(consents))))
            with desk.using(shown):
                states.append(framework(desk).go_on(at.stored, no=no) if at.waiting else at)
        for tool, arguments in desk.ran:
            assert (tool, arguments) in ((one[1], one[2]) for one in (LOOKUP, MAIL, REFUND))
        for tool, most in given.items():
            assert desk.count(tool) <= most, (tool, desk.ran, step)
    return desk


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_no_order_of_steps_makes_a_call_twice_or_without_its_own_consent(framework: Any) -> None:
    rng = drawing(f"consents {framework.__name__}")
    ran = [interleaved(framework, rng).ran for _ in range(times(25))]
    paid = sum(tool != "lookup" for calls in ran for tool, _ in calls)
    assert len(ran) / 8 < paid < len(ran), "some orders lead to a call, and many to none"


def test_a_process_that_is_killed_makes_no_call_twice(tmp_path: Path) -> None:
    """Killed at any moment of a resumed run, and resumed again from the same stored state, with the same consents."""
    rng = drawing("killed consents")
    resuming.prepare(tmp_path)
    for _ in range(kills(3)):
        with resuming.process(tmp_path) as running:
            assert running.stdout is not None and running.stdout.readline() == b"ready\n"
            time.sleep(rng.random() * 0.05)
            running.kill()
        assert resuming.ran(tmp_path).count("mail") <= 1 and resuming.ran(tmp_path).count("refund") <= 1
    with resuming.process(tmp_path) as running:
        output, _ = running.communicate(timeout=60)
    assert output.endswith(b"done\n") and running.returncode == 0
    assert resuming.ran(tmp_path).count("mail") <= 1 and resuming.ran(tmp_path).count("refund") <= 1
    assert resuming.decided(tmp_path) <= {"allowed", "replayed"}
