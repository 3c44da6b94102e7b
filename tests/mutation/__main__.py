"""How many small faults the tests see: `python -m tests.mutation [ROOM] [--sample 500] [--seed 1]`.

Needs `pip install mutmut==3.8.1` and the tests' packages. mutmut makes the faults of a room (`rooms.py`): an operator, a number,
a text, an argument, a condition is another. A sample of them is tried, each in a process of its own, with the tests that come to
its function. What no test has seen is printed, unless `listed.json` says why none can, or need.

Works on a copy of what is committed. A whole run is `--sample 0`: two faults a second on two cores. What a guard of a database does for
each statement is slow under mutation: `--files 4` mutates so many files of the room, by the seed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.committed import unpack
from tests.mutation.rooms import ROOMS, Room

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LISTED = HERE / "listed.json"

COPIED = ["spec", "docs", "examples", "ports", "captoken_pytest.py", ".ci", ".gitignore"]
QUIET = ["-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov"]
# How the process of a fault ends that was seen: a test failed, it took far more time than it needs, or it broke down.
KILLED = {1, 3, -24, 24, 36, 152, 255, -9, -11}


class Survivor(NamedTuple):
    """A fault that no test has seen, by the lines that it changes: numbers of mutmut change with each edit."""

    file: str
    function: str
    was: str
    now: str


def copied(room: Room, folder: Path) -> None:
    """What is committed, with the configuration of mutmut."""
    unpack(folder)
    settings = {
        "source_paths": ["captoken"],
        "only_mutate": room.mutated,
        "also_copy": [*COPIED, *(path.name for path in folder.glob("*.md"))],
        "pytest_add_cli_args": [*QUIET, "-k", room.without] if room.without else QUIET,
        "pytest_add_cli_args_test_selection": room.tests,
        "timeout_multiplier": 5.0,
        "track_dependencies": False,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    with open(folder / "pyproject.toml", "a", encoding="utf-8") as file:
        file.write("\n[tool.mutmut]\n" + "\n".join(lines) + "\n")


def mutmut(folder: Path, *names: str) -> None:
    """Make the faults, once, see which tests come to which function, and try the faults that are named."""
    command = [sys.executable, str(HERE / "mutmut_here.py"), "run", *(names or ["none"])]
    log = folder / "mutmut.log"
    with open(log, "a", encoding="utf-8") as file:
        ran = subprocess.run(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT)
    if ran.returncode and names:
        sys.exit(log.read_text("utf-8")[-4000:])


def outcomes(folder: Path) -> dict[str, int | None]:
    """How the process of each fault ended; None where it was not tried."""
    found: dict[str, int | None] = {}
    for path in sorted((folder / "mutants").rglob("*.meta")):
        found |= json.loads(path.read_text("utf-8"))["exit_code_by_key"]
    return found


def survivor(name: str, folder: Path) -> Survivor:
    """The lines of a fault, before and after."""
    module, _, function = name.partition("__mutmut_")[0].rpartition(".")
    ran = subprocess.run([sys.executable, "-m", "mutmut", "show", name], cwd=folder, capture_output=True, text=True, check=True)
    lines = [line for line in ran.stdout.splitlines() if not line.startswith(("---", "+++", "@@", "#"))]
    was, now = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return Survivor(module.replace(".", "/") + ".py", function.replace("ǁ", ".").removeprefix("x").lstrip("_."), was, now)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("room", nargs="?", default="core", choices=ROOMS)
    parser.add_argument("--sample", type=int, default=500, help="so many faults, 0 for all (default: 500)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (default: 1)")
    parser.add_argument("--files", type=int, default=0, help="of so many files of the room, 0 for all (default: 0)")
    parser.add_argument("--folder", type=Path, help="works there and leaves it: the next sample needs no new copy")
    options = parser.parse_args()

    room, drawing = ROOMS[options.room], random.Random(options.seed)
    if options.files:
        room = room._replace(mutated=sorted(drawing.sample(room.mutated, options.files)))
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "mutants").exists():
            copied(room, folder)
            mutmut(folder)
        names = sorted(outcomes(folder))
        chosen = drawing.sample(names, min(options.sample, len(names))) if options.sample else names
        mutmut(folder, *chosen)

        ended = outcomes(folder)
        alive = [survivor(name, folder) for name in chosen if ended[name] not in KILLED]

    # Why no test sees a fault stands beside its lines.
    listed = {(entry["file"], entry["was"], entry["now"]) for entry in json.loads(LISTED.read_text("utf-8"))}
    others = [each for each in alive if (each.file, each.was, each.now) not in listed]
    for each in others:
        print(json.dumps(each._asdict(), indent=1, ensure_ascii=False))
    killed = len(chosen) - len(alive)
    raw = 100 * killed / len(chosen)
    seen = f"{killed} of {len(chosen)} killed, {raw:.1f} %"
    files = f" in {', '.join(Path(each).stem for each in room.mutated)}" if options.files else ""
    print(f"{options.room}{files}, seed {options.seed}: {seen}; {len(alive) - len(others)} listed, {len(others)} not")
    sys.exit(bool(others))


if __name__ == "__main__":
    os.environ.pop("PYTEST_ADDOPTS", None)
    main()
