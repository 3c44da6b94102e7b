"""The comparison of two states of the package sees what it is for: a code, a place or a word that changed."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.before.__main__ import ROOT, Side, compare, is_meant
from tests.before.sessions import session

# A verifier that takes a table for a tool, from the third question on. A grant is another matter.
FAULT = """
def _with_a_fault():
    from msgspec import structs
    from captoken._verification.verifier import Verifier
    check, asked = Verifier.check, []

    def faulty(self, token, access, **more):
        decision = check(self, token, access, **more)
        asked.append(access)
        return structs.replace(decision, code="tool") if decision.code == "table" and len(asked) > 2 else decision

    Verifier.check = faulty

_with_a_fault()
"""


def compared(other: Path, *expected: str, count: int = 700) -> tuple[Counter[str], int, int, list[str]]:
    """This package beside one in another folder."""
    sides = Side(ROOT, "0"), Side(other, "0")
    try:
        return compare(sides, count, list(expected))
    finally:
        for side in sides:
            side.end()


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    left = shutil.ignore_patterns("__pycache__", "static")
    # By content alone: the checkout may be read-only, and here it is changed.
    shutil.copytree(ROOT / "captoken", tmp_path / "captoken", ignore=left, copy_function=shutil.copyfile)
    for folder in tmp_path.rglob("*/"):
        folder.chmod(0o755)
    yield tmp_path


def test_what_did_not_change_is_equal(copy: Path) -> None:
    """A copy answers alike: no time, address or order of a set comes into what is compared."""
    codes, decisions, meant, found = compared(copy)
    assert found == [] and meant == 0 and decisions >= 700
    assert len(codes) > 30 and codes["allowed"] > 150, codes


def test_another_code_is_found_and_can_be_meant(copy: Path) -> None:
    """A fault that shows only in a process that was asked before."""
    face = copy / "captoken/__init__.py"
    face.write_text(face.read_text("utf-8") + FAULT, "utf-8")
    assert any("code\n" in each for each in compared(copy, count=1500)[3])
    _, _, meant, found = compared(copy, "tool", count=1500)
    assert meant > 0 and found == [], "either side may have the code that was stated"


def test_another_word_is_found_and_can_be_meant(copy: Path) -> None:
    for path in copy.rglob("*.py"):
        source = path.read_text("utf-8")
        path.write_text(source.replace("The token has expired.", "The token is too old."), "utf-8")
    assert any("The token is too old." in each for each in compared(copy)[3])
    assert compared(copy, "words:expired")[3] == []
    assert compared(copy, "words:any")[3] == []
    assert compared(copy, "words:table")[3] != []


def test_a_process_that_loads_another_package_ends(tmp_path: Path) -> None:
    """What is compared is what is named, and not what is installed."""
    side = Side(tmp_path, "0")
    side.ask(first=0, count=1)
    with pytest.raises(SystemExit):
        side.answer()
    side.end()


@pytest.mark.parametrize(
    ("expected", "meant"),
    [
        ("expired", True), ("words:expired", True), ("words:any", True), ("code:expired", False), ("table", False), ("any", True),
    ],
)  # fmt: skip
def test_what_was_stated_is_meant(expected: str, meant: bool) -> None:
    assert is_meant("words", {"expired"}, [expected]) is meant
    assert not is_meant("words", {"expired"}, [])


def test_a_session_is_the_same_each_time_and_asks_much() -> None:
    """Grants that are asked again, texts that come up to five times, snapshots in between, two verifiers: all are drawn."""
    drawn = [session("0", number) for number in range(200)]
    assert drawn[:20] == [session("0", number) for number in range(20)]
    texts = [Counter(step["text"] for step in each["steps"] if "text" in step) for each in drawn]
    assert max(max(each.values()) for each in texts) >= 5
    assert sum(len(each["verifiers"]) > 1 for each in drawn) > 20
    assert sum(any("snapshot" in step for step in each["steps"]) for each in drawn) > 50
    assert sum(bool(each["own"]) for each in drawn) > 20
