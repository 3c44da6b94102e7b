"""What covers a file or a rule is found without running anything, and no rule is covered by nothing."""

from __future__ import annotations

import re

import pytest

from tests import which

FILES = sorted(which._files())
MEANT = {
    "captoken/__main__.py",
    *(file for file in FILES if not re.search(r"^(class|def|async def|from|import) ", which._files()[file], re.M)),
}


def test_every_rule_has_a_vector_a_test_or_a_mark_that_says_why_there_can_be_none() -> None:
    """A test cites it by its number, in a docstring or a comment. Or the mark is `[meaning]`: it says what other rules come to."""
    assert which.uncovered() == []


def test_a_rule_that_nothing_cites_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    new = {"44.98": "[running] Nobody tests it.", "44.99": "[meaning] What others come to."}
    known = which.rules()
    monkeypatch.setattr(which, "rules", lambda: known | new)
    assert which.uncovered() == ["44.98"]


@pytest.mark.parametrize(
    ("source", "cited"),
    [
        ('"""A claim (24.12)."""', {"24.12": 1}),
        ('def f():\n    """One.\n\n    Two (7.5, 7.6).\n    """\n', {"7.5": 4, "7.6": 4}),
        ("x = 1  # 38.8. The same twice.", {"38.8": 1}),
        ("x = [1.5, 24.12]\ny = '24.12'", {}),
        ("# version 0.23.1, at 10.0.0.1, of 9.0a", {}),
    ],
)
def test_a_rule_is_cited_in_prose_and_a_number_in_code_is_none(source: str, cited: dict[str, int]) -> None:
    assert which.cited_in(source) == cited


def test_of_a_rule_its_vectors_tests_claims_and_code_are_told() -> None:
    found = which.of_rule("15.5")
    assert found.vectors["tools"] > 20 and any(claim.startswith("D2 ") for claim in found.claims)
    assert any(place.startswith("captoken/_language/") for place in found.code)
    found = which.of_rule("24.20")
    assert [test for test in found.tests if test.startswith("tests/stores/test_awaited.py::test_a_request_that_is_cancelled")]


def test_of_a_file_its_tests_are_told_and_its_claims() -> None:
    found = which.of_file("captoken/_verification/memory.py")
    assert "tests/test_memory.py" in found.tests and any(" tests/test_memory.py::" in claim for claim in found.claims)
    assert "tests/test_plan.py" in which.of_file("captoken/_verification/verifier.py").tests, "through a public name"
    assert which.of_file("captoken/_language/failing.py").through, "which no test imports"


def test_every_file_has_tests_by_itself_or_by_what_stands_on_it() -> None:
    found = {file: which.of_file(file) for file in FILES}
    assert {file for file, covered in found.items() if not covered.tests and not covered.through} - MEANT == set()


def test_it_is_asked_by_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(which.ROOT)
    assert which.main(["15.5", "captoken/_language/tool.py"]) == 0
    told = capsys.readouterr().out
    assert "vectors  " in told and "claims   D2 " in told and "rules    " in told
    assert which.main([]) == 1 == which.main(["99.1"]) == which.main(["captoken/none.py"])
    assert "no rule of the specification" in capsys.readouterr().err
