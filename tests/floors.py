"""How much of the package the suite runs, folder by folder, and which assertions of the tests never ran.

`.ci/run` holds what pyproject.toml does not leave out at all of its lines and branches. The adapters and the command line run many lines in processes of their own,
which are not watched; each has a floor, a little under what was measured. `python -m tests.floors` reads `.coverage`, of `coverage.toml`
beside this, and ends with 1 if something is below its floor. A test that ran, and whose assertion did not, may prove less than it says:
these are listed to be looked at.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from coverage import Coverage, CoverageData

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {"captoken/adapters": 94, "captoken/cli": 75, "captoken/stores": 98, "captoken/issuance": 99}  # of a hundred lines


def unrun(tree: ast.AST, ran: set[int]) -> Iterator[int]:
    """The lines of assertions that never ran, in test functions that did."""
    for each in ast.walk(tree):
        if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) or not each.name.startswith("test_"):
            continue
        inside = [node for node in ast.walk(each) if isinstance(node, ast.Assert)]
        if any(statement.lineno in ran for statement in each.body):
            yield from (node.lineno for node in inside if ran.isdisjoint(range(node.lineno, (node.end_lineno or node.lineno) + 1)))


def share(files: Iterable[tuple[int, int]]) -> float:
    """How many of a hundred lines ran, of files with so many lines that ran, and so many lines."""
    ran, lines = map(sum, zip(*files, strict=True))
    return 100 * ran / lines


def main() -> int:
    coverage = Coverage(config_file=str(ROOT / "tests/coverage.toml"))
    coverage.load()
    data: CoverageData = coverage.get_data()
    failed = 0
    for folder, floor in FLOORS.items():
        files = []
        for path in sorted((ROOT / folder).rglob("*.py")):
            _, lines, _, missing, _ = coverage.analysis2(str(path))
            files.append((len(lines) - len(missing), len(lines)))
        found = share(files)
        failed |= found < floor
        print(f"{folder}: {found:.1f} of 100 lines, floor {floor}")
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        ran = set(data.lines(str(path)) or ())
        for line in unrun(ast.parse(path.read_text("utf-8")), ran):
            print(f"{path.relative_to(ROOT)}:{line}: this assertion was not seen to run")
    return failed


if __name__ == "__main__":
    sys.exit(main())
