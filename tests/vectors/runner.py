"""Runs an implementation against `spec/vectors/`, as `spec/vectors/FORMAT.md` says: reads JSON, asks an adapter, compares.

An adapter has a function for each kind of vector. Each takes a vector and returns what the implementation makes of it, as
the vector's `expect` has it: an object with `code` and whatever else belongs to that outcome.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

VECTORS = Path(__file__).parent.parent.parent / "spec" / "vectors"
PASSING = ("allowed", "ok")  # every other code is a failure

Vector = dict[str, Any]
Outcome = dict[str, Any]


class Adapter(Protocol):
    """A function for each kind of vector, called as the kind is, but for `decide`, which is asked the kind `decision`. What each
    is given and gives back, `spec/vectors/FORMAT.md` says."""

    def decide(self, vector: Vector) -> Outcome: ...
    def own(self, vector: Vector) -> Outcome: ...
    def grant(self, vector: Vector) -> Outcome: ...
    def dry_run(self, vector: Vector) -> Outcome: ...
    def chain(self, vector: Vector) -> Outcome: ...
    def capability(self, vector: Vector) -> Outcome: ...
    def mint(self, vector: Vector) -> Outcome: ...
    def widening(self, vector: Vector) -> Outcome: ...
    def interop(self, vector: Vector) -> Outcome: ...
    def request(self, vector: Vector) -> Outcome: ...
    def proof(self, vector: Vector) -> Outcome: ...
    def presenting(self, vector: Vector) -> Outcome: ...
    def evidence(self, vector: Vector) -> Outcome: ...
    def asking(self, vector: Vector) -> Outcome: ...
    def discharge(self, vector: Vector) -> Outcome: ...
    def holding(self, vector: Vector) -> Outcome: ...
    def pairwise(self, vector: Vector) -> Outcome: ...
    def key_file(self, vector: Vector) -> Outcome: ...
    def snapshot(self, vector: Vector) -> Outcome: ...
    def delta(self, vector: Vector) -> Outcome: ...
    def recall(self, vector: Vector) -> Outcome: ...
    def recalling(self, vector: Vector) -> Outcome: ...
    def publishing(self, vector: Vector) -> Outcome: ...
    def code(self, vector: Vector) -> Outcome: ...
    def counting(self, vector: Vector) -> Outcome: ...
    def trail(self, vector: Vector) -> Outcome: ...
    def recorded(self, vector: Vector) -> Outcome: ...


def families(folder: Path = VECTORS) -> Iterator[dict[str, Any]]:
    """The files: each a family, with its vectors."""
    for path in sorted(folder.glob("*.json")):
        yield json.loads(path.read_text(encoding="utf-8"))


def vectors(folder: Path = VECTORS) -> Iterator[Vector]:
    for family in families(folder):
        yield from family["vectors"]


def given(vector: Vector) -> Vector:
    """The vector with each field that is carried as JSON text as what the text spells."""
    made = {}
    for key, value in vector.items():
        if key.endswith("_json"):
            made[key.removesuffix("_json")] = json.loads(value, parse_int=_whole)
        else:
            made[key] = value
    return made


def _whole(digits: str) -> int:
    """An integer of any size: `int` alone stops at 4,300 digits."""
    return int(digits) if len(digits) < 1000 else int(Decimal(digits))


def answer(adapter: Adapter, vector: Vector) -> Outcome:
    """What the implementation makes of a vector."""
    kind = vector["kind"]
    outcome: Outcome = getattr(adapter, "decide" if kind == "decision" else kind)(given(vector))
    return outcome


def differences(adapter: Adapter, folder: Path = VECTORS) -> Iterator[tuple[str, Outcome, Outcome]]:
    """The vectors that come out otherwise: name, what was expected, what came."""
    for vector in vectors(folder):
        came = answer(adapter, vector)
        if came != vector["expect"]:
            yield vector["name"], vector["expect"], came
