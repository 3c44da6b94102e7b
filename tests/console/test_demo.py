"""The demo's story beside the console: it begins when somebody looks, and goes on as an operator lets it."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from captoken.cli.demo import command
from captoken.cli.demo.story import play
from captoken.cli.demo.world import World

WAIT = 60  # seconds, of a machine that is busy


class Looker:
    """Who has opened the console of a demo."""

    def __init__(self, address: str) -> None:
        self._host, _, once = address.removeprefix("http://").partition("/")
        self._headers: dict[str, str] = {}
        self._below = ""
        status, headers, _ = self._ask("GET", f"/{once}")
        assert status == 200
        self._below = headers["content-location"].removesuffix("/")
        session = headers["set-cookie"].partition(";")[0]
        self._headers = {"Cookie": session, "Origin": f"http://{self._host}", "Content-Type": "application/json"}
        self._headers["X-Captoken-Form"] = self.get("/api/session")["csrf"]

    def _ask(self, method: str, target: str, body: str | None = None) -> tuple[int, Any, bytes]:
        asking = http.client.HTTPConnection(self._host, timeout=WAIT)
        asking.request(method, self._below + target, body, self._headers)
        answer = asking.getresponse()
        found = answer.status, answer.headers, answer.read()
        asking.close()
        return found

    def get(self, target: str) -> Any:
        status, _, body = self._ask("GET", target)
        assert status == 200, body
        return json.loads(body)

    def post(self, target: str, said: Any) -> Any:
        status, _, body = self._ask("POST", target, json.dumps(said))
        assert status == 200, body
        return json.loads(body)

    def until(self, target: str, is_so: Any) -> Any:
        """What is answered once it is so."""
        end = monotonic() + WAIT
        while not is_so(found := self.get(target)):
            assert monotonic() < end, found
            sleep(0.05)
        return found


@contextmanager
def told(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], Looker]]:
    """A demo that somebody watches. Its temporary files are in `folder`."""
    words = [sys.executable, "-m", "captoken", "demo", "--console", "--no-open", "--seed", "7", *options]
    env = {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUTF8": "1", "TMPDIR": str(folder)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as running:
        assert running.stdout is not None
        try:
            yield running, Looker(running.stdout.readline().strip())
        finally:
            running.kill()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_the_story_goes_on_beside_the_console_and_both_end_tidily(folder: Path) -> None:
    """What the page shows is what the story tells, and Ctrl-C leaves nothing behind."""
    with told(folder, "--pace", "0.01") as (running, looker):
        expected = play(7)
        decided = expected.totals.decisions.allowed, expected.totals.decisions.refused - expected.totals.unknown
        seen = looker.until("/api/now", lambda now: sum((one["allowed"] + one["denied"]) for one in now["tasks"]) == sum(decided))
        (task,) = seen["tasks"]
        assert (task["task"], task["state"], task["allowed"], task["denied"]) == ("q3-risk", "ended", *decided)
        nodes = {node["agent"]: node["state"] for node in looker.get("/api/task?task=q3-risk")["nodes"]}
        assert nodes.keys() == {agent.name for agent in expected.agents} and set(nodes.values()) == {"revoked"}
        assert looker.get("/api/session")["can_act"]
        running.send_signal(signal.SIGINT)
        text, said = running.communicate(timeout=WAIT)
        assert running.returncode == 0 and "What to try next" in text
    assert said.splitlines() == [
        "captoken: open that address, and the story begins: Ctrl-C ends it",
        "captoken: the story is over, and the console stays: Ctrl-C ends it",
    ]
    assert os.listdir(folder) == []


def test_what_is_stopped_in_the_console_is_stopped_in_the_story(folder: Path) -> None:
    """The clock of the console is the story's. A signal in the middle of it ends it, too."""
    with told(folder, "--pace", "0.3", "--brief") as (running, looker):
        seen = looker.until("/api/now", lambda now: now["tasks"])
        assert abs(seen["now"] - 1_759_741_200) < 600
        selected = {"select": {"agent": "market-agent"}}
        stamp = looker.post("/api/preview", selected)["stamp"]
        looker.post("/api/act", {"kind": "revoke", **selected, "why": "it asks for payroll", "stamp": stamp})

        def last_of_market(page: Any) -> str:
            return next((row["code"] for row in page["rows"] if row["who"].endswith("market-agent")), "")

        looker.until("/api/decisions?task=q3-risk", lambda page: last_of_market(page) == "revoked")
        running.send_signal(signal.SIGTERM)
        text, said = running.communicate(timeout=WAIT)
    assert running.returncode == 0 and "market-agent" in text and "Traceback" not in said
    assert os.listdir(folder) == []


@pytest.mark.parametrize("stopped", [*({"agent": agent.name} for agent in play(7).agents), {"task": "q3-risk"}])
@pytest.mark.parametrize("brief", [True, False])
def test_the_story_is_told_to_its_end_whatever_an_operator_stops(
    stopped: Any, brief: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", text := io.StringIO())

    def begin(world: World) -> None:
        world.operator.revoke(**stopped, why="to be seen")

    picture = command._picture(brief, True, lambda _: None)
    story = play(7, picture.see, begin)
    picture.end(story)
    assert "What to try next" in text.getvalue()
    assert sum(call.allowed for call in story.calls) < sum(call.allowed for call in play(7).calls)
