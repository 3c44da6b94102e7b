"""Causes become entries: once each, whenever the process is killed (36.26)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from captoken.cli.reactions.acting import line_of
from captoken.cli.reactions.watching import Cause
from tests.longer import drawing, kills
from tests.reactions.killed import PLACES
from tests.reactions.world import PROBING, World

NOTED = """
[alert.file]
command = ["sh", "-c", "cat >> alerts"]
"""


def run(world: World, place: str) -> int:
    command = [sys.executable, "-m", "tests.reactions.killed", str(world.folder), place]
    found = subprocess.run(command, capture_output=True, cwd=world.folder, timeout=60)
    assert found.returncode in (0, -9), found.stderr
    return found.returncode


def test_killed_anywhere_no_act_is_lost_and_none_is_done_twice(tmp_path: Path) -> None:
    """20 times, and more at night: before an act, between act and note, in a batch, at an alert. What is lifted stays so."""
    world = World(tmp_path, PROBING.replace("[rule.probing]", '[react]\nmost = 1000\n[rule.probing]\nalert = ["file"]').replace("count = 5", "count = 2") + NOTED, int(time.time()))
    draw, count = drawing(45), kills(20)
    killed, tokens = 0, []
    for number in range(count):
        world.clock.advance(int(time.time()) - world.clock())  # others go by the machine's
        tokens.append(world.mint(agent=f"agent-{number}"))
        assert world.ask(tokens[-1], "hr", times=2) == "table"
        killed += run(world, PLACES[number % 4] if number < 4 else draw.choice(PLACES)) == -9
    assert run(world, "none") == 0
    world.clock.advance(int(time.time()) - world.clock())
    entries = world.entries
    assert killed > count / 3
    assert len(entries) == len(tokens) == len({entry.id for entry in entries})
    assert {world.ask(token) for token in tokens} == {"revoked"}
    alerts = [json.loads(line) for line in (tmp_path / "alerts").read_text("utf-8").splitlines()]
    assert len(alerts) == len({each["id"] for each in alerts}) and {each["id"] for each in alerts} <= {entry.id for entry in entries}
    for entry in entries:
        world.operator.lift(entry.id, why="all a mistake")
    os.remove(tmp_path / "react.db")
    assert run(world, "none") == 0
    assert world.entries == [], "what was lifted is not done again, though nothing is known any more of what was done"
    world.close()


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("revoke", "probing revokes link abc: odd (west, 5 records, the last is 7 of shop)"),
        ("most", "probing has done enough, and tells of link abc: odd (west, 5 records, the last is 7 of shop)"),
        ("late", "probing came too late for link abc: odd (west, 5 records, the last is 7 of shop)"),
        ("trail", "odd"),
    ],
)
def test_a_cause_is_a_line_for_people(does: str, said: str) -> None:
    cause = Cause(id="x", rule="probing", does=does, why="odd", at=1, trail="shop", seq=7, count=5, select={"link": "abc"}, agent="west")
    assert line_of(cause) == said
