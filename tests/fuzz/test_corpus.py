"""What fuzzing has found holds on: every input that is kept is run again, and each target can fail."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fuzz import targets
from tests.fuzz.corpus import CORPUS, read_corpus

RECORD = json.loads((CORPUS.parent / "record.json").read_text("utf-8"))


@pytest.mark.parametrize("name", targets.TARGETS)
def test_what_was_found_holds(name: str) -> None:
    """No input breaks what must hold, and there are inputs."""
    inputs = read_corpus(name)
    assert len(inputs) > 10
    for data in inputs:
        targets.TARGETS[name](data)


def test_each_target_has_a_corpus_and_a_record() -> None:
    assert set(targets.TARGETS) == {path.stem for path in CORPUS.glob("*.json")} == set(RECORD)


BROKEN: list[tuple[str, str, Any]] = [
    ("text", "VERIFIER", SimpleNamespace(check=lambda *_: True)),
    ("packet", "encode", lambda _: b""),
    ("json", "encode_json", lambda _: b""),
    ("link", "read_link", lambda *_: None),
    ("snapshot", "Overlay", SimpleNamespace(open=lambda *_: SimpleNamespace(digest=b"", entries=(), size=0))),
    ("delta", "b64decode", lambda _: b""),
    ("recall", "_recall", SimpleNamespace(_read=lambda _: SimpleNamespace(links=[], why="", after=0))),
    ("request", "_GUARD", targets._application),
    ("sqlite", "_SECRET", "e"),
    ("postgres", "read", lambda _: object.__new__(type("Odd", (), {"refusal": property(lambda self: id(self)), "sql": ""}))),
]


@pytest.mark.parametrize(("name", "part", "broken"), BROKEN, ids=[name for name, *_ in BROKEN])
def test_a_target_notices(name: str, part: str, broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a part of it broken, the corpus is refused: so the corpus gets to what is looked at."""
    monkeypatch.setattr(targets, part, broken)
    with pytest.raises((AssertionError, AttributeError)):
        for data in read_corpus(name):
            targets.TARGETS[name](data)
