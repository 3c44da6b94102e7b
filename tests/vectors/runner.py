"""Runs an implementation against `spec/vectors/`: reads JSON, asks an adapter, compares. To be copied.

An adapter has five functions. Each takes a vector and returns what the implementation makes of it, as the vector's
`expect` has it: an object with `code` and whatever else belongs to that outcome.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

VECTORS = Path(__file__).parent.parent.parent / "spec" / "vectors"
PASSING = ("allowed", "ok")  # every other code is a failure

Vector = dict[str, Any]
Outcome = dict[str, Any]


class Adapter(Protocol):
    def decide(self, vector: Vector) -> Outcome:
        """kind `decision`: token, keyring, facts, access (null: none is asked about), caller. `code`; and for `allowed`
        `link_ids`, `chain`, `task`, `expires_at`. A fact that cannot be stated is `usage`."""

    def chain(self, vector: Vector) -> Outcome:
        """kind `chain`, all in hexadecimal: key, identifier, caveats. `ok` with `derived`, `tags`, and `bound`, null where
        `bound_to` is."""

    def capability(self, vector: Vector) -> Outcome:
        """kind `capability`: two links, one and two. `ok` with `meet`, `one_covers_two`, `two_covers_one`."""

    def widening(self, vector: Vector) -> Outcome:
        """kind `widening`: token, asked, to (null: no hand-over), now, nonce. `ok` with the `link` that is written; or
        `widening` or `nothing_left` with `dimension`; or `too_deep`, `broken_delegation`, `limit`, `usage`."""

    def interop(self, vector: Vector) -> Outcome:
        """kind `interop`: source, in the form text or hexadecimal. `ok` with `text`, or `malformed`."""


def families(folder: Path = VECTORS) -> Iterator[dict[str, Any]]:
    """The files: each a family, with its vectors."""
    for path in sorted(folder.glob("*.json")):
        yield json.loads(path.read_text(encoding="utf-8"))


def vectors(folder: Path = VECTORS) -> Iterator[Vector]:
    for family in families(folder):
        yield from family["vectors"]


def answer(adapter: Adapter, vector: Vector) -> Outcome:
    """What the implementation makes of a vector."""
    ask = {
        "decision": adapter.decide, "chain": adapter.chain, "capability": adapter.capability, "widening": adapter.widening,
        "interop": adapter.interop,
    }[vector["kind"]]  # fmt: skip
    return ask(vector)


def differences(adapter: Adapter, folder: Path = VECTORS) -> Iterator[tuple[str, Outcome, Outcome]]:
    """The vectors that come out otherwise: name, what was expected, what came."""
    for vector in vectors(folder):
        came = answer(adapter, vector)
        if came != vector["expect"]:
            yield vector["name"], vector["expect"], came
