"""Runs it, and prints what each part sees: see the package."""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

from tests.benchmarks.record import keep, machine

from . import report
from .plan import Plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=Plan().seed)
    parser.add_argument("--servers", type=int, default=Plan().servers)
    parser.add_argument("--agents", type=int, default=Plan().agents)
    parser.add_argument("--entries", type=int, default=Plan().entries, help="that stand in the overlay when it begins")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--record", action="store_true", help="keep what came of it: record.py")
    options = parser.parse_args()

    facts, begun = machine(), time.perf_counter()
    plan = Plan(options.seed, options.servers, agents=options.agents, entries=options.entries)
    figures = report.simulated(plan)
    print("\n".join(report.lines(figures)))

    took, used = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    computed = time.process_time()
    print(f"\nin {took:.0f} s, of these {computed:.0f} s of one processor, with {used:.0f} MB of memory")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    if options.record:
        if plan != Plan():
            parser.error("what is kept is the plan as it stands")
        ran = {"took": f"{took:.0f} s", "processor time": f"{computed:.0f} s", "memory": f"{used:.0f} MB"}
        keep("simulation", ran | facts, figures)


if __name__ == "__main__":
    main()
