"""What is mutated, and the tests that have to see it: a name for each."""

from __future__ import annotations

import tomllib
from glob import glob
from pathlib import Path
from typing import NamedTuple


class Room(NamedTuple):
    mutated: list[str]  # files, as patterns of fnmatch
    tests: list[str]
    without: str = ""  # what `-k` leaves out


# What looks at what the library does: tests of its source see all faults of a file at once. Nor those that count work, take memory
# or start processes: a function under mutation is called through another one.
_CORE = (
    "access addresses analysis asked bounds capability caveats chains check checks clocks consent consenting consents constraints "
    "costs current decision deltas discharge effects encoding entries failing feed files grant held_rows holding interop issuer "
    "keyring keywords kinds lazy lease ledger lineage link marking messages names operator overlay packet pairwise parts "
    "patterns plan primitives proof public_keys recall records request rows sealed secret seen shapes shelf signed spelling "
    "testing text token token_set toml tool trail tree unverified urls values verifier widening wording work"
)
# In test_messages, and looks at the source.
_SOURCE = "not of_the_kernel_stands_in_the_file"
# They count what Python calls.
_COUNTING = "not makes_no_work and not works_no and not costs_once and not of_many_segments and not are_looked_up and not before_all_of_it"
CORE = Room(
    [f"captoken/{room}/*" for room in ("_format", "_language", "_writing", "_verification")],
    [
        "tests/vectors/test_vectors.py",
        "tests/vectors/test_second_reading.py",
        *sorted(glob("tests/local/test_*.py")),
        *sorted(glob("tests/testing/test_*.py")),
        *(f"tests/test_{name}.py" for name in _CORE.split()),
    ],
    f"not memory and not any_size_and_depth and {_COUNTING} and {_SOURCE}",
)


def kernel() -> list[str]:
    """The files of the kernel, as the contract of imports lists them."""
    contracts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    modules = next(contract["source_modules"] for contract in contracts if contract["name"].startswith("the kernel"))
    return [f"{module.replace('.', '/')}.py" for module in modules]


# Under mutation a class has more functions than its parts.
KERNEL = Room(
    kernel(),
    [
        *CORE.tests,
        *(f"tests/{name}.py" for name in ("test_links_decide", "test_memory", "test_history", "properties/test_links", "properties/test_root")),
    ],
    f"(not memory or test_memory) and not all_there_are and not any_size_and_depth and {_COUNTING} and {_SOURCE}",
)

# Of the guards of databases, what decides: not how rows travel, nor what a block counts.
_SQLITE = (
    "catalog changed events granted joins lengths lexer names naming opcodes parts permitting planner programs remembered scopes shapes text "
    "trial updates watch"
)
_POSTGRES = (
    "assessment assumptions catalog columns expressions grammar judging lists names needs outputs parameters reader reports roles room "
    "statements tables templates text tree walk written"
)

SQLITE = Room(
    [f"captoken/adapters/_sqlite/{name}.py" for name in _SQLITE.split()],
    ["tests/adapters/test_usage_meter.py", *sorted(glob("tests/adapters/sqlite/test_*.py"))],
)
POSTGRES = Room(
    [f"captoken/adapters/_postgres/{name}.py" for name in _POSTGRES.split()],
    ["tests/adapters/test_usage_meter_postgres.py", *sorted(glob("tests/adapters/postgres/test_*.py"))],
)
ROOMS = {"core": CORE, "kernel": KERNEL, "sqlite": SQLITE, "postgres": POSTGRES}
