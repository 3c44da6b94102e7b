"""Runs the models: `python -m spec.models` from the root of the repository; `--only horn`, `coq` or `spin` for a part.

Prints a line for each case and exits with 1 if any prover says otherwise than expected, or is not there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from spec.models import coq, horn, spin, traces
from spec.models.report import Outcome


def outcomes(only: str | None) -> Iterator[tuple[str, Iterator[Outcome]]]:
    """What is run, by heading."""
    if only in (None, "horn"):
        for family, cases in horn.FAMILIES.items():
            yield family, (outcome for case in cases for outcome in horn.run(case))
    if only in (None, "coq"):
        yield "theorems", coq.run()
    if only in (None, "spin"):
        yield "state", spin.run()
        yield "runs", traces.check()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m spec.models", description="Check the models of the protocol.")
    parser.add_argument("--only", choices=("horn", "coq", "spin"), help="one part alone")
    passed = failed = 0
    missing: set[str] = set()
    for heading, lines in outcomes(parser.parse_args().only):
        print(f"\n{heading}")
        for outcome in lines:
            print(outcome.line(), flush=True)
            passed, failed = passed + outcome.passed, failed + (not outcome.passed)
            missing |= {prover for prover, answer in outcome.said.items() if answer == "missing"}
    if missing:
        print(f"\nnot installed: {', '.join(sorted(missing))} (spec/models/provers.sh installs them on Debian)")
    print(f"\n{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
