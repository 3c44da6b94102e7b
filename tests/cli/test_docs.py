"""What `captoken docs WORD...` finds, and the skill for coding agents: its code runs."""

import os
import pty
import re
import select
import subprocess
import sys
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import pytest

from captoken.cli.docs import find
from tests.program import CAPTOKEN

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {page.stem: page.read_text("utf-8") for page in sorted(DOCS.glob("*.md"))}
SKILL = (files("captoken") / "cli" / "skill.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("asked", "page"),
    [
        ("behind nginx", "recipes"),
        ("budget", "glossary"),
        ("django", "recipes"),
        ("downscope", "glossary"),
        ("how do I revoke a token", "glossary"),
        ("limit", "limits"),
        ("prompt injection", "recipes"),
        ("read only", "recipes"),
        ("rotate keys", "recipes"),
        ("StatementError", "errors"),
        ("stripe key", "recipes"),
        ("tenant", "recipes"),
        ("Kubernetes", "issuance-kubernetes"),
        ("workers", "http"),
        ("fastapi workers", "http"),
        ("symlink", "constraints"),
        ("Decimal", "tools"),
        ("pathlib", "tools"),
        ("human approval", "recipes"),
        ("approval", "recipes"),
        ("approve a call", "consent"),
        ("user confirmation", "recipes"),
        ("human in the loop", "recipes"),
        ("nginx", "recipes"),
        ("reverse proxy", "recipes"),
        ("end a task", "recipes"),
        ("who refused", "recipes"),
        ("refusal id", "recipes"),
        ("which caveat refused", "recipes"),
    ],
)
def test_the_section_that_answers_is_found_first(asked, page):
    assert find(asked, PAGES)[0].page == page


def test_what_stands_in_running_text_is_among_what_is_found():
    assert "testing" in [one.page for one in find("unit test", PAGES)[:3]]
    assert "deployment" in [one.page for one in find("several processes", PAGES)] + [one.page for one in find("workers", PAGES)]


def test_what_no_page_says_is_not_found():
    assert find("xyzzy", PAGES) == find("", PAGES) == find("the of", PAGES) == find("budget", {}) == []


def test_a_number_sign_in_code_is_no_heading():
    page = "# Page\n\nOne.\n\n```sh\n# comment\nls\n```\n\n## Below\n\nTwo comments."
    assert [(one.heading, one.begins) for one in find("comment", {"page": page})] == [("Below", "Two comments."), ("Page", "One.")]


def test_the_code_of_the_skill_runs(tmp_path):
    (tmp_path / "skill.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", SKILL, re.DOTALL)), "utf-8")
    ran = subprocess.run([sys.executable, "skill.py"], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("denied argument refund.cents: is more than 500, link 0 by the issuer\n[]\nNot permitted: table hr")


def test_the_skill_cites_pages_that_there_are_and_begins_as_a_skill_does():
    cited = set(re.findall(r"`captoken docs ([a-z-]+)`", SKILL))
    assert len(cited) >= 8 and cited <= set(PAGES)
    head = SKILL.split("---\n")[1]
    assert re.fullmatch(r"name: captoken\ndescription: [^\n]{1,1024}\n", head)


def test_the_accident_waits_for_a_key_at_a_terminal():
    """Between two parts. A key that is typed before it waits is lost, so it is typed again."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": "76", "NO_COLOR": "1"}
    shown, typed_after = b"", []
    with subprocess.Popen([sys.executable, CAPTOKEN, "try"], stdin=theirs, stdout=theirs, stderr=theirs, env=env) as running:
        os.close(theirs)
        while running.poll() is None:
            if select.select([ours], [], [], 0.3)[0]:
                with suppress(OSError):  # Linux says so that the other end is closed
                    shown += os.read(ours, 65536)
            elif shown:
                typed_after.append(shown.count(b"press any key"))
                os.write(ours, b" ")
    os.close(ours)
    assert running.returncode == 0 and shown.count(b"press any key") == 3
    assert set(typed_after) == {1, 2, 3}
    assert shown.rstrip().endswith(b"link 0 by the issuer")
