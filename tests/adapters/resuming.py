"""A process that goes on with a stored run, to be killed: `python -m tests.adapters.resuming FOLDER`.

The folder has all that outlives a process: keys, the token, the history, the consents, the store of what was used, and what has run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from captoken import Keyring, Token, Verifier
from captoken.audit import AuditTrail
from captoken.stores.sqlite import SQLiteReplayStore
from captoken.tools import ToolGuard
from tests.adapters.consents import LOOKUP, MAIL, REFUND, Desk
from tests.adapters.pauses_pydantic_ai import PydanticAI
from tests.program import ROOT


def prepare(folder: Path) -> None:
    """A run that has paused, stored, and Jane's consents to both calls that wait."""
    desk = Desk()
    with desk.using([]):
        stopped = PydanticAI(desk).begin(LOOKUP, MAIL, REFUND)
    history, calls = stopped.stored
    desk.keyring.save(folder / "keyring.json")
    SQLiteReplayStore.create(folder / "used.db", clock=lambda: 0).close()
    (folder / "history").write_bytes(history)
    kept = {"token": desk.token.serialize(), "consents": desk.yes(*stopped.waiting), "calls": [call.decode() for call in calls]}
    (folder / "kept.json").write_text(json.dumps(kept))


def process(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.adapters.resuming", str(folder)], cwd=ROOT, stdout=subprocess.PIPE)


def ran(folder: Path) -> list[str]:
    """The calls that were made, by all processes that there have been."""
    path = folder / "ran"
    return path.read_text().split() if path.exists() else []


def decided(folder: Path) -> set[str]:
    """The codes of the calls that need a consent, as far as the trail was written whole."""
    lines = (folder / "trail").read_bytes().splitlines()
    found = set()
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # of a process that was killed while it wrote
        if record.get("access", {}).get("tool") in ("mail", "refund"):
            found.add(record["code"])
    return found


class Kept(Desk):
    """The desk of a process: what it has done is in a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        kept = json.loads((folder / "kept.json").read_text())
        self.token, self.consents, self.calls = Token.parse(kept["token"]), kept["consents"], kept["calls"]
        self.history = (folder / "history").read_bytes()
        self.file = os.open(folder / "ran", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        trail = os.open(folder / "trail", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.verifier = Verifier(
            Keyring.load(folder / "keyring.json"), "desk", clock=self.clock, replays=SQLiteReplayStore(folder / "used.db"),
            audit=AuditTrail(lambda line: os.write(trail, line)),
        )  # fmt: skip
        self.guard = ToolGuard(self.verifier)

    def _run(self, tool: str, **arguments: Any) -> str:
        os.write(self.file, f"{tool}\n".encode())
        return "done"


def main(folder: Path) -> None:
    desk = Kept(folder)
    framework = PydanticAI(desk)
    print("ready", flush=True)
    with desk.using(desk.consents):
        framework.go_on((desk.history, [call.encode() for call in desk.calls]))
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
