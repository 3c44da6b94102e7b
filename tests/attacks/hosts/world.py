"""The world that a hostile host is tried in, and the judge who looks at it from outside.

A framework's real runtime runs two agents, whose model is a script that tries what it can. Their tools do what they say: to files,
and by processes. The judge believes neither the guard nor the runtime. He looks at what is there afterwards: the files, the traces
that commands leave, the bytes that went to the model, and the trail. He has rules of his own for what may happen.

    world = World(tmp_path)
    drive(world, ATTACKS["names"])    # a framework's
    world.judge(effects=1)
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captoken import CaptokenError, Decision, Issuer, Token, current
from captoken.stores.memory import MemoryLedger
from captoken.tools import ToolGuard
from tests.fixtures import KEYRING, clock, verifier

MAIN, SUB = "orchestrator", "sales_agent"
SECRET = "CANARY-7f3a91"  # stands in files that nobody in this world may read

Call = tuple[str, Any]  # a tool, and the arguments that the model writes
Turns = Sequence[Sequence[Call]]  # what the model answers, one after the other


class Attack(NamedTuple):
    """What the models of the two agents try, and how many calls of tools should come of it: not none, and no more."""

    main: Turns
    sub: Turns = ()
    effects: int = 1
    uses: int | None = None  # of the main agent's token


class Effect(NamedTuple):
    """What was done: a tool, its arguments as text, and for whom; None where that cannot be seen from outside."""

    tool: str
    arguments: str
    holder: str | None


class World:
    """Files, two agents' tools, a trail, and all that went to a model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work, self.outside = folder / "work", folder / "outside"
        for name in ("work/out", "work/sales", "outside", "traces", "home"):
            (folder / name).mkdir(parents=True)
        (self.work / "notes.txt").write_text("notes")
        (self.work / "sales/eu.txt").write_text("41 overdue")
        (self.outside / "secret.txt").write_text(SECRET)

        self.trail: list[Decision] = []
        self.sent: list[str] = []
        self.effects: list[Effect] = []
        self.errors: list[BaseException] = []  # that ended a run
        self._lock = threading.Lock()
        self._files = self.files()

    # --- who may do what ---------------------------------------------------------------------------

    def record(self, decision: Decision) -> None:
        """The trail: a Recorder."""
        self.trail.append(decision)

    def record_all(self, decisions: Sequence[Decision]) -> None:
        self.trail.extend(decisions)

    def guard(self) -> ToolGuard:
        return ToolGuard(verifier(audit=self, ledger=MemoryLedger(shared=True, floor=0)))

    def token(self, ask: str = "ask", uses: int | None = None) -> Token:
        """The main agent's: it reads its folder, writes in a part of it, and may ask the other one by the tool `ask`."""
        tools = {
            "read_file": {"path": {"path": [str(self.work)]}},
            "write_file": {"path": {"path": [str(self.work / "out")]}, "text": {"any": True}},
            "write_late": {"path": {"path": [str(self.work / "out")]}},
            ask: {},
        }
        more: dict[str, Any] = {} if uses is None else {"uses": uses}
        return Issuer(KEYRING, clock=clock()).mint(subject="user:jane", agent=MAIN, task="q3", tools=tools, **more)

    @property
    def handed(self) -> dict[str, Any]:
        """What the other agent is handed: it reads one folder."""
        return {"read_file": {"path": {"path": [str(self.work / "sales")]}}}

    def may(self, effect: Effect) -> bool:
        """The judge's own rules: by where a path really leads, and without a token."""
        path = json.loads(effect.arguments).get("path")
        where = Path(os.path.realpath(path)) if isinstance(path, str) else Path("/")
        if effect.tool == "read_file":
            return where.is_relative_to(self.work / "sales" if effect.holder == SUB else self.work)
        return self.writes(effect) is not None and effect.holder == MAIN and where.is_relative_to(self.work / "out")

    def writes(self, effect: Effect) -> str | None:
        """The file that it changes, or None."""
        return json.loads(effect.arguments)["path"] if effect.tool.startswith("write_") else None

    # --- the tools ---------------------------------------------------------------------------------

    def read_file(self, path: str) -> str:
        """The text of a file."""
        self._done("read_file", path=path)
        return Path(path).read_text()

    def write_file(self, path: str, text: str) -> str:
        """Write a file."""
        self._done("write_file", path=path, text=text)
        Path(path).write_text(text)
        return "written"

    async def write_late(self, path: str) -> str:
        """Write a file, after some time."""
        await asyncio.sleep(0.05)
        self._done("write_late", path=path)
        Path(path).write_text("late")
        return "written"

    def run_command(self, command: str) -> str:
        """Run a command: no token of this world permits it."""
        self._done("run_command", command=command)
        return subprocess.run(command, shell=True, capture_output=True, text=True).stdout

    @property
    def tools(self) -> list[Any]:
        return [self.read_file, self.write_file, self.write_late, self.run_command]

    def _done(self, tool: str, **arguments: Any) -> None:
        try:
            holder = current.grant().actor.name
        except CaptokenError:  # a host that runs it without a guard
            holder = None
        self.happened(tool, arguments, holder)

    # --- what is seen from outside -----------------------------------------------------------------

    def happened(self, tool: str, arguments: Mapping[str, Any], holder: str | None) -> None:
        with self._lock:
            self.effects.append(Effect(tool, json.dumps(arguments, sort_keys=True), holder))

    async def cancel(self, run: Coroutine[Any, Any, Any]) -> None:
        """Begin a run, and cancel it once something is decided in it."""
        task = asyncio.create_task(run)
        while not self.trail and not task.done():
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])

    def hear(self, said: Any) -> None:
        """What went to the model, in whatever form the framework has it."""
        self.sent.append(said if isinstance(said, str) else repr(said))

    def trace(self, name: str) -> str:
        """A command that leaves a trace if anybody runs it."""
        return f"touch {self.folder}/traces/{name}"

    @property
    def traces(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "traces").iterdir())

    def files(self) -> dict[str, bytes]:
        """Each file that is no trace and no program's own, with what is in it."""
        own = (self.folder / "home", self.folder / "traces")
        found = [
            path for path in self.folder.rglob("*") if path.is_file() and not any(path.is_relative_to(each) for each in own)
        ]
        return {str(path): path.read_bytes() for path in found}

    @property
    def changed(self) -> list[str]:
        """The files that are others than in the beginning."""
        now = self.files()
        return sorted(path for path in now.keys() | self._files if now.get(path) != self._files.get(path))

    def turns(self, turns: Turns, ask: Call) -> list[list[Call]]:
        """A script with the paths of this world, and a framework's own way to ask the other agent."""
        words = {"{work}": str(self.work), "{outside}": str(self.outside), "{trace}": self.trace("command")}

        def filled(value: Any) -> Any:
            if isinstance(value, str):
                for word, meant in words.items():
                    value = value.replace(word, meant)
                return value
            if isinstance(value, Mapping):
                return {key: filled(each) for key, each in value.items()}
            return [filled(each) for each in value] if isinstance(value, list) else value

        return [[ask if call == ASK else (call[0], filled(call[1])) for call in turn] for turn in turns]

    # --- the judge ---------------------------------------------------------------------------------

    def judge(self, *, effects: int | None = None) -> None:
        """Raise AssertionError for what nobody permitted, and for what happened without a record."""
        for effect in self.effects:
            assert self.may(effect), f"nobody permitted this: {effect}"
        self.judge_records()
        written = {os.path.realpath(path) for path in map(self.writes, self.effects) if path is not None}
        assert {os.path.realpath(path) for path in self.changed} <= written, self.changed
        self.judge_silence()
        assert not any(isinstance(error, RecursionError) for error in self.errors)
        if effects is not None:
            assert len(self.effects) == effects, self.effects

    def judge_records(self) -> None:
        """Each effect has a record of its own: one that was allowed, of the same tool, arguments and holder."""
        allowed = [decision for decision in self.trail if decision]
        known: Counter[Effect] = Counter()
        for decision in allowed:
            assert decision.access is not None and decision.access.tool is not None and decision.attribution is not None
            arguments = json.dumps(dict(decision.access.arguments or {}), sort_keys=True)
            known[Effect(decision.access.tool, arguments, decision.attribution.chain[-1].name)] += 1
        unrecorded = Counter(self.effects) - known
        assert not unrecorded, f"this happened without a record: {unrecorded}"

    def judge_silence(self) -> None:
        """No command left a trace, and nothing secret went to a model: what a file has, or a token."""
        assert not self.traces, self.traces
        said = "\n".join(self.sent)
        assert SECRET not in said and "cap1_" not in said


