"""The demo's story on a stage: it goes on when it is told to, and a console stands beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from captoken import Access
from captoken.cli.console.acts import Control
from captoken.cli.console.app import Console
from captoken.cli.console.command import listen, server_of
from captoken.cli.console.index import Index
from captoken.cli.demo.data import Call, Scene, Story
from captoken.cli.demo.story import play
from captoken.cli.demo.world import World
from captoken.control import Operator
from captoken.stores.trail_file import TrailFile

BY = "ops:kim"
WAIT = 60  # seconds, of a machine that is busy


@contextmanager
def served(world: World, folder: Path) -> Iterator[str]:
    """The address of a console over the servers of a story, whose trail is in a folder."""
    index = Index(folder / "index.db", [folder / "trail.jsonl"])
    key = world.operator_key
    operator = Operator(key, world.snapshots, by=BY, clock=world.clock)
    control = Control(world.snapshots, operator, [key.public], BY, world.clock)
    listening, address = listen(0)
    app = Console(index, control, address=address, spent=lambda *_: None, clock=world.clock)
    server = server_of(app)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield app.first_address
    finally:
        server.should_exit = True
        thread.join()
        index.close()


class _Left(Exception):
    """Nobody wants to see the rest."""


class Stage:
    """A story in a thread of its own. `go_on` lets it try one thing more, and waits until it has."""

    def __init__(self, folder: Path, seed: int = 7) -> None:
        self._seed = seed
        self._trail = TrailFile(folder / "trail.jsonl")
        self._may = threading.Semaphore(0)
        self._has = threading.Semaphore(0)
        self._is_left = False
        self.world: World
        self.revoked_at = 0  # when somebody revoked, for who looks back
        self.calls: list[Call] = []
        self.story: Story | None = None

    def __enter__(self) -> Stage:
        self._thread = threading.Thread(target=self._play)
        self._thread.start()
        self._wait()  # the servers stand, and nothing has happened
        return self

    def __exit__(self, *_: object) -> None:
        self._is_left = True
        self._may.release()
        self._thread.join()
        self._trail.close()

    def _play(self) -> None:
        try:
            self.story = play(self._seed, self._see, self._begin)
        except _Left:
            pass
        finally:
            self._has.release()

    def _begin(self, world: World) -> None:
        world.writers.append(self._trail.write)
        self.world = world
        self._pause()

    def _see(self, piece: object) -> None:
        if isinstance(piece, Call):
            self.calls.append(piece)
            self._pause()

    def _pause(self) -> None:
        self._has.release()
        self._may.acquire()
        if self._is_left:
            raise _Left

    def _wait(self) -> None:
        assert self._has.acquire(timeout=WAIT)

    def go_on(self, seconds: int = 1) -> Call:
        """What is tried next. Before it does, some time passes."""
        self.world.wait(seconds)
        self._may.release()
        self._wait()
        return self.calls[-1]

    def through(self, scene: Scene) -> list[Call]:
        """To the last thing that is tried in a scene, if nothing of the next has been: it cannot be taken back."""
        found = []
        while self.story is None:
            if self.calls and self._next_is_after(scene):
                break
            found.append(self.go_on())
        return found

    def _next_is_after(self, scene: Scene) -> bool:
        """By the story as it is told without anybody: what is tried is the same, whatever comes of it."""
        return _SCENES[self._seed][len(self.calls)] not in (scene, None)

    def ask(self, agent: str, table: str, operation: str = "select") -> bool:
        """Have the warehouse decide on what an agent holds."""
        text = self.world.tokens[agent].present(audience="warehouse")
        return bool(self.world.warehouse.check(text, Access(table=table, operation=operation, columns=())))


_SCENES: dict[int, list[Scene | None]] = {7: [*(call.scene for call in play(7).calls), None]}
