"""A reactor that dies at one place: `python -m tests.reactions.killed FOLDER PLACE`. Started again, it goes on.

    act     before the entry is made          note    the entry is made, and not noted
    batch   before a batch is committed       alert   an alert is noted as begun, and not told
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from captoken.cli.reactions import acting, command
from captoken.cli.reactions.alerts import Alerts
from captoken.cli.reactions.stated import read
from captoken.cli.reactions.watching import Reactor, _Counting

PLACES = ("act", "note", "batch", "alert", "none")


def die(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path, place: str) -> None:
    if place == "act":
        acting.act = die
    elif place == "note":
        Reactor.done = die  # type: ignore[method-assign]
    elif place == "batch":
        write = _Counting.write

        def written(self: _Counting, trail: int) -> None:
            write(self, trail)
            die()

        _Counting.write = written  # type: ignore[method-assign]
    elif place == "alert":
        Alerts._send = die  # type: ignore[method-assign]
    rules = read(str(folder / "rules.toml"))
    key, store = str(folder / "operator.json"), str(folder / "overlay.db")
    doing: list[acting.Acting] = []
    reactor = Reactor(folder / "react.db", [folder / "trail.jsonl"], rules, time.time, lambda: doing[0].do_all())
    with closing(reactor):
        doing.append(acting.Acting(reactor, lambda: command.opened(key, store), print, print))
        alerts = Alerts(reactor, print)
        doing[0].do_all()
        reactor.take()
        alerts.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
