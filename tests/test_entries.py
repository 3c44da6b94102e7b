"""What selects a token: each selector by itself, all that is stated together, and what is none."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest

from captoken._format.encoding import MAX_INTEGER, b64encode
from captoken._format.root import RootRecord
from captoken._language.entries import SelectorFacts
from captoken._language.overlay import snapshot
from captoken.control import Overlay, Selector
from tests.fixtures import NOW, mint, named, verifier
from tests.test_overlay import KEY, LINK, SELECT, TREE, World, entry, opened

FACTS = SelectorFacts(
    RootRecord(subject="user:jane", agent="orchestrator", task="task-123", token_id=TREE, issued_at=NOW, key_id="k1", version=1),
    [b"fedcba9876543210", b"0000000000000000"], "task-123/a", ("orchestrator", "sales-agent"),
)  # fmt: skip


# For each thing that selects: statements that hold of FACTS, and that do not.
HOLD: dict[str, list[Any]] = {
    "agent": ["sales-agent", "orchestrator"],
    "issued_before": [NOW + 1, MAX_INTEGER],
    "kid": ["k1"],
    "link": [LINK, b64encode(b"0" * 16)],
    "subject": ["user:jane"],
    "task": ["task-123/a", "task-123"],
    "token": [TREE],
}


FAIL: dict[str, list[Any]] = {
    "agent": ["sales", "Sales-agent", "other"],
    "issued_before": [NOW, NOW - 1, 0, -1],
    "kid": ["k2", "k", "K1"],
    "link": [TREE, b64encode(b"fedcba9876543211")],
    "subject": ["user:john", "user:jan"],
    "task": ["task-123/a/b", "task-123/b", "task-12", "task-123/aa", "task"],
    "token": [LINK, b64encode(b"0123456789abcdeg")],
}


@pytest.mark.parametrize("what", sorted(HOLD))
def test_each_selector_by_itself(what: str) -> None:
    """A statement that holds selects, one that is near it does not, asked directly and through the index of an overlay."""
    for value, expected in [(value, True) for value in HOLD[what]] + [(value, False) for value in FAIL[what]]:
        select = Selector(**{what: value})
        assert select.selects(FACTS) is expected
        assert bool(opened(entry(select)).on(FACTS, NOW)) is expected


def test_all_that_is_stated_must_hold() -> None:
    """All 2,186 combinations of the seven, each absent, right or wrong: a token is selected when none is wrong."""
    entries, expected = [], set()
    for number, signs in enumerate(product((None, HOLD, FAIL), repeat=7)):
        given = {what: table[what][0] for what, table in zip(HOLD, signs, strict=True) if table is not None}
        if given:
            entries.append(entry(Selector(**given), f"e{number}"))
            expected |= {f"e{number}"} if FAIL not in signs else set()
    found = opened(*entries).on(FACTS, NOW)
    assert len(entries) == 2186 and len(expected) == 127
    assert {one.id for one in found} == expected and len(found) == len(expected)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"token": None},
        {"token": "short"},
        {"token": TREE + "A"},
        {"token": TREE[:-1] + "="},
        {"link": LINK[:-1] + "B"},
        {"link": "!" * 22},
        {"agent": ""},
        {"agent": "a b"},
        {"subject": "\u0430"},
        {"kid": "x" * 129},
        {"task": "a//b"},
        {"task": "/a"},
        {"task": ""},
        {"issued_before": 2**53},
    ],
    ids=named,
)
def test_what_selects_nothing_is_no_selector(given: dict[str, Any]) -> None:
    """Nothing stated, ids that are none, names that are none: refused, and nothing is published."""
    world = World()
    before = world.store.load()
    with pytest.raises(ValueError):
        world.operator.revoke(why="x", **given)
    assert world.store.load() == before


@pytest.mark.parametrize(
    "given",
    [
        {"token": b"x"},
        {"link": 1},
        {"agent": True},
        {"task": 5},
        {"subject": ["a"]},
        {"colour": "red"},
        {"issued_before": "yesterday"},
        {"issued_before": True},
        {"issued_before": 1.5},
        {"issued_before": datetime(2026, 1, 1, tzinfo=UTC)},
    ],
    ids=named,
)
def test_what_is_of_another_type_is_no_selector(given: dict[str, Any]) -> None:
    world = World()
    before = world.store.load()
    with pytest.raises(TypeError):
        world.operator.revoke(why="x", **given)
    assert world.store.load() == before


def test_end_task_kills_a_task_and_those_below() -> None:
    world, token = World(), mint()
    inside, beside = token.attenuate(task="task-123/a/b"), token.attenuate(task="task-123/ab")
    done = world.operator.end_task("task-123/a")
    assert done.why == "the task is over" and done.select == Selector(task="task-123/a")
    assert [world.code(one) for one in (token, inside, beside)] == ["allowed", "revoked", "allowed"]
    world.operator.end_task("task-123", why="done")
    assert [world.code(one) for one in (token, inside, beside)] == ["revoked"] * 3


def test_entries_on_links_of_one_tree_are_found_by_the_link() -> None:
    """However many of them: a token is asked about those on its own links."""
    token, other = mint(), mint().delegate(to="x")
    chosen = [entry(Selector(token=token.token_id, link=b64encode(number.to_bytes(16, "big"))), f"e{number}") for number in range(999)]
    chosen.append(entry(Selector(token=token.token_id, link=other.link_id), "it"))
    opened = Overlay.open(snapshot(KEY, chosen, seq=1, issued_at=NOW), [KEY.public])
    assert len(opened._index.by_key) == 1000 and all(type(key) is bytes and len(found) == 1 for key, found in opened._index.by_key.items())
    one = verifier(overlay=opened)
    assert one.check(token, SELECT).code == "allowed" and one.check(other, SELECT).code == "revoked"
