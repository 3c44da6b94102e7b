"""The kernel is what docs/kernel.md goes through, and a program that checks tokens loads little besides (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures import KEYRING, NOW, mint, verifier
from tests.mutation.__main__ import LISTED
from tests.mutation.rooms import ROOMS, kernel

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "kernel.md").read_text("utf-8")
# Of the page: files that have functions alone.
STEPS = re.findall(r"`(\w+)`", PAGE[PAGE.index("*Files of steps*") : PAGE.index("*Files of values*")])

MOST_FILES, MOST_STATEMENTS = 50, 6600


def test_the_page_goes_through_the_files_of_the_contract() -> None:
    named = {name for name in re.findall(r"`(?:\w+/)?(\w+)\.py`", PAGE) if not name.startswith("test_")}
    outside = set(re.findall(r"`(?:[\w]+/)*(\w+)\.py`", PAGE[PAGE.index("## Outside") :])) | {"capability"}
    files = {Path(file).stem for file in kernel()}
    assert files <= named, files - named
    assert named - outside - {"pyproject"} <= files, named - outside - files
    assert all((ROOT / file).is_file() for file in kernel())


@pytest.mark.parametrize("name", STEPS)
def test_a_file_of_steps_has_no_struct(name: str) -> None:
    """What a compiler drops is what stands behind the name of a class."""
    file = next(file for file in kernel() if Path(file).stem == name)
    classes = [node for node in ast.walk(ast.parse((ROOT / file).read_text("utf-8"))) if isinstance(node, ast.ClassDef)]
    assert not [made.name for made in classes if made.keywords]


# One permitted check and one that is refused, in a process that has loaded nothing before.
CHECKS = """
import sys
text = sys.argv[1]
from captoken import Access, Keyring, Verifier
verifier = Verifier(Keyring.from_keys({"k1": bytes(range(1, 33))}, current="k1"), clock=lambda: float(sys.argv[2]))
assert verifier.check(text, Access(table="sales", operation="select"))
assert "logging" not in sys.modules, "a denial is logged, and nothing else is"
assert not verifier.check(text, Access(table="hr", operation="select"))
print("\\n".join(f"{name} {getattr(module, '__file__', None) or ''}" for name, module in sys.modules.items()))
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, str]:
    """Of each module that is loaded, its file."""
    text = mint().delegate(to="b").serialize()
    assert KEYRING.reveal("k1") == bytes(range(1, 33))
    said = subprocess.run([sys.executable, "-c", CHECKS, text, str(NOW)], cwd=ROOT, capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in said.stdout.splitlines())


def statements(file: str) -> int:
    """How many statements a file has, docstrings aside."""
    tree = ast.parse(Path(file).read_text("utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    count = sum(isinstance(node, ast.stmt) for node in ast.walk(tree))
    return count - sum(isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None for node in ast.walk(tree))


def test_what_checks_tokens_loads_little(loaded: dict[str, str]) -> None:
    """Of captoken: by files, and by statements in them."""
    files = [file for name, file in loaded.items() if name.partition(".")[0] == "captoken" and file]
    assert 30 < len(files) <= MOST_FILES, sorted(files)
    assert 3000 < sum(map(statements, files)) <= MOST_STATEMENTS


@pytest.mark.parametrize(
    "name",
    ["ast", "asyncio", "copy", "dataclasses", "inspect", "ipaddress", "json", "nacl", "captoken._writing", "captoken.keys.secret"],
)
def test_what_most_programs_never_call_is_not_loaded(name: str, loaded: dict[str, str]) -> None:
    """Nor what writes tokens, nor libsodium. `typing_extensions`, where it is installed, is loaded by msgspec, and loads three of these."""
    by_msgspec = {"ast", "inspect", "json"} if "typing_extensions" in loaded else set()
    assert name not in loaded or name in by_msgspec


def test_public_names_are_there_to_be_found_before_they_are_loaded() -> None:
    """`dir` names them, and a name that is none is an AttributeError."""
    import captoken
    from captoken import keys

    assert set(captoken.__all__) <= set(dir(captoken)) and set(keys.__all__) <= set(dir(keys))
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = captoken.Nothing  # type: ignore[attr-defined]


def test_a_caveat_that_looks_at_no_value_counts_nothing() -> None:
    """`uses` and `budget` are asked of the ledger; and what an access has many of is copied as it is."""
    from captoken import Access
    from captoken._language.caveats import V1
    from captoken._language.link import Link
    from captoken._language.links import read_link
    from captoken._language.work import looked

    link = read_link(b'{"n":"AAAAAAAAAAA","uses":1}', V1)
    many = {f"key-{number}": number for number in range(2000)}
    access = Access(tool="t", arguments={"all": many})
    assert isinstance(link, Link) and list(looked([link], access)) == []
    assert access.arguments is not None and access.arguments["all"] == many


def test_both_grants_say_what_the_token_can_do() -> None:
    grant = verifier().authenticate(mint().serialize())
    assert grant.blocking is grant and grant.awaited.capability == grant.capability


@pytest.mark.parametrize("name", ROOMS)
def test_what_is_mutated_and_who_has_to_see_it_are_there(name: str) -> None:
    room = ROOMS[name]
    assert [path for path in room.tests if not (ROOT / path).is_file()] == []
    assert [pattern for pattern in room.mutated if not any(ROOT.glob(pattern))] == []


def test_a_fault_that_need_not_be_seen_is_one_of_lines_that_are_there() -> None:
    for each in json.loads(LISTED.read_text("utf-8")):
        source = " ".join((ROOT / each["file"]).read_text("utf-8").split())
        assert " ".join(each["was"].split()) in source, each
