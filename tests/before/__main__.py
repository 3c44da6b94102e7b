"""Decisions before and after a change, compared: codes, steps, links, words for operators and models, grants, records.

    python -m tests.before REV [COUNT] [--seed S] [--expect WHAT] [--show N]

REV's package comes out of git, into a folder that is removed in the end. A process on each of both packages, REV's and the one of the
working tree, answers the same sessions (`sessions.py`) through public names alone, until COUNT decisions were compared (100,000
unless said). What differs is named, and the run ends with 1.

A difference that is meant has to be stated: `--expect too_much_work` is one where either side gives that code,
`--expect words:expired` one in words alone where that code is among the refusals, `--expect words:any` one in words, whatever the code. What comes
after one that was meant, in the same session, is not compared: stores may differ from then on.

`--show N` prints session N, and what came of it on both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tests.before.sessions import session
from tests.committed import unpack

ROOT = Path(__file__).resolve().parents[2]
BATCH = 50  # sessions
SHOWN = 5  # differences, before it gives up
FIELDS = ("asked", "code", "step", "places", "words")


class Side:
    """A process that asks one state of the package."""

    def __init__(self, folder: Path, seed: str) -> None:
        path = os.pathsep.join((str(folder), str(ROOT)))
        command = [sys.executable, "-P", str(Path(__file__).with_name("worker.py")), str(folder), seed]
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def ask(self, **wanted: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(wanted) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("one of the processes has died: see above")
        return json.loads(line)

    def end(self) -> None:
        self.process.kill()
        with self.process:  # waits, and closes both pipes
            pass


def package(rev: str, folder: Path) -> None:
    """The package as it was at REV, in a folder."""
    unpack(folder, rev, "captoken")


def is_meant(field: str, codes: set[str], expected: list[str]) -> bool:
    """Was a difference in that field, between answers of these codes, stated beforehand?"""
    for each in expected:
        where, _, code = each.rpartition(":")
        if (code == "any" or code in codes) and where in ("", field):
            return True
    return False


def differing(before: list[Any], after: list[Any], expected: list[str]) -> tuple[str, bool] | None:
    """The first that differs of what came of a session, and whether it was meant; None where all that does is words that were."""
    found: tuple[str, bool] | None = None
    for place, (one, two) in enumerate(zip(before, after, strict=True)):
        if len(one) != len(two):
            return f"step {place}: {one} and {two}", False
        for was, now in zip(one, two, strict=True):
            fields = [field for field, a, b in zip(FIELDS, was, now, strict=True) if a != b]
            if not fields:
                continue
            codes = {was[1], now[1], *(place[0] for place in (*(was[3] or ()), *(now[3] or ())))}
            meant = is_meant(fields[0], codes, expected)
            told = f"step {place}, {was[0]}, {fields[0]}\n" + apart(was, now)
            if not meant:
                return told, False
            found = found or (told, True)
            if fields != ["words"]:  # stores may differ from here on
                return found
    return found


def apart(was: list[Any], now: list[Any]) -> str:
    """Both, and of the words those that differ."""
    words = [(a, b) for a, b in zip(was[4], now[4], strict=False) if a != b][:2] or [("", "")]
    lines = []
    for name, side, place in (("before", was, 0), ("after ", now, 1)):
        lines.append(f"    {name} {side[1]}, step {side[2]}, {side[3]}")
        lines += [f"           {pair[place]}" for pair in words]
    return "\n".join(lines)


def compare(sides: tuple[Side, Side], count: int, expected: list[str]) -> tuple[Counter[str], int, int, list[str]]:
    """How often each code came, how many decisions, how many differences were meant, and those that were not."""
    codes, decisions, meant, found, first = Counter[str](), 0, 0, [], 0
    for side in sides:
        side.ask(first=first, count=BATCH)
    while decisions < count and len(found) < SHOWN:
        before, after = (side.answer() for side in sides)
        for side in sides:  # before anything is compared, so that both have work
            side.ask(first=first + BATCH, count=BATCH)
        unlike = [first + at for at, pair in enumerate(zip(before["hashes"], after["hashes"], strict=True)) if pair[0] != pair[1]]
        codes.update(before["codes"])
        decisions += before["decisions"]
        if unlike:
            ahead = [side.answer() for side in sides]  # of the batch that is under way: asked once more below
            del ahead
            for number in unlike:
                for side in sides:
                    side.ask(show=number)
                one, two = (side.answer() for side in sides)
                differs = differing(one, two, expected)
                if differs is not None and differs[1]:
                    meant += 1
                else:
                    found.append(f"session {number}, {differs[0] if differs else 'it does not come out the same twice'}")
            for side in sides:
                side.ask(first=first + BATCH, count=BATCH)
        first += BATCH
    return codes, decisions, meant, found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.before", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rev")
    parser.add_argument("count", type=int, nargs="?", default=100_000)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--expect", action="append", default=[], metavar="[FIELD:]CODE")
    parser.add_argument("--show", type=int, metavar="N")
    parser.add_argument("--all", action="store_true", help="how often each code came")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        package(given.rev, Path(folder))
        sides = Side(Path(folder), given.seed), Side(ROOT, given.seed)
        try:
            if given.show is not None:
                for side in sides:
                    side.ask(show=given.show)
                came = dict(zip(("before", "after"), (side.answer() for side in sides), strict=True))
                print(json.dumps({"session": session(given.seed, given.show), **came}, indent=1))
                return 0
            codes, decisions, meant, found = compare(sides, given.count, given.expect)
        finally:
            for side in sides:
                side.end()
    if given.all:
        for code, times in codes.most_common():
            print(f"{times:9} {code}")
    print("\n".join(found[:SHOWN]), end="\n" if found else "")
    print(f"{decisions} decisions of seed {given.seed}, {len(codes)} kinds of answers: {meant} differ as stated, {len(found) or 'none'} otherwise")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
