"""How old what a release rests on is: the nightly sessions, and the figures of the benchmarks.

Each has the commit that it was run at, the day, and the versions of what it ran with. `python -m tests.evidence` says which is too old, or was never run: a release
is refused then. `--page` writes the table of docs/evidence.md.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/evidence.md"
DAYS, COMMITS = 30, 200  # what is older than either is no evidence for a release
# What a release may differ in from the commit that the whole suite has run at.
RECORDS = (".ci/nightly.json", "docs/evidence.md", "tests/benchmarks/record.json", "tests/fuzz", "tests/released.json", "docs/dependencies.md", "CHANGELOG.md")
_BEGIN, _END = "<!-- begin: runs -->\n", "<!-- end -->\n"


class Run(NamedTuple):
    """A session or a record: when it was run and how it went. Without a day it never was."""

    name: str
    day: date | None = None
    commit: str = ""
    result: str = ""
    used: str = ""  # the versions of what it ran with
    drawn: str = ""  # how much it drew, where the environment said it


def runs(root: Path = ROOT) -> Iterator[Run]:
    """All that a release rests on, in their order."""
    kept = json.loads((root / ".ci/nightly.json").read_text("utf-8"))
    for name in sessions((root / "noxfile.py").read_text("utf-8")):
        found = [(key, each) for key, each in kept.items() if key == name or re.match(rf"{name}[(-]", key)]
        yield from (_run(key, each) for key, each in sorted(found))
        if not found:
            yield Run(name)
    record = json.loads((root / "tests/benchmarks/record.json").read_text("utf-8"))
    for name, each in record.items():
        facts = each.get("facts", {})
        yield _run(f"benchmarks: {name}", {"result": "measured", **facts}) if "day" in facts else Run(f"benchmarks: {name}")


def sessions(source: str) -> list[str]:
    """The names of the sessions in a noxfile."""
    return re.findall(r"^@nox\.session\(.*\)\n(?:@nox\.parametrize\(.*\)\n)*def (\w+)\(", source, re.MULTILINE)


def _run(name: str, kept: dict[str, str]) -> Run:
    if not kept:
        return Run(name)
    used = kept.get("with") or kept.get("Python", "")
    return Run(name, date.fromisoformat(kept["day"]), kept["commit"], kept["result"], used, kept.get("drawn", ""))


def undeclared(name: str) -> bool:
    """Whether it is the core on a Python that pyproject.toml does not name: where it is absent, nothing is said of it."""
    python = name.removeprefix("core-")
    return python != name and f'"Programming Language :: Python :: {python}"' not in (ROOT / "pyproject.toml").read_text("utf-8")


def since(commit: str, root: Path = ROOT) -> int | None:
    """How many commits there are after this one; None for one that is not known here."""
    command = ["git", "rev-list", "--count", f"{commit}..HEAD"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else None


def changed_since(commit: str, root: Path = ROOT) -> str:
    """The first file, and no record, that differs between a commit and this one, or ''."""
    command = ["git", "diff", "--name-only", commit, "HEAD", "--", ".", *(f":!{each}" for each in RECORDS)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0] if done.returncode == 0 else f"commit {commit}, which is not known here"


def lacks(run: Run, today: date, after: Callable[[str], int | None] = since) -> str:
    """Why a release cannot rest on it, or ''."""
    if run.result == "absent" and undeclared(run.name):
        return ""
    if run.day is None:
        return "never run"
    if run.result not in ("passed", "measured"):
        return run.result
    if not run.used:
        return "nobody knows with which versions"
    if run.commit.endswith("-dirty"):
        return "of a tree that nobody has: something was not committed"
    if (today - run.day).days > DAYS:
        return f"{(today - run.day).days} days old"
    commits = after(run.commit)
    if commits is None:
        return f"of commit {run.commit}, which is not known here"
    return f"{commits} commits old" if commits > COMMITS else ""


def table(found: list[Run]) -> str:
    """The runs as a table of Markdown."""
    rows = [
        f"| {run.name} | {run.day or 'never'} | {run.commit and f'`{run.commit}`'} | {'; '.join(filter(None, (run.result, run.drawn)))} | {run.used} |"
        for run in found
    ]
    return "\n".join(("| run | last run | at commit | result | with |", "| --- | --- | --- | --- | --- |", *rows, ""))


def page(text: str, found: list[Run]) -> str:
    """The page, with this table in it."""
    head, _, rest = text.partition(_BEGIN)
    return f"{head}{_BEGIN}{table(found)}{_END}{rest.partition(_END)[2]}"


def main(given: list[str]) -> int:
    found = list(runs())
    if given == ["--page"]:
        PAGE.write_text(page(PAGE.read_text("utf-8"), found), "utf-8")
        return 0
    wrong = [(run, why) for run in found if (why := lacks(run, datetime.now(UTC).date()))]
    for run, why in wrong:
        print(f"{run.name}: {why}")
    print(f"{len(found) - len(wrong)} of {len(found)} runs are of the last {DAYS} days and {COMMITS} commits")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
