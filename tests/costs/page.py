"""docs/growth.md: the table of operations, written from `operations.py`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from .counting import TIMES, lines
from .operations import OPERATIONS, Operation

PAGE = Path(__file__).parents[2] / "docs/growth.md"

HEAD = """\
# How costs grow

This page says for each operation how its cost grows with what you hand it. For the cost itself, in time, see [what it costs](costs.md) and
[size and speed](benchmarks.md).

A test counts the lines of Python that each operation executes, at three sizes: n, 5 n and 10 n. It fails if the cost grows faster than this page
says. It looks at no clock, so it gives the same answer on each machine. It does not see what runs in C, such as a sort, or in a database.

| order | what it means |
| --- | --- |
| 1 | the cost stays the same, however much there is |
| n | twice as much costs twice as much |
| n log n | twice as much costs a little more than twice as much |

`python -m tests.costs` prints the counts.
"""


def measured(operation: Operation) -> tuple[int, int, int]:
    """The lines at the three sizes. What is loaded, or remembered by the process, the first time of all does not count."""
    sizes = [operation.least * times for times in TIMES]
    operation.prepare(sizes[0])()
    small, middle, large = (lines(operation.prepare(size)) for size in sizes)
    return small, middle, large


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for area, operations in groupby(OPERATIONS, key=lambda each: each.area):
        rows = [f"| {each.name} | {each.grows} | {each.order} |" for each in operations]
        parts.append(
            "\n".join([f"\n## {area}\n", "| operation | what there is more of | order |", "| --- | --- | --- |", *rows, ""])
        )
    return "".join(parts)
