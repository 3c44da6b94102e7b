"""The theorems of Chain.v and Discharges.v, and what falls in Broken.v when a hypothesis goes.

`coqc` compiles the files and says of each theorem that it rests on no axiom; `coqchk`, a kernel of its own, checks the
compiled proofs again, the standard library aside. What the theorems say is for people to read.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copy, which
from time import perf_counter

from spec.models.report import Outcome

FOLDER = Path(__file__).parent
CLOSED = "Closed under the global context"


@dataclass(frozen=True)
class Theorem:
    """A theorem of a file, by name, and what it says."""

    file: str
    name: str
    says: str


@dataclass(frozen=True)
class Claim(Theorem):
    """A theorem with those of Broken.v that show what happens without a hypothesis, or with another chain or verifier."""

    broken: tuple[Theorem, *tuple[Theorem, ...]]


def _claim(file: str, name: str, says: str, *broken: tuple[str, str]) -> Claim:
    first, *rest = (Theorem("Broken", *each) for each in broken)
    return Claim(file, name, says, (first, *rest))


CLAIMS = (
    _claim(
        "Chain",
        "unforgeable",
        "a token that can be presented extends one that was issued, unless its key is known",
        ("plain_forgeable", "a chain of hashes without a key: everybody makes every token"),
        ("stolen_forgeable", "the root key is stolen"),
        ("given_forgeable", "the key of the audience is known"),
    ),
    _claim(
        "Chain",
        "discharge_unforgeable",
        "a discharge that can be presented was seen with just that token, or extends one that was answered",
        ("above_forgeable", "the attacker has a token above the caveat"),
        ("lost_forgeable", "the caveat key is lost"),
        ("unbound_transferable", "discharges are not bound"),
    ),
    _claim(
        "Chain",
        "confinement",
        "what a verifier accepts lies within the authority of an issued token and its discharges",
        ("stolen_unconfined", "the root key is stolen"),
    ),
    _claim(
        "Discharges",
        "sent_unforgeable",
        "whatever boxes and tickets were written behind it, a token that can be sent extends one that was issued",
        ("sent_stolen", "the root key is stolen"),
    ),
    _claim(
        "Discharges",
        "bound_to_one",
        "a bound discharge is of one root, one token as it was sent, one ticket and one list of caveats",
        ("loose_two_ways", "a link may be any bytes, and so be spelled as a third party's caveat"),
    ),
    _claim(
        "Discharges",
        "one_for_each",
        "what a verifier takes has one discharge for each caveat that asks, and none to spare",
        ("missing_is_fine", "a caveat without a discharge is passed over"),
    ),
    _claim(
        "Discharges",
        "sent_confinement",
        "what a verifier takes, box by box, lies within an issued token and answers that are for it, with their caveats",
        ("any_key_forgeable", "a discharge is computed under a key that came with it"),
        ("unasked_unconfined", "nobody asks what a discharge says"),
    ),
)
POSSIBLE = (
    Theorem("Chain", "honest_use", "what was issued and answered is accepted"),
    Theorem("Chain", "narrowing", "any holder adds a link, with no key"),
    Theorem("Discharges", "sent_honestly", "what was issued and answered can be sent, and is taken"),
    Theorem("Broken", "guarded_possible", "there are third-party caveats of the kind that the theorems speak of"),
)
FILES = ("Chain", "Discharges", "Broken")  # each may use those before it


def theorems() -> Iterator[Theorem]:
    """All that must be proved, each claim before what falls without it."""
    for claim in CLAIMS:
        yield claim
        yield from (replace(broken, says=f"broken: {broken.says}") for broken in claim.broken)
    yield from POSSIBLE


def run() -> Iterator[Outcome]:
    """Compile copies of the files, check them, and ask of each theorem what it rests on. Leaves nothing beside the files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in FILES:
            copy(FOLDER / f"{file}.v", folder)
            commands = (("coqc", "-q", f"{file}.v"), ("coqchk", "-silent", "-norec", file))
            yield _outcome(folder, f"{file}.v", "compiles, and the second kernel agrees", commands)
        for theorem in theorems():
            question = f"Require Import {theorem.file}.\nPrint Assumptions {theorem.file}.{theorem.name}.\n"
            (folder / "Question.v").write_text(question, "ascii")
            yield _outcome(folder, theorem.name, theorem.says, (("coqc", "-q", "Question.v"),), answer=CLOSED)


def _outcome(folder: Path, name: str, says: str, commands: tuple[tuple[str, ...], ...], answer: str | None = None) -> Outcome:
    """`proved` by each command that ends well, and prints just the answer where one is asked for; `missing`, or `failed`."""
    start, said, detail = perf_counter(), {}, ""
    for command, *arguments in commands:
        path = which(command)
        if path is None:
            said[command] = "missing"
            continue
        ran = subprocess.run([path, *arguments], cwd=folder, capture_output=True, text=True, timeout=300)
        proved = ran.returncode == 0 and answer in (None, ran.stdout.strip())
        said[command] = "proved" if proved else "failed"
        detail += "" if proved else ran.stdout + ran.stderr
    return Outcome(name, says, "proved", said, perf_counter() - start, detail)
