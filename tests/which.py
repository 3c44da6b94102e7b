"""Which tests, vectors and claims cover a file or a rule: `python -m tests.which FILE|RULE`, to be asked before a change.

    python -m tests.which 24.12
    python -m tests.which captoken/_language/tool.py

Of a rule: its vectors by family, the tests and claims that cite it, and the code that does. A test cites a rule by its number in
a comment or a docstring, with the section's number before a dot. Of a file: the tests of its name, those that import what it
defines, those of the files that import it, the claims whose fault is made in it, and the rules that it cites with what covers them.

It reads imports and citations, and runs nothing. So it says where to begin, and not what is left out.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.assurance.claims import Claim, claims, rules_of
from tests.vectors import runner

ROOT = Path(__file__).parent.parent
SPECIFICATION = ROOT / "spec/captoken-v1.md"

# A number of a rule, and no part of a version, an address or a fraction that is computed with.
_RULE = re.compile(r"(?<![\w.])(\d{1,2}\.\d{1,2})(?![\w.]*\d|\w)")
_SHOWN = 3  # of the tests of a file that stands on the one that is asked about
_IMPORT = re.compile(r"^ *from (captoken[\w.]*) import (?:\(([^)]*)\)|(.*))$", re.MULTILINE)


class Covered(NamedTuple):
    """What covers a file or a rule, each as it is named where it stands."""

    tests: tuple[str, ...]
    claims: tuple[str, ...]
    vectors: Mapping[str, int]  # by family
    code: tuple[str, ...] = ()  # of a rule: the files that cite it
    rules: tuple[str, ...] = ()  # of a file: those that it cites
    through: tuple[str, ...] = ()  # of a file: those that import it, with the tests of their names


@cache
def rules() -> dict[str, str]:
    """Each rule of the specification with its words."""
    return rules_of(SPECIFICATION.read_text("utf-8"))


@cache
def _sources(folder: str) -> dict[str, str]:
    """The text of each program below a folder, by its path."""
    found = sorted((ROOT / folder).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in found if "node_modules" not in path.parts}


@cache
def _tests() -> dict[str, str]:
    """The name of each program below `tests`, by its path."""
    return {file: file.rpartition("/")[2] for file in _sources("tests")}


def _files() -> dict[str, str]:
    """The programs of the package."""
    return _sources("captoken")


# --- citations ------------------------------------------------------------------------------------


def cited_in(source: str) -> dict[str, int]:
    """The numbers in docstrings and comments of a program, each with its first line. Those in code are numbers to compute with."""
    found: dict[str, int] = {}
    is_text = False
    for at, line in enumerate(source.splitlines(), 1):
        parts = line.split('"""')
        for part, piece in enumerate(parts):
            is_text ^= part > 0
            for number in _RULE.findall(piece if is_text else piece.partition("# ")[2]):
                found.setdefault(number, at)
    return found


@cache
def cited(folder: str) -> dict[str, dict[str, int]]:
    """By file: the rules that it cites."""
    return {file: cited_in(source) for file, source in _sources(folder).items()}


@cache
def _by_rule() -> dict[str, Counter[str]]:
    """By rule: how many vectors of each family cite it."""
    found: dict[str, Counter[str]] = {}
    for family in runner.families():
        for vector in family["vectors"]:
            found.setdefault(vector["rule"], Counter())[family["family"]] += 1
    return found


@cache
def of_rule(number: str) -> Covered:
    """What covers a rule. Raises KeyError for one that there is not."""
    rules()[number]
    tests = [_test_at(file, lines[number]) for file, lines in cited("tests").items() if number in lines]
    code = [f"{file}:{lines[number]}" for file, lines in cited("captoken").items() if number in lines]
    return Covered(
        tests=tuple(test for test in tests if test is not None),
        claims=tuple(_said(claim) for claim in claims() if number in claim.rules),
        vectors=_by_rule().get(number, {}),
        code=tuple(code),
    )


def _test_at(file: str, line: int) -> str | None:
    """The test that a line of a file is in, or the file; None for a file of no tests."""
    if not Path(file).name.startswith("test_"):
        return None
    tests = re.findall(r"^ *(?:async )?def (test_\w+)", "\n".join(_sources("tests")[file].splitlines()[:line]), re.MULTILINE)
    return f"{file}::{tests[-1]}" if tests else file


