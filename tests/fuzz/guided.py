"""One target under atheris: `python -m tests.fuzz.guided TARGET [options of libFuzzer] FOLDER`. `__main__` runs it."""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-not-found]

with atheris.instrument_imports(include=["captoken"]):
    from tests.fuzz.targets import TARGETS

name = sys.argv.pop(1)
atheris.Setup(sys.argv, TARGETS[name])
atheris.Fuzz()
