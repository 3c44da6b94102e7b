"""When a rule is crossed: functions of values, so that a replay finds what a reactor finds."""

from __future__ import annotations

import random
from typing import Any

import pytest

from captoken.cli.reactions.rules import Actor, Known, Rule, Seen, Window, is_more_than_usual

FACTS: dict[str, Any] = {
    "name": "it", "codes": frozenset(("table",)), "tables": (), "tools": (), "mark": None, "count": 3, "usual": None, "within": 60,
    "by": "link", "then": "revoke", "caveats": {}, "lasts": None, "why": "odd", "hours": None, "level": None, "alert": (),
}  # fmt: skip


def rule(**given: Any) -> Rule:
    return Rule(**{**FACTS, **given})


def seen(**given: Any) -> Seen:
    return Seen(**{"at": 1, "allowed": False, "code": "table", "seq": 1, "token": "t", "link": "l", "task": "q3/a", "sub": "ann", **given})


def digest(number: int) -> bytes:
    return number.to_bytes(16, "little")


def test_so_many_within_the_time_in_whichever_order_they_come() -> None:
    """Against all records at once: is there a span of a minute with three? The records of two trails come mixed."""
    draw = random.Random(3)
    found = 0
    for _ in range(300):
        moments = [draw.randrange(0, 200_000) for _ in range(3)]
        window = Window()
        answers = [window.reached(rule(), moment, digest(at)) for at, moment in enumerate(moments)]
        assert answers[:2] == [False, False] and answers[2] is (max(moments) - min(moments) <= 60_000)
        found += answers[2]
    assert 10 < found < 290


def test_one_record_counts_once_and_counting_begins_anew() -> None:
    window = Window()
    assert [window.reached(rule(), 5, digest(number)) for number in (1, 1, 2, 2, 3)] == [False, False, False, False, True]
    assert [window.reached(rule(), 6, digest(number)) for number in (4, 5, 6)] == [False, False, True]


def test_a_flood_does_not_teach_that_floods_are_usual() -> None:
    """Six spans with two records, one with 1000: what is usual is still about two, and not 150."""
    it, task = rule(count=0, usual=10), Window()
    for span in range(1, 8):
        for _ in range(2):
            task.usual(it, span * 60_000)
    for _ in range(1000):
        task.usual(it, 8 * 60_000)
    after = task.usual(it, 9 * 60_000)
    assert after is not None and after < 6
    assert is_more_than_usual(it, 21, 2.0) and not is_more_than_usual(it, 20, 2.0) and not is_more_than_usual(it, 22, 2.0)


@pytest.mark.parametrize(
    ("by", "chain", "selected"),
    [
        ("link", [], {"link": "hop"}),
        ("task", [], {"task": "q3"}),
        ("subject", [], {"subject": "ann"}),
        ("agent", [("lead", "issued")], {"agent": "lead", "task": "q3"}),
        ("agent", [("lead", "issued"), ("clerk", "proven"), ("boss", "vouched")], {"agent": "clerk", "task": "q3"}),
        ("agent", [], {}),
    ],
)
def test_whom_an_entry_is_on(by: str, chain: list[tuple[str, str]], selected: dict[str, str]) -> None:
    one = seen(chain=tuple(Actor(*each) for each in chain))
    assert rule(by=by).select(one, Known("hop", "q3")) == selected


def test_a_token_without_links_is_known_by_its_own_id() -> None:
    assert rule().select(seen(link=None), Known("", "q3")) == {"token": "t"}


def test_the_id_of_a_cause_is_of_rule_and_record_alone() -> None:
    ids = {rule(name=name).cause(digest(number)) for name in ("a", "b") for number in (1, 2)}
    assert len(ids) == 4 and all(len(each) == 22 for each in ids)
    assert rule(name="a", why="other", count=9).cause(digest(1)) in ids
