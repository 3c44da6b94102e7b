"""What fuzzing has found worth keeping: inputs that reach code which no smaller one does. One file a target."""

from __future__ import annotations

import json
from base64 import b85decode, b85encode
from collections.abc import Iterable
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


def read_corpus(name: str) -> list[bytes]:
    """The inputs of a target."""
    kept: list[str] = json.loads((CORPUS / f"{name}.json").read_text("utf-8"))
    return [b85decode(each) for each in kept]


def write_corpus(name: str, inputs: Iterable[bytes]) -> None:
    """Keep these, and no others."""
    kept = [b85encode(each).decode() for each in inputs]
    (CORPUS / f"{name}.json").write_text(json.dumps(kept, indent=0) + "\n", "utf-8")
