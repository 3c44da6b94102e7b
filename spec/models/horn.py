"""The Horn cases, and the two provers that must agree about each of them.

A set of Horn clauses either saturates without the goal, which is then out of reach for any number of tokens and sessions
("secure"), or the goal follows from it ("attack"). An attacker may use what it once saw any number of times: that is more
than it can really do, so "secure" is the strong answer, and what falls is read by people to be a real attack.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from time import perf_counter

from spec.models import chain, custody, discharge, keys, proof
from spec.models.cases import Case, Secure, World
from spec.models.report import Outcome

FAMILIES: dict[str, tuple[Case, ...]] = {
    "the chain": chain.CHAIN,
    "link ids and states": chain.NAMES,
    "keys of one audience": keys.AUDIENCE,
    "pairwise keys": keys.PAIRWISE,
    "third-party caveats": discharge.CASES,
    "custody": custody.CASES,
    "proof of possession": proof.CASES,
}


@dataclass(frozen=True)
class Prover:
    """A command that takes a TPTP file, and what it prints when the clauses saturate and when the goal follows."""

    name: str
    command: tuple[str, ...]
    saturated: str
    refuted: str

    def ask(self, problem: Path) -> str:
        """`secure`, `attack`, `missing` if it is not installed, or `undecided`. Does not look at the proof."""
        path = which(self.command[0])
        if path is None:
            return "missing"
        try:
            ran = subprocess.run([path, *self.command[1:], problem], capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            return "undecided"
        answers = {"secure": self.saturated in ran.stdout, "attack": self.refuted in ran.stdout}
        return next(answer for answer in answers if answers[answer]) if sum(answers.values()) == 1 else "undecided"


PROVERS = (
    # One strategy for all: the automatic one chooses by the looks of the clauses, and does not end on some of these.
    Prover(
        "E",
        ("eprover", "-s", "-tKBO6", "-WSelectMaxLComplexAvoidPosPred", "--cpu-limit=30"),
        saturated="SZS status Satisfiable",
        refuted="SZS status Unsatisfiable",
    ),
    Prover("SPASS", ("SPASS", "-TPTP", "-TimeLimit=30"), saturated="Completion found.", refuted="Proof found."),
)


def variants(case: Case) -> Iterator[tuple[World, str, str]]:
    """What is run of a case: itself and its broken variants, each with what it says and the answer expected."""
    if isinstance(case, Secure):
        yield case, case.claim, "secure"
        for broken in case.broken:
            yield broken, f"broken: {broken.fault}", "attack"
    else:
        yield case, f"reached: {case.claim}", "attack"


def run(case: Case) -> Iterator[Outcome]:
    """Ask every prover about a case and its broken variants."""
    for world, says, expected in variants(case):
        with tempfile.TemporaryDirectory() as folder:
            problem = Path(folder, f"{world.name}.p")
            problem.write_text(world.problem(), "ascii")
            start = perf_counter()
            said = {prover.name: prover.ask(problem) for prover in PROVERS}
            yield Outcome(world.name, says, expected, said, perf_counter() - start)
