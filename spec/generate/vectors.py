"""All tables, and the files that they are written to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from spec.generate import (
    algebra,
    answering,
    binding,
    caveats,
    consenting,
    control,
    discharge,
    issuing,
    keys,
    marks,
    proof,
    records,
    schemas,
    sets,
    verification,
    wire,
    work,
)
from spec.generate.table import Table

FOLDER = schemas.VECTORS


def tables() -> Iterator[Table]:
    """The families, in the order of the specification."""
    for module in (wire, records, caveats, issuing, verification, work, algebra, keys, binding, proof, discharge, control, answering, sets, marks, consenting):
        yield from module.tables()


def files() -> dict[Path, str]:
    """What every file says: the vectors, their schemas, and FORMAT.md."""
    made = list(tables())
    listed = [(table.family, table.about, {str(vector["kind"]) for vector in table.vectors}) for table in made]
    return {FOLDER / f"{table.family}.json": table.file for table in made} | schemas.files(listed)