ASK: Call = ("ASK", None)  # whatever a framework calls it
READ: Call = ("read_file", {"path": "{work}/notes.txt"})
SALES: Call = ("read_file", {"path": "{work}/sales/eu.txt"})
RUN: Call = ("run_command", {"command": "{trace}"})
STEAL: Call = ("read_file", {"path": "{outside}/secret.txt"})
WRITE: Call = ("write_file", {"path": "{work}/out/a.txt", "text": "x"})

_NAMES = ["RUN_COMMAND", "run_command ", "run_command\n", "run_command\N{ZERO WIDTH SPACE}", "functions.run_command", "", "*"]
_PATHS: list[Any] = [
    "{work}/../outside/secret.txt", "{work}/./../outside/secret.txt", "{work}//../outside/secret.txt", "/{outside}/secret.txt",
    "{work}/out/../../outside/secret.txt", "{outside}/secret.txt\0", "{work}\0/../outside/secret.txt", "file://{outside}/secret.txt",
    ["{outside}/secret.txt"], {"path": "{outside}/secret.txt"}, None, True, 7,
]  # fmt: skip

# Each has something that is permitted beside what is not: a host that does nothing passes none of them.
ATTACKS: dict[str, Attack] = {
    "what is not held": Attack(
        [[READ, RUN], [STEAL], [WRITE, ("write_file", {"path": "{outside}/new.txt", "text": "x"})]], effects=2
    ),
    "all at once": Attack([[RUN, READ, STEAL, RUN, WRITE, STEAL, READ]], effects=3),
    "paths": Attack([[READ, *(("read_file", {"path": path}) for path in _PATHS)]]),
    "other arguments": Attack([[READ, ("read_file", {"command": "{trace}"}), ("read_file", {}), ("run_command", {})]]),
    "again and again": Attack([[READ] * 8, [READ] * 4, [READ]], effects=3, uses=3),
    "a sub-agent": Attack([[READ], [ASK]], [[SALES, READ], [RUN, WRITE, STEAL], [ASK]], effects=2),
    "sub-agents at once": Attack([[ASK, READ, ASK, RUN]], [[SALES, READ], [SALES, RUN], [WRITE]], effects=3),
    **{f"the name {name!r}": Attack([[READ], [(name, {"command": "{trace}"})]]) for name in _NAMES},
}
LATE = Attack([[("write_late", {"path": "{work}/out/late.txt"}), READ], [RUN, READ]])  # to be cancelled
