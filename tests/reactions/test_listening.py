"""Levels by webhook: whoever has the secret sets one, and each message has an effect once."""

from __future__ import annotations

import asyncio
import hmac
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from captoken.cli.reactions.listening import Listening
from captoken.cli.reactions.watching import Level, levels, set_level
from captoken.testing import FixedClock
from tests.reactions.world import NOW

SECRET = b"0123456789abcdef"
LEAK: dict[str, Any] = {"level": "high", "why": "a leak is reported"}


class World:
    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "react.db")
        self.clock = FixedClock(NOW)
        self.secret: bytes | Exception = SECRET
        self.said: list[tuple[str, str, str]] = []
        self.app = Listening(self.path, self._secret, lambda *given: self.said.append(given), self.clock)

    def _secret(self) -> bytes:
        if isinstance(self.secret, Exception):
            raise self.secret
        return self.secret

    def post(
        self, said: Any, at: int | str = NOW, *, secret: bytes = SECRET, path: str = "/", method: str = "POST", more: tuple[tuple[bytes, bytes], ...] = ()
    ) -> tuple[int, str]:
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        signed = hmac.digest(secret, f"{at}.".encode() + body, "sha256").hex().encode()
        headers = [(b"captoken-time", str(at).encode()), (b"captoken-signature", signed), *more]
        return self.sent({"type": "http", "method": method, "path": path, "headers": headers}, body)

    def sent(self, scope: dict[str, Any], body: bytes) -> tuple[int, str]:
        answered: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            answered.append(message)

        asyncio.run(self.app(scope, receive, send))
        start, end = answered
        return start["status"], end["body"].decode()

    @property
    def levels(self) -> list[Level]:
        return levels(self.path)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_level_is_set_for_all_and_for_a_task(world: World) -> None:
    assert world.post(LEAK) == (200, "It is set.")
    assert world.post(LEAK | {"task": "q3/west"}) == (200, "It is set.")
    assert world.levels == [Level("", "high", LEAK["why"], NOW), Level("q3/west", "high", LEAK["why"], NOW)]
    assert world.said == [("", "high", LEAK["why"]), ("q3/west", "high", LEAK["why"])]


def test_a_message_works_once(world: World) -> None:
    calm = {"level": "low", "why": "it was looked into"}
    assert [world.post(LEAK)[0], world.post(LEAK)[0]] == [200, 409]
    world.clock.now += 20
    assert world.post(calm, NOW + 10)[0] == 200
    assert world.post(LEAK)[0] == 409
    assert [each.level for each in world.levels] == ["low"]


def test_whatever_the_order_is_in_which_they_come_the_youngest_holds(tmp_path: Path) -> None:
    messages = [(level, NOW + at) for at, level in enumerate(("high", "low", "medium"))]
    for number, order in enumerate(permutations(messages)):
        (tmp_path / str(number)).mkdir()
        world = World(tmp_path / str(number))
        for level, at in order * 2:
            world.post({"level": level, "why": "x"}, at)
        assert world.levels == [Level("", "medium", "x", NOW + 2)]


def test_what_a_person_sets_is_younger_than_what_came_before(world: World) -> None:
    world.post(LEAK)
    assert set_level(world.path, "", "low", "by hand", NOW - 100)  # by a clock that was set back
    assert world.post(LEAK)[0] == 409 and [each.level for each in world.levels] == ["low"]


@pytest.mark.parametrize("off", [-301, 301, 10**6])
def test_a_message_of_another_time_is_refused(world: World, off: int) -> None:
    assert world.post(LEAK, NOW + off)[0] == 401
    assert world.levels == []


@pytest.mark.parametrize("off", [-300, 300])
def test_the_last_second(world: World, off: int) -> None:
    assert world.post(LEAK, NOW + off)[0] == 200


