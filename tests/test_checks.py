"""The checks of a token's links, put together by what they look at: they answer as the links do."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from captoken import Access
from captoken._language import checks
from captoken._language.checks import Checks
from captoken._language.kinds import Situation
from captoken._language.link import Link
from captoken._verification import plan
from tests.fixtures import NOW, mint, verifier
from tests.fixtures import data as of_table
from tests.fixtures import tool as of_tool
from tests.test_links_decide import HERE, _link, row


def test_each_check_of_a_row_is_told_what_is_asked_and_where() -> None:
    told: list[Any] = []

    def check(*given: Any) -> None:
        told.append(given)

    asked = Access(table="t", operation="select", tool="f")
    late = {domain: [check] for domain in ("all", "data", "tool")}
    assert Checks((check,), (), True, late, (), {}).permit(asked, HERE)
    assert told == [(None, HERE), *[(asked, HERE)] * 3]
    assert Checks((), (frozenset(("here",)),), True, {}, (), {}).permit(None, HERE)


def test_what_a_shape_is_asked_is_put_together_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Link] = []
    inner = checks.closed
    monkeypatch.setattr(checks, "closed", lambda link, access: looked.append(link) or inner(link, access))
    one = row({"tables": ["t"]})
    for table in ("t", "t", "u"):
        assert one.permit(of_table(table), HERE) is (table == "t") and len(looked) == 1
    for _ in range(2):
        assert not one.permit(of_tool("f"), HERE) and len(looked) == 2
    assert one.shapes.keys() == {(True, False), (False, True)}


def test_rows_are_made_for_the_second_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is answered sooner link by link; and of a text that is remembered, once for all that send it."""
    made: list[int] = []
    inner: Callable[..., Any] = Checks.of
    monkeypatch.setattr(Checks, "of", lambda *given: made.append(1) or inner(*given))
    one, text = verifier(), mint(tables=["t"], operations=["select"]).serialize()
    one.check(text, of_table("t"))
    assert not made
    grant = one.authenticate(text)
    grant.check(of_table("t"))
    grant.check(of_table("t"))
    assert len(made) == 1
    for _ in range(5):
        assert one.check(text, of_table("t")) and not one.check(text, of_table("u"))
    assert len(made) == 1


def drawn(rng: random.Random) -> Iterator[dict[str, Any]]:
    """A few links that say much the same."""
    for _ in range(rng.randint(1, 6)):
        made: dict[str, Any] = {}
        for key, values in DRAWN.items():
            if rng.random() < 0.3:
                made[key] = rng.choice(values)
        yield made or {"exp": NOW + 5}


DRAWN: dict[str, list[Any]] = {
    "tables": [["t"], ["t", "u.*"], ["*"]],
    "operations": [["select"], ["*"], ["insert", "select"]],
    "allow": [{"*": ["select"], "u.*": []}, {"t": ["*"]}],
    "columns": [{"t": ["id"]}, {"*": ["*"]}],
    "tools": [{"f": {}}, {"*": {}}, {"f": {"x": {"in": [1, "a"]}}}, {"f": {"x": {"max": 3, "min": 0}}}],
    "where": [{"n": {"max": 3}}, {"n": {"in": [1]}}, {"n": {"in": [True]}}],
    "exp": [NOW + 5, NOW + 1, NOW],
    "nbf": [NOW, NOW - 5],
    "aud": [["here"], ["here", "there"], ["there"]],
    "task": ["task-123", "task-123/a", "task-123/a/b", "task-123/c"],
    "fresh": [5],
}


ACCESSES = [
    None,
    Access(),
    *(of_table(table, operation, *columns, **n) for table in ("t", "u.v") for operation in ("select", "insert") for columns in ((), ("id",)) for n in ({}, {"n": 1})),
    *(of_tool("f", **given) for given in ({}, {"x": 1}, {"x": "a"}, {"x": True})),
    Access(table="t", operation="select", tool="f", attributes={"n": 1}),
]


def test_rows_and_links_answer_alike() -> None:
    """20,000 drawn questions: the row permits what the links one by one permit, and nothing else."""
    rng, seen = random.Random(7), [0, 0]
    for _ in range(1000):
        links = [_link(stated) for stated in drawn(rng)]
        flat = Checks.of(links, "task-123", None)
        for asked in rng.choices(ACCESSES, k=20):
            situation = Situation(NOW, 0, rng.choice((frozenset(), frozenset(("here",)), HERE.audiences)), "task-123", rng.choice((None, 3, 9)))
            permitted = flat.permit(asked, situation)
            assert permitted == _one_by_one(links, asked, situation), (links, asked, situation)
            seen[permitted] += 1
    assert min(seen) > 500, seen


def _one_by_one(links: list[Link], asked: Access | None, situation: Situation) -> bool:
    at = situation
    for link in links:
        if plan.early_prohibits(link, at) is not None:
            return False
        at = plan.after(at, link)
    return all(plan.late_prohibits(link, asked, situation) is None for link in links)
