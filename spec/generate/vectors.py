"""All tables, and the files that they are written to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from spec.generate import algebra, binding, caveats, control, discharge, keys, proof, records, verification, wire
from spec.generate.table import Table

FOLDER = Path(__file__).parent.parent / "vectors"


def tables() -> Iterator[Table]:
    """The families, in the order of the specification."""
    for module in (wire, records, caveats, verification, algebra, keys, binding, proof, discharge, control):
        yield from module.tables()


def files() -> dict[Path, str]:
    """What every file says."""
    return {FOLDER / f"{table.family}.json": table.file for table in tables()}
