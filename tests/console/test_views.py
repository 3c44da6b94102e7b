"""A trail of many records: what is read of it is right, and it is opened at once when it was read before.

`python -m tests.console.measure` measures a million, with a browser.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from time import monotonic

import msgspec

from captoken.cli.console import views
from captoken.cli.console.index import Index
from tests.console import many

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
