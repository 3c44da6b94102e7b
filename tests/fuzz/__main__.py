"""Runs a target under a fuzzer that is guided by coverage: `python -m tests.fuzz TARGET ... [--runs 10000000]`.

Needs `pip install atheris` and the tests' packages. Each target runs in a process of its own and starts from its corpus,
`corpus/TARGET.json`, which keeps what reached new code, smallest first. `record.json` says how often each was executed in
all, and at which commit last. A failure leaves its input in `crash-…` and is printed: it becomes a case of a test.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.corpus import CORPUS, read_corpus, write_corpus

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RECORD = HERE / "record.json"
LONGEST = 4096  # bytes of an input
KEPT = 400  # inputs of a corpus


def fuzz(name: str, runs: int, seed: int) -> bool:
    """Run one target so often, keep what it found, and say how it went."""
    with tempfile.TemporaryDirectory() as folder:
        found, known = Path(folder, "found"), Path(folder, "known")
        found.mkdir(), known.mkdir()
        for number, data in enumerate(read_corpus(name)):
            (known / str(number)).write_bytes(data)

        options = [f"-max_len={LONGEST}", f"-seed={seed}", "-rss_limit_mb=4096", "-timeout=60"]
        ran = _atheris(name, f"-runs={runs}", *options, str(found), str(known))
        # The last line of progress: there are no statistics of a run that was interrupted.
        progress = re.findall(r"^#(\d+)\t", ran.stderr, re.MULTILINE)
        count = int(progress[-1]) if progress else 0
        if ran.returncode:
            print(ran.stderr[-4000:], file=sys.stderr)
        inputs = {each.read_bytes() for kept in (found, known) for each in kept.iterdir()}
        write_corpus(name, sorted(inputs, key=lambda data: (len(data), data))[:KEPT])
    _note(name, count, seed)
    print(f"{name:<10} {count:>12,} executions, seed {seed}: {'FAILED' if ran.returncode else 'nothing found'}", flush=True)
    return ran.returncode == 0


def _atheris(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz.guided", name, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def _note(name: str, count: int, seed: int) -> None:
    """Add to what was executed. Seeds are kept, so that a run can be had again."""
    record = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}
    head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    entry = record.setdefault(name, {"executions": 0, "seeds": []})
    entry["executions"] += count
    entry["seeds"] = [*entry["seeds"], seed][-20:]
    entry["commit"] = head.stdout.strip()
    RECORD.write_text(json.dumps(dict(sorted(record.items())), indent=1) + "\n", "utf-8")


def main() -> None:
    names = sorted(path.stem for path in CORPUS.glob("*.json"))
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(names))
    parser.add_argument("--runs", type=int, default=10_000_000, help="executions of each target (default: 10,000,000)")
    parser.add_argument("--seed", type=int, default=1, help="of the fuzzer (default: 1)")
    options = parser.parse_args()
    outcomes = [fuzz(name, options.runs, options.seed) for name in options.targets or names]
    sys.exit(not all(outcomes))


if __name__ == "__main__":
    main()
