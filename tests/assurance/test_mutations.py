"""Each claim's test fails where the fault of the claim is made, and passes where it is not.

A step of its own, since each fault takes a process: `pytest -m mutation tests/assurance`. A mutation that is not killed is a
finding: the test does not look at what the claim says, and is to be made so that it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.assurance.claims import Claim, Mutation, claims
from tests.assurance.mutations import Copy

CLAIMS = claims()


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """One for all faults of a process: each is undone."""
    yield Copy(tmp_path_factory.mktemp("copy"))


@pytest.mark.mutation
def test_without_a_fault_all_pass(copy: Copy) -> None:
    failed, printed = copy.failed(sorted({claim.test for claim in CLAIMS}), longest=600)
    assert failed == 0, printed


@pytest.mark.mutation
@pytest.mark.parametrize("claim", CLAIMS, ids=[claim.name for claim in CLAIMS])
def test_the_fault_is_found_by_the_test_of_the_claim(claim: Claim, copy: Copy) -> None:
    with copy.with_fault(claim.mutation):
        failed, printed = copy.failed([claim.test])
    assert failed, f"{claim.says} {claim.test} passes with the fault in {claim.mutation.file}\n{printed}"


def test_a_fault_is_made_and_undone(tmp_path: Path) -> None:
    """And only in the copy, by whichever module Python takes there."""
    copy = Copy(tmp_path)
    mutation = Mutation("_format/chain.py", "if equal(carried, packet.signature) else None", "if True else None")
    source = (copy.folder / "captoken/_format/chain.py").read_text("utf-8")
    with copy.with_fault(mutation):
        assert (copy.folder / "captoken/_format/chain.py").read_text("utf-8") == mutation.applied(source)
    assert (copy.folder / "captoken/_format/chain.py").read_text("utf-8") == source


def test_a_fault_that_cannot_be_placed_is_told() -> None:
    with pytest.raises(ValueError, match="has 2 times"):
        Mutation("x.py", "a", "b").applied("a a")


@pytest.mark.parametrize("tests", [["tests/test_no_such_file.py"], ["tests/test_plan.py::test_no_such_test"]])
def test_what_cannot_be_run_is_no_kill(tests: list[str], tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    with pytest.raises(RuntimeError, match="not found"):
        copy.failed(tests)
