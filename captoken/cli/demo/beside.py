"""The demo's story beside the console: each step waits, so that somebody can watch, and act.

    with Beside(pace) as beside:
        play(seed, beside.see, beside.begin)      # Ended, where a signal ends it before its end
        beside.stay()

The console is a server in a thread of its own. It reads a trail and an overlay, as it does from any
server; the operator's key is the story's. What somebody does there, the agents of the story meet.
"""

from __future__ import annotations

import signal
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from captoken.cli.console.acts import Control
from captoken.cli.console.app import Console
from captoken.cli.console.command import announce, listen, server_of
from captoken.cli.console.index import Index
from captoken.cli.demo.data import Call
from captoken.cli.demo.world import World
from captoken.cli.output import tell
from captoken.control.operator import Operator
from captoken.stores.trail_file import TrailFile

BY = "ops:you"

# Seconds that the story's clock moves on at a step, at most. Its shortest token lives for a minute,
# and has its part to play in that.
_STEP = 1.5
_RENEW = 20  # seconds between two snapshots, once the story is over


class Ended(Exception):  # noqa: N818, the name reads as what it is
    """A signal came."""


class Beside:
    """The console beside a story, until a signal. `pace` is the seconds that each step takes."""

    def __init__(self, pace: float, *, opens: bool) -> None:
        self._pace = pace
        self._opens = opens
        self._stack = ExitStack()
        self._ended = threading.Event()
        self._world: World | None = None

        # What the story's clock is behind what has passed for it, below a second.
        self._behind = 0.0

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(number, lambda *_: self._ended.set())
            self._stack.callback(signal.signal, number, before)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    # --- the story --------------------------------------------------------------------------------

    def begin(self, world: World) -> None:
        """Start the console over the servers of the story, and wait until somebody opens it."""
        self._world = world
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="captoken-demo-"))
        trail = TrailFile(Path(folder, "trail.jsonl"))
        self._stack.callback(trail.close)
        world.writers.append(trail.write)

        index = Index(Path(folder, "index.db"), [Path(folder, "trail.jsonl")])
        self._stack.callback(index.close)
        key = world.operator_key
        operator = Operator(key, world.snapshots, by=BY, clock=world.clock)
        control = Control(world.snapshots, operator, [key.public], BY, world.clock)
        listening, address = listen(0)
        app = Console(index, control, address=address, spent=lambda *_: None, clock=world.clock)
        self._serve(app, listening)

        announce(app, self._stack, opens=self._opens)
        tell("open that address, and the story begins: Ctrl-C ends it")
        while app.once is not None:
            self._sleep(0.1)

    def _serve(self, app: Console, listening: Any) -> None:
        """Until the stack is closed."""
        server = server_of(app)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()

        def end() -> None:
            server.should_exit = True
            thread.join()

        self._stack.callback(end)

    def see(self, piece: object) -> None:
        """Something has happened: give people the time to see it. Raises Ended."""
        self._sleep(self._pace)
        if isinstance(piece, Call):
            self._move(min(self._pace, _STEP))

    def stay(self) -> None:
        """The story is over, and the console stays, with a clock that runs. Raises Ended."""
        tell("the story is over, and the console stays: Ctrl-C ends it")
        passed = 0
        while True:
            self._sleep(1)
            passed += 1
            if self._world is not None:
                self._world.clock.advance(1)
                if passed % _RENEW == 0:
                    self._world.operator.renew()

    def _move(self, seconds: float) -> None:
        """Move the story's clock, which knows whole seconds."""
        self._behind += seconds
        whole = int(self._behind)
        self._behind -= whole
        if whole and self._world is not None:
            self._world.wait(whole)

    def _sleep(self, seconds: float) -> None:
        """Raises Ended as soon as a signal comes."""
        if self._ended.wait(seconds):
            raise Ended