def _said(claim: Claim) -> str:
    return f"{claim.name} {claim.test}: {claim.says}"


# --- imports --------------------------------------------------------------------------------------


def _module(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def _defined() -> dict[str, set[str]]:
    """By name: the files of the package that define it."""
    found: dict[str, set[str]] = {}
    for file, source in _files().items():
        for name in re.findall(r"^(?:class|def|async def) (\w+)", source, re.MULTILINE):
            found.setdefault(name, set()).add(file)
    return found


@cache
def _imported(file: str) -> frozenset[str]:
    """The files of the package of which a file imports something, through whatever public name."""
    files = {_module(one): one for one in _files()}
    found: set[str] = set()
    for module, many, few in _IMPORT.findall(_sources(file.partition("/")[0])[file]):
        for name in re.findall(r"(\w+)(?: as \w+)?", many or few):
            behind = _defined().get(name, set()) if "._" not in module else set()
            found |= behind | {files[one] for one in (module, f"{module}.{name}") if one in files}
    return frozenset(found - {file})


def _named(file: str) -> list[str]:
    """The tests that have the name of a file, or of the folder that it is in."""
    path = Path(file)
    names = {f"test_{path.stem.strip('_')}.py", f"test_{path.parent.name.strip('_')}.py"}
    return [test for test, name in _tests().items() if name in names]


def _importing(file: str) -> list[str]:
    return [test for test, name in _tests().items() if name.startswith("test_") and file in _imported(test)]


def of_file(file: str) -> Covered:
    """What covers a file of the package. Raises KeyError for one that there is not."""
    _files()[file]
    tests = {*_named(file), *_importing(file)}
    # What is inside is tested through what stands on it.
    below, through, seen = {file}, dict[str, list[str]](), {file}
    while below and not any(through.values()):
        below = {one for one in _files() if one not in seen and not _imported(one).isdisjoint(below)}
        through = {one: _named(one) or _importing(one)[:_SHOWN] for one in sorted(below)}
        seen |= below

    own = [claim for claim in claims() if f"captoken/{claim.mutation.file}" == file]
    numbers = [number for number in cited("captoken")[file] if number in rules()]
    families: Counter[str] = Counter()
    for number in numbers:
        families.update(_by_rule().get(number, {}))
        tests.update(test.partition("::")[0] for test in of_rule(number).tests)
    return Covered(
        tests=tuple(sorted(tests)),
        claims=tuple(map(_said, own)),
        vectors=families,
        rules=tuple(sorted(numbers, key=lambda number: [int(part) for part in number.split(".")])),
        through=tuple(f"{one}: {' '.join(named)}" for one, named in through.items() if named),
    )


# --- what is not covered --------------------------------------------------------------------------


def uncovered() -> list[str]:
    """The rules that have no vector, no test and no claim, and no mark that says why there can be none.

    `[meaning]` is such a mark: the rule says what others come to. `[running]` and `[transport]` say why there is no vector.
    """
    tested = {number for file, numbers in cited("tests").items() if Path(file).name.startswith("test_") for number in numbers}
    tested |= {number for claim in claims() for number in claim.rules} | _by_rule().keys()
    return [number for number, text in rules().items() if number not in tested and not text.startswith("[meaning]")]


def _report(covered: Covered) -> Iterator[str]:
    vectors = [f"{family}.json: {count}" for family, count in covered.vectors.items()]
    parts: dict[str, Iterable[str]] = {
        "tests": covered.tests, "through": covered.through, "claims": covered.claims, "vectors": vectors, "code": covered.code,
        "rules": covered.rules,
    }  # fmt: skip
    for name, lines in parts.items():
        shown = [" ".join(lines)] if name == "rules" and lines else list(lines)
        yield from (f"{name if at == 0 else '':<9}{line}" for at, line in enumerate(shown))


def main(asked: list[str]) -> int:
    """Print what covers each file or rule. 1 where something is neither."""
    for one in asked:
        number = re.fullmatch(r"\d+\.\d+", one) is not None
        file = one if number else (Path.cwd() / one).resolve().relative_to(ROOT).as_posix()
        try:
            covered = of_rule(one) if number else of_file(file)
        except KeyError:
            print(f"{one} is no rule of the specification, and no file of the package", file=sys.stderr)
            return 1
        print(one, rules()[one][:150] if number else "")
        print("\n".join(_report(covered)))
    return 0 if asked else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
