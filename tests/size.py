"""How large the package is: `python -m tests.size` counts statements by folder, docstrings and what is generated left out.

What is generated is listed in `tests/called.py`, `PARTS`.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from tests import called

ROOT = Path(__file__).parent.parent / "captoken"


def statements(text: str) -> tuple[int, int]:
    """How many statements a file has, docstrings aside: those that are written, and those that are generated."""
    generated = called.lines(text)
    found = [node.lineno in generated for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt) and not _is_text(node)]
    return found.count(False), found.count(True)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def main() -> None:
    written: Counter[str] = Counter()
    generated = 0
    for file in sorted(ROOT.rglob("*.py")):
        ours, made = statements(file.read_text("utf-8"))
        written[file.relative_to(ROOT).parts[0]] += ours
        generated += made
    for name, count in written.most_common():
        print(f"{count:6} {name}")
    print(f"{written.total():6} in all, and {generated} that are generated")


if __name__ == "__main__":
    main()
