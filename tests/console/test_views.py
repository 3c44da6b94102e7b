"""A trail of many records: what is read of it is right, and it is opened at once when it was read before.

`python -m tests.console.measure` measures a million, with a browser.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from time import monotonic

import msgspec

from captoken import Verifier
from captoken._format.spelling import readable_time
from captoken.audit import AuditTrail
from captoken.cli.console import views
from captoken.cli.console.index import Index
from tests.console import many
from tests.console.fixtures import NOW, Browser, World

COUNT = 50_000
SOON = 5  # seconds, of a machine that is busy


def test_many_records_are_counted_once_and_opened_soon(tmp_path: Path) -> None:
    many.write(tmp_path / "trail.jsonl", COUNT)
    first = Index(tmp_path / "index.db", [tmp_path / "trail.jsonl"])
    first.take()
    first.close()

    began = monotonic()
    index = Index(tmp_path / "index.db", [tmp_path / "trail.jsonl"])
    assert not index.take()
    now = views.now_view(index, None, many.END)
    task = views.task_view(index, None, lambda *_: None, many.END, now["tasks"][0]["key"])
    assert task is not None
    agents = [views.agent_view(index, None, lambda *_: None, many.END, node["id"]) for node in task["nodes"]]
    then = views.now_view(index, None, many.END, many.END - many.DAY // 2)
    assert monotonic() - began < SOON

    expected: Counter[tuple[str, bool]] = Counter()
    with (tmp_path / "trail.jsonl").open("rb") as lines:
        for record in map(msgspec.json.decode, lines):
            if record["kind"] == "decision":
                expected[record["task"], record["allowed"]] += 1
    assert now["trails"][0] == {"name": "trail", "records": COUNT, "last_at": many.END - 2, "trouble": None, "lacks": None}
    assert len(now["tasks"]) == many.TASKS and now["more"] == 0
    for one in now["tasks"]:
        assert (one["allowed"], one["denied"]) == (expected[one["key"], True], expected[one["key"], False])
    assert sum(one["allowed"] + one["denied"] for one in then["tasks"]) < sum(expected.values())
    assert sum(node["allowed"] for node in task["nodes"]) == task["task"]["allowed"]
    assert all(agent is not None and agent["decisions"]["rows"] for agent in agents)


def test_history_and_questions_count_the_same_calls_at_each_second(world: World, browser: Browser) -> None:
    """Of records that were written seconds after they were decided, too: each call has one time, and no count falls."""
    late = 0.0
    world.verifier = Verifier(
        world.keyring, clock=world.clock, audit=AuditTrail(world.trail.write, head=world.trail.head, clock=lambda: world.now + late)
    )
    begun = world.now = NOW - NOW % 60 + 45
    root = world.mint()
    child = root.delegate(to="sales-agent")
    for late in (0.2, 9.8, 31.0, 14.9):  # noqa: B007, the clock of the trail reads it
        world.ask(root)
        world.ask(child, "hr")
        world.now += 4
    world.now = begun + 100
    before = 0
    for at in range(begun - 2, begun + 60):
        tasks = browser.get(f"/api/now?at={at}").json["tasks"]
        asked = browser.get(f"/api/query?q=task:q3&at={at}").json
        view = browser.get(f"/api/task?task=q3&at={at}").json
        counts = [(one["allowed"], one["denied"]) for one in tasks] or [(0, 0)]
        assert counts == [(asked["allowed"], asked["denied"])] == [(view["task"]["allowed"], view["task"]["denied"])], at
        assert sum(node["allowed"] for node in view["nodes"]) == asked["allowed"]
        assert len(view["nodes"]) == view["task"]["agents"] and (asked["denied"] > 0) == (len(view["nodes"]) == 2)
        assert sum(counts[0]) >= before
        before = sum(counts[0])
    assert before == 8
    row = browser.get("/api/decisions").json["rows"][0]
    assert browser.get(f"/api/decision?key={row['key']}").json["moment"].startswith(readable_time(row["at"])[:19])


def test_history_has_no_task_before_its_first_call_and_is_in_the_order_of_then(world: World, browser: Browser) -> None:
    first, second = world.mint("first"), world.mint("second")
    begun = world.now
    for token, seconds in ((first, 10), (second, 10), (first, 10)):
        world.now += seconds
        world.ask(token)
    tasks = lambda at: [(one["task"], one["last_at"]) for one in browser.get(f"/api/now?at={at}").json["tasks"]]  # noqa: E731
    assert tasks(begun + 5) == []
    assert tasks(begun + 15) == [("first", begun + 10)]
    assert tasks(begun + 25) == [("second", begun + 20), ("first", begun + 10)]
    assert tasks(begun + 35) == [("first", begun + 30), ("second", begun + 20)]
