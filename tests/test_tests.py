"""No test that cannot fail: each reaches a check, whatever is installed, and none compares what stands in two files.

By the text of the tests alone. What a check is reached by, a call of a function of `tests/` may bring; a check within a handler,
or behind a `continue` that is always taken, is for who reads it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What a test says by a call. `suppress` says that nothing else is raised.
CALLS = {"raises", "warns", "fail", "suppress"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def trees() -> dict[str, ast.Module]:
    files = [path for folder in ("tests", "captoken") for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in files}


@cache
def helpers() -> dict[str, list[Function]]:
    """The functions of the tests, by name."""
    found: dict[str, list[Function]] = {}
    for file, tree in trees().items():
        for node in ast.walk(tree):
            if file.startswith("tests/") and isinstance(node, Function):
                found.setdefault(node.name, []).append(node)
    return found


@cache
def constants() -> set[str]:
    """Names in capitals that stand for what is written there: a number, a text, a tuple of these."""
    return {name for tree in trees().values() for name in constants_of(tree)}


def constants_of(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and is_written(node.value, set()):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name) and target.id.isupper())


def is_written(node: ast.expr, names: set[str]) -> bool:
    """Is it what stands there, or a name of that?"""
    if isinstance(node, ast.Name):
        return node.id in names
    if isinstance(node, ast.Tuple | ast.BinOp):
        return all(is_written(one, names) for one in ast.iter_child_nodes(node) if isinstance(one, ast.expr))
    return isinstance(node, ast.Constant)


def called(node: ast.AST) -> set[str]:
    """The names of what is called in it. A statement that checks counts as a call."""
    names = set()
    for each in ast.walk(node):
        if isinstance(each, ast.Assert | ast.Raise):
            names.add("assert")
        elif isinstance(each, ast.Call):
            names.add(each.func.attr if isinstance(each.func, ast.Attribute) else getattr(each.func, "id", ""))
    return names


def is_check(name: str) -> bool:
    return name in CALLS or name.startswith("assert")


@cache
def checking() -> set[str]:
    """The helpers that have a check, and those that call one of these, and so on."""
    calls = {name: {one for helper in same for one in called(helper)} for name, same in helpers().items()}
    found = {name for name, ones in calls.items() if any(map(is_check, ones))}
    while more := {name for name, ones in calls.items() if ones & found} - found:
        found |= more
    return found


def checks(node: ast.AST) -> bool:
    """Is there a check in it, or in what it calls?"""
    return any(is_check(name) or name in checking() for name in called(node))


def problems(test: Function, known: set[str]) -> Iterator[str]:
    """Why a test cannot fail, or not everywhere."""
    telling = [statement for statement in test.body if checks(statement)]
    if not telling:
        yield "has no check"
    elif all(isinstance(one, ast.If) and not one.orelse for one in telling):
        yield "has no check but under a condition"
    for node in ast.walk(test):
        if isinstance(node, ast.Assert):
            yield from (f"compares what is written: {ast.unparse(one)}" for one in compared(node.test) if says_nothing(one, known))


def compared(test: ast.expr) -> Iterable[ast.expr]:
    return test.values if isinstance(test, ast.BoolOp) else [test]


def says_nothing(test: ast.expr, known: set[str]) -> bool:
    sides = [test.left, *test.comparators] if isinstance(test, ast.Compare) else [test]
    return all(is_written(side, known) for side in sides)


def named_tests(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function) and node.name.startswith("test_"))


def test_each_test_can_fail_whatever_is_installed() -> None:
    found = [
        f"{file}: {test.name} {problem}"
        for file, tree in trees().items()
        if file.startswith("tests/")
        for test in named_tests(tree)
        for problem in problems(test, constants())
    ]
    assert found == []


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("f()", "has no check"),
        ("if x: assert f()", "has no check but under a condition"),
        ("assert MOST == 4096", "compares what is written: MOST == 4096"),
        ("assert f() and 1 <= MOST < 2 * 5", "compares what is written: 1 <= MOST < 2 * 5"),
        ("assert 'text'", "compares what is written: 'text'"),
    ],
)
def test_a_test_that_cannot_fail_is_found(body: str, problem: str) -> None:
    def found(body: str) -> list[str]:
        (test,) = named_tests(ast.parse(f"def test_it():\n    {body}\n"))
        return list(problems(test, {"MOST"}))

    assert problem in found(body)
    for good in ("assert f() == MOST", "with pytest.raises(ValueError): f()", "if x: assert f()\n    else: assert g()"):
        assert not found(good), good


def test_no_test_runs_a_script_that_is_installed() -> None:
    """It may be of another tree, or of a wheel: `tests/program.py` makes one of this tree."""
    files = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    assert [path.name for path in files if 'get_path("scripts")' in path.read_text("utf-8")] == []


def test_no_folder_of_tests_has_the_name_of_a_module_that_scripts_import() -> None:
    """A script that a test starts from the folder above it would import the tests in its place."""
    folders = {path.name for path in (ROOT / "tests").rglob("*") if path.is_dir() and (path / "__init__.py").exists()}
    beside = {"grpc", "mcp", "fastapi", "httpx", "sqlalchemy", "psycopg", "valkey", "uvicorn", "captoken"}
    assert folders & (set(sys.stdlib_module_names) | beside) == {"site"}, "the site is the folder's own name, and nothing starts there"
