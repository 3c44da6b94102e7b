"""The gate: three judges decide the same cases, and each difference is shrunk into a vector.

    python -m tests.gate 10000 [--seed S] [--first N] [--jobs J] [--all]     # after `npm ci` and `npm run pretest` in ports/typescript
    python -m tests.gate --show 17 [--seed S]                                 # a case: its recipe, its vector, and what each judge says

The Python library and the port to TypeScript are asked every case; the reference evaluator all that a verifier decides, and requests.
What differs is made smaller while the same judges say the same codes. The least case is proposed as a vector in the format of
`spec/vectors/FORMAT.md`, in a file of `--proposals` (`.gate/` unless said): who is right is found in the specification, and then its
`expect` is written by hand, with the section and the rule.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from tests.gate.cases import Recipe, case, vector_of
from tests.gate.driver import Found, compare, smallest
from tests.gate.judges import NAMES, Port, Verdict, judged, signature

ROOT = Path(__file__).resolve().parents[2]


def proposal(name: str, recipe: Recipe, verdict: Verdict) -> dict[str, Any]:
    """A vector, but for what is right; beside it what each said, and how it is made."""
    vector = {"name": name, **vector_of(recipe), "section": "", "rule": "", "expect": {"code": ""}}
    return {"vector": vector, "said": verdict, "recipe": recipe}


def propose(folder: Path, seed: str, found: Found) -> Path:
    """The difference as a file."""
    least, verdict = smallest(found)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{seed}-{found[0]}.json"
    path.write_text(json.dumps(proposal(f"gate_{seed}_{found[0]}", least, verdict), indent=1) + "\n", "utf-8")
    return path


def show(seed: str, number: int) -> None:
    recipe, port = case(seed, number), Port()
    try:
        vector = vector_of(recipe)
        print(json.dumps({"recipe": recipe, "vector": vector, "said": judged(vector, port)}, indent=1))
    finally:
        port.end()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=10_000)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--all", action="store_true", help="how often each answer came")
    parser.add_argument("--show", type=int, metavar="N")
    parser.add_argument("--proposals", type=Path, default=ROOT / ".gate")
    given = parser.parse_args()
    logging.disable()
    if given.show is not None:
        show(given.seed, given.show)
        return 0
    came, found = compare(given.seed, given.first, given.count, given.jobs)
    if given.all:
        for answer, times in sorted(came.items()):
            print(f"{times:8} {answer}")
    for each in found:
        print(f"case {each[0]} of seed {given.seed}, {each[1]['kind']}: {signature(each[2])}", flush=True)
        path = propose(given.proposals, given.seed, each)
        said = json.loads(path.read_text("utf-8"))["said"]
        print(f"  {path}")
        print("\n".join(f"  {name:<10} {json.dumps(said[name])[:300]}" for name in NAMES if name in said))
    cases = sum(times for answer, times in came.items() if ", then" not in answer)
    print(f"{cases} cases of seed {given.seed}, {len(came)} kinds of answers, {len(NAMES)} judges: {len(found) or 'none'} differ")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
