"""What README and docs show is what happens: their Python runs, and prints what stands below it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

from captoken.cli.docs import docs
from captoken.errors import CODES
from tests import picture, readme
from tests.program import CAPTOKEN
from tests.stores.servers import Postgres

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
# Done as a whole by tests/issuance/test_recipes.py, against what stands in for their platforms.
RECIPES = {"issuance-certificates.md", "issuance-github.md", "issuance-kubernetes.md", "issuance-spire.md"}
# A client of a server that a command of the page starts: `issuance/test_login_clients.py` runs it.
STARTED = {"mcp-login.md"}
# Need large packages, so that not every machine has them: `.ci/nightly large` runs these pages.
ELSEWHERE = {"agents-claude.md": "claude_agent_sdk", "agents-google-adk.md": "google.adk"}
# They show what one keyring does at several servers: a verifier warns of it. No other page gives a server the keys of all.
WITH_ALL_KEYS = {"bearer.md", "keywords.md", "planning.md", "rotation.md"}
# Text that follows Python on a page and is not its output begins so: the files of other programs, and what a command wrote.
NOT_OUTPUT = ("/var/log/orders/trail.jsonl {", "# orchestrator > clerk, task payday:", "maxmemory-policy noeviction")
# Pages that show all that they print.
ALL_OUTPUT = {"README.md", "tutorial.md"}
END = "--- the end of a block ---"
_fence = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    return _fence.findall(page.read_text("utf-8"))


@contextmanager
def asked_for(source: str) -> Iterator[dict[str, str]]:
    """What a page says that its reader has to have: a database, on a server that nobody else has used."""
    if "CAPTOKEN_EXAMPLE_DSN" not in source:
        yield {}
        return
    server = Postgres()
    try:
        yield {"CAPTOKEN_EXAMPLE_DSN": server.conninfo}
    finally:
        server.stop()


def printed_below(page: Path) -> list[tuple[str, str | None]]:
    """The Python of a page, block by block, each with the text that stands right below it as what it prints."""
    found = blocks(page)
    shown: list[tuple[str, str | None]] = []
    for (language, code), (following, text) in pairwise([*found, ("", "")]):
        if language == "python":
            is_output = following == "text" and not text.startswith(NOT_OUTPUT)
            shown.append((code, text if is_output else None))
    return shown


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in RECIPES | STARTED], ids=lambda page: page.name)
def test_the_python_of_a_page_runs_from_top_to_bottom_and_prints_what_stands_below_it(page: Path, tmp_path: Path) -> None:
    """A block of text that follows Python is what that block prints; in `ALL_OUTPUT` all that is printed stands there."""
    if page.name in ELSEWHERE:
        pytest.importorskip(ELSEWHERE[page.name])
    expected = printed_below(page)
    source = f"print({END!r})\n".join(code + "\n" for code, _ in expected)
    (tmp_path / "page.py").write_text(source, "utf-8")
    if page.name in ("from-oauth-scopes.md", "issuance.md", "login-to-mint.md"):
        # One file: what comes later on the page is added to it.
        policy = "\n".join(text for language, text in blocks(page) if language == "toml")
        (tmp_path / "policy.toml").write_text(policy, "utf-8")
    with asked_for(source) as more:
        ran = subprocess.run([sys.executable, "page.py"], cwd=tmp_path, env=os.environ | more, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ("keys that mint for every server" in ran.stderr) == (page.name in WITH_ALL_KEYS), ran.stderr
    printed = ran.stdout.split(END + "\n")
    for (code, shown), output in zip(expected, printed, strict=True) if expected else ():
        if shown is not None or page.name in ALL_OUTPUT:
            assert output == (shown or ""), f"printed by\n{code}"


def test_the_readme_and_the_tutorial_show_what_they_print() -> None:
    """No block of text on them is anything else."""
    for name, shown in (("README.md", 2), ("docs/tutorial.md", 12)):
        texts = [text for language, text in blocks(ROOT / name) if language == "text"]
        assert len(texts) == shown
        assert [text for _, text in printed_below(ROOT / name) if text is not None] == texts


def test_the_picture_in_the_readme_is_of_what_captoken_try_shows() -> None:
    """`python -m tests.picture` draws it anew. It fetches no font."""
    shown = picture.PICTURE.read_text("utf-8")
    assert picture.told(shown) == ["".join(line.split()) for line in picture.written() if line]
    assert picture.told(picture.drawn()) == picture.told(shown) and "url(" not in shown.replace("url(#", "")
    assert "](docs/try.svg)" in (ROOT / "README.md").read_text("utf-8")


def test_the_readme_is_short_and_shows_code_soon() -> None:
    assert len(readme.README.split()) <= 750
    above, _, code = readme.README.partition("```python\n")
    assert len(above.split()) <= 100 and len(code.partition("```")[0].splitlines()) <= 20


def test_the_readme_runs_again_in_the_same_folder_and_its_prose_runs_after_it(tmp_path: Path) -> None:
    """Whoever tries it tries it twice: it may not end what it goes on with. Its prose may, and is short to read."""
    readme.write(tmp_path)
    (tmp_path / "blocks.py").write_text(readme.blocks(), "utf-8")
    first, again, after = (
        subprocess.run([sys.executable, name], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        for name in ("blocks.py", "blocks.py", "readme.py")
    )
    assert first == again and after.startswith(first)
    assert len(readme.CALLS) == 3 and set(after.removeprefix(first).splitlines()) == {
        "reader, task news: 1 allowed, 1 denied",
        "orchestrator, task q3-risk: 0 allowed, 0 denied",
        "orchestrator > sales-agent, task q3-risk: 1 allowed, 1 denied",
    }


def test_the_readme_and_the_example_that_it_links_pass_a_strict_type_checker(tmp_path: Path) -> None:
    """In an empty folder, by mypy; `.ci/run` asks pyright about the same files."""
    checked = readme.write(tmp_path)
    asked = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", *checked]
    ran = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "") and len(checked) == 2


def test_every_page_that_a_docstring_cites_is_there() -> None:
    cited = {
        page for module in (ROOT / "captoken").rglob("*.py") for page in re.findall(r"docs/[\w-]+\.md", module.read_text("utf-8"))
    }
    assert "docs/agents.md" in cited and all((ROOT / page).is_file() for page in cited)


def test_the_wheel_has_what_the_command_shows() -> None:
    """All of docs and examples, where links between them are as good as here; the built wheel is looked at by `.ci/run`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    taken = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    pages = ("docs", "examples", "spec/captoken-v1.md", "spec/README.md", "README.md", "CHANGELOG.md", "SECURITY.md", "ports/typescript/README.md")
    assert taken == {path: f"captoken/_pages/{path}" for path in pages}
    shown = subprocess.run([CAPTOKEN, "docs", "--json"], capture_output=True, text=True, check=True, env={})
    told = json.loads(shown.stdout)
    assert told["folder"] == str(ROOT / "docs") and told["pages"].keys() == {
        *(page.stem for page in ROOT.glob("docs/*.md")), "changelog", "examples", "readme", "security", "spec", "typescript",
    }  # fmt: skip


