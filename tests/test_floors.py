"""What `python -m tests.floors` finds."""

from __future__ import annotations

import ast

from .floors import share, unrun

TEXT = """
def test_one():
    for each in ():
        assert each
    assert (
        True
    )

def test_that_did_not_run():
    assert False

def helper():
    assert False
"""


def test_an_assertion_in_a_loop_over_nothing_is_found() -> None:
    tree = ast.parse(TEXT)
    assert list(unrun(tree, {2, 3, 5})) == [4]
    assert list(unrun(tree, {2, 3, 4, 6})) == [] and list(unrun(tree, {2, 9, 12})) == []


def test_a_share_is_of_all_lines_and_not_of_files() -> None:
    assert share([(1, 1), (0, 9)]) == 10
