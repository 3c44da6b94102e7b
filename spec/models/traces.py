"""Runs of the searches' models, written down: what parties asked a store, and what it then was.

The searches of `spin.py` say what holds of a model in every order of steps. Whether the stores are what the models say is
another question. So a model prints each step of its store, and `tests/stores/test_traces.py` takes the stores through the
same steps, and compares what can be seen of them. A run is one of two kinds:

- one that SPIN's simulator made at random, of the model as it is; or one by which a state is reached;
- one that SPIN found a fault by: no store may go along with it, or the comparison would see nothing. Of some faults no step
  of a store tells: where it cannot be reached, or is not asked.

`python -m spec.models.traces` writes them anew; `python -m spec.models` says whether they are what SPIN gives.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copy, which
from time import perf_counter

from spec.models import spin
from spec.models.report import Outcome

FOLDER = Path(__file__).parent
MODELS = ("ledger", "marks", "replay", "revocation")
_DRAWN = 300  # runs that are drawn at random, of each model
_KEPT = 60  # of these: the longest, no two of which are the same

# The faults of which no step of a store tells.
UNTOLD = {
    ("ledger", "FAILS_OPEN"),
    ("marks", "FAILS_OPEN"),
    ("marks", "SETS_AFTERWARDS"),  # of a server, which asks no store then
    ("marks", "REMEMBERS_WHAT_IS_NOT_SET"),  # the same
    ("marks", "REMEMBERS_WHAT_IT_WOULD_HAVE_SET"),  # the same
    ("replay", "FAILS_OPEN"),
    ("revocation", "GRANT_DOES_NOT_ASK_AGAIN"),
    ("revocation", "GOES_BY_THE_NUMBER"),  # of a store that was set back, which no step of a store is
    ("revocation", "DATED_WHEN_IT_IS_SIGNED"),  # of an operator's clock, which no store has
}


@dataclass(frozen=True)
class Step:
    """One step of a store: what was asked, and numbers as the model prints them."""

    what: str
    numbers: tuple[int, ...]

    def line(self) -> str:
        return " ".join((self.what, *map(str, self.numbers)))


@dataclass(frozen=True)
class Run:
    """The steps of one run. Without a seed it is the trail of a search."""

    model: str
    macros: tuple[str, ...]  # the question of the search, and the fault if there is one
    seed: int
    steps: tuple[Step, ...]

    @property
    def name(self) -> str:
        return "-".join((self.model, *self.macros, str(self.seed))).lower()

    @property
    def fault(self) -> str | None:
        """The macro of its fault; None for a run of the model as it is."""
        return self.macros[1] if len(self.macros) > 1 else None


def file_of(model: str) -> Path:
    """Where the runs of a model lie."""
    return FOLDER / f"{model}.runs"


def runs_of(model: str) -> tuple[Run, ...]:
    """The runs that lie there: of each a line with its seed and its macros, and a line a step."""
    found: list[Run] = []
    for part in file_of(model).read_text("ascii").split("\n\n"):
        head, *lines = part.strip().splitlines()
        seed, *macros = head.split()
        found.append(Run(model, tuple(macros), int(seed), _steps(lines)))
    return tuple(found)


def _steps(lines: list[str]) -> tuple[Step, ...]:
    """The steps among what SPIN prints."""
    told = [line.split() for line in lines if re.fullmatch(r"[a-z]+(?: \d+)+", line)]
    return tuple(Step(what, tuple(map(int, numbers))) for what, *numbers in told)


# --- asking SPIN ------------------------------------------------------------------------------------------------------


def simulated(model: str, seed: int) -> Run:
    """A run at random, which the seed decides. Raises CalledProcessError."""
    command = ["spin", "-T", f"-n{seed}", "-DTRACE", str(FOLDER / f"{model}.pml")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return Run(model, (), seed, _steps(ran.stdout.splitlines()))


def found(model: str, *macros: str) -> Run:
    """The run by which a search finds that what a macro asserts fails. Raises CalledProcessError."""
    given = ["-DTRACE", *(f"-D{macro}" for macro in macros), f"{model}.pml"]
    with tempfile.TemporaryDirectory() as folder:
        copy(FOLDER / f"{model}.pml", folder)
        for command in (
            ["spin", "-a", *given],
            ["gcc", "-w", "-DSAFETY", "-o", "search", "pan.c"],
            ["./search", f"-m{spin.DEPTH}"],
        ):
            subprocess.run(command, cwd=folder, capture_output=True, timeout=120, check=True)
        # It ends with the assertion that fails, which is no failure of the command.
        ran = subprocess.run(["spin", "-T", "-t", *given], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return Run(model, macros, 0, _steps(ran.stdout.splitlines()))


def again(run: Run) -> Run:
    """The same run, as SPIN gives it now."""
    return found(run.model, *run.macros) if run.macros else simulated(run.model, run.seed)


def _all(model: str) -> Iterator[Run]:
    """What is to be written down of a model."""
    drawn = {run.steps: run for run in (simulated(model, seed) for seed in range(_DRAWN, 0, -1)) if run.steps}
    yield from sorted(sorted(drawn.values(), key=lambda run: -len(run.steps))[:_KEPT], key=lambda run: run.seed)
    for where, reached in spin.REACHED:
        if where == model:
            yield found(model, reached.macro)
    for claim in spin.CLAIMS:
        for fault in claim.broken if claim.model == model else ():
            if (model, fault.macro) not in UNTOLD:
                yield found(model, claim.asks.macro, fault.macro)


def check() -> Iterator[Outcome]:
    """Whether the runs of each model that are written down are those that SPIN gives."""
    tools = {tool: which(tool) for tool in ("spin", "gcc")}
    missing = {tool: "missing" for tool, path in tools.items() if path is None}
    for model in MODELS:
        start, said, detail = perf_counter(), missing, ""
        if not missing:
            others = [run.name for run in runs_of(model) if again(run) != run]
            said, detail = {"spin": "other" if others else "same"}, " ".join(others)
        says = f"the runs that stores are taken through are those of {model}.pml"
        yield Outcome(f"{model}_runs", says, "same", said, perf_counter() - start, detail)


def main() -> None:
    for model in MODELS:
        parts = [[" ".join((str(run.seed), *run.macros)), *(step.line() for step in run.steps)] for run in _all(model)]
        file_of(model).write_text("\n\n".join(map("\n".join, parts)) + "\n", "ascii")


if __name__ == "__main__":
    main()