@pytest.mark.parametrize("packed", [True, False])
def test_pages_come_out_of_the_package_itself_or_of_no_other_folder(packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside an installed package there may be anybody's `docs`."""
    package = tmp_path / "captoken"
    for folder in (tmp_path / "docs", package / "_pages/docs") if packed else (tmp_path / "docs",):
        folder.mkdir(parents=True)
        (folder / "index.md").write_text(f"# of {folder.relative_to(tmp_path)}", "utf-8")
    monkeypatch.setattr("captoken.cli.docs.files", lambda name: package)
    said = CliRunner().invoke(docs, ["index"])
    assert (said.exit_code, said.output) == ((0, "# of captoken/_pages/docs\n") if packed else (1, "Error: this installation came without its pages\n"))


def test_a_page_of_the_wheel_links_to_what_is_in_the_wheel() -> None:
    """But for what the help of `captoken docs` says is in the repository alone."""
    taken = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    shipped = {ROOT / path for path in taken}
    pages = {page for path in shipped for page in ([path] if path.is_file() else path.rglob("*.md"))}
    for page in pages:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
            file = (page.parent / target).resolve()
            there = file in shipped or shipped & set(file.parents)
            assert there or file.name == "CONTRIBUTING.md" or ROOT / "tests" in [file, *file.parents], f"{page.name}: {target}"


def test_every_page_is_in_the_index() -> None:
    listed = (ROOT / "docs/index.md").read_text("utf-8")
    assert [page.name for page in PAGES if page.parent.name == "docs" and f"]({page.name})" not in listed] == ["index.md"]


def test_a_how_to_page_ends_with_where_to_go_on() -> None:
    """In at most three links."""
    parts = tomllib.loads((ROOT / "site/navigation.toml").read_text("utf-8"))["part"]
    how_to = next(part for part in parts if part["name"] == "How-to")
    pages = [page for group in how_to["group"] for page in group["pages"] if page.startswith("docs/")]
    last = {page: (ROOT / page).read_text("utf-8").rstrip("\n").rpartition("\n")[2] for page in pages}
    assert [page for page, line in last.items() if not (line.startswith("Next: ") and 1 <= line.count("](") <= 3)] == []


def test_what_one_is_woken_up_for_are_codes_of_denials() -> None:
    """As many as the page for platform teams says."""
    (table,) = re.findall(r"## What to be woken up for\n\n((?:\|.*\n)+)", (ROOT / "docs/logging.md").read_text("utf-8"))
    codes = [code for row in table.splitlines()[2:] for code in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert len(codes) == 7 and set(codes) <= CODES.keys()
    assert "| seven codes, " in (ROOT / "docs/adopt.md").read_text("utf-8")


def test_every_block_says_what_it_is() -> None:
    """Python is run, beside the file that TOML is; text is what it printed; the two shell commands are the ones that the project is tested by.

    YAML is a platform's, and what ends TLS has a language of its own: both stand in recipes. A pooler's settings are INI.
    TypeScript is compiled by the tests of the port, which know these pages by name.
    """
    assert {language for page in PAGES for language, _ in blocks(page)} <= {"python", "text", "sh", "toml", "yaml", "caddy", "ini", "ts"}
    assert {page.name for page in PAGES for language, _ in blocks(page) if language in ("yaml", "caddy")} <= RECIPES
    compiled = re.findall(r'"([\w-]+)"', re.findall(r"const PAGES = \[(.*)\];", (ROOT / "ports/typescript/tests/pages.test.ts").read_text("utf-8"))[0])
    assert {page.stem for page in PAGES for language, _ in blocks(page) if language == "ts"} == set(compiled)
    assert len([code for language, code in blocks(ROOT / "README.md") if language == "sh"]) == 2


def test_every_link_to_a_file_is_good() -> None:
    """And every heading that a link names is there."""
    for page in [*PAGES, *ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("spec/*.md")]:
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text("utf-8")):
            file = page.parent / target if target else page
            assert file.exists(), f"{page.name}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor in slugs or any(slug.endswith(anchor) for slug in slugs), f"{page.name}: {target}#{anchor}"
