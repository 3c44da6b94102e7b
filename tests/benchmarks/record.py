"""What was measured, kept: the page of figures is written from it, and from nothing else.

    python -m tests.benchmarks --record           # measure, and keep what came of it; guards, gateway, rows and control likewise
    python -m tests.benchmarks --record --load 8  # the same while eight other processes are busy: kept beside it
    python -m tests.benchmarks.page               # write the tables of docs/benchmarks.md from what is kept
    python -m tests.benchmarks.record             # before a release: is what is kept as new as what it measures?

`record.json` has a part for each command: on what it ran, at which commit, and the figures.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
RECORD = Path(__file__).with_name("record.json")

KERNEL = ("captoken/_format", "captoken/_language", "captoken/_verification", "captoken/_writing")

# What each part measures. A change there makes its figures old.
MEASURED = {
    "peers": KERNEL,
    "peers, under load": KERNEL,
    "guards": ("captoken/adapters", "captoken/tools.py", "captoken/current.py"),
    "gateway": ("captoken/adapters/_gateway", "captoken/adapters/gateway.py", "captoken/adapters/_http", "captoken/adapters/asgi.py"),
    "gateway_mcp": ("captoken/adapters/_gateway", "captoken/adapters/gateway.py", "captoken/adapters/_mcp"),
    "gateway_envoy": ("captoken/adapters/_gateway", "captoken/adapters/gateway.py", "captoken/adapters/_http", "captoken/adapters/asgi.py"),
    "rows": ("captoken/adapters/_sqlite", "captoken/adapters/_postgres", "captoken/rows.py", "captoken/_language/data.py"),
    "control": ("captoken/control", "captoken/audit"),
    "planning": ("captoken/_verification", "captoken/control", "captoken/audit", "captoken/stores", "captoken/issuance"),
    "simulation": ("captoken/control", "captoken/_language", "examples/object_storage.py", "tests/benchmarks/simulation"),
}


def read() -> dict[str, Any]:
    """What is kept, by part."""
    kept: dict[str, Any] = json.loads(RECORD.read_text("utf-8"))
    return kept


def keep(part: str, facts: dict[str, str], figures: dict[str, Any]) -> None:
    """Keep the figures of a part in place of those it had. Exits where nobody could say what was measured."""
    changed = _git("status", "--porcelain", "--", *MEASURED[part])
    if changed:
        sys.exit(f"commit first: figures of code that no commit has are nobody's\n{changed}")
    commit = _git("rev-parse", "--short=12", "HEAD")
    on = f"{datetime.now(UTC):%Y-%m-%d}"
    kept = read() if RECORD.exists() else {}
    kept[part] = {"facts": {"commit": commit, "day": on} | facts, **figures}
    ordered = {name: kept[name] for name in MEASURED if name in kept}
    RECORD.write_text(json.dumps(ordered, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"kept as {part}: `python -m tests.benchmarks.page` writes the page")


def machine() -> dict[str, str]:
    """What it runs on, without a path or a host name."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return {
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "CPU": f"{processor()}, {os.cpu_count()} of them, {platform.machine()}",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "load at the start": f"{load:.2f}",
    }


def processor() -> str:
    """Name the processor: of some, the model says nothing, and the family has to."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or "unknown"
    said: dict[str, str] = {}
    for line in info.read_text().splitlines():
        name, _, value = line.partition(":")
        said.setdefault(name.strip(), value.strip())
    model = said.get("model name", "unknown")
    return f"{model}, family {said['cpu family']}" if "cpu family" in said else model


def outdated() -> list[str]:
    """The parts whose figures are older than the last change to what they measure, with that change."""
    kept = read()
    found = []
    for part, paths in MEASURED.items():
        if part not in kept:
            continue
        commit = kept[part]["facts"]["commit"]
        since = _git("log", "--oneline", "-1", f"{commit}..HEAD", "--", *paths)
        if since:
            found.append(f"{part}: measured at {commit}, changed since by {since}")
    return found


def _git(*arguments: str) -> str:
    """What git says, within the repository."""
    ran = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return ran.stdout.strip()


if __name__ == "__main__":
    old = outdated()
    print("\n".join(old) or "the figures are as new as what they measure")
    sys.exit(bool(old))