REFUSED: dict[str, tuple[Any, dict[str, Any], int]] = {
    "another secret": (LEAK, {"secret": b"x" * 16}, 401),
    "two signatures": (LEAK, {"more": ((b"captoken-signature", b"00"),)}, 401),
    "two times": (LEAK, {"more": ((b"captoken-time", b"0"),)}, 401),
    "a time with a sign": (LEAK, {"at": f"+{NOW}"}, 401),
    "a time with a nought before": (LEAK, {"at": f"0{NOW}"}, 401),
    "a time of a million digits": (LEAK, {"at": "1" * 5000}, 401),
    "no level": ({"why": "x"}, {}, 400),
    "a level that is none": ({"level": "highest", "why": "x"}, {}, 400),
    "no reason": ({"level": "high"}, {}, 400),
    "an empty reason": ({"level": "high", "why": ""}, {}, 400),
    "a long reason": ({"level": "high", "why": "x" * 201}, {}, 400),
    "more than it knows": (LEAK | {"for": "1h"}, {}, 400),
    "no task": (LEAK | {"task": "q3/../q4"}, {}, 400),
    "no object": ([LEAK], {}, 400),
    "no JSON": (b"{", {}, 400),
    "too long": (b" " * 4097, {}, 413),
    "elsewhere": (LEAK, {"path": "/levels"}, 404),
    "a look": (LEAK, {"method": "GET"}, 404),
}


@pytest.mark.parametrize("which", REFUSED)
def test_what_is_refused_sets_nothing(world: World, which: str) -> None:
    said, more, status = REFUSED[which]
    assert world.post(said, **more)[0] == status
    assert world.levels == [] and world.said == []


def test_without_headers_it_is_refused(world: World) -> None:
    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    assert world.sent(scope, json.dumps(LEAK).encode())[0] == 401


def test_another_byte_of_the_body_is_refused(world: World) -> None:
    body = json.dumps(LEAK).encode()
    signed = hmac.digest(SECRET, b"%d." % NOW + body, "sha256").hex().encode()
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"captoken-time", b"%d" % NOW), (b"captoken-signature", signed)]}
    assert world.sent(scope, body.replace(b"high", b"low "))[0] == 401
    assert world.sent(scope, body)[0] == 200


@pytest.mark.parametrize("wrong", [OSError("gone"), ValueError("the secret has less than 16 characters")])
def test_a_secret_that_is_gone_sets_nothing(world: World, wrong: Exception) -> None:
    world.secret = wrong
    assert world.post(LEAK) == (503, "The secret cannot be read.")


def test_a_file_of_something_else_is_no_place_for_levels(tmp_path: Path) -> None:
    world = World(tmp_path)
    Path(world.path).write_bytes(b"x" * 4096)
    assert world.post(LEAK)[0] == 503 and world.said == []


def test_whoever_goes_away_is_not_answered(world: World) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        raise AssertionError

    asyncio.run(world.app({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send))
    with pytest.raises(ValueError, match="not to websocket"):
        asyncio.run(world.app({"type": "websocket"}, receive, send))


@pytest.fixture
def command(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command itself, and the address that it says."""
    (tmp_path / "level.secret").write_bytes(SECRET + b"\n")
    words = ["react", "listen", "--state", "react.db", "--secret", "file:level.secret", "--port", "0"]
    started = subprocess.Popen([sys.executable, "-m", "captoken", *words], cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    watch = threading.Timer(60, started.kill)
    watch.start()
    assert started.stderr is not None
    yield started, started.stderr.readline().split("http://")[1].split(": ")[0]
    watch.cancel()
    started.kill()
    started.communicate()


def test_the_command_serves_until_a_signal(command: tuple[subprocess.Popen[str], str], tmp_path: Path) -> None:
    from time import time

    started, address = command
    body, at = json.dumps(LEAK).encode(), int(time())
    signed = hmac.digest(SECRET, b"%d." % at + body, "sha256").hex()
    connection = HTTPConnection(address, timeout=30)
    connection.request("POST", "/", body, {"captoken-time": str(at), "captoken-signature": signed})
    assert connection.getresponse().status == 200
    connection.close()
    started.send_signal(signal.SIGTERM)
    said, told = started.communicate(timeout=30)
    assert (started.returncode, said) == (0, "high for all tasks: a leak is reported\n"), told
    assert [each.level for each in levels(str(tmp_path / "react.db"))] == ["high"]
