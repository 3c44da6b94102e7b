"""What is mutated, and the tests that have to see it: a name for each."""

from __future__ import annotations

from glob import glob
from typing import NamedTuple


class Room(NamedTuple):
    mutated: list[str]  # files, as patterns of fnmatch
    tests: list[str]
    without: str = ""  # what `-k` leaves out


# What reads the source, and not what the library does: there each file holds all faults at once.
OF_THE_SOURCE = {
    f"tests/test_{name}.py" for name in ("docs", "errors", "examples", "extras", "platforms", "reading", "reference", "surface")
}
# A function under mutation is called through another one, so that it needs more work and more memory.
WITHIN = "not b2_no_other_length and not memory and not work"

CORE = Room(
    [f"captoken/{room}/*" for room in ("_format", "_language", "_writing", "_verification")],
    [*sorted({*glob("tests/test_*.py")} - OF_THE_SOURCE), "tests/vectors", "tests/properties", "tests/attacks"],
    WITHIN,
)

# Of the guards of databases, what decides: not how rows travel, nor what a block counts.
_SQLITE = "catalog joins lexer names naming opcodes permitting planner programs remembered scopes shadow text trial watch"
_POSTGRES = (
    "assessment assumptions catalog columns expressions judging lists names needs outputs parameters reader roles statements tables "
    "templates text walk written"
)

SQLITE = Room(
    [f"captoken/adapters/_sqlite/{name}.py" for name in _SQLITE.split()],
    ["tests/adapters/test_row_budgets.py", *sorted(glob("tests/adapters/test_sqlite*.py"))],
)
POSTGRES = Room(
    [f"captoken/adapters/_postgres/{name}.py" for name in _POSTGRES.split()],
    [f"tests/adapters/test_{name}.py" for name in ("postgres", "postgres_told", "row_budgets_postgres")],
)
ROOMS = {"core": CORE, "sqlite": SQLITE, "postgres": POSTGRES}
